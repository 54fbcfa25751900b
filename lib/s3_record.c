#include "s3_record.h"
#include "s3_checksum.h"
#include "s3_json.h"

#include <stddef.h>
#include <string.h>


#define S3_RECORD_TIME_LEN  24
#define S3_RECORD_TIME_MAX  253402300799999ULL   /* the year 9999's last ms */
#define S3_RECORD_DAY_MS    86400000ULL


/* the types of attributes; those from S3_RECORD_PERCENTAGE on are computed */

typedef enum {
    S3_RECORD_STRING = 0,
    S3_RECORD_OWNER,                 /* stored, never shown */
    S3_RECORD_U64,
    S3_RECORD_TOTAL,
    S3_RECORD_TIME,
    S3_RECORD_STATE,
    S3_RECORD_DIRECTION,
    S3_RECORD_CRC32,
    S3_RECORD_PERCENTAGE,
    S3_RECORD_STORED_PERCENTAGE,
    S3_RECORD_RATE
} s3_record_type_e;


typedef struct {
    const char        *name;
    s3_str_t           json;         /* quoted, between its neighbours */
    s3_record_type_e   type;
    size_t             offset;
    size_t             size;
} s3_record_attr_t;


/* an attribute's value: a number, or text in the record or in mem */

typedef struct {
    unsigned  known:1;
    unsigned  number:1;
    uint64_t  n;
    s3_str_t  text;
    char      mem[S3_RECORD_TIME_LEN + 1];
} s3_record_value_t;


static unsigned s3_record_percent(const s3_record_t *r, uint64_t bytes);
static void s3_record_get(const s3_record_t *r, const s3_record_attr_t *a,
    s3_record_value_t *v);
static void s3_record_text(s3_record_value_t *v, const char *s);
static int s3_record_store(s3_record_t *r, const s3_record_attr_t *a,
    s3_str_t value);
static int s3_record_parse_time(s3_str_t s, uint64_t *ms);
static unsigned s3_record_digits(const unsigned char *p, size_t n);
static void s3_record_print(char *p, unsigned n, size_t digits);


#define s3_record_attr(name, type, member)                                   \
    { name, s3_string(",\"" name "\":"), type,                               \
      offsetof(s3_record_t, member), sizeof(((s3_record_t *) 0)->member) }

#define s3_record_computed(name, type)                                       \
    { name, s3_string(",\"" name "\":"), type, 0, 0 }

/* the public order */

static const s3_record_attr_t  s3_record_attrs[] = {
    s3_record_attr("transferId", S3_RECORD_STRING, id),
    s3_record_attr("attempt", S3_RECORD_U64, attempt),
    s3_record_attr("sequence", S3_RECORD_U64, sequence),
    s3_record_attr("state", S3_RECORD_STATE, state),
    s3_record_attr("direction", S3_RECORD_DIRECTION, direction),
    s3_record_attr("bucket", S3_RECORD_STRING, bucket),
    s3_record_attr("key", S3_RECORD_STRING, key),
    s3_record_attr("bytesTransferred", S3_RECORD_U64, bytes_transferred),
    s3_record_attr("bytesStored", S3_RECORD_U64, bytes_stored),
    s3_record_attr("totalBytes", S3_RECORD_TOTAL, total_bytes),
    s3_record_computed("percentage", S3_RECORD_PERCENTAGE),
    s3_record_computed("storedPercentage", S3_RECORD_STORED_PERCENTAGE),
    s3_record_attr("partsStored", S3_RECORD_U64, parts_stored),
    s3_record_computed("rate", S3_RECORD_RATE),
    s3_record_attr("startedAt", S3_RECORD_TIME, started_at),
    s3_record_attr("updatedAt", S3_RECORD_TIME, updated_at),
    s3_record_attr("expiresAt", S3_RECORD_TIME, expires_at),
    s3_record_attr("etag", S3_RECORD_STRING, etag),
    s3_record_attr("error", S3_RECORD_STRING, error),
    s3_record_attr("crc32", S3_RECORD_CRC32, crc32),
    s3_record_attr("owner", S3_RECORD_OWNER, owner)
};

#define S3_RECORD_ATTRS  (sizeof(s3_record_attrs) / sizeof(s3_record_attr_t))


static const char *const  s3_record_states[S3_STATE_N] = {
    "active", "completing", "completed", "failed", "aborted"
};

static const char *const  s3_record_directions[] = { "upload", "download" };


const char *
s3_state_name(s3_state_e state)
{
    return (unsigned) state < S3_STATE_N ? s3_record_states[state] : "";
}


int
s3_state_parse(s3_str_t name, s3_state_e *state)
{
    unsigned  i;

    for (i = 0; i < S3_STATE_N; i++) {
        if (s3_str_eqs(name, s3_record_states[i])) {
            *state = (s3_state_e) i;
            return S3_OK;
        }
    }

    return S3_ERROR;
}


unsigned
s3_record_percentage(const s3_record_t *r)
{
    return s3_record_percent(r, r->bytes_transferred);
}


unsigned
s3_record_stored_percentage(const s3_record_t *r)
{
    unsigned  percent;

    percent = s3_record_percent(r, r->bytes_stored);

    if (percent == 100 && r->state != S3_STATE_COMPLETED) {
        return 99;
    }

    return percent;
}


uint64_t
s3_record_rate(const s3_record_t *r)
{
    uint64_t  ms, whole, rest;

    if (r->updated_at <= r->started_at) {
        return 0;
    }

    ms = r->updated_at - r->started_at;
    whole = r->bytes_transferred / ms;
    rest = r->bytes_transferred % ms;

    if (whole >= UINT64_MAX / 1000) {
        return UINT64_MAX;
    }

    /* rest < ms: only a time beyond 584 million years could overflow */

    rest = (ms <= UINT64_MAX / 1000) ? rest * 1000 / ms : rest / (ms / 1000);

    return whole * 1000 + rest;
}


int
s3_record_compare(const s3_record_t *a, const s3_record_t *b)
{
    if (a->attempt != b->attempt) {
        return a->attempt < b->attempt ? -1 : 1;
    }

    if (a->sequence != b->sequence) {
        return a->sequence < b->sequence ? -1 : 1;
    }

    return 0;
}


int
s3_record_json(const s3_record_t *r, s3_buf_t *out)
{
    size_t                   i;
    unsigned char           *start;
    s3_record_value_t        v;
    const s3_record_attr_t  *a;

    start = out->pos;

    for (i = 0; i < S3_RECORD_ATTRS; i++) {
        a = &s3_record_attrs[i];

        if (a->type == S3_RECORD_OWNER
            || (a->type == S3_RECORD_CRC32 && !r->has_crc32))
        {
            continue;
        }

        s3_buf_put_str(out, a->json);

        s3_record_get(r, a, &v);

        if (!v.known) {
            s3_buf_put(out, "null", 4);

        } else if (v.number) {
            s3_json_put_u64(out, v.n);

        } else if (a->type == S3_RECORD_STRING) {
            s3_json_put_text(out, v.text);

        } else {

            /* our own words */

            s3_buf_putc(out, '"');
            s3_buf_put_str(out, v.text);
            s3_buf_putc(out, '"');
        }
    }

    s3_buf_putc(out, '}');

    if (out->overflow) {
        out->pos = start;
        return S3_ERROR;
    }

    *start = '{';

    return S3_OK;
}


int
s3_record_fields(const s3_record_t *r, s3_record_field_t *fields,
    s3_buf_t *scratch)
{
    int                 n;
    size_t              i;
    s3_record_value_t   v;
    s3_record_field_t  *f;

    n = 0;

    for (i = 0; i < S3_RECORD_ATTRS; i++) {
        s3_record_get(r, &s3_record_attrs[i], &v);

        if (!v.known) {
            continue;
        }

        f = &fields[n++];
        f->name = s3_record_attrs[i].name;
        f->number = v.number;
        f->value = v.text;

        if (v.number || v.text.data == (unsigned char *) v.mem) {
            f->value.data = scratch->pos;

            if (v.number) {
                s3_buf_put_u64(scratch, v.n);

            } else {
                s3_buf_put_str(scratch, v.text);
            }

            f->value.len = (size_t) (scratch->pos - f->value.data);
        }
    }

    return scratch->overflow ? -1 : n;
}


void
s3_record_init(s3_record_t *r)
{
    memset(r, 0, sizeof(s3_record_t));

    r->total_bytes = -1;
}


void
s3_record_copy(s3_record_t *to, const s3_record_t *from)
{
    memcpy(to->id, from->id, strlen(from->id) + 1);
    memcpy(to->bucket, from->bucket, strlen(from->bucket) + 1);
    memcpy(to->key, from->key, strlen(from->key) + 1);
    memcpy(to->owner, from->owner, strlen(from->owner) + 1);

    s3_record_update(to, from);
}


void
s3_record_update(s3_record_t *to, const s3_record_t *from)
{
    memcpy(to->etag, from->etag, strlen(from->etag) + 1);
    memcpy(to->error, from->error, strlen(from->error) + 1);

    memcpy(&to->attempt, &from->attempt,
           sizeof(s3_record_t) - offsetof(s3_record_t, attempt));
}


int
s3_record_set(s3_record_t *r, s3_str_t name, s3_str_t value)
{
    size_t  i;

    for (i = 0; i < S3_RECORD_ATTRS; i++) {
        if (s3_str_eqs(name, s3_record_attrs[i].name)) {
            return s3_record_store(r, &s3_record_attrs[i], value);
        }
    }

    return S3_OK;
}


void
s3_record_log(const s3_record_t *r, s3_buf_t *out)
{
    s3_buf_puts(out, "Progress: ");
    s3_buf_put_u64(out, r->bytes_transferred);
    s3_buf_putc(out, '/');

    if (r->total_bytes >= 0) {
        s3_buf_put_u64(out, (uint64_t) r->total_bytes);

    } else {
        s3_buf_putc(out, '?');
    }

    s3_buf_puts(out, " bytes (");
    s3_buf_put_u64(out, s3_record_percentage(r));
    s3_buf_puts(out, "%)");
}


void
s3_record_time(uint64_t ms, char out[25])
{
    unsigned  days, era, doe, yoe, doy, mp, day, month, year;

    if (ms > S3_RECORD_TIME_MAX) {
        ms = S3_RECORD_TIME_MAX;
    }

    /* H. Hinnant, "chrono-Compatible Low-Level Date Algorithms",
       civil_from_days: years begin in March, eras have 400 of them */

    days = (unsigned) (ms / S3_RECORD_DAY_MS) + 719468;
    era = days / 146097;
    doe = days % 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;

    day = doy - (153 * mp + 2) / 5 + 1;
    month = mp < 10 ? mp + 3 : mp - 9;
    year = yoe + era * 400 + (month <= 2);

    memcpy(out, "0000-00-00T00:00:00.000Z", S3_RECORD_TIME_LEN + 1);

    s3_record_print(out, year, 4);
    s3_record_print(out + 5, month, 2);
    s3_record_print(out + 8, day, 2);
    s3_record_print(out + 11, (unsigned) (ms / 3600000 % 24), 2);
    s3_record_print(out + 14, (unsigned) (ms / 60000 % 60), 2);
    s3_record_print(out + 17, (unsigned) (ms / 1000 % 60), 2);
    s3_record_print(out + 20, (unsigned) (ms % 1000), 3);
}


static unsigned
s3_record_percent(const s3_record_t *r, uint64_t bytes)
{
    unsigned  bit, percent;
    uint64_t  rest, total;

    if (r->total_bytes <= 0) {
        return (r->total_bytes == 0 && r->state == S3_STATE_COMPLETED)
               ? 100 : 0;
    }

    total = (uint64_t) r->total_bytes;

    if (bytes >= total) {
        return 100;
    }

    /* long multiplication and division in one, a bit of 100 at a time:
       rest < total < 2^63, so that no sum passes 2^64 */

    percent = 0;
    rest = 0;

    for (bit = 64; bit; bit >>= 1) {
        percent *= 2;
        rest *= 2;

        if (rest >= total) {
            rest -= total;
            percent++;
        }

        if (100 & bit) {
            rest += bytes;

            if (rest >= total) {
                rest -= total;
                percent++;
            }
        }
    }

    return percent;
}


static void
s3_record_get(const s3_record_t *r, const s3_record_attr_t *a,
    s3_record_value_t *v)
{
    const char  *p;

    p = (const char *) r + a->offset;

    v->known = 1;
    v->number = 1;
    v->n = 0;
    v->text.len = 0;
    v->text.data = NULL;

    switch (a->type) {

    case S3_RECORD_STRING:
    case S3_RECORD_OWNER:
        s3_record_text(v, p);
        break;

    case S3_RECORD_STATE:
        s3_record_text(v, s3_state_name(r->state));
        break;

    case S3_RECORD_DIRECTION:
        s3_record_text(v, s3_record_directions[r->direction == S3_DOWNLOAD]);
        break;

    case S3_RECORD_TIME:
        memcpy(&v->n, p, sizeof(uint64_t));
        s3_record_time(v->n, v->mem);
        s3_record_text(v, v->n ? v->mem : "");
        break;

    case S3_RECORD_CRC32:
        s3_crc32_base64(r->crc32, v->mem);
        s3_record_text(v, r->has_crc32 ? v->mem : "");
        break;

    case S3_RECORD_U64:
        memcpy(&v->n, p, sizeof(uint64_t));
        break;

    case S3_RECORD_TOTAL:
        v->known = (r->total_bytes >= 0);
        v->n = (uint64_t) r->total_bytes;
        break;

    case S3_RECORD_PERCENTAGE:
        v->n = s3_record_percentage(r);
        break;

    case S3_RECORD_STORED_PERCENTAGE:
        v->n = s3_record_stored_percentage(r);
        break;

    case S3_RECORD_RATE:
        v->n = s3_record_rate(r);
        break;
    }
}


static void
s3_record_text(s3_record_value_t *v, const char *s)
{
    v->number = 0;
    v->text = s3_str(s);
    v->known = (v->text.len != 0);
}


static int
s3_record_store(s3_record_t *r, const s3_record_attr_t *a, s3_str_t value)
{
    char      *p;
    uint64_t   n;

    p = (char *) r + a->offset;

    switch (a->type) {

    case S3_RECORD_STRING:
    case S3_RECORD_OWNER:
        if (value.len >= a->size
            || (value.len && memchr(value.data, '\0', value.len)))
        {
            return S3_ERROR;
        }

        (void) s3_str_copy(p, a->size, value);
        return S3_OK;

    case S3_RECORD_U64:
    case S3_RECORD_TOTAL:
        if (s3_str_u64(value, UINT64_MAX, &n) != S3_OK
            || (a->type == S3_RECORD_TOTAL && n > INT64_MAX))
        {
            return S3_ERROR;
        }

        memcpy(p, &n, sizeof(uint64_t));
        return S3_OK;

    case S3_RECORD_TIME:
        if (s3_record_parse_time(value, &n) != S3_OK) {
            return S3_ERROR;
        }

        memcpy(p, &n, sizeof(uint64_t));
        return S3_OK;

    case S3_RECORD_STATE:
        return s3_state_parse(value, &r->state);

    case S3_RECORD_DIRECTION:
        for (n = S3_UPLOAD; n <= S3_DOWNLOAD; n++) {
            if (s3_str_eqs(value, s3_record_directions[n])) {
                r->direction = (s3_direction_e) n;
                return S3_OK;
            }
        }

        return S3_ERROR;

    case S3_RECORD_CRC32:
        if (s3_crc32_parse(value, &r->crc32) != S3_OK) {
            return S3_ERROR;
        }

        r->has_crc32 = 1;
        return S3_OK;

    default:
        return S3_OK;
    }
}


static int
s3_record_parse_time(s3_str_t s, uint64_t *ms)
{
    char                 text[S3_RECORD_TIME_LEN + 1];
    size_t               i;
    unsigned             year, month, era, yoe, doy, days;
    const unsigned char *p;

    static const char  form[] = "0000-00-00T00:00:00.000Z";

    if (s.len != S3_RECORD_TIME_LEN) {
        return S3_ERROR;
    }

    p = s.data;

    for (i = 0; i < S3_RECORD_TIME_LEN; i++) {
        if (form[i] == '0' ? (p[i] < '0' || p[i] > '9')
                           : p[i] != (unsigned char) form[i])
        {
            return S3_ERROR;
        }
    }

    year = s3_record_digits(p, 4);
    month = s3_record_digits(p + 5, 2);

    if (year < 1970 || month < 1 || month > 12) {
        return S3_ERROR;
    }

    /* days_from_civil, see s3_record_time() */

    year -= (month <= 2);
    era = year / 400;
    yoe = year % 400;
    doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5
          + s3_record_digits(p + 8, 2) - 1;
    days = era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;

    *ms = days * S3_RECORD_DAY_MS
          + s3_record_digits(p + 11, 2) * 3600000ULL
          + s3_record_digits(p + 14, 2) * 60000ULL
          + s3_record_digits(p + 17, 2) * 1000ULL
          + s3_record_digits(p + 20, 3);

    /* a day or an hour that does not exist came out as another time */

    s3_record_time(*ms, text);

    return memcmp(text, p, S3_RECORD_TIME_LEN) == 0 ? S3_OK : S3_ERROR;
}


static unsigned
s3_record_digits(const unsigned char *p, size_t n)
{
    unsigned  value;

    for (value = 0; n; n--) {
        value = value * 10 + (unsigned) (*p++ - '0');
    }

    return value;
}


static void
s3_record_print(char *p, unsigned n, size_t digits)
{
    while (digits) {
        p[--digits] = (char) ('0' + n % 10);
        n /= 10;
    }
}
