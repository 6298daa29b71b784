#include "relay/intake/routing.h"

#include <string.h>

#include "relay/smtp/address.h"

bool routing_lists(const struct config_domains *list, const char *address)
{
    for (size_t i = 0; i < list->count; i++) {
        if (address_is_listed(list->list[i], address))
            return true;
    }
    return false;
}

static bool has_listener(const struct config *c, const struct config_route *r, const char *name)
{
    for (size_t i = 0; i < r->listener_count; i++) {
        if (strcmp(c->listeners[r->listeners[i]].name, name) == 0)
            return true;
    }
    return r->listener_count == 0;
}

static bool has_recipients(const struct config_route *r, const struct envelope *e)
{
    for (size_t i = 0; r->recipient_domains.count > 0 && i < e->recipient_count; i++) {
        if (!routing_lists(&r->recipient_domains, e->recipients[i].forward_path))
            return false;
    }
    return true;
}

static bool fits(const struct config *c, const struct config_route *r, const struct envelope *e)
{
    bool has_conditions =
        r->listener_count > 0 || r->senders.count > 0 || r->recipient_domains.count > 0;
    return has_conditions && has_listener(c, r, e->listener) &&
           (r->senders.count == 0 || routing_lists(&r->senders, e->reverse_path)) &&
           has_recipients(r, e);
}

const char *routing_of(const struct config *c, const struct config_device *device,
                       const struct envelope *e)
{
    if (device != NULL && device->route[0] != '\0')
        return device->route;
    for (size_t i = 0; i < c->route_count; i++) {
        if (fits(c, &c->routes[i], e))
            return c->routes[i].name;
    }
    return c->routes[0].name;
}
