#ifndef S3_HTTP_H
#define S3_HTTP_H

#include "s3_str.h"

#define S3_HTTP_MAX_LINE    8192     /* one line, bytes */
#define S3_HTTP_MAX_HEAD    65536    /* the whole head */
#define S3_HTTP_MAX_FIELDS  1024     /* metadata of 2 KB may have hundreds */

/* Incremental HTTP/1.1 reply parser (RFC 9112). Interim replies (1xx) are
   read and dropped, at most 16, except 101, which is an error. Trailers and
   chunk extensions are dropped, and so is a field that is longer than a line
   may be, unless it frames the reply. Line ends may be a bare LF.
   S3_HTTP_MAX_HEAD bounds interim replies, head and trailers together,
   S3_HTTP_MAX_FIELDS each of them. */

typedef struct s3_http_s  s3_http_t;

struct s3_http_s {
    /* the caller's */
    int      (*field)(void *data, s3_str_t name, s3_str_t value);
                                     /* name in lower case; slices live during
                                        the call; not S3_OK: parsing ends */
    int      (*body)(void *data, const unsigned char *p, size_t len);
                                     /* decoded; p is within what was fed, len
                                        is not 0; not S3_OK: parsing ends */
    void      *data;                 /* either may be NULL: not wanted */
    unsigned   head:1;               /* reply to HEAD: no body */

    /* results, valid once head_done */
    unsigned   status;
    int64_t    content_length;       /* -1: none; for HEAD the object's */
    unsigned   head_done:1;
    unsigned   chunked:1;
    unsigned   close_delimited:1;    /* the body ends with the connection: a cut
                                        one cannot be told from a whole one */
    unsigned   keepalive:1;          /* the connection may serve another
                                        request once the reply is whole: look
                                        then, bytes after it clear this */
    unsigned   started:1;            /* at least one byte was seen */
    const char *err;                 /* S3_ERROR: constant string */

    /* the parser's own */
    unsigned   state;
    unsigned   fields;
    size_t     head_size;
    uint64_t   left;
    size_t     line_len;
    unsigned   flags;
    unsigned char  line[S3_HTTP_MAX_LINE];
};

/* For one reply; holds no memory of its own. head: the request was HEAD. */
void s3_http_init(s3_http_t *h, int head,
    int (*field)(void *data, s3_str_t name, s3_str_t value),
    int (*body)(void *data, const unsigned char *p, size_t len), void *data);

/* S3_OK: the reply is whole, *used bytes of p were part of it; S3_AGAIN: all
   bytes used, more needed; S3_ERROR: see err. Both ends are final: what
   follows returns the same. */
int s3_http_feed(s3_http_t *h, const unsigned char *p, size_t len,
    size_t *used);

/* the peer closed: S3_OK where that ends a close-delimited body, else
   S3_ERROR */
int s3_http_eof(s3_http_t *h);

#endif
