#!/usr/bin/perl

# How a body is asked for, held back, shared with other modules, refused and
# sent again: what lies between a client and an object.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use List::Util qw/ max min sum /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;

use constant PART => 5 * MB;

my $t = S3T->new;
my $s3 = $t->s3;

my $fake = $t->fake;
my $slow = $t->fake(on => { part => { delay => 1.5 } });
# (the first ones stay until there are three of them)
my $wide_port = free_port();
my $wide = $t->fake(port => $wide_port, on => { part => sub {
    my $begun = $t->dir . "/fake-$wide_port/count.part";
    wait_for { -s $begun >= 3 };
    return { delay => 0.6 };
} });
my $weak = $t->fake(on => { part => [ {}, { status => 503 },
    { read => 2 * MB, close => 'reset' }, {}, { close => 'before' },
    { read => 0, status => 500, close => 'after' } ] });
my $down = $t->fake;
$down->stop;

my $endpoint = 's3_bucket bucket; s3_credentials static k s;'
    . ' s3_payload_signature off; s3_endpoint ';
$t->token(FAKE => $endpoint . $fake->url, SLOW => $endpoint . $slow->url,
    WIDE => $endpoint . $wide->url, WEAK => $endpoint . $weak->url,
    DOWN => $endpoint . $down->url, COPY => $fake->url,
    PASSWD => write_file($t->dir . '/passwd', "user:{PLAIN}pass\n"));

my $n = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    keepalive_requests 100000;
    log_format state "$request_uri $status $s3_transfer_state $s3_key";
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl http2;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        access_log %%DIR%%/state.log state;
        s3_part_size 5m;
        s3_transfer_id $arg_id;

        location / { %%S3%% s3_upload; }
        location /status/ { s3_status; }
        location /fair-file/ {
            mirror /nowhere;
            client_body_in_file_only clean;
            %%S3%% s3_window 240m; s3_upload;
        }
        location /fair/ { %%S3%% s3_window 240m; s3_upload; }
        location /limit/ { client_max_body_size 6m; %%S3%% s3_upload; }
        location /stall/ { client_body_timeout 1s; %%S3%% s3_upload; }

        location /auth/ {
            auth_basic test;
            auth_basic_user_file %%PASSWD%%;
            %%FAKE%%; s3_upload;
        }

        location /memory/ {
            mirror /copy;
            client_body_buffer_size 8m;
            %%S3%% s3_upload;
        }
        location /file/ {
            mirror /copy;
            client_body_in_file_only clean;
            %%S3%% s3_upload;
        }
        location /kept/ {
            mirror /copy;
            client_body_in_file_only on;
            %%S3%% s3_upload;
        }
        location /unmirrored/ {
            mirror /nowhere;
            mirror_request_body on;
            %%S3%% s3_upload;
        }
        location = /copy {
            internal;
            proxy_read_timeout 5s;
            proxy_pass %%COPY%%/copies$request_uri;
        }
        location = /nowhere { internal; return 204; }

        location /slow/ {
            client_body_timeout 1s;
            %%SLOW%%; s3_part_concurrency 1; s3_window 10m; s3_upload;
        }
        location /wide/ { %%WIDE%%; s3_part_concurrency 3; s3_upload; }
        location /weak/ { %%WEAK%%; s3_part_concurrency 1; s3_upload; }

        location /methods/ {
            %%S3%%
            empty_gif;
            limit_except GET { s3_upload; }
        }
        location /if/ {
            %%S3%%
            if ($http_x_upload) { s3_upload; }
            if ($http_x_upload = "") { return 404; }
        }
        location /deny/ { limit_except PUT { deny all; } %%S3%% s3_upload; }
        location /rewrite/ { rewrite ^/rewrite/(.*)$ /rewritten/$1 last; }
        location /missing/ { error_page 404 = @upload; return 404; }
        location @upload { %%S3%% s3_upload; }

        location /down/ {
            %%DOWN%%; s3_tries 1; s3_upload;
            error_page 502 /sorry;
        }
        location = /sorry { internal; return 502 "sorry\n"; }
        location /second/ {
            %%DOWN%%; s3_tries 1; s3_upload;
            error_page 502 = @upload;
        }
        location /second-read/ {
            mirror /nowhere;
            %%DOWN%%; s3_tries 1; s3_upload;
            error_page 502 = @upload;
        }
    }
}
EOF
$t->allow_errors(qr/Connection refused|PutObject|CreateMultipartUpload/);

sub states {
    my $log = read_file("$n->{dir}/state.log") || '';
    my %states;
    $states{$1} = $2 while $log =~ m{^(\S+) (\d+ \S+)}mg;
    return \%states;
}

# "status state" of the path's last request, once it is in the access log
sub state_of {
    my ($path) = @_;
    wait_for { states()->{$path} };
    return states()->{$path};
}

sub is_stored {
    my ($key, $d, $name) = @_;
    is_deeply([$s3->sha256($key)], [$d->{sha256}, $d->{size}],
        "$name: what S3 holds");
}

my %transports = (
    'Content-Length' => {},
    'chunked' => { chunked => 1 },
    'HTTP/2, Content-Length' => { h2 => 1, port => 'h2' },
    'HTTP/2' => { h2 => 1, port => 'h2', chunked => 1 },
    'TLS' => { port => 'tls' },
    'TLS, HTTP/2' => { port => 'tls', h2 => 1, chunked => 1 },
);

# The same request in each transport at once: name => [key, answer]. With $early
# the answer comes before the end of the body, which curl does not understand in
# HTTP/2.
sub everywhere {
    my ($prefix, $d, $early) = @_;
    my %c;
    for my $name (keys %transports) {
        my %o = %{$transports{$name}};
        my $port = delete $o{port};
        my $key = "$prefix/" . $name =~ s/\W+/-/gr;
        if ($early && $o{h2}) {
            my $r = h2_put($n->port($port), "/$key", $d,
                $port eq 'tls' ? (tls => $t->ca) : (),
                $o{chunked} ? () : (length => $d->{size}));
            $c{$name} = [$key, $r];
            next;
        }
        $c{$name} = [$key, curl_start($n->url("/$key", $port), %o,
            file => $d, ca => $t->ca)];
    }
    $_->[1] = $_->[1]->wait for grep { ref $_->[1] ne 'HASH' } values %c;
    return \%c;
}

# what a mirror sent
sub copies {
    my ($path) = @_;
    my @copies;
    wait_for { @copies = grep { $_->{path} eq $path } $fake->requests };
    return @copies;
}

sub put_head {
    my ($path, @lines) = @_;
    return join("\r\n", "PUT $path HTTP/1.1", 'Host: a', @lines) . "\r\n\r\n";
}

subtest '100 Continue' => sub {
    my $raw = $t->raw($n->port);
    my @ask = ('Content-Length: 3', 'Expect: 100-continue');
    $raw->send(put_head('/asked', @ask));
    like($raw->read_until(qr/\r\n\r\n/), qr{^HTTP/1.1 100 }, 'asked for');
    $raw->{read} = '';
    $raw->send('abc');
    is($raw->response->{status}, 201, 'stored');

    my %refused = ('/limit/e' => [413, 'Content-Length: 10000000', $ask[1]],
        '/x?uploads' => [501, @ask], '/x/' => [400, @ask],
        '/x?id=short' => [400, @ask], '/auth/a' => [401, @ask],
        '/y' => [400, @ask, 'Content-Range: bytes 0-2/3'],
        '/deny/z' => [403, @ask]);
    for my $path (sort keys %refused) {
        my ($status, @head) = @{$refused{$path}};
        my $raw = $t->raw($n->port);
        $raw->send(($path eq '/deny/z' ? put_head($path, @head)
            =~ s/^PUT/POST/r : put_head($path, @head)));
        is($raw->response->{status}, $status, "$path: no 100 before $status");
    }
    is($fake->begun($_), 0, "no $_") for qw/ put create part /;
    is_deeply([grep { /^[xy]/ } $s3->keys], [], 'no object');
};
$t->allow_errors(qr/client intended to send too large body/,
    qr/no user\/password was provided|access forbidden by rule/);

subtest 'a body that another module has read' => sub {
    for my $size (0, 1, 100 * KB, PART + 1, 18 * MB) {
        my $d = data($size);
        for my $where ($size < 8 * MB ? 'memory' : (), 'file') {
            my $c = everywhere("$where/$size", $d);
            for my $name (sort keys %$c) {
                my ($key, $r) = @{$c->{$name}};
                my $what = "$where, $size, $name";
                is("$r->{status} $r->{json}{totalBytes}", "201 $size", $what)
                    or diag explain $r;
                is_stored($key, $d, $what);
                $s3->delete($key);
                my ($copy) = copies("/copies/$key");
                is("$copy->{sha256} $copy->{length}", "$d->{sha256} $size",
                    "$what: what the mirror got");
            }
        }
    }

    my $kept = everywhere('kept', data(PART + 1));
    for my $name (sort keys %$kept) {
        my ($key, $r) = @{$kept->{$name}};
        is($r->{status}, 201, "a file that is kept, $name") or diag explain $r;
        is_stored($key, data(PART + 1), $name);
    }
    my @files = grep { -f && -s == PART + 1 } glob "$n->{dir}/temp/client_body/*"
        . " $n->{dir}/temp/client_body/*/*/*";
    is(scalar @files, scalar keys %$kept, 'they are kept');
    is(Digest::SHA->new(256)->addfile($files[0])->hexdigest,
        data(PART + 1)->{sha256}, 'with the body');

    my $d = data(300 * KB);
    is(curl($n->url('/unmirrored/a'), file => $d)->{status}, 201,
        'into a file that nginx chose');
    is_stored('unmirrored/a', $d, 'from there');
};
$t->allow_errors(qr/a client request body is buffered to a temporary file/);

subtest 'too large' => sub {
    my $c = everywhere('limit', data(7 * MB), 'early');
    for my $name (sort keys %$c) {
        my ($key, $r) = @{$c->{$name}};
        is($r->{status}, 413, $name) or diag explain $r;
        like(state_of("/$key"), $transports{$name}{chunked} ? qr/^413 aborted$/
            : qr/^413 -$/, "$name: its state");
    }
    is_deeply([grep { /^limit/ } $s3->keys], [], 'no object');
    ok(wait_for(sub { !$s3->uploads }), 'no multipart upload');
    my $d = data(6 * MB);
    is($_->[1]{status}, 201, "$_->[0]: at the limit")
        for values %{everywhere('limit', $d)};
};
$t->expect_errors(qr/client intended to send too large chunked body/);

# S3 takes 1.5 s a part, the client is to send something each second: its time
# does not run while it is held back.
subtest 'held back' => sub {
    my $d = data(20 * MB + 1);
    my $gone = spawn({}, sub {
        h2_put($n->port('h2'), '/slow/gone', data(10 * MB + 1000),
            then => 'end-close');
    });
    my $cut = $t->raw($n->port);
    $cut->send(put_head('/slow/cut', "Content-Length: $d->{size}")
        . substr read_file($d->{path}), 0, 10 * MB + 1000);
    $cut->delivered;
    $cut->reset;
    my $c = everywhere('slow', $d);
    for my $name (sort keys %$c) {
        my ($key, $r) = @{$c->{$name}};
        is($r->{status}, 201, $name) or diag explain $r;
        cmp_ok($r->{seconds}, '>', 3, "$name: held back");
        my %sum = map { $_->{query}{partNumber} => $_->{sha256} }
            grep { $_->{path} eq "/bucket/$key" } $slow->requests('part');
        is_deeply(\%sum, parts($d), "$name: the parts");
    }
    is(state_of('/slow/gone'), '201 completed',
        'a client that left with END_STREAM while it was held back');
    is(state_of('/slow/cut'), '499 aborted', 'one that left before');
};

# The same where nginx was waiting for the client at that moment: the few bytes
# do not fill its buffer.
subtest 'held back while it is silent' => sub {
    my $d = data(10 * MB + 2000);
    my $bytes = read_file($d->{path});
    my $raw = $t->raw($n->port);
    $raw->send(put_head('/slow/silent', "Content-Length: $d->{size}")
        . substr $bytes, 0, 10 * MB);
    $raw->delivered;
    my $sent = sub { grep { $_->{path} =~ /silent/ } $slow->requests('part') };
    sleep 0.2;
    $raw->send(substr $bytes, 10 * MB, 10);
    wait_for { $sent->() };
    $raw->send(substr $bytes, 10 * MB + 10);
    is(($raw->response || {})->{status}, 201, 'stored');
};

# number => sum
sub parts {
    my ($d) = @_;
    my $bytes = read_file($d->{path});
    my %sums;
    for (my $at = 0; $at < $d->{size}; $at += PART) {
        $sums{$at / PART + 1} = sha256_hex(substr $bytes, $at, PART);
    }
    return \%sums;
}

subtest 'a client that stalls' => sub {
    my $raw = $t->raw($n->port);
    $raw->send(put_head('/stall/1', 'Content-Length: 10') . 'abc');
    my $more = $t->raw($n->port);
    $more->send(put_head('/stall/2', 'Transfer-Encoding: chunked')
        . sprintf("%x\r\n", PART + 10) . 'x' x (PART + 5));
    ok($raw->closed(30), 'it is left');       # 60 s are the default
    ok($more->closed(30), 'also in a later part');
    is(state_of("/stall/$_"), '408 aborted', 'as the access log says')
        for 1, 2;
};

subtest 'parts at the same time' => sub {
    my $d = data(8 * PART);
    my $r = curl($n->url('/wide/a'), file => $d);
    is($r->{status}, 201, 'stored');
    my @parts = $wide->requests('part');
    my %sum = map { $_->{query}{partNumber} => $_->{sha256} } @parts;
    is_deeply(\%sum, parts($d), 'the parts');
    my @overlap = map { my $at = $_->{time};
        scalar grep { $_->{time} <= $at && $at < $_->{until} } @parts } @parts;
    is(max(@overlap), 3, 's3_part_concurrency')
        or diag map { "$_->{time} $_->{until}\n" } @parts;
};

subtest 'parts that fail' => sub {
    my $d = data(4 * PART);
    my $r = curl($n->url('/weak/a'), file => $d);
    is($r->{status}, 201, 'stored') or diag explain $r;
    my @parts = $weak->requests('part');
    my %sum = map { $_->{query}{partNumber} => $_->{sha256} }
        grep { $_->{whole} } @parts;
    is_deeply(\%sum, parts($d), 'the parts in the end');
    is(scalar @parts, 8, 'four parts, four tries more');

    # a kept connection that S3 closed before it answered is no try
    my @lines = $n->log =~ /\[warn\].*(s3 UploadPart failed.* try .* next)/g;
    is(scalar @lines, 3, 'three lines in the log');
    like($lines[0], qr/failed: 503 .* part:2 .* try 1 of 10/,
        'the first names cause and part');
    like($lines[1], qr/broke the connection .* part:2 .* try 2 of 10/,
        'the second');
    like($lines[2], qr/failed: 500 .* part:3 .* try 1 of 10/, 'the third');
};

subtest 'in other blocks' => sub {
    my $d = data(100 * KB);
    my @try = (['/methods/a'], ['/if/a', headers => ['X-Upload: 1']],
        ['/rewrite/a', key => 'rewritten/a'], ['/missing/a'], ['/deny/a']);
    for (@try) {
        my ($path, %o) = @$_;
        my $key = delete $o{key} || substr $path, 1;
        my $r = curl($n->url($path), file => $d, %o);
        is($r->{status}, 201, $path) or diag explain $r;
        is_stored($key, $d, $path);
    }
    is(curl($n->url('/methods/a'))->{headers}{'content-type'}, 'image/gif',
        'GET');
    is(curl($n->url('/if/a'), file => $d)->{status}, 404, 'no if');
};

subtest 'error pages' => sub {
    my $d = data(PART + 1);
    my $r = curl($n->url('/down/a'), file => $d);
    is("$r->{status} $r->{body}", "502 sorry\n", 'error_page');
    is(state_of('/down/a'), '502 failed', 'the variables know the transfer');

    for my $size (100 * KB, PART + 1) {
        my $c = everywhere("second/$size", data($size), 'early');
        is($c->{$_}[1]{status}, 500, "a body cannot be taken twice: $_, $size")
            for sort keys %$c;
    }
    is_deeply([grep { /^second/ } $s3->keys], [], 'no object');

    $r = curl($n->url('/second-read/a'), file => $d);
    is($r->{status}, 201, 'unless nginx has all of it') or diag explain $r;
    is_stored('second-read/a', $d, 'the second');
    is($r->{headers}{'x-transfer-id'}, $r->{json}{transferId}, 'one id');
};
$t->expect_errors(qr/the request body was taken by another handler/);

subtest 'fairness' => sub {
    my $d = data(512 * MB);
    my $small = data(1 * KB);
    my @id = map { "fairness-$_-0123456789" } 0 .. 1;
    my $fast = curl_start($n->url("/fair/fast?id=$id[0]"), file => $d);
    my $even = curl_start($n->url("/fair/even?id=$id[1]"), file => data(3 * MB),
        rate => '1m');
    my ($count, @seconds, @seen) = 0;
    while ($fast->running) {
        my $r = curl($n->url('/fair/small-' . ++$count), file => $small);
        last if $r->{status} != 201;
        push @seconds, $r->{seconds};
        my @now = map { curl($n->url("/status/$_"))->{json} } @id;
        for (0, 1) {
            push @{$seen[$_]}, $now[$_]{bytesTransferred}
                if ($now[$_]{state} || '') eq 'active';
        }
    }
    my $large = $fast->wait;
    is($large->{status}, 201, 'the large one');
    is($even->wait->{status}, 201, 'the slow one');
    is_stored('fair/fast', $d, 'the large one');
    is(scalar @seconds, $count, 'small ones beside it');
    cmp_ok($count, '>', 2, 'several');
    cmp_ok(max(@seconds), '<', $large->{seconds} * 0.8, 'none waits for its end')
        or diag "$large->{seconds}: @seconds";
    for (0, 1) {
        my %values = map { $_ => 1 } @{$seen[$_]};
        cmp_ok(scalar keys %values, '>', 1, 'progress of both')
            or diag explain $seen[$_];
    }
    $s3->delete('fair/fast');
};

# A body in a file is always there: only the turns make it wait for others.
subtest 'fairness of a body in a file' => sub {
    my $d = data(200 * MB);
    my $id = 'fairness-file-0123456789';
    my $c = curl_start($n->url("/fair-file/a?id=$id"), file => $d);
    my %seen;
    my $raw = $t->raw($n->port);
    while ($c->running) {
        $raw->send("GET /status/$id HTTP/1.1\r\nHost: a\r\n\r\n");
        my ($bytes) = $raw->response(60)->{body} =~ /"bytesTransferred":(\d+)/;
        $seen{$bytes || 0}++;
        sleep 0.005;
    }
    is($c->wait->{status}, 201, 'stored');
    is_stored('fair-file/a', $d, 'from a file');
    cmp_ok(scalar(grep { $_ && $_ != $d->{size} } keys %seen), '>', 0,
        'requests are answered in the middle of it') or diag explain \%seen;
    $s3->delete('fair-file/a');
};
