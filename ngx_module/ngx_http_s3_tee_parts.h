/*
 * What the rooms of s3_tee share: its head, its body, its end.
 */

#ifndef NGX_HTTP_S3_TEE_PARTS_H
#define NGX_HTTP_S3_TEE_PARTS_H

#include "ngx_http_s3_spec.h"


/* r->buffered has four bits: ssi, sub and copy have the others */
#define NGX_HTTP_S3_TEE_BUFFERED  0x08


/* ngx_http_s3_tee_head.c: the header filter */

void ngx_http_s3_tee_init_head(void);


/* ngx_http_s3_tee.c */

/* another answer takes the place of the one that is captured */
void ngx_http_s3_tee_replaced(ngx_http_s3_ctx_t *ctx);

/* the handlers of patience and turn */
void ngx_http_s3_tee_impatient(ngx_event_t *ev);
void ngx_http_s3_tee_next_turn(ngx_event_t *ev);

/* what is held is looked at again, and who drives the response is woken */
void ngx_http_s3_tee_wake(ngx_http_s3_ctx_t *ctx);


/* ngx_http_s3_tee_end.c */

/* there is no copy, for that reason; counted */
void ngx_http_s3_tee_refused(ngx_http_s3_ctx_t *ctx,
    s3_tee_reason_e reason);

/* the whole body is the transfer's; counted */
void ngx_http_s3_tee_captured(ngx_http_s3_ctx_t *ctx);

/* the transfer's handler */
void ngx_http_s3_tee_event(void *data, ngx_s3_transfer_event_e event);

/* the copy, if one is taken, is given up; message goes to the record */
void ngx_http_s3_tee_drop(ngx_http_s3_ctx_t *ctx,
    s3_tee_reason_e reason, const char *message);

/* the request's cleanup */
void ngx_http_s3_tee_cleanup(void *data);


#endif /* NGX_HTTP_S3_TEE_PARTS_H */
