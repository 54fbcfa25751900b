/*
 * Totals of an instance, in the order of their JSON and, but for the stores'
 * values, which come name by name, of their Prometheus exposition.
 */

#ifndef S3_TOTALS_H
#define S3_TOTALS_H

#include "s3_str.h"
#include "s3_tee.h"

typedef struct {
    uint64_t  records;               /* handed over by the gate */
    uint64_t  writes;                /* sent to the store */
    uint64_t  replaced;              /* waiting record replaced by a newer */
    uint64_t  dropped;               /* queue full or given up at exit */
    uint64_t  errors;                /* failed writes */
    uint64_t  outages;               /* begun, each worker's its own */
    uint64_t  up;                    /* gauge: workers with a working store */
} s3_store_totals_t;

typedef struct {
    uint64_t           active;       /* gauge */
    uint64_t           ingests;      /* gauge: those of them that are */
    uint64_t           started;
    uint64_t           completed;
    uint64_t           failed;
    uint64_t           aborted;
    uint64_t           untracked;    /* transfers without a slot: zone full */
    uint64_t           bytes_transferred;
    uint64_t           bytes_stored;
    uint64_t           parts_stored;
    uint64_t           chunks;
    uint64_t           openings;
    uint64_t           s3_requests;
    uint64_t           s3_retries;
    uint64_t           s3_errors;
    uint64_t           orphans;      /* aborted for those who died */
    uint64_t           aborts_waiting;   /* gauge */
    uint64_t           tee_captured;     /* responses whose copy is an object */
    uint64_t           tee[S3_TEE_N];    /* not captured, or dropped, by
                                            reason */
    s3_store_totals_t  redis;
    s3_store_totals_t  dynamodb;
    uint64_t           slots;        /* gauge: size of the zone in records */
    uint64_t           slots_used;   /* gauge */
    uint64_t           memory_used;  /* gauge: bytes of blocks in use */
} s3_totals_t;

/* the JSON object of the totals, names in camelCase; S3_ERROR: does not fit
   or no memory */
int s3_totals_json(const s3_totals_t *t, s3_buf_t *out);
/* Prometheus text format 0.0.4 (prometheus.io "Exposition formats"), names
   s3_transfer_*; S3_ERROR: does not fit. S3_TOTALS_MAX bytes are enough for
   either form. */
#define S3_TOTALS_MAX  12288
int s3_totals_prometheus(const s3_totals_t *t, s3_buf_t *out);

#endif
