#!/usr/bin/perl

# Workers that leave while records wait for a store: what can be written is
# written first, what cannot does not hold them for long.

use strict;
use warnings;

use lib 't/lib';
use IO::Select;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Null;

# what becomes of objects is not looked at here
my $t = S3T->new(bucket => 0);
my $null = S3T::Null->new($t->dir);
my $redis = $t->own_redis;
my $db = $t->own_dynamodb;

my $conf = <<'EOC';
%%MAIN%%
%%SHUTDOWN%%
http {
    %%HTTP%%
    s3_endpoint %%NULL%%;
    s3_bucket records;
    s3_credentials static testaccess testsecret;
    s3_payload_signature off;
    s3_part_size 5m;
    s3_transfer_id $arg_id;
    %%STORES%%
    server {
        listen 127.0.0.1:%%PORT%%;
        location /upload/ { s3_upload; }
        location /transfers/ { s3_status; }
    }
}
EOC

my $to_redis = "s3_progress_redis redis://127.0.0.1:$redis->{port};";
my $to_db = "s3_progress_dynamodb http://127.0.0.1:$db->{port}"
    . ' table=transfers;';

sub instance {
    my ($stores, %o) = @_;
    $t->token(NULL => $null->url, STORES => $stores,
        SHUTDOWN => $o{shutdown} || '');
    return $t->nginx($conf, %o);
}

my $id;
my $number = 0;
sub new_id { $id = sprintf 'exit-%s-%04d', 'x' x 10, ++$number }

sub totals { curl($_[0]->url('/transfers/'))->{json}{totals} }

# uploads that are over: their ids
sub uploads {
    my ($n, $count) = @_;
    my @ids;
    for (1 .. $count) {
        push @ids, new_id();
        is(curl($n->url("/upload/a?id=$id"), body => 'x')->{status}, 201,
            "uploaded, $id");
    }
    return @ids;
}

sub half {
    my ($n, $size) = @_;
    my $c = $t->raw($n->port);
    new_id();
    $c->send("PUT /upload/$id?id=$id HTTP/1.1\r\nHost: t\r\n"
        . "Content-Length: $size\r\n\r\n" . 'x' x ($size / 2));
    wait_for { (curl($n->url("/transfers/$id"))->{json}
        || {})->{bytesTransferred} } or die "$id: no half";
    return $c;
}

sub in_redis { ($redis->hgetall("transfer:$_[0]") || {})->{state} || '' }
sub in_db { ($db->get_item($_[0]) || {})->{state} || '' }

# states of ids in a store
sub all_completed {
    my ($state, $name, @ids) = @_;
    is(scalar(grep { $state->($_) ne 'completed' } @ids), 0, $name);
}

# seconds until nginx has left, and by itself
sub leaves {
    my ($n, $name, $from, $to) = @_;
    my @workers = $n->workers;
    my $seconds = time;
    ok($n->quit, "$name: leaves by itself");
    $seconds = time - $seconds;
    note "$seconds s";
    cmp_ok($seconds, '<', $to, "within $to s");
    cmp_ok($seconds, '>=', $from, "after $from s") if $from;
    is(scalar(grep { kill 0, $_ } @workers), 0, 'no worker stays');
    return $seconds;
}

sub lines {
    my ($n, $pattern) = @_;
    return grep { $_ =~ $pattern } split /\n/, $n->log;
}

sub dropped {
    my ($n, $store, $count, $name) = @_;
    my @lines = lines($n, qr/dropped/);
    is(scalar @lines, 1, "$name: one line") or diag join "\n", @lines;
    like($lines[0] || '', qr/\[warn\] .*$store store: $count records are dropped,/,
        'tells how many');
}


subtest 'nothing waits' => sub {
    my $n = instance("$to_redis $to_db");
    my @ids = uploads($n, 3);
    ok((wait_for { !grep { in_redis($_) ne 'completed'
        || in_db($_) ne 'completed' } @ids }), 'all is written');
    leaves($n, 'idle connections', 0, 4.5);
    is(scalar lines($n, qr/dropped|is down/), 0, 'without a word');
    like($redis->cmd('CLIENT', 'LIST'), qr/\A[^\n]*\n?\z/,
        'no connection to Redis stays');
};

# Stands in for both stores, and closes each connection, until each was tried so
# often: the next try is 4 s away, or more.
sub refuse {
    my ($times) = @_;
    my %at = map { $_->{port} => IO::Socket::INET->new(
        LocalAddr => "127.0.0.1:$_->{port}", Listen => 8, ReuseAddr => 1) }
        $redis, $db;
    my $select = IO::Select->new(values %at);
    my %count;
    my $end = time + 30;
    while ($select->handles && time < $end) {
        for my $listener ($select->can_read(1)) {
            my $port = $listener->sockport;
            close $listener->accept;
            $select->remove($listener) if ++$count{$port} == $times;
        }
    }
    return !$select->handles;
}

subtest 'back in time' => sub {
    $redis->stop;
    $db->stop;
    my $n = instance("$to_redis $to_db");
    my @ids = uploads($n, 5);
    ok(refuse(6), 'both were tried six times');
    $redis->start;
    $db->start;
    leaves($n, 'both come back', 0, 4.5);
    all_completed(\&in_redis, 'what waited is in Redis', @ids);
    all_completed(\&in_db, 'and in DynamoDB', @ids);
    is(scalar lines($n, qr/dropped/), 0, 'nothing is dropped');
    is(scalar lines($n, qr/is down/), 2, 'two outages');
    is(scalar lines($n, qr/is up again/), 2, 'and their ends');
};

subtest 'back while the worker leaves' => sub {
    $redis->stop;
    my $n = instance($to_redis);
    my @ids = uploads($n, 2);
    my ($old) = $n->workers;
    ok($n->reload, 'reloaded');
    is_deeply([$n->leaving_workers], [$old], 'it stays');
    # (it tries every 500 ms, and leaves after 5 s)
    sleep 0.3;
    $redis->start;
    ok((wait_for { !$n->leaving_workers } 60), 'until Redis is back');
    all_completed(\&in_redis, 'what waited is written', @ids);
    is(scalar lines($n, qr/dropped/), 0, 'nothing is dropped');
    is(totals($n)->{redis}{dropped}, 0, 'as the totals say');
    is(curl($n->url("/transfers/$ids[0]"))->{status}, 200, 'the new one works');
    uploads($n, 1);
    ok((wait_for { in_redis($id) eq 'completed' } 60), 'and writes');
    leaves($n, 'the new one', 0, 4.5);
};

subtest 'both stay away' => sub {
    $redis->stop;
    $db->stop;
    my $n = instance("$to_redis $to_db");
    uploads($n, 7);
    my $totals = totals($n)->{redis};
    my ($old) = $n->workers;
    my $seconds = time;
    ok($n->reload, 'reloaded');
    ok((wait_for { !$n->leaving_workers } 60), 'it leaves by itself');
    $seconds = time - $seconds;
    cmp_ok($seconds, '<', 20, 'soon');
    cmp_ok($seconds, '>', 4, 'not at once') or diag $n->log;
    ok(!kill(0, $old), 'it is gone');
    my @lines = lines($n, qr/dropped/);
    is(scalar @lines, 2, 'a line for each store');
    for my $store (qw/ redis dynamodb /) {
        is(scalar(grep { /\[warn\] .*$store\ store:\ 7\ records\ are\ dropped,
            \ the\ worker\ is\ leaving/x } @lines), 1, "$store: how many");
        my $r = totals($n)->{$store};
        is($r->{dropped}, 7, 'in the totals');
        is($r->{records}, $r->{writes} - $r->{errors} + $r->{replaced}
            + $r->{dropped}, 'which fit');
        is($r->{up}, 0, 'not up');
    }
    $redis->start;
    $db->start;
    uploads($n, 1);
    ok((wait_for { in_redis($id) eq 'completed' } 60), 'Redis has new ones');
    ok((wait_for { in_db($id) eq 'completed' } 60, 0.1), 'DynamoDB, too');
    leaves($n, 'the new one', 0, 4.5);
};

subtest 'deaf' => sub {
    my $n = instance($to_redis);
    my @ids = uploads($n, 1);
    ok((wait_for { in_redis($ids[0]) eq 'completed' }), 'up');
    $redis->signal('STOP');
    @ids = uploads($n, 3);
    leaves($n, 'it does not answer', 4, 20);
    dropped($n, 'redis', 3, 'it does not answer');
    $redis->signal('CONT');

    $n = instance($to_redis);
    @ids = uploads($n, 1);
    ok((wait_for { in_redis($ids[0]) eq 'completed' }), 'up');
    $redis->signal('STOP');
    @ids = uploads($n, 3);
    kill 'QUIT', $n->pid;
    ok((wait_for { $n->leaving_workers }), 'it is to leave');
    sleep 0.7;
    ok(scalar $n->leaving_workers, 'and waits');
    $redis->signal('CONT');
    leaves($n, 'it hears again', 0, 4.5);
    all_completed(\&in_redis, 'all is written', @ids);
    is(scalar lines($n, qr/dropped|is down/), 0, 'without a word');
};

subtest 'an upload is under way' => sub {
    my $n = instance("$to_redis $to_db");
    my $c = half($n, 200_000);
    my $aborted = half($n, 200_000);
    my ($second) = $id;
    my $first = sprintf 'exit-%s-%04d', 'x' x 10, $number - 1;
    my ($old) = $n->workers;
    ok($n->reload, 'reloaded');
    sleep 0.7;
    is_deeply([$n->leaving_workers], [$old], 'the old worker stays');
    is(curl($n->url("/transfers/$first"))->{json}{state}, 'active', 'active');
    $c->send('x' x 100_000);
    is($c->response->{status}, 201, 'one is stored');
    $aborted->close;
    ok((wait_for { !$n->leaving_workers } 60), 'then it leaves');
    is(in_redis($first), 'completed', 'its last record is in Redis');
    is(in_db($first), 'completed', 'and DynamoDB');
    is(in_redis($second), 'aborted', 'that of the aborted one');
    is(in_db($second), 'aborted', 'as well');
    is(scalar lines($n, qr/dropped|is down/), 0, 'without a word');
    is(totals($n)->{redis}{up}, 1, 'one worker has Redis');
    leaves($n, 'the new one', 0, 4.5);
};

subtest 'worker_shutdown_timeout' => sub {
    my $n = instance("$to_redis $to_db",
        shutdown => 'worker_shutdown_timeout 1s;');
    my $c = half($n, 200_000);
    $t->allow_errors(qr/client prematurely closed|open socket/);
    leaves($n, 'an upload that does not end', 0.9, 20);
    ok($c->closed, 'its client is told');
    is(in_redis($id), 'aborted', 'Redis knows');
    is(in_db($id), 'aborted', 'DynamoDB, too');
    is(scalar lines($n, qr/dropped|is down/), 0, 'without a word');

    # all connections are closed in the middle of a write
    my $fake = $t->fake(on => { PutItem => [ { delay => 3 } ] });
    $n = instance('s3_progress_dynamodb ' . $fake->url . ' table=t;',
        shutdown => 'worker_shutdown_timeout 500ms;');
    $c = half($n, 200_000);
    leaves($n, 'a write that does not end', 0.4, 20);
    is(scalar(grep { ($_->{body} || '') =~ /"aborted"/ }
        $fake->requests('PutItem')), 1, 'the last record is sent');
    is(scalar lines($n, qr/dropped|is down/), 0, 'without a word');
    $fake->stop;
};

subtest 'at once' => sub {
    $redis->stop;
    my $n = instance($to_redis);
    uploads($n, 2);
    my $seconds = time;
    ok($n->stop, 'TERM');
    cmp_ok(time - $seconds, '<', 4.5, 'does not wait');
    dropped($n, 'redis', 2, 'TERM');
};
