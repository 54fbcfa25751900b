#include "ngx_s3_reaper.h"

#include "ngx_s3_log.h"


#define NGX_S3_REAPER_CALLS    4         /* at a time */
#define NGX_S3_REAPER_MAX      10000     /* aborts that wait */
#define NGX_S3_REAPER_TICK     3000      /* ms */
#define NGX_S3_REAPER_TICK_MIN 100       /* ms */
#define NGX_S3_REAPER_DELAY    1000      /* ms, doubled with each failure */
#define NGX_S3_REAPER_MAX_DELAY  300000
#define NGX_S3_REAPER_STEPS    9
#define NGX_S3_REAPER_REFUSED  3         /* steps more: it will not soon be
                                            allowed */
#define NGX_S3_REAPER_AGAIN    2         /* aborts after a successful one, */
#define NGX_S3_REAPER_SETTLE   5000      /* ms later, then six times that */
#define NGX_S3_REAPER_QUIET    3600      /* s between two lines of a debt */


static void ngx_s3_reaper_tick(ngx_event_t *ev);
static void ngx_s3_reaper_leave(ngx_s3_reaper_t *reaper);
static void ngx_s3_reaper_orphan(void *data,
    const ngx_s3_zone_orphan_t *orphan);
static void ngx_s3_reaper_left(void *data, const ngx_s3_zone_orphan_t *orphan);
static void ngx_s3_reaper_next(ngx_s3_reaper_t *reaper);
static void ngx_s3_debt_state(ngx_s3_debt_t *debt, ngx_s3_debt_state_e state);
static void ngx_s3_debt_stop(ngx_s3_debt_t *debt);
static void ngx_s3_debt_timer(ngx_event_t *ev);
static void ngx_s3_debt_run(ngx_s3_debt_t *debt);
static void ngx_s3_debt_part(ngx_s3_call_t *call, const s3_xml_part_t *part);
static void ngx_s3_debt_called(ngx_s3_call_t *call);
static void ngx_s3_debt_listed(ngx_s3_debt_t *debt, ngx_s3_call_t *call);
static ngx_uint_t ngx_s3_debt_elsewhere(ngx_s3_debt_t *debt,
    ngx_s3_call_t *call);
static void ngx_s3_debt_over(ngx_s3_debt_t *debt);
static void ngx_s3_debt_succeeded(ngx_s3_debt_t *debt, ngx_uint_t status);
static void ngx_s3_debt_failed(ngx_s3_debt_t *debt, ngx_s3_call_t *call);
static u_char *ngx_s3_debt_log_error(ngx_log_t *log, u_char *buf, size_t len);


ngx_s3_reaper_t *
ngx_s3_reaper_create(ngx_conf_t *cf, ngx_s3_reaper_mode_e mode,
    ngx_msec_t lease, ngx_s3_stores_t *stores, ngx_array_t *targets)
{
    ngx_s3_reaper_t  *reaper;

    reaper = ngx_pcalloc(cf->pool, sizeof(ngx_s3_reaper_t));
    if (reaper == NULL) {
        return NULL;
    }

    reaper->ident = -1;
    reaper->mode = mode;
    reaper->lease = lease;
    reaper->stores = stores;
    reaper->targets = targets;

    return reaper;
}


ngx_int_t
ngx_s3_reaper_init_worker(ngx_s3_reaper_t *reaper, ngx_cycle_t *cycle)
{
    if (ngx_s3_progress_id(reaper->boot, cycle->log) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_queue_init(&reaper->debts);
    ngx_queue_init(&reaper->paid);
    ngx_queue_init(&reaper->claiming);
    ngx_queue_init(&reaper->ready);

    reaper->log = cycle->log;
    reaper->working = 1;

    if (reaper->mode != NGX_S3_REAPER_OFF) {
        reaper->stores->orphan = ngx_s3_reaper_orphan;
        reaper->stores->orphan_data = reaper;
    }

    /* no worker stays for it */

    reaper->tick.handler = ngx_s3_reaper_tick;
    reaper->tick.data = reaper;
    reaper->tick.log = cycle->log;
    reaper->tick.cancelable = 1;

    ngx_add_timer(&reaper->tick, NGX_S3_REAPER_TICK_MIN);

    return NGX_OK;
}


static void
ngx_s3_reaper_tick(ngx_event_t *ev)
{
    ngx_msec_t        tick;
    ngx_s3_reaper_t  *reaper = ev->data;

    tick = NGX_S3_REAPER_TICK;

    if (ngx_exiting) {
        ngx_s3_reaper_leave(reaper);
    }

    if (reaper->mode == NGX_S3_REAPER_REDIS) {
        ngx_s3_reaper_redis_tick(reaper);

        tick = ngx_min(tick, reaper->lease / 10);
    }

    ngx_add_timer(ev, ngx_max(tick, NGX_S3_REAPER_TICK_MIN));
}


/* The worker is leaving, though its uploads may take hours: until then it goes
   on with what is owed, but no call of that holds it for long. */

static void
ngx_s3_reaper_leave(ngx_s3_reaper_t *reaper)
{
    ngx_queue_t    *q;
    ngx_s3_debt_t  *debt;

    if (!reaper->leaving) {
        reaper->leaving = 1;
        reaper->left = ngx_current_msec;

        (void) ngx_s3_zone_leave(reaper->stores->zone);
    }

    if (ngx_current_msec - reaper->left < NGX_S3_REAPER_HOLD) {
        return;
    }

    for (q = ngx_queue_head(&reaper->debts);
         q != ngx_queue_sentinel(&reaper->debts);
         q = ngx_queue_next(q))
    {
        debt = ngx_queue_data(q, ngx_s3_debt_t, queue);

        if (debt->state == NGX_S3_DEBT_RUNNING
            && ngx_current_msec - debt->began >= NGX_S3_REAPER_HOLD)
        {
            ngx_s3_debt_stop(debt);
            ngx_s3_debt_due(debt, NGX_S3_REAPER_MAX_DELAY);
        }
    }

    ngx_s3_reaper_next(reaper);
}


void
ngx_s3_reaper_exit_worker(ngx_s3_reaper_t *reaper)
{
    ngx_uint_t      i, others;
    ngx_queue_t    *queues[3];
    ngx_s3_zone_t  *zone;
    ngx_s3_debt_t  *debt;

    if (!reaper->working) {
        return;
    }

    reaper->working = 0;

    zone = reaper->stores->zone;
    others = ngx_s3_zone_leave(zone);

    queues[0] = &reaper->debts;
    queues[1] = &reaper->paid;
    queues[2] = &reaper->claiming;

    for (i = 0; i < 3; i++) {
        while (!ngx_queue_empty(queues[i])) {
            debt = ngx_queue_data(ngx_queue_head(queues[i]), ngx_s3_debt_t,
                                  queue);

            ngx_s3_debt_stop(debt);

            if (debt->aborted && debt->slot && !others) {
                ngx_s3_zone_settle(zone, debt->slot, &debt->upload_id);

            } else if (i == 0 && debt->slot == NULL && !debt->aborted
                       && !debt->orphan)
            {
                ngx_log_error(NGX_LOG_WARN, &debt->log, 0,
                              "multipart upload \"%V\" stays open",
                              &debt->upload_id);
            }

            ngx_s3_debt_free(debt);
        }
    }

    reaper->last = (others == 0);

    ngx_s3_zone_debts(zone, ngx_s3_reaper_left, reaper);

    if (reaper->tick.timer_set) {
        ngx_del_timer(&reaper->tick);
    }
}


/* a debt in the zone at the end of this worker, whosever it is */

static void
ngx_s3_reaper_left(void *data, const ngx_s3_zone_orphan_t *orphan)
{
    ngx_s3_reaper_t *reaper = data;

    ngx_str_t   upload_id;
    ngx_uint_t  redis, level;

    upload_id.data = (u_char *) orphan->upload_id;
    upload_id.len = ngx_strlen(orphan->upload_id);

    ngx_s3_zone_release(reaper->stores->zone, orphan->slot, &upload_id);

    if (!reaper->last) {
        return;
    }

    redis = (reaper->mode == NGX_S3_REAPER_REDIS);
    level = redis ? NGX_LOG_NOTICE : NGX_LOG_WARN;

    ngx_log_error(level, reaper->log, 0,
                  "multipart upload \"%s\" stays open%s, transfer: %s, "
                  "bucket: \"%s\", key: \"%s\"", orphan->upload_id,
                  redis ? " until its lease in redis is over" : "",
                  orphan->record.id, orphan->record.bucket,
                  orphan->record.key);
}


/* a dead worker's debt in the zone is ours now */

static void
ngx_s3_reaper_orphan(void *data, const ngx_s3_zone_orphan_t *orphan)
{
    ngx_s3_reaper_t *reaper = data;

    u_char               name[S3_ID_MAX + 1 + NGX_INT64_LEN];
    ngx_s3_debt_t       *debt;
    ngx_s3_debt_spec_t   spec;

    spec.bucket.data = (u_char *) orphan->record.bucket;
    spec.bucket.len = ngx_strlen(orphan->record.bucket);
    spec.key.data = (u_char *) orphan->record.key;
    spec.key.len = ngx_strlen(orphan->record.key);
    spec.upload_id.data = (u_char *) orphan->upload_id;
    spec.upload_id.len = ngx_strlen(orphan->upload_id);
    spec.name.data = name;
    spec.name.len = ngx_sprintf(name, "%s.%uL", orphan->record.id,
                                orphan->record.attempt)
                    - name;
    spec.slot = orphan->slot;
    spec.target = ngx_s3_reaper_target(reaper, orphan->endpoint, &spec.bucket,
                                       NULL);

    if (spec.target == NULL) {

        /* it stays owed, and a worker of another configuration may pay */

        ngx_log_error(NGX_LOG_WARN, reaper->log, 0,
                      "multipart upload \"%V\" stays open: no location has "
                      "its endpoint and bucket any more, transfer: %V, "
                      "bucket: \"%V\", key: \"%V\"", &spec.upload_id,
                      &spec.name, &spec.bucket, &spec.key);
        return;
    }

    debt = ngx_s3_debt_create(reaper, &spec);

    if (debt == NULL) {
        ngx_s3_zone_release(reaper->stores->zone, orphan->slot,
                            &spec.upload_id);
        return;
    }

    debt->orphan = 1;
    debt->again = NGX_S3_REAPER_AGAIN;

    ngx_queue_insert_tail(&reaper->debts, &debt->queue);

    if (reaper->mode == NGX_S3_REAPER_REDIS) {
        ngx_s3_reaper_redis_open(debt);
    }

    /* S3 may be putting its parts together */

    ngx_s3_debt_due(debt, orphan->completing ? spec.target->retry_timeout : 0);
}


ngx_uint_t
ngx_s3_reaper_told(ngx_s3_reaper_t *reaper, ngx_str_t *name)
{
    uint32_t    hash;
    ngx_uint_t  i;

    hash = ngx_crc32_long(name->data, name->len);

    for (i = 0; i < NGX_S3_REAPER_TOLD; i++) {
        if (i < reaper->ntold && reaper->told[i] == hash) {
            return 1;
        }
    }

    reaper->told[reaper->ntold++ % NGX_S3_REAPER_TOLD] = hash;

    return 0;
}


ngx_s3_debt_t *
ngx_s3_debt_open(ngx_s3_reaper_t *reaper, ngx_s3_debt_spec_t *spec)
{
    ngx_s3_debt_t  *debt;

    debt = ngx_s3_debt_create(reaper, spec);
    if (debt == NULL) {
        return NULL;
    }

    ngx_queue_insert_tail(&reaper->debts, &debt->queue);

    if (reaper->mode == NGX_S3_REAPER_OFF) {
        debt->slot = NULL;
        return debt;
    }

    if (debt->slot) {
        ngx_s3_zone_owe(reaper->stores->zone, debt->slot,
                        ngx_s3_zone_endpoint(&spec->target->endpoint->name),
                        &debt->upload_id);
    }

    if (reaper->mode == NGX_S3_REAPER_REDIS) {
        ngx_s3_reaper_redis_open(debt);
    }

    return debt;
}


ngx_s3_debt_t *
ngx_s3_debt_create(ngx_s3_reaper_t *reaper, ngx_s3_debt_spec_t *spec)
{
    u_char         *p;
    ngx_s3_debt_t  *debt;

    debt = ngx_alloc(sizeof(ngx_s3_debt_t) + spec->bucket.len + spec->key.len
                     + spec->upload_id.len + spec->name.len, reaper->log);
    if (debt == NULL) {
        return NULL;
    }

    ngx_memzero(debt, sizeof(ngx_s3_debt_t));

    debt->ident = -1;
    debt->reaper = reaper;
    debt->target = spec->target;
    debt->first = spec->target;
    debt->slot = spec->slot;
    debt->lease = reaper->lease;
    debt->newest = -1;

    p = (u_char *) debt + sizeof(ngx_s3_debt_t);

#define ngx_s3_debt_copy(field)                                              \
    debt->field.len = spec->field.len;                                       \
    debt->field.data = p;                                                    \
    p = ngx_cpymem(p, spec->field.data, spec->field.len)

    ngx_s3_debt_copy(bucket);
    ngx_s3_debt_copy(key);
    ngx_s3_debt_copy(upload_id);
    ngx_s3_debt_copy(name);

    ngx_s3_log_own(&debt->log, reaper->log, ngx_s3_debt_log_error, debt);

    debt->timer.handler = ngx_s3_debt_timer;
    debt->timer.data = debt;
    debt->timer.log = &debt->log;
    debt->timer.cancelable = 1;

    return debt;
}


void
ngx_s3_debt_free(ngx_s3_debt_t *debt)
{
    ngx_s3_debt_stop(debt);
    ngx_s3_debt_state(debt, NGX_S3_DEBT_PAID);

    ngx_queue_remove(&debt->queue);

    ngx_free(debt);
}


/* the state's one setter: it keeps the gauge */

static void
ngx_s3_debt_state(ngx_s3_debt_t *debt, ngx_s3_debt_state_e state)
{
    ngx_uint_t      was, is;
    ngx_s3_zone_t  *zone;

    was = (debt->state == NGX_S3_DEBT_WAITING
           || debt->state == NGX_S3_DEBT_RUNNING);
    is = (state == NGX_S3_DEBT_WAITING || state == NGX_S3_DEBT_RUNNING);

    debt->state = state;

    zone = debt->reaper->stores->zone;

    if (was != is) {
        debt->reaper->nwaiting += is ? 1 : -1;

        (void) ngx_atomic_fetch_add(&zone->counters->aborts_waiting,
                                    is ? 1 : -1);
    }
}


/* neither its time nor its call comes any more */

static void
ngx_s3_debt_stop(ngx_s3_debt_t *debt)
{
    if (debt->timer.timer_set) {
        ngx_del_timer(&debt->timer);
    }

    if (debt->queued) {
        ngx_queue_remove(&debt->ready);
        debt->queued = 0;
    }

    if (debt->call) {
        ngx_s3_call_cancel(debt->call);
        ngx_free(debt->call);
        debt->call = NULL;
        debt->reaper->running--;
    }
}


void
ngx_s3_debt_settle(ngx_s3_debt_t *debt)
{
    ngx_s3_reaper_t  *reaper;

    if (debt == NULL) {
        return;
    }

    reaper = debt->reaper;

    ngx_s3_debt_stop(debt);

    if (debt->slot) {
        ngx_s3_zone_settle(reaper->stores->zone, debt->slot,
                           &debt->upload_id);
    }

    if (reaper->mode != NGX_S3_REAPER_REDIS) {
        ngx_s3_debt_free(debt);
        return;
    }

    ngx_s3_debt_state(debt, NGX_S3_DEBT_PAID);

    ngx_queue_remove(&debt->queue);
    ngx_queue_insert_tail(&reaper->paid, &debt->queue);

    ngx_s3_reaper_redis_paid(debt);
}


void
ngx_s3_debt_aborted(ngx_s3_debt_t *debt, ngx_s3_call_t *call,
    ngx_uint_t flying)
{
    if (debt == NULL) {
        return;
    }

    debt->again = flying ? NGX_S3_REAPER_AGAIN : 0;

    if (call->rc == NGX_OK) {
        ngx_s3_debt_succeeded(debt, call->status);
        return;
    }

    if (debt->reaper->nwaiting >= NGX_S3_REAPER_MAX) {
        ngx_log_error(NGX_LOG_ERR, &debt->log, 0,
                      "multipart upload \"%V\" stays open: too many wait to "
                      "be aborted", &debt->upload_id);
        ngx_s3_debt_free(debt);
        return;
    }

    ngx_s3_debt_failed(debt, call);
}


void
ngx_s3_debt_due(ngx_s3_debt_t *debt, ngx_msec_t delay)
{
    ngx_s3_debt_state(debt, NGX_S3_DEBT_WAITING);
    ngx_add_timer(&debt->timer, delay);
}


static void
ngx_s3_debt_timer(ngx_event_t *ev)
{
    ngx_s3_debt_t *debt = ev->data;

    ngx_queue_insert_tail(&debt->reaper->ready, &debt->ready);
    debt->queued = 1;

    ngx_s3_reaper_next(debt->reaper);
}


static void
ngx_s3_reaper_next(ngx_s3_reaper_t *reaper)
{
    ngx_s3_debt_t  *debt;

    while (reaper->running < NGX_S3_REAPER_CALLS
           && !ngx_queue_empty(&reaper->ready))
    {
        debt = ngx_queue_data(ngx_queue_head(&reaper->ready), ngx_s3_debt_t,
                              ready);

        ngx_queue_remove(&debt->ready);
        debt->queued = 0;

        ngx_s3_debt_run(debt);
    }
}


/* one try: the next one is the reaper's */

static void
ngx_s3_debt_run(ngx_s3_debt_t *debt)
{
    ngx_s3_call_t  *call;

    call = ngx_calloc(sizeof(ngx_s3_call_t), &debt->log);
    if (call == NULL) {
        ngx_s3_debt_due(debt, NGX_S3_REAPER_DELAY);
        return;
    }

    call->op = debt->check ? NGX_S3_LIST_PARTS : NGX_S3_ABORT;
    call->target = debt->target;
    call->log = &debt->log;
    call->bucket = debt->bucket;
    call->key = debt->key;
    call->upload_id = debt->upload_id;
    call->part_number = debt->page;
    call->listed = ngx_s3_debt_part;
    call->max_tries = 1;
    call->quiet = 1;
    call->handler = ngx_s3_debt_called;
    call->data = debt;

    if (ngx_s3_call_start(call) != NGX_OK) {
        ngx_free(call);
        ngx_s3_debt_due(debt, NGX_S3_REAPER_DELAY);
        return;
    }

    debt->call = call;
    debt->began = ngx_current_msec;
    debt->reaper->running++;

    ngx_s3_debt_state(debt, NGX_S3_DEBT_RUNNING);
}


static void
ngx_s3_debt_part(ngx_s3_call_t *call, const s3_xml_part_t *part)
{
    int64_t         time;
    ngx_s3_debt_t  *debt = call->data;

    time = s3_retry_iso_date(s3_str(part->last_modified));

    /* one without a time may be new */

    if (time == -1) {
        time = ngx_time() + debt->target->clock_skew + NGX_S3_REAPER_QUIET;
    }

    debt->newest = ngx_max(debt->newest, time);
}


static void
ngx_s3_debt_called(ngx_s3_call_t *call)
{
    ngx_s3_debt_t    *debt = call->data;
    ngx_s3_reaper_t  *reaper;

    reaper = debt->reaper;

    debt->call = NULL;
    debt->log.action = NULL;
    reaper->running--;

    if (ngx_s3_debt_elsewhere(debt, call)) {
        ngx_s3_debt_due(debt, 0);

    } else if (debt->check) {
        ngx_s3_debt_listed(debt, call);

    } else if (call->rc == NGX_OK) {
        ngx_s3_debt_succeeded(debt, call->status);

    } else {
        ngx_s3_debt_failed(debt, call);
    }

    ngx_free(call);

    ngx_s3_reaper_next(reaper);
}


/* an upload that nobody renewed: a new part tells that its uploader lives */

static void
ngx_s3_debt_listed(ngx_s3_debt_t *debt, ngx_s3_call_t *call)
{
    int64_t  now;

    if (call->rc != NGX_OK) {

        if (call->status == 404) {
            ngx_s3_debt_over(debt);
            return;
        }

        ngx_s3_debt_failed(debt, call);
        return;
    }

    debt->unknown = 0;

    if (call->next_part) {
        debt->page = call->next_part;
        ngx_s3_debt_due(debt, 0);
        return;
    }

    now = call->clock;

    if (now == -1) {
        now = ngx_time() + debt->target->clock_skew;
    }

    if (debt->newest != -1
        && now - debt->newest
           <= (int64_t) (NGX_S3_REAPER_LEASES * debt->lease / 1000))
    {
        ngx_log_error(NGX_LOG_INFO, &debt->log, 0,
                      "multipart upload \"%V\" lives without redis, it is "
                      "left alone", &debt->upload_id);
        ngx_s3_debt_free(debt);
        return;
    }

    debt->check = 0;

    ngx_s3_debt_due(debt, 0);
}


/* Ceph's tenants have buckets of the same name: other keys may lead to the one
   that has the upload */

static ngx_uint_t
ngx_s3_debt_elsewhere(ngx_s3_debt_t *debt, ngx_s3_call_t *call)
{
    if (call->status != 404 || !debt->orphan || debt->aborted || debt->page) {
        return 0;
    }

    debt->unknown = 1;

    return ngx_s3_debt_other_keys(debt);
}


static void
ngx_s3_debt_over(ngx_s3_debt_t *debt)
{
    if (!debt->check) {
        ngx_s3_debt_succeeded(debt, 404);
        return;
    }

    ngx_log_error(NGX_LOG_INFO, &debt->log, 0,
                  "multipart upload \"%V\" is over", &debt->upload_id);

    ngx_s3_debt_settle(debt);
}


static void
ngx_s3_debt_succeeded(ngx_s3_debt_t *debt, ngx_uint_t status)
{
    ngx_uint_t        first;
    ngx_s3_counters_t  *counters;

    first = (debt->aborted++ == 0);

    if (first && debt->orphan) {
        counters = debt->reaper->stores->zone->counters;

        if (status != 404) {
            (void) ngx_atomic_fetch_add(&counters->orphans, 1);
        }

        ngx_log_error(NGX_LOG_NOTICE, &debt->log, 0,
                      "orphaned multipart upload \"%V\" %s", &debt->upload_id,
                      status == 404 ? "was gone" : "is aborted");

    } else if (first && debt->failures) {
        ngx_log_error(NGX_LOG_NOTICE, &debt->log, 0,
                      "multipart upload \"%V\" is aborted after %ui failures",
                      &debt->upload_id, debt->failures);
    }

    /* S3 may store a part that was on its way: once more, until it does not
       know the upload */

    if (status != 404 && debt->again) {
        debt->failures = 0;
        debt->again--;

        ngx_s3_debt_due(debt, first ? NGX_S3_REAPER_SETTLE
                                    : 6 * NGX_S3_REAPER_SETTLE);
        return;
    }

    ngx_s3_debt_settle(debt);
}


static void
ngx_s3_debt_failed(ngx_s3_debt_t *debt, ngx_s3_call_t *call)
{
    ngx_uint_t  step, refused;
    ngx_msec_t  delay;

    refused = (call->status >= 400 && call->status < 500
               && call->status != 408 && call->status != 429);

    if (refused && ngx_s3_debt_other_keys(debt)) {
        ngx_s3_debt_due(debt, 0);
        return;
    }

    if (refused && debt->unknown) {
        ngx_s3_debt_over(debt);
        return;
    }

    if (refused && debt->check) {

        if (!ngx_s3_reaper_told(debt->reaper, &debt->name)) {
            ngx_log_error(NGX_LOG_WARN, &debt->log, 0,
                          "multipart upload \"%V\" of another instance is "
                          "left open: %s", &debt->upload_id, call->message);
        }

        ngx_s3_debt_free(debt);
        return;
    }

    step = ngx_min(debt->failures, NGX_S3_REAPER_STEPS);
    step += refused ? NGX_S3_REAPER_REFUSED : 0;

    delay = ngx_min((ngx_msec_t) NGX_S3_REAPER_DELAY << step,
                    NGX_S3_REAPER_MAX_DELAY);
    delay = delay / 2 + ngx_random() % (delay / 2 + 1);

    delay = ngx_max(delay, ngx_min(call->retry_after,
                                   NGX_S3_REAPER_MAX_DELAY));

    debt->failures++;

    /* its uploader may have come back until then */

    if (debt->foreign) {
        debt->check = 1;
        debt->page = 0;
        debt->newest = -1;
    }

    if (debt->failures == 1 || ngx_time() - debt->told >= NGX_S3_REAPER_QUIET)
    {
        debt->told = ngx_time();

        ngx_log_error(NGX_LOG_WARN, &debt->log, 0,
                      "multipart upload \"%V\" is still open, next try in "
                      "%M ms and so on: %s", &debt->upload_id, delay,
                      call->message[0] ? call->message : "no memory");
    }

    ngx_s3_debt_due(debt, delay);
}


static u_char *
ngx_s3_debt_log_error(ngx_log_t *log, u_char *buf, size_t len)
{
    ngx_s3_debt_t  *debt;

    debt = log->data;

    return ngx_s3_log_object(log, buf, len, &debt->name, &debt->bucket,
                             &debt->key);
}
