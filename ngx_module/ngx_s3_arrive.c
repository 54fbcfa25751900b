/*
 * A part that is sent while it arrives, where neither a hash nor a checksum of
 * it has to go first. S3 drops a request whose body stalls, so that is begun
 * only when the source seems to finish the part within seconds, and given up
 * when it does not: the part goes on being filled, and is sent when it is
 * whole. Part of ngx_s3_transfer.
 */

#include "ngx_s3_multipart.h"


/* ms: S3's own limit is about 20 s without a byte. The others are shares of
   this, or of a shorter s3_send_timeout. */
#define NGX_S3_ARRIVE_TIME     30000

#define ngx_s3_arrive_soon(ms)   ((ms) / 6)   /* the rest, when it is begun */
#define ngx_s3_arrive_stall(ms)  ((ms) / 10)  /* without a byte */
#define ngx_s3_arrive_late(ms)   ((ms) / 3)   /* all of it */
#define ngx_s3_arrive_tick(ms)   ((ms) / 30)

#define NGX_S3_ARRIVE_NEVER    ((uint64_t) -1)
#define NGX_S3_ARRIVE_MISSED   10


static ngx_msec_t ngx_s3_arrive_time(ngx_s3_transfer_t *t);
static void ngx_s3_arrive_judge(ngx_s3_transfer_t *t, ngx_s3_part_t *part);
static ngx_uint_t ngx_s3_arrive_may(ngx_s3_transfer_t *t,
    ngx_s3_part_t *part);
static void ngx_s3_arrive_begin(ngx_s3_transfer_t *t, ngx_s3_part_t *part);
static void ngx_s3_arrive_cancel(ngx_s3_transfer_t *t, ngx_s3_part_t *part,
    const char *why);


void
ngx_s3_arrive(ngx_s3_transfer_t *t)
{
    ngx_s3_part_t  *part;

    part = t->part;

    if (part == NULL) {
        return;
    }

    if (part->arriving) {
        ngx_s3_call_more(&part->call, part->size);

    } else if (part->size >= part->look) {
        ngx_s3_arrive_judge(t, part);
    }
}


static ngx_msec_t
ngx_s3_arrive_time(ngx_s3_transfer_t *t)
{
    return ngx_min(t->conf->target->endpoint->send_timeout,
                   NGX_S3_ARRIVE_TIME);
}


/* With each block: whether the source brings the rest soon, at the rate it had
   since the part before this one began. Less than that may be a burst, of what
   has gathered in the sockets. */

static void
ngx_s3_arrive_judge(ngx_s3_transfer_t *t, ngx_s3_part_t *part)
{
    uint64_t        rest, came, passed;
    ngx_s3_pool_t  *pool;

    if (part->look == 0) {
        part->look = ngx_s3_arrive_may(t, part)
                     ? part->size + NGX_S3_BLOCK_SIZE : NGX_S3_ARRIVE_NEVER;

        part->began = t->began;
        part->seen = t->seen;

        t->began = ngx_current_msec;
        t->seen = t->received;
        return;
    }

    part->look = part->size + NGX_S3_BLOCK_SIZE;

    if (part->planned < part->look) {

        /* it is about to be whole */

        part->look = NGX_S3_ARRIVE_NEVER;
        return;
    }

    pool = t->conf->pool;

    /* those that are whole go first, and where memory may get short this one
       would have to be closed early, unless it is of the smallest */

    if (t->upload_id.len == 0
        || !ngx_queue_empty(&t->ready)
        || t->nsending >= t->conf->concurrency
        || t->share.reserved < ngx_s3_blocks(part->planned)
        || (part->planned > t->plan.limits->min_part
            && (pool->reserved > pool->limit / 2
                || ngx_s3_pool_wanted(pool))))
    {
        return;
    }

    rest = part->planned - part->size;
    came = t->received - part->seen;
    passed = ngx_current_msec - part->began;

    if (rest * passed / came <= ngx_s3_arrive_soon(ngx_s3_arrive_time(t)))
    {
        ngx_s3_arrive_begin(t, part);
    }
}


static ngx_uint_t
ngx_s3_arrive_may(ngx_s3_transfer_t *t, ngx_s3_part_t *part)
{
    ngx_s3_target_t  *target;

    target = t->conf->target;

    return t->plan.total != -1 && !t->single
           && !target->sign_payload && !target->crc32
           && part->number > 1 && part->number >= t->arrive_from;
}


static void
ngx_s3_arrive_begin(ngx_s3_transfer_t *t, ngx_s3_part_t *part)
{
    part->arriving = 1;

    if (ngx_s3_multipart_send(t, part) != NGX_OK) {

        /* there may be memory once it is whole */

        part->arriving = 0;
        part->look = NGX_S3_ARRIVE_NEVER;
        return;
    }

    ngx_log_debug3(NGX_LOG_DEBUG_EVENT, t->log, 0,
                   "s3 part:%ui is sent while it arrives, %uL of %uL bytes",
                   part->number, part->size, part->planned);

    ngx_queue_insert_tail(&t->sending, &part->queue);
    t->nsending++;

    part->began = ngx_current_msec;
    part->moved = ngx_current_msec;
    part->seen = part->size;

    ngx_add_timer(&t->arrive, ngx_s3_arrive_tick(ngx_s3_arrive_time(t)));
}


ngx_uint_t
ngx_s3_arrive_whole(ngx_s3_transfer_t *t, ngx_s3_part_t *part)
{
    if (!part->arriving) {
        return 0;
    }

    if (part->size != (uint64_t) part->call.body_size) {

        /* S3 was told another length */

        ngx_s3_arrive_cancel(t, part, "others need the memory");
        return 0;
    }

    part->arriving = 0;

    if (t->missed) {
        t->missed--;
    }

    ngx_del_timer(&t->arrive);

    ngx_s3_call_more(&part->call, part->size);

    return 1;
}


void
ngx_s3_arrive_watch(ngx_event_t *ev)
{
    ngx_s3_transfer_t  *t = ev->data;

    ngx_msec_t      time;
    ngx_s3_part_t  *part;

    part = t->part;

    if (part == NULL || !part->arriving) {
        return;
    }

    time = ngx_s3_arrive_time(t);

    if (part->size != part->seen) {
        part->seen = part->size;
        part->moved = ngx_current_msec;

    } else if (ngx_current_msec - part->moved >= ngx_s3_arrive_stall(time)) {
        ngx_s3_arrive_cancel(t, part, "its source stalled");
        return;
    }

    if (ngx_current_msec - part->began >= ngx_s3_arrive_late(time)) {
        ngx_s3_arrive_cancel(t, part, "its source is slow");
        return;
    }

    ngx_add_timer(ev, ngx_s3_arrive_tick(time));
}


/* It goes on as a part that has not been sent. For the next ones the source has
   to be trusted again, after a pause that doubles. */

static void
ngx_s3_arrive_cancel(ngx_s3_transfer_t *t, ngx_s3_part_t *part,
    const char *why)
{
    ngx_log_error(NGX_LOG_INFO, t->log, 0,
                  "s3 part:%ui is sent again once it is whole, %s: %uL of "
                  "%O bytes came", part->number, why, part->size,
                  part->call.body_size);

    if (t->arrive.timer_set) {
        ngx_del_timer(&t->arrive);
    }

    ngx_s3_call_cancel(&part->call);

    ngx_queue_remove(&part->queue);
    t->nsending--;

    part->arriving = 0;
    part->look = NGX_S3_ARRIVE_NEVER;

    if (part->call.repeated) {

        /* S3 may be at it yet */

        part->repeated = 1;
        t->flying = 1;
    }

    t->missed = ngx_min(t->missed + 1, NGX_S3_ARRIVE_MISSED);
    t->arrive_from = part->number + (1 << t->missed);
}
