/*
 * body_gen [options] http[s]://HOST:PORT/PATH BYTES: sends so many bytes of
 * the pattern as one request over one HTTP/1.1 connection.
 *
 *   --chunk N          chunked coding, N bytes a chunk, else Content-Length
 *   --method M         PUT
 *   --header 'A: b'    may be repeated
 *   --limit-rate B     bytes a second
 *   --close-after N    closes after N bytes of the body; with chunked coding
 *                      the last chunk is not sent, even if N is all
 *   --reset-after N    the same, resetting the connection
 *   --rekey            over TLS 1.3, new keys with each MiB or less
 *   --cacert F         authority that the server's certificate is held
 *                      against, else the system's
 *
 * The reply's head and body go to stdout, what was sent to stderr. Exit
 * status: 0 where the reply is a 2xx, or where the body was cut as asked; 1
 * otherwise, 2 where the command is wrong.
 */

#define _GNU_SOURCE

#include "body_conn.h"
#include "pattern.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>


#define GEN_BUF        (1024 * 1024) /* a write, as long as there is no rate */
#define GEN_REPLY_MAX  (1024 * 1024)


typedef struct {
    body_url_t   url;
    const char  *method;
    const char  *cacert;
    char        *headers;            /* lines, malloc'ed */
    uint64_t     size;
    uint64_t     chunk;              /* 0: Content-Length */
    uint64_t     rate;               /* 0: no limit */
    uint64_t     cut;                /* size of what is sent */
    int          close;              /* the body is cut at `cut` */
    int          reset;
    int          rekey;
} gen_conf_t;


typedef struct {
    body_conn_t     conn;
    unsigned char  *buf;             /* framed bytes */
    size_t          alloc;
    size_t          len;
    uint64_t        sent;            /* of the body, framing not counted */
    uint64_t        chunks;
} gen_conn_t;


static int
gen_write_head(const gen_conf_t *g, gen_conn_t *c)
{
    int    n;
    char  *head;

    if (g->chunk) {
        n = asprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\n%s"
                     "Connection: close\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n",
                     g->method, g->url.path, g->url.authority, g->headers);

    } else {
        n = asprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\n%s"
                     "Connection: close\r\n"
                     "Content-Length: %" PRIu64 "\r\n\r\n",
                     g->method, g->url.path, g->url.authority, g->headers,
                     g->size);
    }

    if (n == -1) {
        body_fail("head");
    }

    n = body_write(&c->conn, head, n);
    free(head);

    return n;
}


/* frames the next bytes of the body, about GEN_BUF or less, into c->buf */

static void
gen_fill(const gen_conf_t *g, gen_conn_t *c, uint64_t max)
{
    uint64_t  n, left;

    c->len = 0;
    left = g->cut - c->sent;
    left = left < max ? left : max;

    if (g->chunk == 0) {
        pattern_fill(c->buf, left, c->sent);
        c->sent += left;
        c->len = left;
        return;
    }

    /* whole chunks, one at least */

    do {
        n = g->cut - c->sent;
        n = n < g->chunk ? n : g->chunk;

        c->len += pattern_chunk(c->buf + c->len, n, c->sent);
        c->sent += n;
        c->chunks++;
        left -= n < left ? n : left;

    } while (left >= g->chunk && c->sent < g->cut);
}


/* whether the server has already answered or gone; over TLS what comes may be
   session tickets, so there a failing write has to tell */

static int
gen_answered(gen_conn_t *c)
{
    struct pollfd  pfd;

    pfd.fd = c->conn.fd;
    pfd.events = POLLIN;

    return c->conn.ssl == NULL && poll(&pfd, 1, 0) > 0;
}


static void
gen_write_body(const gen_conf_t *g, gen_conn_t *c)
{
    double    from;
    uint64_t  max;

    c->alloc = (g->chunk > GEN_BUF ? g->chunk : GEN_BUF) * 2 + 4096;

    /* chunks of a few bytes are mostly framing */

    if (g->chunk && g->chunk < 64) {
        c->alloc *= 8;
    }

    c->buf = malloc(c->alloc);
    if (c->buf == NULL) {
        body_fail("malloc");
    }

    max = GEN_BUF;

    if (g->rate && g->rate / 20 < max) {
        max = g->rate / 20 ? g->rate / 20 : 1;
    }

    from = body_clock();

    while (c->sent < g->cut) {

        gen_fill(g, c, max);

        if (body_write(&c->conn, c->buf, c->len) || gen_answered(c)) {
            break;
        }

        /* the next bytes are preceded by it */

        if (g->rekey && c->conn.ssl
            && !SSL_key_update(c->conn.ssl, SSL_KEY_UPDATE_REQUESTED))
        {
            body_fail("SSL_key_update");
        }

        if (g->rate) {
            body_pace(from, c->sent, g->rate);
        }
    }

    if (g->chunk && !g->close && c->sent == g->size) {
        (void) body_write(&c->conn, "0\r\n\r\n", 5);
    }

    fprintf(stderr, "sent %" PRIu64 " bytes, %" PRIu64 " chunks, %.3f s\n",
            c->sent, c->chunks, body_clock() - from);
}


static char *
gen_read_all(gen_conn_t *c)
{
    char    *reply;
    size_t   len;
    ssize_t  n;

    reply = malloc(GEN_REPLY_MAX + 1);
    if (reply == NULL) {
        body_fail("malloc");
    }

    for (len = 0; len < GEN_REPLY_MAX; len += n) {
        n = body_read(&c->conn, reply + len, GEN_REPLY_MAX - len);
        if (n <= 0) {
            break;
        }
    }

    reply[len] = '\0';

    return reply;
}


static void
gen_print_chunked(const char *p)
{
    char           *end;
    unsigned long   n;

    for ( ;; ) {
        n = strtoul(p, &end, 16);
        p = strstr(end, "\r\n");

        if (n == 0 || p == NULL || strlen(p + 2) < n) {
            return;
        }

        printf("%.*s", (int) n, p + 2);
        p += 2 + n + 2;
    }
}


/* the final reply; returns its status, 0: none */

static int
gen_reply(gen_conn_t *c)
{
    int    status;
    char  *reply, *p, *body;

    reply = gen_read_all(c);
    status = 0;

    for (p = reply; ; p = body + 4) {
        body = strstr(p, "\r\n\r\n");

        if (body == NULL || sscanf(p, "HTTP/1.%*d %d", &status) != 1) {
            fprintf(stderr, "body_gen: no reply\n");
            free(reply);
            return 0;
        }

        if (status >= 200) {
            break;
        }
    }

    printf("%.*s", (int) (body + 4 - p), p);
    body[2] = '\0';

    if (strcasestr(p, "\r\ntransfer-encoding: chunked\r\n")) {
        gen_print_chunked(body + 4);

    } else {
        fputs(body + 4, stdout);
    }

    free(reply);

    return status;
}


/* until the peer's kernel has all: a reset drops what is still here */

static void
gen_drain(gen_conn_t *c)
{
    int  left;

    while (ioctl(c->conn.fd, SIOCOUTQ, &left) == 0 && left > 0) {
        usleep(1000);
    }
}


static void
gen_usage(void)
{
    fprintf(stderr, "usage: body_gen [--chunk N] [--method M]"
            " [--header 'A: b'] [--limit-rate B]\n"
            "  [--close-after N | --reset-after N] [--rekey] [--cacert F]"
            " http[s]://HOST:PORT/PATH BYTES\n");
    exit(2);
}


static void
gen_parse(gen_conf_t *g, int argc, char **argv)
{
    int    ch;
    char  *old;

    static const struct option  options[] = {
        { "chunk", 1, NULL, 'k' },
        { "method", 1, NULL, 'm' },
        { "header", 1, NULL, 'h' },
        { "limit-rate", 1, NULL, 'l' },
        { "close-after", 1, NULL, 'c' },
        { "reset-after", 1, NULL, 'r' },
        { "rekey", 0, NULL, 'y' },
        { "cacert", 1, NULL, 'a' },
        { NULL, 0, NULL, 0 }
    };

    memset(g, 0, sizeof(gen_conf_t));
    g->method = "PUT";
    g->headers = strdup("");

    while ((ch = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (ch) {
        case 'k': g->chunk = strtoull(optarg, NULL, 10); break;
        case 'm': g->method = optarg; break;
        case 'l': g->rate = strtoull(optarg, NULL, 10); break;
        case 'y': g->rekey = 1; break;
        case 'a': g->cacert = optarg; break;
        case 'h':
            old = g->headers;
            if (asprintf(&g->headers, "%s%s\r\n", old, optarg) == -1) {
                body_fail("header");
            }
            free(old);
            break;
        case 'r': g->reset = 1; /* fall through */
        case 'c':
            g->close = 1;
            g->cut = strtoull(optarg, NULL, 10);
            break;
        default: gen_usage();
        }
    }

    if (optind + 2 != argc) {
        gen_usage();
    }

    g->size = strtoull(argv[optind + 1], NULL, 10);

    if (!g->close || g->cut > g->size) {
        g->cut = g->size;
    }

    body_parse_url(&g->url, argv[optind]);
}


int
main(int argc, char **argv)
{
    int            status;
    gen_conf_t     g;
    gen_conn_t     c;
    struct linger  l = { 1, 0 };

    gen_parse(&g, argc, argv);

    signal(SIGPIPE, SIG_IGN);

    memset(&c, 0, sizeof(c));
    body_connect(&c.conn, &g.url, g.cacert);

    if (gen_write_head(&g, &c) == 0) {
        gen_write_body(&g, &c);
    }

    if (g.close && c.sent == g.cut) {

        if (g.reset) {
            gen_drain(&c);
            setsockopt(c.conn.fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
        }

        close(c.conn.fd);
        return 0;
    }

    status = gen_reply(&c);

    return status >= 200 && status < 300 ? 0 : 1;
}
