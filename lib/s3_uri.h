#ifndef S3_URI_H
#define S3_URI_H

#include "s3_str.h"

#define S3_KEY_MAX     1024
#define S3_BUCKET_MIN  3
#define S3_BUCKET_MAX  63

typedef enum { S3_HOST_NAME, S3_HOST_IPV4, S3_HOST_IPV6 } s3_host_e;
typedef enum { S3_ADDRESSING_AUTO, S3_ADDRESSING_PATH,
               S3_ADDRESSING_VIRTUAL } s3_addressing_e;

typedef struct {
    unsigned   tls:1;
    s3_host_e  type;
    s3_str_t   host;                 /* without brackets; a slice of the URL */
    unsigned   port;                 /* default of the scheme when absent */
    unsigned   port_default:1;
} s3_uri_endpoint_t;

/* http[s]://host[:port][/]: no user, path, query or fragment. S3_ERROR sets
   *err to a constant string that names what is wrong. */
int s3_uri_parse_endpoint(s3_str_t url, s3_uri_endpoint_t *e,
    const char **err);

/* S3's URI encoding (SigV4 "UriEncode"): keeps A-Z a-z 0-9 - . _ ~ and, where
   asked, '/'; upper-case hex */
void s3_uri_encode(s3_buf_t *out, s3_str_t in, int keep_slash);

/* DESIGN: no "." or ".." segment, not empty, no trailing slash, no control
   byte, at most S3_KEY_MAX bytes, valid UTF-8; bucket: [a-z0-9.-]{3,63} */
int s3_uri_check_key(s3_str_t key, const char **err);
int s3_uri_check_bucket(s3_str_t bucket, const char **err);

/* [A-Za-z0-9_-]{16,64} */
int s3_uri_check_id(s3_str_t id);

/* whether the endpoint's name is Amazon's */
int s3_uri_is_aws(s3_str_t host);

/* region from the endpoint's name (s3.eu-central-1.amazonaws.com,
   s3.dualstack.…, s3-fips.…, .amazonaws.com.cn, dynamodb.…); else
   us-east-1 */
s3_str_t s3_uri_region(s3_str_t host);

/* whether bucket goes into the host name: auto is virtual on Amazon's
   endpoints for a bucket without dots */
int s3_uri_virtual(s3_addressing_e addressing, s3_str_t host,
    s3_str_t bucket);

#endif
