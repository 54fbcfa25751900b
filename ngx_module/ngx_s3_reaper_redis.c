/*
 * Open uploads in Redis. The set <prefix>#open has for each the time, by
 * Redis' own clock, after which it is an orphan: three leases after the last
 * renewal. The hash <prefix>#open:<id>.<attempt> says what it is; nothing in
 * it is secret. A renewal writes all of it, so that what an outage kept out,
 * or a restart lost, comes later.
 */

#include "ngx_s3_reaper.h"


#define NGX_S3_REAPER_SET     "#open"
#define NGX_S3_REAPER_PAGE    16         /* entries of a look, as in the
                                            script */
#define NGX_S3_REAPER_FIELDS  8          /* of each of them, likewise */
#define NGX_S3_REAPER_FLIGHT  64         /* renewals on their way */
#define NGX_S3_REAPER_CLAIMS  64         /* until they are looked at */
#define NGX_S3_REAPER_KEEP    "604800000"    /* ms that an entry outlives its
                                                last renewal: 7 days */


static ngx_int_t ngx_s3_reaper_eval(ngx_s3_reaper_t *reaper, const char *text,
    ngx_str_t *name, ngx_str_t *args, ngx_uint_t n,
    ngx_s3_store_reply_pt handler, void *data);
static ngx_int_t ngx_s3_reaper_renew(ngx_s3_debt_t *debt);
static ngx_int_t ngx_s3_reaper_keep(ngx_s3_debt_t *debt);
static ngx_int_t ngx_s3_reaper_write(ngx_s3_debt_t *debt);
static void ngx_s3_reaper_renewed(void *data, ngx_int_t rc, ngx_str_t *items,
    ngx_uint_t n);
static void ngx_s3_reaper_arg_orphan(ngx_s3_debt_t *debt, ngx_str_t *arg,
    u_char *buf);
static void ngx_s3_reaper_dropped(void *data, ngx_int_t rc, ngx_str_t *items,
    ngx_uint_t n);
static void ngx_s3_reaper_look(ngx_s3_reaper_t *reaper);
static void ngx_s3_reaper_found(void *data, ngx_int_t rc, ngx_str_t *items,
    ngx_uint_t n);
static void ngx_s3_reaper_entry(ngx_s3_reaper_t *reaper, ngx_str_t *e);
static const char *ngx_s3_reaper_malformed(ngx_str_t *e);
static ngx_uint_t ngx_s3_reaper_known(ngx_s3_reaper_t *reaper, ngx_str_t *e);
static ngx_s3_debt_t *ngx_s3_reaper_find(ngx_queue_t *debts, ngx_str_t *name);
static void ngx_s3_reaper_claim(ngx_s3_debt_t *debt, ngx_str_t *score);
static void ngx_s3_reaper_claimed(void *data, ngx_int_t rc, ngx_str_t *items,
    ngx_uint_t n);


#define ngx_s3_reaper_arg(a, s)                                              \
    (a).data = (u_char *) s; (a).len = ngx_strlen(s)

/* Redis before 5 wants to be told that a script which asks for the time may
   write */

#define NGX_S3_REAPER_NOW                                                    \
    "if redis.replicate_commands then redis.replicate_commands() end\n"      \
    "local t = redis.call('TIME')\n"                                         \
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"


/* KEYS: set, hash. ARGV: name, ms until it is an orphan, life in ms, then
   names and values. */

static const char  ngx_s3_reaper_renew_lua[] =
    NGX_S3_REAPER_NOW
    "redis.call('HSET', KEYS[2], unpack(ARGV, 4))\n"
    "redis.call('PEXPIRE', KEYS[2], ARGV[3])\n"
    "redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])\n"
    "redis.call('PEXPIRE', KEYS[1], ARGV[3])\n"
    "return {}\n";


/* The same for what was claimed, unless its uploader has come back and written
   the entry. KEYS: set, hash. ARGV: name, ms until it is an orphan, boot.
   Returns the name where it is not ours any more. */

static const char  ngx_s3_reaper_keep_lua[] =
    NGX_S3_REAPER_NOW
    "if redis.call('HGET', KEYS[2], 'boot') ~= ARGV[3] then\n"
    "    return {ARGV[1]}\n"
    "end\n"
    "redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])\n"
    "return {}\n";


/* KEYS: set, hash. ARGV: name. */

static const char  ngx_s3_reaper_drop_lua[] =
    "redis.call('DEL', KEYS[2])\n"
    "redis.call('ZREM', KEYS[1], ARGV[1])\n"
    "return 1\n";


/* KEYS: set. ARGV: how many to leave out. Returns a flat list: name, score,
   and of the hash six fields. */

static const char  ngx_s3_reaper_look_lua[] =
    NGX_S3_REAPER_NOW
    "local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now,\n"
    "    'WITHSCORES', 'LIMIT', ARGV[1], 16)\n"
    "local r = {}\n"
    "for i = 1, #found, 2 do\n"
    "    local e = redis.call('HMGET', KEYS[1] .. ':' .. found[i],\n"
    "        'uploadId', 'endpoint', 'bucket', 'key', 'boot', 'lease')\n"
    "    if e[1] then\n"
    "        r[#r + 1] = found[i]\n"
    "        r[#r + 1] = found[i + 1]\n"
    "        for j = 1, 6 do\n"
    "            r[#r + 1] = e[j] or ''\n"
    "        end\n"
    "    else\n"
    "        redis.call('ZREM', KEYS[1], found[i])\n"
    "    end\n"
    "end\n"
    "return r\n";


/* KEYS: set, hash. ARGV: name, its score, ms until it is an orphan again,
   boot. Of two that try one has it. */

static const char  ngx_s3_reaper_claim_lua[] =
    NGX_S3_REAPER_NOW
    "if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then\n"
    "    return 0\n"
    "end\n"
    "redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])\n"
    "redis.call('HSET', KEYS[2], 'boot', ARGV[4])\n"
    "return 1\n";


void
ngx_s3_reaper_redis_tick(ngx_s3_reaper_t *reaper)
{
    ngx_queue_t    *q, *next;
    ngx_s3_debt_t  *debt;

    for (q = ngx_queue_head(&reaper->paid);
         q != ngx_queue_sentinel(&reaper->paid);
         q = next)
    {
        next = ngx_queue_next(q);
        debt = ngx_queue_data(q, ngx_s3_debt_t, queue);

        if (debt->dropping) {
            continue;
        }

        /* whoever finds it by now finds that S3 does not know the upload */

        if (ngx_current_msec - debt->renewed
            > NGX_S3_REAPER_LEASES * debt->lease)
        {
            ngx_s3_debt_free(debt);
            continue;
        }

        ngx_s3_reaper_redis_paid(debt);
    }

    while (reaper->in_flight < NGX_S3_REAPER_FLIGHT
           && !ngx_queue_empty(&reaper->debts))
    {
        debt = ngx_queue_data(ngx_queue_head(&reaper->debts), ngx_s3_debt_t,
                              queue);

        if (ngx_current_msec - debt->renewed < reaper->lease / 3
            || ngx_s3_reaper_renew(debt) != NGX_OK)
        {
            break;
        }
    }

    ngx_s3_reaper_look(reaper);
}


void
ngx_s3_reaper_redis_open(ngx_s3_debt_t *debt)
{
    if (ngx_s3_reaper_renew(debt) == NGX_OK) {
        return;
    }

    /* the first to be renewed */

    debt->renewed = ngx_current_msec - debt->reaper->lease;

    ngx_queue_remove(&debt->queue);
    ngx_queue_insert_head(&debt->reaper->debts, &debt->queue);
}


/* NGX_ERROR: Redis is down, which its store tells of */

static ngx_int_t
ngx_s3_reaper_eval(ngx_s3_reaper_t *reaper, const char *text, ngx_str_t *name,
    ngx_str_t *args, ngx_uint_t n, ngx_s3_store_reply_pt handler, void *data)
{
    u_char                  key[sizeof(NGX_S3_REAPER_SET ":") + S3_ID_MAX + 32];
    ngx_s3_store_t         *store;
    ngx_s3_store_script_t   script;

    store = reaper->stores->redis;

    ngx_str_set(&script.keys[0], NGX_S3_REAPER_SET);
    script.nkeys = 1;

    if (name) {
        script.keys[1].data = key;
        script.keys[1].len = ngx_snprintf(key, sizeof(key),
                                          NGX_S3_REAPER_SET ":%V", name)
                             - key;
        script.nkeys = 2;
    }

    script.text = text;
    script.args = args;
    script.nargs = n;
    script.handler = handler;
    script.data = data;

    return store->eval(store, &script);
}


/* NGX_OK: the entry is on its way, and the debt the last in its queue */

static ngx_int_t
ngx_s3_reaper_renew(ngx_s3_debt_t *debt)
{
    ngx_int_t         rc;
    ngx_s3_reaper_t  *reaper;

    reaper = debt->reaper;

    rc = debt->foreign ? ngx_s3_reaper_keep(debt)
                       : ngx_s3_reaper_write(debt);

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    reaper->in_flight++;

    debt->renewed = ngx_current_msec;

    ngx_queue_remove(&debt->queue);
    ngx_queue_insert_tail(&reaper->debts, &debt->queue);

    return NGX_OK;
}


static ngx_int_t
ngx_s3_reaper_keep(ngx_s3_debt_t *debt)
{
    u_char            orphan[NGX_INT64_LEN];
    ngx_str_t         args[3];
    ngx_s3_reaper_t  *reaper;

    reaper = debt->reaper;

    args[0] = debt->name;

    ngx_s3_reaper_arg_orphan(debt, &args[1], orphan);

    ngx_s3_reaper_arg(args[2], reaper->boot);

    return ngx_s3_reaper_eval(reaper, ngx_s3_reaper_keep_lua, &debt->name,
                              args, 3, ngx_s3_reaper_renewed, reaper);
}


static ngx_int_t
ngx_s3_reaper_write(ngx_s3_debt_t *debt)
{
    u_char            orphan[NGX_INT64_LEN], lease[NGX_INT64_LEN];
    ngx_str_t         args[15];
    ngx_s3_reaper_t  *reaper;

    reaper = debt->reaper;

    args[0] = debt->name;

    ngx_s3_reaper_arg_orphan(debt, &args[1], orphan);

    ngx_str_set(&args[2], NGX_S3_REAPER_KEEP);

    ngx_str_set(&args[3], "uploadId");
    args[4] = debt->upload_id;
    ngx_str_set(&args[5], "endpoint");
    args[6] = debt->target->endpoint->name;
    ngx_str_set(&args[7], "bucket");
    args[8] = debt->bucket;
    ngx_str_set(&args[9], "key");
    args[10] = debt->key;
    ngx_str_set(&args[11], "boot");
    ngx_s3_reaper_arg(args[12], reaper->boot);
    ngx_str_set(&args[13], "lease");
    args[14].data = lease;
    args[14].len = ngx_sprintf(lease, "%M", debt->lease) - lease;

    return ngx_s3_reaper_eval(reaper, ngx_s3_reaper_renew_lua, &debt->name,
                              args, 15, ngx_s3_reaper_renewed, reaper);
}


/* ms from now until nobody renews it any more; buf has NGX_INT64_LEN bytes */

static void
ngx_s3_reaper_arg_orphan(ngx_s3_debt_t *debt, ngx_str_t *arg, u_char *buf)
{
    arg->data = buf;
    arg->len = ngx_sprintf(buf, "%M", NGX_S3_REAPER_LEASES * debt->lease)
               - buf;
}


/* what failed is written again a third of a lease later */

static void
ngx_s3_reaper_renewed(void *data, ngx_int_t rc, ngx_str_t *items, ngx_uint_t n)
{
    ngx_s3_reaper_t *reaper = data;

    ngx_s3_debt_t  *debt;

    reaper->in_flight--;

    if (rc != NGX_OK || n == 0) {
        return;
    }

    debt = ngx_s3_reaper_find(&reaper->debts, &items[0]);

    if (debt && debt->foreign) {
        ngx_log_error(NGX_LOG_INFO, &debt->log, 0,
                      "multipart upload \"%V\" is renewed by its uploader, it "
                      "is left alone", &debt->upload_id);
        ngx_s3_debt_free(debt);
    }
}


void
ngx_s3_reaper_redis_paid(ngx_s3_debt_t *debt)
{
    if (ngx_s3_reaper_eval(debt->reaper, ngx_s3_reaper_drop_lua, &debt->name,
                           &debt->name, 1, ngx_s3_reaper_dropped, debt)
        == NGX_OK)
    {
        debt->dropping = 1;
    }
}


static void
ngx_s3_reaper_dropped(void *data, ngx_int_t rc, ngx_str_t *items, ngx_uint_t n)
{
    ngx_s3_debt_t *debt = data;

    debt->dropping = 0;

    if (rc == NGX_OK) {
        ngx_s3_debt_free(debt);
    }
}


/* one worker of an instance looks for what others left */

static void
ngx_s3_reaper_look(ngx_s3_reaper_t *reaper)
{
    u_char        offset[NGX_INT_T_LEN];
    ngx_str_t     arg;
    ngx_uint_t    n;
    ngx_queue_t  *q;

    if (reaper->looking || ngx_exiting
        || (reaper->offset == 0
            && ngx_current_msec - reaper->looked < reaper->lease / 3)
        || reaper->stores->zone->sh == NULL
        || !ngx_s3_zone_first(reaper->stores->zone))
    {
        return;
    }

    n = 0;

    for (q = ngx_queue_head(&reaper->claiming);
         q != ngx_queue_sentinel(&reaper->claiming);
         q = ngx_queue_next(q))
    {
        n++;
    }

    if (n > NGX_S3_REAPER_CLAIMS) {
        return;
    }

    arg.data = offset;
    arg.len = ngx_sprintf(offset, "%ui", reaper->offset) - offset;

    if (ngx_s3_reaper_eval(reaper, ngx_s3_reaper_look_lua, NULL, &arg, 1,
                           ngx_s3_reaper_found, reaper)
        == NGX_OK)
    {
        reaper->looking = 1;
        reaper->looked = ngx_current_msec;
    }
}


static void
ngx_s3_reaper_found(void *data, ngx_int_t rc, ngx_str_t *items, ngx_uint_t n)
{
    ngx_s3_reaper_t *reaper = data;

    ngx_uint_t  i, entries;

    reaper->looking = 0;

    entries = n / NGX_S3_REAPER_FIELDS;

    /* those that are left alone must not hide the others */

    reaper->offset = (entries == NGX_S3_REAPER_PAGE)
                     ? reaper->offset + NGX_S3_REAPER_PAGE : 0;

    for (i = 0; i < entries && !ngx_exiting; i++) {
        ngx_s3_reaper_entry(reaper, &items[i * NGX_S3_REAPER_FIELDS]);
    }
}


/* e: name, score, uploadId, endpoint, bucket, key, boot, lease */

static void
ngx_s3_reaper_entry(ngx_s3_reaper_t *reaper, ngx_str_t *e)
{
    ngx_int_t            lease;
    const char          *err;
    ngx_s3_debt_t       *debt;
    ngx_s3_debt_spec_t   spec;

    err = ngx_s3_reaper_malformed(e);

    if (err) {
        if (!ngx_s3_reaper_told(reaper, &e[0])) {
            ngx_log_error(NGX_LOG_WARN, reaper->log, 0,
                          "an entry of an open upload in redis is left alone: "
                          "its %s is malformed", err);
        }

        return;
    }

    if (ngx_s3_reaper_known(reaper, e)) {
        return;
    }

    spec.name = e[0];
    spec.upload_id = e[2];
    spec.bucket = e[4];
    spec.key = e[5];
    spec.slot = NULL;
    spec.target = ngx_s3_reaper_target(reaper, ngx_s3_zone_endpoint(&e[3]),
                                       &spec.bucket, NULL);

    if (spec.target == NULL) {
        if (!ngx_s3_reaper_told(reaper, &e[0])) {
            ngx_log_error(NGX_LOG_WARN, reaper->log, 0,
                          "multipart upload \"%V\" of another instance is "
                          "left open: no location has its endpoint \"%V\" "
                          "and bucket, transfer: %V, bucket: \"%V\", "
                          "key: \"%V\"", &e[2], &e[3], &e[0], &e[4], &e[5]);
        }

        return;
    }

    debt = ngx_s3_debt_create(reaper, &spec);
    if (debt == NULL) {
        return;
    }

    /* the longer lease of both holds */

    lease = ngx_atoi(e[7].data, e[7].len);

    debt->lease = ngx_max(debt->lease, (ngx_msec_t) lease);
    debt->orphan = 1;
    debt->foreign = 1;
    debt->check = 1;
    debt->state = NGX_S3_DEBT_CLAIMING;

    ngx_queue_insert_tail(&reaper->claiming, &debt->queue);

    ngx_s3_reaper_claim(debt, &e[1]);
}


/* others may write there, and what they wrote goes into requests and logs */

static const char *
ngx_s3_reaper_malformed(ngx_str_t *e)
{
    size_t       i, k;
    const char  *err;

    for (i = 0; i < NGX_S3_REAPER_FIELDS; i++) {

        for (k = 0; k < e[i].len; k++) {
            if (e[i].data[k] < 0x20 || e[i].data[k] == 0x7f) {
                return "text";
            }
        }
    }

    if (e[0].len == 0 || e[0].len > S3_ID_MAX + NGX_INT64_LEN) {
        return "name";
    }

    if (e[2].len == 0 || e[2].len > S3_UPLOAD_ID_MAX) {
        return "uploadId";
    }

    if (s3_uri_check_bucket(ngx_s3_to_str(e[4]), &err) != S3_OK) {
        return "bucket";
    }

    if (s3_uri_check_key(ngx_s3_to_str(e[5]), &err) != S3_OK) {
        return "key";
    }

    if (ngx_atoi(e[7].data, e[7].len) < NGX_S3_REAPER_LEASE_MIN) {
        return "lease";
    }

    return NULL;
}


/* whether it is this worker's, or that of one that lives beside it */

static ngx_uint_t
ngx_s3_reaper_known(ngx_s3_reaper_t *reaper, ngx_str_t *e)
{
    ngx_str_t  id;

    if (ngx_s3_reaper_find(&reaper->debts, &e[0])
        || ngx_s3_reaper_find(&reaper->paid, &e[0])
        || ngx_s3_reaper_find(&reaper->claiming, &e[0]))
    {
        return 1;
    }

    id = e[0];

    while (id.len && id.data[id.len - 1] != '.') {
        id.len--;
    }

    if (id.len == 0) {
        return 0;
    }

    id.len--;

    return ngx_s3_zone_owes(reaper->stores->zone, &id, &e[2]);
}


static ngx_s3_debt_t *
ngx_s3_reaper_find(ngx_queue_t *debts, ngx_str_t *name)
{
    ngx_queue_t    *q;
    ngx_s3_debt_t  *debt;

    for (q = ngx_queue_head(debts);
         q != ngx_queue_sentinel(debts);
         q = ngx_queue_next(q))
    {
        debt = ngx_queue_data(q, ngx_s3_debt_t, queue);

        if (debt->name.len == name->len
            && ngx_memcmp(debt->name.data, name->data, name->len) == 0)
        {
            return debt;
        }
    }

    return NULL;
}


static void
ngx_s3_reaper_claim(ngx_s3_debt_t *debt, ngx_str_t *score)
{
    u_char            orphan[NGX_INT64_LEN];
    ngx_str_t         args[4];
    ngx_s3_reaper_t  *reaper;

    reaper = debt->reaper;

    args[0] = debt->name;
    args[1] = *score;

    ngx_s3_reaper_arg_orphan(debt, &args[2], orphan);

    ngx_s3_reaper_arg(args[3], reaper->boot);

    if (ngx_s3_reaper_eval(reaper, ngx_s3_reaper_claim_lua, &debt->name, args,
                           4, ngx_s3_reaper_claimed, debt)
        != NGX_OK)
    {
        ngx_s3_debt_free(debt);
    }
}


static void
ngx_s3_reaper_claimed(void *data, ngx_int_t rc, ngx_str_t *items, ngx_uint_t n)
{
    ngx_s3_debt_t *debt = data;

    if (rc != NGX_OK || n != 1 || items[0].len != 1
        || items[0].data[0] != '1')
    {
        ngx_s3_debt_free(debt);
        return;
    }

    /* from now on it is renewed as our own */

    debt->renewed = ngx_current_msec;

    ngx_queue_remove(&debt->queue);
    ngx_queue_insert_tail(&debt->reaper->debts, &debt->queue);

    ngx_s3_debt_due(debt, 0);
}
