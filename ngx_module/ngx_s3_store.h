/*
 * A progress store behind one table of functions. A store reconnects, signs
 * in, times out and tells of its outages; it knows nothing of gates. What it
 * does never blocks the worker and never fails a transfer.
 */

#ifndef NGX_S3_STORE_H
#define NGX_S3_STORE_H

#include "ngx_s3_conn.h"
#include "ngx_s3_credentials.h"
#include "ngx_s3_zone.h"
#include "s3_record.h"


#define NGX_S3_STORE_TTL      86400000       /* ms: 24 h */
#define NGX_S3_STORE_TTL_MIN  10000          /* ms */


typedef struct ngx_s3_store_s       ngx_s3_store_t;
typedef struct ngx_s3_store_read_s  ngx_s3_store_read_t;

/* NGX_OK: stored, or a newer record stands there; NGX_ERROR: not stored, worth
   another try later; NGX_DECLINED: refused for good (this record) */
typedef void (*ngx_s3_store_write_pt)(void *data, ngx_int_t rc);

struct ngx_s3_store_read_s {
    ngx_str_t     id;                /* the caller's memory until the end */
    void        (*handler)(ngx_s3_store_read_t *read, ngx_int_t rc);
                                     /* NGX_OK: record; NGX_DECLINED: unknown;
                                        NGX_ERROR: the store did not answer */
    void         *data;
    s3_record_t   record;
    void         *state;             /* private to the store */
};

/* the answer to a script: a list of strings, valid during the call. NGX_ERROR:
   the store did not answer, or refused (logged) */
typedef void (*ngx_s3_store_reply_pt)(void *data, ngx_int_t rc,
    ngx_str_t *items, ngx_uint_t n);

#define NGX_S3_STORE_KEYS  2

/* a script in the store's own language, all strings copied by eval() */

typedef struct {
    const char              *text;   /* lives for ever */
    ngx_str_t                keys[NGX_S3_STORE_KEYS];    /* without the
                                                            prefix */
    ngx_uint_t               nkeys;
    ngx_str_t               *args;
    ngx_uint_t               nargs;
    ngx_s3_store_reply_pt    handler;
    void                    *data;
} ngx_s3_store_script_t;

struct ngx_s3_store_s {
    const char               *name;  /* "redis", "dynamodb" */
    /* in a worker, at its start: NGX_OK or NGX_ERROR */
    ngx_int_t               (*open)(ngx_s3_store_t *store, ngx_cycle_t *cycle);
    /* takes a copy of record; handler is called once, never from write(),
       unless the store is closed first; NGX_ERROR: not taken (the store is
       down, busy, or no memory), ready() follows once it may work;
       NGX_DECLINED: this record has no form in the store */
    ngx_int_t               (*write)(ngx_s3_store_t *store,
                                const s3_record_t *record,
                                ngx_s3_store_write_pt handler, void *data);
    /* NGX_OK: handler is called once, never from read(); NGX_ERROR: the store
       is down, it is not */
    ngx_int_t               (*read)(ngx_s3_store_t *store,
                                ngx_s3_store_read_t *read);
    /* the handler is not called any more */
    void                    (*cancel)(ngx_s3_store_t *store,
                                ngx_s3_store_read_t *read);
    /* runs a script. NGX_OK: handler is called once, never from eval(), unless
       the store is closed first; NGX_ERROR: the store is down, or there is no
       memory, it is not. NULL: the store has no scripts. */
    ngx_int_t               (*eval)(ngx_s3_store_t *store,
                                ngx_s3_store_script_t *script);
    /* ends all it does, without I/O and without calling a handler */
    void                    (*close)(ngx_s3_store_t *store);
    /* the worker is leaving: try at once, do not wait out a back-off */
    void                    (*hurry)(ngx_s3_store_t *store);
    /* set by the queue: the store may work, waiting records may go */
    void                    (*ready)(ngx_s3_store_t *store);
    ngx_s3_store_counters_t *(*counters)(ngx_s3_counters_t *counters);
    ngx_msec_t                ttl;   /* life of a record, ms */
    void                     *progress;      /* the queue */
    void                     *conf;  /* the store's own */
    ngx_s3_endpoint_t        *endpoint;

    ngx_str_t                 where; /* host and port for messages, without a
                                        password */
    ngx_uint_t                max;   /* writes in flight at most */

    /* the worker's: the outage, kept by ngx_s3_store.c */
    ngx_log_t                *log;
    ngx_s3_store_counters_t  *count; /* never NULL once there is a queue */
    ngx_uint_t                limit; /* writes in flight that are allowed now:
                                        1 after a failure, up to max */
    ngx_uint_t                waiting;       /* records in the queue */
    ngx_uint_t                failures;      /* in a row */
    time_t                    down_since;
    time_t                    window;        /* when outages began to be */
    ngx_uint_t                logged;        /* counted, and how many */
    time_t                    unread;        /* a failed read was logged */
    unsigned                  up:1;
    unsigned                  down:1;
    unsigned                  quiet:1;       /* the outage is logged as info:
                                                one of too many */
};


/* configuration: s3_progress_redis URL [prefix= ttl= channel= password_file=
   ca=]; args[0] is the URL. NULL: logged (never with a password). */
ngx_s3_store_t *ngx_s3_redis_create(ngx_conf_t *cf, ngx_str_t *args,
    ngx_uint_t n);

/* s3_progress_dynamodb URL table= [region= ttl=]; args[0] is the URL. The
   store is complete once ngx_s3_dynamodb_set() was called. NULL: logged. */
ngx_s3_store_t *ngx_s3_dynamodb_create(ngx_conf_t *cf, ngx_str_t *args,
    ngx_uint_t n);

/*
 * The keys to sign with, and how to verify the endpoint (NULL: nginx's
 * default protocols, the system's certificates), once the configuration is
 * read. missing is what ngx_s3_credentials_create() left there. NGX_ERROR: no
 * keys or no TLS context, logged.
 */
ngx_int_t ngx_s3_dynamodb_set(ngx_conf_t *cf, ngx_s3_store_t *store,
    ngx_s3_credentials_t *credentials, ngx_str_t *missing,
    ngx_s3_ssl_conf_t *ssl);


/* for the stores: name=value out of args, NGX_DECLINED: another name */
ngx_int_t ngx_s3_store_arg(ngx_str_t *arg, const char *name,
    ngx_str_t *value);

/* the value of ttl=; NGX_ERROR: logged */
ngx_int_t ngx_s3_store_ttl(ngx_conf_t *cf, ngx_s3_store_t *store,
    ngx_str_t *value);

/* A log for the connections of a store, whose tries in an outage are not worth
   a line each: errors alone, unless debugging. */
void ngx_s3_store_log(ngx_log_t *from, ngx_log_t *to);

/* A failure that concerns all writes: the outage begins, or goes on. reason
   has no secret; its control bytes are not logged. */
void ngx_s3_store_failed(ngx_s3_store_t *store, const char *reason);

/* A record of this transfer was refused, as the one that stands there is
   another owner's: a line for the last one. */
void ngx_s3_store_foreign(ngx_s3_store_t *store, const char *id,
    s3_state_e state);

/* A read failed for a reason that no outage tells: a line a minute at most.
   reason has neither secrets nor control bytes. */
void ngx_s3_store_unread(ngx_s3_store_t *store, const char *reason);

/* a write (or a greeting, where that was what failed) succeeded: an outage
   ends, more writes may be in flight */
void ngx_s3_store_works(ngx_s3_store_t *store);

/* the store is closed: it is no longer one that works */
void ngx_s3_store_closed(ngx_s3_store_t *store);

/* ms to wait after the failures so far: 250 ms to cap, half of it jitter */
ngx_msec_t ngx_s3_store_delay(ngx_s3_store_t *store, ngx_msec_t cap);

/* now in ms since the epoch, as the event loop knows it */
uint64_t ngx_s3_store_now(void);


#endif /* NGX_S3_STORE_H */
