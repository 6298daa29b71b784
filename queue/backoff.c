#include "queue/backoff.h"

#define SECOND 1000ull
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

const struct backoff_policy backoff_message = {
    .min_ms = MINUTE,
    .max_ms = 30 * MINUTE,
    .give_up_ms = 5 * DAY,
};

const struct backoff_policy backoff_mailbox = {
    .min_ms = 15 * SECOND,
    .max_ms = 30 * MINUTE,
    .give_up_ms = 0,
};

static uint64_t clamp(uint64_t value, uint64_t min, uint64_t max)
{
    if (value < min)
        return min;
    return value > max ? max : value;
}

/* min_ms, doubled for each attempt after the first. A message that was first tried late (its lane
 * was long) has spent much time already, yet deserves the short waits of a first failure. */
static uint64_t longest_so_far(const struct backoff_policy *policy, uint32_t attempts)
{
    uint64_t wait = policy->min_ms;

    for (uint32_t i = 1; i < attempts && wait < policy->max_ms; i++)
        wait = wait > UINT64_MAX / 2 ? UINT64_MAX : wait * 2;
    return clamp(wait, policy->min_ms, policy->max_ms);
}

/* value * part / UINT32_MAX, without overflow. */
static uint64_t scale(uint64_t value, uint32_t part)
{
    return value / UINT32_MAX * part + value % UINT32_MAX * part / UINT32_MAX;
}

uint64_t backoff_wait(const struct backoff_policy *policy, uint32_t attempts, uint64_t tried_ms,
                      uint32_t jitter)
{
    uint64_t wait = clamp(tried_ms, policy->min_ms, longest_so_far(policy, attempts));

    return wait - wait / 4 + scale(wait / 2, jitter);
}

bool backoff_expired(const struct backoff_policy *policy, uint64_t tried_ms)
{
    return policy->give_up_ms > 0 && tried_ms >= policy->give_up_ms;
}

uint64_t backoff_loss(uint64_t wait_ms, uint32_t losses)
{
    uint64_t factor = 1;

    for (uint32_t i = 1; i < losses && factor < BACKOFF_LOSS_FACTOR; i++)
        factor *= 4;
    return wait_ms * factor;
}

uint64_t backoff_resume(uint64_t wait_ms, uint64_t written_wall_ms, uint64_t now_wall_ms)
{
    uint64_t passed = now_wall_ms > written_wall_ms ? now_wall_ms - written_wall_ms : 0;

    return passed < wait_ms ? wait_ms - passed : 0;
}
