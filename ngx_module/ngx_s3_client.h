/*
 * HTTP/1.1 over a connection: one request (head and body chain) out, one reply
 * in, kept or handed over as it comes; early answers; a stale idle connection
 * replaced without a word.
 */

#ifndef NGX_S3_CLIENT_H
#define NGX_S3_CLIENT_H

#include "ngx_s3_conn.h"
#include "s3_http.h"


typedef struct ngx_s3_request_s  ngx_s3_request_t;

typedef void (*ngx_s3_request_pt)(ngx_s3_request_t *rq);

typedef ngx_int_t (*ngx_s3_request_begin_pt)(ngx_s3_request_t *rq);
typedef ngx_int_t (*ngx_s3_request_part_pt)(ngx_s3_request_t *rq,
    ngx_buf_t *b);

/* see ngx_s3_request_t.room; returns bytes, *p is where they begin */
typedef size_t (*ngx_s3_request_room_pt)(ngx_s3_request_t *rq, u_char **p);

struct ngx_s3_request_s {
    /* set by the caller, who keeps all of it until handler or cancel */
    ngx_s3_endpoint_t  *endpoint;
    ngx_str_t           host;        /* empty: the endpoint's */
    ngx_pool_t         *pool;        /* reply's fields and body come from it */
    ngx_log_t          *log;
    ngx_str_t           head;        /* request line to the empty line */
    ngx_chain_t        *body;        /* memory buffers, never changed */
    off_t               body_size;
    unsigned            growing:1;   /* the body is not all there: its last
                                        buffer fills, links are added, and
                                        ngx_s3_request_more() tells of it;
                                        body_size is what it will be */
    unsigned            head_method:1;
    unsigned            fresh:1;     /* take no idle connection */
    unsigned            ahead:1;     /* memory for a short body of the reply is
                                        got before it is sent; fields for which
                                        there is none are left out */
    ngx_msec_t          read_timeout;    /* 0: the endpoint's */
    ngx_msec_t          answer_timeout;  /* for all of the answer, once all is
                                            written; 0: 4 read time-outs. Of a
                                            body that is handed over: for the
                                            head alone */
    size_t              max_reply;   /* of the body; 0: 1 MiB */

    /* not 0: the body is handed over as it comes, at most so many bytes at a
       time, which is the size of the buffer it is received in; max_reply does
       not count then. begin and part have to be set. Either of them may cancel
       rq and has to return NGX_DONE then: rq may be gone. */
    size_t              window;

    /*
     * Called once, when the head is there: status, fields, content_length,
     * chunked and close_delimited are valid. NGX_OK: the body goes to part;
     * NGX_DECLINED: it is kept in reply (an error document), what is longer
     * than max_reply is cut off without an error; NGX_ERROR: the request ends,
     * handler follows with NGX_S3_E_REPLY and the reason that was set here, if
     * one was.
     */
    ngx_s3_request_begin_pt  begin;

    /*
     * Decoded bytes, b->pos to b->last, in memory that is the client's: what
     * is taken is copied, and b->pos advanced. NGX_OK: all was taken;
     * NGX_AGAIN: maybe not all; nothing is read, no time-out runs, and no part
     * comes until ngx_s3_request_resume(), but a leaving worker waits for it;
     * NGX_ERROR: as for begin.
     */
    ngx_s3_request_part_pt   part;

    /*
     * NULL: none. Asked before a read, once all that came was taken: memory of
     * the caller's that the read may go to, 0: there is none. Part comes with
     * what was read, decoded, from the beginning of that memory, before
     * anything else happens; what it does not take is moved away. May neither
     * cancel rq nor resume it.
     */
    ngx_s3_request_room_pt   room;

    ngx_s3_request_pt   handler;     /* called once, never from send() */
    void               *data;

    /* the result */
    ngx_s3_error_e      error;       /* NONE: a whole reply came. With window:
                                        after all of it was taken; an error
                                        comes after what had come before it,
                                        but not where the worker leaves */
    char                reason[NGX_S3_REASON]; /* where error is set */
    ngx_uint_t          status;
    ngx_array_t        *fields;      /* of s3_field_t, names in lower case */
    off_t               content_length;      /* of the body; -1: unknown */
    unsigned            chunked:1;
    unsigned            close_delimited:1;   /* no length and not chunked: the
                                        body ends with the connection, a cut
                                        one looks like a whole one */
    ngx_str_t           reply;       /* body, where it is kept */
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

/*
 * Of a body that grows `there` bytes are there by now. While less than that is
 * to be sent, no time-out runs; what comes is sent from a posted event, in
 * pieces of 128 KiB and more, or once all of it is there. Safe in any state,
 * and cheap.
 */
void ngx_s3_request_more(ngx_s3_request_t *rq, off_t there);

/* After part has returned NGX_AGAIN, also while it still runs: what was not
   taken is handed over again, then reading goes on; from the event loop, never
   from here. Safe in any state: nothing where nothing waits for it. */
void ngx_s3_request_resume(ngx_s3_request_t *rq);

/* the handler is not called any more, nor are begin and part; safe in any
   state, also twice, also from begin and part */
void ngx_s3_request_cancel(ngx_s3_request_t *rq);

/* the field's value, or an empty string; name in lower case */
ngx_str_t ngx_s3_request_field(ngx_s3_request_t *rq, const char *name);


#endif /* NGX_S3_CLIENT_H */
