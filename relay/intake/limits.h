/*
 * What each address uses now: its sessions, and the messages it handed in within the minute. Pure.
 *
 * An address is known while it has sessions, and until its minute is over; of those without
 * sessions at most LIMITS_QUIET_MAX are kept, the oldest is forgotten first. Finding an address
 * takes the same time however many there are.
 */
#ifndef OUTTRAY_RELAY_INTAKE_LIMITS_H
#define OUTTRAY_RELAY_INTAKE_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "relay/base/net.h"

#define LIMITS_QUIET_MAX 4096
#define LIMITS_MINUTE_MS UINT64_C(60000)

struct limits;
struct limits_use; /* of one address */

/* NULL without memory. The seed makes the places of addresses unpredictable. */
struct limits *limits_new(uint32_t seed);
void limits_free(struct limits *l); /* accepts NULL; no session is left */

uint32_t limits_sessions(const struct limits *l, const struct net_address *a);
/* One more session of the address. NULL without memory. */
struct limits_use *limits_enter(struct limits *l, const struct net_address *a, uint64_t now_ms);
/* One less. */
void limits_leave(struct limits *l, struct limits_use *u, uint64_t now_ms);
/* Counts one more message, unless max (0 = no limit) were taken in this minute already: false. */
bool limits_take_message(struct limits_use *u, uint32_t max, uint64_t now_ms);

#endif
