#include "ngx_s3_tls.h"

#include <openssl/x509v3.h>


#define NGX_S3_TLS_SESSIONS  32      /* hosts of an endpoint */


/* A session to resume, of one host and port: the endpoints that are derived
   from one share them. The worker's memory: a derived endpoint's is gone before
   its sessions are. */

typedef struct {
    ngx_queue_t         queue;
    ngx_ssl_session_t  *session;
    in_port_t           port;
    size_t              len;
    u_char              host[1];
} ngx_s3_tls_session_t;


static ngx_int_t ngx_s3_tls_name(ngx_s3_tls_t *tls);
static void ngx_s3_tls_handler(ngx_event_t *ev);
static ngx_int_t ngx_s3_tls_handshake(ngx_s3_tls_t *tls,
    ngx_s3_error_e *error);
static ngx_int_t ngx_s3_tls_done(ngx_s3_tls_t *tls, ngx_int_t rc,
    ngx_s3_error_e *error);
static ngx_int_t ngx_s3_tls_verify(ngx_s3_tls_t *tls);
static ngx_int_t ngx_s3_tls_check_literal(ngx_s3_tls_t *tls);

static void ngx_s3_tls_catch(ngx_s3_tls_t *tls);
static void ngx_s3_tls_release(ngx_s3_tls_t *tls);

static void ngx_s3_tls_save(ngx_connection_t *c);
static ngx_s3_tls_session_t *ngx_s3_tls_find(ngx_s3_endpoint_t *endpoint,
    ngx_str_t *host);
static void ngx_s3_tls_free(ngx_queue_t *q);
static void ngx_s3_tls_drop(ngx_s3_tls_t *tls);
static ngx_queue_t *ngx_s3_tls_sessions(ngx_s3_endpoint_t *endpoint);


ngx_int_t
ngx_s3_tls_start(ngx_s3_tls_t *tls, ngx_s3_error_e *error)
{
    ngx_connection_t      *c;
    ngx_s3_endpoint_t     *ep;
    ngx_s3_tls_session_t  *s;

    c = tls->connection;
    ep = tls->endpoint;

    *error = NGX_S3_E_INTERNAL;
    tls->reason[0] = '\0';

    if (ngx_ssl_create_connection(ep->ssl, c, NGX_SSL_CLIENT) != NGX_OK
        || ngx_s3_tls_name(tls) != NGX_OK)
    {
        ngx_s3_reason(tls->reason, "no TLS connection to \"%V\" could be made",
                      &tls->host);
        return NGX_ERROR;
    }

    if (ep->ssl_session_reuse) {
        s = ngx_s3_tls_find(ep, &tls->host);

        if (s) {
            (void) ngx_ssl_set_session(c, s->session);
        }
    }

    ngx_add_timer(c->write, ep->connect_timeout);

    return ngx_s3_tls_handshake(tls, error);
}


/* SNI has no literals (RFC 6066, 3), and no port */

static ngx_int_t
ngx_s3_tls_name(ngx_s3_tls_t *tls)
{
    u_char          *p;
    ngx_str_t       *name;
    ngx_sockaddr_t   sa;

    name = tls->endpoint->ssl_name.len ? &tls->endpoint->ssl_name : &tls->host;

    p = ngx_pnalloc(tls->connection->pool, name->len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_cpystrn(p, name->data, name->len + 1);

    tls->name.len = name->len;
    tls->name.data = p;
    tls->literal = ngx_s3_literal(&tls->name, &sa) != 0;

    if (tls->literal) {
        return NGX_OK;
    }

    if (SSL_set_tlsext_host_name(tls->connection->ssl->connection, (char *) p)
        == 0)
    {
        ngx_ssl_error(NGX_LOG_ERR, tls->log, 0,
                      "SSL_set_tlsext_host_name(\"%s\") failed", p);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_s3_tls_handler(ngx_event_t *ev)
{
    ngx_s3_tls_t      *tls;
    ngx_s3_error_e     error;
    ngx_connection_t  *c;

    c = ev->data;
    tls = ngx_s3_conn_tls(c);

    if (c->close) {
        ngx_s3_reason(tls->reason, NGX_S3_LEAVING);
        error = NGX_S3_E_CLOSED;

    } else if (c->write->timedout) {
        ngx_s3_reason(tls->reason, "TLS handshake with \"%V\" timed out",
                      &tls->host);
        error = NGX_S3_E_CONNECT_TIMEOUT;

    } else if (ngx_s3_tls_handshake(tls, &error) == NGX_AGAIN) {
        return;
    }

    tls->handler(tls, error);
}


static ngx_int_t
ngx_s3_tls_handshake(ngx_s3_tls_t *tls, ngx_s3_error_e *error)
{
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = tls->connection;

    ngx_s3_tls_catch(tls);

    rc = ngx_ssl_handshake(c);

    ngx_s3_tls_release(tls);

    /* libssl bears some failures, of memory above all, and leaves their errors:
       nginx would find them at another connection and raise an alert */

    ERR_clear_error();

    /* nginx's own handlers do not look at c->close */

    c->read->handler = ngx_s3_tls_handler;
    c->write->handler = ngx_s3_tls_handler;

    if (rc == NGX_AGAIN) {
        return NGX_AGAIN;
    }

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    rc = ngx_s3_tls_done(tls, rc, error);

    if (tls->endpoint->ssl_session_reuse) {

        if (rc != NGX_OK) {
            ngx_s3_tls_drop(tls);

        } else {
            /* only what was verified is worth being resumed */

            c->ssl->save_session = ngx_s3_tls_save;

            if (SSL_version(c->ssl->connection) < TLS1_3_VERSION) {
                ngx_s3_tls_save(c);
            }
        }
    }

    ERR_clear_error();

    return rc;
}


static ngx_int_t
ngx_s3_tls_done(ngx_s3_tls_t *tls, ngx_int_t rc, ngx_s3_error_e *error)
{
    ngx_connection_t  *c;
    char               why[NGX_S3_REASON];

    c = tls->connection;

    if (rc != NGX_OK) {
        ngx_memcpy(why, tls->reason, sizeof(why));

        ngx_s3_reason(tls->reason, "TLS with \"%V\" failed%s%s", &tls->host,
                      why[0] ? ": " : "", why);

        *error = NGX_S3_E_TLS;
        return NGX_ERROR;
    }

    tls->reason[0] = '\0';

    if (tls->endpoint->ssl_verify && ngx_s3_tls_verify(tls) != NGX_OK) {
        *error = NGX_S3_E_CERTIFICATE;
        return NGX_ERROR;
    }

    if (!c->ssl->sendfile) {
        c->sendfile = 0;
    }

    *error = NGX_S3_E_NONE;

    return NGX_OK;
}


static ngx_int_t
ngx_s3_tls_verify(ngx_s3_tls_t *tls)
{
    long               rc;
    ngx_int_t          ok;
    ngx_connection_t  *c;

    c = tls->connection;

    rc = SSL_get_verify_result(c->ssl->connection);

    if (rc != X509_V_OK) {
        ngx_s3_reason(tls->reason,
                      "certificate of \"%V\" could not be verified (%l: %s)",
                      &tls->host, rc, X509_verify_cert_error_string(rc));
        return NGX_ERROR;
    }

    if (tls->literal) {
        ok = ngx_s3_tls_check_literal(tls);

    } else {
        ok = ngx_ssl_check_host(c, &tls->name);
    }

    if (ok != NGX_OK) {
        ngx_s3_reason(tls->reason,
                      "certificate of \"%V\" is not for the %s \"%V\"",
                      &tls->host, tls->literal ? "address" : "name",
                      &tls->name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_s3_tls_check_literal(ngx_s3_tls_t *tls)
{
    int    rc;
    X509  *cert;

    cert = SSL_get_peer_certificate(tls->connection->ssl->connection);
    if (cert == NULL) {
        return NGX_ERROR;
    }

    rc = X509_check_ip_asc(cert, (char *) tls->name.data, 0);

    X509_free(cert);

    return rc == 1 ? NGX_OK : NGX_ERROR;
}


/*
 * nginx reports why a handshake failed to the connection's log and nowhere
 * else. While it lasts the log is one of ours, which keeps that line for the
 * reason; whoever handles the failure logs it once.
 */

static void
ngx_s3_tls_catch(ngx_s3_tls_t *tls)
{
    ngx_connection_t  *c;

    c = tls->connection;

    ngx_s3_catcher_init(&tls->catcher, tls->log, tls->reason);

    c->log = &tls->catcher.log;
    c->read->log = &tls->catcher.log;
    c->write->log = &tls->catcher.log;
}


static void
ngx_s3_tls_release(ngx_s3_tls_t *tls)
{
    ngx_connection_t  *c;

    c = tls->connection;

    c->log = tls->log;
    c->read->log = tls->log;
    c->write->log = tls->log;
}


/* nginx has libssl take the end of the connection for an alert, and then both
   leave the same flag; but an alert is read before that end is */

ngx_uint_t
ngx_s3_tls_cut(ngx_connection_t *c)
{
    ngx_ssl_conn_t  *ssl;

    if (c->ssl == NULL) {
        return 0;
    }

    ssl = c->ssl->connection;

    return !(SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN)
           || BIO_eof(SSL_get_rbio(ssl));
}


void
ngx_s3_tls_close(ngx_connection_t *c)
{
    if (c->ssl == NULL) {
        return;
    }

    /* both set: quiet, at once, nothing is sent */

    c->ssl->no_wait_shutdown = 1;
    c->ssl->no_send_shutdown = 1;

    (void) ngx_ssl_shutdown(c);
}


/* TLS 1.3 sends tickets whenever it likes, also to an idle connection */

static void
ngx_s3_tls_save(ngx_connection_t *c)
{
    ngx_queue_t           *q, *sessions;
    ngx_uint_t             n;
    ngx_s3_tls_t          *tls;
    ngx_ssl_session_t     *session;
    ngx_s3_tls_session_t  *s;

    tls = ngx_s3_conn_tls(c);

    session = ngx_ssl_get_session(c);
    if (session == NULL) {
        return;
    }

    s = ngx_s3_tls_find(tls->endpoint, &tls->host);

    if (s) {
        ngx_ssl_free_session(s->session);
        s->session = session;
        return;
    }

    sessions = ngx_s3_tls_sessions(tls->endpoint);

    s = sessions ? ngx_alloc(sizeof(ngx_s3_tls_session_t) + tls->host.len,
                             ngx_cycle->log)
                 : NULL;

    if (s == NULL) {
        ngx_ssl_free_session(session);
        return;
    }

    s->session = session;
    s->port = tls->endpoint->port;
    s->len = tls->host.len;
    ngx_memcpy(s->host, tls->host.data, tls->host.len);

    ngx_queue_insert_head(sessions, &s->queue);

    n = 0;

    for (q = ngx_queue_head(sessions);
         q != ngx_queue_sentinel(sessions);
         q = ngx_queue_next(q))
    {
        n++;
    }

    if (n > NGX_S3_TLS_SESSIONS) {
        ngx_s3_tls_free(ngx_queue_last(sessions));
    }
}


/* the one found becomes the first, so that the last is the oldest */

static ngx_s3_tls_session_t *
ngx_s3_tls_find(ngx_s3_endpoint_t *endpoint, ngx_str_t *host)
{
    ngx_queue_t           *q, *sessions;
    ngx_s3_tls_session_t  *s;

    sessions = ngx_s3_tls_sessions(endpoint);

    if (sessions == NULL) {
        return NULL;
    }

    for (q = ngx_queue_head(sessions);
         q != ngx_queue_sentinel(sessions);
         q = ngx_queue_next(q))
    {
        s = ngx_queue_data(q, ngx_s3_tls_session_t, queue);

        if (s->port == endpoint->port
            && s->len == host->len
            && ngx_memcmp(s->host, host->data, host->len) == 0)
        {
            ngx_queue_remove(q);
            ngx_queue_insert_head(sessions, q);
            return s;
        }
    }

    return NULL;
}


static void
ngx_s3_tls_drop(ngx_s3_tls_t *tls)
{
    ngx_s3_tls_session_t  *s;

    s = ngx_s3_tls_find(tls->endpoint, &tls->host);

    if (s) {
        ngx_s3_tls_free(&s->queue);
    }
}


void
ngx_s3_tls_forget(ngx_s3_endpoint_t *endpoint)
{
    ngx_queue_t  *sessions;

    sessions = ngx_s3_tls_sessions(endpoint);

    if (sessions == NULL) {
        return;
    }

    while (!ngx_queue_empty(sessions)) {
        ngx_s3_tls_free(ngx_queue_head(sessions));
    }
}


static void
ngx_s3_tls_free(ngx_queue_t *q)
{
    ngx_s3_tls_session_t  *s;

    s = ngx_queue_data(q, ngx_s3_tls_session_t, queue);

    ngx_queue_remove(q);
    ngx_ssl_free_session(s->session);
    ngx_free(s);
}


/* NULL: an endpoint that was not made by ngx_s3_endpoint_create() */

static ngx_queue_t *
ngx_s3_tls_sessions(ngx_s3_endpoint_t *endpoint)
{
    ngx_s3_endpoint_state_t  *state;

    state = endpoint->state;

    return state ? &state->sessions : NULL;
}
