/*
 * The one progress record and its forms: JSON, the fields that Redis and
 * DynamoDB store, the log line.
 */

#ifndef S3_RECORD_H
#define S3_RECORD_H

#include "s3_str.h"
#include "s3_totals.h"
#include "s3_uri.h"

typedef enum {
    S3_STATE_ACTIVE = 0,
    S3_STATE_COMPLETING,
    S3_STATE_COMPLETED,
    S3_STATE_FAILED,
    S3_STATE_ABORTED,
    S3_STATE_N
} s3_state_e;

typedef enum { S3_UPLOAD = 0, S3_DOWNLOAD } s3_direction_e;

#define s3_state_final(state)  ((state) >= S3_STATE_COMPLETED)

#define S3_ID_MIN      16
#define S3_ID_MAX      64
#define S3_ETAG_MAX    128
#define S3_ERROR_MAX   256
#define S3_OWNER_MAX   128
#define S3_RECORD_MAX_FIELDS  24
#define S3_RECORD_JSON_MAX    16384  /* the largest JSON form, bytes */
#define S3_RECORD_SCRATCH     512    /* numbers and times as text, bytes */
#define S3_RECORD_LOG_MAX     80

/* The one progress record. Strings are NUL-terminated, empty: unknown.
   Times are ms since the epoch. No pointer: it is copied as it is. */

typedef struct {
    char            id[S3_ID_MAX + 1];
    char            bucket[S3_BUCKET_MAX + 1];
    char            key[S3_KEY_MAX + 1];
    char            etag[S3_ETAG_MAX + 1];   /* with its quotes */
    char            error[S3_ERROR_MAX + 1];
    char            owner[S3_OWNER_MAX + 1]; /* stored, never shown */
    uint64_t        attempt;         /* start time, ms since the epoch */
    uint64_t        sequence;
    s3_state_e      state;
    s3_direction_e  direction;
    uint64_t        bytes_transferred;
    uint64_t        bytes_stored;
    int64_t         total_bytes;     /* -1: unknown */
    uint64_t        parts_stored;
    uint64_t        started_at;
    uint64_t        updated_at;
    uint64_t        expires_at;
    uint32_t        crc32;
    unsigned        has_crc32:1;
} s3_record_t;

/* one attribute for Redis and DynamoDB: absent values are left out */

typedef struct {
    const char  *name;
    s3_str_t     value;              /* points into the caller's scratch or
                                        the record */
    unsigned     number:1;           /* DynamoDB type N, else S */
} s3_record_field_t;

/* "active" …; "" for a value that is no state */
const char *s3_state_name(s3_state_e state);
/* S3_OK, S3_ERROR: no such name */
int s3_state_parse(s3_str_t name, s3_state_e *state);

/* floor(100 * bytes / total) without overflow, at most 100; 0 while total is
   unknown; an empty object is 0 until completed, then 100 */
unsigned s3_record_percentage(const s3_record_t *r);
/* the same of bytes_stored, at most 99 until completed */
unsigned s3_record_stored_percentage(const s3_record_t *r);
/* bytes a second from started_at to updated_at; 0 when no time passed */
uint64_t s3_record_rate(const s3_record_t *r);

/* a < b in (attempt, sequence): negative; equal: 0; else positive */
int s3_record_compare(const s3_record_t *a, const s3_record_t *b);

/* the public JSON object (no owner), unknown values null, crc32 only where
   it is known, bytes that are not UTF-8 replaced by U+FFFD; S3_ERROR: does
   not fit, out then has no part of it */
int s3_record_json(const s3_record_t *r, s3_buf_t *out);

/* the stored form (with owner); returns the number of fields, -1: scratch too
   small. At most S3_RECORD_MAX_FIELDS; a scratch of S3_RECORD_SCRATCH bytes
   is enough. Strings are the record's bytes as they are. */
int s3_record_fields(const s3_record_t *r, s3_record_field_t *fields,
    s3_buf_t *scratch);

/* as *to = *from, but for what stands behind the ends of strings, which is most
   of a record: that stays what it was in *to */
void s3_record_copy(s3_record_t *to, const s3_record_t *from);
/* the same where *to is an older record of the same attempt: what names it is
   there already */
void s3_record_update(s3_record_t *to, const s3_record_t *from);

/* one field of the stored form back into a record; unknown names and those
   that are computed (percentage, rate) are ignored. Start from
   s3_record_init(). S3_OK, S3_ERROR: the value is malformed or too long. */
void s3_record_init(s3_record_t *r);
int s3_record_set(s3_record_t *r, s3_str_t name, s3_str_t value);

/* "Progress: 99000035/9029243448 bytes (1%)", "Progress: 104857600/? …";
   at most S3_RECORD_LOG_MAX bytes, no NUL */
void s3_record_log(const s3_record_t *r, s3_buf_t *out);

/* ISO 8601 UTC with ms: 2026-11-23T21:00:00.123Z (24 bytes and a NUL); times
   past the year 9999 become its last ms */
void s3_record_time(uint64_t ms, char out[25]);

#endif
