package S3T::Seed;

# The case that the gate was made for: 9,029,243,448 bytes go into the null S3,
# and Redis and DynamoDB are told of it in some hundred records. What holds of
# these, whichever door the bytes come through.
#
#   my $seed = S3T::Seed->new($t);      # servers, %%SEED%%, %%NULL%%
#   my $n = $t->nginx(...);             # s3_status at /transfers/
#   my ($openings, $chunks, @lines) = $seed->told($n, $id, sub { ... });
#   $seed->stop(2);                     # so many are stored

use strict;
use warnings;

use Exporter 'import';
use JSON::PP ();
use List::Util qw/ uniq /;
use Test::More;

use S3T::Curl qw/ curl /;
use S3T::Null;
use S3T::Util qw/ wait_for /;

use constant SIZE => 9_029_243_448;

our @EXPORT_OK = qw/ SIZE /;

sub new {
    my ($class, $t) = @_;
    my $s = bless {
        null => S3T::Null->new($t->dir, '--verify'),
        redis => $t->own_redis,
        dynamodb => $t->fake,
    }, $class;
    $s->{monitor} = $s->{redis}->monitor($t->dir . '/monitor');
    $t->token(NULL => $s->{null}->url,
        OWN_REDIS => "127.0.0.1:$s->{redis}{port}",
        FAKE => $s->{dynamodb}->url, SEED => <<'EOF');
    s3_progress_redis redis://%%OWN_REDIS%% prefix=seed:;
    s3_progress_dynamodb %%FAKE%% table=seeds;
    s3_progress_dynamodb_credentials static testaccess testsecret;
    s3_endpoint %%NULL%%;
    s3_bucket seeds;
    s3_credentials static testaccess testsecret;
    s3_payload_signature off;
    s3_transfer_id $arg_id;
EOF
    return $s;
}

sub null { $_[0]{null} }

sub totals { curl($_[0]->url('/transfers/'))->{json}{totals} }

# What Redis stored of a transfer, as its script's HSET names it
sub _in_redis {
    my ($s, $id) = @_;
    my $string = qr/"((?:[^"\\]|\\.)*)"/;
    return map { +{ map { s/\\(.)/$1/gr } /$string/g } }
        map { s/.*"seed:\Q$id\E" //r }
        grep { /lua\] "HSET"/i } $s->{monitor}->lines("\"seed:$id\"");
}

# What DynamoDB was told
sub _in_dynamodb {
    my ($s, $id) = @_;
    return grep { $_->{transferId} eq $id } map {
        my $item = JSON::PP->new->utf8->decode($_->{body})->{Item};
        +{ map { $_ => (values %{$item->{$_}})[0] } keys %$item };
    } $s->{dynamodb}->requests('PutItem');
}

# What holds of a store's records, in the order in which it was told; $handed
# were handed to it
sub _records {
    my ($store, $handed, @records) = @_;
    my @order = uniq map { "$_->{attempt} $_->{sequence}" } @records;
    cmp_ok(scalar @order, '<=', $handed, "$store: records")
        or diag explain \@order;
    cmp_ok(scalar @order, '<=', 103, "$store: at most 103");
    cmp_ok(scalar @order, '>=', 3, "$store: but some");
    is(scalar @records, scalar @order, "$store: each once");
    is(scalar(uniq map { $_->{attempt} } @records), 1, "$store: one attempt");
    is(scalar(grep { $records[$_]{sequence} <= $records[$_ - 1]{sequence} }
        1 .. $#records), 0, "$store: in order");
    my $last = $records[-1];
    is_deeply([@$last{qw/ state bytesTransferred bytesStored totalBytes
        percentage sequence /}],
        ['completed', SIZE, SIZE, SIZE, 100, $handed], "$store: the last one");
    return $last;
}

# What the stores are told while the code runs, which has one transfer of SIZE
# bytes with that id done; beside those of the gate there are $beside records
# (3: it began, it is whole, it is complete). Returns openings, chunks and the
# log's progress lines.
sub told {
    my ($s, $n, $id, $code, $beside) = @_;
    $beside ||= 3;
    my $before = totals($n);
    $code->();

    wait_for { my $after = totals($n);
        $after->{redis}{writes} - $before->{redis}{writes}
            + $after->{redis}{replaced} - $before->{redis}{replaced}
            == $after->{redis}{records} - $before->{redis}{records}
        && grep { $_->{state} eq 'completed' } $s->_in_dynamodb($id) };
    my $after = totals($n);
    my $openings = $after->{openings} - $before->{openings};
    my $handed = $openings + $beside;

    my $last = _records('Redis', $handed, $s->_in_redis($id));
    is_deeply($s->{redis}->hgetall("seed:$id"), $last, 'Redis: what it holds');
    my $item = _records('DynamoDB', $handed, $s->_in_dynamodb($id));
    delete $item->{ttl};
    is_deeply($item, $last, 'DynamoDB: the same');

    for my $store (qw/ redis dynamodb /) {
        my %n = map { $_ => $after->{$store}{$_} - $before->{$store}{$_} }
            qw/ records writes replaced dropped errors /;
        is($n{records}, $handed, "$store: handed over");
        is($n{writes} + $n{replaced}, $n{records},
            "$store: written or replaced");
        is($n{dropped} + $n{errors}, 0, "$store: nothing lost");
    }
    is($after->{bytesTransferred} - $before->{bytesTransferred}, SIZE,
        'bytes counted');

    my @lines = grep { /Progress: .*transfer: \Q$id\E/ } split /\n/, $n->log;
    is(scalar @lines, $openings, 'a line an opening');

    return ($openings, $after->{chunks} - $before->{chunks}, @lines);
}

# S3 has so many, byte for byte, and the servers end
sub stop {
    my ($s, $count) = @_;
    my $stats = $s->{null}->stats;
    is_deeply([@$stats{qw/ bad cut bytes objects open_uploads /}],
        [0, 0, $count * SIZE, $count, 0], 'S3 has all, byte for byte');
    $s->{$_}->stop for qw/ monitor null redis dynamodb /;
}

1;
