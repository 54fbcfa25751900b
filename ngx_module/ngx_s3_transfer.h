/*
 * The engine's heart: a stream of bytes from any source, cut into parts, each
 * kept until S3 acknowledged it; drives create, part, complete and abort.
 *
 *   WAITING ──▶ RECEIVING ──▶ FLUSHING ──▶ FINISHING ──▶ CLOSED
 *      │            │             │            │            ▲
 *      └────────────┴─────────────┴────────────┴─▶ CLEANING ┘
 *
 * WAITING    for the look at the object that conditions need (unless the
 *            source is eager), and for the first reservation; the body is
 *            unread
 * RECEIVING  bytes are fed
 * FLUSHING   the body is whole, parts are on their way
 * FINISHING  what has to be checked before, PutObject or Complete, and the
 *            look at the object where its answer was lost
 * CLEANING   it failed or was given up, the record is final; what S3 still
 *            holds is being aborted
 *
 * A transfer outlives the request that feeds it; it has its own pool, log and
 * a plain timer, so that a leaving worker waits for it.
 */

#ifndef NGX_S3_TRANSFER_H
#define NGX_S3_TRANSFER_H

#include "ngx_s3_api.h"
#include "ngx_s3_pool.h"
#include "ngx_s3_progress.h"
#include "ngx_s3_reaper.h"
#include "s3_checksum.h"


typedef enum {
    NGX_S3_T_WAITING = 0,
    NGX_S3_T_RECEIVING,
    NGX_S3_T_FLUSHING,
    NGX_S3_T_FINISHING,
    NGX_S3_T_CLEANING,
    NGX_S3_T_CLOSED,
    NGX_S3_T_N
} ngx_s3_transfer_state_e;


/* of a location; made when the configuration is read */

typedef struct {
    ngx_s3_target_t         *target;
    ngx_s3_pool_t           *pool;
    ngx_s3_reaper_t         *reaper;
    ngx_s3_progress_conf_t   progress;
    size_t                   part_size;
    size_t                   window;
    ngx_uint_t               concurrency;
    ngx_uint_t               zero_copy;      /* memory of parts is lent */
    ngx_msec_t               queue_timeout;  /* for the first reservation */
    ngx_uint_t               max_ingest;     /* ingests running in an instance,
                                                0: no limit */
} ngx_s3_transfer_conf_t;


/* what is to be stored; copied */

typedef struct {
    ngx_str_t         id;            /* empty: random */
    ngx_str_t         owner;         /* empty: none */
    ngx_str_t         bucket;
    ngx_str_t         key;
    ngx_array_t      *headers;       /* of s3_field_t for the object, or NULL */
    ngx_array_t      *conditions;    /* If-Match, If-None-Match: of s3_field_t
                                        for the request that makes the object,
                                        or NULL */
    int64_t           total;         /* bytes, -1: unknown */
    s3_direction_e    direction;
    ngx_log_t        *log;           /* its writer and level are used */
    unsigned          exclusive:1;   /* no other such transfer of the same
                                        endpoint, bucket and key may be live in
                                        this instance */
    unsigned          ingest:1;      /* counts against conf->max_ingest */
    unsigned          eager:1;       /* the body is received while S3 is asked
                                        whether the conditions hold */
} ngx_s3_transfer_spec_t;


typedef enum {
    NGX_S3_RESUME = 0,               /* there is room: feed again */
    NGX_S3_DONE                      /* see result; nothing follows */
} ngx_s3_transfer_event_e;

typedef void (*ngx_s3_transfer_pt)(void *data, ngx_s3_transfer_event_e event);


typedef struct {
    ngx_uint_t        status;        /* for the client: 201, 4xx, 5xx */
    char              code[128];     /* of the error document */
    char              message[600];
    ngx_msec_t        retry_after;   /* 0: none */
} ngx_s3_result_t;


typedef struct ngx_s3_part_s      ngx_s3_part_t;
typedef struct ngx_s3_transfer_s  ngx_s3_transfer_t;

struct ngx_s3_transfer_s {
    void                     *dummy[3];  /* an event's data */
    ngx_int_t                 ident;

    ngx_s3_transfer_state_e   state;
    ngx_s3_transfer_conf_t   *conf;
    ngx_pool_t               *pool;
    ngx_log_t                *log;

    ngx_s3_transfer_pt        handler;   /* NULL: the door has left */
    void                     *data;

    ngx_s3_progress_t         progress;
    ngx_s3_result_t           result;

    ngx_str_t                 bucket;
    ngx_str_t                 key;
    ngx_array_t              *headers;
    ngx_array_t              *conditions;
    ngx_str_t                 object_id; /* <id>.<attempt> */

    s3_plan_t                 plan;
    uint64_t                  planned;   /* of the part to come, 0: not asked */
    uint64_t                  received;

    ngx_s3_part_t            *part;      /* being filled */
    ngx_queue_t               ready;     /* whole, not yet on their way */
    ngx_queue_t               sending;
    ngx_uint_t                nsending;
    ngx_s3_part_t            *spare;     /* part structures for reuse */
    ngx_uint_t                nparts;    /* numbers given out */
    ngx_s3_part_etag_t       *etags;     /* by number - 1 */
    uint64_t                 *sizes;     /* likewise, bytes */
    ngx_uint_t                netags;    /* room in both */

    ngx_s3_share_t            share;     /* memory of the part being filled */
    ngx_uint_t                kept;      /* blocks of parts that are whole */

    ngx_event_t               arrive;    /* watches over a part that is sent
                                            while it arrives */
    ngx_uint_t                arrive_from;   /* the next part that may be, */
    ngx_uint_t                missed;    /* since so many had to be sent again
                                            */
    ngx_msec_t                began;     /* the first bytes of the last part */
    uint64_t                  seen;      /* received with them */

    ngx_str_t                 upload_id;
    ngx_s3_debt_t            *debt;      /* NULL: no upload is open */
    ngx_s3_result_t           doubt;     /* what the door is told unless a look
                                            at the object shows that it is ours
                                            */
    char                      etag[136]; /* of Complete's answer */
    ngx_uint_t                compared;  /* parts up to this number, where they
                                            were sent more than once */
    ngx_uint_t                lists;     /* that did not show them so */
    ngx_msec_t                looked;    /* when a look at the object last
                                            found that the conditions hold */

    ngx_event_t               wake;      /* posted: tells the door */
    ngx_event_t               timer;     /* of standing in line */

    unsigned                  starved:1; /* feed ended with NGX_AGAIN */
    unsigned                  squeezed:1;    /* others need the memory: what
                                                makes a part is sent */
    unsigned                  whole:1;   /* the body is whole */
    unsigned                  single:1;  /* one PutObject */
    unsigned                  calling:1; /* call is on its way */
    unsigned                  eager:1;   /* the body does not wait for the
                                            first look */
    unsigned                  checked:1; /* the first look is behind us */
    unsigned                  repeated:1;    /* some part was sent twice */
    unsigned                  unlisted:1;    /* and S3 does not say how it
                                            stored it */
    unsigned                  flying:1;  /* parts were under way at the end */
    unsigned                  anew:1;    /* what is reserved was asked for by
                                            another plan */
    unsigned                  done:1;    /* the result stands */

    ngx_s3_call_t             call;      /* all but the parts: one at a time;
                                            last, as each use begins it anew */
};


/*
 * NGX_OK: *t; DONE follows some day, unless aborted. Else *result tells the
 * door what to answer, and nothing was sent anywhere: NGX_DECLINED: the object
 * is too large for the configuration (413); NGX_BUSY: the id is in use
 * ("TransferIdInUse", 409), another exclusive transfer writes the object
 * ("KeyInUse", 409), as many ingests run as may, or the zone has no room for
 * this one ("TooManyIngests", 503); NGX_ERROR: no memory (500). What a worker
 * held that died is free a few seconds later. An exclusive transfer that finds
 * no room in the zone (and is no ingest) goes on, and keeps nobody off.
 */
ngx_int_t ngx_s3_transfer_create(ngx_s3_transfer_conf_t *conf,
    ngx_s3_transfer_spec_t *spec, ngx_s3_transfer_pt handler, void *data,
    ngx_s3_transfer_t **t, ngx_s3_result_t *result);

/*
 * The length of the body, bytes, was told after the transfer was created and
 * before its first byte is fed, before or after it is admitted. The record gets
 * it, and one record goes to the stores. NGX_OK; NGX_DECLINED: the object is
 * too large for the configuration and the transfer has failed with 413, or it
 * had ended before; DONE follows.
 */
ngx_int_t ngx_s3_transfer_total(ngx_s3_transfer_t *t, int64_t total);

/* Of an origin's answer (an array of s3_field_t), what tells a reader of the
   object what its bytes are goes to the object, unless the transfer has a
   header of that name already (ngx_s3_keep() says which); before it is
   admitted. Copied. NGX_ERROR: no memory. */
ngx_int_t ngx_s3_transfer_keep(ngx_s3_transfer_t *t, ngx_array_t *fields);

/* NGX_OK: there is memory for the first part: read the body; NGX_AGAIN: RESUME
   follows; NGX_ERROR: it has failed, DONE follows */
ngx_int_t ngx_s3_transfer_admit(ngx_s3_transfer_t *t);

/*
 * Copies the chain's bytes (memory buffers) and advances their pos; keeps
 * nothing of it. NGX_OK: all; NGX_AGAIN: the rest has to wait, RESUME follows;
 * NGX_ERROR: it has failed, DONE follows.
 */
ngx_int_t ngx_s3_transfer_feed(ngx_s3_transfer_t *t, ngx_chain_t *in);

/* Where the next bytes go, which need not be copied if they are there when they
   are fed, without anything in between: returns how many, maybe 0. Only until t
   is fed or the event loop goes on. */
size_t ngx_s3_transfer_room(ngx_s3_transfer_t *t, u_char **p);

/*
 * The same memory for a source that receives there later: it stays what it is
 * until the loan, empty before, is returned, whatever becomes of the transfer.
 * Bytes that are fed from there and lie elsewhere than the next ones go are
 * moved. keeps: the source may be unable to return it when RESUME comes, so that
 * it may stay counted when nothing of t is. NGX_DECLINED: there is none now,
 * nothing is lent.
 */
ngx_int_t ngx_s3_transfer_lend(ngx_s3_transfer_t *t, ngx_uint_t keeps,
    ngx_s3_loan_t *loan);

/* The source has no more bytes at the moment: memory that it does not use may
   be lent to others until it is fed again. */
void ngx_s3_transfer_silent(ngx_s3_transfer_t *t);

/* the body is whole: DONE follows */
void ngx_s3_transfer_finish(ngx_s3_transfer_t *t);

/* The door leaves. Where the body is whole, the transfer goes on to its end;
   else it never will be: the record becomes `aborted`, or `failed` where that
   is set. No event follows, t is not the caller's any more. */
void ngx_s3_transfer_abort(ngx_s3_transfer_t *t, ngx_uint_t failed,
    const char *reason);

/* Somebody wants it to end: unless the body is whole, the record becomes
   `aborted` with that reason, and DONE follows with 409 "TransferCancelled".
   Does nothing where the body is whole or the result stands. */
void ngx_s3_transfer_cancel(ngx_s3_transfer_t *t, const char *reason);

/* a copy of an array of s3_field_t (NULL: an empty one), with its strings; room
   for one more. NGX_ERROR: no memory. */
ngx_int_t ngx_s3_fields_copy(ngx_pool_t *pool, ngx_array_t *from,
    ngx_array_t **to);


#endif /* NGX_S3_TRANSFER_H */
