#include "ngx_s3_api.h"

#include "ngx_s3_scratch.h"
#include "ngx_s3_try.h"


#define NGX_S3_API_POOL           4096
/* between two reads, while S3 puts the parts together, and for all of that */
#define NGX_S3_API_COMPLETE_WAIT  60000      /* ms */
#define NGX_S3_API_COMPLETE_ALL   1800000
/* of an upload id, in a log line */
#define NGX_S3_API_LOG_ID         256

#define ngx_s3_api_tries(call)                                               \
    ((call)->max_tries ? (call)->max_tries : (call)->target->tries)


typedef struct {
    void             *dummy[3];      /* an event's data */
    ngx_int_t         ident;

    ngx_s3_call_t    *call;
    ngx_pool_t       *pool;
    ngx_pool_t       *try_pool;      /* what one try needs */
    ngx_event_t       timer;         /* plain: a leaving worker waits for it */
    ngx_msec_t        start;         /* the first failure: a large part may
                                        take longer than all the retries */

    ngx_s3_op_t       op;
    ngx_s3_request_t  rq;
    ngx_s3_answer_t   answer;
    ngx_s3_lessons_t  lessons;

    unsigned          refused:1;     /* it cannot even be signed */
} ngx_s3_api_t;


static ngx_int_t ngx_s3_api_try(ngx_s3_api_t *a);
static void ngx_s3_api_refuse(ngx_s3_api_t *a, ngx_s3_refusal_t *refusal);
static void ngx_s3_api_answered(ngx_s3_request_t *rq);
static ngx_int_t ngx_s3_api_again(ngx_s3_api_t *a, ngx_msec_t *delay);
static void ngx_s3_api_timer(ngx_event_t *ev);
static void ngx_s3_api_fail(ngx_s3_api_t *a);
static ngx_uint_t ngx_s3_api_client_status(ngx_s3_call_t *call);
static ngx_uint_t ngx_s3_api_conditional(ngx_s3_call_t *call);
static void ngx_s3_api_finish(ngx_s3_api_t *a, ngx_int_t rc);
static void ngx_s3_api_destroy(ngx_s3_api_t *a);
static void ngx_s3_api_log(ngx_s3_api_t *a, ngx_uint_t level,
    ngx_msec_t *delay);


ngx_int_t
ngx_s3_call_start(ngx_s3_call_t *call)
{
    ngx_pool_t    *pool;
    ngx_s3_api_t  *a;

    call->state = NULL;
    call->rc = NGX_ERROR;
    call->tries = 0;
    call->unknown = 0;
    call->repeated = 0;
    call->clock = -1;
    call->message[0] = '\0';

    pool = ngx_s3_scratch_pool(NGX_S3_API_POOL, call->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    a = ngx_pcalloc(pool, sizeof(ngx_s3_api_t));
    if (a == NULL) {
        ngx_s3_scratch_pool_done(pool, NGX_S3_API_POOL);
        return NGX_ERROR;
    }

    a->ident = -1;
    a->call = call;
    a->pool = pool;
    a->timer.handler = ngx_s3_api_timer;
    a->timer.data = a;
    a->timer.log = call->log;

    if (ngx_s3_op_build(call, pool, &a->op) != NGX_OK
        || (call->delay == 0 && ngx_s3_api_try(a) != NGX_OK))
    {
        ngx_s3_api_destroy(a);
        return NGX_ERROR;
    }

    if (call->delay) {
        ngx_add_timer(&a->timer, call->delay);
    }

    call->state = a;

    return NGX_OK;
}


ngx_uint_t
ngx_s3_call_waits(ngx_s3_call_t *call)
{
    ngx_s3_api_t  *a;

    a = call->state;

    return a && a->timer.timer_set;
}


void
ngx_s3_call_more(ngx_s3_call_t *call, off_t size)
{
    ngx_s3_api_t  *a;

    if (size == call->body_size) {
        call->growing = 0;
    }

    a = call->state;

    if (a) {
        ngx_s3_request_more(&a->rq, size);
    }
}


void
ngx_s3_call_cancel(ngx_s3_call_t *call)
{
    ngx_s3_api_t  *a;

    a = call->state;

    if (a == NULL) {
        return;
    }

    call->state = NULL;

    if (a->rq.sent || a->rq.repeated) {
        call->repeated = 1;
    }

    ngx_s3_request_cancel(&a->rq);
    ngx_s3_api_destroy(a);
}


/* NGX_OK: the client's handler or the timer follows; NGX_ERROR: no memory */

static ngx_int_t
ngx_s3_api_try(ngx_s3_api_t *a)
{
    ngx_int_t          rc;
    ngx_uint_t         fresh;
    ngx_s3_call_t     *call;
    ngx_s3_refusal_t   refusal;
    ngx_s3_request_t  *rq;

    call = a->call;
    rq = &a->rq;
    fresh = a->answer.fresh;

    call->tries++;

    if (a->try_pool) {
        ngx_s3_scratch_pool_done(a->try_pool, NGX_S3_API_POOL);
    }

    a->try_pool = ngx_s3_scratch_pool(NGX_S3_API_POOL, call->log);
    if (a->try_pool == NULL) {
        return NGX_ERROR;
    }

    if (rq->sent) {
        call->repeated = 1;
    }

    ngx_memzero(rq, sizeof(ngx_s3_request_t));

    rc = ngx_s3_try_sign(call->target, &a->op, &call->bucket, a->try_pool,
                         &a->lessons, &rq->head, &refusal);

    if (rc == NGX_DECLINED) {
        ngx_s3_api_refuse(a, &refusal);
        return NGX_OK;
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    rq->endpoint = call->target->endpoint;
    rq->host = a->op.connect;
    rq->pool = a->try_pool;
    rq->log = call->log;
    rq->body = a->op.body;
    rq->body_size = a->op.body_size;
    rq->growing = call->growing;
    rq->head_method = (call->op == NGX_S3_HEAD);

    /* a stale connection could swallow a Create that S3 has carried out */

    rq->fresh = (fresh || call->op == NGX_S3_CREATE);

    /* and what S3 has created must be known by its name, as must be whether it
       has completed it */

    rq->ahead = (call->op == NGX_S3_CREATE || call->op == NGX_S3_COMPLETE);
    rq->handler = ngx_s3_api_answered;
    rq->data = a;

    if (call->op == NGX_S3_COMPLETE) {
        rq->read_timeout = ngx_max(rq->endpoint->read_timeout,
                                   NGX_S3_API_COMPLETE_WAIT);
        rq->answer_timeout = ngx_max(4 * rq->endpoint->read_timeout,
                                     NGX_S3_API_COMPLETE_ALL);
    }

    ngx_log_debug3(NGX_LOG_DEBUG_EVENT, call->log, 0,
                   "s3 %s, key:\"%V\" try:%ui", ngx_s3_op_name(call->op),
                   &call->key, call->tries);

    ngx_s3_try_count(call->target->requests);

    return ngx_s3_request_send(rq);
}


/* what no other try would change; the handler is not called from start() */

static void
ngx_s3_api_refuse(ngx_s3_api_t *a, ngx_s3_refusal_t *refusal)
{
    ngx_s3_call_t  *call;

    call = a->call;

    a->refused = 1;

    ngx_memzero(&a->answer, sizeof(ngx_s3_answer_t));

    call->error = NGX_S3_E_INTERNAL;
    call->status = 0;
    call->client_status = refusal->status;
    call->retry_after = 0;

    (void) s3_str_copy(call->code, sizeof(call->code),
                       s3_str(refusal->code));
    (void) s3_str_copy(a->answer.cause, sizeof(a->answer.cause),
                       s3_str(refusal->reason));

    ngx_add_timer(&a->timer, 0);
}


static void
ngx_s3_api_answered(ngx_s3_request_t *rq)
{
    ngx_msec_t      delay;
    ngx_s3_api_t   *a;
    ngx_s3_call_t  *call;

    a = rq->data;
    call = a->call;

    ngx_s3_answer_judge(call, rq, &a->answer);

    ngx_log_debug3(NGX_LOG_DEBUG_EVENT, call->log, 0,
                   "s3 %s answered, status:%ui error:%ui",
                   ngx_s3_op_name(call->op), call->status,
                   (ngx_uint_t) call->error);

    if (a->answer.good) {
        ngx_s3_api_finish(a, NGX_OK);
        return;
    }

    if (ngx_s3_api_again(a, &delay) != NGX_OK) {
        ngx_s3_api_fail(a);
        return;
    }

    ngx_s3_api_log(a, NGX_LOG_WARN, &delay);
    ngx_s3_try_count(call->target->retries);

    ngx_s3_scratch_pool_done(a->try_pool, NGX_S3_API_POOL);
    a->try_pool = NULL;

    ngx_add_timer(&a->timer, delay);
}


/* NGX_OK: another try is worth it, after delay ms */

static ngx_int_t
ngx_s3_api_again(ngx_s3_api_t *a, ngx_msec_t *delay)
{
    uint64_t          r, wait;
    ngx_int_t         rc;
    ngx_msec_t        after;
    ngx_s3_call_t    *call;
    ngx_s3_target_t  *target;

    call = a->call;
    target = call->target;
    rc = NGX_OK;
    after = 0;

    switch (a->answer.class) {

    case S3_RETRY_NO:

        if (call->op == NGX_S3_HEAD && call->status == 403) {
            ngx_s3_try_unlearn(target, &a->lessons);
        }

        return NGX_DECLINED;

    case S3_RETRY_TRANSIENT:
    case S3_RETRY_THROTTLE:
        after = call->retry_after;
        break;

    default:
        rc = ngx_s3_try_learn(target, &a->answer, &a->lessons, &call->bucket,
                              call->log);
    }

    if (call->tries == 1) {
        a->start = ngx_current_msec;
    }

    r = ((uint64_t) ngx_random() << 31) ^ (uint64_t) ngx_random();

    if (rc != NGX_OK || call->tries >= ngx_s3_api_tries(call)
        || s3_retry_wait(a->answer.class, call->tries, r, after,
                         ngx_current_msec - a->start, target->retry_timeout,
                         &wait)
           != S3_OK)
    {
        return NGX_DECLINED;
    }

    *delay = wait;

    return NGX_OK;
}


static void
ngx_s3_api_timer(ngx_event_t *ev)
{
    ngx_s3_api_t  *a;

    a = ev->data;

    ev->timedout = 0;

    if (a->refused) {
        ngx_s3_api_fail(a);
        return;
    }

    if (ngx_s3_api_try(a) == NGX_OK) {
        return;
    }

    ngx_memzero(&a->answer, sizeof(ngx_s3_answer_t));

    a->call->error = NGX_S3_E_INTERNAL;
    a->call->status = 0;
    a->call->code[0] = '\0';

    (void) s3_str_copy(a->answer.cause, sizeof(a->answer.cause),
                       s3_str("no memory"));

    ngx_s3_api_fail(a);
}


static void
ngx_s3_api_fail(ngx_s3_api_t *a)
{
    u_char         *p;
    ngx_uint_t      answer;
    ngx_s3_call_t  *call;

    call = a->call;

    if (!a->refused) {
        call->client_status = ngx_s3_api_client_status(call);
    }

    p = ngx_snprintf((u_char *) call->message, sizeof(call->message) - 1,
                     "%s failed: %s", ngx_s3_op_name(call->op),
                     a->answer.cause);
    *p = '\0';

    /* to the question */

    answer = (call->status == 404
              && (call->op == NGX_S3_HEAD
                  || (call->op == NGX_S3_LIST_PARTS
                      && ngx_strcmp(call->code, "NoSuchBucket") != 0)));

    if (answer || (call->soft && ngx_s3_call_refused(call))) {
        ngx_s3_api_log(a, NGX_LOG_INFO, NULL);

    } else {
        ngx_s3_api_log(a, call->quiet ? NGX_LOG_INFO : NGX_LOG_ERR, NULL);
        ngx_s3_try_count(call->target->errors);
    }

    ngx_s3_api_finish(a, NGX_ERROR);
}


ngx_uint_t
ngx_s3_call_refused(ngx_s3_call_t *call)
{
    switch (call->status) {

    case 408:
    case 429:
        return 0;

    case 501:
        return 1;

    default:
        return call->status >= 300 && call->status < 500;
    }
}


static ngx_uint_t
ngx_s3_api_client_status(ngx_s3_call_t *call)
{
    s3_str_t    code;
    ngx_uint_t  timedout, conditional;

    code = s3_str(call->code);

    if (call->error == NGX_S3_E_INTERNAL) {
        return 500;
    }

    conditional = ngx_s3_api_conditional(call);

    if (conditional
        && (call->status == 412 || s3_str_eqs(code, "PreconditionFailed")
            || s3_str_eqs(code, "NoSuchKey")))
    {
        return 412;
    }

    if (conditional && s3_str_eqs(code, "ConditionalRequestConflict")) {
        return 409;
    }

    if (s3_str_eqs(code, "EntityTooLarge")) {
        return 413;
    }

    timedout = (call->error == NGX_S3_E_CONNECT_TIMEOUT
                || call->error == NGX_S3_E_SEND_TIMEOUT
                || call->error == NGX_S3_E_READ_TIMEOUT);

    return s3_retry_client_status(call->status, code, timedout);
}


/* it carries If-Match or If-None-Match */

static ngx_uint_t
ngx_s3_api_conditional(ngx_s3_call_t *call)
{
    ngx_uint_t   i;
    s3_field_t  *f;

    f = call->headers ? call->headers->elts : NULL;

    for (i = 0; f && i < call->headers->nelts; i++) {
        if (s3_str_case_eqs(f[i].name, "if-match")
            || s3_str_case_eqs(f[i].name, "if-none-match"))
        {
            return 1;
        }
    }

    return 0;
}


/* the one end of a call that was not cancelled; the handler may free it or
   start it again */

static void
ngx_s3_api_finish(ngx_s3_api_t *a, ngx_int_t rc)
{
    ngx_s3_call_t  *call;

    call = a->call;

    call->rc = rc;
    call->state = NULL;

    if (rc == NGX_OK) {
        call->client_status = 200;
        call->unknown = 0;
    }

    ngx_s3_api_destroy(a);

    call->handler(call);
}


static void
ngx_s3_api_destroy(ngx_s3_api_t *a)
{
    if (a->timer.timer_set) {
        ngx_del_timer(&a->timer);
    }

    if (a->try_pool) {
        ngx_s3_scratch_pool_done(a->try_pool, NGX_S3_API_POOL);
    }

    ngx_s3_scratch_pool_done(a->pool, NGX_S3_API_POOL);
}


/* a try (delay is the wait for the next) or the call has failed */

static void
ngx_s3_api_log(ngx_s3_api_t *a, ngx_uint_t level, ngx_msec_t *delay)
{
    char           *action;
    u_char         *p, *last, data[NGX_MAX_ERROR_STR];
    ngx_s3_call_t  *call;

    call = a->call;

    if (call->log->log_level < level) {
        return;
    }

    p = data;
    last = data + sizeof(data) - 1;

    if (call->op == NGX_S3_PART) {
        p = ngx_slprintf(p, last, " part:%ui", call->part_number);
    }

    if (a->answer.request_id[0]) {
        p = ngx_slprintf(p, last, " request-id:%s", a->answer.request_id);
    }

    if (call->upload_id.len) {
        p = ngx_slprintf(p, last, " upload-id:%*s",
                         ngx_min(call->upload_id.len, NGX_S3_API_LOG_ID),
                         call->upload_id.data);
    }

    p = ngx_slprintf(p, last, ", try %ui of %ui", call->tries,
                     ngx_s3_api_tries(call));

    if (delay) {
        p = ngx_slprintf(p, last, ", next in %M ms", *delay);
    }

    *p = '\0';

    /* the action may be another call's: they share the log, which names
       bucket and key as well */

    action = call->log->action;
    call->log->action = NULL;

    ngx_log_error(level, call->log, 0, "s3 %s failed: %s%s",
                  ngx_s3_op_name(call->op), a->answer.cause, data);

    call->log->action = action;
}
