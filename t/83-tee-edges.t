#!/usr/bin/perl

# s3_tee where nginx itself is not sure of the end, where a client leaves in an
# awkward moment, and where S3 is slow: no object that is not whole, no client
# that suffers, and a status that is true.

use strict;
use warnings;

use lib 't/lib';
use Digest::SHA qw/ sha256_hex /;
use IO::Socket::INET;
use JSON::PP ();
use Test::More;
use S3T;
use S3T::Tee;
use S3T::Util qw/ wait_exit /;

my $t = S3T->new;

# FastCGI that ends its response as the protocol wants it, or not. QUERY_STRING:
# how=whole, stdout (its end alone), none, middle (of a record); size
my $fastcgi = free_port();

sub record_of {
    my ($type, $content) = @_;
    return pack('CCnnCx', 1, $type, 1, length $content, 0) . $content;
}

sub fastcgi {
    my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 16,
        LocalPort => $fastcgi, ReuseAddr => 1) or die "listen: $!";
    while (my $c = $s->accept) {
        my ($in, $params) = ('', '');
        while (1) {
            my ($type, $length, $padding) = length $in >= 8
                ? (unpack 'xCxxnC', $in) : (0, 0, 0);
            if (length $in >= 8 + $length + $padding && length $in >= 8) {
                my $content = substr $in, 8, $length;
                substr $in, 0, 8 + $length + $padding, '';
                last if $type == 5 && $length == 0;
                $params .= $content if $type == 4;
                next;
            }
            sysread $c, $in, 65536, length $in or last;
        }
        my ($how, $size) = $params =~ /how=(\w+)&size=(\d+)/ or next;
        my $body = 'x' x $size;
        my $out = record_of(6, "Content-Type: text/plain\r\n\r\n");
        $out .= record_of(6, $_) for $body =~ /(.{1,30000})/gs;
        $out .= record_of(6, '') if $how eq 'whole' || $how eq 'stdout';
        $out .= record_of(3, "\0" x 8) if $how eq 'whole';
        $out .= substr record_of(6, 'y' x 5000), 0, 4000 if $how eq 'middle';
        syswrite $c, $out, 65536, 65536 * $_
            for 0 .. int((length($out) - 1) / 65536);
        close $c;
    }
}

my $fcgi_pid = spawn({}, \&fastcgi);

# an S3 that takes its time
my $slow = $t->fake(on => { part => { delay => 3 } });
my $refuses = $t->fake(on => { create => { status => 403, delay => 2 },
    part => { status => 403 }, put => { status => 403 } });
# one that fails in the middle
my $fails = $t->fake(on => { part => [ { delay => 4 },
    ({ delay => 3, status => 403 }) x 20 ] });
my $fake = 's3_bucket bucket; s3_credentials static k s; s3_region r;'
    . ' s3_addressing path; s3_part_size 5m; s3_window 10m;'
    . ' s3_part_concurrency 1;';

my $large = data(24 * MB);
my $path = $t->served($large);
my $small = $t->served(data(1000));
my $files = $t->files;
my $half = "half a page\n" x 200_000;
# (not so small that nginx would keep it for what follows)
my $part = $t->served(data(3000));
write_file("$files/page.html",
    join qq{<!--#include virtual="/plain$part" -->}, $half, $half, $half);
chmod 0644, "$files/page.html";

# for a filter that puts an answer of its own in the place of another (Debian's
# module does not go with the nginx of the sanitizers)
my $image_filter = '/usr/lib/nginx/modules/ngx_http_image_filter_module.so';
my $images = !$ENV{T_ASAN};
my $replaced = !$images ? '' : join '', map { <<"EOC" }
        location /replaced/$_/ {
            s3_tee; s3_tee_on_overrun $_; proxy_buffering off;
            proxy_pass http://127.0.0.1:%%PORT_origin%%/;
            image_filter resize 10 10; recursive_error_pages on;
            error_page 415 = /plain$small;
        }
EOC
    qw/ drop wait /;

my $n = $t->nginx(<<"EOC", workers => 1,
%%MAIN%%
http {
    %%HTTP%%
    $LOG
    fastcgi_cache_path %%DIR%%/cache keys_zone=cache:1m;
    server {
        listen 127.0.0.1:%%PORT_origin%%;
        root $files;
        access_log off;
    }
    server {
        listen 127.0.0.1:%%PORT_paced%%;
        root $files;
        access_log off;
        limit_rate 6m;
    }
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2 sndbuf=16k;
        %%S3%%
        s3_transfer_id \$asked;
        location /left/ {
            s3_tee; proxy_pass http://127.0.0.1:%%PORT_paced%%/;
            proxy_ignore_client_abort on;
        }
        location /leftun/ {
            s3_tee; proxy_pass http://127.0.0.1:%%PORT_paced%%/;
            proxy_ignore_client_abort on; proxy_buffering off;
        }
        location /plain/ { s3_tee; alias $files/; }
        location /ssi/ {
            s3_tee; s3_tee_on_overrun wait; ssi on; alias $files/;
        }
        location /ssiun/ {
            s3_tee; s3_tee_on_overrun wait; ssi on; proxy_buffering off;
            proxy_pass http://127.0.0.1:%%PORT_origin%%/;
        }
        location /add/ {
            s3_tee; s3_tee_on_overrun wait; proxy_max_temp_file_size 0;
            proxy_pass http://127.0.0.1:%%PORT_origin%%/;
            add_before_body /plain$part; add_after_body /plain$part;
        }
$replaced
        fastcgi_param QUERY_STRING \$query_string;
        fastcgi_param REQUEST_METHOD \$request_method;
        location /fcgi/buffered { s3_tee; fastcgi_pass 127.0.0.1:$fastcgi; }
        location /fcgi/unbuffered {
            s3_tee; fastcgi_pass 127.0.0.1:$fastcgi; fastcgi_buffering off;
        }
        location /fcgi/kept {
            s3_tee; fastcgi_pass 127.0.0.1:$fastcgi; fastcgi_keep_conn on;
        }
        location /fcgi/closed {
            s3_tee; fastcgi_pass 127.0.0.1:$fastcgi; s3_tee_close_delimited on;
        }
        location /fcgi/cached {
            s3_tee; fastcgi_pass 127.0.0.1:$fastcgi; fastcgi_cache cache;
            fastcgi_cache_key \$uri; fastcgi_cache_valid 1m;
        }
        location /status/ { s3_status list; }
    }
    server {
        listen 127.0.0.1:%%PORT_slow%%;
        s3_endpoint @{[$slow->url]}; $fake
        s3_transfer_id \$asked;
        s3_tee_on_overrun wait;
        proxy_max_temp_file_size 0;
        location /timeout/ {
            s3_tee; proxy_pass http://127.0.0.1:%%PORT_origin%%/;
            proxy_read_timeout 1s;
        }
        location /timeoutun/ {
            s3_tee; proxy_pass http://127.0.0.1:%%PORT_origin%%/;
            proxy_read_timeout 1s; proxy_buffering off;
        }
        location /limited/ {
            s3_tee; proxy_pass http://127.0.0.1:%%PORT_origin%%/;
            limit_rate 10m;
        }
        location /file/ { s3_tee; alias $files/; }
        location /impatient/ {
            s3_tee; proxy_pass http://127.0.0.1:%%PORT_origin%%/;
            send_timeout 2s;
        }
        location /gone/ {
            s3_tee; proxy_pass http://127.0.0.1:%%PORT_origin%%/;
            proxy_ignore_client_abort on;
        }
        location /status/ { s3_status list; }
    }
    server {
        listen 127.0.0.1:%%PORT_h2fails%% http2 sndbuf=16k;
        s3_endpoint @{[$fails->url]}; $fake
        s3_transfer_id \$asked;
        s3_tries 1;
        s3_tee_on_overrun wait;
        proxy_ignore_client_abort on;
        location /buffered/ {
            s3_tee; proxy_pass http://127.0.0.1:%%PORT_origin%%/;
            proxy_max_temp_file_size 0;
        }
        location /unbuffered/ {
            s3_tee; proxy_pass http://127.0.0.1:%%PORT_origin%%/;
            proxy_buffering off;
        }
        location /abort/ {
            s3_tee; proxy_pass http://127.0.0.1:%%PORT_origin%%/;
            proxy_buffering off; s3_tee_client_abort abort;
        }
        location /plain/ { alias $files/; }
    }
    server {
        listen 127.0.0.1:%%PORT_refuses%%;
        s3_endpoint @{[$refuses->url]}; $fake
        s3_transfer_id \$asked;
        s3_tries 1;
        location /file/ { s3_tee; alias $files/; }
        location /waits/ { s3_tee; s3_tee_on_overrun wait; alias $files/; }
    }
}
EOC
    modules => $images ? [$image_filter] : []);

subtest 'FastCGI that dies' => sub {
    for my $l (qw/ buffered unbuffered kept closed /) {
        for my $how (qw/ whole none middle /) {
            my $name = "$l $how";
            my $id = id($name);
            my $r = curl($n->url("/fcgi/$l-$how?how=$how&size=100000&id=$id"));
            is($r->{status}, 200, "$name: the client's");
            my $is = logged($n, $id);
            is($is->{tee}, $how eq 'whole' ? 'captured' : 'truncated', $name);
            is_final($n, $id, $how eq 'whole' ? 'completed' : 'aborted', $name);
            is(!!$t->s3->head("fcgi/$l-$how"), $how eq 'whole',
                "$name: the object");
        }
    }
    for my $time (qw/ miss hit /) {
        my $id = id("cached $time");
        curl($n->url("/fcgi/cached?how=none&size=100000&id=$id"));
        is(logged($n, $id)->{tee},
            $time eq 'miss' ? 'truncated' : 'close_delimited',
            "$time: an answer that was cut");
    }
    is($t->s3->head('fcgi/cached'), undef, 'no object');
};

# one that is cancelled does not disturb the next on its connection
sub is_cancelled {
    my ($port, $uri, $name, @options) = @_;
    my $answer = $t->dir . '/h2get.out';
    my $pid = spawn({ stdout => $answer }, 't/lib/h2get', $n->port($port), $uri,
        "/plain$small", @options);
    wait_exit($pid, 300);
    is_deeply(JSON::PP::decode_json(read_file($answer)),
        { other => 1000, error => undef }, "$name: the other stream");
}

subtest 'a stream that is cancelled' => sub {
    for my $l (qw/ left leftun /) {
        my $id = id($l);
        is_cancelled('h2', "/$l$path?id=$id", $l);
        is_final($n, $id, 'completed', $l);
        is(logged($n, $id)->{tee}, 'captured', "$l: captured");
        is_deeply([$t->s3->sha256("$l$path")],
            [$large->{sha256}, $large->{size}], "$l: the object");
    }
};

# what is held up by a subrequest goes on after it
subtest 'subrequests' => sub {
    my $included = read_file("$files$part");
    my $page = read_file("$files/page.html");
    my $made = join $included, $half, $half, $half;
    my %is = (ssi => $made, ssiun => $made,
        add => $included . $page . $included);
    for my $l (sort keys %is) {
        my $id = id($l);
        my $r = curl($n->url("/$l/page.html?id=$id"), timeout => 120);
        is(sha256_hex($r->{body}), sha256_hex($is{$l}), "$l: the client's");
        is(logged($n, $id)->{tee}, 'captured', "$l: captured");
        is_final($n, $id, 'completed', $l);
        is_deeply([$t->s3->sha256("$l/page.html")],
            [sha256_hex($page), length $page], "$l: the object");
    }
};

subtest 'S3 is slow' => sub {
    my %started = map {
        $_ => curl_start($n->url("/$_$path?id=" . id("slow $_"), 'slow'))
    } qw/ timeout timeoutun limited file impatient /;
    for my $l (sort keys %started) {
        my $r = $started{$l}->wait;
        is($r->{exit}, 0, "$l: the client has all");
        is(sha256_hex($r->{body}), $large->{sha256}, "$l: as it is");
        is(logged($n, id("slow $l"))->{tee},
            $l eq 'impatient' ? 'overrun' : 'captured', "$l: the copy");
    }
};

# (of the second the end comes when the window is full)
for my $d ($large, data(20 * MB + 20_000)) {
    subtest "S3 is slow, the client has left, $d->{size} bytes" => sub {
        my $path = $t->served($d);
        my $id = id("gone $d->{size}");
        my $c = curl_start($n->url("/gone$path?id=$id", 'slow'));
        wait_for { (record($n, $id)->{bytesTransferred} || 0) > 9 * MB };
        $c->kill('KILL');
        is_final($n, $id, 'completed', 'gone');
        is(logged($n, $id)->{tee}, 'captured', 'captured');
        my ($complete) = grep { $_->{path} =~ m{/gone\Q$path\E$} }
            $slow->requests('complete');
        ok($complete, 'S3 was told so');
        my $body = read_file($d->{path});
        my $from = 0;
        for my $part (sort { $a->{query}{partNumber} <=> $b->{query}{partNumber} }
            grep { $_->{path} eq $complete->{path} } $slow->requests('part'))
        {
            is($part->{sha256},
                sha256_hex(substr $body, $from, $part->{length}),
                "part $part->{query}{partNumber}");
            $from += $part->{length};
        }
        is($from, $d->{size}, 'all parts');
    };
}

subtest 'S3 refuses' => sub {
    my %is = ("file$small" => 'captured', "waits$small" => 'captured',
        "waits$path" => 'failed');
    for my $l (sort keys %is) {
        my $id = id($l);
        my $r = curl($n->url("/$l?id=$id", 'refuses'));
        is($r->{exit}, 0, "$l: the client has all");
        is(logged($n, $id)->{tee}, $is{$l}, "$l: the status");
    }
};

# the requests end: else nginx does not
subtest 'a stream that is cancelled while S3 is slow, and then fails' => sub {
    for my $l (qw/ buffered unbuffered abort /) {
        my $id = id("fails $l");
        is_cancelled('h2fails', "/$l$path?id=$id", $l, '--all');
        ok(logged($n, $id, 60)->{tee}, "$l: it ends");
    }
};

subtest 'an answer that is replaced' => sub {
    for my $l (qw/ drop wait /) {
        my $id = id("replaced $l");
        my $r = curl($n->url("/replaced/$l$path?id=$id"));
        is(length $r->{body}, 1000, "$l: the client has it");
        is(logged($n, $id)->{tee}, 'truncated', "$l: the status");
        is_final($n, $id, 'aborted', $l);
        is($t->s3->head("replaced/$l$path"), undef, "$l: no object");
    }
} if $images;

$t->expect_errors(qr/upstream prematurely closed/);
$t->allow_errors(qr/403|image filter: too big/);

end_child($fcgi_pid);
