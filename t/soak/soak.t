#!/usr/bin/perl

# For SOAK_TIME minutes (15), at most SOAK_COUNT uploads: mixed uploads of 0 to
# 100 MB, known length, chunked, HTTP/2, TLS; clients that leave, clients that
# are slow at full-length time-outs; a null S3 that fails in every way it knows
# and a real one; reloads, and workers killed. All answers are right, and
# nothing grows or stays behind.
#
# One nginx lives through reloads and kills. The other is left alone, so that
# its memory and descriptors can be held against those of an earlier hour: it is
# let idle after the first third and at the end.

use strict;
use warnings;

use lib 't/lib';
use HTTP::Tiny;
use JSON::PP ();
use List::Util qw/ max sum sum0 /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Null qw/ body_gen /;
use S3T::Util ();

use constant {
    CLIENTS => 5,            # at a time and nginx
    RELOAD => 40,            # s between two
    KILL => 150,
    IDLE => 12,              # s; what nobody needs goes back after 5
    STALL => 25,             # s, S3 waits for 20
};

my $minutes = $ENV{SOAK_TIME} || 15;
my $limit = $ENV{SOAK_COUNT} || 100_000;
my $kills = $ENV{SOAK_KILL} // 1;
my $seed = $ENV{SOAK_SEED} || time & 0xffff;
my $span = 60 * $minutes;
my $began = time;

srand $seed;
diag "$minutes minutes, seed $seed";

my $t = S3T->new;
my $s3 = $t->s3;
my $null = S3T::Null->new($t->dir, qw/ --verify --crc32 --latency 2
    --slowdown 31 --reset 37 --early 41 --hang 997 --complete-error 17
    --complete-lost 19 --idle-close 23 --stall 20000 /);
my $redis = $t->redis;
my %http = map { $_ => HTTP::Tiny->new(timeout => 30, proxy => undef,
    http_proxy => undef) } qw/ a b null /;

$t->token(NULL => $null->url);

my $conf = <<'EOF';
%%MAIN%%
http {
    %%HTTP%%
    keepalive_requests 1000000;
    s3_memory 192m;
    s3_part_size 5m;
    s3_transfer_id $arg_id;
    s3_progress_redis redis://%%REDIS%% prefix=%%PREFIX%%;
    s3_reaper redis lease=10s;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl http2;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        location /null/ {
            s3_endpoint %%NULL%%;
            s3_bucket bucket;
            s3_credentials static testaccess testsecret;
            s3_checksum crc32;
            s3_upload;
        }
        location /real/ { %%S3%% s3_upload; }
        location /transfers/ { s3_status; }
    }
}
EOF

my %nginx = map { $_ => $t->nginx($conf, workers => 2) } qw/ a b /;

my (%did, @wrong, %bytes, @running, @at_kill, @later);
my ($number, $reloads, $killed) = (0, 0, 0);


sub json { eval { JSON::PP->new->utf8->decode($_[0]) } || {} }

sub totals {
    my ($which) = @_;
    return json($http{$which}->get($nginx{$which}->url('/transfers/'))
        ->{content})->{totals} || {};
}

# of the null S3, which closes connections as it likes, of ours as well
sub null {
    my ($method, $u) = @_;
    my $r;
    for (1 .. 10) {
        $r = $http{null}->request($method, $null->url . "/bucket/$u->{key}");
        last if $r->{status} != 599;
    }
    die "null S3: $r->{content}" if $r->{status} !~ /^(2..|404)$/;
    return $r;
}

# what S3 holds: size, or nothing
sub kept {
    my ($u) = @_;
    if ($u->{where} eq 'null') {
        my $r = null('HEAD', $u);
        return $r->{status} == 200 ? $r->{headers}{'content-length'} : undef;
    }
    my $head = $s3->head($u->{key});
    return $head ? $head->{'content-length'} : undef;
}

sub forget {
    my ($u) = @_;
    if ($u->{where} eq 'null') {
        null('DELETE', $u);
    } else {
        $s3->delete($u->{key});
    }
}


# Clients

sub size {
    my $kind = rand;
    return 0 if $kind < 0.04;
    return 1 + int rand 200 * KB if $kind < 0.4;
    return 1 + int rand 12 * MB if $kind < 0.85;
    return 1 + int rand 40 * MB if $kind < 0.97;
    return 60 * MB + int rand 40 * MB;
}

# files are few: their sums are known
my @sizes = (0, 1, 70_000, 2 * MB, 5 * MB, 5 * MB + 1, 11 * MB, 23 * MB,
    100 * MB);

sub to_null {
    my ($u) = @_;
    my $n = $nginx{$u->{which}};
    $u->{size} = size() if !defined $u->{size};
    my @o = rand() < 0.4 ? ('--chunk', 1 + int rand 300_000) : ();
    my $port = rand() < 0.3 ? 'tls' : undef;
    push @o, '--cacert', $t->ca if $port;
    if ($u->{kind} eq 'cut' && $u->{size}) {
        push @o, rand() < 0.5 ? '--close-after' : '--reset-after',
            int rand $u->{size};
    } else {
        $u->{kind} = 'whole' if $u->{kind} eq 'cut';
    }
    push @o, '--limit-rate', $u->{rate} if $u->{rate};
    push @o, '--limit-rate', 1 * MB + int rand 20 * MB
        if !$u->{rate} && rand() < 0.3;
    $u->{how} = join ' ', 'null', $port || (), @o && $o[0] eq '--chunk'
        ? 'chunked' : ();
    $u->{client} = body_gen($t->dir, $n->url("/null/$u->{key}?id=$u->{id}",
        $port), $u->{size}, @o);
    $u->{key} = "null/$u->{key}";
}

sub to_real {
    my ($u) = @_;
    my $n = $nginx{$u->{which}};
    my $d = data($u->{size} // $sizes[rand() < 0.03 ? -1 : rand $#sizes]);
    my ($h2, $tls, $chunked) = map { rand() < 0.35 } 1 .. 3;
    my @o = $u->{rate} ? (rate => $u->{rate}) : $u->{kind} eq 'cut'
        ? (rate => int($d->{size} / 2) + 1) : ();
    my $port = $tls ? 'tls' : $h2 ? 'h2' : undef;
    $u->{size} = $d->{size};
    $u->{sha256} = $d->{sha256};
    $u->{how} = join ' ', 'real', $tls ? 'tls' : (), $h2 ? 'h2' : (),
        $chunked ? 'chunked' : ();
    $u->{client} = curl_start($n->url("/real/$u->{key}?id=$u->{id}", $port),
        file => $d, chunked => $chunked, h2 => $h2, timeout => $span + 300, @o,
        $tls ? (ca => $t->ca) : ());
    $u->{key} = "real/$u->{key}";
    $u->{until} = time + rand if $u->{kind} eq 'cut';
}

# half of a body, a silence that is longer than S3's patience, the rest
sub stalling {
    my ($u) = @_;
    my $n = $nginx{$u->{which}};
    my $size = $u->{size} = 7 * MB + int rand 9 * MB;
    my $base = $t->dir . "/stall-$u->{id}";
    my $text = "PUT /null/$u->{key}?id=$u->{id} HTTP/1.1\r\nHost: t\r\n"
        . "Connection: close\r\nContent-Length: $size\r\n\r\n";
    my $port = $n->port;
    my $pid = spawn({ stdout => $base }, sub {
        my $c = $t->raw($port);
        my $body = S3T::Null::pattern($size);
        $c->send($text . substr $body, 0, $size / 2);
        sleep STALL;
        $c->send(substr $body, int $size / 2);
        print $c->read_until(qr/\z./, 120);
        close STDOUT;
    });
    $u->{how} = 'null stalling';
    $u->{client} = bless { pid => $pid, base => $base }, 'S3T::Null::Body';
    $u->{key} = "null/$u->{key}";
}

sub begin {
    my ($which, %o) = @_;
    my $u = { which => $which, id => sprintf('soak-%016d', ++$number),
        key => "k$number", began => time, kind => rand() < 0.2 ? 'cut'
        : 'whole', %o };
    my $real = $o{where} ? $o{where} eq 'real' : rand() < 0.35;
    $u->{where} = $real ? 'real' : 'null';
    $u->{stall} ? stalling($u) : $real ? to_real($u) : to_null($u);
    push @running, $u;
    return $u;
}

# what it came to: right or wrong
sub end {
    my ($u) = @_;
    my $r = $u->{client}->wait(120);
    my $size = kept($u);
    my $hit = grep { $_->[0] eq $u->{which} && $_->[1] >= $u->{began} } @at_kill;
    my $said = "$u->{which} $u->{how} $u->{kind} of $u->{size}, id $u->{id}: "
        . "$r->{status}" . (defined $size ? ", $size bytes in S3" : ', no object');
    my $right;

    if (defined $size) {
        $right = $size == $u->{size}
            && ($r->{status} == 201 || $u->{kind} eq 'cut' || $hit);
        # body_gen cuts before the end, always
        $right = 0 if $u->{kind} eq 'cut' && $u->{where} eq 'null';
    } else {
        $right = $r->{status} != 201 && ($u->{kind} eq 'cut' || $hit);
    }
    if ($right && defined $size && $u->{sha256}) {
        my ($sum) = $s3->sha256($u->{key});
        if ($sum ne $u->{sha256}) {
            $right = 0;
            $said .= ', other bytes';
        }
    }
    if (!$right) {
        push @wrong, join ': ', $said, grep { $_ } $r->{json}{message},
            $r->{error};
        diag $wrong[-1];
    }
    $u->{hit} = $hit;
    push @later, $u if !defined $size;
    my $kind = $u->{rate} ? 'slow' : $u->{stall} ? 'stalling' : $u->{kind};
    my $end = $hit && $r->{status} != 201 ? 'killed'
        : $r->{status} == 201 ? 'stored' : 'absent';
    $did{"$kind, $u->{how}"}{$right ? $end : 'wrong'}++;
    $bytes{$u->{where}} += $size || 0;
    forget($u) if defined $size;
    unlink $u->{client}{base}, glob "$u->{client}{base}.*" if $right;
}

# those that are over
sub reap {
    my @still;
    for my $u (@running) {
        if ($u->{until} && time > $u->{until}) {
            delete $u->{until};
            $u->{client}->kill if $u->{client}->running;
        }
        if ($u->{client}->running) {
            push @still, $u;
        } else {
            end($u);
        }
    }
    @running = @still;
}


# Workers

# [pid, resident bytes, descriptors]; "private": not what all processes share
sub workers_of {
    my ($n) = @_;
    return map {
        my ($private) = (read_file("/proc/$_/smaps_rollup") || '')
            =~ /^Private_Dirty:\s+(\d+)/m;
        my ($rss) = (read_file("/proc/$_/status") || '') =~ /^VmRSS:\s+(\d+)/m;
        [$_, ($rss || 0) * KB, scalar(() = glob "/proc/$_/fd/*"),
            ($private || 0) * KB];
    } $n->workers, $n->leaving_workers;
}

my (@samples, %peak);

sub sample {
    for my $which (qw/ a b /) {
        for my $w (workers_of($nginx{$which})) {
            $peak{$which}[0] = max($peak{$which}[0] || 0, $w->[1]);
            $peak{$which}[1] = max($peak{$which}[1] || 0, $w->[2]);
        }
    }
}

# until nothing is under way there, and a while longer
sub idle {
    my ($which) = @_;
    my $totals;
    while (grep { $_->{which} eq $which } @running) {
        reap();
        sleep 0.05;
    }
    wait_for {
        $totals = totals($which);
        exists $totals->{active} && !$totals->{active}
            && !$totals->{memoryUsed};
    } 150, 0.2;
    my $end = time + IDLE;
    while (time < $end) {
        reap();
        sleep 0.1;
    }
    return $totals;
}


# The work

my %next = (reload => time + RELOAD, kill => time + KILL, sample => 0);
my ($first, $slow_b);

begin('a', kind => 'whole', where => 'null', rate => 10 * KB,
    size => int(10 * KB * $span * 0.6));
begin('a', kind => 'whole', where => 'null', rate => 20 * KB,
    size => int(20 * KB * $span * 0.6));

while (time < $began + $span && $number < $limit) {
    reap();

    for my $which (qw/ a b /) {
        my @mine = grep { $_->{which} eq $which && !$_->{rate} } @running;
        next if @mine >= CLIENTS;
        begin($which, rand() < 0.02
            ? (stall => 1, kind => 'whole', where => 'null') : ());
    }
    if (!$first && time > $began + $span / 3) {
        idle('b');
        $first = [workers_of($nginx{b})];
        begin('b', kind => 'whole', where => 'null', rate => 10 * KB,
            size => int(10 * KB * $span * 0.5));
        begin('b', kind => 'whole', where => 'null', rate => 20 * KB,
            size => int(20 * KB * $span * 0.5));
        begin('b', kind => 'whole', where => 'real', rate => 20 * KB,
            size => int(20 * KB * $span * 0.5));
    }
    if (time > $next{reload}) {
        $nginx{a}->reload or push @wrong, 'a reload did not come to its end';
        $reloads++;
        $next{reload} = time + RELOAD;
    }
    if ($kills && time > $next{kill}) {
        my @all = ($nginx{a}->workers, $nginx{a}->leaving_workers);
        kill 'KILL', $all[rand @all];
        push @at_kill, ['a', time];
        $killed++;
        $next{kill} = time + KILL;
    }
    if (time > $next{sample}) {
        sample();
        $next{sample} = time + 2;
    }
    sleep 0.01;
}

my @stays = grep { $_->{rate} } @running;
diag sprintf '%d uploads begun in %.0f s, %d slow ones to wait for', $number,
    time - $began, scalar @stays;
my %totals = map { $_ => idle($_) } qw/ a b /;
my @last = workers_of($nginx{b});
my @last_a = workers_of($nginx{a});


# What was absent still is; but S3 may have had all of it when a worker was
# killed.
for my $u (@later) {
    my $size = kept($u);
    next if !defined $size;
    forget($u);
    push @wrong, "$u->{key}, $u->{kind}: $size of $u->{size} bytes at the end"
        if !$u->{hit} || $size != $u->{size};
}


# The verdict

is(scalar @wrong, 0, 'every answer was right')
    or diag join "\n", @wrong[0 .. ($#wrong > 19 ? 19 : $#wrong)];

for my $which (qw/ a b /) {
    is($totals{$which}{active}, 0, "$which: no transfer is left");
    is($totals{$which}{memoryUsed}, 0, "$which: no memory is reserved");
    is_deeply([$nginx{$which}->leaving_workers], [], "$which: no old worker");
}

my @growth;
for my $i (0 .. $#last) {
    my ($then, $now) = ($first->[$i], $last[$i]);
    is($now->[0], $then->[0], "b: worker $i is the same");
    push @growth, sprintf 'worker %d: RSS %.1f -> %.1f MB, private %.1f -> '
        . '%.1f MB, descriptors %d -> %d', $i, (map { $_ / MB } $then->[1],
        $now->[1], $then->[3], $now->[3]), $then->[2], $now->[2];
    cmp_ok($now->[3], '<', $then->[3] * 1.1 + 3 * MB, 'its memory is flat');
    cmp_ok($now->[2], '<=', $then->[2] + 2, 'its descriptors are as many');
}
for my $w (@last_a) {
    cmp_ok($w->[2], '<=', max(map { $_->[2] } @last) + 4,
        'a: as many descriptors in a worker');
}

my $stats = $null->stats;
is($stats->{bad}, 0, 'the null S3 refused nothing');
is($stats->{open_uploads}, 0, 'no multipart upload is open there');
is($stats->{objects}, 0, 'it is empty');
is($stats->{stalled}, 0, 'it has not waited for a body for 20 s');
cmp_ok($stats->{faults}, '>', $number / 50, 'though it failed all the time');
my @open;
wait_for { !(@open = $s3->uploads) } 10, 0.5;
is_deeply(\@open, [], 'no multipart upload is open in the real S3');
is_deeply([$s3->keys], [], 'it is empty');

my %state;
my ($cursor, $keys) = (0);
do {
    ($cursor, $keys) = @{$redis->cmd('SCAN', $cursor, 'MATCH',
        $t->prefix . '*', 'COUNT', 1000)};
    for (grep { !/#open/ } @$keys) {
        my $state = eval { $redis->cmd('HGET', $_, 'state') };
        $state{$state}++ if defined $state;
    }
} while ($cursor);
is_deeply([grep { !/^(completed|failed|aborted)$/ } sort keys %state], [],
    'no record in Redis is active') or diag explain \%state;


my $entries;
wait_for {
    $entries = $redis->cmd('ZRANGE', $t->prefix . '#open', 0, -1);
    !@$entries;
} 60, 0.5;
is_deeply($entries, [], 'no open upload is kept there');


# What was done

my @lines = sprintf '%-40s %8s %8s %8s %8s', 'client', 'stored', 'absent',
    'killed', 'wrong';
for my $what (sort keys %did) {
    push @lines, sprintf '%-40s %8d %8d %8d %8d', $what, map {
        $did{$what}{$_} || 0 } qw/ stored absent killed wrong /;
}
push @lines, sprintf '%-40s %8d %8d %8d %8d', 'all', map { my $end = $_;
    sum0(map { $_->{$end} || 0 } values %did) } qw/ stored absent killed wrong /;
push @lines, '',
    sprintf('%.0f s; %.1f GB into the null S3, %.1f GB into the real one',
        time - $began, map { ($bytes{$_} || 0) / GB } qw/ null real /),
    "$reloads reloads, $killed workers killed",
    "faults of the null S3: $stats->{faults} in all, $stats->{cut} bodies cut, "
    . "$stats->{stalled} stalled; retries: "
    . sum(map { $totals{$_}{s3Retries} } qw/ a b /) . ' since the last start',
    (map { "left alone, $_" } @growth),
    (map { sprintf '%s: at most %.1f MB RSS and %d descriptors a worker', $_,
        $peak{$_}[0] / MB, $peak{$_}[1] } qw/ a b /),
    'records in Redis: ' . join ', ', map { "$state{$_} $_" } sort keys %state;
diag join "\n", '', @lines, '';

$t->allow_errors(qr/./);
$t->allow_alerts(qr/worker process \d+ exited on signal 9/);
