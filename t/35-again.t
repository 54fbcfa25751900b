#!/usr/bin/perl

# A part that S3 turns away in the middle of an upload, for its region, its time
# or its keys: the part is signed anew and sent again, whole, and so is all that
# follows.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use POSIX qw/ strftime /;
use Test::More;
use S3T;
use S3T::Fake qw/ hours_ahead /;

use constant PART => 5 * MB;

my $t = S3T->new(bucket => 0);

sub refusal {
    my ($status, $code, %o) = @_;
    return { status => $status, body => "<Error><Code>$code</Code></Error>",
        %o };
}

# An S3 that is content with the first part, and after it wants something else
sub fussy {
    my ($answer) = @_;
    return $t->fake(on => { part => sub {
        my ($r) = @_;
        return $r->{query}{partNumber} == 1 ? {} : $answer->($r) || {};
    } });
}

# S3's clock is an hour ahead
sub theirs { return strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime time + 3600) }

my %s3 = (
    region => fussy(sub {
        return $_[0]{headers}{authorization} =~ m{/eu-west-9/s3/} ? undef
            : refusal(307, 'TemporaryRedirect', headers => {
                'x-amz-bucket-region' => 'eu-west-9',
                Location => 'http://127.0.0.1:1/' });
    }),
    clock => fussy(sub {
        return hours_ahead($_[0]) ? undef : refusal(403,
            'RequestTimeTooSkewed', headers => { Date => theirs() });
    }),
    early => fussy(sub {
        return $_[0]{headers}{authorization} =~ m{/eu-west-9/s3/} ? undef
            : refusal(307, 'TemporaryRedirect', read => 100_000, headers => {
                'x-amz-bucket-region' => 'eu-west-9' });
    }),
    keys => $t->fake(on => { part => [ {}, refusal(400, 'ExpiredToken') ] }),
);
$t->token(map { uc, $s3{$_}->url } keys %s3);

my $n = $t->nginx("%%MAIN%%\nhttp { %%HTTP%% server { "
    . 'listen 127.0.0.1:%%PORT%%; s3_bucket bucket; s3_part_size 5m; '
    . 's3_part_concurrency 1; s3_credentials static testaccess testsecret; '
    . 's3_payload_signature on; ' . join('', map { "location /$_/ { "
    . "s3_endpoint %%\U$_\E%%; s3_upload; } " } sort keys %s3) . '} }');

my $d = data(3 * PART + 17);
my $bytes = read_file($d->{path});
my %running = map { $_ => curl_start($n->url("/$_/x"), file => $d) }
    sort keys %s3;

for my $name (sort keys %s3) {
    subtest $name => sub {
        my $r = $running{$name}->wait;
        is($r->{status}, 201, 'stored') or diag explain $r;
        ok((wait_for { $s3{$name}->requests('complete') }), 'completed');
        my @parts = $s3{$name}->requests('part');
        is(scalar @parts, 5, 'one part was sent again');
        my ($first, $again) = grep { $_->{query}{partNumber} == 2 } @parts;
        isnt($first->{headers}{authorization},
            $again->{headers}{authorization}, 'and signed anew')
            if $name ne 'keys';
        isnt($first->{connection}, $again->{connection},
            'over another connection') if $name eq 'early';
        my %of = map { $_->{query}{partNumber} => $_ } @parts;
        for my $i (1 .. 4) {
            my $sum = sha256_hex(substr $bytes, ($i - 1) * PART, PART);
            is("$of{$i}{sha256} $of{$i}{headers}{'x-amz-content-sha256'}",
                "$sum $sum", "part $i: its bytes, and their signature");
        }
        my ($complete) = $s3{$name}->requests('complete');
        like($complete->{headers}{authorization}, qr{/eu-west-9/s3/},
            'what follows is right at once') if $name =~ /region|early/;
        is(hours_ahead($complete), 1,
            'what follows is right at once') if $name eq 'clock';
        is(scalar(() = $n->log =~ m{\[warn\].*UploadPart failed.*"$name/x"}g),
            1, 'one line');
    };
}

# One location, buckets in two regions: what one bucket teaches is not taken for
# the other's, in the middle of their tries or later
my %lives = (aaa => 'eu-west-1', bbb => 'ap-east-1');
my $wants = sub {
    my ($r) = @_;
    my $region = $lives{($r->{path} =~ m{^/(\w+)/})[0]};
    return $r->{headers}{authorization} =~ m{/$region/s3/} ? {}
        : { %{ refusal(400, 'AuthorizationHeaderMalformed') },
            headers => { 'x-amz-bucket-region' => $region } };
};
my $both = $t->fake(on => { map { $_ => $wants } qw/ put create part
    complete / });
$t->token(BOTH => $both->url);

$n = $t->nginx('%%MAIN%% http { %%HTTP%% server { '
    . 'listen 127.0.0.1:%%PORT%%; s3_endpoint %%BOTH%%; s3_part_size 5m; '
    . 's3_credentials static testaccess testsecret; '
    . 'location ~ ^/(?<name>\w+)/ { s3_bucket $name; s3_upload x; } } }');

my ($large, $small) = (data(PART + 17), data(1000));
my @crowd = map { my $file = $_ % 2 ? $large : $small;
    map { curl_start($n->url("/$_/"), file => $file) } sort keys %lives }
    1 .. 8;
is(join(' ', map { $_->wait->{status} } @crowd), join(' ', (201) x 16),
    'two regions at once: stored');

$both->forget;
is(curl($n->url("/$_/"), file => $small)->{status}, 201, "$_ again")
    for qw/ aaa bbb aaa bbb /;
is(scalar $both->requests('put'), 4, 'each is signed right at once');

# A proxy sets Date, and its clock is wrong: a look that is refused for another
# reason does not teach it; S3's own word for the time counts more
my $told = strftime('%Y-%m-%dT%H:%M:%SZ', gmtime time + 2 * 3600);
my %late = (Date => theirs());
my $denied = $t->fake(on => { head => { status => 403, headers => \%late },
    put => sub { hours_ahead($_[0]) == 0 ? {} : refusal(403, 'RequestTimeTooSkewed',
        headers => \%late) } });
my $says = $t->fake(on => { put => sub { hours_ahead($_[0]) == 2 ? {} : { status => 403,
    headers => \%late, body => '<Error><Code>RequestTimeTooSkewed</Code>'
        . "<ServerTime>$told</ServerTime></Error>" } } });
$t->token(DENIED => $denied->url, SAYS => $says->url);

$n = $t->nginx('%%MAIN%% http { %%HTTP%% server { '
    . 'listen 127.0.0.1:%%PORT%%; s3_bucket bucket; '
    . 's3_credentials static testaccess testsecret; '
    . 'location /denied/ { s3_endpoint %%DENIED%%; s3_overwrite off; '
    . 's3_upload; } location /says/ { s3_endpoint %%SAYS%%; s3_upload; } } }');

is(curl($n->url("/$_/x"), file => $small)->{status}, 201, "$_: stored")
    for qw/ denied denied says says /;
is(scalar $denied->requests('head'), 3, 'the clock was tried once');
is(scalar $says->requests('put'), 3, 'corrected once');
