/*
 * Answers that the module gives itself: JSON documents, JSON errors, methods.
 */

#ifndef NGX_HTTP_S3_REPLY_H
#define NGX_HTTP_S3_REPLY_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/* Whether the request is somewhere else since its uri_changes were these: a
   client that leaves while it waits leads to a post_action. It is not to be
   answered, nor is the module's context its own any more. */
#define ngx_http_s3_led_away(r, changes)  ((r)->uri_changes != (changes))


/*
 * All of these return what is to be finalized with (or returned from a content
 * handler); a body that was not read yet is discarded without asking the
 * client for it. Where an error page takes over, that is the status.
 */

/* json lives as long as the request; Cache-Control: no-store goes with it */
ngx_int_t ngx_http_s3_send_json(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *json);

/* the same with a chain of buffers in memory, none of them empty, whose last
   one is not marked, and its length; type is a constant */
ngx_int_t ngx_http_s3_send_chain(ngx_http_request_t *r, ngx_uint_t status,
    const char *type, ngx_chain_t *out, off_t len);

/*
 * {"error": code, "message": …, "transferId": …}, or the status itself
 * where the location has an error_page for it (the caller's headers stay).
 * Retry-After goes with 503 unless the caller has added one. id may be NULL.
 */
ngx_int_t ngx_http_s3_send_error(ngx_http_request_t *r, ngx_uint_t status,
    const char *code, const char *message, ngx_str_t *id);

/* answers OPTIONS with 204 and any other method with 405, both with Allow */
ngx_int_t ngx_http_s3_send_allow(ngx_http_request_t *r, const char *methods);

/* Drops the body that nobody will read; a client that waits for 100 Continue
   is not asked for it. All of the above do it too. */
ngx_int_t ngx_http_s3_discard_body(ngx_http_request_t *r);

/* name is a constant; value's bytes live as long as the request */
ngx_int_t ngx_http_s3_add_header(ngx_http_request_t *r, const char *name,
    ngx_str_t *value);

/* the same in place of one that an earlier location left there */
ngx_int_t ngx_http_s3_set_header(ngx_http_request_t *r, const char *name,
    ngx_str_t *value);


#endif /* NGX_HTTP_S3_REPLY_H */
