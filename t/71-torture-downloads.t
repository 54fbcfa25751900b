#!/usr/bin/perl

# t/70-torture.t for downloads: the N-th allocation or call of a worker fails
# while responses are captured and URLs are fetched. A client gets its response
# as it is, or cut where nginx itself failed; what is stored is whole and says
# so; nothing hangs, leaks, stays open or active. The head of
# t/lib/S3T/Trials.pm tells how to ask for more.

use strict;
use warnings;

use lib 't/lib';
use List::Util qw/ min /;
use Test::More;
use Time::HiRes qw/ sleep /;
use S3T;
use S3T::Null qw/ pattern /;
use S3T::Trials qw/ @ALL SMALL LARGE alive /;

# S3 does not keep up with it, whose window is two parts
use constant LONG => 12 * MB;

# whoever is to cancel it comes before its end
use constant CANCELLED => 60 * MB;

my $t = S3T->new(bucket => 0);

# the origin, too: of bodies in the pattern that it wants
my $null = S3T::Null->new($t->dir, '--verify', '--crc32', '--port', 0,
    '--tls-port', 0, '--cert', $t->certs . '/server.pem', '--key',
    $t->certs . '/server.key');
my $slow = S3T::Null->new($t->dir, '--verify', '--crc32', '--rate', 4 * MB);

$t->token(NULL_PORT => $null->{port}, NULL_TLS_PORT => $null->{tls_port},
    SLOW => $slow->url, SMALL => SMALL, LARGE => LARGE, LONG => LONG);

# what is not harmed: redirects, and an S3 that has an object to be read
my $front = $t->nginx(<<'EOF', module => 0);
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        location /to/ { return 302 http://127.0.0.1:%%NULL_PORT%%/__body/$arg_n; }
        location / { proxy_pass http://127.0.0.1:%%NULL_PORT%%; }
        location = /bucket/source {
            limit_except GET { deny all; }
            rewrite ^ /__body/%%LARGE%% break;
            proxy_pass http://127.0.0.1:%%NULL_PORT%%;
        }
    }
}
EOF
$t->token(FRONT_PORT => $front->port);

my $trials = S3T::Trials->new($t, seed => 71, null => $null,
    others => [[qr/^over/, $slow]]);

my $n = $trials->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    %%TRIALS%%
    proxy_cache_path %%DIR%%/temp/cache keys_zone=cache:1m;
    proxy_http_version 1.1;
    proxy_set_header Connection '';
    proxy_connect_timeout 1s;
    proxy_send_timeout 2s;
    proxy_read_timeout 2s;
    upstream origin { server 127.0.0.1:%%NULL_PORT%%; keepalive 4; }
    s3_part_concurrency 1;
    s3_window 10m;
    s3_ingest_allow 127.0.0.1;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        set $o '';
        location /tee/ { s3_tee; proxy_pass http://origin/__body/$arg_n$o; }
        location /chunked/ {
            s3_tee;
            proxy_pass http://origin/__body/$arg_n?chunked=1$o;
        }
        location /wait/ {
            s3_tee; s3_tee_on_overrun wait; proxy_buffering off;
            proxy_pass http://origin/__body/$arg_n$o;
        }
        location /over/ {
            s3_tee; s3_endpoint %%SLOW%%;
            proxy_pass http://origin/__body/$arg_n$o;
        }
        location /slow/ {
            s3_tee; proxy_ignore_client_abort on;
            proxy_pass http://origin/__body/$arg_n?rate=20000000$o;
        }
        location /cached/ {
            s3_tee; proxy_cache cache; proxy_cache_valid 200 1h;
            proxy_cache_key $arg_c;
            proxy_pass http://origin/__body/$arg_n$o;
        }
        location /pull/ {
            s3_ingest http://127.0.0.1:%%NULL_PORT%%/__body/$arg_n?$arg_o;
        }
        location /async/ {
            s3_ingest_async on;
            s3_ingest http://127.0.0.1:%%NULL_PORT%%/__body/$arg_n?$arg_o;
        }
        location /tls/ {
            s3_ssl_trusted_certificate %%CA%%;
            s3_ingest https://localhost:%%NULL_TLS_PORT%%/__body/$arg_n;
        }
        location /led/ {
            s3_ingest_redirects 1;
            s3_ingest http://127.0.0.1:%%FRONT_PORT%%/to/?n=$arg_n;
        }
        location /signed/ {
            s3_endpoint http://127.0.0.1:%%FRONT_PORT%%;
            s3_ingest s3://bucket/source;
        }
        location /transfers/ { s3_status cancel; }
    }
}
EOF

my @places = qw/ tee chunked wait over slow cached pull async tls led signed /;
my %pattern = map { $_ => pattern($_) } SMALL, LARGE, LONG;
my ($dropped, $cut, $lost) = (0, 0, 0);


# Downloads that a client gets

sub download {
    my ($place, $size, $more) = @_;
    return sub {
        my ($id, $key) = @_;
        return $trials->ask("/$place/$key?id=$id&n=$size" . ($more || ''));
    };
}

sub over_h2 {
    my ($size) = @_;
    return sub {
        my ($id, $key) = @_;
        my $r = curl($n->url("/tee/$key?id=$id&n=$size", 'h2'), h2 => 1,
            timeout => 60);
        return { %$r, hung => $r->{exit} == 28, curl => 1 };
    };
}

# the bytes that it got; whole: it can tell that there are no more
sub body {
    my ($r) = @_;
    return ($r->{body}, !$r->{exit}) if $r->{curl};
    my ($length) = ($r->{head} || '') =~ /^Content-Length: (\d+)/mi;
    return ($r->{body}, length $r->{body} == $length) if defined $length;
    my ($body, $rest) = ('', $r->{body});
    while ($rest =~ /\G([0-9a-f]+)\r\n/gc) {
        my $len = hex $1;
        return ($body, 1) if !$len;
        $body .= substr $rest, pos $rest, $len;
        pos($rest) += $len + 2 <= length($rest) - pos $rest ? $len + 2
            : return ($body, 0);
    }
    return ($body, 0);
}

# Whether the failure was in what the copy alone does, so that the client must
# not feel it: the innermost frame of ours is not one that hands on
sub of_the_copy {
    my ($first) = grep { /ngx_(?:http_)?s3_/ } $trials->stack;
    return ($first || '') =~ /^ngx_(?:http_)?s3_/
        && $first !~ /tee_(?:pass|body_filter|header_filter|wake|hold)\b/;
}

# what is wrong after a response that was captured
sub captured {
    my ($size, $expected) = @_;
    return sub {
        my ($r, $id, $key) = @_;
        my ($record, @bad) = $trials->transferred($id, $size,
            map { "$_/$key" } @places);
        my $state = $record->{state} || 'none';
        my ($body, $whole) = $r->{status} == 200 ? body($r) : ('', 0);

        push @bad, 'hung' if $r->{hung};
        push @bad, "status $r->{status}" if $r->{status} !~ /^(0|200|50[0-4])$/
            && ($trials->{failing} ne 'recv' || $r->{status} !~ /^40[08]$/);
        if ($r->{status} == 200) {
            push @bad, 'other bytes for the client'
                if $body ne substr $pattern{$size}, 0, length $body;
            push @bad, 'a wrong length for the client'
                if $whole && length $body != $size;
        }
        if (!$whole) {
            $cut++;
            push @bad, "the client's response suffers ($r->{status})"
                if !$trials->{times} && of_the_copy();
        }
        $dropped++ if $whole && $state ne 'completed';
        push @bad, "state $state" if $trials->{failing} eq ''
            && $state ne ($expected || 'completed');
        return @bad;
    };
}


# and pulls

sub pull {
    my ($place, $size, $more) = @_;
    return sub {
        my ($id, $key) = @_;
        # cut-once of the origin is meant for this very URL
        return $trials->ask("/$place/$key?id=$id&n=$size&o="
            . ($more ? "$more%26k=$key" : ''), 'POST');
    };
}

sub pulled {
    my ($size, $expected) = @_;
    return sub {
        my ($r, $id, $key) = @_;
        my ($record, @bad) = $trials->transferred($id, $size,
            map { "$_/$key" } @places);
        my $state = $record->{state} || 'none';
        push @bad, 'hung' if $r->{hung};
        push @bad, "status $r->{status}"
            if $r->{status} !~ /^(0|201|202|50[0-4])$/
            && ($trials->{failing} ne 'recv' || $r->{status} !~ /^40[08]$/)
            && $r->{status} != ($expected || 0);
        push @bad, "201, state $state" if $r->{status} == 201
            && $state ne 'completed';
        push @bad, "$r->{status}, state $state" if $state eq 'completed'
            && $r->{status} !~ /^(0|20[12]|500)$/;
        $lost++ if $state eq 'completed' && $r->{status} !~ /^20/;
        push @bad, "state $state" if $trials->{failing} eq '' && !$expected
            && $state ne 'completed';
        my $running = $trials->status->{totals}{ingests};
        push @bad, "$running pulls" if $running;
        return @bad;
    };
}

# one that is cancelled in the middle by whom its client has told the id
sub cancelled {
    my ($id, $key) = @_;
    my $c = $t->raw($n->port);
    $c->send("POST /pull/$key?id=$id&n=@{[CANCELLED]}&o=rate=20000000"
        . " HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    wait_for { ($trials->status("/transfers/$id")->{bytesTransferred} || 0)
        > 3 * MB } 1, 0.005;
    my $r = $trials->ask("/transfers/$id", 'DELETE');
    my $said = $c->read_until(qr/\z./, 60);
    my $hung = $r->{hung} || !$c->{eof};
    $c->close;
    return { status => ($said =~ m{^HTTP/1\.1 (\d+)})[0] || 0,
        hung => $hung, told => $r->{status} };
}

my %download = (
    'a small tee' => [download('tee', SMALL), SMALL, 1],
    'a multipart tee' => [download('tee', LARGE), LARGE, 0.7],
    'a chunked tee' => [download('chunked', LARGE), LARGE, 0.3],
    'a tee that waits' => [download('wait', LONG), LONG, 0.3],
    'a tee of a cache hit' => [download('cached', LARGE, '&c=hit'), LARGE,
        0.3],
    'a tee over HTTP/2' => [over_h2(LARGE), LARGE, 0.3],
);
my %pull = (
    'a small pull' => [pull('pull', SMALL), SMALL, 1],
    'a multipart pull' => [pull('pull', LARGE), LARGE, 0.7],
    'a chunked pull' => [pull('pull', LARGE, 'chunked=1'), LARGE, 0.4],
    'a pull over TLS' => [pull('tls', LARGE), LARGE, 0.3],
    'a redirected pull' => [pull('led', SMALL), SMALL, 0.4],
    'a resumed pull' => [pull('pull', LARGE, 'cut-once=4000000'), LARGE, 0.4],
    'a pull that nobody waits for' => [pull('async', LARGE), LARGE, 0.4],
    'a pull from S3' => [pull('signed', LARGE), LARGE, 0.3],
);

for my $name (sort keys %download) {
    is($download{$name}[0]->($trials->next_id)->{status}, 200,
        "$name, unharmed");
}
for my $name (sort keys %pull) {
    like($pull{$name}[0]->($trials->next_id)->{status}, qr/^20[12]$/,
        "$name, unharmed");
}
$trials->begin;

subtest 'responses that are captured' => sub {
    # where the copy begins: most of what the client must not feel
    $trials->rows('the beginning of a tee', 3, download('tee', SMALL),
        captured(SMALL), ['alloc']);
    for my $name (sort keys %download) {
        my ($action, $size, $factor) = @{$download{$name}};
        $trials->rows($name, $factor, $action, captured($size),
            $name =~ /small/ ? [grep { $_ ne 'connect' } @ALL] : \@ALL);
    }
    $trials->rows('a tee of a cache miss', 0.3, sub {
        my ($id, $key) = @_;
        return download('cached', SMALL, "&c=$key")->(@_);
    }, captured(SMALL), [qw/ alloc recv send mmap /]);
    $trials->rows('a tee that overruns', 0.3, download('over', LONG),
        captured(LONG, 'failed'), [qw/ alloc recv send epoll /]);
};

subtest 'pulls' => sub {
    for my $name (sort keys %pull) {
        my ($action, $size, $factor) = @{$pull{$name}};
        $trials->rows($name, $factor, $action, pulled($size),
            $name =~ /small/ ? [grep { $_ ne 'connect' } @ALL] : \@ALL,
            status => $name =~ /nobody/ ? qr/^202$/ : qr/^201$/);
    }
    $trials->rows('a pull that is cancelled', 0.3, \&cancelled,
        pulled(CANCELLED, 409), [qw/ alloc recv send epoll /],
        status => qr/^409$/);
};

subtest 'nothing is left of it' => sub {
    $trials->nothing_left;
    my $live = sub {

        # the least: records wait for their stores for a while
        return min(map { sleep 0.1; $trials->{torture}->look->{live} } 1 .. 10);
    };
    my @live;
    for (1 .. 2) {
        for my $action (download('tee', SMALL), pull('pull', SMALL)) {
            $action->($trials->next_id) for 1 .. 40;
        }
        $trials->settled;
        push @live, $live->();
    }
    wait_for { ($live[1] = $live->()) - $live[0] < 20 } 20;
    cmp_ok($live[1] - $live[0], '<', 20, 'nor of 80 that are unharmed');
};


# A reload in the middle: it ends in the old worker, which then leaves

sub over_a_reload {
    my ($request) = @_;
    return sub {
        my ($id, $key) = @_;
        my ($old) = $n->workers;
        my $c = $t->raw($n->port);
        $c->send($request->($id, $key)
            . " HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        wait_for { ($trials->status("/transfers/$id")->{bytesTransferred} || 0)
            > MB } 1, 0.005;
        kill 'HUP', $n->pid;
        my $said = $c->read_until(qr/\z./, 60);
        my $hung = !$c->{eof};
        $c->close;
        # (looking for leaks takes it a while)
        my $stays = !wait_for { !alive($old) } 120, 0.005;
        my ($head, $body) = split /\r\n\r\n/, $said, 2;
        return { status => ($said =~ m{^HTTP/1\.1 (\d+)})[0] || 0,
            head => $head, body => $body, hung => $hung, stays => $stays };
    };
}

sub reloaded {
    my ($verdict) = @_;
    return sub {
        my ($r) = @_;
        $trials->revive;
        return ($verdict->(@_), $r->{stays} ? 'the old worker stays' : ());
    };
}

subtest 'a reload' => sub {
    $trials->{reloads} = 1;
    my @ops = ([qw/ alloc recv send epoll /], old => 1, reloads => 1);
    $trials->rows('a tee over a reload', 0.3, over_a_reload(sub {
        "GET /slow/$_[1]?id=$_[0]&n=@{[LARGE]}" }), reloaded(captured(LARGE)),
        @ops);
    $trials->rows('a pull over a reload', 0.3, over_a_reload(sub {
        "POST /pull/$_[1]?id=$_[0]&n=@{[LARGE]}&o=rate=20000000" }),
        reloaded(pulled(LARGE)), @ops);
};

$trials->tell("$dropped copies dropped", "$cut responses cut",
    "$lost answers of completed pulls lost");
