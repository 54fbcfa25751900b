#include "s3_uri.h"

#include <string.h>

#include <arpa/inet.h>


#define S3_URI_NAME_MAX    253       /* RFC 1035, written out */
#define S3_URI_LABEL_MAX   63
#define S3_URI_REGION_MAX  64


static int s3_uri_scheme(s3_str_t *url, const char *scheme);
static int s3_uri_split(s3_uri_endpoint_t *e, s3_str_t s, const char **err);
static int s3_uri_port(s3_uri_endpoint_t *e, s3_str_t port,
    const char **err);
static int s3_uri_ip(int family, s3_str_t host);
static int s3_uri_name(s3_uri_endpoint_t *e, const char **err);
static int s3_uri_label(s3_str_t label, int *numeric);
static int s3_uri_unreserved(unsigned char c);
static int s3_uri_amazon(s3_str_t host, s3_str_t *rest);
static int s3_uri_prefix(s3_str_t *s, const char *prefix);
static int s3_uri_is_region(s3_str_t s);


int
s3_uri_parse_endpoint(s3_str_t url, s3_uri_endpoint_t *e, const char **err)
{
    int       tls;
    s3_str_t  rest;

    rest = url;
    tls = s3_uri_scheme(&rest, "https://");

    if (!tls && !s3_uri_scheme(&rest, "http://")) {
        *err = "must begin with \"http://\" or \"https://\"";
        return S3_ERROR;
    }

    if (rest.len != 0 && rest.data[rest.len - 1] == '/') {
        rest.len--;
    }

    if (rest.len != 0
        && (memchr(rest.data, '/', rest.len) || memchr(rest.data, '?', rest.len)
            || memchr(rest.data, '#', rest.len)
            || memchr(rest.data, '@', rest.len)))
    {
        *err = "must be a scheme, a host and a port only";
        return S3_ERROR;
    }

    return s3_uri_parse_authority(rest, tls, e, err);
}


int
s3_uri_parse_authority(s3_str_t authority, int tls, s3_uri_endpoint_t *e,
    const char **err)
{
    memset(e, 0, sizeof(s3_uri_endpoint_t));

    e->tls = (tls != 0);

    if (authority.len == 0) {
        *err = "no host";
        return S3_ERROR;
    }

    if (s3_uri_split(e, authority, err) != S3_OK) {
        return S3_ERROR;
    }

    if (e->type != S3_HOST_IPV6) {
        return s3_uri_name(e, err);
    }

    if (!s3_uri_ip(AF_INET6, e->host)) {
        *err = "invalid IPv6 address";
        return S3_ERROR;
    }

    return S3_OK;
}


static int
s3_uri_scheme(s3_str_t *url, const char *scheme)
{
    size_t    n;
    s3_str_t  start;

    n = strlen(scheme);

    start.data = url->data;
    start.len = (url->len < n) ? url->len : n;

    if (!s3_str_case_eqs(start, scheme)) {
        return 0;
    }

    url->data += n;
    url->len -= n;

    return 1;
}


/* cuts host and port apart */

static int
s3_uri_split(s3_uri_endpoint_t *e, s3_str_t s, const char **err)
{
    s3_str_t              port;
    const unsigned char  *p, *end;

    end = s.data + s.len;

    if (s.data[0] == '[') {
        p = memchr(s.data, ']', s.len);

        if (p == NULL || (p + 1 != end && p[1] != ':')) {
            *err = "invalid IPv6 address";
            return S3_ERROR;
        }

        e->type = S3_HOST_IPV6;
        e->host.data = s.data + 1;
        e->host.len = p - e->host.data;
        p++;

    } else {
        p = memchr(s.data, ':', s.len);

        if (p == NULL) {
            p = end;
        }

        e->type = S3_HOST_NAME;
        e->host.data = s.data;
        e->host.len = p - s.data;
    }

    port.data = NULL;
    port.len = 0;

    if (p != end) {
        port.data = p + 1;
        port.len = end - port.data;
    }

    return s3_uri_port(e, port, err);
}


static int
s3_uri_port(s3_uri_endpoint_t *e, s3_str_t port, const char **err)
{
    uint64_t  n, dflt;

    dflt = e->tls ? 443 : 80;

    if (port.data == NULL) {
        n = dflt;

    } else if (port.len > 5 || s3_str_u64(port, 65535, &n) != S3_OK || n == 0) {
        *err = "invalid port";
        return S3_ERROR;
    }

    e->port = (unsigned) n;
    e->port_default = (n == dflt);

    return S3_OK;
}


static int
s3_uri_ip(int family, s3_str_t host)
{
    char           text[INET6_ADDRSTRLEN];
    unsigned char  addr[16];

    if (host.len == 0 || host.len >= sizeof(text)
        || memchr(host.data, '\0', host.len))
    {
        return 0;
    }

    s3_str_copy(text, sizeof(text), host);

    return inet_pton(family, text, addr) == 1;
}


static int
s3_uri_name(s3_uri_endpoint_t *e, const char **err)
{
    int                   numeric;
    s3_str_t              label;
    const unsigned char  *p, *end, *dot;

    if (e->host.len == 0) {
        *err = "no host";
        return S3_ERROR;
    }

    if (e->host.len > S3_URI_NAME_MAX) {
        *err = "host name is too long";
        return S3_ERROR;
    }

    numeric = 0;
    p = e->host.data;
    end = p + e->host.len;

    for ( ;; ) {
        dot = memchr(p, '.', end - p);

        label.data = p;
        label.len = ((dot == NULL) ? end : dot) - p;

        if (!s3_uri_label(label, &numeric)) {
            *err = "invalid host name";
            return S3_ERROR;
        }

        if (dot == NULL) {
            break;
        }

        p = dot + 1;
    }

    /* no top-level domain is a number, so this was meant as an address */

    if (numeric) {
        if (!s3_uri_ip(AF_INET, e->host)) {
            *err = "invalid IPv4 address";
            return S3_ERROR;
        }

        e->type = S3_HOST_IPV4;
    }

    return S3_OK;
}


static int
s3_uri_label(s3_str_t label, int *numeric)
{
    size_t         i;
    unsigned char  c;

    *numeric = 1;

    if (label.len == 0 || label.len > S3_URI_LABEL_MAX
        || label.data[0] == '-' || label.data[label.len - 1] == '-')
    {
        return 0;
    }

    for (i = 0; i < label.len; i++) {
        c = label.data[i];

        if (c >= '0' && c <= '9') {
            continue;
        }

        *numeric = 0;

        /* '_' is not a host name's, but container networks use it */

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z')
            && c != '-' && c != '_')
        {
            return 0;
        }
    }

    return 1;
}


static int
s3_uri_unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
           || (c >= '0' && c <= '9')
           || c == '-' || c == '.' || c == '_' || c == '~';
}


void
s3_uri_encode(s3_buf_t *out, s3_str_t in, int keep_slash)
{
    size_t             i;
    char               code[3];
    unsigned char      c;
    static const char  hex[] = "0123456789ABCDEF";

    for (i = 0; i < in.len; i++) {
        c = in.data[i];

        if (s3_uri_unreserved(c) || (keep_slash && c == '/')) {
            s3_buf_putc(out, (char) c);
            continue;
        }

        code[0] = '%';
        code[1] = hex[c >> 4];
        code[2] = hex[c & 0xf];
        s3_buf_put(out, code, 3);
    }
}


int
s3_uri_check_key(s3_str_t key, const char **err)
{
    size_t  i, n, segment;

    if (key.len == 0) {
        *err = "empty key";
        return S3_ERROR;
    }

    if (key.len > S3_KEY_MAX) {
        *err = "key is longer than 1024 bytes";
        return S3_ERROR;
    }

    if (key.data[key.len - 1] == '/') {
        *err = "key ends in \"/\"";
        return S3_ERROR;
    }

    for (i = 0; i < key.len; i += n) {
        n = s3_str_utf8(key.data + i, key.len - i);

        if (n == 0) {
            *err = "key is not valid UTF-8";
            return S3_ERROR;
        }

        if (key.data[i] < 0x20 || key.data[i] == 0x7f) {
            *err = "control byte in key";
            return S3_ERROR;
        }
    }

    segment = 0;

    for (i = 0; i <= key.len; i++) {
        if (i < key.len && key.data[i] != '/') {
            continue;
        }

        n = i - segment;

        if ((n == 1 || n == 2) && key.data[segment] == '.'
            && key.data[i - 1] == '.')
        {
            *err = "\".\" or \"..\" segment in key";
            return S3_ERROR;
        }

        segment = i + 1;
    }

    return S3_OK;
}


int
s3_uri_check_bucket(s3_str_t bucket, const char **err)
{
    size_t         i;
    unsigned char  c, prev;

    if (bucket.len < S3_BUCKET_MIN || bucket.len > S3_BUCKET_MAX) {
        *err = "bucket name is not 3 to 63 bytes long";
        return S3_ERROR;
    }

    prev = '.';

    for (i = 0; i < bucket.len; i++) {
        c = bucket.data[i];

        if ((c < 'a' || c > 'z') && (c < '0' || c > '9')
            && c != '.' && c != '-')
        {
            *err = "bucket name has a byte other than a-z, 0-9, \".\", \"-\"";
            return S3_ERROR;
        }

        if (c == '.' && prev == '.') {
            *err = "empty label in bucket name";
            return S3_ERROR;
        }

        prev = c;
    }

    if (bucket.data[0] == '-' || prev == '-' || prev == '.') {
        *err = "bucket name does not begin and end with a letter or digit";
        return S3_ERROR;
    }

    return S3_OK;
}


int
s3_uri_check_region(s3_str_t region, const char **err)
{
    size_t         i;
    unsigned char  c;

    if (region.len == 0 || region.len > S3_URI_REGION_MAX) {
        *err = "region is not 1 to 64 bytes long";
        return S3_ERROR;
    }

    for (i = 0; i < region.len; i++) {
        c = region.data[i];

        if (c <= 0x20 || c >= 0x7f || memchr("/,=$", c, 4)) {
            *err = "region has a byte that no region has";
            return S3_ERROR;
        }
    }

    return S3_OK;
}


int
s3_uri_check_id(s3_str_t id)
{
    size_t         i;
    unsigned char  c;

    if (id.len < 16 || id.len > 64) {
        return S3_ERROR;
    }

    for (i = 0; i < id.len; i++) {
        c = id.data[i];

        if (!s3_uri_unreserved(c) || c == '.' || c == '~') {
            return S3_ERROR;
        }
    }

    return S3_OK;
}


int
s3_uri_is_aws(s3_str_t host)
{
    s3_str_t  rest;

    return s3_uri_amazon(host, &rest);
}


/* cuts Amazon's domain off the host's name */

static int
s3_uri_amazon(s3_str_t host, s3_str_t *rest)
{
    size_t              i, n;
    s3_str_t            tail;
    static const char  *domains[] = {
        ".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws"
    };

    for (i = 0; i < sizeof(domains) / sizeof(domains[0]); i++) {
        n = strlen(domains[i]);

        if (host.len <= n) {
            continue;
        }

        tail.len = n;
        tail.data = host.data + host.len - n;

        if (s3_str_case_eqs(tail, domains[i])) {
            rest->len = host.len - n;
            rest->data = host.data;
            return 1;
        }
    }

    return 0;
}


s3_str_t
s3_uri_region(s3_str_t host)
{
    s3_str_t  rest, label;

    if (!s3_uri_amazon(host, &rest)) {
        return s3_str("us-east-1");
    }

    /* interface endpoints: vpce-….s3.<region>.vpce.amazonaws.com */

    if (rest.len > 5 && memcmp(rest.data + rest.len - 5, ".vpce", 5) == 0) {
        rest.len -= 5;
    }

    label.data = rest.data + rest.len;
    label.len = 0;

    while (label.data != rest.data && label.data[-1] != '.') {
        label.data--;
        label.len++;
    }

    /* names of old: s3-eu-west-1, s3-fips-us-gov-west-1 */

    if (s3_uri_prefix(&label, "s3-")) {
        (void) s3_uri_prefix(&label, "fips-");
    }

    return s3_uri_is_region(label) ? label : s3_str("us-east-1");
}


static int
s3_uri_prefix(s3_str_t *s, const char *prefix)
{
    size_t  n;

    n = strlen(prefix);

    if (s->len < n || memcmp(s->data, prefix, n) != 0) {
        return 0;
    }

    s->data += n;
    s->len -= n;

    return 1;
}


/* words joined by at least two dashes and a number at the end: eu-central-1,
   us-gov-west-1; not dualstack, fips, external-1 */

static int
s3_uri_is_region(s3_str_t s)
{
    size_t         i, dashes;
    unsigned char  c;

    dashes = 0;

    for (i = 0; i < s.len; i++) {
        c = s.data[i];

        if (c == '-') {
            dashes++;

        } else if ((c < 'a' || c > 'z') && (c < '0' || c > '9')) {
            return 0;
        }
    }

    return dashes >= 2 && s.data[s.len - 1] >= '0' && s.data[s.len - 1] <= '9';
}


int
s3_uri_virtual(s3_addressing_e addressing, s3_str_t host, s3_str_t bucket)
{
    if (addressing == S3_ADDRESSING_PATH) {
        return 0;
    }

    if (addressing == S3_ADDRESSING_VIRTUAL) {
        return 1;
    }

    /* a wildcard certificate stands for one label only */

    return s3_uri_is_aws(host)
           && (bucket.len == 0 || memchr(bucket.data, '.', bucket.len) == NULL);
}
