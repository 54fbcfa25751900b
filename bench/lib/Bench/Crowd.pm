package Bench::Crowd;

# Many uploads at once (t/lib/body_crowd.c) through an nginx with s3_memory.
#
#   my $n = crowd_nginx($b, $null);
#   my $got = crowd($b, $n, connections => 8, uploads => 1000, size => 1e6);

use strict;
use warnings;

use Exporter 'import';
use HTTP::Tiny;
use JSON::PP ();
use S3T::Util qw/ $TOP read_file spawn wait_exit wait_for /;
use Time::HiRes qw/ sleep time /;

use Bench;

our @EXPORT_OK = qw/ crowd crowd_nginx stalled totals /;

# core's buffer of a body, KiB
use constant BUFFER => 64;

# What a server does not read yet lies in the kernel: of a thousand connections
# that are as fast as loopback it soon is more than tcp_mem, and what a kernel
# under pressure drops costs seconds. So the socket's buffer has a bound.

my $number = 0;
my $conf = <<'END';
%%MAIN%%
http {
    %%HTTP%%
    client_body_buffer_size %%BUFFER%%;
    client_body_timeout 1h;
    s3_memory %%MEMORY%%;
    s3_queue_timeout 10m;
    s3_endpoint %%S3%%;
    s3_bucket bucket;
    s3_credentials static benchmark benchmark-secret;
    s3_payload_signature off;
    upstream s3 { server 127.0.0.1:%%S3_PORT%%; keepalive 16; }
    server {
        listen 127.0.0.1:%%PORT%% backlog=4096 rcvbuf=256k;
        access_log off;
        location / { s3_upload; }
        location /status/ { s3_status list; }
        location /core/ { proxy_pass http://s3; }
        location /raw/ {
            proxy_pass http://s3;
            proxy_request_buffering off;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}
END

# An nginx of one worker with s3_memory 256m: memory => size.
sub crowd_nginx {
    my ($b, $null, %o) = @_;
    return $b->nginx($conf, null => $null, connections => 4096,
        buffer => ($o{buffer} || BUFFER) . 'k', tokens => { MEMORY => $o{memory} || '256m' });
}

sub _status {
    my ($n, $query) = @_;
    my $r = HTTP::Tiny->new(proxy => undef, http_proxy => undef)
        ->get($n->url("/status/$query"));
    die "bench: no status\n" if $r->{status} != 200;
    return JSON::PP->new->decode($r->{content});
}

sub totals { return _status($_[0], '?limit=1')->{totals} }

# uploads of size bytes each, connections at a time, all of which must arrive
# whole: { cpu, wall }, seconds a GiB. raw => 1: through proxy_pass; during:
# called every 50 ms meanwhile; warm => 1: after as many uploads as connections,
# so that the worker has its blocks again, which go when it idles.
sub crowd {
    my ($b, $n, %o) = @_;
    crowd($b, $n, %o, warm => 0, uploads => $o{connections}) if $o{warm};
    my $said = $b->dir . '/crowd-' . ++$number;
    my $bytes = $o{size} * $o{uploads};
    my $before = $n->{null}->stats;
    my $cpu = cpu($n->{worker});
    my $from = time;
    my $pid = spawn({ stdout => $said, stderr => $said },
        "$TOP/build/body_crowd", '--connections', $o{connections},
        $n->url($o{raw} ? "/raw/$number-" : "/$number-"), $o{size},
        $o{uploads});

    my $failed;
    until (defined($failed = wait_exit($pid, 0.001))) {
        $o{during}->() if $o{during};
        sleep 0.05;
    }

    my ($wall) = read_file($said) =~ /^([\d.]+) s$/m;
    my $after = $b->settled($n->{null});

    # what the worker does after the last answer counts too

    sleep 0.1;
    $cpu = cpu($n->{worker}) - $cpu;
    $b->fail("uploads failed\n" . read_file($said), $n) if $failed;
    $b->arrived($before, $after, $o{uploads}, $bytes)
        or $b->fail("uploads did not arrive whole\n", $n);
    return { cpu => $cpu / $bytes * 2 ** 30, wall => $wall / $bytes * 2 ** 30 };
}

# bytes that came of transfers that are not over
sub _arrived {
    my ($n) = @_;
    my ($sum, $after) = (0, '');
    while (1) {
        my $list = _status($n, "?state=active&limit=1000$after");
        $sum += $_->{bytesTransferred} for @{$list->{transfers}};
        return $sum if !$list->{next};
        $after = "&after=$list->{next}";
    }
}

# So many clients that have sent so many bytes and say nothing more: the id of
# their process, once nginx has all that was sent. core => 1: to a location where
# core reads the body, into its buffer and a file.
sub stalled {
    my ($b, $n, $count, $bytes, %o) = @_;
    my $said = $b->dir . '/stalled-' . ++$number;
    my $pid = spawn({ stdout => $said, stderr => $said },
        "$TOP/build/body_crowd", '--stall-after', $bytes,
        $n->url($o{core} ? '/core/' : "/$number-"), 2 ** 30, $count);
    my $before = 0;
    wait_for {
        my $now = cpu($n->{worker});
        my $quiet = $now - $before < 0.001;
        $before = $now;
        (read_file($said) // '') =~ /^stalled/m
            && ($o{core} ? $quiet : _arrived($n) == $count * $bytes);
    } 60, 0.5 or $b->fail("the clients that stall were not let in\n", $n);
    return $pid;
}

1;
