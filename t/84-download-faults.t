#!/usr/bin/perl

# What S3 can do wrong (t/lib/S3T/Schedule.pm) while a response is captured: its
# client gets all of it, with the status it has anyway, and the copy is whole or
# not there. The same while a URL is fetched: told as for an upload. And what an
# origin can do wrong. All cases of a kind run at the same time.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use Test::More;
use S3T;
use S3T::Schedule;

my $t = S3T->new;
my $s3 = $t->s3;

# /<size>/<anything> is the body of that size
my $origin = $t->nginx(<<'EOF', module => 0);
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        location ~ ^/(\d+)/ { alias %%DIR%%/$1; }
    }
}
EOF
$t->token(ORIGIN => '127.0.0.1:' . $origin->port);

sub conf {
    my ($c) = @_;
    return $c->{condition} ? 's3_overwrite off; ' : '';
}

my $tee = S3T::Schedule->new($t, name => 'tee', door => sub {
    my ($c) = @_;
    return conf($c) . "s3_tee; proxy_pass http://%%ORIGIN%%/$c->{body}{size}/;";
});
my $pull = S3T::Schedule->new($t, name => 'pull', door => sub {
    my ($c) = @_;
    return conf($c) . "s3_ingest http://%%ORIGIN%%/$c->{body}{size}/x;";
});
$_->table for $tee, $pull;

for ($tee->cases) {
    my $body = "$origin->{dir}/$_->{body}{size}";
    place($_->{body}{path}, $body) if !-e $body;
}


# What an origin can do wrong, beside what t/91-ingest-breaks.t shows: a
# scripted one a case, each of which serves what S3 is then to hold

my @origins;
my $page = join '', map { "line $_\n" } 1 .. 20_000;
my $etag = 'ETag: "one"';
my $none = free_port();

# the bytes of an answer
sub answer {
    my ($status, $body, @fields) = @_;
    return join("\r\n", "HTTP/1.1 $status", @fields,
        'Content-Length: ' . length $body) . "\r\n\r\n$body";
}

sub chunked {
    my ($body, $end, @fields) = @_;
    return join("\r\n", 'HTTP/1.1 200 OK', 'Transfer-Encoding: chunked',
        @fields) . "\r\n\r\n" . sprintf("%x\r\n", length $body) . $body
        . $end;
}

# these bytes, and the end of the connection
sub raw {
    my ($text, $close) = @_;
    return { raw => $text, close => $close || 'after' };
}

# origin NAME => answers, { status (201), code, message, asked (how often),
# body, conf }
sub origin {
    my ($name, $get, %c) = @_;
    $c{fake} = $t->fake(on => { get => $get },
        $c{tls} ? (cert => $t->certs . '/server.pem',
        key => $t->certs . '/server.key') : ());
    $c{name} = "origin-$name";
    $c{id} = sprintf 'origin-%012d', scalar @origins;
    $c{body} = $page if !defined $c{body};
    $c{port} = $c{fake}{port};
    push @origins, \%c;
}

sub origin_locations {
    return join '', map { "        location /$_->{name}/ { %%S3%% "
        . ($_->{conf} || '') . ' s3_ingest http' . ($_->{tls}
        ? 's://localhost' : '://127.0.0.1') . ":$_->{port}/x; }\n" } @origins;
}

my $whole = raw(answer('200 OK', $page, $etag));
my @broken = (status => 502, code => 'OriginBroken');
my @unavailable = (status => 502, code => 'OriginUnavailable');
my @refuses = (status => 502, code => 'OriginStatus', asked => 1);
my @misleads = (status => 502, code => 'OriginRedirect', asked => 1);
my $hasty = 's3_read_timeout 1500ms; s3_tries 1;';
# (the system's certificates take the sanitizers a second each)
my $follow = 's3_ingest_redirects 3; s3_ssl_trusted_certificate %%CA%%;';

origin('reset-before', [{ close => 'reset' }, $whole], asked => 2);
origin('reset-within', [raw(substr(answer('200 OK', $page, $etag), 0, 9999),
    'reset'), raw(answer('200 OK', $page, 'ETag: "two"'))], asked => 2);
origin('reset-always', { close => 'reset' }, @unavailable, asked => 3);
origin('reset-in-head', raw('HTTP/1.1 200 OK', 'reset'), @unavailable,
    asked => 3);
origin('error-once', [{ status => 500 }, $whole], asked => 2);
origin('error-always', { status => 500 }, @refuses, asked => 3,
    message => qr/answered 500/);
origin('missing', { status => 404 }, @refuses, message => qr/answered 404/);
origin('gone', { status => 410 }, @refuses, message => qr/answered 410/);
origin('no-content', raw("HTTP/1.1 204 No Content\r\n\r\n"), @refuses,
    message => qr/answered 204/);
origin('not-modified', raw("HTTP/1.1 304 Not Modified\r\n$etag\r\n\r\n"),
    @refuses, message => qr/answered 304/);
origin('partial', raw(answer('206 Partial Content', 'abc',
    'Content-Range: bytes 0-2/9')), @refuses, message => qr/answered 206/);
origin('choices', raw(answer('300 Multiple Choices', 'x', 'Location: /y')),
    @refuses, conf => $follow, message => qr/answered 300/);
origin('huge-error', raw(answer('404 Not Found', 'x' x 3_000_000)), @refuses);

# heads
origin('not-http', raw("hello\r\n\r\n"), @unavailable, asked => 3,
    message => qr/is not HTTP/);
origin('long-head', raw("HTTP/1.1 200 OK\r\nx: " . 'x' x 300_000
    . "\r\n\r\n"), @unavailable, asked => 3, message => qr/is not HTTP/);
origin('many-fields', raw("HTTP/1.1 200 OK\r\n" . "x: y\r\n" x 100_000),
    @unavailable, asked => 3, message => qr/is not HTTP/);
origin('drip-head', { pieces => [ map { (1, $_) } "HTTP/1.1 200 OK\r\n",
    ("x: y\r\n") x 100 ] }, conf => $hasty, status => 504,
    code => 'OriginTimeout');
origin('drip-interim', { pieces => [ map { (1, $_) }
    ("HTTP/1.1 103 Early Hints\r\n\r\n") x 8, ("x: y\r\n") x 90 ] },
    conf => $hasty, status => 504, code => 'OriginTimeout');
origin('interim', raw("HTTP/1.1 100 Continue\r\n\r\n"
    . "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    . answer('200 OK', $page, $etag)), asked => 1);
origin('interim-without-end', raw("HTTP/1.1 102 Processing\r\n\r\n" x 20),
    @unavailable, asked => 3, message => qr/too many interim/);
origin('two-lengths', raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"
    . "Content-Length: 4\r\n\r\nabcd"), @unavailable, asked => 3);
origin('bad-length', raw("HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc"),
    @unavailable, asked => 3);
origin('overflow', raw("HTTP/1.1 200 OK\r\nContent-Length: "
    . "99999999999999999999\r\n\r\nabc"), @unavailable, asked => 3);
origin('too-large', raw("HTTP/1.1 200 OK\r\nContent-Length: "
    . "9000000000000000\r\n\r\nabc"), status => 413,
    code => 'EntityTooLarge', asked => 1);
origin('both-framings', raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"
    . "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    asked => 1, body => 'abc');
origin('gzip-framing', raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked"
    . "\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), @unavailable, asked => 3);

# bodies
origin('empty', raw(answer('200 OK', '')), body => '', asked => 1);
origin('empty-chunked', raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"
    . "\r\n\r\n0\r\n\r\n"), body => '', asked => 1);
origin('old', raw(answer('200 OK', $page) =~ s/1\.1/1.0/r), asked => 1);
origin('trailers', raw(chunked($page, "\r\n0\r\nExpires: 0\r\nx: y\r\n\r\n")),
    asked => 1);
origin('extensions', raw(chunked($page, "\r\n0;a=\"b;c\"\r\n\r\n")),
    asked => 1);
origin('cut-length', raw(substr answer('200 OK', $page), 0, 100_000), @broken,
    asked => 3);
origin('cut-chunk', raw(chunked($page, '')), @broken, asked => 3);
origin('cut-between', raw(chunked($page, "\r\n")), @broken, asked => 3);
origin('cut-end', raw(chunked($page, "\r\n0\r\n")), @broken, asked => 3);
origin('cut-trailers', raw(chunked($page, "\r\n0\r\nx: y\r\n")), @broken,
    asked => 3);
origin('bad-chunk', raw(chunked($page, "\r\nxyz\r\n")), @broken, asked => 3);
origin('huge-chunk', raw(chunked($page, "\r\nffffffffffffffffff\r\nx")),
    @broken, asked => 3);
origin('endless-trailers', raw(chunked($page, "\r\n0\r\n" . "x: y\r\n"
    x 100_000)), @broken, asked => 3);
origin('coded', raw(answer('200 OK', $page, 'Content-Encoding: gzip')),
    asked => 1, coding => 'gzip');
origin('drip-body', { pieces => [0, substr(answer('200 OK', $page), 0, -5),
    map { (0.7, $_) } split //, substr $page, -5] }, asked => 1,
    conf => 's3_read_timeout 3s; s3_tries 1;');
origin('changed-length', [raw(substr(answer('200 OK', $page, $etag), 0, 9999)),
    raw(answer('206 Partial Content', 'x', $etag,
    'Content-Range: bytes 5-5/6')), $whole], asked => 3);

# redirects
origin('loop', { status => 302, headers => { Location => '/x' } }, @refuses,
    asked => 4, conf => $follow, message => qr/answered 302/);
origin("to-$_->[0]", { status => 307, headers => { Location => $_->[1] } },
    status => $_->[2] || 502, code => $_->[3] || 'OriginRedirect', asked => 1,
    conf => $follow) for
    ['loopback', "http://127.0.0.2:$none/", 403, 'OriginRefused'],
    ['metadata', 'http://169.254.169.254/latest/', 403, 'OriginRefused'],
    ['mapped', 'http://[::ffff:127.0.0.2]/', 403, 'OriginRefused'],
    ['private', '//10.0.0.1/', 403, 'OriginRefused'],
    ['user', "http://me\@127.0.0.1:$none/"], ['file', 'file:///etc/passwd'],
    ['nobody', 'http:///x'], ['port', 'http://127.0.0.1:99999/'],
    ['script', 'javascript:1'], ['s3', 's3://bucket/key'];
origin('to-plain', { status => 301, headers => { Location =>
    "http://127.0.0.1:$none/" } }, @misleads, tls => 1,
    conf => $follow);
origin('untrusted', $whole, @unavailable, asked => 0, tls => 1,
    conf => 's3_ssl_trusted_certificate %%CERTS%%/rogue-ca.pem;');
origin('redirect-once', [{ status => 308, headers => { Location => 'y' } },
    $whole], asked => 2, conf => $follow);

my $locations = origin_locations();

my $n = $t->nginx(<<"EOF");
%%MAIN%%
http {
    %%HTTP%%
    log_format tee '\$uri \$s3_tee_status';
    s3_memory 1g;
    s3_ingest_max 0;
    server {
        listen 127.0.0.1:%%PORT%%;
        s3_credentials static testaccess testsecret;
        s3_part_size 5m;
        s3_tries 3;
        s3_transfer_id \$arg_id;
        s3_ingest_allow 127.0.0.1;
        s3_tee_on_overrun wait;
        proxy_max_temp_file_size 0;
        location /transfers/ { s3_status; }
$tee->{locations}$pull->{locations}$locations
    }
}
EOF
$_->{n} = $n for $tee, $pull;
$_->expect for $tee, $pull;

sub begin {
    my ($c, @o) = @_;
    return curl_start($n->url("/$c->{name}/x?id=$c->{id}"), @o);
}

$t->expect_errors(qr{"$_->{name}/x"}) for grep { $_->{status} } @origins;

$s3->put("$_-condition-real/x", 'the former') for qw/ tee pull /;


# The record is final some time after the client has had its response

sub captured {
    my ($c) = @_;
    my $r = $c->{started}->wait;
    is("$r->{status} $r->{exit}", '200 0', 'the response');
    is(sha256_hex($r->{body}), $c->{body}{sha256}, 'its bytes');

    my $record;
    wait_for {
        $record = $tee->record($c);
        ($record->{state} || '') =~ /^(completed|failed|aborted)$/;
    } 60;
    if (($c->{status} || 201) == 201) {
        is("$record->{state} $record->{bytesStored}",
            "completed $c->{body}{size}", 'the record');
        is($record->{etag}, $c->{etag}, 'ETag') if $c->{etag};
    } else {
        is($record->{state}, 'failed', 'the record');
        like($record->{error}, $c->{message}, 'and its error');
    }
    $tee->followed($c);
}

sub fetched {
    my ($c) = @_;
    my $r = $c->{started}->wait;
    my $key = "$c->{name}/x";
    is($r->{status}, $c->{status} || 201, 'status') or diag explain $r;
    if ($c->{status}) {
        is($r->{json}{error}, $c->{code}, 'error') or diag explain $r->{json};
        like($r->{json}{message}, $c->{message}, 'message') if $c->{message};
        is($tee->record($c)->{state}, 'failed', 'the record');
        is($s3->head($key), undef, 'no object');
    } else {
        is($tee->record($c)->{state}, 'completed', 'the record');
        is_deeply([$s3->sha256($key)], [sha256_hex($c->{body}),
            length $c->{body}], 'what S3 holds');
        is($s3->head($key)->{'content-encoding'}, $c->{coding},
            'Content-Encoding');
    }
    is(scalar $c->{fake}->requests('get'), $c->{asked}, 'requests')
        if defined $c->{asked};
}

subtest 'S3, and a response' => sub {
    $_->{started} = begin($_) for $tee->cases;
    for my $c ($tee->cases) {
        subtest $c->{name} => sub { captured($c) };
    }
};

subtest 'S3, and a pull' => sub {
    $_->{started} = begin($_, method => 'POST') for $pull->cases;
    for my $c ($pull->cases) {
        subtest $c->{name} => sub {
            $pull->answered($c, $c->{started}->wait);
            $pull->followed($c);
        };
    }
};

subtest 'an origin' => sub {
    $_->{started} = begin($_, method => 'POST') for @origins;
    for my $c (@origins) {
        subtest $c->{name} => sub { fetched($c) };
    }
};

is_deeply([sort grep { !/^origin-/ } $s3->keys], ['pull-condition-real/x', 'tee-condition-real/x'],
    'no object appeared in S3');
is($s3->get("$_-condition-real/x"), 'the former', 'the former stays')
    for qw/ tee pull /;
