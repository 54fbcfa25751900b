#!/usr/bin/perl

# The harness itself, and the servers behind it, with an nginx that does not
# have the module: what the other files stand on.

use strict;
use warnings;

use lib 't/lib';
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;

my $t = S3T->new;
my $s3 = $t->s3;

my $n = $t->nginx(<<'EOF', module => 0, workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl http2;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        location /echo {
            add_header X-Length "$http_content_length" always;
            add_header X-Coding "$http_transfer_encoding" always;
            proxy_pass http://127.0.0.1:%%PORT%%/sink;
        }
        location /sink { return 200 "$server_protocol\n"; }
        location /json { return 201 '{"a": [1, "%%BUCKET%%"]}'; }
        location /bad  { proxy_pass http://127.0.0.1:1; }
    }
}
EOF

subtest 'test data' => sub {
    my $d = data(3 * MB + 1);
    is(-s $d->{path}, 3 * MB + 1, 'size');
    like(`sha256sum '$d->{path}'`, qr/^$d->{sha256} /, 'sum');
    isnt(data(3 * MB + 1, 2)->{sha256}, $d->{sha256}, 'another seed');
    is(-s data(0)->{path}, 0, 'empty');
};

subtest 'S3' => sub {
    my $d = data(5 * MB);
    my $key = "dir/a b+c%d&e\x{e9}~.bin";
    utf8::encode($key);
    $s3->put($key, read_file($d->{path}), 'x-amz-meta-x' => 'y');
    is_deeply([$s3->sha256($key)], [$d->{sha256}, 5 * MB], 'what it holds');
    is($s3->head($key)->{'x-amz-meta-x'}, 'y', 'head');
    is_deeply([$s3->keys], [$key], 'keys');
    $s3->delete($key);
    is($s3->head($key), undef, 'no object');
    is_deeply([$s3->sha256($key)], [], 'no sum of no object');

    my $r = $s3->request('POST', $s3->path('open'), query => { uploads => '' });
    is($r->{status}, 200, 'an upload is opened');
    my ($open) = $s3->uploads;
    is($open->[0], 'open', 'and seen');
    $s3->abort(@$open);
    is_deeply([$s3->uploads], [], 'and ended');

    my $tls = $t->s3(ca => $t->ca, endpoint =>
        'https://localhost:' . $t->server('RGW_SSL_PORT'));
    $tls->put('tls', 'x');
    is($tls->get('tls'), 'x', 'over TLS');
    my $wrong = $t->s3(secret => 'wrong')->request('GET', $s3->path);
    like($wrong->{content}, qr/SignatureDoesNotMatch/, 'it checks signatures');
};

subtest 'curl' => sub {
    my $d = data(100 * KB);
    my $r = curl($n->url('/echo'), file => $d);
    is($r->{status}, 200, 'PUT');
    is($r->{version}, '1.1', 'version');
    is($r->{headers}{'x-length'}, 100 * KB, 'length');
    is($r->{sent}, 100 * KB, 'sent');

    $r = curl($n->url('/echo'), file => data(0));
    is($r->{headers}{'x-length'}, 0, 'empty body');
    $r = curl($n->url('/echo/'), body => 'abc');
    is($r->{headers}{'x-length'}, 3, 'after a slash');
    $r = curl($n->url('/echo'), file => $d, chunked => 1);
    is($r->{headers}{'x-coding'}, 'chunked', 'chunked');
    is($r->{headers}{'x-length'}, undef, 'no length');
    $r = curl($n->url('/echo'), file => data(0), chunked => 1);
    is($r->{headers}{'x-coding'}, 'chunked', 'empty, chunked');

    $r = curl($n->url('/echo', 'h2'), file => $d, h2 => 1);
    is($r->{version}, 2, 'HTTP/2 by prior knowledge');
    is($r->{headers}{'x-length'}, 100 * KB, 'length');
    $r = curl($n->url('/echo', 'h2'), file => $d, h2 => 1, chunked => 1);
    is("$r->{version} $r->{sent}", '2 ' . 100 * KB, 'of unknown length');
    is($r->{headers}{'x-length'}, undef, 'no length');
    $r = curl($n->url('/echo', 'tls'), file => $d, h2 => 1, ca => $t->ca);
    is("$r->{status} $r->{version}", '200 2', 'HTTP/2 by ALPN');
    $r = curl($n->url('/echo', 'tls'), file => $d, ca => $t->ca);
    is("$r->{status} $r->{version}", '200 1.1', 'TLS');
    $r = curl($n->url('/echo', 'tls'));
    isnt($r->{exit}, 0, 'an authority is wanted');

    $r = curl($n->url('/echo'), file => $d, expect => 1,
        args => ['--expect100-timeout', 20]);
    is_deeply($r->{interim}, [100], '100 Continue') or diag explain $r;
    $r = curl($n->url('/json'));
    is($r->{json}{a}[1], $t->bucket, 'JSON, tokens');

    my $from = time;
    is(curl($n->url('/echo'), file => $d, rate => '100k')->{status}, 200,
        'slowly');
    cmp_ok(time - $from, '>', 0.5, 'at the rate');

    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1)
        or die "listen: $!";
    my $c = curl_start('http://127.0.0.1:' . $listener->sockport . '/');
    my $peer = $listener->accept;
    ok($c->running, 'in the background');
    syswrite $peer, "HTTP/1.1 204 No Content\r\n\r\n";
    is($c->wait->{status}, 204, 'its answer');
};

subtest 'HTTP/2 that stops' => sub {
    my $d = data(1 * MB);
    my @path = ($n->port('h2'), '/echo', $d);
    my $r = h2_put(@path, length => MB);
    is("$r->{status} $r->{headers}{'x-length'}", '200 ' . MB, 'whole');
    $r = h2_put(@path);
    is($r->{status}, 200, 'of unknown length');
    is($r->{headers}{'x-length'}, undef, 'no length');
    is(h2_put(@path, length => MB, send => 1000)->{status}, 400, 'too short');
    is(h2_put(@path, send => 1000, then => $_)->{status}, 0, $_)
        for qw/ close reset cancel /;
    is(h2_put($n->port('tls'), '/echo', $d, tls => $t->ca)->{status}, 200,
        'TLS');
};

subtest 'bare sockets' => sub {
    my $raw = $t->raw($n->port);
    $raw->send("GET /sink HTTP/1.1\r\nHost: a\r\n\r\n" x 2);
    is($raw->response->{body}, "HTTP/1.1\n", 'answer');
    is($raw->response->{status}, 200, 'the next');
    ok(!$raw->closed(0.2), 'open');
    $raw->send("nonsense\r\n\r\n");
    ok($raw->closed, 'closed by the peer');

    my $tls = $t->raw($n->port('tls'), tls => $t->ca);
    $tls->send("GET /sink HTTP/1.1\r\nHost: a\r\n\r\n");
    is($tls->response->{status}, 200, 'TLS');
    $tls->reset;
};

subtest 'nginx' => sub {
    my @workers = $n->workers;
    is(scalar @workers, 2, 'workers');
    ok($n->reload, 'reload');
    my %new = map { $_, 1 } $n->workers;
    is(scalar(grep { $new{$_} } @workers), 0, 'new ones');
    my ($status, $text) = $n->test_conf("%%MAIN%%\nhttp { nonsense; }");
    isnt($status, 0, 'nginx -t');
    like($text, qr/unknown directive "nonsense"/, 'and what it says');
    is(curl($n->url('/bad'))->{status}, 502, 'an error');
    like($n->log, qr/\[error\].*Connection refused/, 'is logged');
    ok((wait_for { $n->access_log =~ /"GET \/bad/ }), 'access log');
};
$t->expect_errors(qr/connect\(\) failed \(111: Connection refused\)/);

subtest 'a worker that exits' => sub {
    my ($old) = $n->workers;
    kill 'STOP', $n->pid;           # the master does not wait for it
    kill 'TERM', $old;
    ok((wait_for { !S3T::Nginx::_began($old) }), 'a worker is over');
    is_deeply([$n->leaving_workers], [$old], 'its process is there yet');
    kill 'CONT', $n->pid;
    ok((wait_for { !$n->leaving_workers }), 'until it is waited for');
    ok(!kill(0, $old), 'and gone');
    ok((wait_for { $n->workers == 2 }), 'another takes its place');
};

subtest 'an nginx that hangs' => sub {
    my $h = $t->nginx("%%MAIN%%\nhttp { %%HTTP%% }", module => 0,
        workers => 2);
    my ($deaf) = $h->workers;
    kill 'STOP', $deaf;
    ok(!$h->quit(0.5), 'is seen');
    ok($h->quit, 'once');
    like(join('', $h->hung), qr{^\Q$h->{dir}\E: killed after QUIT: .*\b$deaf\b},
        'remembered');
    delete $h->{hung};
    ok((wait_for { !S3T::Nginx::_began($deaf) }), 'its worker is ended, too');
};

subtest 'reports of the sanitizers' => sub {
    my $leak = sub {
        "Direct leak of 16 byte(s) in 1 object(s) allocated from:\n"
            . join '', map { "    #$_ 0x7f $_[$_]\n" } 0 .. $#_;
    };
    my $mac = 'in s3_hash_mac /a/lib/s3_hash.c:9';
    my $ours = $leak->('in malloc a.cpp:69', $mac);
    my $name = $leak->('in malloc a.cpp:69', 'in EVP_MAC_fetch (/a/b.so+0x21)',
        $mac);
    my $report = write_file($t->dir . '/report', "=====\n"
        . "==9==ERROR: LeakSanitizer: detected memory leaks\n\n$ours\n$name\n"
        . $leak->('in malloc a.cpp:69', 'in main src/core/nginx.c:292')
        . "\nSUMMARY: AddressSanitizer: 48 byte(s) leaked in 3.\n");
    is_deeply([$t->_sanitizer($report)], ["$report: $ours", "$report: $name"],
        'leaks, less those of nginx');
    local $t->{leaks} = [];
    $t->allow_leaks(qr/ in EVP_[A-Z]+_fetch /);
    is_deeply([$t->_sanitizer($report)], ["$report: $ours"],
        'less those of a library that the test names');
    write_file($report, "==9==ERROR: AddressSanitizer: SEGV on address\n");
    like(join('', $t->_sanitizer($report)), qr/: SEGV on/, 'a crash');
    unlink $report;
};

subtest 'what the end looks through' => sub {
    my ($missing) = $t->_unexpected($t->dir . '/no-such.log');
    like($missing, qr/no-such\.log: No such file/, 'a log must be there');
    my $raw = $t->raw($n->port);
    $raw->send("GET /json HTTP/1.1\r\nHost: a\r\n\r\n");
    $raw->response;
    is(scalar(grep { $$_ =~ /201 Created.*\[1, "/s } @S3T::Raw::ANSWERS), 1,
        'answers on bare sockets');
    my ($status, $said) = $n->test_conf("%%MAIN%%\nhttp { other; }");
    ok((grep { read_file($_) eq $said } glob "$n->{dir}/test-*.err"),
        'what nginx -t said');
};

subtest 'Redis' => sub {
    my $redis = $t->redis;
    my $key = $t->prefix . 'a';
    my $monitor = $redis->monitor($t->dir . '/monitor');
    $redis->cmd('HSET', $key, 'x', "1\r\n2", 'y', '');
    is_deeply($redis->hgetall($key), { x => "1\r\n2", y => '' }, 'a hash');
    $redis->cmd('DEL', $key);
    is($redis->hgetall($key), undef, 'none');
    is(scalar $monitor->lines($key), 4, 'MONITOR');
    $monitor->stop;

    my $own = $t->own_redis(password => 'a password');
    $own->cmd('SET', 'k', 1);
    ok(!eval { S3T::Redis->new(port => $own->{port})->cmd('PING') },
        'a password is wanted');
    $own->stop('KILL');
    ok(!eval { $own->cmd('PING') }, 'down');
    $own->start;
    is($own->cmd('GET', 'k'), undef, 'back, and empty');
};

subtest 'DynamoDB' => sub {
    for my $db ($t->dynamodb, $t->own_dynamodb) {
        my $id = $t->prefix . 'a';
        is($db->get_item($id), undef, 'no item');
        $db->put_item({ transferId => { S => $id }, size => { N => '12' } });
        is_deeply($db->get_item($id), { transferId => $id, size => 12 },
            'an item');
    }
};

subtest 'fake S3' => sub {
    my $fake = $t->fake(on => {
        part => [ { status => 503 }, {}, { close => 'reset' }, sub {
            { body => "part $_[0]{query}{partNumber}" } } ],
        complete => { delay => 0.3, pieces => [ 0, "HTTP/1.1 200 OK\r\n"
            . "Content-Length: 12\r\n\r\n", 0.1, ' ', 0.1, '<Error/>   ' ] },
        head => { cut => 20 },
        put => [ { read => 10, status => 403, close => 'after' },
            { raw => "garbage\r\n\r\n", close => 'after' } ],
        delete => { close => 'idle', idle => 600 },
    });
    my $url = $fake->url . '/bucket/key';
    my $d = data(300 * KB);
    my @r = map { curl("$url?partNumber=$_&uploadId=u", file => $d) } 1 .. 4;
    is_deeply([map { $_->{status} } @r], [503, 200, 0, 200], 'by schedule');
    is($r[3]{body}, 'part 4', 'by code');
    my @seen = $fake->requests('part');
    is(scalar @seen, 4, 'recorded');
    is_deeply([@{$seen[2]}{qw/ sha256 length whole /}],
        [$d->{sha256}, 300 * KB, 1], 'with its body');
    is($seen[0]{headers}{'content-length'}, 300 * KB, 'and its head');
    is($fake->begun('part'), 4, 'counted');

    my $r = curl("$url?uploadId=u", method => 'POST', body => '<x/>');
    is($r->{body}, ' <Error/>   ', 'in pieces');
    cmp_ok($r->{seconds}, '>', 0.4, 'late');
    is(($fake->requests('complete'))[0]{body}, '<x/>', 'small body');
    isnt(curl($url, args => ['-I'], method => 'HEAD')->{exit}, 0, 'cut');

    my $early = $t->raw($fake->{port});
    $early->send("PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
        . 'x' x 10);
    is($early->response->{status}, 403, 'an early answer');
    ok($early->closed, 'closed');
    is(($fake->requests('put'))[0]{whole}, 0, 'not whole');
    isnt(curl($url, file => $d)->{exit}, 0, 'garbage');
    is(curl($url, file => $d)->{status}, 200, 'the script is over');
    is(curl($url, method => 'DELETE')->{status}, 204, 'an answer');
    is(scalar(my @deleted = $fake->requests('delete')), 1,
        'is there no sooner than its record');

    my $tls = $t->fake(cert => $t->certs . '/server.pem',
        key => $t->certs . '/server.key');
    is(curl($tls->url . '/b/k', file => $d, ca => $t->ca)->{status}, 200,
        'TLS');
    my $other = $t->fake(cert => $t->certs . '/other.pem',
        key => $t->certs . '/other.key');
    isnt(curl($other->url . '/b/k', ca => $t->ca)->{exit}, 0,
        'the certificate of another host');
};

subtest 'DNS' => sub {
    my $dns = $t->dns('a.test' => ['127.0.0.1', '127.0.0.3'],
        '*.s3.test' => ['127.0.0.1'], 'quiet.test' => 'SILENCE');
    my $conf = <<'EOF';
%%MAIN%%
http {
    %%HTTP%%
    resolver %%DNS%% ipv6=off;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { proxy_pass http://$arg_host:%%SINK%%/sink; }
        location /quiet {
            resolver_timeout 1s;
            proxy_pass http://$arg_host:%%SINK%%/sink;
        }
    }
}
EOF
    $t->token(DNS => $dns->address, SINK => $n->port);
    my $r = $t->nginx($conf, module => 0);
    my @status = map { curl($r->url("/$_"))->{status} }
        qw/ ?host=b.s3.test ?host=no.test quiet?host=quiet.test /;
    is_deeply(\@status, [200, 502, 502], 'answer, no such name, silence');
    $dns->set('no.test' => ['127.0.0.1']);
    $t->allow_errors(qr/(no|quiet)\.test could not be resolved/);
    ok((wait_for { grep { $_->{name} eq 'quiet.test' } $dns->questions }),
        'questions');
};
