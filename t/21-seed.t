#!/usr/bin/perl

# The case that the gate was made for: 9,029,243,448 bytes in small chunks, and
# a hundred records a store instead of a million.

use strict;
use warnings;

use lib 't/lib';
use JSON::PP ();
use List::Util qw/ uniq /;
use Test::More;
use S3T;
use S3T::Null;

use constant SIZE => 9_029_243_448;

my $t = S3T->new(bucket => 0);
my $null = S3T::Null->new($t->dir, '--verify');
my $redis = $t->own_redis;
my $dynamodb = $t->fake;
$t->token(NULL => $null->url, OWN_REDIS => "127.0.0.1:$redis->{port}",
    FAKE => $dynamodb->url);

my $n = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    s3_progress_redis redis://%%OWN_REDIS%% prefix=seed:;
    s3_progress_dynamodb %%FAKE%% table=seeds;
    s3_progress_dynamodb_credentials static testaccess testsecret;
    server {
        listen 127.0.0.1:%%PORT%%;
        s3_endpoint %%NULL%%;
        s3_bucket seeds;
        s3_credentials static testaccess testsecret;
        s3_payload_signature off;
        s3_transfer_id $arg_id;
        location /upload/ { s3_upload; }
        location /transfers/ { s3_status; }
    }
}
EOF

my $monitor = $redis->monitor($t->dir . '/monitor');

sub totals { curl($n->url('/transfers/'))->{json}{totals} }

# What Redis stored of a transfer, as its script's HSET names it
sub in_redis {
    my ($id) = @_;
    my $string = qr/"((?:[^"\\]|\\.)*)"/;
    return map { +{ map { s/\\(.)/$1/gr } /$string/g } }
        map { s/.*"seed:\Q$id\E" //r }
        grep { /lua\] "HSET"/i } $monitor->lines("\"seed:$id\"");
}

# What DynamoDB was told
sub in_dynamodb {
    my ($id) = @_;
    return grep { $_->{transferId} eq $id } map {
        my $item = JSON::PP->new->utf8->decode($_->{body})->{Item};
        +{ map { $_ => (values %{$item->{$_}})[0] } keys %$item };
    } $dynamodb->requests('PutItem');
}

# What holds of a store's records, in the order in which it was told
sub records {
    my ($store, $openings, @records) = @_;
    my @order = uniq map { "$_->{attempt} $_->{sequence}" } @records;
    cmp_ok(scalar @order, '<=', $openings + 3, "$store: records")
        or diag explain \@order;
    cmp_ok(scalar @order, '<=', 103, "$store: at most 103");
    cmp_ok(scalar @order, '>=', 3, "$store: but some");
    is(scalar @records, scalar @order, "$store: each once");
    is(scalar(uniq map { $_->{attempt} } @records), 1, "$store: one attempt");
    is(scalar(grep { $records[$_]{sequence} <= $records[$_ - 1]{sequence} }
        1 .. $#records), 0, "$store: in order");
    my $last = $records[-1];
    is_deeply([@$last{qw/ state bytesTransferred bytesStored totalBytes
        percentage sequence /}],
        ['completed', SIZE, SIZE, SIZE, 100, $openings + 3],
        "$store: the last one");
    return $last;
}

# Uploads it, and returns openings and chunks.
sub upload {
    my ($id, @options) = @_;
    my $before = totals();
    my $r = S3T::Null::body_gen($t->dir, $n->url("/upload/$id?id=$id"), SIZE,
        @options)->wait;
    is($r->{status}, 201, 'stored') or diag explain $r;
    is($r->{json}{bytesStored}, SIZE, 'all of it');

    wait_for { my $after = totals();
        $after->{redis}{writes} - $before->{redis}{writes}
            + $after->{redis}{replaced} - $before->{redis}{replaced}
            == $after->{redis}{records} - $before->{redis}{records}
        && grep { $_->{state} eq 'completed' } in_dynamodb($id) };
    my $after = totals();
    my $openings = $after->{openings} - $before->{openings};

    my $last = records('Redis', $openings, in_redis($id));
    is_deeply($redis->hgetall("seed:$id"), $last, 'Redis: what it holds');
    my $item = records('DynamoDB', $openings, in_dynamodb($id));
    delete $item->{ttl};
    is_deeply($item, $last, 'DynamoDB: the same');

    for my $store (qw/ redis dynamodb /) {
        my %n = map { $_ => $after->{$store}{$_} - $before->{$store}{$_} }
            qw/ records writes replaced dropped errors /;
        is($n{records}, $openings + 3, "$store: handed over");
        is($n{writes} + $n{replaced}, $n{records},
            "$store: written or replaced");
        is($n{dropped} + $n{errors}, 0, "$store: nothing lost");
    }
    is($after->{bytesTransferred} - $before->{bytesTransferred}, SIZE,
        'bytes counted');

    my @lines = grep { /Progress: .*transfer: \Q$id\E/ } split /\n/, $n->log;
    is(scalar @lines, $openings, 'a line an opening');

    return ($openings, $after->{chunks} - $before->{chunks}, @lines);
}

subtest 'Content-Length' => sub {
    my ($openings, $chunks, @lines) = upload('seed-with-its-length');
    cmp_ok($openings, '>=', 95, 'openings');
    cmp_ok($openings, '<=', 100, 'at most a hundred');
    like($lines[0], qr{Progress: 9\d{7}/9029243448 bytes \(1%\), },
        'the first line');
};

subtest 'chunks of 8 KiB' => sub {
    my ($openings, $chunks, @lines) =
        upload('seed-of-unknown-length', '--chunk', 8192);
    like($openings, qr/^8[56]$/, 'openings');
    cmp_ok($chunks, '>', 1_000_000, "$chunks chunks counted");
    like($lines[0], qr{Progress: 1048\d{5}/\? bytes \(0%\), },
        'the first line');
};

my $stats = $null->stats;
is_deeply([@$stats{qw/ bad cut bytes objects open_uploads /}],
    [0, 0, 2 * SIZE, 2, 0], 'S3 has both, byte for byte');

my (undef, $peak) = $n->usage(($n->workers)[0]);
SKIP: {
    skip 'memory of the sanitizers', 1 if $ENV{T_ASAN};
    cmp_ok($peak, '<', 128 * MB, 'in little memory');
}

$monitor->stop;
$null->stop;
$redis->stop;
$dynamodb->stop;
