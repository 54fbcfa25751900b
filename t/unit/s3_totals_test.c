#include <stdio.h>

#include <jansson.h>

#include "s3_test.h"

#include "s3_totals.h"


/* every number differs, so that a name with another's value shows */

static void
fill_totals(s3_totals_t *t)
{
    size_t    i;
    uint64_t  n;

    for (i = 0; i < sizeof(*t) / sizeof(n); i++) {
        n = 101 + i;
        memcpy((char *) t + i * sizeof(n), &n, sizeof(n));
    }
}


static const char  totals_json[] =
    "{\"active\":101,\"ingests\":102,\"started\":103,\"completed\":104,\"failed\":105,"
    "\"aborted\":106,\"untracked\":107,\"bytesTransferred\":108,"
    "\"bytesStored\":109,\"partsStored\":110,\"chunks\":111,"
    "\"openings\":112,\"s3Requests\":113,\"s3Retries\":114,"
    "\"s3Errors\":115,\"orphansAborted\":116,\"abortsWaiting\":117,"
    "\"tee\":{\"captured\":118,\"notCaptured\":{\"method\":119,"
    "\"range\":120,\"subrequest\":121,\"status\":122,\"error_page\":123,"
    "\"set_cookie\":124,\"cache_control\":125,\"close_delimited\":126,"
    "\"size\":127,\"condition\":128,\"key\":129,\"busy\":130,"
    "\"exists\":131,\"no_memory\":132,\"overrun\":133,"
    "\"truncated\":134,\"client\":135,\"failed\":136}},"
    "\"redis\":{\"records\":137,\"writes\":138,\"replaced\":139,"
    "\"dropped\":140,\"errors\":141,\"outages\":142,\"up\":143},"
    "\"dynamodb\":{\"records\":144,\"writes\":145,\"replaced\":146,"
    "\"dropped\":147,\"errors\":148,\"outages\":149,\"up\":150},"
    "\"slots\":151,\"slotsUsed\":152,\"memoryUsed\":153}";


static void
test_totals_json(void **state)
{
    char         mem[S3_TOTALS_MAX];
    s3_buf_t     b;
    s3_totals_t  t;

    (void) state;

    assert_int_equal(sizeof(t), 53 * sizeof(uint64_t));

    fill_totals(&t);
    s3_buf_init(&b, mem, sizeof(mem));
    assert_int_equal(s3_totals_json(&t, &b), S3_OK);
    assert_written(&b, totals_json);

    s3_buf_init(&b, mem, 100);
    assert_int_equal(s3_totals_json(&t, &b), S3_ERROR);

    memset(&t, 0xff, sizeof(t));
    s3_buf_init(&b, mem, sizeof(mem));
    assert_int_equal(s3_totals_json(&t, &b), S3_OK);
    s3_buf_init(&b, mem, sizeof(mem));
    assert_int_equal(s3_totals_prometheus(&t, &b), S3_OK);
}


static unsigned  allocations;        /* until the one that fails */

static void *
failing_malloc(size_t size)
{
    return allocations-- ? malloc(size) : NULL;
}


/* whichever allocation fails: an error, never some of the totals */

static void
test_totals_no_memory(void **state)
{
    int          rc;
    char         mem[S3_TOTALS_MAX];
    s3_buf_t     b;
    unsigned     n;
    s3_totals_t  t;

    (void) state;

    fill_totals(&t);
    n = 0;
    json_set_alloc_funcs(failing_malloc, free);

    do {
        allocations = n;
        s3_buf_init(&b, mem, sizeof(mem));
        rc = s3_totals_json(&t, &b);

        if (rc == S3_OK) {
            assert_written(&b, totals_json);

        } else {
            assert_ptr_equal(b.pos, b.start);
        }

    } while (allocations > n++);

    json_set_alloc_funcs(malloc, free);

    assert_int_equal(rc, S3_OK);
    assert_true(n > 10);
}


static int
name_char(char c, int first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'
           || c == ':' || (!first && c >= '0' && c <= '9');
}


/* the length of a metric's name at p, which the grammar allows */

static size_t
name_len(const char *p)
{
    size_t  n;

    for (n = 0; name_char(p[n], n == 0); n++) { /* void */ }

    assert_true(n > 0);

    return n;
}


/* labels: a set of the samples that the name has: 1 and 2 of the stores, 4
   without a label, 8 and up of the reasons */

#define LABELS_STORES   3u
#define LABELS_NONE     4u
#define LABELS_REASONS  (((1u << S3_TEE_N) - 1) * 8)

static void
assert_sample(const char *line, const char *name, const char *type,
    unsigned *labels)
{
    size_t       n;
    unsigned     label;
    const char  *p, *reason;

    n = name_len(line);
    assert_int_equal(n, strlen(name));
    assert_memory_equal(line, name, n);
    assert_int_equal(strcmp(type, "counter") == 0,
                     n > 6 && strcmp(name + n - 6, "_total") == 0);

    p = line + n;

    if (strncmp(p, "{store=\"redis\"}", 15) == 0) {
        label = 1;
        p += 15;

    } else if (strncmp(p, "{store=\"dynamodb\"}", 18) == 0) {
        label = 2;
        p += 18;

    } else if (strncmp(p, "{reason=\"", 9) == 0) {
        label = 4;
        p += 9;

        for (n = 0; n < S3_TEE_N; n++) {
            reason = s3_tee_reason_name(n);

            if (strncmp(p, reason, strlen(reason)) == 0
                && p[strlen(reason)] == '"')
            {
                label = 8u << n;
                p += strlen(reason);
                break;
            }
        }

        assert_int_equal(strncmp(p, "\"}", 2), 0);
        p += 2;

    } else {
        label = LABELS_NONE;
    }

    assert_int_equal(*labels & label, 0);
    *labels |= label;

    assert_int_equal(*p++, ' ');
    assert_true(*p >= '0' && *p <= '9');
    assert_int_equal(strspn(p, "0123456789"), strlen(p));
}


/* the grammar of the text format: HELP, TYPE, then the samples of the name,
   a name once */

static void
test_prometheus(void **state)
{
    char         mem[S3_TOTALS_MAX + 1], name[100], type[20], seen[4000];
    char        *line, *end;
    size_t       n;
    s3_buf_t     b;
    unsigned     metrics, labels;
    s3_totals_t  t;

    (void) state;

    fill_totals(&t);
    s3_buf_init(&b, mem, S3_TOTALS_MAX);
    assert_int_equal(s3_totals_prometheus(&t, &b), S3_OK);
    *b.pos = '\0';

    assert_int_equal(b.pos[-1], '\n');
    assert_null(strchr(mem, '\r'));

    seen[0] = '\0';
    metrics = 0;
    labels = 0;

    for (line = mem; *line; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';

        if (strncmp(line, "# HELP ", 7) == 0) {
            n = name_len(line + 7);
            (void) snprintf(name, sizeof(name), "%.*s", (int) n, line + 7);
            assert_int_equal(strncmp(name, "s3_transfer_", 12), 0);
            assert_int_equal(line[7 + n], ' ');
            assert_true(strlen(line + 7 + n) > 5);
            assert_null(strchr(line, '\\'));

            /* the samples of the former are complete */

            assert_true(labels == LABELS_STORES || labels == LABELS_NONE
                        || labels == LABELS_REASONS || metrics == 0);

            strcat(name, " ");
            assert_null(strstr(seen, name));
            strcat(seen, name);
            name[n] = '\0';

            line = end + 1;
            end = strchr(line, '\n');
            assert_non_null(end);
            *end = '\0';

            assert_int_equal(strncmp(line, "# TYPE ", 7), 0);
            assert_int_equal(strncmp(line + 7, name, n), 0);
            (void) snprintf(type, sizeof(type), "%s", line + 7 + n + 1);
            assert_int_equal(line[7 + n], ' ');
            assert_true(strcmp(type, "counter") == 0
                        || strcmp(type, "gauge") == 0);
            metrics++;
            labels = 0;
            continue;
        }

        assert_sample(line, name, type, &labels);
    }

    assert_true(labels == LABELS_NONE);
    assert_int_equal(metrics, 17 + 2 + 7 + 3);
}


static void
test_prometheus_values(void **state)
{
    char         mem[S3_TOTALS_MAX + 1];
    size_t       i;
    s3_buf_t     b;
    s3_totals_t  t;

    static const char *const  lines[] = {
        "\n# TYPE s3_transfer_active gauge\ns3_transfer_active 101\n",
        "\n# TYPE s3_transfer_ingests gauge\ns3_transfer_ingests 102\n",
        "\n# TYPE s3_transfer_started_total counter\n",
        "\ns3_transfer_started_total 103\n",
        "\ns3_transfer_completed_total 104\n",
        "\ns3_transfer_failed_total 105\n",
        "\ns3_transfer_aborted_total 106\n",
        "\ns3_transfer_untracked_total 107\n",
        "\ns3_transfer_transferred_bytes_total 108\n",
        "\ns3_transfer_stored_bytes_total 109\n",
        "\ns3_transfer_stored_parts_total 110\n",
        "\ns3_transfer_chunks_total 111\n",
        "\ns3_transfer_openings_total 112\n",
        "\ns3_transfer_s3_requests_total 113\n",
        "\ns3_transfer_s3_retries_total 114\n",
        "\ns3_transfer_s3_errors_total 115\n",
        "\ns3_transfer_orphans_aborted_total 116\n",
        "\n# TYPE s3_transfer_aborts_waiting gauge\n"
            "s3_transfer_aborts_waiting 117\n",
        "\n# TYPE s3_transfer_tee_captured_total counter\n"
            "s3_transfer_tee_captured_total 118\n",
        "\n# TYPE s3_transfer_tee_not_captured_total counter\n"
            "s3_transfer_tee_not_captured_total{reason=\"method\"} 119\n",
        "\ns3_transfer_tee_not_captured_total{reason=\"exists\"} 131\n",
        "\ns3_transfer_tee_not_captured_total{reason=\"failed\"} 136\n",
        "\ns3_transfer_store_records_total{store=\"redis\"} 137\n"
            "s3_transfer_store_records_total{store=\"dynamodb\"} 144\n",
        "\ns3_transfer_store_writes_total{store=\"redis\"} 138\n"
            "s3_transfer_store_writes_total{store=\"dynamodb\"} 145\n",
        "\ns3_transfer_store_replaced_total{store=\"redis\"} 139\n"
            "s3_transfer_store_replaced_total{store=\"dynamodb\"} 146\n",
        "\ns3_transfer_store_dropped_total{store=\"redis\"} 140\n"
            "s3_transfer_store_dropped_total{store=\"dynamodb\"} 147\n",
        "\ns3_transfer_store_errors_total{store=\"redis\"} 141\n"
            "s3_transfer_store_errors_total{store=\"dynamodb\"} 148\n",
        "\ns3_transfer_store_outages_total{store=\"redis\"} 142\n"
            "s3_transfer_store_outages_total{store=\"dynamodb\"} 149\n",
        "\n# TYPE s3_transfer_store_up gauge\n"
            "s3_transfer_store_up{store=\"redis\"} 143\n"
            "s3_transfer_store_up{store=\"dynamodb\"} 150\n",
        "\n# TYPE s3_transfer_slots gauge\ns3_transfer_slots 151\n",
        "\n# TYPE s3_transfer_slots_used gauge\n"
            "s3_transfer_slots_used 152\n",
        "\n# TYPE s3_transfer_memory_used_bytes gauge\n"
            "s3_transfer_memory_used_bytes 153\n"
    };

    (void) state;

    fill_totals(&t);
    s3_buf_init(&b, mem, S3_TOTALS_MAX);
    assert_int_equal(s3_totals_prometheus(&t, &b), S3_OK);
    *b.pos = '\0';

    for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        assert_non_null(strstr(mem, lines[i]));
    }

    s3_buf_init(&b, mem, 1000);
    assert_int_equal(s3_totals_prometheus(&t, &b), S3_ERROR);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_totals_json),
        cmocka_unit_test(test_totals_no_memory),
        cmocka_unit_test(test_prometheus),
        cmocka_unit_test(test_prometheus_values)
    };

    return cmocka_run_group_tests_name("s3_totals", tests, NULL, NULL);
}
