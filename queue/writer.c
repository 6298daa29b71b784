/*
 * Accepting: the part of queue.h from queue_begin() to queue_abort().
 *
 * Mail up to QUEUE_SMALL_MAX is gathered in memory and becomes part of its MESSAGE record. Larger
 * mail goes to its body file block by block, one task at a time, and only a few bodies at a time.
 * At the commit the body is made durable first, then the record; only the record's done() reports
 * success.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "queue/spool.h"

/* Under way or waiting: the caller should stop. Several at a time cost less; where many bodies
 * arrive together, the memory for one of each must do, and on a slow disk one is enough. */
#define WRITER_BLOCKS_FULL 4
#define BLOCKS_MANY        32 /* of all writers: now one of each is enough */
/* Bodies being written at a time. A slow disk keeps them all waiting, but not those who read. Where
 * it is so slow that pieces had to become smaller, their sum would be what others wait for. */
#define WRITERS_AT_ONCE   4
#define WRITERS_IF_SLOW   1
#define WRITER_BLOCKS_MAX 16 /* the caller did not stop */

_Static_assert(QUEUE_SMALL_MAX <= CONTENT_BLOCK, "small mail fits the first block");
_Static_assert(QUEUE_BLOCK == CONTENT_BLOCK, "one block is read at a time");
_Static_assert(ENVELOPE_TEXT_MAX + QUEUE_SMALL_MAX <= SEGMENT_BODY_MAX, "a record holds it");

enum writer_end { WRITER_OPEN, WRITER_COMMIT, WRITER_ABORT, WRITER_DOOMED };

struct queue_writer {
    struct journal_record record; /* first */
    struct queue *q;
    uint64_t id;
    uint64_t size;
    uint64_t counted;    /* of it, in q->writer_bytes */
    struct name *device; /* or NULL */
    uint64_t owned;      /* of the size, in the device's number */
    uint64_t share;      /* that the device may have; 0: no limit */
    void (*on_drain)(void *ctx);
    void *ctx;
    enum writer_end end;
    bool urgent;
    bool large;
    bool queued;  /* its blocks wait for their turn */
    bool waiting; /* QUEUE_FLOW_FULL was said */
    bool failed;
    struct error error;
    struct bytes small;
    struct content_block *filling;
    struct content_block *ready; /* full, or the last one */
    struct content_block **ready_end;
    unsigned blocks; /* ready and under way */
    struct task *task;
    /* The task's own while it is under way. */
    struct content_block *writing;
    struct content_file file;
    uint32_t piece; /* that it begins with; 0: the usual */
    bool shared;    /* other bodies are written as well */
    bool created;
    bool finish;
    bool remove;
    bool work_failed;
    struct error work_error;
    /* The commit's. */
    struct message *message;
    struct bytes envelope;
    uint64_t now_ms;
    queue_commit_fn *done;
    void *done_ctx;
    struct queue_writer *next; /* of those that are queued, or doomed */
};

/* ---- the body, on the worker ----------------------------------------------------------------- */

static bool write_body(struct queue_writer *w)
{
    const struct queue *q = w->q;
    if (!w->created) {
        if (!content_create(&w->file, q->ops, q->content_dir, w->id, &w->work_error))
            return false;
        w->created = true;
        if (w->piece > 0)
            w->file.piece = w->piece;
    }
    w->file.shared = w->shared;
    return content_write(&w->file, w->writing, &w->work_error) &&
           (!w->finish || content_finish(&w->file, &w->work_error));
}

static void writer_work(void *ctx)
{
    struct queue_writer *w = ctx;
    if (!w->remove) {
        w->work_failed = !write_body(w);
        return;
    }
    if (w->created) {
        content_close(&w->file);
        (void)content_remove(w->q->ops, w->q->content_dir, w->id, &w->work_error);
    }
}

/* ---- the writer's memory --------------------------------------------------------------------- */

static void free_blocks(struct content_block *b)
{
    while (b) {
        struct content_block *next = b->next;
        free(b);
        b = next;
    }
}

/* At once, also when the body is removed later: others of the device wait for the room. */
static void disown(struct queue_writer *w)
{
    if (w->device)
        w->device->number -= w->owned;
    w->owned = 0;
}

static void writer_free(struct queue_writer *w)
{
    struct queue *q = w->q;
    disown(w);
    q->writer_bytes -= w->counted;
    q->blocks -= w->blocks;
    q->larges -= w->large ? 1 : 0;
    if (w->created && !w->remove)
        content_close(&w->file);
    task_free(w->task);
    bytes_done(&w->small);
    bytes_done(&w->envelope);
    free_blocks(w->filling);
    free_blocks(w->ready);
    free_blocks(w->writing);
    spool_free_message(q, w->message);
    free(w);
}

static void writer_done(void *ctx);

static struct queue_writer *writer_new(struct queue *q)
{
    struct queue_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->q = q;
    w->ready_end = &w->ready;
    bytes_init(&w->small, QUEUE_SMALL_MAX);
    bytes_init(&w->envelope, ENVELOPE_TEXT_MAX);
    w->task = task_new(q->tasks, writer_work, writer_done, w);
    if (w->task)
        return w;
    free(w);
    return NULL;
}

static void fail(struct queue_writer *w, const struct error *err)
{
    if (!w->failed)
        w->error = *err;
    w->failed = true;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static bool is_busy(const struct queue_writer *w)
{
    return w->queued || task_under_way(w->task);
}

static bool is_slow(const struct queue *q)
{
    return q->body_piece > 0 && q->body_piece < CONTENT_WRITE_BACK;
}

static bool may_write_more(const struct queue *q)
{
    return q->writing < (is_slow(q) ? WRITERS_IF_SLOW : WRITERS_AT_ONCE);
}

static void begin_writing(struct queue *q)
{
    while (q->writers && may_write_more(q)) {
        struct queue_writer *w = q->writers;
        q->writers = w->next;
        if (!q->writers)
            q->writers_end = &q->writers;
        w->queued = false;
        w->piece = q->body_piece;
        w->shared = q->larges > 1;
        q->writing++;
        task_submit(w->task, EXECUTOR_CONTENT);
    }
}

static void submit_blocks(struct queue_writer *w, bool finish)
{
    struct queue *q = w->q;
    w->writing = w->ready;
    w->ready = NULL;
    w->ready_end = &w->ready;
    w->finish = finish;
    w->queued = true;
    w->next = NULL;
    *q->writers_end = w;
    q->writers_end = &w->next;
    begin_writing(q);
}

static void leave_queue(struct queue_writer *w)
{
    struct queue_writer **at = &w->q->writers;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    if (!*at)
        w->q->writers_end = at;
    w->queued = false;
}

static void push_block(struct queue_writer *w)
{
    struct content_block *b = w->filling;
    w->filling = NULL;
    b->next = NULL;
    *w->ready_end = b;
    w->ready_end = &b->next;
    w->blocks++;
    w->q->blocks++;
}

static bool is_full(const struct queue_writer *w)
{
    bool one_is_enough = w->q->blocks >= BLOCKS_MANY || is_slow(w->q);
    return w->blocks >= WRITER_BLOCKS_FULL || (w->blocks > 0 && one_is_enough);
}

static struct content_block *block_to_fill(struct queue_writer *w, struct error *err)
{
    if (w->filling)
        return w->filling;
    if (w->blocks >= WRITER_BLOCKS_MAX) {
        error_set(err, ERROR_LIMIT, "mail data did not stop at the high mark");
        return NULL;
    }
    w->filling = malloc(sizeof(*w->filling));
    if (!w->filling) {
        error_set(err, ERROR_NO_ROOM, "no memory for mail data");
        return NULL;
    }
    w->filling->next = NULL;
    w->filling->len = 0;
    return w->filling;
}

static bool fill(struct queue_writer *w, const uint8_t *data, size_t len, struct error *err)
{
    while (len > 0) {
        struct content_block *b = block_to_fill(w, err);
        if (!b)
            return false;
        size_t part = CONTENT_BLOCK - b->len < len ? CONTENT_BLOCK - b->len : len;
        memcpy(b->frame + CONTENT_FRAME + b->len, data, part);
        b->len += (uint32_t)part;
        data += part;
        len -= part;
        if (b->len == CONTENT_BLOCK)
            push_block(w);
    }
    return true;
}

/* ---- begin and append ------------------------------------------------------------------------ */

static bool share_has_room(const struct queue_writer *w, uint64_t size, struct error *err)
{
    char max[QUEUE_SIZE_TEXT];
    if (!w->device || w->share == 0 ||
        (w->device->number < w->share && size <= w->share - w->device->number))
        return true;
    queue_size_text(w->share, max);
    return error_set(err, ERROR_SHARE,
                     "the waiting mail of %s has reached its share of the spool (%s): let mail "
                     "leave, or raise max_spool of its [device] or of [devices]",
                     w->device->text, max);
}

bool queue_writer_share(struct queue_writer *w, const char *device, uint64_t max_bytes,
                        uint64_t size, struct error *err)
{
    assert(!w->device && w->size == 0);
    w->device = names_keep(&w->q->devices, device);
    w->share = max_bytes;
    if (!w->device)
        return error_set(err, ERROR_NO_ROOM, "no memory for a device's name");
    return share_has_room(w, size, err);
}

struct queue_writer *queue_begin(struct queue *q, enum lane lane, void (*on_drain)(void *ctx),
                                 void *ctx, struct error *err)
{
    if (!queue_has_room(q, lane, 0, err))
        return NULL;
    struct queue_writer *w = writer_new(q);
    if (!w) {
        error_set(err, ERROR_NO_ROOM, "no memory for a message");
        return NULL;
    }
    if (!journal_take_id(q->journal, &w->id)) {
        error_set(err, ERROR_IO, "the spool cannot be written: no message id could be reserved");
        writer_free(w);
        return NULL;
    }
    w->urgent = lane == LANE_URGENT;
    w->on_drain = on_drain;
    w->ctx = ctx;
    q->opened++;
    return w;
}

uint64_t queue_writer_id(const struct queue_writer *w)
{
    return w->id;
}

uint64_t queue_writer_size(const struct queue_writer *w)
{
    return w->size;
}

static void charge(struct queue_writer *w, size_t len)
{
    struct queue *q = w->q;
    w->size += len;
    w->counted += len;
    w->owned += len;
    if (w->device)
        w->device->number += len;
    q->writer_bytes += len;
    q->free_bytes -= len < q->free_bytes ? len : q->free_bytes;
}

static bool become_large(struct queue_writer *w, struct error *err)
{
    w->large = true;
    w->q->larges++;
    bool ok = fill(w, w->small.data, w->small.len, err);
    bytes_done(&w->small);
    return ok;
}

static bool take(struct queue_writer *w, const void *data, size_t len, struct error *err)
{
    if (!w->large && len <= QUEUE_SMALL_MAX - w->small.len)
        return bytes_append(&w->small, data, len) ||
               error_set(err, ERROR_NO_ROOM, "no memory for mail data");
    return (w->large || become_large(w, err)) && fill(w, data, len, err);
}

enum queue_flow queue_append(struct queue_writer *w, const void *data, size_t len,
                             struct error *err)
{
    if (!w->failed && !(share_has_room(w, len, &w->error) &&
                        room_to_grow(w->q, w->urgent, &w->error) && take(w, data, len, &w->error)))
        w->failed = true;
    if (w->failed) {
        if (err)
            *err = w->error;
        return QUEUE_FLOW_ERROR;
    }
    charge(w, len);
    if (w->ready && !is_busy(w))
        submit_blocks(w, false);
    w->waiting = is_full(w);
    return w->waiting ? QUEUE_FLOW_FULL : QUEUE_FLOW_OK;
}

/* ---- commit ---------------------------------------------------------------------------------- */

static void remove_body(struct queue_writer *w)
{
    w->remove = true;
    task_submit(w->task, EXECUTOR_CONTENT);
}

static void message_stored(struct queue_writer *w)
{
    struct queue *q = w->q;
    struct message *m = w->message;
    const struct journal_record *r = &w->record;
    w->message = NULL;
    disown(w);
    m->since_ms = (int64_t)w->now_ms;
    spool_add(q, m, w->id);
    spool_place(q, m, PLACE_MESSAGE, r->segment, r->offset, r->span);
    spool_schedule(q, m, w->now_ms + (m->part ? m->part->wait_ms : 0));
    q->commits++;
    w->done(w->done_ctx, w->id, NULL);
    writer_free(w);
}

static void message_done(struct journal_record *r, const struct error *err)
{
    struct queue_writer *w = (struct queue_writer *)r;
    if (!err) {
        message_stored(w);
        return;
    }
    w->done(w->done_ctx, w->id, err);
    if (!w->large) {
        writer_free(w);
        return;
    }
    /* The record may have reached the disk all the same. Its body goes when the next segment has
     * declared it void, so that no crash finds the record without the body. */
    w->end = WRITER_DOOMED;
    w->next = w->q->doomed;
    w->q->doomed = w;
}

static void append_message(struct queue_writer *w)
{
    struct journal_record *r = &w->record;
    r->type = SEGMENT_MESSAGE;
    r->id = w->id;
    r->done = message_done;
    r->body[0] = (struct iovec){w->envelope.data, w->envelope.len};
    r->body[1] = (struct iovec){w->small.data, w->small.len};
    journal_append(w->q->journal, r);
}

static struct record_part part_of(const struct envelope *e)
{
    if (e->partial_group == 0)
        return (struct record_part){.kind = RECORD_WHOLE};
    return (struct record_part){
        .kind = e->joined > 0 ? RECORD_JOINED : RECORD_FRAGMENT,
        .number = e->partial_number,
        .total = e->partial_total,
        .group = e->partial_group,
        .kin = e->partial_kin,
        .wait_ms = e->joined > 0 ? 0 : e->partial_wait_ms,
    };
}

static bool fill_head(struct queue_writer *w, const struct envelope *e, struct error *err)
{
    struct record_message head = {
        .large = w->large,
        .lane = e->lane,
        .recipients = (uint32_t)e->recipient_count,
        .envelope_len = (uint32_t)w->envelope.len,
        .arrived_ms = e->arrived_ms,
        .size = w->size,
        .part = part_of(e),
    };
    size_t route_len = strlen(e->route);
    if (route_len > RECORD_NAME_MAX)
        return error_set(err, ERROR_INVALID, "the route's name is too long");
    memcpy(head.route, e->route, route_len);
    memcpy(head.device, e->device, strnlen(e->device, RECORD_NAME_MAX));
    w->message = spool_message(w->q, &head);
    if (!w->message)
        return error_set(err, ERROR_NO_ROOM, "no memory or too many routes for a message");
    w->record.head_len = (uint16_t)record_encode_message(&head, journal_record_head(&w->record));
    w->message->head_len = w->record.head_len;
    return true;
}

static bool prepare_message(struct queue_writer *w, const struct envelope *e, struct error *err)
{
    struct envelope stored = *e; /* borrows every string */
    stored.size = w->size;
    if (!envelope_encode(&stored, &w->envelope))
        return error_set(err, ERROR_LIMIT, "the envelope is too large or memory is out");
    return fill_head(w, e, err);
}

/* With the task at rest: what a commit does next. */
static void commit_step(struct queue_writer *w)
{
    if (w->failed)
        remove_body(w);
    else if (w->large && !w->finish)
        submit_blocks(w, true);
    else
        append_message(w);
}

void queue_commit(struct queue_writer *w, const struct envelope *e, uint64_t now_ms,
                  uint64_t wall_ms, queue_commit_fn *done, void *ctx)
{
    struct queue *q = w->q;
    struct error err = ERROR_INIT;
    q->now_ms = now_ms;
    q->wall_ms = wall_ms;
    q->opened--;
    w->end = WRITER_COMMIT;
    w->waiting = false;
    w->now_ms = now_ms;
    w->done = done;
    w->done_ctx = ctx;
    if (!w->failed && !prepare_message(w, e, &err))
        fail(w, &err);
    if (w->filling)
        push_block(w);
    if (!is_busy(w))
        commit_step(w);
}

void queue_abort(struct queue_writer *w)
{
    if (!w)
        return;
    w->q->opened--;
    w->end = WRITER_ABORT;
    disown(w);
    if (task_under_way(w->task))
        return;
    if (w->queued)
        leave_queue(w);
    if (w->created)
        remove_body(w);
    else
        writer_free(w);
}

static void end_removal(struct queue_writer *w)
{
    if (w->end == WRITER_COMMIT) {
        error_wrap(&w->error, "message %016llx", (unsigned long long)w->id);
        w->done(w->done_ctx, w->id, &w->error);
    }
    writer_free(w);
}

static void go_on(struct queue_writer *w)
{
    if (w->ready && !w->failed)
        submit_blocks(w, false);
    if (!w->waiting || (is_full(w) && !w->failed))
        return;
    w->waiting = false;
    w->on_drain(w->ctx);
}

static void writer_done(void *ctx)
{
    struct queue_writer *w = ctx;
    for (const struct content_block *b = w->writing; b; b = b->next) {
        w->blocks--;
        w->q->blocks--;
    }
    free_blocks(w->writing);
    w->writing = NULL;
    if (w->remove) {
        end_removal(w);
        return;
    }
    struct queue *q = w->q;
    q->writing--;
    if (w->work_failed)
        fail(w, &w->work_error);
    else
        q->body_piece = w->file.piece;
    if (w->end == WRITER_ABORT)
        remove_body(w);
    else if (w->end == WRITER_COMMIT)
        commit_step(w);
    else
        go_on(w);
    begin_writing(q);
}

void writer_remove_doomed(struct queue *q, bool closing)
{
    while (q->doomed) {
        struct queue_writer *w = q->doomed;
        q->doomed = w->next;
        if (closing)
            writer_free(w); /* the next start finds an orphan */
        else
            remove_body(w);
    }
}
