#include "ngx_s3_client.h"
#include "ngx_s3_sign.h"
#include "ngx_s3_store.h"
#include "s3_checksum.h"
#include "s3_json.h"
#include "s3_retry.h"


#define NGX_S3_DYNAMODB_OK       200     /* HTTP status */
#define NGX_S3_DYNAMODB_WRITES   16      /* in flight */
#define NGX_S3_DYNAMODB_READS    64
#define NGX_S3_DYNAMODB_TIMEOUT  5000    /* ms: to connect, for an answer */
#define NGX_S3_DYNAMODB_IDLE     30000   /* ms */
#define NGX_S3_DYNAMODB_BACKOFF  10000   /* ms at most until another try */
#define NGX_S3_DYNAMODB_REFUSED  30000   /* ms, where somebody has to mend it */
#define NGX_S3_DYNAMODB_AGAIN    100     /* ms, after the worker closed it */
#define NGX_S3_DYNAMODB_REPLY    (512 * 1024)    /* an item has 400 KB at most
                                                    (Service quotas) */
#define NGX_S3_DYNAMODB_SKEW     30      /* s: less is not the clock's fault */
#define NGX_S3_DYNAMODB_TABLE    1024    /* bytes: a name or an ARN */


typedef struct {
    ngx_s3_store_t        *store;
    ngx_s3_endpoint_t     *endpoint;
    ngx_s3_credentials_t  *credentials;
    ngx_int_t              ident;    /* -1: the descriptor, as the debug log
                                        of timers sees this structure */
    ngx_str_t              table;
    ngx_str_t              region;

    /* the worker's */
    ngx_queue_t            ops;
    ngx_uint_t             nreads;
    ngx_event_t            pause;    /* set: no writes before it has expired */
    ngx_log_t              log;      /* of requests */
    int64_t                skew;     /* s, DynamoDB's clock minus ours */
} ngx_s3_dynamodb_t;


/* one request, in a pool of its own */

typedef struct {
    ngx_queue_t             queue;
    ngx_s3_dynamodb_t      *dynamodb;
    ngx_pool_t             *pool;
    const char             *target;
    ngx_s3_request_t        rq;
    ngx_buf_t               buf;
    ngx_chain_t             body;
    char                    sha256[65];
    time_t                  now;     /* of the signature */
    ngx_uint_t              generation;      /* of its keys */
    ngx_s3_store_write_pt   handler; /* of a write */
    void                   *data;
    ngx_s3_store_read_t    *read;    /* or of a read; NULL once cancelled */
    char                    id[S3_ID_MAX + 1];       /* of a write's record */
    char                    owner[S3_OWNER_MAX + 1];
    s3_state_e              state;
    unsigned                reads:1;
    unsigned                clock:1; /* was signed anew, with another clock */
} ngx_s3_dynamodb_op_t;


static ngx_int_t ngx_s3_dynamodb_args(ngx_conf_t *cf,
    ngx_s3_dynamodb_t *dynamodb, ngx_str_t *args, ngx_uint_t n);
static ngx_int_t ngx_s3_dynamodb_table(ngx_str_t *table);
static ngx_int_t ngx_s3_dynamodb_open(ngx_s3_store_t *store,
    ngx_cycle_t *cycle);
static ngx_int_t ngx_s3_dynamodb_write(ngx_s3_store_t *store,
    const s3_record_t *record, ngx_s3_store_write_pt handler, void *data);
static ngx_int_t ngx_s3_dynamodb_read(ngx_s3_store_t *store,
    ngx_s3_store_read_t *read);
static void ngx_s3_dynamodb_cancel(ngx_s3_store_t *store,
    ngx_s3_store_read_t *read);
static void ngx_s3_dynamodb_close(ngx_s3_store_t *store);
static void ngx_s3_dynamodb_hurry(ngx_s3_store_t *store);
static ngx_s3_store_counters_t *ngx_s3_dynamodb_counters(
    ngx_s3_counters_t *counters);

static ngx_s3_dynamodb_op_t *ngx_s3_dynamodb_op(ngx_s3_dynamodb_t *dynamodb,
    const char *target, s3_buf_t *body);
static ngx_int_t ngx_s3_dynamodb_send(ngx_s3_dynamodb_op_t *op);
static void ngx_s3_dynamodb_handler(ngx_s3_request_t *rq);
static ngx_int_t ngx_s3_dynamodb_result(ngx_s3_dynamodb_op_t *op,
    char *reason, ngx_msec_t *cap);
static ngx_int_t ngx_s3_dynamodb_refused(ngx_s3_dynamodb_op_t *op,
    char *reason, ngx_msec_t *cap);
static ngx_int_t ngx_s3_dynamodb_clock(ngx_s3_dynamodb_op_t *op,
    const char *type);
static ngx_int_t ngx_s3_dynamodb_item(ngx_s3_dynamodb_op_t *op,
    char *reason);
static void ngx_s3_dynamodb_failed(ngx_s3_dynamodb_t *dynamodb,
    const char *reason, ngx_msec_t cap);
static void ngx_s3_dynamodb_pause_handler(ngx_event_t *ev);
static void ngx_s3_dynamodb_free(ngx_s3_dynamodb_op_t *op);


ngx_s3_store_t *
ngx_s3_dynamodb_create(ngx_conf_t *cf, ngx_str_t *args, ngx_uint_t n)
{
    const char         *err;
    ngx_s3_store_t     *store;
    ngx_s3_endpoint_t  *ep;
    ngx_s3_dynamodb_t  *dynamodb;

    store = ngx_pcalloc(cf->pool, sizeof(ngx_s3_store_t));
    dynamodb = ngx_pcalloc(cf->pool, sizeof(ngx_s3_dynamodb_t));

    if (store == NULL || dynamodb == NULL) {
        return NULL;
    }

    store->name = "dynamodb";
    store->ttl = NGX_S3_STORE_TTL;
    store->max = NGX_S3_DYNAMODB_WRITES;
    store->conf = dynamodb;

    store->open = ngx_s3_dynamodb_open;
    store->write = ngx_s3_dynamodb_write;
    store->read = ngx_s3_dynamodb_read;
    store->cancel = ngx_s3_dynamodb_cancel;
    store->close = ngx_s3_dynamodb_close;
    store->hurry = ngx_s3_dynamodb_hurry;
    store->counters = ngx_s3_dynamodb_counters;

    dynamodb->store = store;
    dynamodb->ident = -1;

    ep = ngx_s3_endpoint_create(cf, &args[0], &err);

    if (ep == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid URL in \"s3_progress_dynamodb\": %s",
                           err);
        return NULL;
    }

    ep->connect_timeout = NGX_S3_DYNAMODB_TIMEOUT;
    ep->resolver_timeout = NGX_S3_DYNAMODB_TIMEOUT;
    ep->send_timeout = NGX_S3_DYNAMODB_TIMEOUT;
    ep->read_timeout = NGX_S3_DYNAMODB_TIMEOUT;
    ep->keepalive_timeout = NGX_S3_DYNAMODB_IDLE;
    ep->keepalive = NGX_S3_DYNAMODB_WRITES;

    dynamodb->endpoint = ep;
    store->endpoint = ep;
    store->where = ep->name;

    if (ngx_s3_dynamodb_args(cf, dynamodb, &args[1], n - 1) != NGX_OK) {
        return NULL;
    }

    return store;
}


static ngx_int_t
ngx_s3_dynamodb_args(ngx_conf_t *cf, ngx_s3_dynamodb_t *dynamodb,
    ngx_str_t *args, ngx_uint_t n)
{
    s3_str_t     region;
    ngx_str_t    ttl;
    ngx_uint_t   i;
    const char  *err;

    ngx_str_null(&ttl);

    for (i = 0; i < n; i++) {

        if (ngx_s3_store_arg(&args[i], "table", &dynamodb->table) == NGX_OK
            || ngx_s3_store_arg(&args[i], "region", &dynamodb->region)
               == NGX_OK
            || ngx_s3_store_arg(&args[i], "ttl", &ttl) == NGX_OK)
        {
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" of "
                           "\"s3_progress_dynamodb\", it takes table=, "
                           "region= and ttl=", &args[i]);
        return NGX_ERROR;
    }

    if (ngx_s3_dynamodb_table(&dynamodb->table) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"s3_progress_dynamodb\" needs table= with the "
                           "name of a table");
        return NGX_ERROR;
    }

    if (dynamodb->region.len == 0) {
        region = s3_uri_region(ngx_s3_to_str(dynamodb->endpoint->host));

        dynamodb->region.len = region.len;
        dynamodb->region.data = (u_char *) region.data;
    }

    if (s3_uri_check_region(ngx_s3_to_str(dynamodb->region), &err) != S3_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid region= of \"s3_progress_dynamodb\": %s",
                           err);
        return NGX_ERROR;
    }

    if (ttl.data) {
        return ngx_s3_store_ttl(cf, dynamodb->store, &ttl);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_s3_dynamodb_table(ngx_str_t *table)
{
    u_char  *p;

    if (table->len == 0 || table->len > NGX_S3_DYNAMODB_TABLE) {
        return NGX_ERROR;
    }

    for (p = table->data; p < table->data + table->len; p++) {

        if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')
            || (*p >= '0' && *p <= '9') || ngx_strchr("_.-:/", *p))
        {
            continue;
        }

        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_s3_dynamodb_set(ngx_conf_t *cf, ngx_s3_store_t *store,
    ngx_s3_credentials_t *credentials, ngx_str_t *missing,
    ngx_s3_ssl_conf_t *ssl)
{
    ngx_s3_dynamodb_t *dynamodb = store->conf;

    ngx_s3_ssl_conf_t  defaults;

    if (credentials == NULL || credentials->access_key.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no credentials for \"s3_progress_dynamodb\": %V",
                           missing);
        return NGX_ERROR;
    }

    dynamodb->credentials = credentials;

    if (ssl == NULL) {
        ngx_memzero(&defaults, sizeof(ngx_s3_ssl_conf_t));

        defaults.verify = 1;
        defaults.session_reuse = 1;

        ssl = &defaults;
    }

    return ngx_s3_endpoint_ssl(cf, dynamodb->endpoint, ssl);
}


static ngx_int_t
ngx_s3_dynamodb_open(ngx_s3_store_t *store, ngx_cycle_t *cycle)
{
    ngx_s3_dynamodb_t *dynamodb = store->conf;

    ngx_queue_init(&dynamodb->ops);

    dynamodb->pause.handler = ngx_s3_dynamodb_pause_handler;
    dynamodb->pause.data = dynamodb;
    dynamodb->pause.log = cycle->log;
    dynamodb->pause.cancelable = 1;

    ngx_s3_store_log(cycle->log, &dynamodb->log);

    return NGX_OK;
}


static ngx_s3_store_counters_t *
ngx_s3_dynamodb_counters(ngx_s3_counters_t *counters)
{
    return &counters->dynamodb;
}


static ngx_int_t
ngx_s3_dynamodb_write(ngx_s3_store_t *store, const s3_record_t *record,
    ngx_s3_store_write_pt handler, void *data)
{
    ngx_s3_dynamodb_t *dynamodb = store->conf;

    u_char                 mem[S3_JSON_PUT_MAX + NGX_S3_DYNAMODB_TABLE];
    s3_buf_t               body;
    ngx_s3_dynamodb_op_t  *op;

    if (dynamodb->pause.timer_set) {
        return NGX_ERROR;
    }

    s3_buf_init(&body, mem, sizeof(mem));

    if (s3_json_put_item(ngx_s3_to_str(dynamodb->table), record, &body)
        != S3_OK)
    {
        /* memory may come, room never */

        return body.overflow ? NGX_DECLINED : NGX_ERROR;
    }

    op = ngx_s3_dynamodb_op(dynamodb, "DynamoDB_20120810.PutItem", &body);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->handler = handler;
    op->data = data;
    op->state = record->state;

    ngx_memcpy(op->id, record->id, sizeof(op->id));
    ngx_memcpy(op->owner, record->owner, sizeof(op->owner));

    if (ngx_s3_dynamodb_send(op) != NGX_OK) {
        ngx_s3_dynamodb_free(op);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* also while writes pause: a throttled table may well be read */

static ngx_int_t
ngx_s3_dynamodb_read(ngx_s3_store_t *store, ngx_s3_store_read_t *read)
{
    ngx_s3_dynamodb_t *dynamodb = store->conf;

    u_char                 mem[NGX_S3_DYNAMODB_TABLE + 512];
    s3_buf_t               body;
    ngx_s3_dynamodb_op_t  *op;

    read->state = NULL;

    if (dynamodb->nreads >= NGX_S3_DYNAMODB_READS) {
        ngx_s3_store_unread(store, "too many reads are under way");
        return NGX_ERROR;
    }

    s3_buf_init(&body, mem, sizeof(mem));

    if (s3_json_get_item(ngx_s3_to_str(dynamodb->table),
                         ngx_s3_to_str(read->id), &body)
        != S3_OK)
    {
        return NGX_ERROR;
    }

    op = ngx_s3_dynamodb_op(dynamodb, "DynamoDB_20120810.GetItem", &body);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->read = read;
    op->reads = 1;
    dynamodb->nreads++;

    if (ngx_s3_dynamodb_send(op) != NGX_OK) {
        ngx_s3_dynamodb_free(op);
        return NGX_ERROR;
    }

    read->state = op;

    return NGX_OK;
}


static void
ngx_s3_dynamodb_cancel(ngx_s3_store_t *store, ngx_s3_store_read_t *read)
{
    ngx_s3_dynamodb_op_t *op = read->state;

    if (op) {
        read->state = NULL;
        ngx_s3_dynamodb_free(op);
    }
}


static void
ngx_s3_dynamodb_close(ngx_s3_store_t *store)
{
    ngx_s3_dynamodb_t *dynamodb = store->conf;

    ngx_s3_dynamodb_op_t  *op;

    if (dynamodb->pause.timer_set) {
        ngx_del_timer(&dynamodb->pause);
    }

    while (!ngx_queue_empty(&dynamodb->ops)) {
        op = ngx_queue_data(ngx_queue_head(&dynamodb->ops),
                            ngx_s3_dynamodb_op_t, queue);

        if (op->read) {
            op->read->state = NULL;
        }

        ngx_s3_dynamodb_free(op);
    }

    ngx_s3_endpoint_close_idle(dynamodb->endpoint);
}


static void
ngx_s3_dynamodb_hurry(ngx_s3_store_t *store)
{
    ngx_s3_dynamodb_t *dynamodb = store->conf;

    if (dynamodb->pause.timer_set) {
        ngx_del_timer(&dynamodb->pause);
        store->ready(store);
    }
}


static ngx_s3_dynamodb_op_t *
ngx_s3_dynamodb_op(ngx_s3_dynamodb_t *dynamodb, const char *target,
    s3_buf_t *body)
{
    u_char                *p;
    size_t                 len;
    ngx_pool_t            *pool;
    ngx_s3_dynamodb_op_t  *op;

    pool = ngx_create_pool(8 * 1024, &dynamodb->log);
    if (pool == NULL) {
        return NULL;
    }

    len = body->pos - body->start;

    op = ngx_pcalloc(pool, sizeof(ngx_s3_dynamodb_op_t));
    p = ngx_pnalloc(pool, len);

    if (op == NULL || p == NULL
        || s3_sha256(body->start, len, op->sha256) != S3_OK)
    {
        ngx_destroy_pool(pool);
        return NULL;
    }

    ngx_memcpy(p, body->start, len);

    op->dynamodb = dynamodb;
    op->pool = pool;
    op->target = target;

    op->buf.memory = 1;
    op->buf.start = op->buf.pos = p;
    op->buf.end = op->buf.last = p + len;

    op->body.buf = &op->buf;

    op->rq.endpoint = dynamodb->endpoint;
    op->rq.pool = pool;
    op->rq.log = &dynamodb->log;
    op->rq.body = &op->body;
    op->rq.body_size = len;
    op->rq.max_reply = NGX_S3_DYNAMODB_REPLY;
    op->rq.handler = ngx_s3_dynamodb_handler;
    op->rq.data = op;

    ngx_queue_insert_tail(&dynamodb->ops, &op->queue);

    return op;
}


static ngx_int_t
ngx_s3_dynamodb_send(ngx_s3_dynamodb_op_t *op)
{
    s3_field_t          fields[2];
    ngx_s3_sign_t       sign;
    ngx_s3_dynamodb_t  *dynamodb;

    dynamodb = op->dynamodb;

    op->now = ngx_time() + dynamodb->skew;
    op->generation = dynamodb->credentials->generation;

    fields[0].name = s3_str("Content-Type");
    fields[0].value = s3_str("application/x-amz-json-1.0");
    fields[1].name = s3_str("X-Amz-Target");
    fields[1].value = s3_str(op->target);

    ngx_memzero(&sign, sizeof(ngx_s3_sign_t));

    ngx_str_set(&sign.method, "POST");
    ngx_str_set(&sign.path, "/");
    ngx_str_set(&sign.service, "dynamodb");

    sign.host = dynamodb->endpoint->authority;
    sign.region = dynamodb->region;
    sign.fields = fields;
    sign.nfields = 2;
    sign.payload = s3_str(op->sha256);
    sign.content_length = op->rq.body_size;
    sign.now = op->now;

    if (ngx_s3_sign_head(op->pool, dynamodb->credentials, &sign, &op->rq.head)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_s3_request_send(&op->rq);
}


static void
ngx_s3_dynamodb_handler(ngx_s3_request_t *rq)
{
    ngx_s3_dynamodb_op_t *op = rq->data;

    char                    reason[NGX_S3_REASON];
    void                   *data;
    ngx_int_t               rc;
    ngx_msec_t              cap;
    ngx_uint_t              reads;
    ngx_s3_dynamodb_t      *dynamodb;
    ngx_s3_store_read_t    *read;
    ngx_s3_store_write_pt   handler;

    cap = NGX_S3_DYNAMODB_BACKOFF;

    rc = ngx_s3_dynamodb_result(op, reason, &cap);

    if (rc == NGX_AGAIN) {
        return;
    }

    dynamodb = op->dynamodb;
    handler = op->handler;
    data = op->data;
    read = op->read;
    reads = op->reads;

    ngx_s3_dynamodb_free(op);

    if (reads) {

        if (rc == NGX_ERROR && ngx_strcmp(reason, NGX_S3_LEAVING) != 0) {
            ngx_s3_store_unread(dynamodb->store, reason);
        }

        read->state = NULL;
        read->handler(read, rc);
        return;
    }

    /* While writes pause, what was sent before tells nothing new: neither do
       its failures add up, nor does a success end the outage. */

    if (!dynamodb->pause.timer_set) {

        if (rc == NGX_ERROR && ngx_strcmp(reason, NGX_S3_LEAVING) == 0) {

            /* a leaving worker closes all connections once, also those that
               were opened meanwhile: that is not an outage */

            ngx_add_timer(&dynamodb->pause, NGX_S3_DYNAMODB_AGAIN);

        } else if (rc == NGX_ERROR) {
            ngx_s3_dynamodb_failed(dynamodb, reason, cap);

        } else {
            ngx_s3_store_works(dynamodb->store);
        }
    }

    handler(data, rc);
}


/* what became of the request; NGX_AGAIN: it was sent anew. cap: of the
   back-off, ms. */

static ngx_int_t
ngx_s3_dynamodb_result(ngx_s3_dynamodb_op_t *op, char *reason,
    ngx_msec_t *cap)
{
    s3_record_t        record;
    ngx_s3_request_t  *rq;

    rq = &op->rq;

    if (rq->error != NGX_S3_E_NONE) {
        ngx_s3_reason(reason, "%s", rq->reason);
        return NGX_ERROR;
    }

    if (rq->status != NGX_S3_DYNAMODB_OK) {
        return ngx_s3_dynamodb_refused(op, reason, cap);
    }

    if (op->reads) {
        return ngx_s3_dynamodb_item(op, reason);
    }

    /* that of a write has no item */

    if (s3_json_parse_item(rq->reply.data, rq->reply.len, &record)
        != S3_DECLINED)
    {
        ngx_s3_reason(reason, "status 200, but not an answer of DynamoDB's");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_s3_dynamodb_refused(ngx_s3_dynamodb_op_t *op, char *reason,
    ngx_msec_t *cap)
{
    s3_retry_e         class;
    s3_json_error_t    e;
    ngx_s3_request_t  *rq;

    rq = &op->rq;

    if (s3_json_parse_error(rq->reply.data, rq->reply.len, &e) != S3_OK) {
        e.type[0] = '\0';
        e.message[0] = '\0';
    }

    /* also after a try whose answer was lost: then it is our own record that
       stands there */

    if (!op->reads
        && ngx_strcmp(e.type, "ConditionalCheckFailedException") == 0)
    {
        if (s3_json_parse_foreign(rq->reply.data, rq->reply.len,
                                  s3_str(op->owner))
            == S3_OK)
        {
            ngx_s3_store_foreign(op->dynamodb->store, op->id, op->state);
            return NGX_DECLINED;
        }

        return NGX_OK;
    }

    if (ngx_s3_dynamodb_clock(op, e.type) == NGX_OK) {
        return NGX_AGAIN;
    }

    class = s3_retry_class(rq->status, s3_str(e.type));

    if (class != S3_RETRY_TRANSIENT && class != S3_RETRY_THROTTLE) {
        *cap = NGX_S3_DYNAMODB_REFUSED;
    }

    /* what is said about a signature may repeat what was signed, a session
       token among it */

    if (strstr(e.type, "Signature") || strstr(e.type, "Authentication")
        || ngx_s3_credentials_told(op->dynamodb->credentials, e.message))
    {
        e.message[0] = '\0';
    }

    if (ngx_s3_credentials_told(op->dynamodb->credentials, e.type)) {
        e.type[0] = '\0';
    }

    /* now that nothing is held against the former ones any more; others may
       have had them read meanwhile */

    if (class == S3_RETRY_CREDENTIALS
        && op->generation == op->dynamodb->credentials->generation)
    {
        ngx_s3_credentials_refresh(op->dynamodb->credentials,
                                   op->dynamodb->store->log);
    }

    ngx_s3_reason(reason, "status %ui%s%s%s%s", rq->status,
                  e.type[0] ? ", " : "", e.type,
                  e.message[0] ? ": " : "", e.message);

    return NGX_ERROR;
}


/*
 * A signature is good for five minutes on either side of DynamoDB's clock,
 * which its Date tells. NGX_OK: signed by it and sent once more.
 */

static ngx_int_t
ngx_s3_dynamodb_clock(ngx_s3_dynamodb_op_t *op, const char *type)
{
    int64_t             date, off;
    ngx_str_t           value;
    ngx_s3_dynamodb_t  *dynamodb;

    if (op->clock
        || (ngx_strcmp(type, "InvalidSignatureException") != 0
            && ngx_strcmp(type, "RequestExpired") != 0
            && ngx_strcmp(type, "RequestTimeTooSkewed") != 0))
    {
        return NGX_DECLINED;
    }

    value = ngx_s3_request_field(&op->rq, "date");
    date = s3_retry_http_date(ngx_s3_to_str(value));
    off = date - op->now;

    if (date < 0
        || (off > -NGX_S3_DYNAMODB_SKEW && off < NGX_S3_DYNAMODB_SKEW))
    {
        return NGX_DECLINED;
    }

    dynamodb = op->dynamodb;
    dynamodb->skew = date - ngx_time();
    op->clock = 1;

    ngx_log_error(NGX_LOG_WARN, dynamodb->store->log, 0,
                  "dynamodb store signs by the clock of %V, which is %L s off "
                  "this host's", &dynamodb->store->where, dynamodb->skew);

    return ngx_s3_dynamodb_send(op) == NGX_OK ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_s3_dynamodb_item(ngx_s3_dynamodb_op_t *op, char *reason)
{
    int                   rc;
    s3_record_t          *record;
    ngx_s3_store_read_t  *read;

    read = op->read;
    record = &read->record;

    rc = s3_json_parse_item(op->rq.reply.data, op->rq.reply.len, record);

    if (rc == S3_DECLINED) {
        return NGX_DECLINED;
    }

    if (rc != S3_OK) {
        ngx_s3_reason(reason, "status 200, but not a record");
        return NGX_ERROR;
    }

    /* items are deleted up to two days after their end */

    if (!s3_str_eqs(ngx_s3_to_str(read->id), record->id)
        || record->expires_at <= ngx_s3_store_now())
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static void
ngx_s3_dynamodb_failed(ngx_s3_dynamodb_t *dynamodb, const char *reason,
    ngx_msec_t cap)
{
    ngx_s3_store_failed(dynamodb->store, reason);

    ngx_add_timer(&dynamodb->pause,
                  ngx_s3_store_delay(dynamodb->store, cap));
}


static void
ngx_s3_dynamodb_pause_handler(ngx_event_t *ev)
{
    ngx_s3_dynamodb_t *dynamodb = ev->data;

    dynamodb->store->ready(dynamodb->store);
}


static void
ngx_s3_dynamodb_free(ngx_s3_dynamodb_op_t *op)
{
    ngx_s3_request_cancel(&op->rq);

    if (op->reads) {
        op->dynamodb->nreads--;
    }

    ngx_queue_remove(&op->queue);
    ngx_destroy_pool(op->pool);
}
