/*
 * What the tries of a request to S3 have in common, whoever sends them: each
 * is signed for itself, and a refusal may teach what the next one needs. Part
 * of ngx_s3_api.
 */

#ifndef NGX_S3_TRY_H
#define NGX_S3_TRY_H

#include "ngx_s3_answer.h"
#include "ngx_s3_op.h"


/* why a request cannot be made; constant strings */

typedef struct {
    ngx_uint_t   status;             /* for our client */
    const char  *code;
    const char  *reason;
} ngx_s3_refusal_t;


/* Makes the head of a try of op, from pool, with the target's keys and clock
   and the bucket's region. NGX_OK; NGX_DECLINED: no other try would change it,
   *refusal says why; NGX_ERROR: no memory. */
ngx_int_t ngx_s3_try_sign(ngx_s3_target_t *target, ngx_s3_op_t *op,
    ngx_str_t *bucket, ngx_pool_t *pool, ngx_s3_lessons_t *lessons,
    ngx_str_t *head, ngx_s3_refusal_t *refusal);

/* Corrects the target's clock or the bucket's region from an answer of that
   class, or has the keys asked for anew. NGX_OK: another try is worth it at
   once; NGX_DECLINED: nothing new was learnt. */
ngx_int_t ngx_s3_try_learn(ngx_s3_target_t *target, ngx_s3_answer_t *answer,
    ngx_s3_lessons_t *lessons, ngx_str_t *bucket, ngx_log_t *log);

/* A try by the clock that the first one taught was refused without a reason, as
   the first one was: the former clock is the target's again. */
void ngx_s3_try_unlearn(ngx_s3_target_t *target, ngx_s3_lessons_t *lessons);

/* one more, where there is such a counter */
void ngx_s3_try_count(ngx_atomic_t *counter);


#endif /* NGX_S3_TRY_H */
