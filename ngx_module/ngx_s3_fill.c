/*
 * How the bytes of a body come to parts: memory for the next one, when a part
 * is whole, and when it is closed early because others wait. Part of
 * ngx_s3_transfer.
 */

#include "ngx_s3_multipart.h"


static ngx_int_t ngx_s3_fill_plan(ngx_s3_transfer_t *t);
static void ngx_s3_fill_needs(ngx_s3_transfer_t *t);
static ngx_int_t ngx_s3_fill_reserve(ngx_s3_transfer_t *t);
static ngx_int_t ngx_s3_fill_wait(ngx_s3_transfer_t *t);
static ngx_int_t ngx_s3_fill_buf(ngx_s3_transfer_t *t, ngx_buf_t *b);
static ngx_int_t ngx_s3_fill_room(ngx_s3_transfer_t *t);
static ngx_uint_t ngx_s3_fill_closable(ngx_s3_transfer_t *t);
static ngx_uint_t ngx_s3_fill_due(ngx_s3_transfer_t *t);
static void ngx_s3_fill_close(ngx_s3_transfer_t *t);
static ngx_int_t ngx_s3_fill_next_part(ngx_s3_transfer_t *t);
static void ngx_s3_fill_shorten(ngx_s3_transfer_t *t);
static uint64_t ngx_s3_fill_spare(ngx_s3_transfer_t *t);
static void ngx_s3_fill_ready(ngx_s3_transfer_t *t);


ngx_int_t
ngx_s3_transfer_admit(ngx_s3_transfer_t *t)
{
    ngx_int_t  rc;

    rc = ngx_s3_check_early(t);

    if (rc != NGX_OK) {
        return rc;
    }

    if (t->plan.total != 0) {
        rc = ngx_s3_fill_plan(t);

        if (rc == NGX_OK) {
            rc = ngx_s3_fill_reserve(t);
        }

        if (rc == NGX_DECLINED) {
            rc = ngx_s3_fill_wait(t);
        }
    }

    if (rc == NGX_OK) {
        t->share.admitted = 1;
        ngx_s3_transfer_set_state(t, NGX_S3_T_RECEIVING);

        /* an origin may send no more than the head for a long time */

        ngx_s3_transfer_silent(t);

    } else if (rc == NGX_AGAIN) {
        ngx_add_timer(&t->timer, t->conf->queue_timeout);
    }

    return rc;
}


void
ngx_s3_transfer_checked(ngx_s3_transfer_t *t)
{
    if (ngx_s3_transfer_admit(t) == NGX_OK) {
        t->starved = 1;
        ngx_s3_transfer_post(t);
    }
}


void
ngx_s3_fill_checked(ngx_s3_transfer_t *t)
{
    /* parts are whole, or the first of many is begun */

    if (!ngx_queue_empty(&t->ready)
        || (t->part && !t->single && t->plan.total != -1))
    {
        ngx_s3_multipart_pump(t);
    }
}


/* the size of the next part; NGX_AGAIN: the window is full */

static ngx_int_t
ngx_s3_fill_plan(ngx_s3_transfer_t *t)
{
    ngx_s3_result_t  result;

    if (t->planned == 0) {
        t->planned = s3_plan_next(&t->plan);

        if (t->planned == 0) {
            ngx_s3_result_set(&result, 413, "EntityTooLarge",
                              t->plan.goal == t->plan.limits->max_object
                              ? "the body is larger than S3's limit"
                              : "the body is larger than the largest object "
                                "of unknown length for this s3_part_size and "
                                "s3_window");
            ngx_s3_transfer_fail(t, &result);
            return NGX_ERROR;
        }
    }

    if (t->kept && t->kept + ngx_s3_blocks(t->planned)
                   > ngx_s3_blocks(t->conf->window))
    {
        t->starved = 1;
        return NGX_AGAIN;
    }

    return NGX_OK;
}


/* Blocks that finish the part, and those without which it is of no use: what
   makes it large enough to be closed, unless the part numbers do not allow
   that. Then all of it is reserved at once and for good, so that what was
   begun can always be sent. */

static void
ngx_s3_fill_needs(ngx_s3_transfer_t *t)
{
    uint64_t         planned, min, has;
    ngx_s3_part_t   *part;
    ngx_s3_share_t  *share;

    part = t->part;
    share = &t->share;
    planned = part ? part->planned : t->planned;
    has = part ? part->size + ngx_s3_part_room(part) : 0;
    min = t->plan.limits->min_part;

    share->fixed = (planned > min
                      && !s3_plan_may_close(&t->plan, planned, min));

    if (planned < min || share->fixed) {
        min = planned;
    }

    share->wants = (planned > has) ? ngx_s3_blocks(planned - has) : 1;
    share->least = (min > has) ? ngx_s3_blocks(min - has) : 1;
}


/* memory for the part; NGX_DECLINED: there is none now */

static ngx_int_t
ngx_s3_fill_reserve(ngx_s3_transfer_t *t)
{
    ngx_int_t        rc;
    ngx_s3_result_t  result;

    if (t->share.reserved > t->share.taken) {
        return NGX_OK;
    }

    if (t->share.waiting) {
        return NGX_DECLINED;
    }

    ngx_s3_fill_needs(t);

    rc = ngx_s3_pool_reserve(t->conf->pool, &t->share);

    if (rc == NGX_ERROR) {
        ngx_s3_result_set(&result, 413, "EntityTooLarge",
                          "a part is larger than s3_memory");
        ngx_s3_transfer_fail(t, &result);
    }

    return rc;
}


static ngx_int_t
ngx_s3_fill_wait(ngx_s3_transfer_t *t)
{
    t->starved = 1;

    if (!t->share.waiting) {
        ngx_s3_pool_wait(t->conf->pool, &t->share);
    }

    return NGX_AGAIN;
}


void
ngx_s3_fill_shared(void *data, ngx_s3_share_event_e event)
{
    ngx_s3_transfer_t  *t = data;

    if (event == NGX_S3_SHARE_SQUEEZED) {
        t->squeezed = 1;

    } else if (t->state == NGX_S3_T_WAITING) {
        t->share.admitted = 1;
        ngx_s3_transfer_set_state(t, NGX_S3_T_RECEIVING);

        if (t->timer.timer_set) {
            ngx_del_timer(&t->timer);
        }
    }

    ngx_s3_transfer_post(t);
}


ngx_int_t
ngx_s3_transfer_feed(ngx_s3_transfer_t *t, ngx_chain_t *in)
{
    size_t      n;
    u_char     *pos;
    ngx_int_t   rc;

    if (t->done) {
        return NGX_ERROR;
    }

    ngx_s3_pool_moves(t->conf->pool, &t->share);

    for ( /* void */ ; in; in = in->next) {

        pos = in->buf->pos;
        rc = ngx_s3_fill_buf(t, in->buf);
        n = in->buf->pos - pos;

        if (n) {
            ngx_s3_progress_chunk(&t->progress, n);
            ngx_s3_arrive(t);
        }

        if (rc != NGX_OK) {
            return rc;
        }

        if (t->part && ngx_s3_part_room(t->part) == 0 && ngx_s3_fill_due(t)) {
            ngx_s3_fill_close(t);

            if (t->done) {
                return NGX_ERROR;
            }
        }

        if (t->part && t->part->size == t->part->planned
            && (t->upload_id.len || ngx_s3_multipart_creating(t)))
        {
            ngx_s3_fill_ready(t);

            if (t->done) {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


size_t
ngx_s3_transfer_room(ngx_s3_transfer_t *t, u_char **p)
{
    ngx_s3_part_t  *part;

    part = t->part;

    /* nothing is begun, asked for or closed for bytes that may not come */

    if (t->done || !t->conf->zero_copy || part == NULL
        || part->size == part->planned
        || t->received == (uint64_t) t->plan.total)
    {
        return 0;
    }

    if (ngx_s3_part_room(part) == 0
        && (t->share.reserved == t->share.taken
            || ngx_s3_fill_due(t)
            || ngx_s3_part_grow(t, part) != NGX_OK))
    {
        return 0;
    }

    *p = part->last->tail->buf->last;

    return ngx_min(ngx_s3_part_room(part), part->planned - part->size);
}


ngx_int_t
ngx_s3_transfer_lend(ngx_s3_transfer_t *t, ngx_uint_t keeps,
    ngx_s3_loan_t *loan)
{
    size_t   size;
    u_char  *p;

    size = ngx_s3_transfer_room(t, &p);

    if (size == 0) {
        return NGX_DECLINED;
    }

    return ngx_s3_pool_lend(t->conf->pool, t->part->last, p, size, keeps, loan);
}


static ngx_int_t
ngx_s3_fill_buf(ngx_s3_transfer_t *t, ngx_buf_t *b)
{
    size_t      n;
    ngx_int_t   rc;

    while (b->pos < b->last) {

        rc = ngx_s3_fill_room(t);

        if (rc != NGX_OK) {
            return rc;
        }

        n = ngx_s3_part_copy(t->part, b->pos, b->last - b->pos,
                             t->conf->target->crc32);
        b->pos += n;
        t->received += n;
    }

    return NGX_OK;
}


/* a part with a block in which at least one byte has room */

static ngx_int_t
ngx_s3_fill_room(ngx_s3_transfer_t *t)
{
    ngx_int_t        rc;
    ngx_uint_t       closable;
    ngx_s3_result_t  result;

    if (t->part && t->part->size < t->part->planned) {

        if (ngx_s3_part_room(t->part)) {
            return NGX_OK;
        }

        /* who waits, also this one, waits for parts that are sent; what is
           missing for holes is not worth a block */

        closable = ngx_s3_fill_closable(t);

        rc = (closable
              && (ngx_s3_pool_wanted(t->conf->pool)
                  || t->part->planned - t->part->size <= t->part->holes))
             ? NGX_DECLINED : ngx_s3_fill_reserve(t);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_DECLINED) {

            if (!closable) {
                return ngx_s3_fill_wait(t);
            }

            ngx_s3_fill_close(t);

            if (t->done) {
                return NGX_ERROR;
            }
        }
    }

    if (t->part == NULL || t->part->size == t->part->planned) {
        rc = ngx_s3_fill_next_part(t);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (ngx_s3_part_grow(t, t->part) != NGX_OK) {
        ngx_s3_result_set(&result, 500, "InternalError", "out of memory");
        ngx_s3_transfer_fail(t, &result);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* whether what the part has can be sent, though more may come */

static ngx_uint_t
ngx_s3_fill_closable(ngx_s3_transfer_t *t)
{
    ngx_s3_part_t  *part;

    part = t->part;

    return part && t->received != (uint64_t) t->plan.total
           && s3_plan_may_close(&t->plan, part->planned, part->size);
}


/* whether it is to be sent at the end of a block, since others wait */

static ngx_uint_t
ngx_s3_fill_due(ngx_s3_transfer_t *t)
{
    return ngx_s3_pool_wanted(t->conf->pool) && ngx_s3_fill_closable(t);
}


static void
ngx_s3_fill_close(ngx_s3_transfer_t *t)
{
    s3_plan_close(&t->plan, t->part->planned, t->part->size);

    t->part->planned = t->part->size;
    t->single = 0;

    ngx_s3_fill_ready(t);
}


static ngx_int_t
ngx_s3_fill_next_part(ngx_s3_transfer_t *t)
{
    ngx_int_t         rc;
    ngx_s3_part_t    *part;
    ngx_s3_result_t   result;

    if (t->part) {

        /* more bytes than one part holds: it is a multipart upload */

        ngx_s3_fill_ready(t);

        if (t->done) {
            return NGX_ERROR;
        }
    }

    rc = ngx_s3_fill_plan(t);

    if (rc != NGX_OK) {
        return rc;
    }

    if (t->anew) {

        /* as much as this part needs, which may be all of it at once */

        t->anew = 0;
        (void) ngx_s3_pool_leave(t->conf->pool, &t->share);
    }

    rc = ngx_s3_fill_reserve(t);

    if (rc != NGX_OK) {
        return (rc == NGX_DECLINED) ? ngx_s3_fill_wait(t) : rc;
    }

    ngx_s3_fill_shorten(t);

    part = ngx_s3_part_get(t);

    if (part == NULL) {
        ngx_s3_result_set(&result, 500, "InternalError", "out of memory");
        ngx_s3_transfer_fail(t, &result);
        return NGX_ERROR;
    }

    part->planned = t->planned;
    part->spare = ngx_s3_fill_spare(t);
    part->number = ++t->nparts;

    t->planned = 0;
    t->part = part;

    if (!t->single && t->plan.total != -1) {
        ngx_s3_multipart_create(t);
    }

    return t->done ? NGX_ERROR : NGX_OK;
}


/* Where others wait, there is memory for the smallest of parts: it is planned as
   one, so that its size is known before it is whole, and it can be sent while it
   arrives. */

static void
ngx_s3_fill_shorten(ngx_s3_transfer_t *t)
{
    uint64_t  min;

    min = t->plan.limits->min_part;

    if (t->plan.total == -1 || t->planned <= min
        || t->share.reserved > ngx_s3_blocks(min)
        || !s3_plan_may_close(&t->plan, t->planned, min))
    {
        return;
    }

    s3_plan_close(&t->plan, t->planned, min);

    t->planned = min;
    t->single = 0;
}


/* by how many bytes the part to come may become smaller; bodies of known length
   have nothing between their bytes */

static uint64_t
ngx_s3_fill_spare(ngx_s3_transfer_t *t)
{
    uint64_t  spare, planned;

    planned = t->planned;

    if (t->plan.total != -1 || t->share.fixed
        || planned <= t->plan.limits->min_part)
    {
        return 0;
    }

    spare = ngx_min(planned - t->plan.limits->min_part, NGX_S3_BLOCK_SIZE);

    return s3_plan_may_close(&t->plan, planned, planned - spare) ? spare : 0;
}


/* the part that was being filled goes to those that can be sent, unless it is
   being sent */

static void
ngx_s3_fill_ready(ngx_s3_transfer_t *t)
{
    ngx_s3_part_t  *part;

    part = ngx_s3_fill_end(t);

    ngx_s3_part_seal(part);

    if (!ngx_s3_arrive_whole(t, part)) {
        ngx_queue_insert_tail(&t->ready, &part->queue);
    }

    ngx_s3_multipart_pump(t);
}


ngx_s3_part_t *
ngx_s3_fill_end(ngx_s3_transfer_t *t)
{
    ngx_uint_t      taken;
    ngx_s3_part_t  *part;

    part = t->part;
    t->part = NULL;

    taken = ngx_s3_pool_leave(t->conf->pool, &t->share);

    if (part) {
        part->reserved = taken;
        t->kept += taken;
    }

    return part;
}


void
ngx_s3_transfer_silent(ngx_s3_transfer_t *t)
{
    if (t->done || t->whole) {
        return;
    }

    t->share.closable = ngx_s3_fill_closable(t);

    ngx_s3_pool_silent(t->conf->pool, &t->share);
}


void
ngx_s3_fill_squeeze(ngx_s3_transfer_t *t)
{
    if (!ngx_s3_fill_closable(t)) {
        return;
    }

    /* a block that is lent stays reserved when S3 has the part: who is silent
       has to come for it to be returned, where that is possible */

    if (t->part->last->loans) {
        t->starved = 1;
    }

    ngx_s3_fill_close(t);
}
