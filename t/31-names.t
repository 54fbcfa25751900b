#!/usr/bin/perl

# Where an endpoint's name leads: a resolver, /etc/hosts and /etc/resolv.conf,
# literals, several addresses, the bucket in the host's name; and what is said
# when it leads nowhere.

use strict;
use warnings;

use lib 't/lib';
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw/ sleep /;
use S3T;
use S3T::Null ();
use S3T::Util qw/ $TOP ipv6 /;

use constant PART => 5 * MB;

my $t = S3T->new;
my $s3 = $t->s3;
my $fake = $t->fake;
my $port = $fake->{port};        # at 127.0.0.1 alone

# (which live for longer than this test)
my $dns = S3T::DNS->new(dir => $t->dir, ttl => 600, names => {
    's3.test' => ['127.0.0.1'],
    '*.s3.test' => ['127.0.0.1'],
    'one.test' => ['127.0.0.1'],
    'several.test' => ['127.0.0.2', '127.0.0.3', '127.0.0.1'],
    'dead.test' => ['127.0.0.2', '127.0.0.3'],
    'full.test' => ['127.0.0.4', '127.0.0.1'],
    'stuck.test' => ['127.0.0.4'],
    'six.test' => ['::1'],
    'both.test' => ['127.0.0.2', '::1'],
    'empty.test' => [],
    'quiet.test' => 'SILENCE',
    'broken.test' => 'SERVFAIL',
    'hosted.test' => ['127.0.0.2'],
});
my $short = S3T::DNS->new(dir => $t->dir, ttl => 1,
    names => { map { $_ => ['127.0.0.1'] } 'moves.test', 'wanders.test' });

# whose queue is full: it answers no more
my @queue = IO::Socket::INET->new(LocalAddr => '127.0.0.4', LocalPort => $port,
    Listen => 1) or die "listen: $!";
push @queue, IO::Socket::INET->new(PeerAddr => '127.0.0.4', PeerPort => $port,
    Blocking => 0) for 1 .. 8;

my $ipv6 = ipv6();

$t->token(FAKE_PORT => $port, DNS => $dns->address, SHORT => $short->address,
    SIX => $ipv6 ? 'listen [::1]:%%PORT_six%%;' : 'listen 127.0.0.1:%%PORT_six%%;');


my @names = qw/ one.test several.test dead.test full.test stuck.test nowhere.test empty.test
    quiet.test broken.test moves.test hosted.test localhost /;

sub locations {
    my (@names) = @_;
    return join '', map { "        location /$_/ { s3_endpoint"
        . " http://$_:%%FAKE_PORT%%; s3_upload;"
        . (/quiet/ ? ' resolver_timeout 700ms;' : '') . " }\n" } @names;
}

sub upload {
    my ($n, $name, %o) = @_;
    return curl($n->url("/$name/x"), body => 'abc', %o);
}

sub stored {
    my ($n, $name, $what) = @_;
    my $r = upload($n, $name);
    is($r->{status}, 201, $what || $name) or diag explain $r;
}

# The client, the log and nobody else are told; not more than one line.
sub fails {
    my ($n, $name, $cause, $status) = @_;
    my $line = qr{\[error\] .*s3 PutObject failed: .*\Q$name\E.*"\Q$name\E/x"};
    $t->expect_errors($line);
    my $before = () = $n->log =~ /$line/g;
    my $r = upload($n, $name);
    is("$r->{status} $r->{json}{error}", $status || '502 BadGateway',
        "$name: status") or diag explain $r;
    like($r->{json}{message}, $cause, "$name: cause");
    my $lines = () = $n->log =~ /$line/g;
    is($lines - $before, 1, "$name: one line of the log");
}

sub asked {
    my ($server, $name) = @_;
    return scalar grep { $_->{name} eq $name && $_->{type} eq 'A' }
        $server->questions;
}


my $n = $t->nginx(<<'EOF' =~ s/%%LOCATIONS%%/locations(@names)/er);
%%MAIN%%
http {
    %%HTTP%%
    log_format six "$http_host $request_method $uri $server_addr";
    server {
        listen 127.0.0.1:%%PORT%%;
        resolver %%DNS%%;
        s3_bucket bucket;
        s3_credentials static testaccess testsecret;
        s3_part_size 5m;
        s3_tries 2;
        s3_keepalive 0;
        s3_connect_timeout 300ms;
%%LOCATIONS%%
        location /moves.test/short/ {
            resolver %%SHORT%%;
            s3_endpoint http://moves.test:%%FAKE_PORT%%;
            s3_upload;
        }
        location /wanders/ {
            resolver %%SHORT%%;
            s3_endpoint http://wanders.test:%%FAKE_PORT%%;
            s3_keepalive 32;
            s3_upload;
        }
        location /six/ { s3_endpoint http://[::1]:%%PORT_six%%; s3_upload; }
        location /six.test/ {
            s3_endpoint http://six.test:%%PORT_six%%;
            s3_upload;
        }
        location /both.test/ {
            s3_endpoint http://both.test:%%PORT_six%%;
            s3_upload;
        }
        location /path/ {
            s3_endpoint http://s3.test:%%RGW_PORT%%;
            s3_bucket %%BUCKET%%;
            s3_upload;
        }
        location /virtual/ {
            s3_endpoint http://s3.test:%%RGW_PORT%%;
            s3_bucket %%BUCKET%%;
            s3_addressing virtual;
            s3_upload;
        }
        location /variable/ {
            s3_endpoint http://s3.test:%%RGW_PORT%%;
            s3_bucket $arg_bucket;
            s3_addressing virtual;
            s3_upload;
        }
    }

    # the same S3 at another address
    server {
        listen 127.0.0.5:%%FAKE_PORT%%;
        error_log %%DIR%%/error.log info;
        access_log %%DIR%%/other.log six;
        location / { proxy_pass http://127.0.0.1:%%FAKE_PORT%%; }
    }

    # an S3 that has an address of IPv6 alone
    server {
        %%SIX%%
        error_log %%DIR%%/error.log info;    # debug would show what it is sent
        access_log %%DIR%%/six.log six;
        location / { add_header ETag '"six"'; return 200; }
    }
}
EOF

subtest 'a resolver' => sub {
    stored($n, 'one.test');
    my $put = wait_for { ($fake->requests('put'))[0] };
    is($put->{headers}{host}, "one.test:$port", 'Host');
    stored($n, 'one.test', 'again');
    is(asked($dns, 'one.test'), 1, 'asked once, the answer lives on');

    stored($n, 'localhost', 'localhost needs none');
    is(asked($dns, 'localhost'), 0, 'and asks none');
};

subtest 'several addresses' => sub {
    my $dead = qr{connect to 127\.0\.0\.[23]:$port of "several\.test" failed};
    my $tried = qr{\[warn\].* $dead .*refused\), trying another address};
    for (1 .. 20) {                  # any of them may be the first
        stored($n, 'several.test', "several.test $_");
        last if $n->log =~ $tried;
    }
    like($n->log, $tried, 'dead ones are named');

    for (1 .. 20) {
        stored($n, 'full.test', "full.test $_");
        last if $n->log =~ /"full\.test" timed out, trying another address/;
    }
    like($n->log, qr/"full\.test" timed out, trying another/, 'silent ones');

    fails($n, 'dead.test', qr/connect to 127\.0\.0\.[23]:$port of 'dead\.test'/);
    fails($n, 'stuck.test', qr/connect to 127\.0\.0\.4:$port .* timed out/,
        '504 GatewayTimeout');
};

subtest 'names that lead nowhere' => sub {
    fails($n, 'nowhere.test',
        qr/'nowhere\.test' could not be resolved \(3: Host not found\)/);
    fails($n, 'empty.test', qr/'empty\.test' could not be resolved \(3:/);
    fails($n, 'broken.test',
        qr/'broken\.test' could not be resolved \(2: Server failure\)/);
    fails($n, 'quiet.test',
        qr/'quiet\.test' could not be resolved \(110: Operation timed out\)/);

    $dns->set('nowhere.test' => ['127.0.0.1']);
    stored($n, 'nowhere.test', 'and once it does');
};

subtest 'a client that left while a name was asked for' => sub {
    $t->allow_errors(qr{s3 CreateMultipartUpload failed: .*"quiet\.test/left"});
    my $before = asked($dns, 'quiet.test');
    my $raw = $t->raw($n->port);
    $raw->send("PUT /quiet.test/left HTTP/1.1\r\nHost: x\r\n"
        . "Content-Length: 20000000\r\n\r\n" . 'x' x 1000);
    ok(wait_for(sub { asked($dns, 'quiet.test') > $before }), 'asked');
    $raw->close;
    stored($n, 'one.test', 'nginx goes on');
};

subtest 'answers live for their time' => sub {
    stored($n, 'moves.test/short', 'at first');
    $short->set('moves.test' => ['127.0.0.2']);
    sleep 2.1;
    $t->expect_errors(qr{127\.0\.0\.2:$port of "?'?moves\.test.*refused});
    my $r = upload($n, 'moves.test/short');
    like($r->{json}{message}, qr/connect to 127\.0\.0\.2:/, 'it has moved');

    $dns->set('one.test' => ['127.0.0.2']);
    stored($n, 'one.test', 'an answer of ten minutes is still good');
};

subtest 'one upload, while the address changes' => sub {
    my $bytes = read_file(data(3 * PART)->{path});
    my $raw = $t->raw($n->port);
    my $of = sub { grep { $_->{path} =~ /wanders/ } $fake->requests('part') };
    my $seen = sub {
        my $log = read_file("$n->{dir}/other.log") || '';
        return scalar(() = $log =~ /wanders/g);
    };
    $raw->send("PUT /wanders/x HTTP/1.1\r\nHost: x\r\n"
        . 'Content-Length: ' . 3 * PART . "\r\n\r\n"
        . substr $bytes, 0, PART + 1);
    ok((wait_for { $of->() == 1 }), 'a part is stored');
    is($seen->(), 0, 'at the first address');
    $short->set('wanders.test' => ['127.0.0.5']);
    sleep 2.1;
    $raw->send(substr $bytes, PART + 1);
    is(($raw->response(60) || {})->{status}, 201, 'stored');
    is(scalar($of->()), 3, 'in three parts');
    # (a kept connection may carry one of them)
    cmp_ok($seen->(), '>', 0, 'the rest at the second address');
};

SKIP: {
    skip 'no IPv6 in this kernel', 1 if !$ipv6;
    subtest 'IPv6' => sub {
        for my $name (qw/ six six.test both.test /) {
            my $r = upload($n, $name);
            is("$r->{status} $r->{headers}{etag}", '201 "six"', $name);
        }
        my $six = $n->port('six');
        is(read_file("$n->{dir}/six.log"), join('', map { "$_->[0]:$six PUT "
            . "/bucket/$_->[1]/x ::1\n" } ['[::1]', 'six'],
            ['six.test', 'six.test'], ['both.test', 'both.test']),
            'what it saw');
    };
}

subtest 'the bucket in the name' => sub {
    my %hosts = (path => 's3.test', virtual => $t->bucket . '.s3.test',
        variable => $t->bucket . '.s3.test');
    for my $how (qw/ path virtual variable /) {
        my $before = asked($dns, $hosts{$how});
        for my $d (data(1000), data(PART + 1)) {
            my $key = "$how/a key+%C3%A4/$d->{size}";
            my $r = curl($n->url("/$how/a%20key+%25C3%25A4/$d->{size}?bucket="
                . $t->bucket), file => $d);
            is($r->{status}, 201, "$how, $d->{size} bytes")
                or diag explain $r;
            is_deeply([$s3->sha256($key)], [$d->{sha256}, $d->{size}],
                'what S3 holds');
        }
        is(asked($dns, $hosts{$how}) - $before, $how eq 'variable' ? 0 : 1,
            "$hosts{$how} was asked for");
    }
};


# The machine's own files, or what stands for them

my $dir = $t->dir;
S3T::Null::_build();

my $hosts = write_file("$dir/hosts", <<'EOF');
# 127.0.0.2 one.test
not-an-address broken.test
127.0.0.1	Hosted.TEST another.test # dead.test
127.0.0.2 several.test
127.0.0.1 several.test
EOF

sub files {
    my ($resolv_conf) = @_;
    return { LD_PRELOAD => "$TOP/build/etc.so", ETC_HOSTS => $hosts,
        ETC_RESOLV_CONF => $resolv_conf };
}

my $conf = <<'EOF';
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        s3_bucket bucket;
        s3_credentials static testaccess testsecret;
        s3_tries 1;
        s3_keepalive 0;
EOF
$conf .= locations(qw/ hosted.test another.test several.test localhost
    one.test dead.test broken.test /);
$conf .= <<'EOF';
        location /resolver/ {
            resolver %%DNS%%;
            s3_endpoint http://hosted.test:%%FAKE_PORT%%;
            s3_upload;
        }
    }
}
EOF

my $empty = write_file("$dir/empty", "# no server\noptions timeout:1\n");

subtest '/etc/hosts, and no resolver at all' => sub {
    my $n = $t->nginx($conf, env => files($empty));
    stored($n, $_) for qw/ hosted.test another.test several.test
        several.test localhost resolver /;
    like($n->log, qr/connect to 127\.0\.0\.2:$port of .*trying another/,
        'the dead one of two was tried');
    fails($n, $_,
        qr/no resolver to find '\Q$_\E': .*set the 'resolver' directive/)
        for qw/ one.test dead.test broken.test /;
};

# (port 53 wants root)
subtest '/etc/resolv.conf' => sub {
    my $host = '127.53.' . join '.', map { 1 + int rand 250 } 1, 2;
    my $server = S3T::DNS->new(dir => $t->dir, host => $host, port => 53,
        names => { 'one.test' => ['127.0.0.1'] });

    my $resolv_conf = write_file("$dir/resolv.conf",
        "; comment\nsearch test\nnameserver $host\n");
    my $n = $t->nginx($conf, env => files($resolv_conf));
    stored($n, $_) for qw/ hosted.test one.test /;
    is(asked($server, 'one.test'), 1, 'its server was asked');
    is(asked($server, 'hosted.test'), 0, 'but for what /etc/hosts has');
    fails($n, 'dead.test',
        qr/'dead\.test' could not be resolved \(3: Host not found\)/);
};
