/*
 * What a mailbox may still use: connections, messages this minute, recipients today. Pure; now_ms
 * is monotonic and must never go back between calls on one budget.
 *
 * There is one budget for each mailbox, whoever uses it. It errs on the safe side of the service's
 * own counting, which we cannot see:
 *  - A connection counts from before connect() until the peer's close was seen, or else until
 *    BUDGET_LINGER_MS after our last octet to it.
 *  - A message counts from its start until BUDGET_WINDOW_MS after its final reply, whether it was
 *    taken or not.
 *  - Recipients are reserved while their message is under way and count for 24 hours, rounded up to
 *    five minutes, once the upstream has taken them or may have.
 *
 * Other software may use the same mailbox. When the upstream refuses for too many connections, the
 * number allowed goes down, to one at least, and comes back one at a time while messages succeed.
 *
 * Nothing but budget_new() can fail. Asking never takes: who may, must then say that it does.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_BUDGET_H
#define OUTTRAY_RELAY_SUBMIT_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#define BUDGET_LINGER_MS   (10ull * 60 * 1000) /* a connection whose end the peer never showed */
#define BUDGET_WINDOW_MS   (63ull * 1000)      /* a minute, and what two clocks may differ */
#define BUDGET_REGROW_MS   (5ull * 60 * 1000)  /* between two steps back to the full connections */
#define BUDGET_BUCKET_MS   (5ull * 60 * 1000)
#define BUDGET_DAY_BUCKETS 288
#define BUDGET_NEVER       UINT64_MAX

struct budget_limits {
    uint32_t connections;         /* at least 1; Microsoft 365: 3 */
    uint32_t messages_per_minute; /* 0: no limit; Microsoft 365: 30 */
    uint32_t recipients_per_day;  /* 0: no limit; Microsoft 365: 10,000 */
};

struct budget;

/* NULL without memory. */
struct budget *budget_new(const struct budget_limits *limits);
void budget_free(struct budget *b); /* accepts NULL */

/* ---- connections ----------------------------------------------------------------------------- */

bool budget_may_connect(struct budget *b, uint64_t now_ms);
/* Takes a slot: before connect(), and only when budget_may_connect(). */
void budget_connection_opened(struct budget *b, uint64_t now_ms);
/* Ends one connection of ours. peer_closed: its close or reset was seen, or no connection came
 * about; then the slot is free at once. Otherwise it stays taken until BUDGET_LINGER_MS after
 * last_octet_ms, when the last octet went to it. */
void budget_connection_closed(struct budget *b, bool peer_closed, uint64_t last_octet_ms,
                              uint64_t now_ms);
/* The upstream refused for too many connections. One less is allowed than are taken, so several
 * refusals count once until the caller has closed an idle one. */
void budget_shrink(struct budget *b, uint64_t now_ms);
/* A message was taken. */
void budget_succeeded(struct budget *b, uint64_t now_ms);
/* Slots taken, lingering ones included. */
uint32_t budget_connections(struct budget *b, uint64_t now_ms);
uint32_t budget_connections_allowed(const struct budget *b);

/* ---- messages and recipients ----------------------------------------------------------------- */

/* 0 when a message may start now; else the time from which it may. BUDGET_NEVER: not before one
 * that is under way has ended. */
uint64_t budget_may_send(struct budget *b, uint64_t now_ms);
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

/* The next time at which a connection, a message or one recipient that is refused now may be
 * allowed although nothing is reported until then. BUDGET_NEVER when there is no such time. */
uint64_t budget_next_ms(struct budget *b, uint64_t now_ms);

#endif
