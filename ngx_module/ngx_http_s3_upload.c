/*
 * The door of uploads: a request body, unbuffered, into a transfer. Knows
 * nothing of parts, tries and connections.
 */

#include "ngx_http_s3_reply.h"
#include "ngx_http_s3_result.h"
#include "ngx_http_s3_spec.h"
#include "ngx_s3_conn.h"


/* bytes that one wake-up may take, so that others get their turn */

#define NGX_HTTP_S3_TURN       (4 * 1024 * 1024)

#define NGX_HTTP_S3_FILE_READ  (256 * 1024)


static ngx_int_t ngx_http_s3_upload_after(ngx_http_request_t *r);
static void ngx_http_s3_upload_empty(ngx_http_request_t *r);
static ngx_uint_t ngx_http_s3_upload_taken(ngx_http_request_t *r);
static ngx_uint_t ngx_http_s3_upload_ended(ngx_http_request_t *r);
static ngx_int_t ngx_http_s3_upload_begin(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_s3_transfer_spec_t *spec);
static void ngx_http_s3_upload_cleanup(void *data);
static void ngx_http_s3_upload_leave(ngx_http_s3_ctx_t *ctx,
    const char *reason);
static void ngx_http_s3_upload_event(void *data,
    ngx_s3_transfer_event_e event);
static void ngx_http_s3_upload_read_body(ngx_http_request_t *r);
static void ngx_http_s3_upload_body(ngx_http_request_t *r);
static ngx_int_t ngx_http_s3_upload_share(ngx_http_request_t *r,
    ngx_http_s3_ctx_t *ctx);
static void ngx_http_s3_upload_read(ngx_http_request_t *r);
static void ngx_http_s3_upload_pump(ngx_http_request_t *r,
    ngx_http_s3_ctx_t *ctx);
static ngx_int_t ngx_http_s3_upload_receive(ngx_http_request_t *r);
static ngx_int_t ngx_http_s3_upload_feed(ngx_http_request_t *r,
    ngx_http_s3_ctx_t *ctx, off_t *turn);
static ngx_int_t ngx_http_s3_upload_feed_file(ngx_http_request_t *r,
    ngx_http_s3_ctx_t *ctx, ngx_buf_t *b, off_t *turn);
static void ngx_http_s3_upload_pause(ngx_http_request_t *r,
    ngx_http_s3_ctx_t *ctx);
static void ngx_http_s3_upload_whole(ngx_http_request_t *r,
    ngx_http_s3_ctx_t *ctx);
static const char *ngx_http_s3_upload_lost(ngx_http_request_t *r);
static void ngx_http_s3_upload_give_up(ngx_http_request_t *r,
    ngx_http_s3_ctx_t *ctx, ngx_int_t rc);
static ngx_int_t ngx_http_s3_upload_done(ngx_http_request_t *r,
    ngx_http_s3_ctx_t *ctx, ngx_s3_result_t *result);


ngx_int_t
ngx_http_s3_upload_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PREACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_s3_upload_after;

    return NGX_OK;
}


/*
 * An error_page leads away from a failed upload. What was consumed of its body
 * is gone, and not every handler could tell: uwsgi and SCGI take the length
 * from what is there, HTTP/2 need not announce one. So none gets the request as
 * if it were whole. What has become a GET asks for a page, and has no body, nor
 * has a post_action, which follows when the client has its answer.
 */

static ngx_int_t
ngx_http_s3_upload_after(ngx_http_request_t *r)
{
    ngx_http_s3_ctx_t         *ctx;
    ngx_http_core_loc_conf_t  *clcf;

    if (!r->internal || r != r->main || r->request_body == NULL) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_s3_get_ctx(r);

    if (ctx == NULL || !ctx->reading || !ngx_http_s3_upload_taken(r)) {
        return NGX_DECLINED;
    }

    if (r->method == NGX_HTTP_GET || r->post_action) {
        ngx_http_s3_upload_empty(r);
        return NGX_DECLINED;
    }

    /* files take no body, and s3_upload looks by itself */

    if (r->content_handler == NULL
        || r->content_handler == ngx_http_s3_upload_handler)
    {
        return NGX_DECLINED;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "the request body was taken by s3_upload, "
                  "\"%V\" cannot have it", &clcf->name);

    return ctx->status;
}


static void
ngx_http_s3_upload_empty(ngx_http_request_t *r)
{
    /* it says that a body is to be passed on, and this for the end */

    if (r->reading_body) {
        r->reading_body = 0;
        r->keepalive = 0;
        r->lingering_close = 1;
    }

#if (NGX_HTTP_V2)

    if (r->stream) {
        r->stream->skip_data = 1;
    }

#endif

    r->request_body->bufs = NULL;

    r->headers_in.content_length = NULL;
    r->headers_in.content_length_n = -1;
}


ngx_int_t
ngx_http_s3_upload_handler(ngx_http_request_t *r)
{
    ngx_int_t                rc;
    ngx_s3_transfer_spec_t   spec;
    ngx_http_s3_loc_conf_t  *conf;
    ngx_http_s3_refusal_t    refusal;

    if (r != r->main) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "s3_upload in a subrequest: the body belongs to the "
                      "main request");
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (r->method != NGX_HTTP_PUT && r->method != NGX_HTTP_POST) {
        return ngx_http_s3_send_allow(r, "PUT, POST, OPTIONS");
    }

    if (ngx_http_s3_upload_taken(r)) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "the request body was taken by another handler");
        return ngx_http_s3_send_error(r, NGX_HTTP_INTERNAL_SERVER_ERROR,
                                      "InternalError",
                                      "the request body was taken by another "
                                      "handler", NULL);
    }

    conf = ngx_http_get_module_loc_conf(r, ngx_http_s3_transfer_module);

    rc = ngx_http_s3_spec(r, conf, &spec, &refusal);

    if (rc != NGX_OK) {
        return ngx_http_s3_send_refusal(r, rc, &refusal);
    }

    return ngx_http_s3_upload_begin(r, conf, &spec);
}


/*
 * Another handler has had the request before, and an error_page or a redirect
 * led here: bytes that it consumed are gone, and storing the rest would make a
 * wrong object.
 */

static ngx_uint_t
ngx_http_s3_upload_taken(ngx_http_request_t *r)
{
    off_t                     size, received;
    ngx_chain_t              *cl;
    ngx_table_elt_t          *length;
    ngx_http_request_body_t  *rb;

    rb = r->request_body;

    if (rb == NULL) {

#if (NGX_HTTP_V2)

        if (r->stream && r->stream->skip_data) {
            return 1;
        }

#endif

        if (r->discard_body) {
            return 1;
        }

        /* nginx had all of it when it dropped it: nothing else tells of that */

        length = r->headers_in.content_length;

        return length
               && ngx_atoof(length->value.data, length->value.len)
                  != r->headers_in.content_length_n;
    }

    if (r->reading_body || !ngx_http_s3_upload_ended(r)) {
        return 1;
    }

    size = 0;

    for (cl = rb->bufs; cl; cl = cl->next) {
        size += ngx_buf_size(cl->buf);
    }

    /* chunked HTTP/1 has its count there, HTTP/2 and 3 in the body */

    received = r->headers_in.content_length_n;

    if (received == -1) {
        received = rb->received;
    }

    return size < received;
}


/* Whether reading came to the body's end, if it has one. It did not where it
   failed: the body was too large or malformed, a disk full. What was counted
   then says nothing, since it is no more than what is there. */

static ngx_uint_t
ngx_http_s3_upload_ended(ngx_http_request_t *r)
{
    ngx_http_request_body_t  *rb;

    if (r->headers_in.content_length_n < 0 && !r->headers_in.chunked) {
        return 1;
    }

    rb = r->request_body;

    return rb->rest == 0 && rb->last_saved;
}


static ngx_int_t
ngx_http_s3_upload_begin(ngx_http_request_t *r, ngx_http_s3_loc_conf_t *conf,
    ngx_s3_transfer_spec_t *spec)
{
    ngx_int_t            rc;
    ngx_s3_result_t      result;
    ngx_http_s3_ctx_t   *ctx;
    ngx_http_cleanup_t  *cln;

    ctx = ngx_http_s3_create_ctx(r);
    cln = ngx_http_cleanup_add(r, 0);

    if (ctx == NULL || cln == NULL || ngx_http_s3_ctx_room(ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cln->handler = ngx_http_s3_upload_cleanup;
    cln->data = ctx;

    ctx->uri_changes = r->uri_changes;

    rc = ngx_s3_transfer_create(conf->transfer, spec,
                                ngx_http_s3_upload_event, ctx,
                                &ctx->transfer, &result);

    if (rc != NGX_OK) {
        return ngx_http_s3_send_refused(r, result.status, result.code,
                                        result.message,
                                        spec->id.len ? &spec->id : NULL);
    }

    /* one reference until the transfer's end is answered */

    r->main->count++;

    rc = ngx_s3_transfer_admit(ctx->transfer);

    if (rc == NGX_OK) {
        ngx_http_s3_upload_read_body(r);

    } else if (rc == NGX_AGAIN) {

        /* its body stays unread and 100 Continue unsent until its turn */

        r->read_event_handler = ngx_http_test_reading;
        r->write_event_handler = ngx_http_request_empty_handler;
    }

    return NGX_DONE;
}


/* the request goes: whatever the transfer still does, it does alone */

static void
ngx_http_s3_upload_cleanup(void *data)
{
    ngx_http_s3_ctx_t *ctx = data;

    const char  *reason;

    ngx_http_s3_place_leave(ctx->request, &ctx->place);

    reason = ngx_http_s3_upload_lost(ctx->request);

    ngx_http_s3_upload_leave(ctx, reason ? reason
                                  : "the request was ended by nginx");
}


static void
ngx_http_s3_upload_leave(ngx_http_s3_ctx_t *ctx, const char *reason)
{
    ngx_s3_transfer_t  *t;

    t = ctx->transfer;

    if (t == NULL) {
        return;
    }

    ctx->transfer = NULL;

    ngx_s3_transfer_abort(t, 0, reason);

    s3_record_copy(ctx->record, &t->progress.record);
    ctx->recorded = 1;
}


static void
ngx_http_s3_upload_event(void *data, ngx_s3_transfer_event_e event)
{
    ngx_http_s3_ctx_t *ctx = data;

    ngx_int_t            rc;
    ngx_s3_result_t      result;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = ctx->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    if (ngx_http_s3_led_away(r, ctx->uri_changes)) {
        ngx_http_s3_upload_cleanup(ctx);
        return;
    }

    if (event == NGX_S3_RESUME) {

        if (ctx->reading) {
            ctx->paused = 0;
            ngx_http_s3_upload_pump(r, ctx);

        } else {
            ngx_http_s3_upload_read_body(r);
        }

        ngx_http_run_posted_requests(c);
        return;
    }

    result = ctx->transfer->result;

    s3_record_copy(ctx->record, &ctx->transfer->progress.record);
    ctx->recorded = 1;
    ctx->transfer = NULL;

    ngx_http_s3_place_leave(r, &ctx->place);

    r->read_event_handler = ngx_http_block_reading;

    rc = ngx_http_s3_upload_done(r, ctx, &result);

    ngx_http_finalize_request(r, rc);

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_s3_upload_read_body(ngx_http_request_t *r)
{
    ngx_int_t           rc;
    ngx_http_s3_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_s3_transfer_module);
    ctx->reading = 1;

    r->request_body_no_buffering = 1;

    rc = ngx_http_s3_place_begin(r, ctx->transfer, ngx_http_s3_upload_body);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {

        /* no reference was taken */

        ngx_http_s3_upload_give_up(r, ctx, rc);
        return;
    }

    ngx_http_finalize_request(r, NGX_DONE);
}


static void
ngx_http_s3_upload_body(ngx_http_request_t *r)
{
    ngx_http_s3_ctx_t  *ctx;

    ngx_http_s3_place_begun();

    ctx = ngx_http_get_module_ctx(r, ngx_http_s3_transfer_module);

    if (r->request_body == NULL) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "the request body was discarded before s3_upload");
        ngx_http_s3_upload_give_up(r, ctx, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    if (!r->reading_body && ngx_http_s3_upload_share(r, ctx) != NGX_OK) {
        ngx_http_s3_upload_give_up(r, ctx, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    r->read_event_handler = ngx_http_s3_upload_read;
    r->write_event_handler = ngx_http_request_empty_handler;

    ngx_http_s3_upload_pump(r, ctx);
}


/* nginx has all of the body, and others may want it as well: it is consumed
   through copies of its buffers */

static ngx_int_t
ngx_http_s3_upload_share(ngx_http_request_t *r, ngx_http_s3_ctx_t *ctx)
{
    ngx_buf_t    *b;
    ngx_chain_t  *in, *cl, **last;

    ctx->shared = 1;
    last = &ctx->bufs;

    for (in = r->request_body->bufs; in; in = in->next) {

        cl = ngx_alloc_chain_link(r->pool);
        b = ngx_alloc_buf(r->pool);

        if (cl == NULL || b == NULL) {
            return NGX_ERROR;
        }

        *b = *in->buf;

        cl->buf = b;
        *last = cl;
        last = &cl->next;
    }

    *last = NULL;

    return NGX_OK;
}


static void
ngx_http_s3_upload_read(ngx_http_request_t *r)
{
    ngx_connection_t   *c;
    ngx_http_s3_ctx_t  *ctx;

    c = r->connection;
    ctx = ngx_http_get_module_ctx(r, ngx_http_s3_transfer_module);

    if (ctx->paused) {

        /* HTTP/2 sets the timer with each frame */

        ngx_http_s3_upload_pause(r, ctx);
        ngx_http_block_reading(r);
        return;
    }

    if (c->read->timedout) {
        c->timedout = 1;
        ngx_http_s3_upload_give_up(r, ctx, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }

    ngx_http_s3_upload_pump(r, ctx);
}


static void
ngx_http_s3_upload_pump(ngx_http_request_t *r, ngx_http_s3_ctx_t *ctx)
{
    off_t              turn;
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = r->connection;
    turn = NGX_HTTP_S3_TURN;

    for ( ;; ) {

        rc = ngx_http_s3_upload_feed(r, ctx, &turn);

        if (rc == NGX_AGAIN || rc == NGX_ERROR) {

            /* to be resumed, or to be told of its end */

            ngx_http_s3_upload_pause(r, ctx);
            return;
        }

        if (rc == NGX_ABORT) {
            ngx_http_s3_upload_give_up(r, ctx, NGX_HTTP_INTERNAL_SERVER_ERROR);
            return;
        }

        if (rc == NGX_OK && !r->reading_body) {
            ngx_http_s3_upload_whole(r, ctx);
            return;
        }

        if (rc == NGX_DONE || turn <= 0) {
            ngx_post_event(c->read, &ngx_posted_next_events);
            return;
        }

        ngx_http_s3_place(r, &ctx->place, ctx->transfer);

        rc = ngx_http_s3_upload_receive(r);

        if (ngx_http_s3_place_received(r) != NGX_OK) {
            rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
            ngx_http_s3_upload_give_up(r, ctx, rc);
            return;
        }

        if (rc == NGX_AGAIN && r->request_body->bufs == NULL) {
            ngx_s3_transfer_silent(ctx->transfer);
            return;
        }
    }
}


/*
 * An HTTP/2 client may leave right after END_STREAM. nginx then reports an
 * error though all of the body is here, where r->request_body->rest is 0.
 *
 * nginx grants no window for the rest of a frame that has begun, but forgets its
 * padding until the data has come, and then takes what it granted for too much.
 */

static ngx_int_t
ngx_http_s3_upload_receive(ngx_http_request_t *r)
{
#if (NGX_HTTP_V2)

    size_t                     padding;
    ngx_int_t                  rc;
    ngx_connection_t          *c;
    ngx_http_v2_connection_t  *h2c;

    c = r->connection;

    if (r->stream && c->error && r->request_body->rest == 0) {
        c->error = 0;
        rc = ngx_http_read_unbuffered_request_body(r);
        c->error = 1;

        return rc;
    }

    if (r->stream && r->stream->connection->state.stream == r->stream) {
        h2c = r->stream->connection;
        padding = h2c->state.padding;

        h2c->state.length += padding;
        rc = ngx_http_read_unbuffered_request_body(r);
        h2c->state.length -= padding;

        return rc;
    }

#endif

    return ngx_http_read_unbuffered_request_body(r);
}


/* all that is there. NGX_OK: consumed; NGX_DONE: the turn is over; NGX_ABORT:
   it cannot be read; NGX_AGAIN and NGX_ERROR as ngx_s3_transfer_feed() says */

static ngx_int_t
ngx_http_s3_upload_feed(ngx_http_request_t *r, ngx_http_s3_ctx_t *ctx,
    off_t *turn)
{
    size_t         n;
    ngx_int_t      rc;
    ngx_buf_t     *b;
    ngx_chain_t   *cl, one, **bufs;

    bufs = ctx->shared ? &ctx->bufs : &r->request_body->bufs;

    while (*bufs) {

        cl = *bufs;
        b = cl->buf;

        if (!ngx_buf_in_memory(b) && b->in_file) {
            rc = ngx_http_s3_upload_feed_file(r, ctx, b, turn);

        } else {
            one.buf = b;
            one.next = NULL;

            n = b->last - b->pos;
            rc = ngx_s3_transfer_feed(ctx->transfer, &one);
            *turn -= n - (b->last - b->pos);
        }

        if (rc != NGX_OK) {
            return rc;
        }

        *bufs = cl->next;
        ngx_free_chain(r->pool, cl);
    }

    return NGX_OK;
}


/* a body that another module put into a file */

static ngx_int_t
ngx_http_s3_upload_feed_file(ngx_http_request_t *r, ngx_http_s3_ctx_t *ctx,
    ngx_buf_t *b, off_t *turn)
{
    size_t       size;
    ssize_t      n;
    ngx_int_t    rc;
    ngx_buf_t   *piece;
    ngx_chain_t  one;

    if (ctx->file_buf == NULL) {
        ctx->file_buf = ngx_create_temp_buf(r->pool, NGX_HTTP_S3_FILE_READ);
        if (ctx->file_buf == NULL) {
            return NGX_ABORT;
        }
    }

    piece = ctx->file_buf;

    one.buf = piece;
    one.next = NULL;

    for ( ;; ) {

        if (piece->pos < piece->last) {
            rc = ngx_s3_transfer_feed(ctx->transfer, &one);

            if (rc != NGX_OK) {
                return rc;
            }
        }

        if (b->file_pos == b->file_last) {
            return NGX_OK;
        }

        if (*turn <= 0) {
            return NGX_DONE;
        }

        size = ngx_min(b->file_last - b->file_pos, NGX_HTTP_S3_FILE_READ);

        n = ngx_read_file(b->file, piece->start, size, b->file_pos);

        if (n <= 0) {
            ngx_log_error(NGX_LOG_CRIT, r->connection->log, 0,
                          "reading the request body from \"%V\" failed",
                          &b->file->name);
            return NGX_ABORT;
        }

        piece->pos = piece->start;
        piece->last = piece->start + n;

        b->file_pos += n;
        *turn -= n;
    }
}


/* S3 holds the client back: its time-out does not run meanwhile */

static void
ngx_http_s3_upload_pause(ngx_http_request_t *r, ngx_http_s3_ctx_t *ctx)
{
    ngx_event_t  *rev;

    ctx->paused = 1;

    rev = r->connection->read;

    if (rev->timer_set) {
        ngx_del_timer(rev);
    }

    rev->timedout = 0;
}


static void
ngx_http_s3_upload_whole(ngx_http_request_t *r, ngx_http_s3_ctx_t *ctx)
{
    if (r->connection->read->timer_set) {
        ngx_del_timer(r->connection->read);
    }

    ngx_http_s3_place_leave(r, &ctx->place);

    /* what is whole is completed whether or not the client is still there */

    r->read_event_handler = ngx_http_block_reading;

    ngx_s3_transfer_finish(ctx->transfer);
}


/*
 * Why the connection is of no use any more, NULL: it is. In HTTP/2 reading
 * fails with the connection before each stream knows of it, and what
 * worker_shutdown_timeout sets there is known by what is not set.
 */

static const char *
ngx_http_s3_upload_lost(ngx_http_request_t *r)
{
    ngx_connection_t  *c;

    c = r->connection;

#if (NGX_HTTP_V2)

    if (r->stream) {
        c = r->stream->connection->connection;

        if (ngx_exiting
            && c->error
            && !c->read->eof
            && !c->read->error
            && !c->read->timedout
            && !c->write->error
            && !c->write->timedout)
        {
            return NGX_S3_LEAVING;
        }
    }

#endif

    if (c->close) {
        return NGX_S3_LEAVING;
    }

    return (c->error || r->connection->error)
           ? "the client closed the connection" : NULL;
}


/* the body did not come whole */

static void
ngx_http_s3_upload_give_up(ngx_http_request_t *r, ngx_http_s3_ctx_t *ctx,
    ngx_int_t rc)
{
    const char  *reason;

    reason = ngx_http_s3_upload_lost(r);

    if (reason) {
        rc = NGX_HTTP_CLIENT_CLOSED_REQUEST;

    } else if (rc == NGX_HTTP_REQUEST_TIME_OUT) {
        reason = "the client timed out";

    } else if (rc == NGX_HTTP_REQUEST_ENTITY_TOO_LARGE) {
        reason = "the body is larger than client_max_body_size";

    } else if (rc == NGX_HTTP_BAD_REQUEST) {
        reason = "the body is malformed or shorter than announced";

    } else {
        reason = "the body could not be read";
    }

    ngx_http_s3_upload_leave(ctx, reason);
    ngx_http_s3_place_leave(r, &ctx->place);

    ctx->status = rc;

    r->read_event_handler = ngx_http_block_reading;

    ngx_http_finalize_request(r, rc);
}


static ngx_int_t
ngx_http_s3_upload_done(ngx_http_request_t *r, ngx_http_s3_ctx_t *ctx,
    ngx_s3_result_t *result)
{
    ngx_http_s3_loc_conf_t  *conf;

    /* what is still to come cannot be told from a next request */

    if (r->reading_body) {
        r->keepalive = 0;
    }

    ctx->status = result->status;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_s3_transfer_module);

    return ngx_http_s3_send_result(r, result, ctx->record,
                                   conf->upload_key == NULL);
}
