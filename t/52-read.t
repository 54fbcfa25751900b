#!/usr/bin/perl

# What the status location knows from the stores: records of another nginx,
# while they change and when they are over, which store is asked, and what is
# said when one or both are down.

use strict;
use warnings;

use lib 't/lib';
use JSON::PP ();
use List::Util qw/ uniq /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Null;

# what becomes of objects is not looked at here
my $t = S3T->new(bucket => 0);
my $null = S3T::Null->new($t->dir);
my $redis = $t->own_redis;
my $db = $t->own_dynamodb;
my $at = "http://127.0.0.1:$db->{port}";
my $after = $t->fake(on => { get => { delay => 1, status => 200 } });

my $conf = <<'EOC';
%%MAIN%%
http {
    %%HTTP%%
    log_format after $upstream_status;
    s3_endpoint %%NULL%%;
    s3_bucket records;
    s3_credentials static testaccess testsecret;
    s3_payload_signature off;
    s3_part_size 5m;
    s3_transfer_id $arg_id;
    %%STORES%%
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        location /upload/ { s3_owner $arg_owner; s3_upload; }
        location /transfers/ { s3_status list; }
        location /mine/ { s3_owner $arg_owner; s3_status; }
        location /left/ { s3_status; post_action /after; }
        location /after {
            proxy_pass %%AFTER%%;
            proxy_ignore_client_abort on;
            access_log %%DIR%%/after.log after;
        }
    }
}
EOC

sub instance {
    my (@stores) = @_;
    $t->token(NULL => $null->url, AFTER => $after->url, STORES => join "\n    ", @stores);
    my $n = $t->nginx($conf);
    # what it is asked before it has Redis, it cannot ask there
    wait_for { totals($n)->{redis}{up} } if grep { /_redis/ } @stores;
    return $n;
}

my $to_redis = "s3_progress_redis redis://127.0.0.1:$redis->{port};";
my $to_db = "s3_progress_dynamodb $at table=transfers;";

my ($one, $other) = map { instance($to_redis, $to_db) } 1, 2;

my $id;
my $number = 0;
sub new_id { $id = sprintf 'read-%s-%04d', 'x' x 10, ++$number }

sub status {
    my ($n, $id, %o) = @_;
    return curl($n->url("/transfers/$id", delete $o{port}), %o);
}

# an upload at one instance, over and known to both stores: its record
sub uploaded {
    my ($n, $owner) = @_;
    new_id();
    my $r = curl($n->url("/upload/a?id=$id&owner=" . ($owner || '')),
        body => 'x' x 1000);
    is($r->{status}, 201, "uploaded, $id");
    # (after an outage the next try may be 10 s away)
    ok((wait_for { (($redis->hgetall("transfer:$id") || {})->{sequence} || 0)
        == $r->{json}{sequence} } 60), 'in Redis') if $redis->{pid};
    ok((wait_for { (($db->get_item($id) || {})->{sequence} || 0)
        == $r->{json}{sequence} } 60), 'in DynamoDB') if $db->{pid};
    return $r->{json};
}

sub is_error {
    my ($r, $status, $error, $name) = @_;
    is($r->{status}, $status, $name);
    is_deeply([map { ($r->{json} || {})->{$_} } qw/ error transferId /],
        [$error, $id], 'as JSON') or diag $r->{body};
}

sub totals { curl($_[0]->url('/transfers/'))->{json}{totals} }

subtest 'of another instance' => sub {
    my $record = uploaded($one);
    my $r = status($other, $id);
    is($r->{status}, 200, 'known');
    is_deeply($r->{json}, $record, 'the same record');
    is_deeply($r->{json}, status($one, $id)->{json}, 'as the first one says');
    like($r->{headers}{'content-type'}, qr{^application/json}, 'as JSON');
    is(status($other, $id, port => 'h2', h2 => 1)->{json}{state}, 'completed',
        'over HTTP/2');
    $r = status($other, $id, args => ['-I'], method => 'HEAD');
    is($r->{status}, 200, 'HEAD');
    is($r->{body} =~ /transferId/, '', 'without a body');
    is_deeply(curl($other->url('/transfers/'))->{json}{transfers}, [],
        'the list is of the instance alone');
    new_id();
    is_error(status($other, $id), 404, 'NoSuchTransfer', 'unknown to all');
    is(status($other, 'short')->{status}, 404, 'not an id');
    is(status($other, 'has%20spaces-0123456')->{status}, 404, 'neither');
};

subtest 'while it changes' => sub {
    new_id();
    my $c = $t->raw($one->port);
    $c->send("PUT /upload/b?id=$id HTTP/1.1\r\nHost: t\r\nContent-Length: "
        . 60 * MB . "\r\n\r\n");
    my @seen;
    my $look = sub {
        my $r = status($other, $id);
        push @seen, $r->{json} if $r->{status} == 200;
        is($r->{status}, 200, 'known meanwhile') if @seen
            && $r->{status} != 200;
        return $r->{status} == 200;
    };
    ok((wait_for { $look->() }), 'known when it has begun');
    # the next step when the other one has seen this one
    for my $step (1 .. 19) {
        $c->send('x' x (3 * MB));
        wait_for { $look->() && $seen[-1]{bytesTransferred}
            > ($step - 1) * 3 * MB };
    }
    $c->send('x' x (3 * MB));
    my $r = $c->response(60);
    ok((wait_for { $look->(); $seen[-1]{state} eq 'completed' }),
        'until it is complete');
    is_deeply($seen[-1], JSON::PP->new->utf8->decode($r->{body}),
        'the last record');
    cmp_ok(scalar(uniq map { $_->{bytesTransferred} } @seen), '>', 15,
        'it moves');
    cmp_ok($seen[0]{bytesTransferred}, '<', 20 * MB, 'from near 0');
    for my $name (qw/ sequence bytesTransferred bytesStored percentage /) {
        is(scalar(grep { $seen[$_]{$name} < $seen[$_ - 1]{$name} }
            1 .. $#seen), 0, "$name never falls");
    }
    is($seen[0]{totalBytes}, 60 * MB, 'total');
    is($seen[0]{state}, 'active', 'active at first');

    # one that ends badly
    new_id();
    $c = $t->raw($one->port);
    $c->send("PUT /upload/c?id=$id HTTP/1.1\r\nHost: t\r\n"
        . "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    ok((wait_for { ((status($other, $id)->{json} || {})->{state} || '')
        eq 'active' }), 'active');
    is(status($other, $id)->{json}{totalBytes}, undef, 'total is unknown');
    $c->close;
    ok((wait_for { status($other, $id)->{json}{state} eq 'aborted' }),
        'aborted');
    is_deeply(status($other, $id)->{json}, status($one, $id)->{json},
        'as the first one says');
};

subtest 'owners' => sub {
    my $record = uploaded($one, 'alice');
    my $mine = sub { curl($_[0]->url("/mine/$id?owner=$_[1]")) };
    is_deeply($mine->($other, 'alice')->{json}, $record, 'its owner sees it');
    unlike($mine->($other, 'alice')->{body}, qr/alice|owner/, 'without owner');
    is_error($mine->($other, 'bob'), 404, 'NoSuchTransfer', 'another');
    is_error($mine->($other, ''), 404, 'NoSuchTransfer', 'nobody');
    is_error($mine->($other, 'alic'), 404, 'NoSuchTransfer', 'a prefix');
    my $r = status($other, $id);
    is_deeply($r->{json}, $record, 'where no owner is asked for');
    unlike($r->{body}, qr/alice|owner/, 'not shown either');

    # in DynamoDB alone
    $redis->cmd('DEL', "transfer:$id");
    is_deeply($mine->($other, 'alice')->{json}, $record, 'DynamoDB: its owner');
    is_error($mine->($other, 'bob'), 404, 'NoSuchTransfer', 'another');
    unlike(status($other, $id)->{body}, qr/alice|owner/, 'not shown');

    uploaded($one);
    is($mine->($other, '')->{status}, 200, 'nobody sees what has no owner');
    is_error($mine->($other, 'alice'), 404, 'NoSuchTransfer', 'an owner not');
};

subtest 'expired' => sub {
    my $past = '2020-01-01T00:00:00.000Z';
    uploaded($one);
    is(status($other, $id)->{status}, 200, 'known');
    my $item = $db->item($id);
    $db->put_item({ %$item, expiresAt => { S => $past } });
    is(status($other, $id)->{status}, 200, 'Redis is asked first');
    $redis->cmd('HSET', "transfer:$id", expiresAt => $past);
    is_error(status($other, $id), 404, 'NoSuchTransfer', 'not any more');
    $redis->cmd('DEL', "transfer:$id");
    is_error(status($other, $id), 404, 'NoSuchTransfer',
        'what DynamoDB did not delete yet');
    $db->put_item($item);
    is(status($other, $id)->{status}, 200, 'it was that');
    is(status($one, $id)->{status}, 200, 'an own record is known all the time');
};

subtest 'what is no record' => sub {
    my $record = uploaded($one);
    my $key = "transfer:$id";
    my @hash = %{$redis->hgetall($key)};
    for my $field ('attempt', 'state', 'bytesStored', 'updatedAt',
        'transferId')
    {
        $redis->cmd('HSET', $key, $field => '-');
        is_deeply(status($other, $id)->{json}, $record,
            "$field is malformed in Redis: DynamoDB is asked");
        $redis->cmd('HSET', $key, @hash);
    }
    $redis->cmd('DEL', $key);
    $redis->cmd('SET', $key, 'a string');
    is_deeply(status($other, $id)->{json}, $record, 'a string');
    $redis->cmd('DEL', $key);
    my $item = $db->item($id);
    $db->put_item({ %$item, state => { S => 'odd' } });
    my $r = status($other, $id);
    isnt($r->{status}, 200, 'malformed in DynamoDB');
    isnt($r->{status}, 500, 'but not our fault');
    $redis->cmd('HSET', $key, @hash, 'unknown' => 'field');
    is_deeply(status($other, $id)->{json}, $record,
        'fields of a later version do no harm');
};

subtest 'who is asked' => sub {
    my $fake = $t->fake;
    my $n = instance($to_redis, 's3_progress_dynamodb ' . $fake->url
        . ' table=t;');
    uploaded($one);
    is(status($n, $id)->{status}, 200, 'Redis has it');
    is($fake->begun('GetItem'), 0, 'DynamoDB is not asked');
    my $known = $id;
    my $unknown = new_id();
    is_error(status($n, $id), 404, 'NoSuchTransfer', 'Redis does not');
    is(scalar(my @r = $fake->requests('GetItem')), 1, 'DynamoDB is');
    is_deeply(JSON::PP->new->decode($r[0]{body}), {
        TableName => 't', Key => { transferId => { S => $unknown } },
        ConsistentRead => JSON::PP::true() }, 'for this item');
    like($r[0]{headers}{authorization}, qr{us-east-1/dynamodb/aws4_request},
        'signed');
    new_id();
    curl($n->url("/upload/a?id=$id"), body => 'x');
    ok((wait_for { ($redis->hgetall("transfer:$id") || {})->{state} }),
        'in Redis');
    is(status($n, $id)->{status}, 200, 'an own record');
    is($fake->begun('GetItem'), 1, 'is known without DynamoDB');

    # writes are refused: the store is down, but not for readers
    my $throttled = $t->fake(on => { PutItem => { status => 400,
        body => '{"__type":"ThrottlingException"}' } });
    my $m = instance('s3_progress_dynamodb ' . $throttled->url . ' table=t;');
    curl($m->url('/upload/x'), body => 'x');
    ok((wait_for { $m->log =~ /dynamodb store is down/ }), 'throttled');
    $id = $unknown;
    is_error(status($m, $id), 404, 'NoSuchTransfer', 'reads go on');

    # errors of reads
    my %bad = (
        throttled => { status => 400, body => '{"__type":'
            . '"ProvisionedThroughputExceededException"}' },
        broken => { status => 500 },
        garbage => { raw => "\0\0\r\n\r\n", close => 'after' },
        text => { status => 200, body => 'hello' },
        closed => { close => 'before' },
    );
    for my $name (sort keys %bad) {
        my $f = $t->fake(on => { GetItem => $bad{$name} });
        my $i = instance($to_redis, 's3_progress_dynamodb ' . $f->url
            . ' table=t;');
        is(status($i, $known)->{status}, 200, "$name: Redis has one");
        $id = $unknown;
        is_error(status($i, $id), 503, 'StoreUnavailable', 'another is not'
            . ' known to be unknown');
        my @lines = grep { /\[(warn|error)\]/ } split /\n/, $i->log;
        is(scalar @lines, 1, 'a line');
        like($lines[0], qr/\[warn\] .*dynamodb store cannot be read: \S/,
            'that tells why');
        $i->quit;
        $f->stop;
    }
    $_->quit for $m, $n;
    $_->stop for $fake, $throttled;
};

subtest 'one store alone' => sub {
    my $record = uploaded($one);
    my $n = instance($to_redis);
    is_deeply(status($n, $id)->{json}, $record, 'Redis');
    my $m = instance($to_db);
    is_deeply(status($m, $id)->{json}, $record, 'DynamoDB');
    new_id();
    is_error(status($_, $id), 404, 'NoSuchTransfer', 'unknown') for $n, $m;
    $_->quit for $n, $m;
};

subtest 'deaf' => sub {
    my $record = uploaded($one);
    my $requests = totals($other)->{redis}{writes};
    $redis->signal('STOP');
    # clients that leave meanwhile
    my @gone = map { my $c = $t->raw($other->port);
        $c->send("GET /transfers/$id HTTP/1.1\r\nHost: t\r\n\r\n"); $c } 1 .. 3;
    my $patient = curl_start($other->url("/transfers/$id"));
    my $pipelined = $t->raw($other->port);
    $pipelined->send("GET /transfers/$id HTTP/1.1\r\nHost: t\r\n\r\n"
        . "GET /transfers/ HTTP/1.1\r\nHost: t\r\n\r\n");
    sleep 0.3;
    $gone[0]->close;
    $gone[1]->reset;
    ok(curl($other->url('/transfers/'))->{json}, 'others are answered');
    $redis->signal('CONT');
    my $r = $patient->wait;
    is_deeply($r->{json}, $record, 'who waits is told');
    is($pipelined->response->{status}, 200, 'and with a second request');
    like($pipelined->response->{body}, qr/totals/, 'that one, too');
    is($gone[2]->response->{status}, 200, 'who is still there');

    $redis->signal('STOP');
    my $seconds = time;
    my $c = $t->raw($other->port);
    $c->send("GET /transfers/$id HTTP/1.1\r\nHost: t\r\n\r\n");
    $r = status($other, $id);
    $seconds = time - $seconds;
    is_deeply($r->{json}, $record, 'after a while DynamoDB is asked');
    cmp_ok($seconds, '<', 30, 'not for ever');
    cmp_ok($seconds, '>', 4, 'but a while') or diag $r->{body};
    is($c->response->{status}, 200, 'everyone is answered');
    new_id();
    is(curl($one->url("/upload/e?id=$id"), body => 'x')->{status}, 201,
        'an upload meanwhile');
    ok((wait_for { (($db->get_item($id) || {})->{state} || '') eq 'completed' }
        4, 0.05), 'DynamoDB does not wait for Redis');
    $redis->signal('CONT');
    ok((wait_for { totals($other)->{redis}{up} == 1 } 60), 'Redis is back');
};

# nginx leads the request of a client that left to its post_action
subtest 'for a client that left, and a post_action that is on' => sub {
    my $n = instance($to_redis);
    new_id();
    $redis->signal('STOP');
    my $left = $t->raw($n->port);
    $left->send("GET /left/$id HTTP/1.1\r\nHost: t\r\n\r\n");
    sleep 0.3;
    $left->close;
    ok((wait_for { $after->begun('get') }), 'a post_action');
    $redis->signal('CONT');
    ok((wait_for { -s "$n->{dir}/after.log" }), 'ends');
    is(S3T::Util::read_file("$n->{dir}/after.log"), "200\n", 'in its own time');
    ok($n->quit, 'and nothing is left of it');
};

subtest 'down' => sub {
    my $record = uploaded($one);
    my $unknown = $id . '-unknown';
    $redis->stop;
    ok((wait_for { totals($other)->{redis}{up} == 0 }), 'Redis is down');
    is_deeply(status($other, $id)->{json}, $record, 'DynamoDB has it');
    my $known = $id;
    $id = $unknown;
    is_error(status($other, $id), 503, 'StoreUnavailable',
        'what DynamoDB does not know, Redis might');
    $db->stop;
    is_error(status($other, $id), 503, 'StoreUnavailable', 'both are down');
    $id = $known;
    is_error(status($other, $id), 503, 'StoreUnavailable', 'one that exists');
    is(status($one, $id)->{status}, 200, 'an own record is known');
    is(curl($one->url('/upload/d'), body => 'x')->{status}, 201, 'uploads');

    # Redis lost what it had, and DynamoDB is away
    $redis->start;
    ok((wait_for { totals($other)->{redis}{up} == 1 } 60), 'Redis is back');
    is_error(status($other, $id), 503, 'StoreUnavailable',
        'unknown to Redis alone');
    $db->start;
    ok((wait_for { status($other, $id)->{status} == 404 } 60),
        'both lost it: 404');
    uploaded($one);
    is(status($other, $id)->{status}, 200, 'all is well');
};
