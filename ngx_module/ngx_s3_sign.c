#include "ngx_s3_sign.h"


/* of the Authorization value beside access key, region, service, names */
#define NGX_S3_SIGN_AUTH_ROOM  256


/* what is signed: first the fields that are made here, Host before all */

typedef struct {
    s3_field_t  fields[S3_SIGV4_MAX_FIELDS];
    ngx_uint_t  n;
    ngx_uint_t  own;
} ngx_s3_sign_set_t;


static ngx_int_t ngx_s3_sign_check(const ngx_s3_sign_t *s);
static ngx_int_t ngx_s3_sign_check_field(const s3_field_t *f);
static ngx_int_t ngx_s3_sign_visible(s3_str_t s);
static ngx_uint_t ngx_s3_sign_in(s3_str_t name, const s3_str_t *list,
    ngx_uint_t n);
static ngx_uint_t ngx_s3_sign_is_amz(s3_str_t name);
static ngx_int_t ngx_s3_sign_select(ngx_s3_sign_set_t *set,
    const ngx_s3_sign_t *s, const s3_keys_t *keys, const char *date);
static void ngx_s3_sign_add(ngx_s3_sign_set_t *set, const char *name,
    s3_str_t value);
static size_t ngx_s3_sign_size(const ngx_s3_sign_t *s,
    const ngx_s3_sign_set_t *set, const s3_keys_t *keys);
static void ngx_s3_sign_put_head(s3_buf_t *b, const ngx_s3_sign_t *s,
    const ngx_s3_sign_set_t *set);
static void ngx_s3_sign_put_field(s3_buf_t *b, const s3_field_t *f);


/* these are set here or by the connection; names in lower case */

static const s3_str_t  ngx_s3_sign_owned[] = {
    s3_string("host"),
    s3_string("authorization"),
    s3_string("connection"),
    s3_string("content-length"),
    s3_string("expect"),
    s3_string("keep-alive"),
    s3_string("proxy-authorization"),
    s3_string("proxy-connection"),
    s3_string("te"),
    s3_string("trailer"),
    s3_string("transfer-encoding"),
    s3_string("upgrade"),
    s3_string("user-agent"),
    s3_string("x-amz-content-sha256"),
    s3_string("x-amz-date"),
    s3_string("x-amz-security-token")
};

/* beside host and x-amz-*; a proxy between us and S3 may change the others */

static const s3_str_t  ngx_s3_sign_signed[] = {
    s3_string("content-type"),
    s3_string("content-md5"),
    s3_string("if-match"),
    s3_string("if-none-match")
};

#define ngx_s3_sign_is(name, list)                                           \
    ngx_s3_sign_in(name, list, sizeof(list) / sizeof(list[0]))


ngx_int_t
ngx_s3_sign_head(ngx_pool_t *pool, ngx_s3_credentials_t *credentials,
    const ngx_s3_sign_t *s, ngx_str_t *head)
{
    char                date[S3_SIGV4_DATE_LEN + 1];
    u_char             *p;
    size_t              size;
    s3_buf_t            b;
    s3_keys_t           keys;
    s3_sigv4_request_t  rq;
    ngx_s3_sign_set_t   set;

    if (ngx_s3_sign_check(s) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (ngx_s3_credentials_get(credentials, &keys) != NGX_OK) {
        return NGX_ERROR;
    }

    s3_sigv4_date(s->now, date);

    if (ngx_s3_sign_visible(keys.access_key) != NGX_OK
        || ngx_s3_sign_visible(keys.session_token) != NGX_OK
        || ngx_s3_sign_select(&set, s, &keys, date) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    rq.method = ngx_s3_to_str(s->method);
    rq.path = ngx_s3_to_str(s->path);
    rq.query = ngx_s3_to_str(s->query);
    rq.fields = set.fields;
    rq.nfields = set.n;
    rq.payload = s->payload;
    rq.region = ngx_s3_to_str(s->region);
    rq.service = ngx_s3_to_str(s->service);
    rq.date = s3_str(date);

    size = ngx_s3_sign_size(s, &set, &keys);

    p = ngx_pnalloc(pool, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    s3_buf_init(&b, p, size);

    ngx_s3_sign_put_head(&b, s, &set);

    s3_buf_puts(&b, "Authorization: ");

    if (s3_sigv4_authorization(&credentials->cache, &keys, &rq, &b) != S3_OK) {
        return NGX_ERROR;
    }

    s3_buf_puts(&b, "\r\n\r\n");

    if (b.overflow) {
        return NGX_ERROR;
    }

    head->data = p;
    head->len = b.pos - p;

    return NGX_OK;
}


static ngx_int_t
ngx_s3_sign_check(const ngx_s3_sign_t *s)
{
    ngx_uint_t  i;

    if (s->method.len == 0 || s->path.len == 0 || s->path.data[0] != '/'
        || ngx_s3_sign_visible(ngx_s3_to_str(s->method)) != NGX_OK
        || ngx_s3_sign_visible(ngx_s3_to_str(s->path)) != NGX_OK
        || ngx_s3_sign_visible(ngx_s3_to_str(s->query)) != NGX_OK
        || ngx_s3_sign_visible(ngx_s3_to_str(s->host)) != NGX_OK
        || ngx_s3_sign_visible(ngx_s3_to_str(s->region)) != NGX_OK
        || ngx_s3_sign_visible(s->payload) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    for (i = 0; i < s->nfields; i++) {
        if (ngx_s3_sign_check_field(&s->fields[i]) != NGX_OK) {
            return NGX_DECLINED;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_s3_sign_check_field(const s3_field_t *f)
{
    size_t  i;
    u_char  ch;

    if (f->name.len == 0 || ngx_s3_sign_is(f->name, ngx_s3_sign_owned)) {
        return NGX_DECLINED;
    }

    for (i = 0; i < f->name.len; i++) {
        if (!s3_str_tchar(f->name.data[i])) {
            return NGX_DECLINED;
        }
    }

    for (i = 0; i < f->value.len; i++) {
        ch = f->value.data[i];

        if ((ch < ' ' && ch != '\t') || ch == 0x7f) {
            return NGX_DECLINED;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_s3_sign_visible(s3_str_t s)
{
    size_t  i;

    for (i = 0; i < s.len; i++) {
        if (s.data[i] <= ' ' || s.data[i] >= 0x7f) {
            return NGX_DECLINED;
        }
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_s3_sign_in(s3_str_t name, const s3_str_t *list, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        if (name.len == list[i].len
            && ngx_strncasecmp((u_char *) name.data, (u_char *) list[i].data,
                               name.len)
               == 0)
        {
            return 1;
        }
    }

    return 0;
}


static ngx_uint_t
ngx_s3_sign_is_amz(s3_str_t name)
{
    return name.len > sizeof("x-amz-") - 1
           && ngx_strncasecmp((u_char *) name.data, (u_char *) "x-amz-",
                              sizeof("x-amz-") - 1)
              == 0;
}


static ngx_int_t
ngx_s3_sign_select(ngx_s3_sign_set_t *set, const ngx_s3_sign_t *s,
    const s3_keys_t *keys, const char *date)
{
    ngx_uint_t         i;
    const s3_field_t  *f;

    set->n = 0;

    ngx_s3_sign_add(set, "Host", ngx_s3_to_str(s->host));
    ngx_s3_sign_add(set, "x-amz-date", s3_str(date));

    if (s->sha256_header) {
        ngx_s3_sign_add(set, "x-amz-content-sha256", s->payload);
    }

    if (keys->session_token.len) {
        ngx_s3_sign_add(set, "x-amz-security-token", keys->session_token);
    }

    set->own = set->n;

    for (i = 0; i < s->nfields; i++) {
        f = &s->fields[i];

        if (!ngx_s3_sign_is_amz(f->name)
            && !ngx_s3_sign_is(f->name, ngx_s3_sign_signed))
        {
            continue;
        }

        if (set->n == S3_SIGV4_MAX_FIELDS) {
            return NGX_DECLINED;
        }

        set->fields[set->n++] = *f;
    }

    return NGX_OK;
}


static void
ngx_s3_sign_add(ngx_s3_sign_set_t *set, const char *name, s3_str_t value)
{
    set->fields[set->n].name = s3_str(name);
    set->fields[set->n].value = value;
    set->n++;
}


static size_t
ngx_s3_sign_size(const ngx_s3_sign_t *s, const ngx_s3_sign_set_t *set,
    const s3_keys_t *keys)
{
    size_t      size;
    ngx_uint_t  i;

    size = s->method.len + s->path.len + s->query.len
           + sizeof(" ? HTTP/1.1" CRLF)
           + sizeof("User-Agent: " NGX_S3_USER_AGENT CRLF)
           + sizeof("Content-Length: " CRLF) + NGX_OFF_T_LEN
           + sizeof("Authorization: " CRLF CRLF)
           + NGX_S3_SIGN_AUTH_ROOM + keys->access_key.len + s->region.len
           + s->service.len;

    for (i = 0; i < s->nfields; i++) {
        size += s->fields[i].name.len + s->fields[i].value.len
                + sizeof(": " CRLF);
    }

    for (i = 0; i < set->own; i++) {
        size += set->fields[i].name.len + set->fields[i].value.len
                + sizeof(": " CRLF);
    }

    /* SignedHeaders */

    for (i = 0; i < set->n; i++) {
        size += set->fields[i].name.len + 1;
    }

    return size;
}


static void
ngx_s3_sign_put_head(s3_buf_t *b, const ngx_s3_sign_t *s,
    const ngx_s3_sign_set_t *set)
{
    ngx_uint_t  i;

    s3_buf_put_str(b, ngx_s3_to_str(s->method));
    s3_buf_putc(b, ' ');
    s3_buf_put_str(b, ngx_s3_to_str(s->path));

    if (s->query.len) {
        s3_buf_putc(b, '?');
        s3_buf_put_str(b, ngx_s3_to_str(s->query));
    }

    s3_buf_puts(b, " HTTP/1.1" CRLF);

    ngx_s3_sign_put_field(b, &set->fields[0]);

    s3_buf_puts(b, "User-Agent: " NGX_S3_USER_AGENT CRLF);

    if (s->content_length != -1) {
        s3_buf_puts(b, "Content-Length: ");
        s3_buf_put_u64(b, s->content_length);
        s3_buf_puts(b, CRLF);
    }

    for (i = 0; i < s->nfields; i++) {
        ngx_s3_sign_put_field(b, &s->fields[i]);
    }

    for (i = 1; i < set->own; i++) {
        ngx_s3_sign_put_field(b, &set->fields[i]);
    }
}


/* the signature takes a tab for a space, and so does the wire */

static void
ngx_s3_sign_put_field(s3_buf_t *b, const s3_field_t *f)
{
    u_char  *p;

    s3_buf_put_str(b, f->name);
    s3_buf_puts(b, ": ");

    p = b->pos;
    s3_buf_put_str(b, f->value);

    for ( /* void */ ; p < b->pos; p++) {
        if (*p == '\t') {
            *p = ' ';
        }
    }

    s3_buf_puts(b, CRLF);
}
