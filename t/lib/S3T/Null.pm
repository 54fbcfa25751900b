package S3T::Null;

# The null S3 (t/lib/s3_null.c), bodies of any length for it (body_gen.c) and
# from it (body_sink.c): what is too large, or too slow, for a real S3 and for
# files.

use strict;
use warnings;
no warnings 'portable';

use Exporter 'import';
use HTTP::Tiny;
use JSON::PP ();
use S3T::Util qw/ $TOP end_child lock_file read_file spawn state_dir wait_exit
    wait_for /;

our @EXPORT_OK = qw/ body_gen body_sink pattern /;

my $number = 0;
my $built;

sub _build {
    return if $built++;
    my $lock = lock_file(state_dir('run') . '/tools.lock');
    system('make', '-s', '-C', $TOP, '-f', 't/lib/tools.mk') == 0
        or die "the tools were not built\n";
}

# new(DIR, OPTIONS of s3_null): running
sub new {
    my ($class, $dir, @options) = @_;
    _build();
    my $base = "$dir/null-" . ++$number;
    my $s = bless { base => $base }, $class;
    $s->{pid} = spawn({ stderr => "$base.err" }, "$TOP/build/s3_null",
        '--port-file', $base, @options);
    wait_for { -s $base } or die 's3_null: ' . (read_file("$base.err") || '');
    ($s->{port}) = read_file($base) =~ /^port (\d+)/m;
    ($s->{tls_port}) = read_file($base) =~ /^tls-port (\d+)/m;
    return $s;
}

# url('tls'): of its TLS port, where the options ask for one
sub url {
    my ($s, $tls) = @_;
    return "https://localhost:$s->{tls_port}" if $tls;
    return "http://127.0.0.1:$s->{port}";
}

# the URL of a body that it makes: BYTES, options of s3_null_origin.c
sub origin {
    my ($s, $bytes, %o) = @_;
    my $query = join '&', map { "$_=$o{$_}" } sort keys %o;
    return $s->url . "/__body/$bytes" . ($query ? "?$query" : '');
}

# what it counted so far
sub stats {
    my ($s) = @_;
    my $r = HTTP::Tiny->new(proxy => undef, http_proxy => undef)
        ->get($s->url . '/__stats');
    return JSON::PP->new->decode($r->{content});
}

sub stop {
    my ($s) = @_;
    my $pid = delete $s->{pid} or return;
    end_child($pid);
}

# body_gen(DIR, URL, BYTES, OPTIONS): an object with running() and wait(), which
# returns { exit, status, json, sent }.
sub body_gen {
    my ($dir, $url, $bytes, @options) = @_;
    _build();
    my $base = "$dir/body-" . ++$number;
    my $pid = spawn({ stdout => $base, stderr => "$base.err" },
        'nice', "$TOP/build/body_gen", @options, $url, $bytes);
    return bless { pid => $pid, base => $base }, 'S3T::Null::Body';
}

# body_sink(DIR, URL, OPTIONS): the same for a GET whose body is dropped;
# wait() returns { exit, status, head, received, said }.
sub body_sink {
    my ($dir, $url, @options) = @_;
    _build();
    my $base = "$dir/sink-" . ++$number;
    my $pid = spawn({ stdout => $base, stderr => "$base.err" },
        'nice', "$TOP/build/body_sink", @options, $url);
    return bless { pid => $pid, base => $base }, 'S3T::Null::Sink';
}

# the first bytes of what --verify wants (t/lib/pattern.h)
sub pattern {
    my ($len) = @_;
    use integer;
    return substr pack('q<*', map { $_ * -0x61c8864680b583eb } 0 .. $len / 8),
        0, $len;
}

package S3T::Null::Body;

sub running {
    my ($s) = @_;
    $s->{exit} = S3T::Util::wait_exit($s->{pid}, 0.001) if !defined $s->{exit};
    return !defined $s->{exit};
}

# ended, or killed after so many seconds: its exit status
sub _end {
    my ($s, $timeout) = @_;
    $s->{exit} = S3T::Util::wait_exit($s->{pid}, $timeout || 900)
        if !defined $s->{exit};
    if (!defined $s->{exit}) {
        S3T::Util::end_child($s->{pid}, 'KILL');
        $s->{exit} = -1;
    }
    return $s->{exit} >> 8;
}

sub wait {
    my ($s, $timeout) = @_;
    my $exit = $s->_end($timeout);
    my $reply = S3T::Util::read_file($s->{base});
    my ($status) = $reply =~ m{^HTTP/1\.1 (\d+)};
    my ($body) = $reply =~ /\r\n\r\n(.*)/s;
    return {
        exit => $exit, status => $status || 0,
        json => scalar eval { JSON::PP->new->utf8->decode($body) },
        sent => S3T::Util::read_file("$s->{base}.err"),
    };
}

package S3T::Null::Sink;

our @ISA = 'S3T::Null::Body';

sub wait {
    my ($s, $timeout) = @_;
    my $exit = $s->_end($timeout);
    my $head = S3T::Util::read_file($s->{base});
    my $said = S3T::Util::read_file("$s->{base}.err");
    my ($status) = $head =~ m{^HTTP/1\.1 (\d+)};
    my ($received) = $said =~ /^received (\d+) bytes/;
    return { exit => $exit, status => $status || 0, head => $head,
        received => $received, said => $said };
}

1;
