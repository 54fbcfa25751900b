#ifndef S3_RETRY_H
#define S3_RETRY_H

#include "s3_str.h"

typedef enum {
    S3_RETRY_NO = 0,
    S3_RETRY_TRANSIENT,
    S3_RETRY_THROTTLE,               /* larger base delay */
    S3_RETRY_CLOCK,                  /* correct the clock, once, at once */
    S3_RETRY_CREDENTIALS,            /* refresh the keys, once, at once */
    S3_RETRY_REGION                  /* sign for another region, once */
} s3_retry_e;

/* status: HTTP's, 0: no whole answer came. code: S3's or DynamoDB's error code,
   may be empty (HEAD has no body); it decides before the status, since S3
   sends errors under 200, too. S3 "Error responses", DynamoDB "Error handling".
   Serves both. */
s3_retry_e s3_retry_class(unsigned status, s3_str_t code);

/* full jitter: a uniform value in [0, min(cap, base * 2^(try - 1))] ms from
   `random`, 64 random bits; try counts from 1; base 100 ms, throttled 500 ms,
   cap 20 s. 0 for the classes that are tried again at once. (AWS
   "Exponential backoff and jitter") */
uint64_t s3_retry_delay(s3_retry_e class, unsigned try, uint64_t random);

/*
 * When the next try is made, in ms from now; `after`: what the server asked
 * for, 0: nothing; `passed` since the first failure, `limit` for all tries.
 * S3_OK, or S3_ERROR: there is no time for one, as never where limit is 0 and
 * the class is one of those that wait. The server may ask for more
 * than is left of it, or than all of it (MinIO sends a Retry-After of 60 or
 * 120 s under any load): then the last try comes at its end, as nobody may be
 * able to send the file again. try and random as for s3_retry_delay(), whose
 * wait is added to what was asked for: the server tells all of its clients the
 * same, and they come back one by one.
 */
int s3_retry_wait(s3_retry_e class, unsigned try, uint64_t random,
    uint64_t after, uint64_t passed, uint64_t limit, uint64_t *delay);

/* what our client is told after the tries are used up: 502, 503 or 504;
   timedout → 504 whatever came before */
unsigned s3_retry_client_status(unsigned status, s3_str_t code, int timedout);

/* RFC 9110 IMF-fixdate (Date, Last-Modified) to seconds since the epoch, -1:
   malformed */
int64_t s3_retry_http_date(s3_str_t value);

/* ISO 8601 as in credentials' Expiration and x-amz ServerTime
   (2026-11-23T22:00:00Z, fraction allowed) to seconds, -1: malformed */
int64_t s3_retry_iso_date(s3_str_t value);

#endif
