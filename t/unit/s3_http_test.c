/*
 * Every reply is fed whole, cut at each point, and byte by byte, each piece
 * from memory of exactly its size; the result has to be the same.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "s3_http.h"


#define LOG_MAX  4096

#define HEAD     0x01                /* the request was HEAD */
#define CLOSED   0x02                /* the peer closes after the text */
#define ALIVE    0x04                /* the connection can be kept */
#define CHUNKED  0x08

#define OK       "HTTP/1.1 200 OK\r\n"


typedef struct {
    const char  *name;
    const char  *text;
    unsigned     flags;
    int          rc;
    unsigned     status;
    int64_t      length;
    const char  *log;                /* "name=value;" for each field, then
                                        "|" and the body */
    size_t       rest;               /* bytes after the reply */
} reply_t;

typedef struct {
    s3_http_t             http;
    char                  log[LOG_MAX];
    s3_buf_t              buf;
    unsigned              in_body:1;
    const unsigned char  *piece;
    size_t                piece_len;
    unsigned              stop_field;
    unsigned              stop_body;
    unsigned              fields;
    unsigned              bodies;
} reader_t;


static const reply_t  good[] = {

    { "length", OK "Content-Length: 5\r\nETag: \"x\"\r\n\r\nhello",
      ALIVE, S3_OK, 200, 5, "content-length=5;etag=\"x\";|hello", 0 },

    { "no body", OK "content-length:0\r\n\r\n",
      ALIVE, S3_OK, 200, 0, "content-length=0;", 0 },

    { "bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
      ALIVE, S3_OK, 200, 2, "content-length=2;|ok", 0 },

    { "no reason", "HTTP/1.1 403 \r\nContent-Length: 1\r\n\r\nx",
      ALIVE, S3_OK, 403, 1, "content-length=1;|x", 0 },

    { "no reason, no space", "HTTP/1.1 500\r\nContent-Length: 1\r\n\r\nx",
      ALIVE, S3_OK, 500, 1, "content-length=1;|x", 0 },

    { "reason of any text",
      "HTTP/1.1 404 Not \xc3\xbc Found\t!\r\nContent-Length: 0\r\n\r\n",
      ALIVE, S3_OK, 404, 0, "content-length=0;", 0 },

    { "spaces around values",
      OK "A:\t b  c \t\r\nB:\r\nC:  \r\nContent-Length:\t 1 \r\n\r\nx",
      ALIVE, S3_OK, 200, 1, "a=b  c;b=;c=;content-length=1;|x", 0 },

    { "all name bytes", OK "!#$%&'*+-.^_`|~0Az: 1\r\nContent-Length: 0\r\n\r\n",
      ALIVE, S3_OK, 200, 0, "!#$%&'*+-.^_`|~0az=1;content-length=0;", 0 },

    { "value with colons and bytes over 127",
      OK "x: a:b\xff\xc3\xbc\r\nContent-Length: 0\r\n\r\n",
      ALIVE, S3_OK, 200, 0, "x=a:b\xff\xc3\xbc;content-length=0;", 0 },

    { "equal lengths", OK "Content-Length: 2\r\nContent-Length: 2, 2\r\n\r\nok",
      ALIVE, S3_OK, 200, 2, "content-length=2;content-length=2, 2;|ok", 0 },

    { "largest length", OK "Content-Length: 9223372036854775807\r\n\r\nok",
      ALIVE, S3_AGAIN, 200, INT64_MAX,
      "content-length=9223372036854775807;|ok", 0 },

    { "bytes after the reply", OK "Content-Length: 2\r\n\r\nokHTTP/1.1 200",
      0, S3_OK, 200, 2, "content-length=2;|ok", 12 },

    { "Connection: close",
      OK "Connection: foo, Close\r\nContent-Length: 2\r\n\r\nok",
      0, S3_OK, 200, 2, "connection=foo, Close;content-length=2;|ok", 0 },

    { "close wins",
      OK "Connection: keep-alive\r\nConnection: close\r\n"
      "Content-Length: 0\r\n\r\n",
      0, S3_OK, 200, 0,
      "connection=keep-alive;connection=close;content-length=0;", 0 },

    { "HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
      0, S3_OK, 200, 2, "content-length=2;|ok", 0 },

    { "HTTP/1.0 keep-alive",
      "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n"
      "\r\nok",
      ALIVE, S3_OK, 200, 2,
      "connection=Keep-Alive;content-length=2;|ok", 0 },

    { "closed", OK "A: b\r\n\r\nhello world",
      CLOSED, S3_OK, 200, -1, "a=b;|hello world", 0 },

    { "closed at once", OK "\r\n", CLOSED, S3_OK, 200, -1, "", 0 },

    { "closed, HTTP/1.0 keep-alive",
      "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nx",
      CLOSED, S3_OK, 200, -1, "connection=keep-alive;|x", 0 },

    { "HEAD", OK "Content-Length: 9029243448\r\n\r\n",
      HEAD|ALIVE, S3_OK, 200, 9029243448LL,
      "content-length=9029243448;", 0 },

    { "HEAD without length", "HTTP/1.1 404 Not Found\r\n\r\n",
      HEAD|ALIVE, S3_OK, 404, -1, "", 0 },

    { "HEAD, chunked", OK "Transfer-Encoding: chunked\r\n\r\n",
      HEAD|ALIVE|CHUNKED, S3_OK, 200, -1, "transfer-encoding=chunked;", 0 },

    { "204", "HTTP/1.1 204 No Content\r\n\r\n",
      ALIVE, S3_OK, 204, -1, "", 0 },

    { "204 with a length of 0",
      "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
      ALIVE, S3_OK, 204, 0, "content-length=0;", 0 },

    { "204 that announces a body",
      "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
      0, S3_OK, 204, 3, "content-length=3;", 0 },

    { "204 that announces chunks",
      "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
      CHUNKED, S3_OK, 204, -1, "transfer-encoding=chunked;", 0 },

    { "304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
      ALIVE, S3_OK, 304, 10, "content-length=10;", 0 },

    { "interim replies",
      "HTTP/1.1 100 Continue\r\n\r\n"
      "HTTP/1.1 103 Early Hints\r\nLink: a\r\nContent-Length: 9\r\n"
      "Connection: close\r\n\r\n"
      OK "Content-Length: 2\r\n\r\nok",
      ALIVE, S3_OK, 200, 2, "content-length=2;|ok", 0 },

    { "interim reply of HTTP/1.0",
      "HTTP/1.0 100 Continue\r\n\r\n" OK "Content-Length: 2\r\n\r\nok",
      ALIVE, S3_OK, 200, 2, "content-length=2;|ok", 0 },

    { "chunks",
      OK "Transfer-Encoding: chunked\r\n\r\n"
      "5\r\nhello\r\n1\r\n \r\n00000A\r\n0123456789\r\n0\r\n\r\n",
      ALIVE|CHUNKED, S3_OK, 200, -1,
      "transfer-encoding=chunked;|hello 0123456789", 0 },

    { "chunks with extensions and trailers",
      OK "transfer-encoding: CHUNKED\r\n\r\n"
      "b;a=b;c=\"d;e\"\r\nhello world\r\n1 \t;x\r\n!\r\n0;end\r\n"
      "X-Amz-Checksum: a\r\nB: c\r\n\r\n",
      ALIVE|CHUNKED, S3_OK, 200, -1,
      "transfer-encoding=CHUNKED;|hello world!", 0 },

    { "chunks with bare LF",
      OK "Transfer-Encoding: chunked\n\n3\nabc\n0\n\n",
      ALIVE|CHUNKED, S3_OK, 200, -1, "transfer-encoding=chunked;|abc", 0 },

    { "chunk data that looks like framing",
      OK "Transfer-Encoding: chunked\r\n\r\n"
      "9\r\n\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n",
      ALIVE|CHUNKED, S3_OK, 200, -1,
      "transfer-encoding=chunked;|\r\n0\r\n\r\n\r\n", 0 },

    { "no chunk", OK "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ALIVE|CHUNKED, S3_OK, 200, -1, "transfer-encoding=chunked;", 0 },

    { "empty items in lists",
      OK "Transfer-Encoding: , chunked ,\r\nConnection: ,,\r\n\r\n0\r\n\r\n",
      ALIVE|CHUNKED, S3_OK, 200, -1,
      "transfer-encoding=, chunked ,;connection=,,;", 0 },

    { "chunks and a length",
      OK "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
      "2\r\nok\r\n0\r\n\r\n",
      CHUNKED, S3_OK, 200, -1,
      "content-length=3;transfer-encoding=chunked;|ok", 0 },

    { "chunks in HTTP/1.0",
      "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"
      "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
      CHUNKED, S3_OK, 200, -1,
      "connection=keep-alive;transfer-encoding=chunked;|ok", 0 },

    { "white space, then a document",
      OK "Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n1\r\n\n\r\n"
      "8\r\n<Error/>\r\n0\r\n\r\n",
      ALIVE|CHUNKED, S3_OK, 200, -1,
      "transfer-encoding=chunked;| \n<Error/>", 0 }
};


/* each is refused, and not before its last byte but for closed ones */

static const reply_t  bad[] = {
    { "not HTTP", "<html><body>\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "empty line", "\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "HTTP/2", "HTTP/2.0 200 OK\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "lower case", "http/1.1 200 OK\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "short", "HTTP/1.1 20\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "long", "HTTP/1.1 2000\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "letters", "HTTP/1.1 2x0 OK\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "two spaces", "HTTP/1.1  200 OK\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "status 000", "HTTP/1.1 000 OK\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "status 600", "HTTP/1.1 600 OK\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "status 101", "HTTP/1.1 101 Switching\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "space first", " HTTP/1.1 200 OK\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "control in status line", "HTTP/1.1 200 O\x01K\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },

    { "no colon", OK "abc\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "no name", OK ": abc\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "space before colon", OK "a : b\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "space in name", OK "a b: c\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "byte over 127 in name", OK "a\xc3\xbc: c\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "fold", OK "a: b\r\n c\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "fold with tab", OK "a: b\r\n\tc\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "fold first", OK " c\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "control in value", OK "a: b\x1f\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "DEL in value", OK "a: b\x7f\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "bare CR", OK "a: b\rc\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "two CR", OK "a: b\r\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },

    { "length empty", OK "Content-Length:\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "length signed", OK "Content-Length: +1\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "length negative", OK "Content-Length: -1\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "length hex", OK "Content-Length: 0x1\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "length with space", OK "Content-Length: 1 1\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "length too large", OK "Content-Length: 9223372036854775808\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "length 2^64", OK "Content-Length: 18446744073709551616\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "lengths in a list", OK "Content-Length: 1, 2\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "lengths, one empty", OK "Content-Length: 1,\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "lengths that differ", OK "Content-Length: 1\r\nContent-Length: 2\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },

    { "coding", OK "Transfer-Encoding: gzip\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "coding before chunks", OK "Transfer-Encoding: gzip, chunked\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "chunked twice", OK "Transfer-Encoding: chunked, chunked\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "chunked in two fields",
      OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },

#define CHUNKS  OK "Transfer-Encoding: chunked\r\n\r\n"

    { "chunk without size", CHUNKS "\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "chunk size not hex", CHUNKS "g\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "chunk size signed", CHUNKS "-1\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "chunk size 0x", CHUNKS "0x1\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "chunk size, space first", CHUNKS " 1\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "chunk size, two", CHUNKS "1 1\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "chunk size 2^63", CHUNKS "8000000000000000\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "chunk size 2^64", CHUNKS "10000000000000000\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "chunk size wraps to 2", CHUNKS "10000000000000002\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "chunk too long", CHUNKS "1\r\nab\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "control in extension", CHUNKS "1;a\x02\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },
    { "malformed trailer", CHUNKS "0\r\nabc\r\n", 0, S3_ERROR, 0, 0, NULL, 0 },
    { "folded trailer", CHUNKS "0\r\na: b\r\n c\r\n",
      0, S3_ERROR, 0, 0, NULL, 0 },

    { "closed before a byte", "", CLOSED, S3_ERROR, 0, 0, NULL, 0 },
    { "closed in status line", "HTTP/1.1 2", CLOSED, S3_ERROR, 0, 0, NULL, 0 },
    { "closed in head", OK "a: b\r\n", CLOSED, S3_ERROR, 0, 0, NULL, 0 },
    { "closed after interim", "HTTP/1.1 100 Continue\r\n\r\n",
      CLOSED, S3_ERROR, 0, 0, NULL, 0 },
    { "closed before body", OK "Content-Length: 2\r\n\r\n",
      CLOSED, S3_ERROR, 0, 0, NULL, 0 },
    { "closed in body", OK "Content-Length: 2\r\n\r\no",
      CLOSED, S3_ERROR, 0, 0, NULL, 0 },
    { "closed before chunks", CHUNKS, CLOSED, S3_ERROR, 0, 0, NULL, 0 },
    { "closed in chunk size", CHUNKS "1", CLOSED, S3_ERROR, 0, 0, NULL, 0 },
    { "closed in chunk", CHUNKS "2\r\na", CLOSED, S3_ERROR, 0, 0, NULL, 0 },
    { "closed after chunk", CHUNKS "1\r\na", CLOSED, S3_ERROR, 0, 0, NULL, 0 },
    { "closed between chunks", CHUNKS "1\r\na\r\n",
      CLOSED, S3_ERROR, 0, 0, NULL, 0 },
    { "closed in trailer", CHUNKS "0\r\n", CLOSED, S3_ERROR, 0, 0, NULL, 0 },
    { "closed in trailer field", CHUNKS "0\r\na: b\r\n",
      CLOSED, S3_ERROR, 0, 0, NULL, 0 }
};


static int
on_field(void *data, s3_str_t name, s3_str_t value)
{
    reader_t  *r;

    r = data;

    assert_false(r->in_body);

    s3_buf_put_str(&r->buf, name);
    s3_buf_putc(&r->buf, '=');
    s3_buf_put_str(&r->buf, value);
    s3_buf_putc(&r->buf, ';');

    return (++r->fields == r->stop_field) ? S3_ERROR : S3_OK;
}


static int
on_body(void *data, const unsigned char *p, size_t len)
{
    reader_t  *r;

    r = data;

    assert_true(len != 0);
    assert_true(r->http.head_done);

    /* no copy: a slice of what was fed */

    assert_true(p >= r->piece && p + len <= r->piece + r->piece_len);

    if (!r->in_body) {
        s3_buf_putc(&r->buf, '|');
        r->in_body = 1;
    }

    s3_buf_put(&r->buf, p, len);

    return (++r->bodies == r->stop_body) ? S3_ERROR : S3_OK;
}


static void
start(reader_t *r, int head)
{
    memset(r, 0, sizeof(reader_t));

    /* what the memory held before does not matter */

    memset(&r->http, 0xa5, sizeof(r->http));

    s3_buf_init(&r->buf, r->log, LOG_MAX - 1);
    s3_http_init(&r->http, head, on_field, on_body, r);
}


static int
feed(reader_t *r, const char *p, size_t len, size_t *used)
{
    int             rc;
    unsigned char  *copy;

    copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, p, len);

    r->piece = copy;
    r->piece_len = len;

    rc = s3_http_feed(&r->http, copy, len, used);

    free(copy);

    assert_true(*used <= len);

    if (rc == S3_AGAIN) {
        assert_int_equal(*used, len);
    }

    return rc;
}


/* the text in pieces: up to cut, then the rest in steps of `step` bytes */

static int
read_reply(reader_t *r, const reply_t *t, size_t cut, size_t step,
    size_t *total)
{
    int     rc;
    size_t  n, len, used;

    start(r, t->flags & HEAD);

    len = strlen(t->text);
    *total = 0;
    rc = S3_AGAIN;

    while (*total < len && rc == S3_AGAIN) {

        n = (*total < cut) ? cut : step;
        n = (n > len - *total) ? len - *total : n;

        rc = feed(r, t->text + *total, n, &used);
        *total += used;
    }

    if (rc == S3_AGAIN && (t->flags & CLOSED)) {
        rc = s3_http_eof(&r->http);
    }

    return rc;
}


static void
check(const reply_t *t, size_t cut, size_t step)
{
    int        rc;
    size_t     total, used;
    reader_t  *r;

    r = test_malloc(sizeof(reader_t));

    rc = read_reply(r, t, cut, step, &total);

    if (rc != t->rc) {
        fail_msg("%s, cut at %u, step %u: %d (%s)", t->name, (unsigned) cut,
                 (unsigned) step, rc, rc == S3_ERROR ? r->http.err : "");
    }

    if (rc == S3_ERROR) {
        assert_non_null(r->http.err);
        assert_false(r->http.keepalive);
        assert_int_equal(s3_http_eof(&r->http), S3_ERROR);
        assert_int_equal(feed(r, "HTTP", 4, &total), S3_ERROR);
        test_free(r);
        return;
    }

    *r->buf.pos = '\0';

    assert_string_equal(r->log, t->log);
    assert_int_equal(r->http.head_done, 1);
    assert_int_equal(r->http.status, t->status);
    assert_int_equal(r->http.content_length, t->length);
    assert_int_equal(r->http.chunked, (t->flags & CHUNKED) != 0);
    assert_int_equal(r->http.close_delimited, (t->flags & CLOSED) != 0);

    if (rc == S3_OK) {
        assert_int_equal(total + t->rest, strlen(t->text));
        assert_int_equal(feed(r, t->text + total, t->rest, &used), S3_OK);
        assert_int_equal(used, 0);
    }

    assert_int_equal(r->http.keepalive, (t->flags & ALIVE) != 0);

    if (rc == S3_OK) {
        assert_int_equal(feed(r, "", 0, &total), S3_OK);
        assert_int_equal(s3_http_eof(&r->http), S3_OK);
        assert_false(r->http.keepalive);
    }

    test_free(r);
}


static void
test_reply(void **state)
{
    size_t          i, len;
    const reply_t  *t;

    t = *state;
    len = strlen(t->text);

    check(t, len, len + 1);

    for (i = 0; i < len; i++) {
        check(t, i, len + 1);
    }

    for (i = 1; i < 5; i++) {
        check(t, 0, i);
    }
}


static void
test_bad(void **state)
{
    size_t          total;
    reader_t       *r;
    const reply_t  *t;

    t = *state;
    test_reply(state);

    /* all but the last byte are no error yet */

    if ((t->flags & CLOSED) == 0) {
        r = test_malloc(sizeof(reader_t));
        start(r, 0);
        assert_int_equal(feed(r, t->text, strlen(t->text) - 1, &total),
                         S3_AGAIN);
        test_free(r);
    }
}


/* every byte where a NUL or another control byte has no place */

static void
test_control_bytes(void **state)
{
    int        c;
    char       text[64];
    size_t     i, len, used;
    reader_t  *r;

    (void) state;

    r = test_malloc(sizeof(reader_t));

    len = strlen(OK "Aa: bb\r\n");

    for (c = 0; c < 0x20; c++) {

        if (c == '\t' || c == '\n' || c == '\r') {
            continue;
        }

        for (i = 0; i < len; i++) {
            memcpy(text, OK "Aa: bb\r\n", len);

            if (text[i] == '\n') {
                continue;
            }

            text[i] = (char) c;
            start(r, 0);
            assert_int_equal(feed(r, text, len, &used), S3_ERROR);
        }
    }

    test_free(r);
}


static void
test_started(void **state)
{
    size_t     used;
    reader_t  *r;

    (void) state;

    r = test_malloc(sizeof(reader_t));

    start(r, 0);
    assert_int_equal(feed(r, "", 0, &used), S3_AGAIN);
    assert_false(r->http.started);
    assert_int_equal(feed(r, "H", 1, &used), S3_AGAIN);
    assert_true(r->http.started);
    assert_false(r->http.head_done);

    test_free(r);
}


static void
test_callbacks(void **state)
{
    size_t       used;
    reader_t    *r;
    const char  *text;

    (void) state;

    r = test_malloc(sizeof(reader_t));
    text = OK "a: b\r\nContent-Length: 4\r\nc: d\r\n\r\nbody";

    start(r, 0);
    r->stop_field = 2;
    assert_int_equal(feed(r, text, strlen(text), &used), S3_ERROR);
    assert_int_equal(r->fields, 2);
    assert_int_equal(r->bodies, 0);
    assert_non_null(r->http.err);

    start(r, 0);
    r->stop_body = 1;
    assert_int_equal(feed(r, text, strlen(text), &used), S3_ERROR);
    assert_int_equal(r->bodies, 1);
    assert_int_equal(feed(r, "x", 1, &used), S3_ERROR);
    assert_int_equal(r->bodies, 1);

    /* nobody listens */

    start(r, 0);
    s3_http_init(&r->http, 0, NULL, NULL, NULL);
    assert_int_equal(feed(r, text, strlen(text), &used), S3_OK);
    assert_int_equal(used, strlen(text));
    assert_true(r->http.keepalive);

    test_free(r);
}


static int
feed_times(reader_t *r, const char *text, unsigned times)
{
    int     rc;
    size_t  used;

    rc = S3_AGAIN;

    while (times-- != 0 && rc == S3_AGAIN) {
        rc = feed(r, text, strlen(text), &used);
    }

    return rc;
}


static void
test_line_bound(void **state)
{
    int        rc;
    char      *line;
    size_t     i, used;
    unsigned   n;
    reader_t  *r;

    static const char  *framing[] = {
        "Content-Length: ", "Transfer-Encoding: chunked, ", "CONNECTION: a, ",
        "", " ", "a b: "
    };

    (void) state;

    r = test_malloc(sizeof(reader_t));
    line = test_malloc(S3_HTTP_MAX_LINE + 8);

    /* a field of exactly the limit, its CR included; one of a byte more is left
       out; whole and in two pieces */

    memset(line, 'v', S3_HTTP_MAX_LINE + 8);
    memcpy(line, "a: ", 3);

    for (i = 0; i < 4; i++) {
        n = S3_HTTP_MAX_LINE + i % 2;
        line[n - 1] = '\r';
        line[n] = '\n';

        start(r, 0);
        (void) feed_times(r, OK, 1);

        if (i < 2) {
            rc = feed(r, line, n + 1, &used);

        } else {
            rc = feed(r, line, 100, &used);
            assert_int_equal(rc, S3_AGAIN);
            rc = feed(r, line + 100, n + 1 - 100, &used);
        }

        assert_int_equal(rc, S3_AGAIN);
        assert_int_equal(r->fields, i % 2 ? 0 : 1);

        assert_int_equal(feed_times(r, "Content-Length: 2\r\n\r\nok", 1),
                         S3_OK);
        assert_int_equal(r->fields, i % 2 ? 1 : 2);
        assert_int_equal(r->http.content_length, 2);
        assert_true(r->http.keepalive);

        line[n - 1] = 'v';
        line[n] = 'v';
    }

    /* but not one that tells where the reply ends, or that has no name */

    for (i = 0; i < sizeof(framing) / sizeof(framing[0]); i++) {
        start(r, 0);
        (void) feed_times(r, OK, 1);
        (void) feed_times(r, framing[i], 1);
        assert_int_equal(feed_times(r, "0000000000000000", 600), S3_AGAIN);
        assert_int_equal(feed_times(r, "\r\n", 1), S3_ERROR);
    }

    /* lines that never end */

    start(r, 0);
    assert_int_equal(feed_times(r, "HTTP/1.1 200 ", 1), S3_AGAIN);
    assert_int_equal(feed_times(r, "vvvvvvvvvvvvvvvv", 512), S3_ERROR);

    start(r, 0);
    assert_int_equal(feed_times(r, OK "a: ", 1), S3_AGAIN);
    assert_int_equal(feed_times(r, "vvvvvvvvvvvvvvvv", 4090), S3_AGAIN);
    assert_int_equal(feed_times(r, "vvvvvvvvvvvvvvvv", 16), S3_ERROR);

    start(r, 0);
    assert_int_equal(feed_times(r, CHUNKS, 1), S3_AGAIN);
    assert_int_equal(feed_times(r, "0000000000000000", 513), S3_ERROR);

    test_free(line);
    test_free(r);
}


static void
test_bounds(void **state)
{
    char       line[1001];
    reader_t  *r;

    (void) state;

    r = test_malloc(sizeof(reader_t));

    /* fields */

    start(r, 0);
    (void) feed_times(r, OK, 1);
    assert_int_equal(feed_times(r, "a: b\r\n", S3_HTTP_MAX_FIELDS), S3_AGAIN);
    assert_int_equal(feed_times(r, "a: b\r\n", 1), S3_ERROR);

    start(r, 0);
    (void) feed_times(r, OK "Transfer-Encoding: chunked\r\n\r\n0\r\n", 1);
    assert_int_equal(feed_times(r, "a: b\r\n", S3_HTTP_MAX_FIELDS), S3_AGAIN);
    assert_int_equal(feed_times(r, "a: b\r\n", 1), S3_ERROR);

    /* the whole head, interim replies included */

    memset(line, 'v', sizeof(line));
    memcpy(line, "a: ", 3);
    memcpy(line + 998, "\r\n", 3);

    start(r, 0);
    (void) feed_times(r, OK, 1);
    assert_int_equal(feed_times(r, line, 65), S3_AGAIN);
    assert_int_equal(feed_times(r, line, 1), S3_ERROR);

    /* a peer that sends interim replies for ever */

    start(r, 0);
    assert_int_equal(feed_times(r, "HTTP/1.1 100 Continue\r\n\r\n", 16),
                     S3_AGAIN);
    assert_int_equal(feed_times(r, "HTTP/1.1 100 Continue\r\n\r\n", 1),
                     S3_ERROR);

    start(r, 0);
    assert_int_equal(feed_times(r, "HTTP/1.1 102 Processing\r\n\r\n", 16),
                     S3_AGAIN);
    assert_int_equal(feed_times(r, OK "Content-Length: 0\r\n\r\n", 1), S3_OK);

    /* white space in chunks for minutes is no head: no bound on it */

    start(r, 0);
    r->buf.end = r->buf.pos;
    (void) feed_times(r, OK "Transfer-Encoding: chunked\r\n\r\n", 1);
    assert_int_equal(feed_times(r, "1\r\n \r\n", 100000), S3_AGAIN);
    assert_int_equal(feed_times(r, "0\r\n\r\n", 1), S3_OK);
    assert_int_equal(r->bodies, 100000);

    test_free(r);
}


#define N_GOOD  (sizeof(good) / sizeof(good[0]))
#define N_BAD   (sizeof(bad) / sizeof(bad[0]))


int
main(void)
{
    size_t             i, n;
    struct CMUnitTest  tests[N_GOOD + N_BAD + 8];

    const struct CMUnitTest  others[] = {
        cmocka_unit_test(test_control_bytes),
        cmocka_unit_test(test_started),
        cmocka_unit_test(test_callbacks),
        cmocka_unit_test(test_line_bound),
        cmocka_unit_test(test_bounds)
    };

    memset(tests, 0, sizeof(tests));
    n = 0;

    for (i = 0; i < N_GOOD; i++, n++) {
        tests[n].name = good[i].name;
        tests[n].test_func = test_reply;
        tests[n].initial_state = (void *) &good[i];
    }

    for (i = 0; i < N_BAD; i++, n++) {
        tests[n].name = bad[i].name;
        tests[n].test_func = test_bad;
        tests[n].initial_state = (void *) &bad[i];
    }

    for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        tests[n++] = others[i];
    }

    return _cmocka_run_group_tests("http", tests, n, NULL, NULL);
}
