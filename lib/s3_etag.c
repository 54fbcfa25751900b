#include "s3_etag.h"

#include <string.h>


static s3_str_t s3_etag_next(s3_str_t *list);
static s3_str_t s3_etag_bare(s3_str_t s);
static int s3_etag_weak(s3_str_t s);


int
s3_etag_same(s3_str_t a, s3_str_t b)
{
    if (s3_etag_weak(a) || s3_etag_weak(b)) {
        return 0;
    }

    return s3_str_eq(s3_etag_bare(a), s3_etag_bare(b));
}


int
s3_etag_match(s3_str_t list, s3_str_t etag)
{
    s3_str_t  tag;

    for ( ;; ) {
        tag = s3_etag_next(&list);

        if (tag.len == 0) {
            return 0;
        }

        if (s3_str_eqs(tag, "*") || s3_etag_same(tag, etag)) {
            return 1;
        }
    }
}


/* the list's first member, which it loses; empty: there is none */

static s3_str_t
s3_etag_next(s3_str_t *list)
{
    int       quoted;
    size_t    n;
    s3_str_t  tag;

    while (list->len && strchr(" \t,", *list->data)) {
        list->data++;
        list->len--;
    }

    quoted = 0;
    tag = *list;

    for (n = 0; n < list->len; n++) {

        if (list->data[n] == '"') {
            quoted = !quoted;

        } else if (list->data[n] == ',' && !quoted) {
            break;
        }
    }

    list->data += n;
    list->len -= n;

    while (n && (tag.data[n - 1] == ' ' || tag.data[n - 1] == '\t')) {
        n--;
    }

    tag.len = n;

    return tag;
}


static s3_str_t
s3_etag_bare(s3_str_t s)
{
    if (s.len >= 2 && s.data[0] == '"' && s.data[s.len - 1] == '"') {
        s.data++;
        s.len -= 2;
    }

    return s;
}


static int
s3_etag_weak(s3_str_t s)
{
    return s.len >= 2 && s.data[0] == 'W' && s.data[1] == '/';
}
