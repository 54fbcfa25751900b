package S3T::Nginx;

# One nginx with the module, from the text of its configuration.

use strict;
use warnings;

use List::Util qw/ max /;
use Time::HiRes qw/ time /;

use S3T::Util qw/ $TOP free_port read_file spawn wait_exit wait_for write_file /;

my $debian = -x '/usr/sbin/nginx' ? '/usr/sbin/nginx' : 'nginx';

# Made by S3T's nginx(): dir, tokens { }, workers, connections (of each), level,
# module, env { }, modules [ ] (more to load, after ours)
sub new {
    my ($class, $conf, %o) = @_;
    my $s = bless { workers => 1, module => 1, level => 'info',
        connections => 2048, %o }, $class;
    $s->{level} = $ENV{T_LEVEL} if $ENV{T_LEVEL};
    mkdir $_ for $s->{dir}, "$s->{dir}/temp";
    # workers leave their findings there, and they are not root
    mkdir "$s->{dir}/san" and chmod 01777, "$s->{dir}/san";
    $s->conf($conf);
    return $s;
}

# The configuration for the next start or reload.
sub conf {
    my ($s, $conf) = @_;
    write_file("$s->{dir}/nginx.conf", $s->expand($conf));
}

sub module_path {
    my $dir = $ENV{T_ASAN} ? 'build/asan' : 'build';
    return $ENV{T_MODULE} || "$TOP/$dir/ngx_http_s3_transfer_module.so";
}

# the nginx that runs: under T_ASAN one with the sanitizers
sub binary {
    return $ENV{T_ASAN} ? "$TOP/build/asan/nginx" : $debian;
}

sub _main {
    my ($s) = @_;
    my $dir = $s->{dir};
    return join "\n",
        $s->{module} ? 'load_module ' . module_path() . ';' : '',
        (map { "load_module $_;" } @{$s->{modules} || []}),
        $> == 0 ? 'user www-data;' : '',
        'daemon off;', "pid $dir/nginx.pid;", "worker_processes $s->{workers};",
        "error_log $dir/error.log $s->{level};",
        "events { worker_connections $s->{connections}; }";
}

sub _http {
    my ($s) = @_;
    my $dir = $s->{dir};
    return join "\n    ", "access_log $dir/access.log;", (map {
        "${_}_temp_path $dir/temp/$_;" } qw/ client_body proxy fastcgi uwsgi
        scgi /), 'client_max_body_size 0;',
        $s->{module} && $ENV{T_ZERO_COPY}
            ? "s3_zero_copy $ENV{T_ZERO_COPY};" : ();
}

sub expand {
    my ($s, $text) = @_;
    my %tokens = (MAIN => $s->_main, HTTP => $s->_http, DIR => $s->{dir},
        MODULE => module_path(), %{$s->{tokens}});
    for (1 .. 3) {
        $text =~ s/%%(\w+)%%/
            defined $tokens{$1} ? $tokens{$1}
            : $1 =~ m{^PORT(?:_(\w+))?$} ? $s->port($1)
            : die "unknown token $1"/gex;
    }
    return $text;
}

# %%PORT%% is port(), %%PORT_tls%% is port('tls')
sub port {
    my ($s, $name) = @_;
    return $s->{ports}{defined $name ? $name : ''} ||= free_port();
}

# url('/upload/a'), url('/upload/a', 'h2'); a port whose name begins with tls
# has https and a name that its certificate knows
sub url {
    my ($s, $path, $name) = @_;
    my $origin = ($name || '') =~ /^tls/ ? 'https://localhost'
        : 'http://127.0.0.1';
    return "$origin:" . $s->port($name) . $path;
}

sub _environment {
    my ($s) = @_;
    my %env = %{$s->{env} || {}};
    return \%env if !$ENV{T_ASAN};
    my $path = "$s->{dir}/san";
    return {
        ASAN_OPTIONS => "detect_odr_violation=0:log_path=$path/asan"
            . ':detect_stack_use_after_return=1:fast_unwind_on_malloc=0'
            # t/lib/torture.c comes before them
            . ':verify_asan_link_order=0',
        UBSAN_OPTIONS => "print_stacktrace=1:log_path=$path/ubsan",
        %env,
    };
}

sub start {
    my ($s) = @_;
    my $dir = $s->{dir};
    unlink "$dir/nginx.pid";
    $s->{pid} = spawn({ env => $s->_environment, stderr => "$dir/stderr" },
        binary(), '-p', $dir, '-e', "$dir/error.log",
        '-c', "$dir/nginx.conf");
    $s->{began}{$s->{pid}} = _began($s->{pid});
    my $gone;
    wait_for {
        $gone = defined wait_exit($s->{pid}, 0.001);
        $gone || -s "$dir/nginx.pid" && $s->workers >= $s->{workers};
    } 60;
    if ($gone || !$s->workers) {
        delete $s->{pid} if $gone;
        die "nginx did not start: " . (read_file("$dir/stderr") || '')
            . $s->log;
    }
    $s->{started} = 1;
    return $s;
}

# For nginx -t, which leaves its memory to the system.
sub test_environment {
    my ($s) = @_;
    my $env = $s->_environment;
    $env->{ASAN_OPTIONS} .= ':detect_leaks=0' if $env->{ASAN_OPTIONS};
    return $env;
}

# nginx -t: exit status and what it said, which stays for the end's checks.
sub test_conf {
    my ($s, $conf) = @_;
    my $dir = $s->{dir};
    my $path = write_file("$dir/test.conf", $s->expand($conf));
    my $said = "$dir/test-" . ++$s->{tests} . '.err';
    my $pid = spawn({ env => $s->test_environment, stderr => $said },
        binary(), '-t', '-p', $dir, '-e', "$dir/test.log", '-c', $path);
    my $status = wait_exit($pid, 120);
    return (defined $status ? $status >> 8 : -1, read_file($said));
}

sub pid {
    my ($s) = @_;
    return $s->{pid};
}

# When a process began, 0 once it is over: its id may come back as another's.
sub _began {
    my ($pid) = @_;
    my ($state, @fields) = split ' ',
        ((read_file("/proc/$pid/stat") || '') =~ /.*\) (.*)/s)[0] || 'Z';
    return $state eq 'Z' ? 0 : $fields[18];
}

sub _children {
    my ($s) = @_;
    return () if !$s->{pid};
    my @pids;
    for my $path (glob '/proc/[0-9]*/stat') {
        my $stat = read_file($path) or next;
        my ($pid) = $stat =~ /^(\d+)/;
        my ($parent) = $stat =~ /.*\) \S (\d+)/s;
        next if $parent != $s->{pid};
        $s->{began}{$pid} = _began($pid);
        push @pids, [$pid, read_file("/proc/$pid/cmdline") || ''];
    }
    return @pids;
}

# ids of the workers that take connections
sub workers {
    my ($s) = @_;
    return map { $_->[0] } grep { $_->[1] =~ /worker process(?! is shutting)/ }
        $s->_children;
}

# ids of those that finish what they have; one that exits has no command line
# any more, and is there until the master has waited for it
sub leaving_workers {
    my ($s) = @_;
    return map { $_->[0] } grep { $_->[1] =~ /\A\z|is shutting down/ }
        $s->_children;
}

# Returns once the new workers are there.
sub reload {
    my ($s) = @_;
    my %old = map { $_, 1 } $s->workers;
    kill 'HUP', $s->{pid};
    return wait_for {
        (grep { !$old{$_} } $s->workers) >= $s->{workers}
            && !grep { $old{$_} } $s->workers;
    } 60;
}

# Asks it to leave and ends by force what stays of it, master and workers: that
# is remembered for the end of the test.
sub _leave {
    my ($s, $signal, $timeout) = @_;
    my $end = time + $timeout;
    $s->_children;
    my $pid = delete $s->{pid};
    my %began = %{delete $s->{began} || {}};
    my $status = 0;
    if ($pid) {
        kill $signal, $pid;
        $status = wait_exit($pid, $timeout);
    }
    my @stay;
    wait_for {
        @stay = grep { $began{$_} && $began{$_} == _began($_) } keys %began;
        return !@stay;
    } defined $status ? max(2, $end - time) : 0.001;
    if (!defined $status) {           # first, so that it starts no other
        kill 'KILL', $pid;
        wait_exit($pid, 60);
    }
    kill 'KILL', @stay;
    push @{$s->{hung}}, "$s->{dir}: killed after $signal: @stay" if @stay;
    push @{$s->{hung}}, "$s->{dir}: ended by signal " . ($status & 127)
        if $status && $status & 127;
    return !@stay && defined $status && !($status & 127);
}

# Gracefully: true when all of it left by itself in time (seconds).
sub quit {
    my ($s, $timeout) = @_;
    return $s->_leave('QUIT', $timeout || 40);
}

# At once.
sub stop {
    my ($s) = @_;
    return $s->_leave('TERM', 60);
}

# what did not leave when it was asked to
sub hung { return @{$_[0]{hung} || []} }

sub log {
    my ($s) = @_;
    return read_file("$s->{dir}/error.log") || '';
}

sub access_log {
    my ($s) = @_;
    return read_file("$s->{dir}/access.log") || '';
}

# CPU seconds and peak resident bytes of a worker
sub usage {
    my ($s, $pid) = @_;
    my ($ns) = split / /, read_file("/proc/$pid/schedstat");
    my ($peak) = read_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+)/m;
    return ($ns / 1e9, $peak * 1024);
}

1;
