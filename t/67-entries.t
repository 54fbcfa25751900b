#!/usr/bin/perl

# Entries of open uploads in Redis: they come when Redis comes; what is not of
# this configuration, what is new and what nobody can tell is left alone.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use POSIX qw/ strftime /;
use Time::HiRes qw/ sleep /;
use S3T;
use S3T::Open;

my $t = S3T->new;
my $s3 = $t->s3;
my $redis = $t->own_redis;

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
    s3_progress_redis redis://127.0.0.1:%%OWN%%;
    s3_reaper redis lease=1s;
    server {
        listen 127.0.0.1:%%PORT%%;
        # what it may not, the next one may
        location /other/ {
            s3_endpoint %%RGW%%; s3_bucket %%BUCKET%%;
            s3_credentials static nobody testsecret; s3_upload;
        }
        %%LOCATIONS%%
        location /upload/ { %%S3%% s3_upload; }
        location /status/ { s3_status list; }
    }
}
EOC

$t->token(OWN => $redis->{port}, LOCATIONS => '');

sub instance { $t->nginx($conf) }

# An entry that somebody else wrote, long overdue.
sub write_entry {
    my ($name, %of) = @_;
    $redis->cmd('HSET', SET . ":$name", %of);
    $redis->cmd('ZADD', SET, 1, $name);
}

my $rgw = 'http://127.0.0.1:' . $t->server('RGW_PORT');


subtest 'Redis comes later' => sub {
    $redis->stop('KILL');
    my $n = instance();
    my $u = upload($t, $n, 'early-0123456789a');
    is(status($n, $u->{id})->{state}, 'active', 'an upload without Redis');
    my $done = upload($t, $n, 'early-done-0123456');
    finish($s3, $done, 'another');
    $redis->start;
    ok((wait_for { names($redis) } 60), 'Redis is there: so is the entry');
    is_deeply([names($redis)], [entry($redis, $u)->{name}], 'of what is open');
    finish($s3, $u, 'it');
    ok((wait_for { nothing_left($redis) }), 'nothing is left');
    ok($n->quit, 'leaves');
};


subtest 'what is left alone' => sub {
    my $id = foreign($s3, 'upload/old');
    my $new = foreign($s3, 'upload/new');
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
    ok((wait_for { lines($n, qr/"\Q$new\E" lives without redis/) } 60),
        'a younger part than three leases of its own');
    ok((wait_for { !defined $redis->cmd('ZSCORE', SET, 'nothing-0123.1') }),
        'a name without an entry goes');
    my $left = qr/of another instance is left open: no location has/;
    wait_for { 21 <= lines($n, $left) && lines($n, qr/its text is malformed/) };
    sleep 1;
    is_deeply([open_keys($s3)], [qw{ upload/new upload/old }], 'both are open');
    my @told = lines($n, $left);
    is(scalar @told, 21, 'what is not in the configuration is told of, once');
    like($told[0], qr/\[warn\].*"\Q$id\E".* its endpoint "http\S+" and bucket/,
        'by name');
    is(scalar(lines($n, qr/its text is malformed/)), 1, 'so is nonsense');
    is(scalar names($redis), 23, 'the entries stay');

    sleep 2;
    write_entry('old-0123456789.1', %of);
    ok((wait_for { join(',', open_keys($s3)) eq 'upload/new' } 60),
        'an old one is aborted, with the keys that may');
    ok((wait_for { !defined $redis->cmd('ZSCORE', SET, 'old-0123456789.1') }),
        'its entry goes');
    write_entry('gone-01234567.1', %of);
    ok((wait_for { !defined $redis->cmd('ZSCORE', SET, 'gone-01234567.1') } 60),
        'what S3 does not know goes as well');
    is(totals($n)->{orphansAborted}, 1, 'counted');
    $s3->abort('upload/new', $new);
    $redis->cmd('FLUSHALL');
};


# ListParts with parts of these ages, in seconds
sub parts {
    my $number = 0;
    my $parts = join '', map { '<Part><PartNumber>' . ++$number
        . '</PartNumber><LastModified>' . strftime('%Y-%m-%dT%H:%M:%S.000Z',
        gmtime(time - $_)) . '</LastModified><ETag>"e"</ETag>'
        . '<Size>5242880</Size></Part>' } @_;
    return { status => 200, body => "<ListPartsResult>$parts</ListPartsResult>",
        headers => { Date => strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime) } };
}

subtest 'an uploader that comes back' => sub {
    my $fake = $t->fake(on => { abort => { status => 500 },
        parts => sub { parts(900, 800) } });
    $t->token(LOCATIONS => 'location /fake/ { s3_endpoint ' . $fake->url
        . '; s3_bucket bucket; s3_credentials static testaccess testsecret;'
        . ' s3_upload; }');
    my $n = instance();
    my %of = (endpoint => $fake->url, bucket => 'bucket', key => 'fake/a',
        uploadId => 'fake-upload', boot => 'x' x 32, lease => 1000);
    write_entry('back-01234567.1', %of);
    ok((wait_for { $fake->requests >= 4 } 60), 'S3 does not abort');
    my @ops = map { $_->{op} } $fake->requests;
    is_deeply([@ops[0 .. 3]], [qw/ parts abort parts abort /],
        'it is asked for parts each time');
    my $boot = $redis->cmd('HGET', SET . ':back-01234567.1', 'boot');
    isnt($boot, 'x' x 32, 'the entry is claimed');
    my $score = $redis->cmd('ZSCORE', SET, 'back-01234567.1');
    ok((wait_for { $redis->cmd('ZSCORE', SET, 'back-01234567.1') > $score }),
        'and kept');
    is(totals($n)->{abortsWaiting}, 1, 'it waits');
    $redis->cmd('HSET', SET . ':back-01234567.1', boot => 'x' x 32);
    ok((wait_for { lines($n, qr/"fake-upload" is renewed by its uploader/) }),
        'it is written again');
    ok((wait_for { totals($n)->{abortsWaiting} == 0 }), 'and left alone');
    $redis->cmd('FLUSHALL');
    ok($n->quit, 'leaves');
};


subtest 'a part that comes while S3 does not abort' => sub {
    my $fake = $t->fake(on => { abort => { status => 503 }, parts => [
        parts(900), { status => 500 }, { status => 200, body =>
        '<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>1000'
        . '</NextPartNumberMarker></ListPartsResult>' }, parts(900, -5, 700) ]
        });
    $t->token(LOCATIONS => 'location /fake/ { s3_endpoint ' . $fake->url
        . '; s3_bucket $arg_b; s3_credentials static testaccess testsecret;'
        . ' s3_upload; }');
    my $n = instance();
    write_entry('part-01234567.1', endpoint => $fake->url, bucket => 'any',
        key => 'fake/a', uploadId => 'fake-upload', boot => 'x' x 32,
        lease => 1000);
    ok((wait_for { lines($n, qr/"fake-upload" lives without redis/) } 60),
        'left alone');
    is_deeply([map { "$_->{op} " . ($_->{query}{'part-number-marker'} || 0) }
        $fake->requests], ['parts 0', 'abort 0', 'parts 0', 'parts 0',
        'parts 1000'], 'after one abort, and pages of parts');
    ok((wait_for { totals($n)->{abortsWaiting} == 0 }), 'none waits');
    $redis->cmd('FLUSHALL');
};
