package S3T::Curl;

# Clients as child processes: curl, and an HTTP/2 client that stops where it is
# told to.

use strict;
use warnings;

use Digest::SHA ();
use Exporter 'import';
use JSON::PP ();
use S3T::Util qw/ $TOP end_child read_file spawn state_dir wait_exit write_file /;

our @EXPORT_OK = qw/ curl curl_start h2_put h2_start h2_wait /;

our $DIR;          # the test file's own directory
our @RESPONSES;    # texts of all answers, looked through for secrets

my $number = 0;

# curl(URL, options): waits, and returns
#   { exit, status, version, headers, body, json, interim, seconds, sent }
# status 0: no answer. headers: lower case names. interim: 100 and the like.
# json: the decoded body, undef when it is none.
#
#   method     PUT when there is a body, else GET
#   file       path of the body, or what data() returned
#   body       the body as a string
#   chunked    Transfer-Encoding: chunked
#   h2         HTTP/2: by prior knowledge on http, by ALPN on https
#   ca         trust this authority
#   headers    [ 'Name: value', ... ]
#   rate       --limit-rate
#   expect     let curl ask for 100 Continue
#   timeout    seconds for all (600)
#   resolve    'host:port:address'
#   args       more arguments for curl
#   digest     the answer gets sha256 and size, the body stays away if large
sub curl {
    return curl_start(@_)->wait;
}

# The same without waiting: an object with wait(), running(), kill(SIGNAL).
sub curl_start {
    my ($url, %o) = @_;
    my $base = "$DIR/curl-" . ++$number;
    my $file = ref $o{file} ? $o{file}{path} : $o{file};
    $file = write_file("$base.in", $o{body}) if defined $o{body};

    my @c = ('curl', '-qsS', '--noproxy', '*', '--globoff', '--path-as-is',
        '-o', "$base.body", '-D', "$base.head", '--max-time',
        $o{timeout} || 600, '-w', '%{http_code} %{http_version} %{time_total}'
        . ' %{size_upload}');

    # a pipe has no length; after a slash, -T would put the file's name
    if ($o{chunked}) {
        push @c, '-T', '-', $o{h2} ? () : ('-H', 'Transfer-Encoding: chunked');

    } elsif (defined $file) {
        push @c, $url =~ m{/(\?|$)} ? ('--data-binary', "\@$file",
            '-H', 'Content-Type:') : ('-T', $file);
    }
    push @c, '-X', $o{method} || (defined $file ? 'PUT' : 'GET');
    push @c, $url =~ /^https/ ? '--http2' : '--http2-prior-knowledge'
        if $o{h2};
    push @c, '--http1.1' if !$o{h2};
    push @c, '--cacert', $o{ca} if $o{ca};
    push @c, '--limit-rate', $o{rate} if $o{rate};
    push @c, '-H', 'Expect:' if !$o{expect};
    push @c, '--resolve', $o{resolve} if $o{resolve};
    push @c, map { ('-H', $_) } @{$o{headers} || []};
    push @c, @{$o{args} || []}, $url;

    my $pid = spawn({
        stdout => "$base.out", stderr => "$base.err",
        $o{chunked} ? (stdin => $file) : (),
    }, @c);

    return bless { pid => $pid, base => $base, digest => $o{digest},
        timeout => $o{timeout} || 600 }, __PACKAGE__;
}

# An HTTP/2 upload that may stop anywhere (t/lib/h2put says more):
# h2_put(PORT, PATH, FILE, length => announced, send => bytes, then => 'end',
# 'close', 'reset', 'cancel', 'wait', 'end-close' …, also => n, tls => ca,
# method => 'GET', take => bytes of the answer before "then", pause => s between
# them, timeout => s): { status, headers, body, json, others }, status 0 where no
# answer came.
sub h2_put {
    return h2_wait(h2_start(@_));
}

# the same, meanwhile; hold => bytes, until => file: see t/lib/h2put
sub h2_start {
    my ($port, $path, $file, %o) = @_;
    my $out = "$DIR/h2put-" . ++$number;
    return { out => $out, pid => spawn({ stdout => $out, stderr => "$out.err" },
        "$TOP/t/lib/h2put", $port, $path, ref $file ? $file->{path} : $file,
        map { ("--$_", $o{$_}) } grep { defined $o{$_} } sort keys %o) };
}

sub h2_wait {
    my ($started) = @_;
    my $out = $started->{out};
    wait_exit($started->{pid}, 600);
    my $text = read_file($out);
    die 'h2put: ' . read_file("$out.err") if $text eq '';
    push @RESPONSES, $text;
    my $r = JSON::PP->new->utf8->decode($text);
    $r->{json} = eval { JSON::PP->new->decode($r->{body}) };
    return $r;
}

sub running {
    my ($s) = @_;
    return !defined $s->{status} && !$s->_reap(0.001);
}

sub _reap {
    my ($s, $timeout) = @_;
    my $status = wait_exit($s->{pid}, $timeout);
    $s->{status} = $status if defined $status;
    return defined $status;
}

sub kill {
    my ($s, $signal) = @_;
    end_child($s->{pid}, $signal || 'KILL');
    $s->{status} = -1;
}

sub wait {
    my ($s) = @_;
    if (!defined $s->{status} && !$s->_reap($s->{timeout} + 10)) {
        $s->kill;
    }
    return $s->{response} ||= {
        $s->{digest} ? _digest("$s->{base}.body") : (),
        %{_response($s->{base}, $s->{status})},
    };
}

# What is too large to be looked at is not read either.
sub _digest {
    my ($path) = @_;
    my $size = -s $path || 0;
    my $sha = Digest::SHA->new(256);
    $sha->addfile($path) if -e $path;
    unlink $path if $size >= 1 << 20;
    return (sha256 => $sha->hexdigest, size => $size);
}

sub _response {
    my ($base, $exit) = @_;
    my ($status, $version, $seconds, $sent) =
        split / /, read_file("$base.out") || '';
    my $body = read_file("$base.body");
    my $head = read_file("$base.head") || '';
    push @RESPONSES, $head . (length($body || '') < 1 << 20 ? $body || '' : '');

    my @blocks = map { [split /\r\n/] } split /\r\n\r\n/, $head;
    my $last = pop @blocks || [''];
    my %headers;
    for my $line (@$last[1 .. $#$last]) {
        my ($name, $value) = split /:\s*/, $line, 2;
        $name = lc $name;
        $headers{$name} = defined $headers{$name}
            ? "$headers{$name}, $value" : $value;
    }

    return {
        exit => $exit == -1 ? -1 : $exit >> 8,
        status => ($status || 0) + 0,
        version => $version,
        seconds => ($seconds || 0) + 0,
        sent => ($sent || 0) + 0,
        headers => \%headers,
        interim => [map { (split / /, $_->[0])[1] } @blocks],
        body => defined $body ? $body : '',
        # (what is none takes it seconds to find out)
        json => scalar eval { ($body || '') =~ /^\s*[\[{]/
            && JSON::PP->new->utf8->decode($body) || undef },
        error => read_file("$base.err"),
    };
}

1;
