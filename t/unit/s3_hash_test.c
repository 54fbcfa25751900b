#include "s3_test.h"

#include "s3_hash.h"

#include <openssl/hmac.h>


static void
assert_digest(const unsigned char digest[S3_HASH_LEN], const char *want)
{
    s3_buf_t       b;
    unsigned char  hex[2 * S3_HASH_LEN];

    s3_buf_init(&b, hex, sizeof(hex));
    s3_buf_put_hex(&b, digest, S3_HASH_LEN);

    assert_memory_equal(hex, want, sizeof(hex));
}


static void
test_sha256(void **state)
{
    int             i;
    EVP_MD_CTX     *md;
    unsigned char   digest[S3_HASH_LEN];

    (void) state;

    assert_int_equal(s3_hash_init(), S3_OK);
    assert_int_equal(s3_hash_init(), S3_OK);

    /* FIPS 180-4, whatever was begun before */

    for (i = 0; i < 3; i++) {
        md = s3_hash_begin();
        assert_non_null(md);
        assert_int_equal(EVP_DigestUpdate(md, "forgotten", 9), 1);

        md = s3_hash_begin();
        assert_non_null(md);
        assert_int_equal(EVP_DigestUpdate(md, "a", 1), 1);
        assert_int_equal(EVP_DigestUpdate(md, "bc", 2), 1);
        assert_int_equal(s3_hash_end(md, digest), S3_OK);

        assert_digest(digest, "ba7816bf8f01cfea414140de5dae2223"
                      "b00361a396177a9cb410ff61f20015ad");
    }
}


/* RFC 4231 */

static void
test_hmac(void **state)
{
    unsigned char  key[131], digest[S3_HASH_LEN];

    (void) state;

    memset(key, 0x0b, 20);
    assert_int_equal(s3_hash_hmac(key, 20, s3_str("Hi There"), digest),
                     S3_OK);
    assert_digest(digest, "b0344c61d8db38535ca8afceaf0bf12b"
                  "881dc200c9833da726e9376c2e32cff7");

    assert_int_equal(s3_hash_hmac("Jefe", 4,
                                  s3_str("what do ya want for nothing?"),
                                  digest), S3_OK);
    assert_digest(digest, "5bdcc146bf60754e6a042426089575c7"
                  "5a003f089d2739839dec58b964ec3843");

    memset(key, 0xaa, sizeof(key));
    assert_int_equal(s3_hash_hmac(key, sizeof(key),
                                  s3_str("Test Using Larger Than Block-Size "
                                         "Key - Hash Key First"),
                                  digest), S3_OK);
    assert_digest(digest, "60e431591ee0b67f0d8a26aacbf5b77f"
                  "8e0bc6213728c5140546040f0ee37f54");
}


/* keys of a block's length and beside it, against OpenSSL's own */

static void
test_hmac_keys(void **state)
{
    size_t         len;
    unsigned       n;
    unsigned char  key[70], digest[S3_HASH_LEN], want[S3_HASH_LEN];

    (void) state;

    for (len = 0; len < sizeof(key); len++) {
        key[len] = (unsigned char) (len * 7);
    }

    for (len = 0; len < sizeof(key); len++) {
        n = sizeof(want);

        assert_non_null(HMAC(EVP_sha256(), key, (int) len,
                             (unsigned char *) "data", 4, want, &n));
        assert_int_equal(s3_hash_hmac(key, len, s3_str("data"), digest),
                         S3_OK);
        assert_memory_equal(digest, want, S3_HASH_LEN);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_hmac),
        cmocka_unit_test(test_hmac_keys)
    };

    return cmocka_run_group_tests_name("s3_hash", tests, NULL, NULL);
}
