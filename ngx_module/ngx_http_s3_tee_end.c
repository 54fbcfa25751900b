/*
 * How the copy of a response ends: captured, given up, or left to go on without
 * its request.
 */

#include "ngx_http_s3_tee_parts.h"


static void ngx_http_s3_tee_done(ngx_http_s3_ctx_t *ctx);
static ngx_uint_t ngx_http_s3_tee_over(ngx_http_s3_ctx_t *ctx);
static void ngx_http_s3_tee_leave(ngx_http_s3_ctx_t *ctx, ngx_uint_t failed,
    const char *message);
static ngx_uint_t ngx_http_s3_tee_outlives(ngx_http_s3_ctx_t *ctx);
static ngx_s3_counters_t *ngx_http_s3_tee_counters(ngx_http_request_t *r);


/* once: where a filter turns the answer into an error, that is judged, too */

void
ngx_http_s3_tee_refused(ngx_http_s3_ctx_t *ctx, s3_tee_reason_e reason)
{
    if (ctx->tee->state == NGX_HTTP_S3_TEE_NOT) {
        return;
    }

    ctx->tee->state = NGX_HTTP_S3_TEE_NOT;
    ctx->tee->reason = reason;

    (void) ngx_atomic_fetch_add(&ngx_http_s3_tee_counters(ctx->request)
                                     ->tee[reason], 1);
}


void
ngx_http_s3_tee_captured(ngx_http_s3_ctx_t *ctx)
{
    ctx->tee->state = NGX_HTTP_S3_TEE_CAPTURED;

    (void) ngx_atomic_fetch_add(&ngx_http_s3_tee_counters(ctx->request)
                                     ->tee_captured, 1);
}


void
ngx_http_s3_tee_event(void *data, ngx_s3_transfer_event_e event)
{
    ngx_http_s3_ctx_t *ctx = data;

    ngx_http_set_log_request(ctx->request->connection->log, ctx->request);

    if (event == NGX_S3_RESUME) {
        ctx->tee->ready = 1;

    } else {
        ngx_http_s3_tee_done(ctx);
    }

    ngx_http_s3_tee_wake(ctx);
}


static void
ngx_http_s3_tee_done(ngx_http_s3_ctx_t *ctx)
{
    ngx_s3_result_t  *result;
    s3_tee_reason_e   reason;

    result = &ctx->transfer->result;

    reason = (result->status == NGX_HTTP_PRECONDITION_FAILED)
             ? S3_TEE_EXISTS : S3_TEE_FAILED;

    *ctx->record = ctx->transfer->progress.record;
    ctx->recorded = 1;
    ctx->transfer = NULL;

    if (result->status != NGX_HTTP_CREATED) {
        ngx_http_s3_tee_refused(ctx, reason);
    }
}


/* whether the transfer has ended, though its event is yet to come: then it is
   told here */

static ngx_uint_t
ngx_http_s3_tee_over(ngx_http_s3_ctx_t *ctx)
{
    ngx_s3_transfer_t  *t;

    t = ctx->transfer;

    if (t == NULL || !t->done) {
        return 0;
    }

    ngx_http_s3_tee_done(ctx);

    ngx_s3_transfer_abort(t, 0, "");

    return 1;
}


void
ngx_http_s3_tee_drop(ngx_http_s3_ctx_t *ctx, s3_tee_reason_e reason,
    const char *message)
{
    ngx_uint_t  level;

    if (ctx->tee->state != NGX_HTTP_S3_TEE_CAPTURING
        || ngx_http_s3_tee_over(ctx))
    {
        return;
    }

    level = (reason == S3_TEE_CLIENT) ? NGX_LOG_INFO : NGX_LOG_WARN;

    ngx_log_error(level, ctx->request->connection->log, 0,
                  "the response is not stored: %s", message);

    ngx_http_s3_tee_refused(ctx, reason);

    ngx_http_s3_tee_leave(ctx, reason == S3_TEE_OVERRUN
                               || reason == S3_TEE_NO_MEMORY
                               || reason == S3_TEE_FAILED, message);
}


static void
ngx_http_s3_tee_leave(ngx_http_s3_ctx_t *ctx, ngx_uint_t failed,
    const char *message)
{
    ngx_s3_transfer_t  *t;

    t = ctx->transfer;

    if (t == NULL) {
        return;
    }

    ctx->transfer = NULL;

    ngx_s3_transfer_abort(t, failed, message);

    *ctx->record = t->progress.record;
    ctx->recorded = 1;
}


void
ngx_http_s3_tee_cleanup(void *data)
{
    ngx_http_s3_ctx_t *ctx = data;

    ngx_connection_t   *c;
    ngx_http_s3_tee_t  *tee;

    tee = ctx->tee;
    c = ctx->request->connection;

    if (tee->patience.timer_set) {
        ngx_del_timer(&tee->patience);
    }

    if (tee->turn.posted) {
        ngx_delete_posted_event(&tee->turn);
    }

    if (ngx_http_s3_tee_over(ctx) || ngx_http_s3_tee_outlives(ctx)) {
        return;
    }

    if (c->close) {
        ngx_http_s3_tee_drop(ctx, S3_TEE_TRUNCATED, NGX_S3_LEAVING);

    } else if (!tee->deaf && (c->error || c->timedout || c->read->eof)) {
        ngx_http_s3_tee_drop(ctx, S3_TEE_CLIENT,
                             "the client closed the connection");

    } else {
        ngx_http_s3_tee_drop(ctx, S3_TEE_TRUNCATED,
                             "the response did not come whole");
    }

    ngx_http_s3_tee_leave(ctx, 0, "the request was ended by nginx");
}


/* whether all of the body came, and goes on to S3 without the request */

static ngx_uint_t
ngx_http_s3_tee_outlives(ngx_http_s3_ctx_t *ctx)
{
    ngx_s3_transfer_t       *t;
    ngx_http_s3_tee_t       *tee;
    ngx_http_s3_loc_conf_t  *conf;

    tee = ctx->tee;
    t = ctx->transfer;
    conf = ngx_http_get_module_loc_conf(ctx->request,
                                        ngx_http_s3_transfer_module);

    if (tee->state != NGX_HTTP_S3_TEE_CAPTURING || !tee->whole
        || conf->tee.client_abort == NGX_HTTP_S3_TEE_ABORT
        || ngx_http_s3_tee_tail(tee, t) != NGX_OK)
    {
        return 0;
    }

    ngx_http_s3_tee_captured(ctx);

    ctx->transfer = NULL;

    *ctx->record = t->progress.record;
    ctx->recorded = 1;

    return 1;
}


static ngx_s3_counters_t *
ngx_http_s3_tee_counters(ngx_http_request_t *r)
{
    ngx_http_s3_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_s3_transfer_module);

    return mcf->stores.zone->counters;
}
