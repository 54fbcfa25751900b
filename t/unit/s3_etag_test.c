#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "s3_etag.h"


/* in memory of its own size, so that a sanitizer sees a read past it */

static int
match(const char *list, const char *etag)
{
    int             rc;
    size_t          len;
    s3_str_t        s;
    unsigned char  *copy;

    len = strlen(list);
    copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, list, len);

    s.data = copy;
    s.len = len;

    rc = s3_etag_match(s, s3_str(etag));
    free(copy);

    return rc;
}


static void
test_same(void **state)
{
    (void) state;

    assert_int_equal(s3_etag_same(s3_str("\"a-2\""), s3_str("\"a-2\"")), 1);
    assert_int_equal(s3_etag_same(s3_str("a-2"), s3_str("\"a-2\"")), 1);
    assert_int_equal(s3_etag_same(s3_str("\"a-2\""), s3_str("a-2")), 1);
    assert_int_equal(s3_etag_same(s3_str("\"a\""), s3_str("\"A\"")), 0);
    assert_int_equal(s3_etag_same(s3_str("\"a\""), s3_str("\"a")), 0);
    assert_int_equal(s3_etag_same(s3_str("\""), s3_str("")), 0);
    assert_int_equal(s3_etag_same(s3_str("\"\""), s3_str("")), 1);
    assert_int_equal(s3_etag_same(s3_str("W/\"a\""), s3_str("W/\"a\"")), 0);
    assert_int_equal(s3_etag_same(s3_str("W/\"a\""), s3_str("\"a\"")), 0);
}


static void
test_match(void **state)
{
    (void) state;

    assert_int_equal(match("*", "\"a\""), 1);
    assert_int_equal(match(" * ", "\"a\""), 1);
    assert_int_equal(match("\"a\"", "\"a\""), 1);
    assert_int_equal(match("a", "\"a\""), 1);
    assert_int_equal(match("\"b\", \"a\"", "\"a\""), 1);
    assert_int_equal(match(",, \"b\" ,\t\"a\" ,", "\"a\""), 1);
    assert_int_equal(match("b,a", "\"a\""), 1);
    assert_int_equal(match("\"a\", W/\"b\"", "\"b\""), 0);
    assert_int_equal(match("\"b\"", "\"a\""), 0);
    assert_int_equal(match("\"aa\"", "\"a\""), 0);
    assert_int_equal(match("W/\"a\"", "\"a\""), 0);

    /* a comma is part of a tag, "*" within quotes is one */

    assert_int_equal(match("\"x,a\"", "\"a\""), 0);
    assert_int_equal(match("\"x,a\"", "\"x,a\""), 1);
    assert_int_equal(match("\"*\"", "\"a\""), 0);

    assert_int_equal(match("", "\"a\""), 0);
    assert_int_equal(match(" , ", ""), 0);
    assert_int_equal(match("\"a", "\"a\""), 0);
    assert_int_equal(match("\"", "\"\""), 0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_match)
    };

    return cmocka_run_group_tests_name("s3_etag", tests, NULL, NULL);
}
