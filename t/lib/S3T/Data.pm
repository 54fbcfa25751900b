package S3T::Data;

# Test bodies: the same bytes in every run, made once, known by their SHA-256.

use strict;
use warnings;

use Exporter 'import';
use S3T::Util qw/ lock_file read_file state_dir write_file /;

our @EXPORT_OK = qw/ KB MB GB data /;

use constant { KB => 1 << 10, MB => 1 << 20, GB => 1 << 30 };

# data(SIZE, SEED): { path, size, sha256 }. Another seed, other bytes.
sub data {
    my ($size, $seed) = @_;
    $seed ||= 1;
    my $path = state_dir('data') . "/$size.$seed";
    my $lock = lock_file("$path.lock");
    my $sum = read_file("$path.sha256");

    if (!defined $sum) {
        my $command = sprintf "head -c %d /dev/zero | openssl enc -aes-128-ctr"
            . " -K %032x -iv %032x -nosalt > '%s' && openssl dgst -sha256 -r"
            . " '%s'", $size, $seed, 0, $path, $path;
        ($sum) = `$command` =~ /^([0-9a-f]{64})/ or die "no data: $path";
        -s $path == $size or $size == 0 or die "wrong size: $path";
        write_file("$path.sha256", $sum);
    }

    return { path => $path, size => $size, sha256 => $sum };
}

1;
