#include "ngx_s3_redis.h"


#define NGX_S3_REDIS_WRITES   64     /* in flight */
#define NGX_S3_REDIS_READS    256
#define NGX_S3_REDIS_REPLY    5000   /* ms until a reply comes */
#define NGX_S3_REDIS_BACKOFF  10000  /* ms at most between two connections */
#define NGX_S3_REDIS_YOUNG    1000   /* ms: a connection that lived longer may
                                        have been closed for being idle */
#define NGX_S3_REDIS_LASTING  3000   /* ms: that proves that it works */
#define NGX_S3_REDIS_AGAIN    100    /* ms, after the worker closed it */
#define NGX_S3_REDIS_UNREAD   (1024 * 1024)  /* bytes of an unfinished reply */


static ngx_int_t ngx_s3_redis_open(ngx_s3_store_t *store, ngx_cycle_t *cycle);
static ngx_int_t ngx_s3_redis_write(ngx_s3_store_t *store,
    const s3_record_t *record, ngx_s3_store_write_pt handler, void *data);
static ngx_int_t ngx_s3_redis_read(ngx_s3_store_t *store,
    ngx_s3_store_read_t *read);
static void ngx_s3_redis_cancel(ngx_s3_store_t *store,
    ngx_s3_store_read_t *read);
static void ngx_s3_redis_close(ngx_s3_store_t *store);
static void ngx_s3_redis_hurry(ngx_s3_store_t *store);
static ngx_s3_store_counters_t *ngx_s3_redis_counters(
    ngx_s3_counters_t *counters);

static void ngx_s3_redis_connect(ngx_s3_redis_t *redis);
static void ngx_s3_redis_connected(ngx_s3_conn_t *sc);
static void ngx_s3_redis_postpone(ngx_s3_redis_t *redis);
static ngx_int_t ngx_s3_redis_greet(ngx_s3_redis_t *redis);
static void ngx_s3_redis_send_handler(ngx_s3_conn_t *sc);
static void ngx_s3_redis_recv_handler(ngx_s3_conn_t *sc);
static ngx_int_t ngx_s3_redis_feed(ngx_s3_redis_t *redis, u_char *p,
    size_t len, char *reason);
static ngx_int_t ngx_s3_redis_reply(ngx_s3_redis_t *redis, redisReply *reply,
    char *reason);
static ngx_int_t ngx_s3_redis_greeting(ngx_s3_redis_t *redis,
    ngx_s3_redis_op_t *op, redisReply *reply, char *reason);
static ngx_int_t ngx_s3_redis_written(ngx_s3_redis_t *redis,
    ngx_s3_redis_op_t *op, redisReply *reply, char *reason);
static void ngx_s3_redis_timer_handler(ngx_event_t *ev);
static ngx_uint_t ngx_s3_redis_leaving(ngx_s3_redis_t *redis);
static void ngx_s3_redis_lost(ngx_s3_redis_t *redis, const char *reason);
static void ngx_s3_redis_fail(ngx_s3_redis_t *redis, const char *reason);
static void ngx_s3_redis_stop(ngx_s3_redis_t *redis, ngx_queue_t *ops);
static void ngx_s3_redis_end(ngx_queue_t *ops);


ngx_s3_store_t *
ngx_s3_redis_create(ngx_conf_t *cf, ngx_str_t *args, ngx_uint_t n)
{
    ngx_s3_redis_t  *redis;
    ngx_s3_store_t  *store;

    store = ngx_pcalloc(cf->pool, sizeof(ngx_s3_store_t));
    redis = ngx_pcalloc(cf->pool, sizeof(ngx_s3_redis_t));

    if (store == NULL || redis == NULL) {
        return NULL;
    }

    store->name = "redis";
    store->ttl = NGX_S3_STORE_TTL;
    store->max = NGX_S3_REDIS_WRITES;

    redis->conf = ngx_s3_redis_configure(cf, store, args, n);
    if (redis->conf == NULL) {
        return NULL;
    }

    ngx_s3_redis_script(redis->conf);

    redis->store = store;
    redis->ident = -1;

    store->open = ngx_s3_redis_open;
    store->write = ngx_s3_redis_write;
    store->read = ngx_s3_redis_read;
    store->eval = ngx_s3_redis_eval;
    store->cancel = ngx_s3_redis_cancel;
    store->close = ngx_s3_redis_close;
    store->hurry = ngx_s3_redis_hurry;
    store->counters = ngx_s3_redis_counters;
    store->conf = redis;

    return store;
}


static ngx_int_t
ngx_s3_redis_open(ngx_s3_store_t *store, ngx_cycle_t *cycle)
{
    ngx_s3_redis_t *redis = store->conf;

    ngx_queue_init(&redis->ops);

    redis->timer.handler = ngx_s3_redis_timer_handler;
    redis->timer.data = redis;
    redis->timer.log = cycle->log;
    redis->timer.cancelable = 1;

    ngx_s3_store_log(cycle->log, &redis->log);

    ngx_s3_redis_connect(redis);

    return NGX_OK;
}


static ngx_s3_store_counters_t *
ngx_s3_redis_counters(ngx_s3_counters_t *counters)
{
    return &counters->redis;
}


static ngx_int_t
ngx_s3_redis_write(ngx_s3_store_t *store, const s3_record_t *record,
    ngx_s3_store_write_pt handler, void *data)
{
    ngx_s3_redis_t *redis = store->conf;

    ngx_s3_redis_op_t  *op;

    if (!ngx_s3_redis_usable(redis)) {
        return NGX_ERROR;
    }

    op = ngx_s3_redis_op(NGX_S3_REDIS_WRITE);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->record = ngx_alloc(sizeof(s3_record_t), store->log);
    if (op->record == NULL) {
        ngx_s3_redis_free(op);
        return NGX_ERROR;
    }

    *op->record = *record;
    op->handler = handler;
    op->data = data;

    return ngx_s3_redis_push(redis, op);
}


ngx_uint_t
ngx_s3_redis_usable(ngx_s3_redis_t *redis)
{
    /* closed for being idle when the worker began to leave */

    if (redis->state == NGX_S3_REDIS_OFF && !redis->timer.timer_set) {
        ngx_s3_redis_connect(redis);
    }

    return redis->state == NGX_S3_REDIS_READY;
}


static ngx_int_t
ngx_s3_redis_read(ngx_s3_store_t *store, ngx_s3_store_read_t *read)
{
    ngx_s3_redis_t *redis = store->conf;

    ngx_s3_redis_op_t  *op;

    read->state = NULL;

    if (redis->state != NGX_S3_REDIS_READY) {
        return NGX_ERROR;
    }

    if (redis->nreads >= NGX_S3_REDIS_READS) {
        ngx_s3_store_unread(store, "too many reads are under way");
        return NGX_ERROR;
    }

    op = ngx_s3_redis_op(NGX_S3_REDIS_READ);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->read = read;

    if (ngx_s3_redis_push(redis, op) != NGX_OK) {
        return NGX_ERROR;
    }

    read->state = op;
    redis->nreads++;

    return NGX_OK;
}


/* the reply still comes, and is thrown away */

static void
ngx_s3_redis_cancel(ngx_s3_store_t *store, ngx_s3_store_read_t *read)
{
    ngx_s3_redis_op_t *op = read->state;

    if (op) {
        op->read = NULL;
        read->state = NULL;
    }
}


static void
ngx_s3_redis_close(ngx_s3_store_t *store)
{
    ngx_s3_redis_t *redis = store->conf;

    ngx_queue_t         ops;
    ngx_s3_redis_op_t  *op;

    ngx_s3_redis_stop(redis, &ops);

    while (!ngx_queue_empty(&ops)) {
        op = ngx_queue_data(ngx_queue_head(&ops), ngx_s3_redis_op_t, queue);
        ngx_queue_remove(&op->queue);

        if (op->read) {
            op->read->state = NULL;
        }

        ngx_s3_redis_free(op);
    }

    ngx_s3_endpoint_close_idle(redis->conf->endpoint);
}


static void
ngx_s3_redis_hurry(ngx_s3_store_t *store)
{
    ngx_s3_redis_t *redis = store->conf;

    if (redis->state != NGX_S3_REDIS_OFF) {
        return;
    }

    if (redis->timer.timer_set) {
        ngx_del_timer(&redis->timer);
    }

    ngx_s3_redis_connect(redis);
}


static void
ngx_s3_redis_connect(ngx_s3_redis_t *redis)
{
    ngx_str_t  host;

    ngx_str_null(&host);

    redis->state = NGX_S3_REDIS_CONNECTING;

    redis->sc = ngx_s3_conn_open(redis->conf->endpoint, &host, 1, &redis->log,
                                 ngx_s3_redis_connected, redis);

    if (redis->sc == NULL) {
        ngx_s3_redis_fail(redis, "no memory to connect");
    }
}


static void
ngx_s3_redis_connected(ngx_s3_conn_t *sc)
{
    ngx_s3_redis_t *redis = sc->data;

    if (sc->error != NGX_S3_E_NONE) {

        if (ngx_strcmp(sc->reason, NGX_S3_LEAVING) == 0) {
            ngx_s3_redis_postpone(redis);
            return;
        }

        ngx_s3_redis_fail(redis, sc->reason);
        return;
    }

    sc->read = ngx_s3_redis_recv_handler;
    sc->write = ngx_s3_redis_send_handler;

    /* a leaving worker tells by connection->close, see the reader */

    sc->connection->idle = 1;

    redis->told = 0;
    redis->state = NGX_S3_REDIS_GREETING;
    redis->reader = ngx_s3_redis_reader();

    if (redis->reader == NULL || ngx_s3_redis_greet(redis) != NGX_OK) {
        ngx_s3_redis_fail(redis, "no memory for a greeting");
    }
}


/* A leaving worker closes all connections once, also those that were opened
   meanwhile: that is not an outage. */

static void
ngx_s3_redis_postpone(ngx_s3_redis_t *redis)
{
    ngx_queue_t  ops;

    ngx_s3_redis_stop(redis, &ops);
    ngx_add_timer(&redis->timer, NGX_S3_REDIS_AGAIN);
    ngx_s3_redis_end(&ops);
}


static ngx_int_t
ngx_s3_redis_greet(ngx_s3_redis_t *redis)
{
    ngx_uint_t            i;
    ngx_s3_redis_op_t    *op;
    ngx_s3_redis_conf_t  *conf;

    conf = redis->conf;

    for (i = NGX_S3_REDIS_AUTH; i <= NGX_S3_REDIS_PING; i++) {

        if ((i == NGX_S3_REDIS_AUTH && conf->password.len == 0)
            || (i == NGX_S3_REDIS_SELECT && conf->db == 0))
        {
            continue;
        }

        op = ngx_s3_redis_op(i);

        if (op == NULL || ngx_s3_redis_push(redis, op) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_s3_redis_push(ngx_s3_redis_t *redis, ngx_s3_redis_op_t *op)
{
    ngx_int_t  rc;

    rc = ngx_s3_redis_format(redis->conf, op);

    if (rc != NGX_OK) {
        ngx_s3_redis_free(op);
        return rc;
    }

    if (redis->nops++ == 0) {
        ngx_add_timer(&redis->timer, NGX_S3_REDIS_REPLY);
    }

    if (redis->unsent == NULL) {
        redis->unsent = op;
        ngx_post_event(redis->sc->connection->write, &ngx_posted_events);
    }

    ngx_queue_insert_tail(&redis->ops, &op->queue);

    return NGX_OK;
}


static void
ngx_s3_redis_send_handler(ngx_s3_conn_t *sc)
{
    ngx_s3_redis_t *redis = sc->data;

    ssize_t             n;
    ngx_queue_t        *next;
    ngx_connection_t   *c;
    ngx_s3_redis_op_t  *op;

    c = sc->connection;

    while (redis->unsent) {
        op = redis->unsent;

        /* over TLS the same bytes at the same address until they are gone */

        n = c->send(c, (u_char *) op->command + op->sent, op->len - op->sent);

        if (n == NGX_AGAIN) {
            break;
        }

        if (n == NGX_ERROR || n == 0) {
            ngx_s3_redis_lost(redis, "sending failed");
            return;
        }

        op->sent += n;

        if (op->sent < op->len) {
            continue;
        }

        redisFreeCommand(op->command);
        op->command = NULL;

        next = ngx_queue_next(&op->queue);

        redis->unsent = (next == ngx_queue_sentinel(&redis->ops)) ? NULL
                        : ngx_queue_data(next, ngx_s3_redis_op_t, queue);
    }

    if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
        ngx_s3_redis_lost(redis, "sending failed");
    }
}


static void
ngx_s3_redis_recv_handler(ngx_s3_conn_t *sc)
{
    ngx_s3_redis_t *redis = sc->data;

    char               reason[NGX_S3_REASON];
    ssize_t            n;
    ngx_connection_t  *c;
    u_char             buf[8192];

    c = sc->connection;

    if (c->close && ngx_s3_redis_leaving(redis)) {
        return;
    }

    for ( ;; ) {
        n = c->recv(c, buf, sizeof(buf));

        if (n == NGX_AGAIN) {
            break;
        }

        if (n == 0 || n == NGX_ERROR) {
            ngx_s3_redis_lost(redis, n ? "receiving failed"
                                       : "closed by the server");
            return;
        }

        if (ngx_s3_redis_feed(redis, buf, n, reason) != NGX_OK) {
            ngx_s3_redis_fail(redis, reason);
            return;
        }
    }

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_s3_redis_lost(redis, "receiving failed");
    }
}


/* Handlers that are called from here may add commands, but none ends the
   connection, nor sends: that would be in the middle of its replies. */

static ngx_int_t
ngx_s3_redis_feed(ngx_s3_redis_t *redis, u_char *p, size_t len, char *reason)
{
    void         *reply;
    ngx_int_t     rc;
    redisReader  *reader;

    reader = redis->reader;

    if (reader->len - reader->pos + len > NGX_S3_REDIS_UNREAD) {
        ngx_s3_reason(reason, "a reply is too large");
        return NGX_ERROR;
    }

    if (redisReaderFeed(reader, (char *) p, len) != REDIS_OK) {
        ngx_s3_reason(reason, "no memory for a reply");
        return NGX_ERROR;
    }

    for ( ;; ) {

        if (redisReaderGetReply(reader, &reply) != REDIS_OK) {
            ngx_s3_reason(reason, "not a reply of Redis: %s", reader->errstr);
            return NGX_ERROR;
        }

        if (reply == NULL) {
            return NGX_OK;
        }

        rc = ngx_s3_redis_reply(redis, reply, reason);

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }
    }
}


/* reply is freed here, before any handler of another floor is called */

static ngx_int_t
ngx_s3_redis_reply(ngx_s3_redis_t *redis, redisReply *reply, char *reason)
{
    ngx_int_t           rc;
    ngx_s3_redis_op_t  *op;

    op = NULL;

    if (!ngx_queue_empty(&redis->ops)) {
        op = ngx_queue_data(ngx_queue_head(&redis->ops), ngx_s3_redis_op_t,
                            queue);
    }

    if (op == NULL || op->command) {
        freeReplyObject(reply);
        ngx_s3_reason(reason, "a reply to nothing");
        return NGX_ERROR;
    }

    if (op->type == NGX_S3_REDIS_WRITE) {
        return ngx_s3_redis_written(redis, op, reply, reason);
    }

    if (op->type == NGX_S3_REDIS_SCRIPT) {
        ngx_s3_redis_scripted(redis, op, reply);
        return NGX_OK;
    }

    if (op->type != NGX_S3_REDIS_READ) {
        return ngx_s3_redis_greeting(redis, op, reply, reason);
    }

    rc = NGX_OK;

    if (op->read) {
        rc = ngx_s3_redis_parse(reply, &op->read->id, &op->read->record);

        if (rc == NGX_ERROR) {
            ngx_s3_redis_said(reply, "read", reason);
            ngx_s3_store_unread(redis->store, reason);
        }
    }

    freeReplyObject(reply);

    redis->nreads--;
    ngx_s3_redis_proven(redis, NGX_S3_REDIS_BY_REPLY);

    ngx_s3_redis_pop(redis, op);
    ngx_s3_redis_answer(op, rc);

    return NGX_OK;
}


void
ngx_s3_redis_pop(ngx_s3_redis_t *redis, ngx_s3_redis_op_t *op)
{
    ngx_queue_remove(&op->queue);

    if (--redis->nops) {
        ngx_add_timer(&redis->timer, NGX_S3_REDIS_REPLY);

    } else if (redis->proof == NGX_S3_REDIS_BY_REPLY) {
        ngx_add_timer(&redis->timer, NGX_S3_REDIS_LASTING);

    } else {
        ngx_del_timer(&redis->timer);
    }
}


void
ngx_s3_redis_proven(ngx_s3_redis_t *redis, ngx_s3_redis_proof_e proof)
{
    if (redis->proof <= proof) {
        redis->proof = NGX_S3_REDIS_BY_GREETING;
        ngx_s3_store_works(redis->store);
    }
}


static ngx_int_t
ngx_s3_redis_greeting(ngx_s3_redis_t *redis, ngx_s3_redis_op_t *op,
    redisReply *reply, char *reason)
{
    ngx_int_t          rc;
    ngx_s3_redis_op_e  type;

    rc = ngx_s3_redis_greeted(op, reply, reason);

    freeReplyObject(reply);

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    type = op->type;

    ngx_s3_redis_pop(redis, op);
    ngx_s3_redis_free(op);

    if (type != NGX_S3_REDIS_PING) {
        return NGX_OK;
    }

    redis->state = NGX_S3_REDIS_READY;
    redis->ready_at = ngx_current_msec;

    ngx_s3_redis_proven(redis, NGX_S3_REDIS_BY_GREETING);

    redis->store->ready(redis->store);

    return NGX_OK;
}


static ngx_int_t
ngx_s3_redis_written(ngx_s3_redis_t *redis, ngx_s3_redis_op_t *op,
    redisReply *reply, char *reason)
{
    ngx_int_t              rc;
    ngx_s3_redis_op_t      copy;
    ngx_s3_redis_error_e   error;

    rc = NGX_OK;

    if (reply->type != REDIS_REPLY_INTEGER) {
        error = ngx_s3_redis_error(reply);

        if (error == NGX_S3_REDIS_E_STORE
            || (error == NGX_S3_REDIS_E_NOSCRIPT && op->eval))
        {
            redis->proof = NGX_S3_REDIS_BY_WRITE;
            ngx_s3_redis_said(reply, "write", reason);
            freeReplyObject(reply);
            return NGX_ERROR;
        }

        if (error == NGX_S3_REDIS_E_NOSCRIPT) {
            freeReplyObject(reply);

            copy = *op;

            ngx_s3_redis_pop(redis, op);
            op->eval = 1;

            if (ngx_s3_redis_push(redis, op) != NGX_OK) {
                copy.handler(copy.data, NGX_ERROR);
            }

            return NGX_OK;
        }

        /* once a connection, not once a record */

        if (!redis->told) {
            redis->told = 1;
            ngx_s3_reason(reason, "%s", reply->str);

            ngx_log_error(NGX_LOG_WARN, redis->store->log, 0,
                          "redis store refused a record: %s, transfer: %s, "
                          "host: %V", reason, op->record->id,
                          &redis->store->where);
        }

        rc = NGX_DECLINED;

    } else if (reply->integer == NGX_S3_REDIS_FOREIGN) {
        ngx_s3_store_foreign(redis->store, op->record->id, op->record->state);
        rc = NGX_DECLINED;
    }

    freeReplyObject(reply);

    ngx_s3_redis_proven(redis, NGX_S3_REDIS_BY_WRITE);

    ngx_s3_redis_pop(redis, op);
    ngx_s3_redis_answer(op, rc);

    return NGX_OK;
}


static void
ngx_s3_redis_timer_handler(ngx_event_t *ev)
{
    ngx_s3_redis_t *redis = ev->data;

    if (redis->state == NGX_S3_REDIS_OFF) {
        ngx_s3_redis_connect(redis);
        return;
    }

    if (redis->nops == 0) {
        ngx_s3_redis_proven(redis, NGX_S3_REDIS_BY_REPLY);
        redis->store->ready(redis->store);
        return;
    }

    ngx_s3_redis_fail(redis, "no reply within 5 s");
}


/* the worker is leaving: 1, the connection has ended */

static ngx_uint_t
ngx_s3_redis_leaving(ngx_s3_redis_t *redis)
{
    ngx_queue_t        ops;
    ngx_connection_t  *c;

    c = redis->sc->connection;

    /* without an error it is what a leaving worker does to idle connections,
       but records of its last transfers may yet come */

    if (!c->error && (redis->nops || redis->store->waiting)) {
        c->close = 0;
        return 0;
    }

    ngx_s3_redis_stop(redis, &ops);
    ngx_s3_store_closed(redis->store);
    ngx_s3_redis_end(&ops);

    return 1;
}


/* A server closes what has long been idle: that is not an outage, unless the
   next connection fails. */

static void
ngx_s3_redis_lost(ngx_s3_redis_t *redis, const char *reason)
{
    ngx_queue_t  ops;

    if (redis->state != NGX_S3_REDIS_READY
        || redis->nops
        || redis->store->down
        || ngx_current_msec - redis->ready_at < NGX_S3_REDIS_YOUNG)
    {
        ngx_s3_redis_fail(redis, reason);
        return;
    }

    ngx_s3_redis_stop(redis, &ops);
    ngx_s3_store_closed(redis->store);

    if (!ngx_exiting) {
        ngx_s3_redis_connect(redis);
    }
}


static void
ngx_s3_redis_fail(ngx_s3_redis_t *redis, const char *reason)
{
    char         text[NGX_S3_REASON];
    ngx_queue_t  ops;

    /* the reason may be a part of what is freed now */

    ngx_cpystrn((u_char *) text, (u_char *) reason, sizeof(text));

    if (redis->state == NGX_S3_REDIS_READY
        && redis->proof == NGX_S3_REDIS_BY_GREETING)
    {
        redis->proof = NGX_S3_REDIS_BY_REPLY;
    }

    ngx_s3_redis_stop(redis, &ops);
    ngx_s3_store_failed(redis->store, text);

    ngx_add_timer(&redis->timer,
                  ngx_s3_store_delay(redis->store, NGX_S3_REDIS_BACKOFF));

    ngx_s3_redis_end(&ops);
}


/* off, without a word; what was under way goes to ops */

static void
ngx_s3_redis_stop(ngx_s3_redis_t *redis, ngx_queue_t *ops)
{
    if (redis->sc) {
        ngx_s3_conn_close(redis->sc);
        redis->sc = NULL;
    }

    if (redis->reader) {
        redisReaderFree(redis->reader);
        redis->reader = NULL;
    }

    if (redis->timer.timer_set) {
        ngx_del_timer(&redis->timer);
    }

    ngx_queue_init(ops);

    if (!ngx_queue_empty(&redis->ops)) {
        ngx_queue_add(ops, &redis->ops);
        ngx_queue_init(&redis->ops);
    }

    redis->state = NGX_S3_REDIS_OFF;
    redis->unsent = NULL;
    redis->nops = 0;
    redis->nreads = 0;
}


static void
ngx_s3_redis_end(ngx_queue_t *ops)
{
    ngx_s3_redis_op_t  *op;

    while (!ngx_queue_empty(ops)) {
        op = ngx_queue_data(ngx_queue_head(ops), ngx_s3_redis_op_t, queue);
        ngx_queue_remove(&op->queue);

        ngx_s3_redis_answer(op, NGX_ERROR);
    }
}
