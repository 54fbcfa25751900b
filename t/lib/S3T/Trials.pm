package S3T::Trials;

# What the tests of torture share: trials of which each lets one allocation or
# call of a worker fail while something is done, and looks at what is left.
#
#   my $trials = S3T::Trials->new($t, seed => 70, null => $null);
#   my $n = $trials->nginx($conf);           # with $trials->conf in its http
#   $trials->begin;                          # what is built once is there
#   $trials->rows('a small upload', 1, sub { my ($id, $key) = @_; … },
#       sub { my ($result, $id, $key) = @_; return @what_is_wrong },
#       [qw/ alloc recv send /]);
#   $trials->nothing_left;
#   $trials->tell;                           # numbers; errors are allowed
#
# Of allocations the N-th of all fails, and the first of the N-th place in the
# code. N is sampled by a fixed seed: the first few, some of the last, and some
# of all that an unharmed run has. T_TORTURE=n: n times as many.
# T_TORTURE_SEED: others. T_TORTURE_ROW: only the rows whose name matches;
# T_TORTURE_N: this N alone.

use strict;
use warnings;

use Exporter 'import';
use HTTP::Tiny;
use JSON::PP ();
use List::Util qw/ max min shuffle sum uniq /;
use Test::More ();
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Torture qw/ talk /;

our @EXPORT_OK = qw/ @ALL SMALL LARGE alive descriptors /;

use constant SMALL => 3000;
use constant LARGE => 5 * MB + 3000;

our @ALL = qw/ alloc connect recv send socket epoll mmap /;

my %MODES = (
    alloc => [qw/ error place /], mmap => ['error'], socket => ['error'],
    epoll => ['error'], connect => ['error', 'again'],
    recv => [qw/ error short again eof /], send => [qw/ error short again /],
);
my %SHARE = (alloc => 8, mmap => 3, socket => 1, epoll => 3, connect => 2,
    recv => 5, send => 4);

# Where nginx itself tells that something failed, beside errors
my $FAILED = qr/(?:malloc|calloc|posix_memalign|realloc)\(.*failed
    | socket\(\)\ failed | epoll_ctl\( | cannot\ be\ respawned
    | ^(?!.*ignoring\ stale).*malloc\ failure/x;

# of a multipart upload that is left to itself
my $ORPHAN = qr/CreateMultipartUpload failed|stays open/;

# seed; null: the null S3 (--verify) where objects are looked for, whose
# DynamoDB is the store; others: more of them, [ pattern of paths, null ]
sub new {
    my ($class, $t, %o) = @_;
    my $s = bless {
        t => $t, others => [], torture => S3T::Torture->new($t->dir),
        more => $ENV{T_TORTURE} || 1, number => 0, reloads => 0, seen => 0,
        open => 0, orphans => 0, fired => 0, trials => 0, theirs => [],
        failing => '',
        http => { map { $_ => HTTP::Tiny->new(timeout => 60, proxy => undef,
            http_proxy => undef) } qw/ nginx null / },
        %o,
    }, $class;
    srand($ENV{T_TORTURE_SEED} || $o{seed});
    $t->token(NULL => $s->{null}->url);
    return $s;
}

my $CONF = <<'EOF';
    keepalive_requests 1000000;
    client_body_timeout 3s;
    client_header_timeout 3s;
    send_timeout 3s;
    lingering_timeout 1s;
    s3_endpoint %%NULL%%;
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    s3_checksum crc32;
    s3_part_size 5m;
    s3_memory 64m;
    s3_tries 4;
    s3_connect_timeout 1s;
    s3_send_timeout 1s;
    s3_read_timeout 2s;
    s3_keepalive_timeout 1s;
    s3_transfer_id $arg_id;
    s3_progress_redis redis://%%REDIS%% prefix=%%PREFIX%%;
    s3_progress_dynamodb %%NULL%% table=table;
    s3_reaper redis lease=3s;
EOF

# the nginx that is harmed: %%TRIALS%% in its http, /transfers/ shows records
sub nginx {
    my ($s, $conf) = @_;
    $s->{t}->token(TRIALS => $CONF);
    return $s->{n} = $s->{t}->nginx($conf, env => $s->{torture}->env);
}

sub worker { return ($_[0]{n}->workers)[0] }


# What is asked without harm

sub status {
    my ($s, $path) = @_;
    my $r = $s->{http}{nginx}->get($s->{n}->url($path || '/transfers/'));
    return eval { JSON::PP->new->utf8->decode($r->{content}) } || {};
}

sub stats {
    my ($s) = @_;
    my @stats = map { $_->stats } $s->{null}, map { $_->[1] } @{$s->{others}};
    return { map { my $of = $_; $of => sum map { $_->{$of} } @stats }
        keys %{$stats[0]} };
}

# its size, undef: there is none
sub object {
    my ($s, $path) = @_;
    my ($other) = grep { $path =~ $_->[0] } @{$s->{others}};
    my $r = $s->{http}{null}->head(($other ? $other->[1] : $s->{null})->url
        . "/bucket/$path");
    return $r->{status} == 200 ? $r->{headers}{'content-length'} : undef;
}

# what the store in DynamoDB holds of a transfer
sub item {
    my ($s, $id) = @_;
    my $r = $s->{http}{null}->post($s->{null}->url . '/', {
        headers => { 'X-Amz-Target' => 'DynamoDB_20120810.GetItem' },
        content => '{"TableName":"table","Key":{"transferId":{"S":"' . $id
            . '"}}}' });
    return ($r->{content} =~ /"state":\s*\{"S":\s*"(\w+)"/)[0];
}

# what the one in Redis holds
sub stored {
    my ($s, $id) = @_;
    return $s->{t}->redis->hgetall($s->{t}->prefix . $id) || {};
}

sub open_entries {
    my ($s) = @_;
    return $s->{t}->redis->cmd('ZRANGE', $s->{t}->prefix . '#open', 0, -1);
}

sub alive {
    my ($pid) = @_;
    return (read_file("/proc/$pid/stat") || '') =~ /\) [^ZX] /;
}

sub descriptors { scalar(() = glob "/proc/$_[0]/fd/*") }

# All is over, memory is given back, stores are there again: a new worker has
# not yet tried DynamoDB
sub settled {
    my ($s) = @_;
    my ($said, $active, $memory);
    my $stores = $s->{reloads} ? 1 : 2;
    wait_for {
        $said = $s->{http}{nginx}->get($s->{n}->url('/transfers/'))->{content};
        ($active) = $said =~ /"active":(\d+)/;
        ($memory) = $said =~ /"memoryUsed":(\d+)/;
        defined $active && defined $memory && !$active && !$memory
            && (() = $said =~ /"up":1/g) >= $stores;
    } 60, 0.01;
    return !defined $memory ? "no status: $said"
        : $active || $memory ? "active $active, memory $memory" : ();
}

# the lines of error.log since the last time
sub lines {
    my ($s) = @_;
    open my $fh, '<', "$s->{n}{dir}/error.log" or return '';
    seek $fh, $s->{seen}, 0;
    local $/;
    my $text = <$fh>;
    return defined $text ? $text : '';
}

sub news {
    my ($s) = @_;
    my $text = $s->lines;
    $s->{seen} += length $text;
    return $text;
}

# What is asked over a connection of its own: what talk() says
sub ask {
    my ($s, $path, $method) = @_;
    my $text = ($method || 'GET') . " $path HTTP/1.1\r\nHost: t\r\n"
        . "Connection: close\r\n\r\n";
    return talk($s->{n}->port, \$text);
}


# What is wrong when a transfer is over, whatever its client was told: its
# record, and a list of sayings. paths: where the object may be.
sub transferred {
    my ($s, $id, $size, @paths) = @_;
    my @bad = $s->settled;
    my $record = $s->status("/transfers/$id");
    my $state = $record->{state} || 'none';
    my ($there) = grep { defined } map { $s->object($_) } @paths;

    push @bad, "state $state" if $state !~ /^(none|completed|failed|aborted)$/;

    if ($state eq 'completed') {
        push @bad, 'no object' if !defined $there;
        push @bad, "$there bytes of $size" if defined $there && $there != $size;
    } elsif (defined $there) {
        push @bad, "an object, state $state"
            if ($record->{error} || '') !~ /unknown_outcome/;
    }

    # the stores are told of the end, too
    my $stored;
    wait_for {
        $stored = $s->stored($id)->{state};
        !defined $stored || $stored eq $state;
    } 60, 0.01;
    push @bad, "$stored in Redis, state $state"
        if defined $stored && $stored ne $state;

    my $item = $s->item($id);
    push @bad, "$item in DynamoDB, state $state"
        if defined $item && $item ne $state && !wait_for {
            $item = $s->item($id);
            $item eq $state;
        } 60, 0.05;

    # a multipart upload whose name never came
    my $stats;
    my $from = time;
    wait_for {
        ($stats = $s->stats)->{open_uploads} <= $s->{open}
            || time > $from + 5 && $s->lines =~ $ORPHAN;
    } 30, 0.02;
    push @bad, 'refused by S3' if $stats->{bad};
    if ($stats->{open_uploads} > $s->{open}) {
        if ($s->lines =~ $ORPHAN) {
            $s->{orphans}++;
        } else {
            push @bad, 'an upload is open';
        }
    }
    $s->{open} = $stats->{open_uploads};
    return ($record, @bad);
}


# "function file:line" of the frames where this trial's failure was, or its
# last one's
sub stack {
    my ($s) = @_;
    return $s->{torture}->names($s->{look}, S3T::Nginx::module_path(),
        S3T::Nginx::binary());
}


# The rows: what is done, and what is done to it

sub next_id {
    my ($s) = @_;
    $s->{number}++;
    return (sprintf('torture-%016d', $s->{number}), "k$s->{number}");
}

# which worker is meant: of a reload the old one, or any but that
sub _pid {
    my ($s, %o) = @_;
    return $o{old} ? $s->worker : $o{other} ? -$s->worker : 0;
}

# one: action(id, key), verdict(result, id, key)
sub _trial {
    my ($s, $row, $i, %o) = @_;
    my ($name, $op, $mode, $action, $verdict) = @$row;
    my ($id, $key) = $s->next_id;
    my $worker = $s->worker;

    $s->{failing} = $op;
    $s->{times} = $o{times};
    $s->{torture}->fail($op, $i, mode => $mode, %o, pid => $s->_pid(%o));
    my $r = $action->($id, $key);
    my $look = $s->{look} = $s->{torture}->off;
    my @bad = $verdict->($r, $id, $key);
    my $log = $s->news;
    $s->{trials}++;
    $s->{fired}++ if $look->{fired};
    push @bad, 'a worker died' if !$o{reloads} && !alive($worker)
        || $log =~ /exited on signal/;
    push @bad, map { "alert: $_" } grep { !/$FAILED/ }
        $log =~ /\[alert\] [^:]*: (.*)/g;
    return if !@bad;

    my $text = "$name, $op $mode, N $i"
        . (($o{times} || 1) > 1 ? " and $o{times} in all" : '') . ': '
        . join('; ', @bad) . "\n" . join '', map { "        $_\n" }
        $s->stack;
    if ($look->{fired} && !$look->{ours}) {
        push @{$s->{theirs}}, $text;
        return;
    }
    return $text;
}

# counts, samples, tries
sub _row {
    my ($s, $row, $share, %o) = @_;
    my ($name, $op, $mode, $action, $verdict) = @$row;
    my $from = time;
    if ($ENV{T_TORTURE_ROW} && "$name, $op $mode" !~ /$ENV{T_TORTURE_ROW}/) {
        Test::More::pass("$name, $op $mode: not asked for");
        return;
    }
    my @bad;

    my ($id, $key) = $s->next_id;
    $s->{failing} = '';
    $s->{look} = { stack => [] };
    $s->{torture}->count($op, mode => $mode, pid => $s->_pid(%o));
    my $r = $action->($id, $key);
    my $count = $s->{torture}->off->{count};
    my $wanted = delete $o{status} || qr/^20[01]$/;
    push @bad, map { "$name, unharmed: $_\n" } $verdict->($r, $id, $key);
    push @bad, "$name, unharmed: $r->{status}\n" if $r->{status} !~ $wanted;

    $share = int($share * $s->{more});
    my @n = (1 .. min($count, int $share / 3));
    # the end, where most is decided, and anywhere
    my @end = max(1, $count - 100) .. $count;
    push @n, (shuffle(@end))[0 .. $share / 3 - 1] if $count > $share / 3;
    push @n, (shuffle(@n + 1 .. $count))[0 .. $share - @n - 1]
        if $count > @n && $share > @n;
    @n = uniq sort { $a <=> $b } grep { defined && $_ <= $count } @n;
    @n = $ENV{T_TORTURE_N} if $ENV{T_TORTURE_N};

    for my $i (@n) {
        push @bad, $s->_trial($row, $i, %o);
        push @bad, $s->_trial($row, $i, %o, times => 4)
            if $op eq 'alloc' && rand() < 0.25;
    }
    Test::More::is(scalar @bad, 0, sprintf '%s, %s %s: %d of %d, %.1f s',
        $name, $op, $mode, scalar @n, $count, time - $from)
        or Test::More::diag(join "\n", @bad);
}

# One thing that is done, for each of these operations in each mode.
# factor: of the usual number of trials; ops: which; status: of the answer that
# an unharmed one has; old, other: the worker of a reload that is meant;
# reloads: there is one
sub rows {
    my ($s, $name, $factor, $action, $verdict, $ops, %o) = @_;
    for my $op (@$ops) {
        for my $mode (@{$MODES{$op}}) {
            $s->_row([$name, $op, $mode, $action, $verdict],
                max(1, $SHARE{$op} * $factor * ($mode eq 'place' ? 0.5 : 1)),
                %o);
        }
    }
}

# What is built once is there, and idle connections as well
sub begin {
    my ($s) = @_;
    $s->settled;
    wait_for { sleep 0.2; descriptors($s->worker) < 20 } 3;
    $s->{before} = { descriptors => descriptors($s->worker),
        live => $s->{torture}->look->{live}, worker => $s->worker };
}

# no worker has grown, unless one was replaced
sub nothing_left {
    my ($s) = @_;
    my $before = $s->{before};
    Test::More::is_deeply([$s->settled], [], 'no transfer, no memory');
    my $entries;
    wait_for { !@{$entries = $s->open_entries} } 60, 0.1;
    Test::More::is_deeply($entries, [], 'no open upload in Redis');
    my $worker = $s->worker;
    Test::More::is($worker, $before->{worker}, 'the worker that there was');
    my $now;
    wait_for {
        ($now = descriptors($worker)) <= $before->{descriptors}
    } 30, 0.1;
    Test::More::cmp_ok($now, '<=', $before->{descriptors}, 'descriptors');
    # (what a first TLS connection leaves for the next, and libraries' caches)
    Test::More::cmp_ok($s->{torture}->look->{live} - $before->{live}, '<',
        60 + $s->{trials} / 5, 'allocations of the worker');
}

# A worker that has no memory when it starts is not started again, which is
# nginx's way, whichever module it is. True when that was so; there is one now.
sub revive {
    my ($s) = @_;
    return 0 if $s->lines !~ /cannot be respawned/;
    wait_for { !$s->{n}->workers };
    kill 'HUP', $s->{n}->pid;
    wait_for { $s->{n}->workers } 60, 0.005;
    return 1;
}

sub tell {
    my ($s, @more) = @_;
    Test::More::diag(join ', ', "$s->{trials} trials, $s->{fired} of them "
        . "harmed; $s->{orphans} multipart uploads whose name did not come",
        @more);
    Test::More::diag("without a frame of ours, not counted:\n",
        @{$s->{theirs}}) if @{$s->{theirs}};
    $s->{t}->allow_errors(qr/./);
    # each trial has looked for others
    $s->{t}->allow_alerts(qr/./);
    # OpenSSL loses a name of its table where no memory is left for its entry
    $s->{t}->allow_leaks(qr/ in EVP_[A-Z]+_fetch /);
}

1;
