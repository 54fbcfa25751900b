/*
 * Requests of the null S3: the head, the query, and bodies that are checked
 * and dropped.
 */

#define _GNU_SOURCE

#include "s3_null.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <zlib.h>


/* the head */

const char *
null_field(const null_req_t *r, const char *name)
{
    unsigned  i;

    for (i = 0; i < r->nfields; i++) {
        if (strcmp(r->fields[i].name, name) == 0) {
            return r->fields[i].value;
        }
    }

    return NULL;
}


/* percent-decoding in place */

void
null_decode(char *s)
{
    char      *d;
    unsigned   byte;

    for (d = s; *s; d++) {
        if (*s == '%' && sscanf(s + 1, "%2x", &byte) == 1) {
            *d = (char) byte;
            s += 3;

        } else {
            *d = *s++;
        }
    }

    *d = '\0';
}


int
null_arg(const null_req_t *r, const char *name, char *out, size_t size)
{
    size_t       len, n;
    const char  *p;

    len = strlen(name);

    for (p = r->query; *p; p += strcspn(p, "&"), p += *p == '&') {

        if (strncmp(p, name, len) != 0
            || (p[len] != '=' && p[len] != '&' && p[len] != '\0'))
        {
            continue;
        }

        p += len + (p[len] == '=');
        n = strcspn(p, "&");

        if (n >= size) {
            return -1;
        }

        memcpy(out, p, n);
        out[n] = '\0';
        null_decode(out);

        return 0;
    }

    return -1;
}


static int
null_parse_head(null_req_t *r)
{
    char          *p, *line, *save;
    null_field_t  *f;

    line = strtok_r(r->head, "\r\n", &save);
    if (line == NULL) {
        return -1;
    }

    r->method = strsep(&line, " ");
    r->path = strsep(&line, " ");

    if (r->path == NULL || line == NULL) {
        return -1;
    }

    p = strchr(r->path, '?');
    r->query = p ? p + 1 : "";
    if (p) {
        *p = '\0';
    }

    r->nfields = 0;

    while ((line = strtok_r(NULL, "\r\n", &save)) != NULL) {

        if (r->nfields == NULL_FIELDS_MAX) {
            return -1;
        }

        f = &r->fields[r->nfields++];
        f->name = strsep(&line, ":");

        if (line == NULL) {
            return -1;
        }

        for (p = f->name; *p; p++) {
            *p = (char) (*p >= 'A' && *p <= 'Z' ? *p | 0x20 : *p);
        }

        f->value = line + strspn(line, " \t");
    }

    return 0;
}


int
null_read_head(null_conn_t *c, null_req_t *r)
{
    size_t          len;
    const char     *value;
    unsigned char  *end;

    for ( ;; ) {
        end = memmem(c->buf + c->pos, c->last - c->pos, "\r\n\r\n", 4);
        if (end) {
            break;
        }

        if (null_fill(c)) {
            return -1;
        }
    }

    len = end - (c->buf + c->pos);
    if (len >= NULL_HEAD_MAX) {
        return -1;
    }

    memcpy(r->head, c->buf + c->pos, len);
    r->head[len] = '\0';
    c->pos += len + 4;

    if (null_parse_head(r)) {
        c->close = 1;
        null_error(c, 400, "InvalidRequest", "The request is malformed");
        return -1;
    }

    value = null_field(r, "content-length");
    r->length = value ? strtoull(value, NULL, 10) : 0;

    value = null_field(r, "connection");
    c->close = value && strcasecmp(value, "close") == 0;

    return 0;
}


/* bodies */

/* who waits to be told is told to send */

static int
null_continue(null_conn_t *c, const null_req_t *r)
{
    const char  *expect;

    expect = null_field(r, "expect");

    return expect && strcasecmp(expect, "100-continue") == 0
           ? null_write(c, "HTTP/1.1 100 Continue\r\n\r\n", 25) : 0;
}


/* some bytes of the body; *p is NULL where the kernel has dropped them */

static ssize_t
null_some(null_conn_t *c, uint64_t left, int drop, unsigned char **p)
{
    size_t   max;
    ssize_t  n;

    if (c->pos < c->last) {
        n = c->last - c->pos;
        n = (uint64_t) n < left ? n : (ssize_t) left;
        *p = c->buf + c->pos;
        c->pos += n;
        return n;
    }

    max = null_options.rate ? 65536 : 1048576;

    if (drop) {
        *p = NULL;

        do {
            n = recv(c->fd, NULL, left < max ? left : max, MSG_TRUNC);
        } while (n == -1 && errno == EINTR);

        return n;
    }

    max = max < NULL_BUF ? max : NULL_BUF;

    /* never past this request */

    n = null_recv(c, c->buf, left < max ? left : max);
    *p = c->buf;

    return n;
}


/* the next len bytes of the body at p against the pattern */

static void
null_verify(null_body_t *b, const unsigned char *p, size_t len)
{
    size_t  n;

    if (b->size < PATTERN_PROBE) {
        n = PATTERN_PROBE - b->size;
        n = n < len ? n : len;
        memcpy(b->probe + b->size, p, n);

        if (b->size + n < PATTERN_PROBE) {
            return;
        }

        if (pattern_find(b->probe, &b->start)) {
            b->foreign = 1;
        }
    }

    if (!b->foreign && !pattern_check(p, len, b->start + b->size)) {
        b->foreign = 1;
    }
}


static void
null_stalled(null_conn_t *c)
{
    null_counters.stalled++;
    null_counters.faults++;

    c->close = 1;
    null_error(c, 400, "RequestTimeout", "Your socket connection to the "
               "server was not read from or written to within the timeout "
               "period");
    null_linger(c, 2000);
}


static int
null_receive(null_conn_t *c, uint64_t length, uint64_t stop, EVP_MD_CTX *md,
    null_body_t *b)
{
    int             drop;
    double          from;
    ssize_t         n;
    unsigned char  *p;

    drop = c->ssl == NULL && md == NULL && !null_options.crc32
           && !null_options.verify;
    from = null_options.rate ? null_clock() : 0;

    while (b->size < length) {

        n = null_some(c, length - b->size, drop, &p);
        if (n <= 0) {
            if (null_impatient(c, n)) {
                null_stalled(c);

            } else {
                null_counters.cut++;
            }

            return -1;
        }

        if (null_options.crc32) {
            b->crc32 = crc32_z(b->crc32, p, n);
        }

        if (md) {
            EVP_DigestUpdate(md, p, n);
        }

        if (null_options.verify) {
            null_verify(b, p, n);
        }

        b->size += n;
        null_counters.bytes += n;

        if (null_options.rate) {
            null_pace(from, b->size, null_options.rate);
        }

        if (stop && b->size >= stop) {
            null_reset(c);
            return -1;
        }
    }

    return 0;
}


/* a line without its CRLF */

static int
null_line(null_conn_t *c, char *line, size_t size)
{
    size_t  n;

    for (n = 0; n < size; n++) {

        if (c->pos == c->last && null_fill(c)) {
            return -1;
        }

        line[n] = (char) c->buf[c->pos++];

        if (line[n] == '\n') {
            line[n && line[n - 1] == '\r' ? n - 1 : n] = '\0';
            return 0;
        }
    }

    return -1;
}


/* a body in the chunked coding, with its trailers */

static int
null_receive_chunks(null_conn_t *c, uint64_t stop, EVP_MD_CTX *md,
    null_body_t *b)
{
    char      line[1024], *end;
    uint64_t  n;

    for ( ;; ) {

        if (null_line(c, line, sizeof(line))) {
            return -1;
        }

        n = strtoull(line, &end, 16);

        if (end == line) {
            return -1;
        }

        if (n == 0) {
            break;
        }

        if (null_receive(c, b->size + n, stop, md, b)
            || null_line(c, line, sizeof(line)) || *line)
        {
            return -1;
        }
    }

    do {
        if (null_line(c, line, sizeof(line))) {
            return -1;
        }
    } while (*line);

    return 0;
}


static int
null_digest_given(const null_req_t *r)
{
    const char  *value;

    value = null_field(r, "x-amz-content-sha256");

    return null_options.sha256 && value
           && strspn(value, "0123456789abcdef") == 64 && value[64] == '\0';
}


static void
null_digest_hex(EVP_MD_CTX *md, char out[65])
{
    unsigned       i, len;
    unsigned char  digest[EVP_MAX_MD_SIZE];

    EVP_DigestFinal_ex(md, digest, &len);

    for (i = 0; i < len; i++) {
        sprintf(out + 2 * i, "%02x", digest[i]);
    }
}


int
null_take(null_conn_t *c, const null_req_t *r, null_body_t *b, uint64_t stop)
{
    int          rc;
    EVP_MD_CTX  *md;

    memset(b, 0, sizeof(null_body_t));

    if (null_continue(c, r)) {
        return -1;
    }

    md = NULL;

    if (null_digest_given(r)) {
        md = EVP_MD_CTX_new();
        EVP_DigestInit_ex(md, EVP_sha256(), NULL);
    }

    null_peak(&null_counters.bodies_peak, ++null_counters.bodies);

    if (null_options.stall) {
        null_patience(c, null_options.stall);
    }

    rc = null_field(r, "transfer-encoding")
         ? null_receive_chunks(c, stop, md, b)
         : null_receive(c, r->length, stop, md, b);

    if (null_options.stall) {
        null_patience(c, 0);
    }

    null_counters.bodies--;

    if (md) {
        null_digest_hex(md, b->sha256);
        EVP_MD_CTX_free(md);
    }

    return rc;
}


char *
null_slurp(null_conn_t *c, const null_req_t *r)
{
    char    *body;
    size_t   n, len;

    if (r->length > NULL_BODY_MAX) {
        c->close = 1;
        null_error(c, 400, "MaxMessageLengthExceeded", "Too large");
        return NULL;
    }

    body = malloc(r->length + 1);
    if (body == NULL || null_continue(c, r)) {
        free(body);
        return NULL;
    }

    for (len = 0; len < r->length; len += n) {

        if (c->pos == c->last && null_fill(c)) {
            free(body);
            return NULL;
        }

        n = c->last - c->pos;
        n = n < r->length - len ? n : r->length - len;
        memcpy(body + len, c->buf + c->pos, n);
        c->pos += n;
    }

    body[len] = '\0';

    return body;
}


int
null_digest_ok(const null_req_t *r, const char *p, size_t len)
{
    char         hex[65];
    EVP_MD_CTX  *md;

    if (!null_digest_given(r)) {
        return 1;
    }

    md = EVP_MD_CTX_new();
    EVP_DigestInit_ex(md, EVP_sha256(), NULL);
    EVP_DigestUpdate(md, p, len);
    null_digest_hex(md, hex);
    EVP_MD_CTX_free(md);

    return strcmp(hex, null_field(r, "x-amz-content-sha256")) == 0;
}
