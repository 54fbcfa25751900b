/*
 * Addresses that failed a moment ago. They are tried after the others of their
 * name, so that the next try, whoever makes it, goes to another server.
 */

#ifndef NGX_S3_SHUN_H
#define NGX_S3_SHUN_H

#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_S3_SHUNNED  8            /* of an endpoint: the newest are known */

/* the worker's; zeroed: there are none */

typedef struct {
    struct {
        ngx_sockaddr_t  sa;
        socklen_t       len;         /* 0: none */
        ngx_msec_t      since;
    } addrs[NGX_S3_SHUNNED];

    ngx_uint_t          next;        /* to be written */
} ngx_s3_shun_t;


/* the address, which has its port, has failed just now */
void ngx_s3_shun(ngx_s3_shun_t *shun, ngx_addr_t *addr);

/* moves those that failed within the last 30 s behind the others; both keep
   their order, so where all have failed nothing changes */
void ngx_s3_shun_order(ngx_s3_shun_t *shun, ngx_addr_t *addrs, ngx_uint_t n);


#endif /* NGX_S3_SHUN_H */
