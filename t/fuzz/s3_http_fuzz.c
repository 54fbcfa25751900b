/*
 * Feeds a reply whole and cut in two, and wants the same result: the first
 * two bytes of the input choose the cut and HEAD.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "s3_checksum.h"
#include "s3_http.h"


typedef struct {
    int       rc;
    int       eof;
    size_t    used;
    unsigned  fields;
    uint32_t  sum;
    uint64_t  bytes;
    unsigned  status;
    int64_t   content_length;
} result_t;


int LLVMFuzzerTestOneInput(const unsigned char *p, size_t len);
static int field(void *data, s3_str_t name, s3_str_t value);
static int body(void *data, const unsigned char *p, size_t len);
static void run(result_t *r, int head, const unsigned char *p, size_t len,
    size_t cut);
static int feed(result_t *r, s3_http_t *h, const unsigned char *p,
    size_t len);


static int
field(void *data, s3_str_t name, s3_str_t value)
{
    result_t  *r;

    r = data;
    r->fields++;
    r->sum = s3_crc32(r->sum, name.data, name.len);
    r->sum = s3_crc32(r->sum, value.data, value.len);

    return S3_OK;
}


static int
body(void *data, const unsigned char *p, size_t len)
{
    result_t  *r;

    r = data;
    r->bytes += len;
    r->sum = s3_crc32(r->sum, p, len);

    return S3_OK;
}


static int
feed(result_t *r, s3_http_t *h, const unsigned char *p, size_t len)
{
    int             rc;
    size_t          used;
    unsigned char  *copy;

    /* of exactly this size, so that a read past it is seen */

    copy = malloc(len ? len : 1);

    if (len != 0) {
        memcpy(copy, p, len);
    }

    used = 0;
    rc = s3_http_feed(h, copy, len, &used);

    free(copy);

    if (used > len || (rc == S3_AGAIN && used != len)
        || (rc == S3_ERROR && h->err == NULL))
    {
        abort();
    }

    r->used += used;

    return rc;
}


static void
run(result_t *r, int head, const unsigned char *p, size_t len, size_t cut)
{
    s3_http_t  h;

    memset(r, 0, sizeof(result_t));

    s3_http_init(&h, head, field, body, r);

    r->rc = feed(r, &h, p, cut);

    if (r->rc == S3_AGAIN) {
        r->rc = feed(r, &h, p + cut, len - cut);
    }

    r->eof = s3_http_eof(&h);
    r->status = h.head_done ? h.status : 0;
    r->content_length = h.head_done ? h.content_length : 0;
}


int
LLVMFuzzerTestOneInput(const unsigned char *p, size_t len)
{
    int       head;
    size_t    cut;
    result_t  whole, parts;

    if (len < 2) {
        return 0;
    }

    head = p[0] & 1;
    cut = p[1];
    p += 2;
    len -= 2;

    if (cut > len) {
        cut = len;
    }

    run(&whole, head, p, len, len);
    run(&parts, head, p, len, cut);

    if (whole.rc != parts.rc || whole.eof != parts.eof
        || whole.status != parts.status
        || whole.content_length != parts.content_length
        || whole.fields != parts.fields
        || (whole.rc != S3_ERROR && (whole.used != parts.used
                                     || whole.bytes != parts.bytes
                                     || whole.sum != parts.sum)))
    {
        fprintf(stderr, "cut at %zu changes the result\n", cut);
        abort();
    }

    return 0;
}
