#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_s3_reply.h"
#include "ngx_http_s3_transfer_module.h"


#define NGX_HTTP_S3_STATUS_PATIENCE  1000    /* ms, with a record at hand */


/*
 * A request that waits for a store: first Redis is asked, then DynamoDB.
 *
 *     zone: unknown --> redis: unknown or silent --> dynamodb --> 404 or 503
 *                         | found                      | found
 *                         +----------------------------+--> send()
 *
 * Likewise where the zone's record is final, as the transfer may have begun
 * anew at another instance: the newer record is shown, never an error.
 */

typedef struct {
    ngx_http_request_t    *request;
    ngx_uint_t             uri_changes;  /* of the request, at first */
    ngx_s3_store_t        *store;    /* that is being asked, or NULL */
    ngx_s3_store_t        *todo[2];
    ngx_uint_t             next;     /* of todo */
    ngx_str_t              id;       /* NUL after it */
    ngx_str_t              owner;
    ngx_s3_store_read_t    read;
    s3_record_t           *known;    /* the zone's, or NULL */
    ngx_http_s3_status_send_pt  send;
    ngx_event_t            patience; /* set: the zone's is shown in the end */
    unsigned               owned:1;  /* only the owner's record is shown */
    unsigned               failed:1; /* a store did not answer */
} ngx_http_s3_status_ctx_t;


static char *ngx_http_s3_status_check(ngx_conf_t *cf,
    ngx_http_s3_status_conf_t *sc);
static ngx_int_t ngx_http_s3_status_id(ngx_http_request_t *r,
    ngx_http_s3_status_conf_t *sc, ngx_str_t *id);
static ngx_int_t ngx_http_s3_status_one(ngx_http_request_t *r,
    ngx_s3_stores_t *stores, ngx_str_t *id, ngx_str_t *owner);
static ngx_http_s3_status_ctx_t *ngx_http_s3_status_ctx(
    ngx_http_request_t *r, ngx_str_t *id, s3_record_t *known);
static ngx_int_t ngx_http_s3_status_ask(ngx_http_s3_status_ctx_t *ctx);
static void ngx_http_s3_status_answer(ngx_s3_store_read_t *read,
    ngx_int_t rc);
static void ngx_http_s3_status_patience(ngx_event_t *ev);
static ngx_int_t ngx_http_s3_status_reply(ngx_http_s3_status_ctx_t *ctx,
    ngx_int_t rc);
static void ngx_http_s3_status_cleanup(void *data);
static ngx_int_t ngx_http_s3_status_record(ngx_http_request_t *r,
    s3_record_t *record, ngx_str_t *owner);


char *
ngx_http_s3_status_parse(ngx_conf_t *cf, ngx_http_s3_status_conf_t *sc)
{
    ngx_str_t   *value, s;
    ngx_uint_t   i;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "json") == 0
            && sc->format == NGX_HTTP_S3_STATUS_AUTO)
        {
            sc->format = NGX_HTTP_S3_STATUS_JSON;
            continue;
        }

        if (ngx_strcmp(value[i].data, "prometheus") == 0
            && sc->format == NGX_HTTP_S3_STATUS_AUTO)
        {
            sc->format = NGX_HTTP_S3_STATUS_PROMETHEUS;
            continue;
        }

        if (ngx_strcmp(value[i].data, "list") == 0 && !sc->list) {
            sc->list = 1;
            continue;
        }

        if (ngx_strcmp(value[i].data, "cancel") == 0 && !sc->cancel) {
            sc->cancel = 1;
            continue;
        }

        if (ngx_strncmp(value[i].data, "id=", 3) == 0
            && value[i].len > 3 && sc->id == NULL)
        {
            s.data = value[i].data + 3;
            s.len = value[i].len - 3;

            sc->id = ngx_http_s3_compile(cf, &s);
            if (sc->id == NULL) {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" in \"%V\", it takes "
                           "json or prometheus, list, cancel and id=, each "
                           "once", &value[i], &value[0]);
        return NGX_CONF_ERROR;
    }

    return ngx_http_s3_status_check(cf, sc);
}


/* whether the parameters fit together, and the location */

static char *
ngx_http_s3_status_check(ngx_conf_t *cf, ngx_http_s3_status_conf_t *sc)
{
    ngx_str_t                 *value;
    ngx_http_core_loc_conf_t  *clcf;

    value = cf->args->elts;

    if (sc->format == NGX_HTTP_S3_STATUS_PROMETHEUS) {

        if (sc->cancel || sc->list || sc->id) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" cannot have \"%s\" beside "
                               "\"prometheus\", which shows no records",
                               &value[0], sc->cancel ? "cancel"
                                          : sc->list ? "list" : "id=");
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    if (sc->id) {

        if (sc->id->lengths == NULL
            && s3_uri_check_id(ngx_s3_to_str(sc->id->value)) != S3_OK)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid \"id=%V\" in \"%V\", it is the id of a "
                               "transfer, as a variable has it",
                               &sc->id->value, &value[0]);
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->named
#if (NGX_PCRE)
        || clcf->regex
#endif
        )
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" needs id= in location \"%V\", "
                           "which has no prefix", &value[0], &clcf->name);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_s3_status_handle(ngx_http_request_t *r,
    ngx_http_s3_status_conf_t *sc, ngx_s3_stores_t *stores,
    ngx_http_complex_value_t *owner)
{
    ngx_int_t                     rc;
    ngx_str_t                     id, value, *only;
    ngx_http_s3_status_format_e   format;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))
        && !(r->method == NGX_HTTP_DELETE && sc->cancel))
    {
        return ngx_http_s3_send_allow(r, sc->cancel
                                         ? "GET, HEAD, DELETE, OPTIONS"
                                         : "GET, HEAD, OPTIONS");
    }

    rc = ngx_http_s3_discard_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    if (sc->format == NGX_HTTP_S3_STATUS_PROMETHEUS) {
        return ngx_http_s3_status_totals(r, stores->zone, sc->format);
    }

    only = NULL;

    /* an owner that is empty sees only what has none */

    if (owner) {
        if (ngx_http_complex_value(r, owner, &value) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        only = &value;
    }

    rc = ngx_http_s3_status_id(r, sc, &id);

    if (rc == NGX_DECLINED) {
        return ngx_http_s3_status_unknown(r, NULL);
    }

    if (rc != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (r->method == NGX_HTTP_DELETE) {
        return ngx_http_s3_status_cancel(r, stores, &id, only);
    }

    if (id.len) {
        return ngx_http_s3_status_one(r, stores, &id, only);
    }

    format = sc->format;

    if (format == NGX_HTTP_S3_STATUS_AUTO) {
        format = ngx_http_s3_status_accept(r);
    }

    if (sc->list && format == NGX_HTTP_S3_STATUS_JSON) {
        return ngx_http_s3_status_list(r, stores->zone, only);
    }

    return ngx_http_s3_status_totals(r, stores->zone, format);
}


static ngx_int_t
ngx_http_s3_status_id(ngx_http_request_t *r, ngx_http_s3_status_conf_t *sc,
    ngx_str_t *id)
{
    ngx_str_t                 *name;
    ngx_http_core_loc_conf_t  *clcf;

    if (sc->id) {
        return ngx_http_complex_value(r, sc->id, id);
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    name = &clcf->name;

    /* an "if" in a location without a prefix has its name */

    if (r->uri.len < name->len
        || ngx_strncmp(r->uri.data, name->data, name->len) != 0)
    {
        return NGX_DECLINED;
    }

    id->data = r->uri.data + name->len;
    id->len = r->uri.len - name->len;

    if (id->len && id->data[0] == '/') {
        id->data++;
        id->len--;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_s3_status_one(ngx_http_request_t *r, ngx_s3_stores_t *stores,
    ngx_str_t *id, ngx_str_t *owner)
{
    s3_record_t  record, *known;

    if (s3_uri_check_id(ngx_s3_to_str(*id)) != S3_OK) {
        return ngx_http_s3_status_unknown(r, NULL);
    }

    known = NULL;

    if (ngx_s3_zone_find(stores->zone, id, &record) == NGX_OK) {

        if (!s3_state_final(record.state)) {
            return ngx_http_s3_status_record(r, &record, owner);
        }

        known = &record;
    }

    return ngx_http_s3_status_read(r, stores, id, owner, known,
                                   ngx_http_s3_status_record);
}


ngx_int_t
ngx_http_s3_status_read(ngx_http_request_t *r, ngx_s3_stores_t *stores,
    ngx_str_t *id, ngx_str_t *owner, s3_record_t *known,
    ngx_http_s3_status_send_pt send)
{
    ngx_int_t                  rc;
    ngx_http_s3_status_ctx_t  *ctx;

    if (stores->redis == NULL && stores->dynamodb == NULL) {
        return known ? send(r, known, owner)
                     : ngx_http_s3_status_unknown(r, id);
    }

    ctx = ngx_http_s3_status_ctx(r, id, known);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->send = send;
    ctx->todo[0] = stores->redis;
    ctx->todo[1] = stores->dynamodb;

    if (owner) {
        ctx->owned = 1;
        ctx->owner = *owner;
    }

    rc = ngx_http_s3_status_ask(ctx);

    if (rc != NGX_AGAIN) {
        return ngx_http_s3_status_reply(ctx, rc);
    }

    if (known) {
        ngx_add_timer(&ctx->patience, NGX_HTTP_S3_STATUS_PATIENCE);
    }

    return ngx_http_s3_status_wait(r);
}


ngx_int_t
ngx_http_s3_status_wait(ngx_http_request_t *r)
{
    /* bytes of a body are dropped by what was set when discarding it began */

    if (r == r->main && !r->discard_body) {
        r->read_event_handler = ngx_http_test_reading;

        if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    r->main->count++;

    return NGX_DONE;
}


static ngx_http_s3_status_ctx_t *
ngx_http_s3_status_ctx(ngx_http_request_t *r, ngx_str_t *id,
    s3_record_t *known)
{
    ngx_http_cleanup_t        *cln;
    ngx_http_s3_status_ctx_t  *ctx;

    ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_s3_status_ctx_t));
    if (ctx == NULL) {
        return NULL;
    }

    ctx->id.data = ngx_pnalloc(r->pool, id->len + 1);
    if (ctx->id.data == NULL) {
        return NULL;
    }

    ctx->id.len = id->len;
    (void) ngx_cpystrn(ctx->id.data, id->data, id->len + 1);

    if (known) {
        ctx->known = ngx_palloc(r->pool, sizeof(s3_record_t));
        if (ctx->known == NULL) {
            return NULL;
        }

        *ctx->known = *known;
    }

    cln = ngx_http_cleanup_add(r, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_s3_status_cleanup;
    cln->data = ctx;

    ctx->request = r;
    ctx->uri_changes = r->uri_changes;
    ctx->read.id = ctx->id;
    ctx->read.handler = ngx_http_s3_status_answer;
    ctx->read.data = ctx;

    ctx->patience.handler = ngx_http_s3_status_patience;
    ctx->patience.data = ctx;
    ctx->patience.log = r->connection->log;

    return ctx;
}


/* NGX_AGAIN: the handler follows; NGX_DECLINED: there is no other store */

static ngx_int_t
ngx_http_s3_status_ask(ngx_http_s3_status_ctx_t *ctx)
{
    ngx_s3_store_t  *store;

    while (ctx->next < 2) {
        store = ctx->todo[ctx->next++];

        if (store == NULL) {
            continue;
        }

        if (store->read(store, &ctx->read) == NGX_OK) {
            ctx->store = store;
            return NGX_AGAIN;
        }

        ctx->failed = 1;
    }

    return NGX_DECLINED;
}


static void
ngx_http_s3_status_answer(ngx_s3_store_read_t *read, ngx_int_t rc)
{
    ngx_time_t                *tp;
    ngx_connection_t          *c;
    ngx_http_request_t        *r;
    ngx_http_s3_status_ctx_t  *ctx;

    ctx = read->data;
    r = ctx->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    ctx->store = NULL;

    if (ngx_http_s3_led_away(r, ctx->uri_changes)) {
        ngx_http_s3_status_cleanup(ctx);
        return;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "s3 status: store answered, rc:%i", rc);

    if (rc == NGX_ERROR) {
        ctx->failed = 1;
    }

    /* DynamoDB may delete an item days after its time */

    tp = ngx_timeofday();

    if (rc == NGX_OK && read->record.expires_at
        && read->record.expires_at < (uint64_t) tp->sec * 1000 + tp->msec)
    {
        rc = NGX_DECLINED;
    }

    if (rc != NGX_OK) {
        rc = ngx_http_s3_status_ask(ctx);
    }

    if (rc != NGX_AGAIN) {
        ngx_http_s3_status_cleanup(ctx);
        ngx_http_finalize_request(r, ngx_http_s3_status_reply(ctx, rc));
    }

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_s3_status_patience(ngx_event_t *ev)
{
    ngx_connection_t          *c;
    ngx_http_request_t        *r;
    ngx_http_s3_status_ctx_t  *ctx;

    ctx = ev->data;
    r = ctx->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    ngx_http_s3_status_cleanup(ctx);

    if (ngx_http_s3_led_away(r, ctx->uri_changes)) {
        return;
    }

    ngx_http_finalize_request(r, ngx_http_s3_status_reply(ctx, NGX_DECLINED));

    ngx_http_run_posted_requests(c);
}


static ngx_int_t
ngx_http_s3_status_reply(ngx_http_s3_status_ctx_t *ctx, ngx_int_t rc)
{
    s3_record_t         *record;
    ngx_http_request_t  *r;

    r = ctx->request;

    record = ctx->known;

    if (rc == NGX_OK
        && (record == NULL
            || s3_record_compare(&ctx->read.record, record) > 0))
    {
        record = &ctx->read.record;
    }

    if (record) {
        return ctx->send(r, record, ctx->owned ? &ctx->owner : NULL);
    }

    if (ctx->failed) {
        return ngx_http_s3_send_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                      "StoreUnavailable",
                                      "a progress store that may know the "
                                      "transfer does not answer", &ctx->id);
    }

    return ngx_http_s3_status_unknown(r, &ctx->id);
}


static void
ngx_http_s3_status_cleanup(void *data)
{
    ngx_http_s3_status_ctx_t *ctx = data;

    ngx_s3_store_t  *store;

    if (ctx->patience.timer_set) {
        ngx_del_timer(&ctx->patience);
    }

    store = ctx->store;

    if (store) {
        ctx->store = NULL;
        store->cancel(store, &ctx->read);
    }
}


static ngx_int_t
ngx_http_s3_status_record(ngx_http_request_t *r, s3_record_t *record,
    ngx_str_t *owner)
{
    ngx_str_t  id;

    if (!ngx_http_s3_status_shown(record, owner)) {
        id.data = (u_char *) record->id;
        id.len = ngx_strlen(record->id);

        return ngx_http_s3_status_unknown(r, &id);
    }

    return ngx_http_s3_status_json(r, NGX_HTTP_OK, record);
}


ngx_uint_t
ngx_http_s3_status_shown(s3_record_t *record, ngx_str_t *owner)
{
    return owner == NULL || s3_str_eqs(ngx_s3_to_str(*owner), record->owner);
}


ngx_int_t
ngx_http_s3_status_json(ngx_http_request_t *r, ngx_uint_t status,
    s3_record_t *record)
{
    u_char     mem[S3_RECORD_JSON_MAX];
    s3_buf_t   out;
    ngx_str_t  json;

    s3_buf_init(&out, mem, sizeof(mem));

    if (s3_record_json(record, &out) != S3_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    json.len = out.pos - out.start;

    json.data = ngx_pnalloc(r->pool, json.len);
    if (json.data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memcpy(json.data, mem, json.len);

    return ngx_http_s3_send_json(r, status, &json);
}


ngx_int_t
ngx_http_s3_status_unknown(ngx_http_request_t *r, ngx_str_t *id)
{
    return ngx_http_s3_send_error(r, NGX_HTTP_NOT_FOUND, "NoSuchTransfer",
                                  "no transfer with this id is known", id);
}
