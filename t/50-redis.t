#!/usr/bin/perl

# Records in Redis: their form, their order, their life, who may write them,
# and what becomes of uploads while Redis is down, dies, or does not answer.

use strict;
use warnings;

use lib 't/lib';
use JSON::PP ();
use List::Util qw/ max min uniq /;
use Test::More;
use Time::HiRes qw/ sleep /;
use S3T;
use S3T::Null;

# what becomes of objects is not looked at here
my $t = S3T->new(bucket => 0);
my $null = S3T::Null->new($t->dir);
$t->token(NULL => $null->url);

my $conf = <<'EOC';
%%MAIN%%
http {
    %%HTTP%%
    # chunks of no more than client_body_buffer_size
    s3_zero_copy off;
    # one is silent until the end of this file
    client_body_timeout 600s;
    s3_endpoint %%NULL%%;
    s3_bucket records;
    s3_credentials static testaccess testsecret;
    s3_payload_signature off;
    s3_part_size 5m;
    s3_transfer_id $arg_id;
    s3_owner $arg_owner;
    s3_progress_redis %%STORE%%;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /upload/ { s3_upload; }
        location /crc/ { s3_checksum crc32; s3_upload; }
        location /transfers/ { s3_status; }
    }
}
EOC

# an nginx whose records go to this Redis
sub instance {
    my ($store, %o) = @_;
    $t->token(STORE => $store);
    return $t->nginx($conf, %o);
}

sub totals { curl($_[0]->url('/transfers/'))->{json}{totals} }
sub redis_totals { totals($_[0])->{redis} }

sub status {
    my ($n, $id) = @_;
    return curl($n->url("/transfers/$id"))->{json} || {};
}

# An upload of which half has come; finish() sends the rest.
sub half {
    my ($n, $id, $size) = @_;
    my $c = $t->raw($n->port);
    $c->send("PUT /upload/$id?id=$id HTTP/1.1\r\nHost: t\r\n"
        . "Content-Length: $size\r\n\r\n" . 'x' x ($size / 2));
    wait_for { (status($n, $id)->{bytesTransferred} || 0) == $size / 2 }
        or die "$id: no half";
    return $c;
}

sub finish {
    my ($c, $size) = @_;
    $c->send('x' x ($size / 2));
    return $c->response->{status};
}

# An upload at a pace that Redis keeps up with: each percent opens the gate, and
# the next comes when that was told to the subscriber. Messages, and the answer.
sub paced {
    my ($n, $sub, $uri, $step) = @_;
    my $c = $t->raw($n->port);
    $c->send("PUT $uri HTTP/1.1\r\nHost: t\r\nContent-Length: "
        . 100 * $step . "\r\n\r\n");
    my @news = $sub->message;
    for (1 .. 99) {
        $c->send('x' x $step);
        push @news, $sub->message;
    }
    $c->send('x' x $step);
    my $r = $c->response(60);
    push @news, $sub->message
        until !defined $news[-1] || $news[-1] =~ /"completed"/;
    $r->{json} = JSON::PP->new->utf8->decode($r->{body});
    return ($r, grep { defined } @news);
}

sub subscribed {
    my ($port, $channel) = @_;
    my $sub = S3T::Redis->new(port => $port);
    $sub->cmd('SUBSCRIBE', $channel);
    return $sub;
}

# the record of an id, once it is in that state
sub stored {
    my ($redis, $key, $state, $timeout) = @_;
    my $hash;
    wait_for {
        $hash = $redis->hgetall($key);
        $hash && ($hash->{state} || '') eq ($state || 'completed')
    } $timeout;
    return $hash;
}

# Each record that was handed over was written, or a newer one was in its place.
sub fits {
    my ($n, $name) = @_;
    my $r;
    ok((wait_for {
        $r = redis_totals($n);
        $r->{records} == $r->{writes} - $r->{errors} + $r->{replaced}
    }), "$name: records, writes and replaced fit") or diag explain $r;
    is($r->{dropped}, 0, 'none is dropped');
    return $r;
}

# what the JSON record has and its stored form must have
sub public {
    my ($hash) = @_;
    my %copy = %$hash;
    utf8::decode($_) for values %copy;
    delete $copy{owner};
    return \%copy;
}

sub known {
    my ($json) = @_;
    return { map { $_ => "$json->{$_}" } grep { defined $json->{$_} }
        keys %$json };
}

sub down { my $n = () = $_[0]->log =~ /redis store is down/g; $n }
sub up_again { my $n = () = $_[0]->log =~ /redis store is up again/g; $n }

# an outage has one line, and its end
sub outages {
    my ($n, $count, $name) = @_;
    is(down($n), $count, "$name: a line for the outage");
    is(up_again($n), $count, 'and for its end');
    is(scalar(() = $n->log =~ /\[warn\].*redis/g), $count, 'no other');
}

my $id;
my $number = 0;
sub new_id { $id = sprintf 'record-%s-%04d', 'x' x 10, ++$number }


my $redis = $t->redis;
my $n = instance('redis://%%REDIS%% prefix=%%PREFIX%% channel=%%PREFIX%%news');
my $of = sub { $t->prefix . $_[0] };
my $DAY = 24 * 3600 * 1000;

# Twenty seconds of life: one that is silent, and one that is over, until the end
# of this file.
my $short = instance('redis://%%REDIS%% prefix=%%PREFIX%% ttl=20s');
my $over = new_id();
my $finished = curl($short->url("/upload/over?id=$over"), body => 'x');
my $silent = new_id();
my $client = half($short, $silent, 200_000);
my $begun = status($short, $silent)->{sequence};

subtest 'the record' => sub {
    new_id();
    my $r = curl($n->url("/crc/a?id=$id&owner=me"), file => data(12 * MB));
    is($r->{status}, 201, 'stored');
    my $hash = stored($redis, $of->($id));
    my $pttl = $redis->cmd('PTTL', $of->($id));
    is($hash->{owner}, 'me', 'the owner is in the store');
    is_deeply(public($hash), known($r->{json}), 'all fields are the answer');
    is_deeply([sort keys %$hash], [sort qw/ transferId attempt sequence state
        direction bucket key bytesTransferred bytesStored totalBytes percentage
        storedPercentage partsStored rate startedAt updatedAt expiresAt etag
        crc32 owner /], 'unknown ones are absent');
    cmp_ok($pttl, '>', $DAY - 20_000, 'it lives a day');
    cmp_ok($pttl, '<=', $DAY, 'not longer');
    is_deeply([@$hash{qw/ state bytesTransferred bytesStored totalBytes
        percentage storedPercentage partsStored direction bucket key /}],
        ['completed', (12 * MB) x 3, 100, 100, 3, 'upload', 'records',
        'crc/a'], 'values');

    new_id();
    my $c = $t->raw($n->port);
    $c->send("PUT /upload/b?id=$id HTTP/1.1\r\nHost: t\r\n"
        . "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    $hash = stored($redis, $of->($id), 'active');
    is_deeply([sort keys %$hash], [sort qw/ transferId attempt sequence state
        direction bucket key bytesTransferred bytesStored percentage
        storedPercentage partsStored rate startedAt updatedAt expiresAt /],
        'of one that has begun, its length unknown');
    is($hash->{sequence}, 1, 'the first record');
    is($hash->{percentage}, 0, 'percentage');
    $c->close;
    $hash = stored($redis, $of->($id), 'aborted');
    is_deeply(public($hash), known(status($n, $id)), 'one that was aborted');
    ok(length $hash->{error}, 'has an error');
    is($hash->{bytesTransferred}, 5, 'and its bytes');
    fits($n, 'both');
};

subtest 'keys of any bytes' => sub {
    my $name = qq{a "quoted" 'key' \\ \$1 {*} \xc3\xbc \xe2\x82\xac\xf0\x9f\x98\x80};
    my $path = $name =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger;
    new_id();
    my $r = curl($n->url("/upload/$path?id=$id"), body => 'x');
    is($r->{status}, 201, 'stored');
    my $hash = stored($redis, $of->($id));
    is($hash->{key}, "upload/$name", 'the key byte for byte');
    is_deeply(public($hash), known($r->{json}), 'the record');
    new_id();
    $r = curl($n->url("/upload/%FF%FEx?id=$id"), body => 'x');
    is($r->{status}, 400, 'what is not UTF-8 is no key');
};

subtest 'channel' => sub {
    my $sub = subscribed($t->server('REDIS_PORT'), $t->prefix . 'news');
    my $before = redis_totals($n);
    new_id();
    my ($r, @news) = paced($n, $sub, "/crc/c?id=$id&owner=secret-owner",
        200_000);
    is($r->{status}, 201, 'stored');
    my @json = map { JSON::PP->new->utf8->decode($_) } @news;
    is_deeply($json[-1], $r->{json}, 'the last message is the answer');
    is_deeply([uniq map { $_->{transferId} } @json], [$id], 'all of one id');
    is_deeply([uniq map { join ' ', sort keys %$_ } grep { !$_->{crc32} }
        @json], [join ' ', sort grep { $_ ne 'crc32' } keys %{$r->{json}}],
        'every message is a whole record');
    my @sequence = map { $_->{sequence} } @json;
    is_deeply(\@sequence, [sort { $a <=> $b } uniq @sequence], 'in order');
    is($sequence[0], 1, 'from the first');
    # (one that waits for another to be written is replaced)
    like(join(' ', uniq map { $_->{state} } @json),
        qr/^active (?:completing )?completed$/, 'states');
    my $after = fits($n, 'totals');
    is(scalar @json, $after->{writes} - $before->{writes},
        'as many as were written');
    is_deeply([map { $_->{bytesTransferred} } @json[0 .. 99]],
        [map { $_ * 200_000 } 0 .. 99], 'each percent');
    is(scalar(grep { /owner/ } @news), 0, 'the owner is not told');
};

subtest 'the newer record stays' => sub {
    my $size = 200_000;
    my %hash = (attempt => 9_000_000_000_000, sequence => 1, mark => 'greater');
    new_id();
    $redis->cmd('HSET', $of->($id), %hash, transferId => $id);
    is(curl($n->url("/upload/d?id=$id"), body => 'x')->{status}, 201,
        'an upload whose id has a greater attempt');
    my $first = $id;

    # one that began later with the same attempt: its sequence is greater
    new_id();
    my $c = half($n, $id, $size);
    my $begun = stored($redis, $of->($id), 'active');
    $redis->cmd('HSET', $of->($id), sequence => 1000, mark => 'ahead');
    is(finish($c, $size), 201, 'one whose sequence is behind');
    my $second = $id;

    # the same, but what stands there is behind
    new_id();
    $c = half($n, $id, $size);
    $begun = stored($redis, $of->($id), 'active');
    $redis->cmd('HSET', $of->($id), mark => 'behind', error => 'none',
        crc32 => 'none');
    is(finish($c, $size), 201, 'one that is ahead');
    my $hash = stored($redis, $of->($id));
    is_deeply(public($hash), known(status($n, $id)),
        'it replaces the former record whole');
    is($hash->{attempt}, $begun->{attempt}, 'of the same attempt');

    # all went over one connection, one after the other
    is_deeply($redis->hgetall($of->($first)), { %hash, transferId => $first },
        'a greater attempt stays as it is');
    $hash = $redis->hgetall($of->($second));
    is_deeply([@$hash{qw/ sequence mark state /}], [1000, 'ahead', 'active'],
        'a greater sequence, too');
    fits($n, 'an older record is no error');

    # what is not a number, is no order
    for my $former ({ attempt => 'x', sequence => '' }, { other => 1 }) {
        new_id();
        $redis->cmd('HSET', $of->($id), %$former);
        my $r = curl($n->url("/upload/e?id=$id"), body => 'x');
        is_deeply(public(stored($redis, $of->($id))), known($r->{json}),
            'a hash without an order is replaced');
    }

    # a failed attempt, then one that succeeds: no trace of the former
    new_id();
    $c = half($n, $id, $size);
    $c->close;
    $hash = stored($redis, $of->($id), 'aborted');
    my $r = curl($n->url("/upload/f?id=$id"), body => 'x');
    my $now = stored($redis, $of->($id));
    is_deeply(public($now), known($r->{json}), 'a new attempt');
    cmp_ok($now->{attempt}, '>', $hash->{attempt}, 'a greater one');
};

subtest 'a key of another type' => sub {
    new_id();
    my $wrong = $id;
    $redis->cmd('SET', $of->($id), 'a string');
    my $before = redis_totals($n);
    is(curl($n->url("/upload/g?id=$id"), body => 'x')->{status}, 201,
        'the upload is stored');
    new_id();
    curl($n->url("/upload/g?id=$id"), body => 'x');
    ok(stored($redis, $of->($id)), 'other records are written');
    is($redis->cmd('GET', $of->($wrong)), 'a string', 'the key stays');
    my @lines = grep { /refused a record: .*WRONGTYPE/ } split /\n/, $n->log;
    is(scalar @lines, 1, 'one line for its records');
    like($lines[0], qr/\[warn\] .*transfer: \Q$wrong\E/, 'names it');
    my $after = redis_totals($n);
    cmp_ok($after->{errors}, '>', $before->{errors}, 'errors are counted');
    is($after->{dropped} - $before->{dropped},
        $after->{errors} - $before->{errors}, 'and their records dropped');
    is($after->{up}, 1, 'Redis is up');
    is(down($n), 0, 'it is no outage');
};

subtest 'one script on one key' => sub {
    my $own = $t->own_redis;
    my $m = $own->monitor($t->dir . '/monitor');
    my $i = instance("redis://127.0.0.1:$own->{port} channel=news ttl=1h");
    new_id();
    my ($r) = paced($i, subscribed($own->{port}, 'news'),
        "/upload/big?id=$id", MB);
    is($r->{status}, 201, '100 MiB');
    my $key = "transfer:$id";
    my $hash = stored($own, $key);
    is_deeply(public($hash), known($r->{json}), 'the record');
    my $pttl = $own->cmd('PTTL', $key);
    cmp_ok($pttl, '<=', 3600_000, 'ttl=1h');
    cmp_ok($pttl, '>', 3590_000, 'ttl=1h, not less');
    is(substr($hash->{expiresAt}, 11, 2),
        sprintf('%02d', (substr($hash->{updatedAt}, 11, 2) + 1) % 24),
        'expiresAt says so');

    my $totals = fits($i, 'totals');
    my $openings = totals($i)->{openings};
    is($totals->{records}, $openings + 3, 'a record an opening, and three');
    is($hash->{sequence}, $openings + 3, 'as it says');
    is($totals->{errors}, 0, 'no errors');
    is($totals->{up}, 1, 'up');

    ok((wait_for { grep { /lua.*"PUBLISH".*completed/ } $m->lines }), 'seen');
    my @all = grep { /"/ } $m->lines;
    my @scripts = grep { /"EVAL(SHA)?"/ } @all;
    cmp_ok(scalar @scripts, '<=', 104, 'at most one a percent');
    cmp_ok(scalar @scripts, '>', 100, 'nor less');
    my @eval = grep { /"EVAL"/ } @scripts;
    is(scalar @eval, 1, 'the script is sent once');
    is(scalar @scripts, $totals->{writes} + 1, 'else its hash');
    is(scalar(grep { !/"EVAL(?:SHA)?" "[^"]*(?:\\.[^"]*)*" "1" "\Q$key\E" /s }
        @scripts), 0, 'on one key');
    my @lua = grep { / lua\] / } @all;
    is_deeply([sort { $a cmp $b } uniq map { /lua\] "(\w+)"/ } @lua],
        [qw/ DEL HMGET HSET PEXPIRE PUBLISH /], 'what it does');
    is(scalar(grep { !/lua\] "PUBLISH" "news"|lua\] "\w+" "\Q$key\E"/ } @lua),
        0, 'with this key alone');
    my ($client) = $scripts[0] =~ /\[(\d+ \S+)\]/;
    is_deeply([uniq map { /\] "(?i:(\w+))"/ ? uc $1 : () } grep {
        /\Q[$client]\E/ } @all], [qw/ CLIENT PING EVALSHA EVAL /],
        'nothing else is asked');

    my $half = do {
        new_id();
        half($i, $id, 200_000);
    };
    ok(stored($own, "transfer:$id", 'active'), 'another is under way');
    $own->cmd('SCRIPT', 'FLUSH');
    is(finish($half, 200_000), 201, 'SCRIPT FLUSH in the middle');
    ok(stored($own, "transfer:$id"), 'its records arrive');
    is(fits($i, 'after the flush')->{errors}, 0, 'without an error');
    is(down($i), 0, 'no outage');
    ok($i->quit, 'left');
    $m->stop;
    $own->stop;
};


# Ways to Redis.

my $password = "p\@ss:w/rd%\xc3\xa9 \"";
my $encoded = 'p%40ss%3Aw%2Frd%25%C3%A9%20%22';
my $socket = $t->dir . '/redis.sock';
my $tls = free_port();
my $own = $t->own_redis(password => $password, args => [
    '--unixsocket', $socket, '--unixsocketperm', 777, '--tls-port', $tls,
    '--tls-cert-file', $t->certs . '/server.pem', '--tls-key-file',
    $t->certs . '/server.key', '--tls-ca-cert-file', $t->ca,
    '--tls-auth-clients', 'no']);
$t->secret($encoded);

sub arrives {
    my ($name, $store, %o) = @_;
    my $i = instance($store);
    new_id();
    my $r = curl($i->url("/upload/way?id=$id"), body => $name);
    is($r->{status}, 201, $name);
    my $reader = S3T::Redis->new(port => $own->{port}, password => $password);
    $reader->cmd('SELECT', $o{db}) if $o{db};
    my $hash = stored($reader, ($o{prefix} || 'transfer:') . $id);
    is_deeply($hash && public($hash), known($r->{json}), 'the record');
    is(down($i), 0, 'no outage');
    return $i;
}

subtest 'ways' => sub {
    my $at = "127.0.0.1:$own->{port}";
    my $file = write_file($t->dir . '/password', "$password\nsecond line\n");
    chmod 0600, $file;
    my $i = arrives('password and db in the URL',
        "redis://:$encoded\@$at/5 prefix=p: ttl=60s", db => 5, prefix => 'p:');
    is(curl($i->url("/transfers/$id"))->{status}, 200, 'status');
    $i->quit;
    arrives('password_file=', "redis://$at password_file=$file")->quit;
    arrives('a socket', "unix://:$encoded\@$socket?db=3", db => 3)->quit;
    arrives('a socket without slashes',
        "unix:$socket password_file=$file")->quit;
    arrives('TLS by name', "rediss://:$encoded\@localhost:$tls/1 ca="
        . $t->ca, db => 1)->quit;
    arrives('TLS by address', "rediss://127.0.0.1:$tls ca=" . $t->ca
        . " password_file=$file")->quit;
    arrives('default user', "redis://default:$encoded\@$at")->quit;
};

subtest 'permissions' => sub {
    my $readme = read_file('README.md');
    my ($rules) = $readme =~ /^For Redis[^`]*`([^`]+)`/m;
    ok(defined $rules, 'README names them') or return;
    my ($also) = $readme =~ /with `channel=` also `([^`]+)`/;
    my ($select) = $readme =~ /with a database also `([^`]+)`/;
    my @rules = map { s/<prefix>/transfer:/r =~ s/<channel>/news/r =~ s/\n/ /gr
        } split ' ', join ' ', $rules, $also, $select;
    my $at = "127.0.0.1:$own->{port}";
    $own->cmd('ACL', 'SETUSER', 'up', 'on', ">$password", 'resetchannels',
        @rules);
    # the script is not yet there
    $own->cmd('SCRIPT', 'FLUSH');
    my $i = arrives('a user with these', "redis://up:$encoded\@$at/2"
        . ' channel=news', db => 2);
    my $r = status($i, $id);
    is($r->{state}, 'completed', 'status');
    $i->quit;
    $own->cmd('SCRIPT', 'FLUSH');
    $own->cmd('ACL', 'SETUSER', 'less', 'on', ">$password", 'resetchannels',
        split ' ', $rules =~ s/<prefix>/transfer:/r);
    $i = arrives('less without channel and db', "redis://less:$encoded\@$at");
    my $reader = S3T::Redis->new(port => $own->{port}, password => $password);
    $reader->cmd('COPY', "transfer:$id", "transfer:elsewhere-0123456789");
    $reader->cmd('HSET', "transfer:elsewhere-0123456789", 'transferId',
        'elsewhere-0123456789');
    is(status($i, 'elsewhere-0123456789')->{state}, 'completed',
        'it may read them');
    $i->quit;

    # a record that could not be published is stored all the same
    $i = instance("redis://less:$encoded\@$at channel=news");
    new_id();
    my $r2 = curl($i->url("/upload/mute?id=$id"), body => 'x');
    is($r2->{status}, 201, 'a channel without the right to publish');
    ok(stored($reader, "transfer:$id"), 'the record is there');
    # (it is there before Redis has answered)
    ok((wait_for { $i->log =~
        /redis store is down: a write was refused .*(?:NOPERM|can't)/ }),
        'the log tells');
    $i->quit;

    # each one is needed
    for my $rule (grep { /^\+/ } @rules) {
        my $one = "not\U$rule" =~ s/\W//gr;
        $own->cmd('SCRIPT', 'FLUSH');
        $own->cmd('ACL', 'SETUSER', $one, 'on', ">$password", 'resetchannels',
            grep { $_ ne $rule } @rules);
        my $u = S3T::Redis->new(port => $own->{port}, user => $one,
            password => $password);
        ok(!eval { $u->cmd(split / /, {
            '+hgetall' => 'HGETALL transfer:x', '+hmget' => 'HMGET transfer:x a',
            '+hset' => 'HSET transfer:x a b', '+del' => 'DEL transfer:x',
            '+pexpire' => 'PEXPIRE transfer:x 1000', '+eval' => 'EVAL x 0',
            '+evalsha' => 'EVALSHA x 0', '+publish' => 'PUBLISH news x',
            '+select' => 'SELECT 2' }->{$rule}) }, "$rule");
        like($@, qr/NOPERM/, 'without it: no');
    }
};

subtest 'refused' => sub {
    my $at = "127.0.0.1:$own->{port}";
    my $wrong = 'not-the-password-1234';
    $t->secret($wrong);
    $own->cmd('ACL', 'SETUSER', 'nokeys', 'on', ">$password", '+@all');
    my %how = (
        'wrong password' => ["redis://:$wrong\@$at", qr/WRONGPASS/],
        'no password' => ["redis://$at", qr/NOAUTH/],
        'another prefix' => ["redis://nokeys:$encoded\@$at",
            qr/NOPERM|permission/],
        'no such db' => ["redis://:$encoded\@$at/999", qr/index|range/],
        'not trusted' => ["rediss://:$encoded\@localhost:$tls ca="
            . $t->certs . '/rogue-ca.pem', qr/certificate/],
        'no such socket' => ["unix:$socket.not", qr/No such file/],
        'not TLS' => ["rediss://:$encoded\@localhost:$own->{port} ca="
            . $t->ca, qr/TLS|SSL|handshake/],
    );
    my %of;
    for my $name (sort keys %how) {
        my $i = $of{$name} = instance($how{$name}[0]);
        new_id();
        is(curl($i->url("/upload/no?id=$id"), body => 'x')->{status}, 201,
            "$name: the upload is stored");
    }
    # several tries of each
    sleep 1.5;
    for my $name (sort keys %how) {
        my $i = $of{$name};
        my @lines;
        wait_for { @lines = grep { /redis/ } split /\n/, $i->log } 30;
        is(scalar @lines, 1, "$name: one line") or diag join "\n", @lines;
        like($lines[0] || '', qr/\[warn\] .*redis store is down: .*host: /,
            'as a warning');
        like($lines[0] || '', $how{$name}[1], 'which tells why');
        my $r = redis_totals($i);
        is($r->{up}, 0, 'not up');
        cmp_ok($r->{records}, '>=', 3, 'records wait');
        $i->stop;
    }
};

subtest 'configuration' => sub {
    my $secret = 'secret-in-a-url';
    $t->secret($secret);
    my %bad = (
        "http://:$secret\@h" => qr/begins with redis:/,
        "redis://:$secret\@h/x" => qr/not a number/,
        "redis://u:$secret%2\@h" => qr/percent-encoding/,
        "redis://:$secret\@" => qr/invalid URL/,
        "redis://:$secret\@h:99999" => qr/invalid URL/,
        "redis://:$secret\@h other=1" => qr/invalid parameter/,
        "redis://:$secret\@h ttl=1s" => qr/ttl/,
        "redis://:$secret\@h ttl=x" => qr/ttl/,
        "redis://:$secret\@h ca=" . $t->ca => qr/rediss:/,
        "rediss://:$secret\@h ca=/no/such/file" => qr{/no/such/file},
        "redis://:$secret\@h password_file=/no" => qr/password/,
        'redis://h password_file=/no/such/file' => qr{/no/such/file},
        'redis://h password_file=/dev/null' => qr/no password/,
        'redis://user@h' => qr/without a password/,
        "unix://:$secret\@relative" => qr/socket/,
        "unix:/a?x=$secret" => qr/db=/,
        'unix:/' . 'a' x 200 => qr/too long/,
    );
    for my $url (sort keys %bad) {
        $t->token(STORE => $url);
        my $i = $t->nginx($conf, start => 0);
        my ($status, $said) = $i->test_conf($conf);
        isnt($status, 0, $url =~ s/\Q$secret/***/r =~ s/a{9,}/aaa/r);
        like($said, qr/\[emerg\].*s3_progress_redis|\[emerg\].*$bad{$url}/,
            'refused');
        like($said, $bad{$url}, 'told why');
        unlike($said, qr/\Q$secret/, 'without its secret');
    }
};
$own->stop;


# Outages.

my $dies = $t->own_redis;
$dies->stop;
my $o = instance("redis://127.0.0.1:$dies->{port}");

# seconds of the fastest of some uploads
sub fastest {
    my ($i) = @_;
    my @seconds;
    for (1 .. 8) {
        my $r = curl($i->url('/upload/fast'), file => data(2 * MB));
        return 1e9 if $r->{status} != 201;
        push @seconds, $r->{seconds};
    }
    return min @seconds;
}

subtest 'down at start' => sub {
    my $with = fastest($n);
    my $without = fastest($o);
    cmp_ok($without, '<', 10 * $with + 1, 'uploads do not wait for it')
        or diag "$without $with";
    my @ids;
    for my $k (1 .. 3) {
        push @ids, new_id();
        is(curl($o->url("/upload/down?id=$id"), file => data($k * 4 * MB))
            ->{status}, 201, "stored, $k");
    }
    my $c = half($o, new_id(), 200_000);
    my $r = redis_totals($o);
    is($r->{up}, 0, 'totals: not up');
    is($r->{writes}, 0, 'nothing is sent');
    cmp_ok($r->{replaced}, '>', 0, 'newer records replace older ones');
    is(down($o), 1, 'one line tells of it');
    like($o->log, qr/redis store is down: .*refused.*, host: redis:\/\/127/,
        'why, and where');

    $dies->start;
    for my $k (0 .. 2) {
        my $hash = stored($dies, "transfer:$ids[$k]", undef, 60);
        is_deeply($hash && public($hash), known(status($o, $ids[$k])),
            'the terminal record arrives');
    }
    is(stored($dies, "transfer:$id", 'active')->{sequence},
        status($o, $id)->{sequence}, 'that of one under way, too');
    is(finish($c, 200_000), 201, 'which ends well');
    ok(stored($dies, "transfer:$id"), 'as Redis knows');
    is(fits($o, 'afterwards')->{up}, 1, 'up');
    outages($o, 1, 'down at start');
};

subtest 'dying in the middle' => sub {
    my $c = half($o, new_id(), 400_000);
    my $long = curl_start($o->url('/upload/long?id=' . 'of-a-long-upload'),
        file => data(20 * MB), rate => '10M');
    ok(stored($dies, "transfer:$id", 'active'), 'under way');
    $dies->stop('KILL');
    my $before = redis_totals($o);
    is(curl($o->url('/upload/meanwhile'), body => 'x')->{status}, 201,
        'an upload meanwhile');
    is($long->wait->{status}, 201, 'one from before to after');
    is(redis_totals($o)->{up}, 0, 'not up');
    $dies->start;
    ok(stored($dies, 'transfer:of-a-long-upload', undef, 60),
        'its terminal record arrives');
    is(finish($c, 400_000), 201, 'an upload that outlives the outage');
    my $hash = stored($dies, "transfer:$id");
    is_deeply($hash && public($hash), known(status($o, $id)), 'and its record');
    is(fits($o, 'afterwards')->{up}, 1, 'up');
    outages($o, 2, 'another outage');
};

subtest 'deaf' => sub {
    my $c = half($o, new_id(), 400_000);
    stored($dies, "transfer:$id", 'active');
    fits($o, 'nothing in flight');
    my $before = redis_totals($o);
    $dies->signal('STOP');
    # (all of it long before 5 s are over)
    my $r = curl($o->url('/upload/slow?id=while-it-is-deaf'),
        file => data(20 * MB));
    my $after = redis_totals($o);
    $dies->signal('CONT');
    is($r->{status}, 201, 'the upload is stored');
    is($after->{writes} - $before->{writes}, 1, 'one write is in flight');
    cmp_ok($after->{replaced} - $before->{replaced}, '>', 90,
        'what waits is replaced');
    is($after->{replaced} - $before->{replaced},
        $after->{records} - $before->{records} - 2,
        'all but that in flight and the last');
    my $hash = stored($dies, 'transfer:while-it-is-deaf');
    is_deeply($hash && public($hash), known($r->{json}),
        'the terminal record arrives');
    fits($o, 'afterwards');
    is(down($o), 2, 'not an outage');

    # longer than any answer may take
    $dies->signal('STOP');
    $r = curl($o->url('/upload/slow?id=while-it-is-deafer'), body => 'x');
    is($r->{status}, 201, 'stored');
    cmp_ok($r->{seconds}, '<', 4.5, 'before it is an outage');
    ok((wait_for { down($o) == 3 } 30), 'after 5 s it is an outage');
    is(finish($c, 400_000), 201, 'uploads go on');
    $dies->signal('CONT');
    $hash = stored($dies, 'transfer:while-it-is-deafer', undef, 60);
    is_deeply($hash && public($hash), known($r->{json}), 'its record arrives');
    ok(stored($dies, "transfer:$id"), 'the other one');
    is(fits($o, 'afterwards')->{up}, 1, 'up');
    outages($o, 3, 'a deaf Redis');
};

subtest 'refusing to write' => sub {
    # it answers greetings and reads all the time
    my $c = half($o, new_id(), 400_000);
    ok(stored($dies, "transfer:$id", 'active'), 'under way');
    $dies->cmd('CONFIG', 'SET', 'min-replicas-to-write', 1);
    is(finish($c, 400_000), 201, 'stored');
    ok((wait_for { down($o) == 4 }), 'a line');
    like($o->log, qr/redis store is down: a write was refused \(NOREPLICAS /,
        'tells why');
    my $r = curl($o->url('/upload/no?id=while-it-refuses-it'), body => 'x');
    is($r->{status}, 201, 'another one');
    wait_for { redis_totals($o)->{errors} > 4 } 3;
    is(redis_totals($o)->{up}, 0, 'not up');
    $dies->cmd('CONFIG', 'SET', 'min-replicas-to-write', 0);
    ok(stored($dies, "transfer:$id", undef, 60), 'the terminal record arrives');
    my $hash = stored($dies, 'transfer:while-it-refuses-it');
    is_deeply($hash && public($hash), known($r->{json}), 'the other one, too');
    is(fits($o, 'afterwards')->{up}, 1, 'up');
    outages($o, 4, 'several refusals');
};

subtest 'closed for being idle' => sub {
    my $before = down($o);
    sleep 1;
    $dies->cmd('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    new_id();
    my $r = curl($o->url("/upload/idle?id=$id"), body => 'x');
    ok(stored($dies, "transfer:$id"), 'the next record is written');
    ok((wait_for { redis_totals($o)->{up} == 1 }), 'up');
    is(down($o), $before, 'not an outage');
};

subtest 'life' => sub {
    is($finished->{status}, 201, 'one is over');
    ok((wait_for { !$redis->hgetall($of->($over)) } 60), 'its record has gone');
    ok((wait_for { curl($short->url("/transfers/$over"))->{status} == 404 }),
        'here, too');
    my $hash = $redis->hgetall($of->($silent)) || {};
    is($hash->{state}, 'active', 'that of a silent one is there');
    cmp_ok($hash->{sequence}, '>', $begun, 'it was renewed');
    is($hash->{bytesTransferred}, 100_000, 'with the same bytes');
    is(status($short, $silent)->{state}, 'active', 'here, too');
    is(finish($client, 200_000), 201, 'it ends well');
    ok(stored($redis, $of->($silent)), 'as Redis knows');
};

if (my @keys = @{$redis->cmd('KEYS', $t->prefix . '*')}) {
    $redis->cmd('DEL', @keys);
}
