/*
 * The JSON shape of the relay's status: how it is, what is wrong first, then the counts. Pure.
 *
 * "state" is "attention" when a person has something to do, else "ok"; "problems" says what and
 * how, the most pressing first: held messages, paused mailboxes, a spool that cannot be written,
 * damage, dead letters, devices that have gone quiet.
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_STATUS_H
#define OUTTRAY_RELAY_ADMIN_API_STATUS_H

#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "queue/queue.h"
#include "relay/admin/api_json.h"
#include "relay/intake/listener.h"
#include "relay/intake/registry.h"
#include "relay/submit/dispatch.h"

#define API_STATUS_IDS   5 /* of held messages and dead letters that are named */
#define API_STATUS_QUIET 5 /* devices that are named */

struct api_status_quiet {
    char name[REGISTRY_NAME_MAX];
    uint64_t silent_ms; /* since its last mail */
    uint64_t usual_ms;
};

struct api_status {
    struct api_times times;
    uint64_t started_ms;      /* monotonic */
    uint64_t started_wall_ms; /* for people */
    int pid;
    const struct queue_counts *counts;
    const struct queue_recovery *recovery; /* may be NULL */
    const struct intake_counts *intake;
    const struct mailbox_status *mailboxes;
    size_t mailbox_count;
    const char *refusing;          /* why new mail cannot be taken now, or "" */
    uint64_t held[API_STATUS_IDS]; /* the first ids; 0 where there are fewer */
    uint64_t dead[API_STATUS_IDS];
    size_t devices; /* known */
    size_t quiet_count;
    struct api_status_quiet quiet[API_STATUS_QUIET]; /* the first of them, by name */
};

/* Returns owned; NULL without memory. */
cJSON *api_status_json(const struct api_status *s);

#endif
