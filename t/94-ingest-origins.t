#!/usr/bin/perl

# s3_ingest from the servers that there are: whoever sends it, over whatever
# framing, of any size, S3 holds the same bytes, and the stores tell of it.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;

use constant PART => 5 * MB;

my $t = S3T->new;
my $s3 = $t->s3;
my %origin = map { $_ => $t->origin($_) } qw/ node python /;
my $files = $t->files;

my $plain = $t->nginx(<<"EOC", module => 0);
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_tls%% ssl;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        root $files;
    }
}
EOC

# from the root of each
my %url = (
    nginx => 'http://127.0.0.1:' . $plain->port,
    'nginx over TLS' => 'https://localhost:' . $plain->port('tls'),
    python => $origin{python}->url,
    node => $origin{node}->url,
    'node with a length' => $origin{node}->url,
    bucket => 's3://' . $t->bucket . '/origin',
);
my %query = ('node with a length' => '?length');

$t->token(LOCATIONS => join "\n", map {
    my $name = s/\W+/-/gr;
    my $rest = $_ eq 'bucket' ? '' : $query{$_} || '';
    "location /$name/ { rewrite ^/$name(/.*) \$1 break;"
        . " s3_ingest $url{$_}\$uri$rest $name\$uri; }";
} sort keys %url);

my $n = $t->nginx(<<'EOC', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    %%S3%%
    s3_payload_signature off;
    s3_memory 512m;
    s3_ssl_trusted_certificate %%CA%%;
    s3_ingest_allow 127.0.0.0/8 ::1;
    s3_transfer_id $arg_id;
    s3_progress_redis redis://%%REDIS%% prefix=%%PREFIX%%;
    s3_progress_dynamodb %%DYNAMODB%% table=%%TABLE%%;
    s3_progress_dynamodb_credentials static k s;
    server {
        listen 127.0.0.1:%%PORT%%;
        %%LOCATIONS%%
    }
}
EOC

my $run = sprintf '%08x%08x', $$, time;

sub pull {
    my ($name, $path) = @_;
    my $dir = $name =~ s/\W+/-/gr;
    my $id = join '-', $dir, $path =~ s/\W+/-/gr, $run;
    return [$name, "$dir$path", $id, curl_start($n->url("/$dir$path?id=$id"),
        method => 'POST', timeout => 900)];
}

# as it is in both stores once they have heard of the end
sub told {
    my ($id) = @_;
    my ($hash, $item);
    wait_for {
        $hash = $t->redis->hgetall($t->prefix . $id) || {};
        $item = $t->dynamodb->get_item($id) || {};
        ($hash->{state} || '') eq 'completed'
            && ($item->{state} || '') eq 'completed';
    } 60;
    return map { join ' ', map { defined $_ ? $_ : '-' }
        @$_{qw/ state direction bytesTransferred totalBytes /} } $hash, $item;
}

sub check {
    my ($d, $of) = @_;
    my ($name, $key, $id, $curl) = @$of;
    my $r = $curl->wait;
    is($r->{status}, 201, "$name: $d->{size} bytes") or diag explain $r;
    is_deeply([$s3->sha256($key)], [$d->{sha256}, $d->{size}],
        "$name: what S3 holds");
    my $want = "completed download $d->{size} $d->{size}";
    is_deeply([told($id)], [$want, $want], "$name: Redis and DynamoDB");
    $s3->delete($key);
}

for my $size (0, 1, PART, 16 * MB - 1, 16 * MB, 16 * MB + 1, 40 * MB) {
    my $d = data($size);
    my $path = $t->served($d);
    $s3->put("origin$path", read_file($d->{path}));
    my @pulls = map { pull($_, $path) } sort keys %url;

    subtest "$size bytes" => sub { check($d, $_) for @pulls };
    $s3->delete("origin$path");
}

# a body without a length is told of with what came
subtest 'chunked' => sub {
    my $d = data(40 * MB);
    my $path = $t->served($d);
    my $r = pull('node', $path)->[3]->wait;
    is($r->{json}{totalBytes}, $d->{size}, 'the total, in the end');
    my ($seen) = grep { $_->{url} eq $path } reverse $origin{node}->requests;
    is($seen->{method}, 'GET', 'one GET') or diag explain $seen;
};

subtest 'one GiB' => sub {
    my $d = data($ENV{T_ASAN} ? 256 * MB : GB);
    my $path = $t->served($d);
    check($d, pull($_, $path)) for 'nginx over TLS', 'node';
};
