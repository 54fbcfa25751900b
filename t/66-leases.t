#!/usr/bin/perl

# Open uploads in Redis: when all of an nginx is gone, another instance, or the
# next start, aborts what it left after three leases; whoever cannot reach Redis
# goes on uploading.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Util qw/ wait_exit /;

my $t = S3T->new;
my $s3 = $t->s3;
my $redis = $t->own_redis;
$redis->cmd(qw/ ACL SETUSER cut on >cutpass ~* &* +@all /);
$t->secret('cutpass');

use constant { SET => 'transfer:#open', PART => 5 * MB };

my $conf = <<'EOC';
%%MAIN%%
http {
    %%HTTP%%
    s3_memory 400m;
    s3_part_size 5m;
    s3_window 10m;
    s3_part_concurrency 1;
    s3_transfer_id $arg_id;
    s3_progress_redis redis://%%USER%%127.0.0.1:%%OWN%%;
    s3_reaper redis lease=1s;
    server {
        listen 127.0.0.1:%%PORT%%;
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

$t->token(USER => '', OWN => $redis->{port});

my $body = read_file(data(8 * PART)->{path});

sub instance {
    my (%o) = @_;
    $t->token(USER => delete $o{user} || '');
    return $t->nginx($conf, %o);
}

sub status { curl($_[0]->url("/status/$_[1]"))->{json} || {} }
sub totals { status($_[0], '')->{totals} }

sub lines {
    my ($n, $pattern) = @_;
    return grep { $_ =~ $pattern } split /\n/, $n->log;
}

# An upload of some parts and a little more.
sub begin {
    my ($n, $id, $parts) = @_;
    my $c = $t->raw($n->port);
    my $u = { c => $c, id => $id, key => "upload/$id", sent => 0 };
    $c->send("PUT /upload/$id?id=$id HTTP/1.1\r\nHost: a\r\nContent-Length: "
        . length($body) . "\r\n\r\n");
    more($n, $u, $parts * PART + 1000);
    return $u;
}

sub more {
    my ($n, $u, $bytes) = @_;
    $u->{c}->send(substr $body, $u->{sent}, $bytes);
    $u->{sent} += $bytes;
    my $parts = int $u->{sent} / PART;
    return wait_for { (status($n, $u->{id})->{partsStored} || 0) >= $parts } 15;
}

sub finish {
    my ($u, $name) = @_;
    $u->{c}->send(substr $body, $u->{sent});
    is(($u->{c}->response(30) || {})->{status}, 201, "$name: stored");
    is_deeply([$s3->sha256($u->{key})], [sha256_hex($body), length $body],
        "$name: whole");
}

sub names { @{$redis->cmd('ZRANGE', SET, 0, -1)} }

# the entry of an upload, and when it becomes an orphan
sub entry {
    my ($u) = @_;
    my ($name) = grep { /^\Q$u->{id}\E\.\d+$/ } names();
    return if !defined $name;
    return { name => $name, score => $redis->cmd('ZSCORE', SET, $name),
        of => $redis->hgetall(SET . ":$name") };
}

sub nothing_left { !@{$redis->cmd('KEYS', SET . '*')} }
sub open_keys { sort map { $_->[0] } $s3->uploads }

# all of an nginx at once; what it left
sub kill_all {
    my ($n) = @_;
    my @pids = ($n->pid, $n->workers);
    kill 'KILL', @pids;
    delete $n->{pid};
    wait_exit($pids[0], 5);
    return time;
}

# An entry that somebody else wrote, long overdue.
sub write_entry {
    my ($name, %of) = @_;
    $redis->cmd('HSET', SET . ":$name", %of);
    $redis->cmd('ZADD', SET, 1, $name);
}

# An open upload that no nginx knows: its id.
sub foreign {
    my ($key) = @_;
    my $r = $s3->request('POST', $s3->path($key), query => { uploads => '' });
    my ($id) = $r->{content} =~ m{<UploadId>(.*?)</UploadId>};
    $r = $s3->request('PUT', $s3->path($key), body => 'theirs',
        query => { uploadId => $id, partNumber => 1 });
    die "foreign: $r->{status}" if $r->{status} != 200;
    return $id;
}

my $rgw = 'http://127.0.0.1:' . $t->server('RGW_PORT');


subtest 'an entry' => sub {
    my $n = instance(workers => 2);
    my $u = begin($n, 'entry-0123456789ab', 1);
    my $e = entry($u);
    my ($upload) = $s3->uploads;
    is_deeply({ %{$e->{of}}, boot => 'b' }, { endpoint => $rgw,
        bucket => $t->bucket, key => $u->{key}, uploadId => $upload->[1],
        lease => 1000, boot => 'b' }, 'says what is open, and nothing else');
    like($e->{of}{boot}, qr/^[0-9a-f]{32}$/, 'by whom');
    my ($s, $us) = @{$redis->cmd('TIME')};
    my $left = $e->{score} - $s * 1000 - $us / 1000;
    cmp_ok($left, '>', 1500, 'three leases');
    cmp_ok($left, '<=', 3000, 'by the clock of Redis');
    ok((wait_for { entry($u)->{score} > $e->{score} + 900 }), 'is renewed');

    # long silent, and as if nobody had renewed it
    sleep 3.2;
    $redis->cmd('ZADD', SET, 1, $e->{name});
    sleep 0.5;
    cmp_ok(entry($u)->{score}, '>', $e->{score}, 'it is its instance\'s own');
    is_deeply([open_keys()], [$u->{key}], 'open');
    is(scalar(lines($n, qr/orphan|left alone/)), 0, 'nobody asked S3');

    $redis->cmd('FLUSHALL');
    ok((wait_for { entry($u) } 3), 'lost, it comes again');
    cmp_ok($redis->cmd('PTTL', SET . ":$e->{name}"), '>', 6 * 86400e3,
        'not for ever');
    finish($u, 'it');
    ok((wait_for { nothing_left() }), 'no key is left');

    $u = begin($n, 'given-up-0123456789', 1);
    ok(entry($u), 'another');
    $u->{c}->close;
    ok((wait_for { nothing_left() }), 'aborted, none either');
    is(curl($n->url('/upload/small'), body => 'x')->{status}, 201, 'PutObject');
    ok(nothing_left(), 'leaves none');

    $u = begin($n, 'killed-0123456789', 1);
    kill 'KILL', $n->workers;
    ok((wait_for { !$s3->uploads } 8), 'a killed worker\'s is aborted');
    ok((wait_for { nothing_left() } 8), 'and none is left');
    $t->allow_alerts(qr/worker process \d+ exited on signal 9/);
    ok($n->quit, 'leaves');
};


subtest 'all of an nginx is killed' => sub {
    my @others = map { instance(workers => 2) } 1, 2;
    my $n = instance(workers => 2);
    my $foreign = foreign('upload/theirs');
    my @u = map { begin($n, "gone-0123456789-$_", 1) } 1 .. 3;
    my $live = begin($others[0], 'live-0123456789-x', 1);
    my $e = entry($u[0]);
    my $killed = kill_all($n);
    sleep 1.7;
    is(scalar $s3->uploads, 5, 'nothing is aborted at once');
    ok((wait_for { $s3->uploads == 2 } 12), 'then it is')
        or diag explain [$s3->uploads];
    cmp_ok(time - $killed, '>', 2.4, 'after three leases');
    is_deeply([open_keys()], [$live->{key}, 'upload/theirs'],
        'not what lives, nor what is another\'s');
    ok((wait_for { names() == 1 }), 'their entries are gone');
    is((names())[0], entry($live)->{name}, 'that of the living stays');
    is(totals($others[0])->{orphansAborted} + totals($others[1])
        ->{orphansAborted}, 3, 'each is aborted by one');
    my @told = map { lines($_, qr/orphaned multipart upload "\S+" is aborted, /) }
        @others;
    is(scalar(grep { /transfer: gone-\S+\.\d+, bucket: .*, key: "upload\/gone/ }
        @told), 3, 'and told of');
    finish($live, 'what lives');

    # the next start
    $_->quit for @others;
    my $u = begin($n->start, 'next-0123456789ab', 1);
    $killed = kill_all($n);
    $n->start;
    ok((wait_for { $s3->uploads == 1 } 12), 'the next start aborts as well');
    cmp_ok(time - $killed, '>', 2.4, 'after three leases');
    ok((wait_for { nothing_left() }), 'nothing is left');
    $s3->abort('upload/theirs', $foreign);
    ok($n->quit, 'leaves');
};


subtest 'cut off from Redis' => sub {
    my $other = instance();
    my $n = instance(user => 'cut:cutpass@');
    my $u = begin($n, 'alone-0123456789a', 1);
    ok(entry($u), 'an upload');
    $redis->cmd(qw/ ACL SETUSER cut off /);
    $redis->cmd(qw/ CLIENT KILL USER cut /);
    for (1 .. 5) {
        sleep 1.2;
        ok(more($n, $u, PART), 'another part');
    }
    is_deeply([open_keys()], [$u->{key}], 'open');
    ok((wait_for { lines($other, qr/"\S+" lives without redis, it is left/) }),
        'the other one asked S3');
    ok(entry($u)->{of}{boot}, 'the entry stays');
    my $score = entry($u)->{score};
    $redis->cmd(qw/ ACL SETUSER cut on /);
    ok((wait_for { status($n, '')->{totals}{redis}{up} } 12), 'back again');
    ok((wait_for { entry($u)->{score} > $score }), 'it is renewed');
    finish($u, 'it');
    ok((wait_for { nothing_left() }), 'nothing is left');
    ok($_->quit, 'leaves') for $n, $other;
};


subtest 'Redis comes later' => sub {
    $redis->stop('KILL');
    my $n = instance();
    my $u = begin($n, 'early-0123456789a', 1);
    is(status($n, $u->{id})->{state}, 'active', 'an upload without Redis');
    my $done = begin($n, 'early-done-0123456', 1);
    finish($done, 'another');
    $redis->start;
    ok((wait_for { names() } 15), 'Redis is there: so is the entry');
    is_deeply([names()], [entry($u)->{name}], 'of what is open');
    finish($u, 'it');
    ok((wait_for { nothing_left() }), 'nothing is left');
    ok($n->quit, 'leaves');
};


subtest 'what is left alone' => sub {
    my $id = foreign('upload/old');
    my $new = foreign('upload/new');
    my %of = (endpoint => $rgw, bucket => $t->bucket, key => 'upload/old',
        uploadId => $id, boot => 'x' x 32, lease => 1000);
    write_entry("elsewhere-0123.$_", %of, endpoint => 'http://other.test')
        for 1 .. 20;
    write_entry('bucket-01234567.1', %of, bucket => 'another-bucket');
    write_entry('malformed-0123.1', %of, key => "a\nb");
    write_entry('lease-01234567.1', %of, key => 'upload/new', uploadId => $new,
        lease => 60_000);
    $redis->cmd('ZADD', SET, 1, 'nothing-0123.1');
    my $n = instance();
    ok((wait_for { lines($n, qr/"\Q$new\E" lives without redis/) } 8),
        'a younger part than three leases of its own');
    ok((wait_for { !defined $redis->cmd('ZSCORE', SET, 'nothing-0123.1') }),
        'a name without an entry goes');
    sleep 1;
    is_deeply([open_keys()], [qw{ upload/new upload/old }], 'both are open');
    my @told = lines($n, qr/of another instance is left open: no location has/);
    is(scalar @told, 21, 'what is not in the configuration is told of, once');
    like($told[0], qr/\[warn\].*"\Q$id\E".* its endpoint "http\S+" and bucket/,
        'by name');
    is(scalar(lines($n, qr/its text is malformed/)), 1, 'so is nonsense');
    is(scalar names(), 23, 'the entries stay');

    sleep 2;
    write_entry('old-0123456789.1', %of);
    ok((wait_for { join(',', open_keys()) eq 'upload/new' } 10),
        'an old one is aborted, with the keys that may');
    ok((wait_for { !defined $redis->cmd('ZSCORE', SET, 'old-0123456789.1') }),
        'its entry goes');
    write_entry('gone-01234567.1', %of);
    ok((wait_for { !defined $redis->cmd('ZSCORE', SET, 'gone-01234567.1') } 8),
        'what S3 does not know goes as well');
    is(totals($n)->{orphansAborted}, 1, 'counted');
    $s3->abort('upload/new', $new);
    $redis->cmd('FLUSHALL');
};
