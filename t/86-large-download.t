#!/usr/bin/perl

# 9,029,243,448 bytes that come from an origin: fetched by s3_ingest, or copied
# by s3_tee on their way to a client. S3 gets each of them, the stores are told
# a hundred times, and the worker stays small.

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
        location /pull/ {
            s3_ingest_allow 127.0.0.1;
            s3_ingest %%NULL%%/__body/9029243448$is_args$args $arg_id;
        }
        location /copy/ {
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_pass %%NULL%%/__body/9029243448$is_args$args;
            s3_tee $arg_id;
            s3_tee_on_overrun wait;
        }
        location /transfers/ { s3_status; }
    }
}
EOF

sub pull {
    my ($id, $beside, $args) = @_;
    return $seed->told($n, $id, sub {
        my $r = curl($n->url("/pull/?id=$id$args"), method => 'POST',
            timeout => 900);
        is($r->{status}, 201, 'stored') or diag explain $r;
        is($r->{json}{bytesStored}, SIZE, 'all of it');
    }, $beside);
}

sub copy {
    my ($id, $args, @options) = @_;
    return $seed->told($n, $id, sub {
        my $r = S3T::Null::body_sink($t->dir, $n->url("/copy/?id=$id$args"),
            @options)->wait(900);
        is("$r->{status} $r->{exit}", '200 0', 'served') or diag explain $r;
        is($r->{received}, SIZE, 'all of it');
    });
}

sub of_known_length {
    my ($openings, $chunks, @lines) = @_;
    cmp_ok($openings, '>=', 95, "$openings openings");
    cmp_ok($openings, '<=', 100, 'at most a hundred');
    like($lines[0], qr{Progress: 9\d{7}/9029243448 bytes \(1%\), },
        'the first line');
}

sub of_unknown_length {
    my ($openings, $chunks, @lines) = @_;
    like($openings, qr/^8[56]$/, 'openings');
    like($lines[0], qr{Progress: 10[45]\d{6}/\? bytes \(0%\), },
        'the first line');
}

subtest 's3_ingest' => sub {
    of_known_length(pull('pulled-with-its-length', 4, ''));
};

subtest 's3_ingest, chunked' => sub {
    of_unknown_length(pull('pulled-of-unknown-length', 3, '&chunked=1'));
};

subtest 's3_tee' => sub {
    of_known_length(copy('copied-with-its-length', ''));
};

subtest 's3_tee, chunked' => sub {
    of_unknown_length(copy('copied-of-unknown-length', '&chunked=1'));
};

$seed->stop(4);

my (undef, $peak) = $n->usage(($n->workers)[0]);
SKIP: {
    skip 'memory of the sanitizers', 1 if $ENV{T_ASAN};
    cmp_ok($peak, '<', 128 * MB, 'in little memory');
}
