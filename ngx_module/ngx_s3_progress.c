#include "ngx_s3_progress.h"
#include "ngx_s3_queue.h"

#include <openssl/err.h>
#include <openssl/rand.h>


#define NGX_S3_PROGRESS_LINE  256    /* the longest that tells of a state */
#define NGX_S3_PROGRESS_RANDOM  (32 * NGX_S3_PROGRESS_ID / 2)   /* of a call
                                        of RAND_bytes(), which costs a system
                                        call */
#define NGX_S3_PROGRESS_TICK  3000   /* ms between two looks for what is dead
                                        or silent */
#define NGX_S3_PROGRESS_LOOK  250    /* ms, for what is to be ended */


typedef struct {
    ngx_s3_stores_t    *stores;
    void               *unused[2];
    ngx_int_t           ident;       /* -1: the descriptor, as the debug log of
                                        timers sees this structure */
    ngx_event_t         tick;
    ngx_event_t         look;        /* set while some are open */
    ngx_uint_t          cancels;     /* asked for when it looked last */
    ngx_queue_t         open;        /* ngx_s3_progress_t, that with the oldest
                                        record first */
    ngx_msec_t          renew;       /* half a record's life, 0: no store */
} ngx_s3_progress_worker_t;


static void ngx_s3_progress_stamp(ngx_s3_progress_t *p);
static void ngx_s3_progress_record(ngx_s3_progress_t *p);
static ngx_uint_t ngx_s3_progress_logged(ngx_s3_progress_t *p);
static void ngx_s3_progress_log(ngx_s3_progress_t *p, u_char *text,
    size_t len);
static void ngx_s3_progress_stores(ngx_s3_stores_t *stores,
    const s3_record_t *record);
static void ngx_s3_progress_totals(ngx_s3_progress_t *p);
static void ngx_s3_progress_enqueue(ngx_s3_progress_t *p);
static ngx_s3_counters_t *ngx_s3_progress_counters(ngx_s3_stores_t *stores);
static ngx_int_t ngx_s3_progress_store(ngx_s3_store_t *store,
    ngx_s3_progress_worker_t *w, ngx_cycle_t *cycle);
static void ngx_s3_progress_tick(ngx_event_t *ev);
static void ngx_s3_progress_look(ngx_event_t *ev);
static void ngx_s3_progress_reaped(void *data,
    const ngx_s3_zone_orphan_t *orphan);


/* stands in where there is no zone */

static ngx_s3_counters_t  ngx_s3_progress_none;


ngx_int_t
ngx_s3_progress_id(char id[NGX_S3_PROGRESS_ID + 1], ngx_log_t *log)
{
    u_char  *p;

    static u_char      random[NGX_S3_PROGRESS_RANDOM];
    static size_t      left;
    static ngx_pid_t   pid;

    /* no process goes on with what another one had left at its fork */

    if (left == 0 || pid != ngx_pid) {

        if (RAND_bytes(random, sizeof(random)) != 1) {
            ERR_clear_error();
            ngx_log_error(NGX_LOG_CRIT, log, 0, "RAND_bytes() failed");
            return NGX_ERROR;
        }

        pid = ngx_pid;
        left = sizeof(random);
    }

    left -= NGX_S3_PROGRESS_ID / 2;
    p = random + left;

    *ngx_hex_dump((u_char *) id, p, NGX_S3_PROGRESS_ID / 2) = '\0';

    ngx_memzero(p, NGX_S3_PROGRESS_ID / 2);

    return NGX_OK;
}


ngx_int_t
ngx_s3_progress_open(ngx_s3_progress_t *p, ngx_s3_progress_conf_t *conf,
    const ngx_s3_zone_claim_t *claim, ngx_log_t *log)
{
    ngx_int_t           rc;
    ngx_s3_zone_t      *zone;
    ngx_s3_counters_t  *counters;

    zone = conf->stores->zone;
    counters = ngx_s3_progress_counters(conf->stores);

    p->conf = conf;
    p->log = log;
    p->slot = NULL;
    p->bytes = 0;
    p->chunks = 0;
    p->counted_bytes = 0;
    p->counted_chunks = 0;
    p->open = 0;
    p->queued = 0;

    p->record.state = S3_STATE_ACTIVE;
    p->record.sequence = 0;
    p->record.started_at = ngx_s3_store_now();
    p->record.attempt = p->record.started_at;

    ngx_s3_progress_stamp(p);

    rc = zone ? ngx_s3_zone_open(zone, &p->record, claim, &p->slot)
              : NGX_DECLINED;

    if (rc != NGX_OK && (rc != NGX_DECLINED || claim->ingest)) {
        return rc;
    }

    if (rc == NGX_DECLINED) {
        p->slot = &p->none;
        (void) ngx_atomic_fetch_add(&counters->untracked, 1);

        ngx_log_error(NGX_LOG_INFO, log, 0,
                      "no room for a record in the zone");
    }

    s3_gate_init(&p->gate, &conf->gate, p->record.total_bytes);

    p->open = 1;
    (void) ngx_atomic_fetch_add(&counters->started, 1);

    ngx_s3_progress_enqueue(p);
    ngx_s3_progress_stores(conf->stores, &p->record);

    return NGX_OK;
}


ngx_s3_slot_t *
ngx_s3_progress_slot(ngx_s3_progress_t *p)
{
    return p->slot == &p->none ? NULL : p->slot;
}


void
ngx_s3_progress_opening(ngx_s3_progress_t *p)
{
    u_char              mem[S3_RECORD_LOG_MAX];
    s3_buf_t            b;
    ngx_s3_counters_t  *counters;

    s3_gate_open(&p->gate, p->bytes);

    if (!p->open) {
        return;
    }

    counters = ngx_s3_progress_counters(p->conf->stores);
    (void) ngx_atomic_fetch_add(&counters->openings, 1);

    ngx_s3_progress_record(p);

    if (!ngx_s3_progress_logged(p)) {
        return;
    }

    s3_buf_init(&b, mem, sizeof(mem));
    s3_record_log(&p->record, &b);

    ngx_s3_progress_log(p, mem, b.pos - b.start);
}


void
ngx_s3_progress_total(ngx_s3_progress_t *p, uint64_t total)
{
    if (!p->open) {
        return;
    }

    p->record.total_bytes = total;

    s3_gate_init(&p->gate, &p->conf->gate, total);

    ngx_s3_progress_record(p);
}


void
ngx_s3_progress_stored(ngx_s3_progress_t *p, uint64_t n)
{
    ngx_s3_counters_t  *counters;

    p->record.bytes_stored += n;
    p->record.parts_stored++;

    p->slot->bytes_stored = p->record.bytes_stored;
    p->slot->parts_stored = p->record.parts_stored;
    p->slot->updated_at = ngx_s3_store_now();

    counters = ngx_s3_progress_counters(p->conf->stores);
    (void) ngx_atomic_fetch_add(&counters->bytes_stored, n);
    (void) ngx_atomic_fetch_add(&counters->parts_stored, 1);
}


void
ngx_s3_progress_state(ngx_s3_progress_t *p, s3_state_e state,
    const char *etag, const char *error)
{
    u_char              *last, mem[NGX_S3_PROGRESS_LINE];
    ngx_s3_counters_t   *counters;

    if (!p->open) {
        return;
    }

    p->record.state = state;

    if (etag) {
        (void) s3_str_copy(p->record.etag, sizeof(p->record.etag),
                           s3_str(etag));
    }

    if (error) {
        (void) s3_str_copy(p->record.error, sizeof(p->record.error),
                           s3_str(error));
    }

    if (state == S3_STATE_COMPLETING || state == S3_STATE_COMPLETED) {
        p->record.total_bytes = p->bytes;
    }

    counters = ngx_s3_progress_counters(p->conf->stores);

    switch (state) {

    case S3_STATE_COMPLETED:
        (void) ngx_atomic_fetch_add(&counters->completed, 1);
        break;

    case S3_STATE_FAILED:
        (void) ngx_atomic_fetch_add(&counters->failed, 1);
        break;

    case S3_STATE_ABORTED:
        (void) ngx_atomic_fetch_add(&counters->aborted, 1);
        break;

    default:
        break;
    }

    ngx_s3_progress_record(p);

    if (!ngx_s3_progress_logged(p)) {
        return;
    }

    last = ngx_snprintf(mem, sizeof(mem),
                        "transfer is %s, bytes: %uL, stored: %uL",
                        s3_state_name(state), p->bytes,
                        p->record.bytes_stored);

    /* what failed has a line of its own */

    if (state == S3_STATE_ABORTED && error && *error) {
        last = ngx_snprintf(last, mem + sizeof(mem) - last, ", cause: %s",
                            error);
    }

    ngx_s3_progress_log(p, mem, last - mem);
}


static ngx_uint_t
ngx_s3_progress_logged(ngx_s3_progress_t *p)
{
    return p->conf->log_level != NGX_S3_PROGRESS_LOG_OFF
           && p->conf->log_level <= p->log->log_level;
}


/* what happens meanwhile between nginx and S3 is not what the line tells */

static void
ngx_s3_progress_log(ngx_s3_progress_t *p, u_char *text, size_t len)
{
    char  *action;

    action = p->log->action;
    p->log->action = NULL;

    ngx_log_error(p->conf->log_level, p->log, 0, "%*s", len, text);

    p->log->action = action;
}


/* the next record: whole, numbered and dated */

static void
ngx_s3_progress_stamp(ngx_s3_progress_t *p)
{
    uint64_t        now;
    ngx_s3_zone_t  *zone;

    zone = p->conf->stores->zone;
    now = ngx_s3_store_now();

    /* the clock may have been set back */

    if (now < p->record.updated_at && p->record.sequence != 0) {
        now = p->record.updated_at;
    }

    p->record.sequence++;
    p->record.bytes_transferred = p->bytes;
    p->record.updated_at = now;
    p->record.expires_at = now + (zone ? zone->ttl : NGX_S3_STORE_TTL);
}


static void
ngx_s3_progress_record(ngx_s3_progress_t *p)
{
    ngx_s3_zone_t  *zone;

    zone = p->conf->stores->zone;

    ngx_s3_progress_stamp(p);

    p->slot->bytes_transferred = p->bytes;
    p->slot->updated_at = p->record.updated_at;

    if (s3_state_final(p->record.state)) {

        if (p->slot != &p->none) {
            ngx_s3_zone_close(zone, p->slot, &p->record);
        }

        /* the slot may be another transfer's from now on */

        p->slot = &p->none;
        p->open = 0;

    } else if (p->slot != &p->none) {
        ngx_s3_zone_update(zone, p->slot, &p->record);
    }

    ngx_s3_progress_totals(p);
    ngx_s3_progress_enqueue(p);
    ngx_s3_progress_stores(p->conf->stores, &p->record);
}


static void
ngx_s3_progress_stores(ngx_s3_stores_t *stores, const s3_record_t *record)
{
    if (stores->redis) {
        ngx_s3_queue_put(stores->redis, record);
    }

    if (stores->dynamodb) {
        ngx_s3_queue_put(stores->dynamodb, record);
    }
}


static void
ngx_s3_progress_totals(ngx_s3_progress_t *p)
{
    ngx_s3_counters_t  *counters;

    counters = ngx_s3_progress_counters(p->conf->stores);

    (void) ngx_atomic_fetch_add(&counters->bytes_transferred,
                                p->bytes - p->counted_bytes);
    (void) ngx_atomic_fetch_add(&counters->chunks,
                                p->chunks - p->counted_chunks);

    p->counted_bytes = p->bytes;
    p->counted_chunks = p->chunks;
}


/* an open one goes to the end of those whose records will need renewal */

static void
ngx_s3_progress_enqueue(ngx_s3_progress_t *p)
{
    ngx_s3_progress_worker_t  *w;

    w = p->conf->stores->worker;

    if (p->queued) {
        ngx_queue_remove(&p->queue);
        p->queued = 0;
    }

    if (w == NULL || !p->open) {
        return;
    }

    p->recorded = ngx_current_msec;
    p->queued = 1;
    ngx_queue_insert_tail(&w->open, &p->queue);

    if (!w->look.timer_set) {
        ngx_add_timer(&w->look, NGX_S3_PROGRESS_LOOK);
    }
}


static ngx_s3_counters_t *
ngx_s3_progress_counters(ngx_s3_stores_t *stores)
{
    if (stores->zone && stores->zone->counters) {
        return stores->zone->counters;
    }

    return &ngx_s3_progress_none;
}


ngx_int_t
ngx_s3_progress_init_worker(ngx_s3_stores_t *stores, ngx_cycle_t *cycle)
{
    ngx_s3_progress_worker_t  *w;

    /* the cache manager is not a worker */

    if (ngx_process != NGX_PROCESS_WORKER
        && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    w = ngx_pcalloc(cycle->pool, sizeof(ngx_s3_progress_worker_t));
    if (w == NULL) {
        return NGX_ERROR;
    }

    if (stores->zone && stores->zone->sh) {
        ngx_s3_zone_enter(stores->zone);
    }

    ngx_queue_init(&w->open);

    w->stores = stores;
    w->ident = -1;

    if (ngx_s3_progress_store(stores->redis, w, cycle) != NGX_OK
        || ngx_s3_progress_store(stores->dynamodb, w, cycle) != NGX_OK)
    {
        return NGX_ERROR;
    }

    stores->worker = w;

    w->tick.handler = ngx_s3_progress_tick;
    w->tick.data = w;
    w->tick.log = cycle->log;
    w->tick.cancelable = 1;

    w->look.handler = ngx_s3_progress_look;
    w->look.data = w;
    w->look.log = cycle->log;
    w->look.cancelable = 1;

    ngx_s3_progress_tick(&w->tick);

    return NGX_OK;
}


static ngx_int_t
ngx_s3_progress_store(ngx_s3_store_t *store, ngx_s3_progress_worker_t *w,
    ngx_cycle_t *cycle)
{
    if (store == NULL) {
        return NGX_OK;
    }

    if (w->renew == 0 || store->ttl / 2 < w->renew) {
        w->renew = store->ttl / 2;
    }

    if (ngx_s3_queue_create(store, ngx_s3_progress_counters(w->stores), cycle)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return store->open(store, cycle);
}


static void
ngx_s3_progress_tick(ngx_event_t *ev)
{
    ngx_s3_progress_worker_t *w = ev->data;

    ngx_int_t           rc;
    ngx_s3_stores_t    *stores;
    ngx_s3_progress_t  *p;

    stores = w->stores;
    rc = NGX_OK;

    if (stores->zone && stores->zone->counters) {

        /* one that leaves takes over nothing */

        rc = ngx_s3_zone_reap(stores->zone, stores->orphan && !ngx_exiting,
                              ngx_s3_progress_reaped, stores);
    }

    while (w->renew && !ngx_queue_empty(&w->open)) {
        p = ngx_queue_data(ngx_queue_head(&w->open), ngx_s3_progress_t, queue);

        if (ngx_current_msec - p->recorded < w->renew) {
            break;
        }

        ngx_s3_progress_record(p);
    }

    if (stores->redis) {
        ngx_s3_queue_run(stores->redis);
    }

    if (stores->dynamodb) {
        ngx_s3_queue_run(stores->dynamodb);
    }

    ngx_add_timer(ev, rc == NGX_AGAIN ? 1 : NGX_S3_PROGRESS_TICK);
}


static void
ngx_s3_progress_look(ngx_event_t *ev)
{
    ngx_s3_progress_worker_t *w = ev->data;

    ngx_s3_progress_cancel(w->stores);

    if (!ngx_queue_empty(&w->open)) {
        ngx_add_timer(ev, NGX_S3_PROGRESS_LOOK);
    }
}


void
ngx_s3_progress_cancel(ngx_s3_stores_t *stores)
{
    ngx_uint_t                 n;
    ngx_queue_t               *q, *next;
    ngx_s3_progress_t         *p;
    ngx_s3_progress_worker_t  *w;

    w = stores->worker;

    if (w == NULL || stores->zone == NULL) {
        return;
    }

    n = ngx_s3_zone_cancels(stores->zone);

    if (n == w->cancels) {
        return;
    }

    w->cancels = n;

    for (q = ngx_queue_head(&w->open);
         q != ngx_queue_sentinel(&w->open);
         q = next)
    {
        next = ngx_queue_next(q);
        p = ngx_queue_data(q, ngx_s3_progress_t, queue);

        if (p->slot->cancel) {
            p->cancel(p);
        }
    }
}


static void
ngx_s3_progress_reaped(void *data, const ngx_s3_zone_orphan_t *orphan)
{
    ngx_s3_stores_t *stores = data;

    if (orphan->failed) {
        ngx_s3_progress_stores(stores, &orphan->record);
    }

    if (orphan->owes) {
        stores->orphan(stores->orphan_data, orphan);
    }
}


void
ngx_s3_progress_exit_worker(ngx_s3_stores_t *stores)
{
    ngx_s3_progress_worker_t *w = stores->worker;

    if (w == NULL) {
        return;
    }

    if (stores->redis) {
        ngx_s3_queue_close(stores->redis);
    }

    if (stores->dynamodb) {
        ngx_s3_queue_close(stores->dynamodb);
    }

    if (w->tick.timer_set) {
        ngx_del_timer(&w->tick);
    }

    if (w->look.timer_set) {
        ngx_del_timer(&w->look);
    }

    stores->worker = NULL;
}
