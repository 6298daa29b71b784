/*
 * Programs that are told of events: [notify NAME] command. For a pager, a chat, a lamp; whatever
 * works when mail does not.
 *
 * Each event is one line of JSON on the program's standard input, at most NOTIFY_EVENT_MAX octets:
 * "event", "time", "host", and what belongs to the event (see outtrayd(8)). The program is started
 * directly, without a shell, as our user, in a process group of its own, with nothing of our
 * environment (which may hold passwords) but what is named here: PATH, LANG, OUTTRAY_EVENT. It has
 * NOTIFY_TIME_MS, then its group is killed. What it prints goes to the log, up to NOTIFY_OUTPUT_MAX
 * octets; so does an exit code other than 0.
 *
 * Nothing here blocks: who runs is looked at by notify_tick(), once a second. NOTIFY_RUNNING_MAX
 * run at once, NOTIFY_WAITING_MAX wait, the oldest is dropped beyond that. Mailboxes are watched
 * here: "mailbox-paused" comes once when one is paused and "mailbox-recovered" when it is well
 * again. Dead letters, held and late mail are told of together, at most once in NOTIFY_GATHER_MS.
 */
#ifndef OUTTRAY_RELAY_ADMIN_NOTIFY_H
#define OUTTRAY_RELAY_ADMIN_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "relay/base/clock.h"
#include "relay/base/config.h"

#define NOTIFY_EVENT_MAX   16384
#define NOTIFY_OUTPUT_MAX  2048
#define NOTIFY_TIME_MS     30000
#define NOTIFY_RUNNING_MAX 4
#define NOTIFY_WAITING_MAX 32
#define NOTIFY_GATHER_MS   60000 /* between two events about messages of one kind */
#define NOTIFY_IDS_MAX     10    /* messages that are named in one event */

struct notify;
struct dispatch;

struct notify_settings {
    const struct clock *clock;
    const struct config *config;
    const struct dispatch *dispatch; /* NULL: no mailbox is watched */
};

/* Settings are copied, what they point to is borrowed. NULL without memory. */
struct notify *notify_new(const struct notify_settings *settings);
/* Leaves what runs alone. Accepts NULL. */
void notify_free(struct notify *n);
/* About once a second. */
void notify_tick(struct notify *n);

/* A message became a dead letter, is held, or is late. Accepts NULL. */
void notify_message(struct notify *n, enum config_event event, uint64_t id, const char *device,
                    const char *reason);
/* The spool cannot be written. Accepts NULL. */
void notify_spool_failing(struct notify *n, const char *reason);

#endif
