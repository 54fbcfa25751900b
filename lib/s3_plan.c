#include "s3_plan.h"


const s3_limits_t  s3_limits_aws = {
    5 * S3_MIB,                      /* min_part */
    5 * 1024 * S3_MIB,               /* max_part */
    5 * 1024 * S3_MIB,               /* max_put */
    10000 * 5 * 1024 * S3_MIB,       /* max_object: 48.8 TiB */
    10000                            /* max_parts */
};

/* look-alikes have kept the object limit that AWS had until 2025 */

const s3_limits_t  s3_limits_default = {
    5 * S3_MIB,
    5 * 1024 * S3_MIB,
    5 * 1024 * S3_MIB,
    5 * 1024 * 1024 * S3_MIB,        /* 5 TiB */
    10000
};


static uint64_t s3_plan_cap(const s3_limits_t *limits, uint64_t window);
static uint64_t s3_plan_needed(const s3_limits_t *limits, uint64_t total);
static uint64_t s3_plan_unknown(const s3_plan_t *p);
static uint64_t s3_plan_mib(uint64_t n);
static void s3_plan_grow(s3_plan_t *p);
static unsigned s3_plan_step(const s3_limits_t *limits);


int
s3_plan_init(s3_plan_t *p, const s3_limits_t *limits, uint64_t part_size,
    uint64_t window, int64_t total)
{
    uint64_t  needed;

    p->limits = limits;
    p->cap = s3_plan_cap(limits, window);
    p->total = (total < 0) ? -1 : total;
    p->planned = 0;
    p->parts = 0;
    p->need_window = 0;

    if (part_size < limits->min_part) {
        part_size = limits->min_part;
    }

    if (part_size > p->cap) {
        part_size = p->cap;
    }

    p->part_size = part_size;

    if (p->total == -1) {
        p->goal = s3_plan_unknown(p);
        return S3_OK;
    }

    p->goal = total;

    if ((uint64_t) total > limits->max_object) {
        return S3_DECLINED;
    }

    needed = s3_plan_needed(limits, total);

    if (needed > p->cap) {
        if (needed <= limits->max_part) {
            p->need_window = 2 * needed;
        }

        return S3_DECLINED;
    }

    if (needed > part_size) {
        p->part_size = needed;
    }

    return S3_OK;
}


int
s3_plan_single(const s3_plan_t *p)
{
    return p->total >= 0
           && (uint64_t) p->total <= p->part_size
           && (uint64_t) p->total <= p->limits->max_put;
}


uint64_t
s3_plan_next(s3_plan_t *p)
{
    uint64_t  size, rest, later;

    rest = p->goal - p->planned;

    if (rest == 0 || p->parts >= p->limits->max_parts) {
        return 0;
    }

    /* what the numbers after this one cannot hold has to go in here */

    size = p->part_size;
    later = (p->limits->max_parts - p->parts - 1) * p->cap;

    if (rest > later && rest - later > size) {
        size = s3_plan_mib(rest - later);
    }

    if (size > rest) {
        size = rest;
    }

    p->planned += size;
    p->parts++;

    if (p->total == -1 && p->parts % s3_plan_step(p->limits) == 0) {
        s3_plan_grow(p);
    }

    return size;
}


int
s3_plan_may_close(const s3_plan_t *p, uint64_t part, uint64_t size)
{
    uint64_t  rest;

    rest = p->goal - p->planned + part - size;

    return size >= p->limits->min_part
           && rest <= (p->limits->max_parts - p->parts) * p->cap;
}


void
s3_plan_close(s3_plan_t *p, uint64_t part, uint64_t size)
{
    p->planned -= part - size;
}


uint64_t
s3_plan_largest(const s3_limits_t *limits, uint64_t part_size,
    uint64_t window, int known)
{
    uint64_t   n;
    s3_plan_t  p;

    if (known) {
        n = s3_plan_cap(limits, window) * limits->max_parts;
        return (n < limits->max_object) ? n : limits->max_object;
    }

    (void) s3_plan_init(&p, limits, part_size, window, -1);

    return p.goal;
}


/* the sum of all parts, none of which is closed early */

static uint64_t
s3_plan_unknown(const s3_plan_t *p)
{
    uint64_t   sum;
    unsigned   n, step;
    s3_plan_t  plan;

    plan = *p;
    step = s3_plan_step(p->limits);
    sum = 0;

    for (n = p->limits->max_parts; n > 0; n -= step) {

        if (step > n) {
            step = n;
        }

        sum += step * plan.part_size;
        s3_plan_grow(&plan);
    }

    return (sum < p->limits->max_object) ? sum : p->limits->max_object;
}


static void
s3_plan_grow(s3_plan_t *p)
{
    p->part_size = (p->part_size > p->cap / 2) ? p->cap : 2 * p->part_size;
}


/* parts of one size where the length is unknown */

static unsigned
s3_plan_step(const s3_limits_t *limits)
{
    return (limits->max_parts < 10) ? 1 : limits->max_parts / 10;
}


/* a window holds two of the largest parts: one is filled, one is sent */

static uint64_t
s3_plan_cap(const s3_limits_t *limits, uint64_t window)
{
    uint64_t  cap;

    cap = window / 2 / S3_MIB * S3_MIB;

    if (cap < limits->min_part) {
        return limits->min_part;
    }

    return (cap < limits->max_part) ? cap : limits->max_part;
}


/* the smallest part size, in whole MiB, that stores total in max_parts */

static uint64_t
s3_plan_needed(const s3_limits_t *limits, uint64_t total)
{
    return s3_plan_mib(total / limits->max_parts
                       + (total % limits->max_parts != 0));
}


/* whole MiB, up */

static uint64_t
s3_plan_mib(uint64_t n)
{
    return (n / S3_MIB + (n % S3_MIB != 0)) * S3_MIB;
}
