/*
 * What a client is told of a transfer.
 */

#ifndef NGX_HTTP_S3_RESULT_H
#define NGX_HTTP_S3_RESULT_H

#include "ngx_http_s3_transfer_module.h"


/* All of these return what the request is to be finalized with; the record has
   to live as long as the request. */

/* the end of a transfer: 201 with its record, or the error; own: the object's
   key is the path that was asked for, which goes into Location */
ngx_int_t ngx_http_s3_send_result(ngx_http_request_t *r,
    ngx_s3_result_t *result, s3_record_t *record, ngx_uint_t own);

/* the record as JSON, with X-Transfer-Id */
ngx_int_t ngx_http_s3_send_record(ngx_http_request_t *r, ngx_uint_t status,
    s3_record_t *record);


#endif /* NGX_HTTP_S3_RESULT_H */
