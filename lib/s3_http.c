#include "s3_http.h"

#include <string.h>


/* interim replies before the final one: a peer that sends more is broken */

#define S3_HTTP_MAX_INTERIM  16

typedef enum {
    S3_HTTP_STATUS = 0,
    S3_HTTP_FIELD,
    S3_HTTP_LENGTH,                  /* body of `left` more bytes */
    S3_HTTP_CLOSE,                   /* body up to the end of the connection */
    S3_HTTP_CHUNK_SIZE,
    S3_HTTP_CHUNK,                   /* `left` more bytes of a chunk */
    S3_HTTP_CHUNK_END,               /* the line end after a chunk's data */
    S3_HTTP_TRAILER,
    S3_HTTP_DONE,
    S3_HTTP_FAILED
} s3_http_state_e;

/* h->flags; the count of interim replies is in the bits above them */

#define S3_HTTP_10           0x0001
#define S3_HTTP_CONN_CLOSE   0x0002
#define S3_HTTP_CONN_KEEP    0x0004
#define S3_HTTP_HAS_CODING   0x0008
#define S3_HTTP_CUT          0x0010  /* the line is longer than its room */
#define S3_HTTP_INTERIM      0x0100


static int s3_http_error(s3_http_t *h, const char *err);
static int s3_http_line(s3_http_t *h, const unsigned char **p,
    const unsigned char *end);
static int s3_http_line_byte_check(s3_http_t *h);
static int s3_http_status_line(s3_http_t *h);
static int s3_http_field_line(s3_http_t *h);
static int s3_http_long_field(s3_http_t *h, s3_str_t name);
static int s3_http_field(s3_http_t *h, s3_str_t name, s3_str_t value);
static int s3_http_content_length(s3_http_t *h, s3_str_t value);
static int s3_http_head_end(s3_http_t *h);
static int s3_http_no_body(s3_http_t *h);
static int s3_http_chunk_size(s3_http_t *h);
static int s3_http_body(s3_http_t *h, const unsigned char **p,
    const unsigned char *end);
static int s3_http_list(s3_str_t *list, s3_str_t *item);
static s3_str_t s3_http_trim(s3_str_t s);


void
s3_http_init(s3_http_t *h, int head,
    int (*field)(void *data, s3_str_t name, s3_str_t value),
    int (*body)(void *data, const unsigned char *p, size_t len), void *data)
{
    /* all but the line, which is large and is written before it is read */

    memset(h, 0, offsetof(s3_http_t, line));

    h->field = field;
    h->body = body;
    h->data = data;
    h->head = (head != 0);
    h->content_length = -1;
    h->state = S3_HTTP_STATUS;
}


int
s3_http_feed(s3_http_t *h, const unsigned char *p, size_t len, size_t *used)
{
    int                   rc;
    const unsigned char  *start, *end;

    start = p;
    end = p + len;
    rc = S3_OK;

    if (len != 0) {
        h->started = 1;
    }

    while (h->state < S3_HTTP_DONE && p != end && rc == S3_OK) {

        if (h->state == S3_HTTP_LENGTH || h->state == S3_HTTP_CLOSE
            || h->state == S3_HTTP_CHUNK)
        {
            rc = s3_http_body(h, &p, end);
            continue;
        }

        rc = s3_http_line(h, &p, end);

        if (rc != S3_OK) {
            break;
        }

        switch (h->state) {

        case S3_HTTP_STATUS:
            rc = s3_http_status_line(h);
            break;

        case S3_HTTP_FIELD:
        case S3_HTTP_TRAILER:
            rc = s3_http_field_line(h);
            break;

        case S3_HTTP_CHUNK_SIZE:
            rc = s3_http_chunk_size(h);
            break;

        default: /* S3_HTTP_CHUNK_END */
            if (h->line_len != 0) {
                rc = s3_http_error(h, "chunk is longer than its size");
                break;
            }

            h->state = S3_HTTP_CHUNK_SIZE;
        }

        h->line_len = 0;
    }

    *used = p - start;

    if (h->state == S3_HTTP_FAILED) {
        return S3_ERROR;
    }

    if (h->state == S3_HTTP_DONE) {

        /* bytes that no request asked for: the next reply would not be ours */

        if (p != end) {
            h->keepalive = 0;
        }

        return S3_OK;
    }

    return S3_AGAIN;
}


int
s3_http_eof(s3_http_t *h)
{
    h->keepalive = 0;

    switch (h->state) {

    case S3_HTTP_DONE:
        return S3_OK;

    case S3_HTTP_CLOSE:
        h->state = S3_HTTP_DONE;
        return S3_OK;

    case S3_HTTP_FAILED:
        return S3_ERROR;

    case S3_HTTP_STATUS:
    case S3_HTTP_FIELD:
        return s3_http_error(h, h->started
                                ? "connection closed within the reply's head"
                                : "connection closed before a reply");

    default:
        return s3_http_error(h, "connection closed within the reply's body");
    }
}


static int
s3_http_error(s3_http_t *h, const char *err)
{
    h->err = err;
    h->state = S3_HTTP_FAILED;
    h->keepalive = 0;

    return S3_ERROR;
}


/* Collects a line into h->line without its end. S3_OK: it is whole, or its
   beginning is there and the flag S3_HTTP_CUT is set. */

static int
s3_http_line(s3_http_t *h, const unsigned char **p, const unsigned char *end)
{
    size_t                n, room;
    const unsigned char  *lf;

    lf = memchr(*p, '\n', end - *p);
    n = ((lf == NULL) ? end : lf) - *p;

    room = S3_HTTP_MAX_LINE - h->line_len;

    if (n > room) {

        if (h->state != S3_HTTP_FIELD && h->state != S3_HTTP_TRAILER) {
            return s3_http_error(h, "too long line in reply");
        }

        h->flags |= S3_HTTP_CUT;

    } else {
        room = n;
    }

    memcpy(h->line + h->line_len, *p, room);
    h->line_len += room;
    *p += n;

    if (h->state == S3_HTTP_STATUS || h->state == S3_HTTP_FIELD
        || h->state == S3_HTTP_TRAILER)
    {
        h->head_size += n + (lf != NULL);

        if (h->head_size > S3_HTTP_MAX_HEAD) {
            return s3_http_error(h, "too large head of reply");
        }
    }

    if (lf == NULL) {
        return S3_AGAIN;
    }

    (*p)++;

    if (h->line_len != 0 && h->line[h->line_len - 1] == '\r'
        && (h->flags & S3_HTTP_CUT) == 0)
    {
        h->line_len--;
    }

    return s3_http_line_byte_check(h);
}


static int
s3_http_line_byte_check(s3_http_t *h)
{
    size_t  i;

    for (i = 0; i < h->line_len; i++) {
        if ((h->line[i] < 0x20 && h->line[i] != '\t') || h->line[i] == 0x7f) {
            return s3_http_error(h, "control byte in head of reply");
        }
    }

    return S3_OK;
}


/* RFC 9112, 4: "HTTP/1.1 200 OK"; the reason may be missing */

static int
s3_http_status_line(s3_http_t *h)
{
    unsigned char  *s;

    s = h->line;

    if (h->line_len < 12 || memcmp(s, "HTTP/1.", 7) != 0
        || s[7] < '0' || s[7] > '9' || s[8] != ' '
        || s[9] < '1' || s[9] > '5'
        || s[10] < '0' || s[10] > '9' || s[11] < '0' || s[11] > '9'
        || (h->line_len > 12 && s[12] != ' '))
    {
        return s3_http_error(h, "not an HTTP/1 reply");
    }

    h->status = (s[9] - '0') * 100 + (s[10] - '0') * 10 + (s[11] - '0');

    if (h->status == 101) {
        return s3_http_error(h, "unexpected switch of protocols");
    }

    if (s[7] == '0') {
        h->flags |= S3_HTTP_10;
    }

    h->state = S3_HTTP_FIELD;

    return S3_OK;
}


/* a field of the head, or of the trailer, which is checked and dropped */

static int
s3_http_field_line(s3_http_t *h)
{
    size_t    i;
    s3_str_t  name, value;

    if (h->line_len == 0) {

        if (h->state == S3_HTTP_TRAILER) {
            h->state = S3_HTTP_DONE;
            return S3_OK;
        }

        return s3_http_head_end(h);
    }

    if (++h->fields > S3_HTTP_MAX_FIELDS) {
        return s3_http_error(h, "too many fields in reply");
    }

    if (h->line[0] == ' ' || h->line[0] == '\t') {
        return s3_http_error(h, "folded field in reply");
    }

    for (i = 0; i < h->line_len && s3_str_tchar(h->line[i]); i++) {
        if (h->line[i] >= 'A' && h->line[i] <= 'Z') {
            h->line[i] |= 0x20;
        }
    }

    if (i == 0 || i == h->line_len || h->line[i] != ':') {
        return s3_http_error(h, "malformed field in reply");
    }

    name.data = h->line;
    name.len = i;

    if (h->flags & S3_HTTP_CUT) {
        return s3_http_long_field(h, name);
    }

    if (h->state == S3_HTTP_TRAILER || h->status < 200) {
        return S3_OK;
    }

    value.data = h->line + i + 1;
    value.len = h->line_len - i - 1;
    value = s3_http_trim(value);

    if (s3_http_field(h, name, value) != S3_OK) {
        return S3_ERROR;
    }

    if (h->field != NULL && h->field(h->data, name, value) != S3_OK) {
        return s3_http_error(h, "field was not accepted");
    }

    return S3_OK;
}


/* It is left out: an object's metadata, say, which is no concern of ours. But
   nobody may be misled about where the reply ends. */

static int
s3_http_long_field(s3_http_t *h, s3_str_t name)
{
    h->flags &= ~S3_HTTP_CUT;

    if (s3_str_eqs(name, "content-length") || s3_str_eqs(name, "connection")
        || s3_str_eqs(name, "transfer-encoding"))
    {
        return s3_http_error(h, "too long line in reply");
    }

    return S3_OK;
}


/* the fields that frame the message */

static int
s3_http_field(s3_http_t *h, s3_str_t name, s3_str_t value)
{
    s3_str_t  item;

    if (s3_str_eqs(name, "content-length")) {
        return s3_http_content_length(h, value);
    }

    if (s3_str_eqs(name, "connection")) {

        while (s3_http_list(&value, &item)) {
            if (s3_str_case_eqs(item, "close")) {
                h->flags |= S3_HTTP_CONN_CLOSE;

            } else if (s3_str_case_eqs(item, "keep-alive")) {
                h->flags |= S3_HTTP_CONN_KEEP;
            }
        }

        return S3_OK;
    }

    if (s3_str_eqs(name, "transfer-encoding")) {

        while (s3_http_list(&value, &item)) {

            if (item.len == 0) {
                continue;
            }

            if ((h->flags & S3_HTTP_HAS_CODING)
                || !s3_str_case_eqs(item, "chunked"))
            {
                return s3_http_error(h, "unknown transfer coding in reply");
            }

            h->flags |= S3_HTTP_HAS_CODING;
        }
    }

    return S3_OK;
}


/* RFC 9110, 8.6: a list of equal numbers, or a repeated field, is one */

static int
s3_http_content_length(s3_http_t *h, s3_str_t value)
{
    uint64_t  n;
    s3_str_t  item;

    while (s3_http_list(&value, &item)) {

        if (s3_str_u64(item, INT64_MAX, &n) != S3_OK) {
            return s3_http_error(h, "malformed Content-Length in reply");
        }

        if (h->content_length != -1 && h->content_length != (int64_t) n) {
            return s3_http_error(h, "conflicting Content-Length in reply");
        }

        h->content_length = (int64_t) n;
    }

    return S3_OK;
}


/* RFC 9112, 6.3 and 9.3 */

static int
s3_http_head_end(s3_http_t *h)
{
    if (h->status < 200) {

        h->flags += S3_HTTP_INTERIM;

        if (h->flags / S3_HTTP_INTERIM > S3_HTTP_MAX_INTERIM) {
            return s3_http_error(h, "too many interim replies");
        }

        h->flags &= ~S3_HTTP_10;
        h->fields = 0;
        h->status = 0;
        h->state = S3_HTTP_STATUS;

        return S3_OK;
    }

    h->head_done = 1;
    h->fields = 0;

    h->keepalive = (h->flags & S3_HTTP_CONN_CLOSE) == 0
                   && ((h->flags & S3_HTTP_10) == 0
                       || (h->flags & S3_HTTP_CONN_KEEP));

    if (h->flags & S3_HTTP_HAS_CODING) {

        /* two framings, or one that the version does not have: whoever sent
           this must not be trusted with the end of the message */

        if (h->content_length != -1 || (h->flags & S3_HTTP_10)) {
            h->keepalive = 0;
        }

        h->content_length = -1;
        h->chunked = 1;
    }

    if (s3_http_no_body(h)) {
        h->state = S3_HTTP_DONE;

    } else if (h->chunked) {
        h->state = S3_HTTP_CHUNK_SIZE;

    } else if (h->content_length == -1) {
        h->state = S3_HTTP_CLOSE;
        h->close_delimited = 1;
        h->keepalive = 0;

    } else {
        h->left = h->content_length;
        h->state = h->left ? S3_HTTP_LENGTH : S3_HTTP_DONE;
    }

    return S3_OK;
}


static int
s3_http_no_body(s3_http_t *h)
{
    if (h->status == 204) {

        /* a peer that announces a body here may send it, too */

        if (h->chunked || h->content_length > 0) {
            h->keepalive = 0;
        }

        return 1;
    }

    return h->head || h->status == 304;
}


/* RFC 9112, 7.1; extensions are dropped */

static int
s3_http_chunk_size(s3_http_t *h)
{
    size_t         i;
    uint64_t       n;
    unsigned char  c;

    n = 0;

    for (i = 0; i < h->line_len; i++) {
        c = h->line[i];

        if (c >= '0' && c <= '9') {
            c -= '0';

        } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
            c = (c | 0x20) - 'a' + 10;

        } else {
            break;
        }

        if (n > (INT64_MAX >> 4)) {
            return s3_http_error(h, "too large chunk in reply");
        }

        n = n << 4 | c;
    }

    if (i == 0) {
        return s3_http_error(h, "malformed chunk size in reply");
    }

    while (i < h->line_len && (h->line[i] == ' ' || h->line[i] == '\t')) {
        i++;
    }

    if (i < h->line_len && h->line[i] != ';') {
        return s3_http_error(h, "malformed chunk size in reply");
    }

    h->left = n;
    h->state = n ? S3_HTTP_CHUNK : S3_HTTP_TRAILER;

    return S3_OK;
}


static int
s3_http_body(s3_http_t *h, const unsigned char **p, const unsigned char *end)
{
    size_t                n;
    const unsigned char  *data;

    data = *p;
    n = end - data;

    if (h->state != S3_HTTP_CLOSE) {

        if (n > h->left) {
            n = (size_t) h->left;
        }

        h->left -= n;

        if (h->left == 0) {
            h->state = (h->state == S3_HTTP_CHUNK) ? S3_HTTP_CHUNK_END
                                                   : S3_HTTP_DONE;
        }
    }

    *p += n;

    if (h->body != NULL && h->body(h->data, data, n) != S3_OK) {
        return s3_http_error(h, "body was not accepted");
    }

    return S3_OK;
}


/* takes the next item off a comma-separated list; 0: there is none */

static int
s3_http_list(s3_str_t *list, s3_str_t *item)
{
    const unsigned char  *comma;

    if (list->data == NULL) {
        return 0;
    }

    comma = (list->len == 0) ? NULL : memchr(list->data, ',', list->len);

    item->data = list->data;

    if (comma == NULL) {
        item->len = list->len;
        list->data = NULL;
        list->len = 0;

    } else {
        item->len = comma - list->data;
        list->len -= item->len + 1;
        list->data = comma + 1;
    }

    *item = s3_http_trim(*item);

    return 1;
}


static s3_str_t
s3_http_trim(s3_str_t s)
{
    while (s.len != 0 && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s.data++;
        s.len--;
    }

    while (s.len != 0
           && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
    {
        s.len--;
    }

    return s;
}
