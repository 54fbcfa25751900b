#include <stdio.h>

#include <jansson.h>

#include "s3_test.h"

#include "s3_json.h"


static s3_record_t  r;


static void
fill(void)
{
    s3_record_init(&r);

    strcpy(r.id, "0123456789abcdef");
    strcpy(r.bucket, "incoming");
    strcpy(r.key, "a \"b\"/\xc3\xa4");
    strcpy(r.owner, "alice");

    r.attempt = 1795467600123;
    r.sequence = 7;
    r.state = S3_STATE_ACTIVE;
    r.direction = S3_DOWNLOAD;
    r.bytes_transferred = 500;
    r.bytes_stored = 250;
    r.total_bytes = 1000;
    r.parts_stored = 2;
    r.started_at = 1795467600123;
    r.updated_at = 1795467601123;
    r.expires_at = 1795554001123;
}


static const char  filled_put[] =
    "{\"TableName\":\"transfers\",\"Item\":{"
    "\"transferId\":{\"S\":\"0123456789abcdef\"},"
    "\"attempt\":{\"N\":\"1795467600123\"},"
    "\"sequence\":{\"N\":\"7\"},"
    "\"state\":{\"S\":\"active\"},"
    "\"direction\":{\"S\":\"download\"},"
    "\"bucket\":{\"S\":\"incoming\"},"
    "\"key\":{\"S\":\"a \\\"b\\\"/\xc3\xa4\"},"
    "\"bytesTransferred\":{\"N\":\"500\"},"
    "\"bytesStored\":{\"N\":\"250\"},"
    "\"totalBytes\":{\"N\":\"1000\"},"
    "\"percentage\":{\"N\":\"50\"},"
    "\"storedPercentage\":{\"N\":\"25\"},"
    "\"partsStored\":{\"N\":\"2\"},"
    "\"rate\":{\"N\":\"500\"},"
    "\"startedAt\":{\"S\":\"2026-11-23T21:00:00.123Z\"},"
    "\"updatedAt\":{\"S\":\"2026-11-23T21:00:01.123Z\"},"
    "\"expiresAt\":{\"S\":\"2026-11-24T21:00:01.123Z\"},"
    "\"owner\":{\"S\":\"alice\"},"
    "\"ttl\":{\"N\":\"1795554002\"}},"
    "\"ConditionExpression\":\"attribute_not_exists(#a) OR ((#a < :a"
    " OR (#a = :a AND #q < :q)) AND (#o = :o OR #e < :u))\","
    "\"ExpressionAttributeNames\":{\"#a\":\"attempt\",\"#q\":\"sequence\","
    "\"#o\":\"owner\",\"#e\":\"expiresAt\"},"
    "\"ExpressionAttributeValues\":{\":a\":{\"N\":\"1795467600123\"},"
    "\":q\":{\"N\":\"7\"},\":o\":{\"S\":\"alice\"},"
    "\":u\":{\"S\":\"2026-11-23T21:00:01.123Z\"}},"
    "\"ReturnValuesOnConditionCheckFailure\":\"ALL_OLD\"}";


/* from exactly the text's bytes, so that a sanitizer sees a read past them */

static int
parse_item_n(const char *text, size_t len, s3_record_t *record)
{
    int             rc;
    unsigned char  *copy;

    copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    rc = s3_json_parse_item(copy, len, record);
    free(copy);

    return rc;
}


static int
parse_item(const char *text)
{
    s3_record_t  record;

    return parse_item_n(text, strlen(text), &record);
}


static int
parse_error(const char *text, s3_json_error_t *e)
{
    int             rc;
    size_t          len;
    unsigned char  *copy;

    memset(e, 0xaa, sizeof(*e));

    len = strlen(text);
    copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    rc = s3_json_parse_error(copy, len, e);
    free(copy);

    return rc;
}


static void
test_put_item(void **state)
{
    char      mem[2000];
    s3_buf_t  b;

    (void) state;

    fill();
    s3_buf_init(&b, mem, sizeof(mem));
    assert_int_equal(s3_json_put_item(s3_str("transfers"), &r, &b), S3_OK);
    assert_written(&b, filled_put);

    r.id[0] = '\0';
    s3_buf_init(&b, mem, sizeof(mem));
    assert_int_equal(s3_json_put_item(s3_str("transfers"), &r, &b),
                     S3_ERROR);
    assert_ptr_equal(b.pos, b.start);
}


static const char *
text_at(const json_t *root, const char *a, const char *b, const char *type)
{
    return json_string_value(json_object_get(json_object_get(
                                 json_object_get(root, a), b), type));
}


static json_t *
put_item_json(void)
{
    char      mem[S3_JSON_PUT_MAX];
    json_t   *root;
    s3_buf_t  b;

    s3_buf_init(&b, mem, sizeof(mem));
    assert_int_equal(s3_json_put_item(s3_str("t"), &r, &b), S3_OK);

    root = json_loadb(mem, (size_t) (b.pos - b.start), JSON_REJECT_DUPLICATES,
                      NULL);
    assert_non_null(root);

    return root;
}


static void
assert_ttl(uint64_t expires_at, const char *want)
{
    json_t      *root;
    const char  *ttl;

    fill();
    r.expires_at = expires_at;

    root = put_item_json();
    ttl = text_at(root, "Item", "ttl", "N");

    if (want) {
        assert_non_null(ttl);
        assert_string_equal(ttl, want);

    } else {
        assert_null(ttl);
    }

    json_decref(root);
}


static void
test_ttl(void **state)
{
    (void) state;

    assert_ttl(1795554001000, "1795554001");
    assert_ttl(1795554001001, "1795554002");
    assert_ttl(1795554001999, "1795554002");
    assert_ttl(1, "1");
    assert_ttl(UINT64_MAX, "18446744073709552");
    assert_ttl(0, NULL);
}


static void
test_unknown_absent(void **state)
{
    json_t  *root, *item;

    (void) state;

    fill();
    r.total_bytes = -1;
    r.owner[0] = '\0';

    root = put_item_json();
    item = json_object_get(root, "Item");

    assert_null(json_object_get(item, "totalBytes"));
    assert_null(json_object_get(item, "owner"));
    assert_string_equal(json_string_value(json_object_get(root,
                                              "ConditionExpression")),
                        "attribute_not_exists(#a) OR ((#a < :a OR (#a = :a"
                        " AND #q < :q)) AND (attribute_not_exists(#o)"
                        " OR #e < :u))");
    assert_null(json_object_get(json_object_get(root,
                                    "ExpressionAttributeValues"), ":o"));
    assert_null(json_object_get(item, "etag"));
    assert_null(json_object_get(item, "error"));
    assert_null(json_object_get(item, "crc32"));
    assert_string_equal(text_at(root, "Item", "percentage", "N"), "0");

    json_decref(root);
}


static int
foreign(const char *reply, const char *owner)
{
    return s3_json_parse_foreign((const unsigned char *) reply, strlen(reply),
                                 s3_str(owner));
}


static void
test_foreign(void **state)
{
    static const char  alice[] = "{\"__type\":\"x#Condition\",\"Item\":"
                                 "{\"owner\":{\"S\":\"alice\"}}}";
    static const char  none[] = "{\"Item\":{\"attempt\":{\"N\":\"1\"}}}";
    static const char  odd[] = "{\"Item\":{\"owner\":"
                               "{\"S\":\"\xef\xbf\xbd\"}}}";

    (void) state;

    assert_int_equal(foreign(alice, "alice"), S3_DECLINED);
    assert_int_equal(foreign(alice, "bob"), S3_OK);
    assert_int_equal(foreign(alice, "alic"), S3_OK);
    assert_int_equal(foreign(alice, ""), S3_OK);
    assert_int_equal(foreign(none, ""), S3_DECLINED);
    assert_int_equal(foreign(none, "bob"), S3_OK);
    assert_int_equal(foreign(odd, "\xff"), S3_DECLINED);
    assert_int_equal(foreign("{\"__type\":\"x\"}", "bob"), S3_DECLINED);
    assert_int_equal(foreign("{\"Item\":1}", "bob"), S3_DECLINED);
    assert_int_equal(foreign("", "bob"), S3_DECLINED);
    assert_int_equal(foreign("[", "bob"), S3_DECLINED);
}


static void
test_put_bounded(void **state)
{
    size_t          i, len;
    s3_buf_t        b;
    unsigned char  *mem;

    (void) state;

    fill();
    len = sizeof(filled_put) - 1;

    for (i = 0; i <= len; i++) {
        mem = malloc(i ? i : 1);
        assert_non_null(mem);
        s3_buf_init(&b, mem, i);

        assert_int_equal(s3_json_put_item(s3_str("transfers"), &r, &b),
                         i == len ? S3_OK : S3_ERROR);
        assert_int_equal(b.overflow, i != len);

        if (i != len) {
            assert_ptr_equal(b.pos, b.start);
        }

        free(mem);
    }
}


static void
test_put_largest(void **state)
{
    size_t       i;
    json_t      *root;

    static const char  bytes[] = "\x01\xff\"";

    (void) state;

    for (i = 0; i < 3; i++) {
        fill();
        memset(r.id, bytes[i], S3_ID_MAX);
        memset(r.bucket, bytes[i], S3_BUCKET_MAX);
        memset(r.key, bytes[i], S3_KEY_MAX);
        memset(r.etag, bytes[i], S3_ETAG_MAX);
        memset(r.error, bytes[i], S3_ERROR_MAX);
        memset(r.owner, bytes[i], S3_OWNER_MAX);
        r.attempt = UINT64_MAX;
        r.sequence = UINT64_MAX;
        r.bytes_transferred = UINT64_MAX;
        r.bytes_stored = UINT64_MAX;
        r.total_bytes = INT64_MAX;
        r.parts_stored = UINT64_MAX;
        r.expires_at = UINT64_MAX;
        r.has_crc32 = 1;

        root = put_item_json();
        assert_string_equal(text_at(root, "Item", "attempt", "N"),
                            "18446744073709551615");
        json_decref(root);
    }
}


static void
test_get_item(void **state)
{
    char      mem[200];
    s3_buf_t  b;

    (void) state;

    s3_buf_init(&b, mem, sizeof(mem));
    assert_int_equal(s3_json_get_item(s3_str("transfers"),
                                      s3_str("0123456789abcdef"), &b), S3_OK);
    assert_written(&b, "{\"TableName\":\"transfers\","
                       "\"Key\":{\"transferId\":{\"S\":"
                       "\"0123456789abcdef\"}},\"ConsistentRead\":true}");

    s3_buf_init(&b, mem, 50);
    assert_int_equal(s3_json_get_item(s3_str("transfers"),
                                      s3_str("0123456789abcdef"), &b),
                     S3_ERROR);
}


/* what was put comes back, as DynamoDB answers it */

static void
assert_round_trip(void)
{
    char         *text;
    json_t       *root, *reply;
    s3_buf_t      one, two;
    s3_record_t   back;
    static char   mem_one[S3_RECORD_JSON_MAX], mem_two[S3_RECORD_JSON_MAX];

    root = put_item_json();
    reply = json_pack("{s:O}", "Item", json_object_get(root, "Item"));
    assert_non_null(reply);
    text = json_dumps(reply, JSON_INDENT(2));
    assert_non_null(text);

    memset(&back, 0xaa, sizeof(back));
    assert_int_equal(parse_item_n(text, strlen(text), &back), S3_OK);

    free(text);
    json_decref(reply);
    json_decref(root);

    s3_buf_init(&one, mem_one, sizeof(mem_one));
    s3_buf_init(&two, mem_two, sizeof(mem_two));
    assert_int_equal(s3_record_json(&r, &one), S3_OK);
    assert_int_equal(s3_record_json(&back, &two), S3_OK);
    assert_int_equal(one.pos - one.start, two.pos - two.start);
    assert_memory_equal(mem_one, mem_two, (size_t) (one.pos - one.start));

    assert_string_equal(back.owner, r.owner);
    assert_string_equal(back.key, r.key);
    assert_true(back.attempt == r.attempt);
    assert_true(back.total_bytes == r.total_bytes);
}


static void
test_round_trip(void **state)
{
    (void) state;

    fill();
    assert_round_trip();

    r.state = S3_STATE_FAILED;
    r.total_bytes = -1;
    r.owner[0] = '\0';
    strcpy(r.error, "unknown_outcome: \"\\\n\t\x01\xf0\x9f\x98\x80");
    assert_round_trip();

    r.state = S3_STATE_COMPLETED;
    r.direction = S3_UPLOAD;
    r.total_bytes = 0;
    r.crc32 = 0;
    r.has_crc32 = 1;
    strcpy(r.etag, "\"d41d8cd98f00b204e9800998ecf8427e\"");
    assert_round_trip();
}


#define RECORD                                                               \
    "\"transferId\":{\"S\":\"0123456789abcdef\"},\"attempt\":{\"N\":\"1\"}," \
    "\"sequence\":{\"N\":\"2\"},\"state\":{\"S\":\"active\"},"               \
    "\"direction\":{\"S\":\"upload\"}"


static void
test_parse_item(void **state)
{
    (void) state;

    assert_int_equal(parse_item("{\"Item\":{" RECORD "}}"), S3_OK);

    /* attributes of others, of any type */

    assert_int_equal(parse_item("{\"Item\":{" RECORD ",\"x\":{\"BOOL\":true},"
        "\"y\":{\"L\":[{\"S\":\"z\"}]},\"ttl\":{\"N\":\"5\"},"
        "\"n\":{\"NULL\":true}},\"ConsumedCapacity\":{}}"), S3_OK);

    assert_int_equal(parse_item("{}"), S3_DECLINED);
    assert_int_equal(parse_item(" { } "), S3_DECLINED);
    assert_int_equal(parse_item("{\"ConsumedCapacity\":{}}"), S3_DECLINED);
}


static void
test_parse_item_refused(void **state)
{
    size_t       i;
    s3_record_t  record;

    static const char *const  bad[] = {
        "", " ", "null", "[]", "\"Item\"", "1", "{", "{\"Item\":",
        "{\"Item\":null}", "{\"Item\":[]}", "{\"Item\":{}}",
        "{\"Item\":{" RECORD "}} x", "{\"Item\":{" RECORD "}",

        /* an error */

        "{\"__type\":\"x#ConditionalCheckFailedException\"}",
        "{\"__type\":\"x#y\",\"Item\":{" RECORD "}}",

        /* twice */

        "{\"Item\":{" RECORD "},\"Item\":{" RECORD "}}",
        "{\"Item\":{" RECORD ",\"state\":{\"S\":\"active\"}}}",

        /* one that is needed is absent, or of another type */

        "{\"Item\":{\"transferId\":{\"S\":\"0123456789abcdef\"}}}",
        "{\"Item\":{\"transferId\":{\"S\":\"\"},\"attempt\":{\"N\":\"1\"},"
            "\"sequence\":{\"N\":\"2\"},\"state\":{\"S\":\"active\"},"
            "\"direction\":{\"S\":\"upload\"}}}",
        "{\"Item\":{\"transferId\":{\"S\":\"0123456789abcdef\"},"
            "\"attempt\":{\"N\":1},"
            "\"sequence\":{\"N\":\"2\"},\"state\":{\"S\":\"active\"},"
            "\"direction\":{\"S\":\"upload\"}}}",
        "{\"Item\":{\"transferId\":\"0123456789abcdef\",\"attempt\":1,"
            "\"sequence\":2,\"state\":\"active\",\"direction\":\"upload\"}}",

        /* a value that is none */

        "{\"Item\":{" RECORD ",\"totalBytes\":{\"N\":\"1e3\"}}}",
        "{\"Item\":{" RECORD ",\"totalBytes\":{\"N\":\"-5\"}}}",
        "{\"Item\":{" RECORD ",\"updatedAt\":{\"S\":\"now\"}}}",
        "{\"Item\":{" RECORD ",\"key\":{\"S\":\"a\\u0000b\"}}}",
        "{\"Item\":{" RECORD ",\"key\":{\"S\":\"\xff\"}}}",
        "{\"Item\":{" RECORD ",\"key\":{\"S\":\"\\ud800\"}}}",
        "{\"Item\":{" RECORD ",\"bucket\":{\"S\":\"0123456789012345678901"
            "234567890123456789012345678901234567890123\"}}}"
    };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(parse_item(bad[i]), S3_ERROR);
    }

    assert_int_equal(parse_item_n("{}\0", 3, &record), S3_ERROR);
}


/* cut at every byte: no item, and no read past the end */

static void
test_parse_item_cut(void **state)
{
    size_t       i;
    s3_record_t  record;

    static const char  text[] = "{\"Item\":{" RECORD "}}";

    (void) state;

    for (i = 0; i < sizeof(text) - 1; i++) {
        assert_int_equal(parse_item_n(text, i, &record), S3_ERROR);
    }
}


static void
test_parse_item_deep(void **state)
{
    char         *text;
    size_t        n;
    s3_record_t   record;

    (void) state;

    n = 1000000;
    text = malloc(n);
    assert_non_null(text);

    memset(text, '[', n);
    assert_int_equal(parse_item_n(text, n, &record), S3_ERROR);

    memcpy(text, "{\"Item\":", 8);
    assert_int_equal(parse_item_n(text, n, &record), S3_ERROR);

    for (n = 0; n < 1000000 - 5; n += 5) {
        memcpy(text + n, "{\"a\":", 5);
    }

    assert_int_equal(parse_item_n(text, n, &record), S3_ERROR);

    free(text);
}


static void
assert_error(const char *text, const char *type, const char *message)
{
    s3_json_error_t  e;

    assert_int_equal(parse_error(text, &e), S3_OK);
    assert_string_equal(e.type, type);
    assert_string_equal(e.message, message);
}


static void
test_parse_error(void **state)
{
    (void) state;

    assert_error("{\"__type\":\"com.amazonaws.dynamodb.v20120810#"
        "ConditionalCheckFailedException\",\"message\":"
        "\"The conditional request failed\"}",
        "ConditionalCheckFailedException", "The conditional request failed");
    assert_error("{\"__type\":\"com.amazon.coral.service#"
        "UnrecognizedClientException\",\"Message\":\"m\"}",
        "UnrecognizedClientException", "m");
    assert_error("{\"__type\":\"ResourceNotFoundException\"}",
        "ResourceNotFoundException", "");
    assert_error("{\"__type\":\"a.long.prefix.before.a.short.type#F\"}",
        "F", "");
    assert_error("{\"__type\":\"a#b#Foo:http://example.com/#x\"}", "Foo", "");
    assert_error("{\"__type\":\"a#Foo\",\"message\":null,\"Message\":\"m\"}",
        "Foo", "m");
    assert_error("{\"__type\":\"a#Foo\",\"message\":5}", "Foo", "");
}


static void
test_parse_error_refused(void **state)
{
    size_t           i;
    s3_json_error_t  e;

    static const char *const  bad[] = {
        "", "x", "[]", "{}", "{\"__type\":5}", "{\"__type\":\"\"}",
        "{\"__type\":\"a#\"}", "{\"__type\":\":x\"}",
        "{\"__type\":\"a#Foo\"", "<Error/>", "[\"__type\"]"
    };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(parse_error(bad[i], &e), S3_ERROR);
        assert_string_equal(e.type, "");
        assert_string_equal(e.message, "");
    }

    assert_int_equal(parse_error("{\"message\":\"m\"}", &e), S3_ERROR);
    assert_string_equal(e.type, "");
    assert_string_equal(e.message, "m");
}


static void
test_parse_error_long(void **state)
{
    char             text[4000], name[1001];
    s3_json_error_t  e;

    (void) state;

    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';

    (void) snprintf(text, sizeof(text), "{\"__type\":\"%s#%s\","
                    "\"message\":\"%s\"}", name, name, name);
    assert_int_equal(parse_error(text, &e), S3_OK);
    assert_int_equal(strlen(e.type), sizeof(e.type) - 1);
    assert_int_equal(strlen(e.message), sizeof(e.message) - 1);
}


static void
test_error(void **state)
{
    char      mem[200];
    s3_buf_t  b;

    (void) state;

    s3_buf_init(&b, mem, sizeof(mem));
    assert_int_equal(s3_json_error(&b, "too_large", "needs \"64m\"\n",
                                   "0123456789abcdef"), S3_OK);
    assert_written(&b, "{\"error\":\"too_large\","
                       "\"message\":\"needs \\\"64m\\\"\\n\","
                       "\"transferId\":\"0123456789abcdef\"}");

    s3_buf_init(&b, mem, sizeof(mem));
    assert_int_equal(s3_json_error(&b, "bad_id", "a\xff" "b", NULL), S3_OK);
    assert_written(&b, "{\"error\":\"bad_id\",\"message\":\"a\xef\xbf\xbd"
                       "b\",\"transferId\":null}");

    /* it goes after what is there */

    s3_buf_init(&b, mem, sizeof(mem));
    s3_buf_puts(&b, "x");
    assert_int_equal(s3_json_error(&b, "e", "", NULL), S3_OK);
    assert_written(&b,
                   "x{\"error\":\"e\",\"message\":\"\",\"transferId\":null}");

    s3_buf_init(&b, mem, 20);
    assert_int_equal(s3_json_error(&b, "bad_id", "m", NULL), S3_ERROR);
    assert_int_equal(b.overflow, 1);
}


static void
assert_text(const char *text, const char *want)
{
    char            mem[100];
    size_t          len;
    json_t         *json;
    s3_buf_t        b;
    s3_str_t        s;
    unsigned char  *copy;

    len = strlen(text);
    copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);

    s.data = copy;
    s.len = len;

    json = s3_json_text(s);

    assert_non_null(json);
    assert_string_equal(json_string_value(json), want);
    json_decref(json);

    s3_buf_init(&b, mem, sizeof(mem));
    s3_json_put_text(&b, s);
    free(copy);

    json = json_loadb(mem, (size_t) (b.pos - b.start), JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    assert_string_equal(json_string_value(json), want);
    json_decref(json);
}


#define BAD  "\xef\xbf\xbd"

/* each text has a bad byte, so that the characters beside it are looked at */

static void
test_not_utf8(void **state)
{
    (void) state;

    assert_text("", "");
    assert_text("abc", "abc");
    assert_text("a\xff" "b", "a" BAD "b");
    assert_text("\x80\x81\xbf", BAD BAD BAD);

    /* first and last characters of each length */

    assert_text("\xff\x01\x7f", BAD "\x01\x7f");
    assert_text("\xff\xc2\x80\xdf\xbf", BAD "\xc2\x80\xdf\xbf");
    assert_text("\xff\xe0\xa0\x80\xef\xbf\xbf",
                BAD "\xe0\xa0\x80\xef\xbf\xbf");
    assert_text("\xff\xe1\x80\x80\xec\xbf\xbf\xee\x80\x80",
                BAD "\xe1\x80\x80\xec\xbf\xbf\xee\x80\x80");
    assert_text("\xff\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
                BAD "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf");
    assert_text("\xff\xf1\x80\x80\x80\xf3\xbf\xbf\xbf",
                BAD "\xf1\x80\x80\x80\xf3\xbf\xbf\xbf");

    /* cut short, at the end and before another character */

    assert_text("a\xc3", "a" BAD);
    assert_text("a\xe2\x82", "a" BAD BAD);
    assert_text("\xf0\x9f\x98", BAD BAD BAD);
    assert_text("\xc3(", BAD "(");
    assert_text("\xe2\x82(", BAD BAD "(");
    assert_text("\xf0\x9f\x98(", BAD BAD BAD "(");
    assert_text("\xc3\xc3\xa4", BAD "\xc3\xa4");

    /* overlong, surrogates, above the last character */

    assert_text("\xc0\xaf\xc1\xbf", BAD BAD BAD BAD);
    assert_text("\xe0\x9f\xbf", BAD BAD BAD);
    assert_text("\xf0\x8f\xbf\xbf", BAD BAD BAD BAD);
    assert_text("\xed\xa0\x80\xed\x9f\xbf", BAD BAD BAD "\xed\x9f\xbf");
    assert_text("\xf4\x90\x80\x80", BAD BAD BAD BAD);
    assert_text("\xf5\x80\x80\x80", BAD BAD BAD BAD);
}


static void
test_u64(void **state)
{
    char      mem[100];
    json_t   *json;
    s3_buf_t  b;

    (void) state;

    json = s3_json_u64(INT64_MAX);
    assert_true(json_integer_value(json) == INT64_MAX);
    json_decref(json);

    json = s3_json_u64(UINT64_MAX);
    assert_true(json_integer_value(json) == INT64_MAX);
    json_decref(json);

    json = s3_json_u64((uint64_t) INT64_MAX - 1);
    assert_true(json_integer_value(json) == INT64_MAX - 1);
    json_decref(json);

    s3_buf_init(&b, mem, sizeof(mem));
    s3_json_put_u64(&b, 0);
    s3_buf_putc(&b, ' ');
    s3_json_put_u64(&b, (uint64_t) INT64_MAX - 1);
    s3_buf_putc(&b, ' ');
    s3_json_put_u64(&b, UINT64_MAX);
    assert_written(&b, "0 9223372036854775806 9223372036854775807");
}


static unsigned  allocations;        /* until the one that fails */

static void *
failing_malloc(size_t size)
{
    return allocations-- ? malloc(size) : NULL;
}


static int
write_put(s3_buf_t *b)
{
    return s3_json_put_item(s3_str("transfers"), &r, b);
}


static int
write_get(s3_buf_t *b)
{
    return s3_json_get_item(s3_str("transfers"), s3_str("id"), b);
}


static int
write_error(s3_buf_t *b)
{
    return s3_json_error(b, "code", "message", "id");
}


/* whichever allocation fails: an error, never half a body */

static void
assert_no_memory(int (*write)(s3_buf_t *b), const char *want)
{
    int       rc;
    char      mem[2000];
    s3_buf_t  b;
    unsigned  n;

    n = 0;
    json_set_alloc_funcs(failing_malloc, free);

    do {
        allocations = n;
        s3_buf_init(&b, mem, sizeof(mem));
        rc = write(&b);

        if (rc == S3_OK) {
            assert_written(&b, want);

        } else {
            assert_ptr_equal(b.pos, b.start);
        }

    } while (allocations > n++);

    json_set_alloc_funcs(malloc, free);

    assert_int_equal(rc, S3_OK);
    assert_true(n > 10);
}


static void
test_no_memory(void **state)
{
    (void) state;

    fill();
    assert_no_memory(write_put, filled_put);
    assert_no_memory(write_get, "{\"TableName\":\"transfers\",\"Key\":"
        "{\"transferId\":{\"S\":\"id\"}},\"ConsistentRead\":true}");
    assert_no_memory(write_error, "{\"error\":\"code\",\"message\":"
        "\"message\",\"transferId\":\"id\"}");
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_put_item),
        cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_ttl),
        cmocka_unit_test(test_unknown_absent),
        cmocka_unit_test(test_put_bounded),
        cmocka_unit_test(test_put_largest),
        cmocka_unit_test(test_get_item),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_parse_item),
        cmocka_unit_test(test_parse_item_refused),
        cmocka_unit_test(test_parse_item_cut),
        cmocka_unit_test(test_parse_item_deep),
        cmocka_unit_test(test_parse_error),
        cmocka_unit_test(test_parse_error_refused),
        cmocka_unit_test(test_parse_error_long),
        cmocka_unit_test(test_error),
        cmocka_unit_test(test_not_utf8),
        cmocka_unit_test(test_u64),
        cmocka_unit_test(test_no_memory)
    };

    return cmocka_run_group_tests_name("s3_json", tests, NULL, NULL);
}
