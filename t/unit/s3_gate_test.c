#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "s3_gate.h"


#define MIB  1048576ULL


static const s3_gate_conf_t  defaults = { 100, 100 * MIB, 65536 };


static uint64_t
step_of(uint32_t percent, uint64_t bytes, uint64_t min, int64_t total)
{
    s3_gate_t       g;
    s3_gate_conf_t  conf;

    conf.percent = percent;
    conf.bytes = bytes;
    conf.min = min;

    s3_gate_init(&g, &conf, total);
    assert_true(g.next == g.step);

    return g.step;
}


/* openings while `size` bytes pass in chunks; *chunks counts those */

static unsigned
openings(int64_t total, uint64_t size, uint64_t chunk, unsigned *chunks)
{
    unsigned   n;
    uint64_t   bytes, last;
    s3_gate_t  g;

    s3_gate_init(&g, &defaults, total);

    n = 0;
    last = 0;
    bytes = 0;
    *chunks = 0;

    while (bytes < size) {
        bytes += chunk;

        if (bytes > size) {
            bytes = size;
        }

        (*chunks)++;

        /* the rule as it is defined, beside the threshold */

        assert_int_equal(s3_gate_test(&g, bytes), bytes - last >= g.step);

        if (s3_gate_test(&g, bytes)) {
            s3_gate_open(&g, bytes);
            last = bytes;
            n++;
        }
    }

    return n;
}


/* every opening at the first byte that allows it */

static uint64_t
most_openings(int64_t total)
{
    uint64_t   n;
    s3_gate_t  g;

    s3_gate_init(&g, &defaults, total);

    for (n = 0; g.next <= (uint64_t) total; n++) {
        s3_gate_open(&g, g.next);
    }

    return n;
}


static void
test_step(void **state)
{
    (void) state;

    /* 1 % rounded up, 100 MiB, 64 KiB */

    assert_true(step_of(100, 100 * MIB, 65536, 9029243448) == 90292435);
    assert_true(step_of(100, 100 * MIB, 65536, 10000000) == 100000);
    assert_true(step_of(100, 100 * MIB, 65536, 10000001) == 100001);
    assert_true(step_of(100, 100 * MIB, 65536, 10485760000) == 100 * MIB);
    assert_true(step_of(100, 100 * MIB, 65536, 10485760001) == 100 * MIB);
    assert_true(step_of(100, 100 * MIB, 65536, 10485759900) == 104857599);
    assert_true(step_of(100, 100 * MIB, 65536, 6553600) == 65536);
    assert_true(step_of(100, 100 * MIB, 65536, 6553601) == 65537);
    assert_true(step_of(100, 100 * MIB, 65536, 100) == 65536);
    assert_true(step_of(100, 100 * MIB, 65536, 0) == 65536);

    /* unknown */

    assert_true(step_of(100, 100 * MIB, 65536, -1) == 100 * MIB);
    assert_true(step_of(100, 1000, 65536, -1) == 1000);

    /* other shares */

    assert_true(step_of(1, 100 * MIB, 1, 10000) == 1);
    assert_true(step_of(1, 100 * MIB, 1, 10001) == 2);
    assert_true(step_of(9999, 100 * MIB, 1, 10000) == 9999);
    assert_true(step_of(10000, 100 * MIB, 1, 12345) == 12345);
    assert_true(step_of(150, 100 * MIB, 1, 1000) == 15);

    /* never 0 */

    assert_true(step_of(0, 100, 0, 1000) == 1);
    assert_true(step_of(0, 0, 0, -1) == 1);
    assert_true(step_of(100, 0, 0, 1000) == 1);
}


static void
test_step_overflow(void **state)
{
    (void) state;

    assert_true(step_of(100, 100 * MIB, 65536, INT64_MAX) == 100 * MIB);
    assert_true(step_of(100, UINT64_MAX, 65536, INT64_MAX)
                == 92233720368547759ULL);
    assert_true(step_of(10000, UINT64_MAX, 1, INT64_MAX)
                == (uint64_t) INT64_MAX);
    assert_true(step_of(10000, INT64_MAX, 1, INT64_MAX)
                == (uint64_t) INT64_MAX);
    assert_true(step_of(UINT32_MAX, 777, 1, INT64_MAX) == 777);
    assert_true(step_of(UINT32_MAX, UINT64_MAX, 1, INT64_MAX) == UINT64_MAX);
    assert_true(step_of(100, 100, UINT64_MAX, 5) == UINT64_MAX);
}


/* the upload that the gate was made for */

static void
test_large_upload(void **state)
{
    unsigned  n, chunks;

    (void) state;

    n = openings(9029243448, 9029243448, 8192, &chunks);

    assert_int_equal(chunks, 1102203);
    assert_in_range(n, 95, 100);
    assert_int_equal(n, 99);

    n = openings(-1, 9029243448, 8192, &chunks);

    assert_int_equal(chunks, 1102203);
    assert_in_range(n, 85, 86);
}


static void
test_chunk_sizes(void **state)
{
    size_t    i;
    unsigned  n, chunks;

    static const uint64_t  sizes[] = {
        4096, 16384, 65536, 262144, 1000003, 16 * MIB, 90292435, 100 * MIB
    };

    (void) state;

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        n = openings(9029243448, 9029243448, sizes[i], &chunks);
        assert_in_range(n, 1, 100);

        n = openings(-1, 9029243448, sizes[i], &chunks);
        assert_in_range(n, 1, 86);
    }

    /* one chunk with everything opens once */

    assert_int_equal(openings(9029243448, 9029243448, 9029243448, &chunks),
                     1);
    assert_int_equal(chunks, 1);

    /* nothing below the floor */

    assert_int_equal(openings(65535, 65535, 1, &chunks), 0);
    assert_int_equal(openings(65536, 65536, 1, &chunks), 1);
}


static void
test_bounds(void **state)
{
    uint64_t  i, seed, total;

    static const int64_t  totals[] = {
        0, 1, 65535, 65536, 65537, 6553599, 6553600, 6553601, 10485759999,
        10485760000, 10485760001, 10590617600, 53687091200000
    };

    (void) state;

    for (i = 0; i < sizeof(totals) / sizeof(totals[0]); i++) {
        total = (uint64_t) totals[i];
        assert_true(most_openings(totals[i])
                    <= (total <= 10485760000 ? 100 : total / (100 * MIB)));
    }

    seed = 12345;

    for (i = 0; i < 20000; i++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        total = (seed >> 11) % (i % 2 ? 10485760001 : 60000000000);

        assert_true(most_openings((int64_t) total)
                    <= (total <= 10485760000 ? 100 : total / (100 * MIB)));
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_step_overflow),
        cmocka_unit_test(test_large_upload),
        cmocka_unit_test(test_chunk_sizes),
        cmocka_unit_test(test_bounds)
    };

    return cmocka_run_group_tests_name("s3_gate", tests, NULL, NULL);
}
