/*
 * Whether a response is one of which a copy is taken: a whole representation
 * of what the request names, for everybody, whose end can be told.
 */

#include "ngx_http_s3_spec.h"


typedef ngx_uint_t (*ngx_http_s3_tee_test_pt)(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf);

static ngx_uint_t ngx_http_s3_tee_method(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf);
static ngx_uint_t ngx_http_s3_tee_range(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf);
static ngx_uint_t ngx_http_s3_tee_subrequest(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf);
static ngx_uint_t ngx_http_s3_tee_status(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf);
static ngx_uint_t ngx_http_s3_tee_error_page(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf);
static ngx_uint_t ngx_http_s3_tee_set_cookie(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf);
static ngx_uint_t ngx_http_s3_tee_cache_control(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf);
static ngx_uint_t ngx_http_s3_tee_private(ngx_str_t *value);
static ngx_uint_t ngx_http_s3_tee_close_delimited(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf);
static ngx_uint_t ngx_http_s3_tee_protocol(ngx_http_upstream_t *u,
    const char *name);
static ngx_uint_t ngx_http_s3_tee_size(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf);
static ngx_table_elt_t *ngx_http_s3_tee_header(ngx_http_request_t *r,
    ngx_http_s3_walk_t *walk, const char *name);


/* in the order of the reasons, from the first on */

static const ngx_http_s3_tee_test_pt  ngx_http_s3_tee_tests[] = {
    ngx_http_s3_tee_method,
    ngx_http_s3_tee_range,
    ngx_http_s3_tee_subrequest,
    ngx_http_s3_tee_status,
    ngx_http_s3_tee_error_page,
    ngx_http_s3_tee_set_cookie,
    ngx_http_s3_tee_cache_control,
    ngx_http_s3_tee_close_delimited,
    ngx_http_s3_tee_size
};

#define NGX_HTTP_S3_TEE_TESTS                                                \
    (sizeof(ngx_http_s3_tee_tests) / sizeof(ngx_http_s3_tee_tests[0]))


ngx_int_t
ngx_http_s3_tee_judge(ngx_http_request_t *r, ngx_http_s3_tee_conf_t *conf,
    s3_tee_reason_e *reason)
{
    ngx_str_t   value;
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_S3_TEE_TESTS; i++) {
        if (ngx_http_s3_tee_tests[i](r, conf)) {
            *reason = i;
            return NGX_DECLINED;
        }
    }

    if (conf->condition == NULL) {
        return NGX_OK;
    }

    if (ngx_http_complex_value(r, conf->condition, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (value.len == 0 || (value.len == 1 && value.data[0] == '0')) {
        *reason = S3_TEE_CONDITION;
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* what another method is answered with represents what was done, RFC 9110,
   9.3 */

static ngx_uint_t
ngx_http_s3_tee_method(ngx_http_request_t *r, ngx_http_s3_tee_conf_t *conf)
{
    return r->method != NGX_HTTP_GET;
}


static ngx_uint_t
ngx_http_s3_tee_range(ngx_http_request_t *r, ngx_http_s3_tee_conf_t *conf)
{
    return r->headers_in.range != NULL;
}


static ngx_uint_t
ngx_http_s3_tee_subrequest(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf)
{
    ngx_http_upstream_t  *u;

    if (r != r->main) {
        return 1;
    }

    /* "slice" makes one answer of parts, of which it asks for all but the
       first in subrequests */

    u = r->upstream;

    return u && u->headers_in.status_n == NGX_HTTP_PARTIAL_CONTENT
           && r->headers_out.status == NGX_HTTP_OK;
}


static ngx_uint_t
ngx_http_s3_tee_status(ngx_http_request_t *r, ngx_http_s3_tee_conf_t *conf)
{
    ngx_uint_t  i, *status;

    if (r->header_only) {
        return 1;
    }

    if (conf->status == NULL) {
        return r->headers_out.status != NGX_HTTP_OK;
    }

    status = conf->status->elts;

    for (i = 0; i < conf->status->nelts; i++) {
        if (status[i] == r->headers_out.status) {
            return 0;
        }
    }

    return 1;
}


/* it stands in for what the request names, whatever its status says */

static ngx_uint_t
ngx_http_s3_tee_error_page(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf)
{
    return r->error_page || r->err_status;
}


static ngx_uint_t
ngx_http_s3_tee_set_cookie(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf)
{
    ngx_http_s3_walk_t  walk;

    ngx_memzero(&walk, sizeof(ngx_http_s3_walk_t));

    return !(conf->ignore_headers & NGX_HTTP_S3_TEE_SET_COOKIE)
           && ngx_http_s3_tee_header(r, &walk, "set-cookie") != NULL;
}


static ngx_uint_t
ngx_http_s3_tee_cache_control(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf)
{
    ngx_table_elt_t     *h;
    ngx_http_s3_walk_t   walk;

    if (conf->ignore_headers & NGX_HTTP_S3_TEE_CACHE_CONTROL) {
        return 0;
    }

    ngx_memzero(&walk, sizeof(ngx_http_s3_walk_t));

    while ((h = ngx_http_s3_tee_header(r, &walk, "cache-control")) != NULL) {
        if (ngx_http_s3_tee_private(&h->value)) {
            return 1;
        }
    }

    return 0;
}


/* RFC 9111, 5.2.2: "private" may have an argument, and names come in any
   case */

static ngx_uint_t
ngx_http_s3_tee_private(ngx_str_t *value)
{
    u_char  *p, *start, *last;

    p = value->data;
    last = p + value->len;

    while (p < last) {

        while (p < last && (*p == ' ' || *p == '\t' || *p == ',')) {
            p++;
        }

        start = p;

        while (p < last && *p != ' ' && *p != '\t' && *p != ','
               && *p != '=')
        {
            p++;
        }

        if ((p - start == 7
             && ngx_strncasecmp(start, (u_char *) "private", 7) == 0)
            || (p - start == 8
                && ngx_strncasecmp(start, (u_char *) "no-store", 8) == 0))
        {
            return 1;
        }

        /* an argument may be a string with commas */

        if (p < last && *p == '=' && ++p < last && *p == '"') {

            for (p++; p < last && *p != '"'; p++) {
                if (*p == '\\') {
                    p++;
                }
            }
        }

        while (p < last && *p != ',') {
            p++;
        }
    }

    return 0;
}


/* An answer that ends with its connection looks whole wherever it is cut. gRPC
   has an end of its own, which nginx insists on; so has FastCGI, see
   ngx_http_s3_tee_cut_off(), but nothing tells it in an answer of the cache.
   Chunks end an answer only for who decodes them: uwsgi, SCGI and FastCGI note
   what such a header says and pass the bytes on as they are. */

static ngx_uint_t
ngx_http_s3_tee_close_delimited(ngx_http_request_t *r,
    ngx_http_s3_tee_conf_t *conf)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (conf->close_delimited || u == NULL
        || r->headers_out.content_length_n != -1
        || u->headers_in.content_length_n != -1
        || (u->headers_in.chunked && ngx_http_s3_tee_protocol(u, "proxy")))
    {
        return 0;
    }

    return r->cached || !(ngx_http_s3_tee_protocol(u, "fastcgi")
                          || ngx_http_s3_tee_protocol(u, "grpc"));
}


static ngx_uint_t
ngx_http_s3_tee_protocol(ngx_http_upstream_t *u, const char *name)
{
    ngx_str_t  *module;

    module = &u->conf->module;

    return module->len == ngx_strlen(name)
           && ngx_strncmp(module->data, name, module->len) == 0;
}


/* nginx takes the end of a FastCGI connection for the end of its response,
   unless it was told a length or fastcgi_keep_conn is on */

ngx_uint_t
ngx_http_s3_tee_cut_off(ngx_http_request_t *r)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (!ngx_http_s3_tee_protocol(u, "fastcgi")) {
        return 0;
    }

    return u->buffering ? !u->pipe->upstream_done : u->length != 0;
}


static ngx_uint_t
ngx_http_s3_tee_size(ngx_http_request_t *r, ngx_http_s3_tee_conf_t *conf)
{
    off_t  size;

    size = r->headers_out.content_length_n;

    if (size == -1) {
        return 0;
    }

    return size < conf->min_size
           || (conf->max_size && size > conf->max_size);
}


/* the next header of that name; NULL: there is none */

static ngx_table_elt_t *
ngx_http_s3_tee_header(ngx_http_request_t *r, ngx_http_s3_walk_t *walk,
    const char *name)
{
    size_t            len;
    ngx_table_elt_t  *h;

    len = ngx_strlen(name);

    while ((h = ngx_http_s3_walk(&r->headers_out.headers, walk)) != NULL) {

        if (h->key.len == len
            && ngx_strncasecmp(h->key.data, (u_char *) name, len) == 0)
        {
            return h;
        }
    }

    return NULL;
}
