#!/usr/bin/perl

# A send that takes half of what it was given and then fails: what went out is
# neither sent once more over the same connection nor forgotten when the part is
# sent again.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;
use S3T::Null qw/ pattern /;
use S3T::Torture qw/ talk /;

use constant { SMALL => 300_000, LARGE => 5 * MB + 3000 };

my $t = S3T->new(bucket => 0);
# it refuses what is not the pattern
my $null = S3T::Null->new($t->dir, qw/ --verify /);
my $torture = S3T::Torture->new($t->dir);
$t->token(NULL => $null->url);

my $n = $t->nginx(<<'EOF', env => $torture->env);
%%MAIN%%
http {
    %%HTTP%%
    s3_endpoint %%NULL%%;
    s3_bucket bucket;
    s3_credentials static k s;
    s3_payload_signature off;
    s3_part_size 5m;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /kept/ { s3_upload; }
        location /fresh/ { s3_keepalive 0; s3_upload; }
    }
}
EOF

# an upload of which the Nth send is cut, if told
sub put {
    my ($path, $size, $at) = @_;
    my $text = "PUT $path HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
        . "Content-Length: $size\r\n\r\n" . pattern($size);
    $torture->fail('send', $at, mode => 'cut', times => 2) if $at;
    my $r = talk($n->port, \$text);
    is($torture->off->{fired}, 2, "$path is cut") if $at;
    is($r->{status}, 201, "$path, $size bytes") or diag explain $r;
}

# over a connection that was kept it is written before its turn
put('/kept/first', 10);
put('/kept/cut', SMALL, 1);
is($null->stats->{bad}, 0, 'S3 had what came, and nothing twice');

# S3 may hold what it had of the try that broke off: it is asked. The first send
# is Create's.
put('/fresh/cut', LARGE, 2);
my $stats = $null->stats;
is($stats->{bad}, 0, 'right bytes');
is($stats->{list_parts}, 1, 'a part of which some was sent twice is compared');
