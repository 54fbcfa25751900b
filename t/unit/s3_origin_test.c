#include "s3_origin.h"
#include "s3_test.h"


typedef struct {
    const char          *url;
    s3_origin_scheme_e   scheme;
    const char          *authority;
    const char          *host;       /* or bucket */
    unsigned             port;
    const char          *target;     /* or key */
} parsed_t;

typedef struct {
    const char  *in;
    const char  *out;
} pair_t;

typedef struct {
    const char  *value;
    int          rc;
    uint64_t     first;
    uint64_t     last;
    int64_t      total;
} range_t;

typedef struct {
    const char  *a;
    const char  *b;
    int          same;
} same_t;


static void
within(s3_str_t slice, s3_str_t url)
{
    assert_true(slice.data >= url.data);
    assert_true(slice.data + slice.len <= url.data + url.len);
}


static const parsed_t  parsed[] = {
    { "http://a", S3_ORIGIN_HTTP, "a", "a", 80, "" },
    { "https://a", S3_ORIGIN_HTTPS, "a", "a", 443, "" },
    { "HTTP://A.Example/", S3_ORIGIN_HTTP, "A.Example", "A.Example", 80, "/" },
    { "HttpS://a:8443/x", S3_ORIGIN_HTTPS, "a:8443", "a", 8443, "/x" },
    { "https://a:443/x", S3_ORIGIN_HTTPS, "a:443", "a", 443, "/x" },
    { "https://a:80", S3_ORIGIN_HTTPS, "a:80", "a", 80, "" },
    { "http://a/b/../c//d/.?e=f?g&h=/i#j?k#l", S3_ORIGIN_HTTP, "a", "a", 80,
      "/b/../c//d/.?e=f?g&h=/i" },
    { "http://a?b", S3_ORIGIN_HTTP, "a", "a", 80, "?b" },
    { "http://a?b/c@d:e", S3_ORIGIN_HTTP, "a", "a", 80, "?b/c@d:e" },
    { "http://a?", S3_ORIGIN_HTTP, "a", "a", 80, "?" },
    { "http://a#b", S3_ORIGIN_HTTP, "a", "a", 80, "" },
    { "http://a#/b?c@d", S3_ORIGIN_HTTP, "a", "a", 80, "" },
    { "http://a/#", S3_ORIGIN_HTTP, "a", "a", 80, "/" },
    { "http://a/@b:c", S3_ORIGIN_HTTP, "a", "a", 80, "/@b:c" },
    { "http://a//b", S3_ORIGIN_HTTP, "a", "a", 80, "//b" },
    { "http://a/b c\xc3\xbc%41%", S3_ORIGIN_HTTP, "a", "a", 80,
      "/b c\xc3\xbc%41%" },
    { "http://127.0.0.1:7480/b/k", S3_ORIGIN_HTTP, "127.0.0.1:7480",
      "127.0.0.1", 7480, "/b/k" },
    { "https://[2001:db8::7]:9000/b", S3_ORIGIN_HTTPS, "[2001:db8::7]:9000",
      "2001:db8::7", 9000, "/b" },
    { "http://[::1]", S3_ORIGIN_HTTP, "[::1]", "::1", 80, "" },
    { "http://my_host/x", S3_ORIGIN_HTTP, "my_host", "my_host", 80, "/x" },

    { "s3://bucket/key", S3_ORIGIN_S3, "bucket", "bucket", 0, "key" },
    { "S3://my.bucket-1/a/b//c", S3_ORIGIN_S3, "my.bucket-1", "my.bucket-1", 0,
      "a/b//c" },
    { "s3://bucket//key", S3_ORIGIN_S3, "bucket", "bucket", 0, "/key" },
    { "s3://bucket/a b%20c+d?e#f?g", S3_ORIGIN_S3, "bucket", "bucket", 0,
      "a b%20c+d?e#f?g" },
    { "s3://bucket/?a", S3_ORIGIN_S3, "bucket", "bucket", 0, "?a" },
    { "s3://bucket/#a", S3_ORIGIN_S3, "bucket", "bucket", 0, "#a" },
    { "s3://bucket/user@host:\xc3\xbc", S3_ORIGIN_S3, "bucket", "bucket", 0,
      "user@host:\xc3\xbc" }
};


static void
test_parse(void **state)
{
    size_t           i;
    s3_str_t         url;
    const char      *err;
    s3_origin_t      o;
    const parsed_t  *t;

    (void) state;

    for (i = 0; i < sizeof(parsed) / sizeof(parsed[0]); i++) {
        t = &parsed[i];
        url = s3_test_str(t->url);

        if (s3_origin_parse(url, &o, &err) != S3_OK) {
            fail_msg("\"%s\" is refused: %s", t->url, err);
        }

        assert_int_equal(o.scheme, t->scheme);
        s3_test_equals(t->url, o.authority, t->authority);
        within(o.authority, url);

        if (o.scheme == S3_ORIGIN_S3) {
            s3_test_equals(t->url, o.bucket, t->host);
            s3_test_equals(t->url, o.key, t->target);
            within(o.bucket, url);
            within(o.key, url);
            assert_int_equal(o.target.len, 0);
            assert_int_equal(o.endpoint.host.len, 0);

        } else {
            s3_test_equals(t->url, o.endpoint.host, t->host);
            s3_test_equals(t->url, o.target, t->target);
            within(o.endpoint.host, url);
            within(o.target, url);
            assert_int_equal(o.endpoint.tls, o.scheme == S3_ORIGIN_HTTPS);
            assert_int_equal(o.endpoint.port, t->port);
            assert_int_equal(o.bucket.len, 0);
            assert_int_equal(o.key.len, 0);
        }

        s3_test_drop(url);
    }
}


static void
refused(const char *data, size_t len, const char *expected)
{
    s3_str_t      url;
    const char   *err;
    s3_origin_t   o;

    err = NULL;
    url = s3_test_copy(data, len);

    if (s3_origin_parse(url, &o, &err) != S3_ERROR) {
        fail_msg("\"%s\" is accepted", data);
    }

    assert_non_null(err);
    s3_test_drop(url);

    if (strcmp(err, expected) != 0) {
        fail_msg("\"%s\" is refused for \"%s\" and not \"%s\"", data, err,
                 expected);
    }
}


static void
test_refused(void **state)
{
    int     c;
    char    text[] = "http://a/?";
    size_t  i, len;

    static const char  scheme[] =
        "must begin with \"http://\", \"https://\" or \"s3://\"";

    static const pair_t  tests[] = {
        { "", scheme },
        { "http", scheme },
        { "http:", scheme },
        { "http:/", scheme },
        { "http:a", scheme },
        { "http:/a", scheme },
        { "http:\\\\a", scheme },
        { "//a/b", scheme },
        { "/a", scheme },
        { "a.example/b", scheme },
        { "ftp://a", scheme },
        { "file:///etc/passwd", scheme },
        { "httpss://a", scheme },
        { " http://a", scheme },
        { "http ://a", scheme },
        { "3s://bucket/key", scheme },
        { "s3:bucket/key", scheme },
        { "http://", "no host" },
        { "http:///", "no host" },
        { "http:///a", "no host" },
        { "https://?a", "no host" },
        { "https://#a", "no host" },
        { "http://:80/", "no host" },
        { "http://user@a/", "user information in URL" },
        { "http://user:password@a/", "user information in URL" },
        { "http://@a/", "user information in URL" },
        { "http://a@b@c/", "user information in URL" },
        { "http://user@", "user information in URL" },
        { "s3://user@bucket/key", "user information in URL" },
        { "http://a:/", "invalid port" },
        { "http://a:0/", "invalid port" },
        { "http://a:65536/", "invalid port" },
        { "http://a:8x/", "invalid port" },
        { "http://a b/", "invalid host name" },
        { "http://a\\b/", "invalid host name" },
        { "http://a%2eb/", "invalid host name" },
        { "http://\xc3\xbc/", "invalid host name" },
        { "http://a./", "invalid host name" },
        { "http://127.1/", "invalid IPv4 address" },
        { "http://2130706433/", "invalid IPv4 address" },
        { "http://0177.0.0.1/", "invalid IPv4 address" },
        { "http://[::1/", "invalid IPv6 address" },
        { "http://[fe80::1%25eth0]/", "invalid IPv6 address" },
        { "s3://", "bucket name is not 3 to 63 bytes long" },
        { "s3:///key", "bucket name is not 3 to 63 bytes long" },
        { "s3://Bucket/key",
          "bucket name has a byte other than a-z, 0-9, \".\", \"-\"" },
        { "s3://bucket:80/key",
          "bucket name has a byte other than a-z, 0-9, \".\", \"-\"" },
        { "s3://bucket", "empty key" },
        { "s3://bucket/", "empty key" },
        { "s3://bucket?key", "empty key" },
        { "s3://bucket#/key", "empty key" },
        { "s3://bucket/key/", "key ends in \"/\"" },
        { "s3://bucket/a/../b", "\".\" or \"..\" segment in key" },
        { "s3://bucket/\xff", "key is not valid UTF-8" }
    };

    (void) state;

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        refused(tests[i].in, strlen(tests[i].in), tests[i].out);
    }

    len = sizeof(text) - 1;

    for (c = 0; c <= 0x20; c++) {
        text[len - 1] = (char) ((c == 0x20) ? 0x7f : c);

        refused(text, len, "control byte in URL");
        text[len - 2] = '#';
        refused(text, len, "control byte in URL");
        text[len - 2] = '/';
    }

    refused("ht\ntp://a", 9, "control byte in URL");
    refused("http://a\0b/", 11, "control byte in URL");
    refused("s3://bucket/a\rb", 15, "control byte in URL");
}


static void
test_long(void **state)
{
    char         *text;
    s3_str_t      url;
    const char   *err;
    s3_origin_t   o;

    (void) state;

    text = test_malloc(S3_ORIGIN_MAX + 1);
    memset(text, 'a', S3_ORIGIN_MAX + 1);
    memcpy(text, "http://a/", 9);

    url = s3_test_copy(text, S3_ORIGIN_MAX);
    assert_int_equal(s3_origin_parse(url, &o, &err), S3_OK);
    assert_int_equal(o.target.len, S3_ORIGIN_MAX - 8);
    s3_test_drop(url);

    refused(text, S3_ORIGIN_MAX + 1, "URL is longer than 8192 bytes");
    test_free(text);
}


/* out has room for just what is expected, then for one byte less */

static void
targets(const char *data, size_t len, const char *expected)
{
    size_t          n;
    s3_buf_t        b;
    s3_str_t        in;
    unsigned char  *mem;

    in = s3_test_copy(data, len);
    n = strlen(expected);

    mem = test_malloc(n);
    s3_buf_init(&b, mem, n);
    assert_int_equal(s3_origin_target(in, &b), S3_OK);
    s3_test_equals(data, s3_buf_str(&b), expected);
    test_free(mem);

    mem = test_malloc(n);
    s3_buf_init(&b, mem, n - 1);
    assert_int_equal(s3_origin_target(in, &b), S3_ERROR);
    test_free(mem);

    s3_test_drop(in);
}


static void
test_target(void **state)
{
    int          c;
    char         in[3], out[5];
    size_t       i;
    const char  *kept;

    static const pair_t  tests[] = {
        { "", "/" },
        { "/", "/" },
        { "?", "/?" },
        { "?q", "/?q" },
        { "q", "/q" },
        { "/a/../b//c", "/a/../b//c" },
        { "//a", "//a" },
        { "/a b", "/a%20b" },
        { "/%41%zz%", "/%41%zz%" },
        { "/\xc3\xbc?\xff=\"", "/%C3%BC?%FF=%22" },
        { "/a#b", "/a%23b" },
        { "/?X-Amz-Credential=A/2/3&X-Amz-Signature=0a+b",
          "/?X-Amz-Credential=A/2/3&X-Amz-Signature=0a+b" }
    };

    (void) state;

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        targets(tests[i].in, strlen(tests[i].in), tests[i].out);
    }

    kept = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
           "-._~:/?[]@!$&'()*+,;=%";

    in[0] = '/';
    in[2] = '\0';

    for (c = 0; c < 256; c++) {
        in[1] = (char) c;
        out[0] = '/';

        if (c != 0 && strchr(kept, c) != NULL) {
            out[1] = (char) c;
            out[2] = '\0';

        } else {
            out[1] = '%';
            out[2] = "0123456789ABCDEF"[c >> 4];
            out[3] = "0123456789ABCDEF"[c & 15];
            out[4] = '\0';
        }

        targets(in, 2, out);
    }
}


static void
test_shown(void **state)
{
    size_t          i, n;
    s3_buf_t        b;
    s3_str_t        url;
    unsigned char   mem[256];

    static const pair_t  tests[] = {
        { "https://a.example:8443/b/c", "https://a.example:8443/b/c" },
        { "https://a/b?X-Amz-Signature=secret", "https://a/b" },
        { "https://a/b#secret", "https://a/b" },
        { "https://a?secret", "https://a" },
        { "https://a#secret?x", "https://a" },
        { "https://user:secret@a/b", "https://a/b" },
        { "https://user:se@cret@a/b?c", "https://a/b" },
        { "https://user@[::1]:80/b", "https://[::1]:80/b" },
        { "https://[2001:db8::7]/b", "https://[2001:db8::7]/b" },
        { "HTTPS://A/@scope/pkg", "HTTPS://A/@scope/pkg" },
        { "s3://bucket/a/b", "s3://bucket/a/b" },
        { "s3://key:secret@bucket/a", "s3://bucket/a" },
        { "s3://bucket/a?secret", "s3://bucket/a" },

        /* no URL, but with a secret in it */

        { "https://user:se?cret@a/b", "https://" },
        { "https://user:se#cret@a/b", "https://" },
        { "https://user:se/cret@a/b", "https:///cret@a/b" },
        { "user:secret@a/b", "user:" },
        { "1user:secret@a/b", "a/b" },
        { "https:user:secret@a/b", "https:" },
        { "https:/user:secret@a/b", "https:" },

        /* relative references, as a redirect has them */

        { "/b/@c?secret", "/b/@c" },
        { "b/c#secret", "b/c" },
        { "//user:secret@a/b?c", "//a/b" },
        { "?secret", "" },
        { "", "" },

        { "http://a/b\nc\xc3\xbc \"%41", "http://a/b%0Ac%C3%BC%20%22%41" },
        { "http://a\n/b", "http:///b" }
    };

    (void) state;

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        url = s3_test_str(tests[i].in);

        s3_buf_init(&b, mem, sizeof(mem));
        s3_origin_shown(url, &b);
        assert_false(b.overflow);
        s3_test_equals(tests[i].in, s3_buf_str(&b), tests[i].out);

        /* cut off where it does not fit */

        n = strlen(tests[i].out);

        if (n != 0) {
            s3_buf_init(&b, mem, n - 1);
            s3_origin_shown(url, &b);
            assert_true(b.overflow);
            assert_memory_equal(mem, tests[i].out, s3_buf_str(&b).len);
        }

        s3_test_drop(url);
    }

    url = s3_test_copy("http://a\0/b\0c", 13);
    s3_buf_init(&b, mem, sizeof(mem));
    s3_origin_shown(url, &b);
    s3_test_equals("NUL", s3_buf_str(&b), "http:///b%00c");
    s3_test_drop(url);
}


static void
test_content_range(void **state)
{
    int             rc;
    size_t          i;
    int64_t         total;
    s3_str_t        value;
    uint64_t        first, last;
    const range_t  *t;

    static const range_t  tests[] = {
        { "bytes 0-0/1", S3_OK, 0, 0, 1 },
        { "bytes 0-499/1234", S3_OK, 0, 499, 1234 },
        { "bytes 500-1233/1234", S3_OK, 500, 1233, 1234 },
        { "bytes 42-1233/*", S3_OK, 42, 1233, -1 },
        { "BYTES 0-1/2", S3_OK, 0, 1, 2 },
        { "bytes 00-01/02", S3_OK, 0, 1, 2 },
        { "bytes 9029243000-9029243447/9029243448", S3_OK,
          9029243000, 9029243447, 9029243448 },
        { "bytes 9223372036854775806-9223372036854775806/9223372036854775807",
          S3_OK, INT64_MAX - 1, INT64_MAX - 1, INT64_MAX },
        { "bytes 0-9223372036854775806/*", S3_OK, 0, INT64_MAX - 1, -1 },

        { "bytes */1234", S3_DECLINED, 7, 7, 1234 },
        { "bytes */0", S3_DECLINED, 7, 7, 0 },

        { "", S3_ERROR, 0, 0, 0 },
        { "bytes", S3_ERROR, 0, 0, 0 },
        { "bytes ", S3_ERROR, 0, 0, 0 },
        { "bytes /", S3_ERROR, 0, 0, 0 },
        { "bytes -/", S3_ERROR, 0, 0, 0 },
        { "bytes 0-1", S3_ERROR, 0, 0, 0 },
        { "bytes 0-1/", S3_ERROR, 0, 0, 0 },
        { "bytes 0/2", S3_ERROR, 0, 0, 0 },
        { "bytes 0-/2", S3_ERROR, 0, 0, 0 },
        { "bytes -1/2", S3_ERROR, 0, 0, 0 },
        { "bytes */*", S3_ERROR, 0, 0, 0 },
        { "bytes *-1/2", S3_ERROR, 0, 0, 0 },
        { "bytes 0-*/2", S3_ERROR, 0, 0, 0 },
        { "bytes 0-1/2/3", S3_ERROR, 0, 0, 0 },
        { "bytes 0-1-1/2", S3_ERROR, 0, 0, 0 },
        { "bytes 0-1/**", S3_ERROR, 0, 0, 0 },
        { "bytes  0-1/2", S3_ERROR, 0, 0, 0 },
        { "bytes 0 - 1/2", S3_ERROR, 0, 0, 0 },
        { "bytes 0-1/2 ", S3_ERROR, 0, 0, 0 },
        { "bytes 0-1 /2", S3_ERROR, 0, 0, 0 },
        { " bytes 0-1/2", S3_ERROR, 0, 0, 0 },
        { "bytes=0-1/2", S3_ERROR, 0, 0, 0 },
        { "bytes: 0-1/2", S3_ERROR, 0, 0, 0 },
        { "items 0-1/2", S3_ERROR, 0, 0, 0 },
        { "byte 0-1/2", S3_ERROR, 0, 0, 0 },
        { "bytes 0x0-0x1/0x2", S3_ERROR, 0, 0, 0 },
        { "bytes +0-1/2", S3_ERROR, 0, 0, 0 },

        /* not true, or more than a size may be */

        { "bytes 1-0/2", S3_ERROR, 0, 0, 0 },
        { "bytes 0-2/2", S3_ERROR, 0, 0, 0 },
        { "bytes 0-0/0", S3_ERROR, 0, 0, 0 },
        { "bytes 1-0/*", S3_ERROR, 0, 0, 0 },
        { "bytes 0-1/9223372036854775808", S3_ERROR, 0, 0, 0 },
        { "bytes 0-9223372036854775807/*", S3_ERROR, 0, 0, 0 },
        { "bytes 0-9223372036854775808/*", S3_ERROR, 0, 0, 0 },
        { "bytes 18446744073709551616-18446744073709551617/*", S3_ERROR,
          0, 0, 0 },
        { "bytes 0-1/18446744073709551618", S3_ERROR, 0, 0, 0 },
        { "bytes */9223372036854775808", S3_ERROR, 0, 0, 0 }
    };

    (void) state;

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        t = &tests[i];
        value = s3_test_str(t->value);

        first = 7;
        last = 7;

        rc = s3_origin_content_range(value, &first, &last, &total);
        s3_test_drop(value);

        if (rc != t->rc) {
            fail_msg("\"%s\" gives %d", t->value, rc);
        }

        if (rc != S3_ERROR) {
            assert_int_equal(first, t->first);
            assert_int_equal(last, t->last);
            assert_int_equal(total, t->total);
        }
    }
}


static void
test_strong(void **state)
{
    int         c, good;
    char        byte[] = "\"?\"";
    size_t      i;
    s3_str_t    etag;

    static const char  *strong[] = {
        "\"\"", "\"a\"", "\"xyzzy\"", "\"a-2\"", "\"W/a\"", "\"a\\b\"",
        "\"\x80\xff\"", "\"!,*\""
    };

    static const char  *others[] = {
        "", "\"", "a", "W/\"\"", "W/\"a\"", "w/\"a\"", "W/a", "*", "\"a",
        "a\"", "\"a\"b\"", "\"\"\"", "\"a b\"", " \"a\"", "\"a\" ",
        "\"a\", \"b\"", "'a'"
    };

    (void) state;

    for (i = 0; i < sizeof(strong) / sizeof(strong[0]); i++) {
        etag = s3_test_str(strong[i]);

        if (s3_origin_strong(etag) != 1) {
            fail_msg("%s is not strong", strong[i]);
        }

        s3_test_drop(etag);
    }

    for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        etag = s3_test_str(others[i]);

        if (s3_origin_strong(etag) != 0) {
            fail_msg("%s is strong", others[i]);
        }

        s3_test_drop(etag);
    }

    for (c = 0; c < 256; c++) {
        byte[1] = (char) c;
        good = (c == 0x21 || (c >= 0x23 && c <= 0x7e) || c >= 0x80);

        etag = s3_test_copy(byte, 3);
        assert_int_equal(s3_origin_strong(etag), good);
        s3_test_drop(etag);
    }
}


static void
test_same(void **state)
{
    size_t         i;
    const char    *err;
    s3_origin_t    a, b;
    const same_t  *t;

    static const same_t  tests[] = {
        { "http://a", "http://a", 1 },
        { "http://a/b?c", "http://a/d#e", 1 },
        { "HTTP://A.Example/", "http://a.eXAMPLE", 1 },
        { "http://a:80/", "http://a", 1 },
        { "https://a:443/", "https://a", 1 },
        { "https://a:8443/b", "https://A:8443/c", 1 },
        { "http://127.0.0.1/a", "http://127.0.0.1/b", 1 },
        { "http://[2001:DB8::7]/a", "http://[2001:db8::7]:80/b", 1 },
        { "s3://bucket/a", "s3://bucket/b", 1 },

        { "http://a", "https://a", 0 },
        { "http://a:443", "https://a:443", 0 },
        { "https://a:80", "http://a:80", 0 },
        { "http://a", "http://a:8080", 0 },
        { "http://a:81", "http://a:80", 0 },
        { "http://a", "http://b", 0 },
        { "http://a", "http://aa", 0 },
        { "http://a.example", "http://b.example", 0 },
        { "http://a.example", "http://a.example.com", 0 },
        { "http://example", "http://a.example", 0 },
        { "http://127.0.0.1", "http://[::ffff:127.0.0.1]", 0 },
        { "http://[::1]", "http://[0::1]", 0 },
        { "s3://bucket/a", "s3://bucket2/a", 0 },
        { "s3://bucket/a", "http://bucket/a", 0 }
    };

    (void) state;

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        t = &tests[i];

        assert_int_equal(s3_origin_parse(s3_str(t->a), &a, &err), S3_OK);
        assert_int_equal(s3_origin_parse(s3_str(t->b), &b, &err), S3_OK);

        if (s3_origin_same(&a, &b) != t->same
            || s3_origin_same(&b, &a) != t->same)
        {
            fail_msg("%s and %s are %s", t->a, t->b,
                     t->same ? "not the same" : "the same");
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_target),
        cmocka_unit_test(test_shown),
        cmocka_unit_test(test_content_range),
        cmocka_unit_test(test_strong),
        cmocka_unit_test(test_same)
    };

    return cmocka_run_group_tests_name("origin", tests, NULL, NULL);
}
