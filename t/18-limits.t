#!/usr/bin/perl

# The end of part numbers, with an S3 of ten parts, and of 60 MiB: a copy of the
# module in which these limits stand in the place of S3's. Parts grow and never
# shrink, the last number is used and none after it, and what does not fit is
# refused: before the body where its length is known, else as soon as it is.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use List::Util qw/ sum0 /;
use Test::More;
use S3T;

use constant { PARTS => 10, LARGEST => 60 * MB };

my $t = S3T->new(bucket => 0);
my $fake = $t->fake;
$t->token(FAKE => $fake->url);

# a copy of the module with other values in s3_limits_default
sub limited {
    my ($name, $object, $parts) = @_;
    my $path = S3T::Nginx::module_path();
    my ($address) = `nm '$path'` =~ /^([0-9a-f]+) \w s3_limits_default$/m
        or die 's3_limits_default is not there';
    $address = hex $address;
    my ($at) = map { my ($offset, $from, $size) = map { hex } @$_;
        $from <= $address && $address < $from + $size
            ? $address - $from + $offset : () }
        map { [/^\s+LOAD\s+0x(\w+)\s+0x(\w+)\s+0x\w+\s+0x(\w+)/] }
        grep { /LOAD/ } `readelf -lW '$path'`;
    my $so = read_file($path);
    my @were = unpack 'Q4 L', substr $so, $at, 36;
    is_deeply(\@were, [5 * MB, 5 * GB, 5 * GB, 5 * 1024 * GB, 10_000],
        "$name: the limits are found") or die 'not the limits';
    substr $so, $at, 36, pack 'Q4 L', @were[0 .. 2], $object, $parts;
    my $copy = write_file($t->dir . "/$name.so", $so);
    chmod 0644, $copy;
    return $copy;
}

my $conf = <<'EOC';
%%MAIN%%
http {
    %%HTTP%%
    s3_endpoint %%FAKE%%;
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    s3_payload_signature off;
    s3_part_size 5m;
    s3_transfer_id $arg_id;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        # parts of at most 10 MiB: one of 5 and 9 of 10
        location /ten/ { s3_window 20m; s3_upload; }
        # no other than 5 MiB
        location /five/ { s3_window 10m; s3_upload; }
        location /status/ { s3_status; }
    }
}
EOC

sub nginx {
    my ($name, @limits) = @_;
    return $t->nginx($conf, module => 0,
        modules => [limited($name, @limits)]);
}

my $path;

# what S3 saw of the newest upload
sub seen { return grep { $_->{path} eq "/bucket$path" } $fake->requests(@_) }

sub parts { return sort { $a->{query}{partNumber} <=> $b->{query}{partNumber} }
    seen('part') }

my %transports = (
    'a length' => {}, 'chunked' => { chunked => 1 },
    'HTTP/2' => { chunked => 1, h2 => 1 },
);

# uploads so much to a path: the answer
sub upload {
    (my $n, $path, my $size, my $how) = @_;
    my %o = %{$transports{$how}};
    # (curl loses an early answer of HTTP/2)
    return h2_put($n->port('h2'), $path, data($size)) if $o{h2};
    return curl($n->url($path), file => data($size), %o);
}

# what S3 was sent is the body, in parts that do not shrink but for the last
sub stored {
    my ($name, $r, $size, $count) = @_;
    is($r->{status}, 201, "$name: stored") or diag explain $r;
    wait_for { seen('complete') };
    my @parts = map { $_->{length} } parts();
    is(scalar @parts, $count, "$name: $count parts");
    is(sum0(@parts), $size, "$name: all of it");
    is(scalar(grep { $parts[$_] < $parts[$_ - 1] } 1 .. $#parts - 1), 0,
        "$name: none is smaller than the one before") or diag "@parts";
    my ($bytes, $at, @bad) = (read_file(data($size)->{path}), 0);
    for (parts()) {
        push @bad, $_->{query}{partNumber} if $_->{sha256}
            ne sha256_hex(substr $bytes, $at, $_->{length});
        $at += $_->{length};
    }
    is("@bad", '', "$name: byte for byte");
}

# refused while it came: no part number is past the last, and it is aborted
sub refused {
    my ($name, $r, $message, $most, $count) = @_;
    is("$r->{status} " . ($r->{json}{error} || ''), '413 EntityTooLarge',
        "$name: 413") or diag explain $r;
    like($r->{json}{message} || '', $message, "$name: says why");
    ok((wait_for { seen('abort') == 1 }), "$name: aborted");
    my @parts = map { $_->{length} } parts();
    cmp_ok(scalar @parts, '<=', $count || PARTS,
        "$name: at most so many parts");
    cmp_ok(sum0(@parts), '<=', $most, "$name: nor more bytes");
    is(scalar(my @done = seen('complete')), 0, "$name: not completed");
}

subtest 'ten parts' => sub {
    my $n = nginx('ten', 5 * 1024 * GB, PARTS);
    my $most = 95 * MB;

    stored('chunked', upload($n, '/ten/a', $most, 'chunked'), $most, PARTS);
    stored('HTTP/2', upload($n, '/ten/b', $most, 'HTTP/2'), $most, PARTS);
    stored('a length, larger parts', upload($n, '/ten/c', $most, 'a length'),
        $most, PARTS);
    stored('as many as there may be', upload($n, '/five/d', 50 * MB,
        'a length'), 50 * MB, PARTS);

    my $too_large = qr/larger than the largest object of unknown length/;
    refused($_, upload($n, '/ten/e-' . lc s/\W//gr, $most + 1, $_),
        $too_large, $most) for 'chunked', 'HTTP/2';
    refused('without larger parts', upload($n, '/five/f', 51 * MB, 'chunked'),
        $too_large, 50 * MB);

    my $r = upload($n, '/five/g', 51 * MB, 'a length');
    is($r->{status}, 413, 'a length that does not fit: 413');
    like($r->{json}{message}, qr/not fit in 10 parts; it needs s3_window 12m$/,
        'and what would do');
    is_deeply([seen()], [], 'S3 hears nothing');
    ok((wait_for { !curl($n->url('/status/'))->{json}{totals}{memoryUsed} }),
        'no memory is left in use');
};

subtest '60 MiB' => sub {
    my $n = nginx('largest', LARGEST, 10_000);
    my $r = upload($n, '/ten/h', LARGEST + 1, 'a length');
    is($r->{status}, 413, 'a length: 413');
    like($r->{json}{message}, qr/S3's limit of ${\ LARGEST} bytes/, 'why');
    is_deeply([seen()], [], 'S3 hears nothing');
    stored('chunked', upload($n, '/ten/i', LARGEST, 'chunked'), LARGEST, 12);
    refused('chunked', upload($n, '/ten/j', LARGEST + 1, 'chunked'),
        qr/larger than S3's limit/, LARGEST, 12);
};
