#include <stdio.h>

#include <jansson.h>

#include "s3_record_test.h"


static const char  filled_json[] =
    "{\"transferId\":\"0123456789abcdef0123456789abcdef\","
    "\"attempt\":1795467600123,"
    "\"sequence\":42,"
    "\"state\":\"completed\","
    "\"direction\":\"upload\","
    "\"bucket\":\"incoming\","
    "\"key\":\"videos/\xc3\xa4 \\\"quoted\\\".mp4\","
    "\"bytesTransferred\":9029243448,"
    "\"bytesStored\":9029243448,"
    "\"totalBytes\":9029243448,"
    "\"percentage\":100,"
    "\"storedPercentage\":100,"
    "\"partsStored\":539,"
    "\"rate\":100324927,"
    "\"startedAt\":\"2026-11-23T21:00:00.123Z\","
    "\"updatedAt\":\"2026-11-23T21:01:30.123Z\","
    "\"expiresAt\":\"2026-11-24T21:01:30.123Z\","
    "\"etag\":\"\\\"16cafe8d6b8c1c55c3d339c8d69326c6-2\\\"\","
    "\"error\":null,"
    "\"crc32\":\"y/Q5Jg==\"}";

static const char  empty_json[] =
    "{\"transferId\":null,\"attempt\":0,\"sequence\":0,\"state\":\"active\","
    "\"direction\":\"upload\",\"bucket\":null,\"key\":null,"
    "\"bytesTransferred\":0,\"bytesStored\":0,\"totalBytes\":null,"
    "\"percentage\":0,\"storedPercentage\":0,\"partsStored\":0,\"rate\":0,"
    "\"startedAt\":null,\"updatedAt\":null,\"expiresAt\":null,"
    "\"etag\":null,\"error\":null}";


static void
test_json(void **state)
{
    char      mem[1000];
    s3_buf_t  b;

    (void) state;

    fill();
    s3_buf_init(&b, mem, sizeof(mem));
    assert_int_equal(s3_record_json(&r, &b), S3_OK);
    assert_written(&b, filled_json);

    s3_record_init(&r);
    s3_buf_init(&b, mem, sizeof(mem));
    assert_int_equal(s3_record_json(&r, &b), S3_OK);
    assert_written(&b, empty_json);

    r.direction = S3_DOWNLOAD;
    r.has_crc32 = 1;
    s3_buf_init(&b, mem, sizeof(mem));
    assert_int_equal(s3_record_json(&r, &b), S3_OK);
    mem[b.pos - b.start] = '\0';
    assert_non_null(strstr(mem, "\"direction\":\"download\""));
    assert_non_null(strstr(mem, "\"crc32\":\"AAAAAA==\"}"));
}


static void
test_json_bounded(void **state)
{
    size_t          i, len;
    s3_buf_t        b;
    unsigned char  *mem;

    (void) state;

    fill();
    len = sizeof(filled_json) - 1;

    for (i = 0; i <= len; i++) {
        mem = malloc(i ? i : 1);
        assert_non_null(mem);
        s3_buf_init(&b, mem, i);

        if (i == len) {
            assert_int_equal(s3_record_json(&r, &b), S3_OK);
            assert_written(&b, filled_json);

        } else {
            assert_int_equal(s3_record_json(&r, &b), S3_ERROR);
            assert_int_equal(b.overflow, 1);
            assert_ptr_equal(b.pos, b.start);
        }

        free(mem);
    }
}


static void
test_json_not_utf8(void **state)
{
    char      mem[1000];
    json_t   *json;
    s3_buf_t  b;

    (void) state;

    fill();
    strcpy(r.key, "a\xff" "b");

    s3_buf_init(&b, mem, sizeof(mem));
    assert_int_equal(s3_record_json(&r, &b), S3_OK);

    json = json_loadb(mem, (size_t) (b.pos - b.start), 0, NULL);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "key")),
                        "a\xef\xbf\xbd" "b");
    json_decref(json);
}


/* each byte alone and between others as jansson would print it */

static void
test_json_as_jansson(void **state)
{
    char       mem[1000], *want;
    json_t    *json;
    s3_buf_t   b;
    unsigned   i;

    (void) state;

    fill();

    for (i = 1; i < 256; i++) {
        snprintf(r.key, sizeof(r.key), "%c", i);
        snprintf(r.error, sizeof(r.error), "\xc3\xa4/%c%c\x7f z", i, i);

        s3_buf_init(&b, mem, sizeof(mem));
        assert_int_equal(s3_record_json(&r, &b), S3_OK);

        json = json_loadb(mem, (size_t) (b.pos - b.start), 0, NULL);
        assert_non_null(json);

        if (i < 0x80) {
            assert_string_equal(json_string_value(json_object_get(json,
                                                                  "key")),
                                r.key);
        }

        want = json_dumps(json, JSON_COMPACT);
        assert_non_null(want);
        assert_written(&b, want);

        free(want);
        json_decref(json);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_bounded),
        cmocka_unit_test(test_json_not_utf8),
        cmocka_unit_test(test_json_as_jansson)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
