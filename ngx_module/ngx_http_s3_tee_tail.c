/*
 * The end of a response that came whole, though S3 has not taken all of it when
 * nginx ends the request: as with an upload, nobody else is needed any more.
 */

#include "ngx_http_s3_transfer_module.h"


typedef struct {
    ngx_pool_t         *pool;
    ngx_s3_transfer_t  *transfer;
    ngx_chain_t        *rest;
} ngx_http_s3_tee_tail_t;


static ngx_http_s3_tee_tail_t *ngx_http_s3_tee_tail_alloc(ngx_log_t *log);
static ngx_chain_t *ngx_http_s3_tee_tail_copy(ngx_pool_t *pool, ngx_buf_t *b,
    u_char *pos);
static void ngx_http_s3_tee_tail_event(void *data,
    ngx_s3_transfer_event_e event);


ngx_int_t
ngx_http_s3_tee_tail(ngx_http_s3_tee_t *tee, ngx_s3_transfer_t *t)
{
    u_char                  *pos;
    ngx_buf_t               *b;
    ngx_chain_t             *cl, *ln, **last;
    ngx_http_s3_tee_tail_t  *tail;

    tail = ngx_http_s3_tee_tail_alloc(t->log);
    if (tail == NULL) {
        return NGX_ERROR;
    }

    last = &tail->rest;
    pos = tee->pos;

    for (cl = tee->held; cl; cl = cl->next, pos = NULL) {

        b = cl->buf;

        if (ngx_buf_size(b) == 0) {
            continue;
        }

        ln = ngx_buf_in_memory(b)
             ? ngx_http_s3_tee_tail_copy(tail->pool, b, pos) : NULL;

        if (ln == NULL) {
            ngx_destroy_pool(tail->pool);
            return NGX_ERROR;
        }

        *last = ln;
        last = &ln->next;
    }

    tail->transfer = t;

    t->handler = ngx_http_s3_tee_tail_event;
    t->data = tail;

    if (tee->ready) {

        /* it may have been held for the sake of others alone, and then nobody
           tells when to go on */

        ngx_http_s3_tee_tail_event(tail, NGX_S3_RESUME);
    }

    return NGX_OK;
}


static ngx_http_s3_tee_tail_t *
ngx_http_s3_tee_tail_alloc(ngx_log_t *log)
{
    ngx_pool_t              *pool;
    ngx_http_s3_tee_tail_t  *tail;

    pool = ngx_create_pool(1024, log);
    if (pool == NULL) {
        return NULL;
    }

    tail = ngx_pcalloc(pool, sizeof(ngx_http_s3_tee_tail_t));
    if (tail == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    tail->pool = pool;

    return tail;
}


static ngx_chain_t *
ngx_http_s3_tee_tail_copy(ngx_pool_t *pool, ngx_buf_t *b, u_char *pos)
{
    ngx_buf_t    *to;
    ngx_chain_t  *cl;

    if (pos == NULL) {
        pos = b->pos;
    }

    cl = ngx_alloc_chain_link(pool);
    to = ngx_create_temp_buf(pool, b->last - pos);

    if (cl == NULL || to == NULL) {
        return NULL;
    }

    to->last = ngx_cpymem(to->pos, pos, b->last - pos);

    cl->buf = to;
    cl->next = NULL;

    return cl;
}


static void
ngx_http_s3_tee_tail_event(void *data, ngx_s3_transfer_event_e event)
{
    ngx_http_s3_tee_tail_t *tail = data;

    ngx_s3_transfer_t  *t;

    if (event == NGX_S3_DONE) {
        ngx_destroy_pool(tail->pool);
        return;
    }

    t = tail->transfer;

    if (ngx_s3_transfer_feed(t, tail->rest) != NGX_OK) {

        /* another event follows */

        return;
    }

    ngx_s3_transfer_finish(t);
    ngx_s3_transfer_abort(t, 0, "");

    ngx_destroy_pool(tail->pool);
}
