#!/usr/bin/perl

# What the status location says: totals, one record, lists, in JSON and for
# Prometheus; to whom; and what is refused.

use strict;
use warnings;

use lib 't/lib';
use JSON::PP ();
use List::Util qw/ uniq /;
use Test::More;
use S3T;
use S3T::Null;

my $t = S3T->new(bucket => 0);
my $null = S3T::Null->new($t->dir);
my $refusing = $t->fake(on => { put => { status => 403 } });
$t->token(NULL => $null->url, REFUSING => $refusing->url);

my $n = $t->nginx(<<'EOF', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    keepalive_requests 100000;
    s3_credentials static testaccess testsecret;
    s3_endpoint %%NULL%%;
    s3_bucket bucket;
    s3_payload_signature off;
    s3_part_size 5m;
    s3_transfer_id $arg_id;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /upload/ { s3_upload; }
        location /refused/ { s3_endpoint %%REFUSING%%; s3_upload; }
        location /transfers/ { s3_status; }
        location /bare { s3_status; }
        location /list/ { s3_status list; }
        location /json/ { s3_status json; }
        location = /metrics { s3_status prometheus; }
        location = /one { s3_status id=$arg_id list; }
        location ~ ^/re/(?<which>[^/]*)/status$ { s3_status id=$which; }
        location = /ssi {
            ssi on;
            default_type text/html;
            return 200 '[<!--#include virtual="/transfers/$arg_id" -->,
                <!--#include virtual="/list/?limit=2" -->]';
        }
        location /if/ {
            if ($arg_x) { s3_status list; }
            s3_status;
        }
    }
    server {
        listen 127.0.0.1:%%PORT_owned%%;
        s3_owner $http_x_user;
        location /upload/ { s3_upload; }
        location /transfers/ { s3_status list; }
        location /all/ { s3_owner ''; s3_status list; }
    }
}
EOF

sub get { curl($n->url(shift), @_) }
sub totals { get('/transfers/')->{json}{totals} }
sub put { my ($path, $body) = @_; curl($n->url($path), body => $body) }

# An upload that does not end by itself: bytes of a body on an open connection
sub begin {
    my ($id, $port, @headers) = @_;
    my $c = $t->raw($port || $n->port);
    $c->send(join "\r\n", "PUT /upload/$id?id=$id HTTP/1.1", 'Host: test',
        'Content-Length: 100', @headers, '', 'x' x 10);
    return $c;
}

sub state_of {
    my ($id) = @_;
    return (get("/transfers/$id")->{json} || {})->{state} || '';
}

subtest 'totals' => sub {
    my $r = get('/transfers/');
    is($r->{status}, 200, 'status');
    is($r->{headers}{'content-type'}, 'application/json', 'type');
    is($r->{headers}{'cache-control'}, 'no-store', 'not to be cached');
    is_deeply([keys %{$r->{json}}], ['totals'], 'totals alone');
    my $before = $r->{json}{totals};
    is_deeply([@$before{qw/ started completed failed aborted active untracked
        bytesTransferred openings s3Requests slotsUsed memoryUsed /}],
        [(0) x 11], 'from nothing');
    cmp_ok($before->{slots}, '>', 1000, 'room');

    is(put('/upload/a', 'x' x 1000)->{status}, 201, 'one part');
    is(curl($n->url('/upload/b'), file => data(12 * MB))->{status}, 201,
        'three parts');
    is(put('/upload/c', '')->{status}, 201, 'empty');
    is(put('/refused/d', 'x' x 10)->{status}, 502, 'failed');
    my $id = 'left-by-its-client';
    my $c = begin($id);
    ok((wait_for { state_of($id) eq 'active' }), 'active');
    is(totals()->{active}, 1, 'one');
    $c->close;
    ok((wait_for { state_of($id) eq 'aborted' }), 'aborted');

    my $after;
    wait_for { ($after = totals())->{memoryUsed} == 0 };
    my %more = map { $_ => $after->{$_} - $before->{$_} }
        grep { !ref $after->{$_} } keys %$after;
    is_deeply(\%more, {
        started => 5, completed => 3, failed => 1, aborted => 1, active => 0,
        untracked => 0, bytesTransferred => 1020 + 12 * MB,
        # an empty object has no part
        bytesStored => 1000 + 12 * MB, partsStored => 4,
        # three of one PUT each, one of them refused; create, parts, complete
        s3Requests => 8, s3Retries => 0, s3Errors => 1, slots => 0,
        slotsUsed => 5, memoryUsed => 0, orphansAborted => 0,
        abortsWaiting => 0, ingests => 0,
        chunks => $more{chunks}, openings => $more{openings},
    }, 'what was done is what is counted') or diag explain \%more;
    # a chunk is what one read brings: a block at most
    cmp_ok($more{chunks}, '>=', 12 * MB / (256 * KB), 'chunks');
    cmp_ok($more{openings}, '>', 40, 'openings');
    cmp_ok($more{openings}, '<=', 100, 'not too many');
    is_deeply($after->{$_}, { map { $_ => 0 } qw/ records writes replaced
        dropped errors outages up / }, "no $_") for qw/ redis dynamodb /;
};

subtest 'one record' => sub {
    my $id = 'Known_by-its-0123456789-abcdefghijklmnopqrstuvwxyz-name-64-bytes';
    my $r = put("/upload/known?id=$id", 'known');
    is($r->{status}, 201, 'stored');
    my $record = $r->{json};
    is_deeply([sort keys %$record], [sort qw/ transferId attempt sequence
        state direction bucket key bytesTransferred bytesStored totalBytes
        percentage storedPercentage partsStored rate startedAt updatedAt
        expiresAt etag error /], 'its names');
    for my $path ("/transfers/$id", "/bare/$id", "/list/$id", "/json/$id",
        "/one?id=$id", "/re/$id/status", "/if/$id", "/if/$id?x=1")
    {
        is_deeply(get($path)->{json}, $record, $path);
    }
    $r = get("/ssi?id=$id");
    is_deeply($r->{json}[0], $record, 'included in a page');
    is(@{($r->{json}[1] || {})->{transfers} || []}, 2, 'a list, too');
    $r = get('/ssi?id=unknown-0123456789');
    is($r->{json}[0]{error}, 'NoSuchTransfer', 'an error, too');
    is(get("/one")->{json}{totals}{started}, 6, 'an empty id: totals');
    is(get("/bare")->{json}{totals}{started}, 6, 'no slash: totals');

    for my $path ('/transfers/unknown-0123456789', '/one?id=unknown-0123456789',
        '/re/unknown-0123456789/status')
    {
        $r = get($path);
        is($r->{status}, 404, "$path: unknown");
        is($r->{json}{error}, 'NoSuchTransfer', 'code');
        is($r->{json}{transferId}, 'unknown-0123456789', 'id');
        is($r->{headers}{'content-type'}, 'application/json', 'type');
    }
    for my $wrong ('x' x 15, 'x' x 65, 'x.0123456789abcdef', 'x' x 10_000,
        'a0123456789abcd/f', "$id/", '%00123456789abcdef',
        '%e2%82%ac0123456789abcde')
    {
        $r = get("/transfers/$wrong", timeout => 60);
        # nginx itself refuses what has no path or is too long
        my $own = $wrong =~ /%00/ ? qr/^40[04]$/
            : length $wrong > 8000 ? qr/^4(04|14)$/ : qr/^404$/;
        like($r->{status}, $own, substr($wrong, 0, 20) . ': malformed');
    }
    is(get("/one?id=$_")->{status}, 404, "argument $_: malformed")
        for 'short', 'x' x 65, '%41' x 20;
};

subtest 'methods' => sub {
    my $id = 'asked-by-methods';
    put("/upload/m?id=$id", 'm');
    for my $path ('/transfers/', "/transfers/$id", '/list/', '/metrics',
        '/transfers/unknown-0123456789')
    {
        my $get = get($path);
        my $c = $t->raw($n->port);
        $c->send("HEAD $path HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        ok($c->closed, "HEAD $path");
        my ($head, $body) = split /\r\n\r\n/, $c->{read}, 2;
        like($head, qr/^HTTP\/1.1 $get->{status} /, 'the same status');
        is($body, '', 'no body');
        # numbers may have grown between the two
        my ($length) = $head =~ /^Content-Length: (\d+)/m;
        cmp_ok(abs($length - length $get->{body}), '<', 10, 'its length');
        my ($type) = $head =~ /^Content-Type: (.*)\r$/m;
        is($type, $get->{headers}{'content-type'}, 'its type');
    }
    for my $method (qw/ POST PUT DELETE PATCH /) {
        for my $path ('/transfers/', "/transfers/$id", '/metrics') {
            my $r = get($path, method => $method);
            is($r->{status}, 405, "$method $path");
            is($r->{headers}{allow}, 'GET, HEAD, OPTIONS', 'Allow');
            is($r->{json}{error}, 'MethodNotAllowed', 'JSON');
        }
    }
    my $r = get('/transfers/', method => 'POST', body => 'x' x 100_000);
    is($r->{status}, 405, 'with a body');
    $r = get('/transfers/', method => 'OPTIONS');
    is($r->{status}, 204, 'OPTIONS');
    is($r->{headers}{allow}, 'GET, HEAD, OPTIONS', 'Allow');
    is($r->{body}, '', 'no body');
    $r = get('/transfers/', method => 'GET', body => 'x' x 100_000);
    is($r->{status}, 200, 'a GET with a body');
};

subtest 'formats' => sub {
    my $json = qr{^application/json$};
    my $text = qr{^text/plain; version=0\.0\.4; charset=utf-8$};
    my @cases = (
        [undef, $json], ['*/*', $json], ['application/json', $json],
        ['text/html,application/xhtml+xml,*/*;q=0.8', $json],
        ['text/plain', $text], ['text/*', $text],
        ['text/plain;version=0.0.4;q=0.5,*/*;q=0.1', $text],
        ['application/openmetrics-text;version=1.0.0;q=0.8,'
            . 'text/plain;version=0.0.4;q=0.5,*/*;q=0.1', $text],
        ['application/json;q=0.2, text/plain;q=0.3', $text],
        ['application/json;q=0.3, text/plain;q=0.2', $json],
        ['text/plain;q=0, */*', $json],
        ['application/json;q=0, text/plain', $text],
        ['text/plain, application/json', $json],
        ['TEXT/PLAIN', $text], ['image/png', $json], ['', $json],
        [',;q=,;,', $json], ['text/plain;q', $text],
    );
    for (@cases) {
        my ($accept, $type) = @$_;
        my $r = get('/transfers/', headers => [defined $accept
            ? ($accept eq '' ? 'Accept;' : "Accept: $accept") : 'Accept:']);
        like($r->{headers}{'content-type'}, $type,
            defined $accept ? "'$accept'" : 'no Accept');
    }
    my @plain = (headers => ['Accept: text/plain']);
    like(get('/json/', @plain)->{headers}{'content-type'}, $json,
        's3_status json');
    like(get('/list/', @plain)->{headers}{'content-type'}, $text,
        's3_status list');
    like(get('/metrics', headers => ['Accept: application/json'])
        ->{headers}{'content-type'}, $text, 's3_status prometheus');
    like(get('/transfers/asked-by-methods', @plain)->{headers}{'content-type'},
        $json, 'one record is JSON');
};

# name{labels} => value, of a document in Prometheus's text format 0.0.4; dies
# of what that does not allow
sub prometheus {
    my ($text) = @_;
    my (%type, %help, %value, %closed, $family);
    die "no line feed at its end\n" if $text !~ /\n\z/;
    for my $line (split /\n/, $text) {
        if ($line =~ /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/) {
            my ($what, $name, $rest) = ($1, $2, $3);
            my $of = $what eq 'HELP' ? \%help : \%type;
            die "$what of $name again\n" if exists $of->{$name};
            die "type: $line\n" if $what eq 'TYPE'
                && $rest !~ /^(counter|gauge|histogram|summary|untyped)$/;
            $of->{$name} = $rest;
            if (!defined $family || $family ne $name) {
                $closed{$family} = 1 if defined $family;
                die "$name is in two places\n" if $closed{$name};
                $family = $name;
            }
            next;
        }
        my $label = qr/[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"/;
        $line =~ /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{$label(?:,$label)*,?\})?
            \ ([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?|NaN|[-+]Inf)(?:\ -?\d+)?$/x
            or die "no sample: $line\n";
        my ($name, $labels, $value) = ($1, $2 || '', $3);
        die "$name outside of its family\n" if $name ne $family;
        die "$name$labels again\n" if exists $value{"$name$labels"};
        die "$name has no type\n" if !$type{$name};
        $value{"$name$labels"} = $value;
    }
    die "HELP without TYPE\n" if join(' ', sort keys %help)
        ne join ' ', sort keys %type;
    return (\%type, \%value);
}

subtest 'Prometheus' => sub {
    for my $broken ("a 1", "# TYPE a counter\na 1\na 2\n", "a{b} 1\n",
        "# TYPE a counter\n# HELP a x\na one\n")
    {
        ok(!eval { prometheus($broken); 1 }, 'the validator refuses');
    }
    my ($type, $value) = prometheus(get('/metrics')->{body});
    for my $name (sort keys %$type) {
        like($name, qr/^s3_transfer_[a-z0-9_]+$/, $name);
        is($type->{$name}, $name =~ /_total$/ ? 'counter' : 'gauge', 'type');
    }
    my $totals = totals();
    my %names = (started => 'started_total', completed => 'completed_total',
        failed => 'failed_total', aborted => 'aborted_total',
        untracked => 'untracked_total', active => 'active',
        bytesTransferred => 'transferred_bytes_total',
        bytesStored => 'stored_bytes_total', partsStored =>
        'stored_parts_total', chunks => 'chunks_total', openings =>
        'openings_total', s3Requests => 's3_requests_total', s3Retries =>
        's3_retries_total', s3Errors => 's3_errors_total', orphansAborted =>
        'orphans_aborted_total', abortsWaiting => 'aborts_waiting',
        ingests => 'ingests', slots => 'slots',
        slotsUsed => 'slots_used', memoryUsed => 'memory_used_bytes');
    for my $name (sort keys %names) {
        is($value->{"s3_transfer_$names{$name}"}, $totals->{$name}, $name);
    }
    my %store = map { ("${_}_total" => $_) }
        qw/ records writes replaced dropped errors outages /;
    $store{up} = 'up';
    for my $store (qw/ redis dynamodb /) {
        for my $name (sort keys %store) {
            is($value->{"s3_transfer_store_$name\{store=\"$store\"}"},
                $totals->{$store}{$store{$name}}, "$store $name");
        }
    }
    my $tee = $totals->{tee};
    is($value->{s3_transfer_tee_captured_total}, $tee->{captured}, 'captured');
    my $not = $tee->{notCaptured};
    is($value->{"s3_transfer_tee_not_captured_total{reason=\"$_\"}"},
        $not->{$_}, "not captured: $_") for sort keys %$not;
    is(scalar keys %$value,
        keys(%names) + 2 * keys(%store) + 1 + keys %$not, 'nothing else');

    put('/upload/p', 'x' x 100);
    put('/refused/p', 'x');
    my (undef, $after) = prometheus(get('/metrics')->{body});
    is_deeply([grep { $type->{s/\{.*//r} eq 'counter'
        && $after->{$_} < $value->{$_} } keys %$value], [],
        'counters never fall');
    for my $name (qw/ started_total completed_total failed_total /) {
        cmp_ok($after->{"s3_transfer_$name"}, '>',
            $value->{"s3_transfer_$name"}, "$name grew");
    }
    is(get('/metrics?state=active&limit=x')->{status}, 200,
        'arguments are not looked at');
};

subtest 'ids again' => sub {
    my $id = 'the-same-id-again';
    my $c = begin($id);
    ok((wait_for { state_of($id) eq 'active' }), 'active');
    my $first = get("/transfers/$id")->{json};
    my $requests = $null->stats;
    my $r = put("/upload/other?id=$id", 'other');
    is($r->{status}, 409, 'in use');
    is($r->{json}{error}, 'TransferIdInUse', 'code');
    is($r->{json}{transferId}, $id, 'id');
    # (what asks for them comes over connections, too)
    delete @$_{qw/ connections live peak /} for $requests, my $now = $null->stats;
    is_deeply($now, $requests, 'S3 did not hear of it');
    is(get("/transfers/$id")->{json}{key}, "upload/$id", 'the first goes on');
    $c->send('x' x 90);
    is($c->response->{status}, 201, 'and ends well');

    $r = put("/upload/other?id=$id", 'another');
    is($r->{status}, 201, 'once it is over the id is free');
    my $second = get("/transfers/$id")->{json};
    is_deeply($second, $r->{json}, 'the new record');
    cmp_ok($second->{attempt}, '>', $first->{attempt}, 'a new attempt');
    is($second->{key}, 'upload/other', 'of another object');
    cmp_ok($second->{sequence}, '<', 5, 'its records are counted anew');
    is($second->{bytesTransferred}, 7, 'its bytes');
    # within the same millisecond, too
    $c = $t->raw($n->port);
    my @attempts = map {
        $c->send("PUT /upload/o?id=$id HTTP/1.1\r\nHost: t\r\n"
            . "Content-Length: 1\r\n\r\nx");
        JSON::PP->new->decode($c->response->{body})->{attempt};
    } 1 .. 200;
    is_deeply(\@attempts, [sort { $a <=> $b } uniq @attempts], 'in order');
};

subtest 'owners' => sub {
    my $as = sub { [$_[0] eq '' ? () : "X-User: $_[0]"] };
    my %id = map { $_ => "of-$_-0123456789" } qw/ alice bob /;
    $id{''} = 'of-nobody-0123456789';
    my $put = sub {
        my ($who, $id) = @_;
        return curl($n->url("/upload/$id?id=$id", 'owned'), body => 'x',
            headers => $as->($who));
    };
    my @answers;
    for my $who (sort keys %id) {
        push @answers, $put->($who, $id{$who});
        is($answers[-1]{status}, 201, "'$who' stores");
    }
    for my $who (sort keys %id) {
        for my $whose (sort keys %id) {
            my $r = curl($n->url("/transfers/$id{$whose}", 'owned'),
                headers => $as->($who));
            push @answers, $r;
            is($r->{status}, $who eq $whose ? 200 : 404,
                "'$who' looks at that of '$whose'");
            is($r->{json}{error}, $who eq $whose ? undef : 'NoSuchTransfer',
                'as if it were unknown');
        }
        my $r = curl($n->url('/transfers/?limit=1000', 'owned'),
            headers => $as->($who));
        push @answers, $r;
        my @listed = map { $_->{transferId} } @{$r->{json}{transfers}};
        if ($who eq '') {
            is(scalar(grep { /alice|bob/ } @listed), 0,
                'nobody sees what has no owner');
            ok((grep { $_ eq $id{''} } @listed), 'that at least');
        } else {
            is_deeply(\@listed, [$id{$who}], "the list of '$who'");
            $r = curl($n->url('/transfers/?limit=1', 'owned'),
                headers => $as->($who));
            is($r->{json}{next}, undef, 'others do not lengthen it');
            $r = curl($n->url('/transfers/?state=failed', 'owned'),
                headers => $as->($who));
            is_deeply($r->{json}{transfers}, [], 'nor does a filter');
        }
    }
    is(get("/transfers/$id{alice}")->{status}, 200,
        'a location without s3_owner shows all');
    push @answers, get('/list/?limit=1000'), get('/metrics');

    my $r = $put->('bob', $id{alice});
    is($r->{status}, 409, 'an id of another owner');
    push @answers, $r;
    is(curl($n->url("/transfers/$id{alice}", 'owned'),
        headers => $as->('alice'))->{json}{state}, 'completed',
        'alice still has hers');
    is($put->('alice', $id{alice})->{status}, 201, 'and uses it again');

    my $c = begin('alice-is-at-work-0', $n->port('owned'), 'X-User: alice');
    ok((wait_for { state_of('alice-is-at-work-0') eq 'active' }), 'active');
    $r = curl($n->url('/transfers/alice-is-at-work-0', 'owned'),
        headers => $as->('bob'));
    is($r->{status}, 404, 'not for bob');
    $c->close;

    my @told = grep { lc($_->{body}) =~ /"owner"|x-user/
        || join(' ', %{$_->{headers}}) =~ /owner/i } @answers;
    is(scalar @told, 0, 'no answer has an owner');
    is(curl($n->url('/upload/o', 'owned'), body => 'x',
        headers => ['X-User: ' . 'x' x 129])->{status}, 400,
        'a name that is too long');
    wait_for { totals()->{active} == 0 };
};

# Tiny objects, one after the other on one connection
sub put_all {
    my ($port, @ids) = @_;
    my $c = $t->raw($port);
    my $bad = 0;
    for my $id (@ids) {
        $c->send(join "\r\n", "PUT /upload/$id?id=$id HTTP/1.1", 'Host: test',
            'Content-Length: 3', '', 'abc');
        my $r = $c->response;
        $bad++ if $r->{status} != 201;
    }
    $c->close;
    is($bad, 0, @ids . ' objects');
}

subtest 'lists' => sub {
    my $of = $t->nginx(<<'EOF', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    keepalive_requests 100000;
    s3_credentials static testaccess testsecret;
    s3_endpoint %%NULL%%;
    s3_bucket bucket;
    s3_transfer_id $arg_id;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /upload/ { s3_upload; }
        location /refused/ { s3_endpoint %%REFUSING%%; s3_upload; }
        location /transfers/ { s3_status list; }
    }
}
EOF
    my $list = sub { curl($of->url("/transfers/$_[0]")) };
    my $ids = sub { map { $_->{transferId} } @{$_[0]{json}{transfers}} };
    my $r = $list->('');
    is_deeply([@{$r->{json}}{qw/ transfers next /}], [[], undef], 'none yet');

    # ids that differ in their first bytes and in their last, of any length
    my @all = map {
        my $head = ('a', 'Z', '0', '_', '-', 'bcdefghi', 'bcdefghj')[$_ % 7];
        sprintf '%s-%s-%04d', $head, 'x' x (12 + $_ % 30), $_ * 7919 % 10_000;
    } 1 .. 250;
    put_all($of->port, @all);
    my @sorted = sort @all;

    my (@pages, @seen);
    my $after = '';
    do {
        $r = $list->($after eq '' ? '' : "?after=$after");
        is($r->{status}, 200, 'page');
        push @pages, scalar @{$r->{json}{transfers}};
        push @seen, $ids->($r);
        $after = $r->{json}{next};
        is($after, $seen[-1], 'the cursor is the last id') if defined $after;
    } while (defined $after && @pages < 10);
    is_deeply(\@pages, [100, 100, 50], 'pages');
    is_deeply(\@seen, \@sorted, 'each id once, in their order');
    is($r->{json}{totals}{completed}, 250, 'totals beside');
    my $one = $list->($sorted[0])->{json};
    is_deeply($list->('?limit=1')->{json}{transfers}, [$one], 'whole records');

    for ([1, 1], [64, 64], [65, 65], [128, 128], [249, 249], [250, 250],
        [1000, 250])
    {
        my ($limit, $n) = @$_;
        $r = $list->("?limit=$limit");
        is_deeply([$ids->($r)], [@sorted[0 .. $n - 1]], "limit $limit");
        is($r->{json}{next}, $n < 250 ? $sorted[$n - 1] : undef, 'cursor');
    }
    $r = $list->("?limit=125&after=$sorted[124]");
    is_deeply([$ids->($r)], [@sorted[125 .. 249]], 'the second half');
    is($r->{json}{next}, undef, 'is the last');
    $r = $list->("?after=$sorted[249]");
    is_deeply([$ids->($r)], [], 'after the last');
    is($r->{json}{next}, undef, 'nothing');
    is_deeply([$ids->($list->('?after=bbbbbbbbbbbbbbbb&limit=3'))],
        [(grep { $_ gt 'bbbbbbbbbbbbbbbb' } @sorted)[0 .. 2]],
        'after an id that is not there');

    my $failed = curl($of->url('/refused/x?id=it-failed-0123456789'),
        body => 'x');
    is($failed->{status}, 502, 'one fails');
    my @open = map { begin("active-$_-0123456789", $of->port) } 1 .. 3;
    my $aborted = begin('aborted-0123456789', $of->port);
    ok((wait_for { $ids->($list->('?state=active')) == 4 }), 'four are active');
    $aborted->close;
    ok((wait_for { $ids->($list->('?state=aborted')) == 1 }), 'one is left');
    is_deeply([$ids->($list->('?state=active'))],
        [map { "active-$_-0123456789" } 1 .. 3], 'active');
    is_deeply([$ids->($list->('?state=failed'))], ['it-failed-0123456789'],
        'failed');
    is_deeply([$ids->($list->('?state=aborted'))], ['aborted-0123456789'],
        'aborted');
    is_deeply([$ids->($list->('?state=completing'))], [], 'completing');
    is_deeply([$ids->($list->('?state=completed&limit=1000'))], \@sorted,
        'completed');
    $r = $list->('?state=active&limit=2');
    is($r->{json}{next}, 'active-2-0123456789', 'a cursor of a state');
    $r = $list->('?state=active&limit=2&after=active-2-0123456789');
    is_deeply([[$ids->($r)], $r->{json}{next}],
        [['active-3-0123456789'], undef], 'followed');
    $_->close for @open;

    for my $bad (qw/ limit=0 limit=1001 limit=-1 limit=x limit= limit=1x
        limit=99999999999999999999 state=x state= state=ACTIVE after=x after=
        after=a%2fb0123456789abcde state=active&limit=0 /, 'after=' . 'x' x 65)
    {
        $r = $list->("?$bad");
        is($r->{status}, 400, $bad);
        is($r->{json}{error}, 'InvalidArgument', 'code');
        my ($name) = $bad =~ /(\w+)=[^=]*$/;
        like($r->{json}{message}, qr/^$name /, 'it names the argument');
    }
    is(get('/transfers/?limit=0')->{json}{transfers}, undef,
        'without list: none');

    put_all($of->port, map { sprintf 'm-%016d', $_ } 1 .. 1001);
    $r = $list->('?limit=1000&after=m-0000000000000000');
    is_deeply([$ids->($r)], [map { sprintf 'm-%016d', $_ } 1 .. 1000],
        'a page of 1000');
    is($r->{json}{next}, 'm-0000000000001000', 'and one more');
};

subtest 'another instance' => sub {
    my $redis = $t->own_redis;
    my $dynamodb = $t->own_dynamodb;
    $t->token(OWN_REDIS => "127.0.0.1:$redis->{port}",
        OWN_DYNAMODB => "http://127.0.0.1:$dynamodb->{port}");
    my $conf = <<'EOF';
%%MAIN%%
http {
    %%HTTP%%
    s3_credentials static testaccess testsecret;
    s3_endpoint %%NULL%%;
    s3_bucket bucket;
    s3_transfer_id $arg_id;
    s3_owner $http_x_user;
    s3_progress_redis redis://%%OWN_REDIS%%;
    s3_progress_dynamodb %%OWN_DYNAMODB%% table=transfers;
    server {
        listen 127.0.0.1:PORT;
        location /upload/ { s3_upload; }
        location /transfers/ { s3_status list; }
        location /all/ { s3_owner ''; s3_status; }
        location = /ssi {
            ssi on;
            default_type text/html;
            return 200 '[<!--#include virtual="/transfers/$arg_id" -->]';
        }
    }
}
EOF
    my ($one, $two) = map { my $port = "%%PORT_$_%%";
        $t->nginx($conf =~ s/PORT/$port/r) } 1, 2;
    my $id = 'of-the-first-instance';
    my @alice = (headers => ['X-User: alice']);
    my $from = sub { my ($path, @o) = @_; curl($two->url($path, 2), @o) };

    my $c = begin($id, $one->port(1), 'X-User: alice');
    ok((wait_for { $from->("/transfers/$id", @alice)->{status} == 200 }),
        'it is seen by the second');
    my $r = $from->("/transfers/$id", @alice);
    is($r->{json}{state}, 'active', 'under way');
    unlike($r->{body}, qr/alice/, 'not whose it is');
    is($from->("/transfers/$id")->{status}, 404, 'others do not');
    is($from->("/transfers/$id", headers => ['X-User: bob'])->{status}, 404,
        'nor these');
    is_deeply($from->('/transfers/', @alice)->{json}{transfers}, [],
        'a list is of the instance alone');
    is($from->("/ssi?id=$id", @alice)->{json}[0]{state}, 'active',
        'included in a page');
    $c->send('x' x 90);
    my $record = JSON::PP->new->decode($c->response->{body});
    ok((wait_for { $from->("/transfers/$id", @alice)->{json}{state}
        eq 'completed' }), 'its end');
    is_deeply($from->("/transfers/$id", @alice)->{json}, $record,
        'the same record');
    ok((wait_for { (($dynamodb->get_item($id) || {})->{state} || '')
        eq 'completed' }), 'in DynamoDB');

    # of records in both, the nearer store answers; without it the other
    $redis->cmd('DEL', "transfer:$id");
    is_deeply($from->("/transfers/$id", @alice)->{json}, $record,
        'from DynamoDB');
    is($from->('/transfers/unknown-0123456789')->{status}, 404, 'in neither');
    my $item = $dynamodb->item($id);
    $item->{expiresAt}{S} = '2020-01-01T00:00:00.000Z';
    $dynamodb->put_item($item);
    is($from->("/transfers/$id", @alice)->{status}, 404, 'one that expired');

    kill 'STOP', $redis->{pid};
    my @waiting = map { $t->raw($two->port(2)) } 1 .. 5;
    $_->send("GET /transfers/somebody-left-0123 HTTP/1.1\r\nHost: t\r\n\r\n")
        for @waiting;
    $waiting[0]->reset;
    $waiting[1]->close;
    my $still = $waiting[2]->response(0.5);
    is($still, undef, 'a store that hangs: the answer waits');
    is($from->('/transfers/')->{status}, 200, 'others are answered');
    kill 'CONT', $redis->{pid};
    is($waiting[$_]->response->{status}, 404, 'until it goes on') for 2 .. 4;

    $redis->stop;
    $dynamodb->stop;
    $r = $from->('/transfers/somebody-else-0123');
    is($r->{status}, 503, 'neither answers');
    is($r->{json}{error}, 'StoreUnavailable', 'code');
    $r = curl($one->url("/transfers/$id", 1), @alice);
    is($r->{status}, 200, 'its own instance needs no store');
};

subtest 'a full zone' => sub {
    my $conf = <<'EOF';
%%MAIN%%
http {
    %%HTTP%%
    s3_credentials static testaccess testsecret;
    s3_endpoint %%NULL%%;
    s3_bucket bucket;
    s3_transfer_id $arg_id;
    s3_transfer_zone SIZE;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /upload/ { s3_upload; }
        location /transfers/ { s3_status list; }
    }
}
EOF
    my $of = $t->nginx($conf, workers => 2, start => 0);
    my ($size, $status, $said);
    for ($size = 4; $size < 512; $size += 4) {
        my $text = $conf =~ s/SIZE/${size}k/r;
        ($status, $said) = $of->test_conf($text);
        last if $status == 0;
        like($said, qr/\[emerg\].* zone "s3_transfer" .*is too small/,
            "${size}k") or last;
    }
    is($status, 0, "${size}k is large enough") or diag $said;
    $of->conf($conf =~ s/SIZE/${size}k/r);
    $of->start;
    my $totals = sub { curl($of->url('/transfers/'))->{json}{totals} };
    my $slots = $totals->()->{slots};
    cmp_ok($slots, '>', 0, "$slots slots");

    my @ids = map { sprintf 'finished-%08d', $_ } 1 .. $slots + 3;
    put_all($of->port, @ids);
    is($totals->()->{slotsUsed}, $slots, 'all used');
    my $known = sub { grep {
        curl($of->url("/transfers/$_"))->{status} == 200 } @_ };
    is_deeply([$known->(@ids)], [@ids[3 .. $#ids]],
        'the oldest were given up');
    is($totals->()->{untracked}, 0, 'each had a record');

    my @live = map { sprintf 'live-0123456789-%02d', $_ } 1 .. $slots + 2;
    my @clients;
    for (@live) {
        my $started = $totals->()->{started};
        push @clients, begin($_, $of->port);
        wait_for { $totals->()->{started} > $started };
    }
    my $now = $totals->();
    is_deeply([@$now{qw/ untracked active slotsUsed /}],
        [2, $slots, $slots], 'more are alive than the zone holds');
    is_deeply([$known->(@ids)], [], 'no room for what is over');
    is_deeply([$known->(@live)], [@live[0 .. $slots - 1]],
        'the first are seen');
    is(@{curl($of->url('/transfers/'))->{json}{transfers}}, $slots, 'a list');
    my @status = map { $_->send('x' x 90); $_->response->{status} } @clients;
    is_deeply([uniq @status], [201], 'all of them are stored');
    $now = $totals->();
    is_deeply([@$now{qw/ active completed failed aborted /}],
        [0, 2 * $slots + 5, 0, 0], 'and counted');
    put_all($of->port, @ids);
    is_deeply([$known->(@ids)], [@ids[3 .. $#ids]], 'it goes on');
};

subtest 'nginx -t' => sub {
    my $of = $t->nginx('', start => 0);
    my $conf = <<'EOF';
%%MAIN%%
http {
    %%HTTP%%
    HTTP
    server {
        listen 127.0.0.1:%%PORT%%;
        location /a/ { LOCATION }
        SERVER
    }
}
EOF
    my $s3 = 's3_endpoint %%NULL%%; s3_bucket bucket;'
        . ' s3_credentials static testaccess testsecret;';
    my $test = sub {
        my (%o) = @_;
        my $text = $conf;
        for my $name (qw/ HTTP LOCATION SERVER /) {
            my $value = defined $o{$name} ? $o{$name} : '';
            $text =~ s/(?<!%)$name(?!%)/$value/;
        }
        return $of->test_conf($text);
    };
    my ($status, $said) = $test->(LOCATION => "$s3 s3_upload;");
    is($status, 0, 'a good one') or diag $said;

    my @owned = qw/ x-amz-date X-Amz-Date Host Authorization Content-Length
        x-amz-content-sha256 x-amz-security-token x-amz-checksum-crc32
        x-amz-copy-source x-amz-meta-transfer-id transfer-encoding Expect
        Content-MD5 Connection if-match if-none-match x-amz-mp-object-size /;
    my @cases = (
        ['s3_status bogus;', 'invalid parameter "bogus" in "s3_status"'],
        ['s3_status events;', 'invalid parameter "events" in "s3_status"'],
        ['s3_status json prometheus;', 'invalid parameter "prometheus"'],
        ['s3_status list list;', 'invalid parameter "list"'],
        ['s3_status id=;', 'invalid parameter "id="'],
        ['s3_status; s3_status;', '"s3_status" directive is duplicate'],
        ["$s3 s3_upload; s3_upload;", '"s3_upload" directive is duplicate'],
        ["$s3 s3_upload; s3_status;",
            '"s3_status" directive cannot stand beside "s3_upload"'],
        ["$s3 s3_upload a b;", 'invalid number of arguments in "s3_upload"'],
        ['s3_bucket bucket; s3_credentials static testaccess testsecret;'
            . ' s3_upload;',
            '"s3_upload" in location "/a/" needs "s3_endpoint"'],
        ['s3_endpoint %%NULL%%; s3_credentials static testaccess testsecret;'
            . 's3_upload;', '"s3_upload" in location "/a/" needs "s3_bucket"'],
        ['s3_endpoint %%NULL%%; s3_bucket bucket; s3_upload;',
            '"s3_upload" has no credentials: '],
        ['s3_endpoint ftp://x; s3_bucket bucket; s3_credentials static'
            . ' testaccess testsecret; s3_upload;',
            'invalid "s3_endpoint" "ftp://x"'],
        (map { ["$s3 s3_region '$_'; s3_upload;", qq(invalid "s3_region" "$_")] }
            'a b', 'a/b', '$region', 'x' x 65),
        ["$s3 s3_part_size 1m; s3_upload;",
            '"s3_part_size" 1048576 is outside'],
        ["$s3 s3_window 31m; s3_upload;", '"s3_window" 32505856 is smaller '
            . 'than two parts of "s3_part_size" 16777216'],
        ["$s3 s3_part_concurrency 0; s3_upload;", 'must be '],
        ["$s3 s3_tries 0; s3_upload;", 'must be '],
        ["$s3 s3_checksum md5; s3_upload;", 'invalid value "md5"'],
        ["$s3 s3_progress_log loud; s3_upload;", 'invalid value "loud"'],
        ["$s3 s3_progress_step 1% 0; s3_upload;", 'has an invalid size'],
        ["$s3 s3_progress_step 1% 1m x; s3_upload;", 'has an invalid size'],
        ["$s3 s3_progress_step 1% 1m; s3_progress_step 1% 1m; s3_upload;",
            '"s3_progress_step" directive is duplicate'],
        ["$s3 s3_resumable; s3_upload;", 'unknown directive "s3_resumable"'],
        (map { ["$s3 s3_progress_step $_ 100m; s3_upload;",
            qq(invalid percentage "$_" in "s3_progress_step", it must be )
            . 'between 0.01% and 100%'] } qw/ 0% 101% 1 x% % 1.001% -1% /),
        (map { ["s3_object_header $_ x;", '"s3_object_header" cannot set "'
            . lc($_) . '": the module sends it itself'] } @owned),
        ['s3_object_header "a b" x;', 'invalid header name "a b"'],
        ['s3_object_header "a:" x;', 'invalid header name "a:"'],
        ['s3_metadata transfer-id x;',
            '"s3_metadata" cannot set "x-amz-meta-transfer-id"'],
    );
    for (@cases) {
        my ($location, $message) = @$_;
        ($status, $said) = $test->(LOCATION => $location);
        is($status, 1, $location =~ s/\Q$s3\E //r);
        like($said, qr/\[emerg\].*\Q$message\E/, 'message');
        unlike($said, qr/testsecret/, 'no secret');
    }

    ($status, $said) = $test->(HTTP => 's3_memory 84m;',
        LOCATION => "$s3 s3_upload;");
    is($status, 1, 'too little memory for the default window');
    my $text = '"s3_memory" 88080384 is smaller than "s3_window" 83886080 + 5m';
    like($said, qr/\Q$text\E/, 'both are named');
    ($status) = $test->(HTTP => 's3_memory 85m;',
        LOCATION => "$s3 s3_upload;");
    is($status, 0, 'just enough');
    for my $idle (qw/ idle=x idle=0 keep=5s /) {
        ($status, $said) = $test->(HTTP => "s3_memory 85m $idle;",
            LOCATION => "$s3 s3_upload;");
        like("$status $said", qr/^1 .*invalid parameter "$idle" of "s3_memory"/s,
            "s3_memory $idle");
    }
    ($status, $said) = $test->(HTTP => 's3_transfer_zone 28k;',
        LOCATION => 's3_status;');
    is($status, 1, 'too small a zone');
    $text = 'zone "s3_transfer" of 28672 bytes is too small, it needs at least';
    like($said, qr/\Q$text\E \d+/, 'it says what it needs');
    ($status, $said) = $test->(SERVER => 'location ~ x { s3_status; }');
    is($status, 1, 'a location without a prefix');
    like($said, qr/"s3_status" needs id= in location "x", which has no prefix/,
        'what it needs');
    ($status, $said) = $test->(SERVER => 'location "" { s3_status; }');
    is($status, 0, 'an empty prefix is one') or diag $said;
    ($status, $said) = $test->(SERVER => 's3_upload;');
    like($said, qr/"s3_upload" directive is not allowed here/,
        'not in a server');
    ($status, $said) = $test->(SERVER => 's3_transfer_zone 1m;');
    like($said, qr/"s3_transfer_zone" directive is not allowed here/, 'nor so');
};

$t->expect_errors(qr/s3 PutObject failed: 403 Fake403 "as scripted"/);
