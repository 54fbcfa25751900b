/*
 * What a worker wants to write into one store: at most one record of a
 * transfer waits and at most one is in flight; a newer record replaces the one
 * that waits. The queue is bounded, and outlives the transfers it is about.
 */

#ifndef NGX_S3_QUEUE_H
#define NGX_S3_QUEUE_H

#include "ngx_s3_store.h"


/* transfers with a record in a queue; about 2.5 KiB each */
#define NGX_S3_QUEUE_MAX   10000

/* ms that a leaving worker stays for final records */
#define NGX_S3_QUEUE_HOLD  5000


/* in a worker, before the store is opened; counters may be NULL. The queue
   becomes store->progress. NGX_ERROR: no memory. */
ngx_int_t ngx_s3_queue_create(ngx_s3_store_t *store,
    ngx_s3_counters_t *counters, ngx_cycle_t *cycle);

/* hands over a copy of record; its expires_at becomes the store's */
void ngx_s3_queue_put(ngx_s3_store_t *store, const s3_record_t *record);

/* offers to the store what waits; for a timer */
void ngx_s3_queue_run(ngx_s3_store_t *store);

/* closes the store; what waits or is in flight is dropped, with a log line */
void ngx_s3_queue_close(ngx_s3_store_t *store);


#endif /* NGX_S3_QUEUE_H */
