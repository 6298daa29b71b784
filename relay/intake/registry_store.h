/*
 * What the registry keeps on disk: the tables, and the way in and out of them.
 *
 * Every call blocks; they belong on the database's thread. A file that proves to be damaged is set
 * aside by whoever finds it, and the store is gone then: open it anew.
 */
#ifndef OUTTRAY_RELAY_INTAKE_REGISTRY_STORE_H
#define OUTTRAY_RELAY_INTAKE_REGISTRY_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"
#include "relay/intake/registry.h"
#include "relay/intake/registry_entry.h"

struct database; /* relay/base/database.h */

/* A transcript, and a device that is forgotten; each in a list. */
struct registry_kept {
    struct registry_kept *next;
    char *name;
    uint64_t ended_ms;
    char text[];
};
struct registry_name {
    struct registry_name *next;
    char name[];
};

/* Written in this order, all or nothing. */
struct registry_batch {
    struct registry_name *forgotten;
    struct registry_entry *entries;
    struct registry_kept *transcripts; /* the oldest first */
};

/* Opens the file and reads all devices. What could be read before damage was found is in the list,
 * too, and marked as changed. */
bool registry_store_open(const char *file, struct database **out_store,
                         struct registry_entry **out_list, bool *out_set_aside, struct error *err);
/* False leaves everything as it was. */
bool registry_store_write(struct database *store, const struct registry_batch *batch,
                          struct error *err);
/* The newest transcripts of a device, the newest first. Texts are the caller's to free. */
bool registry_store_read(struct database *store, const char *name,
                         struct registry_transcript list[REGISTRY_TRANSCRIPTS], size_t *out_count,
                         struct error *err);

#endif
