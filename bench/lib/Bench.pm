package Bench;

# What the scripts of the benchmark stand on: the servers between which bytes
# move, rounds in which every variant has its turn, and the results.
#
#   my $b = Bench->new('gate', title => 'The gate', pairs => 9, size => '1g');
#   my $null = $b->null;                          # S3T::Null
#   my $n = $b->nginx([qw/ upload s3 unsigned /], null => $null);
#   my @variants = ({ name => 'off', nginx => $n }, ...);
#   $b->rounds(\@variants, sub { $b->put_body($_[0]{nginx}) });
#   $b->section("Text.\n\n", table([qw/ variant CPU /], map { [ $_->{name},
#       spread($_->{series}{cpu}) ] } @variants));
#
# Of the environment: PAIRS (rounds that count, one more before them does not),
# SIZE (bytes of a body: n, nk, nm, ng), ONLY (a pattern: the scripts leave out
# what does not match). What ONLY or fewer than 9 pairs gave is printed and not
# written to results.md.

use strict;
use warnings;

use Exporter 'import';
use File::Path qw/ remove_tree /;
use List::Util qw/ first max /;
use Time::HiRes qw/ sleep time /;

use Bench::Results qw/ counts machine write_section /;
use Bench::Stat qw/ median met quartiles ratio ratios spread table /;
use S3T::Nginx;
use S3T::Null;
use S3T::Util qw/ $STATE $TOP children end_child open_dir read_file spawn
    state_dir wait_child wait_exit wait_for /;

our @EXPORT = qw/ $TOP bytes cpu cpu_all find median met peak progress
    quartiles ratio ratios read_file rss spread table template /;

use constant { GiB => 2 ** 30, MiB => 2 ** 20 };

my $owner = $$;
my @all;

$SIG{$_} = sub { exit 1 } for qw/ INT TERM HUP /;


# The script's name (its section in results.md), title, and defaults: pairs, size;
# least (9): pairs below which nothing is written
sub new {
    my ($class, $name, %o) = @_;
    my ($load) = split ' ', read_file('/proc/loadavg');
    my $s = bless {
        name => $name, load => $load, began => time, pairs => 9, size => '1g',
        least => 9,
        servers => [], tools => {}, number => 0, %o,
    }, $class;

    $s->{pairs} = $ENV{PAIRS} if $ENV{PAIRS};
    $s->{size} = bytes($ENV{SIZE} || $s->{size});
    $s->{only} = $ENV{ONLY};
    system("$TOP/t/lib/certs", $s->certs) == 0
        or die "bench: no certificates\n";
    $s->{dir} = open_dir(state_dir('bench'), $name);
    push @all, $s;
    return $s;
}

sub dir { $_[0]{dir} }
sub pairs { $_[0]{pairs} }
sub size { $_[0]{size} }
sub certs { "$STATE/certs" }
sub ca { "$STATE/certs/ca.pem" }

# Whether ONLY lets this through.
sub wanted {
    my ($s, $what) = @_;
    return !defined $s->{only} || $what =~ /$s->{only}/;
}


# helpers that need no object

sub bytes {
    my ($n, $unit) = $_[0] =~ /^(\d+)([kmg]?)$/i
        or die "bench: SIZE=n, nk, nm or ng\n";
    return $n * { '' => 1, k => 2 ** 10, m => MiB, g => GiB }->{lc $unit};
}

# Debian's before what else there may be of that name
sub find {
    my ($name) = @_;
    return first { -x } map { "$_/$name" } qw{ /usr/bin /usr/sbin },
        split(/:/, $ENV{PATH}), '/usr/local/sbin';
}

sub progress {
    print STDERR "\r\e[K$_[0]" if -t STDERR;
}

# Seconds that a process of one thread ran, such as a worker.
sub cpu {
    my ($ns) = split ' ', read_file("/proc/$_[0]/schedstat") // '';
    die "bench: process $_[0] died\n" if !defined $ns;
    return $ns / 1e9;
}

# The same of all threads of a process, in ticks of 10 ms.
sub cpu_all {
    my ($fields) = (read_file("/proc/$_[0]/stat") // '') =~ /.*\) (.*)/s
        or die "bench: process $_[0] died\n";
    return ((split ' ', $fields)[11] + (split ' ', $fields)[12]) / 100;
}

sub _status {
    my ($pid, $field) = @_;
    my ($kb) = (read_file("/proc/$pid/status") // '') =~ /^$field:\s+(\d+)/m
        or die "bench: process $pid died\n";
    return $kb / 1024;
}

# MiB resident: the most there ever were, and those now
sub peak { return _status($_[0], 'VmHWM') }
sub rss { return _status($_[0], 'VmRSS') }

# bench/nginx.conf for these flags: of the lines that begin with "name:" those
# of the flags.
sub template {
    my %flags = map { $_ => 1 } @_;
    return join '', grep { !s/^(\w+):// || $flags{$1} }
        split /^/, read_file("$TOP/bench/nginx.conf");
}


# servers

# A null S3, on a port and one for TLS: options of s3_null
sub null {
    my ($s, @options) = @_;
    my $null = S3T::Null->new($s->{dir}, '--port', 0, '--tls-port', 0, '--cert',
        $s->certs . '/server.pem', '--key', $s->certs . '/server.key',
        @options);
    push @{$s->{servers}}, $null;
    return $null;
}

# A running nginx of one worker, ->{worker} its id. What it does: the flags of
# bench/nginx.conf, or the text of a configuration (tokens as in tests). null:
# its S3; buffer, preread (64k); tokens { }; connections, workers.
sub nginx {
    my ($s, $what, %o) = @_;
    my $null = delete $o{null};
    my %flags = ref $what ? map { $_ => 1 } @$what : ();
    my %tokens = (
        CERTS => $s->certs, CA => $s->ca,
        LISTEN => ($flags{tls} ? '%%PORT_tls%% ssl' : '%%PORT%%')
            . ($flags{http2} ? ' http2' : ''),
        BUFFER => delete $o{buffer} || '64k',
        PREREAD => delete $o{preread} || '64k',
        $null ? (
            S3 => $null->url($flags{https}),
            S3_PORT => $flags{https} ? $null->{tls_port} : $null->{port},
            SCHEME => $flags{https} ? 'https' : 'http',
            ORIGIN => "127.0.0.1:$null->{port}") : (),
        %{delete $o{tokens} || {}});
    my $n = S3T::Nginx->new(ref $what ? template(@$what) : $what,
        dir => "$s->{dir}/nginx" . $s->{number}++, level => 'warn',
        module => !ref $what || $flags{s3}, tokens => \%tokens,
        connections => 1024, %o);
    push @{$s->{servers}}, $n;
    $n->start;
    ($n->{worker}) = $n->workers;
    $n->{null} = $null;
    $n->{flags} = \%flags;
    return $n;
}

# Ends one that has nothing more to do.
sub end_nginx {
    my ($s, $n) = @_;
    $s->{servers} = [ grep { $_ != $n } @{$s->{servers}} ];
    $n->stop;
}

# A command in the place of a server, ended with the script: its id.
sub background {
    my ($s, $name, @command) = @_;
    return spawn({ stdout => "$s->{dir}/$name.out",
        stderr => "$s->{dir}/$name.err" }, @command);
}


# what moves bytes

# Runs a command to its end: { failed, said, wall }, said being all it wrote. A
# code reference before it is called all the time.
sub run {
    my ($s, @command) = @_;
    my $watch = ref $command[0] ? shift @command : undef;
    my $said = "$s->{dir}/said";
    my $failed;
    unlink "$said.err";
    my $from = time;
    my $pid = spawn({ stdout => $said, stderr => "$said.err" }, @command);
    while ($watch && !defined $failed) {
        $watch->();
        $failed = wait_exit($pid, 0.02);
    }
    $failed = wait_child($pid) if !$watch;
    return { failed => $failed, wall => time - $from,
        said => read_file($said) . read_file("$said.err") };
}

# What the null S3 counted, once no more uploads are open there than so many
# (0), and $done->(counts).
sub settled {
    my ($s, $null, $done, $open) = @_;
    my $stats;
    wait_for {
        $stats = $null->stats;
        $stats->{open_uploads} <= ($open || 0) && (!$done || $done->($stats));
    } 10, 0.02;
    return $stats;
}

# One upload of the pattern through this nginx, which must arrive whole: what
# it took of the worker's CPU, until the object is there and 0.1 s more, and of
# time, in seconds a GiB: { cpu, wall }. size; args [ ] of the client, e.g.
# --chunk; key; watch, for run().
sub put_body {
    my ($s, $n, %o) = @_;
    my $size = $o{size} || $s->{size};
    my $key = $o{key} || 'put-' . $s->{number}++;
    my $client = $n->{flags}{http2} ? 'body_h2' : 'body_gen';
    my $url = $n->url("/$key", $n->{flags}{tls} ? 'tls' : '');
    my $before = $n->{null}->stats;
    my $cpu = cpu($n->{worker});
    my $r = $s->run($o{watch} || (), "$TOP/build/$client", '--cacert', $s->ca,
        @{$o{args} || []}, $url, $size);
    my $after = $s->settled($n->{null},
        sub { $_[0]{objects} > $before->{objects} }, $before->{open_uploads});

    # what the worker does after the answer counts too

    sleep 0.1;
    $cpu = cpu($n->{worker}) - $cpu;
    $s->fail("an upload failed\n$r->{said}", $n)
        if $r->{failed} || $r->{said} !~ m{(?:^|\n)HTTP/(?:1\.1|2) 20[01]\b};
    $s->arrived($before, $after, 1, $size)
        or $s->fail("an upload did not arrive whole\n", $n);
    return { cpu => $cpu / $size * GiB, wall => $r->{wall} / $size * GiB };
}

# Puts objects of so many bytes over kept connections with one request at a time
# each, to the same keys each time, or the null S3 would grow (requests,
# connections): { rate, a second, p99 in ms, cpu of one in s, busy }
sub put_objects {
    my ($s, $n, $bytes, %o) = @_;
    my $cpu = cpu($n->{worker});
    my $r = $s->run("$TOP/build/body_load", '--connections', $o{connections},
        '--requests', $o{requests}, '--seconds', 100, $n->url("/$bytes-"),
        $bytes);
    my %said = $r->{said} =~ /(\w+) ([\d.]+)/g;

    $cpu = cpu($n->{worker}) - $cpu;
    $s->fail("not all requests were answered\n$r->{said}", $n)
        if $r->{failed} || $said{failed} || $said{requests} != $o{requests};
    $s->fail("a body did not arrive whole\n", $n) if $n->{null}->stats->{bad};
    return { rate => $said{rate}, p99 => $said{p99},
        cpu => $cpu / $o{requests}, busy => $cpu / $said{seconds} };
}

# Whether the null S3 got just these bytes in so many objects since.
sub arrived {
    my ($s, $before, $after, $objects, $bytes) = @_;
    return $after->{objects} - $before->{objects} == $objects
        && $after->{bytes} - $before->{bytes} == $bytes
        && $after->{open_uploads} <= $before->{open_uploads} && !$after->{bad};
}

sub fail {
    my ($s, $what, $n) = @_;
    die "\nbench: $what", $n ? $n->log : '';
}


# rounds

# Calls $measure->(variant, round) for every variant { name => ... } in turn,
# every second round in reverse order, so that what else the machine does meets
# all of them. It returns { figure => number } (or nothing: this one does not
# count), which become $variant->{series}{figure}[round].
#
# A variant { start => code } gets a new $variant->{nginx} from it each round, and
# $warm->(variant), else one measurement that does not count, before it is
# measured: one process differs from another of the same program by 5 % and more,
# which the rounds of one process do not show.
# $variant->{peak}: the most that any of them held.
sub rounds {
    my ($s, $variants, $measure, $warm) = @_;
    for my $round (0 .. $s->{pairs}) {
        for my $v ($round % 2 ? reverse @$variants : @$variants) {
            next if $v->{start} && !$round;
            progress("$s->{name}: round $round of $s->{pairs}, $v->{name}");
            if ($v->{start}) {
                $s->end_nginx($v->{nginx}) if $v->{nginx};
                $v->{nginx} = $v->{start}->();
                ($warm || $measure)->($v, $round);
            }
            my $got = $measure->($v, $round);
            $v->{peak} = max($v->{peak} || 0, peak($v->{nginx}{worker}))
                if $v->{start};
            next if !$got || !$round;
            $v->{series}{$_}[$round - 1] = $got->{$_} for keys %$got;
        }
    }
    progress('');
}


# results

# The version of a tool becomes part of the machine's description.
sub tool {
    my ($s, $name, $version) = @_;
    $s->{tools}{$name} = $version;
}

# Prints the text of the script, and makes it its section in results.md.
sub section {
    my ($s, @text) = @_;
    my $text = sprintf "## %s\n\n%s\n\n%s", $s->{title} || $s->{name},
        machine($s->{load}, $s->{tools}), join '', @text;
    print "$text\n";
    if (counts($s->{pairs}, $s->{least})) {
        write_section("$TOP/bench/results.md", $s->{name}, $text);
    } else {
        print STDERR "(not written: ONLY, or fewer than $s->{least} pairs)\n";
    }
}


END {
    # $? is what the script exits with; commands run here would change it
    my $status = $?;
    if ($$ == $owner) {
        for my $s (@all) {
            $_->stop for reverse @{$s->{servers}};
        }
        end_child($_) for children();
        for my $s (@all) {
            $status ? warn "bench: logs: $s->{dir}\n" : remove_tree($s->{dir});
        }
    }
    $? = $status;
}

1;
