package S3T::Tee;

# What the tests of s3_tee share. A transfer's id is the argument id, the log
# $LOG has a line for each request, /status/ is the status location.

use strict;
use warnings;

use Exporter 'import';
use Test::More ();

use S3T;

our @EXPORT = qw/ $LOG head_of id is_final is_stored logged not_captured
    record totals /;

# in http { }; %%DIR%%/tee.log. (Arguments do not survive an error_page.)
our $LOG = <<'EOC';
    map $request_uri $asked {
        default -;
        "~[?&]id=(?<id>[-\w]+)" $id;
    }
    log_format tee "$asked $status $s3_tee_status $s3_transfer_state $s3_key"
        " $body_bytes_sent";
    access_log %%DIR%%/tee.log tee;
EOC

# An id that nginx takes, from a name; another one in each run, since DynamoDB
# outlives it.
my $run = sprintf '%08x%08x', $$, time;
sub id { return $_[0] =~ s/\W+/-/gr . "-$run" }

# { status, tee, state, key, bytes } of the request with this id, once it is
# logged
sub logged {
    my ($n, $id, $timeout) = @_;
    my $line;
    wait_for {
        ($line) = (read_file("$n->{dir}/tee.log") || '')
            =~ /^(\Q$id\E .*)$/m;
    } $timeout or return {};
    my %is;
    @is{qw/ id status tee state key bytes /} = split / /, $line;
    return \%is;
}

# the record as the status location has it, {} when there is none
sub record {
    my ($n, $id) = @_;
    my $r = curl($n->url("/status/$id"));
    return $r->{status} == 200 ? $r->{json} : {};
}

sub totals { return curl($_[0]->url('/status/'))->{json}{totals} }

sub not_captured { return totals($_[0])->{tee}{notCaptured} }

# The record once it is final: a test of its state, and the record.
sub is_final {
    my ($n, $id, $state, $name) = @_;
    my $r;
    wait_for {
        ($r = record($n, $id))->{state}
            && $r->{state} !~ /^(?:active|completing)$/;
    } 60;
    Test::More::is($r->{state}, $state, "$name: the record is $state")
        or Test::More::diag(Test::More::explain($r));
    return $r;
}

# A copy, as the access log, the record and S3 have it: four tests, and the
# record.
sub is_stored {
    my ($n, $s3, $id, $key, $d, $name) = @_;
    Test::More::is(logged($n, $id)->{tee}, 'captured', "$name: captured");
    my $r = is_final($n, $id, 'completed', $name);
    my %want = (direction => 'download', key => $key,
        bytesTransferred => $d->{size}, bytesStored => $d->{size},
        totalBytes => $d->{size}, percentage => 100, storedPercentage => 100,
        error => undef);
    Test::More::is_deeply({ map { $_ => $r->{$_} } keys %want }, \%want,
        "$name: what the record says");
    Test::More::is_deeply([$s3->sha256($key)], [$d->{sha256}, $d->{size}],
        "$name: what S3 holds");
    return $r;
}

# The head of an answer, which must be that of one without s3_tee.
sub head_of {
    my ($r) = @_;
    my %head = (%{$r->{headers}}, status => $r->{status});
    delete $head{date};
    return \%head;
}

1;
