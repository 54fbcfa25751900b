/*
 * Published vectors: AWS's signing test suite (aws-c-auth) and the examples
 * of "Authenticating Requests: Using the Authorization Header (SigV4)".
 */

#include <stdio.h>
#include <time.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "s3_checksum.h"
#include "s3_sigv4.h"
#include "s3_test.h"
#include "s3_uri.h"


#define MAX_FIELDS  8

#define SUITE_HOST  { "Host", "example.amazonaws.com" }
#define SUITE_DATE  { "X-Amz-Date", "20150830T123600Z" }
#define DOC_HOST    { "Host", "examplebucket.s3.amazonaws.com" }
#define DOC_DATE    { "x-amz-date", "20130524T000000Z" }
#define OWN_HOST    { "Host", "minio.example.internal:9000" }
#define OWN_DATE    { "x-amz-date", "20260101T000000Z" }
#define EMPTY_HASH  { "x-amz-content-sha256", S3_EMPTY_SHA256 }

#define OWN_PATH    "/my-bucket/dir/a%20b%2Bc~%C3%BC.bin"


typedef struct {
    const char  *access_key;
    const char  *secret_key;
    const char  *region;
    const char  *service;
    const char  *date;
} signer_t;

typedef struct {
    const char      *name;
    const signer_t  *signer;
    const char      *method;
    const char      *path;
    const char      *query;
    const char      *fields[MAX_FIELDS][2];
    const char      *payload;
    const char      *signed_names;
    const char      *hash;           /* of the canonical request, or NULL */
    const char      *signature;
} vector_t;


static const signer_t  suite = {
    "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "us-east-1", "service", "20150830T123600Z"
};

static const signer_t  doc = {
    "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "us-east-1", "s3", "20130524T000000Z"
};

static const signer_t  own = {
    "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "us-east-1", "s3", "20260101T000000Z"
};

static const signer_t  dynamodb = {
    "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "us-east-1", "dynamodb", "20260101T000000Z"
};


static const vector_t  vectors[] = {

    { "get-vanilla", &suite, "GET", "/",
      "",
      { SUITE_HOST,
        SUITE_DATE },
      S3_EMPTY_SHA256,
      "host;x-amz-date",
      "bb579772317eb040ac9ed261061d46c1f17a8133879d6129b6e1c25292927e63",
      "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31" },

    { "post-vanilla", &suite, "POST", "/",
      "",
      { SUITE_HOST,
        SUITE_DATE },
      S3_EMPTY_SHA256,
      "host;x-amz-date",
      NULL,
      "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b" },

    { "get-utf8", &suite, "GET", "/%E1%88%B4",
      "",
      { SUITE_HOST,
        SUITE_DATE },
      S3_EMPTY_SHA256,
      "host;x-amz-date",
      NULL,
      "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85" },

    { "get-space", &suite, "GET", "/example%20space/",
      "",
      { SUITE_HOST,
        SUITE_DATE },
      S3_EMPTY_SHA256,
      "host;x-amz-date",
      NULL,
      "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741" },

    { "get-slashes-unnormalized", &suite, "GET", "//example//",
      "",
      { SUITE_HOST,
        SUITE_DATE },
      S3_EMPTY_SHA256,
      "host;x-amz-date",
      NULL,
      "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5" },

    { "get-unreserved", &suite, "GET",
      "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
      "abcdefghijklmnopqrstuvwxyz",
      "",
      { SUITE_HOST,
        SUITE_DATE },
      S3_EMPTY_SHA256,
      "host;x-amz-date",
      NULL,
      "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f" },

    { "get-vanilla-query-order-encoded", &suite, "GET", "/",
      "%E1%88%B4=Value1&Param=Value2&Param-3=Value3",
      { SUITE_HOST,
        SUITE_DATE },
      S3_EMPTY_SHA256,
      "host;x-amz-date",
      NULL,
      "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac" },

    { "get-vanilla-query-order-key-case", &suite, "GET", "/",
      "Param1=value1&Param2=value2",
      { SUITE_HOST,
        SUITE_DATE },
      S3_EMPTY_SHA256,
      "host;x-amz-date",
      NULL,
      "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500" },

    { "get-vanilla-empty-query-key", &suite, "GET", "/",
      "Param1=value1",
      { SUITE_HOST,
        SUITE_DATE },
      S3_EMPTY_SHA256,
      "host;x-amz-date",
      NULL,
      "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb" },

    { "get-header-value-trim", &suite, "GET", "/",
      "",
      { SUITE_HOST,
        { "My-Header1", " value1" },
        { "My-Header2", " \"a   b   c\" " },
        SUITE_DATE },
      S3_EMPTY_SHA256,
      "host;my-header1;my-header2;x-amz-date",
      NULL,
      "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736" },

    { "get-header-value-order", &suite, "GET", "/",
      "",
      { SUITE_HOST,
        { "My-Header1", "value4" },
        { "My-Header1", "value1" },
        { "My-Header1", "value3" },
        { "My-Header1", "value2" },
        SUITE_DATE },
      S3_EMPTY_SHA256,
      "host;my-header1;x-amz-date",
      NULL,
      "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01" },

    { "get-vanilla-with-session-token", &suite, "GET", "/",
      "",
      { SUITE_HOST,
        SUITE_DATE,
        { "X-Amz-Security-Token",
          "6e86291e8372ff2a2260956d9b8aae1d"
          "763fbf315fa00fa31553b73ebf194267" } },
      S3_EMPTY_SHA256,
      "host;x-amz-date;x-amz-security-token",
      NULL,
      "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8" },

    { "post-x-www-form-urlencoded", &suite, "POST", "/",
      "",
      { { "Content-Type", "application/x-www-form-urlencoded" },
        SUITE_HOST,
        { "Content-Length", "13" },
        SUITE_DATE,
        { "x-amz-content-sha256",
          "9095672bbd1f56dfc5b65f3e153adc87"
          "31a4a654192329106275f4c7b24d0b6e" } },
      "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
      "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
      NULL,
      "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b" },

    { "S3: GET object", &doc, "GET", "/test.txt",
      "",
      { DOC_HOST,
        { "Range", "bytes=0-9" },
        EMPTY_HASH,
        DOC_DATE },
      S3_EMPTY_SHA256,
      "host;range;x-amz-content-sha256;x-amz-date",
      "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972",
      "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41" },

    { "S3: PUT object", &doc, "PUT", "/test%24file.text",
      "",
      { DOC_HOST,
        { "Date", "Fri, 24 May 2013 00:00:00 GMT" },
        DOC_DATE,
        { "x-amz-storage-class", "REDUCED_REDUNDANCY" },
        { "x-amz-content-sha256",
          "44ce7dd67c959e0d3524ffac1771dfbb"
          "a87d2b6b4b4e99e42034a8b803f8b072" } },
      "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
      "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
      "9e0e90d9c76de8fa5b200d8c849cd5b8dc7a3be3951ddb7f6a76b4158342019d",
      "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd" },

    { "S3: GET lifecycle", &doc, "GET", "/",
      "lifecycle=",
      { DOC_HOST,
        EMPTY_HASH,
        DOC_DATE },
      S3_EMPTY_SHA256,
      "host;x-amz-content-sha256;x-amz-date",
      "9766c798316ff2757b517bc739a67f6213b4ab36dd5da2f94eaebf79c77395ca",
      "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543" },

    { "S3: list objects", &doc, "GET", "/",
      "max-keys=2&prefix=J",
      { DOC_HOST,
        EMPTY_HASH,
        DOC_DATE },
      S3_EMPTY_SHA256,
      "host;x-amz-content-sha256;x-amz-date",
      "df57d21db20da04d7fa30298dd4488ba3a2b47ca3a489c74750e0f1e7df1b9b7",
      "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7" },

    { "path style: Create", &own, "POST", OWN_PATH,
      "uploads=",
      { OWN_HOST,
        OWN_DATE,
        EMPTY_HASH },
      S3_EMPTY_SHA256,
      "host;x-amz-content-sha256;x-amz-date",
      "e285f840c5b7c7fb88a2db90e56a6d37d101a93568023a2cf7ad749120dfa045",
      "a3d482c270d52a893d05af70ec356b64d2f7ce2691eac6899587a1ee71221bbf" },

    { "path style: UploadPart", &own, "PUT", OWN_PATH,
      "partNumber=1&uploadId=VXBsb2FkSWQ%2F%2BX%3D%3D",
      { OWN_HOST,
        OWN_DATE,
        { "x-amz-content-sha256", S3_UNSIGNED_PAYLOAD } },
      S3_UNSIGNED_PAYLOAD,
      "host;x-amz-content-sha256;x-amz-date",
      "cd2f97ccfc416ad1338392ae3c9779c352495d8f7fb026884a5fdc35b2069c96",
      "cb84380640a9e228fe8cd06d35933179bfed530dd164ee5f32815f95dc0b0563" },

    { "DynamoDB: UpdateItem", &dynamodb, "POST", "/",
      "",
      { { "Content-Type", "application/x-amz-json-1.0" },
        { "Host", "dynamodb.us-east-1.amazonaws.com" },
        OWN_DATE,
        { "X-Amz-Target", "DynamoDB_20120810.UpdateItem" } },
      "0e177bb76027ffca6b5bac35306c26713414f866e957047d8500ca65a55e2f34",
      "content-type;host;x-amz-date;x-amz-target",
      "45787c453e4ef0f67dda5e79ae5d7aea8925371e2a08213bf7aa668c5698c039",
      "ba24a7740e56270390f531bb9c7b124cc26c2490de5ffba5da8d2968b5d5fdb4" },
};


#define N_VECTORS  (sizeof(vectors) / sizeof(vectors[0]))

#define LARGE  (64 * 1024)


typedef struct {
    s3_sigv4_request_t  request;
    s3_keys_t           keys;
    s3_field_t          fields[S3_SIGV4_MAX_FIELDS + 1];
} setup_t;


static void
set_up(setup_t *s, const vector_t *v)
{
    size_t               i;
    s3_sigv4_request_t  *r;

    memset(s, 0, sizeof(setup_t));

    r = &s->request;
    r->method = s3_test_str(v->method);
    r->path = s3_test_str(v->path);
    r->query = s3_test_str(v->query);
    r->payload = s3_test_str(v->payload);
    r->region = s3_test_str(v->signer->region);
    r->service = s3_test_str(v->signer->service);
    r->date = s3_test_str(v->signer->date);
    r->fields = s->fields;

    for (i = 0; i < MAX_FIELDS && v->fields[i][0] != NULL; i++) {
        s->fields[i].name = s3_test_str(v->fields[i][0]);
        s->fields[i].value = s3_test_str(v->fields[i][1]);
        r->nfields++;
    }

    s->keys.access_key = s3_test_str(v->signer->access_key);
    s->keys.secret_key = s3_test_str(v->signer->secret_key);
}


static void
tear_down(setup_t *s)
{
    size_t  i;

    s3_test_drop(s->request.method);
    s3_test_drop(s->request.path);
    s3_test_drop(s->request.query);
    s3_test_drop(s->request.payload);
    s3_test_drop(s->request.region);
    s3_test_drop(s->request.service);
    s3_test_drop(s->request.date);
    s3_test_drop(s->keys.access_key);
    s3_test_drop(s->keys.secret_key);

    for (i = 0; i < s->request.nfields; i++) {
        s3_test_drop(s->fields[i].name);
        s3_test_drop(s->fields[i].value);
    }
}


static const vector_t *
find(const char *name)
{
    size_t  i;

    for (i = 0; i < N_VECTORS; i++) {
        if (strcmp(vectors[i].name, name) == 0) {
            return &vectors[i];
        }
    }

    fail_msg("no vector %s", name);

    return NULL;
}


static void
sign(s3_sigv4_cache_t *cache, setup_t *s, char *out, size_t size)
{
    s3_buf_t  b;

    s3_buf_init(&b, out, size - 1);
    assert_int_equal(s3_sigv4_authorization(cache, &s->keys, &s->request, &b),
                     S3_OK);
    *b.pos = '\0';
}


static void
test_vector(void **state)
{
    char             expected[1024], auth[1024], hash[65];
    setup_t          s;
    s3_buf_t         b;
    unsigned char   *mem;
    const vector_t  *v;

    v = *state;
    set_up(&s, v);

    if (v->hash != NULL) {
        mem = test_malloc(2048);
        s3_buf_init(&b, mem, 2048);
        assert_int_equal(s3_sigv4_canonical(&s.request, &b), S3_OK);
        assert_int_equal(s3_sha256(mem, b.pos - mem, hash), S3_OK);
        assert_string_equal(hash, v->hash);
        test_free(mem);
    }

    snprintf(expected, sizeof(expected),
             "AWS4-HMAC-SHA256 Credential=%s/%.8s/%s/%s/aws4_request, "
             "SignedHeaders=%s, Signature=%s",
             v->signer->access_key, v->signer->date, v->signer->region,
             v->signer->service, v->signed_names, v->signature);

    sign(NULL, &s, auth, sizeof(auth));
    assert_string_equal(auth, expected);

    tear_down(&s);
}


static void
test_canonical_text(void **state)
{
    char               text[512];
    s3_buf_t           b;
    s3_sigv4_request_t r;
    s3_field_t         fields[5];

    (void) state;

    memset(&r, 0, sizeof(r));
    r.method = s3_str("PUT");
    r.path = s3_str("/b/../k%20%2F");
    r.query = s3_str("b=2&a=");
    r.payload = s3_str("UNSIGNED-PAYLOAD");
    r.fields = fields;
    r.nfields = 5;

    fields[0].name = s3_str("X-Amz-Meta-B");
    fields[0].value = s3_str("\t two  words\t\there  ");
    fields[1].name = s3_str("x-amz-meta-a");
    fields[1].value = s3_str("");
    fields[2].name = s3_str("HOST");
    fields[2].value = s3_str("h");
    fields[3].name = s3_str("x-amz-META-b");
    fields[3].value = s3_str("   ");
    fields[4].name = s3_str("X-Amz-Meta");
    fields[4].value = s3_str("shorter");

    s3_buf_init(&b, text, sizeof(text) - 1);
    assert_int_equal(s3_sigv4_canonical(&r, &b), S3_OK);
    *b.pos = '\0';

    assert_string_equal(text,
                        "PUT\n/b/../k%20%2F\nb=2&a=\n"
                        "host:h\n"
                        "x-amz-meta:shorter\n"
                        "x-amz-meta-a:\n"
                        "x-amz-meta-b:two words here,\n"
                        "\n"
                        "host;x-amz-meta;x-amz-meta-a;x-amz-meta-b\n"
                        "UNSIGNED-PAYLOAD");
}


static void
test_key(void **state)
{
    char           text[65];
    s3_buf_t       b;
    unsigned char  key[32];

    (void) state;

    assert_int_equal(s3_sigv4_key(s3_str(suite.secret_key),
                                  s3_str("20120215"), s3_str("us-east-1"),
                                  s3_str("iam"), key), S3_OK);
    s3_buf_init(&b, text, 64);
    s3_buf_put_hex(&b, key, 32);
    text[64] = '\0';
    assert_string_equal(text, "f4780e2d9f65fa895f9c67b32ce1baf0"
                              "b0d8a43505a000a1a9e090d414db404d");

    assert_int_equal(s3_sigv4_key(s3_str(suite.secret_key),
                                  s3_str("20150830T123600Z"),
                                  s3_str("us-east-1"), s3_str("service"),
                                  key), S3_OK);
    s3_buf_init(&b, text, 64);
    s3_buf_put_hex(&b, key, 32);
    assert_string_equal(text, "938127b5336810ddb6a5d6af445fcac9"
                              "e371f9ed418ed386b022aed82901be75");

    assert_int_equal(s3_sigv4_key(s3_str(doc.secret_key),
                                  s3_str("20130524"), s3_str("us-east-1"),
                                  s3_str("s3"), key), S3_OK);
    s3_buf_init(&b, text, 64);
    s3_buf_put_hex(&b, key, 32);
    assert_string_equal(text, "dbb893acc010964918f1fd433add87c7"
                              "0e8b0db6be30c1fbeafefa5ec6ba8378");

    assert_int_equal(s3_sigv4_key(s3_str(doc.secret_key), s3_str("2013052"),
                                  s3_str("us-east-1"), s3_str("s3"), key),
                     S3_ERROR);
}


static void
test_cache(void **state)
{
    char              a[1024], b[1024];
    size_t            i;
    setup_t           s;
    s3_str_t         *varied[4], saved;
    const char       *other[4];
    s3_sigv4_cache_t  cache;

    (void) state;

    set_up(&s, find("S3: GET object"));
    memset(&cache, 0, sizeof(cache));

    sign(NULL, &s, a, sizeof(a));
    sign(&cache, &s, b, sizeof(b));
    assert_string_equal(a, b);
    assert_true(cache.scope_len > 0);

    sign(&cache, &s, b, sizeof(b));
    assert_string_equal(a, b);

    /* the key comes out of the cache: a wrong one there signs wrongly */

    cache.key[0] ^= 1;
    sign(&cache, &s, b, sizeof(b));
    assert_string_not_equal(a, b);

    /* and each piece of its scope replaces it */

    varied[0] = &s.keys.secret_key;
    other[0] = "another secret";
    varied[1] = &s.request.date;
    other[1] = "20130525T000000Z";
    varied[2] = &s.request.region;
    other[2] = "eu-central-1";
    varied[3] = &s.request.service;
    other[3] = "sts";

    for (i = 0; i < 4; i++) {
        saved = *varied[i];
        *varied[i] = s3_str(other[i]);

        sign(NULL, &s, a, sizeof(a));
        sign(&cache, &s, b, sizeof(b));
        assert_string_equal(a, b);

        *varied[i] = saved;

        sign(NULL, &s, a, sizeof(a));
        sign(&cache, &s, b, sizeof(b));
        assert_string_equal(a, b);
    }

    /* another time of the same day is the same scope */

    cache.key[0] ^= 1;
    saved = s.request.date;
    s.request.date = s3_str("20130524T235959Z");
    sign(NULL, &s, a, sizeof(a));
    sign(&cache, &s, b, sizeof(b));
    assert_string_not_equal(a, b);
    s.request.date = saved;

    tear_down(&s);
}


/* a head of 48 KiB: the digest of the streamed form is that of the text */

static void
test_large(void **state)
{
    char           auth[4096], hash[65], sig[65], string[256];
    size_t         i;
    setup_t        s;
    unsigned       len;
    s3_buf_t       b;
    unsigned char  key[32], mac[32], *mem;
    char           names[S3_SIGV4_MAX_FIELDS][16], *value;

    (void) state;

    set_up(&s, find("S3: GET object"));

    value = test_malloc(1024);
    memset(value, 'v', 1023);
    value[1023] = '\0';

    for (i = s.request.nfields; i < S3_SIGV4_MAX_FIELDS; i++) {
        snprintf(names[i], sizeof(names[i]), "X-Field-%02u", (unsigned) i);
        s.fields[i].name = s3_test_str(names[i]);
        s.fields[i].value = s3_test_str(value);
    }

    s.request.nfields = S3_SIGV4_MAX_FIELDS;

    mem = test_malloc(LARGE);
    s3_buf_init(&b, mem, LARGE);
    assert_int_equal(s3_sigv4_canonical(&s.request, &b), S3_OK);
    assert_true(b.pos - mem > 48 * 1024);
    assert_int_equal(s3_sha256(mem, b.pos - mem, hash), S3_OK);
    test_free(mem);

    snprintf(string, sizeof(string),
             "AWS4-HMAC-SHA256\n20130524T000000Z\n"
             "20130524/us-east-1/s3/aws4_request\n%s", hash);

    assert_int_equal(s3_sigv4_key(s.keys.secret_key, s.request.date,
                                  s.request.region, s.request.service, key),
                     S3_OK);
    assert_non_null(HMAC(EVP_sha256(), key, 32, (unsigned char *) string,
                         strlen(string), mac, &len));
    s3_buf_init(&b, sig, 64);
    s3_buf_put_hex(&b, mac, 32);
    sig[64] = '\0';

    sign(NULL, &s, auth, sizeof(auth));
    assert_non_null(strstr(auth, sig));

    /* one field more than can be signed */

    s.fields[S3_SIGV4_MAX_FIELDS] = s.fields[0];
    s.request.nfields++;
    s3_buf_init(&b, auth, sizeof(auth));
    assert_int_equal(s3_sigv4_authorization(NULL, &s.keys, &s.request, &b),
                     S3_ERROR);
    assert_ptr_equal(b.pos, auth);
    s.request.nfields--;

    test_free(value);
    tear_down(&s);
}


/* a name longer than the piece in which names are put into lower case */

static void
test_long_name(void **state)
{
    char                text[512], name[200];
    size_t              i;
    s3_buf_t            b;
    s3_field_t          field;
    s3_sigv4_request_t  r;

    (void) state;

    memset(&r, 0, sizeof(r));
    memset(name, 'N', sizeof(name));

    for (i = 63; i <= sizeof(name); i++) {
        field.name.data = (unsigned char *) name;
        field.name.len = i;
        field.value = s3_str("v");
        r.fields = &field;
        r.nfields = 1;

        s3_buf_init(&b, text, sizeof(text));
        assert_int_equal(s3_sigv4_canonical(&r, &b), S3_OK);
        assert_int_equal(s3_buf_str(&b).len, 3 + i + 4 + i + 1);
        assert_null(memchr(text, 'N', s3_buf_str(&b).len));
        assert_memory_equal(text + 3 + i, ":v\n\n", 4);
    }
}


/* never cut: every size below the right one is an error */

static void
test_small_output(void **state)
{
    char       auth[1024];
    size_t     size, need;
    setup_t    s;
    s3_buf_t   b;
    char      *mem;

    (void) state;

    set_up(&s, find("S3: PUT object"));
    sign(NULL, &s, auth, sizeof(auth));
    need = strlen(auth);

    for (size = 0; size <= need; size++) {
        mem = test_malloc(size ? size : 1);
        s3_buf_init(&b, mem, size);

        if (size == need) {
            assert_int_equal(s3_sigv4_authorization(NULL, &s.keys, &s.request,
                                                    &b), S3_OK);
            assert_memory_equal(mem, auth, need);

        } else {
            assert_int_equal(s3_sigv4_authorization(NULL, &s.keys, &s.request,
                                                    &b), S3_ERROR);
            assert_ptr_equal(b.pos, mem);

            s3_buf_init(&b, mem, size < 200 ? size : 200);
            assert_int_equal(s3_sigv4_canonical(&s.request, &b), S3_ERROR);
        }

        test_free(mem);
    }

    tear_down(&s);
}


static void
refused(setup_t *s)
{
    char      auth[4096];
    s3_buf_t  b;

    s3_buf_init(&b, auth, sizeof(auth));
    assert_int_equal(s3_sigv4_authorization(NULL, &s->keys, &s->request, &b),
                     S3_ERROR);
    assert_ptr_equal(b.pos, auth);
}


static void
test_refused(void **state)
{
    char      longer[600];
    setup_t   s;
    s3_str_t  saved;

    (void) state;

    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';

    set_up(&s, find("S3: GET object"));

    saved = s.fields[1].value;
    s.fields[1].value = s3_str("a\nx-amz-date:b");
    refused(&s);
    s.fields[1].value = s3_str("a\r");
    refused(&s);
    s.fields[1].value = saved;

    saved = s.fields[1].name;
    s.fields[1].name = s3_str("a\nb");
    refused(&s);
    s.fields[1].name = s3_str("");
    refused(&s);
    s.fields[1].name = saved;

    saved = s.request.date;
    s.request.date = s3_str("20130524");
    refused(&s);
    s.request.date = saved;

    saved = s.request.region;
    s.request.region = s3_str(longer);
    refused(&s);
    s.request.region = saved;

    saved = s.keys.secret_key;
    s.keys.secret_key = s3_str(longer);
    refused(&s);
    s.keys.secret_key = saved;

    tear_down(&s);
}


static void
test_date(void **state)
{
    char        date[S3_SIGV4_DATE_LEN + 1], expected[64];
    time_t      t;
    struct tm  *tm;

    (void) state;

    s3_sigv4_date(0, date);
    assert_string_equal(date, "19700101T000000Z");
    s3_sigv4_date(-1, date);
    assert_string_equal(date, "19700101T000000Z");
    s3_sigv4_date(1440938160, date);
    assert_string_equal(date, "20150830T123600Z");
    s3_sigv4_date(951827696, date);
    assert_string_equal(date, "20000229T123456Z");
    s3_sigv4_date(4107542399, date);
    assert_string_equal(date, "21000228T235959Z");
    s3_sigv4_date(4107542400, date);
    assert_string_equal(date, "21000301T000000Z");
    s3_sigv4_date(253402300799, date);
    assert_string_equal(date, "99991231T235959Z");
    s3_sigv4_date(INT64_MAX, date);
    assert_string_equal(date, "99991231T235959Z");

    /* the C library's calendar, every 1.7 days of 8,000 years */

    for (t = 0; t < 253402300799; t += 146893) {
        tm = gmtime(&t);
        strftime(expected, sizeof(expected), "%Y%m%dT%H%M%SZ", tm);
        s3_sigv4_date(t, date);
        assert_string_equal(date, expected);
    }
}


int
main(void)
{
    size_t             i, n;
    struct CMUnitTest  tests[N_VECTORS + 16];
    const struct CMUnitTest  others[] = {
        cmocka_unit_test(test_canonical_text),
        cmocka_unit_test(test_key),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_long_name),
        cmocka_unit_test(test_small_output),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_date)
    };

    memset(tests, 0, sizeof(tests));

    for (n = 0; n < N_VECTORS; n++) {
        tests[n].name = vectors[n].name;
        tests[n].test_func = test_vector;
        tests[n].initial_state = (void *) &vectors[n];
    }

    for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        tests[n++] = others[i];
    }

    return _cmocka_run_group_tests("sigv4", tests, n, NULL, NULL);
}
