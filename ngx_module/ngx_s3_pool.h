/*
 * The worker's blocks and the memory budget: blocks of one size, recycled last
 * used first (fresh pages are the dearest thing on the path), and the shares
 * that sources have in them.
 *
 * A source reserves what finishes its part when it has bytes for it, and takes
 * blocks as they fill. Who finds no room stands in line, in order of arrival;
 * those in the middle of a part go first, since what they hold comes free when
 * it is finished. While somebody waits, sources that have nothing to read give
 * back what they did not fill, that which is silent longest first, and send
 * what they hold where it is large enough to be a part.
 *
 * The margin is for who needs least of those that have bytes and wait: however
 * much is held by parts that nobody finishes, one source can go on. Who is
 * between two parts holds nothing that others wait for, and gets it only where
 * the first in line cannot be served by what S3 is about to acknowledge.
 */

#ifndef NGX_S3_POOL_H
#define NGX_S3_POOL_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>


#define NGX_S3_BLOCK_SIZE  (256 * 1024)

/* kept back: what finishes the smallest part of S3, 5 MiB */
#define NGX_S3_POOL_MARGIN  (5 * 1024 * 1024 / NGX_S3_BLOCK_SIZE)

/* ms that the first in line may hold up others, waiting for S3 */
#define NGX_S3_POOL_PATIENCE  10000

/* ms without bytes before a source has to give back */
#define NGX_S3_POOL_SILENCE  20

/* Of the blocks but for the margin, how many may be lent to sources that keep
   them. Such a source may itself stand in line, for as long as it takes; no part
   is larger than half of a window, so that any finds room beside them all. */

#define ngx_s3_pool_keepable(pool)                                           \
    (((pool)->limit - NGX_S3_POOL_MARGIN) / 4)

/* blocks that hold size bytes */

#define ngx_s3_blocks(size)                                                  \
    ((ngx_uint_t) (((size) + NGX_S3_BLOCK_SIZE - 1) / NGX_S3_BLOCK_SIZE))


typedef struct ngx_s3_block_s  ngx_s3_block_t;

/* a block brings the buffer and the link that put it into a chain; further ones
   follow where something stands between the bytes that is not sent */

typedef struct ngx_s3_piece_s  ngx_s3_piece_t;

struct ngx_s3_piece_s {
    ngx_s3_piece_t  *next;
    ngx_buf_t        buf;
    ngx_chain_t      link;
};


struct ngx_s3_block_s {
    ngx_s3_block_t  *next;
    ngx_buf_t        buf;            /* start..end: NGX_S3_BLOCK_SIZE bytes */
    ngx_chain_t      link;
    ngx_chain_t     *tail;           /* of the buffer that grows */
    ngx_s3_piece_t  *pieces;         /* that it ever had */
    ngx_s3_piece_t **unused;         /* the first of them that is free */
    ngx_uint_t       loans;          /* somebody may write to it, outside of
                                        what a part has there */
    unsigned         given:1;        /* back to the pool, once no loan is left
                                        */
    unsigned         keeps:1;        /* who has the loan, see ngx_s3_pool_lend()
                                        */
};


typedef enum {
    NGX_S3_SHARE_GRANTED = 0,        /* its turn has come, see reserved */
    NGX_S3_SHARE_SQUEEZED            /* what it holds should be sent */
} ngx_s3_share_event_e;


/* what a source has in the pool for the part that it fills, embedded in it;
   zeroed but for handler and data */

typedef struct {
    ngx_queue_t      queue;          /* in line, or among the silent ones */
    ngx_queue_t      needy;          /* in line and admitted */
    ngx_uint_t       reserved;       /* blocks, those that are in use included
                                        */
    ngx_uint_t       taken;          /* blocks in use */
    ngx_uint_t       wants;          /* asked for: blocks beyond reserved, */
    ngx_uint_t       least;          /* and fewer than these are of no use */
    ngx_msec_t       since;          /* silent, ngx_current_msec */
    void           (*handler)(void *data, ngx_s3_share_event_e event);
                                     /* must not call the pool */
    void            *data;
    unsigned         admitted:1;     /* its body is read, so that it has bytes
                                        when it waits */
    unsigned         fixed:1;        /* nothing is taken back from it */
    unsigned         closable:1;     /* what it holds can be a part */
    unsigned         waiting:1;
    unsigned         silent:1;
} ngx_s3_share_t;


typedef struct ngx_s3_pool_s  ngx_s3_pool_t;

/* memory of a block into which a source receives; zeroed: nothing is lent */

typedef struct {
    ngx_s3_pool_t   *pool;
    ngx_s3_block_t  *block;          /* NULL: nothing */
    u_char          *pos;            /* where it begins, as it was lent */
    u_char          *end;
} ngx_s3_loan_t;


struct ngx_s3_pool_s {
    void            *dummy[3];       /* an event's data: see ngx_event_ident */
    ngx_int_t        ident;

    size_t           size;           /* as configured, bytes */
    ngx_msec_t       idle;
    ngx_uint_t       limit;          /* blocks */
    ngx_uint_t       reserved;       /* blocks, taken or not */
    ngx_uint_t       coming;         /* of them, in parts that are whole and
                                        come free when S3 has them */
    ngx_msec_t       came;           /* when some did, ngx_current_msec */
    ngx_uint_t       keeping;        /* blocks that are lent for as long as a
                                        source likes */
    ngx_uint_t       nfree;
    ngx_s3_block_t  *free;
    ngx_queue_t      halfway;        /* in line, in the middle of a part */
    ngx_queue_t      line;           /* and between two */
    ngx_queue_t      needy;          /* those of both that have bytes: few
                                        beside those that have yet to be let
                                        in */
    ngx_uint_t       needs;          /* blocks: none of them that the margin
                                        could serve needs less */
    ngx_queue_t      silent;         /* have something to give back, the one
                                        that is silent longest first */
    ngx_event_t      serve;          /* posted, or set to the time when a
                                        silent one has to give: serves the line
                                        */
    ngx_event_t      hold;           /* the first in line has held others up */
    ngx_event_t      trim;           /* gives idle blocks back */
    ngx_uint_t       least_free;     /* since the last trim */
    ngx_atomic_t    *used;           /* bytes reserved, of all workers; or
                                        NULL */
};


/* size in bytes; idle: ms for which blocks that nobody uses are kept, and up to
   twice as long; at configuration. NULL: no memory. */
ngx_s3_pool_t *ngx_s3_pool_create(ngx_conf_t *cf, size_t size,
    ngx_msec_t idle);

/* in a worker, before any use; used may be NULL */
void ngx_s3_pool_init(ngx_s3_pool_t *pool, ngx_atomic_t *used);

/*
 * Reserves blocks for a share, share->wants or, where there are not as many, at
 * least share->least. NGX_OK: they are in share->reserved. NGX_DECLINED: there
 * is no room now. NGX_ERROR: nor will there ever be.
 */
ngx_int_t ngx_s3_pool_reserve(ngx_s3_pool_t *pool, ngx_s3_share_t *share);

/* after NGX_DECLINED: stands in line for the same; NGX_S3_SHARE_GRANTED
   follows, from the event loop, with at least share->least */
void ngx_s3_pool_wait(ngx_s3_pool_t *pool, ngx_s3_share_t *share);

/* whether somebody stands in line */
#define ngx_s3_pool_wanted(pool)                                             \
    (!ngx_queue_empty(&(pool)->line) || !ngx_queue_empty(&(pool)->halfway))

/* the source has nothing to read; set share->closable before */
void ngx_s3_pool_silent(ngx_s3_pool_t *pool, ngx_s3_share_t *share);

/* it has again */
void ngx_s3_pool_moves(ngx_s3_pool_t *pool, ngx_s3_share_t *share);

/* Ends the share of a part: it leaves the line and gives back what it has not
   taken. Returns the blocks that it took; they stay reserved until they are
   given back. */
ngx_uint_t ngx_s3_pool_leave(ngx_s3_pool_t *pool, ngx_s3_share_t *share);

/* an empty block of a share that has one reserved; NULL: the system has no
   memory. The contents are what they were. */
ngx_s3_block_t *ngx_s3_pool_take(ngx_s3_pool_t *pool, ngx_s3_share_t *share);

/* The buffer that grows from now on begins at pos, behind its end. NGX_ERROR: no
   memory, nothing has changed. */
ngx_int_t ngx_s3_block_skip(ngx_s3_block_t *b, u_char *pos);

/* Gives the blocks of a part back, a list of so many as ngx_s3_pool_leave()
   returned. One that is lent comes back when it is returned: nobody else gets
   it before, and it stays reserved. */
void ngx_s3_pool_give(ngx_s3_pool_t *pool, ngx_s3_block_t *blocks,
    ngx_uint_t taken);

/*
 * Lends size bytes from pos on, which are in the block; loan is empty. keeps:
 * who has it may not be able to return it when its part is sent. NGX_DECLINED:
 * enough is lent to such.
 */
ngx_int_t ngx_s3_pool_lend(ngx_s3_pool_t *pool, ngx_s3_block_t *block,
    u_char *pos, size_t size, ngx_uint_t keeps, ngx_s3_loan_t *loan);

/* nothing is written there any more; an empty loan is none */
void ngx_s3_pool_return(ngx_s3_loan_t *loan);


#endif /* NGX_S3_POOL_H */
