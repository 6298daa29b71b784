/*
 * One device of the registry (registry.h), as it is kept in memory. Pure.
 *
 * Texts are allocated as long as they are; "" is NULL. A text that finds no memory stays as it was.
 */
#ifndef OUTTRAY_RELAY_INTAKE_REGISTRY_ENTRY_H
#define OUTTRAY_RELAY_INTAKE_REGISTRY_ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "relay/base/net.h"
#include "relay/intake/habit.h"
#include "relay/intake/quirks.h"
#include "relay/intake/registry.h"

struct registry_entry {
    struct registry_entry *next; /* of a list it is handed over in */
    char *name;
    char *helo, *tls, *error;
    struct net_address address;
    uint64_t first_ms, last_ms, mail_ms, error_ms;
    uint64_t sessions, probes, messages, octets, refused;
    quirks quirks, newest;
    struct habit habit;
    /* Of the memory alone. */
    char *no_room;
    uint64_t no_room_ms;
    quirks gathered; /* of messages whose session has not ended */
    uint64_t used;   /* larger = later; the clock has no say in it */
    bool configured;
    bool changed; /* since it was written */
};

/* NULL without memory. */
struct registry_entry *registry_entry_new(const char *name);
struct registry_entry *registry_entry_copy(const struct registry_entry *e);
void registry_entry_free(struct registry_entry *e); /* accepts NULL */
void registry_entries_free(struct registry_entry *first);

/* Cut to fewer than max octets, between characters. */
void registry_entry_set(char **field, const char *text, size_t max);
/* Adds what was kept of the same device in an earlier life. */
void registry_entry_merge(struct registry_entry *e, const struct registry_entry *earlier);
void registry_entry_show(const struct registry_entry *e, uint64_t wall_ms,
                         struct registry_device *out);

#endif
