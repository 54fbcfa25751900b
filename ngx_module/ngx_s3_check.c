/*
 * What is asked of S3 before it is told to make an object: whether the object
 * is such as the conditions want it, and whether parts that were sent more than
 * once are stored as they were acknowledged.
 */

#include "ngx_s3_multipart.h"

#include "s3_etag.h"


/* ms; a PutObject that follows the first look so soon needs no second one */
#define NGX_S3_CHECK_FRESH  1000

/* lists that differ, before it is believed: there are servers that list late;
   ms between the first two, then twice as long */
#define NGX_S3_CHECK_LISTS  4
#define NGX_S3_CHECK_WAIT   300


static void ngx_s3_check_look(ngx_s3_transfer_t *t);
static void ngx_s3_check_looked(ngx_s3_call_t *call);
static const char *ngx_s3_check_object(ngx_s3_transfer_t *t,
    ngx_s3_call_t *call);
static s3_str_t ngx_s3_check_condition(ngx_s3_transfer_t *t,
    const char *name);
static void ngx_s3_check_blind(ngx_s3_transfer_t *t, ngx_s3_call_t *call);

static ngx_uint_t ngx_s3_check_next(ngx_s3_transfer_t *t);
static void ngx_s3_check_list(ngx_s3_transfer_t *t, ngx_uint_t first);
static void ngx_s3_check_part(ngx_s3_call_t *call, const s3_xml_part_t *part);
static void ngx_s3_check_listed(ngx_s3_call_t *call);
static void ngx_s3_check_differs(ngx_s3_transfer_t *t);
static void ngx_s3_check_unlisted(ngx_s3_transfer_t *t, ngx_s3_call_t *call);


ngx_int_t
ngx_s3_check_early(ngx_s3_transfer_t *t)
{
    if (t->conditions->nelts == 0 || t->checked) {
        return NGX_OK;
    }

    ngx_s3_check_look(t);

    if (t->done) {
        return NGX_ERROR;
    }

    return t->eager ? NGX_OK : NGX_AGAIN;
}


void
ngx_s3_check_finish(ngx_s3_transfer_t *t)
{
    ngx_uint_t  n;

    n = ngx_s3_check_next(t);

    if (n) {
        ngx_s3_check_list(t, n);
        return;
    }

    /* last, so that little time is left for others */

    if (t->conditions->nelts
        && (t->upload_id.len
            || ngx_current_msec - t->looked > NGX_S3_CHECK_FRESH))
    {
        ngx_s3_check_look(t);
        return;
    }

    ngx_s3_multipart_make(t);
}


/*
 * The conditions go to S3 with the request that makes the object, and there
 * they hold for certain. But S3 tells of them once it has all of the body, and
 * its look-alikes may ignore them.
 */

static void
ngx_s3_check_look(ngx_s3_transfer_t *t)
{
    ngx_s3_call_t  *call;

    call = ngx_s3_multipart_call(t, NGX_S3_HEAD, ngx_s3_check_looked);
    call->soft = 1;

    ngx_s3_multipart_begin(t);
}


static void
ngx_s3_check_looked(ngx_s3_call_t *call)
{
    ngx_s3_transfer_t  *t = call->data;

    const char       *reason;
    ngx_s3_result_t   result;

    t->calling = 0;

    if (call->rc == NGX_OK || call->status == 404) {
        reason = ngx_s3_check_object(t, call);

    } else if (ngx_s3_call_refused(call)) {
        ngx_s3_check_blind(t, call);
        reason = NULL;

    } else {
        ngx_s3_multipart_failed(t, call);
        return;
    }

    if (reason) {
        ngx_log_error(NGX_LOG_INFO, t->log, 0, "s3 object is not written: %s",
                      reason);

        ngx_s3_result_set(&result, 412, "PreconditionFailed", reason);
        ngx_s3_transfer_fail(t, &result);
        return;
    }

    t->checked = 1;
    t->looked = ngx_current_msec;

    switch (t->state) {

    case NGX_S3_T_WAITING:

        /* an eager one stands in line for memory */

        if (!t->eager) {
            ngx_s3_transfer_checked(t);
        }

        break;

    case NGX_S3_T_RECEIVING:
        ngx_s3_fill_checked(t);
        break;

    case NGX_S3_T_FLUSHING:
        ngx_s3_multipart_flush(t);
        break;

    default: /* NGX_S3_T_FINISHING */
        ngx_s3_multipart_make(t);
    }
}


/* what stands against the conditions, NULL: nothing */

static const char *
ngx_s3_check_object(ngx_s3_transfer_t *t, ngx_s3_call_t *call)
{
    s3_str_t  match;

    if (call->rc == NGX_OK
        && ngx_s3_check_condition(t, "if-none-match").len)
    {
        return "the object exists";
    }

    match = ngx_s3_check_condition(t, "if-match");

    if (match.len == 0) {
        return NULL;
    }

    if (call->rc != NGX_OK) {
        return "If-Match: there is no such object";
    }

    if (call->etag[0] && !s3_etag_match(match, s3_str(call->etag))) {
        return "If-Match: the object has another ETag";
    }

    return NULL;
}


static s3_str_t
ngx_s3_check_condition(ngx_s3_transfer_t *t, const char *name)
{
    ngx_uint_t   i;
    s3_field_t  *f;

    f = t->conditions->elts;

    for (i = 0; i < t->conditions->nelts; i++) {
        if (s3_str_eqs(f[i].name, name)) {
            return f[i].value;
        }
    }

    return s3_str("");
}


/* our keys may not look at objects, or see that there is none, which Amazon
   shows only to those who may list the bucket */

static void
ngx_s3_check_blind(ngx_s3_transfer_t *t, ngx_s3_call_t *call)
{
    ngx_uint_t  level;

    level = t->conf->target->blind ? NGX_LOG_INFO : NGX_LOG_WARN;
    t->conf->target->blind = 1;

    ngx_log_error(level, t->log, 0,
                  "s3 does not show the object (%ui): its own condition alone "
                  "decides whether it is written; s3:GetObject and "
                  "s3:ListBucket are wanted", call->status);
}


/* the first part to be compared, 0: there is none */

static ngx_uint_t
ngx_s3_check_next(ngx_s3_transfer_t *t)
{
    ngx_uint_t  n;

    /* S3 compares the checksum of each part itself */

    if (!t->repeated || t->unlisted || t->conf->target->crc32) {
        return 0;
    }

    for (n = t->compared; n < t->nparts; n++) {
        if (t->etags[n].repeated) {
            return n + 1;
        }
    }

    return 0;
}


/* A try that broke off has been seen to be stored after all, short, and to take
   the place of the whole part that came after it (scylladb/scylladb#15509). */

static void
ngx_s3_check_list(ngx_s3_transfer_t *t, ngx_uint_t first)
{
    ngx_uint_t      n, last;
    ngx_s3_call_t  *call;

    last = first;

    for (n = first; n < t->nparts && n < first - 1 + NGX_S3_MAX_LIST; n++) {
        if (t->etags[n].repeated) {
            last = n + 1;
        }
    }

    call = ngx_s3_multipart_call(t, NGX_S3_LIST_PARTS, ngx_s3_check_listed);

    call->soft = 1;
    call->delay = t->lists ? NGX_S3_CHECK_WAIT << (t->lists - 1) : 0;
    call->part_number = first - 1;
    call->max_parts = last - first + 1;
    call->listed = ngx_s3_check_part;

    ngx_s3_multipart_begin(t);
}


static void
ngx_s3_check_part(ngx_s3_call_t *call, const s3_xml_part_t *part)
{
    ngx_s3_transfer_t  *t = call->data;

    uint64_t             size;
    ngx_s3_part_etag_t  *e;

    if (part->number == 0 || part->number > t->nparts) {
        return;
    }

    e = &t->etags[part->number - 1];
    size = t->sizes[part->number - 1];

    if (!e->repeated) {
        return;
    }

    if (part->size == size
        && (part->etag[0] == '\0'
            || s3_etag_same(s3_str(part->etag), s3_str(e->etag))))
    {
        e->repeated = 0;
        return;
    }

    if (t->doubt.status) {
        return;
    }

    ngx_s3_result_set(&t->doubt, 502, "InvalidPart", "");

    *ngx_snprintf((u_char *) t->doubt.message, sizeof(t->doubt.message) - 1,
                  "part %ui was sent more than once, and S3 holds another try "
                  "than the one it acknowledged last: %uL of %uL bytes",
                  e->number, part->size, size) = '\0';
}


static void
ngx_s3_check_listed(ngx_s3_call_t *call)
{
    ngx_s3_transfer_t  *t = call->data;

    ngx_uint_t  n, last;

    t->calling = 0;

    if (call->rc != NGX_OK) {
        ngx_s3_check_unlisted(t, call);
        ngx_s3_check_finish(t);
        return;
    }

    last = call->part_number + call->max_parts;

    if (call->next_part) {
        last = ngx_min(last, call->next_part);
    }

    for (n = call->part_number; n < last; n++) {

        if (t->etags[n].repeated && t->doubt.status == 0) {

            ngx_s3_result_set(&t->doubt, 502, "InvalidPart", "");

            *ngx_snprintf((u_char *) t->doubt.message,
                          sizeof(t->doubt.message) - 1,
                          "part %ui was acknowledged, and S3 does not hold it",
                          n + 1) = '\0';
        }
    }

    if (t->doubt.status) {
        ngx_s3_check_differs(t);
        return;
    }

    t->compared = last;
    t->lists = 0;

    ngx_s3_check_finish(t);
}


static void
ngx_s3_check_differs(ngx_s3_transfer_t *t)
{
    t->lists++;

    if (t->lists < NGX_S3_CHECK_LISTS) {

        ngx_log_error(NGX_LOG_WARN, t->log, 0, "s3 list of parts differs, it "
                      "is asked again: %s", t->doubt.message);

        ngx_memzero(&t->doubt, sizeof(ngx_s3_result_t));

        ngx_s3_check_finish(t);
        return;
    }

    ngx_log_error(NGX_LOG_ERR, t->log, 0, "s3 multipart upload \"%V\" is "
                  "not completed: %s", &t->upload_id, t->doubt.message);

    ngx_s3_transfer_fail(t, &t->doubt);
}


/*
 * The file may be one that nobody can send again, and a part that was stored
 * wrongly is rare: the upload goes on. S3 itself holds the ETag of each part
 * against the list in Complete, and the object's size is looked at afterwards.
 */

static void
ngx_s3_check_unlisted(ngx_s3_transfer_t *t, ngx_s3_call_t *call)
{
    t->unlisted = 1;

    ngx_log_error(NGX_LOG_WARN, t->log, 0,
                  "s3 does not list the parts%s: those that were sent more "
                  "than once are not compared with what it holds",
                  call->status == 403
                  ? " (s3:ListMultipartUploadParts is wanted)" : "");
}
