#include "ngx_s3_answer.h"

#include "s3_retry.h"


/* S3's own message is cut to this, its NUL included */
#define NGX_S3_ANSWER_TEXT         256
#define NGX_S3_ANSWER_RETRY_AFTER  3600  /* s, the longest that is believed */
#define NGX_S3_ANSWER_SKEW         240   /* s, S3 refuses none that is less */


static void ngx_s3_answer_none(ngx_s3_call_t *call, ngx_s3_request_t *rq,
    ngx_s3_answer_t *answer);
static void ngx_s3_answer_reply(ngx_s3_call_t *call, ngx_s3_request_t *rq,
    ngx_s3_answer_t *answer);
static const char *ngx_s3_answer_take(ngx_s3_call_t *call,
    ngx_s3_request_t *rq, s3_xml_reply_t *xml);
static const char *ngx_s3_answer_list(ngx_s3_call_t *call,
    ngx_s3_request_t *rq, s3_xml_reply_t *xml);
static void ngx_s3_answer_listed(void *data, const s3_xml_part_t *part);
static s3_retry_e ngx_s3_answer_class(ngx_s3_call_t *call,
    ngx_s3_answer_t *answer);
static s3_retry_e ngx_s3_answer_head_class(ngx_s3_call_t *call,
    ngx_s3_answer_t *answer);
static void ngx_s3_answer_hints(ngx_s3_call_t *call, ngx_s3_request_t *rq,
    s3_xml_reply_t *xml, ngx_s3_answer_t *answer);
static void ngx_s3_answer_copy(char *dst, size_t size, ngx_str_t *src);
static ngx_uint_t ngx_s3_answer_plain(const char *s);
static void ngx_s3_answer_clean(char *s);
static ngx_uint_t ngx_s3_answer_makes(ngx_s3_call_t *call);
static void ngx_s3_answer_hide(ngx_s3_call_t *call, char *s);


void
ngx_s3_answer_judge(ngx_s3_call_t *call, ngx_s3_request_t *rq,
    ngx_s3_answer_t *answer)
{
    ngx_memzero(answer, sizeof(ngx_s3_answer_t));

    answer->clock = -1;

    call->error = rq->error;
    call->status = (rq->error == NGX_S3_E_NONE) ? rq->status : 0;
    call->code[0] = '\0';
    call->etag[0] = '\0';
    call->retry_after = 0;
    call->clock = -1;
    call->size = -1;
    call->next_part = 0;

    /* an idle connection that closed may have carried the first of both */

    if (rq->resent && ngx_s3_answer_makes(call)) {
        call->unknown = 1;
    }

    if (rq->repeated) {
        call->repeated = 1;
    }

    if (rq->error == NGX_S3_E_NONE) {
        ngx_s3_answer_reply(call, rq, answer);

    } else {
        ngx_s3_answer_none(call, rq, answer);
    }
}


static void
ngx_s3_answer_none(ngx_s3_call_t *call, ngx_s3_request_t *rq,
    ngx_s3_answer_t *answer)
{
    s3_str_t  reason;

    reason = s3_str(rq->reason);
    (void) s3_str_copy(answer->cause, sizeof(answer->cause), reason);
    ngx_s3_answer_clean(answer->cause);

    answer->fresh = 1;
    answer->class = S3_RETRY_TRANSIENT;

    switch (rq->error) {

    case NGX_S3_E_CERTIFICATE:
    case NGX_S3_E_REFUSED:

        /* it will not be another one soon */

        answer->class = S3_RETRY_NO;
        break;

    case NGX_S3_E_RESOLVE:
    case NGX_S3_E_CONNECT:
    case NGX_S3_E_CONNECT_TIMEOUT:
    case NGX_S3_E_TLS:
        break;

    case NGX_S3_E_CLOSED:

        /*
         * nginx closes all of its connections once, those too that were
         * opened meanwhile: what cleans up after a transfer tries again
         */

        if (ngx_strcmp(rq->reason, NGX_S3_LEAVING) == 0
            && call->op != NGX_S3_ABORT && call->op != NGX_S3_HEAD)
        {
            answer->class = S3_RETRY_NO;
        }

        /* fall through */

    default:

        if (rq->sent == rq->body_size && ngx_s3_answer_makes(call)) {
            call->unknown = 1;
        }
    }
}


static void
ngx_s3_answer_reply(ngx_s3_call_t *call, ngx_s3_request_t *rq,
    ngx_s3_answer_t *answer)
{
    char             text[NGX_S3_ANSWER_TEXT];
    ngx_uint_t       success;
    const char      *fault;
    s3_xml_reply_t   xml;

    /* most answers: there is nothing more to be learnt from them */

    if (rq->status == 200 && rq->reply.len == 0
        && (call->op == NGX_S3_PART || call->op == NGX_S3_PUT)
        && ngx_s3_answer_take(call, rq, NULL) == NULL)
    {
        answer->good = 1;
        return;
    }

    ngx_memzero(&xml, sizeof(s3_xml_reply_t));

    /* S3 knew its result when it named it; Ceph garbles what follows where a
       key is longer than 1,000 bytes */

    if (rq->reply.len
        && s3_xml_parse(&xml, rq->reply.data, rq->reply.len) != S3_OK
        && (call->op != NGX_S3_COMPLETE || xml.root != S3_XML_COMPLETE))
    {
        xml.root = S3_XML_NONE;
    }

    success = (rq->status >= 200 && rq->status < 300);
    fault = NULL;
    text[0] = '\0';

    ngx_s3_answer_hints(call, rq, &xml, answer);

    if (xml.root == S3_XML_ERROR) {
        ngx_s3_answer_hide(call, xml.code);
        ngx_memcpy(call->code, xml.code, sizeof(call->code));
        ngx_s3_answer_clean(call->code);

        ngx_s3_answer_hide(call, xml.message);
        (void) s3_str_copy(text, sizeof(text), s3_str(xml.message));
        ngx_s3_answer_clean(text);

    } else if (success) {
        fault = ngx_s3_answer_take(call, rq, &xml);

        if (fault == NULL) {
            answer->good = 1;
            return;
        }

        (void) s3_str_copy(text, sizeof(text), s3_str(fault));
    }

    if (call->op == NGX_S3_ABORT && rq->status == 404) {
        answer->good = 1;
        return;
    }

    answer->class = ngx_s3_answer_class(call, answer);

    /* another connection leads to another of S3's servers */

    answer->fresh = (answer->class == S3_RETRY_TRANSIENT
                     || answer->class == S3_RETRY_THROTTLE);

    if (ngx_s3_answer_makes(call)
        && (rq->status >= 500 || (success && answer->class != S3_RETRY_NO)))
    {
        call->unknown = 1;
    }

    (void) ngx_snprintf((u_char *) answer->cause, sizeof(answer->cause) - 1,
                        "%ui%s%s%s%s%s%Z", rq->status,
                        call->code[0] ? " " : "", call->code,
                        text[0] ? " \"" : "", text, text[0] ? "\"" : "");
}


/* the result of a success; else what is wrong with the answer; PART and PUT
   have no document */

static const char *
ngx_s3_answer_take(ngx_s3_call_t *call, ngx_s3_request_t *rq,
    s3_xml_reply_t *xml)
{
    ngx_str_t  value;

    value = ngx_s3_request_field(rq, "etag");

    switch (call->op) {

    case NGX_S3_CREATE:

        if (xml->root != S3_XML_INITIATE || xml->upload_id[0] == '\0') {
            return xml->too_long ? "S3 answered with too long an UploadId"
                                 : "S3 answered without UploadId";
        }

        if (!ngx_s3_answer_plain(xml->upload_id)) {
            return "S3 answered with a malformed UploadId";
        }

        ngx_memcpy(call->new_upload_id, xml->upload_id,
                   sizeof(xml->upload_id));
        break;

    case NGX_S3_COMPLETE:

        /* it may be any: S3 began its answer before it knew */

        if (xml->root != S3_XML_COMPLETE) {
            return "S3 answered without result";
        }

        if (ngx_s3_answer_plain(xml->etag)) {
            ngx_memcpy(call->etag, xml->etag, sizeof(call->etag));
        }

        break;

    case NGX_S3_PART:
    case NGX_S3_PUT:

        if (value.len == 0) {
            return "S3 answered without ETag";
        }

        if (value.len >= sizeof(call->etag)) {
            return "S3 answered with too long an ETag";
        }

        ngx_s3_answer_copy(call->etag, sizeof(call->etag), &value);
        break;

    case NGX_S3_HEAD:

        if (value.len < sizeof(call->etag)) {
            ngx_s3_answer_copy(call->etag, sizeof(call->etag), &value);
        }

        value = ngx_s3_request_field(rq, "content-length");
        call->size = ngx_atoof(value.data, value.len);

        value = ngx_s3_request_field(rq, "x-amz-meta-transfer-id");

        if (value.len < sizeof(call->transfer_id)) {
            ngx_s3_answer_copy(call->transfer_id, sizeof(call->transfer_id),
                           &value);
        }

        break;

    case NGX_S3_LIST_PARTS:
        return ngx_s3_answer_list(call, rq, xml);

    case NGX_S3_ABORT:
    case NGX_S3_GET:
        break;
    }

    return NULL;
}


/* it is read again now that it is known to be whole: no part is told of by a
   page that then turns out to be cut off */

static const char *
ngx_s3_answer_list(ngx_s3_call_t *call, ngx_s3_request_t *rq,
    s3_xml_reply_t *xml)
{
    s3_xml_reply_t  again;

    if (xml->root != S3_XML_LIST_PARTS) {
        return "S3 answered without a list of parts";
    }

    if (xml->truncated && xml->next_part <= call->part_number) {
        return "S3 answered with a list of parts that has no end";
    }

    ngx_memzero(&again, sizeof(s3_xml_reply_t));

    again.part = ngx_s3_answer_listed;
    again.data = call;

    if (call->listed
        && s3_xml_parse(&again, rq->reply.data, rq->reply.len) != S3_OK)
    {
        return "there is no memory for a list of parts";
    }

    call->next_part = xml->truncated ? xml->next_part : 0;

    return NULL;
}


static void
ngx_s3_answer_listed(void *data, const s3_xml_part_t *part)
{
    ngx_s3_call_t  *call = data;

    call->listed(call, part);
}


static s3_retry_e
ngx_s3_answer_class(ngx_s3_call_t *call, ngx_s3_answer_t *answer)
{
    s3_str_t    code;
    s3_retry_e  class;

    if (call->op == NGX_S3_HEAD && call->status < 500) {
        return ngx_s3_answer_head_class(call, answer);
    }

    code = s3_str(call->code);

    /* the parts will not change their checksum from one try to the next */

    if (call->op == NGX_S3_COMPLETE && s3_str_eqs(code, "BadDigest")) {
        return S3_RETRY_NO;
    }

    /* two writers at once: S3 wants the object put once more, but a multipart
       upload is lost by it (API Reference, both operations) */

    if (call->op == NGX_S3_PUT
        && s3_str_eqs(code, "ConditionalRequestConflict"))
    {
        return S3_RETRY_TRANSIENT;
    }

    /* an error, or nonsense, under 200 counts as 500 */

    class = s3_retry_class(call->status < 300 ? 500 : call->status, code);

    /* an answer that names the region need not have a code */

    if (class == S3_RETRY_NO && call->status == 400 && answer->region[0]
        && code.len == 0)
    {
        class = S3_RETRY_REGION;
    }

    return class;
}


/* an answer to HEAD has no body that could tell */

static s3_retry_e
ngx_s3_answer_head_class(ngx_s3_call_t *call, ngx_s3_answer_t *answer)
{
    int64_t  skew;

    if (call->status == 301 || call->status == 307
        || (call->status == 400 && answer->region[0]))
    {
        return S3_RETRY_REGION;
    }

    if (call->status == 400) {
        return S3_RETRY_CREDENTIALS;
    }

    if (call->status == 403 && answer->clock != -1 && !call->target->vain) {
        skew = answer->clock - ngx_time() - call->target->clock_skew;

        if (skew > NGX_S3_ANSWER_SKEW || skew < -NGX_S3_ANSWER_SKEW) {
            return S3_RETRY_CLOCK;
        }
    }

    return s3_retry_class(call->status, s3_str(""));
}


/* what S3 says beside the result */

static void
ngx_s3_answer_hints(ngx_s3_call_t *call, ngx_s3_request_t *rq,
    s3_xml_reply_t *xml, ngx_s3_answer_t *answer)
{
    int64_t      server;
    ngx_str_t    value;
    const char  *p;

    value = ngx_s3_request_field(rq, "x-amz-request-id");

    if (value.len == 0) {
        value.data = (u_char *) xml->request_id;
        value.len = ngx_strlen(xml->request_id);
    }

    ngx_s3_answer_copy(answer->request_id, sizeof(answer->request_id), &value);
    ngx_s3_answer_hide(call, answer->request_id);
    ngx_s3_answer_clean(answer->request_id);

    value = ngx_s3_request_field(rq, "date");
    answer->clock = s3_retry_http_date(ngx_s3_to_str(value));
    call->clock = answer->clock;

    /* a proxy between us and S3 may have set its own Date */

    if (xml->server_time[0]) {
        server = s3_retry_iso_date(s3_str(xml->server_time));

        if (server != -1) {
            answer->clock = server;
        }
    }

    value = ngx_s3_request_field(rq, "x-amz-bucket-region");

    if (value.len == 0 && xml->region[0]) {
        value.data = (u_char *) xml->region;
        value.len = ngx_strlen(xml->region);
    }

    if (value.len && value.len < sizeof(answer->region)) {
        ngx_s3_answer_copy(answer->region, sizeof(answer->region), &value);

        for (p = answer->region; *p; p++) {
            if ((*p < 'a' || *p > 'z') && (*p < '0' || *p > '9')
                && *p != '-')
            {
                answer->region[0] = '\0';
                break;
            }
        }
    }

    call->retry_after = ngx_s3_answer_retry_after(rq, answer->clock);
}


ngx_msec_t
ngx_s3_answer_retry_after(ngx_s3_request_t *rq, int64_t clock)
{
    int64_t    after;
    ngx_int_t  n;
    ngx_str_t  value;

    value = ngx_s3_request_field(rq, "retry-after");

    if (value.len == 0) {
        return 0;
    }

    n = ngx_atoi(value.data, value.len);

    if (n == NGX_ERROR) {
        after = s3_retry_http_date(ngx_s3_to_str(value));

        if (after == -1) {
            return 0;
        }

        after -= (clock != -1) ? clock : ngx_time();
        n = (ngx_int_t) ngx_max(after, 0);
    }

    return 1000 * ngx_min(n, NGX_S3_ANSWER_RETRY_AFTER);
}


static void
ngx_s3_answer_copy(char *dst, size_t size, ngx_str_t *src)
{
    (void) s3_str_copy(dst, size, ngx_s3_to_str(*src));
}


/* it ends no line of a log or of an answer's head, as XML's text can */

static ngx_uint_t
ngx_s3_answer_plain(const char *s)
{
    const u_char  *p;

    for (p = (const u_char *) s; *p; p++) {
        if (*p < ' ' || *p == 0x7f) {
            return 0;
        }
    }

    return 1;
}


/* for the log, a record and an error document: printable ASCII without
   quotation marks */

static void
ngx_s3_answer_clean(char *s)
{
    u_char  *p;

    for (p = (u_char *) s; *p; p++) {

        if (*p < ' ' || *p >= 0x7f) {
            *p = ' ';

        } else if (*p == '"') {
            *p = '\'';
        }
    }
}


static void
ngx_s3_answer_hide(ngx_s3_call_t *call, char *s)
{
    if (ngx_s3_credentials_told(call->target->credentials, s)) {
        *s = '\0';
    }
}


/* whether an object appears when S3 carries it out */

static ngx_uint_t
ngx_s3_answer_makes(ngx_s3_call_t *call)
{
    return call->op == NGX_S3_COMPLETE || call->op == NGX_S3_PUT;
}
