#include "s3_origin.h"
#include "s3_test.h"


typedef struct {
    const char  *in;
    const char  *out;
} pair_t;

typedef struct {
    const char  *base;
    const char  *ref;
    const char  *out;                /* NULL: refused */
} resolved_t;


/* with room for just what may be needed */

static void
resolves(const char *base, const char *ref, const char *expected)
{
    int             rc;
    size_t          room;
    s3_buf_t        b;
    s3_str_t        url, in;
    const char     *err;
    s3_origin_t     o;
    unsigned char  *mem;

    url = s3_test_str(base);
    in = s3_test_str(ref);
    assert_int_equal(s3_origin_parse(url, &o, &err), S3_OK);

    room = S3_ORIGIN_ROOM(&o, in);
    mem = test_malloc(room);
    s3_buf_init(&b, mem, room);

    err = NULL;
    rc = s3_origin_resolve(&o, in, &b, &err);

    if (expected == NULL) {
        if (rc != S3_ERROR) {
            fail_msg("\"%s\" is accepted", ref);
        }

        assert_non_null(err);

    } else {
        if (rc != S3_OK) {
            fail_msg("\"%s\" is refused: %s", ref, err);
        }

        s3_test_equals(ref, s3_buf_str(&b), expected);
    }

    test_free(mem);
    s3_test_drop(in);
    s3_test_drop(url);
}


/* RFC 3986, 5.4.1 and 5.4.2, the fragment dropped, "http:g" as a strict parser
   reads it */

static void
test_rfc3986(void **state)
{
    size_t  i;

    static const pair_t  tests[] = {
        { "g:h", "g:h" },
        { "g", "http://a/b/c/g" },
        { "./g", "http://a/b/c/g" },
        { "g/", "http://a/b/c/g/" },
        { "/g", "http://a/g" },
        { "//g", "http://g" },
        { "?y", "http://a/b/c/d;p?y" },
        { "g?y", "http://a/b/c/g?y" },
        { "#s", "http://a/b/c/d;p?q" },
        { "g#s", "http://a/b/c/g" },
        { "g?y#s", "http://a/b/c/g?y" },
        { ";x", "http://a/b/c/;x" },
        { "g;x", "http://a/b/c/g;x" },
        { "g;x?y#s", "http://a/b/c/g;x?y" },
        { "", "http://a/b/c/d;p?q" },
        { ".", "http://a/b/c/" },
        { "./", "http://a/b/c/" },
        { "..", "http://a/b/" },
        { "../", "http://a/b/" },
        { "../g", "http://a/b/g" },
        { "../..", "http://a/" },
        { "../../", "http://a/" },
        { "../../g", "http://a/g" },

        { "../../../g", "http://a/g" },
        { "../../../../g", "http://a/g" },
        { "/./g", "http://a/g" },
        { "/../g", "http://a/g" },
        { "g.", "http://a/b/c/g." },
        { ".g", "http://a/b/c/.g" },
        { "g..", "http://a/b/c/g.." },
        { "..g", "http://a/b/c/..g" },
        { "./../g", "http://a/b/g" },
        { "./g/.", "http://a/b/c/g/" },
        { "g/./h", "http://a/b/c/g/h" },
        { "g/../h", "http://a/b/c/h" },
        { "g;x=1/./y", "http://a/b/c/g;x=1/y" },
        { "g;x=1/../y", "http://a/b/c/y" },
        { "g?y/./x", "http://a/b/c/g?y/./x" },
        { "g?y/../x", "http://a/b/c/g?y/../x" },
        { "g#s/./x", "http://a/b/c/g" },
        { "g#s/../x", "http://a/b/c/g" },
        { "http:g", "http:g" }
    };

    (void) state;

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        resolves("http://a/b/c/d;p?q", tests[i].in, tests[i].out);
    }
}


static void
test_resolve(void **state)
{
    size_t  i;

    static const resolved_t  tests[] = {

        /* a base without a path, a query, or with what looks like either */

        { "http://a", "", "http://a" },
        { "http://a", "b", "http://a/b" },
        { "http://a", "../b", "http://a/b" },
        { "http://a", "?b", "http://a?b" },
        { "http://a?q", "?b", "http://a?b" },
        { "http://a?q", "", "http://a?q" },
        { "http://a?q", "b", "http://a/b" },
        { "http://a?q/r", "b", "http://a/b" },
        { "http://a/?q/r", "b", "http://a/b" },
        { "http://a/b#f", "", "http://a/b" },
        { "http://a/b?", "", "http://a/b?" },
        { "http://a/b?q", "?", "http://a/b?" },
        { "http://a/b?q", "#", "http://a/b?q" },
        { "http://a/b/", "c", "http://a/b/c" },
        { "http://a//b//c", "d", "http://a//b//d" },
        { "http://a//b//c", "../d", "http://a//b/d" },
        { "http://a//b", "?q", "http://a//b?q" },

        /* dot segments of the base stay unless another path comes */

        { "http://a/b/../c", "", "http://a/b/../c" },
        { "http://a/b/../c", "?q", "http://a/b/../c?q" },
        { "http://a/b/../c", "d", "http://a/d" },
        { "http://a/b/./c/..", "d", "http://a/b/c/d" },

        { "https://a:8443/b", "/c", "https://a:8443/c" },
        { "HTTPS://A.Example/b", "c", "https://A.Example/c" },
        { "https://[2001:db8::7]:9000/b", "c?d",
          "https://[2001:db8::7]:9000/c?d" },
        { "https://a:8443/b", "//c/d", "https://c/d" },
        { "https://a/b", "//c:1?d#e", "https://c:1?d" },
        { "http://a/b", "https://c/./d/../e?f#g", "https://c/e?f" },
        { "http://a/b", "HTTP://C/..", "HTTP://C/" },
        { "http://a/b?q", "http://c", "http://c" },
        { "http://a/b", "//c/../../d", "http://c/d" },
        { "http://a/b", "/..//c", "http://a//c" },
        { "http://a/b", "/.//c", "http://a//c" },
        { "http://a/b", "/c/.../d", "http://a/c/.../d" },
        { "http://a/b", "/%2e%2e/c", "http://a/%2e%2e/c" },
        { "http://a/b", "c:d", "c:d" },
        { "http://a/b", "./c:d", "http://a/c:d" },
        { "http://a/b", "c+1-d.e:f", "c+1-d.e:f" },
        { "http://a/b", "c_d:e", "http://a/c_d:e" },
        { "http://a/b", "+c:d", "http://a/+c:d" },
        { "http://a/b", "1:d", "http://a/1:d" },
        { "http://a/b", "c/d:e", "http://a/c/d:e" },
        { "http://a/b", "c?d:e", "http://a/c?d:e" },
        { "http://a/b", ":c", "http://a/:c" },
        { "http://a/b", "c d\xc3\xbc", "http://a/c d\xc3\xbc" },
        { "http://a/b", "\\\\c\\d", "http://a/\\\\c\\d" },

        /* what another function refuses */

        { "http://a/b", "//user:password@c/", "http://user:password@c/" },
        { "http://a/b", "///c", "http:///c" },
        { "http://a/b", "x:", "x:" },
        { "http://a/b", "x:../y", "x:y" },
        { "http://a/b", "x:./../y", "x:y" },
        { "http://a/b", "x:..", "x:" },
        { "http://a/b", "x:y/..", "x:/" },
        { "http://a/b", "x:y/../..", "x:/" },
        { "http://a/b", "x:y/../z", "x:/z" },
        { "http://a/b", "x:..//y", "x:/y" },
        { "http://a/b", "file:///etc/passwd", "file:///etc/passwd" },

        /* a path must not turn into a host */

        { "http://a/b", "http:/.//c", NULL },
        { "http://a/b", "http:/.//", NULL },
        { "http://a/b", "http:/x/..//c", NULL },
        { "http://a/b", "https:.///c", NULL },
        { "s3://bucket/key", "c", NULL },
        { "http://a/b", "c\nd", NULL },
        { "http://a/b", "c\x7f", NULL },
        { "http://a/b", "#\r", NULL }
    };

    (void) state;

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        resolves(tests[i].base, tests[i].ref, tests[i].out);
    }
}


static void
test_room(void **state)
{
    size_t          n;
    s3_buf_t        b;
    const char     *err;
    s3_origin_t     o;
    unsigned char  *mem;

    (void) state;

    assert_int_equal(s3_origin_parse(s3_str("https://a"), &o, &err), S3_OK);

    for (n = 0; n <= 11; n++) {
        mem = test_malloc(n ? n : 1);
        s3_buf_init(&b, mem, n);
        err = NULL;

        if (n < 11) {
            assert_int_equal(s3_origin_resolve(&o, s3_str("b"), &b, &err),
                             S3_ERROR);
            assert_string_equal(err, "URL is too long");

        } else {
            assert_int_equal(s3_origin_resolve(&o, s3_str("b"), &b, &err),
                             S3_OK);
            s3_test_equals("b", s3_buf_str(&b), "https://a/b");
        }

        test_free(mem);
    }

    /* behind what out holds already, which is not its to touch */

    mem = test_malloc(32);
    s3_buf_init(&b, mem, 32);
    s3_buf_puts(&b, "x/y/");
    assert_int_equal(s3_origin_resolve(&o, s3_str("../../c"), &b, &err),
                     S3_OK);
    s3_test_equals("c", s3_buf_str(&b), "x/y/https://a/c");
    test_free(mem);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_rfc3986),
        cmocka_unit_test(test_resolve),
        cmocka_unit_test(test_room)
    };

    return cmocka_run_group_tests_name("origin_resolve", tests, NULL, NULL);
}
