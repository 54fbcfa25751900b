/*
 * What the doors share: configuration, the request's context, the module.
 */

#ifndef NGX_HTTP_S3_TRANSFER_MODULE_H
#define NGX_HTTP_S3_TRANSFER_MODULE_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_s3_ingest.h"
#include "ngx_http_s3_place.h"
#include "ngx_http_s3_status.h"
#include "ngx_http_s3_tee.h"
#include "ngx_s3_transfer.h"


#if !(NGX_SSL)
#error "ngx_http_s3_transfer_module needs nginx with http_ssl_module"
#endif


typedef struct {
    size_t                       zone_size;
    size_t                       memory;
    ngx_msec_t                   memory_idle;
    ngx_s3_pool_t               *pool;
    ngx_s3_stores_t              stores;
    ngx_uint_t                   reaper_mode;    /* ngx_s3_reaper_mode_e */
    ngx_msec_t                   reaper_lease;
    ngx_s3_reaper_t             *reaper;
    ngx_array_t                  targets;        /* ngx_s3_target_t *, of all
                                                    locations */
    ngx_uint_t                   ingest_max;     /* 0: no limit */
    ngx_array_t                  origins;        /* ngx_s3_endpoint_t *: their
                                                    templates */
    ngx_s3_credentials_t        *dynamodb_credentials;
    ngx_str_t                    dynamodb_credentials_missing;
    ngx_uint_t                   tee_warned;
    unsigned                     used:1; /* some location needs the zone */
    unsigned                     tee:1;  /* some has s3_tee */
} ngx_http_s3_main_conf_t;


typedef struct {
    ngx_str_t                    status; /* escaped path where a record is
                                            found, with a slash; empty: none */
} ngx_http_s3_srv_conf_t;


/* an object's header or metadata */

typedef struct {
    ngx_str_t                    name;   /* lower case */
    ngx_http_complex_value_t     value;
} ngx_http_s3_field_t;


#define NGX_HTTP_S3_AUTO   0
#define NGX_HTTP_S3_ON     1
#define NGX_HTTP_S3_OFF    2

#define NGX_HTTP_S3_CHECKSUM_OFF    0
#define NGX_HTTP_S3_CHECKSUM_CRC32  1


typedef struct {
    ngx_str_t                    endpoint;
    ngx_uint_t                   addressing;
    ngx_str_t                    region;
    ngx_http_complex_value_t    *bucket;
    ngx_s3_credentials_t        *credentials;
    ngx_str_t                    credentials_missing;

    ngx_uint_t                   payload_signature;
    ngx_uint_t                   checksum;
    size_t                       part_size;
    ngx_uint_t                   part_concurrency;
    size_t                       window;
    ngx_flag_t                   zero_copy;

    ngx_array_t                 *object_headers; /* ngx_http_s3_field_t */
    ngx_array_t                 *metadata;
    ngx_flag_t                   overwrite;

    ngx_http_complex_value_t    *transfer_id;
    ngx_http_complex_value_t    *owner;

    s3_gate_conf_t               gate;
    ngx_flag_t                   gate_set;
    ngx_uint_t                   progress_log;

    ngx_msec_t                   connect_timeout;
    ngx_msec_t                   send_timeout;
    ngx_msec_t                   read_timeout;
    ngx_uint_t                   tries;
    ngx_msec_t                   queue_timeout;
    ngx_msec_t                   retry_timeout;
    ngx_uint_t                   keepalive;
    ngx_msec_t                   keepalive_timeout;

    ngx_s3_ssl_conf_t            ssl;

    ngx_flag_t                   upload;
    ngx_http_complex_value_t    *upload_key;     /* NULL: $uri */
    ngx_http_s3_status_conf_t   *status;
    ngx_http_s3_ingest_conf_t    ingest;
    ngx_http_s3_tee_conf_t       tee;

    ngx_s3_transfer_conf_t      *transfer;       /* of a location with a door */
} ngx_http_s3_loc_conf_t;


/* of a request; lives until its pool goes */

typedef struct {
    ngx_http_request_t          *request;
    ngx_s3_transfer_t           *transfer;       /* NULL: not begun or ended */
    ngx_s3_pull_t               *pull;           /* likewise, of s3_ingest */
    s3_record_t                 *record;         /* the last one, for the
                                                    variables; NULL: none */
    ngx_http_s3_tee_t           *tee;            /* NULL: no s3_tee here */
    ngx_chain_t                 *bufs;   /* the rest of a body that nginx had
                                            before, see shared */
    ngx_buf_t                   *file_buf;       /* a piece of a body in a
                                                    file */
    ngx_http_s3_place_t          place;  /* where the body is received */
    ngx_int_t                    status;         /* of an upload that ended */
    ngx_uint_t                   uri_changes;    /* of the request, at first */
    unsigned                     reading:1;      /* the body API was called */
    unsigned                     shared:1;       /* the body stays for others:
                                                    a mirror, an error_page */
    unsigned                     paused:1;       /* S3 holds the client back */
    unsigned                     recorded:1;     /* *record is valid */
} ngx_http_s3_ctx_t;


extern ngx_module_t  ngx_http_s3_transfer_module;


/* ngx_http_s3_upload.c */
/* at configuration, once: what an error_page of s3_upload leads to. NGX_ERROR:
   no memory */
ngx_int_t ngx_http_s3_upload_init(ngx_conf_t *cf);
ngx_int_t ngx_http_s3_upload_handler(ngx_http_request_t *r);

/* ngx_http_s3_ingest.c */
ngx_int_t ngx_http_s3_ingest_handler(ngx_http_request_t *r);

/* ngx_http_s3_ingest_conf.c */
char *ngx_http_s3_set_ingest(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_s3_set_ingest_header(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_s3_set_ingest_allow(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
void ngx_http_s3_create_ingest(ngx_http_s3_ingest_conf_t *icf);
/* conf->ingest.door is merged already; makes what pulls need */
char *ngx_http_s3_merge_ingest(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *prev,
    ngx_http_s3_loc_conf_t *conf);
/* a location has s3_status: whether records are found by what follows its
   prefix; NGX_ERROR: no memory */
ngx_int_t ngx_http_s3_note_status(ngx_conf_t *cf,
    ngx_http_s3_status_conf_t *sc);
/* s3_origin_parse() of a URL that may go on after its authority. NGX_DECLINED:
   *err. */
ngx_int_t ngx_http_s3_ingest_origin(ngx_pool_t *pool, ngx_str_t *url,
    s3_origin_t *origin, const char **err);

/* ngx_http_s3_variables.c */
ngx_int_t ngx_http_s3_add_variables(ngx_conf_t *cf);
/* the context also after an internal redirect dropped it; NULL: none */
ngx_http_s3_ctx_t *ngx_http_s3_get_ctx(ngx_http_request_t *r);
/* a new context that survives internal redirects */
ngx_http_s3_ctx_t *ngx_http_s3_create_ctx(ngx_http_request_t *r);
/* room for its record; before there is a transfer. NGX_ERROR: no memory */
ngx_int_t ngx_http_s3_ctx_room(ngx_http_s3_ctx_t *ctx);

/* ngx_http_s3_conf_check.c: NGX_CONF_OK or NGX_OK; else it was logged what is
   wrong, or a text to follow the directive's name */
/* the name of the location that is read or merged, for such lines */
ngx_str_t *ngx_http_s3_location(ngx_conf_t *cf);
/* a setter's post handler: a time that is not 0 */
char *ngx_http_s3_check_time(ngx_conf_t *cf, void *post, void *data);
/* whether a content handler can be set */
char *ngx_http_s3_beside(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *lcf);
/* says where it is not the location's any more, once handlers are merged */
void ngx_http_s3_warn_handler(ngx_conf_t *cf, ngx_http_s3_loc_conf_t *conf);
/* what would have each transfer refused: bucket, key (NULL: $uri), id and
   fields */
ngx_int_t ngx_http_s3_check_transfer(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *conf, const char *directive,
    ngx_http_complex_value_t *key);
ngx_int_t ngx_http_s3_check_endpoint(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *conf, ngx_s3_endpoint_t *endpoint);

/* ngx_http_s3_conf.c, ngx_http_s3_reaper_conf.c: setters of directives, and
   what a location needs */
void ngx_http_s3_set_handler(ngx_conf_t *cf, ngx_http_handler_pt handler);
ngx_http_complex_value_t *ngx_http_s3_compile(ngx_conf_t *cf,
    ngx_str_t *value);
char *ngx_http_s3_set_upload(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_s3_set_size(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_s3_set_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_s3_set_redis(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_s3_set_dynamodb(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_s3_set_dynamodb_credentials(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_s3_set_credentials(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_s3_set_field(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_s3_set_metadata(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
/* a field with its value goes to *fields (of ngx_http_s3_field_t, or unset);
   owned: names that are refused, NULL ends them */
char *ngx_http_s3_set_fields(ngx_conf_t *cf, ngx_array_t **fields,
    const char *prefix, const char **owned);
char *ngx_http_s3_set_step(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_s3_set_reaper(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_s3_set_log(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_s3_init_stores(ngx_conf_t *cf, ngx_http_s3_main_conf_t *mcf);
char *ngx_http_s3_init_reaper(ngx_conf_t *cf, ngx_http_s3_main_conf_t *mcf);
char *ngx_http_s3_init_transfer(ngx_conf_t *cf, ngx_http_s3_main_conf_t *mcf,
    ngx_http_s3_loc_conf_t *conf, const char *directive,
    ngx_http_complex_value_t *key);
/* resolver, time-outs, idle connections and TLS of an endpoint as the location
   has them */
ngx_int_t ngx_http_s3_set_endpoint(ngx_conf_t *cf,
    ngx_http_s3_loc_conf_t *conf, ngx_s3_endpoint_t *endpoint,
    ngx_s3_ssl_conf_t *ssl);
ngx_int_t ngx_http_s3_status_content(ngx_http_request_t *r);


#endif /* NGX_HTTP_S3_TRANSFER_MODULE_H */
