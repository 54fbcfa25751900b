#!/usr/bin/perl

# No secret reaches a log, a status, an error or a record, with a log at debug
# level: every door and store, and peers that send back what they got.

use strict;
use warnings;

use lib 't/lib';
use Test::More;
use S3T;

my $t = S3T->new;
my $redis = $t->own_redis(password => 'RedisPassword');
$redis->cmd('ACL', 'SETUSER', 'writer', 'on', '>WriterPassword', '~*', '&*',
    '+@all');
my @secrets = qw/ StaticSecret StaticToken EnvSecret EnvToken FileSecret
    FileToken DynamoSecret DynamoToken WriterPassword WrongPassword
    PasswordInFile WrongSecret TheOwner UserInfo /;
$t->secret(@secrets, 'Signature=');

# an S3 that tells all it was told
sub echo {
    my ($r) = @_;
    my $h = $r->{headers};
    return join ' ', map { "$_: $h->{$_}" } sort keys %$h;
}

sub xml { return $_[0] =~ s/&/&amp;/gr =~ s/</&lt;/gr }

my %answers = (
    message => sub { { status => 403, body => '<Error><Code>AccessDenied</Code>'
        . '<Message>' . xml(echo($_[0])) . '</Message></Error>' } },
    token => sub { { status => 403, body => '<Error><Code>AccessDenied</Code>'
        . "<Message>$_[0]{headers}{'x-amz-security-token'}"
        . '</Message></Error>' } },
    code => sub { { status => 403, body => '<Error><Code>'
        . "$_[0]{headers}{'x-amz-security-token'}</Code></Error>" } },
    short => sub { { status => 403, body => '<Error><Code>Signature='
        . 'a</Code><Message>Signature=1</Message></Error>' } },
    id => sub { { status => 403, headers => { 'x-amz-request-id' =>
        $_[0]{headers}{'x-amz-security-token'} }, body => '<Error><Code>'
        . 'AccessDenied</Code></Error>' } },
    idbody => sub { { status => 403, headers => { 'x-amz-request-id' => undef },
        body => '<Error><Code>AccessDenied</Code><RequestId>'
        . "$_[0]{headers}{authorization}</RequestId></Error>" } },
    text => sub { { status => 500, body => echo($_[0]) } },
    status => sub { { raw => "$_[0]{headers}{authorization}\r\n\r\n",
        close => 'after' } },
    reason => sub { { status => 403, reason => echo($_[0]) } },
    header => sub { { raw => "HTTP/1.1 200 OK\r\n" . echo($_[0])
        . "\r\nbad header $_[0]{headers}{authorization}\r\n\r\n",
        close => 'after' } },
    field => sub { { status => 403, headers => {
        map { $_ => $_[0]{headers}{$_} } 'authorization',
        'x-amz-security-token' } } },
    length => sub { { raw => "HTTP/1.1 200 OK\r\nContent-Length: "
        . "$_[0]{headers}{authorization}\r\n\r\n", close => 'after' } },
    region => sub { { status => 301, headers => { 'x-amz-bucket-region' =>
        lc $_[0]{headers}{'x-amz-security-token'} } } },
    location => sub { { status => 307, headers => { Location =>
        "http://a/$_[0]{headers}{authorization}" } } },
    noxml => sub { { body => '<?xml ' . echo($_[0]) } },
);
my $by_path = sub {
    my ($r) = @_;
    my ($what) = $r->{path} =~ m{/echo/(\w+)};
    return $what && $answers{$what} ? $answers{$what}->($r) : {};
};
my $fake = $t->fake(on => { put => $by_path, create => $by_path });
my $dynamo = sub {
    my ($r) = @_;
    my $echo = echo($r) =~ s/(["\\])/\\$1/gr;
    return { status => 400, body => '{"__type":"com.amazonaws.dynamodb.v2012'
        . '0810#AccessDeniedException","message":"' . $echo . '"}' };
};
my $table = $t->fake(on => { PutItem => $dynamo, GetItem => $dynamo });

my $dir = $t->dir;
write_file("$dir/password", "PasswordInFile\n");
write_file("$dir/credentials", "[default]\naws_access_key_id = FILEKEY\n"
    . "aws_secret_access_key = FileSecret\naws_session_token = FileToken\n");
$t->token(FAKE => $fake->url, ECHO => $table->url, FILES => $dir,
    OWN => "127.0.0.1:$redis->{port}");

my %env = (AWS_ACCESS_KEY_ID => 'ENVKEY', AWS_SECRET_ACCESS_KEY => 'EnvSecret',
    AWS_SESSION_TOKEN => 'EnvToken');
my $common = <<'EOF';
    s3_endpoint %%FAKE%%;
    s3_bucket bucket;
    s3_part_size 5m;
    s3_tries 2;
    s3_transfer_id $arg_id;
    s3_owner TheOwner;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        listen 127.0.0.1:%%PORT_tls%% ssl http2;
        ssl_certificate %%CERTS%%/server.pem;
        ssl_certificate_key %%CERTS%%/server.key;
        location / {
            s3_credentials static STATICKEY StaticSecret StaticToken;
            s3_upload;
        }
        location /env/ { s3_upload; }
        location /file/ {
            s3_credentials file %%FILES%%/credentials; s3_upload;
        }
        location /rgw/ { %%S3%% s3_upload; }
        location /rgwtls/ {
            s3_credentials static testaccess testsecret;
            s3_endpoint %%RGW_SSL%%;
            s3_bucket %%BUCKET%%;
            s3_ssl_trusted_certificate %%CA%%;
            s3_upload;
        }
        location /wrong/ {
            %%S3%%
            location /wrong/secret/ {
                s3_credentials static testaccess WrongSecret; s3_upload;
            }
            location /wrong/key/ {
                s3_credentials static STATICKEY StaticSecret StaticToken;
                s3_upload;
            }
            location /wrong/host/ { s3_endpoint http://127.0.0.1:1; s3_upload; }
        }
        location /status/ { s3_status list; }
        location /metrics { s3_status prometheus; }
    }
EOF

sub start {
    my ($stores) = @_;
    return $t->nginx("%%MAIN%%\nhttp {\n%%HTTP%%\n$stores\n$common}\n",
        level => 'debug', env => \%env);
}

$t->allow_errors(qr/s3 \w+ failed/, qr/unknown outcome/,
    qr/(redis|dynamodb) store (is down|refused)/,
    qr/client prematurely closed/);

my $id = 'i' x 16;
my $records = 0;

sub statuses {
    my ($n, $last) = @_;
    my $list = curl($n->url('/status/?limit=1000'));
    is($list->{status}, 200, 'the list');
    my $page = curl($n->url('/metrics'));
    is($page->{status}, 200, 'the metrics');
    is(curl($n->url("/status/$last"))->{status}, 200, 'a record');
    curl($n->url('/status/absent-absent-absent'));
    $records += () = $list->{body} =~ /"transferId"/g;
}

subtest 'doors' => sub {
    my $n = start('s3_progress_redis redis://:RedisPassword@%%OWN%%'
        . ' prefix=%%PREFIX%% channel=c; s3_progress_dynamodb %%DYNAMODB%%'
        . ' table=%%TABLE%%; s3_progress_dynamodb_credentials static'
        . ' testaccess DynamoSecret DynamoToken;');
    for my $location (qw{ /a/ /env/ /file/ /rgw/ /rgwtls/ }) {
        my $i = 0;
        for my $size (0, 10, 6 * MB) {
            my $d = data($size);
            for my $o ({}, { chunked => 1 }, { h2 => 1, port => 'h2' },
                { port => 'tls', ca => $t->ca })
            {
                my %o = %$o;
                my $port = delete $o{port};
                $id++;
                my $r = curl($n->url($location . $i++ . "?id=$id", $port),
                    file => $d, %o);
                is($r->{status}, 201, "$location$i") or diag explain $r;
            }
        }
    }
    my @wrong;
    for my $location (qw{ /wrong/secret/ /wrong/key/ /wrong/host/ }) {
        for my $size (10, 6 * MB) {
            $id++;
            my $r = curl($n->url("${location}a?id=$id"), file => data($size));
            is($r->{status}, 502, "$location $size") or diag explain $r;
            push @wrong, $id;
        }
    }
    my $raw = $t->raw($n->port);
    $raw->send("PUT /rgw/left HTTP/1.1\r\nHost: a\r\n"
        . "Content-Length: 9\r\n\r\n1");
    $raw->delivered;
    $raw->close;
    is(curl($n->url('/a/'), body => 'x')->{status}, 400, 'refused');
    # (the worker that leaves then may be slower than the next one)
    ok((wait_for {
        (($redis->hgetall($t->prefix . $wrong[0]) || {})->{state} || '')
            eq 'failed'
        && (($t->dynamodb->get_item($wrong[0]) || {})->{state} || '')
            eq 'failed' } 60), 'a failed one is stored');
    ok($n->reload, 'reload');
    $id++;
    is(curl($n->url("/rgw/reloaded?id=$id"), body => 'x')->{status}, 201,
        'after it');
    statuses($n, $id);

    my $key = $t->prefix;
    wait_for {
        my $h = $redis->hgetall($key . $id);
        $h && $h->{state} eq 'completed';
    };
    my $hash = $redis->hgetall($key . $wrong[0]);
    is($hash->{state}, 'failed', 'a failed one in Redis');
    is($hash->{owner}, 'TheOwner', 'the owner is stored');
    wait_for { $t->dynamodb->get_item($id) };
    my $item = wait_for { $t->dynamodb->get_item($wrong[0]) };
    is($item->{state}, 'failed', 'and in DynamoDB');
    my $all = '';
    for (@{$redis->cmd('KEYS', "$key*")}) {
        my $h = $redis->hgetall($_);
        delete $h->{owner};
        $all .= join ' ', %$h;
    }
    my $secret = join '|', 'testsecret', 'AWS4', 'RedisPassword', @secrets;
    unlike($all, qr/$secret/, 'nothing of it in records');
    unlike(join(' ', map { "$_ $item->{$_}" } grep { $_ ne 'owner' }
        keys %$item), qr/$secret/, 'nor in an item');
    $n->quit;
    like($n->log, qr/\[debug\].*s3 /, 'the log is at debug level');
};

subtest 'an S3 that sends back what it got' => sub {
    my $n = start('');
    for my $what (sort keys %answers) {
        for my $from ('', '/env', '/file') {
            for my $size (10, 6 * MB) {
                next if $size > 10 && $from ne '';
                $id++;
                my $r = curl($n->url("$from/echo/$what?id=$id"),
                    file => data($size));
                like($r->{status}, qr/^(201|5\d\d)$/, "$what $from $size")
                    or diag explain $r;
            }
        }
    }
    statuses($n, $id);
    $n->quit;
};

subtest 'stores that refuse' => sub {
    my $aws = 's3_progress_dynamodb %%ECHO%% table=T;'
        . ' s3_progress_dynamodb_credentials static DYNAMOKEY DynamoSecret'
        . ' DynamoToken;';
    my $port = free_port();
    my %of = map { $_ => start("s3_progress_redis $_; $aws") }
        'redis://:WrongPassword@%%OWN%%',
        'redis://writer:WrongPassword@%%OWN%%',
        'redis://writer:WriterPassword@%%OWN%%/99', 'redis://%%OWN%%',
        'redis://%%OWN%% password_file=%%FILES%%/password',
        "redis://:WrongPassword\@127.0.0.1:$port",
        'rediss://:WrongPassword@%%OWN%%',
        # what is no Redis is told the password, too
        'redis://:WrongPassword@127.0.0.1:' . $fake->{port};
    for my $url (sort keys %of) {
        $id++;
        my $r = curl($of{$url}->url("/a/a?id=$id"), body => 'x');
        is($r->{status}, 201, $url);
        curl($of{$url}->url('/status/' . 'n' x 20));
    }
    for my $url (sort keys %of) {
        for my $store (qw/ redis dynamodb /) {
            my $line = wait_for {
                $of{$url}->log =~ /($store store (?:is down|refused).*)/
                    ? $1 : undef;
            };
            ok($line, "$url: the outage of $store is told") and note $line;
        }
    }
    # each waits a while for its stores
    kill 'QUIT', map { $_->pid } values %of;
    $_->quit for values %of;
};

subtest 'nginx -t' => sub {
    my $n = $t->nginx('', start => 0, env => \%env, level => 'debug');
    my $try = sub {
        my ($name, $stores, $location) = @_;
        my ($status, $text) = $n->test_conf("%%MAIN%%\nhttp { s3_endpoint "
            . "%%FAKE%%; s3_bucket bucket; $stores server { location / { "
            . ($location || '') . ' s3_upload; } } }');
        is($status, 1, "$name: refused");
        unlike($text, qr/Password|Secret|Token|UserInfo/, "$name: no secret");
        note $text;
    };
    $try->($_, "s3_progress_redis $_;") for
        'redis://:WrongPassword@', 'redis://:WrongPassword@host:x',
        'http://:WrongPassword@host', ':WrongPassword@host',
        'redis://a:WrongPassword@host/x', 'redis://:WrongPassword@host/1/2',
        'redis://:WrongPassword@host nonsense',
        'redis://:WrongPassword@host ttl=x',
        'redis://:WrongPassword@host:99999',
        'redis://:Wrong%zzPassword@host', 'redis://WrongPassword@host:1:2',
        'redis://:WrongPassword@host WrongPassword',
        'redis://:WrongPassword@host password=WrongPassword',
        'redis://:WrongPassword@host password_file=%%FILES%%/password',
        'unix://:WrongPassword@';
    $try->($_, "s3_progress_dynamodb $_;") for
        'http://user:UserInfo@host table=T', 'user:UserInfo@host table=T';
    $try->($_, '', "s3_endpoint $_;") for
        'http://user:UserInfo@host', 'https://user:UserInfo@host/path',
        'user:UserInfo@host';
    $try->($_, "s3_credentials $_;") for
        'StaticSecret', 'static StaticSecret', 'env StaticSecret',
        'KEY StaticSecret StaticToken', 'static KEY "StaticSecret a"',
        'static KEY Static StaticToken a', 'static KEY a "StaticToken "';
};
