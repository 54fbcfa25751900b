/*
 * What each of S3's operations sends (Amazon S3 API Reference "Actions"). Part
 * of ngx_s3_api.
 */

#ifndef NGX_S3_OP_H
#define NGX_S3_OP_H

#include "ngx_s3_api.h"


/* the same for all tries of a call */

typedef struct {
    ngx_str_t     method;
    ngx_str_t     path;
    ngx_str_t     query;
    ngx_str_t     host;              /* the Host field */
    ngx_str_t     connect;           /* name to connect to, empty: the
                                        endpoint's */
    ngx_array_t   fields;            /* of s3_field_t */
    s3_str_t      payload;           /* for the signature */
    ngx_chain_t  *body;
    off_t         body_size;
    off_t         content_length;    /* -1: no such field */
    char          sha256[65];        /* of a body that is made here */
} ngx_s3_op_t;


const char *ngx_s3_op_name(ngx_s3_op_e op);

/* fills op from pool and the call's own memory; NGX_ERROR: no memory, or a
   call that cannot be made (logged) */
ngx_int_t ngx_s3_op_build(ngx_s3_call_t *call, ngx_pool_t *pool,
    ngx_s3_op_t *op);


#endif /* NGX_S3_OP_H */
