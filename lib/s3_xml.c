#include "s3_xml.h"

#include <stdlib.h>
#include <string.h>

#include <expat.h>


#define S3_XML_MAX_DEPTH  32         /* S3's deepest reply has 4 levels */

/* a tag, comment or instruction; expat scans an unfinished one again with
   each piece of input, so that its size must not be the document's */
#define S3_XML_MAX_TOKEN  65536

/* Set aside for the answers to come where there is no memory: a parser and a
   short document take less than a half. The answer to CreateMultipartUpload
   names what has to be aborted some day. */
#define S3_XML_RESERVE    65536


typedef enum {
    S3_XML_TEXT = 0,
    S3_XML_UINT,
    S3_XML_UINT64,
    S3_XML_BOOL
} s3_xml_type_e;


typedef struct {
    s3_xml_root_e  root;
    unsigned       depth;            /* 2: child of the root; 3: of a Part */
    const char    *name;
    s3_xml_type_e  type;
    size_t         offset;           /* in the reply, or in the part */
    size_t         size;
} s3_xml_value_t;


/* in front of each piece of memory; keeps it aligned */

typedef union {
    size_t       size;
    long double  align;
} s3_xml_mem_t;


struct s3_xml_s {
    XML_Parser             parser;
    s3_xml_reply_t        *reply;
    const s3_xml_value_t  *value;    /* the element being read, or NULL */
    s3_xml_part_t          part;
    size_t                 total;    /* bytes fed */
    size_t                 silent;   /* bytes fed since expat last reported */
    size_t                 len;      /* of text */
    unsigned               depth;
    unsigned               started:1;   /* a byte other than white space */
    unsigned               in_part:1;
    unsigned               failed:1;
    char                   text[S3_UPLOAD_ID_MAX + 2];  /* 1 for excess */
};


static void XMLCALL s3_xml_on_start(void *data, const XML_Char *name,
    const XML_Char **attrs);
static void XMLCALL s3_xml_on_end(void *data, const XML_Char *name);
static void XMLCALL s3_xml_on_text(void *data, const XML_Char *s, int len);
static void XMLCALL s3_xml_on_other(void *data, const XML_Char *s, int len);
static void XMLCALL s3_xml_on_doctype(void *data, const XML_Char *name,
    const XML_Char *system_id, const XML_Char *public_id, int internal);

static void *s3_xml_malloc(size_t size);
static void *s3_xml_realloc(void *p, size_t size);
static void s3_xml_free(void *p);
static void s3_xml_fail(s3_xml_t *x);
static const char *s3_xml_local_name(const char *name);
static s3_xml_root_e s3_xml_root(const char *name);
static const s3_xml_value_t *s3_xml_find(s3_xml_t *x, const char *name);
static void s3_xml_store(s3_xml_t *x, const s3_xml_value_t *v);
static int s3_xml_number(const char *s, uint64_t max, uint64_t *n);
static void s3_xml_escape(s3_buf_t *out, const char *s);


static const struct {
    const char    *name;
    s3_xml_root_e  root;
} s3_xml_roots[] = {
    { "InitiateMultipartUploadResult", S3_XML_INITIATE },
    { "CompleteMultipartUploadResult", S3_XML_COMPLETE },
    { "Error", S3_XML_ERROR },
    { "ListPartsResult", S3_XML_LIST_PARTS },
    { "ListMultipartUploadsResult", S3_XML_LIST_UPLOADS }
};


#define s3_xml_reply(root, name, type, member)                               \
    { root, 2, name, type, offsetof(s3_xml_reply_t, member),                 \
      sizeof(((s3_xml_reply_t *) 0)->member) }

#define s3_xml_part(name, type, member)                                      \
    { S3_XML_LIST_PARTS, 3, name, type, offsetof(s3_xml_part_t, member),     \
      sizeof(((s3_xml_part_t *) 0)->member) }

/* size 0: the bit `truncated`, which has no address */

static const s3_xml_value_t  s3_xml_values[] = {
    s3_xml_reply(S3_XML_INITIATE, "UploadId", S3_XML_TEXT, upload_id),
    s3_xml_reply(S3_XML_COMPLETE, "ETag", S3_XML_TEXT, etag),
    s3_xml_reply(S3_XML_ERROR, "Code", S3_XML_TEXT, code),
    s3_xml_reply(S3_XML_ERROR, "Message", S3_XML_TEXT, message),
    s3_xml_reply(S3_XML_ERROR, "Region", S3_XML_TEXT, region),
    s3_xml_reply(S3_XML_ERROR, "RequestId", S3_XML_TEXT, request_id),
    s3_xml_reply(S3_XML_ERROR, "ServerTime", S3_XML_TEXT, server_time),
    s3_xml_reply(S3_XML_LIST_PARTS, "UploadId", S3_XML_TEXT, upload_id),
    s3_xml_reply(S3_XML_LIST_PARTS, "NextPartNumberMarker", S3_XML_UINT,
                 next_part),
    { S3_XML_LIST_PARTS, 2, "IsTruncated", S3_XML_BOOL, 0, 0 },
    { S3_XML_LIST_UPLOADS, 2, "IsTruncated", S3_XML_BOOL, 0, 0 },
    s3_xml_part("PartNumber", S3_XML_UINT, number),
    s3_xml_part("Size", S3_XML_UINT64, size),
    s3_xml_part("ETag", S3_XML_TEXT, etag),
    s3_xml_part("LastModified", S3_XML_TEXT, last_modified)
};


#define S3_XML_PIECES  (S3_XML_RESERVE / sizeof(s3_xml_mem_t))

static struct {
    s3_xml_mem_t  mem[S3_XML_PIECES];
    size_t        used;              /* bytes */
    unsigned      given;             /* pieces that did not come back */
} s3_xml_reserve;

static const XML_Memory_Handling_Suite  s3_xml_memory = {
    s3_xml_malloc, s3_xml_realloc, s3_xml_free
};


s3_xml_t *
s3_xml_create(s3_xml_reply_t *reply)
{
    void       *data;
    void      (*part)(void *data, const s3_xml_part_t *part);
    s3_xml_t   *x;

    part = reply->part;
    data = reply->data;

    memset(reply, 0, sizeof(s3_xml_reply_t));

    reply->part = part;
    reply->data = data;

    x = s3_xml_malloc(sizeof(s3_xml_t));
    if (x == NULL) {
        return NULL;
    }

    memset(x, 0, sizeof(s3_xml_t));

    x->reply = reply;

    /* no namespaces: a prefix that was not declared is no reason to fail */

    x->parser = XML_ParserCreate_MM(NULL, &s3_xml_memory, NULL);
    if (x->parser == NULL) {
        s3_xml_free(x);
        return NULL;
    }

    XML_SetUserData(x->parser, x);
    XML_SetElementHandler(x->parser, s3_xml_on_start, s3_xml_on_end);
    XML_SetCharacterDataHandler(x->parser, s3_xml_on_text);
    XML_SetStartDoctypeDeclHandler(x->parser, s3_xml_on_doctype);
    XML_SetDefaultHandler(x->parser, s3_xml_on_other);

    return x;
}


int
s3_xml_feed(s3_xml_t *x, const unsigned char *p, size_t len)
{
    if (x->failed) {
        return S3_ERROR;
    }

    if (len > S3_XML_MAX_DOC - x->total) {
        x->failed = 1;
        return S3_ERROR;
    }

    x->total += len;

    /* XML allows nothing in front of its declaration */

    while (!x->started && len) {
        if (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n') {
            p++;
            len--;

        } else {
            x->started = 1;
        }
    }

    if (len == 0) {
        return S3_OK;
    }

    x->silent += len;

    if (XML_Parse(x->parser, (const char *) p, (int) len, 0) != XML_STATUS_OK
        || x->silent > S3_XML_MAX_TOKEN)
    {
        x->failed = 1;
    }

    return x->failed ? S3_ERROR : S3_OK;
}


int
s3_xml_finish(s3_xml_t *x)
{
    if (x->failed) {
        return S3_ERROR;
    }

    if (XML_Parse(x->parser, "", 0, 1) != XML_STATUS_OK
        || x->failed
        || x->reply->root == S3_XML_NONE)
    {
        x->failed = 1;
        return S3_ERROR;
    }

    return S3_OK;
}


void
s3_xml_destroy(s3_xml_t *x)
{
    if (x == NULL) {
        return;
    }

    XML_ParserFree(x->parser);
    s3_xml_free(x);
}


/* from the system, or else from the reserve, which starts anew once all that
   it gave has come back */

static void *
s3_xml_malloc(size_t size)
{
    s3_xml_mem_t  *m;

    m = malloc(sizeof(s3_xml_mem_t) + size);

    if (m == NULL) {
        size += sizeof(s3_xml_mem_t) - size % sizeof(s3_xml_mem_t);

        if (size >= S3_XML_RESERVE - s3_xml_reserve.used) {
            return NULL;
        }

        m = &s3_xml_reserve.mem[s3_xml_reserve.used / sizeof(s3_xml_mem_t)];
        s3_xml_reserve.used += sizeof(s3_xml_mem_t) + size;
        s3_xml_reserve.given++;
    }

    m->size = size;

    return m + 1;
}


static void *
s3_xml_realloc(void *p, size_t size)
{
    void    *copy;
    size_t   old;

    copy = s3_xml_malloc(size);

    if (copy && p) {
        old = ((s3_xml_mem_t *) p - 1)->size;
        memcpy(copy, p, old < size ? old : size);
        s3_xml_free(p);
    }

    return copy;
}


static void
s3_xml_free(void *p)
{
    s3_xml_mem_t  *m;

    if (p == NULL) {
        return;
    }

    m = (s3_xml_mem_t *) p - 1;

    if (m < s3_xml_reserve.mem || m >= s3_xml_reserve.mem + S3_XML_PIECES) {
        free(m);
        return;
    }

    if (--s3_xml_reserve.given == 0) {
        s3_xml_reserve.used = 0;
    }
}


int
s3_xml_parse(s3_xml_reply_t *reply, const unsigned char *p, size_t len)
{
    int        rc;
    s3_xml_t  *x;

    x = s3_xml_create(reply);
    if (x == NULL) {
        return S3_ERROR;
    }

    rc = s3_xml_feed(x, p, len);

    if (rc == S3_OK) {
        rc = s3_xml_finish(x);
    }

    s3_xml_destroy(x);

    return rc;
}


void
s3_xml_complete_begin(s3_buf_t *out)
{
    s3_buf_puts(out, "<CompleteMultipartUpload"
                     " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
}


void
s3_xml_complete_part(s3_buf_t *out, unsigned number, const char *etag,
    const char *crc32)
{
    s3_buf_puts(out, "<Part><PartNumber>");
    s3_buf_put_u64(out, number);
    s3_buf_puts(out, "</PartNumber><ETag>");
    s3_xml_escape(out, etag);
    s3_buf_puts(out, "</ETag>");

    if (crc32) {
        s3_buf_puts(out, "<ChecksumCRC32>");
        s3_xml_escape(out, crc32);
        s3_buf_puts(out, "</ChecksumCRC32>");
    }

    s3_buf_puts(out, "</Part>");
}


void
s3_xml_complete_end(s3_buf_t *out)
{
    s3_buf_puts(out, "</CompleteMultipartUpload>");
}


static void XMLCALL
s3_xml_on_start(void *data, const XML_Char *name, const XML_Char **attrs)
{
    s3_xml_t  *x;

    (void) attrs;

    x = data;
    x->silent = 0;
    x->value = NULL;

    if (x->depth == S3_XML_MAX_DEPTH) {
        s3_xml_fail(x);
        return;
    }

    x->depth++;
    name = s3_xml_local_name(name);

    if (x->depth == 1) {
        x->reply->root = s3_xml_root(name);
        return;
    }

    if (x->depth == 2
        && x->reply->root == S3_XML_LIST_PARTS
        && strcmp(name, "Part") == 0)
    {
        memset(&x->part, 0, sizeof(s3_xml_part_t));
        x->in_part = 1;
        return;
    }

    x->value = s3_xml_find(x, name);
    x->len = 0;
}


static void XMLCALL
s3_xml_on_end(void *data, const XML_Char *name)
{
    s3_xml_t  *x;

    (void) name;

    x = data;
    x->silent = 0;

    /* a value's own end: a child would have cleared it */

    if (x->value) {
        s3_xml_store(x, x->value);
        x->value = NULL;
    }

    if (x->depth == 2 && x->in_part) {
        x->in_part = 0;

        if (x->reply->part && !x->failed) {
            x->reply->part(x->reply->data, &x->part);
        }
    }

    x->depth--;
}


static void XMLCALL
s3_xml_on_text(void *data, const XML_Char *s, int len)
{
    size_t     n;
    s3_xml_t  *x;

    x = data;
    x->silent = 0;

    if (x->value == NULL) {
        return;
    }

    /* one byte more than the longest value tells "too long" from "full" */

    n = sizeof(x->text) - 1 - x->len;

    if ((size_t) len < n) {
        n = (size_t) len;
    }

    memcpy(x->text + x->len, s, n);
    x->len += n;
}


static void XMLCALL
s3_xml_on_other(void *data, const XML_Char *s, int len)
{
    s3_xml_t  *x;

    (void) s;
    (void) len;

    x = data;
    x->silent = 0;
}


static void XMLCALL
s3_xml_on_doctype(void *data, const XML_Char *name, const XML_Char *system_id,
    const XML_Char *public_id, int internal)
{
    (void) name;
    (void) system_id;
    (void) public_id;
    (void) internal;

    s3_xml_fail(data);
}


static void
s3_xml_fail(s3_xml_t *x)
{
    x->failed = 1;
    (void) XML_StopParser(x->parser, XML_FALSE);
}


static const char *
s3_xml_local_name(const char *name)
{
    const char  *colon;

    colon = strrchr(name, ':');

    return colon ? colon + 1 : name;
}


static s3_xml_root_e
s3_xml_root(const char *name)
{
    size_t  i;

    for (i = 0; i < sizeof(s3_xml_roots) / sizeof(s3_xml_roots[0]); i++) {
        if (strcmp(name, s3_xml_roots[i].name) == 0) {
            return s3_xml_roots[i].root;
        }
    }

    return S3_XML_OTHER;
}


static const s3_xml_value_t *
s3_xml_find(s3_xml_t *x, const char *name)
{
    size_t                 i;
    const s3_xml_value_t  *v;

    if (x->depth == 3 && !x->in_part) {
        return NULL;
    }

    for (i = 0; i < sizeof(s3_xml_values) / sizeof(s3_xml_values[0]); i++) {
        v = &s3_xml_values[i];

        if (v->root == x->reply->root
            && v->depth == x->depth
            && strcmp(v->name, name) == 0)
        {
            return v;
        }
    }

    return NULL;
}


static void
s3_xml_store(s3_xml_t *x, const s3_xml_value_t *v)
{
    char      *dst;
    uint64_t   n;

    x->text[x->len] = '\0';

    if (v->type == S3_XML_BOOL) {
        x->reply->truncated = (strcmp(x->text, "true") == 0);
        return;
    }

    dst = (v->depth == 3) ? (char *) &x->part : (char *) x->reply;
    dst += v->offset;

    if (v->type == S3_XML_TEXT) {

        if (x->len >= v->size) {
            x->reply->too_long = 1;
            *dst = '\0';
            return;
        }

        memcpy(dst, x->text, x->len + 1);
        return;
    }

    if (s3_xml_number(x->text,
                      v->type == S3_XML_UINT ? UINT32_MAX : UINT64_MAX, &n)
        != S3_OK)
    {
        s3_xml_fail(x);
        return;
    }

    if (v->type == S3_XML_UINT) {
        *(unsigned *) (void *) dst = (unsigned) n;

    } else {
        *(uint64_t *) (void *) dst = n;
    }
}


/* decimal digits; an empty element counts as 0, as look-alikes send it */

static int
s3_xml_number(const char *s, uint64_t max, uint64_t *n)
{
    if (*s == '\0') {
        *n = 0;
        return S3_OK;
    }

    return s3_str_u64(s3_str(s), max, n);
}


static void
s3_xml_escape(s3_buf_t *out, const char *s)
{
    for ( /* void */ ; *s; s++) {

        switch (*s) {

        case '&':
            s3_buf_puts(out, "&amp;");
            break;

        case '<':
            s3_buf_puts(out, "&lt;");
            break;

        case '>':
            s3_buf_puts(out, "&gt;");
            break;

        case '"':
            s3_buf_puts(out, "&quot;");
            break;

        default:
            /* XML 1.0 cannot name control characters */

            s3_buf_putc(out, (unsigned char) *s < 0x20 ? '?' : *s);
        }
    }
}
