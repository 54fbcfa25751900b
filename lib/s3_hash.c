#include "s3_hash.h"

#include <string.h>

#include <openssl/err.h>


#define S3_HASH_BLOCK  64


static int s3_hash_keyed(const unsigned char *key, unsigned char pad,
    const void *data, size_t len, unsigned char out[S3_HASH_LEN]);


static EVP_MD_CTX  *s3_hash_ctx;


EVP_MD_CTX *
s3_hash_begin(void)
{
    /* no type: OpenSSL 3 keeps the algorithm and saves the look-up */

    if (s3_hash_ctx && EVP_DigestInit_ex(s3_hash_ctx, NULL, NULL) == 1) {
        return s3_hash_ctx;
    }

    EVP_MD_CTX_free(s3_hash_ctx);

    /* the queue is that of TLS as well */

    ERR_clear_error();

    s3_hash_ctx = EVP_MD_CTX_new();

    if (s3_hash_ctx
        && EVP_DigestInit_ex(s3_hash_ctx, EVP_sha256(), NULL) == 1)
    {
        return s3_hash_ctx;
    }

    EVP_MD_CTX_free(s3_hash_ctx);
    s3_hash_ctx = NULL;

    ERR_clear_error();

    return NULL;
}


int
s3_hash_end(EVP_MD_CTX *md, unsigned char digest[S3_HASH_LEN])
{
    if (EVP_DigestFinal_ex(md, digest, NULL) != 1) {
        ERR_clear_error();
        return S3_ERROR;
    }

    return S3_OK;
}


int
s3_hash_hmac(const void *key, size_t key_len, s3_str_t data,
    unsigned char out[S3_HASH_LEN])
{
    int            rc;
    EVP_MD_CTX    *md;
    unsigned char  block[S3_HASH_BLOCK], inner[S3_HASH_LEN];

    memset(block, 0, sizeof(block));
    rc = S3_OK;

    if (key_len > sizeof(block)) {
        md = s3_hash_begin();
        rc = S3_ERROR;

        if (md && EVP_DigestUpdate(md, key, key_len) == 1) {
            rc = s3_hash_end(md, block);
        }

    } else if (key_len) {
        memcpy(block, key, key_len);
    }

    if (rc == S3_OK) {
        rc = s3_hash_keyed(block, 0x36, data.data, data.len, inner);
    }

    if (rc == S3_OK) {
        rc = s3_hash_keyed(block, 0x5c, inner, sizeof(inner), out);
    }

    if (rc != S3_OK) {
        ERR_clear_error();
    }

    s3_wipe(block, sizeof(block));

    return rc;
}


/* of the key's block under a pad, and the data */

static int
s3_hash_keyed(const unsigned char *key, unsigned char pad, const void *data,
    size_t len, unsigned char out[S3_HASH_LEN])
{
    int            rc;
    size_t         i;
    EVP_MD_CTX    *md;
    unsigned char  block[S3_HASH_BLOCK];

    for (i = 0; i < sizeof(block); i++) {
        block[i] = key[i] ^ pad;
    }

    md = s3_hash_begin();
    rc = S3_ERROR;

    if (md && EVP_DigestUpdate(md, block, sizeof(block)) == 1
        && EVP_DigestUpdate(md, data, len) == 1)
    {
        rc = s3_hash_end(md, out);
    }

    s3_wipe(block, sizeof(block));

    return rc;
}
