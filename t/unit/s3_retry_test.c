#include <stdio.h>
#include <time.h>

#include "s3_retry.h"
#include "s3_test.h"


typedef struct {
    unsigned     status;
    const char  *code;
    s3_retry_e   class;
    unsigned     client;
} error_t;

typedef struct {
    const char  *text;
    int64_t      seconds;
} date_t;


static const error_t  errors[] = {
    { 0, "", S3_RETRY_TRANSIENT, 502 },
    { 500, "", S3_RETRY_TRANSIENT, 502 },
    { 500, "InternalError", S3_RETRY_TRANSIENT, 502 },
    { 500, "UnknownError", S3_RETRY_TRANSIENT, 502 },
    { 502, "", S3_RETRY_TRANSIENT, 502 },
    { 503, "", S3_RETRY_THROTTLE, 503 },
    { 503, "SlowDown", S3_RETRY_THROTTLE, 503 },
    { 503, "ServiceUnavailable", S3_RETRY_THROTTLE, 503 },
    { 503, "InternalError", S3_RETRY_THROTTLE, 503 },
    { 504, "", S3_RETRY_TRANSIENT, 504 },
    { 505, "", S3_RETRY_NO, 502 },
    { 507, "XMinioStorageFull", S3_RETRY_TRANSIENT, 502 },
    { 509, "", S3_RETRY_TRANSIENT, 502 },
    { 520, "", S3_RETRY_TRANSIENT, 502 },
    { 529, "", S3_RETRY_TRANSIENT, 502 },
    { 599, "", S3_RETRY_TRANSIENT, 502 },
    { 520, "AccessDenied", S3_RETRY_NO, 502 },
    { 408, "", S3_RETRY_TRANSIENT, 504 },
    { 429, "", S3_RETRY_THROTTLE, 503 },
    { 429, "TooManyRequestsException", S3_RETRY_THROTTLE, 503 },
    { 400, "RequestTimeout", S3_RETRY_TRANSIENT, 504 },
    { 400, "RequestTimeoutException", S3_RETRY_TRANSIENT, 504 },
    { 400, "BadDigest", S3_RETRY_TRANSIENT, 502 },
    { 400, "XAmzContentSHA256Mismatch", S3_RETRY_TRANSIENT, 502 },
    { 400, "IncompleteBody", S3_RETRY_TRANSIENT, 502 },
    { 409, "OperationAborted", S3_RETRY_TRANSIENT, 502 },

    /* an error under 200, as CompleteMultipartUpload has it */

    { 200, "InternalError", S3_RETRY_TRANSIENT, 502 },
    { 200, "SlowDown", S3_RETRY_THROTTLE, 503 },
    { 200, "ServiceUnavailable", S3_RETRY_TRANSIENT, 502 },
    { 200, "AccessDenied", S3_RETRY_NO, 502 },
    { 200, "", S3_RETRY_NO, 502 },

    { 403, "RequestTimeTooSkewed", S3_RETRY_CLOCK, 502 },
    { 400, "InvalidSignatureException", S3_RETRY_CLOCK, 502 },
    { 400, "ExpiredToken", S3_RETRY_CREDENTIALS, 502 },
    { 400, "InvalidToken", S3_RETRY_CREDENTIALS, 502 },
    { 403, "ExpiredTokenException", S3_RETRY_CREDENTIALS, 502 },
    { 403, "RequestExpired", S3_RETRY_CREDENTIALS, 502 },
    { 403, "InvalidAccessKeyId", S3_RETRY_CREDENTIALS, 502 },
    { 400, "UnrecognizedClientException", S3_RETRY_CREDENTIALS, 502 },
    { 400, "IncompleteSignature", S3_RETRY_CREDENTIALS, 502 },
    { 400, "MissingAuthenticationToken", S3_RETRY_CREDENTIALS, 502 },

    { 301, "PermanentRedirect", S3_RETRY_REGION, 502 },
    { 301, "", S3_RETRY_REGION, 502 },
    { 307, "TemporaryRedirect", S3_RETRY_REGION, 502 },
    { 307, "", S3_RETRY_REGION, 502 },
    { 400, "AuthorizationHeaderMalformed", S3_RETRY_REGION, 502 },
    { 400, "IllegalLocationConstraintException", S3_RETRY_REGION, 502 },

    { 403, "AccessDenied", S3_RETRY_NO, 502 },
    { 403, "SignatureDoesNotMatch", S3_RETRY_NO, 502 },
    { 403, "", S3_RETRY_NO, 502 },
    { 404, "NoSuchBucket", S3_RETRY_NO, 502 },
    { 404, "NoSuchKey", S3_RETRY_NO, 502 },
    { 404, "NoSuchUpload", S3_RETRY_NO, 502 },
    { 500, "NoSuchUpload", S3_RETRY_NO, 502 },
    { 404, "", S3_RETRY_NO, 502 },
    { 400, "InvalidArgument", S3_RETRY_NO, 502 },
    { 400, "InvalidRequest", S3_RETRY_NO, 502 },
    { 400, "EntityTooLarge", S3_RETRY_NO, 502 },
    { 400, "EntityTooSmall", S3_RETRY_NO, 502 },
    { 400, "InvalidDigest", S3_RETRY_NO, 502 },
    { 400, "KeyTooLongError", S3_RETRY_NO, 502 },
    { 400, "MetadataTooLarge", S3_RETRY_NO, 502 },
    { 400, "InvalidTag", S3_RETRY_NO, 502 },
    { 400, "MalformedXML", S3_RETRY_NO, 502 },
    { 411, "MissingContentLength", S3_RETRY_NO, 502 },
    { 405, "", S3_RETRY_NO, 502 },
    { 412, "PreconditionFailed", S3_RETRY_NO, 502 },
    { 501, "NotImplemented", S3_RETRY_NO, 502 },
    { 501, "", S3_RETRY_NO, 502 },
    { 400, "", S3_RETRY_NO, 502 },
    { 400, "SomethingNew", S3_RETRY_NO, 502 },
    { 400, "slowdown", S3_RETRY_NO, 502 },
    { 400, "SlowDow", S3_RETRY_NO, 502 },

    /* the SDKs' list of throttling codes */

    { 400, "Throttling", S3_RETRY_THROTTLE, 503 },
    { 400, "ThrottlingException", S3_RETRY_THROTTLE, 503 },
    { 400, "ThrottledException", S3_RETRY_THROTTLE, 503 },
    { 400, "RequestThrottled", S3_RETRY_THROTTLE, 503 },
    { 400, "RequestThrottledException", S3_RETRY_THROTTLE, 503 },
    { 400, "RequestLimitExceeded", S3_RETRY_THROTTLE, 503 },
    { 400, "BandwidthLimitExceeded", S3_RETRY_THROTTLE, 503 },
    { 400, "LimitExceededException", S3_RETRY_THROTTLE, 503 },
    { 400, "PriorRequestNotComplete", S3_RETRY_THROTTLE, 503 },
    { 400, "EC2ThrottledException", S3_RETRY_THROTTLE, 503 },
    { 400, "ProvisionedThroughputExceededException",
      S3_RETRY_THROTTLE, 503 },
    { 400, "TransactionInProgressException", S3_RETRY_THROTTLE, 503 },

    /* DynamoDB's own */

    { 400, "ItemCollectionSizeLimitExceeded", S3_RETRY_THROTTLE, 503 },
    { 400, "TransactionConflictException", S3_RETRY_TRANSIENT, 502 },
    { 409, "ReplicatedWriteConflictException", S3_RETRY_TRANSIENT, 502 },
    { 500, "InternalServerError", S3_RETRY_TRANSIENT, 502 },
    { 400, "ConditionalCheckFailedException", S3_RETRY_NO, 502 },
    { 400, "ResourceNotFoundException", S3_RETRY_NO, 502 },
    { 400, "ValidationException", S3_RETRY_NO, 502 },
    { 400, "AccessDeniedException", S3_RETRY_NO, 502 },
    { 400, "SerializationException", S3_RETRY_NO, 502 }
};


static void
test_class(void **state)
{
    size_t          i;
    s3_str_t        code;
    const error_t  *t;

    (void) state;

    for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        t = &errors[i];
        code = s3_test_str(t->code);

        if (s3_retry_class(t->status, code) != t->class) {
            fail_msg("%u %s is class %d", t->status, t->code,
                     s3_retry_class(t->status, code));
        }

        if (s3_retry_client_status(t->status, code, 0) != t->client) {
            fail_msg("%u %s gives the client %u", t->status, t->code,
                     s3_retry_client_status(t->status, code, 0));
        }

        assert_int_equal(s3_retry_client_status(t->status, code, 1), 504);
        s3_test_drop(code);
    }
}


static void
bounded(s3_retry_e class, unsigned try, uint64_t limit)
{
    uint64_t  i, n, least, most, sum;

    assert_int_equal(s3_retry_delay(class, try, 0), 0);
    assert_int_equal(s3_retry_delay(class, try, limit), limit);
    assert_int_equal(s3_retry_delay(class, try, limit + 1), 0);
    assert_true(s3_retry_delay(class, try, UINT64_MAX) <= limit);

    /* uniform: the ends are reached and the mean is in the middle */

    least = UINT64_MAX;
    most = 0;
    sum = 0;

    for (i = 0; i < 200000; i++) {
        n = s3_retry_delay(class, try, i * 0x9e3779b97f4a7c15);
        assert_true(n <= limit);
        least = (n < least) ? n : least;
        most = (n > most) ? n : most;
        sum += n;
    }

    assert_true(least <= limit / 100);
    assert_true(most >= limit - limit / 100);
    assert_true(sum / 200000 > limit * 45 / 100);
    assert_true(sum / 200000 < limit * 55 / 100);
}


static void
test_delay(void **state)
{
    (void) state;

    bounded(S3_RETRY_TRANSIENT, 0, 100);
    bounded(S3_RETRY_TRANSIENT, 1, 100);
    bounded(S3_RETRY_TRANSIENT, 2, 200);
    bounded(S3_RETRY_TRANSIENT, 8, 12800);
    bounded(S3_RETRY_TRANSIENT, 9, 20000);
    bounded(S3_RETRY_TRANSIENT, 65, 20000);
    bounded(S3_RETRY_TRANSIENT, 4294967295u, 20000);
    bounded(S3_RETRY_THROTTLE, 1, 500);
    bounded(S3_RETRY_THROTTLE, 2, 1000);
    bounded(S3_RETRY_THROTTLE, 6, 16000);
    bounded(S3_RETRY_THROTTLE, 7, 20000);

    assert_int_equal(s3_retry_delay(S3_RETRY_NO, 3, 77), 0);
    assert_int_equal(s3_retry_delay(S3_RETRY_CLOCK, 3, 77), 0);
    assert_int_equal(s3_retry_delay(S3_RETRY_CREDENTIALS, 3, 77), 0);
    assert_int_equal(s3_retry_delay(S3_RETRY_REGION, 3, 77), 0);
}


static void
test_wait(void **state)
{
    size_t    i;
    uint64_t  delay;

    /* S3_RETRY_TRANSIENT, first try: random is the wait where nothing was asked
       for, at most 100 */

    static const struct {
        uint64_t  random, after, passed, limit;
        int       rc;
        uint64_t  delay;
    } tests[] = {
        { 0, 0, 0, 0, S3_ERROR, 0 },
        { 1, 0, 0, 0, S3_ERROR, 0 },
        { 100, 0, 0, 100, S3_OK, 100 },
        { 100, 0, 1, 100, S3_ERROR, 0 },
        { 0, 0, 100, 100, S3_OK, 0 },
        { 0, 0, 101, 100, S3_ERROR, 0 },

        { 7, 1000, 0, 2000, S3_OK, 1007 },
        { 7, 1000, 1000, 2000, S3_OK, 1007 },
        { 7, 1000, 1500, 2000, S3_OK, 507 },
        { 7, 1000, 1999, 2000, S3_OK, 8 },
        { 7, 1000, 2000, 2000, S3_ERROR, 0 },
        { 7, 1000, 2001, 2000, S3_ERROR, 0 },
        { 7, 120000, 0, 120000, S3_OK, 120007 },
        { 7, 120000, 120007, 120000, S3_ERROR, 0 },
        { 0, 120000, 120000, 120000, S3_ERROR, 0 },
        { 7, UINT64_MAX, 0, 2000, S3_OK, 2007 },
        { 7, 1, 0, 0, S3_ERROR, 0 }
    };

    (void) state;

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {

        if (s3_retry_wait(S3_RETRY_TRANSIENT, 1, tests[i].random,
                          tests[i].after, tests[i].passed, tests[i].limit,
                          &delay)
            != tests[i].rc
            || (tests[i].rc == S3_OK && delay != tests[i].delay))
        {
            fail_msg("%zu: delay is %llu", i, (unsigned long long) delay);
        }
    }
}


static void
test_http_date(void **state)
{
    char           text[64];
    size_t         i;
    time_t         t;
    s3_str_t       s;

    static const date_t  tests[] = {
        { "Sun, 06 Nov 1994 08:49:37 GMT", 784111777 },
        { "Thu, 01 Jan 1970 00:00:00 GMT", 0 },
        { "Tue, 29 Feb 2000 12:34:56 GMT", 951827696 },
        { "Fri, 31 Dec 9999 23:59:59 GMT", 253402300799 },
        { "Sat, 31 Dec 2016 23:59:60 GMT", 1483228800 },
        { "Wed, 31 Dec 1969 23:59:59 GMT", -1 },
        { "Thu, 29 Feb 2001 00:00:00 GMT", -1 },
        { "Sun, 29 Feb 2100 00:00:00 GMT", -1 },
        { "Sun, 31 Apr 2026 00:00:00 GMT", -1 },
        { "Mon, 31 Apr 2028 00:00:00 GMT", -1 },
        { "Tue, 29 Feb 2028 00:00:00 GMT", 1835395200 },
        { "Wed, 30 Feb 2028 00:00:00 GMT", -1 },
        { "Sun, 00 Nov 1994 08:49:37 GMT", -1 },
        { "Sun, 06 Nov 1994 24:00:00 GMT", -1 },
        { "Sun, 06 Nov 1994 08:60:37 GMT", -1 },
        { "Sun, 06 Nov 1994 08:49:61 GMT", -1 },
        { "Sun, 06 nov 1994 08:49:37 GMT", -1 },
        { "Son, 06 Nov 1994 08:49:37 GMT", -1 },
        { "Sun, 06 Nov 1994 08:49:37 UTC", -1 },
        { "Sun, 06 Nov 1994 08:49:37 GMT ", -1 },
        { "Sun, 06 Nov 1994 08:49:37 GM", -1 },
        { "Sun, 6 Nov 1994 08:49:37 GMT", -1 },
        { "Sun, +6 Nov 1994 08:49:37 GMT", -1 },
        { "Sun,006 Nov 1994 08:49:37 GMT", -1 },
        { "Sun, 06-Nov-1994 08:49:37 GMT", -1 },
        { "Sunday, 06-Nov-94 08:49:37 GMT", -1 },
        { "Sun Nov  6 08:49:37 1994", -1 },
        { "", -1 }
    };

    (void) state;

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        s = s3_test_str(tests[i].text);

        if (s3_retry_http_date(s) != tests[i].seconds) {
            fail_msg("\"%s\" is %lld", tests[i].text,
                     (long long) s3_retry_http_date(s));
        }

        s3_test_drop(s);
    }

    /* the C library's calendar */

    for (t = 0; t < 253402300799; t += 20000003) {
        strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", gmtime(&t));
        assert_int_equal(s3_retry_http_date(s3_str(text)), t);
    }
}


static void
test_iso_date(void **state)
{
    char           text[64];
    size_t         i;
    time_t         t;
    s3_str_t       s;

    static const date_t  tests[] = {
        { "2026-11-23T22:00:00Z", 1795471200 },
        { "2026-11-23T22:00:00.000Z", 1795471200 },
        { "2026-11-23T22:00:00.999999999Z", 1795471200 },
        { "1970-01-01T00:00:00Z", 0 },
        { "2000-02-29T12:34:56Z", 951827696 },
        { "9999-12-31T23:59:59Z", 253402300799 },
        { "1969-12-31T23:59:59Z", -1 },
        { "2026-02-29T00:00:00Z", -1 },
        { "2026-00-01T00:00:00Z", -1 },
        { "2026-13-01T00:00:00Z", -1 },
        { "2026-11-00T00:00:00Z", -1 },
        { "2026-11-31T00:00:00Z", -1 },
        { "2026-11-23T24:00:00Z", -1 },
        { "2026-11-23T22:00:00", -1 },
        { "2026-11-23T22:00:00.Z", -1 },
        { "2026-11-23T22:00:00.1", -1 },
        { "2026-11-23T22:00:00.1xZ", -1 },
        { "2026-11-23T22:00:00,1Z", -1 },
        { "2026-11-23T22:00:00+00:00", -1 },
        { "2026-11-23T22:00:00ZZ", -1 },
        { "2026-11-23 22:00:00Z", -1 },
        { "2026-11-23T22:00Z", -1 },
        { "20261123T220000Z", -1 },
        { "-026-11-23T22:00:00Z", -1 },
        { "Z", -1 },
        { "", -1 }
    };

    (void) state;

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        s = s3_test_str(tests[i].text);

        if (s3_retry_iso_date(s) != tests[i].seconds) {
            fail_msg("\"%s\" is %lld", tests[i].text,
                     (long long) s3_retry_iso_date(s));
        }

        s3_test_drop(s);
    }

    for (t = 0; t < 253402300799; t += 20000003) {
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", gmtime(&t));
        assert_int_equal(s3_retry_iso_date(s3_str(text)), t);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_class),
        cmocka_unit_test(test_delay),
        cmocka_unit_test(test_wait),
        cmocka_unit_test(test_http_date),
        cmocka_unit_test(test_iso_date)
    };

    return cmocka_run_group_tests_name("retry", tests, NULL, NULL);
}
