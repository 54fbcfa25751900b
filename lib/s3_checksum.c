#include "s3_checksum.h"
#include "s3_hash.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <zlib.h>

#if (S3_HAVE_ISAL)
#include <isa-l/crc.h>
#endif


struct s3_sha256_s {
    EVP_MD_CTX  *ctx;
};


static int s3_checksum_result(int rc);
static void s3_checksum_hex(const unsigned char *digest, char out[65]);


uint32_t
s3_crc32(uint32_t crc, const void *p, size_t len)
{
    /* zlib takes a NULL buffer for "give me the initial value" */

    if (len == 0) {
        return crc;
    }

#if (S3_HAVE_ISAL)

    /* the same CRC-32, RFC 1952, 8, inverted before and after by the function
       itself */

    return crc32_gzip_refl(crc, p, len);

#else

    return (uint32_t) crc32_z(crc, p, len);

#endif
}


uint32_t
s3_crc32_combine(uint32_t a, uint32_t b, uint64_t len_b)
{
    return (uint32_t) crc32_combine(a, b, (z_off_t) len_b);
}


void
s3_crc32_base64(uint32_t crc, char out[9])
{
    unsigned char  be[4];

    be[0] = (unsigned char) (crc >> 24);
    be[1] = (unsigned char) (crc >> 16);
    be[2] = (unsigned char) (crc >> 8);
    be[3] = (unsigned char) crc;

    (void) EVP_EncodeBlock((unsigned char *) out, be, 4);
}


int
s3_crc32_parse(s3_str_t base64, uint32_t *crc)
{
    char           text[9];
    uint32_t       n;
    unsigned char  be[6];

    if (base64.len != 8 || EVP_DecodeBlock(be, base64.data, 8) != 6) {
        return S3_ERROR;
    }

    n = (uint32_t) be[0] << 24 | (uint32_t) be[1] << 16
        | (uint32_t) be[2] << 8 | be[3];

    /* OpenSSL is lenient about padding and the bits that it hides */

    s3_crc32_base64(n, text);

    if (memcmp(text, base64.data, 8) != 0) {
        return S3_ERROR;
    }

    *crc = n;

    return S3_OK;
}


s3_sha256_t *
s3_sha256_create(void)
{
    s3_sha256_t  *h;

    h = malloc(sizeof(s3_sha256_t));
    if (h == NULL) {
        return NULL;
    }

    h->ctx = EVP_MD_CTX_new();

    if (h->ctx == NULL || EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1) {
        s3_sha256_destroy(h);
        (void) s3_checksum_result(0);
        return NULL;
    }

    return h;
}


int
s3_sha256_reset(s3_sha256_t *h)
{
    /* no type: OpenSSL 3 keeps the algorithm and saves the look-up */

    return s3_checksum_result(EVP_DigestInit_ex(h->ctx, NULL, NULL));
}


int
s3_sha256_update(s3_sha256_t *h, const void *p, size_t len)
{
    return s3_checksum_result(EVP_DigestUpdate(h->ctx, p, len));
}


int
s3_sha256_hex(s3_sha256_t *h, char out[65])
{
    unsigned char  digest[EVP_MAX_MD_SIZE];

    if (EVP_DigestFinal_ex(h->ctx, digest, NULL) != 1) {
        return s3_checksum_result(0);
    }

    s3_checksum_hex(digest, out);

    return S3_OK;
}


void
s3_sha256_destroy(s3_sha256_t *h)
{
    if (h == NULL) {
        return;
    }

    EVP_MD_CTX_free(h->ctx);
    free(h);
}


int
s3_sha256(const void *p, size_t len, char out[65])
{
    EVP_MD_CTX     *md;
    unsigned char   digest[S3_HASH_LEN];

    md = s3_hash_begin();

    if (md == NULL || EVP_DigestUpdate(md, p, len) != 1
        || s3_hash_end(md, digest) != S3_OK)
    {
        return s3_checksum_result(0);
    }

    s3_checksum_hex(digest, out);

    return S3_OK;
}


/* OpenSSL's queue of errors is that of TLS as well, where what we left would be
   taken for a connection's */

static int
s3_checksum_result(int rc)
{
    if (rc == 1) {
        return S3_OK;
    }

    ERR_clear_error();

    return S3_ERROR;
}


static void
s3_checksum_hex(const unsigned char *digest, char out[65])
{
    size_t             i;
    static const char  hex[] = "0123456789abcdef";

    for (i = 0; i < 32; i++) {
        out[2 * i] = hex[digest[i] >> 4];
        out[2 * i + 1] = hex[digest[i] & 0xf];
    }

    out[64] = '\0';
}
