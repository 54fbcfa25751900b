#!/usr/bin/perl

# Pulls that have to wait: for memory, for S3, for an origin that is silent. They
# hold their origin back, lose nothing of what it sent, outlive a reload, and do
# not wait longer than they may.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use Test::More;
use Time::HiRes qw/ time /;
use S3T;
use S3T::Util qw/ append /;

my $t = S3T->new;
my $s3 = $t->s3;
my $text = join '', map { sprintf "%07d\n", $_ } 1 .. 1024 * 1024;   # 8 MiB
my $sum = sha256_hex($text);

# how many requests for this path have come, this one included
sub nth {
    my ($path) = @_;
    my $name = $t->dir . '/nth' . $path =~ s/\W/-/gr;
    append($name, '.');
    return -s $name;
}

sub head { "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: $_[0]\r\n\r\n" }

my $all = head(length $text);
# what halts goes on when it is there
my $go = $t->dir . '/go';
my %origin = (
    '/all' => sub { { raw => $all . $text, close => 'after' } },
    '/late' => sub { { pieces => [0.5, head(0)], close => 'after' } },
    '/after' => sub { { delay => 1, body => '' } },
    '/none' => sub { { raw => head(0), close => 'after' } },

    # who loses patience
    '/leaves' => sub { nth('/leaves') == 1
        ? { pieces => [0, $all, 0.3, ''], close => 'after' }
        : { raw => $all . $text, close => 'after' } },
    '/cuts' => sub {
        my ($r) = @_;
        my ($from) = ($r->{headers}{range} || '') =~ /(\d+)/;
        return defined $from ? { status => 206, body => substr($text, $from),
            headers => { ETag => '"e"', 'Content-Range' => "bytes $from-"
                . (length($text) - 1) . '/' . length $text } }
            : { pieces => [0, $all . substr($text, 0, 100_000), 0.3, ''],
                close => 'after' };
    },
    '/halts' => sub { { pieces => [0, $all . substr($text, 0, 3_000_000), $go,
        substr $text, 3_000_000], close => 'after' } },
);
my $fake = $t->fake(on => { get => sub {
    my ($r) = @_;
    return $origin{$r->{path}}->($r);
} });

my $slow = $t->fake(on => { part => { delay => 1 } });

my $files = $t->dir . '/files';
mkdir $files;
place(data(64 * MB)->{path}, "$files/large");
my $nginx = $t->nginx(<<"EOF", module => 0);
%%MAIN%%
http {
    %%HTTP%%
    log_format sent "\$body_bytes_sent \$request_time";
    access_log %%DIR%%/sent.log sent;
    server { listen 127.0.0.1:%%PORT%%; root $files; }
}
EOF

$t->token(FAKE => "127.0.0.1:$fake->{port}", NGINX => '127.0.0.1:'
    . $nginx->port, SLOW => $slow->url);

my $n = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    s3_memory 15m;
    s3_part_size 5m;
    s3_window 10m;
    s3_tries 3;
    s3_ingest_allow 127.0.0.1;
    s3_transfer_id $arg_id;
    server {
        listen 127.0.0.1:%%PORT%%;
        %%S3%%
        location /put/ { s3_upload; }
        location /get/ {
            rewrite ^/get(/.*) $1 break;
            s3_ingest http://%%FAKE%%$uri get$uri;
        }
        location /hurry/ {
            s3_queue_timeout 1s;
            s3_ingest http://%%FAKE%%/all;
        }
        location /slow/ {
            s3_endpoint %%SLOW%%;
            s3_part_concurrency 1;
            s3_ingest http://%%NGINX%%/large;
        }
        location /left/ {
            s3_ingest http://%%FAKE%%/late;
            post_action /after;
        }
        location /after {
            proxy_pass http://%%FAKE%%;
            proxy_method GET;
            proxy_ignore_client_abort on;
        }
        location /async/ {
            s3_ingest http://%%FAKE%%/halts;
            s3_ingest_async on;
        }
        location /status/ { s3_status; }
    }
}
EOF

sub pull_start { curl_start($n->url($_[0]), method => 'POST') }
sub record { curl($n->url("/status/$_[0]"))->{json} || {} }

sub stored {
    my ($r, $key, $id) = @_;
    is($r->{status}, 201, "$key: stored") or diag explain $r;
    is_deeply([$s3->sha256($key)], [$sum, length $text], 'what S3 holds');
}

# uploads that do not go on, a block short of what makes a part
sub stalled {
    my @raw = map {
        my $raw = $t->raw($n->port);
        $raw->send("PUT /put/stalled$_ HTTP/1.1\r\nHost: a\r\n"
            . "Content-Length: 20000000\r\n\r\n" . 'x' x 4_900_000);
        $raw;
    } 1 .. 2;
    ok((wait_for {
        curl($n->url('/status/'))->{json}{totals}{memoryUsed} == 10 * MB
    }), 'the memory is taken, but for the margin');
    return @raw;
}

subtest 'for memory' => sub {
    $t->expect_errors(qr/no room in s3_memory for 1000 ms/);
    my @raw = stalled();
    my %c = map { $_ => pull_start("/get/$_?id=waits-0123456789-$_") }
        qw/ none leaves cuts /;
    my $from = time;
    my $r = pull_start('/hurry/x?id=hurry-0123456789')->wait;
    is("$r->{status} $r->{json}{error}", '503 SlowDown', 's3_queue_timeout');
    cmp_ok(time - $from, '>=', 0.9, 'is waited for');
    is(record('hurry-0123456789')->{state}, 'failed', 'the record');
    ok((wait_for { (record('waits-0123456789-leaves')->{totalBytes} || 0)
        == length $text }), 'one that waits knows its length');
    is(record('waits-0123456789-leaves')->{bytesTransferred}, 0,
        'and has taken nothing');
    is($c{none}->wait->{status}, 201, 'an empty body needs no memory');
    $_->reset for @raw;
    stored($c{$_}->wait, "get/$_") for qw/ leaves cuts /;
    my @asked = grep { $_->{path} =~ /leaves|cuts/ } $fake->requests('get');
    is(scalar @asked, 4, 'both were asked twice');
    unlike($n->log, qr/transfer is aborted.*(leaves|cuts)"/,
        'for the rest of one attempt');
};

subtest 'for S3' => sub {
    my ($worker) = $n->workers;
    my $r = pull_start('/slow/x')->wait;
    is($r->{status}, 201, 'stored') or diag explain $r;
    is($r->{json}{bytesStored}, 64 * MB, 'all of it');
    my (undef, $peak) = $n->usage($worker);
    cmp_ok($peak, '<', 60 * MB, 'the memory of the worker');
    my ($sent, $seconds) = split / /, read_file("$nginx->{dir}/sent.log");
    is($sent, 64 * MB, 'once');
    cmp_ok($seconds, '>', 5, 'the origin was held back');
};

subtest 'for a client that left, and a post_action that is on' => sub {
    my $left = $t->raw($n->port);
    $left->send("POST /left/x?id=left-0123456789ab HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: 0\r\n\r\n");
    wait_for { record('left-0123456789ab')->{state} };
    $left->close;
    ok((wait_for { grep { $_->{path} eq '/after' } $fake->requests('get') }),
        'the post_action had its time');
    ok((wait_for { record('left-0123456789ab')->{state} eq 'completed' }),
        'the pull');
};

subtest 'over a reload' => sub {
    my $c_id = 'waits-0123456789-halts';
    my $c = pull_start("/get/halts?id=$c_id");
    my $r = pull_start('/async/x?id=async-0123456789')->wait;
    is($r->{status}, 202, 'both ways');
    for my $id ('async-0123456789', $c_id) {
        ok((wait_for { (record($id)->{bytesTransferred} || 0) == 3_000_000 }),
            "$id: in the middle");
    }
    my ($old) = $n->workers;
    $n->reload;
    write_file($go, '');
    stored($c->wait, 'get/halts');
    unlink $go;
    ok((wait_for { record('async-0123456789')->{state} eq 'completed' } 60),
        'completed');
    is_deeply([$s3->sha256('async/x')], [$sum, length $text],
        'what S3 holds');
    ok((wait_for { !kill 0, $old } 60), 'the old worker leaves');
};

subtest 'no longer than a worker may' => sub {
    my $short = $t->nginx(<<'EOF');
%%MAIN%%
worker_shutdown_timeout 500ms;
http {
    %%HTTP%%
    s3_ingest_allow 127.0.0.1;
    server {
        listen 127.0.0.1:%%PORT%%;
        %%S3%%
        location /short/ {
            s3_transfer_id $arg_id;
            s3_ingest http://%%FAKE%%/halts;
            s3_ingest_async on;
        }
        location /status/ { s3_status; }
    }
}
EOF
    $t->expect_errors(qr/failed: worker is shutting down/);
    my $record = sub {
        curl($short->url('/status/short-0123456789'))->{json} || {};
    };
    curl($short->url('/short/x?id=short-0123456789'), method => 'POST');
    ok((wait_for { $record->()->{bytesTransferred} == 3_000_000 }),
        'in the middle');
    $short->reload;
    ok((wait_for { $record->()->{state} eq 'failed' } 60), 'failed');
    is($record->()->{error}, 'worker is shutting down', 'its error');
};
