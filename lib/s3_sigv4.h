#ifndef S3_SIGV4_H
#define S3_SIGV4_H

#include "s3_str.h"

/* Signature Version 4 for requests that are signed by their header: AWS
   "Create a signed AWS API request"; for S3 also "Authenticating Requests:
   Using the Authorization Header". The path is taken as it is, neither
   normalized nor encoded again, which is S3's rule and, for "/", everybody
   else's. */

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

/* The signing key of one date, region, service and secret; zeroed: empty.
   Owned by the caller, who wipes it (s3_wipe) before giving it up. */

#define S3_SIGV4_SCOPE_MAX  1024

typedef struct {
    unsigned char  scope[S3_SIGV4_SCOPE_MAX];    /* what it was made of */
    size_t         scope_len;        /* 0: it is empty */
    unsigned char  key[32];
} s3_sigv4_cache_t;

typedef struct {
    s3_str_t           method;
    s3_str_t           path;         /* as on the wire, percent-encoded once */
    s3_str_t           query;        /* as on the wire: encoded, sorted by
                                        name, "name=" where without value */
    const s3_field_t  *fields;       /* all fields to sign; any order, names
                                        in any case, duplicates joined */
    size_t             nfields;
    s3_str_t           payload;      /* lower-case hex SHA-256, or
                                        UNSIGNED-PAYLOAD */
    s3_str_t           region;
    s3_str_t           service;
    s3_str_t           date;         /* S3_SIGV4_DATE_LEN bytes */
} s3_sigv4_request_t;

/* Appends the canonical request: field names in lower case and sorted, values
   trimmed, runs of white space in them made one space, values of one name
   joined by ',' in their order. S3_ERROR: out too small, more than
   S3_SIGV4_MAX_FIELDS fields, a field without name or with a line break. */
int s3_sigv4_canonical(const s3_sigv4_request_t *r, s3_buf_t *out);

/* Appends the value of the Authorization field; the request may be of any
   length. S3_ERROR: as above, date of a wrong length, secret longer than 512
   or region and service longer than 384 bytes, or OpenSSL failed; then
   out->pos is where it was. cache may be NULL; it is made anew when secret,
   day, region or service differ from the last ones. */
int s3_sigv4_authorization(s3_sigv4_cache_t *cache, const s3_keys_t *keys,
    const s3_sigv4_request_t *r, s3_buf_t *out);

/* signing key for secret (at most 512 bytes), date (8 bytes are used), region
   and service; the caller wipes it. S3_ERROR: too long, or OpenSSL failed */
int s3_sigv4_key(s3_str_t secret, s3_str_t date, s3_str_t region,
    s3_str_t service, unsigned char key[32]);

/* seconds since the epoch (UTC) to YYYYMMDDTHHMMSSZ and a NUL; clamped to
   1970 … 9999 */
void s3_sigv4_date(int64_t seconds, char date[S3_SIGV4_DATE_LEN + 1]);

#endif
