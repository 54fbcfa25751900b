#!/usr/bin/perl

# t/35-again.t with s3_zero_copy off.

use strict;
use warnings;

$ENV{T_ZERO_COPY} = 'off';
exec $^X, '-It/lib', 't/35-again.t' or die "t/35-again.t: $!";
