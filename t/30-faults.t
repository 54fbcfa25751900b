#!/usr/bin/perl

# What S3 can do wrong, one location and one scripted S3 a case
# (t/lib/S3T/Schedule.pm has them): the client is told the cause, the record has
# it, one line of the log says it, what can be tried again is, and no upload
# stays open. All cases run at the same time.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use Time::HiRes qw/ time /;
use S3T;
use S3T::Schedule qw/ refusal /;

use constant PART => 5 * MB;

my $t = S3T->new;
my $s3 = $t->s3;

my $schedule = S3T::Schedule->new($t, door => sub { 's3_upload;' });
$schedule->table;


# Clients

$schedule->case('still-sending', on => { create => refusal(403, 'AccessDenied') }, manual => 1, errors => 1);

$schedule->case('error-page', on => { create => refusal(403, 'AccessDenied') }, manual => 1, errors => 1,
    conf => 'error_page 502 =503 /sorry;');

my $go = $t->dir . '/go';
$schedule->case('left-early', on => { create => { hold => $go } }, manual => 1,
    errors => 0);

$schedule->case('abort-again', on => { abort => [
        (refusal(500, 'InternalError')) x 2 ] },
    manual => 1, errors => 0);

$schedule->case('abort-never', on => { abort => refusal(500, 'InternalError') }, manual => 1, errors => 1);


my $n = $t->nginx(<<"EOF");
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        s3_credentials static testaccess testsecret;
        s3_part_size 5m;
        s3_tries 3;
        s3_transfer_id \$arg_id;
        location /transfers/ { s3_status; }
        location /sorry { return 200 "of the error page"; }
$schedule->{locations}
    }
}
EOF

$schedule->{n} = $n;
$schedule->expect;
$t->expect_errors(qr/the multipart upload "fake-\S+" is not aborted/);

sub upload {
    my ($c, $key, %o) = @_;
    return curl_start($n->url("/$c->{name}/$key?id=" . ($o{id} || $c->{id})),
        file => $c->{body},
        $c->{condition} ? (headers => ['If-None-Match: *']) : (), %o);
}

$s3->put('condition-real/x', 'the former');

my @cases = grep { !$_->{manual} } $schedule->cases;
$_->{started} = upload($_, 'x') for @cases;
for my $c (@cases) {
    subtest $c->{name} => sub {
        $c->{response} = $c->{started}->wait;
        $schedule->answered($c, $c->{response});
        $schedule->followed($c);
    };
}

is_deeply([$s3->keys], ['condition-real/x'], 'no object appeared in S3');
is($s3->get('condition-real/x'), 'the former', 'the former stays');

subtest 'tries take another connection' => sub {
    for my $name (qw/ answered-early no-etag slow-down closed-within
        success-early garbage too-slow bad-digest /)
    {
        my @tried = $schedule->requests($name, 'part');
        isnt($tried[0]{connection}, $tried[1]{connection}, $name);
        is($tried[0]{query}{partNumber}, $tried[1]{query}{partNumber},
            "$name: the same part");
        my ($part) = grep { $_->{query}{partNumber} == 1 && $_->{whole} }
            reverse @tried;
        is($part->{length}, PART, "$name: whole");
    }

    my %connections = map { $_->{connection} => 1 } $schedule->requests('not-kept');
    is(scalar keys %connections, 5, 'nor goes anything over one that S3 closes');

    my ($part) = $schedule->requests('refused-early', 'part');
    my ($abort) = $schedule->requests('refused-early', 'abort');
    isnt($part->{connection}, $abort->{connection},
        'nothing follows a body that was cut short');

    my ($first, @tried) = map { $_->{time} } $schedule->requests('slow-down-always',
        'part');
    # (a second, and up to one more, but for what nginx's clock is behind)
    cmp_ok($tried[0] - $first, '>=', 0.7, 'Retry-After is waited for');
};

subtest 'what a try is' => sub {
    my $c = $schedule->of('idle-closed');
    my $r = upload($c, 'x', id => "$c->{id}-2")->wait;
    is($r->{status}, 201, 'a kept connection that S3 closed is not one');
    wait_for { $c->{fake}->requests == 3 };
    is_deeply([map { $_->{number} } $c->{fake}->requests], [1, 2, 1],
        'the request went once more, over a new connection');

    my @tries = $schedule->requests('time', 'put');
    cmp_ok(scalar @tries, '>', 1, 's3_retry_timeout: tried again');
    cmp_ok($tries[-1]{time} - $tries[0]{time}, '<=', 20, 'and not for ever');
};

subtest 'clock, region and keys' => sub {
    my ($before, $after) = map { $_->{headers}{'x-amz-date'} }
        $schedule->requests('clock', 'put');
    isnt(substr($before, 0, 11), substr($after, 0, 11), 'the clock of S3');

    for my $name (qw/ clock region-301 region-400 /) {
        my $c = $schedule->of($name);
        my $r = upload($c, 'x', id => "$c->{id}-2")->wait;
        is($r->{status}, 201, "$name: the next upload");
        my ($op) = $c->{count}{put} ? 'put' : 'create';
        ok(wait_for(sub { $c->{fake}->requests($op) == 3 }), 'knows it');
    }
    like($_->{headers}{authorization}, qr{/eu-west-9/s3/aws4_request},
        "signed for the region: $_->{op}")
        for ($schedule->requests('region-400'))[1 .. 4];
};

is($schedule->of('trap-field')->{response}{headers}{'x-evil'}, undef,
    'S3 sets no header of ours');

subtest 'conditions' => sub {
    is($_->{headers}{'if-none-match'}, '*', "If-None-Match: $_->{op}")
        for $schedule->requests('condition-small', 'put'),
        $schedule->requests('condition-large', 'complete');
};

subtest 'a client that is still sending' => sub {
    my $c = $schedule->of('still-sending');
    my $body = read_file(data(33 * MB)->{path});
    for my $tls (0, 1) {
        my $raw = $t->raw($n->port($tls ? 'tls' : undef),
            $tls ? (tls => $t->ca) : ());
        my $before = () = $c->{fake}->requests('create');
        ok($raw->send("PUT /still-sending/x HTTP/1.1\r\nHost: x\r\n"
            . "Content-Length: 34603008\r\n\r\n" . substr $body, 0, 100000),
            'a head and the first bytes');
        wait_for { $c->{fake}->requests('create') > $before };
        ok($raw->send(substr $body, 100000), 'all of the body was taken');
        my $r = $raw->response;
        is($r->{status}, 502, 'status');
        like($r->{body}, qr/"error":"AccessDenied"/, 'the answer is there');
    }

    my $r = upload($c, 'x', file => data(33 * MB), id => 'h' x 16)->wait;
    is("$r->{status} $r->{json}{error}", '502 AccessDenied', 'curl')
        or diag explain $r;
    $r = h2_put($n->port('h2'), '/still-sending/x', data(33 * MB));
    is("$r->{status} $r->{json}{error}", '502 AccessDenied', 'HTTP/2')
        or diag explain $r;
};

subtest 'error_page' => sub {
    for my $o ({}, { chunked => 1 }) {
        my $r = upload($schedule->of('error-page'), 'x', file => data(33 * MB), %$o,
            id => 'page' x 4 . join '', keys %$o)->wait;
        is("$r->{status} $r->{body}", '503 of the error page',
            'in the place of the JSON error');
    }
};

subtest 'a client that left while the upload was created' => sub {
    my $c = $schedule->of('left-early');
    my $raw = $t->raw($n->port);
    $raw->send("PUT /left-early/x?id=$c->{id} HTTP/1.1\r\nHost: x\r\n"
        . "Content-Length: 20000000\r\n\r\n" . 'x' x 1000);
    ok(wait_for(sub { $c->{fake}->begun('create') }), 'on its way');
    $raw->close;
    ok(wait_for(sub { $schedule->record($c)->{state} eq 'aborted' }), 'the record');
    is(scalar $c->{fake}->requests('abort'), 0, 'S3 has not answered');
    write_file($go, '');
    ok(wait_for(sub { $c->{fake}->requests('abort') == 1 }), 'then aborted');
};

subtest 'a client that left, and aborts that fail' => sub {
    for my $name (qw/ abort-again abort-never /) {
        my $c = $schedule->of($name);
        my $raw = $t->raw($n->port);
        $raw->send("PUT /$name/x?id=$c->{id} HTTP/1.1\r\nHost: x\r\n"
            . "Content-Length: 20000000\r\n\r\n" . 'x' x PART);
        ok(wait_for(sub { $c->{fake}->requests('part') }), 'a part is stored');
        $raw->close;
        ok(wait_for(sub { $c->{fake}->requests('abort') == 3 }),
            "$name: three tries to abort") or diag explain
            [map { $_->{op} } $c->{fake}->requests];
        is($schedule->record($c)->{state}, 'aborted', 'the record');
        is(scalar $schedule->requests($name, 'complete'), 0, 'never completed');
    }
    ok(wait_for(sub { $schedule->errors($schedule->of('abort-never')) == 1 }),
        'the log says that it stays open');
    is(scalar $schedule->errors($schedule->of('abort-again')), 0, 'only then');
};

my $busy_conf = <<'EOC';
%%MAIN%%
http {
    %%HTTP%%
    s3_endpoint %%BUSY%%;
    s3_bucket bucket;
    s3_credentials static k s;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { s3_upload; }
    }
}
EOC

subtest 'a client that left while Create waits for its next try' => sub {
    my $busy = $t->fake(on => { create => refusal(503, 'SlowDown',
        headers => { 'Retry-After' => 60 }) });
    $t->token(BUSY => $busy->url);
    my $of = $t->nginx($busy_conf);
    my $raw = $t->raw($of->port);
    $raw->send("PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\nx");
    ok(wait_for(sub { $of->log =~ /Create.*next in/ }), 'it waits');
    $raw->close;
    ok(wait_for(sub { $of->log =~ /transfer is aborted/ }), 'the client left');
    ok($of->quit(40), 'so that the worker can leave at once');
    is(scalar $busy->requests('create'), 1, 'there is no other try');
};

subtest 'a client that left while Create is on its way' => sub {
    my $answer = $t->dir . '/answer';
    my $busy = $t->fake(on => { create => refusal(503, 'SlowDown',
        hold => $answer, headers => { 'Retry-After' => 60 }) });
    $t->token(BUSY => $busy->url);
    $t->expect_errors(qr/s3 CreateMultipartUpload failed: .*, try 1 of 1/);
    my $of = $t->nginx($busy_conf);
    my $raw = $t->raw($of->port);
    $raw->send("PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\nx");
    ok(wait_for(sub { $busy->begun('create') }), 'it is on its way');
    $raw->close;
    ok(wait_for(sub { $of->log =~ /transfer is aborted/ }), 'the client left');
    kill 'QUIT', $of->pid;
    write_file($answer, '');
    ok($of->quit(40), 'the worker leaves once the answer is there');
    is(scalar $busy->requests('create'), 1, 'there is no other try');
};
