/*
 * Which fields of a body's source are kept with the object: those that tell a
 * reader what the bytes are (RFC 9110, 8 "Representation Data and Metadata";
 * S3 API Reference "PutObject").
 */

#ifndef NGX_S3_KEPT_H
#define NGX_S3_KEPT_H

#include "ngx_s3_conn.h"


typedef struct {
    const char  *name;               /* lower case */
    const char  *stored;             /* as the object's */
    unsigned     list:1;             /* may come in several lines */
    unsigned     answer:1;           /* of answers alone: the object has its
                                        own, this is the origin's */
} ngx_s3_kept_t;


/* a NULL name ends them */
extern const ngx_s3_kept_t  ngx_s3_kept[];


/*
 * Adds a field of an origin's answer (name in any case) to those of the object,
 * of which the first `fixed` are set by the configuration and win. Lines of a
 * list are joined. Copies both strings to pool. NGX_OK: also where it is none
 * of the above, or has a byte that no header may have (then it is left out);
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_s3_keep(ngx_pool_t *pool, ngx_array_t *headers,
    ngx_uint_t fixed, s3_str_t name, s3_str_t value);

/* a CRC-32 of those of an answer's fields (of s3_field_t, names in lower case)
   that are kept: another one, other fields */
uint32_t ngx_s3_kept_sum(ngx_array_t *fields);


#endif /* NGX_S3_KEPT_H */
