#include "ngx_s3_conn_link.h"


static ngx_s3_link_t *ngx_s3_link_create(ngx_s3_endpoint_t *endpoint,
    ngx_str_t *host, ngx_log_t *log);
static ngx_int_t ngx_s3_link_resolve(ngx_s3_link_t *link);
static void ngx_s3_link_resolved(ngx_s3_resolve_t *rs, ngx_int_t rc);
static ngx_int_t ngx_s3_link_allow(ngx_s3_link_t *link);
static void ngx_s3_link_order(ngx_s3_link_t *link);
static void ngx_s3_link_connect(ngx_s3_link_t *link);
static ngx_int_t ngx_s3_link_connect_next(ngx_s3_link_t *link);
static ngx_err_t ngx_s3_link_family(struct sockaddr *sa);
static void ngx_s3_link_declined(ngx_s3_link_t *link, ngx_err_t err);
static ngx_int_t ngx_s3_link_prepare(ngx_s3_link_t *link, ngx_connection_t *c);
static void ngx_s3_link_connect_handler(ngx_event_t *ev);
static ngx_err_t ngx_s3_link_test(ngx_connection_t *c);
static void ngx_s3_link_try_next(ngx_s3_link_t *link, ngx_s3_error_e error);
static void ngx_s3_link_connected(ngx_s3_link_t *link);
static void ngx_s3_link_shaken(ngx_s3_tls_t *tls, ngx_s3_error_e error);
static void ngx_s3_link_done(ngx_s3_link_t *link, ngx_s3_error_e error);
static void ngx_s3_link_done_handler(ngx_event_t *ev);
static void ngx_s3_link_disconnect(ngx_s3_link_t *link);


ngx_s3_conn_t *
ngx_s3_conn_open(ngx_s3_endpoint_t *endpoint, ngx_str_t *host,
    ngx_uint_t fresh, ngx_log_t *log, ngx_s3_conn_pt handler, void *data)
{
    ngx_int_t       rc;
    ngx_s3_link_t  *link;

    if (host == NULL || host->len == 0) {
        host = &endpoint->host;
    }

    link = fresh ? NULL : ngx_s3_link_take(endpoint, host, log);

    if (link) {
        link->handler = handler;
        link->sc.data = data;

        /* never in vain: who reuses was woken by some event */
        ngx_post_event(&link->event, &ngx_posted_events);

        return &link->sc;
    }

    link = ngx_s3_link_create(endpoint, host, log);
    if (link == NULL) {
        return NULL;
    }

    link->handler = handler;
    link->sc.data = data;
    link->in_open = 1;

    rc = ngx_s3_link_resolve(link);

    if (rc == NGX_OK) {
        ngx_s3_link_connect(link);

    } else if (rc != NGX_AGAIN) {
        ngx_s3_link_resolved(&link->resolve, rc);
    }

    link->in_open = 0;

    return &link->sc;
}


static ngx_s3_link_t *
ngx_s3_link_create(ngx_s3_endpoint_t *endpoint, ngx_str_t *host,
    ngx_log_t *log)
{
    ngx_pool_t     *pool;
    ngx_s3_link_t  *link;

    /* the pool's own log is not the caller's, whose life is shorter */

    pool = ngx_create_pool(2 * 1024, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    link = ngx_pcalloc(pool, sizeof(ngx_s3_link_t));
    if (link == NULL) {
        goto failed;
    }

    link->host.len = host->len;
    link->host.data = ngx_pnalloc(pool, host->len + 1);
    if (link->host.data == NULL) {
        goto failed;
    }

    ngx_strlow(link->host.data, host->data, host->len);
    link->host.data[host->len] = '\0';

    link->pool = pool;
    link->log = log;
    link->sc.endpoint = endpoint;

    link->event.data = link;
    link->event.handler = ngx_s3_link_done_handler;
    link->event.log = ngx_cycle->log;

    return link;

failed:

    ngx_destroy_pool(pool);

    return NULL;
}


static ngx_int_t
ngx_s3_link_resolve(ngx_s3_link_t *link)
{
    ngx_s3_resolve_t         *rs;
    ngx_s3_endpoint_t        *ep;
    ngx_s3_endpoint_state_t  *state;

    ep = link->sc.endpoint;
    state = ep->state;
    rs = &link->resolve;

    if (ep->sockaddr) {
        link->unix_addr.sockaddr = ep->sockaddr;
        link->unix_addr.socklen = ep->socklen;
        link->unix_addr.name = ep->name;

        link->addrs = &link->unix_addr;
        link->naddrs = 1;

        return NGX_OK;
    }

    link->state = NGX_S3_CONN_RESOLVING;
    link->log->action = "resolving a name";

    rs->name = link->host;
    rs->port = ep->port;
    rs->names = state ? state->names : NULL;
    rs->resolver = ep->resolver;
    rs->timeout = ep->resolver_timeout;
    rs->pool = link->pool;
    rs->handler = ngx_s3_link_resolved;
    rs->data = link;

    return ngx_s3_resolve_start(rs);
}


static void
ngx_s3_link_resolved(ngx_s3_resolve_t *rs, ngx_int_t rc)
{
    ngx_s3_link_t  *link;

    link = rs->data;

    if (rc == NGX_OK) {
        ngx_s3_link_connect(link);
        return;
    }

    if (rc == NGX_DECLINED) {
        ngx_memcpy(link->sc.reason, rs->reason, NGX_S3_REASON);
        ngx_s3_link_done(link, NGX_S3_E_RESOLVE);
        return;
    }

    ngx_s3_reason(link->sc.reason, "no memory to resolve \"%V\"",
                  &link->host);
    ngx_s3_link_done(link, NGX_S3_E_INTERNAL);
}


static void
ngx_s3_link_connect(ngx_s3_link_t *link)
{
    ngx_int_t  rc;

    link->state = NGX_S3_CONN_CONNECTING;
    link->log->action = "connecting";

    if (link->next == 0) {

        if (ngx_s3_link_allow(link) != NGX_OK) {
            ngx_s3_link_done(link, NGX_S3_E_REFUSED);
            return;
        }

        ngx_s3_link_order(link);
    }

    do {
        rc = ngx_s3_link_connect_next(link);
    } while (rc == NGX_DECLINED && link->next < link->naddrs);

    switch (rc) {

    case NGX_OK:
        ngx_s3_link_connected(link);
        return;

    case NGX_AGAIN:
        return;

    case NGX_DECLINED:
        ngx_s3_link_done(link, NGX_S3_E_CONNECT);
        return;

    default:
        ngx_s3_link_done(link, NGX_S3_E_INTERNAL);
    }
}


/* Leaves the addresses that may be connected to. What is judged is what is
   then connected to: the name is not resolved again. NGX_DECLINED: there are
   none, the reason is the last one's. */

static ngx_int_t
ngx_s3_link_allow(ngx_s3_link_t *link)
{
    ngx_uint_t          i, n;
    ngx_addr_t         *addr;
    ngx_s3_endpoint_t  *ep;

    ep = link->sc.endpoint;

    if (!ep->sockaddr) {
        link->addrs = link->resolve.addrs;
        link->naddrs = link->resolve.naddrs;
    }

    if (ep->allow == NULL) {
        return NGX_OK;
    }

    n = 0;

    for (i = 0; i < link->naddrs; i++) {
        addr = &link->addrs[i];

        ngx_s3_reason(link->sc.reason, "address %V of \"%V\" is refused",
                      &addr->name, &link->host);

        if (ep->allow(ep, addr->sockaddr, link->sc.reason) == NGX_OK) {
            link->addrs[n++] = *addr;
        }
    }

    link->naddrs = n;

    return n ? NGX_OK : NGX_DECLINED;
}


/* nginx's resolver begins with an address by chance, which may be the one that
   has just failed, again and again */

static void
ngx_s3_link_order(ngx_s3_link_t *link)
{
    ngx_s3_endpoint_state_t  *state;

    state = link->sc.endpoint->state;

    if (state) {
        ngx_s3_shun_order(&state->shun, link->addrs, link->naddrs);
    }
}


void
ngx_s3_conn_shun(ngx_s3_conn_t *sc)
{
    ngx_s3_link_t            *link;
    ngx_s3_endpoint_state_t  *state;

    link = (ngx_s3_link_t *) sc;
    state = sc->endpoint->state;

    if (state && link->next) {
        ngx_s3_shun(&state->shun, &link->addrs[link->next - 1]);
    }
}


/* NGX_OK: connected; NGX_AGAIN: a handler follows; NGX_DECLINED: this address
   does not answer; NGX_ERROR */

static ngx_int_t
ngx_s3_link_connect_next(ngx_s3_link_t *link)
{
    ngx_int_t               rc;
    ngx_err_t               err;
    ngx_addr_t             *addr;
    ngx_s3_catcher_t        quiet;
    ngx_peer_connection_t   pc;

    addr = &link->addrs[link->next++];

    err = ngx_s3_link_family(addr->sockaddr);

    if (err) {
        ngx_s3_link_declined(link, err);
        return NGX_DECLINED;
    }

    /* nginx logs an address that refuses at once as an error, but here it is
       one only if none is left, and then the caller's */

    ngx_s3_catcher_init(&quiet, link->log, NULL);

    ngx_memzero(&pc, sizeof(ngx_peer_connection_t));

    pc.sockaddr = addr->sockaddr;
    pc.socklen = addr->socklen;
    pc.name = &addr->name;
    pc.get = ngx_event_get_peer;
    pc.log = &quiet.log;
    pc.log_error = NGX_ERROR_INFO;

    ngx_set_socket_errno(0);

    rc = ngx_event_connect_peer(&pc);

    if (rc == NGX_DECLINED) {
        ngx_s3_link_declined(link, ngx_socket_errno);
        return NGX_DECLINED;
    }

    if (rc != NGX_OK && rc != NGX_AGAIN) {
        ngx_s3_reason(link->sc.reason, "no socket to connect to %V",
                      &addr->name);
        return NGX_ERROR;
    }

    if (ngx_s3_link_prepare(link, pc.connection) != NGX_OK) {
        ngx_s3_reason(link->sc.reason, "could not set up the connection to %V",
                      &addr->name);
        ngx_s3_link_disconnect(link);
        return NGX_ERROR;
    }

    if (rc == NGX_AGAIN) {
        ngx_add_timer(pc.connection->write,
                      link->sc.endpoint->connect_timeout);
    }

    return rc;
}


/* A kernel may be told to have no IPv6, and names have such addresses all the
   same: nginx would raise an alert and try no other. 0: it has the family. */

static ngx_err_t
ngx_s3_link_family(struct sockaddr *sa)
{
#if (NGX_HAVE_INET6)

    ngx_err_t          err;
    ngx_socket_t       s;
    static ngx_uint_t  had;

    if (sa->sa_family != AF_INET6 || had) {
        return 0;
    }

    s = ngx_socket(AF_INET6, SOCK_STREAM, 0);

    if (s == (ngx_socket_t) -1) {
        err = ngx_socket_errno;
        return (err == EAFNOSUPPORT) ? err : 0;
    }

    (void) ngx_close_socket(s);

    had = 1;

#endif

    return 0;
}


static void
ngx_s3_link_declined(ngx_s3_link_t *link, ngx_err_t err)
{
    u_char  text[NGX_S3_REASON], *p;

    p = ngx_strerror(err, text, sizeof(text) - 1);
    *p = '\0';

    ngx_s3_reason(link->sc.reason, "connect to %V of \"%V\" failed (%d: %s)",
                  &link->addrs[link->next - 1].name, &link->host, err, text);

    ngx_s3_conn_shun(&link->sc);

    if (err != EAFNOSUPPORT) {
        link->passing = NGX_S3_E_CONNECT;
    }

    if (link->next < link->naddrs) {
        ngx_log_error(NGX_LOG_WARN, link->log, 0,
                      "%s, trying another address", link->sc.reason);
    }
}


static ngx_int_t
ngx_s3_link_prepare(ngx_s3_link_t *link, ngx_connection_t *c)
{
    link->sc.connection = c;

    c->data = link;
    c->pool = link->pool;
    c->requests++;

    c->read->handler = ngx_s3_link_connect_handler;
    c->write->handler = ngx_s3_link_connect_handler;

    ngx_s3_link_set_log(link, link->log);

    if (link->sc.endpoint->sockaddr) {
        return NGX_OK;
    }

    return ngx_tcp_nodelay(c);
}


static void
ngx_s3_link_connect_handler(ngx_event_t *ev)
{
    u_char             text[NGX_S3_REASON], *p;
    ngx_err_t          err;
    ngx_addr_t        *addr;
    ngx_s3_link_t     *link;
    ngx_connection_t  *c;

    c = ev->data;
    link = c->data;

    if (c->close) {
        ngx_s3_reason(link->sc.reason, NGX_S3_LEAVING);
        ngx_s3_link_done(link, NGX_S3_E_CLOSED);
        return;
    }

    addr = &link->addrs[link->next - 1];

    if (c->write->timedout) {
        ngx_s3_reason(link->sc.reason, "connect to %V of \"%V\" timed out",
                      &addr->name, &link->host);
        ngx_s3_link_try_next(link, NGX_S3_E_CONNECT_TIMEOUT);
        return;
    }

    err = ngx_s3_link_test(c);

    if (err) {
        p = ngx_strerror(err, text, sizeof(text) - 1);
        *p = '\0';

        ngx_s3_reason(link->sc.reason, "connect to %V of \"%V\" failed (%d: "
                      "%s)", &addr->name, &link->host, err, text);
        ngx_s3_link_try_next(link, NGX_S3_E_CONNECT);
        return;
    }

    ngx_s3_link_connected(link);
}


static ngx_err_t
ngx_s3_link_test(ngx_connection_t *c)
{
    int        err;
    socklen_t  len;

    err = 0;
    len = sizeof(int);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &len) == -1) {
        return ngx_socket_errno;
    }

    return err;
}


static void
ngx_s3_link_try_next(ngx_s3_link_t *link, ngx_s3_error_e error)
{
    ngx_s3_conn_shun(&link->sc);

    if (error != NGX_S3_E_CERTIFICATE) {
        link->passing = error;
    }

    if (link->next == link->naddrs) {

        /* one of the others may soon be there again */

        ngx_s3_link_done(link, link->passing ? link->passing : error);
        return;
    }

    ngx_log_error(NGX_LOG_WARN, link->log, 0, "%s, trying another address",
                  link->sc.reason);

    ngx_s3_link_disconnect(link);
    ngx_s3_link_connect(link);
}


static void
ngx_s3_link_connected(ngx_s3_link_t *link)
{
    ngx_int_t          rc;
    ngx_s3_tls_t      *tls;
    ngx_s3_error_e     error;
    ngx_connection_t  *c;

    c = link->sc.connection;

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    if (!link->sc.endpoint->tls) {
        ngx_s3_link_done(link, NGX_S3_E_NONE);
        return;
    }

    link->state = NGX_S3_CONN_SHAKING;
    link->log->action = "SSL handshaking";

    tls = &link->tls;

    ngx_memzero(tls, sizeof(ngx_s3_tls_t));

    tls->connection = c;
    tls->endpoint = link->sc.endpoint;
    tls->host = link->host;
    tls->log = link->log;
    tls->reason = link->sc.reason;
    tls->handler = ngx_s3_link_shaken;

    rc = ngx_s3_tls_start(tls, &error);

    if (rc != NGX_AGAIN) {
        ngx_s3_link_shaken(tls, error);
    }
}


static void
ngx_s3_link_shaken(ngx_s3_tls_t *tls, ngx_s3_error_e error)
{
    ngx_s3_link_t  *link;

    link = tls->connection->data;

    /* another server may be in better health, and have a certificate of its
       own: nothing was sent to this one */

    if (error == NGX_S3_E_CONNECT_TIMEOUT
        || error == NGX_S3_E_TLS
        || error == NGX_S3_E_CERTIFICATE)
    {
        ngx_s3_link_try_next(link, error);
        return;
    }

    ngx_s3_link_done(link, error);
}


ngx_s3_tls_t *
ngx_s3_conn_tls(ngx_connection_t *c)
{
    ngx_s3_link_t  *link;

    link = c->data;

    return &link->tls;
}


static void
ngx_s3_link_done(ngx_s3_link_t *link, ngx_s3_error_e error)
{
    ngx_connection_t  *c;

    link->sc.error = error;

    if (error == NGX_S3_E_NONE) {
        c = link->sc.connection;
        c->read->handler = ngx_s3_link_read_handler;
        c->write->handler = ngx_s3_link_write_handler;

        link->state = NGX_S3_CONN_OPENED;
        link->sc.reason[0] = '\0';

    } else {
        link->state = NGX_S3_CONN_FAILED;
        ngx_s3_link_disconnect(link);
    }

    ngx_log_debug2(NGX_LOG_DEBUG_EVENT, link->log, 0,
                   "s3 connection to \"%V\" done, error:%ui", &link->host,
                   (ngx_uint_t) error);

    if (link->in_open) {

        /* at a worker's start no event may come for long, and posted events
           wait for one; these make the next wait a short one */

        ngx_post_event(&link->event, &ngx_posted_next_events);
        return;
    }

    link->handler(&link->sc);
}


static void
ngx_s3_link_done_handler(ngx_event_t *ev)
{
    ngx_s3_link_t  *link;

    link = ev->data;

    link->handler(&link->sc);
}


void
ngx_s3_link_read_handler(ngx_event_t *rev)
{
    ngx_s3_link_t     *link;
    ngx_connection_t  *c;

    c = rev->data;
    link = c->data;

    if (link->sc.read) {
        link->sc.read(&link->sc);
    }
}


void
ngx_s3_link_write_handler(ngx_event_t *wev)
{
    ngx_s3_link_t     *link;
    ngx_connection_t  *c;

    c = wev->data;
    link = c->data;

    /* where events are told of again and again (poll, select), whoever has more
       to write asks for the next one */

    (void) ngx_handle_write_event(wev, 0);

    if (link->sc.write) {
        link->sc.write(&link->sc);
    }
}


void
ngx_s3_conn_close(ngx_s3_conn_t *sc)
{
    ngx_s3_link_free((ngx_s3_link_t *) sc);
}


static void
ngx_s3_link_disconnect(ngx_s3_link_t *link)
{
    ngx_connection_t  *c;

    c = link->sc.connection;

    if (c == NULL) {
        return;
    }

    link->sc.connection = NULL;

    ngx_s3_tls_close(c);

    c->pool = NULL;
    ngx_close_connection(c);
}


void
ngx_s3_link_free(ngx_s3_link_t *link)
{
    if (link->event.posted) {
        ngx_delete_posted_event(&link->event);
    }

    ngx_s3_resolve_cancel(&link->resolve);
    ngx_s3_link_disconnect(link);

    ngx_destroy_pool(link->pool);
}


void
ngx_s3_link_set_log(ngx_s3_link_t *link, ngx_log_t *log)
{
    ngx_connection_t  *c;

    c = link->sc.connection;

    link->log = log;
    link->tls.log = log;

    c->log = log;
    c->read->log = log;
    c->write->log = log;
}
