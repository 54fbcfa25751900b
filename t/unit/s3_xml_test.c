#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "s3_xml.h"


#define NS       " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""
#define PROLOG   "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"

#define MAX_PARTS  8


typedef struct {
    unsigned       n;
    s3_xml_part_t  parts[MAX_PARTS];
} parts_t;


static parts_t         parts;
static s3_xml_reply_t  reply;


static void
on_part(void *data, const s3_xml_part_t *part)
{
    parts_t  *to;

    to = data;
    assert_true(to->n < MAX_PARTS);
    to->parts[to->n++] = *part;
}


static void
reset(void)
{
    memset(&reply, 0xaa, sizeof(reply));
    memset(&parts, 0, sizeof(parts));

    reply.part = on_part;
    reply.data = &parts;
}


/* each piece in memory of its own size, so that a sanitizer sees a read past
   it; pieces of 0 bytes too */

static int
feed(s3_xml_t *x, const char *text, size_t len)
{
    int             rc;
    unsigned char  *copy;

    copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    rc = s3_xml_feed(x, copy, len);
    free(copy);

    return rc;
}


/* `split`: length of the first piece; `piece`: of the others */

static int
parse_pieces(const char *text, size_t len, size_t split, size_t piece)
{
    int        rc;
    size_t     n;
    s3_xml_t  *x;

    reset();

    x = s3_xml_create(&reply);
    assert_non_null(x);

    rc = feed(x, text, split);

    while (split < len && rc == S3_OK) {
        n = (len - split < piece) ? len - split : piece;
        rc = feed(x, text + split, n);
        split += n;
    }

    if (rc == S3_OK) {
        rc = s3_xml_finish(x);

    } else {
        /* an error stays */

        assert_int_equal(s3_xml_feed(x, (const unsigned char *) " ", 1),
                         S3_ERROR);
        assert_int_equal(s3_xml_finish(x), S3_ERROR);
    }

    s3_xml_destroy(x);

    return rc;
}


/* whole, in two pieces at every point, and byte by byte: the same */

static int
parse_n(const char *text, size_t len)
{
    int             rc;
    size_t          split;
    parts_t         first_parts;
    s3_xml_reply_t  first;

    rc = parse_pieces(text, len, len, len);

    first = reply;
    first_parts = parts;

    for (split = 0; split < len; split++) {
        assert_int_equal(parse_pieces(text, len, split, len), rc);

        if (rc == S3_OK) {
            assert_memory_equal(&reply, &first, sizeof(reply));
            assert_memory_equal(&parts, &first_parts, sizeof(parts));
        }
    }

    assert_int_equal(parse_pieces(text, len, 0, 1), rc);

    if (rc == S3_OK) {
        assert_memory_equal(&reply, &first, sizeof(reply));
        assert_memory_equal(&parts, &first_parts, sizeof(parts));
    }

    return rc;
}


static int
parse(const char *text)
{
    return parse_n(text, strlen(text));
}


static void
test_initiate(void **state)
{
    (void) state;

    assert_int_equal(parse(PROLOG "<InitiateMultipartUploadResult" NS ">"
        "<Bucket>b</Bucket><Key>k</Key><UploadId>VXBsb2FkIElE/+=</UploadId>"
        "</InitiateMultipartUploadResult>"), S3_OK);
    assert_int_equal(reply.root, S3_XML_INITIATE);
    assert_string_equal(reply.upload_id, "VXBsb2FkIElE/+=");
    assert_int_equal(reply.too_long, 0);
    assert_string_equal(reply.code, "");

    /* no namespace; a prefix, declared or not; another namespace */

    assert_int_equal(parse("<InitiateMultipartUploadResult><UploadId>u"
        "</UploadId></InitiateMultipartUploadResult>"), S3_OK);
    assert_string_equal(reply.upload_id, "u");

    assert_int_equal(parse("<a:InitiateMultipartUploadResult xmlns:a=\"x\">"
        "<a:UploadId>u</a:UploadId></a:InitiateMultipartUploadResult>"),
        S3_OK);
    assert_int_equal(reply.root, S3_XML_INITIATE);
    assert_string_equal(reply.upload_id, "u");

    assert_int_equal(parse("<a:InitiateMultipartUploadResult>"
        "<b:UploadId>u</b:UploadId></a:InitiateMultipartUploadResult>"),
        S3_OK);
    assert_string_equal(reply.upload_id, "u");

    assert_int_equal(parse("<InitiateMultipartUploadResult"
        " xmlns=\"http://example.com/\"><UploadId x=\"&lt;\">u</UploadId>"
        "</InitiateMultipartUploadResult>"), S3_OK);
    assert_string_equal(reply.upload_id, "u");
}


static void
test_entities(void **state)
{
    (void) state;

    assert_int_equal(parse("<InitiateMultipartUploadResult><UploadId>"
        "a&amp;b&lt;c&gt;d&quot;e&apos;f&#38;g&#x26;h<![CDATA[<&i]]>"
        "<!-- no -->j<?no?></UploadId></InitiateMultipartUploadResult>"),
        S3_OK);
    assert_string_equal(reply.upload_id, "a&b<c>d\"e'f&g&h<&ij");

    assert_int_equal(parse("<Error><Message>&#xe4;\xc3\xa4&#x1F600;"
        "</Message></Error>"), S3_OK);
    assert_string_equal(reply.message, "\xc3\xa4\xc3\xa4\xf0\x9f\x98\x80");

    /* others are not known */

    assert_int_equal(parse("<Error><Code>&nbsp;</Code></Error>"), S3_ERROR);
    assert_int_equal(parse("<Error><Code>&#0;</Code></Error>"), S3_ERROR);
}


static void
test_complete(void **state)
{
    (void) state;

    assert_int_equal(parse(PROLOG "<CompleteMultipartUploadResult" NS ">"
        "<Location>http://b.s3.amazonaws.com/k</Location><Bucket>b</Bucket>"
        "<Key>k</Key><ETag>&quot;16cafe8d6b8c1c55c3d339c8d69326c6-2&quot;"
        "</ETag></CompleteMultipartUploadResult>"), S3_OK);
    assert_int_equal(reply.root, S3_XML_COMPLETE);
    assert_string_equal(reply.etag, "\"16cafe8d6b8c1c55c3d339c8d69326c6-2\"");

    /* as Ceph answers it the first time */

    assert_int_equal(parse("<CompleteMultipartUploadResult><ETag></ETag>"
        "</CompleteMultipartUploadResult>"), S3_OK);
    assert_int_equal(reply.root, S3_XML_COMPLETE);
    assert_string_equal(reply.etag, "");
}


#define SPACE  "          \n          \r\n     \t    "

/* status 200, white space for minutes, and then the outcome */

static void
test_white_space(void **state)
{
    (void) state;

    assert_int_equal(parse(PROLOG SPACE SPACE "<Error><Code>InternalError"
        "</Code><Message>Try again.</Message></Error>" SPACE), S3_OK);
    assert_int_equal(reply.root, S3_XML_ERROR);
    assert_string_equal(reply.code, "InternalError");
    assert_string_equal(reply.message, "Try again.");

    assert_int_equal(parse(SPACE SPACE PROLOG SPACE "<Error><Code>SlowDown"
        "</Code></Error>"), S3_OK);
    assert_int_equal(reply.root, S3_XML_ERROR);
    assert_string_equal(reply.code, "SlowDown");

    assert_int_equal(parse(SPACE "<CompleteMultipartUploadResult><ETag>"
        "\"e\"</ETag></CompleteMultipartUploadResult>\n"), S3_OK);
    assert_int_equal(reply.root, S3_XML_COMPLETE);
    assert_string_equal(reply.etag, "\"e\"");

    /* cut off while it was waiting */

    assert_int_equal(parse(SPACE), S3_ERROR);
    assert_int_equal(reply.root, S3_XML_NONE);
    assert_int_equal(parse(PROLOG SPACE), S3_ERROR);
    assert_int_equal(reply.root, S3_XML_NONE);
    assert_int_equal(parse(""), S3_ERROR);
}


static void
test_error(void **state)
{
    (void) state;

    assert_int_equal(parse(PROLOG "<Error><Code>RequestTimeTooSkewed</Code>"
        "<Message>The difference is too large.</Message>"
        "<RequestTime>20261123T200000Z</RequestTime>"
        "<ServerTime>2026-11-23T21:00:00Z</ServerTime>"
        "<MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>"
        "<RequestId>656c76696e6727732072657175657374</RequestId>"
        "<HostId>Uuag1LuByRx9e6j5Onimru9pO4ZVKnJ2Qz7/C1NPcfTWAtRPfTaOFg=="
        "</HostId></Error>"), S3_OK);
    assert_int_equal(reply.root, S3_XML_ERROR);
    assert_string_equal(reply.code, "RequestTimeTooSkewed");
    assert_string_equal(reply.message, "The difference is too large.");
    assert_string_equal(reply.server_time, "2026-11-23T21:00:00Z");
    assert_string_equal(reply.request_id,
                        "656c76696e6727732072657175657374");

    assert_int_equal(parse("<Error><Code>AuthorizationHeaderMalformed</Code>"
        "<Region>eu-central-1</Region></Error>"), S3_OK);
    assert_string_equal(reply.region, "eu-central-1");
}


/* names count at their place in their document alone */

static void
test_places(void **state)
{
    (void) state;

    assert_int_equal(parse("<Error><Inner><Code>inner</Code></Inner>"
        "<Code>outer</Code><Inner><Code>inner</Code></Inner>"
        "<UploadId>u</UploadId><ETag>e</ETag></Error>"), S3_OK);
    assert_string_equal(reply.code, "outer");
    assert_string_equal(reply.upload_id, "");
    assert_string_equal(reply.etag, "");

    assert_int_equal(parse("<CompleteMultipartUploadResult>"
        "<Code>c</Code><Error><Code>c</Code></Error>"
        "</CompleteMultipartUploadResult>"), S3_OK);
    assert_int_equal(reply.root, S3_XML_COMPLETE);
    assert_string_equal(reply.code, "");

    assert_int_equal(parse("<ListPartsResult><ETag>e</ETag><Initiator>"
        "<PartNumber>7</PartNumber><UploadId>u</UploadId></Initiator>"
        "</ListPartsResult>"), S3_OK);
    assert_string_equal(reply.etag, "");
    assert_string_equal(reply.upload_id, "");
    assert_int_equal(parts.n, 0);

    /* elements within a value: no value */

    assert_int_equal(parse("<Error><Code>a<b>c</b>d</Code>"
        "<Message>m</Message></Error>"), S3_OK);
    assert_string_equal(reply.code, "");
    assert_string_equal(reply.message, "m");

    assert_int_equal(parse("<html><body><Code>x</Code></body></html>"),
                     S3_OK);
    assert_int_equal(reply.root, S3_XML_OTHER);
    assert_string_equal(reply.code, "");
}


static void
test_list_parts(void **state)
{
    (void) state;

    assert_int_equal(parse(PROLOG "<ListPartsResult" NS ">"
        "<Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId>"
        "<Initiator><ID>i</ID></Initiator><PartNumberMarker>1"
        "</PartNumberMarker><NextPartNumberMarker>10000"
        "</NextPartNumberMarker><MaxParts>2</MaxParts>"
        "<IsTruncated>true</IsTruncated>"
        "<Part><PartNumber>2</PartNumber>"
        "<LastModified>2026-11-28T10:00:01.000Z</LastModified>"
        "<ETag>&quot;a&quot;</ETag><Size>5368709120</Size></Part>"
        "<Part><Size>0</Size><PartNumber>10000</PartNumber></Part>"
        "<Part/></ListPartsResult>"), S3_OK);
    assert_int_equal(reply.root, S3_XML_LIST_PARTS);
    assert_string_equal(reply.upload_id, "u");
    assert_int_equal(reply.truncated, 1);
    assert_int_equal(reply.next_part, 10000);

    assert_int_equal(parts.n, 3);
    assert_int_equal(parts.parts[0].number, 2);
    assert_string_equal(parts.parts[0].etag, "\"a\"");
    assert_true(parts.parts[0].size == 5368709120ULL);
    assert_string_equal(parts.parts[0].last_modified,
                        "2026-11-28T10:00:01.000Z");
    assert_int_equal(parts.parts[1].number, 10000);
    assert_string_equal(parts.parts[1].etag, "");
    assert_string_equal(parts.parts[1].last_modified, "");
    assert_true(parts.parts[1].size == 0);
    assert_int_equal(parts.parts[2].number, 0);

    assert_int_equal(parse("<ListPartsResult><NextPartNumberMarker/>"
        "<IsTruncated>false</IsTruncated></ListPartsResult>"), S3_OK);
    assert_int_equal(reply.truncated, 0);
    assert_int_equal(reply.next_part, 0);
    assert_int_equal(parts.n, 0);

    assert_int_equal(parse("<ListMultipartUploadsResult><IsTruncated>true"
        "</IsTruncated></ListMultipartUploadsResult>"), S3_OK);
    assert_int_equal(reply.root, S3_XML_LIST_UPLOADS);
    assert_int_equal(reply.truncated, 1);

    /* what follows the parts belongs to none; the last of two counts */

    assert_int_equal(parse("<ListPartsResult><Part><PartNumber>1"
        "</PartNumber></Part><StorageClass>STANDARD</StorageClass><Owner>"
        "<PartNumber>7</PartNumber></Owner><Part><PartNumber>2</PartNumber>"
        "<ETag>longer</ETag><ETag>e</ETag></Part></ListPartsResult>"),
        S3_OK);
    assert_int_equal(parts.n, 2);
    assert_int_equal(parts.parts[0].number, 1);
    assert_int_equal(parts.parts[1].number, 2);
    assert_string_equal(parts.parts[1].etag, "e");

    /* as Ceph answers it, and with more digits than a time has */

    assert_int_equal(parse(PROLOG "<ListPartsResult" NS "><Bucket>b</Bucket>"
        "<Key>k</Key><UploadId>2~u</UploadId><StorageClass>STANDARD"
        "</StorageClass><PartNumberMarker>0</PartNumberMarker>"
        "<NextPartNumberMarker>1</NextPartNumberMarker><MaxParts>1"
        "</MaxParts><IsTruncated>true</IsTruncated><Owner><ID>t</ID>"
        "<DisplayName>t</DisplayName></Owner><Part><LastModified>"
        "2026-11-28T10:00:01.123Z</LastModified><PartNumber>1</PartNumber>"
        "<ETag>&quot;a&quot;</ETag><Size>5242880</Size></Part><Part>"
        "<LastModified>2026-11-28T10:00:01.1234567890123456789Z"
        "</LastModified></Part></ListPartsResult>"), S3_OK);
    assert_int_equal(reply.next_part, 1);
    assert_int_equal(parts.n, 2);
    assert_string_equal(parts.parts[0].last_modified,
                        "2026-11-28T10:00:01.123Z");
    assert_string_equal(parts.parts[1].last_modified, "");
    assert_int_equal(reply.too_long, 1);

    /* without a handler */

    reset();
    reply.part = NULL;
    assert_int_equal(s3_xml_parse(&reply, (const unsigned char *)
        "<ListPartsResult><Part/></ListPartsResult>", 42), S3_OK);
}


static void
test_numbers_refused(void **state)
{
    size_t  i;
    char    text[200];

    static const char *const  bad[] = {
        "-1", "1x", "0x1", "+1", " ", "1 2", "1.0", "4294967296",
        "18446744073709551616", "99999999999999999999999999"
    };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        (void) snprintf(text, sizeof(text), "<ListPartsResult><Part>"
                        "<PartNumber>%s</PartNumber></Part>"
                        "</ListPartsResult>", bad[i]);
        assert_int_equal(parse(text), S3_ERROR);
        assert_int_equal(parts.n, 0);
    }

    assert_int_equal(parse("<ListPartsResult><Part><PartNumber>4294967295"
        "</PartNumber><Size>18446744073709551615</Size></Part>"
        "</ListPartsResult>"), S3_OK);
    assert_true(parts.parts[0].number == 4294967295U);
    assert_true(parts.parts[0].size == UINT64_MAX);

    assert_int_equal(parse("<ListPartsResult><Part>"
        "<Size>18446744073709551616</Size></Part></ListPartsResult>"),
        S3_ERROR);
}


static void
parse_upload_id(size_t len)
{
    char    *text;
    size_t   n;

    static const char  head[] = "<InitiateMultipartUploadResult><UploadId>";
    static const char  tail[] = "</UploadId></InitiateMultipartUploadResult>";

    n = sizeof(head) - 1 + len + sizeof(tail) - 1;
    text = malloc(n);
    assert_non_null(text);

    memcpy(text, head, sizeof(head) - 1);
    memset(text + sizeof(head) - 1, 'u', len);
    memcpy(text + n - sizeof(tail) + 1, tail, sizeof(tail) - 1);

    assert_int_equal(parse_pieces(text, n, n, n), S3_OK);

    if (len <= S3_UPLOAD_ID_MAX) {
        assert_int_equal(reply.too_long, 0);
        assert_int_equal(strlen(reply.upload_id), len);

    } else {
        assert_int_equal(reply.too_long, 1);
        assert_string_equal(reply.upload_id, "");
    }

    if (len < 100000) {
        assert_int_equal(parse_pieces(text, n, 0, 1), S3_OK);
        assert_int_equal(reply.too_long, len > S3_UPLOAD_ID_MAX);
    }

    free(text);
}


static void
test_long_values(void **state)
{
    char  text[300], etag[140];

    (void) state;

    parse_upload_id(0);
    parse_upload_id(1);
    parse_upload_id(S3_UPLOAD_ID_MAX - 1);
    parse_upload_id(S3_UPLOAD_ID_MAX);
    parse_upload_id(S3_UPLOAD_ID_MAX + 1);
    parse_upload_id(S3_UPLOAD_ID_MAX + 2);
    parse_upload_id(S3_UPLOAD_ID_MAX + 3);
    parse_upload_id(10000);
    parse_upload_id(3000000);

    memset(etag, 'e', sizeof(etag));
    etag[135] = '\0';
    (void) snprintf(text, sizeof(text), "<ListPartsResult><Part><ETag>%s"
                    "</ETag></Part></ListPartsResult>", etag);
    assert_int_equal(parse(text), S3_OK);
    assert_int_equal(reply.too_long, 0);
    assert_string_equal(parts.parts[0].etag, etag);

    etag[135] = 'e';
    etag[136] = '\0';
    (void) snprintf(text, sizeof(text), "<ListPartsResult><Part><ETag>%s"
                    "</ETag></Part></ListPartsResult>", etag);
    assert_int_equal(parse(text), S3_OK);
    assert_int_equal(reply.too_long, 1);
    assert_string_equal(parts.parts[0].etag, "");

    assert_int_equal(parse("<Error><Code>longer</Code><Code>ab</Code>"
                           "</Error>"), S3_OK);
    assert_string_equal(reply.code, "ab");
}


static void
test_not_xml(void **state)
{
    size_t  i;

    static const char *const  bad[] = {
        "Error", "{\"error\": 1}", "<", "<Error", "<Error>", "<Error></Erro>",
        "<Error/><Error/>", "<Error>&</Error>", "<Error/>x", "x<Error/>",
        "<Error><Code>SlowDown</Code>", "<Error a=1/>", "<1/>",
        "<Error>\x01</Error>", "<Error>\xff</Error>", "<!-- no root -->",
        PROLOG, (PROLOG PROLOG "<Error/>"), ("<Error/>" PROLOG),
        "<?xml version=\"1.0\" encoding=\"nonsense\"?><Error/>"
    };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(parse(bad[i]), S3_ERROR);
    }

    assert_int_equal(parse_n("<Error>\0</Error>", 16), S3_ERROR);
    assert_int_equal(parse_n("\0<Error/>", 9), S3_ERROR);
}


static void
test_doctype(void **state)
{
    (void) state;

    assert_int_equal(parse("<?xml version=\"1.0\"?><!DOCTYPE Error [\n"
        "<!ENTITY a \"aaaaaaaaaa\">\n<!ENTITY b \"&a;&a;&a;&a;&a;&a;\">\n"
        "<!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;\">\n"
        "]><Error><Code>&c;</Code></Error>"), S3_ERROR);
    assert_string_equal(reply.code, "");

    assert_int_equal(parse("<!DOCTYPE Error SYSTEM \"file:///etc/passwd\">"
        "<Error><Code>c</Code></Error>"), S3_ERROR);
    assert_string_equal(reply.code, "");

    assert_int_equal(parse("<!DOCTYPE Error [<!ENTITY x SYSTEM "
        "\"file:///etc/passwd\">]><Error><Code>&x;</Code></Error>"),
        S3_ERROR);

    assert_int_equal(parse("<!DOCTYPE Error><Error/>"), S3_ERROR);
}


/* one repeated piece up to a size, in chunks as they come from a socket */

static int
parse_repeated(const char *head, const char *piece, size_t size)
{
    int        rc;
    char      *text;
    size_t     i, n, len;
    s3_xml_t  *x;

    len = strlen(head) + size;
    n = strlen(piece);
    text = malloc(len);
    assert_non_null(text);

    memcpy(text, head, strlen(head));

    for (i = strlen(head); i < len; i++) {
        text[i] = piece[(i - strlen(head)) % n];
    }

    reset();
    x = s3_xml_create(&reply);
    assert_non_null(x);

    rc = S3_OK;

    for (i = 0; i < len && rc == S3_OK; i += n) {
        n = len - i < 4096 ? len - i : 4096;
        rc = s3_xml_feed(x, (const unsigned char *) text + i, n);
    }

    if (rc == S3_ERROR) {
        assert_int_equal(s3_xml_feed(x, (const unsigned char *) "<", 1),
                         S3_ERROR);
    }

    s3_xml_destroy(x);
    free(text);

    return rc;
}


static void
test_bounds(void **state)
{
    s3_xml_t              *x;
    static unsigned char   text[] = " ";

    (void) state;

    /* the document: 4 MiB are taken, a byte more is not */

    assert_int_equal(parse_repeated("<Error>", "x", S3_XML_MAX_DOC - 7),
                     S3_OK);
    assert_int_equal(parse_repeated("<Error>", "x", S3_XML_MAX_DOC - 6),
                     S3_ERROR);
    assert_int_equal(parse_repeated("", " ", S3_XML_MAX_DOC), S3_OK);
    assert_int_equal(parse_repeated("", " ", S3_XML_MAX_DOC + 1), S3_ERROR);

    reset();
    x = s3_xml_create(&reply);
    assert_non_null(x);
    assert_int_equal(s3_xml_feed(x, text, S3_XML_MAX_DOC + 1), S3_ERROR);
    assert_int_equal(s3_xml_feed(x, text, 1), S3_ERROR);
    assert_int_equal(s3_xml_finish(x), S3_ERROR);
    s3_xml_destroy(x);

    /* a tag, a comment, an attribute that never end */

    assert_int_equal(parse_repeated("<", "x", 60000), S3_OK);
    assert_int_equal(parse_repeated("<", "x", 100000), S3_ERROR);
    assert_int_equal(parse_repeated("<!--", "x", 100000), S3_ERROR);
    assert_int_equal(parse_repeated("<a b=\"", "x", 100000), S3_ERROR);
    assert_int_equal(parse_repeated("<?a ", "x", 100000), S3_ERROR);

    /* many comments are no long one */

    assert_int_equal(parse_repeated("", "<!-- x -->", 1000000), S3_OK);

    /* depth */

    assert_int_equal(parse_repeated("", "<a>", 3 * 32), S3_OK);
    assert_int_equal(parse_repeated("", "<a>", 3 * 33), S3_ERROR);
    assert_int_equal(parse_repeated("", "<a>", 3000000), S3_ERROR);
}


static void
test_reply_cleared(void **state)
{
    (void) state;

    assert_int_equal(parse("<Error><Code>c</Code></Error>"), S3_OK);
    assert_ptr_equal(reply.data, &parts);
    assert_string_equal(reply.upload_id, "");
    assert_string_equal(reply.message, "");
    assert_int_equal(reply.next_part, 0);
    assert_int_equal(reply.truncated, 0);

    s3_xml_destroy(NULL);
}


static void
test_complete_document(void **state)
{
    char       mem[1000];
    s3_buf_t   out;

    static const char  want[] =
        "<CompleteMultipartUpload" NS ">"
        "<Part><PartNumber>1</PartNumber><ETag>&quot;a&quot;</ETag></Part>"
        "<Part><PartNumber>10000</PartNumber><ETag>&lt;&amp;&gt;' ?"
        "?</ETag>"
        "<ChecksumCRC32>y/Q5Jg==</ChecksumCRC32></Part>"
        "</CompleteMultipartUpload>";

    (void) state;

    s3_buf_init(&out, mem, sizeof(mem));

    s3_xml_complete_begin(&out);
    s3_xml_complete_part(&out, 1, "\"a\"", NULL);
    s3_xml_complete_part(&out, 10000, "<&>' \n\x01", "y/Q5Jg==");
    s3_xml_complete_end(&out);

    assert_int_equal(out.overflow, 0);
    assert_int_equal(out.pos - out.start, sizeof(want) - 1);
    assert_memory_equal(mem, want, sizeof(want) - 1);
}


static void
test_complete_piece(void **state)
{
    char       mem[S3_XML_PART_MAX], etag[136];
    s3_buf_t   out;

    (void) state;

    memset(etag, '"', 135);
    etag[135] = '\0';

    s3_buf_init(&out, mem, sizeof(mem));
    s3_xml_complete_part(&out, 4294967295U, etag, "y/Q5Jg==");
    assert_int_equal(out.overflow, 0);

    s3_buf_init(&out, mem, sizeof(mem));
    s3_xml_complete_begin(&out);
    s3_xml_complete_end(&out);
    assert_int_equal(out.overflow, 0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_initiate),
        cmocka_unit_test(test_entities),
        cmocka_unit_test(test_complete),
        cmocka_unit_test(test_white_space),
        cmocka_unit_test(test_error),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_list_parts),
        cmocka_unit_test(test_numbers_refused),
        cmocka_unit_test(test_long_values),
        cmocka_unit_test(test_not_xml),
        cmocka_unit_test(test_doctype),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_reply_cleared),
        cmocka_unit_test(test_complete_document),
        cmocka_unit_test(test_complete_piece)
    };

    return cmocka_run_group_tests_name("s3_xml", tests, NULL, NULL);
}
