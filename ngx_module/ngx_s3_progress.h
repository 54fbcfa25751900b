/*
 * Counter and gate: bytes go to the zone at each chunk, a record to each store
 * and to the log at each opening.
 */

#ifndef NGX_S3_PROGRESS_H
#define NGX_S3_PROGRESS_H

#include "ngx_s3_store.h"
#include "ngx_s3_zone.h"
#include "s3_gate.h"


#define NGX_S3_PROGRESS_LOG_OFF  0

/* of the instance */

typedef struct {
    ngx_s3_zone_t   *zone;
    ngx_s3_store_t  *redis;          /* or NULL */
    ngx_s3_store_t  *dynamodb;       /* or NULL */
} ngx_s3_stores_t;

/* of a location */

typedef struct {
    ngx_s3_stores_t  *stores;
    s3_gate_conf_t    gate;
    ngx_uint_t        log_level;     /* NGX_LOG_INFO …, or
                                        NGX_S3_PROGRESS_LOG_OFF */
} ngx_s3_progress_conf_t;


/* embedded in a transfer */

typedef struct {
    uint64_t                 bytes;  /* came from the source */
    s3_gate_t                gate;
    ngx_s3_slot_t           *slot;   /* NULL: untracked */
    ngx_s3_slot_t            none;   /* stands in for a slot, so that the path
                                        of a chunk has no branch */
    uint64_t                 chunks;
    ngx_s3_progress_conf_t  *conf;
    ngx_log_t               *log;
    s3_record_t              record;
    unsigned                 open:1;
    uint64_t                 counted_bytes;  /* already in the totals */
    uint64_t                 counted_chunks;
} ngx_s3_progress_t;


/* Opens the record (id, bucket, key, owner, direction, total_bytes set by the
   caller in p->record; attempt, sequence and times are set here): zone, first
   record to the stores. NGX_OK, also untracked; NGX_BUSY: 409. */
ngx_int_t ngx_s3_progress_open(ngx_s3_progress_t *p,
    ngx_s3_progress_conf_t *conf, ngx_log_t *log);

/* the gate opened: record, stores, log */
void ngx_s3_progress_opening(ngx_s3_progress_t *p);

/* one chunk: an addition, a store into shared memory, one comparison */
static ngx_inline void
ngx_s3_progress_chunk(ngx_s3_progress_t *p, size_t n)
{
    p->bytes += n;
    p->chunks++;
    p->slot->bytes_transferred = p->bytes;

    if (s3_gate_test(&p->gate, p->bytes)) {
        ngx_s3_progress_opening(p);
    }
}

/* S3 acknowledged a part (or the object) of n bytes */
void ngx_s3_progress_stored(ngx_s3_progress_t *p, uint64_t n);

/* A new state with its record to zone, stores and log. etag and error may be
   NULL. `completing` sets total_bytes to the count. A final state closes the
   record; p is not used afterwards, what waits for a store lives on its own. */
void ngx_s3_progress_state(ngx_s3_progress_t *p, s3_state_e state,
    const char *etag, const char *error);

/* worker: opens the stores, arms the reaping timer; exit: gives up */
ngx_int_t ngx_s3_progress_init_worker(ngx_s3_stores_t *stores,
    ngx_cycle_t *cycle);
void ngx_s3_progress_exit_worker(ngx_s3_stores_t *stores);


#endif /* NGX_S3_PROGRESS_H */
