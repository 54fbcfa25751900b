/*
 * Scripts that others have Redis run: the reaper's. A refusal of one tells
 * nothing of the store's health.
 */

#include "ngx_s3_redis.h"


#define NGX_S3_REDIS_ITEMS  256      /* of a reply */


static ngx_int_t ngx_s3_redis_items(redisReply *reply, ngx_str_t *items,
    ngx_uint_t *n, u_char *number);


ngx_int_t
ngx_s3_redis_eval(ngx_s3_store_t *store, ngx_s3_store_script_t *script)
{
    ngx_int_t           rc;
    ngx_s3_redis_t     *redis;
    ngx_s3_redis_op_t  *op;

    redis = store->conf;

    if (!ngx_s3_redis_usable(redis)) {
        return NGX_ERROR;
    }

    op = ngx_s3_redis_op(NGX_S3_REDIS_SCRIPT);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->script = script;
    op->replied = script->handler;
    op->data = script->data;

    rc = ngx_s3_redis_push(redis, op);

    return (rc == NGX_OK) ? NGX_OK : NGX_ERROR;
}


void
ngx_s3_redis_scripted(ngx_s3_redis_t *redis, ngx_s3_redis_op_t *op,
    redisReply *reply)
{
    char                    reason[NGX_S3_REASON];
    void                   *data;
    u_char                  number[NGX_INT64_LEN];
    ngx_int_t               rc;
    ngx_str_t               items[NGX_S3_REDIS_ITEMS];
    ngx_uint_t              n;
    ngx_s3_store_reply_pt   replied;

    replied = op->replied;
    data = op->data;

    rc = ngx_s3_redis_items(reply, items, &n, number);

    if (rc != NGX_OK) {
        ngx_s3_redis_said(reply, "script", reason);
        ngx_s3_store_unread(redis->store, reason);
        n = 0;
    }

    ngx_s3_redis_proven(redis, NGX_S3_REDIS_BY_REPLY);

    ngx_s3_redis_pop(redis, op);
    ngx_s3_redis_free(op);

    replied(data, rc, items, n);

    freeReplyObject(reply);
}


/* an integer is a list of one */

static ngx_int_t
ngx_s3_redis_items(redisReply *reply, ngx_str_t *items, ngx_uint_t *n,
    u_char *number)
{
    size_t       i;
    redisReply  *e;

    *n = 0;

    if (reply->type == REDIS_REPLY_INTEGER) {
        items[0].data = number;
        items[0].len = ngx_sprintf(number, "%L", (int64_t) reply->integer)
                       - number;
        *n = 1;
        return NGX_OK;
    }

    if (reply->type != REDIS_REPLY_ARRAY
        || reply->elements > NGX_S3_REDIS_ITEMS)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < reply->elements; i++) {
        e = reply->element[i];

        if (e->type != REDIS_REPLY_STRING) {
            return NGX_ERROR;
        }

        items[i].data = (u_char *) e->str;
        items[i].len = e->len;
    }

    *n = reply->elements;

    return NGX_OK;
}
