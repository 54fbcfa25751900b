#include "ngx_http_s3_result.h"

#include "ngx_http_s3_reply.h"


static ngx_int_t ngx_http_s3_result_retry_after(ngx_http_request_t *r,
    ngx_msec_t after);
static ngx_int_t ngx_http_s3_result_location(ngx_http_request_t *r);


ngx_int_t
ngx_http_s3_send_result(ngx_http_request_t *r, ngx_s3_result_t *result,
    s3_record_t *record, ngx_uint_t own)
{
    ngx_str_t  id, etag;

    if (result->status == NGX_HTTP_CREATED) {

        etag.data = (u_char *) record->etag;
        etag.len = ngx_strlen(etag.data);

        if ((etag.len && ngx_http_s3_add_header(r, "ETag", &etag) != NGX_OK)
            || (own && ngx_http_s3_result_location(r) != NGX_OK))
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        return ngx_http_s3_send_record(r, NGX_HTTP_CREATED, record);
    }

    /* S3's own wish */

    if (result->status == NGX_HTTP_SERVICE_UNAVAILABLE
        && result->retry_after
        && ngx_http_s3_result_retry_after(r, result->retry_after) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    id.data = (u_char *) record->id;
    id.len = ngx_strlen(id.data);

    if (ngx_http_s3_set_header(r, "X-Transfer-Id", &id) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_s3_send_error(r, result->status, result->code,
                                  result->message, &id);
}


static ngx_int_t
ngx_http_s3_result_retry_after(ngx_http_request_t *r, ngx_msec_t after)
{
    u_char     *p;
    ngx_str_t   value;

    p = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    value.data = p;
    value.len = ngx_sprintf(p, "%M", (after + 999) / 1000) - p;

    return ngx_http_s3_add_header(r, "Retry-After", &value);
}


ngx_int_t
ngx_http_s3_send_record(ngx_http_request_t *r, ngx_uint_t status,
    s3_record_t *record)
{
    s3_buf_t   b;
    ngx_str_t  id, json;

    static u_char  mem[S3_RECORD_JSON_MAX];

    /* most are a tenth of that: so much is not asked of malloc() each time */

    s3_buf_init(&b, mem, sizeof(mem));

    if (s3_record_json(record, &b) != S3_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    json.len = b.pos - b.start;
    json.data = ngx_pnalloc(r->pool, json.len);

    if (json.data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memcpy(json.data, mem, json.len);

    id.data = (u_char *) record->id;
    id.len = ngx_strlen(id.data);

    if (ngx_http_s3_set_header(r, "X-Transfer-Id", &id) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_s3_send_json(r, status, &json);
}


/* the path that the client asked for; r->headers_out.location stays NULL, so
   that nginx leaves it relative */

static ngx_int_t
ngx_http_s3_result_location(ngx_http_request_t *r)
{
    u_char     *p;
    size_t      n;
    ngx_str_t   location;

    location = r->unparsed_uri;

    for (n = 0; n < location.len; n++) {
        if (location.data[n] == '?' || location.data[n] == '#') {
            break;
        }
    }

    location.len = n;

    /* "//name" would be another host, RFC 3986, 4.2 */

    if (n > 1 && location.data[0] == '/' && location.data[1] == '/') {

        p = ngx_pnalloc(r->pool, n + 2);
        if (p == NULL) {
            return NGX_ERROR;
        }

        location.len = ngx_sprintf(p, "/.%V", &location) - p;
        location.data = p;
    }

    return ngx_http_s3_add_header(r, "Location", &location);
}
