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

/* of the instance; lives as long as the cycle */

typedef struct {
    ngx_s3_zone_t          *zone;
    ngx_s3_store_t         *redis;   /* or NULL */
    ngx_s3_store_t         *dynamodb;        /* or NULL */
    ngx_s3_zone_orphan_pt   orphan;  /* takes over what a dead process owed;
                                        NULL: nobody does */
    void                   *orphan_data;
    void                   *worker;  /* private; NULL in the master */
} ngx_s3_stores_t;

/* of a location */

typedef struct {
    ngx_s3_stores_t  *stores;
    s3_gate_conf_t    gate;
    ngx_uint_t        log_level;     /* NGX_LOG_INFO …, or
                                        NGX_S3_PROGRESS_LOG_OFF */
} ngx_s3_progress_conf_t;


/* embedded in a transfer, whose memory stays where it is; zeroed, then opened
   by ngx_s3_progress_open() */

typedef struct ngx_s3_progress_s  ngx_s3_progress_t;

struct ngx_s3_progress_s {
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
    ngx_queue_t              queue;  /* the worker's open ones, that with the
                                        oldest record first */
    ngx_msec_t               recorded;       /* when the last record was made,
                                                ngx_current_msec */
    void                   (*cancel)(ngx_s3_progress_t *p);
                                     /* somebody asks to end it; may close it
                                        and no other one */
    unsigned                 queued:1;
};


#define NGX_S3_PROGRESS_ID  32       /* digits of a random id */

/* 128 random bits in hex and a NUL, by which a transfer or a process is known;
   NGX_ERROR: logged */
ngx_int_t ngx_s3_progress_id(char id[NGX_S3_PROGRESS_ID + 1], ngx_log_t *log);

/*
 * Opens the record: zone, first record to the stores. The caller has set id,
 * bucket, key, owner, direction and total_bytes in p->record (the rest zero)
 * and p->cancel; attempt, sequence, state and times are set here. conf and log
 * live until the final state. NGX_OK, also untracked; else p is not open:
 * NGX_BUSY, NGX_ABORT and NGX_AGAIN as ngx_s3_zone_open() says; NGX_DECLINED:
 * the zone has no room for an ingest, which has to have a record.
 */
ngx_int_t ngx_s3_progress_open(ngx_s3_progress_t *p,
    ngx_s3_progress_conf_t *conf, const ngx_s3_zone_claim_t *claim,
    ngx_log_t *log);

/* the slot of an open record; NULL: untracked, or closed */
ngx_s3_slot_t *ngx_s3_progress_slot(ngx_s3_progress_t *p);

/* the gate opened: record to zone and stores, totals, log line */
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

/* the length is known, before the first byte: a record that tells of it */
void ngx_s3_progress_total(ngx_s3_progress_t *p, uint64_t total);

/* S3 acknowledged a part (or the object) of n bytes */
void ngx_s3_progress_stored(ngx_s3_progress_t *p, uint64_t n);

/*
 * A new state with its record to zone, stores and log. etag and error may be
 * NULL. `completing` sets total_bytes to the count. A final state closes the
 * record: what still waits for a store lives on its own, and p, which keeps
 * its record, is not open any more; another call does nothing.
 */
void ngx_s3_progress_state(ngx_s3_progress_t *p, s3_state_e state,
    const char *etag, const char *error);

/* Calls p->cancel of this worker's open ones that somebody wants to be ended,
   see ngx_s3_zone_cancel(). Every worker does it by itself within 250 ms. */
void ngx_s3_progress_cancel(ngx_s3_stores_t *stores);

/* In a worker at its start: opens the stores, arms the timer that reaps the
   transfers of dead workers and renews the records of silent ones. Does
   nothing in other processes. NGX_ERROR: no memory. */
ngx_int_t ngx_s3_progress_init_worker(ngx_s3_stores_t *stores,
    ngx_cycle_t *cycle);

/* At its exit: closes the stores; what was not written is given up. (While
   final records wait, a leaving worker stays for at most 5 seconds.) */
void ngx_s3_progress_exit_worker(ngx_s3_stores_t *stores);


#endif /* NGX_S3_PROGRESS_H */
