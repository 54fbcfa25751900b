/*
 * What unit tests share. Includes what cmocka.h needs before it.
 */

#ifndef S3_TEST_H
#define S3_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "s3_str.h"


/* A slice in memory that ends where it does, so that ASan sees what reads on:
   from malloc(), since test_malloc() puts bytes of its own behind what it
   returns. To be given to s3_test_drop(). */

static inline s3_str_t
s3_test_copy(const char *data, size_t len)
{
    s3_str_t        str;
    unsigned char  *p;

    p = malloc(len ? len : 1);
    assert_non_null(p);

    if (len != 0) {
        memcpy(p, data, len);
    }

    str.data = len ? p : p + 1;
    str.len = len;

    return str;
}


static inline s3_str_t
s3_test_str(const char *s)
{
    return s3_test_copy(s, strlen(s));
}


static inline void
s3_test_drop(s3_str_t s)
{
    free((void *) (s.len ? s.data : s.data - 1));
}


/* what: whose result `got` is */

static inline void
s3_test_equals(const char *what, s3_str_t got, const char *expected)
{
    if (!s3_str_eqs(got, expected)) {
        fail_msg("\"%s\" gives \"%.*s\" and not \"%s\"", what, (int) got.len,
                 (const char *) got.data, expected);
    }
}


/* all of want, and nothing else */

static inline void
assert_written(const s3_buf_t *b, const char *want)
{
    assert_int_equal(b->overflow, 0);
    assert_int_equal(b->pos - b->start, strlen(want));
    assert_memory_equal(b->start, want, strlen(want));
}


#endif /* S3_TEST_H */
