/*
 * The null origin: GET and HEAD of bodies of any length in body_gen's
 * pattern, none of which is kept anywhere.
 *
 * GET /__body/BYTES[?option&...]
 *   chunked=1     chunked coding, chunks of 8 KiB, no Content-Length
 *   cut=N         the connection is closed after N bytes of the answer's body
 *   cut-once=N    the same, but only the first time that this very path and
 *                 query are asked for, HEAD not counted
 *   rate=B        bytes a second, else --rate
 *
 * ETag is strong and that of the length. One range is answered with 206 (RFC
 * 9110, 14), where If-Range, if there is one, is the ETag; several ranges, and
 * what is malformed, as if there were none.
 */

#define _GNU_SOURCE

#include "s3_null.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>


#define NULL_ORIGIN_BUF    262144    /* a write, as long as there is no rate */
#define NULL_ORIGIN_CHUNK  8192
#define NULL_ORIGIN_WHOLE  UINT64_MAX


typedef struct {
    uint64_t  size;                  /* of the whole body */
    uint64_t  first;                 /* of the bytes that are sent */
    uint64_t  last;                  /* the byte after them */
    uint64_t  cut;                   /* so many of them, then it is closed */
    long      rate;                  /* 0: no limit */
    int       chunked;
    char      etag[32];
} null_origin_t;


typedef struct null_origin_seen_s  null_origin_seen_t;

struct null_origin_seen_s {
    null_origin_seen_t  *next;
    char                *target;
};


/* whether it is the first time */

static int
null_origin_first(const null_req_t *r)
{
    char                *target;
    null_origin_seen_t  *seen;

    static null_origin_seen_t  *all;

    if (asprintf(&target, "%s?%s", r->path, r->query) == -1) {
        return 0;
    }

    pthread_mutex_lock(&null_lock);

    for (seen = all; seen; seen = seen->next) {
        if (strcmp(seen->target, target) == 0) {
            break;
        }
    }

    if (seen) {
        free(target);

    } else {
        seen = malloc(sizeof(null_origin_seen_t));
        seen->target = target;
        seen->next = all;
        all = seen;
        seen = NULL;
    }

    pthread_mutex_unlock(&null_lock);

    return seen == NULL;
}


/* 0, or -1: absent */

static int
null_origin_number(const null_req_t *r, const char *name, uint64_t *n)
{
    char  value[24];

    if (null_arg(r, name, value, sizeof(value))) {
        return -1;
    }

    *n = strtoull(value, NULL, 10);

    return 0;
}


/* The status that Range asks for; where it is 206, o has the range. */

static int
null_origin_range(null_origin_t *o, const char *value)
{
    char      *p;
    uint64_t   n;

    if (strncasecmp(value, "bytes=", 6) != 0) {
        return 200;
    }

    value += 6;

    if (*value == '-') {

        /* the last n */

        n = strtoull(value + 1, &p, 10);

        if (p == value + 1 || *p) {
            return 200;
        }

        if (n == 0 || o->size == 0) {
            return 416;
        }

        o->first = n < o->size ? o->size - n : 0;

        return 206;
    }

    n = strtoull(value, &p, 10);

    if (p == value || *p != '-') {
        return 200;
    }

    value = p + 1;

    if (*value) {
        o->last = strtoull(value, &p, 10);

        if (p == value || *p || o->last < n) {
            o->last = o->size;
            return 200;
        }

        o->last = o->last < o->size ? o->last + 1 : o->size;
    }

    if (n >= o->size) {
        return 416;
    }

    o->first = n;

    return 206;
}


static int
null_origin_status(null_origin_t *o, const null_req_t *r)
{
    const char  *range, *condition;

    range = null_field(r, "range");
    condition = null_field(r, "if-range");

    if (range == NULL || (condition && strcmp(condition, o->etag) != 0)) {
        return 200;
    }

    return null_origin_range(o, range);
}


static int
null_origin_parse(null_origin_t *o, const null_req_t *r)
{
    char      *end;
    uint64_t   n;

    memset(o, 0, sizeof(null_origin_t));

    o->size = strtoull(r->path + sizeof(NULL_ORIGIN_PATH) - 1, &end, 10);
    if (*end || end[-1] == '/') {
        return -1;
    }

    o->last = o->size;
    o->cut = NULL_ORIGIN_WHOLE;
    o->rate = null_options.rate;

    snprintf(o->etag, sizeof(o->etag), "\"null-%lu\"", o->size);

    o->chunked = null_origin_number(r, "chunked", &n) == 0 && n;

    if (null_origin_number(r, "rate", &n) == 0) {
        o->rate = n;
    }

    (void) null_origin_number(r, "cut", &o->cut);

    if (strcmp(r->method, "HEAD") != 0
        && null_origin_number(r, "cut-once", &n) == 0
        && null_origin_first(r))
    {
        o->cut = n;
    }

    return 0;
}


/* the next bytes from position pos on, max at most or a chunk; returns what
   they take, framed, and adds them to *pos */

static size_t
null_origin_fill(const null_origin_t *o, unsigned char *p, uint64_t *pos,
    uint64_t last, size_t max)
{
    size_t    n, len;
    uint64_t  end;

    end = last - *pos < max ? last : *pos + max;

    if (!o->chunked) {
        len = end - *pos;
        pattern_fill(p, len, *pos);
        *pos = end;

        return len;
    }

    for (len = 0; *pos < end; *pos += n) {
        n = end - *pos < NULL_ORIGIN_CHUNK ? end - *pos : NULL_ORIGIN_CHUNK;
        len += pattern_chunk(p + len, n, *pos);
    }

    return len;
}


static int
null_origin_body(null_conn_t *c, const null_origin_t *o)
{
    int             rc;
    size_t          len, max;
    double          from;
    uint64_t        pos, last, sent;
    unsigned char  *buf;

    max = NULL_ORIGIN_BUF;

    if (o->rate && (size_t) o->rate / 20 < max) {
        max = o->rate / 20 + 1;
    }

    last = o->last - o->first < o->cut ? o->last : o->first + o->cut;

    buf = malloc(NULL_ORIGIN_BUF
                 + (NULL_ORIGIN_BUF / NULL_ORIGIN_CHUNK + 1) * PATTERN_FRAME);
    if (buf == NULL) {
        return -1;
    }

    rc = 0;
    from = null_clock();

    for (pos = o->first; rc == 0 && pos < last; /* void */) {

        if (o->rate) {
            null_pace(from, pos - o->first, o->rate);
        }

        sent = pos;
        len = null_origin_fill(o, buf, &pos, last, max);

        /* first, since who has the last of them may ask at once */

        null_counters.origin_bytes += pos - sent;

        rc = null_write(c, buf, len);
    }

    free(buf);

    if (rc == 0 && o->cut != NULL_ORIGIN_WHOLE) {
        null_counters.origin_cut++;
        return -1;
    }

    if (rc == 0 && o->chunked) {
        rc = null_write(c, "0\r\n\r\n", 5);
    }

    return rc;
}


int
null_origin(null_conn_t *c, const null_req_t *r)
{
    int            n, status;
    char           fields[512];
    size_t         len;
    null_origin_t  o;

    if (null_origin_parse(&o, r)) {
        return null_error(c, 404, "NoSuchKey", "/__body/BYTES, please");
    }

    null_counters.origin++;

    status = null_origin_status(&o, r);

    n = snprintf(fields, sizeof(fields), "Accept-Ranges: bytes\r\n"
                 "ETag: %s\r\nContent-Type: application/octet-stream\r\n",
                 o.etag);

    if (status == 416) {
        sprintf(fields + n, "Content-Range: bytes */%lu\r\n", o.size);
        return null_reply(c, 416, fields, NULL, 0);
    }

    if (status == 206) {
        null_counters.origin_ranges++;
        n += sprintf(fields + n, "Content-Range: bytes %lu-%lu/%lu\r\n",
                     o.first, o.last - 1, o.size);
    }

    len = o.last - o.first;

    if (o.chunked) {
        sprintf(fields + n, "Transfer-Encoding: chunked\r\n");
        len = NULL_NO_LENGTH;
    }

    if (null_reply(c, status, fields, NULL, len)) {
        return -1;
    }

    return strcmp(r->method, "HEAD") == 0 ? 0 : null_origin_body(c, &o);
}
