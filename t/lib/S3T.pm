package S3T;

# The harness of the tests. t/README.md shows how a test is written.
#
#   use S3T;
#   my $t = S3T->new;
#   my $n = $t->nginx(<<'EOF');
#   ...
#   EOF
#   my $r = curl($n->url('/upload/a'), file => data(1 * MB));
#   is($r->{status}, 201, 'stored');
#
# A test makes no plan: when it ends, its nginx is asked to leave and what must
# hold of every test is checked (_checks below).

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw/ basename /;
use File::Path qw/ remove_tree /;
use Test::More ();

use S3T::Curl qw/ curl curl_start h2_put /;
use S3T::DNS;
use S3T::Data qw/ GB KB MB data /;
use S3T::DynamoDB;
use S3T::Fake;
use S3T::Nginx;
use S3T::Origin;
use S3T::Raw qw/ h2_frame /;
use S3T::Redis;
use S3T::S3;
use S3T::Util qw/ $STATE $TOP append children end_child free_port lock_file
    open_dir place read_file spawn state_dir wait_for write_file /;

our @EXPORT = qw/ GB KB MB append curl curl_start data free_port h2_frame
    h2_put place read_file spawn end_child wait_for write_file /;

my $T;                # this file's
my $owner = $$;       # forked children end without checks


$SIG{$_} = sub { exit 1 } for qw/ INT TERM HUP /;


# bucket => 0: without one
sub new {
    my ($class, %o) = @_;
    my $name = basename($0, '.t');
    my $s = $T = bless {
        name => $name, nginx => [],
        allowed => [], expected => [], alerts => [],
        secrets => [qw/ testsecret AWS4-HMAC-SHA256 Credential= /],
        id => sprintf('%s-%04x%04x', lc($name =~ s/[^A-Za-z0-9]+/-/gr),
            $$ & 0xffff, rand 0xffff),
        %o,
    }, $class;

    # held until this process ends
    lock_file(state_dir('services') . '/users', 'shared');
    system("$TOP/t/lib/services", 'start') == 0
        or die "the servers did not start\n";
    my $env = read_file("$STATE/services/env");
    $s->{servers} = { $env =~ /^(\w+)=(.*)$/mg };

    $s->{dir} = open_dir(state_dir('run'), $s->{id});
    $S3T::Curl::DIR = $s->{dir};

    $s->{bucket} = "t$s->{id}" if !defined $s->{bucket};
    $s->s3->create_bucket if $s->{bucket};
    return $s;
}

sub dir { $_[0]{dir} }
sub bucket { $_[0]{bucket} }

# Key prefix of this file's records in Redis, %%PREFIX%%
sub prefix { "$_[0]{id}:" }

# of the shared servers: REDIS_PORT, DYNAMODB_PORT, DYNAMODB_TABLE, RGW_PORT ...
sub server { $_[0]{servers}{$_[1]} }

sub ca { "$STATE/certs/ca.pem" }
sub certs { "$STATE/certs" }

# A client for the bucket of this file, or for another: bucket => NAME
sub s3 {
    my ($s, %o) = @_;
    my $endpoint = 'http://127.0.0.1:' . $s->server('RGW_PORT');
    return S3T::S3->new(endpoint => $endpoint, bucket => $s->{bucket}, %o);
}

sub redis {
    my ($s) = @_;
    return $s->{redis} ||= S3T::Redis->new(port => $s->server('REDIS_PORT'));
}

sub dynamodb {
    my ($s) = @_;
    return S3T::DynamoDB->new(port => $s->server('DYNAMODB_PORT'),
        table => $s->server('DYNAMODB_TABLE'));
}

# What the test must not find in any log or answer, at any level.
sub secret {
    my ($s, @secrets) = @_;
    push @{$s->{secrets}}, @secrets;
}

# [error] and [crit] lines that may come; expect_errors: that must come
sub allow_errors {
    my ($s, @patterns) = @_;
    push @{$s->{allowed}}, @patterns;
}

sub expect_errors {
    my ($s, @patterns) = @_;
    push @{$s->{expected}}, @patterns;
}

# [alert] lines that may come: a worker that the test kills is one
sub allow_alerts {
    my ($s, @patterns) = @_;
    push @{$s->{alerts}}, @patterns;
}

# Leaks that a library makes, by what is on their stacks
sub allow_leaks {
    my ($s, @patterns) = @_;
    push @{$s->{leaks}}, @patterns;
}

# %%NAME%% in configurations, beside those of tokens() and S3T::Nginx
sub token {
    my ($s, %tokens) = @_;
    %{$s->{tokens}} = (%{$s->{tokens} || {}}, %tokens);
}

sub tokens {
    my ($s) = @_;
    return {
        RGW => 'http://127.0.0.1:' . $s->server('RGW_PORT'),
        RGW_SSL => 'https://localhost:' . $s->server('RGW_SSL_PORT'),
        RGW_PORT => $s->server('RGW_PORT'),
        RGW_SSL_PORT => $s->server('RGW_SSL_PORT'),
        BUCKET => $s->{bucket},
        S3 => 's3_endpoint %%RGW%%; s3_bucket %%BUCKET%%;'
            . ' s3_credentials static testaccess testsecret;',
        REDIS => '127.0.0.1:' . $s->server('REDIS_PORT'),
        PREFIX => $s->prefix,
        DYNAMODB => 'http://127.0.0.1:' . $s->server('DYNAMODB_PORT'),
        TABLE => $s->server('DYNAMODB_TABLE'),
        CA => $s->ca, CERTS => $s->certs,
        %{$s->{tokens} || {}},
    };
}

# A running nginx: workers, level, module (0: without ours), env { },
# modules [ ]; start => 0: not yet running
sub nginx {
    my ($s, $conf, %o) = @_;
    my $n = S3T::Nginx->new($conf, %o, tokens => $s->tokens,
        dir => "$s->{dir}/nginx" . @{$s->{nginx}});
    push @{$s->{nginx}}, $n;
    $n->start if !defined $o{start} || $o{start};
    return $n;
}

sub fake {
    my ($s, %o) = @_;
    return S3T::Fake->new(dir => $s->{dir}, %o);
}

# An origin of downloads: 'node', 'python' or 'php'
sub origin {
    my ($s, $kind, %o) = @_;
    return S3T::Origin->new($kind, dir => $s->{dir}, files => $s->files, %o);
}

# The directory of the files that origins serve.
sub files {
    my ($s) = @_;
    my $dir = "$s->{dir}/files";
    mkdir $dir;
    return $dir;
}

# Puts what data() returned there, under a name that ends in .bin if none is
# given: the path in an URL.
sub served {
    my ($s, $d, $name) = @_;
    $name = basename($d->{path}) =~ s/\./-/gr . '.bin' if !defined $name;
    my $path = $s->files . "/$name";
    place($d->{path}, $path) if !-e $path;
    return "/$name";
}

sub dns {
    my ($s, %names) = @_;
    return S3T::DNS->new(dir => $s->{dir}, names => \%names);
}

# A Redis or dynalite of the test's own, to be stopped and started.
sub own_redis {
    my ($s, %o) = @_;
    $s->secret($o{password}) if defined $o{password};
    return S3T::Redis->server(%o);
}

sub own_dynamodb {
    my ($s, %o) = @_;
    return S3T::DynamoDB->server(dir => $s->{dir}, %o);
}

sub raw {
    my ($s, @o) = @_;
    return S3T::Raw->connect(@o);
}


# What must hold of every test.

sub _unexpected {
    my ($s, $path) = @_;
    open my $log, '<', $path or return "$path: $!";
    my @bad;
    while (my $line = <$log>) {
        next if $line !~ /\[(emerg|alert|crit|error)\]/;
        my $level = $1;
        my $known = 0;
        for (@{$s->{expected}}) {
            next if $line !~ $_;
            $known = $s->{seen}{$_} = 1;
        }
        $known ||= grep { $line =~ $_ } @{$s->{allowed}};
        $known = grep { $line =~ $_ } @{$s->{alerts}}
            if $level =~ /emerg|alert/;
        push @bad, $line if !$known;
    }
    return @bad;
}

sub _grep {
    my ($pattern, @paths) = @_;
    my @found;
    for my $path (@paths) {
        open my $log, '<', $path or next;
        while (my $line = <$log>) {
            push @found, "$path: $line" if $line =~ $pattern;
        }
    }
    return @found;
}

# What the sanitizers wrote there, less nginx's own: what it leaves to its end,
# and what is undefined and has no frame of ours on its stack, which is listed.
sub _sanitizer {
    my ($s, $path) = @_;
    my $ours = qr{/(?:ngx_module/ngx_|lib/s3_)\w+\.c:};
    my $text = read_file($path) or return ();
    my (@found, %theirs);
    while ($text =~ /^(.* runtime error: .*\n(?: +#\d+ .*\n)*)/mg) {
        my $report = $1;
        if ($report =~ m{^src/(?:core|event|http|os)/} && $report !~ $ours) {
            $theirs{(split /\n/, $report)[0] =~ s/0x\w+/*/gr . "\n"} = 1;
        } else {
            push @found, $report;
        }
    }
    append("$TOP/build/asan/reports", join '', sort keys %theirs) if %theirs;
    while ($text =~ /^((?:Direct|Indirect) leak .*\n(?: +#\d+ .*\n)*)/mg) {
        my $leak = $1;
        push @found, $leak
            if $leak =~ $ours && !grep { $leak =~ $_ } @{$s->{leaks}};
    }
    # the others whole: their first line may be far from where it says what
    push @found, $text
        if grep { !/LeakSanitizer|leaked in/ } $text =~ /^(.*Sanitizer.*)/mg;
    return map { "$path: $_" } @found;
}

sub _nothing {
    my ($name, @found) = @_;
    Test::More::is(scalar @found, 0, $name)
        or Test::More::diag(map { substr($_, 0, 2000) . "\n" }
            @found[0 .. ($#found > 9 ? 9 : $#found)]);
}

sub _checks {
    my ($s) = @_;
    my @nginx = @{$s->{nginx}};
    my @dirs = map { $_->{dir} } @nginx;

    S3T::Raw::close_all();
    $_->quit for @nginx;
    _nothing('end: nginx leaves by itself', map { $_->hung } @nginx);
    # (nginx -t tells of bad configurations in test.log)
    _nothing('end: no unexpected line in error.log', map { $s->_unexpected($_) }
        (grep { !-e } map { "$_->{dir}/error.log" } grep { $_->{started} }
            @nginx),
        grep { !m{/test\.log$} }
        map { (glob("$_/*.log"), glob("$_/logs/*")) } @dirs);
    _nothing('end: expected lines in error.log',
        grep { !$s->{seen}{$_} } @{$s->{expected}});
    my @said = map { ("$_/stderr", glob("$_/*.log"), glob("$_/*.err"),
        glob("$_/logs/*")) } @dirs;
    _nothing('end: no sanitizer report',
        (map { $s->_sanitizer($_) } (map { glob "$_/san/*" } @dirs), @said));
    my $secret = join '|', map { quotemeta } @{$s->{secrets}};
    _nothing('end: no secret in a log', _grep(qr/$secret/, @said));
    _nothing('end: no secret in an answer', grep { /$secret/ }
        @S3T::Curl::RESPONSES, map { $$_ } @S3T::Raw::ANSWERS);

    if ($s->{bucket}) {
        my @open;
        wait_for { !(@open = $s->s3->uploads) } 30, 0.2;
        _nothing('end: no multipart upload left open',
            map { "$_->[0] $_->[1]" } @open);
    }
}

sub _clean {
    my ($s) = @_;
    S3T::Raw::close_all();
    for my $n (@{$s->{nginx}}) {
        $n->stop;
    }
    end_child($_) for children();
    if ($s->{bucket}) {
        eval { $s->s3->remove; 1 } or Test::More::diag("bucket: $@");
    }
}

END {
    # $? is what the file exits with; commands run here would change it
    my $status = $?;
    if ($T && $$ == $owner) {
        my $s = $T;
        undef $T;
        my $test = Test::More->builder;
        my $checked = $status == 0 && !$test->has_plan;
        eval { $s->_checks if $checked; 1 }
            or Test::More::ok(0, "end: $@");
        $s->_clean;
        if ($checked) {
            _nothing('end: no process left', children());
            $test->done_testing;
        }
        if ($status == 0 && $test->is_passing) {
            remove_tree($s->{dir});
        } else {
            Test::More::diag("logs: $s->{dir}");
        }
    }
    $? = $status;
}

1;
