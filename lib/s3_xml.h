/*
 * Amazon S3's replies (API Reference "CreateMultipartUpload",
 * "CompleteMultipartUpload", "ListParts", "Error responses") and the
 * CompleteMultipartUpload document, on expat.
 */

#ifndef S3_XML_H
#define S3_XML_H

#include "s3_str.h"

#define S3_XML_MAX_DOC   (4 * 1024 * 1024)
#define S3_UPLOAD_ID_MAX 1024

typedef enum {
    S3_XML_NONE = 0,                 /* no root element was seen */
    S3_XML_INITIATE,                 /* InitiateMultipartUploadResult */
    S3_XML_COMPLETE,                 /* CompleteMultipartUploadResult */
    S3_XML_ERROR,
    S3_XML_LIST_PARTS,
    S3_XML_LIST_UPLOADS,
    S3_XML_OTHER
} s3_xml_root_e;

typedef struct {
    unsigned  number;
    uint64_t  size;                  /* bytes */
    char      etag[136];
    char      last_modified[40];     /* ISO 8601, s3_retry_iso_date() */
} s3_xml_part_t;

/* Strings are NUL-terminated, empty: absent or too long. */

typedef struct {
    s3_xml_root_e  root;
    char           upload_id[S3_UPLOAD_ID_MAX + 1];
    char           etag[136];        /* as sent, quotes kept */
    char           code[128];        /* Error */
    char           message[512];
    char           region[64];
    char           request_id[128];
    char           server_time[40];
    unsigned       truncated:1;      /* IsTruncated */
    unsigned       next_part;        /* NextPartNumberMarker */
    unsigned       too_long:1;       /* a value did not fit its array */
    /* called from within s3_xml_feed() for each Part of ListPartsResult, the
       part living as long as the call; may be NULL */
    void         (*part)(void *data, const s3_xml_part_t *part);
    void          *data;
} s3_xml_reply_t;

typedef struct s3_xml_s  s3_xml_t;

/* Push parser of S3's replies. Namespaces and unknown elements are ignored,
   white space before the prolog is tolerated, since S3 sends it for minutes
   while it completes an upload; DTDs and entities other than XML's five are
   refused. NULL: no memory. The reply is the caller's, lives as long as the
   parser, and is cleared here but for part and data. */
s3_xml_t *s3_xml_create(s3_xml_reply_t *reply);
/* the next len bytes; S3_OK, or S3_ERROR, then and for all later calls: not
   XML, a number that is none, larger than S3_XML_MAX_DOC, no memory */
int s3_xml_feed(s3_xml_t *x, const unsigned char *p, size_t len);
/* S3_OK: a well-formed document with a root element; S3_ERROR otherwise */
int s3_xml_finish(s3_xml_t *x);
/* NULL is allowed */
void s3_xml_destroy(s3_xml_t *x);

/* create, feed, finish, destroy */
int s3_xml_parse(s3_xml_reply_t *reply, const unsigned char *p, size_t len);

/* the Complete document, piece by piece; crc32 is base64 or NULL. ETag is
   escaped. A piece is at most S3_XML_PART_MAX bytes, as long as the ETag has
   at most 135 as in s3_xml_part_t. */
#define S3_XML_PART_MAX  1024
void s3_xml_complete_begin(s3_buf_t *out);
void s3_xml_complete_part(s3_buf_t *out, unsigned number, const char *etag,
    const char *crc32);
void s3_xml_complete_end(s3_buf_t *out);

#endif
