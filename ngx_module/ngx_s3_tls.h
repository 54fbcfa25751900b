/*
 * TLS of one outbound connection: context, handshake, verification of chain
 * and name, sessions. Called by ngx_s3_conn.c alone, but for ngx_s3_tls_cut().
 */

#ifndef NGX_S3_TLS_H
#define NGX_S3_TLS_H

#include "ngx_s3_conn.h"
#include "ngx_s3_log.h"
#include "ngx_s3_resolve.h"
#include "ngx_s3_shun.h"
#include "ngx_s3_tls_bio.h"


/* what an endpoint's state points to */

typedef struct {
    ngx_s3_names_t     *names;
    ngx_queue_t         sessions;    /* TLS, of this worker; last used first */
    ngx_s3_shun_t       shun;
} ngx_s3_endpoint_state_t;


typedef struct ngx_s3_tls_s  ngx_s3_tls_t;

struct ngx_s3_tls_s {
    /* set by the caller */
    ngx_connection_t   *connection;  /* connected, with a pool */
    ngx_s3_endpoint_t  *endpoint;
    ngx_str_t           host;        /* NUL after it */
    ngx_log_t          *log;
    char               *reason;      /* of NGX_S3_REASON bytes */
    void              (*handler)(ngx_s3_tls_t *tls, ngx_s3_error_e error);

    /* private */
    ngx_str_t           name;        /* that the certificate must have */
    ngx_s3_catcher_t    catcher;
    ngx_s3_tls_gather_t gather;
    unsigned            literal:1;   /* name is an address */
};


/* NGX_OK: shaken and verified; NGX_AGAIN: handler follows; NGX_ERROR: *error
   and reason are set. Time-out: connect_timeout of the endpoint. The handlers
   of both events are replaced. */
ngx_int_t ngx_s3_tls_start(ngx_s3_tls_t *tls, ngx_s3_error_e *error);

/* Whether the end that c->recv() has told of is the connection's alone, and the
   peer did not say that there is no more (a closing alert: RFC 8446, 6.1); 0
   also without TLS. */
ngx_uint_t ngx_s3_tls_cut(ngx_connection_t *c);

/* Frees what TLS holds of the connection, without waiting and in silence. */
void ngx_s3_tls_close(ngx_connection_t *c);

/* forgets the sessions of the endpoint */
void ngx_s3_tls_forget(ngx_s3_endpoint_t *endpoint);

/* the tls of a connection; ngx_s3_conn.c knows it */
ngx_s3_tls_t *ngx_s3_conn_tls(ngx_connection_t *c);


#endif /* NGX_S3_TLS_H */
