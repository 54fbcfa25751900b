#!/usr/bin/perl

# Conditional writes: s3_overwrite off, If-None-Match: * and If-Match. What must
# not be written is refused before the body is sent where S3 shows it, else by
# S3's own condition; and a refusal of a try that followed a lost one is held
# against the object.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Null;

use constant PART => 5 * MB;

my $t = S3T->new;
my $s3 = $t->s3;

my $small = data(1000);
my $large = data(PART + 1);       # two parts
my $huge = data(33 * MB);
my $null = S3T::Null->new($t->dir);

my @new = (headers => [ 'If-None-Match: *' ]);

my (@cases, %cases);
my $locations = '';

# a fake and a location; on gets the fake's port
sub case {
    my ($name, %c) = @_;
    $c{port} = free_port();
    $c{fake} = $t->fake(port => $c{port}, on => $c{on}($c{port}));
    $c{body} ||= $small;
    $c{id} = sprintf 'conditions-%05d', scalar @cases;
    $c{name} = $name;
    $c{conf} = defined $c{conf} ? $c{conf} : 's3_overwrite off;';
    $locations .= "        location /$name/ { s3_endpoint " . $c{fake}->url
        . "; s3_bucket bucket; $c{conf} s3_upload; }\n";
    push @cases, \%c;
    $cases{$name} = \%c;
}

sub refusal {
    my ($status, $code) = @_;
    return { status => $status, body => "<Error><Code>$code</Code>"
        . '<Message>as scripted</Message></Error>' };
}

# an answer to HEAD once that operation was begun, 404 before
sub after {
    my ($op, $port, $size, $change) = @_;
    my $dir = $t->dir . "/fake-$port";
    return sub {
        return { status => 404 } if !-s "$dir/count.$op";
        my ($of) = read_file("$dir/requests")
            =~ /"x-amz-meta-transfer-id":"([^"]+)"/;
        # a PutObject that is not answered yet is not in the list
        ($of) = ('unlisted') if !defined $of;
        return { status => 200, headers => { ETag => '"of-the-object"',
            'Content-Length' => $size, 'x-amz-meta-transfer-id' =>
            $of . (defined $change ? $change : '') } };
    };
}

sub on {
    my (%on) = @_;
    return sub { \%on };
}

my $there = { status => 200, headers => { ETag => '"of-another"',
    'Content-Length' => 1000, 'x-amz-meta-transfer-id' => 'of-another' } };
my $hidden = { status => 403 };
my $failed = refusal(412, 'PreconditionFailed');
my $conflict = refusal(409, 'ConditionalRequestConflict');
my $internal = refusal(500, 'InternalError');
my $gone = refusal(404, 'NoSuchUpload');
my $lost = { close => 'before' };


# The look

case('there', on => on(head => $there), status => 412,
    message => qr/^the object exists$/, errors => 0,
    count => { head => 1, put => 0 });

case('there-large', body => $huge, on => on(head => $there), status => 412,
    message => qr/^the object exists$/, errors => 0,
    count => { head => 1, create => 0 });

case('there-later', body => $large, status => 412, errors => 0,
    on => sub { { head => after('create', $_[0], 1) } },
    message => qr/^the object exists$/,
    count => { head => 2, create => 1, part => 2, complete => 0, abort => 1 });

case('overwrite', conf => 's3_overwrite on;', on => on(head => $there),
    count => { head => 0, put => 1 });

case('default', conf => '', body => $large, on => on(head => $there),
    count => { head => 0, complete => 1 });

case('match', conf => '', curl => [ headers => [ 'If-Match: "of-another"' ] ],
    on => on(head => $there), count => { put => 1 });

case('match-list', conf => '', body => $large, curl => [ headers =>
    [ 'If-Match: "a", "of-another"' ] ], on => on(head => $there),
    count => { head => 2, complete => 1 });

case('match-other', conf => '', curl => [ headers => [ 'If-Match: "x"' ] ],
    on => on(head => $there), status => 412, errors => 0,
    message => qr/^If-Match: the object has another ETag$/,
    count => { head => 1, put => 0 });

case('match-none', conf => '', curl => [ headers => [ 'If-Match: *' ] ],
    on => on(), status => 412, errors => 0,
    message => qr/^If-Match: there is no such object$/,
    count => { head => 1, put => 0 });

case('match-off', curl => [ headers => [ 'If-Match: "of-another"' ] ],
    on => on(head => $there), status => 412, errors => 0, record => 0,
    message => qr/^If-Match asks for an object to be replaced, which is not/,
    count => { head => 0, put => 0 });

case('both', conf => '', curl => [ headers =>
    [ 'If-Match: "of-another"', 'If-None-Match: *' ] ],
    on => on(head => $there), status => 412, errors => 0,
    message => qr/^the object exists$/, count => { head => 1, put => 0 });


# S3 does not show the object: its own condition decides

case('hidden', body => $large, on => on(head => $hidden),
    count => { head => 2, complete => 1 });

case('hidden-there', on => on(head => $hidden, put => $failed), status => 412,
    message => qr/^PutObject failed: 412 PreconditionFailed/,
    count => { put => 1 });

case('hidden-there-large', body => $large, status => 412,
    on => on(head => $hidden, complete => $failed),
    message => qr/^CompleteMultipartUpload failed: 412 PreconditionFailed/,
    count => { complete => 1, abort => 1 });

case('hidden-none', conf => '', curl => [ headers => [ 'If-Match: "x"' ] ],
    on => on(head => $hidden, put => refusal(404, 'NoSuchKey')),
    status => 412, code => 'NoSuchKey', message => qr/404 NoSuchKey/,
    count => { put => 1 });

case('no-look', on => on(head => { status => 405 }), count => { put => 1 });

case('look-fails', on => on(head => { status => 500 }), status => 502,
    code => 'BadGateway', message => qr/^HeadObject failed: 500/,
    count => { head => 3, put => 0 });

case('look-slow', on => on(head => { status => 503 }), status => 503,
    code => 'ServiceUnavailable', message => qr/^HeadObject failed: 503/,
    count => { head => 3, put => 0 });

case('look-silent', on => on(head => { delay => 30 }), status => 504,
    conf => 's3_overwrite off; s3_read_timeout 300ms; s3_tries 2;',
    code => 'GatewayTimeout', message => qr/^HeadObject failed: .*timed out/,
    count => { put => 0 });


# Conflicts

case('conflict', on => on(put => [ $conflict, $conflict ]),
    count => { put => 3 });

case('conflict-always', on => on(put => $conflict), status => 409,
    code => 'ConditionalRequestConflict', message => qr/^PutObject failed: 409/,
    count => { put => 3 });

case('conflict-lost-race', on => on(put => [ $conflict, $failed ]),
    status => 412, message => qr/^PutObject failed: 412/,
    count => { put => 2 });

case('conflict-large', body => $large, on => on(complete => $conflict),
    status => 409, code => 'ConditionalRequestConflict',
    message => qr/^CompleteMultipartUpload failed: 409/,
    count => { complete => 1, abort => 1 });


# 412 after a try whose answer was lost: ours, or another's

case('lost-put', on => sub { { put => [ $lost, $failed ],
        head => after('put', $_[0], 1000) } }, errors => 1,
    etag => '"of-the-object"', count => { put => 2 });

case('lost-put-older', on => sub { { put => [ $lost, $failed ],
        head => after('put', $_[0], 1000, '0') } }, status => 412,
    message => qr/^PutObject failed: 412/, count => { put => 2 });

case('lost-complete', body => $large, errors => 1, on => sub { {
        complete => [ $lost, $failed ],
        head => after('complete', $_[0], PART + 1) } },
    etag => '"of-the-object"', count => { complete => 2, head => 3,
        abort => 0 });

case('lost-complete-older', body => $large, status => 412, on => sub { {
        complete => [ $lost, $failed ],
        head => after('complete', $_[0], PART + 1, '0') } },
    message => qr/^CompleteMultipartUpload failed: 412/,
    count => { complete => 2, head => 3, abort => 1 });

case('lost-complete-conflict', body => $large, status => 409, on => on(
        complete => [ $lost, $conflict ]), code => 'ConditionalRequestConflict',
    message => qr/409/, count => { complete => 2, abort => 1 });

# a server that refuses a condition with 412 although there was none
case('unasked', conf => '', on => on(put => $failed), status => 502,
    message => qr/412 PreconditionFailed/, count => { put => 1 });

case('unasked-key', conf => '', body => $large,
    on => on(complete => refusal(404, 'NoSuchKey')), status => 502,
    code => 'NoSuchKey', message => qr/404 NoSuchKey/,
    count => { complete => 1, abort => 1 });


my $n = $t->nginx(<<"EOF", level => 'info');
%%MAIN%%
http {
    %%HTTP%%
    s3_credentials static testaccess testsecret;
    s3_part_size 5m;
    s3_part_concurrency 1;
    s3_tries 3;
    s3_transfer_id \$arg_id;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        location /transfers/ { s3_status; }
        location /plain/ { %%S3%% s3_upload keys/\$arg_key; }
        location /null/ { s3_endpoint @{[$null->url]}; s3_bucket bucket;
            s3_overwrite off; s3_upload; }
        location /off/ { %%S3%% s3_overwrite off; s3_upload keys/\$arg_key; }
        location /slow-look/ { s3_endpoint @{[ ($t->{slow} = $t->fake(on => {
            head => { delay => 1 } }))->url ]}; s3_bucket bucket;
            s3_overwrite off; s3_upload; }
$locations
    }
    server {
        listen 127.0.0.1:%%PORT_off%%;
        s3_overwrite off;
        %%S3%%
        location /inherits/ { s3_upload keys/\$arg_key; }
        location /on/ { s3_overwrite on; s3_upload keys/\$arg_key; }
    }
}
EOF

sub record {
    my ($id) = @_;
    return curl($n->url("/transfers/$id"))->{json};
}

sub lines {
    my ($name, $level) = @_;
    return grep { m{\[$level\].*"\Q$name\E/x"} } split /\n/, $n->log;
}

for my $c (@cases) {
    my $status = $c->{status} || 201;
    $c->{errors} = $status == 201 ? 0 : 1 if !defined $c->{errors};
    $t->expect_errors(qr{"\Q$c->{name}\E/x"}) if $c->{errors};
}

$_->{started} = curl_start($n->url("/$_->{name}/x?id=$_->{id}"),
    file => $_->{body}, @{$_->{curl} || []}) for @cases;

for my $c (@cases) {
    subtest $c->{name} => sub {
        my $status = $c->{status} || 201;
        my $r = $c->{started}->wait;
        is($r->{status}, $status, 'status') or diag explain $r;
        if ($status == 201) {
            is(record($c->{id})->{state}, 'completed', 'the record');
            is($r->{headers}{etag}, $c->{etag}, 'ETag') if $c->{etag};
        } else {
            is($r->{json}{error}, $c->{code} || 'PreconditionFailed', 'error');
            like($r->{json}{message}, $c->{message}, 'message');
            my $record = record($c->{id});
            is("$record->{state} $record->{error}",
                "failed $r->{json}{message}", 'the record has its cause')
                if !defined $c->{record};
        }
        my %count = %{$c->{count}};
        my %seen;
        wait_for {
            %seen = map { $_ => scalar $c->{fake}->requests($_) } keys %count;
            !grep { $seen{$_} != $count{$_} } keys %count;
        };
        is_deeply(\%seen, \%count, 'requests');
        my @lines = lines($c->{name}, 'error');
        is(scalar @lines, $c->{errors}, 'lines of the log')
            or diag explain \@lines;
    };
}

subtest 'the header' => sub {
    is($_->{headers}{'if-none-match'}, '*', "of s3_overwrite off: $_->{op}")
        for (map { $cases{conflict}{fake}->requests($_) } 'put'),
        $cases{hidden}{fake}->requests('complete');
    is($_->{headers}{'if-none-match'}, undef, "not: $_->{op}")
        for (map { $cases{hidden}{fake}->requests($_) } qw/ create part /),
        $cases{overwrite}{fake}->requests('put');
    is($_->{headers}{'if-match'}, '"of-another"', 'If-Match')
        for $cases{match}{fake}->requests('put');
};

subtest 'what the operator is told' => sub {
    my @lines = grep { /does not show the object \(403\)/ }
        lines('hidden', 'warn');
    is(scalar @lines, 1, 'once');
    like($lines[0], qr/s3:GetObject and s3:ListBucket are wanted/, 'why');
    is(scalar(grep { /does not show/ } lines('hidden', 'info')), 1,
        'again only at level info');
    is(scalar(grep { /s3 object is not written: the object exists/ }
        lines('there', 'info')), 1, 'a refusal');
};


# A real S3

sub keep {
    my ($key, $body) = @_;
    $s3->put("keys/$key", $body);
    return $s3->head("keys/$key")->{etag};
}

subtest 'an object that exists, and a real S3' => sub {
    keep('kept', 'the former');
    my %ways = (
        'small' => [ file => $small ], 'large' => [ file => $large ],
        'empty' => [ body => '' ],
        'chunked' => [ file => $large, chunked => 1 ],
        'POST' => [ file => $small, method => 'POST' ],
    );
    for my $way (sort keys %ways) {
        for my $by ([ off => ], [ plain => @new ]) {
            my ($location, @curl) = @$by;
            my $r = curl($n->url("/$location/?key=kept"), @{$ways{$way}},
                @curl);
            is("$r->{status} $r->{json}{error}", '412 PreconditionFailed',
                "$location: $way");
        }
    }
    is($s3->get('keys/kept'), 'the former', 'it stays');
    is(scalar $s3->uploads, 0, 'nothing was begun');

    for my $way (sort keys %ways) {
        is(curl($n->url("/off/?key=new-$way"), @{$ways{$way}})->{status}, 201,
            "a new one: $way");
    }
    is_deeply([$s3->sha256('keys/new-chunked')], [@$large{qw/ sha256 size /}],
        'with its bytes');
};

subtest 'If-Match, and a real S3' => sub {
    for my $body ($small, $large) {
        my $etag = keep('matched', 'the former');
        my $put = sub {
            my ($match, $key) = @_;
            return curl($n->url('/plain/?key=' . ($key || 'matched')),
                file => $body, headers => [ "If-Match: $match" ])->{status};
        };
        is($put->('"d41d8cd98f00b204e9800998ecf8427e"'), 412, 'another');
        is($put->($etag, 'none'), 412, 'there is none');
        is($s3->get('keys/matched'), 'the former', 'it stays');
        is($s3->head('keys/none'), undef, 'nor does one appear');
        # the RGW compares what is between no quotes
        is($put->($etag =~ s/"//gr), 201, 'the right one');
        is_deeply([$s3->sha256('keys/matched')], [@$body{qw/ sha256 size /}],
            'it is replaced');
    }
    is(curl($n->url('/off/?key=matched'), file => $small, headers =>
        [ 'If-Match: *' ])->{status}, 412, 's3_overwrite off');
};

subtest 'levels' => sub {
    my $port = $n->port('off');
    keep('level', 'the former');
    is(curl($n->url('/inherits/?key=level', 'off'), file => $small)
        ->{status}, 412, 'inherited from the server');
    is(curl($n->url('/on/?key=level', 'off'), file => $small)->{status}, 201,
        'on in the location');
    like($n->test_conf(<<'EOF'), qr/invalid value "maybe" in "s3_overwrite"/,
%%MAIN%%
http { %%HTTP%% s3_overwrite maybe; }
EOF
        'another value');
};


# Before the body

subtest '100 Continue' => sub {
    keep('kept', 'the former');
    my $r = curl($n->url('/off/?key=kept'), file => $huge, expect => 1);
    is($r->{status}, 412, 'refused');
    is_deeply($r->{interim}, [], 'without 100');
    is($r->{sent}, 0, 'and without a byte of the body');

    $r = curl($n->url('/off/?key=continued'), file => $large, expect => 1);
    is($r->{status}, 201, 'stored');
    is_deeply($r->{interim}, [100], 'after 100');
};

subtest 'a client that is still sending' => sub {
    my $raw = $t->raw($n->port);
    $raw->send("PUT /off/?key=kept HTTP/1.1\r\nHost: x\r\n"
        . "Content-Length: 34603008\r\n\r\n" . 'x' x 1000);
    my $r = $raw->response;
    is($r->{status}, 412, 'it is told after the first bytes');
    like($r->{body}, qr/"error":"PreconditionFailed"/, 'and why');
    $raw->send('x' x (34603008 - 1000));
    $raw->send("GET /transfers/ HTTP/1.1\r\nHost: x\r\n\r\n");
    is($raw->response->{status}, 200, 'the rest is taken for no request');

    for my $o ({}, { length => $huge->{size} }) {
        $r = h2_put($n->port('h2'), '/off/?key=kept', $huge, %$o);
        is("$r->{status} $r->{json}{error}", '412 PreconditionFailed',
            'HTTP/2 ' . ($o->{length} ? 'with' : 'without') . ' a length');
    }

    my $id = 'still-sending-01';
    $raw = $t->raw($n->port);
    $raw->send("PUT /there-large/x?id=$id HTTP/1.1\r\nHost: x\r\n"
        . "Transfer-Encoding: chunked\r\n\r\n3e8\r\n" . 'x' x 1000 . "\r\n");
    is($raw->response->{status}, 412, 'chunked');
    is(record($id)->{bytesTransferred}, 0, 'the record: nothing was taken');
};

subtest 'a client that leaves during the look' => sub {
    my $id = 'left-early-00001';
    my $raw = $t->raw($n->port);
    $raw->send("PUT /slow-look/x?id=$id HTTP/1.1\r\nHost: x\r\n"
        . "Content-Length: 1000\r\n\r\n");
    ok(wait_for(sub { $t->{slow}->begun('head') }), 'S3 is asked');
    $raw->close;
    ok(wait_for(sub { record($id)->{state} eq 'aborted' }), 'aborted');

    my $r = curl($n->url('/slow-look/y'), file => $small);
    is($r->{status}, 201, 'another client waits for it');
    cmp_ok($r->{seconds}, '>=', 1, 'as long as it takes');
    is_deeply([map { $_->{path} } $t->{slow}->requests('put')],
        [ '/bucket/slow-look/y' ], 'nothing of the other was sent');
};


# Two at once

# two uploads of one key, the second begun before the first has ended
sub race {
    my ($location, $query, $body, $way) = @_;
    my @started = map {
        my $id = sprintf 'race-%s-of-two-%06d', $_, rand 1e6;
        my $raw = $t->raw($n->port);
        $raw->send("PUT $location?id=$id$query HTTP/1.1\r\nHost: x\r\n"
            . "Content-Length: " . length($body) . "\r\n\r\n"
            . substr $body, 0, 100);
        ok(wait_for(sub { my $r = record($id);
            $r && $r->{bytesTransferred} == 100 }), "$way: upload $_ is begun");
        $raw;
    } 1, 2;
    $_->send(substr $body, 100) for @started;
    return sort map { $_->response->{status} } @started;
}

for my $size (1000, PART + 1) {
    my $body = 'x' x $size;
    is_deeply([race("/null/of-$size", '', $body, "$size bytes")],
        [201, 412], "one of two wins: $size bytes");
}
is_deeply([race('/off/', '&key=raced', 'x' x 1000, 'RGW')], [201, 412],
    'and in a real S3');

subtest 'a real S3 that ignores the condition of Complete' => sub {
    my $body = read_file($large->{path});
    my $id = 'ignored-00000001';
    my $raw = $t->raw($n->port);
    $raw->send("PUT /off/?id=$id&key=ignored HTTP/1.1\r\nHost: x\r\n"
        . "Content-Length: $large->{size}\r\n\r\n" . substr $body, 0, PART);
    ok(wait_for(sub { record($id)->{bytesTransferred} == PART }), 'begun');
    keep('ignored', 'another was faster');
    $raw->send(substr $body, PART);
    is($raw->response->{status}, 412, 'the look before Complete tells');
    is($s3->get('keys/ignored'), 'another was faster', 'it stays');
    ok(wait_for(sub { !$s3->uploads }), 'the upload is aborted');
};

$t->allow_errors(qr{412 PreconditionFailed.*"(null/|keys/raced|keys/matched)});

subtest 'HTTP/2, two at once' => sub {
    my @r = map { $_->wait } map { curl_start(
        $n->url('/null/h2', 'h2'), file => $large, h2 => 1,
        rate => '4m') } 1, 2;
    is_deeply([sort map { $_->{status} } @r], [201, 412], 'one of two wins');
};


# After the look comes the waiting line

my $full = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    s3_memory 15m;
    s3_part_size 5m;
    s3_window 10m;
    s3_transfer_id $arg_id;
    server {
        listen 127.0.0.1:%%PORT%%;
        %%S3%%
        s3_overwrite off;
        location /transfers/ { s3_status; }
        location / { s3_upload; }
    }
}
EOF

# two a block short of a part of 5 MiB leave no room for a third
subtest 'the waiting line' => sub {
    my $body = 'x' x (7 * MB);
    my @raw = map {
        my $raw = $t->raw($full->port);
        $raw->send("PUT /line/$_?id=waiting-line-000$_ HTTP/1.1\r\nHost: x\r\n"
            . "Content-Length: " . length($body) . "\r\n\r\n"
            . substr $body, 0, $_ < 3 ? 4_900_000 : 1);
        ok(wait_for(sub {
            curl($full->url("/transfers/waiting-line-000$_"))->{json}
                {bytesTransferred} == 4_900_000 }), "upload $_ has memory")
            if $_ < 3;
        $raw;
    } 1 .. 3;
    is(curl($full->url('/transfers/waiting-line-0003'))->{json}
        {bytesTransferred}, 0, 'the third waits');
    $_->send(substr $body, 4_900_000) for @raw[0, 1];
    is($_->response->{status}, 201, 'stored') for @raw[0, 1];
    $raw[2]->send(substr $body, 1);
    is($raw[2]->response->{status}, 201, 'and then the third');
};
