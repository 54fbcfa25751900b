/*
 * What an origin is asked and what its answers mean. Part of ngx_s3_pull.
 */

#include "ngx_s3_pull.h"

#include "ngx_s3_answer.h"
#include "ngx_s3_kept.h"
#include "ngx_s3_multipart.h"
#include "ngx_s3_sign.h"
#include "s3_addr.h"


#define NGX_S3_PULL_POOL    4096
#define NGX_S3_PULL_WINDOW  (256 * 1024)
#define NGX_S3_PULL_REPLY   (64 * 1024)  /* bytes of an error document */


static ngx_int_t ngx_s3_pull_range(ngx_s3_pull_t *p);
static ngx_int_t ngx_s3_pull_signed(ngx_s3_pull_t *p);
static ngx_int_t ngx_s3_pull_plain(ngx_s3_pull_t *p);
static ngx_int_t ngx_s3_pull_head(ngx_s3_pull_t *p);
static size_t ngx_s3_pull_head_size(ngx_s3_pull_t *p, ngx_array_t *fields);
static void ngx_s3_pull_fields(s3_buf_t *b, ngx_array_t *fields);
static void ngx_s3_pull_field(s3_buf_t *b, ngx_array_t *fields,
    const char *name, const char *value);
static ngx_int_t ngx_s3_pull_misled(ngx_s3_pull_t *p, const char *reason);
static ngx_str_t ngx_s3_pull_place(ngx_s3_pull_t *p);
static ngx_int_t ngx_s3_pull_save_place(ngx_s3_pull_t *p);
static size_t ngx_s3_pull_save(u_char *dst, size_t size, ngx_str_t *value);
static ngx_uint_t ngx_s3_pull_is(ngx_s3_pull_t *p, const char *name,
    u_char *data, size_t len);


const char *
ngx_s3_pull_special(ngx_s3_pull_conf_t *conf, struct sockaddr *sa)
{
    size_t                len;
    u_char               *addr;
    const char           *special;
    struct sockaddr_in   *sin;
#if (NGX_HAVE_INET6)
    struct sockaddr_in6  *sin6;
#endif

    switch (sa->sa_family) {

#if (NGX_HAVE_INET6)
    case AF_INET6:
        sin6 = (struct sockaddr_in6 *) sa;
        addr = sin6->sin6_addr.s6_addr;
        len = 16;
        break;
#endif

    case AF_INET:
        sin = (struct sockaddr_in *) sa;
        addr = (u_char *) &sin->sin_addr.s_addr;
        len = 4;
        break;

    default:
        return "unknown";
    }

    special = s3_addr_special(addr, len);

    if (special == NULL || conf->allow_all
        || (conf->allow && ngx_cidr_match(sa, conf->allow) == NGX_OK))
    {
        return NULL;
    }

    return special;
}


ngx_int_t
ngx_s3_pull_allow(ngx_s3_endpoint_t *endpoint, struct sockaddr *sa,
    char *reason)
{
    const char  *special;

    special = ngx_s3_pull_special(endpoint->allow_data, sa);

    if (special == NULL) {
        return NGX_OK;
    }

    ngx_s3_reason(reason, "the address of \"%V\" is %s, see s3_ingest_allow",
                  &endpoint->host, special);

    return NGX_DECLINED;
}


ngx_int_t
ngx_s3_pull_request(ngx_s3_pull_t *p)
{
    ngx_int_t          rc;
    ngx_str_t          url;
    ngx_pool_t        *pool;
    const char        *err;
    ngx_s3_request_t  *rq;

    pool = ngx_create_pool(NGX_S3_PULL_POOL, p->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    /* the former pool may hold it */

    url.len = p->next.len;
    url.data = ngx_pstrdup(pool, &p->next);

    if (p->try_pool) {
        ngx_destroy_pool(p->try_pool);
    }

    p->try_pool = pool;

    if (url.data == NULL) {
        p->next = p->url;
        return NGX_ERROR;
    }

    p->next = url;

    if (s3_origin_parse(ngx_s3_to_str(url), &p->hop, &err) != S3_OK) {
        return ngx_s3_pull_misled(p, err);
    }

    rq = &p->rq;

    ngx_memzero(rq, sizeof(ngx_s3_request_t));

    rq->pool = pool;
    rq->log = p->log;
    rq->window = NGX_S3_PULL_WINDOW;
    rq->max_reply = NGX_S3_PULL_REPLY;
    rq->begin = ngx_s3_pull_begin;
    rq->part = ngx_s3_pull_part;
    rq->room = ngx_s3_pull_room;
    rq->handler = ngx_s3_pull_answered;
    rq->data = p;

    if (ngx_s3_pull_range(p) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = (p->hop.scheme == S3_ORIGIN_S3) ? ngx_s3_pull_signed(p)
                                         : ngx_s3_pull_plain(p);

    return (rc == NGX_OK) ? ngx_s3_request_send(rq) : rc;
}


/* The rest of what has begun to come, and only of that (RFC 9110, 13.1.5; S3
   knows no If-Range). A validator is one resource's: where a redirect leads
   elsewhere than before, it says nothing. */

static ngx_int_t
ngx_s3_pull_range(ngx_s3_pull_t *p)
{
    u_char      *value;
    ngx_str_t    place;
    s3_field_t  *f;

    p->range.nelts = 0;

    place = ngx_s3_pull_place(p);

    if (p->received == 0
        || !s3_str_eq(ngx_s3_to_str(place), ngx_s3_to_str(p->place)))
    {
        return NGX_OK;
    }

    value = ngx_pnalloc(p->try_pool, sizeof("bytes=-") + NGX_OFF_T_LEN);
    f = ngx_array_push_n(&p->range, 2);

    if (value == NULL || f == NULL) {
        return NGX_ERROR;
    }

    f[0].name = s3_str("range");
    f[0].value.data = value;
    f[0].value.len = ngx_sprintf(value, "bytes=%O-", p->received) - value;

    f[1].name = s3_str(p->hop.scheme == S3_ORIGIN_S3 ? "if-match"
                                                     : "if-range");
    f[1].value.data = p->etag;
    f[1].value.len = p->etag_len;

    return NGX_OK;
}


static ngx_int_t
ngx_s3_pull_signed(ngx_s3_pull_t *p)
{
    ngx_int_t      rc;
    ngx_s3_get_t  *get;

    get = &p->get;

    get->target = p->conf->transfer->target;
    get->log = p->log;
    get->bucket.len = p->hop.bucket.len;
    get->bucket.data = (u_char *) p->hop.bucket.data;
    get->key.len = p->hop.key.len;
    get->key.data = (u_char *) p->hop.key.data;
    get->fields = &p->range;

    p->rq.endpoint = get->target->endpoint;

    rc = ngx_s3_get_head(get, p->try_pool, &p->rq.head, &p->rq.host);

    if (rc == NGX_DECLINED) {
        ngx_s3_result_set(&p->result, 500, "InternalError", get->cause);
    }

    return rc;
}


static ngx_int_t
ngx_s3_pull_plain(ngx_s3_pull_t *p)
{
    p->rq.endpoint = ngx_s3_endpoint_derive(p->try_pool, p->conf->origin,
                                            &p->hop.endpoint);

    return p->rq.endpoint ? ngx_s3_pull_head(p) : NGX_ERROR;
}


static ngx_int_t
ngx_s3_pull_head(ngx_s3_pull_t *p)
{
    size_t        size;
    u_char       *start;
    s3_buf_t      b;
    ngx_array_t  *fields;

    /* another origin gets nothing that is meant for this one */

    fields = p->foreign ? NULL : p->fields;

    size = ngx_s3_pull_head_size(p, fields);

    start = ngx_pnalloc(p->try_pool, size);
    if (start == NULL) {
        return NGX_ERROR;
    }

    s3_buf_init(&b, start, size);

    s3_buf_puts(&b, "GET ");

    if (s3_origin_target(p->hop.target, &b) != S3_OK) {
        return NGX_ERROR;
    }

    s3_buf_puts(&b, " HTTP/1.1" CRLF "Host: ");
    s3_buf_put_str(&b, ngx_s3_to_str(p->rq.endpoint->authority));
    s3_buf_puts(&b, CRLF);

    ngx_s3_pull_field(&b, fields, "user-agent", NGX_S3_USER_AGENT);
    ngx_s3_pull_field(&b, fields, "accept", "*/*");
    ngx_s3_pull_field(&b, fields, "accept-encoding", "identity");

    ngx_s3_pull_fields(&b, fields);
    ngx_s3_pull_fields(&b, &p->range);

    s3_buf_puts(&b, "Connection: close" CRLF CRLF);

    if (b.overflow) {
        return NGX_ERROR;
    }

    p->rq.head.data = start;
    p->rq.head.len = b.pos - b.start;

    return NGX_OK;
}


static size_t
ngx_s3_pull_head_size(ngx_s3_pull_t *p, ngx_array_t *fields)
{
    size_t        size;
    ngx_uint_t    i, k;
    s3_field_t   *f;
    ngx_array_t  *all[2];

    all[0] = fields;
    all[1] = &p->range;

    size = sizeof("GET  HTTP/1.1" CRLF "Host: " CRLF
                  "user-agent: " NGX_S3_USER_AGENT CRLF
                  "accept: */*" CRLF
                  "accept-encoding: identity" CRLF
                  "Connection: close" CRLF CRLF)
           + 3 * p->hop.target.len + 1 + p->rq.endpoint->authority.len;

    for (k = 0; k < 2; k++) {

        f = all[k] ? all[k]->elts : NULL;

        for (i = 0; f && i < all[k]->nelts; i++) {
            size += f[i].name.len + f[i].value.len + sizeof(": " CRLF);
        }
    }

    return size;
}


static void
ngx_s3_pull_fields(s3_buf_t *b, ngx_array_t *fields)
{
    ngx_uint_t   i;
    s3_field_t  *f;

    f = fields ? fields->elts : NULL;

    for (i = 0; f && i < fields->nelts; i++) {
        s3_buf_put_str(b, f[i].name);
        s3_buf_puts(b, ": ");
        s3_buf_put_str(b, f[i].value);
        s3_buf_puts(b, CRLF);
    }
}


/* unless there is one of the name */

static void
ngx_s3_pull_field(s3_buf_t *b, ngx_array_t *fields, const char *name,
    const char *value)
{
    ngx_uint_t   i;
    s3_field_t  *f;

    f = fields ? fields->elts : NULL;

    for (i = 0; f && i < fields->nelts; i++) {
        if (s3_str_eqs(f[i].name, name)) {
            return;
        }
    }

    s3_buf_puts(b, name);
    s3_buf_puts(b, ": ");
    s3_buf_puts(b, value);
    s3_buf_puts(b, CRLF);
}


ngx_int_t
ngx_s3_pull_redirect(ngx_s3_pull_t *p)
{
    char         *end;
    size_t        size;
    u_char       *start;
    s3_buf_t      b, shown;
    ngx_str_t     location;
    const char   *err;
    s3_origin_t   to;
    u_char        text[NGX_S3_REASON];

    if (p->hops >= p->conf->redirects) {
        ngx_s3_pull_status(p);

        end = p->result.message + ngx_strlen(p->result.message);

        (void) ngx_cpystrn((u_char *) end,
                           (u_char *) ", see s3_ingest_redirects",
                           p->result.message + sizeof(p->result.message)
                           - end);
        return NGX_DECLINED;
    }

    location = ngx_s3_request_field(&p->rq, "location");

    if (location.len == 0) {
        return ngx_s3_pull_misled(p, "a redirect without Location");
    }

    size = sizeof("https://") + p->hop.authority.len + p->hop.target.len
           + location.len + 4;

    start = ngx_pnalloc(p->try_pool, size);
    if (start == NULL) {
        return NGX_ERROR;
    }

    s3_buf_init(&b, start, size);

    if (s3_origin_resolve(&p->hop, ngx_s3_to_str(location), &b, &err) != S3_OK
        || s3_origin_parse(s3_buf_str(&b), &to, &err) != S3_OK)
    {
        return ngx_s3_pull_misled(p, err);
    }

    if (to.scheme == S3_ORIGIN_S3) {
        return ngx_s3_pull_misled(p, "a redirect to s3 is not followed");
    }

    if (to.scheme == S3_ORIGIN_HTTP && p->hop.scheme == S3_ORIGIN_HTTPS) {
        return ngx_s3_pull_misled(p, "a redirect from https to http is not "
                                  "followed");
    }

    if (!s3_origin_same(&p->origin, &to)) {
        p->foreign = 1;
    }

    p->hops++;
    p->next.data = start;
    p->next.len = b.pos - b.start;

    s3_buf_init(&shown, text, sizeof(text));
    s3_origin_shown(s3_buf_str(&b), &shown);

    ngx_log_error(NGX_LOG_INFO, p->log, 0,
                  "s3 ingest from \"%V\" is redirected to \"%*s\"", &p->shown,
                  (size_t) (shown.pos - text), text);

    return NGX_OK;
}


static ngx_int_t
ngx_s3_pull_misled(ngx_s3_pull_t *p, const char *reason)
{
    ngx_s3_result_set(&p->result, 502, "OriginRedirect", reason);

    return NGX_DECLINED;
}


void
ngx_s3_pull_note(ngx_s3_pull_t *p)
{
    ngx_str_t  etag, encoding, ranges;

    etag = ngx_s3_request_field(&p->rq, "etag");
    encoding = ngx_s3_request_field(&p->rq, "content-encoding");
    ranges = ngx_s3_request_field(&p->rq, "accept-ranges");

    p->resumable = (s3_origin_strong(ngx_s3_to_str(etag))
                    && etag.len <= sizeof(p->etag)
                    && encoding.len <= sizeof(p->encoding)
                    && !s3_str_case_eqs(ngx_s3_to_str(ranges), "none")
                    && ngx_s3_pull_save_place(p) == NGX_OK);

    p->said = ngx_s3_kept_sum(p->rq.fields);

    p->etag_len = ngx_s3_pull_save(p->etag, sizeof(p->etag), &etag);
    p->encoding_len = ngx_s3_pull_save(p->encoding, sizeof(p->encoding),
                                       &encoding);
}


/* Where the request goes. A query is left out: that of a presigned URL is
   another one for each redirect. */

static ngx_str_t
ngx_s3_pull_place(ngx_s3_pull_t *p)
{
    size_t     n;
    ngx_str_t  place;

    place = p->next;

    for (n = 0; n < place.len; n++) {
        if (place.data[n] == '?' || place.data[n] == '#') {
            break;
        }
    }

    place.len = n;

    return place;
}


static ngx_int_t
ngx_s3_pull_save_place(ngx_s3_pull_t *p)
{
    ngx_str_t  place;

    place = ngx_s3_pull_place(p);

    if (place.len > p->place_size) {
        p->place.data = ngx_pnalloc(p->pool, place.len);

        if (p->place.data == NULL) {
            p->place.len = 0;
            p->place_size = 0;
            return NGX_ERROR;
        }

        p->place_size = place.len;
    }

    ngx_memcpy(p->place.data, place.data, place.len);
    p->place.len = place.len;

    return NGX_OK;
}


/* as much of a value as there is room for */

static size_t
ngx_s3_pull_save(u_char *dst, size_t size, ngx_str_t *value)
{
    size = ngx_min(size, value->len);

    if (size) {
        ngx_memcpy(dst, value->data, size);
    }

    return size;
}


static ngx_uint_t
ngx_s3_pull_is(ngx_s3_pull_t *p, const char *name, u_char *data, size_t len)
{
    s3_str_t   saved;
    ngx_str_t  value;

    value = ngx_s3_request_field(&p->rq, name);

    saved.data = data;
    saved.len = len;

    return s3_str_eq(ngx_s3_to_str(value), saved);
}


ngx_uint_t
ngx_s3_pull_same(ngx_s3_pull_t *p)
{
    return p->rq.content_length == p->total
           && ngx_s3_kept_sum(p->rq.fields) == p->said;
}


ngx_uint_t
ngx_s3_pull_rest(ngx_s3_pull_t *p)
{
    int64_t    total;
    uint64_t   first, last;
    ngx_str_t  range;

    range = ngx_s3_request_field(&p->rq, "content-range");

    if (s3_origin_content_range(ngx_s3_to_str(range), &first, &last, &total)
        != S3_OK)
    {
        return 0;
    }

    if (p->total != -1 && total == -1) {
        total = p->total;
    }

    /* one that does not say where it ends could break off unseen */

    if (first != (uint64_t) p->received
        || total == -1
        || (p->total != -1 && total != p->total)
        || (p->rq.content_length != -1
            && (uint64_t) p->rq.content_length != last - first + 1))
    {
        return 0;
    }

    /* RFC 9110, 15.3.7.3: an origin that does not say of what it is the rest
       may know Range and not If-Range */

    if (!ngx_s3_pull_is(p, "etag", p->etag, p->etag_len)
        || !ngx_s3_pull_is(p, "content-encoding", p->encoding,
                           p->encoding_len))
    {
        return 0;
    }

    p->total = total;

    return 1;
}


void
ngx_s3_pull_lost(ngx_s3_pull_t *p)
{
    const char        *code;
    ngx_uint_t         status;
    ngx_s3_request_t  *rq;

    rq = &p->rq;

    switch (rq->error) {

    case NGX_S3_E_REFUSED:
        status = 403;
        code = "OriginRefused";
        break;

    case NGX_S3_E_CONNECT_TIMEOUT:
    case NGX_S3_E_SEND_TIMEOUT:
    case NGX_S3_E_READ_TIMEOUT:
        status = 504;
        code = "OriginTimeout";
        break;

    case NGX_S3_E_INTERNAL:
        status = 500;
        code = "InternalError";
        break;

    default:
        status = 502;
        code = p->begun ? "OriginBroken" : "OriginUnavailable";
    }

    ngx_s3_result_set(&p->result, status, code, rq->reason);
}


void
ngx_s3_pull_status(ngx_s3_pull_t *p)
{
    u_char           *end;
    ngx_s3_result_t  *result;

    result = &p->result;

    ngx_s3_result_set(result, 502, "OriginStatus", "");

    if (p->hop.scheme == S3_ORIGIN_S3) {
        end = ngx_snprintf((u_char *) result->message,
                           sizeof(result->message) - 1,
                           "the bucket \"%*s\" answered %s",
                           p->hop.bucket.len, p->hop.bucket.data,
                           p->get.cause);

    } else {
        end = ngx_snprintf((u_char *) result->message,
                           sizeof(result->message) - 1,
                           "the origin \"%*s\" answered %ui",
                           p->hop.authority.len, p->hop.authority.data,
                           p->rq.status);

        result->retry_after = ngx_s3_answer_retry_after(&p->rq, -1);
    }

    *end = '\0';
}
