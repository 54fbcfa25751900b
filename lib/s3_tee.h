/*
 * Why a response is not captured, or a copy that was begun is dropped: for the
 * totals and $s3_tee_status.
 */

#ifndef S3_TEE_H
#define S3_TEE_H

/* in the order in which a response is judged */

typedef enum {
    S3_TEE_METHOD = 0,               /* of the request: HEAD … */
    S3_TEE_RANGE,                    /* the client asked for ranges */
    S3_TEE_SUBREQUEST,
    S3_TEE_STATUS,
    S3_TEE_ERROR_PAGE,
    S3_TEE_SET_COOKIE,
    S3_TEE_CACHE_CONTROL,            /* private, no-store */
    S3_TEE_CLOSE_DELIMITED,          /* a cut body cannot be told from a whole
                                        one */
    S3_TEE_SIZE,
    S3_TEE_CONDITION,                /* s3_tee_if */
    S3_TEE_KEY,                      /* key, bucket or id is not valid */
    S3_TEE_BUSY,                     /* key or id is in use */
    S3_TEE_EXISTS,                   /* the object is there already */
    S3_TEE_NO_MEMORY,

    /* the copy was begun */

    S3_TEE_OVERRUN,                  /* S3 could not keep up */
    S3_TEE_TRUNCATED,                /* the body did not come whole */
    S3_TEE_CLIENT,                   /* the client left */
    S3_TEE_FAILED,                   /* S3, or the transfer was cancelled */
    S3_TEE_N
} s3_tee_reason_e;

/* "method" …; "" for a value that is no reason */
const char *s3_tee_reason_name(s3_tee_reason_e reason);

#endif
