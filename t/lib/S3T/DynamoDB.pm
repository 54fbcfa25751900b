package S3T::DynamoDB;

# Items of a DynamoDB table, and a server of a test's own.

use strict;
use warnings;

use JSON::PP ();
use S3T::S3;
use S3T::Util qw/ $TOP end_child free_port read_file spawn wait_for /;

# port, table
sub new {
    my ($class, %o) = @_;
    return bless { table => 'transfers', %o }, $class;
}

sub call {
    my ($s, $operation, $input) = @_;
    my $s3 = S3T::S3->new(endpoint => "http://127.0.0.1:$s->{port}");
    my $r = $s3->request('POST', '/', service => 'dynamodb',
        body => JSON::PP->new->utf8->encode($input),
        headers => {
            'X-Amz-Target' => "DynamoDB_20120810.$operation",
            'Content-Type' => 'application/x-amz-json-1.0',
        });
    die "DynamoDB $operation: $r->{status} $r->{content}\n"
        if $r->{status} != 200;
    return JSON::PP->new->utf8->decode($r->{content});
}

# { name => value } without the types, undef when there is no such item
sub get_item {
    my ($s, $id) = @_;
    my $item = $s->item($id) or return undef;
    return { map { $_ => (values %{$item->{$_}})[0] } keys %$item };
}

# { name => { S or N => value } }
sub item {
    my ($s, $id) = @_;
    return $s->call('GetItem', {
        TableName => $s->{table},
        ConsistentRead => JSON::PP::true(),
        Key => { transferId => { S => $id } },
    })->{Item};
}

sub put_item {
    my ($s, $item) = @_;
    $s->call('PutItem', { TableName => $s->{table}, Item => $item });
}

# A dynalite of its own, with the table: dir, port (else a free one)
sub server {
    my ($class, %o) = @_;
    my $s = $class->new(port => free_port(), %o);
    $s->start;
    return $s;
}

# What it held is gone with a stop: it is in memory.
sub start {
    my ($s) = @_;
    my $file = "$s->{dir}/dynalite-$s->{port}";
    unlink $file;
    $s->{pid} = spawn({ stderr => "$file.log" }, 'node',
        "$TOP/t/lib/dynalite.js", $file, $s->{port});
    wait_for { -s $file } 60 or die "dynalite: no answer";
}

sub stop {
    my ($s, $signal) = @_;
    my $pid = delete $s->{pid} or return;
    end_child($pid, $signal);
}

1;
