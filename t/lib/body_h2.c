/*
 * body_h2 [options] http[s]://HOST:PORT/PATH BYTES: sends so many bytes of the
 * pattern as one PUT over HTTP/2, with prior knowledge or ALPN.
 *
 *   --frame N          bytes of a DATA frame (16384, what clients use)
 *   --header 'A: b'    may be repeated
 *   --cacert F         authority that the server's certificate is held
 *                      against, else the system's
 *
 * No more than the flow-control windows let through (RFC 9113, 5.2), and all
 * of that at once. "HTTP/2 STATUS" and the reply's body go to stdout, what was
 * sent and how often a window was shut to stderr. Exit status: 0 where the
 * reply is a 2xx, 1 otherwise, 2 where the command is wrong.
 */

#define _GNU_SOURCE

#include "body_conn.h"
#include "pattern.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>


#define H2_BUF         (1024 * 1024) /* of body bytes in a write, at most */
#define H2_FRAME_HEAD  9
#define H2_FRAME_MAX   16384         /* of frames that come: ours announce it */
#define H2_WINDOW      65535         /* before anybody says otherwise */

#define H2_DATA           0
#define H2_HEADERS        1
#define H2_RST_STREAM     3
#define H2_SETTINGS       4
#define H2_PING           6
#define H2_GOAWAY         7
#define H2_WINDOW_UPDATE  8

#define H2_END_STREAM   0x1
#define H2_ACK          0x1
#define H2_END_HEADERS  0x4
#define H2_PADDED       0x8
#define H2_PRIORITY     0x20

#define H2_SETTINGS_WINDOW  4
#define H2_SETTINGS_FRAME   5


typedef struct {
    body_url_t      url;
    const char     *cacert;
    unsigned char  *headers;         /* HPACK, malloc'ed */
    size_t          nheaders;
    uint64_t        size;
    uint64_t        frame;
} h2_conf_t;


typedef struct {
    body_conn_t     conn;
    int64_t         window;          /* of the connection */
    int64_t         stream;          /* of the stream */
    int64_t         initial;         /* of streams */
    uint32_t        frame_max;       /* that the server takes */
    uint64_t        sent;
    uint64_t        frames;
    uint64_t        shut;            /* waits for a window */
    int             status;          /* of the reply, 0: none yet */
    unsigned        settled:1;       /* its SETTINGS came */
    unsigned        over:1;          /* stream or connection */
    unsigned char  *out;
    unsigned char   in[H2_FRAME_HEAD + H2_FRAME_MAX];
    size_t          len;             /* bytes in there */
} h2_conn_t;


static uint32_t
h2_uint32(const unsigned char *p)
{
    return (uint32_t) p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}


static unsigned char *
h2_frame(unsigned char *p, size_t len, unsigned type, unsigned flags,
    uint32_t stream)
{
    *p++ = (unsigned char) (len >> 16);
    *p++ = (unsigned char) (len >> 8);
    *p++ = (unsigned char) len;
    *p++ = (unsigned char) type;
    *p++ = (unsigned char) flags;
    *p++ = (unsigned char) (stream >> 24);
    *p++ = (unsigned char) (stream >> 16);
    *p++ = (unsigned char) (stream >> 8);
    *p++ = (unsigned char) stream;

    return p;
}


/* header fields: literal, not indexed, not Huffman-coded (RFC 7541, 6.2.2) */

static unsigned char *
h2_integer(unsigned char *p, size_t n, size_t max)
{
    if (n < max) {
        *p++ = (unsigned char) n;
        return p;
    }

    *p++ = (unsigned char) max;

    for (n -= max; n >= 128; n >>= 7) {
        *p++ = (unsigned char) (n | 128);
    }

    *p++ = (unsigned char) n;

    return p;
}


static unsigned char *
h2_string(unsigned char *p, const char *s, size_t len)
{
    p = h2_integer(p, len, 127);

    return (unsigned char *) mempcpy(p, s, len);
}


/* the name is that of an entry of the static table, or 0 and a string */

static unsigned char *
h2_field(unsigned char *p, unsigned index, const char *name, const char *value)
{
    p = h2_integer(p, index, 15);

    if (index == 0) {
        p = h2_string(p, name, strlen(name));
    }

    return h2_string(p, value, strlen(value));
}


/* the connection, which does not block */

static void
h2_await(h2_conn_t *c, int events)
{
    struct pollfd  pfd;

    pfd.fd = c->conn.fd;
    pfd.events = events;

    poll(&pfd, 1, -1);
}


/* whether it would block: it waits then, if it may; else the peer is gone */

static int
h2_again(h2_conn_t *c, ssize_t n, int events)
{
    int  err;

    if (c->conn.ssl == NULL) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            return 0;
        }

    } else {
        err = SSL_get_error(c->conn.ssl, n);

        if (err == SSL_ERROR_WANT_READ) {
            events = events ? POLLIN : 0;

        } else if (err == SSL_ERROR_WANT_WRITE) {
            events = events ? POLLOUT : 0;

        } else {
            return 0;
        }
    }

    if (events) {
        h2_await(c, events);
    }

    return 1;
}


static int
h2_write(h2_conn_t *c, const unsigned char *p, size_t len)
{
    ssize_t  n;

    while (len > 0) {
        n = c->conn.ssl ? SSL_write(c->conn.ssl, p, len)
                        : send(c->conn.fd, p, len, MSG_NOSIGNAL);

        if (n <= 0) {
            if (!h2_again(c, n, POLLOUT)) {
                return -1;
            }

            continue;
        }

        p += n;
        len -= n;
    }

    return 0;
}


/* frames that come */

static void
h2_settings(h2_conn_t *c, const unsigned char *p, size_t len)
{
    uint32_t       value;
    unsigned char  ack[H2_FRAME_HEAD];

    for ( /* void */ ; len >= 6; p += 6, len -= 6) {
        value = h2_uint32(p + 2);

        switch (p[0] << 8 | p[1]) {
        case H2_SETTINGS_WINDOW:
            c->stream += (int64_t) value - c->initial;
            c->initial = value;
            break;
        case H2_SETTINGS_FRAME:
            c->frame_max = value;
            break;
        }
    }

    c->settled = 1;

    h2_frame(ack, 0, H2_SETTINGS, H2_ACK, 0);

    if (h2_write(c, ack, sizeof(ack))) {
        c->over = 1;
    }
}


/* the status, which is the first field: of the static table, or the name is
   and its value stands as it is */

static void
h2_status(h2_conn_t *c, unsigned flags, const unsigned char *p, size_t len)
{
    size_t                 skip;
    const unsigned char   *end;
    static const uint16_t  known[] = { 200, 204, 206, 304, 400, 404, 500 };

    end = p + len;
    skip = (flags & H2_PADDED ? 1 : 0) + (flags & H2_PRIORITY ? 5 : 0);
    p += skip < len ? skip : len;

    while (p < end && (*p & 0xe0) == 0x20) { /* a table size below 31 */
        p++;
    }

    if (p < end && *p >= 0x88 && *p <= 0x8e) {
        c->status = known[*p - 0x88];

    } else if (end - p >= 5 && (*p == 0x48 || *p == 0x08 || *p == 0x18)
               && p[1] == 3)
    {
        c->status = atoi((char[]) { p[2], p[3], p[4], '\0' });
    }

    if (c->status >= 200) {
        printf("HTTP/2 %d\n", c->status);
    }
}


static void
h2_handle(h2_conn_t *c, const unsigned char *head, size_t len)
{
    uint32_t              stream;
    unsigned              type, flags;
    const unsigned char  *p;
    unsigned char         pong[H2_FRAME_HEAD + 8];

    type = head[3];
    flags = head[4];
    stream = h2_uint32(head + 5) & 0x7fffffff;
    p = head + H2_FRAME_HEAD;

    switch (type) {

    case H2_SETTINGS:
        if (!(flags & H2_ACK)) {
            h2_settings(c, p, len);
        }
        break;

    case H2_WINDOW_UPDATE:
        *(stream ? &c->stream : &c->window) += h2_uint32(p) & 0x7fffffff;
        break;

    case H2_PING:
        if (!(flags & H2_ACK) && len == 8) {
            memcpy(h2_frame(pong, 8, H2_PING, H2_ACK, 0), p, 8);
            c->over |= h2_write(c, pong, sizeof(pong)) != 0;
        }
        break;

    case H2_HEADERS:
        if (c->status < 200) {
            h2_status(c, flags, p, len);
        }
        c->over |= flags & H2_END_STREAM;
        break;

    case H2_DATA:
        fwrite(p, 1, len, stdout);
        c->over |= flags & H2_END_STREAM;
        break;

    case H2_RST_STREAM:
    case H2_GOAWAY:
        fprintf(stderr, "%s, error %" PRIu32 "\n",
                type == H2_GOAWAY ? "GOAWAY" : "RST_STREAM",
                len >= 4 ? h2_uint32(p + (type == H2_GOAWAY ? 4 : 0)) : 0);
        c->over = 1;
        break;
    }
}


/* handles what has come; where nothing has, it waits if it is told to */

static void
h2_read(h2_conn_t *c, int wait)
{
    size_t   size;
    ssize_t  n;

    for ( ;; ) {
        n = c->conn.ssl
            ? SSL_read(c->conn.ssl, c->in + c->len, sizeof(c->in) - c->len)
            : recv(c->conn.fd, c->in + c->len, sizeof(c->in) - c->len, 0);

        if (n <= 0) {
            if (!h2_again(c, n, wait ? POLLIN : 0)) {
                c->over = 1;
                return;
            }

            if (!wait) {
                return;
            }

            continue;
        }

        c->len += n;

        while (c->len >= H2_FRAME_HEAD) {
            size = c->in[0] << 16 | c->in[1] << 8 | c->in[2];

            if (size > H2_FRAME_MAX) {
                c->over = 1;
                return;
            }

            if (c->len < H2_FRAME_HEAD + size) {
                break;
            }

            h2_handle(c, c->in, size);
            wait = 0;

            c->len -= H2_FRAME_HEAD + size;
            memmove(c->in, c->in + H2_FRAME_HEAD + size, c->len);
        }
    }
}


static int
h2_begin(const h2_conf_t *h, h2_conn_t *c)
{
    size_t                len;
    unsigned char        *p, *head;
    char                  length[24];
    static const char     preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /* nothing pushed, please: SETTINGS_ENABLE_PUSH */

    static const unsigned char  settings[] = { 0, 2, 0, 0, 0, 0 };

    p = (unsigned char *) mempcpy(c->out, preface, sizeof(preface) - 1);
    p = h2_frame(p, sizeof(settings), H2_SETTINGS, 0, 0);
    p = (unsigned char *) mempcpy(p, settings, sizeof(settings));

    head = p;
    snprintf(length, sizeof(length), "%" PRIu64, h->size);

    p += H2_FRAME_HEAD;
    p = h2_field(p, 2, ":method", "PUT");
    p = h2_field(p, 6, ":scheme", h->url.tls ? "https" : "http");
    p = h2_field(p, 1, ":authority", h->url.authority);
    p = h2_field(p, 4, ":path", h->url.path);
    p = h2_field(p, 28, "content-length", length);
    p = (unsigned char *) mempcpy(p, h->headers, h->nheaders);

    len = p - head - H2_FRAME_HEAD;
    if (len > H2_FRAME_MAX) {
        errno = 0;
        body_fail("too many headers");
    }

    h2_frame(head, len, H2_HEADERS,
             H2_END_HEADERS | (h->size ? 0 : H2_END_STREAM), 1);

    return h2_write(c, c->out, p - c->out);
}


/* frames as much of the body as the windows let through, and writes it */

static void
h2_send_some(const h2_conf_t *h, h2_conn_t *c)
{
    uint64_t        n, some, left;
    unsigned char  *p;

    left = h->size - c->sent;
    some = left < H2_BUF ? left : H2_BUF;
    some = (int64_t) some < c->window ? some : (uint64_t) c->window;
    some = (int64_t) some < c->stream ? some : (uint64_t) c->stream;

    c->window -= some;
    c->stream -= some;

    for (p = c->out; some > 0; some -= n) {
        n = some < h->frame ? some : h->frame;
        n = n < c->frame_max ? n : c->frame_max;

        p = h2_frame(p, n, H2_DATA,
                     c->sent + n == h->size ? H2_END_STREAM : 0, 1);
        pattern_fill(p, n, c->sent);

        p += n;
        c->sent += n;
        c->frames++;
    }

    if (h2_write(c, c->out, p - c->out)) {
        c->sent = h->size;           /* no more; there may be an answer */
    }
}


static void
h2_send_body(const h2_conf_t *h, h2_conn_t *c)
{
    double  from;

    from = body_clock();

    while (!c->over && c->status < 200 && c->sent < h->size) {

        if (c->window > 0 && c->stream > 0) {
            h2_send_some(h, c);
            h2_read(c, 0);
            continue;
        }

        c->shut++;
        h2_read(c, 1);
    }

    fprintf(stderr, "sent %" PRIu64 " bytes, %" PRIu64 " frames, %" PRIu64
            " waits for a window, %.3f s\n", c->sent, c->frames, c->shut,
            body_clock() - from);
}


static void
h2_usage(void)
{
    fprintf(stderr, "usage: body_h2 [--frame N] [--header 'A: b'] [--cacert F]"
            " http[s]://HOST:PORT/PATH BYTES\n");
    exit(2);
}


static void
h2_add_header(h2_conf_t *h, char *line)
{
    char           *p, *value;
    unsigned char  *end;

    value = strchr(line, ':');
    if (value == NULL) {
        h2_usage();
    }

    *value++ = '\0';
    value += strspn(value, " ");

    for (p = line; *p; p++) {
        *p = (char) (*p >= 'A' && *p <= 'Z' ? *p | 0x20 : *p);
    }

    h->headers = realloc(h->headers, h->nheaders + strlen(line) + strlen(value)
                                     + 16);
    if (h->headers == NULL) {
        body_fail("realloc");
    }

    end = h2_field(h->headers + h->nheaders, 0, line, value);
    h->nheaders = end - h->headers;
}


static void
h2_parse(h2_conf_t *h, int argc, char **argv)
{
    int  ch;

    static const struct option  options[] = {
        { "frame", 1, NULL, 'f' },
        { "header", 1, NULL, 'h' },
        { "cacert", 1, NULL, 'a' },
        { NULL, 0, NULL, 0 }
    };

    memset(h, 0, sizeof(h2_conf_t));
    h->frame = 16384;

    while ((ch = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (ch) {
        case 'f': h->frame = strtoull(optarg, NULL, 10); break;
        case 'a': h->cacert = optarg; break;
        case 'h': h2_add_header(h, optarg); break;
        default: h2_usage();
        }
    }

    if (optind + 2 != argc || h->frame == 0) {
        h2_usage();
    }

    h->size = strtoull(argv[optind + 1], NULL, 10);
    body_parse_url(&h->url, argv[optind]);
    h->url.http2 = 1;
}


int
main(int argc, char **argv)
{
    h2_conf_t         h;
    static h2_conn_t  c;

    h2_parse(&h, argc, argv);

    signal(SIGPIPE, SIG_IGN);

    c.window = c.stream = c.initial = H2_WINDOW;
    c.frame_max = 16384;
    c.out = malloc(H2_BUF + (H2_BUF / (h.frame < 16384 ? h.frame : 16384) + 2)
                            * H2_FRAME_HEAD + 2 * H2_FRAME_MAX + h.nheaders);
    if (c.out == NULL) {
        body_fail("malloc");
    }

    body_connect(&c.conn, &h.url, h.cacert);

    if (fcntl(c.conn.fd, F_SETFL, O_NONBLOCK) == -1) {
        body_fail("fcntl");
    }

    if (c.conn.ssl) {
        SSL_set_mode(c.conn.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE
                                 | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    }

    if (h2_begin(&h, &c)) {
        body_fail("the connection");
    }

    while (!c.over && !c.settled) {
        h2_read(&c, 1);
    }

    h2_send_body(&h, &c);

    while (!c.over) {
        h2_read(&c, 1);
    }

    printf("\n");

    return c.status >= 200 && c.status < 300 ? 0 : 1;
}
