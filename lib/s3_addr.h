/*
 * What an IP address is for: a server that fetches what others name must not
 * be led to itself, to its network or to its cloud's metadata.
 */

#ifndef S3_ADDR_H
#define S3_ADDR_H

#include "s3_str.h"


/* addr: 4 or 16 bytes in network order. NULL: a public unicast address; else a
   constant that names what it is: "loopback", "link-local", "private",
   "shared", "reserved", "multicast", "unspecified" … (IANA special-purpose
   address registries, RFC 6890; of IPv6 all but 2000::/3 is reserved, RFC 4291,
   2.4). What the registries call globally reachable is public, except within
   192.0.0.0/24 and 2001::/23, where no host lives. An IPv4 address inside an
   IPv6 address (::/96, ::ffff:0:0/96, 64:ff9b::/96, 2002::/16) decides.
   64:ff9b:1::/48 is special: where the IPv4 address stands in it is the
   operator's choice (RFC 8215). Any other len is "unknown". */
const char *s3_addr_special(const unsigned char *addr, size_t len);


#endif /* S3_ADDR_H */
