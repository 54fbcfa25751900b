/*
 * Slices of bytes and a bounded writer. lib/ knows no nginx type: s3_str_t
 * has the layout of ngx_str_t so that the engine converts by naming fields.
 */

#ifndef S3_STR_H
#define S3_STR_H

#include <stddef.h>
#include <stdint.h>


/* what functions of lib/ return; the values are those of nginx's codes */

#define S3_OK         0
#define S3_ERROR     -1
#define S3_AGAIN     -2
#define S3_DECLINED  -5


/* a slice: not owned, not NUL-terminated */

typedef struct {
    size_t                len;
    const unsigned char  *data;
} s3_str_t;

#define s3_string(literal)                                                   \
    { sizeof(literal) - 1, (const unsigned char *) literal }


/* one header field, one attribute: name and value, not owned */

typedef struct {
    s3_str_t  name;
    s3_str_t  value;
} s3_field_t;


/*
 * Writes into the caller's memory and never past its end: what does not fit
 * is dropped and `overflow` stays set, so that one test at the end suffices.
 */

typedef struct {
    unsigned char  *start;
    unsigned char  *pos;
    unsigned char  *end;
    unsigned        overflow:1;
} s3_buf_t;


/* a slice of a NUL-terminated string, which has to outlive it */
s3_str_t s3_str(const char *s);

/* 1: equal, 0: not; case_eqs ignores the case of ASCII letters in a, `lower`
   is in lower case */
int s3_str_eq(s3_str_t a, s3_str_t b);
int s3_str_eqs(s3_str_t a, const char *s);
int s3_str_case_eqs(s3_str_t a, const char *lower);

/* 1: equal but for the case of ASCII letters, 0: not */
int s3_str_case_eq(s3_str_t a, s3_str_t b);

/* 1: one of those that make a token (RFC 9110, 5.6.2), 0: not */
int s3_str_tchar(unsigned char c);

/* S3_OK: *n is the decimal number that s is, digits only and at most max, else
   S3_ERROR */
int s3_str_u64(s3_str_t s, uint64_t max, uint64_t *n);

/* copies at most size - 1 bytes and a NUL; returns the bytes copied */
size_t s3_str_copy(char *dst, size_t size, s3_str_t src);

/* bytes of the valid UTF-8 sequence (RFC 3629) at p, 0: there is none; len is
   at least 1 */
size_t s3_str_utf8(const unsigned char *p, size_t len);

/* mem stays the caller's; NULL with size 0 is a buffer that holds nothing */
void s3_buf_init(s3_buf_t *b, void *mem, size_t size);

/* append; once something did not fit, nothing is appended any more */
void s3_buf_put(s3_buf_t *b, const void *data, size_t len);
void s3_buf_puts(s3_buf_t *b, const char *s);
void s3_buf_put_str(s3_buf_t *b, s3_str_t s);
void s3_buf_putc(s3_buf_t *b, char c);
/* decimal */
void s3_buf_put_u64(s3_buf_t *b, uint64_t n);
/* lower case, two digits a byte */
void s3_buf_put_hex(s3_buf_t *b, const unsigned char *data, size_t len);

/* what was written so far, a slice of the buffer's memory */
s3_str_t s3_buf_str(const s3_buf_t *b);

/* overwrites key material so that the compiler does not drop it */
void s3_wipe(void *p, size_t len);


#endif /* S3_STR_H */
