/*
 * The door of downloads that are served: a copy of a response's body goes to
 * S3 as it passes.
 */

#ifndef NGX_HTTP_S3_TEE_H
#define NGX_HTTP_S3_TEE_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_s3_transfer.h"
#include "s3_tee.h"


#define NGX_HTTP_S3_TEE_DROP           0
#define NGX_HTTP_S3_TEE_WAIT           1

#define NGX_HTTP_S3_TEE_ABORT          0
#define NGX_HTTP_S3_TEE_CONTINUE       1

#define NGX_HTTP_S3_TEE_SET_COOKIE     0x0002
#define NGX_HTTP_S3_TEE_CACHE_CONTROL  0x0004


/* of a location */

typedef struct {
    ngx_flag_t                 on;
    ngx_http_complex_value_t  *key;          /* NULL: $uri */
    ngx_uint_t                 on_overrun;
    ngx_uint_t                 client_abort;
    ngx_uint_t                 ignore_headers;
    ngx_flag_t                 close_delimited;
    ngx_array_t               *status;       /* of ngx_uint_t, NULL: 200 */
    off_t                      min_size;     /* bytes */
    off_t                      max_size;     /* bytes, 0: no limit */
    ngx_http_complex_value_t  *condition;    /* NULL: none */
} ngx_http_s3_tee_conf_t;


typedef enum {
    NGX_HTTP_S3_TEE_NONE = 0,
    NGX_HTTP_S3_TEE_CAPTURING,
    NGX_HTTP_S3_TEE_CAPTURED,        /* the whole body is in the transfer */
    NGX_HTTP_S3_TEE_NOT              /* see reason */
} ngx_http_s3_tee_state_e;


/* of a request */

typedef struct {
    ngx_http_s3_tee_state_e  state;
    s3_tee_reason_e          reason;
    off_t                    length; /* announced, -1: not */
    off_t                    count;  /* bytes that came */
    ngx_chain_t             *held;   /* came, but neither copied nor passed */
    ngx_chain_t            **last_held;
    u_char                  *pos;    /* in held's first buffer: what is to be
                                        copied next; NULL: all of it */
    ngx_chain_t             *passed; /* passed, but not yet sent */
    ngx_event_t              patience;
    size_t                   taken;  /* bytes copied in this turn */
    ngx_event_t              turn;   /* the next one */
    unsigned                 live:1;         /* an upstream is being read */
    unsigned                 ready:1;        /* the transfer takes bytes */
    unsigned                 whole:1;        /* the last buffer came */
    unsigned                 goes_on:1;      /* though the client has left */
    unsigned                 deaf:1;         /* it has, and so it does */
    unsigned                 broken:1;       /* a filter below has failed */
} ngx_http_s3_tee_t;


/* ngx_http_s3_tee.c */
ngx_int_t ngx_http_s3_tee_init(ngx_conf_t *cf);

/* ngx_http_s3_tee_fields.c: what the origin says of the representation, for
   those of the object, of which the configuration's come first; NGX_ERROR: no
   memory */
ngx_int_t ngx_http_s3_tee_fields(ngx_http_request_t *r, ngx_array_t *headers);

/* ngx_http_s3_tee_judge.c: NGX_OK: the response is to be captured;
   NGX_DECLINED: *reason says why not; NGX_ERROR */
ngx_int_t ngx_http_s3_tee_judge(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf, s3_tee_reason_e *reason);

/* when nginx says that the response has ended: whether its connection was
   closed before its protocol ended it */
ngx_uint_t ngx_http_s3_tee_cut_off(ngx_http_request_t *r);

/* ngx_http_s3_tee_gone.c: a client that left, and whose response goes on */
/* before the first byte. NGX_OK: the response may go on without its client;
   NGX_DECLINED: not over this connection */
ngx_int_t ngx_http_s3_tee_watch(ngx_http_request_t *r);
/* whether the worker may not wait for the rest any more */
ngx_uint_t ngx_http_s3_tee_leaving(ngx_http_request_t *r);
/* out is passed to the filters below; NGX_ERROR: no memory */
ngx_int_t ngx_http_s3_tee_remember(ngx_http_request_t *r,
    ngx_http_s3_tee_t *tee, ngx_chain_t *out);
/* what was passed: forgets what is sent, all of it where that is of no use any
   more, and says of the rest that it was sent once the client is gone */
void ngx_http_s3_tee_settle(ngx_http_request_t *r, ngx_http_s3_tee_t *tee);
/* nobody is to send it */
void ngx_http_s3_tee_swallow(ngx_chain_t *cl);

/* ngx_http_s3_tee_tail.c: copies what is held, the end of the body, and has it
   fed to t, which is not the caller's any more; NGX_ERROR: nothing was done */
ngx_int_t ngx_http_s3_tee_tail(ngx_http_s3_tee_t *tee, ngx_s3_transfer_t *t);

/* ngx_http_s3_tee_conf.c */
char *ngx_http_s3_set_tee(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_s3_set_tee_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
void ngx_http_s3_tee_create_conf(ngx_http_s3_tee_conf_t *conf);
void ngx_http_s3_tee_merge_conf(ngx_http_s3_tee_conf_t *prev,
    ngx_http_s3_tee_conf_t *conf);
/* NGX_CONF_ERROR: it was logged what would have nothing copied */
char *ngx_http_s3_tee_check(ngx_conf_t *cf, ngx_http_s3_tee_conf_t *conf);
/* "wait" is of little use where nginx puts into a file what a slow client
   leaves; said once. */
void ngx_http_s3_tee_warn(ngx_conf_t *cf, ngx_http_s3_tee_conf_t *conf,
    ngx_uint_t *warned);


#endif /* NGX_HTTP_S3_TEE_H */
