package Bench::Results;

# bench/results.md: a section of each script between marks, which the script
# writes anew, and the machine.

use strict;
use warnings;

use Exporter 'import';
use POSIX qw/ strftime /;
use S3T::Nginx;
use S3T::Util qw/ $TOP read_file write_file /;

our @EXPORT_OK = qw/ @ORDER counts machine verdicts write_section /;

# The scripts, in the order in which bench/all runs them and their sections
# stand; "all" is its own.
our @ORDER = qw/ all upload wall peers small memory stalled gate growth records
    download /;

my $head = <<'END';
# Figures of the benchmark

Written by `make bench`; [README.md](README.md) tells what is measured and how.
END


# The date, the machine, what runs on it, and its load before that.
sub machine {
    my ($load, $tools) = @_;
    my $info = read_file('/proc/cpuinfo');
    my ($model) = $info =~ /^model name\s*:\s*(.*)/m;
    my $cores = () = $info =~ /^processor\s*:/mg;
    my ($memory) = read_file('/proc/meminfo') =~ /^MemTotal:\s+(\d+)/m;
    my ($kernel) = read_file('/proc/version') =~ /^Linux version ([\d.]+)/;
    my ($debian) = read_file('/etc/os-release') =~ /^PRETTY_NAME="(.*)"/m;
    my $nginx = S3T::Nginx::binary();
    my $v = `$nginx -V 2>&1`;
    my ($version) = $v =~ m!nginx/(\S+)!;
    my ($ssl) = $v =~ /running with (OpenSSL \S+)/;
    my $commit = `git -C $TOP rev-parse --short=10 HEAD 2>/dev/null`;

    ($ssl) = $v =~ /built with (OpenSSL \S+)/ if !$ssl;
    chomp $commit;
    return join ', ', sprintf("%s%s; %s, %d cores, %.1f GiB; Linux %s, %s, "
            . "nginx %s, %s", strftime('%d %b %Y', gmtime),
            length $commit ? ", commit $commit" : '', $model // '?', $cores,
            $memory / 2 ** 20, $kernel, $debian // '?', $version, $ssl // '?'),
        (map { "$_ $tools->{$_}" } sort keys %$tools),
        "load $load before the run.";
}

# Whether what is measured goes to the file: not what ONLY or fewer pairs gave.
sub counts {
    my ($pairs) = @_;
    return !defined $ENV{ONLY} && $pairs >= 9;
}

sub _sections {
    return (read_file($_[0]) // '')
        =~ /^<!-- begin (\w+) -->\n(.*?)^<!-- end \1 -->\n/msg;
}

# How many targets the file says are met, and not met and where.
sub verdicts {
    my %section = _sections($_[0]);
    my ($met, @missed) = 0;
    for my $name (grep { defined $section{$_} } @ORDER) {
        my $missed = () = $section{$name} =~ /: \*\*not met\*\*/g;
        $met += () = $section{$name} =~ /: met/g;
        push @missed, "$missed in $name" if $missed;
    }
    return "Targets met: $met; not met: "
        . (join(', ', @missed) || 'none') . ".\n";
}

# Puts the text in the place of the section of this name; undef: there is none.
sub write_section {
    my ($file, $name, $text) = @_;
    my %section = _sections($file);

    $section{$name} = $text;
    write_file($file, join "\n", $head,
        map { "<!-- begin $_ -->\n$section{$_}<!-- end $_ -->\n" }
        grep { defined $section{$_} } @ORDER);
}

1;
