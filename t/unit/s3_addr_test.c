#include <stdio.h>

#include <arpa/inet.h>

#include "s3_addr.h"
#include "s3_test.h"


/* a range, both ends; the addresses next to it are what `before` and `after`
   say: NULL: public, "-": there is none */

typedef struct {
    const char  *first;
    const char  *last;
    const char  *name;
    const char  *before;
    const char  *after;
} range_t;

typedef struct {
    const char  *text;
    const char  *name;               /* NULL: public */
} address_t;


static const range_t  ranges[] = {
    { "0.0.0.0", "0.0.0.0", "unspecified", "-", "this network" },
    { "0.0.0.1", "0.255.255.255", "this network", "unspecified", NULL },
    { "1.0.0.0", "9.255.255.255", NULL, "this network", "private" },
    { "10.0.0.0", "10.255.255.255", "private", NULL, NULL },
    { "100.64.0.0", "100.127.255.255", "shared", NULL, NULL },
    { "127.0.0.0", "127.255.255.255", "loopback", NULL, NULL },
    { "168.63.129.16", "168.63.129.16", "cloud platform", NULL, NULL },
    { "169.254.0.0", "169.254.255.255", "link-local", NULL, NULL },
    { "172.16.0.0", "172.31.255.255", "private", NULL, NULL },
    { "192.0.0.0", "192.0.0.255", "protocol assignment", NULL, NULL },
    { "192.0.2.0", "192.0.2.255", "documentation", NULL, NULL },
    { "192.88.99.0", "192.88.99.255", "6to4 relay", NULL, NULL },
    { "192.168.0.0", "192.168.255.255", "private", NULL, NULL },
    { "198.18.0.0", "198.19.255.255", "benchmarking", NULL, NULL },
    { "198.51.100.0", "198.51.100.255", "documentation", NULL, NULL },
    { "203.0.113.0", "203.0.113.255", "documentation", NULL, NULL },
    { "224.0.0.0", "239.255.255.255", "multicast", NULL, "reserved" },
    { "240.0.0.0", "255.255.255.254", "reserved", "multicast", "broadcast" },
    { "255.255.255.255", "255.255.255.255", "broadcast", "reserved", "-" },

    { "::", "::", "unspecified", "-", "loopback" },
    { "::1", "::1", "loopback", "unspecified", "this network" },
    { "::1:0:0", "::fffe:ffff:ffff", "reserved", "broadcast", "unspecified" },
    { "::1:0:0:0", "64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff", "reserved",
      "broadcast", "unspecified" },
    { "64:ff9b:0:0:0:1::", "64:ff9b:0:ffff:ffff:ffff:ffff:ffff", "reserved",
      "broadcast", "local translation" },
    { "64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
      "local translation", "reserved", "reserved" },
    { "100::", "100::ffff:ffff:ffff:ffff", "discard", "reserved", "reserved" },
    { "100:0:0:1::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved",
      "discard", NULL },
    { "2000::", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL, "reserved",
      "teredo" },
    { "2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "teredo", NULL,
      "protocol assignment" },
    { "2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", "benchmarking",
      "protocol assignment", "protocol assignment" },
    { "2001:2:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
      "protocol assignment", "benchmarking", NULL },
    { "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "documentation",
      NULL, NULL },
    { "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "documentation",
      NULL, NULL },
    { "3fff:1000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL,
      "documentation", "reserved" },
    { "4000::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved", NULL,
      "private" },
    { "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "private",
      "reserved", "reserved" },
    { "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "link-local",
      "reserved", "site-local" },
    { "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "site-local",
      "link-local", "multicast" },
    { "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast",
      "site-local", "-" }
};


static const address_t  addresses[] = {

    /* public, some of them close to what is not */

    { "1.1.1.1", NULL },
    { "8.8.8.8", NULL },
    { "11.0.0.1", NULL },
    { "52.216.1.1", NULL },
    { "100.0.0.1", NULL },
    { "126.255.255.255", NULL },
    { "128.0.0.0", NULL },
    { "172.15.255.255", NULL },
    { "172.32.0.0", NULL },
    { "192.0.1.0", NULL },
    { "192.31.196.1", NULL },
    { "192.52.193.1", NULL },
    { "192.175.48.1", NULL },
    { "223.255.255.255", NULL },
    { "2001:200::1", NULL },
    { "2001:4860:4860::8888", NULL },
    { "2001:db9::", NULL },
    { "2003::1", NULL },
    { "2600:1f00::1", NULL },
    { "2620:4f:8000::1", NULL },
    { "2a00:1450:4001:800::200e", NULL },

    /* metadata services */

    { "169.254.169.254", "link-local" },
    { "169.254.170.2", "link-local" },
    { "100.100.100.200", "shared" },
    { "192.0.0.192", "protocol assignment" },
    { "168.63.129.15", NULL },
    { "168.63.129.16", "cloud platform" },
    { "168.63.129.17", NULL },
    { "fd00:ec2::254", "private" },
    { "fd20:ce::254", "private" },
    { "fe80::a9fe:a9fe", "link-local" },

    /* anycast within a block without hosts */

    { "192.0.0.9", "protocol assignment" },
    { "2001:1::1", "protocol assignment" },
    { "2001:20::1", "protocol assignment" },

    { "100:0:0:1::1", "reserved" },
    { "5f00::1", "reserved" },
    { "ff02::1", "multicast" },
    { "ff0e::1", "multicast" },

    /* the IPv4 address of Teredo and of the local translation is not looked
       at */

    { "2001:0:808:808::f7f7:f7f7", "teredo" },
    { "64:ff9b:1::8.8.8.8", "local translation" },
    { "64:ff9b:1:808:8:800::", "local translation" },
    { "64:ff9b:2::8.8.8.8", "reserved" },

    /* neither mapped nor compatible (RFC 2765's translated) */

    { "::ffff:0:8.8.8.8", "reserved" }
};


static const char  *embeddings[] = { "::%s", "::ffff:%s", "64:ff9b::%s" };


/* to be freed; of its own size, so that ASan sees what reads on */

static size_t
parse(const char *text, unsigned char **addr)
{
    int             family;
    size_t          len;

    family = strchr(text, ':') ? AF_INET6 : AF_INET;
    len = (family == AF_INET6) ? 16 : 4;

    *addr = malloc(len);
    assert_non_null(*addr);
    assert_int_equal(inet_pton(family, text, *addr), 1);

    return len;
}


static void
is(const char *what, const unsigned char *addr, size_t len, const char *name)
{
    const char  *got;

    got = s3_addr_special(addr, len);

    if (got != name && (got == NULL || name == NULL || strcmp(got, name) != 0))
    {
        fail_msg("%s is %s and not %s", what, got ? got : "public",
                 name ? name : "public");
    }
}


static void
text_is(const char *text, const char *name)
{
    size_t          len;
    unsigned char  *addr;

    len = parse(text, &addr);
    is(text, addr, len, name);
    free(addr);
}


/* the next address, step 1, or the one before, step -1 */

static void
next_is(const char *text, int step, const char *name)
{
    size_t          len, i;
    unsigned char  *addr, end;

    if (name && strcmp(name, "-") == 0) {
        return;
    }

    len = parse(text, &addr);
    end = (step > 0) ? 0xff : 0;

    for (i = len - 1; addr[i] == end; i--) {
        addr[i] = (unsigned char) ~end;
    }

    addr[i] = (unsigned char) (addr[i] + step);

    is(text, addr, len, name);
    free(addr);
}


static void
test_ranges(void **state)
{
    size_t          i;
    const range_t  *t;

    (void) state;

    for (i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        t = &ranges[i];

        text_is(t->first, t->name);
        text_is(t->last, t->name);
        next_is(t->first, -1, t->before);
        next_is(t->last, 1, t->after);
    }
}


static void
test_addresses(void **state)
{
    size_t  i;

    (void) state;

    for (i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        text_is(addresses[i].text, addresses[i].name);
    }
}


/* an IPv4 address is what it is in any IPv6 address around it */

static void
embedded_is(const char *text, const char *name)
{
    char            around[64];
    size_t          i;
    unsigned char  *addr, six[16];

    for (i = 0; i < sizeof(embeddings) / sizeof(embeddings[0]); i++) {

        /* :: and ::1 are themselves */

        if (i == 0 && (strcmp(text, "0.0.0.0") == 0
                       || strcmp(text, "0.0.0.1") == 0))
        {
            continue;
        }

        snprintf(around, sizeof(around), embeddings[i], text);
        text_is(around, name);
    }

    /* 6to4, whatever stands behind it */

    assert_int_equal(parse(text, &addr), 4);

    memset(six, 0x08, sizeof(six));
    six[0] = 0x20;
    six[1] = 0x02;
    memcpy(six + 2, addr, 4);
    is(text, six, sizeof(six), name);

    memset(six + 6, 0, sizeof(six) - 6);
    is(text, six, sizeof(six), name);

    free(addr);
}


static void
test_embedded(void **state)
{
    size_t          i;
    const range_t  *t;

    (void) state;

    for (i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        t = &ranges[i];

        if (strchr(t->first, ':') == NULL) {
            embedded_is(t->first, t->name);
            embedded_is(t->last, t->name);
        }
    }

    for (i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        if (strchr(addresses[i].text, ':') == NULL) {
            embedded_is(addresses[i].text, addresses[i].name);
        }
    }

    /* the same in other words */

    text_is("::ffff:7f00:1", "loopback");
    text_is("::7f00:1", "loopback");
    text_is("64:ff9b::a9fe:a9fe", "link-local");
    text_is("2002:a9fe:a9fe::1", "link-local");
    text_is("2002:7f00:1::", "loopback");
    text_is("2002:a00:1::808:808", "private");
    text_is("2002:808:808::a00:1", NULL);
    text_is("::ffff:808:808", NULL);
}


/* of the 2^24 blocks of 256 IPv4 addresses as many are special */

static void
test_count(void **state)
{
    size_t         special;
    uint32_t       n;
    unsigned char  addr[4];

    (void) state;

    special = 0;

    for (n = 0; n < 1 << 24; n++) {
        addr[0] = (unsigned char) (n >> 16);
        addr[1] = (unsigned char) (n >> 8);
        addr[2] = (unsigned char) n;
        addr[3] = 0;

        if (s3_addr_special(addr, 4)) {
            special++;
        }
    }

    /* 0/8, 10/8, 127/8, 224/3; 100.64/10; 172.16/12; 198.18/15;
       169.254/16, 192.168/16; five /24 */

    assert_int_equal(special, 35 * 65536 + 16384 + 4096 + 512 + 2 * 256 + 5);
}


static void
test_length(void **state)
{
    size_t         len;
    unsigned char  addr[20];

    (void) state;

    memset(addr, 0x08, sizeof(addr));
    addr[0] = 0x20;

    for (len = 0; len <= sizeof(addr); len++) {
        is("length", addr, len, (len == 4 || len == 16) ? NULL : "unknown");
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_embedded),
        cmocka_unit_test(test_count),
        cmocka_unit_test(test_length)
    };

    return cmocka_run_group_tests_name("addr", tests, NULL, NULL);
}
