#include "relay/intake/access.h"

#include <stdio.h>
#include <string.h>

/* Narrower means a larger first address or a smaller last one; ranges that both hold the address
 * and are not nested are as good as each other. */
static bool is_narrower(const struct net_range *a, const struct net_range *b)
{
    size_t len = a->first.family == 4 ? 4 : 16;
    int first = memcmp(a->first.bytes, b->first.bytes, len);
    int last = memcmp(a->last.bytes, b->last.bytes, len);
    return (first > 0 && last <= 0) || (first >= 0 && last < 0);
}

static const struct net_range *narrowest(const struct net_ranges *rs, const struct net_address *a)
{
    const struct net_range *best = NULL;
    for (size_t i = 0; i < rs->count; i++) {
        const struct net_range *r = &rs->list[i];
        if (net_range_has(r, a) && (best == NULL || is_narrower(r, best)))
            best = r;
    }
    return best;
}

static const struct config_device *device_of(const struct config *c, const struct net_address *a)
{
    const struct config_device *found = NULL;
    const struct net_range *best = NULL;
    for (size_t i = 0; i < c->device_count; i++) {
        const struct net_range *r = narrowest(&c->devices[i].addresses, a);
        if (r != NULL && (best == NULL || is_narrower(r, best))) {
            found = &c->devices[i];
            best = r;
        }
    }
    return found;
}

void access_of(const struct config *c, const struct net_address *address, struct access *out)
{
    char text[NET_TEXT_MAX];
    net_text(address, text);
    *out =
        (struct access){.device = device_of(c, address), .route = "default", .lane = LANE_NORMAL};
    out->allowed = out->device != NULL || net_ranges_have(&c->allow, address);
    if (out->device != NULL) {
        out->lane = out->device->lane;
        if (out->device->route[0] != '\0')
            out->route = out->device->route;
    }
    snprintf(out->name, sizeof out->name, "%s", out->device != NULL ? out->device->name : text);
}
