/*
 * The N-th allocation of OpenSSL fails: an error, no leak (under ASan), no
 * wrong result, and nothing left in OpenSSL's queue of errors, where nginx
 * would take it for that of another connection. No malloc() at all: the answer
 * to CreateMultipartUpload is read all the same.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <openssl/crypto.h>
#include <openssl/err.h>

#include "s3_checksum.h"
#include "s3_sigv4.h"
#include "s3_xml.h"


#define MAX_N  2000


static unsigned long  count, fail_at;
static int            exhausted;
static const char     abc_digest[] =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";


/* in place of malloc() in lib/, see Makefile */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);


void *
__wrap_malloc(size_t size)
{
    return exhausted ? NULL : __real_malloc(size);
}


static void *
some_malloc(size_t size, const char *file, int line)
{
    (void) file;
    (void) line;

    return (++count == fail_at) ? NULL : malloc(size);
}


static void *
some_realloc(void *p, size_t size, const char *file, int line)
{
    (void) file;
    (void) line;

    return (++count == fail_at) ? NULL : realloc(p, size);
}


static void
some_free(void *p, const char *file, int line)
{
    (void) file;
    (void) line;

    free(p);
}


static int
hash_once(char *out, size_t size)
{
    (void) size;

    return s3_sha256("abc", 3, out);
}


static int
hash_in_steps(char *out, size_t size)
{
    int           rc;
    s3_sha256_t  *h;

    (void) size;

    h = s3_sha256_create();
    if (h == NULL) {
        return S3_ERROR;
    }

    rc = s3_sha256_update(h, "xyz", 3);

    if (rc == S3_OK) {
        rc = s3_sha256_reset(h);
    }

    if (rc == S3_OK) {
        rc = s3_sha256_update(h, "abc", 3);
    }

    if (rc == S3_OK) {
        rc = s3_sha256_hex(h, out);
    }

    s3_sha256_destroy(h);

    return rc;
}


static int
sign(char *out, size_t size)
{
    int                 rc;
    s3_buf_t            b;
    s3_keys_t           keys;
    s3_field_t          field;
    s3_sigv4_cache_t    cache;
    s3_sigv4_request_t  r;

    memset(&keys, 0, sizeof(keys));
    memset(&cache, 0, sizeof(cache));

    keys.access_key = s3_str("AKIDEXAMPLE");
    keys.secret_key = s3_str("secret");

    field.name = s3_str("host");
    field.value = s3_str("example.test");

    r.method = s3_str("GET");
    r.path = s3_str("/");
    r.query = s3_str("");
    r.fields = &field;
    r.nfields = 1;
    r.payload = s3_str(abc_digest);
    r.region = s3_str("us-east-1");
    r.service = s3_str("s3");
    r.date = s3_str("20260101T000000Z");

    s3_buf_init(&b, (unsigned char *) out, size - 1);

    rc = s3_sigv4_authorization(&cache, &keys, &r, &b);
    *b.pos = '\0';

    return rc;
}


static void
each_allocation(int (*call)(char *out, size_t size))
{
    int            rc;
    char           right[1024], out[1024];
    unsigned long  n;

    fail_at = 0;
    assert_int_equal(call(right, sizeof(right)), S3_OK);

    for (n = 1; n < MAX_N; n++) {
        count = 0;
        fail_at = n;
        memset(out, 0, sizeof(out));

        rc = call(out, sizeof(out));

        fail_at = 0;
        assert_int_equal(ERR_peek_error(), 0);

        if (rc == S3_OK) {
            assert_string_equal(out, right);
        }

        if (count < n) {
            break;
        }
    }

    assert_true(n > 1 && n < MAX_N);

    /* and the next one is as the first */

    assert_int_equal(call(out, sizeof(out)), S3_OK);
    assert_string_equal(out, right);
}


static void
test_hash_once(void **state)
{
    (void) state;

    each_allocation(hash_once);
}


static void
test_hash_in_steps(void **state)
{
    (void) state;

    each_allocation(hash_in_steps);
}


static void
test_sign(void **state)
{
    (void) state;

    each_allocation(sign);
}


static void
test_create_without_memory(void **state)
{
    int                       i;
    s3_xml_reply_t            reply;
    static const char         text[] =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        "<InitiateMultipartUploadResult "
        "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
        "<Bucket>bucket</Bucket><Key>a/key</Key>"
        "<UploadId>null/1+&amp;==</UploadId>"
        "</InitiateMultipartUploadResult>";

    (void) state;

    memset(&reply, 0, sizeof(reply));

    for (i = 0; i < 100; i++) {
        exhausted = 1;
        assert_int_equal(s3_xml_parse(&reply, (const unsigned char *) text,
                                      sizeof(text) - 1),
                         S3_OK);
        exhausted = 0;

        assert_int_equal(reply.root, S3_XML_INITIATE);
        assert_string_equal(reply.upload_id, "null/1+&==");
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_hash_once),
        cmocka_unit_test(test_hash_in_steps),
        cmocka_unit_test(test_sign),
        cmocka_unit_test(test_create_without_memory)
    };

    /* before OpenSSL's first allocation */

    if (CRYPTO_set_mem_functions(some_malloc, some_realloc, some_free) != 1) {
        return 1;
    }

    return cmocka_run_group_tests_name("s3_memory", tests, NULL, NULL);
}
