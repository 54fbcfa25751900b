/*
 * body_sink [options] http[s]://HOST:PORT/PATH: a GET whose body is dropped, in
 * the kernel where nothing has to look at it.
 *
 *   --verify          the body is body_gen's pattern, from its start
 *   --limit-rate B    bytes a second
 *   --cacert F        authority that the server's certificate is held against,
 *                     else the system's
 *
 * The reply's head goes to stdout, what was received to stderr. Exit status: 0
 * where the reply is a 2xx and came whole, as its Content-Length or its last
 * chunk says; 1 otherwise, 2 where the command is wrong.
 */

#define _GNU_SOURCE

#include "body_conn.h"
#include "pattern.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>


#define SINK_BUF   131072
#define SINK_DROP  1048576           /* a read of what is not looked at */


typedef struct {
    body_url_t   url;
    const char  *cacert;
    uint64_t     rate;               /* 0: no limit */
    int          verify;
} sink_conf_t;


typedef struct {
    body_conn_t   conn;
    char          buf[SINK_BUF];
    size_t        len;
    int           status;
    int           verify;
    int           chunked;
    uint64_t      length;            /* UINT64_MAX: not announced */
    uint64_t      received;          /* of the body, framing not counted */
    uint64_t      left;              /* of the chunk */
    char          line[24];          /* of the framing, so far */
    size_t        line_len;
    unsigned      last:1;            /* the last chunk was announced */
    unsigned      whole:1;
    unsigned      foreign:1;         /* not the pattern */
} sink_t;


static void
sink_request(sink_t *s, const sink_conf_t *conf)
{
    int    n;
    char  *head;

    n = asprintf(&head, "GET %s HTTP/1.1\r\nHost: %s\r\n"
                 "Connection: close\r\n\r\n", conf->url.path,
                 conf->url.authority);

    if (n == -1 || body_write(&s->conn, head, n)) {
        body_fail("request");
    }

    free(head);
}


/* the head, behind which s->buf has the body's first bytes, which it returns */

static char *
sink_head(sink_t *s)
{
    char     *p, *end;
    ssize_t   n;

    do {
        n = body_read(&s->conn, s->buf + s->len, SINK_BUF - 1 - s->len);
        if (n <= 0) {
            errno = 0;
            body_fail("no reply");
        }

        s->len += n;
        s->buf[s->len] = '\0';
        end = strstr(s->buf, "\r\n\r\n");

    } while (end == NULL);

    printf("%.*s", (int) (end + 4 - s->buf), s->buf);
    end[2] = '\0';

    if (sscanf(s->buf, "HTTP/1.%*d %d", &s->status) != 1) {
        errno = 0;
        body_fail("not HTTP");
    }

    s->chunked = strcasestr(s->buf, "\r\ntransfer-encoding: chunked\r\n")
                 != NULL;
    s->length = UINT64_MAX;

    p = strcasestr(s->buf, "\r\ncontent-length:");
    if (p) {
        s->length = strtoull(p + sizeof("\r\ncontent-length:") - 1, NULL, 10);
    }

    return end + 4;
}


static void
sink_data(sink_t *s, const char *p, size_t len)
{
    if (s->verify
        && !pattern_check((const unsigned char *) p, len, s->received))
    {
        s->foreign = 1;
    }

    s->received += len;
}


static void
sink_chunked(sink_t *s, const char *p, size_t len)
{
    size_t  n;

    while (len > 0) {

        if (s->left) {
            n = len < s->left ? len : s->left;
            sink_data(s, p, n);
            s->left -= n;
            p += n;
            len -= n;
            continue;
        }

        len--;

        if (*p++ != '\n') {
            if (s->line_len < sizeof(s->line) - 1) {
                s->line[s->line_len++] = p[-1];
            }

            continue;
        }

        /* an empty line ends a chunk's data, or all */

        s->line[s->line_len] = '\0';

        if (s->line_len <= 1) {
            s->whole = s->last;

        } else if (!s->last) {
            s->left = strtoull(s->line, NULL, 16);
            s->last = s->left == 0;
        }

        s->line_len = 0;
    }
}


static void
sink_take(sink_t *s, const char *p, size_t len)
{
    if (s->chunked) {
        sink_chunked(s, p, len);
        return;
    }

    sink_data(s, p, len);
    s->whole = s->received == s->length;
}


static void
sink_body(sink_t *s, const sink_conf_t *conf)
{
    int      drop;
    double   from;
    ssize_t  n;

    drop = s->conn.ssl == NULL && !s->chunked && !s->verify;
    from = body_clock();

    while (!s->whole) {

        if (conf->rate) {
            body_pace(from, s->received, conf->rate);
        }

        if (drop) {
            n = recv(s->conn.fd, NULL, conf->rate ? SINK_BUF : SINK_DROP,
                     MSG_TRUNC);

        } else {
            n = body_read(&s->conn, s->buf, SINK_BUF);
        }

        if (n == -1 && drop && errno == EINTR) {
            continue;
        }

        if (n <= 0) {
            break;
        }

        sink_take(s, s->buf, n);
    }

    fprintf(stderr, "received %" PRIu64 " bytes, %.3f s%s%s\n", s->received,
            body_clock() - from, s->whole ? "" : ", cut",
            s->foreign ? ", not the pattern" : "");
}


static void
sink_usage(void)
{
    fprintf(stderr, "usage: body_sink [--verify] [--limit-rate B]"
            " [--cacert F] http[s]://HOST:PORT/PATH\n");
    exit(2);
}


static void
sink_parse(sink_conf_t *conf, int argc, char **argv)
{
    int  ch;

    static const struct option  options[] = {
        { "verify", 0, NULL, 'v' },
        { "limit-rate", 1, NULL, 'l' },
        { "cacert", 1, NULL, 'a' },
        { NULL, 0, NULL, 0 }
    };

    memset(conf, 0, sizeof(sink_conf_t));

    while ((ch = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (ch) {
        case 'v': conf->verify = 1; break;
        case 'l': conf->rate = strtoull(optarg, NULL, 10); break;
        case 'a': conf->cacert = optarg; break;
        default: sink_usage();
        }
    }

    if (optind + 1 != argc) {
        sink_usage();
    }

    body_parse_url(&conf->url, argv[optind]);
}


int
main(int argc, char **argv)
{
    char           *body;
    sink_conf_t     conf;
    static sink_t   s;

    sink_parse(&conf, argc, argv);

    signal(SIGPIPE, SIG_IGN);

    s.verify = conf.verify;

    body_connect(&s.conn, &conf.url, conf.cacert);
    sink_request(&s, &conf);

    body = sink_head(&s);
    sink_take(&s, body, s.buf + s.len - body);
    sink_body(&s, &conf);

    return s.status >= 200 && s.status < 300 && s.whole && !s.foreign ? 0 : 1;
}
