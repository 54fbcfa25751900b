#!/usr/bin/perl

# The case that the gate was made for: 9,029,243,448 bytes in small chunks, and
# a hundred records a store instead of a million.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;
use S3T::Null;
use S3T::Seed qw/ SIZE /;

my $t = S3T->new(bucket => 0);
my $seed = S3T::Seed->new($t);

my $n = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    %%SEED%%
    server {
        listen 127.0.0.1:%%PORT%%;
        location /upload/ { s3_upload; }
        location /transfers/ { s3_status; }
    }
}
EOF

# Uploads it, and returns openings and chunks.
sub upload {
    my ($id, @options) = @_;
    return $seed->told($n, $id, sub {
        my $r = S3T::Null::body_gen($t->dir, $n->url("/upload/$id?id=$id"),
            SIZE, @options)->wait;
        is($r->{status}, 201, 'stored') or diag explain $r;
        is($r->{json}{bytesStored}, SIZE, 'all of it');
    });
}

subtest 'Content-Length' => sub {
    my ($openings, $chunks, @lines) = upload('seed-with-its-length');
    cmp_ok($openings, '>=', 95, "$openings openings");
    cmp_ok($openings, '<=', 100, 'at most a hundred');
    like($lines[0], qr{Progress: 9\d{7}/9029243448 bytes \(1%\), },
        'the first line');
};

subtest 'chunks of 8 KiB' => sub {
    my ($openings, $chunks, @lines) =
        upload('seed-of-unknown-length', '--chunk', 8192);
    like($openings, qr/^8[56]$/, 'openings');
    cmp_ok($chunks, '>', 1_000_000, "$chunks chunks counted");
    like($lines[0], qr{Progress: 1048\d{5}/\? bytes \(0%\), },
        'the first line');
};

$seed->stop(2);

my (undef, $peak) = $n->usage(($n->workers)[0]);
SKIP: {
    skip 'memory of the sanitizers', 1 if $ENV{T_ASAN};
    cmp_ok($peak, '<', 128 * MB, 'in little memory');
}
