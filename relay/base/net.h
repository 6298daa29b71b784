/*
 * IP addresses, ranges and what "private" means. Pure.
 *
 * An IPv4-mapped IPv6 address (::ffff:a.b.c.d) is the IPv4 address: it is unmapped before any rule
 * is asked, so net_from_sockaddr() and net_parse() never return one.
 */
#ifndef OUTTRAY_RELAY_BASE_NET_H
#define OUTTRAY_RELAY_BASE_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define NET_TEXT_MAX 64

struct net_address {
    uint8_t family; /* 4 or 6; 0 = none */
    uint8_t bytes[16];
};

/* first..last, both included, of one family. */
struct net_range {
    struct net_address first;
    struct net_address last;
};

struct net_ranges {
    struct net_range *list;
    size_t count;
};

bool net_from_sockaddr(const struct sockaddr *sa, struct net_address *out);
bool net_parse(const char *text, struct net_address *out); /* no port, no brackets, zone ignored */
void net_text(const struct net_address *a, char out[NET_TEXT_MAX]);
/* RFC 5321 4.1.3 address literal with its brackets. */
void net_literal(const struct net_address *a, char out[NET_TEXT_MAX]);
bool net_equal(const struct net_address *a, const struct net_address *b);
/* For tables that others can fill with addresses of their choice: seed is random. */
uint32_t net_hash(const struct net_address *a, uint32_t seed);

/* "10.0.0.0/8", "192.168.1.10-192.168.1.50", "fd00::/8" or one address. */
bool net_range_parse(const char *text, struct net_range *out);
bool net_range_has(const struct net_range *r, const struct net_address *a);

bool net_ranges_add(struct net_ranges *rs, const struct net_range *r); /* false without memory */
bool net_ranges_have(const struct net_ranges *rs, const struct net_address *a);
void net_ranges_done(struct net_ranges *rs);

/* RFC 1918, fc00::/7, link-local of both families. */
bool net_is_private(const struct net_address *a);
bool net_is_loopback(const struct net_address *a);

#endif
