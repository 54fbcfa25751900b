#include "ngx_s3_op.h"

#include "s3_checksum.h"


/* of the Complete document: 10,000 parts have 1 to 2 MB */
#define NGX_S3_OP_XML_BUF  32768


static ngx_int_t ngx_s3_op_address(ngx_s3_call_t *call, ngx_pool_t *pool,
    ngx_s3_op_t *op);
static ngx_int_t ngx_s3_op_query(ngx_s3_call_t *call, ngx_pool_t *pool,
    ngx_s3_op_t *op);
static ngx_int_t ngx_s3_op_fields(ngx_s3_call_t *call, ngx_pool_t *pool,
    ngx_s3_op_t *op);
static ngx_int_t ngx_s3_op_field(ngx_s3_op_t *op, const char *name,
    s3_str_t value);
static ngx_int_t ngx_s3_op_crc32(ngx_s3_call_t *call, ngx_pool_t *pool,
    ngx_s3_op_t *op);
static ngx_int_t ngx_s3_op_body(ngx_s3_call_t *call, ngx_pool_t *pool,
    ngx_s3_op_t *op);
static ngx_int_t ngx_s3_op_document(ngx_s3_call_t *call, ngx_pool_t *pool,
    ngx_s3_op_t *op);
static ngx_int_t ngx_s3_op_document_room(ngx_pool_t *pool, ngx_s3_op_t *op,
    ngx_chain_t **last, s3_buf_t *b);
static ngx_int_t ngx_s3_op_hash(ngx_s3_op_t *op);


static const struct {
    const char  *name;
    ngx_str_t    method;
} ngx_s3_ops[] = {
    /* NGX_S3_CREATE */    { "CreateMultipartUpload", ngx_string("POST") },
    /* NGX_S3_PART */      { "UploadPart", ngx_string("PUT") },
    /* NGX_S3_COMPLETE */  { "CompleteMultipartUpload", ngx_string("POST") },
    /* NGX_S3_ABORT */     { "AbortMultipartUpload", ngx_string("DELETE") },
    /* NGX_S3_PUT */       { "PutObject", ngx_string("PUT") },
    /* NGX_S3_HEAD */      { "HeadObject", ngx_string("HEAD") },
    /* NGX_S3_LIST_PARTS */ { "ListParts", ngx_string("GET") },
    /* NGX_S3_GET */       { "GetObject", ngx_string("GET") }
};


const char *
ngx_s3_op_name(ngx_s3_op_e op)
{
    return ngx_s3_ops[op].name;
}


ngx_int_t
ngx_s3_op_build(ngx_s3_call_t *call, ngx_pool_t *pool, ngx_s3_op_t *op)
{
    ngx_memzero(op, sizeof(ngx_s3_op_t));

    op->method = ngx_s3_ops[call->op].method;

    if (ngx_array_init(&op->fields, pool, 8, sizeof(s3_field_t)) != NGX_OK
        || ngx_s3_op_address(call, pool, op) != NGX_OK
        || ngx_s3_op_query(call, pool, op) != NGX_OK
        || ngx_s3_op_fields(call, pool, op) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_s3_op_body(call, pool, op);
}


/* path-style "/bucket/key", or "/key" with the bucket in the host's name */

static ngx_int_t
ngx_s3_op_address(ngx_s3_call_t *call, ngx_pool_t *pool, ngx_s3_op_t *op)
{
    u_char             *p;
    size_t              size;
    s3_buf_t            b;
    ngx_uint_t          virtual;
    ngx_s3_endpoint_t  *endpoint;

    endpoint = call->target->endpoint;

    virtual = s3_uri_virtual(call->target->addressing,
                             ngx_s3_to_str(endpoint->host),
                             ngx_s3_to_str(call->bucket));

    size = 2 + 3 * (call->bucket.len + call->key.len);

    p = ngx_pnalloc(pool, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    s3_buf_init(&b, p, size);
    s3_buf_putc(&b, '/');

    if (!virtual) {
        s3_uri_encode(&b, ngx_s3_to_str(call->bucket), 0);
        s3_buf_putc(&b, '/');
    }

    s3_uri_encode(&b, ngx_s3_to_str(call->key), 1);

    op->path.data = p;
    op->path.len = b.pos - p;

    if (!virtual) {
        op->host = endpoint->authority;
        return NGX_OK;
    }

    size = call->bucket.len + 1 + endpoint->host.len;

    op->connect.data = ngx_pnalloc(pool, size + 1);
    op->host.data = ngx_pnalloc(pool, call->bucket.len + 1
                                      + endpoint->authority.len);

    if (op->connect.data == NULL || op->host.data == NULL) {
        return NGX_ERROR;
    }

    op->connect.len = size;
    ngx_sprintf(op->connect.data, "%V.%V%Z", &call->bucket, &endpoint->host);

    p = ngx_sprintf(op->host.data, "%V.%V", &call->bucket,
                    &endpoint->authority);
    op->host.len = p - op->host.data;

    return NGX_OK;
}


/* the arguments in the order of their names, as the signature wants them */

static ngx_int_t
ngx_s3_op_query(ngx_s3_call_t *call, ngx_pool_t *pool, ngx_s3_op_t *op)
{
    u_char    *p;
    size_t     size;
    s3_buf_t   b;

    if (call->op == NGX_S3_CREATE) {

        /* without "=" some S3 servers refuse the signature */

        ngx_str_set(&op->query, "uploads=");
        return NGX_OK;
    }

    if (call->op == NGX_S3_PUT || call->op == NGX_S3_HEAD
        || call->op == NGX_S3_GET)
    {
        return NGX_OK;
    }

    size = sizeof("max-parts=&part-number-marker=&uploadId=")
           + 2 * NGX_INT_T_LEN + 3 * call->upload_id.len;

    p = ngx_pnalloc(pool, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    s3_buf_init(&b, p, size);

    if (call->op == NGX_S3_PART) {
        s3_buf_puts(&b, "partNumber=");
        s3_buf_put_u64(&b, call->part_number);
        s3_buf_putc(&b, '&');
    }

    if (call->op == NGX_S3_LIST_PARTS) {
        s3_buf_puts(&b, "max-parts=");
        s3_buf_put_u64(&b, call->max_parts ? call->max_parts
                                           : NGX_S3_MAX_LIST);
        s3_buf_puts(&b, "&part-number-marker=");
        s3_buf_put_u64(&b, call->part_number);
        s3_buf_putc(&b, '&');
    }

    s3_buf_puts(&b, "uploadId=");
    s3_uri_encode(&b, ngx_s3_to_str(call->upload_id), 0);

    op->query.data = p;
    op->query.len = b.pos - p;

    return NGX_OK;
}


static ngx_int_t
ngx_s3_op_fields(ngx_s3_call_t *call, ngx_pool_t *pool, ngx_s3_op_t *op)
{
    u_char      *p;
    s3_str_t     size;
    s3_field_t  *f;

    if (call->headers && call->headers->nelts) {
        f = ngx_array_push_n(&op->fields, call->headers->nelts);
        if (f == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(f, call->headers->elts,
                   call->headers->nelts * sizeof(s3_field_t));
    }

    if (call->op == NGX_S3_COMPLETE) {

        if (ngx_s3_op_field(op, "Content-Type", s3_str("application/xml"))
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        /* S3's look-alikes do not all know it */

        if (s3_uri_is_aws(ngx_s3_to_str(call->target->endpoint->host))) {

            p = ngx_pnalloc(pool, NGX_OFF_T_LEN);
            if (p == NULL) {
                return NGX_ERROR;
            }

            size.data = p;
            size.len = ngx_sprintf(p, "%O", call->object_size) - p;

            if (ngx_s3_op_field(op, "x-amz-mp-object-size", size) != NGX_OK) {
                return NGX_ERROR;
            }
        }
    }

    return call->target->crc32 ? ngx_s3_op_crc32(call, pool, op) : NGX_OK;
}


static ngx_int_t
ngx_s3_op_field(ngx_s3_op_t *op, const char *name, s3_str_t value)
{
    s3_field_t  *f;

    f = ngx_array_push(&op->fields);
    if (f == NULL) {
        return NGX_ERROR;
    }

    f->name = s3_str(name);
    f->value = value;

    return NGX_OK;
}


/* Amazon S3 User Guide "Checking object integrity" */

static ngx_int_t
ngx_s3_op_crc32(ngx_s3_call_t *call, ngx_pool_t *pool, ngx_s3_op_t *op)
{
    char  *value;

    if (call->op == NGX_S3_CREATE
        && ngx_s3_op_field(op, "x-amz-checksum-algorithm", s3_str("CRC32"))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if ((call->op == NGX_S3_CREATE || call->op == NGX_S3_COMPLETE)
        && ngx_s3_op_field(op, "x-amz-checksum-type", s3_str("FULL_OBJECT"))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (call->op != NGX_S3_PART && call->op != NGX_S3_PUT
        && call->op != NGX_S3_COMPLETE)
    {
        return NGX_OK;
    }

    value = ngx_pnalloc(pool, 9);
    if (value == NULL) {
        return NGX_ERROR;
    }

    s3_crc32_base64(call->crc32, value);

    return ngx_s3_op_field(op, "x-amz-checksum-crc32", s3_str(value));
}


static ngx_int_t
ngx_s3_op_body(ngx_s3_call_t *call, ngx_pool_t *pool, ngx_s3_op_t *op)
{
    op->payload = s3_str(S3_EMPTY_SHA256);

    switch (call->op) {

    case NGX_S3_COMPLETE:
        return ngx_s3_op_document(call, pool, op);

    case NGX_S3_PART:
    case NGX_S3_PUT:
        op->body = call->body;
        op->body_size = call->body_size;
        op->content_length = call->body_size;

        if (call->body_size == 0) {
            op->body = NULL;
            return NGX_OK;
        }

        if (!call->target->sign_payload) {
            op->payload = s3_str(S3_UNSIGNED_PAYLOAD);
            return NGX_OK;
        }

        if (call->sha256 == NULL) {
            ngx_log_error(NGX_LOG_ALERT, call->log, 0,
                          "s3 %s without the hash of its payload",
                          ngx_s3_op_name(call->op));
            return NGX_ERROR;
        }

        op->payload = s3_str(call->sha256);
        return NGX_OK;

    case NGX_S3_CREATE:
        op->content_length = 0;
        return NGX_OK;

    default:
        op->content_length = -1;
        return NGX_OK;
    }
}


/* the Complete document */

static ngx_int_t
ngx_s3_op_document(ngx_s3_call_t *call, ngx_pool_t *pool, ngx_s3_op_t *op)
{
    char                 crc32[9];
    s3_buf_t             b;
    ngx_uint_t           i;
    ngx_chain_t         *last;
    ngx_s3_part_etag_t  *part;

    last = NULL;

    if (ngx_s3_op_document_room(pool, op, &last, &b) != NGX_OK) {
        return NGX_ERROR;
    }

    s3_xml_complete_begin(&b);

    for (i = 0; i < call->nparts; i++) {

        part = &call->parts[i];

        if (b.end - b.pos < S3_XML_PART_MAX
            && ngx_s3_op_document_room(pool, op, &last, &b) != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (call->target->crc32) {
            s3_crc32_base64(part->crc32, crc32);
        }

        s3_xml_complete_part(&b, part->number, part->etag,
                             call->target->crc32 ? crc32 : NULL);

        if (b.overflow) {
            ngx_log_error(NGX_LOG_ALERT, call->log, 0,
                          "s3 ETag of part %ui is too long", part->number);
            return NGX_ERROR;
        }
    }

    if (b.end - b.pos < S3_XML_PART_MAX
        && ngx_s3_op_document_room(pool, op, &last, &b) != NGX_OK)
    {
        return NGX_ERROR;
    }

    s3_xml_complete_end(&b);

    last->buf->last = b.pos;
    op->body_size += b.pos - b.start;
    op->content_length = op->body_size;

    return ngx_s3_op_hash(op);
}


/* closes the last buffer and adds one */

static ngx_int_t
ngx_s3_op_document_room(ngx_pool_t *pool, ngx_s3_op_t *op, ngx_chain_t **last,
    s3_buf_t *b)
{
    ngx_chain_t  *cl;

    cl = ngx_alloc_chain_link(pool);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    cl->next = NULL;
    cl->buf = ngx_create_temp_buf(pool, NGX_S3_OP_XML_BUF);
    if (cl->buf == NULL) {
        return NGX_ERROR;
    }

    if (*last) {
        (*last)->buf->last = b->pos;
        (*last)->next = cl;
        op->body_size += b->pos - b->start;

    } else {
        op->body = cl;
    }

    *last = cl;

    s3_buf_init(b, cl->buf->pos, NGX_S3_OP_XML_BUF);

    return NGX_OK;
}


static ngx_int_t
ngx_s3_op_hash(ngx_s3_op_t *op)
{
    int           rc;
    ngx_chain_t  *cl;
    s3_sha256_t  *hash;

    hash = s3_sha256_create();
    if (hash == NULL) {
        return NGX_ERROR;
    }

    rc = S3_OK;

    for (cl = op->body; cl && rc == S3_OK; cl = cl->next) {
        rc = s3_sha256_update(hash, cl->buf->pos,
                              cl->buf->last - cl->buf->pos);
    }

    if (rc == S3_OK) {
        rc = s3_sha256_hex(hash, op->sha256);
    }

    s3_sha256_destroy(hash);

    op->payload = s3_str(op->sha256);

    return (rc == S3_OK) ? NGX_OK : NGX_ERROR;
}
