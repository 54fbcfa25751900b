package S3T::Origin;

# Origins of downloads that are not nginx: node (t/lib/origin.js, which says what
# its query can ask for), python (http.server, HTTP/1.0) and php (php-fpm, FastCGI,
# t/lib/origin.php). They serve the files of one directory, which S3T's served()
# puts there.
#
#   my $path = $t->served(data(5 * MB));
#   my $o = $t->origin('node');
#   ... proxy_pass ${\$o->url}; ...        # php: ${\$o->pass}
#   $o->requests; $o->stop; $o->start;     # on the same port

use strict;
use warnings;

use File::Copy qw/ copy /;
use IO::Socket::INET;
use S3T::Util qw/ $TOP end_child free_port read_file read_json_lines spawn
    wait_for write_file /;

# new(KIND): dir (of the test file), files (their directory)
sub new {
    my ($class, $kind, %o) = @_;
    my $s = bless { kind => $kind, port => free_port(), %o }, $class;
    $s->{base} = "$s->{dir}/$kind-$s->{port}";
    $s->start;
    return $s;
}

sub _command {
    my ($s) = @_;
    my ($base, $port, $files) = @$s{qw/ base port files /};
    return ('node', "$TOP/t/lib/origin.js", $port, $files, "$base.requests")
        if $s->{kind} eq 'node';
    return ('python3', '-m', 'http.server', $port, '--bind', '127.0.0.1',
        '--directory', $files) if $s->{kind} eq 'python';

    # its workers are not root: they read a copy
    copy("$TOP/t/lib/origin.php", "$base.php") or die "origin.php: $!";
    my ($fpm) = glob '/usr/sbin/php-fpm*' or die 'no php-fpm';
    write_file("$base.conf", <<"EOC");
[global]
error_log = $base.log
daemonize = no
[www]
user = www-data
listen = 127.0.0.1:$port
pm = static
pm.max_children = 4
php_admin_value[output_buffering] = 0
EOC
    return ($fpm, '-F', '-y', "$base.conf");
}

sub start {
    my ($s) = @_;
    $s->{pid} = spawn({ stdout => "$s->{base}.out",
        stderr => "$s->{base}.err" }, $s->_command);
    wait_for {
        IO::Socket::INET->new(PeerAddr => "127.0.0.1:$s->{port}");
    } 60 or die "$s->{kind}: no answer: "
        . (read_file("$s->{base}.err") || '');
}

sub stop {
    my ($s, $signal) = @_;
    my $pid = delete $s->{pid} or return;
    end_child($pid, $signal);
}

sub port { $_[0]{port} }
sub url { "http://127.0.0.1:$_[0]{port}" }

# php: what a location says to have a request served by it
sub pass {
    my ($s) = @_;
    my %params = (SCRIPT_FILENAME => "$s->{base}.php",
        DOCUMENT_ROOT => $s->{files}, DOCUMENT_URI => '$document_uri',
        QUERY_STRING => '$query_string', REQUEST_METHOD => '$request_method',
        CONTENT_LENGTH => '$content_length', CONTENT_TYPE => '$content_type');
    return "fastcgi_pass 127.0.0.1:$s->{port};" . join '', map {
        " fastcgi_param $_ $params{$_};" } sort keys %params;
}

# node: { n, connection, method, url, headers } of each request that came, and,
# where it is over, { sent, whole }
sub requests {
    my ($s) = @_;
    my %by;
    for my $line (read_json_lines("$s->{base}.requests")) {
        $by{$line->{n}} = { %{$by{$line->{n}} || {}}, %$line };
    }
    return map { $by{$_} } sort { $a <=> $b } keys %by;
}

1;
