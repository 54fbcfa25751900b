/*
 * CRC-32 of parts and its combination into the object's, as S3's
 * x-amz-checksum-crc32 wants it (Amazon S3 User Guide "Checking object
 * integrity"), and SHA-256 for signing.
 */

#ifndef S3_CHECKSUM_H
#define S3_CHECKSUM_H

#include "s3_str.h"

/* CRC-32 (that of gzip, RFC 1952, 8) of the bytes that gave `crc`, followed by
   `len` bytes of p; start from 0. p may be NULL where len is 0. Computed by
   isa-l where S3_HAVE_ISAL is 1, else by zlib. */
uint32_t s3_crc32(uint32_t crc, const void *p, size_t len);
/* CRC of A and B in a row from those of A and B and the length of B, bytes */
uint32_t s3_crc32_combine(uint32_t a, uint32_t b, uint64_t len_b);
/* base64 of the big-endian value: 8 characters and a NUL */
void s3_crc32_base64(uint32_t crc, char out[9]);
/* and back: S3_OK, S3_ERROR: not such a text */
int s3_crc32_parse(s3_str_t base64, uint32_t *crc);

/* incremental SHA-256 (OpenSSL EVP, FIPS 180-4). The caller owns it until
   s3_sha256_destroy(); NULL: no memory. Each call returns S3_OK, or S3_ERROR
   when OpenSSL fails. */
typedef struct s3_sha256_s  s3_sha256_t;
s3_sha256_t *s3_sha256_create(void);
/* starts again; needed after s3_sha256_hex() and after no other call */
int s3_sha256_reset(s3_sha256_t *h);
int s3_sha256_update(s3_sha256_t *h, const void *p, size_t len);
/* ends the digest: 64 lower-case hex digits and a NUL */
int s3_sha256_hex(s3_sha256_t *h, char out[65]);
/* NULL is allowed */
void s3_sha256_destroy(s3_sha256_t *h);
/* of one piece; S3_OK or S3_ERROR */
int s3_sha256(const void *p, size_t len, char out[65]);

#endif
