/*
 * Which route a message takes. Pure.
 *
 * A device's own route goes before everything. Else it is the first [route] in the file with
 * conditions, all of which hold: the listener, the reverse-path, and the domain of every recipient.
 * Else it is the default route.
 */
#ifndef OUTTRAY_RELAY_INTAKE_ROUTING_H
#define OUTTRAY_RELAY_INTAKE_ROUTING_H

#include "queue/envelope.h"
#include "relay/base/config.h"

/* The name of the route; never NULL. */
const char *routing_of(const struct config *c, const struct config_device *device,
                       const struct envelope *e);

/* True when a list of domains and addresses names this address. */
bool routing_lists(const struct config_domains *list, const char *address);

#endif
