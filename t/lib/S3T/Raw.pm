package S3T::Raw;

# A client connection under the test's control, byte for byte.

use strict;
use warnings;

use Exporter 'import';
use IO::Select;
use IO::Socket::INET;
use Scalar::Util qw/ weaken /;
use Socket qw/ SOL_SOCKET SO_LINGER SO_RCVBUF SO_SNDBUF /;
use Time::HiRes qw/ sleep time /;

use constant TIOCOUTQ => 0x5411;

our @EXPORT_OK = qw/ h2_frame /;

# what each connection was sent, looked through for secrets: references
our @ANSWERS;

my @open;     # what a test left open is closed before nginx is asked to leave

# a frame of HTTP/2, by default of the first stream
sub h2_frame {
    my ($type, $flags, $payload, $stream) = @_;
    return pack('CnCCN', length($payload) >> 16, length($payload) & 0xffff,
        $type, $flags, defined $stream ? $stream : 1) . $payload;
}

# connect(PORT): tls => ca, host and alpn (for TLS), sndbuf, rcvbuf
sub connect {
    my ($class, $port, %o) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
        PeerPort => $port, Proto => 'tcp', Timeout => 30)
        or die "connect $port: $@";
    setsockopt $socket, SOL_SOCKET, SO_SNDBUF, pack 'i', $o{sndbuf}
        if $o{sndbuf};
    setsockopt $socket, SOL_SOCKET, SO_RCVBUF, pack 'i', $o{rcvbuf}
        if $o{rcvbuf};
    if ($o{tls}) {
        require IO::Socket::SSL;
        IO::Socket::SSL->start_SSL($socket, SSL_ca_file => $o{tls},
            SSL_hostname => $o{host} || 'localhost',
            $o{alpn} ? (SSL_alpn_protocols => [$o{alpn}]) : (),
            SSL_verifycn_scheme => 'http',
            SSL_verifycn_name => $o{host} || 'localhost')
            or die "TLS: " . IO::Socket::SSL::errstr();
    }
    $socket->autoflush(1);
    my $s = bless { socket => $socket, read => '' }, $class;
    my $all = '';
    $s->{all} = \$all;
    push @ANSWERS, \$all;
    push @open, $s;
    weaken $open[-1];
    return $s;
}

# All of the bytes; false when the peer is gone first. Blocks while the peer
# does not read.
sub send {
    my ($s, $bytes) = @_;
    my $done = 0;
    while ($done < length $bytes) {
        my $n = syswrite $s->{socket}, $bytes, 1 << 16, $done;
        return 0 if !$n;
        $done += $n;
    }
    return 1;
}

# Returns once the peer's kernel has all that was sent: a reset drops the rest.
sub delivered {
    my ($s, $timeout) = @_;
    my $end = time + ($timeout || 30);
    my $left = pack 'i', 1;
    while (unpack('i', $left) && time < $end) {
        ioctl $s->{socket}, TIOCOUTQ, $left or die "TIOCOUTQ: $!";
        sleep 0.001;
    }
    return !unpack 'i', $left;
}

# What has arrived until the pattern matches, the peer closed, or the time is
# over.
sub read_until {
    my ($s, $pattern, $timeout) = @_;
    my $end = time + ($timeout || 30);
    my $select = IO::Select->new($s->{socket});
    until ($s->{read} =~ $pattern) {
        my $pending = $s->{socket}->can('pending') && $s->{socket}->pending;
        last if !$pending && !$select->can_read($end - time > 0
            ? $end - time : 0);
        my $n = sysread $s->{socket}, $s->{read}, 1 << 16, length $s->{read};
        if (!$n) {
            $s->{eof} = 1;
            last;
        }
        ${$s->{all}} .= substr $s->{read}, -$n if length ${$s->{all}} < 1 << 20;
    }
    return $s->{read};
}

# So many bytes, which nobody looks at; false when the peer closed before.
sub skip {
    my ($s, $bytes) = @_;
    while ($bytes > 0) {
        my $n = sysread $s->{socket}, my $piece, $bytes < 65536 ? $bytes : 65536
            or return 0;
        $bytes -= $n;
    }
    return 1;
}

# One answer with Content-Length: { status, headers, body }, undef when none
# came. Further answers stay for the next call.
sub response {
    my ($s, $timeout) = @_;
    $s->read_until(qr/\r\n\r\n/, $timeout);
    $s->{read} =~ s/^(HTTP.*?)\r\n\r\n//s or return undef;
    my ($first, @lines) = split /\r\n/, $1;
    my %headers = map { my ($n, $v) = split /:\s*/, $_, 2; (lc $n, $v) } @lines;
    my $length = $headers{'content-length'} || 0;
    $s->read_until(qr/^.{$length}/s, $timeout) if $length && $length < 32766;
    return {
        status => (split / /, $first)[1], headers => \%headers,
        body => substr($s->{read}, 0, $length, ''),
    };
}

# true once the peer closed
sub closed {
    my ($s, $timeout) = @_;
    $s->read_until(qr/\z./, $timeout) if !$s->{eof};
    return $s->{eof};
}

sub half_close {
    my ($s) = @_;
    shutdown $s->{socket}, 1;
}

# an RST instead of a FIN
sub reset {
    my ($s) = @_;
    setsockopt $s->{socket}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    $s->close;
}

sub close {
    my ($s) = @_;
    my $socket = delete $s->{socket} or return;
    $socket->can('stop_SSL') ? $socket->close(SSL_no_shutdown => 1)
        : CORE::close $socket;
}

sub close_all {
    $_->close for grep { defined } @open;
}

1;
