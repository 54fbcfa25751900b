#!/usr/bin/perl

# Several uploads over one HTTP/2 connection: one that is cancelled, cut short,
# refused or held back harms no other, and a lost connection ends them all. And
# odd frames, of which none makes another object than was meant.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;

use constant { PART => 5 * MB, SIZE => 12 * MB + 7, ALSO => 3 };

my $t = S3T->new;
my $s3 = $t->s3;
my $refuses = $t->fake(on => { create => { status => 403 } });
$t->token(REFUSES => $refuses->url);

my $n = $t->nginx(<<'EOC', workers => 2);
%%MAIN%%
http {
    %%HTTP%%
    log_format state "$uri $status $s3_transfer_state";
    %%S3%%
    s3_part_size 5m;
    s3_memory 60m;
    s3_window 20m;
    server {
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tlsh2%% ssl http2;
        listen 127.0.0.1:%%PORT%%;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        access_log %%DIR%%/state.log state;
        location / { s3_upload; }
        # the first of them alone
        location ~ /refused$ { s3_endpoint %%REFUSES%%; s3_upload refused; }
        location ~ /limited$ { client_max_body_size 6m; s3_upload limited; }
        location ~ /stalls$ { client_body_timeout 500ms; s3_upload stalls; }
        location /status/ { access_log off; s3_status; }
    }
}
EOC
$t->expect_errors(qr/s3 CreateMultipartUpload failed: 403/,
    qr/client intended to send too large chunked body/);

my $d = data(SIZE);

sub upload {
    my ($port, $path, %o) = @_;
    return h2_put($n->port($port), $path, $d, also => ALSO,
        $port =~ /^tls/ ? (tls => $t->ca) : (), %o);
}

# path => [status, state], once there are so many below the prefix
sub logged {
    my ($prefix) = @_;
    my %of;
    wait_for {
        my $log = read_file("$n->{dir}/state.log") || '';
        %of = ();
        $of{$1} = [$2, $3] while $log =~ m{^(\Q$prefix\E\S*) (\d+) (\S+)$}mg;
        keys %of == ALSO + 1;
    };
    return \%of;
}

# [ name, last of the path, options, [status, state] of the first ]
my @cases = (
    ['all whole', 'whole', {}, [201, 'completed']],
    ['all whole, of a known length', 'known', { length => SIZE },
        [201, 'completed']],
    ['one is cancelled', 'cancelled', { send => PART + 1000,
        then => 'cancel' }, [499, 'aborted']],
    ['one is cancelled before its last byte', 'last', { send => SIZE - 1,
        then => 'cancel' }, [499, 'aborted']],
    ['one is cancelled at once', 'none', { send => 0, then => 'cancel' },
        [499, 'aborted']],
    ['one is shorter than announced', 'short', { length => SIZE,
        send => PART + 1000, then => 'end' }, [400, 'aborted']],
    ['one is refused by S3', 'refused', {}, [502, 'failed']],
    ['one is too large', 'limited', {}, [413, 'aborted']],
    ['one falls silent', 'stalls', { send => PART + 1000, then => 'wait' },
        [408, 'aborted']],
);

for my $port (qw/ h2 tlsh2 /) {
    for (@cases) {
        my ($name, $last, $options, $first) = @$_;
        subtest "$port: $name" => sub {
            my $path = "/$port/$last";
            my $r = upload($port, $path, %$options);
            is_deeply([sort @{$r->{others}}], [(201) x ALSO],
                'the others have 201') or diag explain $r;
            my $logged = logged($path);
            is_deeply($logged->{$path}, $first, 'the first one');
            my @keys = map { substr "$path-$_", 1 } 1 .. ALSO;
            push @keys, substr $path, 1 if $first->[0] == 201;
            is_deeply([sort grep { m{^$port/$last} } $s3->keys], [sort @keys],
                'objects of those that were whole');
            is(scalar(grep { my ($sum, $size) = $s3->sha256($_);
                $sum eq $d->{sha256} && $size == SIZE } @keys), @keys,
                'with their bytes');
            $s3->delete($_) for @keys;
        };
    }
    for my $how (qw/ close reset /) {
        subtest "$port: the connection is lost, $how" => sub {
            my $path = "/$port/$how";
            upload($port, $path, send => SIZE - 1000, then => $how);
            my $logged = logged($path);
            is_deeply($logged, { map { $_ => [499, 'aborted'] } $path,
                map { "$path-$_" } 1 .. ALSO }, 'all are aborted');
            is_deeply([grep { m{^$port/$how} } $s3->keys], [], 'no object');
        };
    }
}

# frames that no usual client sends

use constant { DATA => 0, HEADERS => 1, SETTINGS => 4,
    END_STREAM => 1, END_HEADERS => 4, PADDED => 8 };

sub fields {
    my (@fields) = @_;
    my $block = '';
    while (my ($name, $value) = splice @fields, 0, 2) {
        $block .= pack 'C C/a C/a', 0, $name, $value;
    }
    return $block;
}

my $trailers = h2_frame(HEADERS, END_STREAM | END_HEADERS,
    fields('x-a' => 'b'));

# name => [length, flags of HEADERS, frames, what is stored]
my %odd = (
    'no body, but a length' => [10, END_STREAM, ''],
    'no body, but a length, END_STREAM later' => [10, 0,
        h2_frame(DATA, END_STREAM, '')],
    'more than the length' => [3, 0, h2_frame(DATA, END_STREAM, 'abcde')],
    'more than the length, later' => [3, 0, h2_frame(DATA, 0, 'abc')
        . h2_frame(DATA, END_STREAM, 'de')],
    'less than the length' => [5, 0, h2_frame(DATA, 0, 'abc')
        . h2_frame(DATA, END_STREAM, '')],
    'padding is not of the length' => [6, 0, h2_frame(DATA,
        END_STREAM | PADDED, "\3abc\0\0\0")],
    'padding' => [3, 0, h2_frame(DATA, END_STREAM | PADDED, "\2abc\0\0"),
        'abc'],
    'padding of an unknown length' => [undef, 0, h2_frame(DATA, PADDED,
        "\5abc\0\0\0\0\0") . h2_frame(DATA, END_STREAM, 'de'), 'abcde'],
    'nothing but padding' => [undef, 0, h2_frame(DATA, PADDED, "\2\0\0")
        . h2_frame(DATA, END_STREAM, 'ab'), 'ab'],
    'empty frames' => [undef, 0,
        h2_frame(DATA, 0, '') x 50 . h2_frame(DATA, 0, 'ab')
        . h2_frame(DATA, 0, '') x 50 . h2_frame(DATA, END_STREAM, ''), 'ab'],
    'no body at all' => [undef, END_STREAM, '', ''],
    # nginx 1.22 does not take them
    'trailers' => [undef, 0, h2_frame(DATA, 0, 'abc') . $trailers],
    'trailers, and a length' => [3, 0, h2_frame(DATA, 0, 'abc') . $trailers],
);

subtest 'odd frames' => sub {
    my %key = map { $_ => 'odd/' . s/\W+/-/gr } keys %odd;
    my @raw = map {
        my ($length, $flags, $frames) = @{$odd{$_}};
        my $raw = $t->raw($n->port('h2'));
        $raw->send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            . h2_frame(SETTINGS, 0, '', 0)
            . h2_frame(HEADERS, END_HEADERS | $flags, fields(':method' => 'PUT',
                ':scheme' => 'http', ':authority' => 'a',
                ':path' => "/$key{$_}", defined $length
                ? ('content-length' => $length) : ()))
            . $frames);
        $raw;
    } sort keys %odd;
    my %of;
    wait_for {
        my $log = read_file("$n->{dir}/state.log") || '';
        %of = $log =~ m{^/(odd/\S+) (\d+) }mg;
        keys %of == keys %odd;
    };
    for my $name (sort keys %odd) {
        my $stored = $odd{$name}[3];
        like($of{$key{$name}}, defined $stored ? qr/^201$/ : qr/^4(?:00|99)$/,
            $name);
        is(scalar $s3->get($key{$name}), $stored, 'what S3 holds')
            if defined $stored;
    }
    is_deeply([sort grep { /^odd/ } $s3->keys], [sort map { $key{$_} }
        grep { defined $odd{$_}[3] } keys %odd], 'no other object');
};

ok((wait_for { !curl($n->url('/status/'))->{json}{totals}{memoryUsed} }),
    'no memory is left in use');
