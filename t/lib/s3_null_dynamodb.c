/*
 * DynamoDB's PutItem and GetItem for one kind of item, in memory: the key is
 * the string transferId, and where a condition is given, whatever it says, an
 * item is stored if none is there or the one there is older in (attempt,
 * sequence). So each accepted PutItem is a record of its own.
 */

#define _GNU_SOURCE

#include "s3_null.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>


#define NULL_ITEM_BUCKETS  4096

typedef struct null_item_s  null_item_t;

struct null_item_s {
    null_item_t  *next;
    char         *name;              /* table, line feed, transferId */
    json_t       *json;
};


static null_item_t  *null_items[NULL_ITEM_BUCKETS];


static int
null_dynamodb_reply(null_conn_t *c, int status, const char *body)
{
    char  fields[128];

    snprintf(fields, sizeof(fields),
             "Content-Type: application/x-amz-json-1.0\r\n"
             "x-amz-crc32: %lu\r\n",
             crc32_z(0, (const unsigned char *) body, strlen(body)));

    return null_reply(c, status, fields, body, strlen(body));
}


static int
null_dynamodb_error(null_conn_t *c, const char *type, const char *message)
{
    char  buf[512];

    snprintf(buf, sizeof(buf),
             "{\"__type\":\"com.amazonaws.dynamodb.v20120810#%s\","
             "\"message\":\"%s\"}", type, message);

    return null_dynamodb_reply(c, 400, buf);
}


/* the value of an attribute {name: {type: value}}; "": absent */

static const char *
null_attribute(const json_t *item, const char *name, const char *type)
{
    const char  *s;

    s = json_string_value(json_object_get(json_object_get(item, name), type));

    return s ? s : "";
}


static int
null_newer(const json_t *new, const json_t *old)
{
    unsigned           i;
    unsigned long long a, b;

    static const char  *names[] = { "attempt", "sequence" };

    for (i = 0; i < 2; i++) {
        a = strtoull(null_attribute(new, names[i], "N"), NULL, 10);
        b = strtoull(null_attribute(old, names[i], "N"), NULL, 10);

        if (a != b) {
            return a > b;
        }
    }

    return 0;
}


/* locked; the place of the item, or where it would be */

static null_item_t **
null_item(const char *name)
{
    null_item_t  **p;

    p = &null_items[crc32_z(0, (const unsigned char *) name, strlen(name))
                    % NULL_ITEM_BUCKETS];

    while (*p && strcmp((*p)->name, name) != 0) {
        p = &(*p)->next;
    }

    return p;
}


static int
null_put_item(null_conn_t *c, const json_t *root, const char *table)
{
    int            stored;
    char          *name;
    json_t        *new;
    const char    *id;
    null_item_t  **p;

    new = json_object_get(root, "Item");
    id = null_attribute(new, "transferId", "S");

    if (*id == '\0' || *null_attribute(new, "attempt", "N") == '\0'
        || *null_attribute(new, "sequence", "N") == '\0'
        || asprintf(&name, "%s\n%s", table, id) == -1)
    {
        return null_dynamodb_error(c, "ValidationException",
                                   "Not an item that this server knows");
    }

    pthread_mutex_lock(&null_lock);

    p = null_item(name);

    stored = *p == NULL || json_object_get(root, "ConditionExpression") == NULL
             || null_newer(new, (*p)->json);

    if (*p == NULL) {
        *p = calloc(1, sizeof(null_item_t));
        (*p)->name = name;

    } else {
        free(name);
    }

    if (stored) {
        json_decref((*p)->json);
        (*p)->json = json_incref(new);
    }

    pthread_mutex_unlock(&null_lock);

    if (!stored) {
        null_counters.dynamodb_refused++;
        return null_dynamodb_error(c, "ConditionalCheckFailedException",
                                   "The conditional request failed");
    }

    return null_dynamodb_reply(c, 200, "{}");
}


static int
null_get_item(null_conn_t *c, const json_t *root, const char *table)
{
    int           rc;
    char         *name, *text, *body;
    null_item_t  *item;

    if (asprintf(&name, "%s\n%s", table,
                 null_attribute(json_object_get(root, "Key"), "transferId",
                                "S"))
        == -1)
    {
        return -1;
    }

    pthread_mutex_lock(&null_lock);

    item = *null_item(name);
    text = item ? json_dumps(item->json, JSON_COMPACT) : NULL;

    pthread_mutex_unlock(&null_lock);

    free(name);

    if (text == NULL) {
        return null_dynamodb_reply(c, 200, "{}");
    }

    rc = asprintf(&body, "{\"Item\":%s}", text);
    free(text);

    if (rc == -1) {
        return -1;
    }

    rc = null_dynamodb_reply(c, 200, body);
    free(body);

    return rc;
}


int
null_dynamodb(null_conn_t *c, null_req_t *r, const char *target)
{
    int                  rc, digest;
    char                *body;
    json_t              *root;
    const char          *op, *table;
    static atomic_ulong  sequence;

    body = null_slurp(c, r);
    if (body == NULL) {
        return -1;
    }

    root = json_loadb(body, r->length, 0, NULL);
    digest = null_digest_ok(r, body, r->length);
    free(body);

    op = strchr(target, '.');
    op = op ? op + 1 : "";

    table = json_string_value(json_object_get(root, "TableName"));

    if (strcmp(op, "PutItem") == 0) {
        null_counters.dynamodb_put++;

    } else if (strcmp(op, "GetItem") == 0) {
        null_counters.dynamodb_get++;

    } else {
        null_counters.other++;
    }

    if (!digest) {
        null_counters.bad++;
        rc = null_dynamodb_error(c, "InvalidSignatureException",
                                 "The digest is not that of the body");

    } else if (null_fault(&sequence, null_options.throttle)) {
        null_counters.dynamodb_throttled++;
        rc = null_dynamodb_error(c, "ProvisionedThroughputExceededException",
                                 "Slower, please");

    } else if (table == NULL) {
        rc = null_dynamodb_error(c, "SerializationException", "No table");

    } else if (strcmp(op, "PutItem") == 0) {
        rc = null_put_item(c, root, table);

    } else if (strcmp(op, "GetItem") == 0) {
        rc = null_get_item(c, root, table);

    } else {
        rc = null_dynamodb_error(c, "UnknownOperationException", "");
    }

    json_decref(root);

    return rc;
}
