#include "ngx_s3_pool.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <sys/mman.h>


#define NGX_S3_POOL_NOBODY  NGX_MAX_INT32_VALUE


static ngx_uint_t ngx_s3_pool_room(ngx_s3_pool_t *pool);
static void ngx_s3_pool_grant(ngx_s3_pool_t *pool, ngx_s3_share_t *share,
    ngx_uint_t blocks);
static void ngx_s3_pool_serve(ngx_event_t *ev);
static ngx_s3_share_t *ngx_s3_pool_first(ngx_s3_pool_t *pool);
static ngx_s3_share_t *ngx_s3_pool_spare(ngx_s3_pool_t *pool,
    ngx_s3_share_t *first);
static ngx_s3_share_t *ngx_s3_pool_neediest(ngx_s3_pool_t *pool);
static void ngx_s3_pool_step_out(ngx_s3_share_t *share);
static void ngx_s3_pool_post(ngx_s3_pool_t *pool);
static void ngx_s3_pool_watch(ngx_s3_pool_t *pool);
static void ngx_s3_pool_revoke(ngx_s3_pool_t *pool, ngx_uint_t blocks);
static void ngx_s3_pool_trim(ngx_event_t *ev);
static void ngx_s3_pool_count(ngx_s3_pool_t *pool, ngx_int_t blocks);
static void ngx_s3_pool_cleanup(void *data);
static ngx_s3_block_t *ngx_s3_block_create(void);
static void ngx_s3_block_empty(ngx_s3_block_t *b);
static void ngx_s3_block_idle(ngx_s3_pool_t *pool, ngx_s3_block_t *b);
static void ngx_s3_block_free_list(ngx_s3_block_t **list);
static void ngx_s3_block_free(ngx_s3_block_t *b);


ngx_s3_pool_t *
ngx_s3_pool_create(ngx_conf_t *cf, size_t size, ngx_msec_t idle)
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
    pool->idle = idle;
    pool->limit = size / NGX_S3_BLOCK_SIZE;

    return pool;
}


void
ngx_s3_pool_init(ngx_s3_pool_t *pool, ngx_atomic_t *used)
{
    pool->ident = -1;
    pool->used = used;

    ngx_queue_init(&pool->halfway);
    ngx_queue_init(&pool->line);
    ngx_queue_init(&pool->needy);
    ngx_queue_init(&pool->silent);

    pool->needs = NGX_S3_POOL_NOBODY;

    pool->serve.handler = ngx_s3_pool_serve;
    pool->serve.data = pool;
    pool->serve.log = ngx_cycle->log;
    pool->serve.cancelable = 1;

    pool->hold.handler = ngx_s3_pool_serve;
    pool->hold.data = pool;
    pool->hold.log = ngx_cycle->log;
    pool->hold.cancelable = 1;

    pool->trim.handler = ngx_s3_pool_trim;
    pool->trim.data = pool;
    pool->trim.log = ngx_cycle->log;
    pool->trim.cancelable = 1;
}


ngx_int_t
ngx_s3_pool_reserve(ngx_s3_pool_t *pool, ngx_s3_share_t *share)
{
    ngx_uint_t  room;

    if (share->least > pool->limit - NGX_S3_POOL_MARGIN) {
        return NGX_ERROR;
    }

    if (!ngx_queue_empty(&pool->halfway)
        || (share->taken == 0 && !ngx_queue_empty(&pool->line)))
    {
        return NGX_DECLINED;
    }

    ngx_s3_pool_revoke(pool, share->wants);

    room = ngx_s3_pool_room(pool);

    if (room < share->least) {
        return NGX_DECLINED;
    }

    ngx_s3_pool_grant(pool, share, ngx_min(room, share->wants));

    return NGX_OK;
}


void
ngx_s3_pool_wait(ngx_s3_pool_t *pool, ngx_s3_share_t *share)
{
    ngx_s3_pool_moves(pool, share);

    share->waiting = 1;

    ngx_queue_insert_tail(share->taken ? &pool->halfway : &pool->line,
                          &share->queue);

    if (share->admitted) {
        ngx_queue_insert_tail(&pool->needy, &share->needy);

        if (share->least <= NGX_S3_POOL_MARGIN) {
            pool->needs = ngx_min(pool->needs, share->least);
        }
    }

    /* it may be the one that the margin is for */

    ngx_s3_pool_post(pool);
}


void
ngx_s3_pool_silent(ngx_s3_pool_t *pool, ngx_s3_share_t *share)
{
    if (share->silent || share->waiting) {
        return;
    }

    if ((share->reserved == share->taken || share->fixed)
        && !share->closable)
    {
        return;
    }

    share->silent = 1;
    share->since = ngx_current_msec;

    ngx_queue_insert_tail(&pool->silent, &share->queue);

    ngx_s3_pool_watch(pool);
}


void
ngx_s3_pool_moves(ngx_s3_pool_t *pool, ngx_s3_share_t *share)
{
    if (share->silent) {
        ngx_queue_remove(&share->queue);
        share->silent = 0;
    }
}


ngx_uint_t
ngx_s3_pool_leave(ngx_s3_pool_t *pool, ngx_s3_share_t *share)
{
    ngx_uint_t  taken;

    ngx_s3_pool_moves(pool, share);

    if (share->waiting) {
        ngx_s3_pool_step_out(share);

        /* it may have stood in front of somebody who needs less */

        ngx_s3_pool_post(pool);
    }

    taken = share->taken;

    if (share->reserved > taken) {
        ngx_s3_pool_count(pool, -(ngx_int_t) (share->reserved - taken));
        ngx_s3_pool_post(pool);
    }

    pool->coming += taken;

    share->reserved = 0;
    share->taken = 0;

    return taken;
}


/* so that nobody is woken inside of somebody else's call */

static void
ngx_s3_pool_post(ngx_s3_pool_t *pool)
{
    if (ngx_s3_pool_wanted(pool) && !pool->serve.posted) {
        ngx_post_event(&pool->serve, &ngx_posted_events);
    }
}


/* a look when the one that is silent longest has to give */

static void
ngx_s3_pool_watch(ngx_s3_pool_t *pool)
{
    ngx_msec_t       passed;
    ngx_queue_t     *q;
    ngx_s3_share_t  *share;

    if (!ngx_s3_pool_wanted(pool) || ngx_queue_empty(&pool->silent)
        || pool->serve.timer_set)
    {
        return;
    }

    q = ngx_queue_head(&pool->silent);
    share = ngx_queue_data(q, ngx_s3_share_t, queue);

    passed = ngx_min(ngx_current_msec - share->since, NGX_S3_POOL_SILENCE);

    ngx_add_timer(&pool->serve, NGX_S3_POOL_SILENCE - passed + 1);
}


/* blocks that are free but for the margin */

static ngx_uint_t
ngx_s3_pool_room(ngx_s3_pool_t *pool)
{
    ngx_uint_t  used;

    used = pool->reserved + NGX_S3_POOL_MARGIN;

    return (used < pool->limit) ? pool->limit - used : 0;
}


static void
ngx_s3_pool_grant(ngx_s3_pool_t *pool, ngx_s3_share_t *share,
    ngx_uint_t blocks)
{
    share->reserved += blocks;
    ngx_s3_pool_count(pool, blocks);
}


/* takes back from silent sources until so many blocks are free */

static void
ngx_s3_pool_revoke(ngx_s3_pool_t *pool, ngx_uint_t blocks)
{
    ngx_uint_t       coming, rest;
    ngx_queue_t     *q;
    ngx_s3_share_t  *share;

    coming = 0;

    while (!ngx_queue_empty(&pool->silent)
           && ngx_s3_pool_room(pool) + coming < blocks)
    {
        q = ngx_queue_head(&pool->silent);
        share = ngx_queue_data(q, ngx_s3_share_t, queue);

        if (ngx_current_msec - share->since < NGX_S3_POOL_SILENCE) {
            return;
        }

        ngx_s3_pool_moves(pool, share);

        rest = share->fixed ? 0 : share->reserved - share->taken;

        share->reserved -= rest;
        ngx_s3_pool_count(pool, -(ngx_int_t) rest);

        if (share->closable) {

            /* S3 will have it acknowledged some day */

            share->closable = 0;
            coming += share->taken;

            share->handler(share->data, NGX_S3_SHARE_SQUEEZED);
        }
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
    ngx_s3_pool_t   *pool = ev->data;

    ngx_uint_t       blocks, room;
    ngx_s3_share_t  *share;

    if (pool->serve.timer_set) {
        ngx_del_timer(&pool->serve);
    }

    for ( ;; ) {

        share = ngx_s3_pool_first(pool);

        if (share == NULL) {
            return;
        }

        ngx_s3_pool_revoke(pool, share->least);

        room = ngx_s3_pool_room(pool);

        if (room < share->least) {

            /* its turn has not come, but somebody has to go on */

            share = ngx_s3_pool_spare(pool, share);

            if (share == NULL) {
                break;
            }

            room = share->least;
        }

        ngx_s3_pool_step_out(share);

        blocks = ngx_s3_pool_wanted(pool) ? share->least
                                          : ngx_min(share->wants, room);

        ngx_s3_pool_grant(pool, share, blocks);

        share->handler(share->data, NGX_S3_SHARE_GRANTED);
    }

    ngx_s3_pool_watch(pool);
}


static ngx_s3_share_t *
ngx_s3_pool_first(ngx_s3_pool_t *pool)
{
    ngx_queue_t  *line;

    line = ngx_queue_empty(&pool->halfway) ? &pool->line : &pool->halfway;

    if (ngx_queue_empty(line)) {
        return NULL;
    }

    return ngx_queue_data(ngx_queue_head(line), ngx_s3_share_t, queue);
}


/* who gets the margin while the first in line waits; NULL: nobody */

static ngx_s3_share_t *
ngx_s3_pool_spare(ngx_s3_pool_t *pool, ngx_s3_share_t *first)
{
    ngx_msec_t       passed;
    ngx_uint_t       held, hold;
    ngx_s3_share_t  *share;

    if (pool->reserved + pool->needs > pool->limit) {
        return NULL;
    }

    /* Those between two parts would take it by turns for ever, while what S3
       acknowledges would serve the first. S3 may be one that hangs. */

    held = pool->reserved - pool->coming + NGX_S3_POOL_MARGIN;
    passed = ngx_current_msec - pool->came;

    hold = (held + first->least <= pool->limit
            && passed < NGX_S3_POOL_PATIENCE);

    if (hold && ngx_queue_empty(&pool->halfway)
        && (!first->admitted || first->least <= pool->needs))
    {
        /* no need to look at all of them: it is the first, or nobody */

        share = first->admitted ? first : NULL;

    } else {
        share = ngx_s3_pool_neediest(pool);

        if (share == NULL || pool->reserved + share->least > pool->limit) {
            return NULL;
        }

        if (hold && share->taken == 0 && share != first) {
            share = NULL;
        }
    }

    if (share == NULL && !pool->hold.timer_set) {
        ngx_add_timer(&pool->hold, NGX_S3_POOL_PATIENCE - passed);
    }

    return share;
}


/* the one with bytes that needs least, those in the middle of a part before
   those between two; what is reserved for good could keep the margin for as long
   as it likes */

static ngx_s3_share_t *
ngx_s3_pool_neediest(ngx_s3_pool_t *pool)
{
    ngx_queue_t     *q;
    ngx_s3_share_t  *share, *best;

    best = NULL;
    pool->needs = NGX_S3_POOL_NOBODY;

    for (q = ngx_queue_head(&pool->needy);
         q != ngx_queue_sentinel(&pool->needy);
         q = ngx_queue_next(q))
    {
        share = ngx_queue_data(q, ngx_s3_share_t, needy);

        if (share->least > NGX_S3_POOL_MARGIN) {
            continue;
        }

        if (best == NULL || share->least < best->least
            || (share->least == best->least && share->taken
                && best->taken == 0))
        {
            best = share;
            pool->needs = share->least;
        }
    }

    return best;
}


/* out of the line, wherever in it */

static void
ngx_s3_pool_step_out(ngx_s3_share_t *share)
{
    ngx_queue_remove(&share->queue);

    if (share->admitted) {
        ngx_queue_remove(&share->needy);
    }

    share->waiting = 0;
}


ngx_s3_block_t *
ngx_s3_pool_take(ngx_s3_pool_t *pool, ngx_s3_share_t *share)
{
    ngx_s3_block_t  *b;

    b = pool->free;

    if (b) {
        pool->free = b->next;
        pool->nfree--;

        if (pool->nfree < pool->least_free) {
            pool->least_free = pool->nfree;
        }

    } else {
        b = ngx_s3_block_create();
        if (b == NULL) {
            return NULL;
        }
    }

    ngx_s3_block_empty(b);
    share->taken++;

    return b;
}


static ngx_s3_block_t *
ngx_s3_block_create(void)
{
    void            *p;
    ngx_s3_block_t  *b;

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

    return b;
}


static void
ngx_s3_block_empty(ngx_s3_block_t *b)
{
    b->next = NULL;
    b->link.next = NULL;
    b->buf.pos = b->buf.start;
    b->buf.last = b->buf.start;

    b->tail = &b->link;
    b->unused = &b->pieces;
}


ngx_int_t
ngx_s3_block_skip(ngx_s3_block_t *b, u_char *pos)
{
    ngx_s3_piece_t  *piece;

    piece = *b->unused;

    if (piece == NULL) {
        piece = ngx_calloc(sizeof(ngx_s3_piece_t), ngx_cycle->log);
        if (piece == NULL) {
            return NGX_ERROR;
        }

        piece->buf.temporary = 1;
        piece->link.buf = &piece->buf;

        *b->unused = piece;
    }

    b->unused = &piece->next;

    piece->buf.start = pos;
    piece->buf.pos = pos;
    piece->buf.last = pos;
    piece->buf.end = b->buf.end;

    piece->link.next = NULL;

    b->tail->next = &piece->link;
    b->tail = &piece->link;

    return NGX_OK;
}


void
ngx_s3_pool_give(ngx_s3_pool_t *pool, ngx_s3_block_t *blocks,
    ngx_uint_t taken)
{
    ngx_uint_t       back;
    ngx_s3_block_t  *b;

    if (taken == 0) {
        return;
    }

    back = taken;

    while (blocks) {
        b = blocks;
        blocks = b->next;

        if (b->loans) {
            b->given = 1;
            back--;

        } else {
            ngx_s3_block_idle(pool, b);
        }
    }

    pool->coming -= taken;
    pool->came = ngx_current_msec;

    ngx_s3_pool_count(pool, -(ngx_int_t) back);

    ngx_s3_pool_post(pool);
}


static void
ngx_s3_block_idle(ngx_s3_pool_t *pool, ngx_s3_block_t *b)
{
    b->next = pool->free;
    pool->free = b;
    pool->nfree++;

    if (!pool->trim.timer_set) {
        pool->least_free = pool->nfree;
        ngx_add_timer(&pool->trim, pool->idle);
    }
}


ngx_int_t
ngx_s3_pool_lend(ngx_s3_pool_t *pool, ngx_s3_block_t *block, u_char *pos,
    size_t size, ngx_uint_t keeps, ngx_s3_loan_t *loan)
{
    if (keeps && !block->keeps) {

        if (pool->keeping >= ngx_s3_pool_keepable(pool)) {
            return NGX_DECLINED;
        }

        block->keeps = 1;
        pool->keeping++;
    }

    block->loans++;

    loan->pool = pool;
    loan->block = block;
    loan->pos = pos;
    loan->end = pos + size;

    return NGX_OK;
}


void
ngx_s3_pool_return(ngx_s3_loan_t *loan)
{
    ngx_s3_pool_t   *pool;
    ngx_s3_block_t  *b;

    b = loan->block;

    if (b == NULL) {
        return;
    }

    pool = loan->pool;
    loan->block = NULL;

    if (--b->loans) {
        return;
    }

    if (b->keeps) {
        b->keeps = 0;
        pool->keeping--;
    }

    if (b->given) {
        b->given = 0;
        ngx_s3_block_idle(pool, b);

        ngx_s3_pool_count(pool, -1);
        ngx_s3_pool_post(pool);
    }
}


/* what nobody took since the last look goes back to the system */

static void
ngx_s3_pool_trim(ngx_event_t *ev)
{
    ngx_s3_pool_t   *pool = ev->data;

    ngx_uint_t        n;
    ngx_s3_block_t  **last;

    /* they are the last ones, since the first are used first */

    last = &pool->free;

    for (n = pool->nfree - pool->least_free; n; n--) {
        last = &(*last)->next;
    }

    pool->nfree -= pool->least_free;

    ngx_s3_block_free_list(last);

#if defined(__GLIBC__)

    /* A burst also leaves its requests' buffers behind, which free() keeps
       where anything above them is in use. */

    if (pool->least_free && pool->free == NULL) {
        (void) malloc_trim(0);
    }

#endif

    pool->least_free = pool->nfree;

    if (pool->free && !ngx_exiting) {
        ngx_add_timer(&pool->trim, pool->idle);
    }
}


static void
ngx_s3_pool_cleanup(void *data)
{
    ngx_s3_pool_t  *pool = data;

    ngx_s3_block_free_list(&pool->free);
}


static void
ngx_s3_block_free_list(ngx_s3_block_t **list)
{
    ngx_s3_block_t  *b;

    while (*list) {
        b = *list;
        *list = b->next;

        ngx_s3_block_free(b);
    }
}


static void
ngx_s3_block_free(ngx_s3_block_t *b)
{
    ngx_s3_piece_t  *piece;

    while (b->pieces) {
        piece = b->pieces;
        b->pieces = piece->next;

        ngx_free(piece);
    }

    (void) munmap(b->buf.start, NGX_S3_BLOCK_SIZE);
    ngx_free(b);
}
