#include "ngx_s3_client_state.h"

#include "ngx_s3_scratch.h"
#include "ngx_s3_tls.h"


#define NGX_S3_CLIENT_RECV        8192
#define NGX_S3_CLIENT_MAX_REPLY   (1024 * 1024)
#define NGX_S3_CLIENT_REPLY_STEP  4096


static ngx_s3_client_t *ngx_s3_client_alloc(size_t size, ngx_log_t *log);
static ngx_int_t ngx_s3_client_open(ngx_s3_client_t *cl, ngx_uint_t fresh);
static void ngx_s3_client_connected(ngx_s3_conn_t *sc);

static void ngx_s3_client_read_handler(ngx_s3_conn_t *sc);
static void ngx_s3_client_read(ngx_s3_client_t *cl);
static void ngx_s3_client_wait(ngx_s3_client_t *cl);
static ngx_int_t ngx_s3_client_recv(ngx_s3_client_t *cl, ngx_uint_t *progress);
static ngx_int_t ngx_s3_client_feed(ngx_s3_client_t *cl, size_t n);
static void ngx_s3_client_answered(ngx_s3_client_t *cl);
static void ngx_s3_client_lost(ngx_s3_client_t *cl, ngx_int_t rc);
static int ngx_s3_client_field(void *data, s3_str_t name, s3_str_t value);
static int ngx_s3_client_body(void *data, const unsigned char *p, size_t len);


ngx_int_t
ngx_s3_request_send(ngx_s3_request_t *rq)
{
    size_t            size;
    ngx_s3_client_t  *cl;

    rq->error = NGX_S3_E_NONE;
    rq->reason[0] = '\0';
    rq->status = 0;
    rq->fields = NULL;
    rq->content_length = -1;
    rq->chunked = 0;
    rq->close_delimited = 0;
    ngx_str_null(&rq->reply);
    rq->sent = 0;
    rq->answered = 0;
    rq->resent = 0;
    rq->repeated = 0;
    rq->state = NULL;

    rq->fields = ngx_array_create(rq->pool, 16, sizeof(s3_field_t));
    if (rq->fields == NULL) {
        return NGX_ERROR;
    }

    size = rq->window ? rq->window : NGX_S3_CLIENT_RECV;

    cl = ngx_s3_client_alloc(size, rq->log);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    if (rq->ahead) {
        rq->reply.data = ngx_pnalloc(rq->pool, NGX_S3_CLIENT_REPLY_STEP);
        if (rq->reply.data == NULL) {
            ngx_s3_client_free(cl);
            return NGX_ERROR;
        }

        cl->reply_size = NGX_S3_CLIENT_REPLY_STEP;
    }

    cl->rq = rq;
    cl->to = cl->buf;
    cl->room = size;
    cl->max_reply = rq->max_reply ? rq->max_reply : NGX_S3_CLIENT_MAX_REPLY;
    cl->read_timeout = rq->read_timeout ? rq->read_timeout
                                        : rq->endpoint->read_timeout;

    if (ngx_s3_client_open(cl, rq->fresh) != NGX_OK) {
        ngx_s3_client_free(cl);
        return NGX_ERROR;
    }

    rq->state = cl;

    ngx_s3_client_write_ahead(cl);

    return NGX_OK;
}


static ngx_s3_client_t *
ngx_s3_client_alloc(size_t size, ngx_log_t *log)
{
    size_t            len;
    ngx_s3_client_t  *cl;

    len = sizeof(ngx_s3_client_t) + size;

    cl = (size == NGX_S3_CLIENT_RECV) ? ngx_s3_scratch_alloc(len, log)
                                      : ngx_alloc(len, log);
    if (cl == NULL) {
        return NULL;
    }

    /* not the buffers, which are most of it */

    ngx_memzero(cl, offsetof(ngx_s3_client_t, bufs));

    cl->size = size;

    return cl;
}


void
ngx_s3_client_free(ngx_s3_client_t *cl)
{
    if (cl->size == NGX_S3_CLIENT_RECV) {
        ngx_s3_scratch_free(cl, sizeof(ngx_s3_client_t) + cl->size);

    } else {
        ngx_free(cl);
    }
}


void
ngx_s3_request_cancel(ngx_s3_request_t *rq)
{
    ngx_s3_client_t  *cl;

    cl = rq->state;

    if (cl == NULL) {
        return;
    }

    rq->state = NULL;

    if (cl->sc) {
        ngx_s3_conn_close(cl->sc);
    }

    /* from begin() or part(): whoever called it frees */

    if (cl->busy) {
        cl->gone = 1;
        return;
    }

    ngx_s3_client_free(cl);
}


ngx_str_t
ngx_s3_request_field(ngx_s3_request_t *rq, const char *name)
{
    ngx_str_t    value;
    ngx_uint_t   i;
    s3_field_t  *field;

    ngx_str_null(&value);

    if (rq->fields == NULL) {
        return value;
    }

    field = rq->fields->elts;

    for (i = 0; i < rq->fields->nelts; i++) {
        if (s3_str_eqs(field[i].name, name)) {
            value.len = field[i].value.len;
            value.data = (u_char *) field[i].value.data;
            break;
        }
    }

    return value;
}


/* with the cursor at the start of the request */

static ngx_int_t
ngx_s3_client_open(ngx_s3_client_t *cl, ngx_uint_t fresh)
{
    ngx_s3_request_t  *rq;

    rq = cl->rq;

    cl->head_sent = 0;
    cl->cl = rq->body;
    cl->pos = rq->body ? rq->body->buf->pos : NULL;
    cl->left = rq->body_size;
    cl->written = 0;
    cl->stopped = 0;
    cl->hungry = 0;

    rq->sent = 0;

    s3_http_init(&cl->http, rq->head_method, ngx_s3_client_field,
                 rq->window ? ngx_s3_client_stream_body : ngx_s3_client_body,
                 cl);

    cl->in.start = cl->buf;
    cl->in.pos = cl->buf;
    cl->in.last = cl->buf;
    cl->in.end = cl->buf + cl->size;
    cl->in.temporary = 1;
    cl->end = NGX_AGAIN;

    cl->sc = ngx_s3_conn_open(rq->endpoint, &rq->host, fresh, rq->log,
                              ngx_s3_client_connected, cl);

    return cl->sc ? NGX_OK : NGX_ERROR;
}


static void
ngx_s3_client_connected(ngx_s3_conn_t *sc)
{
    ngx_s3_client_t   *cl;
    ngx_connection_t  *c;

    cl = sc->data;

    if (sc->error) {
        ngx_memcpy(cl->rq->reason, sc->reason, NGX_S3_REASON);
        ngx_s3_client_finish(cl, sc->error);
        return;
    }

    c = sc->connection;

    ngx_log_debug3(NGX_LOG_DEBUG_EVENT, c->log, 0,
                   "s3 request to \"%V\", body:%O reused:%ui",
                   ngx_s3_client_host(cl), cl->rq->body_size,
                   (ngx_uint_t) sc->reused);

    if (c->ssl && ngx_s3_tls_gather(c) != NGX_OK) {
        ngx_s3_reason(cl->rq->reason, "no memory");
        ngx_s3_client_finish(cl, NGX_S3_E_INTERNAL);
        return;
    }

    c->log->action = "sending a request";

    sc->read = ngx_s3_client_read_handler;
    sc->write = ngx_s3_client_write_handler;

    /* what came before there was a reader to be told of it */

    if (c->read->ready) {
        ngx_post_event(c->read, &ngx_posted_events);
    }

    ngx_s3_client_write_handler(sc);
}


static void
ngx_s3_client_read_handler(ngx_s3_conn_t *sc)
{
    ngx_s3_client_t   *cl;
    ngx_connection_t  *c;

    cl = sc->data;
    c = sc->connection;

    if (c->close) {
        ngx_s3_client_leaving(cl);
        return;
    }

    if (cl->paused) {

        if (ngx_s3_client_stream_wait(cl) != NGX_OK) {
            ngx_s3_client_lost(cl, NGX_ERROR);
        }

        return;
    }

    if (c->read->timedout) {
        ngx_s3_client_timeout(cl, NGX_S3_E_READ_TIMEOUT);
        return;
    }

    ngx_s3_client_read(cl);
}


static void
ngx_s3_client_read(ngx_s3_client_t *cl)
{
    ngx_int_t          rc;
    ngx_uint_t         progress;
    ngx_connection_t  *c;

    c = cl->sc->connection;

    rc = ngx_s3_client_recv(cl, &progress);

    switch (rc) {

    case NGX_OK:
        ngx_s3_client_answered(cl);
        return;

    case NGX_ABORT:
        return;

    case NGX_AGAIN:
    case NGX_BUSY:

        if (ngx_handle_read_event(c->read, 0) == NGX_OK) {
            break;
        }

        rc = NGX_ERROR;

        /* fall through */

    default:
        ngx_s3_client_lost(cl, rc);
        return;
    }

    /* A refusal that comes before all is written: whoever sends it may never
       read the rest. A success cannot be meant yet; so writing goes on. */

    if (!cl->written && !cl->stopped
        && cl->http.head_done && cl->http.status >= 300)
    {
        cl->stopped = 1;

        if (c->write->timer_set) {
            ngx_del_timer(c->write);
        }

        if (c->write->posted) {
            ngx_delete_posted_event(c->write);
        }

        ngx_s3_client_await(cl);
        return;
    }

    if (progress && (cl->written || cl->stopped)) {
        ngx_s3_client_wait(cl);
    }
}


void
ngx_s3_client_write_failed(ngx_s3_client_t *cl)
{
    ngx_int_t          rc;
    ngx_uint_t         progress;
    ngx_connection_t  *c;

    c = cl->sc->connection;

    cl->stopped = 1;
    c->read->ready = 1;
    c->read->available = -1;

    rc = ngx_s3_client_recv(cl, &progress);

    switch (rc) {

    case NGX_OK:
        ngx_s3_client_answered(cl);
        return;

    case NGX_ABORT:
        return;

    case NGX_AGAIN:
    case NGX_BUSY:

        /* the rest of an answer that has begun is read as ever */

        if (cl->begun && ngx_handle_read_event(c->read, 0) == NGX_OK) {
            ngx_s3_client_await(cl);
            return;
        }

        rc = NGX_ERROR;

        /* fall through */

    default:
        ngx_s3_client_lost(cl, rc);
    }
}


/* The time is the whole answer's, so that a byte now and then keeps nobody
   waiting for ever; of a body that is handed over, its head's. */

void
ngx_s3_client_await(ngx_s3_client_t *cl)
{
    ngx_msec_t  timeout;

    timeout = cl->rq->answer_timeout ? cl->rq->answer_timeout
                                     : 4 * cl->read_timeout;

    cl->deadline = ngx_current_msec + timeout;

    ngx_s3_client_wait(cl);
}


static void
ngx_s3_client_wait(ngx_s3_client_t *cl)
{
    ngx_msec_t       timeout;
    ngx_msec_int_t   left;

    if (cl->paused) {
        return;
    }

    timeout = cl->read_timeout;

    if (!cl->begun || cl->kept) {
        left = (ngx_msec_int_t) (cl->deadline - ngx_current_msec);
        left = ngx_max(left, 1);

        timeout = ngx_min((ngx_msec_t) left, timeout);
    }

    ngx_add_timer(cl->sc->connection->read, timeout);
}


/* as ngx_s3_client_stream() where the body is handed over, else as
   ngx_s3_client_take(), until nothing is there */

static ngx_int_t
ngx_s3_client_recv(ngx_s3_client_t *cl, ngx_uint_t *progress)
{
    size_t     n;
    ngx_int_t  rc;

    *progress = 0;

    if (cl->rq->window) {
        return ngx_s3_client_stream(cl, progress);
    }

    for ( ;; ) {
        rc = ngx_s3_client_take(cl, &n);

        if (rc != NGX_AGAIN || n == 0) {
            return rc;
        }

        *progress = 1;
    }
}


ngx_int_t
ngx_s3_client_take(ngx_s3_client_t *cl, size_t *n)
{
    ssize_t            size;
    ngx_connection_t  *c;

    c = cl->sc->connection;
    *n = 0;

    size = c->recv(c, cl->to, cl->room);

    if (size == NGX_AGAIN || size == NGX_ERROR) {
        return size;
    }

    if (size == 0) {

        /* RFC 9112, 9.8: what the connection ends is whole only if its peer
           has said so. A reply that is kept says by itself what it is. */

        if (cl->begun && !cl->kept && ngx_s3_tls_cut(c)) {
            return NGX_ERROR;
        }

        return s3_http_eof(&cl->http) == S3_OK ? NGX_OK : NGX_DONE;
    }

    *n = size;
    cl->rq->answered = 1;

    return ngx_s3_client_feed(cl, (size_t) size);
}


static ngx_int_t
ngx_s3_client_feed(ngx_s3_client_t *cl, size_t n)
{
    size_t  used;

    switch (s3_http_feed(&cl->http, cl->to, n, &used)) {

    case S3_OK:

        if (used < n) {

            /* bytes after the answer to the only request */

            cl->http.keepalive = 0;
        }

        return NGX_OK;

    case S3_AGAIN:
        return NGX_AGAIN;

    default:
        return NGX_DECLINED;
    }
}


static void
ngx_s3_client_answered(ngx_s3_client_t *cl)
{
    if (!cl->written && cl->http.status < 300) {
        ngx_s3_reason(cl->rq->reason, "\"%V\" answered %ui before it had the "
                      "whole request", ngx_s3_client_host(cl),
                      (ngx_uint_t) cl->http.status);
        ngx_s3_client_finish(cl, NGX_S3_E_REPLY);
        return;
    }

    ngx_s3_client_finish(cl, NGX_S3_E_NONE);
}


/* no whole reply came, and none will */

static void
ngx_s3_client_lost(ngx_s3_client_t *cl, ngx_int_t rc)
{
    ngx_str_t         *host;
    ngx_s3_request_t  *rq;

    rq = cl->rq;
    host = ngx_s3_client_host(cl);

    if (cl->no_memory) {
        ngx_s3_reason(rq->reason, "no memory for the answer of \"%V\"", host);
        ngx_s3_client_finish(cl, NGX_S3_E_INTERNAL);
        return;
    }

    if (cl->too_large) {
        ngx_s3_reason(rq->reason, "answer of \"%V\" is larger than %uz bytes",
                      host, cl->max_reply);
        ngx_s3_client_finish(cl, NGX_S3_E_REPLY);
        return;
    }

    if (cl->refused) {

        if (rq->reason[0] == '\0') {
            ngx_s3_reason(rq->reason, "answer of \"%V\" was not accepted",
                          host);
        }

        ngx_s3_client_finish(cl, NGX_S3_E_REPLY);
        return;
    }

    if (rc == NGX_DECLINED) {
        ngx_s3_reason(rq->reason, "answer of \"%V\" is not HTTP: %s", host,
                      cl->http.err ? cl->http.err : "unknown");
        ngx_s3_client_finish(cl, NGX_S3_E_REPLY);
        return;
    }

    /* S3 closes idle connections when it likes, also while we take them */

    if (cl->sc->reused && !rq->answered && !cl->retried) {
        ngx_log_debug1(NGX_LOG_DEBUG_EVENT, rq->log, 0,
                       "s3 idle connection to \"%V\" was stale", host);

        ngx_s3_conn_close(cl->sc);
        cl->sc = NULL;
        cl->retried = 1;
        rq->resent = cl->written;
        rq->repeated = (rq->sent > 0);

        if (ngx_s3_client_open(cl, 1) != NGX_OK) {
            ngx_s3_reason(rq->reason, "no memory");
            ngx_s3_client_finish(cl, NGX_S3_E_INTERNAL);
        }

        return;
    }

    ngx_s3_reason(rq->reason, "\"%V\" %s the connection %s", host,
                  rc == NGX_DONE ? "closed" : "broke",
                  rq->answered ? "in the middle of its answer"
                  : cl->written ? "without an answer"
                  : "before it had the whole request");

    ngx_s3_client_finish(cl, NGX_S3_E_CLOSED);
}


static int
ngx_s3_client_field(void *data, s3_str_t name, s3_str_t value)
{
    u_char           *p;
    s3_field_t       *field;
    ngx_s3_client_t  *cl;

    cl = data;

    p = ngx_pnalloc(cl->rq->pool, name.len + value.len + 1);
    field = p ? ngx_array_push(cl->rq->fields) : NULL;

    if (field == NULL) {

        if (cl->rq->ahead) {
            return S3_OK;
        }

        cl->no_memory = 1;
        return S3_ERROR;
    }

    field->name.len = name.len;
    field->name.data = p;
    p = ngx_cpymem(p, name.data, name.len);

    field->value.len = value.len;
    field->value.data = p;
    p = ngx_cpymem(p, value.data, value.len);
    *p = '\0';

    return S3_OK;
}


static int
ngx_s3_client_body(void *data, const unsigned char *p, size_t len)
{
    ngx_s3_client_t  *cl;

    cl = data;

    if (len > cl->max_reply - cl->rq->reply.len) {
        cl->too_large = 1;
        return S3_ERROR;
    }

    return ngx_s3_client_keep(cl, p, len) == NGX_OK ? S3_OK : S3_ERROR;
}


ngx_int_t
ngx_s3_client_keep(ngx_s3_client_t *cl, const u_char *p, size_t len)
{
    size_t      size;
    u_char     *mem;
    ngx_str_t  *reply;

    reply = &cl->rq->reply;

    if (reply->len + len > cl->reply_size) {
        size = ngx_max(cl->reply_size, NGX_S3_CLIENT_REPLY_STEP / 2);

        do {
            size *= 2;
        } while (size < reply->len + len);

        mem = ngx_pnalloc(cl->rq->pool, size);
        if (mem == NULL) {
            cl->no_memory = 1;
            return NGX_ERROR;
        }

        if (reply->len) {
            ngx_memcpy(mem, reply->data, reply->len);
            (void) ngx_pfree(cl->rq->pool, reply->data);
        }

        reply->data = mem;
        cl->reply_size = size;
    }

    ngx_memcpy(reply->data + reply->len, p, len);
    reply->len += len;

    return NGX_OK;
}


void
ngx_s3_client_leaving(ngx_s3_client_t *cl)
{
    ngx_s3_reason(cl->rq->reason, NGX_S3_LEAVING);
    ngx_s3_client_finish(cl, NGX_S3_E_CLOSED);
}


void
ngx_s3_client_timeout(ngx_s3_client_t *cl, ngx_s3_error_e error)
{
    ngx_s3_reason(cl->rq->reason, "\"%V\" timed out while %s",
                  ngx_s3_client_host(cl),
                  error == NGX_S3_E_SEND_TIMEOUT ? "it was sent a request"
                                                 : "it was to answer");

    ngx_s3_client_finish(cl, error);
}


/* the one end of a request that was not cancelled; rq may be gone when this
   returns */

void
ngx_s3_client_finish(ngx_s3_client_t *cl, ngx_s3_error_e error)
{
    ngx_s3_conn_t     *sc;
    ngx_s3_request_t  *rq;

    rq = cl->rq;
    sc = cl->sc;

    ngx_s3_client_head(cl);

    if (sc) {
        switch (error) {

        case NGX_S3_E_SEND_TIMEOUT:
        case NGX_S3_E_READ_TIMEOUT:
        case NGX_S3_E_CLOSED:
        case NGX_S3_E_REPLY:
            ngx_s3_conn_shun(sc);
            break;

        default:
            break;
        }

        if (error == NGX_S3_E_NONE && cl->written && cl->http.keepalive) {
            ngx_s3_conn_keep(sc);

        } else {
            ngx_s3_conn_close(sc);
        }
    }

    ngx_log_debug3(NGX_LOG_DEBUG_EVENT, rq->log, 0,
                   "s3 request done, error:%ui status:%ui \"%s\"",
                   (ngx_uint_t) error, rq->status, rq->reason);

    ngx_s3_client_free(cl);

    rq->state = NULL;
    rq->error = error;

    rq->handler(rq);
}


void
ngx_s3_client_head(ngx_s3_client_t *cl)
{
    s3_http_t         *http;
    ngx_s3_request_t  *rq;

    rq = cl->rq;
    http = &cl->http;

    if (!http->head_done) {
        return;
    }

    rq->status = http->status;
    rq->content_length = http->content_length;
    rq->chunked = http->chunked;
    rq->close_delimited = http->close_delimited;
}


ngx_str_t *
ngx_s3_client_host(ngx_s3_client_t *cl)
{
    return cl->rq->host.len ? &cl->rq->host : &cl->rq->endpoint->host;
}
