#!/usr/bin/perl

# t/30-faults.t with s3_zero_copy off.

use strict;
use warnings;

$ENV{T_ZERO_COPY} = 'off';
exec $^X, '-It/lib', 't/30-faults.t' or die "t/30-faults.t: $!";
