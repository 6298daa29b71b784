/*
 * Verifying what is stored: the part of queue.h that is queue_verify().
 *
 * One file a call: a segment, held meanwhile and searched up to what is durable of it, or the body
 * of a living message. The worker gets values only; what it found is matched with the messages on
 * the loop, where they may have gone meanwhile. Then damage is none of anybody's.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/recover.h"
#include "queue/spool.h"

#define VERIFY_WALK 20000 /* messages passed over in one call, on the way to one with a body */

struct verify {
    struct queue *q;
    struct task *task;
    struct queue_verified result;
    struct journal_segment *segment; /* held; NULL for a body */
    uint64_t id;
    uint64_t size;
    uint64_t segment_number;
    struct record_end end;
    struct error error;
    queue_verify_fn *done;
    void *ctx;
};

static void add_bad(struct queue_verified *v, uint64_t id, uint64_t offset, uint64_t len)
{
    v->bad++;
    if (v->place_count == QUEUE_VERIFY_BAD)
        return;
    v->places[v->place_count++] = (struct queue_bad_place){.id = id, .offset = offset, .len = len};
}

/* ---- on the worker; torn writes are no damage
 * --------------------------------------------------------------------------- */

static void note_segment(struct queue_verified *v, const struct recover_segment *s, bool index_ok)
{
    v->checked = s->entry_count + s->gap_count + 1;
    if (!s->header_ok)
        add_bad(v, 0, 0, SEGMENT_BLOCK);
    if (!index_ok)
        add_bad(v, 0, s->end, s->header.size - s->end);
    for (size_t i = 0; i < s->entry_count; i++) {
        const struct recover_entry *e = &s->entries[i];
        uint32_t span = segment_span(e->record.head_len, e->record.body_len);
        if (!e->body_ok && e->offset < s->proven)
            add_bad(v, e->record.id, e->offset, span);
    }
    for (size_t i = 0; i < s->gap_count; i++)
        if (!s->gaps[i].torn)
            add_bad(v, 0, s->gaps[i].offset, s->gaps[i].len);
}

static void verify_segment(struct verify *v)
{
    const struct queue *q = v->q;
    char path[SEGFILE_PATH_MAX];
    struct recover_segment s;
    bool index_ok = true;
    int fd;
    segfile_path(q->journal_dir, v->segment_number, path);
    v->result.octets = v->end.end;
    if (!recover_open(q->ops, path, v->segment_number, true, &s, &fd, &v->error)) {
        if (v->error.kind == ERROR_DAMAGED || v->error.errnum == ENOENT) {
            add_bad(&v->result, 0, 0, v->end.end);
            error_clear(&v->error);
        }
        return;
    }
    if (recover_search(q->ops, fd, &v->end, &s, &index_ok, &v->error))
        note_segment(&v->result, &s, index_ok);
    recover_done(&s);
    (void)q->ops->close(q->ops->ctx, fd);
}

static void verify_blocks(struct verify *v, int fd, struct content_block *block)
{
    struct queue_verified *r = &v->result;
    for (uint64_t at = 0; at * CONTENT_BLOCK < v->size; at++) {
        struct error err = ERROR_INIT;
        uint64_t left = v->size - at * CONTENT_BLOCK;
        uint64_t len = left < CONTENT_BLOCK ? left : CONTENT_BLOCK;
        if (!content_read(v->q->ops, fd, v->id, v->size, at, block, &err))
            add_bad(r, v->id, at * (CONTENT_FRAME + CONTENT_BLOCK), CONTENT_FRAME + len);
        r->octets += CONTENT_FRAME + len;
        r->checked++;
    }
}

static void verify_body(struct verify *v)
{
    const struct queue *q = v->q;
    struct content_block *block = malloc(sizeof(*block));
    if (!block) {
        error_set(&v->error, ERROR_NO_ROOM, "no memory to read a body");
        return;
    }
    int fd = content_open(q->ops, q->content_dir, v->id, &v->error);
    if (fd >= 0) {
        verify_blocks(v, fd, block);
        (void)q->ops->close(q->ops->ctx, fd);
    } else if (v->error.kind == ERROR_DAMAGED) { /* missing */
        add_bad(&v->result, v->id, 0, v->size);
        error_clear(&v->error);
    }
    free(block);
}

static void verify_work(void *ctx)
{
    struct verify *v = ctx;
    if (!v->result.is_file || v->error.kind != ERROR_NONE)
        return;
    if (v->segment)
        verify_segment(v);
    else
        verify_body(v);
}

/* ---- on the loop ----------------------------------------------------------------------------- */

static bool overlaps(const struct journal_segment *s, const struct place *p,
                     const struct queue_bad_place *bad)
{
    return p->segment == s && p->offset < bad->offset + bad->len &&
           bad->offset < p->offset + p->span;
}

/* Whether what does not verify is what counts of the message. */
static bool is_hit(const struct journal_segment *s, const struct message *m,
                   const struct queue_bad_place *bad)
{
    bool hit = false;
    for (int kind = 0; kind < PLACE_COUNT; kind++)
        hit = hit || overlaps(s, &m->places[kind], bad);
    return hit;
}

static struct message *message_at(const struct queue *q, const struct journal_segment *s,
                                  const struct queue_bad_place *bad)
{
    struct message *m = bad->id ? spool_find(q, bad->id) : s->messages;
    if (bad->id)
        return m && is_hit(s, m, bad) ? m : NULL;
    while (m && !is_hit(s, m, bad))
        m = m->segment_next;
    return m;
}

static void blame_message(struct verify *v, struct queue_bad_place *bad)
{
    struct message *m = v->segment ? message_at(v->q, v->segment, bad) : spool_find(v->q, v->id);
    bad->id = m ? message_id(m) : 0;
    if (m && !m->leased)
        spool_mark_damaged(v->q, m);
}

/* A body that went with its message was not damaged. */
static void match(struct verify *v)
{
    struct queue_verified *r = &v->result;
    if (!v->segment && r->bad > 0 && !spool_find(v->q, v->id)) {
        r->bad = 0;
        r->place_count = 0;
    }
    for (size_t i = 0; i < r->place_count; i++)
        blame_message(v, &r->places[i]);
}

static void verify_done(void *ctx)
{
    struct verify *v = ctx;
    struct queue *q = v->q;
    match(v);
    q->opened--;
    if (v->segment)
        journal_drop(q->journal, v->segment);
    v->done(v->ctx, &v->result, v->error.kind != ERROR_NONE ? &v->error : NULL);
    task_free(v->task);
    free(v);
}

static bool choose_segment(struct verify *v, const struct queue_cursor *from)
{
    struct queue_verified *r = &v->result;
    struct journal_segment *s = from->bodies ? NULL : journal_next(v->q->journal, from->after);
    if (!s)
        return false;
    v->segment = s;
    v->segment_number = s->number;
    v->end = journal_extent(v->q->journal, s);
    r->is_file = s->end > SEGMENT_BLOCK;
    r->next = (struct queue_cursor){.bodies = false, .after = s->number};
    snprintf(r->name, sizeof(r->name), "journal/%016" PRIx64 ".seg", s->number);
    journal_hold(s);
    return true;
}

static void choose_body(struct verify *v, const struct queue_cursor *from)
{
    struct queue_verified *r = &v->result;
    uint64_t after = from->bodies ? from->after : 0;
    for (unsigned n = 0; n < VERIFY_WALK; n++) {
        const struct idtree_node *node = idtree_next(&v->q->messages, after);
        if (!node) {
            r->last = true;
            break;
        }
        after = node->key;
        const struct message *m = spool_find(v->q, after);
        if (!m->large)
            continue;
        v->id = after;
        v->size = m->size;
        r->is_file = true;
        snprintf(r->name, sizeof(r->name), "content/%016" PRIx64 ".body", after);
        break;
    }
    r->next = (struct queue_cursor){.bodies = true, .after = after};
}

void queue_verify(struct queue *q, const struct queue_cursor *from, queue_verify_fn *done,
                  void *ctx)
{
    struct verify *v = calloc(1, sizeof(*v));
    if (v)
        v->task = task_new(q->tasks, verify_work, verify_done, v);
    if (!v || !v->task) {
        struct error err = ERROR_INIT;
        free(v);
        error_set(&err, ERROR_NO_ROOM, "no memory to verify the spool");
        done(ctx, NULL, &err);
        return;
    }
    v->q = q;
    v->done = done;
    v->ctx = ctx;
    q->opened++;
    if (!choose_segment(v, from))
        choose_body(v, from);
    task_submit(v->task, EXECUTOR_CONTENT);
}
