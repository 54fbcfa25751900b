#!/usr/bin/perl

# body_h2, with which the benchmark uploads over HTTP/2: through windows of any
# size all of the pattern arrives, and what the server refuses is a failure.

use strict;
use warnings;

use lib 't/lib';
use File::Temp qw/ tempdir /;
use Test::More;
use S3T::Nginx;
use S3T::Null;
use S3T::Util qw/ $STATE $TOP read_file spawn wait_child /;

my $dir = tempdir(CLEANUP => 1);
chmod 0755, $dir;
system("$TOP/t/lib/certs", "$STATE/certs") == 0 or BAIL_OUT('certificates');

my $null = S3T::Null->new($dir, '--verify');
my $n = S3T::Nginx->new(<<'EOC', dir => $dir,
%%MAIN%%
http {
    %%HTTP%%
    proxy_http_version 1.1;
    proxy_request_buffering off;
    http2_body_preread_size 64k;
    server {
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tlsh2%% ssl http2;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        location / { proxy_pass %%NULL%%; client_body_buffer_size 20000; }
        location /large { proxy_pass %%NULL%%; client_body_buffer_size 3m; }
        location /small { client_max_body_size 1000; proxy_pass %%NULL%%; }
        location /cut { return 444; }
    }
}
EOC
    module => 0, tokens => { NULL => $null->url, CERTS => "$STATE/certs" });
$n->start;

END {
    my $status = $?;
    $n->stop if $n;
    $null->stop if $null;
    $? = $status;
}

# exit status, what it said
sub body_h2 {
    my (@args) = @_;
    my $pid = spawn({ stdout => "$dir/reply", stderr => "$dir/sent" },
        "$TOP/build/body_h2", '--cacert', "$STATE/certs/ca.pem", @args);
    my $status = wait_child($pid) >> 8;
    return $status . ' ' . read_file("$dir/reply") =~ s/\n+$//r;
}

my $bytes = 0;
for my $port (qw/ h2 tlsh2 /) {
    for my $path (qw{ /a /large/a }) {
        is(body_h2($n->url($path, $port), 5_000_003), '0 HTTP/2 200',
            "$path on $port");
        $bytes += 5_000_003;
    }
}
is(body_h2('--frame', 100, '--header', 'X-A: b', $n->url('/b', 'h2'), 100_000),
    '0 HTTP/2 200', 'small frames, another header');
is(body_h2($n->url('/c', 'h2'), 0), '0 HTTP/2 200', 'no body');

my $stats = $null->stats;
is($stats->{bytes}, $bytes + 100_000, 'all arrived');
is($stats->{bad}, 0, 'as it was sent');

like(body_h2($n->url('/small', 'h2'), 5_000_000), qr/^1 HTTP\/2 413/,
    'a refusal is a failure');
is(body_h2($n->url('/cut', 'h2'), 5_000_000), '1 ', 'so is no answer');

done_testing;
