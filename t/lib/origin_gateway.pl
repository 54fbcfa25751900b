#!/usr/bin/perl

# origin_gateway.pl PORT DIRECTORY: an application behind uwsgi or scgi, which
# it tells by the first byte of a request. It serves the files of a directory;
# ?length says how many bytes come, ?chunked that they come in chunks, which no
# gateway has; ?cut=N breaks off after N of them.

use strict;
use warnings;

use IO::Socket::INET;

my ($port, $files) = @ARGV;

$SIG{CHLD} = 'IGNORE';
$SIG{PIPE} = 'IGNORE';

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
    LocalPort => $port, Listen => 16, ReuseAddr => 1) or die "listen: $!";

while (my $c = $listener->accept) {
    next if fork;
    serve($c);
    exit;
}


sub some {
    my ($c, $n) = @_;
    my $bytes = '';
    while (length $bytes < $n) {
        $c->sysread($bytes, $n - length $bytes, length $bytes) or exit;
    }
    return $bytes;
}

sub variables {
    my ($c) = @_;
    my $first = some($c, 1);

    if ($first =~ /\d/) {
        $first .= some($c, 1) while $first !~ /:\z/;
        my %is = split /\0/, some($c, $first =~ /(\d+)/ && $1 + 1), -1;
        return \%is;
    }

    my $text = some($c, unpack 'v', some($c, 3));
    my %is = unpack '(v/a)*', $text;
    return \%is;
}

sub serve {
    my ($c) = @_;
    my $is = variables($c);
    my ($path, $query) = ($is->{REQUEST_URI} =~ m{([^/?]+)(?:\?(.*))?\z});
    open my $fh, '<:raw', "$files/$path" or die "$path: $!";
    my $size = -s $fh;
    my $left = ($query || '') =~ /cut=(\d+)/ ? $1 : $size;

    print $c "Status: 200 OK\r\nContent-Type: application/octet-stream\r\n",
        ($query || '') =~ /length/ ? "Content-Length: $size\r\n" : '',
        ($query || '') =~ /chunked/ ? "Transfer-Encoding: chunked\r\n" : '',
        "\r\n";

    while ($left > 0) {
        my $n = read $fh, my $bytes, $left < 65536 ? $left : 65536 or last;
        print $c $bytes;
        $left -= $n;
    }
    $c->flush;
    close $c;
}
