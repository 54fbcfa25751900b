#!/usr/bin/perl

# Progress while it happens: what the status location of either worker says at
# any moment, the lines in the log, and how often the gate opens.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use JSON::PP ();
use List::Util qw/ max min uniq /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;

use constant RATE => 100 * MB;       # of clients, bytes a second

my $t = S3T->new;
# takes as long to complete as a test wants
my $go = $t->dir . '/go';
my $slow = $t->fake(on => { complete => { hold => $go } });
$t->token(SLOW => $slow->url);

# with reuseport the kernel spreads connections over the workers
my $n = $t->nginx(<<'EOF', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    # chunks of no more than client_body_buffer_size
    s3_zero_copy off;
    keepalive_requests 100000;
    s3_credentials static testaccess testsecret;
    s3_endpoint %%RGW%%;
    s3_bucket %%BUCKET%%;
    s3_payload_signature off;
    s3_part_size 8m;
    s3_transfer_id $arg_transfer_id;
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        add_header X-Pid $pid always;
        location /upload/ { s3_upload; }
        location /slow/ {
            s3_endpoint %%SLOW%%;
            s3_bucket bucket;
            s3_part_size 5m;
            s3_upload;
        }
        location /step/ {
            location /step/none { s3_upload; }
            location /step/one { s3_progress_step 0.01% 1m 1; s3_upload; }
            location /step/quarter { s3_progress_step 25% 100m; s3_upload; }
            location /step/min { s3_progress_step 1% 100m 1m; s3_upload; }
            location /step/off { s3_progress_log off; s3_upload; }
            location /step/notice { s3_progress_log notice; s3_upload; }
        }
        location /transfers/ { s3_status; }
    }
}
EOF

# a client on a kept connection: { status, headers, json }
sub ask {
    my ($client, $path) = @_;
    $client->send("GET $path HTTP/1.1\r\nHost: test\r\n\r\n");
    my $r = $client->response or die "no answer to $path";
    $r->{json} = JSON::PP->new->utf8->decode($r->{body});
    return $r;
}

# one client of each worker
sub clients {
    my %of;
    for (1 .. 100) {
        my $c = $t->raw($n->port);
        $of{ask($c, '/transfers/')->{headers}{'x-pid'}} ||= $c;
        last if keys %of == 2;
    }
    is_deeply([sort keys %of], [sort $n->workers], 'a client of each worker');
    return values %of;
}

my @clients = clients();

sub totals { ask($clients[0], '/transfers/')->{json}{totals} }

# what both workers say is added, and when they were asked and had answered
sub look {
    my ($seen, $id) = @_;
    for my $c (@clients) {
        my $asked = time;
        my $r = ask($c, "/transfers/$id");
        next if $r->{status} == 404 && !@$seen;
        push @$seen, { %{$r->{json}}, status => $r->{status},
            pid => $r->{headers}{'x-pid'}, asked => $asked, at => time };
    }
}

# in turn, until the upload is over and then once more
sub watch {
    my ($upload, $id, $interval) = @_;
    my @seen;
    my $over;
    do {
        $over = !$upload->running;
        look(\@seen, $id);
        sleep $interval if !$over;
    } until ($over);
    return @seen;
}

# the record alone
sub record {
    my %record = %{$_[0]};
    delete @record{qw/ status pid asked at /};
    return \%record;
}

# pairs of neighbours in which a value falls
sub falls {
    my ($name, @seen) = @_;
    return grep { $seen[$_]{$name} lt $seen[$_ - 1]{$name} } 1 .. $#seen
        if $name =~ /At$/;
    return grep { $seen[$_]{$name} < $seen[$_ - 1]{$name} } 1 .. $#seen;
}

# what holds of any series of samples
sub sane {
    my (@seen) = @_;
    is_deeply([uniq map { $_->{status} } @seen], [200], 'always known');
    for my $name (qw/ bytesTransferred bytesStored partsStored sequence
        updatedAt /)
    {
        is(scalar(() = falls($name, @seen)), 0, "$name never falls");
    }
    is(scalar(uniq map { "$_->{attempt} $_->{startedAt}" } @seen), 1,
        'one attempt');
    is(scalar(grep { $_->{bytesStored} > $_->{bytesTransferred} } @seen), 0,
        'nothing is stored before it came');
    is(scalar(grep { $_->{storedPercentage} > 99 } grep {
        $_->{state} ne 'completed' } @seen), 0, 'at most 99 % stored before');
    is(scalar(uniq map { $_->{pid} } grep { $_->{state} eq 'active' } @seen),
        2, 'both workers were asked meanwhile');
    is_deeply(record($seen[-2]), record($seen[-1]), 'both say the same of what is over');
}

sub states { join ' ', uniq map { $_->{state} } @_ }

# the progress lines of a transfer: [bytes, total, percentage, level]
sub lines {
    my ($id) = @_;
    return map { m{\[(\w+)\] .* Progress:\ (\d+)/(\d+|\?)\ bytes\ \((\d+)%\),
            .*transfer:\ \Q$id\E}x ? [$2, $3, $4, $1] : () }
        split /\n/, $n->log;
}

subtest '1 GiB' => sub {
    my $d = data(1 * GB);
    my $size = $d->{size};
    my $id = 'chosen-by-the-client';
    my $before = totals();
    my $from = time;
    my $c = curl_start($n->url("/upload/big?transfer_id=$id"), file => $d,
        rate => RATE);
    my @seen = watch($c, $id, 0.1);
    my $took = time - $from;
    my $r = $c->wait;
    my $after = totals();

    is($r->{status}, 201, 'stored');
    is_deeply([$t->s3->sha256('upload/big')], [$d->{sha256}, $size],
        'what S3 holds');

    sane(@seen);
    # (RGW may complete it between two looks)
    like(states(@seen), qr/^active (?:completing )?completed$/,
        'states in order');
    my @bytes = map { $_->{bytesTransferred} } @seen;
    # (what may have come while a look took its time is not meant)
    cmp_ok($bytes[0] - RATE * ($seen[0]{at} - $from), '<', $size * 0.05,
        'seen from near 0');
    cmp_ok(scalar(uniq @bytes), '>', 15, 'it grows between looks');
    cmp_ok(max(map { $bytes[$_] - $bytes[$_ - 1]
        - RATE * ($seen[$_]{at} - $seen[$_ - 1]{asked}) } 1 .. $#bytes), '<',
        $size * 0.2, 'and not in leaps');
    cmp_ok(@seen / 2, '>', $took, 'a status location in time');
    is(scalar(grep { $_->{percentage} != int(100 * $_->{bytesTransferred}
        / $size) } @seen), 0, 'percentage is floored');
    is_deeply([uniq map { $_->{totalBytes} } @seen], [$size],
        'the total is known at once');
    is($seen[-1]{bytesStored}, $size, 'all stored');
    is($seen[-1]{partsStored}, 128, 'in parts');
    is($seen[-1]{etag}, $r->{headers}{etag}, 'ETag');
    is($seen[0]{etag}, undef, 'none before');
    is_deeply($r->{json}, record($seen[-1]), 'the answer is the record');

    my $openings = $after->{openings} - $before->{openings};
    my @lines = lines($id);
    cmp_ok($openings, '>=', 95, 'openings');
    cmp_ok($openings, '<=', 100, 'at most a hundred');
    is(scalar @lines, $openings, 'as many progress lines');
    is(scalar(grep { $_->[1] != $size || $_->[3] ne 'info'
        || $_->[2] != int(100 * $_->[0] / $size) } @lines), 0, 'as told');
    my $step = int(($size + 99) / 100);
    is(scalar(grep { $lines[$_][0] - ($_ ? $lines[$_ - 1][0] : 0) < $step }
        0 .. $#lines), 0, 'each a step after the last');
    is($after->{bytesTransferred} - $before->{bytesTransferred}, $size,
        'bytes in the totals');
    cmp_ok($after->{chunks} - $before->{chunks}, '>', $size / (64 * KB),
        'chunks in the totals');
    # a start, a completing, an end beside the openings
    is($seen[-1]{sequence}, $openings + 3, 'records');
};

subtest 'unknown length' => sub {
    my $d = data(230 * MB);
    my $id = 'of-unknown-length';
    my $before = totals();
    my $c = curl_start($n->url("/upload/unknown?transfer_id=$id"), file => $d,
        chunked => 1, rate => RATE);
    my @seen = watch($c, $id, 0.05);
    my $r = $c->wait;

    is($r->{status}, 201, 'stored');
    is_deeply([$t->s3->sha256('upload/unknown')], [$d->{sha256}, $d->{size}],
        'what S3 holds');
    sane(@seen);
    my @active = grep { $_->{state} eq 'active' } @seen;
    is_deeply([uniq map { $_->{totalBytes} } @active], [undef],
        'no total while it is unknown');
    is_deeply([uniq map { ($_->{percentage}, $_->{storedPercentage}) }
        @active], [0], 'no percentage');
    cmp_ok(scalar(uniq map { $_->{bytesTransferred} } @active), '>',
        min(5, @active / 4), 'but bytes');
    is_deeply([uniq map { $_->{totalBytes} } grep { $_->{state} ne 'active' }
        @seen], [$d->{size}], 'the count is the total of the whole');
    is($seen[-1]{percentage}, 100, 'all');

    is(totals()->{openings} - $before->{openings}, 2, 'a step is 100 MiB');
    my @lines = lines($id);
    is_deeply([map { [@$_[1, 2]] } @lines], [['?', 0], ['?', 0]], 'lines');
    for my $i (0, 1) {
        cmp_ok(abs($lines[$i][0] - ($i + 1) * 100 * MB), '<', 64 * KB,
            "line at $lines[$i][0]");
    }
    ok((grep { m{Progress: 1048\d{5}/\? bytes \(0%\), } } split /\n/, $n->log),
        'as it is written');
};

subtest 'completing' => sub {
    my $d = data(12 * MB);
    my $body = read_file($d->{path});
    for my $chunked (0, 1) {
        my $id = "slow-to-complete-$chunked";
        my $c = $t->raw($n->port);
        my $send = sub { $c->send($chunked ? sprintf("%x\r\n%s\r\n",
            length $_[0], $_[0]) : $_[0]) };
        my @seen;
        my $both = sub { my ($state) = @_;
            2 == uniq map { $_->{pid} } grep { $_->{state} eq $state } @seen };
        my $before = $slow->begun('complete');
        unlink $go;

        $c->send("PUT /slow/$chunked?transfer_id=$id HTTP/1.1\r\nHost: t\r\n"
            . ($chunked ? 'Transfer-Encoding: chunked'
            : "Content-Length: $d->{size}") . "\r\n\r\n");
        $send->(substr $body, 0, 7 * MB);
        ok((wait_for { look(\@seen, $id); $both->('active') }), 'begun');
        $send->(substr $body, 7 * MB);
        $c->send("0\r\n\r\n") if $chunked;
        ok((wait_for { look(\@seen, $id);
            $slow->begun('complete') > $before }), 'S3 is to complete it');
        look(\@seen, $id) for 1 .. 3;
        ok($both->('completing'), 'both workers show it');
        my %last = %{$seen[-1]};
        is_deeply([@last{qw/ state bytesTransferred bytesStored totalBytes
            percentage storedPercentage etag /}],
            ['completing', ($d->{size}) x 3, 100, 99, undef],
            'all there, not yet one');

        write_file($go, '');
        is($c->response->{status}, 201, $chunked ? 'chunked' : 'Content-Length');
        look(\@seen, $id);
        sane(@seen);
        like(states(@seen), qr/^active completing completed$/, 'in order');
        is($seen[-1]{storedPercentage}, 100, 'then complete');

        my $at = 0;
        my @wrong = grep { $at += $_->{length}; $_->{sha256} ne
            sha256_hex(substr $body, $at - $_->{length}, $_->{length}) }
            sort { $a->{query}{partNumber} <=> $b->{query}{partNumber} }
            grep { $_->{path} eq "/bucket/slow/$chunked" }
            $slow->requests('part');
        is("$at @wrong", "$d->{size} ", 'the parts are the body');
    }
};

# openings, lines of an upload to /step/NAME
sub steps {
    my ($name, $size, %o) = @_;
    my $id = "step-$name-" . ($o{chunked} ? 'chunked' : 'length') . "-$size";
    my $before = totals()->{openings};
    my $r = curl($n->url("/step/$name/a?transfer_id=$id"),
        file => data($size), %o);
    is($r->{status}, 201, "$name: $size bytes");
    return (totals()->{openings} - $before, lines($id));
}

# A step is overshot by less than a chunk, nginx's 16 KiB and what came with
# the head.
sub between {
    my ($got, $size, $step, $name) = @_;
    cmp_ok($got, '<=', int($size / $step), "$name, at most");
    cmp_ok($got, '>=', int($size / ($step + 17 * KB)), "$name, at least");
}

subtest 'steps' => sub {
    my ($openings, @lines);

    ($openings) = steps('none', 4 * MB);
    between($openings, 4 * MB, 64 * KB, 'the floor spares small objects');
    ($openings) = steps('none', 64 * KB - 1);
    is($openings, 0, 'not at all');
    ($openings, @lines) = steps('none', 64 * KB);
    is($openings, 1, 'once');
    is_deeply(\@lines, [[64 * KB, 64 * KB, 100, 'info']], 'at its end');
    ($openings) = steps('none', 0);
    is($openings, 0, 'an empty one');

    ($openings) = steps('one', 20 * MB);
    between($openings, 20 * MB, 20 * MB / 10000, '0.01% with a floor of 1');
    ($openings) = steps('one', 20 * MB, chunked => 1);
    between($openings, 20 * MB, 1 * MB, 'of unknown length each 1m');
    ($openings, @lines) = steps('quarter', 20 * MB);
    is($openings, 3 + ($lines[-1][0] == 20 * MB), '25%');
    is_deeply([map { $_->[2] } @lines[0 .. 2]], [25, 50, 75], 'as it says');
    ($openings) = steps('min', 10 * MB);
    between($openings, 10 * MB, 1 * MB, 'a floor of 1m');

    ($openings, @lines) = steps('off', 1 * MB);
    between($openings, 1 * MB, 64 * KB, 's3_progress_log off');
    is(scalar @lines, 0, 'no line');
    unlike($n->log, qr/transfer: step-off-/, 'none at all');
    ($openings, @lines) = steps('notice', 1 * MB);
    is(scalar @lines, $openings, 's3_progress_log notice');
    is_deeply([uniq map { $_->[3] } @lines], ['notice'], 'its level');
};
