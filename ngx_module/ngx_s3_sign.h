/*
 * Builds and signs the head of a request to an AWS service (Signature
 * Version 4, AWS "Authenticating Requests: Using the Authorization Header").
 */

#ifndef NGX_S3_SIGN_H
#define NGX_S3_SIGN_H

#include "ngx_s3_conn.h"
#include "ngx_s3_credentials.h"


#define NGX_S3_USER_AGENT  "nginx-s3-transfer"


/* what goes on the wire; all strings are the caller's */

typedef struct {
    ngx_str_t          method;
    ngx_str_t          path;         /* encoded once, begins with "/" */
    ngx_str_t          query;        /* encoded, sorted, "name=" where without
                                        value; empty: none */
    ngx_str_t          host;         /* authority: name and port as in Host */
    const s3_field_t  *fields;       /* the caller's own fields */
    ngx_uint_t         nfields;
    ngx_str_t          service;      /* "s3", "dynamodb" */
    ngx_str_t          region;
    s3_str_t           payload;      /* hex SHA-256 of the body, or
                                        S3_UNSIGNED_PAYLOAD */
    off_t              content_length;   /* -1: no such field */
    time_t             now;          /* by the service's clock */
    unsigned           sha256_header:1;  /* send x-amz-content-sha256 (S3) */
} ngx_s3_sign_t;


/*
 * Allocates *head from pool: request line, Host, User-Agent, Content-Length,
 * the caller's fields, x-amz-date, x-amz-content-sha256, x-amz-security-token,
 * Authorization, empty line. Signed are host, every x-amz-* field,
 * content-type, content-md5, if-match, if-none-match. A tab in a value goes
 * out as a space. *head holds key material: it never goes to a log.
 *
 * NGX_OK; NGX_DECLINED: a field that this function owns (Host, Content-Length,
 * Authorization, ...), a name that is no token, a control byte anywhere, or
 * more than S3_SIGV4_MAX_FIELDS fields to sign: the request must not be made;
 * NGX_ERROR: no keys, no memory, or OpenSSL failed.
 */
ngx_int_t ngx_s3_sign_head(ngx_pool_t *pool, ngx_s3_credentials_t *credentials,
    const ngx_s3_sign_t *s, ngx_str_t *head);


#endif /* NGX_S3_SIGN_H */
