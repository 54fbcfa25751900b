/*
 * DynamoDB requests and replies (Amazon DynamoDB API Reference 2012-08-10,
 * "PutItem", "GetItem", "Error Handling") and the module's error body, on
 * jansson.
 */

#ifndef S3_JSON_H
#define S3_JSON_H

#include "s3_str.h"
#include "s3_record.h"

/* PutItem of the record under partition key transferId, TTL attribute `ttl`
   (epoch seconds), condition: absent, or older in (attempt, sequence)
   and of the same owner (or of none, as this one), unless that one has expired
   when this one is updated.
   The body to be signed and sent; at most S3_JSON_PUT_MAX bytes beside the
   table's name. S3_ERROR: no id, does not fit or no memory; out then has no
   part of it. */
#define S3_JSON_PUT_MAX  (S3_RECORD_JSON_MAX + 2048)
int s3_json_put_item(s3_str_t table, const s3_record_t *r, s3_buf_t *out);
/* GetItem, read consistently; returns as above */
int s3_json_get_item(s3_str_t table, s3_str_t id, s3_buf_t *out);

/* reply of GetItem: S3_OK, S3_DECLINED: no such item, S3_ERROR: not a reply
   or not a record; *r is valid with S3_OK alone. DynamoDB deletes items late:
   compare expires_at. */
int s3_json_parse_item(const unsigned char *p, size_t len, s3_record_t *r);

/* error reply: type after the last '#', up to ':'; message, empty where there
   is none. Cut where too long. S3_ERROR: no JSON object with a type. */
typedef struct {
    char  type[128];
    char  message[512];
} s3_json_error_t;
int s3_json_parse_error(const unsigned char *p, size_t len,
    s3_json_error_t *e);

/* PutItem's error reply where the condition failed, with the item that stands
   there: S3_OK, that is not of this owner (empty: of none); S3_DECLINED: it is,
   or no item is told */
int s3_json_parse_foreign(const unsigned char *p, size_t len, s3_str_t owner);

/* {"error": code, "message": …, "transferId": …}; id may be NULL: null.
   S3_ERROR: does not fit or no memory. */
int s3_json_error(s3_buf_t *out, const char *code, const char *message,
    const char *id);

/* The same values as text, without jansson: an answer to each upload has a
   record, and building a tree of it first cost as much as half of what nginx
   does for a small object. Strings with their quotes. */
void s3_json_put_text(s3_buf_t *out, s3_str_t s);
void s3_json_put_u64(s3_buf_t *out, uint64_t n);

/* For lib/'s own users of jansson: a string of any bytes, what is not UTF-8
   replaced by U+FFFD, and a number, at most 2^63 - 1. NULL: no memory; the
   reference is the caller's. */
struct json_t;
struct json_t *s3_json_text(s3_str_t s);
struct json_t *s3_json_u64(uint64_t n);
/* compact, in order of insertion; takes over the reference to json, which may
   be NULL: S3_ERROR, as where it does not fit; out->overflow is set then */
int s3_json_dump(struct json_t *json, s3_buf_t *out);

#endif
