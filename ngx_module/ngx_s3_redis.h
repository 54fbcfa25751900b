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
    NGX_S3_REDIS_READ
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
} ngx_s3_redis_op_t;


/* what an error reply means to a write */

typedef enum {
    NGX_S3_REDIS_E_RECORD = 0,       /* this record is refused for good */
    NGX_S3_REDIS_E_NOSCRIPT,
    NGX_S3_REDIS_E_STORE             /* all writes fail now */
} ngx_s3_redis_error_e;


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
