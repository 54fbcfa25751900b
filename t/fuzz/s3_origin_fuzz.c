/*
 * The first byte chooses what stands before the rest: up to a line feed that is
 * a URL, behind it a reference to resolve there; all of it is a Content-Range
 * and an entity tag, too. What is read lies within what was given, and what is
 * written keeps its promise.
 */

#include <stdlib.h>
#include <string.h>

#include "s3_origin.h"


int LLVMFuzzerTestOneInput(const unsigned char *p, size_t len);
static s3_str_t join(const char *prefix, const unsigned char *p, size_t len);
static void check(int good);
static void within(s3_str_t slice, s3_str_t s);
static int visible(s3_str_t s);
static int has(s3_str_t s, int c);
static void parse(s3_str_t url, s3_str_t ref);
static void target(s3_str_t s);
static int hex(unsigned char c);
static void resolve(const s3_origin_t *base, s3_str_t ref);
static void again(const s3_origin_t *base, s3_str_t ref, s3_str_t expected);
static void no_dots(s3_str_t target);
static void remove_dots(s3_str_t path);
static size_t remove_rfc3986(char *in, char *out);
static void shown(s3_str_t url);
static void content_range(s3_str_t value);


static const char  *prefixes[] = {
    "", "http://", "https://a", "http://a/", "http://a/b/../c/d;p?q",
    "s3://", "s3://abc/", "http://a/b\n", "bytes ", "bytes 1-23/",
    "\""
};


/* in memory of exactly its size, so that ASan sees what reads on */

static s3_str_t
join(const char *prefix, const unsigned char *p, size_t len)
{
    size_t          n;
    s3_str_t        joined;
    unsigned char  *mem;

    n = strlen(prefix);

    mem = malloc(n + len ? n + len : 1);
    check(mem != NULL);

    memcpy(mem, prefix, n);

    if (len != 0) {
        memcpy(mem + n, p, len);
    }

    joined.data = mem;
    joined.len = n + len;

    return joined;
}


static void
check(int good)
{
    if (!good) {
        abort();
    }
}


static void
within(s3_str_t slice, s3_str_t s)
{
    check(slice.len == 0
          || (slice.data >= s.data
              && slice.data + slice.len <= s.data + s.len));
}


/* ASCII that a line of a log or of a head can hold, no space */

static int
visible(s3_str_t s)
{
    size_t  i;

    for (i = 0; i < s.len; i++) {
        if (s.data[i] <= 0x20 || s.data[i] >= 0x7f) {
            return 0;
        }
    }

    return 1;
}


static int
has(s3_str_t s, int c)
{
    return s.len != 0 && memchr(s.data, c, s.len) != NULL;
}


static void
parse(s3_str_t url, s3_str_t ref)
{
    const char   *err;
    s3_origin_t   o;

    err = NULL;

    if (s3_origin_parse(url, &o, &err) != S3_OK) {
        check(err != NULL);
        return;
    }

    within(o.authority, url);
    within(o.endpoint.host, url);
    within(o.target, url);
    within(o.bucket, url);
    within(o.key, url);

    check(url.len <= S3_ORIGIN_MAX);
    check(o.authority.len != 0 && visible(o.authority));
    check(!has(o.authority, '@') && !has(o.authority, '/'));
    check(s3_origin_same(&o, &o));

    if (o.scheme == S3_ORIGIN_S3) {
        check(s3_uri_check_bucket(o.bucket, &err) == S3_OK);
        check(s3_uri_check_key(o.key, &err) == S3_OK);
        check(o.key.data + o.key.len == url.data + url.len);

    } else {
        check(o.endpoint.host.len != 0 && o.endpoint.port != 0);
        check(!has(o.target, '#'));
        check(o.target.len == 0 || o.target.data[0] == '/'
              || o.target.data[0] == '?');
    }

    resolve(&o, ref);
}


/* it can stand in a head, and decodes to what it was */

static void
target(s3_str_t s)
{
    size_t          i, n;
    s3_buf_t        b;
    s3_str_t        out;
    unsigned char  *mem, c;

    mem = malloc(3 * s.len + 1);
    s3_buf_init(&b, mem, 3 * s.len + 1);

    check(s3_origin_target(s, &b) == S3_OK);

    out = s3_buf_str(&b);
    check(out.data[0] == '/' && visible(out) && !has(out, '#'));

    i = (s.len == 0 || s.data[0] != '/');

    for (n = 0; n < s.len; n++, i++) {
        check(i < out.len);
        c = out.data[i];

        if (c == '%' && s.data[n] != '%') {
            check(i + 2 < out.len);
            c = (unsigned char) (hex(out.data[i + 1]) << 4
                                 | hex(out.data[i + 2]));
            i += 2;
        }

        check(c == s.data[n]);
    }

    check(i == out.len);
    free(mem);
}


static int
hex(unsigned char c)
{
    return (c >= '0' && c <= '9') ? c - '0' : c - 'A' + 10;
}


static void
resolve(const s3_origin_t *base, s3_str_t ref)
{
    int             rc;
    size_t          room;
    s3_buf_t        b;
    s3_str_t        url;
    const char     *err;
    s3_origin_t     o;
    unsigned char  *mem;

    err = NULL;
    room = S3_ORIGIN_ROOM(base, ref);

    mem = malloc(room);
    s3_buf_init(&b, mem, room);

    rc = s3_origin_resolve(base, ref, &b, &err);
    check(!b.overflow);

    if (rc != S3_OK) {
        check(err != NULL);
        free(mem);
        return;
    }

    check(base->scheme != S3_ORIGIN_S3);

    url = s3_buf_str(&b);
    check(!has(url, '#'));

    if (s3_origin_parse(url, &o, &err) == S3_OK && o.scheme != S3_ORIGIN_S3) {
        again(&o, s3_str(""), url);

        /* another path than the base's has lost its dot segments */

        if (ref.len != 0 && ref.data[0] != '?' && ref.data[0] != '#') {
            again(base, url, url);
            no_dots(o.target);
        }
    }

    free(mem);
}


/* the case of the scheme may differ */

static void
again(const s3_origin_t *base, s3_str_t ref, s3_str_t expected)
{
    size_t          room;
    s3_buf_t        b;
    const char     *err;
    unsigned char  *mem;

    room = S3_ORIGIN_ROOM(base, ref);

    mem = malloc(room);
    s3_buf_init(&b, mem, room);

    check(s3_origin_resolve(base, ref, &b, &err) == S3_OK);
    check(s3_str_case_eq(s3_buf_str(&b), expected));

    free(mem);
}


static void
no_dots(s3_str_t target)
{
    size_t    i, n;
    s3_str_t  segment;

    for (i = 0; i < target.len && target.data[i] != '?'; i += n) {

        for (n = 1; i + n < target.len; n++) {
            if (target.data[i + n] == '/' || target.data[i + n] == '?') {
                break;
            }
        }

        segment.data = target.data + i;
        segment.len = n;

        check(!s3_str_eqs(segment, "/.") && !s3_str_eqs(segment, "/.."));
    }
}


/* the path of "x:path" is all that is left to do */

static void
remove_dots(s3_str_t path)
{
    int             rc;
    char           *in, *out;
    size_t          n;
    s3_str_t        ref, got;
    s3_buf_t        b;
    const char     *err;
    s3_origin_t     base;
    unsigned char  *mem;

    if (has(path, '?') || has(path, '#') || has(path, '\0')
        || (path.len >= 2 && memcmp(path.data, "//", 2) == 0))
    {
        return;
    }

    check(s3_origin_parse(s3_str("http://a"), &base, &err) == S3_OK);

    ref = join("x:", path.data, path.len);
    n = S3_ORIGIN_ROOM(&base, ref);
    mem = malloc(n);
    s3_buf_init(&b, mem, n);

    err = NULL;
    rc = s3_origin_resolve(&base, ref, &b, &err);

    in = malloc(path.len + 1);
    out = malloc(path.len + 1);
    s3_str_copy(in, path.len + 1, path);
    n = remove_rfc3986(in, out);

    if (rc == S3_OK) {
        got = s3_buf_str(&b);
        check(got.len == n + 2 && memcmp(got.data + 2, out, n) == 0);

    } else {
        check(strcmp(err, "control byte in URL") == 0
              || (n >= 2 && memcmp(out, "//", 2) == 0));
    }

    free(in);
    free(out);
    free(mem);
    free((void *) ref.data);
}


/* RFC 3986, 5.2.4, step by step */

static size_t
remove_rfc3986(char *in, char *out)
{
    size_t  n, k;

    n = 0;

    while (*in) {

        if (strncmp(in, "../", 3) == 0) {
            in += 3;

        } else if (strncmp(in, "./", 2) == 0) {
            in += 2;

        } else if (strncmp(in, "/./", 3) == 0) {
            in += 2;

        } else if (strcmp(in, "/.") == 0) {
            in[1] = '\0';

        } else if (strncmp(in, "/../", 4) == 0 || strcmp(in, "/..") == 0) {
            in += 2;

            if (in[1] == '/') {
                in++;

            } else {
                *in = '/';
            }

            while (n && out[--n] != '/') { /* void */ }

        } else if (strcmp(in, ".") == 0 || strcmp(in, "..") == 0) {
            break;

        } else {
            k = 1 + strcspn(in + 1, "/");
            memcpy(out + n, in, k);
            n += k;
            in += k;
        }
    }

    return n;
}


static void
shown(s3_str_t url)
{
    s3_buf_t        b;
    s3_str_t        out;
    unsigned char  *mem;

    mem = malloc(3 * url.len + 1);
    s3_buf_init(&b, mem, 3 * url.len);

    s3_origin_shown(url, &b);
    check(!b.overflow);

    out = s3_buf_str(&b);
    check(visible(out) && !has(out, '?') && !has(out, '#'));

    free(mem);
}


static void
content_range(s3_str_t value)
{
    int       rc;
    int64_t   total;
    uint64_t  first, last;

    rc = s3_origin_content_range(value, &first, &last, &total);

    if (rc == S3_ERROR) {
        return;
    }

    check(total >= -1);

    if (rc == S3_DECLINED) {
        check(total != -1 && has(value, '*'));
        return;
    }

    check(rc == S3_OK && first <= last && last < INT64_MAX);
    check(total == -1 ? has(value, '*') : last < (uint64_t) total);
}


int
LLVMFuzzerTestOneInput(const unsigned char *p, size_t len)
{
    size_t                n;
    s3_str_t              s, url, ref;
    const char           *prefix;
    const unsigned char  *end;

    if (len == 0) {
        return 0;
    }

    prefix = prefixes[p[0] % (sizeof(prefixes) / sizeof(prefixes[0]))];
    s = join(prefix, p + 1, len - 1);

    end = s.len ? memchr(s.data, '\n', s.len) : NULL;
    n = end ? (size_t) (end - s.data) : s.len;

    url = join("", s.data, n);
    ref = join("", end ? end + 1 : s.data, s.len - (end ? n + 1 : 0));

    parse(url, ref);
    target(ref);
    remove_dots(ref);
    shown(url);
    shown(ref);
    content_range(s);

    if (s3_origin_strong(s)) {
        check(s.len >= 2 && s.data[0] == '"' && s.data[s.len - 1] == '"'
              && !has(s, ' '));
    }

    free((void *) s.data);
    free((void *) url.data);
    free((void *) ref.data);

    return 0;
}
