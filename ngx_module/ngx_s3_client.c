#include "ngx_s3_client.h"


#define NGX_S3_CLIENT_BUFS        64         /* of one send, IOV's usual max */
#define NGX_S3_CLIENT_SEND        (1024 * 1024)  /* bytes of one wake-up */
#define NGX_S3_CLIENT_TLS_SLICE   16384      /* one TLS record */
#define NGX_S3_CLIENT_RECV        8192
#define NGX_S3_CLIENT_MAX_REPLY   (1024 * 1024)
#define NGX_S3_CLIENT_REPLY_STEP  4096


/* what a request has while it runs; its own memory, not of rq->pool, so that
   the tries of a call do not pile up there */

typedef struct {
    ngx_s3_request_t  *rq;
    ngx_s3_conn_t     *sc;

    /* the cursor: what comes next to be sent */
    size_t             head_sent;
    ngx_chain_t       *cl;
    u_char            *pos;          /* in cl's buffer */
    off_t              left;         /* of the body */

    size_t             max_reply;
    size_t             reply_size;   /* memory of rq->reply */
    ngx_msec_t         read_timeout;
    ngx_msec_t         deadline;     /* of the answer, once it is awaited */

    unsigned           written:1;    /* all of the request */
    unsigned           stopped:1;    /* the answer came first: send no more */
    unsigned           retried:1;    /* on a fresh connection */
    unsigned           too_large:1;
    unsigned           no_memory:1;

    ngx_buf_t          bufs[NGX_S3_CLIENT_BUFS];
    ngx_chain_t        links[NGX_S3_CLIENT_BUFS];
    s3_http_t          http;
    u_char             buf[NGX_S3_CLIENT_RECV];
} ngx_s3_client_t;


static ngx_int_t ngx_s3_client_open(ngx_s3_client_t *cl, ngx_uint_t fresh);
static void ngx_s3_client_connected(ngx_s3_conn_t *sc);

static void ngx_s3_client_write_handler(ngx_s3_conn_t *sc);
static void ngx_s3_client_write(ngx_s3_client_t *cl);
static ngx_int_t ngx_s3_client_send(ngx_s3_client_t *cl, off_t *sent);
static ngx_chain_t *ngx_s3_client_chain(ngx_s3_client_t *cl, ngx_uint_t tls);
static void ngx_s3_client_advance(ngx_s3_client_t *cl, off_t n);
static void ngx_s3_client_write_failed(ngx_s3_client_t *cl);
static void ngx_s3_client_await(ngx_s3_client_t *cl);
static void ngx_s3_client_wait(ngx_s3_client_t *cl);

static void ngx_s3_client_read_handler(ngx_s3_conn_t *sc);
static void ngx_s3_client_read(ngx_s3_client_t *cl);
static ngx_int_t ngx_s3_client_recv(ngx_s3_client_t *cl, ngx_uint_t *progress);
static ngx_int_t ngx_s3_client_feed(ngx_s3_client_t *cl, size_t n);
static void ngx_s3_client_answered(ngx_s3_client_t *cl);
static void ngx_s3_client_lost(ngx_s3_client_t *cl, ngx_int_t rc);
static int ngx_s3_client_field(void *data, s3_str_t name, s3_str_t value);
static int ngx_s3_client_body(void *data, const unsigned char *p, size_t len);

static void ngx_s3_client_leaving(ngx_s3_client_t *cl);
static void ngx_s3_client_timeout(ngx_s3_client_t *cl, ngx_s3_error_e error);
static void ngx_s3_client_finish(ngx_s3_client_t *cl, ngx_s3_error_e error);
static ngx_str_t *ngx_s3_client_host(ngx_s3_client_t *cl);


ngx_int_t
ngx_s3_request_send(ngx_s3_request_t *rq)
{
    ngx_s3_client_t  *cl;

    rq->error = NGX_S3_E_NONE;
    rq->reason[0] = '\0';
    rq->status = 0;
    rq->fields = NULL;
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

    cl = ngx_alloc(sizeof(ngx_s3_client_t), rq->log);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    /* not the buffers, which are most of it */

    ngx_memzero(cl, offsetof(ngx_s3_client_t, bufs));

    if (rq->ahead) {
        rq->reply.data = ngx_pnalloc(rq->pool, NGX_S3_CLIENT_REPLY_STEP);
        if (rq->reply.data == NULL) {
            ngx_free(cl);
            return NGX_ERROR;
        }

        cl->reply_size = NGX_S3_CLIENT_REPLY_STEP;
    }

    cl->rq = rq;
    cl->max_reply = rq->max_reply ? rq->max_reply : NGX_S3_CLIENT_MAX_REPLY;
    cl->read_timeout = rq->read_timeout ? rq->read_timeout
                                        : rq->endpoint->read_timeout;

    if (ngx_s3_client_open(cl, rq->fresh) != NGX_OK) {
        ngx_free(cl);
        return NGX_ERROR;
    }

    rq->state = cl;

    return NGX_OK;
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

    ngx_free(cl);
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

    rq->sent = 0;

    s3_http_init(&cl->http, rq->head_method, ngx_s3_client_field,
                 ngx_s3_client_body, cl);

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

    c->log->action = "sending a request";

    sc->read = ngx_s3_client_read_handler;
    sc->write = ngx_s3_client_write_handler;

    /* what came before there was a reader to be told of it */

    if (c->read->ready) {
        ngx_post_event(c->read, &ngx_posted_events);
    }

    ngx_add_timer(c->write, cl->rq->endpoint->send_timeout);

    ngx_s3_client_write_handler(sc);
}


static void
ngx_s3_client_write_handler(ngx_s3_conn_t *sc)
{
    ngx_s3_client_t   *cl;
    ngx_connection_t  *c;

    cl = sc->data;
    c = sc->connection;

    if (c->close) {
        ngx_s3_client_leaving(cl);
        return;
    }

    if (cl->written || cl->stopped) {
        return;
    }

    if (c->write->timedout) {
        ngx_s3_client_timeout(cl, NGX_S3_E_SEND_TIMEOUT);
        return;
    }

    ngx_s3_client_write(cl);
}


static void
ngx_s3_client_write(ngx_s3_client_t *cl)
{
    off_t              sent;
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = cl->sc->connection;

    rc = ngx_s3_client_send(cl, &sent);

    if (rc == NGX_ERROR
        || (rc == NGX_AGAIN && ngx_handle_write_event(c->write, 0) != NGX_OK))
    {
        ngx_s3_client_write_failed(cl);
        return;
    }

    if (rc == NGX_DECLINED) {
        ngx_s3_reason(cl->rq->reason, "request body is shorter than %O bytes",
                      cl->rq->body_size);
        ngx_s3_client_finish(cl, NGX_S3_E_INTERNAL);
        return;
    }

    if (rc == NGX_OK) {
        cl->written = 1;
        c->log->action = "reading an answer";

        if (c->write->timer_set) {
            ngx_del_timer(c->write);
        }

        ngx_s3_client_await(cl);
        return;
    }

    if (sent) {
        ngx_add_timer(c->write, cl->rq->endpoint->send_timeout);
    }

    if (c->write->ready) {

        /* others have their turn first; the queue of this iteration would
           come round to us at once */

        ngx_post_event(c->write, &ngx_posted_next_events);
    }
}


/* At most NGX_S3_CLIENT_SEND bytes. NGX_OK: the request is written; NGX_AGAIN:
   some is left; NGX_DECLINED: the body's chain is too short; NGX_ERROR. */

static ngx_int_t
ngx_s3_client_send(ngx_s3_client_t *cl, off_t *sent)
{
    off_t              n;
    ngx_chain_t       *chain, *rest, *ln;
    ngx_connection_t  *c;

    c = cl->sc->connection;
    *sent = 0;

    while (*sent < NGX_S3_CLIENT_SEND) {

        chain = ngx_s3_client_chain(cl, c->ssl != NULL);

        if (chain == NULL) {
            return cl->left ? NGX_DECLINED : NGX_OK;
        }

        rest = c->send_chain(c, chain, 0);

        if (rest == NGX_CHAIN_ERROR) {
            return NGX_ERROR;
        }

        n = 0;

        for (ln = chain; ln; ln = ln->next) {
            n += ln->buf->pos - ln->buf->start;
        }

        ngx_s3_client_advance(cl, n);
        *sent += n;

        if (rest) {
            return NGX_AGAIN;
        }

        if (cl->left == 0) {
            return NGX_OK;
        }
    }

    return NGX_AGAIN;
}


/*
 * Throw-away buffers over what comes next. Over TLS one buffer is one
 * SSL_write(), which has to be repeated with the same bytes until it is
 * accepted: from the same cursor the same slices are cut.
 */

static ngx_chain_t *
ngx_s3_client_chain(ngx_s3_client_t *cl, ngx_uint_t tls)
{
    off_t              left;
    size_t             size, room;
    u_char            *pos, *p;
    ngx_uint_t         n;
    ngx_str_t         *head;
    ngx_chain_t       *in;
    const size_t       slice = tls ? NGX_S3_CLIENT_TLS_SLICE
                                   : NGX_S3_CLIENT_SEND;

    n = 0;
    room = NGX_S3_CLIENT_SEND;
    head = &cl->rq->head;
    in = cl->cl;
    pos = cl->pos;
    left = cl->left;

    for ( ;; ) {

        if (n == 0 && cl->head_sent < head->len) {
            p = head->data + cl->head_sent;
            size = head->len - cl->head_sent;

        } else {

            while (in && pos == in->buf->last) {
                in = in->next;
                pos = in ? in->buf->pos : NULL;
            }

            if (in == NULL || left == 0) {
                break;
            }

            p = pos;
            size = in->buf->last - pos;
            size = (size_t) ngx_min((off_t) size, left);
            size = ngx_min(size, slice);

            pos += size;
            left -= size;
        }

        ngx_memzero(&cl->bufs[n], sizeof(ngx_buf_t));

        cl->bufs[n].start = p;
        cl->bufs[n].pos = p;
        cl->bufs[n].last = p + size;
        cl->bufs[n].end = p + size;
        cl->bufs[n].memory = 1;

        cl->links[n].buf = &cl->bufs[n];
        cl->links[n].next = NULL;

        if (n) {
            cl->links[n - 1].next = &cl->links[n];
        }

        n++;

        if (n == NGX_S3_CLIENT_BUFS || size >= room) {
            break;
        }

        room -= size;
    }

    return n ? cl->links : NULL;
}


static void
ngx_s3_client_advance(ngx_s3_client_t *cl, off_t n)
{
    size_t  size;

    size = cl->rq->head.len - cl->head_sent;
    size = (size_t) ngx_min((off_t) size, n);

    cl->head_sent += size;
    n -= size;

    cl->left -= n;
    cl->rq->sent += n;

    while (n) {
        size = cl->cl->buf->last - cl->pos;

        if (n < (off_t) size) {
            cl->pos += n;
            return;
        }

        n -= size;
        cl->cl = cl->cl->next;
        cl->pos = cl->cl ? cl->cl->buf->pos : NULL;
    }
}


/* an answer may have come before the connection broke */

static void
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

    if (rc == NGX_OK) {
        ngx_s3_client_answered(cl);
        return;
    }

    ngx_s3_client_lost(cl, rc);
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

    if (rc == NGX_OK) {
        ngx_s3_client_answered(cl);
        return;
    }

    if (rc != NGX_AGAIN || ngx_handle_read_event(c->read, 0) != NGX_OK) {
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


/* nothing more is sent: the answer has its time. It is the whole answer's, so
   that a byte now and then keeps nobody waiting for ever. */

static void
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
    ngx_msec_int_t  left;

    left = (ngx_msec_int_t) (cl->deadline - ngx_current_msec);
    left = ngx_max(left, 1);

    ngx_add_timer(cl->sc->connection->read,
                  ngx_min((ngx_msec_t) left, cl->read_timeout));
}


/* NGX_OK: the reply is whole; NGX_AGAIN; NGX_DONE: the peer closed; NGX_ERROR:
   the connection broke; NGX_DECLINED: not HTTP, or not ours to take */

static ngx_int_t
ngx_s3_client_recv(ngx_s3_client_t *cl, ngx_uint_t *progress)
{
    ssize_t            n;
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = cl->sc->connection;
    *progress = 0;

    for ( ;; ) {
        n = c->recv(c, cl->buf, NGX_S3_CLIENT_RECV);

        if (n == NGX_AGAIN) {
            return NGX_AGAIN;
        }

        if (n == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (n == 0) {
            return s3_http_eof(&cl->http) == S3_OK ? NGX_OK : NGX_DONE;
        }

        *progress = 1;
        cl->rq->answered = 1;

        rc = ngx_s3_client_feed(cl, (size_t) n);

        if (rc != NGX_AGAIN) {
            return rc;
        }
    }
}


static ngx_int_t
ngx_s3_client_feed(ngx_s3_client_t *cl, size_t n)
{
    size_t  used;

    switch (s3_http_feed(&cl->http, cl->buf, n, &used)) {

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
    size_t             size;
    u_char            *mem;
    ngx_str_t         *reply;
    ngx_s3_client_t   *cl;

    cl = data;
    reply = &cl->rq->reply;

    if (len > cl->max_reply - reply->len) {
        cl->too_large = 1;
        return S3_ERROR;
    }

    if (reply->len + len > cl->reply_size) {
        size = ngx_max(cl->reply_size, NGX_S3_CLIENT_REPLY_STEP / 2);

        do {
            size *= 2;
        } while (size < reply->len + len);

        mem = ngx_pnalloc(cl->rq->pool, size);
        if (mem == NULL) {
            cl->no_memory = 1;
            return S3_ERROR;
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

    return S3_OK;
}


static void
ngx_s3_client_leaving(ngx_s3_client_t *cl)
{
    ngx_s3_reason(cl->rq->reason, NGX_S3_LEAVING);
    ngx_s3_client_finish(cl, NGX_S3_E_CLOSED);
}


static void
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

static void
ngx_s3_client_finish(ngx_s3_client_t *cl, ngx_s3_error_e error)
{
    ngx_s3_conn_t     *sc;
    ngx_s3_request_t  *rq;

    rq = cl->rq;
    sc = cl->sc;

    if (cl->http.head_done) {
        rq->status = cl->http.status;
    }

    if (sc) {
        if (error == NGX_S3_E_NONE && cl->written && cl->http.keepalive) {
            ngx_s3_conn_keep(sc);

        } else {
            ngx_s3_conn_close(sc);
        }
    }

    ngx_log_debug3(NGX_LOG_DEBUG_EVENT, rq->log, 0,
                   "s3 request done, error:%ui status:%ui \"%s\"",
                   (ngx_uint_t) error, rq->status, rq->reason);

    ngx_free(cl);

    rq->state = NULL;
    rq->error = error;

    rq->handler(rq);
}


static ngx_str_t *
ngx_s3_client_host(ngx_s3_client_t *cl)
{
    return cl->rq->host.len ? &cl->rq->host : &cl->rq->endpoint->host;
}
