#include "ngx_s3_multipart.h"

#include "ngx_s3_kept.h"
#include "ngx_s3_log.h"
#include "ngx_s3_scratch.h"


/* names, headers, an upload id, and one part */
#define NGX_S3_TRANSFER_POOL   3072
#define NGX_S3_TRANSFER_RETRY  5000      /* ms, to a client that comes too
                                            early */


static void ngx_s3_transfer_hold(void);
static void ngx_s3_transfer_held(ngx_event_t *ev);
static void ngx_s3_transfer_release(void);
static ngx_s3_transfer_t *ngx_s3_transfer_alloc(ngx_s3_transfer_conf_t *conf,
    ngx_log_t *from);
static void ngx_s3_transfer_free(ngx_s3_transfer_t *t);
static ngx_int_t ngx_s3_transfer_copy_spec(ngx_s3_transfer_t *t,
    ngx_s3_transfer_spec_t *spec);
static ngx_int_t ngx_s3_transfer_plan(ngx_s3_transfer_t *t, int64_t total,
    ngx_s3_result_t *result);
static ngx_int_t ngx_s3_transfer_open(ngx_s3_transfer_t *t,
    ngx_s3_transfer_spec_t *spec, ngx_s3_result_t *result);
static ngx_int_t ngx_s3_transfer_mark(ngx_s3_transfer_t *t);
static ngx_int_t ngx_s3_transfer_record(ngx_s3_transfer_t *t,
    ngx_s3_transfer_spec_t *spec);
static void ngx_s3_transfer_too_large(ngx_s3_transfer_t *t,
    ngx_s3_result_t *result);
static u_char *ngx_s3_transfer_log_error(ngx_log_t *log, u_char *buf,
    size_t len);
static void ngx_s3_transfer_cancelled(ngx_s3_progress_t *p);
static void ngx_s3_transfer_end(ngx_s3_transfer_t *t, s3_state_e state,
    const char *reason);
static void ngx_s3_transfer_wake(ngx_event_t *ev);
static void ngx_s3_transfer_tick(ngx_event_t *ev);
static void ngx_s3_transfer_destroy(ngx_s3_transfer_t *t);


static ngx_uint_t        ngx_s3_transfer_count;     /* of this worker */
static ngx_event_t       ngx_s3_transfer_holder;
static ngx_connection_t  ngx_s3_transfer_no_connection;


static const char  *ngx_s3_transfer_states[NGX_S3_T_N] = {
    "waiting", "receiving", "flushing", "finishing", "cleaning", "closed"
};

#define to(state)  (1 << NGX_S3_T_##state)

/* the allowed moves: a set of next states for each */

static const ngx_uint_t  ngx_s3_transfer_moves[NGX_S3_T_N] = {
    /* WAITING */    to(RECEIVING) | to(CLEANING),
    /* RECEIVING */  to(FLUSHING) | to(CLEANING),
    /* FLUSHING */   to(FINISHING) | to(CLEANING),
    /* FINISHING */  to(CLEANING) | to(CLOSED),
    /* CLEANING */   to(CLOSED),
    /* CLOSED */     0
};


ngx_int_t
ngx_s3_transfer_create(ngx_s3_transfer_conf_t *conf,
    ngx_s3_transfer_spec_t *spec, ngx_s3_transfer_pt handler, void *data,
    ngx_s3_transfer_t **tp, ngx_s3_result_t *result)
{
    ngx_int_t           rc;
    ngx_s3_transfer_t  *t;

    ngx_s3_result_set(result, 500, "InternalError", "out of memory");

    t = ngx_s3_transfer_alloc(conf, spec->log);
    if (t == NULL) {
        return NGX_ERROR;
    }

    t->handler = handler;
    t->data = data;
    t->eager = spec->eager;

    if (ngx_s3_transfer_plan(t, spec->total, result) != NGX_OK) {
        ngx_s3_transfer_free(t);
        return NGX_DECLINED;
    }

    if (ngx_s3_transfer_copy_spec(t, spec) != NGX_OK
        || ngx_s3_transfer_record(t, spec) != NGX_OK)
    {
        ngx_s3_transfer_free(t);
        return NGX_ERROR;
    }

    rc = ngx_s3_transfer_open(t, spec, result);

    if (rc != NGX_OK) {
        ngx_s3_transfer_free(t);
        return rc;
    }

    ngx_s3_transfer_hold();

    if (ngx_s3_transfer_mark(t) != NGX_OK) {
        ngx_s3_transfer_abort(t, 1, "out of memory");
        return NGX_ERROR;
    }

    *tp = t;

    return NGX_OK;
}


/* A leaving worker goes when no timer but cancelable ones is left. This one is
   of all transfers, so that not each sets and removes one. */

static void
ngx_s3_transfer_hold(void)
{
    ngx_event_t  *ev;

    ev = &ngx_s3_transfer_holder;

    ngx_s3_transfer_count++;

    ev->cancelable = 0;

    if (!ev->timer_set) {
        ngx_s3_transfer_no_connection.fd = (ngx_socket_t) -1;

        ev->handler = ngx_s3_transfer_held;
        ev->data = &ngx_s3_transfer_no_connection;
        ev->log = ngx_cycle->log;

        ngx_add_timer(ev, NGX_S3_TRANSFER_TICK);
    }
}


static void
ngx_s3_transfer_held(ngx_event_t *ev)
{
    if (ngx_s3_transfer_count) {
        ngx_add_timer(ev, NGX_S3_TRANSFER_TICK);
    }
}


static void
ngx_s3_transfer_release(void)
{
    if (--ngx_s3_transfer_count == 0) {
        ngx_s3_transfer_holder.cancelable = 1;
    }
}


/* with a pool and a log of its own */

static ngx_s3_transfer_t *
ngx_s3_transfer_alloc(ngx_s3_transfer_conf_t *conf, ngx_log_t *from)
{
    ngx_log_t          *log;
    ngx_pool_t         *pool;
    ngx_s3_transfer_t  *t;

    t = ngx_s3_scratch_alloc(sizeof(ngx_s3_transfer_t), ngx_cycle->log);
    if (t == NULL) {
        return NULL;
    }

    ngx_memzero(t, offsetof(ngx_s3_transfer_t, call));

    pool = ngx_s3_scratch_pool(NGX_S3_TRANSFER_POOL, ngx_cycle->log);
    log = pool ? ngx_palloc(pool, sizeof(ngx_log_t)) : NULL;

    t->pool = pool;

    if (log == NULL) {
        ngx_s3_transfer_free(t);
        return NULL;
    }

    ngx_s3_log_own(log, from, ngx_s3_transfer_log_error, t);

    t->ident = -1;
    t->conf = conf;
    t->log = log;

    ngx_queue_init(&t->ready);
    ngx_queue_init(&t->sending);

    t->progress.cancel = ngx_s3_transfer_cancelled;

    t->share.handler = ngx_s3_fill_shared;
    t->share.data = t;

    t->wake.handler = ngx_s3_transfer_wake;
    t->wake.data = t;
    t->wake.log = t->log;

    t->arrive.handler = ngx_s3_arrive_watch;
    t->arrive.data = t;
    t->arrive.log = t->log;
    t->arrive.cancelable = 1;

    t->timer.handler = ngx_s3_transfer_tick;
    t->timer.data = t;
    t->timer.log = t->log;

    return t;
}


static ngx_int_t
ngx_s3_transfer_copy_spec(ngx_s3_transfer_t *t, ngx_s3_transfer_spec_t *spec)
{
    t->bucket.len = spec->bucket.len;
    t->bucket.data = ngx_pstrdup(t->pool, &spec->bucket);

    t->key.len = spec->key.len;
    t->key.data = ngx_pstrdup(t->pool, &spec->key);

    if (t->bucket.data == NULL || t->key.data == NULL) {
        return NGX_ERROR;
    }

    if (ngx_s3_fields_copy(t->pool, spec->headers, &t->headers) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_s3_fields_copy(t->pool, spec->conditions, &t->conditions);
}


ngx_int_t
ngx_s3_fields_copy(ngx_pool_t *pool, ngx_array_t *from,
    ngx_array_t **to)
{
    u_char      *p;
    s3_field_t  *src, *dst;
    ngx_uint_t   i, n;

    n = from ? from->nelts : 0;

    *to = ngx_array_create(pool, n + 1, sizeof(s3_field_t));
    if (*to == NULL) {
        return NGX_ERROR;
    }

    src = from ? from->elts : NULL;

    for (i = 0; i < n; i++) {

        dst = ngx_array_push(*to);
        p = ngx_pnalloc(pool, src[i].name.len + src[i].value.len + 1);

        if (dst == NULL || p == NULL) {
            return NGX_ERROR;
        }

        dst->name.len = src[i].name.len;
        dst->name.data = p;
        p = ngx_cpymem(p, src[i].name.data, src[i].name.len);

        dst->value.len = src[i].value.len;
        dst->value.data = p;
        ngx_memcpy(p, src[i].value.data, src[i].value.len);
    }

    return NGX_OK;
}


ngx_int_t
ngx_s3_transfer_keep(ngx_s3_transfer_t *t, ngx_array_t *fields)
{
    ngx_uint_t   i, fixed;
    s3_field_t  *f;

    f = fields->elts;
    fixed = t->headers->nelts;

    for (i = 0; i < fields->nelts; i++) {
        if (ngx_s3_keep(t->pool, t->headers, fixed, f[i].name, f[i].value)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_s3_transfer_plan(ngx_s3_transfer_t *t, int64_t total,
    ngx_s3_result_t *result)
{
    if (s3_plan_init(&t->plan, t->conf->target->limits, t->conf->part_size,
                     t->conf->window, total)
        != S3_OK)
    {
        ngx_s3_transfer_too_large(t, result);
        return NGX_DECLINED;
    }

    t->single = (total != -1 && s3_plan_single(&t->plan));

    return NGX_OK;
}


ngx_int_t
ngx_s3_transfer_total(ngx_s3_transfer_t *t, int64_t total)
{
    ngx_s3_result_t  result;

    if (t->done) {
        return NGX_DECLINED;
    }

    if (total == t->plan.total) {
        return NGX_OK;
    }

    if (ngx_s3_transfer_plan(t, total, &result) != NGX_OK) {
        ngx_s3_transfer_fail(t, &result);
        return NGX_DECLINED;
    }

    t->planned = 0;
    t->anew = 1;

    ngx_s3_progress_total(&t->progress, total);

    return NGX_OK;
}


/* the record, and all that may stand against it in this instance */

static ngx_int_t
ngx_s3_transfer_open(ngx_s3_transfer_t *t, ngx_s3_transfer_spec_t *spec,
    ngx_s3_result_t *result)
{
    ngx_s3_zone_claim_t  claim;

    claim.endpoint = ngx_s3_zone_endpoint(&t->conf->target->endpoint->name);
    claim.max_ingest = t->conf->max_ingest;
    claim.exclusive = spec->exclusive;
    claim.ingest = spec->ingest;

    switch (ngx_s3_progress_open(&t->progress, &t->conf->progress, &claim,
                                 t->log))
    {
    case NGX_OK:
        return NGX_OK;

    case NGX_BUSY:
        ngx_s3_result_set(result, 409, "TransferIdInUse",
                          "the transfer id is in use");
        break;

    case NGX_ABORT:
        ngx_s3_result_set(result, 409, "KeyInUse",
                          "another transfer writes the object");
        break;

    case NGX_AGAIN:
        ngx_s3_result_set(result, 503, "TooManyIngests",
                          "as many ingests run as may");
        result->retry_after = NGX_S3_TRANSFER_RETRY;
        break;

    default: /* NGX_DECLINED */
        ngx_s3_result_set(result, 503, "TooManyIngests",
                          "there is no room in s3_transfer_zone");
        result->retry_after = NGX_S3_TRANSFER_RETRY;
    }

    return NGX_BUSY;
}


/* every object carries the id of the transfer that made it, so that a look at
   it tells whose it is */

static ngx_int_t
ngx_s3_transfer_mark(ngx_s3_transfer_t *t)
{
    s3_field_t   *f;
    s3_record_t  *record;

    record = &t->progress.record;

    t->object_id.data = ngx_pnalloc(t->pool, S3_ID_MAX + NGX_INT64_LEN + 1);
    if (t->object_id.data == NULL) {
        return NGX_ERROR;
    }

    t->object_id.len = ngx_sprintf(t->object_id.data, "%s.%uL", record->id,
                                   record->attempt)
                       - t->object_id.data;

    f = ngx_array_push(t->headers);
    if (f == NULL) {
        return NGX_ERROR;
    }

    f->name = s3_str("x-amz-meta-transfer-id");
    f->value = ngx_s3_to_str(t->object_id);

    return NGX_OK;
}


static ngx_int_t
ngx_s3_transfer_record(ngx_s3_transfer_t *t, ngx_s3_transfer_spec_t *spec)
{
    s3_record_t  *record;

    record = &t->progress.record;

    s3_record_init(record);

    if (spec->id.len == 0) {
        if (ngx_s3_progress_id(record->id, t->log) != NGX_OK) {
            return NGX_ERROR;
        }

    } else {
        s3_str_copy(record->id, sizeof(record->id), ngx_s3_to_str(spec->id));
    }

    s3_str_copy(record->bucket, sizeof(record->bucket),
                ngx_s3_to_str(spec->bucket));
    s3_str_copy(record->key, sizeof(record->key), ngx_s3_to_str(spec->key));
    s3_str_copy(record->owner, sizeof(record->owner),
                ngx_s3_to_str(spec->owner));

    record->direction = spec->direction;
    record->total_bytes = spec->total;

    return NGX_OK;
}


static void
ngx_s3_transfer_too_large(ngx_s3_transfer_t *t, ngx_s3_result_t *result)
{
    u_char  *p;

    ngx_s3_result_set(result, 413, "EntityTooLarge", "");

    if (t->plan.need_window) {
        p = ngx_snprintf((u_char *) result->message,
                         sizeof(result->message) - 1,
                         "the object does not fit in %ui parts; it needs "
                         "s3_window %uLm",
                         (ngx_uint_t) t->plan.limits->max_parts,
                         t->plan.need_window / S3_MIB);

    } else {
        p = ngx_snprintf((u_char *) result->message,
                         sizeof(result->message) - 1,
                         "the object is larger than S3's limit of %uL bytes",
                         t->plan.limits->max_object);
    }

    *p = '\0';
}


static u_char *
ngx_s3_transfer_log_error(ngx_log_t *log, u_char *buf, size_t len)
{
    ngx_str_t           id;
    ngx_s3_transfer_t  *t;

    t = log->data;

    id.data = (u_char *) t->progress.record.id;
    id.len = ngx_strlen(id.data);

    return ngx_s3_log_object(log, buf, len, &id, &t->bucket, &t->key);
}


void
ngx_s3_transfer_set_state(ngx_s3_transfer_t *t, ngx_s3_transfer_state_e next)
{
    ngx_log_debug2(NGX_LOG_DEBUG_EVENT, t->log, 0, "s3 transfer: %s -> %s",
                   ngx_s3_transfer_states[t->state],
                   ngx_s3_transfer_states[next]);

    if (!(ngx_s3_transfer_moves[t->state] & (1 << next))) {
        ngx_log_error(NGX_LOG_ALERT, t->log, 0,
                      "s3 transfer cannot go from %s to %s",
                      ngx_s3_transfer_states[t->state],
                      ngx_s3_transfer_states[next]);
    }

    t->state = next;
}


void
ngx_s3_transfer_finish(ngx_s3_transfer_t *t)
{
    ngx_s3_part_t    *part;
    ngx_s3_result_t   result;

    if (t->done) {
        return;
    }

    if (t->plan.total != -1 && (uint64_t) t->plan.total != t->received) {
        ngx_s3_result_set(&result, 400, "IncompleteBody",
                          "the body is shorter than its Content-Length");
        ngx_s3_transfer_fail(t, &result);
        return;
    }

    t->whole = 1;

    ngx_s3_transfer_set_state(t, NGX_S3_T_FLUSHING);

    ngx_s3_progress_state(&t->progress, S3_STATE_COMPLETING, NULL, NULL);

    part = ngx_s3_fill_end(t);

    if (part) {
        ngx_s3_part_seal(part);
        ngx_queue_insert_tail(&t->ready, &part->queue);
    }

    ngx_s3_multipart_flush(t);
}


void
ngx_s3_transfer_acknowledged(ngx_s3_transfer_t *t, ngx_s3_part_t *part)
{
    ngx_s3_progress_stored(&t->progress, part->size);

    ngx_s3_part_free(t, part);

    if (t->starved) {
        ngx_s3_transfer_post(t);
    }
}


void
ngx_s3_transfer_completed(ngx_s3_transfer_t *t, const char *etag)
{
    t->done = 1;
    t->result.status = 201;

    ngx_s3_progress_state(&t->progress, S3_STATE_COMPLETED, etag, NULL);

    ngx_s3_transfer_close(t);
}


void
ngx_s3_transfer_fail(ngx_s3_transfer_t *t, ngx_s3_result_t *result)
{
    if (t->done) {
        return;
    }

    t->result = *result;

    ngx_s3_transfer_end(t, S3_STATE_FAILED, result->message);
}


void
ngx_s3_transfer_abort(ngx_s3_transfer_t *t, ngx_uint_t failed,
    const char *reason)
{
    t->handler = NULL;

    if (t->done) {
        ngx_s3_transfer_post(t);
        return;
    }

    if (t->whole) {
        return;
    }

    ngx_s3_transfer_end(t, failed ? S3_STATE_FAILED : S3_STATE_ABORTED,
                        reason);
}


static void
ngx_s3_transfer_cancelled(ngx_s3_progress_t *p)
{
    ngx_s3_transfer_cancel((ngx_s3_transfer_t *)
                           ((u_char *) p
                            - offsetof(ngx_s3_transfer_t, progress)),
                           "cancelled");
}


void
ngx_s3_transfer_cancel(ngx_s3_transfer_t *t, const char *reason)
{
    if (t->done || t->whole) {
        return;
    }

    ngx_s3_result_set(&t->result, 409, "TransferCancelled",
                      "the transfer was cancelled");

    ngx_s3_transfer_end(t, S3_STATE_ABORTED, reason);
}


/* it is not to be an object any more */

static void
ngx_s3_transfer_end(ngx_s3_transfer_t *t, s3_state_e state,
    const char *reason)
{
    t->done = 1;

    ngx_s3_progress_state(&t->progress, state, NULL, reason);

    ngx_s3_transfer_set_state(t, NGX_S3_T_CLEANING);
    ngx_s3_transfer_post(t);

    ngx_s3_multipart_clean(t);
}


void
ngx_s3_transfer_close(ngx_s3_transfer_t *t)
{
    ngx_s3_transfer_set_state(t, NGX_S3_T_CLOSED);
    ngx_s3_transfer_post(t);
}


void
ngx_s3_transfer_post(ngx_s3_transfer_t *t)
{
    if (!t->wake.posted) {
        ngx_post_event(&t->wake, &ngx_posted_events);
    }
}


/* the only place that calls the door, and the only one that destroys */

static void
ngx_s3_transfer_wake(ngx_event_t *ev)
{
    ngx_s3_transfer_t   *t = ev->data;

    ngx_s3_transfer_pt   handler;

    if (t->done) {

        handler = t->handler;
        t->handler = NULL;

        if (handler) {
            handler(t->data, NGX_S3_DONE);
        }

        if (t->state == NGX_S3_T_CLOSED) {
            ngx_s3_transfer_destroy(t);
        }

        return;
    }

    if (t->squeezed) {
        t->squeezed = 0;
        ngx_s3_fill_squeeze(t);
    }

    if (t->starved && t->handler && !t->done) {
        t->starved = 0;

        /* until it feeds: who was let in may have nothing yet */

        ngx_s3_transfer_silent(t);

        t->handler(t->data, NGX_S3_RESUME);
    }
}


/* ends the wait of one that stands in line, or of a leaving worker */

static void
ngx_s3_transfer_tick(ngx_event_t *ev)
{
    ngx_s3_transfer_t  *t = ev->data;

    ngx_s3_result_t     result;

    if (t->state == NGX_S3_T_CLEANING) {
        ngx_s3_multipart_hold(t);
        return;
    }

    if (t->state != NGX_S3_T_WAITING || !t->share.waiting) {
        return;
    }

    ngx_log_error(NGX_LOG_ERR, t->log, 0,
                  "no room in s3_memory for %M ms, %ui of %ui blocks are "
                  "reserved", t->conf->queue_timeout,
                  t->conf->pool->reserved, t->conf->pool->limit);

    ngx_s3_result_set(&result, 503, "SlowDown",
                      "there was no memory for the transfer within "
                      "s3_queue_timeout");

    ngx_s3_transfer_fail(t, &result);
}


static void
ngx_s3_transfer_destroy(ngx_s3_transfer_t *t)
{
    ngx_s3_part_destroy_spare(t);

    ngx_s3_transfer_release();

    if (t->timer.timer_set) {
        ngx_del_timer(&t->timer);
    }

    if (t->arrive.timer_set) {
        ngx_del_timer(&t->arrive);
    }

    if (t->wake.posted) {
        ngx_delete_posted_event(&t->wake);
    }

    if (t->etags) {
        ngx_free(t->etags);
    }

    if (t->sizes) {
        ngx_free(t->sizes);
    }

    ngx_s3_transfer_free(t);
}


static void
ngx_s3_transfer_free(ngx_s3_transfer_t *t)
{
    if (t->pool) {
        ngx_s3_scratch_pool_done(t->pool, NGX_S3_TRANSFER_POOL);
    }

    ngx_s3_scratch_free(t, sizeof(ngx_s3_transfer_t));
}


void
ngx_s3_result_set(ngx_s3_result_t *result, ngx_uint_t status,
    const char *code, const char *message)
{
    result->status = status;
    result->retry_after = 0;

    (void) ngx_cpystrn((u_char *) result->code, (u_char *) code,
                       sizeof(result->code));
    (void) ngx_cpystrn((u_char *) result->message, (u_char *) message,
                       sizeof(result->message));
}
