package S3T::Crowd;

# Many clients at once that send some bytes of a body and then nothing:
#
#   my $crowd = S3T::Crowd->new($port, 300, sub { "/stalled$_[0]" },
#       send => 200_000, length => 100_000_000);
#   ...
#   $crowd->go_on(50);        # so many of them send the rest
#   $crowd->stop;
#
# They run in a process of their own, since what nginx does not read yet has to
# be offered again and again. An answer makes a client leave.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use S3T::Util qw/ end_child read_file spawn write_file /;
use Time::HiRes qw/ time /;

my $number = 0;

# new(DIR, PORT, COUNT, PATH of the i-th): send, length; chunked: no length
sub new {
    my ($class, $dir, $port, $count, $path, %o) = @_;
    my $s = bless { file => "$dir/crowd-" . ++$number }, $class;
    $s->{pid} = spawn({ stderr => "$s->{file}.err" }, sub {
        _run($s->{file}, $port, $count, $path, \%o);
    });
    return $s;
}

sub stop {
    my ($s) = @_;
    my $pid = delete $s->{pid} or return;
    end_child($pid);
}

# the first so many send all
sub go_on {
    my ($s, $count) = @_;
    write_file("$s->{file}.go", $count);
}

# status of those that were answered: { index => status }
sub answers {
    my ($s) = @_;
    return { (read_file("$s->{file}.answers") || '') =~ /^(\d+) (\d+)$/mg };
}

sub _run {
    my ($file, $port, $count, $path, $o) = @_;
    my $block = 'x' x 65536;
    my (%client, $going);
    my ($readers, $writers) = (IO::Select->new, IO::Select->new);
    open my $answers, '>>', "$file.answers" or die $!;
    $answers->autoflush(1);
    for my $i (0 .. $count - 1) {
        my $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port",
            Timeout => 60) or die "connect: $@";
        $c->blocking(0);
        my $head = 'PUT ' . $path->($i) . " HTTP/1.1\r\nHost: a\r\n"
            . "Connection: close\r\nContent-Length: $o->{length}\r\n\r\n";
        $client{$c} = { i => $i, left => $o->{send}, sent => 0, head => $head };
        $readers->add($c);
        $writers->add($c);
    }
    while (%client) {
        if (!$going && -s "$file.go") {
            $going = read_file("$file.go");
            for my $c ($readers->handles) {
                next if $client{$c}{i} >= $going;
                $client{$c}{left} = $o->{length} - $client{$c}{sent};
                $writers->add($c);
            }
        }
        my ($r, $w) = IO::Select->select($readers, $writers, undef, 0.1);
        for my $c (@{$r || []}) {
            my $n = sysread $c, my $buf, 65536;
            next if !defined $n && $!{EAGAIN};
            print $answers "$client{$c}{i} $1\n"
                if $n && $buf =~ m{^HTTP/1.1 ([2-5]\d\d)};
            if (!$n || $buf =~ m{^HTTP/1.1 [2-5]}) {
                delete $client{$c};
                $_->remove($c) for $readers, $writers;
                close $c;
            }
        }
        for my $c (@{$w || []}) {
            my $client = $client{$c} or next;
            if (length $client->{head}) {
                my $n = syswrite $c, $client->{head};
                substr($client->{head}, 0, $n) = '' if $n;
                next;
            }
            my $n = syswrite $c, $block, $client->{left} < 65536
                ? $client->{left} : 65536;
            if ($n) {
                $client->{left} -= $n;
                $client->{sent} += $n;
            }
            $writers->remove($c) if !$client->{left};
        }
    }
}

1;
