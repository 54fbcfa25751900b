/*
 * What transfers have to themselves as long as they are live: a tree of the
 * exclusive ones, by endpoint, bucket and key, and the number of ingests.
 */

#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_s3_zone_slots.h"


#define ngx_s3_zone_claim_slot(n)                                            \
    ngx_rbtree_data(n, ngx_s3_zone_slot_t, claim)


static ngx_rbtree_key_t ngx_s3_zone_claim_key(uint64_t endpoint,
    const s3_record_t *record);
static ngx_int_t ngx_s3_zone_claim_compare(uint64_t endpoint,
    const s3_record_t *record, ngx_rbtree_key_t key, ngx_rbtree_node_t *node);
static void ngx_s3_zone_claim_insert(ngx_rbtree_node_t *root,
    ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel);


void
ngx_s3_zone_claim_init(ngx_s3_zone_sh_t *sh)
{
    ngx_rbtree_init(&sh->claims, &sh->claims_sentinel,
                    ngx_s3_zone_claim_insert);
    sh->ningests = 0;
}


ngx_s3_zone_slot_t *
ngx_s3_zone_claimant(ngx_s3_zone_sh_t *sh, uint64_t endpoint,
    const s3_record_t *record)
{
    ngx_int_t           rc;
    ngx_rbtree_key_t    key;
    ngx_rbtree_node_t  *node;

    key = ngx_s3_zone_claim_key(endpoint, record);
    node = sh->claims.root;

    while (node != &sh->claims_sentinel) {
        rc = ngx_s3_zone_claim_compare(endpoint, record, key, node);

        if (rc == 0) {
            return ngx_s3_zone_claim_slot(node);
        }

        node = (rc < 0) ? node->left : node->right;
    }

    return NULL;
}


void
ngx_s3_zone_claim(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs)
{
    sh->ningests += zs->ingest;

    if (!zs->exclusive) {
        return;
    }

    zs->claim.key = ngx_s3_zone_claim_key(zs->endpoint, &zs->record);

    sh->claims.insert = ngx_s3_zone_claim_insert;
    ngx_rbtree_insert(&sh->claims, &zs->claim);
}


void
ngx_s3_zone_unclaim(ngx_s3_zone_sh_t *sh, ngx_s3_zone_slot_t *zs)
{
    sh->ningests -= zs->ingest;

    if (zs->exclusive) {
        ngx_rbtree_delete(&sh->claims, &zs->claim);
    }
}


static ngx_rbtree_key_t
ngx_s3_zone_claim_key(uint64_t endpoint, const s3_record_t *record)
{
    uint64_t  hash;

    hash = ngx_s3_zone_hash(endpoint, record->bucket,
                            ngx_strlen(record->bucket) + 1);

    return (ngx_rbtree_key_t) ngx_s3_zone_hash(hash, record->key,
                                               ngx_strlen(record->key));
}


static ngx_int_t
ngx_s3_zone_claim_compare(uint64_t endpoint, const s3_record_t *record,
    ngx_rbtree_key_t key, ngx_rbtree_node_t *node)
{
    ngx_int_t            rc;
    ngx_s3_zone_slot_t  *zs;

    if (key != node->key) {
        return key < node->key ? -1 : 1;
    }

    zs = ngx_s3_zone_claim_slot(node);

    if (endpoint != zs->endpoint) {
        return endpoint < zs->endpoint ? -1 : 1;
    }

    rc = ngx_strcmp(record->bucket, zs->record.bucket);

    return rc ? rc : ngx_strcmp(record->key, zs->record.key);
}


/* see ngx_s3_zone_insert() */

static void
ngx_s3_zone_claim_insert(ngx_rbtree_node_t *root, ngx_rbtree_node_t *node,
    ngx_rbtree_node_t *sentinel)
{
    ngx_rbtree_node_t  **p;
    ngx_s3_zone_slot_t  *zs;

    zs = ngx_s3_zone_claim_slot(node);

    for ( ;; ) {
        p = ngx_s3_zone_claim_compare(zs->endpoint, &zs->record, node->key,
                                      root) < 0
            ? &root->left : &root->right;

        if (*p == sentinel) {
            break;
        }

        root = *p;
    }

    ngx_s3_zone_hang(p, root, node, sentinel);
}


uint64_t
ngx_s3_zone_hash(uint64_t hash, const void *data, size_t len)
{
    size_t         i;
    const u_char  *p;

    p = data;

    for (i = 0; i < len; i++) {
        hash = (hash ^ p[i]) * 1099511628211ULL;
    }

    return hash;
}
