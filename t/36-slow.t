#!/usr/bin/perl

# An S3 that fails every third request, and slow ones at either end: sources
# that trickle to an S3 that drops requests whose body stalls, an S3 that drips
# its answers, that thinks before it completes, that stands still.

use strict;
use warnings;
no warnings 'portable';

use lib 't/lib';
use List::Util qw/ max uniq /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Null;
use S3T::Util qw/ wait_exit /;

my $t = S3T->new(bucket => 0);

my $third = S3T::Null->new($t->dir, qw/ --verify --crc32 --every 3 /);
# a thirtieth of the patience that S3 has
my $hasty = S3T::Null->new($t->dir, qw/ --verify --stall 700 /);
my $space = S3T::Null->new($t->dir, qw/ --verify --complete-space 1500 /);
# for longer than s3_read_timeout in all, and once in one piece
my $xml = '<InitiateMultipartUploadResult><UploadId>drips</UploadId>'
    . '</InitiateMultipartUploadResult>';
my @pieces = ("HTTP/1.1 200 OK\r\nContent-Length: " . length $xml,
    "\r\n\r\n" . substr($xml, 0, 10), substr($xml, 10, 30), substr $xml, 40);
my $drip = $t->fake(on => { create =>
    { pieces => [map { (0.6, $_) } @pieces] } });
my $stops = $t->fake(on => { create => [
    { pieces => [0, $pieces[0], 600, join '', @pieces[1 .. 3]] } ] });
my $go = $t->dir . '/go';
my $still = $t->fake(on => { part => { hold => $go } });

$t->token(THIRD => $third->url, HASTY => $hasty->url, SPACE => $space->url,
    DRIP => $drip->url, STOPS => $stops->url, STILL => $still->url);

my $n = $t->nginx(<<'EOC', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    s3_payload_signature off;
    s3_transfer_id $arg_id;
    s3_transfer_zone 1m;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        client_body_buffer_size 64k;
        location /third/ {
            # by chance one part may have many of the faults
            s3_endpoint %%THIRD%%; s3_checksum crc32; s3_tries 100; s3_upload;
        }
        location /hasty/ {
            s3_endpoint %%HASTY%%; s3_part_size 5m; s3_send_timeout 2s;
            s3_upload;
        }
        location /proxied/ {
            proxy_request_buffering off;
            proxy_http_version 1.1;
            proxy_pass %%HASTY%%/bucket/;
        }
        location /space/ {
            s3_endpoint %%SPACE%%; s3_part_size 5m; s3_read_timeout 1s;
            s3_upload;
        }
        location /drip/ {
            s3_endpoint %%DRIP%%; s3_part_size 5m; s3_read_timeout 2s;
            s3_upload;
        }
        location /stops/ {
            s3_endpoint %%STOPS%%; s3_part_size 5m; s3_read_timeout 2s;
            s3_upload;
        }
        location /still/ {
            s3_endpoint %%STILL%%; s3_part_size 5m; s3_part_concurrency 2;
            s3_window 15m; s3_upload;
        }
        location /status/ { s3_status; }
    }
}
EOC

sub status { curl($n->url("/status/$_[0]"))->{json} || {} }

# The bytes of the pattern, as body_gen sends it
sub pattern {
    my ($size) = @_;
    use integer;
    return substr pack('q<*', map { $_ * -0x61c8864680b583eb }
        0 .. $size / 8), 0, $size;
}

sub put_head {
    my ($path, $size) = @_;
    return "PUT $path HTTP/1.1\r\nHost: a\r\n" . (defined $size
        ? "Content-Length: $size" : 'Transfer-Encoding: chunked') . "\r\n\r\n";
}

# A client that sends in so many pieces, with pauses that S3 does not bear; it
# comes to its end in the background.
my $results = $t->dir . '/results';

sub trickle {
    my ($path, $body, $pieces, $pause, $chunked) = @_;
    return spawn({ stderr => "$results.err" }, sub {
        my $raw = $t->raw($n->port);
        my $size = length $body;
        $raw->send(put_head($path, $chunked ? undef : $size));
        my $length = int $size / $pieces + 1;
        for (my $at = 0; $at < $size; $at += $length) {
            sleep $pause;
            my $piece = substr $body, $at, $length;
            $raw->send($chunked ? sprintf("%x\r\n%s\r\n", length $piece,
                $piece) : $piece) or last;
        }
        $raw->send("0\r\n\r\n") if $chunked;
        my $r = $raw->response(60) || { status => 0 };
        append($results, "$path $r->{status}\n");
    });
}


# They trickle meanwhile: five pieces for each part, a second between them
my $body = pattern(6 * MB);
my @slow = map { trickle($$_[0], substr($body, 0, $$_[1]), @$_[2 .. 4]) }
    ['/hasty/length', 6 * MB, 6, 1.0, 0],
    ['/hasty/chunked', 6 * MB, 6, 1.0, 1],
    ['/hasty/small', 100_000, 5, 1.0, 0],
    ['/hasty/small-chunked', 100_000, 5, 1.0, 1];
push @slow, trickle('/proxied/a', substr($body, 0, 100_000), 5, 1.0, 0);
my $h2 = curl_start($n->url('/hasty/h2', 'h2'), h2 => 1, rate => '15k',
    file => { path => write_file($t->dir . '/h2', substr $body, 0, 100_000) });
$t->allow_errors(qr/proxied.*|upstream prematurely closed/);

# and so do these
my %dripped = map { $_ => curl_start($n->url("/$_/a"), file => data(6 * MB)) }
    qw/ drip stops /;


subtest '2 GiB while every third request fails' => sub {
    my $size = $ENV{T_ASAN} ? 512 * MB : 2 * GB;
    my %how = ('a length' => [], 'chunked' => ['--chunk', 100_000]);
    my %client = map { my $path = '/third/' . s/ /-/r;
        $_ => S3T::Null::body_gen($t->dir, $n->url($path), $size, @{$how{$_}}) }
        sort keys %how;
    for my $name (sort keys %client) {
        my $r = $client{$name}->wait;
        is($r->{status}, 201, $name) or diag explain $r;
        is($r->{json}{bytesStored}, $size, "$name: all of it");
    }
    # it compared each byte, and the CRC-32 of the whole
    my $s = $third->stats;
    is_deeply([@$s{qw/ objects open_uploads bad /}], [2, 0, 0],
        'byte for byte') or diag explain $s;
    my $parts = $size / (16 * MB);
    cmp_ok($s->{faults}, '>=', $parts, "$s->{faults} faults");
    my $totals = curl($n->url('/status/'))->{json}{totals};
    # (a kept connection that is closed is no try)
    cmp_ok($totals->{s3Retries}, '>', $s->{faults} / 2,
        "$totals->{s3Retries} more tries");
    is($totals->{failed}, 0, 'none has failed');
};

subtest 'an S3 that drips' => sub {
    # the time counts from the last byte
    my $r = $dripped{drip}->wait;
    is($r->{status}, 201, 'stored');
    cmp_ok($r->{seconds}, '>', 2.3, 'though it took longer than that');
    is($drip->begun('create'), 1, 'at the first try');
    is($dripped{stops}->wait->{status}, 201, 'one that stops in the middle');
    is($stops->begun('create'), 2, 'is asked again');
};

subtest 'an S3 that thinks before it completes' => sub {
    my $r = S3T::Null::body_gen($t->dir, $n->url('/space/a'), 12 * MB)->wait;
    is($r->{status}, 201, 'stored');
    my $s = $space->stats;
    is_deeply([@$s{qw/ complete objects head /}], [1, 1, 0],
        'at the first try, whatever s3_read_timeout');
};

subtest 'an S3 that stands still' => sub {
    my $id = 'still-0123456789';
    my $client = S3T::Null::body_gen($t->dir, $n->url("/still/a?id=$id"),
        40 * MB);
    ok((wait_for { status($id)->{bytesTransferred} || 0 }), 'begun');
    my (@seen, $before);
    wait_for {
        push @seen, my $now = status($id);
        my $same = $before && $before == $now->{bytesTransferred};
        $before = $now->{bytesTransferred};
        $same && $now->{bytesTransferred} >= 15 * MB;
    } 30, 0.1;
    my %last = %{$seen[-1]};
    is_deeply([@last{qw/ state bytesStored partsStored storedPercentage /}],
        ['active', 0, 0, 0], 'nothing is stored');
    cmp_ok($last{bytesTransferred}, '<=', 15 * MB + 64 * KB,
        'the window came, and not more');
    write_file($go, '');
    is($client->wait->{status}, 201, 'stored in the end');
    is(status($id)->{storedPercentage}, 100, 'as the record says');
};

subtest 'sources that trickle' => sub {
    is(wait_exit($_, 300), 0, 'a client came to its end') for @slow;
    my %status = (read_file($results) || '') =~ m{^(\S+) (\d+)$}mg;
    is(read_file("$results.err") || '', '', 'without an error of its own');
    is($status{"/hasty/$_"}, 201, "$_: stored")
        for qw/ length chunked small small-chunked /;
    is($h2->wait->{status}, 201, 'HTTP/2: stored');
    my $s = $hasty->stats;
    # the same through proxy_pass shows that it would have been dropped
    isnt($status{'/proxied/a'}, 200, 'proxy_pass: dropped');
    is_deeply([@$s{qw/ stalled bad cut objects open_uploads put part
        complete /}],
        [1, 0, 0, 5, 0, 4, 4, 2], 'no request of ours stalled, none was'
        . ' tried again') or diag explain $s;
};
