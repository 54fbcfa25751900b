#!/usr/bin/perl

# What is owed to S3 in shared memory: over reloads and other configurations,
# under an id that begins anew, when the zone is full, when it is built anew.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use Time::HiRes qw/ time /;
use S3T;
use S3T::Open;
use S3T::Zone qw/ make_dirty /;

my $t = S3T->new;
my $s3 = $t->s3;

$t->token(REAPER => '', SHUTDOWN => '', LOCATIONS => '');
# Aborts succeed when it is there: the first one, then there is nothing left
my $works = $t->dir . '/abort-works';
sub once_it_works {
    return { status => 500 } if !-e $works;
    return { status => 404 } if -e "$works-once";
    append("$works-once", '');
    return {};
}
$t->allow_alerts(qr/worker process \d+ exited on signal 9/);
$t->allow_errors(qr/s3 (?:UploadPart|AbortMultipartUpload) failed/);


# What a leaving worker cannot abort, a worker of the new configuration does.
subtest 'debts over a reload' => sub {
    my $fake = $t->fake(on => { part => { status => 403 },
        abort => \&once_it_works });
    $t->token(LOCATIONS => locations(fake => $fake));
    my $n = $t->nginx($CONF);
    is(curl($n->url('/fake/a?id=debt-0123456789abc'), body => body())->{status},
        502, 'refused');
    ok((wait_for { $fake->begun('abort') >= 2 }), 'not aborted');
    my ($old) = $n->workers;
    my $u = half($t, $n, '/upload/', 'holds-0123456789');
    ok(stored($n, $u), 'something keeps the worker');
    ok($n->reload, 'a reload');
    write_file($works, '');
    ok((wait_for { totals($n)->{abortsWaiting} == 0 } 60), 'aborted');
    is_deeply([$n->leaving_workers], [$old], 'before the old one has left');
    is(state_of($n, 'debt-0123456789abc'), 'failed', 'the record');
    finish($s3, $u, 'what kept the worker');
    ok((wait_for { !$n->leaving_workers } 60), 'which leaves');
    unlink $works, "$works-once";
    is(scalar(lines($n, qr/stays open/)), 0, 'nothing stays open');

    # where the endpoint is no more
    my $deaf = $t->fake(on => { part => { status => 403 },
        abort => { status => 500 } });
    $n->{tokens}{LOCATIONS} = locations(deaf => $deaf);
    $n->conf($CONF);
    ok($n->reload, 'another configuration');
    is(curl($n->url('/deaf/a?id=moved-0123456789ab'), body => body())->{status},
        502, 'refused');
    ok((wait_for { $deaf->begun('abort') }), 'not aborted');
    $n->{tokens}{LOCATIONS} = '';
    $n->conf($CONF);
    ok($n->reload, 'and another');
    my $nowhere = qr/\[warn\].*upload "fake-\S+" stays open: no location/;
    ok((wait_for { lines($n, $nowhere) } 60), 'is told of');
    like((lines($n, $nowhere))[0], qr/transfer: moved-\S+, bucket: "bucket"/,
        'by name');
    my $tries = $deaf->begun('abort');
    kill 'KILL', $n->workers;
    ok((wait_for { 2 == lines($n, $nowhere) } 60),
        'by the next worker as well');
    $n->{tokens}{LOCATIONS} = locations(deaf => $deaf);
    $n->conf($CONF);
    ok($n->reload, 'the endpoint is back');
    ok((wait_for { $deaf->begun('abort') > $tries } 60), 'so are the aborts');
    ok($n->quit, 'leaves');
    is(scalar(lines($n, qr/"fake-\S+" stays open, transfer: moved-/)), 1,
        'what stays open');
};


# an id whose former upload is still to be aborted
subtest 'another attempt while the former one is open' => sub {
    my $fake = $t->fake(on => { part => [ { status => 403 } ],
        abort => \&once_it_works });
    $t->token(LOCATIONS => locations(fake => $fake));
    my $n = $t->nginx($CONF);
    my $id = 'anew-0123456789ab';
    is(curl($n->url("/fake/a?id=$id"), body => body())->{status}, 502,
        'refused');
    ok((wait_for { $fake->begun('abort') }), 'not aborted');
    is(curl($n->url("/fake/a?id=$id"), body => body())->{status}, 201,
        'another attempt');
    is(state_of($n, $id), 'completed', 'its record');
    is(scalar @{curl($n->url('/status/'))->{json}{transfers}}, 1,
        'the only one');
    my $tries = $fake->begun('abort');
    kill 'KILL', $n->workers;
    ok((wait_for { ($fake->begun('abort') || 0) > $tries } 60),
        'a worker later the former one is aborted');
    write_file($works, '');
    is(state_of($n, $id), 'completed', 'the record stays');
    my ($first) = $fake->requests('create');
    ok((wait_for { totals($n)->{abortsWaiting} == 0 } 60), 'at last');
    my %aborted = map { $_->{query}{uploadId} => 1 } $fake->requests('abort');
    is(scalar keys %aborted, 1, 'and that alone');
    is(totals($n)->{slotsUsed}, 1, 'one slot');
    unlink $works, "$works-once";
};


subtest 'more debts than the zone has room for' => sub {
    my $fake = $t->fake(on => { part => { status => 403 },
        abort => sub { { status => -e $works ? 404 : 500 } } });
    $t->token(LOCATIONS => locations(fake => $fake),
        REAPER => 's3_transfer_zone 100k; s3_progress_log off;');
    my $n = $t->nginx($CONF);
    my $slots = totals($n)->{slots};
    cmp_ok($slots, '<', 30, "$slots slots");
    my @ids = map { sprintf 'full-0123456789-%02d', $_ } 1 .. $slots + 3;
    is(curl($n->url("/fake/a?id=$_"), body => body())->{status}, 502, $_)
        for @ids;
    my $totals = totals($n);
    is_deeply([@$totals{qw/ slotsUsed abortsWaiting untracked failed /}],
        [$slots, $slots + 3, 0, $slots + 3], 'the oldest record goes');
    is_deeply([map { state_of($n, $_) } @ids[2, 3, -1]],
        ['', 'failed', 'failed'], 'the others stay');
    write_file($works, '');
    ok((wait_for { totals($n)->{abortsWaiting} == 0 } 120),
        'all are aborted, all the same');
    my %aborted = map { $_->{query}{uploadId} => 1 } $fake->requests('abort');
    is(scalar keys %aborted, $slots + 3, 'each');
    $t->token(REAPER => '');
    unlink $works, "$works-once";
};


# What a worker leaves that dies while it changes the zone: marked so, the zone
# is built anew by whoever comes next, with all debts.
subtest 'a zone built anew' => sub {
    plan skip_all => 'not root' if $>;
    my $fake = $t->fake(on => { part => [ ({ status => 403 }) x 2 ],
        abort => \&once_it_works });
    $t->token(LOCATIONS => locations(fake => $fake));
    my $n = $t->nginx($CONF);
    # a record that owes, one that does not, a debt without a record, a live one
    is(curl($n->url("/fake/a?id=owing-0123456789$_"), body => body())
        ->{status}, 502, 'refused') for 1, 2;
    is(curl($n->url('/fake/a?id=owing-01234567892'), body => body())->{status},
        201, 'another attempt');
    my $u = half($t, $n, '/upload/', 'dirty-0123456789');
    ok(stored($n, $u), 'an upload');
    my ($worker) = $n->workers;
    ok(make_dirty($worker), 'marked');
    is(scalar @{curl($n->url('/status/'))->{json}{transfers}}, 3, 'a list');
    is(scalar(lines($n, qr/s3 zone: built anew/)), 1, 'built anew');
    is_deeply([map { state_of($n, $_) } 'owing-01234567891',
        'owing-01234567892', $u->{id}], [qw/ failed completed active /],
        'the records');
    is(totals($n)->{slotsUsed}, 4, 'four slots');
    ok(make_dirty($worker), 'once more');
    my $killed = time;
    kill 'KILL', $worker;
    write_file($works, '');
    ok((wait_for { state_of($n, $u->{id}) eq 'failed' } 60), 'killed');
    ok((wait_for { !$s3->uploads } 60), 'what was open is aborted');
    ok((wait_for { my %aborted = map { $_->{query}{uploadId} => 1 }
        grep { $_->{time} > $killed } $fake->requests('abort');
        keys %aborted == 2 } 60), 'so are the others');
    is(state_of($n, 'owing-01234567892'), 'completed', 'a record stays');
};
