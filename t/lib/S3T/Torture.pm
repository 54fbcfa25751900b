package S3T::Torture;

# Lets the N-th allocation, connect, recv, send and so on of a worker fail
# (t/lib/torture.c does it), and a client that bears whatever comes of it.
#
#   my $torture = S3T::Torture->new($t->dir);
#   my $n = $t->nginx($conf, env => $torture->env);
#   $torture->count('alloc');          # from now on
#   ...
#   my $count = $torture->off->{count};
#   $torture->fail('recv', 3, mode => 'short', times => 1, pid => $worker);

use strict;
use warnings;

use Exporter 'import';
use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw/ time /;
use S3T::Null;
use S3T::Util qw/ $TOP read_file write_file /;

our @EXPORT_OK = qw/ talk /;

my %OP = (off => 0, alloc => 1, connect => 2, recv => 3, send => 4,
    socket => 5, epoll => 6, mmap => 7, fetch => 8);
my %MODE = (error => 0, short => 1, again => 2, eof => 3, place => 4, cut => 5);

use constant SIZE => 56 + 3968;

sub new {
    my ($class, $dir) = @_;
    S3T::Null::_build();
    my $path = write_file("$dir/torture", "\0" x SIZE);
    chmod 0666, $path;
    open my $fh, '+<:raw', $path or die "$path: $!";
    return bless { path => $path, fh => $fh }, $class;
}

sub env {
    my ($s) = @_;
    return { LD_PRELOAD => "$TOP/build/torture.so", TORTURE => $s->{path} };
}

sub _at {
    my ($s, $offset, $bytes) = @_;
    sysseek $s->{fh}, $offset, 0;
    syswrite $s->{fh}, $bytes;
}

# mode: error, short (one byte), again (EAGAIN), eof; cut, for send and with
# times => 2: half of it, then an error; place, for alloc: the N-th place in the
# code that allocates, with its callers.
# pid: of the only worker that is meant, less than 0: of the only one that is
# not
sub fail {
    my ($s, $op, $n, %o) = @_;
    $s->_at(0, pack 'L', 0);
    # not "live": it counts all the time
    $s->_at(4, pack 'LLlQQQ', $MODE{$o{mode} || 'error'}, $o{times} || 1,
        $o{pid} || 0, $n, 0, 0);
    $s->_at(48, pack 'LL', 0, 0);
    $s->_at(56, "\0" x 3968);
    $s->_at(0, pack 'L', $OP{$op} // die "no such operation: $op");
}

sub count {
    my ($s, $op, %o) = @_;
    $s->fail($op, 0, %o);
}

# { count, fired, live, ours, by (a pid), stack [ ] }: what became of it
sub look {
    my ($s) = @_;
    sysseek $s->{fh}, 0, 0;
    sysread $s->{fh}, my $bytes, SIZE;
    my (undef, undef, undef, undef, undef, $count, $fired, $live, $ours, $by,
        $text) = unpack 'LLLlQQQqLLZ*', $bytes;
    return { count => $count, fired => $fired, live => $live, ours => $ours,
        by => $by, stack => [split /\n/, $text] };
}

sub off {
    my ($s) = @_;
    $s->_at(0, pack 'L', 0);
    return $s->look;
}

# "function file:line" of each frame that has debug information, of the module
# and of nginx
sub names {
    my (undef, $look, $module_path, $binary) = @_;
    my ($ours) = $module_path =~ m{([^/]+)$};
    my @names;
    for (@{$look->{stack}}) {
        my ($module, $offset) = /^(.*)\+(0x\w+)$/;
        # a process may have changed its name
        my $path = $module eq $ours ? $module_path
            : $module =~ /\.so/ ? undef : $binary;
        my @said = $path ? split /\n/,
            `addr2line -sfe $path @{[sprintf '0x%x', hex($offset) - 1]}` : ();
        push @names, @said && $said[0] ne '??' ? join(' ', @said) : $_;
    }
    return @names;
}

# Sends all of the bytes as fast as the peer takes them, and reads until it
# closes: { status, head, body }, status 0: no answer, hung: not closed within
# the time.
sub talk {
    my ($port, $bytes, $timeout) = @_;
    my $end = time + ($timeout || 60);
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
        PeerPort => $port, Timeout => 5) or return { status => 0, refused => 1 };
    $socket->blocking(0);
    my ($done, $said, $hung) = (0, '', 0);
    my $read = IO::Select->new($socket);
    my $write = IO::Select->new($socket);
    while (1) {
        my $left = $end - time;
        if ($left <= 0) {
            $hung = 1;
            last;
        }
        my ($r, $w) = IO::Select->select($read, $done < length $$bytes ? $write
            : undef, undef, $left);
        if ($w && @$w) {
            my $n = syswrite $socket, $$bytes, 1 << 18, $done;
            # it may have answered before it closed
            $done = $n ? $done + $n : $!{EAGAIN} ? $done : length $$bytes;
        }
        if ($r && @$r) {
            my $n = sysread $socket, $said, 1 << 16, length $said;
            last if !$n && !$!{EAGAIN} || defined $n && !$n;
        }
    }
    my ($status) = $said =~ m{^HTTP/1\.1 (\d+)};
    my ($head, $body) = split /\r\n\r\n/, $said, 2;
    return { status => $status || 0, head => $head, body => $body,
        hung => $hung };
}

1;
