#!/usr/bin/perl

# Workers killed at random moments, again and again, while all others use the
# same shared memory, and in the middle of each change of it: no lock stays
# taken, no record active, no slot is lost, and the next request is served as
# ever. T_SEED=number repeats the moments, more or less.

use strict;
use warnings;

use lib 't/lib';
use HTTP::Tiny;
use List::Util qw/ uniq /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Null;
use S3T::Util qw/ $TOP wait_exit /;

use constant KILLS => 40;

my $t = S3T->new(bucket => 0);
my $null = S3T::Null->new($t->dir);
$t->token(NULL => $null->url);

# a zone so small that slots are taken and given up all the time
my $n = $t->nginx(<<'EOC', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    access_log off;
    keepalive_requests 1000000;
    s3_transfer_zone 512k;
    s3_endpoint %%NULL%%;
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    s3_payload_signature off;
    s3_part_size 5m;
    s3_retry_timeout 1s;
    s3_transfer_id $arg_id;
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        location /upload/ { s3_upload; }
        location /status/ { s3_status list; }
    }
}
EOC
$t->allow_alerts(qr/worker process \d+ exited on signal 9/,
    qr/zone "s3_transfer" was locked by/);

my $seed = $ENV{T_SEED} || time;
note "seed: $seed";
srand $seed;

my $over = $t->dir . '/over';
my $done = $t->dir . '/done';

# Requests one after the other, over a connection that may be lost at any time,
# at least so many; what was answered with each status.
sub load {
    my ($name, $least, $request) = @_;
    return spawn({ stderr => "$done.err" }, sub {
        my ($raw, $i, %status) = (undef, 0);
        until (-e $over && $i >= $least) {
            $raw ||= eval { $t->raw($n->port) } or next;
            $i++;
            my $r = $raw->send($request->("$name-$i")) && $raw->response(60);
            $status{$r ? $r->{status} : 'lost'}++;
            undef $raw if !$r;
        }
        append($done, join('', map { "$name $_ $status{$_}\n" }
            keys %status));
    });
}

sub put {
    my ($id, $size) = @_;
    return "PUT /upload/$id?id=upload-$id-0123456789 HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: $size\r\n\r\n" . 'x' x $size;
}

my @load = (
    (map { load("small$_", 250, sub { put($_[0], 10) }) } 1 .. 3),
    load('large', 1, sub { put($_[0], 6 * MB) }),
    (map { my $path = $_; load('list', 250, sub {
        "GET /status/$path HTTP/1.1\r\nHost: a\r\n\r\n" }) }
        '?limit=60', '?state=active', ''),
);

# seconds until somebody is served, as a client sees it who asks again
sub served {
    my ($request) = @_;
    my $from = time;
    my $r;
    wait_for {
        my $raw = eval { $t->raw($n->port) };
        $r = $raw && $raw->send($request) && $raw->response(30);
        $raw->close if $raw;
        $r && $r->{status} < 300;
    } 30, 0.01;
    return $r && $r->{status} < 300 ? time - $from : 99;
}

my ($uploads, $lists) = (0, 0);
for my $round (1 .. KILLS) {
    sleep rand 0.1;
    my @workers = $n->workers;
    kill 'KILL', $workers[rand @workers];
    my $seconds = served(put("after-$round", 10));
    $uploads = $seconds if $seconds > $uploads;
    $seconds = served("GET /status/?limit=60 HTTP/1.1\r\nHost: a\r\n\r\n");
    $lists = $seconds if $seconds > $lists;
    wait_for { $n->workers == 2 } 60;
}
write_file($over, '');
is(wait_exit($_, 300), 0, 'a client came to its end') for @load;

my $killed = () = $n->log =~ /exited on signal 9/g;
is($killed, KILLS, KILLS . ' workers were killed');
note scalar(() = $n->log =~ /was locked by/g), ' of them had the lock, ',
    scalar(() = $n->log =~ /built anew/g), ' in the middle of a change';
cmp_ok($uploads, '<', 20, "an upload afterwards took at most $uploads s");
cmp_ok($lists, '<', 20, "a list $lists s");

is(read_file("$done.err") || '', '', 'no client failed');
my ($said, %status) = read_file($done);
$status{$1}{$2} += $3 while $said =~ /^([a-z]+)\S* (\w+) (\d+)$/mg;
note explain \%status;
is_deeply([map { join ' ', sort grep { $_ ne 'lost' } keys %{$status{$_}} }
    qw/ small large list /], [201, 201, 200], 'nobody was told an error');
cmp_ok($status{small}{201}, '>', 500, "$status{small}{201} small uploads");
cmp_ok($status{list}{200}, '>', 500, "$status{list}{200} lists");

my $totals;
ok((wait_for {
    $totals = curl($n->url('/status/'))->{json}{totals};
    !$totals->{active} && !$totals->{memoryUsed};
} 60, 0.2), 'nothing is active for ever, no memory counted')
    or diag explain $totals;
is_deeply(curl($n->url('/status/?state=active'))->{json}{transfers}, [],
    'nor in a list');

# Multipart uploads that S3 still has, as [key, parts]
sub open_uploads {
    my $http = HTTP::Tiny->new(proxy => undef, http_proxy => undef);
    my $list = $http->get($null->url . '/bucket?uploads')->{content};
    return map {
        my ($key, $id) = m{<Key>(.*?)</Key><UploadId>(.*?)</UploadId>};
        $id = S3T::S3::encode($id =~ s/&amp;/&/gr);
        my $parts = $http->get($null->url . "/bucket/$key?uploadId=$id");
        [$key, scalar(() = $parts->{content} =~ /<Part>/g)];
    } $list =~ m{<Upload>(.*?)</Upload>}g;
}

# (S3's answer to some Creates came after nginx was dead: nobody knows these)
my @open;
ok((wait_for { !grep { $_->[1] } @open = open_uploads() } 60, 0.2),
    'what was open is aborted') or diag explain \@open;
note scalar(@open), ' whose id nobody was told';
my $aborted = curl($n->url('/status/'))->{json}{totals}{orphansAborted};
cmp_ok($aborted, '>', 0, "$aborted orphans, by workers that live");

my $all = curl($n->url('/status/?limit=1000'))->{json}{transfers};
is(scalar @$all, $totals->{slotsUsed}, 'every slot is in the list');
is(scalar(grep { $_->{transferId} !~ /^upload-[a-z]+\d*-\d+-0123456789$/
    || $_->{state} !~ /^(?:completed|failed|aborted)$/ } @$all), 0,
    'each is a whole record');
is(scalar(grep { $_->{state} eq 'failed'
    && $_->{error} ne 'worker process died' } @$all), 0,
    'those of the dead say so');
cmp_ok(abs($totals->{started} - $totals->{completed} - $totals->{failed}
    - $totals->{aborted}), '<=', KILLS, 'the totals add up')
    or diag explain $totals;


# Each in turn with the lock and in the middle of a change, at the first byte of
# a function that makes one.
my $module = S3T::Nginx::module_path();
my %address = reverse map { /^([0-9a-f]+) \w (\w+)$/ } `nm '$module'`;
my $slots = $totals->{slots};

sub list {
    return map { curl($n->url("/status/?limit=1000$_"))->{json}{transfers} } @_;
}

for my $at (qw/ link insert finish give_up take /) {
    subtest "dead in ngx_s3_zone_$at()" => sub {
        my $address = $address{"ngx_s3_zone_$at"};
        ok(defined $address, 'there is such a place') or return;
        my $rebuilt = () = $n->log =~ /built anew/g;
        my $locked = () = $n->log =~ /was locked by/g;
        my @before = $n->workers;
        my @wait = map { my $pid = $_; spawn({ stdout => "$done.$pid",
            stderr => "$done.err" }, "$TOP/build/die_at", $pid, $module,
            $address) } @before;
        ok((wait_for { 2 == grep { -s "$done.$_" } @before }), 'ambushed')
            or return diag read_file("$done.err");
        # whichever takes it dies of it
        my $raw = $t->raw($n->port);
        $raw->send(put("ambush-$at", 10));
        ok($raw->closed, 'a worker has died');
        ok((wait_for { grep { !kill 0, $_ } @before }), 'indeed');
        # the other one, too, unless the first left the lock to another
        served(put("again-$at", 10)) for 1 .. 16;
        end_child($_) for @wait;
        wait_for { $n->workers == 2 };
        cmp_ok(scalar(() = $n->log =~ /was locked by/g), '>', $locked,
            'it had the lock');
        cmp_ok(scalar(() = $n->log =~ /built anew/g), '>', $rebuilt,
            'the zone is built anew');

        my @ids = map { sprintf "full-$at-%04d", $_ } 1 .. $slots + 5;
        my $c = $t->raw($n->port);
        my $bad = grep {
            $c->send(put($_, 1));
            my $r = $c->response || {};
            ($r->{status} || 0) != 201;
        } @ids;
        is($bad, 0, 'uploads');
        ok((wait_for { !@{(list('&state=active'))[0]} } 60, 0.2),
            'nothing is active for ever');
        my ($all) = list('');
        is(scalar(uniq map { $_->{transferId} } @$all), $slots,
            'no slot is lost');
        is(curl($n->url('/status/'))->{json}{totals}{slotsUsed}, $slots,
            'as the totals say');
        # the dead one's may be there beside the newest
        my %known = map { $_->{transferId} => 1 } @$all;
        cmp_ok(scalar(grep { $known{"upload-$_-0123456789"} } @ids), '>=',
            $slots - 12, 'the newest are kept');
    };
}
