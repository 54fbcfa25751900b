/*
 * What is left behind is aborted. A multipart upload is a debt from the moment
 * that S3 told its id until it is completed or aborted; the debt outlives the
 * transfer, stands in the zone, so that it outlives the worker, and in Redis,
 * so that it outlives the machine.
 *
 *            transfer's end
 *   OPEN ──────────────────▶ (gone)
 *     │ its abort failed                                 204, 404
 *     └────────────────▶ WAITING ⇄ RUNNING ──────────────────▶ (gone)
 *   zone: the owner died ───▲                                    ▲
 *   Redis: three leases passed ─▶ CLAIMING ─▶ WAITING (ListParts)┘
 *
 * Gone is a debt at once, with Redis once its entry is dropped (PAID).
 */

#ifndef NGX_S3_REAPER_H
#define NGX_S3_REAPER_H

#include "ngx_s3_api.h"
#include "ngx_s3_progress.h"


#define NGX_S3_REAPER_LEASE      300000      /* ms */
#define NGX_S3_REAPER_LEASE_MIN  1000        /* ms */
#define NGX_S3_REAPER_LEASE_MAX  86400000    /* ms */
#define NGX_S3_REAPER_LEASES     3   /* without renewal: an orphan */
#define NGX_S3_REAPER_TOLD       1024

/* ms that a leaving worker waits for a call, also for an upload's own abort */
#define NGX_S3_REAPER_HOLD       5000


typedef enum {
    NGX_S3_REAPER_OFF = 0,           /* failed aborts alone */
    NGX_S3_REAPER_ZONE,              /* and what dead workers left */
    NGX_S3_REAPER_REDIS              /* and what dead instances left */
} ngx_s3_reaper_mode_e;


typedef enum {
    NGX_S3_DEBT_OPEN = 0,            /* its transfer lives */
    NGX_S3_DEBT_WAITING,             /* for its time, or for others' calls */
    NGX_S3_DEBT_RUNNING,             /* a call is under way */
    NGX_S3_DEBT_CLAIMING,            /* another instance's entry in Redis */
    NGX_S3_DEBT_PAID                 /* its entry is to be dropped */
} ngx_s3_debt_state_e;


/* of the instance; lives as long as the cycle */

typedef struct {
    void                  *dummy[3]; /* an event's data */
    ngx_int_t              ident;

    ngx_s3_reaper_mode_e   mode;
    ngx_msec_t             lease;
    ngx_s3_stores_t       *stores;
    ngx_array_t           *targets;  /* ngx_s3_target_t * of all locations */

    /* the worker's */
    ngx_log_t             *log;
    ngx_event_t            tick;
    ngx_queue_t            debts;    /* that whose entry in Redis is oldest
                                        first */
    ngx_queue_t            paid;
    ngx_queue_t            claiming;
    ngx_queue_t            ready;    /* their time has come */
    ngx_uint_t             nwaiting; /* for an abort, or in one */
    ngx_uint_t             running;  /* calls */
    ngx_msec_t             left;     /* when it began to leave */
    char                   boot[NGX_S3_PROGRESS_ID + 1];

    /* Redis */
    ngx_uint_t             in_flight;        /* renewals */
    ngx_msec_t             looked;
    ngx_uint_t             offset;   /* of the next look */
    uint32_t               told[NGX_S3_REAPER_TOLD];     /* entries that are
                                                            left alone */
    ngx_uint_t             ntold;
    unsigned               looking:1;
    unsigned               working:1;        /* in a worker */
    unsigned               leaving:1;
    unsigned               last:1;   /* at the exit: no other one stays */
} ngx_s3_reaper_t;


typedef struct ngx_s3_debt_s  ngx_s3_debt_t;

struct ngx_s3_debt_s {
    void                  *dummy[3]; /* an event's data */
    ngx_int_t              ident;

    ngx_s3_debt_state_e    state;
    ngx_s3_reaper_t       *reaper;
    ngx_queue_t            queue;
    ngx_queue_t            ready;

    ngx_s3_target_t       *target;
    ngx_s3_target_t       *first;    /* the first of those that fit */
    ngx_str_t              bucket;
    ngx_str_t              key;
    ngx_str_t              upload_id;
    ngx_str_t              name;     /* <transfer id>.<attempt> */
    ngx_s3_slot_t         *slot;     /* NULL: not in the zone */

    ngx_log_t              log;
    ngx_event_t            timer;
    ngx_s3_call_t         *call;     /* RUNNING, */
    ngx_msec_t             began;    /* since then */
    ngx_uint_t             failures;
    time_t                 told;     /* when a failure was logged */
    ngx_uint_t             again;    /* aborts to make after the first that
                                        succeeds */
    ngx_uint_t             aborted;  /* that did */

    ngx_msec_t             lease;
    ngx_msec_t             renewed;
    ngx_uint_t             page;     /* of ListParts */
    int64_t                newest;   /* part, seconds since the epoch; -1 */
    unsigned               orphan:1; /* of another process */
    unsigned               foreign:1;        /* of another instance */
    unsigned               check:1;  /* ListParts comes first */
    unsigned               unknown:1;        /* to S3, by some keys */
    unsigned               queued:1; /* in reaper->ready */
    unsigned               dropping:1;       /* PAID, Redis was told */
};


/* what a transfer owes; copied */

typedef struct {
    ngx_s3_target_t  *target;
    ngx_str_t         bucket;
    ngx_str_t         key;
    ngx_str_t         upload_id;
    ngx_str_t         name;
    ngx_s3_slot_t    *slot;          /* NULL: untracked */
} ngx_s3_debt_spec_t;


/* at configuration; targets may still be filled. NULL: no memory. */
ngx_s3_reaper_t *ngx_s3_reaper_create(ngx_conf_t *cf,
    ngx_s3_reaper_mode_e mode, ngx_msec_t lease, ngx_s3_stores_t *stores,
    ngx_array_t *targets);

/* in a worker at its start, before ngx_s3_progress_init_worker(); NGX_ERROR:
   logged */
ngx_int_t ngx_s3_reaper_init_worker(ngx_s3_reaper_t *reaper,
    ngx_cycle_t *cycle);

/* At its exit, before ngx_s3_progress_exit_worker(): what is owed is left to
   another worker; the last one logs what stays open. */
void ngx_s3_reaper_exit_worker(ngx_s3_reaper_t *reaper);

/* S3 has created an upload: from now on it is owed. NULL: no memory. */
ngx_s3_debt_t *ngx_s3_debt_open(ngx_s3_reaper_t *reaper,
    ngx_s3_debt_spec_t *spec);

/* Completed, or not to be touched: nothing is owed any more. debt may be NULL,
   and is not the caller's any more. */
void ngx_s3_debt_settle(ngx_s3_debt_t *debt);

/*
 * The transfer's own abort has ended with call's result; what is left to be
 * done is the reaper's. flying: parts were under way, S3 may have stored one
 * after the abort. debt as above.
 */
void ngx_s3_debt_aborted(ngx_s3_debt_t *debt, ngx_s3_call_t *call,
    ngx_uint_t flying);


/* between the reaper's two files */

/* NULL: no memory, or too many */
ngx_s3_debt_t *ngx_s3_debt_create(ngx_s3_reaper_t *reaper,
    ngx_s3_debt_spec_t *spec);

/* it is out of the debt's queue, nothing is told to anybody */
void ngx_s3_debt_free(ngx_s3_debt_t *debt);

/* its next call, after delay ms */
void ngx_s3_debt_due(ngx_s3_debt_t *debt, ngx_msec_t delay);

/* that of the configuration for an endpoint and a bucket that follows `after`
   (NULL: the first); NULL: none */
ngx_s3_target_t *ngx_s3_reaper_target(ngx_s3_reaper_t *reaper,
    uint64_t endpoint, ngx_str_t *bucket, ngx_s3_target_t *after);

/* another location for an orphan's endpoint and bucket may have better keys.
   1: the debt has others; 0: there are none, it has its first again */
ngx_uint_t ngx_s3_debt_other_keys(ngx_s3_debt_t *debt);

/* whether it was told before that an entry is left alone */
ngx_uint_t ngx_s3_reaper_told(ngx_s3_reaper_t *reaper, ngx_str_t *name);

/* in ngx_s3_reaper_redis.c: a new debt's entry is written, a paid one's is
   dropped and then the debt is freed; what is due is done */
void ngx_s3_reaper_redis_open(ngx_s3_debt_t *debt);
void ngx_s3_reaper_redis_paid(ngx_s3_debt_t *debt);
void ngx_s3_reaper_redis_tick(ngx_s3_reaper_t *reaper);


#endif /* NGX_S3_REAPER_H */
