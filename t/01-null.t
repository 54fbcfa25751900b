#!/usr/bin/perl

# The null S3, which other tests believe: what it checks it refuses where it is
# wrong, and its faults come when they are asked for. body_gen sends what it
# expects. The null origin gives what it is asked for, and body_sink tells what
# came.

use strict;
use warnings;
no warnings 'portable';

use Compress::Zlib qw/ crc32 /;
use Digest::SHA qw/ sha256_hex /;
use HTTP::Tiny;
use IO::Socket::INET;
use JSON::PP;
use MIME::Base64;
use Test::More;
use Time::HiRes qw/ sleep time /;

use constant PART => 5 * 1024 * 1024;

delete @ENV{qw/ http_proxy HTTP_PROXY all_proxy ALL_PROXY /};
local $SIG{PIPE} = 'IGNORE';

system('make', '-s', '-f', 't/lib/tools.mk') == 0 or BAIL_OUT('tools');

my %server;
my $dir = `mktemp -d`;
chomp $dir;

END {
    my $status = $?;
    stop();
    system('rm', '-rf', $dir) if $dir;
    $? = $status;
}


sub start {
    stop();
    unlink "$dir/ports";

    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        open STDOUT, '>', '/dev/null';
        exec 'build/s3_null', '--port', 0, '--port-file', "$dir/ports", @_
            or die;
    }

    for (1 .. 3000) {
        last if -e "$dir/ports";
        sleep 0.02;
    }

    open my $f, '<', "$dir/ports" or die "s3_null did not start\n";
    my ($port) = <$f> =~ /^port (\d+)/;

    %server = (pid => $pid, url => "http://127.0.0.1:$port",
        http => HTTP::Tiny->new(timeout => 60));
}


sub stop {
    kill('TERM', $server{pid}), waitpid($server{pid}, 0) if $server{pid};
    %server = ();
}


# "200", or "400 BadDigest"; the whole answer in list context

sub ask {
    my ($method, $target, $content, %headers) = @_;

    my $r = $server{http}->request($method, "$server{url}$target",
        { content => $content // '', headers => \%headers });
    my ($code) = ($r->{content} // '') =~ m!<Code>(\w+)!;
    my $result = $r->{status} . ($code ? " $code" : '');

    return wantarray ? ($result, $r) : $result;
}


sub stats {
    return decode_json($server{http}->get("$server{url}/__stats")->{content});
}


sub pattern {
    my ($pos, $len) = @_;
    my ($first, $skip) = (int($pos / 8), $pos % 8);

    use integer;

    return substr pack('q<*', map { $_ * -0x61c8864680b583eb }
        $first .. $first + ($skip + $len + 7) / 8), $skip, $len;
}


sub base64_crc {
    return encode_base64(pack('N', crc32($_[0])), '');
}


sub create {
    my ($result, $r) = ask('POST', '/b/k?uploads=', '',
        'x-amz-checksum-algorithm' => 'CRC32',
        'x-amz-checksum-type' => 'FULL_OBJECT', @_);
    my ($id) = $r->{content} =~ m!<UploadId>(.*?)<!;

    return $result unless $id;
    $id =~ s/&amp;/&/;
    $id =~ s/([^\w.~-])/sprintf '%%%02X', ord $1/ge;

    return $id;
}


sub part {
    my ($id, $number, $content, %headers) = @_;

    my ($result, $r) = ask('PUT', "/b/k?partNumber=$number&uploadId=$id",
        $content, 'x-amz-checksum-crc32' => base64_crc($content), %headers);

    return $r->{headers}{etag} // $result;
}


# list: [number, etag, CRC-32 or undef]

sub complete {
    my ($id, $list, %headers) = @_;

    my $xml = '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/'
        . '2006-03-01/">' . join('', map {
            my ($number, $etag, $crc) = @$_;
            $etag =~ s/"/&quot;/g;
            "<Part><PartNumber>$number</PartNumber><ETag>$etag</ETag>"
                . ($crc ? "<ChecksumCRC32>$crc</ChecksumCRC32>" : '')
                . '</Part>' } @$list) . '</CompleteMultipartUpload>';

    return scalar ask('POST', "/b/k?uploadId=$id", $xml,
        'x-amz-checksum-type' => 'FULL_OBJECT', %headers);
}


sub body_gen {
    my (@args) = @_;

    system("build/body_gen @args > $dir/reply 2> $dir/sent");

    return $? >> 8;
}


# exit status, what it said

sub body_sink {
    my (@args) = @_;

    my $said = `build/body_sink @args 2>&1 > $dir/reply`;

    return ($? >> 8) . ' ' . $said =~ s/, [\d.]+ s|\n//gr;
}


start(qw/ --verify --crc32 --sha256 /);

subtest 'bodies' => sub {
    my $body = pattern(0, 1000);
    my @crc = ('x-amz-checksum-crc32' => base64_crc($body));
    my $wrong = base64_crc('other');
    my $put = sub { scalar ask('PUT', '/b/put', @_) };

    is($put->($body, @crc), '200', 'right');
    is($put->($body), '400 InvalidRequest', 'CRC-32 missing');
    is($put->($body, 'x-amz-checksum-crc32' => 'zz'), '400 InvalidRequest',
        'CRC-32 malformed');
    is($put->($body, 'x-amz-checksum-crc32' => $wrong), '400 BadDigest',
        'CRC-32 wrong');
    is($put->($body, @crc, 'x-amz-content-sha256' => sha256_hex($body)),
        '200', 'SHA-256 right');
    is($put->($body, @crc, 'x-amz-content-sha256' => sha256_hex('other')),
        '400 XAmzContentSHA256Mismatch', 'SHA-256 wrong');
    is($put->($body, @crc, 'x-amz-content-sha256' => 'UNSIGNED-PAYLOAD'),
        '200', 'no SHA-256');

    for my $bad (pattern(8, 1000), pattern(1, 9), 'x' x 15, 'x' x 1000,
        substr($body, 0, 999) . '!')
    {
        is($put->($bad, 'x-amz-checksum-crc32' => base64_crc($bad)),
            '400 BadDigest', 'another body of ' . length $bad);
    }

    is($put->('', 'x-amz-checksum-crc32' => 'AAAAAA=='), '200', 'empty');
    is(stats()->{bad}, 9, 'all of these counted');
    is(ask('GET', '/b/none'), '404 NoSuchKey', 'no object');
    is(ask('GET', '/b/put'), '501 NotImplemented', 'one, but not its bytes');
};

subtest 'a multipart upload' => sub {
    my @size = (PART + 3, PART, PART + 8, 7);
    my ($whole, @list) = ('');

    is(create('x-amz-checksum-type' => 'COMPOSITE'), '400 InvalidRequest',
        'created without a full checksum');

    my $id = create('x-amz-meta-transfer-id' => 'id.1');

    for my $i (0 .. $#size) {
        my $body = pattern(length $whole, $size[$i]);
        my $etag = part($id, $i + 1, $body);

        like($etag, qr/^"\w{32}"$/, "part of $size[$i]");
        push @list, [$i + 1, $etag, base64_crc($body)];
        $whole .= $body;
    }

    my @crc = ('x-amz-checksum-crc32' => base64_crc($whole));
    my @none = map { [$_->[0], $_->[1]] } @list;

    is(complete($id, [], @crc), '400 MalformedXML', 'no part');
    is(complete($id, [@list[1, 0, 2, 3]], @crc), '400 InvalidPartOrder',
        'order');
    is(complete($id, [@list[0 .. 2], [4, '"0"']], @crc), '400 InvalidPart',
        'ETag');
    is(complete($id, [@none[0 .. 2], [4, $none[3][1], $list[0][2]]], @crc),
        '400 InvalidPart', 'CRC-32 of a part');
    is(complete($id, [@list[0 .. 2]], @crc), '400 BadDigest',
        'CRC-32 of the object');
    is(complete($id, \@list), '400 InvalidRequest', 'CRC-32 missing');
    is(complete('none', \@list, @crc), '404 NoSuchUpload', 'upload');
    is(complete($id, \@list, @crc), '200', 'right');
    is(complete($id, \@list, @crc), '404 NoSuchUpload', 'again');

    my (undef, $head) = ask('HEAD', '/b/k');
    is($head->{headers}{'content-length'}, length $whole, 'HEAD: size');
    is($head->{headers}{'x-amz-meta-transfer-id'}, 'id.1', 'HEAD: metadata');

    $id = create();
    part($id, $_->[0], $_->[1]) for [1, pattern(0, 100)],
        [2, pattern(100, 100)];
    @list = map { [$_, part($id, $_, pattern(100 * $_ - 100, 100))] } 1, 2;
    is(complete($id, \@list, 'x-amz-checksum-crc32'
            => base64_crc(pattern(0, 200))), '400 EntityTooSmall', 'small');

    my @bodies = (pattern(0, PART), pattern(100, 100));
    @list = map { [$_, part($id, $_, $bodies[$_ - 1])] } 1, 2;
    is(complete($id, \@list, 'x-amz-checksum-crc32'
            => base64_crc(join '', @bodies)), '400 InvalidPart', 'a hole');

    is(stats()->{open_uploads}, 1, 'open');
    is(scalar ask('DELETE', "/b/k?uploadId=$id"), '204', 'aborted');
    is(scalar ask('DELETE', "/b/k?uploadId=$id"), '404 NoSuchUpload',
        'not twice');
    is(part($id, 1, pattern(0, 9)), '404 NoSuchUpload', 'nor a part');
    is(stats()->{open_uploads}, 0, 'none is open');
};

subtest 'DynamoDB' => sub {
    my $put = sub {
        my ($attempt, $sequence) = @_;
        my ($result) = ask('POST', '/', encode_json({ TableName => 'table',
            ConditionExpression => '...', Item => {
                transferId => { S => 'id' }, attempt => { N => "$attempt" },
                sequence => { N => "$sequence" } } }),
            'X-Amz-Target' => 'DynamoDB_20120810.PutItem');
        return $result;
    };

    is($put->(@$_[0, 1]), $_->[2], "record $_->[0].$_->[1]")
        for [5, 9, 200], [5, 10, 200], [5, 10, 400], [5, 9, 400],
            [4, 11, 400], [10, 0, 200];

    my (undef, $r) = ask('POST', '/', encode_json({ TableName => 'table',
        Key => { transferId => { S => 'id' } } }),
        'X-Amz-Target' => 'DynamoDB_20120810.GetItem');
    is(decode_json($r->{content})->{Item}{attempt}{N}, '10', 'the newest');
    is(stats()->{dynamodb_refused}, 3, 'refused');
};

subtest 'faults' => sub {
    my $put = sub { scalar ask('PUT', '/b/put', 'x' x 1_000_000) };
    # all of it is on its way before the answer is read
    my $whole = sub { scalar ask('PUT', '/b/put', 'x' x 10_000) };

    start('--slowdown', 2);
    is(join(',', map { $put->() } 1 .. 4),
        '200,503 SlowDown,200,503 SlowDown', 'slowdown');

    start('--every', 2);
    # (the last is sent again by HTTP::Tiny, for its connection was kept)
    is(join(',', map { $whole->() } 1 .. 10), '200,500 InternalError,200,599,'
        . '200,400 RequestTimeout,200,503 SlowDown,200,200', 'every');
    is(stats()->{faults}, 5, 'five faults');
    is(create(), '500 InternalError', 'of other operations, too');
    is(stats()->{open_uploads}, 0, 'which are not carried out');

    start('--early', 2);
    is(join(',', map { $whole->() } 1, 2), '200,500 InternalError', 'early');
    is(stats()->{bytes}, 10_000, 'its body was not read');

    start('--reset', 2);
    is(join(',', map { $put->() } 1, 2), '200,599', 'reset');

    start('--hang', 1);
    $server{http}->timeout(1);
    is($put->(), '599', 'hang');

    # (a client that had to stand still here has stalled where it did not mean to)
    my ($began, $pause, $said);
    for (1 .. 20) {
        start('--stall', 300);
        $began = time;
        $pause = 0;
        my $slow = IO::Socket::INET->new($server{url} =~ m{//(.*)}) or die;
        print $slow "PUT /b/put HTTP/1.1\r\nHost: b\r\n"
            . "Content-Length: 9\r\n\r\n";
        for (1 .. 3) {
            my $from = time;
            sleep 0.15;
            print $slow 'x';
            $pause = time - $from if time - $from > $pause;
        }
        $said = do { local $/; <$slow> };
        last if $pause < 0.25;
    }
    like($said, qr!^HTTP/1.1 400 .*^Connection: close.*RequestTimeout!ms,
        'a body that stalls');
    cmp_ok(time - $began, '>=', 0.74, 'after the last byte that came');
    is(stats()->{stalled}, 1, 'counted');
    is($whole->(), '200', 'one that comes at once is taken');
    sleep 0.35;
    is($whole->(), '200', 'also over a connection that was idle for longer');

    start('--latency', 300, '--rate', 2_000_000);
    my $from = time;
    is($put->(), '200', 'slow');
    cmp_ok(time - $from, '>=', 0.75, 'takes its time');

    start('--complete-error', 1);
    my $id = create();
    my $etag = part($id, 1, 'x');
    is(complete($id, [[1, $etag]]), '200 InternalError', 'error in a 200');
    is(stats()->{open_uploads}, 1, 'not completed');

    start('--complete-lost', 1);
    $id = create();
    $etag = part($id, 1, 'x');
    is(complete($id, [[1, $etag]]), '599', 'answer lost');
    is(stats()->{objects}, 1, 'yet completed');

    start('--complete-space', 300);
    $id = create();
    $etag = part($id, 1, 'x');
    my $r;
    $from = time;
    is(complete($id, [[1, '"0"']]), '200 InvalidPart', 'error after space');
    is(complete($id, [[1, $etag]]), '200', 'result after space');
    cmp_ok(time - $from, '>=', 0.6, 'space takes its time');
};

subtest 'body_gen' => sub {
    start('--verify');

    is(body_gen("$server{url}/b/gen", 33_000_003), 0, 'sends the pattern');
    is(stats()->{bytes}, 33_000_003, 'all of it');
    is(body_gen("$server{url}/b/gen --chunk 8192", 100), 1,
        'a refusal is a failure');
    like(do { open my $f, '<', "$dir/reply"; local $/; <$f> },
        qr!^HTTP/1.1 411 .*<Code>MissingContentLength!s, 'that is shown');

    start(qw/ --verify --chunked /);
    is(body_gen("$server{url}/b/gen --chunk $_", 3_000_003), 0,
        "chunks of $_ where they are taken") for 7000, 200_000;
    is(join(' ', @{stats()}{qw/ bytes objects bad /}), '6000006 1 0',
        'all of it');

    for my $how (qw/ close reset /) {
        start();
        is(body_gen("$server{url}/b/gen --$how-after 5000", 10_000), 0,
            "cut by $how");

        for (1 .. 3000) {
            last if stats()->{cut};
            sleep 0.02;
        }

        my $stats = stats();
        is("$stats->{cut} $stats->{objects}", '1 0', 'no object');
    }
};

# the target's answer with these headers

sub get {
    my ($target, %headers) = @_;

    my (undef, $r) = ask('GET', "/__body/$target", undef, %headers);

    return $r;
}

subtest 'the null origin' => sub {
    start();

    my $whole = pattern(0, 1_000_003);
    my $r = get(1_000_003);
    my $etag = $r->{headers}{etag};

    is($r->{status}, 200, 'status');
    is($r->{headers}{'content-length'}, length $whole, 'length');
    is($r->{headers}{'accept-ranges'}, 'bytes', 'ranges');
    like($etag, qr/^"[^"]+"$/, 'a strong ETag');
    ok($r->{content} eq $whole, 'the pattern');
    isnt(get(5)->{headers}{etag}, $etag, 'that of another body');
    is(get(0)->{content}, '', 'empty');
    is(get($_)->{status}, 404, "no body \"$_\"") for '', 'x', '5x';

    (undef, $r) = ask('HEAD', '/__body/9029243448');
    is("$r->{status} $r->{headers}{'content-length'}", '200 9029243448',
        'HEAD');

    for (['bytes=10-19', 10, 19], ['bytes=999999-', 999_999, 1_000_002],
        ['bytes=-3', 1_000_000, 1_000_002], ['bytes=0-0', 0, 0],
        ['bytes=7-9999999', 7, 1_000_002], ['bytes=-9999999', 0, 1_000_002])
    {
        my ($range, $first, $last) = @$_;

        $r = get(1_000_003, Range => $range);
        is("$r->{status} $r->{headers}{'content-range'} "
            . $r->{headers}{'content-length'}, "206 bytes $first-$last/1000003 "
            . ($last - $first + 1), $range);
        ok($r->{content} eq substr($whole, $first, $last - $first + 1),
            'these bytes');
    }

    for (qw/ bytes=1000003- bytes=-0 bytes=1000003-1000009 /) {
        $r = get(1_000_003, Range => $_);
        is("$r->{status} $r->{headers}{'content-range'} $r->{content}",
            '416 bytes */1000003 ', $_);
    }

    for ('bytes=1-2,4-5', qw/ bytes=3-2 bytes=x bytes=- bytes=5 lines=1-2 /)
    {
        $r = get(1_000_003, Range => $_);
        is("$r->{status} " . length $r->{content}, '200 1000003', $_);
    }

    is(get(9, Range => 'bytes=1-', 'If-Range' => $_->[0])->{status}, $_->[1],
        "If-Range: $_->[0]") for ['"null-9"', 206], ['W/"null-9"', 200],
        ['"other"', 200], ['Sat, 28 Nov 2026 12:00:00 GMT', 200];

    for my $size (0, 1, 8192, 1_000_003) {
        $r = get("$size?chunked=1");
        is(($r->{headers}{'transfer-encoding'} // '') . ' '
            . ($r->{headers}{'content-length'} // ''), 'chunked ',
            "chunked: $size");
        ok($r->{content} eq substr($whole, 0, $size), 'whole');
    }

    $r = get('1000003?chunked=1', Range => 'bytes=500000-');
    is($r->{status}, 206, 'a range, chunked');
    ok($r->{content} eq substr($whole, 500_000), 'these bytes');

    my $from = time;
    $r = get('1000003?rate=2000000');
    is(length $r->{content}, 1_000_003, 'slow');
    cmp_ok(time - $from, '>=', 0.4, 'takes its time');
};

subtest 'body_sink' => sub {
    start();

    my $url = "$server{url}/__body";

    for my $options ('', '--verify') {
        is(body_sink("$url/33000003 $options"), '0 received 33000003 bytes',
            "whole $options");
        is(body_sink("'$url/33000003?chunked=1' $options"),
            '0 received 33000003 bytes', "chunked $options");
        is(body_sink("'$url/9000?cut=8000' $options"),
            '1 received 8000 bytes, cut', "cut $options");
        is(body_sink("'$url/9000?chunked=1&cut=9000' $options"),
            '1 received 9000 bytes, cut', "without its last chunk $options");
    }

    is(body_sink("'$url/9000?cut-once=7'"), $_, 'cut, but not again')
        for '1 received 7 bytes, cut', '0 received 9000 bytes';
    is(body_sink("'$url/9000?cut=0'"), '1 received 0 bytes, cut',
        'cut at once');
    is(body_sink("$url/0"), '0 received 0 bytes', 'empty');
    like(body_sink("$url/x"), qr/^1 received/, 'a refusal is a failure');
    like(body_sink("--verify $server{url}/__stats"),
        qr/^1 received \d+ bytes, not the pattern$/, 'another body');
    is(stats()->{origin_bytes}, 4 * 33_000_003 + 2 * 17_000 + 7 + 9000,
        'counted');
    is(stats()->{origin_cut}, 6, 'cuts, too');

    my $from = time;
    is(body_sink("$url/1000000 --limit-rate 2000000"),
        '0 received 1000000 bytes', 'slow');
    cmp_ok(time - $from, '>=', 0.4, 'takes its time');
};

done_testing();
