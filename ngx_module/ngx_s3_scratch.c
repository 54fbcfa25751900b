#include "ngx_s3_scratch.h"


#define NGX_S3_SCRATCH_KINDS  8
#define NGX_S3_SCRATCH_KEEP   64     /* of a kind */


/* stands in what is kept, behind a pool's own head */

typedef struct ngx_s3_scratch_s  ngx_s3_scratch_t;

struct ngx_s3_scratch_s {
    ngx_s3_scratch_t  *next;
};


typedef struct {
    size_t             size;         /* 0: not used yet */
    ngx_uint_t         pools;        /* 1: of pools */
    ngx_uint_t         n;
    ngx_s3_scratch_t  *kept;
} ngx_s3_scratch_kind_t;


static ngx_s3_scratch_kind_t *ngx_s3_scratch_kind(size_t size,
    ngx_uint_t pools);
static void *ngx_s3_scratch_take(size_t size, ngx_uint_t pools);
static ngx_s3_scratch_kind_t *ngx_s3_scratch_room(size_t size,
    ngx_uint_t pools);
static void ngx_s3_scratch_keep(ngx_s3_scratch_kind_t *kind, void *p);


static ngx_s3_scratch_kind_t  ngx_s3_scratch_kinds[NGX_S3_SCRATCH_KINDS];


ngx_pool_t *
ngx_s3_scratch_pool(size_t size, ngx_log_t *log)
{
    u_char      *p;
    ngx_pool_t  *pool;

    p = ngx_s3_scratch_take(size, 1);

    if (p == NULL) {
        return ngx_create_pool(size, log);
    }

    pool = (ngx_pool_t *) (p - sizeof(ngx_pool_t));
    pool->log = log;

    return pool;
}


void
ngx_s3_scratch_pool_done(ngx_pool_t *pool, size_t size)
{
    ngx_s3_scratch_kind_t  *kind;

    /* the log may be gone by now or before the pool is used again */

    pool->log = ngx_cycle->log;

    /* one that has grown would stay so */

    kind = (pool->d.next || pool->cleanup) ? NULL
                                           : ngx_s3_scratch_room(size, 1);

    if (kind == NULL) {
        ngx_destroy_pool(pool);
        return;
    }

    ngx_reset_pool(pool);

    ngx_s3_scratch_keep(kind, (u_char *) pool + sizeof(ngx_pool_t));
}


void *
ngx_s3_scratch_alloc(size_t size, ngx_log_t *log)
{
    void  *p;

    p = ngx_s3_scratch_take(size, 0);

    return p ? p : ngx_alloc(size, log);
}


void
ngx_s3_scratch_free(void *p, size_t size)
{
    ngx_s3_scratch_kind_t  *kind;

    kind = ngx_s3_scratch_room(size, 0);

    if (kind == NULL) {
        ngx_free(p);
        return;
    }

    ngx_s3_scratch_keep(kind, p);
}


/* sizes are few and are compiled in; NULL: there are more than was thought */

static ngx_s3_scratch_kind_t *
ngx_s3_scratch_kind(size_t size, ngx_uint_t pools)
{
    ngx_uint_t              i;
    ngx_s3_scratch_kind_t  *kind;

    for (i = 0; i < NGX_S3_SCRATCH_KINDS; i++) {
        kind = &ngx_s3_scratch_kinds[i];

        if (kind->size == 0) {
            kind->size = size;
            kind->pools = pools;
        }

        if (kind->size == size && kind->pools == pools) {
            return kind;
        }
    }

    return NULL;
}


static void *
ngx_s3_scratch_take(size_t size, ngx_uint_t pools)
{
    ngx_s3_scratch_t       *s;
    ngx_s3_scratch_kind_t  *kind;

    kind = ngx_s3_scratch_kind(size, pools);

    if (kind == NULL || kind->kept == NULL) {
        return NULL;
    }

    s = kind->kept;
    kind->kept = s->next;
    kind->n--;

    return s;
}


/* NULL: it is to be freed */

static ngx_s3_scratch_kind_t *
ngx_s3_scratch_room(size_t size, ngx_uint_t pools)
{
    ngx_s3_scratch_kind_t  *kind;

#if (NGX_DEBUG_PALLOC)

    /* where each piece is to be malloc()'s own, it is one to free() as well */

    return NULL;

#endif

    kind = ngx_s3_scratch_kind(size, pools);

    return (kind && kind->n < NGX_S3_SCRATCH_KEEP) ? kind : NULL;
}


static void
ngx_s3_scratch_keep(ngx_s3_scratch_kind_t *kind, void *p)
{
    ngx_s3_scratch_t  *s;

    s = p;
    s->next = kind->kept;

    kind->kept = s;
    kind->n++;
}
