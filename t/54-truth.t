#!/usr/bin/perl

# Instances that share their stores: the status location shows the newest
# attempt of an id, wherever it was made, the log tells why a store cannot be
# read, outages are counted, and a record stays its owner's.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Null;

# what becomes of objects is not looked at here
my $t = S3T->new(bucket => 0);
my $null = S3T::Null->new($t->dir);
my $password = 'truth-Password-0123456789';
$t->secret($password);
my $redis = $t->own_redis;
my $db = $t->own_dynamodb;

my $conf = <<'EOC';
%%MAIN%%
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
        location /upload/ { s3_owner $arg_owner; s3_upload; }
        location /transfers/ { s3_status list; }
        location /mine/ { s3_owner $arg_owner; s3_status; }
        location /metrics { s3_status prometheus; }
    }
}
EOC

sub instance {
    my (@stores) = @_;
    $t->token(NULL => $null->url, STORES => join "\n    ", @stores);
    return $t->nginx($conf, level => 'info');
}

sub to_redis { "s3_progress_redis redis://127.0.0.1:$_[0]{port};" }
sub to_db {
    return "s3_progress_dynamodb http://127.0.0.1:$_[0]{port} table=transfers;";
}

my $number = 0;
sub new_id { return sprintf 'truth-%s-%04d', 'x' x 10, ++$number }

sub status { curl($_[0]->url("/transfers/$_[1]")) }
sub mine { curl($_[0]->url("/mine/$_[1]?owner=$_[2]")) }
sub totals { curl($_[0]->url('/transfers/'))->{json}{totals} }

sub upload {
    my ($n, $id, $owner, %o) = @_;
    return curl($n->url("/upload/a?id=$id&owner=" . ($owner // '')),
        body => 'x' x 1000, %o);
}

# a client that leaves: the zone's record is aborted
sub abort {
    my ($n, $id, $owner) = @_;
    my $c = begin($n, $id, $owner);
    $c->close;
    ok((wait_for { (status($n, $id)->{json} || {})->{state} eq 'aborted' }),
        'aborted');
}

sub begin {
    my ($n, $id, $owner) = @_;
    my $c = $t->raw($n->port);
    $c->send("PUT /upload/a?id=$id&owner=" . ($owner // '') . " HTTP/1.1\r\n"
        . "Host: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    ok((wait_for { (status($n, $id)->{json} || {})->{state} eq 'active' }),
        'begun');
    return $c;
}

sub in_redis { return $redis->hgetall("transfer:$_[0]") || {} }
sub in_db { return $db->get_item($_[0]) || {} }

subtest 'a later attempt elsewhere' => sub {
    for my $store ([Redis => to_redis($redis)], [DynamoDB => to_db($db)],
        [both => to_redis($redis), to_db($db)])
    {
        my ($name, @stores) = @$store;
        my ($one, $two) = map { instance(@stores) } 1, 2;
        my $id = new_id();
        abort($one, $id, 'alice');
        my $r = upload($two, $id, 'alice');
        is($r->{status}, 201, "$name: retried at another instance");
        ok((wait_for { status($one, $id)->{json}{state} eq 'completed' }),
            'where it was aborted it is completed');
        is_deeply(status($one, $id)->{json}, $r->{json}, 'the same record');
        is_deeply(mine($one, $id, 'alice')->{json}, $r->{json}, 'its owner');
        is(mine($one, $id, 'bob')->{status}, 404, 'not another');
        unlike(status($one, $id)->{body}, qr/alice/, 'the owner is not shown');

        # the third at the first instance: a live record is its own
        my $c = begin($one, $id, 'alice');
        is(status($one, $id)->{json}{state}, 'active', 'active');
        $c->close;
        ok((wait_for { status($one, $id)->{json}{state} eq 'aborted' }),
            'and aborted, which is newer than what the other one did');
        ok((wait_for { status($two, $id)->{json}{state} eq 'aborted' }),
            'the other one sees it, too');
        $_->quit for $one, $two;
    }
};

subtest 'without an answer' => sub {
    my $fake = $t->fake;
    my $n = instance('s3_progress_dynamodb ' . $fake->url . ' table=t;');
    my $id = new_id();
    my $c = begin($n, $id);
    is($fake->begun('GetItem'), 0, 'a live record costs no read');
    $c->close;
    ok((wait_for { status($n, $id)->{json}{state} eq 'aborted' }), 'aborted');
    cmp_ok($fake->begun('GetItem'), '>', 0, 'a final one does');
    is(status($n, $id)->{status}, 200, 'unknown to the store: known all the'
        . ' same');
    $fake->stop;
    my $r = status($n, $id);
    is($r->{status}, 200, 'no store');
    is($r->{json}{state}, 'aborted', 'what is known');
    $n->quit;

    my $slow = $t->fake(on => { GetItem => { delay => 20 } });
    $n = instance('s3_progress_dynamodb ' . $slow->url . ' table=t;');
    is(upload($n, $id)->{status}, 201, 'another');
    my $started = time;
    $r = status($n, $id);
    is($r->{json}{state}, 'completed', 'a silent store');
    cmp_ok(time - $started, '<', 4.5, 'is not waited for');
    # a client that does not wait even that long
    my @gone = map { my $g = $t->raw($n->port);
        $g->send("GET /transfers/$id HTTP/1.1\r\nHost: t\r\n\r\n"); $g } 1, 2;
    sleep 0.2;
    $gone[0]->close;
    $gone[1]->reset;
    sleep 1;
    is(status($n, $id)->{status}, 200, 'clients that left do no harm');
    $n->quit;
    $slow->stop;
};

subtest 'why a store cannot be read' => sub {
    my %bad = (
        denied => [{ status => 400, body => '{"__type":"x#AccessDenied'
            . 'Exception","message":"not GetItem\u0007"}' },
            qr/status 400, AccessDeniedException: not GetItem /],
        secret => [{ status => 400, body => '{"__type":"OddException",'
            . '"message":"key testsecret"}' },
            qr/status 400, OddException, host/],
        broken => [{ status => 500 }, qr/status 500/],
        text => [{ status => 200, body => 'hello' }, qr/not a record/],
        closed => [{ close => 'before' }, qr/\w+/],
    );
    for my $name (sort keys %bad) {
        my $f = $t->fake(on => { GetItem => $bad{$name}[0] });
        my $n = instance('s3_progress_dynamodb ' . $f->url . ' table=t;');
        is(status($n, new_id())->{status}, 503, "$name: 503") for 1 .. 3;
        my @lines = grep { /\[warn\]/ } split /\n/, $n->log;
        is(scalar @lines, 1, 'one line');
        like($lines[0], qr/dynamodb store cannot be read: .*$bad{$name}[1]/,
            'the cause');
        like($lines[0], qr{host: http://127\.0\.0\.1:}, 'whose');
        unlike($n->log, qr/testsecret|\x07/, 'neither secrets nor bells');
        $n->quit;
        $f->stop;
    }

    my $own = $t->own_redis(password => $password);
    $own->cmd('ACL', 'SETUSER', 'writer', 'on', ">$password", '~*', '&*',
        '+@all', '-hgetall');
    my $n = instance("s3_progress_redis redis://writer:$password\@127.0.0.1:"
        . "$own->{port};");
    ok((wait_for { totals($n)->{redis}{up} == 1 }), 'Redis is up');
    is(status($n, new_id())->{status}, 503, 'Redis: not for readers')
        for 1 .. 3;
    my @lines = grep { /\[warn\]/ } split /\n/, $n->log;
    is(scalar @lines, 1, 'one line') or diag explain \@lines;
    like($lines[0], qr/redis store cannot be read: a read was refused \(NOPERM/,
        'the cause');
    my $id = new_id();
    is(upload($n, $id)->{status}, 201, 'an upload');
    is(status($n, $id)->{json}{state}, 'completed', 'what the zone knows');
    is(totals($n)->{redis}{outages}, 0, 'that is no outage');
    $n->quit;
    $own->stop;
};

# The same counts as no write: EVALSHA is another command here, whose reply is a
# list.
subtest 'a store that answers something else' => sub {
    my $other = $t->own_redis(args => [qw/ --rename-command EVALSHA EVAL-SHA
        --rename-command MGET EVALSHA /]);
    my $n = instance(to_redis($other));
    ok((wait_for { totals($n)->{redis}{up} == 1 }), 'it greets');
    my $id = new_id();
    is(upload($n, $id)->{status}, 201, 'an upload');
    ok((wait_for { totals($n)->{redis}{errors} > 0 }), 'its records are not'
        . ' taken for written');
    is(totals($n)->{redis}{up}, 0, 'down');
    like($n->log, qr/redis store is down: not the reply to a write, host/,
        'the cause');
    $other->stop;
    delete $other->{args};
    $other->start;
    ok((wait_for { (($other->hgetall("transfer:$id") || {})->{state} || '')
        eq 'completed' } 60), 'they are kept for one that writes');
    is(totals($n)->{redis}{dropped}, 0, 'none is dropped');
    $n->quit;
    $other->stop;
};

subtest 'outages' => sub {
    my ($r, $d) = ($t->own_redis, $t->own_dynamodb);
    my $n = instance(to_redis($r), to_db($d));
    is(upload($n, new_id())->{status}, 201, 'an upload');
    ok((wait_for { my $s = totals($n);
        $s->{redis}{up} && $s->{dynamodb}{up} }), 'both work');
    is_deeply([map { totals($n)->{$_}{outages} } qw/ redis dynamodb /],
        [0, 0], 'none');
    $r->stop;
    ok((wait_for { totals($n)->{redis}{outages} == 1 }), 'Redis: one');
    sleep 1.5;
    is(totals($n)->{redis}{outages}, 1, 'one, however long');
    $r->start;
    ok((wait_for { totals($n)->{redis}{up} == 1 } 60), 'Redis is back');
    is(upload($n, new_id())->{status}, 201, 'an upload');
    ok((wait_for { my $s = totals($n)->{redis};
        $s->{writes} == $s->{records} - $s->{replaced} } 60), 'written');
    # what ends an outage is a connection that lasts
    ok((wait_for { $n->log =~ /redis store is up again/ } 60), 'its end');
    $r->stop;
    ok((wait_for { totals($n)->{redis}{outages} == 2 } 60), 'a second one');
    $d->stop;
    is(upload($n, new_id())->{status}, 201, 'an upload');
    ok((wait_for { totals($n)->{dynamodb}{outages} == 1 }), 'DynamoDB: one');
    my $m = curl($n->url('/metrics'))->{body};
    like($m, qr/^# TYPE s3_transfer_store_outages_total counter$/m, 'metric');
    like($m, qr/^s3_transfer_store_outages_total\{store="redis"\} 2$/m,
        'of Redis');
    like($m, qr/^s3_transfer_store_outages_total\{store="dynamodb"\} 1$/m,
        'of DynamoDB');
    $n->quit;
};

# The id is the client's: another instance cannot know whose it is.
subtest 'a record stays its owner\'s' => sub {
    for my $case (['alice', 'bob'], ['alice', ''], ['', 'bob']) {
        my ($alice, $bob) = @$case;
        my ($one, $two) = map { instance(to_redis($redis), to_db($db)) } 1, 2;
        my $id = new_id();
        my $c = begin($one, $id, $alice);
        ok((wait_for { in_redis($id)->{state} && in_db($id)->{state} }),
            "'$alice' has a record");
        my $name = "'$bob' with the same id";
        is(upload($two, $id, $bob)->{status}, 201, "$name: uploads elsewhere");
        ok((wait_for { my $s = totals($two);
            $s->{redis}{dropped} && $s->{redis}{records}
            == $s->{redis}{replaced} + $s->{redis}{dropped} }),
            'Redis: refused, and counted so') or diag explain totals($two);
        ok((wait_for { my $s = totals($two)->{dynamodb};
            $s->{writes} == $s->{records} - $s->{replaced} }),
            'DynamoDB: tried');
        sleep 0.3;
        is(in_redis($id)->{owner} // '', $alice, 'Redis: whose');
        is(in_redis($id)->{state}, 'active', 'and what it was');
        is(in_db($id)->{owner} // '', $alice, 'DynamoDB: whose');
        is(in_db($id)->{state}, 'active', 'and what it was');
        my @lines = grep { /redis store keeps the record of another owner/ }
            split /\n/, $two->log;
        is(scalar @lines, 1, 'one line');
        like($lines[0], qr/\[info\].*transfer: \Q$id\E, host: /, 'of it');
        unlike($two->log, qr/\[warn\]/, 'no warning');
        $c->close;
        ok((wait_for { (in_redis($id)->{state} || '') eq 'aborted'
            && (in_db($id)->{state} || '') eq 'aborted' }),
            'what comes of the first one is stored');
        is(mine($one, $id, $alice)->{json}{state}, 'aborted', 'and shown');

        # an expired item that DynamoDB has not deleted yet is nobody's
        $redis->cmd('DEL', "transfer:$id");
        $db->put_item({ %{$db->item($id)},
            expiresAt => { S => '2020-01-01T00:00:00.000Z' } });
        is(upload($two, $id, $bob)->{status}, 201, 'later');
        ok((wait_for { (in_redis($id)->{state} || '') eq 'completed'
            && (in_db($id)->{state} || '') eq 'completed' }), 'stored');
        is(in_db($id)->{owner} // '', $bob, 'it is his');
        $_->quit for $one, $two;
    }

    # DynamoDB tells what stands there, dynalite does not
    my $id = new_id();
    for my $case (['alice', 1], ['bob', 0]) {
        my ($owner, $dropped) = @$case;
        my $f = $t->fake(on => { PutItem => { status => 400, body =>
            '{"__type":"x#ConditionalCheckFailedException","Item":{"owner":'
            . "{\"S\":\"$owner\"}}}" } });
        my $n = instance('s3_progress_dynamodb ' . $f->url . ' table=t;');
        is(upload($n, $id, 'bob')->{status}, 201, "$owner\'s stands there");
        ok((wait_for { my $s = totals($n)->{dynamodb}; $s->{writes}
            && $s->{writes} == $s->{records} - $s->{replaced}
            && !!$s->{dropped} == $dropped }), 'refused or not');
        is(totals($n)->{dynamodb}{outages}, 0, 'no outage');
        # the last answer may still be on its way
        $n->quit;
        my @lines = grep { /dynamodb store keeps the record of another/ }
            split /\n/, $n->log;
        is(scalar @lines, $dropped, 'the line');
        $f->stop;
    }
};
