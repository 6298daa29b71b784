#include "relay/intake/access.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

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

/* A program on this machine is limited only when somebody has said so. */
static uint32_t messages_per_minute(const struct config *c, const struct net_address *a)
{
    return net_is_loopback(a) && !c->max_messages_given ? 0 : c->max_messages_per_minute;
}

/* Half the spool, so that no device alone can fill it. */
static uint64_t spool_share(const struct config *c)
{
    return c->max_spool != 0 ? c->max_spool : c->spool_max / 2;
}

static void set_limits(const struct config *c, const struct net_address *a, struct access *out)
{
    out->max_size = c->max_size;
    out->max_recipients = c->max_recipients;
    out->max_sessions = c->max_sessions_per_device;
    out->max_messages_per_minute = messages_per_minute(c, a);
    out->max_spool = spool_share(c);
    out->join_split = c->join_split == CONFIG_YES;
    out->recipient_domains = &c->recipient_domains;
    out->legacy_tls = net_ranges_have(&c->legacy_tls, a);
}

static void set_own_limits(const struct config_device *d, struct access *out)
{
    if (d->max_size != 0)
        out->max_size = d->max_size;
    if (d->max_recipients != 0)
        out->max_recipients = d->max_recipients;
    if (d->max_sessions != 0)
        out->max_sessions = d->max_sessions;
    if (d->max_messages_per_minute != 0)
        out->max_messages_per_minute = d->max_messages_per_minute;
    if (d->max_spool != 0)
        out->max_spool = d->max_spool;
    out->join_split = d->join_split == CONFIG_YES;
    if (d->recipient_domains.count != 0)
        out->recipient_domains = &d->recipient_domains;
}

void access_of(const struct config *c, const struct net_address *address, struct access *out)
{
    access_as(c, address, device_of(c, address), out);
}

const struct config_device *access_find_login(const struct config *c, const char *login)
{
    for (size_t i = 0; i < c->device_count; i++)
        if (strcasecmp(c->devices[i].login, login) == 0)
            return &c->devices[i];
    return NULL;
}

void access_as(const struct config *c, const struct net_address *address,
               const struct config_device *device, struct access *out)
{
    char text[NET_TEXT_MAX];
    net_text(address, text);
    *out = (struct access){.device = device, .route = "default", .lane = LANE_NORMAL};
    out->allowed = out->device != NULL || net_ranges_have(&c->allow, address);
    set_limits(c, address, out);
    if (out->device != NULL) {
        set_own_limits(out->device, out);
        out->has_lane = out->device->has_lane;
        out->lane = out->device->lane;
        if (out->device->route[0] != '\0')
            out->route = out->device->route;
    }
    snprintf(out->name, sizeof out->name, "%s", out->device != NULL ? out->device->name : text);
}
