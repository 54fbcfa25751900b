#include "ngx_s3_pull.h"

#include "ngx_s3_log.h"
#include "ngx_s3_multipart.h"


#define NGX_S3_PULL_POOL   4096
#define NGX_S3_PULL_SHOWN  512       /* of a URL, in a log line */
#define NGX_S3_PULL_POOR   65536     /* bytes; a try that brings less is no
                                        reason to hurry */


static ngx_s3_pull_t *ngx_s3_pull_alloc(ngx_s3_pull_conf_t *conf,
    ngx_log_t *from);
static ngx_int_t ngx_s3_pull_copy(ngx_s3_pull_t *p, ngx_s3_pull_spec_t *spec);
static ngx_int_t ngx_s3_pull_copy_str(ngx_pool_t *pool, ngx_str_t *from,
    ngx_str_t *to);
static ngx_int_t ngx_s3_pull_create(ngx_s3_pull_t *p,
    ngx_s3_result_t *result);
static ngx_int_t ngx_s3_pull_renew(ngx_s3_pull_t *p);
static u_char *ngx_s3_pull_log_error(ngx_log_t *log, u_char *buf, size_t len);

static void ngx_s3_pull_ask(ngx_s3_pull_t *p);
static void ngx_s3_pull_timer(ngx_event_t *ev);
static ngx_int_t ngx_s3_pull_first(ngx_s3_pull_t *p);
static ngx_int_t ngx_s3_pull_anew(ngx_s3_pull_t *p);
static ngx_int_t ngx_s3_pull_follow(ngx_s3_pull_t *p);
static ngx_int_t ngx_s3_pull_refused(ngx_s3_pull_t *p);
static void ngx_s3_pull_came(ngx_s3_pull_t *p);
static void ngx_s3_pull_judge(ngx_s3_pull_t *p);
static void ngx_s3_pull_again(ngx_s3_pull_t *p, s3_retry_e class,
    ngx_msec_t after);

static void ngx_s3_pull_event(void *data, ngx_s3_transfer_event_e event);
static void ngx_s3_pull_resume(ngx_s3_pull_t *p);
static void ngx_s3_pull_fail(ngx_s3_pull_t *p);
static void ngx_s3_pull_no_memory(ngx_s3_pull_t *p);
static void ngx_s3_pull_end(ngx_s3_pull_t *p);
static void ngx_s3_pull_wake(ngx_event_t *ev);
static void ngx_s3_pull_destroy(ngx_s3_pull_t *p);
static void ngx_s3_pull_log(ngx_s3_pull_t *p, ngx_uint_t level,
    const char *what, ngx_msec_t *delay);


ngx_int_t
ngx_s3_pull_start(ngx_s3_pull_conf_t *conf, ngx_s3_pull_spec_t *spec,
    ngx_s3_pull_pt handler, void *data, ngx_s3_pull_t **pull,
    ngx_s3_result_t *result)
{
    ngx_int_t       rc;
    const char     *err;
    ngx_s3_pull_t  *p;

    ngx_s3_result_set(result, 500, "InternalError", "out of memory");

    p = ngx_s3_pull_alloc(conf, spec->transfer.log);
    if (p == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_s3_pull_copy(p, spec);

    if (rc == NGX_OK
        && s3_origin_parse(ngx_s3_to_str(p->url), &p->origin, &err) != S3_OK)
    {
        ngx_s3_result_set(result, 400, "InvalidOrigin", err);
        rc = NGX_DECLINED;
    }

    if (rc == NGX_OK) {
        rc = ngx_s3_pull_create(p, result);
    }

    if (rc != NGX_OK) {
        ngx_destroy_pool(p->pool);
        return rc;
    }

    p->handler = handler;
    p->data = data;

    ngx_log_error(NGX_LOG_INFO, p->log, 0, "s3 ingest from \"%V\"", &p->shown);

    p->next = p->url;

    ngx_s3_pull_ask(p);

    *pull = p;

    return NGX_OK;
}


static ngx_s3_pull_t *
ngx_s3_pull_alloc(ngx_s3_pull_conf_t *conf, ngx_log_t *from)
{
    ngx_log_t      *log;
    ngx_pool_t     *pool;
    ngx_s3_pull_t  *p;

    pool = ngx_create_pool(NGX_S3_PULL_POOL, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    p = ngx_pcalloc(pool, sizeof(ngx_s3_pull_t));
    log = ngx_palloc(pool, sizeof(ngx_log_t));

    if (p == NULL || log == NULL
        || ngx_array_init(&p->range, pool, 2, sizeof(s3_field_t)) != NGX_OK)
    {
        ngx_destroy_pool(pool);
        return NULL;
    }

    ngx_s3_log_own(log, from, ngx_s3_pull_log_error, p);

    p->ident = -1;
    p->conf = conf;
    p->pool = pool;
    p->log = log;

    p->timer.handler = ngx_s3_pull_timer;
    p->timer.data = p;
    p->timer.log = p->log;

    p->wake.handler = ngx_s3_pull_wake;
    p->wake.data = p;
    p->wake.log = p->log;

    return p;
}


static ngx_int_t
ngx_s3_pull_copy(ngx_s3_pull_t *p, ngx_s3_pull_spec_t *spec)
{
    s3_buf_t                 b;
    ngx_s3_transfer_spec_t  *to, *from;

    from = &spec->transfer;
    to = &p->spec;

    *to = *from;

    to->exclusive = 1;
    to->ingest = 1;

    if (ngx_s3_pull_copy_str(p->pool, &from->id, &to->id) != NGX_OK
        || ngx_s3_pull_copy_str(p->pool, &from->owner, &to->owner) != NGX_OK
        || ngx_s3_pull_copy_str(p->pool, &from->bucket, &to->bucket) != NGX_OK
        || ngx_s3_pull_copy_str(p->pool, &from->key, &to->key) != NGX_OK
        || ngx_s3_pull_copy_str(p->pool, &spec->url, &p->url) != NGX_OK
        || ngx_s3_fields_copy(p->pool, from->headers, &to->headers) != NGX_OK
        || ngx_s3_fields_copy(p->pool, from->conditions, &to->conditions)
           != NGX_OK
        || ngx_s3_fields_copy(p->pool, spec->fields, &p->fields) != NGX_OK)
    {
        return NGX_ERROR;
    }

    p->shown.data = ngx_pnalloc(p->pool, NGX_S3_PULL_SHOWN);
    if (p->shown.data == NULL) {
        return NGX_ERROR;
    }

    s3_buf_init(&b, p->shown.data, NGX_S3_PULL_SHOWN);
    s3_origin_shown(ngx_s3_to_str(p->url), &b);

    p->shown.len = b.pos - b.start;

    return NGX_OK;
}


static ngx_int_t
ngx_s3_pull_copy_str(ngx_pool_t *pool, ngx_str_t *from, ngx_str_t *to)
{
    to->len = from->len;
    to->data = ngx_pnalloc(pool, from->len + 1);

    if (to->data == NULL) {
        return NGX_ERROR;
    }

    if (from->len) {
        ngx_memcpy(to->data, from->data, from->len);
    }

    return NGX_OK;
}


/* an attempt: NGX_OK, else as ngx_s3_transfer_create() says */

static ngx_int_t
ngx_s3_pull_create(ngx_s3_pull_t *p, ngx_s3_result_t *result)
{
    ngx_int_t           rc;
    ngx_str_t           id;
    ngx_s3_transfer_t  *t;

    rc = ngx_s3_transfer_create(p->conf->transfer, &p->spec,
                                ngx_s3_pull_event, p, &t, result);

    if (rc != NGX_OK) {
        return rc;
    }

    p->transfer = t;

    p->received = 0;
    p->total = -1;
    p->begun = 0;
    p->resumable = 0;
    p->waiting = 0;
    p->paused = 0;
    p->whole = 0;

    if (p->spec.id.len) {
        return NGX_OK;
    }

    /* the next attempt has the same */

    id.data = (u_char *) t->progress.record.id;
    id.len = ngx_strlen(id.data);

    if (ngx_s3_pull_copy_str(p->pool, &id, &p->spec.id) != NGX_OK) {
        p->transfer = NULL;
        ngx_s3_transfer_abort(t, 1, "out of memory");
        ngx_s3_result_set(result, 500, "InternalError", "out of memory");
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* All of it has to come again, which is another attempt. NGX_ERROR: there is
   none, and the pull ends. A cancellation that this worker has not looked for
   yet is the former's, whose record is about to be final. */

static ngx_int_t
ngx_s3_pull_renew(ngx_s3_pull_t *p)
{
    ngx_s3_transfer_t  *t;

    t = p->transfer;

    ngx_s3_progress_cancel(p->conf->transfer->progress.stores);

    if (t->done) {
        return NGX_ERROR;
    }

    p->transfer = NULL;

    ngx_s3_transfer_abort(t, 0, "the origin broke off, it is fetched again "
                          "from the start");

    p->record = t->progress.record;

    if (ngx_s3_pull_create(p, &p->result) == NGX_OK) {
        return NGX_OK;
    }

    ngx_s3_pull_log(p, NGX_LOG_ERR, "cannot begin again", NULL);

    ngx_s3_pull_end(p);

    return NGX_ERROR;
}


static u_char *
ngx_s3_pull_log_error(ngx_log_t *log, u_char *buf, size_t len)
{
    ngx_s3_pull_t  *pull;

    pull = log->data;

    return ngx_s3_log_object(log, buf, len, &pull->spec.id, &pull->spec.bucket,
                             &pull->spec.key);
}


s3_record_t *
ngx_s3_pull_record(ngx_s3_pull_t *p)
{
    return p->transfer ? &p->transfer->progress.record : &p->record;
}


void
ngx_s3_pull_leave(ngx_s3_pull_t *p)
{
    p->handler = NULL;
}


static void
ngx_s3_pull_ask(ngx_s3_pull_t *p)
{
    ngx_int_t  rc;

    p->streaming = 0;

    rc = ngx_s3_pull_request(p);

    if (rc == NGX_ERROR) {
        ngx_s3_pull_no_memory(p);

    } else if (rc != NGX_OK) {
        ngx_s3_pull_fail(p);
    }
}


static void
ngx_s3_pull_timer(ngx_event_t *ev)
{
    ngx_s3_pull_t *p = ev->data;

    ev->timedout = 0;

    ngx_s3_pull_ask(p);
}


/* the head of an answer; whatever it leads to but its body ends the request */

ngx_int_t
ngx_s3_pull_begin(ngx_s3_request_t *rq)
{
    ngx_s3_pull_t *p = rq->data;

    ngx_int_t  rc;

    if (p->transfer->done) {
        rc = NGX_ERROR;

    } else if (rq->status == 200) {
        rc = ngx_s3_pull_first(p);

    } else if (rq->status == 206 && p->range.nelts) {

        if (ngx_s3_pull_rest(p)) {
            p->streaming = 1;
            return NGX_OK;
        }

        rc = ngx_s3_pull_anew(p);

    } else if (rq->status == 416 && p->range.nelts) {
        rc = ngx_s3_pull_anew(p);

    } else if (p->origin.scheme == S3_ORIGIN_S3) {

        /* the document says what is wrong */

        return NGX_DECLINED;

    } else if (rq->status == 301 || rq->status == 302 || rq->status == 303
               || rq->status == 307 || rq->status == 308)
    {
        rc = ngx_s3_pull_follow(p);

    } else {
        rc = ngx_s3_pull_refused(p);
    }

    if (rc != NGX_OK) {
        ngx_s3_request_cancel(rq);
        return NGX_DONE;
    }

    p->streaming = 1;

    return NGX_OK;
}


/* all of it comes, from its first byte. NGX_OK: it is wanted. */

static ngx_int_t
ngx_s3_pull_first(ngx_s3_pull_t *p)
{
    ngx_int_t          rc;
    ngx_s3_request_t  *rq;

    rq = &p->rq;

    if (rq->close_delimited && !p->conf->close_delimited) {
        ngx_s3_result_set(&p->result, 502, "OriginUndelimited",
                          "the origin does not say where the body ends, see "
                          "s3_ingest_close_delimited");
        ngx_s3_pull_fail(p);
        return NGX_ERROR;
    }

    if (p->begun) {

        if (p->received == 0 && ngx_s3_pull_same(p)) {
            return NGX_OK;
        }

        if (p->transfer->done || ngx_s3_pull_renew(p) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    p->begun = 1;
    p->total = rq->content_length;

    ngx_s3_pull_note(p);

    if (ngx_s3_transfer_keep(p->transfer, rq->fields) != NGX_OK) {
        ngx_s3_pull_no_memory(p);
        return NGX_ERROR;
    }

    if (p->transfer->done) {
        return NGX_ERROR;
    }

    if (p->total != -1
        && ngx_s3_transfer_total(p->transfer, p->total) != NGX_OK)
    {
        p->result = p->transfer->result;
        ngx_s3_pull_log(p, NGX_LOG_ERR, "failed", NULL);
        return NGX_ERROR;
    }

    rc = ngx_s3_transfer_admit(p->transfer);

    if (rc == NGX_AGAIN) {
        p->waiting = 1;
    }

    return (rc == NGX_ERROR) ? NGX_ERROR : NGX_OK;
}


/* what came is of no use any more, and this answer has none of it */

static ngx_int_t
ngx_s3_pull_anew(ngx_s3_pull_t *p)
{
    p->resumable = 0;

    ngx_s3_result_set(&p->result, 502, "OriginBroken",
                      "the origin broke off and does not send the rest");

    ngx_s3_pull_again(p, S3_RETRY_TRANSIENT, 0);

    return NGX_ERROR;
}


static ngx_int_t
ngx_s3_pull_follow(ngx_s3_pull_t *p)
{
    ngx_int_t  rc;

    rc = ngx_s3_pull_redirect(p);

    if (rc == NGX_ERROR) {
        ngx_s3_pull_no_memory(p);

    } else if (rc != NGX_OK) {
        ngx_s3_pull_fail(p);

    } else {
        ngx_add_timer(&p->timer, 0);
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_s3_pull_refused(ngx_s3_pull_t *p)
{
    s3_retry_e  class;

    ngx_s3_pull_status(p);

    class = s3_retry_class(p->rq.status, s3_str(""));

    if (class != S3_RETRY_THROTTLE && class != S3_RETRY_TRANSIENT) {
        class = (p->rq.status >= 500) ? S3_RETRY_TRANSIENT : S3_RETRY_NO;
    }

    ngx_s3_pull_again(p, class, p->result.retry_after);

    return NGX_ERROR;
}


size_t
ngx_s3_pull_room(ngx_s3_request_t *rq, u_char **p)
{
    ngx_s3_pull_t *pull = rq->data;

    /* the framing of chunks would lie in between */

    if (pull->waiting || pull->transfer->plan.total == -1) {
        return 0;
    }

    return ngx_s3_transfer_room(pull->transfer, p);
}


ngx_int_t
ngx_s3_pull_part(ngx_s3_request_t *rq, ngx_buf_t *b)
{
    ngx_s3_pull_t *p = rq->data;

    off_t        n;
    ngx_int_t    rc;
    ngx_chain_t  one;

    if (p->waiting) {
        p->paused = 1;
        return NGX_AGAIN;
    }

    n = b->last - b->pos;

    if (p->total != -1 && p->received + n > p->total) {
        ngx_s3_result_set(&p->result, 502, "OriginBroken",
                          "the origin sends more bytes than it announced");
        ngx_s3_pull_fail(p);
        ngx_s3_request_cancel(rq);
        return NGX_DONE;
    }

    one.buf = b;
    one.next = NULL;

    rc = ngx_s3_transfer_feed(p->transfer, &one);

    p->received += n - (b->last - b->pos);

    if (p->received > p->furthest) {
        p->furthest = p->received;
        p->failures = 0;
    }

    if (rc == NGX_ERROR) {
        ngx_s3_request_cancel(rq);
        return NGX_DONE;
    }

    if (rc == NGX_AGAIN) {
        p->paused = 1;
        return NGX_AGAIN;
    }

    /* until the next one comes */

    ngx_s3_transfer_silent(p->transfer);

    return NGX_OK;
}


void
ngx_s3_pull_answered(ngx_s3_request_t *rq)
{
    ngx_s3_pull_t *p = rq->data;

    s3_retry_e  class;

    if (p->transfer->done) {
        return;
    }

    if (rq->error == NGX_S3_E_NONE) {

        if (p->streaming) {
            ngx_s3_pull_came(p);

        } else {
            ngx_s3_pull_judge(p);
        }

        return;
    }

    ngx_s3_pull_lost(p);

    class = S3_RETRY_TRANSIENT;

    if (rq->error == NGX_S3_E_REFUSED || rq->error == NGX_S3_E_CERTIFICATE
        || (rq->error == NGX_S3_E_CLOSED
            && ngx_strcmp(rq->reason, NGX_S3_LEAVING) == 0))
    {
        class = S3_RETRY_NO;
    }

    ngx_s3_pull_again(p, class, 0);
}


/* all of an answer was taken */

static void
ngx_s3_pull_came(ngx_s3_pull_t *p)
{
    if (p->total != -1 && p->received < p->total && !p->waiting) {
        ngx_s3_result_set(&p->result, 502, "OriginBroken",
                          "the origin sent fewer bytes than it announced");
        ngx_s3_pull_again(p, S3_RETRY_TRANSIENT, 0);
        return;
    }

    if (p->waiting) {
        p->whole = 1;
        return;
    }

    ngx_s3_transfer_finish(p->transfer);
}


/* S3's refusal */

static void
ngx_s3_pull_judge(ngx_s3_pull_t *p)
{
    ngx_int_t   rc;
    s3_retry_e  class;

    rc = ngx_s3_get_judge(&p->get, &p->rq);

    ngx_s3_pull_status(p);

    if (p->rq.status == 412 && p->range.nelts) {

        /* another object has taken the place of what came */

        (void) ngx_s3_pull_anew(p);
        return;
    }

    switch (rc) {

    case NGX_OK:
        class = S3_RETRY_CLOCK;
        break;

    case NGX_AGAIN:
        class = S3_RETRY_TRANSIENT;
        break;

    default:
        class = S3_RETRY_NO;
    }

    ngx_s3_pull_again(p, class, p->get.retry_after);
}


/* a try has failed as p->result says: another one, or the end */

static void
ngx_s3_pull_again(ngx_s3_pull_t *p, s3_retry_e class, ngx_msec_t after)
{
    uint64_t          r, wait;
    ngx_msec_t        delay;
    ngx_s3_target_t  *target;

    if (p->transfer->done) {
        return;
    }

    target = p->conf->transfer->target;

    p->failures++;

    if (p->failures == 1) {
        p->since = ngx_current_msec;
    }

    if (p->furthest - p->mark >= NGX_S3_PULL_POOR) {
        p->poor = 0;
    }

    p->poor++;
    p->mark = p->furthest;

    r = ((uint64_t) ngx_random() << 31) ^ (uint64_t) ngx_random();

    if (class == S3_RETRY_NO || p->failures >= target->tries
        || s3_retry_wait(class, p->poor, r, after,
                         ngx_current_msec - p->since, target->retry_timeout,
                         &wait)
           != S3_OK)
    {
        ngx_s3_pull_fail(p);
        return;
    }

    delay = wait;

    ngx_s3_pull_log(p, NGX_LOG_WARN, "is tried again", &delay);

    if (p->received && !p->resumable && ngx_s3_pull_renew(p) != NGX_OK) {
        return;
    }

    ngx_s3_transfer_silent(p->transfer);

    p->next = p->url;
    p->hops = 0;
    p->foreign = 0;

    ngx_add_timer(&p->timer, delay);
}


static void
ngx_s3_pull_event(void *data, ngx_s3_transfer_event_e event)
{
    ngx_s3_pull_t *p = data;

    if (event == NGX_S3_RESUME) {
        ngx_s3_pull_resume(p);
        return;
    }

    p->result = p->transfer->result;
    p->record = p->transfer->progress.record;
    p->transfer = NULL;

    ngx_s3_pull_end(p);
}


static void
ngx_s3_pull_resume(ngx_s3_pull_t *p)
{
    p->waiting = 0;

    if (p->whole) {
        p->whole = 0;
        ngx_s3_pull_came(p);
        return;
    }

    if (p->paused) {
        p->paused = 0;
        ngx_s3_request_resume(&p->rq);
    }
}


/* for good, as p->result says */

static void
ngx_s3_pull_fail(ngx_s3_pull_t *p)
{
    ngx_s3_transfer_t  *t;

    t = p->transfer;

    if (t->done) {

        /* by itself: the end is told by its event */

        return;
    }

    ngx_s3_pull_log(p, NGX_LOG_ERR, "failed", NULL);

    p->transfer = NULL;

    ngx_s3_transfer_abort(t, 1, p->result.message);

    p->record = t->progress.record;

    ngx_s3_pull_end(p);
}


static void
ngx_s3_pull_no_memory(ngx_s3_pull_t *p)
{
    ngx_s3_result_set(&p->result, 500, "InternalError", "out of memory");

    ngx_s3_pull_fail(p);
}


/* no transfer is left */

static void
ngx_s3_pull_end(ngx_s3_pull_t *p)
{
    ngx_s3_request_cancel(&p->rq);

    if (p->timer.timer_set) {
        ngx_del_timer(&p->timer);
    }

    ngx_post_event(&p->wake, &ngx_posted_events);
}


/* the only place that calls the door, and the only one that destroys */

static void
ngx_s3_pull_wake(ngx_event_t *ev)
{
    ngx_s3_pull_t *p = ev->data;

    if (p->handler) {
        p->handler(p->data, &p->result, &p->record);
    }

    ngx_s3_pull_destroy(p);
}


static void
ngx_s3_pull_destroy(ngx_s3_pull_t *p)
{
    if (p->try_pool) {
        p->try_pool->log = ngx_cycle->log;
        ngx_destroy_pool(p->try_pool);
    }

    p->pool->log = ngx_cycle->log;

    ngx_destroy_pool(p->pool);
}


static void
ngx_s3_pull_log(ngx_s3_pull_t *p, ngx_uint_t level, const char *what,
    ngx_msec_t *delay)
{
    char    *action;
    u_char  *end, next[sizeof(", next in  ms") + NGX_INT64_LEN];

    end = next;

    if (delay) {
        end = ngx_sprintf(next, ", next in %M ms", *delay);
    }

    /* the client sets it, and leaves it */

    action = p->log->action;
    p->log->action = NULL;

    ngx_log_error(level, p->log, 0, "s3 ingest from \"%V\" %s: %s%*s",
                  &p->shown, what, p->result.message, (size_t) (end - next),
                  next);

    p->log->action = action;
}
