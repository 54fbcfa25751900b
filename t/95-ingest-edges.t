#!/usr/bin/perl

# Pulls at the edges of what an origin may do: a TLS connection that is cut
# where its end is all that ends the body, a rest whose origin does not say of
# what it is the rest, and a cancellation while all is fetched anew.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use IO::Socket::INET;
use IO::Socket::SSL ();
use Test::More;
use S3T;
use S3T::Open qw/ on_worker state_of status /;
use S3T::Util qw/ append end_child spawn /;

my $t = S3T->new;
my $s3 = $t->s3;

my $text = join '', map { sprintf "%07d\n", $_ } 1 .. 40_000;
my $other = $text =~ tr/0-9/a-j/r;
my $size = length $text;

sub listener {
    my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 16,
        ReuseAddr => 1) or die "listen: $!";
    return $s;
}

# until the empty line; the path
sub head_of {
    my ($socket) = @_;
    my $head = '';
    until ($head =~ /\r\n\r\n/) {
        sysread $socket, $head, 4096, length $head or return '';
    }
    return $head =~ m{^GET (\S+)} ? $1 : '';
}

# over TLS, and the end of the connection ends the body: with a closing alert
# (RFC 9112, 9.8), or without one where the path says so
my $tls = listener();
my $server = spawn({}, sub {
    while (my $c = $tls->accept) {
        if (IO::Socket::SSL->start_SSL($c, SSL_server => 1,
            SSL_cert_file => $t->certs . '/server.pem',
            SSL_key_file => $t->certs . '/server.key'))
        {
            my $path = head_of($c);
            my $length = $path =~ /length/ ? "Content-Length: $size\r\n" : '';
            print $c "HTTP/1.1 200 OK\r\n$length\r\n$text";
            $c->close(SSL_no_shutdown => $path =~ /cut/);
        }
    }
});

# an origin that knows Range, but not If-Range, and not how to name its answers
my %n;
my $rest = $t->fake(on => { get => sub {
    my ($r) = @_;
    my ($from) = ($r->{headers}{range} || '') =~ /(\d+)/;
    my $asked = $t->dir . '/asked';
    append($asked, '.');
    return { close => 'after', raw => "HTTP/1.1 200 OK\r\nETag: \"one\"\r\n"
        . "Content-Length: $size\r\n\r\n" . substr $text, 0, 100_000 }
        if -s $asked == 1;
    return { status => 200, body => $other, headers => { ETag => '"two"' } }
        if !defined $from;
    return { status => 206, body => substr($other, $from), headers => {
        'Content-Range' => "bytes $from-" . ($size - 1) . "/$size" } };
} });

# another resource each time, of one length and with one ETag
my $moves = $t->fake(on => { get => sub {
    my ($r) = @_;
    my $asked = $t->dir . '/moved';
    my $etag = "ETag: \"0\"\r\n";
    if ($r->{path} eq '/latest') {
        append($asked, '.');
        return { status => 302, headers => { Location =>
            '/' . (-s $asked == 1 ? 'one' : 'two') . "?x=" . -s $asked } };
    }
    my ($from) = ($r->{headers}{range} || '') =~ /(\d+)/;
    my $body = $r->{path} eq '/two' ? $other : $text;
    return { status => 206, body => substr($body, $from), headers => {
        ETag => '"0"', 'Content-Range' => "bytes $from-" . ($size - 1)
        . "/$size" } } if defined $from;
    return { close => 'after', raw => "HTTP/1.1 200 OK\r\n$etag"
        . "Content-Length: $size\r\n\r\n" . substr $body, 0, 100_000 }
        if $r->{path} ne '/two';
    return { status => 200, body => $body, headers => { ETag => '"0"' } };
} });

# a byte for each request
my $drips = $t->fake(on => { get => sub {
    my ($r) = @_;
    my ($from) = ($r->{headers}{range} || '') =~ /(\d+)/;
    my $head = defined $from ? "206 Partial Content\r\nContent-Range: "
        . "bytes $from-" . ($size - 1) . "/$size" : '200 OK';
    return { close => 'after', raw => "HTTP/1.1 $head\r\nETag: \"d\"\r\n"
        . 'Content-Length: ' . ($size - ($from || 0)) . "\r\n\r\nx" };
} });

my $held = listener();

$t->token(TLS => 'localhost:' . $tls->sockport,
    REST => "127.0.0.1:$rest->{port}",
    DRIPS => "127.0.0.1:$drips->{port}", MOVES => "127.0.0.1:$moves->{port}",
    HELD => '127.0.0.1:' . $held->sockport);

my $n = $t->nginx(<<'EOF', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    s3_part_size 5m;
    s3_tries 2;
    s3_ingest_allow 127.0.0.1;
    s3_transfer_id $arg_id;
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        add_header X-Pid $pid always;
        %%S3%%
        location /tls/ {
            s3_ssl_trusted_certificate %%CA%%;
            s3_ingest_close_delimited on;
            s3_ingest https://%%TLS%%$uri;
        }
        location /rest { s3_tries 5; s3_ingest http://%%REST%%/a; }
        location /moves/ {
            s3_ingest_redirects 1;
            s3_ingest http://%%MOVES%%/$arg_at;
        }
        location /stays/ { s3_ingest http://%%MOVES%%/latest; }
        location /drips { s3_ingest http://%%DRIPS%%/a; }
        location /held { s3_tries 5; s3_ingest http://%%HELD%%/a; }
        location /status/ { s3_status list cancel; }
    }
}
EOF

sub pull { curl($n->url($_[0]), method => 'POST') }

subtest 'TLS that is cut' => sub {
    $t->expect_errors(qr/s3 ingest from "[^"?]+" failed: /);
    my $r = pull('/tls/whole');
    is($r->{status}, 201, 'a closing alert ends a body') or diag explain $r;
    is_deeply([$s3->sha256('tls/whole')], [sha256_hex($text), $size],
        'what S3 holds');
    is(pull('/tls/length-cut')->{status}, 201,
        'a body with a length needs none');
    $r = pull('/tls/cut');
    is("$r->{status} " . ($r->{json}{error} || ''), '502 OriginBroken',
        'the end of the connection alone does not end one');
    is($s3->head('tls/cut'), undef, 'no object');
};

subtest 'a rest without a name' => sub {
    is(pull('/rest')->{status}, 201, 'stored');
    is(scalar(my @asked = $rest->requests('get')), 3, 'asked three times');
    is($asked[1]{headers}{range}, 'bytes=100000-', 'for the rest');
    is_deeply([$s3->sha256('rest')], [sha256_hex($other), $size],
        'all of one answer');
};

subtest 'a rest from elsewhere' => sub {
    is(pull('/moves/a?at=latest')->{status}, 201, 'stored');
    is_deeply([$s3->sha256('moves/a')], [sha256_hex($other), $size],
        'all of one resource');
    my @asked = map { "$_->{path} " . ($_->{headers}{range} || '') }
        $moves->requests('get');
    is($asked[-1], '/two ', 'where another was begun, all is asked for');
    is(pull('/moves/b?at=one')->{status}, 201, 'stored');
    is_deeply([$s3->sha256('moves/b')], [sha256_hex($text), $size],
        'of one place the rest is fetched');
};

subtest 'a redirect that is not followed' => sub {
    $t->expect_errors(qr/s3 ingest from "[^"?]+" failed: /);
    my $r = pull('/stays/a');
    is("$r->{status} $r->{json}{error}", '502 OriginStatus', 'the answer');
    like($r->{json}{message}, qr/answered 302, see s3_ingest_redirects$/,
        'and what would follow it');
};

subtest 'an origin that brings a byte a time' => sub {
    my $id = 'drips-' . $t->bucket;
    my $c = curl_start($n->url("/drips?id=$id"), method => 'POST');
    wait_for { $drips->requests('get') > 40 } 5;
    my $asked = () = $drips->requests('get');
    cmp_ok($asked, '>', 3, 'each byte is progress');
    cmp_ok($asked, '<', 40, 'but no reason to hurry');
    is(curl($n->url("/status/$id"), method => 'DELETE')->{status}, 202,
        'cancelled');
    is($c->wait->{status}, 409, 'and told');
};

subtest 'cancelled while all is fetched anew' => sub {
    my ($owner, $else) = $n->workers;
    my $id = 'edges-' . $t->bucket;
    my $to = on_worker($t, $n, $owner);
    my $over = on_worker($t, $n, $else);
    $to->send("POST /held?id=$id HTTP/1.1\r\nHost: a\r\n\r\n");
    my $origin = $held->accept;
    head_of($origin);
    print $origin "HTTP/1.1 200 OK\r\nContent-Length: $size\r\n\r\n"
        . substr $text, 0, 100_000;
    $origin->flush;
    ok((wait_for { (status($n, $id)->{bytesTransferred} || 0) == 100_000 }),
        'under way');

    # the other worker looks every 250 ms
    $over->send("DELETE /status/$id HTTP/1.1\r\nHost: a\r\n\r\n");
    is($over->response(60)->{status}, 202, 'accepted');
    $origin->close;

    ok((wait_for { state_of($n, $id) eq 'aborted' } 60, 0.05), 'aborted');
    is(status($n, $id)->{error}, 'cancelled', 'why');
    my $r = $to->response(60) || {};
    is($r->{status}, 409, 'its client is told');
    $held->blocking(0);
    ok(!(wait_for { $held->accept } 2, 0.1), 'not asked again');
};

# what a regular expression caught is the client's
subtest 'an origin that a client names' => sub {
    for my $conf ('location ~ "^/pull/(?<where>.+)$" { s3_ingest $where; }',
        'location /x/ { if ($uri ~ "^/x/(?<where>.+)$") { break; }'
        . ' s3_ingest ${where}/a; }',
        'map $arg_x $where { default http://a.test; }'
        . ' location ~ "^/pull/(?<where>.+)$" { s3_ingest $where; }')
    {
        my ($map, $location) = $conf =~ /^(map .*?\}) (.*)/ ? ($1, $2)
            : ('', $conf);
        my (undef, $said) = $n->test_conf(<<"EOF");
%%MAIN%%
http {
    %%HTTP%%
    $map
    server { listen 127.0.0.1:%%PORT%%; %%S3%% $location }
}
EOF
        like($said, qr/begins with "\$where".*put a "map"/, $conf);
    }
    my ($ok, $said) = $n->test_conf(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    map $uri $where { "~^/a/(?<rest>.+)$" http://a.test/$rest; }
    server {
        listen 127.0.0.1:%%PORT%%;
        %%S3%%
        location /a/ { s3_ingest $where; }
        location /b/ { s3_ingest $where; }
    }
}
EOF
    like($said, qr/test is successful/, 'but in a map');
};

end_child($server);
