#ifndef NGX_HTTP_S3_SPEC_H
#define NGX_HTTP_S3_SPEC_H

#include "ngx_http_s3_transfer_module.h"


/* why a request is refused before its body */

typedef struct {
    ngx_uint_t   status;
    const char  *code;
    const char  *message;
} ngx_http_s3_refusal_t;


/*
 * What the request wants stored, checked. NGX_OK: spec (its memory is r->pool
 * or the request's own); NGX_DECLINED: refusal; NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_s3_spec(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_s3_transfer_spec_t *spec,
    ngx_http_s3_refusal_t *refusal);

/* The same for the body of an answer: key is the door's, NULL: $uri; what the
   request says of its own body and of conditions does not count. spec->headers
   are the configured ones, total is -1. */
ngx_int_t ngx_http_s3_spec_download(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_http_complex_value_t *key,
    ngx_s3_transfer_spec_t *spec, ngx_http_s3_refusal_t *refusal);

/* Adds the values of configured fields (of ngx_http_s3_field_t, or NULL) that
   are not empty to an array of s3_field_t. NGX_DECLINED: one has a control
   character. */
ngx_int_t ngx_http_s3_spec_configured(ngx_http_request_t *r,
    ngx_array_t *fields, ngx_array_t *headers,
    ngx_http_s3_refusal_t *refusal);

/* fills refusal (code and message are constants) and returns NGX_DECLINED */
ngx_int_t ngx_http_s3_refuse(ngx_http_s3_refusal_t *refusal, ngx_uint_t status,
    const char *code, const char *message);

/* What a content handler returns where one of these did not say NGX_OK, but
   rc: the refusal as a JSON error, or 500. */
ngx_int_t ngx_http_s3_send_refusal(ngx_http_request_t *r, ngx_int_t rc,
    ngx_http_s3_refusal_t *refusal);

/* ngx_http_s3_send_error() of a transfer that did not begin, with a line in the
   log: an error_page may hide the answer, and what is wrong may be the
   configuration's variables. */
ngx_int_t ngx_http_s3_send_refused(ngx_http_request_t *r, ngx_uint_t status,
    const char *code, const char *message, ngx_str_t *id);

/* Walks a list of headers, without those that were taken out: *walk is zeroed
   before. NULL: there is no other. */

typedef struct {
    ngx_list_part_t  *part;
    ngx_uint_t        next;
} ngx_http_s3_walk_t;

ngx_table_elt_t *ngx_http_s3_walk(ngx_list_t *headers,
    ngx_http_s3_walk_t *walk);

/* the value of a request header, NULL: none; name in lower case */
ngx_str_t *ngx_http_s3_request_header(ngx_http_request_t *r, const char *name);


#endif /* NGX_HTTP_S3_SPEC_H */
