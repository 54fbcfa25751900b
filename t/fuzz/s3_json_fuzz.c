/*
 * A reply that is a record must come out the same after it was put and read
 * again; whatever text goes into the module's own JSON, that stays JSON.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "s3_json.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
put_and_read(const s3_record_t *r)
{
    char         *text;
    json_t       *root, *reply;
    s3_buf_t      b, one, two;
    s3_record_t   back;
    static char   mem[S3_JSON_PUT_MAX], mem_one[S3_RECORD_JSON_MAX],
                  mem_two[S3_RECORD_JSON_MAX];

    s3_buf_init(&b, mem, sizeof(mem));

    if (s3_json_put_item(s3_str("t"), r, &b) != S3_OK) {
        abort();
    }

    root = json_loadb(mem, (size_t) (b.pos - b.start), 0, NULL);
    reply = json_pack("{s:O}", "Item", json_object_get(root, "Item"));
    text = json_dumps(reply, 0);

    if (text == NULL
        || s3_json_parse_item((unsigned char *) text, strlen(text), &back)
           != S3_OK)
    {
        abort();
    }

    free(text);
    json_decref(reply);
    json_decref(root);

    s3_buf_init(&one, mem_one, sizeof(mem_one));
    s3_buf_init(&two, mem_two, sizeof(mem_two));

    if (s3_record_json(r, &one) != S3_OK
        || s3_record_json(&back, &two) != S3_OK
        || one.pos - one.start != two.pos - two.start
        || memcmp(mem_one, mem_two, (size_t) (one.pos - one.start)) != 0
        || strcmp(r->owner, back.owner) != 0)
    {
        abort();
    }
}


static void
write_error(const char *message)
{
    json_t       *root;
    s3_buf_t      b;
    static char   mem[65536];

    s3_buf_init(&b, mem, sizeof(mem));

    if (s3_json_error(&b, "code", message, message) != S3_OK) {

        if (!b.overflow) {
            abort();
        }

        return;
    }

    root = json_loadb(mem, (size_t) (b.pos - b.start), JSON_REJECT_DUPLICATES,
                      NULL);

    if (json_object_size(root) != 3) {
        abort();
    }

    json_decref(root);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char             *text;
    s3_record_t       r;
    s3_json_error_t   e;

    if (s3_json_parse_item(data, size, &r) == S3_OK) {
        put_and_read(&r);
    }

    if (s3_json_parse_error(data, size, &e) == S3_OK
        && (e.type[0] == '\0' || strlen(e.type) >= sizeof(e.type)
            || strlen(e.message) >= sizeof(e.message)))
    {
        abort();
    }

    text = malloc(size + 1);
    if (text == NULL) {
        abort();
    }

    memcpy(text, data, size);
    text[size] = '\0';
    write_error(text);
    free(text);

    return 0;
}
