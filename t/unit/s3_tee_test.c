#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "s3_tee.h"


/* metrics, the record and $s3_tee_status show these: they are not to change */

static void
test_names(void **state)
{
    (void) state;

    assert_string_equal(s3_tee_reason_name(S3_TEE_METHOD), "method");
    assert_string_equal(s3_tee_reason_name(S3_TEE_RANGE), "range");
    assert_string_equal(s3_tee_reason_name(S3_TEE_SUBREQUEST), "subrequest");
    assert_string_equal(s3_tee_reason_name(S3_TEE_STATUS), "status");
    assert_string_equal(s3_tee_reason_name(S3_TEE_ERROR_PAGE), "error_page");
    assert_string_equal(s3_tee_reason_name(S3_TEE_SET_COOKIE), "set_cookie");
    assert_string_equal(s3_tee_reason_name(S3_TEE_CACHE_CONTROL),
                        "cache_control");
    assert_string_equal(s3_tee_reason_name(S3_TEE_CLOSE_DELIMITED),
                        "close_delimited");
    assert_string_equal(s3_tee_reason_name(S3_TEE_SIZE), "size");
    assert_string_equal(s3_tee_reason_name(S3_TEE_CONDITION), "condition");
    assert_string_equal(s3_tee_reason_name(S3_TEE_KEY), "key");
    assert_string_equal(s3_tee_reason_name(S3_TEE_BUSY), "busy");
    assert_string_equal(s3_tee_reason_name(S3_TEE_EXISTS), "exists");
    assert_string_equal(s3_tee_reason_name(S3_TEE_NO_MEMORY), "no_memory");
    assert_string_equal(s3_tee_reason_name(S3_TEE_OVERRUN), "overrun");
    assert_string_equal(s3_tee_reason_name(S3_TEE_TRUNCATED), "truncated");
    assert_string_equal(s3_tee_reason_name(S3_TEE_CLIENT), "client");
    assert_string_equal(s3_tee_reason_name(S3_TEE_FAILED), "failed");
}


/* each once, and nothing for what is none */

static void
test_all(void **state)
{
    unsigned     i, k;
    const char  *name;

    (void) state;

    for (i = 0; i < S3_TEE_N; i++) {
        name = s3_tee_reason_name(i);

        assert_non_null(name);
        assert_true(strlen(name) > 0);
        assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz_"),
                         strlen(name));

        for (k = 0; k < i; k++) {
            assert_string_not_equal(name, s3_tee_reason_name(k));
        }
    }

    assert_string_equal(s3_tee_reason_name(S3_TEE_N), "");
    assert_string_equal(s3_tee_reason_name((s3_tee_reason_e) -1), "");
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_all)
    };

    return cmocka_run_group_tests_name("s3_tee", tests, NULL, NULL);
}
