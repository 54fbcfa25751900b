#include "ngx_http_s3_transfer_module.h"


static void ngx_http_s3_ctx_cleanup(void *data);
static ngx_int_t ngx_http_s3_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_s3_number_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_s3_tee_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static s3_record_t *ngx_http_s3_ctx_record(ngx_http_s3_ctx_t *ctx);


#define NGX_HTTP_S3_V_ID           0
#define NGX_HTTP_S3_V_STATE        1
#define NGX_HTTP_S3_V_ETAG         2
#define NGX_HTTP_S3_V_KEY          3
#define NGX_HTTP_S3_V_TRANSFERRED  4
#define NGX_HTTP_S3_V_STORED       5


static ngx_http_variable_t  ngx_http_s3_vars[] = {

    { ngx_string("s3_transfer_id"), NULL, ngx_http_s3_variable,
      NGX_HTTP_S3_V_ID, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("s3_transfer_state"), NULL, ngx_http_s3_variable,
      NGX_HTTP_S3_V_STATE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("s3_bytes_transferred"), NULL, ngx_http_s3_number_variable,
      NGX_HTTP_S3_V_TRANSFERRED, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("s3_bytes_stored"), NULL, ngx_http_s3_number_variable,
      NGX_HTTP_S3_V_STORED, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("s3_etag"), NULL, ngx_http_s3_variable,
      NGX_HTTP_S3_V_ETAG, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("s3_key"), NULL, ngx_http_s3_variable,
      NGX_HTTP_S3_V_KEY, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("s3_tee_status"), NULL, ngx_http_s3_tee_variable, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_http_s3_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_s3_vars; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


/* only marks the context, so that it is found where r->ctx was cleared */

static void
ngx_http_s3_ctx_cleanup(void *data)
{
}


ngx_http_s3_ctx_t *
ngx_http_s3_create_ctx(ngx_http_request_t *r)
{
    ngx_http_s3_ctx_t   *ctx;
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_s3_ctx_t));
    if (cln == NULL) {
        return NULL;
    }

    ctx = cln->data;
    ngx_memzero(ctx, sizeof(ngx_http_s3_ctx_t));

    ctx->request = r;

    cln->handler = ngx_http_s3_ctx_cleanup;

    ngx_http_set_ctx(r, ctx, ngx_http_s3_transfer_module);

    return ctx;
}


ngx_int_t
ngx_http_s3_ctx_room(ngx_http_s3_ctx_t *ctx)
{
    if (ctx->record == NULL) {
        ctx->record = ngx_palloc(ctx->request->pool, sizeof(s3_record_t));
    }

    return ctx->record ? NGX_OK : NGX_ERROR;
}


ngx_http_s3_ctx_t *
ngx_http_s3_get_ctx(ngx_http_request_t *r)
{
    ngx_http_s3_ctx_t   *ctx;
    ngx_pool_cleanup_t  *cln;

    ctx = ngx_http_get_module_ctx(r, ngx_http_s3_transfer_module);

    if (ctx) {
        return ctx;
    }

    for (cln = r->pool->cleanup; cln; cln = cln->next) {

        if (cln->handler != ngx_http_s3_ctx_cleanup) {
            continue;
        }

        /* subrequests have the same pool */

        ctx = cln->data;

        if (ctx->request == r) {
            return ctx;
        }
    }

    return NULL;
}


static s3_record_t *
ngx_http_s3_ctx_record(ngx_http_s3_ctx_t *ctx)
{
    if (ctx == NULL) {
        return NULL;
    }

    if (ctx->transfer) {
        return &ctx->transfer->progress.record;
    }

    if (ctx->pull) {
        return ngx_s3_pull_record(ctx->pull);
    }

    return ctx->recorded ? ctx->record : NULL;
}


static ngx_int_t
ngx_http_s3_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    u_char       *p;
    size_t        len;
    const char   *s;
    s3_record_t  *record;

    record = ngx_http_s3_ctx_record(ngx_http_s3_get_ctx(r->main));

    if (record == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    s = (data == NGX_HTTP_S3_V_ID) ? record->id
      : (data == NGX_HTTP_S3_V_STATE) ? s3_state_name(record->state)
      : (data == NGX_HTTP_S3_V_ETAG) ? record->etag
      : record->key;

    len = ngx_strlen(s);

    if (len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    /* the record may change while the value is in use */

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, s, len);

    v->data = p;
    v->len = len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


static ngx_int_t
ngx_http_s3_number_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    uint64_t            n;
    s3_record_t        *record;
    ngx_http_s3_ctx_t  *ctx;

    ctx = ngx_http_s3_get_ctx(r->main);
    record = ngx_http_s3_ctx_record(ctx);

    if (record == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    n = (data == NGX_HTTP_S3_V_STORED) ? record->bytes_stored
                                       : record->bytes_transferred;

    if (ctx->transfer && data == NGX_HTTP_S3_V_TRANSFERRED) {
        n = ctx->transfer->progress.bytes;
    }

    v->data = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (v->data == NULL) {
        return NGX_ERROR;
    }

    v->len = ngx_sprintf(v->data, "%uL", n) - v->data;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


/* how it stands with the copy of the response, or why there is none */

static ngx_int_t
ngx_http_s3_tee_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    const char         *s;
    ngx_http_s3_ctx_t  *ctx;

    ctx = ngx_http_s3_get_ctx(r);

    if (ctx == NULL || ctx->tee == NULL
        || ctx->tee->state == NGX_HTTP_S3_TEE_NONE)
    {
        v->not_found = 1;
        return NGX_OK;
    }

    switch (ctx->tee->state) {

    case NGX_HTTP_S3_TEE_CAPTURING:
        s = "capturing";
        break;

    case NGX_HTTP_S3_TEE_CAPTURED:
        s = "captured";
        break;

    default:
        s = s3_tee_reason_name(ctx->tee->reason);
    }

    v->data = (u_char *) s;
    v->len = ngx_strlen(s);
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
