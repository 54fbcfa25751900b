/*
 * S3's operations, one call each: sign, send, retry, parse, a typed result.
 */

#ifndef NGX_S3_API_H
#define NGX_S3_API_H

#include "ngx_s3_client.h"
#include "ngx_s3_credentials.h"
#include "s3_plan.h"
#include "s3_retry.h"
#include "s3_xml.h"


/* buckets of a target whose regions are known; more replace the oldest */
#define NGX_S3_REGIONS  16


/* a bucket that is not where it was thought to be */

typedef struct {
    u_char                 bucket[S3_BUCKET_MAX];
    size_t                 bucket_len;
    u_char                 region[64];
    size_t                 region_len;
} ngx_s3_region_t;


/* where objects go and how; made when the configuration is read */

typedef struct {
    ngx_s3_endpoint_t     *endpoint;
    ngx_s3_credentials_t  *credentials;
    ngx_str_t              region;
    s3_addressing_e        addressing;
    ngx_str_t              bucket;   /* empty: it has variables */
    const s3_limits_t     *limits;
    ngx_uint_t             tries;    /* of one request, the first included */
    ngx_msec_t             retry_timeout;
    unsigned               sign_payload:1;   /* SHA-256 of each body, else
                                                UNSIGNED-PAYLOAD */
    unsigned               crc32:1;
    ngx_atomic_t          *requests; /* counters of the zone, may be NULL */
    ngx_atomic_t          *retries;
    ngx_atomic_t          *errors;

    /* the worker's */
    int64_t                clock_skew;       /* seconds, S3's minus ours */
    ngx_s3_region_t       *regions;  /* learnt from redirects */
    ngx_uint_t             nregions; /* as often as one was learnt */
    unsigned               vain:1;   /* HeadObject was refused by the clock of
                                        its Date as well: that is not S3's, or
                                        not the reason */
    unsigned               blind:1;          /* it was logged that looks at
                                                objects are refused */
} ngx_s3_target_t;


typedef enum {
    NGX_S3_CREATE = 0,               /* CreateMultipartUpload */
    NGX_S3_PART,                     /* UploadPart */
    NGX_S3_COMPLETE,                 /* CompleteMultipartUpload */
    NGX_S3_ABORT,                    /* AbortMultipartUpload */
    NGX_S3_PUT,                      /* PutObject */
    NGX_S3_HEAD,                     /* HeadObject */
    NGX_S3_LIST_PARTS,               /* ListParts, one page */
    NGX_S3_GET                       /* GetObject; not as a call: see
                                        ngx_s3_get_t */
} ngx_s3_op_e;


/* what the tries of one request were signed for and have learnt: nothing of it
   is worth a second try */

typedef struct {
    u_char                 region[64];       /* of the last signature, or
                                                learnt for the next */
    size_t                 region_len;
    int64_t                skew;     /* before it */
    ngx_uint_t             generation;       /* of the keys */
    unsigned               clock:1;  /* was corrected */
    unsigned               keys:1;   /* were got anew */
    unsigned               learnt:1; /* another region */
} ngx_s3_lessons_t;


/* a part that S3 acknowledged */

typedef struct {
    ngx_uint_t  number;              /* from 1 */
    uint32_t    crc32;
    unsigned    repeated:1;          /* it was sent more than once, and what
                                        S3 holds was not compared yet */
    char        etag[136];
} ngx_s3_part_etag_t;


/* the largest page of ListParts */
#define NGX_S3_MAX_LIST  1000


typedef struct ngx_s3_call_s  ngx_s3_call_t;

typedef void (*ngx_s3_call_pt)(ngx_s3_call_t *call);

/* the part lives as long as the call of this */
typedef void (*ngx_s3_listed_pt)(ngx_s3_call_t *call,
    const s3_xml_part_t *part);

struct ngx_s3_call_s {
    /* set by the caller, who keeps all of it until handler or cancel, after
       ngx_s3_call_init() */
    ngx_s3_op_e           op;
    ngx_s3_target_t      *target;
    ngx_log_t            *log;
    ngx_str_t             bucket;
    ngx_str_t             key;       /* as it is, not encoded */
    ngx_str_t             upload_id; /* PART, COMPLETE, ABORT, LIST_PARTS */
    u_char               *new_upload_id;     /* CREATE: room for the one that S3
                                        gives, S3_UPLOAD_ID_MAX + 1 bytes; a
                                        string then, where rc is NGX_OK */
    ngx_uint_t            part_number;       /* PART; LIST_PARTS: those above
                                                it, 0: from the first */
    ngx_uint_t            max_parts; /* LIST_PARTS: of the page, 0: 1,000 */
    ngx_s3_listed_pt      listed;    /* LIST_PARTS: called for each part of a
                                        page that is whole, in S3's order, and
                                        then the handler */
    ngx_chain_t          *body;      /* PART, PUT: memory buffers, unchanged */
    off_t                 body_size;
    unsigned              growing:1; /* PART: the body is not all there yet,
                                        see ngx_s3_call_more(); body_size is
                                        what it will be. Neither hash nor
                                        checksum can go with it */
    char                 *sha256;    /* hex of the body (64 bytes), where the
                                        target signs payloads and op is PART or
                                        PUT */
    uint32_t              crc32;     /* PART, PUT: of the body; COMPLETE: of
                                        the object; used where target->crc32 */
    ngx_array_t          *headers;   /* CREATE, PUT: of s3_field_t: Content-
                                        Type, x-amz-meta-…; or NULL */
    ngx_s3_part_etag_t   *parts;     /* COMPLETE: nparts in order */
    ngx_uint_t            nparts;
    off_t                 object_size;       /* COMPLETE */
    ngx_msec_t            delay;     /* before the first try */
    unsigned              soft:1;    /* HEAD, LIST_PARTS: that S3 refuses it is
                                        an answer like another */
    ngx_uint_t            max_tries; /* 0: the target's */
    unsigned              quiet:1;   /* its failure is logged as info: the
                                        caller tells of it */
    ngx_s3_call_pt        handler;   /* called once, never from start() */
    void                 *data;

    /* the result: valid during handler (strings die after it) */
    ngx_int_t             rc;        /* NGX_OK or NGX_ERROR */
    ngx_uint_t            status;    /* S3's last, 0: none came */
    ngx_uint_t            client_status;     /* what our client should get */
    ngx_s3_error_e        error;
    ngx_uint_t            tries;     /* made */
    unsigned              unknown:1; /* the request may have been carried out
                                        though no good answer came */
    unsigned              repeated:1;        /* some of the body was sent in an
                                        earlier try as well; of a call that was
                                        cancelled: in any */
    ngx_msec_t            retry_after;       /* ms, where S3 sent it */
    int64_t               clock;     /* HEAD, LIST_PARTS: S3's, seconds since
                                        the epoch: Date of its last answer, else
                                        -1 */
    off_t                 size;      /* HEAD: Content-Length, else -1 */
    ngx_uint_t            next_part; /* LIST_PARTS: part_number of the next
                                        page, 0: this was the last */

    /* private */
    void                 *state;

    /* more of the result: long, and empty to begin with */
    char                  code[128]; /* S3's error code, else "" */
    char                  message[512];      /* names the cause, no secret */
    char                  etag[136]; /* PART, PUT, COMPLETE, HEAD; quotes kept;
                                        may be empty */
    char                  transfer_id[128];  /* HEAD: x-amz-meta-transfer-id */
};


/* a call before the caller sets anything; not all of it is worth zeroing */
static ngx_inline void
ngx_s3_call_init(ngx_s3_call_t *call)
{
    ngx_memzero(call, offsetof(ngx_s3_call_t, code));

    call->code[0] = '\0';
    call->message[0] = '\0';
    call->etag[0] = '\0';
    call->transfer_id[0] = '\0';
}


/* NGX_OK: handler follows; NGX_ERROR: no memory, it does not. Each warn line
   about a retry and one err line about the failure of the call are logged
   here, with operation, bucket, upload id, HTTP status, S3 code and request
   id. ABORT is content with 204, 200 and 404. 404 is an answer to HEAD and,
   but for NoSuchBucket, to LIST_PARTS, and any refusal is one where soft is set:
   rc is NGX_ERROR, status tells, and the line is of level info. */
ngx_int_t ngx_s3_call_start(ngx_s3_call_t *call);

/* the call has failed because S3 does not do that for us (or knows no such
   operation), and not because it could not; 1 or 0 */
ngx_uint_t ngx_s3_call_refused(ngx_s3_call_t *call);

/* whether no request of the call is under way: it waits for its next try */
ngx_uint_t ngx_s3_call_waits(ngx_s3_call_t *call);

/* size bytes of a body that grows are there by now, a retry begins with all of
   them; safe in any state, for each chunk */
void ngx_s3_call_more(ngx_s3_call_t *call, off_t size);

/* the handler is not called any more; safe in any state, also twice */
void ngx_s3_call_cancel(ngx_s3_call_t *call);


/*
 * GetObject for a caller who sends the request and takes the body himself
 * (ngx_s3_request_t with a window). One for all of its tries; zero it first.
 */

typedef struct {
    /* set by the caller, who keeps all of it */
    ngx_s3_target_t       *target;
    ngx_log_t             *log;
    ngx_str_t              bucket;
    ngx_str_t              key;      /* as it is, not encoded */
    ngx_array_t           *fields;   /* of s3_field_t: Range, If-Match, ...; or
                                        NULL. May differ from try to try */

    /* the result of ngx_s3_get_judge(), or of a head that was declined */
    char                   code[128];        /* S3's error code, else "" */
    char                   cause[512];       /* status, code and text, or why no
                                                answer came; no secret */
    s3_retry_e             class;            /* for s3_retry_delay() */
    ngx_msec_t             retry_after;      /* ms, where S3 sent it, else 0 */

    /* private */
    ngx_s3_lessons_t       lessons;
} ngx_s3_get_t;


/*
 * Makes the signed head of one try, from pool: signed for now, S3's clock, the
 * region as far as it is known, the present keys. *head is for rq->head and
 * holds key material, *host for rq->host; rq->endpoint is the target's. Counts
 * a request in the target's counters. NGX_OK; NGX_DECLINED: no other try would
 * change it (no keys, a field that must not be sent), code and cause are set;
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_s3_get_head(ngx_s3_get_t *get, ngx_pool_t *pool,
    ngx_str_t *head, ngx_str_t *host);

/*
 * Reads the end of a try, a refusal (kept in rq->reply) or an error, and takes
 * what S3 told of its clock and region into the target. NGX_OK: another try is
 * worth it at once; NGX_AGAIN: later, not before retry_after; NGX_DECLINED: it
 * is not. Code, cause and retry_after are set.
 */
ngx_int_t ngx_s3_get_judge(ngx_s3_get_t *get, ngx_s3_request_t *rq);


#endif /* NGX_S3_API_H */
