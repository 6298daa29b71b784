#include "queue/journal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "queue/bytes.h"
#include "queue/segfile.h"

#define IOV_PER_RECORD 4 /* header with head, two parts of the body, padding */

/* What is written by one flush. Belongs to the worker between submit and done. */
struct flush {
    struct task *task;
    struct journal_record *first;
    struct journal_segment *segment; /* held until every record has been reported */
    struct iovec *iov;
    uint64_t salt;
    uint32_t offset; /* of the first record; everything before it is durable */
    uint32_t end;
    int fd;
    bool under_way;
    bool refuse; /* writes nothing: delivers `error` to its records */
    bool ok;
    struct error error;
};

enum chore { CHORE_PREPARE, CHORE_REMOVE };

/* Upkeep of the segment files, one thing at a time. */
struct keeper {
    struct task *task;
    enum chore chore;
    bool under_way;
    bool recycle;
    bool ok;
    int fd;
    struct journal_segment *segment;
    struct segment_header header;
    struct error error;
};

struct seal {
    struct task *task;
    struct journal *journal;
    struct journal_segment *segment;
    struct segment_header header;
    uint32_t end;
    int fd;
};

struct journal {
    const struct fileops *ops;
    const char *dir;
    struct tasks *tasks;
    struct journal_segment *first;
    struct journal_segment *last;
    struct journal_segment *current;
    struct journal_segment *ready; /* prepared, in no list yet */
    int current_fd;
    int ready_fd;
    uint32_t at;          /* of the current segment: durable up to here, the next record goes here */
    uint32_t index_bytes; /* what its index will take */
    struct journal_record *pending;
    struct journal_record **pending_end;
    struct journal_record start;
    struct bytes start_body;
    struct journal_record mark;
    struct flush flush;
    struct keeper keeper;
    uint64_t next_seq;
    uint64_t next_id;
    uint64_t next_number;
    uint64_t id_limit;    /* durable: ids below it may be given out */
    uint64_t start_limit; /* of the START and MARK under way */
    uint64_t mark_limit;
    uint64_t now_ms;
    uint64_t wall_ms;
    uint64_t retry_at;
    uint64_t retry_wait;
    uint64_t remove_at;
    uint64_t bytes;
    uint64_t segments;
    uint64_t failed_segments;
    uint64_t flushes;
    uint64_t ticked_flushes;
    uint32_t segment_size;
    bool start_under_way;
    bool mark_under_way;
    bool unproven; /* something is durable that no later record vouches for */
    bool has_spare;
    bool idle; /* not begun, or closing: no upkeep */
    bool failing;
    struct error failure;
};

static void kick(struct journal *j);
static void maintain(struct journal *j);

uint8_t *journal_record_head(struct journal_record *r)
{
    return r->lead + SEGMENT_RECORD_HEADER;
}

/* ---- the list of segments -------------------------------------------------------------------- */

static void link_segment(struct journal *j, struct journal_segment *s)
{
    s->next = NULL;
    s->prev = j->last;
    if (j->last)
        j->last->next = s;
    else
        j->first = s;
    j->last = s;
    j->segments++;
}

static void unlink_segment(struct journal *j, struct journal_segment *s)
{
    if (s->prev)
        s->prev->next = s->next;
    else
        j->first = s->next;
    if (s->next)
        s->next->prev = s->prev;
    else
        j->last = s->prev;
    j->segments--;
}

static struct segment_header header_of(const struct journal_segment *s)
{
    return (struct segment_header){.number = s->number, .salt = s->salt, .size = s->size};
}

void journal_hold(struct journal_segment *s)
{
    s->holds++;
}

void journal_drop(struct journal *j, struct journal_segment *s)
{
    assert(s->holds > 0);
    if (--s->holds == 0)
        maintain(j);
}

/* ---- failing --------------------------------------------------------------------------------- */

static void fail(struct journal *j, const struct error *err)
{
    j->failure = *err;
    j->failing = true;
}

static void recovered(struct journal *j)
{
    j->failing = false;
    j->retry_wait = 0;
    error_clear(&j->failure);
}

static void back_off(struct journal *j)
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

static void push_front(struct journal *j, struct journal_record *r)
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

static bool fits(const struct journal *j, const struct journal_record *r, uint32_t at)
{
    uint64_t need = (uint64_t)at + r->span + j->index_bytes + SEGMENT_ENTRY + r->head_len;
    return need + SEGMENT_FOOTER <= j->current->size;
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

/* ---- sealing, on the worker ------------------------------------------------------------------ */

static void seal_work(void *ctx)
{
    struct seal *s = ctx;
    struct error err = ERROR_INIT;
    /* A segment that could not be sealed is searched at the next start: slower, not worse. */
    (void)segfile_seal(s->journal->ops, s->fd, &s->header, s->end, &err);
    (void)s->journal->ops->close(s->journal->ops->ctx, s->fd);
}

static void seal_done(void *ctx)
{
    struct seal *s = ctx;
    struct journal *j = s->journal;
    s->segment->busy = false;
    task_free(s->task);
    free(s);
    maintain(j);
}

static struct seal *seal_new(struct journal *j)
{
    struct seal *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->journal = j;
    s->task = task_new(j->tasks, seal_work, seal_done, s);
    if (s->task)
        return s;
    free(s);
    return NULL;
}

/* ---- which segment is written ---------------------------------------------------------------- */

/* Ends the current segment: everything in it is durable. */
static void retire(struct journal *j)
{
    struct journal_segment *s = j->current;
    s->proven = s->end = j->at;
    j->current = NULL;
    struct seal *seal = s->holds > 0 ? seal_new(j) : NULL;
    if (!seal) {
        (void)j->ops->close(j->ops->ctx, j->current_fd);
        return;
    }
    s->busy = true;
    seal->segment = s;
    seal->header = header_of(s);
    seal->end = s->end;
    seal->fd = j->current_fd;
    task_submit(seal->task, EXECUTOR_CONTENT);
}

/* Ends the current segment after a failure: what is in it from `at` on is void. */
static void abandon(struct journal *j)
{
    struct journal_segment *s = j->current;
    s->proven = s->end = j->at;
    s->failed = true;
    j->failed_segments++;
    j->current = NULL;
    (void)j->ops->close(j->ops->ctx, j->current_fd);
}

static void start_done(struct journal_record *r, const struct error *err)
{
    struct journal *j = (struct journal *)((char *)r - offsetof(struct journal, start));
    j->start_under_way = false;
    if (!err && j->start_limit > j->id_limit)
        j->id_limit = j->start_limit;
}

/* The newest of the other segments: what of them counts. */
static bool list_ends(struct journal *j, struct bytes *out)
{
    const struct journal_segment *s = j->current->prev;
    bytes_clear(out);
    for (int n = 0; s && n < JOURNAL_ENDS_MAX; s = s->prev, n++) {
        struct record_end end = {.number = s->number, .proven = s->proven, .end = s->end};
        uint8_t p[RECORD_END_LEN];
        record_encode_end(&end, p);
        if (!bytes_append(out, p, sizeof(p)))
            return false;
    }
    return true;
}

static void prepare_record(struct journal_record *r)
{
    size_t body_len = r->body[0].iov_len + r->body[1].iov_len;
    assert(body_len <= SEGMENT_BODY_MAX && r->head_len <= RECORD_HEAD_MAX);
    r->span = segment_span(r->head_len, body_len);
}

/* Begins to write the prepared segment; its START goes in front of everything that waits. */
static bool adopt_ready(struct journal *j)
{
    assert(!j->start_under_way);
    if (j->current)
        retire(j);
    link_segment(j, j->ready);
    j->current = j->ready;
    j->current_fd = j->ready_fd;
    j->ready = NULL;
    j->at = SEGMENT_BLOCK;
    j->index_bytes = 0;
    if (!list_ends(j, &j->start_body)) {
        struct error err = ERROR_INIT;
        error_set(&err, ERROR_NO_ROOM, "no memory to begin a journal segment");
        abandon(j);
        back_off(j);
        fail(j, &err);
        return false;
    }
    j->start_limit = j->next_id + JOURNAL_ID_RESERVE;
    struct record_start head = {.wall_ms = j->wall_ms, .id_limit = j->start_limit};
    j->start = (struct journal_record){.type = SEGMENT_START, .done = start_done};
    j->start.head_len = (uint16_t)record_encode_start(&head, journal_record_head(&j->start));
    j->start.body[0] = (struct iovec){j->start_body.data, j->start_body.len};
    j->start_under_way = true;
    prepare_record(&j->start);
    push_front(j, &j->start);
    return true;
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
        if (!fits(j, r, f->end) || (n > 0 && f->end - f->offset + r->span > JOURNAL_BATCH_BYTES))
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

static bool blocked(const struct journal *j)
{
    return !j->current || (j->pending && !fits(j, j->pending, j->at));
}

static void kick(struct journal *j)
{
    if (j->flush.under_way)
        return;
    if (!j->current && j->ready)
        (void)adopt_ready(j); /* so that its START tries the disk */
    if (!j->pending)
        return;
    if (blocked(j) && !(j->ready && adopt_ready(j))) {
        maintain(j);
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
    j->unproven = false;
    for (const struct journal_record *r = f->first; r; r = r->next)
        j->unproven = j->unproven || (r->type != SEGMENT_MARK && r->type != SEGMENT_START);
    recovered(j);
}

/* The START is the journal's own and must be free before another segment is begun. */
static struct journal_record *finish_start(struct journal *j, struct journal_record *r,
                                           const struct error *err)
{
    if (r != &j->start)
        return r;
    start_done(r, err);
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
        abandon(j);
        back_off(j);
        fail(j, &err);
        r = keep_back(j, r);
    }
    f->under_way = false;
    f->first = NULL;
    kick(j); /* the next flush runs while this one is reported */
    deliver(r, failed);
    if (segment)
        journal_drop(j, segment);
    maintain(j);
}

void journal_append(struct journal *j, struct journal_record *r)
{
    prepare_record(r);
    push_back(j, r);
    kick(j);
}

/* ---- upkeep ---------------------------------------------------------------------------------- */

static void keeper_work(void *ctx)
{
    struct journal *j = ctx;
    struct keeper *k = &j->keeper;
    error_clear(&k->error);
    if (k->chore == CHORE_PREPARE)
        k->ok = segfile_prepare(j->ops, j->dir, &k->header, &k->fd, &k->error);
    else
        k->ok = segfile_remove(j->ops, j->dir, k->header.number, k->recycle, &k->error);
}

static void prepared(struct journal *j)
{
    struct keeper *k = &j->keeper;
    j->has_spare = false;
    if (!k->ok) {
        free(k->segment);
        j->bytes -= j->segment_size;
        back_off(j);
        if (blocked(j))
            fail(j, &k->error);
        return;
    }
    j->ready = k->segment;
    j->ready_fd = k->fd;
    if (j->current)
        recovered(j);
}

static void removed(struct journal *j)
{
    struct keeper *k = &j->keeper;
    struct journal_segment *s = k->segment;
    s->busy = false;
    if (!k->ok) {
        j->remove_at = j->now_ms + JOURNAL_RETRY_MAX_MS;
        return;
    }
    j->has_spare = j->has_spare || k->recycle;
    j->bytes -= k->recycle ? 0 : s->size;
    j->failed_segments -= s->failed;
    unlink_segment(j, s);
    free(s);
}

static void keeper_done(void *ctx)
{
    struct journal *j = ctx;
    j->keeper.under_way = false;
    if (j->keeper.chore == CHORE_PREPARE)
        prepared(j);
    else
        removed(j);
    kick(j);
    maintain(j);
}

static bool fill_salt(uint64_t *out)
{
    return getrandom(out, sizeof(*out), 0) == (ssize_t)sizeof(*out) && *out != 0;
}

static bool begin_prepare(struct journal *j)
{
    struct keeper *k = &j->keeper;
    struct journal_segment *s = calloc(1, sizeof(*s));
    if (!s || !fill_salt(&s->salt)) {
        free(s);
        back_off(j);
        return false;
    }
    s->number = j->next_number++;
    s->size = j->segment_size;
    s->proven = s->end = SEGMENT_BLOCK;
    j->bytes += j->has_spare ? 0 : j->segment_size;
    k->chore = CHORE_PREPARE;
    k->segment = s;
    k->header = header_of(s);
    return true;
}

static void begin_remove(struct journal *j, struct journal_segment *s)
{
    struct keeper *k = &j->keeper;
    s->busy = true;
    k->chore = CHORE_REMOVE;
    k->segment = s;
    k->header = header_of(s);
    k->recycle = !j->has_spare && !s->failed && s->size == j->segment_size;
}

/* A segment in which nothing ever counted: it may go out of order. */
static struct journal_segment *never_counted(const struct journal *j)
{
    struct journal_segment *s = j->failed_segments > 0 ? j->first : NULL;
    while (s && (s == j->current || !s->failed || s->end > SEGMENT_BLOCK || s->holds || s->busy))
        s = s->next;
    return s;
}

static struct journal_segment *removable(const struct journal *j)
{
    if (j->now_ms < j->remove_at)
        return NULL;
    struct journal_segment *s = never_counted(j);
    if (s)
        return s;
    s = journal_oldest(j);
    bool started = j->current && j->at > SEGMENT_BLOCK; /* its START is durable */
    return s && started && s->holds == 0 && !s->busy ? s : NULL;
}

static bool wants_segment(const struct journal *j)
{
    if (j->ready)
        return false;
    if (blocked(j)) /* the first failure while records wait is refused at once, not waited for */
        return j->now_ms >= j->retry_at || !j->failing;
    return j->now_ms >= j->retry_at && j->at > j->current->size / 4;
}

static void maintain(struct journal *j)
{
    if (j->keeper.under_way || j->idle)
        return;
    struct journal_segment *s = removable(j);
    bool want = wants_segment(j);
    if (want && (j->has_spare || !s)) {
        if (!begin_prepare(j))
            return;
    } else if (s) {
        begin_remove(j, s);
    } else {
        return;
    }
    j->keeper.under_way = true;
    task_submit(j->keeper.task, EXECUTOR_CONTENT);
}

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
    kick(j);
    maintain(j);
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
    j->keeper.task = task_new(j->tasks, keeper_work, keeper_done, j);
    if (j->flush.iov && j->flush.task && j->keeper.task)
        return j;
    journal_free(j);
    return NULL;
}

struct journal_segment *journal_adopt(struct journal *j, const struct segment_header *h,
                                      const struct record_end *end)
{
    struct journal_segment *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->number = h->number;
    s->salt = h->salt;
    s->size = h->size;
    s->proven = end->proven;
    s->end = end->end;
    link_segment(j, s);
    j->bytes += s->size;
    return s;
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
    if (!begin_prepare(j)) {
        error_set(&j->keeper.error, ERROR_NO_ROOM, "no memory for a journal segment");
        fail(j, &j->keeper.error);
        return;
    }
    keeper_work(j);
    prepared(j);
    if (!j->ready || !adopt_ready(j))
        return;
    compose(j);
    flush_work(j);
    flush_done(j);
}

static void seal_current(struct journal *j)
{
    struct error err = ERROR_INIT;
    struct segment_header h = header_of(j->current);
    (void)segfile_seal(j->ops, j->current_fd, &h, j->at, &err);
    (void)j->ops->close(j->ops->ctx, j->current_fd);
    j->current = NULL;
}

static void spare_ready(struct journal *j)
{
    struct error err = ERROR_INIT;
    (void)j->ops->close(j->ops->ctx, j->ready_fd);
    (void)segfile_remove(j->ops, j->dir, j->ready->number, !j->has_spare, &err);
    free(j->ready);
    j->ready = NULL;
}

void journal_close(struct journal *j)
{
    if (j->current && !j->failing)
        append_mark(j, j->next_id); /* nothing was given out from here on */
    j->idle = true;
    if (j->ready)
        spare_ready(j);
    if (j->current && !j->failing)
        seal_current(j);
    else if (j->current)
        abandon(j);
    struct journal_record *r = j->pending;
    j->pending = NULL;
    j->pending_end = &j->pending;
    deliver(r, &j->failure);
}

void journal_free(struct journal *j)
{
    if (!j)
        return;
    while (j->first) {
        struct journal_segment *s = j->first;
        unlink_segment(j, s);
        free(s);
    }
    task_free(j->flush.task);
    task_free(j->keeper.task);
    free(j->flush.iov);
    bytes_done(&j->start_body);
    free(j);
}

/* ---- looking --------------------------------------------------------------------------------- */

struct journal_segment *journal_oldest(const struct journal *j)
{
    return j->first != j->current ? j->first : NULL;
}

void journal_stats(const struct journal *j, struct journal_stats *out)
{
    *out = (struct journal_stats){
        .segments = j->segments,
        .bytes = j->bytes,
        .flushes = j->flushes,
        .failing = j->failing,
    };
}

const char *journal_failure(const struct journal *j)
{
    return j->failing ? j->failure.text : "";
}
