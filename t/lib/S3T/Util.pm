package S3T::Util;

# Paths, ports, processes and waiting: what the other parts of the harness
# stand on.

use strict;
use warnings;

use Cwd ();
use Exporter 'import';
use Fcntl qw/ :flock /;
use File::Basename qw/ dirname /;
use File::Copy qw/ copy /;
use File::Path qw/ make_path /;
use File::Spec;
use File::Temp ();
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw/ sleep time /;

our @EXPORT_OK = qw/ $TOP $STATE append children end_child free_port ipv6
    lock_file open_dir place read_file read_json_lines spawn state_dir
    wait_child wait_exit wait_for write_file /;

our $TOP = Cwd::realpath(dirname(__FILE__) . '/../../..');
our $STATE = Cwd::realpath($ENV{S3T_STATE} || "$TOP/build/t")
    || $ENV{S3T_STATE} || "$TOP/build/t";


# These name authorities, proxies and accounts of the outer world.
delete @ENV{qw/ AWS_CA_BUNDLE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE SSL_CERT_FILE
    SSL_CERT_DIR http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy
    ALL_PROXY /};
delete @ENV{grep { /^AWS_/ } keys %ENV};

# A peer that goes away is an error of the write, not the end of the test.
$SIG{PIPE} = 'IGNORE';

my %locks;     # kept open: a closed file is an unlocked one
my %children;  # started here and not yet gone: id => 1


sub state_dir {
    my $dir = join '/', $STATE, @_;
    make_path($dir);
    return $dir;
}

# A new directory below this one that everybody can reach: nginx's workers are
# not root.
sub open_dir {
    my ($parent, $name) = @_;
    my $path = '';
    my $reachable = 1;
    for (split m{/}, $parent) {
        $path .= "$_/";
        $reachable = 0 if !((stat $path)[2] & 1);
    }
    my $dir = File::Temp::tempdir("$name-XXXX",
        DIR => $reachable ? $parent : File::Spec->tmpdir);
    chmod 0755, $dir;
    return $dir;
}

# A large file under another name, which those can read who cannot reach its own.
# (Another file system has no room in its directories for the same file.)
sub place {
    my ($from, $to) = @_;
    link $from, $to or copy($from, $to) or die "$to: $!";
    return $to;
}

sub read_file {
    my ($path) = @_;
    open my $fh, '<:raw', $path or return undef;
    local $/;
    my $text = <$fh>;
    return defined $text ? $text : '';
}

# Whole or not at all, for readers in other processes.
sub write_file {
    my ($path, $text) = @_;
    open my $fh, '>:raw', "$path.$$" or die "$path: $!";
    print $fh $text;
    close $fh or die "$path: $!";
    rename "$path.$$", $path or die "$path: $!";
    return $path;
}

sub append {
    my ($path, $text) = @_;
    open my $fh, '>>:raw', $path or die "$path: $!";
    flock $fh, LOCK_EX;
    print $fh $text;
    close $fh;
}

# (A line of which only the beginning is there is not written yet.)
sub read_json_lines {
    my ($path) = @_;
    require JSON::PP;
    my $text = read_file($path);
    return () if !defined $text;
    return map { JSON::PP->new->utf8->decode($_) } $text =~ /^(.*)\n/mg;
}

# Held until the process ends; in 'try' mode returns false when another has it.
sub lock_file {
    my ($path, $mode) = @_;
    make_path(dirname($path));
    open my $fh, '>>', $path or die "$path: $!";
    my %flags = (shared => LOCK_SH, try => LOCK_EX | LOCK_NB);
    flock $fh, $mode ? $flags{$mode} : LOCK_EX or return;
    $locks{$path} = $fh if !defined wantarray || $mode;
    return $fh;
}

# A loopback port that no other test file of this tree is given while this one
# runs, outside the range from which the kernel serves those who ask for any.
sub free_port {
    for (1 .. 1000) {
        my $port = 10000 + int rand 20000;
        my $path = state_dir('ports') . "/$port";
        next if $locks{$path} || !lock_file($path, 'try');
        my %address = (LocalAddr => '127.0.0.1', LocalPort => $port);
        return $port
            if IO::Socket::INET->new(%address, Proto => 'tcp', Listen => 1)
            && IO::Socket::INET->new(%address, Proto => 'udp');
        delete $locks{$path};
    }
    die "no free port";
}

# False, and said openly, where the kernel has no ::1 at all.
sub ipv6 {
    return 1 if (read_file('/proc/net/if_inet6') || '') =~ /^0{31}1 /m;
    print STDERR "# no IPv6 in this kernel: it is not tested\n";
    return 0;
}

# Polls until the code returns something true, and returns that. The time (30 s)
# is that of a slow machine: only a failure takes as long. The last look is after
# it, however long this process had to stand still.
sub wait_for(&;$$) {
    my ($code, $timeout, $interval) = @_;
    my $end = time + ($timeout || 30);
    while (1) {
        my $over = time > $end;
        my $value = $code->();
        return $value if $value || $over;
        sleep($interval || 0.03);
    }
}

# spawn({ env, stdin, stdout, stderr }, COMMAND or CODE): the process id.
# A code reference runs in a child that never runs the parent's END blocks.
sub spawn {
    my ($o, @command) = @_;
    my $pid = fork;
    die "fork: $!" if !defined $pid;
    if ($pid) {
        $children{$pid} = 1;
        return $pid;
    }

    # a child that fails here must not return into the parent's test
    eval {
        %children = ();
        $SIG{$_} = 'DEFAULT' for qw/ INT TERM HUP PIPE CHLD /;
        @ENV{keys %{$o->{env}}} = values %{$o->{env}} if $o->{env};
        open STDIN, '<', $o->{stdin} || '/dev/null' or die $!;
        open STDOUT, '>', $o->{stdout} || '/dev/null' or die $!;
        if ($o->{stderr}) {
            open STDERR, '>>', $o->{stderr} or die $!;
        }
        if (ref $command[0] eq 'CODE') {
            $SIG{PIPE} = 'IGNORE';
            $command[0]->(@command[1 .. $#command]);
            POSIX::_exit(0);
        }
        no warnings 'exec';
        exec { $command[0] } @command;
        die "exec $command[0]: $!";
    };
    print STDERR $@;
    POSIX::_exit(127);
}

# those that were started and not waited for
sub children { return sort { $a <=> $b } keys %children }

# The status ($?) of a child once it is gone, undef when it stays.
sub wait_exit {
    my ($pid, $timeout) = @_;
    my $status;
    wait_for {
        my $got = waitpid $pid, POSIX::WNOHANG();
        if ($got) {
            $status = $got == $pid ? $? : 0;
            delete $children{$pid};
        }
        return $got;
    } $timeout, defined $timeout && $timeout < 0.03 ? $timeout : undef;
    return $status;
}

# The status of a child, as soon as it is gone.
sub wait_child {
    my ($pid) = @_;
    waitpid $pid, 0;
    delete $children{$pid};
    return $?;
}

# Ends a child of ours: by the signal, and by force when that is not heard.
# True when the signal was enough.
sub end_child {
    my ($pid, $signal, $timeout) = @_;
    kill $signal || 'TERM', $pid;
    return 1 if defined wait_exit($pid, $timeout || 20);
    kill 'KILL', $pid;
    wait_exit($pid, 60);
    return 0;
}

1;
