#!/usr/bin/perl

# An abort that fails is made again until S3 does not know the upload, as long
# as there is a worker; what stays open is told of at the end.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use Time::HiRes qw/ time /;
use S3T;
use S3T::Open;

my $t = S3T->new;
my $s3 = $t->s3;

$t->token(REAPER => '', SHUTDOWN => '', LOCATIONS => '');
$t->allow_alerts(qr/worker process \d+ exited on signal 9/);


subtest 'an abort that fails' => sub {
    my $works = $t->dir . '/abort-works';
    my $later = $t->fake(on => { part => { status => 403 },
        abort => sub {
            return { status => 500 } if !-e $works;
            return { status => 404 } if -e "$works-once";
            append("$works-once", '');
            return {};
        } });
    my $denied = $t->fake(on => { part => { status => 403 },
        abort => { status => 403, body => '<Error><Code>AccessDenied</Code>'
            . '</Error>' } });
    # (the first one is sent again by itself where its connection was idle)
    my $reset = $t->fake(on => { part => { status => 403 },
        abort => sub { -e $works ? { status => 404 } : { close => 'reset' } } });
    $t->token(LOCATIONS => locations(later => $later, denied => $denied,
        reset => $reset));
    $t->allow_errors(qr/s3 (?:UploadPart|AbortMultipartUpload) failed/);
    my $n = $t->nginx($CONF);
    my $before = totals($n);

    is(curl($n->url("/$_/a?id=abort-0123456789-$_"), body => body())->{status},
        502, "$_: refused") for qw/ later denied reset /;
    ok((wait_for { $later->begun('abort') }), 'aborted once');
    ok((wait_for { totals($n)->{abortsWaiting} == 3 }), 'to be aborted');
    is(state_of($n, "abort-0123456789-$_"), 'failed', "$_: the record")
        for qw/ later denied reset /;

    ok((wait_for { $later->requests('abort') >= 3 } 60), 'tried again');
    write_file($works, '');
    my $aborted = qr/\[notice\].*is aborted after \d+ failures, .*-later/;
    ok((wait_for { lines($n, $aborted) } 60), 'until it succeeds');
    my @at = map { $_->{time} } $later->requests('abort');
    cmp_ok($at[$_] - $at[$_ - 1], '>=', 2 ** $_ / 4 - 0.1, "a wait, $_")
        for 1 .. $#at;
    cmp_ok($at[2] - $at[0], '<', 20, 'not for long');
    is($later->requests('part') + 0, 1, 'one part was sent');
    ok((wait_for { totals($n)->{abortsWaiting} == 1 } 60), 'one is left');
    cmp_ok($reset->begun('abort'), '>=', 2,
        'a lost answer is not taken for an abort');
    my @still = lines($n, qr/still open/);
    is(scalar(grep { /abort-0123456789-later/ } @still), 1,
        'told of once');
    my ($of_later) = grep { /abort-0123456789-later/ } @still;
    like($of_later, qr/\[warn\].*upload "\S+" is still open, next try in \d/,
        'that it is tried again');
    like($of_later, qr/AbortMultipartUpload failed: 500/, 'why');
    like($of_later, qr/transfer: abort-\S+\.\d+, bucket: "bucket", key: "later/,
        'and of what');
    is_deeply([map { /after (\d+)/ } lines($n, $aborted)], [$#at],
        'and of the end');

    ok((wait_for { $denied->requests('abort') >= 2 } 60), 'what is refused is'
        . ' repeated');
    @at = map { $_->{time} } $denied->requests('abort');
    cmp_ok($at[1] - $at[0], '>', 3.5, 'but not fast');
    cmp_ok(totals($n)->{s3Errors} - $before->{s3Errors}, '>=', 8, 'counted');
    is(totals($n)->{abortsWaiting}, 1, 'waits');

    my $began = time;
    ok($n->quit, 'nginx leaves');
    cmp_ok(time - $began, '<', 10, 'at once');
    my @open = lines($n, qr/stays open/);
    is(scalar @open, 1, 'one stays open');
    like($open[0], qr/\[warn\].*upload "fake-\S+" stays open, transfer: abort-/,
        'it is told of');
    like($open[0], qr/-denied, bucket: "bucket", key: "denied\/a"/, 'by name');
};


# a part that is being stored when its upload is aborted
subtest 'an abort while parts are on their way' => sub {
    my $known = $t->fake(on => { part => { delay => 120 },
        abort => [ {}, { status => 404 } ] });
    my $always = $t->fake(on => { part => [ {}, { delay => 1 },
        ({ delay => 30 }) x 3 ] });
    my $idle = $t->fake;
    $t->token(LOCATIONS => locations(known => $known, always => $always,
        idle => $idle));
    my $n = $t->nginx($CONF);
    my @u = map { half($t, $n, "/$_/", "flying-0123456789-$_") }
        qw/ known idle /;
    ok((wait_for { $known->begun('part') == 1 }), 'a part is under way');
    ok(stored($n, $u[1]), 'of another it is stored');
    $_->{c}->close for @u;
    ok((wait_for { $known->begun('abort') && $idle->begun('abort') }),
        'both are aborted');
    for my $u (@u) {
        ok((wait_for { state_of($n, $u->{id}) eq 'aborted' }),
            "$u->{id}: the record");
    }
    ok((wait_for { $known->requests('abort') == 2 } 60), 'again, a while later');
    my @at = map { $_->{time} } $known->requests('abort');
    cmp_ok($at[1] - $at[0], '>', 4, 'when it may have been stored');
    ok((wait_for { totals($n)->{abortsWaiting} == 0 }), 'S3 does not know it');
    is($idle->begun('abort'), 1, 'without parts on their way once');
};


# neither the transfer nor the reaper gets an answer
subtest 'an abort that hangs' => sub {
    my $fake = $t->fake(on => { part => { status => 403 },
        abort => [ { status => 500 }, ({ delay => 120 }) x 3 ] });
    my $first = $t->fake(on => { part => { status => 403 },
        abort => { delay => 120 } });
    $t->token(LOCATIONS => locations(fake => $fake, first => $first));
    my $n = $t->nginx($CONF);
    is(curl($n->url("/$_/a?id=hangs-0123456789-$_"), body => body())->{status},
        502, 'refused') for qw/ fake first /;
    ok((wait_for { $fake->begun('abort') == 2 && $first->begun('abort') }),
        'not aborted');
    my $began = time;
    ok($n->quit(50), 'nginx leaves');
    cmp_ok(time - $began, '<', 30, 'it does not wait for S3');
    is(scalar(lines($n, qr/"fake-\S+" stays open, transfer: hangs-/)), 2,
        'tells what stays open');
    is($first->begun('abort'), 1, 'the first try was waited for');
};


subtest 'nginx -t' => sub {
    my $n = $t->nginx($CONF, start => 0);
    my %said = (
        's3_reaper maybe;' => qr/invalid value "maybe" in "s3_reaper"/,
        's3_reaper;' => qr/invalid number of arguments in "s3_reaper"/,
        's3_reaper redis;' =>
            qr/"s3_reaper redis" needs "s3_progress_redis"/,
        's3_reaper zone; s3_reaper off;' => qr/"s3_reaper" directive is dupl/,
        's3_reaper zone lease=5m;' =>
            qr/invalid parameter "lease=5m" of "s3_reaper"/,
        's3_progress_redis redis://%%REDIS%%; s3_reaper redis life=5m;' =>
            qr/invalid parameter "life=5m" of "s3_reaper"/,
        's3_progress_redis redis://%%REDIS%%; s3_reaper redis lease=0;' =>
            qr/invalid lease "0" of "s3_reaper"/,
        's3_progress_redis redis://%%REDIS%%; s3_reaper redis lease=x;' =>
            qr/invalid lease "x" of "s3_reaper"/,
        's3_progress_redis redis://%%REDIS%%; s3_reaper redis lease=2d;' =>
            qr/invalid lease "2d" of "s3_reaper"/,
    );
    for (sort keys %said) {
        $n->{tokens}{REAPER} = $_;
        my ($status, $said) = $n->test_conf($CONF);
        is($status, 1, $_);
        like($said, $said{$_}, 'says why');
    }
    for ('s3_reaper off;', 's3_reaper zone;', 's3_progress_redis '
        . 'redis://%%REDIS%%; s3_reaper redis lease=1h;')
    {
        $n->{tokens}{REAPER} = $_;
        my ($status, $said) = $n->test_conf($CONF);
        is($status, 0, $_) or diag $said;
    }
};
