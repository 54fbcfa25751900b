#include "s3_sigv4.h"
#include "s3_hash.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/err.h>


#define S3_SIGV4_SECRET_MAX   512
/* string to sign: a region and a service of up to about 200 bytes each */
#define S3_SIGV4_STRING_MAX   512
/* a canonical request without a session token, mostly */
#define S3_SIGV4_STAGE        1024


/* the canonical request goes into memory or into a digest: a head with a
   session token has no useful bound on the stack. Small pieces are gathered,
   as a call of OpenSSL costs more than hashing one. */

typedef struct {
    s3_buf_t       *buf;
    EVP_MD_CTX     *md;
    int             failed;
    size_t          staged;
    unsigned char   stage[S3_SIGV4_STAGE];
} s3_sigv4_sink_t;


static int s3_sigv4_sign(s3_sigv4_cache_t *cache, s3_str_t secret,
    const s3_sigv4_request_t *r, const unsigned char *order, s3_str_t names,
    unsigned char signature[32]);
static void s3_sigv4_sink(s3_sigv4_sink_t *sink, s3_buf_t *buf,
    EVP_MD_CTX *md);
static void s3_sigv4_put(s3_sigv4_sink_t *sink, const void *p, size_t len);
static void s3_sigv4_flush(s3_sigv4_sink_t *sink);
static void s3_sigv4_put_name(s3_sigv4_sink_t *sink, s3_str_t name);
static void s3_sigv4_put_value(s3_sigv4_sink_t *sink, s3_str_t value);
static int s3_sigv4_sort(const s3_sigv4_request_t *r,
    unsigned char *order);
static int s3_sigv4_compare(s3_str_t a, s3_str_t b);
static void s3_sigv4_put_names(s3_sigv4_sink_t *sink,
    const s3_sigv4_request_t *r, const unsigned char *order);
static int s3_sigv4_put_request(s3_sigv4_sink_t *sink,
    const s3_sigv4_request_t *r, const unsigned char *order, s3_str_t names);
static int s3_sigv4_hash(const s3_sigv4_request_t *r,
    const unsigned char *order, s3_str_t names, unsigned char digest[32]);
static int s3_sigv4_cached_key(s3_sigv4_cache_t *cache, s3_str_t secret,
    const s3_sigv4_request_t *r, unsigned char key[32]);
static void s3_sigv4_put_piece(s3_buf_t *b, const void *p, size_t len);
static void s3_sigv4_put_scope(s3_buf_t *b, const s3_sigv4_request_t *r);


int
s3_sigv4_canonical(const s3_sigv4_request_t *r, s3_buf_t *out)
{
    unsigned char    order[S3_SIGV4_MAX_FIELDS];
    s3_sigv4_sink_t  sink;

    static const s3_str_t  none = { 0, NULL };

    s3_sigv4_sink(&sink, out, NULL);

    if (s3_sigv4_sort(r, order) != S3_OK) {
        return S3_ERROR;
    }

    return s3_sigv4_put_request(&sink, r, order, none);
}


int
s3_sigv4_authorization(s3_sigv4_cache_t *cache, const s3_keys_t *keys,
    const s3_sigv4_request_t *r, s3_buf_t *out)
{
    s3_str_t         names;
    unsigned char   *start;
    unsigned char    order[S3_SIGV4_MAX_FIELDS], signature[32];
    s3_sigv4_sink_t  sink;

    if (r->date.len != S3_SIGV4_DATE_LEN
        || s3_sigv4_sort(r, order) != S3_OK)
    {
        return S3_ERROR;
    }

    start = out->pos;

    s3_buf_puts(out, "AWS4-HMAC-SHA256 Credential=");
    s3_buf_put_str(out, keys->access_key);
    s3_buf_putc(out, '/');
    s3_sigv4_put_scope(out, r);
    s3_buf_puts(out, ", SignedHeaders=");

    /* they stand in what is signed as well */

    names.data = out->pos;
    s3_sigv4_sink(&sink, out, NULL);
    s3_sigv4_put_names(&sink, r, order);
    names.len = (size_t) (out->pos - names.data);

    if (out->overflow
        || s3_sigv4_sign(cache, keys->secret_key, r, order, names, signature)
           != S3_OK)
    {
        out->pos = start;
        return S3_ERROR;
    }

    s3_buf_puts(out, ", Signature=");
    s3_buf_put_hex(out, signature, 32);

    if (out->overflow) {
        out->pos = start;
        return S3_ERROR;
    }

    return S3_OK;
}


static int
s3_sigv4_sign(s3_sigv4_cache_t *cache, s3_str_t secret,
    const s3_sigv4_request_t *r, const unsigned char *order, s3_str_t names,
    unsigned char signature[32])
{
    int            rc;
    s3_buf_t       b;
    unsigned char  digest[32], key[32], string[S3_SIGV4_STRING_MAX];

    if (s3_sigv4_hash(r, order, names, digest) != S3_OK) {
        return S3_ERROR;
    }

    s3_buf_init(&b, string, sizeof(string));
    s3_buf_puts(&b, "AWS4-HMAC-SHA256\n");
    s3_buf_put_str(&b, r->date);
    s3_buf_putc(&b, '\n');
    s3_sigv4_put_scope(&b, r);
    s3_buf_putc(&b, '\n');
    s3_buf_put_hex(&b, digest, 32);

    if (b.overflow) {
        return S3_ERROR;
    }

    rc = s3_sigv4_cached_key(cache, secret, r, key);

    if (rc == S3_OK) {
        rc = s3_hash_hmac(key, 32, s3_buf_str(&b), signature);
    }

    s3_wipe(key, sizeof(key));

    return rc;
}


static void
s3_sigv4_sink(s3_sigv4_sink_t *sink, s3_buf_t *buf, EVP_MD_CTX *md)
{
    sink->buf = buf;
    sink->md = md;
    sink->failed = 0;
    sink->staged = 0;
}


static void
s3_sigv4_put(s3_sigv4_sink_t *sink, const void *p, size_t len)
{
    if (sink->md == NULL) {
        s3_buf_put(sink->buf, p, len);
        return;
    }

    if (len > sizeof(sink->stage) - sink->staged) {
        s3_sigv4_flush(sink);
    }

    if (len > sizeof(sink->stage)) {

        if (EVP_DigestUpdate(sink->md, p, len) != 1) {
            sink->failed = 1;
        }

        return;
    }

    if (len != 0) {
        memcpy(sink->stage + sink->staged, p, len);
        sink->staged += len;
    }
}


static void
s3_sigv4_flush(s3_sigv4_sink_t *sink)
{
    if (sink->md && EVP_DigestUpdate(sink->md, sink->stage, sink->staged) != 1)
    {
        sink->failed = 1;
    }

    sink->staged = 0;
}


static void
s3_sigv4_put_name(s3_sigv4_sink_t *sink, s3_str_t name)
{
    char    lower[64];
    size_t  i, n;

    for (i = 0, n = 0; i < name.len; i++) {
        lower[n] = (char) name.data[i];

        if (lower[n] >= 'A' && lower[n] <= 'Z') {
            lower[n] |= 0x20;
        }

        if (++n == sizeof(lower)) {
            s3_sigv4_put(sink, lower, n);
            n = 0;
        }
    }

    s3_sigv4_put(sink, lower, n);
}


/* trimmed; each run of white space inside becomes one space */

static void
s3_sigv4_put_value(s3_sigv4_sink_t *sink, s3_str_t value)
{
    int                   first;
    const unsigned char  *p, *end, *word;

    p = value.data;
    end = p + value.len;
    first = 1;

    for ( ;; ) {

        while (p != end && (*p == ' ' || *p == '\t')) {
            p++;
        }

        if (p == end) {
            return;
        }

        word = p;

        while (p != end && *p != ' ' && *p != '\t') {
            p++;
        }

        if (!first) {
            s3_sigv4_put(sink, " ", 1);
        }

        s3_sigv4_put(sink, word, p - word);
        first = 0;
    }
}


/* Fills order with the fields' indices by lower-case name; equal names keep
   their order. A line break would forge a line of the canonical request. */

static int
s3_sigv4_sort(const s3_sigv4_request_t *r, unsigned char *order)
{
    size_t           i, j, n;
    const s3_str_t  *s;

    if (r->nfields > S3_SIGV4_MAX_FIELDS) {
        return S3_ERROR;
    }

    for (i = 0; i < r->nfields; i++) {

        if (r->fields[i].name.len == 0) {
            return S3_ERROR;
        }

        for (n = 0; n < 2; n++) {
            s = n ? &r->fields[i].value : &r->fields[i].name;

            if (s->len != 0 && (memchr(s->data, '\n', s->len)
                                || memchr(s->data, '\r', s->len)))
            {
                return S3_ERROR;
            }
        }

        for (j = i; j > 0; j--) {

            if (s3_sigv4_compare(r->fields[order[j - 1]].name,
                                 r->fields[i].name) <= 0)
            {
                break;
            }

            order[j] = order[j - 1];
        }

        order[j] = (unsigned char) i;
    }

    return S3_OK;
}


/* of lower-case forms, byte by byte */

static int
s3_sigv4_compare(s3_str_t a, s3_str_t b)
{
    int     ca, cb;
    size_t  i;

    for (i = 0; i < a.len && i < b.len; i++) {
        ca = a.data[i];
        cb = b.data[i];

        ca = (ca >= 'A' && ca <= 'Z') ? ca | 0x20 : ca;
        cb = (cb >= 'A' && cb <= 'Z') ? cb | 0x20 : cb;

        if (ca != cb) {
            return ca - cb;
        }
    }

    return (a.len > b.len) - (a.len < b.len);
}


static void
s3_sigv4_put_names(s3_sigv4_sink_t *sink, const s3_sigv4_request_t *r,
    const unsigned char *order)
{
    size_t    i;
    s3_str_t  name, prev;

    prev.len = 0;
    prev.data = NULL;

    for (i = 0; i < r->nfields; i++) {
        name = r->fields[order[i]].name;

        if (i != 0) {
            if (s3_sigv4_compare(name, prev) == 0) {
                continue;
            }

            s3_sigv4_put(sink, ";", 1);
        }

        s3_sigv4_put_name(sink, name);
        prev = name;
    }
}


/* names: those of the fields, where they are known already */

static int
s3_sigv4_put_request(s3_sigv4_sink_t *sink, const s3_sigv4_request_t *r,
    const unsigned char *order, s3_str_t names)
{
    size_t             i;
    const s3_field_t  *f, *prev;

    s3_sigv4_put(sink, r->method.data, r->method.len);
    s3_sigv4_put(sink, "\n", 1);
    s3_sigv4_put(sink, r->path.data, r->path.len);
    s3_sigv4_put(sink, "\n", 1);
    s3_sigv4_put(sink, r->query.data, r->query.len);
    s3_sigv4_put(sink, "\n", 1);

    prev = NULL;

    for (i = 0; i < r->nfields; i++) {
        f = &r->fields[order[i]];

        if (prev != NULL && s3_sigv4_compare(f->name, prev->name) == 0) {
            s3_sigv4_put(sink, ",", 1);

        } else {
            if (prev != NULL) {
                s3_sigv4_put(sink, "\n", 1);
            }

            s3_sigv4_put_name(sink, f->name);
            s3_sigv4_put(sink, ":", 1);
        }

        s3_sigv4_put_value(sink, f->value);
        prev = f;
    }

    if (prev != NULL) {
        s3_sigv4_put(sink, "\n", 1);
    }

    s3_sigv4_put(sink, "\n", 1);

    if (names.len) {
        s3_sigv4_put(sink, names.data, names.len);

    } else {
        s3_sigv4_put_names(sink, r, order);
    }

    s3_sigv4_put(sink, "\n", 1);
    s3_sigv4_put(sink, r->payload.data, r->payload.len);
    s3_sigv4_flush(sink);

    if (sink->failed || (sink->buf != NULL && sink->buf->overflow)) {
        return S3_ERROR;
    }

    return S3_OK;
}


static int
s3_sigv4_hash(const s3_sigv4_request_t *r, const unsigned char *order,
    s3_str_t names, unsigned char digest[32])
{
    EVP_MD_CTX       *md;
    s3_sigv4_sink_t   sink;

    md = s3_hash_begin();
    if (md == NULL) {
        return S3_ERROR;
    }

    s3_sigv4_sink(&sink, NULL, md);

    if (s3_sigv4_put_request(&sink, r, order, names) != S3_OK) {
        ERR_clear_error();
        return S3_ERROR;
    }

    return s3_hash_end(md, digest);
}


/* a scope is too long only where there is no key either */

static int
s3_sigv4_cached_key(s3_sigv4_cache_t *cache, s3_str_t secret,
    const s3_sigv4_request_t *r, unsigned char key[32])
{
    int            rc;
    size_t         len;
    s3_buf_t       b;
    unsigned char  scope[S3_SIGV4_SCOPE_MAX];

    if (cache == NULL) {
        return s3_sigv4_key(secret, r->date, r->region, r->service, key);
    }

    s3_buf_init(&b, scope, sizeof(scope));
    s3_sigv4_put_piece(&b, secret.data, secret.len);
    s3_sigv4_put_piece(&b, r->date.data, 8);
    s3_sigv4_put_piece(&b, r->region.data, r->region.len);
    s3_sigv4_put_piece(&b, r->service.data, r->service.len);

    len = (size_t) (b.pos - b.start);
    rc = b.overflow ? S3_ERROR : S3_OK;

    if (rc == S3_OK
        && (cache->scope_len != len
            || CRYPTO_memcmp(cache->scope, scope, len) != 0))
    {
        cache->scope_len = 0;

        rc = s3_sigv4_key(secret, r->date, r->region, r->service, cache->key);

        if (rc == S3_OK) {
            memcpy(cache->scope, scope, len);
            cache->scope_len = len;

        } else {
            s3_wipe(cache, sizeof(s3_sigv4_cache_t));
        }
    }

    s3_wipe(scope, len);

    if (rc == S3_OK) {
        memcpy(key, cache->key, 32);
    }

    return rc;
}


/* with its length before it, so that no two scopes look the same */

static void
s3_sigv4_put_piece(s3_buf_t *b, const void *p, size_t len)
{
    s3_buf_put(b, &len, sizeof(len));
    s3_buf_put(b, p, len);
}


int
s3_sigv4_key(s3_str_t secret, s3_str_t date, s3_str_t region,
    s3_str_t service, unsigned char key[32])
{
    int            rc;
    unsigned char  start[4 + S3_SIGV4_SECRET_MAX], a[32], b[32];

    if (secret.len > S3_SIGV4_SECRET_MAX || date.len < 8) {
        return S3_ERROR;
    }

    memcpy(start, "AWS4", 4);

    if (secret.len != 0) {
        memcpy(start + 4, secret.data, secret.len);
    }

    date.len = 8;
    rc = S3_ERROR;

    if (s3_hash_hmac(start, 4 + secret.len, date, a) == S3_OK
        && s3_hash_hmac(a, 32, region, b) == S3_OK
        && s3_hash_hmac(b, 32, service, a) == S3_OK
        && s3_hash_hmac(a, 32, s3_str("aws4_request"), key) == S3_OK)
    {
        rc = S3_OK;
    }

    s3_wipe(start, sizeof(start));
    s3_wipe(a, sizeof(a));
    s3_wipe(b, sizeof(b));

    return rc;
}


static void
s3_sigv4_put_scope(s3_buf_t *b, const s3_sigv4_request_t *r)
{
    s3_buf_put(b, r->date.data, 8);
    s3_buf_putc(b, '/');
    s3_buf_put_str(b, r->region);
    s3_buf_putc(b, '/');
    s3_buf_put_str(b, r->service);
    s3_buf_puts(b, "/aws4_request");
}


void
s3_sigv4_date(int64_t seconds, char date[S3_SIGV4_DATE_LEN + 1])
{
    unsigned  i, year, month, day, days, rest, era;

    /* 9999-12-31T23:59:59Z: four digits hold no later year */

    if (seconds < 0) {
        seconds = 0;

    } else if (seconds > 253402300799) {
        seconds = 253402300799;
    }

    rest = (unsigned) (seconds % 86400);

    /* days since 0000-03-01: the leap day is the last of its year */

    days = (unsigned) (seconds / 86400) + 719468;
    era = days / 146097;
    days %= 146097;

    year = (days - days / 1460 + days / 36524 - days / 146096) / 365;
    days -= 365 * year + year / 4 - year / 100;

    month = (5 * days + 2) / 153;
    day = days - (153 * month + 2) / 5 + 1;
    month = (month < 10) ? month + 3 : month - 9;
    year += era * 400 + (month <= 2);

    date[16] = '\0';
    date[15] = 'Z';
    date[8] = 'T';

    for (i = 4; i-- > 0; year /= 10) {
        date[i] = (char) ('0' + year % 10);
    }

    date[4] = (char) ('0' + month / 10);
    date[5] = (char) ('0' + month % 10);
    date[6] = (char) ('0' + day / 10);
    date[7] = (char) ('0' + day % 10);
    date[9] = (char) ('0' + rest / 36000);
    date[10] = (char) ('0' + rest / 3600 % 10);
    date[11] = (char) ('0' + rest % 3600 / 600);
    date[12] = (char) ('0' + rest / 60 % 10);
    date[13] = (char) ('0' + rest % 60 / 10);
    date[14] = (char) ('0' + rest % 10);
}
