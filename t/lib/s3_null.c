/*
 * s3_null [options]: an S3 that keeps no object bytes, a DynamoDB of one
 * condition, and an origin of bodies of any length, on 127.0.0.1, for
 * benchmarks and tests.
 *
 *   --port N, --tls-port N     0: any free one; the default is one plain port.
 *                              "port N" and "tls-port N" go to stdout
 *   --cert F, --key F          of the TLS port
 *   --port-file F              the same lines, once both ports listen
 *
 * Checks, off by default. What fails them is refused and counted as "bad".
 *   --crc32    x-amz-checksum-crc32 of each part and object, and of the whole
 *              object at Complete, FULL_OBJECT: 400 BadDigest where it is
 *              wrong, 400 InvalidRequest where it is missing
 *   --sha256   x-amz-content-sha256 where it is a digest
 *   --verify   bodies are body_gen's pattern, and the parts tile it
 *
 * --chunked takes parts and objects in the chunked coding, which S3 does not.
 *
 * Speed: --rate B (bytes a second a connection), --latency MS (each answer).
 *
 * Faults, each Nth:
 *   --every N             of all requests, none of which is carried out, in
 *                         turn: 500, the body not read, then close · reset in
 *                         the middle of it · 400 RequestTimeout, then close ·
 *                         503 SlowDown · closed without an answer
 *   --slowdown N          part or object: 503 SlowDown after its body
 *   --reset N             connection reset in the middle of its body
 *   --hang N              body read, no answer, for ten minutes
 *   --early N             500 InternalError, the body not read, then close
 *   --complete-error N    Complete: 200 with an <Error> document
 *   --complete-lost N     Complete carried out, no answer, then close
 *   --complete-space MS   each Complete: 200 and white space for so long first
 *   --stall MS            each body of which no byte came for so long: 400
 *                         RequestTimeout, then close, as S3 does after 20 s
 *   --idle-close N        close after each Nth request of a connection, not
 *                         announced
 *   --throttle N          DynamoDB: ProvisionedThroughputExceededException
 *
 * --rekey B: on the TLS port, a connection that has sent so many bytes more is
 * asked for new keys, or up to TLS 1.2 for another handshake; those that it
 * came up with are counted as "rekeyed".
 *
 * Other than S3 itself it looks at no signature, takes any bucket as existing
 * and addressed by path, gives ETags that are not MD5s, answers NoSuchUpload
 * to a second Complete, lists uploads on one page, and has no GET of objects.
 *
 * GET /__body/BYTES is the null origin: see s3_null_origin.c. GET /__stats
 * answers counts as JSON. Nothing is logged.
 */

#define _GNU_SOURCE

#include "s3_null.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>


typedef struct {
    int  fd;
    int  tls;
} null_listener_t;


typedef struct {
    int          port;               /* -1: none, 0: any */
    int          tls_port;
    const char  *cert;
    const char  *key;
    const char  *file;
} null_start_t;



null_options_t   null_options;
null_counters_t  null_counters;
pthread_mutex_t  null_lock = PTHREAD_MUTEX_INITIALIZER;

static SSL_CTX  *null_ssl_ctx;

static const struct {
    const char  *name;
    long        *value;
} null_numbers[] = {
    { "rate", &null_options.rate },
    { "latency", &null_options.latency },
    { "every", &null_options.every },
    { "slowdown", &null_options.slowdown },
    { "reset", &null_options.reset },
    { "hang", &null_options.hang },
    { "early", &null_options.early },
    { "complete-error", &null_options.complete_error },
    { "complete-lost", &null_options.complete_lost },
    { "complete-space", &null_options.complete_space },
    { "stall", &null_options.stall },
    { "idle-close", &null_options.idle_close },
    { "throttle", &null_options.throttle },
    { "rekey", &null_options.rekey }
};

#define NULL_NUMBERS                                                         \
    ((int) (sizeof(null_numbers) / sizeof(null_numbers[0])))


/* connections */

void
null_sleep(long ms)
{
    struct timespec  ts;

    ts.tv_sec = ms / 1000;
    ts.tv_nsec = ms % 1000 * 1000000;

    while (nanosleep(&ts, &ts) == -1 && errno == EINTR) { /* void */ }
}


double
null_clock(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec + ts.tv_nsec / 1e9;
}


void
null_pace(double from, uint64_t size, long rate)
{
    double  ahead;

    ahead = (double) size / rate - (null_clock() - from);

    if (ahead >= 0.001) {
        null_sleep((long) (ahead * 1000));
    }
}


static void
null_rekey(null_conn_t *c, ssize_t n)
{
    uint64_t  times;

    times = c->received / null_options.rekey;
    c->received += n;

    if (c->received / null_options.rekey == times) {
        return;
    }

    if (SSL_renegotiate_pending(c->ssl)) {
        return;
    }

    if (SSL_version(c->ssl) < TLS1_3_VERSION) {
        SSL_renegotiate(c->ssl);

    } else {
        SSL_key_update(c->ssl, SSL_KEY_UPDATE_REQUESTED);
    }

    SSL_do_handshake(c->ssl);
}


static void
null_rekeyed(int write, int version, int type, const void *p, size_t len,
    SSL *ssl, void *arg)
{
    const unsigned char  *message;

    (void) version;
    (void) arg;

    message = p;

    if (!write && len && type == SSL3_RT_HANDSHAKE
        && (message[0] == SSL3_MT_KEY_UPDATE
            || (message[0] == SSL3_MT_FINISHED
                && SSL_num_renegotiations(ssl) > 0)))
    {
        null_counters.rekeyed++;
    }
}


ssize_t
null_recv(null_conn_t *c, void *p, size_t len)
{
    ssize_t  n;

    if (c->ssl) {
        n = SSL_read(c->ssl, p, len);

        if (n > 0 && null_options.rekey) {
            null_rekey(c, n);
        }

        return n;
    }

    do {
        n = recv(c->fd, p, len, 0);
    } while (n == -1 && errno == EINTR);

    return n;
}


/* how long null_recv() waits for a byte; 0: for ever */

void
null_patience(null_conn_t *c, long ms)
{
    struct timeval  tv;

    tv.tv_sec = ms / 1000;
    tv.tv_usec = ms % 1000 * 1000;

    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
}


/* whether null_recv(), which returned n, has lost its patience */

int
null_impatient(null_conn_t *c, ssize_t n)
{
    return n < 0 && null_options.stall
           && (c->ssl ? SSL_get_error(c->ssl, n) == SSL_ERROR_WANT_READ
                      : errno == EAGAIN);
}


int
null_write(null_conn_t *c, const void *data, size_t len)
{
    ssize_t      n;
    const char  *p;

    for (p = data; len > 0; p += n, len -= n) {
        n = c->ssl ? SSL_write(c->ssl, p, len)
                   : send(c->fd, p, len, MSG_NOSIGNAL);
        if (n <= 0) {
            return -1;
        }
    }

    return 0;
}


/* more bytes after those that are unread */

int
null_fill(null_conn_t *c)
{
    ssize_t  n;

    if (c->pos == c->last) {
        c->pos = c->last = 0;

    } else if (c->last == NULL_BUF) {
        memmove(c->buf, c->buf + c->pos, c->last - c->pos);
        c->last -= c->pos;
        c->pos = 0;
    }

    if (c->last == NULL_BUF) {
        return -1;
    }

    n = null_recv(c, c->buf + c->last, NULL_BUF - c->last);
    if (n <= 0) {
        return -1;
    }

    c->last += n;

    return 0;
}


void
null_linger(null_conn_t *c, int ms)
{
    struct pollfd  pfd;

    pfd.fd = c->fd;
    pfd.events = POLLRDHUP;

    poll(&pfd, 1, ms);
}


void
null_reset(null_conn_t *c)
{
    struct linger  l;

    l.l_onoff = 1;
    l.l_linger = 0;

    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}


int
null_fault(atomic_ulong *sequence, long n)
{
    unsigned long  i;

    i = ++*sequence;

    if (n == 0 || i % n != 0) {
        return 0;
    }

    null_counters.faults++;

    return 1;
}


void
null_peak(atomic_ulong *peak, unsigned long now)
{
    unsigned long  old;

    old = *peak;

    while (old < now && !atomic_compare_exchange_weak(peak, &old, now)) {
        /* void */
    }
}


/* answers */

int
null_reply(null_conn_t *c, int status, const char *fields, const char *body,
    size_t len)
{
    int                  n;
    char                 buf[4096];
    static atomic_ulong  id;

    if (null_options.latency) {
        null_sleep(null_options.latency);
    }

    n = snprintf(buf, sizeof(buf), "HTTP/1.1 %d %s\r\n"
                 "Server: s3_null\r\n"
                 "x-amz-request-id: %016lX\r\n"
                 "%s%s", status, status < 300 ? "OK" : "Refused", ++id,
                 c->close ? "Connection: close\r\n" : "", fields);

    if (status != 204 && len != NULL_NO_LENGTH && n < (int) sizeof(buf)) {
        n += snprintf(buf + n, sizeof(buf) - n, "Content-Length: %zu\r\n",
                      len);
    }

    if (n + 2 > (int) sizeof(buf)) {
        return -1;
    }

    n += sprintf(buf + n, "\r\n");

    /* one segment where it fits */

    if (len && len <= sizeof(buf) - n && body) {
        memcpy(buf + n, body, len);
        n += len;
        len = 0;
    }

    if (null_write(c, buf, n)) {
        return -1;
    }

    return len && body ? null_write(c, body, len) : 0;
}


int
null_error(null_conn_t *c, int status, const char *code, const char *message)
{
    int   n;
    char  buf[1024];

    n = snprintf(buf, sizeof(buf),
                 "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                 "<Error><Code>%s</Code><Message>%s</Message>"
                 "<RequestId>0</RequestId></Error>", code, message);

    return null_reply(c, status, "Content-Type: application/xml\r\n", buf, n);
}


static int
null_stats(null_conn_t *c)
{
    int   n;
    char  buf[2048];

    n = 0;

#define X(name)                                                              \
    n += snprintf(buf + n, sizeof(buf) - n, "%c\"" #name "\":%lu",           \
                  n ? ',' : '{', (unsigned long) null_counters.name);
    NULL_COUNTERS(X)
#undef X

    n += snprintf(buf + n, sizeof(buf) - n, "}\n");

    return null_reply(c, 200, "Content-Type: application/json\r\n", buf, n);
}


/* requests */

static int
null_request(null_conn_t *c)
{
    int          rc;
    null_req_t   r;
    const char  *value;

    if (null_read_head(c, &r)) {
        return -1;
    }

    if (null_field(&r, "transfer-encoding") && !null_options.chunked) {
        null_counters.other++;
        c->close = 1;
        null_error(c, 411, "MissingContentLength", "Content-Length, please");
        return -1;
    }

    value = null_field(&r, "x-amz-content-sha256");
    if (value && strncmp(value, "STREAMING-", 10) == 0) {
        null_counters.other++;
        c->close = 1;
        null_error(c, 501, "NotImplemented", "No aws-chunked bodies");
        return -1;
    }

    if (strcmp(r.path, "/__stats") == 0) {
        return null_stats(c) || c->close ? -1 : 0;
    }

    if (strncmp(r.path, NULL_ORIGIN_PATH, sizeof(NULL_ORIGIN_PATH) - 1) == 0) {
        return null_origin(c, &r) || c->close ? -1 : 0;
    }

    value = null_field(&r, "x-amz-target");

    rc = value ? null_dynamodb(c, &r, value) : null_s3(c, &r);

    return rc || c->close ? -1 : 0;
}


/* the server */

static void *
null_serve(void *data)
{
    int           on;
    long          n;
    null_conn_t  *c;

    c = data;
    on = 1;
    n = 0;

    null_counters.connections++;
    null_peak(&null_counters.peak, ++null_counters.live);

    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));

    if (c->ssl == NULL || SSL_accept(c->ssl) == 1) {

        while (null_request(c) == 0) {
            n++;

            if (null_options.idle_close && n % null_options.idle_close == 0) {
                null_counters.faults++;
                break;
            }
        }
    }

    if (c->ssl) {
        SSL_shutdown(c->ssl);
        SSL_free(c->ssl);
        ERR_clear_error();
    }

    close(c->fd);
    free(c->buf);
    free(c);

    null_counters.live--;

    return NULL;
}


static void *
null_accept(void *data)
{
    int               fd;
    pthread_t         thread;
    null_conn_t      *c;
    pthread_attr_t    attr;
    null_listener_t  *ls;

    ls = data;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 262144);

    for ( ;; ) {
        fd = accept(ls->fd, NULL, NULL);
        if (fd == -1) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
                null_sleep(10);
            }

            continue;
        }

        c = calloc(1, sizeof(null_conn_t));
        c->buf = malloc(NULL_BUF);
        c->fd = fd;

        if (ls->tls) {
            c->ssl = SSL_new(null_ssl_ctx);
            SSL_set_fd(c->ssl, fd);
        }

        if (pthread_create(&thread, &attr, null_serve, c) != 0) {
            SSL_free(c->ssl);
            close(fd);
            free(c->buf);
            free(c);
        }
    }

    return NULL;
}


static int
null_listen(int port)
{
    int                 fd, on;
    struct sockaddr_in  sin;

    memset(&sin, 0, sizeof(sin));
    sin.sin_family = AF_INET;
    sin.sin_port = htons(port);
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    on = 1;
    fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));

    if (bind(fd, (struct sockaddr *) &sin, sizeof(sin)) == -1
        || listen(fd, 4096) == -1)
    {
        perror("s3_null: listen");
        exit(1);
    }

    return fd;
}


static int
null_port(int fd)
{
    socklen_t           len;
    struct sockaddr_in  sin;

    len = sizeof(sin);
    getsockname(fd, (struct sockaddr *) &sin, &len);

    return ntohs(sin.sin_port);
}


static void
null_tls(const char *cert, const char *key)
{
    null_ssl_ctx = SSL_CTX_new(TLS_server_method());

    if (cert == NULL || key == NULL
        || SSL_CTX_use_certificate_chain_file(null_ssl_ctx, cert) != 1
        || SSL_CTX_use_PrivateKey_file(null_ssl_ctx, key, SSL_FILETYPE_PEM)
           != 1)
    {
        fprintf(stderr, "s3_null: --tls-port needs --cert and --key\n");
        ERR_print_errors_fp(stderr);
        exit(1);
    }

    /* several records a system call, or the sink would be what is measured */

    SSL_CTX_set_read_ahead(null_ssl_ctx, 1);
    SSL_CTX_set_default_read_buffer_len(null_ssl_ctx, NULL_BUF);

    if (null_options.rekey) {
        SSL_CTX_set_msg_callback(null_ssl_ctx, null_rekeyed);
    }
}


static void
null_announce(FILE *f, const null_listener_t *plain,
    const null_listener_t *tls)
{
    if (plain->fd != -1) {
        fprintf(f, "port %d\n", null_port(plain->fd));
    }

    if (tls->fd != -1) {
        fprintf(f, "tls-port %d\n", null_port(tls->fd));
    }

    fflush(f);
}


/* written under another name: who sees the file sees all of it */

static void
null_announce_file(const char *name, const null_listener_t *plain,
    const null_listener_t *tls)
{
    char   temp[4096];
    FILE  *f;

    snprintf(temp, sizeof(temp), "%s.new", name);

    f = fopen(temp, "w");
    if (f) {
        null_announce(f, plain, tls);
        fclose(f);
    }

    if (f == NULL || rename(temp, name) == -1) {
        perror("s3_null: --port-file");
        exit(1);
    }
}


static void
null_usage(void)
{
    fprintf(stderr, "usage: s3_null [--port N] [--tls-port N --cert F --key F]"
            " [--port-file F]\n"
            "  [--crc32] [--sha256] [--verify] [--chunked] [--rate B]"
            " [--latency MS]\n"
            "  [--every N] [--slowdown N] [--reset N] [--hang N] [--early N]\n"
            "  [--complete-error N] [--complete-lost N]"
            " [--complete-space MS]\n"
            "  [--stall MS] [--idle-close N] [--throttle N] [--rekey B]\n");
    exit(2);
}


static void
null_parse(int argc, char **argv, null_start_t *start)
{
    int            i, ch;
    struct option  options[NULL_NUMBERS + 10] = {
        { "port", 1, NULL, 'p' },
        { "tls-port", 1, NULL, 't' },
        { "cert", 1, NULL, 'c' },
        { "key", 1, NULL, 'k' },
        { "port-file", 1, NULL, 'f' },
        { "crc32", 0, &null_options.crc32, 1 },
        { "sha256", 0, &null_options.sha256, 1 },
        { "verify", 0, &null_options.verify, 1 },
        { "chunked", 0, &null_options.chunked, 1 }
    };

    for (i = 0; i < NULL_NUMBERS; i++) {
        options[9 + i].name = null_numbers[i].name;
        options[9 + i].has_arg = 1;
        options[9 + i].val = 256 + i;
    }

    while ((ch = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (ch) {
        case 0: break;
        case 'p': start->port = atoi(optarg); break;
        case 't': start->tls_port = atoi(optarg); break;
        case 'c': start->cert = optarg; break;
        case 'k': start->key = optarg; break;
        case 'f': start->file = optarg; break;
        case '?': null_usage(); break;
        default: *null_numbers[ch - 256].value = atol(optarg);
        }
    }

    if (optind != argc) {
        null_usage();
    }
}


int
main(int argc, char **argv)
{
    pthread_t     thread;
    null_start_t  start = { -1, -1, NULL, NULL, NULL };

    static null_listener_t  plain = { -1, 0 }, tls = { -1, 1 };

    null_parse(argc, argv, &start);

    signal(SIGPIPE, SIG_IGN);

    if (start.tls_port != -1) {
        null_tls(start.cert, start.key);
        tls.fd = null_listen(start.tls_port);
    }

    if (start.port != -1 || start.tls_port == -1) {
        plain.fd = null_listen(start.port == -1 ? 0 : start.port);
    }

    null_announce(stdout, &plain, &tls);

    if (start.file) {
        null_announce_file(start.file, &plain, &tls);
    }

    if (plain.fd == -1) {
        null_accept(&tls);
    }

    if (tls.fd != -1
        && pthread_create(&thread, NULL, null_accept, &tls) != 0)
    {
        perror("s3_null: pthread_create");
        return 1;
    }

    null_accept(&plain);

    return 0;
}
