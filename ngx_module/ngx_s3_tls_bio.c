#include "ngx_s3_tls.h"

#include <openssl/bio.h>
#include <sys/mman.h>


/* bytes in a record (RFC 8446, 5.1), and what one takes at most (RFC 5246,
   6.2.3), with a key update before it */
#define NGX_S3_TLS_RECORD   16384
#define NGX_S3_TLS_ROOM     (16384 + 2048 + 1024)

/* larger ones gain nothing */
#define NGX_S3_TLS_BUF      (128 * 1024)

/* of a worker: those in use, which is where a peer does not take what is in
   them, and empty ones that are kept; who gets none has one of a record */
#define NGX_S3_TLS_BUFS     64
#define NGX_S3_TLS_SPARES   8


typedef struct ngx_s3_tls_buf_s  ngx_s3_tls_buf_t;

struct ngx_s3_tls_buf_s {
    ngx_s3_tls_buf_t  *next;
};


static ngx_chain_t *ngx_s3_tls_send_chain(ngx_connection_t *c, ngx_chain_t *in,
    off_t limit);
static ssize_t ngx_s3_tls_write(ngx_s3_tls_gather_t *g, u_char *p, size_t size);
static ngx_int_t ngx_s3_tls_want_read(ngx_s3_tls_gather_t *g);
static void ngx_s3_tls_reader(ngx_event_t *rev);
static ngx_int_t ngx_s3_tls_room(ngx_s3_tls_gather_t *g, size_t size);
static ngx_int_t ngx_s3_tls_flush(ngx_s3_tls_gather_t *g);

static BIO_METHOD *ngx_s3_tls_bio(void);
static int ngx_s3_tls_bio_write(BIO *bio, const char *p, int len);
static long ngx_s3_tls_bio_ctrl(BIO *bio, int cmd, long num, void *ptr);
static int ngx_s3_tls_bio_destroy(BIO *bio);

static ngx_int_t ngx_s3_tls_buf_take(ngx_s3_tls_gather_t *g);
static u_char *ngx_s3_tls_buf_large(void);
static void ngx_s3_tls_buf_give(ngx_s3_tls_gather_t *g);


static BIO_METHOD        *ngx_s3_tls_method;
static ngx_s3_tls_buf_t  *ngx_s3_tls_spare;
static ngx_uint_t         ngx_s3_tls_nspare;
static ngx_uint_t         ngx_s3_tls_nused;


ngx_int_t
ngx_s3_tls_gather(ngx_connection_t *c)
{
    BIO                  *bio;
    BIO_METHOD           *method;
    ngx_ssl_conn_t       *ssl;
    ngx_s3_tls_gather_t  *g;

    g = &ngx_s3_conn_tls(c)->gather;

    if (g->connection) {
        return NGX_OK;
    }

    ssl = c->ssl->connection;

#ifdef BIO_get_ktls_send

    /* the kernel encrypts what it is given: there is nothing to gather */

    if (BIO_get_ktls_send(SSL_get_wbio(ssl)) == 1) {
        goto done;
    }

#endif

    method = ngx_s3_tls_bio();
    bio = method ? BIO_new(method) : NULL;

    if (bio == NULL) {
        ERR_clear_error();
        return NGX_ERROR;
    }

    BIO_set_data(bio, g);
    BIO_set_init(bio, 1);

    SSL_set0_wbio(ssl, bio);

    g->gathers = 1;

#ifdef BIO_get_ktls_send
done:
#endif

    g->connection = c;
    c->send_chain = ngx_s3_tls_send_chain;

    return NGX_OK;
}


static ngx_chain_t *
ngx_s3_tls_send_chain(ngx_connection_t *c, ngx_chain_t *in, off_t limit)
{
    ssize_t               n;
    ngx_buf_t            *b;
    ngx_s3_tls_gather_t  *g;

    g = &ngx_s3_conn_tls(c)->gather;

    n = ngx_s3_tls_flush(g);

    while (in && n >= 0) {
        b = in->buf;

        if (b->pos == b->last) {
            in = in->next;
            continue;
        }

        n = ngx_s3_tls_write(g, b->pos, b->last - b->pos);

        if (n > 0) {
            b->pos += n;
        }
    }

    if (n >= 0) {
        n = ngx_s3_tls_flush(g);
    }

    return n == NGX_ERROR ? NGX_CHAIN_ERROR : in;
}


/* One record. Returns the bytes in it, NGX_AGAIN or NGX_ERROR. */

static ssize_t
ngx_s3_tls_write(ngx_s3_tls_gather_t *g, u_char *p, size_t size)
{
    int                n, err;
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = g->connection;

    /* a record that libssl cannot get rid of is in the way of what it has to
       send when it reads, and the connection fails */

    if (g->gathers) {
        rc = ngx_s3_tls_room(g, NGX_S3_TLS_ROOM);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    /* libssl wants what it has not taken to be repeated as it was; what came to
       follow it waits, so that no record is sent but not counted */

    size = g->pending ? g->pending : ngx_min(size, NGX_S3_TLS_RECORD);
    g->pending = 0;

    ERR_clear_error();

    n = SSL_write(c->ssl->connection, p, size);

    if (n > 0) {

        if (!g->gathers) {
            c->sent += n;
        }

        return n;
    }

    err = SSL_get_error(c->ssl->connection, n);

    ngx_log_debug2(NGX_LOG_DEBUG_EVENT, c->log, 0,
                   "s3 SSL_write: %uz, error:%d", size, err);

    switch (err) {

    case SSL_ERROR_WANT_WRITE:
        g->pending = size;
        c->write->ready = 0;
        return NGX_AGAIN;

    case SSL_ERROR_WANT_READ:
        g->pending = size;
        return ngx_s3_tls_want_read(g);

    case SSL_ERROR_SSL:
        ngx_ssl_error(NGX_LOG_INFO, c->log, 0, "SSL_write() failed");
        break;
    }

    ERR_clear_error();

    c->write->error = 1;

    return NGX_ERROR;
}


/*
 * The peer has begun a handshake within the connection, and nothing can be sent
 * before it has gone on. Whoever reads may be the one who ends it: the writer
 * has its turn again with the next thing that comes.
 */

static ngx_int_t
ngx_s3_tls_want_read(ngx_s3_tls_gather_t *g)
{
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = g->connection;

    rc = ngx_s3_tls_flush(g);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_OK) {
        c->write->ready = 0;
    }

    c->read->ready = 0;

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    if (c->read->handler != ngx_s3_tls_reader) {
        g->reader = c->read->handler;
        c->read->handler = ngx_s3_tls_reader;
    }

    return NGX_AGAIN;
}


static void
ngx_s3_tls_reader(ngx_event_t *rev)
{
    ngx_connection_t     *c;
    ngx_s3_tls_gather_t  *g;

    c = rev->data;
    g = &ngx_s3_conn_tls(c)->gather;

    rev->handler = g->reader;
    c->write->ready = 1;

    ngx_post_event(c->write, &ngx_posted_events);

    rev->handler(rev);
}


/* NGX_OK: there is room; NGX_AGAIN: the socket takes no more; NGX_ERROR */

static ngx_int_t
ngx_s3_tls_room(ngx_s3_tls_gather_t *g, size_t size)
{
    ngx_int_t  rc;

    if (g->buf && (size_t) (g->end - g->last) < size) {
        rc = ngx_s3_tls_flush(g);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return g->buf ? NGX_OK : ngx_s3_tls_buf_take(g);
}


/* NGX_OK: all is written; NGX_AGAIN: the socket takes no more; NGX_ERROR */

static ngx_int_t
ngx_s3_tls_flush(ngx_s3_tls_gather_t *g)
{
    ssize_t  n;

    if (g->buf == NULL) {
        return NGX_OK;
    }

    if (g->pos < g->last) {
        n = ngx_send(g->connection, g->pos, g->last - g->pos);

        if (n == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (n > 0) {
            g->pos += n;
        }

        if (g->pos < g->last) {
            return NGX_AGAIN;
        }
    }

    ngx_s3_tls_buf_give(g);

    return NGX_OK;
}


static BIO_METHOD *
ngx_s3_tls_bio(void)
{
    BIO_METHOD  *method;

    if (ngx_s3_tls_method) {
        return ngx_s3_tls_method;
    }

    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK,
                          "s3 gathering");
    if (method == NULL) {
        return NULL;
    }

    if (BIO_meth_set_write(method, ngx_s3_tls_bio_write) != 1
        || BIO_meth_set_ctrl(method, ngx_s3_tls_bio_ctrl) != 1
        || BIO_meth_set_destroy(method, ngx_s3_tls_bio_destroy) != 1)
    {
        BIO_meth_free(method);
        return NULL;
    }

    ngx_s3_tls_method = method;

    return method;
}


static int
ngx_s3_tls_bio_write(BIO *bio, const char *p, int len)
{
    ngx_int_t             rc;
    ngx_s3_tls_gather_t  *g;

    g = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);

    len = ngx_min(len, NGX_S3_TLS_ROOM);

    rc = ngx_s3_tls_room(g, len);

    if (rc == NGX_OK) {
        g->last = ngx_cpymem(g->last, p, len);
        return len;
    }

    if (rc == NGX_AGAIN) {
        BIO_set_retry_write(bio);
    }

    return -1;
}


static long
ngx_s3_tls_bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    ngx_int_t             rc;
    ngx_s3_tls_gather_t  *g;

    g = BIO_get_data(bio);

    switch (cmd) {

    case BIO_CTRL_FLUSH:

        /* After handshakes, key updates and alerts, never after data. What the
           socket does not take goes when the writer has its turn: libssl puts a
           BIO of its own before this one, which takes "later" for a failure. */

        rc = ngx_s3_tls_flush(g);

        if (rc == NGX_AGAIN) {
            rc = ngx_handle_write_event(g->connection->write, 0);
        }

        return rc == NGX_OK ? 1 : -1;

    case BIO_CTRL_WPENDING:
        return g->buf ? g->last - g->pos : 0;
    }

    return 0;
}


static int
ngx_s3_tls_bio_destroy(BIO *bio)
{
    ngx_s3_tls_gather_t  *g;

    g = BIO_get_data(bio);

    if (g && g->buf) {
        ngx_s3_tls_buf_give(g);
    }

    return 1;
}


static ngx_int_t
ngx_s3_tls_buf_take(ngx_s3_tls_gather_t *g)
{
    size_t   size;
    u_char  *p;

    size = NGX_S3_TLS_BUF;
    p = ngx_s3_tls_buf_large();

    if (p == NULL) {
        size = NGX_S3_TLS_ROOM;
        p = ngx_alloc(size, g->connection->log);

        if (p == NULL) {
            return NGX_ERROR;
        }
    }

    g->buf = p;
    g->pos = p;
    g->last = p;
    g->end = p + size;

    g->connection->buffered |= NGX_SSL_BUFFERED;

    return NGX_OK;
}


/* the one that was given back last is in the processor's cache */

static u_char *
ngx_s3_tls_buf_large(void)
{
    void              *p;
    ngx_s3_tls_buf_t  *buf;

    if (ngx_s3_tls_nused == NGX_S3_TLS_BUFS) {
        return NULL;
    }

    buf = ngx_s3_tls_spare;

    if (buf) {
        ngx_s3_tls_spare = buf->next;
        ngx_s3_tls_nspare--;
        p = buf;

    } else {
        /* mapped, not malloc'ed: what is freed goes back to the system */

        p = mmap(NULL, NGX_S3_TLS_BUF, PROT_READ|PROT_WRITE,
                 MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED) {
            return NULL;
        }
    }

    ngx_s3_tls_nused++;

    return p;
}


static void
ngx_s3_tls_buf_give(ngx_s3_tls_gather_t *g)
{
    size_t             size;
    ngx_s3_tls_buf_t  *buf;

    size = g->end - g->buf;
    buf = (ngx_s3_tls_buf_t *) g->buf;

    g->buf = NULL;
    g->connection->buffered &= ~NGX_SSL_BUFFERED;

    if (size != NGX_S3_TLS_BUF) {
        ngx_free(buf);
        return;
    }

    ngx_s3_tls_nused--;

    if (ngx_s3_tls_nspare == NGX_S3_TLS_SPARES) {
        (void) munmap(buf, NGX_S3_TLS_BUF);
        return;
    }

    buf->next = ngx_s3_tls_spare;
    ngx_s3_tls_spare = buf;
    ngx_s3_tls_nspare++;
}
