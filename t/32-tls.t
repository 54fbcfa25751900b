#!/usr/bin/perl

# TLS to S3: whose certificate is believed and for what name, what is said of
# one that is not, and that bytes, sessions and faults are handled as without.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw/ sleep /;
use S3T;
use S3T::Util qw/ ipv6 /;

use constant PART => 5 * MB;

my $t = S3T->new;
my $s3 = $t->s3;
my $dns = $t->dns('s3.test' => ['127.0.0.1'], '*.s3.test' => ['127.0.0.1'],
    'other.test' => ['127.0.0.1'],
    'many.s3.test' => ['127.0.0.8', '127.0.0.9', '127.0.0.1'],
    'soon.s3.test' => ['127.0.0.8', '127.0.0.7']);

my %tls = (cert => $t->certs . '/server.pem', key => $t->certs . '/server.key');
my @denied = (status => 403, body => '<Error><Code>AccessDenied</Code>'
    . '<Message>as scripted</Message></Error>');
my %faults = (
    'reset' => { part => [ { read => MB, close => 'reset' } ] },
    'closed' => { part => [ {}, { close => 'before' } ] },
    'early' => { part => [ { status => 503, read => 0, drain => 1 } ] },
    'refused' => { part => { @denied, read => 100_000, drain => 1 } },
    'refused-closed' => { part => { @denied, read => 0 } },
    'garbage' => { part => [ { raw => "\0\1\2\3\r\n\r\n", close => 'after' } ] },
    'slow' => { put => { rate => 20 * MB } },
);
my %fakes = map { $_ => $t->fake(%tls, on => $faults{$_}) } keys %faults;
my $secure = $t->fake(%tls);
my $plain = $t->fake;

# takes connections and says nothing
my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 16)
    or die "listen: $!";

my %p = map { $_ => free_port() } qw/ server other expired rogue old idle six bare /;

my $ipv6 = ipv6();

# An S3 that knows small objects alone, with several certificates
my $servers = join '', map { <<"EOF" } qw/ server other expired rogue /;
    server {
        listen 127.0.0.1:$p{$_} ssl;
        @{[ $_ eq 'expired' ? "listen 127.0.0.8:$p{server} ssl;" : '' ]}
        ssl_certificate %%CERTS%%/$_.pem;
        ssl_certificate_key %%CERTS%%/$_.key;
        access_log %%DIR%%/$_.log seen;
        location / { add_header ETag '"$_"'; return 200; }
    }
EOF
my $six = $ipv6 ? "listen [::1]:$p{six} ssl;" : '';
my $s = $t->nginx(<<"EOF", module => 0);
%%MAIN%%
http {
    %%HTTP%%
    error_log %%DIR%%/error.log info;    # debug would show what it was sent
    log_format seen "\$ssl_server_name \$ssl_protocol \$ssl_cipher"
        " \$ssl_session_reused \$uri";
    ssl_session_cache shared:tls:1m;
    ssl_protocols TLSv1.2 TLSv1.3;
$servers
    server {
        listen 127.0.0.1:$p{old} ssl;
        listen 127.0.0.1:$p{idle} ssl;
        $six
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        ssl_protocols TLSv1.2;
        keepalive_timeout 200ms;
        location / { add_header ETag '"old"'; return 200; }
    }
    server { listen 127.0.0.1:$p{bare}; listen 127.0.0.9:$p{server}; }
}
EOF

my @locations;

# location NAME ENDPOINT DIRECTIVES…: by default our authority is trusted
sub at {
    my ($name, $endpoint, @more) = @_;
    my $trust = 's3_ssl_trusted_certificate %%CA%%;';
    push @locations, "        location /$name/ { s3_endpoint $endpoint; "
        . join(' ', (grep { /trusted|verify/ } @more) ? () : $trust,
        (map { "$_;" } @more)) . " s3_upload; }\n";
}

at('rgw', '%%RGW_SSL%%', 's3_bucket %%BUCKET%%');
at('rgw-ip', 'https://127.0.0.1:%%RGW_SSL_PORT%%', 's3_bucket %%BUCKET%%');
at('rgw-signed', '%%RGW_SSL%%', 's3_bucket %%BUCKET%%',
    's3_payload_signature on', 's3_checksum crc32');
at('virtual', 'https://s3.test:%%RGW_SSL_PORT%%', 's3_bucket %%BUCKET%%',
    's3_addressing virtual');

at('system', "https://localhost:$p{server}", 's3_ssl_verify on');
at('rogue', "https://localhost:$p{rogue}");
at('trusted-rogue', "https://localhost:$p{rogue}",
    's3_ssl_trusted_certificate %%CERTS%%/rogue-ca.pem');
at('expired', "https://localhost:$p{expired}");
at('other', "https://localhost:$p{other}");
at('other-ip', "https://127.0.0.1:$p{other}");
at('other-named', "https://other.test:$p{other}");
at('six', "https://[::1]:$p{six}");
at('unverified', "https://localhost:$p{rogue}", 's3_ssl_verify off');
at('unverified-other', "https://localhost:$p{other}", 's3_ssl_verify off');
at('named', "https://localhost:$p{other}", 's3_ssl_name other.test');
at('misnamed', "https://localhost:$p{server}", 's3_ssl_name other.test');
at('named-ip', "https://127.0.0.1:$p{server}", 's3_ssl_name s3.test');

at('reuse', "https://localhost:$p{server}", 's3_keepalive 0');
at('reuse-1.2', "https://localhost:$p{server}", 's3_keepalive 0',
    's3_ssl_protocols TLSv1.2');
at('no-reuse', "https://localhost:$p{server}", 's3_keepalive 0',
    's3_ssl_session_reuse off');
at('kept', "https://localhost:$p{server}");
at('idle', "https://localhost:$p{idle}", 's3_tries 1');

at('1.3', "https://localhost:$p{old}", 's3_ssl_protocols TLSv1.3');
at('ciphers', "https://localhost:$p{server}", 's3_ssl_protocols TLSv1.2',
    's3_ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256');
at('command', "https://localhost:$p{server}",
    's3_ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256');

at('many', "https://many.s3.test:$p{server}", 's3_tries 1', 's3_keepalive 0');
at('soon', "https://soon.s3.test:$p{server}", 's3_tries 100', 's3_keepalive 0');
at('tls-to-plain', "https://localhost:$p{bare}");
at('plain-to-tls', "http://localhost:$p{server}");
at('silent', 'https://localhost:' . $silent->sockport,
    's3_connect_timeout 300ms');

my %payload = ('tls-auto' => [$secure, 'auto'], 'tls-off' => [$secure, 'off'],
    'tls-on' => [$secure, 'on'], 'plain-auto' => [$plain, 'auto'],
    'plain-off' => [$plain, 'off'], 'plain-on' => [$plain, 'on']);
at($_, $payload{$_}[0]->url, "s3_payload_signature $payload{$_}[1]")
    for sort keys %payload;

at($_, $fakes{$_}->url, 's3_part_concurrency 1', 's3_keepalive 0')
    for sort keys %fakes;
at('slow-large', $fakes{slow}->url, 's3_part_size 20m');

$t->token(DNS => $dns->address);
my $n = $t->nginx(<<'EOF' =~ s/%%LOCATIONS%%/join '', @locations/er);
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl http2;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        s3_bucket bucket;
        s3_credentials static testaccess testsecret;
        s3_part_size 5m;
        s3_tries 2;
        resolver %%DNS%%;
%%LOCATIONS%%
    }
}
EOF

sub upload {
    my ($name, %o) = @_;
    return curl($n->url("/$name/x"), $o{file} ? () : (body => 'abc'), %o);
}

sub stored {
    my ($name, $etag, $what) = @_;
    my $r = upload($name);
    is($r->{status}, 201, $what || $name) or diag explain $r;
    is($r->{headers}{etag}, "\"$etag\"", 'by that server');
}

# tries: how many the log speaks of
sub fails {
    my ($name, $status, $cause, $tries, %o) = @_;
    $t->expect_errors(qr{ failed: .*"\Q$name\E/x"});
    my $r = upload($name, %o);
    is($r->{status}, $status, "$name: $status") or diag explain $r;
    like($r->{json}{message}, $cause, "$name: cause");
    my @tries = map { / try (\d+) of / ? $1 : 0 }
        grep { m{\[error\].*"\Q$name\E/x"} } split /\n/, $n->log;
    is("@tries", $tries, "$name: one line of the log, tries");
}

# what a server saw of a location
sub lines {
    my ($server, $name) = @_;
    my $log = read_file("$s->{dir}/$server.log") || '';
    return $log =~ m{^(.*) /bucket/\Q$name\E/x$}mg;
}

sub seen {
    my ($server, $name, $count) = @_;
    wait_for { (my @lines = lines($server, $name)) >= ($count || 1) };
    return lines($server, $name);
}


subtest 'a real S3' => sub {
    my @uploads;
    for my $d (map { data($_) } 0, 1, 1000, PART, PART + 1, 33 * MB) {
        for my $name (qw/ rgw rgw-ip rgw-signed virtual /) {
            next if $name =~ /-/ && $d->{size} > PART + 1;
            push @uploads, ["$name/$d->{size}", $d, curl_start(
                $n->url("/$name/$d->{size}"), file => $d)];
            next if $name ne 'rgw';
            push @uploads, ["rgw/tls-$d->{size}", $d, curl_start(
                $n->url("/rgw/tls-$d->{size}", 'tls'), file => $d,
                ca => $t->ca, h2 => $d->{size} % 2, chunked => 1)];
        }
    }
    for (@uploads) {
        my ($key, $d, $c) = @$_;
        my $r = $c->wait;
        is($r->{status}, 201, $key) or diag explain $r;
        is_deeply([$s3->sha256($key)], [$d->{sha256}, $d->{size}],
            "$key: what S3 holds");
        $s3->delete($key);
    }
};

subtest 'certificates' => sub {
    my $unknown = qr/certificate of 'localhost' could not be verified \(\d+: /;
    fails('system', 502, $unknown, 1);
    fails('rogue', 502, $unknown, 1);
    fails('expired', 502, qr/could not be verified \(10: certificate has exp/,
        1);
    fails('other', 502,
        qr/certificate of 'localhost' is not for the name 'localhost'/, 1);
    fails('other-ip', 502, qr/is not for the address '127\.0\.0\.1'/, 1);
    fails('misnamed', 502, qr/is not for the name 'other\.test'/, 1);
    is_deeply([lines($_, $_)], [], "$_: nothing was sent to it")
        for qw/ rogue expired other /;

    stored('trusted-rogue', 'rogue');
    stored('other-named', 'other');
    stored('unverified', 'rogue');
    stored('unverified-other', 'other');
    stored('named', 'other');
    stored('named-ip', 'server');
    SKIP: {
        skip 'no IPv6 in this kernel', 2 if !$ipv6;
        stored('six', 'old');
    }

    like((seen('other', 'named'))[0], qr/^other\.test /, 's3_ssl_name: SNI');
    like((seen('server', 'named-ip'))[0], qr/^s3\.test /, 'of an address');
    like((seen('other', 'other-named'))[0], qr/^other\.test /, 'SNI');
};

subtest 'one server of several has none that is good, another no TLS' => sub {
    my $expired = qr/"many\.s3\.test" could not be verified \(10: certificate has/;
    my $bare = qr/TLS with "many\.s3\.test" failed: /;
    my $both = sub { $n->log =~ /$expired.*trying another address/
        && $n->log =~ /$bare.*trying another address/ };
    for (1 .. 20) {                  # any of them may be the first
        stored('many', 'server', "the third takes it, $_");
        last if $both->();
    }
    ok($both->(), 'the others are told of');
};

subtest 'one of two has none that is good, the other is soon back' => sub {
    my @uploads = map { curl_start($n->url("/soon/$_"), body => 'x') } 1 .. 6;
    wait_for { (() = $n->log =~ /PutObject failed: .*soon\.s3\.test/g) >= 6 };
    $t->nginx(<<"EOF", module => 0);
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.7:$p{server} ssl;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        location / { add_header ETag '"soon"'; return 200; }
    }
}
EOF
    is(join(' ', map { $_->wait->{status} } @uploads), join(' ', (201) x 6),
        'in whichever order they were asked');
};

subtest 'sessions' => sub {
    my %reused = ('reuse' => '. r r', 'reuse-1.2' => '. r r',
        'no-reuse' => '. . .', 'kept' => '. . .');
    for my $name (sort keys %reused) {
        upload($name) for 1 .. 3;
        my @seen = seen('server', $name, 3);
        is(join(' ', map { (split)[-1] } @seen), $reused{$name}, $name);
        my $version = $name =~ /1\.2/ ? '1.2' : '1.3';
        like($seen[0], qr/^localhost TLSv$version /, "TLS $version, SNI");
    }

    for (1 .. 2) {
        stored('idle', 'old', "upload $_");
        sleep 0.5;                   # S3 closes the connection meanwhile
    }
};

subtest 'protocols' => sub {
    fails('1.3', 502, qr/TLS with 'localhost' failed: .*protocol/, 2);
    fails('tls-to-plain', 502, qr/TLS with 'localhost' failed/, 2);
    fails('plain-to-tls', 502, qr/^PutObject failed: 400/, 1);
    fails('silent', 504, qr/TLS handshake with 'localhost' timed out/, 2);

    stored('ciphers', 'server');
    is((seen('server', 'ciphers'))[0],
        'localhost TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256 .', 's3_ssl_ciphers');
    stored('command', 'server');
    like((seen('server', 'command'))[0], qr/CHACHA20/, 's3_ssl_conf_command');
};

subtest 'payload signatures' => sub {
    my %want = map { $_ => /on$|plain-auto/ ? sha256_hex('abc')
        : 'UNSIGNED-PAYLOAD' } keys %payload;
    for my $name (sort keys %payload) {
        is(upload($name)->{status}, 201, $name);
        my $put = wait_for { (grep { $_->{path} eq "/bucket/$name/x" }
            $payload{$name}[0]->requests('put'))[0] };
        is($put->{headers}{'x-amz-content-sha256'}, $want{$name},
            $want{$name});
        is($put->{sha256}, sha256_hex('abc'), 'the body');
    }
};

subtest 'faults' => sub {
    my $d = data(PART + 1);
    my %started = map { $_ => curl_start($n->url("/$_/x"), file => $d) }
        grep { !/refused|slow/ } keys %fakes;
    for my $name (sort keys %started) {
        my $r = $started{$name}->wait;
        is($r->{status}, 201, $name) or diag explain $r;
        ok(wait_for(sub { $fakes{$name}->requests('part') == 3 }),
            "$name: one more try");
    }

    fails($_, 502, qr/403 AccessDenied/, 1, file => $d)
        for qw/ refused refused-closed /;
    for my $name (qw/ refused refused-closed /) {
        ok(wait_for(sub { $fakes{$name}->requests('abort') == 1 }),
            "$name: aborted");
    }

    $d = data(20 * MB);
    my $r = curl($n->url('/slow-large/x'), file => $d);
    is($r->{status}, 201, 'an S3 that is slow to read');
    my $put = wait_for { ($fakes{slow}->requests('put'))[0] };
    is("$put->{length} $put->{sha256}", "$d->{size} $d->{sha256}",
        'what it was sent');
};
