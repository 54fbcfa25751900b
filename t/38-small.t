#!/usr/bin/perl

# Small objects over kept connections on both sides: sizes on either side of
# the buffers that they are received in, with and without the bytes being
# received where they are sent from; an S3 that closes connections unannounced;
# the ids of the transfers.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;
use S3T::Null;
use S3T::Util qw/ $TOP read_file spawn wait_exit /;

use constant REQUESTS => 200;

my $t = S3T->new(bucket => 0);

# it refuses what is not the pattern; every fifth request is the last of its
# connection
my $null = S3T::Null->new($t->dir, qw/ --verify --idle-close 5 /);
$t->token(NULL => $null->url);

my $n = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    s3_endpoint %%NULL%%;
    s3_bucket bucket;
    s3_credentials static k s;
    s3_payload_signature off;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { s3_upload; }
        location /copied/ { s3_zero_copy off; s3_upload; }
        location = /status/ { s3_status; }
    }
}
EOF

my $loads = 0;

# what body_load says of so many requests
sub load {
    my ($path, $size) = @_;
    my $base = $t->dir . '/load-' . ++$loads;
    my $pid = spawn({ stdout => $base, stderr => "$base.err" },
        "$TOP/build/body_load", '--connections', 16, '--requests', REQUESTS,
        '--seconds', 300, $n->url($path), $size);
    my $exit = wait_exit($pid, 600);
    return { exit => $exit, (read_file($base) || '') =~ /(\w+) ([\d.]+)/g };
}

my $stored = 0;

for my $where ('/', '/copied/') {
    for my $size (1, 4096, 16384, 16385, 65536, 300_000) {
        my $r = load("$where$size-", $size);
        is_deeply([@$r{qw/ exit requests failed /}], [0, REQUESTS, 0],
            "$size bytes to $where");
        $stored += $size * REQUESTS;
    }
}

my $stats = $null->stats;
my $totals = curl($n->url('/status/'))->{json}{totals};

is($stats->{objects}, 12 * REQUESTS, 'all are there');
is($stats->{bad}, 0, 'byte for byte');
is($totals->{bytesStored}, $stored, 'so many bytes');
is_deeply([@$totals{qw/ started completed failed active memoryUsed /}],
    [12 * REQUESTS, 12 * REQUESTS, 0, 0, 0], 'nothing is left');
cmp_ok($stats->{faults}, '>', 2 * REQUESTS, 'connections that S3 closed');
cmp_ok($stats->{connections}, '<', 6 * REQUESTS, 'and that were kept');

# no two ids are the same: each is drawn from a stock

my @id = map { curl($n->url("/id-$_"), body => S3T::Null::pattern(64))
    ->{json}{transferId} } 1 .. 20;

is(scalar(grep { !/^[0-9a-f]{32}$/ } @id), 0, 'ids');
for my $at (0, 8, 16, 24) {
    is(scalar(keys %{{ map { substr($_, $at, 8) => 1 } @id }}), @id,
        "at random, from digit $at on");
}
