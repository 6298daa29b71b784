#include "relay/submit/budget.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* One more than a day has, because the oldest is counted until the last of it is a day old. */
#define BUCKETS (BUDGET_DAY_BUCKETS + 1)

/* Times are kept with this added, because what is restored may be older than the machine is up. */
#define OFFSET ((uint64_t)(2 * BUDGET_DAY_BUCKETS * BUDGET_BUCKET_MS))

#define HOUR_MS    (60ull * 60 * 1000)
#define DAY_MS     (24 * HOUR_MS)
#define SAVED_FORM 1

/* Times in the order in which they were added. */
struct ring {
    uint64_t *times;
    uint32_t size;
    uint32_t first;
    uint32_t count;
};

struct budget {
    struct budget_limits limits;
    uint32_t allowed; /* connections */
    uint32_t open;
    uint32_t lingering;
    uint64_t *linger_until; /* [lingering] of linger_room, in no order */
    uint32_t linger_room;
    uint64_t allowed_since_ms;
    uint64_t regrow_ms;     /* until the next connection more */
    bool grown;             /* since the last refusal */
    uint64_t ramp_ms;       /* since when connections come back one by one; 0 = they all may */
    uint64_t assumed_until; /* more is counted than is known to be used */
    uint32_t under_way;
    struct ring ended; /* final replies within the window */
    uint64_t reserved; /* recipients of messages under way */
    uint64_t recipients;
    uint64_t bucket; /* number of the newest bucket */
    uint32_t buckets[BUCKETS];
};

static uint64_t lesser(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

struct budget *budget_new(const struct budget_limits *limits)
{
    struct budget *b = calloc(1, sizeof(*b));

    assert(limits->connections > 0);
    if (b == NULL)
        return NULL;
    b->limits = *limits;
    b->allowed = limits->connections;
    b->regrow_ms = BUDGET_REGROW_MS;
    b->linger_room = limits->connections;
    b->linger_until = calloc(b->linger_room, sizeof(*b->linger_until));
    b->ended.size = limits->messages_per_minute;
    b->ended.times = calloc(b->ended.size > 0 ? b->ended.size : 1, sizeof(*b->ended.times));
    if (b->linger_until == NULL || b->ended.times == NULL) {
        budget_free(b);
        return NULL;
    }
    return b;
}

void budget_free(struct budget *b)
{
    if (b == NULL)
        return;
    free(b->linger_until);
    free(b->ended.times);
    free(b);
}

/* ---- connections ----------------------------------------------------------------------------- */

uint32_t budget_connections(struct budget *b, uint64_t now_ms)
{
    for (uint32_t i = 0; i < b->lingering;) {
        if (b->linger_until[i] <= now_ms)
            b->linger_until[i] = b->linger_until[--b->lingering];
        else
            i++;
    }
    return b->open + b->lingering;
}

uint32_t budget_connections_allowed(const struct budget *b, uint64_t now_ms)
{
    uint64_t ramp = UINT32_MAX;

    if (b->ramp_ms != 0)
        ramp = 1 + (now_ms + OFFSET - b->ramp_ms) / BUDGET_RAMP_MS;
    return ramp < b->allowed ? (uint32_t)ramp : b->allowed;
}

bool budget_may_connect(struct budget *b, uint64_t now_ms)
{
    return budget_connections(b, now_ms) < budget_connections_allowed(b, now_ms);
}

void budget_connection_opened(struct budget *b, uint64_t now_ms)
{
    assert(budget_may_connect(b, now_ms));
    (void)now_ms;
    b->open++;
}

void budget_connection_failed(struct budget *b)
{
    assert(b->open > 0);
    b->open--;
}

void budget_connection_closed(struct budget *b, bool peer_closed, uint64_t last_octet_ms,
                              uint64_t now_ms)
{
    uint64_t until = peer_closed ? now_ms + BUDGET_CLOSED_MS : last_octet_ms + BUDGET_LINGER_MS;

    assert(b->open > 0);
    b->open--;
    if (until > now_ms && b->lingering < b->linger_room)
        b->linger_until[b->lingering++] = until;
}

uint32_t budget_connections_open(struct budget *b, uint64_t now_ms)
{
    uint32_t used = budget_connections(b, now_ms);

    for (uint32_t i = 0; i < b->lingering; i++)
        used -= b->linger_until[i] <= now_ms + BUDGET_CLOSED_MS;
    return used;
}

void budget_shrink(struct budget *b, uint64_t now_ms)
{
    uint32_t used = budget_connections_open(b, now_ms);

    if (b->grown) /* in vain, or others came back */
        b->regrow_ms = lesser(2 * b->regrow_ms, BUDGET_REGROW_MAX_MS);
    b->grown = false;
    b->allowed_since_ms = now_ms;
    b->allowed = used > 1 ? used - 1 : 1;
    if (b->allowed > b->limits.connections)
        b->allowed = b->limits.connections;
}

void budget_succeeded(struct budget *b, uint64_t now_ms)
{
    bool in_use = budget_connections(b, now_ms) >= b->allowed;

    if (!in_use || now_ms - b->allowed_since_ms < (b->grown ? BUDGET_REGROW_MS : b->regrow_ms))
        return;
    if (b->grown) /* the last step has held */
        b->regrow_ms = BUDGET_REGROW_MS;
    b->allowed_since_ms = now_ms;
    b->grown = b->allowed < b->limits.connections;
    b->allowed += b->grown;
}

enum budget_why budget_connections_why(const struct budget *b, uint64_t now_ms)
{
    if (budget_connections_allowed(b, now_ms) < b->allowed)
        return BUDGET_RAMPING;
    return b->allowed < b->limits.connections ? BUDGET_CROWDED : BUDGET_ALL;
}

static uint64_t next_connection(struct budget *b, uint64_t now_ms)
{
    uint64_t next = BUDGET_NEVER;

    if (budget_may_connect(b, now_ms))
        return BUDGET_NEVER;
    for (uint32_t i = 0; i < b->lingering; i++) {
        if (b->linger_until[i] < next)
            next = b->linger_until[i];
    }
    if (b->ramp_ms != 0 && budget_connections_allowed(b, now_ms) < b->allowed) {
        uint64_t since = now_ms + OFFSET - b->ramp_ms;
        uint64_t step = now_ms + BUDGET_RAMP_MS - since % BUDGET_RAMP_MS;
        next = step < next ? step : next;
    }
    return next;
}

/* ---- messages -------------------------------------------------------------------------------- */

/* The i-th oldest. */
static uint64_t ring_at(const struct ring *r, uint32_t i)
{
    return r->times[((uint64_t)r->first + i) % r->size];
}

static void ring_drop(struct ring *r)
{
    r->first = (r->first + 1) % r->size;
    r->count--;
}

static void ring_add(struct ring *r, uint64_t time)
{
    if (r->size == 0)
        return;
    if (r->count == r->size)
        ring_drop(r);
    r->times[((uint64_t)r->first + r->count) % r->size] = time;
    r->count++;
}

uint32_t budget_messages(struct budget *b, uint64_t now_ms)
{
    while (b->ended.count > 0 && ring_at(&b->ended, 0) + BUDGET_WINDOW_MS <= now_ms + OFFSET)
        ring_drop(&b->ended);
    return b->ended.count + b->under_way;
}

uint64_t budget_may_send(struct budget *b, bool urgent, uint64_t now_ms)
{
    uint32_t limit = b->limits.messages_per_minute;
    uint32_t used;
    uint32_t leaving;

    if (limit == 0)
        return 0;
    if (!urgent && b->limits.urgent_reserve < limit)
        limit -= b->limits.urgent_reserve;
    used = budget_messages(b, now_ms);
    if (used < limit)
        return 0;
    leaving = used - limit; /* ... and one more must leave the window */
    if (leaving >= b->ended.count)
        return BUDGET_NEVER;
    return ring_at(&b->ended, leaving) + BUDGET_WINDOW_MS - OFFSET;
}

/* ---- recipients ------------------------------------------------------------------------------ */

static void advance_buckets(struct budget *b, uint64_t now_ms)
{
    uint64_t number = (now_ms + OFFSET) / BUDGET_BUCKET_MS;

    if (number > b->bucket + BUCKETS)
        b->bucket = number - BUCKETS;
    while (b->bucket < number) {
        uint32_t *reused;

        b->bucket++;
        reused = &b->buckets[b->bucket % BUCKETS];
        b->recipients -= *reused;
        *reused = 0;
    }
}

uint32_t budget_recipients(struct budget *b, uint64_t now_ms)
{
    uint64_t all;

    advance_buckets(b, now_ms);
    all = b->recipients + b->reserved;
    return all < UINT32_MAX ? (uint32_t)all : UINT32_MAX;
}

/* When enough of the buckets, oldest first, no longer count. */
static uint64_t time_of_room(const struct budget *b, uint64_t excess)
{
    for (uint64_t i = 1; i <= BUCKETS; i++) {
        uint32_t count = b->buckets[(b->bucket + i) % BUCKETS];

        if (count >= excess)
            return (b->bucket + i) * BUDGET_BUCKET_MS - OFFSET;
        excess -= count;
    }
    return BUDGET_NEVER;
}

uint64_t budget_may_use_recipients(struct budget *b, uint32_t n, uint64_t now_ms)
{
    uint64_t limit = b->limits.recipients_per_day;
    uint64_t all;

    advance_buckets(b, now_ms);
    all = b->recipients + b->reserved + n;
    if (limit == 0 || all <= limit)
        return 0;
    return time_of_room(b, all - limit);
}

void budget_message_started(struct budget *b, uint32_t recipients, uint64_t now_ms)
{
    advance_buckets(b, now_ms);
    b->under_way++;
    b->reserved += recipients;
}

void budget_message_ended(struct budget *b, uint32_t recipients, uint32_t taken, uint64_t now_ms)
{
    assert(b->under_way > 0 && b->reserved >= recipients && taken <= recipients);
    budget_messages(b, now_ms);
    advance_buckets(b, now_ms);
    b->under_way--;
    ring_add(&b->ended, now_ms + OFFSET);
    b->reserved -= recipients;
    b->buckets[b->bucket % BUCKETS] += taken;
    b->recipients += taken;
}

static uint32_t part_left(uint64_t used, uint64_t limit)
{
    if (limit == 0)
        return 1000;
    return used >= limit ? 0 : (uint32_t)((limit - used) * 1000 / limit);
}

uint32_t budget_left(struct budget *b, uint64_t now_ms)
{
    uint32_t left = part_left(budget_messages(b, now_ms), b->limits.messages_per_minute);
    uint32_t day = part_left(budget_recipients(b, now_ms), b->limits.recipients_per_day);
    uint32_t connections = part_left(b->under_way, b->limits.connections);

    left = day < left ? day : left;
    return connections < left ? connections : left;
}

uint64_t budget_next_ms(struct budget *b, uint64_t now_ms)
{
    uint64_t next = next_connection(b, now_ms);
    uint64_t send = budget_may_send(b, false, now_ms);
    uint64_t urgent = budget_may_send(b, true, now_ms);
    uint64_t recipient = budget_may_use_recipients(b, 1, now_ms);

    if (send > 0 && send < next)
        next = send;
    if (urgent > 0 && urgent < next)
        next = urgent;
    if (recipient > 0 && recipient < next)
        next = recipient;
    return next;
}

/* ---- forecasts ------------------------------------------------------------------------------- */

uint64_t budget_dry_in_ms(struct budget *b, uint64_t now_ms)
{
    uint64_t limit = b->limits.recipients_per_day;
    uint64_t used = budget_recipients(b, now_ms);
    uint64_t pace = 0; /* in the last hour */
    uint64_t left;

    for (uint64_t i = 0; i < HOUR_MS / BUDGET_BUCKET_MS; i++)
        pace += b->buckets[(b->bucket + BUCKETS - i) % BUCKETS];
    if (limit == 0 || pace == 0)
        return BUDGET_NEVER;
    left = used < limit ? limit - used : 0;
    return left / pace >= DAY_MS / HOUR_MS ? BUDGET_NEVER : left * HOUR_MS / pace;
}

/* The minute's limit alone. */
static uint64_t messages_take_ms(struct budget *b, uint64_t messages, uint64_t now_ms)
{
    uint64_t limit = b->limits.messages_per_minute;
    uint64_t used = budget_messages(b, now_ms);
    uint64_t now = used < limit ? limit - used : 0;

    if (limit == 0 || messages <= now)
        return 0;
    if (messages - now > limit * DAY_MS / BUDGET_WINDOW_MS)
        return BUDGET_NEVER;
    return (messages - now) * BUDGET_WINDOW_MS / limit;
}

uint64_t budget_done_in_ms(struct budget *b, uint64_t messages, uint64_t recipients,
                           uint64_t now_ms)
{
    uint64_t by_minute = messages_take_ms(b, messages, now_ms);
    uint64_t limit = b->limits.recipients_per_day;
    uint64_t by_day = 0;

    if (by_minute == BUDGET_NEVER || (limit != 0 && recipients > limit))
        return BUDGET_NEVER;
    if (limit != 0)
        by_day = budget_may_use_recipients(b, (uint32_t)recipients, now_ms);
    if (by_day == BUDGET_NEVER)
        return BUDGET_NEVER;
    by_day = by_day > now_ms ? by_day - now_ms : 0;
    return by_day > by_minute ? by_day : by_minute;
}

/* ---- across restarts ------------------------------------------------------------------------- */

uint32_t budget_save_step(const struct budget *b)
{
    uint32_t limit = b->limits.recipients_per_day;

    return limit == 0 ? 0 : limit / BUDGET_SAVE_PARTS + 1;
}

bool budget_is_at_rest(struct budget *b, uint64_t now_ms)
{
    return budget_connections(b, now_ms) == 0 && b->under_way == 0 &&
           (b->limits.messages_per_minute == 0 || budget_messages(b, now_ms) == 0);
}

/* How much of the newest bucket is over. */
static uint64_t phase_of(uint64_t now_ms)
{
    return (now_ms + OFFSET) % BUDGET_BUCKET_MS;
}

/* "1 WALL ALLOWED REGROW c LEFT ... m AGE ... p PHASE d AGE:COUNT ...": what is left of lingering,
 * ages of messages, and what is over of the newest bucket, in ms; ages of recipients in buckets. */
bool budget_save(struct budget *b, uint64_t now_ms, uint64_t wall_ms, struct bytes *out)
{
    (void)budget_messages(b, now_ms);
    advance_buckets(b, now_ms);
    (void)budget_connections(b, now_ms);
    bytes_printf(out, "%d %" PRIu64 " %" PRIu32 " %" PRIu64 " c", SAVED_FORM, wall_ms, b->allowed,
                 b->regrow_ms);
    for (uint32_t i = 0; i < b->lingering; i++)
        bytes_printf(out, " %" PRIu64, b->linger_until[i] - now_ms);
    bytes_text(out, " m");
    for (uint32_t i = 0; i < b->ended.count; i++)
        bytes_printf(out, " %" PRIu64, now_ms + OFFSET - ring_at(&b->ended, i));
    for (uint32_t i = 0; i < b->under_way; i++)
        bytes_text(out, " 0");
    bytes_printf(out, " p %" PRIu64 " d", phase_of(now_ms));
    for (uint32_t i = 0; i < BUCKETS; i++) {
        uint64_t count = b->buckets[(b->bucket + BUCKETS - i) % BUCKETS];

        count += i == 0 ? b->reserved : 0;
        if (count > 0)
            bytes_printf(out, " %" PRIu32 ":%" PRIu64, i, count);
    }
    return !out->failed;
}

static bool read_number(const char **text, uint64_t max, uint64_t *out)
{
    char *end;

    while (**text == ' ')
        (*text)++;
    if (**text < '0' || **text > '9')
        return false;
    errno = 0;
    *out = strtoull(*text, &end, 10);
    if (errno != 0 || *out > max)
        return false;
    *text = end;
    return true;
}

static bool read_word(const char **text, char word)
{
    while (**text == ' ')
        (*text)++;
    if (**text != word)
        return false;
    (*text)++;
    return true;
}

static void restore_lingering(struct budget *b, const char **text, uint64_t since_ms,
                              uint64_t now_ms)
{
    uint64_t left;

    while (read_number(text, BUDGET_LINGER_MS, &left)) {
        if (left > since_ms && b->lingering < b->linger_room)
            b->linger_until[b->lingering++] = now_ms + left - since_ms;
    }
}

/* Oldest first, as they were saved. */
static void restore_minute(struct budget *b, const char **text, uint64_t since_ms, uint64_t now_ms)
{
    uint64_t age;

    while (read_number(text, BUDGET_WINDOW_MS, &age)) {
        if (age + since_ms < BUDGET_WINDOW_MS)
            ring_add(&b->ended, now_ms + OFFSET - age - since_ms);
    }
}

/* As it was not saved once, without one the earliest is assumed. */
static uint64_t read_phase(const char **text)
{
    uint64_t phase = 0;

    if (read_word(text, 'p'))
        (void)read_number(text, BUDGET_BUCKET_MS, &phase);
    return phase;
}

/* Buckets begin at other moments now: nothing may leave its last one before a day is over. */
static void restore_day(struct budget *b, const char **text, uint64_t phase_ms, uint64_t since_ms,
                        uint64_t now_ms)
{
    uint64_t here = phase_of(now_ms);
    uint64_t age;
    uint64_t count;

    advance_buckets(b, now_ms);
    while (read_number(text, BUCKETS, &age) && read_word(text, ':') &&
           read_number(text, UINT32_MAX, &count)) {
        uint64_t moved = age * BUDGET_BUCKET_MS + phase_ms + since_ms;
        uint64_t slot = moved > here ? (moved - here) / BUDGET_BUCKET_MS : 0;
        uint32_t *bucket = &b->buckets[(b->bucket + BUCKETS - slot) % BUCKETS];

        if (slot >= BUCKETS || count > UINT32_MAX - *bucket)
            continue;
        *bucket += (uint32_t)count;
        b->recipients += count;
    }
}

/* What was sent since it was saved is not known: as much as could be, as late as could be. */
static void spend_minute(struct budget *b, uint64_t since_ms, uint64_t now_ms)
{
    uint64_t age = since_ms > BUDGET_SAVE_MS ? since_ms - BUDGET_SAVE_MS : 0;
    uint32_t unsaved = budget_save_step(b);

    b->ramp_ms = now_ms + OFFSET;
    advance_buckets(b, now_ms);
    b->buckets[b->bucket % BUCKETS] += unsaved;
    b->recipients += unsaved;
    if (unsaved > 0)
        b->assumed_until = now_ms + OFFSET + DAY_MS;
    if (age >= BUDGET_WINDOW_MS || b->ended.size == 0)
        return;
    if (unsaved == 0)
        b->assumed_until = now_ms + OFFSET + BUDGET_WINDOW_MS - age;
    for (uint32_t i = 0; i < b->ended.size; i++)
        ring_add(&b->ended, now_ms + OFFSET - age);
}

bool budget_is_assumed(const struct budget *b, uint64_t now_ms)
{
    return now_ms + OFFSET < b->assumed_until;
}

bool budget_restore(struct budget *b, const char *text, bool clean, uint64_t now_ms,
                    uint64_t wall_ms)
{
    uint64_t form = 0;
    uint64_t saved_ms = 0;
    uint64_t allowed = 0;
    uint64_t regrow = 0;
    uint64_t phase = 0;
    bool ok = read_number(&text, SAVED_FORM, &form) && form == SAVED_FORM &&
              read_number(&text, UINT64_MAX / 2, &saved_ms) &&
              read_number(&text, UINT32_MAX, &allowed) &&
              read_number(&text, BUDGET_REGROW_MAX_MS, &regrow) && read_word(&text, 'c');
    /* A clock that was set back tells nothing: then no time has passed. */
    uint64_t since_ms = ok && wall_ms > saved_ms ? wall_ms - saved_ms : 0;

    if (ok) {
        restore_lingering(b, &text, since_ms, now_ms);
        ok = read_word(&text, 'm');
    }
    if (ok) {
        restore_minute(b, &text, since_ms, now_ms);
        phase = read_phase(&text);
        ok = read_word(&text, 'd');
    }
    if (ok && since_ms < DAY_MS + BUDGET_BUCKET_MS)
        restore_day(b, &text, phase, since_ms, now_ms);
    if (ok && allowed > 0 && allowed < b->allowed) {
        b->allowed = (uint32_t)allowed;
        b->allowed_since_ms = now_ms;
    }
    b->regrow_ms = regrow > BUDGET_REGROW_MS ? regrow : BUDGET_REGROW_MS;
    if (!clean || !ok)
        spend_minute(b, since_ms, now_ms);
    return ok;
}
