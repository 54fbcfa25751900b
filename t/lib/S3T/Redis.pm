package S3T::Redis;

# A Redis client of a few lines, a server of a test's own, and MONITOR.

use strict;
use warnings;

use IO::Socket::INET;
use Socket qw/ SOL_SOCKET SO_RCVTIMEO /;
use S3T::Util qw/ end_child free_port read_file spawn wait_for /;

# port, user, password. Connects with the first command, again after an error.
sub new {
    my ($class, %o) = @_;
    return bless { %o }, $class;
}

sub cmd {
    my ($s, @args) = @_;
    if (!$s->{socket}) {
        $s->{socket} = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
            PeerPort => $s->{port}, Timeout => 30) or die "redis: $@";
        $s->cmd('AUTH', $s->{user} || (), $s->{password})
            if defined $s->{password};
    }
    my $socket = $s->{socket};
    my $text = sprintf "*%d\r\n", scalar @args;
    $text .= sprintf "\$%d\r\n%s\r\n", length, $_ for @args;
    print $socket $text;
    return $s->_reply;
}

sub _reply {
    my ($s) = @_;
    my $socket = $s->{socket};
    local $/ = "\r\n";
    my $line = <$socket>;
    if (!defined $line) {
        delete $s->{socket};
        die "redis: connection closed\n";
    }
    chomp $line;
    my $type = substr $line, 0, 1, '';
    return $line if $type eq '+' || $type eq ':';
    die "redis: $line\n" if $type eq '-';
    return undef if $line < 0;
    return [map { $s->_reply } 1 .. $line] if $type eq '*';
    read $socket, my $text, $line + 2;
    return substr $text, 0, $line;
}

# the hash as a reference, undef when there is no such key
sub hgetall {
    my ($s, $key) = @_;
    my %hash = @{$s->cmd('HGETALL', $key)};
    return %hash ? \%hash : undef;
}

# Everything that the server is told from now on: an object with lines(), which
# returns those that hold a string, and stop(). Lines are as MONITOR has them,
# commands of a script included: time [db client] "HSET" "key" … What the server
# was told before lines() is in them.
sub monitor {
    my ($s, $path) = @_;
    my $pid = spawn({ stdout => $path }, 'redis-cli', '-p', $s->{port},
        defined $s->{password} ? ('-a', $s->{password}, '--no-auth-warning')
        : (), 'monitor');
    wait_for { (read_file($path) || '') =~ /OK/ } or die "no MONITOR";
    return bless { pid => $pid, path => $path, marks => 0,
        redis => S3T::Redis->new(map { $_ => $s->{$_} } qw/ port user password /)
    }, 'S3T::Redis::Monitor';
}

# After SUBSCRIBE: the next message, undef when none comes within 30 s.
sub message {
    my ($s) = @_;
    setsockopt $s->{socket}, SOL_SOCKET, SO_RCVTIMEO, pack 'l!l!', 30, 0;
    my $reply = eval { $s->_reply };
    return $reply && $reply->[2];
}

# A server of its own: port (else a free one), password, args [ ] (more
# arguments of redis-server)
sub server {
    my ($class, %o) = @_;
    my $s = $class->new(port => free_port(), %o);
    $s->start;
    return $s;
}

sub start {
    my ($s) = @_;
    delete $s->{socket};
    $s->{pid} = spawn({}, 'redis-server', '--bind', '127.0.0.1', '--port',
        $s->{port}, '--save', '', '--appendonly', 'no',
        defined $s->{password} ? ('--requirepass', $s->{password}) : (),
        @{$s->{args} || []});
    wait_for { eval { $s->cmd('PING') } } or die "redis-server: no answer";
}

# STOP: alive, but deaf until CONT
sub signal {
    my ($s, $signal) = @_;
    kill $signal, $s->{pid};
}

# with KILL as a crash
sub stop {
    my ($s, $signal) = @_;
    delete $s->{socket};
    my $pid = delete $s->{pid} or return;
    end_child($pid, $signal);
}

package S3T::Redis::Monitor;

# redis-cli may be behind: a mark that it has to come to (unless the server is
# gone)
sub lines {
    my ($s, $string) = @_;
    my $mark = "mark-$$-" . ++$s->{marks};
    if ($s->{pid} && eval { $s->{redis}->cmd('ECHO', $mark) }) {
        S3T::Util::wait_for {
            index(S3T::Util::read_file($s->{path}), "\"$mark\"\n") >= 0
        };
    }
    return grep { !/"mark-$$-\d+"$/
        && (!defined $string || index($_, $string) >= 0) }
        split /\n/, S3T::Util::read_file($s->{path});
}

sub stop {
    my ($s) = @_;
    my $pid = delete $s->{pid} or return;
    S3T::Util::end_child($pid);
}

1;
