/*
 * The door of pulls: a request that names what is to be fetched, and is
 * answered with the record. Knows nothing of origins and of tries.
 */

#include "ngx_http_s3_reply.h"
#include "ngx_http_s3_result.h"
#include "ngx_http_s3_spec.h"


static ngx_uint_t ngx_http_s3_ingest_redirected(ngx_http_request_t *r);
static ngx_int_t ngx_http_s3_ingest_spec(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_s3_pull_spec_t *spec,
    ngx_http_s3_refusal_t *refusal);
static ngx_int_t ngx_http_s3_ingest_url(ngx_http_request_t *r,
    ngx_http_s3_ingest_t *door, ngx_str_t *url,
    ngx_http_s3_refusal_t *refusal);
static ngx_int_t ngx_http_s3_ingest_begin(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_s3_pull_spec_t *spec);
static ngx_int_t ngx_http_s3_ingest_accepted(ngx_http_request_t *r,
    ngx_http_s3_ctx_t *ctx, ngx_str_t *status);
static ngx_int_t ngx_http_s3_ingest_wait(ngx_http_request_t *r);
static void ngx_http_s3_ingest_done(void *data, ngx_s3_result_t *result,
    const s3_record_t *record);
static void ngx_http_s3_ingest_cleanup(void *data);


ngx_int_t
ngx_http_s3_ingest_handler(ngx_http_request_t *r)
{
    ngx_int_t                rc;
    ngx_s3_pull_spec_t       spec;
    ngx_http_s3_loc_conf_t  *conf;
    ngx_http_s3_refusal_t    refusal;

    if (r != r->main) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "s3_ingest in a subrequest: its answer would go into "
                      "the main request's");
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (!(r->method & (NGX_HTTP_POST|NGX_HTTP_PUT))
        && !ngx_http_s3_ingest_redirected(r))
    {
        return ngx_http_s3_send_allow(r, "PUT, POST, OPTIONS");
    }

    rc = ngx_http_s3_discard_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    conf = ngx_http_get_module_loc_conf(r, ngx_http_s3_transfer_module);

    rc = ngx_http_s3_ingest_spec(r, conf, &spec, &refusal);

    if (rc != NGX_OK) {
        return ngx_http_s3_send_refusal(r, rc, &refusal);
    }

    return ngx_http_s3_ingest_begin(r, conf, &spec);
}


/* X-Accel-Redirect and error_page make any method but HEAD a GET. r->internal
   alone does not tell: each rewrite sets it. */

static ngx_uint_t
ngx_http_s3_ingest_redirected(ngx_http_request_t *r)
{
    if (r->method != NGX_HTTP_GET || !r->internal) {
        return 0;
    }

    return r->error_page
           || (r->upstream && r->upstream->headers_in.x_accel_redirect);
}


static ngx_int_t
ngx_http_s3_ingest_spec(ngx_http_request_t *r, ngx_http_s3_loc_conf_t *conf,
    ngx_s3_pull_spec_t *spec, ngx_http_s3_refusal_t *refusal)
{
    ngx_int_t                   rc;
    ngx_http_s3_ingest_conf_t  *icf;

    icf = &conf->ingest;

    rc = ngx_http_s3_ingest_url(r, icf->door, &spec->url, refusal);

    if (rc == NGX_OK) {
        rc = ngx_http_s3_spec_download(r, conf, icf->door->key,
                                       &spec->transfer, refusal);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    spec->fields = ngx_array_create(r->pool, 4, sizeof(s3_field_t));
    if (spec->fields == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_s3_spec_configured(r, icf->headers, spec->fields, refusal);

    if (rc == NGX_DECLINED) {
        refusal->message = "a control character in a header for the origin";
    }

    return rc;
}


/*
 * What follows scheme and host may come from the client and must not become a
 * part of them: "http://host$x" with ".example.com" or "@example.com".
 */

static ngx_int_t
ngx_http_s3_ingest_url(ngx_http_request_t *r, ngx_http_s3_ingest_t *door,
    ngx_str_t *url, ngx_http_s3_refusal_t *refusal)
{
    ngx_str_t     lead;
    const char   *err;
    s3_str_t      authority;
    s3_origin_t   origin, first;

    if (ngx_http_complex_value(r, door->url, url) != NGX_OK) {
        return NGX_ERROR;
    }

    authority = ngx_s3_to_str(door->authority);
    first.scheme = door->scheme;

    if (door->lead) {

        if (ngx_http_complex_value(r, door->lead, &lead) != NGX_OK) {
            return NGX_ERROR;
        }

        if (lead.len == 0) {
            return ngx_http_s3_refuse(refusal, 403, "OriginNotAllowed",
                                      "the configuration names no origin for "
                                      "this request");
        }

        if (ngx_http_s3_ingest_origin(r->pool, &lead, &first, &err) != NGX_OK)
        {
            return ngx_http_s3_refuse(refusal, 400, "InvalidOrigin", err);
        }

        authority = first.authority;
    }

    if (s3_origin_parse(ngx_s3_to_str(*url), &origin, &err) != S3_OK) {
        return ngx_http_s3_refuse(refusal, 400, "InvalidOrigin", err);
    }

    if (origin.scheme != first.scheme
        || !s3_str_eq(origin.authority, authority))
    {
        return ngx_http_s3_refuse(refusal, 400, "InvalidOrigin",
                                  "the URL has another host than the "
                                  "configuration names");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_s3_ingest_begin(ngx_http_request_t *r, ngx_http_s3_loc_conf_t *conf,
    ngx_s3_pull_spec_t *spec)
{
    ngx_int_t                   rc;
    ngx_s3_result_t             result;
    ngx_http_s3_ctx_t          *ctx;
    ngx_http_cleanup_t         *cln;
    ngx_http_s3_ingest_conf_t  *icf;

    icf = &conf->ingest;

    ctx = ngx_http_s3_create_ctx(r);
    cln = ngx_http_cleanup_add(r, 0);

    if (ctx == NULL || cln == NULL || ngx_http_s3_ctx_room(ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cln->handler = ngx_http_s3_ingest_cleanup;
    cln->data = ctx;

    ctx->uri_changes = r->uri_changes;

    rc = ngx_s3_pull_start(icf->pull, spec, ngx_http_s3_ingest_done, ctx,
                           &ctx->pull, &result);

    if (rc != NGX_OK) {
        return ngx_http_s3_send_refused(r, result.status, result.code,
                                        result.message,
                                        spec->transfer.id.len
                                        ? &spec->transfer.id : NULL);
    }

    if (icf->async) {
        return ngx_http_s3_ingest_accepted(r, ctx, &icf->status);
    }

    return ngx_http_s3_ingest_wait(r);
}


/* the record as it is now, and where it is later */

static ngx_int_t
ngx_http_s3_ingest_accepted(ngx_http_request_t *r, ngx_http_s3_ctx_t *ctx,
    ngx_str_t *status)
{
    u_char     *p;
    ngx_str_t   location;

    ngx_http_s3_ingest_cleanup(ctx);

    p = ngx_pnalloc(r->pool, status->len + S3_ID_MAX);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    location.data = p;
    location.len = ngx_sprintf(p, "%V%s", status, ctx->record->id) - p;

    if (ngx_http_s3_add_header(r, "Location", &location) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_s3_send_record(r, NGX_HTTP_ACCEPTED, ctx->record);
}


static ngx_int_t
ngx_http_s3_ingest_wait(ngx_http_request_t *r)
{
    r->write_event_handler = ngx_http_request_empty_handler;

    /* a client that leaves is noticed; bytes of a body are dropped by what was
       set when discarding it began */

    if (!r->discard_body) {
        r->read_event_handler = ngx_http_test_reading;

        if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    /* until the end of the pull is answered */

    r->main->count++;

    return NGX_DONE;
}


static void
ngx_http_s3_ingest_done(void *data, ngx_s3_result_t *result,
    const s3_record_t *record)
{
    ngx_http_s3_ctx_t *ctx = data;

    ngx_int_t                rc;
    ngx_connection_t        *c;
    ngx_http_request_t      *r;
    ngx_http_s3_loc_conf_t  *conf;

    r = ctx->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    *ctx->record = *record;
    ctx->recorded = 1;
    ctx->pull = NULL;

    if (ngx_http_s3_led_away(r, ctx->uri_changes)) {
        return;
    }

    conf = ngx_http_get_module_loc_conf(r, ngx_http_s3_transfer_module);

    /* where it came from another location, the client knows no $uri */

    rc = ngx_http_s3_send_result(r, result, ctx->record,
                                 conf->ingest.door->key == NULL
                                 && !r->internal);

    ngx_http_finalize_request(r, rc);

    ngx_http_run_posted_requests(c);
}


/* the request goes, the pull goes on */

static void
ngx_http_s3_ingest_cleanup(void *data)
{
    ngx_http_s3_ctx_t *ctx = data;

    ngx_s3_pull_t  *p;

    p = ctx->pull;

    if (p == NULL) {
        return;
    }

    ctx->pull = NULL;
    *ctx->record = *ngx_s3_pull_record(p);
    ctx->recorded = 1;

    ngx_s3_pull_leave(p);
}
