#!/usr/bin/perl

# s3_tee when something fails: the origin in the middle, S3, the client, a worker.
# The client never notices; an object is whole or is not there, and the record
# says why.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use List::Util qw/ sum0 /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Tee;
use S3T::Util qw/ wait_exit /;

my $t = S3T->new;
my $s3 = $t->s3;
my $node = $t->origin('node');
my $php = $t->origin('php');
my $files = $t->files;

my $d = data(11_000_000);          # parts of 5 MiB: the third is begun
my $path = $t->served($d);
my $small = data(100_000);
my $small_path = $t->served($small);
my $large = data(25 * MB);         # more than a window
my $large_path = $t->served($large);

my $fails_now = $t->dir . '/fails-now';
my %fake = (
    refuses => { create => { status => 500 },
        put => { hold => $fails_now, status => 500 } },
    forgets => { part => { status => 500 } },
    slow => { part => { rate => 6_000_000 } },
    # slower than any client
    slower => { part => { rate => 500_000 } },
    still => { part => { delay => 300 } },
    pauses => { part => [ {}, { delay => 0.4 }, {}, { delay => 0.4 } ] },
    denies => { create => { status => 403 } },
);
$fake{$_} = $t->fake(on => $fake{$_}) for keys %fake;
# never a head
my $dies = $t->fake(on => { get => { close => 'before' } });
my $breaks = $t->fake(on => { get => { raw => "HTTP/1.1 200 OK\r\n"
    . "Content-Length: 100000\r\n\r\n" . 'x' x 1000, close => 'after' } });
my $fails = $t->fake(on => { get => { status => 503 } });

my $keep = 'proxy_http_version 1.1; proxy_set_header Connection "";';
my $pass = "$keep proxy_pass " . $node->url . '/;';
my $unbuffered = 'proxy_buffering off;';
my $unfiled = 'proxy_max_temp_file_size 0; proxy_buffers 8 8k;';
my $ignoring = 'proxy_ignore_client_abort on;';
my %to = map { $_ => 's3_endpoint ' . $fake{$_}->url . '; s3_bucket bucket;'
    . ' s3_window 10m; s3_part_concurrency 1;' } keys %fake;
$to{down} = 's3_endpoint http://127.0.0.1:' . free_port()
    . '; s3_bucket bucket;';

my %location = (
    node => $pass,
    unbuffered => "$unbuffered $pass",
    php => $php->pass,
    'php-unbuffered' => 'fastcgi_buffering off; ' . $php->pass,
    patient => "proxy_read_timeout 1s; $pass",
    static => "alias $files/;",
    'unfiled-wait' => "$unfiled $pass s3_tee_on_overrun wait;",
    hasty => "send_timeout 1s; $unbuffered $pass",
    (map { $_ => "$keep proxy_pass http://$_/;" } qw/ next breaks /),
    next_status => "$keep proxy_next_upstream http_503;"
        . ' proxy_pass http://fails/;',

    # S3
    (map { $_ => "s3_tries 2; s3_retry_timeout 1s; $to{$_} $pass" } keys %to),
    'still-static' => "$to{still} alias $files/;",
    (map { $to{$_} .= ' send_timeout ' . ($_ eq 'still' ? '1s;' : '60s;');
        ("$_-wait" => "$to{$_} $unbuffered $pass s3_tee_on_overrun wait;",
        "$_-wait-unfiled" =>
            "$to{$_} $unfiled $pass s3_tee_on_overrun wait;",
        "$_-wait-static" => "$to{$_} alias $files/; s3_tee_on_overrun wait;",
        "$_-wait-php" => "$to{$_} fastcgi_buffering off; ${\$php->pass}"
            . ' s3_tee_on_overrun wait;',
        ) } qw/ slow still pauses /),

    # clients. (The rest of what is in nginx's temporary file goes with them.)
    continue => "$ignoring $unfiled $pass s3_tee_client_abort continue;",
    'continue-default' => "$ignoring $unbuffered $pass",
    'continue-php' => 'fastcgi_ignore_client_abort on;'
        . ' fastcgi_max_temp_file_size 0; ' . $php->pass,
    'continue-slow-wait' => "$ignoring $to{slow} $unbuffered $pass"
        . ' s3_tee_on_overrun wait;',
    'not-ignored' => "$pass s3_tee_client_abort continue;",
    'not-ignored-unbuffered' => "$unbuffered $pass",
    'abort' => "$ignoring $pass s3_tee_client_abort abort;",
    # (nginx notices with its time-out, where HTTP/2 tells of it)
    'abort-unbuffered' => "$ignoring $unbuffered $pass send_timeout 1s;"
        . ' s3_tee_client_abort abort;',
    cached => "proxy_cache cache; proxy_cache_valid 1m; proxy_cache_key "
        . "\$uri\$arg_id; $pass",
);

my $locations = join "\n", map {
    my $of = $_;
    "location /tee/$of/ { $location{$of} s3_tee \$arg_id; }\n"
    . "location /bare/$of/ { " . $location{$of} =~ s/s3_tee_\w+ \w+;//gr . ' }'
} sort keys %location;

$t->token(LOCATIONS => $locations, LOG => $LOG,
    DIES => $dies->url =~ s{.*/}{}r, BREAKS => $breaks->url =~ s{.*/}{}r,
    FAILS => $fails->url =~ s{.*/}{}r, NODE => $node->url =~ s{.*/}{}r);

my $conf = <<'EOC';
%%MAIN%%
http {
    %%HTTP%%
    %%LOG%%
    upstream next {
        server %%DIES%% max_fails=0;
        server %%NODE%% backup;
    }
    upstream fails {
        server %%FAILS%% max_fails=0;
        server %%NODE%% backup;
    }
    upstream breaks {
        server %%BREAKS%% max_fails=0;
        server %%NODE%% backup;
    }
    proxy_cache_path %%DIR%%/cache keys_zone=cache:1m;
    %%S3%%
    s3_payload_signature off;
    s3_memory 400m;
    s3_part_size 5m;
    s3_window 25m;
    s3_transfer_id $arg_id;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_small%% sndbuf=32k;
        add_header X-Pid $pid always;
        %%LOCATIONS%%
        location /status/ { access_log off; s3_status list; }
        location /cancel/ { access_log off; s3_status cancel; }
    }
}
EOC
my $n = $t->nginx($conf);

$t->allow_errors(qr/while (reading|sending|connecting)|upstream|s3 \w+ failed/,
    qr/connect\(\) failed|recv\(\) failed|readv\(\) failed/);

my $number = 0;

# A request with s3_tee, and the same without: { id, tee, bare: answers, line }
sub both {
    my ($where, $uri, $query, %o) = @_;
    my $id = id('fault ' . ++$number);
    my ($port) = delete @o{qw/ port /};
    my @started = map {
        curl_start($n->url("/$_/$where$uri?id=$id"
            . ($_ eq 'bare' ? '-bare' : '') . "&$query", $port),
            digest => 1, $port ? (h2 => 1) : (), %o)
    } qw/ tee bare /;
    my ($tee, $bare) = map { $_->wait } @started;
    return { id => $id, line => logged($n, $id), tee => $tee, bare => $bare };
}

sub is_same {
    my ($r, $name) = @_;
    # (frames that wait for their turn are lost with the stream, what nginx holds
    # back of chunks when it gives up depends on how they came, and who is killed
    # may reset his connection)
    my $loose = $r->{tee}{exit} && ($r->{tee}{version} eq '2'
        || $name =~ /silent, chunked|FastCGI process|that dies and told/);
    my @what = (qw/ status exit /, $loose ? () : qw/ size sha256 /);
    my ($tee, $bare) = map { join ' ', @{$_}{@what} } @$r{qw/ tee bare /};
    is($tee, $bare, "$name: the client has what it has without");
    cmp_ok(abs($r->{tee}{size} - $r->{bare}{size}), '<=', 64 * KB,
        "$name: nearly as much") if $name =~ /silent/;
    is_deeply(head_of($r->{tee}),
        head_of($r->{bare}), "$name: its head, too");
}

sub is_whole {
    my ($answer, $d, $name) = @_;
    is("$answer->{status} $answer->{exit} $answer->{size} $answer->{sha256}",
        "200 0 $d->{size} $d->{sha256}", "$name: the client has all");
}

# no object, no upload, and why
sub is_dropped {
    my ($id, $tee, $state, $error, $name) = @_;
    like(logged($n, $id)->{tee}, qr/^(?:$tee)$/, "$name: $tee");
    my $record = is_final($n, $id, $state, $name);
    like($record->{error}, $error, "$name: and says so");
    is($s3->head($id), undef, "$name: no object");
    ok((wait_for { !grep { $_->[0] eq $id } $s3->uploads }),
        "$name: nor an upload");
    return $record;
}

# What a scripted S3 holds of a key: its parts are the file's, in one piece.
sub is_assembled {
    my ($fake, $key, $d, $name) = @_;
    my (%part, @complete);
    wait_for {
        @complete = grep { $_->{path} =~ m{/\Q$key\E$} }
            $fake->requests('complete');
    };
    is(scalar @complete, 1, "$name: completed, once");
    for ($fake->requests('part')) {
        $part{$_->{query}{partNumber}} = $_
            if $_->{path} =~ m{/\Q$key\E$} && $_->{whole};
    }
    my $body = read_file($d->{path});
    my $at = 0;
    for (sort { $a <=> $b } keys %part) {
        my $length = $part{$_}{length};
        is($part{$_}{sha256}, sha256_hex(substr $body, $at, $length),
            "$name: part $_");
        $at += $length;
    }
    is($at, $d->{size}, "$name: all of it");
}

sub aborted {
    my ($fake, $key) = @_;
    return wait_for {
        grep { $_->{path} =~ m{/\Q$key\E$} } $fake->requests('abort');
    };
}


subtest 'an origin that dies' => sub {
    my $cut = 'cut=7000000&rate=20000000';
    my @cases = (
        ['Content-Length', 'node', "$cut&length"],
        ['chunked', 'node', $cut],
        ['unbuffered, Content-Length', 'unbuffered', "$cut&length"],
        ['unbuffered, chunked', 'unbuffered', $cut],
        ['HTTP/1.0', 'node', "$cut&length&http10"],
        ['FastCGI', 'php', "$cut&length"],
        ['FastCGI, unbuffered', 'php-unbuffered', "$cut&length"],
        ['a FastCGI process', 'php', "$cut&length&kill"],
        ['few bytes', 'node', 'cut=1000&length'],
        ['few bytes, chunked', 'node', 'cut=1000'],
        ['no bytes', 'node', 'cut=0&length'],
        ['one byte short', 'node', 'cut=10999999&length'],
        ['all but the last chunk', 'node', 'cut=11000000'],
        ['HTTP/2', 'node', "$cut&length", port => 'h2'],
        ['FastCGI, too short', 'php', 'length=11000001'],
        ['too short', 'node', 'length=11000001&cut=11000000'],
        ['silent', 'patient', 'stall=7000000&length'],
        ['silent, chunked', 'patient', 'stall=7000000'],
    );
    for my $case (@cases) {
        my ($name, $where, $query, %o) = @$case;
        my $r = both($where, $path, $query, %o);
        is_same($r, $name);
        cmp_ok($r->{tee}{size}, '<=', $d->{size}, "$name: not all");
        my $record = is_dropped($r->{id}, 'truncated', 'aborted', qr/./, $name);
        cmp_ok($record->{bytesTransferred}, '<=', $d->{size},
            "$name: bytes were counted");
    }

    # nginx takes as much as was announced
    for my $where (qw/ node unbuffered /) {
        my $r = both($where, $small_path, 'length=1000');
        is_same($r, "$where, too long");
        my $whole = substr read_file($small->{path}), 0, 1000;
        is_stored($n, $s3, $r->{id}, $r->{id}, { size => 1000,
            sha256 => sha256_hex($whole) }, "$where, too long");
    }

    # the stretch that was not yet read is lost
    my $r = both('node', $path, "$cut&length&reset");
    is($r->{tee}{exit}, $r->{bare}{exit}, 'a reset: the client sees it');
    is_dropped($r->{id}, 'truncated', 'aborted', qr/./, 'a reset');

    # nginx takes this for the end
    for my $where (qw/ php php-unbuffered /) {
        my $name = "$where that dies and told no length";
        $r = both($where, $path, "$cut&kill");
        is_same($r, $name);
        like($r->{line}{tee}, qr/^(?:truncated|close_delimited)$/,
            "$name: not captured");
        wait_for { (record($n, $r->{id})->{state} || '') ne 'active' };
        is($s3->head($r->{id}), undef, "$name: no object");
    }
};

subtest 'another upstream' => sub {
    for my $where (qw/ next next_status /) {
        my $id = id($where);
        my $from = totals($n)->{started};
        my $r = curl($n->url("/tee/$where$path?id=$id&length"), digest => 1);
        is_whole($r, $d, $where);
        is_stored($n, $s3, $id, $id, $d, $where);
        is(totals($n)->{started}, $from + 1, "$where: one transfer");
        is(record($n, $id)->{totalBytes}, $d->{size}, 'the total');
    }
    cmp_ok($dies->begun('get'), '>', 0, 'the first was asked');
    cmp_ok($fails->begun('get'), '>', 0, 'and the other first');

    my $r = both('breaks', $path, 'length');
    is_same($r, 'one that dies after its head');
    is_dropped($r->{id}, 'truncated', 'aborted', qr/./,
        'one that dies after its head');
};

subtest 'S3 fails' => sub {
    my @names = qw/ down refuses denies forgets /;
    my %started = map { $_ => [map { curl_start($_, digest => 1) }
        $n->url("/tee/$_$large_path?id=" . id("s3 $_")
            . '&length&rate=20000000')] } @names;
    for my $name (@names) {
        my $r = $started{$name}[0]->wait;
        is_whole($r, $large, $name);
        cmp_ok($r->{seconds}, '<', 30, "$name: as fast as ever");
        my $id = id("s3 $name");
        my $record = is_dropped($id, $name eq 'forgets' ? 'failed|overrun'
            : 'failed', 'failed', qr/./, $name);
        is($record->{bytesStored}, 0, "$name: nothing is stored");
    }
    ok(aborted($fake{forgets}, id('s3 forgets')), 'the upload is aborted');

    # all of it is there before S3 has failed
    for my $name (qw/ down refuses /) {
        my $id = id("s3 small $name");
        my $r = curl($n->url("/tee/$name$small_path?id=$id&length"),
            digest => 1, timeout => 60);
        is_whole($r, $small, "small, $name: at once");
        write_file($fails_now, '') if $name eq 'refuses';
        my $record = is_final($n, $id, 'failed', "small, $name");
        like($record->{error}, qr/./, 'says why');
    }
};

subtest 'S3 does not keep up' => sub {
    my %dropped = (slower => 'length', still => 'length', 'still-static' => '');
    for my $where (sort keys %dropped) {
        for my $port ('', 'h2') {
            my $name = "$where $port";
            my $r = both($where, $large_path, $dropped{$where},
                $port ? (port => $port) : ());
            is_same($r, $name);
            is_whole($r->{tee}, $large, $name);
            cmp_ok($r->{tee}{seconds}, '<', $r->{bare}{seconds} + 10,
                "$name: as fast as ever");
            is_dropped($r->{id}, 'overrun', 'failed', qr/keep up|overrun/i,
                $name);
            my ($to) = $where =~ /^(\w+)/;
            ok(aborted($fake{$to}, $r->{id}), "$name: the upload is aborted");
        }
    }
    my $r = both('slower', $large_path, 'rate=60000000');
    is_whole($r->{tee}, $large, 'chunked');
    is_dropped($r->{id}, 'overrun', 'failed', qr/keep up|overrun/i, 'chunked');
    ok((wait_for { totals($n)->{memoryUsed} == 0 }), 'no memory stays in use');
};

subtest 'wait' => sub {
    my %how = ('slow-wait' => 'length', 'slow-wait-unfiled' => 'length',
        'slow-wait-static' => '', 'slow-wait-php' => '');
    my %started = map {
        my $id = id("wait $_");
        $_ => curl_start($n->url("/tee/$_$large_path?id=$id&$how{$_}"),
            digest => 1);
    } keys %how;
    my $h2 = curl_start($n->url("/tee/slow-wait$large_path?id=" . id('wait h2'),
        'h2'), h2 => 1, digest => 1);
    # nor may a temporary file be written
    my @temp = glob "$n->{dir}/temp/*";
    chmod 0, @temp;
    for my $name (sort keys %how) {
        my $r = $started{$name}->wait;
        is_whole($r, $large, $name);
        cmp_ok($r->{seconds}, '>', 1.5, "$name: S3's pace");
        my $id = id("wait $name");
        is(logged($n, $id)->{tee}, 'captured', "$name: captured");
        is_final($n, $id, 'completed', $name);
        is_assembled($fake{slow}, $id, $large, $name);
    }
    is_whole($h2->wait, $large, 'HTTP/2');
    is_final($n, id('wait h2'), 'completed', 'HTTP/2');
    is_assembled($fake{slow}, id('wait h2'), $large, 'HTTP/2');

    chmod 0700, @temp;

    # the next request of the connection
    my $c = $t->raw($n->port);
    $c->send("GET /tee/pauses-wait$large_path?length&id="
        . id('wait pauses') . " HTTP/1.1\r\nHost: a\r\n\r\n"
        . "GET /bare/node$small_path?length HTTP/1.1\r\nHost: a\r\n"
        . "Connection: close\r\n\r\n");
    ok($c->closed(60), 'two on a connection');
    my $text = $c->{read};
    my @body = $text =~ /^HTTP.*?\r\n\r\n(.*)(?=HTTP\/1.1 200 OK)HTTP.*?\r\n\r\n(.*)/s;
    is(sha256_hex($body[0]), $large->{sha256}, 'the first');
    is(sha256_hex($body[1]), $small->{sha256}, 'the second');
    is_final($n, id('wait pauses'), 'completed', 'pauses');
    is_assembled($fake{pauses}, id('wait pauses'), $large, 'pauses');
};

subtest 'wait no longer than the client does' => sub {
    my %started;
    for my $where (qw/ still-wait still-wait-unfiled still-wait-static
        still-wait-php /)
    {
        for my $port ('', 'h2') {
            my $id = id("still $where $port");
            $started{"$where $port"} = [$id, curl_start(
                $n->url("/tee/$where$large_path?length&id=$id", $port || undef),
                digest => 1, $port ? (h2 => 1) : ())];
        }
    }
    for my $name (sort keys %started) {
        my ($id, $c) = @{$started{$name}};
        my $r = $c->wait;
        is_whole($r, $large, $name);
        cmp_ok($r->{seconds}, '>', 0.3, "$name: it was waited");
        cmp_ok($r->{seconds}, '<', 30, "$name: not for long");
        is_dropped($id, 'overrun', 'failed', qr/keep up|overrun/i, $name);
        ok(aborted($fake{still}, $id), "$name: the upload is aborted");
    }
};

# A client that leaves once it has some of its download, and nginx cannot send
# more: id and process.
sub leave {
    my ($where, $query, $how, %o) = @_;
    my $id = id("leave $where $how");
    my $uri = "/tee/$where" . ($o{path} || $path) . "?id=$id&$query";
    return [$id, spawn({ stderr => $t->dir . '/leave.err' }, sub {
        if ($how eq 'cancel' || $how eq 'h2-close') {
            h2_put($n->port('h2'), $uri, '/dev/null', method => 'GET',
                take => 200_000, pause => 0.4, then => "end-$how" =~ s/h2-//r);
            return;
        }
        my $c = $t->raw($n->port('small'), rcvbuf => 32768);
        $c->send("GET $uri HTTP/1.1\r\nHost: a\r\n\r\n");
        $c->skip(200_000);
        sleep 0.4;
        $how eq 'reset' ? $c->reset : $c->close;
    })];
}

subtest 'a client that leaves' => sub {
    my $rate = 'rate=6000000';
    my %ways = (
        continue => [qw/ close reset cancel h2-close /],
        'continue-default' => [qw/ close reset cancel h2-close /],
        'continue-php' => [qw/ close cancel /],
        'not-ignored' => [qw/ close cancel /],
        'not-ignored-unbuffered' => [qw/ reset h2-close /],
        abort => [qw/ close h2-close /],
        'abort-unbuffered' => [qw/ reset cancel /],
    );
    my $d = data(6_000_000);
    my $path = $t->served($d);
    # S3 at its pace, when nobody else waits
    my %left = (late => leave('continue-slow-wait', 'length', 'close',
        path => $large_path));
    for my $where (sort keys %ways) {
        for my $how (@{$ways{$where}}) {
            # (who is not waited for leaves long before the origin has sent all)
            my $of = $where =~ /^continue/ ? $rate : 'rate=1000000';
            my $query = $where =~ /php/ || $how eq 'reset' ? $of : "$of&length";
            $left{"$where, $how"} = leave($where, $query, $how,
                path => $path);
        }
    }
    $left{static} = leave('static', '', 'close', path => $large_path);
    $left{cached} = leave('cached', "$rate&length", 'close', path => $path);
    wait_exit($_->[1], 120) for values %left;
    my ($late, $static, $cached) = map { $_->[0] }
        delete @left{qw/ late static cached /};
    for my $name (sort keys %left) {
        my ($id) = @{$left{$name}};
        if ($name =~ /^continue/) {
            is_stored($n, $s3, $id, $id, $d, $name);
            cmp_ok(logged($n, $id)->{bytes}, '<', $d->{size},
                "$name: the client has less");
            $s3->delete($id);
            next;
        }
        my $record = is_dropped($id, 'client', 'aborted', qr/./, $name);
        cmp_ok($record->{bytesTransferred}, '<', $d->{size},
            "$name: in the middle");
    }

    # files have no origin that could go on
    is_dropped($static, 'client', 'aborted', qr/./, 'static');

    # a cache fetches all for itself
    my $id = $cached;
    my $record;
    wait_for {
        ($record = record($n, $id))->{state}
            && $record->{state} !~ /^(active|completing)$/;
    } 60;
    is_deeply([$s3->sha256($id)], $record->{state} eq 'completed'
        ? [$d->{sha256}, $d->{size}] : [], 'a cache: all or nothing');

    is_final($n, $late, 'completed', 'a slow S3');
    is_assembled($fake{slow}, $late, $large, 'a slow S3');
};

subtest 'a client that stalls' => sub {
    my $c = $t->raw($n->port, rcvbuf => 4096);
    my $id = id('stalls');
    $c->send("GET /tee/hasty$large_path?length&id=$id HTTP/1.1\r\n"
        . "Host: a\r\n\r\n");
    is_dropped($id, 'client|truncated', 'aborted', qr/./,
        'longer than send_timeout');
    $c->close;
};

subtest 'reload' => sub {
    my %how = (length => [{}, 'length'], chunked => [{}, ''],
        h2 => [{ h2 => 1 }, 'length']);
    my %started = map {
        my ($o, $query) = @{$how{$_}};
        $_ => curl_start($n->url("/tee/node$path?hold=3000000&until=reload-go"
            . "&$query&id=" . id("reload $_"), $o->{h2} ? 'h2' : undef),
            %$o, digest => 1);
    } keys %how;
    ok((wait_for { !grep {
        !record($n, id("reload $_"))->{bytesTransferred} } keys %how }),
        'three are under way');
    my ($old) = $n->workers;
    ok($n->reload, 'reloaded');
    is(record($n, id("reload $_"))->{state}, 'active', "$_: goes on")
        for sort keys %how;
    write_file("$files/reload-go", '');
    for my $name (sort keys %how) {
        my $r = $started{$name}->wait;
        is_whole($r, $d, $name);
        is($r->{headers}{'x-pid'}, $old, "$name: from the old worker");
        is_stored($n, $s3, id("reload $name"), id("reload $name"), $d, $name);
    }
    ok((wait_for { !$n->leaving_workers } 60), 'the old worker leaves');
};

# the client of HTTP/2 that is there, and the one that has left
subtest 'no longer than a worker may' => sub {
    my $short = $t->nginx("worker_shutdown_timeout 500ms;\n$conf");
    my ($old) = $short->workers;
    my %id = map { $_ => id("short $_") } qw/ stays left /;
    my %path = map { $_ => "/tee/continue$path?rate=400000&length&id=$id{$_}" }
        keys %id;
    my $stays = curl_start($short->url($path{stays}, 'h2'), h2 => 1,
        digest => 1);
    h2_put($short->port('h2'), $path{left}, '/dev/null', method => 'GET',
        take => 100_000, pause => 0.2, then => 'end-close');
    ok((wait_for { !grep { !record($short, $_)->{bytesTransferred} }
        values %id }), 'both are under way');
    $short->reload;
    ok((wait_for { !kill 0, $old } 60), 'the worker leaves');
    isnt($stays->wait->{exit}, 0, 'the client sees that it is cut');
    for (sort keys %id) {
        is(logged($short, $id{$_})->{tee}, 'truncated', "$_: the word for it");
        is(is_final($short, $id{$_}, 'aborted', $_)->{error},
            'worker is shutting down', "$_: and why");
    }
};

subtest 'many, and little memory' => sub {
    my $few = $t->nginx($conf =~ s/s3_memory 400m/s3_memory 30m/r);
    my $six = data(6_000_000);
    my $uri = $t->served($six);
    my @started = map {
        curl_start($few->url("/tee/node$uri?length&id=" . id("many $_")),
            digest => 1)
    } 1 .. 50;
    my ($whole, %is, @wrong) = (0);
    for (@started) {
        my $r = $_->wait;
        $whole++ if $r->{status} == 200 && $r->{sha256} eq $six->{sha256};
    }
    my %ids = map { id("many $_") => 1 } 1 .. 50;
    my %tee = map { $_ => logged($few, $_)->{tee} } keys %ids;
    $is{$_}++ for values %tee;
    ok((wait_for { !totals($few)->{active} } 60), 'all come to their end');
    my %state = map { $_->{transferId} => $_->{state} }
        @{curl($few->url('/status/?limit=1000'))->{json}{transfers}};
    my %object = map { $_ => 1 } grep { $ids{$_} } $s3->keys;
    for my $id (sort keys %ids) {
        my $state = $state{$id} || 'none';
        my $whole = $object{$id}
            && ($s3->sha256($id))[0] eq $six->{sha256};
        my $captured = $tee{$id} eq 'captured';
        push @wrong, "$id $tee{$id} $state" if $captured
            ? !$whole || $state ne 'completed'
            : $object{$id} || $state !~ /^(?:failed|none)$/;
    }
    is($whole, 50, 'all clients have all');
    is_deeply(\@wrong, [], 'objects are whole or not there');
    cmp_ok($is{captured} || 0, '>', 0, 'some were captured');
    is_deeply([grep { !/^(captured|overrun|no_memory)$/ } keys %is], [],
        'the others were not, for want of memory');
    note join ', ', map { "$_ $is{$_}" } sort keys %is;
    ok((wait_for { totals($few)->{memoryUsed} == 0 }), 'no memory stays in use');
};

subtest 'many that wait, and little memory' => sub {
    my $few = $t->nginx($conf =~ s/s3_memory 400m/s3_memory 30m/r);
    my $six = data(6_000_000);
    my $uri = $t->served($six);
    my %started = map {
        my $id = id("patient $_");
        $id => curl_start($few->url("/tee/unfiled-wait$uri?length&id=$id"),
            digest => 1)
    } 1 .. 15;
    for my $id (sort keys %started) {
        is_whole($started{$id}->wait, $six, $id);
        is_stored($few, $s3, $id, $id, $six, $id);
    }
    ok((wait_for { totals($few)->{memoryUsed} == 0 }), 'no memory stays in use');
};

subtest 'cancelled' => sub {
    my $id = id('cancelled');
    my $c = curl_start($n->url("/tee/node$path?length&hold=7000000"
        . "&until=cancel-go&id=$id"),
        digest => 1);
    ok((wait_for { record($n, $id)->{partsStored} }), 'a part is stored');
    is(curl($n->url("/cancel/$id"), method => 'DELETE')->{status}, 202,
        'cancelled');
    write_file("$files/cancel-go", '');
    is_whole($c->wait, $d, 'cancelled');
    is_dropped($id, 'failed', 'aborted', qr/cancel/, 'cancelled');
};

subtest 'a worker that dies' => sub {
    $t->allow_alerts(qr/exited on signal 9/);
    my %how = (length => 'length', chunked => '');
    my %started = map {
        $_ => curl_start($n->url("/tee/node$path?hold=7000000&until=never"
            . "&$how{$_}&id=" . id("killed $_")), digest => 1)
    } keys %how;
    ok((wait_for { !grep { !(record($n, id("killed $_"))->{partsStored}) }
        keys %how } 60), 'parts are stored');
    my ($pid) = $n->workers;
    kill 'KILL', $pid;
    cmp_ok($started{$_}->wait->{size}, '<', $d->{size}, "$_: cut off")
        for sort keys %how;
    ok((wait_for { grep { $_ != $pid } $n->workers }), 'another worker');
    for my $name (sort keys %how) {
        my $record = is_final($n, id("killed $name"), 'failed', $name);
        is($record->{error}, 'worker process died', "$name: says why");
        is($record->{direction}, 'download', "$name: a download");
        is($s3->head(id("killed $name")), undef, "$name: no object");
    }
    ok((wait_for { !$s3->uploads } 60), 'the uploads are aborted');

    my $id = id('killed again');
    my $r = curl($n->url("/tee/node$path?length&id=$id"), digest => 1);
    is_whole($r, $d, 'the next worker');
    is_stored($n, $s3, $id, $id, $d, 'the next worker');
};
