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

static void append_list(struct journal_record ***end, struct journal_record *list)
{
    **end = list;
    while (**end)
        *end = &(**end)->next;
}

bool journal_fits(uint32_t size, const struct place *place, const struct journal_record *r)
{
    uint64_t need =
        (uint64_t)place->at + r->span + place->index_bytes + SEGMENT_ENTRY + r->head_len;
    return need + SEGMENT_FOOTER <= size;
}

struct place journal_place(const struct journal *j)
{
    return (struct place){.at = j->at, .index_bytes = j->index_bytes, .seq = j->next_seq};
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
        .base = f->begin.at,
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
    segment_encode_record(&h, f->segment->salt, r->offset, r->lead);
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

/* Takes from the list what fits, each record to its place; returns the rest. */
static struct journal_record *place_records(struct flush *f, struct journal_record *list)
{
    struct journal_record **tail = &f->first;
    f->end = f->begin;
    for (int n = 0; list && n < JOURNAL_BATCH_RECORDS; n++) {
        struct journal_record *r = list;
        if (!journal_fits(f->segment->size, &f->end, r) ||
            (n > 0 && f->end.at - f->begin.at + r->span > JOURNAL_BATCH_BYTES))
            break;
        list = r->next;
        r->next = NULL;
        r->segment = f->segment;
        r->offset = f->end.at;
        r->seq = f->end.seq++;
        f->end.at += r->span;
        f->end.index_bytes += SEGMENT_ENTRY + r->head_len;
        *tail = r;
        tail = &r->next;
    }
    return list;
}

static struct journal_record *take_joining(struct journal *j)
{
    struct joining *g = &j->joining;
    pthread_mutex_lock(&g->lock);
    struct journal_record *list = g->first;
    g->first = NULL;
    g->end = &g->first;
    pthread_mutex_unlock(&g->lock);
    return list;
}

/* Behind a flush that ended a moment ago. */
static void follow(struct flush *f)
{
    struct journal *j = f->journal;
    f->begin = f->end = j->tail;
    f->left = take_joining(j);
    if (j->tail_open)
        f->left = place_records(f, f->left);
}

static bool write_records(struct flush *f)
{
    const struct fileops *ops = f->journal->ops;
    uint64_t number = f->segment->number;
    int n = 0;
    for (struct journal_record *r = f->first; r; r = r->next)
        n += gather_record(f, r, f->iov + n);
    if (fileops_writev_all(ops, f->fd, f->iov, n, f->begin.at) < 0)
        return error_errno(&f->error, errno, "write journal segment %016" PRIx64, number);
    return flush_sync(ops, f->fd) == 0 ||
           error_errno(&f->error, errno, "sync journal segment %016" PRIx64, number);
}

static void flush_work(void *ctx)
{
    struct flush *f = ctx;
    struct journal *j = f->journal;
    if (f->refuse)
        return;
    if (f->follows)
        follow(f);
    f->ok = !f->first || write_records(f);
    if (!f->first) {
        j->tail_open = j->tail_open && !f->left;
        return;
    }
    j->tail = f->end;
    j->tail_open = f->ok && !f->left;
}

/* ---- a flush, on the loop -------------------------------------------------------------------- */

static bool any_under_way(const struct journal *j)
{
    return j->flush[0].under_way || j->flush[1].under_way;
}

static void flush_begin(struct journal *j, struct flush *f)
{
    f->segment = j->current;
    journal_hold(f->segment);
    f->fd = j->current_fd;
    f->refuse = f->follows = false;
    f->first = f->left = NULL;
}

static void compose(struct journal *j)
{
    struct flush *f = &j->flush[0];
    flush_begin(j, f);
    f->begin = journal_place(j);
    j->pending = place_records(f, j->pending);
    if (!j->pending)
        j->pending_end = &j->pending;
}

static void flush_submit(struct flush *f)
{
    f->under_way = true;
    task_submit(f->task, EXECUTOR_JOURNAL);
}

/* A flush behind the one that is under way, for messages that cannot be amended any more. */
static void send_after(struct journal *j)
{
    struct flush *f = j->flush[0].under_way ? &j->flush[1] : &j->flush[0];
    if (f->under_way)
        return;
    flush_begin(j, f);
    f->follows = true;
    flush_submit(f);
}

static bool may_join(const struct journal *j, const struct journal_record *r)
{
    return r->type == SEGMENT_MESSAGE && any_under_way(j) && j->current && !j->failing &&
           !j->pending && !j->returned;
}

static void join(struct journal *j, struct journal_record *r)
{
    struct joining *g = &j->joining;
    r->next = NULL;
    pthread_mutex_lock(&g->lock);
    *g->end = r;
    g->end = &r->next;
    pthread_mutex_unlock(&g->lock);
}

/* Takes the records that will not wait for a better disk. */
static void refuse(struct journal *j)
{
    struct flush *f = &j->flush[0];
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
    f->left = NULL;
    f->refuse = true;
    f->error = j->failure;
    if (f->first)
        flush_submit(f);
}

void journal_kick(struct journal *j)
{
    if (any_under_way(j))
        return;
    if (!j->current && j->ready)
        (void)journal_adopt_ready(j); /* so that its START tries the disk */
    if (!j->pending)
        return;
    if (journal_blocked(j) && !(j->ready && journal_adopt_ready(j))) {
        journal_maintain(j);
        if (j->failing && !any_under_way(j))
            refuse(j);
        return;
    }
    compose(j);
    flush_submit(&j->flush[0]);
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

/* Takes back the records that must be written, in their order; returns the others. */
static struct journal_record *keep_back(struct journal *j, struct journal_record *r)
{
    struct journal_record *others = NULL;
    struct journal_record **others_end = &others;
    while (r) {
        struct journal_record *next = r->next;
        struct journal_record ***end = r->keep ? &j->returned_end : &others_end;
        r->segment = r->keep ? NULL : r->segment;
        r->next = NULL;
        append_list(end, r);
        r = next;
    }
    return others;
}

static void flush_succeeded(struct journal *j, const struct flush *f)
{
    j->at = f->end.at;
    j->index_bytes = f->end.index_bytes;
    j->next_seq = f->end.seq;
    j->current->end = f->end.at;
    j->flushes++;
    j->written += f->end.at - f->begin.at;
    j->unproven = false;
    for (const struct journal_record *r = f->first; r; r = r->next)
        j->unproven = j->unproven || (r->type != SEGMENT_MARK && r->type != SEGMENT_START);
    journal_works(j);
}

static bool has_joining(struct journal *j)
{
    pthread_mutex_lock(&j->joining.lock);
    bool has = j->joining.first != NULL;
    pthread_mutex_unlock(&j->joining.lock);
    return has;
}

/* What flushes did not write, and what joined too late for any, goes before all that waits. */
static void collect(struct journal *j)
{
    append_list(&j->returned_end, take_joining(j));
    if (!j->returned)
        return;
    *j->returned_end = j->pending; /* not walked: after a long failure it is long */
    if (!j->pending)
        j->pending_end = j->returned_end;
    j->pending = j->returned;
    j->returned = NULL;
    j->returned_end = &j->returned;
}

static void go_on(struct journal *j)
{
    if (!any_under_way(j))
        collect(j);
    else if (j->current && has_joining(j))
        send_after(j);
    journal_kick(j);
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
    struct flush *f = ctx;
    struct journal *j = f->journal;
    struct journal_segment *segment = f->segment;
    struct error err = f->error;
    const struct error *failed = f->refuse || !f->ok ? &err : NULL;
    struct journal_record *r = finish_start(j, f->first, failed);
    if (!failed && f->first) {
        flush_succeeded(j, f);
    } else if (failed && segment) {
        j->next_seq = f->end.seq; /* what was written may have reached the disk */
        journal_abandon(j);
        journal_back_off(j);
        journal_fail(j, &err);
        r = keep_back(j, r);
    }
    f->under_way = false;
    f->first = NULL;
    append_list(&j->returned_end, f->left);
    go_on(j); /* the next flush runs while this one is reported */
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
    bool joins = may_join(j, r);
    if (joins)
        join(j, r);
    else
        push_back(j, r);
    if ((joins || !any_under_way(j)) && !task_under_way(j->kick) && !task_submit_soon(j->kick))
        go_on(j);
}

static void kick_done(void *ctx)
{
    go_on(ctx);
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
    bool idle = j->flushes == j->ticked_flushes && !j->pending && !any_under_way(j);
    j->ticked_flushes = j->flushes;
    if (idle && j->unproven && !j->failing)
        append_mark(j, j->next_id + JOURNAL_ID_RESERVE);
    journal_kick(j);
    journal_maintain(j);
}

/* ---- life ------------------------------------------------------------------------------------ */

static bool make_flush(struct journal *j, struct flush *f)
{
    f->journal = j;
    f->iov = calloc((size_t)JOURNAL_BATCH_RECORDS * IOV_PER_RECORD, sizeof(struct iovec));
    f->task = task_new(j->tasks, flush_work, flush_done, f);
    return f->iov && f->task;
}

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
    j->returned_end = &j->returned;
    j->joining.end = &j->joining.first;
    pthread_mutex_init(&j->joining.lock, NULL);
    j->idle = true;
    bytes_init(&j->start_body, (size_t)JOURNAL_ENDS_MAX * RECORD_END_LEN);
    j->kick = task_new(j->tasks, NULL, kick_done, j);
    j->keeper.task = task_new(j->tasks, journal_keeper_work, journal_keeper_done, j);
    if (make_flush(j, &j->flush[0]) && make_flush(j, &j->flush[1]) && j->kick && j->keeper.task)
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
    flush_work(&j->flush[0]);
    flush_done(&j->flush[0]);
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
    for (size_t i = 0; i < 2; i++) {
        task_free(j->flush[i].task);
        free(j->flush[i].iov);
    }
    task_free(j->kick);
    task_free(j->keeper.task);
    pthread_mutex_destroy(&j->joining.lock);
    bytes_done(&j->start_body);
    free(j);
}
