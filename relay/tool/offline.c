#include "relay/tool/offline.h"

#include <stdlib.h>
#include <string.h>

#include "queue/queue.h"
#include "relay/admin/api_json.h"
#include "relay/admin/json.h"
#include "relay/admin/spool_json.h"
#include "relay/base/clock.h"

/* An executor without threads: work() runs at once, done() when pump() is called. */
struct offline {
    struct queue *queue;
    struct queue_recovery found;
    char *dir;
    struct executor_job *first;
    struct executor_job **last;
    struct clock clock;
};

/* What the callback of an opened message has to do, and how that went. */
struct visit {
    struct offline *offline;
    uint64_t id;
    cJSON *json;
    bool whole; /* the message, as against its entry in a list */
    bool ok;
    struct queue_reader *reader; /* kept open for an export */
    struct error *err;
    http_sink *sink;
    void *ctx;
    bool end;
};

static void submit(void *ctx, enum executor_lane lane, struct executor_job *job)
{
    struct offline *o = ctx;

    (void)lane;
    job->work(job);
    job->next = NULL;
    *o->last = job;
    o->last = &job->next;
}

static void pump(struct offline *o)
{
    while (o->first != NULL) {
        struct executor_job *job = o->first;

        o->first = job->next;
        if (o->first == NULL)
            o->last = &o->first;
        job->done(job);
    }
}

static struct api_times times_of(const struct offline *o)
{
    return (struct api_times){.now_ms = clock_now_ms(&o->clock),
                              .wall_ms = clock_wall_ms(&o->clock)};
}

static bool open_queue(struct offline *o, struct error *err)
{
    struct queue_options options = {.dir = o->dir,
                                    .executor = {.ctx = o, .submit = submit},
                                    .now_ms = clock_now_ms(&o->clock),
                                    .wall_ms = clock_wall_ms(&o->clock),
                                    .read_only = true};

    o->queue = queue_open(&options, &o->found, err);
    pump(o);
    return o->queue != NULL;
}

struct offline *offline_open(const char *spool, struct error *err)
{
    struct offline *o = calloc(1, sizeof(*o));

    if (o != NULL)
        o->dir = strdup(spool);
    if (o == NULL || o->dir == NULL) {
        free(o);
        error_set(err, ERROR_NO_ROOM, "out of memory");
        return NULL;
    }
    o->last = &o->first;
    clock_init(&o->clock);
    if (open_queue(o, err))
        return o;
    offline_close(o);
    return NULL;
}

void offline_close(struct offline *o)
{
    if (o == NULL)
        return;
    pump(o);
    queue_close(o->queue);
    free(o->dir);
    free(o);
}

static bool no_memory(struct error *err)
{
    return error_set(err, ERROR_NO_ROOM, "out of memory");
}

static bool find(const struct offline *o, uint64_t id, struct queue_info *out, struct error *err)
{
    char text[QUEUE_ID_TEXT];

    if (queue_find(o->queue, id, out))
        return true;
    queue_id_text(id, text);
    return error_set(err, ERROR_MISSING, "there is no message %s in the spool", text);
}

/* ---- shapes ---------------------------------------------------------------------------------- */

static void on_visit(void *ctx, struct queue_reader *r, const struct envelope *e,
                     const struct error *err)
{
    struct visit *v = ctx;
    struct api_times times = times_of(v->offline);
    struct queue_info info;

    if (err != NULL && v->whole)
        *v->err = *err;
    else if (find(v->offline, v->id, &info, v->err)) {
        v->json = v->whole ? api_json_message(&info, e, &times, NULL)
                           : api_json_entry(&info, e, err, &times, NULL);
        v->ok = v->json != NULL || no_memory(v->err);
    }
    queue_reader_close(r);
}

static cJSON *visit(struct offline *o, uint64_t id, bool whole, struct error *err)
{
    struct visit v = {.offline = o, .id = id, .whole = whole, .err = err};

    queue_reader_open(o->queue, id, on_visit, &v);
    pump(o);
    return v.json;
}

cJSON *offline_message(struct offline *o, uint64_t id, struct error *err)
{
    struct queue_info info;

    return find(o, id, &info, err) ? visit(o, id, true, err) : NULL;
}

static bool is_wanted(const char *state, const struct queue_info *info)
{
    return state == NULL || strcmp(queue_state_name(info->state), state) == 0;
}

static uint64_t wanted_total(const struct offline *o, const char *state)
{
    struct queue_counts counts;

    queue_counts(o->queue, &counts);
    for (int i = 0; state != NULL && i < QUEUE_GONE; i++)
        if (strcmp(queue_state_name((enum queue_state)i), state) == 0)
            return counts.state[i];
    return api_json_total(&counts);
}

cJSON *offline_page(struct offline *o, const char *state, uint64_t after, uint32_t limit,
                    struct error *err)
{
    cJSON *list = cJSON_CreateArray();
    struct queue_info info = {.id = after};
    cJSON *page;

    for (uint32_t i = 0; i < limit && queue_list(o->queue, info.id, &info);) {
        if (!is_wanted(state, &info))
            continue;
        if (!json_append(list, visit(o, info.id, false, err))) {
            cJSON_Delete(list);
            return NULL;
        }
        i++;
    }
    after = info.id;
    page =
        api_json_page(list, wanted_total(o, state), queue_list(o->queue, after, &info) ? after : 0);
    if (page == NULL)
        no_memory(err);
    return page;
}

/* ---- the spool itself ------------------------------------------------------------------------ */

cJSON *offline_stats(struct offline *o, struct error *err)
{
    struct queue_counts counts;
    struct queue_stats stats;
    cJSON *json;

    queue_counts(o->queue, &counts);
    queue_stats(o->queue, &stats);
    json = spool_json_stats(&counts, &stats, &o->found);
    if (json == NULL)
        no_memory(err);
    return json;
}

static void on_verified(void *ctx, const struct queue_verified *result, const struct error *err)
{
    struct visit *v = ctx;

    v->ok = err == NULL;
    if (err != NULL)
        *v->err = *err;
    else
        v->json = spool_json_verified(result);
}

cJSON *offline_check(struct offline *o, const char *cursor, struct error *err)
{
    struct visit v = {.offline = o, .err = err};
    struct queue_cursor from;

    if (!spool_cursor_parse(cursor, &from)) {
        error_set(err, ERROR_INVALID, "\"%s\" is no place in the spool", cursor);
        return NULL;
    }
    queue_verify(o->queue, &from, on_verified, &v);
    pump(o);
    if (v.ok && v.json == NULL)
        no_memory(err);
    return v.json;
}

/* ---- export ---------------------------------------------------------------------------------- */

static void on_export_opened(void *ctx, struct queue_reader *r, const struct envelope *e,
                             const struct error *err)
{
    struct visit *v = ctx;

    (void)e;
    v->reader = r;
    if (err != NULL)
        *v->err = *err;
}

static void on_block(void *ctx, const uint8_t *data, size_t len, const struct error *err)
{
    struct visit *v = ctx;

    v->end = len == 0 || err != NULL;
    v->ok = err == NULL;
    if (err != NULL)
        *v->err = *err;
    else if (len > 0)
        v->ok = v->sink(v->ctx, data, len, v->err);
}

bool offline_export(struct offline *o, uint64_t id, http_sink *sink, void *ctx, struct error *err)
{
    struct visit v = {.offline = o, .id = id, .err = err, .sink = sink, .ctx = ctx};
    struct queue_info info;

    if (!find(o, id, &info, err))
        return false;
    queue_reader_open(o->queue, id, on_export_opened, &v);
    pump(o);
    if (v.reader == NULL)
        return false;
    do {
        v.ok = false;
        queue_read(v.reader, on_block, &v);
        pump(o);
    } while (v.ok && !v.end);
    queue_reader_close(v.reader);
    pump(o);
    return v.ok;
}
