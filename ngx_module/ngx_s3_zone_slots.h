/*
 * What is inside the zone: slots, their tree and queues. For ngx_s3_zone*.c
 * alone.
 *
 *             open                close, reap
 *     FREE ----------> LIVE ------------------> FINISHED
 *       ^                                           |
 *       +-------------------------------------------+
 *           a slot is needed, the id starts anew, expired
 *
 * A slot that owes an abort (NGX_S3_SLOT_OWING once its record is gone) stands
 * in a queue of its own and goes last where one is needed. It has an owner as
 * long as it owes.
 *
 * The lock is the slab pool's, because the master unlocks that one after a
 * worker that died with it. What such a worker left half done is told by
 * `dirty`: trees and queues are then built anew from the slots, each of which
 * says by itself what it is and what it claims.
 */

#ifndef NGX_S3_ZONE_SLOTS_H
#define NGX_S3_ZONE_SLOTS_H

#include "ngx_s3_zone.h"


#define NGX_S3_ZONE_BATCH    64          /* records a lock */
#define NGX_S3_ZONE_WORKERS  64          /* with counters of their own */


/* what a slot is; read when the structure is built anew */

#define NGX_S3_SLOT_FREE      0
#define NGX_S3_SLOT_LIVE      1
#define NGX_S3_SLOT_FINISHED  2
#define NGX_S3_SLOT_OWING     3      /* in no tree: the record is gone */

#define NGX_S3_ZONE_NOBODY    -1     /* the owner of a debt to be claimed */


typedef struct {
    ngx_s3_slot_t       counters;    /* first: callers hold its address */
    ngx_rbtree_node_t   claim;       /* LIVE and exclusive; key: a hash of
                                        endpoint, bucket and key */
    ngx_queue_t         queue;       /* of its use: free, live, finished */
    ngx_atomic_t        use;
    uint64_t            epoch;       /* of the owner: pids come again */
    uint64_t            finished_at; /* ms since the epoch */
    uint64_t            seen_bytes;  /* the count that readers saw last, */
    uint64_t            seen_at;     /* and when they saw it first */
    ngx_atomic_t        debt;        /* 1: upload_id is to be aborted; set once
                                        the rest is there */
    ngx_uint_t          completing;  /* the record's state when its owner
                                        died */
    ngx_uint_t          exclusive;   /* see ngx_s3_zone_claim_t */
    ngx_uint_t          ingest;
    uint64_t            endpoint;
    char                upload_id[S3_UPLOAD_ID_MAX + 1];
    s3_record_t         record;
} ngx_s3_zone_slot_t;


/* A worker's own counters: its gauges go with it when it dies. */

typedef struct {
    ngx_pid_t           pid;         /* 0: a free place */
    uint64_t            epoch;
    ngx_atomic_t        leaving;
    ngx_s3_counters_t   counters;
} ngx_s3_zone_worker_t;


typedef struct {
    uint32_t                 magic;
    uint32_t                 layout;
    size_t                   slot_size;
    size_t                   counters_size;
    ngx_atomic_t             dirty;  /* tree and queues are being changed */

    ngx_rbtree_t             tree;   /* of live and finished, in the order of
                                        their ids */
    ngx_rbtree_node_t        sentinel;
    ngx_rbtree_t             claims; /* of live ones that are exclusive */
    ngx_rbtree_node_t        claims_sentinel;
    ngx_queue_t              free;
    ngx_queue_t              live;
    ngx_queue_t              finished;   /* oldest first, without debts */
    ngx_queue_t              owing;      /* finished with a debt */
    ngx_uint_t               nlive;
    ngx_uint_t               ningests;       /* of them */
    ngx_uint_t               nfinished;  /* in both */

    ngx_uint_t               slots;
    ngx_uint_t               taken;  /* slots from here on were never used, so
                                        that their pages are not touched */
    ngx_s3_zone_slot_t      *slot;
    ngx_rbtree_node_t       *node;   /* of each slot, in the tree; key: the
                                        first bytes of the id. Apart, so that
                                        a way through the tree touches no
                                        records, which no cache holds */
    volatile ngx_pid_t      *owner;  /* of each slot, 0: neither live nor with
                                        a debt */

    ngx_atomic_t             cancels;    /* asked for so far */

    ngx_s3_counters_t        counters;   /* of workers that are gone, and of
                                            those that found no place */
    ngx_s3_zone_worker_t     worker[NGX_S3_ZONE_WORKERS];
} ngx_s3_zone_sh_t;


#define ngx_s3_zone_index(sh, zs)  ((ngx_uint_t) ((zs) - (sh)->slot))

#define ngx_s3_zone_node(sh, zs)                                             \
    (&(sh)->node[ngx_s3_zone_index(sh, zs)])

#define ngx_s3_zone_node_slot(sh, n)  (&(sh)->slot[(n) - (sh)->node])

#define ngx_s3_zone_max(a, b)  ((a) > (b) ? (a) : (b))


/* an empty structure; slots and their array are the caller's */
void ngx_s3_zone_clear(ngx_s3_zone_sh_t *sh);

/* Whoever reads takes the lock; whoever changes anything but one counter does
   it between begin and end. Nothing is logged with the lock held. */
ngx_s3_zone_sh_t *ngx_s3_zone_lock(ngx_s3_zone_t *zone);
void ngx_s3_zone_unlock(ngx_s3_zone_t *zone);
void ngx_s3_zone_begin(ngx_s3_zone_sh_t *sh);
void ngx_s3_zone_end(ngx_s3_zone_sh_t *sh);

/* the end of an insertion into a tree: node to where *p was the sentinel */
void ngx_s3_zone_hang(ngx_rbtree_node_t **p, ngx_rbtree_node_t *parent,
    ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel);

/* NULL: unknown */
ngx_s3_zone_slot_t *ngx_s3_zone_lookup(ngx_s3_zone_sh_t *sh, ngx_str_t *id);

/* who has endpoint, bucket and key to itself, or NULL */
ngx_s3_zone_slot_t *ngx_s3_zone_claimant(ngx_s3_zone_sh_t *sh,
    uint64_t endpoint, const s3_record_t *record);

/* what a slot claims begins and ends with its being live */
void ngx_s3_zone_claim_init(ngx_s3_zone_sh_t *sh);
void ngx_s3_zone_claim(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs);
void ngx_s3_zone_unclaim(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs);

/* the first node whose id is greater, or NULL */
ngx_rbtree_node_t *ngx_s3_zone_after(ngx_s3_zone_sh_t *sh, ngx_str_t *id);

/* A free slot, that of the oldest finished record at worst, of one with a debt
   in the end; NULL: all are live. It stays free until it is linked: fill it in
   between. */
ngx_s3_zone_slot_t *ngx_s3_zone_take(ngx_s3_zone_sh_t *sh);

/* FREE -> LIVE, owned by this process, with what it claims */
void ngx_s3_zone_link(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs);

/* LIVE -> FINISHED */
void ngx_s3_zone_finish(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs);

/* FINISHED, OWING -> FREE, also with a debt */
void ngx_s3_zone_give_up(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs);

/* the record goes: FINISHED -> FREE, or OWING where there is a debt */
void ngx_s3_zone_forget(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs);

/* whether the slot is live and this process's */
ngx_uint_t ngx_s3_zone_owned(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs);

/* whether this process owns the slot, whatever its use */
ngx_uint_t ngx_s3_zone_ours(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs);

/* whether it is finished for longer than the zone keeps it */
ngx_uint_t ngx_s3_zone_expired(ngx_s3_zone_t *zone, ngx_s3_zone_slot_t *zs,
    uint64_t now);

/* the record with the newest counters; under the lock */
void ngx_s3_zone_copy(ngx_s3_zone_slot_t *zs, s3_record_t *record,
    uint64_t now);

/* whether the process that owned slot i is gone; a system call */
ngx_uint_t ngx_s3_zone_orphan(ngx_s3_zone_sh_t *sh, ngx_uint_t i);

/* likewise a worker's */
ngx_uint_t ngx_s3_zone_gone(ngx_s3_zone_worker_t *worker);

/* tells this process from a dead one of the same pid */
uint64_t ngx_s3_zone_epoch(void);

/* FNV-1a of what has the hash so far, NGX_S3_ZONE_HASH at first, and more */
#define NGX_S3_ZONE_HASH  14695981039346656037ULL

uint64_t ngx_s3_zone_hash(uint64_t hash, const void *data, size_t len);

/* ms since the epoch, as of this turn of the event loop */
uint64_t ngx_s3_zone_now(void);


#endif /* NGX_S3_ZONE_SLOTS_H */
