#!/usr/bin/perl

# Clients that leave anywhere in a body, in each framing: only a whole body
# makes an object, and it does so also when the client is gone. And clients
# that send several requests over one connection.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use Test::More;
use S3T;
use S3T::Util qw/ $TOP wait_exit /;

use constant { PART => 5 * MB, SIZE => 5 * MB + 1000, PIECE => 256 * KB };

my $t = S3T->new;
my $s3 = $t->s3;

my $n = $t->nginx(<<'EOF', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    log_format state "$uri $status $s3_transfer_state";
    large_client_header_buffers 4 8k;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl;
        listen 127.0.0.1:%%PORT_tlsh2%% ssl http2;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        access_log %%DIR%%/state.log state;
        %%S3%%
        s3_part_size 5m;
        location / { s3_upload; }
        location = /status/ { access_log off; s3_status; }
        location /silence- { client_body_timeout 1s; s3_upload; }
        # (they are sent in one go, which may take a while)
        location ~ ^/silence-.*whole { client_body_timeout 10s; s3_upload; }
    }
}
EOF

my $d = data(SIZE);
my $bytes = read_file($d->{path});
my %whole;     # key => sum of what it must hold
my %cut;       # keys that must not be there

# Path => state, of the requests in the access log; path => status
sub states {
    my $log = read_file("$n->{dir}/state.log") || '';
    return { $log =~ m{^/(\S+) \d+ (\S+)$}mg };
}

sub statuses {
    my $log = read_file("$n->{dir}/state.log") || '';
    return { $log =~ m{^/(\S+) (\d+) \S+$}mg };
}

sub head {
    my ($key, %o) = @_;
    return "PUT /$key HTTP/1.1\r\nHost: a\r\n" . (defined $o{length}
        ? "Content-Length: $o{length}" : 'Transfer-Encoding: chunked')
        . "\r\n\r\n";
}

# The first $count bytes in chunks, the last of which may be cut short.
sub chunks {
    my ($data, $count) = @_;
    my $text = '';
    for (my $at = 0; $at < $count; $at += PIECE) {
        my $size = length($data) - $at > PIECE ? PIECE : length($data) - $at;
        my $here = $count - $at < $size ? $count - $at : $size;
        $text .= sprintf("%x\r\n", $size) . substr $data, $at, $here;
        $text .= "\r\n" if $here == $size && $at + $size < length $data;
    }
    return $text;
}

# Positions where an HTTP/1 client stops, after the head.
my %stops = (
    'Content-Length' => {
        (map { $_ => substr $bytes, 0, $_ }
            0, 1, PART - 1, PART, PART + 1, SIZE - 1),
        whole => $bytes,
    },
    'chunked' => {
        (map { $_ => chunks($bytes, $_) }
            0, 1, PART - 1, PART, PART + 1, SIZE - 1, SIZE),
        'chunk-size' => chunks($bytes, PART) . '3e',
        'chunk-extension' => chunks($bytes, PART) . '3e8;a=b',
        'chunk-crlf' => chunks($bytes, PART) . "3e8\r",
        'data-crlf' => chunks($bytes, SIZE) . "\r",
        'last-chunk' => chunks($bytes, SIZE) . "\r\n0\r\n",
        'last-crlf' => chunks($bytes, SIZE) . "\r\n0\r\n\r",
        'trailer-name' => chunks($bytes, SIZE) . "\r\n0\r\nX-Trailer",
        'trailer' => chunks($bytes, SIZE) . "\r\n0\r\nX-Trailer: 1\r\n",
        whole => chunks($bytes, SIZE) . "\r\n0\r\n\r\n",
        'whole-trailer' => chunks($bytes, SIZE)
            . "\r\n0\r\nX-Trailer: 1\r\n\r\n",
    },
);

# and an HTTP/2 client
my @h2_stops = (0, 1, PART - 1, PART, PART + 1, SIZE - 1, SIZE, 'whole');

sub expect {
    my ($key, $stop) = @_;
    $stop =~ /^whole/ ? $whole{$key} = $d->{sha256} : $cut{$key}++;
}

# They all run their course; what became of them is looked at in the end.

my @silent;

for my $framing (sort keys %stops) {
    my $of = $stops{$framing};
    for my $port ('', 'tls') {
        for my $stop (sort keys %$of) {
            for my $how (qw/ close reset silence /) {
                my $key = ($how eq 'silence' ? 'silence-' : '')
                    . "$framing-$port-$stop-$how";
                expect($key, $stop);
                my $raw = $t->raw($n->port($port || undef),
                    $port ? (tls => $t->ca) : ());
                $raw->send(head($key, $framing eq 'chunked' ? ()
                    : (length => SIZE)) . $of->{$stop});
                $raw->delivered;
                $raw->$how if $how ne 'silence';
                push @silent, [$raw, $stop =~ /^whole/]
                    if $how eq 'silence';
            }
        }
    }
}

my (@running, @patient);

sub h2_start {
    my ($port, $key, @args) = @_;
    my $of = $args[-1] eq 'wait' ? \@patient : \@running;
    wait_exit(shift @running, 600) if @running > 3;
    push @$of, spawn({ stdout => $t->dir . "/$key", stderr => $t->dir
        . '/h2.err' }, "$TOP/t/lib/h2put", $n->port($port), "/$key",
        $d->{path}, $port =~ /^tls/ ? ('--tls', $t->ca) : (), @args);
}

for my $port (qw/ h2 tlsh2 /) {
    for my $length (0, 1) {
        for my $stop (@h2_stops) {
            for my $how (qw/ close reset cancel wait /) {
                next if $how eq 'wait' && $stop eq 'whole';
                my $key = ($how eq 'wait' ? 'silence-' : '')
                    . "$port-$length-$stop-$how";
                expect($key, $stop);
                h2_start($port, $key, $length ? ('--length', SIZE) : (),
                    $stop eq 'whole' ? ('--then', "end-$how")
                    : ('--send', $stop, '--then', $how));
            }
        }
    }
}
wait_exit($_, 600) for @running, @patient;

# the former object stays
$s3->put('former', 'as it was');
for my $raw ($t->raw($n->port)) {
    $raw->send(head('former', length => SIZE) . substr $bytes, 0, SIZE - 1);
    $raw->delivered;
    $raw->close;
}

subtest 'clients that leave' => sub {
    my $states = {};
    my $count = keys(%whole) + keys(%cut) + 1;
    wait_for {
        $states = states();
        keys %$states >= $count;
    } 60;
    is(read_file($t->dir . '/h2.err'), '', 'the HTTP/2 client');
    is_deeply($states, {
        former => 'aborted',
        (map { $_ => 'completed' } keys %whole),
        (map { $_ => 'aborted' } keys %cut),
    }, 'the state of each');
    my %status = %{statuses()};
    is(join(' ', grep { $status{$_} != ($whole{$_} ? 201 : 408) }
        grep { /^silence/ } keys %status), '', 'silence is 408');
    is(scalar(grep { !$_->[1] && !$_->[0]->closed } @silent), 0,
        'and its connection is closed');
    is(scalar(grep { $_->[1] && $_->[0]->response->{status} != 201 } @silent),
        0, 'who has sent all is answered');

    my $log;
    wait_for {
        $log = $n->log;
        (() = $log =~ /transfer is (?:aborted|completed)/g) >= $count;
    };
    is(scalar(() = $log =~ /transfer is aborted, bytes: \d+/g),
        keys(%cut) + 1, 'as the error log says');
    is(scalar(() = $log =~ /transfer is completed/g), keys %whole,
        'and those that were whole');

    is_deeply([sort $s3->keys], [sort 'former', keys %whole],
        'only these are objects');
    my %sums = map { $_ => scalar(($s3->sha256($_))[0]) } keys %whole;
    is_deeply(\%sums, \%whole, 'and hold these bytes');
    is($s3->get('former'), 'as it was', 'the former object is still there');
    ok(wait_for(sub { !$s3->uploads }), 'no multipart upload is open')
        or diag explain [$s3->uploads];
};

subtest 'shorter or longer than announced' => sub {
    for my $framing (sort keys %stops) {
        my $key = 'half-' . lc $framing;
        my $raw = $t->raw($n->port);
        $raw->send(head($key, $framing eq 'chunked' ? ()
            : (length => SIZE)) . $stops{$framing}{whole});
        $raw->half_close;
        is(($raw->response || {})->{status}, 201,
            "$framing: half closed after the whole body");
        is_deeply([$s3->sha256($key)], [$d->{sha256}, SIZE], 'what S3 holds');
    }

    my $raw = $t->raw($n->port);
    $raw->send(head('short', length => SIZE) . substr $bytes, 0, SIZE - 1);
    $raw->half_close;
    ok($raw->closed, 'half closed, Content-Length');

    for my $port (qw/ h2 tlsh2 /) {
        my @tls = $port =~ /tls/ ? (tls => $t->ca) : ();
        my $r = h2_put($n->port($port), "/short-$port", $d, length => SIZE,
            send => SIZE - 1, @tls);
        is($r->{status}, 400, "$port: shorter");
        $r = h2_put($n->port($port), "/long-$port", $d, length => SIZE - 1,
            @tls);
        is($r->{status}, 400, "$port: longer") or diag explain $r;
    }

    for my $after (0, 10, PART, PART + 10) {
        my $sent = substr $bytes, 0, $after;
        my $good = $after ? sprintf("%x\r\n%s\r\n", $after, $sent) : '';
        my $bad = $t->raw($n->port);
        $bad->send(head("bad-$after") . $good . "zz\r\n");
        is($bad->response->{status}, 400, "garbage after $after bytes");
        ok($bad->closed, 'and the connection is closed');
    }
    my $bad = $t->raw($n->port);
    $bad->send(head('bad-later'));
    wait_for { curl($n->url('/status/'))->{json}{totals}{active} };
    $bad->send("5\r\nabcdeXX");
    is($bad->response->{status}, 400, 'garbage after a chunk');

    my $done = wait_for {
        my %of = %{states()};
        9 == grep { /^(?:short|long|bad)/ && $of{$_} eq 'aborted' } keys %of;
    };
    ok($done, 'all are aborted') or diag explain states();
    is(scalar(grep { /^(?:short|long|bad)/ } $s3->keys), 0, 'no object');
};
$t->expect_errors(qr/client sent invalid chunked body/);

# Chunks that others might read in another way: five bytes, or nothing
subtest 'odd chunks' => sub {
    my $end = "0\r\n\r\n";
    my %odd = (
        'leading-zeros' => "0000000000005\r\nabcde\r\n$end",
        'an-extension' => "5;a=\"b;c\"\r\nabcde\r\n0;d\r\n\r\n",
        'space-after' => "5 \r\nabcde\r\n$end",
        'space-before' => " 5\r\nabcde\r\n$end",
        'line-feeds' => "5\nabcde\n0\n\n",
        'hexadecimal' => "0x5\r\nabcde\r\n$end",
        'negative' => "-5\r\nabcde\r\n$end",
        'a-sign' => "+5\r\nabcde\r\n$end",
        'too-large' => "ffffffffffffffff5\r\nabcde\r\n$end",
        'almost-too-large' => "7ffffffffffffffb\r\nabcde\r\n$end",
        'no-size' => "\r\nabcde\r\n$end",
        'longer' => "5\r\nabcdef\r\n$end",
        'shorter' => "5\r\nabc\r\n$end",
        'two-ends' => "5\r\nabcde\r\n$end$end",
    );
    my %raw = map { my $raw = $t->raw($n->port);
        $raw->send(head("silence-odd-$_") . $odd{$_}); ($_ => $raw) }
        sort keys %odd;
    for my $name (sort keys %odd) {
        my $r = $raw{$name}->response || { status => 0 };
        my $key = "silence-odd-$name";
        if ($name =~ /zeros|extension|two-ends/ || $r->{status} == 201) {
            is($r->{status}, 201, "$name: stored");
            is($s3->get($key), 'abcde', 'the five bytes');
        } else {
            like($r->{status}, qr/^(?:0|400|408|413)$/, "$name: refused");
            is($s3->head($key), undef, 'no object');
        }
    }
};
$t->allow_errors(qr/client intended to send too large chunked body/);

# what a client got for its keys, and what S3 holds of them
sub stored {
    my ($raw, %bodies) = @_;
    for my $key (sort keys %bodies) {
        my $r = $raw->response(60);
        is("$r->{status} " . ($r->{headers}{location} || ''), "201 /$key",
            "answer to $key");
        is_deeply([$s3->sha256($key)], [sha256_hex($bodies{$key}),
            length $bodies{$key}], 'what S3 holds');
    }
}

subtest 'one connection' => sub {
    my %bodies = ('keep-1' => 'a', 'keep-2' => '', 'keep-3' => $bytes,
        'keep-4' => 'b' x 100_000, 'keep-5' => substr($bytes, 0, PART));
    for my $port ('', 'tls') {
        my $raw = $t->raw($n->port($port || undef),
            $port ? (tls => $t->ca) : ());
        for my $key (sort keys %bodies) {
            my $body = $bodies{$key};
            $raw->send(head($key, length => length $body) . $body);
            stored($raw, $key => $body);
            $raw->send(head("c$key") . chunks($body, length $body)
                . ($body eq '' ? "0\r\n\r\n" : "\r\n0\r\n\r\n"));
            stored($raw, "c$key" => $body);
        }
        ok(!$raw->closed(0.1), "$port: still open");
    }
};

subtest 'pipelined' => sub {
    for my $port ('', 'tls') {
        my %bodies = map { my $l = $_; map { ("p$l-$_" =>
            $_ ? substr($bytes, $_, $_ * 12345) : '') } 0 .. 3 } 'a' .. 'c';
        $bodies{'pb-9'} = substr $bytes, 3;
        my $text = '';
        for my $key (sort keys %bodies) {
            my $body = $bodies{$key};
            $text .= $key =~ /[13]$/ ? head($key) . ($body eq '' ? ''
                : chunks($body, length $body) . "\r\n") . "0\r\n\r\n"
                : head($key, length => length $body) . $body;
        }
        my $raw = $t->raw($n->port($port || undef),
            $port ? (tls => $t->ca) : ());
        $raw->send($text);
        stored($raw, %bodies);
    }
};

subtest 'after a refusal' => sub {
    my $raw = $t->raw($n->port);
    $raw->send(head('refused?uploadId=1', length => 100) . 'x' x 100
        . head('good', length => 3) . 'abc');
    is($raw->response->{status}, 501, 'refused');
    stored($raw, good => 'abc');
    $raw->send(head('refused?uploads') . chunks('x' x 100, 100)
        . "\r\n0\r\n\r\n" . head('good') . "3\r\nxyz\r\n0\r\n\r\n");
    is($raw->response->{status}, 501, 'refused, chunked');
    stored($raw, good => 'xyz');
};
