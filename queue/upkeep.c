/*
 * What the queue does by itself, about once a second: measuring free space, and carrying stragglers
 * forward so that the oldest segment can go.
 *
 * Stragglers are carried when the journal takes more than twice what lives in it and a few segments
 * besides. Their records are read and verified on a worker and appended again, MESSAGE before
 * STATE. A message is passed over while it is in doubt or anything of it is under way, also when
 * that began during the read: what was read may then be old. (One that is merely leased is carried:
 * a slow line may take hours for it.) What does not verify is carried too, marked as damaged; else
 * one bad record would keep every later segment from being removed. What cannot be read may be read
 * the next time; after a while it is treated as damaged for the same reason.
 */
#include <stdlib.h>
#include <string.h>

#include "queue/spool.h"

#define CARRY_MESSAGES 64
#define CARRY_BYTES    (1024u * 1024u)      /* of one round */
#define CARRY_TICK     (8u * 1024u * 1024u) /* from one tick to the next */
#define CARRY_SLACK    4                    /* segments */
#define CARRY_PATIENCE 60000                /* ms for what cannot be read */
#define CARRY_RAW_MAX  (SEGMENT_RECORD_HEADER + SEGMENT_HEAD_MAX + SEGMENT_BODY_MAX + SEGMENT_ALIGN)

/* A record that was read to be written again. */
struct carry_record {
    struct segfile_place place;
    struct segment_record record;
    struct bytes raw;
    bool ok; /* it verifies */
    enum error_kind failure;
};

struct carry_item {
    uint64_t id;
    bool has_outcomes;
    struct carry_record message;
    struct carry_record outcomes;
};

struct carry {
    struct queue *q;
    struct task *task;
    struct journal_segment *segment; /* held */
    struct carry_item items[CARRY_MESSAGES];
    size_t count;
    uint64_t bytes;
};

/* A copy being appended. */
struct carried {
    struct journal_record record; /* first */
    struct queue *q;
    struct message *m;
    uint64_t id;
    struct bytes raw; /* holds the body */
};

static void carry_begin(struct queue *q);

/* ---- free space ------------------------------------------------------------------------------ */

static void space_work(void *ctx)
{
    struct queue *q = ctx;
    q->measured_ok = q->ops->space(q->ops->ctx, q->dir, &q->measured) == 0;
}

static void space_done(void *ctx)
{
    struct queue *q = ctx;
    q->space_known = q->measured_ok;
    q->free_bytes = q->measured_ok ? q->measured.free_bytes : 0;
    q->total_bytes = q->measured.total_bytes;
}

/* ---- reading, on the worker ------------------------------------------------------------------ */

static void read_record(const struct queue *q, struct carry_record *r)
{
    struct error err = ERROR_INIT;
    bytes_init(&r->raw, CARRY_RAW_MAX);
    r->ok = segfile_read(q->ops, q->journal_dir, &r->place, &r->record, &r->raw, &err);
    r->failure = err.kind;
}

static void carry_work(void *ctx)
{
    struct carry *c = ctx;
    for (size_t i = 0; i < c->count; i++) {
        read_record(c->q, &c->items[i].message);
        if (c->items[i].has_outcomes)
            read_record(c->q, &c->items[i].outcomes);
    }
}

/* ---- appending ------------------------------------------------------------------------------- */

static void carried_done(struct journal_record *r, const struct error *err)
{
    struct carried *a = (struct carried *)r;
    struct queue *q = a->q;
    a->m->under_way--;
    if (!err) {
        a->m->head_len = r->head_len;
        q->carried++;
        spool_place(q, a->m, PLACE_MESSAGE, r->segment, r->offset, r->span);
    }
    bytes_done(&a->raw);
    free(a);
}

/* Head and body as they were; of a record that does not verify, the head as memory knows it and the
 * body as far as there is one. */
static void copy_record(struct carried *a, const struct carry_record *from)
{
    size_t head_len = from->ok ? from->record.head_len : a->m->head_len;
    size_t body_at = SEGMENT_RECORD_HEADER + head_len;
    size_t body_len = a->m->envelope_len + (a->m->large ? 0 : (size_t)a->m->size);
    uint8_t *head = journal_record_head(&a->record);
    if (from->ok && head_len <= RECORD_HEAD_MAX) {
        memcpy(head, a->raw.data + SEGMENT_RECORD_HEADER, head_len);
        a->record.head_len = (uint16_t)head_len;
        body_len = from->record.body_len;
    } else {
        struct record_message fields;
        spool_message_head(a->q, a->m, &fields);
        a->record.head_len = (uint16_t)record_encode_message(&fields, head);
    }
    size_t left = a->raw.len - body_at;
    a->record.body[0] = (struct iovec){a->raw.data + body_at, body_len < left ? body_len : left};
}

static bool append_copy(struct queue *q, struct message *m, struct carry_record *from)
{
    struct carried *a = calloc(1, sizeof(*a));
    if (!a)
        return false;
    a->q = q;
    a->m = m;
    a->id = message_id(m);
    a->raw = from->raw;
    bytes_init(&from->raw, CARRY_RAW_MAX);
    if (!from->ok)
        spool_mark_damaged(q, m);
    copy_record(a, from);
    a->record.type = SEGMENT_MESSAGE;
    a->record.id = a->id;
    a->record.done = carried_done;
    m->under_way++;
    journal_append(q->journal, &a->record);
    return true;
}

static uint64_t wait_left(const struct queue *q, const struct message *m)
{
    bool waits = m->state == QUEUE_QUEUED || m->state == QUEUE_UNCERTAIN;
    return waits && m->entry.due_ms > q->now_ms ? m->entry.due_ms - q->now_ms : 0;
}

static void append_state(struct queue *q, struct message *m, struct carry_item *item)
{
    struct bytes outcomes;
    const struct segment_record *r = &item->outcomes.record;
    bytes_init(&outcomes, SEGMENT_BODY_MAX);
    if (item->has_outcomes && item->outcomes.ok) {
        const uint8_t *body = item->outcomes.raw.data + SEGMENT_RECORD_HEADER + r->head_len;
        if (!bytes_append(&outcomes, body, r->body_len))
            return;
    } else if (item->has_outcomes) {
        spool_unplace(q, m, PLACE_OUTCOMES);
        spool_mark_damaged(q, m);
    }
    (void)spool_write_state(q, m, wait_left(q, m), q->wall_ms, &outcomes, NULL, NULL);
    bytes_done(&outcomes);
}

static bool same_place(const struct message *m, enum place_kind kind,
                       const struct carry_record *from)
{
    const struct place *p = &m->places[kind];
    return p->segment && p->segment->number == from->place.number &&
           p->offset == from->place.offset;
}

/* What cannot be read just now may be read later, and is not replaced by less until its time is
 * over. */
static bool usable(const struct queue *q, const struct message *m, const struct carry_record *r)
{
    bool over = q->stuck_segment == r->place.number && q->stuck_since != 0 &&
                q->now_ms - q->stuck_since >= CARRY_PATIENCE;
    return r->ok || r->failure == ERROR_DAMAGED ||
           (r->failure == ERROR_IO && (m->damaged || over) && r->raw.len == r->place.span);
}

static void note_stuck(struct queue *q, const struct carry_record *r)
{
    if (r->failure != ERROR_IO || r->ok || q->stuck_segment == r->place.number)
        return;
    q->stuck_segment = r->place.number;
    q->stuck_since = q->now_ms;
}

static bool at_rest(const struct message *m)
{
    return m->under_way == 0 && !m->in_doubt && !m->places[PLACE_DOUBT].segment;
}

/* Whether what was read is still what counts. */
static bool current(const struct message *m, const struct carry_item *item)
{
    bool has_outcomes = m->places[PLACE_OUTCOMES].segment != NULL;
    return at_rest(m) && same_place(m, PLACE_MESSAGE, &item->message) &&
           has_outcomes == item->has_outcomes &&
           (!has_outcomes || same_place(m, PLACE_OUTCOMES, &item->outcomes));
}

static bool carry_item(struct queue *q, struct carry_item *item)
{
    struct message *m = spool_find(q, item->id);
    if (!m || !current(m, item))
        return false;
    note_stuck(q, &item->message);
    if (item->has_outcomes)
        note_stuck(q, &item->outcomes);
    if (!usable(q, m, &item->message) || (item->has_outcomes && !usable(q, m, &item->outcomes)) ||
        !append_copy(q, m, &item->message))
        return false;
    if (m->places[PLACE_STATE].segment)
        append_state(q, m, item);
    return true;
}

static void carry_free(struct carry *c)
{
    for (size_t i = 0; i < c->count; i++) {
        bytes_done(&c->items[i].message.raw);
        bytes_done(&c->items[i].outcomes.raw);
    }
    task_free(c->task);
    free(c);
}

static void carry_done(void *ctx)
{
    struct carry *c = ctx;
    struct queue *q = c->q;
    bool any = false;
    for (size_t i = 0; i < c->count; i++)
        any = carry_item(q, &c->items[i]) || any;
    journal_drop(q->journal, c->segment);
    bool spent = !any || c->bytes >= q->carry_budget;
    q->carry_budget = spent ? 0 : q->carry_budget - c->bytes;
    q->carry = NULL;
    carry_free(c);
    carry_begin(q);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static bool too_much_dead(const struct queue *q)
{
    struct journal_stats stats;
    journal_stats(q->journal, &stats);
    uint64_t slack = (uint64_t)CARRY_SLACK * q->segment_size;
    return !stats.failing && stats.bytes > 2 * q->living_journal + slack;
}

static void choose(struct carry *c, const struct message *m)
{
    struct carry_item *item = &c->items[c->count++];
    item->id = message_id(m);
    item->message.place = spool_place_value(m, PLACE_MESSAGE);
    item->has_outcomes = m->places[PLACE_OUTCOMES].segment != NULL;
    c->bytes += item->message.place.span;
    if (!item->has_outcomes)
        return;
    item->outcomes.place = spool_place_value(m, PLACE_OUTCOMES);
    c->bytes += item->outcomes.place.span;
}

static bool is_full(const struct carry *c)
{
    return c->count == CARRY_MESSAGES || c->bytes >= CARRY_BYTES;
}

static void carry_begin(struct queue *q)
{
    struct journal_segment *s = journal_oldest(q->journal);
    if (q->carry || q->carry_budget == 0 || !s || !s->messages || !too_much_dead(q))
        return;
    struct carry *c = calloc(1, sizeof(*c));
    if (!c)
        return;
    c->q = q;
    for (struct message *m = s->messages; m && !is_full(c); m = m->segment_next)
        if (at_rest(m))
            choose(c, m);
    c->task = c->count > 0 ? task_new(q->tasks, carry_work, carry_done, c) : NULL;
    if (!c->task) {
        carry_free(c);
        return;
    }
    c->segment = s;
    journal_hold(s);
    q->carry = c;
    task_submit(c->task, EXECUTOR_CONTENT);
}

/* ---- life ------------------------------------------------------------------------------------ */

bool upkeep_init(struct queue *q)
{
    q->space_task = task_new(q->tasks, space_work, space_done, q);
    if (!q->space_task)
        return false;
    space_work(q);
    space_done(q);
    return true;
}

void upkeep_done(struct queue *q)
{
    task_free(q->space_task);
}

static void reschedule(struct queue *q)
{
    struct idtree_node *node = idtree_next(&q->messages, 0);
    for (; node && q->unscheduled > 0; node = idtree_next(&q->messages, node->key)) {
        struct message *m = spool_find(q, node->key);
        if (m->unscheduled)
            spool_schedule(q, m, m->entry.due_ms);
    }
}

/* As much as came in since the last tick may be carried on top, so that no rate of arrival outruns
 * it. */
static uint64_t written_since(struct queue *q)
{
    struct journal_stats stats;
    journal_stats(q->journal, &stats);
    uint64_t since = stats.written - q->carry_written;
    q->carry_written = stats.written;
    return since;
}

void upkeep_tick(struct queue *q)
{
    if (!task_under_way(q->space_task))
        task_submit(q->space_task, EXECUTOR_CONTENT);
    if (q->unscheduled > 0)
        reschedule(q);
    if (!*journal_failure(q->journal))
        writer_remove_doomed(q, false);
    q->carry_budget = CARRY_TICK + written_since(q);
    carry_begin(q);
}
