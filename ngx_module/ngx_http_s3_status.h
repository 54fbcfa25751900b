/*
 * The door to look at transfers: one record, totals, pages of records; and to
 * cancel one.
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
    ngx_uint_t                    cancel;    /* 1: DELETE is allowed */
    ngx_http_complex_value_t     *id;        /* NULL: what follows the
                                                location's prefix */
} ngx_http_s3_status_conf_t;


/* cf->args of s3_status [json|prometheus] [list] [cancel] [id=value]; sc is
   zeroed */
char *ngx_http_s3_status_parse(ngx_conf_t *cf, ngx_http_s3_status_conf_t *sc);

/* The body of a content handler. owner is the location's s3_owner, or NULL:
   everybody may see everything. */
ngx_int_t ngx_http_s3_status_handle(ngx_http_request_t *r,
    ngx_http_s3_status_conf_t *sc, ngx_s3_stores_t *stores,
    ngx_http_complex_value_t *owner);


/* for ngx_http_s3_status*.c alone */

/* answers with a record, unless owner (not NULL) is not its own */
typedef ngx_int_t (*ngx_http_s3_status_send_pt)(ngx_http_request_t *r,
    s3_record_t *record, ngx_str_t *owner);

/*
 * Asks the stores for a record and answers by send with the newest of theirs
 * and the one that the zone has, known; NULL: it has none. 404 where nobody has
 * one, 503 where a store did not answer that may have one.
 */
ngx_int_t ngx_http_s3_status_read(ngx_http_request_t *r,
    ngx_s3_stores_t *stores, ngx_str_t *id, ngx_str_t *owner,
    s3_record_t *known, ngx_http_s3_status_send_pt send);

/* whether a record is shown to owner, NULL: to everybody */
ngx_uint_t ngx_http_s3_status_shown(s3_record_t *record, ngx_str_t *owner);

/* a record that may be shown */
ngx_int_t ngx_http_s3_status_json(ngx_http_request_t *r, ngx_uint_t status,
    s3_record_t *record);

/* 404; id may be NULL: it is none */
ngx_int_t ngx_http_s3_status_unknown(ngx_http_request_t *r, ngx_str_t *id);

/* DELETE: the transfer is to end */
ngx_int_t ngx_http_s3_status_cancel(ngx_http_request_t *r,
    ngx_s3_stores_t *stores, ngx_str_t *id, ngx_str_t *owner);

/* Answers later: the request is held until it is finalised, and a client that
   leaves is noticed. NGX_DONE, or what the handler has to return. */
ngx_int_t ngx_http_s3_status_wait(ngx_http_request_t *r);

/* which of the two others Accept prefers */
ngx_http_s3_status_format_e ngx_http_s3_status_accept(ngx_http_request_t *r);

ngx_int_t ngx_http_s3_status_totals(ngx_http_request_t *r,
    ngx_s3_zone_t *zone, ngx_http_s3_status_format_e format);

/* totals and a page of the records of owner, NULL: of all */
ngx_int_t ngx_http_s3_status_list(ngx_http_request_t *r, ngx_s3_zone_t *zone,
    ngx_str_t *owner);


#endif /* NGX_HTTP_S3_STATUS_H */
