package S3T::Zone;

# What is in a worker's s3_transfer_zone, written from outside (root):
#
#   make_dirty($pid)               as a worker leaves it that dies in a change;
#                                  whoever takes the lock next builds it anew
#   fill_zone($pid, $id, \@ids)    so many records more, each a copy of the
#                                  finished one of $id but for its own id, of
#                                  the same length; finished => ms ago (0)
#
#   date_ahead($pid, $id, $ms)     the count of this one that runs as a worker
#                                  has read it whose clock is so far ahead
#
# Nobody may be in the zone meanwhile. All say whether it was done.

use strict;
use warnings;
no warnings 'portable';

use Exporter 'import';
use Time::HiRes qw/ time /;

our @EXPORT_OK = qw/ date_ahead fill_zone make_dirty /;

# of a ngx_s3_zone_sh_t (ngx_s3_zone_slots.h): its beginning, and where its
# members are
use constant { MAGIC => 0x6e7a3373, LAYOUT => 5 };
my %at = (dirty => 24, slots => 248, taken => 256, slot => 272, owner => 280);

# of a ngx_s3_zone_slot_t, which begins with the count
my %in_slot = (finished_at => 104, seen_bytes => 112, seen_at => 120);

sub _read {
    my ($mem, $at, $length) = @_;
    sysseek $mem, $at, 0;
    (sysread($mem, my $bytes, $length) || 0) == $length
        or die "zone: nothing to read\n";
    return $bytes;
}

sub _write {
    my ($mem, $at, $bytes) = @_;
    sysseek $mem, $at, 0;
    (syswrite($mem, $bytes) || 0) == length $bytes or die "zone: $!\n";
}

# (handle of the memory, address of the structure in it)
sub _zone {
    my ($pid) = @_;
    open my $maps, '<', "/proc/$pid/maps" or die "maps: $!\n";
    open my $mem, '+<:raw', "/proc/$pid/mem" or die "mem: $!\n";
    for (<$maps>) {
        my ($from, $to) = map { hex } /^(\w+)-(\w+) rw-s/ or next;
        # after the slab pool's own pages, some 24 bytes each
        my $size = int(($to - $from) / 128) + 2 ** 18;
        $size = $to - $from if $size > $to - $from;
        my $head = eval { _read($mem, $from, $size) } or next;
        my $at = index $head, pack 'L2', MAGIC, LAYOUT;
        return ($mem, $from + $at) if $at >= 0;
    }
    die "no zone\n";
}

sub make_dirty {
    my ($mem, $sh) = _zone(@_);
    _write($mem, $sh + $at{dirty}, pack 'Q', 1);
    return 1;
}

# how large a slot is, and the zone's members by name
sub _members {
    my ($mem, $sh) = @_;
    return (unpack('Q', _read($mem, $sh + 8, 8)), map {
        $_ => unpack 'Q', _read($mem, $sh + $at{$_}, 8) } keys %at);
}

sub date_ahead {
    my ($pid, $id, $ms) = @_;
    my ($mem, $sh) = _zone($pid);
    my ($size, %sh) = _members($mem, $sh);
    my ($at) = grep { index(_read($mem, $_, $size), "\0$id\0") >= 0 }
        map { $sh{slot} + $_ * $size } 0 .. $sh{taken} - 1;
    defined $at or die "zone: no $id\n";
    _write($mem, $at + $in_slot{seen_bytes}, _read($mem, $at, 8));
    _write($mem, $at + $in_slot{seen_at}, pack 'Q', time * 1000 + $ms);
    return 1;
}

sub fill_zone {
    my ($pid, $id, $ids, %o) = @_;
    my ($mem, $sh) = _zone($pid);
    my ($size, %sh) = _members($mem, $sh);

    # the owners stand after the slots
    $sh{owner} == $sh{slot} + $sh{slots} * $size && $sh{taken}
        && $sh{taken} + @$ids <= $sh{slots} or die "zone: unlike $size\n";
    my ($slot) = grep { index($_, "\0$id\0") >= 0 }
        map { _read($mem, $sh{slot} + $_ * $size, $size) } 0 .. $sh{taken} - 1;
    defined $slot or die "zone: no $id\n";
    substr($slot, $in_slot{finished_at}, 8) =
        pack 'Q', time * 1000 - ($o{finished} || 0);
    my $place = 1 + index $slot, "\0$id\0";

    my $at = $sh{slot} + $sh{taken} * $size;
    my @left = @$ids;
    while (my @some = splice @left, 0, 4096) {
        my $bytes = $slot x @some;
        substr($bytes, $_ * $size + $place, length $id) = $some[$_]
            for 0 .. $#some;
        _write($mem, $at, $bytes);
        $at += length $bytes;
    }
    _write($mem, $sh{owner} + 4 * $sh{taken}, pack 'L*', (0) x @$ids);
    _write($mem, $sh + $at{taken}, pack 'Q', $sh{taken} + @$ids);
    return make_dirty($pid);
}

1;
