/*
 * s3_ingest and what goes with it.
 */

#ifndef NGX_HTTP_S3_INGEST_H
#define NGX_HTTP_S3_INGEST_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_s3_pull.h"


/* s3_ingest URL [key] */

typedef struct {
    ngx_str_t                    source;     /* the URL as it was written */
    ngx_http_complex_value_t    *url;
    ngx_http_complex_value_t    *lead;       /* the variable that the URL
                                                begins with, which has scheme
                                                and host; NULL: they are
                                                literal */
    s3_origin_scheme_e           scheme;     /* where they are */
    ngx_str_t                    authority;
    ngx_http_complex_value_t    *key;        /* NULL: $uri */
} ngx_http_s3_ingest_t;


/* of a location */

typedef struct {
    ngx_http_s3_ingest_t        *door;       /* NULL: none */
    ngx_flag_t                   async;
    ngx_flag_t                   close_delimited;
    ngx_uint_t                   redirects;
    ngx_array_t                 *headers;    /* ngx_http_s3_field_t */
    ngx_array_t                 *allow;      /* ngx_cidr_t */
    ngx_flag_t                   allow_all;

    ngx_str_t                    status;     /* where records are shown */
    ngx_s3_pull_conf_t          *pull;
} ngx_http_s3_ingest_conf_t;


#endif /* NGX_HTTP_S3_INGEST_H */
