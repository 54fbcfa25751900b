/*
 * Bytes that were received of a client too early, given back to its connection:
 * who receives next gets them first, as if they had not been read.
 */

#ifndef NGX_HTTP_S3_UNREAD_H
#define NGX_HTTP_S3_UNREAD_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>


/* size bytes at p, which are copied: the end of what c->recv() returned last.
   NGX_ERROR: no memory, they are lost. */
ngx_int_t ngx_http_s3_unread(ngx_connection_t *c, u_char *p, size_t size);


#endif /* NGX_HTTP_S3_UNREAD_H */
