/*
 * checksums NAME: seconds of CPU a GiB that CRC-32 and SHA-256 of lib/ take,
 * over 64 KiB at a time out of 64 MiB, so that memory is read as a body's is;
 * the least of seven rounds. See bench/checksums.
 */

#define _DEFAULT_SOURCE

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "s3_checksum.h"


#define MEMORY  ((size_t) 64 << 20)
#define PIECE   ((size_t) 64 << 10)
#define ROUNDS  7


static double cpu(void);
static void tell(const char *name, double *spent);


int
main(int argc, char **argv)
{
    size_t          i;
    double          start, crc_time[ROUNDS], sha_time[ROUNDS];
    uint32_t        crc;
    unsigned        round;
    s3_sha256_t    *sha;
    unsigned char  *mem;

    mem = malloc(MEMORY);
    sha = s3_sha256_create();

    if (argc != 2 || mem == NULL || sha == NULL) {
        return 1;
    }

    for (i = 0; i < MEMORY; i++) {
        mem[i] = (unsigned char) random();
    }

    crc = 0;

    for (round = 0; round < ROUNDS; round++) {
        start = cpu();

        for (i = 0; i < MEMORY; i += PIECE) {
            crc = s3_crc32(crc, mem + i, PIECE);
        }

        crc_time[round] = cpu() - start;
        start = cpu();

        for (i = 0; i < MEMORY; i += PIECE) {
            if (s3_sha256_update(sha, mem + i, PIECE) != S3_OK) {
                return 1;
            }
        }

        sha_time[round] = cpu() - start;
    }

    printf("%s, CRC-32 %08lx\n", argv[1], (unsigned long) crc);
    tell("CRC-32", crc_time);
    tell("SHA-256", sha_time);

    s3_sha256_destroy(sha);
    free(mem);

    return 0;
}


static double
cpu(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);

    return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}


static void
tell(const char *name, double *spent)
{
    double    least;
    unsigned  i;

    least = spent[0];

    for (i = 1; i < ROUNDS; i++) {
        least = spent[i] < least ? spent[i] : least;
    }

    printf("    %s\t%.3f s/GiB\n", name,
           least * (double) ((size_t) 1 << 30) / (double) MEMORY);
}
