/*
 * A client that left while its response is stored: the upstream reads on only
 * when it is told that what it passed on was sent.
 */

#include "ngx_http_s3_transfer_module.h"


static ngx_uint_t ngx_http_s3_tee_queued(ngx_http_request_t *r);
#if (NGX_HTTP_V2)
static void ngx_http_s3_tee_reading(ngx_http_request_t *r);
#endif


ngx_int_t
ngx_http_s3_tee_watch(ngx_http_request_t *r)
{
    if (r->stream == NULL) {
        return NGX_OK;
    }

#if (NGX_HTTP_V2)

    if (r->read_event_handler == ngx_http_block_reading) {
        r->read_event_handler = ngx_http_s3_tee_reading;
    }

    return NGX_OK;

#else

    return NGX_DECLINED;

#endif
}


#if (NGX_HTTP_V2)

/* Of a stream that is gone HTTP/2 tells with a read event alone, while the
   upstream waits until what was sent can be written. */

static void
ngx_http_s3_tee_reading(ngx_http_request_t *r)
{
    ngx_event_t  *wev;

    ngx_http_block_reading(r);

    if (r->connection->error) {
        wev = r->connection->write;
        wev->active = 0;
        wev->ready = 1;

        ngx_post_event(wev, &ngx_posted_events);
    }
}

#endif


/* worker_shutdown_timeout closes connections. A stream of HTTP/2 ends as if its
   client had left, or has nobody to tell it where that has: the upstream's
   connection knows. */

ngx_uint_t
ngx_http_s3_tee_leaving(ngx_http_request_t *r)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    return u && u->peer.connection && u->peer.connection->close;
}


/* Filters and connections below keep what they could not send; the upstream
   waits for it, and when nobody sends it any more it has to be said that it is
   gone. */

ngx_int_t
ngx_http_s3_tee_remember(ngx_http_request_t *r, ngx_http_s3_tee_t *tee,
    ngx_chain_t *out)
{
    ngx_chain_t  *cl;

    for ( /* void */ ; out; out = out->next) {

        if (ngx_buf_size(out->buf) == 0) {
            continue;
        }

        cl = ngx_alloc_chain_link(r->pool);
        if (cl == NULL) {
            return NGX_ERROR;
        }

        cl->buf = out->buf;
        cl->next = tee->passed;
        tee->passed = cl;
    }

    return NGX_OK;
}


void
ngx_http_s3_tee_settle(ngx_http_request_t *r, ngx_http_s3_tee_t *tee)
{
    ngx_uint_t    useless;
    ngx_chain_t  *cl, **ll;

    if (tee->deaf && tee->passed && !ngx_http_s3_tee_queued(r)) {
        ngx_http_s3_tee_swallow(tee->passed);
    }

    useless = (!tee->deaf && tee->state != NGX_HTTP_S3_TEE_CAPTURING);

    for (ll = &tee->passed; *ll; /* void */) {
        cl = *ll;

        if (ngx_buf_size(cl->buf) && !useless) {
            ll = &cl->next;
            continue;
        }

        *ll = cl->next;
        ngx_free_chain(r->pool, cl);
    }
}


/*
 * Frames in the queue of an HTTP/2 connection have a length in their heads, and
 * point to the buffers: when one of a stream that was reset stands half sent in
 * front of other streams, all of it has to follow. Each frame that leaves the
 * queue posts the stream's write event, and so does the end of the connection.
 */

static ngx_uint_t
ngx_http_s3_tee_queued(ngx_http_request_t *r)
{
#if (NGX_HTTP_V2)
    return r->stream && r->stream->queued;
#else
    return 0;
#endif
}


void
ngx_http_s3_tee_swallow(ngx_chain_t *cl)
{
    for ( /* void */ ; cl; cl = cl->next) {
        cl->buf->pos = cl->buf->last;
        cl->buf->file_pos = cl->buf->file_last;
    }
}
