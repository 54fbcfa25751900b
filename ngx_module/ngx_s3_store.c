#include "ngx_s3_store.h"


#define NGX_S3_STORE_DELAY    250            /* ms */
#define NGX_S3_STORE_STEPS    12             /* more do not change the delay */
#define NGX_S3_STORE_LOGGED   5              /* outages with own lines, */
#define NGX_S3_STORE_WINDOW   60             /* in so many seconds */


static ngx_uint_t ngx_s3_store_flaps(ngx_s3_store_t *store);


ngx_int_t
ngx_s3_store_arg(ngx_str_t *arg, const char *name, ngx_str_t *value)
{
    size_t  len;

    len = ngx_strlen(name);

    if (arg->len <= len
        || ngx_strncmp(arg->data, name, len) != 0
        || arg->data[len] != '=')
    {
        return NGX_DECLINED;
    }

    value->len = arg->len - len - 1;
    value->data = arg->data + len + 1;

    return NGX_OK;
}


ngx_int_t
ngx_s3_store_ttl(ngx_conf_t *cf, ngx_s3_store_t *store, ngx_str_t *value)
{
    ngx_int_t  ms;

    ms = ngx_parse_time(value, 0);

    if (ms == NGX_ERROR || ms < NGX_S3_STORE_TTL_MIN) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid ttl \"%V\" of \"s3_progress_%s\", it is "
                           "a time of at least %i s", value, store->name,
                           (ngx_int_t) NGX_S3_STORE_TTL_MIN / 1000);
        return NGX_ERROR;
    }

    store->ttl = ms;

    return NGX_OK;
}


void
ngx_s3_store_log(ngx_log_t *from, ngx_log_t *to)
{
    *to = *from;

    to->handler = NULL;
    to->data = NULL;
    to->action = NULL;

    if (to->log_level > NGX_LOG_ERR && to->log_level <= NGX_LOG_DEBUG) {
        to->log_level = NGX_LOG_ERR;
    }
}


void
ngx_s3_store_failed(ngx_s3_store_t *store, const char *reason)
{
    u_char      *p;
    ngx_uint_t   level;
    u_char       text[256];

    store->limit = 1;
    store->failures++;

    if (store->up) {
        store->up = 0;
        (void) ngx_atomic_fetch_add(&store->count->up, -1);
    }

    if (!store->down) {
        store->down = 1;
        store->down_since = ngx_time();
        (void) ngx_atomic_fetch_add(&store->count->outages, 1);
        store->quiet = ngx_s3_store_flaps(store);

    } else if (store->quiet
               && ngx_time() - store->down_since >= NGX_S3_STORE_WINDOW)
    {
        store->quiet = 0;

    } else {
        return;
    }

    level = store->quiet ? NGX_LOG_INFO : NGX_LOG_WARN;

    ngx_cpystrn(text, (u_char *) reason, sizeof(text));

    for (p = text; *p != '\0'; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            *p = ' ';
        }
    }

    ngx_log_error(level, store->log, 0,
                  "%s store is down: %s, host: %V",
                  store->name, text, &store->where);
}


/* a store that fails every now and then must not fill the log */

static ngx_uint_t
ngx_s3_store_flaps(ngx_s3_store_t *store)
{
    if (ngx_time() - store->window >= NGX_S3_STORE_WINDOW) {
        store->window = ngx_time();
        store->logged = 0;
    }

    return store->logged++ >= NGX_S3_STORE_LOGGED;
}


void
ngx_s3_store_foreign(ngx_s3_store_t *store, const char *id, s3_state_e state)
{
    if (!s3_state_final(state)) {
        return;
    }

    ngx_log_error(NGX_LOG_INFO, store->log, 0,
                  "%s store keeps the record of another owner, transfer: %s, "
                  "host: %V", store->name, id, &store->where);
}


void
ngx_s3_store_unread(ngx_s3_store_t *store, const char *reason)
{
    if (store->unread && ngx_time() - store->unread < NGX_S3_STORE_WINDOW) {
        return;
    }

    store->unread = ngx_time();

    ngx_log_error(NGX_LOG_WARN, store->log, 0,
                  "%s store cannot be read: %s, host: %V",
                  store->name, reason, &store->where);
}


void
ngx_s3_store_works(ngx_s3_store_t *store)
{
    ngx_uint_t  level;

    store->failures = 0;
    store->limit = ngx_min(store->limit * 2, store->max);

    if (!store->up) {
        store->up = 1;
        (void) ngx_atomic_fetch_add(&store->count->up, 1);
    }

    if (!store->down) {
        return;
    }

    store->down = 0;
    level = store->quiet ? NGX_LOG_INFO : NGX_LOG_NOTICE;

    ngx_log_error(level, store->log, 0,
                  "%s store is up again after %T s, %ui records waiting, "
                  "host: %V", store->name, ngx_time() - store->down_since,
                  store->waiting, &store->where);
}


void
ngx_s3_store_closed(ngx_s3_store_t *store)
{
    if (store->up) {
        store->up = 0;
        (void) ngx_atomic_fetch_add(&store->count->up, -1);
    }
}


ngx_msec_t
ngx_s3_store_delay(ngx_s3_store_t *store, ngx_msec_t cap)
{
    ngx_uint_t  step;
    ngx_msec_t  delay;

    step = ngx_min(store->failures, NGX_S3_STORE_STEPS);
    delay = NGX_S3_STORE_DELAY << (step ? step - 1 : 0);

    delay = ngx_min(delay, cap);

    return delay / 2 + ngx_random() % (delay / 2 + 1);
}


uint64_t
ngx_s3_store_now(void)
{
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    return (uint64_t) tp->sec * 1000 + tp->msec;
}
