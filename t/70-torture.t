#!/usr/bin/perl

# The N-th allocation of a worker fails, and the N-th connect, recv, send and
# so on fails or comes short, over uploads, status queries and a reload: an
# error answer or a retry that ends well, never a crash, a hang, a leak, a wrong
# object, an upload left open or a record that stays active.
#
# Of allocations the N-th of all fails, and the first of the N-th place in the
# code. N is sampled by a fixed seed: the first few, some of the last, and some
# of all that an unharmed run has. T_TORTURE=n: n times as many.
# T_TORTURE_SEED: others. T_TORTURE_ROW: only the rows whose name matches;
# T_TORTURE_N: this N alone.

use strict;
use warnings;

use lib 't/lib';
use HTTP::Tiny;
use JSON::PP ();
use List::Util qw/ max min shuffle uniq /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Null qw/ body_gen pattern /;
use S3T::Torture qw/ talk /;

use constant SMALL => 3000;
use constant LARGE => 5 * MB + 3000;

my $more = $ENV{T_TORTURE} || 1;
srand($ENV{T_TORTURE_SEED} || 70);

my $t = S3T->new(bucket => 0);
my $null = S3T::Null->new($t->dir, '--verify', '--crc32', '--port', 0,
    '--tls-port', 0, '--cert', $t->certs . '/server.pem', '--key',
    $t->certs . '/server.key');
# here each multipart upload ends with a look at the object
my $losing = S3T::Null->new($t->dir, '--verify', '--crc32', '--complete-lost',
    1);
my $torture = S3T::Torture->new($t->dir);
my $redis = $t->redis;

$t->token(NULL => $null->url, NULL_TLS => $null->url('tls'),
    LOSING => $losing->url);

my $n = $t->nginx(<<'EOF', env => $torture->env);
%%MAIN%%
http {
    %%HTTP%%
    keepalive_requests 1000000;
    client_body_timeout 3s;
    client_header_timeout 3s;
    send_timeout 3s;
    lingering_timeout 1s;
    s3_endpoint %%NULL%%;
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    s3_checksum crc32;
    s3_part_size 5m;
    s3_memory 64m;
    s3_tries 4;
    s3_connect_timeout 1s;
    s3_send_timeout 1s;
    s3_read_timeout 2s;
    s3_keepalive_timeout 1s;
    s3_transfer_id $arg_id;
    s3_progress_redis redis://%%REDIS%% prefix=%%PREFIX%%;
    s3_progress_dynamodb %%NULL%% table=table;
    s3_reaper redis lease=3s;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        location /put/ { s3_upload; }
        location /lost/ { s3_endpoint %%LOSING%%; s3_upload; }
        location /tls/ {
            s3_endpoint %%NULL_TLS%%;
            s3_ssl_trusted_certificate %%CA%%;
            s3_upload;
        }
        location /transfers/ { s3_status; }
        location /list/ { s3_status list; }
        location = /metrics { s3_status prometheus; }
    }
}
EOF


# Where nginx itself tells that something failed, beside errors
my $failed = qr/(?:malloc|calloc|posix_memalign|realloc)\(.*failed
    | socket\(\)\ failed | epoll_ctl\( | cannot\ be\ respawned
    | ^(?!.*ignoring\ stale).*malloc\ failure/x;

# What is asked without harm

my %http = map { $_ => HTTP::Tiny->new(timeout => 5, proxy => undef,
    http_proxy => undef) } qw/ nginx null /;

sub status {
    my ($path) = @_;
    my $r = $http{nginx}->get($n->url($path || '/transfers/'));
    return eval { JSON::PP->new->utf8->decode($r->{content}) } || {};
}

sub stats {
    my @stats = ($null->stats, $losing->stats);
    return { map { $_ => $stats[0]{$_} + $stats[1]{$_} } keys %{$stats[0]} };
}

# its size, undef: there is none
sub object {
    my ($key) = @_;
    my $s3 = $key =~ /^lost/ ? $losing : $null;
    my $r = $http{null}->head($s3->url . "/bucket/$key");
    return $r->{status} == 200 ? $r->{headers}{'content-length'} : undef;
}

# what the store in DynamoDB holds of a transfer
sub item {
    my ($id) = @_;
    my $r = $http{null}->post($null->url . '/', {
        headers => { 'X-Amz-Target' => 'DynamoDB_20120810.GetItem' },
        content => '{"TableName":"table","Key":{"transferId":{"S":"' . $id
            . '"}}}' });
    return ($r->{content} =~ /"state":\s*\{"S":\s*"(\w+)"/)[0];
}

sub alive {
    my ($pid) = @_;
    return (read_file("/proc/$pid/stat") || '') =~ /\) [^ZX] /;
}

sub descriptors { scalar(() = glob "/proc/$_[0]/fd/*") }

# All is over, memory is given back, stores are there again: a new worker has
# not yet tried DynamoDB
my $reloads = 0;

sub settled {
    my ($said, $active, $memory);
    my $stores = $reloads ? 1 : 2;
    wait_for {
        $said = $http{nginx}->get($n->url('/transfers/'))->{content};
        ($active) = $said =~ /"active":(\d+)/;
        ($memory) = $said =~ /"memoryUsed":(\d+)/;
        defined $active && defined $memory && !$active && !$memory
            && (() = $said =~ /"up":1/g) >= $stores;
    } 10, 0.01;
    return !defined $memory ? "no status: $said"
        : $active || $memory ? "active $active, memory $memory" : ();
}

# the lines of error.log since the last time
my $seen = 0;
sub lines {
    open my $fh, '<', "$n->{dir}/error.log" or return '';
    seek $fh, $seen, 0;
    local $/;
    my $text = <$fh>;
    return defined $text ? $text : '';
}

sub news {
    my $text = lines();
    $seen += length $text;
    return $text;
}


# Uploads: each takes an id and a key and returns what talk() does

my %body = (SMALL, pattern(SMALL), LARGE, pattern(LARGE));
my %chunked = map { $_ => join('', (map { sprintf("%x\r\n", length) . "$_\r\n" }
    unpack '(a300000)*', $body{$_}), "0\r\n\r\n") } keys %body;

sub put {
    my ($size, $where) = @_;
    $where ||= 'put';
    return sub {
        my ($id, $key) = @_;
        my $text = "PUT /$where/$key?id=$id HTTP/1.1\r\nHost: t\r\n"
            . "Connection: close\r\nContent-Length: $size\r\n\r\n$body{$size}";
        return talk($n->port, \$text);
    };
}

sub put_chunked {
    my ($size) = @_;
    return sub {
        my ($id, $key) = @_;
        my $text = "PUT /put/$key?id=$id HTTP/1.1\r\nHost: t\r\n"
            . "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            . $chunked{$size};
        return talk($n->port, \$text);
    };
}

sub put_tls {
    my ($size) = @_;
    return sub {
        my ($id, $key) = @_;
        my $r = body_gen($t->dir, $n->url("/tls/$key?id=$id", 'tls'), $size,
            '--cacert', $t->ca)->wait(10);
        return { %$r, hung => $r->{exit} < 0 };
    };
}

sub put_h2 {
    my ($size) = @_;
    my $file = write_file($t->dir . "/body-$size", $body{$size});
    return sub {
        my ($id, $key) = @_;
        return h2_put($n->port('h2'), "/put/$key?id=$id", $file, timeout => 10,
            length => $size);
    };
}

# one whose client leaves once its first part was sent: it is aborted
sub cut {
    my ($id, $key) = @_;
    my $text = "PUT /put/$key?id=$id HTTP/1.1\r\nHost: t\r\nContent-Length: "
        . (2 * LARGE) . "\r\n\r\n$body{+LARGE}";
    my $c = $t->raw($n->port);
    $c->send($text);
    wait_for { status("/transfers/$id")->{partsStored} } 1, 0.005;
    $c->close;
    return { status => 0 };
}

my ($open, $orphans, $lost, $failing) = (0, 0, 0, '');

# what is wrong after an upload: a list of sayings
sub uploaded {
    my ($r, $id, $key, $size) = @_;
    my @bad = settled();
    my $record = status("/transfers/$id");
    my $state = $record->{state} || 'none';
    my ($there) = grep { defined } map { object("$_/$key") }
        qw/ put tls lost /;

    push @bad, 'hung' if $r->{hung};
    # the client is to blame only where it could not be read
    push @bad, "status $r->{status}"
        if $r->{status} !~ /^(0|201|50[0-4])$/
            && ($failing ne 'recv' || $r->{status} !~ /^40[08]$/);
    push @bad, "state $state" if $state !~ /^(none|completed|failed|aborted)$/;
    push @bad, "201, state $state" if $r->{status} == 201
        && $state ne 'completed';
    push @bad, "$r->{status}, state $state" if $state eq 'completed'
        && $r->{status} !~ /^(0|201|500)$/;
    $lost++ if $state eq 'completed' && $r->{status} != 201;

    if ($state eq 'completed') {
        push @bad, 'no object' if !defined $there;
        push @bad, "$there bytes of $size" if defined $there && $there != $size;
    } elsif (defined $there) {
        push @bad, "an object, state $state"
            if ($record->{error} || '') !~ /unknown_outcome/;
    }

    # the stores are told of the end, too
    my $stored;
    wait_for {
        $stored = ($redis->hgetall($t->prefix . $id) || {})->{state};
        !defined $stored || $stored eq $state;
    } 4, 0.01;
    push @bad, "$stored in Redis, state $state"
        if defined $stored && $stored ne $state;

    my $item = item($id);
    push @bad, "$item in DynamoDB, state $state"
        if defined $item && $item ne $state && !wait_for {
            $item = item($id);
            $item eq $state;
        } 4, 0.05;

    # a multipart upload whose name never came
    my $stats;
    wait_for { ($stats = stats())->{open_uploads} <= $open } 5, 0.02;
    push @bad, 'refused by S3' if $stats->{bad};
    if ($stats->{open_uploads} > $open) {
        if (lines() =~ /CreateMultipartUpload failed|stays open/) {
            $orphans++;
        } else {
            push @bad, 'an upload is open';
        }
    }
    $open = $stats->{open_uploads};
    return @bad;
}


# The rows: what is done, and what is done to it

my ($fired, $trials, @theirs) = (0, 0);
my $number = 0;

# one: action(id, key), verdict(result, id, key)
sub trial {
    my ($row, $i, %o) = @_;
    my ($name, $op, $mode, $action, $verdict) = @$row;
    my $id = sprintf 'torture-%016d', ++$number;
    my $key = "k$number";
    my ($worker) = $n->workers;

    $o{pid} = $o{old} ? $worker : $o{other} ? -$worker : 0;
    $failing = $op;
    $torture->fail($op, $i, mode => $mode, %o);
    my $r = $action->($id, $key);
    my $look = $torture->off;
    my @bad = $verdict->($r, $id, $key);
    my $log = news();
    $trials++;
    $fired++ if $look->{fired};
    push @bad, 'a worker died' if !$o{reloads} && !alive($worker)
        || $log =~ /exited on signal/;
    push @bad, map { "alert: $_" } grep { !/$failed/ }
        $log =~ /\[alert\] [^:]*: (.*)/g;
    return if !@bad;

    my $text = "$name, $op $mode, N $i"
        . (($o{times} || 1) > 1 ? " and $o{times} in all" : '') . ': '
        . join('; ', @bad) . "\n" . join '', map { "        $_\n" }
        $torture->names($look, S3T::Nginx::module_path(),
            S3T::Nginx::binary());
    if ($look->{fired} && !$look->{ours}) {
        push @theirs, $text;
        return;
    }
    return $text;
}

# counts, samples, tries
sub row {
    my ($row, $share, %o) = @_;
    my ($name, $op, $mode, $action, $verdict) = @$row;
    my $from = time;
    if ($ENV{T_TORTURE_ROW} && "$name, $op $mode" !~ /$ENV{T_TORTURE_ROW}/) {
        Test::More::pass("$name, $op $mode: not asked for");
        return;
    }
    my @bad;

    my $id = sprintf 'torture-%016d', ++$number;
    my ($worker) = $n->workers;
    $torture->count($op, mode => $mode,
        pid => $o{old} ? $worker : $o{other} ? -$worker : 0);
    my $r = $action->($id, "k$number");
    my $count = $torture->off->{count};
    push @bad, map { "$name, unharmed: $_\n" } $verdict->($r, $id, "k$number");
    push @bad, "$name, unharmed: $r->{status}\n"
        if $r->{status} !~ ($name =~ /cut/ ? qr/^0$/ : qr/^20[01]$/);

    $share = int($share * $more);
    my @n = (1 .. min($count, int $share / 3));
    # the end, where most is decided, and anywhere
    my @end = max(1, $count - 100) .. $count;
    push @n, (shuffle(@end))[0 .. $share / 3 - 1] if $count > $share / 3;
    push @n, (shuffle(@n + 1 .. $count))[0 .. $share - @n - 1]
        if $count > @n && $share > @n;
    @n = uniq sort { $a <=> $b } grep { defined && $_ <= $count } @n;
    @n = $ENV{T_TORTURE_N} if $ENV{T_TORTURE_N};

    for my $i (@n) {
        push @bad, trial($row, $i, %o);
        push @bad, trial($row, $i, %o, times => 4)
            if $op eq 'alloc' && rand() < 0.25;
    }
    is(scalar @bad, 0, sprintf '%s, %s %s: %d of %d, %.1f s', $name, $op, $mode,
        scalar @n, $count, time - $from)
        or diag(join "\n", @bad);
}

my %modes = (
    alloc => [qw/ error place /], mmap => ['error'], socket => ['error'],
    epoll => ['error'], connect => ['error', 'again'],
    recv => [qw/ error short again eof /], send => [qw/ error short again /],
);
my %share = (alloc => 8, mmap => 3, socket => 1, epoll => 3, connect => 2,
    recv => 5, send => 4);

# more of them: the whole of the small ones
sub rows {
    my ($name, $factor, $action, $verdict, $ops, %o) = @_;
    for my $op (@$ops) {
        for my $mode (@{$modes{$op}}) {
            row([$name, $op, $mode, $action, $verdict],
                max(1, $share{$op} * $factor * ($mode eq 'place' ? 0.5 : 1)),
                %o);
        }
    }
}

my @all = qw/ alloc connect recv send socket epoll mmap /;

# warm: what is built once is there, and idle connections as well
my %upload = (
    'a small upload' => [put(SMALL), SMALL],
    'a small chunked upload' => [put_chunked(SMALL), SMALL],
    'a multipart upload' => [put(LARGE), LARGE],
    'an upload whose Complete is lost' => [put(LARGE, 'lost'), LARGE],
    'a chunked multipart upload' => [put_chunked(LARGE), LARGE],
    'an upload over HTTP/2' => [put_h2(LARGE), LARGE],
    'an upload over TLS' => [put_tls(LARGE), LARGE],
);
for my $name (sort keys %upload) {
    my ($action, $size) = @{$upload{$name}};
    my $id = 'warm-' . 'x' x 16 . ++$number;
    is($action->($id, "warm$number")->{status}, 201, "$name, unharmed");
}
settled();
wait_for { sleep 0.2; descriptors(($n->workers)[0]) < 20 } 3;
my $before = { descriptors => descriptors(($n->workers)[0]),
    live => $torture->look->{live}, worker => ($n->workers)[0] };

# so that it is known where to look for what is left
{
    my $c = $t->raw($n->port);
    $c->send("PUT /put/open?id=open-@{['x' x 16]} HTTP/1.1\r\nHost: t\r\n"
        . 'Content-Length: ' . 2 * LARGE . "\r\n\r\n$body{+LARGE}");
    ok((wait_for { @{$redis->cmd('ZRANGE', $t->prefix . '#open', 0, -1)} }),
        'an open upload is known in Redis');
    $c->close;
    settled();
}

sub verdict {
    my ($size) = @_;
    return sub { uploaded(@_, $size) };
}

subtest 'uploads' => sub {
    my %factor = ('a small chunked upload' => 0.6,
        'a chunked multipart upload' => 0.7,
        'an upload whose Complete is lost' => 0.7,
        'an upload over HTTP/2' => 0.4, 'an upload over TLS' => 0.7);
    for my $name (sort keys %upload) {
        my ($action, $size) = @{$upload{$name}};
        rows($name, $factor{$name} || 1, $action, verdict($size),
            $name =~ /small/ ? [grep { $_ ne 'connect' } @all] : \@all);
    }
    rows('an upload that is cut', 0.4, \&cut, sub {
        my @bad = uploaded(@_, 2 * LARGE);
        my $record = status("/transfers/$_[1]");
        push @bad, 'completed' if ($record->{state} || '') eq 'completed';
        return @bad;
    }, [qw/ alloc connect recv send epoll /]);
};

my $known = sprintf 'known-%016d', 1;
my $far = sprintf 'known-%016d', 2;
put(SMALL)->($known, 'known');
wait_for { $redis->hgetall($t->prefix . $known) };
{
    my $hash = $redis->hgetall($t->prefix . $known);
    $redis->cmd('HSET', $t->prefix . $far, %$hash, transferId => $far);
}

# what was asked: the right thing, or an error, and then the right thing
sub query {
    my ($path) = @_;
    return sub {
        my $text = "GET $path HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
        return talk($n->port, \$text);
    };
}

sub answered {
    my ($path, $pattern) = @_;
    return sub {
        my ($r) = @_;
        # a reply that comes from Redis shows that it is there again
        my $then;
        wait_for {
            $then = query($path)->();
            $then->{status} == 200 && $then->{body} =~ $pattern
                && status("/transfers/$far")->{state};
        } 10, 0.02;
        my @bad = settled();
        push @bad, 'hung' if $r->{hung};
        push @bad, "status $r->{status}" if $r->{status} !~ /^(0|200|50[0-4])$/;
        push @bad, "200: $r->{body}"
            if $r->{status} == 200 && $r->{body} !~ $pattern
            && length $r->{body} == ($r->{head} =~ /^Content-Length: (\d+)/m)[0];
        push @bad, "then: $then->{status} $then->{body}"
            if $then->{status} != 200 || $then->{body} !~ $pattern;
        return @bad;
    };
}

subtest 'status queries' => sub {
    my $whole = qr/^\{.*\}\n?\z/s;
    for (
        ['the status of one', "/transfers/$known", qr/"$known".*\}\s*\z/s],
        ['a status from Redis', "/transfers/$far", qr/"$far".*\}\s*\z/s],
        ['totals and a list', '/list/?limit=30',
            qr/^\{.*"transfers".*\}\s*\z/s],
        ['metrics', '/metrics', qr/^s3_transfer_.*\n\z/ms],
    ) {
        my ($name, $path, $pattern) = @$_;
        rows($name, 1, query($path), answered($path, $pattern),
            [qw/ alloc recv send epoll /]);
    }
};

# no worker has grown, unless one was replaced
subtest 'nothing is left of it' => sub {
    is_deeply([settled()], [], 'no transfer, no memory');
    my $entries;
    wait_for {
        $entries = $redis->cmd('ZRANGE', $t->prefix . '#open', 0, -1);
        !@$entries;
    } 15, 0.1;
    is_deeply($entries, [], 'no open upload in Redis');
    my ($worker) = $n->workers;
    is($worker, $before->{worker}, 'the worker that there was');
    my $now;
    wait_for {
        ($now = descriptors($worker)) <= $before->{descriptors}
    } 4, 0.1;
    cmp_ok($now, '<=', $before->{descriptors}, 'descriptors');
    # (what a first TLS connection leaves for the next, and libraries' caches)
    cmp_ok($torture->look->{live} - $before->{live}, '<',
        60 + $trials / 5, 'allocations of the worker');
};

# Half of an upload has come when nginx is reloaded: it ends in the old worker,
# which then leaves
sub over_a_reload {
    my ($id, $key) = @_;
    my ($old) = $n->workers;
    my $text = "PUT /put/$key?id=$id HTTP/1.1\r\nHost: t\r\n"
        . 'Connection: close' . "\r\nContent-Length: @{[LARGE]}\r\n\r\n";
    my $c = $t->raw($n->port);
    my $half = 3 * MB;
    $c->send($text . substr $body{+LARGE}, 0, $half);
    kill 'HUP', $n->pid;
    wait_for { !grep { $_ == $old } $n->workers } 10, 0.005;
    $c->send(substr $body{+LARGE}, $half);
    my $said = $c->read_until(qr/\z./, 10);
    my $r = { status => ($said =~ m{^HTTP/1\.1 (\d+)})[0] || 0,
        hung => !$c->{eof} };
    $c->close;
    $r->{stays} = !wait_for { !alive($old) } 15, 0.005;
    return $r;
}

# A reload, and the first upload of the new worker
sub with_a_new_worker {
    my ($id, $key) = @_;
    my ($old) = $n->workers;
    kill 'HUP', $n->pid;
    my $new;
    wait_for {
        my @workers = $n->workers;
        ($new) = grep { $_ != $old } @workers;
        $new && @workers == 1 || lines() =~ /cannot be respawned/
    } 10, 0.005;
    my $r = $new && alive($new) ? put(LARGE)->($id, $key) : { status => 0 };
    $r->{stays} = !wait_for { !alive($old) } 15, 0.005;
    return $r;
}

my $given_up = 0;

sub reloaded {
    my ($r, @o) = @_;
    if (lines() =~ /cannot be respawned/) {

        # nginx's way, whichever module has no memory when a worker starts
        $given_up++;
        wait_for { !$n->workers } 5;
        kill 'HUP', $n->pid;
        wait_for { $n->workers } 10, 0.005;
    }
    return (uploaded($r, @o, LARGE), $r->{stays} ? 'the old worker stays' : ());
}

subtest 'a reload' => sub {
    $reloads = 1;
    rows('an upload over a reload', 0.6, \&over_a_reload, \&reloaded,
        [qw/ alloc recv send epoll /], old => 1, reloads => 1);
    rows('a new worker', 0.6, \&with_a_new_worker, \&reloaded, \@all,
        other => 1, reloads => 1);
};

diag "$trials trials, $fired of them harmed; $orphans multipart uploads whose "
    . "name did not come, $given_up workers that did not start, $lost answers of completed uploads lost";
diag "without a frame of ours, not counted:\n", @theirs if @theirs;

$t->allow_errors(qr/./);
# each trial has looked for others
$t->allow_alerts(qr/./);
