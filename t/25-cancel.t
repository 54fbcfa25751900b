#!/usr/bin/perl

# DELETE on the record of a transfer that runs, from any worker and at any
# moment: its client is told, nothing is stored, nothing is left open, and all
# stores say so. What has ended, is being completed, runs elsewhere or is
# another owner's goes on as it is.

use strict;
use warnings;

use lib 't/lib';
use JSON::PP ();
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Open qw/ begin finish half lines on_worker open_keys
    state_of status stored totals /;
use S3T::Util qw/ wait_exit /;

my $t = S3T->new;
my $s3 = $t->s3;

# parts and the end of an object, as slow as a test wants them
my $go = $t->dir . '/go';
my $fake = $t->fake(on => { complete => { hold => $go }, put => { delay => 1 } });
my $shy = $t->fake(on => { head => { delay => 60 } });

my $conf = <<'EOC';
%%MAIN%%
http {
    %%HTTP%%
    s3_memory 400m;
    s3_part_size 5m;
    s3_window 10m;
    s3_part_concurrency 1;
    s3_transfer_id $arg_id;
    s3_credentials static testaccess testsecret;
    s3_progress_redis redis://%%REDIS%% prefix=%%PREFIX%%;
    s3_progress_dynamodb %%DYNAMODB%% table=%%TABLE%%;
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        listen 127.0.0.1:%%PORT_h2%% http2 reuseport;
        add_header X-Pid $pid always;
        location /upload/ { %%S3%% s3_upload; }
        location /fake/ { s3_endpoint %%FAKE%%; s3_bucket bucket; s3_upload; }
        location /shy/ {
            s3_endpoint %%SHY%%; s3_bucket bucket; s3_overwrite off; s3_upload;
        }
        location /owned/ { %%S3%% s3_owner $http_x_user; s3_upload; }
        location /status/ { s3_status list cancel; }
        location /mine/ { s3_owner $http_x_user; s3_status json cancel; }
        location /shown/ { s3_status list; }
    }
}
EOC
$t->token(FAKE => $fake->url, SHY => $shy->url);
my $n = $t->nginx($conf, workers => 4);

# DynamoDB's table is that of all runs
my $number = 0;
sub new_id { sprintf '%s-%s-%04d', $t->bucket, $_[0] || 'x', ++$number }

# over a connection of its own, or over this one
sub cancel {
    my ($id, %o) = @_;
    my $path = ($o{at} || '/status/') . $id;
    return curl($n->url($path), method => 'DELETE', %o) if !$o{over};
    $o{over}->send("DELETE $path HTTP/1.1\r\nHost: a\r\n\r\n");
    my $r = $o{over}->response or die "no answer to DELETE $path";
    $r->{json} = JSON::PP::decode_json($r->{body});
    return $r;
}

sub refused {
    my ($r, $status, $code, $name) = @_;
    is($r->{status}, $status, $name);
    is($r->{json}{error}, $code, "$name: code");
}

# what its client is told
sub told {
    my ($r, $id) = @_;
    is($r->{status}, 409, 'its client is told') or return;
    my $json = $r->{json} || JSON::PP::decode_json($r->{body});
    is($json->{error}, 'TransferCancelled', 'what happened');
    is($json->{transferId}, $id, 'to which');
    is($r->{headers}{'x-transfer-id'}, $id, 'as ever');
}

# the record everywhere, and that nothing is left of it
sub cancelled {
    my ($id, $key) = @_;
    ok((wait_for { state_of($n, $id) eq 'aborted' } 30, 0.05), 'aborted');
    my $record = status($n, $id);
    is($record->{error}, 'cancelled', 'why');
    my $hash;
    ok((wait_for {
        $hash = $t->redis->hgetall($t->prefix . $id) || {};
        ($hash->{state} || '') eq 'aborted';
    }), 'Redis');
    is($hash->{error}, 'cancelled', 'Redis: why');
    my $item;
    ok((wait_for {
        $item = $t->dynamodb->get_item($id) || {};
        ($item->{state} || '') eq 'aborted';
    }), 'DynamoDB');
    is($item->{error}, 'cancelled', 'DynamoDB: why');
    return if !$key;
    ok((wait_for { !grep { $_ eq $key } open_keys($s3) }),
        'no upload is open');
    ok(!$s3->head($key), 'no object');
}


subtest "$_ worker" => sub {
    my $same = $_ eq 'the same';
    my ($owner, $other) = $n->workers;
    my $before = totals($n);
    my $id = new_id;
    my $u = half($t, $n, '/upload/', $id, $owner);
    ok(stored($n, $u), 'a part is stored');
    # (the one before may yet be aborted)
    ok((wait_for { join(' ', open_keys($s3)) eq $u->{key} }),
        'an upload is open');
    my $over = on_worker($t, $n, $same ? $owner : $other);
    my $from = time;
    my $r = cancel($id, over => $over);
    is($r->{status}, 202, 'accepted');
    is($r->{headers}{'x-pid'}, $same ? $owner : $other, 'by that worker');
    is_deeply([@{$r->{json}}{qw/ transferId state bytesTransferred /}],
        [$id, 'active', $u->{sent}], 'the record');
    is(state_of($n, $id), 'aborted', 'at once') if $same;
    told($u->{c}->response || {}, $id);
    # (60 s are the time of a body that does not come)
    cmp_ok(time - $from, '<', 20, 'soon');
    ok($u->{c}->closed, 'the rest of its body is not waited for');
    cancelled($id, $u->{key});
    refused(cancel($id), 409, 'TransferEnded', 'once more');
    ok((wait_for { !totals($n)->{memoryUsed} }), 'no memory is in use');
    my $after = totals($n);
    is_deeply([map { $after->{$_} - $before->{$_} }
        qw/ started aborted failed completed active /], [1, 1, 0, 0, 0],
        'counted');
    is(scalar(lines($n, qr/transfer is aborted.*transfer: $id/)), 1, 'a line');

    # the slot may be the same: what was asked was not asked of this one
    $u = half($t, $n, '/upload/', $id, $owner);
    my $else = half($t, $n, '/upload/', new_id, $owner);
    ok(stored($n, $u, $else), 'the id is used again');
    is(cancel($else->{id}, over => $over)->{status}, 202, 'another is asked');
    is(($else->{c}->response || {})->{status}, 409, 'and ends');
    finish($s3, $u, 'the next attempt');
} for 'the same', 'another';


subtest 'twice, and before its worker knows' => sub {
    my ($owner, $other) = $n->workers;
    my $id = new_id;
    my $u = half($t, $n, '/upload/', $id, $owner);
    ok(stored($n, $u), 'a part is stored');
    my $over = on_worker($t, $n, $other);
    kill 'STOP', $owner;
    is(cancel($id, over => $over)->{status}, 202, 'accepted');
    my $r = cancel($id, over => $over);
    is($r->{status}, 202, 'and once more');
    is($r->{json}{state}, 'active', 'nothing has happened');
    kill 'CONT', $owner;
    told($u->{c}->response || {}, $id);
    cancelled($id, $u->{key});
};


subtest 'many' => sub {
    my @uploads = map { half($t, $n, '/upload/', new_id) } 1 .. 12;
    ok(stored($n, @uploads), 'as many uploads');
    my @not = splice @uploads, 4, 4;
    is(cancel($_->{id})->{status}, 202, "cancelled: $_->{id}") for @uploads;
    is(($_->{c}->response || {})->{status}, 409, 'told') for @uploads;
    ok((wait_for { @not == (() = open_keys($s3)) }),
        'their uploads are aborted');
    finish($s3, $_, 'another') for @not;
};


subtest 'what was there stays' => sub {
    my $d = data(1000);
    is(curl($n->url('/upload/former'), file => $d)->{status}, 201, 'an object');
    my $id = new_id;
    my $c = $t->raw($n->port);
    my $size = 11 * MB;
    $c->send("PUT /upload/former?id=$id HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: $size\r\n\r\n" . 'x' x ($size - 1));
    ok((wait_for { (status($n, $id)->{partsStored} || 0) == 2 }), 'half of it');
    is(cancel($id)->{status}, 202, 'accepted');
    told($c->response || {}, $id);
    cancelled($id);
    is_deeply([$s3->sha256('upload/former')], [$d->{sha256}, $d->{size}],
        'the former one');
};


subtest 'before S3 was told' => sub {
    my $id = new_id;
    my $c = $t->raw($n->port);
    $c->send("PUT /fake/small?id=$id HTTP/1.1\r\nHost: a\r\n"
        . "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    ok((wait_for { (status($n, $id)->{bytesTransferred} || 0) == 5 }), 'begun');
    is(cancel($id)->{status}, 202, 'accepted');
    told($c->response || {}, $id);
    cancelled($id);
    is($fake->begun($_), 0, "no $_") for qw/ put create abort /;
};


subtest 'HTTP/2' => sub {
    my $id = new_id;
    my $port = $n->port('h2');
    my $said = $t->dir . '/h2';
    my $pid = spawn({}, sub {
        my $r = h2_put($port, "/upload/h2?id=$id", data(8 * MB),
            send => 6 * MB, then => 'wait');
        write_file($said, JSON::PP::encode_json($r));
    });
    ok((wait_for { (status($n, $id)->{partsStored} || 0) == 1 }), 'begun');
    is(cancel($id)->{status}, 202, 'accepted');
    is(wait_exit($pid, 60), 0, 'answered');
    told(JSON::PP::decode_json(read_file($said)), $id);
    cancelled($id, 'upload/h2');
};


subtest 'while S3 is asked for the object' => sub {
    my $id = new_id;
    my $c = $t->raw($n->port);
    $c->send("PUT /shy/a?id=$id HTTP/1.1\r\nHost: a\r\n"
        . "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    ok((wait_for { $shy->begun('head') }), 'it is asked');
    is(cancel($id)->{status}, 202, 'accepted');
    my $r = $c->response || {};
    told($r, $id);
    is_deeply($r->{interim} || [], [], 'no 100 Continue');
    cancelled($id);
    is($shy->begun('put'), 0, 'nothing was stored');
};


subtest 'while it waits for memory' => sub {
    my $of = $t->nginx(<<'EOC');
%%MAIN%%
http {
    %%HTTP%%
    s3_memory 15m;
    s3_part_size 5m;
    s3_window 10m;
    s3_transfer_id $arg_id;
    s3_credentials static testaccess testsecret;
    s3_endpoint %%FAKE%%;
    s3_bucket bucket;
    server {
        listen 127.0.0.1:%%PORT_small%%;
        location / { s3_upload; }
        location /status/ { s3_status list cancel; }
    }
}
EOC
    my $at = sub { $of->url("/status/$_[0]", 'small') };
    my @stalled = map {
        my $c = $t->raw($of->port('small'));
        $c->send("PUT /stalled$_ HTTP/1.1\r\nHost: a\r\n"
            . "Content-Length: 20000000\r\n\r\n" . 'x' x 4_900_000);
        $c;
    } 1 .. 2;
    ok((wait_for { curl($at->(''))->{json}{totals}{memoryUsed} == 10 * MB }),
        'the memory is taken');
    $fake->forget;
    my @ids = map { new_id('waits') } 1 .. 2;
    my @c = map {
        my $c = $t->raw($of->port('small'));
        $c->send("PUT /$_?id=$_ HTTP/1.1\r\nHost: a\r\n"
            . "Expect: 100-continue\r\nContent-Length: 6000000\r\n\r\n");
        $c;
    } @ids;
    ok((wait_for { curl($at->(''))->{json}{totals}{active} == 4 }), 'two wait');
    is(curl($at->($ids[0]), method => 'DELETE')->{status}, 202, 'accepted');
    my $r = $c[0]->response || {};
    told($r, $ids[0]);
    is_deeply($r->{interim} || [], [], 'no 100 Continue');
    is(curl($at->($ids[0]))->{json}{state}, 'aborted', 'the record');
    is($fake->begun($_), 0, "no $_") for qw/ put create abort /;
    $stalled[0]->reset;
    is(($c[1]->response || {})->{status}, 100, 'the next one gets its '
        . 'turn');
    is(curl($at->($ids[1]), method => 'DELETE')->{status}, 202, 'and is '
        . 'cancelled then');
    is(($c[1]->response || {})->{status}, 409, 'told');
    $stalled[1]->reset;
    ok((wait_for { !curl($at->(''))->{json}{totals}{memoryUsed} }),
        'no memory is in use');
};


subtest 'too late' => sub {
    $fake->forget;
    my $id = new_id;
    my $u = begin($t->raw($n->port), '/fake/', $id, 8);      # all of it
    ok((wait_for { state_of($n, $id) eq 'completing' }), 'being completed');
    ok((wait_for { $fake->begun('complete') }), 'S3 is told');
    refused(cancel($id), 409, 'TransferCompleting', 'the body is whole');
    write_file($go, '');
    is(($u->{c}->response || {})->{status}, 201, 'stored');
    is(state_of($n, $id), 'completed', 'completed');
    refused(cancel($id), 409, 'TransferEnded', 'it has ended');
    is($fake->begun('abort'), 0, 'nothing was aborted');

    $id = new_id;
    $t->raw($n->port)->send("PUT /upload/x?id=$id HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: 100\r\n\r\n");
    ok((wait_for { state_of($n, $id) eq 'aborted' }), 'a client that left');
    refused(cancel($id), 409, 'TransferEnded', 'that, too');
    isnt(status($n, $id)->{error}, 'cancelled', 'its record stays');
};


subtest 'the last byte at the same time' => sub {
    my ($owner, $other) = $n->workers;
    my $over = on_worker($t, $n, $other);

    # asked before it, seen after it, while S3 stores the object: unless the
    # worker happens to look in between
    my ($late, $r);
    for (1 .. 10) {
        $late = new_id;
        my $c = on_worker($t, $n, $owner);
        $c->send("PUT /fake/late?id=$late HTTP/1.1\r\nHost: a\r\n"
            . "Content-Length: 10\r\n\r\n123456789");
        wait_for { (status($n, $late)->{bytesTransferred} || 0) == 9 };
        is(cancel($late, over => $over)->{status}, 202, 'accepted');
        $c->send('0');
        $r = $c->response || {};
        last if ($r->{status} || 0) == 201;
    }
    is($r->{status}, 201, 'a body that is whole is stored');
    is(state_of($n, $late), 'completed', 'completed');

    my %seen;
    for (1 .. 12) {
        my $id = new_id;
        my $c = on_worker($t, $n, $owner);
        $c->send("PUT /upload/$id?id=$id HTTP/1.1\r\nHost: a\r\n"
            . "Content-Length: 10\r\n\r\n123456789");
        wait_for { (status($n, $id)->{bytesTransferred} || 0) == 9 };
        kill 'STOP', $owner if $_ % 2;
        my $r = cancel($id, over => $over);
        sleep 0.05 * $_ if $_ % 2 == 0;
        $c->send('0');
        kill 'CONT', $owner;
        my $done = $c->response || {};
        my $state = state_of($n, $id);
        my $there = $s3->head("upload/$id") ? 'there' : 'absent';
        $seen{"$r->{status} $done->{status} $state $there"}++;
    }
    my @wrong = grep { !/^202 (?:201 completed there|409 aborted absent)$/ }
        keys %seen;
    is_deeply(\@wrong, [], 'one or the other') or diag explain \%seen;
    note explain \%seen;
};


subtest 'a worker that leaves' => sub {
    my ($owner) = $n->workers;
    my $id = new_id;
    my $u = half($t, $n, '/upload/', $id, $owner);
    ok(stored($n, $u), 'a part is stored');
    $n->reload;
    ok((grep { $_ == $owner } $n->leaving_workers), 'its worker waits for it');
    is(cancel($id)->{status}, 202, 'accepted by a new one');
    told($u->{c}->response || {}, $id);
    cancelled($id, $u->{key});
    ok((wait_for { !kill 0, $owner } 60), 'its worker has left');
};


subtest 'a worker that dies' => sub {
    $t->allow_alerts(qr/worker process \d+ exited on signal 9/);
    my ($owner, $other) = $n->workers;
    my $id = new_id;
    my $u = half($t, $n, '/upload/', $id, $owner);
    ok(stored($n, $u), 'a part is stored');
    my $over = on_worker($t, $n, $other);
    kill 'STOP', $owner;
    is(cancel($id, over => $over)->{status}, 202, 'accepted');
    kill 'KILL', $owner;
    ok((wait_for { state_of($n, $id) eq 'failed' }), 'it has failed');
    is(status($n, $id)->{error}, 'worker process died', 'as its worker did');
    ok((wait_for { !$s3->uploads }), 'no upload is open');
    refused(cancel($id), 409, 'TransferEnded', 'it has ended');
    wait_for { $n->workers == 4 };
    $u = half($t, $n, '/upload/', $id);
    ok(stored($n, $u), 'the id begins anew');
    finish($s3, $u, 'nobody cancelled that');
};


subtest 'owners' => sub {
    my $id = new_id('owned');
    my @alice = (headers => ['X-User: alice']);
    my $c = $t->raw($n->port);
    $c->send("PUT /owned/a?id=$id HTTP/1.1\r\nHost: a\r\nX-User: alice\r\n"
        . "Content-Length: 100\r\n\r\n0123456789");
    ok((wait_for { state_of($n, $id) eq 'active' }), 'her upload');
    refused(cancel($id, at => '/mine/'), 404, 'NoSuchTransfer', 'nobody');
    refused(cancel($id, at => '/mine/', headers => ['X-User: bob']), 404,
        'NoSuchTransfer', 'somebody else');
    is(state_of($n, $id), 'active', 'it goes on');
    my $r = cancel($id, at => '/mine/', @alice);
    is($r->{status}, 202, 'she may');
    unlike($r->{body}, qr/alice/, 'not whose it is');
    is(($c->response || {})->{status}, 409, 'told');
    refused(cancel($id, at => '/mine/', @alice), 409, 'TransferEnded',
        'hers has ended');
    refused(cancel($id, at => '/mine/', headers => ['X-User: bob']), 404,
        'NoSuchTransfer', 'not for somebody else');
};


subtest 'requests' => sub {
    my $id = new_id;
    my $u = half($t, $n, '/upload/', $id);
    my $r = cancel($id, at => '/shown/');
    refused($r, 405, 'MethodNotAllowed', 'without cancel');
    is($r->{headers}{allow}, 'GET, HEAD, OPTIONS', 'what is allowed');
    $r = curl($n->url("/shown/$id"), method => 'OPTIONS');
    is($r->{headers}{allow}, 'GET, HEAD, OPTIONS', 'OPTIONS');
    $r = curl($n->url("/status/$id"), method => 'OPTIONS');
    is_deeply([@$r{qw/ status body /}, $r->{headers}{allow}],
        [204, '', 'GET, HEAD, DELETE, OPTIONS'], 'OPTIONS with cancel');
    $r = curl($n->url("/status/$id"), body => 'x');
    is_deeply([$r->{status}, $r->{headers}{allow}],
        [405, 'GET, HEAD, DELETE, OPTIONS'], 'another method');
    $r = cancel('');
    is_deeply([$r->{status}, $r->{headers}{allow}],
        [405, 'GET, HEAD, OPTIONS'], 'no id');
    refused(cancel($_), 404, 'NoSuchTransfer', "id: $_")
        for 'unknown-0123456789', 'short', 'a/b-0123456789-0123';
    is(state_of($n, $id), 'active', 'it goes on');

    my $c = $t->raw($n->port);
    $c->send("DELETE /status/$id HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: 100000\r\n\r\n" . 'x' x 100_000
        . "GET /status/$id HTTP/1.1\r\nHost: a\r\n\r\n");
    is(($c->response || {})->{status}, 202, 'a body is dropped');
    is(($c->response || {})->{status}, 200, 'and the next request read');
    told($u->{c}->response || {}, $id);
    cancelled($id, $u->{key});
};


subtest 'another instance' => sub {
    my $redis = $t->own_redis;
    my $db = $t->own_dynamodb;
    $t->token(OWN_REDIS => "127.0.0.1:$redis->{port}",
        OWN_DB => "http://127.0.0.1:$db->{port}");
    my $text = $conf =~ s{redis://%%REDIS%%}{redis://%%OWN_REDIS%%}r
        =~ s{%%DYNAMODB%% table=%%TABLE%%}{%%OWN_DB%% table=transfers}r;
    my ($one, $two) = map { my $name = $_;
        $t->nginx($text =~ s/%%PORT%%/%%PORT_$name%%/r
            =~ s/%%PORT_h2%%/%%PORT_h2$name%%/r, workers => 2) } 1, 2;
    my $at = sub { my ($path, @o) = @_;
        curl($two->url($path, 2), method => 'DELETE', @o) };
    my $id = new_id('one');
    my @alice = (headers => ['X-User: alice']);
    my $begin = sub {
        my $c = $t->raw($one->port(1));
        $c->send("PUT /owned/one?id=$id HTTP/1.1\r\nHost: a\r\n"
            . "X-User: alice\r\nContent-Length: 100\r\n\r\n0123456789");
        return $c;
    };
    my $known = sub { my ($state) = @_; wait_for {
        (($db->get_item($id) || {})->{state} || '') eq $state
        && (($redis->hgetall($t->prefix . $id) || {})->{state} || '')
            eq $state } };

    my $c = $begin->();
    ok($known->('active'), 'the other one runs it');
    refused($at->("/status/$id"), 409, 'TransferElsewhere', 'elsewhere');
    refused($at->("/mine/$id", @alice), 409, 'TransferElsewhere', 'hers');
    refused($at->("/mine/$id"), 404, 'NoSuchTransfer', 'not others\'');
    $redis->cmd('DEL', $t->prefix . $id);
    refused($at->("/status/$id"), 409, 'TransferElsewhere', 'in DynamoDB');
    is(curl($one->url("/status/$id", 1))->{json}{state}, 'active',
        'it goes on');
    is(curl($one->url("/status/$id", 1), method => 'DELETE')->{status}, 202,
        'there it can be cancelled');
    is(($c->response || {})->{status}, 409, 'told');
    ok($known->('aborted'), 'the stores know');
    refused($at->("/status/$id"), 409, 'TransferEnded', 'it has ended');

    # the zone's record is over, a newer one runs
    is(curl($two->url("/owned/one?id=$id", 2), body => 'x', @alice)->{status},
        201, 'the next attempt, here');
    ok($known->('completed'), 'completed');
    refused($at->("/status/$id"), 409, 'TransferEnded', 'ended');
    $c = $begin->();
    ok($known->('active'), 'the one after that runs at the other');
    refused($at->("/status/$id"), 409, 'TransferElsewhere', 'the newest');
    $c->reset;
    ok($known->('aborted'), 'it ends');

    $redis->stop;
    $db->stop;
    refused($at->('/status/somebody-else-0123'), 503, 'StoreUnavailable',
        'the stores are down');
    my $u = $t->raw($two->port(2));
    $id = new_id('two');
    $u->send("PUT /upload/two?id=$id HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: 100\r\n\r\n0123456789");
    ok((wait_for { curl($two->url("/status/$id", 2))->{status} == 200 }),
        'its own');
    is($at->("/status/$id")->{status}, 202, 'it needs no store for these');
    is(($u->response || {})->{status}, 409, 'told');
    refused($at->("/status/$id"), 409, 'TransferEnded', 'nor afterwards');
};


subtest 'nginx -t' => sub {
    my $of = $t->nginx('', start => 0);
    my %status = (
        'cancel' => '', 'list cancel json' => '', 'cancel id=$arg_id' => '',
        'cancel cancel' => 'invalid parameter "cancel" in "s3_status"',
        'prometheus cancel' => '"s3_status" cannot have "cancel" beside '
            . '"prometheus"',
        'cancel prometheus' => '"s3_status" cannot have "cancel" beside '
            . '"prometheus"',
    );
    for (sort keys %status) {
        my ($status, $said) = $of->test_conf(<<"EOC");
%%MAIN%%
http {
    %%HTTP%%
    server { listen 127.0.0.1:%%PORT%%; location /s/ { s3_status $_; } }
}
EOC
        is($status, $status{$_} ? 1 : 0, "s3_status $_") or diag $said;
        like($said, qr/\[emerg\] .*\Q$status{$_}\E/, 'why') if $status{$_};
    }
};
