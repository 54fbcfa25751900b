#include "ngx_s3_multipart.h"


static void ngx_s3_multipart_init_call(ngx_s3_transfer_t *t,
    ngx_s3_call_t *call, ngx_s3_op_e op, ngx_s3_call_pt handler, void *data);
static void ngx_s3_multipart_created(ngx_s3_call_t *call);
static void ngx_s3_multipart_owe(ngx_s3_transfer_t *t);
static void ngx_s3_multipart_settle(ngx_s3_transfer_t *t);
static void ngx_s3_multipart_put(ngx_s3_transfer_t *t);
static void ngx_s3_part_call(ngx_s3_part_t *part, ngx_s3_call_t *call);
static void ngx_s3_multipart_sent(ngx_s3_call_t *call);
static ngx_int_t ngx_s3_multipart_keep_etag(ngx_s3_transfer_t *t,
    ngx_s3_part_t *part);
static void ngx_s3_multipart_complete(ngx_s3_transfer_t *t);
static void ngx_s3_multipart_put_object(ngx_s3_transfer_t *t);
static void ngx_s3_multipart_finished(ngx_s3_call_t *call);
static void ngx_s3_multipart_stored(ngx_s3_transfer_t *t);
static void ngx_s3_multipart_confirm(ngx_s3_transfer_t *t);
static void ngx_s3_multipart_confirmed(ngx_s3_call_t *call);
static ngx_uint_t ngx_s3_multipart_ours(ngx_s3_transfer_t *t,
    ngx_s3_call_t *call);
static void ngx_s3_multipart_look(ngx_s3_transfer_t *t);
static void ngx_s3_multipart_looked(ngx_s3_call_t *call);
static void ngx_s3_multipart_unknown(ngx_s3_transfer_t *t);
static void ngx_s3_multipart_drop(ngx_s3_transfer_t *t, ngx_queue_t *parts);
static void ngx_s3_multipart_abort(ngx_s3_transfer_t *t);
static void ngx_s3_multipart_aborted(ngx_s3_call_t *call);
static void ngx_s3_multipart_result(ngx_s3_call_t *call,
    ngx_s3_result_t *result);
static void ngx_s3_multipart_no_memory(ngx_s3_transfer_t *t);


static void
ngx_s3_multipart_init_call(ngx_s3_transfer_t *t, ngx_s3_call_t *call,
    ngx_s3_op_e op, ngx_s3_call_pt handler, void *data)
{
    ngx_s3_call_init(call);

    call->op = op;
    call->target = t->conf->target;
    call->log = t->log;
    call->bucket = t->bucket;
    call->key = t->key;
    call->upload_id = t->upload_id;
    call->handler = handler;
    call->data = data;
}


ngx_s3_call_t *
ngx_s3_multipart_call(ngx_s3_transfer_t *t, ngx_s3_op_e op,
    ngx_s3_call_pt handler)
{
    ngx_s3_multipart_init_call(t, &t->call, op, handler, t);

    return &t->call;
}


void
ngx_s3_multipart_begin(ngx_s3_transfer_t *t)
{
    t->calling = 1;

    if (ngx_s3_call_start(&t->call) != NGX_OK) {
        t->calling = 0;
        ngx_s3_multipart_no_memory(t);
    }
}


void
ngx_s3_multipart_create(ngx_s3_transfer_t *t)
{
    if (t->upload_id.len || t->calling) {
        return;
    }

    /* what cannot be named cannot be aborted either */

    if (t->upload_id.data == NULL) {
        t->upload_id.data = ngx_pnalloc(t->pool, S3_UPLOAD_ID_MAX + 1);
        if (t->upload_id.data == NULL) {
            ngx_s3_multipart_no_memory(t);
            return;
        }
    }

    ngx_s3_multipart_call(t, NGX_S3_CREATE, ngx_s3_multipart_created);

    t->call.headers = t->headers;
    t->call.new_upload_id = t->upload_id.data;

    ngx_s3_multipart_begin(t);
}


static void
ngx_s3_multipart_created(ngx_s3_call_t *call)
{
    ngx_s3_transfer_t  *t = call->data;

    t->calling = 0;

    if (call->rc == NGX_OK) {
        t->upload_id.len = ngx_strlen(call->new_upload_id);

        ngx_s3_multipart_owe(t);
    }

    if (t->state == NGX_S3_T_CLEANING) {
        ngx_s3_multipart_clean(t);
        return;
    }

    if (call->rc != NGX_OK) {
        ngx_s3_multipart_failed(t, call);
        return;
    }

    if (t->debt == NULL) {
        ngx_s3_multipart_no_memory(t);
        return;
    }

    ngx_s3_multipart_pump(t);
}


/* from now on the upload is aborted unless it is completed, whoever dies; debt
   is NULL where there was no memory */

static void
ngx_s3_multipart_owe(ngx_s3_transfer_t *t)
{
    ngx_s3_debt_spec_t  spec;

    spec.target = t->conf->target;
    spec.bucket = t->bucket;
    spec.key = t->key;
    spec.upload_id = t->upload_id;
    spec.name = t->object_id;
    spec.slot = ngx_s3_progress_slot(&t->progress);

    t->debt = ngx_s3_debt_open(t->conf->reaper, &spec);
}


/* nothing is to be aborted */

static void
ngx_s3_multipart_settle(ngx_s3_transfer_t *t)
{
    t->upload_id.len = 0;

    ngx_s3_debt_settle(t->debt);

    t->debt = NULL;
}


void
ngx_s3_multipart_pump(ngx_s3_transfer_t *t)
{
    ngx_queue_t    *q;
    ngx_s3_part_t  *part;

    if (t->done) {
        return;
    }

    if (t->upload_id.len == 0) {
        ngx_s3_multipart_create(t);
        return;
    }

    while (!ngx_queue_empty(&t->ready)
           && t->nsending < t->conf->concurrency)
    {
        q = ngx_queue_head(&t->ready);
        part = ngx_queue_data(q, ngx_s3_part_t, queue);

        ngx_queue_remove(q);
        ngx_queue_insert_tail(&t->sending, q);
        t->nsending++;

        if (ngx_s3_multipart_send(t, part) != NGX_OK) {
            ngx_s3_multipart_no_memory(t);
            return;
        }
    }

    if (t->state == NGX_S3_T_FLUSHING && t->nsending == 0) {
        ngx_s3_transfer_set_state(t, NGX_S3_T_FINISHING);
        ngx_s3_check_finish(t);
    }
}


void
ngx_s3_multipart_flush(ngx_s3_transfer_t *t)
{
    if (t->calling && !ngx_s3_multipart_creating(t)) {
        return;
    }

    if (t->nparts <= 1 && t->upload_id.len == 0 && !t->calling) {
        ngx_s3_multipart_put(t);
        return;
    }

    ngx_s3_multipart_pump(t);
}


/* the whole body as one object, of one part or none */

static void
ngx_s3_multipart_put(ngx_s3_transfer_t *t)
{
    ngx_queue_t  *q;

    ngx_s3_transfer_set_state(t, NGX_S3_T_FINISHING);

    if (!ngx_queue_empty(&t->ready)) {
        q = ngx_queue_head(&t->ready);

        ngx_queue_remove(q);
        ngx_queue_insert_tail(&t->sending, q);
        t->nsending++;
    }

    ngx_s3_check_finish(t);
}


static void
ngx_s3_part_call(ngx_s3_part_t *part, ngx_s3_call_t *call)
{
    call->body = part->blocks ? &part->blocks->link : NULL;
    call->body_size = part->size;
    call->sha256 = part->hash ? part->sha256 : NULL;
    call->crc32 = part->crc32;
}


ngx_int_t
ngx_s3_multipart_send(ngx_s3_transfer_t *t, ngx_s3_part_t *part)
{
    ngx_s3_call_t  *call;

    call = &part->call;

    ngx_s3_multipart_init_call(t, call, NGX_S3_PART, ngx_s3_multipart_sent,
                               part);

    call->part_number = part->number;

    ngx_s3_part_call(part, call);

    if (part->arriving) {
        call->body_size = part->planned;
        call->growing = 1;
    }

    return ngx_s3_call_start(call);
}


static void
ngx_s3_multipart_sent(ngx_s3_call_t *call)
{
    ngx_s3_part_t      *part = call->data;
    ngx_s3_transfer_t  *t;

    t = part->transfer;

    if (call->rc != NGX_OK) {
        ngx_s3_multipart_failed(t, call);
        return;
    }

    if (ngx_s3_multipart_keep_etag(t, part) != NGX_OK) {
        ngx_s3_multipart_no_memory(t);
        return;
    }

    ngx_queue_remove(&part->queue);
    t->nsending--;

    ngx_s3_transfer_acknowledged(t, part);

    ngx_s3_multipart_pump(t);
}


static ngx_int_t
ngx_s3_multipart_keep_etag(ngx_s3_transfer_t *t, ngx_s3_part_t *part)
{
    void                *etags, *sizes;
    ngx_uint_t           n;
    ngx_s3_part_etag_t  *e;

    if (part->number > t->netags) {

        /* outside of the pool: it grows and is not given back there */

        n = ngx_max(t->netags * 2, 16);
        n = ngx_max(n, part->number);

        etags = realloc(t->etags, n * sizeof(ngx_s3_part_etag_t));
        if (etags == NULL) {
            return NGX_ERROR;
        }

        t->etags = etags;

        sizes = realloc(t->sizes, n * sizeof(uint64_t));
        if (sizes == NULL) {
            return NGX_ERROR;
        }

        t->sizes = sizes;
        t->netags = n;
    }

    t->sizes[part->number - 1] = part->size;

    e = &t->etags[part->number - 1];
    e->number = part->number;
    e->crc32 = part->crc32;
    e->repeated = part->call.repeated || part->repeated;
    t->repeated |= e->repeated;

    (void) ngx_cpystrn((u_char *) e->etag, (u_char *) part->call.etag,
                       sizeof(e->etag));

    return NGX_OK;
}


void
ngx_s3_multipart_make(ngx_s3_transfer_t *t)
{
    if (t->upload_id.len) {
        ngx_s3_multipart_complete(t);

    } else {
        ngx_s3_multipart_put_object(t);
    }
}


static void
ngx_s3_multipart_complete(ngx_s3_transfer_t *t)
{
    uint32_t        crc32;
    ngx_uint_t      i;
    ngx_s3_call_t  *call;

    call = ngx_s3_multipart_call(t, NGX_S3_COMPLETE,
                                 ngx_s3_multipart_finished);

    call->headers = t->conditions;
    call->parts = t->etags;
    call->nparts = t->nparts;
    call->object_size = t->received;

    if (t->conf->target->crc32) {
        crc32 = t->etags[0].crc32;

        for (i = 1; i < t->nparts; i++) {
            crc32 = s3_crc32_combine(crc32, t->etags[i].crc32, t->sizes[i]);
        }

        call->crc32 = crc32;

        t->progress.record.crc32 = crc32;
        t->progress.record.has_crc32 = 1;
    }

    ngx_s3_multipart_begin(t);
}


static void
ngx_s3_multipart_put_object(ngx_s3_transfer_t *t)
{
    s3_field_t     *f;
    ngx_uint_t      i;
    ngx_queue_t    *q;
    ngx_s3_call_t  *call;

    call = ngx_s3_multipart_call(t, NGX_S3_PUT, ngx_s3_multipart_finished);

    /* the request makes the object, so it carries the conditions as well */

    for (i = 0; i < t->conditions->nelts; i++) {
        f = ngx_array_push(t->headers);
        if (f == NULL) {
            ngx_s3_multipart_no_memory(t);
            return;
        }

        *f = ((s3_field_t *) t->conditions->elts)[i];
    }

    call->headers = t->headers;
    call->sha256 = t->conf->target->sign_payload ? (char *) S3_EMPTY_SHA256
                                                  : NULL;

    if (!ngx_queue_empty(&t->sending)) {
        q = ngx_queue_head(&t->sending);
        ngx_s3_part_call(ngx_queue_data(q, ngx_s3_part_t, queue), call);
    }

    if (t->conf->target->crc32) {
        t->progress.record.crc32 = call->crc32;
        t->progress.record.has_crc32 = 1;
    }

    ngx_s3_multipart_begin(t);
}


/* PutObject or Complete has ended */

static void
ngx_s3_multipart_finished(ngx_s3_call_t *call)
{
    ngx_s3_transfer_t  *t = call->data;

    t->calling = 0;

    if (call->rc == NGX_OK) {
        ngx_s3_multipart_stored(t);

        ngx_memcpy(t->etag, call->etag, sizeof(t->etag));

        if (t->etag[0] == '\0' || t->unlisted) {

            /* Ceph answers a first Complete without it */

            ngx_s3_multipart_confirm(t);
            return;
        }

        ngx_s3_transfer_completed(t, t->etag);
        return;
    }

    /*
     * The answer to a try may have been lost: then S3 has carried it out, and
     * answers the next try with an error. The object itself tells.
     */

    if (call->unknown) {
        ngx_s3_multipart_result(call, &t->doubt);
        ngx_s3_multipart_look(t);
        return;
    }

    ngx_s3_multipart_failed(t, call);
}


/* the object is there: nothing is left to be aborted or sent again */

static void
ngx_s3_multipart_stored(ngx_s3_transfer_t *t)
{
    ngx_queue_t    *q;
    ngx_s3_part_t  *part;

    ngx_s3_multipart_settle(t);

    while (!ngx_queue_empty(&t->sending)) {
        q = ngx_queue_head(&t->sending);
        part = ngx_queue_data(q, ngx_s3_part_t, queue);

        ngx_queue_remove(q);
        t->nsending--;

        ngx_s3_transfer_acknowledged(t, part);
    }
}


/* a look at the object that was made: its ETag, and whether it has all bytes */

static void
ngx_s3_multipart_confirm(ngx_s3_transfer_t *t)
{
    ngx_s3_call_t  *call;

    call = ngx_s3_multipart_call(t, NGX_S3_HEAD, ngx_s3_multipart_confirmed);
    call->soft = 1;

    t->calling = 1;

    if (ngx_s3_call_start(call) != NGX_OK) {

        /* no memory for a question does not undo what is stored */

        t->calling = 0;
        ngx_s3_transfer_completed(t, t->etag[0] ? t->etag : NULL);
    }
}


static void
ngx_s3_multipart_confirmed(ngx_s3_call_t *call)
{
    ngx_s3_transfer_t  *t = call->data;

    ngx_s3_result_t  result;

    t->calling = 0;

    /* where it is not ours, it is a newer one */

    if (!ngx_s3_multipart_ours(t, call)) {
        ngx_s3_transfer_completed(t, t->etag[0] ? t->etag : NULL);
        return;
    }

    if (call->size != -1 && (uint64_t) call->size != t->received) {

        ngx_s3_result_set(&result, 502, "IncompleteObject", "");

        *ngx_snprintf((u_char *) result.message, sizeof(result.message) - 1,
                      "S3 stored %O of %uL bytes: the object is there and is "
                      "not what was sent", call->size, t->received) = '\0';

        ngx_log_error(NGX_LOG_ERR, t->log, 0, "s3 object is damaged: %s",
                      result.message);

        ngx_s3_transfer_fail(t, &result);
        return;
    }

    ngx_s3_transfer_completed(t, t->etag[0] ? t->etag : call->etag);
}


/* the transfer that made the object is this one, in this attempt */

static ngx_uint_t
ngx_s3_multipart_ours(ngx_s3_transfer_t *t, ngx_s3_call_t *call)
{
    return call->rc == NGX_OK
           && ngx_strlen(call->transfer_id) == t->object_id.len
           && ngx_strncmp(call->transfer_id, t->object_id.data,
                          t->object_id.len)
              == 0;
}


static void
ngx_s3_multipart_look(ngx_s3_transfer_t *t)
{
    ngx_s3_multipart_call(t, NGX_S3_HEAD, ngx_s3_multipart_looked);

    t->calling = 1;

    if (ngx_s3_call_start(&t->call) != NGX_OK) {
        t->calling = 0;
        ngx_s3_multipart_unknown(t);
    }
}


static void
ngx_s3_multipart_looked(ngx_s3_call_t *call)
{
    ngx_s3_transfer_t  *t = call->data;

    ngx_uint_t  ours;

    t->calling = 0;

    ours = ngx_s3_multipart_ours(t, call);

    if (ours && (uint64_t) call->size == t->received) {
        ngx_log_error(NGX_LOG_NOTICE, t->log, 0,
                      "the answer was lost, the object is ours");

        ngx_s3_multipart_stored(t);
        ngx_s3_transfer_completed(t, call->etag);
        return;
    }

    /* one of ours whose size is not said may be whole (RFC 9110, 8.6) */

    if ((call->rc == NGX_OK && !(ours && call->size == -1))
        || call->status == 404)
    {
        ngx_s3_transfer_fail(t, &t->doubt);
        return;
    }

    ngx_s3_multipart_unknown(t);
}


/* nobody can tell whether the object exists: an abort could destroy it */

static void
ngx_s3_multipart_unknown(ngx_s3_transfer_t *t)
{
    ngx_s3_result_t  result;

    if (t->upload_id.len) {
        ngx_log_error(NGX_LOG_ERR, t->log, 0,
                      "s3 outcome is unknown: the object may exist, the "
                      "multipart upload \"%V\" is not aborted",
                      &t->upload_id);

        ngx_s3_multipart_settle(t);

    } else {
        ngx_log_error(NGX_LOG_ERR, t->log, 0,
                      "s3 outcome is unknown: the object may exist");
    }

    result = t->doubt;

    (void) ngx_cpystrn((u_char *) result.code, (u_char *) "unknown_outcome",
                       sizeof(result.code));

    *ngx_snprintf((u_char *) result.message, sizeof(result.message) - 1,
                  "unknown_outcome: the object may exist; %s",
                  t->doubt.message) = '\0';

    ngx_s3_transfer_fail(t, &result);
}


void
ngx_s3_multipart_clean(ngx_s3_transfer_t *t)
{
    ngx_s3_part_t  *part;

    if (t->state != NGX_S3_T_CLEANING) {
        return;
    }

    part = ngx_s3_fill_end(t);

    if (part && !part->arriving) {
        ngx_s3_part_free(t, part);
    }

    if (t->nsending) {
        t->flying = 1;
    }

    ngx_s3_multipart_drop(t, &t->ready);
    ngx_s3_multipart_drop(t, &t->sending);
    t->nsending = 0;

    if (ngx_s3_multipart_creating(t) && !ngx_s3_call_waits(&t->call)) {

        /* its answer names what is to be aborted, but nobody wants another
           try, which a leaving worker would wait for */

        t->call.max_tries = t->call.tries;
        return;
    }

    if (t->calling) {
        ngx_s3_call_cancel(&t->call);
        t->calling = 0;
    }

    if (t->upload_id.len) {
        ngx_s3_multipart_abort(t);
        return;
    }

    ngx_s3_transfer_close(t);
}


static void
ngx_s3_multipart_drop(ngx_s3_transfer_t *t, ngx_queue_t *parts)
{
    ngx_queue_t    *q;
    ngx_s3_part_t  *part;

    while (!ngx_queue_empty(parts)) {
        q = ngx_queue_head(parts);
        part = ngx_queue_data(q, ngx_s3_part_t, queue);

        ngx_queue_remove(q);

        ngx_s3_call_cancel(&part->call);
        ngx_s3_part_free(t, part);
    }
}


static void
ngx_s3_multipart_abort(ngx_s3_transfer_t *t)
{
    ngx_s3_multipart_call(t, NGX_S3_ABORT, ngx_s3_multipart_aborted);

    t->calling = 1;

    if (ngx_s3_call_start(&t->call) != NGX_OK) {
        t->call.rc = NGX_ERROR;
        ngx_s3_multipart_aborted(&t->call);
        return;
    }

    ngx_add_timer(&t->timer, NGX_S3_REAPER_HOLD);
}


void
ngx_s3_multipart_hold(ngx_s3_transfer_t *t)
{
    ngx_s3_call_t  *call;

    call = &t->call;

    if (!t->calling || call->op != NGX_S3_ABORT || t->debt == NULL) {
        return;
    }

    if (!ngx_exiting) {
        ngx_add_timer(&t->timer, NGX_S3_REAPER_HOLD);
        return;
    }

    ngx_s3_call_cancel(call);

    /* not soon: the worker would wait for the next try as well */

    call->rc = NGX_ERROR;
    call->status = 0;
    call->retry_after = (ngx_msec_t) -1;

    (void) ngx_cpystrn((u_char *) call->message, (u_char *) NGX_S3_LEAVING,
                       sizeof(call->message));

    ngx_s3_multipart_aborted(call);
}


/* what this abort leaves to be done is the reaper's */

static void
ngx_s3_multipart_aborted(ngx_s3_call_t *call)
{
    ngx_s3_transfer_t  *t = call->data;

    t->calling = 0;

    if (t->debt == NULL && call->rc != NGX_OK) {
        ngx_log_error(NGX_LOG_CRIT, t->log, 0,
                      "no memory to abort upload id \"%V\" again: it stays "
                      "open", &t->upload_id);
    }

    ngx_s3_debt_aborted(t->debt, call, t->flying);

    t->debt = NULL;
    t->upload_id.len = 0;

    ngx_s3_transfer_close(t);
}


static void
ngx_s3_multipart_result(ngx_s3_call_t *call, ngx_s3_result_t *result)
{
    const char  *code;
    ngx_uint_t   status;

    status = call->client_status;
    code = call->code;

    if (code[0] == '\0') {
        code = (status == 504) ? "GatewayTimeout"
             : (status == 503) ? "ServiceUnavailable"
             : (status == 500) ? "InternalError"
             : "BadGateway";
    }

    ngx_s3_result_set(result, status, code, call->message);

    result->retry_after = call->retry_after;
}


void
ngx_s3_multipart_failed(ngx_s3_transfer_t *t, ngx_s3_call_t *call)
{
    ngx_s3_result_t  result;

    ngx_s3_multipart_result(call, &result);

    ngx_s3_transfer_fail(t, &result);
}


static void
ngx_s3_multipart_no_memory(ngx_s3_transfer_t *t)
{
    ngx_s3_result_t  result;

    ngx_s3_result_set(&result, 500, "InternalError", "out of memory");

    ngx_s3_transfer_fail(t, &result);
}
