/*
 * Debts in the zone: multipart uploads that are to be aborted unless they are
 * completed, also when the process that made them is gone.
 */

#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_s3_zone_slots.h"


static ngx_uint_t ngx_s3_zone_stays(ngx_s3_zone_worker_t *worker);
static ngx_uint_t ngx_s3_zone_mine(ngx_s3_zone_sh_t *sh,
    ngx_s3_zone_slot_t *zs, ngx_str_t *upload_id);
static ngx_uint_t ngx_s3_zone_same(ngx_s3_zone_slot_t *zs,
    ngx_str_t *upload_id);


/* it tells a few configured endpoints apart */

uint64_t
ngx_s3_zone_endpoint(ngx_str_t *name)
{
    return ngx_s3_zone_hash(NGX_S3_ZONE_HASH, name->data, name->len);
}


void
ngx_s3_zone_owe(ngx_s3_zone_t *zone, ngx_s3_slot_t *slot, uint64_t endpoint,
    ngx_str_t *upload_id)
{
    ngx_s3_zone_sh_t    *sh;
    ngx_s3_zone_slot_t  *zs;

    zs = (ngx_s3_zone_slot_t *) slot;

    sh = ngx_s3_zone_lock(zone);

    if (ngx_s3_zone_owned(sh, zs) && upload_id->len <= S3_UPLOAD_ID_MAX) {
        ngx_s3_zone_begin(sh);

        zs->endpoint = endpoint;
        ngx_memcpy(zs->upload_id, upload_id->data, upload_id->len);
        zs->upload_id[upload_id->len] = '\0';

        /* what is written in half is not yet owed */

        ngx_memory_barrier();

        zs->debt = 1;

        ngx_s3_zone_end(sh);
    }

    ngx_s3_zone_unlock(zone);
}


void
ngx_s3_zone_settle(ngx_s3_zone_t *zone, ngx_s3_slot_t *slot,
    ngx_str_t *upload_id)
{
    ngx_s3_zone_sh_t    *sh;
    ngx_s3_zone_slot_t  *zs;

    zs = (ngx_s3_zone_slot_t *) slot;

    sh = ngx_s3_zone_lock(zone);

    if (ngx_s3_zone_mine(sh, zs, upload_id)) {
        ngx_s3_zone_begin(sh);

        if (zs->use == NGX_S3_SLOT_OWING) {
            ngx_s3_zone_give_up(sh, zs);

        } else {
            zs->debt = 0;

            if (zs->use == NGX_S3_SLOT_FINISHED) {
                sh->owner[ngx_s3_zone_index(sh, zs)] = 0;

                ngx_queue_remove(&zs->link->queue);
                ngx_queue_insert_tail(&sh->finished, &zs->link->queue);
            }
        }

        ngx_s3_zone_end(sh);
    }

    ngx_s3_zone_unlock(zone);
}


void
ngx_s3_zone_release(ngx_s3_zone_t *zone, ngx_s3_slot_t *slot,
    ngx_str_t *upload_id)
{
    ngx_s3_zone_sh_t    *sh;
    ngx_s3_zone_slot_t  *zs;

    zs = (ngx_s3_zone_slot_t *) slot;

    sh = ngx_s3_zone_lock(zone);

    if (ngx_s3_zone_mine(sh, zs, upload_id)) {
        sh->owner[ngx_s3_zone_index(sh, zs)] = NGX_S3_ZONE_NOBODY;

        ngx_memory_barrier();

        sh->losses++;
    }

    ngx_s3_zone_unlock(zone);
}


ngx_uint_t
ngx_s3_zone_owes(ngx_s3_zone_t *zone, ngx_str_t *id, ngx_str_t *upload_id)
{
    ngx_uint_t           owes;
    ngx_s3_zone_sh_t    *sh;
    ngx_s3_zone_slot_t  *zs;

    sh = ngx_s3_zone_lock(zone);

    zs = ngx_s3_zone_lookup(sh, id);

    owes = (zs && zs->debt
            && ngx_s3_zone_same(zs, upload_id)
            && !ngx_s3_zone_orphan(sh, ngx_s3_zone_index(sh, zs)));

    ngx_s3_zone_unlock(zone);

    return owes;
}


ngx_uint_t
ngx_s3_zone_first(ngx_s3_zone_t *zone)
{
    ngx_uint_t             i, first;
    ngx_s3_zone_sh_t      *sh;
    ngx_s3_zone_worker_t  *worker;

    first = 0;

    sh = ngx_s3_zone_lock(zone);

    for (i = 0; i < NGX_S3_ZONE_WORKERS; i++) {
        worker = &sh->worker[i];

        if (ngx_s3_zone_stays(worker)) {
            first = (worker->pid == ngx_pid);
            break;
        }
    }

    ngx_s3_zone_unlock(zone);

    return first;
}


ngx_uint_t
ngx_s3_zone_leave(ngx_s3_zone_t *zone)
{
    ngx_uint_t             i, n;
    ngx_s3_zone_sh_t      *sh;
    ngx_s3_zone_worker_t  *worker;

    n = 0;

    sh = ngx_s3_zone_lock(zone);

    for (i = 0; i < NGX_S3_ZONE_WORKERS; i++) {
        worker = &sh->worker[i];

        if (worker->pid == ngx_pid) {
            worker->leaving = 1;

        } else if (ngx_s3_zone_stays(worker)) {
            n++;
        }
    }

    ngx_s3_zone_unlock(zone);

    return n;
}


static ngx_uint_t
ngx_s3_zone_stays(ngx_s3_zone_worker_t *worker)
{
    return worker->pid && !worker->leaving && !ngx_s3_zone_gone(worker);
}


void
ngx_s3_zone_debts(ngx_s3_zone_t *zone, ngx_s3_zone_orphan_pt handler,
    void *data)
{
    ngx_uint_t             i, n;
    ngx_s3_zone_sh_t      *sh;
    ngx_s3_zone_slot_t    *zs;
    ngx_s3_zone_orphan_t   orphan;

    ngx_memzero(&orphan, sizeof(ngx_s3_zone_orphan_t));

    sh = ngx_s3_zone_lock(zone);
    n = sh->taken;
    ngx_s3_zone_unlock(zone);

    for (i = 0; i < n; i++) {
        zs = &sh->slot[i];

        /* only what has an owner owes: the others' pages are not touched */

        if (sh->owner[i] == 0 || !zs->debt) {
            continue;
        }

        (void) ngx_s3_zone_lock(zone);

        orphan.owes = (zs->use != NGX_S3_SLOT_FREE && zs->debt);
        orphan.record = zs->record;
        orphan.slot = &zs->counters;
        ngx_memcpy(orphan.upload_id, zs->upload_id, sizeof(orphan.upload_id));

        ngx_s3_zone_unlock(zone);

        if (orphan.owes) {
            handler(data, &orphan);
        }
    }
}


/* whether the slot owes this upload's abort and this process is to pay */

static ngx_uint_t
ngx_s3_zone_mine(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs,
    ngx_str_t *upload_id)
{
    return zs->use != NGX_S3_SLOT_FREE
           && zs->debt
           && ngx_s3_zone_ours(sh, zs)
           && ngx_s3_zone_same(zs, upload_id);
}


static ngx_uint_t
ngx_s3_zone_same(ngx_s3_zone_slot_t *zs, ngx_str_t *upload_id)
{
    return ngx_strlen(zs->upload_id) == upload_id->len
           && ngx_memcmp(zs->upload_id, upload_id->data, upload_id->len) == 0;
}
