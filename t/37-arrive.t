#!/usr/bin/perl

# Parts that are sent while they arrive: that it is done, and when it is not;
# a source that stalls, leaves, or has to give way to others inside of one; an
# S3 that fails in the middle of one.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Null qw/ body_gen pattern /;
use S3T::Open;

use constant PART => 5 * MB;

my $t = S3T->new;
my $s3 = $t->s3;

my $half = { read => 200_000 };
my %second = (
    reset => { %$half, close => 'reset' },
    busy => { %$half, status => 503 },
    early => { %$half, status => 200 },
    refused => { %$half, status => 403, body =>
        '<Error><Code>AccessDenied</Code></Error>' },
);
my %fake = (map({ my $name = $_; $name => $t->fake(on => {
        part => [ {}, $second{$name} ] }) } keys %second),
    map { $_ => $t->fake } qw/ early-on signed crc32 chunked small /);

my $null = S3T::Null->new($t->dir, qw/ --verify /);
my $storm = S3T::Null->new($t->dir, qw/ --verify --early 6 --reset 5
    --slowdown 7 /);
# (each connection; so that it is the socket that is waited for)
my $slow = S3T::Null->new($t->dir, qw/ --verify --rate 20000000 --port 0
    --tls-port 0 --cert /, $t->certs . '/server.pem', '--key',
    $t->certs . '/server.key');

my %more = (signed => 's3_payload_signature on;', crc32 => 's3_checksum crc32;',
    small => 's3_part_size 41m; s3_window 82m;', reset => 's3_keepalive 0;');

$t->token(NULL => $null->url, STORM => $storm->url, TLS => $slow->url('tls'),
    SLOW => $slow->url, FAKES => join "\n", map { "location /$_/ {"
        . ' s3_endpoint ' . $fake{$_}->url . '; ' . ($more{$_} || '')
        . ' s3_upload; }' } sort keys %fake);

my $conf = <<'EOC';
%%MAIN%%
http {
    %%HTTP%%
    s3_memory %%MEMORY%%;
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    s3_payload_signature off;
    s3_part_size 5m;
    s3_window 10m;
    s3_part_concurrency 1;
    s3_retry_timeout 20s;
    s3_transfer_id $arg_id;
    s3_ssl_trusted_certificate %%CA%%;
    server {
        listen 127.0.0.1:%%PORT%%;
        %%FAKES%%
        location /null/ { s3_endpoint %%NULL%%; s3_upload; }
        location /hasty/ { s3_endpoint %%NULL%%; s3_send_timeout 3s;
            s3_upload; }
        location /slowly/ { s3_endpoint %%NULL%%; s3_send_timeout 6s;
            s3_upload; }
        location /large/ { s3_endpoint %%NULL%%; s3_part_size 16m;
            s3_window 32m; s3_upload; }
        location /many/ { s3_endpoint %%SLOW%%; s3_part_size 16m;
            s3_window 32m; s3_upload; }
        # by chance one part may have many of the faults
        location /storm/ { s3_endpoint %%STORM%%; s3_part_concurrency 6;
            s3_window 35m; s3_tries 100; s3_retry_timeout 120s; s3_upload; }
        location /tls/ { s3_endpoint %%TLS%%; s3_part_concurrency 6;
            s3_window 35m; s3_upload; }
        location /real/ { %%S3%% s3_payload_signature off;
            s3_part_concurrency 6; s3_window 35m; s3_upload; }
        location /real-tls/ { s3_endpoint %%RGW_SSL%%; s3_bucket %%BUCKET%%;
            s3_part_concurrency 6; s3_window 35m; s3_upload; }
        location /status/ { s3_status; }
    }
}
EOC

$t->token(MEMORY => '100m');
my $n = $t->nginx($conf, level => 'debug');
my $id = 0;
body(pattern(8 * PART));

# how many parts were begun before they were whole
sub begun { scalar(() = $_[0]->log =~ /is sent while it arrives/g) }

sub again {
    my ($n, $of) = @_;
    return () = $n->log =~ /sent again once it is whole, .*"[^"]*$of"/g;
}

# An upload of which S3 has a part, and nginx the beginning of the next.
sub second {
    my ($path, $bytes) = @_;
    my $u = begin($t->raw($n->port), $path, sprintf('arrive-%010d', ++$id), 1);
    stored($n, $u) or die "no part of $path was stored";
    feed($u, $bytes || MB);
    return $u;
}

# all of it came, and S3 had what was sent to it
sub is_complete {
    my ($u, $fake, $name) = @_;
    feed($u, 1e9);
    my $r = $u->{c}->response(60) || {};
    is($r->{status}, 201, "$name: stored") or diag explain $r;
    return if !$fake;
    my %parts = map { $_->{query}{partNumber} => $_->{sha256} }
        grep { $_->{whole} } $fake->requests('part');
    is_deeply([map { $parts{$_} } 1 .. 8], [map {
        sha256_hex(substr body(), $_ * PART, PART) } 0 .. 7],
        "$name: byte for byte");
}


subtest 'it begins before the part is whole' => sub {
    my $fake = $fake{'early-on'};
    my $before = begun($n);
    my $u = second('/early-on/');
    ok(wait_for { $fake->begun('part') == 2 }, 'S3 sees the second part');
    ok(wait_for(sub { status($n, $u->{id})->{bytesTransferred}
        == $u->{sent} }), 'of which nginx has a fifth');
    is_complete($u, $fake, 'the rest');
    is($fake->begun('part'), 8, 'each part was sent once');
    cmp_ok(begun($n) - $before, '>=', 1, 'as the log says');
};

subtest 'where something of it goes first, it does not' => sub {
    for my $name (qw/ signed crc32 chunked small /) {
        my $fake = $fake{$name};
        my $before = begun($n);
        if ($name eq 'chunked') {
            my $r = curl($n->url('/chunked/x'), chunked => 1, rate => '40m',
                file => data(22 * MB));
            is($r->{status}, 201, "$name: stored");
        } elsif ($name eq 'small') {
            my $u = begin($t->raw($n->port), '/small/', 'arrive-small-0001',
                7);
            ok(wait_for(sub { (status($n, $u->{id})->{bytesTransferred} || 0)
                == $u->{sent} }), "$name: nearly all is there");
            is($fake->begun('put'), 0, "$name: S3 sees nothing");
            feed($u, 1e9);
            is($u->{c}->response(60)->{status}, 201, "$name: stored");
        } else {
            my $u = second("/$name/");
            ok(wait_for(sub { status($n, $u->{id})->{bytesTransferred}
                == $u->{sent} }), "$name: it is there");
            is($fake->begun('part'), 1, "$name: S3 does not see it");
            is_complete($u, $fake, $name);
        }
        is(begun($n), $before, "$name: none was begun");
    }
};

subtest 'a source that stalls, or drips' => sub {
    my %stats = %{$null->stats};
    # (so near to its end that the rest is expected, also of a slow machine)
    my $u = second('/hasty/', 4 * MB);
    ok(wait_for(sub { again($n, $u->{id}) }), 'the try is given up');
    ok(lines($n, qr/part:2 is .*, its source stalled: \d+ of 5242880 /)
        == 1, 'for that');
    is(status($n, $u->{id})->{state}, 'active', 'not the upload');
    my $before = begun($n);
    feed($u, 2 * MB);
    stored($n, $u);
    feed($u, 2 * MB);
    ok(wait_for(sub { status($n, $u->{id})->{bytesTransferred}
        == $u->{sent} }), 'the next part');
    is(begun($n), $before, 'is not trusted to it');
    is_complete($u, undef, 'a stalled one');

    # (one that had to stand still here has stalled, too)
    my ($v, $pause, $count) = (undef, 1, 0);
    while ($pause > 0.4 && $count++ < 10) {
        is_complete($v, undef, 'one that stood still') if $v;
        $v = second('/slowly/', 4 * MB);
        my $last = time;
        $pause = 0;
        ok(wait_for(sub {
            for (1 .. 5) {
                feed($v, 1000);
                my $now = time;
                $pause = $now - $last if $now - $last > $pause;
                $last = $now;
                sleep 0.02;
            }
            again($n, $v->{id});
        }), 'nor one that never ends');
    }
    ok(lines($n, qr/part:2 is .*, its source is slow: .*"[^"]*$v->{id}"/) == 1,
        'it is slow');
    is_complete($v, undef, 'a slow one');

    my $now = $null->stats;
    # what the wire had of the first try is compared
    is_deeply({ map { $_ => $now->{$_} - $stats{$_} } qw/ bad objects
        list_parts open_uploads / }, { bad => 0, objects => 1 + $count,
        list_parts => 1 + $count, open_uploads => 0 }, 'byte for byte');
    is(totals($n)->{s3Retries}, 0, 'no try of S3\'s has failed');
    is_deeply([lines($n, qr/\[(?:warn|error)\]/)], [], 'and nothing is wrong');
};

subtest 'an S3 that fails in the middle' => sub {
    my %said = (reset => qr/broke the connection|closed the connection/,
        busy => qr/503/, early => qr/answered 200 before/);
    for my $name (sort keys %said) {
        my $u = second("/$name/");
        ok(wait_for(sub { $fake{$name}->begun('part') >= 3 }),
            "$name: it is sent again, as far as it is there");
        like((grep { /part:2/ } lines($n, $name))[0], $said{$name},
            "$name: the try is told of");
        is_complete($u, $fake{$name}, $name);
        is($fake{$name}->begun('part'), 9, "$name: one try more");
    }
};

subtest 'an S3 that refuses it' => sub {
    $t->expect_errors(qr/UploadPart failed: 403 AccessDenied/);
    my $u = second('/refused/');
    my $r = $u->{c}->response;
    is($r->{status}, 502, 'the client is told at once');
    is(state_of($n, $u->{id}), 'failed', 'the record');
    ok(wait_for(sub { $fake{refused}->requests('abort') }), 'aborted');
};

subtest 'a client that leaves' => sub {
    my $before = begun($n);
    my $u = second('/null/');
    ok(wait_for(sub { begun($n) > $before }), 'in the middle of a part');
    $u->{c}->reset;
    ok(wait_for(sub { state_of($n, $u->{id}) eq 'aborted' }), 'the record');
    ok(wait_for(sub { !$null->stats->{open_uploads} }), 'S3 has nothing');
    ok(wait_for(sub { !totals($n)->{memoryUsed} }), 'nor has the worker');
};

subtest 'faults at every other part' => sub {
    my $before = begun($n);
    my $r = body_gen($t->dir, $n->url('/storm/x'), 200 * MB, '--limit-rate',
        80e6)->wait;
    is($r->{status}, 201, 'stored') or diag explain $r;
    my $stats = $storm->stats;
    is("@$stats{qw/ bad objects open_uploads /}", '0 1 0', 'byte for byte');
    cmp_ok($stats->{faults}, '>', 10, "$stats->{faults} faults");
    cmp_ok(begun($n) - $before, '>=', 3, 'parts that were sent early');
};

subtest 'over TLS, with sockets that are full' => sub {
    my $before = begun($n);
    my $r = body_gen($t->dir, $n->url('/tls/x'), 100 * MB, '--limit-rate',
        60e6)->wait;
    is($r->{status}, 201, 'stored') or diag explain $r;
    is("@{$slow->stats}{qw/ bad objects open_uploads /}", '0 1 0',
        'byte for byte');
    cmp_ok(begun($n) - $before, '>=', 3, 'parts that were sent early');
};

subtest 'a real S3' => sub {
    my $d = data(33 * MB + 17);
    for my $of (qw/ real real-tls /) {
        my $before = begun($n);
        my $r = curl($n->url("/$of/x"), file => $d, rate => '20m');
        is($r->{status}, 201, "$of: stored");
        is_deeply([$s3->sha256("$of/x")], [$d->{sha256}, $d->{size}],
            "$of: the object");
        cmp_ok(begun($n) - $before, '>=', 1, "$of: parts sent early");
    }
};

$n->quit;

subtest 'others need the memory' => sub {
    $t->token(MEMORY => '40m', FAKES => '');
    $n = $t->nginx($conf, level => 'debug');
    my $id = 'arrive-squeezed-1';
    my $stored = sub { status($n, $id)->{partsStored} || 0 };
    my $u = begin($t->raw($n->port), '/large/', $id, 3.2);
    ok(wait_for(sub { $stored->() == 1 }), 'the first part is stored');
    feed($u, 24 * MB - $u->{sent});
    ok(wait_for(sub { begun($n) }), 'half of the second is on its way');
    my @others = map { body_gen($t->dir, $n->url("/many/$_"), 48 * MB) }
        1 .. 3;
    # (a byte now and then, since one that stalls is given up for that)
    ok(wait_for(sub { feed($u, 1); $stored->() == 2 }, 60, 0.1),
        'it is stored as a part of its own');
    ok(lines($n, qr/part:2 is .*, others need the memory: 8388\d{3} of 167/)
        == 1, 'by another try');
    is_complete($u, undef, 'the rest');
    is($_->wait->{status}, 201, 'another: stored') for @others;
    is($_->{bad}, 0, 'byte for byte') for $null->stats, $slow->stats;
    ok(wait_for(sub { !totals($n)->{memoryUsed} }), 'all memory came back');
};

$n->quit;

# each part is one of the smallest then, whose size is known when it begins
subtest 'others wait for memory all the time' => sub {
    $t->token(MEMORY => '40m');
    $n = $t->nginx($conf, level => 'debug');
    my @clients = map { body_gen($t->dir, $n->url("/large/crowd-$_"),
        40 * MB + $_, '--limit-rate', 30e6) } 1 .. 6;
    is($_->wait->{status}, 201, 'stored') for @clients;
    cmp_ok(scalar(lines($n, qr/while it arrives, \d+ of 5242880 bytes/)), '>=',
        6, 'parts that were sent early');
    is(scalar(lines($n, qr/others need the memory/)), 0, 'none had to be given up');
    is($null->stats->{bad}, 0, 'byte for byte');
    ok(wait_for(sub { !totals($n)->{memoryUsed} }), 'all memory came back');
};
