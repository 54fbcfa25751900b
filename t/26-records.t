#!/usr/bin/perl

# 100,000 records in the zone: lists find each of them while uploads come and
# go, nobody holds the lock for more than a page of records, no list keeps a
# worker from the others, and what is to be done with many is done in pages. No
# record's time goes back where workers' clocks differ.

use strict;
use warnings;

use lib 't/lib';
use HTTP::Tiny;
use JSON::PP ();
use List::Util qw/ max sum0 /;
use Test::More;
use S3T;
use S3T::Null;
use S3T::Zone qw/ date_ahead fill_zone /;

plan skip_all => 'not root' if $>;

# (the sanitizers take their time)
use constant { PAGE => 64, TURN => 16, STAY => $ENV{T_ASAN} ? 10_000 : 100_000,
    ZONE => $ENV{T_ASAN} ? '34m' : '310m', EXPIRED => 200, STALLED => 150 };

my $t = S3T->new(bucket => 0);
$t->allow_alerts(qr/worker process \d+ exited on signal 9/);
my $null = S3T::Null->new($t->dir);
$t->token(NULL => $null->url, ZONE => ZONE);

# room for some thousand more
my $n = $t->nginx(<<'EOF', level => 'debug');
%%MAIN%%
http {
    %%HTTP%%
    access_log off;
    keepalive_requests 1000000;
    s3_transfer_zone %%ZONE%%;
    s3_endpoint %%NULL%%;
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    s3_payload_signature off;
    s3_progress_log off;
    s3_transfer_id $arg_id;
    client_body_timeout 600s;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /upload/ { s3_upload; }
        location /transfers/ { s3_status list; }
        location = /ssi {
            ssi on;
            default_type text/html;
            return 200 '[<!--#include virtual="/transfers/?state=active" -->,
                <!--#include virtual="/transfers/?state=aborted" -->]';
        }
    }
}
EOF

my $http = HTTP::Tiny->new(proxy => undef, http_proxy => undef);

sub get { $http->get($n->url("/transfers/$_[0]"))->{content} }
sub ids { $_[0] =~ /"transferId":"([^"]+)"/g }
sub totals { curl($n->url("/transfers/?limit=1"))->{json}{totals} }

# spread over the tree as random ones are
sub id {
    my ($name, $i) = @_;
    return sprintf '%08x-%s-%08d', $i * 2654435761 % 2 ** 32, $name, $i;
}

sub put {
    my ($id, $size) = @_;
    return "PUT /upload/a?id=$id HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: $size\r\n\r\nxxxx";
}

# the numbers of a kind of line, since the log was so long
sub logged {
    my ($line, $from) = @_;
    return substr($n->log, $from || 0) =~ /s3 zone: $line:(\d+)/g;
}

my ($worker) = $n->workers;
my $c = $t->raw($n->port);
my @stay = map { id('staying_', $_) } 1 .. STAY;
my @expired = map { id('expired_', $_) } 1 .. EXPIRED;
my $first = id('thefirst', 0);
$c->send(put($first, 4));
is($c->response->{status}, 201, 'an upload');

subtest 'records that expire' => sub {
    ok(fill_zone($worker, $first, \@expired, finished => 25 * 3600 * 1000),
        'old ones');
    is(scalar ids(get('?limit=1000')), 1, 'are not shown');
    ok((wait_for { totals()->{slotsUsed} == 1 }), 'they go');
    is_deeply([logged('page of records expired')], [64, 64, 64, 8],
        'in pages');
};

my $slots = totals()->{slots};
my $go = $slots - STAY - EXPIRED - 1;
cmp_ok($go, '>', 1000, "room for @{[STAY]} records and $go more");
my @go = map { id('going___', $_) } 1 .. $go;
ok(fill_zone($worker, $first, \@go, finished => 1000), 'some that go');
is(totals()->{slotsUsed}, 1 + @go, 'are there');
ok(fill_zone($worker, $first, \@stay), 'many that stay');
is(totals()->{slotsUsed}, 1 + $go + STAY, 'are there, too');

subtest 'each is listed once, while others come and go' => sub {
    my $from = length $n->log;
    my ($after, $put, $lists, %met) = ('', 0, 0);
    my $more = int 1000 * 1000 / STAY;
    do {
        my $page = get("?limit=1000" . ($after && "&after=$after"));
        $met{$_}++ for ids($page);
        ($after) = $page =~ /"next":"([^"]+)"\}$/;
        $lists++;
        # up to so many have room, afterwards one goes for each
        for (1 .. $more) {
            $c->send(put(id('coming__', ++$put), 4));
            ($c->response || {})->{status} == 201 or die 'not stored';
        }
    } while ($after && $lists < 200);
    my @wrong = grep { ($met{$_} || 0) != 1 } @stay;
    is(scalar @wrong, 0, 'each that stays');
    is(max(values %met), 1, 'none twice');
    is(totals()->{slotsUsed}, $slots, 'the zone is full');
    cmp_ok($put, '>', EXPIRED + 500, 'and some have gone');
    my @pages = logged('page of records met', $from);
    cmp_ok(max(@pages), '<=', PAGE, 'at most a page for each lock');
    cmp_ok(sum0(@pages), '>=', STAY, 'all of them in pages');
};

my @active = map { sprintf '%08x-isactive-00000000', $_ } 1, 2 ** 31,
    2 ** 32 - 1;
my @clients = map { my $raw = $t->raw($n->port); $raw->send(put($_, 100));
    $raw } @active;
wait_for { totals()->{active} == 3 };

subtest 'a list that finds few' => sub {
    my $from = length $n->log;
    my $page = get('?state=active&limit=2');
    is_deeply([ids($page)], [@active[0, 1]], 'two of them');
    like($page, qr/"next":"$active[1]"\}$/, 'and there is another one');
    $page = get("?state=active&limit=2&after=$active[1]");
    is_deeply([ids($page)], [$active[2]], 'the third');
    like($page, qr/"next":null\}$/, 'and no more');
    my @pages = logged('page of records met', $from);
    cmp_ok(max(@pages), '<=', PAGE, 'at most a page for each lock');
    cmp_ok(sum0(@pages), '>', STAY, 'it looked at all');
    my @turns = map { scalar(() = /s3 zone: page of records/g) }
        split /epoll timer:/, substr $n->log, $from;
    is(max(@turns), TURN, 'so many of them, then others have their turn');

    my $both = curl($n->url('/ssi'))->{json};
    is_deeply([map { [map { $_->{transferId} } @{$_->{transfers}}] } @$both],
        [\@active, []], 'included in a page');

    my $answered;
    ok((wait_for {
        $from = length $n->log;
        my $list = $t->raw($n->port);
        $list->send("GET /transfers/?state=aborted HTTP/1.1\r\n"
            . "Host: a\r\n\r\n");
        $c->send(put(id('beside__', 1), 4));
        $answered = [map { ($_->response || {})->{status} } $c, $list];
        substr($n->log, $from)
            =~ /records met.*"PUT \/upload.*records met/s;
    } 60), 'an upload in the middle of it');
    is_deeply($answered, [201, 200], 'both are answered');

    my $raw = $t->raw($n->port);
    $raw->send("GET /transfers/?state=aborted HTTP/1.1\r\nHost: a\r\n\r\n");
    $raw->reset;
    is(totals()->{active}, 3, 'who leaves in the middle does no harm');
};

subtest 'a worker that dies with many' => sub {
    push @clients, map { my $raw = $t->raw($n->port);
        $raw->send(put(id('stalling', $_), 100)); $raw } 1 .. STALLED;
    ok((wait_for { totals()->{active} == 3 + STALLED }), 'they are there');
    my $from = length $n->log;
    kill 'KILL', $worker;
    ok((wait_for { totals()->{failed} == 3 + STALLED } 60), 'all are failed');
    my @looked = substr($n->log, $from) =~ /looked at:(\d+) reaped:(\d+)/g;
    my @reaped = @looked[grep { $_ % 2 } 0 .. $#looked];
    is(sum0(@reaped), 3 + STALLED, 'each once');
    cmp_ok(max(@reaped), '<=', PAGE, 'in pages');
    is(sum0(@looked) - sum0(@reaped), $slots, 'in one walk through the slots');
};

subtest 'a worker that leaves answers before' => sub {
    my $list = $t->raw($n->port);
    my $from = length $n->log;
    $list->send("GET /transfers/?state=active HTTP/1.1\r\n");
    ok((wait_for { substr($n->log, $from) =~ /http request line: "GET/ }),
        'half of a request');
    kill 'QUIT', $n->pid;
    ok((wait_for { substr($n->log, $from) =~ /gracefully shutting down/ }),
        'it is to leave');
    $list->send("Host: a\r\n\r\n");
    is(($list->response || {})->{status}, 200, 'a list in many turns');
    $n->quit;
};

# Each worker has its own clock, that of the beginning of its turn.
subtest 'a record that was read by a clock that is ahead' => sub {
    my $of = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    s3_endpoint %%NULL%%;
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    s3_transfer_id $arg_id;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /upload/ { s3_upload; }
        location /transfers/ { s3_status; }
    }
}
EOF
    my $id = id('isahead_', 0);
    my $raw = $t->raw($of->port);
    my $seen = sub { curl($of->url("/transfers/$id"))->{json} || {} };
    $raw->send(put($id, 9));
    ok((wait_for { ($seen->()->{bytesTransferred} || 0) == 4 }), 'under way');
    my $before = $seen->()->{updatedAt};
    ok(date_ahead(($of->workers)[0], $id, 60_000), 'read');
    my $ahead = $seen->()->{updatedAt};
    cmp_ok($ahead, 'gt', $before, 'by that clock');
    $raw->send('xxxxx');
    my $r = JSON::PP::decode_json($raw->response->{body});
    is("$r->{state} $r->{updatedAt}", "completed $ahead",
        'its end is not before that');
    is($r->{expiresAt} =~ s/.*T//r, $ahead =~ s/.*T//r, 'nor is what follows');
    is_deeply($seen->(), $r, 'as all are told');
};
