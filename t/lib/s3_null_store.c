/*
 * What the null S3 keeps, and the checks of what it does not keep.
 */

#define _GNU_SOURCE

#include "s3_null_store.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>


#define NULL_OBJECT_BUCKETS  65536


null_upload_t         *null_uploads;
static null_object_t  *null_objects[NULL_OBJECT_BUCKETS];

const null_refusal_t  null_no_upload = {
    404, "NoSuchUpload", "The upload does not exist"
};


int
null_refuse(null_conn_t *c, const null_refusal_t *e)
{
    return null_error(c, e->status, e->code, e->message);
}


null_refusal_t
null_bad(int status, const char *code, const char *message)
{
    null_refusal_t  e;

    null_counters.bad++;

    e.status = status;
    e.code = code;
    e.message = message;

    return e;
}


/* the store; null_lock is held */

uint64_t
null_tag(void)
{
    static uint64_t  n;

    return ++n;
}


null_upload_t **
null_upload(const char *id, const char *path)
{
    null_upload_t  **u;

    for (u = &null_uploads; *u; u = &(*u)->next) {
        if (strcmp((*u)->id, id) == 0 && strcmp((*u)->path, path) == 0) {
            break;
        }
    }

    return u;
}


void
null_upload_drop(null_upload_t **place)
{
    null_upload_t  *u;

    u = *place;
    *place = u->next;

    free(u->path);
    free(u->meta);
    free(u);

    null_counters.open_uploads--;
}


null_object_t **
null_object(const char *path)
{
    null_object_t  **o;

    o = &null_objects[crc32_z(0, (const unsigned char *) path, strlen(path))
                      % NULL_OBJECT_BUCKETS];

    while (*o && strcmp((*o)->path, path) != 0) {
        o = &(*o)->next;
    }

    return o;
}


null_object_t *
null_object_keep(const char *path, const char *meta, uint64_t size,
    uint32_t crc32)
{
    null_object_t  *o, **place;

    place = null_object(path);

    if (*place == NULL) {
        *place = calloc(1, sizeof(null_object_t));
        (*place)->path = strdup(path);
        null_counters.objects++;
    }

    o = *place;
    free(o->meta);
    o->meta = strdup(meta);
    o->size = size;
    o->crc32 = crc32;

    return o;
}


/* If-None-Match: * and If-Match (API Reference, PutObject) */

null_refusal_t
null_condition(const null_req_t *r)
{
    const char      *value;
    null_object_t   *o;
    null_refusal_t   e = { 0, NULL, NULL };

    o = *null_object(r->path);

    value = null_field(r, "if-none-match");
    if (value && o && strcmp(value, "*") == 0) {
        e.status = 412;
    }

    value = null_field(r, "if-match");
    if (value && o == NULL) {
        e.status = 404;
        e.code = "NoSuchKey";
        e.message = "The key does not exist";

    } else if (value && strcmp(value, o->etag) != 0) {
        e.status = 412;
    }

    if (e.status == 412) {
        e.code = "PreconditionFailed";
        e.message = "A precondition did not hold";
    }

    return e;
}


/* fields of a request that come back on HEAD; malloc'ed */

char *
null_meta(const null_req_t *r)
{
    char        *meta;
    FILE        *f;
    size_t       size;
    unsigned     i;
    const char  *name;

    static const char  names[] = " content-type content-disposition"
        " content-encoding content-language cache-control expires ";
    char  word[64];

    f = open_memstream(&meta, &size);

    for (i = 0; i < r->nfields; i++) {
        name = r->fields[i].name;
        snprintf(word, sizeof(word), " %s ", name);

        if (strncmp(name, "x-amz-meta-", 11) == 0
            || strstr(names, word) != NULL)
        {
            fprintf(f, "%s: %s\r\n", name, r->fields[i].value);
        }
    }

    fclose(f);

    return meta;
}


/* checks */

void
null_crc32_base64(uint32_t crc, char out[9])
{
    unsigned char  bytes[4];

    bytes[0] = crc >> 24;
    bytes[1] = (crc >> 16) & 0xff;
    bytes[2] = (crc >> 8) & 0xff;
    bytes[3] = crc & 0xff;

    EVP_EncodeBlock((unsigned char *) out, bytes, 4);
}


/* x-amz-checksum-crc32 of a request against the right value */

null_refusal_t
null_check_crc32(const null_req_t *r, uint32_t crc)
{
    char             right[9];
    const char      *value;
    null_refusal_t   e = { 0, NULL, NULL };

    if (!null_options.crc32) {
        return e;
    }

    value = null_field(r, "x-amz-checksum-crc32");
    if (value == NULL || strlen(value) != 8) {
        return null_bad(400, "InvalidRequest",
                        "x-amz-checksum-crc32 is missing or malformed");
    }

    null_crc32_base64(crc, right);

    if (strcmp(value, right) != 0) {
        return null_bad(400, "BadDigest", "The CRC32 is not the body's");
    }

    return e;
}


null_refusal_t
null_check_body(const null_req_t *r, const null_body_t *b)
{
    if (b->sha256[0]
        && strcmp(b->sha256, null_field(r, "x-amz-content-sha256")) != 0)
    {
        return null_bad(400, "XAmzContentSHA256Mismatch",
                        "x-amz-content-sha256 is not the body's");
    }

    if (b->foreign) {
        return null_bad(400, "BadDigest", "The body is not of the pattern");
    }

    return null_check_crc32(r, b->crc32);
}


/* whether the body stands at this place of the pattern */

int
null_stands(const null_body_t *b, uint64_t pos)
{
    if (b->size >= PATTERN_PROBE) {
        return b->start == pos;
    }

    return pattern_check(b->probe, b->size, pos);
}
