#!/usr/bin/perl

# What S3 can do wrong, one location and one scripted S3 a case: the client is
# told the cause, the record has it, one line of the log says it, what can be
# tried again is, and no upload stays open. All cases run at the same time.

use strict;
use warnings;

use lib 't/lib';
use POSIX qw/ strftime /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;

use constant PART => 5 * MB;

my $t = S3T->new;
my $s3 = $t->s3;

my $small = data(1000);
my $large = data(PART + 1);       # two parts

my (@cases, %cases);
my $locations = '';

# case NAME => { on, conf, body, curl, endpoint, … what is to come of it }
sub case {
    my ($name, %c) = @_;
    if ($c{on}) {
        $c{port} ||= free_port();
        $c{fake} = $t->fake(port => $c{port}, on => $c{on});
        $c{endpoint} = $c{fake}->url;
    }
    $c{endpoint} ||= '%%RGW%%';
    $c{bucket} ||= $c{on} ? 'bucket' : $t->bucket;
    $c{conf} = join ' ', $c{conf} || (), 's3_part_concurrency '
        . ($c{parallel} || 1) . ';';
    $locations .= "        location /$name/ { s3_endpoint $c{endpoint};"
        . " s3_bucket $c{bucket}; $c{conf} s3_upload; }\n";
    $c{name} = $name;
    $c{body} ||= $small;
    $c{id} = sprintf 'faults-%010d', scalar @cases;
    push @cases, \%c;
    $cases{$name} = \%c;
}

sub error {
    my ($code, $more) = @_;
    return "<?xml version=\"1.0\"?>\n<Error><Code>$code</Code>"
        . '<Message>as scripted</Message>' . ($more || '') . '</Error>';
}

sub refusal {
    my ($status, $code, %o) = @_;
    return { status => $status, body => error($code), %o };
}

# An answer to HEAD: what the object says of the transfer that made it, as the
# fake on that port was told.
sub object {
    my ($port, $size, $change) = @_;
    my $seen = $t->dir . "/fake-$port/requests";
    return sub {
        my ($of) = read_file($seen) =~ /"x-amz-meta-transfer-id":"([^"]+)"/;
        $of = $change->($of) if ref $change;
        return { status => 200, headers => { ETag => '"of-the-object"',
            'Content-Length' => $size,
            'x-amz-meta-transfer-id' => $of
                . (defined $change && !ref $change ? $change : '') } };
    };
}

# the mark of an attempt that began a minute before
sub older { return $_[0] =~ s/\.(\d+)$/'.' . ($1 - 60_000)/er }

# An answer to HEAD for the time before the object could have been made: a look
# that a condition asks for finds nothing.
sub none_before {
    my ($op, $port, $then) = @_;
    my $begun = $t->dir . "/fake-$port/count.$op";
    return sub { -s $begun ? $then->(@_) : { status => 404 } };
}

my $slow_down = refusal(503, 'SlowDown');
my $denied = refusal(403, 'AccessDenied');
my $internal = refusal(500, 'InternalError');
my $lost = { close => 'before' };
my $gone = refusal(404, 'NoSuchUpload');
my $none = free_port();
my $port;


# A real S3's refusals, which no other try would change

my %refused = (
    'wrong-secret' => [403, 'SignatureDoesNotMatch',
        conf => 's3_credentials static testaccess another-secret;'],
    'unknown-key' => [403, 'InvalidAccessKeyId',
        conf => 's3_credentials static nobody another-secret;'],
    'missing-bucket' => [404, 'NoSuchBucket', bucket => 'no-such-bucket'],
);

$t->secret('another-secret');

for my $name (sort keys %refused) {
    my ($status, $code, %o) = @{$refused{$name}};
    case("$name-small", %o, status => 502, code => $code,
        message => qr/^PutObject failed: $status $code\b/,
        log => qr/request-id:\S/);
    case("$name-large", %o, body => $large, status => 502, code => $code,
        message => qr/^CreateMultipartUpload failed: $status $code\b/,
        log => qr/request-id:\S/);
}


# Connections. One that was kept and then closed is no try: these are new

my $new = 's3_keepalive 0;';

case('refused', endpoint => "http://127.0.0.1:$none", bucket => 'bucket',
    status => 502, code => 'BadGateway', log => qr/try 3 of 3/,
    message => qr/connect to 127\.0\.0\.1:$none .*Connection refused/);

case('closed-before', conf => $new, on => { part => [ { %$lost, read => 0 } ] },
    body => $large, count => { create => 1, part => 3, complete => 1 });

case('reset-before', conf => $new, on => { part => [ { close => 'reset',
        read => 0 } ] }, body => $large, count => { part => 3 });

case('reset-after', conf => $new, on => { part => [ {}, { close => 'reset' } ] },
    body => $large, count => { part => 3, complete => 1 });

# an answer that says so is no fault
case('not-kept', on => { map { $_ => { close => 'after' } }
        qw/ create part complete / }, body => data(3 * PART),
    count => { create => 1, part => 3, complete => 1 });

case('closed-within', conf => $new, on => { part => [ { read => MB, close => 'reset' } ] },
    body => $large, count => { part => 3, complete => 1 });

case('closed-after', conf => $new, on => { part => [ {}, $lost ] }, body => $large,
    count => { part => 3, complete => 1 });

case('closed-in-answer', conf => $new, on => { part => [ { cut => 30 } ] }, body => $large,
    count => { part => 3, complete => 1 });

case('closed-always', conf => $new, on => { part => $lost }, body => $large, status => 502,
    code => 'BadGateway', count => { part => 3, complete => 0, abort => 1 },
    message => qr/^UploadPart failed: .*closed the connection without an/);

case('answered-early', on => { part => [ { %$slow_down, read => 0,
        drain => 1 } ] }, body => $large, count => { part => 3 });

case('refused-early', on => { part => { %$denied, read => 100000,
        drain => 1 } }, body => $large, status => 502, code => 'AccessDenied',
    count => { part => 1, abort => 1 }, message => qr/403 AccessDenied/);

case('refused-and-closed', on => { part => { %$denied, read => 0 } },
    body => $large, status => 502, code => 'AccessDenied',
    count => { part => 1, abort => 1 }, message => qr/403 AccessDenied/);

case('success-early', on => { part => [ { read => 0, drain => 1 } ] },
    body => $large, count => { part => 3, complete => 1 });

case('garbage', on => { part => [ { raw => "SSH-2.0-server\r\n\r\n",
        close => 'after' } ] }, body => $large, count => { part => 3 });

case('garbage-always', on => { create => { raw => "SSH-2.0-server\r\n\r\n",
        close => 'after' } }, body => $large, status => 502,
    code => 'BadGateway', count => { create => 3, abort => 0 },
    message => qr/is not HTTP/);

case('huge-head', on => { put => { raw => "HTTP/1.1 200 OK\r\nx: "
        . 'x' x 300_000 . "\r\n\r\n", close => 'after' } }, status => 502,
    code => 'BadGateway', message => qr/is not HTTP: too long line in reply/,
    count => { put => 3, head => 1 });

case('huge-answer', on => { create => { body => '<a>' . 'x' x (2 * MB) } },
    body => $large, status => 502, code => 'BadGateway',
    count => { create => 3 }, message => qr/larger than 1048576 bytes/);

case('silent', on => { part => { delay => 30 } }, body => $large,
    conf => 's3_read_timeout 300ms; s3_tries 2;', status => 504,
    code => 'GatewayTimeout', count => { part => 0, abort => 1 },
    message => qr/timed out while it was to answer/);

case('silent-put', on => { put => { delay => 30 } },
    conf => 's3_read_timeout 300ms; s3_tries 2;', status => 504,
    code => 'GatewayTimeout', count => { put => 0, head => 1 },
    message => qr/^PutObject failed: .*timed out/);

# a byte now and then is no answer either (nginx moves a timer by no less than
# 300 ms)
my @drip = map { (1, $_) } split //, "HTTP/1.1 200 OK\r\nETag: \"" . 'e' x 50
    . "\"\r\nContent-Length: 0\r\n\r\n";

case('drip', on => { part => { pieces => \@drip } }, body => $large,
    conf => 's3_read_timeout 1500ms; s3_tries 1;', status => 504,
    code => 'GatewayTimeout', seconds => 15, count => { abort => 1 },
    message => qr/timed out while it was to answer/);

case('drip-interim', on => { put => { pieces => [ map { (1, $_) }
        ("HTTP/1.1 100 Continue\r\n\r\n") x 8, ("x: y\r\n") x 40 ] } },
    conf => 's3_read_timeout 1500ms; s3_tries 1;', status => 504, seconds => 15,
    code => 'GatewayTimeout', message => qr/timed out while it was to answer/);

case('drip-refusal', on => { part => { read => 0, pieces => [ map { (1, $_) }
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n",
        split //, 'x' x 99 ] } }, body => $large, seconds => 15,
    conf => 's3_read_timeout 1500ms; s3_tries 1;', status => 504,
    code => 'GatewayTimeout', message => qr/timed out while it was to answer/);

# but one that takes a while is
case('slow-answer', on => { part => { pieces => [ map { (0.7, $_) }
        "HTTP/1.1 200 OK\r\n", "ETag: \"e\"\r\n", "Content-Length: 0\r\n\r\n",
        ] } }, body => $large, conf => 's3_read_timeout 2s; s3_tries 1;',
    count => { part => 2, complete => 1 });

case('deaf', on => { put => { read => 1000, drain => 0, delay => 30 } },
    body => data(20 * MB), conf => 's3_send_timeout 300ms; s3_tries 2;'
    . ' s3_part_size 20m;', status => 504, code => 'GatewayTimeout',
    message => qr/timed out while it was sent a request/);

case('cut-complete', on => { complete => [ { cut => 180 } ] },
    body => $large, count => { complete => 2, head => 0 });

case('to-the-end', on => { complete => { close => 'after', raw =>
        "HTTP/1.0 200 OK\r\n\r\n<CompleteMultipartUploadResult><ETag>"
        . '&quot;of-http-1.0&quot;</ETag></CompleteMultipartUploadResult>' } },
    body => $large, count => { complete => 1 }, etag => '"of-http-1.0"');

# XML that is a trap

my $bomb = "<?xml version=\"1.0\"?>\n<!DOCTYPE a [<!ENTITY a0 \"boom\">"
    . join('', map { "<!ENTITY a$_ \"" . ('&a' . ($_ - 1) . ';') x 20 . '">' }
        1 .. 9) . ']>';
my %trap = (
    bomb => "$bomb<InitiateMultipartUploadResult><UploadId>&a9;</UploadId>"
        . '</InitiateMultipartUploadResult>',
    outside => '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        . '<InitiateMultipartUploadResult><UploadId>&x;</UploadId>'
        . '</InitiateMultipartUploadResult>',
    deep => '<a>' x 300_000,
    text => '<InitiateMultipartUploadResult><Bucket>' . 'x' x 900_000
        . '</Bucket></InitiateMultipartUploadResult>',
    tag => '<' . 'x' x 900_000,
    twice => '<InitiateMultipartUploadResult><UploadId>u</UploadId>'
        . '</InitiateMultipartUploadResult><a/>',
    encoding => '<?xml version="1.0" encoding="UTF-16"?>'
        . '<InitiateMultipartUploadResult><UploadId>u</UploadId>'
        . '</InitiateMultipartUploadResult>',
);

for my $name (sort keys %trap) {
    case("trap-$name", on => { create => { body => $trap{$name} } },
        body => $large, status => 502, code => 'BadGateway',
        count => { create => 3, part => 0, abort => 0 },
        message => qr/200 "S3 answered without UploadId"/);
}

case('trap-id', on => { create => { body => '<InitiateMultipartUploadResult>'
        . '<UploadId>' . 'u' x 2000 . '</UploadId>'
        . '</InitiateMultipartUploadResult>' } }, body => $large,
    status => 502, code => 'BadGateway', count => { create => 3 },
    message => qr/with too long an UploadId/);

# what ends a line of a log or of our answer
case('trap-line', on => { create => { body => '<InitiateMultipartUploadResult>'
        . '<UploadId>u&#10;2026/01/01 00:00:00 [emerg] 1#1: a lie</UploadId>'
        . '</InitiateMultipartUploadResult>' } }, body => $large,
    status => 502, code => 'BadGateway', count => { create => 3 },
    message => qr/200 "S3 answered with a malformed UploadId"/);

$port = free_port();
case('trap-field', port => $port, body => $large, on => { complete => { body =>
        '<CompleteMultipartUploadResult><ETag>"e"&#13;&#10;X-Evil: 1</ETag>'
        . '</CompleteMultipartUploadResult>' }, head => object($port, PART + 1) },
    count => { complete => 1, head => 1 }, etag => '"of-the-object"');

case('trap-error', on => { put => { status => 400, body => "$bomb<Error><Code>"
        . '&a9;</Code></Error>' } }, status => 502, code => 'BadGateway',
    count => { put => 1 }, message => qr/^PutObject failed: 400$/);

case('trap-code', on => { put => { status => 400, body => '<Error><Code>'
        . 'c' x 500 . '</Code><Message>' . 'm' x 700_000
        . '</Message></Error>' } }, status => 502, code => 'BadGateway',
    count => { put => 1 }, message => qr/^PutObject failed: 400$/);

case('trap-complete', on => { complete => [ { body => $bomb
        . '<CompleteMultipartUploadResult><ETag>&a9;</ETag>'
        . '</CompleteMultipartUploadResult>' } ] }, body => $large,
    count => { complete => 2 });

case('one-of-many', on => { part => sub {
        $_[0]{query}{partNumber} == 2 ? $denied : { delay => 3 };
    } }, body => data(20 * MB), parallel => 4,
    status => 502, code => 'AccessDenied', message => qr/403 AccessDenied/,
    count => { abort => 1, complete => 0 });

case('idle-closed', on => { put => sub { $_[0]{number} == 1 ? {} : $lost } },
    conf => 's3_tries 1; s3_keepalive_timeout 60s;', count => { put => 1 });


# Answers that are errors

case('slow-down', on => { part => [ $slow_down, $slow_down ] },
    body => $large, count => { part => 4, complete => 1 });

case('slow-down-always', on => { part => { %$slow_down,
        headers => { 'Retry-After' => 1 } } }, body => $large, status => 503,
    code => 'SlowDown', count => { part => 3, abort => 1 },
    conf => 's3_retry_timeout 4s;', message => qr/503 SlowDown/,
    retry_after => 1);

case('create-fails', on => { create => $internal }, body => $large,
    status => 502, code => 'InternalError',
    count => { create => 3, part => 0, abort => 0 },
    message => qr/^CreateMultipartUpload failed: 500 InternalError "as scrip/,
    log => qr/request-id:fake, try 3 of 3/);

# S3 may say 200 first and then think better of it
case('error-under-200', on => { part => [ { headers => { ETag => '"e"' },
        body => error('InternalError') } ] }, body => $large,
    count => { part => 3, complete => 1 });

case('error-under-200-always', on => { put => { headers => { ETag => '"e"' },
        body => error('AccessDenied') } }, status => 502,
    code => 'AccessDenied', count => { put => 1 },
    message => qr/^PutObject failed: 200 AccessDenied/);

case('interim', on => { put => { raw => ("HTTP/1.1 100 Continue\r\n\r\n") x 2
        . "HTTP/1.1 200 OK\r\nETag: \"after-100\"\r\nContent-Length: 0"
        . "\r\n\r\n" } }, count => { put => 1 }, etag => '"after-100"');

case('interim-without-end', on => { put => { raw =>
        "HTTP/1.1 100 Continue\r\n\r\n" x 20 } }, status => 502,
    code => 'BadGateway', count => { put => 3, head => 1 },
    message => qr/is not HTTP: too many interim replies/);

case('many-fields', on => { put => { raw => "HTTP/1.1 200 OK\r\n"
        . "x: y\r\n" x 100_000 } }, status => 502, code => 'BadGateway',
    count => { put => 3 }, message => qr/is not HTTP: too /);

case('too-slow', on => { part => [ refusal(400, 'RequestTimeout') ] },
    body => $large, count => { part => 3 });

case('create-empty', on => { create => [ { body => '' } ] }, body => $large,
    count => { create => 2, complete => 1 });

case('no-etag', on => { part => [ { headers => { ETag => undef } } ] },
    body => $large, count => { part => 3, complete => 1 });

case('no-etag-ever', on => { part => { headers => { ETag => undef } } },
    body => $large, status => 502, code => 'BadGateway',
    count => { part => 3, abort => 1 }, message => qr/without ETag/);

case('echo', on => { put => { status => 403, body => '<Error><Code>Denied'
        . '</Code><Message>AWS4-HMAC-SHA256 Credential=me, Signature=beef'
        . '</Message></Error>' } }, status => 502, code => 'Denied',
    message => qr/^PutObject failed: 403 Denied$/, count => { put => 1 });

case('redirect', on => { put => { status => 307, headers => { Location =>
        "http://127.0.0.1:$none/" }, body => error('TemporaryRedirect') } },
    status => 502, code => 'TemporaryRedirect', count => { put => 1 },
    message => qr/307 TemporaryRedirect/);

case('tries', on => { put => $slow_down }, conf => 's3_tries 2;',
    status => 503, code => 'SlowDown', count => { put => 2, head => 1 },
    message => qr/503 SlowDown/, retry_after => 5);

case('one-try', on => { put => $slow_down }, conf => 's3_tries 1;',
    status => 503, code => 'SlowDown', count => { put => 1 },
    message => qr/503 SlowDown/);

case('time', on => { put => $internal },
    conf => 's3_tries 1000; s3_retry_timeout 1s;', status => 502,
    code => 'InternalError', message => qr/500 InternalError/,
    log => qr/try \d+ of 1000\b/);


# Clock, region and keys are corrected once

case('clock', on => { put => sub {
        my ($r) = @_;
        my $date = strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime time + 3600);
        my $ours = strftime('%Y%m%dT%H', gmtime time);
        return $r->{headers}{'x-amz-date'} =~ /^$ours/
            ? refusal(403, 'RequestTimeTooSkewed', headers => { Date => $date })
            : {};
    } }, count => { put => 2 });

case('clock-always', on => { put => refusal(403, 'RequestTimeTooSkewed',
        headers => { Date => 'Tue, 01 Jan 2030 00:00:00 GMT' }) },
    status => 502, code => 'RequestTimeTooSkewed', count => { put => 2 },
    message => qr/403 RequestTimeTooSkewed/);

my %region = (
    301 => [ 'PermanentRedirect', headers =>
        { 'x-amz-bucket-region' => 'eu-west-9',
        Location => "http://127.0.0.1:$none/" } ],
    307 => [ 'TemporaryRedirect', headers =>
        { 'x-amz-bucket-region' => 'eu-west-9',
        Location => "http://127.0.0.1:$none/" } ],
    400 => [ 'AuthorizationHeaderMalformed', body =>
        error('AuthorizationHeaderMalformed', '<Region>eu-west-9</Region>') ],
);

for my $status (sort keys %region) {
    case("region-$status", on => { create => sub {
            my ($r) = @_;
            return $r->{headers}{authorization} =~ m{/eu-west-9/s3/} ? {}
                : refusal($status, @{$region{$status}});
        } }, body => $large, count => { create => 2, complete => 1 });
}

# in the middle of an upload
case('region-part', on => { part => sub {
        my ($r) = @_;
        return $r->{headers}{authorization} =~ m{/eu-west-9/s3/} ? {}
            : refusal(307, @{$region{307}}, read => 0);
    } }, body => data(3 * PART), parallel => 3,
    count => { create => 1, complete => 1 });

case('clock-part', on => { part => sub {
        my ($r) = @_;
        my $date = strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime time + 3600);
        my $ours = strftime('%Y%m%dT%H', gmtime time);
        return $r->{headers}{'x-amz-date'} =~ /^$ours/
            ? refusal(403, 'RequestTimeTooSkewed', headers => { Date => $date })
            : {};
    } }, body => data(3 * PART), parallel => 3,
    count => { create => 1, complete => 1 });

case('region-always', on => { put => refusal(301, 'PermanentRedirect',
        headers => { 'x-amz-bucket-region' => 'eu-west-9' }) },
    status => 502, code => 'PermanentRedirect', count => { put => 2 },
    message => qr/301 PermanentRedirect/);

case('expired', on => { put => refusal(400, 'ExpiredToken') }, status => 502,
    code => 'ExpiredToken', count => { put => 2 },
    message => qr/400 ExpiredToken/);

case('expired-part', on => { part => [ {}, refusal(400, 'ExpiredToken') ] },
    body => $large, count => { part => 3, complete => 1 });


# Checksums that S3 finds wrong: on the way to it, or in what it has put together

case('bad-digest', conf => 's3_checksum crc32;', body => $large,
    on => { part => [ refusal(400, 'BadDigest') ] },
    count => { part => 3, complete => 1 });

case('bad-object', conf => 's3_checksum crc32;', body => $large, status => 502,
    on => { complete => refusal(400, 'BadDigest') }, code => 'BadDigest',
    message => qr/^CompleteMultipartUpload failed: 400 BadDigest/,
    count => { complete => 1, head => 0, abort => 1 });


# Complete, and answers that were lost

# 200, white space, and an error only then
my $late = { pieces => [ 0, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    . "Content-Type: application/xml\r\n\r\n", 0.2, "3\r\n   \r\n", 0.2,
    sprintf("%x\r\n%s\r\n0\r\n\r\n", length error('InternalError'),
    error('InternalError')) ] };

case('late-error', on => { complete => [ $late ] }, body => $large,
    count => { complete => 2, head => 0, abort => 0 });

case('late-always', on => { complete => $late }, body => $large,
    status => 502, code => 'InternalError', count => { complete => 3,
    head => 1, abort => 1 }, message => qr/^CompleteMultipartUpload failed: 20/);

case('complete-empty', on => { complete => [ { body => '' } ] },
    body => $large, count => { complete => 2 });

$port = free_port();
case('no-result-etag', port => $port, body => $large,
    on => { complete => { body => '<CompleteMultipartUploadResult>'
        . '<Key>k</Key></CompleteMultipartUploadResult>' },
        head => object($port, PART + 1) },
    count => { complete => 1, head => 1 }, etag => '"of-the-object"');

$port = free_port();
case('lost-ours', port => $port, body => $large,
    on => { complete => [ $lost, $gone ], head => object($port, PART + 1) },
    count => { complete => 2, head => 1, abort => 0 }, errors => 1,
    etag => '"of-the-object"');

# 500 in the place of NoSuchUpload, as some servers answer; or each time
my %failing = (once => [ $lost, $internal, $internal ], always => $internal);
my $once = 's3_keepalive 0;';       # a kept connection's loss is no try

for my $how (sort keys %failing) {
    for my $size (PART + 1, PART) {
        $port = free_port();
        case("lost-500-$how-older-$size", port => $port, body => $large,
            on => { complete => $failing{$how},
                head => object($port, $size, \&older) },
            status => 502, code => 'InternalError', conf => $once,
            message => qr/^CompleteMultipartUpload failed: 500 InternalError/,
            count => { complete => 3, head => 1, abort => 1 });
    }

    $port = free_port();
    case("lost-500-$how-ours", port => $port, body => $large, errors => 1,
        conf => $once, on => { complete => $failing{$how}, head => object($port, PART + 1) },
        count => { complete => 3, head => 1, abort => 0 },
        etag => '"of-the-object"');

    case("lost-500-$how-none", body => $large, conf => $once, on =>
        { complete => $failing{$how} }, status => 502, code => 'InternalError',
        message => qr/^CompleteMultipartUpload failed: 500 InternalError/,
        count => { complete => 3, head => 1, abort => 1 });

    case("lost-500-$how-unseen", body => $large, errors => 3, conf => $once,
        on => { complete => $failing{$how}, head => { status => 403 } },
        status => 502, code => 'unknown_outcome', message => qr/may exist/,
        count => { complete => 3, head => 1, abort => 0 });
}

# the same id, key and size, and other bytes: an attempt of a minute ago
$port = free_port();
case('lost-older', port => $port, body => $large,
    on => { complete => [ $lost, $gone ],
        head => object($port, PART + 1, \&older) },
    status => 502, code => 'NoSuchUpload', message => qr/404 NoSuchUpload/,
    count => { complete => 2, head => 1, abort => 1 });

$port = free_port();
case('lost-other', port => $port, body => $large,
    on => { complete => [ $lost, $gone ],
        head => object($port, PART + 1, '0') },
    status => 502, code => 'NoSuchUpload', message => qr/404 NoSuchUpload/,
    count => { complete => 2, head => 1, abort => 1 });

$port = free_port();
case('lost-size', port => $port, body => $large,
    on => { complete => [ $lost, $gone ], head => object($port, PART) },
    status => 502, code => 'NoSuchUpload', message => qr/404 NoSuchUpload/,
    count => { complete => 2, head => 1, abort => 1 });

case('lost-none', body => $large, on => { complete => [ $lost, $gone ] },
    status => 502, code => 'NoSuchUpload', message => qr/404 NoSuchUpload/,
    count => { complete => 2, head => 1, abort => 1 });

case('lost-unseen', body => $large, errors => 3,
    on => { complete => [ $lost, $gone ], head => { status => 403 } },
    status => 502, code => 'unknown_outcome', message => qr/may exist; .*404/,
    count => { complete => 2, head => 1, abort => 0 });

case('lost-put', on => { put => [ $lost ] }, count => { put => 2, head => 0 });

$port = free_port();
case('lost-put-ours', port => $port, conf => 's3_tries 1;', errors => 1,
    on => { put => $lost, head => object($port, 1000) },
    count => { put => 1, head => 1 }, etag => '"of-the-object"');

case('lost-put-none', conf => 's3_tries 1;', on => { put => $lost },
    status => 502, code => 'BadGateway', count => { put => 1, head => 1 },
    message => qr/closed the connection without an answer/);

case('lost-put-unseen', conf => 's3_tries 1;', errors => 3,
    on => { put => $lost, head => { status => 403 } }, status => 502,
    code => 'unknown_outcome', count => { put => 1, head => 1 },
    message => qr/may exist/);


# Conditions

my @new = (headers => [ 'If-None-Match: *' ]);
my $failed = refusal(412, 'PreconditionFailed');

case('condition-small', curl => \@new, on => { put => $failed },
    status => 412, code => 'PreconditionFailed', message => qr/412/,
    count => { put => 1 });

case('condition-large', curl => \@new, on => { complete => $failed },
    body => $large, status => 412, code => 'PreconditionFailed',
    message => qr/412/, count => { complete => 1, head => 2, abort => 1 });

case('condition-conflict', curl => \@new, body => $large, status => 409,
    on => { complete => refusal(409, 'ConditionalRequestConflict') },
    code => 'ConditionalRequestConflict', message => qr/409/,
    count => { complete => 1, head => 2, abort => 1 });

$port = free_port();
case('condition-lost', port => $port, curl => \@new, errors => 1,
    on => { put => [ $lost, $failed ],
        head => none_before('put', $port, object($port, 1000)) },
    count => { put => 2 }, etag => '"of-the-object"');

$port = free_port();
case('condition-lost-other', port => $port, curl => \@new, status => 412,
    on => { put => [ $lost, $failed ],
        head => none_before('put', $port, object($port, 1000, '0')) },
    code => 'PreconditionFailed', message => qr/412/, count => { put => 2 });

case('condition-real', curl => \@new, status => 412, errors => 0,
    code => 'PreconditionFailed', message => qr/^the object exists$/);


# Clients

case('still-sending', on => { create => $denied }, manual => 1, errors => 1);

case('error-page', on => { create => $denied }, manual => 1, errors => 1,
    conf => 'error_page 502 =503 /sorry;');

case('left-early', on => { create => { delay => 1 } }, manual => 1,
    errors => 0);

case('abort-again', on => { abort => [ $internal, $internal ] },
    manual => 1, errors => 0);

case('abort-never', on => { abort => $internal }, manual => 1, errors => 1);


my $n = $t->nginx(<<"EOF");
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        s3_credentials static testaccess testsecret;
        s3_part_size 5m;
        s3_tries 3;
        s3_transfer_id \$arg_id;
        location /transfers/ { s3_status; }
        location /sorry { return 200 "of the error page"; }
$locations
    }
}
EOF

sub record {
    my ($id) = @_;
    return curl($n->url("/transfers/$id"))->{json};
}

sub upload {
    my ($c, $key, %o) = @_;
    return curl_start($n->url("/$c->{name}/$key?id=" . ($o{id} || $c->{id})),
        file => $c->{body}, %{{ @{$c->{curl} || []} }}, %o);
}

# [error] lines about a case
sub errors {
    my ($c) = @_;
    return grep { m{\[error\].*"\Q$c->{name}\E/x"} }
        split /\n/, $n->log;
}

# (where parts were under way, an abort is repeated seconds later: it is one)
sub counts {
    my ($c) = @_;
    my %n = map { $_ => scalar $c->{fake}->requests($_) } keys %{$c->{count}};
    $n{abort} = 1 if $n{abort};
    return \%n;
}

for my $c (@cases) {
    next if defined $c->{errors} && !$c->{errors};
    next if !defined $c->{status} && !$c->{errors};
    $t->expect_errors(qr{"\Q$c->{name}\E/x"});
}
$t->expect_errors(qr/the multipart upload "fake-\S+" is not aborted/);

$s3->put('condition-real/x', 'the former');
$_->{started} = upload($_, 'x') for grep { !$_->{manual} } @cases;

sub check {
    my ($c) = @_;
    my $status = $c->{status} || 201;
    my $r = $c->{response} = $c->{started}->wait;
    my $record = record($c->{id});

    is($r->{status}, $status, 'status') or diag explain $r;
    is($r->{headers}{'x-transfer-id'}, $c->{id}, 'X-Transfer-Id');

    if ($status == 201) {
        is("$record->{state} $record->{bytesStored}",
            "completed $c->{body}{size}", 'the record');
    } else {
        is($r->{json}{error}, $c->{code}, 'error');
        like($r->{json}{message}, $c->{message}, 'message');
        is($r->{json}{transferId}, $c->{id}, 'transferId');
        is($r->{headers}{'content-type'}, 'application/json', 'JSON');
        is("$record->{state} $record->{error}", "failed $r->{json}{message}",
            'the record has its cause');
    }

    is($r->{headers}{etag}, $c->{etag}, 'ETag') if $c->{etag};
    cmp_ok($r->{seconds}, '<', $c->{seconds}, 'bounded') if $c->{seconds};
    is($r->{headers}{'retry-after'}, $c->{retry_after}, 'Retry-After')
        if $c->{retry_after};

    if ($c->{count}) {
        my $same = sub { !grep { $_[0]{$_} != $c->{count}{$_} } keys %{$_[0]} };
        wait_for { $same->(counts($c)) } 5;
        is_deeply(counts($c), $c->{count}, 'requests');
    }

    my $errors = defined $c->{errors} ? $c->{errors} : $status == 201 ? 0 : 1;
    my @errors = errors($c);
    is(scalar @errors, $errors, 'lines of the log') or diag explain \@errors;
    like($errors[0], $c->{log}, 'the line') if $c->{log};
    like($errors[0], qr/ bucket: ?"?\Q$c->{bucket}\E\b/, 'it names the bucket')
        if $errors;
}

for my $c (grep { !$_->{manual} } @cases) {
    subtest $c->{name} => sub { check($c) };
}

is_deeply([$s3->keys], ['condition-real/x'], 'no object appeared in S3');
is($s3->get('condition-real/x'), 'the former', 'the former stays');

sub requests {
    my ($name, $op) = @_;
    return $cases{$name}{fake}->requests($op);
}

subtest 'tries take another connection' => sub {
    for my $name (qw/ answered-early no-etag slow-down closed-within
        success-early garbage too-slow bad-digest /)
    {
        my @tried = requests($name, 'part');
        isnt($tried[0]{connection}, $tried[1]{connection}, $name);
        is($tried[0]{query}{partNumber}, $tried[1]{query}{partNumber},
            "$name: the same part");
        my ($part) = grep { $_->{query}{partNumber} == 1 && $_->{whole} }
            reverse @tried;
        is($part->{length}, PART, "$name: whole");
    }

    my %connections = map { $_->{connection} => 1 } requests('not-kept');
    is(scalar keys %connections, 5, 'nor goes anything over one that S3 closes');

    my ($part) = requests('refused-early', 'part');
    my ($abort) = requests('refused-early', 'abort');
    isnt($part->{connection}, $abort->{connection},
        'nothing follows a body that was cut short');

    my ($first, @tried) = map { $_->{time} } requests('slow-down-always',
        'part');
    cmp_ok($tried[0] - $first, '>=', 0.99, 'Retry-After is waited for');
};

subtest 'what a try is' => sub {
    my $c = $cases{'idle-closed'};
    my $r = upload($c, 'x', id => "$c->{id}-2")->wait;
    is($r->{status}, 201, 'a kept connection that S3 closed is not one');
    wait_for { $c->{fake}->requests == 3 };
    is_deeply([map { $_->{number} } $c->{fake}->requests], [1, 2, 1],
        'the request went once more, over a new connection');

    my @tries = requests('time', 'put');
    cmp_ok(scalar @tries, '>', 1, 's3_retry_timeout: tried again');
    cmp_ok($tries[-1]{time} - $tries[0]{time}, '<=', 5, 'and not for ever');
};

subtest 'clock, region and keys' => sub {
    my ($before, $after) = map { $_->{headers}{'x-amz-date'} }
        requests('clock', 'put');
    isnt(substr($before, 0, 11), substr($after, 0, 11), 'the clock of S3');

    for my $name (qw/ clock region-301 region-400 /) {
        my $c = $cases{$name};
        my $r = upload($c, 'x', id => "$c->{id}-2")->wait;
        is($r->{status}, 201, "$name: the next upload");
        my ($op) = $c->{count}{put} ? 'put' : 'create';
        ok(wait_for(sub { $c->{fake}->requests($op) == 3 }), 'knows it');
    }
    like($_->{headers}{authorization}, qr{/eu-west-9/s3/aws4_request},
        "signed for the region: $_->{op}")
        for (requests('region-400'))[1 .. 4];
};

is($cases{'trap-field'}{response}{headers}{'x-evil'}, undef,
    'S3 sets no header of ours');

subtest 'conditions' => sub {
    is($_->{headers}{'if-none-match'}, '*', "If-None-Match: $_->{op}")
        for requests('condition-small', 'put'),
        requests('condition-large', 'complete');
};

subtest 'a client that is still sending' => sub {
    my $c = $cases{'still-sending'};
    my $body = read_file(data(33 * MB)->{path});
    for my $tls (0, 1) {
        my $raw = $t->raw($n->port($tls ? 'tls' : undef),
            $tls ? (tls => $t->ca) : ());
        my $before = () = $c->{fake}->requests('create');
        ok($raw->send("PUT /still-sending/x HTTP/1.1\r\nHost: x\r\n"
            . "Content-Length: 34603008\r\n\r\n" . substr $body, 0, 100000),
            'a head and the first bytes');
        wait_for { $c->{fake}->requests('create') > $before };
        ok($raw->send(substr $body, 100000), 'all of the body was taken');
        my $r = $raw->response;
        is($r->{status}, 502, 'status');
        like($r->{body}, qr/"error":"AccessDenied"/, 'the answer is there');
    }

    my $r = upload($c, 'x', file => data(33 * MB), id => 'h' x 16)->wait;
    is("$r->{status} $r->{json}{error}", '502 AccessDenied', 'curl')
        or diag explain $r;
    $r = h2_put($n->port('h2'), '/still-sending/x', data(33 * MB));
    is("$r->{status} $r->{json}{error}", '502 AccessDenied', 'HTTP/2')
        or diag explain $r;
};

subtest 'error_page' => sub {
    for my $o ({}, { chunked => 1 }) {
        my $r = upload($cases{'error-page'}, 'x', file => data(33 * MB), %$o,
            id => 'page' x 4 . join '', keys %$o)->wait;
        is("$r->{status} $r->{body}", '503 of the error page',
            'in the place of the JSON error');
    }
};

subtest 'a client that left while the upload was created' => sub {
    my $c = $cases{'left-early'};
    my $raw = $t->raw($n->port);
    $raw->send("PUT /left-early/x?id=$c->{id} HTTP/1.1\r\nHost: x\r\n"
        . "Content-Length: 20000000\r\n\r\n" . 'x' x 1000);
    ok(wait_for(sub { $c->{fake}->begun('create') }), 'on its way');
    $raw->close;
    ok(wait_for(sub { record($c->{id})->{state} eq 'aborted' }), 'the record');
    is(scalar $c->{fake}->requests('abort'), 0, 'S3 has not answered');
    ok(wait_for(sub { $c->{fake}->requests('abort') == 1 }), 'then aborted');
};

subtest 'a client that left, and aborts that fail' => sub {
    for my $name (qw/ abort-again abort-never /) {
        my $c = $cases{$name};
        my $raw = $t->raw($n->port);
        $raw->send("PUT /$name/x?id=$c->{id} HTTP/1.1\r\nHost: x\r\n"
            . "Content-Length: 20000000\r\n\r\n" . 'x' x PART);
        ok(wait_for(sub { $c->{fake}->requests('part') }), 'a part is stored');
        $raw->close;
        ok(wait_for(sub { $c->{fake}->requests('abort') == 3 }),
            "$name: three tries to abort") or diag explain
            [map { $_->{op} } $c->{fake}->requests];
        is(record($c->{id})->{state}, 'aborted', 'the record');
        is(scalar requests($name, 'complete'), 0, 'never completed');
    }
    ok(wait_for(sub { errors($cases{'abort-never'}) == 1 }),
        'the log says that it stays open');
    is(scalar errors($cases{'abort-again'}), 0, 'only then');
};

subtest 'a client that left while Create waits for its next try' => sub {
    my $busy = $t->fake(on => { create => refusal(503, 'SlowDown',
        headers => { 'Retry-After' => 60 }) });
    $t->token(BUSY => $busy->url);
    my $of = $t->nginx(<<'EOC');
%%MAIN%%
http {
    %%HTTP%%
    s3_endpoint %%BUSY%%;
    s3_bucket bucket;
    s3_credentials static k s;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { s3_upload; }
    }
}
EOC
    my $raw = $t->raw($of->port);
    $raw->send("PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\nx");
    ok(wait_for(sub { $of->log =~ /Create.*next in/ }), 'it waits');
    $raw->close;
    ok(wait_for(sub { $of->log =~ /transfer is aborted/ }), 'the client left');
    ok($of->quit(5), 'so that the worker can leave at once');
    is(scalar $busy->requests('create'), 1, 'there is no other try');
};
