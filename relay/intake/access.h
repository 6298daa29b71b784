/*
 * Who may speak, and as which device. Pure.
 *
 * An address may speak when a [device] lists it or [devices] allow does. Of several devices that
 * list it the one with the narrowest range wins, so that one printer can be named inside a named
 * subnet.
 */
#ifndef OUTTRAY_RELAY_INTAKE_ACCESS_H
#define OUTTRAY_RELAY_INTAKE_ACCESS_H

#include <stdbool.h>

#include "relay/base/config.h"
#include "relay/base/net.h"

struct access {
    bool allowed;
    const struct config_device *device;        /* NULL: an allowed address without a name */
    char name[CONFIG_NAME_MAX + NET_TEXT_MAX]; /* the device's name, or the address */
    const char *route;                         /* never "": "default" when the device names none */
    enum lane lane;
};

void access_of(const struct config *c, const struct net_address *address, struct access *out);

#endif
