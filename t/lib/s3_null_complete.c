/*
 * CompleteMultipartUpload: reads the part list and holds it against what was
 * uploaded, as S3 does.
 */

#define _GNU_SOURCE

#include "s3_null_store.h"

#include <expat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>


/* what a Complete document lists */

typedef struct {
    unsigned  number;
    char      etag[64];              /* without quotes */
    char      crc32[16];             /* "": none */
} null_listed_t;


typedef struct {
    null_listed_t  *parts;           /* nparts, malloc'ed */
    unsigned        nparts;
    unsigned        alloc;
    char            text[128];       /* of the element that is open */
    size_t          len;
    unsigned        other:1;         /* not what a Complete document has */
} null_complete_t;


/* the Complete document */

static void
null_complete_start(void *data, const char *name, const char **attributes)
{
    null_complete_t  *list = data;

    (void) attributes;

    list->len = 0;

    if (strcmp(name, "Part") != 0) {
        return;
    }

    if (list->nparts == list->alloc) {
        list->alloc = list->alloc ? list->alloc * 2 : 64;
        list->parts = realloc(list->parts,
                              list->alloc * sizeof(null_listed_t));
    }

    memset(&list->parts[list->nparts++], 0, sizeof(null_listed_t));
}


static void
null_complete_text(void *data, const char *s, int len)
{
    null_complete_t  *list = data;

    if (list->len + len >= sizeof(list->text)) {
        list->other = 1;
        return;
    }

    memcpy(list->text + list->len, s, len);
    list->len += len;
}


static void
null_complete_end(void *data, const char *name)
{
    size_t            len;
    null_listed_t    *part;
    null_complete_t  *list = data;

    list->text[list->len] = '\0';
    list->len = 0;

    part = list->nparts ? &list->parts[list->nparts - 1] : NULL;

    if (strcmp(name, "PartNumber") == 0 && part) {
        part->number = strtoul(list->text, NULL, 10);

    } else if (strcmp(name, "ETag") == 0 && part) {
        len = strcspn(list->text + (list->text[0] == '"'), "\"");
        snprintf(part->etag, sizeof(part->etag), "%.*s", (int) len,
                 list->text + (list->text[0] == '"'));

    } else if (strcmp(name, "ChecksumCRC32") == 0 && part) {
        snprintf(part->crc32, sizeof(part->crc32), "%.15s", list->text);

    } else if (strcmp(name, "CompleteMultipartUpload") != 0
               && strcmp(name, "Part") != 0)
    {
        list->other = 1;
    }
}


static null_refusal_t
null_complete_parse(null_complete_t *list, const char *p, size_t len)
{
    int             ok;
    XML_Parser      parser;
    null_refusal_t  e = { 0, NULL, NULL };

    memset(list, 0, sizeof(null_complete_t));

    parser = XML_ParserCreate(NULL);
    XML_SetUserData(parser, list);
    XML_SetElementHandler(parser, null_complete_start, null_complete_end);
    XML_SetCharacterDataHandler(parser, null_complete_text);

    ok = XML_Parse(parser, p, len, 1) == XML_STATUS_OK;

    XML_ParserFree(parser);

    if (!ok || list->other || list->nparts == 0) {
        return null_bad(400, "MalformedXML", "The part list is malformed");
    }

    return e;
}


/* part i of the list against the upload; pos is where it has to stand */

static null_refusal_t
null_complete_part(const null_upload_t *u, const null_complete_t *list,
    unsigned i, uint64_t pos)
{
    char                  right[40];
    const null_part_t    *part;
    const null_listed_t  *given;
    null_refusal_t        e = { 0, NULL, NULL };

    given = &list->parts[i];

    /* S3 wants 1, 2, ... where parts have checksums */

    if ((i > 0 && given->number <= given[-1].number)
        || (null_options.crc32 && given->number != i + 1))
    {
        return null_bad(400, "InvalidPartOrder", "The parts are not in order");
    }

    part = given->number <= NULL_PARTS_MAX ? &u->parts[given->number] : NULL;

    if (given->number == 0 || part == NULL || part->tag == 0) {
        return null_bad(400, "InvalidPart", "A part was not uploaded");
    }

    snprintf(right, sizeof(right), "%032lx", part->tag);

    if (strcmp(given->etag, right) != 0) {
        return null_bad(400, "InvalidPart", "An ETag is not its part's");
    }

    null_crc32_base64(part->body.crc32, right);

    if (null_options.crc32 && given->crc32[0]
        && strcmp(given->crc32, right) != 0)
    {
        return null_bad(400, "InvalidPart", "A CRC32 is not its part's");
    }

    if (part->body.size < NULL_PART_MIN && i + 1 < list->nparts) {
        return null_bad(400, "EntityTooSmall", "A part is too small");
    }

    if (null_options.verify && !null_stands(&part->body, pos)) {
        return null_bad(400, "InvalidPart", "The parts do not tile the body");
    }

    return e;
}


/* locked */

static null_refusal_t
null_complete_check(const null_upload_t *u, const null_complete_t *list,
    const null_req_t *r, uint64_t *size, uint32_t *crc)
{
    unsigned            i;
    const char         *type;
    null_refusal_t      e;
    const null_body_t  *b;

    *size = 0;
    *crc = 0;

    for (i = 0; i < list->nparts; i++) {
        e = null_complete_part(u, list, i, *size);
        if (e.code) {
            return e;
        }

        b = &u->parts[list->parts[i].number].body;
        *crc = crc32_combine(*crc, b->crc32, b->size);
        *size += b->size;
    }

    type = null_field(r, "x-amz-checksum-type");

    if (null_options.crc32
        && (type == NULL || strcasecmp(type, "FULL_OBJECT") != 0))
    {
        return null_bad(400, "InvalidRequest", "x-amz-checksum-type is wrong");
    }

    e = null_check_crc32(r, *crc);
    if (e.code) {
        return e;
    }

    return null_condition(r);
}


/* CompleteMultipartUpload, its document having been read */

static null_refusal_t
null_complete_carry_out(const null_req_t *r, const null_complete_t *list,
    const char *id, char etag[48])
{
    uint32_t         crc;
    uint64_t         size;
    null_object_t   *o;
    null_upload_t  **u;
    null_refusal_t   e;

    size = 0;
    crc = 0;
    e = null_no_upload;

    pthread_mutex_lock(&null_lock);

    u = null_upload(id, r->path);

    if (*u) {
        e = null_complete_check(*u, list, r, &size, &crc);
    }

    if (e.code == NULL) {
        o = null_object_keep(r->path, (*u)->meta, size, crc);
        snprintf(o->etag, sizeof(o->etag), "\"%032lx-%u\"", null_tag(),
                 list->nparts);
        strcpy(etag, o->etag);
        null_upload_drop(u);
    }

    pthread_mutex_unlock(&null_lock);

    return e;
}


/* 200 and white space before anything is known, as S3 does it: the answer is
   what follows it, its length that of a chunk */

static int
null_complete_spaces(null_conn_t *c)
{
    long  ms;

    static const char  head[] = "HTTP/1.1 200 OK\r\n" NULL_XML_TYPE
        "Transfer-Encoding: chunked\r\n\r\n"
        "27\r\n" NULL_XML "\r\n";

    if (null_write(c, head, sizeof(head) - 1)) {
        return -1;
    }

    for (ms = 0; ms < null_options.complete_space; ms += 100) {
        if (null_write(c, "1\r\n \r\n", 6)) {
            return -1;
        }

        null_sleep(100);
    }

    return 0;
}


static int
null_complete_reply(null_conn_t *c, const null_refusal_t *e, int spaces,
    const char *etag)
{
    int   n, len;
    char  body[512], chunk[640];

    if (e->code && !spaces) {
        return null_refuse(c, e);
    }

    if (e->code) {
        len = snprintf(body, sizeof(body), "<Error><Code>%s</Code>"
                       "<Message>%s</Message></Error>", e->code, e->message);

    } else {
        len = snprintf(body, sizeof(body), "%s"
                       "<CompleteMultipartUploadResult " NULL_XMLNS ">"
                       "<ETag>&quot;%.*s&quot;</ETag>"
                       "</CompleteMultipartUploadResult>",
                       spaces ? "" : NULL_XML, (int) strlen(etag) - 2,
                       etag + 1);
    }

    if (!spaces) {
        return null_reply(c, 200, NULL_XML_TYPE, body, len);
    }

    n = snprintf(chunk, sizeof(chunk), "%x\r\n%s\r\n0\r\n\r\n", len, body);

    return null_write(c, chunk, n);
}


int
null_complete(null_conn_t *c, const null_req_t *r, const char *id)
{
    int                  digest, spaces;
    char                *body, etag[48];
    null_refusal_t       e;
    null_complete_t      list;
    static atomic_ulong  error, lost;

    null_counters.complete++;

    body = null_slurp(c, r);
    if (body == NULL) {
        return -1;
    }

    digest = null_digest_ok(r, body, r->length);
    e = null_complete_parse(&list, body, r->length);
    free(body);

    if (e.code == NULL && !digest) {
        e = null_bad(400, "XAmzContentSHA256Mismatch",
                     "x-amz-content-sha256 is not the body's");
    }

    if (e.code == NULL && null_fault(&error, null_options.complete_error)) {
        free(list.parts);
        return null_error(c, 200, "InternalError", "Try again, please");
    }

    spaces = null_options.complete_space != 0;

    if (spaces && null_complete_spaces(c)) {
        free(list.parts);
        return -1;
    }

    if (e.code == NULL) {
        e = null_complete_carry_out(r, &list, id, etag);
    }

    free(list.parts);

    if (e.code == NULL && null_fault(&lost, null_options.complete_lost)) {
        return -1;
    }

    return null_complete_reply(c, &e, spaces, etag);
}
