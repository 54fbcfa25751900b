#!/usr/bin/perl

# The life of nginx around uploads: reloads, worker_shutdown_timeout, binary
# upgrades, another zone. What was begun is ended and told of, and no worker
# stays for ever.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use Time::Local qw/ timegm /;
use S3T;
use S3T::Curl qw/ h2_start h2_wait /;
use S3T::Util qw/ wait_exit /;

use constant { LARGE => 7 * MB, SMALL => 100_000 };

my $t = S3T->new;
my $s3 = $t->s3;
my $fake = $t->fake(on => { complete => { delay => 300 },
    put => { delay => 300 } });
my $deaf = $t->fake(on => { part => { delay => 300 }, put => { delay => 300 },
    abort => { status => 500 } });
$t->token(FAKE => $fake->url, DEAF => $deaf->url, SHUTDOWN => '', ZONE => '1m',
    STORES => '');

# what a new master needs that the old one starts
my $main = $ENV{T_ASAN}
    ? 'env LD_PRELOAD; env ASAN_OPTIONS; env UBSAN_OPTIONS;' : '';

my $conf = <<'EOC';
%%MAIN%%
%%SHUTDOWN%%
http {
    %%HTTP%%
    s3_transfer_zone %%ZONE%%;
    s3_memory 600m;
    s3_part_size 5m;
    s3_window 10m;
    s3_transfer_id $arg_id;
    client_body_timeout 600s;
    %%STORES%%
    add_header X-Pid $pid always;
    log_format state "$arg_id $status $s3_transfer_state";
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl http2;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        access_log %%DIR%%/state.log state;
        location /upload/ { %%S3%% s3_upload; }
        location /slow/ {
            s3_endpoint %%FAKE%%; s3_bucket bucket;
            s3_credentials static testaccess testsecret;
            s3_upload;
        }
        location /deaf/ {
            s3_endpoint %%DEAF%%; s3_bucket bucket;
            s3_credentials static testaccess testsecret;
            s3_read_timeout 500ms; s3_tries 3; s3_retry_timeout 2s;
            s3_upload;
        }
        location /status/ { access_log off; s3_status list; }
    }
}
EOC

my %bytes = map { $_ => read_file(data($_)->{path}) } LARGE, SMALL;

sub status { curl($_[0]->url("/status/$_[1]"))->{json} || {} }
sub totals { status($_[0], '')->{totals} }

sub state_of {
    my ($n, $id) = @_;
    return status($n, $id)->{state} || '';
}

# An upload of which half has come: { id, size, c, rest }. how: length, chunked,
# tls, tls-chunked
sub half {
    my ($n, $path, $id, $size, $how) = @_;
    my $c = $t->raw($n->port($how =~ /^tls/ ? 'tls' : undef),
        $how =~ /^tls/ ? (tls => $t->ca) : ());
    my $half = int $size * 0.8;
    my ($first, $rest) = unpack "a$half a*", $bytes{$size};
    my $chunked = $how =~ /chunked/;
    if ($chunked) {
        $first = sprintf("%x\r\n", $size) . $first;
        $rest .= "\r\n0\r\n\r\n";
    }
    $c->send("PUT $path$id?id=$id HTTP/1.1\r\nHost: a\r\n" . ($chunked
        ? 'Transfer-Encoding: chunked' : "Content-Length: $size")
        . "\r\n\r\n" . $first);
    return { id => $id, size => $size, c => $c, rest => $rest,
        half => $half };
}

# One of HTTP/2 of which half has come, and that goes on when the file is there:
# { id, size, half, h2 }. o: tls, chunked
sub half_h2 {
    my ($n, $path, $id, $until, %o) = @_;
    my $half = 2 * MB;
    return { id => $id, size => LARGE, half => $half, h2 => h2_start(
        $n->port($o{tls} ? 'tls' : 'h2'), "$path$id?id=$id", data(LARGE),
        hold => $half, until => $until, timeout => 120,
        tls => $o{tls} ? $t->ca : undef,
        length => $o{chunked} ? undef : LARGE) };
}

sub under_way {
    my ($n, @halves) = @_;
    return wait_for {
        !grep { (status($n, $_->{id})->{bytesTransferred} || 0)
            != $_->{half} } @halves;
    } 60;
}

# these counts, which a worker that has just answered may be about to change
sub totals_are {
    my ($n, $want, $name) = @_;
    my $is;
    wait_for {
        my $totals = totals($n);
        $is = { map { $_ => $totals->{$_} } keys %$want };
        !grep { $is->{$_} != $want->{$_} } keys %$want;
    };
    is_deeply($is, $want, $name);
}

sub is_stored {
    my ($key, $size, $name) = @_;
    is_deeply([$s3->sha256($key)], [sha256_hex($bytes{$size}), $size], $name);
}

# seconds since the epoch of a record's time
sub epoch {
    my ($text) = @_;
    my @n = $text =~ /^(\d+)-(\d+)-(\d+)T(\d+):(\d+):([\d.]+)/;
    return timegm(0, $n[4], $n[3], $n[2], $n[1] - 1, $n[0]) + $n[5];
}

sub gone {
    my ($pid) = @_;
    my $stat = read_file("/proc/$pid/stat");
    return !defined $stat || $stat =~ /.*\) [ZX]/s;
}


subtest 'reload with 50 uploads' => sub {
    my $n = $t->nginx($conf, workers => 2);
    my @old = $n->workers;
    my @how = qw/ length chunked tls tls-chunked /;
    my @up = map { half($n, '/upload/', sprintf('reload-0123456-%02d', $_),
        $_ % 2 ? SMALL : LARGE, $how[$_ / 2 % 4]) } 1 .. 40;
    ok(under_way($n, @up), 'forty are under way');
    my $go = $t->dir . '/reload-go';
    my @h2 = map { half_h2($n, '/upload/', sprintf('reload-0123456-%02d', $_),
        $go, tls => $_ % 2 == 0, chunked => $_ % 3) } 41 .. 50;
    ok(under_way($n, @h2), 'ten of HTTP/2 as well');

    ok($n->reload, 'reloaded');
    my %new = map { $_ => 1 } $n->workers;
    is(scalar $n->leaving_workers, 2, 'two old workers stay');
    my $r = curl($n->url('/status/?state=active&limit=100'));
    ok($new{$r->{headers}{'x-pid'}}, 'a new worker says');
    my %seen = map { $_->{transferId} => $_ } @{$r->{json}{transfers}};
    is_deeply([sort keys %seen], [map { $_->{id} } @up, @h2],
        'that all are active');
    is(scalar(grep { $seen{$_->{id}}{bytesTransferred} == $_->{half} } @up,
        @h2), 50, 'with what they have');
    is(totals($n)->{active}, 50, 'totals');

    ok($n->reload, 'reloaded once more');
    write_file($go, '');
    $_->{c}->send($_->{rest}) for @up;
    my %old = map { $_ => 1 } @old;
    my @answers = ((map { $_->{c}->response(60) || {} } @up),
        map { h2_wait($_->{h2}) } @h2);
    is(scalar(grep { ($_->{status} || 0) == 201 } @answers), 50, 'all end 201');
    is(scalar(grep { $old{$_->{headers}{'x-pid'} || 0} } @answers), 50,
        'on the old workers');
    my %sum = map { $_ => sha256_hex($bytes{$_}) } keys %bytes;
    is(scalar(grep { my ($sum, $size) = $s3->sha256("upload/$_->{id}");
        ($sum || '') eq $sum{$_->{size}} && $size == $_->{size} } @up, @h2),
        50, 'byte for byte');
    my $list = status($n, '?limit=100')->{transfers};
    is(scalar(grep { $_->{state} eq 'completed'
        && $_->{bytesStored} == $_->{totalBytes} } @$list), 50,
        'as new workers say');
    totals_are($n, { started => 50, completed => 50, failed => 0,
        aborted => 0, active => 0, memoryUsed => 0 }, 'totals add up');
    $_->{c}->close for @up;
    ok((wait_for { !grep { !gone($_) } @old } 60), 'the old workers leave');
    ok($n->quit, 'and the new ones can');
};

subtest 'worker_shutdown_timeout' => sub {
    $t->token(SHUTDOWN => 'worker_shutdown_timeout 1s;');
    my $n = $t->nginx($conf, workers => 2);
    $t->token(SHUTDOWN => '');
    my @old = $n->workers;
    $s3->put("upload/shutdown-0123456-1", 'former');
    my @how = qw/ length chunked tls tls-chunked /;
    my @up = map { half($n, '/upload/', "shutdown-0123456-$_",
        $_ % 2 ? LARGE : SMALL, $how[$_ / 2 % 4]) } 1 .. 8;
    # the body is whole, S3 thinks
    my @slow = map { my $u = half($n, '/slow/', "shutdown-0123456-s-$_->[0]",
        @$_[1, 2]); $u->{c}->send($u->{rest}); $u } ['put', SMALL, 'length'],
        ['complete', LARGE, 'chunked'];
    ok(under_way($n, @up), 'eight are under way');
    my $go = $t->dir . '/shutdown-go';
    my @h2 = map { half_h2($n, '/upload/', "shutdown-0123456-h2-$_", $go,
        tls => $_ % 2 == 0, chunked => $_ > 2) } 1 .. 4;
    ok(under_way($n, @h2), 'four of HTTP/2');
    ok((wait_for { $fake->begun('put') && $fake->begun('complete') }),
        'two are whole');
    ok((wait_for { $s3->uploads >= 4 }), 'multipart uploads are open');

    my $reload = time;
    ok($n->reload, 'reloaded');
    my %new = map { $_ => 1 } $n->workers;
    for my $u (@up, @h2) {
        my $r;
        ok((wait_for { $r = status($n, $u->{id});
            ($r->{state} || '') !~ /active|completing/ } 60),
            "$u->{id} is ended");
        cmp_ok(epoch($r->{updatedAt}) - $reload, '>', 0.9, 'after a second');
        is("$r->{state}: $r->{error}", 'aborted: worker is shutting down',
            'and told why');
        is($r->{etag}, undef, 'no object');
        cmp_ok($r->{bytesTransferred}, '<', $u->{size} || LARGE, 'not whole');
    }
    for my $u (@slow) {
        my $r;
        ok((wait_for { $r = status($n, $u->{id});
            ($r->{state} || '') !~ /active|completing/ } 60),
            "$u->{id} is ended");
        like("$r->{state}: $r->{error}", qr/^failed: .*worker is shutting down/,
            'and told why');
        is($r->{bytesTransferred}, $u->{size}, 'its body was whole');
    }
    ok($_->{c}->closed(60), "$_->{id}: closed") for @up;
    write_file($go, '');
    isnt(h2_wait($_->{h2})->{status}, 201, "$_->{id}: not 201") for @h2;
    ok((wait_for { !grep { !gone($_) } @old } 60), 'the old workers leave');
    ok(wait_for(sub { !$s3->uploads }, 60, 0.2), 'no multipart upload is open');
    is($fake->begun('abort'), 1, 'nor the one that was to be completed');
    is_deeply([grep { m{^upload/shut} } $s3->keys],
        ['upload/shutdown-0123456-1'], 'no object');
    is($s3->get('upload/shutdown-0123456-1'), 'former', 'but the former one');
    totals_are($n, { started => 14, completed => 0, failed => 2,
        aborted => 12, active => 0, memoryUsed => 0 }, 'totals add up');
    my $r = curl($n->url('/upload/after'), body => 'x');
    is($r->{status}, 201, 'new workers upload');
    ok($new{$r->{headers}{'x-pid'}}, 'new ones indeed');
    ok($n->quit, 'and can leave');
};
$t->allow_errors(qr/worker is shutting down/);

# With another zone, and nothing else that could tell the new workers.
subtest 'another zone' => sub {
    my $n = $t->nginx($conf, workers => 2);
    my @old = $n->workers;
    my @up = map { half($n, '/upload/', "zone-0123456789-$_", LARGE,
        $_ % 2 ? 'length' : 'chunked') } 1 .. 6;
    ok(under_way($n, @up), 'six are under way');
    for my $zone (qw/ 4m 512k /) {
        $t->token(ZONE => $zone);
        $n->{tokens} = $t->tokens;
        $n->conf($conf);
        ok($n->reload, "$zone: reloaded");
        is(curl($n->url("/status/$up[0]{id}"))->{status}, 404,
            'it knows nothing of the uploads');
        is_deeply([@{totals($n)}{qw/ started active memoryUsed /}], [0, 0, 0],
            'counts begin anew');
    }
    my $twin = curl($n->url("/upload/twin?id=$up[0]{id}"), body => 'x');
    is($twin->{status}, 201, 'an id is free in the new zone');
    $up[5]{c}->reset;
    pop @up;
    $_->{c}->send($_->{rest}) for @up;
    is(($_->{c}->response(60) || {})->{status}, 201, "$_->{id} is stored")
        for @up;
    is_stored("upload/$_->{id}", LARGE, 'byte for byte') for @up;
    $_->{c}->close for @up;
    ok((wait_for { !grep { !gone($_) } @old } 60), 'the old workers leave');
    totals_are($n, { started => 1, completed => 1, aborted => 0, active => 0,
        memoryUsed => 0 }, 'and left the new counts alone');
    is(status($n, $up[0]{id})->{key}, 'upload/twin', 'and its records');
    $t->token(ZONE => '1m');
    ok($n->quit, 'the new ones can leave');
};

# nginx goes on with what it had, and so do the uploads and the zone
subtest 'a configuration that is refused' => sub {
    my $n = $t->nginx($conf, workers => 2);
    my $taken = $t->fake;
    my $twice = $conf
        =~ s/(?=listen 127)/listen 127.0.0.1:$taken->{port}; /r;
    my $in_use = qr/bind\(\) to 127\.0\.0\.1:$taken->{port} failed/;
    my @workers = sort $n->workers;
    my @up = map { half($n, '/upload/', "refused-01234567-$_", LARGE,
        $_ % 2 ? 'length' : 'tls-chunked') } 1 .. 4;
    ok(under_way($n, @up), 'four are under way');
    my %bad = (
        'not understood' => [$conf =~ s/s3_part_size 5m/s3_part_size 1k/r,
            qr/"s3_part_size" 1024 is outside/],
        'an address in use' => [$twice, $in_use],
        'the same, with another zone' => [$twice =~ s/%%ZONE%%/4m/r, $in_use],
    );
    for my $name (sort keys %bad) {
        my ($text, $says) = @{$bad{$name}};
        $n->conf($text);
        my $before = () = $n->log =~ /$says/g;
        kill 'HUP', $n->pid;
        ok((wait_for { $before < (() = $n->log =~ /$says/g) } 60),
            "$name: refused");
        $t->allow_alerts($says, qr/still could not bind\(\)/);
        # (it tries to bind for two seconds and a half)
        is(state_of($n, $_->{id}), 'active', "$_->{id} goes on") for @up;
        is(curl($n->url('/upload/new'), body => 'x')->{status}, 201,
            'a new one is stored');
    }
    ok((wait_for { $n->log =~ /still could not bind/ } 60), 'it gives up');
    is_deeply([sort $n->workers], \@workers, 'by the same workers');
    $_->{c}->send($_->{rest}) for @up;
    is(($_->{c}->response(60) || {})->{status}, 201, "$_->{id} is stored")
        for @up;
    is_stored("upload/$_->{id}", LARGE, 'byte for byte') for @up;
    $_->{c}->close for @up;
    $n->conf($conf);
    ok($n->reload, 'a good one is taken');
    totals_are($n, { started => 7, completed => 7, failed => 0, aborted => 0,
        active => 0 }, 'with all that was counted');
    $taken->stop;
    ok($n->quit, 'and all leave');
};

subtest 'none stays' => sub {
    my $n = $t->nginx($conf, workers => 2);
    my $leave = sub {
        my ($name, $most) = @_;
        my $from = time;
        my @old = $n->workers;
        ok($n->reload, "$name: reloaded");
        ok((wait_for { !grep { !gone($_) } @old } $most + 30),
            'they leave');
        cmp_ok(time - $from, '<', $most, "within $most s");
    };

    is(curl($n->url("/upload/a$_"), file => data(LARGE))->{status}, 201,
        'stored') for 1 .. 4;
    $leave->('kept connections to S3', 20);

    my @up = map { half($n, '/upload/', "leave-0123456789-$_", LARGE, 'tls') }
        1 .. 4;
    ok(under_way($n, @up), 'under way');
    my $pid = spawn({}, sub { sleep 1; $_->{c}->reset for @up });
    # ours is another copy of the sockets
    CORE::close(delete $_->{c}{socket}) for @up;
    $leave->('clients that leave', 20);
    wait_exit($pid, 60);

    @up = map { half($n, '/deaf/', "deaf-01234567890-$_", LARGE, 'length') }
        1 .. 2;
    ok((wait_for { $deaf->begun('part') >= 2 }), 'S3 does not answer');
    $leave->('an S3 that does not answer, nor lets abort', 40);
    is(status($n, $_->{id})->{state}, 'failed', "$_->{id}: failed") for @up;
    ok((wait_for { !$n->leaving_workers }), 'none is left');
    ok($n->quit, 'the last ones can leave');
};
$t->expect_errors(qr/s3 UploadPart failed/);
$t->allow_errors(qr/s3 AbortMultipartUpload failed/);


# nginx as a daemon: only such a master hears WINCH, and the new one is not our
# child.

sub daemon {
    my ($n, $text, $env) = @_;
    $n->conf($text);
    my $path = "$n->{dir}/nginx.conf";
    write_file($path, read_file($path) =~ s/daemon off;/daemon on;/r);
    my %env = (%{$n->_environment}, %$env);
    my $pid = spawn({ env => \%env, stderr => "$n->{dir}/stderr" },
        S3T::Nginx::binary(), '-p', $n->{dir}, '-e', "$n->{dir}/error.log",
        '-c', $path);
    wait_exit($pid, 60);
    return master($n, 'nginx.pid');
}

# the master whose id the file holds, with its workers
sub master {
    my ($n, $file) = @_;
    wait_for {
        ($n->{pid}) = (read_file("$n->{dir}/$file") || '') =~ /(\d+)/;
        $n->{pid} && $n->workers >= $n->{workers};
    } 60;
    return $n->{pid} || die "no master: " . read_file("$n->{dir}/stderr");
}

# processes of a master that is none of ours to wait for
my (@masters, $daemon);
END {
    my $status = $?;
    # one too many, where an upgrade should have failed
    push @masters, (read_file("$daemon->{dir}/nginx.pid") || '') =~ /(\d+)/
        if $daemon;
    kill 'TERM', grep { !gone($_) } @masters;
    $? = $status;
}

subtest 'binary upgrade' => sub {
    my $store = "s3_progress_redis redis://%%REDIS%% prefix=%%PREFIX%%;";
    my $names = 'env AWS_ACCESS_KEY_ID; env AWS_SECRET_ACCESS_KEY;';
    my %keys = (AWS_ACCESS_KEY_ID => 'testaccess',
        AWS_SECRET_ACCESS_KEY => 'testsecret');
    my $n = $daemon = $t->nginx($conf, workers => 2, start => 0);
    my $text = $conf =~ s/%%STORES%%/$store/r =~ s/%%MAIN%%/%%MAIN%%\n$main/r
        =~ s/%%S3%%/s3_endpoint %%RGW%%; s3_bucket %%BUCKET%%;/r;
    my $old = daemon($n, $text =~ s/^%%MAIN%%/%%MAIN%%\n$names/mr, \%keys);
    push @masters, $old;
    my @old = $n->workers;
    is(scalar @old, 2, 'two workers');

    my @up = map { half($n, '/upload/', "upgrade-0123456-$_",
        $_ % 4 ? LARGE : SMALL, (qw/ length chunked tls tls-chunked /)[$_ % 4])
        } 1 .. 8;
    my $go = $t->dir . '/upgrade-go';
    my $h2 = half_h2($n, '/upload/', 'upgrade-0123456-h2', $go);
    ok(under_way($n, @up), 'eight are under way');
    ok(under_way($n, $h2), 'one of HTTP/2');
    my @attempt = map { status($n, $_->{id})->{attempt} } @up;

    kill 'USR2', $old;
    ok((wait_for { -s "$n->{dir}/nginx.pid.oldbin" }), 'USR2');
    my $new = master($n, 'nginx.pid');
    push @masters, $new;
    isnt($new, $old, 'a new master');
    my %new = map { $_ => 1 } $n->workers;
    is(scalar keys %new, 2, 'with two workers');

    kill 'WINCH', $old;
    ok((wait_for {
        $n->{pid} = $old;
        my $left = $n->workers;
        $n->{pid} = $new;
        !$left;
    }), 'WINCH: no old worker takes connections');
    my $r = curl($n->url('/upload/upgraded?id=upgrade-0123456-new'),
        body => 'new');
    is($r->{status}, 201, 'the new ones upload');
    ok($new{$r->{headers}{'x-pid'}}, 'they do');
    # of the others they know from Redis
    wait_for { (totals($n)->{redis}{up} || 0) >= 2 };
    for (0 .. $#up) {
        my $r = curl($n->url("/status/$up[$_]{id}"));
        ok($new{$r->{headers}{'x-pid'} || 0}, 'a new worker');
        is(($r->{json}{state} || '') . ' ' . ($r->{json}{attempt} || ''),
            "active $attempt[$_]", "shows $up[$_]{id}");
    }

    kill 'QUIT', $old;
    write_file($go, '');
    $_->{c}->send($_->{rest}) for @up;
    is(($_->{c}->response(60) || {})->{status}, 201, "$_->{id} is stored")
        for @up;
    is(h2_wait($h2->{h2})->{status}, 201, 'and that of HTTP/2');
    is_stored("upload/$_->{id}", $_->{size}, 'byte for byte') for @up, $h2;
    $_->{c}->close for @up;
    for my $id (map { $_->{id} } @up, $h2) {
        my $r;
        ok((wait_for { $r = status($n, $id);
            ($r->{state} || '') eq 'completed' }), "$id: completed");
        is($r->{bytesStored}, $r->{totalBytes}, 'all of it');
    }
    ok((wait_for { !grep { !gone($_) } $old, @old } 60),
        'the old master and its workers are gone');
    totals_are($n, { started => 1, completed => 1, active => 0 },
        'the new ones count their own');

    # without the names in the configuration the new master lacks the keys
    $n->conf($text);
    my $path = "$n->{dir}/nginx.conf";
    write_file($path, read_file($path) =~ s/daemon off;/daemon on;/r);
    $t->allow_alerts(qr/AWS_ACCESS_KEY_ID.* not set in the environment/);
    ok($n->reload, 'reloaded without the names');
    kill 'USR2', $new;
    ok((wait_for { $n->log =~ /not set in the environment/ } 60)
        && (wait_for { !-e "$n->{dir}/nginx.pid.oldbin" } 60),
        'an upgrade that lacks the keys does not start');
    is(curl($n->url('/upload/still'), body => 'x')->{status}, 201,
        'and the others go on');

    kill 'QUIT', $new;
    ok((wait_for { gone($new) } 60), 'they leave, too');
    delete $n->{pid};
    $t->redis->cmd('DEL', @{$t->redis->cmd('KEYS', $t->prefix . '*')});
};
