#include "ngx_s3_try.h"

#include "ngx_s3_sign.h"


static ngx_int_t ngx_s3_try_clock(ngx_s3_target_t *target,
    ngx_s3_answer_t *answer, ngx_s3_lessons_t *lessons, ngx_log_t *log);
static ngx_int_t ngx_s3_try_region(ngx_s3_target_t *target,
    ngx_s3_answer_t *answer, ngx_s3_lessons_t *lessons, ngx_str_t *bucket,
    ngx_log_t *log);
static ngx_s3_region_t *ngx_s3_try_known(ngx_s3_target_t *target,
    ngx_str_t *bucket);


ngx_int_t
ngx_s3_try_sign(ngx_s3_target_t *target, ngx_s3_op_t *op, ngx_str_t *bucket,
    ngx_pool_t *pool, ngx_s3_lessons_t *lessons, ngx_str_t *head,
    ngx_s3_refusal_t *refusal)
{
    ngx_int_t         rc;
    s3_keys_t         keys;
    ngx_s3_sign_t     s;
    ngx_s3_region_t  *known;

    if (ngx_s3_credentials_get(target->credentials, &keys) != NGX_OK) {
        refusal->status = 500;
        refusal->code = "NoCredentials";
        refusal->reason = "there are no credentials, see s3_credentials";
        return NGX_DECLINED;
    }

    lessons->generation = target->credentials->generation;

    s.method = op->method;
    s.path = op->path;
    s.query = op->query;
    s.host = op->host;
    s.fields = op->fields.elts;
    s.nfields = op->fields.nelts;
    s.payload = op->payload;
    s.content_length = op->content_length;
    s.now = ngx_time() + target->clock_skew;
    s.sha256_header = 1;

    ngx_str_set(&s.service, "s3");

    if (lessons->learnt) {
        s.region.len = lessons->region_len;
        s.region.data = lessons->region;

    } else {
        known = ngx_s3_try_known(target, bucket);

        s.region = target->region;

        if (known) {
            s.region.len = known->region_len;
            s.region.data = known->region;
        }

        lessons->region_len = ngx_min(s.region.len, sizeof(lessons->region));
        ngx_memcpy(lessons->region, s.region.data, lessons->region_len);
    }

    rc = ngx_s3_sign_head(pool, target->credentials, &s, head);

    if (rc == NGX_DECLINED) {
        refusal->status = 400;
        refusal->code = "InvalidRequest";
        refusal->reason = "a header field has a control character, is not "
                          "allowed, or there are too many";
    }

    return rc;
}


ngx_int_t
ngx_s3_try_learn(ngx_s3_target_t *target, ngx_s3_answer_t *answer,
    ngx_s3_lessons_t *lessons, ngx_str_t *bucket, ngx_log_t *log)
{
    ngx_int_t  rc;

    switch (answer->class) {

    case S3_RETRY_CLOCK:
        return ngx_s3_try_clock(target, answer, lessons, log);

    case S3_RETRY_REGION:
        return ngx_s3_try_region(target, answer, lessons, bucket, log);

    case S3_RETRY_CREDENTIALS:

        /* others may have had them read meanwhile */

        if (lessons->generation == target->credentials->generation) {
            ngx_s3_credentials_refresh(target->credentials, log);
        }

        rc = lessons->keys ? NGX_DECLINED : NGX_OK;
        lessons->keys = 1;

        return rc;

    default:
        return NGX_DECLINED;
    }
}


static ngx_int_t
ngx_s3_try_clock(ngx_s3_target_t *target, ngx_s3_answer_t *answer,
    ngx_s3_lessons_t *lessons, ngx_log_t *log)
{
    if (lessons->clock || answer->clock == -1) {
        return NGX_DECLINED;
    }

    lessons->clock = 1;
    lessons->skew = target->clock_skew;
    target->clock_skew = answer->clock - ngx_time();

    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "s3 clock of \"%V\" differs from ours by %L s",
                  &target->endpoint->name, target->clock_skew);

    return NGX_OK;
}


void
ngx_s3_try_unlearn(ngx_s3_target_t *target, ngx_s3_lessons_t *lessons)
{
    if (lessons->clock) {
        target->clock_skew = lessons->skew;
        target->vain = 1;
    }
}


/* its name alone: nobody is followed to another host */

static ngx_int_t
ngx_s3_try_region(ngx_s3_target_t *target, ngx_s3_answer_t *answer,
    ngx_s3_lessons_t *lessons, ngx_str_t *bucket, ngx_log_t *log)
{
    size_t            len;
    ngx_s3_region_t  *known;

    len = ngx_strlen(answer->region);

    if (lessons->learnt || len == 0
        || (len == lessons->region_len
            && ngx_strncmp(answer->region, lessons->region, len) == 0))
    {
        return NGX_DECLINED;
    }

    /* other buckets of the target may teach others before the next try */

    lessons->learnt = 1;
    lessons->region_len = len;
    ngx_memcpy(lessons->region, answer->region, len);

    known = ngx_s3_try_known(target, bucket);

    if (known == NULL) {

        if (target->regions == NULL) {

            /* once a worker and target */

            target->regions = ngx_palloc(ngx_cycle->pool,
                                     NGX_S3_REGIONS * sizeof(ngx_s3_region_t));
            if (target->regions == NULL) {
                return NGX_OK;
            }
        }

        known = &target->regions[target->nregions++ % NGX_S3_REGIONS];

        known->bucket_len = ngx_min(bucket->len, S3_BUCKET_MAX);
        ngx_memcpy(known->bucket, bucket->data, known->bucket_len);
    }

    known->region_len = len;
    ngx_memcpy(known->region, answer->region, len);

    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "s3 bucket \"%V\" is in region \"%s\", see s3_region",
                  bucket, answer->region);

    return NGX_OK;
}


static ngx_s3_region_t *
ngx_s3_try_known(ngx_s3_target_t *target, ngx_str_t *bucket)
{
    s3_str_t          name;
    ngx_uint_t        i, n;
    ngx_s3_region_t  *known;

    n = ngx_min(target->nregions, NGX_S3_REGIONS);

    for (i = 0; i < n; i++) {
        known = &target->regions[i];

        name.data = known->bucket;
        name.len = known->bucket_len;

        if (s3_str_eq(name, ngx_s3_to_str(*bucket))) {
            return known;
        }
    }

    return NULL;
}


void
ngx_s3_try_count(ngx_atomic_t *counter)
{
    if (counter) {
        (void) ngx_atomic_fetch_add(counter, 1);
    }
}
