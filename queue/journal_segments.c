#include "queue/journal_inside.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/random.h>

#include "queue/segfile.h"

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
        journal_maintain(j);
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

/* ---- sealing, on the worker ------------------------------------------------------------------ */

struct seal {
    struct task *task;
    struct journal *journal;
    struct journal_segment *segment;
    struct segment_header header;
    uint32_t end;
    int fd;
};

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
    journal_maintain(j);
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

bool journal_blocked(const struct journal *j)
{
    const struct place here = journal_place(j);
    return !j->current || (j->pending && !journal_fits(j->current->size, &here, j->pending));
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

void journal_abandon(struct journal *j)
{
    struct journal_segment *s = j->current;
    s->proven = s->end = j->at;
    s->failed = true;
    j->failed_segments++;
    j->current = NULL;
    (void)j->ops->close(j->ops->ctx, j->current_fd);
}

void journal_started(struct journal *j, const struct error *err)
{
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

bool journal_adopt_ready(struct journal *j)
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
        journal_abandon(j);
        journal_back_off(j);
        journal_fail(j, &err);
        return false;
    }
    j->start_limit = j->next_id + JOURNAL_ID_RESERVE;
    struct record_start head = {.wall_ms = j->wall_ms, .id_limit = j->start_limit};
    j->start = (struct journal_record){.type = SEGMENT_START};
    j->start.head_len = (uint16_t)record_encode_start(&head, journal_record_head(&j->start));
    j->start.body[0] = (struct iovec){j->start_body.data, j->start_body.len};
    j->start_under_way = true;
    journal_measure(&j->start);
    journal_push_front(j, &j->start);
    return true;
}

/* ---- upkeep ---------------------------------------------------------------------------------- */

void journal_keeper_work(void *ctx)
{
    struct journal *j = ctx;
    struct keeper *k = &j->keeper;
    error_clear(&k->error);
    if (k->chore == CHORE_FILL)
        k->ok = segfile_fill(j->ops, j->dir, j->segment_size, k->filled, k->end, &k->error);
    else if (k->chore == CHORE_PREPARE)
        k->ok = segfile_prepare(j->ops, j->dir, &k->header, k->filled, &k->fd, &k->error);
    else
        k->ok = segfile_remove(j->ops, j->dir, k->header.number, k->recycle, &k->error);
}

static void filled(struct journal *j)
{
    struct keeper *k = &j->keeper;
    uint32_t was = k->filled;
    k->filled = k->ok ? k->end : 0;
    j->bytes = j->bytes - was + k->filled;
    if (!k->ok)
        journal_back_off(j);
}

static void prepared(struct journal *j)
{
    struct keeper *k = &j->keeper;
    j->has_spare = false;
    k->filled = 0;
    if (!k->ok) {
        free(k->segment);
        j->bytes -= j->segment_size;
        journal_back_off(j);
        if (journal_blocked(j))
            journal_fail(j, &k->error);
        return;
    }
    j->ready = k->segment;
    j->ready_fd = k->fd;
    if (j->current)
        journal_works(j);
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
    j->bytes -= k->recycle ? k->filled : s->size;
    k->filled = k->recycle ? 0 : k->filled; /* another file has its place */
    j->failed_segments -= s->failed;
    unlink_segment(j, s);
    free(s);
}

void journal_keeper_done(void *ctx)
{
    struct journal *j = ctx;
    j->keeper.under_way = false;
    if (j->keeper.chore == CHORE_FILL)
        filled(j);
    else if (j->keeper.chore == CHORE_PREPARE)
        prepared(j);
    else
        removed(j);
    journal_kick(j);
    journal_maintain(j);
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
        journal_back_off(j);
        return false;
    }
    s->number = j->next_number++;
    s->size = j->segment_size;
    s->proven = s->end = SEGMENT_BLOCK;
    j->bytes += j->has_spare ? 0 : j->segment_size - k->filled;
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
    if (journal_blocked(
            j)) /* the first failure while records wait is refused at once, not waited for */
        return j->now_ms >= j->retry_at || !j->failing;
    return j->now_ms >= j->retry_at && j->at > j->current->size / 4;
}

static bool may_fill(const struct journal *j)
{
    return !journal_blocked(j) && !j->has_spare && j->keeper.filled < j->segment_size;
}

/* The next segment fills while the current one does, and twice as fast: a segment of zeros at one
 * go would hold up every flush that comes meanwhile. */
static bool begin_fill(struct journal *j)
{
    struct keeper *k = &j->keeper;
    uint32_t due = (j->at - j->current->size / 4) * 2;
    uint32_t left = j->segment_size - k->filled;
    if (due <= k->filled)
        return false;
    k->chore = CHORE_FILL;
    k->end = k->filled + (left < JOURNAL_FILL ? left : JOURNAL_FILL);
    return true;
}

void journal_maintain(struct journal *j)
{
    if (j->keeper.under_way || j->idle)
        return;
    struct journal_segment *s = removable(j);
    bool want = wants_segment(j);
    if (want && (j->has_spare || !s)) {
        if (!(may_fill(j) ? begin_fill(j) : begin_prepare(j)))
            return;
    } else if (s) {
        begin_remove(j, s);
    } else {
        return;
    }
    j->keeper.under_way = true;
    task_submit(j->keeper.task, EXECUTOR_CONTENT);
}

/* ---- the beginning and the end --------------------------------------------------------------- */

void journal_end_current(struct journal *j)
{
    struct error err = ERROR_INIT;
    if (!j->current)
        return;
    if (j->failing) {
        journal_abandon(j);
        return;
    }
    struct segment_header h = header_of(j->current);
    (void)segfile_seal(j->ops, j->current_fd, &h, j->at, &err);
    (void)j->ops->close(j->ops->ctx, j->current_fd);
    j->current = NULL;
}

void journal_put_back_ready(struct journal *j)
{
    struct error err = ERROR_INIT;
    if (!j->ready)
        return;
    (void)j->ops->close(j->ops->ctx, j->ready_fd);
    (void)segfile_remove(j->ops, j->dir, j->ready->number, !j->has_spare, &err);
    free(j->ready);
    j->ready = NULL;
}

void journal_prepare_now(struct journal *j)
{
    struct error err = ERROR_INIT;
    if (begin_prepare(j)) {
        journal_keeper_work(j);
        prepared(j);
        return;
    }
    error_set(&err, ERROR_NO_ROOM, "no memory for a journal segment");
    journal_fail(j, &err);
}

void journal_free_segments(struct journal *j)
{
    while (j->first) {
        struct journal_segment *s = j->first;
        unlink_segment(j, s);
        free(s);
    }
}

/* ---- looking --------------------------------------------------------------------------------- */

struct journal_segment *journal_oldest(const struct journal *j)
{
    return j->first != j->current ? j->first : NULL;
}

struct journal_segment *journal_next(const struct journal *j, uint64_t after)
{
    struct journal_segment *s = j->first;
    while (s && s->number <= after)
        s = s->next;
    return s;
}

struct record_end journal_extent(const struct journal *j, const struct journal_segment *s)
{
    return (struct record_end){
        .number = s->number, .proven = s == j->current ? s->end : s->proven, .end = s->end};
}

void journal_stats(const struct journal *j, struct journal_stats *out)
{
    *out = (struct journal_stats){
        .segments = j->segments,
        .bytes = j->bytes,
        .flushes = j->flushes,
        .written = j->written,
        .failing = j->failing,
        .errnum = j->failing ? j->failure.errnum : 0,
    };
}

const char *journal_failure(const struct journal *j)
{
    return j->failing ? j->failure.text : "";
}
