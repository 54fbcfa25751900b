#include "s3_test.h"

#include "s3_str.h"


/* RFC 9110, 5.6.2: VCHAR but for delimiters, which it lists */

static void
test_tchar(void **state)
{
    int  c, want;

    (void) state;

    for (c = 0; c < 256; c++) {
        want = c > ' ' && c < 0x7f && !strchr("\"(),/:;<=>?@[\\]{}", c);
        assert_int_equal(s3_str_tchar((unsigned char) c), want);
    }
}


static void
test_u64(void **state)
{
    uint64_t  n;

    (void) state;

    assert_int_equal(s3_str_u64(s3_str("18446744073709551615"), UINT64_MAX, &n),
                     S3_OK);
    assert_true(n == UINT64_MAX);

    assert_int_equal(s3_str_u64(s3_str("0010"), 10, &n), S3_OK);
    assert_true(n == 10);

    assert_int_equal(s3_str_u64(s3_str("0"), 0, &n), S3_OK);
    assert_true(n == 0);

    assert_int_equal(s3_str_u64(s3_str("18446744073709551616"), UINT64_MAX, &n),
                     S3_ERROR);
    assert_int_equal(s3_str_u64(s3_str("11"), 10, &n), S3_ERROR);
    assert_int_equal(s3_str_u64(s3_str("5"), 4, &n), S3_ERROR);
    assert_int_equal(s3_str_u64(s3_str(""), 10, &n), S3_ERROR);
    assert_int_equal(s3_str_u64(s3_str("-1"), 10, &n), S3_ERROR);
    assert_int_equal(s3_str_u64(s3_str("1 "), 10, &n), S3_ERROR);
}


static void
test_utf8(void **state)
{
    size_t  i;

    static const struct {
        const char  *bytes;
        size_t       len;
    } cases[] = {
        { "a", 1 },
        { "\xc2\x80", 2 },
        { "\xdf\xbf", 2 },
        { "\xe0\xa0\x80", 3 },
        { "\xed\x9f\xbf", 3 },
        { "\xf0\x90\x80\x80", 4 },
        { "\xf4\x8f\xbf\xbf", 4 },

        /* overlong, a surrogate, above U+10FFFF, cut, no beginning */

        { "\xc1\xbf", 0 },
        { "\xe0\x9f\xbf", 0 },
        { "\xed\xa0\x80", 0 },
        { "\xf0\x8f\xbf\xbf", 0 },
        { "\xf4\x90\x80\x80", 0 },
        { "\xf5\x80\x80\x80", 0 },
        { "\xe2\x82", 0 },
        { "\xe2\x82" "a", 0 },
        { "\x80", 0 }
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(s3_str_utf8((const unsigned char *) cases[i].bytes,
                                     strlen(cases[i].bytes)),
                         cases[i].len);
    }
}


static void
test_copy(void **state)
{
    char  dst[4];

    (void) state;

    assert_int_equal(s3_str_copy(dst, sizeof(dst), s3_str("ab")), 2);
    assert_string_equal(dst, "ab");

    assert_int_equal(s3_str_copy(dst, sizeof(dst), s3_str("abcd")), 3);
    assert_string_equal(dst, "abc");

    assert_int_equal(s3_str_copy(dst, sizeof(dst), s3_str("")), 0);
    assert_string_equal(dst, "");

    dst[0] = 'x';
    assert_int_equal(s3_str_copy(dst, 0, s3_str("ab")), 0);
    assert_int_equal(dst[0], 'x');
}


static void
test_buf(void **state)
{
    s3_buf_t       b;
    unsigned char  mem[33];

    (void) state;

    memset(mem, '#', sizeof(mem));
    s3_buf_init(&b, mem, sizeof(mem) - 1);

    s3_buf_puts(&b, "n=");
    s3_buf_put_u64(&b, UINT64_MAX);
    s3_buf_putc(&b, ' ');
    s3_buf_put_hex(&b, (const unsigned char *) "\x00\xfe", 2);
    s3_buf_put(&b, NULL, 0);
    assert_false(b.overflow);
    assert_written(&b, "n=18446744073709551615 00fe");

    /* five are left */

    s3_buf_puts(&b, "12345");
    assert_false(b.overflow);

    s3_buf_putc(&b, '6');
    assert_true(b.overflow);
    assert_memory_equal(mem, "n=18446744073709551615 00fe12345", 32);
    assert_int_equal(mem[sizeof(mem) - 1], '#');

    /* what is too long is cut, and nothing follows it */

    s3_buf_init(&b, mem, 4);
    s3_buf_puts(&b, "ab");
    s3_buf_puts(&b, "cdef");
    assert_true(b.overflow);
    s3_buf_putc(&b, 'g');
    assert_int_equal(s3_buf_str(&b).len, 4);
    assert_memory_equal(mem, "abcd", 4);

    s3_buf_init(&b, NULL, 0);
    s3_buf_put(&b, NULL, 0);
    assert_false(b.overflow);
    s3_buf_putc(&b, 'a');
    assert_true(b.overflow);
    assert_int_equal(s3_buf_str(&b).len, 0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_tchar),
        cmocka_unit_test(test_u64),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_buf)
    };

    return cmocka_run_group_tests_name("s3_str", tests, NULL, NULL);
}
