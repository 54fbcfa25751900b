#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_s3_reply.h"
#include "ngx_http_s3_status.h"


#define NGX_HTTP_S3_TOTALS_MAX    16384      /* bytes, of either form */

#define NGX_HTTP_S3_LIST_LIMIT    100
#define NGX_HTTP_S3_LIST_MAX      1000
#define NGX_HTTP_S3_LIST_BATCH    64         /* records copied at a time */
#define NGX_HTTP_S3_LIST_BUFFER   32768


/* a document that grows, in buffers of the request's pool */

typedef struct {
    ngx_pool_t    *pool;
    ngx_chain_t   *chain;
    ngx_chain_t  **last;
    ngx_buf_t     *buf;
    off_t          len;
    ngx_uint_t     failed;           /* 1: no memory */
} ngx_http_s3_doc_t;


typedef struct {
    int            state;            /* -1: any */
    ngx_uint_t     limit;
    ngx_str_t      after;
    ngx_str_t     *owner;
} ngx_http_s3_list_t;


static const char *ngx_http_s3_list_args(ngx_http_request_t *r,
    ngx_http_s3_list_t *list);
static ngx_int_t ngx_http_s3_list_records(ngx_s3_zone_t *zone,
    ngx_http_s3_list_t *list, s3_record_t *records, ngx_http_s3_doc_t *doc);
static ngx_int_t ngx_http_s3_doc_totals(ngx_http_s3_doc_t *doc,
    ngx_s3_zone_t *zone);
static void ngx_http_s3_doc_init(ngx_http_s3_doc_t *doc, ngx_pool_t *pool);
static void ngx_http_s3_doc_put(ngx_http_s3_doc_t *doc, const void *data,
    size_t len);
static void ngx_http_s3_doc_puts(ngx_http_s3_doc_t *doc, const char *s);


ngx_int_t
ngx_http_s3_status_totals(ngx_http_request_t *r, ngx_s3_zone_t *zone,
    ngx_http_s3_status_format_e format)
{
    const char         *type;
    u_char              mem[NGX_HTTP_S3_TOTALS_MAX];
    s3_buf_t            out;
    s3_totals_t         totals;
    ngx_http_s3_doc_t   doc;

    ngx_http_s3_doc_init(&doc, r->pool);

    if (format == NGX_HTTP_S3_STATUS_PROMETHEUS) {
        type = "text/plain; version=0.0.4; charset=utf-8";

        ngx_s3_zone_totals(zone, &totals);

        s3_buf_init(&out, mem, sizeof(mem));

        if (s3_totals_prometheus(&totals, &out) != S3_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        ngx_http_s3_doc_put(&doc, out.start, out.pos - out.start);

    } else {
        type = "application/json";

        ngx_http_s3_doc_puts(&doc, "{");

        if (ngx_http_s3_doc_totals(&doc, zone) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        ngx_http_s3_doc_puts(&doc, "}");
    }

    if (doc.failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_s3_send_chain(r, NGX_HTTP_OK, type, doc.chain, doc.len);
}


ngx_int_t
ngx_http_s3_status_list(ngx_http_request_t *r, ngx_s3_zone_t *zone,
    ngx_str_t *owner)
{
    ngx_int_t            rc;
    const char          *wrong;
    s3_record_t         *records;
    ngx_http_s3_doc_t    doc;
    ngx_http_s3_list_t   list;

    list.owner = owner;

    wrong = ngx_http_s3_list_args(r, &list);
    if (wrong) {
        return ngx_http_s3_send_error(r, NGX_HTTP_BAD_REQUEST,
                                      "InvalidArgument", wrong, NULL);
    }

    records = ngx_alloc(NGX_HTTP_S3_LIST_BATCH * sizeof(s3_record_t),
                        r->connection->log);
    if (records == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_s3_doc_init(&doc, r->pool);

    ngx_http_s3_doc_puts(&doc, "{");

    rc = ngx_http_s3_doc_totals(&doc, zone);

    if (rc == NGX_OK) {
        rc = ngx_http_s3_list_records(zone, &list, records, &doc);
    }

    ngx_free(records);

    if (rc != NGX_OK || doc.failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_s3_send_chain(r, NGX_HTTP_OK, "application/json",
                                  doc.chain, doc.len);
}


/* NULL, or what is wrong with the arguments */

static const char *
ngx_http_s3_list_args(ngx_http_request_t *r, ngx_http_s3_list_t *list)
{
    ngx_int_t   n;
    ngx_str_t   value;
    s3_state_e  state;

    list->state = -1;
    list->limit = NGX_HTTP_S3_LIST_LIMIT;
    ngx_str_null(&list->after);

    if (ngx_http_arg(r, (u_char *) "state", 5, &value) == NGX_OK) {

        if (s3_state_parse(ngx_s3_to_str(value), &state) != S3_OK) {
            return "state is not one of active, completing, completed, "
                   "failed, aborted";
        }

        list->state = state;
    }

    if (ngx_http_arg(r, (u_char *) "limit", 5, &value) == NGX_OK) {
        n = ngx_atoi(value.data, value.len);

        if (n < 1 || n > NGX_HTTP_S3_LIST_MAX) {
            return "limit is not a number from 1 to 1000";
        }

        list->limit = n;
    }

    if (ngx_http_arg(r, (u_char *) "after", 5, &value) == NGX_OK) {

        if (s3_uri_check_id(ngx_s3_to_str(value)) != S3_OK) {
            return "after is not the id of a transfer";
        }

        list->after = value;
    }

    return NULL;
}


static ngx_int_t
ngx_http_s3_list_records(ngx_s3_zone_t *zone, ngx_http_s3_list_t *list,
    s3_record_t *records, ngx_http_s3_doc_t *doc)
{
    char         cursor[S3_ID_MAX + 1];
    u_char       mem[S3_RECORD_JSON_MAX];
    s3_buf_t     out;
    ngx_uint_t   i, n, left, more;

    ngx_http_s3_doc_puts(doc, ",\"transfers\":[");

    left = list->limit;

    do {
        n = ngx_s3_zone_list(zone, &list->after, list->state, list->owner,
                             records, ngx_min(left, NGX_HTTP_S3_LIST_BATCH),
                             &more);

        for (i = 0; i < n; i++) {
            s3_buf_init(&out, mem, sizeof(mem));

            if (s3_record_json(&records[i], &out) != S3_OK) {
                return NGX_ERROR;
            }

            if (left-- != list->limit) {
                ngx_http_s3_doc_puts(doc, ",");
            }

            ngx_http_s3_doc_put(doc, out.start, out.pos - out.start);
        }

        if (n) {
            ngx_memcpy(cursor, records[n - 1].id, sizeof(cursor));
            list->after.data = (u_char *) cursor;
            list->after.len = ngx_strlen(cursor);
        }

    } while (more && left);

    if (more) {
        ngx_http_s3_doc_puts(doc, "],\"next\":\"");
        ngx_http_s3_doc_puts(doc, cursor);
        ngx_http_s3_doc_puts(doc, "\"}");

    } else {
        ngx_http_s3_doc_puts(doc, "],\"next\":null}");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_s3_doc_totals(ngx_http_s3_doc_t *doc, ngx_s3_zone_t *zone)
{
    u_char       mem[NGX_HTTP_S3_TOTALS_MAX];
    s3_buf_t     out;
    s3_totals_t  totals;

    ngx_s3_zone_totals(zone, &totals);

    s3_buf_init(&out, mem, sizeof(mem));

    if (s3_totals_json(&totals, &out) != S3_OK) {
        return NGX_ERROR;
    }

    ngx_http_s3_doc_puts(doc, "\"totals\":");
    ngx_http_s3_doc_put(doc, out.start, out.pos - out.start);

    return NGX_OK;
}


static void
ngx_http_s3_doc_init(ngx_http_s3_doc_t *doc, ngx_pool_t *pool)
{
    doc->pool = pool;
    doc->chain = NULL;
    doc->last = &doc->chain;
    doc->buf = NULL;
    doc->len = 0;
    doc->failed = 0;
}


static void
ngx_http_s3_doc_put(ngx_http_s3_doc_t *doc, const void *data, size_t len)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    b = doc->buf;

    if (doc->failed) {
        return;
    }

    if (b == NULL || (size_t) (b->end - b->last) < len) {
        b = ngx_create_temp_buf(doc->pool,
                                ngx_max(len, NGX_HTTP_S3_LIST_BUFFER));
        cl = ngx_alloc_chain_link(doc->pool);

        if (b == NULL || cl == NULL) {
            doc->failed = 1;
            return;
        }

        cl->buf = b;
        cl->next = NULL;
        *doc->last = cl;
        doc->last = &cl->next;
        doc->buf = b;
    }

    b->last = ngx_cpymem(b->last, data, len);
    doc->len += len;
}


static void
ngx_http_s3_doc_puts(ngx_http_s3_doc_t *doc, const char *s)
{
    ngx_http_s3_doc_put(doc, s, ngx_strlen(s));
}
