#include "ngx_s3_conn_link.h"


/* ms; one that is taken sooner is taken on trust: what it does not carry is
   sent again over a fresh one, as it is where its end comes a moment later */
#define NGX_S3_CONN_LOOK  1000


static ngx_queue_t *ngx_s3_endpoint_idle(ngx_s3_endpoint_t *endpoint);
static ngx_uint_t ngx_s3_link_alive(ngx_s3_link_t *link);
static void ngx_s3_link_idle_handler(ngx_event_t *ev);
static void ngx_s3_link_dummy_handler(ngx_event_t *ev);
static void ngx_s3_link_drop(ngx_s3_link_t *link);


void
ngx_s3_endpoint_close_idle(ngx_s3_endpoint_t *endpoint)
{
    ngx_queue_t    *idle;
    ngx_s3_link_t  *link;

    idle = ngx_s3_endpoint_idle(endpoint);

    while (!ngx_queue_empty(idle)) {
        link = ngx_queue_data(ngx_queue_head(idle), ngx_s3_link_t, queue);
        ngx_s3_link_drop(link);
    }

    ngx_s3_tls_forget(endpoint);
}


static ngx_queue_t *
ngx_s3_endpoint_idle(ngx_s3_endpoint_t *endpoint)
{
    if (endpoint->idle.next == NULL) {
        ngx_queue_init(&endpoint->idle);
    }

    return &endpoint->idle;
}


void
ngx_s3_conn_keep(ngx_s3_conn_t *sc)
{
    ngx_queue_t        *idle;
    ngx_s3_link_t      *link, *oldest;
    ngx_connection_t   *c;
    ngx_s3_endpoint_t  *ep;

    link = (ngx_s3_link_t *) sc;
    c = sc->connection;
    ep = sc->endpoint;

    if (link->state != NGX_S3_CONN_OPENED
        || ep->keepalive == 0
        || ep->keepalive_timeout == 0
        || ngx_terminate
        || ngx_exiting
        || c->close
        || c->error
        || c->buffered
        || c->read->eof
        || c->read->error
        || c->read->timedout
        || c->write->error
        || c->write->timedout
        || ngx_handle_read_event(c->read, 0) != NGX_OK)
    {
        ngx_s3_link_free(link);
        return;
    }

    idle = ngx_s3_endpoint_idle(ep);

    if (ep->nidle >= ep->keepalive) {
        oldest = ngx_queue_data(ngx_queue_last(idle), ngx_s3_link_t, queue);
        ngx_s3_link_drop(oldest);
    }

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    if (c->write->posted) {
        ngx_delete_posted_event(c->write);
    }

    if (c->read->posted) {
        ngx_delete_posted_event(c->read);
    }

    ngx_add_timer(c->read, ep->keepalive_timeout);

    c->read->handler = ngx_s3_link_idle_handler;
    c->write->handler = ngx_s3_link_dummy_handler;
    c->idle = 1;

    sc->read = NULL;
    sc->write = NULL;
    sc->data = NULL;
    link->handler = NULL;
    link->state = NGX_S3_CONN_IDLE;
    link->idle_since = ngx_current_msec;

    ngx_s3_link_set_log(link, ngx_cycle->log);

    ngx_queue_insert_head(idle, &link->queue);
    ep->nidle++;

    if (c->read->ready) {
        ngx_s3_link_idle_handler(c->read);
    }
}


/* last kept, first taken: the others may grow old and go */

ngx_s3_link_t *
ngx_s3_link_take(ngx_s3_endpoint_t *endpoint, ngx_str_t *host, ngx_log_t *log)
{
    ngx_queue_t       *q, *next, *idle;
    ngx_s3_link_t     *link;
    ngx_connection_t  *c;

    idle = ngx_s3_endpoint_idle(endpoint);

    for (q = ngx_queue_head(idle); q != ngx_queue_sentinel(idle); q = next) {
        next = ngx_queue_next(q);
        link = ngx_queue_data(q, ngx_s3_link_t, queue);

        if (link->host.len != host->len
            || ngx_strncasecmp(link->host.data, host->data, host->len) != 0)
        {
            continue;
        }

        /* its end may have come in this round of events, which is worth a
           system call only where servers end what is idle */

        if ((link->sc.connection->read->ready
             || ngx_current_msec - link->idle_since >= NGX_S3_CONN_LOOK)
            && !ngx_s3_link_alive(link))
        {
            ngx_s3_link_drop(link);
            continue;
        }

        ngx_queue_remove(&link->queue);
        endpoint->nidle--;

        c = link->sc.connection;

        if (c->read->timer_set) {
            ngx_del_timer(c->read);
        }

        c->idle = 0;
        c->sent = 0;
        c->requests++;
        c->read->handler = ngx_s3_link_read_handler;
        c->write->handler = ngx_s3_link_write_handler;

        ngx_s3_link_set_log(link, log);

        link->state = NGX_S3_CONN_OPENED;
        link->sc.reused = 1;

        return link;
    }

    return NULL;
}


/*
 * Nothing to read: alive. Over TLS what is there may be a session ticket or a
 * new key, which c->recv() takes away and then says NGX_AGAIN.
 */

static ngx_uint_t
ngx_s3_link_alive(ngx_s3_link_t *link)
{
    int                n;
    u_char             buf[1];
    ngx_connection_t  *c;

    c = link->sc.connection;

    n = recv(c->fd, buf, 1, MSG_PEEK);

    if (n == -1 && ngx_socket_errno == NGX_EAGAIN && c->ssl == NULL) {
        c->read->ready = 0;
        return 1;
    }

    if (n == 0 || c->ssl == NULL) {
        return 0;
    }

    c->read->ready = 1;

    return c->recv(c, buf, 1) == NGX_AGAIN;
}


static void
ngx_s3_link_idle_handler(ngx_event_t *ev)
{
    ngx_s3_link_t     *link;
    ngx_connection_t  *c;

    c = ev->data;
    link = c->data;

    if (c->close
        || c->read->timedout
        || !ngx_s3_link_alive(link)
        || ngx_handle_read_event(c->read, 0) != NGX_OK)
    {
        ngx_s3_link_drop(link);
    }
}


static void
ngx_s3_link_dummy_handler(ngx_event_t *ev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_EVENT, ev->log, 0,
                   "s3 idle connection dummy handler");

    (void) ngx_handle_write_event(ev, 0);
}


/* ends an idle one */

static void
ngx_s3_link_drop(ngx_s3_link_t *link)
{
    ngx_queue_remove(&link->queue);
    link->sc.endpoint->nidle--;

    ngx_s3_link_free(link);
}
