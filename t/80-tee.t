#!/usr/bin/perl

# s3_tee: whatever serves a download, and whoever takes it, the client gets what
# it would get without, and S3 holds the origin's body byte for byte.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Tee;

use constant PART => 5 * MB;

my $t = S3T->new;
my $s3 = $t->s3;

my %origin = map { $_ => $t->origin($_) } qw/ node python php /;
my $files = $t->files;

# a plain nginx, over HTTP and TLS
my $plain = $t->nginx(<<"EOC", module => 0);
%%MAIN%%
http {
    %%HTTP%%
    types { application/octet-stream bin; text/html html; }
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_tls%% ssl;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        root $files;
        sendfile on;
    }
}
EOC

my $keep = 'proxy_http_version 1.1; proxy_set_header Connection "";';
my $unbuffered = 'proxy_buffering off;';
my $node = "$keep proxy_pass " . $origin{node}->url . '/;';
my $php = $origin{php}->pass;

# what serves a file: locations /tee/NAME/ and /bare/NAME/
my %source = (
    http => "$keep proxy_pass http://plain/;",
    https => "$keep proxy_pass " . $plain->url('/', 'tls') . '; '
        . 'proxy_ssl_verify on; proxy_ssl_trusted_certificate %%CA%%;'
        . 'proxy_ssl_name localhost;',
    'http-unbuffered' => "$keep $unbuffered proxy_pass http://plain/;",
    'http-in-memory' => "$keep proxy_max_temp_file_size 0;"
        . ' proxy_buffers 4 16k; proxy_pass http://plain/;',
    python => 'proxy_pass ' . $origin{python}->url . '/;',
    chunked => $node,
    'chunked-unbuffered' => "$unbuffered $node",
    length => "$keep rewrite ^/\\w+/length/(.*) /\$1?length break; proxy_pass "
        . $origin{node}->url . ';',
    php => $php,
    'php-unbuffered' => "fastcgi_buffering off; $php",
    static => "alias $files/; sendfile on;",
    'static-read' => "alias $files/; sendfile off;",
    'static-threads' => "alias $files/; sendfile on; aio threads;",
    'static-direct' => "alias $files/; directio 4k; output_buffers 1 64k;",
    'static-gzip' => "alias $files/; gzip_static always;",
    cached => "$keep proxy_cache cache; proxy_cache_valid 10m;"
        . ' proxy_cache_key $uri; proxy_pass http://plain/;',
    'cached-sendfile' => "$keep proxy_cache cache; proxy_cache_valid 10m;"
        . ' proxy_cache_key $uri; sendfile on; proxy_pass http://plain/;',
    'cached-threads' => "$keep proxy_cache cache; proxy_cache_valid 10m;"
        . ' proxy_cache_key $uri; aio threads; proxy_pass http://plain/;',
);

my $locations = join "\n", map {
    my $name = $_;
    # ("rewrite" changes $uri)
    my $key = $name eq 'length' ? ' tee/length$uri' : '';
    map { "location /$_/$name/ { $source{$name}"
        . ($_ eq 'tee' ? " s3_tee$key;" : '') . ' }' } qw/ tee bare /;
} sort keys %source;

$t->token(LOCATIONS => $locations, LOG => $LOG, NODE => $node,
    NODE_URL => $origin{node}->url, PLAIN_PORT => $plain->port,
    FILES => $files, PHP => $php);

my $n = $t->nginx(<<'EOC', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    %%LOG%%
    types { application/octet-stream bin; text/html html; }
    upstream plain { server 127.0.0.1:%%PLAIN_PORT%%; keepalive 8; }
    proxy_cache_path %%DIR%%/cache keys_zone=cache:1m;
    %%S3%%
    s3_payload_signature off;
    s3_memory 1g;
    s3_transfer_id $arg_id;
    s3_progress_redis redis://%%REDIS%% prefix=%%PREFIX%%;
    s3_progress_dynamodb %%DYNAMODB%% table=%%TABLE%%;
    s3_progress_dynamodb_credentials static k s;
    s3_part_size 5m;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl http2;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        access_log %%DIR%%/tee.log tee;
        %%LOCATIONS%%
        location /status/ { access_log off; s3_status; }

        # parts as they are without s3_part_size
        location /large/ {
            s3_part_size 16m;
            s3_tee_on_overrun wait;
            proxy_buffering off;
            location /large/http/ {
                proxy_http_version 1.1;
                proxy_pass http://plain/;
                s3_tee;
            }
            location /large/chunked/ { %%NODE%% s3_tee; }
            location /large/static/ { alias %%FILES%%/; s3_tee; }
        }

        # named keys
        location /named/ { %%NODE%% s3_tee $arg_key; }
        location /limited/ { limit_rate 3m; %%NODE%% s3_tee $arg_key; }
        location /changed/ {
            add_header Cache-Control from-here;
            add_header Content-Language here;
            expires 1h;
            charset utf-8;
            proxy_hide_header X-Hidden;
            s3_object_header x-amz-storage-class STANDARD;
            s3_object_header Content-Disposition from-here;
            s3_metadata seen $upstream_status;
            %%NODE%%
            s3_tee $arg_key;
        }
        location /gzip/ {
            gzip on;
            gzip_types *;
            gzip_min_length 1;
            %%NODE%%
            s3_tee $arg_key;
        }
        location /sub/ {
            sub_filter_types *;
            sub_filter origin changed;
            sub_filter_once off;
            %%NODE%%
            s3_tee $arg_key;
        }
        location /gunzip/ { gunzip on; %%NODE%% s3_tee $arg_key; }
        location /ssi/ { ssi on; ssi_types *; %%NODE%% s3_tee $arg_key; }
        location /added/ {
            add_before_body /plain-text;
            add_after_body /plain-text;
            addition_types *;
            %%NODE%%
            s3_tee $arg_key;
        }
        location = /plain-text { return 200 added; }
        location /lock/ {
            proxy_cache cache;
            proxy_cache_lock on;
            proxy_cache_lock_timeout 600s;
            proxy_cache_lock_age 600s;
            proxy_cache_valid 10m;
            proxy_cache_key lock$uri;
            proxy_pass %%NODE_URL%%/;
            s3_tee $arg_key;
        }
        location = /returned { return 200 returned; s3_tee $arg_key; }
        location /listed/ { autoindex on; alias %%FILES%%/; s3_tee $arg_key; }
        location /send/ { proxy_pass %%NODE_URL%%/; }
        location /internal/ {
            internal;
            alias %%FILES%%/;
            s3_tee internal/$arg_key;
        }
    }
}
EOC

# A download, begun: o: port, name of the transfer, query, and those of curl
sub start {
    my ($path, %o) = @_;
    my ($port, $id, $query) = delete @o{qw/ port id query /};
    my $args = join '&', grep { defined } $query,
        defined $id ? "id=$id" : undef;
    return curl_start($n->url($path . ($args ne '' ? "?$args" : ''), $port),
        digest => 1, ($port || '') eq 'tls' ? (ca => $t->ca) : (), %o);
}

sub is_whole {
    my ($r, $d, $name) = @_;
    is("$r->{status} $r->{exit} $r->{size} $r->{sha256}",
        "200 0 $d->{size} $d->{sha256}", "$name: what the client got");
}

# One download under the name, to its end, and its copy.
sub check {
    my ($path, $d, $name, %o) = @_;
    my $key = 'named-' . id($name);
    my $query = join '&', "key=$key", grep { defined } delete $o{query};
    my $r = start($path, id => id($name), query => $query, %o)->wait;
    is_whole($r, $d, $name);
    is_stored($n, $s3, id($name), $key, $d, $name);
    return ($r, $key);
}


# begun here, looked at in the end: all of nginx has the time it takes
my $gb = data($ENV{T_ASAN} ? 256 * MB : GB);
my $gb_path = $t->served($gb);
my $gb_client = start("/large/http$gb_path", id => id('one GiB'),
    timeout => 1800);

for my $size (0, 1, PART - 1, PART, PART + 1) {
    my $d = data($size);
    my $path = $t->served($d);
    # (nobody looks whether it is one)
    $t->served($d, substr "$path.gz", 1);
    my %started;
    for my $name (sort keys %source) {
        $started{$name} = start("/tee/$name$path", id => id("$name $size"));
        # the second of a cache is a hit
        $started{$name}->wait if $name eq 'cached';
    }

    subtest "$size bytes" => sub {
        for my $name (sort keys %source) {
            my $r = $started{$name}->wait;
            is_whole($r, $d, $name);
            my $record = is_stored($n, $s3, id("$name $size"),
                "tee/$name$path", $d, $name);
            next if $size != 1 && $size != PART;
            is($record->{partsStored}, 1, "$name: a part");
            my $bare = start("/bare/$name$path")->wait;
            is_deeply(head_of($r), head_of($bare),
                "$name: the head is that without s3_tee");
            is(($s3->head("tee/$name$path") || {})->{'content-encoding'},
                $name eq 'static-gzip' ? 'gzip' : undef,
                "$name: the coding");
        }
    };
    $s3->delete("tee/$_$path") for keys %source;
}

subtest 'around parts of 16 MiB' => sub {
    for my $size (16 * MB - 1, 16 * MB, 16 * MB + 1, 33 * MB) {
        my $d = data($size);
        my $path = $t->served($d);
        my @names = $size == 33 * MB ? qw/ static /
            : qw/ http chunked static /;
        my %started = map {
            $_ => start("/large/$_$path", id => id("large $_ $size"))
        } @names;
        for my $name (@names) {
            is_whole($started{$name}->wait, $d, "$size $name");
            my $r = is_stored($n, $s3, id("large $name $size"),
                "large/$name$path", $d, "$size $name");
            is($r->{partsStored}, int(($size + 16 * MB - 1) / (16 * MB)),
                "$size $name: parts");
            $s3->delete("large/$name$path");
        }
    }
};

subtest 'clients' => sub {
    my $d = data(2 * PART + 17);
    my $path = $t->served($d);
    my %client = (
        'HTTP/1.0' => { args => ['--http1.0'] },
        'HTTP/1.1 that closes' => { headers => ['Connection: close'] },
        'HTTP/2' => { port => 'h2', h2 => 1 },
        'TLS' => { port => 'tls' },
        'HTTP/2 over TLS' => { port => 'tls', h2 => 1 },
        'slow' => { rate => '4M' },
        'slow, HTTP/2' => { rate => '4M', port => 'h2', h2 => 1 },
        'no limit' => {},
    );
    my %started;
    for my $name (sort keys %client) {
        for my $to (qw/ named limited /) {
            for my $framing (qw/ length chunked /) {
                my $id = id("$name $to $framing");
                my $o = { %{$client{$name}}, id => $id, query => "key=$id"
                    . ($framing eq 'length' ? '&length' : '') };
                # as slow as the limit: once is enough
                next if $to eq 'limited' && $client{$name}{rate};
                $started{"$name, $to, $framing"} =
                    [$id, start("/$to$path", %$o)];
            }
        }
    }
    for my $name (sort keys %started) {
        my ($id, $c) = @{$started{$name}};
        is_whole($c->wait, $d, $name);
        is_stored($n, $s3, $id, $id, $d, $name);
        $s3->delete($id);
    }
};

subtest 'the record while it flows' => sub {
    my $d = data(2 * PART + 17);
    my $path = $t->served($d);
    my $hold = 'hold=6000000&until=flow-go';
    my %query = (length => "length&$hold", chunked => $hold);
    my %client = map { $_ => start("/named$path", id => id("flow $_"),
        query => "key=flow-$_&$query{$_}") } sort keys %query;
    for my $name (sort keys %query) {
        my $r;
        ok((wait_for { ($r = record($n, id("flow $name")))->{bytesTransferred} }),
            "$name: bytes are counted while they flow");
        is($r->{state}, 'active', "$name: active");
        is($r->{direction}, 'download', "$name: a download");
        is($r->{totalBytes}, $name eq 'length' ? $d->{size} : undef,
            "$name: the total");
        is($s3->head("flow-$name"), undef, "$name: no object yet");
    }
    cmp_ok(totals($n)->{active}, '>=', 2, 'both are active');
    write_file("$files/flow-go", '');
    for my $name (sort keys %query) {
        is_whole($client{$name}->wait, $d, $name);
        is_stored($n, $s3, id("flow $name"), "flow-$name", $d, $name);
    }
};

subtest 'records in the stores' => sub {
    my $d = data(PART + 1);
    my $path = $t->served($d);
    for my $query ('length', 'close=0') {
        my $name = "stores $query";
        my ($r, $key) = check("/named$path", $d, $name, query => $query
            =~ s/close=0/chunk=9999/r);
        my $record = record($n, id($name));
        my $hash;
        ok((wait_for {
            $hash = $t->redis->hgetall($t->prefix . id($name));
            ($hash->{state} || '') eq 'completed';
        }), "$name: Redis has the last");
        my $item;
        ok((wait_for {
            $item = $t->dynamodb->get_item(id($name));
            ($item->{state} || '') eq 'completed';
        }), "$name: DynamoDB has the last");
        for my $field (qw/ direction bucket key bytesTransferred bytesStored
            totalBytes percentage storedPercentage partsStored etag attempt
            sequence startedAt /)
        {
            is($hash->{$field}, $record->{$field}, "$name: $field in Redis");
            is($item->{$field}, $record->{$field}, "$name: $field in DynamoDB");
        }
        is($record->{direction}, 'download', "$name: a download");
        is($s3->head($key)->{'x-amz-meta-transfer-id'},
            "$record->{transferId}.$record->{attempt}",
            "$name: the object says which transfer made it");
    }
};

my %fields = (
    'Content-Type' => 'text/html; charset=koi8-r',
    'Content-Encoding' => 'br',
    'Content-Language' => 'de, en',
    'Cache-Control' => 'max-age=60, public',
    'Content-Disposition' => 'attachment; filename="a b.bin"',
    'Expires' => 'Thu, 01 Dec 2033 16:00:00 GMT',
    'Last-Modified' => 'Tue, 01 Feb 2022 16:00:00 GMT',
);
my $with = join '&', map { "h.$_=" . S3T::S3::encode($fields{$_}) }
    sort keys %fields;

sub stored_head {
    my ($key) = @_;
    my $head = $s3->head($key);
    return { map { $_ => $head->{$_} } qw/ content-type content-encoding
        content-language cache-control content-disposition expires
        x-amz-meta-origin-last-modified x-amz-meta-origin-etag / };
}

subtest 'what the object says' => sub {
    my $d = data(1000);
    my $path = $t->served($d);
    my $name = substr $path, 1;
    my %want = ((map { lc, $fields{$_} } keys %fields),
        'x-amz-meta-origin-last-modified' => $fields{'Last-Modified'},
        'x-amz-meta-origin-etag' => "\"$name\"");
    delete $want{'last-modified'};

    my ($r, $key) = check("/named$path", $d, 'fields',
        query => "$with&etag=strong");
    is_deeply(stored_head($key), \%want, 'the fields of the origin');
    is($r->{headers}{'content-type'}, $fields{'Content-Type'},
        'the client has them, too');

    # a multipart upload names them when it begins
    my $large = data(PART + 1);
    ($r, $key) = check('/named' . $t->served($large), $large, 'fields, parts',
        query => "$with&etag=weak");
    is_deeply(stored_head($key), { %want, 'x-amz-meta-origin-etag' => 'W/"'
        . substr($t->served($large), 1) . '"' }, 'with parts');

    ($r, $key) = check("/named$path", $d, 'no fields');
    is_deeply({ map { $_ => undef } grep { $_ ne 'content-type' } keys %want },
        { %{stored_head($key)}{grep { $_ ne 'content-type' } keys %want} },
        'an origin that says nothing');

    ($r, $key) = check("/changed$path", $d, 'changed',
        query => "$with&etag=strong");
    is_deeply(stored_head($key), { %want,
        'content-disposition' => 'from-here' },
        'what nginx adds for the client is not the origin\'s');
    is($s3->head($key)->{'x-amz-meta-seen'}, 200,
        's3_object_header and s3_metadata hold');
    like($r->{headers}{'cache-control'}, qr/from-here/,
        'the client has what was added');

    # of nginx itself
    my $static = "/tee/static$path";
    $r = start($static, id => id('static'))->wait;
    is_stored($n, $s3, id('static'), substr($static, 1), $d, 'static');
    my $head = stored_head(substr $static, 1);
    is($head->{'x-amz-meta-origin-etag'}, $r->{headers}{etag},
        'the ETag of a file');
    is($head->{'x-amz-meta-origin-last-modified'},
        $r->{headers}{'last-modified'}, 'the time of a file');
    is($head->{'content-type'}, 'application/octet-stream',
        'the type of a file');
};

subtest 'the representation of the origin' => sub {
    my $text = "an origin, and its origin\n" x 300_000;
    my $text_path = "$files/text.bin";
    write_file($text_path, $text);
    my $d = { path => $text_path, size => length $text,
        sha256 => sha256_hex($text) };
    my %want = (
        gzip => sub { sha256_hex(gunzip($_[0])) eq $d->{sha256} },
        sub => sub { $_[0] eq $text =~ s/origin/changed/gr },
        added => sub { $_[0] eq "added${text}added" },
    );
    my $type = 'h.Content-Type=text/html';
    for my $name (sort keys %want) {
        for my $query ($type, "$type&length", "$type&chunk=1000003") {
            my $id = id("$name $query");
            my $r = curl($n->url("/$name/text.bin?key=$id&id=$id&$query"),
                headers => ['Accept-Encoding: gzip']);
            is($r->{status}, 200, "$name $query");
            ok($want{$name}->($r->{body}), "$name: the client's is changed");
            is_stored($n, $s3, $id, $id, $d, "$name $query");
            is($s3->head($id)->{'content-encoding'}, undef,
                "$name: without a coding");
        }
    }

    # what the origin has compressed is stored so, and said so
    my $zipped = gzipped($text);
    write_file("$files/text.bin.gz", $zipped);
    my $z = { size => length $zipped, sha256 => sha256_hex($zipped) };
    for my $length ('', '&length') {
        my $id = id("gunzip $length");
        my $r = curl($n->url("/gunzip/text.bin.gz?key=$id&id=$id&$type"
            . "&h.Content-Encoding=gzip$length"));
        is(sha256_hex($r->{body}), $d->{sha256},
            'gunzip: the client gets it plain');
        is_stored($n, $s3, $id, $id, $z, 'gunzip');
        is($s3->head($id)->{'content-encoding'}, 'gzip', 'and its coding');
    }

    my $page = 'before <!--# include virtual="/plain-text" --> after';
    write_file("$files/page.html", $page);
    my $id = id('ssi');
    my $r = curl($n->url("/ssi/page.html?key=$id&id=$id&$type"));
    is($r->{body}, 'before added after', 'ssi: the client\'s is changed');
    is_stored($n, $s3, $id, $id, { size => length $page,
        sha256 => sha256_hex($page) }, 'ssi');
};

sub gunzip {
    require IO::Uncompress::Gunzip;
    my ($in, $out) = ($_[0], '');
    IO::Uncompress::Gunzip::gunzip(\$in, \$out);
    return $out;
}

sub gzipped {
    require IO::Compress::Gzip;
    my ($in, $out) = ($_[0], '');
    IO::Compress::Gzip::gzip(\$in, \$out);
    return $out;
}

subtest 'a cache' => sub {
    my $d = data(2 * PART + 17, 2);
    my $path = $t->served($d);
    my $asked = sub {
        scalar grep { $_->{url} =~ /^\Q$path\E/ } $origin{node}->requests;
    };

    # two at once: one of them asks, the other waits for it
    my @ids = map { id("lock $_") } 1, 2;
    my @started = map { start("/lock$path", id => $_,
        query => "key=$_&length&rate=20000000") } @ids;
    for (0, 1) {
        is_whole($started[$_]->wait, $d, $ids[$_]);
        is_stored($n, $s3, $ids[$_], $ids[$_], $d, $ids[$_]);
    }
    is($asked->(), 1, 'the origin was asked once');

    check("/lock$path", $d, 'a hit', query => 'length');
    is($asked->(), 1, 'a hit does not ask the origin');
};

subtest 'what nginx makes itself' => sub {
    for my $uri (qw{ /returned /listed/ }) {
        my $id = id("made $uri");
        my $r = curl($n->url("$uri?key=$id&id=$id"));
        is_stored($n, $s3, $id, $id, { size => length $r->{body},
            sha256 => sha256_hex($r->{body}) }, $uri);
    }
};

subtest 'X-Accel-Redirect' => sub {
    my $d = data(PART + 1);
    my $path = $t->served($d);
    write_file("$files/empty", 'not to be sent');
    my $id = id('accel');
    my $r = start('/send/empty', id => $id,
        query => 'h.X-Accel-Redirect='
            . S3T::S3::encode("/internal$path?key=accel&id=$id"))->wait;
    is_whole($r, $d, 'accel');
    is_stored($n, $s3, $id, 'internal/accel', $d, 'accel');
};

subtest 'one GiB' => sub {
    my $r = $gb_client->wait;
    is_whole($r, $gb, 'one GiB');
    $r = is_stored($n, $s3, id('one GiB'), "large/http$gb_path", $gb,
        'one GiB');
    cmp_ok($r->{sequence}, '<=', 103, 'records');
    $s3->delete("large/http$gb_path");
};

subtest 'in the end' => sub {
    my $totals;
    ok((wait_for { $totals = totals($n);
        !$totals->{active} && !$totals->{memoryUsed} }), 'nothing is active')
        or diag explain $totals;
    is($totals->{memoryUsed}, 0, 'no memory is in use');
    is($totals->{completed}, $totals->{started}, 'all were completed');
    is($totals->{tee}{captured}, $totals->{completed}, 'captured');
    is_deeply([grep { $_ } values %{$totals->{tee}{notCaptured}}], [],
        'none was not captured');
};
