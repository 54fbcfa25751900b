/*
 * Memory that comes and goes with each upload and request, kept for the next
 * one, last used first: what is in the processor's cache is used again, and
 * malloc() is not asked, which has no quick way for pieces of some KiB. A
 * worker keeps a bounded number of each size.
 */

#ifndef NGX_S3_SCRATCH_H
#define NGX_S3_SCRATCH_H

#include <ngx_config.h>
#include <ngx_core.h>


/* A pool of so many bytes at first; log may be another at each use. NULL: no
   memory. It is given back with what was allocated from it: no clean-up
   handler runs before it is needed anew, so it takes none. */
ngx_pool_t *ngx_s3_scratch_pool(size_t size, ngx_log_t *log);
/* size as it was asked for; its log is not used any more */
void ngx_s3_scratch_pool_done(ngx_pool_t *pool, size_t size);

/* not zeroed; NULL: no memory */
void *ngx_s3_scratch_alloc(size_t size, ngx_log_t *log);
void ngx_s3_scratch_free(void *p, size_t size);


#endif /* NGX_S3_SCRATCH_H */
