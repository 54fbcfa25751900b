#include "ngx_s3_pool.h"

#include <sys/mman.h>


#define NGX_S3_POOL_TRIM_INTERVAL  5000


static void ngx_s3_pool_serve(ngx_event_t *ev);
static void ngx_s3_pool_trim(ngx_event_t *ev);
static void ngx_s3_pool_count(ngx_s3_pool_t *pool, ngx_int_t blocks);
static void ngx_s3_pool_cleanup(void *data);
static void ngx_s3_block_empty(ngx_s3_block_t *b);
static void ngx_s3_block_free(ngx_s3_block_t *b);


ngx_s3_pool_t *
ngx_s3_pool_create(ngx_conf_t *cf, size_t size)
{
    ngx_s3_pool_t       *pool;
    ngx_pool_cleanup_t  *cln;

    pool = ngx_pcalloc(cf->pool, sizeof(ngx_s3_pool_t));
    if (pool == NULL) {
        return NULL;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_s3_pool_cleanup;
    cln->data = pool;

    pool->size = size;
    pool->limit = size / NGX_S3_BLOCK_SIZE;

    return pool;
}


void
ngx_s3_pool_init(ngx_s3_pool_t *pool, ngx_atomic_t *used)
{
    pool->ident = -1;
    pool->used = used;

    ngx_queue_init(&pool->waiters);

    pool->serve.handler = ngx_s3_pool_serve;
    pool->serve.data = pool;
    pool->serve.log = ngx_cycle->log;

    pool->trim.handler = ngx_s3_pool_trim;
    pool->trim.data = pool;
    pool->trim.log = ngx_cycle->log;
    pool->trim.cancelable = 1;
}


ngx_int_t
ngx_s3_pool_reserve(ngx_s3_pool_t *pool, ngx_s3_waiter_t *w, ngx_uint_t blocks)
{
    if (blocks > pool->limit) {
        return NGX_ERROR;
    }

    if (ngx_queue_empty(&pool->waiters)
        && pool->reserved + blocks <= pool->limit)
    {
        ngx_s3_pool_count(pool, blocks);
        return NGX_OK;
    }

    w->blocks = blocks;
    w->waiting = 1;

    ngx_queue_insert_tail(&pool->waiters, &w->queue);

    return NGX_AGAIN;
}


void
ngx_s3_pool_leave(ngx_s3_pool_t *pool, ngx_s3_waiter_t *w)
{
    if (!w->waiting) {
        return;
    }

    ngx_queue_remove(&w->queue);
    w->waiting = 0;

    /* it may have stood in front of somebody who needs less */

    if (!pool->serve.posted) {
        ngx_post_event(&pool->serve, &ngx_posted_events);
    }
}


void
ngx_s3_pool_release(ngx_s3_pool_t *pool, ngx_uint_t blocks)
{
    if (blocks == 0) {
        return;
    }

    ngx_s3_pool_count(pool, -(ngx_int_t) blocks);

    /* posted, so that nobody is woken inside of somebody else's call */

    if (!ngx_queue_empty(&pool->waiters) && !pool->serve.posted) {
        ngx_post_event(&pool->serve, &ngx_posted_events);
    }
}


static void
ngx_s3_pool_count(ngx_s3_pool_t *pool, ngx_int_t blocks)
{
    pool->reserved += blocks;

    if (pool->used) {
        (void) ngx_atomic_fetch_add(pool->used,
                                    (ngx_atomic_int_t) blocks
                                    * NGX_S3_BLOCK_SIZE);
    }
}


static void
ngx_s3_pool_serve(ngx_event_t *ev)
{
    ngx_s3_pool_t    *pool = ev->data;

    ngx_queue_t      *q;
    ngx_s3_waiter_t  *w;

    while (!ngx_queue_empty(&pool->waiters)) {

        q = ngx_queue_head(&pool->waiters);
        w = ngx_queue_data(q, ngx_s3_waiter_t, queue);

        if (pool->reserved + w->blocks > pool->limit) {
            return;
        }

        ngx_queue_remove(&w->queue);
        w->waiting = 0;

        ngx_s3_pool_count(pool, w->blocks);

        w->handler(w->data);
    }
}


ngx_s3_block_t *
ngx_s3_pool_take(ngx_s3_pool_t *pool)
{
    void            *p;
    ngx_s3_block_t  *b;

    b = pool->free;

    if (b) {
        pool->free = b->next;
        pool->nfree--;

        if (pool->nfree < pool->least_free) {
            pool->least_free = pool->nfree;
        }

        ngx_s3_block_empty(b);

        return b;
    }

    b = ngx_calloc(sizeof(ngx_s3_block_t), ngx_cycle->log);
    if (b == NULL) {
        return NULL;
    }

    /* mapped, not malloc'ed: what is freed goes back to the system */

    p = mmap(NULL, NGX_S3_BLOCK_SIZE, PROT_READ|PROT_WRITE,
             MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, ngx_errno,
                      "mmap(%d) for a block of s3_memory failed",
                      NGX_S3_BLOCK_SIZE);
        ngx_free(b);
        return NULL;
    }

    b->buf.temporary = 1;
    b->buf.start = p;
    b->buf.end = b->buf.start + NGX_S3_BLOCK_SIZE;
    b->link.buf = &b->buf;

    ngx_s3_block_empty(b);

    return b;
}


static void
ngx_s3_block_empty(ngx_s3_block_t *b)
{
    b->next = NULL;
    b->link.next = NULL;
    b->buf.pos = b->buf.start;
    b->buf.last = b->buf.start;
}


void
ngx_s3_pool_give(ngx_s3_pool_t *pool, ngx_s3_block_t *blocks)
{
    ngx_s3_block_t  *b;

    while (blocks) {
        b = blocks;
        blocks = b->next;

        b->next = pool->free;
        pool->free = b;
        pool->nfree++;
    }

    if (pool->free && !pool->trim.timer_set) {
        pool->least_free = pool->nfree;
        ngx_add_timer(&pool->trim, NGX_S3_POOL_TRIM_INTERVAL);
    }
}


/* what nobody took since the last look goes back to the system */

static void
ngx_s3_pool_trim(ngx_event_t *ev)
{
    ngx_s3_pool_t   *pool = ev->data;

    ngx_uint_t       n;
    ngx_s3_block_t  *b;

    for (n = pool->least_free; n && pool->free; n--) {
        b = pool->free;
        pool->free = b->next;
        pool->nfree--;

        ngx_s3_block_free(b);
    }

    pool->least_free = pool->nfree;

    if (pool->free && !ngx_exiting) {
        ngx_add_timer(&pool->trim, NGX_S3_POOL_TRIM_INTERVAL);
    }
}


static void
ngx_s3_pool_cleanup(void *data)
{
    ngx_s3_pool_t  *pool = data;

    ngx_s3_block_t  *b;

    while (pool->free) {
        b = pool->free;
        pool->free = b->next;

        ngx_s3_block_free(b);
    }
}


static void
ngx_s3_block_free(ngx_s3_block_t *b)
{
    (void) munmap(b->buf.start, NGX_S3_BLOCK_SIZE);
    ngx_free(b);
}
