/*
 * SHA-256 (FIPS 180-4) and HMAC-SHA-256 (RFC 2104) of what is short, by
 * OpenSSL in one context of the process that is never given up: making one,
 * and looking up the algorithm, costs ten times the digest of a request. So
 * there is one digest at a time, and it is not for threads.
 */

#ifndef S3_HASH_H
#define S3_HASH_H

#include "s3_str.h"

#include <openssl/evp.h>

#define S3_HASH_LEN  32

/* looks both algorithms up, for all processes that are forked afterwards;
   without it the first use does. S3_OK, S3_ERROR: OpenSSL has one not, or
   failed. */
int s3_hash_init(void);

/* a digest begins, what became of one before does not matter; NULL: OpenSSL
   failed. The context is not the caller's: EVP_DigestUpdate() alone. */
EVP_MD_CTX *s3_hash_begin(void);
/* S3_OK, S3_ERROR: OpenSSL failed */
int s3_hash_end(EVP_MD_CTX *md, unsigned char digest[S3_HASH_LEN]);

/* the key may be of any length; S3_OK, S3_ERROR: OpenSSL failed */
int s3_hash_hmac(const void *key, size_t key_len, s3_str_t data,
    unsigned char out[S3_HASH_LEN]);

#endif
