/*
 * Outbound connections: resolve, connect, TLS with verification, time-outs,
 * an idle pool per endpoint. Knows nothing of HTTP.
 */

#ifndef NGX_S3_CONN_H
#define NGX_S3_CONN_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "s3_str.h"
#include "s3_uri.h"


/* the two strings have the same fields */

#define ngx_s3_to_str(nstr)   ((s3_str_t) { (nstr).len, (nstr).data })


/* bytes of a reason, its NUL included */

#define NGX_S3_REASON    256

/* the reason of NGX_S3_E_CLOSED where connection->close is set: a reader tests
   that flag first (worker_shutdown_timeout sets it and calls the reader) */

#define NGX_S3_LEAVING   "worker is shutting down"


typedef enum {
    NGX_S3_E_NONE = 0,
    NGX_S3_E_INTERNAL,               /* no memory, no socket */
    NGX_S3_E_RESOLVE,
    NGX_S3_E_REFUSED,                /* no address of it is allowed */
    NGX_S3_E_CONNECT,
    NGX_S3_E_CONNECT_TIMEOUT,
    NGX_S3_E_TLS,
    NGX_S3_E_CERTIFICATE,
    NGX_S3_E_SEND_TIMEOUT,
    NGX_S3_E_READ_TIMEOUT,
    NGX_S3_E_CLOSED,                 /* closed or reset by the peer */
    NGX_S3_E_REPLY                   /* not HTTP, or too large */
} ngx_s3_error_e;


typedef struct {
    ngx_flag_t    verify;
    ngx_flag_t    session_reuse;
    ngx_str_t     trusted_certificate;   /* empty: the system's store */
    ngx_str_t     name;                  /* empty: the host's name */
    ngx_uint_t    protocols;
    ngx_str_t     ciphers;
    ngx_array_t  *conf_commands;         /* of ngx_keyval_t, or NULL */
} ngx_s3_ssl_conf_t;


/*
 * Where to connect. Made when the configuration is read, lives in the cycle's
 * pool; each worker has its own copy of the state below (fork). A derived one
 * is made at run time and lives in the caller's pool.
 */

typedef struct ngx_s3_endpoint_s  ngx_s3_endpoint_t;

/* NGX_OK: sa may be connected to; else the reason says why not: NGX_S3_REASON
   bytes, which already name address and host, and which ngx_s3_reason() may
   write anew. Called for each address before the first connect. */
typedef ngx_int_t (*ngx_s3_allow_pt)(ngx_s3_endpoint_t *endpoint,
    struct sockaddr *sa, char *reason);

struct ngx_s3_endpoint_s {
    ngx_str_t        name;           /* scheme://host[:port], for messages */
    ngx_str_t        host;           /* lower case, no brackets, NUL after */
    in_port_t        port;
    ngx_str_t        authority;      /* host[:port] as in the Host field */
    s3_host_e        type;
    unsigned         tls:1;

    struct sockaddr *sockaddr;       /* a Unix-domain socket, else NULL */
    socklen_t        socklen;

    ngx_ssl_t       *ssl;
    ngx_str_t        ssl_name;       /* empty: the host */
    ngx_flag_t       ssl_verify;
    ngx_flag_t       ssl_session_reuse;

    ngx_resolver_t  *resolver;       /* the location's, or NULL */
    ngx_msec_t       resolver_timeout;

    ngx_msec_t       connect_timeout;
    ngx_msec_t       send_timeout;   /* between two writes */
    ngx_msec_t       read_timeout;   /* between two reads */
    ngx_msec_t       keepalive_timeout;
    ngx_uint_t       keepalive;      /* idle connections a worker */

    ngx_s3_allow_pt  allow;          /* which addresses; NULL: all */
    void            *allow_data;     /* the caller's, for allow */

    /* the worker's, private to ngx_s3_conn.c */
    ngx_queue_t      idle;
    ngx_uint_t       nidle;
    void            *state;
};


/* Parses url (http, https). Default time-outs of DESIGN; the caller then sets
   the fields above. NULL: *err is a constant string. */
ngx_s3_endpoint_t *ngx_s3_endpoint_create(ngx_conf_t *cf, ngx_str_t *url,
    const char **err);

/* For an endpoint whose address is found otherwise (another scheme, a Unix-
   domain socket): time-outs and state as ngx_s3_endpoint_create() sets them;
   the caller zeroes the endpoint first and sets the rest. NGX_ERROR: logged. */
ngx_int_t ngx_s3_endpoint_init(ngx_conf_t *cf, ngx_s3_endpoint_t *endpoint);


/*
 * For a host that is known only at run time: host, port and scheme are the
 * uri's, which need not live on; ssl (context, name, verification), resolver,
 * names, time-outs, allow and the TLS sessions, which are kept by host and
 * port, are the template's. The template has an SSL context where tls was set
 * when ngx_s3_endpoint_ssl() was called. No connection is kept. Lives as long
 * as pool: cancel what uses it first. NULL: no memory, or https and the
 * template has no SSL context.
 */
ngx_s3_endpoint_t *ngx_s3_endpoint_derive(ngx_pool_t *pool,
    ngx_s3_endpoint_t *template, const s3_uri_endpoint_t *uri);

/* Makes the SSL context (only where endpoint->tls). NGX_ERROR: logged. */
ngx_int_t ngx_s3_endpoint_ssl(ngx_conf_t *cf, ngx_s3_endpoint_t *endpoint,
    ngx_s3_ssl_conf_t *conf);


typedef struct ngx_s3_conn_s  ngx_s3_conn_t;

typedef void (*ngx_s3_conn_pt)(ngx_s3_conn_t *sc);

struct ngx_s3_conn_s {
    ngx_connection_t   *connection;  /* valid from the handler on */
    ngx_s3_endpoint_t  *endpoint;
    void               *data;        /* the caller's */
    ngx_s3_conn_pt      read;        /* the caller's event handlers; set them */
    ngx_s3_conn_pt      write;       /* in the connect handler */

    ngx_s3_error_e      error;       /* why connecting failed */
    char                reason[NGX_S3_REASON];   /* text for the log and the
                                        record; names the host, no secret */
    unsigned            reused:1;    /* came from the idle pool */
};


/*
 * Opens a connection to host (an empty string: the endpoint's own) on the
 * endpoint's port, or takes an idle one unless fresh is set. handler is called
 * exactly once, never before this function has returned; error tells whether
 * it is connected (and, for TLS, verified). log must live as long as the
 * connection is the caller's. NULL: no memory (the handler is not called).
 */
ngx_s3_conn_t *ngx_s3_conn_open(ngx_s3_endpoint_t *endpoint, ngx_str_t *host,
    ngx_uint_t fresh, ngx_log_t *log, ngx_s3_conn_pt handler, void *data);

/* Ends it in any state, also while connecting (the handler is then not called
   any more). sc is gone. */
void ngx_s3_conn_close(ngx_s3_conn_t *sc);

/* Gives a connection on which all was read and sent back to the idle pool, or
   closes it when the pool is full or the worker is leaving. sc is gone. */
void ngx_s3_conn_keep(ngx_s3_conn_t *sc);

/* What was asked over it got no answer, or none that is one: for a while the
   address is tried after the others of its name. Before it is closed. */
void ngx_s3_conn_shun(ngx_s3_conn_t *sc);

/* For exit_process: closes what is idle and forgets TLS sessions, which those
   that were derived from it have shared. */
void ngx_s3_endpoint_close_idle(ngx_s3_endpoint_t *endpoint);


/* formats (ngx_sprintf's directives) into NGX_S3_REASON bytes; NUL-terminated,
   control bytes become spaces */
void ngx_cdecl ngx_s3_reason(char *reason, const char *fmt, ...);


#endif /* NGX_S3_CONN_H */
