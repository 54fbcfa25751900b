/*
 * The body of the large tests and of the benchmark: 64-bit little-endian
 * words, word i being i * PATTERN_STEP modulo 2^64. Any PATTERN_PROBE bytes of
 * it tell where they stand, so a server that keeps nothing can still prove
 * that parts tile an object.
 */

#ifndef PATTERN_H
#define PATTERN_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define PATTERN_STEP     UINT64_C(0x9e3779b97f4a7c15)
#define PATTERN_INVERSE  UINT64_C(0xf1de83e19937733d)
#define PATTERN_PROBE    16
#define PATTERN_FRAME    20         /* what pattern_chunk() adds, at most */


static inline unsigned char
pattern_byte(uint64_t pos)
{
    return (unsigned char) ((pos / 8 * PATTERN_STEP) >> (pos % 8 * 8));
}


/* len bytes of the pattern from position pos to p */

static inline void
pattern_fill(unsigned char *p, size_t len, uint64_t pos)
{
    uint64_t  word;

    while (len > 0 && pos % 8 != 0) {
        *p++ = pattern_byte(pos++);
        len--;
    }

    for (word = pos / 8 * PATTERN_STEP; len >= 8; word += PATTERN_STEP) {
        memcpy(p, &word, 8);
        p += 8;
        pos += 8;
        len -= 8;
    }

    while (len-- > 0) {
        *p++ = pattern_byte(pos++);
    }
}


/* the same as a chunk of the chunked coding; returns its length */

static inline size_t
pattern_chunk(unsigned char *p, size_t len, uint64_t pos)
{
    size_t  n;

    n = sprintf((char *) p, "%zx\r\n", len);
    pattern_fill(p + n, len, pos);
    memcpy(p + n + len, "\r\n", 2);

    return n + len + 2;
}


/* whether p holds len bytes of the pattern from position pos */

static inline int
pattern_check(const unsigned char *p, size_t len, uint64_t pos)
{
    uint64_t  word, seen, diff;

    diff = 0;

    while (len > 0 && pos % 8 != 0) {
        diff |= *p++ ^ pattern_byte(pos++);
        len--;
    }

    for (word = pos / 8 * PATTERN_STEP; len >= 8; word += PATTERN_STEP) {
        memcpy(&seen, p, 8);
        diff |= seen ^ word;
        p += 8;
        pos += 8;
        len -= 8;
    }

    while (len-- > 0) {
        diff |= *p++ ^ pattern_byte(pos++);
    }

    return diff == 0;
}


/* where the PATTERN_PROBE bytes of p stand; 0: found, -1: nowhere */

static inline int
pattern_find(const unsigned char *p, uint64_t *pos)
{
    unsigned  skip;
    uint64_t  word;

    for (skip = 0; skip < 8; skip++) {
        memcpy(&word, p + skip, 8);
        *pos = word * PATTERN_INVERSE * 8 - skip;

        if (word * PATTERN_INVERSE < UINT64_C(1) << 56
            && pattern_check(p, PATTERN_PROBE, *pos))
        {
            return 0;
        }
    }

    return -1;
}


#endif /* PATTERN_H */
