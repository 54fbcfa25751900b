#include "ngx_http_s3_spec.h"
#include "ngx_http_s3_reply.h"
#include "ngx_s3_kept.h"


static ngx_int_t ngx_http_s3_check_s3_api(ngx_http_request_t *r,
    ngx_http_s3_refusal_t *refusal);
static ngx_uint_t ngx_http_s3_has_argument(ngx_str_t *args, const char *name);
static ngx_int_t ngx_http_s3_check_type(ngx_http_request_t *r,
    ngx_http_s3_refusal_t *refusal);
static ngx_int_t ngx_http_s3_spec_object(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_http_complex_value_t *key,
    ngx_s3_transfer_spec_t *spec, ngx_http_s3_refusal_t *refusal);
static ngx_int_t ngx_http_s3_spec_names(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_http_complex_value_t *key,
    ngx_s3_transfer_spec_t *spec, ngx_http_s3_refusal_t *refusal);
static ngx_int_t ngx_http_s3_spec_id(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_s3_transfer_spec_t *spec,
    ngx_http_s3_refusal_t *refusal);
static int64_t ngx_http_s3_spec_total(ngx_http_request_t *r);
static ngx_int_t ngx_http_s3_spec_headers(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_s3_transfer_spec_t *spec,
    ngx_http_s3_refusal_t *refusal);
static ngx_int_t ngx_http_s3_spec_fields(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_s3_transfer_spec_t *spec,
    ngx_http_s3_refusal_t *refusal);
static ngx_uint_t ngx_http_s3_has_field(ngx_array_t *fields,
    const char *name);
static ngx_int_t ngx_http_s3_spec_conditions(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_s3_transfer_spec_t *spec,
    ngx_http_s3_refusal_t *refusal);
static ngx_int_t ngx_http_s3_push_field(ngx_array_t *fields,
    const char *name, ngx_str_t *value, ngx_http_s3_refusal_t *refusal);
static ngx_str_t *ngx_http_s3_request_line(ngx_http_request_t *r,
    const char *name, ngx_uint_t nth);
static ngx_int_t ngx_http_s3_request_list(ngx_http_request_t *r,
    const char *name, ngx_str_t *list);


ngx_int_t
ngx_http_s3_spec(ngx_http_request_t *r, ngx_http_s3_loc_conf_t *conf,
    ngx_s3_transfer_spec_t *spec, ngx_http_s3_refusal_t *refusal)
{
    ngx_int_t  rc;

    rc = ngx_http_s3_check_s3_api(r, refusal);

    if (rc == NGX_OK) {
        rc = ngx_http_s3_check_type(r, refusal);
    }

    if (rc == NGX_OK) {
        rc = ngx_http_s3_spec_object(r, conf, conf->upload_key, spec,
                                     refusal);
    }

    if (rc == NGX_OK) {
        rc = ngx_http_s3_spec_headers(r, conf, spec, refusal);
    }

    if (rc == NGX_OK) {
        rc = ngx_http_s3_spec_conditions(r, conf, spec, refusal);
    }

    spec->total = ngx_http_s3_spec_total(r);
    spec->direction = S3_UPLOAD;

    return rc;
}


ngx_int_t
ngx_http_s3_spec_download(ngx_http_request_t *r, ngx_http_s3_loc_conf_t *conf,
    ngx_http_complex_value_t *key, ngx_s3_transfer_spec_t *spec,
    ngx_http_s3_refusal_t *refusal)
{
    ngx_int_t  rc;
    ngx_str_t  any = ngx_string("*");

    rc = ngx_http_s3_spec_object(r, conf, key, spec, refusal);

    if (rc == NGX_OK) {
        rc = ngx_http_s3_spec_fields(r, conf, spec, refusal);
    }

    if (rc == NGX_OK && !conf->overwrite) {
        rc = ngx_http_s3_push_field(spec->conditions, "if-none-match", &any,
                                    refusal);
    }

    spec->total = -1;
    spec->direction = S3_DOWNLOAD;

    return rc;
}


/* what all doors have in common: names, and room for headers */

static ngx_int_t
ngx_http_s3_spec_object(ngx_http_request_t *r, ngx_http_s3_loc_conf_t *conf,
    ngx_http_complex_value_t *key, ngx_s3_transfer_spec_t *spec,
    ngx_http_s3_refusal_t *refusal)
{
    ngx_int_t                  rc;
    ngx_http_core_loc_conf_t  *clcf;

    ngx_memzero(spec, sizeof(ngx_s3_transfer_spec_t));

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    spec->log = clcf->error_log;
    spec->headers = ngx_array_create(r->pool, 8, sizeof(s3_field_t));
    spec->conditions = ngx_array_create(r->pool, 2, sizeof(s3_field_t));

    if (spec->headers == NULL || spec->conditions == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_s3_spec_names(r, conf, key, spec, refusal);

    if (rc == NGX_OK) {
        rc = ngx_http_s3_spec_id(r, conf, spec, refusal);
    }

    return rc;
}


ngx_int_t
ngx_http_s3_refuse(ngx_http_s3_refusal_t *refusal, ngx_uint_t status,
    const char *code, const char *message)
{
    refusal->status = status;
    refusal->code = code;
    refusal->message = message;

    return NGX_DECLINED;
}


/* who speaks the S3 API wants an S3 server: storing such a body as it is would
   corrupt the object */

static ngx_int_t
ngx_http_s3_check_s3_api(ngx_http_request_t *r,
    ngx_http_s3_refusal_t *refusal)
{
    ngx_str_t  *h, codings;

    if (ngx_http_s3_request_header(r, "content-range")) {
        return ngx_http_s3_refuse(refusal, 400, "InvalidRequest",
                                  "Content-Range in a request is not "
                                  "supported: send the whole body");
    }

    if (ngx_http_s3_request_list(r, "content-encoding", &codings) != NGX_OK) {
        return NGX_ERROR;
    }

    if (codings.len
        && ngx_strlcasestrn(codings.data, codings.data + codings.len,
                            (u_char *) "aws-chunked", 11 - 1))
    {
        return ngx_http_s3_refuse(refusal, 501, "NotImplemented",
                                  "aws-chunked bodies are not supported");
    }

    h = ngx_http_s3_request_header(r, "x-amz-content-sha256");

    if (h && h->len >= 10
        && ngx_strncasecmp(h->data, (u_char *) "STREAMING-", 10) == 0)
    {
        return ngx_http_s3_refuse(refusal, 501, "NotImplemented",
                                  "aws-chunked bodies are not supported");
    }

    if (ngx_http_s3_request_header(r, "x-amz-copy-source")) {
        return ngx_http_s3_refuse(refusal, 501, "NotImplemented",
                                  "x-amz-copy-source is not supported");
    }

    if (ngx_http_s3_has_argument(&r->args, "uploads")
        || ngx_http_s3_has_argument(&r->args, "uploadId")
        || ngx_http_s3_has_argument(&r->args, "partNumber"))
    {
        return ngx_http_s3_refuse(refusal, 501, "NotImplemented",
                                  "S3 multipart requests are not supported: "
                                  "send the whole body in one request");
    }

    return NGX_OK;
}


/* ngx_http_arg() does not see an argument without a value */

static ngx_uint_t
ngx_http_s3_has_argument(ngx_str_t *args, const char *name)
{
    u_char  *p, *last, *end;
    size_t   len;

    len = ngx_strlen(name);
    p = args->data;
    last = p + args->len;

    while (p < last) {

        end = ngx_strlchr(p, last, '&');
        if (end == NULL) {
            end = last;
        }

        if ((size_t) (end - p) >= len && ngx_strncmp(p, name, len) == 0
            && (p + len == end || p[len] == '='))
        {
            return 1;
        }

        p = end + 1;
    }

    return 0;
}


static ngx_int_t
ngx_http_s3_check_type(ngx_http_request_t *r, ngx_http_s3_refusal_t *refusal)
{
    ngx_str_t  *h;

    h = ngx_http_s3_request_header(r, "content-type");

    if (h && h->len >= 19
        && ngx_strncasecmp(h->data, (u_char *) "multipart/form-data", 19)
           == 0)
    {
        return ngx_http_s3_refuse(refusal, 415, "UnsupportedMediaType",
                                  "multipart/form-data is not supported: "
                                  "send the file as the body");
    }

    if (h && h->len >= 31
        && ngx_strncasecmp(h->data,
                           (u_char *) "application/offset+octet-stream", 31)
           == 0)
    {
        return ngx_http_s3_refuse(refusal, 415, "UnsupportedMediaType",
                                  "tus uploads are not supported here");
    }

    /* a part of a body alone; "?1" is all of it */

    h = ngx_http_s3_request_header(r, "upload-complete");

    if ((h && !(h->len == 2 && ngx_strncmp(h->data, "?1", 2) == 0))
        || ngx_http_s3_request_header(r, "tus-resumable")
        || ngx_http_s3_request_header(r, "upload-draft-interop-version"))
    {
        return ngx_http_s3_refuse(refusal, 415, "UnsupportedMediaType",
                                  "resumable uploads are not supported here");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_s3_spec_names(ngx_http_request_t *r, ngx_http_s3_loc_conf_t *conf,
    ngx_http_complex_value_t *key, ngx_s3_transfer_spec_t *spec,
    ngx_http_s3_refusal_t *refusal)
{
    const char  *err;

    if (ngx_http_complex_value(r, conf->bucket, &spec->bucket) != NGX_OK) {
        return NGX_ERROR;
    }

    if (s3_uri_check_bucket(ngx_s3_to_str(spec->bucket), &err) != S3_OK) {
        return ngx_http_s3_refuse(refusal, 400, "InvalidBucketName", err);
    }

    if (key) {
        if (ngx_http_complex_value(r, key, &spec->key) != NGX_OK) {
            return NGX_ERROR;
        }

    } else {
        spec->key = r->uri;

        /* a rewrite may have left no slash to be taken off */

        if (spec->key.len && spec->key.data[0] == '/') {
            spec->key.data++;
            spec->key.len--;
        }
    }

    if (s3_uri_check_key(ngx_s3_to_str(spec->key), &err) != S3_OK) {
        return ngx_http_s3_refuse(refusal, 400, "InvalidKey", err);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_s3_spec_id(ngx_http_request_t *r, ngx_http_s3_loc_conf_t *conf,
    ngx_s3_transfer_spec_t *spec, ngx_http_s3_refusal_t *refusal)
{
    if (conf->transfer_id) {
        if (ngx_http_complex_value(r, conf->transfer_id, &spec->id)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (spec->id.len
            && s3_uri_check_id(ngx_s3_to_str(spec->id)) != S3_OK)
        {
            return ngx_http_s3_refuse(refusal, 400, "InvalidTransferId",
                                      "a transfer id is 16 to 64 characters "
                                      "of A-Z, a-z, 0-9, \"_\" and \"-\"");
        }
    }

    if (conf->owner) {
        if (ngx_http_complex_value(r, conf->owner, &spec->owner) != NGX_OK) {
            return NGX_ERROR;
        }

        if (spec->owner.len > S3_OWNER_MAX) {
            return ngx_http_s3_refuse(refusal, 400, "InvalidRequest",
                                      "the owner's name is too long");
        }
    }

    return NGX_OK;
}


/* bytes of the body, -1: unknown until it ends */

static int64_t
ngx_http_s3_spec_total(ngx_http_request_t *r)
{
    int64_t       total;
    ngx_chain_t  *cl;

    if (r->request_body && !r->reading_body) {

        /* another module has read it */

        total = 0;

        for (cl = r->request_body->bufs; cl; cl = cl->next) {
            total += ngx_buf_size(cl->buf);
        }

        return total;
    }

    /* HTTP/2 and HTTP/3 without Content-Length count as chunked */

    if (r->headers_in.chunked) {
        return -1;
    }

    return ngx_max(r->headers_in.content_length_n, 0);
}


static ngx_int_t
ngx_http_s3_spec_headers(ngx_http_request_t *r, ngx_http_s3_loc_conf_t *conf,
    ngx_s3_transfer_spec_t *spec, ngx_http_s3_refusal_t *refusal)
{
    ngx_int_t             rc;
    ngx_str_t            *h, list;
    const ngx_s3_kept_t  *kept;

    for (kept = ngx_s3_kept; kept->name; kept++) {

        if (kept->answer
            || ngx_http_s3_has_field(conf->object_headers, kept->name))
        {
            continue;
        }

        h = ngx_http_s3_request_header(r, kept->name);

        if (h && kept->list) {

            if (ngx_http_s3_request_list(r, kept->name, &list) != NGX_OK) {
                return NGX_ERROR;
            }

            h = &list;
        }

        if (h == NULL || h->len == 0) {
            continue;
        }

        rc = ngx_http_s3_push_field(spec->headers, kept->stored, h, refusal);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    return ngx_http_s3_spec_fields(r, conf, spec, refusal);
}


/* what the configuration says of the object's headers */

static ngx_int_t
ngx_http_s3_spec_fields(ngx_http_request_t *r, ngx_http_s3_loc_conf_t *conf,
    ngx_s3_transfer_spec_t *spec, ngx_http_s3_refusal_t *refusal)
{
    ngx_int_t  rc;

    rc = ngx_http_s3_spec_configured(r, conf->object_headers, spec->headers,
                                     refusal);
    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_s3_spec_configured(r, conf->metadata, spec->headers,
                                       refusal);
}


ngx_int_t
ngx_http_s3_spec_configured(ngx_http_request_t *r, ngx_array_t *fields,
    ngx_array_t *headers, ngx_http_s3_refusal_t *refusal)
{
    ngx_int_t             rc;
    ngx_str_t             value;
    ngx_uint_t            i;
    ngx_http_s3_field_t  *f;

    if (fields == NULL) {
        return NGX_OK;
    }

    f = fields->elts;

    for (i = 0; i < fields->nelts; i++) {

        if (ngx_http_complex_value(r, &f[i].value, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (value.len == 0) {
            continue;
        }

        rc = ngx_http_s3_push_field(headers, (char *) f[i].name.data, &value,
                                    refusal);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_s3_has_field(ngx_array_t *fields, const char *name)
{
    ngx_uint_t            i;
    ngx_http_s3_field_t  *f;

    if (fields == NULL) {
        return 0;
    }

    f = fields->elts;

    for (i = 0; i < fields->nelts; i++) {
        if (ngx_strcmp(f[i].name.data, name) == 0) {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_http_s3_spec_conditions(ngx_http_request_t *r,
    ngx_http_s3_loc_conf_t *conf, ngx_s3_transfer_spec_t *spec,
    ngx_http_s3_refusal_t *refusal)
{
    ngx_int_t  rc;
    ngx_str_t  none, match;

    if (ngx_http_s3_request_list(r, "if-none-match", &none) != NGX_OK
        || ngx_http_s3_request_list(r, "if-match", &match) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (none.len && (none.len != 1 || none.data[0] != '*')) {
        return ngx_http_s3_refuse(refusal, 501, "NotImplemented",
                                  "If-None-Match takes \"*\" alone");
    }

    if (!conf->overwrite) {

        if (match.len) {
            return ngx_http_s3_refuse(refusal, 412, "PreconditionFailed",
                                      "If-Match asks for an object to be "
                                      "replaced, which is not done here");
        }

        ngx_str_set(&none, "*");
    }

    if (none.len) {

        rc = ngx_http_s3_push_field(spec->conditions, "if-none-match", &none,
                                    refusal);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (match.len == 0) {
        return NGX_OK;
    }

    return ngx_http_s3_push_field(spec->conditions, "if-match", &match,
                                  refusal);
}


static ngx_int_t
ngx_http_s3_push_field(ngx_array_t *fields, const char *name,
    ngx_str_t *value, ngx_http_s3_refusal_t *refusal)
{
    u_char       ch;
    size_t       n;
    s3_field_t  *f;

    /* a variable may hold what would end the header, and nginx lets most of
       them pass in a client's */

    for (n = 0; n < value->len; n++) {
        ch = value->data[n];

        if ((ch < 0x20 && ch != '\t') || ch == 0x7f) {
            return ngx_http_s3_refuse(refusal, 400, "InvalidRequest",
                                      "a control character in a header "
                                      "of the object");
        }
    }

    f = ngx_array_push(fields);
    if (f == NULL) {
        return NGX_ERROR;
    }

    f->name = s3_str(name);
    f->value = ngx_s3_to_str(*value);

    return NGX_OK;
}


ngx_int_t
ngx_http_s3_send_refusal(ngx_http_request_t *r, ngx_int_t rc,
    ngx_http_s3_refusal_t *refusal)
{
    if (rc != NGX_DECLINED) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_s3_send_refused(r, refusal->status, refusal->code,
                                    refusal->message, NULL);
}


ngx_int_t
ngx_http_s3_send_refused(ngx_http_request_t *r, ngx_uint_t status,
    const char *code, const char *message, ngx_str_t *id)
{
    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "the transfer is refused: %ui %s, %s", status, code,
                  message);

    return ngx_http_s3_send_error(r, status, code, message, id);
}


ngx_str_t *
ngx_http_s3_request_header(ngx_http_request_t *r, const char *name)
{
    return ngx_http_s3_request_line(r, name, 0);
}


/* the nth line of that name, from 0; NULL: there are not so many */

static ngx_str_t *
ngx_http_s3_request_line(ngx_http_request_t *r, const char *name,
    ngx_uint_t nth)
{
    size_t               len;
    ngx_table_elt_t     *h;
    ngx_http_s3_walk_t   walk;

    len = ngx_strlen(name);

    ngx_memzero(&walk, sizeof(ngx_http_s3_walk_t));

    while ((h = ngx_http_s3_walk(&r->headers_in.headers, &walk)) != NULL) {

        if (h->key.len == len && ngx_strncmp(h->lowcase_key, name, len) == 0
            && nth-- == 0)
        {
            return &h->value;
        }
    }

    return NULL;
}


ngx_table_elt_t *
ngx_http_s3_walk(ngx_list_t *headers, ngx_http_s3_walk_t *walk)
{
    ngx_table_elt_t  *h;

    if (walk->part == NULL) {
        walk->part = &headers->part;
    }

    for ( ;; ) {

        if (walk->next >= walk->part->nelts) {

            if (walk->part->next == NULL) {
                return NULL;
            }

            walk->part = walk->part->next;
            walk->next = 0;
            continue;
        }

        h = walk->part->elts;
        h += walk->next++;

        if (h->hash) {
            return h;
        }
    }
}


/* all lines of that name as one list, RFC 9110, 5.3; empty: there is none */

static ngx_int_t
ngx_http_s3_request_list(ngx_http_request_t *r, const char *name,
    ngx_str_t *list)
{
    u_char      *p;
    size_t       len;
    ngx_str_t   *h;
    ngx_uint_t   n;

    ngx_str_null(list);

    len = 0;

    for (n = 0; (h = ngx_http_s3_request_line(r, name, n)) != NULL; n++) {
        *list = *h;
        len += h->len + 2;
    }

    if (n < 2) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    list->data = p;

    for (n = 0; (h = ngx_http_s3_request_line(r, name, n)) != NULL; n++) {

        if (n) {
            *p++ = ',';
            *p++ = ' ';
        }

        p = ngx_cpymem(p, h->data, h->len);
    }

    list->len = p - list->data;

    return NGX_OK;
}
