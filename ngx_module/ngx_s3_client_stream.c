/*
 * A body that is handed over. The parser tells of slices of what was read;
 * they are moved together in the buffer where the framing of chunks lay
 * between them, and all of a read goes to the caller at once, outside of the
 * parser. What the caller does not take stays, and as long as something does,
 * nothing is read: the peer is held back by TCP.
 */

#include "ngx_s3_client_state.h"


/* with less room it is not worth a read of its own */
#define NGX_S3_CLIENT_ROOM  16384

/* between two looks of a leaving worker; while paused */
#define NGX_S3_CLIENT_HOLD  60000    /* ms */


static void ngx_s3_client_room(ngx_s3_client_t *cl);
static ngx_int_t ngx_s3_client_pass(ngx_s3_client_t *cl);
static ngx_int_t ngx_s3_client_begin(ngx_s3_client_t *cl);
static ngx_int_t ngx_s3_client_part(ngx_s3_client_t *cl);
static ngx_int_t ngx_s3_client_append(ngx_s3_client_t *cl);
static ngx_int_t ngx_s3_client_refuse(ngx_s3_client_t *cl);
static void ngx_s3_client_pause(ngx_s3_client_t *cl);
static void ngx_s3_client_go_on(ngx_s3_client_t *cl);


void
ngx_s3_request_resume(ngx_s3_request_t *rq)
{
    ngx_s3_client_t  *cl;

    cl = rq->state;

    if (cl == NULL) {
        return;
    }

    if (cl->paused) {
        ngx_s3_client_go_on(cl);

    } else if (cl->busy) {
        cl->resumed = 1;
    }
}


ngx_int_t
ngx_s3_client_stream(ngx_s3_client_t *cl, ngx_uint_t *progress)
{
    size_t     n, size;
    ngx_int_t  rc;

    size = 0;

    if (cl->resumed) {
        cl->resumed = 0;
        *progress = 1;
    }

    for ( ;; ) {
        rc = ngx_s3_client_pass(cl);

        if (rc != NGX_OK) {
            return rc;
        }

        if (cl->end != NGX_AGAIN) {
            return cl->end;
        }

        if (size >= NGX_S3_CLIENT_TURN) {

            /* others have their turn first */

            ngx_post_event(cl->sc->connection->read,
                           &ngx_posted_next_events);
            return NGX_AGAIN;
        }

        ngx_s3_client_room(cl);

        cl->end = ngx_s3_client_take(cl, &n);

        if (cl->end == NGX_AGAIN && n == 0) {
            return NGX_AGAIN;
        }

        *progress = 1;
        size += n;
    }
}


/* where the next read goes: what is read in its place need not be copied */

static void
ngx_s3_client_room(ngx_s3_client_t *cl)
{
    u_char  *p;
    size_t   size;

    cl->to = cl->buf;
    cl->room = cl->size;

    if (cl->begun && !cl->kept && cl->rq->room) {
        size = cl->rq->room(cl->rq, &p);

        if (size >= NGX_S3_CLIENT_ROOM) {
            cl->to = p;
            cl->room = ngx_min(size, cl->size);
        }
    }

    cl->in.pos = cl->to;
    cl->in.last = cl->to;
}


int
ngx_s3_client_stream_body(void *data, const unsigned char *p, size_t len)
{
    ngx_s3_client_t  *cl;

    cl = data;

    if (cl->in.last != p) {
        ngx_memmove(cl->in.last, p, len);
    }

    cl->in.last += len;

    return S3_OK;
}


ngx_int_t
ngx_s3_client_stream_wait(ngx_s3_client_t *cl)
{
    ngx_event_t  *rev;

    rev = cl->sc->connection->read;

    if (rev->timedout) {
        rev->timedout = 0;
        ngx_add_timer(rev, NGX_S3_CLIENT_HOLD);
    }

    /* where events are told of again and again, this one is not any more */

    return ngx_handle_read_event(rev, 0);
}


/* NGX_OK: the caller has all that is there; NGX_BUSY: it waits; NGX_ABORT: it
   has cancelled, cl is gone; NGX_DECLINED; NGX_ERROR: no memory */

static ngx_int_t
ngx_s3_client_pass(ngx_s3_client_t *cl)
{
    ngx_int_t  rc;

    if (!cl->begun && cl->http.head_done) {
        rc = ngx_s3_client_begin(cl);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (cl->in.pos == cl->in.last) {
        return NGX_OK;
    }

    return cl->kept ? ngx_s3_client_append(cl) : ngx_s3_client_part(cl);
}


static ngx_int_t
ngx_s3_client_begin(ngx_s3_client_t *cl)
{
    ngx_int_t  rc;

    ngx_s3_client_head(cl);

    cl->begun = 1;
    cl->busy = 1;

    rc = cl->rq->begin(cl->rq);

    if (cl->gone) {
        ngx_s3_client_free(cl);
        return NGX_ABORT;
    }

    cl->busy = 0;

    switch (rc) {

    case NGX_OK:
        return NGX_OK;

    case NGX_DECLINED:
        cl->kept = 1;
        return NGX_OK;

    default:
        return ngx_s3_client_refuse(cl);
    }
}


static ngx_int_t
ngx_s3_client_part(ngx_s3_client_t *cl)
{
    ngx_int_t  rc;

    cl->busy = 1;
    cl->resumed = 0;

    rc = cl->rq->part(cl->rq, &cl->in);

    if (cl->gone) {
        ngx_s3_client_free(cl);
        return NGX_ABORT;
    }

    cl->busy = 0;

    if (rc == NGX_OK && cl->in.pos == cl->in.last) {
        return NGX_OK;
    }

    if (rc != NGX_AGAIN) {
        return ngx_s3_client_refuse(cl);
    }

    if (cl->to != cl->buf) {

        /* the caller's memory is its own again */

        cl->in.last = ngx_movemem(cl->buf, cl->in.pos,
                                  cl->in.last - cl->in.pos);
        cl->in.pos = cl->buf;
        cl->to = cl->buf;
        cl->room = cl->size;
    }

    ngx_s3_client_pause(cl);

    if (cl->resumed) {
        ngx_s3_client_go_on(cl);
    }

    return NGX_BUSY;
}


/* a reply that others have as well: but what is too much of it is nobody's
   loss, and is not waited for */

static ngx_int_t
ngx_s3_client_append(ngx_s3_client_t *cl)
{
    size_t  len, room;

    len = cl->in.last - cl->in.pos;
    room = cl->max_reply - cl->rq->reply.len;

    if (ngx_s3_client_keep(cl, cl->in.pos, ngx_min(len, room)) != NGX_OK) {
        return NGX_ERROR;
    }

    cl->in.pos = cl->in.last;

    if (len > room) {
        cl->http.keepalive = 0;
        cl->end = NGX_OK;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_s3_client_refuse(ngx_s3_client_t *cl)
{
    cl->refused = 1;

    return NGX_DECLINED;
}


/* The timer is no time-out: a leaving worker goes when it has none, and the
   body is still wanted. */

static void
ngx_s3_client_pause(ngx_s3_client_t *cl)
{
    ngx_event_t  *rev;

    rev = cl->sc->connection->read;

    cl->paused = 1;

    if (rev->timer_set) {
        ngx_del_timer(rev);
    }

    ngx_add_timer(rev, NGX_S3_CLIENT_HOLD);
}


/* whatever the events have told of meanwhile is gone: it is read anew */

static void
ngx_s3_client_go_on(ngx_s3_client_t *cl)
{
    ngx_event_t  *rev;

    rev = cl->sc->connection->read;

    cl->paused = 0;
    cl->resumed = 1;

    if (rev->timer_set) {
        ngx_del_timer(rev);
    }

    rev->timedout = 0;

    ngx_post_event(rev, &ngx_posted_events);
}
