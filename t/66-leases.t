#!/usr/bin/perl

# Open uploads in Redis: when all of an nginx is gone, another instance, or the
# next start, aborts what it left after three leases; whoever cannot reach Redis
# goes on uploading.

use strict;
use warnings;

use lib 't/lib';
use List::Util qw/ min /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Open;
use S3T::Util qw/ wait_exit /;

my $t = S3T->new;
my $s3 = $t->s3;
my $redis = $t->own_redis;
$redis->cmd(qw/ ACL SETUSER cut on >cutpass ~* &* +@all /);
$t->secret('cutpass');

my $conf = <<'EOC';
%%MAIN%%
http {
    %%HTTP%%
    client_body_timeout 600s;
    s3_memory 400m;
    s3_part_size 5m;
    s3_window 10m;
    s3_part_concurrency 1;
    s3_transfer_id $arg_id;
    s3_progress_redis redis://%%USER%%127.0.0.1:%%OWN%%;
    s3_reaper redis lease=%%LEASE%%;
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        add_header X-Pid $pid always;
        # what it may not, the next one may
        location /other/ {
            s3_endpoint %%RGW%%; s3_bucket %%BUCKET%%;
            s3_credentials static nobody testsecret; s3_upload;
        }
        location /upload/ { %%S3%% s3_upload; }
        location /status/ { s3_status list; }
    }
}
EOC

$t->token(USER => '', OWN => $redis->{port}, LEASE => '1s');

sub instance {
    my (%o) = @_;
    $t->token(USER => delete $o{user} || '');
    return $t->nginx($conf, %o);
}

# the entry of an upload, once it is there
sub entered {
    my ($u) = @_;
    return wait_for { entry($redis, $u) };
}

# All of an nginx at once, which has these uploads: the time before which none
# of them may be aborted.
sub kill_all {
    my ($n, @uploads) = @_;
    my @pids = ($n->pid, $n->workers);
    # (renewals move it on)
    my $due = min(map { entered($_)->{score} } @uploads);
    kill 'KILL', @pids;
    delete $n->{pid};
    wait_exit($pids[0], 60);
    wait_for { !grep { S3T::Nginx::_began($_) } @pids };
    return $due / 1000;
}

my $rgw = 'http://127.0.0.1:' . $t->server('RGW_PORT');


subtest 'an entry' => sub {
    my $n = instance(workers => 2);
    my $u = upload($t, $n, 'entry-0123456789ab');
    my $e = entered($u);
    my ($upload) = $s3->uploads;
    is_deeply({ %{$e->{of}}, boot => 'b' }, { endpoint => $rgw,
        bucket => $t->bucket, key => $u->{key}, uploadId => $upload->[1],
        lease => 1000, boot => 'b' }, 'says what is open, and nothing else');
    like($e->{of}{boot}, qr/^[0-9a-f]{32}$/, 'by whom');
    # one that is just renewed has all of it
    my $left;
    ok((wait_for {
        my ($s, $us) = @{$redis->cmd('TIME')};
        $left = entry($redis, $u)->{score} - $s * 1000 - $us / 1000;
        $left > 2000;
    }), 'three leases');
    cmp_ok($left, '<=', 3000, 'by the clock of Redis');
    ok((wait_for { entry($redis, $u)->{score} > $e->{score} + 900 }),
        'is renewed');

    # one of both looks for orphans
    for my $pid ($n->workers) {
        my $halts = begin(on_worker($t, $n, $pid), '/upload/',
            "halts-0123456789-$pid", 1);
        ok(stored($n, $halts), 'an upload');
        kill 'STOP', $pid;
        ok((wait_for { my ($s, $us) = @{$redis->cmd('TIME')};
            entered($halts)->{score} < $s * 1000 - 1000 } 60),
            'its worker stands still, it is not renewed');
        kill 'CONT', $pid;
        finish($s3, $halts, 'what the zone knows is left alone: it');
    }
    is(scalar(lines($n, qr/orphan|left alone/)), 0, 'nobody asked S3');

    $redis->cmd('FLUSHALL');
    ok(entered($u), 'lost, it comes again');
    cmp_ok($redis->cmd('PTTL', SET . ":$e->{name}"), '>', 6 * 86400e3,
        'not for ever');
    finish($s3, $u, 'it');
    ok((wait_for { nothing_left($redis) }), 'no key is left');

    $u = upload($t, $n, 'given-up-0123456789');
    ok(entered($u), 'another');
    $u->{c}->close;
    ok((wait_for { nothing_left($redis) }), 'aborted, none either');
    is(curl($n->url('/upload/small'), body => 'x')->{status}, 201, 'PutObject');
    ok(nothing_left($redis), 'leaves none');

    $u = upload($t, $n, 'killed-0123456789');
    kill 'KILL', $n->workers;
    ok((wait_for { !$s3->uploads } 60), 'a killed worker\'s is aborted');
    ok((wait_for { nothing_left($redis) } 60), 'and none is left');
    $t->allow_alerts(qr/worker process \d+ exited on signal 9/);
    ok($n->quit, 'leaves');
};


# An old worker whose connection to Redis was closed for being idle: that it has
# nothing to renew for minutes is no reason to leave an entry behind.
subtest 'the last of a leaving worker' => sub {
    $t->token(LEASE => '5m');
    my $n = instance();
    my $u = upload($t, $n, 'leaving-0123456789');
    ok(entered($u), 'an upload');
    my ($old) = $n->workers;
    ok($n->reload, 'a reload');
    ok((wait_for { grep { $_ == $old } $n->leaving_workers }), 'it leaves');
    finish($s3, $u, 'it');
    ok((wait_for { !$n->leaving_workers } 60), 'it has left');
    ok((wait_for { nothing_left($redis) } 1), 'and no key');
    ok($n->quit, 'leaves');
    $t->token(LEASE => '1s');
};


subtest 'all of an nginx is killed' => sub {
    my @others = map { instance(workers => 2) } 1, 2;
    my $n = instance(workers => 2);
    my $foreign = foreign($s3, 'upload/theirs');
    my @u = map { upload($t, $n, "gone-0123456789-$_") } 1 .. 3;
    my $live = upload($t, $others[0], 'live-0123456789-x');
    my $due = kill_all($n, @u);
    wait_for { $s3->uploads < 5 } 60, 0.05;
    cmp_ok(time, '>=', $due, 'nothing is aborted before three leases');
    ok((wait_for { $s3->uploads == 2 } 60), 'then it is')
        or diag explain [$s3->uploads];
    is_deeply([open_keys($s3)], [$live->{key}, 'upload/theirs'],
        'not what lives, nor what is another\'s');
    ok((wait_for { names($redis) == 1 }), 'their entries are gone');
    is((names($redis))[0], entered($live)->{name},
        'that of the living stays');
    ok((wait_for { totals($others[0])->{orphansAborted}
        + totals($others[1])->{orphansAborted} == 3 }),
        'each is aborted by one');
    my $line = qr/orphaned multipart upload "\S+" is aborted, /;
    my @told = map { lines($_, $line) } @others;
    is(scalar(grep { /transfer: gone-\S+\.\d+, bucket: .*, key: "upload\/gone/ }
        @told), 3, 'and told of');
    finish($s3, $live, 'what lives');

    # the next start
    $_->quit for @others;
    my $u = upload($t, $n->start, 'next-0123456789ab');
    $due = kill_all($n, $u);
    $n->start;
    ok((wait_for { $s3->uploads == 1 } 60), 'the next start aborts as well');
    cmp_ok(time, '>=', $due, 'after three leases');
    ok((wait_for { nothing_left($redis) }), 'nothing is left');
    $s3->abort('upload/theirs', $foreign);
    ok($n->quit, 'leaves');
};


subtest 'cut off from Redis' => sub {
    # (a part a second, each of them younger than three leases)
    $t->token(LEASE => '2s');
    body(read_file(data(120 * MB)->{path}));
    my $other = instance();
    my $n = instance(user => 'cut:cutpass@');
    my $u = upload($t, $n, 'alone-0123456789a');
    ok(entered($u), 'an upload');
    $redis->cmd(qw/ ACL SETUSER cut off /);
    $redis->cmd(qw/ CLIENT KILL USER cut /);
    my $until = sub {
        my ($code) = @_;
        for (1 .. 11) {
            wait_for { $code->() } 1 and return 1;
            feed($u, 5 * MB);
            stored($n, $u) or return 0;
        }
        return 0;
    };
    ok($until->(sub { lines($other, qr/"\S+" lives without redis, it is left/) }),
        'the other one asked S3');
    is_deeply([open_keys($s3)], [$u->{key}], 'open');
    ok(entered($u)->{of}{boot}, 'the entry stays');
    my $score = entered($u)->{score};
    $redis->cmd(qw/ ACL SETUSER cut on /);
    ok($until->(sub { totals($n)->{redis}{up} }), 'back again');
    ok((wait_for { entry($redis, $u)->{score} > $score }), 'it is renewed');
    finish($s3, $u, 'it');
    ok((wait_for { nothing_left($redis) }), 'nothing is left');
    ok($_->quit, 'leaves') for $n, $other;
};
