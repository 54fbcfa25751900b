/*
 * Where a pull reads from: the URL, what of it goes on the request line, what
 * a redirect makes of it, and the fields by which the origin says which bytes
 * it sends.
 */

#ifndef S3_ORIGIN_H
#define S3_ORIGIN_H

#include "s3_uri.h"


#define S3_ORIGIN_MAX  8192          /* bytes of a URL (RFC 9110, 4.1: at least
                                        8000) */

typedef enum { S3_ORIGIN_HTTP, S3_ORIGIN_HTTPS, S3_ORIGIN_S3 }
    s3_origin_scheme_e;

typedef struct {
    s3_origin_scheme_e  scheme;
    s3_uri_endpoint_t   endpoint;    /* http, https: host, port, tls */
    s3_str_t            authority;   /* as written: host and port, or bucket */
    s3_str_t            bucket, key; /* s3: the key as written, not decoded, '?'
                                        and '#' are part of it */
    s3_str_t            target;      /* http, https: path and query as written,
                                        "" where there is none; no fragment */
} s3_origin_t;


/* http[s]://host[:port][/path][?query][#fragment] or s3://bucket/key; the
   scheme in any case (RFC 3986). Refused: user information, control bytes, what
   s3_uri_parse_endpoint refuses in host and port, what s3_uri_check_bucket and
   s3_uri_check_key refuse, more than S3_ORIGIN_MAX bytes. All in o are slices
   of url, which has to outlive it. S3_OK, or S3_ERROR and *err is a constant
   string; what o holds then means nothing. */
int s3_origin_parse(s3_str_t url, s3_origin_t *o, const char **err);

/* Appends what of o->target goes on the request line (RFC 9112, 3.2.1): bytes
   that cannot stand in a URI are percent-encoded, '%' stays; "/" where there is
   no path. At most 3 bytes for one, and 1. S3_OK, S3_ERROR: out is too
   small. */
int s3_origin_target(s3_str_t target, s3_buf_t *out);

/* Appends what ref, the value of Location, means at base, an http or https
   URL: RFC 3986, 5.2, strict; dot segments are removed, the fragment is
   dropped, nothing is encoded. S3_ORIGIN_ROOM bytes are enough. The outcome may
   be no origin at all (another scheme, a user): s3_origin_parse() tells.
   S3_OK, or S3_ERROR and *err is a constant string. */
#define S3_ORIGIN_ROOM(base, ref)                                            \
    (sizeof("https:///") - 1 + (base)->authority.len + (base)->target.len    \
     + (ref).len)

int s3_origin_resolve(const s3_origin_t *base, s3_str_t ref, s3_buf_t *out,
    const char **err);

/* Appends url, which need not be valid, as logs and records may show it:
   without user, query and fragment, bytes that cannot stand in a URI
   percent-encoded, of an authority that is no host and port nothing. What does
   not fit is cut off. */
void s3_origin_shown(s3_str_t url, s3_buf_t *out);

/* Content-Range (RFC 9110, 14.4). S3_OK: "bytes f-l/t", the first and the last
   byte's offset and the whole length, -1: "*", not known. S3_DECLINED: an
   asterisk for f-l, the answer to a range that cannot be satisfied (416); only
   *total is set. S3_ERROR: malformed, another unit, or numbers that cannot be
   true. None is above INT64_MAX. */
int s3_origin_content_range(s3_str_t value, uint64_t *first, uint64_t *last,
    int64_t *total);

/* 1: the same origin (RFC 6454, 5): scheme, host, as written but for its case,
   and port; of s3: the bucket; 0: another */
int s3_origin_same(const s3_origin_t *a, const s3_origin_t *b);

/* 1: a strong entity tag, which If-Range may carry (RFC 9110, 8.8.3), 0: a weak
   one, or none */
int s3_origin_strong(s3_str_t etag);


#endif /* S3_ORIGIN_H */
