#include "ngx_s3_kept.h"


/* of the 2 KB that S3 gives to all of an object's metadata */
#define NGX_S3_KEPT_METADATA  512


static const ngx_s3_kept_t *ngx_s3_kept_find(s3_str_t name);
static ngx_uint_t ngx_s3_kept_valid(const ngx_s3_kept_t *kept,
    s3_str_t value);
static ngx_int_t ngx_s3_kept_join(ngx_pool_t *pool, s3_field_t *f,
    s3_str_t value);


const ngx_s3_kept_t  ngx_s3_kept[] = {
    { "content-type", "content-type", 0, 0 },
    { "content-disposition", "content-disposition", 0, 0 },
    { "content-encoding", "content-encoding", 1, 0 },
    { "content-language", "content-language", 1, 0 },
    { "cache-control", "cache-control", 1, 0 },
    { "expires", "expires", 0, 0 },
    { "last-modified", "x-amz-meta-origin-last-modified", 0, 1 },
    { "etag", "x-amz-meta-origin-etag", 0, 1 },
    { NULL, NULL, 0, 0 }
};


ngx_int_t
ngx_s3_keep(ngx_pool_t *pool, ngx_array_t *headers, ngx_uint_t fixed,
    s3_str_t name, s3_str_t value)
{
    u_char               *p;
    s3_field_t           *f;
    ngx_uint_t            i;
    const ngx_s3_kept_t  *kept;

    kept = ngx_s3_kept_find(name);

    if (kept == NULL || !ngx_s3_kept_valid(kept, value)) {
        return NGX_OK;
    }

    f = headers->elts;

    for (i = 0; i < headers->nelts; i++) {

        if (!s3_str_eqs(f[i].name, kept->stored)) {
            continue;
        }

        return (i >= fixed && kept->list)
               ? ngx_s3_kept_join(pool, &f[i], value) : NGX_OK;
    }

    p = ngx_pnalloc(pool, value.len);
    f = p ? ngx_array_push(headers) : NULL;

    if (f == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, value.data, value.len);

    f->name = s3_str(kept->stored);
    f->value.data = p;
    f->value.len = value.len;

    return NGX_OK;
}


uint32_t
ngx_s3_kept_sum(ngx_array_t *fields)
{
    uint32_t     crc;
    ngx_uint_t   i;
    s3_field_t  *f;

    ngx_crc32_init(crc);

    f = fields->elts;

    for (i = 0; i < fields->nelts; i++) {

        if (ngx_s3_kept_find(f[i].name) == NULL) {
            continue;
        }

        ngx_crc32_update(&crc, (u_char *) f[i].name.data, f[i].name.len);
        ngx_crc32_update(&crc, (u_char *) ":", 1);
        ngx_crc32_update(&crc, (u_char *) f[i].value.data, f[i].value.len);
        ngx_crc32_update(&crc, (u_char *) "\n", 1);
    }

    ngx_crc32_final(crc);

    return crc;
}


static const ngx_s3_kept_t *
ngx_s3_kept_find(s3_str_t name)
{
    const ngx_s3_kept_t  *kept;

    for (kept = ngx_s3_kept; kept->name; kept++) {
        if (name.len == ngx_strlen(kept->name)
            && ngx_strncasecmp((u_char *) name.data, (u_char *) kept->name,
                               name.len)
               == 0)
        {
            return kept;
        }
    }

    return NULL;
}


static ngx_uint_t
ngx_s3_kept_valid(const ngx_s3_kept_t *kept, s3_str_t value)
{
    u_char  ch;
    size_t  n;

    if (value.len == 0
        || (kept->answer && value.len > NGX_S3_KEPT_METADATA))
    {
        return 0;
    }

    for (n = 0; n < value.len; n++) {
        ch = value.data[n];

        if ((ch < 0x20 && ch != '\t') || ch == 0x7f) {
            return 0;
        }

        /* S3 has metadata in ASCII */

        if (kept->answer && ch > 0x7f) {
            return 0;
        }
    }

    return 1;
}


/* RFC 9110, 5.3 */

static ngx_int_t
ngx_s3_kept_join(ngx_pool_t *pool, s3_field_t *f, s3_str_t value)
{
    u_char  *p;

    p = ngx_pnalloc(pool, f->value.len + 2 + value.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_sprintf(p, "%*s, %*s", f->value.len, f->value.data, value.len,
                       value.data);

    f->value.data = p;
    f->value.len += 2 + value.len;

    return NGX_OK;
}
