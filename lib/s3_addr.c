#include "s3_addr.h"

#include <string.h>


typedef struct {
    unsigned char  prefix[4];
    unsigned       bits;
    const char    *name;
} s3_addr_ipv4_t;

typedef struct {
    unsigned char  prefix[16];
    unsigned       bits;
    const char    *name;             /* NULL: the embedded address decides */
    unsigned       at;               /* where that stands */
} s3_addr_ipv6_t;


static const char *s3_addr_ipv4(const unsigned char *addr);
static const char *s3_addr_ipv6(const unsigned char *addr);
static int s3_addr_within(const unsigned char *addr,
    const unsigned char *prefix, unsigned bits);


/* the first that holds the address counts */

static const s3_addr_ipv4_t  s3_addr_ipv4_table[] = {
    { { 0, 0, 0, 0 }, 32, "unspecified" },
    { { 0, 0, 0, 0 }, 8, "this network" },
    { { 10, 0, 0, 0 }, 8, "private" },
    { { 100, 64, 0, 0 }, 10, "shared" },
    { { 127, 0, 0, 0 }, 8, "loopback" },
    /* Azure's metadata and key service, at a public address */
    { { 168, 63, 129, 16 }, 32, "cloud platform" },
    { { 169, 254, 0, 0 }, 16, "link-local" },
    { { 172, 16, 0, 0 }, 12, "private" },
    { { 192, 0, 0, 0 }, 24, "protocol assignment" },
    { { 192, 0, 2, 0 }, 24, "documentation" },
    { { 192, 88, 99, 0 }, 24, "6to4 relay" },
    { { 192, 168, 0, 0 }, 16, "private" },
    { { 198, 18, 0, 0 }, 15, "benchmarking" },
    { { 198, 51, 100, 0 }, 24, "documentation" },
    { { 203, 0, 113, 0 }, 24, "documentation" },
    { { 224, 0, 0, 0 }, 4, "multicast" },
    { { 255, 255, 255, 255 }, 32, "broadcast" },
    { { 240, 0, 0, 0 }, 4, "reserved" }
};

static const s3_addr_ipv6_t  s3_addr_ipv6_table[] = {
    { { 0 }, 128, "unspecified", 0 },
    { { [15] = 1 }, 128, "loopback", 0 },
    { { 0 }, 96, NULL, 12 },
    { { [10] = 0xff, 0xff }, 96, NULL, 12 },
    { { 0x00, 0x64, 0xff, 0x9b }, 96, NULL, 12 },
    { { 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01 }, 48, "local translation", 0 },
    { { 0x01, 0x00 }, 64, "discard", 0 },
    { { 0x20, 0x01, 0x00, 0x00 }, 32, "teredo", 0 },
    { { 0x20, 0x01, 0x00, 0x02 }, 48, "benchmarking", 0 },
    { { 0x20, 0x01, 0x00, 0x00 }, 23, "protocol assignment", 0 },
    { { 0x20, 0x01, 0x0d, 0xb8 }, 32, "documentation", 0 },
    { { 0x20, 0x02 }, 16, NULL, 2 },
    { { 0x3f, 0xff, 0x00 }, 20, "documentation", 0 },
    { { 0xfc }, 7, "private", 0 },
    { { 0xfe, 0x80 }, 10, "link-local", 0 },
    { { 0xfe, 0xc0 }, 10, "site-local", 0 },
    { { 0xff }, 8, "multicast", 0 }
};


const char *
s3_addr_special(const unsigned char *addr, size_t len)
{
    if (len == 4) {
        return s3_addr_ipv4(addr);
    }

    if (len == 16) {
        return s3_addr_ipv6(addr);
    }

    return "unknown";
}


static const char *
s3_addr_ipv4(const unsigned char *addr)
{
    size_t                 i;
    const s3_addr_ipv4_t  *t;

    for (i = 0; i < sizeof(s3_addr_ipv4_table) / sizeof(s3_addr_ipv4_t); i++) {
        t = &s3_addr_ipv4_table[i];

        if (s3_addr_within(addr, t->prefix, t->bits)) {
            return t->name;
        }
    }

    return NULL;
}


static const char *
s3_addr_ipv6(const unsigned char *addr)
{
    size_t                 i;
    const s3_addr_ipv6_t  *t;

    for (i = 0; i < sizeof(s3_addr_ipv6_table) / sizeof(s3_addr_ipv6_t); i++) {
        t = &s3_addr_ipv6_table[i];

        if (s3_addr_within(addr, t->prefix, t->bits)) {
            return t->name ? t->name : s3_addr_ipv4(addr + t->at);
        }
    }

    /* 2000::/3, all that was ever given out */

    return ((addr[0] & 0xe0) == 0x20) ? NULL : "reserved";
}


static int
s3_addr_within(const unsigned char *addr, const unsigned char *prefix,
    unsigned bits)
{
    unsigned  whole, rest;

    whole = bits / 8;
    rest = bits % 8;

    if (memcmp(addr, prefix, whole) != 0) {
        return 0;
    }

    return rest == 0 || (addr[whole] ^ prefix[whole]) >> (8 - rest) == 0;
}
