#include "ngx_http_s3_unread.h"


/* of a connection, for as long as that lives */

typedef struct {
    ngx_recv_pt   recv;              /* the connection's own */
    u_char       *start;             /* NULL: nothing */
    u_char       *pos;
    u_char       *last;
} ngx_http_s3_unread_t;


static ngx_http_s3_unread_t *ngx_http_s3_unread_get(ngx_connection_t *c);
static ssize_t ngx_http_s3_unread_recv(ngx_connection_t *c, u_char *buf,
    size_t size);
static void ngx_http_s3_unread_free(void *data);


ngx_int_t
ngx_http_s3_unread(ngx_connection_t *c, u_char *p, size_t size)
{
    ngx_pool_cleanup_t    *cln;
    ngx_http_s3_unread_t  *u;

    u = ngx_http_s3_unread_get(c);

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0, "s3 unread: %uz", size);

    if (u && u->start) {

        /* they came from here */

        u->pos -= size;
        c->read->ready = 1;

        return NGX_OK;
    }

    if (u == NULL) {
        cln = ngx_pool_cleanup_add(c->pool, sizeof(ngx_http_s3_unread_t));
        if (cln == NULL) {
            return NGX_ERROR;
        }

        u = cln->data;
        ngx_memzero(u, sizeof(ngx_http_s3_unread_t));

        cln->handler = ngx_http_s3_unread_free;
    }

    u->start = ngx_alloc(size, c->log);
    if (u->start == NULL) {
        return NGX_ERROR;
    }

    u->pos = u->start;
    u->last = ngx_cpymem(u->start, p, size);

    u->recv = c->recv;
    c->recv = ngx_http_s3_unread_recv;

    c->read->ready = 1;

    return NGX_OK;
}


static ngx_http_s3_unread_t *
ngx_http_s3_unread_get(ngx_connection_t *c)
{
    ngx_pool_cleanup_t  *cln;

    for (cln = c->pool->cleanup; cln; cln = cln->next) {

        if (cln->handler == ngx_http_s3_unread_free) {
            return cln->data;
        }
    }

    return NULL;
}


static ssize_t
ngx_http_s3_unread_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    size_t                 n;
    ngx_http_s3_unread_t  *u;

    u = ngx_http_s3_unread_get(c);

    n = ngx_min(size, (size_t) (u->last - u->pos));

    if (n == 0) {

        /* kept until now, since they may be given back once more */

        c->recv = u->recv;
        ngx_http_s3_unread_free(u);

        return c->recv(c, buf, size);
    }

    ngx_memcpy(buf, u->pos, n);
    u->pos += n;

    c->read->ready = 1;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "s3 unread recv: %uz", n);

    return n;
}


static void
ngx_http_s3_unread_free(void *data)
{
    ngx_http_s3_unread_t  *u = data;

    if (u->start) {
        ngx_free(u->start);
        u->start = NULL;
    }
}
