#include "relay/intake/limits.h"

#include <assert.h>
#include <stdlib.h>

#define BUCKETS 4096

struct limits_use {
    struct net_address address;
    uint32_t sessions;
    uint32_t messages;       /* since began_ms */
    uint64_t began_ms;       /* of the minute */
    struct limits_use *next; /* in its bucket */
    /* Among those without sessions, by the time they lost the last one. */
    struct limits_use *older;
    struct limits_use *newer;
};

struct limits {
    uint32_t seed;
    uint32_t quiet;
    struct limits_use *oldest;
    struct limits_use *newest;
    struct limits_use *buckets[BUCKETS];
};

struct limits *limits_new(uint32_t seed)
{
    struct limits *l = calloc(1, sizeof *l);

    if (l != NULL)
        l->seed = seed;
    return l;
}

static uint32_t place_of(const struct limits *l, const struct net_address *a)
{
    return net_hash(a, l->seed) % BUCKETS;
}

static struct limits_use *find(const struct limits *l, const struct net_address *a)
{
    struct limits_use *u = l->buckets[place_of(l, a)];

    while (u != NULL && !net_equal(&u->address, a))
        u = u->next;
    return u;
}

static void quiet_add(struct limits *l, struct limits_use *u)
{
    u->older = l->newest;
    u->newer = NULL;
    if (l->newest != NULL)
        l->newest->newer = u;
    else
        l->oldest = u;
    l->newest = u;
    l->quiet++;
}

static void quiet_remove(struct limits *l, struct limits_use *u)
{
    if (u->older != NULL)
        u->older->newer = u->newer;
    else
        l->oldest = u->newer;
    if (u->newer != NULL)
        u->newer->older = u->older;
    else
        l->newest = u->older;
    l->quiet--;
}

/* Has no sessions. */
static void forget(struct limits *l, struct limits_use *u)
{
    struct limits_use **link = &l->buckets[place_of(l, &u->address)];

    while (*link != u)
        link = &(*link)->next;
    *link = u->next;
    quiet_remove(l, u);
    free(u);
}

static bool minute_is_over(const struct limits_use *u, uint64_t now_ms)
{
    return u->messages == 0 || now_ms - u->began_ms >= LIMITS_MINUTE_MS;
}

static void forget_what_is_over(struct limits *l, uint64_t now_ms)
{
    while (l->oldest != NULL && (l->quiet > LIMITS_QUIET_MAX || minute_is_over(l->oldest, now_ms)))
        forget(l, l->oldest);
}

void limits_free(struct limits *l)
{
    if (l == NULL)
        return;
    while (l->oldest != NULL)
        forget(l, l->oldest);
    free(l);
}

uint32_t limits_sessions(const struct limits *l, const struct net_address *a)
{
    const struct limits_use *u = find(l, a);

    return u != NULL ? u->sessions : 0;
}

struct limits_use *limits_enter(struct limits *l, const struct net_address *a, uint64_t now_ms)
{
    struct limits_use *u = find(l, a);

    if (u == NULL) {
        u = calloc(1, sizeof *u);
        if (u == NULL)
            return NULL;
        u->address = *a;
        u->next = l->buckets[place_of(l, a)];
        l->buckets[place_of(l, a)] = u;
    } else if (u->sessions == 0) {
        quiet_remove(l, u);
    }
    u->sessions++;
    forget_what_is_over(l, now_ms);
    return u;
}

void limits_leave(struct limits *l, struct limits_use *u, uint64_t now_ms)
{
    assert(u->sessions > 0);
    if (--u->sessions > 0)
        return;
    quiet_add(l, u);
    forget_what_is_over(l, now_ms);
}

bool limits_take_message(struct limits_use *u, uint32_t max, uint64_t now_ms)
{
    if (minute_is_over(u, now_ms)) {
        u->began_ms = now_ms;
        u->messages = 0;
    }
    if (max != 0 && u->messages >= max)
        return false;
    u->messages++;
    return true;
}
