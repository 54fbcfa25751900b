#!/usr/bin/perl

# More records than a store's queue holds while the store is down: the oldest
# are given up and counted, the last word of a transfer is kept before all else,
# uploads are unharmed, and what was kept arrives.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;
use S3T::Null;
use S3T::Util qw/ wait_exit /;

use constant { MOST => 10_000, MORE => 500, CLIENTS => 3 };

my $t = S3T->new(bucket => 0);
my $null = S3T::Null->new($t->dir);
my $redis = $t->own_redis;
$redis->stop;
$t->token(NULL => $null->url, OWN => "127.0.0.1:$redis->{port}");

my $n = $t->nginx(<<'EOC');
%%MAIN%%
http {
    %%HTTP%%
    access_log off;
    keepalive_requests 100000;
    # one is under way all the time
    client_body_timeout 600s;
    s3_endpoint %%NULL%%;
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    s3_payload_signature off;
    s3_progress_redis redis://%%OWN%%;
    s3_progress_log off;
    s3_transfer_id $arg_id;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /upload/ { s3_upload; }
        location /transfers/ { s3_status; }
    }
}
EOC

sub totals { curl($n->url('/transfers/'))->{json}{totals} }

sub upload {
    my ($c, $id) = @_;
    $c->send("PUT /upload/$id?id=$id HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: 1\r\n\r\nx");
    return ($c->response(60) || { status => 0 })->{status};
}

# one that is under way all the time
my $live = 'under-way-0123456789';
my $long = $t->raw($n->port);
$long->send("PUT /upload/long?id=$live HTTP/1.1\r\nHost: a\r\n"
    . "Content-Length: 2\r\n\r\nx");
ok((wait_for { totals()->{active} == 1 }), 'one is under way');

# the first ones, in order
my @first = map { sprintf 'first-0123456789-%03d', $_ } 1 .. MORE;
my $c = $t->raw($n->port);
is(scalar(grep { upload($c, $_) != 201 } @first), 0, MORE . ' uploads');
is(totals()->{redis}{dropped}, 0, 'all of their records wait');

# then as many as there is room for, so that the first have to go
my $bad = $t->dir . '/bad';
my @clients = map { my $of = $_; spawn({ stderr => $bad }, sub {
    my $c = $t->raw($n->port);
    for (my $i = $of; $i < MOST; $i += CLIENTS) {
        my $status = upload($c, sprintf 'later-0123456789-%05d', $i);
        print STDERR "$i: $status\n" if $status != 201;
    }
}) } 0 .. CLIENTS - 1;
is(wait_exit($_, 600), 0, 'a client came to its end') for @clients;
is(read_file($bad) || '', '', MOST . ' more uploads');

my $totals = totals();
is($totals->{completed}, MOST + MORE, 'all are completed');
# one of each that was first, and some that were not a last word
cmp_ok($totals->{redis}{dropped}, '>', MORE, 'the oldest are dropped');
is($totals->{redis}{writes}, 0, 'none was sent');
my @lines = grep { /are waiting, the oldest are dropped/ } split /\n/, $n->log;
is(scalar @lines, 1, 'one line');
like($lines[0], qr/\[warn\].*redis store: 10000 records are waiting/,
    'which says how many');

$redis->start;
ok((wait_for { totals()->{redis}{writes} >= MOST } 120), 'Redis is back');
$long->send('y');
is($long->response->{status}, 201, 'the one under way ends');
my $r;
ok((wait_for {
    $r = totals()->{redis};
    $r->{records} == $r->{writes} - $r->{errors} + $r->{replaced}
        + $r->{dropped};
} 60), 'records, writes, replaced and dropped fit') or diag explain $r;
is(($redis->hgetall("transfer:$live") || {})->{state}, 'completed',
    'its last word is there');
is($redis->cmd('DBSIZE'), MOST + 1, 'and all that waited');
is(scalar(grep { $redis->hgetall("transfer:$_") } @first), 0,
    'but for the first');
is(scalar(grep { ($redis->hgetall(sprintf 'transfer:later-0123456789-%05d', $_)
    || {})->{state} ne 'completed' } map { $_ * 100 } 0 .. 99), 0,
    'their last words, too');
$redis->stop;
