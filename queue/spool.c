#include "queue/spool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "queue/backoff.h"

_Static_assert(sizeof(struct message) <= 288, "with heap slot and allocator below 400 octets");

/* ---- messages in memory ---------------------------------------------------------------------- */

static struct message *of_node(struct idtree_node *node)
{
    return node ? (struct message *)((char *)node - offsetof(struct message, node)) : NULL;
}

struct message *spool_find(const struct queue *q, uint64_t id)
{
    return of_node(idtree_find(&q->messages, id));
}

uint64_t message_id(const struct message *m)
{
    return m->node.key;
}

static struct message *message_new(const struct record_part *part)
{
    struct message *m = calloc(1, sizeof(*m));
    if (!m || part->kind == RECORD_WHOLE)
        return m;
    m->part = malloc(sizeof(*m->part));
    if (m->part) {
        *m->part = *part;
        return m;
    }
    free(m);
    return NULL;
}

struct message *spool_message(struct queue *q, const struct record_message *head)
{
    uint32_t route;
    struct name *device = names_keep(&q->devices, head->device);
    struct message *m = message_new(&head->part);
    if (!m || !device || !schedule_route(q->schedule, head->route, &route)) {
        spool_free_message(q, m);
        return NULL;
    }
    m->device = device;
    m->route = route;
    m->lane = (uint8_t)head->lane;
    m->large = head->large;
    m->damaged = head->damaged;
    m->recipients = head->recipients;
    m->envelope_len = head->envelope_len;
    m->arrived_ms = head->arrived_ms;
    m->size = head->size;
    return m;
}

static bool waits(const struct message *m)
{
    return m->state == QUEUE_QUEUED || m->state == QUEUE_UNCERTAIN;
}

static void count(struct queue *q, const struct message *m, uint64_t by)
{
    q->states[m->state] += by;
    q->lanes[m->lane] += waits(m) ? by : 0;
    q->in_flight += m->leased ? by : 0;
    q->damaged += m->damaged ? by : 0;
}

void spool_add(struct queue *q, struct message *m, uint64_t id)
{
    idtree_insert(&q->messages, &m->node, id);
    count(q, m, 1);
    q->living_bytes += m->size;
    m->device->number += m->size;
    q->content_bytes += m->large ? m->size : 0;
    q->bodies += m->large;
}

void spool_detach(struct queue *q, struct message *m)
{
    if (m->entry.queued)
        schedule_remove(q->schedule, &m->entry);
    q->unscheduled -= m->unscheduled;
    m->unscheduled = false;
    idtree_remove(&q->messages, &m->node);
    count(q, m, UINT64_MAX);
    q->living_bytes -= m->size;
    m->device->number -= m->size;
    q->content_bytes -= m->large ? m->size : 0;
    q->bodies -= m->large;
}

void spool_free_message(struct queue *q, struct message *m)
{
    if (!m)
        return;
    for (int kind = 0; kind < PLACE_COUNT; kind++)
        spool_unplace(q, m, (enum place_kind)kind);
    free(m->part);
    free(m);
}

struct message_change spool_change(const struct message *m)
{
    return (struct message_change){
        .state = (enum queue_state)m->state, .leased = m->leased, .damaged = m->damaged};
}

void spool_set(struct queue *q, struct message *m, const struct message_change *to)
{
    count(q, m, UINT64_MAX);
    m->state = (uint8_t)to->state;
    m->leased = to->leased;
    m->damaged = to->damaged;
    count(q, m, 1);
}

void spool_count_loss(struct message *m)
{
    if (m->losses < UINT8_MAX)
        m->losses++;
}

uint64_t spool_uncertain_wait(const struct queue *q, const struct message *m)
{
    bool urgent = m->lane == LANE_URGENT && q->uncertain_wait_urgent_ms != 0;

    return backoff_loss(urgent ? q->uncertain_wait_urgent_ms : q->uncertain_wait_ms, m->losses);
}

void spool_schedule(struct queue *q, struct message *m, uint64_t due_ms)
{
    if (m->entry.queued)
        schedule_remove(q->schedule, &m->entry);
    q->unscheduled -= m->unscheduled;
    m->unscheduled = false;
    if (!waits(m) || m->leased || q->read_only) {
        m->entry.due_ms = waits(m) && !m->leased ? due_ms : SCHEDULE_NEVER;
        return;
    }
    if (!schedule_insert(q->schedule, &m->entry, m->route, (enum lane)m->lane, m->device->text,
                         due_ms, message_id(m))) {
        m->entry.due_ms = due_ms;
        m->unscheduled = true; /* upkeep tries again */
        q->unscheduled++;
    }
}

/* ---- places ---------------------------------------------------------------------------------- */

static void list_add(struct message *m, struct journal_segment *s)
{
    m->segment_prev = NULL;
    m->segment_next = s->messages;
    if (s->messages)
        s->messages->segment_prev = m;
    s->messages = m;
}

static void list_remove(struct message *m, struct journal_segment *s)
{
    if (m->segment_prev)
        m->segment_prev->segment_next = m->segment_next;
    else
        s->messages = m->segment_next;
    if (m->segment_next)
        m->segment_next->segment_prev = m->segment_prev;
}

/* The outcomes are, but for a retry's, in the record of the state. */
static uint32_t counted_span(const struct place *p, enum place_kind kind)
{
    return kind == PLACE_OUTCOMES ? 0 : p->span;
}

void spool_unplace(struct queue *q, struct message *m, enum place_kind kind)
{
    struct place *p = &m->places[kind];
    struct journal_segment *s = p->segment;
    if (!s)
        return;
    if (kind == PLACE_MESSAGE)
        list_remove(m, s);
    q->living_journal -= counted_span(p, kind);
    *p = (struct place){0};
    journal_drop(q->journal, s);
}

void spool_place(struct queue *q, struct message *m, enum place_kind kind,
                 struct journal_segment *segment, uint32_t offset, uint32_t span)
{
    journal_hold(segment);
    spool_unplace(q, m, kind);
    m->places[kind] = (struct place){.segment = segment, .offset = offset, .span = span};
    q->living_journal += counted_span(&m->places[kind], kind);
    if (kind == PLACE_MESSAGE)
        list_add(m, segment);
}

struct segfile_place spool_place_value(const struct message *m, enum place_kind kind)
{
    static const uint16_t types[PLACE_COUNT] = {SEGMENT_MESSAGE, SEGMENT_STATE, SEGMENT_STATE,
                                                SEGMENT_DOUBT};
    const struct place *p = &m->places[kind];
    return (struct segfile_place){
        .number = p->segment->number,
        .salt = p->segment->salt,
        .id = message_id(m),
        .offset = p->offset,
        .span = p->span,
        .type = types[kind],
    };
}

/* ---- records --------------------------------------------------------------------------------- */

struct append {
    struct journal_record record; /* first */
    struct queue *q;
    struct message *m;
    struct bytes body;
    queue_done_fn *done;
    void *ctx;
    struct task *removal; /* of GONE: takes the body away */
    uint64_t id;
};

const struct bytes *spool_outcomes_under_way(const struct message *m)
{
    return m->outcomes ? &m->outcomes->body : NULL;
}

static void append_free(struct append *a)
{
    task_free(a->removal);
    bytes_done(&a->body);
    free(a);
}

static struct append *append_new(struct queue *q, struct message *m, enum segment_type type,
                                 queue_done_fn *done, void *ctx)
{
    struct append *a = calloc(1, sizeof(*a));
    if (!a)
        return NULL;
    a->record.type = (uint16_t)type;
    a->record.id = a->id = message_id(m);
    a->q = q;
    a->m = m;
    a->done = done;
    a->ctx = ctx;
    return a;
}

static void append_submit(struct append *a)
{
    a->m->under_way++;
    journal_append(a->q->journal, &a->record);
}

static void append_end(struct append *a, const struct error *err)
{
    struct message *m = a->m;
    m->under_way--;
    if (m->outcomes == a)
        m->outcomes = NULL;
    if (a->done)
        a->done(a->ctx, err);
    append_free(a);
}

static void set_unmarked(struct queue *q, struct message *m, bool unmarked)
{
    q->unmarked += unmarked - m->unmarked;
    m->unmarked = unmarked;
}

static void state_done(struct journal_record *r, const struct error *err)
{
    struct append *a = (struct append *)r;
    if (!err) {
        spool_place(a->q, a->m, PLACE_STATE, r->segment, r->offset, r->span);
        if (r->body[0].iov_len > 0)
            spool_place(a->q, a->m, PLACE_OUTCOMES, r->segment, r->offset, r->span);
        spool_unplace(a->q, a->m, PLACE_DOUBT);
        if (!a->m->in_doubt)
            set_unmarked(a->q, a->m, false);
    }
    append_end(a, err);
}

static void fill_state(struct append *a, uint64_t wait_ms, uint64_t wall_ms, struct bytes *outcomes)
{
    const struct message *m = a->m;
    struct record_state head = {
        .state = m->state,
        .damaged = m->damaged,
        .revived = m->revived,
        .losses = m->losses,
        .attempts = m->attempts,
        .tried_ms = m->tried_ms,
        .wait_ms = wait_ms,
        .wall_ms = wall_ms,
    };
    a->record.head_len = (uint16_t)record_encode_state(&head, journal_record_head(&a->record));
    if (!outcomes || outcomes->len == 0)
        return;
    bytes_done(&a->body);
    a->body = *outcomes;
    bytes_init(outcomes, outcomes->max);
    a->record.body[0] = (struct iovec){a->body.data, a->body.len};
    a->m->outcomes = a;
}

/* Nobody but the disk has waited for the state before: the new one takes its place, so that a disk
 * that fails for long costs no more memory than there are messages. */
static bool replace_state(struct message *m, uint64_t wait_ms, uint64_t wall_ms,
                          struct bytes *outcomes)
{
    struct append *a = m->outcomes;
    if (!a || m->under_way != 1 || a->done || !journal_waits(&a->record))
        return false;
    fill_state(a, wait_ms, wall_ms, outcomes);
    journal_amend(&a->record);
    return true;
}

bool spool_write_state(struct queue *q, struct message *m, uint64_t wait_ms, uint64_t wall_ms,
                       struct bytes *outcomes, queue_done_fn *done, void *ctx)
{
    if (!done && replace_state(m, wait_ms, wall_ms, outcomes))
        return true;
    struct append *a = append_new(q, m, SEGMENT_STATE, done, ctx);
    if (!a)
        return false;
    fill_state(a, wait_ms, wall_ms, outcomes);
    a->record.keep = true;
    a->record.done = state_done;
    append_submit(a);
    return true;
}

bool spool_is_unwritable(const struct queue *q)
{
    struct journal_stats stats;
    journal_stats(q->journal, &stats);
    if (!stats.failing || stats.errnum == EROFS)
        return stats.failing;
    return q->failing && q->now_ms - q->failing_since >= QUEUE_HICCUP_MS;
}

static bool may_go_unmarked(const struct queue *q)
{
    return spool_is_unwritable(q) && q->unmarked < QUEUE_UNMARKED_MAX;
}

static void doubt_done(struct journal_record *r, const struct error *err)
{
    struct append *a = (struct append *)r;
    bool unmarked = err && may_go_unmarked(a->q);
    if (!err)
        spool_place(a->q, a->m, PLACE_DOUBT, r->segment, r->offset, r->span);
    else if (unmarked)
        set_unmarked(a->q, a->m, true);
    else
        a->m->in_doubt = false;
    append_end(a, unmarked ? NULL : err);
}

bool spool_write_doubt(struct queue *q, struct message *m, uint64_t wall_ms, queue_done_fn *done,
                       void *ctx)
{
    struct append *a = append_new(q, m, SEGMENT_DOUBT, done, ctx);
    if (!a)
        return false;
    a->record.head_len = (uint16_t)record_encode_doubt(wall_ms, journal_record_head(&a->record));
    a->record.done = doubt_done;
    m->in_doubt = true;
    append_submit(a);
    return true;
}

static void removal_work(void *ctx)
{
    struct append *a = ctx;
    struct error err = ERROR_INIT;
    /* What stays is an orphan that the next start removes. */
    (void)content_remove(a->q->ops, a->q->content_dir, a->id, &err);
}

static void removal_done(void *ctx)
{
    append_free(ctx);
}

static void gone_done(struct journal_record *r, const struct error *err)
{
    struct append *a = (struct append *)r;
    struct message *m = a->m;
    struct task *removal = m->large && !err ? a->removal : NULL;
    assert(m->under_way == 1); /* nothing is appended behind a GONE */
    set_unmarked(a->q, m, false);
    spool_free_message(a->q, m);
    if (a->done)
        a->done(a->ctx, err);
    if (removal)
        task_submit(removal, EXECUTOR_CONTENT);
    else
        append_free(a);
}

bool spool_write_gone(struct queue *q, struct message *m, queue_done_fn *done, void *ctx)
{
    struct append *a = append_new(q, m, SEGMENT_GONE, done, ctx);
    if (a && m->large)
        a->removal = task_new(q->tasks, removal_work, removal_done, a);
    if (!a || (m->large && !a->removal)) {
        free(a);
        return false;
    }
    a->record.keep = true;
    a->record.done = gone_done;
    spool_detach(q, m);
    append_submit(a);
    return true;
}

void spool_message_head(const struct queue *q, const struct message *m, struct record_message *out)
{
    *out = (struct record_message){
        .large = m->large,
        .damaged = m->damaged,
        .lane = (enum lane)m->lane,
        .recipients = m->recipients,
        .envelope_len = m->envelope_len,
        .arrived_ms = m->arrived_ms,
        .size = m->size,
    };
    strcpy(out->route, schedule_route_name(q->schedule, m->route));
    strcpy(out->device, m->device->text);
    if (m->part)
        out->part = *m->part;
}

void spool_mark_damaged(struct queue *q, struct message *m)
{
    if (m->damaged)
        return;
    struct message_change to = spool_change(m);
    to.damaged = true;
    to.state = QUEUE_HELD;
    spool_set(q, m, &to);
    spool_schedule(q, m, SCHEDULE_NEVER);
    if (!q->read_only) /* without memory the mark is lost, and found again by the next reader */
        (void)spool_write_state(q, m, 0, q->wall_ms, NULL, NULL, NULL);
}
