#include "s3_str.h"

#include <string.h>

#include <openssl/crypto.h>


static int s3_str_lower(int c);


/* letters, digits and !#$%&'*+-.^_`|~, a bit each */

static const uint32_t  s3_str_tchars[4] = {
    0x00000000, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff
};


static int
s3_str_lower(int c)
{
    return (c >= 'A' && c <= 'Z') ? c | 0x20 : c;
}


s3_str_t
s3_str(const char *s)
{
    s3_str_t  str;

    str.len = strlen(s);
    str.data = (const unsigned char *) s;

    return str;
}


int
s3_str_eq(s3_str_t a, s3_str_t b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}


int
s3_str_eqs(s3_str_t a, const char *s)
{
    return s3_str_eq(a, s3_str(s));
}


int
s3_str_case_eqs(s3_str_t a, const char *lower)
{
    return s3_str_case_eq(a, s3_str(lower));
}


int
s3_str_case_eq(s3_str_t a, s3_str_t b)
{
    size_t  i;

    if (a.len != b.len) {
        return 0;
    }

    for (i = 0; i < a.len; i++) {
        if (s3_str_lower(a.data[i]) != s3_str_lower(b.data[i])) {
            return 0;
        }
    }

    return 1;
}


int
s3_str_tchar(unsigned char c)
{
    return c < 0x80 && (s3_str_tchars[c >> 5] >> (c & 0x1f) & 1);
}


int
s3_str_u64(s3_str_t s, uint64_t max, uint64_t *n)
{
    size_t    i;
    unsigned  digit;

    if (s.len == 0) {
        return S3_ERROR;
    }

    *n = 0;

    for (i = 0; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9') {
            return S3_ERROR;
        }

        digit = (unsigned) (s.data[i] - '0');

        if (digit > max || *n > (max - digit) / 10) {
            return S3_ERROR;
        }

        *n = *n * 10 + digit;
    }

    return S3_OK;
}


size_t
s3_str_copy(char *dst, size_t size, s3_str_t src)
{
    size_t  n;

    if (size == 0) {
        return 0;
    }

    n = (src.len < size) ? src.len : size - 1;

    if (n != 0) {
        memcpy(dst, src.data, n);
    }

    dst[n] = '\0';

    return n;
}


void
s3_buf_init(s3_buf_t *b, void *mem, size_t size)
{
    b->start = mem;
    b->pos = b->start;
    b->end = (mem == NULL) ? b->start : b->start + size;
    b->overflow = 0;
}


void
s3_buf_put(s3_buf_t *b, const void *data, size_t len)
{
    size_t  room;

    /* once a byte was dropped, nothing follows it: no gap in the middle */

    if (b->overflow) {
        return;
    }

    room = b->end - b->pos;

    if (len > room) {
        b->overflow = 1;
        len = room;
    }

    if (len != 0) {
        memcpy(b->pos, data, len);
        b->pos += len;
    }
}


void
s3_buf_puts(s3_buf_t *b, const char *s)
{
    s3_buf_put(b, s, strlen(s));
}


void
s3_buf_put_str(s3_buf_t *b, s3_str_t s)
{
    s3_buf_put(b, s.data, s.len);
}


void
s3_buf_putc(s3_buf_t *b, char c)
{
    if (b->overflow || b->pos == b->end) {
        b->overflow = 1;
        return;
    }

    *b->pos++ = (unsigned char) c;
}


void
s3_buf_put_u64(s3_buf_t *b, uint64_t n)
{
    char   digits[20], *p;

    p = digits + sizeof(digits);

    do {
        *--p = (char) ('0' + n % 10);
        n /= 10;
    } while (n != 0);

    s3_buf_put(b, p, digits + sizeof(digits) - p);
}


void
s3_buf_put_hex(s3_buf_t *b, const unsigned char *data, size_t len)
{
    size_t             i;
    char               digits[64];
    static const char  hex[] = "0123456789abcdef";

    for (i = 0; i < len; i++) {
        digits[i % 32 * 2] = hex[data[i] >> 4];
        digits[i % 32 * 2 + 1] = hex[data[i] & 0xf];

        if (i % 32 == 31 || i == len - 1) {
            s3_buf_put(b, digits, i % 32 * 2 + 2);
        }
    }
}


s3_str_t
s3_buf_str(const s3_buf_t *b)
{
    s3_str_t  str;

    str.len = b->pos - b->start;
    str.data = b->start;

    return str;
}


void
s3_wipe(void *p, size_t len)
{
    OPENSSL_cleanse(p, len);
}


size_t
s3_str_utf8(const unsigned char *p, size_t len)
{
    size_t         i, n;
    unsigned char  low, high;

    low = 0x80;
    high = 0xbf;

    if (p[0] < 0x80) {
        return 1;

    } else if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        n = 2;

    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        n = 3;

        /* overlong forms and surrogates */

        low = (p[0] == 0xe0) ? 0xa0 : 0x80;
        high = (p[0] == 0xed) ? 0x9f : 0xbf;

    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        n = 4;

        /* overlong forms and what is above U+10FFFF */

        low = (p[0] == 0xf0) ? 0x90 : 0x80;
        high = (p[0] == 0xf4) ? 0x8f : 0xbf;

    } else {
        return 0;
    }

    if (len < n || p[1] < low || p[1] > high) {
        return 0;
    }

    for (i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }

    return n;
}
