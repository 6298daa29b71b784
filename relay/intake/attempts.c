#include "relay/intake/attempts.h"

static void forget_old(struct attempts *t, uint64_t now_ms)
{
    size_t kept = 0;

    for (size_t i = 0; i < t->count; i++) {
        if (now_ms - t->list[i].last_ms < ATTEMPTS_FORGET_MS || t->list[i].next_ms > now_ms)
            t->list[kept++] = t->list[i];
    }
    t->count = kept;
}

static struct attempts_of *find(struct attempts *t, const struct net_address *a, uint64_t now_ms)
{
    forget_old(t, now_ms);
    for (size_t i = 0; i < t->count; i++) {
        if (net_equal(&t->list[i].address, a))
            return &t->list[i];
    }
    return NULL;
}

static struct attempts_of *add(struct attempts *t, const struct net_address *a)
{
    struct attempts_of *place = &t->list[0];

    if (t->count < ATTEMPTS_MAX) {
        place = &t->list[t->count++];
    } else {
        for (size_t i = 1; i < ATTEMPTS_MAX; i++) {
            if (t->list[i].last_ms < place->last_ms)
                place = &t->list[i];
        }
    }
    *place = (struct attempts_of){.address = *a};
    return place;
}

static uint64_t delay_of(const struct attempts_of *of)
{
    uint64_t ms = ATTEMPTS_FIRST_MS;

    for (uint32_t i = 1; i < of->wrong && ms < ATTEMPTS_LONGEST_MS; i++)
        ms *= 2;
    return ms;
}

bool attempts_begin(struct attempts *t, const struct net_address *a, uint64_t now_ms,
                    uint64_t *out_wait_ms)
{
    struct attempts_of *of = find(t, a, now_ms);
    uint64_t start = of != NULL && of->next_ms > now_ms ? of->next_ms : now_ms;

    if (start - now_ms > ATTEMPTS_QUEUE_MS)
        return false;
    if (of != NULL)
        of->next_ms = start + delay_of(of);
    *out_wait_ms = start - now_ms;
    return true;
}

uint64_t attempts_wrong(struct attempts *t, const struct net_address *a, uint64_t now_ms,
                        uint32_t *out_count)
{
    struct attempts_of *of = find(t, a, now_ms);
    uint64_t ms;

    if (of == NULL)
        of = add(t, a);
    of->wrong++;
    of->last_ms = now_ms;
    ms = delay_of(of);
    if (of->next_ms < now_ms + ms)
        of->next_ms = now_ms + ms;
    *out_count = of->wrong;
    return ms;
}

void attempts_right(struct attempts *t, const struct net_address *a, uint64_t now_ms)
{
    struct attempts_of *of = find(t, a, now_ms);

    if (of != NULL)
        of->next_ms = now_ms;
}
