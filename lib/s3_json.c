#include "s3_json.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>


/* names are aliased: DynamoDB reserves many words */

#define S3_JSON_OLDER(owner)                                                 \
    "attribute_not_exists(#a) OR ((#a < :a OR (#a = :a AND #q < :q))"        \
    " AND (" owner " OR #e < :u))"


static void s3_json_put_escaped(s3_buf_t *out, unsigned char c);
static int s3_json_add_text(json_t *object, const char *name, s3_str_t value);
static int s3_json_add_attribute(json_t *object, const char *name,
    s3_str_t value, unsigned number);
static int s3_json_add_u64(json_t *object, const char *name, uint64_t n);
static json_t *s3_json_item(const s3_record_t *r);
static json_t *s3_json_condition_values(const s3_record_t *r);
static const json_t *s3_json_attribute(const json_t *item, const char *name);
static int s3_json_read_item(json_t *item, s3_record_t *r);


/* without these an item is no record */

static const char *const  s3_json_required[] = {
    "transferId", "attempt", "sequence", "state", "direction"
};


int
s3_json_put_item(s3_str_t table, const s3_record_t *r, s3_buf_t *out)
{
    int      rc;
    json_t  *root;

    if (r->id[0] == '\0') {
        return S3_ERROR;
    }

    root = json_object();
    if (root == NULL) {
        return S3_ERROR;
    }

    rc = s3_json_add_text(root, "TableName", table);
    rc |= json_object_set_new(root, "Item", s3_json_item(r));
    rc |= json_object_set_new(root, "ConditionExpression",
              json_string(r->owner[0] ? S3_JSON_OLDER("#o = :o")
                          : S3_JSON_OLDER("attribute_not_exists(#o)")));
    rc |= json_object_set_new(root, "ExpressionAttributeNames",
              json_pack("{s:s, s:s, s:s, s:s}", "#a", "attempt",
                        "#q", "sequence", "#o", "owner", "#e", "expiresAt"));
    rc |= json_object_set_new(root, "ExpressionAttributeValues",
              s3_json_condition_values(r));
    rc |= json_object_set_new(root, "ReturnValuesOnConditionCheckFailure",
              json_string("ALL_OLD"));

    if (rc != 0) {
        json_decref(root);
        return S3_ERROR;
    }

    return s3_json_dump(root, out);
}


int
s3_json_get_item(s3_str_t table, s3_str_t id, s3_buf_t *out)
{
    int      rc;
    json_t  *root, *key;

    root = json_object();
    key = json_object();

    if (root == NULL || key == NULL) {
        json_decref(root);
        json_decref(key);
        return S3_ERROR;
    }

    rc = s3_json_add_attribute(key, "transferId", id, 0);
    rc |= s3_json_add_text(root, "TableName", table);
    rc |= json_object_set_new(root, "Key", key);
    rc |= json_object_set_new(root, "ConsistentRead", json_true());

    if (rc != 0) {
        json_decref(root);
        return S3_ERROR;
    }

    return s3_json_dump(root, out);
}


int
s3_json_parse_item(const unsigned char *p, size_t len, s3_record_t *r)
{
    int      rc;
    json_t  *root, *item;

    root = json_loadb((const char *) p, len, JSON_REJECT_DUPLICATES, NULL);

    /* an error's __type may come with the item that failed its condition */

    if (!json_is_object(root) || json_object_get(root, "__type")) {
        json_decref(root);
        return S3_ERROR;
    }

    item = json_object_get(root, "Item");

    if (item == NULL) {
        rc = S3_DECLINED;

    } else {
        rc = s3_json_read_item(item, r);
    }

    json_decref(root);

    return rc;
}


int
s3_json_parse_foreign(const unsigned char *p, size_t len, s3_str_t owner)
{
    int            foreign;
    json_t        *root, *item, *want;
    const json_t  *has;

    root = json_loadb((const char *) p, len, JSON_REJECT_DUPLICATES, NULL);
    item = json_object_get(root, "Item");

    if (!json_is_object(item)) {
        json_decref(root);
        return S3_DECLINED;
    }

    has = s3_json_attribute(item, "owner");

    if (has == NULL || owner.len == 0) {
        foreign = (has != NULL || owner.len != 0);

    } else {
        want = s3_json_text(owner);
        foreign = (want && !json_equal(want, has));
        json_decref(want);
    }

    json_decref(root);

    return foreign ? S3_OK : S3_DECLINED;
}


int
s3_json_parse_error(const unsigned char *p, size_t len, s3_json_error_t *e)
{
    int          rc;
    json_t      *root;
    s3_str_t     type;
    const char  *s, *message;

    e->type[0] = '\0';
    e->message[0] = '\0';

    root = json_loadb((const char *) p, len, 0, NULL);

    message = json_string_value(json_object_get(root, "message"));

    if (message == NULL) {
        message = json_string_value(json_object_get(root, "Message"));
    }

    if (message) {
        (void) s3_str_copy(e->message, sizeof(e->message), s3_str(message));
    }

    rc = S3_ERROR;
    s = json_string_value(json_object_get(root, "__type"));

    if (s) {
        type = s3_str(s);
        type.len = strcspn(s, ":");

        for (len = type.len; len; len--) {
            if (type.data[len - 1] == '#') {
                type.data += len;
                type.len -= len;
                break;
            }
        }

        (void) s3_str_copy(e->type, sizeof(e->type), type);

        if (type.len) {
            rc = S3_OK;
        }
    }

    json_decref(root);

    return rc;
}


int
s3_json_error(s3_buf_t *out, const char *code, const char *message,
    const char *id)
{
    int      rc;
    json_t  *root;

    root = json_object();
    if (root == NULL) {
        return S3_ERROR;
    }

    rc = s3_json_add_text(root, "error", s3_str(code));
    rc |= s3_json_add_text(root, "message", s3_str(message));
    rc |= json_object_set_new(root, "transferId",
                              id ? s3_json_text(s3_str(id)) : json_null());

    if (rc != 0) {
        json_decref(root);
        return S3_ERROR;
    }

    return s3_json_dump(root, out);
}


json_t *
s3_json_text(s3_str_t s)
{
    size_t          n;
    json_t         *json;
    s3_buf_t        b;
    unsigned char  *mem;

    json = json_stringn(s.len ? (const char *) s.data : "", s.len);
    if (json) {
        return json;
    }

    if (s.len > SIZE_MAX / 3) {
        return NULL;
    }

    mem = malloc(3 * s.len);
    if (mem == NULL) {
        return NULL;
    }

    s3_buf_init(&b, mem, 3 * s.len);

    while (s.len) {
        n = s3_str_utf8(s.data, s.len);

        if (n) {
            s3_buf_put(&b, s.data, n);

        } else {
            s3_buf_put(&b, "\xef\xbf\xbd", 3);
            n = 1;
        }

        s.data += n;
        s.len -= n;
    }

    json = json_stringn((char *) b.start, (size_t) (b.pos - b.start));
    free(mem);

    return json;
}


json_t *
s3_json_u64(uint64_t n)
{
    return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t) n);
}


void
s3_json_put_text(s3_buf_t *out, s3_str_t s)
{
    size_t                n;
    const unsigned char  *p, *end, *plain;

    p = s.data;
    end = p + s.len;
    plain = p;

    s3_buf_putc(out, '"');

    while (p < end) {

        if (*p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\') {
            p++;
            continue;
        }

        n = (*p < 0x80) ? 0 : s3_str_utf8(p, (size_t) (end - p));

        if (n) {
            p += n;
            continue;
        }

        s3_buf_put(out, plain, (size_t) (p - plain));
        s3_json_put_escaped(out, *p++);
        plain = p;
    }

    s3_buf_put(out, plain, (size_t) (p - plain));
    s3_buf_putc(out, '"');
}


/* RFC 8259, 7; a byte that is no UTF-8 is replaced */

static void
s3_json_put_escaped(s3_buf_t *out, unsigned char c)
{
    const char  *p;

    static const char  names[] = "\"\\\b\f\n\r\t";
    static const char  escapes[] = "\"\\bfnrt";
    static const char  hex[] = "0123456789ABCDEF";

    if (c >= 0x80) {
        s3_buf_puts(out, "\xef\xbf\xbd");
        return;
    }

    p = c ? strchr(names, c) : NULL;

    if (p) {
        s3_buf_putc(out, '\\');
        s3_buf_putc(out, escapes[p - names]);
        return;
    }

    s3_buf_puts(out, "\\u00");
    s3_buf_putc(out, hex[c >> 4]);
    s3_buf_putc(out, hex[c & 0xf]);
}


void
s3_json_put_u64(s3_buf_t *out, uint64_t n)
{
    s3_buf_put_u64(out, n > INT64_MAX ? INT64_MAX : n);
}


int
s3_json_dump(json_t *json, s3_buf_t *out)
{
    size_t  n, room;

    if (json == NULL) {
        return S3_ERROR;
    }

    room = (size_t) (out->end - out->pos);
    n = json_dumpb(json, (char *) out->pos, room, JSON_COMPACT);

    json_decref(json);

    if (n == 0) {
        return S3_ERROR;
    }

    if (n > room) {
        out->overflow = 1;
        return S3_ERROR;
    }

    out->pos += n;

    return S3_OK;
}


static int
s3_json_add_text(json_t *object, const char *name, s3_str_t value)
{
    return json_object_set_new(object, name, s3_json_text(value));
}


/* name: {"N" or "S": value} */

static int
s3_json_add_attribute(json_t *object, const char *name, s3_str_t value,
    unsigned number)
{
    json_t  *typed;

    typed = json_object();

    if (typed && s3_json_add_text(typed, number ? "N" : "S", value) != 0) {
        json_decref(typed);
        typed = NULL;
    }

    return json_object_set_new(object, name, typed);
}


static int
s3_json_add_u64(json_t *object, const char *name, uint64_t n)
{
    s3_buf_t       b;
    unsigned char  mem[24];

    s3_buf_init(&b, mem, sizeof(mem));
    s3_buf_put_u64(&b, n);

    return s3_json_add_attribute(object, name, s3_buf_str(&b), 1);
}


static json_t *
s3_json_item(const s3_record_t *r)
{
    int                i, n, rc;
    json_t            *item;
    s3_buf_t           scratch;
    unsigned char      mem[S3_RECORD_SCRATCH];
    s3_record_field_t  fields[S3_RECORD_MAX_FIELDS];

    s3_buf_init(&scratch, mem, sizeof(mem));

    n = s3_record_fields(r, fields, &scratch);
    item = json_object();

    if (n < 0 || item == NULL) {
        json_decref(item);
        return NULL;
    }

    rc = 0;

    for (i = 0; i < n; i++) {
        rc |= s3_json_add_attribute(item, fields[i].name, fields[i].value,
                                    fields[i].number);
    }

    if (r->expires_at) {
        rc |= s3_json_add_u64(item, "ttl", r->expires_at / 1000
                                           + (r->expires_at % 1000 != 0));
    }

    if (rc != 0) {
        json_decref(item);
        return NULL;
    }

    return item;
}


static json_t *
s3_json_condition_values(const s3_record_t *r)
{
    char     now[25];
    json_t  *values;

    s3_record_time(r->updated_at, now);

    values = json_object();
    if (values == NULL) {
        return NULL;
    }

    if (s3_json_add_u64(values, ":a", r->attempt) != 0
        || s3_json_add_u64(values, ":q", r->sequence) != 0
        || (r->owner[0]
            && s3_json_add_attribute(values, ":o", s3_str(r->owner), 0) != 0)
        || s3_json_add_attribute(values, ":u", s3_str(now), 0) != 0)
    {
        json_decref(values);
        return NULL;
    }

    return values;
}


/* the text of an attribute of type S or N, NULL for any other */

static const json_t *
s3_json_attribute(const json_t *item, const char *name)
{
    const json_t  *typed, *value;

    typed = json_object_get(item, name);
    value = json_object_get(typed, "S");

    if (value == NULL) {
        value = json_object_get(typed, "N");
    }

    return json_is_string(value) ? value : NULL;
}


static int
s3_json_read_item(json_t *item, s3_record_t *r)
{
    size_t         i;
    json_t        *typed;
    s3_str_t       text;
    const char    *name;
    const json_t  *value;

    s3_record_init(r);

    json_object_foreach(item, name, typed) {
        value = s3_json_attribute(item, name);

        if (value == NULL) {
            continue;
        }

        text.data = (const unsigned char *) json_string_value(value);
        text.len = json_string_length(value);

        if (s3_record_set(r, s3_str(name), text) != S3_OK) {
            return S3_ERROR;
        }
    }

    for (i = 0; i < sizeof(s3_json_required) / sizeof(char *); i++) {
        if (s3_json_attribute(item, s3_json_required[i]) == NULL) {
            return S3_ERROR;
        }
    }

    return r->id[0] ? S3_OK : S3_ERROR;
}
