#!/usr/bin/perl

# Where keys and region come from: the configuration, the environment, files;
# that S3 sees them, signed, and that nginx -t names what is missing.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ hmac_sha256 hmac_sha256_hex sha256_hex /;
use Test::More;
use S3T;

my $t = S3T->new;
my $fake = $t->fake;
my $dir = $t->dir;
$t->token(FAKE => $fake->url, FILES => $dir);
$t->secret(qw/ StaticSecret+a StaticSecret+b TokenOfStatic EnvSecret EnvToken
    FileSecret+d FileSecret+p FileToken HomeSecret HomeWorkSecret SharedSecret
    DynamoSecret wrongsecret ConfigSecret TokenOf /);

# [ header, body ] of the one request for a key
sub seen {
    my ($key) = @_;
    return wait_for {
        my ($r) = grep { $_->{path} =~ m{/\Q$key\E$} } $fake->requests;
        $r;
    };
}

# SigV4, from what the fake S3 saw and what it should know
sub signature {
    my ($r, $secret) = @_;
    my $h = $r->{headers};
    my ($scope, $names) = $h->{authorization} =~
        m{^AWS4-HMAC-SHA256\ Credential=[^/]+/(\S+),
        \ SignedHeaders=(\S+),\ Signature=[0-9a-f]{64}$}x;
    my $request = join "\n", $r->{method}, $r->{path},
        join('&', map { S3T::S3::encode($_) . '='
            . S3T::S3::encode($r->{query}{$_}) } sort keys %{$r->{query}}),
        (map { "$_:$h->{$_}" } split /;/, $names), '', $names,
        $h->{'x-amz-content-sha256'};
    my $key = "AWS4$secret";
    $key = hmac_sha256($_, $key) for split m{/}, $scope;
    return hmac_sha256_hex(join("\n", 'AWS4-HMAC-SHA256', $h->{'x-amz-date'},
        $scope, sha256_hex($request)), $key);
}

# uploads, and looks at who signed it, for which region
sub check {
    my ($name, $n, $path, %o) = @_;
    my $r = curl($n->url($path), body => 'x');
    is($r->{status}, 201, "$name: stored") or diag explain $r;
    my $seen = seen(substr $path, 1);
    my $authorization = $seen->{headers}{authorization};
    my ($key, $region) = $authorization =~
        m{Credential=([^/]+)/\d{8}/([^/]+)/s3/aws4_request};
    is("$key $region", "$o{key} " . ($o{region} || 'us-east-1'),
        "$name: key and region");
    is($authorization =~ s/.*Signature=//r, signature($seen, $o{secret}),
        "$name: signature");
    is($seen->{headers}{'x-amz-security-token'}, $o{token}, "$name: token");
    my ($names) = $authorization =~ /SignedHeaders=(\S+),/;
    is(scalar($names =~ /x-amz-security-token/), defined $o{token} ? 1 : '',
        "$name: the token is signed");
}

write_file("$dir/credentials", <<'EOF');
# a comment
[default]
aws_access_key_id = FILED
aws_secret_access_key = FileSecret+d
[  work ]
aws_access_key_id=FILEP
aws_secret_access_key=FileSecret+p
aws_session_token = FileToken/==
region = eu-west-9
[half]
aws_access_key_id = FILEH
[region]
region = eu-west-8
EOF
write_file("$dir/twice", "[default]\naws_access_key_id = a\n"
    . "aws_access_key_id = b\naws_secret_access_key = FileSecret+d\n");
write_file("$dir/long", "[default]\naws_access_key_id = a\n"
    . 'aws_secret_access_key = FileSecret+d' . 'x' x 300 . "\n");
write_file("$dir/nonsense", "[default\nFileSecret+d\n");
write_file("$dir/binary", "[default]\n\0FileSecret+d\n");
write_file("$dir/spaces", "[default]\naws_access_key_id = a b\n"
    . "aws_secret_access_key = FileSecret+d\n");
write_file("$dir/empty", '');
mkdir "$dir/home";
mkdir "$dir/home/.aws";
write_file("$dir/home/.aws/credentials", <<'EOF');
[default]
aws_access_key_id = HOME
aws_secret_access_key = HomeSecret
[work]
aws_access_key_id = HOMEWORK
aws_secret_access_key = HomeWorkSecret
EOF
write_file("$dir/home/.aws/config", <<'EOF');
[default]
region = home-region-1
[profile work]
region = work-region-1
[profile alone]
aws_access_key_id = CONFIG
aws_secret_access_key = ConfigSecret
EOF
write_file("$dir/shared", <<'EOF');
[default]
aws_access_key_id = SHARED
aws_secret_access_key = SharedSecret
EOF
chmod 0600, glob "$dir/credentials $dir/home/.aws/* $dir/shared";

my $server = <<'EOF';
%%MAIN%%
http {
    %%HTTP%%
    s3_endpoint %%FAKE%%;
    s3_bucket bucket;
    s3_part_size 5m;
    server {
        listen 127.0.0.1:%%PORT%%;
        HERE
    }
}
EOF

sub server { return $server =~ s/HERE/$_[0]/r }

subtest 'static' => sub {
    my $n = $t->nginx(server(<<'EOF'), env => { AWS_ACCESS_KEY_ID => 'WRONG',
        s3_credentials static KEYA StaticSecret+a;
        location /static/a { s3_upload; }
        location /static/b {
            s3_credentials static KEYB StaticSecret+b TokenOfStatic/+==;
            s3_region eu-south-7;
            s3_upload;
        }
EOF
        AWS_SECRET_ACCESS_KEY => 'wrongsecret' });
    check('no token', $n, '/static/a', key => 'KEYA',
        secret => 'StaticSecret+a');
    check('a token and a region', $n, '/static/b', key => 'KEYB',
        secret => 'StaticSecret+b', token => 'TokenOfStatic/+==',
        region => 'eu-south-7');

    my $d = data(11 * MB);
    my $r = curl($n->url('/static/b/parts'), file => $d);
    is($r->{status}, 201, 'in parts');
    wait_for { (grep { $_->{path} =~ /parts$/ } $fake->requests) >= 5 };
    my %ops;
    for (grep { $_->{path} =~ /parts$/ } $fake->requests) {
        $ops{$_->{op}}++;
        is($_->{headers}{'x-amz-security-token'}, 'TokenOfStatic/+==',
            "$_->{op}: token");
        is($_->{headers}{authorization} =~ s/.*Signature=//r,
            signature($_, 'StaticSecret+b'), "$_->{op}: signature");
    }
    is_deeply([sort keys %ops], [qw/ complete create part /], 'all calls');
};

subtest 'env' => sub {
    my %env = (AWS_ACCESS_KEY_ID => 'ENVKEY',
        AWS_SECRET_ACCESS_KEY => 'EnvSecret');
    my $n = $t->nginx(server('location /env/a { s3_upload; }
        location /env/b { s3_credentials env; s3_upload; }'), env => \%env);
    check('by default', $n, '/env/a', key => 'ENVKEY', secret => 'EnvSecret');
    check('said', $n, '/env/b', key => 'ENVKEY', secret => 'EnvSecret');
    ok($n->reload, 'reload');
    check('after it', $n, '/env/a/reloaded', key => 'ENVKEY',
        secret => 'EnvSecret');

    my $tokened = $t->nginx(server('location / { s3_upload; }'),
        env => { %env, AWS_SESSION_TOKEN => 'EnvToken' });
    check('with a token', $tokened, '/env/token', key => 'ENVKEY',
        secret => 'EnvSecret', token => 'EnvToken');
};

subtest 'file' => sub {
    my $n = $t->nginx(server(<<'EOF'), env => { HOME => '/nonexistent' });
        location /file/a {
            s3_credentials file %%FILES%%/credentials; s3_upload;
        }
        location /file/p {
            s3_credentials file %%FILES%%/credentials profile=work; s3_upload;
        }
        location /file/order {
            s3_credentials file profile=work %%FILES%%/credentials; s3_upload;
        }
        location /file/region {
            s3_credentials file %%FILES%%/credentials profile=work;
            s3_region us-west-3;
            s3_upload;
        }
        location /file/relative {
            s3_credentials file ../credentials; s3_upload;
        }
EOF
    my %d = (key => 'FILED', secret => 'FileSecret+d');
    my %p = (key => 'FILEP', secret => 'FileSecret+p', token => 'FileToken/==',
        region => 'eu-west-9');
    check('default', $n, '/file/a', %d);
    check('a profile', $n, '/file/p', %p);
    check('in another order', $n, '/file/order', %p);
    check('s3_region wins', $n, '/file/region', %p, region => 'us-west-3');
    check('a relative path', $n, '/file/relative', %d);
};

# %%FILES%%/rotated-NAME gets other keys
sub rotate {
    my ($name, $key, $end) = @_;
    return write_file("$dir/rotated-$name", "[default]\n"
        . "aws_access_key_id = $key\n"
        . "aws_secret_access_key = FileSecret+$key\n"
        . "aws_session_token = TokenOf$key" . ($end // "\n"));
}

# An upload outlasts its keys: those of the file are read by the worker itself
subtest 'a file whose keys change' => sub {
    my $bad = sub { write_file("$dir/bad", join ' ', map { "TokenOf$_" } @_) };
    my $judge = sub {
        my $token = $_[0]{headers}{'x-amz-security-token'} || 'none';
        return {} if !grep { $_ eq $token } split / /, read_file("$dir/bad");
        return { status => 400,
            body => '<Error><Code>ExpiredToken</Code></Error>' };
    };
    my $s3 = $t->fake(on => { map { $_ => $judge }
        qw/ put create part complete abort / });
    $t->token(ROTATED => $s3->url);

    my @files = qw/ good same half keys rights /;
    $bad->();
    rotate($_, 'A') for @files;
    my $n = $t->nginx(server('s3_endpoint %%ROTATED%%; ' . join '', map {
        "location /$_/ { s3_credentials file %%FILES%%/rotated-$_; s3_upload; }"
        } @files));
    my $d = data(11 * MB);
    my $body = read_file($d->{path});
    my $tokens = sub { join ' ', map { $_->{headers}{'x-amz-security-token'}
        =~ s/TokenOf//r } $s3->requests(@_) };

    my $raw = $t->raw($n->port);
    $raw->send("PUT /good/x HTTP/1.1\r\nHost: x\r\n"
        . "Content-Length: $d->{size}\r\n\r\n" . substr $body, 0, 6 * MB);
    wait_for { $s3->requests('part') == 1 };
    rotate('good', 'B');
    $bad->('A');
    ok($n->reload, 'a reload, as is usual; the upload stays in its worker');
    $raw->send(substr $body, 6 * MB);
    is(($raw->response(20) || {})->{status}, 201, 'stored');
    like($tokens->('part'), qr/^A (?:A B B|A A B B|A B A B)$/, 'parts');
    is($tokens->('complete'), 'B', 'and the end');
    my %signed = map { $_->{headers}{'x-amz-security-token'} => $_ }
        $s3->requests('part');
    is($signed{"TokenOf$_"}{headers}{authorization} =~ s/.*Signature=//r,
        signature($signed{"TokenOf$_"}, "FileSecret+$_"), "$_: signature")
        for qw/ A B /;
    like($n->log, qr/\[notice\].*there are others in "\S+rotated-good"/,
        'it is told');

    rotate('good', 'C');
    $bad->(qw/ A B /);
    is(curl($n->url('/good/y'), body => 'x')->{status}, 201,
        'without a reload');
    is($tokens->('put'), 'B C', 'C at the second try');

    rotate('config', 'A');
    my $m = $t->nginx(server('s3_endpoint %%ROTATED%%; '
        . 'location / { s3_credentials file; s3_upload; }'),
        env => { AWS_SHARED_CREDENTIALS_FILE => "$dir/nonexistent",
            AWS_CONFIG_FILE => "$dir/rotated-config" });
    rotate('config', 'C');
    is(curl($m->url('/config/x'), body => 'x')->{status}, 201,
        'those that the config file alone has');
    like($m->log, qr/there are others in "\S+rotated-config"/, 'which it is');

    # what cannot be used is not
    utime time, time + 60, rotate('half', 'D', '');
    write_file("$dir/rotated-keys", "[default]\naws_access_key_id = D\n");
    chmod 0600, rotate('rights', 'D');
    my %why = (same => '', half => ' \(it is being written\)',
        keys => ' \(secret key is empty, .*\)',
        rights => ' \(the worker cannot read it\)');
    delete $why{rights} if $>;       # then it is the worker's own file
    for (sort keys %why) {
        $t->expect_errors(qr{s3 PutObject failed: 400 ExpiredToken.*"$_/x"});
        my $r = curl($n->url("/$_/x"), body => 'x');
        is("$r->{status} $r->{json}{error}", '502 ExpiredToken', $_);
        like($n->log, qr/\[warn\].* no others in "\S+rotated-$_"$why{$_} while/,
            "$_: why");
    }
};

subtest 'file, where it is by default' => sub {
    my $conf = server('location / { s3_credentials file; s3_upload; }');
    my %home = (HOME => "$dir/home");
    my $none = "$dir/nonexistent";
    for (['HOME', { %home }, key => 'HOME', secret => 'HomeSecret',
            region => 'home-region-1'],
        ['AWS_PROFILE', { %home, AWS_PROFILE => 'work' }, key => 'HOMEWORK',
            secret => 'HomeWorkSecret', region => 'work-region-1'],
        ['AWS_SHARED_CREDENTIALS_FILE', { HOME => $none,
            AWS_SHARED_CREDENTIALS_FILE => "$dir/shared" }, key => 'SHARED',
            secret => 'SharedSecret'],
        ['AWS_CONFIG_FILE', { HOME => $none,
            AWS_SHARED_CREDENTIALS_FILE => "$dir/shared",
            AWS_CONFIG_FILE => "$dir/home/.aws/config" }, key => 'SHARED',
            secret => 'SharedSecret', region => 'home-region-1'],
        ['keys of the config file', { %home, AWS_PROFILE => 'alone' },
            key => 'CONFIG', secret => 'ConfigSecret'])
    {
        my ($name, $env, %want) = @$_;
        my $n = $t->nginx($conf, env => $env);
        check($name, $n, '/home/' . $name =~ s/ /-/gr, %want);
        $n->quit;
    }
    my $n = $t->nginx(server(
        'location / { s3_credentials file profile=work; s3_upload; }'),
        env => { %home, AWS_PROFILE => 'alone' });
    check('profile= wins', $n, '/home/wins', key => 'HOMEWORK',
        secret => 'HomeWorkSecret', region => 'work-region-1');
};

subtest 'Ceph' => sub {
    my $rgw = <<'EOF';
        s3_endpoint %%RGW%%;
        s3_bucket %%BUCKET%%;
        location /right/ { s3_upload; }
        location /secret/ {
            s3_credentials static testaccess wrongsecret; s3_upload;
        }
        location /key/ {
            s3_credentials static nobody testsecret; s3_upload;
        }
EOF
    write_file("$dir/rgw", "[default]\naws_access_key_id = testaccess\n"
        . "aws_secret_access_key = testsecret\nregion = somewhere-2\n");
    my %by = (
        env => [server($rgw), { AWS_ACCESS_KEY_ID => 'testaccess',
            AWS_SECRET_ACCESS_KEY => 'testsecret' }],
        file => [server("s3_credentials file %%FILES%%/rgw; $rgw"), {}],
    );
    for my $by (sort keys %by) {
        my ($conf, $env) = @{$by{$by}};
        my $n = $t->nginx($conf, env => $env);
        for my $size (10, 6 * MB) {
            my $d = data($size);
            my $r = curl($n->url("/right/$by$size"), file => $d);
            is($r->{status}, 201, "$by: $size") or diag explain $r;
            is_deeply([$t->s3->sha256("right/$by$size")],
                [$d->{sha256}, $size], "$by: $size: what it holds");
            my %says = (secret => 'SignatureDoesNotMatch',
                key => 'InvalidAccessKeyId');
            for my $wrong (sort keys %says) {
                $r = curl($n->url("/$wrong/$by$size"), file => $d);
                is($r->{status}, 502, "$by: $size: wrong $wrong");
                like($r->{json}{error}, qr/$says{$wrong}/,
                    "$by: $size: wrong $wrong: error") or diag explain $r;
                is($t->s3->head("$wrong/$by$size"), undef,
                    "$by: $size: wrong $wrong: no object");
            }
        }
        $n->quit;
    }
};
$t->expect_errors(qr/s3 \w+ failed: 403/);

subtest 'DynamoDB' => sub {
    my $conf = sub { return server('location / { '
        . 's3_credentials static KEYA StaticSecret+a; s3_upload; }')
        =~ s/http \{/http { s3_progress_dynamodb %%FAKE%% table=T $_[0];/r };
    my %env = (AWS_ACCESS_KEY_ID => 'ENVKEY',
        AWS_SECRET_ACCESS_KEY => 'EnvSecret');
    my $i = 0;
    for (['its own', $conf->('region=ab-c-1; s3_progress_dynamodb_credentials '
                . 'static DYNAMO DynamoSecret TokenOfStatic'),
            {}, 'DYNAMO', 'DynamoSecret', 'ab-c-1'],
        ["http's", $conf->('; s3_credentials static KEYB StaticSecret+b'),
            { %env }, 'KEYB', 'StaticSecret+b', 'us-east-1'],
        ['env', $conf->(''), { %env }, 'ENVKEY', 'EnvSecret', 'us-east-1'],
        ['a file', $conf->('; s3_progress_dynamodb_credentials file '
                . '%%FILES%%/credentials profile=work'),
            {}, 'FILEP', 'FileSecret+p', 'us-east-1'])
    {
        my ($name, $text, $env, $key, $secret, $region) = @$_;
        my $n = $t->nginx($text, env => $env);
        $fake->forget;
        my $r = curl($n->url('/dynamo' . $i++), body => 'x');
        is($r->{status}, 201, $name) or diag explain $r;
        $n->quit;
        my ($put) = $fake->requests('PutItem');
        ok($put, "$name: a record") or next;
        my $h = $put->{headers};
        like($h->{authorization},
            qr{Credential=$key/\d{8}/$region/dynamodb/aws4_request,},
            "$name: key and region");
        next if !$h->{'x-amz-content-sha256'};
        is($h->{authorization} =~ s/.*Signature=//r, signature($put, $secret),
            "$name: signature");
    }
    # what it says of keys is held against those that it had
    my $old = 'TokenOfExpired0123456789';
    my $told = $t->fake(on => { PutItem => { status => 400,
        body => '{"__type":"com.amazon#ExpiredTokenException",'
            . qq("message":"$old is expired"}) } });
    $t->token(TOLD => $told->url);
    rotate('dynamo', 'Expired0123456789');
    my $m = $t->nginx($conf->('; s3_progress_dynamodb_credentials file '
        . '%%FILES%%/rotated-dynamo') =~ s/%%FAKE%% table/%%TOLD%% table/r);
    rotate('dynamo', 'New0123456789');
    is(curl($m->url('/told'), body => 'x')->{status}, 201, 'an expired token');
    ok((wait_for { $m->log =~ /ExpiredTokenException/ }), 'it is told');
    like($m->log, qr/there are others in "\S+rotated-dynamo"/, 'and read again');
    unlike($m->log, qr/$old/, 'and is not repeated');
    $m->quit;

    my $n = $t->nginx($conf->(''), start => 0, env => { HOME => '/nowhere' });
    my ($status, $text) = $n->test_conf($conf->(''));
    is($status, 1, 'none');
    like($text, qr/no credentials for "s3_progress_dynamodb": AWS_ACCESS_KEY_/,
        'which');
    ($status, $text) = $n->test_conf($conf->(
        '; s3_progress_dynamodb_credentials file %%FILES%%/credentials '
        . 'profile=nobody'));
    is($status, 1, 'no such profile');
    like($text, qr/"s3_progress_dynamodb": no profile "nobody" in /,
        'says so');
};

# nginx -t: what it says, with nothing of a secret in it
sub refused {
    my ($n, $name, $args, $pattern) = @_;
    my ($status, $text) = $n->test_conf(server(
        defined $args ? "location / { s3_credentials $args; s3_upload; }"
        : 'location / { s3_upload; }'));
    is($status, 1, "$name: refused");
    like($text, $pattern, "$name: says why");
    unlike($text, qr/Secret|Token/, "$name: no secret");
}

subtest 'grammar' => sub {
    my $n = $t->nginx(server(''), start => 0, env => { HOME => '/nowhere' });
    my $begin = qr/"s3_credentials" must begin with "env", "file" or "static"/;
    my $static = qr/"s3_credentials" needs "static" with an access key, a /;
    my $visible = qr/has a space or a control/;
    refused($n, 'nothing', '', qr/invalid number of arguments/);
    refused($n, $_, $_, $begin)
        for 'chain', 'KEYA StaticSecret+a', 'Static KEYA StaticSecret+a',
        'environment', '""';
    refused($n, $_, $_, $static)
        for 'static', 'static KEYA', 'static StaticSecret+a TokenA b c';
    refused($n, $_, $_, qr/"s3_credentials" access key is empty.* $visible/)
        for 'static "" StaticSecret+a', 'static "a b" StaticSecret+a',
        "static \"a\xc3\xa9\" StaticSecret+a",
        'static ' . 'k' x 256 . ' StaticSecret+a';
    refused($n, $_, $_, qr/"s3_credentials" secret key is empty.* $visible/)
        for 'static KEYA ""', 'static KEYA "Secret Secret"',
        'static KEYA Secret' . 's' x 256;
    refused($n, 'token', 'static KEYA StaticSecret+a "Token Token"',
        qr/session token has a space/);
    refused($n, 'env a', 'env a', qr/allows nothing after "env"/);
    refused($n, $_, $_, qr/allows one path and "profile=" after "file"/)
        for 'file a b', 'file ""';
    refused($n, $_, $_, qr/needs one name in "profile="/)
        for 'file a profile=', 'file a profile=b profile=c';
    my ($status, $text) = $n->test_conf(server('s3_credentials env; '
        . 's3_credentials static KEYA StaticSecret+a; '
        . 'location / { s3_upload; }'));
    is($status, 1, 'twice');
    like($text, qr/"s3_credentials" directive is duplicate/, 'says so');
};

subtest 'missing' => sub {
    my $needs = qr/"s3_upload" in location "\S*" has no credentials: /;
    my $set = qr/not set in the environment nginx was started with; set /;
    my @env = (
        [{}, qr/AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are /],
        [{ AWS_ACCESS_KEY_ID => '', AWS_SECRET_ACCESS_KEY => 'EnvSecret' },
            qr/AWS_ACCESS_KEY_ID is /],
        [{ AWS_ACCESS_KEY_ID => 'ENVKEY' }, qr/AWS_SECRET_ACCESS_KEY is /],
    );
    for (@env) {
        my ($env, $pattern) = @$_;
        my $n = $t->nginx(server(''), start => 0, env => $env);
        my $name = join ' ', 'env with', sort keys %$env;
        refused($n, $name, undef, qr/$needs$pattern$set/);
        refused($n, "$name, said", 'env', qr/$needs$pattern$set/);
    }
    my $n = $t->nginx(server(''), start => 0, env => { HOME => '/nowhere' });
    refused($t->nginx(server(''), start => 0, env => {
        AWS_ACCESS_KEY_ID => 'a', AWS_SECRET_ACCESS_KEY => 'Secret b' }),
        'a bad secret', 'env', qr/${needs}the environment's secret key/);
    refused($n, 'no file', "file $dir/none",
        qr/$needs"$dir\/none" cannot be read \(2: No such file or directory/);
    refused($n, 'HOME', 'file', qr{$needs"/nowhere/.aws/credentials" cannot});
    refused($t->nginx(server(''), start => 0, env => { HOME => '' }),
        'no HOME', 'file',
        qr/${needs}neither AWS_SHARED_CREDENTIALS_FILE nor HOME is set/);
    refused($n, 'no profile', "file $dir/credentials profile=nobody",
        qr{${needs}no profile "nobody" in "$dir/credentials"});
    refused($n, 'an empty file', "file $dir/empty",
        qr{${needs}no profile "default" in "$dir/empty"});
    refused($n, 'half of it', "file $dir/credentials profile=$_",
        qr{${needs}profile "$_" in "$dir/credentials" has no aws_access_key_id})
        for qw/ half region /;
    refused($n, 'a directory', "file $dir", qr/is not a file, or too large/);
    refused($n, 'twice', "file $dir/twice",
        qr/aws_access_key_id is given twice in "$dir\/twice"/);
    refused($n, 'too long', "file $dir/long",
        qr/aws_secret_access_key is too long in/);
    refused($n, 'binary', "file $dir/binary", qr/not a text in/);
    refused($n, 'nonsense', "file $dir/nonsense", qr/in "$dir\/nonsense"/);
    refused($n, 'spaces', "file $dir/spaces",
        qr/${needs}the access key .* in profile "default"/);

    my ($status) = $n->test_conf(server('location /s { s3_status; }'));
    is($status, 0, 'a status location needs none');
    ($status) = $n->test_conf(server('s3_credentials file /nowhere;
        location / { s3_credentials static KEYA StaticSecret+a; s3_upload; }'));
    is($status, 0, 'what no upload uses may be missing');
};
