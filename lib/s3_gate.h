/*
 * The progress gate: opens when bytes - last >= step, `last` being the count
 * at the previous opening, 0 at first, and step being
 * min(ceil(total * percent), bytes), never below min; `bytes` alone while the
 * total is unknown. So a store is called about a hundred times for an object,
 * however small the chunks are.
 */

#ifndef S3_GATE_H
#define S3_GATE_H

#include "s3_str.h"

typedef struct {
    uint32_t  percent;               /* in 1/10000: 1 % is 100 */
    uint64_t  bytes;
    uint64_t  min;
} s3_gate_conf_t;

typedef struct {
    uint64_t  next;                  /* the precomputed threshold */
    uint64_t  step;                  /* bytes, at least 1 */
} s3_gate_t;

/* total in bytes, negative: unknown. Nothing is kept of conf. */
void s3_gate_init(s3_gate_t *g, const s3_gate_conf_t *conf, int64_t total);

/* one comparison a chunk: 1, the gate opens at this count of bytes, or 0 */
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
