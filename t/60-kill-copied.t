#!/usr/bin/perl

# t/60-kill.t with s3_zero_copy off.

use strict;
use warnings;

$ENV{T_ZERO_COPY} = 'off';
exec $^X, '-It/lib', 't/60-kill.t' or die "t/60-kill.t: $!";
