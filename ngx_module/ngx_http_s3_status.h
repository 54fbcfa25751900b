/*
 * The door to look at transfers: one record, totals, pages of records.
 */

#ifndef NGX_HTTP_S3_STATUS_H
#define NGX_HTTP_S3_STATUS_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_s3_progress.h"


typedef enum {
    NGX_HTTP_S3_STATUS_AUTO = 0,     /* by the Accept field */
    NGX_HTTP_S3_STATUS_JSON,
    NGX_HTTP_S3_STATUS_PROMETHEUS
} ngx_http_s3_status_format_e;


typedef struct {
    ngx_http_s3_status_format_e   format;
    ngx_uint_t                    list;      /* 1: records are listed */
    ngx_http_complex_value_t     *id;        /* NULL: what follows the
                                                location's prefix */
} ngx_http_s3_status_conf_t;


/* cf->args of s3_status [json|prometheus] [list] [id=value]; sc is zeroed */
char *ngx_http_s3_status_parse(ngx_conf_t *cf, ngx_http_s3_status_conf_t *sc);

/* The body of a content handler. owner is the location's s3_owner, or NULL:
   everybody may see everything. */
ngx_int_t ngx_http_s3_status_handle(ngx_http_request_t *r,
    ngx_http_s3_status_conf_t *sc, ngx_s3_stores_t *stores,
    ngx_http_complex_value_t *owner);


/* for ngx_http_s3_status*.c alone */

/* which of the two others Accept prefers */
ngx_http_s3_status_format_e ngx_http_s3_status_accept(ngx_http_request_t *r);

ngx_int_t ngx_http_s3_status_totals(ngx_http_request_t *r,
    ngx_s3_zone_t *zone, ngx_http_s3_status_format_e format);

/* totals and a page of the records of owner, NULL: of all */
ngx_int_t ngx_http_s3_status_list(ngx_http_request_t *r, ngx_s3_zone_t *zone,
    ngx_str_t *owner);


#endif /* NGX_HTTP_S3_STATUS_H */
