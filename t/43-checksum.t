#!/usr/bin/perl

# Checksums that S3 is given: CRC-32 of each part and of the object, SHA-256 as
# part of the signature; and that what is damaged on its way is sent again.

use strict;
use warnings;

use lib 't/lib';
use Compress::Zlib qw/ crc32 /;
use Digest::SHA qw/ sha256_hex /;
use Fcntl qw/ :flock /;
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use MIME::Base64 qw/ encode_base64 /;
use POSIX ();
use Test::More;
use S3T;
use S3T::Null;

my $t = S3T->new;
my $s3 = $t->s3;

# A way to S3 on which MARK becomes something else, so many times in all.
use constant MARK => 'DAMAGE ME ON THE WAY';

my $ways = 0;

sub pump {
    my ($client, $server, $count, $times) = @_;
    my %to = ($client => $server, $server => $client);
    my $select = IO::Select->new($client, $server);
    my $kept = '';
    while (1) {
        for my $from ($select->can_read) {
            sysread $from, my $bytes, 1 << 16 or return;
            if ($from == $client) {
                $bytes = $kept . $bytes;
                $kept = '';
                if ((my $at = index $bytes, MARK) >= 0) {
                    open my $fh, '>>', $count or die $!;
                    flock $fh, LOCK_EX;
                    if (-s $fh < $times) {
                        syswrite $fh, '.';
                        substr $bytes, $at, 1, 'd';
                    }
                }
                # half of it may have come
                $kept = $1 if $bytes =~ s/(D(?:A(?:M(?:A(?:G(?:E .{0,13})?)?)?
                    )?)?)\z//xs && length $1 < length MARK;
            }
            my $done = 0;
            while ($done < length $bytes) {
                $done += syswrite($to{$from}, $bytes, 1 << 16, $done)
                    || return;
            }
        }
    }
}

sub way {
    my ($port, $times) = @_;
    my $count = $t->dir . '/damaged-' . ++$ways;
    write_file($count, '');
    my $from = free_port();
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
        LocalPort => $from, Listen => 64, ReuseAddr => 1) or die $!;
    spawn({}, sub {
        $SIG{CHLD} = 'IGNORE';
        while (my $client = $listener->accept) {
            # (a copy that is open here would hide that the way is closed)
            if (fork) {
                close $client;
                next;
            }
            my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                PeerPort => $port) or POSIX::_exit(1);
            pump($client, $server, $count, $times);
            POSIX::_exit(0);
        }
    });
    close $listener;
    return {
        url => "http://127.0.0.1:$from", damaged => sub { -s $count },
        again => sub { write_file($count, '') },
    };
}

# with MARK 1,000 bytes into the second part, or into the only one
sub marked {
    my ($size) = @_;
    my $body = read_file(data($size)->{path});
    substr $body, ($size > 5 * MB ? 5 * MB : 0) + 1000, length MARK, MARK;
    return {
        path => write_file($t->dir . "/marked-$size", $body), size => $size,
        sha256 => sha256_hex($body),
    };
}

my %null = (
    crc => S3T::Null->new($t->dir, '--crc32'),
    sha => S3T::Null->new($t->dir, '--sha256'),
    both => S3T::Null->new($t->dir, '--crc32', '--sha256'),
);
my $fake = $t->fake;
my $tls = $t->fake(cert => $t->certs . '/server.pem',
    key => $t->certs . '/server.key');
my $bad_digest = { status => 400,
    body => '<Error><Code>BadDigest</Code></Error>' };
my $once = $t->fake(on => { part => [$bad_digest], put => [$bad_digest] });
my $always = $t->fake(on => { part => $bad_digest, put => $bad_digest });
my $late = $t->fake(on => { complete => $bad_digest });
my %way = (
    crc => way($null{crc}{port}, 1), sha => way($null{sha}{port}, 1),
    rgw => way($t->server('RGW_PORT'), 1), bad => way($null{crc}{port}, 1000),
);
my $dns = $t->dns('*.s3.eu-central-1.amazonaws.com' => ['127.0.0.1']);

$t->token(FAKE => $fake->url, TLS => $tls->url =~ s/127.0.0.1/localhost/r,
    ONCE => $once->url, ALWAYS => $always->url, LATE => $late->url,
    AWS => "http://s3.eu-central-1.amazonaws.com:$fake->{port}",
    DNS => $dns->address,
    (map { (uc "null_$_" => $null{$_}->url) } keys %null),
    (map { (uc "way_$_" => $way{$_}{url}) } keys %way));

my $n = $t->nginx(<<'EOF');
%%MAIN%%
http {
    %%HTTP%%
    resolver %%DNS%% ipv6=off;
    s3_bucket bucket;
    s3_credentials static testaccess testsecret;
    s3_part_size 5m;
    s3_ssl_trusted_certificate %%CA%%;
    s3_keepalive_timeout 1s;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        location /crc/ {
            s3_checksum crc32;
            location /crc/null { s3_endpoint %%NULL_BOTH%%; s3_upload; }
            location /crc/unsigned {
                s3_payload_signature off;
                s3_endpoint %%NULL_CRC%%;
                s3_upload;
            }
            location /crc/fake { s3_endpoint %%FAKE%%; s3_upload; }
            location /crc/once { s3_endpoint %%ONCE%%; s3_upload; }
            location /crc/always {
                s3_tries 3; s3_endpoint %%ALWAYS%%; s3_upload;
            }
            location /crc/late { s3_endpoint %%LATE%%; s3_upload; }
            location /crc/way {
                s3_payload_signature off;
                s3_endpoint %%WAY_CRC%%;
                s3_upload;
            }
            location /crc/bad {
                s3_payload_signature off;
                s3_tries 3;
                s3_endpoint %%WAY_BAD%%;
                s3_upload;
            }
        }
        location /off/ {
            location /off/null { s3_endpoint %%NULL_CRC%%; s3_upload; }
            location /off/fake { s3_endpoint %%FAKE%%; s3_upload; }
            location /off/said {
                s3_checksum off; s3_endpoint %%FAKE%%; s3_upload;
            }
        }
        location /aws { s3_endpoint %%AWS%%; s3_upload; }
        location /aws/off {
            s3_checksum off; s3_endpoint %%AWS%%; s3_upload;
        }
        location /sha/ {
            location /sha/null { s3_endpoint %%NULL_SHA%%; s3_upload; }
            location /sha/way { s3_endpoint %%WAY_SHA%%; s3_upload; }
            location /sha/rgw {
                s3_bucket %%BUCKET%%; s3_endpoint %%WAY_RGW%%; s3_upload;
            }
        }
        location /sign/ {
            location /sign/http/auto { s3_endpoint %%FAKE%%; s3_upload; }
            location /sign/http/on {
                s3_payload_signature on; s3_endpoint %%FAKE%%; s3_upload;
            }
            location /sign/http/off {
                s3_payload_signature off; s3_endpoint %%FAKE%%; s3_upload;
            }
            location /sign/tls/auto { s3_endpoint %%TLS%%; s3_upload; }
            location /sign/tls/on {
                s3_payload_signature on; s3_endpoint %%TLS%%; s3_upload;
            }
            location /sign/tls/off {
                s3_payload_signature off; s3_endpoint %%TLS%%; s3_upload;
            }
        }
        location /rgw/ {
            %%S3%%
            location /rgw/off { s3_payload_signature off; s3_upload; }
            location /rgw/on {
                s3_payload_signature on; s3_checksum crc32; s3_upload;
            }
        }
    }
}
EOF
$t->allow_errors(qr/s3 \w+ failed/);

sub base64 { return encode_base64(pack('N', $_[0]), '') }

sub crc_of { return base64(crc32(read_file($_[0]{path}))) }

# the requests of a key, in order
sub seen {
    my ($s, $key, $op, $n) = @_;
    my @r;
    wait_for {
        @r = grep { $_->{path} =~ m{/\Q$key\E$} } $s->requests($op);
        @r >= ($n || 1);
    };
    return @r;
}

sub with {
    my ($pattern, @requests) = @_;
    return map {
        my $r = $_;
        map { "$r->{op} $_: $r->{headers}{$_}" }
            grep { /$pattern/ } sort keys %{$r->{headers}};
    } @requests;
}

my @sizes = (0, 1, 5 * MB - 1, 5 * MB, 5 * MB + 1, 16 * MB + 3);

subtest 'CRC-32' => sub {
    my $i = 0;
    for my $size (@sizes) {
        my $d = data($size);
        my $crc = crc_of($d);
        for (['a length'], ['chunked', chunked => 1],
            ['HTTP/2', chunked => 1, h2 => 1])
        {
            my ($name, %o) = @$_;
            for my $path (map { "$_-" . $i++ } '/crc/null', '/crc/unsigned') {
                my $r = curl($n->url($path, $o{h2} && 'h2'), file => $d, %o);
                is("$r->{status} $r->{json}{crc32}", "201 $crc",
                    "$path: $size, $name") or diag explain $r;
                my $null = $path =~ /unsigned/ ? $null{crc} : $null{both};
                my $head = HTTP::Tiny->new(proxy => undef)->request('HEAD',
                    $null->url . "/bucket$path",
                    { headers => { 'x-amz-checksum-mode' => 'ENABLED' } });
                is($head->{headers}{'x-amz-checksum-crc32'}, $crc,
                    "$path: S3's") or diag explain $head;
            }
        }
    }
    is($null{$_}->stats->{bad}, 0, "$_: nothing was refused")
        for qw/ crc both /;
};

subtest 'its headers' => sub {
    my $d = data(12 * MB);
    my $r = curl($n->url('/crc/fake1'), file => $d);
    is($r->{status}, 201, 'in parts');
    my $crc = 'x-amz-checksum-crc32';
    my $body = read_file($d->{path});
    my @parts = map { base64(crc32(substr $body, $_ * 5 * MB, 5 * MB)) } 0 .. 2;
    my ($create) = seen($fake, 'crc/fake1', 'create');
    is_deeply([with(qr/checksum|trailer|sdk/, $create)],
        ['create x-amz-checksum-algorithm: CRC32',
            'create x-amz-checksum-type: FULL_OBJECT'], 'create');
    my %part = map { $_->{query}{partNumber}, [with(qr/checksum/, $_)] }
        seen($fake, 'crc/fake1', 'part', 3);
    is_deeply(\%part, { map { $_, ["part $crc: $parts[$_ - 1]"] } 1 .. 3 },
        'parts');
    my ($complete) = seen($fake, 'crc/fake1', 'complete');
    is_deeply([with(qr/checksum|mp-object/, $complete)],
        ["complete $crc: " . crc_of($d),
            'complete x-amz-checksum-type: FULL_OBJECT'], 'complete');
    is_deeply([$complete->{body} =~ m{<ChecksumCRC32>(.*?)</}g], \@parts,
        'its document');

    $d = data(100);
    curl($n->url('/crc/fake2'), file => $d);
    is_deeply([with(qr/checksum/, seen($fake, 'crc/fake2'))],
        ["put $crc: " . crc_of($d)], 'in one');
    curl($n->url('/crc/fake3'), file => data(0));
    is_deeply([with(qr/checksum/, seen($fake, 'crc/fake3'))],
        ["put $crc: AAAAAA=="], 'empty');
};

subtest 'without' => sub {
    for my $path ('/off/fake', '/off/said', '/aws/off') {
        my $key = substr $path, 1;
        for my $size (10, 6 * MB) {
            my $r = curl($n->url("$path$size"), file => data($size));
            is($r->{status}, 201, "$path: $size") or diag explain $r;
            ok(!exists $r->{json}{crc32}, "$path: $size: not in the record");
            my @seen = seen($fake, "$key$size", undef, $size > 10 ? 4 : 1);
            is_deeply([with(qr/checksum/, @seen)], [], "$path: $size: S3");
        }
    }
    for my $size (10, 6 * MB) {
        my $r = curl($n->url("/off/null$size"), file => data($size));
        is("$r->{status} $r->{json}{error}", '502 InvalidRequest',
            "$size: an S3 that wants it") or diag explain $r;
    }
};

subtest "Amazon's endpoints" => sub {
    my $d = data(6 * MB);
    my $r = curl($n->url('/aws/a'), file => $d);
    is("$r->{status} $r->{json}{crc32}", '201 ' . crc_of($d),
        'a checksum by itself') or diag explain $r;
    my @seen = seen($fake, 'aws/a', undef, 4);
    my %of = map { $_->{op}, $_ } @seen;
    is($of{complete}{headers}{'x-amz-mp-object-size'}, 6 * MB, 'the size too');
    is($of{create}{headers}{host},
        "bucket.s3.eu-central-1.amazonaws.com:$fake->{port}",
        "the bucket in the host's name");
    is($of{create}{path}, '/aws/a', 'and not in the path');
    like($of{create}{headers}{authorization},
        qr{Credential=testaccess/\d{8}/eu-central-1/s3/aws4_request,},
        'the region of the name');
};

subtest 'S3 finds it wrong' => sub {
    for my $size (100, 12 * MB) {
        my $r = curl($n->url("/crc/once$size"), file => data($size));
        is($r->{status}, 201, "$size: once: sent again") or diag explain $r;
        $r = curl($n->url("/crc/always$size"), file => data($size));
        is("$r->{status} $r->{json}{error}", '502 BadDigest',
            "$size: always: given up") or diag explain $r;
    }
    is($once->begun('put'), 2, 'tries of the object');
    is($once->begun('part'), 4, 'tries of the parts');
    is($always->begun('put'), 3, 's3_tries');
    is($always->begun('complete'), 0, 'never completed');
    wait_for { $always->begun('abort') };
    is($always->begun('abort'), 1, 'aborted');

    my $r = curl($n->url('/crc/late'), file => data(6 * MB));
    is("$r->{status} $r->{json}{error}", '502 BadDigest',
        'of the whole object') or diag explain $r;
    is($late->begun('complete'), 1, 'which no other try would change');
    wait_for { $late->begun('abort') };
    is($late->begun('abort'), 1, 'aborted');
};

subtest 'damaged on the way' => sub {
    for (['/crc/way', 'crc'], ['/sha/way', 'sha'], ['/sha/rgw', 'rgw']) {
        my ($path, $name) = @$_;
        for my $size (10 * KB, 12 * MB) {
            my $d = marked($size);
            $way{$name}{again}->();
            my $r = curl($n->url("$path$size"), file => $d);
            is($r->{status}, 201, "$path: $size: sent again")
                or diag explain $r;
            is($way{$name}{damaged}->(), 1, "$path: $size: it was damaged");
            is_deeply([$s3->sha256(substr "$path$size", 1)],
                [$d->{sha256}, $size], "$path: $size: what S3 holds")
                if $name eq 'rgw';
        }
    }
    is($null{sha}->stats->{bad}, 2, 'found by SHA-256');
    my $bad = $null{crc}->stats->{bad};
    is($bad, 4, 'found by CRC-32');    # and two that had none, above
    my $r = curl($n->url('/crc/bad'), file => marked(6 * MB));
    is("$r->{status} $r->{json}{error}", '502 BadDigest', 'each time')
        or diag explain $r;
    is($null{crc}->stats->{bad} - $bad, 3, 's3_tries');
};

subtest 'the payload in the signature' => sub {
    my $hex = qr/^[0-9a-f]{64}$/;
    my $empty = sha256_hex('');
    my %signed = ('http/auto' => 1, 'http/on' => 1, 'tls/on' => 1);
    for my $way (map { ("http/$_", "tls/$_") } qw/ auto on off /) {
        my $s = $way =~ /tls/ ? $tls : $fake;
        for my $size (0, 100, 12 * MB) {
            my $r = curl($n->url("/sign/$way$size"), file => data($size));
            is($r->{status}, 201, "$way: $size") or diag explain $r;
            for (seen($s, "sign/$way$size", undef, $size > MB ? 5 : 1)) {
                my $want = ($signed{$way} || $_->{op} !~ /^(put|part)$/
                    || $_->{length} == 0) ? $_->{sha256} : 'UNSIGNED-PAYLOAD';
                is($_->{headers}{'x-amz-content-sha256'}, $want,
                    "$way: $size: $_->{op} of $_->{length}");
            }
        }
    }
    my $i = 0;
    for my $size (@sizes) {
        my $d = data($size);
        for (['a length'], ['chunked', chunked => 1],
            ['HTTP/2', chunked => 1, h2 => 1])
        {
            my ($name, %o) = @$_;
            my $r = curl($n->url('/sha/null' . $i++, $o{h2} && 'h2'),
                file => $d, %o);
            is($r->{status}, 201, "$size, $name") or diag explain $r;
        }
    }
    is($null{sha}->stats->{bad}, 2, 'no more was refused');
    for my $path ('/rgw/on', '/rgw/off') {
        for my $size (0, 100, 12 * MB) {
            my $d = data($size);
            my $r = curl($n->url("$path$size"), file => $d);
            is($r->{status}, 201, "Ceph: $path: $size") or diag explain $r;
            is_deeply([$s3->sha256(substr "$path$size", 1)],
                [$d->{sha256}, $size], "Ceph: $path: $size: what it holds");
        }
    }
};
