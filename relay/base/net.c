#include "relay/base/net.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAPPED_PREFIX 12 /* octets of ::ffff:0:0/96 */

static const uint8_t mapped[MAPPED_PREFIX] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static size_t width(const struct net_address *a)
{
    return a->family == 4 ? 4 : 16;
}

static struct net_address from_v4(const void *four)
{
    struct net_address a = {.family = 4};

    memcpy(a.bytes, four, 4);
    return a;
}

static struct net_address from_v6(const uint8_t *sixteen)
{
    struct net_address a = {.family = 6};

    if (memcmp(sixteen, mapped, MAPPED_PREFIX) == 0)
        return from_v4(sixteen + MAPPED_PREFIX);
    memcpy(a.bytes, sixteen, 16);
    return a;
}

bool net_from_sockaddr(const struct sockaddr *sa, struct net_address *out)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    if (sa->sa_family == AF_INET) {
        memcpy(&v4, sa, sizeof v4);
        *out = from_v4(&v4.sin_addr);
        return true;
    }
    if (sa->sa_family == AF_INET6) {
        memcpy(&v6, sa, sizeof v6);
        *out = from_v6(v6.sin6_addr.s6_addr);
        return true;
    }
    return false;
}

bool net_parse(const char *text, struct net_address *out)
{
    char copy[NET_TEXT_MAX];
    uint8_t raw[16];
    size_t len = strcspn(text, "%");

    if (len == 0 || len >= sizeof copy || (text[len] == '%' && !memchr(text, ':', len)))
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (inet_pton(AF_INET, copy, raw) == 1)
        *out = from_v4(raw);
    else if (inet_pton(AF_INET6, copy, raw) == 1)
        *out = from_v6(raw);
    else
        return false;
    return true;
}

void net_text(const struct net_address *a, char out[NET_TEXT_MAX])
{
    if (a->family != 4 && a->family != 6)
        (void)snprintf(out, NET_TEXT_MAX, "unknown");
    else
        (void)inet_ntop(a->family == 4 ? AF_INET : AF_INET6, a->bytes, out, NET_TEXT_MAX);
}

void net_literal(const struct net_address *a, char out[NET_TEXT_MAX])
{
    char text[NET_TEXT_MAX];

    net_text(a, text);
    (void)snprintf(out, NET_TEXT_MAX, "[%s%.*s]", a->family == 6 ? "IPv6:" : "", INET6_ADDRSTRLEN,
                   text);
}

bool net_equal(const struct net_address *a, const struct net_address *b)
{
    return a->family == b->family && memcmp(a->bytes, b->bytes, width(a)) == 0;
}

/* FNV-1a, and a last mix so that low bits depend on all of them. */
uint32_t net_hash(const struct net_address *a, uint32_t seed)
{
    uint32_t h = seed ^ 2166136261u;

    for (size_t i = 0; i < width(a); i++)
        h = (h ^ a->bytes[i]) * 16777619u;
    h ^= h >> 16;
    h *= 0x7feb352du;
    return h ^ h >> 15;
}

static bool parse_prefix(const char *text, unsigned *out)
{
    unsigned value = 0;

    if (*text == '\0' || strlen(text) > 3)
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        value = value * 10 + (unsigned)(*text - '0');
    }
    *out = value;
    return true;
}

/* Host bits may be set: 192.168.1.7/24 is the network of that address. */
static struct net_range network_of(const struct net_address *a, unsigned prefix)
{
    struct net_range r = {*a, *a};

    for (unsigned i = 0; i < width(a); i++) {
        unsigned kept = prefix > 8 * i ? prefix - 8 * i : 0;
        uint8_t mask = (uint8_t)(0xff00u >> (kept < 8 ? kept : 8));

        r.first.bytes[i] = (uint8_t)(a->bytes[i] & mask);
        r.last.bytes[i] = (uint8_t)(a->bytes[i] | (uint8_t)~mask);
    }
    return r;
}

static bool parse_network(const char *address, const char *prefix_text, struct net_range *out)
{
    struct net_address a;
    unsigned prefix;

    if (!net_parse(address, &a) || !parse_prefix(prefix_text, &prefix))
        return false;
    /* The prefix of an IPv4-mapped address counts the 96 bits that are gone now. */
    if (a.family == 4 && strchr(address, ':')) {
        if (prefix < 8 * MAPPED_PREFIX)
            return false;
        prefix -= 8 * MAPPED_PREFIX;
    }
    if (prefix > 8 * width(&a))
        return false;
    *out = network_of(&a, prefix);
    return true;
}

static bool parse_span(const char *first, const char *last, struct net_range *out)
{
    struct net_range r;

    if (!net_parse(first, &r.first) || !net_parse(last, &r.last))
        return false;
    if (r.first.family != r.last.family || memcmp(r.first.bytes, r.last.bytes, width(&r.first)) > 0)
        return false;
    *out = r;
    return true;
}

static char *skip_blanks(char *p)
{
    return p + strspn(p, " \t");
}

static void cut_blanks(char *p)
{
    size_t len = strlen(p);

    while (len > 0 && (p[len - 1] == ' ' || p[len - 1] == '\t'))
        p[--len] = '\0';
}

bool net_range_parse(const char *text, struct net_range *out)
{
    char copy[2 * NET_TEXT_MAX];
    char *second;
    char sign;

    if (strlen(text) >= sizeof copy)
        return false;
    memcpy(copy, text, strlen(text) + 1);
    second = strpbrk(copy, "/-");
    if (second == NULL)
        return parse_span(copy, copy, out);
    sign = *second;
    *second++ = '\0';
    second = skip_blanks(second);
    cut_blanks(copy);
    return sign == '/' ? parse_network(copy, second, out) : parse_span(copy, second, out);
}

bool net_range_has(const struct net_range *r, const struct net_address *a)
{
    return a->family == r->first.family && memcmp(r->first.bytes, a->bytes, width(a)) <= 0 &&
           memcmp(a->bytes, r->last.bytes, width(a)) <= 0;
}

bool net_ranges_add(struct net_ranges *rs, const struct net_range *r)
{
    struct net_range *list = realloc(rs->list, (rs->count + 1) * sizeof *list);

    if (list == NULL)
        return false;
    rs->list = list;
    rs->list[rs->count++] = *r;
    return true;
}

bool net_ranges_have(const struct net_ranges *rs, const struct net_address *a)
{
    for (size_t i = 0; i < rs->count; i++)
        if (net_range_has(&rs->list[i], a))
            return true;
    return false;
}

void net_ranges_done(struct net_ranges *rs)
{
    free(rs->list);
    *rs = (struct net_ranges){NULL, 0};
}

struct prefix {
    uint8_t family;
    uint8_t bytes[2];
    uint8_t mask[2];
};

static const struct prefix private_prefixes[] = {
    {4, {10, 0}, {0xff, 0}},         /* RFC 1918 */
    {4, {172, 16}, {0xff, 0xf0}},    /* RFC 1918 */
    {4, {192, 168}, {0xff, 0xff}},   /* RFC 1918 */
    {4, {169, 254}, {0xff, 0xff}},   /* link-local, RFC 3927 */
    {6, {0xfc, 0}, {0xfe, 0}},       /* unique local, RFC 4193 */
    {6, {0xfe, 0x80}, {0xff, 0xc0}}, /* link-local, RFC 4291 */
};

bool net_is_private(const struct net_address *a)
{
    for (size_t i = 0; i < sizeof private_prefixes / sizeof *private_prefixes; i++) {
        const struct prefix *p = &private_prefixes[i];

        if (a->family == p->family && (a->bytes[0] & p->mask[0]) == p->bytes[0] &&
            (a->bytes[1] & p->mask[1]) == p->bytes[1])
            return true;
    }
    return false;
}

bool net_is_loopback(const struct net_address *a)
{
    static const uint8_t one[16] = {[15] = 1};

    return (a->family == 4 && a->bytes[0] == 127) ||
           (a->family == 6 && memcmp(a->bytes, one, sizeof one) == 0);
}
