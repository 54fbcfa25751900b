/*
 * Entity tags (RFC 9110, 8.8.3) as clients and S3's answers write them: some
 * leave out the quotes.
 */

#ifndef S3_ETAG_H
#define S3_ETAG_H

#include "s3_str.h"


/* 1: the same, quotes aside (strong comparison: a weak tag is the same as
   none), 0: not */
int s3_etag_same(s3_str_t a, s3_str_t b);

/* whether the value of If-Match, "*" or a list (RFC 9110, 13.1.1), has the tag
   of an object that exists; 1 or 0 */
int s3_etag_match(s3_str_t list, s3_str_t etag);


#endif /* S3_ETAG_H */
