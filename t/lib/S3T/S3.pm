package S3T::S3;

# A small S3 client: what a test wants to know about a bucket, with a signature
# (SigV4) that shares no code with the module.

use strict;
use warnings;

use Digest::SHA qw/ hmac_sha256 hmac_sha256_hex sha256_hex /;
use HTTP::Tiny;
use POSIX qw/ strftime /;

# endpoint, bucket; key, secret, token, region, ca
sub new {
    my ($class, %o) = @_;
    return bless {
        key => 'testaccess', secret => 'testsecret', region => 'us-east-1', %o
    }, $class;
}

sub encode {
    my ($text, $keep) = @_;
    utf8::encode($text) if utf8::is_utf8($text);
    $keep = '' if !defined $keep;
    $text =~ s/([^A-Za-z0-9\-._~$keep])/sprintf '%%%02X', ord $1/ge;
    return $text;
}

# The url and the headers of a signed request. path is raw: /bucket/key
sub sign {
    my ($s, $method, $path, %o) = @_;
    my $uri = encode($path, '/');
    my $query = join '&', map { encode($_) . '=' . encode($o{query}{$_}) }
        sort keys %{$o{query} || {}};
    my ($host) = $s->{endpoint} =~ m{^https?://([^/]+)};
    my $time = strftime '%Y%m%dT%H%M%SZ', gmtime;
    my $service = $o{service} || 's3';
    my $scope = join '/', substr($time, 0, 8), $s->{region}, $service,
        'aws4_request';

    my %h = map { lc, $o{headers}{$_} } keys %{$o{headers} || {}};
    $h{'x-amz-date'} = $time;
    $h{'x-amz-content-sha256'} = $o{hash}
        || sha256_hex(defined $o{body} ? $o{body} : '');
    $h{'x-amz-security-token'} = $s->{token} if defined $s->{token};

    my %signed = (%h, host => $host);
    my $names = join ';', sort keys %signed;
    my $request = join "\n", $method, $uri, $query,
        (map { "$_:$signed{$_}" } sort keys %signed), '', $names,
        $h{'x-amz-content-sha256'};
    my $secret = 'AWS4' . $s->{secret};
    $secret = hmac_sha256($_, $secret) for split m{/}, $scope;
    my $signature = hmac_sha256_hex(join("\n", 'AWS4-HMAC-SHA256', $time,
        $scope, sha256_hex($request)), $secret);

    $h{authorization} = "AWS4-HMAC-SHA256 Credential=$s->{key}/$scope, "
        . "SignedHeaders=$names, Signature=$signature";

    return $s->{endpoint} . $uri . ($query ne '' ? "?$query" : ''), \%h;
}

# { status, headers, content } of HTTP::Tiny. o: query, headers, body
sub request {
    my ($s, $method, $path, %o) = @_;
    my ($url, $headers) = $s->sign($method, $path, %o);
    my $http = HTTP::Tiny->new(
        max_redirect => 0, keep_alive => 0, timeout => 60, verify_SSL => 1,
        SSL_options => { $s->{ca} ? (SSL_ca_file => $s->{ca}) : () },
        proxy => undef, http_proxy => undef, https_proxy => undef);
    return $http->request($method, $url, {
        headers => $headers,
        defined $o{body} ? (content => $o{body}) : (),
    });
}

sub path {
    my ($s, $key) = @_;
    return "/$s->{bucket}" . (defined $key ? "/$key" : '');
}

sub expect {
    my ($r, @status) = @_;
    return $r if grep { $r->{status} == $_ } @status;
    require Carp;
    Carp::croak("S3 answered $r->{status}: $r->{content}");
}

sub create_bucket {
    my ($s) = @_;
    expect($s->request('PUT', $s->path), 200);
}

sub put {
    my ($s, $key, $body, %headers) = @_;
    return expect($s->request('PUT', $s->path($key), body => $body,
        headers => \%headers), 200);
}

sub get {
    my ($s, $key) = @_;
    my $r = expect($s->request('GET', $s->path($key)), 200, 404);
    return $r->{status} == 200 ? $r->{content} : undef;
}

# the headers of an object, undef when there is none
sub head {
    my ($s, $key) = @_;
    my $r = expect($s->request('HEAD', $s->path($key)), 200, 404);
    return $r->{status} == 200 ? $r->{headers} : undef;
}

sub delete {
    my ($s, $key) = @_;
    expect($s->request('DELETE', $s->path($key)), 204);
}

# SHA-256 and size of what S3 holds, without loading it; () when there is no
# object. The size is that of the reply's head: a short body has another sum.
sub sha256 {
    my ($s, $key) = @_;
    my ($url, $headers) = $s->sign('GET', $s->path($key));
    my @command = ('curl', '-qsSf', '--noproxy', '*', '--globoff',
        '--path-as-is', $s->{ca} ? ('--cacert', $s->{ca}) : (),
        (map { ('-H', "$_: $headers->{$_}") } sort keys %$headers), $url);
    my $head = $s->head($key) or return ();
    open my $pipe, '-|', 'sh', '-c', '"$@" | openssl dgst -sha256 -r',
        'sh', @command or die "sh: $!";
    my $line = <$pipe>;
    close $pipe;
    my ($sum) = ($line || '') =~ /^([0-9a-f]{64})/;
    return ($sum, $head->{'content-length'});
}

sub unxml {
    my ($text) = @_;
    my %named = (lt => '<', gt => '>', amp => '&', quot => '"', apos => "'");
    $text =~ s/&#x([0-9A-Fa-f]+);/chr hex $1/ge;
    $text =~ s/&#(\d+);/chr $1/ge;
    $text =~ s/&(lt|gt|quot|apos|amp);/$named{$1}/g;
    return $text;
}

sub keys {
    my ($s, $prefix) = @_;
    my (@keys, $token);
    do {
        my $r = expect($s->request('GET', $s->path, query => {
            'list-type' => 2,
            defined $prefix ? (prefix => $prefix) : (),
            defined $token ? ('continuation-token' => $token) : (),
        }), 200, 404);
        push @keys, map { unxml($_) } $r->{content} =~ m{<Key>(.*?)</Key>}gs;
        ($token) = map { unxml($_) } $r->{content}
            =~ m{<NextContinuationToken>(.*?)</NextContinuationToken>};
    } while (defined $token);
    return @keys;
}

# [key, upload id] of each multipart upload that is open
sub uploads {
    my ($s) = @_;
    my $r = expect($s->request('GET', $s->path, query => { uploads => '' }),
        200, 404);
    return map {
        my ($key) = m{<Key>(.*?)</Key>}s;
        my ($id) = m{<UploadId>(.*?)</UploadId>}s;
        [unxml($key), unxml($id)];
    } $r->{content} =~ m{<Upload>(.*?)</Upload>}gs;
}

sub abort {
    my ($s, $key, $id) = @_;
    expect($s->request('DELETE', $s->path($key), query => { uploadId => $id }),
        204, 404);
}

# the bucket and all that is in it
sub remove {
    my ($s) = @_;
    $s->abort(@$_) for $s->uploads;
    $s->delete($_) for $s->keys;
    expect($s->request('DELETE', $s->path), 204, 404);
}

1;
