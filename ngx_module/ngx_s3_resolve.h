/*
 * Names to addresses: literals, /etc/hosts and /etc/resolv.conf as they stood
 * when the configuration was read, nginx's resolver.
 */

#ifndef NGX_S3_RESOLVE_H
#define NGX_S3_RESOLVE_H

#include "ngx_s3_conn.h"


/* what the two files said; one for all endpoints of a cycle */

typedef struct ngx_s3_names_s  ngx_s3_names_t;


typedef struct ngx_s3_resolve_s  ngx_s3_resolve_t;

struct ngx_s3_resolve_s {
    /* set by the caller, who keeps all of it until the handler or cancel */
    ngx_str_t            name;
    in_port_t            port;
    ngx_s3_names_t      *names;      /* or NULL */
    ngx_resolver_t      *resolver;   /* the location's, or NULL */
    ngx_msec_t           timeout;
    ngx_pool_t          *pool;       /* the answer comes from it */
    void               (*handler)(ngx_s3_resolve_t *rs, ngx_int_t rc);
    void                *data;

    /* the answer */
    ngx_addr_t          *addrs;
    ngx_uint_t           naddrs;
    char                 reason[NGX_S3_REASON];

    /* private */
    ngx_resolver_ctx_t  *ctx;
    ngx_int_t            rc;
    unsigned             waiting:1;
};


/* Reads /etc/hosts and /etc/resolv.conf, once a cycle. NULL: no memory. A file
   that is not there is an empty one. */
ngx_s3_names_t *ngx_s3_names_get(ngx_conf_t *cf);

/* NGX_OK: addrs are there; NGX_AGAIN: handler follows with NGX_OK or another
   code; NGX_DECLINED: reason says why not; NGX_ERROR: no memory */
ngx_int_t ngx_s3_resolve_start(ngx_s3_resolve_t *rs);

/* the handler is not called any more; safe in any state, also twice */
void ngx_s3_resolve_cancel(ngx_s3_resolve_t *rs);

/* an IPv4 or IPv6 address, without brackets, as *sa (port 0); 0: it is none */
socklen_t ngx_s3_literal(ngx_str_t *text, ngx_sockaddr_t *sa);


#endif /* NGX_S3_RESOLVE_H */
