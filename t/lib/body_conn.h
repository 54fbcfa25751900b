/*
 * What body_gen, body_h2 and body_sink share: one blocking connection to where an URL
 * points, over TLS or not. What goes wrong in making it ends the program.
 */

#ifndef BODY_CONN_H
#define BODY_CONN_H

#include <openssl/ssl.h>
#include <stdint.h>
#include <sys/types.h>


typedef struct {
    int          tls;
    int          http2;              /* ALPN: the caller sets it */
    char         host[256];          /* without brackets */
    char         port[8];
    const char  *authority;          /* as in the URL, up to the path */
    const char  *path;
} body_url_t;


typedef struct {
    int   fd;
    SSL  *ssl;                       /* NULL: plain */
} body_conn_t;


/* says what, and what errno says unless it is 0, and exits with 1 */
void body_fail(const char *what) __attribute__((noreturn));
/* seconds, monotonic */
double body_clock(void);
/* sleeps where size bytes since then are more than rate bytes a second */
void body_pace(double from, uint64_t size, uint64_t rate);
/* url is written to */
void body_parse_url(body_url_t *u, char *url);
/* cacert NULL: the system's authorities */
void body_connect(body_conn_t *c, const body_url_t *u, const char *cacert);
/* 0, or -1: the server takes no more */
int body_write(body_conn_t *c, const void *data, size_t len);
/* bytes, 0 or less: there are no more */
ssize_t body_read(body_conn_t *c, void *p, size_t len);


#endif /* BODY_CONN_H */
