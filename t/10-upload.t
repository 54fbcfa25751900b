#!/usr/bin/perl

# Bodies of every size around a part's, in every framing, over plain HTTP and
# TLS, become objects of exactly these bytes; and what the client is told.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use Test::More;
use S3T;

use constant PART => 5 * MB;

my $t = S3T->new;
my $s3 = $t->s3;

my $n = $t->nginx(<<'EOF', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    log_format state "$uri $status $s3_transfer_id $s3_transfer_state"
        " $s3_bytes_transferred $s3_bytes_stored $s3_etag $s3_key"
        " $server_protocol";
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl http2;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        access_log %%DIR%%/state.log state;
        %%S3%%
        s3_part_size 5m;
        location /upload/ { s3_upload; }
        location /named/ { s3_upload $arg_key; s3_transfer_id $arg_id; }
    }
}
EOF

# name => options of curl
my %transports = (
    'Content-Length' => {},
    'chunked' => { chunked => 1 },
    'HTTP/2, Content-Length' => { h2 => 1, port => 'h2' },
    'HTTP/2' => { h2 => 1, port => 'h2', chunked => 1 },
    'TLS, Content-Length' => { port => 'tls' },
    'TLS, chunked' => { port => 'tls', chunked => 1 },
    'TLS, HTTP/2, Content-Length' => { port => 'tls', h2 => 1 },
    'TLS, HTTP/2' => { port => 'tls', h2 => 1, chunked => 1 },
);

sub start {
    my ($path, %o) = @_;
    my $port = delete $o{port};
    return curl_start($n->url($path, $port), %o,
        ($port || '') eq 'tls' ? (ca => $t->ca) : ());
}

# S3 makes the ETag of an object of parts from those of the parts
sub etag_of {
    my ($parts) = @_;
    return $parts > 1 ? qr/^"[0-9a-f]{32}-$parts"$/ : qr/^"[0-9a-f]{32}"$/;
}

# the line of a path in the access log
sub logged {
    my ($path) = @_;
    my $log = "$n->{dir}/state.log";
    wait_for { (read_file($log) || '') =~ m{^\Q$path\E }m };
    return read_file($log) =~ m{^(\Q$path\E .*)$}m ? $1 : undef;
}

sub check {
    my ($name, $key, $d, $r) = @_;
    my $parts = int(($d->{size} + PART - 1) / PART);
    my %want = (state => 'completed', direction => 'upload', key => $key,
        bucket => $t->bucket, bytesTransferred => $d->{size},
        bytesStored => $d->{size}, totalBytes => $d->{size},
        percentage => 100, storedPercentage => 100, partsStored => $parts,
        error => undef, transferId => $r->{headers}{'x-transfer-id'},
        etag => $r->{headers}{etag});

    is("$r->{status} $r->{version}",
        '201 ' . ($transports{$name}{h2} ? '2' : '1.1'), "$name: stored")
        or diag explain $r;
    is_deeply([$s3->sha256($key)], [$d->{sha256}, $d->{size}],
        "$name: what S3 holds");
    is_deeply({ map { $_, $r->{json}{$_} } keys %want }, \%want,
        "$name: the record") or diag $r->{body};
    like($r->{headers}{etag}, etag_of($parts), "$name: ETag");
    is($s3->head($key)->{etag}, $r->{headers}{etag}, "$name: S3's ETag");
    is($r->{headers}{location}, "/$key", "$name: Location");
    $s3->delete($key);
}

my @sizes = (0, 1, (map { $_ - 1, $_, $_ + 1 } PART, 3 * PART), 33 * MB);

for my $size (@sizes) {
    my $d = data($size);
    my %started = map {
        my $key = "upload/$size-" . s/\W+/-/gr;
        $_ => [$key, start("/$key", %{$transports{$_}}, file => $d)];
    } keys %transports;

    subtest "$size bytes" => sub {
        for my $name (sort keys %transports) {
            my ($key, $c) = @{$started{$name}};
            check($name, $key, $d, $c->wait);
        }
    };
}

subtest 'the record' => sub {
    my $r = curl($n->url('/upload/r?a=b'), file => data(PART + 1));
    my %values = $r->{body} =~ /"(\w+)":("(?:[^"\\]|\\.)*"|[^",}]+)/g;
    my $time = qr/^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"$/;
    my $number = qr/^\d+$/;
    my %types = (
        transferId => qr/^"[0-9a-f]{32}"$/, attempt => qr/^\d{13}$/,
        sequence => $number, state => qr/^"completed"$/,
        direction => qr/^"upload"$/, bucket => qr/^"[a-z0-9-]+"$/,
        key => qr/^"upload\/r"$/, bytesTransferred => $number,
        bytesStored => $number, totalBytes => $number, percentage => $number,
        storedPercentage => $number, partsStored => $number, rate => $number,
        startedAt => $time, updatedAt => $time, expiresAt => $time,
        etag => qr/^"\\"[0-9a-f]{32}-2\\""$/, error => qr/^null$/,
    );
    like($values{$_}, $types{$_}, $_) for sort keys %types;
    is_deeply([sort keys %values], [sort keys %types], 'no other field');
    cmp_ok($values{rate}, '>', 0, 'a rate');
    cmp_ok($values{startedAt}, 'le', $values{updatedAt}, 'the order of times');
    is($r->{headers}{'content-type'}, 'application/json', 'Content-Type');
    is($r->{headers}{location}, '/upload/r', 'Location has no query');
    is($s3->head('upload/r')->{'x-amz-meta-transfer-id'},
        "$r->{json}{transferId}.$r->{json}{attempt}",
        'the object says which transfer made it');

    my $line = logged('/upload/r');
    is($line, join(' ', '/upload/r', 201, $r->{json}{transferId}, 'completed',
        PART + 1, PART + 1, $r->{headers}{etag} =~ s/"/\\x22/gr, 'upload/r',
        'HTTP/1.1'),
        'the variables in the access log');
};

subtest 'other requests' => sub {
    my $d = data(PART + 1);
    my $r = curl($n->url('/upload/post'), method => 'POST', file => $d);
    is($r->{status}, 201, 'POST');
    is_deeply([$s3->sha256('upload/post')], [$d->{sha256}, $d->{size}],
        'what S3 holds');

    $r = curl($n->url('/upload/post'), method => 'PUT');
    is("$r->{status} $r->{json}{totalBytes}", '201 0',
        'neither body nor length: an empty object');
    is_deeply([$s3->sha256('upload/post')], [sha256_hex(''), 0],
        'in the place of the former');

    $r = curl($n->url('/upload/h2-none', 'h2'), method => 'PUT', h2 => 1);
    is("$r->{status} $r->{version} $r->{json}{totalBytes}", '201 2 0',
        'the same with HTTP/2');

    $r = curl($n->url('/upload/v1.0'), file => $d, args => ['--http1.0']);
    is("$r->{status} $r->{json}{bytesStored}", '201 ' . (PART + 1), 'HTTP/1.0')
        or diag explain $r;
    like(logged('/upload/v1.0'), qr{ HTTP/1\.0$}, 'as nginx saw it');
    is_deeply([$s3->sha256('upload/v1.0')], [$d->{sha256}, $d->{size}],
        'what S3 holds');

    $r = curl($n->url('/named/x?key=other/name&id=0123456789abcdef'),
        body => 'abc');
    is($r->{status}, 201, 'a key and an id of the client');
    is($r->{headers}{'x-transfer-id'}, '0123456789abcdef', 'its id');
    is($r->{json}{key}, 'other/name', 'its key');
    is($r->{headers}{location}, undef,
        'no Location: the path is not the key');
    is($s3->get('other/name'), 'abc', 'what S3 holds');
};
