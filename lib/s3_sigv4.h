#ifndef S3_SIGV4_H
#define S3_SIGV4_H

#include "s3_str.h"

#define S3_SIGV4_DATE_LEN    16      /* YYYYMMDDTHHMMSSZ */
#define S3_SIGV4_MAX_FIELDS  64
#define S3_UNSIGNED_PAYLOAD  "UNSIGNED-PAYLOAD"
#define S3_EMPTY_SHA256      "e3b0c44298fc1c149afbf4c8996fb924"              \
                             "27ae41e4649b934ca495991b7852b855"

typedef struct {
    s3_str_t  access_key;
    s3_str_t  secret_key;
    s3_str_t  session_token;         /* empty: none; the caller sends and
                                        lists x-amz-security-token itself */
} s3_keys_t;

/* the signing key of one date, region, service and secret; zeroed: empty */

typedef struct {
    unsigned char  scope[32];        /* SHA-256 of what the key was made of */
    unsigned char  key[32];
    unsigned       valid:1;
} s3_sigv4_cache_t;

typedef struct {
    s3_str_t           method;
    s3_str_t           path;         /* as on the wire, percent-encoded once */
    s3_str_t           query;        /* as on the wire: encoded, sorted by
                                        name, "name=" where without value */
    const s3_field_t  *fields;       /* all fields to sign; any order, names
                                        in any case, duplicates joined */
    size_t             nfields;
    s3_str_t           payload;      /* hex SHA-256 or UNSIGNED-PAYLOAD */
    s3_str_t           region;
    s3_str_t           service;
    s3_str_t           date;         /* S3_SIGV4_DATE_LEN bytes */
} s3_sigv4_request_t;

/* the canonical request (for tests and for hashing) */
int s3_sigv4_canonical(const s3_sigv4_request_t *r, s3_buf_t *out);

/* the value of the Authorization field; S3_ERROR: out too small, more than
   S3_SIGV4_MAX_FIELDS, or OpenSSL failed. cache may be NULL. */
int s3_sigv4_authorization(s3_sigv4_cache_t *cache, const s3_keys_t *keys,
    const s3_sigv4_request_t *r, s3_buf_t *out);

/* signing key for secret, date (8 bytes are used), region and service */
int s3_sigv4_key(s3_str_t secret, s3_str_t date, s3_str_t region,
    s3_str_t service, unsigned char key[32]);

/* seconds since the epoch (UTC) to YYYYMMDDTHHMMSSZ and a NUL */
void s3_sigv4_date(int64_t seconds, char date[S3_SIGV4_DATE_LEN + 1]);

#endif
