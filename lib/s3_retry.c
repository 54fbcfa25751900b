#include "s3_retry.h"

#include <string.h>


#define S3_RETRY_BASE      100       /* ms */
#define S3_RETRY_THROTTLED 500
#define S3_RETRY_CAP       20000


typedef struct {
    const char  *code;
    s3_retry_e   class;
} s3_retry_code_t;

typedef struct {
    unsigned     status;
    s3_retry_e   class;
} s3_retry_status_t;


/* S3 "Error responses"; DynamoDB "Error handling"; the SDKs' standard mode.
   A code decides before the status: S3 sends errors under 200, too. */

static const s3_retry_code_t  s3_retry_codes[] = {

    { "InternalError", S3_RETRY_TRANSIENT },
    { "InternalServerError", S3_RETRY_TRANSIENT },
    { "ServiceUnavailable", S3_RETRY_TRANSIENT },
    { "RequestTimeout", S3_RETRY_TRANSIENT },
    { "RequestTimeoutException", S3_RETRY_TRANSIENT },
    { "BadDigest", S3_RETRY_TRANSIENT },
    { "XAmzContentSHA256Mismatch", S3_RETRY_TRANSIENT },
    { "IncompleteBody", S3_RETRY_TRANSIENT },
    { "OperationAborted", S3_RETRY_TRANSIENT },
    { "TransactionConflictException", S3_RETRY_TRANSIENT },
    { "ReplicatedWriteConflictException", S3_RETRY_TRANSIENT },

    { "SlowDown", S3_RETRY_THROTTLE },
    { "Throttling", S3_RETRY_THROTTLE },
    { "ThrottlingException", S3_RETRY_THROTTLE },
    { "ThrottledException", S3_RETRY_THROTTLE },
    { "RequestThrottled", S3_RETRY_THROTTLE },
    { "RequestThrottledException", S3_RETRY_THROTTLE },
    { "TooManyRequestsException", S3_RETRY_THROTTLE },
    { "RequestLimitExceeded", S3_RETRY_THROTTLE },
    { "BandwidthLimitExceeded", S3_RETRY_THROTTLE },
    { "LimitExceededException", S3_RETRY_THROTTLE },
    { "PriorRequestNotComplete", S3_RETRY_THROTTLE },
    { "EC2ThrottledException", S3_RETRY_THROTTLE },
    { "ProvisionedThroughputExceededException", S3_RETRY_THROTTLE },
    { "TransactionInProgressException", S3_RETRY_THROTTLE },
    { "ItemCollectionSizeLimitExceeded", S3_RETRY_THROTTLE },
    { "ItemCollectionSizeLimitExceededException", S3_RETRY_THROTTLE },

    { "RequestTimeTooSkewed", S3_RETRY_CLOCK },
    { "InvalidSignatureException", S3_RETRY_CLOCK },

    { "ExpiredToken", S3_RETRY_CREDENTIALS },
    { "ExpiredTokenException", S3_RETRY_CREDENTIALS },
    { "InvalidToken", S3_RETRY_CREDENTIALS },
    { "RequestExpired", S3_RETRY_CREDENTIALS },
    { "InvalidAccessKeyId", S3_RETRY_CREDENTIALS },
    { "UnrecognizedClientException", S3_RETRY_CREDENTIALS },
    { "IncompleteSignature", S3_RETRY_CREDENTIALS },
    { "IncompleteSignatureException", S3_RETRY_CREDENTIALS },
    { "MissingAuthenticationToken", S3_RETRY_CREDENTIALS },
    { "MissingAuthenticationTokenException", S3_RETRY_CREDENTIALS },

    { "PermanentRedirect", S3_RETRY_REGION },
    { "TemporaryRedirect", S3_RETRY_REGION },
    { "AuthorizationHeaderMalformed", S3_RETRY_REGION },
    { "IllegalLocationConstraintException", S3_RETRY_REGION },

    { "AccessDenied", S3_RETRY_NO },
    { "SignatureDoesNotMatch", S3_RETRY_NO },
    { "NoSuchBucket", S3_RETRY_NO },
    { "NoSuchKey", S3_RETRY_NO },
    { "NoSuchUpload", S3_RETRY_NO },
    { "InvalidArgument", S3_RETRY_NO },
    { "InvalidRequest", S3_RETRY_NO },
    { "EntityTooLarge", S3_RETRY_NO },
    { "EntityTooSmall", S3_RETRY_NO },
    { "InvalidDigest", S3_RETRY_NO },
    { "InvalidPart", S3_RETRY_NO },
    { "InvalidPartOrder", S3_RETRY_NO },
    { "KeyTooLongError", S3_RETRY_NO },
    { "MetadataTooLarge", S3_RETRY_NO },
    { "InvalidTag", S3_RETRY_NO },
    { "MalformedXML", S3_RETRY_NO },
    { "MissingContentLength", S3_RETRY_NO },
    { "PreconditionFailed", S3_RETRY_NO },
    { "ConditionalRequestConflict", S3_RETRY_NO },
    { "NotImplemented", S3_RETRY_NO },
    { "ConditionalCheckFailedException", S3_RETRY_NO },
    { "ResourceNotFoundException", S3_RETRY_NO },
    { "ValidationException", S3_RETRY_NO },
    { "AccessDeniedException", S3_RETRY_NO },
    { "SerializationException", S3_RETRY_NO }
};

static const s3_retry_status_t  s3_retry_statuses[] = {
    { 0, S3_RETRY_TRANSIENT },
    { 301, S3_RETRY_REGION },
    { 307, S3_RETRY_REGION },
    { 408, S3_RETRY_TRANSIENT },
    { 429, S3_RETRY_THROTTLE },
    { 501, S3_RETRY_NO },
    { 503, S3_RETRY_THROTTLE },
    { 505, S3_RETRY_NO }
};


static s3_retry_e s3_retry_by_status(unsigned status);
static int s3_retry_digits(const unsigned char *p, size_t n, unsigned max,
    unsigned *value);
static int64_t s3_retry_seconds(unsigned year, unsigned month, unsigned day,
    unsigned hour, unsigned min, unsigned sec);
static int s3_retry_name(const unsigned char *p, const char *names,
    unsigned n);


s3_retry_e
s3_retry_class(unsigned status, s3_str_t code)
{
    size_t      i;
    s3_retry_e  class, by_status;

    by_status = s3_retry_by_status(status);

    for (i = 0; i < sizeof(s3_retry_codes) / sizeof(s3_retry_codes[0]); i++) {

        if (!s3_str_eqs(code, s3_retry_codes[i].code)) {
            continue;
        }

        class = s3_retry_codes[i].class;

        /* InternalError or ServiceUnavailable under 503 */

        if (class == S3_RETRY_TRANSIENT && by_status == S3_RETRY_THROTTLE) {
            class = S3_RETRY_THROTTLE;
        }

        return class;
    }

    return by_status;
}


static s3_retry_e
s3_retry_by_status(unsigned status)
{
    size_t  i, n;

    n = sizeof(s3_retry_statuses) / sizeof(s3_retry_statuses[0]);

    for (i = 0; i < n; i++) {
        if (s3_retry_statuses[i].status == status) {
            return s3_retry_statuses[i].class;
        }
    }

    /* what stands in front of S3 has more of them, 520 to 530 for example, and
       an unknown one is as 500 is (RFC 9110, 15) */

    return (status >= 500) ? S3_RETRY_TRANSIENT : S3_RETRY_NO;
}


uint64_t
s3_retry_delay(s3_retry_e class, unsigned try, uint64_t random)
{
    uint64_t  limit;

    if (class != S3_RETRY_TRANSIENT && class != S3_RETRY_THROTTLE) {
        return 0;
    }

    limit = (class == S3_RETRY_THROTTLE) ? S3_RETRY_THROTTLED : S3_RETRY_BASE;

    while (try > 1 && limit < S3_RETRY_CAP) {
        limit *= 2;
        try--;
    }

    if (limit > S3_RETRY_CAP) {
        limit = S3_RETRY_CAP;
    }

    return random % (limit + 1);
}


int
s3_retry_wait(s3_retry_e class, unsigned try, uint64_t random,
    uint64_t after, uint64_t passed, uint64_t limit, uint64_t *delay)
{
    *delay = s3_retry_delay(class, try, random);

    if (limit == 0
        && (class == S3_RETRY_TRANSIENT || class == S3_RETRY_THROTTLE))
    {
        return S3_ERROR;
    }

    if (passed > limit || (after == 0 && *delay > limit - passed)) {
        return S3_ERROR;
    }

    if (after == 0) {
        return S3_OK;
    }

    /* that one has been made */

    if (passed == limit) {
        return S3_ERROR;
    }

    *delay += (after < limit - passed) ? after : limit - passed;

    return S3_OK;
}


unsigned
s3_retry_client_status(unsigned status, s3_str_t code, int timedout)
{
    if (timedout || status == 504 || status == 408
        || s3_str_eqs(code, "RequestTimeout")
        || s3_str_eqs(code, "RequestTimeoutException"))
    {
        return 504;
    }

    return (s3_retry_class(status, code) == S3_RETRY_THROTTLE) ? 503 : 502;
}


int64_t
s3_retry_http_date(s3_str_t value)
{
    int                   month;
    unsigned              year, day, hour, min, sec;
    const unsigned char  *p;

    p = value.data;

    /* "Sun, 06 Nov 1994 08:49:37 GMT" */

    if (value.len != 29
        || s3_retry_name(p, "MonTueWedThuFriSatSun", 7) == -1
        || memcmp(p + 3, ", ", 2) != 0
        || s3_retry_digits(p + 5, 2, 31, &day) != S3_OK
        || p[7] != ' ' || p[11] != ' '
        || s3_retry_digits(p + 12, 4, 9999, &year) != S3_OK
        || p[16] != ' '
        || s3_retry_digits(p + 17, 2, 23, &hour) != S3_OK
        || p[19] != ':'
        || s3_retry_digits(p + 20, 2, 59, &min) != S3_OK
        || p[22] != ':'
        || s3_retry_digits(p + 23, 2, 60, &sec) != S3_OK
        || memcmp(p + 25, " GMT", 4) != 0)
    {
        return -1;
    }

    month = s3_retry_name(p + 8, "JanFebMarAprMayJunJulAugSepOctNovDec", 12);

    if (month == -1) {
        return -1;
    }

    return s3_retry_seconds(year, month + 1, day, hour, min, sec);
}


int64_t
s3_retry_iso_date(s3_str_t value)
{
    size_t                i;
    unsigned              year, month, day, hour, min, sec;
    const unsigned char  *p;

    p = value.data;

    /* "2026-11-23T22:00:00Z" */

    if (value.len < 20
        || s3_retry_digits(p, 4, 9999, &year) != S3_OK
        || p[4] != '-'
        || s3_retry_digits(p + 5, 2, 12, &month) != S3_OK
        || p[7] != '-'
        || s3_retry_digits(p + 8, 2, 31, &day) != S3_OK
        || p[10] != 'T'
        || s3_retry_digits(p + 11, 2, 23, &hour) != S3_OK
        || p[13] != ':'
        || s3_retry_digits(p + 14, 2, 59, &min) != S3_OK
        || p[16] != ':'
        || s3_retry_digits(p + 17, 2, 60, &sec) != S3_OK
        || p[value.len - 1] != 'Z')
    {
        return -1;
    }

    if (value.len > 20) {

        if (p[19] != '.' || value.len == 21) {
            return -1;
        }

        for (i = 20; i < value.len - 1; i++) {
            if (p[i] < '0' || p[i] > '9') {
                return -1;
            }
        }
    }

    return s3_retry_seconds(year, month, day, hour, min, sec);
}


static int
s3_retry_digits(const unsigned char *p, size_t n, unsigned max,
    unsigned *value)
{
    size_t  i;

    *value = 0;

    for (i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return S3_ERROR;
        }

        *value = *value * 10 + (p[i] - '0');
    }

    return (*value <= max) ? S3_OK : S3_ERROR;
}


/* which of n names of three letters, -1: none */

static int
s3_retry_name(const unsigned char *p, const char *names, unsigned n)
{
    unsigned  i;

    for (i = 0; i < n; i++) {
        if (memcmp(p, names + 3 * i, 3) == 0) {
            return (int) i;
        }
    }

    return -1;
}


static int64_t
s3_retry_seconds(unsigned year, unsigned month, unsigned day,
    unsigned hour, unsigned min, unsigned sec)
{
    int64_t                days;
    unsigned               leap, length;
    static const unsigned  lengths[] = {
        31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31
    };

    if (year < 1970 || month == 0) {
        return -1;
    }

    leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    length = lengths[month - 1] + (leap && month == 2);

    if (day == 0 || day > length) {
        return -1;
    }

    /* years that begin in March: the leap day is the last of its year */

    if (month <= 2) {
        year--;
        month += 12;
    }

    days = 365 * (int64_t) year + year / 4 - year / 100 + year / 400
           + (153 * (month - 3) + 2) / 5 + day - 1 - 719468;

    return days * 86400 + hour * 3600 + min * 60 + sec;
}
