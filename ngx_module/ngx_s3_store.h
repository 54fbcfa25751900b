/*
 * A progress store behind one table of functions. A store reconnects, signs
 * in, times out and tells of its outages; it knows nothing of gates.
 */

#ifndef NGX_S3_STORE_H
#define NGX_S3_STORE_H

#include "ngx_s3_conn.h"
#include "ngx_s3_zone.h"
#include "s3_record.h"


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

struct ngx_s3_store_s {
    const char               *name;  /* "redis", "dynamodb" */
    /* in a worker, at its start: NGX_OK or NGX_ERROR */
    ngx_int_t               (*open)(ngx_s3_store_t *store, ngx_cycle_t *cycle);
    /* takes a copy of record; handler is called once, never from write();
       NGX_ERROR: not taken (the store is down, or no memory) */
    ngx_int_t               (*write)(ngx_s3_store_t *store,
                                const s3_record_t *record,
                                ngx_s3_store_write_pt handler, void *data);
    ngx_int_t               (*read)(ngx_s3_store_t *store,
                                ngx_s3_store_read_t *read);
    void                    (*cancel)(ngx_s3_store_t *store,
                                ngx_s3_store_read_t *read);
    void                    (*close)(ngx_s3_store_t *store);
    /* set by ngx_s3_progress: the store is up again, queued writes may go */
    void                    (*ready)(ngx_s3_store_t *store);
    ngx_s3_store_counters_t *(*counters)(ngx_s3_counters_t *counters);
    ngx_msec_t                ttl;   /* life of a record, ms */
    void                     *progress;      /* ngx_s3_progress's queue */
    void                     *conf;  /* the store's own */
};


/* configuration: s3_progress_redis URL [prefix= ttl= channel=
   password_file=]; args[0] is the URL. NULL: logged. */
ngx_s3_store_t *ngx_s3_redis_create(ngx_conf_t *cf, ngx_str_t *args,
    ngx_uint_t n);

/* s3_progress_dynamodb URL table= [region= ttl=]; credentials are set by
   ngx_s3_dynamodb_credentials() once they are known */
ngx_s3_store_t *ngx_s3_dynamodb_create(ngx_conf_t *cf, ngx_str_t *args,
    ngx_uint_t n);


#endif /* NGX_S3_STORE_H */
