#!/usr/bin/perl

# What nginx reads of a client in one go: several chunks, several TLS records.
# That nothing of what follows a body is lost by that, and nothing of the body
# where it stops in between.

use strict;
use warnings;

use lib 't/lib';
use List::Util qw/ max /;
use Test::More;
use S3T;
use S3T::Null qw/ body_gen /;

use constant HEADERS => 8 * KB;

my $t = S3T->new;
my $s3 = $t->s3;
my $null = S3T::Null->new($t->dir, '--verify');
my $slow = S3T::Null->new($t->dir, '--verify', '--rate', 8 * MB);

$t->token(
    map { ($_->[0] => "s3_endpoint ${\$_->[1]->url}; s3_bucket bucket;"
        . ' s3_credentials static k s; s3_payload_signature off;'
        . ' s3_part_size 5m; s3_upload;') } [ NULL => $null ],
        [ SLOW => $slow ]);

my $n = $t->nginx(<<'EOC', level => 'debug');
%%MAIN%%
http {
    %%HTTP%%
    large_client_header_buffers 4 8k;
    s3_part_size 5m;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_tls%% ssl;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        ssl_protocols TLSv1.2 TLSv1.3;

        location / { %%S3%% s3_upload; }
        location /echo { return 200 $arg_n; }
        location /null/ { %%NULL%% }
        location /slow/ { %%SLOW%% s3_window 10m; }
    }
}
EOC

my $seen = 0;

# the log since the last call
sub news {
    my $log = substr $n->log, $seen;
    $seen += length $log;
    return $log;
}

sub to {
    my ($port) = @_;
    return $t->raw($n->port($port || undef), $port ? (tls => $t->ca) : ());
}

sub chunks {
    my ($body, $size) = @_;
    return join('', map { sprintf("%x\r\n", length) . "$_\r\n" }
        unpack "(a$size)*", $body) . "0\r\n\r\n";
}

sub chunked {
    my ($key, $body, $size) = @_;
    return "PUT /$key HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        . chunks($body, $size);
}

sub sized {
    my ($key, $body) = @_;
    return "PUT /$key HTTP/1.1\r\nHost: t\r\nContent-Length: " . length($body)
        . "\r\n\r\n$body";
}

sub stored {
    my ($key, $body) = @_;
    ok(($s3->get($key) // '') eq $body, "$key: the bytes");
    $s3->delete($key);
}

my $d = data(2 * MB);
my $bytes = read_file($d->{path});


subtest 'several chunks, several records' => sub {
    for my $port ('', 'tls') {
        my $c = to($port);
        news();
        $c->send(chunked("small$port", $bytes, 1000));
        is($c->response->{status}, 201, "chunks $port");
        my $log = news();
        my @received = $log =~ /client request body recv (\d+)/g;
        cmp_ok(max(@received), '>', 2 * HEADERS, "$port: many chunks at a time");
        cmp_ok(max(@received), '<=', 64 * KB, "$port: but not any number");
        stored("small$port", $bytes);
    }
    my $c = to('tls');
    $c->send(sized('records', $bytes));
    is($c->response->{status}, 201, 'records');
    my $log = news();
    cmp_ok(max(0, $log =~ /s3 tls ahead: recv (\d+)/g), '>', 20_000,
        'several at a time');
    stored('records', $bytes);
};

subtest 'what follows the last chunk' => sub {
    my $small = substr $bytes, 0, 300 * KB;
    my %cases = (
        'many requests' => join('', map { "GET /echo?n=$_ HTTP/1.1\r\n"
            . "Host: t\r\n\r\n" } 1 .. 900),
        'a head that is cut' => join('', map { "GET /echo?n=$_ HTTP/1.1\r\n"
            . "Host: t\r\nX: " . 'x' x 7500 . "\r\n\r\n" } 1 .. 12),
        'a body' => sized('next', $small),
        'chunks' => chunked('next', $small, 5000),
        # what was given back is read too far once more
        'small bodies' => join('', map { chunked('next', substr($bytes, $_,
            20_000), 1000) } 1 .. 9) . chunked('next', $small, 1000),
        'two bodies' => sized('next', $small) . chunked('last', $bytes, 8192),
    );
    for my $port ('', 'tls') {
        my $most = 0;
        for my $name (sort keys %cases) {
            my $c = to($port);
            news();
            my $text = chunked('first', $bytes, 8192);

            # so that its end is read with what follows
            my $end = length($text) - 20_000;
            $c->send(substr $text, 0, $end);
            $c->send(substr($text, $end) . $cases{$name});
            is($c->response->{status}, 201, "$port $name: first");
            stored('first', $bytes);
            if ($name =~ /many|head/) {
                my ($count) = $cases{$name} =~ /.*echo\?n=(\d+)/s;
                my @missing = grep { ($c->response || { body => '' })->{body}
                    ne $_ } 1 .. $count;
                is("@missing", '', "$port $name: all");
            } else {
                is($c->response->{status}, 201, "$port $name: next")
                    for 1 .. ($name =~ /small/ ? 10 : 1);
                stored('next', $small);
            }
            if ($name =~ /two/) {
                is($c->response->{status}, 201, "$port $name: last");
                stored('last', $bytes);
            }
            # the connection is as good as it was
            $c->send("GET /echo?n=more HTTP/1.1\r\nHost: t\r\n\r\n");
            is($c->response->{body}, 'more', "$port $name: and one more");
            $most = max($most, news() =~ /s3 unread: (\d+)/g);
            $c->close;
        }
        cmp_ok($most, '>', HEADERS, "$port: more than nginx's own buffer holds");
    }
};

subtest 'limits of headers behind the last chunk' => sub {
    my $line = sub { "X: " . 'x' x $_[0] . "\r\n" };
    my %cases = (
        'a long line' => [ '/echo', $line->(20_000), 400 ],
        'a long URI' => [ '/echo?' . 'x' x 20_000, '', 414 ],
        'many lines' => [ '/echo', $line->(7000) x 8, 400 ],
        'as many as fit' => [ '/echo', $line->(7000) x 4, 200 ],
    );
    for my $name (sort keys %cases) {
        my ($uri, $lines, $status) = @{$cases{$name}};
        my $c = to('');
        my $text = chunked('limits', $bytes, 8192);
        my $end = length($text) - 5000;
        $c->send(substr $text, 0, $end);
        $c->delivered;
        ok((wait_for { $n->log =~ /.*body recv (-?\d+)/s && $1 < 0 }),
            "$name: nginx waits for the rest");
        news();
        $c->send(substr($text, $end)
            . "GET $uri HTTP/1.1\r\nHost: t\r\n$lines\r\n");
        is($c->response->{status}, 201, "$name: the body before");
        is($c->response->{status}, $status, $name);
        my $behind = max(0, news() =~ /s3 unread: (\d+)/g);
        cmp_ok($behind, '>', HEADERS, "$name: were read with it");
        ok($c->closed, "$name: closed") if $status != 200;
        $c->close;
    }
    $s3->delete('limits');
};

subtest 'records of any size' => sub {
    my $c = to('tls');
    for my $key (qw/ odd again /) {
        my $text = sized($key, $bytes);
        my ($pos, $i) = (0, 0);
        my @sizes = (1, 16_384, 5, 700, 16_383, 4096, 1, 1, 9000);
        while ($pos < length $text) {
            my $piece = substr $text, $pos, $sizes[$i++ % @sizes];
            $c->send($piece);
            $pos += length $piece;
        }
        is($c->response->{status}, 201, $key);
        stored($key, $bytes);
        $c->send("GET /echo?n=$key HTTP/1.1\r\nHost: t\r\n\r\n");
        is($c->response->{body}, $key, "$key: then another request");
    }
};

subtest 'new keys, and an S3 that is slow' => sub {
    my @clients = map { my ($path, @o) = @$_;
        [ "$path @o", body_gen($t->dir, $n->url("/$path", 'tls'), 23 * MB + 7,
            '--cacert', $t->ca, @o) ] }
        [ 'null/keys', '--rekey' ], [ 'null/chunks', qw/ --rekey --chunk 8192 / ],
        [ 'null/slowly', '--limit-rate', 20 * MB, '--chunk', 40_000 ],
        [ 'slow/body' ], [ 'slow/chunks', '--chunk', 30_000 ];
    for (@clients) {
        my ($name, $client) = @$_;
        my $r = $client->wait;
        is($r->{status}, 201, $name) or diag $r->{sent};
    }
    for my $of ($null, $slow) {
        ok((wait_for { !$of->stats->{open_uploads} }), 'none is open');
        is($of->stats->{bad}, 0, 'all bytes are those that were sent');
    }
    is($null->stats->{objects}, 3, 'three objects');
    is($slow->stats->{objects}, 2, 'and two');
};

subtest 'a client that leaves' => sub {
    for my $how (qw/ close reset /) {
        for my $chunk (0, 8192) {
            my $r = body_gen($t->dir, $n->url("/$how-$chunk", 'tls'), 9 * MB,
                "--$how-after", 7 * MB + 12_345, '--cacert', $t->ca,
                $chunk ? ('--chunk', $chunk) : ())->wait;
            ok((wait_for { $n->log =~ m{the client closed the connection.*
                /$how-$chunk|client\ prematurely\ closed.*/$how-$chunk
                |reset\ by\ peer.*/$how-$chunk}x }), "$how, $chunk: seen");
            is($s3->head("$how-$chunk"), undef, "$how, $chunk: no object");
        }
    }
    my $c = to('tls');
    news();
    my $log = '';
    $c->send("PUT /stays HTTP/1.1\r\nHost: t\r\nContent-Length: 9000000\r\n\r\n"
        . substr $bytes, 0, 600_000);
    ok((wait_for { ($log .= news()) =~ /s3 tls ahead: recv -1/ }), 'all is read');
    $c->close;
    ok((wait_for { !$s3->uploads }), 'and nothing is left open');
};

subtest 'a client that never pauses' => sub {
    my $requests = 40;
    for my $port ('', 'tls') {
        my $c = to($port);
        news();
        $c->send(join '', map { chunked('row',
            substr($bytes, 0, 150 * KB + $_), 4000) } 1 .. $requests);
        my @bad = grep { (($c->response || {})->{status} // 0) != 201 }
            1 .. $requests;
        is("@bad", '', "$port: all are stored");
        my @back = news() =~ /s3 unread: (\d+)\n.*malloc: (\w+):\1\n/g;
        my %at = @back ? map { $back[2 * $_ + 1], 1 } 0 .. $#back / 2 : ();
        cmp_ok(scalar @back, '>', 0, "$port: bytes are given back");
        cmp_ok(scalar keys %at, '<=', 8, "$port: from memory that is used again")
            if !$ENV{T_ASAN};
        $c->close;
    }
    $s3->delete('row');
};

done_testing();
