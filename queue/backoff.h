/*
 * When to try again, and when to give up: arithmetic only. Pure; time is an argument.
 *
 * The wait before the next attempt is the time already spent trying, clamped to [min, max] (so that
 * retries spread out by themselves, as in Postfix's queue manager) and to min doubled for each
 * attempt after the first (so that a message whose first try came late is not made to wait long),
 * shortened or lengthened by up to a quarter of itself by the jitter that the caller draws.
 * Giving up counts only time in which the message could have been tried (its route had a mailbox in
 * use); the caller sums that time and stores it, so that neither an outage nor a step of the wall
 * clock expires anything. RFC 5321 4.5.4.1 asks for four to five days.
 */
#ifndef OUTTRAY_QUEUE_BACKOFF_H
#define OUTTRAY_QUEUE_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

#define BACKOFF_LOSS_FACTOR 64

struct backoff_policy {
    uint64_t min_ms;     /* first wait */
    uint64_t max_ms;     /* longest wait */
    uint64_t give_up_ms; /* of time in which it could have been tried; 0 = never */
};

extern const struct backoff_policy backoff_message; /* 60 s .. 30 min, five days */
extern const struct backoff_policy backoff_mailbox; /* 15 s .. 30 min, never gives up */

/* The wait after the attempt number `attempts` (1 is the first) of a message tried for tried_ms so
 * far. `jitter` is any random number; equal arguments give equal results. */
uint64_t backoff_wait(const struct backoff_policy *policy, uint32_t attempts, uint64_t tried_ms,
                      uint32_t jitter);
bool backoff_expired(const struct backoff_policy *policy, uint64_t tried_ms);
/* The wait of a message that was lost in doubt for the time number `losses` (1 is the first):
 * wait_ms, four times as long for each loss before, at most BACKOFF_LOSS_FACTOR times. Every
 * further copy may be one too many. */
uint64_t backoff_loss(uint64_t wait_ms, uint32_t losses);
/* What is left of a stored wait after a restart: never longer than it was, whatever the wall clock
 * did in between. */
uint64_t backoff_resume(uint64_t wait_ms, uint64_t written_wall_ms, uint64_t now_wall_ms);

#endif
