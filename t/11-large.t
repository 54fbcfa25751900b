#!/usr/bin/perl

# Large objects, and many at a time, in bounded memory: 1 GiB in each transport,
# the line of those who wait for memory, 50 uploads at once.

use strict;
use warnings;

use lib 't/lib';
use List::Util qw/ max /;
use Digest::SHA qw/ sha256_hex /;
use Test::More;
use Time::HiRes qw/ sleep /;
use S3T;

use constant MEMORY => 128 * MB;

my $t = S3T->new;
my $s3 = $t->s3;

my $server = <<'EOF';
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl http2;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        %%S3%%
        client_body_timeout 600s;
        s3_queue_timeout 600s;
        location / { s3_upload; }
        location /status/ { s3_status; }
        location /hasty/ { client_body_timeout 1s; s3_upload; }
    }
EOF

my %transports = (
    'Content-Length' => {},
    'chunked' => { chunked => 1 },
    'HTTP/2' => { h2 => 1, port => 'h2' },
    'TLS' => { port => 'tls' },
    'TLS, HTTP/2, chunked' => { port => 'tls', h2 => 1, chunked => 1 },
);

sub start {
    my ($n, $path, $name, %o) = @_;
    my %transport = %{$transports{$name}};
    my $port = delete $transport{port};
    return curl_start($n->url($path, $port), %transport, ca => $t->ca, %o);
}

sub memory_used {
    my ($n) = @_;
    return curl($n->url('/status/'))->{json}{totals}{memoryUsed};
}

# (who has its answer may be a moment ahead of the worker)
sub no_memory {
    my ($n) = @_;
    ok(wait_for(sub { !memory_used($n) }), 'no memory is left in use');
}

sub is_stored {
    my ($key, $d, $name) = @_;
    is_deeply([$s3->sha256($key)], [$d->{sha256}, $d->{size}],
        "$name: what S3 holds");
    $s3->delete($key);
}

subtest '1 GiB' => sub {
    my $n = $t->nginx("%%MAIN%%\nhttp { %%HTTP%% s3_memory 128m; $server }");
    # nor are there temporary files
    chmod 0, glob "$n->{dir}/temp/*";
    my $d = data($ENV{T_ASAN} ? 256 * MB : GB);
    for my $name (sort keys %transports) {
        my $key = '1g-' . $name =~ s/\W+/-/gr;
        my $r = start($n, "/$key", $name, file => $d)->wait;
        is("$r->{status} $r->{version}", '201 '
            . ($transports{$name}{h2} ? '2' : '1.1'), $name)
            or diag explain $r;
        is($r->{json}{bytesStored}, $d->{size}, "$name: all of it");
        is_stored($key, $d, $name);
    }
    no_memory($n);
    SKIP: {
        skip 'the sanitizer takes memory for itself', 1 if $ENV{T_ASAN};
        my ($cpu, $peak) = $n->usage($n->workers);
        cmp_ok($peak, '<', MEMORY + 48 * MB, 'the worker stays small')
            or diag "$peak bytes";
    }
};

# Memory for six parts of 5 MiB.
my $small = "%%MAIN%%\nhttp { %%HTTP%% s3_memory 30m; s3_part_size 5m;"
    . " $server }";

sub head {
    my ($path, $length, @lines) = @_;
    return join("\r\n", "PUT $path HTTP/1.1", 'Host: a',
        "Content-Length: $length", @lines) . "\r\n\r\n";
}

subtest 'waiting for memory' => sub {
    my $n = $t->nginx($small);
    my $d = data(12 * MB);
    my $bytes = read_file($d->{path});

    # a block short of what makes a part each, and the rest but for the margin
    my @size = (($d->{size}) x 5, 1_300_000);
    my @sent = ((4_900_000) x 5, 1_290_000);
    my @stalled = map { $t->raw($n->port) } 0 .. 5;
    $stalled[$_]->send(head("/stalled-$_", $size[$_])
        . substr $bytes, 0, $sent[$_]) for 0 .. 5;
    ok(wait_for(sub { memory_used($n) == 25 * MB }), 'all is taken');

    my $polite = $t->raw($n->port);
    $polite->send(head('/hasty/polite', 3, 'Expect: 100-continue'));
    my $gone = $t->raw($n->port);
    $gone->send(head('/hasty/gone', 3) . 'ab');
    my @waiting = map { start($n, '/hasty/' . s/\W+/-/gr, $_, file => $d) }
        sort keys %transports;
    is(curl($n->url('/empty'), method => 'PUT')->{status}, 201,
        'who needs none does not wait');
    is($polite->read_until(qr/\r\n\r\n/, 1.5), '', 'others are not answered');
    $gone->close;
    ok(wait_for(sub { $n->log =~ m{transfer is aborted.*hasty/gone} }),
        'one that leaves the line');
    is(scalar(grep { $_->running } @waiting), scalar keys %transports,
        'others are still in it');

    $_->reset for @stalled[0, 1];
    like($polite->read_until(qr/\r\n\r\n/), qr{^HTTP/1.1 100 }, 'its turn');
    $polite->{read} = '';
    $polite->send('abc');
    is($polite->response->{status}, 201, 'stored');
    for my $name (sort keys %transports) {
        my $r = (shift @waiting)->wait;
        is($r->{status}, 201, $name) or diag explain $r;
        is_stored('hasty/' . $name =~ s/\W+/-/gr, $d, $name);
    }

    for (2 .. 5) {
        my $body = substr $bytes, 0, $size[$_];
        $stalled[$_]->send(substr $body, $sent[$_]);
        is($stalled[$_]->response->{status}, 201, 'one that stalled');
        is_stored("stalled-$_", { size => $size[$_],
            sha256 => sha256_hex($body) }, 'it');
    }
    is(start($n, '/none', 'chunked', file => data(0))->wait->{status}, 201,
        'memory that nobody needed');
    no_memory($n);
};

subtest 'many at a time' => sub {
    my $n = $t->nginx($small, workers => 2);
    my @names = sort keys %transports;
    my @data = map {
        data(int((1 + 11 * ($_ * 37 % 50) / 49) * MB) + $_, 100 + $_)
    } 0 .. 49;
    my @uploads = map { start($n, "/many-$_", $names[$_ % @names],
        file => $data[$_], rate => '6m') } 0 .. 49;

    my ($used, $active) = (0, 0);
    while (grep { $_->running } @uploads) {
        my $totals = curl($n->url('/status/'))->{json}{totals};
        $used = max($used, $totals->{memoryUsed});
        $active = max($active, $totals->{active});
    }
    for (0 .. 49) {
        my $r = $uploads[$_]->wait;
        is($r->{status}, 201, "upload $_") or diag explain $r;
        is_stored("many-$_", $data[$_], $names[$_ % @names]);
    }
    cmp_ok($used, '<=', 2 * 30 * MB, 'within s3_memory of two workers');
    cmp_ok($active, '>', 2 * 6, 'so that some had to wait')
        or diag "$used bytes, $active uploads";
    no_memory($n);
};
