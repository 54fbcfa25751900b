/*
 * What S3's answer to an operation means (Amazon S3 API Reference "Actions",
 * "Error responses"). Part of ngx_s3_api.
 */

#ifndef NGX_S3_ANSWER_H
#define NGX_S3_ANSWER_H

#include "ngx_s3_api.h"


/* status, code and text, or why no answer came */
#define NGX_S3_ANSWER_CAUSE  420


typedef struct {
    s3_retry_e    class;
    unsigned      good:1;            /* the operation was carried out */
    unsigned      fresh:1;           /* the next try takes no idle connection */
    int64_t       clock;             /* S3's, seconds since the epoch, or -1 */
    char          region[64];        /* S3 names another one, else empty */
    char          request_id[128];
    char          cause[NGX_S3_ANSWER_CAUSE];    /* printable */
} ngx_s3_answer_t;


/* reads the end of a try into the answer and the call's results but rc,
   client_status, message and tries */
void ngx_s3_answer_judge(ngx_s3_call_t *call, ngx_s3_request_t *rq,
    ngx_s3_answer_t *answer);

/* ms of a reply's Retry-After, 0: none; clock: the sender's, seconds since the
   epoch, -1: ours (RFC 9110, 10.2.3) */
ngx_msec_t ngx_s3_answer_retry_after(ngx_s3_request_t *rq, int64_t clock);


#endif /* NGX_S3_ANSWER_H */
