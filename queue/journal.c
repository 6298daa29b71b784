#include "queue/journal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "queue/journal_inside.h"

#define IOV_PER_RECORD 4 /* header with head, two parts of the body, padding */

uint8_t *journal_record_head(struct journal_record *r)
{
    return r->lead + SEGMENT_RECORD_HEADER;
}

/* ---- failing --------------------------------------------------------------------------------- */

void journal_fail(struct journal *j, const struct error *err)
{
    j->failure = *err;
    j->failing = true;
}

void journal_works(struct journal *j)
{
    j->failing = false;
    j->retry_wait = 0;
    error_clear(&j->failure);
}

void journal_back_off(struct journal *j)
{
    uint64_t wait = j->retry_wait ? j->retry_wait * 2 : JOURNAL_RETRY_MIN_MS;
    j->retry_wait = wait < JOURNAL_RETRY_MAX_MS ? wait : JOURNAL_RETRY_MAX_MS;
    j->retry_at = j->now_ms + j->retry_wait;
}

/* ---- pending records ------------------------------------------------------------------------- */

static void push_back(struct journal *j, struct journal_record *r)
{
    r->next = NULL;
    *j->pending_end = r;
    j->pending_end = &r->next;
}

void journal_push_front(struct journal *j, struct journal_record *r)
{
    r->next = j->pending;
    if (!j->pending)
        j->pending_end = &r->next;
    j->pending = r;
}

static struct journal_record *pop_front(struct journal *j)
{
    struct journal_record *r = j->pending;
    j->pending = r->next;
    if (!j->pending)
        j->pending_end = &j->pending;
    r->next = NULL;
    return r;
}

bool journal_fits(const struct journal *j, const struct journal_record *r, uint32_t at)
{
    uint64_t need = (uint64_t)at + r->span + j->index_bytes + SEGMENT_ENTRY + r->head_len;
    return need + SEGMENT_FOOTER <= j->current->size;
}

void journal_measure(struct journal_record *r)
{
    size_t body_len = r->body[0].iov_len + r->body[1].iov_len;
    assert(body_len <= SEGMENT_BODY_MAX && r->head_len <= RECORD_HEAD_MAX);
    r->span = segment_span(r->head_len, body_len);
}

/* ---- a flush, on the worker ------------------------------------------------------------------ */

static int gather_record(const struct flush *f, struct journal_record *r, struct iovec *iov)
{
    static const uint8_t zeros[SEGMENT_ALIGN];
    int n = 0;
    uint8_t *head = journal_record_head(r);
    struct segment_record h = {
        .seq = r->seq,
        .id = r->id,
        .base = f->offset,
        .type = r->type,
        .head_len = r->head_len,
        .head_crc = bytes_crc(0, head, r->head_len),
    };
    iov[n++] = (struct iovec){r->lead, (size_t)SEGMENT_RECORD_HEADER + r->head_len};
    for (size_t i = 0; i < 2; i++) {
        if (r->body[i].iov_len == 0)
            continue;
        h.body_len += (uint32_t)r->body[i].iov_len;
        h.body_crc = bytes_crc(h.body_crc, r->body[i].iov_base, r->body[i].iov_len);
        iov[n++] = r->body[i];
    }
    uint32_t pad = r->span - SEGMENT_RECORD_HEADER - h.head_len - h.body_len;
    if (pad > 0)
        iov[n++] = (struct iovec){(void *)(uintptr_t)zeros, pad};
    segment_encode_record(&h, f->salt, r->offset, r->lead);
    return n;
}

static int flush_sync(const struct fileops *ops, int fd)
{
    int result;
    do {
        result = ops->fdatasync(ops->ctx, fd);
    } while (result < 0 && errno == EINTR);
    return result;
}

static void flush_work(void *ctx)
{
    struct journal *j = ctx;
    struct flush *f = &j->flush;
    int n = 0;
    if (f->refuse)
        return;
    for (struct journal_record *r = f->first; r; r = r->next)
        n += gather_record(f, r, f->iov + n);
    uint64_t number = f->first->segment->number;
    f->ok = false;
    if (fileops_writev_all(j->ops, f->fd, f->iov, n, f->offset) < 0)
        error_errno(&f->error, errno, "write journal segment %016" PRIx64, number);
    else if (flush_sync(j->ops, f->fd) < 0)
        error_errno(&f->error, errno, "sync journal segment %016" PRIx64, number);
    else
        f->ok = true;
}

/* ---- a flush, on the loop -------------------------------------------------------------------- */

static void compose(struct journal *j)
{
    struct flush *f = &j->flush;
    struct journal_record **tail = &f->first;
    f->segment = j->current;
    journal_hold(f->segment);
    f->fd = j->current_fd;
    f->salt = j->current->salt;
    f->offset = f->end = j->at;
    f->refuse = false;
    f->first = NULL;
    for (int n = 0; j->pending && n < JOURNAL_BATCH_RECORDS; n++) {
        struct journal_record *r = j->pending;
        if (!journal_fits(j, r, f->end) ||
            (n > 0 && f->end - f->offset + r->span > JOURNAL_BATCH_BYTES))
            break;
        pop_front(j);
        r->segment = j->current;
        r->offset = f->end;
        r->seq = j->next_seq++;
        f->end += r->span;
        j->index_bytes += SEGMENT_ENTRY + r->head_len;
        *tail = r;
        tail = &r->next;
    }
}

static void flush_submit(struct journal *j)
{
    j->flush.under_way = true;
    task_submit(j->flush.task, EXECUTOR_JOURNAL);
}

/* Takes the records that will not wait for a better disk. */
static void refuse(struct journal *j)
{
    struct flush *f = &j->flush;
    struct journal_record **tail = &f->first;
    struct journal_record *r = j->pending;
    f->first = NULL;
    f->segment = NULL;
    j->pending = NULL;
    j->pending_end = &j->pending;
    while (r) {
        struct journal_record *next = r->next;
        r->next = NULL;
        if (r->keep) {
            push_back(j, r);
        } else {
            *tail = r;
            tail = &r->next;
        }
        r = next;
    }
    f->refuse = true;
    f->error = j->failure;
    if (f->first)
        flush_submit(j);
}

void journal_kick(struct journal *j)
{
    if (j->flush.under_way)
        return;
    if (!j->current && j->ready)
        (void)journal_adopt_ready(j); /* so that its START tries the disk */
    if (!j->pending)
        return;
    if (journal_blocked(j) && !(j->ready && journal_adopt_ready(j))) {
        journal_maintain(j);
        if (j->failing && !j->flush.under_way)
            refuse(j);
        return;
    }
    compose(j);
    flush_submit(j);
}

static void deliver(struct journal_record *r, const struct error *err)
{
    while (r) {
        struct journal_record *next = r->next;
        r->next = NULL;
        r->done(r, err);
        r = next;
    }
}

/* Puts the records that must be written back in front, in their order; returns the others. */
static struct journal_record *keep_back(struct journal *j, struct journal_record *r)
{
    struct journal_record *others = NULL;
    struct journal_record **others_end = &others;
    struct journal_record *kept = NULL;
    struct journal_record **kept_end = &kept;
    for (; r; r = r->next) {
        struct journal_record ***end = r->keep ? &kept_end : &others_end;
        r->segment = r->keep ? NULL : r->segment;
        **end = r;
        *end = &r->next;
    }
    *others_end = NULL;
    *kept_end = j->pending;
    if (kept && !j->pending)
        j->pending_end = kept_end;
    j->pending = kept ? kept : j->pending;
    return others;
}

static void flush_succeeded(struct journal *j)
{
    struct flush *f = &j->flush;
    j->at = f->end;
    j->current->end = f->end;
    j->flushes++;
    j->written += f->end - f->offset;
    j->unproven = false;
    for (const struct journal_record *r = f->first; r; r = r->next)
        j->unproven = j->unproven || (r->type != SEGMENT_MARK && r->type != SEGMENT_START);
    journal_works(j);
}

/* The START is the journal's own and must be free before another segment is begun. */
static struct journal_record *finish_start(struct journal *j, struct journal_record *r,
                                           const struct error *err)
{
    if (r != &j->start)
        return r;
    journal_started(j, err);
    return r->next;
}

static void flush_done(void *ctx)
{
    struct journal *j = ctx;
    struct flush *f = &j->flush;
    struct journal_record *r = f->first;
    struct journal_segment *segment = f->segment;
    struct error err = f->error;
    const struct error *failed = f->refuse || !f->ok ? &err : NULL;
    r = finish_start(j, r, failed);
    if (!failed) {
        flush_succeeded(j);
    } else if (segment) {
        journal_abandon(j);
        journal_back_off(j);
        journal_fail(j, &err);
        r = keep_back(j, r);
    }
    f->under_way = false;
    f->first = NULL;
    journal_kick(j); /* the next flush runs while this one is reported */
    deliver(r, failed);
    if (segment)
        journal_drop(j, segment);
    journal_maintain(j);
}

bool journal_waits(const struct journal_record *r)
{
    return r->segment == NULL;
}

void journal_amend(struct journal_record *r)
{
    assert(journal_waits(r));
    journal_measure(r);
}

void journal_append(struct journal *j, struct journal_record *r)
{
    journal_measure(r);
    push_back(j, r);
    if (!j->flush.under_way && !task_under_way(j->kick) && !task_submit_soon(j->kick))
        journal_kick(j);
}

static void kick_done(void *ctx)
{
    journal_kick(ctx);
}

/* ---- ids and marks --------------------------------------------------------------------------- */

static void mark_done(struct journal_record *r, const struct error *err)
{
    struct journal *j = (struct journal *)((char *)r - offsetof(struct journal, mark));
    j->mark_under_way = false;
    if (!err && j->mark_limit > j->id_limit)
        j->id_limit = j->mark_limit;
}

static void append_mark(struct journal *j, uint64_t id_limit)
{
    if (j->mark_under_way || !j->current)
        return;
    struct record_start head = {.wall_ms = j->wall_ms, .id_limit = id_limit};
    j->mark = (struct journal_record){.type = SEGMENT_MARK, .done = mark_done};
    j->mark.head_len = (uint16_t)record_encode_start(&head, journal_record_head(&j->mark));
    j->mark_limit = id_limit;
    j->mark_under_way = true;
    journal_append(j, &j->mark);
}

bool journal_take_id(struct journal *j, uint64_t *out_id)
{
    if (j->id_limit < j->next_id + JOURNAL_ID_RESERVE / 2)
        append_mark(j, j->next_id + JOURNAL_ID_RESERVE);
    if (j->next_id >= j->id_limit)
        return false;
    *out_id = j->next_id++;
    return true;
}

void journal_tick(struct journal *j, uint64_t now_ms, uint64_t wall_ms)
{
    j->now_ms = now_ms;
    j->wall_ms = wall_ms;
    bool idle = j->flushes == j->ticked_flushes && !j->pending && !j->flush.under_way;
    j->ticked_flushes = j->flushes;
    if (idle && j->unproven && !j->failing)
        append_mark(j, j->next_id + JOURNAL_ID_RESERVE);
    journal_kick(j);
    journal_maintain(j);
}

/* ---- life ------------------------------------------------------------------------------------ */

struct journal *journal_new(const struct journal_options *options)
{
    struct journal *j = calloc(1, sizeof(*j));
    if (!j)
        return NULL;
    j->ops = options->ops;
    j->dir = options->dir;
    j->tasks = options->tasks;
    j->segment_size = options->segment_size;
    j->now_ms = options->now_ms;
    j->wall_ms = options->wall_ms;
    j->next_seq = j->next_id = j->next_number = j->id_limit = 1;
    j->pending_end = &j->pending;
    j->idle = true;
    bytes_init(&j->start_body, (size_t)JOURNAL_ENDS_MAX * RECORD_END_LEN);
    j->flush.iov = calloc((size_t)JOURNAL_BATCH_RECORDS * IOV_PER_RECORD, sizeof(struct iovec));
    j->flush.task = task_new(j->tasks, flush_work, flush_done, j);
    j->kick = task_new(j->tasks, NULL, kick_done, j);
    j->keeper.task = task_new(j->tasks, journal_keeper_work, journal_keeper_done, j);
    if (j->flush.iov && j->flush.task && j->kick && j->keeper.task)
        return j;
    journal_free(j);
    return NULL;
}

void journal_start(struct journal *j, uint64_t next_seq, uint64_t next_id, uint64_t next_number,
                   bool has_spare)
{
    j->next_seq = next_seq;
    j->next_id = j->id_limit = next_id;
    j->next_number = next_number;
    j->has_spare = has_spare;
    j->idle = false;
    j->bytes += has_spare ? j->segment_size : 0;
    journal_prepare_now(j);
    if (!j->ready || !journal_adopt_ready(j))
        return;
    compose(j);
    flush_work(j);
    flush_done(j);
}

/* What must be written gets one more chance: the disk may be well again. */
static void try_again(struct journal *j)
{
    if (!j->failing || !j->pending)
        return;
    if (!j->ready && !j->keeper.under_way)
        journal_prepare_now(j);
    journal_kick(j);
}

void journal_close(struct journal *j)
{
    try_again(j);
    if (j->current && !j->failing)
        append_mark(j, j->next_id); /* nothing was given out from here on */
    j->idle = true;
    journal_put_back_ready(j);
    journal_end_current(j);
    struct journal_record *r = j->pending;
    j->pending = NULL;
    j->pending_end = &j->pending;
    deliver(r, &j->failure);
}

void journal_free(struct journal *j)
{
    if (!j)
        return;
    journal_free_segments(j);
    task_free(j->flush.task);
    task_free(j->kick);
    task_free(j->keeper.task);
    free(j->flush.iov);
    bytes_done(&j->start_body);
    free(j);
}
