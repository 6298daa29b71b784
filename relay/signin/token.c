#include "relay/signin/token.h"

#include <stddef.h>

#include "queue/backoff.h"

#define SECONDS_A_DAY 86400

static const struct backoff_policy retries = {
    .min_ms = TOKEN_RETRY_MIN_MS,
    .max_ms = TOKEN_RETRY_MAX_MS,
    .give_up_ms = 0,
};

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* 0 to span, by the jitter. */
static uint64_t part_of(uint64_t span, uint32_t jitter)
{
    return span / UINT32_MAX * jitter + span % UINT32_MAX * jitter / UINT32_MAX;
}

void token_init(struct token *t, bool by_refresh)
{
    *t = (struct token){.by_refresh = by_refresh,
                        .keepalive_ms = TOKEN_NEVER,
                        .state = by_refresh ? TOKEN_LOGIN : TOKEN_READY};
}

void token_restore(struct token *t, const struct token_kept *kept, uint64_t now_ms, uint64_t wall_s)
{
    uint64_t left = kept->ends_s > wall_s ? kept->ends_s - wall_s : 0;
    uint64_t unused = wall_s > kept->used_s ? wall_s - kept->used_s : 0;

    if (t->by_refresh && kept->has_refresh) {
        t->has_refresh = true;
        t->state = TOKEN_READY;
        t->keepalive_ms = now_ms + TOKEN_KEEPALIVE_MS - least(unused * 1000, TOKEN_KEEPALIVE_MS);
    }
    if (!kept->has_access || left == 0)
        return;
    t->generation = 1;
    t->margin_ms = TOKEN_MARGIN_MS;
    t->ends_ms = now_ms + least(left, kept->life_s) * 1000;
    t->renew_ms = left > kept->life_s ? now_ms : t->ends_ms - least(TOKEN_LEAD_MS, left * 500);
}

bool token_is_usable(const struct token *t, uint64_t now_ms)
{
    return t->generation > 0 && now_ms + t->margin_ms < t->ends_ms;
}

uint64_t token_next_ms(const struct token *t)
{
    uint64_t due = t->generation > 0 ? least(t->renew_ms, t->keepalive_ms) : 0;

    if (t->state == TOKEN_HALTED || (t->by_refresh && !t->has_refresh))
        return TOKEN_NEVER;
    return most(t->renew_now ? 0 : due, t->next_try_ms);
}

bool token_wants_fetch(const struct token *t, uint64_t now_ms)
{
    return !t->in_flight && !t->refresh_unsaved && token_next_ms(t) <= now_ms;
}

void token_asked(struct token *t)
{
    t->in_flight = true;
}

static uint64_t renewal(uint64_t asked_ms, uint64_t life_ms, uint32_t jitter)
{
    if (life_ms < TOKEN_SHORT_MS)
        return asked_ms + life_ms / 2 - part_of(life_ms / 20, jitter);
    return asked_ms + life_ms - TOKEN_LEAD_MS - part_of(TOKEN_LEAD_MS / 5, jitter);
}

void token_given(struct token *t, const struct token_gift *gift, uint32_t jitter)
{
    uint64_t life_ms = (uint64_t)gift->life_s * 1000;

    t->in_flight = false;
    t->renew_now = false;
    t->clock_retried = false;
    t->failures = 0;
    t->next_try_ms = gift->asked_ms + TOKEN_RETRY_MIN_MS; /* whoever asks for a fresh one */
    t->generation++;
    t->ends_ms = gift->asked_ms + life_ms;
    t->margin_ms = least(TOKEN_MARGIN_MS, life_ms / 4);
    t->renew_ms = renewal(gift->asked_ms, life_ms, jitter);
    t->refresh_unsaved = t->refresh_unsaved || gift->refresh_came;
    t->has_refresh = t->has_refresh || gift->refresh_came;
    t->state = t->by_refresh && !t->has_refresh ? TOKEN_LOGIN : TOKEN_READY;
    if (t->has_refresh)
        t->keepalive_ms = gift->asked_ms + TOKEN_KEEPALIVE_MS;
}

void token_saved(struct token *t)
{
    t->refresh_unsaved = false;
}

static uint64_t probe_wait(uint32_t jitter)
{
    return TOKEN_PROBE_MIN_MS + part_of(TOKEN_PROBE_MAX_MS - TOKEN_PROBE_MIN_MS, jitter);
}

static enum token_state state_after(enum oauth_action action)
{
    static const enum token_state states[] = {
        [OAUTH_RETRY] = TOKEN_WAITING,   [OAUTH_PAUSE] = TOKEN_PAUSED,
        [OAUTH_HALT] = TOKEN_HALTED,     [OAUTH_LOGIN] = TOKEN_LOGIN,
        [OAUTH_PENDING] = TOKEN_WAITING, [OAUTH_SLOW_DOWN] = TOKEN_WAITING,
    };

    _Static_assert(sizeof(states) / sizeof(states[0]) == OAUTH_ACTIONS, "each has a state");
    return states[action];
}

void token_denied(struct token *t, const struct token_denial *denial, uint64_t now_ms,
                  uint32_t jitter)
{
    uint64_t wait = least(denial->wait_s * 1000, TOKEN_WAIT_MAX_MS);

    t->in_flight = false;
    if (denial->clock_was_wrong && !t->clock_retried) {
        t->clock_retried = true;
        t->state = TOKEN_WAITING;
        t->next_try_ms = now_ms;
        return;
    }
    if (t->failures++ == 0)
        t->failing_since_ms = now_ms;
    t->state = state_after(denial->action);
    if (t->state == TOKEN_WAITING)
        wait =
            most(wait, backoff_wait(&retries, t->failures, now_ms - t->failing_since_ms, jitter));
    else
        wait = most(wait, probe_wait(jitter));
    t->next_try_ms = now_ms + wait;
}

void token_retry(struct token *t)
{
    if (t->state == TOKEN_HALTED || t->state == TOKEN_PAUSED)
        t->state = TOKEN_WAITING;
    t->next_try_ms = 0;
    t->renew_now = t->renew_now || t->state != TOKEN_READY;
    t->failures = 0;
}

const char *token_state_name(enum token_state state)
{
    static const char *const names[] = {"ready", "waiting", "paused", "halted", "login"};

    _Static_assert(sizeof(names) / sizeof(names[0]) == TOKEN_STATES, "each has a name");
    return names[state];
}

/* ---- One mailbox's share ---- */

static enum token_turn use_or_wait(const struct token_user *u, struct token *t, uint64_t now_ms)
{
    if (t->generation > u->refused_generation && token_is_usable(t, now_ms))
        return TOKEN_USE;
    t->renew_now = true;
    return TOKEN_WAIT;
}

enum token_turn token_user_turn(const struct token_user *u, struct token *t, uint64_t now_ms)
{
    if (now_ms < u->probe_ms)
        return TOKEN_STOP;
    return use_or_wait(u, t, now_ms);
}

enum token_turn token_user_refused(struct token_user *u, struct token *t, uint64_t generation,
                                   uint64_t now_ms, uint32_t jitter)
{
    bool known = generation <= u->refused_generation; /* by another connection */

    if (!known) {
        u->refused_generation = generation;
        u->refusals++;
        if (u->refusals > 1)
            u->probe_ms = now_ms + probe_wait(jitter);
    }
    return token_user_turn(u, t, now_ms);
}

void token_user_accepted(struct token_user *u)
{
    *u = (struct token_user){.refusals = 0};
}

/* ---- The wall clock ---- */

bool token_clock_learn(struct token_clock *c, uint64_t date_s, uint64_t wall_s)
{
    int64_t ahead = (int64_t)date_s - (int64_t)wall_s;
    int64_t change;

    if (date_s == 0)
        return false;
    if (ahead >= -TOKEN_CLOCK_SLACK_S && ahead <= TOKEN_CLOCK_SLACK_S)
        ahead = 0;
    change = ahead - c->ahead_s;
    c->ahead_s = ahead;
    return change < -TOKEN_CLOCK_SLACK_S || change > TOKEN_CLOCK_SLACK_S;
}

uint64_t token_clock_now(const struct token_clock *c, uint64_t wall_s)
{
    int64_t now = (int64_t)wall_s + c->ahead_s;

    return now > 0 ? (uint64_t)now : 0;
}

bool token_warns(int64_t end_s, uint64_t now_s, unsigned *out_days)
{
    int64_t left = end_s - (int64_t)now_s;

    if (end_s <= 0 || left > (int64_t)TOKEN_WARN_DAYS * SECONDS_A_DAY)
        return false;
    *out_days = left > 0 ? (unsigned)(left / SECONDS_A_DAY) : 0;
    return true;
}
