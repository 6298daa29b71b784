/*
 * The registry of devices: who was seen, when, with how much mail, and which quirks.
 *
 * Each device is one entry in memory, by its name in the configuration or, without one, by its
 * address. Memory answers every question but that for transcripts; what changed is written to the
 * database every REGISTRY_WRITE_MS, all or nothing, and when the registry is closed. The database
 * has a thread of its own, and nothing of a mail waits for it. Losing it loses no mail: a file that
 * is damaged is set aside and written anew from memory, as is one that somebody removes; one that
 * cannot be opened or written leaves the registry in memory until it can, and what it knows is
 * added then; one of a newer program is left alone. Each is told in the log once.
 *
 * At most REGISTRY_DEVICES_MAX entries: the one without a name in the configuration that was seen
 * longest ago makes room. Strangers never get in.
 *
 * All calls come from the loop's thread. Times are of the wall clock unless they are named now_ms.
 */
#ifndef OUTTRAY_RELAY_INTAKE_REGISTRY_H
#define OUTTRAY_RELAY_INTAKE_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"
#include "queue/executor.h"
#include "relay/base/clock.h"
#include "relay/base/config.h"
#include "relay/base/net.h"
#include "relay/intake/habit.h"
#include "relay/intake/quirks.h"
#include "relay/intake/transcript.h"

#define REGISTRY_DEVICES_MAX 4096
#define REGISTRY_TRANSCRIPTS 5   /* kept of each device */
#define REGISTRY_PENDING_MAX 256 /* transcripts that wait for the database, of all devices */
#define REGISTRY_WRITE_MS    10000
#define REGISTRY_NAME_MAX    (CONFIG_NAME_MAX + NET_TEXT_MAX) /* with NUL */
#define REGISTRY_ERROR_MAX   300
#define REGISTRY_HELO_MAX    64
#define REGISTRY_TLS_MAX     64

struct registry;

struct registry_device {
    char name[REGISTRY_NAME_MAX];
    char address[NET_TEXT_MAX]; /* the newest */
    char helo[REGISTRY_HELO_MAX];
    char tls[REGISTRY_TLS_MAX]; /* of the newest session: version and suite; "" = in the clear */
    char error[REGISTRY_ERROR_MAX]; /* the newest, or "" */
    uint64_t first_ms;
    uint64_t last_ms; /* seen */
    uint64_t mail_ms; /* the newest message accepted; 0 = none */
    uint64_t error_ms;
    uint64_t no_room_ms; /* mail was refused for lack of room, in this run; 0 = it was not */
    char no_room[REGISTRY_ERROR_MAX]; /* why, or "" */
    uint64_t sessions;
    uint64_t probes; /* sessions without mail or trouble: connection tests */
    uint64_t messages;
    uint64_t octets;  /* of them */
    uint64_t refused; /* messages and recipients */
    quirks quirks;    /* ever seen */
    quirks newest;    /* of the newest session that had mail */
    struct habit habit;
    bool configured;   /* has a [device] section today */
    uint64_t usual_ms; /* both as of the call: see habit.h */
    bool is_quiet;
};

struct registry_settings {
    struct clock *clock;
    const struct config *config;
    struct executor executor; /* the database's thread */
    const char *file;         /* "" = memory only */
};

/* Reads the database; blocks, for it is called before the loop runs. NULL without memory only. */
struct registry *registry_open(const struct registry_settings *settings);
/* Writes what has changed, itself. Jobs under way must have been delivered (work_drain()), so no
 * callback comes afterwards. Accepts NULL. */
void registry_close(struct registry *r);
/* Regular upkeep, about once a second. */
void registry_tick(struct registry *r, uint64_t now_ms, uint64_t wall_ms);

/* What a session has to tell. `device` is access.name at that moment. Each makes the entry when
 * there is none: one that was forgotten while it is connected has begun one session. All accept a
 * NULL registry. */
void registry_session(struct registry *r, const char *device, const struct net_address *peer,
                      uint64_t wall_ms); /* it begins, or a login has made it this device's */
void registry_message(struct registry *r, const char *device, uint64_t octets, quirks seen,
                      uint64_t wall_ms); /* accepted */
void registry_trouble(struct registry *r, const char *device, const char *text, bool refused,
                      uint64_t wall_ms); /* printable; `refused` counts */
/* Its mail was refused because there is no room for it, as `text` says. Known in this run only. */
void registry_no_room(struct registry *r, const char *device, const char *text, uint64_t wall_ms);
struct registry_end {
    const char *helo; /* "" = as before; so is `tls` where the session had no mail and no TLS */
    const char *tls;
    quirks seen;
    bool had_mail;
    bool was_probe;
    const char *transcript; /* NULL = none; copied */
};
void registry_ended(struct registry *r, const char *device, const struct registry_end *end,
                    uint64_t wall_ms);

size_t registry_count(const struct registry *r);
/* The first entry, by name, behind `after` ("" = from the start); false when there is none. */
bool registry_next(const struct registry *r, const char *after, uint64_t wall_ms,
                   struct registry_device *out);
bool registry_find(const struct registry *r, const char *name, uint64_t wall_ms,
                   struct registry_device *out);
/* Forgets the device and its transcripts. False when there is none. */
bool registry_forget(struct registry *r, const char *name);

struct registry_transcript {
    uint64_t ended_ms;
    char *text;
};
/* list is the newest first and is freed after the call; err is NULL on success, and when some are
 * in memory though the file cannot be read. */
typedef void registry_transcripts_fn(void *ctx, const struct registry_transcript *list, size_t n,
                                     const struct error *err);
/* The transcripts that are kept of a device, those that are not written yet included. The callback
 * always comes, later; but at once, with an error, when there is no memory or registry. */
void registry_transcripts(struct registry *r, const char *name, registry_transcripts_fn *done,
                          void *ctx);

#endif
