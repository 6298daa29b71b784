/*
 * The JSON shape of the relay's status: how it is, what is wrong first, then the counts. Pure.
 *
 * "state" is "attention" when a person has something to do, else "ok"; "problems" says what and
 * how, the most pressing first: held messages, paused mailboxes, a spool that cannot be written,
 * mail refused for lack of room, damage, dead letters, devices that have gone quiet.
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
#define API_STATUS_QUIET 5 /* devices that are named, and those without room */

struct api_status_quiet {
    char name[REGISTRY_NAME_MAX];
    uint64_t silent_ms; /* since its last mail */
    uint64_t usual_ms;
};

/* A device whose mail was refused because there was no room for it, and not accepted since. */
struct api_status_no_room {
    char name[REGISTRY_NAME_MAX];
    char why[REGISTRY_ERROR_MAX]; /* "WHAT: ADVICE" */
    uint64_t ago_ms;
    uint64_t waits; /* octets of its mail */
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
    uint64_t damaged[API_STATUS_IDS];
    uint64_t damaged_held; /* of the held; they are told of as damaged alone */
    uint64_t damaged_dead;
    const bool *waited_for; /* by mailbox: mail that is due waits for it. NULL: for none */
    size_t no_room_count;
    struct api_status_no_room no_room[API_STATUS_QUIET];
    size_t devices; /* known */
    size_t quiet_count;
    struct api_status_quiet quiet[API_STATUS_QUIET]; /* the first of them, by name */
};

/* Returns owned; NULL without memory. */
cJSON *api_status_json(const struct api_status *s);

#endif
