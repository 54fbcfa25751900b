#define _DEFAULT_SOURCE          /* random(), MAP_ANONYMOUS */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <cmocka.h>

#include "s3_checksum.h"


#define RANDOM_BYTES  70000


/* exactly n bytes, so that a sanitizer sees a read past them */

static unsigned char *
filled(char c, size_t n)
{
    unsigned char  *p;

    p = malloc(n ? n : 1);
    assert_non_null(p);
    memset(p, c, n);

    return p;
}


static uint32_t
crc_of(char c, size_t n)
{
    uint32_t        crc;
    unsigned char  *p;

    p = filled(c, n);
    crc = s3_crc32(0, p, n);
    free(p);

    return crc;
}


static const char  digits[] = "123456789";


static void
assert_base64(uint32_t crc, const char *want)
{
    char      text[9];
    uint32_t  back;

    s3_crc32_base64(crc, text);
    assert_string_equal(text, want);

    back = ~crc;
    assert_int_equal(s3_crc32_parse(s3_str(want), &back), S3_OK);
    assert_int_equal(back, crc);
}


static void
test_check_values(void **state)
{
    (void) state;

    assert_int_equal(s3_crc32(0, "123456789", 9), 0xcbf43926);
    assert_base64(0xcbf43926, "y/Q5Jg==");

    assert_int_equal(s3_crc32(0, "Hello world", 11), 0x8bd69e52);
    assert_base64(0x8bd69e52, "i9aeUg==");

    assert_int_equal(crc_of('a', 66560), 0xb0ae18ec);
    assert_base64(0xb0ae18ec, "sK4Y7A==");

    assert_int_equal(crc_of('\0', 32), 0x190a55ad);

    assert_int_equal(s3_crc32(0, "", 0), 0);
    assert_base64(0, "AAAAAA==");
    assert_base64(0xffffffff, "/////w==");
}


static void
test_empty_keeps(void **state)
{
    (void) state;

    assert_int_equal(s3_crc32(0xcbf43926, NULL, 0), 0xcbf43926);
    assert_int_equal(s3_crc32_combine(0xcbf43926, 0, 0), 0xcbf43926);
    assert_int_equal(s3_crc32_combine(0, 0xcbf43926, 9), 0xcbf43926);
}


static void
test_incremental(void **state)
{
    size_t    i;
    uint32_t  crc;

    (void) state;

    for (i = 0; i <= 9; i++) {
        crc = s3_crc32(0, "123456789", i);
        crc = s3_crc32(crc, digits + i, 9 - i);
        assert_int_equal(crc, 0xcbf43926);

        crc = s3_crc32_combine(s3_crc32(0, "123456789", i),
                               s3_crc32(0, digits + i, 9 - i), 9 - i);
        assert_int_equal(crc, 0xcbf43926);
    }
}


static void
test_combine(void **state)
{
    uint32_t  a, b;

    (void) state;

    a = crc_of('a', 5000);
    b = crc_of('b', 12345);

    assert_int_equal(a, 0x4cf45976);
    assert_int_equal(b, 0x04d964df);
    assert_int_equal(s3_crc32_combine(a, b, 12345), 0x48f26ba4);
}


static size_t
below(size_t n)
{
    return (size_t) random() % n;
}


/* Any length from any address, whole and in pieces, against zlib; what is read
   past the end, also by code that no sanitizer looks into, hits a page that is
   not there. */

static void
test_random_lengths(void **state)
{
    size_t                len, size, left, n;
    unsigned              i;
    uint32_t              crc, want;
    unsigned char        *mem, *end, *p;

    (void) state;

    n = (size_t) sysconf(_SC_PAGESIZE);
    size = (RANDOM_BYTES + n - 1) / n * n;

    mem = mmap(NULL, size + n, PROT_READ|PROT_WRITE,
               MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);
    assert_true(mem != MAP_FAILED);

    end = mem + size;
    assert_int_equal(mprotect(end, n, PROT_NONE), 0);

    srandom(20);

    for (p = mem; p < end; p++) {
        *p = (unsigned char) random();
    }

    for (i = 0; i < 4000; i++) {
        len = below(i < 3000 ? 600 : RANDOM_BYTES);

        /* to the very end, or at any alignment */

        p = end - len - (i % 2 ? below(64) : 0);
        p = p < mem ? mem : p;
        len = p + len > end ? (size_t) (end - p) : len;

        want = (uint32_t) crc32_z(0, mem, 0);
        want = (uint32_t) crc32_z(want, p, len);

        assert_int_equal(s3_crc32(0, p, len), want);

        crc = 0;

        for (left = len; left; left -= n, p += n) {
            n = 1 + below(left);
            crc = s3_crc32(crc, p, n);
        }

        assert_int_equal(crc, want);
    }

    munmap(mem, size);
}


/* two parts of an upload, 5 MiB and 100 bytes */

static void
test_two_parts(void **state)
{
    uint32_t        a, b;
    unsigned char   ab[8];

    (void) state;

    a = crc_of('a', 5242880);
    b = crc_of('b', 100);

    assert_base64(a, "r/zBbw==");
    assert_base64(b, "JQFi2w==");
    assert_base64(s3_crc32_combine(a, b, 100), "MY8dhg==");

    ab[0] = (unsigned char) (a >> 24);
    ab[1] = (unsigned char) (a >> 16);
    ab[2] = (unsigned char) (a >> 8);
    ab[3] = (unsigned char) a;
    ab[4] = (unsigned char) (b >> 24);
    ab[5] = (unsigned char) (b >> 16);
    ab[6] = (unsigned char) (b >> 8);
    ab[7] = (unsigned char) b;

    assert_base64(s3_crc32(0, ab, 8), "pKNgKw==");
}


/* more than 4 GiB behind: 1,024 times 8 MiB of zeros by doubling */

static void
test_combine_large(void **state)
{
    unsigned  i;
    uint32_t  one, all;
    uint64_t  len;

    (void) state;

    len = 8388608;
    one = crc_of('\0', len);
    all = one;

    for (i = 0; i < 1023; i++) {
        all = s3_crc32_combine(all, one, len);
    }

    for (i = 0; i < 10; i++) {
        one = s3_crc32_combine(one, one, len);
        len *= 2;
    }

    assert_true(len == 8589934592);
    assert_int_equal(one, all);
}


static void
test_parse_refused(void **state)
{
    size_t          i, len;
    uint32_t        crc;
    s3_str_t        s;
    unsigned char  *p;

    static const char *const  bad[] = {
        "", "y/Q5Jg", "y/Q5Jg=", "y/Q5JgA=", "y/Q5Jh==", "y/Q5Jg==\n",
        " /Q5Jg==", "y/Q5J===", "========", "y-Q5Jg==", "y/Q5Jg=A",
        "y\n/Q5Jg=", "\n\n\n\ny/Q="
    };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        len = strlen(bad[i]);
        p = filled('\0', len);
        memcpy(p, bad[i], len);

        s.data = p;
        s.len = len;
        crc = 42;

        assert_int_equal(s3_crc32_parse(s, &crc), S3_ERROR);
        assert_int_equal(crc, 42);
        free(p);
    }
}


static const char  abc_digest[] =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

static const char  empty_digest[] =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

static const char  digits_digest[] =
    "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";


static void
test_sha256(void **state)
{
    char  out[65];

    (void) state;

    assert_int_equal(s3_sha256("abc", 3, out), S3_OK);
    assert_string_equal(out, abc_digest);

    assert_int_equal(s3_sha256("", 0, out), S3_OK);
    assert_string_equal(out, empty_digest);

    assert_int_equal(s3_sha256("123456789", 9, out), S3_OK);
    assert_string_equal(out, digits_digest);
}


static void
test_sha256_incremental(void **state)
{
    char          out[65];
    size_t        i;
    s3_sha256_t  *h;

    (void) state;

    h = s3_sha256_create();
    assert_non_null(h);

    for (i = 0; i <= 9; i++) {
        assert_int_equal(s3_sha256_update(h, "123456789", i), S3_OK);
        assert_int_equal(s3_sha256_update(h, digits + i, 9 - i), S3_OK);
        assert_int_equal(s3_sha256_hex(h, out), S3_OK);
        assert_string_equal(out, digits_digest);
        assert_int_equal(s3_sha256_reset(h), S3_OK);
    }

    /* reset drops what came before */

    assert_int_equal(s3_sha256_update(h, "xyz", 3), S3_OK);
    assert_int_equal(s3_sha256_reset(h), S3_OK);
    assert_int_equal(s3_sha256_hex(h, out), S3_OK);
    assert_string_equal(out, empty_digest);

    s3_sha256_destroy(h);
    s3_sha256_destroy(NULL);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_check_values),
        cmocka_unit_test(test_empty_keeps),
        cmocka_unit_test(test_incremental),
        cmocka_unit_test(test_combine),
        cmocka_unit_test(test_random_lengths),
        cmocka_unit_test(test_two_parts),
        cmocka_unit_test(test_combine_large),
        cmocka_unit_test(test_parse_refused),
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_sha256_incremental)
    };

    return cmocka_run_group_tests_name("s3_checksum", tests, NULL, NULL);
}
