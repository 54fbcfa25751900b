/*
 * The sending side of a TLS connection. libssl hands each record of 16 KiB to
 * the kernel by itself; here records gather in a buffer, and what a wake-up has
 * encrypted is written at once. Reading is untouched.
 */

#ifndef NGX_S3_TLS_BIO_H
#define NGX_S3_TLS_BIO_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>


/* what a connection has of it, in its ngx_s3_tls_t; zeroed */

typedef struct {
    ngx_connection_t     *connection;  /* set: c->send_chain() is ours */
    u_char               *buf;       /* NULL: nothing is in it */
    u_char               *pos;
    u_char               *last;
    u_char               *end;
    size_t                pending;   /* bytes that libssl could not send and
                                        has to be given again */
    ngx_event_handler_pt  reader;    /* see ngx_s3_tls_want_read() */
    unsigned              gathers:1;
} ngx_s3_tls_gather_t;


/*
 * From here on, once the handshake is done, c->send_chain() gathers: it takes
 * buffers in memory, of which bytes count as sent when they are encrypted, and
 * leaves c->buffered set where some of that is not written yet. It is then
 * called again when the socket takes more, with NULL where nothing else is to
 * be sent. c->sent counts what was written. Nothing happens where it gathers
 * already. NGX_ERROR: no memory.
 */
ngx_int_t ngx_s3_tls_gather(ngx_connection_t *c);


#endif /* NGX_S3_TLS_BIO_H */
