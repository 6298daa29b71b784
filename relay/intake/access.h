/*
 * Who may speak, and as which device. Pure.
 *
 * An address may speak when a [device] lists it or [devices] allow does. Of several devices that
 * list it the one with the narrowest range wins, so that one printer can be named inside a named
 * subnet. A login with the right password names the device whatever the address, but lets nobody in
 * whose address may not speak.
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
    bool has_lane;                             /* of its own, instead of the listener's */
    enum lane lane;
    /* The device's own limits, or those of [devices]. */
    uint64_t max_size; /* 0 = what the route's mailboxes take */
    uint32_t max_recipients;
    uint32_t max_sessions;
    uint32_t max_messages_per_minute;               /* 0 = no limit */
    uint64_t max_spool;                             /* of its waiting mail; 0 = no limit */
    bool join_split;                                /* message/partial is joined */
    const struct config_domains *recipient_domains; /* empty = all */
    bool legacy_tls;
};

void access_of(const struct config *c, const struct net_address *address, struct access *out);
/* The device that signs in under this name, in any case; NULL when there is none. */
const struct config_device *access_find_login(const struct config *c, const char *login);
/* What access_of() would say if the address were the device's, which has proved who it is. */
void access_as(const struct config *c, const struct net_address *address,
               const struct config_device *device, struct access *out);

#endif
