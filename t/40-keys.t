#!/usr/bin/perl

# Keys of any bytes that S3 takes arrive there as they were meant, whether they
# come from the path or from a variable; bad keys, buckets and ids make no call.

use strict;
use warnings;

use lib 't/lib';
use JSON::PP ();
use Test::More;
use S3T;

my $t = S3T->new;
my $s3 = $t->s3;
my $fake = $t->fake;
$t->token(FAKE => $fake->url);

my $n = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    log_format key escape=json '{"uri":"$request_uri","key":"$s3_key"}';
    merge_slashes off;
    large_client_header_buffers 4 32k;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        access_log %%DIR%%/keys.log key;
        %%S3%%
        s3_part_size 5m;
        location /up/ { s3_upload; }
        location /arg { s3_upload $arg_key; }
        location /header { s3_upload $http_x_key; }
        location /prefix { s3_upload in/$arg_key.bin; }
        location ~ ^/re/(.*)$ { s3_upload $1; }
        location ~ ^/named/(?<name>.*)$ { s3_upload named/$name; }
        location /rewritten/ { rewrite ^/rewritten/(.*)$ /up/$1 last; }
        location /bare/ { rewrite ^/bare/(.*)$ $1 break; s3_upload; }
    }
    server {
        listen 127.0.0.1:%%PORT_merge%%;
        merge_slashes on;
        %%S3%%
        location / { s3_upload; }
    }
    server {
        listen 127.0.0.1:%%PORT_bad%%;
        s3_endpoint %%FAKE%%;
        s3_bucket bucket;
        s3_credentials static testaccess testsecret;
        location / { s3_upload; }
        location /arg { s3_upload $arg_key; }
        location /header { s3_upload $http_x_key; }
        location ~ ^/re/(.*)$ { s3_upload $1; }
        location /bucket { s3_bucket $arg_bucket; s3_upload key; }
        location /buckets { s3_bucket $http_x_bucket; s3_upload key; }
        location /id { s3_transfer_id $arg_id; s3_upload key; }
        location /ids { s3_transfer_id $http_x_id; s3_upload key; }
    }
}
EOF

sub encode { S3T::S3::encode(@_) }

# PUT with nothing between the test and nginx: bytes of any kind in the path
# and in a header
sub put {
    my ($path, %o) = @_;
    my $raw = $t->raw($n->port($o{port}));
    my $body = defined $o{body} ? $o{body} : 'x';
    $raw->send("PUT $path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        . join('', map { "$_\r\n" } @{$o{headers} || []})
        . 'Content-Length: ' . length($body) . "\r\n\r\n$body");
    my $r = $raw->response(30) or return { status => 0 };
    push @S3T::Curl::RESPONSES, $r->{body};
    $r->{json} = eval { JSON::PP->new->utf8->decode($r->{body}) };
    return $r;
}

my %logged;

# what the record, $s3_key (looked at below) and S3 say of a key, as bytes
sub check {
    my ($name, $r, $key, $body, $location) = @_;
    my $text = $key;
    utf8::decode($text);
    is($r->{status}, 201, "$name: stored") or diag explain $r;
    is($r->{json}{key}, $text, "$name: the record");
    is($r->{headers}{location}, $location, "$name: Location");
    is($s3->get($key), $body, "$name: what S3 holds");
}

my %keys = (
    'a space' => 'a b  c',
    'plus' => 'a+b',
    'percent' => '100%',
    'percent and digits' => 'a%20b%2Fc%',
    'UTF-8' => "gr\xc3\xb6\xc3\x9fe/\xe6\x97\xa5\xe6\x9c\xac/\xf0\x9f\x98\x80",
    'composed otherwise' => "e\xcc\x81",
    'ampersand' => 'a&b=c',
    'equals' => '=a=',
    'question mark' => 'a?uploads',
    'hash' => 'a#b',
    'quotes' => q{a"b'c`d},
    'backslash' => 'a\\b',
    'unreserved' => 'a-b_c.d~e',
    'brackets' => '(a)[b]{c}<d>',
    'the others' => '*a!b$c,d;e:f@g|h^i',
    'two slashes' => 'a//b',
    'dots' => '..a/b../.../.c',
    'markup' => '<Key>&amp;</Key>',
    'non-character' => "a\xef\xbf\xbf",
);
my $i = 0;

for my $name (sort keys %keys) {
    my $key = $keys{$name};
    $i++;
    subtest $name => sub {
        my $path = "/up/$i/" . encode($key, '/');
        check('path', put($path, body => "path$i"), "up/$i/$key", "path$i",
            $path);
        $logged{$path} = "up/$i/$key";

        $path = "/re/re$i/" . encode($key, '/');
        check('a capture', put($path, body => "re$i"), "re$i/$key", "re$i");
        $logged{$path} = "re$i/$key";

        my $r = put('/header', headers => ["X-Key: h$i/$key"], body => "h$i");
        check('a header', $r, "h$i/$key", "h$i");

        # nginx decodes no argument: what the client wrote is the key
        my $written = encode($key, '/');
        $r = put("/arg?key=enc$i/$written&x=y", body => "enc$i");
        check('an argument, encoded', $r, "enc$i/$written", "enc$i");

        return if $key =~ /[ &#]/;
        $path = "/arg?key=arg$i/$key&x=y";
        check('an argument, as it is', put($path, body => "arg$i"),
            "arg$i/$key", "arg$i");
        $logged{$path} = "arg$i/$key";
    };
}

subtest 'in parts' => sub {
    my $d = data(11 * MB);
    my $key = "parts/a b+c%\xc3\xa9&=?#\"'~(*)//.txt";
    my $path = encode($key, '/');
    my %url = (path => "/up/$path", capture => "/re/$path",
        named => "/named/$path");
    my %stored = (path => "up/$key", capture => $key, named => "named/$key");
    for (sort keys %url) {
        my $r = curl($n->url($url{$_}), file => $d);
        is("$r->{status} $r->{json}{partsStored}", '201 3', $_)
            or diag explain $r;
        is_deeply([$s3->sha256($stored{$_})], [$d->{sha256}, $d->{size}],
            "$_: what S3 holds");
        $logged{$url{$_}} = $stored{$_};
    }
    my $r = curl($n->url("/up/h2/$path", 'h2'), file => $d, h2 => 1,
        chunked => 1);
    is("$r->{status} $r->{version}", '201 2', 'HTTP/2') or diag explain $r;
    is_deeply([$s3->sha256("up/h2/$key")], [$d->{sha256}, $d->{size}],
        'what S3 holds');
};

subtest 'the longest' => sub {
    my $d = data(6 * MB);
    for ('k' x 1021, "\xc3\xa9" x 510 . 'k') {
        my $key = "up/$_";
        is(length $key, 1024, 'bytes');
        my $path = '/' . encode($key, '/');
        check('one part', put($path), $key, 'x', $path);
        my $r = curl($n->url($path), file => $d);
        is("$r->{status} $r->{json}{partsStored}", '201 2', 'two parts')
            or diag explain $r;
        is_deeply([$s3->sha256($key)], [$d->{sha256}, $d->{size}],
            'what S3 holds');
        $logged{$path} = $key;
    }
    unlike($n->log, qr/CompleteMultipartUpload/, 'at the first try');
};

subtest 'what nginx makes of a path' => sub {
    my %paths = (
        '/up/n/./a' => 'up/n/a', '/up/n/x/../b' => 'up/n/b',
        '/up/n/%2e%2e/n/c' => 'up/n/c', '/up/n%2fd' => 'up/n/d',
        '/up/n/%65' => 'up/n/e', '/up/n/f?g=h' => 'up/n/f',
        'http://elsewhere/up/n/i?j' => 'up/n/i', '/up/n/k?' => 'up/n/k',
    );
    for (sort keys %paths) {
        my $location = s{^http://[^/]*}{}r =~ s/\?.*//r;
        check($_, put($_, body => $_), $paths{$_}, $_, $location);
    }
    check('two slashes', put('//p?q', port => 'merge', body => 'p'), 'p', 'p',
        '/.//p');
    check('a fragment', put('/up/n/l#m', body => 'l'), 'up/n/l', 'l',
        '/up/n/l');
    check('rewritten', put('/rewritten/n/o', body => 'o'), 'up/n/o', 'o',
        '/rewritten/n/o');
    check('rewritten without a slash', put("/bare/$_", body => $_), $_, $_,
        "/bare/$_") for 'film', 'q/film', 'q';
};

subtest 'from several' => sub {
    check('text around', put('/prefix?key=a'), 'in/a.bin', 'x');
    check('a slash first', put('/arg?key=/abs'), '/abs', 'x');
    check('nothing but it', put('/prefix'), 'in/.bin', 'x');
};

subtest '$s3_key' => sub {
    my %seen;
    wait_for {
        %seen = map {
            my $line = JSON::PP->new->decode($_);
            ($line->{uri} => $line->{key});
        } split /\n/, read_file("$n->{dir}/keys.log");
        !grep { !defined $seen{$_} } keys %logged;
    };
    is($seen{$_}, $logged{$_}, substr $_, 0, 60) for sort keys %logged;
};


# Refusals: the fake S3 hears of none of them.

sub refused {
    my ($name, $r, $code, $message) = @_;
    is("$r->{status} " . ($r->{json}{error} || ''), "400 $code", $name)
        or diag explain $r;
    like($r->{json}{message}, $message, "$name: says why");
    is($r->{headers}{'content-type'}, 'application/json', "$name: JSON");
}

subtest 'bad keys' => sub {
    my %dots = map { $_ => qr/segment/ } qw( . .. ../a a/.. a/../b ./a a/.
        a/./b a//../b /.. );
    my %bad = (
        %dots,
        '' => qr/empty/,
        '/' => qr/ends in/, 'a/' => qr/ends in/, 'a//' => qr/ends in/,
        'k' x 1025 => qr/1024/, "\xc3\xa9" x 512 . 'k' => qr/1024/,
        "\xff" => qr/UTF-8/, "a\xc3" => qr/UTF-8/, "\xc3/a" => qr/UTF-8/,
        "\xc0\xae\xc0\xae/a" => qr/UTF-8/, "\xed\xa0\x80" => qr/UTF-8/,
        "\xf4\x90\x80\x80" => qr/UTF-8/, "a\x80b" => qr/UTF-8/,
    );
    my %control = map { chr($_) => qr/control/ } 1 .. 9, 11, 12, 14 .. 31, 127;
    for (sort keys %bad) {
        my $name = encode(length > 30 ? substr($_, 0, 10) . length : $_);
        refused("argument $name", put("/arg?key=$_", port => 'bad'),
            'InvalidKey', $bad{$_});
        refused("header $name",
            put('/header', headers => ["X-Key: $_"], port => 'bad'),
            'InvalidKey', $bad{$_});
        # such a path has been cleaned
        next if $dots{$_} || $_ eq 'a//' || $_ eq '/';
        refused("capture $name", put('/re/' . encode($_, '/'), port => 'bad'),
            'InvalidKey', $bad{$_});
        refused("path $name", put('/' . encode($_, '/'), port => 'bad'),
            'InvalidKey', $bad{$_});
    }
    for (sort keys %control) {
        my $name = encode($_);
        refused("header $name",
            put('/header', headers => ["X-Key: a${_}b"], port => 'bad'),
            'InvalidKey', $control{$_});
    }
    for ("\n", "\r", sort keys %control) {
        my $name = encode($_);
        refused("path $name", put("/a${name}b", port => 'bad'),
            'InvalidKey', qr/control/);
        refused("capture $name", put("/re/a${name}b", port => 'bad'),
            'InvalidKey', qr/control/);
    }
    refused('no argument', put('/arg', port => 'bad'), 'InvalidKey',
        qr/empty/);
};

subtest 'bad buckets' => sub {
    my %bad = (
        (map { $_ => qr/a-z/ } qw( a/b Upper a:b a%2fb a_b a@b a+b),
            "b\xc3\xbcx", '%2e%2e%2e', 'a?b'),
        (map { $_ => qr/63/ } '', 'ab', '..', 'b' x 64),
        (map { $_ => qr/letter or digit/ } qw( -ab ab- ab. )),
        (map { $_ => qr/empty label/ } qw( ... .ab a..b ../b )),
    );
    for (sort keys %bad) {
        my $name = encode($_);
        refused("argument $name", put("/bucket?bucket=$_", port => 'bad'),
            'InvalidBucketName', $bad{$_});
        refused("header $name",
            put('/buckets', headers => ["X-Bucket: $_"], port => 'bad'),
            'InvalidBucketName', $bad{$_});
    }
    refused("header $_", put('/buckets', port => 'bad',
        headers => ["X-Bucket: a${_}b"]), 'InvalidBucketName', qr/a-z/)
        for ' ', "\t", "\x01", '#', '&';
};

subtest 'bad ids' => sub {
    my $why = qr/16 to 64/;
    my $good = '0123456789abcdef';
    refused("argument $_", put("/id?id=$_", port => 'bad'),
        'InvalidTransferId', $why)
        for 'short', substr($good, 1), 'i' x 65, 'i' x 1024, "$good/",
        "$good.", "$good~", "$good%20", "$good:", "$good\xc3\xa9", "../$good";
    refused('header ' . encode($_), put('/ids', port => 'bad',
        headers => ["X-Id: $good$_$good"]), 'InvalidTransferId', $why)
        for ' ', "\t", "\x01", '*', "\xff";
};

is_deeply([$fake->requests], [], 'S3 heard of no refusal');

# that would have been seen
is(put('/key', port => 'bad')->{status}, 201, 'a good key');
is(put('/bucket?bucket=b.uc-k3t', port => 'bad')->{status}, 201,
    'a good bucket');
is(put('/id?id=' . 'i' x 64, port => 'bad')->{headers}{'x-transfer-id'},
    'i' x 64, 'a good id');
wait_for { $fake->requests >= 3 };
is_deeply([map { $_->{path} } $fake->requests],
    ['/bucket/key', '/b.uc-k3t/key', '/bucket/key'], 'S3 heard of it');

subtest 'constants, by nginx -t' => sub {
    my $conf = sub { return '%%MAIN%% http { server { location / { s3_endpoint '
        . "%%FAKE%%; s3_credentials static a b; $_[0] } } }" };
    for (qw( a/b Upper ab "" a:b .. ), 'b' x 64) {
        my ($status, $text) = $n->test_conf($conf->(
            "s3_bucket $_; s3_upload;"));
        is($status, 1, "bucket $_");
        like($text, qr{invalid "s3_bucket" .* in location "/": bucket name},
            "bucket $_: why");
    }
    for (qw( a/ "" ../a a/../b ./a ), "a\xff", '"a\n"', 'k' x 1025) {
        my ($status, $text) = $n->test_conf($conf->(
            "s3_bucket bucket; s3_upload $_;"));
        is($status, 1, 'key ' . encode(substr $_, 0, 20));
        like($text, qr{invalid key of "s3_upload" in location "/": }s,
            'why');
    }
};
