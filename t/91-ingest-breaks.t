#!/usr/bin/perl

# Pulls whose origin breaks off, is silent, refuses or is slow: what was fetched
# is kept where the rest is sure to belong to it, else all is fetched again, and
# no object has bytes of two answers. Origins are scripted, or S3 itself.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use Test::More;
use S3T;
use S3T::Util qw/ append /;

use constant PART => 5 * MB;

my $t = S3T->new;
my $s3 = $t->s3;

my $text = join '', map { sprintf "%07d\n", $_ } 1 .. 1024 * 1024;   # 8 MiB
my $sum = sha256_hex($text);
my $size = length $text;
my $sent = 6 * MB + 77;       # bytes of it, before an origin breaks off
my $etag = 'ETag: "one"';

# how many requests for this path have come, this one included
sub nth {
    my ($path) = @_;
    my $name = $t->dir . '/nth' . $path =~ s/\W/-/gr;
    append($name, '.');
    return -s $name;
}

sub answer {
    my ($status, $body, @fields) = @_;
    return join("\r\n", "HTTP/1.1 $status", @fields,
        'Content-Length: ' . length $body) . "\r\n\r\n$body";
}

# all of it, but breaks off
sub cut {
    my (@fields) = @_;
    my $all = answer('200 OK', $text, @fields);
    return { raw => substr($all, 0, length($all) - $size + $sent),
        close => 'after' };
}

sub whole {
    my (@fields) = @_;
    return { raw => answer('200 OK', $text, @fields), close => 'after' };
}

# what the range says, shifted, with other fields
sub rest {
    my ($r, %o) = @_;
    my ($from) = $r->{headers}{range} =~ /^bytes=(\d+)-$/;
    $from += $o{shift} || 0;
    my $total = $o{total} || $size;
    return { close => 'after', raw => answer('206 Partial Content',
        substr($text, $from, $o{most} || $size),
        "Content-Range: bytes $from-" . ($size - 1) . "/$total",
        @{$o{fields} || [$etag]}) };
}

sub chunked {
    my ($body, @fields) = @_;
    return join("\r\n", 'HTTP/1.1 200 OK', 'Transfer-Encoding: chunked',
        @fields) . "\r\n\r\n" . sprintf("%x\r\n", length $body) . $body;
}

# first: of the first request; then: of each that follows
my %origin = (
    resumed => { first => sub { cut($etag) }, then => \&rest },
    again => { first => sub { cut($etag) }, then => sub {
        my $rest = rest($_[0]);
        $rest->{raw} = substr $rest->{raw}, 0, 100_000 if nth('again-then') < 3;
        $rest } },
    chunked => { first => sub { { close => 'after', raw =>
        substr(chunked($text, $etag), 0, $sent) } }, then => \&rest },
    weak => { first => sub { cut('ETag: W/"one"') } },
    bare => { first => sub { cut() } },
    no_ranges => { first => sub { cut($etag, 'Accept-Ranges: none') } },
    ignores => { first => sub { cut($etag) }, then => sub { whole($etag) } },
);
my %wrong = (
    shifted => sub { rest($_[0], shift => 8) },
    other_total => sub { rest($_[0], total => $size + 1) },
    no_total => sub { rest($_[0], total => 'x') },
    no_etag => sub { rest($_[0], fields => []) },
    other_etag => sub { rest($_[0], fields => ['ETag: "two"']) },
    coded => sub { rest($_[0], fields => [$etag,
        'Content-Encoding: gzip']) },
    no_range => sub { { raw => answer('206 Partial Content', 'x'),
        close => 'after' } },
    status_416 => sub { { status => 416 } },
);
$origin{$_} = { first => sub { cut($etag) }, wrong => $wrong{$_} }
    for keys %wrong;

my %answers = (
    '/busy' => sub { nth('busy') == 1 ? { status => 503,
        headers => { 'Retry-After' => 2 } }
        : { status => 200, body => 'busy' } },
    '/odd' => sub { { status => nth('odd') == 1 ? 520 : 200 } },
    # (an ETag of its own would tell)
    '/said' => sub { my $n = nth('said'); { close => 'after', raw => substr(
        answer('200 OK', 'said', "Content-Type: text/x-$n",
        "Last-Modified: Mon, 0$n Jan 2001 00:00:00 GMT"),
        0, $n == 1 ? -4 : 999) } },
    '/late' => sub { nth('late') == 1 ? { close => 'before' }
        : { status => 200, body => 'late' } },
    '/silent' => sub { { delay => 300 } },
    '/long' => sub { { status => 503, headers => { 'Retry-After' => 3000 } } },
    '/403' => sub { { status => 403 } },
    '/garbage' => sub { { raw => "SSH-2.0-x\r\n", close => 'after' } },
    '/stalls' => sub { { pieces => [0, substr(answer('200 OK', $text), 0,
        100_000), 300, ''] } },
    '/breaks' => sub { cut() },
    '/huge' => sub { { raw => "HTTP/1.1 200 OK\r\nContent-Length: "
        . 6 * 1024 ** 4 . "\r\n\r\nabc", close => 'after' } },
    '/more' => sub { { raw => answer('200 OK', 'abc') . 'defghi',
        close => 'after' } },
    '/trickle' => sub { { pieces => [0, answer('200 OK', 'abcdef') =~ s/f$//r,
        0.5, 'f'] } },
);

my $fake = $t->fake(on => { get => sub {
    my ($r) = @_;
    my $path = $r->{path};
    return $answers{$path}->($r) if $answers{$path};
    my $o = $origin{$path =~ s{^/}{}r} or return { status => 404 };
    my $n = nth($path);
    return $o->{first}->($r) if $n == 1;
    return $o->{wrong}->($r) if $o->{wrong} && $n == 2;
    return $o->{then} ? $o->{then}->($r) : whole();
} });

# S3 as an origin: the rest of an object, and what it refuses
my $bucket = $t->fake(on => {
    put => {},
    get => sub {
        my ($r) = @_;
        my $n = nth("s3$r->{path}");
        my ($name) = $r->{path} =~ m{([^/]+)$};
        return { status => 404, body => '<Error><Code>NoSuchKey</Code>'
            . '<Message>x</Message></Error>' } if $name eq 'none';
        return { status => 400, body => '<Error><Code>AuthorizationHeader'
            . 'Malformed</Code><Region>eu-x-9</Region></Error>' }
            if $name eq 'region' && $n == 1;
        return { status => 503, body => '<Error><Code>SlowDown</Code></Error>' }
            if $name eq 'slow' && $n == 1;
        return cut($etag) if $name =~ /^(cut|changed)$/ && $n == 1;
        return { status => 412 } if $name eq 'changed' && $n == 2;
        return rest($r) if $name eq 'cut';
        return whole($etag);
    },
});

$t->token(FAKE => "127.0.0.1:$fake->{port}", BUCKET_FAKE => $bucket->url);

my $n = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    s3_ingest_max 2;
    s3_memory 64m;
    server {
        listen 127.0.0.1:%%PORT%%;
        %%S3%%
        s3_part_size 5m;
        s3_tries 3;
        s3_ingest_allow 127.0.0.1;
        location /get/ {
            rewrite ^/get(/.*) $1 break;
            s3_ingest http://%%FAKE%%$uri get$uri;
        }
        location /impatient/ {
            rewrite ^/impatient(/.*) $1 break;
            s3_read_timeout 500ms;
            s3_tries 2;
            s3_retry_timeout 2s;
            s3_ingest http://%%FAKE%%$uri get$uri;
        }
        location /copy/ {
            rewrite ^/copy/(.*) /$1 break;
            s3_ingest s3://%%BUCKET%%$uri copy$uri;
        }
        location /s3/ {
            s3_endpoint %%BUCKET_FAKE%%;
            rewrite ^/s3/(.*) /$1 break;
            s3_ingest s3://source$uri to$uri;
        }
        location /keys/ { s3_ingest s3://%%BUCKET%%/$arg_key x; }
        location /status/ { s3_status list cancel; }
    }
}
EOF
$t->expect_errors(qr/s3 ingest from "[^"?]+" failed: /);

sub pull {
    my ($path, %o) = @_;
    return curl($n->url($path), method => 'POST', %o);
}

sub refused {
    my ($path, $want, $message) = @_;
    my $r = pull($path);
    is("$r->{status} " . ($r->{json}{error} || ''), $want, "$path: $want")
        or diag explain $r;
    like($r->{json}{message}, $message, 'its message') if $message;
    my $record = curl($n->url('/status/' . $r->{headers}{'x-transfer-id'}));
    is($record->{json}{state}, 'failed', 'the record');
    is($record->{json}{error}, substr($r->{json}{message}, 0, 256),
        'and its error');
    return $r;
}

sub asked {
    my ($path) = @_;
    return grep { $_->{path} eq $path } $fake->requests('get');
}

# kept: the rest was fetched, and what came before it was of use
sub goes_on {
    my ($name, $kept, $requests) = @_;
    subtest $name => sub {
        my $from = time;
        my $r = pull("/get/$name");
        is($r->{status}, 201, 'stored') or diag explain $r;
        is_deeply([$s3->sha256("get/$name")], [$sum, $size],
            'what S3 holds');
        is($r->{json}{bytesTransferred}, $size, 'the count');
        is($r->{json}{totalBytes}, $size, 'the total');
        my @asked = asked("/$name");
        is(scalar @asked, $requests, 'requests');
        my ($log) = $n->log =~ /(transfer is aborted, .*\/$name")/;
        if ($kept) {
            is($asked[1]{headers}{range}, "bytes=$sent-", 'Range')
                if $name ne 'chunked';
            is($asked[1]{headers}{'if-range'}, '"one"', 'If-Range');
            is($log, undef, 'one attempt');
        } else {
            is($asked[-1]{headers}{range}, undef, 'no Range at last')
                if $name ne 'ignores';
            like($log, qr/\Q$r->{json}{transferId}\E/,
                'the former attempt is aborted');
        }
        cmp_ok($r->{json}{attempt}, '>', 1, 'its attempt');
    };
}

goes_on($_, 1, 2) for qw/ resumed chunked /;
goes_on('again', 1, 4);
goes_on($_, 0, 2) for qw/ weak bare no_ranges ignores /;
goes_on($_, 0, 3) for sort keys %wrong;

subtest 'before the first byte' => sub {
    my $r = pull('/get/busy');
    is($r->{status}, 201, '503, then all is well');
    cmp_ok($r->{seconds}, '>=', 2, 'Retry-After');
    is(pull("/get/$_")->{status}, 201, $_) for qw/ odd late trickle more /;
    is($s3->get('get/late'), 'late', 'what S3 holds');
    is($s3->get('get/more'), 'abc', 'no byte beyond the length');
    is(pull('/get/said')->{status}, 201, 'another answer of the same length');
    my $said = $s3->head('get/said');
    is($said->{'content-type'}, 'text/x-2', 'has its own fields');
    like($said->{'x-amz-meta-origin-last-modified'}, qr/02 Jan/, 'all of them');
};

subtest 'given up' => sub {
    refused('/get/403', '502 OriginStatus', qr/answered 403/);
    is(scalar(my @one = asked('/403')), 1, 'asked once');
    refused('/impatient/long', '502 OriginStatus', qr/answered 503/);
    is(scalar(my @long = asked('/long')), 2,
        'asked again at the end of s3_retry_timeout');
    refused('/get/garbage', '502 OriginUnavailable');
    refused('/get/huge', '413 EntityTooLarge');
    refused('/get/breaks', '502 OriginBroken');
    is(scalar(my @three = asked('/breaks')), 3,
        'asked three times: bytes that came before are no progress');
    is($s3->head('get/breaks'), undef, 'no object');
    refused('/impatient/silent', '504 OriginTimeout', qr/timed out/);
    refused('/impatient/stalls', '504 OriginTimeout', qr/timed out/);
};

subtest 'as many as may' => sub {
    my @busy = map { curl_start($n->url("/get/$_"), method => 'POST') }
        qw/ silent stalls /;
    ok((wait_for { curl($n->url('/status/'), headers =>
        ['Accept: application/json'])->{json}{totals}{ingests} == 2 }),
        'two are under way');
    my $r = pull('/get/odd');
    is("$r->{status} $r->{json}{error}", '503 TooManyIngests', 'a third');
    is($r->{headers}{'retry-after'}, 5, 'Retry-After');
    my @ids = map { $_->{transferId} } grep { $_->{state} eq 'active' }
        @{curl($n->url('/status/'))->{json}{transfers}};
    curl($n->url("/status/$_"), method => 'DELETE') for @ids;
    is($_->wait->{status}, 409, 'cancelled') for @busy;
    is(pull('/get/odd')->{status}, 201, 'room again');
};

subtest 'from a bucket' => sub {
    for my $bytes (0, 1, PART + 1, 12 * MB) {
        my $d = data($bytes);
        $s3->put("from $bytes", read_file($d->{path}),
            'Content-Type' => 'text/x-from');
        my $r = pull("/copy/from%20$bytes");
        is($r->{status}, 201, "$bytes bytes") or diag explain $r;
        is_deeply([$s3->sha256("copy/from $bytes")], [$d->{sha256}, $bytes],
            'what S3 holds');
        is($s3->head("copy/from $bytes")->{'content-type'}, 'text/x-from',
            'Content-Type');
    }
    refused('/copy/missing', '502 OriginStatus', qr/404 NoSuchKey/);
    my $r = pull('/keys/x?key=a/../b');
    is("$r->{status} $r->{json}{error}", '400 InvalidOrigin', 'a bad key');
};

subtest 'from another S3' => sub {
    my $stored = sub {
        my ($name, $requests) = @_;
        my $r = pull("/s3/$name");
        is($r->{status}, 201, $name) or diag explain $r;
        my @asked = grep { $_->{path} =~ m{/$name$} } $bucket->requests('get');
        is(scalar @asked, $requests, 'requests');
        like($_->{headers}{authorization}, qr/^AWS4-HMAC-SHA256 /, 'signed')
            for @asked;
        return @asked;
    };
    my @asked = $stored->('cut', 2);
    is($asked[1]{headers}{range}, "bytes=$sent-", 'Range');
    is($asked[1]{headers}{'if-match'}, '"one"', 'If-Match');
    like($asked[1]{headers}{authorization}, qr/SignedHeaders=[^,]*if-match/,
        'which is signed');
    @asked = $stored->('changed', 3);
    is($asked[2]{headers}{range}, undef, 'another object: from the start');
    @asked = $stored->('region', 2);
    like($asked[1]{headers}{authorization}, qr{/eu-x-9/s3/}, 'its region');
    $stored->('slow', 2);
    refused('/s3/none', '502 OriginStatus', qr/bucket "source" answered 404/);
};
