/*
 * The workers in the zone: their counters, and what those that died left.
 */

#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_s3_zone_slots.h"


#define NGX_S3_ZONE_PIDS  64             /* known to be alive, a reaping */

/* all of a ngx_s3_counters_t's fields are of one type */

#define NGX_S3_ZONE_COUNTERS                                                 \
    (sizeof(ngx_s3_counters_t) / sizeof(ngx_atomic_t))


static ngx_int_t ngx_s3_zone_reap_page(ngx_s3_zone_t *zone, ngx_uint_t claim,
    ngx_s3_zone_orphan_pt handler, void *data);
static ngx_uint_t ngx_s3_zone_reap_one(ngx_s3_zone_t *zone, ngx_uint_t i,
    ngx_uint_t claim, ngx_s3_zone_orphan_t *orphan);
static void ngx_s3_zone_fail(ngx_s3_zone_t *zone, ngx_s3_zone_slot_t *zs,
    s3_record_t *record);
static ngx_int_t ngx_s3_zone_expire(ngx_s3_zone_t *zone);
static void ngx_s3_zone_add(ngx_s3_counters_t *sum,
    ngx_s3_counters_t *counters);
static void ngx_s3_zone_store_totals(s3_store_totals_t *totals,
    ngx_s3_store_counters_t *counters);


void
ngx_s3_zone_enter(ngx_s3_zone_t *zone)
{
    ngx_uint_t             i;
    ngx_s3_zone_sh_t      *sh;
    ngx_s3_zone_worker_t  *worker, *mine;

    mine = NULL;

    sh = ngx_s3_zone_lock(zone);

    for (i = 0; i < NGX_S3_ZONE_WORKERS; i++) {
        worker = &sh->worker[i];

        /* what it counted is kept, but for what it said of the moment */

        if (worker->pid && ngx_s3_zone_gone(worker)) {
            worker->counters.memory_used = 0;
            worker->counters.aborts_waiting = 0;
            worker->counters.redis.up = 0;
            worker->counters.dynamodb.up = 0;

            sh->losses++;

            ngx_memory_barrier();

            worker->pid = 0;
            ngx_s3_zone_add(&sh->counters, &worker->counters);
        }

        if (worker->pid == ngx_pid || (worker->pid == 0 && mine == NULL)) {
            mine = worker;
        }
    }

    if (mine && mine->pid == 0 && zone->counters == &sh->counters) {
        ngx_memzero(&mine->counters, sizeof(ngx_s3_counters_t));
        mine->epoch = ngx_s3_zone_epoch();
        mine->leaving = 0;

        ngx_memory_barrier();

        mine->pid = ngx_pid;
    }

    if (mine && mine->pid == ngx_pid) {
        zone->counters = &mine->counters;

    } else {
        sh->crowded = 1;
    }

    ngx_s3_zone_unlock(zone);
}


void
ngx_s3_zone_totals(ngx_s3_zone_t *zone, s3_totals_t *totals)
{
    ngx_uint_t          i;
    ngx_s3_zone_sh_t   *sh;
    ngx_s3_counters_t   sum;

    ngx_memzero(&sum, sizeof(ngx_s3_counters_t));

    sh = ngx_s3_zone_lock(zone);

    totals->active = sh->nlive;
    totals->ingests = sh->ningests;
    totals->slots = sh->slots;
    totals->slots_used = sh->nlive + sh->nfinished;

    ngx_s3_zone_add(&sum, &sh->counters);

    for (i = 0; i < NGX_S3_ZONE_WORKERS; i++) {
        if (sh->worker[i].pid) {
            ngx_s3_zone_add(&sum, &sh->worker[i].counters);
        }
    }

    ngx_s3_zone_unlock(zone);

    totals->started = sum.started;
    totals->completed = sum.completed;
    totals->failed = sum.failed;
    totals->aborted = sum.aborted;
    totals->untracked = sum.untracked;
    totals->bytes_transferred = sum.bytes_transferred;
    totals->bytes_stored = sum.bytes_stored;
    totals->parts_stored = sum.parts_stored;
    totals->chunks = sum.chunks;
    totals->openings = sum.openings;
    totals->s3_requests = sum.s3_requests;
    totals->s3_retries = sum.s3_retries;
    totals->s3_errors = sum.s3_errors;
    totals->orphans = sum.orphans;
    totals->aborts_waiting = sum.aborts_waiting;
    totals->memory_used = sum.memory_used;
    totals->tee_captured = sum.tee_captured;

    for (i = 0; i < S3_TEE_N; i++) {
        totals->tee[i] = sum.tee[i];
    }

    ngx_s3_zone_store_totals(&totals->redis, &sum.redis);
    ngx_s3_zone_store_totals(&totals->dynamodb, &sum.dynamodb);
}


ngx_int_t
ngx_s3_zone_reap(ngx_s3_zone_t *zone, ngx_uint_t claim,
    ngx_s3_zone_orphan_pt handler, void *data)
{
    ngx_int_t          orphans, expired;
    ngx_uint_t         losses;
    ngx_s3_zone_sh_t  *sh;

    ngx_s3_zone_enter(zone);

    sh = zone->sh;
    losses = sh->losses;

    ngx_memory_barrier();

    /* all slots are looked at once after an owner was lost */

    if (zone->losses != losses || zone->claim != claim) {
        zone->losses = losses;
        zone->claim = claim;
        zone->reaped = 0;
    }

    orphans = ngx_s3_zone_reap_page(zone, claim, handler, data);

    if (orphans == NGX_OK && sh->crowded) {
        zone->reaped = 0;
    }

    expired = ngx_s3_zone_expire(zone);

    return (orphans == NGX_OK) ? expired : orphans;
}


static ngx_int_t
ngx_s3_zone_reap_page(ngx_s3_zone_t *zone, ngx_uint_t claim,
    ngx_s3_zone_orphan_pt handler, void *data)
{
    ngx_pid_t              pid, alive[NGX_S3_ZONE_PIDS];
    ngx_uint_t             i, k, n, nalive;
    ngx_s3_zone_sh_t      *sh;
    ngx_s3_zone_orphan_t   orphan;

    sh = zone->sh;
    nalive = 0;
    n = 0;

    /* without the lock: an owner seen too early or too late is looked at
       again, under the lock or once its loss is known */

    for (i = zone->reaped; i < *(volatile ngx_uint_t *) &sh->taken; i++) {

        if (n == NGX_S3_ZONE_PAGE) {
            break;
        }

        pid = sh->owner[i];

        if (pid == 0) {
            continue;
        }

        for (k = 0; k < nalive && alive[k] != pid; k++) { /* void */ }

        if (k < nalive) {
            continue;
        }

        if (!ngx_s3_zone_orphan(sh, i)) {

            if (pid != ngx_pid && nalive < NGX_S3_ZONE_PIDS) {
                alive[nalive++] = pid;
            }

            continue;
        }

        if (ngx_s3_zone_reap_one(zone, i, claim, &orphan)) {
            handler(data, &orphan);
            n++;
        }
    }

    if (i != zone->reaped) {
        ngx_log_debug2(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                       "s3 zone: slots looked at:%ui reaped:%ui",
                       i - zone->reaped, n);
    }

    zone->reaped = i;

    return (n == NGX_S3_ZONE_PAGE) ? NGX_AGAIN : NGX_OK;
}


static ngx_uint_t
ngx_s3_zone_reap_one(ngx_s3_zone_t *zone, ngx_uint_t i, ngx_uint_t claim,
    ngx_s3_zone_orphan_t *orphan)
{
    ngx_s3_zone_sh_t    *sh;
    ngx_s3_zone_slot_t  *zs;

    orphan->failed = 0;
    orphan->owes = 0;

    sh = ngx_s3_zone_lock(zone);

    zs = &sh->slot[i];

    if (sh->owner[i] != 0 && ngx_s3_zone_orphan(sh, i)) {
        orphan->failed = (zs->use == NGX_S3_SLOT_LIVE);
        orphan->owes = (zs->debt && claim);
    }

    if (orphan->failed || orphan->owes) {
        ngx_s3_zone_begin(sh);

        if (orphan->failed) {
            ngx_s3_zone_fail(zone, zs, &orphan->record);
            ngx_s3_zone_finish(sh, zs);

        } else {
            orphan->record = zs->record;
        }

        if (orphan->owes) {
            zs->epoch = ngx_s3_zone_epoch();
            sh->owner[i] = ngx_pid;

            orphan->completing = zs->completing;
            orphan->slot = &zs->counters;
            orphan->endpoint = zs->endpoint;
            ngx_memcpy(orphan->upload_id, zs->upload_id,
                       sizeof(orphan->upload_id));
        }

        ngx_s3_zone_end(sh);
    }

    ngx_s3_zone_unlock(zone);

    if (orphan->failed) {
        (void) ngx_atomic_fetch_add(&zone->counters->failed, 1);
    }

    return orphan->failed || orphan->owes;
}


static void
ngx_s3_zone_fail(ngx_s3_zone_t *zone, ngx_s3_zone_slot_t *zs,
    s3_record_t *record)
{
    uint64_t  now;

    now = ngx_s3_zone_now();

    ngx_s3_zone_copy(zs, record, now);

    zs->completing = (record->state == S3_STATE_COMPLETING);

    record->state = S3_STATE_FAILED;
    record->sequence++;
    record->updated_at = ngx_s3_zone_max(record->updated_at, now);
    record->expires_at = now + zone->ttl;
    ngx_cpystrn((u_char *) record->error, (u_char *) "worker process died",
                sizeof(record->error));

    zs->record = *record;
}


static ngx_int_t
ngx_s3_zone_expire(ngx_s3_zone_t *zone)
{
    uint64_t             now;
    ngx_uint_t           n;
    ngx_queue_t         *q;
    ngx_s3_zone_sh_t    *sh;
    ngx_s3_zone_slot_t  *zs;

    now = ngx_s3_zone_now();

    sh = ngx_s3_zone_lock(zone);

    for (n = 0; n < NGX_S3_ZONE_PAGE; n++) {

        if (ngx_queue_empty(&sh->finished)) {
            break;
        }

        q = ngx_queue_head(&sh->finished);
        zs = ngx_s3_zone_queue_slot(q);

        if (!ngx_s3_zone_expired(zone, zs, now)) {
            break;
        }

        ngx_s3_zone_begin(sh);
        ngx_s3_zone_give_up(sh, zs);
        ngx_s3_zone_end(sh);
    }

    ngx_s3_zone_unlock(zone);

    if (n) {
        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                       "s3 zone: page of records expired:%ui", n);
    }

    return (n == NGX_S3_ZONE_PAGE) ? NGX_AGAIN : NGX_OK;
}


ngx_uint_t
ngx_s3_zone_gone(ngx_s3_zone_worker_t *worker)
{
    if (worker->pid == ngx_pid) {
        return worker->epoch != ngx_s3_zone_epoch();
    }

    return kill(worker->pid, 0) == -1 && ngx_errno == NGX_ESRCH;
}


static void
ngx_s3_zone_add(ngx_s3_counters_t *sum, ngx_s3_counters_t *counters)
{
    ngx_uint_t     i;
    ngx_atomic_t  *to, *from;

    to = (ngx_atomic_t *) sum;
    from = (ngx_atomic_t *) counters;

    for (i = 0; i < NGX_S3_ZONE_COUNTERS; i++) {
        (void) ngx_atomic_fetch_add(&to[i], from[i]);
    }
}


static void
ngx_s3_zone_store_totals(s3_store_totals_t *totals,
    ngx_s3_store_counters_t *counters)
{
    totals->records = counters->records;
    totals->writes = counters->writes;
    totals->replaced = counters->replaced;
    totals->dropped = counters->dropped;
    totals->errors = counters->errors;
    totals->outages = counters->outages;
    totals->up = counters->up;
}
