#ifndef S3_CHECKSUM_H
#define S3_CHECKSUM_H

#include "s3_str.h"

/* CRC-32 (zlib): start from 0 */
uint32_t s3_crc32(uint32_t crc, const void *p, size_t len);
/* CRC of A and B in a row from those of A and B and the length of B */
uint32_t s3_crc32_combine(uint32_t a, uint32_t b, uint64_t len_b);
/* base64 of the big-endian value: 8 characters and a NUL */
void s3_crc32_base64(uint32_t crc, char out[9]);

/* incremental SHA-256 (OpenSSL EVP); NULL: no memory */
typedef struct s3_sha256_s  s3_sha256_t;
s3_sha256_t *s3_sha256_create(void);
int s3_sha256_reset(s3_sha256_t *h);
int s3_sha256_update(s3_sha256_t *h, const void *p, size_t len);
int s3_sha256_hex(s3_sha256_t *h, char out[65]);
void s3_sha256_destroy(s3_sha256_t *h);
/* of one piece */
int s3_sha256(const void *p, size_t len, char out[65]);

#endif
