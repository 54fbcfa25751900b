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

#include "ngx_http_s3_tee_parts.h"


#define NGX_HTTP_S3_TEE_TURN  (1024 * 1024)     /* bytes of one wake-up */


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


static ngx_http_output_body_filter_pt  ngx_http_next_body_filter;


ngx_int_t
ngx_http_s3_tee_init(ngx_conf_t *cf)
{
    ngx_http_s3_tee_init_head();

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_s3_tee_body_filter;

    return NGX_OK;
}


/* A filter below has made an answer of its own of the one that was judged, and
   sends that through all filters. */

void
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

    /* what is below may have something to send, and says so: not least what
       waited for subrequests */

    if (out == NULL && r->out == NULL && r->postponed == NULL && !tee->deaf
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

        /* An upstream that has failed sends a flush in the place of the last
           buffer, and its client is to have what there is. One that came to
           its end may be over, too, while the copy filter still has some of
           its body. */

        for (cl = in; cl; cl = cl->next) {
            if (ngx_buf_special(cl->buf) && cl->buf->flush
                && !cl->buf->last_buf)
            {
                break;
            }
        }

        if (cl) {
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

        if (ngx_http_s3_tee_leaving(r)) {
            ngx_http_s3_tee_drop(ctx, S3_TEE_TRUNCATED, NGX_S3_LEAVING);
        }

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


void
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


void
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

void
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
