#!/usr/bin/perl

# Who finds no room in s3_memory waits for s3_queue_timeout, then gets 503; its
# body was not read and S3 heard nothing of it. A client that leaves meanwhile
# gives its turn away.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;
use Time::HiRes qw/ time /;

my $t = S3T->new;
my $s3 = $t->fake;
my $after = $t->fake(on => { put => { delay => 1 } });

$t->token(S3_FAKE => 's3_bucket bucket; s3_credentials static k s; '
    . 's3_payload_signature off; s3_endpoint ' . $s3->url,
    AFTER => $after->url);

my $n = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    s3_memory 15m;
    s3_part_size 5m;
    s3_window 10m;
    s3_transfer_id $arg_id;
    client_body_timeout 600s;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { %%S3_FAKE%%; s3_queue_timeout 1s; s3_upload; }
        location /patient/ { %%S3_FAKE%%; s3_queue_timeout 120s; s3_upload; }
        location /left/ {
            %%S3_FAKE%%;
            s3_queue_timeout 120s;
            s3_upload;
            post_action /after;
        }
        location /after {
            proxy_pass %%AFTER%%;
            proxy_ignore_client_abort on;
        }
        location /transfers/ { s3_status; }
    }
}
EOF

$t->expect_errors(qr/no room in s3_memory for 1000 ms, \d\d of 60 blocks/);

# two that do not go on, a block short of what makes a part
my @stalled = map {
    my $raw = $t->raw($n->port);
    $raw->send("PUT /stalled$_ HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: 20000000\r\n\r\n" . 'x' x 4_900_000);
    $raw;
} 1 .. 2;
ok((wait_for {
    curl($n->url('/transfers/'))->{json}{totals}{memoryUsed} == 10 * MB
}), 'the memory is taken, but for the margin');

my $id = 'waits-0123456789';
my $d = data(6 * MB);
my $waits = $t->raw($n->port);
my $from = time;
$waits->send("PUT /late?id=$id HTTP/1.1\r\nHost: a\r\n"
    . "Expect: 100-continue\r\nContent-Length: $d->{size}\r\n\r\n");
my $patient = curl_start($n->url('/patient/x'), file => $d);

my $r = $waits->response;
is($r->{status}, 503, 'refused');
cmp_ok(time - $from, '>=', 0.7, 'after a while');
like($r->{headers}{'retry-after'} // '', qr/^\d+$/, 'with Retry-After');
is(JSON::PP::decode_json($r->{body})->{error}, 'SlowDown', 'as JSON');
is_deeply($r->{interim} || [], [], 'no 100 Continue was sent');
is(curl($n->url("/transfers/$id"))->{json}{state}, 'failed', 'the record');
is(scalar(grep { $_->{path} =~ /late/ } $s3->requests), 0,
    'S3 heard nothing of it');

is(curl($n->url("/transfers/?state=active"))->{json}{totals}{memoryUsed},
    38 * 256 * KB, 'what they do not fill was taken back, the rest was not');

# one whose post_action still goes on when its turn would have come
my $left_id = 'leaves-0123456789';
my $left = $t->raw($n->port);
$left->send("PUT /left/x?id=$left_id HTTP/1.1\r\nHost: a\r\n"
    . "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n");
wait_for { (curl($n->url("/transfers/$left_id"))->{status} || 0) == 200 };
$left->close;
ok((wait_for { $after->begun('put') }), 'a post_action');
$t->allow_errors(qr/upstream prematurely closed/);

$stalled[0]->reset;
is($patient->wait->{status}, 201, 'one that waits longer gets its turn');
$stalled[1]->reset;

ok((wait_for { $after->requests('put') == 1 }), 'the post_action had its time');
ok((wait_for { curl($n->url("/transfers/$left_id"))->{json}{state}
    eq 'aborted' }), 'the upload of a client that left');
is(scalar(grep { $_->{path} =~ /left/ } $s3->requests), 0,
    'S3 heard nothing of it');
