/*
 * body_load [options] http://HOST:PORT/PATH BYTES: PUTs so many bytes of the
 * pattern to PATH0, PATH1 and so on, over kept connections, each with one
 * request at a time.
 *
 *   --connections N    64
 *   --requests N       10000, of all connections
 *   --seconds S        60: no request begins later
 *
 * One line of what came of it goes to stdout: "requests R failed F seconds S
 * rate R/s p50 P p99 P max M", latencies in milliseconds from the first byte
 * that was written to the last that was read. What is not answered by a 2xx
 * has failed; an answer without a length, or with a coding, is none. A
 * connection that is closed is opened anew. Exit status: 0 where all
 * requests were answered and none has failed.
 */

#define _GNU_SOURCE

#include "body_conn.h"
#include "pattern.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>


#define LOAD_HEAD    1024
#define LOAD_REPLY   16384          /* an answer, head and body */
#define LOAD_EVENTS  64
#define LOAD_GRACE   10             /* s, for what was begun in time */


typedef struct {
    body_conn_t  conn;
    double       began;
    char         head[LOAD_HEAD];
    size_t       head_len;
    size_t       sent;               /* of head and body */
    char         reply[LOAD_REPLY + 1];
    size_t       got;
    size_t       expected;           /* of the reply; 0: not known yet */
    int          status;
    int          busy;
} load_conn_t;


typedef struct {
    body_url_t      url;
    size_t          size;
    unsigned        nconns;
    uint64_t        requests;
    double          seconds;
    unsigned char  *body;
    int             ep;
    load_conn_t    *conns;
    double         *latencies;       /* ms, of those that were answered */
    uint64_t        begun;
    uint64_t        answered;
    uint64_t        failed;
    double          from;
} load_t;


static void load_begin(load_t *l, load_conn_t *c);


static void
load_open(load_t *l, load_conn_t *c)
{
    struct epoll_event  ev;

    body_connect(&c->conn, &l->url, NULL);

    if (fcntl(c->conn.fd, F_SETFL, O_NONBLOCK) == -1) {
        body_fail("fcntl");
    }

    ev.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    ev.data.ptr = c;

    if (epoll_ctl(l->ep, EPOLL_CTL_ADD, c->conn.fd, &ev) == -1) {
        body_fail("epoll_ctl");
    }
}


/* the request of the connection is over, and so is the connection if told */

static void
load_end(load_t *l, load_conn_t *c, int good, int closed)
{
    if (c->busy && good) {
        l->latencies[l->answered++] = (body_clock() - c->began) * 1000;
    }

    l->failed += (c->busy && !good);
    c->busy = 0;

    if (closed) {
        close(c->conn.fd);
        load_open(l, c);
    }

    load_begin(l, c);
}


/* 0: more is to be written, or read first; -1: the connection broke */

static int
load_write(load_t *l, load_conn_t *c)
{
    int            n;
    size_t         skip;
    ssize_t        size;
    struct iovec   iov[2];
    struct msghdr  msg;

    while (c->sent < c->head_len + l->size) {
        n = 0;

        if (c->sent < c->head_len) {
            iov[n].iov_base = c->head + c->sent;
            iov[n++].iov_len = c->head_len - c->sent;
        }

        skip = c->sent < c->head_len ? 0 : c->sent - c->head_len;
        iov[n].iov_base = l->body + skip;
        iov[n++].iov_len = l->size - skip;

        memset(&msg, 0, sizeof(msg));
        msg.msg_iov = iov;
        msg.msg_iovlen = n;

        size = sendmsg(c->conn.fd, &msg, MSG_NOSIGNAL);

        if (size == -1) {
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        }

        c->sent += size;
    }

    return 0;
}


static void
load_begin(load_t *l, load_conn_t *c)
{
    double  now;

    now = body_clock();

    if (l->begun == l->requests || now - l->from > l->seconds) {
        return;
    }

    c->head_len = snprintf(c->head, LOAD_HEAD, "PUT %s%" PRIu64 " HTTP/1.1\r\n"
                           "Host: %s\r\nContent-Length: %zu\r\n\r\n",
                           l->url.path, l->begun++, l->url.authority, l->size);
    c->sent = 0;
    c->got = 0;
    c->expected = 0;
    c->busy = 1;
    c->began = now;

    /* a broken connection is an event of its own */

    (void) load_write(l, c);
}


/* whether the head of the answer is there and can be understood */

static int
load_head(load_conn_t *c)
{
    char  *end, *p;

    c->reply[c->got] = '\0';

    end = strstr(c->reply, "\r\n\r\n");
    if (end == NULL) {
        return 0;
    }

    *end = '\0';
    p = strcasestr(c->reply, "\r\ncontent-length:");

    if (p == NULL || sscanf(c->reply, "HTTP/1.1 %d", &c->status) != 1) {
        return -1;
    }

    c->expected = end + 4 - c->reply + strtoul(p + 17, NULL, 10);

    return c->expected <= LOAD_REPLY ? 1 : -1;
}


static void
load_read(load_t *l, load_conn_t *c)
{
    ssize_t  n;

    n = recv(c->conn.fd, c->reply + c->got, LOAD_REPLY - c->got, 0);

    if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }

    /* what comes unasked belongs to nothing */

    if (n <= 0 || !c->busy) {
        load_end(l, c, 0, 1);
        return;
    }

    c->got += n;

    if ((c->expected == 0 && load_head(c) < 0) || c->got == LOAD_REPLY) {
        load_end(l, c, 0, 1);
        return;
    }

    if (c->expected && c->got >= c->expected) {
        load_end(l, c, c->status / 100 == 2
                       && c->sent == c->head_len + l->size,
                 c->got > c->expected || c->sent < c->head_len + l->size);
    }
}


static void
load_run(load_t *l)
{
    int                  i, n;
    unsigned             k;
    load_conn_t         *c;
    struct epoll_event   events[LOAD_EVENTS];

    for (k = 0; k < l->nconns; k++) {
        load_open(l, &l->conns[k]);
    }

    l->from = body_clock();

    for (k = 0; k < l->nconns; k++) {
        load_begin(l, &l->conns[k]);
    }

    while (l->answered + l->failed < l->begun
           && body_clock() - l->from < l->seconds + LOAD_GRACE)
    {
        n = epoll_wait(l->ep, events, LOAD_EVENTS, 1000);

        for (i = 0; i < n; i++) {
            c = events[i].data.ptr;

            if (c->busy && c->sent < c->head_len + l->size
                && load_write(l, c))
            {
                load_end(l, c, 0, 1);
                continue;
            }

            if (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP
                                    | EPOLLERR))
            {
                load_read(l, c);
            }
        }
    }
}


static int
load_compare(const void *one, const void *two)
{
    double  a, b;

    a = *(const double *) one;
    b = *(const double *) two;

    return (a > b) - (a < b);
}


static int
load_report(load_t *l, double seconds)
{
    uint64_t  n;

    n = l->answered;
    l->failed += l->begun - l->answered - l->failed;

    if (n == 0) {
        fprintf(stderr, "body_load: no request was answered\n");
        return 1;
    }

    qsort(l->latencies, n, sizeof(double), load_compare);

    printf("requests %" PRIu64 " failed %" PRIu64 " seconds %.3f rate %.1f/s "
           "p50 %.3f p99 %.3f max %.3f\n", n, l->failed, seconds, n / seconds,
           l->latencies[n / 2], l->latencies[n * 99 / 100],
           l->latencies[n - 1]);

    return l->failed || l->begun < l->requests;
}


static void
load_usage(void)
{
    fprintf(stderr, "usage: body_load [--connections N] [--requests N]"
            " [--seconds S] http://HOST:PORT/PATH BYTES\n");
    exit(2);
}


static void
load_parse(load_t *l, int argc, char **argv)
{
    int  ch;

    static const struct option  options[] = {
        { "connections", 1, NULL, 'c' },
        { "requests", 1, NULL, 'n' },
        { "seconds", 1, NULL, 's' },
        { NULL, 0, NULL, 0 }
    };

    while ((ch = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (ch) {
        case 'c': l->nconns = strtoul(optarg, NULL, 10); break;
        case 'n': l->requests = strtoull(optarg, NULL, 10); break;
        case 's': l->seconds = atof(optarg); break;
        default: load_usage();
        }
    }

    if (argc - optind != 2 || l->nconns == 0 || l->requests == 0) {
        load_usage();
    }

    body_parse_url(&l->url, argv[optind]);
    l->size = strtoull(argv[optind + 1], NULL, 10);

    if (l->url.tls || strlen(l->url.path) > LOAD_HEAD / 2) {
        errno = 0;
        body_fail("http:// and a short path, please");
    }
}


int
main(int argc, char **argv)
{
    load_t  l = { .nconns = 64, .requests = 10000, .seconds = 60 };

    load_parse(&l, argc, argv);

    signal(SIGPIPE, SIG_IGN);

    l.ep = epoll_create1(0);
    l.body = malloc(l.size + 1);
    l.conns = calloc(l.nconns, sizeof(load_conn_t));
    l.latencies = malloc(l.requests * sizeof(double));

    if (l.ep == -1 || l.body == NULL || l.conns == NULL
        || l.latencies == NULL)
    {
        body_fail("no memory");
    }

    pattern_fill(l.body, l.size, 0);

    load_run(&l);

    return load_report(&l, body_clock() - l.from);
}
