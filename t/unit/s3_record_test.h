/*
 * What the tests of records share: a record with all of its fields.
 */

#ifndef S3_RECORD_TEST_H
#define S3_RECORD_TEST_H

#include "s3_test.h"

#include "s3_record.h"


static s3_record_t  r;


static inline void
fill(void)
{
    s3_record_init(&r);

    strcpy(r.id, "0123456789abcdef0123456789abcdef");
    strcpy(r.bucket, "incoming");
    strcpy(r.key, "videos/\xc3\xa4 \"quoted\".mp4");
    strcpy(r.etag, "\"16cafe8d6b8c1c55c3d339c8d69326c6-2\"");
    strcpy(r.owner, "alice");

    r.attempt = 1795467600123;
    r.sequence = 42;
    r.state = S3_STATE_COMPLETED;
    r.direction = S3_UPLOAD;
    r.bytes_transferred = 9029243448;
    r.bytes_stored = 9029243448;
    r.total_bytes = 9029243448;
    r.parts_stored = 539;
    r.started_at = 1795467600123;
    r.updated_at = 1795467690123;
    r.expires_at = 1795554090123;
    r.crc32 = 0xcbf43926;
    r.has_crc32 = 1;
}


#endif /* S3_RECORD_TEST_H */
