/*
 * What a mailbox may still use: connections, messages this minute, recipients today. Pure; now_ms
 * is monotonic and must never go back between calls on one budget.
 *
 * There is one budget for each mailbox, whoever uses it. It errs on the safe side of the service's
 * own counting, which we cannot see:
 *  - A connection counts from before connect() until BUDGET_CLOSED_MS after the peer's close was
 *    seen, or else until BUDGET_LINGER_MS after our last octet to it.
 *  - A message counts from its start until BUDGET_WINDOW_MS after its final reply, whether it was
 *    taken or not.
 *  - Recipients are reserved while their message is under way and count for 24 hours, rounded up to
 *    five minutes, once the upstream has taken them or may have.
 *
 * Other software may use the same mailbox. When the upstream refuses for too many connections, the
 * number allowed goes down, to one at least, and comes back one at a time while messages succeed
 * and all that are allowed are in use. A refusal that follows such a step tells that there is no
 * more to have: each one doubles the time until the next step, up to an hour, so that it settles on
 * what is free. A step that holds makes the next one come as soon as ever.
 *
 * A part of the minute can be kept for urgent mail: other mail leaves that much of it unused.
 *
 * It can be saved as text and restored, also by another process after a restart. What cannot be
 * known is then taken as used: messages under way as taken, and after an unclean stop a whole
 * minute, unless the wall clock says that it is long over, and as many recipients as may have gone
 * unsaved; and the connections come back one by one.
 *
 * Nothing but budget_new() and budget_save() can fail. Asking never takes: who may, must then say
 * that it does.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_BUDGET_H
#define OUTTRAY_RELAY_SUBMIT_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#include "queue/bytes.h"

#define BUDGET_CLOSED_MS     1000ull        /* what two ends may differ in seeing a close */
#define BUDGET_RAMP_MS       (20ull * 1000) /* between two steps up after an unclean stop */
#define BUDGET_SAVE_MS       (10ull * 1000) /* who saves, does so as often as this while it is used */
#define BUDGET_SAVE_PARTS    100 /* ... and whenever such a part of the day's recipients was used */
#define BUDGET_TEXT_MAX      16384               /* octets of a saved one */
#define BUDGET_LINGER_MS     (10ull * 60 * 1000) /* a connection whose end the peer never showed */
#define BUDGET_WINDOW_MS     (63ull * 1000)      /* a minute, and what two clocks may differ */
#define BUDGET_REGROW_MS     (5ull * 60 * 1000) /* between two steps back to the full connections */
#define BUDGET_REGROW_MAX_MS (60ull * 60 * 1000) /* the same, after refusals */
#define BUDGET_BUCKET_MS     (5ull * 60 * 1000)
#define BUDGET_DAY_BUCKETS   288
#define BUDGET_NEVER         UINT64_MAX

struct budget_limits {
    uint32_t connections;         /* at least 1; Microsoft 365: 3 */
    uint32_t messages_per_minute; /* 0: no limit; Microsoft 365: 30 */
    uint32_t recipients_per_day;  /* 0: no limit; Microsoft 365: 10,000 */
    uint32_t urgent_reserve; /* messages of each minute that only urgent mail may use; less than
                                messages_per_minute */
};

struct budget;

/* NULL without memory. */
struct budget *budget_new(const struct budget_limits *limits);
void budget_free(struct budget *b); /* accepts NULL */

/* ---- connections ----------------------------------------------------------------------------- */

bool budget_may_connect(struct budget *b, uint64_t now_ms);
/* Takes a slot: before connect(), and only when budget_may_connect(). */
void budget_connection_opened(struct budget *b, uint64_t now_ms);
/* Gives the slot back at once: no connection came about. */
void budget_connection_failed(struct budget *b);
/* Ends one connection of ours. peer_closed: its close or reset was seen; then the slot is free
 * after BUDGET_CLOSED_MS. Otherwise it stays taken until BUDGET_LINGER_MS after last_octet_ms, when
 * the last octet went to it. */
void budget_connection_closed(struct budget *b, bool peer_closed, uint64_t last_octet_ms,
                              uint64_t now_ms);
/* The upstream refused for too many connections. One less is allowed than are taken, so several
 * refusals count once until the caller has closed an idle one. */
void budget_shrink(struct budget *b, uint64_t now_ms);
/* A message was taken. */
void budget_succeeded(struct budget *b, uint64_t now_ms);
/* Slots taken, lingering ones included. */
uint32_t budget_connections(struct budget *b, uint64_t now_ms);
/* The same without those whose close was seen. */
uint32_t budget_connections_open(struct budget *b, uint64_t now_ms);
uint32_t budget_connections_allowed(const struct budget *b, uint64_t now_ms);
/* Why it is less than configured: */
enum budget_why {
    BUDGET_ALL,     /* it is not */
    BUDGET_RAMPING, /* after an unclean stop they come back one by one */
    BUDGET_CROWDED  /* the upstream has refused more */
};
enum budget_why budget_connections_why(const struct budget *b, uint64_t now_ms);

/* Messages of the minute or recipients are counted that may never have been sent: what was used
 * before an unclean stop is not known. */
bool budget_is_assumed(const struct budget *b, uint64_t now_ms);

/* ---- messages and recipients ----------------------------------------------------------------- */

/* 0 when a message may start now; else the time from which it may. BUDGET_NEVER: not before one
 * that is under way has ended. */
uint64_t budget_may_send(struct budget *b, bool urgent, uint64_t now_ms);
/* The same for n recipients; BUDGET_NEVER also when n is more than a whole day's. */
uint64_t budget_may_use_recipients(struct budget *b, uint32_t n, uint64_t now_ms);
/* Takes a place in the minute and reserves the recipients: right before MAIL. */
void budget_message_started(struct budget *b, uint32_t recipients, uint64_t now_ms);
/* Its final reply has come, or none will. `recipients` as at the start; `taken`, at most as many,
 * are those that the upstream has taken or, when the outcome is unknown, may have. */
void budget_message_ended(struct budget *b, uint32_t recipients, uint32_t taken, uint64_t now_ms);
/* Messages that count for this minute (without a limit only those under way) and recipients for
 * today, with those under way. */
uint32_t budget_messages(struct budget *b, uint64_t now_ms);
uint32_t budget_recipients(struct budget *b, uint64_t now_ms);

/* What is left of it: the least of the parts of minute, day and connections that are free, in
 * thousandths. */
uint32_t budget_left(struct budget *b, uint64_t now_ms);

/* The next time at which a connection, a message or one recipient that is refused now may be
 * allowed although nothing is reported until then. BUDGET_NEVER when there is no such time. */
uint64_t budget_next_ms(struct budget *b, uint64_t now_ms);

/* ---- forecasts ------------------------------------------------------------------------------- */

/* How long until the day's recipients are used up, if it goes on as in the last hour. BUDGET_NEVER
 * when it is not foreseen for the next day. */
uint64_t budget_dry_in_ms(struct budget *b, uint64_t now_ms);
/* How long at least until so many messages with so many recipients in all have left. BUDGET_NEVER
 * when that takes more than a day. */
uint64_t budget_done_in_ms(struct budget *b, uint64_t messages, uint64_t recipients,
                           uint64_t now_ms);

/* ---- across restarts ------------------------------------------------------------------------- */

/* Nothing of it is in use: no connection, no message under way or in this minute. */
bool budget_is_at_rest(struct budget *b, uint64_t now_ms);
/* That many recipients more than were saved last are reason to save again; 0: no number is. */
uint32_t budget_save_step(const struct budget *b);
/* Appends the budget as one line of text. Connections that are open are left out: they end with the
 * process. False without room. */
bool budget_save(struct budget *b, uint64_t now_ms, uint64_t wall_ms, struct bytes *out);
/* Takes over what was saved; the budget must be new. clean: nothing of it was used since. False,
 * and only the safe side taken, when the text cannot be read. */
bool budget_restore(struct budget *b, const char *text, bool clean, uint64_t now_ms,
                    uint64_t wall_ms);

#endif
