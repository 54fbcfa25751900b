#!/usr/bin/perl

# What runs before s3_upload, and where requests are sent on to: nobody who is
# refused reaches S3, gets 100 Continue or has a byte of his body read before
# that, and what nginx does with locations works as for proxy_pass.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;

my $t = S3T->new(bucket => 0);
my $fake = $t->fake;
# it answers requests for leave: 200 and 401, the late ones when it is time
my $time = $t->dir . '/time';
my $door = $t->fake(on => {
    get => sub { return { body => 'leave',
        hold => $_[0]{path} =~ /late/ ? $time : '',
        status => $_[0]{path} =~ /yes/ ? 200 : 401,
        headers => { 'X-User' => 'someone' } } } });
# a page that includes another, and a redirect
my $origin = $t->fake(on => {
    get => { status => 200,
        body => '<a><!--# include virtual="/plain/included" --><b>',
        headers => { 'Content-Type' => 'text/html' } },
    put => { headers => { 'X-Accel-Redirect' => '/plain/accelerated' } },
    part => { headers => { 'X-Accel-Redirect' => '/plain/accelerated' } },
});
$t->token(FAKE => $fake->url, DOOR => $door->url, ORIGIN => $origin->url);

my $n = $t->nginx(<<'EOC', workers => 1);
%%MAIN%%
http {
    %%HTTP%%
    s3_endpoint %%FAKE%%;
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    s3_part_size 5m;
    limit_req_zone $binary_remote_addr zone=requests:64k rate=1r/m;
    limit_conn_zone $binary_remote_addr zone=connections:64k;
    map $http_x_way $way { default ""; upload 1; }
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_small%% rcvbuf=64k;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl http2;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        root %%DIR%%;

        location /plain/ { s3_upload; }
        location /basic/ {
            auth_basic uploads; auth_basic_user_file %%DIR%%/htpasswd;
            s3_upload $remote_user/$uri;
        }
        location /allow/ { allow 127.0.0.1; deny all; s3_upload; }
        location /deny/ { allow 192.0.2.1; deny all; s3_upload; }
        location /any/ {
            satisfy any; deny all;
            auth_basic uploads; auth_basic_user_file %%DIR%%/htpasswd;
            s3_upload;
        }
        location /any/address/ {
            satisfy any; allow 127.0.0.1; deny all;
            auth_basic uploads; auth_basic_user_file %%DIR%%/htpasswd;
            s3_upload;
        }
        location /any/request/ {
            satisfy any; deny all; auth_request /leave/yes; s3_upload;
        }
        location /all/ {
            satisfy all; allow 127.0.0.1; deny all;
            auth_basic uploads; auth_basic_user_file %%DIR%%/htpasswd;
            s3_upload;
        }
        location /request/yes/ {
            auth_request /leave/yes;
            auth_request_set $user $upstream_http_x_user;
            s3_upload $user/$uri;
        }
        location /request/no/ { auth_request /leave/no; s3_upload; }
        location /late/yes/ { auth_request /leave/late-yes; s3_upload; }
        location /late/no/ { auth_request /leave/late-no; s3_upload; }
        location /request/page/ {
            auth_request /leave/no; error_page 401 = @login; s3_upload;
        }
        location /request/self/ { auth_request /plain/leave; s3_upload; }
        location /leave/ {
            internal;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_method GET;
            proxy_pass %%DOOR%%;
        }
        location @login { return 302 /login; }

        location /rate/ { limit_req zone=requests; s3_upload; }
        location /count/ { limit_conn connections 1; s3_upload; }

        location /except/ {
            limit_except PUT {
                auth_basic uploads; auth_basic_user_file %%DIR%%/htpasswd;
            }
            s3_upload;
        }
        location /except/inside/ {
            limit_except GET { s3_upload except/$http_x_key; }
            proxy_pass %%ORIGIN%%;
        }
        location /if/ {
            set $key plain/$uri;
            if ($way) { s3_upload if/$http_x_key; }
            if ($request_method = GET) { return 405; }
            s3_upload $key;
        }
        location /if/return/ { if ($way) { return 403; } s3_upload; }

        location /rewrite/last/ { rewrite ^/rewrite/last/(.*)$ /plain/$1 last; }
        location /rewrite/break/ {
            rewrite ^/rewrite/break/(.*)$ /broken/$1 break; s3_upload;
        }
        location /rewrite/auth/ { rewrite ^/rewrite/auth/(.*) /basic/$1 last; }
        location /rewrite/out/ { rewrite ^ /elsewhere permanent; s3_upload; }
        location /try/ { try_files $uri @upload; }
        location /try/to/ { try_files $uri /plain/tried; }
        location /try/here/ { try_files $uri =404; s3_upload; }
        location @upload { s3_upload; }
        location @basic {
            auth_basic uploads; auth_basic_user_file %%DIR%%/htpasswd;
            s3_upload;
        }
        location /error/ { error_page 403 = @upload; deny all; }
        location /error/auth/ { error_page 404 = @basic; return 404; }
        location /error/uri/ { error_page 404 /plain/erred; return 404; }
        location /refused/ { error_page 400 = @note; s3_upload $arg_key; }
        location @note { return 200 "noted\n"; }

        location /accel/ { proxy_pass %%ORIGIN%%; }
        location /accel/stream/ {
            proxy_request_buffering off; proxy_pass %%ORIGIN%%;
        }
        location /ssi/ { ssi on; proxy_pass %%ORIGIN%%; }
        location /mirror/ { mirror /plain/copy; s3_upload; }
        location /internal/ { internal; s3_upload; }
    }
}
EOC
write_file("$n->{dir}/htpasswd", "user:{PLAIN}password\n");
chmod 0644, "$n->{dir}/htpasswd";
mkdir "$n->{dir}/try";
mkdir "$n->{dir}/try/here";
write_file("$n->{dir}/try/here/file", 'x');
$t->secret('dXNlcjpwYXNzd29yZA', 'user:password');

my $user = 'Authorization: Basic dXNlcjpwYXNzd29yZA==';
my $wrong = 'Authorization: Basic dXNlcjpvdGhlcg==';

# what the fake S3 was asked, once at least so much has been answered
sub calls {
    my ($op, $least) = @_;
    wait_for { $fake->requests($op) >= $least } 30 if $least;
    return $fake->requests($op);
}

# the keys, where so many are awaited
sub keys_stored {
    my ($count) = @_;
    my @paths = map { $_->{path} } calls(undef, $count);
    $fake->forget;
    return join ' ', map { s{^/bucket/}{}r } @paths;
}

# The head with Expect: what came before the body is sent, and what after it;
# meanwhile: done before anything came
sub asked {
    my ($path, $body, @headers) = @_;
    my $meanwhile = ref $headers[0] ? shift @headers : sub {};
    my $raw = $t->raw($n->port);
    $raw->send(join("\r\n", "PUT $path HTTP/1.1", 'Host: a',
        'Content-Length: ' . length $body, 'Expect: 100-continue', @headers)
        . "\r\n\r\n");
    $meanwhile->($raw);
    $raw->read_until(qr/\r\n\r\n/, 30);
    my $interim = $raw->{read} =~ s/^HTTP\/1.1 100 [^\r]*\r\n\r\n//;
    $raw->send($body) if $interim;
    my $r = $raw->response(30) || { status => 0 };
    push @S3T::Curl::RESPONSES, $r->{body} || '';
    return { %$r, interim => $interim ? 1 : 0 };
}

# What is refused hears of it before its body, in each protocol.
# [ name, path, [ headers ], status, 100 where nginx's return sends it ]
my @refused = (
    ['auth_basic', '/basic/k', [], 401],
    ['auth_basic, wrong', '/basic/k', [$wrong], 401],
    ['deny', '/deny/k', [], 403],
    ['satisfy any, nothing', '/any/k', [], 401],
    ['satisfy any, wrong', '/any/k', [$wrong], 401],
    ['satisfy all, half', '/all/k', [], 401],
    ['auth_request', '/request/no/k', [], 401],
    ['auth_request, error_page', '/request/page/k', [], 302, 1],
    ['auth_request to s3_upload', '/request/self/k', [], 500],
    ['limit_req', '/rate/k', [], 503],
    ['if, return', '/if/return/k', ['X-Way: upload'], 403],
    ['rewrite to the outside', '/rewrite/out/k', [], 301],
    ['rewrite to auth_basic', '/rewrite/auth/k', [], 401],
    ['try_files =404', '/try/here/k', [], 404],
    ['error_page to auth_basic', '/error/auth/k', [], 401],
    ['internal', '/internal/k', [], 404],
    ['refused by s3_upload, a page', '/refused/k', [], 200, 1],
    ['a bad key, a page', '/refused/k?key=a/../b', [], 200, 1],
);
$t->expect_errors(qr/password mismatch/, qr/access forbidden by rule/,
    qr/s3_upload in a subrequest/, qr/auth request unexpected status: 500/);
$t->allow_errors(qr/limiting (?:requests|connections)/,
    qr/no user\/password was provided/);

subtest 'refused' => sub {
    for (@refused) {
        my ($name, $path, $headers, $status, $interim) = @$_;
        if ($name eq 'limit_req') {
            # the one request in a minute
            is(curl($n->url('/rate/first'), body => 'x')->{status}, 201, $name);
            is(keys_stored(1), 'rate/first', 'the first passes');
        }
        my $r = asked($path, 'x' x 10, @$headers);
        is("$r->{interim} $r->{status}", ($interim || 0) . " $status",
            "$name: at once, without 100");
        for my $port (qw/ h2 tls /) {
            # curl does not understand an answer before the body's end
            $r = curl($n->url($path, $port), h2 => 1, ca => $t->ca,
                method => 'PUT', headers => $headers);
            is($r->{status}, $status, "$name: HTTP/2, $port");
        }
        my $large = $t->raw($n->port);
        $large->send("PUT $path HTTP/1.1\r\nHost: a\r\n"
            . "Transfer-Encoding: chunked\r\n"
            . join('', map { "$_\r\n" } @$headers) . "\r\n6\r\nabc");
        is(($large->response || {})->{status}, $status, "$name: chunked");
        $large->close;
    }
    sleep 0.2;
    is(keys_stored(), '', 'no call to S3');
    is(scalar(() = $n->log =~ /transfer is (?:completed|failed|aborted)/g), 1,
        'no transfer of these');
};

subtest 'a body waits for leave' => sub {
    my $body = 'x' x (20 * MB);
    for my $way (qw/ yes no /) {
        my $begun = $door->begun('get');
        my $raw = $t->raw($n->port('small'), sndbuf => 32 * KB);
        $raw->send("PUT /late/$way/k HTTP/1.1\r\nHost: a\r\n"
            . 'Content-Length: ' . length($body) . "\r\n\r\n");
        $raw->{socket}->blocking(0);
        ok((wait_for { $door->begun('get') > $begun }), "$way: who may is asked");
        # as much as the sockets hold, while there is no answer
        my ($sent, $until) = (0, time + 0.5);
        while (time < $until) {
            $sent += syswrite($raw->{socket}, $body, 1 << 16, $sent) || 0;
            sleep 0.005;
        }
        cmp_ok($sent, '>', 0, "$way: the client is eager");
        cmp_ok($sent, '<', 16 * MB, 'its body is left where it is');
        is(keys_stored(), '', 'and no call made');
        $raw->{socket}->blocking(1);
        write_file($time, '');
        if ($way eq 'yes') {
            $raw->send(substr $body, $sent);
            is(($raw->response(60) || {})->{status}, 201, 'stored');
            is(scalar(my @done = calls('complete', 1)), 1, 'once');
        } else {
            is(($raw->response(60) || {})->{status}, 401, 'refused');
            is(keys_stored(), '', 'no call');
        }
        $raw->close;
        $fake->forget;
        unlink $time;
    }

    my $r = asked('/late/yes/k', 'abc', sub {
        is($_[0]->read_until(qr/./, 0.5), '', 'no 100 without leave');
        write_file($time, '');
    });
    is("$r->{interim} $r->{status}", '1 201', 'asked for by 100');
    is(keys_stored(1), 'late/yes/k', 'stored');
};

# [ name, path, [ headers ], key ]
my @allowed = (
    ['auth_request', '/request/yes/k', [], 'someone//request/yes/k'],
    ['auth_basic', '/basic/k', [$user], 'user//basic/k'],
    ['allow', '/allow/k', [], 'allow/k'],
    ['satisfy any, by password', '/any/k', [$user], 'any/k'],
    ['satisfy any, by address', '/any/address/k', [], 'any/address/k'],
    ['satisfy any, by auth_request', '/any/request/k', [], 'any/request/k'],
    ['satisfy all', '/all/k', [$user], 'all/k'],
    ['limit_except', '/except/k', [], 'except/k'],
    ['in limit_except', '/except/inside/k', ['X-Key: in'], 'except/in'],
    ['if', '/if/k', ['X-Way: upload', 'X-Key: in'], 'if/in'],
    ['not if', '/if/k', [], 'plain//if/k'],
    ['if, no return', '/if/return/k', [], 'if/return/k'],
    ['rewrite last', '/rewrite/last/k', [], 'plain/k'],
    ['rewrite break', '/rewrite/break/k', [], 'broken/k'],
    ['rewrite to auth_basic', '/rewrite/auth/k', [$user], 'user//basic/k'],
    ['try_files @', '/try/k', [], 'try/k'],
    ['try_files, a URI', '/try/to/k', [], 'plain/tried'],
    ['try_files, a file', '/try/here/file', [], 'try/here/file'],
    ['error_page @', '/error/k', [], 'error/k'],
    ['error_page to auth_basic', '/error/auth/k', [$user], 'error/auth/k'],
    ['a key', '/refused/k?key=a/b', [], 'a/b'],
);

subtest 'allowed' => sub {
    for (@allowed) {
        my ($name, $path, $headers, $key) = @$_;
        my $r = asked($path, 'abc', @$headers);
        is("$r->{interim} $r->{status}", '1 201', "$name: after 100");
        my @put = calls('put', 1);
        is(join(' ', map { "$_->{path} $_->{sha256}" } @put),
            "/bucket/$key " . sha256_hex('abc'), 'the object');
        $fake->forget;
        my $d = data(6 * MB);
        for my $port ('', 'tls') {
            $r = curl($n->url($path, $port || undef), file => $d,
                ca => $t->ca, headers => $headers, h2 => $port,
                chunked => scalar($path =~ /if|try/));
            is($r->{status}, 201, $port ? 'HTTP/2' : 'large');
            is(scalar(my @done = calls('complete', 1)), 1, 'once');
            is($done[0]{path}, "/bucket/$key", $key);
            $fake->forget;
        }
    }
};

subtest 'other methods' => sub {
    is(curl($n->url('/except/k'), method => 'POST', body => 'x')->{status}, 401,
        'limit_except asks who it is');
    is(curl($n->url('/except/k'), method => 'POST', body => 'x',
        headers => [$user])->{status}, 201, 'and lets in');
    is(keys_stored(1), 'except/k', 'one');
    like(curl($n->url('/except/inside/k'))->{body}, qr/^<a>/,
        'GET is for another handler');
    # error_page to a URI makes it a GET
    my $r = curl($n->url('/error/uri/k'), body => 'x');
    is("$r->{status} " . ($r->{headers}{allow} || ''),
        '404 PUT, POST, OPTIONS', 'error_page to a URI');
    is(keys_stored(), '', 'stores nothing');
};

subtest 'limit_conn' => sub {
    my $first = $t->raw($n->port);
    $first->send("PUT /count/first HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: 10\r\n\r\n12345");
    my $r;
    wait_for { ($r = asked('/count/second', 'x'))->{status} == 503 };
    is("$r->{interim} $r->{status}", '0 503', 'a second is refused');
    $fake->forget;
    is(curl($n->url('/count/second', 'h2'), h2 => 1, method => 'PUT')->{status},
        503, 'of HTTP/2, too');
    is(keys_stored(), '', 'no call');
    $first->send('67890');
    is(($first->response || {})->{status}, 201, 'the first is unharmed');
    is(keys_stored(1), 'count/first', 'stored');
    is(asked('/count/third', 'x')->{status}, 201, 'then there is room');
    is(keys_stored(1), 'count/third', 'for a third');
};

subtest 'X-Accel-Redirect' => sub {
    # nginx has all of the body, and makes it a GET
    my $d = data(100 * KB);
    for my $path (qw{ /accel/k /accel/stream/k }) {
        my $r = curl($n->url($path), file => $d);
        is("$r->{status} " . ($r->{headers}{allow} || ''),
            '405 PUT, POST, OPTIONS', "$path: is no upload");
        is(keys_stored(), '', 'and stores nothing');
        my ($got) = grep { $_->{path} eq $path } $origin->requests;
        is($got->{sha256}, $d->{sha256}, 'the origin had it');
    }
};
$t->allow_errors(qr/the request body was taken by another handler/);

subtest 'subrequests' => sub {
    my $r = curl($n->url('/ssi/page'));
    is($r->{status}, 200, 'the page');
    like($r->{body}, qr/^<a>.*<b>$/s, 'is whole');
    unlike($r->{body}, qr/transferId/, 'without an upload in it');
    $r = curl($n->url('/ssi/page'), method => 'POST', body => 'x');
    unlike($r->{body}, qr/transferId/, 'nor for POST');
    is(keys_stored(), '', 'no call');

    my $d = data(6 * MB);
    $r = curl($n->url('/mirror/k'), file => $d);
    is($r->{status}, 201, 'a mirror into s3_upload harms nothing');
    is(join(' ', map { $_->{path} } calls('complete', 1)),
        '/bucket/mirror/k', 'and stores nothing');
    $fake->forget;

    my $raw = $t->raw($n->port);
    $raw->send("GET /ssi/page HTTP/1.1\r\nHost: a\r\n\r\n"
        . "PUT /plain/next HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
        . "Connection: close\r\n\r\nabc");
    $raw->closed(30);
    like($raw->{read}, qr{^HTTP/1.1 200 .*\r\nHTTP/1.1 201 }s,
        'the connection goes on');
    is(keys_stored(1), 'plain/next', 'and uploads');
};
