#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_s3_zone_slots.h"


static void ngx_s3_zone_join(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs);
static void ngx_s3_zone_rebuild(ngx_s3_zone_sh_t *sh);
static void ngx_s3_zone_rebuild_slot(ngx_s3_zone_sh_t *sh, ngx_uint_t i);
static void ngx_s3_zone_rebuild_finished(ngx_s3_zone_sh_t *sh);
static int ngx_libc_cdecl ngx_s3_zone_older(const void *one, const void *two);
static ngx_rbtree_key_t ngx_s3_zone_key(u_char *id, size_t len);
static ngx_int_t ngx_s3_zone_compare(ngx_str_t *id, ngx_rbtree_key_t key,
    ngx_rbtree_node_t *node);
static void ngx_s3_zone_insert(ngx_rbtree_node_t *root,
    ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel);


void
ngx_s3_zone_clear(ngx_s3_zone_sh_t *sh)
{
    ngx_rbtree_init(&sh->tree, &sh->sentinel, ngx_s3_zone_insert);
    ngx_queue_init(&sh->free);
    ngx_queue_init(&sh->live);
    ngx_queue_init(&sh->finished);
    ngx_queue_init(&sh->owing);
    sh->nlive = 0;
    sh->nfinished = 0;

    ngx_s3_zone_claim_init(sh);
}


ngx_s3_zone_sh_t *
ngx_s3_zone_lock(ngx_s3_zone_t *zone)
{
    ngx_s3_zone_sh_t  *sh;

    sh = zone->sh;

    ngx_shmtx_lock(&zone->shpool->mutex);

    if (sh->dirty) {
        ngx_s3_zone_rebuild(sh);
        ngx_s3_zone_end(sh);
        zone->rebuilt = 1;
    }

    return sh;
}


void
ngx_s3_zone_unlock(ngx_s3_zone_t *zone)
{
    ngx_shmtx_unlock(&zone->shpool->mutex);

    /* no log line is written while others wait for the lock */

    if (zone->rebuilt) {
        zone->rebuilt = 0;
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "s3 zone: built anew after a worker died in it");
    }
}


void
ngx_s3_zone_begin(ngx_s3_zone_sh_t *sh)
{
    sh->dirty = 1;
    ngx_memory_barrier();
}


void
ngx_s3_zone_end(ngx_s3_zone_sh_t *sh)
{
    ngx_memory_barrier();
    sh->dirty = 0;
}


ngx_s3_zone_slot_t *
ngx_s3_zone_lookup(ngx_s3_zone_sh_t *sh, ngx_str_t *id)
{
    ngx_int_t           rc;
    ngx_rbtree_key_t    key;
    ngx_rbtree_node_t  *node;

    key = ngx_s3_zone_key(id->data, id->len);
    node = sh->tree.root;

    while (node != &sh->sentinel) {
        rc = ngx_s3_zone_compare(id, key, node);

        if (rc == 0) {
            return ngx_s3_zone_node_slot(node);
        }

        node = (rc < 0) ? node->left : node->right;
    }

    return NULL;
}


ngx_rbtree_node_t *
ngx_s3_zone_after(ngx_s3_zone_sh_t *sh, ngx_str_t *id)
{
    ngx_rbtree_key_t    key;
    ngx_rbtree_node_t  *node, *found;

    key = ngx_s3_zone_key(id->data, id->len);
    node = sh->tree.root;
    found = NULL;

    while (node != &sh->sentinel) {

        if (ngx_s3_zone_compare(id, key, node) < 0) {
            found = node;
            node = node->left;

        } else {
            node = node->right;
        }
    }

    return found;
}


ngx_s3_zone_slot_t *
ngx_s3_zone_take(ngx_s3_zone_sh_t *sh)
{
    ngx_queue_t         *q;
    ngx_s3_zone_slot_t  *zs;

    if (ngx_queue_empty(&sh->free) && sh->taken < sh->slots) {
        zs = &sh->slot[sh->taken];
        zs->use = NGX_S3_SLOT_FREE;
        ngx_s3_zone_join(sh, zs);
        sh->owner[sh->taken] = 0;

        ngx_memory_barrier();

        sh->taken++;

        return zs;
    }

    if (ngx_queue_empty(&sh->free)) {

        if (!ngx_queue_empty(&sh->finished)) {
            q = ngx_queue_head(&sh->finished);

        } else if (!ngx_queue_empty(&sh->owing)) {
            q = ngx_queue_head(&sh->owing);

        } else {
            return NULL;
        }

        ngx_s3_zone_give_up(sh, ngx_s3_zone_queue_slot(q));
    }

    q = ngx_queue_head(&sh->free);
    ngx_queue_remove(q);

    return ngx_s3_zone_queue_slot(q);
}


static void
ngx_s3_zone_join(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs)
{
    zs->link = &sh->link[ngx_s3_zone_index(sh, zs)];
    zs->link->slot = zs;
}


void
ngx_s3_zone_link(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs)
{
    zs->epoch = ngx_s3_zone_epoch();
    zs->debt = 0;
    zs->completing = 0;
    sh->owner[ngx_s3_zone_index(sh, zs)] = ngx_pid;

    /* a slot half filled is still free */

    ngx_memory_barrier();

    zs->use = NGX_S3_SLOT_LIVE;

    zs->link->node.key = ngx_s3_zone_key((u_char *) zs->record.id,
                                         ngx_strlen(zs->record.id));

    sh->tree.insert = ngx_s3_zone_insert;
    ngx_rbtree_insert(&sh->tree, &zs->link->node);

    ngx_queue_insert_tail(&sh->live, &zs->link->queue);
    sh->nlive++;

    ngx_s3_zone_claim(sh, zs);
}


void
ngx_s3_zone_finish(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs)
{
    zs->finished_at = ngx_s3_zone_now();

    ngx_memory_barrier();

    zs->use = NGX_S3_SLOT_FINISHED;

    ngx_queue_remove(&zs->link->queue);

    if (zs->debt) {
        ngx_queue_insert_tail(&sh->owing, &zs->link->queue);

    } else {
        sh->owner[ngx_s3_zone_index(sh, zs)] = 0;
        ngx_queue_insert_tail(&sh->finished, &zs->link->queue);
    }

    sh->nlive--;
    sh->nfinished++;

    ngx_s3_zone_unclaim(sh, zs);
}


void
ngx_s3_zone_give_up(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs)
{
    ngx_uint_t  use;

    use = zs->use;

    zs->use = NGX_S3_SLOT_FREE;
    zs->debt = 0;
    sh->owner[ngx_s3_zone_index(sh, zs)] = 0;

    if (use == NGX_S3_SLOT_FINISHED) {
        ngx_rbtree_delete(&sh->tree, &zs->link->node);
    }

    ngx_queue_remove(&zs->link->queue);
    ngx_queue_insert_head(&sh->free, &zs->link->queue);

    sh->nfinished--;
}


void
ngx_s3_zone_forget(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs)
{
    if (!zs->debt) {
        ngx_s3_zone_give_up(sh, zs);
        return;
    }

    zs->use = NGX_S3_SLOT_OWING;

    ngx_rbtree_delete(&sh->tree, &zs->link->node);
}


ngx_uint_t
ngx_s3_zone_owned(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs)
{
    return zs->use == NGX_S3_SLOT_LIVE && ngx_s3_zone_ours(sh, zs);
}


ngx_uint_t
ngx_s3_zone_ours(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs)
{
    return sh->owner[ngx_s3_zone_index(sh, zs)] == ngx_pid
           && zs->epoch == ngx_s3_zone_epoch();
}


ngx_uint_t
ngx_s3_zone_orphan(ngx_s3_zone_sh_t *sh, ngx_uint_t i)
{
    ngx_pid_t  pid;

    pid = sh->owner[i];

    if (pid == NGX_S3_ZONE_NOBODY) {
        return 1;
    }

    if (pid == ngx_pid) {
        return sh->slot[i].epoch != ngx_s3_zone_epoch();
    }

    /* EPERM: it is there, under another user's name */

    return pid != 0 && kill(pid, 0) == -1 && ngx_errno == NGX_ESRCH;
}


ngx_uint_t
ngx_s3_zone_expired(ngx_s3_zone_t *zone, ngx_s3_zone_slot_t *zs, uint64_t now)
{
    return zs->use == NGX_S3_SLOT_FINISHED
           && now > zs->finished_at
           && now - zs->finished_at > zone->ttl;
}


/*
 * The counters run ahead of the record. The owner writes no time with each
 * chunk, so a count is as old as its first reading: a transfer that stands
 * still keeps its updatedAt, and a rate is never made from a count and an
 * older time.
 */

void
ngx_s3_zone_copy(ngx_s3_zone_slot_t *zs, s3_record_t *record, uint64_t now)
{
    ngx_s3_slot_t  *c;

    s3_record_copy(record, &zs->record);

    if (zs->use != NGX_S3_SLOT_LIVE) {
        return;
    }

    c = &zs->counters;

    record->bytes_stored = ngx_s3_zone_max(record->bytes_stored,
                                           c->bytes_stored);
    record->parts_stored = ngx_s3_zone_max(record->parts_stored,
                                           c->parts_stored);
    record->updated_at = ngx_s3_zone_max(record->updated_at, c->updated_at);

    /* stored after it was transferred, and read in the other order */

    ngx_memory_barrier();

    record->bytes_transferred = ngx_s3_zone_max(record->bytes_transferred,
                                                c->bytes_transferred);

    if (record->bytes_transferred == zs->record.bytes_transferred) {
        return;
    }

    if (record->bytes_transferred != zs->seen_bytes) {
        zs->seen_bytes = record->bytes_transferred;
        zs->seen_at = ngx_s3_zone_max(zs->seen_at, now);
    }

    record->updated_at = ngx_s3_zone_max(record->updated_at, zs->seen_at);
}


uint64_t
ngx_s3_zone_now(void)
{
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    return (uint64_t) tp->sec * 1000 + tp->msec;
}


static void
ngx_s3_zone_rebuild(ngx_s3_zone_sh_t *sh)
{
    ngx_uint_t  i;

    ngx_s3_zone_clear(sh);

    for (i = 0; i < sh->taken; i++) {
        ngx_s3_zone_rebuild_slot(sh, i);
    }

    ngx_s3_zone_rebuild_finished(sh);
}


static void
ngx_s3_zone_rebuild_slot(ngx_s3_zone_sh_t *sh, ngx_uint_t i)
{
    s3_record_t         *r;
    ngx_s3_zone_slot_t  *zs;

    zs = &sh->slot[i];
    r = &zs->record;

    ngx_s3_zone_join(sh, zs);

    if (zs->use == NGX_S3_SLOT_OWING && !zs->debt) {
        zs->use = NGX_S3_SLOT_FREE;
    }

    if (zs->use == NGX_S3_SLOT_FREE) {
        sh->owner[i] = 0;
        ngx_queue_insert_tail(&sh->free, &zs->link->queue);
        return;
    }

    /* a record copied in half has the ends of its strings at least */

    r->id[S3_ID_MAX] = '\0';
    r->bucket[S3_BUCKET_MAX] = '\0';
    r->key[S3_KEY_MAX] = '\0';
    r->etag[S3_ETAG_MAX] = '\0';
    r->error[S3_ERROR_MAX] = '\0';
    r->owner[S3_OWNER_MAX] = '\0';
    zs->upload_id[S3_UPLOAD_ID_MAX] = '\0';

    if (zs->use == NGX_S3_SLOT_LIVE) {
        ngx_queue_insert_tail(&sh->live, &zs->link->queue);
        sh->nlive++;

        ngx_s3_zone_claim(sh, zs);

    } else {
        sh->nfinished++;

        if (zs->debt) {
            ngx_queue_insert_tail(&sh->owing, &zs->link->queue);

        } else {
            sh->owner[i] = 0;
            ngx_queue_insert_tail(&sh->finished, &zs->link->queue);
        }
    }

    if (zs->use != NGX_S3_SLOT_OWING) {
        zs->link->node.key = ngx_s3_zone_key((u_char *) r->id,
                                             ngx_strlen(r->id));
        ngx_rbtree_insert(&sh->tree, &zs->link->node);
    }
}


/* oldest first; without memory to sort in they stay in the slots' order */

static void
ngx_s3_zone_rebuild_finished(ngx_s3_zone_sh_t *sh)
{
    ngx_uint_t            i, n;
    ngx_queue_t          *q;
    ngx_s3_zone_slot_t  **list;

    list = malloc((sh->nfinished + 1) * sizeof(ngx_s3_zone_slot_t *));
    if (list == NULL) {
        return;
    }

    n = 0;

    for (q = ngx_queue_head(&sh->finished);
         q != ngx_queue_sentinel(&sh->finished);
         q = ngx_queue_next(q))
    {
        list[n++] = ngx_s3_zone_queue_slot(q);
    }

    ngx_qsort(list, n, sizeof(ngx_s3_zone_slot_t *), ngx_s3_zone_older);

    ngx_queue_init(&sh->finished);

    for (i = 0; i < n; i++) {
        ngx_queue_insert_tail(&sh->finished, &list[i]->link->queue);
    }

    free(list);
}


static int ngx_libc_cdecl
ngx_s3_zone_older(const void *one, const void *two)
{
    const ngx_s3_zone_slot_t  *a, *b;

    a = *(ngx_s3_zone_slot_t *const *) one;
    b = *(ngx_s3_zone_slot_t *const *) two;

    if (a->finished_at != b->finished_at) {
        return a->finished_at < b->finished_at ? -1 : 1;
    }

    return 0;
}


/* the first bytes of an id as a number, so that numbers order as ids do */

static ngx_rbtree_key_t
ngx_s3_zone_key(u_char *id, size_t len)
{
    size_t            i;
    ngx_rbtree_key_t  key;

    key = 0;

    for (i = 0; i < sizeof(ngx_rbtree_key_t); i++) {
        key = (key << 8) | (i < len ? id[i] : 0);
    }

    return key;
}


static ngx_int_t
ngx_s3_zone_compare(ngx_str_t *id, ngx_rbtree_key_t key,
    ngx_rbtree_node_t *node)
{
    ngx_s3_zone_slot_t  *zs;

    if (key != node->key) {
        return key < node->key ? -1 : 1;
    }

    zs = ngx_s3_zone_node_slot(node);

    return ngx_memn2cmp(id->data, (u_char *) zs->record.id, id->len,
                        ngx_strlen(zs->record.id));
}


/*
 * Written into the tree before each insertion: the address is this process's
 * own, and another process of the same memory may have it elsewhere.
 */

static void
ngx_s3_zone_insert(ngx_rbtree_node_t *root, ngx_rbtree_node_t *node,
    ngx_rbtree_node_t *sentinel)
{
    ngx_str_t            id;
    ngx_rbtree_node_t  **p;
    ngx_s3_zone_slot_t  *zs;

    zs = ngx_s3_zone_node_slot(node);

    id.data = (u_char *) zs->record.id;
    id.len = ngx_strlen(zs->record.id);

    for ( ;; ) {
        p = ngx_s3_zone_compare(&id, node->key, root) < 0 ? &root->left
                                                          : &root->right;

        if (*p == sentinel) {
            break;
        }

        root = *p;
    }

    ngx_s3_zone_hang(p, root, node, sentinel);
}


void
ngx_s3_zone_hang(ngx_rbtree_node_t **p, ngx_rbtree_node_t *parent,
    ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel)
{
    *p = node;
    node->parent = parent;
    node->left = sentinel;
    node->right = sentinel;
    ngx_rbt_red(node);
}


uint64_t
ngx_s3_zone_epoch(void)
{
    static uint64_t   epoch;
    static ngx_pid_t  pid;

    if (pid != ngx_pid) {
        pid = ngx_pid;
        epoch = ngx_s3_zone_now();
    }

    return epoch;
}
