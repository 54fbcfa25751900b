/*
 * Where nginx receives a request body: in the block of the part that the bytes
 * will be sent from, so that they are not copied in between. nginx touches its
 * receive buffer through pos, last and end alone and makes buffers that point
 * into it, so it may be pointed elsewhere between two reads of an unbuffered
 * body.
 */

#ifndef NGX_HTTP_S3_PLACE_H
#define NGX_HTTP_S3_PLACE_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_s3_transfer.h"


/* of a request; zeroed */

typedef struct {
    ngx_s3_loan_t  loan;             /* where the receive buffer points now;
                                        empty: to nginx's memory */
    u_char        *start;            /* nginx's memory; NULL: not seen yet */
    u_char        *end;
} ngx_http_s3_place_t;


/* at configuration, once: a filter of request bodies */
void ngx_http_s3_place_init(void);

/* As ngx_http_read_client_request_body(), which reads by itself before anybody
   can choose where: into a small buffer, so that little is copied, where what
   follows goes to blocks of t. The handler calls ngx_http_s3_place_begun()
   first. */
ngx_int_t ngx_http_s3_place_begin(ngx_http_request_t *r, ngx_s3_transfer_t *t,
    ngx_http_client_body_handler_pt handler);
void ngx_http_s3_place_begun(void);

/* Before ngx_http_read_unbuffered_request_body(), and only when all of
   r->request_body->bufs is consumed: chooses where it receives. */
void ngx_http_s3_place(ngx_http_request_t *r, ngx_http_s3_place_t *place,
    ngx_s3_transfer_t *t);

/* After it, before anything else. NGX_ERROR: no memory, the body cannot be read
   on. */
ngx_int_t ngx_http_s3_place_received(ngx_http_request_t *r);

/* The body is not read any more: what is lent goes back. Safe in any state, also
   twice. */
void ngx_http_s3_place_leave(ngx_http_request_t *r,
    ngx_http_s3_place_t *place);


#endif /* NGX_HTTP_S3_PLACE_H */
