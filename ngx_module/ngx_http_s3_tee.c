/*
 * An output filter that sees a response's body as its origin made it: below
 * the copy filter, that is in memory, and before gzip, sub_filter and chunked.
 * What passes is copied into a transfer while it is there; the buffers
 * themselves go on to the client at once, or once they are copied.
 *
 *     NONE ──▶ CAPTURING ──▶ CAPTURED ──┐
 *       │          │                    │ S3 failed
 *       └──────────┴──▶ NOT ◀───────────┘
 */

#include "ngx_http_s3_spec.h"


/* r->buffered has four bits: ssi, sub, copy have the others, and this one is
   image_filter's too */
#define NGX_HTTP_S3_TEE_BUFFERED  0x08

#define NGX_HTTP_S3_TEE_TURN      (1024 * 1024)     /* bytes of one wake-up */


static ngx_int_t ngx_http_s3_tee_header_filter(ngx_http_request_t *r);
static ngx_http_s3_ctx_t *ngx_http_s3_tee_ctx(ngx_http_request_t *r);
static void ngx_http_s3_tee_replaced(ngx_http_s3_ctx_t *ctx);
static ngx_int_t ngx_http_s3_tee_begin(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_http_s3_ctx_t *ctx);
static ngx_int_t ngx_http_s3_tee_create(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_http_s3_ctx_t *ctx);
static void ngx_http_s3_tee_refused(ngx_http_s3_ctx_t *ctx,
    s3_tee_reason_e reason);

static ngx_int_t ngx_http_s3_tee_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static void ngx_http_s3_tee_arrived(ngx_http_s3_ctx_t *ctx, ngx_chain_t *in);
static ngx_int_t ngx_http_s3_tee_copy(ngx_http_s3_ctx_t *ctx, ngx_buf_t *buf);
static ngx_int_t ngx_http_s3_tee_feed(ngx_http_s3_ctx_t *ctx, ngx_buf_t *b);
static ngx_int_t ngx_http_s3_tee_hold(ngx_http_s3_ctx_t *ctx,
    ngx_chain_t *in);
static ngx_chain_t *ngx_http_s3_tee_let_go(ngx_http_s3_ctx_t *ctx);
static void ngx_http_s3_tee_patient(ngx_http_s3_ctx_t *ctx);
static void ngx_http_s3_tee_suspend(ngx_http_request_t *r);
static ngx_int_t ngx_http_s3_tee_pass(ngx_http_s3_ctx_t *ctx,
    ngx_chain_t *out);
static void ngx_http_s3_tee_ended(ngx_http_s3_ctx_t *ctx);
static void ngx_http_s3_tee_captured(ngx_http_s3_ctx_t *ctx);

static void ngx_http_s3_tee_event(void *data, ngx_s3_transfer_event_e event);
static void ngx_http_s3_tee_done(ngx_http_s3_ctx_t *ctx);
static ngx_uint_t ngx_http_s3_tee_over(ngx_http_s3_ctx_t *ctx);
static void ngx_http_s3_tee_impatient(ngx_event_t *ev);
static void ngx_http_s3_tee_next_turn(ngx_event_t *ev);
static void ngx_http_s3_tee_wake(ngx_http_s3_ctx_t *ctx);
static void ngx_http_s3_tee_drop(ngx_http_s3_ctx_t *ctx,
    s3_tee_reason_e reason, const char *message);
static void ngx_http_s3_tee_leave(ngx_http_s3_ctx_t *ctx, ngx_uint_t failed,
    const char *message);
static void ngx_http_s3_tee_cleanup(void *data);
static ngx_uint_t ngx_http_s3_tee_outlives(ngx_http_s3_ctx_t *ctx);
static ngx_s3_counters_t *ngx_http_s3_tee_counters(ngx_http_request_t *r);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


ngx_int_t
ngx_http_s3_tee_init(ngx_conf_t *cf)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_s3_tee_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_s3_tee_body_filter;

    return NGX_OK;
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


/* A filter below has made an answer of its own of the one that was judged, and
   sends that through all filters. */

static void
ngx_http_s3_tee_replaced(ngx_http_s3_ctx_t *ctx)
{
    ngx_http_s3_tee_t  *tee;

    tee = ctx->tee;

    ngx_http_s3_tee_drop(ctx, S3_TEE_TRUNCATED,
                         "another answer takes the place of the response");

    tee->goes_on = 0;

    ngx_http_s3_tee_swallow(tee->held);

    tee->held = NULL;
    tee->last_held = &tee->held;
    tee->pos = NULL;

    ctx->request->buffered &= ~NGX_HTTP_S3_TEE_BUFFERED;

    if (tee->patience.timer_set) {
        ngx_del_timer(&tee->patience);
    }
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


/* once: where a filter turns the answer into an error, that is judged, too */

static void
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


static ngx_int_t
ngx_http_s3_tee_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_int_t           rc;
    ngx_chain_t        *cl, *out;
    ngx_http_s3_ctx_t  *ctx;
    ngx_http_s3_tee_t  *tee;

    ctx = ngx_http_get_module_ctx(r, ngx_http_s3_transfer_module);
    tee = ctx ? ctx->tee : NULL;

    if (tee == NULL
        || (tee->state != NGX_HTTP_S3_TEE_CAPTURING && tee->held == NULL
            && tee->passed == NULL && !tee->deaf && !tee->broken))
    {
        return ngx_http_next_body_filter(r, in);
    }

    if (tee->broken) {
        return NGX_ERROR;
    }

    ngx_http_s3_tee_arrived(ctx, in);

    if (ngx_http_s3_tee_hold(ctx, in) != NGX_OK) {
        return NGX_ERROR;
    }

    out = ngx_http_s3_tee_let_go(ctx);

    ngx_http_s3_tee_ended(ctx);

    /* what is below may have something to send, and says so */

    if (out == NULL && r->out == NULL && !tee->deaf
        && (in
            || (!(r->buffered & ~(NGX_HTTP_S3_TEE_BUFFERED
                                  |NGX_HTTP_COPY_BUFFERED))
                && !r->connection->buffered)))
    {
        return tee->held ? NGX_AGAIN : NGX_OK;
    }

    rc = ngx_http_s3_tee_pass(ctx, out);

    while (out) {
        cl = out;
        out = cl->next;

        ngx_free_chain(r->pool, cl);
    }

    return rc;
}


/* A body is whole when its last buffer came here, and not when that is let go:
   a client that has all it was announced may leave before. */

static void
ngx_http_s3_tee_arrived(ngx_http_s3_ctx_t *ctx, ngx_chain_t *in)
{
    ngx_chain_t             *cl;
    ngx_http_s3_tee_t       *tee;
    ngx_http_s3_loc_conf_t  *conf;

    tee = ctx->tee;

    if (tee->state != NGX_HTTP_S3_TEE_CAPTURING) {
        return;
    }

    if (tee->live && !tee->whole && ctx->request->upstream->cleanup == NULL) {

        /* the upstream has failed, and its client is to have what there is */

        for (cl = in; cl && !cl->buf->last_buf; cl = cl->next) { /* void */ }

        if (cl == NULL) {
            ngx_http_s3_tee_drop(ctx, S3_TEE_TRUNCATED,
                                 "the response did not come whole");
            return;
        }
    }

    for ( /* void */ ; in; in = in->next) {

        tee->count += ngx_buf_size(in->buf);

        if (in->buf->last_buf) {
            tee->whole = 1;
        }
    }

    conf = ngx_http_get_module_loc_conf(ctx->request,
                                        ngx_http_s3_transfer_module);

    if (tee->whole && tee->live && tee->length == -1
        && ngx_http_s3_tee_cut_off(ctx->request))
    {
        ngx_http_s3_tee_drop(ctx, S3_TEE_TRUNCATED,
                             "FastCGI did not end the response");
        return;
    }

    if (tee->length != -1
        && (tee->count > tee->length
            || (tee->whole && tee->count < tee->length)))
    {
        ngx_http_s3_tee_drop(ctx, S3_TEE_TRUNCATED,
                             "the response has not the length that was "
                             "announced");

    } else if (conf->tee.max_size && tee->count > conf->tee.max_size) {
        ngx_http_s3_tee_drop(ctx, S3_TEE_SIZE,
                             "the response is larger than s3_tee_max_size");

    } else if (tee->whole && tee->count < conf->tee.min_size) {
        ngx_http_s3_tee_drop(ctx, S3_TEE_SIZE,
                             "the response is smaller than s3_tee_min_size");
    }
}


/* what is left of the held buffer; NGX_AGAIN: not all of it, and the client is
   to wait */

static ngx_int_t
ngx_http_s3_tee_copy(ngx_http_s3_ctx_t *ctx, ngx_buf_t *buf)
{
    u_char                  *pos;
    ngx_int_t                rc;
    ngx_buf_t                b;
    ngx_http_s3_tee_t       *tee;
    ngx_http_s3_loc_conf_t  *conf;

    tee = ctx->tee;

    b = *buf;

    if (tee->pos) {
        b.pos = tee->pos;
    }

    pos = b.pos;

    rc = ngx_http_s3_tee_feed(ctx, &b);

    tee->pos = b.pos;
    tee->taken += b.pos - pos;

    conf = ngx_http_get_module_loc_conf(ctx->request,
                                        ngx_http_s3_transfer_module);

    if (rc == NGX_AGAIN && conf->tee.on_overrun == NGX_HTTP_S3_TEE_DROP) {
        ngx_http_s3_tee_drop(ctx, S3_TEE_OVERRUN,
                             "the copy was given up: S3 did not keep up with "
                             "the response");
        return NGX_ERROR;
    }

    return rc;
}


/* NGX_AGAIN: not all of it; NGX_ERROR: none any more */

static ngx_int_t
ngx_http_s3_tee_feed(ngx_http_s3_ctx_t *ctx, ngx_buf_t *b)
{
    ngx_chain_t  one;

    if (ngx_buf_special(b)) {
        return NGX_OK;
    }

    if (!ngx_buf_in_memory(b)) {

        if (b->file_last > b->file_pos) {
            ngx_http_s3_tee_drop(ctx, S3_TEE_FAILED,
                                 "the response was not read into memory");
            return NGX_ERROR;
        }

        return NGX_OK;
    }

    if (b->pos == b->last) {
        return NGX_OK;
    }

    if (ctx->transfer->done) {
        return NGX_ERROR;
    }

    if (!ctx->tee->ready) {
        return NGX_AGAIN;
    }

    one.buf = b;
    one.next = NULL;

    return ngx_s3_transfer_feed(ctx->transfer, &one);
}


static ngx_int_t
ngx_http_s3_tee_hold(ngx_http_s3_ctx_t *ctx, ngx_chain_t *in)
{
    ngx_chain_t        *cl;
    ngx_http_s3_tee_t  *tee;

    tee = ctx->tee;

    for ( /* void */ ; in; in = in->next) {

        cl = ngx_alloc_chain_link(ctx->request->pool);
        if (cl == NULL) {
            return NGX_ERROR;
        }

        cl->buf = in->buf;
        cl->next = NULL;

        *tee->last_held = cl;
        tee->last_held = &cl->next;
    }

    return NGX_OK;
}


/*
 * The buffers that are copied, or need not be: only whole ones, as a buffer has
 * one reader's place. While an origin sends and a client takes as fast as we,
 * nginx goes on with them for as long as that lasts, and S3's connections, which
 * have one turn in an iteration of the event loop, would not keep up.
 */

static ngx_chain_t *
ngx_http_s3_tee_let_go(ngx_http_s3_ctx_t *ctx)
{
    ngx_chain_t         *cl, *out, **last;
    ngx_http_s3_tee_t   *tee;
    ngx_http_request_t  *r;

    r = ctx->request;
    tee = ctx->tee;

    out = NULL;
    last = &out;

    while (tee->held) {

        cl = tee->held;

        if (tee->state == NGX_HTTP_S3_TEE_CAPTURING) {

            if (tee->taken >= NGX_HTTP_S3_TEE_TURN
                && ngx_buf_size(cl->buf) > 0)
            {
                ngx_post_event(&tee->turn, &ngx_posted_next_events);
                break;
            }

            if (ngx_http_s3_tee_copy(ctx, cl->buf) == NGX_AGAIN) {
                break;
            }
        }

        tee->pos = NULL;

        tee->held = cl->next;
        cl->next = NULL;

        *last = cl;
        last = &cl->next;
    }

    if (tee->held == NULL) {
        tee->last_held = &tee->held;
        r->buffered &= ~NGX_HTTP_S3_TEE_BUFFERED;

        if (tee->patience.timer_set) {
            ngx_del_timer(&tee->patience);
        }

    } else {
        r->buffered |= NGX_HTTP_S3_TEE_BUFFERED;

        if (tee->turn.posted) {

            if (tee->patience.timer_set) {
                ngx_del_timer(&tee->patience);
            }

        } else if (!tee->deaf && (out || !tee->patience.timer_set)) {
            ngx_http_s3_tee_patient(ctx);
        }

        ngx_http_s3_tee_suspend(r);
    }

    return out;
}


/* the client's time-out may run while it waits for us, and must not end its
   response */

static void
ngx_http_s3_tee_patient(ngx_http_s3_ctx_t *ctx)
{
    ngx_event_t               *wev;
    ngx_msec_int_t             left, limit;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_core_module);

    limit = clcf->send_timeout;
    wev = ctx->request->connection->write;

    if (wev->timer_set && !wev->delayed) {
        left = (ngx_msec_int_t) (wev->timer.key - ngx_current_msec);
        limit = ngx_min(limit, left);
    }

    ngx_add_timer(&ctx->tee->patience, ngx_max(limit / 4 * 3, 1));
}


/* Nor is the upstream to blame for what is not read. Where all its buffers are
   held here, nginx leaves the timer of the last read running; whoever reads
   again sets it. */

static void
ngx_http_s3_tee_suspend(ngx_http_request_t *r)
{
    ngx_event_t          *rev;
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (u == NULL || u->peer.connection == NULL) {
        return;
    }

    rev = u->peer.connection->read;

    /* a delay of proxy_limit_rate has to end */

    if (rev->timer_set && !rev->delayed) {
        ngx_del_timer(rev);
    }
}


static ngx_int_t
ngx_http_s3_tee_pass(ngx_http_s3_ctx_t *ctx, ngx_chain_t *out)
{
    ngx_int_t            rc;
    ngx_http_s3_tee_t   *tee;
    ngx_http_request_t  *r;

    r = ctx->request;
    tee = ctx->tee;

    if (tee->deaf) {

        if (tee->state == NGX_HTTP_S3_TEE_NOT) {

            /* nobody wants it any more */

            return NGX_ERROR;
        }

        ngx_http_s3_tee_swallow(out);
        ngx_http_s3_tee_settle(r, tee);

        return tee->held ? NGX_AGAIN : NGX_OK;
    }

    if (tee->goes_on && tee->state == NGX_HTTP_S3_TEE_CAPTURING
        && ngx_http_s3_tee_remember(r, tee, out) != NGX_OK)
    {
        return NGX_ERROR;
    }

    rc = ngx_http_next_body_filter(r, out);

    if (rc == NGX_ERROR && tee->goes_on
        && tee->state == NGX_HTTP_S3_TEE_CAPTURING)
    {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                      "the client has left, its response is stored "
                      "nevertheless");

        tee->deaf = 1;
        r->connection->error = 1;
        rc = NGX_OK;

        if (tee->patience.timer_set) {
            ngx_del_timer(&tee->patience);
        }
    }

    ngx_http_s3_tee_settle(r, tee);

    if (rc == NGX_ERROR) {
        ngx_http_s3_tee_drop(ctx, S3_TEE_CLIENT,
                             "the client closed the connection");
    }

    return (rc == NGX_OK && tee->held) ? NGX_AGAIN : rc;
}


/* all that came is copied */

static void
ngx_http_s3_tee_ended(ngx_http_s3_ctx_t *ctx)
{
    ngx_http_s3_tee_t  *tee;

    tee = ctx->tee;

    if (tee->state != NGX_HTTP_S3_TEE_CAPTURING || tee->held
        || ctx->transfer->done)
    {
        return;
    }

    if (!tee->whole) {
        ngx_s3_transfer_silent(ctx->transfer);
        return;
    }

    ngx_http_s3_tee_captured(ctx);

    ngx_s3_transfer_finish(ctx->transfer);
}


static void
ngx_http_s3_tee_captured(ngx_http_s3_ctx_t *ctx)
{
    ctx->tee->state = NGX_HTTP_S3_TEE_CAPTURED;

    (void) ngx_atomic_fetch_add(&ngx_http_s3_tee_counters(ctx->request)
                                     ->tee_captured, 1);
}


static void
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


static void
ngx_http_s3_tee_impatient(ngx_event_t *ev)
{
    ngx_http_s3_ctx_t *ctx = ev->data;

    ngx_http_set_log_request(ctx->request->connection->log, ctx->request);

    if (ctx->tee->ready) {
        ngx_http_s3_tee_drop(ctx, S3_TEE_OVERRUN,
                             "the copy was given up: S3 did not keep up, and "
                             "send_timeout of the client would have passed");

    } else {
        ngx_http_s3_tee_drop(ctx, S3_TEE_NO_MEMORY,
                             "the copy was given up: there was no room in "
                             "s3_memory, and send_timeout of the client would "
                             "have passed");
    }

    ngx_http_s3_tee_wake(ctx);
}


static void
ngx_http_s3_tee_next_turn(ngx_event_t *ev)
{
    ngx_http_s3_ctx_t *ctx = ev->data;

    ngx_http_set_log_request(ctx->request->connection->log, ctx->request);

    ctx->tee->taken = 0;

    ngx_http_s3_tee_wake(ctx);
}


/* What is held is looked at again. The handler of the write event then does
   what an event of the client would have it do: reads on from the upstream,
   finalizes. */

static void
ngx_http_s3_tee_wake(ngx_http_s3_ctx_t *ctx)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = ctx->request;
    c = r->connection;

    if (ctx->tee->held == NULL) {
        return;
    }

    if (ngx_http_s3_tee_body_filter(r, NULL) == NGX_ERROR) {
        c->error = 1;
        ctx->tee->broken = 1;
    }

    ngx_post_event(c->write, &ngx_posted_events);
}


static void
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


static void
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
