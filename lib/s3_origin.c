#include "s3_origin.h"

#include <string.h>


/* a reference's components (RFC 3986, 5.2.2); data is NULL: it has none */

typedef struct {
    s3_str_t  scheme;                /* without ":" */
    s3_str_t  authority;             /* without "//" */
    s3_str_t  path;                  /* always there, may be empty */
    s3_str_t  query;                 /* with "?" */
} s3_origin_ref_t;


static void s3_origin_split(s3_str_t s, s3_origin_ref_t *r);
static s3_str_t s3_origin_cut(s3_str_t *s, const char *ends);
static size_t s3_origin_scheme(s3_str_t s);
static int s3_origin_bucket(s3_origin_t *o, s3_str_t rest, const char **err);
static int s3_origin_control(s3_str_t s);
static void s3_origin_encode(s3_buf_t *out, s3_str_t s);
static int s3_origin_literal(unsigned char c);
static void s3_origin_directory(s3_buf_t *out, s3_str_t path);
static size_t s3_origin_remove_dots(unsigned char *path, size_t len);
static size_t s3_origin_dots(const unsigned char *segment, size_t len);
static void s3_origin_drop_user(s3_str_t *s);


int
s3_origin_parse(s3_str_t url, s3_origin_t *o, const char **err)
{
    s3_str_t         rest;
    s3_origin_ref_t  r;

    memset(o, 0, sizeof(s3_origin_t));

    if (url.len > S3_ORIGIN_MAX) {
        *err = "URL is longer than 8192 bytes";
        return S3_ERROR;
    }

    if (s3_origin_control(url)) {
        *err = "control byte in URL";
        return S3_ERROR;
    }

    s3_origin_split(url, &r);

    if (s3_str_case_eqs(r.scheme, "https")) {
        o->scheme = S3_ORIGIN_HTTPS;

    } else if (s3_str_case_eqs(r.scheme, "http")) {
        o->scheme = S3_ORIGIN_HTTP;

    } else if (s3_str_case_eqs(r.scheme, "s3")) {
        o->scheme = S3_ORIGIN_S3;

    } else {
        r.authority.data = NULL;
    }

    if (r.authority.data == NULL) {
        *err = "must begin with \"http://\", \"https://\" or \"s3://\"";
        return S3_ERROR;
    }

    if (memchr(r.authority.data, '@', r.authority.len)) {
        *err = "user information in URL";
        return S3_ERROR;
    }

    o->authority = r.authority;

    if (o->scheme == S3_ORIGIN_S3) {
        rest.data = r.path.data;
        rest.len = url.data + url.len - r.path.data;
        return s3_origin_bucket(o, rest, err);
    }

    o->target.data = r.path.data;
    o->target.len = r.path.len + r.query.len;

    return s3_uri_parse_authority(r.authority, o->scheme == S3_ORIGIN_HTTPS,
                                  &o->endpoint, err);
}


/* the expression of RFC 3986, appendix B; the fragment is left out */

static void
s3_origin_split(s3_str_t s, s3_origin_ref_t *r)
{
    size_t  n;

    memset(r, 0, sizeof(s3_origin_ref_t));

    n = s3_origin_scheme(s);

    if (n != 0) {
        r->scheme.data = s.data;
        r->scheme.len = n;
        s.data += n + 1;
        s.len -= n + 1;
    }

    if (s.len >= 2 && s.data[0] == '/' && s.data[1] == '/') {
        s.data += 2;
        s.len -= 2;
        r->authority = s3_origin_cut(&s, "/?#");
    }

    r->path = s3_origin_cut(&s, "?#");

    if (s.len != 0 && s.data[0] == '?') {
        r->query = s3_origin_cut(&s, "#");
    }
}


/* what stands before the first byte of `ends`, which s loses */

static s3_str_t
s3_origin_cut(s3_str_t *s, const char *ends)
{
    size_t    n;
    s3_str_t  head;

    for (n = 0; n < s->len; n++) {
        if (s->data[n] != '\0' && strchr(ends, s->data[n])) {
            break;
        }
    }

    head.data = s->data;
    head.len = n;

    s->data += n;
    s->len -= n;

    return head;
}


/* bytes before the ":" that ends a scheme, 0: there is none */

static size_t
s3_origin_scheme(s3_str_t s)
{
    size_t         i;
    unsigned char  c;

    for (i = 0; i < s.len; i++) {
        c = s.data[i];

        if (c == ':') {
            return i;
        }

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
            continue;
        }

        if (i == 0 || ((c < '0' || c > '9') && c != '+' && c != '-'
                       && c != '.'))
        {
            break;
        }
    }

    return 0;
}


static int
s3_origin_bucket(s3_origin_t *o, s3_str_t rest, const char **err)
{
    o->bucket = o->authority;

    if (s3_uri_check_bucket(o->bucket, err) != S3_OK) {
        return S3_ERROR;
    }

    if (rest.len == 0 || rest.data[0] != '/') {
        *err = "empty key";
        return S3_ERROR;
    }

    o->key.data = rest.data + 1;
    o->key.len = rest.len - 1;

    return s3_uri_check_key(o->key, err);
}


static int
s3_origin_control(s3_str_t s)
{
    size_t  i;

    for (i = 0; i < s.len; i++) {
        if (s.data[i] < 0x20 || s.data[i] == 0x7f) {
            return 1;
        }
    }

    return 0;
}


int
s3_origin_target(s3_str_t target, s3_buf_t *out)
{
    if (target.len == 0 || target.data[0] != '/') {
        s3_buf_putc(out, '/');
    }

    s3_origin_encode(out, target);

    return out->overflow ? S3_ERROR : S3_OK;
}


static void
s3_origin_encode(s3_buf_t *out, s3_str_t s)
{
    s3_str_t  byte;

    for ( /* void */ ; s.len != 0; s.data++, s.len--) {

        if (s3_origin_literal(*s.data)) {
            s3_buf_putc(out, (char) *s.data);
            continue;
        }

        byte.data = s.data;
        byte.len = 1;
        s3_uri_encode(out, byte, 0);
    }
}


/* RFC 3986, 2.2 and 2.3, and '%'; of the reserved ones only '#', which would
   begin a fragment, is not left as it is: encoded they mean something else */

static int
s3_origin_literal(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
           || (c >= '0' && c <= '9')
           || (c != '\0' && strchr("-._~:/?[]@!$&'()*+,;=%", c) != NULL);
}


int
s3_origin_resolve(const s3_origin_t *base, s3_str_t ref, s3_buf_t *out,
    const char **err)
{
    int              local;
    s3_str_t         authority, path, query;
    unsigned char   *start;
    s3_origin_ref_t  r;

    if (base->scheme == S3_ORIGIN_S3) {
        *err = "an s3 URL is no base for another";
        return S3_ERROR;
    }

    if (s3_origin_control(ref)) {
        *err = "control byte in URL";
        return S3_ERROR;
    }

    s3_origin_split(ref, &r);

    local = (r.scheme.data == NULL && r.authority.data == NULL);
    authority = local ? base->authority : r.authority;

    if (r.scheme.data) {
        s3_buf_put_str(out, r.scheme);

    } else {
        s3_buf_puts(out, base->scheme == S3_ORIGIN_HTTPS ? "https" : "http");
    }

    s3_buf_putc(out, ':');

    if (authority.data) {
        s3_buf_puts(out, "//");
        s3_buf_put_str(out, authority);
    }

    start = out->pos;
    query = base->target;
    path = s3_origin_cut(&query, "?");

    if (local && r.path.len == 0) {
        s3_buf_put_str(out, path);

        if (r.query.data) {
            query = r.query;
        }

    } else {
        if (local && r.path.data[0] != '/') {
            s3_origin_directory(out, path);
        }

        s3_buf_put_str(out, r.path);
        out->pos = start + s3_origin_remove_dots(start, out->pos - start);

        query = r.query;
    }

    /* what would read as a host was none: "http:/.//name" */

    if (authority.data == NULL && out->pos - start >= 2
        && start[0] == '/' && start[1] == '/')
    {
        *err = "URL without a host";
        return S3_ERROR;
    }

    s3_buf_put_str(out, query);

    if (out->overflow) {
        *err = "URL is too long";
        return S3_ERROR;
    }

    return S3_OK;
}


/* RFC 3986, 5.2.3: all of path up to its last "/" */

static void
s3_origin_directory(s3_buf_t *out, s3_str_t path)
{
    while (path.len != 0 && path.data[path.len - 1] != '/') {
        path.len--;
    }

    if (path.len == 0) {
        path = s3_str("/");
    }

    s3_buf_put_str(out, path);
}


/* RFC 3986, 5.2.4, in place; returns what is left of len */

static size_t
s3_origin_remove_dots(unsigned char *path, size_t len)
{
    size_t          n, dots, slash;
    unsigned char  *r, *w, *end;

    w = path;
    end = path + len;

    for (r = path; r < end; r += n) {

        /* a segment, with the "/" before it */

        slash = (*r == '/');

        for (n = slash; r + n < end && r[n] != '/'; n++) { /* void */ }

        dots = s3_origin_dots(r + slash, n - slash);

        if (dots == 0) {
            memmove(w, r, n);
            w += n;
            continue;
        }

        if (!slash) {

            /* nothing stands before it, and its own "/" goes as well */

            n += (r + n < end);
            continue;
        }

        if (dots == 2) {
            while (w > path && *--w != '/') { /* void */ }
        }

        if (r + n == end) {
            *w++ = '/';
        }
    }

    return w - path;
}


/* 1: the segment is ".", 2: "..", 0: it is another */

static size_t
s3_origin_dots(const unsigned char *segment, size_t len)
{
    if ((len == 1 || len == 2) && segment[0] == '.'
        && segment[len - 1] == '.')
    {
        return len;
    }

    return 0;
}


void
s3_origin_shown(s3_str_t url, s3_buf_t *out)
{
    const char        *err;
    s3_origin_ref_t    r;
    s3_uri_endpoint_t  e;

    s3_origin_split(url, &r);

    if (r.scheme.data) {
        s3_buf_put_str(out, r.scheme);
        s3_buf_putc(out, ':');

        /* what was meant as "user:password@host" looks like that */

        if (r.authority.data == NULL) {
            return;
        }
    }

    if (r.authority.data) {
        s3_buf_puts(out, "//");
        s3_origin_drop_user(&r.authority);

        if (s3_uri_parse_authority(r.authority, 0, &e, &err) == S3_OK) {
            s3_buf_put_str(out, r.authority);
        }

    } else if (r.path.len != 0 && r.path.data[0] != '/') {
        s3_origin_drop_user(&r.path);
    }

    s3_origin_encode(out, r.path);
}


static void
s3_origin_drop_user(s3_str_t *s)
{
    size_t  n;

    for (n = s->len; n != 0; n--) {
        if (s->data[n - 1] == '@') {
            s->data += n;
            s->len -= n;
            break;
        }
    }
}


int
s3_origin_content_range(s3_str_t value, uint64_t *first, uint64_t *last,
    int64_t *total)
{
    uint64_t  n;
    s3_str_t  unit, from, to;

    unit = s3_origin_cut(&value, " ");

    if (!s3_str_case_eqs(unit, "bytes") || value.len == 0) {
        return S3_ERROR;
    }

    value.data++;
    value.len--;

    to = s3_origin_cut(&value, "/");

    if (value.len == 0) {
        return S3_ERROR;
    }

    value.data++;
    value.len--;

    n = INT64_MAX;
    *total = -1;

    if (!s3_str_eqs(value, "*")) {

        if (s3_str_u64(value, INT64_MAX, &n) != S3_OK) {
            return S3_ERROR;
        }

        *total = (int64_t) n;
    }

    if (s3_str_eqs(to, "*")) {
        return (*total == -1) ? S3_ERROR : S3_DECLINED;
    }

    from = s3_origin_cut(&to, "-");

    if (to.len == 0) {
        return S3_ERROR;
    }

    to.data++;
    to.len--;

    if (s3_str_u64(from, INT64_MAX, first) != S3_OK
        || s3_str_u64(to, INT64_MAX, last) != S3_OK
        || *first > *last || *last >= n)
    {
        return S3_ERROR;
    }

    return S3_OK;
}


int
s3_origin_strong(s3_str_t etag)
{
    size_t         i;
    unsigned char  c;

    if (etag.len < 2 || etag.data[0] != '"' || etag.data[etag.len - 1] != '"') {
        return 0;
    }

    for (i = 1; i < etag.len - 1; i++) {
        c = etag.data[i];

        if (c <= 0x20 || c == '"' || c == 0x7f) {
            return 0;
        }
    }

    return 1;
}


int
s3_origin_same(const s3_origin_t *a, const s3_origin_t *b)
{
    if (a->scheme != b->scheme) {
        return 0;
    }

    if (a->scheme == S3_ORIGIN_S3) {
        return s3_str_eq(a->bucket, b->bucket);
    }

    return a->endpoint.port == b->endpoint.port
           && s3_str_case_eq(a->endpoint.host, b->endpoint.host);
}
