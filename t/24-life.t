#!/usr/bin/perl

# The life of processes: a reload in the middle of uploads, a worker that is
# killed, and another module with a Redis client of its own in the same nginx.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use Time::HiRes qw/ sleep /;
use S3T;

my $t = S3T->new;

my $conf = <<'EOF';
%%MAIN%%
http {
    %%HTTP%%
    %%S3%%
    s3_payload_signature off;
    s3_part_size 5m;
    s3_transfer_id $arg_id;
    s3_progress_redis redis://%%REDIS%% prefix=%%PREFIX%%;
    s3_transfer_zone 1m;
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        listen 127.0.0.1:%%PORT_h2%% http2;
        add_header X-Pid $pid always;
        location /upload/ { s3_upload; }
        location /transfers/ { s3_status list; }
    }
}
EOF

my $n = $t->nginx($conf, workers => 2);

sub status { curl($n->url("/transfers/$_[0]")) }
sub totals { status('')->{json}{totals} }

subtest 'reload' => sub {
    my %how = (
        length => {}, chunked => { chunked => 1 },
        h2 => { h2 => 1 }, 'h2-chunked' => { h2 => 1, chunked => 1 },
    );
    my $size = 60 * MB;
    my $seed = 0;
    my (%data, %upload);
    my @old = $n->workers;
    for my $name (sort keys %how) {
        my $o = $how{$name};
        $data{$name} = data($size, ++$seed);
        $upload{$name} = curl_start(
            $n->url("/upload/$name?id=reload-0123456789-$name",
                $o->{h2} ? 'h2' : undef),
            file => $data{$name}, rate => '10M', %$o);
    }
    my $id = sub { "reload-0123456789-$_[0]" };
    # the clients stand still while they are looked at, however long that takes
    my $clients = sub { kill $_[0], map { $_->{pid} } values %upload };
    ok((wait_for { !grep {
        !((status($id->($_))->{json} || {})->{bytesTransferred}) } keys %how }),
        'four are under way');
    my %before = map { $_ => status($id->($_))->{json} } keys %how;
    $clients->('STOP');

    ok($n->reload, 'reloaded');
    my %new = map { $_ => 1 } $n->workers;
    is(scalar(grep { $new{$_} } @old), 0, 'by other workers');

    is(scalar(grep { !$_->running } values %upload), 0, 'they go on');
    my %seen;
    for (1 .. 3) {
        for my $name (sort keys %how) {
            my $r = status($id->($name));
            is($r->{json}{state}, 'active', "$name: active");
            ok($new{$r->{headers}{'x-pid'}}, 'says a new worker');
            cmp_ok($r->{json}{bytesTransferred}, '>=',
                ($seen{$name} || $before{$name})->{bytesTransferred},
                'it does not fall');
            $seen{$name} = $r->{json};
        }
    }
    $clients->('CONT');
    ok((wait_for { !grep { status($id->($_))->{json}{bytesTransferred}
        <= $seen{$_}{bytesTransferred} } keys %how }), 'all grow');
    $clients->('STOP');
    is(status('')->{json}{totals}{active}, 4, 'totals');
    is(@{status('?state=active')->{json}{transfers}}, 4, 'list');
    my $r = curl($n->url('/upload/x?id=' . $id->('h2')), body => 'x');
    is($r->{status}, 409, 'their ids are in use');
    $r = curl($n->url('/upload/new?id=new-0123456789abc'), body => 'new');
    is($r->{status}, 201, 'a new worker uploads');
    ok($new{$r->{headers}{'x-pid'}}, 'a new one indeed');
    cmp_ok(scalar(my @leaving = $n->leaving_workers), '>', 0, 'old ones stay');
    $clients->('CONT');

    for my $name (sort keys %how) {
        $r = $upload{$name}->wait;
        is($r->{status}, 201, "$name: stored");
        is(scalar(grep { $_ == $r->{headers}{'x-pid'} } @old), 1,
            'by the worker that began it');
        is_deeply([$t->s3->sha256("upload/$name")],
            [$data{$name}{sha256}, $size], 'byte for byte');
        my $now = status($id->($name));
        is_deeply($now->{json}, $r->{json}, 'as new workers say');
        ok($new{$now->{headers}{'x-pid'}}, 'new ones');
        is($now->{json}{attempt}, $before{$name}{attempt}, 'the same attempt');
    }
    ok((wait_for { !$n->leaving_workers } 60), 'the old workers leave');
    is(scalar(grep { kill 0, $_ } @old), 0, 'they are gone');
    my $totals = totals();
    is_deeply([@$totals{qw/ started completed active failed memoryUsed /}],
        [5, 5, 0, 0, 0], 'one count over both generations');
};

subtest 'one reload after the other' => sub {
    my $before = totals();
    my $d = data(30 * MB, 5);
    my $id = 'from-the-first-of-them';
    my $body = read_file($d->{path});
    my $c = $t->raw($n->port);
    $c->send("PUT /upload/first?id=$id HTTP/1.1\r\nHost: t\r\n"
        . "Content-Length: $d->{size}\r\n\r\n" . substr $body, 0, 13 * MB);
    ok((wait_for { ((status($id)->{json} || {})->{bytesTransferred} || 0)
        == 13 * MB }), 'under way');
    my @status;
    for my $round (1 .. 5) {
        push @status, curl($n->url('/upload/between'), body => 'x')->{status};
        ok($n->reload, "reload $round");
        push @status, curl($n->url('/upload/between'), body => 'x')->{status};
        is(status($id)->{json}{state}, 'active', 'it goes on');
    }
    $c->send(substr $body, 13 * MB);
    is(($c->response(60) || {})->{status}, 201, 'to its end');
    is_deeply([$t->s3->sha256('upload/first')], [$d->{sha256}, $d->{size}],
        'byte for byte');
    is(join(' ', @status), join(' ', (201) x 10), 'others meanwhile');
    my $after = totals();
    is($after->{completed} - $before->{completed}, 11, 'all are counted');
    is($after->{failed}, 0, 'none failed');
    ok((wait_for { !$n->leaving_workers } 60), 'the old workers leave');
    ok((wait_for { totals()->{redis}{up} == 2 }), 'two workers have Redis');
};

subtest 'reload with another zone' => sub {
    my $d = data(30 * MB, 9);
    my $id = 'another-zone-0123';
    my $c = curl_start($n->url("/upload/zone?id=$id"), file => $d,
        rate => '10M');
    ok((wait_for { (status($id)->{json} || {})->{bytesTransferred} }),
        'under way');
    kill 'STOP', $c->{pid};      # for as long as it takes
    $n->conf($conf =~ s/zone 1m/zone 2m/r);
    ok($n->reload, 'reloaded');
    is(totals()->{started}, 0, 'counts begin anew');
    is((status($id)->{json} || {})->{state}, 'active', 'Redis knows it');
    kill 'CONT', $c->{pid};
    my $r = $c->wait;
    is($r->{status}, 201, 'stored');
    is_deeply([$t->s3->sha256('upload/zone')], [$d->{sha256}, $d->{size}],
        'byte for byte');
    ok((wait_for { (status($id)->{json} || {})->{state} eq 'completed' }),
        'Redis knows its end');
    ok((wait_for { !$n->leaving_workers } 60), 'the old workers leave');
};

subtest 'a worker is killed' => sub {
    # a client of each worker
    my %client;
    for (1 .. 100) {
        my $c = $t->raw($n->port);
        $c->send("GET /transfers/ HTTP/1.1\r\nHost: t\r\n\r\n");
        $client{$c->response->{headers}{'x-pid'}} ||= $c;
        last if keys %client == 2;
    }
    my ($dies, $stays) = sort keys %client;
    my $before = totals();
    my %id = ($dies => 'of-the-one-that-dies',
        $stays => 'of-the-one-that-stays');
    for my $pid ($dies, $stays) {
        $client{$pid}->send("PUT /upload/$id{$pid}?id=$id{$pid} HTTP/1.1\r\n"
            . "Host: t\r\nContent-Length: 1000000\r\n\r\n" . 'x' x 500_000);
        ok((wait_for { ((status($id{$pid})->{json} || {})->{bytesTransferred}
            || 0) == 500_000 }), "worker $pid has one");
    }
    cmp_ok(totals()->{memoryUsed}, '>', 0, 'in memory');
    my $began = status($id{$dies})->{json};
    my $key = $t->prefix . $id{$dies};
    ok((wait_for { ($t->redis->hgetall($key) || {})->{state} }), 'in Redis');

    $t->allow_alerts(qr/worker process $dies exited on signal 9/);
    kill 'KILL', $dies;
    ok($client{$dies}->closed, 'its client is alone');
    ok((wait_for { status($id{$dies})->{json}{state} eq 'failed' } 60, 0.1),
        'its record fails');
    my $r = status($id{$dies})->{json};
    is($r->{error}, 'worker process died', 'and says why');
    is($r->{bytesTransferred}, 500_000, 'what it had');
    is($r->{attempt}, $began->{attempt}, 'the attempt');
    cmp_ok($r->{sequence}, '>', $began->{sequence}, 'a newer record');
    ok((wait_for { $t->redis->hgetall($key)->{state} eq 'failed' }),
        'in Redis, too');
    is($t->redis->hgetall($key)->{error}, 'worker process died', 'why');
    is($t->redis->hgetall($key)->{sequence}, $r->{sequence}, 'the same record');

    ok((wait_for { $n->workers == 2 }), 'another worker');
    is(status($id{$stays})->{json}{state}, 'active', 'the other one goes on');
    $client{$stays}->send('x' x 500_000);
    is($client{$stays}->response->{status}, 201, 'to its end');
    $r = curl($n->url("/upload/$id{$dies}?id=$id{$dies}"), body => 'again');
    is($r->{status}, 201, 'the id is free');
    cmp_ok($r->{json}{attempt}, '>', $began->{attempt}, 'for a new attempt');
    my %pids;
    for (1 .. 100) {
        $r = curl($n->url('/upload/after'), body => 'x');
        last if $r->{status} != 201;
        $pids{$r->{headers}{'x-pid'}} = 1;
        last if keys %pids == 2;
    }
    is($r->{status}, 201, 'uploads');
    is_deeply([sort keys %pids], [sort $n->workers], 'by both workers');

    my $after;
    ok((wait_for { $after = totals();
        $after->{memoryUsed} == 0 && $after->{redis}{up} == 2 } 60, 0.1),
        'no memory stays counted');
    is($after->{failed} - $before->{failed}, 1, 'one failed');
    is($after->{active}, 0, 'none is active');
    is($after->{redis}{up}, 2, 'both have Redis')
        or diag explain $after->{redis};
};

my ($nchan) = grep { -e } '/usr/lib/nginx/modules/ngx_nchan_module.so';

my $both = <<'EOF';
%%MAIN%%
http {
    %%HTTP%%
    %%S3%%
    s3_transfer_id $arg_id;
    s3_progress_redis redis://%%REDIS%% prefix=%%PREFIX%%;
    nchan_redis_url redis://%%REDIS%%;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /upload/ { s3_upload; }
        location /transfers/ { s3_status; }
        location = /pub {
            nchan_publisher;
            nchan_channel_id $arg_c;
            nchan_use_redis on;
        }
        location = /sub {
            nchan_subscriber longpoll;
            nchan_channel_id $arg_c;
            nchan_use_redis on;
        }
    }
}
EOF

for my $first (qw/ ours nchan /) {
    subtest "nchan, $first first" => sub {
        return fail('nchan is installed') if !$nchan;
        my $of = $t->nginx($both, workers => 2, $first eq 'ours'
            ? (modules => [$nchan])
            : (module => 0, modules => [$nchan, S3T::Nginx::module_path()]));
        my $channel = $t->bucket . $first;
        # before that it answers 503
        ok((wait_for { 2 == (() = $of->log =~ /nchan: Redis host .* ready/g) }),
            'nchan has Redis in both workers');

        my @wait = map { curl_start($of->url("/sub?c=$channel"), timeout => 300)
            } 1 .. 4;
        ok((wait_for {
            my $r = curl($of->url("/pub?c=$channel"),
                headers => ['Accept: text/json']);
            (($r->{json} || {})->{subscribers} || 0) == 4 } 60, 0.2),
            'subscribers');
        for my $round (1 .. 5) {
            my $id = "beside-nchan-$first-$round";
            my $r = curl($of->url("/upload/$id?id=$id"),
                file => data($round * 3 * MB));
            is($r->{status}, 201, "upload $round");
            my $key = $t->prefix . $id;
            ok((wait_for { (($t->redis->hgetall($key) || {})->{state} || '')
                eq 'completed' }), 'in Redis');
            is(curl($of->url("/transfers/$id"))->{json}{state}, 'completed',
                'and shown');
            $r = curl($of->url("/pub?c=$channel"), method => 'POST',
                body => "message $round");
            like($r->{status}, qr/^20[012]$/, "published $round");
        }
        my @got = map { $_->wait } @wait;
        is(scalar(grep { $_->{status} == 200 && $_->{body} eq 'message 1' }
            @got), 4, 'every subscriber heard of it');
        ok(scalar @{$t->redis->cmd('KEYS', "*$channel*")},
            'nchan keeps its channel in the same Redis');
        # read from the store: the record of another instance
        my $elsewhere = "elsewhere-0123456-$first";
        $t->redis->cmd('COPY', $t->prefix . "beside-nchan-$first-1",
            $t->prefix . $elsewhere);
        $t->redis->cmd('HSET', $t->prefix . $elsewhere,
            transferId => $elsewhere);
        my $r = curl($of->url("/transfers/$elsewhere"));
        is(($r->{json} || {})->{bytesStored}, 3 * MB,
            'our reads of Redis work') or diag $r->{body};
        is(curl($of->url('/transfers/'))->{json}{totals}{redis}{errors}, 0,
            'none of our writes failed');
        $t->redis->cmd('DEL', @{$t->redis->cmd('KEYS', "*$channel*")});
    };
}

if (my @keys = @{$t->redis->cmd('KEYS', $t->prefix . '*')}) {
    $t->redis->cmd('DEL', @keys);
}
