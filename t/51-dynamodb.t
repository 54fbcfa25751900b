#!/usr/bin/perl

# Records in DynamoDB: their form, their order, with whose keys they are signed,
# and what becomes of uploads while it is down, throttles, or has no table.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ hmac_sha256 hmac_sha256_hex sha256_hex /;
use JSON::PP ();
use List::Util qw/ uniq /;
use Test::More;
use Time::HiRes qw/ sleep time /;
use S3T;
use S3T::Fake qw/ hours_ahead /;
use S3T::Null;

# what becomes of objects is not looked at here
my $t = S3T->new(bucket => 0);
my $null = S3T::Null->new($t->dir);
my $s3 = 's3_credentials static testaccess testsecret;';
$t->token(NULL => $null->url, EXTRA => $s3, LOCATION => '');

my $conf = <<'EOC';
%%MAIN%%
http {
    %%HTTP%%
    s3_endpoint %%NULL%%;
    s3_bucket records;
    %%EXTRA%%
    s3_payload_signature off;
    s3_part_size 5m;
    s3_transfer_id $arg_id;
    s3_owner $arg_owner;
    s3_progress_dynamodb %%STORE%%;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /upload/ { %%LOCATION%% s3_upload; }
        location /crc/ { %%LOCATION%% s3_checksum crc32; s3_upload; }
        location /transfers/ { s3_status; }
    }
}
EOC

# an nginx whose records go there
sub instance {
    my ($store, %o) = @_;
    $t->token(STORE => $store, EXTRA => $o{extra} || $s3,
        LOCATION => $o{location} || '');
    return $t->nginx($conf, %o);
}

sub totals { curl($_[0]->url('/transfers/'))->{json}{totals} }
sub store_totals { totals($_[0])->{dynamodb} }

sub status {
    my ($n, $id) = @_;
    return curl($n->url("/transfers/$id"))->{json} || {};
}

my $id;
my $number = 0;
# items stay in the shared table
my $run = sprintf 'item-%011x', time * 1000;
sub new_id { $id = "$run-" . ++$number }

sub half {
    my ($n, $id, $size) = @_;
    my $c = $t->raw($n->port);
    $c->send("PUT /upload/$id?id=$id HTTP/1.1\r\nHost: t\r\n"
        . "Content-Length: $size\r\n\r\n" . 'x' x ($size / 2));
    wait_for { (status($n, $id)->{bytesTransferred} || 0) == $size / 2 }
        or die "$id: no half";
    return $c;
}

sub finish {
    my ($c, $size) = @_;
    $c->send('x' x ($size / 2));
    return $c->response->{status};
}

# the item of an id, once it is in that state
sub stored {
    my ($db, $id, $state, $timeout) = @_;
    my $item;
    wait_for {
        $item = $db->get_item($id);
        $item && ($item->{state} || '') eq ($state || 'completed')
    } $timeout, 0.1;
    return $item;
}

# each record, or a newer one in its place
sub written {
    my ($r) = @_;
    return $r->{records} == $r->{writes} - $r->{errors} + $r->{replaced};
}

sub fits {
    my ($n, $name) = @_;
    my $r;
    ok((wait_for { written($r = store_totals($n)) }), "$name: records, writes and replaced fit") or diag explain $r;
    is($r->{dropped}, 0, 'none is dropped');
    return $r;
}

# what the JSON record has and the item must have
sub public {
    my ($item) = @_;
    my %copy = %$item;
    delete @copy{qw/ owner ttl /};
    return \%copy;
}

sub known {
    my ($json) = @_;
    return { map { $_ => "$json->{$_}" } grep { defined $json->{$_} }
        keys %$json };
}

sub lines {
    my ($n) = @_;
    return grep { /dynamodb/ } split /\n/, $n->log;
}

sub down { scalar grep { /dynamodb store is down/ } lines($_[0]) }

# an outage has one line, and its end
sub outages {
    my ($n, $count, $name) = @_;
    my @lines = lines($n);
    is(down($n), $count, "$name: a line for the outage");
    is(scalar(grep { /store is up again/ } @lines), $count, 'and for its end');
    is(scalar @lines, 2 * $count, 'no other') or diag join "\n", @lines;
}

# seconds since the epoch of a record's time
sub epoch {
    my ($text) = @_;
    require Time::Local;
    my @n = $text =~ /^(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)/ or return 0;
    return Time::Local::timegm($n[5], $n[4], $n[3], $n[2], $n[1] - 1, $n[0]);
}


my $db = $t->dynamodb;
my $n = instance('%%DYNAMODB%% table=%%TABLE%%');

subtest 'the record' => sub {
    new_id();
    my $key = qq{crc/a "quoted" \\ \xc3\xbc \xe2\x82\xac\xf0\x9f\x98\x80};
    my $path = $key =~ s{([^A-Za-z0-9/])}{sprintf '%%%02X', ord $1}ger;
    my $r = curl($n->url("/$path?id=$id&owner=me"), file => data(12 * MB));
    is($r->{status}, 201, 'stored');
    my $item = stored($db, $id);
    is_deeply($item && public($item), known($r->{json}),
        'all fields are the answer');
    is($item->{owner}, 'me', 'the owner is in the store');
    my $chars = $key;
    utf8::decode($chars);
    is($item->{key}, $chars, 'the key');
    my %type = map { my ($type) = keys %{$db->item($id)->{$_}}; ($_ => $type) }
        keys %$item;
    is_deeply(\%type, {
        (map { $_ => 'N' } qw/ attempt sequence bytesTransferred bytesStored
            totalBytes percentage storedPercentage partsStored rate ttl /),
        (map { $_ => 'S' } qw/ transferId state direction bucket key startedAt
            updatedAt expiresAt etag crc32 owner /) }, 'types');
    my $ttl = epoch($item->{expiresAt});
    ok($item->{ttl} == $ttl || $item->{ttl} == $ttl + 1,
        'ttl is the end of its life');
    is($ttl - epoch($item->{updatedAt}), 24 * 3600, 'a day');

    new_id();
    my $c = $t->raw($n->port);
    $c->send("PUT /upload/b?id=$id HTTP/1.1\r\nHost: t\r\n"
        . "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    $item = stored($db, $id, 'active');
    is_deeply([sort keys %$item], [sort qw/ transferId attempt sequence state
        direction bucket key bytesTransferred bytesStored percentage
        storedPercentage partsStored rate startedAt updatedAt expiresAt ttl /],
        'of one that has begun: unknown values are absent');
    $c->close;
    $item = stored($db, $id, 'aborted');
    is_deeply(public($item), known(status($n, $id)), 'one that was aborted');
    ok(length $item->{error}, 'has an error');
    is(fits($n, 'both')->{errors}, 0, 'no errors');
};

subtest 'the newer record stays' => sub {
    my $size = 200_000;
    my %greater = (attempt => { N => '9000000000000' }, sequence => { N => '1' },
        mark => { S => 'greater' });
    new_id();
    my $first = { %greater, transferId => { S => $id } };
    $db->put_item($first);
    is(curl($n->url("/upload/d?id=$id"), body => 'x')->{status}, 201,
        'an upload whose id has a greater attempt');
    $first->{id} = $id;

    new_id();
    my $second = $id;
    my $c = half($n, $id, $size);
    stored($db, $id, 'active');
    fits($n, 'nothing on its way');
    $db->put_item({ %{$db->item($id)}, sequence => { N => '1000' },
        mark => { S => 'ahead' } });
    is(finish($c, $size), 201, 'one whose sequence is behind');

    new_id();
    $c = half($n, $id, $size);
    my $begun = stored($db, $id, 'active');
    fits($n, 'nothing on its way');
    $db->put_item({ %{$db->item($id)}, mark => { S => 'behind' },
        error => { S => 'none' } });
    is(finish($c, $size), 201, 'one that is ahead');
    my $item = stored($db, $id);
    is_deeply(public($item), known(status($n, $id)),
        'it replaces the former record whole');
    is($item->{attempt}, $begun->{attempt}, 'of the same attempt');

    my $totals = fits($n, 'an older record is no error');
    is($totals->{errors}, 0, 'indeed');
    my $former = delete $first->{id};
    is_deeply($db->item($former), $first, 'a greater attempt stays as it is');
    $item = $db->get_item($second);
    is_deeply([@$item{qw/ sequence mark state /}], [1000, 'ahead', 'active'],
        'a greater sequence, too');
    is(down($n), 0, 'no line');

    new_id();
    $db->put_item({ transferId => { S => $id }, other => { S => 'x' } });
    my $r = curl($n->url("/upload/e?id=$id"), body => 'x');
    is_deeply(public(stored($db, $id)), known($r->{json}),
        'an item without an order is replaced');
};

subtest 'at most one a percent' => sub {
    new_id();
    my $before = store_totals($n);
    # at a pace that DynamoDB keeps up with: four percent, and what that made
    # is written
    my $c = $t->raw($n->port);
    $c->send("PUT /upload/f?id=$id HTTP/1.1\r\nHost: t\r\nContent-Length: "
        . 100 * MB . "\r\n\r\n");
    for (1 .. 25) {
        $c->send('x' x (4 * MB));
        wait_for { status($n, $id)->{bytesTransferred} == $_ * 4 * MB
            && written(store_totals($n)) };
    }
    my $r = $c->response(60);
    $r->{json} = JSON::PP->new->utf8->decode($r->{body});
    is($r->{status}, 201, '100 MiB');
    is_deeply(public(stored($db, $id)), known($r->{json}), 'the record');
    my $after = fits($n, 'totals');
    cmp_ok($after->{writes} - $before->{writes}, '<=', 103, 'writes');
    cmp_ok($after->{writes} - $before->{writes}, '>=', 25, 'not much less');
    is($after->{records} - $before->{records}, $r->{json}{sequence},
        'records');
    is($after->{up}, 1, 'up');
};


# What is sent, and with whose keys.

# a request's signature, by keys that the test knows
sub signature {
    my ($r, $secret, $scope) = @_;
    my ($names) = $r->{headers}{authorization} =~ /SignedHeaders=([^,]+)/;
    my $request = join "\n", 'POST', '/', '',
        (map { "$_:$r->{headers}{$_}" } split /;/, $names), '', $names,
        sha256_hex(Encode::encode_utf8($r->{body}));
    my $key = "AWS4$secret";
    $key = hmac_sha256($_, $key) for split m{/}, $scope;
    return hmac_sha256_hex(join("\n", 'AWS4-HMAC-SHA256',
        $r->{headers}{'x-amz-date'}, $scope, sha256_hex($request)), $key);
}

# key and scope of the requests of an instance's upload
sub signs {
    my ($name, $fake, $store, %o) = @_;
    $t->secret($o{secret});
    my $i = instance($store, %o);
    new_id();
    is(curl($i->url("/upload/g?id=$id"), body => 'x')->{status}, 201, $name);
    ok((wait_for { grep { ($_->{body} || '') =~ /$id.*"completed"/s }
        $fake->requests('PutItem') }), 'records are sent');
    my ($r) = grep { ($_->{body} || '') =~ /$id/ } $fake->requests('PutItem');
    my ($key, $day, $scope, $signature) = $r->{headers}{authorization} =~
        m{^AWS4-HMAC-SHA256\ Credential=([^/]+)/(\d+)/([^,]+),.*
            Signature=([0-9a-f]{64})$}x;
    is($key, $o{key}, 'the key');
    is($scope, "$o{region}/dynamodb/aws4_request", 'the scope');
    is(substr($r->{headers}{'x-amz-date'}, 0, 8), $day, 'of today');
    is($signature, signature($r, $o{secret}, "$day/$scope"), 'the signature');
    is($r->{headers}{'x-amz-security-token'}, $o{token}, 'the token');
    if ($o{token}) {
        like($r->{headers}{authorization}, qr/x-amz-security-token/,
            'is signed');
    }
    $i->quit;
    return $r;
}

subtest 'keys' => sub {
    require Encode;
    my $fake = $t->fake;
    my $own = 's3_progress_dynamodb_credentials static DYNKEY dynsecret;';

    my $r = signs('of its own', $fake, $fake->url . ' table=t',
        extra => "$s3 $own", key => 'DYNKEY', secret => 'dynsecret',
        region => 'us-east-1');
    is($r->{headers}{'content-type'}, 'application/x-amz-json-1.0', 'type');
    is($r->{headers}{'x-amz-target'}, 'DynamoDB_20120810.PutItem', 'target');
    is($r->{method}, 'POST', 'method');
    is($r->{path}, '/', 'path');
    is(JSON::PP->new->decode($r->{body})->{TableName}, 't', 'table');

    signs('with a token', $fake, $fake->url . ' table=t',
        extra => "$s3 s3_progress_dynamodb_credentials static TOKKEY"
            . ' toksecret toktoken;', key => 'TOKKEY', secret => 'toksecret',
        token => 'toktoken', region => 'us-east-1');
    $t->secret('toktoken');

    signs('http level', $fake, $fake->url . ' table=t region=eu-north-1',
        extra => 's3_credentials static HTTPKEY httpsecret;',
        key => 'HTTPKEY', secret => 'httpsecret', region => 'eu-north-1');

    signs('not those of a location', $fake, $fake->url . ' table=t',
        extra => ' ', location => $s3, env => {
            AWS_ACCESS_KEY_ID => 'ENVKEY', AWS_SECRET_ACCESS_KEY => 'envsecret',
            AWS_SESSION_TOKEN => 'envtoken' },
        key => 'ENVKEY', secret => 'envsecret', token => 'envtoken',
        region => 'us-east-1');
    $t->secret('envtoken');

    my $file = write_file($t->dir . '/credentials', "[default]\n"
        . "aws_access_key_id = NO\naws_secret_access_key = nosecret\n"
        . "[dyn]\naws_access_key_id = FILEKEY\n"
        . "aws_secret_access_key = filesecret\n");
    chmod 0600, $file;
    signs('a file', $fake, $fake->url . ' table=t',
        extra => "$s3 s3_progress_dynamodb_credentials file $file"
            . ' profile=dyn;', key => 'FILEKEY', secret => 'filesecret',
        region => 'us-east-1');

    # a region of the endpoint's name, which a name server knows
    my $dns = $t->dns('dynamodb.eu-west-3.amazonaws.com' => ['127.0.0.1']);
    my $resolver = 'resolver ' . $dns->address . ' ipv6=off;';
    signs('region of the name', $fake,
        "http://dynamodb.eu-west-3.amazonaws.com:$fake->{port} table=t",
        extra => "$s3 $own $resolver", key => 'DYNKEY', secret => 'dynsecret',
        region => 'eu-west-3');
    signs('another one', $fake,
        "http://dynamodb.eu-west-3.amazonaws.com:$fake->{port} table=t"
        . ' region=us-gov-west-1', extra => "$s3 $own $resolver",
        key => 'DYNKEY', secret => 'dynsecret', region => 'us-gov-west-1');
    $dns->stop;
    $fake->stop;

    # over TLS, as the system's certificates go
    my $secure = $t->fake(cert => $t->certs . '/server.pem',
        key => $t->certs . '/server.key');
    signs('TLS', $secure, "https://localhost:$secure->{port} table=t",
        extra => "$s3 $own", env => { SSL_CERT_FILE => $t->ca },
        key => 'DYNKEY', secret => 'dynsecret', region => 'us-east-1');
    my $i = instance("https://localhost:$secure->{port} table=t");
    new_id();
    is(curl($i->url("/upload/g?id=$id"), body => 'x')->{status}, 201,
        'an authority that is not trusted: stored all the same');
    ok((wait_for { down($i) }), 'an outage');
    like($i->log, qr/\[warn\].*dynamodb store is down: .*certificate/, 'why');
    $i->stop;
    $secure->stop;
};

subtest 'configuration' => sub {
    my $test = sub {
        my ($name, $store, $extra, $said, %o) = @_;
        my ($status, $text) = instance($store, extra => $extra, start => 0, %o)
            ->test_conf($conf);
        is($status == 0 ? 1 : 0, $said ? 0 : 1, $name) or diag $text;
        like($text, qr/\[emerg\].*$said/, 'says why') if $said;
    };
    my $url = 'http://127.0.0.1:1';
    $test->('no keys', "$url table=t", ' ',
        qr/no credentials for "s3_progress_dynamodb": .*AWS_ACCESS_KEY_ID/,
        location => $s3);
    $test->('half of the keys', "$url table=t", ' ', qr/AWS_SECRET_ACCESS_KEY/,
        location => $s3, env => { AWS_ACCESS_KEY_ID => 'x' });
    $test->('keys of the environment', "$url table=t", ' ', undef,
        location => $s3, env => { AWS_ACCESS_KEY_ID => 'x',
            AWS_SECRET_ACCESS_KEY => 'x' });
    $test->('a file that is not there', "$url table=t",
        "$s3 s3_progress_dynamodb_credentials file /no/such/file;",
        qr{/no/such/file});
    $test->('no table', $url, $s3, qr/table=/);
    $test->('an empty one', "$url table=", $s3, qr/table=/);
    $test->('a bad one', "$url 'table=a b'", $s3, qr/table=/);
    $test->('an unknown parameter', "$url table=t x=y", $s3,
        qr/invalid parameter "x=y"/);
    $test->('ttl', "$url table=t ttl=1s", $s3, qr/ttl/);
    $test->('a region', "$url table=t 'region=a b'", $s3, qr/invalid region=/);
    $test->('no URL', 'dynamodb table=t', $s3, qr/invalid URL/);
    $test->('an ARN', "$url table=arn:aws:dynamodb:us-east-1:1:table/t ttl=1h",
        $s3, undef);
    $test->('off', 'off', ' ', undef, location => $s3);
};


# Outages.

subtest 'down at start' => sub {
    my $own = $t->own_dynamodb;
    $own->stop;
    my $o = instance("http://127.0.0.1:$own->{port} table=transfers ttl=1h");
    my @ids;
    for my $k (1 .. 3) {
        push @ids, new_id();
        my $r = curl($o->url("/upload/down?id=$id"), file => data($k * 4 * MB));
        is($r->{status}, 201, "stored, $k");
        cmp_ok($r->{seconds}, '<', 30, 'and not much slower');
    }
    my $c = half($o, new_id(), 200_000);
    my $r = store_totals($o);
    is($r->{up}, 0, 'totals: not up');
    cmp_ok($r->{replaced}, '>', 0, 'newer records replace older ones');
    cmp_ok($r->{writes}, '<', 25, 'few tries');
    is(down($o), 1, 'one line tells of it');
    like($o->log, qr/\[warn\].*dynamodb store is down: .*refused.*, host: http/,
        'why, and where');

    $own->start;
    for my $k (0 .. 2) {
        my $item = stored($own, $ids[$k], undef, 60);
        is_deeply($item && public($item), known(status($o, $ids[$k])),
            'the terminal record arrives');
        is(epoch($item->{expiresAt}) - epoch($item->{updatedAt}), 3600,
            'its ttl, since it was made');
    }
    ok(stored($own, $id, 'active'), 'that of one under way, too');

    # and once more, in the middle
    $own->stop('KILL');
    is(curl($o->url('/upload/x'), body => 'x')->{status}, 201, 'meanwhile');
    is(finish($c, 200_000), 201, 'it ends well without');
    ok((wait_for { down($o) == 2 }), 'another line');
    $own->start;
    my $item = stored($own, $id, undef, 60);
    is_deeply($item && public($item), known(status($o, $id)),
        'the terminal record arrives');
    is(fits($o, 'afterwards')->{up}, 1, 'up');
    outages($o, 2, 'down');
    $o->quit;
    $own->stop;
};

# an answer of DynamoDB's
sub answer {
    my ($type, $message, $status) = @_;
    return { status => $status || 400, body => JSON::PP->new->encode({
        __type => "com.amazonaws.dynamodb.v20120810#$type",
        message => $message }) };
}

subtest 'throttling' => sub {
    my $slower = answer('ProvisionedThroughputExceededException',
        'The level of configured provisioned throughput was exceeded.');
    my $fake = $t->fake(on => { PutItem => [ ($slower) x 3 ] });
    my $o = instance($fake->url . ' table=t');
    new_id();
    my $r = curl($o->url("/upload/t?id=$id"), file => data(10 * MB),
        rate => '10M');
    is($r->{status}, 201, 'stored');
    cmp_ok($r->{seconds}, '<', 20, 'in its time');
    my @last;
    ok((wait_for { @last = grep { /"completed"/ } map { $_->{body} || '' }
        $fake->requests('PutItem') } 60), 'the terminal record arrives');
    my $item = JSON::PP->new->decode($last[-1])->{Item};
    my %plain = map { $_ => (values %{$item->{$_}})[0] } keys %$item;
    is_deeply(public(\%plain), known($r->{json}), 'as it was answered');
    my $totals = fits($o, 'totals');
    is($totals->{errors}, 3, 'three errors');
    is($totals->{up}, 1, 'up');
    like($o->log, qr/store is down: status 400, ProvisionedThroughputExceeded/,
        'the log tells why');
    outages($o, 1, 'three in a row');
    $o->quit;
    $fake->stop;

    # every fifth is refused, for ever
    my $often = S3T::Null->new($t->dir, '--throttle', 5);
    $o = instance($often->url . ' table=t');
    my @ids = map { new_id() } 1 .. 3;
    my @c = map { curl_start($o->url("/upload/t?id=$_"), file => data(20 * MB),
        rate => '20M') } @ids;
    is_deeply([uniq map { $_->wait->{status} } @c], [201], 'all stored');
    $totals = fits($o, 'every fifth');
    cmp_ok($totals->{errors}, '>', 1, 'some are refused');
    # a write that was refused goes on after the answer of its upload
    my $refused;
    wait_for {
        $refused = $often->stats->{dynamodb_throttled};
        $totals = store_totals($o);
        $refused == $totals->{errors}
    };
    is($totals->{errors}, $refused, 'as many as were');
    cmp_ok(scalar(grep { /\[warn\]/ } lines($o)), '<=', 5,
        'a few warnings for many outages');
    $o->quit;
    $often->stop;
};

subtest 'errors' => sub {
    my $o = instance('%%DYNAMODB%% table=not-there');
    my @ids = map { new_id() } 1 .. 3;
    for (@ids) {
        is(curl($o->url("/upload/n?id=$_"), body => 'x')->{status}, 201,
            'stored without a table');
    }
    ok((wait_for { down($o) }), 'a line');
    like($o->log, qr/store is down: status 400, ResourceNotFoundException/,
        'names the cause');
    sleep 1;
    is(scalar lines($o), 1, 'one line alone');
    is(store_totals($o)->{up}, 0, 'not up');
    cmp_ok(store_totals($o)->{writes}, '<', 12,
        'it is asked ever more rarely');
    $o->stop;

    # whatever it says, uploads go on, and one line tells of it
    $t->secret('said-session-token');
    my %how = (
        'AccessDeniedException' => [answer('AccessDeniedException',
            'User is not authorized'), qr/AccessDenied.*not authorized/],
        'InvalidSignatureException' => [answer('InvalidSignatureException',
            'The signature of x-amz-security-token:said-session-token'),
            qr/InvalidSignatureException, host/],
        '500' => [answer('InternalServerError', 'sorry', 500),
            qr/status 500, InternalServerError: sorry/],
        'text' => [{ status => 200, body => 'hello' },
            qr/not an answer of DynamoDB's/],
        'empty' => [{ status => 200, body => '' },
            qr/not an answer of DynamoDB's/],
        'no JSON' => [{ status => 200, body => '{"a":' },
            qr/not an answer of DynamoDB's/],
        'an error' => [answer('InternalFailure', 'sorry', 200),
            qr/not an answer of DynamoDB's/],
        'HTML' => [{ status => 503, body => '<html>' }, qr/status 503, host/],
        'garbage' => [{ raw => "\0\1\2\r\n\r\n", close => 'after' }, qr/./],
        'huge' => [{ status => 200, body => '{"a":"' . 'x' x 700_000 . '"}' },
            qr/large/],
        'lines' => [answer('X', "a\r\n2026/01/01 [info] b"),
            qr/a  2026.*b, host/],
    );
    for my $name (sort keys %how) {
        my $fake = $t->fake(on => { PutItem => $how{$name}[0] });
        my $i = instance($fake->url . ' table=t');
        new_id();
        is(curl($i->url("/upload/n?id=$id"), body => 'x')->{status}, 201,
            "$name: stored");
        ok((wait_for { down($i) }), 'an outage');
        like((lines($i))[0], qr/\[warn\].*store is down: .*$how{$name}[1]/,
            'which says why');
        wait_for { $fake->begun('PutItem') > 1 } 0.6;
        is(scalar lines($i), 1, 'one line');
        $i->stop;
        $fake->stop;
    }
};

subtest 'a clock' => sub {
    # DynamoDB's is an hour ahead
    my $ahead = sub {
        my ($r) = @_;
        require POSIX;
        my $date = POSIX::strftime('%a, %d %b %Y %H:%M:%S GMT',
            gmtime time + 3600);
        return { headers => { Date => $date } } if hours_ahead($r) == 1;
        return { %{answer('InvalidSignatureException',
            'Signature expired')}, headers => { Date => $date } };
    };
    my $fake = $t->fake(on => { PutItem => $ahead });
    my $o = instance($fake->url . ' table=t');
    new_id();
    is(curl($o->url("/upload/n?id=$id"), body => 'x')->{status}, 201, 'stored');
    ok((wait_for { store_totals($o)->{up} == 1 }), 'signed by its clock');
    is(fits($o, 'totals')->{errors}, 0, 'not an error');
    is(down($o), 0, 'not an outage');
    like($o->log, qr/\[warn\].*3[56]\d\d s off/, 'the log tells');
    $o->quit;
    $fake->stop;
};

subtest 'silent' => sub {
    my $fake = $t->fake(on => { PutItem => [ { delay => 60 } ] });
    my $o = instance($fake->url . ' table=t');
    new_id();
    # (all of it long before 5 s are over)
    my $r = curl($o->url("/upload/s?id=$id"), file => data(20 * MB));
    is($r->{status}, 201, 'stored');
    my $totals = store_totals($o);
    is($totals->{writes}, 1, 'one write is in flight');
    is($totals->{replaced}, $totals->{records} - 2, 'the rest is replaced');
    ok((wait_for { down($o) } 30), 'after 5 s it is an outage');
    ok((wait_for { grep { ($_->{body} || '') =~ /"completed"/ }
        $fake->requests('PutItem') }), 'then the terminal record goes');
    is(fits($o, 'totals')->{errors}, 1, 'one error');
    outages($o, 1, 'silence');
    $o->quit;
    $fake->stop;
};
