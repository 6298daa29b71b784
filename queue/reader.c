/*
 * Reading a message back: the part of queue.h from queue_reader_open() to queue_reader_close().
 *
 * A reader waits for nothing: outcomes that are not durable yet it gets from memory. Its segments
 * are held only while the record is read: after that small mail is in memory and large mail has a
 * descriptor of its own.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "queue/spool.h"

/* Blocks of a body that are read at a time: a wake-up for each costs more than the reading. */
#define READER_AHEAD      4
#define READER_UNREAD_MAX 5 /* attempts that could not read a message; then it is held */
#define READER_RAW_MAX    (SEGMENT_RECORD_HEADER + SEGMENT_HEAD_MAX + SEGMENT_BODY_MAX + SEGMENT_ALIGN)

struct queue_reader {
    struct queue *q;
    uint64_t id;
    struct task *task;
    bool closed;
    bool opening;
    queue_reader_fn *opened;
    queue_read_fn *got;
    void *ctx;
    struct journal_segment *held[2];
    /* What the worker needs to know. */
    struct segfile_place message;
    struct segfile_place outcomes;
    bool has_outcomes;
    bool has_newer; /* outcomes that are not durable yet */
    struct bytes newer;
    bool leased;
    bool large;
    bool revived;
    bool lenient; /* known to be damaged: read what can be read */
    uint16_t head_len;
    uint32_t envelope_len;
    uint64_t size;
    /* The worker's results. */
    struct envelope envelope;
    struct bytes small;
    struct content_block *blocks;
    unsigned block_count; /* read; those from next_block on have not been handed out */
    unsigned next_block;
    const uint8_t *data;
    size_t data_len;
    uint64_t position; /* of small mail: octets; of large: blocks */
    int fd;
    bool damaged; /* lenient: something did not verify */
    struct error error;
};

/* ---- opening, on the worker ------------------------------------------------------------------ */

/* Whether to go on after a failure. */
static bool tolerates(struct queue_reader *r)
{
    if (!r->lenient || (r->error.kind != ERROR_DAMAGED && r->error.kind != ERROR_IO))
        return false;
    r->damaged = true;
    return true;
}

static bool split_record(struct queue_reader *r, const struct bytes *raw, size_t body_at)
{
    size_t left = raw->len > body_at ? raw->len - body_at : 0;
    size_t text_len = r->envelope_len < left ? r->envelope_len : left;
    const uint8_t *text = raw->data + (raw->len - left);
    if (!envelope_decode(&r->envelope, text, text_len, &r->error)) {
        r->error.kind = r->error.kind == ERROR_NO_ROOM ? ERROR_NO_ROOM : ERROR_DAMAGED;
        if (!tolerates(r))
            return false;
    }
    if (r->large)
        return true;
    size_t size = r->size < left - text_len ? (size_t)r->size : left - text_len;
    return bytes_append(&r->small, text + text_len, size) ||
           error_set(&r->error, ERROR_NO_ROOM, "no memory for mail data");
}

static bool read_message(struct queue_reader *r)
{
    struct bytes raw;
    struct segment_record record = {.head_len = r->head_len};
    bytes_init(&raw, READER_RAW_MAX);
    const struct queue *q = r->q;
    bool ok =
        segfile_read(q->ops, q->journal_dir, &r->message, &record, &raw, &r->error) || tolerates(r);
    ok = ok && split_record(r, &raw, (size_t)SEGMENT_RECORD_HEADER + record.head_len);
    bytes_done(&raw);
    return ok;
}

static bool apply_newer(struct queue_reader *r)
{
    return envelope_apply_outcomes(&r->envelope, r->newer.data, r->newer.len, &r->error) ||
           tolerates(r);
}

static bool read_outcomes(struct queue_reader *r)
{
    struct bytes raw;
    struct segment_record record;
    bytes_init(&raw, READER_RAW_MAX);
    const struct queue *q = r->q;
    bool ok = segfile_read(q->ops, q->journal_dir, &r->outcomes, &record, &raw, &r->error);
    if (ok) {
        const uint8_t *body = raw.data + SEGMENT_RECORD_HEADER + record.head_len;
        ok = envelope_apply_outcomes(&r->envelope, body, record.body_len, &r->error);
    }
    bytes_done(&raw);
    return ok || tolerates(r);
}

static void revive(struct envelope *e)
{
    for (size_t i = 0; i < e->recipient_count; i++)
        if (e->recipients[i].state == RECIPIENT_FAILED)
            e->recipients[i].state = RECIPIENT_PENDING;
}

static void open_work(struct queue_reader *r)
{
    if (!read_message(r))
        return;
    if (r->has_newer ? !apply_newer(r) : r->has_outcomes && !read_outcomes(r))
        return;
    if (r->revived)
        revive(&r->envelope);
    if (r->large) {
        r->fd = content_open(r->q->ops, r->q->content_dir, r->id, &r->error);
        if (r->fd < 0 && !tolerates(r))
            return;
    }
    error_clear(&r->error);
}

/* ---- reading, on the worker ------------------------------------------------------------------ */

static void small_work(struct queue_reader *r)
{
    r->data = r->small.data;
    r->data_len = r->position == 0 ? r->small.len : 0;
    r->position++;
}

/* False when none is ready. */
static bool take_block(struct queue_reader *r)
{
    r->data_len = 0;
    while (r->data_len == 0 && r->next_block < r->block_count) {
        const struct content_block *b = &r->blocks[r->next_block++];
        r->data = b->frame + CONTENT_FRAME;
        r->data_len = b->len;
    }
    return r->data_len > 0;
}

static bool has_more(const struct queue_reader *r)
{
    return r->fd >= 0 && r->position * CONTENT_BLOCK < r->size;
}

/* What cannot be read behind a block that can is looked at again the next time. */
static bool read_blocks(struct queue_reader *r)
{
    r->block_count = r->next_block = 0;
    while (r->block_count < READER_AHEAD && has_more(r)) {
        struct error err = ERROR_INIT;
        struct content_block *b = &r->blocks[r->block_count];
        if (!content_read(r->q->ops, r->fd, r->id, r->size, r->position, b, &err)) {
            if (r->block_count > 0)
                return true;
            r->error = err;
            if (!tolerates(r))
                return false;
        }
        r->position++;
        r->block_count++;
    }
    return true;
}

static void large_work(struct queue_reader *r)
{
    while (!take_block(r) && has_more(r))
        if (!read_blocks(r))
            return;
    error_clear(&r->error);
}

static void reader_work(void *ctx)
{
    struct queue_reader *r = ctx;
    if (r->error.kind != ERROR_NONE)
        return;
    if (r->opening)
        open_work(r);
    else if (r->large)
        large_work(r);
    else
        small_work(r);
}

/* ---- on the loop ----------------------------------------------------------------------------- */

static void reader_free(struct queue_reader *r)
{
    if (r->fd >= 0)
        (void)r->q->ops->close(r->q->ops->ctx, r->fd);
    task_free(r->task);
    envelope_done(&r->envelope);
    bytes_done(&r->small);
    bytes_done(&r->newer);
    free(r->blocks);
    free(r);
}

static void release_segments(struct queue_reader *r)
{
    for (int i = 0; i < 2; i++) {
        if (r->held[i])
            journal_drop(r->q->journal, r->held[i]);
        r->held[i] = NULL;
    }
}

static void report_open(struct queue_reader *r)
{
    if (r->error.kind == ERROR_NONE) {
        r->opened(r->ctx, r, &r->envelope, NULL);
        return;
    }
    error_wrap(&r->error, "message %016llx", (unsigned long long)r->id);
    r->opened(r->ctx, NULL, NULL, &r->error);
    r->q->opened--;
    reader_free(r);
}

static void report_read(struct queue_reader *r)
{
    if (r->error.kind == ERROR_NONE && r->data_len == 0 && r->damaged)
        error_set(&r->error, ERROR_DAMAGED, "parts of the message do not verify");
    if (r->error.kind == ERROR_NONE)
        r->got(r->ctx, r->data, r->data_len, NULL);
    else
        r->got(r->ctx, NULL, 0, &r->error);
}

/* What reads wrongly is damaged. What cannot be read may be read the next time; when that was hoped
 * for in vain it is as good as damaged, and must not be tried for ever. */
static void judge(struct queue_reader *r)
{
    struct message *m = r->error.kind != ERROR_NONE && !r->lenient ? spool_find(r->q, r->id) : NULL;
    if (!m)
        return;
    bool unread = r->error.kind == ERROR_IO && r->error.errnum == EIO && r->leased;
    if (unread && m->unread < READER_UNREAD_MAX)
        m->unread++;
    if (r->error.kind == ERROR_DAMAGED || (unread && m->unread == READER_UNREAD_MAX))
        spool_mark_damaged(r->q, m);
}

static void reader_done(void *ctx)
{
    struct queue_reader *r = ctx;
    bool opening = r->opening;
    r->opening = false;
    release_segments(r);
    judge(r);
    if (r->closed)
        reader_free(r);
    else if (opening)
        report_open(r);
    else
        report_read(r);
}

static bool take_newer(struct queue_reader *r, const struct message *m)
{
    const struct bytes *newer = spool_outcomes_under_way(m);
    r->has_newer = newer != NULL;
    return !newer || bytes_append(&r->newer, newer->data, newer->len) ||
           error_set(&r->error, ERROR_NO_ROOM, "no memory to read a message");
}

/* Copies what the worker needs. */
static void submit_open(struct queue_reader *r)
{
    struct message *m = spool_find(r->q, r->id);
    if (!m) {
        error_set(&r->error, ERROR_MISSING, "no such message");
        task_submit(r->task, EXECUTOR_CONTENT);
        return;
    }
    if (!take_newer(r, m)) {
        task_submit(r->task, EXECUTOR_CONTENT);
        return;
    }
    r->message = spool_place_value(m, PLACE_MESSAGE);
    r->held[0] = m->places[PLACE_MESSAGE].segment;
    r->has_outcomes = m->places[PLACE_OUTCOMES].segment != NULL;
    if (r->has_outcomes) {
        r->outcomes = spool_place_value(m, PLACE_OUTCOMES);
        r->held[1] = m->places[PLACE_OUTCOMES].segment;
    }
    for (int i = 0; i < 2; i++)
        if (r->held[i])
            journal_hold(r->held[i]);
    r->leased = m->leased;
    r->large = m->large;
    r->revived = m->revived;
    r->lenient = m->damaged && !m->leased;
    r->head_len = m->head_len;
    r->envelope_len = m->envelope_len;
    r->size = m->size;
    task_submit(r->task, EXECUTOR_CONTENT);
}

static struct queue_reader *reader_new(struct queue *q, uint64_t id)
{
    struct queue_reader *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->q = q;
    r->id = id;
    r->fd = -1;
    r->opening = true;
    envelope_init(&r->envelope);
    bytes_init(&r->small, QUEUE_SMALL_MAX);
    bytes_init(&r->newer, SEGMENT_BODY_MAX);
    r->task = task_new(q->tasks, reader_work, reader_done, r);
    if (r->task)
        return r;
    envelope_done(&r->envelope);
    free(r);
    return NULL;
}

void queue_reader_open(struct queue *q, uint64_t id, queue_reader_fn *done, void *ctx)
{
    struct queue_reader *r = reader_new(q, id);
    if (!r) {
        struct error err = ERROR_INIT;
        error_set(&err, ERROR_NO_ROOM, "no memory to read a message");
        done(ctx, NULL, NULL, &err);
        return;
    }
    r->opened = done;
    r->ctx = ctx;
    q->opened++;
    submit_open(r);
}

void queue_read(struct queue_reader *r, queue_read_fn *done, void *ctx)
{
    assert(!task_under_way(r->task));
    r->got = done;
    r->ctx = ctx;
    if (r->large && !r->blocks)
        r->blocks = malloc(READER_AHEAD * sizeof(*r->blocks));
    if (r->large && !r->blocks)
        error_set(&r->error, ERROR_NO_ROOM, "no memory to read a message");
    if (r->next_block < r->block_count && task_submit_soon(r->task))
        (void)take_block(r); /* no need for a worker */
    else
        task_submit(r->task, EXECUTOR_CONTENT);
}

void queue_reader_close(struct queue_reader *r)
{
    if (!r)
        return;
    r->q->opened--;
    r->closed = true;
    if (!task_under_way(r->task))
        reader_free(r);
}
