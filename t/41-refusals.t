#!/usr/bin/perl

# What is refused: the status and its headers, the JSON or the error_page; that
# S3 hears nothing and the client no 100 Continue; and that the rest of a body
# is never taken for a request.

use strict;
use warnings;

use lib 't/lib';
use JSON::PP ();
use List::Util qw/ sum0 /;
use Test::More;
use Time::HiRes qw/ sleep /;
use S3T;

my $t = S3T->new(bucket => 0);
my $fake = $t->fake;
my $forbids = $t->fake(on => { create => { status => 403 },
    put => { status => 403 } });
$t->token(FAKE => $fake->url, FORBIDS => $forbids->url);

my $n = $t->nginx(<<'EOF', workers => 1);
%%MAIN%%
http {
    %%HTTP%%
    s3_endpoint %%FAKE%%;
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    s3_part_size 5m;
    s3_window 10m;
    lingering_timeout 500ms;
    # of an id in use
    client_body_timeout 600s;
    # one a minute, under each name
    limit_req_zone $arg_of zone=requests:64k rate=1r/m;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        location / { s3_upload; }
        location /id/ { s3_transfer_id $arg_id; s3_upload; }
        location /forbidden/ { s3_endpoint %%FORBIDS%%; s3_upload; }
        location /enough/ { s3_window 14m; s3_upload; }
        location /small/ { client_max_body_size 1m; s3_upload; }
        location /twelve/ { client_max_body_size 12m; s3_upload; }
        location /stall/ { client_body_timeout 300ms; s3_upload; }
        location /basic/ {
            auth_basic uploads; auth_basic_user_file %%DIR%%/htpasswd;
            s3_upload;
        }
        location /request/401/ { auth_request /auth/401; s3_upload; }
        location /request/403/ { auth_request /auth/403; s3_upload; }
        location /request/500/ { auth_request /auth/500; s3_upload; }
        location /request/204/ { auth_request /auth/204; s3_upload; }
        location /auth/401 { internal; return 401; }
        location /auth/403 { internal; return 403; }
        location /auth/500 { internal; return 500; }
        location /auth/204 { internal; return 204; }
        location /deny/ { deny all; s3_upload; }
        location /limit/ { limit_req zone=requests; s3_upload; }
        location /return/ { return 418; s3_upload; }
        location /pages/ {
            error_page 400 /page.html;
            error_page 405 501 @named;
            error_page 415 =422 /page.html;
            error_page 413 502 /page.html;
            client_max_body_size 1m;
            s3_upload;
        }
        location /pages/forbidden/ {
            s3_endpoint %%FORBIDS%%;
            error_page 502 /page.html;
            s3_upload;
        }
        location /except/ {
            s3_upload;
            limit_except PUT { deny all; }
        }
        location = /page.html { return 200 "a page for $request_method\n"; }
        location @named { return 200 "named\n"; }
        location /seen { return 200 "seen\n"; }
    }
}
EOF
write_file("$n->{dir}/htpasswd", "user:{PLAIN}password\n");
chmod 0644, "$n->{dir}/htpasswd";

sub json { return scalar eval { JSON::PP->new->utf8->decode($_[0]) } }

# A request that asks for leave to send its body, and waits for it in vain.
sub asks {
    my ($method, $path, @headers) = @_;
    my $raw = $t->raw($n->port);
    push @headers, 'Content-Length: 10'
        if !grep { /^Content-Length/ } @headers;
    $raw->send("$method $path HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
        . join('', map { "$_\r\n" } @headers) . "\r\n");
    my $r = $raw->response or return { status => 0 };
    $r->{json} = json($r->{body});
    push @S3T::Curl::RESPONSES, $r->{body};
    return $r;
}

# [ name, method, path, [ headers ], status, error, { headers of the answer } ]
my $allow = { allow => 'PUT, POST, OPTIONS' };
my $past_limit = 'Content-Length: ' . (MB + 1);
my $past_s3 = 'Content-Length: ' . (5 * 1024 * GB + 1);
my @refusals = (
    (map { [$_, $_, '/k', [], 405, 'MethodNotAllowed', $allow] }
        qw/ GET DELETE PATCH PROPFIND MKCOL BREW /),
    ['HEAD', 'HEAD', '/k', [], 405, undef, $allow],
    ['OPTIONS', 'OPTIONS', '/k', [], 204, undef, $allow],
    ['OPTIONS of tus', 'OPTIONS', '/k', ['Tus-Resumable: 1.0.0'], 204, undef,
        $allow],
    ['a range', 'PUT', '/k', ['Content-Range: bytes 0-9/20'], 400,
        'InvalidRequest'],
    (map { [$_, 'PUT', '/k', [$_], 501, 'NotImplemented'] }
        'Content-Encoding: aws-chunked', 'Content-Encoding: gzip,aws-chunked',
        'content-encoding: AWS-Chunked',
        "Content-Encoding: gzip\r\nContent-Encoding: aws-chunked",
        'x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER',
        'X-Amz-Content-SHA256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD',
        'x-amz-copy-source: /other/key', 'X-Amz-Copy-Source: ',
        'If-None-Match: "0123"', 'If-None-Match: "0123", *'),
    (map { [$_, 'POST', $_, [], 501, 'NotImplemented'] }
        '/k?uploads', '/k?uploads=', '/k?a=b&uploads', '/k?uploadId=1',
        '/k?partNumber=1', '/k?partNumber=1&uploadId=a', '/k?a&uploadId'),
    (map { [$_, 'POST', '/k', [$_], 415, 'UnsupportedMediaType'] }
        'Content-Type: multipart/form-data; boundary=a',
        'Content-Type: Multipart/Form-Data',
        'Content-Type: application/offset+octet-stream',
        'Tus-Resumable: 1.0.0', 'Upload-Draft-Interop-Version: 6',
        'Upload-Complete: ?0', 'Upload-Complete: '),
    ['a bad id', 'PUT', '/id/k?id=short', [], 400, 'InvalidTransferId'],
    ['too many parts', 'PUT', '/k', ['Content-Length: ' . 60 * GB], 413,
        'EntityTooLarge'],
    ['too large for S3', 'PUT', '/k', [$past_s3], 413, 'EntityTooLarge'],
    ['client_max_body_size', 'PUT', '/small/k', [$past_limit], 413],
    ['auth_basic', 'PUT', '/basic/k', [], 401],
    ['auth_request 401', 'PUT', '/request/401/k', [], 401],
    ['auth_request 403', 'PUT', '/request/403/k', [], 403],
    ['auth_request 500', 'PUT', '/request/500/k', [], 500],
    ['deny', 'PUT', '/deny/k', [], 403],
    ['limit_except', 'POST', '/except/k', [], 403],
    ['return', 'PUT', '/return/k', [], 418],
    ['error_page', 'PUT', '/pages/k', ['Content-Range: bytes 0-9/20'], 400],
    ['named error_page', 'PUT', '/pages/k?uploads', [], 501],
    ['named error_page, Allow', 'GET', '/pages/k', [], 405, undef, $allow],
    ['error_page with a status', 'PUT', '/pages/k', ['Tus-Resumable: 1'], 422],
    ['error_page of nginx', 'PUT', '/pages/k', [$past_limit], 413],
);
$t->expect_errors(qr/client intended to send too large body/,
    qr/access forbidden by rule/, qr/auth request unexpected status: 500/);
$t->allow_errors(qr/limiting requests/);

sub answered {
    my ($name, $r, $status, $error, $headers) = @_;
    is($r->{status}, $status, "$name: status") or diag explain $r;
    my $type = $r->{headers}{'content-type'} || '';
    if (defined $error) {
        is($type, 'application/json', "$name: JSON");
        is_deeply([sort keys %{$r->{json} || {}}],
            [qw/ error message transferId /], "$name: its fields")
            or diag $r->{body};
        is($r->{json}{error}, $error, "$name: error");
        ok(length($r->{json}{message} || '') > 10, "$name: message");
        is($r->{json}{transferId}, undef, "$name: no transfer");
        is($r->{headers}{'cache-control'}, 'no-store', "$name: not for caches");
    } elsif ($name ne 'HEAD') {
        isnt($type, 'application/json', "$name: not JSON");
    }
    is($r->{headers}{$_}, $headers->{$_}, "$name: $_") for keys %$headers;
    like($r->{json}{message}, qr/ $headers->{allow}$/, "$name: says so, too")
        if defined $error && $headers->{allow};
}

subtest 'HTTP/1.1' => sub {
    for (@refusals) {
        my ($name, $method, $path, $h, @want) = @$_;
        my $r = asks($method, $path, @$h);
        answered($name, $r, @want);
        is($r->{headers}{connection}, 'close', "$name: no body is waited for")
            if defined $want[1];
    }
};

subtest 'HTTP/2' => sub {
    for (@refusals) {
        my ($name, $method, $path, $h, @want) = @$_;
        next if $h->[0] && $h->[0] =~ /\n/;
        if ($h->[0] && $h->[0] =~ /^Content-Length: (.*)/) {
            answered($name, h2_put($n->port('h2'), $path, data(10),
                length => $1), @want);
            next;
        }
        # curl leaves out a header without a value unless it ends in ";"
        my $r = curl($n->url($path, 'h2'), method => $method, h2 => 1,
            $method eq 'HEAD' ? (args => ['-I']) : (),
            headers => [map { s/: $/;/r } @$h]);
        answered($name, $r, @want);
        is($r->{version}, 2, "$name: HTTP/2");
    }
};

subtest 'limit_req' => sub {
    curl($n->url('/limit/?of=all'));
    my $r = asks('PUT', '/limit/k?of=all');
    is($r->{status}, 503, 'status');
    unlike($r->{headers}{'content-type'}, qr/json/, "nginx's own");
    is(h2_put($n->port('h2'), '/limit/k?of=all', data(10))->{status}, 503,
        'HTTP/2');
};

subtest 'what the answers say' => sub {
    my $r = asks('PUT', '/k', 'Content-Length: ' . 60 * GB);
    like($r->{json}{message}, qr/10000 parts.* s3_window 14m$/,
        'the window that it needs');
    $r = asks('PUT', '/k', $past_s3);
    like($r->{json}{message}, qr/limit of 5497558138880 bytes/,
        "S3's limit");
    like(asks('PUT', '/k?uploads')->{json}{message}, qr/multipart requests/,
        'uploads');
    is(asks('GET', '/pages/k')->{body}, "named\n", 'a named location');
    is(asks('PUT', '/pages/k', 'Tus-Resumable: 1')->{body},
        "a page for GET\n", 'a page');
    like($n->log, qr{\[info\].*\ the\ transfer\ is\ refused:\ 415
        \ UnsupportedMediaType,\ resumable\ .*"PUT\ /pages/k\ }x,
        'the log knows why');
};

subtest 'an id in use' => sub {
    my $id = 'a' x 20;
    my $first = $t->raw($n->port);
    $first->send("PUT /id/first?id=$id HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: 10\r\n\r\n12345");
    wait_for { $n->log =~ /transfer.*a{20}/ } 0.5;
    my $r = wait_for {
        my $r = asks('PUT', "/id/second?id=$id");
        $r->{status} ? $r : undef;
    };
    is("$r->{status} $r->{json}{error} $r->{json}{transferId}",
        "409 TransferIdInUse $id", 'HTTP/1.1') or diag explain $r;
    $r = h2_put($n->port('h2'), "/id/second?id=$id", data(100 * KB));
    is("$r->{status} $r->{json}{error}", '409 TransferIdInUse', 'HTTP/2')
        or diag explain $r;
    is_deeply([$fake->requests], [], 'no call so far, of all of these');
    $first->send('67890');
    is($first->response->{status}, 201, 'the first is unharmed');
    wait_for { $fake->requests };
    is_deeply([map { $_->{path} } $fake->requests], ['/bucket/id/first'],
        'the one call');
    $r = curl($n->url("/id/second?id=$id"), body => 'x');
    is($r->{status}, 201, 'free again');
    $fake->forget;
};

subtest 'not refused' => sub {
    my $i = 0;
    for (['/k?a=uploads'], ['/k?uploadsx&xuploads'], ['/k?xuploadId=1'],
        ['/k', 'Content-Encoding: gzip'],
        ['/k', 'x-amz-content-sha256: UNSIGNED-PAYLOAD'],
        ['/k', 'Content-Type: multipart/mixed; boundary=a'],
        ['/k', 'Upload-Complete: ?1'], ['/k', 'If-None-Match: *'],
        ['/enough/k', 'x: y'],
        ['/basic/k', 'Authorization: Basic dXNlcjpwYXNzd29yZA=='],
        ['/request/204/k'], ['/pages/k'])
    {
        my ($path, @h) = @$_;
        my $r = curl($n->url($path), body => 'x', headers => \@h, expect => 1,
            method => 'PUT');
        is($r->{status}, 201, join ' ', @$_) or diag explain $r;
        $i++;
    }
    is(scalar $fake->requests('put'), $i, 'the fake S3 hears');
    $fake->forget;

    my $raw = $t->raw($n->port);
    $raw->send("PUT /enough/k HTTP/1.1\r\nHost: a\r\nContent-Length: "
        . 60 * GB . "\r\nExpect: 100-continue\r\n\r\n");
    like($raw->read_until(qr/\r\n\r\n/), qr{^HTTP/1.1 100 Continue},
        'the window that was named is enough');
    $raw->close;
};

subtest 'chunked, larger than client_max_body_size' => sub {
    $fake->forget;
    my $d = data(2 * MB);
    is(curl($n->url('/small/k'), file => $d, chunked => 1)->{status}, 413,
        'HTTP/1.1');
    is(h2_put($n->port('h2'), '/small/k', $d)->{status}, 413, 'HTTP/2');
    is_deeply([$fake->requests], [], 'no call');
};
$t->allow_errors(qr/client intended to send too large chunked body/);

# Parts are sent before it is known that the body is too large
subtest 'no more than client_max_body_size reaches S3' => sub {
    my $d = data(30 * MB);
    my %send = (
        'chunked' => sub { curl($n->url($_[0]), file => $d, chunked => 1) },
        'HTTP/2' => sub { h2_put($n->port('h2'), $_[0], $d) },
        'HTTP/2, Content-Length' => sub { h2_put($n->port('h2'), $_[0], $d,
            length => 12 * MB) },
    );
    for my $name (sort keys %send) {
        my $path = '/twelve/' . $name =~ s/\W+/-/gr;
        my $of = sub { grep { $_->{path} eq "/bucket$path" }
            $fake->requests(@_) };
        my $r = $send{$name}->($path);
        is($r->{status}, $name =~ /Length/ ? 400 : 413, $name)
            or diag explain $r;
        ok((wait_for { $of->('abort') == 1 }), "$name: aborted");
        my $bytes = sum0(map { $_->{length} } $of->('part'));
        cmp_ok($bytes, '>=', 5 * MB, "$name: there was a part");
        cmp_ok($bytes, '<=', 12 * MB, "$name: not more than the limit");
        is(scalar(my @done = $of->('complete')), 0, "$name: not completed");
    }
};


# The rest of a refused body is not a request.

my $inner = "GET /seen?smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
my $after = "GET /seen?after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

sub chunk { return sprintf "%x\r\n%s\r\n", length $_[0], $_[0] }

# Sends the head, the body and the next request; the statuses that came back.
my $requests = 0;
sub statuses {
    my ($head, $body, %o) = @_;
    # the first under a name that is new
    if ($head =~ s/(?<=of=)NEW/++$requests/e) {
        curl($n->url("/limit/?of=$requests"));
    }
    my $raw = $t->raw(($o{of} || $n)->port($o{tls} ? 'tls' : undef),
        $o{tls} ? (tls => $t->ca) : ());
    my $all = "$head\r\n\r\n$body$after";
    if ($o{late}) {
        $raw->send("$head\r\n\r\n");
        $raw->read_until(qr/\r\n\r\n/);
        $raw->send(substr $all, 4 + length $head);
    } elsif ($o{split}) {
        my $at = $o{split} + 4 + length $head;
        $raw->send(substr $all, 0, $at);
        $raw->read_until(qr/\r\n\r\n/);
        $raw->send(substr $all, $at);
    } else {
        $raw->send($all);
    }
    $raw->closed(60);
    push @S3T::Curl::RESPONSES, $raw->{read};
    return join ' ', $raw->{read} =~ m{^HTTP/1\.1 (\d+)}mg;
}

my $in_use = 'in-use-0123456789';
my $put = "PUT %s HTTP/1.1\r\nHost: a\r\n%s";
my %refused = (
    'a range' => [400, '/k', "Content-Range: bytes 0-1/9\r\n"],
    'another method' => [405, '/k', '', 'DELETE'],
    'GET' => [405, '/k', '', 'GET'],
    'OPTIONS' => [204, '/k', '', 'OPTIONS'],
    'an S3 request' => [501, '/k?uploads', ''],
    'tus' => [415, '/k', "Tus-Resumable: 1\r\n"],
    'a bad key' => [400, '/k/', ''],
    'a bad id' => [400, '/id/k?id=a', ''],
    'an error_page' => [400, '/pages/k', "Content-Range: bytes 0-1/9\r\n"],
    'a named error_page' => [501, '/pages/k?uploads', ''],
    'auth_basic' => [401, '/basic/k', ''],
    'auth_request' => [403, '/request/403/k', ''],
    'limit_req' => [503, '/limit/k?of=NEW', ''],
    'an id in use' => [409, "/id/k?id=$in_use", ''],
    'S3 refuses' => [502, '/forbidden/k', ''],
    'S3 refuses, error_page' => [502, '/pages/forbidden/k', ''],
);
$t->expect_errors(qr/s3 (PutObject|CreateMultipartUpload) failed: 403/);

subtest 'no request is smuggled' => sub {
    my $body = $inner x 3;
    my $first = $t->raw($n->port);
    $first->send("PUT /id/first?id=$in_use HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: 10\r\n\r\n12345");
    wait_for { asks('PUT', "/id/second?id=$in_use")->{status} == 409 };

    for my $name (sort keys %refused) {
        my ($status, $path, $headers, $method) = @{$refused{$name}};
        my $start = sprintf $put =~ s/PUT/$method || 'PUT'/er, $path, $headers;
        my $length = "${start}Content-Length: " . length $body;
        my $chunked = "${start}Transfer-Encoding: chunked";
        # (the connection may be closed after any refusal)
        my $right = qr/^$status( 200)?$/;

        like(statuses($length, $body), $right, "$name: at once");
        like(statuses($length, $body, late => 1), $right, "$name: late")
            if $status != 502;
        like(statuses($length, $body, split => 10), $right, "$name: in two")
            if $status != 502;
        my $chunks = chunk($inner) . chunk($body) . "0\r\n\r\n";
        like(statuses($chunked, $chunks), $right, "$name: chunked");
        like(statuses($length, $body, tls => 1), $right, "$name: TLS");
        like(statuses($chunked, $chunks, tls => 1), $right,
            "$name: TLS, chunked");
        next if $status == 502;
        like(statuses($chunked, $chunks, split => 10), $right,
            "$name: chunked, in two");
        like(statuses("$length\r\nExpect: 100-continue", $body), $right,
            "$name: with Expect");
        like(statuses("$length\r\nExpect: 100-continue", $body, late => 1),
            $right, "$name: with Expect, late");
    }

    # refused once a part has come, while the client goes on
    my $filler = 'x' x (6 * MB);
    for ('/forbidden/k', '/pages/forbidden/k') {
        my $path = s/pages/forbidden/r;
        my $head = sprintf $put, $_, 'Content-Length: '
            . (length($filler) + length $body);
        like(statuses($head, $filler . $body), qr/^502( 200)?$/,
            "$_: the first part");
        $head = sprintf $put, $_, 'Transfer-Encoding: chunked';
        like(statuses($head, chunk($filler) . chunk($body) . "0\r\n\r\n"),
            qr/^502( 200)?$/, "$_: the first part, chunked");
    }
    my $head = sprintf $put, '/small/k', 'Transfer-Encoding: chunked';
    like(statuses($head, chunk('x' x (2 * MB)) . chunk($body) . "0\r\n\r\n"),
        qr/^413$/, 'larger than client_max_body_size');

    # these announce more than comes, or what may mean two things
    my %whole = (
        'too large, by its length' => [413, '/small/k',
            'Content-Length: ' . 2 * MB],
        'too many parts' => [413, '/k', 'Content-Length: ' . 60 * GB],
        # nginx ends it without a word
        'a body that stalls' => ['', '/stall/k', 'Content-Length: 1000'],
        'both codings' => [400, '/k', 'Content-Length: ' . length($body)
            . "\r\nTransfer-Encoding: chunked"],
        'two lengths' => [400, '/k', "Content-Length: 3\r\n"
            . 'Content-Length: ' . length $body],
    );
    for my $name (sort keys %whole) {
        my ($status, $path, $headers) = @{$whole{$name}};
        for my $tls (0, 1) {
            is(statuses(sprintf($put, $path, $headers), $body, tls => $tls),
                $status, "$name, TLS $tls: the connection is closed");
        }
    }
    $first->close;

    unlike($n->access_log, qr/smuggled/, 'none was seen');
    like($n->access_log, qr/seen\?after/, 'one after a refusal was');
};

# who waited in vain for memory, its body unread
subtest 'nor after s3_queue_timeout' => sub {
    my $deaf = $t->fake(on => { part => { delay => 60 } });
    $t->token(DEAF => $deaf->url);
    my $of = $t->nginx(<<'EOC');
%%MAIN%%
http {
    %%HTTP%%
    s3_memory 15m;
    s3_part_size 5m;
    s3_window 10m;
    s3_queue_timeout 500ms;
    lingering_timeout 500ms;
    s3_endpoint %%DEAF%%;
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { s3_upload; }
        location /seen { return 200 "seen\n"; }
        location /transfers/ { s3_status; }
    }
}
EOC
    my @hold = map {
        my $raw = $t->raw($of->port);
        $raw->send(sprintf("$put\r\n", "/hold$_",
            "Content-Length: 20000000\r\n") . 'x' x (5 * MB));
        $raw;
    } 1, 2;
    ok((wait_for { $deaf->begun('part') == 2
        && curl($of->url('/transfers/'))->{json}{totals}{memoryUsed}
        == 10 * MB }), 'the memory is full, but for the margin');
    my $body = $inner x 3;
    my $right = qr/^503( 200)?$/;
    my $length = sprintf $put, '/k', 'Content-Length: ' . length $body;
    my $chunked = sprintf $put, '/k', 'Transfer-Encoding: chunked';
    like(statuses($length, $body, of => $of), $right, 'at once');
    like(statuses("$length\r\nExpect: 100-continue", $body, of => $of,
        late => 1), $right, 'with Expect, late');
    like(statuses($chunked, chunk($inner) . chunk($body) . "0\r\n\r\n",
        of => $of), $right, 'chunked');
    unlike($of->access_log, qr/smuggled/, 'none was seen');
    $_->reset for @hold;
};
$t->expect_errors(qr/no room in s3_memory for 500 ms/);
$t->allow_errors(qr/s3 AbortMultipartUpload failed/);
