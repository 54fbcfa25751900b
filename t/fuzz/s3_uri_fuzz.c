/*
 * Any bytes as endpoint, key, bucket and id. What passes a check must keep
 * its promise, and an encoded key must decode to itself.
 */

#include <stdlib.h>
#include <string.h>

#include "s3_uri.h"


int LLVMFuzzerTestOneInput(const unsigned char *p, size_t len);
static void endpoint(s3_str_t s);
static void key(s3_str_t s);
static int hex(unsigned char c);


static void
endpoint(s3_str_t s)
{
    s3_str_t           region;
    const char        *err;
    s3_uri_endpoint_t  e;

    err = NULL;

    if (s3_uri_parse_endpoint(s, &e, &err) != S3_OK) {
        if (err == NULL) {
            abort();
        }

        return;
    }

    if (e.host.len == 0 || e.host.data < s.data
        || e.host.data + e.host.len > s.data + s.len
        || e.port == 0 || e.port > 65535
        || memchr(e.host.data, '/', e.host.len)
        || memchr(e.host.data, '\0', e.host.len)
        || memchr(e.host.data, '\n', e.host.len))
    {
        abort();
    }

    region = s3_uri_region(e.host);

    if (region.len == 0) {
        abort();
    }
}


static int
hex(unsigned char c)
{
    return (c >= '0' && c <= '9') ? c - '0' : c - 'A' + 10;
}


static void
key(s3_str_t s)
{
    size_t          i, n;
    s3_buf_t        b;
    const char     *err;
    unsigned char  *mem, c;

    mem = malloc(3 * s.len + 1);
    s3_buf_init(&b, mem, 3 * s.len);
    s3_uri_encode(&b, s, 1);

    if (b.overflow) {
        abort();
    }

    for (i = 0, n = 0; mem + i < b.pos; i++, n++) {
        c = mem[i];

        if (c == '%') {
            c = (unsigned char) (hex(mem[i + 1]) << 4 | hex(mem[i + 2]));
            i += 2;
        }

        if (n == s.len || c != s.data[n]) {
            abort();
        }
    }

    if (n != s.len) {
        abort();
    }

    free(mem);

    if (s3_uri_check_key(s, &err) != S3_OK) {
        return;
    }

    if (s.len == 0 || s.len > S3_KEY_MAX || s.data[s.len - 1] == '/'
        || (s.len >= 2 && memcmp(s.data, "./", 2) == 0)
        || (s.len >= 3 && memcmp(s.data, "../", 3) == 0))
    {
        abort();
    }

    for (i = 0; i < s.len; i++) {

        if (s.data[i] < 0x20) {
            abort();
        }

        if (s.len - i >= 4 && memcmp(s.data + i, "/../", 4) == 0) {
            abort();
        }
    }
}


int
LLVMFuzzerTestOneInput(const unsigned char *p, size_t len)
{
    s3_str_t        s;
    const char     *err;
    unsigned char  *copy;

    copy = malloc(len ? len : 1);

    if (len != 0) {
        memcpy(copy, p, len);
    }

    s.data = copy;
    s.len = len;

    endpoint(s);
    key(s);

    if (s3_uri_check_bucket(s, &err) == S3_OK
        && (len < S3_BUCKET_MIN || len > S3_BUCKET_MAX))
    {
        abort();
    }

    if (s3_uri_check_id(s) == S3_OK && (len < 16 || len > 64)) {
        abort();
    }

    (void) s3_uri_region(s);

    free(copy);

    return 0;
}
