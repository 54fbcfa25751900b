package S3T::Schedule;

# What S3 can do wrong, one location and one scripted S3 a case, and what is to
# come of it, whichever door a body comes through.
#
#   my $s = S3T::Schedule->new($t, name => 'pull', door => sub {
#       my ($c) = @_;
#       return "s3_ingest http://%%ORIGIN%%/$c->{body}{size};";
#   });
#   $s->table;                         # or some of it: $s->case(NAME, ...)
#   my $n = $t->nginx("... $s->{locations} ...");    # ids come as $arg_id
#   $s->expect;                        # its lines in the log
#   ... begin all of $s->cases at the same time
#   for my $c ($s->cases) { subtest $c->{name} => sub {
#       $s->answered($c, $response);   # that of an upload or a pull
#       $s->followed($c);              # what S3 saw, what the log says
#   } }
#
# A case: on (of S3T::Fake), conf, body (of data()), endpoint, bucket, parallel
# (parts), condition (no object may be replaced); and what is to come of it:
# status (201), code, message, etag, retry_after of the answer, seconds (at most),
# count (of requests, by operation), errors (lines of the log), log (the line).

use strict;
use warnings;

use Exporter 'import';
use POSIX qw/ strftime /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Fake qw/ hours_ahead /;

our @EXPORT_OK = qw/ error refusal /;

use constant PART => 5 * MB;

my ($small, $large);
my $lost = { close => 'before' };
my $none;                              # a port where nobody listens

# name: of the door, before the names of all cases; door(case): directives of
# its location
sub new {
    my ($class, $t, %o) = @_;
    my $s = bless { t => $t, name => '', cases => [], by => {},
        locations => '', %o }, $class;
    $none ||= free_port();
    $small ||= data(1000);
    $large ||= data(PART + 1);         # two parts
    return $s;
}

sub case {
    my ($s, $name, %c) = @_;
    $name = "$s->{name}-$name" if $s->{name};
    if ($c{on}) {
        $c{port} ||= free_port();
        $c{fake} = $s->{t}->fake(port => $c{port}, on => $c{on});
        $c{endpoint} = $c{fake}->url;
    }
    $c{endpoint} ||= '%%RGW%%';
    $c{bucket} ||= $c{on} ? 'bucket' : $s->{t}->bucket;
    $c{conf} = join ' ', $c{conf} || (), 's3_part_concurrency '
        . ($c{parallel} || 1) . ';';
    $c{name} = $name;
    $c{body} ||= $small;
    $c{id} = sprintf 'faults%s-%010d', $s->{name}, scalar @{$s->{cases}};
    $s->{locations} .= "        location /$name/ { s3_endpoint $c{endpoint};"
        . " s3_bucket $c{bucket}; $c{conf} " . $s->{door}->(\%c) . " }\n";
    push @{$s->{cases}}, \%c;
    $s->{by}{$name} = \%c;
}

sub cases { return @{$_[0]{cases}} }

# that of a name, without the door's
sub of {
    my ($s, $name) = @_;
    return $s->{by}{$s->{name} ? "$s->{name}-$name" : $name};
}

sub requests {
    my ($s, $name, $op) = @_;
    return $s->of($name)->{fake}->requests($op);
}

sub expect {
    my ($s) = @_;
    for my $c ($s->cases) {
        next if defined $c->{errors} && !$c->{errors};
        next if !defined $c->{status} && !$c->{errors};
        $s->{t}->expect_errors(qr{"\Q$c->{name}\E/x"});
    }
}

# [error] lines of a log about a case
sub errors {
    my ($s, $c) = @_;
    return grep { m{\[error\].*"\Q$c->{name}\E/x"} }
        split /\n/, $s->{n}->log;
}

# (where parts were under way, an abort is repeated seconds later: it is one)
sub counts {
    my ($c) = @_;
    my %n = map { $_ => scalar $c->{fake}->requests($_) } keys %{$c->{count}};
    $n{abort} = 1 if $n{abort};
    return \%n;
}

# the answer of a door that waits for S3, and the record
sub answered {
    my ($s, $c, $r) = @_;
    my $status = $c->{status} || 201;
    my $record = $s->record($c);

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
}

# what S3 has seen, and what the log says of it
sub followed {
    my ($s, $c) = @_;
    if ($c->{count}) {
        my $same = sub { !grep { $_[0]{$_} != $c->{count}{$_} } keys %{$_[0]} };
        wait_for { $same->(counts($c)) } 60;
        is_deeply(counts($c), $c->{count}, 'requests');
    }

    my $errors = defined $c->{errors} ? $c->{errors}
        : ($c->{status} || 201) == 201 ? 0 : 1;
    my @errors = $s->errors($c);
    is(scalar @errors, $errors, 'lines of the log') or diag explain \@errors;
    like($errors[0], $c->{log}, 'the line') if $c->{log};
    like($errors[0], qr/ bucket: ?"?\Q$c->{bucket}\E\b/, 'it names the bucket')
        if $errors;
}

sub record {
    my ($s, $c) = @_;
    return curl($s->{n}->url("/transfers/$c->{id}"))->{json};
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
    my ($s, $port, $size, $change) = @_;
    my $seen = $s->{t}->dir . "/fake-$port/requests";
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
    my ($s, $op, $port, $then) = @_;
    my $begun = $s->{t}->dir . "/fake-$port/count.$op";
    return sub { -s $begun ? $then->(@_) : { status => 404 } };
}

my $slow_down = refusal(503, 'SlowDown');
my $denied = refusal(403, 'AccessDenied');
my $internal = refusal(500, 'InternalError');
my $gone = refusal(404, 'NoSuchUpload');


sub table {
    my ($s) = @_;
    $s->$_ for qw/ real connections traps answers corrected checksums outcomes
        conditions /;
}

# A real S3's refusals, which no other try would change
sub real {
    my ($s) = @_;
    my %refused = (
        'wrong-secret' => [403, 'SignatureDoesNotMatch',
            conf => 's3_credentials static testaccess another-secret;'],
        'unknown-key' => [403, 'InvalidAccessKeyId',
            conf => 's3_credentials static nobody another-secret;'],
        'missing-bucket' => [404, 'NoSuchBucket', bucket => 'no-such-bucket'],
    );

    $s->{t}->secret('another-secret');

    for my $name (sort keys %refused) {
        my ($status, $code, %o) = @{$refused{$name}};
        $s->case("$name-small", %o, status => 502, code => $code,
            message => qr/^PutObject failed: $status $code\b/,
            log => qr/request-id:\S/);
        $s->case("$name-large", %o, body => $large, status => 502, code => $code,
            message => qr/^CreateMultipartUpload failed: $status $code\b/,
            log => qr/request-id:\S/);
    }
}

# Connections. One that was kept and then closed is no try: these are new
sub connections {
    my ($s) = @_;
    my $new = 's3_keepalive 0;';

    $s->case('refused', endpoint => "http://127.0.0.1:$none", bucket => 'bucket',
        status => 502, code => 'BadGateway', log => qr/try 3 of 3/,
        message => qr/connect to 127\.0\.0\.1:$none .*Connection refused/);

    $s->case('closed-before', conf => $new, on => { part => [ { %$lost, read => 0 } ] },
        body => $large, count => { create => 1, part => 3, complete => 1 });

    $s->case('reset-before', conf => $new, on => { part => [ { close => 'reset',
            read => 0 } ] }, body => $large, count => { part => 3 });

    $s->case('reset-after', conf => $new, on => { part => [ {}, { close => 'reset' } ] },
        body => $large, count => { part => 3, complete => 1 });

    # an answer that says so is no fault
    $s->case('not-kept', on => { map { $_ => { close => 'after' } }
            qw/ create part complete / }, body => data(3 * PART),
        count => { create => 1, part => 3, complete => 1 });

    $s->case('closed-within', conf => $new, on => { part => [ { read => MB, close => 'reset' } ] },
        body => $large, count => { part => 3, complete => 1 });

    $s->case('closed-after', conf => $new, on => { part => [ {}, $lost ] }, body => $large,
        count => { part => 3, complete => 1 });

    $s->case('closed-in-answer', conf => $new, on => { part => [ { cut => 30 } ] }, body => $large,
        count => { part => 3, complete => 1 });

    $s->case('closed-always', conf => $new, on => { part => $lost }, body => $large, status => 502,
        code => 'BadGateway', count => { part => 3, complete => 0, abort => 1 },
        message => qr/^UploadPart failed: .*closed the connection without an/);

    $s->case('answered-early', on => { part => [ { %$slow_down, read => 0,
            drain => 1 } ] }, body => $large, count => { part => 3 });

    $s->case('refused-early', on => { part => { %$denied, read => 100000,
            drain => 1 } }, body => $large, status => 502, code => 'AccessDenied',
        count => { part => 1, abort => 1 }, message => qr/403 AccessDenied/);

    $s->case('refused-and-closed', on => { part => { %$denied, read => 0 } },
        body => $large, status => 502, code => 'AccessDenied',
        count => { part => 1, abort => 1 }, message => qr/403 AccessDenied/);

    $s->case('success-early', on => { part => [ { read => 0, drain => 1 } ] },
        body => $large, count => { part => 3, complete => 1 });

    $s->case('garbage', on => { part => [ { raw => "SSH-2.0-server\r\n\r\n",
            close => 'after' } ] }, body => $large, count => { part => 3 });

    $s->case('garbage-always', on => { create => { raw => "SSH-2.0-server\r\n\r\n",
            close => 'after' } }, body => $large, status => 502,
        code => 'BadGateway', count => { create => 3, abort => 0 },
        message => qr/is not HTTP/);

    $s->case('huge-head', on => { put => { raw => "HTTP/1.1 200 OK\r\nx: "
            . 'x' x 300_000 . "\r\n\r\n", close => 'after' } }, status => 502,
        code => 'BadGateway', message => qr/is not HTTP: too long line in reply/,
        count => { put => 3, head => 1 });

    $s->case('huge-answer', on => { create => { body => '<a>' . 'x' x (2 * MB) } },
        body => $large, status => 502, code => 'BadGateway',
        count => { create => 3 }, message => qr/larger than 1048576 bytes/);

    $s->case('silent', on => { part => { delay => 600 } }, body => $large,
        conf => 's3_read_timeout 3s; s3_tries 2;', status => 504,
        code => 'GatewayTimeout', count => { part => 0, abort => 1 },
        message => qr/timed out while it was to answer/);

    $s->case('silent-put', on => { put => { delay => 600 } },
        conf => 's3_read_timeout 1s; s3_tries 2;', status => 504,
        code => 'GatewayTimeout', count => { put => 0, head => 1 },
        message => qr/^PutObject failed: .*timed out/);

    # a byte now and then is no answer either (nginx moves a timer by no less than
    # 300 ms)
    my @drip = map { (1, $_) } split //, "HTTP/1.1 200 OK\r\nETag: \"" . 'e' x 50
        . "\"\r\nContent-Length: 0\r\n\r\n";

    $s->case('drip', on => { part => { pieces => \@drip } }, body => $large,
        conf => 's3_read_timeout 2s; s3_tries 1;', status => 504,
        code => 'GatewayTimeout', seconds => 40, count => { abort => 1 },
        message => qr/timed out while it was to answer/);

    $s->case('drip-interim', on => { put => { pieces => [ map { (1, $_) }
            ("HTTP/1.1 100 Continue\r\n\r\n") x 8, ("x: y\r\n") x 40 ] } },
        conf => 's3_read_timeout 1500ms; s3_tries 1;', status => 504, seconds => 40,
        code => 'GatewayTimeout', message => qr/timed out while it was to answer/);

    $s->case('drip-refusal', on => { part => { read => 0, pieces => [ map { (1, $_) }
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n",
            split //, 'x' x 99 ] } }, body => $large, seconds => 40,
        conf => 's3_read_timeout 2s; s3_tries 1;', status => 504,
        code => 'GatewayTimeout', message => qr/timed out while it was to answer/);

    # but one that takes a while is
    $s->case('slow-answer', on => { part => { pieces => [ map { (1.1, $_) }
            "HTTP/1.1 200 OK\r\n", "ETag: \"e\"\r\n", "Content-Length: 0\r\n\r\n",
            ] } }, body => $large, conf => 's3_read_timeout 3s; s3_tries 1;',
        count => { part => 2, complete => 1 });

    # (as a part, where memory is scarce)
    my $deaf = { read => 1000, drain => 0, delay => 600 };
    $s->case('deaf', on => { put => $deaf, part => $deaf },
        body => data(20 * MB), conf => 's3_send_timeout 300ms; s3_tries 2;'
        . ' s3_part_size 20m;', status => 504, code => 'GatewayTimeout',
        message => qr/timed out while it was sent a request/);

    $s->case('cut-complete', on => { complete => [ { cut => 180 } ] },
        body => $large, count => { complete => 2, head => 0 });

    $s->case('to-the-end', on => { complete => { close => 'after', raw =>
            "HTTP/1.0 200 OK\r\n\r\n<CompleteMultipartUploadResult><ETag>"
            . '&quot;of-http-1.0&quot;</ETag></CompleteMultipartUploadResult>' } },
        body => $large, count => { complete => 1 }, etag => '"of-http-1.0"');

    $s->case('one-of-many', on => { part => sub {
            $_[0]{query}{partNumber} == 2 ? $denied : { delay => 3 };
        } }, body => data(20 * MB), parallel => 4,
        status => 502, code => 'AccessDenied', message => qr/403 AccessDenied/,
        count => { abort => 1, complete => 0 });

    $s->case('idle-closed', on => { put => sub { $_[0]{number} == 1 ? {} : $lost } },
        conf => 's3_tries 1; s3_keepalive_timeout 60s;', count => { put => 1 });
}

# XML that is a trap
sub traps {
    my ($s) = @_;
    my $port;
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
        $s->case("trap-$name", on => { create => { body => $trap{$name} } },
            body => $large, status => 502, code => 'BadGateway',
            count => { create => 3, part => 0, abort => 0 },
            message => qr/200 "S3 answered without UploadId"/);
    }

    $s->case('trap-id', on => { create => { body => '<InitiateMultipartUploadResult>'
            . '<UploadId>' . 'u' x 2000 . '</UploadId>'
            . '</InitiateMultipartUploadResult>' } }, body => $large,
        status => 502, code => 'BadGateway', count => { create => 3 },
        message => qr/with too long an UploadId/);

    # what ends a line of a log or of our answer
    $s->case('trap-line', on => { create => { body => '<InitiateMultipartUploadResult>'
            . '<UploadId>u&#10;2026/01/01 00:00:00 [emerg] 1#1: a lie</UploadId>'
            . '</InitiateMultipartUploadResult>' } }, body => $large,
        status => 502, code => 'BadGateway', count => { create => 3 },
        message => qr/200 "S3 answered with a malformed UploadId"/);

    $port = free_port();
    $s->case('trap-field', port => $port, body => $large, on => { complete => { body =>
            '<CompleteMultipartUploadResult><ETag>"e"&#13;&#10;X-Evil: 1</ETag>'
            . '</CompleteMultipartUploadResult>' }, head => $s->object($port, PART + 1) },
        count => { complete => 1, head => 1 }, etag => '"of-the-object"');

    $s->case('trap-error', on => { put => { status => 400, body => "$bomb<Error><Code>"
            . '&a9;</Code></Error>' } }, status => 502, code => 'BadGateway',
        count => { put => 1 }, message => qr/^PutObject failed: 400$/);

    $s->case('trap-code', on => { put => { status => 400, body => '<Error><Code>'
            . 'c' x 500 . '</Code><Message>' . 'm' x 700_000
            . '</Message></Error>' } }, status => 502, code => 'BadGateway',
        count => { put => 1 }, message => qr/^PutObject failed: 400$/);

    $s->case('trap-complete', on => { complete => [ { body => $bomb
            . '<CompleteMultipartUploadResult><ETag>&a9;</ETag>'
            . '</CompleteMultipartUploadResult>' } ] }, body => $large,
        count => { complete => 2 });
}

# Answers that are errors
sub answers {
    my ($s) = @_;
    $s->case('slow-down', on => { part => [ $slow_down, $slow_down ] },
        body => $large, count => { part => 4, complete => 1 });

    $s->case('slow-down-always', on => { part => { %$slow_down,
            headers => { 'Retry-After' => 1 } } }, body => $large, status => 503,
        code => 'SlowDown', count => { part => 3, abort => 1 },
        conf => 's3_retry_timeout 30s;', message => qr/503 SlowDown/,
        retry_after => 1);

    $s->case('create-fails', on => { create => $internal }, body => $large,
        status => 502, code => 'InternalError',
        count => { create => 3, part => 0, abort => 0 },
        message => qr/^CreateMultipartUpload failed: 500 InternalError "as scrip/,
        log => qr/request-id:fake, try 3 of 3/);

    # S3 may say 200 first and then think better of it
    $s->case('error-under-200', on => { part => [ { headers => { ETag => '"e"' },
            body => error('InternalError') } ] }, body => $large,
        count => { part => 3, complete => 1 });

    $s->case('error-under-200-always', on => { put => { headers => { ETag => '"e"' },
            body => error('AccessDenied') } }, status => 502,
        code => 'AccessDenied', count => { put => 1 },
        message => qr/^PutObject failed: 200 AccessDenied/);

    $s->case('interim', on => { put => { raw => ("HTTP/1.1 100 Continue\r\n\r\n") x 2
            . "HTTP/1.1 200 OK\r\nETag: \"after-100\"\r\nContent-Length: 0"
            . "\r\n\r\n" } }, count => { put => 1 }, etag => '"after-100"');

    $s->case('interim-without-end', on => { put => { raw =>
            "HTTP/1.1 100 Continue\r\n\r\n" x 20 } }, status => 502,
        code => 'BadGateway', count => { put => 3, head => 1 },
        message => qr/is not HTTP: too many interim replies/);

    $s->case('many-fields', on => { put => { raw => "HTTP/1.1 200 OK\r\n"
            . "x: y\r\n" x 100_000 } }, status => 502, code => 'BadGateway',
        count => { put => 3 }, message => qr/is not HTTP: too /);

    $s->case('too-slow', on => { part => [ refusal(400, 'RequestTimeout') ] },
        body => $large, count => { part => 3 });

    $s->case('create-empty', on => { create => [ { body => '' } ] }, body => $large,
        count => { create => 2, complete => 1 });

    $s->case('no-etag', on => { part => [ { headers => { ETag => undef } } ] },
        body => $large, count => { part => 3, complete => 1 });

    $s->case('no-etag-ever', on => { part => { headers => { ETag => undef } } },
        body => $large, status => 502, code => 'BadGateway',
        count => { part => 3, abort => 1 }, message => qr/without ETag/);

    $s->case('echo', on => { put => { status => 403, body => '<Error><Code>Denied'
            . '</Code><Message>AWS4-HMAC-SHA256 Credential=me, Signature=beef'
            . '</Message></Error>' } }, status => 502, code => 'Denied',
        message => qr/^PutObject failed: 403 Denied$/, count => { put => 1 });

    $s->case('redirect', on => { put => { status => 307, headers => { Location =>
            "http://127.0.0.1:$none/" }, body => error('TemporaryRedirect') } },
        status => 502, code => 'TemporaryRedirect', count => { put => 1 },
        message => qr/307 TemporaryRedirect/);

    $s->case('tries', on => { put => $slow_down }, conf => 's3_tries 2;',
        status => 503, code => 'SlowDown', count => { put => 2, head => 1 },
        message => qr/503 SlowDown/, retry_after => 5);

    $s->case('one-try', on => { put => $slow_down }, conf => 's3_tries 1;',
        status => 503, code => 'SlowDown', count => { put => 1 },
        message => qr/503 SlowDown/);

    $s->case('time', on => { put => $internal },
        conf => 's3_tries 1000; s3_retry_timeout 1s;', status => 502,
        code => 'InternalError', message => qr/500 InternalError/,
        log => qr/try \d+ of 1000\b/);
}

# Clock, region and keys are corrected once
sub corrected {
    my ($s) = @_;
    $s->case('clock', on => { put => sub {
            my ($r) = @_;
            my $date = strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime time + 3600);
            return hours_ahead($r) ? {} : refusal(403, 'RequestTimeTooSkewed',
                headers => { Date => $date });
        } }, count => { put => 2 });

    $s->case('clock-always', on => { put => refusal(403, 'RequestTimeTooSkewed',
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
        $s->case("region-$status", on => { create => sub {
                my ($r) = @_;
                return $r->{headers}{authorization} =~ m{/eu-west-9/s3/} ? {}
                    : refusal($status, @{$region{$status}});
            } }, body => $large, count => { create => 2, complete => 1 });
    }

    # in the middle of an upload
    $s->case('region-part', on => { part => sub {
            my ($r) = @_;
            return $r->{headers}{authorization} =~ m{/eu-west-9/s3/} ? {}
                : refusal(307, @{$region{307}}, read => 0);
        } }, body => data(3 * PART), parallel => 3,
        count => { create => 1, complete => 1 });

    $s->case('clock-part', on => { part => sub {
            my ($r) = @_;
            my $date = strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime time + 3600);
            return hours_ahead($r) ? {} : refusal(403, 'RequestTimeTooSkewed',
                headers => { Date => $date });
        } }, body => data(3 * PART), parallel => 3,
        count => { create => 1, complete => 1 });

    $s->case('region-always', on => { put => refusal(301, 'PermanentRedirect',
            headers => { 'x-amz-bucket-region' => 'eu-west-9' }) },
        status => 502, code => 'PermanentRedirect', count => { put => 2 },
        message => qr/301 PermanentRedirect/);

    $s->case('expired', on => { put => refusal(400, 'ExpiredToken') }, status => 502,
        code => 'ExpiredToken', count => { put => 2 },
        message => qr/400 ExpiredToken/);

    $s->case('expired-part', on => { part => [ {}, refusal(400, 'ExpiredToken') ] },
        body => $large, count => { part => 3, complete => 1 });
}

# Checksums that S3 finds wrong: on the way to it, or in what it has put together
sub checksums {
    my ($s) = @_;
    $s->case('bad-digest', conf => 's3_checksum crc32;', body => $large,
        on => { part => [ refusal(400, 'BadDigest') ] },
        count => { part => 3, complete => 1 });

    $s->case('bad-object', conf => 's3_checksum crc32;', body => $large, status => 502,
        on => { complete => refusal(400, 'BadDigest') }, code => 'BadDigest',
        message => qr/^CompleteMultipartUpload failed: 400 BadDigest/,
        count => { complete => 1, head => 0, abort => 1 });
}

# Complete, and answers that were lost
sub outcomes {
    my ($s) = @_;
    my $port;

    # 200, white space, and an error only then
    my $late = { pieces => [ 0, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
        . "Content-Type: application/xml\r\n\r\n", 0.2, "3\r\n   \r\n", 0.2,
        sprintf("%x\r\n%s\r\n0\r\n\r\n", length error('InternalError'),
        error('InternalError')) ] };

    $s->case('late-error', on => { complete => [ $late ] }, body => $large,
        count => { complete => 2, head => 0, abort => 0 });

    $s->case('late-always', on => { complete => $late }, body => $large,
        status => 502, code => 'InternalError', count => { complete => 3,
        head => 1, abort => 1 }, message => qr/^CompleteMultipartUpload failed: 20/);

    $s->case('complete-empty', on => { complete => [ { body => '' } ] },
        body => $large, count => { complete => 2 });

    $port = free_port();
    $s->case('no-result-etag', port => $port, body => $large,
        on => { complete => { body => '<CompleteMultipartUploadResult>'
            . '<Key>k</Key></CompleteMultipartUploadResult>' },
            head => $s->object($port, PART + 1) },
        count => { complete => 1, head => 1 }, etag => '"of-the-object"');

    $port = free_port();
    $s->case('lost-ours', port => $port, body => $large,
        on => { complete => [ $lost, $gone ], head => $s->object($port, PART + 1) },
        count => { complete => 2, head => 1, abort => 0 }, errors => 1,
        etag => '"of-the-object"');

    # 500 in the place of NoSuchUpload, as some servers answer; or each time
    my %failing = (once => [ $lost, $internal, $internal ], always => $internal);
    my $once = 's3_keepalive 0;';       # a kept connection's loss is no try

    for my $how (sort keys %failing) {
        for my $size (PART + 1, PART) {
            $port = free_port();
            $s->case("lost-500-$how-older-$size", port => $port, body => $large,
                on => { complete => $failing{$how},
                    head => $s->object($port, $size, \&older) },
                status => 502, code => 'InternalError', conf => $once,
                message => qr/^CompleteMultipartUpload failed: 500 InternalError/,
                count => { complete => 3, head => 1, abort => 1 });
        }

        $port = free_port();
        $s->case("lost-500-$how-ours", port => $port, body => $large, errors => 1,
            conf => $once, on => { complete => $failing{$how}, head => $s->object($port, PART + 1) },
            count => { complete => 3, head => 1, abort => 0 },
            etag => '"of-the-object"');

        $s->case("lost-500-$how-none", body => $large, conf => $once, on =>
            { complete => $failing{$how} }, status => 502, code => 'InternalError',
            message => qr/^CompleteMultipartUpload failed: 500 InternalError/,
            count => { complete => 3, head => 1, abort => 1 });

        $s->case("lost-500-$how-unseen", body => $large, errors => 3, conf => $once,
            on => { complete => $failing{$how}, head => { status => 403 } },
            status => 502, code => 'unknown_outcome', message => qr/may exist/,
            count => { complete => 3, head => 1, abort => 0 });
    }

    # the same id, key and size, and other bytes: an attempt of a minute ago
    $port = free_port();
    $s->case('lost-older', port => $port, body => $large,
        on => { complete => [ $lost, $gone ],
            head => $s->object($port, PART + 1, \&older) },
        status => 502, code => 'NoSuchUpload', message => qr/404 NoSuchUpload/,
        count => { complete => 2, head => 1, abort => 1 });

    $port = free_port();
    $s->case('lost-other', port => $port, body => $large,
        on => { complete => [ $lost, $gone ],
            head => $s->object($port, PART + 1, '0') },
        status => 502, code => 'NoSuchUpload', message => qr/404 NoSuchUpload/,
        count => { complete => 2, head => 1, abort => 1 });

    $port = free_port();
    $s->case('lost-size', port => $port, body => $large,
        on => { complete => [ $lost, $gone ], head => $s->object($port, PART) },
        status => 502, code => 'NoSuchUpload', message => qr/404 NoSuchUpload/,
        count => { complete => 2, head => 1, abort => 1 });

    $port = free_port();
    my $sized = $s->object($port, PART + 1);
    $s->case('lost-sizeless', port => $port, body => $large, errors => 2,
        on => { complete => [ $lost, $gone ], head => sub {
            my $of = $sized->(@_)->{headers}{'x-amz-meta-transfer-id'};
            return { raw => "HTTP/1.1 200 OK\r\nETag: \"e\"\r\n"
                . "x-amz-meta-transfer-id: $of\r\n"
                . "Transfer-Encoding: chunked\r\n\r\n" };
        } },
        status => 502, code => 'unknown_outcome', message => qr/may exist; .*404/,
        count => { complete => 2, head => 1, abort => 0 });

    $s->case('lost-none', body => $large, on => { complete => [ $lost, $gone ] },
        status => 502, code => 'NoSuchUpload', message => qr/404 NoSuchUpload/,
        count => { complete => 2, head => 1, abort => 1 });

    $s->case('lost-unseen', body => $large, errors => 3,
        on => { complete => [ $lost, $gone ], head => { status => 403 } },
        status => 502, code => 'unknown_outcome', message => qr/may exist; .*404/,
        count => { complete => 2, head => 1, abort => 0 });

    $s->case('lost-put', on => { put => [ $lost ] }, count => { put => 2, head => 0 });

    $port = free_port();
    $s->case('lost-put-ours', port => $port, conf => 's3_tries 1;', errors => 1,
        on => { put => $lost, head => $s->object($port, 1000) },
        count => { put => 1, head => 1 }, etag => '"of-the-object"');

    $s->case('lost-put-none', conf => 's3_tries 1;', on => { put => $lost },
        status => 502, code => 'BadGateway', count => { put => 1, head => 1 },
        message => qr/closed the connection without an answer/);

    $s->case('lost-put-unseen', conf => 's3_tries 1;', errors => 3,
        on => { put => $lost, head => { status => 403 } }, status => 502,
        code => 'unknown_outcome', count => { put => 1, head => 1 },
        message => qr/may exist/);
}

# Conditions
sub conditions {
    my ($s) = @_;
    my $port;
    my $failed = refusal(412, 'PreconditionFailed');

    $s->case('condition-small', condition => 1, on => { put => $failed },
        status => 412, code => 'PreconditionFailed', message => qr/412/,
        count => { put => 1 });

    $s->case('condition-large', condition => 1, on => { complete => $failed },
        body => $large, status => 412, code => 'PreconditionFailed',
        message => qr/412/, count => { complete => 1, head => 2, abort => 1 });

    $s->case('condition-conflict', condition => 1, body => $large, status => 409,
        on => { complete => refusal(409, 'ConditionalRequestConflict') },
        code => 'ConditionalRequestConflict', message => qr/409/,
        count => { complete => 1, head => 2, abort => 1 });

    $port = free_port();
    $s->case('condition-lost', port => $port, condition => 1, errors => 1,
        on => { put => [ $lost, $failed ],
            head => $s->none_before('put', $port, $s->object($port, 1000)) },
        count => { put => 2 }, etag => '"of-the-object"');

    $port = free_port();
    $s->case('condition-lost-other', port => $port, condition => 1, status => 412,
        on => { put => [ $lost, $failed ],
            head => $s->none_before('put', $port, $s->object($port, 1000, '0')) },
        code => 'PreconditionFailed', message => qr/412/, count => { put => 2 });

    $s->case('condition-real', condition => 1, status => 412, errors => 0,
        code => 'PreconditionFailed', message => qr/^the object exists$/);
}

1;
