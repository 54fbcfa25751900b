#!/usr/bin/perl

# Clients that are killed at random positions of a request, in every framing,
# with several part sizes and several at once: an object is there only when
# nginx had the whole body, and then with exactly its bytes; records and totals
# tell what happened, and nothing stays behind. T_SEED=number runs one again.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use IO::Select;
use IO::Socket::SSL ();
use JSON::PP ();
use List::Util qw/ min sum0 /;
use Test::More;
use S3T;
use S3T::Util qw/ read_json_lines wait_exit /;

use constant { COUNT => 300, CLIENTS => 6, FRAME => 16384 };

my $t = S3T->new;
my $s3 = $t->s3;

# one for those that go on, however slow the machine is, and one that soon loses
# patience
$t->token(LOCATIONS => <<'EOC');
        location /5m/ { s3_part_size 5m; s3_part_concurrency 1; s3_upload; }
        location /6m/ { s3_part_size 6m; s3_part_concurrency 2; s3_upload; }
        location /8m/ { s3_part_size 8m; s3_upload; }
        location /status/ { access_log off; s3_status; }
EOC
my $n = $t->nginx(<<'EOC', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    log_format state "$request_uri $status $s3_transfer_state";
    %%S3%%
    s3_transfer_id $arg_id;
    ssl_certificate %%CERTS%%/server.pem;
    ssl_certificate_key %%CERTS%%/server.key;
    access_log %%DIR%%/state.log state;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl;
        listen 127.0.0.1:%%PORT_tlsh2%% ssl http2;
        %%LOCATIONS%%
    }
    server {
        listen 127.0.0.1:%%PORT_brief%%;
        listen 127.0.0.1:%%PORT_briefh2%% http2;
        listen 127.0.0.1:%%PORT_tlsbrief%% ssl;
        listen 127.0.0.1:%%PORT_tlsbriefh2%% ssl http2;
        client_header_timeout 3s;
        client_body_timeout 3s;
        %%LOCATIONS%%
    }
}
EOC

my $seed = $ENV{T_SEED} || time;
note "seed: $seed";
srand $seed;

my @bodies = map { data($_) } 1, 30_000, 5 * MB, 6 * MB + 17, 17 * MB + 1;
my @framings = qw/ length chunked h2 h2-length /;

sub pick { return $_[rand @_] }

sub path { return "/$_[0]{part}/$_[0]{key}" }

# The bytes of a request, without HTTP/2's preface, for its framing, and the
# offset in it behind each piece of the body: [offset, bytes of the body].
sub wire {
    my ($c, $body) = @_;
    my $h2 = $c->{framing} =~ /^h2/;
    my $size = length $body;
    my $uri = path($c) . "?id=$c->{key}";

    my $text = "PUT $uri HTTP/1.1\r\nHost: a\r\n";
    $text .= $c->{framing} eq 'length' ? "Content-Length: $size\r\n\r\n"
        : "Transfer-Encoding: chunked\r\n\r\n";
    if ($h2) {
        my @fields = (':method' => 'PUT', ':scheme' => 'http',
            ':authority' => 'localhost', ':path' => $uri,
            $c->{framing} eq 'h2' ? () : ('content-length' => $size));
        my $block = '';
        while (my ($name, $value) = splice @fields, 0, 2) {
            $block .= pack 'C C/a C/a', 0, $name, $value;
        }
        $text = h2_frame(1, 4, $block);
    }
    my $head = length $text;
    my @pieces = [$head, 0];
    if ($c->{framing} eq 'length') {
        return { text => $text . $body, head => $head,
            pieces => [@pieces, [$head + $size, $size]] };
    }

    for (my $at = 0; $at < $size; ) {
        my $length = min($size - $at, $h2 ? FRAME : $c->{chunk});
        my $data = substr $body, $at, $length;
        $at += $length;
        $text .= $h2 ? h2_frame(0, $at == $size && !$c->{empty_end}, $data)
            : sprintf("%x\r\n", $length) . $data . "\r\n";
        push @pieces, [length($text), $at];
    }
    $text .= $h2 ? $c->{empty_end} ? h2_frame(0, 1, '') : '' : "0\r\n\r\n";
    push @pieces, [length $text, $size];
    return { text => $text, head => $head, pieces => \@pieces };
}

# bytes of the body that may have come when the request stops at its position
sub carried {
    my ($wire, $cut) = @_;
    my $before;
    for (@{$wire->{pieces}}) {
        my ($at, $body) = @$_;
        return $body if $cut == $at;
        return $before ? min($body, $before->[1] + $cut - $before->[0]) : 0
            if $cut < $at;
        $before = $_;
    }
    return $before->[1];
}

# what the server's frames say: windows, the stream's end
sub h2_read {
    my ($raw, $state, $timeout) = @_;
    my $socket = $raw->{socket};
    return 0 if !($socket->can('pending') && $socket->pending)
        && !IO::Select->new($socket)->can_read($timeout);
    sysread $socket, $state->{in}, 1 << 16, length $state->{in} or return 0;
    while (length $state->{in} >= 9) {
        my ($high, $low, $type, $flags, $id) = unpack 'CnCCN', $state->{in};
        my $length = ($high << 16) + $low;
        last if length $state->{in} < 9 + $length;
        my $payload = substr $state->{in}, 9, $length;
        substr $state->{in}, 0, 9 + $length, '';
        if ($type == 4 && !($flags & 1)) {
            my %set = unpack '(nN)*', $payload;
            $state->{stream} += ($set{4} || 65535) - 65535;
            $state->{known} = 1;
        } elsif ($type == 8) {
            $state->{$id ? 'stream' : 'connection'} += unpack 'N', $payload;
        } elsif ($type == 3 || $type == 7) {
            $state->{over} = 1;
        }
        $state->{over} = 1 if $id && $type < 2 && $flags & 1;
    }
    return 1;
}

# All up to the position, as the windows allow; true when it is sent.
sub h2_send {
    my ($raw, $wire, $cut) = @_;
    my $state = $raw->{h2} = { in => '', stream => 65535,
        connection => 65535 };
    $raw->send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . h2_frame(4, 0, '', 0));
    until ($state->{known}) {
        h2_read($raw, $state, 60) or return 0;
    }
    my $from = 0;
    for my $piece (@{$wire->{pieces}}) {
        my $to = min($piece->[0], $cut);
        last if $to <= $from;
        my $window = $from ? $to - $from - 9 : 0;
        while ($state->{stream} < $window || $state->{connection} < $window) {
            h2_read($raw, $state, 60) or return 0;
        }
        $state->{$_} -= $window for qw/ stream connection /;
        while (IO::Select->new($raw->{socket})->can_read(0)) {
            h2_read($raw, $state, 0) or last;
        }
        return 0 if $state->{over};
        $raw->send(substr $wire->{text}, $from, $to - $from) or return 0;
        $from = $to;
    }
    return 1;
}

# One after the other, first those that fall silent, which stay open meanwhile.
sub client {
    my ($result, @cases) = @_;
    my @silent;
    my %bodies = map { $_->{size} => read_file($_->{path}) } @bodies;
    for my $c ((grep { $_->{how} eq 'silence' } @cases),
        grep { $_->{how} ne 'silence' } @cases)
    {
        my $h2 = $c->{framing} =~ /^h2/;
        my $wire = wire($c, $bodies{$c->{size}});
        my $length = length $wire->{text};
        my $cut = $c->{at} < 0 ? $length + $c->{at} + 1
            : $c->{at} >= 1 ? min($length, int($c->{at}) - 1)
            : int $c->{at} * $length;
        if ($c->{how} eq 'cancel') {
            ($cut) = reverse grep { $_ <= $cut }
                map { $_->[0] } @{$wire->{pieces}};
            $cut ||= $wire->{head};
        }
        my $raw = $t->raw($n->port(($c->{tls} ? 'tls' : '')
            . ($c->{how} eq 'silence' && $cut < $length ? 'brief' : '')
            . ($h2 ? 'h2' : '') || undef), $c->{tls}
            ? (tls => $t->ca, $h2 ? (alpn => 'h2') : ()) : ());
        my $sent = $h2 ? h2_send($raw, $wire, $cut)
            : $raw->send(substr $wire->{text}, 0, $cut);
        $raw->send(h2_frame(3, 0, pack 'N', 8)) if $c->{how} eq 'cancel';
        $sent &&= $raw->delivered(60) if !$c->{loose};
        my %r = (key => $c->{key}, sent => $sent, cut => $cut,
            length => $length, body => carried($wire, $cut),
            request => $cut >= $wire->{head}, whole => $cut == $length);

        if ($c->{how} ne 'silence') {
            $c->{how} eq 'reset' ? $raw->reset : $raw->close;
        } elsif ($h2) {
            $raw->{h2}{request} = $r{request};
            push @silent, [$raw];
        } elsif ($r{whole}) {
            $r{status} = ($raw->response(60) || {})->{status};
        } elsif ($cut) {
            push @silent, [$raw, \%r];
        }
        append($result, JSON::PP->new->encode(\%r) . "\n")
            if !@silent || ($silent[-1][1] || 0) != \%r;
    }
    for (@silent) {
        my ($raw, $r) = @$_;
        if (!$r) {
            # of HTTP/2: ended by the answer, not the connection
            until ($raw->{h2}{over} || !$raw->{h2}{request}) {
                h2_read($raw, $raw->{h2}, 60) or last;
            }
            next;
        }
        $r->{closed} = $raw->closed(60);
        append($result, JSON::PP->new->encode($r) . "\n");
    }
}


# Where a case stops: -1 is the end, -2 one byte before it; at least 1: this
# byte, from 1; less: that part of the whole.
sub at {
    my $where = rand;
    return $where < 0.12 ? -1 : $where < 0.2 ? -2 - int rand 16
        : $where < 0.27 ? 1 + int rand 130 : rand;
}

my %cases;

sub add_case {
    my (%c) = @_;
    my $number = keys %cases;
    $c{key} = sprintf 'kill-%05d-%06x', $number, rand 1 << 24;
    $c{chunk} = $c{size} < MB ? 1 + int rand 3000 : 1000 + int rand 300_000;
    $c{former} = $number % 5 == 0;
    $cases{$c{key}} = \%c;
}

for (1 .. COUNT) {
    my $framing = pick(@framings);
    my $how = pick(qw/ close reset silence /, $framing =~ /^h2/ ? 'cancel'
        : ());
    add_case(framing => $framing, how => $how, tls => int rand 2,
        part => pick(qw/ 5m 6m 8m /), at => at(),
        size => pick(map { $_->{size} } @bodies, @bodies[1 .. 3]),
        empty_end => int rand 2, loose => $how eq 'reset' && rand() < 0.4);
}

# all but what says that it is whole, over an object of the same key
for my $size (30_000, 6 * MB + 17) {
    for my $how (qw/ close reset silence /) {
        for my $tls (0, 1) {
            for (['chunked', -6], ['length', -2], ['h2', -10],
                ['h2-length', -10])
            {
                add_case(framing => $_->[0], at => $_->[1], how => $how,
                    tls => $tls, part => '5m', size => $size, empty_end => 1);
            }
            next if $how ne 'close';
            add_case(framing => $_, at => -10, how => 'cancel', tls => $tls,
                part => '5m', size => $size, empty_end => 1)
                for qw/ h2 h2-length /;
        }
    }
}
$_->{former} = 1 for (sort { $a->{key} cmp $b->{key} } values %cases)
    [COUNT .. keys(%cases) - 1];

my @cases = sort { $a->{key} cmp $b->{key} } values %cases;
$s3->put(substr(path($_), 1), "former $_->{key}")
    for grep { $_->{former} } @cases;

my $results = $t->dir . '/results';
my $errors = $t->dir . '/clients.err';
my @running = map {
    my $first = $_;
    spawn({ stderr => $errors }, sub {
        client($results, @cases[grep { $_ % CLIENTS == $first } 0 .. $#cases]);
    });
} 0 .. CLIENTS - 1;
wait_exit($_, 600) for @running;

my @results = read_json_lines($results);

# of requests that were made
my (%status, %state);
sub read_states {
    my $log = read_file("$n->{dir}/state.log") || '';
    while ($log =~ m{\?id=(\S+) (\d+) (\w+)$}mg) {
        ($status{$1}, $state{$1}) = ($2, $3);
    }
}

# (a reset may overtake what was sent, the request itself as well)
my $told = wait_for {
    read_states();
    my $totals = curl($n->url('/status/'))->{json}{totals};
    !$totals->{active} && $totals->{started} == keys %state
        && !grep { $_->{request} && !$state{$_->{key}}
            && !$cases{$_->{key}}{loose} } @results;
} 60, 0.2;
my @requests = grep { $_->{request}
    && ($state{$_->{key}} || !$cases{$_->{key}}{loose}) } @results;

sub describe {
    my ($r) = @_;
    return "$r->{key}: " . JSON::PP->new->canonical->encode(
        { %{$cases{$r->{key}}}, %$r, logged => $status{$r->{key}},
        state => $state{$r->{key}} });
}

# no result may be in the list
sub none {
    my ($name, @bad) = @_;
    is(scalar @bad, 0, $name)
        or diag("seed: $seed\n", map { describe($_) . "\n" }
            grep { $_ } @bad[0 .. 4]);
}

subtest 'the clients' => sub {
    is(read_file($errors), '', 'no error of their own');
    is(scalar @results, scalar @cases, 'all have run');
    ok($told, 'the access log has all requests');
    none('a whole request is sent whole',
        grep { !$_->{sent} && !$cases{$_->{key}}{loose} } @results);
    none('who falls silent is left',
        grep { defined $_->{closed} && !$_->{closed} } @results);
    for my $framing (@framings) {
        for my $tls (0, 1) {
            my @of = grep { $cases{$_->{key}}{framing} eq $framing
                && $cases{$_->{key}}{tls} == $tls } @requests;
            my $whole = grep { $_->{whole} } @of;
            cmp_ok(scalar @of, '>', 12, "$framing, TLS $tls: " . @of
                . " requests, $whole of them whole");
            for my $how (qw/ close reset silence /,
                $framing =~ /^h2/ ? 'cancel' : ())
            {
                my @cut = grep { $cases{$_->{key}}{how} eq $how
                    && !$_->{whole} } @of;
                cmp_ok(scalar @cut, '>', 1, @cut . " of them cut by $how");
            }
        }
    }
};

subtest 'what became of them' => sub {
    none('one not yet made has no state', grep { !$_->{request}
        && defined $state{$_->{key}} } @results);
    none('not whole: aborted', grep { !$_->{whole}
        && ($state{$_->{key}} || '') ne 'aborted' } @requests);
    none('whole: completed', grep { $_->{whole}
        && ($state{$_->{key}} || '') ne 'completed'
        && !$cases{$_->{key}}{loose} } @requests);
    none('aborted is 400, 408 or 499', grep { $state{$_->{key}} eq 'aborted'
        && $status{$_->{key}} !~ /^(?:400|408|499)$/ } @requests);
    none('silence is 408', grep { $cases{$_->{key}}{how} eq 'silence'
        && !$_->{whole} && $status{$_->{key}} != 408 } @requests);
    none('who waited for it had 201', grep { exists $_->{status}
        && ($_->{status} || 0) != 201 } @requests);
};

subtest 'the records' => sub {
    my %record = map { $_->{key} => curl($n->url("/status/$_->{key}")) }
        $requests[0], (grep { rand() < 0.4 } @requests);
    my @looked = grep { $record{$_->{key}} } @requests;
    $_ = $_->{json} || {} for values %record;
    none('the state', grep { ($record{$_->{key}}{state} || '')
        ne $state{$_->{key}} } @looked);
    none('aborted: a reason, and no more bytes than were sent', grep {
        my $r = $record{$_->{key}};
        $r->{state} eq 'aborted' && (($r->{error} || '')
            !~ /closed the connection|timed out|malformed or shorter/
            || $r->{bytesTransferred} > $_->{body}
            || $r->{bytesStored} > $r->{bytesTransferred} || $r->{etag});
    } @looked);
    none('completed: all bytes', grep {
        my $r = $record{$_->{key}};
        my $size = $cases{$_->{key}}{size};
        $r->{state} eq 'completed' && ($r->{bytesTransferred} != $size
            || $r->{bytesStored} != $size || $r->{totalBytes} != $size
            || !$r->{etag} || $r->{error});
    } @looked);
    is(curl($n->url("/status/$_->{key}"))->{status}, 404,
        'one that was not yet a request')
        for (grep { !$_->{request} } @results)[0];
};

subtest 'totals' => sub {
    my $totals;
    wait_for {
        $totals = curl($n->url('/status/'))->{json}{totals};
        !$totals->{active} && !$totals->{memoryUsed};
    };
    my $completed = grep { $_ eq 'completed' } values %state;
    is_deeply({ map { $_ => $totals->{$_} } qw/ started completed failed
        aborted active memoryUsed / }, { started => scalar @requests,
        completed => $completed, failed => 0,
        aborted => @requests - $completed, active => 0, memoryUsed => 0 },
        'add up');
    my $stored = sum0(map { $cases{$_}{size} }
        grep { $state{$_} eq 'completed' } keys %state);
    cmp_ok($totals->{bytesStored}, '>=', $stored, 'stored bytes');
    cmp_ok($totals->{bytesTransferred}, '>=', $totals->{bytesStored},
        'transferred bytes');
};

subtest 'what S3 holds' => sub {
    ok(wait_for(sub { !$s3->uploads }, 60, 0.2), 'no multipart upload');
    my %sum = map { $_->{size} => $_->{sha256} } @bodies;
    my %expected;
    for my $c (@cases) {
        my $path = substr path($c), 1;
        if (($state{$c->{key}} || '') eq 'completed') {
            $expected{$path} = [$sum{$c->{size}}, $c->{size}];
        } elsif ($c->{former}) {
            my $former = "former $c->{key}";
            $expected{$path} = [sha256_hex($former), length $former];
        }
    }
    is_deeply([sort $s3->keys], [sort keys %expected],
        'the objects of whole bodies, and former ones');
    my %is = map { $_ => [$s3->sha256($_)] } keys %expected;
    is_deeply(\%is, \%expected, 'their bytes') or diag "seed: $seed";
};
