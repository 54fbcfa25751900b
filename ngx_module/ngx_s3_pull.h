/*
 * A pull: the body of an origin's answer, straight into a transfer.
 *
 *   origin ──▶ ngx_s3_request_t ──▶ ngx_s3_transfer_t ──▶ S3
 *
 * The transfer is created first (its record, its id, its claim on the key),
 * then the origin is asked; memory is asked for when its answer begins. An
 * origin that breaks off is asked for the rest where its validator is strong,
 * else for all of it again, which is another attempt: a new transfer of the
 * same id.
 *
 * A pull outlives the request that began it; it has its own pool, log and plain
 * timers, so that a leaving worker waits for it.
 */

#ifndef NGX_S3_PULL_H
#define NGX_S3_PULL_H

#include "ngx_s3_transfer.h"
#include "s3_origin.h"


/* bytes; an entity tag or a list of codings that is longer is of no use */
#define NGX_S3_PULL_ETAG      256
#define NGX_S3_PULL_ENCODING  64


/* of a location; made when the configuration is read */

typedef struct {
    ngx_s3_transfer_conf_t  *transfer;
    ngx_s3_endpoint_t       *origin;     /* the template of all http and https
                                            origins; asks ngx_s3_pull_allow()
                                            with this as allow_data */
    ngx_array_t             *allow;      /* of ngx_cidr_t: addresses that are
                                            asked though they are special, or
                                            NULL */
    ngx_uint_t               redirects;  /* that are followed */
    unsigned                 allow_all:1;
    unsigned                 close_delimited:1;  /* such bodies are taken */
} ngx_s3_pull_conf_t;


/* what is to be fetched and how it is to be stored; copied */

typedef struct {
    ngx_s3_transfer_spec_t   transfer;   /* total is -1; its headers win over
                                            those of the origin */
    ngx_str_t                url;        /* http, https, s3 */
    ngx_array_t             *fields;     /* of s3_field_t for an http or https
                                            origin, or NULL */
} ngx_s3_pull_spec_t;


/* The end: result as that of a transfer, record is final. Both die after the
   call. */
typedef void (*ngx_s3_pull_pt)(void *data, ngx_s3_result_t *result,
    const s3_record_t *record);


typedef struct {
    void                    *dummy[3];   /* an event's data */
    ngx_int_t                ident;

    ngx_s3_pull_conf_t      *conf;
    ngx_pool_t              *pool;
    ngx_log_t               *log;

    ngx_s3_pull_pt           handler;    /* NULL: the door has left */
    void                    *data;

    ngx_s3_transfer_spec_t   spec;       /* of each attempt */
    ngx_str_t                url;
    s3_origin_t              origin;
    ngx_str_t                shown;      /* the URL as logs may have it */
    ngx_array_t             *fields;     /* for the origin */

    ngx_s3_transfer_t       *transfer;   /* NULL: ended */
    s3_record_t              record;     /* once it has */
    ngx_s3_result_t          result;     /* what went wrong last */

    /* the request */
    ngx_pool_t              *try_pool;
    ngx_s3_request_t         rq;
    ngx_s3_get_t             get;        /* of an s3 origin */
    ngx_array_t              range;      /* of s3_field_t: Range, If-Range */
    ngx_str_t                next;       /* the URL to be asked: the origin's
                                            or where it has redirected to; of
                                            try_pool or pool */
    s3_origin_t              hop;        /* what next was when it was asked */
    ngx_uint_t               hops;       /* redirects of this try */

    ngx_uint_t               failures;   /* without progress between them */
    ngx_msec_t               since;      /* the first of them */
    ngx_uint_t               poor;       /* tries in a row that brought little:
                                            the more, the longer is waited */
    off_t                    mark;       /* furthest at the last failure */
    ngx_event_t              timer;      /* plain: asks (again) */
    ngx_event_t              wake;       /* posted: tells the door */

    /* of this attempt */
    off_t                    received;
    off_t                    total;      /* -1: unknown */
    u_char                   etag[NGX_S3_PULL_ETAG];
    size_t                   etag_len;
    u_char                   encoding[NGX_S3_PULL_ENCODING];
    size_t                   encoding_len;
    uint32_t                 said;       /* ngx_s3_kept_sum() of the answer */
    ngx_str_t                place;      /* the URL that the body is from,
                                            without its query; of pool */
    size_t                   place_size; /* its memory */

    off_t                    furthest;   /* of all attempts: only what is
                                            beyond is progress */

    unsigned                 begun:1;    /* the transfer knows what comes */
    unsigned                 resumable:1;    /* the rest can be asked for */
    unsigned                 streaming:1;    /* the answer's body is wanted */
    unsigned                 waiting:1;  /* for admission */
    unsigned                 paused:1;   /* part() has said NGX_AGAIN */
    unsigned                 whole:1;    /* all came while it was waiting */
    unsigned                 foreign:1;  /* a redirect led to another origin */
} ngx_s3_pull_t;


/*
 * NGX_OK: *pull; handler is called some day, never from here. Else *result
 * tells the door what to answer, and nothing was sent anywhere: NGX_DECLINED:
 * the URL is malformed (400); NGX_BUSY, NGX_ERROR: as
 * ngx_s3_transfer_create() says.
 */
ngx_int_t ngx_s3_pull_start(ngx_s3_pull_conf_t *conf,
    ngx_s3_pull_spec_t *spec, ngx_s3_pull_pt handler, void *data,
    ngx_s3_pull_t **pull, ngx_s3_result_t *result);

/* as it is now; changes whenever the event loop runs */
s3_record_t *ngx_s3_pull_record(ngx_s3_pull_t *p);

/* The door leaves: the pull goes on to its end. The handler is not called, p is
   not the caller's any more. */
void ngx_s3_pull_leave(ngx_s3_pull_t *p);

/* ngx_s3_endpoint_t's allow, whose allow_data is an ngx_s3_pull_conf_t */
ngx_int_t ngx_s3_pull_allow(ngx_s3_endpoint_t *endpoint, struct sockaddr *sa,
    char *reason);

/* the same, for the configuration. NULL: sa may be asked; else what it is */
const char *ngx_s3_pull_special(ngx_s3_pull_conf_t *conf,
    struct sockaddr *sa);


/* in ngx_s3_pull.c, for ngx_s3_pull_origin.c alone: of the request */

ngx_int_t ngx_s3_pull_begin(ngx_s3_request_t *rq);
ngx_int_t ngx_s3_pull_part(ngx_s3_request_t *rq, ngx_buf_t *b);
size_t ngx_s3_pull_room(ngx_s3_request_t *rq, u_char **p);
void ngx_s3_pull_answered(ngx_s3_request_t *rq);


/* in ngx_s3_pull_origin.c, for ngx_s3_pull.c alone */

/* Asks for p->next, in a new try_pool. NGX_ERROR: no memory; NGX_DECLINED: it
   cannot be asked for, p->result says why. */
ngx_int_t ngx_s3_pull_request(ngx_s3_pull_t *p);

/* sets p->next to where the answer redirects to; NGX_DECLINED: nobody is led
   there, p->result says why */
ngx_int_t ngx_s3_pull_redirect(ngx_s3_pull_t *p);

/* notes what the answer says of its body, for other tries */
void ngx_s3_pull_note(ngx_s3_pull_t *p);

/* whether an answer has the same body, and says the same of it, as that which
   was noted */
ngx_uint_t ngx_s3_pull_same(ngx_s3_pull_t *p);

/* whether an answer is the rest that was asked for */
ngx_uint_t ngx_s3_pull_rest(ngx_s3_pull_t *p);

/* sets p->result: no whole answer came */
void ngx_s3_pull_lost(ngx_s3_pull_t *p);

/* sets p->result: the answer's status is none that brings a body */
void ngx_s3_pull_status(ngx_s3_pull_t *p);


#endif /* NGX_S3_PULL_H */
