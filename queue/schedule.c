#include "queue/schedule.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define HEAP_FIRST_CAP  2
#define TABLE_FIRST_CAP 64 /* a power of two */

/* ---- a binary heap of pointers, whose items know their slots --------------------------------- */

struct heap {
    void **items;
    uint32_t count;
    uint32_t cap;
};

struct heap_kind {
    bool (*before)(const void *a, const void *b);
    uint32_t *(*slot)(void *item);
};

static bool heap_reserve(struct heap *h, uint32_t count)
{
    uint64_t cap = h->cap > 0 ? h->cap + h->cap / 2 + 1ull : HEAP_FIRST_CAP;
    void **items;

    if (count <= h->cap)
        return true;
    if (cap < count)
        cap = count;
    if (cap > UINT32_MAX)
        return false;
    items = realloc(h->items, (size_t)cap * sizeof(*items));
    if (items == NULL)
        return false;
    h->items = items;
    h->cap = (uint32_t)cap;
    return true;
}

/* Gives memory back after a flood; keeps it when that fails. */
static void heap_shrink(struct heap *h)
{
    void **items;

    if (h->count == 0) {
        free(h->items);
        *h = (struct heap){0};
        return;
    }
    if (h->cap <= HEAP_FIRST_CAP || h->count > h->cap / 4)
        return;
    items = realloc(h->items, (size_t)h->cap / 2 * sizeof(*items));
    if (items == NULL)
        return;
    h->items = items;
    h->cap /= 2;
}

static void heap_put(struct heap *h, const struct heap_kind *kind, uint32_t slot, void *item)
{
    h->items[slot] = item;
    *kind->slot(item) = slot;
}

static void heap_up(struct heap *h, const struct heap_kind *kind, uint32_t slot)
{
    void *item = h->items[slot];

    while (slot > 0 && kind->before(item, h->items[(slot - 1) / 2])) {
        heap_put(h, kind, slot, h->items[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    heap_put(h, kind, slot, item);
}

static void heap_down(struct heap *h, const struct heap_kind *kind, uint32_t slot)
{
    void *item = h->items[slot];

    for (;;) {
        uint64_t child = (uint64_t)slot * 2 + 1;

        if (child >= h->count)
            break;
        if (child + 1 < h->count && kind->before(h->items[child + 1], h->items[child]))
            child++;
        if (!kind->before(h->items[child], item))
            break;
        heap_put(h, kind, slot, h->items[child]);
        slot = (uint32_t)child;
    }
    heap_put(h, kind, slot, item);
}

/* Room must have been reserved. */
static void heap_push(struct heap *h, const struct heap_kind *kind, void *item)
{
    assert(h->count < h->cap);
    h->items[h->count] = item;
    h->count++;
    heap_up(h, kind, h->count - 1);
}

/* The removed item itself is not compared, so its key may have changed. */
static void heap_remove(struct heap *h, const struct heap_kind *kind, void *item)
{
    uint32_t slot = *kind->slot(item);

    assert(slot < h->count && h->items[slot] == item);
    h->count--;
    if (slot == h->count)
        return;
    heap_put(h, kind, slot, h->items[h->count]);
    heap_up(h, kind, slot);
    heap_down(h, kind, slot);
}

/* ---- objects --------------------------------------------------------------------------------- */

/* Where a group is. Only idle groups have no entries. */
enum place { PLACE_IDLE, PLACE_WAITING, PLACE_READY };

struct schedule_group {
    struct schedule_group *next_in_bucket;
    struct schedule_group *older; /* neighbours among the idle, by the time they became so */
    struct schedule_group *newer;
    struct schedule_lane *lane;
    struct heap entries; /* by due time, then order */
    uint64_t served;     /* the schedule's turn in which it was last picked from, 0 for never */
    uint32_t hash;
    uint32_t slot; /* in waiting or ready */
    enum place place;
    char device[];
};

/* A group moves from waiting to ready when a pick finds its head due, and back to waiting whenever
 * its head changes; so neither needs to know the time. */
struct schedule_lane {
    struct heap waiting; /* groups by the due time of their heads */
    struct heap ready;   /* groups whose heads are due, served longest ago first */
    size_t entries;
    unsigned passed; /* picks in a row from lanes above, while this one had something due */
};

struct schedule_route {
    char *name;
    struct schedule_lane lanes[LANE_COUNT];
};

struct schedule {
    struct schedule_route **routes;
    uint32_t route_count;
    struct schedule_group **buckets; /* all groups, by route, lane and device */
    uint32_t bucket_count;
    uint32_t group_count;
    uint32_t idle_count;
    struct schedule_group *oldest_idle;
    struct schedule_group *newest_idle;
    uint64_t turn;
};

static bool entry_before(const void *a, const void *b)
{
    const struct schedule_entry *x = a;
    const struct schedule_entry *y = b;

    return x->due_ms != y->due_ms ? x->due_ms < y->due_ms : x->order < y->order;
}

static uint32_t *entry_slot(void *item)
{
    return &((struct schedule_entry *)item)->slot;
}

static struct schedule_entry *head_of(const struct schedule_group *g)
{
    return g->entries.items[0];
}

static bool due_before(const void *a, const void *b)
{
    return entry_before(head_of(a), head_of(b));
}

static bool served_before(const void *a, const void *b)
{
    const struct schedule_group *x = a;
    const struct schedule_group *y = b;

    return x->served != y->served ? x->served < y->served : due_before(x, y);
}

static uint32_t *group_slot(void *item)
{
    return &((struct schedule_group *)item)->slot;
}

static const struct heap_kind by_entry = {entry_before, entry_slot};
static const struct heap_kind by_due = {due_before, group_slot};
static const struct heap_kind by_served = {served_before, group_slot};

/* ---- the table of groups --------------------------------------------------------------------- */

/* FNV-1a. */
static uint32_t hash_of(uint32_t route, enum lane lane, const char *device)
{
    uint32_t hash = 2166136261u;

    hash = (hash ^ route) * 16777619u;
    hash = (hash ^ (uint32_t)lane) * 16777619u;
    for (; *device != '\0'; device++)
        hash = (hash ^ (unsigned char)*device) * 16777619u;
    return hash ^ hash >> 15;
}

static struct schedule_group *table_find(const struct schedule *s, const struct schedule_lane *lane,
                                         uint32_t hash, const char *device)
{
    struct schedule_group *g = s->buckets[hash & (s->bucket_count - 1)];

    while (g != NULL && (g->hash != hash || g->lane != lane || strcmp(g->device, device) != 0))
        g = g->next_in_bucket;
    return g;
}

static void table_put(struct schedule *s, struct schedule_group *g)
{
    struct schedule_group **bucket = &s->buckets[g->hash & (s->bucket_count - 1)];

    g->next_in_bucket = *bucket;
    *bucket = g;
}

static void table_drop(struct schedule *s, struct schedule_group *g)
{
    struct schedule_group **at = &s->buckets[g->hash & (s->bucket_count - 1)];

    while (*at != g)
        at = &(*at)->next_in_bucket;
    *at = g->next_in_bucket;
}

/* A failure only makes the chains longer. */
static void table_grow(struct schedule *s)
{
    struct schedule_group **old = s->buckets;
    uint32_t old_count = s->bucket_count;
    struct schedule_group **buckets;

    if (s->group_count < old_count || old_count > UINT32_MAX / 2)
        return;
    buckets = calloc((size_t)old_count * 2, sizeof(struct schedule_group *));
    if (buckets == NULL)
        return;
    s->buckets = buckets;
    s->bucket_count = old_count * 2;
    for (uint32_t i = 0; i < old_count; i++) {
        while (old[i] != NULL) {
            struct schedule_group *g = old[i];

            old[i] = g->next_in_bucket;
            table_put(s, g);
        }
    }
    free(old);
}

/* ---- groups ---------------------------------------------------------------------------------- */

static void group_free(struct schedule_group *g)
{
    free(g->entries.items);
    free(g);
}

static void idle_leave(struct schedule *s, struct schedule_group *g)
{
    *(g->older != NULL ? &g->older->newer : &s->oldest_idle) = g->newer;
    *(g->newer != NULL ? &g->newer->older : &s->newest_idle) = g->older;
    g->older = NULL;
    g->newer = NULL;
    s->idle_count--;
}

/* An idle group is only the memory of when its device was served; the oldest such are forgotten. */
static void idle_join(struct schedule *s, struct schedule_group *g)
{
    struct schedule_group *oldest;

    g->place = PLACE_IDLE;
    g->older = s->newest_idle;
    *(g->older != NULL ? &g->older->newer : &s->oldest_idle) = g;
    s->newest_idle = g;
    s->idle_count++;
    if (s->idle_count <= SCHEDULE_IDLE_MAX)
        return;
    oldest = s->oldest_idle;
    assert(oldest != g);
    idle_leave(s, oldest);
    table_drop(s, oldest);
    s->group_count--;
    group_free(oldest);
}

/* Finds or makes the group. A new one is idle. */
static struct schedule_group *group_get(struct schedule *s, uint32_t route, enum lane lane,
                                        const char *device)
{
    struct schedule_lane *l = &s->routes[route]->lanes[lane];
    uint32_t hash = hash_of(route, lane, device);
    struct schedule_group *g = table_find(s, l, hash, device);
    size_t len = strlen(device);

    if (g != NULL)
        return g;
    g = calloc(1, sizeof(*g) + len + 1);
    if (g == NULL)
        return NULL;
    g->lane = l;
    g->hash = hash;
    memcpy(g->device, device, len + 1);
    table_grow(s);
    table_put(s, g);
    s->group_count++;
    idle_join(s, g);
    return g;
}

static void group_leave_place(struct schedule *s, struct schedule_group *g)
{
    switch (g->place) {
    case PLACE_IDLE:
        idle_leave(s, g);
        break;
    case PLACE_WAITING:
        heap_remove(&g->lane->waiting, &by_due, g);
        break;
    case PLACE_READY:
        heap_remove(&g->lane->ready, &by_served, g);
        break;
    }
}

/* Puts a group where it belongs after its head has changed. */
static void group_settle(struct schedule *s, struct schedule_group *g)
{
    group_leave_place(s, g);
    heap_shrink(&g->entries);
    if (g->entries.count == 0) {
        idle_join(s, g);
        return;
    }
    g->place = PLACE_WAITING;
    heap_push(&g->lane->waiting, &by_due, g);
}

/* Reserves all that a group with one more entry can need: afterwards nothing can fail. */
static bool group_reserve(struct schedule_group *g)
{
    struct schedule_lane *l = g->lane;
    uint32_t active = l->waiting.count + l->ready.count + (g->place == PLACE_IDLE ? 1 : 0);

    return heap_reserve(&l->waiting, active) && heap_reserve(&l->ready, active) &&
           heap_reserve(&g->entries, g->entries.count + 1);
}

/* ---- the face -------------------------------------------------------------------------------- */

struct schedule *schedule_new(void)
{
    struct schedule *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->bucket_count = TABLE_FIRST_CAP;
    s->buckets = calloc(s->bucket_count, sizeof(struct schedule_group *));
    if (s->buckets == NULL) {
        free(s);
        return NULL;
    }
    return s;
}

static void route_free(struct schedule_route *r)
{
    for (size_t i = 0; i < LANE_COUNT; i++) {
        free(r->lanes[i].waiting.items);
        free(r->lanes[i].ready.items);
    }
    free(r->name);
    free(r);
}

void schedule_free(struct schedule *s)
{
    if (s == NULL)
        return;
    for (uint32_t i = 0; i < s->bucket_count; i++) {
        while (s->buckets[i] != NULL) {
            struct schedule_group *g = s->buckets[i];

            s->buckets[i] = g->next_in_bucket;
            group_free(g);
        }
    }
    for (uint32_t i = 0; i < s->route_count; i++)
        route_free(s->routes[i]);
    free(s->routes);
    free(s->buckets);
    free(s);
}

static struct schedule_route *route_new(const char *name)
{
    struct schedule_route *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL;
    r->name = strdup(name);
    if (r->name == NULL) {
        free(r);
        return NULL;
    }
    return r;
}

bool schedule_route(struct schedule *s, const char *name, uint32_t *out_route)
{
    struct schedule_route **routes;

    for (uint32_t i = 0; i < s->route_count; i++) {
        if (strcmp(s->routes[i]->name, name) == 0) {
            *out_route = i;
            return true;
        }
    }
    if (s->route_count >= SCHEDULE_ROUTES_MAX)
        return false;
    routes = realloc(s->routes, (s->route_count + 1) * sizeof(struct schedule_route *));
    if (routes == NULL)
        return false;
    s->routes = routes;
    routes[s->route_count] = route_new(name);
    if (routes[s->route_count] == NULL)
        return false;
    *out_route = s->route_count++;
    return true;
}

const char *schedule_route_name(const struct schedule *s, uint32_t route)
{
    return route < s->route_count ? s->routes[route]->name : "";
}

uint32_t schedule_route_count(const struct schedule *s)
{
    return s->route_count;
}

bool schedule_insert(struct schedule *s, struct schedule_entry *e, uint32_t route, enum lane lane,
                     const char *device, uint64_t due_ms, uint64_t order)
{
    struct schedule_group *g;

    assert(!e->queued && route < s->route_count && (unsigned)lane < LANE_COUNT);
    g = group_get(s, route, lane, device);
    if (g == NULL || !group_reserve(g))
        return false;
    e->due_ms = due_ms;
    e->order = order;
    e->group = g;
    e->queued = true;
    heap_push(&g->entries, &by_entry, e);
    g->lane->entries++;
    if (head_of(g) == e)
        group_settle(s, g);
    return true;
}

void schedule_remove(struct schedule *s, struct schedule_entry *e)
{
    struct schedule_group *g = e->group;
    bool was_head;

    if (!e->queued)
        return;
    was_head = head_of(g) == e;
    heap_remove(&g->entries, &by_entry, e);
    g->lane->entries--;
    e->queued = false;
    e->group = NULL;
    if (was_head)
        group_settle(s, g);
}

static bool lane_promote(struct schedule_lane *l, uint64_t now_ms)
{
    while (l->waiting.count > 0) {
        struct schedule_group *g = l->waiting.items[0];

        if (head_of(g)->due_ms > now_ms)
            break;
        heap_remove(&l->waiting, &by_due, g);
        g->place = PLACE_READY;
        heap_push(&l->ready, &by_served, g);
    }
    return l->ready.count > 0;
}

/* The lane whose turn it is; LANE_COUNT when nothing is due. */
static size_t choose_lane(struct schedule_route *r, enum lane lowest, uint64_t now_ms)
{
    size_t chosen = LANE_COUNT;

    for (size_t i = 0; i <= (size_t)lowest; i++) {
        struct schedule_lane *l = &r->lanes[i];

        if (!lane_promote(l, now_ms))
            l->passed = 0;
        else if (chosen == LANE_COUNT || (l->passed >= SCHEDULE_BULK_EVERY &&
                                          r->lanes[chosen].passed < SCHEDULE_BULK_EVERY))
            chosen = i;
    }
    return chosen;
}

static void count_passed(struct schedule_route *r, size_t chosen, enum lane lowest)
{
    r->lanes[chosen].passed = 0;
    for (size_t i = chosen + 1; i <= (size_t)lowest; i++) {
        if (r->lanes[i].ready.count > 0)
            r->lanes[i].passed++;
    }
}

struct schedule_entry *schedule_pick_from(struct schedule *s, uint32_t route, enum lane lowest,
                                          uint64_t now_ms)
{
    struct schedule_group *g;
    struct schedule_entry *e;
    size_t lane;

    if (route >= s->route_count)
        return NULL;
    lane = choose_lane(s->routes[route], lowest, now_ms);
    if (lane == LANE_COUNT)
        return NULL;
    count_passed(s->routes[route], lane, lowest);
    g = s->routes[route]->lanes[lane].ready.items[0];
    e = head_of(g);
    g->served = ++s->turn;
    schedule_remove(s, e);
    return e;
}

const struct schedule_entry *schedule_peek_from(struct schedule *s, uint32_t route,
                                                enum lane lowest, uint64_t now_ms)
{
    size_t lane;

    if (route >= s->route_count)
        return NULL;
    lane = choose_lane(s->routes[route], lowest, now_ms);
    return lane == LANE_COUNT ? NULL : head_of(s->routes[route]->lanes[lane].ready.items[0]);
}

struct schedule_entry *schedule_pick(struct schedule *s, uint32_t route, uint64_t now_ms)
{
    return schedule_pick_from(s, route, LANE_BULK, now_ms);
}

uint64_t schedule_next_due(const struct schedule *s, uint32_t route, uint64_t now_ms)
{
    return schedule_next_due_from(s, route, LANE_BULK, now_ms);
}

uint64_t schedule_next_due_from(const struct schedule *s, uint32_t route, enum lane lowest,
                                uint64_t now_ms)
{
    uint64_t next = SCHEDULE_NEVER;

    if (route >= s->route_count)
        return SCHEDULE_NEVER;
    for (size_t i = 0; i <= (size_t)lowest; i++) {
        const struct schedule_lane *l = &s->routes[route]->lanes[i];

        if (l->ready.count > 0)
            return now_ms;
        if (l->waiting.count > 0 && head_of(l->waiting.items[0])->due_ms < next)
            next = head_of(l->waiting.items[0])->due_ms;
    }
    return next;
}

size_t schedule_count(const struct schedule *s, uint32_t route, enum lane lane)
{
    if (route >= s->route_count || (unsigned)lane >= LANE_COUNT)
        return 0;
    return s->routes[route]->lanes[lane].entries;
}
