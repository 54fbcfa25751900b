#!/usr/bin/perl

# What is sent to S3 over TLS gathers in a buffer: right bytes at every size, to
# an S3 that is slow, resets, answers early, stands still, asks for new keys in
# the middle; and few writes.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use Test::More;
use S3T;
use S3T::Null;

use constant { PART => 5 * MB, RECORD => 16 * KB, BUFFER => 128 * KB };

my $t = S3T->new(bucket => 0);

my %tls = (cert => $t->certs . '/server.pem', key => $t->certs . '/server.key');
my @versions = qw/ 1.2 1.3 /;

my %scripts = (
    sizes => {},
    slow => { put => { rate => 10 * MB } },
    reset => { part => [ map { { rate => 20 * MB, read => $_,
        close => 'reset' } } 2 * MB + 777, 3 * MB ] },
    early => { part => [ { status => 503, read => 100_000,
        close => 'after' } ] },
    refused => { part => { status => 403, read => MB, drain => 1 } },
    still => { put => { read => MB, delay => 600, close => 'before' } },
);
my (%fakes, %nulls, @locations);

# location NAME-VERSION URL DIRECTIVES
sub at {
    my ($name, $url, $more) = @_;
    my ($version) = $name =~ /([\d.]+)$/;
    push @locations, "        location /$name/ { s3_endpoint $url;"
        . " s3_ssl_protocols TLSv$version; $more s3_upload; }\n";
}

for my $v (@versions) {
    for my $name (sort keys %scripts) {
        my $fake = $fakes{"$name-$v"} = $t->fake(%tls, on => $scripts{$name});
        at("$name-$v", $fake->url, $scripts{$name}{part} ? 's3_part_size 5m;'
            : $name eq 'still' ? 's3_send_timeout 500ms; s3_tries 1;' : '');
    }
    my @options = ($t->dir, qw/ --port 0 --tls-port 0 --verify /,
        map { ("--$_", $tls{$_}) } sort keys %tls);
    $nulls{"rekey-$v"} = S3T::Null->new(@options, qw/ --rekey 250000 --rate /,
        30 * MB);
    $nulls{"third-$v"} = S3T::Null->new(@options, qw/ --every 3 /);
    # by chance one part may have many of the faults
    at("$_-$v", $nulls{"$_-$v"}->url('tls'), 's3_part_size 5m; s3_tries 100;')
        for qw/ rekey third /;
}

my $conf = <<'EOF' =~ s/%%LOCATIONS%%/join '', @locations/er;
%%MAIN%%
http {
    %%HTTP%%
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    s3_payload_signature off;
    s3_ssl_trusted_certificate %%CA%%;
    s3_part_size 20m;
    s3_tries 4;
    s3_connect_timeout 30s;
    server {
        listen 127.0.0.1:%%PORT%%;
%%LOCATIONS%%
    }
}
EOF
my $n = $t->nginx($conf);

sub put {
    my ($name, $d, $nginx) = @_;
    return curl_start(($nginx || $n)->url("/$name/$d->{size}"), file => $d);
}

# [name, object, upload]: it is stored, of those bytes
sub is_stored {
    my ($name, $d, $c) = @_;
    my $r = $c->wait;
    is($r->{status}, 201, "$name, $d->{size} bytes") or diag explain $r;
    my $put = wait_for { (grep { $_->{path} eq "/bucket/$name/$d->{size}" }
        $fakes{$name}->requests('put'))[-1] };
    is("$put->{length} $put->{sha256}", "$d->{size} $d->{sha256}",
        'what S3 was sent');
}


subtest 'S3 asks for new keys, S3 fails' => sub {
    my %body = map { $_ => S3T::Null::body_gen($t->dir, $n->url("/$_/x"),
        33 * MB) } sort keys %nulls;
    for (sort keys %body) {
        my $r = $body{$_}->wait;
        is($r->{status}, 201, $_) or diag explain $r;
        my $stats = $nulls{$_}->stats;
        is($stats->{bad}, 0, "$_: right bytes");
        if (/third/) {
            cmp_ok($stats->{faults}, '>=', 3, "$_: faults");
            next;
        }
        is($stats->{cut}, 0, "$_: in one go");
        cmp_ok($stats->{rekeyed}, '>=', /1\.3/ ? 100 : 2, "$_: new keys");
    }
};

subtest 'sizes, and slow readers' => sub {
    my $large = data(19 * MB);
    my @slow = map { ["slow-$_", $large, put("slow-$_", $large)] } @versions;
    for my $d (map { data($_) } 1, 2 * BUFFER, PART,
        map { (RECORD + $_, 7 * RECORD + $_, BUFFER + $_) } -1 .. 1)
    {
        is_stored("sizes-$_", $d, put("sizes-$_", $d)) for @versions;
    }
    is_stored(@$_) for @slow;
};

subtest 'resets and early answers' => sub {
    my $d = data(2 * PART + 1);
    my $body = read_file($d->{path});
    my %part = map { $_ => sha256_hex(substr $body, ($_ - 1) * PART, PART) }
        1 .. 3;
    $t->expect_errors(qr{ failed: .*"refused-1\.\d/$d->{size}"});
    my %uploads = map { $_ => put($_, $d) } grep { /reset|early|refused/ }
        sort keys %fakes;
    for (sort keys %uploads) {
        my $r = $uploads{$_}->wait;
        is($r->{status}, /refused/ ? 502 : 201, $_) or diag explain $r;
        my $fake = $fakes{$_};
        if (/refused/) {
            like($r->{json}{message}, qr/403 Fake403/, "$_: what S3 said");
            ok(wait_for(sub { $fake->requests('abort') }), "$_: aborted");
            next;
        }
        my @tries = wait_for(sub { $fake->requests('complete') })
            ? $fake->requests('part') : ();
        is_deeply({ map { $_->{query}{partNumber} => $_->{sha256} }
            grep { $_->{whole} } @tries }, \%part, "$_: the bytes of each part");
        cmp_ok(scalar @tries, '>', 3, "$_: some of them again");
    }
};

subtest 'an S3 that stands still' => sub {
    my $d = data(19 * MB);
    $t->expect_errors(qr{ failed: .*"still-1\.\d/$d->{size}"});
    my %uploads = map { $_ => put("still-$_", $d) } @versions;
    for (@versions) {
        my $r = $uploads{$_}->wait;
        is($r->{status}, 504, "TLS $_") or diag explain $r;
        like($r->{json}{message}, qr/timed out while it was sent a request/,
            'cause');
    }
};

# a log at debug tells what each write was asked to take, and took
subtest 'few writes' => sub {
    my $debug = $t->nginx($conf, level => 'debug');
    my @objects = map { data($_) } PART, 19 * MB;
    for my $v (@versions) {
        is_stored(@$_, put(@$_, $debug)) for ["sizes-$v", $objects[0]],
            ["slow-$v", $objects[1]];
    }
    my $size = @versions * ($objects[0]{size} + $objects[1]{size});
    my ($sum, $writes, $cut) = (0, 0, 0);
    for (split /\n/, $debug->log) {
        my ($took, $of) = /: send: fd:\d+ (\d+) of (\d+)$/ or next;
        $sum += $took;
        $writes++;
        $cut++ if $took < $of;
    }
    SKIP: {
        skip 'nginx without --with-debug', 3 if $debug->log !~ /\[debug\]/;
        cmp_ok($sum, '>', $size, 'all of it went through the buffers');
        cmp_ok($writes, '<', $size / RECORD / 2, 'several records a write');
        cmp_ok($cut, '>', 2, 'writes that S3 did not take whole');
        note "$writes writes, $cut cut";
    }
};
