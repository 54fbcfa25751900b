#!/usr/bin/perl

# Pulls: what an origin has is fetched without a client and becomes an object of
# exactly these bytes; what is told of it, and where nobody is led.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;

use constant PART => 5 * MB;

my $t = S3T->new;
my $s3 = $t->s3;
my $secret = 'X-Amz-Signature=5ec4e7';
my $token = 'token-of-the-origin';
$t->secret($_) for $secret, $token;
my $files = $t->dir . '/files';
mkdir $_ for $files, "$files/pull", "$files/tls";
my $go = $t->dir . '/go';

my %origin = (
    '/404' => { status => 404 },
    '/endless' => { raw => "HTTP/1.1 200 OK\r\n\r\nall", close => 'after' },
    '/chunked' => { close => 'after', raw => "HTTP/1.1 200 OK\r\n"
        . "Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n3;x=y\r\nefg\r\n"
        . "0\r\nX: y\r\n\r\n" },
    '/fields' => { body => 'abc', headers => {
        'Content-Type' => 'text/x-test', 'Cache-Control' => 'max-age=5',
        'Content-Language' => 'de', 'Content-Disposition' => 'attachment',
        Expires => 'Thu, 01 Dec 2033 16:00:00 GMT', ETag => 'W/"weak"',
        'Last-Modified' => 'Sun, 01 Nov 2026 00:00:00 GMT',
        'X-Other' => 'other' } },
    '/to' => { status => 302, headers => { Location => '../plain?a=b#c' } },
    '/loop' => { status => 301, headers => { Location => '/loop' } },
    '/nowhere' => { status => 303 },
    '/plain' => { body => 'plain' },
    '/held' => { hold => $go, body => 'held' },
    '/slow' => { pieces => [0, "HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n"
        . "\r\n" . 'x' x 200_000, 300, ''] },
);

sub serve {
    my ($r) = @_;
    return { status => 307, headers => {
        Location => "$r->{query}{to}?$secret" } } if $r->{path} eq '/away';
    return { status => 200, %{$origin{$r->{path}} || { status => 404 }} };
}

my @tls = (cert => $t->certs . '/server.pem', key => $t->certs . '/server.key');
my $fake = $t->fake(on => { get => \&serve });
my $other = $t->fake(on => { get => \&serve });
my $secure = $t->fake(on => { get => \&serve }, @tls);
my $dns = $t->dns('private.test' => ['10.1.2.3'],
    'mixed.test' => ['169.254.169.254', '127.0.0.1'],
    'local.test' => ['127.0.0.1']);

$t->token(FILES => $files, FAKE => "127.0.0.1:$fake->{port}",
    FAKE_PORT => $fake->{port}, DNS => $dns->address, SECRET => $secret,
    TOKEN => $token, SECURE => "localhost:$secure->{port}");

my $nginx = $t->nginx(<<'EOF', module => 0);
%%MAIN%%
http {
    %%HTTP%%
    access_log off;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_tls%% ssl;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        root %%FILES%%;
        location /import {
            add_header X-Accel-Redirect /accel/import;
            add_header X-Origin
                http://127.0.0.1:%%PORT%%/pull/1?%%SECRET%%;
            return 200;
        }
        location /import-none {
            add_header X-Accel-Redirect /accel/import;
            return 200;
        }
    }
}
EOF
$t->token(NGINX => '127.0.0.1:' . $nginx->port,
    NGINX_TLS => 'localhost:' . $nginx->port('tls'));

my $conf = <<'EOF';
%%MAIN%%
http {
    %%HTTP%%
    log_format state "$uri $status $s3_transfer_state $s3_bytes_transferred";
    access_log %%DIR%%/state.log state;
    resolver %%DNS%%;
    map $upstream_http_x_origin $origin {
        default $upstream_http_x_origin;
        evil "http://%%FAKE%%";
    }
    map $arg_o $chosen {
        default "";
        fake "http://%%FAKE%%";
        scheme http;
    }
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        %%S3%%
        s3_part_size 5m;
        s3_tries 1;
        s3_ssl_trusted_certificate %%CA%%;
        s3_ingest_allow 127.0.0.0/8;
        location /pull/ { s3_ingest http://%%NGINX%%$uri; }
        location /tls/ { s3_ingest https://%%NGINX_TLS%%$uri; }
        location /fake/ {
            rewrite ^/fake(/.*) $1 break;
            s3_ingest http://%%FAKE%%$uri$is_args$args fake$uri;
            s3_ingest_header X-Token %%TOKEN%%;
            s3_ingest_header X-None "";
            s3_ingest_header User-Agent me;
        }
        location /async/ {
            rewrite ^/async(/.*) $1 break;
            s3_ingest http://%%FAKE%%$uri "async$uri";
            s3_ingest_async on;
            s3_transfer_id $arg_id;
            s3_owner $arg_owner;
        }
        location /fields/ {
            s3_ingest http://%%FAKE%%/fields;
            s3_object_header Cache-Control no-cache;
            s3_metadata by us;
        }
        location /redirects/ {
            s3_ingest_redirects 2;
            s3_ingest http://%%FAKE%%$uri$is_args$args redirects$uri;
            rewrite ^/redirects(/.*) $1 break;
            s3_ingest_header Authorization %%TOKEN%%;
        }
        location /secure/ {
            s3_ingest_redirects 2;
            s3_ingest https://%%SECURE%%$uri$is_args$args secure$uri;
            rewrite ^/secure(/.*) $1 break;
        }
        location /endless/ {
            s3_ingest http://%%FAKE%%/endless;
            s3_ingest_close_delimited on;
        }
        location /joined/ { s3_ingest http://127.0.0.1$arg_x k; }
        location /chosen/ { s3_ingest $chosen$arg_x; }
        location /named/ {
            rewrite ^/named/(.*) /$1 break;
            s3_ingest http://local.test:%%FAKE_PORT%%$uri named$uri;
        }
        location /keep/ {
            s3_ingest http://%%FAKE%%/plain;
            s3_overwrite off;
        }
        location = /import { proxy_pass http://%%NGINX%%; }
        location = /import-none { proxy_pass http://%%NGINX%%; }
        location /accel/ { internal; s3_ingest $origin; }
        location /in-if/ {
            if ($arg_a) { set $x y; }
            s3_ingest http://%%FAKE%%/plain;
        }
        location /limited/ {
            limit_except GET { allow all; }
            s3_ingest http://%%FAKE%%/plain;
        }
        location /mirrored/ { mirror /mirror; return 204; }
        location /mirrored2/ { mirror /mirror; proxy_pass http://%%FAKE%%/; }
        location = /mirror { internal; s3_ingest http://%%FAKE%%/plain k; }
        location /status/ { s3_status cancel; }
        location /exact { s3_status id=$arg_id; }
    }
    server {
        listen 127.0.0.1:%%PORT_strict%%;
        %%S3%%
        s3_ssl_trusted_certificate %%CA%%;
        s3_tries 1;
        location /private { s3_ingest http://private.test/; }
        location /mixed {
            s3_ingest_allow 127.0.0.1;
            s3_ingest http://mixed.test:%%FAKE_PORT%%/plain;
        }
        location /local { s3_ingest http://local.test:%%FAKE_PORT%%/plain; }
        location /chosen { s3_ingest $literal; }
        location /any {
            s3_ingest_allow all;
            s3_ingest http://local.test:%%FAKE_PORT%%/plain;
        }
    }
    map $arg_ip $literal { default "http://$arg_ip:%%FAKE_PORT%%/plain"; }
}
EOF

my $n = $t->nginx($conf);

sub pull {
    my ($path, %o) = @_;
    return curl($n->url($path, delete $o{port}), method => 'POST', %o);
}

sub stored {
    my ($path, $body, $name) = @_;
    my $r = pull($path);
    is($r->{status}, 201, $name || $path) or diag explain $r;
    is($s3->get($path =~ s{^/}{}r), $body, 'what S3 holds');
    return $r;
}

sub refused {
    my ($path, $want, $message, %o) = @_;
    my $r = pull($path, %o);
    is("$r->{status} " . ($r->{json}{error} || ''), $want, "$path: $want")
        or diag explain $r;
    like($r->{json}{message}, $message, 'its message') if $message;
    return $r;
}

sub record {
    my ($id) = @_;
    return curl($n->url("/status/$id"))->{json};
}

for my $size (0, 1, PART - 1, PART, PART + 1, 33 * MB) {
    my $d = data($size);
    for my $how (qw/ pull tls /) {
        place($d->{path}, "$files/$how/$size");
        my $r = pull("/$how/$size");
        is($r->{status}, 201, "$how: $size bytes") or diag explain $r;
        is_deeply([$s3->sha256("$how/$size")], [$d->{sha256}, $d->{size}],
            'what S3 holds');
        my %want = (state => 'completed', direction => 'download',
            key => "$how/$size", totalBytes => $size, bytesStored => $size,
            transferId => $r->{headers}{'x-transfer-id'}, error => undef,
            etag => $r->{headers}{etag});
        is_deeply({ map { $_, $r->{json}{$_} } keys %want }, \%want,
            'the record') or diag $r->{body};
        is($r->{headers}{location}, "/$how/$size", 'Location');
    }
}

subtest 'what is asked' => sub {
    stored('/fake/chunked', 'abcdefg');
    my ($asked) = $fake->requests('get');
    my %h = %{$asked->{headers}};
    is("$asked->{method} $asked->{uri}", 'GET /chunked', 'the request');
    is($h{host}, "127.0.0.1:$fake->{port}", 'Host');
    is($h{'user-agent'}, 'me', 'User-Agent, replaced');
    is($h{accept}, '*/*', 'Accept');
    is($h{'accept-encoding'}, 'identity', 'Accept-Encoding');
    is($h{'x-token'}, $token, 'a field of the configuration');
    ok(!exists $h{'x-none'}, 'an empty one is not sent');
    is_deeply([sort keys %h], [sort qw/ host user-agent accept connection
        accept-encoding x-token /], 'no other field');
    is(record(pull('/fake/chunked')->{json}{transferId})->{totalBytes}, 7,
        'the length of a chunked body, in the end');
    is(pull('/fields/x')->{status}, 201, 'stored');
    (undef, undef, $asked) = $fake->requests('get');
    is($asked->{headers}{'user-agent'}, 'nginx-s3-transfer', 'User-Agent');
};

subtest 'methods and bodies' => sub {
    my $r = curl($n->url('/fake/plain'), method => 'PUT',
        body => 'x' x 300_000);
    is($r->{status}, 201, 'PUT, whose body is dropped');
    is($s3->get('fake/plain'), 'plain', 'what S3 holds');
    $r = pull('/fake/plain', port => 'h2', h2 => 1);
    is("$r->{status} $r->{version}", '201 2', 'HTTP/2');
    for my $method (qw/ GET HEAD DELETE PATCH /) {
        $r = curl($n->url('/fake/plain'), method => $method, args =>
            $method eq 'HEAD' ? ['-I'] : []);
        is($r->{status}, 405, $method);
        is($r->{headers}{allow}, 'PUT, POST, OPTIONS', 'Allow');
    }
    is(curl($n->url('/fake/plain'), method => 'OPTIONS')->{status}, 204,
        'OPTIONS');
    is(pull('/in-if/x?a=b')->{status}, 201, 'beside an if');
    is(pull('/limited/x')->{status}, 201, 'within limit_except');
    $t->expect_errors(qr/s3_ingest in a subrequest/);
    pull('/mirrored2/plain');
    ok((wait_for { $n->log =~ /s3_ingest in a subrequest/ }),
        'not in a subrequest');
};

subtest 'fields that are kept' => sub {
    is(pull('/fields/x')->{status}, 201, 'stored');
    my $h = $s3->head('fields/x');
    my %want = ('content-type' => 'text/x-test', 'cache-control' => 'no-cache',
        'content-language' => 'de', 'content-disposition' => 'attachment',
        expires => 'Thu, 01 Dec 2033 16:00:00 GMT', 'x-amz-meta-by' => 'us',
        'x-amz-meta-origin-etag' => 'W/"weak"',
        'x-amz-meta-origin-last-modified' => 'Sun, 01 Nov 2026 00:00:00 GMT');
    is_deeply({ map { $_, $h->{$_} } keys %want }, \%want, 'with the object');
};

subtest 'asynchronous' => sub {
    my $r = pull('/async/held?id=0123456789abcdef');
    # (the origin is silent)
    is($r->{status}, 202, 'accepted at once') or diag explain $r;
    is($r->{headers}{location}, '/status/0123456789abcdef', 'Location');
    is($r->{headers}{'x-transfer-id'}, '0123456789abcdef', 'X-Transfer-Id');
    is($r->{json}{state}, 'active', 'the record');
    refused('/async/held', '409 KeyInUse');
    refused('/async/plain?id=0123456789abcdef', '409 TransferIdInUse');
    $n->reload;
    write_file($go, '');
    ok((wait_for { record('0123456789abcdef')->{state} eq 'completed' } 60),
        'it ends, after a reload');
    is($s3->get('async/held'), 'held', 'what S3 holds');
    $r = pull('/async/404');
    is($r->{status}, 202, 'accepted, too');
    ok((wait_for { record($r->{json}{transferId})->{state} eq 'failed' }),
        'and failed');
    like(record($r->{json}{transferId})->{error}, qr/"[\d.:]+" answered 404/,
        'as its record says');
};
$t->expect_errors(qr/s3 ingest from ".*404" failed: .* answered 404/);

subtest 'a client that leaves' => sub {
    unlink $go;
    my $c = curl_start($n->url('/named/held'), method => 'POST');
    ok((wait_for { $fake->begun('get') && $n->log =~ m{local.test:\d+/held} }),
        'a pull is on');
    $c->kill('KILL');
    ok((wait_for { S3T::Util::read_file("$n->{dir}/state.log")
        =~ m{^/held 499 active 0$}m }), 'the client is logged as gone');
    write_file($go, '');
    ok((wait_for { ($s3->get('named/held') || '') eq 'held' }), 'it goes on');
    unlink $go;
};

subtest 'cancelled' => sub {
    my $c = curl_start($n->url('/async/slow?id=cancelled-0123456'),
        method => 'POST');
    is($c->wait->{status}, 202, 'begun');
    ok((wait_for { record('cancelled-0123456')->{bytesTransferred}
        == 200_000 }), 'in the middle');
    my $r = curl($n->url('/status/cancelled-0123456'), method => 'DELETE');
    like($r->{status}, qr/^20[024]$/, 'DELETE');
    ok((wait_for { record('cancelled-0123456')->{state} eq 'aborted' }),
        'aborted');
    $c = curl_start($n->url('/fake/held'), method => 'POST');
    my $id;
    ok((wait_for { ($id) = $n->log
        =~ /transfer: (\w+), bucket: .*"fake\/held"/ }), 'another one');
    curl($n->url("/status/$id"), method => 'DELETE');
    $r = $c->wait;
    is("$r->{status} $r->{json}{error}", '409 TransferCancelled',
        'its client is told');
};

subtest 'X-Accel-Redirect' => sub {
    my $d = data(1);
    my $r = pull('/import');
    is($r->{status}, 201, 'a presigned URL of a backend') or diag explain $r;
    is_deeply([$s3->sha256('accel/import')], [$d->{sha256}, 1],
        'what S3 holds');
    is($r->{headers}{location}, undef, 'no Location');
    like($n->log, qr{s3 ingest from "http://127.0.0.1:\d+/pull/1"},
        'where from, in the log');
    is(curl($n->url('/import'))->{status}, 201, 'of a GET, too');
    refused('/import-none', '403 OriginNotAllowed');
    is(curl($n->url('/accel/x'))->{status}, 404, 'internal');
};

subtest 'bad URLs' => sub {
    for my $x (qw{ .evil.test/ @evil.test/ :1/ 1/ %00 }) {
        refused("/joined/x?x=$x", '400 InvalidOrigin');
    }
    refused('/chosen/x?o=none&x=/plain', '403 OriginNotAllowed');
    stored('/fake/plain', 'plain');
    is(pull('/chosen/x?o=fake&x=/plain')->{status}, 201, 'from a map');
    is($s3->get('chosen/x'), 'plain', 'what S3 holds');
    refused("/chosen/x?o=fake&x=$_", '400 InvalidOrigin')
        for qw{ .evil.test/ 0/ @evil.test/ };
    refused('/chosen/x?o=scheme&x=://127.0.0.1/', '400 InvalidOrigin');
};

subtest 'addresses' => sub {
    my %strict = (port => 'strict');
    $t->expect_errors(qr/the address of "[^"]+" is \w+/);
    refused('/private', '403 OriginRefused', qr/private/, %strict);
    refused('/local', '403 OriginRefused', qr/loopback/, %strict);
    refused('/chosen?ip=127.0.0.1', '403 OriginRefused', qr/loopback/, %strict);
    refused('/chosen?ip=169.254.169.254', '403 OriginRefused', qr/link-local/,
        %strict);
    refused('/chosen?ip=[::ffff:10.0.0.1]', '403 OriginRefused', qr/private/,
        %strict);
    is(pull('/mixed', %strict)->{status}, 201, 'the one that is allowed');
    is(pull('/any', %strict)->{status}, 201, 'all of them');
};

subtest 'redirects' => sub {
    $t->expect_errors(qr/s3 ingest from "[^"?]+" failed: /);
    refused('/fake/to', '502 OriginStatus', qr/answered 302/);
    stored('/redirects/to', 'plain');
    my ($last) = reverse $fake->requests('get');
    is($last->{uri}, '/plain?a=b', 'relative, without the fragment');
    is($last->{headers}{authorization}, $token, 'with the fields');
    refused('/redirects/loop', '502 OriginStatus', qr/answered 301/);
    refused('/redirects/nowhere', '502 OriginRedirect', qr/without Location/);
    is(pull('/redirects/away?to=' . $other->url . '/plain')->{status}, 201,
        'to another origin');
    ($last) = reverse $other->requests('get');
    is($last->{uri}, "/plain?$secret", 'is asked');
    is($last->{headers}{authorization}, undef, 'without the fields');
    refused('/redirects/away?to=http://private.test/', '403 OriginRefused');
    refused('/redirects/away?to=http://u:p@127.0.0.1/', '502 OriginRedirect');
    refused('/redirects/away?to=s3://' . $t->bucket . '/x',
        '502 OriginRedirect');
    refused('/redirects/away?to=file:///etc/passwd', '502 OriginRedirect');
    refused('/secure/away?to=http://local.test/', '502 OriginRedirect',
        qr/from https to http/);
};

subtest 'refusals' => sub {
    refused('/fake/404', '502 OriginStatus', qr/"127[^"]+" answered 404/);
    refused('/fake/endless', '502 OriginUndelimited');
    is(pull('/endless/x')->{status}, 201, 's3_ingest_close_delimited');
    is($s3->get('endless/x'), 'all', 'what S3 holds');
    is(pull('/keep/x')->{status}, 201, 'a new object');
    refused('/keep/x', '412 PreconditionFailed');
    $fake->stop;
    refused('/fake/plain', '502 OriginUnavailable', qr/"127/);
    $fake->start;
    is(pull('/fake/plain')->{status}, 201, 'once it is there again');
};

subtest 'nginx -t' => sub {
    my $check = sub {
        my ($wrong, $said, $more) = @_;
        my (undef, $text) = $n->test_conf(<<"EOF");
%%MAIN%%
http {
    %%HTTP%%
    map \$arg_x \$mine { default ""; }
    server {
        listen 127.0.0.1:%%PORT%%;
        %%S3%%
        @{[$more || '']}
        location /wrong { $wrong }
    }
}
EOF
        like($text, $said, $wrong);
    };
    my $good = qr/test is successful/;
    $check->("s3_ingest $_;", $good) for 'http://a.test',
        'HTTPS://a.test:8443/x', 'http://a.test$uri', 'https://a.test/$arg_x', '$mine', '${mine}/x',
        '$mine$uri', 's3://bucket/key', 's3://bucket$uri', 's3://bucket/$arg_x',
        '$mine key', 'http://a.test $arg_key', 'http://93.184.216.34/';
    my $literal = qr{invalid URL of "s3_ingest" in location "/wrong"};
    $check->("s3_ingest $_;", $literal) for 'a.test/x', 'ftp://a.test/',
        'http://', 'http://$host/', 'http://a:b@a.test/', 'http:$uri',
        'http://a.test:$arg_p/', 's3://$arg_b/x', 's3://bucket', 's3://b/x',
        's3://bucket/a/../b', 'http://a.test:99999/';
    my $map = qr{in location "/wrong" begins with "\$\w+".*put a "map"};
    $check->("s3_ingest $_;", $map) for '$arg_u', '$http_x_url', '$cookie_u',
        '$uri', '$request_uri', '$1', '$upstream_http_x', '$args',
        '$limit_rate', '$host', '$unknown', '${arg_u}/x', '$sent_http_x', '$ARG_x';
    $check->('set $z http://a.test; s3_ingest $z;', $good);
    $check->('s3_ingest http://127.0.0.1/;',
        qr{location "/wrong" is loopback: it needs "s3_ingest_allow"});
    $check->('s3_ingest http://[::1]$uri;', qr{is loopback});
    $check->('s3_ingest_allow 127.0.0.1; s3_ingest http://127.0.0.1/;', $good);
    $check->('s3_ingest_allow 10.0.0.0/8 all; s3_ingest http://[::1]/;', $good);
    $check->('s3_ingest_allow x;', qr/invalid address "x"/);
    $check->('s3_ingest http://a.test; s3_ingest_async on;',
        qr{"s3_ingest_async" in location "/wrong" needs "s3_status"}, $_)
        for '', 'location /s { s3_status id=$arg_id; }',
        'location ~ /s { s3_status id=$arg_id; }',
        'location /s { s3_status prometheus; }',
        'location = /s { s3_status; }';
    $check->('s3_ingest http://a.test; s3_ingest_async on;', $good,
        'location /s { s3_status; }');
    for my $name (qw/ Host Connection Content-Length Transfer-Encoding Range
        If-Range Expect TE /)
    {
        $check->("s3_ingest_header $name x;",
            qr/"s3_ingest_header" cannot set "\L$name\E"/);
    }
    $check->('s3_ingest http://a.test; s3_bucket Bad;',
        qr/is duplicate|invalid "s3_bucket"/);
    $check->('s3_ingest http://a.test ../x;',
        qr{invalid key of "s3_ingest" in location "/wrong"});
    $check->("s3_ingest http://a.test; $_;",
        qr/cannot stand beside|is duplicate/)
        for 's3_upload', 's3_status', 's3_ingest http://b.test';
    $check->("$_; s3_ingest http://a.test;", qr/cannot stand beside/)
        for 's3_upload', 's3_status';
    my (undef, $text) = $n->test_conf(<<'EOF');
%%MAIN%%
http { %%HTTP%% server { location /wrong { s3_ingest http://a.test; } } }
EOF
    like($text, qr{"s3_ingest" in location "/wrong" needs "s3_endpoint"},
        'no endpoint');
};
