package S3T::Fake;

# A scripted HTTP server that stands in for S3 or DynamoDB where the real one
# cannot be made to misbehave. It records every request that it saw.
#
#   my $fake = S3T::Fake->new(dir => DIR, on => {
#       part     => [ { status => 503 }, {}, { close => 'reset' } ],
#       complete => { delay => 2 },
#       create   => sub { my ($request) = @_; return { status => 403 } },
#   });
#
# Operations: put part create complete abort delete head get uploads parts, and
# for DynamoDB its own names (PutItem ...). A list is used up request by
# request, over all connections, and then the answer is the usual one; a hash
# holds for every request; code is called with the request's head and returns
# a hash. What a hash does not name is as usual:
#
#   status, reason, headers { }, body   of the answer
#   delay      seconds before the answer
#   hold       a file: no answer before it is there
#   read       bytes of the body that are read before the answer (all of it)
#   rate       bytes a second at which the body is read
#   drain      after an early answer: read the rest of the body (0)
#   raw        these bytes in place of an answer
#   pieces     [ seconds (or a file), bytes, seconds, bytes ... ] in place of an
#              answer
#   cut        bytes of the answer that are sent before the connection closes
#   stored     bytes of a part that ListParts then tells of (all of it)
#   close      'before' the answer, 'after' it; 'reset': RST in its place, or
#              after what `raw` or `pieces` say of it;
#              'idle': after it, and without saying so, once `idle` s passed

use strict;
use warnings;

use Digest::MD5;
use Digest::SHA;
use Fcntl qw/ :flock /;
use Exporter 'import';
use IO::Socket::INET;
use JSON::PP ();
use POSIX ();
use Socket qw/ IPPROTO_TCP SOL_SOCKET SO_LINGER TCP_NODELAY /;
use S3T::Util qw/ append end_child free_port read_file read_json_lines spawn
    state_dir wait_for write_file /;
use Time::HiRes qw/ sleep time /;
use Time::Local qw/ timegm /;

our @EXPORT_OK = qw/ hours_ahead /;

# dir (of the test file), on, port, cert and key (TLS)
sub new {
    my ($class, %o) = @_;
    my $s = bless { port => free_port(), on => {}, %o }, $class;
    $s->{dir} .= "/fake-$s->{port}";
    mkdir $s->{dir};
    $s->start;
    return $s;
}

sub start {
    my ($s) = @_;
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
        LocalPort => $s->{port}, Listen => 128, ReuseAddr => 1)
        or die "listen $s->{port}: $!";
    $s->{pid} = spawn({ stderr => "$s->{dir}/errors" }, sub {
        $s->_serve($listener);
    });
}

sub stop {
    my ($s) = @_;
    my $pid = delete $s->{pid} or return;
    end_child($pid);
}

sub url {
    my ($s) = @_;
    return ($s->{cert} ? 'https' : 'http') . "://127.0.0.1:$s->{port}";
}

# Each request in the order of its arrival:
#   { op, method, uri and path (raw), query { }, headers { }, length, sha256,
#     whole, body (when small), connection, number (on its connection), time,
#     until (when it was listed), port }
# whole: all of the body came. A request is listed when its answer begins, or
# when its connection ends without one; after `drain`, if that is asked for.
sub requests {
    my ($s, $op) = @_;
    return grep { !defined $op || $_->{op} eq $op }
        sort { $a->{time} <=> $b->{time} }
        read_json_lines("$s->{dir}/requests");
}

# how many requests were begun so far, answered or not
sub begun {
    my ($s, $op) = @_;
    return -s "$s->{dir}/count.$op" || 0;
}

# By how many hours the clock by which a request was signed is ahead of this one,
# which may have come to another hour in between.
sub hours_ahead {
    my ($r) = @_;
    my ($year, $month, @rest) = $r->{headers}{'x-amz-date'}
        =~ /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/ or die 'no x-amz-date';
    my $signed = timegm(reverse(@rest), $month - 1, $year);
    return POSIX::floor(($signed - $r->{time}) / 3600 + 0.5);
}

sub forget {
    my ($s) = @_;
    unlink glob "$s->{dir}/requests $s->{dir}/count.*";
}


sub _serve {
    my ($s, $listener) = @_;
    my $connection = 0;
    require IO::Socket::SSL if $s->{cert};
    my %children;
    $SIG{TERM} = sub {
        kill 'KILL', keys %children;
        POSIX::_exit(0);
    };
    # one that is just begun is known before the signal is heard
    my $term = POSIX::SigSet->new(POSIX::SIGTERM());
    while (1) {
        while ((my $gone = waitpid -1, POSIX::WNOHANG()) > 0) {
            delete $children{$gone};
        }
        my $socket = $listener->accept or next;
        $connection++;
        POSIX::sigprocmask(POSIX::SIG_BLOCK(), $term);
        my $pid = fork;
        if ($pid) {
            $children{$pid} = 1;
            POSIX::sigprocmask(POSIX::SIG_UNBLOCK(), $term);
            close $socket;
            next;
        }
        $SIG{TERM} = 'DEFAULT';
        POSIX::sigprocmask(POSIX::SIG_UNBLOCK(), $term);
        close $listener;
        eval { $s->_connection($socket, $connection) };
        print STDERR $@ if $@;
        POSIX::_exit(0);
    }
}

sub _connection {
    my ($s, $socket, $connection) = @_;
    my $port = $socket->peerport;
    # what was written is on its way even when the connection is then reset
    setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
    if ($s->{cert}) {
        IO::Socket::SSL->start_SSL($socket, SSL_server => 1,
            SSL_cert_file => $s->{cert}, SSL_key_file => $s->{key})
            or return;
    }
    $socket->autoflush(1);
    my ($buffer, $number) = ('', 0);
    $s->{listed} = 0;
    while (1) {
        my $request = _head($socket, \$buffer) or return;
        @$request{qw/ connection number port /} =
            ($connection, ++$number, $port);
        my $action = $s->_action($request);
        my $more = eval {
            $s->_answer($socket, \$buffer, $request, $action);
        };
        my $error = $@;
        $s->_list_request($request);
        die $error if $error;
        return if !$more;
    }
}

# Once a request, and before its answer: who has the answer finds the request.
sub _list_request {
    my ($s, $r) = @_;
    return if $s->{listed} == $r->{number};
    $s->{listed} = $r->{number};
    $r->{until} = time;
    append("$s->{dir}/requests",
        JSON::PP->new->utf8->canonical->encode($r) . "\n");
}

sub _head {
    my ($socket, $buffer) = @_;
    until ($$buffer =~ /\r\n\r\n/) {
        sysread $socket, $$buffer, 1 << 16, length $$buffer or return;
    }
    my ($head, $rest) = split /\r\n\r\n/, $$buffer, 2;
    $$buffer = $rest;
    my ($first, @lines) = split /\r\n/, $head;
    my ($method, $uri) = split / /, $first;
    my ($path, $query) = split /\?/, $uri, 2;
    my %headers = map { my ($n, $v) = split /:\s*/, $_, 2; (lc $n, $v) } @lines;
    my %query;
    for (split /&/, defined $query ? $query : '') {
        my ($name, $value) = split /=/, $_, 2;
        $value = '' if !defined $value;
        $value =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
        $query{$name} = $value;
    }
    my $request = {
        time => time, method => $method, uri => $uri, path => $path,
        query => \%query,
        headers => \%headers, length => 0,
    };
    $request->{op} = _operation($request);
    return $request;
}

sub _operation {
    my ($r) = @_;
    my ($method, $query) = @$r{qw/ method query /};
    if (my $target = $r->{headers}{'x-amz-target'}) {
        return $target =~ s/.*\.//r;
    }
    my %by = (
        PUT => { partNumber => 'part', '' => 'put' },
        POST => { uploads => 'create', uploadId => 'complete', '' => 'post' },
        DELETE => { uploadId => 'abort', '' => 'delete' },
        GET => { uploads => 'uploads', uploadId => 'parts', '' => 'get' },
        HEAD => { '' => 'head' },
    );
    my $of = $by{$method} or return lc $method;
    my ($name) = grep { $_ ne '' && exists $query->{$_} } sort keys %$of;
    return $of->{defined $name ? $name : ''};
}

# The script's next entry; the count is shared by all connections.
sub _action {
    my ($s, $r) = @_;
    open my $fh, '>>', "$s->{dir}/count.$r->{op}" or die $!;
    flock $fh, LOCK_EX;
    my $n = -s $fh;
    syswrite $fh, '.';
    close $fh;
    my $on = $s->{on}{$r->{op}};
    $on = $on->[$n] if ref $on eq 'ARRAY';
    $on = $on->($r) if ref $on eq 'CODE';
    return $on || {};
}

# Reads up to $limit bytes of the body in all.
sub _body {
    my ($socket, $buffer, $r, $limit, $rate) = @_;
    my ($sha, $md5) = @{$r->{digests} ||=
        [Digest::SHA->new(256), Digest::MD5->new]};
    my $from = time;
    my $start = $r->{length};
    while ($r->{length} < $limit) {
        if ($$buffer eq '') {
            my $want = $limit - $r->{length};
            $want = 1 << 18 if $want > 1 << 18;
            $want = 1 << 14 if $rate && $want > 1 << 14;
            sysread $socket, $$buffer, $want or return 0;
        }
        my $piece = substr $$buffer, 0, $limit - $r->{length}, '';
        $sha->add($piece);
        $md5->add($piece);
        $r->{length} += length $piece;
        $r->{body} .= $piece if $r->{length} <= 1 << 16;
        if ($rate) {
            my $wait = ($r->{length} - $start) / $rate - (time - $from);
            sleep $wait if $wait > 0;
        }
    }
    return 1;
}

sub _answer {
    my ($s, $socket, $buffer, $r, $a) = @_;
    my $length = $r->{headers}{'content-length'} || 0;
    my $limit = defined $a->{read} && $a->{read} < $length
        ? $a->{read} : $length;

    if (($r->{headers}{expect} || '') =~ /100-continue/i && $limit) {
        syswrite $socket, "HTTP/1.1 100 Continue\r\n\r\n";
    }
    my $came = _body($socket, $buffer, $r, $limit, $a->{rate});
    my ($sha, $md5) = @{delete $r->{digests} || [Digest::SHA->new(256),
        Digest::MD5->new]};
    $r->{whole} = $r->{length} == $length ? 1 : 0;
    $r->{sha256} = $sha->hexdigest;
    delete $r->{body} if $r->{length} > 1 << 16;
    utf8::decode($r->{body}) if defined $r->{body};
    return 0 if !$came;
    my $digest = $md5->hexdigest;
    $s->_store($r, $a, $digest) if $r->{op} eq 'part';

    sleep $a->{delay} if $a->{delay};
    _pause($a->{hold}) if $a->{hold};
    # (a body whose rest is read after the answer is told of when it was read)
    $s->_list_request($r) if !$a->{drain};
    my $close = $a->{close} || '';
    return 0 if $close eq 'before';
    if ($close eq 'reset') {
        setsockopt $socket, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
        return 0 if !$a->{pieces} && !defined $a->{raw};
    }
    if ($a->{pieces}) {
        my @pieces = @{$a->{pieces}};
        while (my ($seconds, $bytes) = splice @pieces, 0, 2) {
            _pause($seconds);
            _write($socket, $bytes);
        }
    } elsif (defined $a->{raw}) {
        _write($socket, $a->{raw});
    } else {
        my $text = $s->_text($r, $a, $digest);
        $text = substr $text, 0, $a->{cut} if defined $a->{cut};
        _write($socket, $text);
        return 0 if defined $a->{cut};
    }
    if ($a->{drain} && $r->{length} < $length) {
        my %rest = (length => $r->{length});
        _body($socket, $buffer, \%rest, $length);
        $r->{length} = $rest{length};
        return 0 if $rest{length} < $length;
    }
    sleep $a->{idle} || 0 if $close eq 'idle';
    return 0 if $close;
    return $limit == $length || $a->{drain};
}

# so many seconds, or until a file is there
sub _pause {
    my ($until) = @_;
    return sleep $until if $until !~ m{^/};
    wait_for { -e $until } 300, 0.02;
}

sub _write {
    my ($socket, $text) = @_;
    my $done = 0;
    while ($done < length $text) {
        my $n = syswrite $socket, $text, length($text) - $done, $done;
        die "write: $!\n" if !$n;
        $done += $n;
    }
}

# What ListParts is to know of a part: also that of a try whose answer is lost.
sub _store {
    my ($s, $r, $a, $md5) = @_;
    return if ($a->{status} || 200) >= 300;
    return if !$r->{whole} && !defined $a->{stored};
    my $size = defined $a->{stored} ? $a->{stored} : $r->{length};
    $md5 = Digest::MD5::md5_hex("$md5 $size") if $size != $r->{length};
    append("$s->{dir}/parts", "$r->{query}{uploadId} $r->{query}{partNumber}"
        . " $size $md5\n");
}

sub _list {
    my ($s, $r) = @_;
    my ($id, $marker, $max) = @{$r->{query}}{qw/ uploadId part-number-marker
        max-parts /};
    my %parts;
    for (split /\n/, read_file("$s->{dir}/parts") || '') {
        my ($of, $number, $size, $md5) = split / /;
        $parts{$number} = "<Part><PartNumber>$number</PartNumber>"
            . "<LastModified>2026-11-28T00:00:00.000Z</LastModified>"
            . "<ETag>&quot;$md5&quot;</ETag><Size>$size</Size></Part>"
            if $of eq $id && $number > $marker;
    }
    my @numbers = sort { $a <=> $b } keys %parts;
    my $cut = @numbers > $max;
    @numbers = splice @numbers, 0, $max;
    return '<ListPartsResult>' . join('', map { $parts{$_} } @numbers)
        . '<IsTruncated>' . ($cut ? 'true' : 'false') . '</IsTruncated>'
        . '<NextPartNumberMarker>' . ($numbers[-1] || 0)
        . '</NextPartNumberMarker></ListPartsResult>';
}

# What S3 says when all is well.
sub _usual {
    my ($s, $r, $md5) = @_;
    my $xml = '<?xml version="1.0" encoding="UTF-8"?>' . "\n";
    my ($bucket, $key) = $r->{path} =~ m{^/([^/]*)/?(.*)};
    my %usual = (
        put => sub { { headers => { ETag => "\"$md5\"" } } },
        part => sub { { headers => { ETag => "\"$md5\"" } } },
        create => sub { { body => $xml . '<InitiateMultipartUploadResult>'
            . "<Bucket>$bucket</Bucket><Key>$key</Key>"
            . "<UploadId>fake-$$-$r->{number}</UploadId>"
            . '</InitiateMultipartUploadResult>' } },
        complete => sub { { body => $xml . '<CompleteMultipartUploadResult>'
            . "<Bucket>$bucket</Bucket><Key>$key</Key>"
            . '<ETag>&quot;fakefakefakefakefakefakefakefake-2&quot;</ETag>'
            . '</CompleteMultipartUploadResult>' } },
        abort => sub { { status => 204 } },
        delete => sub { { status => 204 } },
        head => sub { { status => 404 } },
        get => sub { { status => 404, body => $xml
            . '<Error><Code>NoSuchKey</Code></Error>' } },
        uploads => sub { { body => $xml . '<ListMultipartUploadsResult>'
            . '</ListMultipartUploadsResult>' } },
        parts => sub { { body => $xml . $s->_list($r) } },
        PutItem => sub { { body => '{}' } },
        GetItem => sub { { body => '{}' } },
    );
    return $usual{$r->{op}} ? $usual{$r->{op}}->() : { status => 501 };
}

sub _text {
    my ($s, $r, $a, $md5) = @_;
    my %usual = defined $a->{status} ? () : %{$s->_usual($r, $md5)};
    my $status = $a->{status} || $usual{status} || 200;
    my $body = defined $a->{body} ? $a->{body} : $usual{body};
    if (!defined $body) {
        $body = $status < 400 || $r->{method} eq 'HEAD' ? ''
            : "<Error><Code>Fake$status</Code><Message>as scripted</Message>"
            . '<RequestId>fake</RequestId></Error>';
    }
    my %headers = (
        'x-amz-request-id' => 'fake',
        $status == 204 ? () : ('Content-Length' => length $body),
        $body =~ /^</ ? ('Content-Type' => 'application/xml') : (),
        ($a->{close} || '') eq 'after' ? (Connection => 'close') : (),
        %{$usual{headers} || {}}, %{$a->{headers} || {}},
    );
    my $reason = $a->{reason} || ($status < 400 ? 'OK' : 'Scripted');
    return "HTTP/1.1 $status $reason\r\n" . join('',
        map { "$_: $headers{$_}\r\n" } grep { defined $headers{$_} }
        sort keys %headers) . "\r\n" . $body;
}

1;
