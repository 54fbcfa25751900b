#!/usr/bin/perl

# Memory where clients stall: what a source does not fill is lent to others
# while they wait, what it holds is sent where it makes a part, and whoever has
# bytes goes on in the end.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;
use S3T::Crowd;
use S3T::Null qw/ body_gen /;
use Time::HiRes qw/ time /;

my $t = S3T->new(bucket => 0);
my $null = S3T::Null->new($t->dir);
my $slow = S3T::Null->new($t->dir, '--latency', 100);
# the head of an answer, and then nothing
my $silent = $t->fake(on => { get => { pieces => [0, "HTTP/1.1 200 OK\r\n"
    . "Content-Length: 20000000\r\n\r\n", 60, ''], close => 'after' } });
$t->token(NULL => $null->url, SLOW => $slow->url, SILENT => $silent->url);

my $conf = <<'EOT';
%%MAIN%%
http {
    %%HTTP%%
    s3_memory %%MEMORY%%;
    s3_bucket bucket;
    s3_credentials static k s;
    s3_payload_signature off;
    s3_transfer_id $arg_id;
    s3_queue_timeout 600s;
    client_body_timeout 600s;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { s3_endpoint %%NULL%%; s3_upload; }
        location /impatient/ {
            s3_endpoint %%NULL%%;
            client_body_timeout 1s;
            s3_upload;
        }
        location /small/ {
            s3_endpoint %%SLOW%%;
            s3_part_size 5m;
            s3_window 10m;
            s3_upload;
        }
        location /tee/ {
            s3_endpoint %%NULL%%;
            s3_part_size 5m;
            s3_window 10m;
            s3_tee_on_overrun wait;
            s3_tee;
            proxy_pass %%SILENT%%;
        }
        location /pull/ {
            s3_endpoint %%NULL%%;
            s3_part_size 5m;
            s3_window 10m;
            s3_ingest_allow 127.0.0.1;
            s3_ingest %%SILENT%%$uri;
        }
        location /transfers/ { s3_status list; }
    }
}
EOT

sub nginx {
    my ($memory, $main) = @_;
    $t->token(MEMORY => $memory);
    return $t->nginx($conf, %{$main || {}});
}

sub totals { curl($_[0]->url('/transfers/'))->{json}{totals} }

# bytes that came of the transfers with such ids
sub arrived {
    my ($n, $id) = @_;
    my ($sum, $after) = (0, '');
    while (1) {
        my $list = curl($n->url("/transfers/?limit=1000$after"))->{json};
        $sum += $_->{bytesTransferred}
            for grep { $_->{transferId} =~ /^$id/ } @{$list->{transfers}};
        return $sum if !$list->{next};
        $after = "&after=$list->{next}";
    }
}

sub idle {
    my ($n) = @_;
    return wait_for(sub {
        my $totals = totals($n);
        !$totals->{active} && !$totals->{memoryUsed};
    }, 60);
}

sub crowd {
    my ($n, $count, $path, $id, %o) = @_;
    return S3T::Crowd->new($t->dir, $n->port, $count,
        sub { sprintf "%s%d?id=%s-%04d", $path, $_[0], $id, $_[0] }, %o);
}


subtest 'stalled after 200 KB each' => sub {
    my $n = nginx('256m');
    my $crowd = crowd($n, 300, '/', 'stalled-200-00', send => 200_000,
        length => 1000 * MB);
    ok(wait_for(sub { arrived($n, 'stalled-200') == 300 * 200_000 }, 60),
        'all 300 were let in, though each has parts of 16 MiB');
    my $before = totals($n)->{memoryUsed};
    cmp_ok($before, '<=', 256 * MB, 's3_memory holds');
    my $parts = $null->stats->{part};
    my $r = body_gen($t->dir, $n->url('/active-200'), 640 * MB)->wait;
    is($r->{status}, 201, 'an active one is stored');
    is($r->{json}{bytesStored}, 640 * MB, 'all of it');
    is($null->stats->{part} - $parts, 40, 'in parts of the full size');
    cmp_ok(totals($n)->{memoryUsed}, '<=', 256 * MB, 's3_memory holds');
    is_deeply($crowd->answers, {}, 'none was answered yet');
    $crowd->stop;
    ok(idle($n), 'all memory came back');
    ok(wait_for(sub { !$null->stats->{open_uploads} }), 'no upload is open');
    $n->quit;
};

subtest 'stalled after 4.9 MB each' => sub {
    my $n = nginx('256m');
    my $objects = $null->stats->{objects};
    my $crowd = crowd($n, 300, '/impatient/', 'stalled-4900', send => 4_900_000,
        length => 1000 * MB);
    ok(wait_for(sub { totals($n)->{memoryUsed} > 235 * MB }, 60),
        'the memory is taken');
    my $from = time;
    my $r = body_gen($t->dir, $n->url('/active-4900'), 100 * MB)->wait;
    is($r->{status}, 201, 'an active one is stored');
    is($r->{json}{bytesStored}, 100 * MB, 'all of it');
    diag sprintf 'it took %.1f s', time - $from;
    ok(wait_for(sub { totals($n)->{aborted} == 300 }, 180),
        'the others were timed out');
    $crowd->stop;
    ok(idle($n), 'all memory came back');
    is($null->stats->{objects} - $objects, 1, 'one object');
    ok(wait_for(sub { !$null->stats->{open_uploads} }), 'no upload is open');
    $n->quit;
};

# more than S3's smallest part: nobody has to be timed out
subtest 'stalled after 8 MB each' => sub {
    my $n = nginx('256m');
    my $crowd = crowd($n, 60, '/', 'stalled-8000', send => 8_000_000,
        length => 60 * MB);
    ok(wait_for(sub { arrived($n, 'stalled-8000') == 60 * 8_000_000 }, 60),
        'all 60 were let in, since what they hold is sent');
    my $r = body_gen($t->dir, $n->url('/active-8000'), 300 * MB)->wait;
    is($r->{status}, 201, 'an active one is stored');
    is(arrived($n, 'stalled-8000'), 60 * 8_000_000, 'while the others wait');
    $crowd->go_on(40);
    ok(wait_for(sub { keys %{$crowd->answers} == 40 }, 180), 'forty go on');
    is_deeply([ grep { $_ != 201 } values %{$crowd->answers} ], [],
        'and are stored');
    my $stored = curl($n->url('/transfers/stalled-8000-0007'))->{json};
    is($stored->{bytesStored}, 60 * MB, 'all of it');
    $crowd->stop;
    ok(idle($n), 'all memory came back');
    ok(wait_for(sub { !$null->stats->{open_uploads} }), 'no upload is open');
    $n->quit;
};

# fewer blocks than sources, and S3 takes its time
subtest 'many where two parts have room' => sub {
    my $n = nginx('85m');
    my @o = ('--limit-rate', 3 * MB);
    my @blocked = map { body_gen($t->dir, $n->url("/blocked$_"), 64 * MB,
        @o) } 1 .. 2;
    my @up = map { body_gen($t->dir, $n->url("/small/$_"), 11 * MB + $_,
        @o, $_ % 2 ? ('--chunk', 20_000 + $_) : ()) } 1 .. 40;
    my $i = 0;
    for my $up (@up) {
        $i++;
        my $r = $up->wait;
        is(($r->{status} || 0) . ' ' . ($r->{json}{bytesStored} || 0),
            '201 ' . (11 * MB + $i), "upload $i");
    }
    is($_->wait->{status}, 201, 'one that was there before') for @blocked;
    ok(idle($n), 'all memory came back');
    $n->quit;
};

# what came while there was room for it
subtest 'stalled after 15 MB each, and others come later' => sub {
    my $n = nginx('256m');
    my $crowd = crowd($n, 15, '/', 'stalled-15000', send => 15_000_000,
        length => 60 * MB);
    ok(wait_for(sub { arrived($n, 'stalled-15000') == 15 * 15_000_000 }, 60),
        'fifteen have room');
    is(totals($n)->{partsStored}, 0, 'for parts that they do not finish');
    my $r = body_gen($t->dir, $n->url('/active-15000'), 300 * MB)->wait;
    is($r->{status}, 201, 'another one is stored');
    ok(wait_for(sub {
        my $list = curl($n->url('/transfers/?state=active'))->{json};
        grep { $_->{bytesStored} > 14_000_000 } @{$list->{transfers}};
    }), 'for which parts of the silent ones were sent');
    $crowd->go_on(15);
    ok(wait_for(sub { keys %{$crowd->answers} == 15 }, 180), 'they go on');
    is_deeply([ grep { $_ != 201 } values %{$crowd->answers} ], [],
        'and are stored');
    $crowd->stop;
    ok(idle($n), 'all memory came back');
    $n->quit;
};

# Parts come back from S3 one at a time, so that there never is room for one
# more: those that have parts must not hand it to each other for ever.
subtest 'beside busy ones' => sub {
    my $fake = $t->fake(on => { part => sub {
        srand(time * 1e6 ^ $$);
        return { delay => 0.2 + rand 0.4 };
    } });
    $t->token(FAKE => $fake->url);
    my $n = $t->nginx(<<'EOC');
%%MAIN%%
http {
    %%HTTP%%
    s3_memory 25m;
    s3_part_size 5m;
    s3_window 10m;
    # (the busy ones would be over by then)
    s3_queue_timeout 120s;
    s3_endpoint %%FAKE%%;
    s3_bucket bucket;
    s3_credentials static k s;
    s3_payload_signature off;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { s3_upload; }
        location /fixed/ { s3_window 20m; s3_upload; }
        location /transfers/ { s3_status; }
    }
}
EOC
    my $parts = sub {
        my ($key) = @_;
        return scalar grep { $_->{path} =~ /$key/ } $fake->requests('part');
    };

    # its part numbers are just enough: it needs all of each part of 10 MiB
    my $fixed = body_gen($t->dir, $n->url('/fixed/x'), 10_000 * 10 * MB - 1);
    ok((wait_for { $parts->('fixed') >= 2 }), 'one that needs large parts');
    my @busy = map { curl_start($n->url("/busy$_"), file => data(150 * MB)) }
        1 .. 3;
    ok((wait_for { $parts->('busy') >= 6 }), 'three are busy');
    my $before = $parts->('fixed');
    my @late = map { curl_start($n->url("/late$_"), file => data(6 * MB)) }
        1 .. 3;
    is($_->wait->{status}, 201, 'a newcomer gets its turn') for @late;
    is(scalar(grep { $_->running } @busy), 3, 'while the three go on');
    ok((wait_for { $parts->('fixed') > $before }), 'as the large one does');
    kill 'TERM', $fixed->{pid};
    is($_->wait->{status}, 201, 'busy ones are stored') for @busy;
    $fixed->wait;
    ok(idle($n), 'all memory came back');
    $n->quit;
};

# all of the memory is held by parts that nobody finishes
subtest 'the margin' => sub {
    my $n = nginx('85m');
    my @crowds = (crowd($n, 16, '/small/a', 'stalled-margin', send => 4_900_000,
        length => 60 * MB));
    ok(wait_for(sub { arrived($n, 'stalled-margin') == 16 * 4_900_000 }),
        'sixteen hold what is nearly a part');
    push @crowds, crowd($n, 16, '/small/b', 'stalled-small-', send => 200_000,
        length => 250_000);
    ok(wait_for(sub { arrived($n, 'stalled-small-') == 16 * 200_000 }),
        'others fill what is left');
    my $raw = $t->raw($n->port);
    $raw->send("PUT /small/x?id=waits-0123456789 HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: 30000000\r\n\r\n" . 'x' x 1000);
    ok(wait_for(sub { totals($n)->{memoryUsed} == 80 * MB }),
        'but for the margin');
    $crowds[0]->go_on(1);
    ok(wait_for(sub { ($crowds[0]->answers->{0} || 0) == 201 }, 60),
        'one that has bytes goes on');
    is(curl($n->url('/transfers/waits-0123456789'))->{json}{bytesTransferred},
        0, 'one that has yet to be let in does not take it');
    $raw->reset;
    $_->stop for @crowds;
    ok(idle($n), 'all memory came back');
    $n->quit;
};

# nor has an origin of which only the head came, let in at once or after a wait
for (map { ["$_, at once", $_, 0], ["$_, after a wait", $_, 1] } qw/ tee pull /)
{
    my ($name, $door, $waits) = @$_;
    subtest "a silent origin: $name" => sub {
        my $n = nginx('85m');
        my $crowd = $waits && crowd($n, 16, '/small/', 'stalled-before-',
            send => 4_900_000, length => 60 * MB);
        ok(!$crowd || wait_for(sub {
            arrived($n, 'stalled-before') == 16 * 4_900_000 }), 'others');
        my @c = map { curl_start($n->url("/$door/$_?id=silent-0123456789-$_"),
            $door eq 'pull' ? (method => 'POST') : ()) } 1 .. 20;
        ok(wait_for(sub { totals($n)->{active} == ($waits ? 36 : 20) }),
            'all have begun');
        if ($crowd) {
            $crowd->stop;
            ok(wait_for(sub { totals($n)->{active} == 20 }),
                'they have their turn');
        }
        my $r = body_gen($t->dir, $n->url("/small/$door"), 30 * MB)->wait;
        is($r->{status}, 201, 'an upload is stored');
        $_->kill for @c;
        $n->stop;
    };
}
