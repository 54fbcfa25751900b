#!/usr/bin/perl

# What s3_tee does not capture: for each reason the client's answer is what it is
# without s3_tee, the log and the counters name the reason, and there is no object
# and no record. And what nginx -t says of its directives.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use Time::HiRes qw/ sleep /;
use S3T;
use S3T::Tee;

my $t = S3T->new;
my $s3 = $t->s3;
my $node = $t->origin('node');
my $python = $t->origin('python');
my $php = $t->origin('php');
my $files = $t->files;

my $d = data(100_000);
my $path = $t->served($d);
my $name = substr $path, 1;
write_file("$files/page.html", "<!--# include virtual=\"/part/tee$path\" -->.");
write_file("$files/not-found.html", "not found\n");

my $keep = 'proxy_http_version 1.1; proxy_set_header Connection "";';
my $pass = "$keep proxy_pass " . $node->url . '/;';

# what a location has beside s3_tee, whose key is the argument id
my %location = (
    node => $pass,
    static => "alias $files/;",
    php => $php->pass,
    python => 'proxy_pass ' . $python->url . '/;',
    also404 => "$pass s3_tee_status 200 404;",
    intercepted => "$pass proxy_intercept_errors on;"
        . ' error_page 404 =200 /found/not-found.html;',
    missing => "alias $files/; error_page 404 /found/not-found.html;",
    ignoring => "$pass s3_tee_ignore_headers Set-Cookie Cache-Control;",
    'ignoring-cookie' => "$pass s3_tee_ignore_headers set-cookie;",
    'close' => "$pass s3_tee_close_delimited on;",
    sized => "$pass s3_tee_min_size 99999; s3_tee_max_size 100k;",
    'large-only' => "$pass s3_tee_min_size 100001;",
    'small-only' => "$pass s3_tee_max_size 99999;",
    exact => "$pass s3_tee_min_size 100000; s3_tee_max_size 100000;",
    condition => "$pass s3_tee_if \$arg_if;",
    once => "$pass s3_overwrite off;",
    large => "$pass s3_part_size 5m;",
    'large-small-only' => "$pass s3_part_size 5m; s3_tee_max_size 6m;",
    mirrored => "$pass mirror /mirror;",
    asked => "auth_request /asked; $pass",
    sliced => "slice 40k; proxy_set_header Range \$slice_range; $keep"
        . ' proxy_cache slices; proxy_cache_valid 10m;'
        . ' proxy_cache_key $uri$slice_range$arg_id; proxy_pass '
        . $node->url . '/;',
);

my $locations = join "\n", map {
    my $of = $_;
    map { "location /$_/$of/ { $location{$of}"
        . ($_ eq 'tee' ? ' s3_tee $arg_id;' : '') . ' }' } qw/ tee bare /;
} sort keys %location;

$t->token(LOCATIONS => $locations, LOG => $LOG, NODE => $pass,
    NODE_URL => $node->url, FILES => $files);

my $conf = <<'EOC';
%%MAIN%%
http {
    %%HTTP%%
    %%LOG%%
    proxy_cache_path %%DIR%%/cache keys_zone=slices:1m;
    %%S3%%
    s3_transfer_id $arg_id;
    server {
        listen 127.0.0.1:%%PORT%%;
        %%LOCATIONS%%
        location /status/ { access_log off; s3_status json; }
        location /metrics { access_log off; s3_status prometheus; }
        location /key/ { %%NODE%% s3_tee $arg_key; }
        location /found/ { alias %%FILES%%/; s3_tee found; }
        location /off/ { %%NODE%% s3_tee $arg_id; location /off/off/ {
            %%NODE%% s3_tee off; } }

        # subrequests
        location = /mirror {
            internal;
            proxy_pass %%NODE_URL%%/%%NAME%%;
            s3_tee mirror;
        }
        location = /asked {
            internal;
            proxy_pass %%NODE_URL%%/%%NAME%%;
            s3_tee asked;
        }
        location /ssi/ { ssi on; ssi_types *; alias %%FILES%%/; }
        location /part/tee/ { proxy_pass %%NODE_URL%%/; s3_tee part; }
    }
}
EOC
$conf =~ s/%%NAME%%/$name/g;
my $n = $t->nginx($conf);

my $number = 0;

# The names of those that are counted now.
sub counted {
    my ($before, $after) = @_;
    return join ' ', map { ($_) x ($after->{$_} - $before->{$_}) }
        grep { $after->{$_} > $before->{$_} } sort keys %$after;
}

# A request to a location with s3_tee and to one without: { tee: value of
# $s3_tee_status, counted: reasons, answers: both }. o: uri, those of curl
sub both {
    my ($where, $query, %o) = @_;
    my $uri = delete $o{uri} || $path;
    my $id = id('skip ' . ++$number);
    my $before = not_captured($n);
    my ($tee, $bare) = map {
        curl($n->url("/$_/$where$uri?id=$id" . ($_ eq 'bare' ? '-bare' : '')
            . "&$query"), %o)
    } qw/ tee bare /;
    # (curl has the head of HEAD in the place of a body)
    $_->{body} =~ s/^Date:.*\n//mg for $tee, $bare;
    return { id => $id, line => logged($n, $id), tee => $tee, bare => $bare,
        counted => counted($before, not_captured($n)) };
}

sub is_same {
    my ($r, $what) = @_;
    is_deeply(head_of($r->{tee}), head_of($r->{bare}),
        "$what: the head is that without");
    ok($r->{tee}{body} eq $r->{bare}{body}, "$what: the body, too");
    is($r->{tee}{exit}, $r->{bare}{exit}, "$what: and its end");
}

# One that is not captured.
sub skipped {
    my ($reason, $what, @request) = @_;
    my $r = both(@request);
    is($r->{line}{tee}, $reason, "$what: $reason");
    is($r->{line}{state}, '-', "$what: no transfer");
    is($r->{counted}, $reason, "$what: counted so");
    is_same($r, $what);
    is_deeply(record($n, $r->{id}), {}, "$what: no record");
    is($s3->head($r->{id}), undef, "$what: no object");
    return $r;
}

# One that is.
sub captured {
    my ($what, @request) = @_;
    my $r = both(@request);
    is($r->{line}{tee}, 'captured', "$what: captured");
    is($r->{counted}, '', "$what: not counted");
    is_same($r, $what);
    is_final($n, $r->{id}, 'completed', $what);
    ok(($s3->get($r->{id}) // '') eq $r->{tee}{body}, "$what: the object");
    $s3->delete($r->{id});
    return $r;
}

subtest 'method' => sub {
    for my $where (qw/ node static php python /) {
        my $r = skipped('method', "HEAD $where", $where, 'length',
            method => 'HEAD', args => ['-I']);
        is($r->{tee}{status}, 200, "HEAD $where: answered");
        my $c = $t->raw($n->port);
        $c->send("HEAD /tee/$where$path?length HTTP/1.1\r\nHost: a\r\n"
            . "Connection: close\r\n\r\n");
        ok($c->closed, "HEAD $where: ends");
        like($c->{read}, qr/^HTTP.*?\r\n\r\n\z/s, "HEAD $where: no body");
    }
    skipped('method', 'POST', 'node', 'length', method => 'POST',
        body => 'abc');
    skipped('method', 'PUT', 'node', '', body => 'abc');
    captured('GET', 'node', 'length');
};

subtest 'range' => sub {
    my @ranges = ('bytes=0-0', 'bytes=100-199', 'bytes=0-', 'bytes=-5',
        'bytes=0-9,20-29', 'bytes=200000-');
    for my $range (@ranges) {
        for my $where (qw/ static node /) {
            my $r = both($where, 'length', headers => ["Range: $range"]);
            is($r->{line}{tee}, 'range', "$range $where");
            is($r->{counted}, 'range', "$range $where: counted");
            is($s3->head($r->{id}), undef, "$range $where: no object");
            is($r->{tee}{status}, $r->{bare}{status}, 'the same status');
            is(length $r->{tee}{body}, length $r->{bare}{body},
                'as many bytes');
            next if $range =~ /,/;     # (each has a boundary of its own)
            is_same($r, "$range $where");
        }
    }
    my $r = skipped('range', 'by the origin', 'node', 'ranges&length',
        headers => ['Range: bytes=5-99']);
    is($r->{tee}{status}, 206, 'it is a part');
    is(length $r->{tee}{body}, 95, 'of so many bytes');
    skipped('range', 'If-Range', 'static', '',
        headers => ['Range: bytes=5-99', 'If-Range: "x"']);
    like(both('node', 'status=206&h.Content-Range=bytes+0-99999/200000&length')
        ->{line}{tee}, qr/^(range|status)$/, '206 that nobody asked for');
};

subtest 'subrequest' => sub {
    my $before = not_captured($n);
    my $r = curl($n->url('/ssi/page.html'));
    is($r->{body}, read_file($d->{path}) . '.', 'ssi: the client has both');
    is(counted($before, not_captured($n)), 'subrequest', 'ssi: counted');
    is($s3->head('part'), undef, 'ssi: no object');

    my ($id, $asked) = (id('mirrored'), scalar $node->requests);
    $before = not_captured($n);
    $r = curl($n->url("/tee/mirrored$path?id=$id&length"));
    is($r->{body}, read_file($d->{path}), 'mirror: the client has its own');
    ok((wait_for { $node->requests == $asked + 2 }),
        'mirror: the origin was asked twice');
    ok((wait_for { counted($before, not_captured($n)) eq 'subrequest' }),
        'mirror: counted');
    is_stored($n, $s3, $id, $id, $d, 'mirror: the request itself');
    is($s3->head('mirror'), undef, 'mirror: no other object');

    $id = id('asked');
    $before = not_captured($n);
    $r = curl($n->url("/tee/asked$path?id=$id&length"));
    is($r->{body}, read_file($d->{path}), 'auth_request: the client has its own');
    is(counted($before, not_captured($n)), 'subrequest',
        'auth_request: counted');
    is_stored($n, $s3, $id, $id, $d, 'auth_request: the request itself');
    is($s3->head('asked'), undef, 'auth_request: no other object');
};

subtest 'slice' => sub {
    # of the second nothing is asked, since the first has filled the cache
    for my $time (1, 2) {
        my $r = both('sliced', 'ranges&length&etag=strong');
        is($r->{tee}{body}, read_file($d->{path}), 'the client has all');
        is($r->{line}{tee}, 'subrequest', 'not captured');
        like($r->{counted}, qr/^subrequest\b/, 'counted');
        is_same($r, 'slice');
        is($s3->head($r->{id}), undef, 'no object');
    }
};

subtest 'status' => sub {
    for my $code (201, 203, 204, 206, 301, 302, 304, 403, 404, 410, 500, 503)
    {
        my $r = both('node', "status=$code&length");
        my $what = "status $code";
        is($r->{line}{tee}, 'status', $what);
        is($r->{counted}, 'status', "$what: counted");
        is($r->{tee}{status}, $code, "$what: it is");
        is_same($r, $what);
        is($s3->head($r->{id}), undef, "$what: no object");
    }

    my $r = skipped('status', 'If-None-Match', 'static', '', headers => [
        'If-Modified-Since: ' . curl($n->url("/bare/static$path"))
            ->{headers}{'last-modified'}]);
    is($r->{tee}{status}, 304, 'not modified');
    skipped('status', 'no upstream file', 'node', '', uri => '/none');
    skipped('status', 'no file', 'static', '', uri => '/none');

    $r = captured('404 by s3_tee_status', 'also404', '', uri => '/none');
    is($r->{tee}{status}, 404, 'the client has the 404');
    captured('200 by s3_tee_status', 'also404', '');
    skipped('status', '403 beside s3_tee_status', 'also404', 'status=403');
};

subtest 'error_page' => sub {
    $t->allow_errors(qr/No such file or directory/);
    my $before = not_captured($n);
    my $r = curl($n->url('/tee/intercepted/none?id=' . id('intercepted')));
    is("$r->{status} $r->{body}", "200 not found\n", 'the page is sent');
    is(logged($n, id('intercepted'))->{tee}, 'error_page', 'error_page');
    is(counted($before, not_captured($n)), 'error_page', 'counted');
    $r = both('missing', '', uri => '/none');
    is("$r->{tee}{status} $r->{tee}{body}", "404 not found\n",
        'one that keeps the status');
    like($r->{line}{tee}, qr/^(status|error_page)$/, 'is not captured');
    is_same($r, 'it');
    is($s3->head('found'), undef, 'no object');
    $r = curl($n->url('/found/not-found.html?id=' . id('found')));
    is_final($n, id('found'), 'completed', 'the page itself');
    ok($s3->head('found'), 'is an object');
    $s3->delete('found');
};

subtest 'set_cookie' => sub {
    my $cookie = 'h.Set-Cookie=a%3Db';
    skipped('set_cookie', 'Set-Cookie', 'node', $cookie);
    skipped('set_cookie', 'twice', 'node', "length&$cookie&$cookie");
    skipped('set_cookie', 'of FastCGI', 'php', 'h_Set-Cookie=a%3Db');
    captured('ignored', 'ignoring', $cookie);
    captured('ignored, in lower case', 'ignoring-cookie', $cookie);
    skipped('cache_control', 'the other', 'ignoring-cookie',
        "$cookie&h.Cache-Control=private");
};

subtest 'cache_control' => sub {
    my $field = 'h.Cache-Control';
    my @not = ('private', 'no-store', 'max-age=10, private', 'Private',
        'NO-STORE, max-age=0', 'private="set-cookie"', 'public,no-store',
        "max-age=1,\tno-store");
    skipped('cache_control', $_, 'node', "$field=" . S3T::S3::encode($_))
        for @not;
    skipped('cache_control', 'the second field', 'node',
        "length&$field=max-age%3D5&$field=private");
    skipped('cache_control', 'of FastCGI', 'php', 'h_Cache-Control=no-store');
    captured($_, 'node', "$field=" . S3T::S3::encode($_))
        for 'max-age=10, public', 'no-cache', 'x-private', 'privateer',
            'no-storey', 'max-age=0, must-revalidate';
    captured('ignored', 'ignoring', "$field=private");
};

subtest 'close_delimited' => sub {
    skipped('close_delimited', 'HTTP/1.1', 'node', 'close');
    skipped('close_delimited', 'HTTP/1.0', 'node', 'http10');
    captured('HTTP/1.0 with a length', 'node', 'http10&length');
    captured('Python', 'python', '');
    captured('chunked', 'node', '');
    captured('HTTP/1.1 by s3_tee_close_delimited', 'close', 'close');
    captured('HTTP/1.0 by s3_tee_close_delimited', 'close', 'http10');
    captured('FastCGI says when it has all', 'php', '');
};

subtest 'size' => sub {
    skipped('size', 'below s3_tee_min_size', 'large-only', 'length');
    skipped('size', 'above s3_tee_max_size', 'small-only', 'length');
    captured('between them', 'sized', 'length');
    captured('both exactly', 'exact', 'length');
    captured('both exactly, chunked', 'exact', '');
    captured('between them, chunked', 'sized', '');

    # nobody knows before
    for my $where (qw/ small-only large-only /) {
        my $r = both($where, '');
        is($r->{line}{tee}, 'size', "$where, chunked");
        is_same($r, "$where, chunked");
        is($r->{counted}, 'size', 'counted');
        my $record = is_final($n, $r->{id}, 'aborted', 'chunked');
        like($record->{error}, qr/size/, 'and says why');
        is($s3->head($r->{id}), undef, 'no object');
    }

    # of an upload that is open then
    my $large = data(11 * 1000 * 1000);
    my $r = both('large-small-only', 'rate=8000000',
        uri => $t->served($large));
    is($r->{line}{tee}, 'size', 'with parts');
    is_same($r, 'with parts');
    is($r->{counted}, 'size', 'counted');
    my $record = is_final($n, $r->{id}, 'aborted', 'with parts');
    is($record->{bytesTransferred} <= 6 * MB, 1, 'no byte more is copied');
    is($s3->head($r->{id}), undef, 'no object');
    ok((wait_for { !$s3->uploads }), 'nor an upload');
};

subtest 'condition' => sub {
    skipped('condition', 'empty', 'condition', 'length');
    skipped('condition', 'zero', 'condition', 'if=0');
    captured('one', 'condition', 'if=1');
    captured('a word', 'condition', 'length&if=no');
};

subtest 'key' => sub {
    my $is = sub {
        my ($key, $what) = @_;
        my $id = id("key $what");
        my $before = not_captured($n);
        my $r = curl($n->url("/key$path?id=$id&length&key=$key"));
        is($r->{body}, read_file($d->{path}), "$what: the client has all");
        is($r->{headers}{'content-length'}, $d->{size}, 'and its length');
        is(logged($n, $id)->{tee}, 'key', "$what: key");
        is(counted($before, not_captured($n)), 'key', "$what: counted");
    };
    $is->('', 'no key');
    $is->('../x', 'dots');
    $is->('a/', 'a slash at the end');
    $is->('x' x 1025, 'too long');
    my $before = not_captured($n);
    my $r = curl($n->url("/key$path?id=short&length&key=short"));
    is($r->{body}, read_file($d->{path}), 'an id that is none: the client');
    is(counted($before, not_captured($n)), 'key', 'counted');
};

subtest 'busy' => sub {
    my ($first, $second, $third) = map { id("busy $_") } 1 .. 3;
    my $c = curl_start($n->url("/key$path?id=$first&key=busy"
        . '&hold=50000&until=busy-go'));
    ok((wait_for { (record($n, $first)->{state} || '') eq 'active' }),
        'one is on its way');
    my $before = not_captured($n);
    my $r = curl($n->url("/key$path?id=$second&key=busy&length"));
    is($r->{body}, read_file($d->{path}), 'the second client has all');
    is(logged($n, $second)->{tee}, 'busy', 'busy');
    is(counted($before, not_captured($n)), 'busy', 'counted');
    $r = curl($n->url("/key$path?id=$first&key=other&length"));
    is($r->{body}, read_file($d->{path}), 'another key, but the same id');
    is(counted($before, not_captured($n)), 'busy busy', 'busy, too');
    write_file("$files/busy-go", '');
    is($c->wait->{body}, read_file($d->{path}), 'the first client has all');
    is_final($n, $first, 'completed', 'the first');
    is_deeply([$s3->sha256('busy')], [$d->{sha256}, $d->{size}],
        'the first is whole');
    is($s3->head('other'), undef, 'no other object');

    $r = curl($n->url("/key$path?id=$third&key=busy&length"));
    is_stored($n, $s3, $third, 'busy', $d, 'afterwards the key is free');
};

subtest 'exists' => sub {
    my $id = id('exists');
    $s3->put($id, 'the former');
    my $before = not_captured($n);
    # (it is held until S3 has said so)
    my @same = map { curl_start($n->url("/$_/once$path?hold=50000"
        . '&until=exists-go&id=' . ($_ eq 'tee' ? $id : "$id-bare")))
    } qw/ tee bare /;
    wait_for { counted($before, not_captured($n)) eq 'exists' };
    write_file("$files/exists-go", '');
    @same = map { $_->wait } @same;
    is(logged($n, $id)->{tee}, 'exists', 'exists');
    is(counted($before, not_captured($n)), 'exists', 'counted');
    ok($same[0]{body} eq $same[1]{body}, 'the client has all');
    is($s3->get($id), 'the former', 'the object stays as it is');

    # all of the body is there before S3 says anything
    my $r = curl($n->url("/tee/once$path?id=$id&length"));
    is($r->{body}, read_file($d->{path}), 'a fast one: the client has all');
    ok((wait_for { (record($n, $id)->{state} || '')
        !~ /^(active|completing)$/ }), 'comes to its end');
    is($s3->get($id), 'the former', 'the object stays as it is');
    $s3->delete($id);
    captured('none is there', 'once', 'length');
};

subtest 'off' => sub {
    my $before = not_captured($n);
    for my $where ("/off/off$path", "/bare/node$path") {
        my $id = id("off $where");
        curl($n->url("$where?id=$id"));
        is(logged($n, $id)->{tee}, '-', 'no word in the log');
    }
    is(counted($before, not_captured($n)), '', 'nothing is counted');
    my $id = id('on');
    curl($n->url("/off$path?id=$id"));
    is_stored($n, $s3, $id, $id, $d, 'beside it');
    $s3->delete($id);
};

subtest 'for Prometheus' => sub {
    my $json = totals($n)->{tee};
    my $text = curl($n->url('/metrics'))->{body};
    my %of = $text
        =~ /^s3_transfer_tee_not_captured_total\{reason="(\w+)"\} (\d+)$/mg;
    is_deeply(\%of, $json->{notCaptured}, 'the same reasons and numbers');
    my @all = qw/ method range subrequest status error_page set_cookie
        cache_control close_delimited size condition key busy exists /;
    is(scalar(grep { $of{$_} } @all), scalar @all, 'each has come');
    my ($captured) = $text =~ /^s3_transfer_tee_captured_total (\d+)$/m;
    is($captured, $json->{captured}, 'captured');
    cmp_ok($captured, '>', 20, 'so many');
    like($text, qr/^# TYPE s3_transfer_tee_not_captured_total counter$/m,
        'a counter');
};

subtest 'no other object' => sub {
    my %kept = map { $_ => 1 } 'busy', id('mirrored'), id('asked');
    is_deeply([grep { !$kept{$_} } $s3->keys], [], 'in the bucket');
};


subtest 'nginx -t' => sub {
    my $said = sub {
        my ($text, $http) = @_;
        $http = '' if !defined $http;
        my ($status, $out) = $n->test_conf(<<"EOC");
%%MAIN%%
http {
    %%HTTP%%
    $http
    server { listen 127.0.0.1:%%PORT%%; $text }
}
EOC
        $out =~ s/^.*(test is successful|syntax is ok|test failed).*\n//mg;
        return "$status $out";
    };
    my $s3 = '%%S3%%';
    my $to = 'proxy_pass http://127.0.0.1:1;';

    is($said->("$s3 location / { $to s3_tee; }"), '0 ', 'nothing to say');
    my $text = $said->("$s3 location / { $to s3_tee;"
        . ' s3_tee_on_overrun wait; }');
    like($text, qr/^0 .*\[warn\].*s3_tee_on_overrun.*proxy_buffering.*\n\z/,
        'wait beside temporary files: a line');
    $text = $said->("$s3 s3_tee_on_overrun wait;"
        . " location /a/ { $to s3_tee; } location /b/ { $to s3_tee; }");
    is(scalar(() = $text =~ /\[warn\]/g), 1, 'one line for all');
    is($said->("$s3 location / { $to s3_tee; s3_tee_on_overrun wait; $_ }"),
        '0 ', "not with $_") for 'proxy_buffering off;',
            'proxy_max_temp_file_size 0;';

    my %error = (
        's3_endpoint' => 's3_bucket b; s3_credentials static k s;',
        's3_bucket' => 's3_endpoint http://127.0.0.1:1;'
            . ' s3_credentials static k s;',
    );
    like($said->("$error{$_} location / { $to s3_tee; }"), qr/^1 .*emerg.*$_/s,
        "no $_") for sort keys %error;
    for my $bad ('s3_tee a b;', 's3_tee_on_overrun;', 's3_tee_on_overrun no;',
        's3_tee_client_abort stop;', 's3_tee_ignore_headers Vary;',
        's3_tee_close_delimited 1;', 's3_tee_status ok;', 's3_tee_status 99;',
        's3_tee_status 206;', 's3_tee_status 304;', 's3_tee_min_size x;',
        's3_tee_max_size -1;', 's3_tee_if;', 's3_tee; s3_tee;')
    {
        like($said->("$s3 location / { $to $bad }"), qr/^1 .*\[emerg\]/s,
            "refused: $bad");
    }
    is($said->("location / { $to $_ }", '%%S3%%'), '0 ', "taken: $_")
        for 's3_tee; s3_tee_status 200 203 404;', 's3_tee a$uri;',
            's3_tee off;', 's3_tee; s3_tee_client_abort abort;',
            's3_tee; s3_tee_ignore_headers Cache-Control;',
            's3_tee; s3_tee_min_size 1k; s3_tee_max_size 20g;';
    is($said->("location / { $to s3_tee off; }"), '0 ',
        'off needs no endpoint');
    is($said->('location / { return 200; }', '%%S3%% s3_tee all$uri;'
        . ' s3_tee_if 1; s3_tee_min_size 1; s3_tee_status 200;'), '0 ',
        'in http');
};
