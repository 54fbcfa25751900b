/*
 * The first byte says how the rest is cut into pieces. However it is cut, the
 * outcome is the same as that of the whole document.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "s3_xml.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
on_part(void *data, const s3_xml_part_t *part)
{
    uint64_t  *sum;

    sum = data;
    *sum = *sum * 31 + part->number + part->size + strlen(part->etag)
           + 7 * strlen(part->last_modified);
}


static int
parse(s3_xml_reply_t *reply, uint64_t *sum, const uint8_t *data, size_t size,
    size_t piece)
{
    int        rc;
    size_t     n;
    uint8_t   *copy;
    s3_xml_t  *x;

    memset(reply, 0, sizeof(s3_xml_reply_t));
    reply->part = on_part;
    reply->data = sum;
    *sum = 0;

    x = s3_xml_create(reply);
    if (x == NULL) {
        abort();
    }

    rc = S3_OK;

    while (size && rc == S3_OK) {
        n = size < piece ? size : piece;

        copy = malloc(n);
        if (copy == NULL) {
            abort();
        }

        memcpy(copy, data, n);
        rc = s3_xml_feed(x, copy, n);
        free(copy);

        data += n;
        size -= n;
    }

    if (rc == S3_OK) {
        rc = s3_xml_finish(x);
    }

    s3_xml_destroy(x);
    reply->data = NULL;

    return rc;
}


/* what a server named in its document goes into ours */

static void
escape(const char *etag)
{
    char      mem[S3_XML_PART_MAX];
    s3_buf_t  out;

    s3_buf_init(&out, mem, sizeof(mem));
    s3_xml_complete_part(&out, 10000, etag, NULL);

    if (out.overflow) {
        abort();
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int             rc;
    size_t          piece;
    uint64_t        sum, sum_of_pieces;
    s3_xml_reply_t  whole, pieces;

    if (size == 0) {
        return 0;
    }

    piece = data[0] ? data[0] : 1;
    data++;
    size--;

    rc = parse(&whole, &sum, data, size, size ? size : 1);

    if (parse(&pieces, &sum_of_pieces, data, size, piece) != rc) {
        abort();
    }

    if (rc == S3_OK
        && (memcmp(&whole, &pieces, sizeof(whole)) != 0
            || sum != sum_of_pieces
            || whole.root == S3_XML_NONE))
    {
        abort();
    }

    escape(whole.etag);

    return 0;
}
