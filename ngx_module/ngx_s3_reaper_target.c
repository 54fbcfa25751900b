/*
 * The location with whose keys an upload of another process is aborted. Part of
 * ngx_s3_reaper.
 */

#include "ngx_s3_reaper.h"


static ngx_uint_t ngx_s3_debt_same_keys(ngx_s3_target_t *a,
    ngx_s3_target_t *b);


ngx_s3_target_t *
ngx_s3_reaper_target(ngx_s3_reaper_t *reaper, uint64_t endpoint,
    ngx_str_t *bucket, ngx_s3_target_t *after)
{
    ngx_uint_t         i, n;
    ngx_s3_target_t   *target, **list;

    list = reaper->targets->elts;
    n = reaper->targets->nelts;

    /* first those with this bucket, then those that may have any */

    for (i = 0; i < 2 * n; i++) {
        target = list[i % n];

        if (i < n ? !s3_str_eq(ngx_s3_to_str(target->bucket),
                               ngx_s3_to_str(*bucket))
                  : target->bucket.len != 0)
        {
            continue;
        }

        if (ngx_s3_zone_endpoint(&target->endpoint->name) != endpoint) {
            continue;
        }

        if (after == NULL) {
            return target;
        }

        if (target == after) {
            after = NULL;
        }
    }

    return NULL;
}


ngx_uint_t
ngx_s3_debt_other_keys(ngx_s3_debt_t *debt)
{
    uint64_t          endpoint;
    ngx_s3_target_t  *target;

    if (!debt->orphan) {
        return 0;
    }

    target = debt->target;
    endpoint = ngx_s3_zone_endpoint(&target->endpoint->name);

    do {
        target = ngx_s3_reaper_target(debt->reaper, endpoint, &debt->bucket,
                                      target);
    } while (target && (ngx_s3_debt_same_keys(target, debt->target)
                        || ngx_s3_debt_same_keys(target, debt->first)));

    debt->target = target ? target : debt->first;

    return target != NULL;
}


static ngx_uint_t
ngx_s3_debt_same_keys(ngx_s3_target_t *a, ngx_s3_target_t *b)
{
    return s3_str_eq(ngx_s3_to_str(a->credentials->access_key),
                     ngx_s3_to_str(b->credentials->access_key))
           && s3_str_eq(ngx_s3_to_str(a->credentials->secret_key),
                        ngx_s3_to_str(b->credentials->secret_key))
           && s3_str_eq(ngx_s3_to_str(a->credentials->session_token),
                        ngx_s3_to_str(b->credentials->session_token));
}
