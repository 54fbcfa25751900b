#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_s3_reply.h"
#include "s3_json.h"


#define NGX_HTTP_S3_JSON         "application/json"
#define NGX_HTTP_S3_RETRY_AFTER  "5"     /* seconds */
#define NGX_HTTP_S3_ALLOWED      "this method is not allowed here, only "

/* one byte of a string becomes at most \u00XX */

#define NGX_HTTP_S3_JSON_ESCAPE  6

/* more than an error's names, quotes and braces */

#define NGX_HTTP_S3_ERROR_FRAME  64


static ngx_uint_t ngx_http_s3_error_page(ngx_http_request_t *r,
    ngx_uint_t status);
static ngx_table_elt_t *ngx_http_s3_find_header(ngx_http_request_t *r,
    const char *name);
static u_char *ngx_http_s3_strz(ngx_http_request_t *r, ngx_str_t *s);


ngx_int_t
ngx_http_s3_send_json(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *json)
{
    ngx_buf_t    *b;
    ngx_chain_t  *out;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    out = ngx_alloc_chain_link(r->pool);
    if (out == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->start = json->data;
    b->pos = json->data;
    b->last = json->data + json->len;
    b->end = b->last;
    b->memory = 1;

    out->buf = b;
    out->next = NULL;

    return ngx_http_s3_send_chain(r, status, NGX_HTTP_S3_JSON, out, json->len);
}


ngx_int_t
ngx_http_s3_send_chain(ngx_http_request_t *r, ngx_uint_t status,
    const char *type, ngx_chain_t *out, off_t len)
{
    ngx_int_t     rc;
    ngx_str_t     value;
    ngx_chain_t  *cl;

    if (r->header_sent) {
        return NGX_ERROR;
    }

    rc = ngx_http_s3_discard_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_clear_content_length(r);
    ngx_http_clear_accept_ranges(r);
    ngx_http_clear_last_modified(r);

    /* conditions of the request are on an object, not on this answer, which is
       a 200 where an error_page says so */

    r->disable_not_modified = 1;

    r->headers_out.status = status;
    r->headers_out.content_length_n = len;
    r->headers_out.content_type.data = (u_char *) type;
    r->headers_out.content_type.len = ngx_strlen(type);
    r->headers_out.content_type_len = strcspn(type, ";");
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.charset.len = 0;

    ngx_str_set(&value, "no-store");

    if (ngx_http_s3_add_header(r, "Cache-Control", &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    for (cl = out; cl->next; cl = cl->next) { /* void */ }

    cl->buf->last_buf = (r == r->main);
    cl->buf->last_in_chain = 1;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    return ngx_http_output_filter(r, out);
}


ngx_int_t
ngx_http_s3_send_error(ngx_http_request_t *r, ngx_uint_t status,
    const char *code, const char *message, ngx_str_t *id)
{
    size_t     size;
    u_char    *idz, *p;
    s3_buf_t   out;
    ngx_str_t  value;

    if (r->header_sent || r->connection->error) {
        return NGX_ERROR;
    }

    /* these are for nginx and for its log, nobody reads an answer */

    if (status == NGX_HTTP_CLOSE || status == NGX_HTTP_CLIENT_CLOSED_REQUEST) {
        return status;
    }

    if (status == NGX_HTTP_SERVICE_UNAVAILABLE
        && ngx_http_s3_find_header(r, "Retry-After") == NULL)
    {
        ngx_str_set(&value, NGX_HTTP_S3_RETRY_AFTER);

        if (ngx_http_s3_add_header(r, "Retry-After", &value) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (ngx_http_s3_error_page(r, status)) {
        return status;
    }

    idz = NULL;

    if (id && id->len) {
        idz = ngx_http_s3_strz(r, id);
        if (idz == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    size = ngx_strlen(code) + ngx_strlen(message) + (id ? id->len : 0);
    size = size * NGX_HTTP_S3_JSON_ESCAPE
           + NGX_HTTP_S3_ERROR_FRAME;

    p = ngx_pnalloc(r->pool, size);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    s3_buf_init(&out, p, size);

    if (s3_json_error(&out, code, message, (char *) idz) != S3_OK) {
        return status;
    }

    value.data = out.start;
    value.len = out.pos - out.start;

    /* an error_page may have the status of success for what it leads to, which
       is not meant for a failure there */

    if (r->err_status && r->err_status < NGX_HTTP_SPECIAL_RESPONSE) {
        r->err_status = status;
    }

    return ngx_http_s3_send_json(r, status, &value);
}


ngx_int_t
ngx_http_s3_send_allow(ngx_http_request_t *r, const char *methods)
{
    u_char    *p;
    ngx_int_t  rc;
    ngx_str_t  value;

    value.data = (u_char *) methods;
    value.len = ngx_strlen(methods);

    if (ngx_http_s3_add_header(r, "Allow", &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (r->method != NGX_HTTP_OPTIONS) {
        p = ngx_pnalloc(r->pool, sizeof(NGX_HTTP_S3_ALLOWED) + value.len);
        if (p == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        ngx_sprintf(p, NGX_HTTP_S3_ALLOWED "%s%Z", methods);

        return ngx_http_s3_send_error(r, NGX_HTTP_NOT_ALLOWED,
                                      "MethodNotAllowed", (char *) p, NULL);
    }

    rc = ngx_http_s3_discard_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    r->headers_out.status = NGX_HTTP_NO_CONTENT;
    r->header_only = 1;

    ngx_http_clear_content_length(r);

    return ngx_http_send_header(r);
}


ngx_int_t
ngx_http_s3_discard_body(ngx_http_request_t *r)
{
    if (r != r->main) {
        return NGX_OK;
    }

    /* such a client may send its next request instead of the body */

    if (r->headers_in.expect && !r->expect_tested && r->request_body == NULL) {
        r->keepalive = 0;
    }

    r->expect_tested = 1;

    return ngx_http_discard_request_body(r);
}


ngx_int_t
ngx_http_s3_set_header(ngx_http_request_t *r, const char *name,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_http_s3_find_header(r, name);

    if (h == NULL) {
        return ngx_http_s3_add_header(r, name, value);
    }

    h->value = *value;

    return NGX_OK;
}


ngx_int_t
ngx_http_s3_add_header(ngx_http_request_t *r, const char *name,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->value = *value;
    h->lowcase_key = NULL;

#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    return NGX_OK;
}


/* whether nginx would go on to an error_page, see
   ngx_http_special_response_handler() */

static ngx_uint_t
ngx_http_s3_error_page(ngx_http_request_t *r, ngx_uint_t status)
{
    ngx_uint_t                 i;
    ngx_http_err_page_t       *pages;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (r->error_page || clcf->error_pages == NULL || r->uri_changes == 0) {
        return 0;
    }

    pages = clcf->error_pages->elts;

    for (i = 0; i < clcf->error_pages->nelts; i++) {
        if (pages[i].status == (ngx_int_t) status) {
            return 1;
        }
    }

    return 0;
}


static ngx_table_elt_t *
ngx_http_s3_find_header(ngx_http_request_t *r, const char *name)
{
    size_t            len;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    len = ngx_strlen(name);
    part = &r->headers_out.headers.part;

    do {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].hash != 0
                && h[i].key.len == len
                && ngx_strncasecmp(h[i].key.data, (u_char *) name, len) == 0)
            {
                return &h[i];
            }
        }

        part = part->next;

    } while (part);

    return NULL;
}


static u_char *
ngx_http_s3_strz(ngx_http_request_t *r, ngx_str_t *s)
{
    u_char  *p;

    p = ngx_pnalloc(r->pool, s->len + 1);
    if (p == NULL) {
        return NULL;
    }

    (void) ngx_cpystrn(p, s->data, s->len + 1);

    return p;
}
