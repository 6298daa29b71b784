#include "relay/intake/join.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/base/log.h"
#include "relay/base/quiet.h"
#include "relay/intake/join_job.h"

#define PARTS_FIRST 8

struct part {
    uint64_t id;
    uint32_t number;
    bool stored; /* durable */
};

struct group {
    struct group *next;
    uint64_t number; /* in the queue's records; never used again */
    uint64_t kin;
    char device[CONFIG_NAME_MAX + NET_TEXT_MAX];
    uint32_t total; /* 0 = not known yet */
    uint64_t expires_ms;
    uint64_t retry_ms;
    struct part *parts; /* in the order of their numbers */
    size_t count;
    size_t room;
};

struct join {
    struct join_settings set;
    struct group *groups;
    size_t group_count;
    struct group *joining; /* in the list too */
    struct join_job *job;
    uint64_t ids[JOIN_PARTS_MAX]; /* of the job */
    struct quiet refusals;
    bool stopping;
};

static void join_next(struct join *j);

static uint64_t now_of(const struct join *j)
{
    return clock_now_ms(j->set.clock);
}

/* ---- groups ---------------------------------------------------------------------------------- */

/* False also when the device has as many as one device may have: others split their mail, too. */
static bool has_place(const struct join *j, const char *device)
{
    size_t of_device = 0;
    for (const struct group *g = j->groups; g != NULL; g = g->next)
        of_device += strcmp(g->device, device) == 0;
    return j->group_count < JOIN_GROUPS_MAX && of_device < JOIN_DEVICE_MAX;
}

static struct group *group_new(struct join *j, uint64_t number, uint64_t kin, const char *device)
{
    struct group *g = has_place(j, device) ? calloc(1, sizeof *g) : NULL;
    if (g == NULL)
        return NULL;
    g->number = number;
    g->kin = kin;
    snprintf(g->device, sizeof g->device, "%s", device);
    g->next = j->groups;
    j->groups = g;
    j->group_count++;
    return g;
}

static void group_free(struct join *j, struct group *g)
{
    struct group **at = &j->groups;
    while (*at != g)
        at = &(*at)->next;
    *at = g->next;
    j->group_count--;
    free(g->parts);
    free(g);
}

static bool group_add(struct group *g, uint64_t id, uint32_t number, bool stored)
{
    size_t at = g->count;
    if (g->count == g->room) {
        size_t room = g->room > 0 ? g->room * 2 : PARTS_FIRST;
        struct part *parts = realloc(g->parts, room * sizeof *parts);
        if (parts == NULL)
            return false;
        g->parts = parts;
        g->room = room;
    }
    for (; at > 0 && g->parts[at - 1].number > number; at--)
        g->parts[at] = g->parts[at - 1];
    g->parts[at] = (struct part){.id = id, .number = number, .stored = stored};
    g->count++;
    return true;
}

static void group_drop(struct group *g, size_t at)
{
    g->count--;
    memmove(g->parts + at, g->parts + at + 1, (g->count - at) * sizeof *g->parts);
}

static bool group_has(const struct group *g, uint32_t number)
{
    for (size_t i = 0; i < g->count; i++) {
        if (g->parts[i].number == number)
            return true;
    }
    return false;
}

static bool group_is_complete(const struct group *g)
{
    if (g->total == 0 || g->count != g->total)
        return false;
    for (size_t i = 0; i < g->count; i++) {
        if (!g->parts[i].stored)
            return false;
    }
    return true;
}

static struct group *find_kin(const struct join *j, uint64_t kin, const char *device)
{
    struct group *g = j->groups;
    while (g != NULL && (g->kin != kin || strcmp(g->device, device) != 0))
        g = g->next;
    return g;
}

static struct group *find_number(const struct join *j, uint64_t number)
{
    struct group *g = j->groups;
    while (g != NULL && g->number != number)
        g = g->next;
    return g;
}

static struct group *find_part(const struct join *j, uint64_t id, size_t *out_at)
{
    for (struct group *g = j->groups; g != NULL; g = g->next) {
        for (size_t i = 0; i < g->count; i++) {
            if (g->parts[i].id == id) {
                *out_at = i;
                return g;
            }
        }
    }
    return NULL;
}

/* ---- leaving as they came -------------------------------------------------------------------- */

/* Due at that time, unless it has left already or somebody sees to it. */
static void let_go(struct join *j, uint64_t id, uint64_t due_ms)
{
    struct queue_info info;
    if (queue_lease(j->set.queue, id, &info))
        queue_release(j->set.queue, id, due_ms);
}

static void log_not_joined(const struct group *g, const char *reason)
{
    log_event(LOG_LEVEL_WARN, "not-joined", LOG_ID("queue", g->count > 0 ? g->parts[0].id : 0),
              LOG_STR("device", g->device), LOG_U64("parts", g->count), LOG_U64("of", g->total),
              LOG_STR("reason", reason), LOG_STR("effect", "the parts leave as they came"),
              LOG_END);
}

static void give_up(struct join *j, struct group *g, const char *reason)
{
    log_not_joined(g, reason);
    for (size_t i = 0; i < g->count; i++) {
        if (g->parts[i].stored)
            let_go(j, g->parts[i].id, now_of(j));
    }
    group_free(j, g);
    j->set.on_queued(j->set.ctx);
}

static void expire(struct join *j, struct group *g)
{
    give_up(j, g,
            group_is_complete(g) ? "the spool could not take the whole for an hour"
                                 : "not all parts came within an hour");
}

/* ---- joining --------------------------------------------------------------------------------- */

static uint64_t max_size(void *ctx, const char *route)
{
    const struct join *j = ctx;
    uint64_t size = j->set.route_max_size(j->set.ctx, route);
    return size == 0 || size > CONFIG_SIZE_CEILING ? CONFIG_SIZE_CEILING : size;
}

/* All or none. One that was tried or deleted meanwhile is missing. */
static bool lease_parts(struct join *j, const struct group *g)
{
    struct queue_info info;
    for (size_t i = 0; i < g->count; i++) {
        bool leased = queue_lease(j->set.queue, g->parts[i].id, &info);
        if (leased && info.attempts == 0)
            continue;
        if (leased)
            queue_release(j->set.queue, g->parts[i].id, info.due_ms);
        while (i-- > 0)
            queue_release(j->set.queue, g->parts[i].id, g->expires_ms);
        return false;
    }
    return true;
}

static void release_parts(struct join *j, const struct group *g)
{
    for (size_t i = 0; i < g->count; i++)
        queue_release(j->set.queue, g->parts[i].id, g->expires_ms);
}

static void settle_parts(struct join *j, const struct group *g)
{
    static const struct queue_attempt gone = {.state = QUEUE_GONE};
    for (size_t i = 0; i < g->count; i++)
        queue_settle(j->set.queue, g->parts[i].id, &gone, now_of(j), clock_wall_ms(j->set.clock),
                     NULL, NULL);
}

/* What may pass is tried again; the parts wait in the meantime. */
static void job_failed(struct join *j, struct group *g, const struct error *err)
{
    if (err->kind != ERROR_NO_ROOM && err->kind != ERROR_IO) {
        give_up(j, g, err->text);
        return;
    }
    g->retry_ms = now_of(j) + JOIN_RETRY_MS;
    log_event(LOG_LEVEL_WARN, "join-waits", LOG_ID("queue", g->parts[0].id),
              LOG_STR("device", g->device), LOG_STR("reason", err->text), LOG_END);
}

static void on_job_end(void *ctx, uint64_t id, uint64_t size, const struct error *err)
{
    struct join *j = ctx;
    struct group *g = j->joining;
    j->job = NULL;
    j->joining = NULL;
    if (err != NULL) {
        release_parts(j, g);
        job_failed(j, g, err);
    } else {
        settle_parts(j, g);
        log_event(LOG_LEVEL_INFO, "joined", LOG_ID("queue", id), LOG_U64("parts", g->count),
                  LOG_STR("device", g->device), LOG_U64("size", size),
                  LOG_ID("first", g->parts[0].id), LOG_END);
        group_free(j, g);
        j->set.on_queued(j->set.ctx);
    }
    join_next(j);
}

static void begin(struct join *j, struct group *g)
{
    struct error err = ERROR_INIT;
    if (!lease_parts(j, g)) {
        give_up(j, g, "a part has been tried or deleted meanwhile");
        return;
    }
    for (size_t i = 0; i < g->count; i++)
        j->ids[i] = g->parts[i].id;
    const struct join_job_settings settings = {.queue = j->set.queue,
                                               .clock = j->set.clock,
                                               .hostname = j->set.config->hostname,
                                               .charset = j->set.config->charset,
                                               .max_size = max_size,
                                               .group = g->number,
                                               .ids = j->ids,
                                               .count = g->count,
                                               .on_end = on_job_end,
                                               .ctx = j};
    j->job = join_job_start(&settings, &err);
    if (j->job != NULL) {
        j->joining = g;
        return;
    }
    release_parts(j, g);
    job_failed(j, g, &err);
}

static struct group *next_complete(const struct join *j)
{
    struct group *g = j->groups;
    while (g != NULL && (!group_is_complete(g) || g->retry_ms > now_of(j)))
        g = g->next;
    return g;
}

static void join_next(struct join *j)
{
    struct group *g;
    while (!j->stopping && j->job == NULL && (g = next_complete(j)) != NULL)
        begin(j, g);
}

/* ---- admission ------------------------------------------------------------------------------- */

static bool refuse(struct join *j, uint64_t id, const struct envelope *e, const char *reason)
{
    uint64_t held = 0;
    if (quiet_may_tell(&j->refusals, now_of(j), &held))
        log_event(LOG_LEVEL_WARN, "not-joined", LOG_ID("queue", id), LOG_STR("device", e->device),
                  LOG_U64("part", e->partial_number), LOG_U64("of", e->partial_total),
                  LOG_STR("reason", reason), LOG_STR("effect", "the part leaves as it came"),
                  LOG_U64("more", held), LOG_END);
    return false;
}

/* Why it cannot be one of the group; NULL when it can. */
static const char *misfit(const struct group *g, const struct envelope *e)
{
    uint32_t total = e->partial_total != 0 ? e->partial_total : g->total;
    if (e->partial_total != 0 && g->total != 0 && e->partial_total != g->total)
        return "the parts do not agree on how many there are";
    if (group_has(g, e->partial_number))
        return "a part with this number waits already";
    if (total != 0 &&
        (e->partial_number > total || (g->count > 0 && g->parts[g->count - 1].number > total)))
        return "there is a part with a number above the last one's";
    return NULL;
}

/* The group that it may enter. A wait that is over ends before a new one begins. */
static struct group *group_for(struct join *j, uint64_t id, const struct envelope *e, uint64_t kin)
{
    struct group *g = find_kin(j, kin, e->device);
    if (g != NULL && g != j->joining && g->expires_ms <= now_of(j)) {
        expire(j, g);
        g = NULL;
    }
    if (g != NULL)
        return g;
    g = group_new(j, id, kin, e->device);
    if (g != NULL)
        g->expires_ms = now_of(j) + JOIN_WAIT_MS;
    return g;
}

static bool is_possible(const struct envelope *e)
{
    return e->header_size > 0 && e->partial_number <= JOIN_PARTS_MAX &&
           e->partial_total <= JOIN_PARTS_MAX;
}

bool join_admit(struct join *j, uint64_t id, struct envelope *e)
{
    uint64_t kin = join_kin(e);
    if (j == NULL || e->partial_number == 0)
        return false;
    if (!is_possible(e))
        return refuse(j, id, e, "there are more parts than are joined");
    struct group *g = group_for(j, id, e, kin);
    if (g == NULL)
        return refuse(j, id, e, "too many split mails wait for their parts");
    const char *reason = misfit(g, e);
    if (reason == NULL && !group_add(g, id, e->partial_number, false))
        reason = "out of memory";
    if (reason != NULL) {
        if (g->count == 0)
            group_free(j, g);
        return refuse(j, id, e, reason);
    }
    if (e->partial_total != 0)
        g->total = e->partial_total;
    e->partial_group = g->number;
    e->partial_kin = kin;
    e->partial_wait_ms = g->expires_ms > now_of(j) ? g->expires_ms - now_of(j) : 0;
    return true;
}

void join_stored(struct join *j, uint64_t id, bool ok)
{
    size_t at;
    struct group *g = find_part(j, id, &at);
    if (g == NULL) { /* its group was given up meanwhile */
        if (ok)
            let_go(j, id, now_of(j));
        return;
    }
    if (ok) {
        g->parts[at].stored = true;
        join_next(j);
        return;
    }
    group_drop(g, at);
    if (g->count == 0)
        group_free(j, g);
}

/* ---- life ------------------------------------------------------------------------------------ */

/* One that the queue holds since an earlier run. What fits nowhere leaves when its wait is over. */
static void recall(struct join *j, const struct queue_info *info)
{
    const struct record_part *p = &info->part;
    struct group *g = find_number(j, p->group);
    if (g == NULL)
        g = group_new(j, p->group, p->kin, info->device);
    if (g == NULL || group_has(g, p->number) || g->count == JOIN_PARTS_MAX)
        return;
    if (!group_add(g, info->id, p->number, true))
        return;
    if (p->total != 0 && p->total <= JOIN_PARTS_MAX)
        g->total = p->total;
    if (g->count == 1 || info->due_ms < g->expires_ms)
        g->expires_ms = info->due_ms;
}

static void recall_all(struct join *j)
{
    struct queue_info info;
    for (uint64_t after = 0; queue_list(j->set.queue, after, &info); after = info.id) {
        if (info.part.kind == RECORD_FRAGMENT && info.state == QUEUE_QUEUED && !info.damaged &&
            info.attempts == 0)
            recall(j, &info);
    }
}

/* Their wait ended before this run, or ends with it: they are due by themselves. */
static void forget_expired(struct join *j)
{
    struct group *next;
    for (struct group *g = j->groups; g != NULL; g = next) {
        next = g->next;
        if (g->expires_ms <= now_of(j) && !group_is_complete(g))
            group_free(j, g);
    }
}

struct join *join_new(const struct join_settings *settings)
{
    struct join *j = calloc(1, sizeof *j);
    if (j == NULL)
        return NULL;
    j->set = *settings;
    recall_all(j);
    forget_expired(j);
    join_next(j);
    return j;
}

void join_stop(struct join *j)
{
    if (j == NULL)
        return;
    j->stopping = true;
    if (j->job == NULL || join_job_is_committing(j->job))
        return;
    join_job_free(j->job);
    j->job = NULL;
    release_parts(j, j->joining);
    j->joining = NULL;
}

void join_free(struct join *j)
{
    if (j == NULL)
        return;
    join_stop(j);
    join_job_free(j->job);
    while (j->groups != NULL)
        group_free(j, j->groups);
    free(j);
}

void join_tick(struct join *j)
{
    struct group *next;
    for (struct group *g = j->groups; g != NULL; g = next) {
        next = g->next;
        bool waits_its_turn = group_is_complete(g) && g->retry_ms == 0;
        if (g != j->joining && !waits_its_turn && g->expires_ms <= now_of(j))
            expire(j, g);
    }
    join_next(j);
}
