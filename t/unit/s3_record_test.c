#include "s3_record_test.h"


static unsigned
percentage(uint64_t bytes, int64_t total)
{
    r.bytes_transferred = bytes;
    r.total_bytes = total;

    return s3_record_percentage(&r);
}


static unsigned
stored(uint64_t bytes, int64_t total, s3_state_e state)
{
    r.bytes_stored = bytes;
    r.total_bytes = total;
    r.state = state;

    return s3_record_stored_percentage(&r);
}


static void
test_percentage(void **state)
{
    uint64_t  n, total;

    (void) state;

    s3_record_init(&r);

    assert_int_equal(percentage(0, 9029243448), 0);
    assert_int_equal(percentage(90292434, 9029243448), 0);
    assert_int_equal(percentage(90292435, 9029243448), 1);
    assert_int_equal(percentage(99000035, 9029243448), 1);
    assert_int_equal(percentage(9029243447, 9029243448), 99);
    assert_int_equal(percentage(9029243448, 9029243448), 100);

    /* more than was announced */

    assert_int_equal(percentage(5, 3), 100);
    assert_int_equal(percentage(UINT64_MAX, 3), 100);

    /* unknown */

    assert_int_equal(percentage(0, -1), 0);
    assert_int_equal(percentage(104857600, -1), 0);
    assert_int_equal(percentage(UINT64_MAX, -1), 0);

    /* no overflow */

    n = INT64_MAX;

    assert_int_equal(percentage(n, INT64_MAX), 100);
    assert_int_equal(percentage(n - 1, INT64_MAX), 99);
    assert_int_equal(percentage(n / 2, INT64_MAX), 49);
    assert_int_equal(percentage(n / 2 + 1, INT64_MAX), 50);
    assert_int_equal(percentage(n / 100, INT64_MAX), 0);
    assert_int_equal(percentage(n / 100 + 1, INT64_MAX), 1);
    assert_int_equal(percentage(1, INT64_MAX), 0);
    assert_int_equal(percentage(UINT64_MAX, INT64_MAX), 100);

    for (total = 1; total <= 301; total++) {
        for (n = 0; n <= total; n++) {
            assert_int_equal(percentage(n, (int64_t) total), 100 * n / total);
        }
    }
}


static void
test_empty_object(void **state)
{
    (void) state;

    s3_record_init(&r);

    r.state = S3_STATE_ACTIVE;
    assert_int_equal(percentage(0, 0), 0);
    assert_int_equal(stored(0, 0, S3_STATE_COMPLETING), 0);
    assert_int_equal(stored(0, 0, S3_STATE_FAILED), 0);
    assert_int_equal(percentage(0, 0), 0);
    assert_int_equal(stored(0, 0, S3_STATE_COMPLETED), 100);
    assert_int_equal(percentage(0, 0), 100);
}


static void
test_stored_percentage(void **state)
{
    (void) state;

    s3_record_init(&r);

    assert_int_equal(stored(0, 1000, S3_STATE_ACTIVE), 0);
    assert_int_equal(stored(989, 1000, S3_STATE_ACTIVE), 98);
    assert_int_equal(stored(990, 1000, S3_STATE_ACTIVE), 99);
    assert_int_equal(stored(1000, 1000, S3_STATE_ACTIVE), 99);
    assert_int_equal(stored(1000, 1000, S3_STATE_COMPLETING), 99);
    assert_int_equal(stored(1000, 1000, S3_STATE_FAILED), 99);
    assert_int_equal(stored(1000, 1000, S3_STATE_ABORTED), 99);
    assert_int_equal(stored(1000, 1000, S3_STATE_COMPLETED), 100);
    assert_int_equal(stored(1000, -1, S3_STATE_ACTIVE), 0);
}


static uint64_t
rate(uint64_t bytes, uint64_t started_at, uint64_t updated_at)
{
    r.bytes_transferred = bytes;
    r.started_at = started_at;
    r.updated_at = updated_at;

    return s3_record_rate(&r);
}


static void
test_rate(void **state)
{
    (void) state;

    s3_record_init(&r);

    assert_true(rate(1000, 5000, 6000) == 1000);
    assert_true(rate(1000, 5000, 5001) == 1000000);
    assert_true(rate(9029243448, 1795467600123, 1795467690123) == 100324927);
    assert_true(rate(999, 0, 1000000) == 0);
    assert_true(rate(1001, 0, 1000000) == 1);

    /* no time, or a clock that was set back */

    assert_true(rate(1000, 5000, 5000) == 0);
    assert_true(rate(1000, 5000, 4999) == 0);
    assert_true(rate(0, 0, 0) == 0);

    /* no overflow */

    assert_true(rate(UINT64_MAX, 0, 1) == UINT64_MAX);
    assert_true(rate(UINT64_MAX, 0, 1000) == UINT64_MAX);
    assert_true(rate(UINT64_MAX, 0, 2000) == UINT64_MAX / 2);
    assert_true(rate(UINT64_MAX, 0, UINT64_MAX) == 1000);
    assert_true(rate(UINT64_MAX - 1, 0, UINT64_MAX) <= 1000);
    assert_true(rate((uint64_t) INT64_MAX, 0, 1000) == INT64_MAX);
}


static void
test_compare(void **state)
{
    s3_record_t  a, b;

    (void) state;

    s3_record_init(&a);
    s3_record_init(&b);

    assert_int_equal(s3_record_compare(&a, &b), 0);

    a.sequence = 1;
    assert_true(s3_record_compare(&a, &b) > 0);
    assert_true(s3_record_compare(&b, &a) < 0);

    b.attempt = 1;
    assert_true(s3_record_compare(&a, &b) < 0);
    assert_true(s3_record_compare(&b, &a) > 0);

    a.attempt = UINT64_MAX;
    assert_true(s3_record_compare(&a, &b) > 0);
    assert_true(s3_record_compare(&b, &a) < 0);

    b = a;
    b.bytes_transferred = 7;
    assert_int_equal(s3_record_compare(&a, &b), 0);
}


static void
test_states(void **state)
{
    unsigned    i;
    s3_state_e  back;

    static const char *const  names[] = {
        "active", "completing", "completed", "failed", "aborted"
    };

    (void) state;

    for (i = 0; i < S3_STATE_N; i++) {
        assert_string_equal(s3_state_name((s3_state_e) i), names[i]);
        assert_int_equal(s3_state_parse(s3_str(names[i]), &back), S3_OK);
        assert_int_equal(back, i);
        assert_int_equal(s3_state_final(i), i >= 2);
    }

    back = S3_STATE_FAILED;

    assert_int_equal(s3_state_parse(s3_str("Active"), &back), S3_ERROR);
    assert_int_equal(s3_state_parse(s3_str("complete"), &back), S3_ERROR);
    assert_int_equal(s3_state_parse(s3_str("active "), &back), S3_ERROR);
    assert_int_equal(s3_state_parse(s3_str(""), &back), S3_ERROR);
    assert_int_equal(back, S3_STATE_FAILED);
    assert_string_equal(s3_state_name(S3_STATE_N), "");
}


static void
assert_time(uint64_t ms, const char *want)
{
    char  out[25];

    s3_record_time(ms, out);
    assert_string_equal(out, want);
}


static void
test_time(void **state)
{
    (void) state;

    assert_time(0, "1970-01-01T00:00:00.000Z");
    assert_time(951782399999, "2000-02-28T23:59:59.999Z");
    assert_time(951782400000, "2000-02-29T00:00:00.000Z");
    assert_time(951868800000, "2000-03-01T00:00:00.000Z");
    assert_time(1795467600123, "2026-11-23T21:00:00.123Z");
    assert_time(1798761599000, "2026-12-31T23:59:59.000Z");
    assert_time(1798761600000, "2027-01-01T00:00:00.000Z");
    assert_time(4107542399000, "2100-02-28T23:59:59.000Z");
    assert_time(4107542400000, "2100-03-01T00:00:00.000Z");
    assert_time(253402300800000, "9999-12-31T23:59:59.999Z");
    assert_time(UINT64_MAX, "9999-12-31T23:59:59.999Z");
}


static int
set(const char *name, const char *value)
{
    int             rc;
    size_t          len;
    s3_str_t        s;
    unsigned char  *copy;

    len = strlen(value);
    copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, value, len);

    s.data = copy;
    s.len = len;

    rc = s3_record_set(&r, s3_str(name), s);
    free(copy);

    return rc;
}


static void
test_time_round_trip(void **state)
{
    char      text[25];
    uint64_t  ms;

    (void) state;

    s3_record_init(&r);

    /* a step of a day and a bit through all years */

    for (ms = 0; ms < 253402300800000; ms += 86412345) {
        s3_record_time(ms, text);
        assert_int_equal(set("updatedAt", text), S3_OK);
        assert_true(r.updated_at == ms);
    }
}


static void
test_time_refused(void **state)
{
    size_t  i;

    static const char *const  bad[] = {
        "", "2026", "2026-11-23T21:00:00Z", "2026-11-23 21:00:00.123Z",
        "2026-11-23T21:00:00.123", "2026-11-23T21:00:00.123z",
        "2026-11-23T21:00:00.123+", "2026-13-23T21:00:00.123Z",
        "2026-00-23T21:00:00.123Z", "2026-11-31T21:00:00.123Z",
        "2026-11-00T21:00:00.123Z", "2026-02-29T21:00:00.123Z",
        "2026-11-23T24:00:00.123Z", "2026-11-23T21:60:00.123Z",
        "2026-11-23T21:00:60.123Z", "1969-12-31T23:59:59.999Z",
        "0000-01-01T00:00:00.000Z", "-026-11-23T21:00:00.123Z",
        "2026-11-23T21:00:00.123Z ", "1970-01-00T00:00:00.000Z",
        "9999-12-99T99:99:99.999Z",
        "2026-11-2aT21:00:00.123Z", "2026-11-2/T21:00:00.123Z",
        "2026-11-2:T21:00:00.123Z", "2026-11-23T21:00:00.1\xff\x33Z"
    };

    (void) state;

    s3_record_init(&r);

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(set("startedAt", bad[i]), S3_ERROR);
        assert_true(r.started_at == 0);
    }
}


/* the largest record fits into what the header promises */

static void
test_largest(void **state)
{
    int                n, i;
    char               mem[S3_RECORD_JSON_MAX];
    unsigned char      scratch_mem[S3_RECORD_SCRATCH];
    s3_buf_t           b;
    s3_record_field_t  fields[S3_RECORD_MAX_FIELDS];

    static const char  bytes[] = "\x01\xff";

    (void) state;

    for (i = 0; i < 2; i++) {
        s3_record_init(&r);

        memset(r.id, bytes[i], sizeof(r.id) - 1);
        memset(r.bucket, bytes[i], sizeof(r.bucket) - 1);
        memset(r.key, bytes[i], sizeof(r.key) - 1);
        memset(r.etag, bytes[i], sizeof(r.etag) - 1);
        memset(r.error, bytes[i], sizeof(r.error) - 1);
        memset(r.owner, bytes[i], sizeof(r.owner) - 1);

        r.attempt = UINT64_MAX;
        r.sequence = UINT64_MAX;
        r.bytes_transferred = UINT64_MAX;
        r.bytes_stored = UINT64_MAX;
        r.total_bytes = INT64_MAX;
        r.parts_stored = UINT64_MAX;
        r.started_at = UINT64_MAX - 1;
        r.updated_at = UINT64_MAX;
        r.expires_at = UINT64_MAX;
        r.has_crc32 = 1;

        s3_buf_init(&b, mem, sizeof(mem));
        assert_int_equal(s3_record_json(&r, &b), S3_OK);

        s3_buf_init(&b, scratch_mem, sizeof(scratch_mem));
        n = s3_record_fields(&r, fields, &b);
        assert_int_equal(n, 21);
    }
}


static const s3_record_field_t *
field(const s3_record_field_t *fields, int n, const char *name)
{
    int  i;

    for (i = 0; i < n; i++) {
        if (strcmp(fields[i].name, name) == 0) {
            return &fields[i];
        }
    }

    return NULL;
}


static void
assert_field(const s3_record_field_t *fields, int n, const char *name,
    const char *value, unsigned number)
{
    const s3_record_field_t  *f;

    f = field(fields, n, name);

    assert_non_null(f);
    assert_int_equal(f->value.len, strlen(value));
    assert_memory_equal(f->value.data, value, f->value.len);
    assert_int_equal(f->number, number);
}


static void
test_fields(void **state)
{
    int                n;
    unsigned char      mem[S3_RECORD_SCRATCH];
    s3_buf_t           scratch;
    s3_record_field_t  fields[S3_RECORD_MAX_FIELDS];

    (void) state;

    fill();
    s3_buf_init(&scratch, mem, sizeof(mem));
    n = s3_record_fields(&r, fields, &scratch);

    /* all but error, with owner */

    assert_int_equal(n, 20);
    assert_string_equal(fields[0].name, "transferId");
    assert_string_equal(fields[n - 1].name, "owner");
    assert_field(fields, n, "transferId", r.id, 0);
    assert_field(fields, n, "attempt", "1795467600123", 1);
    assert_field(fields, n, "sequence", "42", 1);
    assert_field(fields, n, "state", "completed", 0);
    assert_field(fields, n, "direction", "upload", 0);
    assert_field(fields, n, "bucket", "incoming", 0);
    assert_field(fields, n, "key", r.key, 0);
    assert_field(fields, n, "bytesTransferred", "9029243448", 1);
    assert_field(fields, n, "bytesStored", "9029243448", 1);
    assert_field(fields, n, "totalBytes", "9029243448", 1);
    assert_field(fields, n, "percentage", "100", 1);
    assert_field(fields, n, "storedPercentage", "100", 1);
    assert_field(fields, n, "partsStored", "539", 1);
    assert_field(fields, n, "rate", "100324927", 1);
    assert_field(fields, n, "startedAt", "2026-11-23T21:00:00.123Z", 0);
    assert_field(fields, n, "updatedAt", "2026-11-23T21:01:30.123Z", 0);
    assert_field(fields, n, "expiresAt", "2026-11-24T21:01:30.123Z", 0);
    assert_field(fields, n, "etag", r.etag, 0);
    assert_field(fields, n, "crc32", "y/Q5Jg==", 0);
    assert_field(fields, n, "owner", "alice", 0);
    assert_null(field(fields, n, "error"));

    /* unknown values are absent, zeros are not */

    s3_record_init(&r);
    s3_buf_init(&scratch, mem, sizeof(mem));
    n = s3_record_fields(&r, fields, &scratch);
    assert_int_equal(n, 10);
    assert_field(fields, n, "bytesStored", "0", 1);
    assert_field(fields, n, "rate", "0", 1);
    assert_field(fields, n, "percentage", "0", 1);
    assert_field(fields, n, "state", "active", 0);
    assert_null(field(fields, n, "totalBytes"));
    assert_null(field(fields, n, "etag"));
    assert_null(field(fields, n, "crc32"));
    assert_null(field(fields, n, "owner"));
    assert_null(field(fields, n, "startedAt"));

    r.total_bytes = 0;
    s3_buf_init(&scratch, mem, sizeof(mem));
    n = s3_record_fields(&r, fields, &scratch);
    assert_field(fields, n, "totalBytes", "0", 1);
}


static void
test_fields_scratch(void **state)
{
    int                n;
    size_t             i, need;
    unsigned char     *mem;
    s3_buf_t           scratch;
    s3_record_field_t  fields[S3_RECORD_MAX_FIELDS];

    (void) state;

    fill();
    need = 0;

    for (i = 0; i < S3_RECORD_SCRATCH && need == 0; i++) {
        mem = malloc(i ? i : 1);
        assert_non_null(mem);
        s3_buf_init(&scratch, mem, i);

        n = s3_record_fields(&r, fields, &scratch);

        if (n != -1) {
            assert_int_equal(n, 20);
            assert_int_equal(scratch.pos - scratch.start, i);
            need = i;
        }

        free(mem);
    }

    assert_true(need > 100);
}


static void
assert_same(const s3_record_t *a, const s3_record_t *b)
{
    assert_string_equal(a->id, b->id);
    assert_string_equal(a->bucket, b->bucket);
    assert_string_equal(a->key, b->key);
    assert_string_equal(a->etag, b->etag);
    assert_string_equal(a->error, b->error);
    assert_string_equal(a->owner, b->owner);
    assert_true(a->attempt == b->attempt);
    assert_true(a->sequence == b->sequence);
    assert_int_equal(a->state, b->state);
    assert_int_equal(a->direction, b->direction);
    assert_true(a->bytes_transferred == b->bytes_transferred);
    assert_true(a->bytes_stored == b->bytes_stored);
    assert_true(a->total_bytes == b->total_bytes);
    assert_true(a->parts_stored == b->parts_stored);
    assert_true(a->started_at == b->started_at);
    assert_true(a->updated_at == b->updated_at);
    assert_true(a->expires_at == b->expires_at);
    assert_int_equal(a->crc32, b->crc32);
    assert_int_equal(a->has_crc32, b->has_crc32);
}


/* over a record whose strings are longer, and into one that says nothing */

static void
test_copy(void **state)
{
    s3_record_t  to, full;

    (void) state;

    memset(&full, 0xee, sizeof(full));
    memset(full.id, 'i', S3_ID_MAX);
    memset(full.bucket, 'b', S3_BUCKET_MAX);
    memset(full.key, 'k', S3_KEY_MAX);
    memset(full.etag, 't', S3_ETAG_MAX);
    memset(full.error, 'e', S3_ERROR_MAX);
    memset(full.owner, 'o', S3_OWNER_MAX);
    full.id[S3_ID_MAX] = '\0';
    full.bucket[S3_BUCKET_MAX] = '\0';
    full.key[S3_KEY_MAX] = '\0';
    full.etag[S3_ETAG_MAX] = '\0';
    full.error[S3_ERROR_MAX] = '\0';
    full.owner[S3_OWNER_MAX] = '\0';

    fill();

    to = full;
    s3_record_copy(&to, &r);
    assert_same(&to, &r);

    s3_record_copy(&to, &full);
    assert_same(&to, &full);

    /* what names it stays */

    s3_record_update(&to, &r);
    assert_string_equal(to.id, full.id);
    assert_string_equal(to.bucket, full.bucket);
    assert_string_equal(to.key, full.key);
    assert_string_equal(to.owner, full.owner);

    strcpy(to.id, r.id);
    strcpy(to.bucket, r.bucket);
    strcpy(to.key, r.key);
    strcpy(to.owner, r.owner);
    assert_same(&to, &r);
}


static void
assert_round_trip(void)
{
    int                i, n;
    unsigned char      mem[S3_RECORD_SCRATCH];
    s3_buf_t           scratch;
    s3_record_t        back;
    s3_record_field_t  fields[S3_RECORD_MAX_FIELDS];

    s3_buf_init(&scratch, mem, sizeof(mem));
    n = s3_record_fields(&r, fields, &scratch);
    assert_true(n > 0);

    s3_record_init(&back);

    for (i = 0; i < n; i++) {
        assert_int_equal(s3_record_set(&back, s3_str(fields[i].name),
                                       fields[i].value), S3_OK);
    }

    assert_same(&back, &r);
}


static void
test_set_round_trip(void **state)
{
    (void) state;

    fill();
    assert_round_trip();

    strcpy(r.error, "NoSuchBucket: The bucket does not exist");
    r.state = S3_STATE_FAILED;
    r.direction = S3_DOWNLOAD;
    r.total_bytes = -1;
    r.has_crc32 = 0;
    r.crc32 = 0;
    r.etag[0] = '\0';
    r.bytes_stored = 0;
    assert_round_trip();

    r.total_bytes = INT64_MAX;
    r.bytes_transferred = UINT64_MAX;
    r.has_crc32 = 1;
    r.expires_at = 253402300799999;
    memset(r.key, 0xff, S3_KEY_MAX);
    memset(r.error, 'e', S3_ERROR_MAX);
    memset(r.owner, 'o', S3_OWNER_MAX);
    assert_round_trip();

    s3_record_init(&r);
    assert_round_trip();
}


static void
test_set_refused(void **state)
{
    size_t       i;
    char         text[S3_KEY_MAX + 2];
    s3_str_t     nul;
    s3_record_t  before;

    static const char *const  bad[][2] = {
        { "attempt", "" }, { "attempt", "-1" }, { "attempt", "1x" },
        { "attempt", " 1" }, { "attempt", "1.5" }, { "attempt", "1e3" },
        { "attempt", "18446744073709551616" },
        { "attempt", "99999999999999999999" },
        { "totalBytes", "9223372036854775808" }, { "totalBytes", "-1" },
        { "totalBytes", "?" }, { "state", "done" }, { "state", "" },
        { "direction", "" }, { "direction", "Upload" }, { "crc32", "" },
        { "crc32", "y/Q5Jg" }, { "crc32", "cbf43926" },
        { "startedAt", "1795467600123" }
    };

    (void) state;

    fill();
    before = r;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(set(bad[i][0], bad[i][1]), S3_ERROR);
    }

    memset(text, 'k', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(set("key", text), S3_ERROR);
    assert_int_equal(set("transferId", text), S3_ERROR);
    assert_int_equal(set("owner", text), S3_ERROR);

    nul.data = (const unsigned char *) "a\0b";
    nul.len = 3;
    assert_int_equal(s3_record_set(&r, s3_str("key"), nul), S3_ERROR);

    assert_memory_equal(&r, &before, sizeof(r));

    /* names of others, and what is computed */

    assert_int_equal(set("ttl", "nonsense"), S3_OK);
    assert_int_equal(set("", "nonsense"), S3_OK);
    assert_int_equal(set("Key", "nonsense"), S3_OK);
    assert_int_equal(set("percentage", "7"), S3_OK);
    assert_int_equal(set("storedPercentage", "7"), S3_OK);
    assert_int_equal(set("rate", "7"), S3_OK);
    assert_memory_equal(&r, &before, sizeof(r));

    text[S3_KEY_MAX] = '\0';
    assert_int_equal(set("key", text), S3_OK);
    assert_string_equal(r.key, text);
    assert_int_equal(set("attempt", "18446744073709551615"), S3_OK);
    assert_true(r.attempt == UINT64_MAX);
    assert_int_equal(set("totalBytes", "9223372036854775807"), S3_OK);
    assert_true(r.total_bytes == INT64_MAX);
}


static void
assert_log(uint64_t bytes, int64_t total, const char *want)
{
    char      mem[S3_RECORD_LOG_MAX];
    s3_buf_t  b;

    r.bytes_transferred = bytes;
    r.total_bytes = total;

    s3_buf_init(&b, mem, sizeof(mem));
    s3_record_log(&r, &b);
    assert_written(&b, want);
}


static void
test_log(void **state)
{
    (void) state;

    s3_record_init(&r);

    assert_log(99000035, 9029243448,
               "Progress: 99000035/9029243448 bytes (1%)");
    assert_log(104857600, -1, "Progress: 104857600/? bytes (0%)");
    assert_log(0, 0, "Progress: 0/0 bytes (0%)");
    assert_log(9029243448, 9029243448,
               "Progress: 9029243448/9029243448 bytes (100%)");
    assert_log(UINT64_MAX, INT64_MAX,
        "Progress: 18446744073709551615/9223372036854775807 bytes (100%)");
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_percentage),
        cmocka_unit_test(test_empty_object),
        cmocka_unit_test(test_stored_percentage),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_time_round_trip),
        cmocka_unit_test(test_time_refused),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_fields_scratch),
        cmocka_unit_test(test_set_round_trip),
        cmocka_unit_test(test_set_refused),
        cmocka_unit_test(test_log)
    };

    return cmocka_run_group_tests_name("s3_record", tests, NULL, NULL);
}
