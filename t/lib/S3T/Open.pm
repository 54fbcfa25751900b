package S3T::Open;

# Uploads that stay in the middle, and what is told of them: for the tests of
# what is left behind. Locations are /…/, the key is the path; ids come as the
# argument id; /status/ is the status location.

use strict;
use warnings;

use Digest::SHA qw/ sha256_hex /;
use Exporter 'import';
use Test::More ();

use S3T;

our @EXPORT = qw/ $CONF SET begin body entry feed finish foreign half lines
    locations names nothing_left on_worker open_keys state_of status stored
    totals upload /;

use constant PART => 5 * MB;

# for locations() and s3_reaper; a killed worker's successor is known by X-Pid
our $CONF = <<'EOC';
%%MAIN%%
%%SHUTDOWN%%
http {
    %%HTTP%%
    client_body_timeout 600s;
    s3_memory 400m;
    s3_part_size 5m;
    s3_window 10m;
    s3_part_concurrency 1;
    s3_transfer_id $arg_id;
    s3_tries 1;
    s3_retry_timeout 2s;
    %%REAPER%%
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        add_header X-Pid $pid always;
        location /upload/ { %%S3%% s3_upload; }
        %%LOCATIONS%%
        location /status/ { s3_status list; }
    }
}
EOC

# what they send, 40 MB; body($bytes): from now on
my $body;
sub body {
    $body = shift if @_;
    return $body ||= read_file(data(8 * PART)->{path});
}

sub status { curl($_[0]->url("/status/$_[1]"))->{json} || {} }
sub totals { status($_[0], '')->{totals} }
sub state_of { status($_[0], $_[1])->{state} || '' }

# a location for each server that is scripted
sub locations {
    my (%fake) = @_;
    return join "\n", map { "location /$_/ { s3_endpoint " . $fake{$_}->url
        . '; s3_bucket bucket; s3_credentials static testaccess testsecret;'
        . ' s3_upload; }' } sort keys %fake;
}

# lines of the error log
sub lines {
    my ($n, $pattern) = @_;
    return grep { $_ =~ $pattern } split /\n/, $n->log;
}

# keys of the uploads that are open
sub open_keys { return sort map { $_->[0] } $_[0]->uploads }

# A connection to this worker; responses tell of it by X-Pid.
sub on_worker {
    my ($t, $n, $pid) = @_;
    for (1 .. 100) {
        my $c = $t->raw($n->port);
        $c->send("GET /status/ HTTP/1.1\r\nHost: a\r\n\r\n");
        my $r = $c->response;
        return $c if $r->{headers}{'x-pid'} == $pid;
        $c->close;
    }
    die "no connection to worker $pid";
}

# An upload of 40 MB, in parts of 5, of which some and a little more are sent
# over a connection: { c, id, key, sent }
sub begin {
    my ($c, $path, $id, $parts) = @_;
    my $u = { c => $c, id => $id, key => substr("$path$id", 1), sent => 0 };
    $c->send("PUT $path$id?id=$id HTTP/1.1\r\nHost: a\r\nContent-Length: "
        . length(body()) . "\r\n\r\n");
    feed($u, $parts * PART + 1000);
    return $u;
}

# An upload of which a part was sent, by a worker if that is given.
sub half {
    my ($t, $n, $path, $id, $pid) = @_;
    return begin($pid ? on_worker($t, $n, $pid) : $t->raw($n->port), $path,
        $id, 1);
}

sub feed {
    my ($u, $bytes) = @_;
    $u->{c}->send(substr body(), $u->{sent}, $bytes);
    $u->{sent} += $bytes;
}

# whether S3 has all parts that were sent, and nginx what was sent beside them
sub stored {
    my ($n, @uploads) = @_;
    return wait_for {
        !grep { my $r = status($n, $_->{id});
            ($r->{partsStored} || 0) < int $_->{sent} / PART
            || $r->{bytesTransferred} < $_->{sent} } @uploads;
    } 60;
}

# the rest: two tests
sub finish {
    my ($s3, $u, $name) = @_;
    $u->{c}->send(substr body(), $u->{sent});
    Test::More::is(($u->{c}->response(60) || {})->{status}, 201,
        "$name: stored");
    Test::More::is_deeply([$s3->sha256($u->{key})],
        [sha256_hex(body()), length body()], "$name: whole");
}

# An open upload with a part, made by nobody that nginx knows: its id.
sub foreign {
    my ($s3, $key) = @_;
    my $r = $s3->request('POST', $s3->path($key), query => { uploads => '' });
    my ($id) = $r->{content} =~ m{<UploadId>(.*?)</UploadId>};
    $r = $s3->request('PUT', $s3->path($key), body => 'theirs',
        query => { uploadId => $id, partNumber => 1 });
    die "foreign: $r->{status}" if $r->{status} != 200;
    return $id;
}

# An upload of which a part is stored.
sub upload {
    my ($t, $n, $id) = @_;
    my $u = half($t, $n, '/upload/', $id);
    stored($n, $u) or die "$id: no part";
    return $u;
}


# Entries of open uploads, in a Redis with the default prefix.

use constant SET => 'transfer:#open';

sub names { @{$_[0]->cmd('ZRANGE', SET, 0, -1)} }

# the entry of an upload, and when it becomes an orphan
sub entry {
    my ($redis, $u) = @_;
    my ($name) = grep { /^\Q$u->{id}\E\.\d+$/ } names($redis);
    return if !defined $name;
    return { name => $name, score => $redis->cmd('ZSCORE', SET, $name),
        of => $redis->hgetall(SET . ":$name") };
}

sub nothing_left { !@{$_[0]->cmd('KEYS', SET . '*')} }

1;
