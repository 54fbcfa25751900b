/*
 * The Redis store: what its three files share. hiredis writes commands and
 * reads replies, the socket is an ngx_s3_conn_t.
 */

#ifndef NGX_S3_REDIS_H
#define NGX_S3_REDIS_H

#include <hiredis/hiredis.h>

#include "ngx_s3_store.h"


typedef enum {
    NGX_S3_REDIS_AUTH = 0,
    NGX_S3_REDIS_SELECT,
    NGX_S3_REDIS_SETNAME,
    NGX_S3_REDIS_PING,               /* ends the greeting */
    NGX_S3_REDIS_WRITE,
    NGX_S3_REDIS_READ,
    NGX_S3_REDIS_SCRIPT
} ngx_s3_redis_op_e;


/* as the directive says it */

typedef struct {
    ngx_s3_endpoint_t  *endpoint;
    ngx_str_t           user;        /* empty: none */
    ngx_str_t           password;    /* empty: none; never logged */
    ngx_uint_t          db;
    ngx_str_t           prefix;      /* of keys */
    ngx_str_t           channel;     /* empty: nothing is published */
    char                sha1[41];    /* the script's name */
} ngx_s3_redis_conf_t;


#define NGX_S3_REDIS_FOREIGN  2      /* the script's reply: the record that
                                        stands there is another owner's */


/* one command: waits to be sent, then for its reply */

typedef struct {
    ngx_queue_t             queue;
    ngx_s3_redis_op_e       type;
    char                   *command; /* hiredis's memory; NULL once sent */
    size_t                  len;
    size_t                  sent;
    ngx_s3_store_write_pt   handler; /* WRITE */
    void                   *data;
    s3_record_t            *record;  /* WRITE: for sending it once more */
    unsigned                eval:1;  /* WRITE: went with the whole script */
    ngx_s3_store_read_t    *read;    /* READ; NULL once cancelled */
    ngx_s3_store_script_t  *script;  /* SCRIPT; its strings die with eval() */
    ngx_s3_store_reply_pt   replied; /* SCRIPT */
} ngx_s3_redis_op_t;


/* what an error reply means to a write */

typedef enum {
    NGX_S3_REDIS_E_RECORD = 0,       /* this record is refused for good */
    NGX_S3_REDIS_E_NOSCRIPT,
    NGX_S3_REDIS_E_STORE             /* all writes fail now */
} ngx_s3_redis_error_e;


/*
 *   off --> connecting --> greeting --> ready
 *    ^          |              |          |
 *    +----------+--------------+----------+   all ops end, back-off
 */

typedef enum {
    NGX_S3_REDIS_OFF = 0,
    NGX_S3_REDIS_CONNECTING,
    NGX_S3_REDIS_GREETING,
    NGX_S3_REDIS_READY
} ngx_s3_redis_state_e;


/* a greeting proves nothing where it was not the greeting that failed */

typedef enum {
    NGX_S3_REDIS_BY_GREETING = 0,
    NGX_S3_REDIS_BY_REPLY,           /* or by a connection that lasts */
    NGX_S3_REDIS_BY_WRITE            /* writes were refused */
} ngx_s3_redis_proof_e;


typedef struct {
    ngx_s3_store_t        *store;
    ngx_s3_redis_conf_t   *conf;
    void                  *unused;
    ngx_int_t              ident;    /* -1: the descriptor, as the debug log
                                        of timers sees this structure */

    /* the worker's */
    ngx_s3_redis_state_e   state;
    ngx_s3_conn_t         *sc;
    redisReader           *reader;
    ngx_queue_t            ops;      /* in the order of their replies */
    ngx_s3_redis_op_t     *unsent;   /* the first that is not wholly sent */
    ngx_uint_t             nops;
    ngx_uint_t             nreads;
    ngx_event_t            timer;    /* off: back-off, else: for a reply, or
                                        without ops until it has lasted */
    ngx_log_t              log;      /* of connections */
    ngx_msec_t             ready_at;
    ngx_s3_redis_proof_e   proof;    /* what ends the outage */
    unsigned               told:1;   /* that a record was refused */
} ngx_s3_redis_t;


/* in ngx_s3_redis.c */

/* Takes op over, also where there is no memory for its command. Sending is
   left to an event: what comes together goes together. */
ngx_int_t ngx_s3_redis_push(ngx_s3_redis_t *redis, ngx_s3_redis_op_t *op);

/* takes the first op off, which is the caller's then */
void ngx_s3_redis_pop(ngx_s3_redis_t *redis, ngx_s3_redis_op_t *op);

/* what ends an outage was seen */
void ngx_s3_redis_proven(ngx_s3_redis_t *redis, ngx_s3_redis_proof_e proof);

/* a store that is to be used: begins to connect where nothing else will */
ngx_uint_t ngx_s3_redis_usable(ngx_s3_redis_t *redis);


/* in ngx_s3_redis_script.c */

/* the store's eval() */
ngx_int_t ngx_s3_redis_eval(ngx_s3_store_t *store,
    ngx_s3_store_script_t *script);

/* takes op off, frees reply and calls the handler */
void ngx_s3_redis_scripted(ngx_s3_redis_t *redis, ngx_s3_redis_op_t *op,
    redisReply *reply);


/* in ngx_s3_redis_proto.c */

/* the script's SHA-1, for EVALSHA */
void ngx_s3_redis_script(ngx_s3_redis_conf_t *conf);

/* an op of the heap, zeroed but for its type; NULL: no memory */
ngx_s3_redis_op_t *ngx_s3_redis_op(ngx_s3_redis_op_e type);

/* frees op with its command and its copy of a record */
void ngx_s3_redis_free(ngx_s3_redis_op_t *op);

/* frees op, which is in no queue any more, and calls its handler */
void ngx_s3_redis_answer(ngx_s3_redis_op_t *op, ngx_int_t rc);

/* makes op->command. NGX_ERROR: no memory; NGX_DECLINED: too large. */
ngx_int_t ngx_s3_redis_format(ngx_s3_redis_conf_t *conf,
    ngx_s3_redis_op_t *op);

redisReader *ngx_s3_redis_reader(void);

/* a reply to a READ: as ngx_s3_store_read_s.handler's rc */
ngx_int_t ngx_s3_redis_parse(redisReply *reply, ngx_str_t *id,
    s3_record_t *record);

ngx_s3_redis_error_e ngx_s3_redis_error(redisReply *reply);

/* the reason (NGX_S3_REASON bytes) why a write or a read, which what says, was
   refused */
void ngx_s3_redis_said(redisReply *reply, const char *what, char *reason);

/* NGX_OK: the greeting goes on; NGX_ERROR: reason (NGX_S3_REASON bytes) */
ngx_int_t ngx_s3_redis_greeted(ngx_s3_redis_op_t *op, redisReply *reply,
    char *reason);

/* the store without its functions. NULL: logged. */
ngx_s3_redis_conf_t *ngx_s3_redis_configure(ngx_conf_t *cf,
    ngx_s3_store_t *store, ngx_str_t *args, ngx_uint_t n);


#endif /* NGX_S3_REDIS_H */
