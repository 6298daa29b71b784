/*
 * Dispatch: takes what is due from the queue, lends it a connection of a mailbox, and records how
 * it ended.
 *
 * A mailbox of the message's route is chosen only when a connection is lent, by its budget, so that
 * nothing queued ever has to be re-filed. Two levels of waiting: a problem of the mailbox, upstream
 * or network backs off once, for the mailbox; only a problem of the message or a recipient backs
 * off for that message. Every reply becomes a verdict in one place (verdict.h), and every attempt
 * ends in one queue_settle() or, when nothing of the message was sent, one queue_release().
 *
 * Where a mailbox may have several in flight, small messages join others on a connection when none
 * is idle.
 *
 * Nobody is kept waiting by others: routes take turns, no message joins while a large one waits for
 * a connection of its own, a message whose transaction brought its mailbox into trouble lets
 * another one make the next try, and while the spool cannot make a mark of doubt hardly anything is
 * begun.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_DISPATCH_H
#define OUTTRAY_RELAY_SUBMIT_DISPATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"
#include "queue/executor.h"
#include "queue/queue.h"
#include "relay/base/clock.h"
#include "relay/base/config.h"
#include "relay/base/stream.h"

struct event_base;
struct dispatch;
struct dns;
struct replies; /* relay/submit/replies.h */
struct signins;

struct dispatch_settings {
    struct event_base *base;
    struct stream_loop *streams;
    struct clock *clock;
    struct dns *dns;
    const struct config *config;
    struct queue *queue;
    const char *ledger; /* file of what is known of mailboxes, for the call only; NULL = memory */
    struct executor executor; /* for it: the database's thread */
    struct replies *replies;  /* collects refusals that no row knows; or NULL */
    /* How an attempt has ended, for a message with so many failed recipients; or NULL. */
    void (*on_settled)(void *ctx, uint64_t id, enum queue_state state, size_t failed,
                       const char *device, const char *reason);
    /* Recipients that were pending before are delivered, to a server without DSN, some of whom the
     * sender wants to hear of (NOTIFY=SUCCESS); the outcome is about to be recorded. The header may
     * be NULL. Or NULL. */
    void (*on_relayed)(void *ctx, uint64_t id, const struct envelope *before,
                       const struct envelope *after, const void *header, size_t len);
    void *ctx;
    struct signins *signins; /* NULL when no mailbox has OAuth */
};

enum mailbox_state {
    MAILBOX_READY,   /* usable */
    MAILBOX_WAITING, /* backs off until next_try_ms */
    MAILBOX_PAUSED   /* needs a person; probed at next_try_ms */
};

const char *mailbox_state_name(enum mailbox_state state);

/* For status; strings are valid until the next turn of the loop. */
struct mailbox_status {
    const char *name;
    const char *address;
    const char *host;
    uint16_t port;
    enum mailbox_state state;
    uint64_t next_try_ms; /* monotonic; 0 when ready */
    uint32_t connections; /* slots taken, lingering ones included */
    uint32_t connections_max;
    uint32_t connections_allowed; /* now */
    const char *connections_why;  /* they are less than configured, or "" */
    const char *budget_why;       /* more is counted than may have been used, or "" */
    uint32_t sent_this_minute;
    uint32_t minute_max;
    uint32_t recipients_today;
    uint32_t day_max;
    uint64_t delivered;            /* messages since the start */
    uint64_t failed;               /* attempts that did not deliver, since the start */
    uint64_t last_success_wall_ms; /* 0 = not since the start */
    const char *mechanism;         /* of the last successful sign-in, or "" */
    const char *problem;           /* what happened, or "" */
    const char *remedy;            /* who can fix it and how, or "" */
    const char *last_reply;        /* the upstream's words that caused it, or "" */
    uint64_t max_size; /* octets of mail data it takes, as configured or taught by a 552 */
    uint64_t
        dry_in_ms; /* the day's recipients are used up, as the last hour went; 0 = not foreseen */
    uint64_t empty_in_ms; /* what waits for it has left, at the earliest; 0 = nothing waits or all
                             may leave now; SCHEDULE_NEVER = not within a day */
};

struct dispatch *dispatch_new(const struct dispatch_settings *settings, struct error *err);
/* Looks for work at once: something new is due. Cheap to call often. */
void dispatch_wake(struct dispatch *d);
/* Mail for this route is on its way from a device: its first recipient was accepted. Where the
 * mailbox that would take it now has no connection that is idle or being made, one is opened, so
 * that it is ready when the device has sent everything; it counts and closes like any other. Never
 * for a mailbox that is in trouble, at its limits, or has not yet signed in. Cheap to call often.
 */
void dispatch_expect(struct dispatch *d, const char *route);
/* Takes no new work; what is under way may finish. on_stopped(ctx) comes from the loop when nothing
 * is under way any more. */
void dispatch_stop(struct dispatch *d, void (*on_stopped)(void *ctx), void *ctx);
/* Drops what is under way: messages not yet in doubt are released, others stay in doubt for
 * recovery. The executor's jobs must have been delivered (work_drain()). */
void dispatch_free(struct dispatch *d);

size_t dispatch_mailbox_count(const struct dispatch *d);
bool dispatch_mailbox(const struct dispatch *d, size_t i, struct mailbox_status *out);
/* Forgets a mailbox's wait or pause, and what its upstream has taught, so that it is tried at once:
 * by a connection that signs in, even when no mail waits. False when there is none of the name. */
bool dispatch_resume(struct dispatch *d, const char *mailbox);
/* When a mailbox of the route may take a message, as far as its own wait and its budget are known:
 * monotonic, 0 for now. *out_first is the mailbox that may do so first. */
uint64_t dispatch_route_ready_ms(const struct dispatch *d, const char *route,
                                 struct mailbox_status *out_first);
/* The largest mail data a mailbox of the route takes. */
uint64_t dispatch_route_max_size(const struct dispatch *d, const char *route);

#endif
