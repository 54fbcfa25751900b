/*
 * What the null S3 keeps: names, sizes, checksums and metadata of objects and
 * of uploads that are open.
 */

#ifndef S3_NULL_STORE_H
#define S3_NULL_STORE_H

#include <time.h>

#include "s3_null.h"

#define NULL_XML       "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define NULL_XMLNS     "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""
#define NULL_XML_TYPE  "Content-Type: application/xml\r\n"


typedef struct {
    null_body_t  body;
    uint64_t     tag;                /* of the ETag; 0: no such part */
} null_part_t;


typedef struct null_upload_s  null_upload_t;

struct null_upload_s {
    null_upload_t  *next;
    char            id[40];
    char           *path;            /* as sent: /bucket/key, encoded */
    char           *meta;            /* field lines that HEAD gives back */
    time_t          initiated;
    null_part_t     parts[NULL_PARTS_MAX + 1];   /* by number, from 1 */
};


typedef struct null_object_s  null_object_t;

struct null_object_s {
    null_object_t  *next;
    char           *path;
    char           *meta;
    char            etag[48];        /* with its quotes */
    uint64_t        size;
    uint32_t        crc32;
};


/* a refusal; code NULL: none */

typedef struct {
    int          status;
    const char  *code;
    const char  *message;
} null_refusal_t;


extern null_upload_t         *null_uploads;
extern const null_refusal_t   null_no_upload;


int null_refuse(null_conn_t *c, const null_refusal_t *e);
/* a refusal that is counted as bad */
null_refusal_t null_bad(int status, const char *code, const char *message);

/* With null_lock held: the place of an upload or an object in its list, *place
   NULL: there is none; another number for an ETag. */
null_upload_t **null_upload(const char *id, const char *path);
void null_upload_drop(null_upload_t **place);
null_object_t **null_object(const char *path);
null_object_t *null_object_keep(const char *path, const char *meta,
    uint64_t size, uint32_t crc32);
uint64_t null_tag(void);
/* If-None-Match: * and If-Match (API Reference, PutObject) */
null_refusal_t null_condition(const null_req_t *r);

/* fields of a request that come back on HEAD; malloc'ed */
char *null_meta(const null_req_t *r);

void null_crc32_base64(uint32_t crc, char out[9]);
/* x-amz-checksum-crc32 of a request against the right value */
null_refusal_t null_check_crc32(const null_req_t *r, uint32_t crc);
/* all that is known of the body of a part or an object */
null_refusal_t null_check_body(const null_req_t *r, const null_body_t *b);
/* whether the body stands at this place of the pattern */
int null_stands(const null_body_t *b, uint64_t pos);

/* CompleteMultipartUpload, in s3_null_complete.c */
int null_complete(null_conn_t *c, const null_req_t *r, const char *id);


#endif /* S3_NULL_STORE_H */
