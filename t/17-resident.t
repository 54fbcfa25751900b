#!/usr/bin/perl

# What a worker has of the system's memory for uploads that stall, beside blocks
# of s3_memory and what core itself has for such a request, and that it gives all
# of it back.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;
use S3T::Null;

plan skip_all => 'memory of the sanitizers' if $ENV{T_ASAN};

use constant { FIRST => 100, COUNT => 400, SENT => 200_000 };

my $t = S3T->new(bucket => 0);
my $null = S3T::Null->new($t->dir);
$t->token(NULL => $null->url);

my $crowds = 0;

my $conf = <<'EOT';
%%MAIN%%
http {
    %%HTTP%%
    s3_memory 256m idle=1s;
    # what s3_upload has of nginx's buffer, however large it may be
    client_body_buffer_size 4k;
    server {
        # what is not read yet must not use up the kernel's memory
        listen 127.0.0.1:%%PORT%% rcvbuf=256k;
        location / {
            s3_endpoint %%NULL%%;
            s3_bucket bucket;
            s3_credentials static k s;
            s3_payload_signature off;
            s3_upload;
        }
        location /core/ { proxy_pass %%NULL%%; }
        location /transfers/ { s3_status list; }
    }
}
EOT

# KiB, without the program's own files
sub resident {
    my ($n, @kinds) = @_;
    my %kb = read_file('/proc/' . ($n->workers)[0] . '/status')
        =~ /^Rss(Anon|Shmem):\s+(\d+)/mg;
    my $sum = 0;
    $sum += $kb{$_} for @kinds;
    return $sum;
}

sub arrived {
    my ($n) = @_;
    my $sum = 0;
    $sum += $_->{bytesTransferred} for @{curl($n->url(
        '/transfers/?state=active&limit=1000'))->{json}{transfers}};
    return $sum;
}

# So many clients send so much and say nothing more; the code tells whether all
# of it came
sub stall {
    my ($n, $path, $count, $whole) = @_;
    my $said = $t->dir . '/said' . ++$crowds;
    my $pid = spawn({ stdout => $said }, 'build/body_crowd', '--stall-after',
        SENT, $n->url("$path$crowds-"), 1 * GB, $count);
    ok((wait_for { (read_file($said) || '') =~ /^stalled/ && $whole->() } 60,
        0.2), "$path: all that $count sent came");
    wait_for { quiet($n) } 60, 0.2;
    return $pid;
}

# KiB that each of COUNT such clients adds, some having been there before. (They
# come by the hundred: of many whom a slow S3 is told of at the same time, malloc
# would keep what these requests had.)
sub each_adds {
    my ($n, $path, $whole) = @_;
    my @clients = stall($n, $path, FIRST, sub { $whole->(FIRST) });
    my $before = resident($n, qw/ Anon Shmem /);
    for my $more (1 .. COUNT / FIRST) {
        push @clients, stall($n, $path, FIRST,
            sub { $whole->(FIRST + $more * FIRST) });
    }
    my $each = (resident($n, qw/ Anon Shmem /) - $before) / COUNT;
    my $used = curl($n->url('/transfers/'))->{json}{totals}{memoryUsed};
    cmp_ok($used, '<=', 256 * MB, 's3_memory holds');
    end_child($_) for @clients;
    return $each;
}

# Nothing more was done since the last look, nor is anything on the way: sockets
# of the port, and of those that are connected to it, have empty queues.
my $last = 0;
sub quiet {
    my ($n) = @_;
    my ($cpu) = $n->usage(($n->workers)[0]);
    my $same = $cpu - $last < 0.001;
    $last = $cpu;
    my $port = sprintf ':%04X', $n->port;
    return $same && !grep { /^\s*\d+: (?:\w+$port \S+|\S+ \w+$port) \w\w (\w+):(\w+) /
        && "$1$2" =~ /[1-9A-F]/ } split /\n/, read_file('/proc/net/tcp');
}

# What a slow machine has malloc keep of requests to S3 that were on their way at
# the same time comes on top, and is nothing that an upload costs: the least of
# three counts.
my ($n, $before, $beside);
for (1 .. 3) {
    $n = $t->nginx($conf);
    my $core = each_adds($n, '/core/', sub { 1 });
    $n->quit;

    $n = $t->nginx($conf);
    $before = resident($n, 'Anon');
    # (S3 was told of each: until it answers, a request has memory of its own)
    my $each = each_adds($n, '/', sub { arrived($n) == $_[0] * SENT
        && $null->stats->{open_uploads} == $_[0] });
    my $pages = int((SENT + 4095) / 4096) * 4;
    $beside = $each - $core - $pages;
    diag sprintf '%.1f KiB for each, core %.1f, block %d: %.1f beside', $each,
        $core, $pages, $beside;
    last if $beside <= 16;
}

cmp_ok($beside, '<=', 16, 'KiB beside those of one block and of core');
cmp_ok($beside, '>=', 1, 'and not nothing');
ok((wait_for { resident($n, 'Anon') <= $before + 8 * 1024 } 60, 0.2),
    'all of it is given back when they left')
    or diag $before, ' KiB before, ', resident($n, 'Anon'), ' now';
ok((wait_for { !$null->stats->{open_uploads} }), 'no upload is open');
