#!/usr/bin/perl

# Where nginx receives a body: in the blocks of the part that it is sent from
# (s3_zero_copy), in every framing; and that no byte is lost by that, whatever
# stands between two chunks, whatever fails.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use List::Util qw/ max /;
use Test::More;
use S3T;
use S3T::Curl qw/ h2_start h2_wait /;
use S3T::Null;

use constant { PART => 5 * MB, BLOCK => 256 * 1024 };

my $t = S3T->new;
my $s3 = $t->s3;

my $weak = $t->fake(on => { part => [ { read => 1 * MB, close => 'reset' },
    { read => 3 * MB + 5, status => 503 }, { close => 'before' } ] });

my $endpoint = 's3_bucket bucket; s3_credentials static k s;'
    . ' s3_payload_signature off; s3_endpoint ';
$t->token(WEAK => $endpoint . $weak->url);

my $conf = <<'EOC';
%%MAIN%%
http {
    %%HTTP%%
    s3_part_size 5m;
    s3_transfer_id $arg_id;
    client_body_timeout 600s;
    s3_queue_timeout 600s;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;

        location /in-place/ { %%S3%% s3_upload; }
        location /copy/ { %%S3%% s3_zero_copy off; s3_upload; }
        location /signed/ {
            %%S3%% s3_payload_signature on; s3_checksum crc32; s3_upload;
        }
        location /large/ {
            client_body_buffer_size 1m;
            %%S3%% s3_upload;
        }
        location /part/ { %%S3%% s3_part_size 16m; s3_upload; }

        location /weak/ { %%WEAK%%; s3_upload; }
        location /weak-copy/ { %%WEAK%%; s3_zero_copy off; s3_upload; }
    }
}
EOC
my $n = $t->nginx($conf);

sub received { return $_[0] =~ /http client request body recv (\d+)/g }

sub windows {
    return $_[0] =~ /http2 send WINDOW_UPDATE frame sid:[1-9]\d*, window:(\d+)/g;
}

sub chunk {
    my ($body, $extension) = @_;
    return sprintf("%x%s\r\n", length $body, $extension || '') . $body . "\r\n";
}

# a body in chunks of these sizes, all of it, each with an extension
sub chunked {
    my ($body, $sizes, @extensions) = @_;
    my ($wire, $pos, $i) = ('', 0, 0);
    while ($pos < length $body) {
        my $piece = substr $body, $pos, $sizes->[$i % @$sizes];
        $wire .= chunk($piece, @extensions ? $extensions[$i % @extensions] : '');
        $pos += length $piece;
        $i++;
    }
    return "${wire}0\r\n\r\n";
}

sub put_chunked {
    my ($path, $wire) = @_;
    my $c = $t->raw($n->port);
    $c->send("PUT $path HTTP/1.1\r\nHost: t\r\n"
        . "Transfer-Encoding: chunked\r\n\r\n$wire");
    my $r = $c->response;
    $c->close;
    return $r;
}

# of what was stored under the key that the path ends with
sub stored {
    my ($path, $sum, $name) = @_;
    is(($s3->sha256($path =~ s{^/}{}r))[0], $sum, $name || $path);
}


subtest 'a padded frame in pieces' => sub {
    my $debug = $t->nginx($conf, level => 'debug');
    for my $path (qw{ /in-place/padded /copy/padded }) {
        my $c = $t->raw($debug->port('h2'));
        my $logged = length $debug->log;
        my $read = qr/ http2 read unbuffered/;
        my $came = sub {
            my ($pattern) = @_;
            wait_for { substr($debug->log, $logged) =~ $pattern }
                or die "$path: not $pattern";
        };
        my $head = join '', map { pack 'x C/a C/a', @$_ } [':method', 'PUT'],
            [':path', $path], [':scheme', 'http'], [':authority', 't'];
        $c->send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . h2_frame(4, 0, '', 0)
            . h2_frame(1, 4, $head));
        $came->($read);
        my $data = h2_frame(0, 8, chr(100) . '0123456789' . "\0" x 100);
        $c->send(substr $data, 0, 15, '');
        $came->(qr/ recv 5\n.*$read/s);
        $c->send(substr $data, 0, 5, '');
        $came->(qr/ recv 5\n.* recv 5\n.*$read/s);
        $c->send($data . h2_frame(0, 1, ''));
        like($c->read_until(qr/"state":"\w+"|Internal Server/),
            qr/"state":"completed"/, $path);
        stored($path, sha256_hex('0123456789'));
    }
};

subtest 'where it is received' => sub {
    my $body = data(2 * MB);
    my $debug = $t->nginx($conf, level => 'debug');
    my $logged = 0;

    for my $case ([ '/in-place/', 1 ], [ '/copy/', 0 ]) {
        my ($path, $in) = @$case;
        for my $form ('', 'chunked', 'h2') {
            my $name = "$path$form";
            is(curl($debug->url("${path}a$form", $form eq 'h2' ? 'h2' : undef),
                file => $body, $form ? ($form => 1) : ())->{status}, 201,
                $name);
            stored("${path}a$form", $body->{sha256}, "$name: SHA-256");
            my $log = substr $debug->log, $logged;
            $logged += length $log;
            my ($most, $buffer) = $form eq 'h2'
                ? (max(windows($log)), 65536) : (max(received($log)), 16384);
            $in ? cmp_ok($most, '>', $buffer, "$name: in blocks")
                : cmp_ok($most, '<=', $buffer, "$name: in nginx's buffer");
        }
    }
    $debug->quit;
};

subtest 'sizes around blocks and parts' => sub {
    for my $size (1, BLOCK - 1, BLOCK, BLOCK + 1, PART, PART + 1) {
        my $d = data($size);
        for my $form ('length', 'chunked', 'h2', 'h2 large') {
            my ($path, @o) = ("/in-place/$size-$form" =~ tr/ /-/r,
                file => $d);
            my $door = $form =~ /^h2/ ? 'h2' : undef;
            push @o, $door ? (h2 => 1) : $form eq 'chunked' ? (chunked => 1) : ();
            $path =~ s/in-place/large/ if $form =~ /large/;
            my $r = curl($n->url($path, $door), @o);
            is($r->{status} . ' ' . ($r->{json}{bytesStored} // ''),
                "201 $size", "$form: $size");
            stored($path, $d->{sha256});
        }
    }
    my $d = data(PART + 70_000);
    is(h2_put($n->port('h2'), '/in-place/unknown', $d)->{status}, 201,
        'HTTP/2 without a length');
    stored('/in-place/unknown', $d->{sha256});

    # frames that need more of the window than the body has bytes, and than a
    # block has room at its end
    for my $path (qw{ /in-place/padded /copy/padded }) {
        is(h2_put($n->port('h2'), $path, $d, pad => 255, timeout => 120,
            length => $d->{size})->{status}, 201, "HTTP/2, padded: $path");
        stored($path, $d->{sha256});
    }
};

subtest 'what stands between chunks' => sub {
    my $d = data(PART + 700_003);
    my $body = read_file($d->{path});
    my $long = ';' . 'x' x (300 * 1024);
    my @cases = (
        [ 'one byte and much', [ 1, 1, 1, 70_000, 128, 129, 7, 262_144 ] ],
        [ 'around a piece', [ 16_383, 16_384, 16_385 ] ],
        [ 'a block each', [ BLOCK ] ],
        [ 'all in one', [ length $body ] ],
        [ 'extensions', [ 20_000, 66_000 ], ';a=b', '', ';' . 'y' x 1023,
            ';' . 'y' x 1500 ],
        # more than any buffer has: nothing but framing is received
        [ 'extensions that fill blocks', [ 300_000, 40_000, 1_000_000 ], $long,
            '', ";$long$long" ],
    );
    my $i = 0;
    for my $case (@cases) {
        my ($name, $sizes, @extensions) = @$case;
        my $wire = chunked($body, $sizes, @extensions);
        for my $path (map { "/$_/chunks-$i" } 'in-place', 'part',
            @extensions ? qw/ copy signed / : ())
        {
            is(put_chunked($path, $wire)->{status}, 201, "$name: $path");
            stored($path, $d->{sha256});
        }
        $i++;
    }
};

subtest 'a request behind the last chunk' => sub {
    my $d = data(3 * BLOCK + 100);
    my $body = read_file($d->{path});
    my $c = $t->raw($n->port);
    $c->send("PUT /in-place/first HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: "
        . "chunked\r\n\r\n" . chunked($body, [ 100_000 ])
        . "PUT /in-place/second HTTP/1.1\r\nHost: t\r\nContent-Length: "
        . length($body) . "\r\n\r\n$body");
    is($c->response->{status}, 201, $_) for qw/ first second /;
    $c->close;
    stored("/in-place/$_", $d->{sha256}) for qw/ first second /;
};

subtest 'a part is sent again' => sub {
    my $d = data(2 * PART + 1000);
    my $body = read_file($d->{path});
    my @whole = map { sha256_hex(substr $body, $_ * PART, PART) } 0 .. 2;

    for my $case ([ 'length' ], [ 'chunked', chunked => 1 ],
        [ 'h2', h2 => 1 ])
    {
        my ($form, @o) = @$case;
        for my $path (qw{ /weak/ /weak-copy/ }) {
            $weak->stop;
            $weak->forget;
            $weak->start;
            my $r = curl($n->url("$path$form", $form eq 'h2' ? 'h2' : undef),
                file => $d, @o);
            is($r->{status}, 201, "$path$form") or diag explain $r;
            my @tries = $weak->requests('part');
            cmp_ok(scalar @tries, '>=', 6, 'three tries were lost');
            my %sum = map { $_->{query}{partNumber} => $_->{sha256} }
                grep { $_->{whole} } @tries;
            my @sums = @sum{1 .. 3};
            my @parts = @whole;
            if ($form eq 'chunked') {
                # these may be some bytes shorter
                my %whole = map { $_->{query}{partNumber} => $_ }
                    grep { $_->{whole} } @tries;
                my $pos = 0;
                @parts = map {
                    my $size = $whole{$_}{length};
                    $pos += $size;
                    sha256_hex(substr $body, $pos - $size, $size);
                } 1 .. 3;
                is($pos, length $body, 'all bytes');
            }
            is_deeply(\@sums, \@parts, 'SHA-256 of what S3 got in the end');
        }
    }
};

# memory for two parts and what is kept back, so that a third upload needs what
# others have
my $narrow = <<'EOC';
%%MAIN%%
http {
    %%HTTP%%
    s3_memory 17m;
    s3_part_size 6m;
    s3_part_concurrency 1;
    s3_window 12m;
    s3_transfer_id $arg_id;
    client_body_timeout 600s;
    s3_queue_timeout 600s;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        location /lent/ { %%S3%% s3_upload; }
        location /silent/ { %%NULL%%; s3_upload; }
        location /transfers/ { s3_status; }
    }
}
EOC
my $null = S3T::Null->new($t->dir);
$t->token(NULL => $endpoint . $null->url);

# so many bytes of the transfer
sub came {
    my ($n, $id, $bytes) = @_;
    return wait_for {
        (curl($n->url("/transfers/$id"))->{json}{bytesTransferred} || 0)
            == $bytes
    };
}

# all transfers together
sub uses {
    my ($n, $blocks, $name) = @_;
    my $used;
    ok((wait_for {
        $used = curl($n->url('/transfers/'))->{json}{totals}{memoryUsed};
        $used == $blocks * BLOCK;
    }), "$name: $blocks blocks") or diag $used / BLOCK;
}

subtest 'a block that is lent is nobody else\'s' => sub {
    my $m = $t->nginx($narrow);
    my $go = $t->dir . '/go';
    my ($first, $last) = (data(PART + 200_000), data(300_000));
    my ($id, $last_id, @ids) = map { "place-lent-00000$_" } 1 .. 4;

    # what it has makes a part, and its window ends in that part's last block
    my $h2 = h2_start($m->port('h2'), "/lent/first?id=$id", $first,
        length => PART + 200_000, hold => PART + 100_000, until => $go);
    ok(came($m, $id, PART + 100_000), 'the first is silent');

    # two more, for which that part has to be sent
    my @c = map { $t->raw($m->port) } @ids;
    for (0, 1) {
        $c[$_]->send("PUT /lent/$_?id=$ids[$_] HTTP/1.1\r\nHost: t\r\n"
            . "Content-Length: 100000000\r\n\r\nx");
        ok(came($m, $ids[$_], 1), 'others come');
    }
    ok((wait_for { curl($m->url("/transfers/$id"))->{json}{partsStored} }),
        'what the first had is stored');

    # the block that came back last
    my $body = read_file($last->{path});
    my $c = $t->raw($m->port);
    $c->send("PUT /lent/last?id=$last_id HTTP/1.1\r\nHost: t\r\n"
        . "Content-Length: 300000\r\n\r\n" . substr $body, 0, 250_000);
    ok(came($m, $last_id, 250_000), 'one that takes memory');

    write_file($go, '');
    is(h2_wait($h2)->{status}, 201, 'the first goes on');
    $c->send(substr $body, 250_000);
    is($c->response->{status}, 201, 'and so does the last');
    stored('/lent/first', $first->{sha256});
    stored('/lent/last', $last->{sha256});
    $_->close for @c;
};

# Of each one a part is sent early, and S3 has it: what they have then they have
# to give back, so it must not grow with them.
subtest 'those that are silent give their blocks back' => sub {
    my $m = $t->nginx($narrow);
    my ($body, @c) = 'x' x (21 * BLOCK - 100);
    my $silent = sub {
        my $id = sprintf 'place-silent-%05d', scalar @c;
        push @c, $t->raw($m->port);
        $c[-1]->send("PUT /silent/$#c?id=$id HTTP/1.1\r\nHost: t\r\n"
            . "Content-Length: 100000000\r\n\r\n$body");
        return came($m, $id, length $body);
    };
    my $anon = sub {
        my ($pid) = $m->workers;
        return (read_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m)[0];
    };
    is(scalar(grep { $silent->() } 1 .. 10), 10, 'ten are silent');
    uses($m, 2 * 24, 'two have a part, the others nothing');
    my $before = $anon->();
    is(scalar(grep { $silent->() } 1 .. 40), 40, 'forty more');
    SKIP: {
        skip 'the sanitizer takes memory for itself', 1 if $ENV{T_ASAN};
        cmp_ok($anon->() - $before, '<', 5 * 1024, 'in the same memory, KiB');
    }
    $_->close for @c;
    $m->quit;
};

# Over HTTP/2 they keep it, since the client may send at any time what its window
# allows: a block each, of a quarter of s3_memory but for what is kept back.
subtest 'what HTTP/2 clients keep is counted' => sub {
    my $m = $t->nginx($narrow);
    my $go = $t->dir . '/go-on';
    my $d = data(PART + 200_000);
    my $silent = sub {
        my ($id, $count, $file) = @_;
        my $h2 = h2_start($m->port('h2'), "/silent/$id?id=place-$id-0", $d,
            length => $d->{size}, hold => PART + 100_000, until => $file,
            also => $count - 1);
        my $last = "place-$id-0" . ($count > 1 ? '-' . ($count - 1) : '');
        ok(came($m, $last, PART + 100_000), "$count are silent");
        return $h2;
    };
    my $put = sub {
        my ($id, $bytes) = @_;
        my $c = $t->raw($m->port);
        $c->send("PUT /silent/$id?id=place-$id HTTP/1.1\r\nHost: t\r\n"
            . "Content-Length: 100000000\r\n\r\n" . 'x' x $bytes);
        return $c;
    };

    # two for which all of it has to be sent, and which leave then
    my $squeeze = sub {
        my @c = map { $put->("$_[0]-$_", 1) } 0, 1;
        ok(came($m, "place-$_[0]-$_", 1), 'others come') for 0, 1;
        $_->close for @c;
    };

    my @h2 = ($silent->('counted-1', 4, "$go-never"),
        $silent->('counted-2', 10, $go));
    $squeeze->('squeezed-1');
    uses($m, 12, 'twelve keep one, of two it is nginx that has the window');

    # what one has that cannot be sent yet, and nothing for the other
    my @c = $put->('counted-40', 19 * BLOCK - 100);
    ok(came($m, 'place-counted-40', 19 * BLOCK - 100), 'one that cannot be sent');
    push @c, $put->('counted-50', 1);
    uses($m, 12 + 19, 'another one waits');
    end_child($h2[0]{pid});
    ok(came($m, 'place-counted-50', 1), 'until four of the twelve leave');

    write_file($go, '');
    my $r = h2_wait($h2[1]);
    is_deeply([ $r->{status}, @{$r->{others}} ], [ (201) x 10 ],
        'all others go on');
    $_->close for @c;
    uses($m, 0, 'all of it came back');

    my $again = $silent->('counted-6', 1, "$go-never");
    $squeeze->('squeezed-2');
    uses($m, 1, 'and can be kept again');
    end_child($again->{pid});
    uses($m, 0, 'until it leaves');
    $m->quit;
};

done_testing;
