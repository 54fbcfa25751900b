#include "ngx_s3_queue.h"


#define NGX_S3_QUEUE_TICK  500       /* ms, while final records are pending */


typedef struct ngx_s3_queue_s        ngx_s3_queue_t;
typedef struct ngx_s3_queue_entry_s  ngx_s3_queue_entry_t;

struct ngx_s3_queue_s {
    ngx_s3_store_t          *store;
    void                    *unused[2];
    ngx_int_t                ident;  /* -1: the descriptor, as the debug log of
                                        timers sees this structure */
    ngx_rbtree_t             tree;   /* all entries by transfer id */
    ngx_rbtree_node_t        sentinel;
    ngx_queue_t              actives;        /* entries that wait, oldest */
    ngx_queue_t              finals;         /* first; final records apart */
    ngx_uint_t               n;              /* entries */
    ngx_uint_t               nfinals;        /* entries with a final record,
                                                waiting or in flight */
    ngx_uint_t               in_flight;
    ngx_event_t              hold;   /* plain: keeps a leaving worker */
    ngx_msec_t               deadline;       /* of the hold, 0: none yet */
    ngx_s3_queue_entry_t    *spare;  /* for a final record where there is no
                                        memory: none follows that could take
                                        its place */
    ngx_s3_store_counters_t  none;
    unsigned                 full:1; /* logged */
    unsigned                 closed:1;
};

/*
 *           put                 write               OK, none waits
 *   (none) ----> waiting -----------------> in flight --------------> (none)
 *                 |  ^                       |   |
 *         newer   +--+      ERROR: waiting <-+   +-> put: waiting too
 */

struct ngx_s3_queue_entry_s {
    ngx_str_node_t           node;   /* the id is that of the record */
    ngx_queue_t              queue;  /* where it waits */
    ngx_s3_queue_t          *owner;
    s3_record_t              record; /* the newest, waiting or in flight */
    unsigned                 waiting:1;      /* the record was not sent */
    unsigned                 in_flight:1;
    unsigned                 linked:1;
    unsigned                 final:1;
};


static ngx_s3_queue_entry_t *ngx_s3_queue_find(ngx_s3_queue_t *q,
    const s3_record_t *record);
static ngx_s3_queue_entry_t *ngx_s3_queue_add(ngx_s3_queue_t *q,
    const s3_record_t *record);
static void ngx_s3_queue_remove(ngx_s3_queue_t *q, ngx_s3_queue_entry_t *e);
static void ngx_s3_queue_wait(ngx_s3_queue_t *q, ngx_s3_queue_entry_t *e);
static void ngx_s3_queue_unwait(ngx_s3_queue_t *q, ngx_s3_queue_entry_t *e);
static ngx_s3_queue_entry_t *ngx_s3_queue_first(ngx_queue_t *one,
    ngx_queue_t *other);
static void ngx_s3_queue_make_room(ngx_s3_queue_t *q);
static void ngx_s3_queue_written(void *data, ngx_int_t rc);
static void ngx_s3_queue_final(ngx_s3_queue_t *q, ngx_s3_queue_entry_t *e);
static void ngx_s3_queue_hold_handler(ngx_event_t *ev);


#define ngx_s3_queue_count(q, name)                                          \
    (void) ngx_atomic_fetch_add(&(q)->store->count->name, 1)


ngx_int_t
ngx_s3_queue_create(ngx_s3_store_t *store, ngx_s3_counters_t *counters,
    ngx_cycle_t *cycle)
{
    ngx_s3_queue_t  *q;

    q = ngx_pcalloc(cycle->pool, sizeof(ngx_s3_queue_t));
    if (q == NULL) {
        return NGX_ERROR;
    }

    q->spare = ngx_alloc(sizeof(ngx_s3_queue_entry_t), cycle->log);
    if (q->spare == NULL) {
        return NGX_ERROR;
    }

    ngx_rbtree_init(&q->tree, &q->sentinel, ngx_str_rbtree_insert_value);
    ngx_queue_init(&q->actives);
    ngx_queue_init(&q->finals);

    q->store = store;
    q->ident = -1;

    q->hold.handler = ngx_s3_queue_hold_handler;
    q->hold.data = q;
    q->hold.log = cycle->log;

    store->log = cycle->log;
    store->count = counters ? store->counters(counters) : &q->none;
    store->limit = store->max;
    store->ready = ngx_s3_queue_run;
    store->progress = q;

    return NGX_OK;
}


void
ngx_s3_queue_put(ngx_s3_store_t *store, const s3_record_t *record)
{
    ngx_s3_queue_t        *q;
    ngx_s3_queue_entry_t  *e;

    q = store->progress;

    if (q == NULL) {
        return;
    }

    ngx_s3_queue_count(q, records);

    if (q->closed) {
        ngx_s3_queue_count(q, dropped);
        return;
    }

    e = ngx_s3_queue_find(q, record);

    if (e == NULL) {
        e = ngx_s3_queue_add(q, record);

        if (e == NULL) {
            ngx_s3_queue_count(q, dropped);
            return;
        }

    } else if (s3_record_compare(record, &e->record) <= 0) {
        ngx_s3_queue_count(q, replaced);
        return;

    } else if (e->waiting) {
        ngx_s3_queue_count(q, replaced);
    }

    e->record = *record;
    e->record.expires_at = record->updated_at + store->ttl;

    ngx_s3_queue_final(q, e);
    ngx_s3_queue_wait(q, e);

    ngx_s3_queue_run(store);
}


static ngx_s3_queue_entry_t *
ngx_s3_queue_find(ngx_s3_queue_t *q, const s3_record_t *record)
{
    ngx_str_t        id;
    ngx_str_node_t  *node;

    id.data = (u_char *) record->id;
    id.len = ngx_strlen(record->id);

    node = ngx_str_rbtree_lookup(&q->tree, &id,
                                 ngx_crc32_short(id.data, id.len));

    return (ngx_s3_queue_entry_t *) node;
}


static ngx_s3_queue_entry_t *
ngx_s3_queue_add(ngx_s3_queue_t *q, const s3_record_t *record)
{
    ngx_s3_queue_entry_t  *e;

    if (q->n >= NGX_S3_QUEUE_MAX) {
        ngx_s3_queue_make_room(q);
    }

    e = ngx_alloc(sizeof(ngx_s3_queue_entry_t), q->store->log);

    if (e == NULL && s3_state_final(record->state)) {
        e = q->spare;
        q->spare = NULL;
    }

    if (e == NULL) {
        return NULL;
    }

    ngx_memzero(e, sizeof(ngx_s3_queue_entry_t));

    e->owner = q;
    e->record = *record;

    e->node.str.data = (u_char *) e->record.id;
    e->node.str.len = ngx_strlen(e->record.id);
    e->node.node.key = ngx_crc32_short(e->node.str.data, e->node.str.len);

    ngx_rbtree_insert(&q->tree, &e->node.node);
    q->n++;

    return e;
}


static void
ngx_s3_queue_remove(ngx_s3_queue_t *q, ngx_s3_queue_entry_t *e)
{
    ngx_s3_queue_unwait(q, e);

    if (e->final) {
        q->nfinals--;
    }

    if (q->nfinals == 0 && q->hold.timer_set) {
        ngx_del_timer(&q->hold);
    }

    ngx_rbtree_delete(&q->tree, &e->node.node);
    q->n--;

    if (q->spare == NULL && !q->closed) {
        q->spare = e;
        return;
    }

    ngx_free(e);
}


/*
 * An entry is linked where it waits and has nothing in flight. It keeps its
 * place when its record is replaced, unless that has just become final.
 */

static void
ngx_s3_queue_wait(ngx_s3_queue_t *q, ngx_s3_queue_entry_t *e)
{
    if (!e->waiting) {
        e->waiting = 1;
        q->store->waiting++;
    }

    if (e->in_flight) {
        return;
    }

    if (e->linked) {

        if (!e->final) {
            return;
        }

        ngx_queue_remove(&e->queue);
    }

    e->linked = 1;
    ngx_queue_insert_tail(e->final ? &q->finals : &q->actives, &e->queue);
}


static void
ngx_s3_queue_unwait(ngx_s3_queue_t *q, ngx_s3_queue_entry_t *e)
{
    if (e->linked) {
        ngx_queue_remove(&e->queue);
        e->linked = 0;
    }

    if (!e->waiting) {
        return;
    }

    e->waiting = 0;

    if (--q->store->waiting == 0) {
        q->full = 0;
    }
}


/* the first that may go: a transfer's last word comes before all others */

static ngx_s3_queue_entry_t *
ngx_s3_queue_first(ngx_queue_t *one, ngx_queue_t *other)
{
    ngx_queue_t  *head;

    head = ngx_queue_empty(one) ? other : one;

    if (ngx_queue_empty(head)) {
        return NULL;
    }

    return ngx_queue_data(ngx_queue_head(head), ngx_s3_queue_entry_t, queue);
}


/* the oldest record goes, a final one only where there is no other */

static void
ngx_s3_queue_make_room(ngx_s3_queue_t *q)
{
    ngx_s3_queue_entry_t  *e;

    e = ngx_s3_queue_first(&q->actives, &q->finals);

    if (e == NULL) {
        return;
    }

    if (!q->full) {
        q->full = 1;
        ngx_log_error(NGX_LOG_WARN, q->store->log, 0,
                      "%s store: %ui records are waiting, the oldest are "
                      "dropped", q->store->name, q->store->waiting);
    }

    ngx_s3_queue_count(q, dropped);
    ngx_s3_queue_remove(q, e);
}


void
ngx_s3_queue_run(ngx_s3_store_t *store)
{
    uint64_t               now;
    ngx_int_t              rc;
    ngx_s3_queue_t        *q;
    ngx_s3_queue_entry_t  *e;

    q = store->progress;

    if (q == NULL || q->closed) {
        return;
    }

    now = ngx_s3_store_now();

    while (q->in_flight < store->limit) {

        e = ngx_s3_queue_first(&q->finals, &q->actives);

        if (e == NULL) {
            return;
        }

        if (e->record.expires_at <= now) {
            ngx_s3_queue_count(q, dropped);
            ngx_s3_queue_remove(q, e);
            continue;
        }

        rc = store->write(store, &e->record, ngx_s3_queue_written, e);

        if (rc == NGX_ERROR) {
            return;
        }

        ngx_s3_queue_count(q, writes);

        if (rc == NGX_DECLINED) {
            ngx_s3_queue_count(q, errors);
            ngx_s3_queue_count(q, dropped);
            ngx_s3_queue_remove(q, e);
            continue;
        }

        ngx_s3_queue_unwait(q, e);
        e->in_flight = 1;
        q->in_flight++;
    }
}


static void
ngx_s3_queue_written(void *data, ngx_int_t rc)
{
    ngx_s3_queue_entry_t *e = data;

    ngx_s3_queue_t  *q;

    q = e->owner;

    e->in_flight = 0;
    q->in_flight--;

    if (rc != NGX_OK) {
        ngx_s3_queue_count(q, errors);
    }

    if (rc == NGX_ERROR) {

        /* its record goes again, unless a newer one has come */

        if (e->waiting) {
            ngx_s3_queue_count(q, replaced);
        }

        ngx_s3_queue_wait(q, e);

    } else {

        if (rc == NGX_DECLINED) {
            ngx_s3_queue_count(q, dropped);
        }

        if (e->waiting) {
            ngx_s3_queue_wait(q, e);

        } else {
            ngx_s3_queue_remove(q, e);
        }
    }

    ngx_s3_queue_run(q->store);
}


/* keeps count of final records, which a leaving worker waits for */

static void
ngx_s3_queue_final(ngx_s3_queue_t *q, ngx_s3_queue_entry_t *e)
{
    unsigned  final;

    final = s3_state_final(e->record.state);

    if (final && !e->final) {
        q->nfinals++;

    } else if (!final && e->final) {
        q->nfinals--;
    }

    e->final = final;

    if (!final) {
        return;
    }

    q->deadline = 0;

    if (!q->hold.timer_set) {
        ngx_add_timer(&q->hold, NGX_S3_QUEUE_TICK);
    }
}


static void
ngx_s3_queue_hold_handler(ngx_event_t *ev)
{
    ngx_s3_queue_t *q = ev->data;

    if (q->nfinals == 0 || q->closed) {
        return;
    }

    if (ngx_exiting) {

        if (q->deadline == 0) {
            q->deadline = ngx_current_msec + NGX_S3_QUEUE_HOLD;

        } else if ((ngx_msec_int_t) (ngx_current_msec - q->deadline) >= 0) {
            return;
        }
    }

    ngx_add_timer(ev, NGX_S3_QUEUE_TICK);

    if (ngx_exiting) {
        q->store->hurry(q->store);

        /* what there was no memory to write waits for the next look, and there
           will not be many */

        ngx_s3_queue_run(q->store);
    }
}


void
ngx_s3_queue_close(ngx_s3_store_t *store)
{
    ngx_uint_t             dropped;
    ngx_s3_queue_t        *q;
    ngx_s3_queue_entry_t  *e;

    q = store->progress;

    if (q == NULL || q->closed) {
        return;
    }

    store->close(store);
    ngx_s3_store_closed(store);

    q->closed = 1;
    dropped = 0;

    while (q->tree.root != &q->sentinel) {
        e = (ngx_s3_queue_entry_t *) q->tree.root;

        /* what is in flight may be written or not */

        dropped += e->waiting + e->in_flight;
        ngx_s3_queue_remove(q, e);
    }

    if (q->spare) {
        ngx_free(q->spare);
        q->spare = NULL;
    }

    if (q->hold.timer_set) {
        ngx_del_timer(&q->hold);
    }

    if (dropped == 0) {
        return;
    }

    (void) ngx_atomic_fetch_add(&store->count->dropped, dropped);

    ngx_log_error(NGX_LOG_WARN, store->log, 0,
                  "%s store: %ui records are dropped, the worker is leaving",
                  store->name, dropped);
}
