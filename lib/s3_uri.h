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

/* http[s]://host[:port][/]: no user, path, query or fragment. e->host is a
   slice of url, an IPv6 address without its brackets; port_default where the
   port is the scheme's own, also written out: it does not go into Host.
   S3_ERROR sets *err to a constant string that names what is wrong. */
int s3_uri_parse_endpoint(s3_str_t url, s3_uri_endpoint_t *e,
    const char **err);

/* host[:port], as it stands in a URL of http, tls: of https; e, *err and the
   return value as above */
int s3_uri_parse_authority(s3_str_t authority, int tls, s3_uri_endpoint_t *e,
    const char **err);

/* Appends S3's URI encoding (SigV4 "UriEncode"): keeps A-Z a-z 0-9 - . _ ~ and,
   where asked, '/'; upper-case hex. At most 3 bytes for one. */
void s3_uri_encode(s3_buf_t *out, s3_str_t in, int keep_slash);

/* A key that every client and server reads alike: no "." or ".." segment, not
   empty, no trailing slash, no control byte, at most S3_KEY_MAX bytes, valid
   UTF-8 (S3 "Naming Amazon S3 objects"). Bucket: [a-z0-9.-]{3,63}, a letter or
   digit at both ends, no ".." (S3 "General purpose bucket naming rules").
   S3_OK, or S3_ERROR and *err is a constant string. */
int s3_uri_check_key(s3_str_t key, const char **err);
int s3_uri_check_bucket(s3_str_t bucket, const char **err);

/* What a credential scope can name: 1 to 64 visible ASCII characters without
   the slash, comma and equals sign that delimit it in a request, nor "$", as no
   region has variables. Results as above. */
int s3_uri_check_region(s3_str_t region, const char **err);

/* transfer id: S3_OK where it is [A-Za-z0-9_-]{16,64}, else S3_ERROR */
int s3_uri_check_id(s3_str_t id);

/* 1: the endpoint's name is Amazon's, 0: not */
int s3_uri_is_aws(s3_str_t host);

/* region from the endpoint's name (s3.eu-central-1.amazonaws.com,
   s3.dualstack.…, s3-fips.…, s3-eu-west-1.…, ….s3.eu-west-1.vpce.…,
   .amazonaws.com.cn, dynamodb.…), a slice of host; else the constant
   us-east-1 */
s3_str_t s3_uri_region(s3_str_t host);

/* 1: bucket goes into the host name, 0: into the path. Auto is virtual on
   Amazon's endpoints for a bucket without dots (whose certificate stands for
   one label; S3 "Virtual hosting of buckets"). */
int s3_uri_virtual(s3_addressing_e addressing, s3_str_t host,
    s3_str_t bucket);

#endif
