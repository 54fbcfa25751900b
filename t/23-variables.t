#!/usr/bin/perl

# The variables of a transfer, in the access log and in headers, however the
# request ended and wherever nginx sent it; and how long a record is kept.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;

my $t = S3T->new;
my $refusing = $t->fake(on => { put => { status => 403 } });
my $go = $t->dir . '/go';
my $slow = $t->fake(on => { put => { hold => $go } });
$t->token(REFUSING => $refusing->url, SLOW => $slow->url);

my $n = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    log_format v "$request_uri $status id=$s3_transfer_id"
        " state=$s3_transfer_state in=$s3_bytes_transferred"
        " stored=$s3_bytes_stored etag=$s3_etag key=$s3_key";
    access_log %%DIR%%/v.log v;
    %%S3%%
    s3_payload_signature off;
    s3_part_size 5m;
    s3_transfer_id $arg_id;
    s3_progress_redis redis://%%REDIS%% prefix=%%PREFIX%% ttl=10s;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        add_header X-State "$s3_transfer_state,$s3_bytes_stored" always;
        add_header X-Etag $s3_etag always;
        add_header X-Key $s3_key always;
        add_header X-Id $s3_transfer_id always;
        location /upload/ { s3_upload; }
        location /slow/ { s3_endpoint %%SLOW%%; s3_upload; }
        location /early/ {
            set $early "<$s3_transfer_state>";
            if ($s3_transfer_id) { return 500; }
            add_header X-Early $early always;
            add_header X-State $s3_transfer_state always;
            s3_upload;
        }
        location /refused/plain { s3_endpoint %%REFUSING%%; s3_upload; }
        location /refused/uri {
            s3_endpoint %%REFUSING%%;
            s3_upload;
            error_page 502 = /other;
        }
        location /refused/named {
            s3_endpoint %%REFUSING%%;
            s3_upload;
            error_page 502 = @named;
        }
        location /refused/static {
            s3_endpoint %%REFUSING%%;
            s3_upload;
            error_page 502 /page.html;
        }
        location /refused/retry {
            s3_endpoint %%REFUSING%%;
            s3_upload;
            error_page 502 = /proxied;
        }
        location = /other { return 200 "other $s3_transfer_state\n"; }
        location @named { return 503 "named $s3_transfer_state $s3_key\n"; }
        location = /page.html { internal; return 200 "page\n"; }
        location = /proxied {
            proxy_pass http://127.0.0.1:%%PORT%%/sink;
            proxy_hide_header X-State;
        }
        location = /sink { return 200 "sink <$s3_transfer_state>\n"; }
        location /rewritten/ { rewrite ^/rewritten(/.*) /upload$1 last; }
        location /transfers/ { s3_status; }
        location /no { return 200 "<$s3_transfer_id$s3_bytes_stored>\n"; }
    }
}
EOF

# what the access log has of a request: { status, id, state, in, stored, etag,
# key }
sub logged {
    my ($uri) = @_;
    my $line = wait_for {
        (grep { /^\Q$uri\E / } split /\n/,
            read_file("$n->{dir}/v.log") || '')[-1];
    } or return {};
    my ($status, $rest) = $line =~ /^\S+ (\d+) (.*)/;
    return { status => $status, $rest =~ /(\w+)=(\S+)/g };
}

my $none = { id => '-', state => '-', in => '-', stored => '-', etag => '-',
    key => '-' };

sub is_logged {
    my ($uri, $want, $name) = @_;
    my $got = logged($uri);
    my %want = (%$none, %$want);
    is_deeply($got, \%want, $name) or diag explain $got;
}

my $id = sub { "variable-" . shift() . '-0123456789' };

subtest 'success' => sub {
    my @cases = (['one', 1000], ['empty', 0], ['parts', 12 * MB]);
    for (@cases) {
        my ($name, $size) = @$_;
        for my $o ({}, { chunked => 1 }, { h2 => 1 }) {
            my $how = join '', sort keys %$o;
            my $uri = "/upload/$name$how?id=" . $id->("$name$how");
            my $r = curl($n->url($uri, $o->{h2} ? 'h2' : undef),
                file => data($size), %$o);
            is($r->{status}, 201, "$name $how");
            is_logged($uri, { status => 201, id => $id->("$name$how"),
                state => 'completed', in => $size, stored => $size,
                etag => $r->{headers}{etag} =~ s/"/\\x22/gr,
                key => "upload/$name$how" }, 'logged');
            my %h = %{$r->{headers}};
            is_deeply([@h{qw/ x-state x-etag x-key x-id /}],
                ["completed,$size", $h{etag}, "upload/$name$how",
                $id->("$name$how")], 'in headers');
        }
    }
    my $r = curl($n->url('/upload/random'), body => 'x');
    my $random = $r->{json}{transferId};
    like($random, qr/^[0-9a-f]{32}$/, 'an id of ours');
    is(logged('/upload/random')->{id}, $random, 'logged');
};

subtest 'failure' => sub {
    my $uri = '/refused/plain?id=' . $id->('fail');
    my $r = curl($n->url($uri), body => 'x' x 500);
    is($r->{status}, 502, 'refused by S3');
    my %want = (id => $id->('fail'), state => 'failed', in => 500, stored => 0);
    is_logged($uri, { status => 502, %want, key => 'refused/plain' }, 'logged');
    is($r->{headers}{'x-state'}, 'failed,0', 'in a header');
    is($r->{headers}{'x-etag'}, undef, 'no ETag');

    $uri = '/upload/short?id=bad';
    $r = curl($n->url($uri), body => 'x');
    is($r->{status}, 400, 'refused by us');
    is_logged($uri, { status => 400 }, 'no transfer');
    is($r->{headers}{'x-id'}, undef, 'no header');
};

subtest 'internal redirects' => sub {
    my @cases = (
        ['uri', 200, "other failed\n"],
        ['named', 503, "named failed refused/named\n"],
        ['static', 502, "page\n"],
        ['retry', 200, "sink <>\n"],
    );
    for (@cases) {
        my ($name, $status, $body) = @$_;
        my $uri = "/refused/$name?id=" . $id->($name);
        my $r = curl($n->url($uri), body => 'x' x 300);
        is($r->{status}, $status, $name);
        is($r->{body}, $body, 'seen there');
        is_logged($uri, { status => $status, id => $id->($name),
            state => 'failed', in => 300, stored => 0,
            key => "refused/$name" }, 'logged');
        is($r->{headers}{'x-state'}, 'failed,0', 'in a header');
    }
    my $uri = '/rewritten/a?id=' . $id->('rewritten');
    is(curl($n->url($uri), body => 'x')->{status}, 201, 'into the location');
    my $got = logged($uri);
    is_deeply([@$got{qw/ id state key /}],
        [$id->('rewritten'), 'completed', 'upload/a'], 'logged');
};

subtest 'too early' => sub {
    my $r = curl($n->url('/early/a?id=' . $id->('early')), body => 'x');
    is($r->{status}, 201, 'there is none before it begins');
    is($r->{headers}{'x-early'}, '<>', 'an empty value');
    is($r->{headers}{'x-state'}, 'completed', 'which was not kept');
    is(logged('/early/a?id=' . $id->('early'))->{state}, 'completed',
        'nor in the log');
};

subtest 'a client that leaves' => sub {
    my $uri = '/upload/left?id=' . $id->('left');
    my $c = $t->raw($n->port);
    $c->send("PUT $uri HTTP/1.1\r\nHost: t\r\nContent-Length: 5000\r\n\r\n"
        . 'x' x 2000);
    ok((wait_for { (curl($n->url('/transfers/' . $id->('left')))->{json}
        || {})->{bytesTransferred} }), 'active');
    $c->close;
    my $got = logged($uri);
    cmp_ok(delete $got->{status}, '>=', 400, 'an error');
    is_deeply($got, { id => $id->('left'), state => 'aborted', in => 2000,
        stored => 0, etag => '-', key => 'upload/left' }, 'logged');

    # its body is whole, but S3 takes its time
    $uri = '/slow/left?id=' . $id->('whole');
    $c = $t->raw($n->port);
    $c->send("PUT $uri HTTP/1.1\r\nHost: t\r\nContent-Length: 2000\r\n\r\n"
        . 'x' x 2000);
    ok((wait_for { ((curl($n->url('/transfers/' . $id->('whole')))->{json}
        || {})->{state} || '') eq 'completing' }), 'completing');
    $c->close;
    write_file($go, '');
    ok((wait_for { curl($n->url('/transfers/' . $id->('whole')))->{json}{state}
        eq 'completed' }), 'it is stored all the same');
    $got = logged($uri);
    is($got->{in}, 2000, 'logged');
    is($got->{id}, $id->('whole'), 'its id');
    like($got->{state}, qr/^complet(ing|ed)$/, 'its state');
};

subtest 'other requests' => sub {
    is(curl($n->url('/no'))->{body}, "<>\n", 'empty values');
    is_deeply(logged('/no'), { %$none, status => 200 }, 'a dash each');
    is(curl($n->url('/upload/o?id=' . $id->('other')), body => 'x')->{status},
        201, 'a transfer');
    my $uri = '/transfers/' . $id->('other');
    my $r = curl($n->url($uri));
    is($r->{status}, 200, 'a status location');
    is_deeply(logged($uri), { %$none, status => 200 }, 'has none');
    is($r->{headers}{'x-state'}, ',', 'in headers');
    is($r->{headers}{'x-id'}, undef, 'no header at all');
    $r = curl($n->url('/upload/x'), method => 'GET');
    is($r->{status}, 405, 'another method');
    is_deeply(logged('/upload/x'), { %$none, status => 405 }, 'none');

    # the next request on the connection of one that had a transfer
    my $c = $t->raw($n->port);
    $c->send("PUT /upload/k HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx");
    is($c->response->{headers}{'x-key'}, 'upload/k', 'one that had');
    $c->send("GET /no?again HTTP/1.1\r\nHost: t\r\n\r\n");
    is($c->response->{body}, "<>\n", 'the next has none');
};

subtest 'the life of a record' => sub {
    my $silent = $id->('silent');
    my $over = $id->('over');
    my $c = $t->raw($n->port);
    $c->send("PUT /upload/silent?id=$silent HTTP/1.1\r\nHost: t\r\n"
        . "Content-Length: 2\r\n\r\nx");
    my $from = time;
    my $r = curl($n->url("/upload/over?id=$over"), body => 'x');
    my $key = $t->prefix . $over;
    ok((wait_for { (($t->redis->hgetall($key) || {})->{state} || '')
        eq 'completed' }), 'in Redis');
    my %record = %{$r->{json}};
    my $ms = sub { my ($s, $ms) = shift =~ /:(\d\d)\.(\d{3})Z/;
        $s * 1000 + $ms };
    is(($ms->($record{expiresAt}) - $ms->($record{updatedAt})) % 60_000,
        10_000, 'it tells until when');
    is($t->redis->hgetall($key)->{expiresAt}, $record{expiresAt},
        'as Redis does');
    my $used = curl($n->url('/transfers/'))->{json}{totals}{slotsUsed};

    ok((wait_for { curl($n->url("/transfers/$over"))->{status} == 404 } 60,
        0.2), 'gone with its time');
    cmp_ok(time - $from, '>', 9.5, 'not before');
    ok((wait_for { !$t->redis->hgetall($key) }), 'from Redis, too');
    ok((wait_for { curl($n->url('/transfers/'))->{json}{totals}{slotsUsed}
        < $used } 60, 0.2), 'its slot is free');

    $r = curl($n->url("/transfers/$silent"));
    is($r->{json}{state}, 'active', 'one under way stays, silent as it is');
    $r = $t->redis->hgetall($t->prefix . $silent);
    is(($r || {})->{state}, 'active', 'in Redis, too');
    cmp_ok(($r || {})->{sequence} || 0, '>', 1, 'for it is renewed');
    $c->send('x');
    is($c->response->{status}, 201, 'and ends');
};

$t->expect_errors(qr/s3 PutObject failed: 403 Fake403 "as scripted"/);
