#include "ngx_s3_tls_ahead.h"

#include <openssl/bio.h>


/* in one call; larger ones gain nothing */

#define NGX_S3_TLS_AHEAD  (64 * 1024)

/* what records add to size bytes: 22 to each 16 KiB in TLS 1.3, RFC 8446, 5.2 */

#define ngx_s3_tls_ahead_sealed(size)  ((size) + (size) / 512 + 64)


typedef struct {
    ngx_connection_t  *connection;
    size_t             ahead;        /* bytes that may be read */
    u_char            *buf;          /* memory of pos; NULL: the worker's */
    u_char            *pos;          /* read and not asked for yet */
    u_char            *last;
    unsigned           lost:1;       /* some of it */
} ngx_s3_tls_ahead_t;


static ngx_s3_tls_ahead_t *ngx_s3_tls_ahead_get(ngx_connection_t *c);
static ngx_s3_tls_ahead_t *ngx_s3_tls_ahead_create(ngx_connection_t *c);
static BIO_METHOD *ngx_s3_tls_ahead_bio(void);
static int ngx_s3_tls_ahead_read(BIO *bio, char *p, int len);
static int ngx_s3_tls_ahead_receive(BIO *bio, u_char *p, size_t size);
static long ngx_s3_tls_ahead_ctrl(BIO *bio, int cmd, long num, void *ptr);
static int ngx_s3_tls_ahead_destroy(BIO *bio);


static BIO_METHOD  *ngx_s3_tls_ahead_method;
static int          ngx_s3_tls_ahead_type;

/* of the connection that is reading ahead now */

static u_char       ngx_s3_tls_ahead_buf[NGX_S3_TLS_AHEAD];


void
ngx_s3_tls_ahead(ngx_connection_t *c, size_t size)
{
    size_t               has;
    ngx_s3_tls_ahead_t  *a;

    a = ngx_s3_tls_ahead_get(c);

    if (a == NULL) {
        a = ngx_s3_tls_ahead_create(c);

        if (a == NULL) {
            return;
        }
    }

    has = SSL_pending(c->ssl->connection) + (a->last - a->pos);
    size = ngx_s3_tls_ahead_sealed(size);

    a->ahead = (has < size) ? size - has : 0;
}


ngx_int_t
ngx_s3_tls_ahead_end(ngx_connection_t *c)
{
    size_t               size;
    ngx_s3_tls_ahead_t  *a;

    a = ngx_s3_tls_ahead_get(c);

    if (a == NULL) {
        return NGX_OK;
    }

    a->ahead = 0;

    if (a->pos == a->last || a->buf) {
        return NGX_OK;
    }

    size = a->last - a->pos;

    a->buf = ngx_alloc(size, c->log);

    if (a->buf == NULL) {
        a->pos = NULL;
        a->last = NULL;
        a->lost = 1;

        return NGX_ERROR;
    }

    ngx_memcpy(a->buf, a->pos, size);

    a->pos = a->buf;
    a->last = a->buf + size;

    return NGX_OK;
}


static ngx_s3_tls_ahead_t *
ngx_s3_tls_ahead_get(ngx_connection_t *c)
{
    BIO  *bio;

    bio = SSL_get_rbio(c->ssl->connection);

    if (bio == NULL || ngx_s3_tls_ahead_type == 0
        || BIO_method_type(bio) != ngx_s3_tls_ahead_type)
    {
        return NULL;
    }

    return BIO_get_data(bio);
}


/* once for a connection; libssl frees it */

static ngx_s3_tls_ahead_t *
ngx_s3_tls_ahead_create(ngx_connection_t *c)
{
    BIO                 *bio;
    BIO_METHOD          *method;
    ngx_ssl_conn_t      *ssl;
    ngx_s3_tls_ahead_t  *a;

    ssl = c->ssl->connection;

    /* memory has bytes already, or no socket is there */

    if (BIO_method_type(SSL_get_rbio(ssl)) != BIO_TYPE_SOCKET) {
        return NULL;
    }

#ifdef BIO_get_ktls_recv

    /* libssl gets no records */

    if (BIO_get_ktls_recv(SSL_get_rbio(ssl)) == 1) {
        return NULL;
    }

#endif

    a = ngx_calloc(sizeof(ngx_s3_tls_ahead_t), c->log);
    if (a == NULL) {
        return NULL;
    }

    method = ngx_s3_tls_ahead_bio();
    bio = method ? BIO_new(method) : NULL;

    if (bio == NULL) {
        ERR_clear_error();
        ngx_free(a);
        return NULL;
    }

    a->connection = c;

    BIO_set_data(bio, a);
    BIO_set_init(bio, 1);

    SSL_set0_rbio(ssl, bio);

    return a;
}


static BIO_METHOD *
ngx_s3_tls_ahead_bio(void)
{
    int          type;
    BIO_METHOD  *method;

    if (ngx_s3_tls_ahead_method) {
        return ngx_s3_tls_ahead_method;
    }

    type = BIO_get_new_index() | BIO_TYPE_SOURCE_SINK;

    method = BIO_meth_new(type, "s3 reading ahead");
    if (method == NULL) {
        return NULL;
    }

    if (BIO_meth_set_read(method, ngx_s3_tls_ahead_read) != 1
        || BIO_meth_set_ctrl(method, ngx_s3_tls_ahead_ctrl) != 1
        || BIO_meth_set_destroy(method, ngx_s3_tls_ahead_destroy) != 1)
    {
        BIO_meth_free(method);
        return NULL;
    }

    ngx_s3_tls_ahead_type = type;
    ngx_s3_tls_ahead_method = method;

    return method;
}


static int
ngx_s3_tls_ahead_read(BIO *bio, char *p, int len)
{
    int                  n;
    size_t               size;
    ngx_s3_tls_ahead_t  *a;

    a = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);

    if (a->lost) {
        ngx_set_errno(NGX_ENOMEM);
        return -1;
    }

    if (a->pos == a->last) {

        if (a->ahead <= (size_t) len) {
            return ngx_s3_tls_ahead_receive(bio, (u_char *) p, len);
        }

        size = ngx_min(a->ahead, NGX_S3_TLS_AHEAD);

        n = ngx_s3_tls_ahead_receive(bio, ngx_s3_tls_ahead_buf, size);

        if (n <= 0) {
            return n;
        }

        a->pos = ngx_s3_tls_ahead_buf;
        a->last = a->pos + n;
        a->ahead -= n;
    }

    n = ngx_min(len, a->last - a->pos);

    ngx_memcpy(p, a->pos, n);
    a->pos += n;

    if (a->pos == a->last && a->buf) {
        ngx_free(a->buf);
        a->buf = NULL;
    }

    return n;
}


/* of the socket, with flags of the BIO as a socket's own sets them */

static int
ngx_s3_tls_ahead_receive(BIO *bio, u_char *p, size_t size)
{
    int                  n;
    ngx_s3_tls_ahead_t  *a;

    a = BIO_get_data(bio);

    n = recv(a->connection->fd, p, size, 0);

    ngx_log_debug2(NGX_LOG_DEBUG_EVENT, a->connection->log, 0,
                   "s3 tls ahead: recv %d of %uz", n, size);

    if (n == 0) {

        /* libssl asks whether the peer has gone without saying so */

        BIO_set_flags(bio, BIO_FLAGS_IN_EOF);

    } else if (n == -1 && BIO_sock_should_retry(n)) {
        BIO_set_retry_read(bio);
    }

    return n;
}


static long
ngx_s3_tls_ahead_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    ngx_s3_tls_ahead_t  *a;

    a = BIO_get_data(bio);

    switch (cmd) {

    case BIO_CTRL_EOF:
        return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;

    case BIO_CTRL_PENDING:
        return a->last - a->pos;

    case BIO_CTRL_FLUSH:
        return 1;

    case BIO_C_GET_FD:

        if (ptr) {
            *(int *) ptr = a->connection->fd;
        }

        return a->connection->fd;
    }

    return 0;
}


static int
ngx_s3_tls_ahead_destroy(BIO *bio)
{
    ngx_s3_tls_ahead_t  *a;

    a = BIO_get_data(bio);

    if (a) {
        if (a->buf) {
            ngx_free(a->buf);
        }

        ngx_free(a);
    }

    return 1;
}
