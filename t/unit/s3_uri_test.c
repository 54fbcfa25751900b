#include "s3_uri.h"
#include "s3_test.h"


typedef struct {
    const char  *url;
    const char  *host;               /* NULL: refused */
    s3_host_e    type;
    unsigned     tls;
    unsigned     port;
    unsigned     port_default;
} endpoint_t;

typedef struct {
    const char  *host;
    const char  *region;
    int          aws;
} region_t;


static const endpoint_t  endpoints[] = {
    { "https://s3.eu-central-1.amazonaws.com",
      "s3.eu-central-1.amazonaws.com", S3_HOST_NAME, 1, 443, 1 },
    { "https://s3.eu-central-1.amazonaws.com/",
      "s3.eu-central-1.amazonaws.com", S3_HOST_NAME, 1, 443, 1 },
    { "http://localhost", "localhost", S3_HOST_NAME, 0, 80, 1 },
    { "HTTP://Localhost:9000", "Localhost", S3_HOST_NAME, 0, 9000, 0 },
    { "http://my_minio:9000/", "my_minio", S3_HOST_NAME, 0, 9000, 0 },
    { "https://a:443", "a", S3_HOST_NAME, 1, 443, 1 },
    { "https://a:80", "a", S3_HOST_NAME, 1, 80, 0 },
    { "http://a:80", "a", S3_HOST_NAME, 0, 80, 1 },
    { "http://a:65535", "a", S3_HOST_NAME, 0, 65535, 0 },
    { "http://a:00080", "a", S3_HOST_NAME, 0, 80, 1 },
    { "http://127.0.0.1:7480", "127.0.0.1", S3_HOST_IPV4, 0, 7480, 0 },
    { "https://192.0.2.1", "192.0.2.1", S3_HOST_IPV4, 1, 443, 1 },
    { "http://[::1]:9000", "::1", S3_HOST_IPV6, 0, 9000, 0 },
    { "https://[2001:db8::7]/", "2001:db8::7", S3_HOST_IPV6, 1, 443, 1 },
    { "http://[::ffff:192.0.2.1]", "::ffff:192.0.2.1",
      S3_HOST_IPV6, 0, 80, 1 },
    { "http://1.s3", "1.s3", S3_HOST_NAME, 0, 80, 1 },

    { "", NULL, 0, 0, 0, 0 },
    { "http", NULL, 0, 0, 0, 0 },
    { "http://", NULL, 0, 0, 0, 0 },
    { "http:///", NULL, 0, 0, 0, 0 },
    { "https://", NULL, 0, 0, 0, 0 },
    { "ftp://a", NULL, 0, 0, 0, 0 },
    { "a.example", NULL, 0, 0, 0, 0 },
    { "http://:80", NULL, 0, 0, 0, 0 },
    { "http://a:", NULL, 0, 0, 0, 0 },
    { "http://a:/", NULL, 0, 0, 0, 0 },
    { "http://a:0", NULL, 0, 0, 0, 0 },
    { "http://a:65536", NULL, 0, 0, 0, 0 },
    { "http://a:4294967376", NULL, 0, 0, 0, 0 },
    { "http://a:000080", NULL, 0, 0, 0, 0 },
    { "http://a:8x", NULL, 0, 0, 0, 0 },
    { "http://a:+8", NULL, 0, 0, 0, 0 },
    { "http://a:80:80", NULL, 0, 0, 0, 0 },
    { "http://a/b", NULL, 0, 0, 0, 0 },
    { "http://a//", NULL, 0, 0, 0, 0 },
    { "http://a?b", NULL, 0, 0, 0, 0 },
    { "http://a#b", NULL, 0, 0, 0, 0 },
    { "http://user:password@a", NULL, 0, 0, 0, 0 },
    { "http://a b", NULL, 0, 0, 0, 0 },
    { "http://a%20b", NULL, 0, 0, 0, 0 },
    { "http://\xc3\xbc.example", NULL, 0, 0, 0, 0 },
    { "http://a..b", NULL, 0, 0, 0, 0 },
    { "http://.a", NULL, 0, 0, 0, 0 },
    { "http://a.", NULL, 0, 0, 0, 0 },
    { "http://-a", NULL, 0, 0, 0, 0 },
    { "http://a-", NULL, 0, 0, 0, 0 },
    { "http://a.-b", NULL, 0, 0, 0, 0 },
    { "http://256.0.0.1", NULL, 0, 0, 0, 0 },
    { "http://1.2.3", NULL, 0, 0, 0, 0 },
    { "http://2130706433", NULL, 0, 0, 0, 0 },
    { "http://::1", NULL, 0, 0, 0, 0 },
    { "http://[::1", NULL, 0, 0, 0, 0 },
    { "http://[]", NULL, 0, 0, 0, 0 },
    { "http://[::1]x", NULL, 0, 0, 0, 0 },
    { "http://[::1]:", NULL, 0, 0, 0, 0 },
    { "http://[::g]", NULL, 0, 0, 0, 0 },
    { "http://[fe80::1%25eth0]", NULL, 0, 0, 0, 0 },
    { "http://[127.0.0.1]", NULL, 0, 0, 0, 0 }
};


static void
test_endpoint(void **state)
{
    size_t             i;
    s3_str_t           url;
    const char        *err;
    const endpoint_t  *t;
    s3_uri_endpoint_t  e;

    (void) state;

    for (i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++) {
        t = &endpoints[i];
        err = NULL;
        url = s3_test_str(t->url);

        if (t->host == NULL) {
            if (s3_uri_parse_endpoint(url, &e, &err) != S3_ERROR) {
                fail_msg("\"%s\" is accepted", t->url);
            }

            assert_non_null(err);
            s3_test_drop(url);
            continue;
        }

        if (s3_uri_parse_endpoint(url, &e, &err) != S3_OK) {
            fail_msg("\"%s\" is refused: %s", t->url, err);
        }

        assert_true(s3_str_eqs(e.host, t->host));
        assert_true(e.host.data > url.data);
        assert_int_equal(e.type, t->type);
        assert_int_equal(e.tls, t->tls);
        assert_int_equal(e.port, t->port);
        assert_int_equal(e.port_default, t->port_default);
        s3_test_drop(url);
    }
}


static void
test_endpoint_long(void **state)
{
    char               text[300];
    size_t             i, len;
    s3_str_t           url;
    const char        *err;
    s3_uri_endpoint_t  e;

    (void) state;

    memcpy(text, "http://", 7);

    for (i = 7; i < sizeof(text); i++) {
        text[i] = ((i - 7) % 64 == 63) ? '.' : 'a';
    }

    /* 253 bytes of labels of 63 pass, one more does not */

    url = s3_test_copy(text, 7 + 253);
    assert_int_equal(s3_uri_parse_endpoint(url, &e, &err), S3_OK);
    s3_test_drop(url);

    url = s3_test_copy(text, 7 + 254);
    assert_int_equal(s3_uri_parse_endpoint(url, &e, &err), S3_ERROR);
    s3_test_drop(url);

    /* a label of 64 */

    memset(text + 7, 'a', 64);

    for (len = 63; len <= 64; len++) {
        url = s3_test_copy(text, 7 + len);
        assert_int_equal(s3_uri_parse_endpoint(url, &e, &err),
                         len == 63 ? S3_OK : S3_ERROR);
        s3_test_drop(url);
    }

    /* a NUL in a name or an address */

    url = s3_test_copy("http://a\0b", 10);
    assert_int_equal(s3_uri_parse_endpoint(url, &e, &err), S3_ERROR);
    s3_test_drop(url);
    url = s3_test_copy("http://[::1\0]", 13);
    assert_int_equal(s3_uri_parse_endpoint(url, &e, &err), S3_ERROR);
    s3_test_drop(url);
}


static void
test_authority(void **state)
{
    size_t             i;
    s3_str_t           s;
    const char        *err;
    s3_uri_endpoint_t  e;

    static const char  *bad[] = {
        "", ":80", "a:", "a/", "a?b", "a#b", "user@a", "user:80@a", "http://a",
        "[::1", "[::1]/", "127.1"
    };

    (void) state;

    s = s3_test_copy("A.Example:443", 13);
    assert_int_equal(s3_uri_parse_authority(s, 1, &e, &err), S3_OK);
    assert_true(s3_str_eqs(e.host, "A.Example"));
    assert_ptr_equal(e.host.data, s.data);
    assert_int_equal(e.type, S3_HOST_NAME);
    assert_int_equal(e.tls, 1);
    assert_int_equal(e.port, 443);
    assert_int_equal(e.port_default, 1);

    assert_int_equal(s3_uri_parse_authority(s, 0, &e, &err), S3_OK);
    assert_int_equal(e.tls, 0);
    assert_int_equal(e.port_default, 0);
    s3_test_drop(s);

    s = s3_test_copy("[::1]", 5);
    assert_int_equal(s3_uri_parse_authority(s, 0, &e, &err), S3_OK);
    assert_true(s3_str_eqs(e.host, "::1"));
    assert_int_equal(e.type, S3_HOST_IPV6);
    assert_int_equal(e.port, 80);
    s3_test_drop(s);

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        err = NULL;
        s = s3_test_str(bad[i]);

        if (s3_uri_parse_authority(s, 0, &e, &err) != S3_ERROR) {
            fail_msg("\"%s\" is accepted", bad[i]);
        }

        assert_non_null(err);
        s3_test_drop(s);
    }
}


static void
encodes(s3_str_t in, int keep_slash, const char *expected)
{
    size_t          n;
    s3_buf_t        b;
    unsigned char  *mem;

    n = strlen(expected);
    mem = test_malloc(n ? n : 1);

    s3_buf_init(&b, mem, n);
    s3_uri_encode(&b, in, keep_slash);
    assert_false(b.overflow);
    assert_int_equal(s3_buf_str(&b).len, n);
    assert_memory_equal(mem, expected, n);
    test_free(mem);

    if (n != 0) {
        mem = test_malloc(n - 1 ? n - 1 : 1);
        s3_buf_init(&b, mem, n - 1);
        s3_uri_encode(&b, in, keep_slash);
        assert_true(b.overflow);
        test_free(mem);
    }
}


static void
test_encode(void **state)
{
    int             c;
    char            text[4];
    s3_str_t        s;
    unsigned char   byte;
    const char     *kept;

    (void) state;

    kept = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
           "-._~";

    encodes(s3_str(""), 1, "");
    encodes(s3_str(kept), 0, kept);
    encodes(s3_str("dir/a b+c~\xc3\xbc.bin"), 1,
            "dir/a%20b%2Bc~%C3%BC.bin");
    encodes(s3_str("a/b+c=="), 0, "a%2Fb%2Bc%3D%3D");
    encodes(s3_str("/../%41?&=#"), 1, "/../%2541%3F%26%3D%23");
    encodes(s3_str("UploadId/+X=="), 0, "UploadId%2F%2BX%3D%3D");

    for (c = 0; c < 256; c++) {
        byte = (unsigned char) c;
        s.data = &byte;
        s.len = 1;

        if (c != 0 && strchr(kept, c) != NULL) {
            text[0] = (char) c;
            text[1] = '\0';

        } else {
            text[0] = '%';
            text[1] = "0123456789ABCDEF"[c >> 4];
            text[2] = "0123456789ABCDEF"[c & 15];
            text[3] = '\0';
        }

        encodes(s, 0, text);

        if (c == '/') {
            encodes(s, 1, "/");
        }
    }
}


static void
name_is(int (*check)(s3_str_t name, const char **err), const char *data,
    size_t len, int rc)
{
    s3_str_t     s;
    const char  *err;

    err = NULL;
    s = s3_test_copy(data, len);

    if (check(s, &err) != rc) {
        fail_msg("\"%s\" gives %d", data, rc == S3_OK ? S3_ERROR : S3_OK);
    }

    if (rc != S3_OK) {
        assert_non_null(err);
    }

    s3_test_drop(s);
}


static void
test_key(void **state)
{
    char    c, longest[S3_KEY_MAX + 2];
    size_t  i;

    static const char  *good[] = {
        "a", "a/b", "/a", "//a", "a//b", "a.", ".a", "..a", "a..", "...",
        "a/...", "a/.b/c", "a/..b", "a b+c%2F", "\xc3\xbc", "\xc2\x80",
        "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
        "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf",
        "a\\..\\b", "~", "?#&="
    };

    static const char  *bad[] = {
        "", "/", "a/", ".", "..", "./a", "../a", "a/.", "a/..", "a/./b",
        "a/../b", "/..", "/../a", "//..", "a//../b", "..//a",
        "\x01", "a\nb", "a\rb", "a\tb", "a\x1f", "\x7f", "a\x7f" "b",
        "\x80", "\xbf", "\xc0\x80", "\xc0\xaf", "\xc1\xbf", "\xc2", "\xc2/",
        "\xc2\xc0", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xe0\xa0",
        "\xe2\x82", "\xe2\x82/", "\xe2/\x82", "\xed\xa0\x80", "\xed\xbf\xbf",
        "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf0\x9f\x98",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xfe", "\xff", "a\xff" "b",
        "\xc0\xae\xc0\xae/a"
    };

    (void) state;

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        name_is(s3_uri_check_key, good[i], strlen(good[i]), S3_OK);
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        name_is(s3_uri_check_key, bad[i], strlen(bad[i]), S3_ERROR);
    }

    name_is(s3_uri_check_key, "a\0b", 3, S3_ERROR);
    name_is(s3_uri_check_key, "\0", 1, S3_ERROR);

    for (c = 0; c < 0x20; c++) {
        name_is(s3_uri_check_key, &c, 1, S3_ERROR);
    }

    memset(longest, 'k', sizeof(longest));
    name_is(s3_uri_check_key, longest, S3_KEY_MAX, S3_OK);
    name_is(s3_uri_check_key, longest, S3_KEY_MAX + 1, S3_ERROR);

    /* the last character is cut by the limit of the slice */

    memcpy(longest + S3_KEY_MAX - 2, "\xe2\x82\xac", 3);
    name_is(s3_uri_check_key, longest, S3_KEY_MAX + 1, S3_ERROR);
    name_is(s3_uri_check_key, longest + 1, S3_KEY_MAX, S3_OK);
    name_is(s3_uri_check_key, longest, S3_KEY_MAX, S3_ERROR);
}


static void
test_bucket(void **state)
{
    char    name[80];
    size_t  i;

    static const char  *good[] = {
        "abc", "a-b", "a.b", "0a9", "my-bucket.example", "a--b", "a.b.c.d",
        "a-.b"
    };

    static const char  *bad[] = {
        "", "a", "ab", "Abc", "a_b", "a b", "a/b", "abc/", "../", "a..b",
        "...", ".ab", "ab.", "-ab", "ab-", "a:b", "arn:aws:s3:::b", "a%b",
        "a\nb", "a\x80" "b", "a@b", "a?b", "a#b"
    };

    (void) state;

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        name_is(s3_uri_check_bucket, good[i], strlen(good[i]), S3_OK);
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        name_is(s3_uri_check_bucket, bad[i], strlen(bad[i]), S3_ERROR);
    }

    memset(name, 'b', sizeof(name));

    for (i = 0; i < sizeof(name); i++) {
        name_is(s3_uri_check_bucket, name, i,
                (i >= 3 && i <= 63) ? S3_OK : S3_ERROR);
    }

    name_is(s3_uri_check_bucket, "a\0b", 3, S3_ERROR);
}


static void
test_region_name(void **state)
{
    size_t  i;

    static const char *const  good[] = { "us-east-1", "default", "eu_2.x:y" };
    static const char *const  bad[] = {
        "", "a b", "a/b", "a,b", "a=b", "$a", "a\n", "a\x7f", "\xc3\xa9"
    };

    (void) state;

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        name_is(s3_uri_check_region, good[i], strlen(good[i]), S3_OK);
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        name_is(s3_uri_check_region, bad[i], strlen(bad[i]), S3_ERROR);
    }
}


static void
test_id(void **state)
{
    int         c, good;
    char        id[80];
    size_t      i;
    s3_str_t    s;

    (void) state;

    memset(id, 'i', sizeof(id));

    for (i = 0; i < sizeof(id); i++) {
        s = s3_test_copy(id, i);
        assert_int_equal(s3_uri_check_id(s),
                         (i >= 16 && i <= 64) ? S3_OK : S3_ERROR);
        s3_test_drop(s);
    }

    for (c = 0; c < 256; c++) {
        good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
               || (c >= '0' && c <= '9') || c == '_' || c == '-';

        id[15] = (char) c;
        s = s3_test_copy(id, 16);
        assert_int_equal(s3_uri_check_id(s), good ? S3_OK : S3_ERROR);
        s3_test_drop(s);
    }
}


static void
test_region(void **state)
{
    size_t           i;
    s3_str_t         host, region;
    const region_t  *t;

    static const region_t  tests[] = {
        { "s3.eu-central-1.amazonaws.com", "eu-central-1", 1 },
        { "s3.dualstack.eu-central-1.amazonaws.com", "eu-central-1", 1 },
        { "s3-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1", 1 },
        { "s3-fips.dualstack.us-east-2.amazonaws.com", "us-east-2", 1 },
        { "s3.cn-north-1.amazonaws.com.cn", "cn-north-1", 1 },
        { "s3.ap-southeast-3.amazonaws.com", "ap-southeast-3", 1 },
        { "s3.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1", 1 },
        { "dynamodb.eu-west-1.amazonaws.com", "eu-west-1", 1 },
        { "dynamodb-fips.us-west-2.amazonaws.com", "us-west-2", 1 },
        { "dynamodb.eu-west-1.api.aws", "eu-west-1", 1 },
        { "sts.eu-west-3.amazonaws.com", "eu-west-3", 1 },
        { "s3-eu-west-1.amazonaws.com", "eu-west-1", 1 },
        { "s3-fips-us-gov-west-1.amazonaws.com", "us-gov-west-1", 1 },
        { "b.s3.eu-north-1.amazonaws.com", "eu-north-1", 1 },
        { "bucket.vpce-1a2b3c4d-5e6f.s3.us-west-1.vpce.amazonaws.com",
          "us-west-1", 1 },
        { "s3express-usw2-az1.us-west-2.amazonaws.com", "us-west-2", 1 },
        { "S3.eu-central-1.AmazonAWS.com", "eu-central-1", 1 },
        { "s3.amazonaws.com", "us-east-1", 1 },
        { "s3-external-1.amazonaws.com", "us-east-1", 1 },
        { "s3-accelerate.dualstack.amazonaws.com", "us-east-1", 1 },
        { ".amazonaws.com", "us-east-1", 0 },
        { "amazonaws.com", "us-east-1", 0 },
        { "s3.eu-central-1.notamazonaws.com", "us-east-1", 0 },
        { "s3.eu-central-1.amazonaws.com.example", "us-east-1", 0 },
        { "minio.eu-central-1.example", "us-east-1", 0 },
        { "127.0.0.1", "us-east-1", 0 },
        { "", "us-east-1", 0 }
    };

    (void) state;

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        t = &tests[i];
        host = s3_test_str(t->host);
        region = s3_uri_region(host);

        if (!s3_str_eqs(region, t->region)) {
            fail_msg("region of %s is %.*s", t->host, (int) region.len,
                     (const char *) region.data);
        }

        assert_int_equal(s3_uri_is_aws(host), t->aws);
        s3_test_drop(host);
    }
}


static void
test_virtual(void **state)
{
    s3_str_t  aws, own, plain, dotted;

    (void) state;

    aws = s3_str("s3.eu-central-1.amazonaws.com");
    own = s3_str("minio.example");
    plain = s3_str("my-bucket");
    dotted = s3_str("my.bucket");

    assert_true(s3_uri_virtual(S3_ADDRESSING_AUTO, aws, plain));
    assert_false(s3_uri_virtual(S3_ADDRESSING_AUTO, aws, dotted));
    assert_false(s3_uri_virtual(S3_ADDRESSING_AUTO, own, plain));
    assert_false(s3_uri_virtual(S3_ADDRESSING_PATH, aws, plain));
    assert_true(s3_uri_virtual(S3_ADDRESSING_VIRTUAL, own, plain));
    assert_true(s3_uri_virtual(S3_ADDRESSING_VIRTUAL, aws, dotted));
}


static void
test_str(void **state)
{
    char            small[4];
    s3_buf_t        b;
    unsigned char   bytes[4], mem[32];

    (void) state;

    assert_true(s3_str_eq(s3_str("ab"), s3_str("ab")));
    assert_false(s3_str_eq(s3_str("ab"), s3_str("ac")));
    assert_false(s3_str_eq(s3_str("ab"), s3_str("abc")));
    assert_true(s3_str_case_eqs(s3_str("Content-TYPE"), "content-type"));
    assert_false(s3_str_case_eqs(s3_str("content-typ"), "content-type"));
    assert_false(s3_str_case_eqs(s3_str("a@"), "a`"));

    assert_true(s3_str_case_eq(s3_str("aBc"), s3_str("AbC")));
    assert_true(s3_str_case_eq(s3_str(""), s3_str("")));
    assert_false(s3_str_case_eq(s3_str("abc"), s3_str("ab")));
    assert_false(s3_str_case_eq(s3_str("ab"), s3_str("abc")));
    assert_false(s3_str_case_eq(s3_str("a@["), s3_str("a`{")));

    assert_int_equal(s3_str_copy(small, sizeof(small), s3_str("abcdef")), 3);
    assert_string_equal(small, "abc");
    assert_int_equal(s3_str_copy(small, sizeof(small), s3_str("ab")), 2);
    assert_string_equal(small, "ab");
    assert_int_equal(s3_str_copy(small, 0, s3_str("x")), 0);
    assert_string_equal(small, "ab");

    s3_buf_init(&b, mem, sizeof(mem));
    s3_buf_put_u64(&b, 0);
    s3_buf_putc(&b, ' ');
    s3_buf_put_u64(&b, UINT64_MAX);
    s3_buf_puts(&b, " ");
    memcpy(bytes, "\x00\x7f\x80\xff", 4);
    s3_buf_put_hex(&b, bytes, 4);
    assert_false(b.overflow);
    assert_true(s3_str_eqs(s3_buf_str(&b), "0 18446744073709551615 007f80ff"));

    /* what was dropped leaves no gap */

    s3_buf_init(&b, mem, 4);
    s3_buf_puts(&b, "abc");
    s3_buf_puts(&b, "de");
    s3_buf_puts(&b, "f");
    assert_true(b.overflow);
    assert_true(s3_str_eqs(s3_buf_str(&b), "abcd"));

    s3_buf_init(&b, NULL, 0);
    s3_buf_puts(&b, "");
    assert_false(b.overflow);
    s3_buf_putc(&b, 'a');
    assert_true(b.overflow);
    assert_int_equal(s3_buf_str(&b).len, 0);

    s3_wipe(mem, sizeof(mem));
    memset(bytes, 0, sizeof(bytes));
    assert_memory_equal(mem, bytes, 4);
}


static void
test_u64(void **state)
{
    size_t    i;
    uint64_t  n;

    static const struct {
        const char  *text;
        uint64_t     max;
        int          rc;
        uint64_t     n;
    } tests[] = {
        { "0", 0, S3_OK, 0 },
        { "000", 0, S3_OK, 0 },
        { "007", 7, S3_OK, 7 },
        { "42", 42, S3_OK, 42 },
        { "65535", 65535, S3_OK, 65535 },
        { "9223372036854775807", INT64_MAX, S3_OK, INT64_MAX },
        { "18446744073709551615", UINT64_MAX, S3_OK, UINT64_MAX },

        { "", 9, S3_ERROR, 0 },
        { "1", 0, S3_ERROR, 0 },
        { "8", 7, S3_ERROR, 0 },
        { "43", 42, S3_ERROR, 0 },
        { "65536", 65535, S3_ERROR, 0 },
        { "9223372036854775808", INT64_MAX, S3_ERROR, 0 },
        { "18446744073709551616", UINT64_MAX, S3_ERROR, 0 },
        { "184467440737095516150", UINT64_MAX, S3_ERROR, 0 },
        { "+1", 9, S3_ERROR, 0 },
        { "-1", 9, S3_ERROR, 0 },
        { " 1", 9, S3_ERROR, 0 },
        { "1 ", 9, S3_ERROR, 0 },
        { "1a", 99, S3_ERROR, 0 },
        { "0x1", 9, S3_ERROR, 0 }
    };

    (void) state;

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {

        if (s3_str_u64(s3_str(tests[i].text), tests[i].max, &n) != tests[i].rc)
        {
            fail_msg("\"%s\" gives %d", tests[i].text,
                     tests[i].rc == S3_OK ? S3_ERROR : S3_OK);
        }

        if (tests[i].rc == S3_OK) {
            assert_true(n == tests[i].n);
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_endpoint),
        cmocka_unit_test(test_endpoint_long),
        cmocka_unit_test(test_authority),
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_key),
        cmocka_unit_test(test_bucket),
        cmocka_unit_test(test_region_name),
        cmocka_unit_test(test_id),
        cmocka_unit_test(test_region),
        cmocka_unit_test(test_virtual),
        cmocka_unit_test(test_str),
        cmocka_unit_test(test_u64)
    };

    return cmocka_run_group_tests_name("uri", tests, NULL, NULL);
}
