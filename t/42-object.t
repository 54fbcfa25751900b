#!/usr/bin/perl

# What an object is given beside its bytes: headers of the request and of the
# configuration, metadata, and the mark of its transfer; and what never gets
# through.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;

my $t = S3T->new;
my $s3 = $t->s3;
# (there is an object where the key has If-Match)
my $fake = $t->fake(on => { head => sub {
    $_[0]{path} =~ m{-if-match-(\d+)$} or return { status => 404 };
    return { status => 200, headers => { ETag => $1 == 5 ? '"abc"' : '"b"' } };
} });
$t->token(FAKE => $fake->url);

my $n = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    map $uri $decoded { ~(?s)^/(?:inject|fake/inject)/(.*)\z $1; }
    s3_object_header Cache-Control max-age=1;
    s3_object_header X-Amz-Meta-Level http;
    s3_metadata level-too http;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        %%S3%%
        s3_part_size 5m;
        location /inherited/ { s3_upload; }
        location /plain/ {
            s3_object_header x-amz-meta-none "";
            s3_metadata none "";
            s3_upload;
        }
        location /own/ {
            s3_object_header content-TYPE text/own;
            s3_object_header Content-Disposition "inline; filename=$arg_name";
            s3_object_header Content-Language "";
            s3_object_header x-amz-storage-class STANDARD;
            s3_metadata Who $arg_who;
            s3_metadata method $request_method;
            s3_metadata constant "a  b";
            s3_upload;
        }
        location ~ ^/inject/ {
            s3_metadata value $decoded;
            s3_upload injected;
        }
        location /fake/ {
            s3_endpoint %%FAKE%%;
            s3_object_header x-amz-meta-none "";
            s3_metadata none "";
            s3_upload;
        }
        location ~ ^/fake/inject/ {
            s3_endpoint %%FAKE%%;
            s3_object_header Content-Type $decoded;
            s3_upload injected;
        }
        location /fake/kms/ {
            s3_endpoint %%FAKE%%;
            s3_object_header x-amz-server-side-encryption aws:kms;
            s3_object_header x-amz-server-side-encryption-aws-kms-key-id
                arn:aws:kms:us-east-1:1:key/0123;
            s3_upload;
        }
        location /fake/arg {
            s3_endpoint %%FAKE%%;
            s3_metadata value $arg_x;
            s3_object_header x-amz-meta-header $http_x_value;
            s3_upload;
        }
    }
}
EOF

# Of one part and of two, over HTTP/1.1 and 2: the headers of each object.
sub stored {
    my ($path, %o) = @_;
    my @objects;
    my $i = 0;
    for my $d (data(10), data(6 * MB)) {
        for my $port (undef, 'h2') {
            my $url = $path =~ s/\?|$/@{[$i++]}$&/r;
            my $r = curl($n->url($url, $port), file => $d, h2 => $port ? 1 : 0,
                %o);
            is($r->{status}, 201, $url) or diag explain $r;
            my $object = $s3->head($r->{json}{key});
            is($object->{'x-amz-meta-transfer-id'},
                "$r->{json}{transferId}.$r->{json}{attempt}",
                "$url: its transfer");
            push @objects, [$url, $object];
        }
    }
    return @objects;
}

sub has {
    my ($want, @objects) = @_;
    for (@objects) {
        my ($url, $object) = @$_;
        is_deeply({ map { $_ => $object->{$_} } keys %$want }, $want, $url)
            or diag explain $object;
    }
}

my %client = (
    'Content-Type' => 'text/x; charset=utf-8',
    'Content-Disposition' => 'attachment; filename="a b.txt"; '
        . "filename*=UTF-8''%c3%a9.txt",
    'Content-Encoding' => 'gzip',
    'Content-Language' => 'de, en',
    'Cache-Control' => 'max-age=60, public',
    'Expires' => 'Wed, 21 Oct 2015 07:28:00 GMT',
);
my @client = map { "$_: $client{$_}" } sort keys %client;

subtest 'of the request' => sub {
    has({ map { lc, $client{$_} } keys %client },
        stored('/plain/all', headers => \@client));
    has({ 'content-encoding' => 'gzip, br', 'cache-control' => 'a, b, c' },
        stored('/plain/lines', headers => ['Content-Encoding: gzip',
            'Content-Encoding: br', 'Cache-Control: a',
            'Cache-Control: b, c']));
    has({ 'content-type' => "caf\xc3\xa9/x", 'content-disposition' =>
            "inline; filename=\"\xe2\x82\xac  x.txt\"" },
        stored('/plain/bytes', headers => ["Content-Type: caf\xc3\xa9/x",
            "Content-Disposition: inline; filename=\"\xe2\x82\xac  x.txt\""]));
    has({ 'content-type' => 'a/b; c=d' },
        stored('/plain/tab', headers => ["Content-Type: a/b;\tc=d"]));
};

subtest 'of the configuration' => sub {
    has({ 'cache-control' => 'max-age=1', 'x-amz-meta-level' => 'http',
            'x-amz-meta-level-too' => 'http' },
        stored('/inherited/a'));
    has({ 'cache-control' => 'max-age=1', 'content-type' => 'text/client' },
        stored('/inherited/b', headers => ['Cache-Control: max-age=7',
            'Content-Type: text/client']));
    has({ 'cache-control' => undef, 'x-amz-meta-level' => undef,
            'x-amz-meta-level-too' => undef, 'x-amz-meta-none' => undef },
        stored('/plain/b'));

    has({ 'content-type' => 'text/own', 'content-disposition' =>
            'inline; filename=n', 'content-language' => undef,
            'cache-control' => undef, 'x-amz-meta-level' => undef,
            'x-amz-meta-who' => 'me', 'x-amz-meta-method' => 'PUT',
            'x-amz-meta-constant' => 'a  b' },
        stored('/own/a?who=me&name=n', headers => ['Content-Type: text/client',
            'Content-Language: de', 'Content-Disposition: attachment']));
    has({ 'content-type' => 'text/own', 'x-amz-meta-who' => undef,
            'expires' => $client{Expires} },
        stored('/own/b', headers => ["Expires: $client{Expires}"]));
};

# What a request to S3 may have, and has
my @always = qw/ authorization connection content-length host user-agent
    x-amz-content-sha256 x-amz-date /;

# the head of a request for a key
sub seen {
    my ($op, $key) = @_;
    return wait_for {
        my ($r) = grep { $_->{path} eq '/' . $t->bucket . "/$key" }
            $fake->requests($op);
        $r ? $r->{headers} : undef;
    };
}

subtest 'nothing else' => sub {
    my @more = ('x-amz-acl: public-read', 'x-amz-meta-own: x',
        'x-amz-storage-class: GLACIER', 'x-amz-tagging: a=b',
        'x-amz-meta-transfer-id: forged', 'x-amz-date: 20200101T000000Z',
        'x-amz-security-token: forged', 'x-amz-checksum-crc32: AAAAAA==',
        'x-amz-server-side-encryption: AES256', 'x-amz-website: /',
        'x-amz-object-lock-mode: GOVERNANCE', 'Content-MD5: forged',
        'Authorization: AWS4-HMAC-SHA256 forged', 'Cookie: forged=1',
        'X-Forwarded-For: 1.2.3.4', 'Range: bytes=0-1', 'Accept: forged',
        'User-Agent: forged', 'If-Modified-Since: forged', 'Origin: forged',
        'Transfer-Id: forged', 'Via: forged', 'TE: trailers',
        'Accept-Encoding: forged', 'Date: forged');
    my %sent = (
        put => [10, [@always, 'x-amz-meta-transfer-id', map { lc }
            keys %client]],
        create => [6 * MB, [@always, 'x-amz-meta-transfer-id', map { lc }
            keys %client]],
        part => [6 * MB, \@always],
        complete => [6 * MB, [@always, 'content-type']],
    );
    for my $op (sort keys %sent) {
        my ($size, $names) = @{$sent{$op}};
        my $r = curl($n->url("/fake/$op"), file => data($size),
            headers => [@client, @more]);
        is($r->{status}, 201, "$op: stored") or diag explain $r;
        my $headers = seen($op, "fake/$op");
        is_deeply([sort grep { $_ ne 'connection' } keys %$headers],
            [sort grep { $_ ne 'connection' } @$names], "$op: headers");
        unlike(join(' ', map { "$_ $headers->{$_}" } keys %$headers),
            qr/forged/, "$op: values");
    }
    is(seen('complete', 'fake/complete')->{'content-type'}, 'application/xml',
        'complete: its own type');

    curl($n->url('/fake/b'), body => 'x');
    is(seen('put', 'fake/b')->{'content-type'}, undef, 'no type is invented');
    curl($n->url('/fake/c'), body => 'x', headers => ['Content-Type;',
        'Cache-Control;']);
    is_deeply([@{seen('put', 'fake/c')}{qw/ content-type cache-control /}],
        [undef, undef], 'empty headers are none');
};

# S3 refuses them with a part
subtest 'a KMS key' => sub {
    my %want = ('x-amz-server-side-encryption' => 'aws:kms',
        'x-amz-server-side-encryption-aws-kms-key-id' =>
            'arn:aws:kms:us-east-1:1:key/0123');
    for (['put', 10], ['create', 6 * MB], ['part', 6 * MB],
        ['complete', 6 * MB])
    {
        my ($op, $size) = @$_;
        my $key = "fake/kms/a b+$op";
        my $r = curl($n->url('/' . S3T::S3::encode($key, '/')),
            file => data($size));
        is($r->{status}, 201, "$op: stored") or diag explain $r;
        my $seen = seen($op, S3T::S3::encode($key, '/'));
        my %got = map { $_ => $seen->{$_} } grep { /encryption/ } keys %$seen;
        is_deeply(\%got, $op =~ /put|create/ ? \%want : {}, "$op: its headers");
        my ($signed) = $seen->{authorization} =~ /SignedHeaders=([^,]+)/;
        is(scalar(() = $signed =~ /encryption/g), scalar keys %got,
            "$op: which are signed");
    }
};

subtest 'conditions' => sub {
    for (['If-None-Match', '*'], ['If-Match', '"abc"'],
        ['If-Match', '"a", "b"'])
    {
        my ($name, $value) = @$_;
        for (['put', 10, 'put'], ['complete', 6 * MB, 'create']) {
            my ($op, $size, $without) = @$_;
            my $key = 'fake/' . lc "$op-$name-" . length $value;
            my $r = curl($n->url("/$key"), file => data($size),
                headers => ["$name: $value"]);
            is($r->{status}, 201, "$name at $op") or diag explain $r;
            is(seen($op, $key)->{lc $name}, $value, "$name at $op: seen");
            is(seen($without, $key)->{lc $name}, undef, "$name not at $without")
                if $without ne $op;
        }
    }
};

# A line break that a variable holds, decoded from the path
subtest 'no header is injected' => sub {
    for my $path (map { ("/inject/$_", "/fake/inject/$_") }
        'a%0d%0ax-amz-acl:%20public-read', 'a%0ax-amz-acl:%20public-read',
        'a%0dx-amz-acl:%20public-read', '%0d%0a%0d%0aPUT%20/b/c%20HTTP/1.1',
        'a%01', 'a%7f', 'a%0d', '%0a')
    {
        my $r = curl($n->url($path), body => 'x');
        is("$r->{status} $r->{json}{error}", '400 InvalidRequest', $path)
            or diag explain $r;
        like($r->{json}{message}, qr/control character/, "$path: says why");
    }

    my $raw = $t->raw($n->port);
    for ('Content-Type', 'Content-Disposition', 'Cache-Control', 'If-Match',
        'X-Value')
    {
        my $path = /X-/ ? '/fake/arg' : '/fake/refused';
        $raw->send("PUT $path HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
            . "$_: a\x01b\r\n\r\nx");
        is($raw->response->{status}, 400, "$_ with a control character");
    }
    is(scalar(grep { $_->{path} =~ /injected|refused/ } $fake->requests), 0,
        'no call');
    is($s3->head('injected'), undef, 'no object');

    my $r = curl($n->url('/fake/arg?x=a%0d%0ax-amz-acl:b'), body => 'x',
        headers => ["X-Value: \xc3\xa9 a  b"]);
    is($r->{status}, 201, 'what nginx does not decode');
    is_deeply([@{seen('put', 'fake/arg')}{qw/ x-amz-meta-value x-amz-meta-header
        x-amz-acl /}], ['a%0d%0ax-amz-acl:b', "\xc3\xa9 a  b", undef],
        'stays as it is');
};

subtest 'nginx -t' => sub {
    my $conf = sub { return "%%MAIN%%\nhttp { server { listen 127.0.0.1:1; "
        . "location / { s3_endpoint http://127.0.0.1:1; s3_bucket bucket; "
        . "s3_credentials static a b; $_[0] s3_upload; } } }" };
    for (qw/ Host Authorization Connection Content-Length Content-MD5 Date
        Content-Range Expect If-Match If-None-Match Range TE Trailer Upgrade
        Transfer-Encoding User-Agent X-Amz-Content-SHA256 X-Amz-Date
        X-Amz-Security-Token X-Amz-Meta-Transfer-Id X-Amz-Checksum-CRC32
        x-amz-checksum-type X-Amz-Copy-Source x-amz-copy-source-range
        X-Amz-Mp-Object-Size x-amz-sdk-checksum-algorithm x-amz-trailer
        x-amz-decoded-content-length Proxy-Connection /)
    {
        my ($status, $text) = $n->test_conf($conf->("s3_object_header $_ x;"));
        is($status, 1, "$_ is refused");
        like($text, qr/"s3_object_header" cannot set "\L$_"/, "$_: why");
    }
    for ('"a b"', '"a:b"', '""', '"a\r"', "\xc3\xa9", '$arg_x') {
        my ($status, $text) = $n->test_conf($conf->("s3_object_header $_ x;"));
        is($status, 1, "name $_ is refused");
        like($text, qr/invalid header name/, "name $_: why");
        ($status, $text) = $n->test_conf($conf->("s3_metadata $_ x;"));
        is($status, 1, "metadata $_ is refused");
        like($text, qr/invalid header name/, "metadata $_: why");
    }
    my ($status, $text) = $n->test_conf($conf->('s3_metadata Transfer-Id x;'));
    is($status, 1, "the transfer's mark");
    like($text, qr/"s3_metadata" cannot set "x-amz-meta-transfer-id"/, 'why');
    ($status, $text) = $n->test_conf($conf->(
        join ' ', map { "s3_metadata m$_ x;" } 1 .. 60));
    is($status, 1, 'too many');
    like($text, qr/more than 48/, 'why');

    my $many = $t->nginx("%%MAIN%%\nhttp { %%HTTP%% server { "
        . 'listen 127.0.0.1:%%PORT%%; %%S3%% s3_payload_signature on; '
        . 's3_checksum crc32; location / { s3_upload; '
        . join(' ', map { "s3_metadata m$_ v$_;" } 1 .. 48) . '} } }');
    my $r = curl($many->url('/k'), body => 'x', headers => \@client);
    is($r->{status}, 201, 'as many as may be') or diag explain $r;
    my ($url, $headers) = $s3->sign('HEAD', $s3->path('k'));
    like(curl($url, method => 'HEAD', args => ['-I', map { ('-H',
        "$_: $headers->{$_}") } keys %$headers])->{body},
        qr/x-amz-meta-m48: v48/, 'the last of them');
};
