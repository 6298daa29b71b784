/*
 * Reports of mail that failed or is late, and what becomes of dead letters.
 *
 * A message that has become a dead letter, or of which a recipient has failed while others still
 * wait, is reported by mail to the operator ([relay] operator) and, where configured or asked for
 * (NOTIFY, RFC 3461), to its sender. Late mail is reported once, after [relay] delay_notice by the
 * monotonic clock; of what an earlier run has accepted only the wall clock tells how long it waits.
 * What comes within REPORTS_WAIT_MS is one report; REPORTS_PER_HOUR leave in an hour at most, and
 * what cannot leave waits and joins the next. A report is a message of our own in the queue: from
 * device "outtray" (CONFIG_OWN_DEVICE), with the null reverse-path, on the first message's route,
 * or one whose mailbox works when that one's does not. There is never a report about a report: one
 * that fails stays as a dead letter, in the log and in the status.
 *
 * A sender who asked to hear of success (NOTIFY=SUCCESS), of mail that a server without DSN has
 * taken over, gets a report of its own at once (Action: relayed, RFC 3464 2.3.3). It is put into
 * the queue right before the outcome is recorded: a crash loses neither or has both sent again.
 *
 * What is still to be reported survives a restart: the start looks for dead letters, and for
 * recipients that have failed while others wait, that the history does not know as told. A dead
 * letter is deleted when it is older than [relay] dead_keep
 * and either its report has left the queue or somebody has seen it.
 *
 * One report is made at a time, one message of it is read at a time; of each, the header and the
 * recipients that matter are held until the report is written. The spool is never waited for.
 */
#ifndef OUTTRAY_RELAY_ADMIN_REPORTS_H
#define OUTTRAY_RELAY_ADMIN_REPORTS_H

#include <stddef.h>
#include <stdint.h>

#include "queue/queue.h"
#include "relay/base/clock.h"
#include "relay/base/config.h"

#define REPORTS_WAIT_MS        (5 * 60 * 1000)
#define REPORTS_RETRY_MS       (60 * 1000) /* after a report could not be stored */
#define REPORTS_PER_HOUR       20
#define REPORTS_RECIPIENTS_MAX 50           /* of one message that are told of; more are counted */
#define REPORTS_OCTETS_MAX     (128 * 1024) /* held of messages for one report; more are counted */
#define REPORTS_LOOKS_MAX      500          /* messages read for one report to a sender */
#define REPORTS_SENDERS_MAX    20           /* who hear of late mail at one time */
#define REPORTS_SLICE          1000         /* messages looked at in one tick */
#define REPORTS_CONFIRM_MAX    100          /* reports of success that wait for the spool */

struct reports;
struct dispatch;
struct history;
struct notify;

struct reports_settings {
    const struct clock *clock;
    const struct config *config;
    struct queue *queue;
    const struct dispatch *dispatch; /* says which routes work; NULL: all do */
    struct history *history;
    struct notify *notify; /* or NULL */
    void (*on_queued)(void *ctx);
    void *ctx;
};

/* Settings are copied, what they point to is borrowed. NULL without memory. */
struct reports *reports_new(const struct reports_settings *settings);
/* Begins nothing more. What the queue still owes must be delivered (work_drain()) before
 * reports_free(). Accepts NULL. */
void reports_stop(struct reports *r);
/* Accepts NULL. */
void reports_free(struct reports *r);
/* About once a second. */
void reports_tick(struct reports *r);

/* How an attempt on a message has ended: its state, and how many recipients have failed so far.
 * Accepts NULL. */
void reports_settled(struct reports *r, uint64_t id, enum queue_state state, size_t failed,
                     const char *device, const char *reason);
/* A server that tells nothing of success (no DSN) has taken the message over, for those recipients
 * who were pending before and are delivered after; the outcome is about to be recorded. `header` is
 * the beginning of its stored header. Accepts NULL. */
void reports_relayed(struct reports *r, uint64_t id, const struct envelope *before,
                     const struct envelope *after, const void *header, size_t len);
/* A person has seen the message. Accepts NULL. */
void reports_seen(struct reports *r, uint64_t id);
/* A person has made a dead letter due again: what was told of it counts no more. Accepts NULL. */
void reports_retried(struct reports *r, uint64_t id);

#endif
