/*
 * The worker's blocks and the memory budget: blocks of one size, recycled last
 * used first (fresh pages are the dearest thing on the path), reservations,
 * and a waiting line in order of arrival.
 */

#ifndef NGX_S3_POOL_H
#define NGX_S3_POOL_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>


#define NGX_S3_BLOCK_SIZE  (256 * 1024)

/* blocks that hold size bytes */

#define ngx_s3_blocks(size)                                                  \
    ((ngx_uint_t) (((size) + NGX_S3_BLOCK_SIZE - 1) / NGX_S3_BLOCK_SIZE))


typedef struct ngx_s3_block_s  ngx_s3_block_t;

/* a block brings the buffer and the link that put it into a chain */

struct ngx_s3_block_s {
    ngx_s3_block_t  *next;
    ngx_buf_t        buf;            /* start..end: NGX_S3_BLOCK_SIZE bytes */
    ngx_chain_t      link;
};


/* one place in the waiting line, embedded in whoever waits */

typedef struct {
    ngx_queue_t      queue;
    ngx_uint_t       blocks;         /* how many it waits for */
    void           (*handler)(void *data);
    void            *data;
    unsigned         waiting:1;
} ngx_s3_waiter_t;


typedef struct {
    void            *dummy[3];       /* an event's data: see ngx_event_ident */
    ngx_int_t        ident;

    size_t           size;           /* as configured, bytes */
    ngx_uint_t       limit;          /* blocks */
    ngx_uint_t       reserved;       /* blocks, taken or not */
    ngx_uint_t       nfree;
    ngx_s3_block_t  *free;
    ngx_queue_t      waiters;
    ngx_event_t      serve;          /* posted: serves the line */
    ngx_event_t      trim;           /* gives idle blocks back */
    ngx_uint_t       least_free;     /* since the last trim */
    ngx_atomic_t    *used;           /* bytes reserved, of all workers; or
                                        NULL */
} ngx_s3_pool_t;


/* size in bytes, at configuration. NULL: no memory. */
ngx_s3_pool_t *ngx_s3_pool_create(ngx_conf_t *cf, size_t size);

/* in a worker, before any use; used may be NULL */
void ngx_s3_pool_init(ngx_s3_pool_t *pool, ngx_atomic_t *used);

/*
 * Reserves blocks for w. NGX_OK: they are reserved. NGX_AGAIN: w stands in
 * line and w->handler is called, from the event loop, once they are. Who asks
 * for more than the whole pool never gets them: NGX_ERROR.
 */
ngx_int_t ngx_s3_pool_reserve(ngx_s3_pool_t *pool, ngx_s3_waiter_t *w,
    ngx_uint_t blocks);

/* leaves the line; nothing happens where w is not in it */
void ngx_s3_pool_leave(ngx_s3_pool_t *pool, ngx_s3_waiter_t *w);

/* gives a reservation back, after the blocks that were taken on it */
void ngx_s3_pool_release(ngx_s3_pool_t *pool, ngx_uint_t blocks);

/* an empty block of a reservation; NULL: the system has no memory. The
   contents are what they were. */
ngx_s3_block_t *ngx_s3_pool_take(ngx_s3_pool_t *pool);

/* a list of blocks back to the pool */
void ngx_s3_pool_give(ngx_s3_pool_t *pool, ngx_s3_block_t *blocks);


#endif /* NGX_S3_POOL_H */
