#include "s3_totals.h"
#include "s3_json.h"

#include <stddef.h>
#include <string.h>

#include <jansson.h>


typedef struct {
    const char  *json;
    const char  *name;               /* after s3_transfer_ */
    const char  *help;
    size_t       offset;
    unsigned     gauge:1;
} s3_totals_row_t;


static json_t *s3_totals_store_json(const s3_store_totals_t *t);
static json_t *s3_totals_tee_json(const s3_totals_t *t);
static uint64_t s3_totals_value(const void *totals,
    const s3_totals_row_t *row);
static void s3_totals_head(const s3_totals_row_t *row, s3_buf_t *out);
static void s3_totals_sample(const s3_totals_row_t *row,
    const char *label, const char *value, uint64_t n, s3_buf_t *out);


#define s3_totals_gauge(json, name, help, member)                            \
    { json, name, help, offsetof(s3_totals_t, member), 1 }

#define s3_totals_counter(json, name, help, member)                          \
    { json, name "_total", help, offsetof(s3_totals_t, member), 0 }

#define s3_totals_store(json, name, help, member, gauge)                     \
    { json, "store_" name, help, offsetof(s3_store_totals_t, member), gauge }

/* the order of s3_totals_t: transfers, responses, the two stores, the zone */

static const s3_totals_row_t  s3_totals_transfers[] = {
    s3_totals_gauge("active", "active", "Transfers under way.", active),
    s3_totals_gauge("ingests", "ingests",
        "Transfers under way that fetch their body themselves.", ingests),
    s3_totals_counter("started", "started", "Transfers started.", started),
    s3_totals_counter("completed", "completed",
        "Transfers whose object S3 confirmed.", completed),
    s3_totals_counter("failed", "failed", "Transfers that failed.", failed),
    s3_totals_counter("aborted", "aborted",
        "Transfers whose source broke off, or that were cancelled.",
        aborted),
    s3_totals_counter("untracked", "untracked",
        "Transfers without a record: the zone was full.", untracked),
    s3_totals_counter("bytesTransferred", "transferred_bytes",
        "Bytes that came from sources.", bytes_transferred),
    s3_totals_counter("bytesStored", "stored_bytes",
        "Bytes that S3 acknowledged.", bytes_stored),
    s3_totals_counter("partsStored", "stored_parts",
        "Parts that S3 acknowledged.", parts_stored),
    s3_totals_counter("chunks", "chunks",
        "Chunks counted, each with one test of the gate.", chunks),
    s3_totals_counter("openings", "openings",
        "Openings of the progress gate.", openings),
    s3_totals_counter("s3Requests", "s3_requests",
        "Requests sent to S3, repeated ones included.", s3_requests),
    s3_totals_counter("s3Retries", "s3_retries",
        "Requests to S3 that repeated a failed one.", s3_retries),
    s3_totals_counter("s3Errors", "s3_errors",
        "Requests to S3 that failed, past all their tries.", s3_errors),
    s3_totals_counter("orphansAborted", "orphans_aborted",
        "Multipart uploads that dead processes left, aborted.", orphans),
    s3_totals_gauge("abortsWaiting", "aborts_waiting",
        "Multipart uploads to be aborted, past the first failure.",
        aborts_waiting)
};

static const s3_totals_row_t  s3_totals_tee[] = {
    s3_totals_counter("captured", "tee_captured",
        "Responses whose whole body was copied.", tee_captured),
    s3_totals_counter("notCaptured", "tee_not_captured",
        "Responses that were not captured, or whose copy was dropped.", tee)
};

static const s3_totals_row_t  s3_totals_stores[] = {
    s3_totals_store("records", "records_total",
        "Records handed to the store.", records, 0),
    s3_totals_store("writes", "writes_total",
        "Records sent to the store.", writes, 0),
    s3_totals_store("replaced", "replaced_total",
        "Waiting records replaced by a newer one.", replaced, 0),
    s3_totals_store("dropped", "dropped_total",
        "Records dropped: queue full, or given up at exit.", dropped, 0),
    s3_totals_store("errors", "errors_total",
        "Writes that failed.", errors, 0),
    s3_totals_store("outages", "outages_total",
        "Outages of the store, each worker's its own.", outages, 0),
    s3_totals_store("up", "up", "Workers whose store works.", up, 1)
};

static const s3_totals_row_t  s3_totals_zone[] = {
    s3_totals_gauge("slots", "slots", "Records that the zone can hold.",
        slots),
    s3_totals_gauge("slotsUsed", "slots_used", "Records in the zone.",
        slots_used),
    s3_totals_gauge("memoryUsed", "memory_used_bytes",
        "Bytes of part memory in use.", memory_used)
};

#define s3_totals_n(list)  (sizeof(list) / sizeof(s3_totals_row_t))


int
s3_totals_json(const s3_totals_t *t, s3_buf_t *out)
{
    int      rc;
    size_t   i;
    json_t  *root;

    root = json_object();
    if (root == NULL) {
        return S3_ERROR;
    }

    rc = 0;

    for (i = 0; i < s3_totals_n(s3_totals_transfers); i++) {
        rc |= json_object_set_new(root, s3_totals_transfers[i].json,
                  s3_json_u64(s3_totals_value(t, &s3_totals_transfers[i])));
    }

    rc |= json_object_set_new(root, "tee", s3_totals_tee_json(t));
    rc |= json_object_set_new(root, "redis", s3_totals_store_json(&t->redis));
    rc |= json_object_set_new(root, "dynamodb",
                              s3_totals_store_json(&t->dynamodb));

    for (i = 0; i < s3_totals_n(s3_totals_zone); i++) {
        rc |= json_object_set_new(root, s3_totals_zone[i].json,
                  s3_json_u64(s3_totals_value(t, &s3_totals_zone[i])));
    }

    if (rc != 0) {
        json_decref(root);
        return S3_ERROR;
    }

    return s3_json_dump(root, out);
}


int
s3_totals_prometheus(const s3_totals_t *t, s3_buf_t *out)
{
    size_t                  i;
    const s3_totals_row_t  *row;

    for (i = 0; i < s3_totals_n(s3_totals_transfers); i++) {
        row = &s3_totals_transfers[i];

        s3_totals_head(row, out);
        s3_totals_sample(row, NULL, NULL, s3_totals_value(t, row), out);
    }

    row = &s3_totals_tee[0];

    s3_totals_head(row, out);
    s3_totals_sample(row, NULL, NULL, t->tee_captured, out);

    row = &s3_totals_tee[1];

    s3_totals_head(row, out);

    for (i = 0; i < S3_TEE_N; i++) {
        s3_totals_sample(row, "reason", s3_tee_reason_name(i), t->tee[i], out);
    }

    for (i = 0; i < s3_totals_n(s3_totals_stores); i++) {
        row = &s3_totals_stores[i];

        s3_totals_head(row, out);
        s3_totals_sample(row, "store", "redis",
                         s3_totals_value(&t->redis, row), out);
        s3_totals_sample(row, "store", "dynamodb",
                         s3_totals_value(&t->dynamodb, row), out);
    }

    for (i = 0; i < s3_totals_n(s3_totals_zone); i++) {
        row = &s3_totals_zone[i];

        s3_totals_head(row, out);
        s3_totals_sample(row, NULL, NULL, s3_totals_value(t, row), out);
    }

    return out->overflow ? S3_ERROR : S3_OK;
}


static json_t *
s3_totals_store_json(const s3_store_totals_t *t)
{
    size_t   i;
    json_t  *root;

    root = json_object();
    if (root == NULL) {
        return NULL;
    }

    for (i = 0; i < s3_totals_n(s3_totals_stores); i++) {
        if (json_object_set_new(root, s3_totals_stores[i].json,
                s3_json_u64(s3_totals_value(t, &s3_totals_stores[i])))
            != 0)
        {
            json_decref(root);
            return NULL;
        }
    }

    return root;
}


static json_t *
s3_totals_tee_json(const s3_totals_t *t)
{
    int      rc;
    size_t   i;
    json_t  *root, *reasons;

    root = json_object();
    reasons = json_object();

    /* the setters refuse a NULL and take the reference in any case */

    rc = json_object_set_new(root, s3_totals_tee[0].json,
                             s3_json_u64(t->tee_captured));

    for (i = 0; i < S3_TEE_N; i++) {
        rc |= json_object_set_new(reasons, s3_tee_reason_name(i),
                                  s3_json_u64(t->tee[i]));
    }

    rc |= json_object_set_new(root, s3_totals_tee[1].json, reasons);

    if (rc != 0) {
        json_decref(root);
        return NULL;
    }

    return root;
}


static uint64_t
s3_totals_value(const void *totals, const s3_totals_row_t *row)
{
    uint64_t  n;

    memcpy(&n, (const char *) totals + row->offset, sizeof(uint64_t));

    return n;
}


static void
s3_totals_head(const s3_totals_row_t *row, s3_buf_t *out)
{
    s3_buf_puts(out, "# HELP s3_transfer_");
    s3_buf_puts(out, row->name);
    s3_buf_putc(out, ' ');
    s3_buf_puts(out, row->help);
    s3_buf_puts(out, "\n# TYPE s3_transfer_");
    s3_buf_puts(out, row->name);
    s3_buf_puts(out, row->gauge ? " gauge\n" : " counter\n");
}


static void
s3_totals_sample(const s3_totals_row_t *row, const char *label,
    const char *value, uint64_t n, s3_buf_t *out)
{
    s3_buf_puts(out, "s3_transfer_");
    s3_buf_puts(out, row->name);

    if (label) {
        s3_buf_putc(out, '{');
        s3_buf_puts(out, label);
        s3_buf_puts(out, "=\"");
        s3_buf_puts(out, value);
        s3_buf_puts(out, "\"}");
    }

    s3_buf_putc(out, ' ');
    s3_buf_put_u64(out, n);
    s3_buf_putc(out, '\n');
}
