/*
 * S3's operations on names, sizes, checksums and metadata; of bytes nothing
 * is kept.
 */

#define _GNU_SOURCE

#include "s3_null_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>


/* CreateMultipartUpload */

static int
null_create(null_conn_t *c, const null_req_t *r)
{
    int             n;
    char            buf[512];
    const char     *algorithm, *type;
    null_upload_t  *u;
    null_refusal_t  e;

    null_counters.create++;

    algorithm = null_field(r, "x-amz-checksum-algorithm");
    type = null_field(r, "x-amz-checksum-type");

    if (null_options.crc32
        && (algorithm == NULL || strcmp(algorithm, "CRC32") != 0
            || type == NULL || strcasecmp(type, "FULL_OBJECT") != 0))
    {
        e = null_bad(400, "InvalidRequest", "A checksum is wanted: CRC32, "
                     "FULL_OBJECT");
        return null_refuse(c, &e);
    }

    u = calloc(1, sizeof(null_upload_t));
    if (u == NULL) {
        return null_error(c, 503, "SlowDown", "No memory");
    }

    u->path = strdup(r->path);
    u->meta = null_meta(r);
    u->initiated = time(NULL);

    pthread_mutex_lock(&null_lock);

    /* its bytes need encoding in a query and in XML */

    snprintf(u->id, sizeof(u->id), "null/%08lx+&==", (long) null_tag());
    u->next = null_uploads;
    null_uploads = u;
    null_counters.open_uploads++;

    n = snprintf(buf, sizeof(buf), NULL_XML
                 "<InitiateMultipartUploadResult " NULL_XMLNS ">"
                 "<Bucket>null</Bucket><Key>null</Key>"
                 "<UploadId>%.*samp;%s</UploadId>"
                 "</InitiateMultipartUploadResult>",
                 (int) (strchr(u->id, '&') - u->id) + 1, u->id,
                 strchr(u->id, '&') + 1);

    pthread_mutex_unlock(&null_lock);

    return null_reply(c, 200, NULL_XML_TYPE, buf, n);
}


/* UploadPart and PutObject, the body having been read */

static int
null_stored(null_conn_t *c, uint64_t tag)
{
    char  fields[128];

    snprintf(fields, sizeof(fields), "ETag: \"%032lx\"\r\n", tag);

    return null_reply(c, 200, fields, NULL, 0);
}


static int
null_part(null_conn_t *c, const null_req_t *r, const null_body_t *b,
    unsigned number, const char *id)
{
    uint64_t        tag;
    null_part_t    *part;
    null_upload_t  *u;

    pthread_mutex_lock(&null_lock);

    tag = 0;
    u = *null_upload(id, r->path);

    if (u) {
        part = &u->parts[number];
        null_counters.duplicate_parts += part->tag != 0;

        tag = null_tag();
        part->body = *b;
        part->tag = tag;
    }

    pthread_mutex_unlock(&null_lock);

    return u ? null_stored(c, tag) : null_refuse(c, &null_no_upload);
}


static int
null_put(null_conn_t *c, const null_req_t *r, const null_body_t *b)
{
    char           *meta;
    uint64_t        tag;
    null_object_t  *o;
    null_refusal_t  e;

    if (null_options.verify && !null_stands(b, 0)) {
        e = null_bad(400, "BadDigest", "The body is not the pattern's start");
        return null_refuse(c, &e);
    }

    meta = null_meta(r);

    pthread_mutex_lock(&null_lock);

    tag = null_tag();
    e = null_condition(r);

    if (e.code == NULL) {
        o = null_object_keep(r->path, meta, b->size, b->crc32);
        snprintf(o->etag, sizeof(o->etag), "\"%032lx\"", tag);
    }

    pthread_mutex_unlock(&null_lock);

    free(meta);

    return e.code ? null_refuse(c, &e) : null_stored(c, tag);
}


static int
null_body(null_conn_t *c, const null_req_t *r, const char *id)
{
    char                 number[16];
    long                 n;
    uint64_t             stop;
    null_body_t          b;
    null_refusal_t       e;
    static atomic_ulong  early, reset, hang, slowdown;

    n = 0;

    if (null_arg(r, "partNumber", number, sizeof(number)) == 0) {
        null_counters.part++;
        n = atol(number);

        if (n < 1 || n > NULL_PARTS_MAX || id == NULL) {
            c->close = 1;
            null_error(c, 400, "InvalidArgument", "No such part number");
            return -1;
        }

    } else {
        null_counters.put++;
    }

    if (null_fault(&early, null_options.early)) {
        c->close = 1;
        null_error(c, 500, "InternalError", "The body is not read");
        null_linger(c, 2000);
        return -1;
    }

    stop = null_fault(&reset, null_options.reset) ? r->length / 2 + 1 : 0;

    if (null_take(c, r, &b, stop)) {
        return -1;
    }

    if (null_fault(&hang, null_options.hang)) {
        null_linger(c, 600 * 1000);
        return -1;
    }

    if (null_fault(&slowdown, null_options.slowdown)) {
        return null_error(c, 503, "SlowDown", "Slower, please");
    }

    e = null_check_body(r, &b);
    if (e.code) {
        return null_refuse(c, &e);
    }

    return n ? null_part(c, r, &b, n, id) : null_put(c, r, &b);
}


/* AbortMultipartUpload */

static int
null_abort(null_conn_t *c, const null_req_t *r, const char *id)
{
    int              found;
    null_upload_t  **u;

    null_counters.abort++;

    pthread_mutex_lock(&null_lock);

    u = null_upload(id, r->path);
    found = *u != NULL;

    if (found) {
        null_upload_drop(u);
    }

    pthread_mutex_unlock(&null_lock);

    return found ? null_reply(c, 204, "", NULL, 0)
                 : null_refuse(c, &null_no_upload);
}


/* lists */

static void
null_xml_text(FILE *f, const char *s)
{
    for ( /* void */ ; *s; s++) {
        switch (*s) {
        case '&': fputs("&amp;", f); break;
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        default: fputc(*s, f);
        }
    }
}


static void
null_xml_time(FILE *f, const char *name, time_t t)
{
    char       buf[32];
    struct tm  tm;

    gmtime_r(&t, &tm);
    strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%S.000Z", &tm);
    fprintf(f, "<%s>%s</%s>", name, buf, name);
}


static void
null_parts_xml(FILE *f, const null_upload_t *u, unsigned marker, unsigned max)
{
    unsigned            n, count, next;
    const null_part_t  *part;

    count = 0;
    next = marker;

    fputs(NULL_XML "<ListPartsResult " NULL_XMLNS "><UploadId>", f);
    null_xml_text(f, u->id);
    fputs("</UploadId>", f);

    for (n = marker + 1; n <= NULL_PARTS_MAX; n++) {
        part = &u->parts[n];

        if (part->tag == 0) {
            continue;
        }

        if (count++ == max) {
            break;
        }

        next = n;
        fprintf(f, "<Part><PartNumber>%u</PartNumber>"
                "<ETag>\"%032lx\"</ETag><Size>%lu</Size>", n, part->tag,
                part->body.size);
        null_xml_time(f, "LastModified", u->initiated);
        fputs("</Part>", f);
    }

    fprintf(f, "<PartNumberMarker>%u</PartNumberMarker>"
            "<NextPartNumberMarker>%u</NextPartNumberMarker>"
            "<MaxParts>%u</MaxParts><IsTruncated>%s</IsTruncated>"
            "</ListPartsResult>", marker, next, max,
            count > max ? "true" : "false");
}


static int
null_list_parts(null_conn_t *c, const null_req_t *r, const char *id)
{
    int             rc;
    char           *xml, arg[16];
    FILE           *f;
    size_t          size;
    unsigned        marker, max;
    null_upload_t  *u;

    null_counters.list_parts++;

    marker = 0;
    max = 1000;

    if (null_arg(r, "part-number-marker", arg, sizeof(arg)) == 0) {
        marker = strtoul(arg, NULL, 10);
    }

    if (null_arg(r, "max-parts", arg, sizeof(arg)) == 0
        && strtoul(arg, NULL, 10) < max)
    {
        max = strtoul(arg, NULL, 10);
    }

    f = open_memstream(&xml, &size);

    pthread_mutex_lock(&null_lock);

    u = *null_upload(id, r->path);

    if (u && marker < NULL_PARTS_MAX) {
        null_parts_xml(f, u, marker, max);
    }

    pthread_mutex_unlock(&null_lock);

    fclose(f);

    rc = u ? null_reply(c, 200, NULL_XML_TYPE, xml, size)
           : null_refuse(c, &null_no_upload);

    free(xml);

    return rc;
}


static int
null_list_uploads(null_conn_t *c, const null_req_t *r)
{
    int             rc;
    char           *xml, *key, prefix[2048];
    FILE           *f;
    size_t          size, len;
    null_upload_t  *u;

    null_counters.list_uploads++;

    if (null_arg(r, "prefix", prefix, sizeof(prefix))) {
        prefix[0] = '\0';
    }

    /* the bucket, with no slash at its end */

    len = strlen(r->path);
    len -= len > 0 && r->path[len - 1] == '/';

    f = open_memstream(&xml, &size);

    fputs(NULL_XML "<ListMultipartUploadsResult " NULL_XMLNS ">"
          "<MaxUploads>1000</MaxUploads><IsTruncated>false</IsTruncated>", f);

    pthread_mutex_lock(&null_lock);

    for (u = null_uploads; u; u = u->next) {

        if (strncmp(u->path, r->path, len) != 0 || u->path[len] != '/') {
            continue;
        }

        key = strdup(u->path + len + 1);
        null_decode(key);

        if (strncmp(key, prefix, strlen(prefix)) == 0) {
            fputs("<Upload><Key>", f);
            null_xml_text(f, key);
            fputs("</Key><UploadId>", f);
            null_xml_text(f, u->id);
            fputs("</UploadId>", f);
            null_xml_time(f, "Initiated", u->initiated);
            fputs("</Upload>", f);
        }

        free(key);
    }

    pthread_mutex_unlock(&null_lock);

    fputs("</ListMultipartUploadsResult>", f);
    fclose(f);

    rc = null_reply(c, 200, NULL_XML_TYPE, xml, size);
    free(xml);

    return rc;
}


/* HeadObject and DeleteObject */

static int
null_head(null_conn_t *c, const null_req_t *r)
{
    char           *fields, crc[9];
    FILE           *f;
    int             rc;
    size_t          size, len;
    const char     *mode;
    null_object_t  *o;

    null_counters.head++;

    mode = null_field(r, "x-amz-checksum-mode");
    size = 0;

    f = open_memstream(&fields, &len);

    pthread_mutex_lock(&null_lock);

    o = *null_object(r->path);

    if (o) {
        size = o->size;
        fprintf(f, "ETag: %s\r\n%s", o->etag, o->meta);

        if (null_options.crc32 && mode && strcasecmp(mode, "ENABLED") == 0) {
            null_crc32_base64(o->crc32, crc);
            fprintf(f, "x-amz-checksum-crc32: %s\r\n"
                    "x-amz-checksum-type: FULL_OBJECT\r\n", crc);
        }
    }

    pthread_mutex_unlock(&null_lock);

    fclose(f);

    rc = null_reply(c, o ? 200 : 404, fields, NULL, size);
    free(fields);

    return rc;
}


/* GetObject: only that there is none can be answered */

static int
null_get(null_conn_t *c, const null_req_t *r)
{
    int  found;

    pthread_mutex_lock(&null_lock);
    found = *null_object(r->path) != NULL;
    pthread_mutex_unlock(&null_lock);

    if (!found) {
        return null_error(c, 404, "NoSuchKey", "There is no such object");
    }

    null_counters.other++;

    return null_error(c, 501, "NotImplemented", "Nothing is kept here");
}


static int
null_delete(null_conn_t *c, const null_req_t *r)
{
    null_object_t  *o, **place;

    null_counters.delete++;

    pthread_mutex_lock(&null_lock);

    place = null_object(r->path);
    o = *place;

    if (o) {
        *place = o->next;
        free(o->path);
        free(o->meta);
        free(o);
        null_counters.objects--;
    }

    pthread_mutex_unlock(&null_lock);

    return null_reply(c, 204, "", NULL, 0);
}


/* the faults of --every in turn; nothing of the request is carried out */

static int
null_every(null_conn_t *c, const null_req_t *r)
{
    unsigned long        n;
    null_body_t          b;
    static atomic_ulong  sequence, turn;

    if (!null_fault(&sequence, null_options.every)) {
        return 0;
    }

    n = turn++ % 5;

    if (n == 0) {
        c->close = 1;
        null_error(c, 500, "InternalError", "The body is not read");
        null_linger(c, 2000);
        return -1;
    }

    if (n == 1) {
        null_take(c, r, &b, r->length / 2 + 1);
        null_reset(c);
        return -1;
    }

    if (null_take(c, r, &b, 0)) {
        return -1;
    }

    if (n == 2) {
        c->close = 1;
        null_error(c, 400, "RequestTimeout", "Too slow");

    } else if (n == 3) {
        return null_error(c, 503, "SlowDown", "Slower, please") ? -1 : 1;
    }

    /* else: no answer */

    return -1;
}


int
null_s3(null_conn_t *c, null_req_t *r)
{
    int    rc;
    char   id_buf[128], arg[8], *id, *body;

    rc = null_every(c, r);

    if (rc != 0) {
        return rc < 0 ? -1 : 0;
    }

    id = null_arg(r, "uploadId", id_buf, sizeof(id_buf)) == 0 ? id_buf : NULL;

    if (strcmp(r->method, "PUT") == 0) {
        return null_body(c, r, id);
    }

    if (strcmp(r->method, "POST") == 0 && id) {
        return null_complete(c, r, id);
    }

    body = null_slurp(c, r);
    if (body == NULL) {
        return -1;
    }

    free(body);

    if (strcmp(r->method, "DELETE") == 0) {
        return id ? null_abort(c, r, id) : null_delete(c, r);
    }

    if (strcmp(r->method, "HEAD") == 0) {
        return null_head(c, r);
    }

    if (strcmp(r->method, "GET") == 0 && id) {
        return null_list_parts(c, r, id);
    }

    if (null_arg(r, "uploads", arg, sizeof(arg)) == 0) {

        if (strcmp(r->method, "POST") == 0) {
            return null_create(c, r);
        }

        if (strcmp(r->method, "GET") == 0) {
            return null_list_uploads(c, r);
        }
    }

    if (strcmp(r->method, "GET") == 0 && strchr(r->path + 1, '/')) {
        return null_get(c, r);
    }

    null_counters.other++;

    return null_error(c, 501, "NotImplemented", "Nothing is kept here");
}
