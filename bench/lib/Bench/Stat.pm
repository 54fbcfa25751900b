package Bench::Stat;

# Medians with their quartiles, ratios of pairs, and tables of them.

use strict;
use warnings;

use Exporter 'import';

our @EXPORT_OK = qw/ median met quartiles ratio ratios spread table /;


# Between the two that are nearest, where it is between them.
sub _quantile {
    my ($p, @n) = @_;
    my $at = $p * $#n;
    my $i = int $at;
    return $n[$i] if $i == $#n;
    return $n[$i] + ($at - $i) * ($n[$i + 1] - $n[$i]);
}

# (lower quartile, median, upper quartile) of the numbers that are defined
sub quartiles {
    my @n = sort { $a <=> $b } grep { defined } @_;
    return () if !@n;
    return map { _quantile($_, @n) } 0.25, 0.5, 0.75;
}

sub median {
    return (quartiles(@_))[1];
}

# Of each pair, the one's number to the other's: a list, for those rounds that
# both have.
sub ratios {
    my ($of, $to) = @_;
    return map { $of->[$_] / $to->[$_] }
        grep { defined $of->[$_] && defined $to->[$_] } 0 .. $#$of;
}

# "median (lower quartile to upper quartile)" of a series; digits (3)
sub spread {
    my ($series, $digits) = @_;
    $digits //= 3;
    my ($lower, $median, $upper) = quartiles(@{$series || []}) or return '-';
    return sprintf "%.${digits}f (%.${digits}f to %.${digits}f)", $median,
        $lower, $upper;
}

# The same of the pairs' ratios.
sub ratio {
    my ($of, $to, $digits) = @_;
    return '1' if $of == $to;
    return spread([ratios($of, $to)], $digits // 2);
}

# What is aimed at, and whether it is reached: met(value, '<=', 1.03),
# met(value, '>=', 15, 'x'); several triples or quadruples may be given as
# array references, all of which have to hold.
sub met {
    my @targets = ref $_[0] ? @_ : [@_];
    my ($ok, @said) = 1;
    for (@targets) {
        my ($value, $relation, $bound, $unit) = @$_;
        return '-' if !defined $value;
        $ok &&= $relation eq '<=' ? $value <= $bound : $value >= $bound;
        push @said, ($relation eq '<=' ? '≤ ' : '≥ ') . $bound
            . (defined $unit ? $unit : '');
    }
    return join(', ', @said) . ($ok ? ': met' : ': **not met**');
}

# A table of Markdown: [ head ], [ row ] ...
sub table {
    my ($head, @rows) = @_;
    return join '', map { '| ' . join(' | ', map { $_ // '' } @$_) . " |\n" }
        $head, [ ('---') x @$head ], @rows;
}

1;
