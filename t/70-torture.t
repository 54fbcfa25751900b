#!/usr/bin/perl

# The N-th allocation of a worker fails, and the N-th connect, recv, send and
# so on fails or comes short, over uploads, status queries and a reload: an
# error answer or a retry that ends well, never a crash, a hang, a leak, a wrong
# object, an upload left open or a record that stays active. The head of
# t/lib/S3T/Trials.pm tells how N is chosen, and what can be asked for.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;
use S3T::Null qw/ body_gen pattern /;
use S3T::Torture qw/ talk /;
use S3T::Trials qw/ @ALL SMALL LARGE alive /;

my $t = S3T->new(bucket => 0);
my $null = S3T::Null->new($t->dir, '--verify', '--crc32', '--port', 0,
    '--tls-port', 0, '--cert', $t->certs . '/server.pem', '--key',
    $t->certs . '/server.key');
# here each multipart upload ends with a look at the object
my $losing = S3T::Null->new($t->dir, '--verify', '--crc32', '--complete-lost',
    1);
$t->token(NULL_TLS => $null->url('tls'), LOSING => $losing->url);

my $trials = S3T::Trials->new($t, seed => 70, null => $null,
    others => [[qr/^lost/, $losing]]);

my $n = $trials->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    %%TRIALS%%
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        location /put/ { s3_upload; }
        location /lost/ {
            s3_endpoint %%LOSING%%;
            s3_zero_copy off;
            s3_upload;
        }
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
            '--cacert', $t->ca)->wait(60);
        return { %$r, hung => $r->{exit} < 0 };
    };
}

sub put_h2 {
    my ($size) = @_;
    my $file = write_file($t->dir . "/body-$size", $body{$size});
    return sub {
        my ($id, $key) = @_;
        return h2_put($n->port('h2'), "/put/$key?id=$id", $file, timeout => 60,
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
    wait_for { $trials->status("/transfers/$id")->{partsStored} } 1, 0.005;
    $c->close;
    return { status => 0 };
}

my $lost = 0;

# what is wrong after an upload: a list of sayings
sub uploaded {
    my ($r, $id, $key, $size) = @_;
    my ($record, @bad) = $trials->transferred($id, $size, map { "$_/$key" }
        qw/ put tls lost /);
    my $state = $record->{state} || 'none';

    push @bad, 'hung' if $r->{hung};
    # the client is to blame only where it could not be read
    push @bad, "status $r->{status}"
        if $r->{status} !~ /^(0|201|50[0-4])$/
            && ($trials->{failing} ne 'recv' || $r->{status} !~ /^40[08]$/);
    push @bad, "201, state $state" if $r->{status} == 201
        && $state ne 'completed';
    push @bad, "$r->{status}, state $state" if $state eq 'completed'
        && $r->{status} !~ /^(0|201|500)$/;
    $lost++ if $state eq 'completed' && $r->{status} != 201;
    return @bad;
}


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
    is($action->($trials->next_id)->{status}, 201, "$name, unharmed");
}
$trials->begin;

# so that it is known where to look for what is left
{
    my $c = $t->raw($n->port);
    $c->send("PUT /put/open?id=open-@{['x' x 16]} HTTP/1.1\r\nHost: t\r\n"
        . 'Content-Length: ' . 2 * LARGE . "\r\n\r\n$body{+LARGE}");
    ok((wait_for { @{$trials->open_entries} }),
        'an open upload is known in Redis');
    $c->close;
    $trials->settled;
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
        $trials->rows($name, $factor{$name} || 1, $action, verdict($size),
            $name =~ /small/ ? [grep { $_ ne 'connect' } @ALL] : \@ALL);
    }
    $trials->rows('an upload that is cut', 0.4, \&cut, sub {
        my @bad = uploaded(@_, 2 * LARGE);
        my $record = $trials->status("/transfers/$_[1]");
        push @bad, 'completed' if ($record->{state} || '') eq 'completed';
        return @bad;
    }, [qw/ alloc connect recv send epoll /], status => qr/^0$/);
};

my $known = sprintf 'known-%016d', 1;
my $far = sprintf 'known-%016d', 2;
put(SMALL)->($known, 'known');
wait_for { %{$trials->stored($known)} };
$t->redis->cmd('HSET', $t->prefix . $far, %{$trials->stored($known)},
    transferId => $far);

# what was asked: the right thing, or an error, and then the right thing
sub answered {
    my ($path, $pattern) = @_;
    return sub {
        my ($r) = @_;
        # a reply that comes from Redis shows that it is there again
        my $then;
        wait_for {
            $then = $trials->ask($path);
            $then->{status} == 200 && $then->{body} =~ $pattern
                && $trials->status("/transfers/$far")->{state};
        } 60, 0.02;
        my @bad = $trials->settled;
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
        $trials->rows($name, 1, sub { $trials->ask($path) },
            answered($path, $pattern),
            [qw/ alloc recv send epoll /]);
    }
};

subtest 'nothing is left of it' => sub { $trials->nothing_left };

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
    wait_for { !grep { $_ == $old } $n->workers } 60, 0.005;
    $c->send(substr $body{+LARGE}, $half);
    my $said = $c->read_until(qr/\z./, 60);
    my $r = { status => ($said =~ m{^HTTP/1\.1 (\d+)})[0] || 0,
        hung => !$c->{eof} };
    $c->close;
    $r->{stays} = !wait_for { !alive($old) } 60, 0.005;
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
        $new && @workers == 1 || $trials->lines =~ /cannot be respawned/
    } 60, 0.005;
    my $r = $new && alive($new) ? put(LARGE)->($id, $key) : { status => 0 };
    $r->{stays} = !wait_for { !alive($old) } 60, 0.005;
    return $r;
}

my $given_up = 0;

sub reloaded {
    my ($r, @o) = @_;
    $given_up += $trials->revive;
    return (uploaded($r, @o, LARGE), $r->{stays} ? 'the old worker stays' : ());
}

subtest 'a reload' => sub {
    $trials->{reloads} = 1;
    $trials->rows('an upload over a reload', 0.6, \&over_a_reload, \&reloaded,
        [qw/ alloc recv send epoll /], old => 1, reloads => 1);
    $trials->rows('a new worker', 0.6, \&with_a_new_worker, \&reloaded, \@ALL,
        other => 1, reloads => 1);
};

# That is done before workers begin: each would do it again, and OpenSSL loses
# memory where a look-up fails for want of it.
subtest 'a new worker looks no algorithm up' => sub {
    my ($old) = $n->workers;
    kill 'HUP', $n->pid;
    wait_for { my @w = $n->workers; @w == 1 && $w[0] != $old } 60, 0.005;
    $trials->{torture}->count('fetch');
    is(put(SMALL)->($trials->next_id)->{status}, 201, 'an upload');
    $trials->settled;
    is($trials->{torture}->off->{count}, 0, 'look-ups');
};

$trials->tell("$given_up workers that did not start",
    "$lost answers of completed uploads lost");
