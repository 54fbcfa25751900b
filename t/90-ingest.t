#!/usr/bin/perl

# Pulls: what an origin has is fetched without a client and becomes an object of
# exactly these bytes; and what is told of it, whatever the origin does.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;

my $t = S3T->new;
my $s3 = $t->s3;

my $origin = $t->nginx(<<'EOF', module => 0);
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        root %%DIR%%;
    }
}
EOF
$t->token(ORIGIN => '127.0.0.1:' . $origin->port);

my $n = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        %%S3%%
        s3_part_size 5m;
        s3_ingest_allow 127.0.0.1;
        location /pull/ { s3_ingest http://%%ORIGIN%%$uri; }
    }
}
EOF

sub pull {
    my ($path, %o) = @_;
    return curl($n->url($path), method => 'POST', %o);
}

mkdir "$origin->{dir}/pull";
for my $size (0, 1, 5 * MB, 5 * MB + 1, 33 * MB) {
    my $d = data($size);
    symlink $d->{path}, "$origin->{dir}/pull/$size";
    my $r = pull("/pull/$size");
    is($r->{status}, 201, "$size") or diag explain $r;
    is_deeply([$s3->sha256("pull/$size")], [$d->{sha256}, $d->{size}],
        'what S3 holds');
}
