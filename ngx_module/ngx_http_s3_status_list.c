/*
 * Totals, and lists of records. A list is made in pages: between two of them the
 * zone's lock is free, and after some the event loop has its turn, so that
 * nobody waits for a list of many records, or for one that finds few of them.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_s3_reply.h"
#include "ngx_http_s3_status.h"


#define NGX_HTTP_S3_TOTALS_MAX    16384      /* bytes, of either form */

#define NGX_HTTP_S3_LIST_LIMIT    100
#define NGX_HTTP_S3_LIST_MAX      1000
#define NGX_HTTP_S3_LIST_PAGES    16         /* a turn of the event loop */
#define NGX_HTTP_S3_LIST_HOLD     60000      /* ms, longer than a turn */
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
    void                  *dummy[3]; /* an event's data */
    ngx_int_t              ident;

    ngx_http_request_t    *request;
    ngx_uint_t             uri_changes;  /* of the request, at first */
    ngx_s3_zone_t         *zone;
    ngx_s3_zone_cursor_t   cursor;
    ngx_str_t              owner;    /* of the cursor */
    ngx_uint_t             limit;
    ngx_uint_t             shown;
    ngx_uint_t             more;     /* 1: another record is wanted than those
                                        that are shown */
    char                   last[S3_ID_MAX + 1];  /* shown */
    s3_record_t           *records;  /* a page, on the heap */
    ngx_http_s3_doc_t      doc;
    ngx_event_t            event;    /* posted: the next turn; its timer is
                                        plain, so that a leaving worker waits
                                        for the list */
} ngx_http_s3_list_t;


static ngx_http_s3_list_t *ngx_http_s3_list_create(ngx_http_request_t *r,
    ngx_s3_zone_t *zone, ngx_str_t *owner);
static const char *ngx_http_s3_list_args(ngx_http_request_t *r,
    ngx_http_s3_list_t *list);
static void ngx_http_s3_list_handler(ngx_event_t *ev);
static void ngx_http_s3_list_go_on(ngx_http_s3_list_t *list);
static ngx_int_t ngx_http_s3_list_turn(ngx_http_s3_list_t *list);
static ngx_int_t ngx_http_s3_list_page(ngx_http_s3_list_t *list);
static ngx_int_t ngx_http_s3_list_reply(ngx_http_s3_list_t *list,
    ngx_int_t rc);
static void ngx_http_s3_list_cleanup(void *data);
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
    ngx_http_s3_list_t  *list;

    list = ngx_http_s3_list_create(r, zone, owner);
    if (list == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    wrong = ngx_http_s3_list_args(r, list);
    if (wrong) {
        return ngx_http_s3_send_error(r, NGX_HTTP_BAD_REQUEST,
                                      "InvalidArgument", wrong, NULL);
    }

    list->records = ngx_alloc(NGX_S3_ZONE_PAGE * sizeof(s3_record_t),
                              r->connection->log);
    if (list->records == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_s3_doc_puts(&list->doc, "{");

    if (ngx_http_s3_doc_totals(&list->doc, zone) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_s3_doc_puts(&list->doc, ",\"transfers\":[");

    rc = ngx_http_s3_list_turn(list);

    if (rc != NGX_AGAIN) {
        return ngx_http_s3_list_reply(list, rc);
    }

    rc = ngx_http_s3_status_wait(r);

    if (rc == NGX_DONE) {
        ngx_http_s3_list_go_on(list);
    }

    return rc;
}


static ngx_http_s3_list_t *
ngx_http_s3_list_create(ngx_http_request_t *r, ngx_s3_zone_t *zone,
    ngx_str_t *owner)
{
    ngx_http_cleanup_t  *cln;
    ngx_http_s3_list_t  *list;

    list = ngx_pcalloc(r->pool, sizeof(ngx_http_s3_list_t));
    cln = ngx_http_cleanup_add(r, 0);

    if (list == NULL || cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_s3_list_cleanup;
    cln->data = list;

    list->ident = -1;
    list->request = r;
    list->uri_changes = r->uri_changes;
    list->zone = zone;

    if (owner) {
        list->owner = *owner;
        list->cursor.owner = &list->owner;
    }

    list->event.handler = ngx_http_s3_list_handler;
    list->event.data = list;
    list->event.log = r->connection->log;

    ngx_http_s3_doc_init(&list->doc, r->pool);

    return list;
}


/* NULL, or what is wrong with the arguments */

static const char *
ngx_http_s3_list_args(ngx_http_request_t *r, ngx_http_s3_list_t *list)
{
    ngx_int_t   n;
    ngx_str_t   value;
    s3_state_e  state;

    list->cursor.state = -1;
    list->limit = NGX_HTTP_S3_LIST_LIMIT;

    if (ngx_http_arg(r, (u_char *) "state", 5, &value) == NGX_OK) {

        if (s3_state_parse(ngx_s3_to_str(value), &state) != S3_OK) {
            return "state is not one of active, completing, completed, "
                   "failed, aborted";
        }

        list->cursor.state = state;
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

        (void) ngx_cpystrn((u_char *) list->cursor.after, value.data,
                           value.len + 1);
    }

    return NULL;
}


static void
ngx_http_s3_list_handler(ngx_event_t *ev)
{
    ngx_int_t            rc;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;
    ngx_http_s3_list_t  *list;

    list = ev->data;
    r = list->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    if (ngx_http_s3_led_away(r, list->uri_changes)) {
        ngx_http_s3_list_cleanup(list);
        return;
    }

    rc = ngx_http_s3_list_turn(list);

    if (rc == NGX_AGAIN) {
        ngx_http_s3_list_go_on(list);
        return;
    }

    ngx_http_finalize_request(r, ngx_http_s3_list_reply(list, rc));

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_s3_list_go_on(ngx_http_s3_list_t *list)
{
    ngx_post_event(&list->event, &ngx_posted_next_events);

    if (!list->event.timer_set) {
        ngx_add_timer(&list->event, NGX_HTTP_S3_LIST_HOLD);
    }
}


/* NGX_OK: the records are all there; NGX_AGAIN: it goes on in the next turn;
   NGX_ERROR */

static ngx_int_t
ngx_http_s3_list_turn(ngx_http_s3_list_t *list)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_S3_LIST_PAGES; i++) {

        if (ngx_http_s3_list_page(list) != NGX_OK || list->doc.failed) {
            return NGX_ERROR;
        }

        if (list->more || list->cursor.end) {
            return NGX_OK;
        }
    }

    return NGX_AGAIN;
}


static ngx_int_t
ngx_http_s3_list_page(ngx_http_s3_list_t *list)
{
    u_char       mem[S3_RECORD_JSON_MAX];
    s3_buf_t     out;
    ngx_uint_t   i, n;

    /* one more than is shown, which tells whether there are others */

    n = ngx_s3_zone_list(list->zone, &list->cursor, list->records,
                         ngx_min(list->limit - list->shown + 1,
                                 NGX_S3_ZONE_PAGE));

    for (i = 0; i < n; i++) {

        if (list->shown == list->limit) {
            list->more = 1;
            break;
        }

        s3_buf_init(&out, mem, sizeof(mem));

        if (s3_record_json(&list->records[i], &out) != S3_OK) {
            return NGX_ERROR;
        }

        if (list->shown++) {
            ngx_http_s3_doc_puts(&list->doc, ",");
        }

        ngx_http_s3_doc_put(&list->doc, out.start, out.pos - out.start);

        ngx_memcpy(list->last, list->records[i].id, sizeof(list->last));
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_s3_list_reply(ngx_http_s3_list_t *list, ngx_int_t rc)
{
    ngx_http_s3_doc_t  *doc;

    doc = &list->doc;

    if (list->more) {
        ngx_http_s3_doc_puts(doc, "],\"next\":\"");
        ngx_http_s3_doc_puts(doc, list->last);
        ngx_http_s3_doc_puts(doc, "\"}");

    } else {
        ngx_http_s3_doc_puts(doc, "],\"next\":null}");
    }

    ngx_http_s3_list_cleanup(list);

    if (rc != NGX_OK || doc->failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_s3_send_chain(list->request, NGX_HTTP_OK,
                                  "application/json", doc->chain, doc->len);
}


static void
ngx_http_s3_list_cleanup(void *data)
{
    ngx_http_s3_list_t *list = data;

    if (list->event.posted) {
        ngx_delete_posted_event(&list->event);
    }

    if (list->event.timer_set) {
        ngx_del_timer(&list->event);
    }

    if (list->records) {
        ngx_free(list->records);
        list->records = NULL;
    }
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
