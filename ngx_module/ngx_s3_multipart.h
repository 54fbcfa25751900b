/*
 * The S3 side of a transfer: its calls and what their answers mean. Shared by
 * ngx_s3_transfer.c, ngx_s3_fill.c, ngx_s3_part.c, ngx_s3_arrive.c,
 * ngx_s3_multipart.c and ngx_s3_check.c alone.
 */

#ifndef NGX_S3_MULTIPART_H
#define NGX_S3_MULTIPART_H

#include "ngx_s3_transfer.h"


struct ngx_s3_part_s {
    ngx_queue_t         queue;
    ngx_s3_part_t      *next;        /* of the spare ones */
    ngx_s3_transfer_t  *transfer;
    ngx_uint_t          number;      /* from 1 */
    uint64_t            planned;     /* bytes */
    uint64_t            size;        /* filled */
    uint64_t            spare;       /* by so much it may become smaller, for */
    uint64_t            holes;       /* bytes of its blocks that are not sent */
    ngx_uint_t          reserved;    /* blocks, once it is whole */
    ngx_s3_block_t     *blocks;
    ngx_s3_block_t     *last;
    uint32_t            crc32;
    s3_sha256_t        *hash;        /* NULL: the payload is not signed */
    char                sha256[65];

    /* sent while it arrives, see ngx_s3_arrive.c */
    uint64_t            look;        /* the size of the next look at the rate
                                        */
    ngx_msec_t          began;       /* the part before it, then the sending */
    uint64_t            seen;        /* t->received when the part before it
                                        began, then bytes at the last tick */
    ngx_msec_t          moved;       /* when there were others */
    unsigned            arriving:1;  /* in t->sending, and t->part as well */
    unsigned            repeated:1;  /* some of it was sent before call */

    ngx_s3_call_t       call;        /* last: it is not zeroed with the rest */
};


/* in ngx_s3_part.c */

/* an empty part; NULL: no memory */
ngx_s3_part_t *ngx_s3_part_get(ngx_s3_transfer_t *t);

/* bytes that fit in the last block; 0: the next one needs another */
#define ngx_s3_part_room(part)                                               \
    ((part)->last                                                            \
     ? (size_t) ((part)->last->buf.end - (part)->last->tail->buf->last) : 0)

/* another block, of those that t->share has reserved; NGX_ERROR: no memory */
ngx_int_t ngx_s3_part_grow(ngx_s3_transfer_t *t, ngx_s3_part_t *part);

/* Copies what fits in the last block and in the plan, unless it lies in that
   block where it can stay; returns the bytes. */
size_t ngx_s3_part_copy(ngx_s3_part_t *part, u_char *p, size_t len,
    ngx_uint_t crc32);

/* no byte follows: the hash is final */
void ngx_s3_part_seal(ngx_s3_part_t *part);

/* the part's memory and the part itself go back */
void ngx_s3_part_free(ngx_s3_transfer_t *t, ngx_s3_part_t *part);

/* at the end of the transfer */
void ngx_s3_part_destroy_spare(ngx_s3_transfer_t *t);


/* in ngx_s3_multipart.c */

/* begins CreateMultipartUpload unless that was done */
void ngx_s3_multipart_create(ngx_s3_transfer_t *t);

/* whether Create is on its way */
#define ngx_s3_multipart_creating(t)                                         \
    ((t)->calling && (t)->call.op == NGX_S3_CREATE)

/* Begins to send a part: all of it, or what is there of one that is arriving.
   The caller puts it into t->sending. NGX_ERROR: no memory. */
ngx_int_t ngx_s3_multipart_send(ngx_s3_transfer_t *t, ngx_s3_part_t *part);

/* sends what is ready, completes when all is there */
void ngx_s3_multipart_pump(ngx_s3_transfer_t *t);

/* the body is whole, its last part ready: what the first look holds up follows
   when that has its answer */
void ngx_s3_multipart_flush(ngx_s3_transfer_t *t);

/* all is checked: PutObject or CompleteMultipartUpload */
void ngx_s3_multipart_make(ngx_s3_transfer_t *t);

/* ends what is on its way and aborts what S3 holds, then closes */
void ngx_s3_multipart_clean(ngx_s3_transfer_t *t);

/* the transfer's timer while it cleans up: in a leaving worker what its abort
   leaves to be done is the reaper's from now on */
void ngx_s3_multipart_hold(ngx_s3_transfer_t *t);

/* the transfer's own call, one at a time: to be filled, then begun; handler
   clears t->calling. Where there is no memory the transfer fails. */
ngx_s3_call_t *ngx_s3_multipart_call(ngx_s3_transfer_t *t, ngx_s3_op_e op,
    ngx_s3_call_pt handler);
void ngx_s3_multipart_begin(ngx_s3_transfer_t *t);

/* the transfer fails as the call did */
void ngx_s3_multipart_failed(ngx_s3_transfer_t *t, ngx_s3_call_t *call);


/* in ngx_s3_arrive.c */

/* Bytes were added to the part that is being filled: if it is being sent, they
   are sent, else that may begin. For each chunk. */
void ngx_s3_arrive(ngx_s3_transfer_t *t);

/* No byte follows. 1: it is being sent and comes to its end; 0: it has yet to
   be sent. */
ngx_uint_t ngx_s3_arrive_whole(ngx_s3_transfer_t *t, ngx_s3_part_t *part);

/* the handler of t->arrive, a timer */
void ngx_s3_arrive_watch(ngx_event_t *ev);


/* in ngx_s3_check.c */

/* before the body is read: whether the object is such as the conditions want
   it. NGX_OK: nothing stands against it, or S3 is asked and an eager source
   goes on; NGX_AGAIN: S3 is asked, and ngx_s3_transfer_checked() follows unless
   the transfer fails by it; NGX_ERROR: it has failed. */
ngx_int_t ngx_s3_check_early(ngx_s3_transfer_t *t);

/* once all is stored: ngx_s3_multipart_make() follows, at once or later, unless
   the transfer fails */
void ngx_s3_check_finish(ngx_s3_transfer_t *t);


/* in ngx_s3_fill.c */

/* the handler of a transfer's share */
void ngx_s3_fill_shared(void *data, ngx_s3_share_event_e event);

/* the first look is behind an eager source: Create may begin */
void ngx_s3_fill_checked(ngx_s3_transfer_t *t);

/* others need the memory: what makes a part is sent; the transfer may have
   failed then */
void ngx_s3_fill_squeeze(ngx_s3_transfer_t *t);

/* No byte follows: the blocks of the part that was being filled are its own,
   the rest of the share goes back. Returns the part, NULL: there is none. */
ngx_s3_part_t *ngx_s3_fill_end(ngx_s3_transfer_t *t);


/* in ngx_s3_transfer.c */

#define NGX_S3_TRANSFER_TICK  60000      /* ms */

/* the door is told, or the transfer destroyed, from a posted event */
void ngx_s3_transfer_post(ngx_s3_transfer_t *t);

void ngx_s3_transfer_set_state(ngx_s3_transfer_t *t,
    ngx_s3_transfer_state_e next);

/* the first look found nothing against the transfer: it is admitted now */
void ngx_s3_transfer_checked(ngx_s3_transfer_t *t);

/* a part (or the object) was acknowledged: memory goes back, the source may go
   on */
void ngx_s3_transfer_acknowledged(ngx_s3_transfer_t *t, ngx_s3_part_t *part);

void ngx_s3_transfer_completed(ngx_s3_transfer_t *t, const char *etag);

/* the record becomes `failed`, the door is told */
void ngx_s3_transfer_fail(ngx_s3_transfer_t *t, ngx_s3_result_t *result);

/* nothing is left to do but to tell the door */
void ngx_s3_transfer_close(ngx_s3_transfer_t *t);

void ngx_s3_result_set(ngx_s3_result_t *result, ngx_uint_t status,
    const char *code, const char *message);


#endif /* NGX_S3_MULTIPART_H */
