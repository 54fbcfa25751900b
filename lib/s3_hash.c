#include "s3_hash.h"

#include <openssl/core_names.h>
#include <openssl/err.h>


static int s3_hash_mac(void);


static EVP_MD_CTX   *s3_hash_ctx;
static EVP_MAC_CTX  *s3_hash_mac_ctx;


int
s3_hash_init(void)
{
    if (s3_hash_begin() && s3_hash_mac() == S3_OK) {
        return S3_OK;
    }

    ERR_clear_error();

    return S3_ERROR;
}


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
    size_t  len;

    /* without a key OpenSSL would go on with the former one */

    if (key_len == 0) {
        key = "";
    }

    if (s3_hash_mac() == S3_OK
        && EVP_MAC_init(s3_hash_mac_ctx, key, key_len, NULL) == 1
        && EVP_MAC_update(s3_hash_mac_ctx, data.data, data.len) == 1
        && EVP_MAC_final(s3_hash_mac_ctx, out, &len, S3_HASH_LEN) == 1)
    {
        return S3_OK;
    }

    ERR_clear_error();

    return S3_ERROR;
}


static int
s3_hash_mac(void)
{
    EVP_MAC     *mac;
    OSSL_PARAM   params[2];

    if (s3_hash_mac_ctx) {
        return S3_OK;
    }

    mac = EVP_MAC_fetch(NULL, "HMAC", NULL);

    if (mac) {
        s3_hash_mac_ctx = EVP_MAC_CTX_new(mac);
        EVP_MAC_free(mac);
    }

    params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST,
                                                 "SHA256", 0);
    params[1] = OSSL_PARAM_construct_end();

    if (s3_hash_mac_ctx
        && EVP_MAC_CTX_set_params(s3_hash_mac_ctx, params) == 1)
    {
        return S3_OK;
    }

    EVP_MAC_CTX_free(s3_hash_mac_ctx);
    s3_hash_mac_ctx = NULL;

    return S3_ERROR;
}
