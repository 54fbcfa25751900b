#!/usr/bin/perl

# s3_tee behind grpc_pass, uwsgi_pass and scgi_pass, where the end of a body is
# known from other things than in HTTP/1.1 and FastCGI.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;
use S3T::Tee;
use S3T::Util qw/ $TOP end_child free_port spawn /;

my $t = S3T->new;
my $s3 = $t->s3;
my $d = data(12 * MB);
my $path = $t->served($d);
my $port = free_port();
my $files = $t->files;

my $gateway = spawn({ stderr => $t->dir . '/gateway.err' },
    'perl', "$TOP/t/lib/origin_gateway.pl", $port, $files);
wait_for { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") }
    or die 'no gateway';

# HTTP/2 without TLS is what grpc_pass speaks
my $plain = $t->nginx(<<"EOC", module => 0);
%%MAIN%%
http {
    %%HTTP%%
    gzip_types *;
    server {
        listen 127.0.0.1:%%PORT%% http2;
        root $files;
        location /unknown/ { alias $files/; gzip on; gzip_comp_level 1; }
        location /cut/ {
            uwsgi_param REQUEST_URI \$request_uri;
            uwsgi_pass 127.0.0.1:$port;
        }
    }
}
EOC

my $gate = 'param REQUEST_URI $request_uri; %s_pass 127.0.0.1:' . $port . ';';
$t->token(LOG => $LOG, GRPC => $plain->port,
    UWSGI => join('', map { s/%s/uwsgi/r } 'uwsgi_' . $gate),
    SCGI => join('', map { s/%s/scgi/r } 'scgi_' . $gate));

my $n = $t->nginx(<<'EOC');
%%MAIN%%
http {
    %%HTTP%%
    %%LOG%%
    %%S3%%
    s3_memory 512m;
    s3_transfer_id $arg_id;
    s3_part_size 5m;
    s3_tee_on_overrun wait;
    grpc_buffer_size 64k;
    uwsgi_max_temp_file_size 0;
    scgi_max_temp_file_size 0;
    uwsgi_cache_path %%DIR%%/cache keys_zone=cache:1m;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        location /grpc/ {
            rewrite ^/grpc(/.*) $1 break;
            grpc_pass grpc://127.0.0.1:%%GRPC%%;
            grpc_set_header TE "";
            s3_tee $arg_id;
        }
        location /uwsgi/ { %%UWSGI%% s3_tee $arg_id; }
        location /scgi/ { %%SCGI%% s3_tee $arg_id; }
        location /cached/ {
            uwsgi_cache cache; uwsgi_cache_key $uri; uwsgi_cache_valid 1m;
            %%UWSGI%% s3_tee $arg_id;
        }
        location /open/ { s3_tee_close_delimited on; %%UWSGI%% s3_tee $arg_id; }
        location /status/ { access_log off; s3_status; }
    }
}
EOC

sub download {
    my ($path, $id, %o) = @_;
    my $sep = $path =~ /\?/ ? '&' : '?';
    return curl_start($n->url("$path${sep}id=$id", delete $o{port}),
        digest => 1, %o)->wait;
}

for ([ 'grpc', "/grpc$path" ], [ 'grpc to HTTP/2', "/grpc$path", port => 'h2',
        h2 => 1 ],
    [ 'uwsgi', "/uwsgi$path?length" ], [ 'scgi', "/scgi$path?length" ],
    [ 'what ends with its connection', "/open$path" ])
{
    my ($name, $from, %o) = @$_;
    subtest $name => sub {
        my $r = download($from, id($name), %o);
        is("$r->{status} $r->{sha256}", "200 $d->{sha256}", 'the client');
        is_stored($n, $s3, id($name), id($name), $d, $name);
    };
}

# gzip took the length away; HTTP/2 says where the body ends
subtest 'grpc without a length' => sub {
    my $id = id('grpc unknown');
    my $r = download("/grpc/unknown$path", $id,
        headers => [ 'Accept-Encoding: gzip' ]);
    is($r->{status}, 200, 'status');
    is($r->{headers}{'content-length'}, undef, 'no length');
    is(is_final($n, $id, 'completed', 'unknown')->{totalBytes}, $r->{size},
        'all of it');
    is_deeply([$s3->sha256($id)], [$r->{sha256}, $r->{size}], 'what S3 holds');
};

# a fault of the origin's: nginx tells the next by resetting the stream
subtest 'what breaks off' => sub {
    for ([ 'uwsgi', "/uwsgi$path?length&cut=6000000" ],
        [ 'scgi', "/scgi$path?length&cut=6000000" ],
        [ 'grpc', "/grpc/cut$path?length&cut=6000000" ])
    {
        my ($name, $from) = @$_;
        my $id = id("cut $name");
        my $r = download($from, $id);
        isnt($r->{exit}, 0, "$name: the client sees that it is cut");
        is_final($n, $id, 'aborted', $name);
        is(logged($n, $id)->{tee}, 'truncated', "$name: the word for it");
        is($s3->head($id), undef, "$name: no object");
    }
};

subtest 'nothing tells the end' => sub {
    for my $name (qw/ uwsgi scgi /) {
        my $id = id("open $name");
        my $r = download("/$name$path", $id);
        is($r->{sha256}, $d->{sha256}, "$name: the client");
        is(logged($n, $id)->{tee}, 'close_delimited', "$name: the word for it");
        is($s3->head($id), undef, "$name: no object");
    }
};

# nor does the word of a framing that nobody decodes
subtest 'chunks where there are none' => sub {
    for my $name (qw/ uwsgi scgi cached cached /) {
        my $id = id("chunked $name " . rand);
        my $r = download("/$name$path?chunked&cut=6000000", $id);
        is("$r->{exit} $r->{size}", '0 6000000', "$name: the client");
        is(logged($n, $id)->{tee}, 'close_delimited', "$name: the word for it");
        is($s3->head($id), undef, "$name: no object");
    }
};

end_child($gateway);

$t->expect_errors(qr/upstream prematurely closed connection/,
    qr/upstream rejected request with error/);
