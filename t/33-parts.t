#!/usr/bin/perl

# A part that was sent more than once: S3 is asked what it holds of it, and what
# is not what it acknowledged last is never completed.

use strict;
use warnings;

use lib 't/lib';
use IO::Select;
use IO::Socket::INET;
use Test::More;
use S3T;
use S3T::Null qw/ body_gen /;

use constant PART => 5 * MB;

my $t = S3T->new;
my $s3 = $t->s3;

my $two = data(PART + 1);         # two parts
my $five = data(4 * PART + 1000);

my $lost = { close => 'before' };
my $again = { status => 503 };
my $denied = { status => 403, body =>
    '<Error><Code>AccessDenied</Code><Message>as scripted</Message></Error>' };

my (@cases, %cases);

sub case {
    my ($name, %c) = @_;
    $c{port} = free_port();
    $c{fake} = $t->fake(port => $c{port}, on => $c{on}($c{port}));
    $c{body} ||= $two;
    $c{id} = sprintf 'parts-%010d', scalar @cases;
    $c{name} = $name;
    push @cases, \%c;
    $cases{$name} = \%c;
}

# a list of parts, [number, size, ETag as it is written]
sub list {
    return { body => '<ListPartsResult>' . join('', map {
        my ($number, $size, $etag) = @$_;
        "<Part><PartNumber>$number</PartNumber>"
            . (defined $etag ? "<ETag>$etag</ETag>" : '')
            . "<Size>$size</Size></Part>" } @_)
        . '<IsTruncated>false</IsTruncated></ListPartsResult>' };
}

# an answer to HEAD: an object of the transfer, or of another
sub object {
    my ($port, $size, $change) = @_;
    my $seen = $t->dir . "/fake-$port/requests";
    return sub {
        my ($of) = read_file($seen) =~ /"x-amz-meta-transfer-id":"([^"]+)"/;
        return { status => 200, headers => { ETag => '"of-the-object"',
            'Content-Length' => $size, 'x-amz-meta-transfer-id' =>
            $of . (defined $change ? $change : '') } };
    };
}

# on gets the fake's port
sub on {
    my (%on) = @_;
    return sub { \%on };
}


# What S3 holds

case('once', on => on(), count => { part => 2, parts => 0 });

case('whole', on => on(part => [ {}, $again ]),
    count => { part => 3, parts => 1, complete => 1 });

case('lost', on => on(part => [ {}, $lost ]),
    count => { part => 3, parts => 1, complete => 1 });

case('short', on => on(part => [ $again, { stored => 1000 } ]),
    message => qr/^part 1 was sent more than once, .* 1000 of 5242880 bytes$/,
    count => { part => 3, parts => 4, complete => 0, abort => 1 });

case('short-last', on => on(part => [ {}, $again, { stored => 0 } ]),
    message => qr/^part 2 was sent more than once, .* 0 of 1 bytes$/,
    count => { part => 3, parts => 4, complete => 0, abort => 1 });

case('other', on => on(part => [ $again ],
    parts => list([ 1, PART, '&quot;of-another&quot;' ])),
    message => qr/^part 1 was sent more than once/,
    count => { parts => 4, complete => 0, abort => 1 });

case('missing', on => on(part => [ $again ], parts => list([ 2, 1 ])),
    message => qr/^part 1 was acknowledged, and S3 does not hold it$/,
    count => { parts => 4, complete => 0, abort => 1 });

# a server whose list is behind
case('late', on => on(part => [ $again ], parts => [ list([ 2, 1 ]),
    list([ 1, 17 ], [ 2, 1 ]) ]), count => { parts => 3, complete => 1 });

case('no-etag', on => on(part => [ $again ], parts => list([ 1, PART ])),
    count => { parts => 1, complete => 1 });

case('bare-etag', on => on(part => [ $again,
        { headers => { ETag => '"of-a-part"' } } ],
    parts => list([ 1, PART, 'of-a-part' ])),
    count => { parts => 1, complete => 1 });

# an idle connection that closed is no try, but S3 may have what went over it
case('idle', conf => 's3_tries 1; s3_keepalive 32;'
    . ' s3_keepalive_timeout 60s;', on => on(part =>
    sub { $_[0]{number} > 1 && $_[0]{query}{partNumber} == 1 ? $lost : {} }),
    count => { part => 3, parts => 1, complete => 1 });

case('checked-by-s3', conf => 's3_checksum crc32;', on => on(part => [ $again ]),
    count => { part => 3, parts => 0, complete => 1 });


# Pages

case('pages', body => $five, on => on(
    part => [ $again, {}, {}, $again ],
    parts => sub { $_[0]{query}{'max-parts'} = 1; {} }),
    count => { part => 7, parts => 2, complete => 1 },
    asked => [ '0+3', '2+1' ]);

case('pages-short', body => $five, on => on(
    part => [ {}, {}, {}, {}, $again, { stored => 999 } ],
    parts => sub { $_[0]{query}{'max-parts'} = 1; {} }),
    message => qr/^part 5 .* 999 of 1000 bytes$/,
    count => { part => 6, parts => 4, complete => 0, abort => 1 },
    asked => [ ('4+1') x 4 ]);

# a server that does not know the arguments of a page
case('pages-none', body => $five, on => on(part => [ {}, $again, {} ],
    parts => sub { @{$_[0]{query}}{qw/ part-number-marker max-parts /} =
        (0, 1000); {} }), count => { parts => 1, complete => 1 },
    asked => [ '1+1' ]);

case('pages-no-end', on => on(part => [ {}, $again ], parts => {
        body => '<ListPartsResult><IsTruncated>true</IsTruncated>'
            . '<NextPartNumberMarker>1</NextPartNumberMarker>'
            . '</ListPartsResult>' }), errors => 1,
    count => { parts => 3, complete => 1, head => 1 });


# S3 does not say: the upload goes on, and the object is looked at

case('refused', on => sub { { part => [ $again ], parts => $denied,
        head => object($_[0], PART + 1) } }, warn => 1,
    count => { parts => 1, complete => 1, head => 1 });

case('refused-short', on => sub { { part => [ $again ], parts => $denied,
        head => object($_[0], 1001) } }, code => 'IncompleteObject',
    message => qr/^S3 stored 1001 of 5242881 bytes/,
    count => { parts => 1, complete => 1, head => 1, abort => 0 });

case('refused-newer', on => sub { { part => [ $again ], parts => $denied,
        head => object($_[0], 1001, '0') } },
    count => { parts => 1, complete => 1, head => 1 });

case('refused-blind', on => on(part => [ $again ], parts => $denied,
    head => { status => 403 }), count => { complete => 1, head => 1 });

case('unknown', on => sub { { part => [ $again ], parts => { status => 501 },
        head => object($_[0], PART + 1) } }, count => { complete => 1 });

case('failing', on => sub { { part => [ $again ], parts => { status => 500 },
        head => object($_[0], PART + 1) } }, errors => 1,
    count => { parts => 3, complete => 1, head => 1 });

case('gone', on => on(part => [ $again ],
    parts => { status => 404, body => '<Error><Code>NoSuchUpload</Code>'
        . '</Error>' }, complete => { status => 404, body =>
        '<Error><Code>NoSuchUpload</Code></Error>' }),
    code => 'NoSuchUpload', message => qr/404 NoSuchUpload/,
    count => { parts => 1, complete => 1, head => 0, abort => 1 });


# Between nginx and the RGW: the named tries of parts, counted from 1, are cut
# after so many bytes of their body

my %cut = (2 => 100_000);
my $proxy_port = free_port();

sub relay {
    my ($client) = @_;
    my $rgw = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
        PeerPort => $t->server('RGW_PORT')) or return;
    my $head = '';
    until ($head =~ /\r\n\r\n/) {
        sysread $client, $head, 1 << 16, length $head or return;
    }
    append($t->dir . '/heads', (split /\r\n/, $head)[0] . "\n");
    my $left = 1 << 40;
    if ($head =~ /^PUT \S+partNumber=/) {
        append($t->dir . '/tries', '.');
        my $bytes = $cut{-s $t->dir . '/tries'};
        $left = $bytes if $bytes;
    }
    syswrite $rgw, $head;
    my $both = IO::Select->new($client, $rgw);
    while ($left > 0) {
        for my $from ($both->can_read) {
            sysread $from, my $bytes, 1 << 16 or return;
            my $to = $from == $client ? $rgw : $client;
            my $sent = 0;
            while ($sent < length $bytes) {
                $sent += syswrite($to, $bytes, length($bytes) - $sent, $sent)
                    || return;
            }
            $left -= length $bytes if $from == $client;
        }
    }
}

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
    LocalPort => $proxy_port, Listen => 100, ReuseAddr => 1) or die $!;
my $proxy = spawn({}, sub {
    while (1) {
        my $client = $listener->accept or next;
        next if fork;
        alarm 600;
        relay($client);
        POSIX::_exit(0);
    }
});
close $listener;


# a fault at every third part: cut in the middle, refused before or after it was
# read; it takes no part that is not the pattern's, and no list of parts that do
# not tile it
my $null = S3T::Null->new($t->dir, qw/ --verify --early 9 --reset 8
    --slowdown 7 /);


my $locations = join '', map {
    my $conf = $_->{conf} || '';
    "        location /$_->{name}/ { s3_endpoint " . $_->{fake}->url
    . "; s3_bucket bucket; $conf"
    . ($conf =~ /s3_tries/ ? '' : ' s3_tries 3;')
    . ($conf =~ /s3_keepalive / ? '' : ' s3_keepalive 0;') . " s3_upload; }\n"
} @cases;

my $n = $t->nginx(<<"EOF", level => 'info');
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        s3_credentials static testaccess testsecret;
        s3_part_size 5m;
        s3_part_concurrency 1;
        s3_transfer_id \$arg_id;
        location /transfers/ { s3_status; }
        location /real/ { s3_endpoint http://127.0.0.1:$proxy_port;
            s3_bucket %%BUCKET%%; s3_keepalive 0; s3_upload; }
        location /null/ { s3_endpoint @{[$null->url]}; s3_bucket bucket;
            s3_part_size 8m; s3_part_concurrency 6;
            # by chance one part may have many of the faults
            s3_tries 100; s3_upload; }
$locations
    }
}
EOF

sub record {
    my ($id) = @_;
    return curl($n->url("/transfers/$id"))->{json};
}

sub lines {
    my ($c, $level) = @_;
    return grep { m{\[$level\].*"\Q$c->{name}\E/x"} } split /\n/, $n->log;
}

for my $c (@cases) {
    $t->expect_errors(qr{"\Q$c->{name}\E/x"}) if $c->{message} || $c->{errors};
}

$_->{started} = curl_start($n->url("/$_->{name}/x?id=$_->{id}"),
    file => $_->{body}) for @cases;

for my $c (@cases) {
    subtest $c->{name} => sub {
        my $r = $c->{started}->wait;
        my $record = record($c->{id});
        if ($c->{message}) {
            is($r->{status}, 502, 'status');
            is($r->{json}{error}, $c->{code} || 'InvalidPart', 'error');
            like($r->{json}{message}, $c->{message}, 'message');
            is("$record->{state} $record->{error}",
                "failed $r->{json}{message}", 'the record has its cause');
        } else {
            is($r->{status}, 201, 'status') or diag explain $r;
            is($record->{state}, 'completed', 'the record');
        }
        my %count = %{$c->{count}};
        my %seen;
        wait_for {
            %seen = map { $_ => scalar $c->{fake}->requests($_) } keys %count;
            !grep { $seen{$_} != $count{$_} } keys %count;
        };
        is_deeply(\%seen, \%count, 'requests');
        my $errors = $c->{message} || $c->{errors} ? 1 : 0;
        my @lines = lines($c, 'error');
        is(scalar @lines, $errors, 'lines of the log') or diag explain \@lines;

        my @asked = map { $_->{uri} } $c->{fake}->requests('parts');
        like($_, qr/\?max-parts=\d+&part-number-marker=\d+&uploadId=\S+$/,
            'the arguments in the order of a signature') for @asked;
        is_deeply([map { /max-parts=(\d+)&part-number-marker=(\d+)/;
            "$2+$1" } @asked], $c->{asked}, 'pages') if $c->{asked};
    };
}

subtest 'what the operator is told' => sub {
    my ($line) = grep { /s3 does not list/ } lines($cases{refused}, 'warn');
    like($line, qr/\(s3:ListMultipartUploadParts is wanted\)/, 'the right');
    ($line) = grep { /s3 does not list/ } lines($cases{unknown}, 'warn');
    like($line, qr/the parts: those/, 'none where it is not for the right');
};

subtest 'a real S3' => sub {
    my $r = curl($n->url('/real/x?id=real-000000000001'), file => $five);
    is($r->{status}, 201, 'a part cut off by what stands before S3')
        or diag explain $r;
    is(-s $t->dir . '/tries', 6, 'it was sent again');
    is_deeply([$s3->sha256('real/x')], [$five->{sha256}, $five->{size}],
        'the object');
    like($n->log, qr/\[warn\].*UploadPart failed.*part:2\b.*try 1/, 'the try');
    like(read_file($t->dir . '/heads'),
        qr/^GET \S+\?max-parts=1&part-number-marker=1&/m, 'S3 was asked');
    unlike($n->log, qr{does not list.*"real/x"}, 'and told of its parts');
};

subtest 'a real S3 in which a short try won' => sub {
    write_file($t->dir . '/tries', '.');       # the next one is cut
    $t->expect_errors(qr{not completed: part 1 was sent.*"real/y"});

    my $body = read_file($five->{path});
    my $raw = $t->raw($n->port);
    $raw->send("PUT /real/y?id=real-000000000002 HTTP/1.1\r\nHost: x\r\n"
        . "Content-Length: $five->{size}\r\n\r\n"
        . substr $body, 0, PART + 100);
    ok(wait_for(sub { record('real-000000000002')->{bytesStored} == PART }),
        'part 1 was stored, at its second try');

    my ($upload) = grep { $_->[0] eq 'real/y' } $s3->uploads;
    is($s3->request('PUT', $s3->path('real/y'), body => 'x' x 1000, query => {
        partNumber => 1, uploadId => $upload->[1] })->{status}, 200,
        'the first one comes to its end in S3');

    $raw->send(substr $body, PART + 100);
    my $r = $raw->response;
    is($r->{status}, 502, 'status');
    like($r->{body}, qr/part 1 was sent more than once.* 1000 of 5242880 /,
        'message');
    is($s3->head('real/y'), undef, 'no object');
    ok(wait_for(sub { !$s3->uploads }), 'aborted');
    like(record('real-000000000002')->{error}, qr/^part 1 /, 'the record');
};

end_child($proxy);

subtest '2 GiB, and a fault at every third part' => sub {
    my $r = body_gen($t->dir, $n->url('/null/x'), 2 * GB)->wait;
    is($r->{status}, 201, 'stored') or diag explain $r;
    my $stats = $null->stats;
    note "$stats->{faults} faults of $stats->{part} requests";
    cmp_ok($stats->{faults} / $stats->{part}, '>', 0.3, 'a third of them');
    cmp_ok($stats->{list_parts}, '==', 1, 'one list for all parts');
    is("@$stats{qw/ bad objects open_uploads /}", '0 1 0', 'byte-exact');
};
