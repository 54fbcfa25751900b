#include "ngx_http_s3_place.h"
#include "ngx_http_s3_unread.h"
#include "ngx_s3_tls_ahead.h"


/* of the buffer of the first read, and of bodies that are read whole by it: for
   these another read would cost more than copying them */

#define NGX_HTTP_S3_PLACE_FIRST  4096
#define NGX_HTTP_S3_PLACE_WHOLE  16384

/* bytes of an HTTP/2 window: with fewer a client may wait for more, since it
   pads its frames, or sends whole ones; RFC 9113, 4.2 and 6.1 */

#define NGX_HTTP_S3_PLACE_FRAME  16384

/* bytes of chunks that are read at a time, however small these are */

#define NGX_HTTP_S3_PLACE_WIDE   65536


static ngx_uint_t ngx_http_s3_place_worth(ngx_http_request_t *r,
    ngx_s3_transfer_t *t);
static ngx_uint_t ngx_http_s3_place_alone(void);
static ngx_int_t ngx_http_s3_place_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_s3_place_pipelined(ngx_http_request_t *r);
static size_t ngx_http_s3_place_wide(ngx_http_request_t *r, size_t size);
static void ngx_http_s3_place_ahead(ngx_http_request_t *r, size_t size);
static ngx_uint_t ngx_http_s3_place_sealed(ngx_http_request_t *r);
static ngx_uint_t ngx_http_s3_place_chunked(ngx_http_request_t *r);
static ngx_uint_t ngx_http_s3_place_allowed(ngx_http_request_t *r,
    ngx_http_s3_place_t *place);
static size_t ngx_http_s3_place_granted(ngx_http_request_t *r);
static void ngx_http_s3_place_point(ngx_buf_t *b, u_char *start, u_char *end);


static ngx_http_request_body_filter_pt  ngx_http_s3_place_next_filter;

/* the location's client_body_buffer_size while nginx makes its buffer */

static ngx_http_core_loc_conf_t  *ngx_http_s3_place_conf;
static size_t                     ngx_http_s3_place_size;


ngx_int_t
ngx_http_s3_place_begin(ngx_http_request_t *r, ngx_s3_transfer_t *t,
    ngx_http_client_body_handler_pt handler)
{
    ngx_int_t                  rc;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (ngx_http_s3_place_worth(r, t)
        && clcf->client_body_buffer_size > NGX_HTTP_S3_PLACE_FIRST)
    {
        ngx_http_s3_place_conf = clcf;
        ngx_http_s3_place_size = clcf->client_body_buffer_size;

        clcf->client_body_buffer_size = NGX_HTTP_S3_PLACE_FIRST;
    }

    rc = ngx_http_read_client_request_body(r, handler);

    ngx_http_s3_place_begun();

    return rc;
}


void
ngx_http_s3_place_begun(void)
{
    if (ngx_http_s3_place_conf) {
        ngx_http_s3_place_conf->client_body_buffer_size
                                                   = ngx_http_s3_place_size;
        ngx_http_s3_place_conf = NULL;
    }
}


/* HTTP/2 makes its window of the buffer, and where the length is not known the
   first bytes decide where the next ones go */

static ngx_uint_t
ngx_http_s3_place_worth(ngx_http_request_t *r, ngx_s3_transfer_t *t)
{
    return t->conf->zero_copy
           && r->http_version < NGX_HTTP_VERSION_20
           && !r->headers_in.chunked
           && r->headers_in.content_length_n > NGX_HTTP_S3_PLACE_WHOLE
           && ngx_http_s3_place_alone();
}


/* Only what nginx itself made of the buffer is looked at, so another filter of
   request bodies, which could keep such bytes, forbids it. */

static ngx_uint_t
ngx_http_s3_place_alone(void)
{
    return ngx_http_top_request_body_filter == ngx_http_s3_place_filter
           && ngx_http_s3_place_next_filter
              == ngx_http_request_body_save_filter;
}


void
ngx_http_s3_place_init(void)
{
    ngx_http_s3_place_next_filter = ngx_http_top_request_body_filter;
    ngx_http_top_request_body_filter = ngx_http_s3_place_filter;
}


static ngx_int_t
ngx_http_s3_place_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_chain_t  *cl;

    if (ngx_http_s3_place_chunked(r)) {

        for (cl = in; cl; cl = cl->next) {

            if (cl->buf->last_buf
                && ngx_http_s3_place_pipelined(r) != NGX_OK)
            {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }
        }
    }

    return ngx_http_s3_place_next_filter(r, in);
}


/*
 * nginx copies what came behind a body, the beginning of a next request, to its
 * buffer of headers. It reads a body in chunks so that this is never more than
 * fits there; where more was read at a time (ngx_http_s3_place_wide()) it may be,
 * and goes back to the connection.
 */

static ngx_int_t
ngx_http_s3_place_pipelined(ngx_http_request_t *r)
{
    size_t                     n;
    ngx_buf_t                 *b;
    ngx_http_core_srv_conf_t  *cscf;

    b = r->request_body->buf;

    if (b == NULL || b == r->header_in) {
        return NGX_OK;
    }

    cscf = ngx_http_get_module_srv_conf(r, ngx_http_core_module);

    n = b->last - b->pos;

    if (n <= cscf->large_client_header_buffers.size) {
        return NGX_OK;
    }

    if (ngx_http_s3_unread(r->connection, b->pos, n) != NGX_OK) {

        /* the next request has lost its beginning */

        r->keepalive = 0;

        return NGX_ERROR;
    }

    b->last = b->pos;
    r->request_length -= n;

    return NGX_OK;
}


void
ngx_http_s3_place(ngx_http_request_t *r, ngx_http_s3_place_t *place,
    ngx_s3_transfer_t *t)
{
    size_t          granted, least, size;
    ngx_buf_t      *b;
    ngx_uint_t      keeps;
    ngx_s3_loan_t   loan;

    if (!ngx_http_s3_place_allowed(r, place)) {
        return;
    }

    b = r->request_body->buf;

    if (place->start == NULL) {
        place->start = b->start;
        place->end = b->end;
    }

    granted = ngx_http_s3_place_granted(r);
    least = granted;
    keeps = 0;

#if (NGX_HTTP_V2)

    if (r->stream) {
        least = ngx_max(granted, NGX_HTTP_S3_PLACE_FRAME);
        keeps = 1;
    }

#endif

    if (ngx_s3_transfer_lend(t, keeps, &loan) == NGX_OK) {

        if ((size_t) (loan.end - loan.pos) >= least) {
            size = ngx_http_s3_place_wide(r, loan.end - loan.pos);

            ngx_http_s3_place_point(b, loan.pos, loan.pos + size);
            ngx_http_s3_place_ahead(r, size);

            ngx_s3_pool_return(&place->loan);
            place->loan = loan;

            return;
        }

        ngx_s3_pool_return(&loan);
    }

    /* What was received lies before pos, and nginx begins at start again when
       it finds its buffer full: it must not do so where a part is. */

    if (place->loan.block == NULL) {
        return;
    }

    if ((size_t) (place->end - place->start) >= granted) {
        ngx_http_s3_place_point(b, place->start, place->end);
        ngx_s3_pool_return(&place->loan);
        return;
    }

    ngx_http_s3_place_point(b, b->pos, b->end);
}


/* Of a body in chunks nginx reads no further than the end of a chunk, and its
   own limit of headers, at a time. Returns how much of size bytes of room it may
   fill at once. */

static size_t
ngx_http_s3_place_wide(ngx_http_request_t *r, size_t size)
{
    ngx_http_request_body_t  *rb;

    rb = r->request_body;

    if (!ngx_http_s3_place_chunked(r)) {
        return size;
    }

    rb->rest = ngx_max(rb->rest, NGX_HTTP_S3_PLACE_WIDE);

    return (size_t) ngx_min((off_t) size, rb->rest);
}


static void
ngx_http_s3_place_ahead(ngx_http_request_t *r, size_t size)
{
    if (ngx_http_s3_place_sealed(r)) {
        ngx_s3_tls_ahead(r->connection,
                         (size_t) ngx_min((off_t) size, r->request_body->rest));
    }
}


ngx_int_t
ngx_http_s3_place_received(ngx_http_request_t *r)
{
    return ngx_http_s3_place_sealed(r)
           ? ngx_s3_tls_ahead_end(r->connection) : NGX_OK;
}


/* a TLS connection of this request's own */

static ngx_uint_t
ngx_http_s3_place_sealed(ngx_http_request_t *r)
{
    return r->connection->ssl && r->http_version < NGX_HTTP_VERSION_20;
}


/* HTTP/2 has the flag where no length is announced */

static ngx_uint_t
ngx_http_s3_place_chunked(ngx_http_request_t *r)
{
    return r->headers_in.chunked && r->http_version < NGX_HTTP_VERSION_20;
}


/* At the end of a body the buffer may hold the beginning of a next request. */

static ngx_uint_t
ngx_http_s3_place_allowed(ngx_http_request_t *r, ngx_http_s3_place_t *place)
{
    ngx_http_request_body_t  *rb;

    rb = r->request_body;

    if (!r->reading_body
        || rb->buf == NULL
        || rb->rest == 0
        || rb->bufs != NULL
        || rb->buf->pos != rb->buf->last
        || !ngx_http_s3_place_alone())
    {
        return 0;
    }

#if (NGX_HTTP_V2)

    /* a wider window than a block could hold is what the operator wants */

    if (r->stream && place->start == NULL
        && rb->buf->end - rb->buf->start > NGX_S3_BLOCK_SIZE)
    {
        return 0;
    }

#endif

#if (NGX_HTTP_V3)

    if (r->http_version >= NGX_HTTP_VERSION_30) {
        return 0;
    }

#endif

    return 1;
}


/* bytes that HTTP/2 lets the client send, at any time, and that have to find
   room: RFC 9113, 5.2 */

static size_t
ngx_http_s3_place_granted(ngx_http_request_t *r)
{
    size_t  granted;

    granted = 0;

#if (NGX_HTTP_V2)

    ngx_http_v2_stream_t      *stream;
    ngx_http_v2_connection_t  *h2c;

    stream = r->stream;

    if (stream) {
        h2c = stream->connection;
        granted = stream->recv_window;

        if (h2c->state.stream == stream) {

            /* of a frame that has begun */

            granted += h2c->state.length + h2c->state.padding;
        }
    }

#endif

    return granted;
}


static void
ngx_http_s3_place_point(ngx_buf_t *b, u_char *start, u_char *end)
{
    b->start = start;
    b->pos = start;
    b->last = start;
    b->end = end;
}


void
ngx_http_s3_place_leave(ngx_http_request_t *r, ngx_http_s3_place_t *place)
{
    if (place->loan.block == NULL) {
        return;
    }

#if (NGX_HTTP_V2)

    if (r->stream) {

        /* frames may come until the stream is closed */

        r->stream->skip_data = 1;
    }

#endif

    /* what was not consumed lies in memory that others get, and an error_page
       may lead to a handler that sends it somewhere */

    r->request_body->bufs = NULL;

    ngx_http_s3_place_point(r->request_body->buf, place->start, place->end);

    ngx_s3_pool_return(&place->loan);
}
