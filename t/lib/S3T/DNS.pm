package S3T::DNS;

# A name server on UDP that answers from a table of the test's:
#
#   my $dns = S3T::DNS->new(dir => DIR, names => {
#       'a.test'     => ['127.0.0.1', '127.0.0.2'],
#       '*.s3.test'  => ['127.0.0.1'],
#       'quiet.test' => 'SILENCE',
#       'bad.test'   => 'SERVFAIL',
#   });
#
# Any other name is NXDOMAIN. Addresses with a colon answer AAAA questions; a
# name without one of the asked kind has an empty answer.

use strict;
use warnings;

use IO::Socket::INET;
use JSON::PP ();
use S3T::Util qw/ append end_child free_port read_file read_json_lines spawn
    write_file /;
use Socket qw/ AF_INET6 inet_aton inet_pton /;

use constant { A => 1, AAAA => 28 };

# dir, names, ttl (seconds, 60), host (127.0.0.1), port (any)
sub new {
    my ($class, %o) = @_;
    my $s = bless { host => '127.0.0.1', ttl => 60, names => {}, %o }, $class;
    $s->{port} ||= free_port();
    $s->{base} = "$s->{dir}/dns-$s->{port}";
    $s->set(%{$s->{names}});
    my $socket = IO::Socket::INET->new(LocalAddr => $s->{host},
        LocalPort => $s->{port}, Proto => 'udp') or die "bind: $!";
    $s->{pid} = spawn({ stderr => "$s->{base}.errors" }, sub {
        while (defined(my $from = $socket->recv(my $query, 1500))) {
            my $answer = $s->_answer($query);
            $socket->send($answer, 0, $from) if defined $answer;
        }
    });
    return $s;
}

# for nginx's `resolver`
sub address {
    my ($s) = @_;
    return "$s->{host}:$s->{port}";
}

# Names are added or replaced, from the next question on.
sub set {
    my ($s, %names) = @_;
    %{$s->{names}} = (%{$s->{names}}, %names);
    write_file("$s->{base}.names", JSON::PP->new->encode($s->{names}));
}

# { name, type (A, AAAA or a number) } of each question so far
sub questions {
    my ($s) = @_;
    return read_json_lines("$s->{base}.questions");
}

sub stop {
    my ($s) = @_;
    my $pid = delete $s->{pid} or return;
    end_child($pid);
}

sub _find {
    my ($s, $name) = @_;
    my $names = JSON::PP->new->decode(read_file("$s->{base}.names"));
    return $names->{$name} if defined $names->{$name};
    return $names->{$name =~ s/^[^.]+/*/r};
}

sub _answer {
    my ($s, $query) = @_;
    my ($id) = unpack 'n', $query;
    my ($offset, @labels) = (12);
    while ((my $length = ord substr $query, $offset++, 1) > 0) {
        push @labels, substr $query, $offset, $length;
        $offset += $length;
    }
    my $question = substr $query, 12, $offset + 4 - 12;
    my $type = unpack 'n', substr $query, $offset, 2;
    my $name = lc join '.', @labels;

    my $kind = { A, 'A', AAAA, 'AAAA' }->{$type} || $type;
    append("$s->{base}.questions", JSON::PP->new->canonical->encode({
        name => $name, type => $kind }) . "\n");

    my $found = $s->_find($name);
    my $code = 0;
    my @addresses;
    if (ref $found) {
        @addresses = grep { $type == AAAA ? /:/ : $type == A && !/:/ } @$found;
    } else {
        $found = 'NXDOMAIN' if !defined $found;
        return undef if $found eq 'SILENCE';
        $code = { NXDOMAIN => 3, SERVFAIL => 2, REFUSED => 5 }->{$found};
    }

    return pack('n6', $id, 0x8180 | $code, 1, scalar @addresses, 0, 0)
        . $question . join '', map {
            my $data = $type == AAAA ? inet_pton(AF_INET6, $_) : inet_aton($_);
            pack 'nnnNn/a', 0xc00c, $type, 1, $s->{ttl}, $data;
        } @addresses;
}

1;
