#ifndef S3_JSON_H
#define S3_JSON_H

#include "s3_str.h"
#include "s3_record.h"

/* DynamoDB requests and replies (API 2012-08-10), on jansson */

/* PutItem of the record under partition key transferId, TTL attribute `ttl`
   (epoch seconds), condition: absent, or older in (attempt, sequence).
   Newlines and all: body to be signed and sent. */
int s3_json_put_item(s3_str_t table, const s3_record_t *r, s3_buf_t *out);
int s3_json_get_item(s3_str_t table, s3_str_t id, s3_buf_t *out);

/* reply of GetItem: S3_OK, S3_DECLINED: no such item, S3_ERROR: not a reply */
int s3_json_parse_item(const unsigned char *p, size_t len, s3_record_t *r);

/* error reply: type after the last '#', up to ':'; message */
typedef struct {
    char  type[128];
    char  message[512];
} s3_json_error_t;
int s3_json_parse_error(const unsigned char *p, size_t len,
    s3_json_error_t *e);

/* {"error": code, "message": …, "transferId": …}; id may be NULL */
int s3_json_error(s3_buf_t *out, const char *code, const char *message,
    const char *id);

#endif
