#ifndef S3_PLAN_H
#define S3_PLAN_H

#include "s3_str.h"

#define S3_MIB  ((uint64_t) 1024 * 1024)

/* S3's limits (AWS "Amazon S3 multipart upload limits"), in bytes but for
   max_parts */

typedef struct {
    uint64_t  min_part;              /* but for the last part */
    uint64_t  max_part;
    uint64_t  max_put;               /* one PutObject */
    uint64_t  max_object;
    unsigned  max_parts;
} s3_limits_t;

extern const s3_limits_t  s3_limits_aws;       /* object: 48.8 TiB */
extern const s3_limits_t  s3_limits_default;   /* object: 5 TiB */

typedef struct {
    const s3_limits_t  *limits;
    uint64_t            part_size;   /* of the next part */
    uint64_t            cap;         /* no part is larger: half the window */
    int64_t             total;       /* -1: unknown */
    uint64_t            goal;        /* what the part numbers must hold: total,
                                        or the largest of unknown length */
    uint64_t            planned;     /* bytes given out so far */
    unsigned            parts;       /* parts given out so far */
    uint64_t            need_window; /* S3_DECLINED: the window it needs, or 0
                                        where no window would help */
} s3_plan_t;

/* part_size: as configured, bytes; it is clamped to [min_part, cap]; window:
   bytes of a transfer's memory, at least 2 * min_part; total: bytes, -1:
   unknown. limits has to outlive the plan. Known length: parts of part_size,
   or as much larger, in whole MiB, as max_parts asks for.
   S3_OK; S3_DECLINED: an object of this length cannot be stored (413), see
   need_window */
int s3_plan_init(s3_plan_t *p, const s3_limits_t *limits, uint64_t part_size,
    uint64_t window, int64_t total);

/* 1: the whole body, also an empty one, goes as one PutObject (known length
   only), 0: not */
int s3_plan_single(const s3_plan_t *p);

/* bytes of the next part, 0: none is left (known: all given out; unknown:
   parts or object limit passed). Known length: the last part has the rest.
   Unknown length: doubles every max_parts / 10 parts up to the cap; the source
   may end within any part. Larger, up to the cap, where parts that were closed
   early left too few numbers for the rest. */
uint64_t s3_plan_next(s3_plan_t *p);

/* 1: the part that was given out last, with `part` bytes, may be closed after
   `size` bytes: it is not too small, and the part numbers that are left hold
   the rest; 0: not */
int s3_plan_may_close(const s3_plan_t *p, uint64_t part, uint64_t size);

/* that part was closed after size bytes: the rest goes to others */
void s3_plan_close(s3_plan_t *p, uint64_t part, uint64_t size);

/* largest object for a configuration, bytes; known: whether its length is
   known before */
uint64_t s3_plan_largest(const s3_limits_t *limits, uint64_t part_size,
    uint64_t window, int known);

#endif
