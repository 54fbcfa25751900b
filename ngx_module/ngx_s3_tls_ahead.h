/*
 * The receiving side of a client's TLS connection. libssl reads each record of
 * 16 KiB by itself, and the kernel announces each time that it has room again;
 * here one call brings several records, while bytes are received that are known
 * to be wanted. At any other time nothing is read that libssl did not ask for.
 */

#ifndef NGX_S3_TLS_AHEAD_H
#define NGX_S3_TLS_AHEAD_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>


/*
 * Before c->recv() of a connection whose handshake is done: size bytes will be
 * taken, if they are there, and so many may be read ahead.
 * ngx_s3_tls_ahead_end() has to follow before anybody else reads. Nothing
 * happens where the kernel decrypts, or without memory.
 */
void ngx_s3_tls_ahead(ngx_connection_t *c, size_t size);

/* What was read and is not decrypted yet stays with the connection; not even a
   record where all of size was taken. NGX_ERROR: no memory, the connection can
   only be closed. Of a connection that never read ahead: nothing happens. */
ngx_int_t ngx_s3_tls_ahead_end(ngx_connection_t *c);


#endif /* NGX_S3_TLS_AHEAD_H */
