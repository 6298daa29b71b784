#include "queue/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/backoff.h"
#include "queue/recover.h"

#define SEQ_STEP (1u << 20) /* more than the records of a lost tail */

/* ---- what there is --------------------------------------------------------------------------- */

struct numbers {
    uint64_t *items;
    size_t count;
    size_t cap;
    bool failed; /* memory */
};

struct restore {
    struct queue *q;
    struct queue_recovery found;
    struct numbers segments;
    struct numbers orphans;
    struct numbers joined;   /* groups of fragments that a joined message stands in for */
    struct bytes ends;       /* record_end's of all STARTs */
    struct idtree strangers; /* known so far from a STATE or DOUBT only */
    uint64_t max_seq;
    uint64_t max_id;
    uint64_t id_limit; /* of the newest START or MARK */
    uint64_t max_number;
    bool has_spare;
    struct recover_segment *segment; /* being applied */
    struct journal_segment *adopted;
    int fd;
};

static void add_number(struct numbers *n, uint64_t number)
{
    if (n->count == n->cap) {
        size_t cap = n->cap ? n->cap * 2 : 64;
        uint64_t *items = realloc(n->items, cap * sizeof(*items));
        n->failed = n->failed || !items;
        if (!items)
            return;
        n->items = items;
        n->cap = cap;
    }
    n->items[n->count++] = number;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void note_segment(void *arg, const char *name)
{
    struct restore *r = arg;
    uint64_t number;
    if (segfile_parse_name(name, &number)) {
        add_number(&r->segments, number);
        r->max_number = number > r->max_number ? number : r->max_number;
    } else if (strcmp(name, SEGFILE_SPARE) == 0) {
        r->has_spare = true;
    }
}

static bool list_segments(struct restore *r, struct error *err)
{
    const struct queue *q = r->q;
    if (q->ops->list(q->ops->ctx, q->journal_dir, note_segment, r) < 0)
        return error_errno(err, errno, "list %s", q->journal_dir);
    if (r->segments.failed)
        return error_set(err, ERROR_NO_ROOM, "no memory to list %s", q->journal_dir);
    if (r->segments.count > 0)
        qsort(r->segments.items, r->segments.count, sizeof(uint64_t), compare_numbers);
    return true;
}

/* ---- strangers ------------------------------------------------------------------------------- */

/* A STATE may be found before the MESSAGE: that was carried forward, its older copies went with
 * their segments, and its STATE did not follow because power was lost. It counts all the same. */

static struct message *find_stranger(const struct restore *r, uint64_t id)
{
    struct idtree_node *node = idtree_find(&r->strangers, id);
    return node ? (struct message *)((char *)node - offsetof(struct message, node)) : NULL;
}

static struct message *meet(struct restore *r, uint64_t id, struct error *err)
{
    struct message *m = spool_find(r->q, id);
    m = m ? m : find_stranger(r, id);
    if (m)
        return m;
    m = calloc(1, sizeof(*m));
    if (m)
        idtree_insert(&r->strangers, &m->node, id);
    else
        error_set(err, ERROR_NO_ROOM, "no memory for the spool's messages");
    return m;
}

static void forget_stranger(struct restore *r, struct message *m)
{
    idtree_remove(&r->strangers, &m->node);
    spool_free_message(r->q, m);
}

/* Gives m, which is not yet counted, what is known from before. */
static void take_over(struct restore *r, struct message *m, uint64_t id)
{
    struct message *from = find_stranger(r, id);
    if (!from)
        return;
    m->bad_outcomes = from->bad_outcomes;
    if (from->places[PLACE_STATE].segment) {
        m->state = from->state;
        m->damaged = from->damaged;
        m->losses = from->losses;
        m->attempts = from->attempts;
        m->tried_ms = from->tried_ms;
        m->revived = from->revived;
        m->entry.due_ms = from->entry.due_ms;
    }
    for (int kind = 0; kind < PLACE_COUNT; kind++) {
        const struct place *p = &from->places[kind];
        if (p->segment)
            spool_place(r->q, m, (enum place_kind)kind, p->segment, p->offset, p->span);
    }
    forget_stranger(r, from);
}

static void forget_strangers(struct restore *r)
{
    struct idtree_node *node;
    while ((node = idtree_next(&r->strangers, 0)) != NULL)
        forget_stranger(r, find_stranger(r, node->key));
}

/* ---- applying records ------------------------------------------------------------------------ */

/* A fragment without a STATE waits from its arrival on. */
static uint64_t first_due(const struct queue *q, const struct record_message *m)
{
    return q->now_ms + backoff_resume(m->part.wait_ms, m->arrived_ms, q->wall_ms);
}

/* A message that the wall clock places in the future arrives now. */
static int64_t since(const struct queue *q, const struct record_message *m)
{
    uint64_t age = q->wall_ms > m->arrived_ms ? q->wall_ms - m->arrived_ms : 0;
    return (int64_t)q->now_ms - (int64_t)age;
}

static bool apply_message(struct restore *r, const struct recover_entry *e, const uint8_t *head,
                          struct error *err)
{
    struct queue *q = r->q;
    struct record_message fields;
    uint64_t id = e->record.id;
    if (!record_decode_message(head, e->record.head_len, &fields)) {
        r->found.damaged++;
        return true;
    }
    if (fields.part.kind == RECORD_JOINED && e->body_ok)
        add_number(&r->joined, fields.part.group);
    struct message *m = spool_find(q, id);
    if (m && !e->body_ok) /* the copy that it was made from is better */
        return true;
    if (!m) {
        m = spool_message(q, &fields);
        if (!m)
            return error_set(err, ERROR_NO_ROOM, "no memory for the spool's messages");
        m->entry.due_ms = first_due(q, &fields);
        m->since_ms = since(q, &fields);
        take_over(r, m, id);
        spool_add(q, m, id);
    }
    m->bad_message = fields.damaged || !e->body_ok;
    m->head_len = e->record.head_len;
    m->envelope_len = fields.envelope_len;
    spool_place(q, m, PLACE_MESSAGE, r->adopted, e->offset,
                segment_span(e->record.head_len, e->record.body_len));
    return true;
}

static void set_state(struct restore *r, struct message *m, const struct record_state *s)
{
    if (spool_find(r->q, message_id(m))) {
        struct message_change to = spool_change(m);
        to.state = (enum queue_state)s->state;
        to.damaged = s->damaged;
        spool_set(r->q, m, &to);
        return;
    }
    m->state = s->state; /* a stranger, not counted */
    m->damaged = s->damaged;
}

static bool apply_state(struct restore *r, const struct recover_entry *e, const uint8_t *head,
                        struct error *err)
{
    struct queue *q = r->q;
    struct message *m = meet(r, e->record.id, err);
    struct record_state s;
    if (!m)
        return false;
    uint32_t span = segment_span(e->record.head_len, e->record.body_len);
    if (!record_decode_state(head, e->record.head_len, &s)) {
        r->found.damaged++;
        m->bad_outcomes = true;
        return true;
    }
    set_state(r, m, &s);
    m->losses = s.losses;
    m->attempts = s.attempts;
    m->tried_ms = s.tried_ms;
    m->revived = s.revived;
    m->entry.due_ms = q->now_ms + backoff_resume(s.wait_ms, s.wall_ms, q->wall_ms);
    spool_place(q, m, PLACE_STATE, r->adopted, e->offset, span);
    if (e->record.body_len > 0 && e->body_ok)
        spool_place(q, m, PLACE_OUTCOMES, r->adopted, e->offset, span);
    if (e->record.body_len > 0)
        m->bad_outcomes = !e->body_ok;
    spool_unplace(q, m, PLACE_DOUBT);
    return true;
}

static bool apply_doubt(struct restore *r, const struct recover_entry *e, const uint8_t *head,
                        struct error *err)
{
    (void)head;
    struct message *m = meet(r, e->record.id, err);
    if (m)
        spool_place(r->q, m, PLACE_DOUBT, r->adopted, e->offset,
                    segment_span(e->record.head_len, e->record.body_len));
    return m != NULL;
}

static bool apply_gone(struct restore *r, const struct recover_entry *e, const uint8_t *head,
                       struct error *err)
{
    (void)head;
    (void)err;
    struct message *m = spool_find(r->q, e->record.id);
    if (m) {
        spool_detach(r->q, m);
        spool_free_message(r->q, m);
    } else if ((m = find_stranger(r, e->record.id)) != NULL) {
        forget_stranger(r, m);
    }
    return true;
}

static bool apply_start(struct restore *r, const struct recover_entry *e, const uint8_t *head,
                        struct error *err)
{
    (void)err;
    struct record_start s;
    if (record_decode_start(head, e->record.head_len, &s))
        r->id_limit = s.id_limit;
    return true;
}

typedef bool apply_fn(struct restore *r, const struct recover_entry *e, const uint8_t *head,
                      struct error *err);

static apply_fn *const appliers[] = {
    [SEGMENT_START] = apply_start, [SEGMENT_MESSAGE] = apply_message, [SEGMENT_STATE] = apply_state,
    [SEGMENT_DOUBT] = apply_doubt, [SEGMENT_GONE] = apply_gone,       [SEGMENT_MARK] = apply_start,
};

static bool apply_entry(struct restore *r, const struct recover_entry *e, struct error *err)
{
    if (e->record.seq > r->max_seq)
        r->max_seq = e->record.seq;
    if (e->record.id > r->max_id)
        r->max_id = e->record.id;
    if (!e->body_ok) {
        bool torn = e->offset >= r->segment->proven;
        r->found.torn += torn;
        r->found.damaged += !torn;
        if (torn)
            return true;
    }
    if (e->record.type >= sizeof(appliers) / sizeof(appliers[0]) || !appliers[e->record.type])
        return true; /* of a later version: nothing that this one must know */
    /* Where no record has a head there is no memory for heads either. */
    const uint8_t *head = e->record.head_len > 0 ? r->segment->heads.data + e->head_at : NULL;
    return appliers[e->record.type](r, e, head, err);
}

/* ---- one segment ----------------------------------------------------------------------------- */

static void set_aside(struct restore *r, const struct recover_gap *gap, uint64_t number,
                      const char *why)
{
    const struct queue *q = r->q;
    char path[SPOOL_PATH_MAX];
    struct error err = ERROR_INIT;
    int len = snprintf(path, sizeof(path), "%s/%016" PRIx64 "-%08" PRIx32 ".%s", q->damaged_dir,
                       number, gap->offset, why);
    /* The copy is for a person; the original stays where it is as long as its segment does. */
    if (!q->read_only && len < (int)sizeof(path))
        (void)recover_set_aside(q->ops, r->fd, gap, path, &err);
}

static void take_gaps(struct restore *r)
{
    const struct recover_segment *s = r->segment;
    for (size_t i = 0; i < s->gap_count; i++) {
        const struct recover_gap *gap = &s->gaps[i];
        r->found.torn += gap->torn && !s->ended;
        r->found.damaged += !gap->torn;
        if (!gap->torn || !s->ended)
            set_aside(r, gap, s->header.number, gap->torn ? "torn" : "bin");
    }
    r->found.damaged += !s->header_ok;
}

static void take_bad_bodies(struct restore *r)
{
    const struct recover_segment *s = r->segment;
    for (size_t i = 0; i < s->entry_count; i++) {
        const struct recover_entry *e = &s->entries[i];
        struct recover_gap gap = {.offset = e->offset,
                                  .len = segment_span(e->record.head_len, e->record.body_len)};
        if (!e->body_ok)
            set_aside(r, &gap, s->header.number, e->offset >= s->proven ? "torn" : "bin");
    }
}

static const struct record_end *find_end(const struct restore *r, uint64_t number,
                                         struct record_end *out)
{
    for (size_t at = 0; at + RECORD_END_LEN <= r->ends.len; at += RECORD_END_LEN) {
        record_decode_end(r->ends.data + at, out);
        if (out->number == number)
            return out;
    }
    return NULL;
}

static bool apply_segment(struct restore *r, struct error *err)
{
    struct recover_segment *s = r->segment;
    struct record_end end = {s->header.number, s->proven, s->end};
    r->adopted = journal_adopt(r->q->journal, &s->header, &end);
    if (!r->adopted)
        return error_set(err, ERROR_NO_ROOM, "no memory for the spool's segments");
    journal_hold(r->adopted);
    bool ok = true;
    for (size_t i = 0; ok && i < s->entry_count; i++)
        ok = apply_entry(r, &s->entries[i], err);
    take_gaps(r);
    take_bad_bodies(r);
    journal_drop(r->q->journal, r->adopted);
    r->found.segments++;
    return ok;
}

/* What was read may so far be in the page cache only, left by a process that was killed: it is made
 * durable before anything is built on it. What cannot be is reported as damage; it is served, for
 * as long as it can be read. */
static void sync_found(struct restore *r)
{
    const struct queue *q = r->q;
    if (q->read_only || r->segment->sealed || q->ops->fdatasync(q->ops->ctx, r->fd) == 0)
        return;
    r->found.damaged += errno != EROFS;
}

/* A daemon that runs beside a read-only opening removes segments in which nothing counts. */
static bool vanished(const struct queue *q, const struct error *err)
{
    return q->read_only && err->errnum == ENOENT;
}

/* A segment of which nothing can be read is moved out of the way for a person. Where that is not
 * possible it stays, and is met again at the next start. */
static void put_away(struct restore *r, uint64_t number)
{
    const struct queue *q = r->q;
    char from[SEGFILE_PATH_MAX];
    char to[SEGFILE_PATH_MAX];
    r->found.damaged++;
    segfile_path(q->journal_dir, number, from);
    segfile_path(q->damaged_dir, number, to);
    if (!q->read_only)
        (void)q->ops->rename(q->ops->ctx, from, to);
}

/* Of a recycled file that lost its header, the first record found may be one of its former life.
 * Those are older than what earlier segments hold. */
static bool is_of_a_former_life(const struct restore *r, const struct recover_segment *s)
{
    return !s->header_ok && s->entry_count > 0 && s->entries[0].record.seq <= r->max_seq;
}

static bool read_segment(struct restore *r, uint64_t number, struct error *err)
{
    const struct queue *q = r->q;
    char path[SEGFILE_PATH_MAX];
    struct recover_segment s;
    struct record_end end;
    segfile_path(q->journal_dir, number, path);
    if (!recover_open(q->ops, path, number, q->read_only, &s, &r->fd, err))
        return vanished(q, err);
    r->segment = &s;
    bool ok = recover_scan(q->ops, r->fd, find_end(r, number, &end), &s, err);
    bool former = ok && is_of_a_former_life(r, &s);
    if (ok && !former) {
        sync_found(r);
        ok = apply_segment(r, err);
    }
    recover_done(&s);
    (void)q->ops->close(q->ops->ctx, r->fd);
    if (former)
        put_away(r, number);
    return ok;
}

/* First pass: what each segment says of the ones before it. */
static bool read_start(struct restore *r, uint64_t *number, struct error *err)
{
    const struct queue *q = r->q;
    char path[SEGFILE_PATH_MAX];
    struct recover_segment s;
    struct error why = ERROR_INIT;
    int fd;
    segfile_path(q->journal_dir, *number, path);
    if (!recover_open(q->ops, path, *number, q->read_only, &s, &fd, &why)) {
        uint64_t which = *number;
        *number = 0;
        if (why.kind == ERROR_DAMAGED) {
            put_away(r, which);
            return true;
        }
        *err = why;
        return vanished(q, &why);
    }
    (void)recover_start(q->ops, fd, &s, &r->ends);
    recover_done(&s);
    (void)q->ops->close(q->ops->ctx, fd);
    return true;
}

static bool read_segments(struct restore *r, struct error *err)
{
    /* The newest first: what it says is found first. */
    for (size_t i = r->segments.count; i-- > 0;)
        if (!read_start(r, &r->segments.items[i], err))
            return false;
    for (size_t i = 0; i < r->segments.count; i++)
        if (r->segments.items[i] != 0 && !read_segment(r, r->segments.items[i], err))
            return false;
    return true;
}

static struct message *next_message(const struct queue *q, uint64_t after)
{
    struct idtree_node *node = idtree_next(&q->messages, after);
    return node ? spool_find(q, node->key) : NULL;
}

/* ---- fragments ------------------------------------------------------------------------------- */

static bool is_stood_in_for(const struct restore *r, const struct message *m)
{
    return m->part && m->part->kind == RECORD_FRAGMENT && r->joined.count > 0 &&
           bsearch(&m->part->group, r->joined.items, r->joined.count, sizeof(uint64_t),
                   compare_numbers) != NULL;
}

/* The record of a joined message ends its fragments, whether or not their GONE got to the disk. It
 * is never in an older segment than theirs, so it is there as long as they are. */
static bool drop_fragments(struct restore *r, struct error *err)
{
    struct queue *q = r->q;
    if (r->joined.failed)
        return error_set(err, ERROR_NO_ROOM, "no memory for the spool's joined messages");
    if (r->joined.count == 0)
        return true;
    qsort(r->joined.items, r->joined.count, sizeof(uint64_t), compare_numbers);
    uint64_t after = 0;
    for (struct message *m = next_message(q, after); m; m = next_message(q, after)) {
        after = message_id(m);
        if (!is_stood_in_for(r, m))
            continue;
        spool_detach(q, m);
        spool_free_message(q, m);
    }
    return true;
}

/* ---- bodies ---------------------------------------------------------------------------------- */

static void note_body(void *arg, const char *name)
{
    struct restore *r = arg;
    uint64_t id;
    if (!content_parse_name(name, &id))
        return;
    r->max_id = id > r->max_id ? id : r->max_id;
    struct message *m = spool_find(r->q, id);
    if (m && m->large)
        m->has_content = true;
    else
        add_number(&r->orphans, id);
}

static bool read_bodies(struct restore *r, struct error *err)
{
    const struct queue *q = r->q;
    if (q->ops->list(q->ops->ctx, q->content_dir, note_body, r) < 0)
        return error_errno(err, errno, "list %s", q->content_dir);
    r->found.orphans = r->orphans.count;
    return true;
}

static void remove_orphans(struct restore *r)
{
    const struct queue *q = r->q;
    struct error err = ERROR_INIT;
    if (q->read_only || r->found.damaged > 0)
        return;
    for (size_t i = 0; i < r->orphans.count; i++) /* what stays is found again */
        (void)content_remove(q->ops, q->content_dir, r->orphans.items[i], &err);
}

/* ---- messages -------------------------------------------------------------------------------- */

/* What the records together mean for a message. */
static void settle_message(struct restore *r, struct message *m)
{
    struct queue *q = r->q;
    struct message_change to = spool_change(m);
    bool missing = m->large && !m->has_content;
    r->found.damaged += missing && !m->damaged && !m->bad_message;
    to.damaged = m->damaged || m->bad_message || missing || m->bad_outcomes;
    if (m->places[PLACE_DOUBT].segment) {
        to.state = QUEUE_UNCERTAIN;
        spool_count_loss(m);
        m->entry.due_ms = q->now_ms + spool_uncertain_wait(q, m);
        r->found.uncertain++;
    }
    if (to.damaged)
        to.state = QUEUE_HELD;
    spool_set(q, m, &to);
    spool_schedule(q, m, m->entry.due_ms);
    r->found.messages++;
}

static void settle_messages(struct restore *r)
{
    for (struct message *m = next_message(r->q, 0); m; m = next_message(r->q, message_id(m)))
        settle_message(r, m);
}

/* From here on a message found in doubt is uncertain on disk too, so that its wait does not begin
 * anew with every start. */
static void record_uncertain(struct queue *q)
{
    for (struct message *m = next_message(q, 0); m; m = next_message(q, message_id(m)))
        if (m->places[PLACE_DOUBT].segment)
            (void)spool_write_state(q, m, spool_uncertain_wait(q, m), q->wall_ms, NULL, NULL, NULL);
}

static void start_journal(struct restore *r)
{
    struct queue *q = r->q;
    /* A renamed spare must not come back under its old name with a new header. When this fails, so
     * does making a segment, which is where it is reported. */
    (void)q->ops->sync_directory(q->ops->ctx, q->journal_dir);
    uint64_t next_id = r->max_id + 1 > r->id_limit ? r->max_id + 1 : r->id_limit;
    journal_start(q->journal, r->max_seq + SEQ_STEP, next_id, r->max_number + 1, r->has_spare);
    record_uncertain(q);
}

bool restore_messages(struct queue *q, struct queue_recovery *out, struct error *err)
{
    struct restore r = {.q = q, .id_limit = 1};
    bytes_init(&r.ends, SEGMENT_SIZE_MAX);
    bool ok = list_segments(&r, err) && read_segments(&r, err) && drop_fragments(&r, err) &&
              read_bodies(&r, err);
    forget_strangers(&r);
    if (ok) {
        remove_orphans(&r);
        settle_messages(&r);
        if (!q->read_only)
            start_journal(&r);
        *out = r.found;
    }
    bytes_done(&r.ends);
    free(r.segments.items);
    free(r.orphans.items);
    free(r.joined.items);
    return ok;
}
