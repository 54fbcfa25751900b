#!/usr/bin/perl

# Beside other handlers: a body that one of them has consumed makes no object,
# a client that leaves is a 499, an early answer ends the connection; and what
# worker_shutdown_timeout cuts off is aborted.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;

my $t = S3T->new;
my $s3 = $t->fake;
my $eats = $t->fake(on => {
    put => { read => 100 * KB, close => 'before' },
});
my $refuses = $t->fake(on => { put => { status => 503 } });
my $early = $t->fake(on => {
    part => { status => 403, read => 0, close => 'after' },
});
my $slow = $t->fake(on => {
    put => [ { delay => 1.5, status => 503 }, {} ],
});

my $keys = 's3_bucket bucket; s3_credentials static k s; '
    . 's3_payload_signature off; s3_endpoint ';
$t->token(S3_FAKE => $keys . $s3->url, EARLY => $keys . $early->url,
    SLOW => $keys . $slow->url, EATS => $eats->url,
    REFUSES => $refuses->url);

my $n = $t->nginx(<<'EOF');
%%MAIN%%
worker_shutdown_timeout 1s;
http {
    %%HTTP%%
    log_format state "$request_uri $status $s3_transfer_state";
    access_log %%DIR%%/state.log state;
    s3_part_size 5m;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        location / { %%S3_FAKE%%; s3_upload; }
        location /early/ { %%EARLY%%; s3_tries 1; s3_upload; }
        location /slow/ { %%SLOW%%; s3_retry_timeout 1s; s3_upload; }
        location /unbuffered/ {
            proxy_pass %%EATS%%;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            error_page 502 503 = @s3;
        }
        location /buffered/ {
            proxy_pass %%REFUSES%%;
            proxy_http_version 1.1;
            proxy_intercept_errors on;
            error_page 502 503 = @s3;
        }
        location @s3 { %%S3_FAKE%%; s3_upload; }
    }
}
EOF

sub state_log { S3T::Util::read_file($n->{dir} . '/state.log') }

$t->expect_errors(qr/the request body was taken by another handler/);
$t->expect_errors(qr/s3 UploadPart failed: 403/);
$t->allow_errors(qr/upstream/);

my $d = data(300 * KB);

for my $way (qw/ length chunked h2 /) {
    my %how = (file => $d,
        $way eq 'chunked' ? (chunked => 1) : (),
        $way eq 'h2' ? (h2 => 1) : ());
    my @port = $way eq 'h2' ? ('h2') : ();

    $s3->forget;
    # (curl 7.88 loses an early answer of HTTP/2)
    my $r = $way eq 'h2'
        ? h2_put($n->port('h2'), "/unbuffered/$way", $d)
        : curl($n->url("/unbuffered/$way"), %how);
    is($r->{status}, 500, "$way: an eaten body is refused");
    is(scalar(my @none = $s3->requests), 0, "$way: and makes no S3 request");

    $r = curl($n->url("/buffered/$way", @port), %how);
    is($r->{status}, 201, "$way: a buffered one is there for the next");
    my ($put) = $s3->requests('put');
    is($put && $put->{sha256}, $d->{sha256}, "$way: whole");
}

{
    my $raw = $t->raw($n->port);
    $raw->send("PUT /early/x HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: 20000000\r\n\r\n" . 'x' x (6 * MB));
    my $r = $raw->response;
    is($r->{status}, 502, 'S3 refused while the body was coming');
    is(lc($r->{headers}{connection} // ''), 'close',
        'and the connection is said to end');
    $raw->close;
}

{
    my $raw = $t->raw($n->port);
    $raw->send("PUT /gone HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: 2000000\r\n\r\n" . 'x' x 100000);
    $raw->close;
    ok((wait_for { state_log() =~ m{^/gone }m }), 'the client left');
    like(state_log(), qr{^/gone 499 aborted$}m, 'it is logged as 499');
}

is(curl($n->url('/slow/x'), file => $d)->{status}, 201,
    'a try that took longer than s3_retry_timeout is followed by another');

{
    $s3->forget;
    my @raw = map {
        my $raw = $t->raw($n->port);
        $raw->send("PUT /shut$_ HTTP/1.1\r\nHost: a\r\n"
            . "Content-Length: 20000000\r\n\r\n" . 'x' x (5 * MB + 100));
        $raw;
    } 1 .. 3;
    ok((wait_for { $s3->requests('part') == 3 }), 'three uploads are on');
    my ($pid) = $n->workers;
    $n->reload;
    ok((wait_for { !kill 0, $pid } 20), 'the old worker left');
    ok((wait_for { $s3->requests('abort') == 3 }),
        'all three multipart uploads were aborted');
    $_->close for @raw;
}
