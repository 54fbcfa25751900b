#include "s3_tee.h"


static const char  *s3_tee_reasons[S3_TEE_N] = {
    "method", "range", "subrequest", "status", "error_page", "set_cookie",
    "cache_control", "close_delimited", "size", "condition", "key", "busy",
    "exists", "no_memory", "overrun", "truncated", "client", "failed"
};


const char *
s3_tee_reason_name(s3_tee_reason_e reason)
{
    return ((unsigned) reason < S3_TEE_N) ? s3_tee_reasons[reason] : "";
}
