/*
 * How an attempt ends: from the replies to each recipient and to the message, what the queue
 * records. Pure.
 *
 * Each failure has one scope. A refused recipient touches no other. Trouble of the mailbox,
 * upstream or network leaves the message as it was, due at once: the mailbox waits, not the
 * message. A loss after the end of mail data was sent is uncertain: each further one waits longer,
 * and the last is held. The mailbox hears of it too, because the next message might share its fate.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_OUTCOME_H
#define OUTTRAY_RELAY_SUBMIT_OUTCOME_H

#include <stdbool.h>
#include <stdint.h>

#include "queue/envelope.h"
#include "queue/queue.h"
#include "relay/smtp/reply.h"
#include "relay/submit/client_fsm.h"
#include "relay/submit/verdict.h"

#define OUTCOME_SOON_MS 10000 /* message wait of action "soon", lengthened by jitter */

struct outcome {
    struct envelope envelope; /* recipients with what was learnt in this attempt; a copy */
    bool *accepted;           /* by recipient: RCPT was accepted in this attempt */
    bool *left_out;           /* by recipient: not asked for in this attempt */
    bool has_left_out;
    bool changed;      /* a recipient has a final outcome that is not on disk yet */
    bool any_accepted; /* in this attempt */
    /* The first verdict of a RCPT reply that leaves its recipient pending, if any. */
    bool has_later;
    struct verdict later;
    /* The first verdict of a RCPT reply that is not the recipient's fault, if any. */
    bool has_wider;
    struct verdict wider;
    struct reply wider_reply;
};

bool outcome_init(struct outcome *o, const struct envelope *stored); /* false without memory */
void outcome_done(struct outcome *o);

/* Leaves all pending recipients but `most` out of this attempt: a provider takes so many with one
 * message, 0 for any number. Those without a reply yet go first. Until outcome_finish() the others
 * look as if they had failed, so that nobody asks for them. Returns how many are asked for. */
uint32_t outcome_limit(struct outcome *o, uint32_t most);

/* A recipient was answered. */
void outcome_recipient(struct outcome *o, size_t index, const struct reply *reply);

struct outcome_context {
    enum client_stage stage;
    const struct reply *reply;
    uint32_t attempts; /* before this one */
    uint64_t tried_ms; /* before this one */
    uint64_t give_up_ms;
    uint64_t uncertain_wait_ms;
    uint32_t jitter;
    bool first_use;  /* nothing had been submitted on the connection before */
    uint32_t losses; /* attempts before this one whose outcome was never known */
};

struct outcome_end {
    struct queue_attempt attempt; /* envelope points into the outcome */
    bool worth_recording;         /* false: nothing happened to the message; release it */
    bool expired;                 /* given up, after having been tried for long enough */
    bool has_mailbox_verdict;     /* what the mailbox must hear */
    struct verdict mailbox_verdict;
    struct reply mailbox_reply;
    struct verdict verdict; /* of the message's end, for the log */
    bool too_large;         /* refused for its size */
    uint32_t taken;         /* recipients that the upstream has taken, or may have */
};

void outcome_finish(struct outcome *o, const struct outcome_context *c, struct outcome_end *out);

#endif
