package Bench::Tools;

# rclone and awscli against a null S3, with nothing of the user's own
# configuration.

use strict;
use warnings;

use Exporter 'import';
use Bench;
use S3T::Util qw/ write_file /;

our @EXPORT_OK = qw/ tool_environment tool_path /;

# what each is asked for its version
my %version = (rclone => 'version', aws => '--version');


# Where it is; its version goes into the results.
sub tool_path {
    my ($b, $name) = @_;
    my $path = find($name) or die "bench: no $name: bench/deps installs it\n";
    my ($version) = `$path $version{$name} 2>&1` =~ /(\d\S+)/;
    $b->tool($name, $version // '?');
    return $path;
}

# As arguments of env. rclone's remote is "null:", aws takes $ENDPOINT.
sub tool_environment {
    my ($b, $null, $tls) = @_;
    my %rclone = (type => 's3', provider => 'Other', region => 'us-east-1',
        access_key_id => 'benchmark', secret_access_key => 'benchmark-secret',
        endpoint => $null->url($tls), force_path_style => 'true',
        no_check_bucket => 'true');
    my $conf = write_file($b->dir . '/aws.conf',
        "[default]\ns3 =\n  addressing_style = path\n");

    return ('RCLONE_CONFIG=/dev/null', 'RCLONE_CA_CERT=' . $b->ca,
        (map { 'RCLONE_CONFIG_NULL_' . uc($_) . "=$rclone{$_}" }
            sort keys %rclone),
        'AWS_ACCESS_KEY_ID=benchmark', 'AWS_SECRET_ACCESS_KEY=benchmark-secret',
        'AWS_DEFAULT_REGION=us-east-1', 'AWS_EC2_METADATA_DISABLED=true',
        "AWS_CONFIG_FILE=$conf", 'AWS_SHARED_CREDENTIALS_FILE=/dev/null',
        "ENDPOINT=$rclone{endpoint}");
}

1;
