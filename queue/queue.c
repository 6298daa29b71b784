#include "queue/queue.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/restore.h"
#include "queue/spool.h"
#include "queue/spooldir.h"

#define SEGMENT_DEFAULT    (16u * 1024u * 1024u)
#define SEGMENT_SMALL      (4u * 1024u * 1024u)
#define SMALL_DISK_BYTES   (4ull * 1024u * 1024u * 1024u) /* free */
#define SUBDIRECTORY_SPACE 32

static const char *const state_names[] = {"queued", "uncertain", "held", "dead", "gone"};

_Static_assert(sizeof(state_names) / sizeof(state_names[0]) == QUEUE_GONE + 1, "a name each");

const char *queue_state_name(enum queue_state state)
{
    return (unsigned)state <= QUEUE_GONE ? state_names[state] : "unknown";
}

void queue_id_text(uint64_t id, char out[QUEUE_ID_TEXT])
{
    snprintf(out, QUEUE_ID_TEXT, "%04" PRIx64, id);
}

void queue_size_text(uint64_t octets, char out[QUEUE_SIZE_TEXT])
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    double size = (double)octets;
    size_t unit = 0;
    while (size >= 1023.5 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        size /= 1024;
        unit++;
    }
    double tenths = size - (double)(uint64_t)size;
    bool round = tenths < 0.05 || tenths >= 0.95;
    snprintf(out, QUEUE_SIZE_TEXT, size < 99.95 && !round ? "%.1f %s" : "%.0f %s", size,
             units[unit]);
}

bool queue_id_parse(const char *text, uint64_t *out_id)
{
    size_t len = strspn(text, "0123456789abcdefABCDEF");
    if (len == 0 || len >= QUEUE_ID_TEXT || text[len] != '\0')
        return false;
    *out_id = strtoull(text, NULL, 16);
    return true;
}

/* ---- open and close -------------------------------------------------------------------------- */

static bool set_paths(struct queue *q, const char *dir, struct error *err)
{
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    if (len == 0 || len + SUBDIRECTORY_SPACE >= SPOOL_PATH_MAX)
        return error_set(err, ERROR_INVALID, "spool directory: the path is empty or too long");
    int n = (int)len;
    snprintf(q->dir, sizeof(q->dir), "%.*s", n, dir);
    snprintf(q->journal_dir, sizeof(q->journal_dir), "%.*s/journal", n, dir);
    snprintf(q->content_dir, sizeof(q->content_dir), "%.*s/content", n, dir);
    snprintf(q->damaged_dir, sizeof(q->damaged_dir), "%.*s/damaged", n, dir);
    return true;
}

static uint32_t segment_size(const struct queue *q, uint64_t wanted)
{
    if (wanted == 0)
        wanted =
            q->space_known && q->free_bytes < SMALL_DISK_BYTES ? SEGMENT_SMALL : SEGMENT_DEFAULT;
    if (wanted < SEGMENT_SIZE_MIN)
        wanted = SEGMENT_SIZE_MIN;
    if (wanted > SEGMENT_SIZE_MAX)
        wanted = SEGMENT_SIZE_MAX;
    return (uint32_t)(wanted / SEGMENT_BLOCK * SEGMENT_BLOCK);
}

static void set_options(struct queue *q, const struct queue_options *o)
{
    q->ops = o->ops ? o->ops : &fileops_system;
    q->lock_fd = -1;
    q->writers_end = &q->writers;
    q->read_only = o->read_only;
    q->max_bytes = o->max_bytes;
    q->min_free_bytes = o->min_free_bytes;
    q->uncertain_wait_ms = o->uncertain_wait_ms;
    q->uncertain_wait_urgent_ms = o->uncertain_wait_urgent_ms;
    q->now_ms = o->now_ms;
    q->wall_ms = o->wall_ms;
    names_init(&q->devices);
}

static bool make_parts(struct queue *q, const struct queue_options *o, struct error *err)
{
    q->tasks = tasks_new(&o->executor);
    q->schedule = schedule_new();
    if (!q->tasks || !q->schedule || !upkeep_init(q))
        return error_set(err, ERROR_NO_ROOM, "no memory for the queue");
    q->segment_size = segment_size(q, o->segment_size);
    struct journal_options options = {
        .ops = q->ops,
        .dir = q->journal_dir,
        .tasks = q->tasks,
        .segment_size = q->segment_size,
        .now_ms = q->now_ms,
        .wall_ms = q->wall_ms,
    };
    q->journal = journal_new(&options);
    return q->journal || error_set(err, ERROR_NO_ROOM, "no memory for the journal");
}

static void free_messages(struct queue *q)
{
    struct idtree_node *node;
    while ((node = q->messages.root) != NULL) {
        struct message *m = spool_find(q, node->key);
        spool_detach(q, m);
        spool_free_message(q, m);
    }
}

static void queue_free(struct queue *q)
{
    free_messages(q);
    upkeep_done(q);
    journal_free(q->journal);
    schedule_free(q->schedule);
    names_done(&q->devices);
    tasks_free(q->tasks);
    if (q->lock_fd >= 0)
        (void)q->ops->close(q->ops->ctx, q->lock_fd);
    free(q);
}

struct queue *queue_open(const struct queue_options *options, struct queue_recovery *out_recovery,
                         struct error *err)
{
    struct queue_recovery found = {0};
    struct error unused = ERROR_INIT;
    struct queue *q = calloc(1, sizeof(*q));
    err = err ? err : &unused;
    if (!q) {
        error_set(err, ERROR_NO_ROOM, "no memory for the queue");
        return NULL;
    }
    set_options(q, options);
    bool ok = set_paths(q, options->dir, err) && spooldir_lock(q, err) &&
              make_parts(q, options, err) && restore_messages(q, &found, err);
    if (!ok) {
        if (err->kind != ERROR_BUSY)
            error_wrap(err, "spool %s", options->dir);
        queue_free(q);
        return NULL;
    }
    if (out_recovery)
        *out_recovery = found;
    return q;
}

void queue_close(struct queue *q)
{
    if (!q)
        return;
    tasks_finish(q->tasks);
    if (!q->read_only)
        journal_close(q->journal);
    writer_remove_doomed(q, true);
    assert(q->opened == 0);
    queue_free(q);
}

/* ---- sending --------------------------------------------------------------------------------- */

static void copy_info(const struct queue *q, const struct message *m, struct queue_info *out)
{
    bool waits = m->state == QUEUE_QUEUED || m->state == QUEUE_UNCERTAIN;
    *out = (struct queue_info){
        .id = message_id(m),
        .state = (enum queue_state)m->state,
        .lane = (enum lane)m->lane,
        .in_flight = m->leased,
        .in_doubt = m->in_doubt,
        .damaged = m->damaged,
        .large = m->large,
        .attempts = m->attempts,
        .losses = m->losses,
        .recipients = m->recipients,
        .size = m->size,
        .arrived_ms = m->arrived_ms,
        .since_ms = m->since_ms,
        .has_outcomes = m->places[PLACE_OUTCOMES].segment != NULL,
        .due_ms = waits && !m->leased ? m->entry.due_ms : SCHEDULE_NEVER,
        .tried_ms = m->tried_ms,
        .route = schedule_route_name(q->schedule, m->route),
        .device = m->device->text,
        .part = m->part ? *m->part : (struct record_part){.kind = RECORD_WHOLE},
    };
}

static void set_lease(struct queue *q, struct message *m, bool leased)
{
    struct message_change to = spool_change(m);
    to.leased = leased;
    spool_set(q, m, &to);
}

bool queue_pick_from(struct queue *q, uint32_t route, enum lane lowest, uint64_t now_ms,
                     struct queue_info *out_info)
{
    struct schedule_entry *entry = schedule_pick_from(q->schedule, route, lowest, now_ms);
    if (!entry)
        return false;
    struct message *m = (struct message *)((char *)entry - offsetof(struct message, entry));
    set_lease(q, m, true);
    copy_info(q, m, out_info);
    return true;
}

bool queue_peek_from(struct queue *q, uint32_t route, enum lane lowest, uint64_t now_ms,
                     struct queue_info *out_info)
{
    const struct schedule_entry *entry = schedule_peek_from(q->schedule, route, lowest, now_ms);
    if (!entry)
        return false;
    copy_info(q, (const struct message *)((const char *)entry - offsetof(struct message, entry)),
              out_info);
    return true;
}

bool queue_lease(struct queue *q, uint64_t id, struct queue_info *out_info)
{
    struct message *m = spool_find(q, id);
    if (!m || m->leased || m->damaged || m->state != QUEUE_QUEUED)
        return false;
    set_lease(q, m, true);
    spool_schedule(q, m, SCHEDULE_NEVER);
    copy_info(q, m, out_info);
    return true;
}

bool queue_pick(struct queue *q, uint32_t route, uint64_t now_ms, struct queue_info *out_info)
{
    return queue_pick_from(q, route, LANE_BULK, now_ms, out_info);
}

uint64_t queue_next_due_from(const struct queue *q, uint32_t route, enum lane lowest,
                             uint64_t now_ms)
{
    return schedule_next_due_from(q->schedule, route, lowest, now_ms);
}

uint64_t queue_next_due(const struct queue *q, uint32_t route, uint64_t now_ms)
{
    return queue_next_due_from(q, route, LANE_BULK, now_ms);
}

size_t queue_waiting(const struct queue *q, uint32_t route)
{
    size_t count = 0;
    for (int lane = 0; lane < LANE_COUNT; lane++)
        count += schedule_count(q->schedule, route, (enum lane)lane);
    return count;
}

bool queue_route(struct queue *q, const char *name, uint32_t *out_route)
{
    return schedule_route(q->schedule, name, out_route);
}

uint32_t queue_route_count(const struct queue *q)
{
    return schedule_route_count(q->schedule);
}

const char *queue_route_name(const struct queue *q, uint32_t route)
{
    return schedule_route_name(q->schedule, route);
}

static void report_no_memory(queue_done_fn *done, void *ctx)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_NO_ROOM, "no memory for a journal record");
    if (done)
        done(ctx, &err);
}

static struct message *find_leased(const struct queue *q, uint64_t id)
{
    struct message *m = spool_find(q, id);
    assert(m && m->leased);
    return m;
}

void queue_doubt(struct queue *q, uint64_t id, uint64_t wall_ms, queue_done_fn *done, void *ctx)
{
    if (!spool_write_doubt(q, find_leased(q, id), wall_ms, done, ctx))
        report_no_memory(done, ctx);
}

/* The outcome could not be written down for want of memory: as after a crash, it waits as
 * uncertain. */
static void settle_failed(struct queue *q, struct message *m, queue_done_fn *done, void *ctx)
{
    struct message_change to = spool_change(m);
    to.state = m->damaged ? QUEUE_HELD : QUEUE_UNCERTAIN;
    spool_set(q, m, &to);
    spool_count_loss(m);
    spool_schedule(q, m, q->now_ms + spool_uncertain_wait(q, m));
    report_no_memory(done, ctx);
}

static void settle_gone(struct queue *q, struct message *m, queue_done_fn *done, void *ctx)
{
    if (!spool_write_gone(q, m, done, ctx))
        settle_failed(q, m, done, ctx);
}

static void settle_state(struct queue *q, struct message *m, const struct queue_attempt *a,
                         queue_done_fn *done, void *ctx)
{
    struct bytes outcomes;
    struct message_change to = spool_change(m);
    bytes_init(&outcomes, SEGMENT_BODY_MAX);
    to.state = m->damaged ? QUEUE_HELD : a->state;
    spool_set(q, m, &to);
    m->attempts += a->counts;
    if (a->lost)
        spool_count_loss(m);
    m->tried_ms = a->tried_ms;
    m->revived = false;
    if (envelope_encode_outcomes(a->envelope, &outcomes) &&
        spool_write_state(q, m, a->wait_ms, q->wall_ms, &outcomes, done, ctx))
        spool_schedule(q, m, q->now_ms + a->wait_ms);
    else
        settle_failed(q, m, done, ctx);
    bytes_done(&outcomes);
}

void queue_settle(struct queue *q, uint64_t id, const struct queue_attempt *attempt,
                  uint64_t now_ms, uint64_t wall_ms, queue_done_fn *done, void *ctx)
{
    struct message *m = find_leased(q, id);
    q->now_ms = now_ms;
    q->wall_ms = wall_ms;
    set_lease(q, m, false);
    m->in_doubt = false;
    if (attempt->state == QUEUE_GONE)
        settle_gone(q, m, done, ctx);
    else
        settle_state(q, m, attempt, done, ctx);
}

void queue_release(struct queue *q, uint64_t id, uint64_t due_ms)
{
    struct message *m = find_leased(q, id);
    assert(!m->in_doubt);
    set_lease(q, m, false);
    spool_schedule(q, m, due_ms);
}

/* ---- looking and operating ------------------------------------------------------------------- */

bool queue_find(const struct queue *q, uint64_t id, struct queue_info *out_info)
{
    const struct message *m = spool_find(q, id);
    if (m)
        copy_info(q, m, out_info);
    return m != NULL;
}

uint64_t queue_device_bytes(const struct queue *q, const char *device)
{
    const struct name *name = names_find(&q->devices, device);
    return name ? name->number : 0;
}

bool queue_list(const struct queue *q, uint64_t after, struct queue_info *out_info)
{
    const struct idtree_node *node = idtree_next(&q->messages, after);
    return node && queue_find(q, node->key, out_info);
}

static struct message *find_operable(const struct queue *q, uint64_t id, struct error *err)
{
    struct message *m = spool_find(q, id);
    if (q->read_only)
        error_set(err, ERROR_INVALID, "the spool is open for reading only");
    else if (!m)
        error_set(err, ERROR_MISSING, "there is no message %04" PRIx64 " in the queue", id);
    else if (m->leased)
        error_set(err, ERROR_BUSY, "message %04" PRIx64 " is being sent just now", id);
    else
        return m;
    return NULL;
}

bool queue_retry(struct queue *q, uint64_t id, uint64_t now_ms, uint64_t wall_ms, struct error *err)
{
    struct message *m = find_operable(q, id, err);
    if (!m)
        return false;
    if (m->damaged)
        return error_set(err, ERROR_DAMAGED,
                         "message %04" PRIx64 " does not verify any more: export it instead", id);
    q->now_ms = now_ms;
    q->wall_ms = wall_ms;
    struct message_change to = spool_change(m);
    bool revived = m->revived;
    m->revived = revived || m->state == QUEUE_DEAD;
    uint64_t tried_ms = m->tried_ms;
    m->tried_ms = m->state == QUEUE_DEAD ? 0 : tried_ms;
    struct message_change before = to;
    to.state = QUEUE_QUEUED;
    spool_set(q, m, &to);
    if (!spool_write_state(q, m, 0, wall_ms, NULL, NULL, NULL)) {
        spool_set(q, m, &before);
        m->revived = revived;
        m->tried_ms = tried_ms;
        return error_set(err, ERROR_NO_ROOM, "no memory for a journal record");
    }
    spool_schedule(q, m, now_ms);
    return true;
}

bool queue_delete(struct queue *q, uint64_t id, queue_done_fn *done, void *ctx, struct error *err)
{
    struct message *m = find_operable(q, id, err);
    if (!m)
        return false;
    return spool_write_gone(q, m, done, ctx) ||
           error_set(err, ERROR_NO_ROOM, "no memory for a journal record");
}

void queue_counts(const struct queue *q, struct queue_counts *out)
{
    struct journal_stats stats;
    journal_stats(q->journal, &stats);
    *out = (struct queue_counts){
        .in_flight = q->in_flight,
        .damaged = q->damaged,
        .living_bytes = q->living_bytes,
        .disk_bytes = stats.bytes + q->content_bytes,
        .free_bytes = q->free_bytes,
        .flushes = stats.flushes,
        .commits = q->commits,
        .segments = stats.segments,
        .unmarked = q->unmarked,
        .full = q->full[false],
        .full_urgent = q->full[true],
        .failing = stats.failing,
        .failure_errnum = stats.errnum,
    };
    memcpy(out->state, q->states, sizeof(out->state));
    memcpy(out->lane, q->lanes, sizeof(out->lane));
    memcpy(out->failure, journal_failure(q->journal), strlen(journal_failure(q->journal)) + 1);
}

void queue_stats(const struct queue *q, struct queue_stats *out)
{
    struct journal_stats stats;
    journal_stats(q->journal, &stats);
    *out = (struct queue_stats){
        .segments = stats.segments,
        .segment_size = q->segment_size,
        .journal_bytes = stats.bytes,
        .journal_living = q->living_journal,
        .journal_written = stats.written,
        .carried = q->carried,
        .bodies = q->bodies,
        .body_bytes = q->content_bytes,
        .max_bytes = q->max_bytes,
        .min_free_bytes = q->min_free_bytes,
        .total_bytes = q->space_known ? q->total_bytes : 0,
    };
}

static void watch_journal(struct queue *q)
{
    bool failing = *journal_failure(q->journal) != '\0';
    if (failing && !q->failing)
        q->failing_since = q->now_ms;
    q->failing = failing;
}

void queue_tick(struct queue *q, uint64_t now_ms, uint64_t wall_ms)
{
    q->now_ms = now_ms;
    q->wall_ms = wall_ms;
    if (q->read_only)
        return;
    journal_tick(q->journal, now_ms, wall_ms);
    watch_journal(q);
    upkeep_tick(q);
    room_update(q, true);
}
