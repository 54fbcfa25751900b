/*
 * What a request has while it runs, and how the rooms of ngx_s3_client share
 * it: the sending side (ngx_s3_client_send.c), the receiving one, and the body
 * that is handed over (ngx_s3_client_stream.c). Part of ngx_s3_client.
 */

#ifndef NGX_S3_CLIENT_STATE_H
#define NGX_S3_CLIENT_STATE_H

#include "ngx_s3_client.h"


#define NGX_S3_CLIENT_BUFS  64       /* of one send, IOV's usual max */
#define NGX_S3_CLIENT_TURN  (1024 * 1024)    /* bytes of one wake-up */


/* its own memory, not of rq->pool, so that the tries of a call do not pile up
   there */

typedef struct {
    ngx_s3_request_t  *rq;
    ngx_s3_conn_t     *sc;

    /* the cursor: what comes next to be sent */
    size_t             head_sent;
    ngx_chain_t       *cl;
    u_char            *pos;          /* in cl's buffer */
    off_t              left;         /* of the body */

    size_t             max_reply;
    size_t             reply_size;   /* memory of rq->reply */
    ngx_msec_t         read_timeout;
    ngx_msec_t         deadline;     /* of the answer, once it is awaited */

    unsigned           written:1;    /* all of the request */
    unsigned           stopped:1;    /* the answer came first: send no more */
    unsigned           hungry:1;     /* all that is there of a body that grows
                                        is written */
    unsigned           retried:1;    /* on a fresh connection */
    unsigned           too_large:1;
    unsigned           no_memory:1;

    /* a body that is handed over */
    ngx_buf_t          in;           /* decoded and not yet taken, in buf or
                                        in to */
    ngx_int_t          end;          /* of the reading, NGX_AGAIN: not yet */
    unsigned           begun:1;      /* the caller knows the head */
    unsigned           kept:1;       /* and wants a reply as others have it */
    unsigned           busy:1;       /* the caller is being called */
    unsigned           gone:1;       /* it has cancelled meanwhile */
    unsigned           paused:1;
    unsigned           resumed:1;    /* the time-out begins anew */
    unsigned           refused:1;    /* by the caller */

    ngx_buf_t          bufs[NGX_S3_CLIENT_BUFS];
    ngx_chain_t        links[NGX_S3_CLIENT_BUFS];
    s3_http_t          http;
    u_char            *to;           /* where the next read goes */
    size_t             room;         /* there */
    size_t             size;         /* of buf */
    u_char             buf[1];       /* one read */
} ngx_s3_client_t;


void ngx_s3_client_free(ngx_s3_client_t *cl);

/* the connection's writer */
void ngx_s3_client_write_handler(ngx_s3_conn_t *sc);

/* Writes over a connection that was kept, before its handler is called: what is
   to be sent has just been received and is in the processor's cache, from which
   the events that come first would drive it out. */
void ngx_s3_client_write_ahead(ngx_s3_client_t *cl);

/* it can be written to no more: an answer may have come before that */
void ngx_s3_client_write_failed(ngx_s3_client_t *cl);

/* Nothing more is sent: the answer has its time. */
void ngx_s3_client_await(ngx_s3_client_t *cl);

/*
 * Reads once and parses. NGX_OK: the reply is whole; NGX_AGAIN: more is to
 * come, *n is 0 where nothing was there; NGX_DONE: the peer closed; NGX_ERROR:
 * the connection broke; NGX_DECLINED: not HTTP, or not ours to take.
 */
ngx_int_t ngx_s3_client_take(ngx_s3_client_t *cl, size_t *n);

/* Adds to rq->reply. NGX_ERROR: no memory, which it notes. */
ngx_int_t ngx_s3_client_keep(ngx_s3_client_t *cl, const u_char *p, size_t len);

/* the parser's results into the request's */
void ngx_s3_client_head(ngx_s3_client_t *cl);

/*
 * Hands over what is there and reads on, at most NGX_S3_CLIENT_TURN bytes.
 * Returns as ngx_s3_client_take(), once the caller has taken what came before,
 * or NGX_BUSY: it takes no more for now; NGX_ABORT: it has cancelled, cl is
 * gone. *progress: the time-out begins anew.
 */
ngx_int_t ngx_s3_client_stream(ngx_s3_client_t *cl, ngx_uint_t *progress);

/* the parser's callback for a body that is handed over */
int ngx_s3_client_stream_body(void *data, const unsigned char *p, size_t len);

/* an event while nothing is to be read; NGX_ERROR: the connection is of no use
   any more */
ngx_int_t ngx_s3_client_stream_wait(ngx_s3_client_t *cl);

/* the ends of a request: cl is gone, rq may be */
void ngx_s3_client_leaving(ngx_s3_client_t *cl);
void ngx_s3_client_timeout(ngx_s3_client_t *cl, ngx_s3_error_e error);
void ngx_s3_client_finish(ngx_s3_client_t *cl, ngx_s3_error_e error);

/* for messages */
ngx_str_t *ngx_s3_client_host(ngx_s3_client_t *cl);


#endif /* NGX_S3_CLIENT_STATE_H */
