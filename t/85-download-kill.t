#!/usr/bin/perl

# Origins that die at random positions of their answers, in each framing, while
# the response is captured or the URL fetched: an object is there only when
# nginx had the whole body, and then with exactly its bytes; a client is never
# told that a cut response is whole. And workers that are killed in the middle.
# T_SEED=number runs one again.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use JSON::PP ();
use List::Util qw/ max min /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Torture qw/ talk /;
use S3T::Util qw/ read_json_lines wait_exit /;

use constant { COUNT => 240, CLIENTS => 6 };

my $t = S3T->new;
my $s3 = $t->s3;

my $seed = $ENV{T_SEED} || time;
note "seed: $seed";
srand $seed;

sub pick { return $_[rand @_] }

my @bodies = map { data($_) } 1, 30_000, 5 * MB, 5 * MB + 17, 12 * MB + 1;
my %body = map { $_->{size} => $_ } @bodies;
my %text;
sub text { return $text{$_[0]} ||= read_file($body{$_[0]}{path}) }

# what an origin sends of a body from a position on
sub wire {
    my ($framing, $size, $from) = @_;
    my $head = $from ? "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes "
        . "$from-" . ($size - 1) . "/$size\r\n" : "HTTP/1.1 200 OK\r\n";
    $head .= "ETag: \"of-$size\"\r\nConnection: close\r\n";
    my $text = substr text($size), $from;
    return $head . 'Content-Length: ' . length($text) . "\r\n\r\n$text"
        if $framing eq 'length';
    $head .= "Transfer-Encoding: chunked\r\n\r\n";
    while (length $text) {
        my $piece = substr $text, 0, 1 + int rand 200_000, '';
        $head .= sprintf("%x\r\n", length $piece) . "$piece\r\n";
    }
    return "$head" . "0\r\n\r\n";
}

# /<framing>/<size>/<where>/<how>: where: a part of it all, or from its end;
# again: the rest is cut, too, as long as it is long
sub origin {
    my ($r) = @_;
    my (undef, $framing, $size, $at, $how) = split m{/}, $r->{path};
    srand hex(substr sha256_hex($r->{path}), 0, 8)
        + ($r->{headers}{range} || '') =~ tr/0-9//;
    my ($from) = ($r->{headers}{range} || '') =~ /^bytes=(\d+)-$/;
    my $wire = wire($framing, $size, $from || 0);
    my $cut = $at < 0 ? length($wire) + $at + 1 : int $at * length $wire;
    if ($how eq 'again') {
        # far enough that something comes each time
        $cut = $size - ($from || 0) < 2 * MB ? length $wire : 2 * MB;
    }
    return { raw => substr($wire, 0, $cut), close => $how eq 'reset' ? 'reset'
        : 'after' };
}

my $origin = $t->fake(on => { get => \&origin });

# a body that takes its time once its beginning has come
my $slow = $t->nginx(<<'EOF', module => 0);
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        limit_rate_after 12m;
        limit_rate 100k;
        location ~ ^/slow { alias %%DIR%%/slow; }
    }
}
EOF
place(data(20 * MB)->{path}, "$slow->{dir}/slow");

$t->token(ORIGIN => "127.0.0.1:$origin->{port}",
    SLOW => '127.0.0.1:' . $slow->port);
my $n = $t->nginx(<<'EOF', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    %%S3%%
    s3_memory 400m;
    s3_part_size 5m;
    s3_part_concurrency 1;
    # none is given up since S3 is slow
    s3_window 40m;
    s3_transfer_id $arg_id;
    s3_tries 1;
    s3_retry_timeout 2s;
    s3_ingest_max 0;
    s3_ingest_allow 127.0.0.1;
    proxy_http_version 1.1;
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        location /drop/ { s3_tee; proxy_pass http://%%ORIGIN%%/$arg_o; }
        location /wait/ {
            s3_tee; s3_tee_on_overrun wait; proxy_buffering off;
            proxy_pass http://%%ORIGIN%%/$arg_o;
        }
        location /pull/ { s3_ingest http://%%ORIGIN%%/$arg_o; }
        location /again/ { s3_tries 4; s3_ingest http://%%ORIGIN%%/$arg_o; }
        location /slow/ { s3_tee; proxy_pass http://%%SLOW%%/slow; }
        location /slow-wait/ {
            s3_tee; s3_tee_on_overrun wait; proxy_buffering off;
            proxy_pass http://%%SLOW%%/slow;
        }
        location /slow-pull/ { s3_ingest http://%%SLOW%%/slow; }
        location /slow-async/ {
            s3_ingest_async on; s3_ingest http://%%SLOW%%/slow;
        }
        location /status/ { s3_status list cancel; }
    }
}
EOF
$t->allow_errors(qr/prematurely closed|reset by peer|upstream sent no valid/,
    qr/s3 ingest from "[^"]+" failed/);


# The cases: -1 is the end, -2 one byte before it; less than 1: that part of all

my %cases;

sub add_case {
    my (%c) = @_;
    $c{id} = sprintf 'kill-%05d-%06x', scalar(keys %cases), rand 1 << 24;
    $c{former} = keys(%cases) % 5 == 0;
    $c{whole} = $c{at} == -1 || $c{how} eq 'again';
    # what a reset leaves unsent does not come
    $c{loose} = $c{how} eq 'reset';
    $cases{$c{id}} = \%c;
}

for (1 .. COUNT) {
    my $where = rand;
    add_case(door => pick(qw/ drop wait pull pull /),
        framing => pick(qw/ length chunked /), how => pick(qw/ close reset /),
        size => pick(map { $_->{size} } @bodies, @bodies[1 .. 3]),
        at => $where < 0.15 ? -1 : $where < 0.3 ? -2 - int rand 16
        : sprintf '%.6f', rand);
}
# all but the last byte, and but what says that it is whole
for my $door (qw/ drop wait pull /) {
    for my $size (30_000, 5 * MB + 17) {
        add_case(door => $door, framing => $_->[0], at => $_->[1],
            size => $size, how => 'close')
            for ['length', -2], map { ['chunked', $_] } -2, -3, -4, -5, -6, -8;
    }
}
add_case(door => 'again', framing => $_->[0], size => $_->[1], at => 0,
    how => 'again') for map { (['length', $_], ['chunked', $_]) }
    30_000, 5 * MB, 12 * MB + 1;

my @cases = sort { $a->{id} cmp $b->{id} } values %cases;
$s3->put("$_->{door}/$_->{id}", "former $_->{id}")
    for grep { $_->{former} } @cases;

# whether an answer says of itself that it is whole, and its body
sub read_body {
    my ($r) = @_;
    my ($head, $rest) = ($r->{head} || '', $r->{body});
    $rest = '' if !defined $rest;
    my ($length) = $head =~ /^Content-Length: (\d+)/mi;
    return (length $rest == $length, $rest) if defined $length;
    return (0, $rest) if $head !~ /^Transfer-Encoding: chunked/mi;
    my ($at, $body) = (0, '');
    while (substr($rest, $at, 20) =~ /^([0-9a-f]+)\r\n/) {
        my $size = hex $1;
        $at += length($1) + 2;
        return (substr($rest, $at) eq "\r\n", $body) if !$size;
        $body .= substr $rest, $at, $size;
        $at += $size + 2;
    }
    return (0, $body);
}

sub client {
    my ($result, @mine) = @_;
    for my $c (@mine) {
        my $method = $c->{door} =~ /pull|again/ ? 'POST' : 'GET';
        my $text = "$method /$c->{door}/$c->{id}?id=$c->{id}&o=$c->{framing}/"
            . "$c->{size}/$c->{at}/$c->{how} HTTP/1.1\r\nHost: a\r\n"
            . "Connection: close\r\n\r\n";
        my $r = talk($n->port, \$text, 300);
        my ($whole, $body) = read_body($r);
        append($result, JSON::PP->new->encode({ id => $c->{id},
            status => $r->{status}, hung => $r->{hung}, told => $whole ? 1 : 0,
            got => length $body, same => $body eq substr(text($c->{size}), 0,
            length $body) ? 1 : 0 }) . "\n");
    }
}

my $results = $t->dir . '/results';
my $errors = $t->dir . '/clients.err';
my @running = map {
    my $first = $_;
    spawn({ stderr => $errors }, sub {
        client($results, @cases[grep { $_ % CLIENTS == $first } 0 .. $#cases]);
    });
} 0 .. CLIENTS - 1;
wait_exit($_, 900) for @running;

my %result = map { $_->{id} => $_ } read_json_lines($results);
my $totals;
wait_for {
    $totals = curl($n->url('/status/'))->{json}{totals};
    !$totals->{active} && !$totals->{memoryUsed};
} 60, 0.1;
my %record = map { $_->{transferId} => $_ }
    @{curl($n->url('/status/?limit=1000'))->{json}{transfers}};

sub none {
    my ($name, @bad) = @_;
    is(scalar @bad, 0, $name) or diag("seed: $seed\n", map {
        JSON::PP->new->canonical->encode({ %$_, %{$result{$_->{id}}},
        record => $record{$_->{id}} }) . "\n" } grep { $_ } @bad[0 .. 4]);
}

sub state_is {
    my ($c, $pattern) = @_;
    return ($record{$c->{id}}{state} || 'none') =~ $pattern;
}

my @served = grep { $_->{door} =~ /drop|wait/ } @cases;
my @pulled = grep { $_->{door} =~ /pull|again/ } @cases;

subtest 'origins that die' => sub {
    is(read_file($errors), '', 'no error of the clients');
    is(scalar keys %result, scalar @cases, 'all were asked');
    for my $door (qw/ drop wait pull /) {
        for my $framing (qw/ length chunked /) {
            my @of = grep { $_->{door} eq $door && $_->{framing} eq $framing }
                @cases;
            my $whole = grep { $_->{whole} } @of;
            cmp_ok(scalar @of, '>', 10, "$door, $framing: " . @of
                . " answers, $whole of them whole");
        }
    }
    none('nobody waits for ever', grep { $result{$_->{id}}{hung} } @cases);
};

subtest 'their clients' => sub {
    none('whole: told so, with all bytes', grep { my $r = $result{$_->{id}};
        $_->{whole} && !$_->{loose} && ($r->{status} != 200 || !$r->{told}
        || $r->{got} != $_->{size} || !$r->{same}) } @served);
    none('cut: not told that it is whole', grep { my $r = $result{$_->{id}};
        !$_->{whole} && $r->{told} && $r->{status} == 200 } @served);
    none('no other bytes', grep { my $r = $result{$_->{id}};
        $r->{status} == 200 && !$r->{same} } @served);
    none('200, or 502 for a head that did not come', grep {
        $result{$_->{id}}{status} !~ /^(?:200|502)$/ } @served);
    none('whole: stored', grep { $_->{whole} && !$_->{loose}
        && $result{$_->{id}}{status} != 201 } @pulled);
    none('cut: 502', grep { !$_->{whole} && $result{$_->{id}}{status} != 502 }
        @pulled);
};

subtest 'records' => sub {
    none('whole: completed', grep { $_->{whole} && !$_->{loose}
        && !state_is($_, qr/^completed$/) } @cases);
    none('a response cut: aborted', grep { !$_->{whole}
        && !state_is($_, qr/^(?:aborted|none)$/) } @served);
    none('none where there was no head', grep { state_is($_, qr/none/)
        && $result{$_->{id}}{status} != 502 } @served);
    none('a pull cut: failed', grep { !$_->{whole}
        && !state_is($_, qr/^failed$/) } @pulled);
    none('completed: all bytes', grep { my $r = $record{$_->{id}};
        state_is($_, qr/completed/) && ($r->{bytesTransferred} != $_->{size}
        || $r->{bytesStored} != $_->{size} || $r->{totalBytes} != $_->{size}
        || !$r->{etag} || $r->{error}) } @cases);
    none('others: a reason', grep { my $r = $record{$_->{id}};
        state_is($_, qr/aborted|failed/) && (!$r->{error} || $r->{etag}
        || $r->{bytesTransferred} > $_->{size}) } @cases);
};

subtest 'totals' => sub {
    my %n;
    $n{$record{$_->{id}}{state} || 'none'}++ for @cases;
    is_deeply({ map { $_ => $totals->{$_} } qw/ completed failed active
        ingests memoryUsed / }, { completed => $n{completed},
        failed => $n{failed}, active => 0, ingests => 0, memoryUsed => 0 },
        'add up');
    is($totals->{tee}{captured}, scalar(grep { state_is($_, qr/completed/) }
        @served), 'captured');
    is($totals->{tee}{notCaptured}{truncated}, scalar(grep {
        state_is($_, qr/aborted/) } @served), 'truncated');
};

subtest 'what S3 holds' => sub {
    ok(wait_for(sub { !$s3->uploads }, 60, 0.2), 'no multipart upload');
    my %expected;
    for my $c (@cases) {
        if (state_is($c, qr/completed/)) {
            $expected{"$c->{door}/$c->{id}"} =
                [$body{$c->{size}}{sha256}, $c->{size}];
        } elsif ($c->{former}) {
            my $former = "former $c->{id}";
            $expected{"$c->{door}/$c->{id}"} =
                [sha256_hex($former), length $former];
        }
    }
    is_deeply([sort $s3->keys], [sort keys %expected],
        'the objects of whole bodies, and former ones');
    my %is = map { $_ => [$s3->sha256($_)] } keys %expected;
    is_deeply(\%is, \%expected, 'their bytes') or diag "seed: $seed";
};


# Workers that are killed in the middle

$t->allow_alerts(qr/worker process \d+ exited on signal 9/,
    qr/zone "s3_transfer" was locked by/);

sub record { curl($n->url("/status/$_[0]"))->{json} || {} }

subtest 'workers that are killed' => sub {
    my $aborted = curl($n->url('/status/'))->{json}{totals}{orphansAborted};
    my @slow = map { { door => $_, id => "slow-$_-" . 'x' x 10 } }
        qw/ slow slow-wait slow-pull slow-async /;
    for my $c (@slow) {
        $c->{c} = $t->raw($n->port);
        my $method = $c->{door} =~ /wait$|slow$/ ? 'GET' : 'POST';
        $c->{c}->send("$method /$c->{door}/k?id=$c->{id} HTTP/1.1\r\n"
            . "Host: a\r\nConnection: close\r\n\r\n");
    }
    # (a client has to read)
    ok((wait_for { $_->{c}->read_until(qr/\z./, 0.01) for @slow;
        !grep { (record($_->{id})->{partsStored} || 0) < 1 } @slow } 60),
        'all have a part') or diag explain [map { record($_->{id}) } @slow];
    is(scalar(() = $s3->uploads), 4, 'four open uploads');
    is(curl($n->url('/slow-pull/k'), method => 'POST')->{json}{error},
        'KeyInUse', 'a key in use');

    kill 'KILL', $n->workers;
    ok($_->{c}->closed, "$_->{door}: the connection is closed") for @slow;
    for my $c (@slow) {
        ok((wait_for { (record($c->{id})->{state} || '') eq 'failed' } 60),
            "$c->{door}: failed");
        is(record($c->{id})->{error}, 'worker process died', 'and why');
        is($s3->head("$c->{door}/k"), undef, 'no object');
    }
    ok((wait_for { !$s3->uploads } 60, 0.2), 'the uploads are aborted');
    my $totals;
    wait_for { $totals = curl($n->url('/status/'))->{json}{totals};
        $totals->{orphansAborted} - $aborted == 4 };
    is($totals->{orphansAborted} - $aborted, 4, 'as orphans');
    is($totals->{ingests}, 0, 'no pull is counted');

    my $r = curl($n->url('/slow-async/k'), method => 'POST');
    is($r->{status}, 202, 'the key is free again');
    is(curl($n->url($r->{headers}{location}), method => 'DELETE')->{status},
        202, 'cancelled');
    ok((wait_for { record($r->{json}{transferId})->{state} eq 'aborted' }),
        'aborted');
};

# at any moment, again and again, while many run
subtest 'workers that are killed at random' => sub {
    my $over = $t->dir . '/over';
    my @load = map { my ($door, $client) = @$_;
        spawn({ stderr => $errors }, sub {
        for (my $i = 0; $i < 10 || !-e $over; $i++) {
            my $method = $door eq 'pull' ? 'POST' : 'GET';
            my $o = pick(qw/ length chunked /) . '/' . pick(1, 30_000,
                5 * MB + 17) . '/-1/close';
            my $name = "random-$client-$i";
            my $text = "$method /$door/$name?id=$name-0123456789&o=$o"
                . " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            talk($n->port, \$text, 120);
        }
    }) } [drop => 1], [wait => 2], [pull => 3], [pull => 4];
    for (1 .. 20) {
        sleep rand 0.15;
        my @workers = $n->workers;
        kill 'KILL', $workers[rand @workers] if @workers;
        wait_for { $n->workers == 2 } 60;
    }
    write_file($over, '');
    wait_exit($_, 300) for @load;
    is(read_file($errors), '', 'no error of the clients');

    my $totals;
    ok((wait_for {
        $totals = curl($n->url('/status/'))->{json}{totals};
        !$totals->{active} && !$totals->{memoryUsed} && !$totals->{ingests};
    } 60, 0.2), 'nothing is active for ever') or diag explain $totals;
    my @all = grep { $_->{transferId} =~ /^random/ }
        @{curl($n->url('/status/?limit=1000'))->{json}{transfers}};
    cmp_ok(scalar @all, '>', 30, @all . ' transfers');
    my @bad;
    for my $r (@all) {
        my ($sha, $size) = $s3->sha256($r->{key});
        push @bad, $r if $r->{state} eq 'completed' && !defined $size
            || defined $size && $sha ne ($body{$size} || {})->{sha256}
            || $r->{state} ne 'completed' && defined $size
            && $r->{error} ne 'worker process died';
    }
    is(scalar @bad, 0, 'completed: whole, else no object')
        or diag explain \@bad;
    # (S3's answer to some Creates came after the worker was dead)
    wait_for { !$s3->uploads } 10, 0.5;
    my @open = $s3->uploads;
    note scalar(@open), ' uploads whose name nobody was told';
    $s3->abort(@$_) for @open;
};
