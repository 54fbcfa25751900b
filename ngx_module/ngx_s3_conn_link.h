/*
 * A connection as ngx_s3_conn.c (opening it) and ngx_s3_conn_idle.c (keeping
 * it) know it. Part of ngx_s3_conn.
 */

#ifndef NGX_S3_CONN_LINK_H
#define NGX_S3_CONN_LINK_H

#include "ngx_s3_conn.h"
#include "ngx_s3_resolve.h"
#include "ngx_s3_tls.h"


/*
 * opening -> resolving -> connecting -> shaking -> opened <-> idle
 *    \___________\____________\___________\______> failed
 *
 * Each state may be skipped but none is gone back to, except that the next
 * address is tried (shaking -> connecting) and that an idle one is taken.
 */

typedef enum {
    NGX_S3_CONN_OPENING = 0,         /* ngx_s3_conn_open() has not returned */
    NGX_S3_CONN_RESOLVING,
    NGX_S3_CONN_CONNECTING,
    NGX_S3_CONN_SHAKING,             /* hands, for TLS */
    NGX_S3_CONN_OPENED,
    NGX_S3_CONN_FAILED,
    NGX_S3_CONN_IDLE
} ngx_s3_conn_state_e;


typedef struct {
    ngx_s3_conn_t        sc;         /* first: what the caller holds */

    ngx_s3_conn_state_e  state;
    ngx_s3_conn_pt       handler;
    ngx_str_t            host;       /* NUL after it */
    ngx_log_t           *log;        /* the caller's; the cycle's when idle */
    ngx_pool_t          *pool;       /* this struct's too */

    ngx_s3_resolve_t     resolve;
    ngx_addr_t          *addrs;
    ngx_uint_t           naddrs;
    ngx_uint_t           next;       /* address to try */
    ngx_s3_error_e       passing;    /* of an address, soon over perhaps */
    ngx_addr_t           unix_addr;

    ngx_s3_tls_t         tls;

    ngx_event_t          event;      /* posted: the handler is due */
    ngx_queue_t          queue;      /* endpoint's idle */
    ngx_msec_t           idle_since;
    unsigned             in_open:1;
} ngx_s3_link_t;


/* an idle connection to host that is alive, for a caller whose log it gets;
   NULL: there is none */
ngx_s3_link_t *ngx_s3_link_take(ngx_s3_endpoint_t *endpoint, ngx_str_t *host,
    ngx_log_t *log);

/* closes it and frees its memory, in any state but idle */
void ngx_s3_link_free(ngx_s3_link_t *link);

/* of the connection, its events and its TLS */
void ngx_s3_link_set_log(ngx_s3_link_t *link, ngx_log_t *log);

/* the events of an open one: they call the caller's handlers */
void ngx_s3_link_read_handler(ngx_event_t *rev);
void ngx_s3_link_write_handler(ngx_event_t *wev);


#endif /* NGX_S3_CONN_LINK_H */
