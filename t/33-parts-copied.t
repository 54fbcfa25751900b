#!/usr/bin/perl

# t/33-parts.t with s3_zero_copy off.

use strict;
use warnings;

$ENV{T_ZERO_COPY} = 'off';
exec $^X, '-It/lib', 't/33-parts.t' or die "t/33-parts.t: $!";
