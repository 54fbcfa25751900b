/*
 * The connection of body_gen, body_h2 and body_sink.
 */

#define _GNU_SOURCE

#include "body_conn.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>


void
body_fail(const char *what)
{
    fprintf(stderr, "%s: %s%s%s\n", program_invocation_short_name, what,
            errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}


double
body_clock(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec + ts.tv_nsec / 1e9;
}


void
body_pace(double from, uint64_t size, uint64_t rate)
{
    double           ahead;
    struct timespec  ts;

    ahead = (double) size / rate - (body_clock() - from);

    if (ahead > 0) {
        ts.tv_sec = (time_t) ahead;
        ts.tv_nsec = (long) ((ahead - (double) ts.tv_sec) * 1e9);
        nanosleep(&ts, NULL);
    }
}


void
body_parse_url(body_url_t *u, char *url)
{
    char    *p;
    size_t   n, host;

    if (strncmp(url, "https://", 8) == 0) {
        u->tls = 1;
        url += 8;

    } else if (strncmp(url, "http://", 7) == 0) {
        url += 7;

    } else {
        errno = 0;
        body_fail("http:// or https://, please");
    }

    n = strcspn(url, "/");
    u->path = url[n] ? strdup(url + n) : "/";
    url[n] = '\0';
    u->authority = url;

    p = strrchr(url, ':');
    if (p && strchr(p, ']')) {
        p = NULL;
    }

    snprintf(u->port, sizeof(u->port), "%s",
             p ? p + 1 : u->tls ? "443" : "80");

    host = p ? (size_t) (p - url) : n;
    snprintf(u->host, sizeof(u->host), "%.*s",
             (int) (host - 2 * (*url == '[')), url + (*url == '['));
}


static int
body_dial(const body_url_t *u)
{
    int               fd, on, rc;
    struct addrinfo   hints, *res, *ai;

    memset(&hints, 0, sizeof(hints));
    hints.ai_socktype = SOCK_STREAM;

    rc = getaddrinfo(u->host, u->port, &hints, &res);
    if (rc != 0) {
        errno = 0;
        body_fail(gai_strerror(rc));
    }

    fd = -1;

    for (ai = res; ai; ai = ai->ai_next) {
        fd = socket(ai->ai_family, SOCK_STREAM, 0);
        if (fd != -1 && connect(fd, ai->ai_addr, ai->ai_addrlen) == 0) {
            break;
        }

        close(fd);
        fd = -1;
    }

    if (fd == -1) {
        body_fail("connect");
    }

    on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    freeaddrinfo(res);

    return fd;
}


static SSL *
body_handshake(const body_url_t *u, int fd, const char *cacert)
{
    SSL                *ssl;
    SSL_CTX            *ctx;
    X509_VERIFY_PARAM  *param;

    ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);

    if (cacert ? SSL_CTX_load_verify_locations(ctx, cacert, NULL) != 1
                  : SSL_CTX_set_default_verify_paths(ctx) != 1)
    {
        errno = 0;
        body_fail("no certificates to trust");
    }

    ssl = SSL_new(ctx);
    param = SSL_get0_param(ssl);

    if (X509_VERIFY_PARAM_set1_ip_asc(param, u->host) != 1) {
        ERR_clear_error();
        SSL_set1_host(ssl, u->host);
        SSL_set_tlsext_host_name(ssl, u->host);
    }

    if (u->http2) {
        SSL_set_alpn_protos(ssl, (const unsigned char *) "\2h2", 3);
    }

    SSL_set_fd(ssl, fd);

    if (SSL_connect(ssl) != 1) {
        ERR_print_errors_fp(stderr);
        errno = 0;
        body_fail("TLS handshake");
    }

    return ssl;
}


void
body_connect(body_conn_t *c, const body_url_t *u, const char *cacert)
{
    c->fd = body_dial(u);
    c->ssl = u->tls ? body_handshake(u, c->fd, cacert) : NULL;
}


int
body_write(body_conn_t *c, const void *data, size_t len)
{
    ssize_t      n;
    const char  *p;

    for (p = data; len > 0; p += n, len -= n) {
        n = c->ssl ? SSL_write(c->ssl, p, len)
                   : send(c->fd, p, len, MSG_NOSIGNAL);

        if (n == -1 && c->ssl == NULL && errno == EINTR) {
            n = 0;

        } else if (n <= 0) {
            return -1;
        }
    }

    return 0;
}


ssize_t
body_read(body_conn_t *c, void *p, size_t len)
{
    ssize_t  n;

    if (c->ssl) {
        return SSL_read(c->ssl, p, len);
    }

    do {
        n = recv(c->fd, p, len, 0);
    } while (n == -1 && errno == EINTR);

    return n;
}
