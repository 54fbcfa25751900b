#!/usr/bin/perl

# The samples of conf/ and the README: that nginx takes them as they stand, that
# they do what they say, and that the README knows the directives there are.

use strict;
use warnings;

use lib 't/lib';
use File::Basename qw/ basename /;
use JSON::PP ();
use Test::More;
use S3T;
use S3T::Util qw/ wait_exit /;

my $t = S3T->new;
my $s3 = $t->s3;
my $readme = read_file('README.md');
my %keys = (AWS_ACCESS_KEY_ID => 'testaccess',
    AWS_SECRET_ACCESS_KEY => 'testsecret');

sub prefix {
    my ($n) = @_;
    my $dir = $n->{dir};
    mkdir "$dir/$_" for qw/ modules conf logs /;
    symlink S3T::Nginx::module_path(),
        "$dir/modules/ngx_http_s3_transfer_module.so";
    for my $in ($dir, "$dir/conf") {
        write_file("$in/htpasswd", "user:{PLAIN}password\n");
        write_file("$in/$_", read_file($t->certs . "/$_"))
            for qw/ server.pem server.key ca.pem /;
        write_file("$in/s3-credentials", "[uploads]\n"
            . "aws_access_key_id = testaccess\n"
            . "aws_secret_access_key = testsecret\n");
    }
    return $dir;
}


subtest 'nginx -t' => sub {
    my $n = $t->nginx('', start => 0, env => \%keys);
    my $dir = prefix($n);
    my %samples = map { basename($_), read_file($_) } glob 'conf/*.conf';
    cmp_ok(scalar keys %samples, '>=', 4, 'samples');
    my @blocks = $readme =~ /^```nginx\n(.*?)^```/gms;
    ($samples{'readme.conf'}) = grep { /^http \{/m } @blocks;
    ok($samples{'readme.conf'}, "the README's");

    # (the log's directory is Debian's; a name has to be found)
    s{/var/log/nginx/}{logs/}g for values %samples;
    s{proxy_pass\s+https?://\K[\w.]*example\.com}{127.0.0.1}g
        for values %samples;

    for my $name (sort keys %samples) {
        write_file("$dir/conf/$name", $samples{$name});
        my $pid = spawn({ env => $n->test_environment,
            stderr => "$dir/$name.err" },
            S3T::Nginx::binary(), '-t', '-p', $dir, '-c', "$dir/conf/$name",
            '-e', "$dir/error.log", '-g', "pid $dir/nginx.pid;");
        wait_exit($pid, 30);
        # (its own leaks give nginx another status under the sanitizers)
        my $text = read_file("$dir/$name.err");
        like($text, qr/test is successful$/m, $name) or diag($text);
        unlike($text, qr/\[(warn|error|crit|alert|emerg)\]/, "$name: no doubt");
    }
};


# What a sample becomes on this machine: each change must find its place.
# the README's sizes are ones that nginx takes
subtest 'sizes' => sub {
    my @rows = $readme =~ /^\| (\d+[kmg]), (\d+[kmg])(?: \(default\))? \|/gm;
    cmp_ok(scalar @rows, '>=', 6, 'rows of the table');
    while (my ($part, $window) = splice @rows, 0, 2) {
        my $memory = $window =~ /^(\d+)g$/ ? $1 * 1024 + 5
            : ($window =~ /(\d+)/)[0] + 5;
        my $n = $t->nginx('', start => 0);
        my (undef, $text) = $n->test_conf(<<"EOF");
%%MAIN%%
http {
    %%HTTP%%
    s3_memory ${memory}m;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / {
            %%S3%%
            s3_part_size $part;
            s3_window $window;
            s3_upload;
        }
    }
}
EOF
        like($text, qr/test is successful/, "$part, $window");
    }
};

sub sample {
    my ($name, %changes) = @_;
    my $text = read_file("conf/$name.conf");
    for (sort keys %changes) {
        my $found = $text =~ s/\Q$_\E/$changes{$_}/g;
        ok($found, "$name has $_");
    }
    $text =~ s{/var/log/nginx/}{logs/}g;
    $text =~ s/^events \{\n\}\n//m;
    $text =~ s/^load_module .*\n//m;
    $text =~ s/^http \{/http {\n    %%HTTP%%/m;
    # (what nginx has by default, and %%HTTP%% changes)
    $text =~ s/^    server \{/$&\n        client_max_body_size 1m;/mg;
    return "%%MAIN%%\n$text";
}

sub run {
    my ($name, %changes) = @_;
    my $n = $t->nginx('', start => 0, env => \%keys);
    prefix($n);
    $n->conf(sample($name, %changes));
    return $n->start;
}

my $amazon = 'https://s3.eu-central-1.amazonaws.com';
my %here = ($amazon => '%%RGW%%', incoming => '%%BUCKET%%');

subtest 'minimal' => sub {
    my $n = run('minimal', %here, 8080 => '127.0.0.1:%%PORT%%');
    my $url = $n->url('/upload/a');
    is(curl($url, body => 'abc')->{status}, 401, 'a password is wanted');
    is($s3->head('upload/a'), undef, 'no object');
    my @user = (args => ['-u', 'user:password']);
    my $r = curl($url, body => 'abc', @user);
    is($r->{status}, 201, 'stored') or diag explain $r;
    is($s3->get('upload/a'), 'abc', 'what S3 holds');
    my $id = $r->{json}{transferId};
    is(curl($n->url("/transfers/$id"))->{status}, 401, 'here, too');
    is(curl($n->url("/transfers/$id"), @user)->{json}{state}, 'completed',
        'its record');
    $n->quit;
};
$t->allow_errors(qr/no user\/password was provided/);

subtest 'browser' => sub {
    my $backend = $t->nginx(<<'EOF', module => 0);
%%MAIN%%
http {
    %%HTTP%%
    map $cookie_session $user { alice alice; bob bob; }
    map $user $may { "" 401; default 204; }
    server {
        listen 127.0.0.1:%%PORT%%;
        location = /may-upload {
            add_header X-User $user;
            if ($user = "") { return 401; }
            return 204;
        }
    }
}
EOF
    my $n = run('browser', %here, 'listen 8080' => 'listen 127.0.0.1:%%PORT%%',
        '127.0.0.1:9000' => '127.0.0.1:' . $backend->port);
    my $origin = 'https://www.example.com';
    my @origin = ("Origin: $origin");
    my %alice = (headers => [@origin, 'Cookie: session=alice']);
    my %bob = (headers => [@origin, 'Cookie: session=bob']);

    my $r = curl($n->url('/upload/page'), method => 'OPTIONS', headers => [
        @origin, 'Access-Control-Request-Method: PUT',
        'Access-Control-Request-Headers: content-type']);
    is("$r->{status} $r->{body}", '204 ', 'the preflight, without a cookie');
    my $h = $r->{headers};
    is($h->{'access-control-allow-origin'}, $origin, 'the origin');
    is($h->{'access-control-allow-credentials'}, 'true', 'with credentials');
    like($h->{'access-control-allow-methods'}, qr/\bPUT\b/, 'the method');
    like(lc $h->{'access-control-allow-headers'}, qr/\bcontent-type\b/,
        'the header');
    is($h->{vary}, 'Origin', 'Vary');
    $r = curl($n->url('/upload/page'), method => 'OPTIONS', headers => [
        'Origin: https://evil.example.com',
        'Access-Control-Request-Method: PUT']);
    is($r->{headers}{'access-control-allow-origin'}, undef, 'another origin');

    $r = curl($n->url('/upload/page'), body => 'abc', headers => \@origin);
    is($r->{status}, 401, 'nobody');
    is($r->{headers}{'access-control-allow-origin'}, $origin,
        'the page can read it');
    is($s3->head('upload/page'), undef, 'no object');

    my $id = '01234567-89ab-4def-8123-456789abcdef';
    my $url = $n->url("/upload/page?transfer_id=$id");
    $r = curl($url, file => data(2 * MB), %alice);
    is($r->{status}, 201, 'stored') or diag explain $r;
    is($r->{headers}{'access-control-allow-origin'}, $origin, 'the origin');
    my %exposed = map { lc, 1 } split /,\s*/,
        $r->{headers}{'access-control-expose-headers'};
    for (qw/ etag location x-transfer-id /) {
        ok($exposed{$_} && length $r->{headers}{$_}, "the page can read $_");
    }
    is($s3->head('upload/page')->{'x-amz-meta-uploaded-by'}, 'alice',
        'by whom');

    $r = curl($n->url("/transfers/$id"), %alice);
    is("$r->{status} $r->{json}{state}", '200 completed', 'the own transfer');
    is($r->{headers}{'access-control-allow-origin'}, $origin, 'the origin');
    is(curl($n->url("/transfers/$id"), %bob)->{status}, 404, "another's");
    is(curl($n->url("/transfers/$id"))->{status}, 401, 'nobody');
    $r = curl($n->url('/transfers/'), %alice);
    is_deeply([map { $_->{transferId} } @{$r->{json}{transfers}}], [$id],
        'all of the own') or diag $r->{body};
    $r = curl($n->url('/transfers/'), %bob);
    is_deeply($r->{json}{transfers}, [], "none of another's");
    $r = curl($url, body => 'abc', headers => [@origin,
        'Cookie: session=alice', 'Content-Range: bytes 0-2/3']);
    is($r->{status}, 400, 'an error');
    is($r->{headers}{'access-control-allow-origin'}, $origin,
        'that the page can read');
    $n->quit;
};

subtest 'stores' => sub {
    my $n = run('stores', %here,
        'listen 127.0.0.1:8080' => 'listen 127.0.0.1:%%PORT%%',
        'redis://127.0.0.1:6379/0' => 'redis://%%REDIS%%/0',
        'prefix=transfer:' => 'prefix=%%PREFIX%%',
        'https://dynamodb.eu-central-1.amazonaws.com' => '%%DYNAMODB%%',
        'table=transfers' => 'table=%%TABLE%%');
    my $id = sprintf 'conf-%016x', rand 2**53;
    my $r = curl($n->url("/upload/b?transfer_id=$id"), file => data(2 * MB));
    is($r->{status}, 201, 'stored') or diag explain $r;
    my $hash = wait_for {
        my $h = $t->redis->hgetall($t->prefix . $id);
        $h && $h->{state} eq 'completed' ? $h : undef;
    };
    is($hash->{bytesStored}, 2 * MB, 'Redis');
    my $item = wait_for {
        my $i = $t->dynamodb->get_item($id);
        $i && $i->{state} eq 'completed' ? $i : undef;
    };
    is($item->{bytesStored}, 2 * MB, 'DynamoDB');
    $r = curl($n->url('/transfers/'));
    ok((grep { $_->{transferId} eq $id } @{$r->{json}{transfers}}), 'list');
    like(curl($n->url('/metrics'))->{body}, qr/^# TYPE \w+ counter$/m,
        'Prometheus');
    wait_for { -s "$n->{dir}/logs/transfers.log" };
    like(read_file("$n->{dir}/logs/transfers.log"),
        qr{ $id completed 2097152 2097152 upload/b$}m, 'the access log');
    $n->quit;
};

subtest 'tls' => sub {
    my $n = run('tls', 'https://s3.internal:7480' => '%%RGW_SSL%%',
        's3_bucket      incoming' => 's3_bucket %%BUCKET%%',
        'listen 8443' => 'listen 127.0.0.1:%%PORT_tls%%');
    my $d = data(20 * MB);
    my $r = curl($n->url('/upload/c', 'tls'), file => $d, h2 => 1,
        ca => $t->ca, args => ['-u', 'user:password']);
    is("$r->{status} $r->{version}", '201 2', 'stored') or diag explain $r;
    like($r->{json}{key}, qr{^inbox/\d{4}-\d\d-\d\d/[0-9a-f]{32}$}, 'its key');
    is_deeply([$s3->sha256($r->{json}{key})], [$d->{sha256}, $d->{size}],
        'what S3 holds');
    $n->quit;
};

subtest 'pull' => sub {
    my $d = data(1);
    my $file = $t->files . $t->served($d);
    my $origin = $t->nginx(<<"EOF", module => 0);
%%MAIN%%
http {
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        location = /pull/a {
            if (\$http_authorization != "Bearer replace-me") { return 403; }
            alias $file;
        }
        location = /presigned { alias $file; }
        location = /import {
            add_header X-Accel-Redirect /import-now/reports/42.pdf;
            add_header X-Origin-Url http://127.0.0.1:%%PORT%%/presigned?a=b;
            return 200;
        }
        location = /import-other {
            add_header X-Accel-Redirect /import-now/reports/43.pdf;
            add_header X-Origin-Url http://localhost:%%PORT%%/presigned?a=b;
            return 200;
        }
    }
}
EOF
    my $port = $origin->port;
    my $n = run('pull', %here, archive => '%%BUCKET%%',
        'https://origin.example.com' => "http://127.0.0.1:$port",
        'https://partner-files\.s3\.eu-west-1\.amazonaws\.com'
            => "http://127\\.0\\.0\\.1:$port",
        '127.0.0.1:9000' => "127.0.0.1:$port",
        's3_ingest_max 20;' => 's3_ingest_max 20; s3_ingest_allow 127.0.0.1;',
        'location = /import {' => 'location /import {',
        'listen 127.0.0.1:8080' => 'listen 127.0.0.1:%%PORT%%');
    my $pulled = sub {
        my ($path, $key) = @_;
        my $r = curl($n->url($path), method => 'POST');
        is($r->{status}, 202, "$path: accepted") or diag explain $r;
        my $url = $n->url($r->{headers}{location});
        ok((wait_for { curl($url)->{json}{state} eq 'completed' }),
            'its record');
        is_deeply([$s3->sha256($key)], [$d->{sha256}, 1], 'what S3 holds');
        return $url;
    };
    $pulled->('/pull/a', 'pull/a');
    my $url = $pulled->('/import', 'import-now/reports/42.pdf');
    is(curl($n->url('/import-other'), method => 'POST')->{status}, 403,
        'an origin that is not in the map');
    is(curl($url, method => 'DELETE')->{status}, 409, 'what is over stays');
    $s3->put('copy/a', 'abc');
    is(curl($n->url('/copy/a'), method => 'POST')->{status}, 201,
        'an object of a bucket');
    $n->quit;
};


# The directives that there are, with their contexts.
my $source = read_file('ngx_module/ngx_http_s3_transfer_module.c');
my %contexts = (
    (map { $_ => 'http, server, location' }
        $source =~ /^    ngx_http_s3_any\("(\w+)"/mg),
    (map { $_ => 'http' } $source =~
        /ngx_string\("(\w+)"\),\s+NGX_HTTP_MAIN_CONF\|/g),
    (map { $_ => 'location, if in location, limit_except' } $source =~
        /ngx_string\("(\w+)"\),\s+NGX_HTTP_S3_CONTENT\|/g),
);

subtest "the README's directives" => sub {
    my %said;
    my ($part) = $readme =~ /^## Directives\n(.*?)^## /ms;
    for my $section (split /^### /m, $part) {
        my ($all) = $section =~ /^All in ([^.]+)\./m;
        $all =~ s/ and /, / if $all;
        while ($section =~ /^\| `(s3_\w+)[^`]*;` \|([^|]*)\|([^|]*)\|$/mg) {
            my ($name, $default, $context) = ($1, $2, $3);
            s/^\s+|\s+$//g for $default, $context;
            ok(!$said{$name}, "$name is there once");
            $said{$name} = $all || $context;
            ok(length $default, "$name has a default");
        }
        while ($section =~ /^\| \*\*(s3_\w+)\*\* \|(.*?)(?=^\| \*\*|\z)/msg) {
            my ($name, $rows) = ($1, $2);
            my %row = $rows =~ /^\| (\w+) \| (.*?) \|$/mg;
            like($row{Syntax}, qr/^`$name\b/, "$name: syntax");
            ok(length($row{Default} || ''), "$name has a default");
            $said{$name} = $row{Context};
        }
    }
    is_deeply(\%said, \%contexts, 'are those of the module');

    # words that are no directive would be misspelt, or of another time
    my %known = map { $_, 1 } keys %contexts, 's3_progress_',
        's3_transfer_', 's3_ssl_', qw/ s3_requests_total s3_retries_total
        s3_errors_total /,
        read_file('ngx_module/ngx_http_s3_variables.c') =~
        /ngx_string\("(s3_\w+)"\)/g;
    for my $path ('README.md', 'bench/README.md', 'demo/nginx.conf',
        glob 'conf/*.conf')
    {
        my %unknown = map { $_, 1 } grep { !$known{$_} }
            read_file($path) =~ /(?<![\w\/])\$?(s3_\w+)(?!\w*\.c\b)/g;
        is(join(' ', sort grep { $_ ne 's3_null' } keys %unknown), '',
            "$path: names");
    }
    my @variables = read_file('ngx_module/ngx_http_s3_variables.c') =~
        /ngx_string\("(s3_\w+)"\)/g;
    is_deeply([sort $readme =~ /^\| `\$(s3_\w+)` \|/mg], [sort @variables],
        'the variables');
};

subtest 'what answers and totals name' => sub {
    my $code = join '', map { read_file($_) } glob 'ngx_module/*.c';
    my %names = map { $_, 1 } $code =~
        /_(?:refuse|send_error|send_refused|result_set)\([^;"]*"([A-Z]\w+)"/g,
        read_file('lib/s3_tee.c') =~ /"(\w+)"/g,
        read_file('lib/s3_totals.c') =~
            /s3_totals_(?:gauge|counter|store)\("(\w+)", "/g;
    cmp_ok(scalar keys %names, '>', 70, 'names');
    is(join(' ', grep { $readme !~ /`$_`/ } sort keys %names), '',
        'the README has them all');
};

subtest 'defaults and contexts' => sub {
    my %values = (
        s3_endpoint => '%%RGW%%', s3_bucket => 'bucket',
        s3_region => 'us-east-1', s3_credentials => 'static a b',
        s3_object_header => 'x-amz-acl private', s3_metadata => 'a b',
        s3_checksum => 'off', s3_transfer_id => '$request_id',
        s3_owner => '$remote_user', s3_window => '80m',
        s3_ingest_header => 'a b', s3_ingest_allow => '10.0.0.0/8',
        s3_tee_ignore_headers => 'Set-Cookie', s3_tee_max_size => '0',
        s3_tee_if => '1',
        s3_progress_dynamodb_credentials => 'static a b',
        s3_ssl_trusted_certificate => '%%CA%%', s3_ssl_name => 'localhost',
        s3_ssl_conf_command => 'Options PrioritizeChaCha',
    );
    my $compared = 0;
    my %defaults = $readme =~
        /^\| `(s3_\w+)[^`]*;` \| (.*?) \| (?:http[^|]*|[^|]*?) ?\|$/mg;
    my %line = map { $_ => "$_ " . (defined $values{$_} ? $values{$_}
        : $defaults{$_}) . ';' } grep { !/^s3_(upload|status|ingest)$/ }
        keys %contexts;
    my $n = $t->nginx('', start => 0, env => { HOME => '/nowhere' });
    my $conf = sub {
        my %in = @_;
        $_ ||= '' for @in{qw/ http server location /};
        return "%%MAIN%%\nhttp { $in{http} server { $in{server} location / { "
            . "$in{location} } } }";
    };
    for my $context (qw/ http server location /) {
        my @lines = map { $line{$_} } sort grep {
            $contexts{$_} =~ /\b$context\b/ } keys %line;
        my ($status, $text) = $n->test_conf($conf->($context => "@lines"
            . ($context eq 'location' ? ' s3_upload;' : '')));
        is($status, 0, "the README's defaults in $context") or diag $text;
    }
    for my $name (sort keys %contexts) {
        my $line = $line{$name} || "$name;";
        for my $context (qw/ http server location /) {
            next if $contexts{$name} =~ /(^|, )$context\b/;
            my ($status, $text) = $n->test_conf($conf->($context => $line));
            like("$status $text", qr/^1 .*"$name" directive is not allowed/,
                "$name not in $context");
        }
    }
    # what the module takes where nothing is said
    my %field = ($source =~
        /^    ngx_http_s3_any\("(\w+)",.*?([\w.]+),\s*[&\w]+\)/msg,
        s3_memory => 'memory', s3_transfer_zone => 'zone_size');
    my %value = (on => 1, off => 0, auto => '\w*AUTO', info => 'NGX_LOG_INFO');
    my %unit = (k => 1 << 10, m => 1 << 20, s => 1000);
    for my $name (sort keys %field) {
        my ($merged) = $source =~ /ngx_conf_(?:merge|init)_(?:\w+_)?value\(\w+->
            \Q$field{$name}\E,\s*(?:prev->[\w.]+,\s*)?([^;]*)\);/x or next;
        next if $defaults{$name} !~ /^(\d+)([kms]?)$|^(on|off|auto|info)$/;
        my $want = defined $3 ? $value{$3} : $1 * ($unit{$2} || 1);
        $merged = eval $merged if $merged =~ /^[\d *]+$/;
        like($merged, qr/^$want$/, "$name: its default");
        $compared++;
    }
    cmp_ok($compared, '>=', 15, 'defaults compared');

    my ($status, $text) = $n->test_conf($conf->(server => "$line{s3_endpoint} "
        . "$line{s3_bucket} $line{s3_credentials}",
        location => 'if ($arg_a) { s3_upload; } if ($arg_b) { s3_status; } '
        . 'limit_except GET { s3_upload a; }'));
    is($status, 0, 'content handlers in if and limit_except') or diag $text;
};

# What is surely a mistake is refused, and the line tells where it is: nginx
# itself names that of the last bracket.
subtest 'what cannot work' => sub {
    my $n = $t->nginx('', start => 0);
    my $test = sub {
        my ($location) = @_;
        my ($status, $text) = $n->test_conf(<<"EOF");
%%MAIN%%
http {
    %%HTTP%%
    %%S3%%
    server { listen 127.0.0.1:%%PORT%%; location /a/ { $location } }
}
EOF
        return "$status $text";
    };
    my $proxy = 'proxy_pass http://127.0.0.1:1;';
    my $ingest = 's3_ingest http://a.test/b';
    my $amazon = 'https://bucket.s3.eu-central-1.amazonaws.com';
    my $in = 'in location "/a/"';
    my @refused = (
        (map { ["s3_${_}_timeout 0; s3_upload;",
            qq("s3_${_}_timeout" directive cannot be 0)] }
            qw/ connect send read /),
        (map { ["s3_transfer_id abc; $_;",
            qq(invalid "s3_transfer_id" "abc" $in, it is 16 to 64)] }
            's3_upload', $ingest, "$proxy s3_tee"),
        ['s3_upload on;', qq("on" is no key of "s3_upload" $in)],
        ['s3_upload off;', qq("off" is no key of "s3_upload" $in)],
        ["$ingest on;", qq("on" is no key of "s3_ingest" $in)],
        ["$proxy s3_tee on;", qq("on" is no key of "s3_tee" $in)],
        ["$proxy s3_tee; s3_tee_min_size 2m; s3_tee_max_size 1m;",
            '"s3_tee_min_size" 2097152 is larger than "s3_tee_max_size" '
            . "1048576 $in"],
        (map { ["s3_status prometheus $_;", '"s3_status" cannot have "'
            . (/id/ ? 'id=' : $_) . '" beside "prometheus"'] }
            'list', 'cancel', 'id=$arg_id'),
        ['s3_status id=abc;', 'invalid "id=abc" in "s3_status"'],
        ['s3_status on;', 'invalid parameter "on" in "s3_status", it takes '
            . 'json or prometheus, list, cancel and id='],
        (map { ["$proxy $_;", '"' . (split)[0] . '" directive cannot stand '
            . 'beside another content handler in one location'] }
            's3_upload', 's3_status', $ingest),
        ['s3_credentials static $key $secret; s3_upload;',
            '"s3_credentials" takes no variables'],
        ["s3_endpoint $amazon; s3_bucket bucket; s3_upload;",
            qq(invalid "s3_endpoint" "$amazon" $in: it begins with the bucket)],
        # (these were refused before, at a place that nobody could find)
        ["s3_endpoint a.test; s3_upload;",
            qq(invalid "s3_endpoint" "a.test" $in: )],
        ["s3_region a/b; s3_upload;", qq(invalid "s3_region" "a/b" $in: )],
        ['s3_credentials env; s3_upload;',
            qq("s3_upload" $in has no credentials: )],
        ['s3_part_size 1m; s3_upload;', "5m to 5g, $in"],
        ['s3_window 20m; s3_upload;', qq("s3_part_size" 16777216 $in)],
        ['s3_window 300m; s3_upload;',
            qq("s3_window" 314572800 + 5m $in in )],
        ['s3_part_size 100m; s3_upload;', qq("s3_window" 524288000 + 5m $in, )
            . 'where it is by default s3_part_size times '],
    );
    for (@refused) {
        my ($location, $message) = @$_;
        like($test->($location), qr/^1 .*\[emerg\].*\Q$message\E/s, $location);
    }
    # (there are modules that call the handler that they found)
    for ('s3_upload', 's3_status', $ingest) {
        my $message = '"' . (split)[0] . qq(" $in does nothing, unless );
        like($test->("$_; $proxy"), qr/^0 .*\[warn\].*\Q$message\E/s,
            "$_, and another handler after it");
    }
    like($test->($_), qr/^0 /, "taken: $_") for
        's3_queue_timeout 0; s3_retry_timeout 0; s3_keepalive_timeout 0;'
            . ' s3_upload;',
        's3_transfer_id ""; s3_upload;', 's3_transfer_id a$arg_id; s3_upload;',
        "s3_upload; limit_except PUT { $proxy }",
        "$proxy if (\$arg_a) { s3_upload; } limit_except GET { s3_upload; }",
        "s3_upload; if (\$arg_a) { $proxy }",
        "$proxy s3_tee off; s3_tee_min_size 2m; s3_tee_max_size 1m;",
        "$proxy s3_tee; s3_tee_min_size 2m; s3_tee_max_size 0;",
        "s3_endpoint $amazon; s3_bucket other; s3_upload;",
        "s3_endpoint $amazon; s3_bucket bucke; s3_upload;",
        's3_endpoint https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com;'
            . ' s3_bucket bucket; s3_upload;',
        's3_endpoint http://bucket.test; s3_bucket bucket; s3_upload;';
};
