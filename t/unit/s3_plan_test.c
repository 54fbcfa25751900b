#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "s3_plan.h"


#define GIB  (1024 * S3_MIB)
#define TIB  (1024 * GIB)


typedef struct {
    unsigned  parts;
    uint64_t  sum;
    uint64_t  first;
    uint64_t  largest;
    uint64_t  last;
} cut_t;


/* gives out every part and holds each against S3's limits */

static void
cut(s3_plan_t *p, cut_t *c)
{
    uint64_t  n, prev;

    memset(c, 0, sizeof(cut_t));
    prev = 0;

    for ( ;; ) {
        n = s3_plan_next(p);

        if (n == 0) {
            break;
        }

        /* only the last part may be small */

        assert_true(prev == 0 || prev >= p->limits->min_part);
        assert_true(n <= p->cap);
        assert_true(n <= p->limits->max_part);

        if (c->parts == 0) {
            c->first = n;
        }

        c->parts++;
        c->sum += n;
        c->last = n;
        c->largest = (n > c->largest) ? n : c->largest;
        prev = n;

        assert_int_equal(p->planned, c->sum);
        assert_int_equal(p->parts, c->parts);
    }

    assert_true(c->parts <= p->limits->max_parts);
    assert_true(c->sum <= p->limits->max_object);
    assert_int_equal(s3_plan_next(p), 0);
}


static void
test_limits(void **state)
{
    (void) state;

    assert_int_equal(s3_limits_aws.min_part, 5242880);
    assert_int_equal(s3_limits_aws.max_part, 5368709120);
    assert_int_equal(s3_limits_aws.max_put, 5368709120);
    assert_int_equal(s3_limits_aws.max_object, 53687091200000);
    assert_int_equal(s3_limits_aws.max_parts, 10000);

    assert_int_equal(s3_limits_default.min_part, 5242880);
    assert_int_equal(s3_limits_default.max_object, 5 * TIB);
    assert_int_equal(s3_limits_default.max_parts, 10000);
}


static void
test_known(void **state)
{
    cut_t      c;
    size_t     i, j;
    uint64_t   total;
    s3_plan_t  p;

    static const int64_t  around[] = { -2, -1, 0, 1, 2 };

    (void) state;

    for (i = 0; i < 5; i++) {
        for (j = 1; j < 40; j++) {

            total = j * 16 * S3_MIB + around[i];

            assert_int_equal(s3_plan_init(&p, &s3_limits_default,
                                          16 * S3_MIB, 80 * S3_MIB,
                                          total), S3_OK);
            assert_int_equal(s3_plan_single(&p), total <= 16 * S3_MIB);

            cut(&p, &c);

            assert_int_equal(c.sum, total);
            assert_int_equal(c.parts, (total + 16 * S3_MIB - 1)
                                      / (16 * S3_MIB));
            assert_int_equal(c.last, total - (c.parts - 1) * 16 * S3_MIB);
        }
    }

    /* the file of 9,029,243,448 bytes */

    assert_int_equal(s3_plan_init(&p, &s3_limits_default, 16 * S3_MIB,
                                  80 * S3_MIB, 9029243448), S3_OK);
    cut(&p, &c);
    assert_int_equal(c.sum, 9029243448);
    assert_int_equal(c.parts, 539);
}


static void
test_single(void **state)
{
    s3_plan_t    p;
    s3_limits_t  limits;

    (void) state;

    assert_int_equal(s3_plan_init(&p, &s3_limits_aws, 16 * S3_MIB,
                                  80 * S3_MIB, 0), S3_OK);
    assert_true(s3_plan_single(&p));
    assert_int_equal(s3_plan_next(&p), 0);

    assert_int_equal(s3_plan_init(&p, &s3_limits_aws, 16 * S3_MIB,
                                  80 * S3_MIB, 1), S3_OK);
    assert_true(s3_plan_single(&p));
    assert_int_equal(s3_plan_next(&p), 1);
    assert_true(s3_plan_single(&p));
    assert_int_equal(s3_plan_next(&p), 0);

    assert_int_equal(s3_plan_init(&p, &s3_limits_aws, 16 * S3_MIB,
                                  80 * S3_MIB, -1), S3_OK);
    assert_false(s3_plan_single(&p));

    /* a server whose PutObject takes less than one part */

    limits = s3_limits_aws;
    limits.max_put = 8 * S3_MIB;

    assert_int_equal(s3_plan_init(&p, &limits, 16 * S3_MIB, 80 * S3_MIB,
                                  8 * S3_MIB), S3_OK);
    assert_true(s3_plan_single(&p));
    assert_int_equal(s3_plan_init(&p, &limits, 16 * S3_MIB, 80 * S3_MIB,
                                  8 * S3_MIB + 1), S3_OK);
    assert_false(s3_plan_single(&p));
}


static void
test_clamps(void **state)
{
    s3_plan_t  p;

    (void) state;

    /* part size: up to the smallest, down to half the window */

    assert_int_equal(s3_plan_init(&p, &s3_limits_aws, 1, 80 * S3_MIB, -1),
                     S3_OK);
    assert_int_equal(p.part_size, 5 * S3_MIB);
    assert_int_equal(p.cap, 40 * S3_MIB);

    assert_int_equal(s3_plan_init(&p, &s3_limits_aws, 64 * S3_MIB,
                                  80 * S3_MIB, -1), S3_OK);
    assert_int_equal(p.part_size, 40 * S3_MIB);

    /* cap: whole MiB, not under the smallest part, not over the largest */

    assert_int_equal(s3_plan_init(&p, &s3_limits_aws, 5 * S3_MIB,
                                  14 * S3_MIB - 1, -1), S3_OK);
    assert_int_equal(p.cap, 6 * S3_MIB);

    assert_int_equal(s3_plan_init(&p, &s3_limits_aws, 16 * S3_MIB,
                                  10 * S3_MIB, -1), S3_OK);
    assert_int_equal(p.cap, 5 * S3_MIB);
    assert_int_equal(p.part_size, 5 * S3_MIB);

    assert_int_equal(s3_plan_init(&p, &s3_limits_aws, 16 * S3_MIB, 0, -1),
                     S3_OK);
    assert_int_equal(p.cap, 5 * S3_MIB);

    assert_int_equal(s3_plan_init(&p, &s3_limits_aws, 6 * GIB, 64 * GIB, -1),
                     S3_OK);
    assert_int_equal(p.cap, 5 * GIB);
    assert_int_equal(p.part_size, 5 * GIB);
}


static void
test_larger_parts(void **state)
{
    cut_t      c;
    uint64_t   total;
    s3_plan_t  p;

    (void) state;

    /* 10,000 parts of 16 MiB are just enough, one byte more is not */

    total = 10000 * 16 * S3_MIB;

    assert_int_equal(s3_plan_init(&p, &s3_limits_default, 16 * S3_MIB,
                                  80 * S3_MIB, total), S3_OK);
    assert_int_equal(p.part_size, 16 * S3_MIB);
    cut(&p, &c);
    assert_int_equal(c.parts, 10000);
    assert_int_equal(c.sum, total);
    assert_int_equal(c.last, 16 * S3_MIB);

    assert_int_equal(s3_plan_init(&p, &s3_limits_default, 16 * S3_MIB,
                                  80 * S3_MIB, total + 1), S3_OK);
    assert_int_equal(p.part_size, 17 * S3_MIB);
    cut(&p, &c);
    assert_int_equal(c.sum, total + 1);
    assert_true(c.parts <= 10000);

    /* up to the cap */

    total = 10000 * 40 * S3_MIB;

    assert_int_equal(s3_plan_init(&p, &s3_limits_default, 16 * S3_MIB,
                                  80 * S3_MIB, total), S3_OK);
    assert_int_equal(p.part_size, 40 * S3_MIB);
    cut(&p, &c);
    assert_int_equal(c.parts, 10000);
    assert_int_equal(c.sum, total);

    assert_int_equal(s3_plan_init(&p, &s3_limits_default, 16 * S3_MIB,
                                  80 * S3_MIB, total + 1), S3_DECLINED);
    assert_int_equal(p.need_window, 82 * S3_MIB);

    /* and the window that it names is one that serves */

    assert_int_equal(s3_plan_init(&p, &s3_limits_default, 16 * S3_MIB,
                                  p.need_window, total + 1), S3_OK);
    cut(&p, &c);
    assert_int_equal(c.sum, total + 1);
}


static void
test_largest_object(void **state)
{
    cut_t        c;
    s3_plan_t    p;
    s3_limits_t  limits;

    (void) state;

    assert_int_equal(s3_plan_init(&p, &s3_limits_default, 16 * S3_MIB,
                                  16 * GIB, 5 * TIB), S3_OK);
    cut(&p, &c);
    assert_int_equal(c.sum, 5 * TIB);

    assert_int_equal(s3_plan_init(&p, &s3_limits_default, 16 * S3_MIB,
                                  16 * GIB, 5 * TIB + 1), S3_DECLINED);
    assert_int_equal(p.need_window, 0);

    assert_int_equal(s3_plan_init(&p, &s3_limits_aws, 16 * S3_MIB, 16 * GIB,
                                  s3_limits_aws.max_object), S3_OK);
    assert_int_equal(p.part_size, 5 * GIB);
    cut(&p, &c);
    assert_int_equal(c.parts, 10000);
    assert_int_equal(c.sum, s3_limits_aws.max_object);

    assert_int_equal(s3_plan_init(&p, &s3_limits_aws, 16 * S3_MIB, 80 * S3_MIB,
                                  s3_limits_aws.max_object), S3_DECLINED);
    assert_int_equal(p.need_window, 10 * GIB);

    assert_int_equal(s3_plan_init(&p, &s3_limits_aws, 16 * S3_MIB, 16 * GIB,
                                  INT64_MAX), S3_DECLINED);
    assert_int_equal(p.need_window, 0);

    /* a server whose parts cannot hold its largest object */

    limits = s3_limits_aws;
    limits.max_parts = 1000;

    assert_int_equal(s3_plan_init(&p, &limits, 16 * S3_MIB, 16 * GIB,
                                  1000 * 5 * GIB), S3_OK);
    assert_int_equal(s3_plan_init(&p, &limits, 16 * S3_MIB, 16 * GIB,
                                  1000 * 5 * GIB + 1), S3_DECLINED);
    assert_int_equal(p.need_window, 0);
}


static void
test_unknown(void **state)
{
    cut_t      c;
    unsigned   i;
    uint64_t   size;
    s3_plan_t  p;

    (void) state;

    /* doubles every 1,000 parts: 8, 16, 32, then the cap of 40 MiB */

    assert_int_equal(s3_plan_init(&p, &s3_limits_default, 8 * S3_MIB,
                                  80 * S3_MIB, -1), S3_OK);

    for (i = 0; i < 10000; i++) {
        size = (i < 1000) ? 8 : (i < 2000) ? 16 : (i < 3000) ? 32 : 40;
        assert_int_equal(p.part_size, size * S3_MIB);
        assert_int_equal(s3_plan_next(&p), size * S3_MIB);
    }

    assert_int_equal(s3_plan_next(&p), 0);
    assert_int_equal(p.planned, (1000 * (8 + 16 + 32) + 7000 * 40) * S3_MIB);

    /* the object's limit comes first */

    assert_int_equal(s3_plan_init(&p, &s3_limits_default, 16 * S3_MIB,
                                  16 * GIB, -1), S3_OK);
    cut(&p, &c);
    assert_int_equal(c.sum, 5 * TIB);
    assert_true(c.parts < 10000);

    assert_int_equal(s3_plan_init(&p, &s3_limits_aws, 5 * GIB, 16 * GIB, -1),
                     S3_OK);
    cut(&p, &c);
    assert_int_equal(c.sum, s3_limits_aws.max_object);
    assert_int_equal(c.parts, 10000);
}


static void
test_few_parts(void **state)
{
    cut_t        c;
    s3_plan_t    p;
    s3_limits_t  limits;

    (void) state;

    limits = s3_limits_aws;
    limits.max_parts = 4;

    assert_int_equal(s3_plan_init(&p, &limits, 5 * S3_MIB, 1 * GIB, -1),
                     S3_OK);
    cut(&p, &c);
    assert_int_equal(c.parts, 4);
    assert_int_equal(c.sum, (5 + 10 + 20 + 40) * S3_MIB);
}


/* what s3_plan_largest() promises can be stored, and one byte more cannot */

static void
test_largest(void **state)
{
    cut_t               c;
    size_t              i, j, k;
    uint64_t            n;
    s3_plan_t           p;
    const s3_limits_t  *limits;

    static const uint64_t  parts[] = { 5, 8, 16, 64, 5120 };
    static const uint64_t  windows[] = { 10, 16, 80, 83, 1024, 20480 };

    (void) state;

    assert_int_equal(s3_plan_largest(&s3_limits_default, 16 * S3_MIB,
                                     80 * S3_MIB, 1),
                     10000 * 40 * S3_MIB);
    assert_int_equal(s3_plan_largest(&s3_limits_default, 16 * S3_MIB,
                                     80 * S3_MIB, 0),
                     (1000 * (16 + 32) + 8000 * 40) * S3_MIB);

    for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        for (j = 0; j < sizeof(windows) / sizeof(windows[0]); j++) {
            for (k = 0; k < 2; k++) {

                limits = k ? &s3_limits_aws : &s3_limits_default;

                n = s3_plan_largest(limits, parts[i] * S3_MIB,
                                    windows[j] * S3_MIB, 1);
                assert_int_equal(s3_plan_init(&p, limits, parts[i] * S3_MIB,
                                              windows[j] * S3_MIB, n), S3_OK);
                cut(&p, &c);
                assert_int_equal(c.sum, n);
                assert_int_equal(s3_plan_init(&p, limits, parts[i] * S3_MIB,
                                              windows[j] * S3_MIB, n + 1),
                                 S3_DECLINED);

                n = s3_plan_largest(limits, parts[i] * S3_MIB,
                                    windows[j] * S3_MIB, 0);
                assert_int_equal(s3_plan_init(&p, limits, parts[i] * S3_MIB,
                                              windows[j] * S3_MIB, -1),
                                 S3_OK);
                cut(&p, &c);
                assert_int_equal(c.sum, n);
            }
        }
    }
}


/* closes every part that may be closed at its smallest, or one at random: the
   numbers hold the rest, always */

static unsigned
close_early(s3_plan_t *p, unsigned every)
{
    uint64_t  n, sum, size;
    unsigned  parts, closed;

    sum = 0;
    closed = 0;

    for (parts = 0; (n = s3_plan_next(p)) != 0; parts++) {

        assert_true(n <= p->cap);
        assert_true(n >= p->limits->min_part || sum + n == p->goal);

        size = n;

        if ((unsigned) rand() % every == 0) {
            size = p->limits->min_part + (uint64_t) rand() % S3_MIB;
        }

        if (size < n && s3_plan_may_close(p, n, size)) {
            s3_plan_close(p, n, size);
            closed++;

        } else {
            size = n;
        }

        sum += size;
        assert_int_equal(p->planned, sum);
    }

    assert_true(parts <= p->limits->max_parts);
    assert_int_equal(sum, p->goal);

    return closed;
}


static void
test_close(void **state)
{
    unsigned     i;
    s3_plan_t    p;
    s3_limits_t  limits;

    (void) state;

    srand(1);

    /* not below the smallest part, not beyond what the numbers hold */

    assert_int_equal(s3_plan_init(&p, &s3_limits_default, 16 * S3_MIB,
                                  80 * S3_MIB, GIB), S3_OK);
    assert_int_equal(s3_plan_next(&p), 16 * S3_MIB);
    assert_false(s3_plan_may_close(&p, 16 * S3_MIB, 5 * S3_MIB - 1));
    assert_true(s3_plan_may_close(&p, 16 * S3_MIB, 5 * S3_MIB));

    limits = s3_limits_default;
    limits.max_parts = 2;

    assert_int_equal(s3_plan_init(&p, &limits, 16 * S3_MIB, 32 * S3_MIB,
                                  26 * S3_MIB), S3_OK);
    assert_int_equal(s3_plan_next(&p), 16 * S3_MIB);
    assert_false(s3_plan_may_close(&p, 16 * S3_MIB, 10 * S3_MIB - 1));
    assert_true(s3_plan_may_close(&p, 16 * S3_MIB, 10 * S3_MIB));
    s3_plan_close(&p, 16 * S3_MIB, 10 * S3_MIB);
    assert_int_equal(s3_plan_next(&p), 16 * S3_MIB);
    assert_int_equal(s3_plan_next(&p), 0);

    for (i = 1; i < 4; i++) {

        /* known: as large as the part numbers hold, less a slack */

        assert_int_equal(s3_plan_init(&p, &s3_limits_default, 16 * S3_MIB,
                                      80 * S3_MIB, 390 * GIB + i), S3_OK);
        assert_true(close_early(&p, i) > 10);

        /* unknown: the largest object stays what it is */

        assert_int_equal(s3_plan_init(&p, &s3_limits_default, 16 * S3_MIB,
                                      80 * S3_MIB, -1), S3_OK);
        assert_int_equal(p.goal, s3_plan_largest(&s3_limits_default,
                                                 16 * S3_MIB, 80 * S3_MIB,
                                                 0));
        assert_true(close_early(&p, i) > 200);

        limits.max_parts = 7;
        assert_int_equal(s3_plan_init(&p, &limits, 8 * S3_MIB, 80 * S3_MIB,
                                      -1), S3_OK);
        (void) close_early(&p, i);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_single),
        cmocka_unit_test(test_clamps),
        cmocka_unit_test(test_larger_parts),
        cmocka_unit_test(test_largest_object),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_few_parts),
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_close)
    };

    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
