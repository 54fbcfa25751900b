/*
 * HTTP/1.1 over a connection: one request (head and body chain) out, one reply
 * in; early answers; a stale idle connection replaced without a word.
 */

#ifndef NGX_S3_CLIENT_H
#define NGX_S3_CLIENT_H

#include "ngx_s3_conn.h"
#include "s3_http.h"


typedef struct ngx_s3_request_s  ngx_s3_request_t;

typedef void (*ngx_s3_request_pt)(ngx_s3_request_t *rq);

struct ngx_s3_request_s {
    /* set by the caller, who keeps all of it until handler or cancel */
    ngx_s3_endpoint_t  *endpoint;
    ngx_str_t           host;        /* empty: the endpoint's */
    ngx_pool_t         *pool;        /* reply's fields and body come from it */
    ngx_log_t          *log;
    ngx_str_t           head;        /* request line to the empty line */
    ngx_chain_t        *body;        /* memory buffers, never changed */
    off_t               body_size;
    unsigned            head_method:1;
    unsigned            fresh:1;     /* take no idle connection */
    unsigned            ahead:1;     /* memory for a short body of the reply is
                                        got before it is sent; fields for which
                                        there is none are left out */
    ngx_msec_t          read_timeout;    /* 0: the endpoint's */
    ngx_msec_t          answer_timeout;  /* for all of the answer, once all is
                                            written; 0: 4 read time-outs */
    size_t              max_reply;   /* of the body; 0: 1 MiB */
    ngx_s3_request_pt   handler;     /* called once, never from send() */
    void               *data;

    /* the result */
    ngx_s3_error_e      error;       /* NONE: a whole reply came */
    char                reason[NGX_S3_REASON]; /* where error is set */
    ngx_uint_t          status;
    ngx_array_t        *fields;      /* of s3_field_t, names in lower case */
    ngx_str_t           reply;       /* body */
    off_t               sent;        /* bytes of the body that were written */
    unsigned            answered:1;  /* some byte of an answer was seen, also
                                        where error is set */
    unsigned            resent:1;    /* all of it was written on an idle
                                        connection before, which then closed
                                        without an answer */
    unsigned            repeated:1;  /* likewise, but some of the body is
                                        enough */

    /* private */
    void               *state;
};


/* NGX_OK: handler follows; NGX_ERROR: no memory, it does not */
ngx_int_t ngx_s3_request_send(ngx_s3_request_t *rq);

/* the handler is not called any more; safe in any state, also twice */
void ngx_s3_request_cancel(ngx_s3_request_t *rq);

/* the field's value, or an empty string; name in lower case */
ngx_str_t ngx_s3_request_field(ngx_s3_request_t *rq, const char *name);


#endif /* NGX_S3_CLIENT_H */
