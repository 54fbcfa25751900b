#include "ngx_s3_client_state.h"


/* of a body that grows: smaller pieces cost more than they are worth */
#define NGX_S3_CLIENT_GATHER  (128 * 1024)


static void ngx_s3_client_write(ngx_s3_client_t *cl);
static ngx_int_t ngx_s3_client_send(ngx_s3_client_t *cl);
static ngx_chain_t *ngx_s3_client_chain(ngx_s3_client_t *cl);
static void ngx_s3_client_advance(ngx_s3_client_t *cl, off_t n);


void
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

        /* what TLS says by itself; whether it can is seen where one reads */

        if (c->buffered) {
            (void) c->send_chain(c, NULL, 0);
            (void) ngx_handle_write_event(c->write, 0);
        }

        return;
    }

    if (c->write->timedout) {
        ngx_s3_client_timeout(cl, NGX_S3_E_SEND_TIMEOUT);
        return;
    }

    ngx_s3_client_write(cl);
}


/* Nobody is told of an end from here: what goes wrong will go wrong again when
   the connection's handler goes on from the cursor, or was not for ever. */

void
ngx_s3_client_write_ahead(ngx_s3_client_t *cl)
{
    ngx_connection_t  *c;

    c = cl->sc->connection;

    if (!cl->sc->reused || cl->rq->growing || c->ssl || !c->write->ready
        || c->close)
    {
        return;
    }

    (void) ngx_s3_client_send(cl);
}


static void
ngx_s3_client_write(ngx_s3_client_t *cl)
{
    off_t              sent;
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = cl->sc->connection;
    sent = c->sent;

    cl->hungry = 0;

    rc = ngx_s3_client_send(cl);

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

    if (rc == NGX_BUSY) {
        cl->hungry = 1;

        if (c->write->timer_set) {
            ngx_del_timer(c->write);
        }

        return;
    }

    if (c->sent != sent || !c->write->timer_set) {
        ngx_add_timer(c->write, cl->rq->endpoint->send_timeout);
    }

    if (c->write->ready) {

        /* others have their turn first; the queue of this iteration would
           come round to us at once */

        ngx_post_event(c->write, &ngx_posted_next_events);
    }
}


/*
 * At most NGX_S3_CLIENT_TURN bytes. NGX_OK: the request is written; NGX_AGAIN:
 * some is left, or, over TLS, is encrypted and has to be written; NGX_BUSY: of
 * a body that grows nothing that is there; NGX_DECLINED: the body's chain is
 * too short; NGX_ERROR.
 */

static ngx_int_t
ngx_s3_client_send(ngx_s3_client_t *cl)
{
    off_t              n, taken;
    ngx_chain_t       *chain, *rest, *ln;
    ngx_connection_t  *c;

    c = cl->sc->connection;
    taken = 0;

    while (taken < NGX_S3_CLIENT_TURN) {

        chain = ngx_s3_client_chain(cl);

        if (chain == NULL && !c->buffered) {
            return cl->left == 0 ? NGX_OK
                   : cl->rq->growing ? NGX_BUSY : NGX_DECLINED;
        }

        rest = c->send_chain(c, chain, 0);

        /* also what went out before an error: S3 may have it */

        n = 0;

        for (ln = chain; ln; ln = ln->next) {
            n += ln->buf->pos - ln->buf->start;
        }

        ngx_s3_client_advance(cl, n);
        taken += n;

        if (rest == NGX_CHAIN_ERROR) {
            return NGX_ERROR;
        }

        if (rest || c->buffered) {
            return NGX_AGAIN;
        }

        if (cl->left == 0) {
            return NGX_OK;
        }
    }

    return NGX_AGAIN;
}


/* throw-away buffers over what comes next */

static ngx_chain_t *
ngx_s3_client_chain(ngx_s3_client_t *cl)
{
    off_t              left;
    size_t             size, room;
    u_char            *pos, *p;
    ngx_uint_t         n;
    ngx_str_t         *head;
    ngx_chain_t       *in;

    n = 0;
    room = NGX_S3_CLIENT_TURN;
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
            size = ngx_min(size, NGX_S3_CLIENT_TURN);

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

        /* the last buffer may be one that is still filled */

        if (n < (off_t) size || cl->cl->next == NULL) {
            cl->pos += n;
            return;
        }

        n -= size;
        cl->cl = cl->cl->next;
        cl->pos = cl->cl ? cl->cl->buf->pos : NULL;
    }
}


void
ngx_s3_request_more(ngx_s3_request_t *rq, off_t there)
{
    ngx_event_t      *wev;
    ngx_s3_client_t  *cl;

    if (there == rq->body_size) {
        rq->growing = 0;
    }

    cl = rq->state;

    if (cl == NULL || !cl->hungry || cl->stopped
        || (rq->growing && there - rq->sent < NGX_S3_CLIENT_GATHER))
    {
        return;
    }

    wev = cl->sc->connection->write;

    if (!wev->posted) {
        ngx_post_event(wev, &ngx_posted_events);
    }
}
