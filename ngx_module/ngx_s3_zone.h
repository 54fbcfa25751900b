/*
 * Shared memory: one slot a transfer, totals of the instance. Slots of one
 * size with a free list, an rbtree by id, queues of live and finished; only
 * the slab mutex; counters with a single writer; owner pid; layout version.
 */

#ifndef NGX_S3_ZONE_H
#define NGX_S3_ZONE_H

#include <ngx_config.h>
#include <ngx_core.h>

#include "s3_record.h"
#include "s3_tee.h"
#include "s3_xml.h"


/* Nobody who holds the lock looks at more records than this, however many there
   are, but to build the zone anew after a worker died in it. */
#define NGX_S3_ZONE_PAGE  64


typedef struct {
    ngx_atomic_t  records;
    ngx_atomic_t  writes;
    ngx_atomic_t  replaced;
    ngx_atomic_t  dropped;
    ngx_atomic_t  errors;
    ngx_atomic_t  outages;
    ngx_atomic_t  up;
} ngx_s3_store_counters_t;


/* ngx_atomic_fetch_add() from any worker; no field of another type */

typedef struct {
    ngx_atomic_t             started;
    ngx_atomic_t             completed;
    ngx_atomic_t             failed;
    ngx_atomic_t             aborted;
    ngx_atomic_t             untracked;
    ngx_atomic_t             bytes_transferred;  /* brought up to date at each
                                                    opening and at the end */
    ngx_atomic_t             bytes_stored;
    ngx_atomic_t             parts_stored;
    ngx_atomic_t             chunks;             /* likewise */
    ngx_atomic_t             openings;
    ngx_atomic_t             s3_requests;
    ngx_atomic_t             s3_retries;
    ngx_atomic_t             s3_errors;
    ngx_atomic_t             orphans;            /* aborted for the dead */
    ngx_atomic_t             aborts_waiting;     /* gauge */
    ngx_atomic_t             memory_used;
    ngx_atomic_t             tee_captured;       /* responses */
    ngx_atomic_t             tee[S3_TEE_N];      /* not captured, or dropped */
    ngx_s3_store_counters_t  redis;
    ngx_s3_store_counters_t  dynamodb;
} ngx_s3_counters_t;


typedef struct ngx_s3_slot_s  ngx_s3_slot_t;

/* what only the owner writes, but for cancel, each a plain aligned store;
   readers load */

struct ngx_s3_slot_s {
    ngx_atomic_t       bytes_transferred;
    ngx_atomic_t       bytes_stored;
    ngx_atomic_t       parts_stored;
    ngx_atomic_t       updated_at;   /* ms since the epoch */
    ngx_atomic_t       cancel;       /* somebody else's word: 1, the owner is
                                        asked to end the transfer */
    /* the rest is private to ngx_s3_zone*.c: record under the mutex, tree
       node, queue, owner's pid */
};


typedef struct {
    ngx_shm_zone_t     *shm_zone;
    ngx_slab_pool_t    *shpool;
    void               *sh;          /* private */
    ngx_s3_counters_t  *counters;    /* valid once the zone is initialised;
                                        from ngx_s3_zone_enter() on the
                                        worker's own */
    ngx_msec_t          ttl;         /* of finished records, ms; 24 h */
    ngx_str_t           name;
    ngx_uint_t          rebuilt;     /* private: */
    ngx_uint_t          losses;      /* up to this one of the zone's, */
    ngx_uint_t          claim;       /* with claims or without them, */
    ngx_uint_t          reaped;      /* slots before this one are reaped */
} ngx_s3_zone_t;


/* at configuration; size as in s3_transfer_zone. NULL: logged. */
ngx_s3_zone_t *ngx_s3_zone_create(ngx_conf_t *cf, ngx_str_t *name, size_t size,
    void *tag);

/* what a new transfer wants for itself as long as it is live */

typedef struct {
    uint64_t           endpoint;     /* ngx_s3_zone_endpoint() of the target's
                                        name */
    ngx_uint_t         max_ingest;   /* live ones of the instance, 0: no limit
                                        */
    unsigned           exclusive:1;  /* endpoint, bucket and key: no other
                                        exclusive one has them */
    unsigned           ingest:1;     /* it is counted as one */
} ngx_s3_zone_claim_t;

/*
 * Takes a slot for a new transfer. record gives id, attempt and all the rest;
 * its attempt is raised where the id's former attempt is not smaller.
 * NGX_OK: *slot; NGX_BUSY: the id is active, or its record belongs to another
 * owner (409); NGX_ABORT: another exclusive transfer has the key (409);
 * NGX_AGAIN: max_ingest are live (503); NGX_DECLINED: no slot is free even
 * after the oldest finished one was given up: *slot is NULL, and a transfer
 * that goes on is untracked and has no claim. All of it is one step.
 */
ngx_int_t ngx_s3_zone_open(ngx_s3_zone_t *zone, s3_record_t *record,
    const ngx_s3_zone_claim_t *claim, ngx_s3_slot_t **slot);

/* the whole record anew (a new state, an opening); owner only. The record is
   dated no earlier than its counters were by a reader. */
void ngx_s3_zone_update(ngx_s3_zone_t *zone, ngx_s3_slot_t *slot,
    s3_record_t *record);

/* the same of a final record: the slot may be given up from now on */
void ngx_s3_zone_close(ngx_s3_zone_t *zone, ngx_s3_slot_t *slot,
    s3_record_t *record);

/* NGX_OK: a consistent copy with the newest counters; NGX_DECLINED: unknown
   (or expired) */
ngx_int_t ngx_s3_zone_find(ngx_s3_zone_t *zone, ngx_str_t *id,
    s3_record_t *record);

/*
 * Asks the owner of a live record to end its transfer, see
 * ngx_s3_progress_cancel(). owner as below. NGX_OK: it is asked, now or
 * before; NGX_BUSY: the body is whole; NGX_DONE: the record is final, whosever
 * it is; NGX_ABORT: live and another owner's; NGX_DECLINED: unknown. But for
 * the last, *record is as ngx_s3_zone_find() gives it.
 */
ngx_int_t ngx_s3_zone_cancel(ngx_s3_zone_t *zone, ngx_str_t *id,
    ngx_str_t *owner, s3_record_t *record);

/* a number that changes after each slot->cancel */
ngx_uint_t ngx_s3_zone_cancels(ngx_s3_zone_t *zone);

/* Where one is in the list of records, and which are wanted. Zeroed but for
   state it stands before the first; a record that is there all the time is met
   once, whatever comes and goes between two pages. */

typedef struct {
    char                after[S3_ID_MAX + 1];  /* the id that was met last */
    int                 state;       /* -1: any */
    ngx_str_t          *owner;       /* NULL: any */
    ngx_uint_t          end;         /* 1: no record follows */
} ngx_s3_zone_cursor_t;

/*
 * A page of the list, in the order of ids: copies those that are wanted among
 * the next NGX_S3_ZONE_PAGE to records[0..limit-1], limit > 0, and returns how
 * many these are, maybe none, though others follow.
 */
ngx_uint_t ngx_s3_zone_list(ngx_s3_zone_t *zone, ngx_s3_zone_cursor_t *cursor,
    s3_record_t *records, ngx_uint_t limit);

void ngx_s3_zone_totals(ngx_s3_zone_t *zone, s3_totals_t *totals);

/* Called by a worker at its start, before anybody keeps the address of a
   counter: gives it counters of its own, so that its gauges (up, memory_used)
   vanish with it however it dies. Reaping does it too. */
void ngx_s3_zone_enter(ngx_s3_zone_t *zone);

/* what a process that is gone left in a slot */

typedef struct {
    s3_record_t      record;
    unsigned         failed:1;       /* the record was live and is failed now */
    unsigned         owes:1;         /* a multipart upload is open: from now on
                                        this process owes its abort */
    unsigned         completing:1;   /* its Complete may be under way */
    ngx_s3_slot_t   *slot;           /* owes: for ngx_s3_zone_settle() */
    uint64_t         endpoint;
    char             upload_id[S3_UPLOAD_ID_MAX + 1];
} ngx_s3_zone_orphan_t;

typedef void (*ngx_s3_zone_orphan_pt)(void *data,
    const ngx_s3_zone_orphan_t *orphan);

/* Called by a worker at its start and then every few seconds: records whose
   owner process is gone become failed ("worker process died") and are counted
   so; finished ones past their ttl are given up. claim: what such a process
   owed is this one's from now on. Calls handler for each slot that was
   changed. NGX_OK: that is all, and costs as much whatever the number of
   records; NGX_AGAIN: after a page of them there may be more, call it soon. */
ngx_int_t ngx_s3_zone_reap(ngx_s3_zone_t *zone, ngx_uint_t claim,
    ngx_s3_zone_orphan_pt handler, void *data);


/*
 * Debts: a multipart upload that is open owes an abort until it is completed
 * or aborted, whoever dies. The debt stands in the transfer's slot and stays
 * there when the record is final. In ngx_s3_zone_debts.c.
 */

/* the name of an endpoint as a number */
uint64_t ngx_s3_zone_endpoint(ngx_str_t *name);

/* this process's live slot owes the abort of an upload */
void ngx_s3_zone_owe(ngx_s3_zone_t *zone, ngx_s3_slot_t *slot,
    uint64_t endpoint, ngx_str_t *upload_id);

/* nothing is owed any more; does nothing where the slot is another's by now */
void ngx_s3_zone_settle(ngx_s3_zone_t *zone, ngx_s3_slot_t *slot,
    ngx_str_t *upload_id);

/* this process will not pay: another one claims the debt by reaping */
void ngx_s3_zone_release(ngx_s3_zone_t *zone, ngx_s3_slot_t *slot,
    ngx_str_t *upload_id);

/* whether a process that is alive knows the upload as its own */
ngx_uint_t ngx_s3_zone_owes(ngx_s3_zone_t *zone, ngx_str_t *id,
    ngx_str_t *upload_id);

/* whether this is the first of the workers that are to stay: what one of them
   is to do is its work */
ngx_uint_t ngx_s3_zone_first(ngx_s3_zone_t *zone);

/* This worker is leaving. Returns how many others are alive and stay. */
ngx_uint_t ngx_s3_zone_leave(ngx_s3_zone_t *zone);

/* Calls handler for each debt, whosever it is; endpoint is not set. */
void ngx_s3_zone_debts(ngx_s3_zone_t *zone, ngx_s3_zone_orphan_pt handler,
    void *data);


#endif /* NGX_S3_ZONE_H */
