/*
 * The head of a response: whether a copy of its body is taken, and the transfer
 * that it goes to.
 */

#include "ngx_http_s3_tee_parts.h"


static ngx_int_t ngx_http_s3_tee_header_filter(ngx_http_request_t *r);
static ngx_http_s3_ctx_t *ngx_http_s3_tee_ctx(ngx_http_request_t *r);
static ngx_int_t ngx_http_s3_tee_begin(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_http_s3_ctx_t *ctx);
static ngx_int_t ngx_http_s3_tee_create(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_http_s3_ctx_t *ctx);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;


void
ngx_http_s3_tee_init_head(void)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_s3_tee_header_filter;
}


static ngx_int_t
ngx_http_s3_tee_header_filter(ngx_http_request_t *r)
{
    ngx_int_t                rc;
    s3_tee_reason_e          reason;
    ngx_http_s3_ctx_t       *ctx;
    ngx_http_s3_loc_conf_t  *conf;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_s3_transfer_module);

    if (!conf->tee.on) {
        return ngx_http_next_header_filter(r);
    }

    ctx = ngx_http_s3_tee_ctx(r);

    if (ctx == NULL) {

        /* the client need not suffer from it */

        return ngx_http_next_header_filter(r);
    }

    if (ctx->tee->state != NGX_HTTP_S3_TEE_NONE) {
        ngx_http_s3_tee_replaced(ctx);
        return ngx_http_next_header_filter(r);
    }

    rc = ngx_http_s3_tee_judge(r, &conf->tee, &reason);

    if (rc == NGX_OK) {
        rc = ngx_http_s3_tee_begin(r, conf, ctx);

        if (rc == NGX_OK) {

            /* the copy filter reads what is in files */

            r->filter_need_in_memory = 1;
        }

    } else if (rc == NGX_DECLINED) {
        ngx_http_s3_tee_refused(ctx, reason);
        rc = NGX_OK;
    }

    if (rc == NGX_ERROR) {
        ngx_http_s3_tee_refused(ctx, S3_TEE_NO_MEMORY);
    }

    return ngx_http_next_header_filter(r);
}


/* one for each answer that is judged: an earlier one may have been judged, and
   an error_page led to another */

static ngx_http_s3_ctx_t *
ngx_http_s3_tee_ctx(ngx_http_request_t *r)
{
    ngx_http_s3_ctx_t  *ctx;

    ctx = ngx_http_s3_get_ctx(r);

    if (ctx == NULL) {
        ctx = ngx_http_s3_create_ctx(r);

        if (ctx == NULL) {
            return NULL;
        }
    }

    ngx_http_set_ctx(r, ctx, ngx_http_s3_transfer_module);

    if (ctx->tee == NULL) {
        ctx->tee = ngx_pcalloc(r->pool, sizeof(ngx_http_s3_tee_t));
    }

    return ctx->tee ? ctx : NULL;
}


/* NGX_OK: it is captured; NGX_ABORT: it is not, as was noted; NGX_ERROR: no
   memory */

static ngx_int_t
ngx_http_s3_tee_begin(ngx_http_request_t *r, ngx_http_s3_loc_conf_t *conf,
    ngx_http_s3_ctx_t *ctx)
{
    ngx_int_t                  rc;
    ngx_http_cleanup_t        *cln;
    ngx_http_s3_tee_t         *tee;
    ngx_http_upstream_t       *u;

    tee = ctx->tee;

    if (ctx->transfer) {

        /* it is being uploaded */

        return NGX_ABORT;
    }

    if (ngx_http_s3_ctx_room(ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    cln = ngx_http_cleanup_add(r, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_s3_tee_cleanup;
    cln->data = ctx;

    tee->length = r->headers_out.content_length_n;
    tee->last_held = &tee->held;

    tee->patience.handler = ngx_http_s3_tee_impatient;
    tee->patience.data = ctx;
    tee->patience.log = r->connection->log;

    tee->turn.handler = ngx_http_s3_tee_next_turn;
    tee->turn.data = ctx;
    tee->turn.log = r->connection->log;

    /* nginx would end the request at once but for this; an answer of its cache
       or of a file is not worth to be read to its end in one go */

    u = r->upstream;
    tee->live = (u && u->cleanup && !r->cached);

    tee->goes_on = (tee->live && u->conf->ignore_client_abort
                    && conf->tee.client_abort == NGX_HTTP_S3_TEE_CONTINUE
                    && ngx_http_s3_tee_watch(r) == NGX_OK);

    rc = ngx_http_s3_tee_create(r, conf, ctx);
    if (rc != NGX_OK) {
        return rc;
    }

    tee->state = NGX_HTTP_S3_TEE_CAPTURING;

    rc = ngx_s3_transfer_admit(ctx->transfer);

    tee->ready = (rc == NGX_OK);

    if (rc == NGX_AGAIN && conf->tee.on_overrun == NGX_HTTP_S3_TEE_DROP) {
        ngx_http_s3_tee_drop(ctx, S3_TEE_NO_MEMORY,
                             "the copy was given up: there is no room in "
                             "s3_memory");
        return NGX_ABORT;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_s3_tee_create(ngx_http_request_t *r, ngx_http_s3_loc_conf_t *conf,
    ngx_http_s3_ctx_t *ctx)
{
    ngx_int_t                rc;
    ngx_s3_result_t          result;
    ngx_s3_transfer_spec_t   spec;
    ngx_http_s3_refusal_t    refusal;

    rc = ngx_http_s3_spec_download(r, conf, conf->tee.key, &spec, &refusal);

    if (rc == NGX_DECLINED) {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                      "the response is not captured: %s", refusal.message);
        ngx_http_s3_tee_refused(ctx, S3_TEE_KEY);
        return NGX_ABORT;
    }

    if (rc != NGX_OK || ngx_http_s3_tee_fields(r, spec.headers) != NGX_OK) {
        return NGX_ERROR;
    }

    spec.total = ctx->tee->length;
    spec.exclusive = 1;
    spec.eager = 1;

    rc = ngx_s3_transfer_create(conf->transfer, &spec, ngx_http_s3_tee_event,
                                ctx, &ctx->transfer, &result);

    if (rc == NGX_OK || rc == NGX_ERROR) {
        return rc;
    }

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "the response is not captured: %s", result.message);

    ngx_http_s3_tee_refused(ctx, rc == NGX_BUSY ? S3_TEE_BUSY : S3_TEE_SIZE);

    return NGX_ABORT;
}
