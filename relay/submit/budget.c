#include "relay/submit/budget.h"

#include <assert.h>
#include <stdlib.h>

/* One more than a day has, because the oldest is counted until the last of it is a day old. */
#define BUCKETS (BUDGET_DAY_BUCKETS + 1)

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
    uint64_t *linger_until; /* [lingering], in no order */
    uint64_t allowed_since_ms;
    uint32_t under_way;
    struct ring ended; /* final replies within the window */
    uint64_t reserved; /* recipients of messages under way */
    uint64_t recipients;
    uint64_t bucket; /* number of the newest bucket */
    uint32_t buckets[BUCKETS];
};

struct budget *budget_new(const struct budget_limits *limits)
{
    struct budget *b = calloc(1, sizeof(*b));

    assert(limits->connections > 0);
    if (b == NULL)
        return NULL;
    b->limits = *limits;
    b->allowed = limits->connections;
    b->linger_until = calloc(limits->connections, sizeof(*b->linger_until));
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

uint32_t budget_connections_allowed(const struct budget *b)
{
    return b->allowed;
}

bool budget_may_connect(struct budget *b, uint64_t now_ms)
{
    return budget_connections(b, now_ms) < b->allowed;
}

void budget_connection_opened(struct budget *b, uint64_t now_ms)
{
    assert(budget_may_connect(b, now_ms));
    (void)now_ms;
    b->open++;
}

void budget_connection_closed(struct budget *b, bool peer_closed, uint64_t last_octet_ms,
                              uint64_t now_ms)
{
    assert(b->open > 0);
    b->open--;
    if (!peer_closed && last_octet_ms + BUDGET_LINGER_MS > now_ms)
        b->linger_until[b->lingering++] = last_octet_ms + BUDGET_LINGER_MS;
}

void budget_shrink(struct budget *b, uint64_t now_ms)
{
    uint32_t used = budget_connections(b, now_ms);

    b->allowed_since_ms = now_ms;
    b->allowed = used > 1 ? used - 1 : 1;
}

void budget_succeeded(struct budget *b, uint64_t now_ms)
{
    if (b->allowed >= b->limits.connections || now_ms - b->allowed_since_ms < BUDGET_REGROW_MS)
        return;
    b->allowed++;
    b->allowed_since_ms = now_ms;
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
    return next;
}

/* ---- messages -------------------------------------------------------------------------------- */

static uint64_t ring_oldest(const struct ring *r)
{
    return r->times[r->first];
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
    while (b->ended.count > 0 && ring_oldest(&b->ended) + BUDGET_WINDOW_MS <= now_ms)
        ring_drop(&b->ended);
    return b->ended.count + b->under_way;
}

uint64_t budget_may_send(struct budget *b, uint64_t now_ms)
{
    uint32_t limit = b->limits.messages_per_minute;

    if (limit == 0 || budget_messages(b, now_ms) < limit)
        return 0;
    return b->ended.count > 0 ? ring_oldest(&b->ended) + BUDGET_WINDOW_MS : BUDGET_NEVER;
}

/* ---- recipients ------------------------------------------------------------------------------ */

static void advance_buckets(struct budget *b, uint64_t now_ms)
{
    uint64_t number = now_ms / BUDGET_BUCKET_MS;

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
            return (b->bucket + i) * BUDGET_BUCKET_MS;
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
    ring_add(&b->ended, now_ms);
    b->reserved -= recipients;
    b->buckets[b->bucket % BUCKETS] += taken;
    b->recipients += taken;
}

uint64_t budget_next_ms(struct budget *b, uint64_t now_ms)
{
    uint64_t next = next_connection(b, now_ms);
    uint64_t send = budget_may_send(b, now_ms);
    uint64_t recipient = budget_may_use_recipients(b, 1, now_ms);

    if (send > 0 && send < next)
        next = send;
    if (recipient > 0 && recipient < next)
        next = recipient;
    return next;
}
