#!/usr/bin/perl

# What a worker that was killed left open, another one aborts, and its records
# fail; what lives, and what is another program's, is left alone.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Open;

my $t = S3T->new;
my $s3 = $t->s3;

$t->token(REAPER => '', SHUTDOWN => '', LOCATIONS => '');
$t->allow_alerts(qr/worker process \d+ exited on signal 9/);


subtest 'a killed worker' => sub {
    $t->token(LOCATIONS => '');
    my $n = $t->nginx($CONF, workers => 2);
    my $foreign = foreign($s3, 'upload/theirs');
    my ($dies, $lives) = $n->workers;
    my @dead = map { half($t, $n, '/upload/',
        sprintf('dead-0123456789-%02d', $_), $dies) } 1 .. 5;
    my @live = map { half($t, $n, '/upload/',
        sprintf('live-0123456789-%02d', $_), $lives) } 1 .. 3;
    ok(stored($n, @dead, @live), 'uploads on both');
    my %began = map { $_->{id} => status($n, $_->{id}) } @dead;
    is(scalar $s3->uploads, 9, 'are open');

    kill 'KILL', $dies;
    ok((wait_for { !grep { state_of($n, $_->{id}) ne 'failed' } @dead } 60),
        'the records of the dead fail');
    for (@dead) {
        my $r = status($n, $_->{id});
        is($r->{error}, 'worker process died', "$_->{id}: why");
        is($r->{bytesTransferred}, $_->{sent}, 'what it had');
        is($r->{attempt}, $began{$_->{id}}{attempt}, 'the attempt');
    }
    ok((wait_for { $s3->uploads == 4 } 60), 'what it left is aborted');
    is_deeply([open_keys($s3)], [(map { $_->{key} } @live),
        'upload/theirs'], 'and nothing else');
    # (S3 has done it before nginx has its answer)
    ok((wait_for { totals($n)->{orphansAborted} == 5 }), 'counted');
    is_deeply([map { state_of($n, $_->{id}) } @live], [('active') x 3],
        'what lives is active');
    my $bucket = $t->bucket;
    my @told;
    my $which = qr/transfer: dead-\S+\.\d+, bucket: "$bucket", key: "upload/;
    wait_for { 5 == (@told = grep { $_ =~ $which } lines($n,
        qr/\[notice\].*orphaned multipart upload "\S+" is ab/)) };
    is(scalar @told, 5, 'each is told of');

    finish($s3, $_, $_->{id}) for @live;
    my $r = $s3->request('GET', $s3->path('upload/theirs'),
        query => { uploadId => $foreign });
    like($r->{content}, qr/<PartNumber>1</, 'theirs has its part');
    is(curl($n->url("/upload/$_->{id}?id=$_->{id}"), body => body())->{status},
        201, "$_->{id}: another attempt") for @dead[0, 1];
    is(state_of($n, $dead[0]{id}), 'completed', 'its record');

    # all of them, one after the other, also those that would have aborted
    @dead = map { half($t, $n, '/upload/',
        sprintf 'again-0123456789-%02d', $_) }
        1 .. 6;
    ok(stored($n, @dead), 'more uploads');
    for (1 .. 2) {
        my @workers = $n->workers;
        kill 'KILL', @workers;
        wait_for { my %new = map { $_ => 1 } $n->workers;
            !(grep { $new{$_} } @workers) && keys %new == 2 } 60;
    }
    ok((wait_for { $s3->uploads == 1 } 60), 'all workers killed, twice')
        or diag explain [$s3->uploads];
    is_deeply([map { state_of($n, $_->{id}) } @dead], [('failed') x 6],
        'the records');
    is(totals($n)->{active}, 0, 'none is active');
    ok((wait_for { totals($n)->{abortsWaiting} == 0 } 60), 'nor waits');
    $s3->abort('upload/theirs', $foreign);
};


subtest 'a single worker, and a reload in the middle' => sub {
    $t->token(LOCATIONS => '');
    my $n = $t->nginx($CONF);
    my $done = half($t, $n, '/upload/', 'done-01234567890');
    finish($s3, $done, 'one');
    my $given_up = half($t, $n, '/upload/', 'given-up-0123456');
    ok(stored($n, $given_up), 'one that is given up');
    $given_up->{c}->close;
    ok((wait_for { !$s3->uploads }), 'is aborted');
    my $u = half($t, $n, '/upload/', 'single-0123456789');
    ok(stored($n, $u), 'an upload');
    kill 'KILL', $n->workers;
    ok((wait_for { !$s3->uploads } 60), 'the next worker aborts it');
    ok((wait_for { state_of($n, $u->{id}) eq 'failed' }), 'its record');
    ok((wait_for { lines($n, qr/orphaned multipart upload/) }), 'told of');
    is(scalar(lines($n, qr/orphaned multipart upload/)), 1, 'it alone');
    is_deeply([map { state_of($n, $_->{id}) } $done, $given_up],
        [qw/ completed aborted /], 'the others\' records stay');

    $u = half($t, $n, '/upload/', 'reload-0123456789');
    ok(stored($n, $u), 'another');
    my ($old) = $n->workers;
    ok($n->reload, 'a reload');
    is_deeply([$n->leaving_workers], [$old], 'the old worker has it');
    is(scalar $s3->uploads, 1, 'open');
    sleep 3.2;                       # one look of the new worker
    is(state_of($n, $u->{id}), 'active', 'the new worker leaves it alone');
    is(scalar $s3->uploads, 1, 'S3 has it');
    kill 'KILL', $old;
    ok((wait_for { !$s3->uploads } 60), 'the old worker is killed: aborted');
    ok((wait_for { state_of($n, $u->{id}) eq 'failed' }), 'its record');
};


subtest 'a worker killed while S3 completes' => sub {
    my $fake = $t->fake(on => { complete => { delay => 300 },
        abort => { status => 404 } });
    $t->token(LOCATIONS => locations(fake => $fake));
    my $n = $t->nginx($CONF);
    my $c = curl_start($n->url('/fake/a?id=complete-0123456789'),
        body => body());
    ok((wait_for { $fake->begun('complete') }), 'it completes');
    my $killed = time;
    kill 'KILL', $n->workers;
    my $abort;
    ok((wait_for { ($abort) = $fake->requests('abort') } 60), 'aborted');
    cmp_ok($abort->{time} - $killed, '>=', 2, 'not before s3_retry_timeout');
    is($fake->begun('abort'), 1, 'once: S3 does not know it any more');
    ok((wait_for { state_of($n, 'complete-0123456789') eq 'failed' }),
        'the record');
    is(totals($n)->{orphansAborted}, 0, 'not counted as aborted');
    $c->kill;
};


# Ceph's tenants have buckets of their own, which may have the same name
subtest 'two tenants' => sub {
    my $fake = $t->fake(on => { part => { delay => 300 }, abort => sub {
        my ($r) = @_;
        return $r->{path} =~ m{/c/x$}
            && $r->{headers}{authorization} =~ m{Credential=theirs/}
            ? {} : { status => 404 };
    } });
    my %keys = (a => 'ours secret0', b => 'ours secret0',
        c => 'theirs secret1');
    $t->token(LOCATIONS => join '', map { "location /$_/ { s3_endpoint "
        . $fake->url . "; s3_bucket bucket; s3_credentials static $keys{$_}; "
        . 's3_upload; } ' } sort keys %keys);
    my $n = $t->nginx($CONF);
    my @c = map { curl_start($n->url("/$_/x?id=tenant-0123456789$_"),
        body => body()) } qw/ a c /;
    ok((wait_for { $fake->begun('part') == 2 }), 'an upload of each');
    kill 'KILL', $n->workers;
    ok((wait_for { lines($n, qr/orphaned .* is aborted, transfer: tenant-\d+c/) }
        60), 'one is aborted with the keys of its tenant');
    ok((wait_for { lines($n, qr/orphaned .* was gone, transfer: tenant-\d+a/) }),
        'one is known to neither');
    my @asked = grep { $_->{path} =~ m{/a/x$} } $fake->requests('abort');
    is(scalar @asked, 2, 'each was asked, once');
    is(totals($n)->{orphansAborted}, 1, 'counted');
    $_->kill for @c;
};


subtest 's3_reaper off' => sub {
    $t->token(LOCATIONS => '', REAPER => 's3_reaper off;');
    my $n = $t->nginx($CONF);
    my $u = half($t, $n, '/upload/', 'left-0123456789abc');
    ok(stored($n, $u), 'an upload');
    kill 'KILL', $n->workers;
    ok((wait_for { state_of($n, $u->{id}) eq 'failed' } 60), 'the record');
    sleep 0.5;
    my @open = $s3->uploads;
    is(scalar @open, 1, 'stays open');
    $s3->abort(@$_) for @open;
    $t->token(REAPER => '');
};
