/*
 * The public side of the zone: its set-up, and what the owners and the
 * readers of records do with it.
 */

#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_s3_zone_slots.h"


#define NGX_S3_ZONE_MAGIC   0x6e7a3373   /* "s3zn" */
#define NGX_S3_ZONE_LAYOUT  5
#define NGX_S3_ZONE_PAGES   12           /* at least, for the counters of all
                                            workers and some records */


static void ngx_s3_zone_put(ngx_s3_zone_t *zone, ngx_s3_slot_t *slot,
    s3_record_t *record, ngx_uint_t final);
static ngx_int_t ngx_s3_zone_init(ngx_shm_zone_t *shm_zone, void *data);
static ngx_int_t ngx_s3_zone_attach(ngx_s3_zone_t *zone, ngx_log_t *log);
static ngx_int_t ngx_s3_zone_carve(ngx_s3_zone_t *zone, ngx_s3_zone_sh_t *sh);
static ngx_int_t ngx_s3_zone_test(ngx_s3_zone_t *zone,
    ngx_s3_zone_slot_t *former, s3_record_t *record,
    const ngx_s3_zone_claim_t *claim);
static void ngx_s3_zone_former(ngx_s3_zone_t *zone, ngx_s3_zone_slot_t *zs,
    s3_record_t *record);
static ngx_uint_t ngx_s3_zone_owner(s3_record_t *record, ngx_str_t *owner);


ngx_s3_zone_t *
ngx_s3_zone_create(ngx_conf_t *cf, ngx_str_t *name, size_t size, void *tag)
{
    ngx_s3_zone_t   *zone;
    ngx_shm_zone_t  *shm_zone;

    if (size < NGX_S3_ZONE_PAGES * ngx_pagesize) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\" of %uz bytes is too small, "
                           "it needs at least %uz", name, size,
                           NGX_S3_ZONE_PAGES * ngx_pagesize);
        return NULL;
    }

    zone = ngx_pcalloc(cf->pool, sizeof(ngx_s3_zone_t));
    if (zone == NULL) {
        return NULL;
    }

    shm_zone = ngx_shared_memory_add(cf, name, size, tag);
    if (shm_zone == NULL) {
        return NULL;
    }

    if (shm_zone->data) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\" is already defined", name);
        return NULL;
    }

    shm_zone->init = ngx_s3_zone_init;
    shm_zone->data = zone;

    zone->shm_zone = shm_zone;
    zone->name = *name;
    zone->ttl = 24 * 60 * 60 * 1000;

    return zone;
}


ngx_int_t
ngx_s3_zone_open(ngx_s3_zone_t *zone, s3_record_t *record,
    const ngx_s3_zone_claim_t *claim, ngx_s3_slot_t **slot)
{
    ngx_int_t            rc;
    ngx_str_t            id;
    ngx_s3_zone_sh_t    *sh;
    ngx_s3_zone_slot_t  *zs;

    *slot = NULL;

    id.data = (u_char *) record->id;
    id.len = ngx_strlen(record->id);

    sh = ngx_s3_zone_lock(zone);

    ngx_s3_zone_begin(sh);

    zs = ngx_s3_zone_lookup(sh, &id);

    rc = ngx_s3_zone_test(zone, zs, record, claim);
    if (rc != NGX_OK) {
        goto done;
    }

    if (zs) {
        ngx_s3_zone_former(zone, zs, record);
    }

    zs = ngx_s3_zone_take(sh);
    if (zs == NULL) {
        rc = NGX_DECLINED;
        goto done;
    }

    s3_record_copy(&zs->record, record);
    zs->counters.bytes_transferred = record->bytes_transferred;
    zs->counters.bytes_stored = record->bytes_stored;
    zs->counters.parts_stored = record->parts_stored;
    zs->counters.updated_at = record->updated_at;
    zs->counters.cancel = 0;
    zs->seen_bytes = record->bytes_transferred;
    zs->seen_at = record->updated_at;
    zs->endpoint = claim->endpoint;
    zs->exclusive = claim->exclusive;
    zs->ingest = claim->ingest;

    ngx_s3_zone_link(sh, zs);

    *slot = &zs->counters;

done:

    ngx_s3_zone_end(sh);
    ngx_s3_zone_unlock(zone);

    return rc;
}


void
ngx_s3_zone_update(ngx_s3_zone_t *zone, ngx_s3_slot_t *slot,
    s3_record_t *record)
{
    ngx_s3_zone_put(zone, slot, record, 0);
}


void
ngx_s3_zone_close(ngx_s3_zone_t *zone, ngx_s3_slot_t *slot,
    s3_record_t *record)
{
    ngx_s3_zone_put(zone, slot, record, 1);
}


static void
ngx_s3_zone_put(ngx_s3_zone_t *zone, ngx_s3_slot_t *slot,
    s3_record_t *record, ngx_uint_t final)
{
    ngx_uint_t           owned;
    ngx_s3_zone_sh_t    *sh;
    ngx_s3_zone_slot_t  *zs;

    zs = (ngx_s3_zone_slot_t *) slot;

    sh = ngx_s3_zone_lock(zone);

    owned = ngx_s3_zone_owned(sh, zs);

    if (owned) {

        /* a reader in another worker has a clock of its own: it may have read
           it in the middle of this worker's turn, which began before */

        if (record->updated_at < zs->seen_at) {
            record->expires_at += zs->seen_at - record->updated_at;
            record->updated_at = zs->seen_at;
        }

        ngx_s3_zone_begin(sh);
        s3_record_update(&zs->record, record);

        if (final) {
            ngx_s3_zone_finish(sh, zs);
        }

        ngx_s3_zone_end(sh);
    }

    ngx_s3_zone_unlock(zone);

    if (!owned) {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, 0,
                      "s3 zone: record of another owner %s, "
                      "transfer:%s", final ? "closed" : "updated",
                      record->id);
    }
}


ngx_int_t
ngx_s3_zone_find(ngx_s3_zone_t *zone, ngx_str_t *id, s3_record_t *record)
{
    uint64_t             now;
    ngx_int_t            rc;
    ngx_s3_zone_sh_t    *sh;
    ngx_s3_zone_slot_t  *zs;

    now = ngx_s3_zone_now();
    rc = NGX_DECLINED;

    sh = ngx_s3_zone_lock(zone);

    zs = ngx_s3_zone_lookup(sh, id);

    if (zs && !ngx_s3_zone_expired(zone, zs, now)) {
        ngx_s3_zone_copy(zs, record, now);
        rc = NGX_OK;
    }

    ngx_s3_zone_unlock(zone);

    return rc;
}


ngx_int_t
ngx_s3_zone_cancel(ngx_s3_zone_t *zone, ngx_str_t *id, ngx_str_t *owner,
    s3_record_t *record)
{
    uint64_t             now;
    ngx_int_t            rc;
    ngx_s3_zone_sh_t    *sh;
    ngx_s3_zone_slot_t  *zs;

    now = ngx_s3_zone_now();

    sh = ngx_s3_zone_lock(zone);

    zs = ngx_s3_zone_lookup(sh, id);

    if (zs == NULL || ngx_s3_zone_expired(zone, zs, now)) {
        ngx_s3_zone_unlock(zone);
        return NGX_DECLINED;
    }

    ngx_s3_zone_copy(zs, record, now);

    if (zs->use != NGX_S3_SLOT_LIVE) {
        rc = NGX_DONE;

    } else if (owner && !ngx_s3_zone_owner(record, owner)) {
        rc = NGX_ABORT;

    } else if (record->state != S3_STATE_ACTIVE) {
        rc = NGX_BUSY;

    } else {
        zs->counters.cancel = 1;

        /* who sees the new number sees the word as well */

        ngx_memory_barrier();

        sh->cancels++;
        rc = NGX_OK;
    }

    ngx_s3_zone_unlock(zone);

    return rc;
}


ngx_uint_t
ngx_s3_zone_cancels(ngx_s3_zone_t *zone)
{
    ngx_uint_t         n;
    ngx_s3_zone_sh_t  *sh;

    sh = zone->sh;
    n = sh->cancels;

    ngx_memory_barrier();

    return n;
}


ngx_uint_t
ngx_s3_zone_list(ngx_s3_zone_t *zone, ngx_s3_zone_cursor_t *cursor,
    s3_record_t *records, ngx_uint_t limit)
{
    uint64_t             now;
    ngx_str_t            after;
    ngx_uint_t           n, met;
    s3_record_t         *r;
    ngx_s3_zone_sh_t    *sh;
    ngx_rbtree_node_t   *node;
    ngx_s3_zone_slot_t  *zs;

    now = ngx_s3_zone_now();
    after.data = (u_char *) cursor->after;
    after.len = ngx_strlen(cursor->after);
    r = NULL;
    n = 0;

    sh = ngx_s3_zone_lock(zone);

    node = ngx_s3_zone_after(sh, &after);

    for (met = 0; node && met < NGX_S3_ZONE_PAGE && n < limit; met++) {
        zs = ngx_s3_zone_node_slot(node);
        r = &zs->record;

        if ((cursor->state < 0 || (int) r->state == cursor->state)
            && (cursor->owner == NULL || ngx_s3_zone_owner(r, cursor->owner))
            && !ngx_s3_zone_expired(zone, zs, now))
        {
            ngx_s3_zone_copy(zs, &records[n++], now);
        }

        node = ngx_rbtree_next(&sh->tree, node);
    }

    if (r) {
        ngx_cpystrn((u_char *) cursor->after, (u_char *) r->id,
                    sizeof(cursor->after));
    }

    cursor->end = (node == NULL);

    ngx_s3_zone_unlock(zone);

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                   "s3 zone: page of records met:%ui wanted:%ui end:%ui",
                   met, n, cursor->end);

    return n;
}


static ngx_int_t
ngx_s3_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    size_t             len;
    ngx_s3_zone_t     *zone;
    ngx_slab_pool_t   *shpool;
    ngx_s3_zone_sh_t  *sh;

    zone = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    zone->shpool = shpool;

    if (data || shm_zone->shm.exists) {
        return ngx_s3_zone_attach(zone, shm_zone->shm.log);
    }

    shpool->log_nomem = 0;

    sh = ngx_slab_calloc(shpool, sizeof(ngx_s3_zone_sh_t));
    if (sh == NULL) {
        goto small;
    }

    len = sizeof(" in zone \"\"") + shm_zone->shm.name.len;

    shpool->log_ctx = ngx_slab_alloc(shpool, len);
    if (shpool->log_ctx == NULL) {
        shpool->log_ctx = &shpool->zero;
        goto small;
    }

    ngx_sprintf(shpool->log_ctx, " in zone \"%V\"%Z", &shm_zone->shm.name);

    if (ngx_s3_zone_carve(zone, sh) != NGX_OK) {
        goto small;
    }

    ngx_s3_zone_clear(sh);

    sh->magic = NGX_S3_ZONE_MAGIC;
    sh->layout = NGX_S3_ZONE_LAYOUT;
    sh->slot_size = sizeof(ngx_s3_zone_slot_t);
    sh->counters_size = sizeof(ngx_s3_counters_t);

    shpool->data = sh;

    zone->sh = sh;
    zone->counters = &sh->counters;

    return NGX_OK;

small:

    ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                  "zone \"%V\" of %uz bytes is too small for one record",
                  &shm_zone->shm.name, shm_zone->shm.size);

    return NGX_ERROR;
}


/*
 * A reload: the former configuration's workers go on with this memory, and
 * the new configuration may yet be refused, so that nothing is changed.
 */

static ngx_int_t
ngx_s3_zone_attach(ngx_s3_zone_t *zone, ngx_log_t *log)
{
    ngx_s3_zone_sh_t  *sh;

    sh = zone->shpool->data;

    if (sh == NULL
        || sh->magic != NGX_S3_ZONE_MAGIC
        || sh->layout != NGX_S3_ZONE_LAYOUT
        || sh->slot_size != sizeof(ngx_s3_zone_slot_t)
        || sh->counters_size != sizeof(ngx_s3_counters_t))
    {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "zone \"%V\" was laid out by another version of the "
                      "module, change its size or restart nginx",
                      &zone->name);
        return NGX_ERROR;
    }

    zone->sh = sh;
    zone->counters = &sh->counters;

    return NGX_OK;
}


/* all that is left becomes slots */

static ngx_int_t
ngx_s3_zone_carve(ngx_s3_zone_t *zone, ngx_s3_zone_sh_t *sh)
{
    u_char      *area;
    size_t       size;
    ngx_uint_t   pages;

    area = NULL;

    for (pages = zone->shpool->pfree; pages; pages--) {
        area = ngx_slab_alloc(zone->shpool, pages * ngx_pagesize);
        if (area) {
            break;
        }
    }

    size = pages * ngx_pagesize;

    sh->slots = size / (sizeof(ngx_s3_zone_link_t)
                        + sizeof(ngx_s3_zone_slot_t) + sizeof(ngx_pid_t));

    if (sh->slots == 0) {
        return NGX_ERROR;
    }

    sh->link = (ngx_s3_zone_link_t *) area;
    sh->slot = (ngx_s3_zone_slot_t *) &sh->link[sh->slots];
    sh->owner = (ngx_pid_t *) &sh->slot[sh->slots];

    return NGX_OK;
}


/* whether it may begin; former has its id already, or is NULL. Nothing is
   changed. */

static ngx_int_t
ngx_s3_zone_test(ngx_s3_zone_t *zone, ngx_s3_zone_slot_t *former,
    s3_record_t *record, const ngx_s3_zone_claim_t *claim)
{
    ngx_uint_t           ingests;
    ngx_s3_zone_sh_t    *sh;
    ngx_s3_zone_slot_t  *zs;

    sh = zone->sh;
    ingests = sh->ningests;

    if (former) {

        if (!ngx_s3_zone_expired(zone, former, ngx_s3_zone_now())
            && ngx_strcmp(former->record.owner, record->owner) != 0)
        {
            return NGX_BUSY;
        }

        if (former->use == NGX_S3_SLOT_LIVE) {

            if (!ngx_s3_zone_orphan(sh, ngx_s3_zone_index(sh, former))) {
                return NGX_BUSY;
            }

            ingests -= former->ingest;
        }
    }

    if (claim->exclusive) {
        zs = ngx_s3_zone_claimant(sh, claim->endpoint, record);

        if (zs && zs != former) {
            return NGX_ABORT;
        }
    }

    if (claim->ingest && claim->max_ingest && ingests >= claim->max_ingest) {
        return NGX_AGAIN;
    }

    return NGX_OK;
}


/* the id starts anew: its slot is free, or keeps the debt */

static void
ngx_s3_zone_former(ngx_s3_zone_t *zone, ngx_s3_zone_slot_t *zs,
    s3_record_t *record)
{
    ngx_s3_zone_sh_t  *sh;

    sh = zone->sh;

    if (zs->use == NGX_S3_SLOT_LIVE) {

        (void) ngx_atomic_fetch_add(&zone->counters->failed, 1);

        zs->completing = (zs->record.state == S3_STATE_COMPLETING);

        ngx_s3_zone_finish(sh, zs);
    }

    if (record->attempt <= zs->record.attempt) {
        record->attempt = zs->record.attempt + 1;
    }

    ngx_s3_zone_forget(sh, zs);
}


static ngx_uint_t
ngx_s3_zone_owner(s3_record_t *record, ngx_str_t *owner)
{
    size_t  len;

    len = ngx_strlen(record->owner);

    return len == owner->len
           && (len == 0 || ngx_memcmp(record->owner, owner->data, len) == 0);
}
