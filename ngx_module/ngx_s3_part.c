/*
 * The memory of a part: blocks filled from the source and kept until S3
 * acknowledged them, with the checksums taken as the bytes arrive.
 */

#include "ngx_s3_multipart.h"


/* bytes: fewer are moved, since each piece is one more to be written, and more
   of framing between two of them are not left there */

#define NGX_S3_PART_PIECE  4096
#define NGX_S3_PART_HOLE   1024


static u_char *ngx_s3_part_settle(ngx_s3_part_t *part, u_char *p, size_t n);


ngx_s3_part_t *
ngx_s3_part_get(ngx_s3_transfer_t *t)
{
    s3_sha256_t    *hash;
    ngx_s3_part_t  *part;

    part = t->spare;
    hash = NULL;

    if (part) {
        t->spare = part->next;
        hash = part->hash;

    } else {
        part = ngx_palloc(t->pool, sizeof(ngx_s3_part_t));
        if (part == NULL) {
            return NULL;
        }
    }

    ngx_memzero(part, offsetof(ngx_s3_part_t, call));
    ngx_s3_call_init(&part->call);

    part->hash = hash;
    part->transfer = t;

    if (!t->conf->target->sign_payload) {
        return part;
    }

    if (part->hash == NULL) {
        part->hash = s3_sha256_create();

        if (part->hash) {
            return part;
        }

    } else if (s3_sha256_reset(part->hash) == S3_OK) {
        return part;
    }

    part->next = t->spare;
    t->spare = part;

    return NULL;
}


ngx_int_t
ngx_s3_part_grow(ngx_s3_transfer_t *t, ngx_s3_part_t *part)
{
    ngx_s3_block_t  *b;

    b = ngx_s3_pool_take(t->conf->pool, &t->share);
    if (b == NULL) {
        return NGX_ERROR;
    }

    if (part->last) {
        part->last->next = b;
        part->last->tail->next = &b->link;

    } else {
        part->blocks = b;
    }

    part->last = b;

    return NGX_OK;
}


size_t
ngx_s3_part_copy(ngx_s3_part_t *part, u_char *p, size_t len, ngx_uint_t crc32)
{
    size_t      n;
    ngx_buf_t  *b;

    n = ngx_min(len, ngx_s3_part_room(part));
    n = ngx_min(n, part->planned - part->size);

    p = ngx_s3_part_settle(part, p, n);
    b = part->last->tail->buf;

    b->last += n;
    part->size += n;

    if (crc32) {
        part->crc32 = s3_crc32(part->crc32, p, n);
    }

    if (part->hash) {
        (void) s3_sha256_update(part->hash, p, n);
    }

    return n;
}


/*
 * Brings n bytes to the end of what the last block has; returns where they are.
 * Bytes that were received there, behind the framing of a chunk, stay where
 * they are if that is worth a buffer of its own, and costs no block: what is
 * lost for the framing makes the part shorter.
 */

static u_char *
ngx_s3_part_settle(ngx_s3_part_t *part, u_char *p, size_t n)
{
    size_t           hole;
    u_char          *last;
    ngx_s3_block_t  *b;

    b = part->last;
    last = b->tail->buf->last;

    if (p == last) {
        return p;
    }

    if (p > last && p < b->buf.end) {
        hole = p - last;

        if (n >= NGX_S3_PART_PIECE
            && hole <= NGX_S3_PART_HOLE
            && part->holes + hole <= part->spare
            && ngx_s3_block_skip(b, p) == NGX_OK)
        {
            part->holes += hole;
            return p;
        }
    }

    /* they may overlap */

    ngx_memmove(last, p, n);

    return last;
}


void
ngx_s3_part_seal(ngx_s3_part_t *part)
{
    if (part->hash) {
        (void) s3_sha256_hex(part->hash, part->sha256);
    }
}


void
ngx_s3_part_free(ngx_s3_transfer_t *t, ngx_s3_part_t *part)
{
    ngx_s3_pool_give(t->conf->pool, part->blocks, part->reserved);

    t->kept -= part->reserved;

    part->blocks = NULL;
    part->last = NULL;
    part->reserved = 0;

    part->next = t->spare;
    t->spare = part;
}


void
ngx_s3_part_destroy_spare(ngx_s3_transfer_t *t)
{
    ngx_s3_part_t  *part;

    for (part = t->spare; part; part = part->next) {
        if (part->hash) {
            s3_sha256_destroy(part->hash);
        }
    }

    t->spare = NULL;
}
