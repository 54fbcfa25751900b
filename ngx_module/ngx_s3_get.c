#include "ngx_s3_try.h"


static void ngx_s3_get_call(ngx_s3_get_t *get, ngx_s3_call_t *call);


ngx_int_t
ngx_s3_get_head(ngx_s3_get_t *get, ngx_pool_t *pool, ngx_str_t *head,
    ngx_str_t *host)
{
    ngx_int_t         rc;
    ngx_s3_op_t       op;
    ngx_s3_call_t     call;
    ngx_s3_refusal_t  refusal;

    ngx_s3_get_call(get, &call);

    if (ngx_s3_op_build(&call, pool, &op) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_s3_try_sign(get->target, &op, &get->bucket, pool, &get->lessons,
                         head, &refusal);

    if (rc == NGX_DECLINED) {
        get->retry_after = 0;
        get->class = S3_RETRY_NO;

        (void) s3_str_copy(get->code, sizeof(get->code),
                           s3_str(refusal.code));
        (void) s3_str_copy(get->cause, sizeof(get->cause),
                           s3_str(refusal.reason));
    }

    if (rc != NGX_OK) {
        return rc;
    }

    *host = op.connect;

    ngx_s3_try_count(get->target->requests);

    return NGX_OK;
}


ngx_int_t
ngx_s3_get_judge(ngx_s3_get_t *get, ngx_s3_request_t *rq)
{
    ngx_s3_call_t    call;
    ngx_s3_answer_t  answer;

    ngx_s3_get_call(get, &call);

    ngx_s3_answer_judge(&call, rq, &answer);

    get->class = answer.class;
    get->retry_after = call.retry_after;

    (void) s3_str_copy(get->code, sizeof(get->code), s3_str(call.code));
    (void) s3_str_copy(get->cause, sizeof(get->cause), s3_str(answer.cause));

    switch (answer.class) {

    case S3_RETRY_TRANSIENT:
    case S3_RETRY_THROTTLE:
        return NGX_AGAIN;

    default:
        return ngx_s3_try_learn(get->target, &answer, &get->lessons,
                                &get->bucket, get->log);
    }
}


/* as what is written for calls knows it */

static void
ngx_s3_get_call(ngx_s3_get_t *get, ngx_s3_call_t *call)
{
    ngx_s3_call_init(call);

    call->op = NGX_S3_GET;
    call->target = get->target;
    call->log = get->log;
    call->bucket = get->bucket;
    call->key = get->key;
    call->headers = get->fields;
}
