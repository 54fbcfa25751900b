/*
 * body_crowd [options] http://HOST:PORT/PATH BYTES UPLOADS: so many uploads of
 * so many bytes of the pattern each, to PATH0, PATH1 and so on, many at a time
 * from one thread.
 *
 *   --connections N    at a time (all of them); each upload has one of its own
 *   --stall-after B    each says nothing more after B bytes, until the program
 *                      is ended; "stalled" goes to stdout once all of them are
 *
 * What came of them goes to stdout: "201: N" and so on for each status (0: no
 * answer), and the seconds from the first connection to the last answer. Exit
 * status: 0 where all were 200 or 201; 1 otherwise, 2 where the command is wrong.
 */

#define _GNU_SOURCE

#include "body_conn.h"
#include "pattern.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>


#define CROWD_PIECE   (256 * 1024)           /* a write */
#define CROWD_SHARED  (64 * 1024 * 1024)     /* made once, sent by all */
#define CROWD_HEAD    1024

/* What a server does not read yet fills both ends' buffers, and of loopback
   both are the same kernel's: a thousand that grow to megabytes go beyond its
   tcp_mem, where it begins to drop segments, and each
   loss costs seconds. */

#define CROWD_SNDBUF  (128 * 1024)


typedef struct {
    body_url_t       url;
    struct addrinfo *address;
    unsigned char   *pattern;        /* its first bytes, or room for a piece */
    uint64_t         size;
    uint64_t         cut;            /* what is sent of it */
    unsigned         whole:1;        /* pattern has all of size */
    long             uploads;
    long             connections;
    long             begun;
    long             open;
    long             stalled;
    long             statuses[600];
    int              epoll;
} crowd_t;


typedef struct {
    int              fd;
    char             head[CROWD_HEAD];
    size_t           head_len;
    size_t           head_sent;
    uint64_t         sent;
    char             reply[16];      /* "HTTP/1.1 201" */
    size_t           reply_len;
} crowd_conn_t;


static void
crowd_watch(crowd_t *g, crowd_conn_t *c, int op, uint32_t events)
{
    struct epoll_event  ee;

    ee.events = events;
    ee.data.ptr = c;

    if (epoll_ctl(g->epoll, op, c->fd, &ee) == -1) {
        body_fail("epoll_ctl");
    }
}


static void
crowd_begin(crowd_t *g)
{
    int            n, size;
    crowd_conn_t  *c;

    c = calloc(1, sizeof(crowd_conn_t));
    if (c == NULL) {
        body_fail("calloc");
    }

    n = snprintf(c->head, CROWD_HEAD, "PUT %s%ld HTTP/1.1\r\nHost: %s\r\n"
                 "Connection: close\r\nContent-Length: %" PRIu64 "\r\n\r\n",
                 g->url.path, g->begun, g->url.authority, g->size);

    if (n < 0 || n >= CROWD_HEAD) {
        errno = 0;
        body_fail("the URL is too long");
    }

    c->head_len = n;

    c->fd = socket(g->address->ai_family, SOCK_STREAM|SOCK_CLOEXEC, 0);

    size = CROWD_SNDBUF;

    if (c->fd == -1
        || setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(int)) == -1
        || connect(c->fd, g->address->ai_addr, g->address->ai_addrlen) == -1
        || fcntl(c->fd, F_SETFL, O_NONBLOCK) == -1)
    {
        body_fail("connect");
    }

    crowd_watch(g, c, EPOLL_CTL_ADD, EPOLLIN|EPOLLOUT);

    g->begun++;
    g->open++;
}


static void
crowd_end(crowd_t *g, crowd_conn_t *c)
{
    int  status;

    if (sscanf(c->reply, "HTTP/1.1 %3d", &status) != 1
        || status < 100 || status > 599)
    {
        status = 0;
    }

    g->statuses[status]++;
    g->open--;

    close(c->fd);
    free(c);
}


/* 1: the upload is over */

static int
crowd_read(crowd_conn_t *c)
{
    char     buf[4096];
    size_t   room;
    ssize_t  n;

    for ( ;; ) {
        n = recv(c->fd, buf, sizeof(buf), 0);

        if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
            return 0;
        }

        if (n <= 0) {
            return 1;
        }

        room = sizeof(c->reply) - 1 - c->reply_len;
        room = (size_t) n < room ? (size_t) n : room;

        memcpy(c->reply + c->reply_len, buf, room);
        c->reply_len += room;
    }
}


/* the next bytes, head or body; 0: all are sent */

static size_t
crowd_next(crowd_t *g, crowd_conn_t *c, const void **p)
{
    uint64_t  left;

    if (c->head_sent < c->head_len) {
        *p = c->head + c->head_sent;
        return c->head_len - c->head_sent;
    }

    left = g->cut - c->sent;
    left = left < CROWD_PIECE ? left : CROWD_PIECE;

    if (g->whole) {
        *p = g->pattern + c->sent;

    } else {
        pattern_fill(g->pattern, left, c->sent);
        *p = g->pattern;
    }

    return left;
}


/* a piece a turn, so that all have theirs */

static void
crowd_write(crowd_t *g, crowd_conn_t *c)
{
    size_t       len;
    ssize_t      n;
    const void  *p;

    len = crowd_next(g, c, &p);

    if (len) {
        n = send(c->fd, p, len, MSG_NOSIGNAL);

        if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }

        if (n == -1) {

            /* the answer, if there is one, is read */

            crowd_watch(g, c, EPOLL_CTL_MOD, EPOLLIN);
            return;
        }

        if (c->head_sent < c->head_len) {
            c->head_sent += n;
            return;
        }

        c->sent += n;
    }

    if (c->sent == g->cut) {
        crowd_watch(g, c, EPOLL_CTL_MOD, EPOLLIN);

        if (g->cut < g->size && ++g->stalled == g->connections) {
            printf("stalled\n");
            fflush(stdout);
        }
    }
}


static void
crowd_run(crowd_t *g)
{
    int                  i, n;
    crowd_conn_t        *c;
    struct epoll_event   events[256];

    while (g->begun < g->uploads || g->open) {

        while (g->begun < g->uploads && g->open < g->connections) {
            crowd_begin(g);
        }

        n = epoll_wait(g->epoll, events, 256, -1);

        if (n == -1 && errno != EINTR) {
            body_fail("epoll_wait");
        }

        for (i = 0; i < n; i++) {
            c = events[i].data.ptr;

            if ((events[i].events & ~(uint32_t) EPOLLOUT) && crowd_read(c)) {
                crowd_end(g, c);
                continue;
            }

            if (events[i].events & EPOLLOUT) {
                crowd_write(g, c);
            }
        }
    }
}


static void
crowd_prepare(crowd_t *g)
{
    int              rc;
    uint64_t         n;
    struct addrinfo  hints;

    memset(&hints, 0, sizeof(hints));
    hints.ai_socktype = SOCK_STREAM;

    rc = getaddrinfo(g->url.host, g->url.port, &hints, &g->address);

    if (rc != 0 || g->url.tls) {
        errno = 0;
        body_fail(rc ? gai_strerror(rc) : "no TLS here");
    }

    g->whole = g->size <= CROWD_SHARED;
    n = g->whole ? g->size : CROWD_PIECE;

    g->pattern = malloc(n + 1);
    g->epoll = epoll_create1(EPOLL_CLOEXEC);

    if (g->pattern == NULL || g->epoll == -1) {
        body_fail("start");
    }

    pattern_fill(g->pattern, n, 0);
}


static void
crowd_usage(void)
{
    fprintf(stderr, "usage: body_crowd [--connections N] [--stall-after B]"
            " http://HOST:PORT/PATH BYTES UPLOADS\n");
    exit(2);
}


static void
crowd_parse(crowd_t *g, int argc, char **argv)
{
    int  ch;

    static const struct option  options[] = {
        { "connections", 1, NULL, 'n' },
        { "stall-after", 1, NULL, 's' },
        { NULL, 0, NULL, 0 }
    };

    memset(g, 0, sizeof(crowd_t));
    g->cut = UINT64_MAX;

    while ((ch = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (ch) {
        case 'n': g->connections = atol(optarg); break;
        case 's': g->cut = strtoull(optarg, NULL, 10); break;
        default: crowd_usage();
        }
    }

    if (optind + 3 != argc) {
        crowd_usage();
    }

    g->size = strtoull(argv[optind + 1], NULL, 10);
    g->uploads = atol(argv[optind + 2]);

    if (g->connections <= 0 || g->connections > g->uploads) {
        g->connections = g->uploads;
    }

    if (g->cut > g->size) {
        g->cut = g->size;
    }

    body_parse_url(&g->url, argv[optind]);
}


int
main(int argc, char **argv)
{
    int      i;
    double   from;
    crowd_t  g;

    crowd_parse(&g, argc, argv);
    crowd_prepare(&g);

    signal(SIGPIPE, SIG_IGN);

    from = body_clock();
    crowd_run(&g);
    from = body_clock() - from;

    for (i = 0; i < 600; i++) {
        if (g.statuses[i]) {
            printf("%d: %ld\n", i, g.statuses[i]);
        }
    }

    printf("%.3f s\n", from);

    return g.statuses[200] + g.statuses[201] == g.uploads ? 0 : 1;
}
