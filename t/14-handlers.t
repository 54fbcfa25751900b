#!/usr/bin/perl

# Beside other handlers: a body that one of them has consumed makes no object,
# and one that was consumed here is not passed on as if it were whole, nor is
# one that could not be read to its end; a client that leaves is a 499, an early
# answer ends the connection; and what worker_shutdown_timeout cuts off is
# aborted.

use strict;
use warnings;

use lib 't/lib';
use IO::Select;
use IO::Socket::INET;
use JSON::PP qw/ encode_json /;
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
my $fails = $t->fake(on => {
    put => { status => 403 },
    part => { status => 403 },
});

my $keys = 's3_bucket bucket; s3_credentials static k s; '
    . 's3_payload_signature off; s3_endpoint ';
$t->token(S3_FAKE => $keys . $s3->url, EARLY => $keys . $early->url,
    SLOW => $keys . $slow->url, FAILS => $keys . $fails->url,
    EATS => $eats->url, REFUSES => $refuses->url);

# Stands where an error_page leads to, over HTTP and over SCGI: says what each
# request announced of a body, and what came, also beyond that for 0.3 s.
my %seen = map { $_ => $t->dir . "/seen.$_" } qw/ http scgi /;
my @recorders = map {
    my $way = $_;
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1:0',
        Listen => 16) or die "listen: $!";
    $t->token("TO_\U$way" => '127.0.0.1:' . $listener->sockport);
    spawn({}, sub { record($way, $listener) });
} sort keys %seen;

sub record {
    my ($way, $listener) = @_;
    my $end = $way eq 'http' ? qr/\r\n\r\n/ : qr/\0,/;
    while (my $c = $listener->accept) {
        my $got = '';
        my $select = IO::Select->new($c);
        while ($got !~ $end) {
            sysread $c, $got, 65536, length $got or last;
        }
        my ($head, $body) = split $end, $got, 2;
        my ($method) = $head =~ /\b(GET|PUT)\b/;
        my @length = $head =~ /(?:(?<!_)content.length|^transfer-encoding)
            (?::\ |\0)(\w+)/gimx;
        my ($size) = grep { /^\d/ } @length, 0;
        while ($select->can_read(length $body < $size ? 20 : 0.3)) {
            sysread $c, $body, 65536, length $body or last;
        }
        S3T::Util::append($seen{$way},
            encode_json([$method, "@length", length $body]) . "\n");
        syswrite $c, ($way eq 'http' ? 'HTTP/1.1 200 OK' : 'Status: 200')
            . "\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
        CORE::close($c);
    }
}

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
        location /small/ {
            client_max_body_size 1m;
            %%S3_FAKE%%;
            location /small/http { s3_upload; error_page 413 = @http; }
            location /small/scgi { s3_upload; error_page 413 = @scgi; }
            location /small/s3 {
                proxy_pass %%REFUSES%%;
                error_page 413 = @s3;
            }
        }
        location /told/http/ { %%S3_FAKE%%; s3_upload; post_action /http; }
        location /told/scgi/ { %%S3_FAKE%%; s3_upload; post_action @scgi; }
        location /moved/ { error_page 418 =201 @fails; return 418; }
        location /stored/ { error_page 418 =200 @s3; return 418; }
        location @fails { %%FAILS%%; s3_tries 1; s3_upload; }
        location /dropped/ {
            add_header Last-Modified "Sat, 01 Jan 2022 00:00:00 GMT";
            return 200 "not a 412";
            error_page 412 = @s3;
        }
        location /no-disk/ {
            client_body_buffer_size 16k;
            client_body_temp_path %%DIR%%/no-disk;
            proxy_pass %%REFUSES%%;
            error_page 500 = @s3;
        }
        location @s3 { client_max_body_size 0; %%S3_FAKE%%; s3_upload; }
        location /fails/ {
            %%FAILS%%;
            s3_tries 1;
            location /fails/http/ { s3_upload; error_page 502 = @http; }
            location /fails/scgi/ { s3_upload; error_page 502 = @scgi; }
            location /fails/http/page/ { s3_upload; error_page 502 /http; }
            location /fails/scgi/page/ { s3_upload; error_page 502 /scgi; }
            location /fails/http/kept/ {
                mirror /nowhere;
                s3_upload;
                error_page 502 = @http;
            }
            location /fails/scgi/kept/ {
                mirror /nowhere;
                s3_upload;
                error_page 502 = @scgi;
            }
        }
        proxy_http_version 1.1;
        scgi_param METHOD $request_method;
        location @http {
            client_max_body_size 0;
            proxy_pass http://%%TO_HTTP%%;
        }
        location @scgi { client_max_body_size 0; scgi_pass %%TO_SCGI%%; }
        location /http { proxy_pass http://%%TO_HTTP%%; }
        location /scgi { scgi_pass %%TO_SCGI%%; }
        location /nowhere { return 204; }
    }
}
EOF

sub state_log { S3T::Util::read_file($n->{dir} . '/state.log') }

$t->expect_errors(qr/the request body was taken by another handler/);
$t->expect_errors(qr/s3 (?:UploadPart|PutObject) failed: 403/);
$t->allow_errors(qr/upstream/);

my $d = data(300 * KB);

# with a length or in chunks, over HTTP/2 with a length or without
sub put_as {
    my ($way, $path, $file, %o) = @_;
    return curl($n->url($path, $way =~ /h2/ ? 'h2' : ()), file => $file,
        h2 => scalar($way =~ /h2/),
        chunked => scalar($way =~ /chunked|unsized/), %o);
}

for my $way (qw/ length chunked h2 /) {
    $s3->forget;
    # (curl 7.88 loses an early answer of HTTP/2)
    my $r = $way eq 'h2'
        ? h2_put($n->port('h2'), "/unbuffered/$way", $d)
        : put_as($way, "/unbuffered/$way", $d);
    is($r->{status}, 500, "$way: an eaten body is refused");
    is(scalar(my @none = $s3->requests), 0, "$way: and makes no S3 request");

    $r = put_as($way, "/buffered/$way", $d);
    is($r->{status}, 201, "$way: a buffered one is there for the next");
    my ($put) = $s3->requests('put');
    is($put && $put->{sha256}, $d->{sha256}, "$way: whole");
}

# what is there of a body that nginx could not read to its end is not the body
sub chunk { sprintf "%x\r\n%s\r\n", $_[0], 'x' x $_[0] }

for my $to (qw/ s3 http scgi /) {
    for my $first ('', chunk(300 * KB)) {
        for my $apart (0, 1) {
            $s3->forget;
            unlink values %seen;
            my $raw = $t->raw($n->port);
            $raw->send("PUT /small/$to HTTP/1.1\r\nHost: a\r\n"
                . "Transfer-Encoding: chunked\r\n\r\n"
                . ($apart ? '' : $first . chunk(2 * MB)));
            if ($apart) {
                $raw->delivered;
                $raw->send($first);
                $raw->delivered;
                $raw->send(chunk(2 * MB));
            }
            my $name = "$to, too large after " . length($first);
            is($raw->response->{status}, $to eq 's3' ? 500 : 413, $name);
            is(scalar(my @none = ($s3->requests('put'),
                grep { -e } values %seen)), 0, 'and none gets what was there');
            $raw->close;
        }
    }
}
$t->expect_errors(qr/client intended to send too large chunked body/);

rename "$n->{dir}/no-disk", "$n->{dir}/no-more-disk" or die "rename: $!";
for my $way (qw/ length chunked /) {
    $s3->forget;
    my $r = put_as($way, '/no-disk/x', $d);
    is($r->{status}, 500, "$way: no place for the body");
    is(scalar(my @none = $s3->requests), 0, 'stores none of it');
}
$t->expect_errors(qr/open\(\) \S+no-disk\S+ failed/);

# and of one that nginx drops, nothing is there
for my $way (qw/ length chunked h2 h2-unsized /) {
    $s3->forget;
    put_as($way, "/dropped/$way", $d,
        headers => ['If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT']);
    ok((wait_for { state_log() =~ m{^/dropped/$way }m }), "$way: dropped");
    is(scalar(my @none = $s3->requests), 0, 'makes no object');
}

# by the ways that error_page has: a named location, a page, and one whose body
# nginx has for a mirror
sub led_away {
    my ($to, $way, $size) = @_;
    my $path = "/fails/$to/$way-$size";
    unlink values %seen;
    my $r = $way =~ /h2/ && $size > 1 * MB
        ? h2_put($n->port('h2'), $path, data($size))
        : put_as($way, $path, data($size));
    return ($r, map { S3T::Util::read_json_lines($seen{$_}) } keys %seen);
}

for my $way (qw/ length chunked h2 h2-unsized /) {
    for my $size (300 * KB, 12 * MB) {
        for my $next (sort keys %seen) {
            my $name = "$next, $way, $size";
            my ($r, @seen) = led_away($next, $way, $size);
            is("$r->{status} @seen", '502 ', "$name: a body that is gone")
                or diag explain [$r, @seen];

            ($r, @seen) = led_away("$next/page", $way, $size);
            is("$r->{status} $r->{body}", "502 ok\n", "$name: a page");
            is_deeply(\@seen, [['GET', $next eq 'scgi' ? '0' : '', 0]],
                "$name: has none") or diag explain \@seen;

            ($r, @seen) = led_away("$next/kept", $way, $size);
            is("$r->{status} $r->{body}", "200 ok\n", "$name: one kept");
            is_deeply(\@seen, [['PUT', $size, $size]], "$name: is passed on")
                or diag explain \@seen;
        }
    }
}
$t->expect_errors(
    qr/taken by s3_upload, "\@(?:http|scgi)" cannot have it/);
for my $how ("Content-Length: 20000000\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n989680\r\n")
{
    my $raw = $t->raw($n->port);
    $raw->send("PUT /fails/http/page/x HTTP/1.1\r\nHost: a\r\n$how"
        . 'x' x (6 * MB));
    my $r = $raw->response;
    is("$r->{status} $r->{body}", "502 ok\n", 'a page before the body is here');
    is(lc($r->{headers}{connection} // ''), 'close', 'ends the connection');
    $raw->close;
}

# an error_page's own status is not for an upload that failed
for my $size (300 * KB, 12 * MB) {
    is(curl($n->url("/moved/$size"), file => data($size))->{status}, 502,
        "$size: failed");
}
is(curl($n->url('/moved/x?uploads'), file => $d)->{status}, 501, 'refused');

# nor are the conditions of one that was stored for its answer
for my $if ('If-None-Match: *',
    'If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT')
{
    my $r = curl($n->url('/stored/x'), file => $d, headers => [$if]);
    is("$r->{status} $r->{json}{state}", '200 completed', $if);
}

# who is told of an upload that was answered
for my $way (qw/ length chunked h2 h2-unsized /) {
    for my $next (sort keys %seen) {
        unlink values %seen;
        my $r = put_as($way, "/told/$next/$way", $d);
        is($r->{status}, 201, "$next, $way: stored");
        ok((wait_for { -s $seen{$next} }), 'post_action is done');
        is_deeply([S3T::Util::read_json_lines($seen{$next})],
            [['PUT', $next eq 'scgi' ? '0' : '', 0]], 'without a body');
    }
}
end_child($_) for @recorders;

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
    ok((wait_for { !kill 0, $pid } 60), 'the old worker left');
    ok((wait_for { $s3->requests('abort') == 3 }),
        'all three multipart uploads were aborted');
    $_->close for @raw;
}
