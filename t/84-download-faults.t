#!/usr/bin/perl

# What S3 can do wrong (t/lib/S3T/Schedule.pm) while a response is captured: its
# client gets all of it, with the status it has anyway, and the copy is whole or
# not there. The same while a URL is fetched: told as for an upload. And what an
# origin can do wrong. All cases of a kind run at the same time.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use Test::More;
use S3T;
use S3T::Schedule;

my $t = S3T->new;
my $s3 = $t->s3;

# /<size>/<anything> is the body of that size
my $origin = $t->nginx(<<'EOF', module => 0);
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        location ~ ^/(\d+)/ { alias %%DIR%%/$1; }
    }
}
EOF
$t->token(ORIGIN => '127.0.0.1:' . $origin->port);

sub conf {
    my ($c) = @_;
    return $c->{condition} ? 's3_overwrite off; ' : '';
}

my $tee = S3T::Schedule->new($t, name => 'tee', door => sub {
    my ($c) = @_;
    return conf($c) . "s3_tee; proxy_pass http://%%ORIGIN%%/$c->{body}{size}/;";
});
my $pull = S3T::Schedule->new($t, name => 'pull', door => sub {
    my ($c) = @_;
    return conf($c) . "s3_ingest http://%%ORIGIN%%/$c->{body}{size}/x;";
});
$_->table for $tee, $pull;

for ($tee->cases) {
    my $body = "$origin->{dir}/$_->{body}{size}";
    symlink $_->{body}{path}, $body if !-e $body;
}

my $n = $t->nginx(<<"EOF");
%%MAIN%%
http {
    %%HTTP%%
    log_format tee '\$uri \$s3_tee_status';
    s3_memory 1g;
    s3_ingest_max 0;
    server {
        listen 127.0.0.1:%%PORT%%;
        s3_credentials static testaccess testsecret;
        s3_part_size 5m;
        s3_tries 3;
        s3_transfer_id \$arg_id;
        s3_ingest_allow 127.0.0.1;
        s3_tee_on_overrun wait;
        proxy_max_temp_file_size 0;
        location /transfers/ { s3_status; }
$tee->{locations}$pull->{locations}
    }
}
EOF
$_->{n} = $n for $tee, $pull;
$_->expect for $tee, $pull;

sub begin {
    my ($c, @o) = @_;
    return curl_start($n->url("/$c->{name}/x?id=$c->{id}"), @o);
}

$s3->put("$_-condition-real/x", 'the former') for qw/ tee pull /;


# The record is final some time after the client has had its response

sub captured {
    my ($c) = @_;
    my $r = $c->{started}->wait;
    is("$r->{status} $r->{exit}", '200 0', 'the response');
    is(sha256_hex($r->{body}), $c->{body}{sha256}, 'its bytes');

    my $record;
    wait_for {
        $record = $tee->record($c);
        ($record->{state} || '') =~ /^(completed|failed|aborted)$/;
    } 30;
    if (($c->{status} || 201) == 201) {
        is("$record->{state} $record->{bytesStored}",
            "completed $c->{body}{size}", 'the record');
        is($record->{etag}, $c->{etag}, 'ETag') if $c->{etag};
    } else {
        is($record->{state}, 'failed', 'the record');
        like($record->{error}, $c->{message}, 'and its error');
    }
    $tee->followed($c);
}

subtest 'S3, and a response' => sub {
    $_->{started} = begin($_) for $tee->cases;
    for my $c ($tee->cases) {
        subtest $c->{name} => sub { captured($c) };
    }
};

subtest 'S3, and a pull' => sub {
    $_->{started} = begin($_, method => 'POST') for $pull->cases;
    for my $c ($pull->cases) {
        subtest $c->{name} => sub {
            $pull->answered($c, $c->{started}->wait);
            $pull->followed($c);
        };
    }
};

is_deeply([sort $s3->keys], ['pull-condition-real/x', 'tee-condition-real/x'],
    'no object appeared in S3');
is($s3->get("$_-condition-real/x"), 'the former', 'the former stays')
    for qw/ tee pull /;
