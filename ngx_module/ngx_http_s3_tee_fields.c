/*
 * What a response says of its body goes to the object.
 */

#include "ngx_http_s3_spec.h"
#include "ngx_s3_kept.h"


static ngx_int_t ngx_http_s3_tee_own_fields(ngx_http_request_t *r,
    ngx_array_t *headers, ngx_uint_t fixed);


ngx_int_t
ngx_http_s3_tee_fields(ngx_http_request_t *r, ngx_array_t *headers)
{
    ngx_uint_t           fixed;
    ngx_table_elt_t     *h;
    ngx_http_s3_walk_t   walk;

    fixed = headers->nelts;

    ngx_memzero(&walk, sizeof(ngx_http_s3_walk_t));

    while ((h = ngx_http_s3_walk(&r->headers_out.headers, &walk)) != NULL) {

        if (ngx_s3_keep(r->pool, headers, fixed, ngx_s3_to_str(h->key),
                        ngx_s3_to_str(h->value))
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_http_s3_tee_own_fields(r, headers, fixed);
}


/* those that nginx does not keep in its list */

static ngx_int_t
ngx_http_s3_tee_own_fields(ngx_http_request_t *r, ngx_array_t *headers,
    ngx_uint_t fixed)
{
    u_char     *p;
    ngx_str_t   type, charset, modified;

    type = r->headers_out.content_type;
    charset = r->headers_out.charset;

    if (type.len && charset.len
        && r->headers_out.content_type_len == type.len)
    {
        p = ngx_pnalloc(r->pool, type.len + sizeof("; charset=")
                                 + charset.len);
        if (p == NULL) {
            return NGX_ERROR;
        }

        type.len = ngx_sprintf(p, "%V; charset=%V", &type, &charset) - p;
        type.data = p;
    }

    ngx_str_null(&modified);

    if (r->headers_out.last_modified_time != -1) {
        modified.data = ngx_pnalloc(r->pool,
                                    sizeof("Mon, 28 Sep 1970 06:00:00 GMT"));
        if (modified.data == NULL) {
            return NGX_ERROR;
        }

        modified.len = ngx_http_time(modified.data,
                                     r->headers_out.last_modified_time)
                       - modified.data;
    }

    if (ngx_s3_keep(r->pool, headers, fixed, s3_str("content-type"),
                    ngx_s3_to_str(type))
           != NGX_OK
        || ngx_s3_keep(r->pool, headers, fixed, s3_str("last-modified"),
                       ngx_s3_to_str(modified))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}
