#!/usr/bin/perl

# All at once, by a fixed seed: an S3 that fails in every way it knows, clients
# that leave anywhere, memory for a few. What is stored is right, and nothing
# is left behind.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;
use S3T::Null qw/ body_gen /;

use constant UPLOADS => 150;

srand 7;

my $t = S3T->new(bucket => 0);

# it refuses what is not the pattern, parts that do not tile it, a wrong CRC
my $null = S3T::Null->new($t->dir, qw/ --verify --crc32 --latency 3
    --slowdown 7 --reset 11 --early 13 --complete-error 5 --complete-lost 7
    --idle-close 3 /);
$t->token(NULL => $null->url);

my $n = $t->nginx(<<'EOF', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    s3_memory 60m;
    s3_endpoint %%NULL%%;
    s3_bucket bucket;
    s3_credentials static k s;
    s3_checksum crc32;
    s3_part_size 5m;
    s3_part_concurrency 3;
    # by chance one request may have many of the faults
    s3_tries 100;
    log_format state "$uri $status $s3_transfer_state";
    access_log %%DIR%%/state.log state;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_tls%% ssl;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        location / { s3_upload; }
        location = /status/ { s3_status; }
    }
}
EOF

sub one {
    my ($i) = @_;
    my $size = int(rand(3) < 1 ? rand 100_000 : rand 22 * MB);
    my @o = rand() < 0.4 ? ('--chunk', 1 + int rand 200_000) : ();
    my $cut = rand() < 0.4;
    push @o, (rand() < 0.5 ? '--close-after' : '--reset-after'),
        int rand $size if $cut;
    push @o, '--limit-rate', 5 * MB + int rand 20 * MB if rand() < 0.3;
    my $port = rand() < 0.3 ? 'tls' : undef;
    push @o, '--cacert', $t->ca if $port;
    return { cut => $cut, client => body_gen($t->dir, $n->url("/k$i", $port),
        $size, @o) };
}

my @uploads;
for my $i (1 .. UPLOADS) {
    push @uploads, one($i);
    wait_for { (grep { $_->{client}->running } @uploads) < 30 } 600;
}
my @answers = map { $_->{client}->wait } @uploads;

my $totals;
ok(wait_for(sub {
    $totals = curl($n->url('/status/'))->{json}{totals};
    !$totals->{active} && !$totals->{memoryUsed};
}, 180), 'all come to an end, and give their memory back')
    or diag explain $totals;

my $log = read_file("$n->{dir}/state.log");
my %state = $log =~ m{^/k(\d+) \d+ (\S+)$}mg;
is(scalar keys %state, UPLOADS, 'each is logged');

my ($cut, $whole) = (0, 0);
for my $i (1 .. UPLOADS) {
    my ($upload, $r) = ($uploads[$i - 1], $answers[$i - 1]);
    if ($upload->{cut}) {
        $cut++;
        is($state{$i}, 'aborted', "upload $i was cut");
    } else {
        $whole++;
        is("$r->{status} $state{$i}", '201 completed', "upload $i was whole");
    }
}

my $stats = $null->stats;
diag explain $stats if $stats->{bad};
is($stats->{bad}, 0, 'S3 refused nothing');
is($stats->{objects}, $whole, 'an object of each that was whole');
is($stats->{open_uploads}, 0, 'no multipart upload is open');
cmp_ok($stats->{faults}, '>', 50, 'though S3 failed all the time');
cmp_ok($cut, '>', 20, 'and clients left');

# where the answer to a Complete was lost, the next one finds no upload
$t->allow_errors(qr/CompleteMultipartUpload failed: 404 NoSuchUpload/);
