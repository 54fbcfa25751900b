#!/usr/bin/perl

# What the build says where a library is missing, what it does without the one
# that it can do without, and what the module shows of itself to others in the
# same process.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;
use S3T::Util qw/ $TOP wait_exit /;

my $t = S3T->new(bucket => 0);
my $dir = $t->dir;

subtest 'exported symbols' => sub {
    my $path = S3T::Nginx::module_path();
    my @symbols = sort map { (split)[-1] } `nm -D --defined-only '$path'`;
    is_deeply(\@symbols, [qw/ ngx_http_s3_transfer_module ngx_module_names
        ngx_module_order ngx_modules /], 'four');
};

# A compiler that does not find what $HIDE names
my $cc = write_file("$dir/cc", <<'EOT');
#!/bin/sh
for arg; do
    case $arg in
        -print-file-name=$HIDE) echo "$HIDE"; exit 0 ;;
        *"$HIDE"*) echo "cannot find $HIDE" >&2; exit 1 ;;
    esac
done
exec cc "$@"
EOT
chmod 0755, $cc;

my %missing = (
    '-lssl' => ['OpenSSL 3', 'libssl-dev'],
    '-lz' => ['zlib', 'zlib1g-dev'],
    '-lexpat' => ['expat', 'libexpat1-dev'],
    '-ljansson' => ['jansson', 'libjansson-dev'],
    '-linih' => ['inih', 'libinih-dev'],
    'libhiredis.a' => ['the static archive of hiredis', 'libhiredis-dev'],
    '-lisal' => undef,
    'nothing at all' => undef,
);

sub source { "$dir/src" . $_[0] =~ s/\W+/-/gr }

# exit status and output of nginx's ./configure
sub configure {
    my ($hidden) = @_;
    my $src = source($hidden);
    system('cp', '-r', '/usr/share/nginx/src', $src) == 0 or die 'no sources';
    my $pid = spawn({ env => { HIDE => $hidden, CC => $cc },
        stdout => "$src.out", stderr => "$src.out" }, 'sh', '-c',
        'cd "$1" && shift && exec ./configure "$@"', 'sh', $src,
        '--with-compat', '--without-http_rewrite_module',
        '--without-http_gzip_module', "--add-dynamic-module=$TOP");
    return sub { (wait_exit($pid, 600), read_file("$src.out")) };
}

subtest 'missing libraries' => sub {
    my @hidden = sort keys %missing;
    my @runs = map { configure($_) } @hidden[0, 1];      # two at a time
    for my $i (0 .. $#hidden) {
        my $hidden = $hidden[$i];
        my ($status, $said) = (shift @runs)->();
        push @runs, configure($hidden[$i + 2]) if $i + 2 <= $#hidden;
        if (!$missing{$hidden}) {
            is($status, 0, "$hidden: configured") or diag $said;
            like($said, $hidden eq '-lisal' ? qr/: CRC-32 by zlib$/m
                : qr/: CRC-32 by isa-l$/m, 'it says by what');
            next;
        }
        my ($library, $package) = @{$missing{$hidden}};
        isnt($status, 0, "$library: refused");
        like($said, qr/error: ngx_http_s3_transfer_module needs \Q$library\E\./,
            'its name');
        like($said, qr/^On Debian it is in the package \Q$package\E\.$/m,
            'its package');
    }
};

# What computes CRC-32 in the object that is made in a configured tree
sub crc32_by {
    my ($src) = @_;
    my ($object) = read_file("$src/objs/Makefile") =~ /^(\S+s3_checksum\.o):/m;
    system("HIDE=none make -s -C '$src' -f objs/Makefile $object >&2") == 0
        or return;
    return join ' ', sort `nm -u '$src/$object'` =~ /\b(crc32_(?!comb)\w+)/g;
}

subtest 'with and without isa-l' => sub {
    for (['-lisal', 'crc32_z', 0], ['nothing at all', 'crc32_gzip_refl', 1]) {
        my ($hidden, $by, $linked) = @$_;
        is(crc32_by(source($hidden)), $by, "$hidden hidden: $by");
        my $make = read_file(source($hidden) . '/objs/Makefile');
        is($make =~ /-lisal\b/ ? 1 : 0, $linked, 'what is linked');
    }
};
