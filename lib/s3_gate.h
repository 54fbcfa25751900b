#ifndef S3_GATE_H
#define S3_GATE_H

#include "s3_str.h"

/* The progress gate: opens when bytes - last >= step, step being
   min(ceil(total * percent), bytes), never below min; `bytes` alone while the
   total is unknown. */

typedef struct {
    uint32_t  percent;               /* in 1/10000: 1 % is 100 */
    uint64_t  bytes;
    uint64_t  min;
} s3_gate_conf_t;

typedef struct {
    uint64_t  next;                  /* the precomputed threshold */
    uint64_t  step;
} s3_gate_t;

void s3_gate_init(s3_gate_t *g, const s3_gate_conf_t *conf, int64_t total);

/* one comparison a chunk */
static inline int
s3_gate_test(const s3_gate_t *g, uint64_t bytes)
{
    return bytes >= g->next;
}

/* after an opening: bytes becomes `last` */
static inline void
s3_gate_open(s3_gate_t *g, uint64_t bytes)
{
    g->next = bytes + g->step;
}

#endif
