/*
 * The first byte chooses the kind of file. What is read fits its arrays, and
 * a second look at the same text adds nothing.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "s3_profile.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(const char *value, size_t size)
{
    if (memchr(value, '\0', size) == NULL || strchr(value, '\n')) {
        abort();
    }
}


static void
parse(const char *text, size_t size, const char *name, int config)
{
    int           rc;
    const char   *err;
    s3_profile_t  p, again;

    memset(&p, 0, sizeof(p));
    err = NULL;

    rc = s3_profile_parse(&p, text, size, s3_str(name), config, &err);

    if ((rc == S3_OK) != (err == NULL)) {
        abort();
    }

    check(p.access_key, sizeof(p.access_key));
    check(p.secret_key, sizeof(p.secret_key));
    check(p.session_token, sizeof(p.session_token));
    check(p.region, sizeof(p.region));

    if (!p.found && (p.access_key[0] || p.secret_key[0] || p.session_token[0]
                     || p.region[0]))
    {
        abort();
    }

    if (rc == S3_OK) {
        again = p;

        if (s3_profile_parse(&again, text, size, s3_str(name), config, &err)
            != S3_OK
            || memcmp(&again, &p, sizeof(p)) != 0)
        {
            abort();
        }
    }

    s3_profile_wipe(&p);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char  *text;

    if (size == 0) {
        return 0;
    }

    size--;

    text = malloc(size ? size : 1);
    if (text == NULL) {
        abort();
    }

    memcpy(text, data + 1, size);

    parse(text, size, (data[0] & 2) ? "x" : "default", data[0] & 1);
    free(text);

    return 0;
}
