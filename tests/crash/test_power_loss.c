/*
 * Power is lost before each call that changes the disk. Of what was not synced then, the disk that
 * is found may hold nothing, all, or any choice that the model allows (see recording_fileops.h);
 * each such disk is opened, looked at, and worked with, and on some of them power is lost again.
 *
 * What must be found is what the queue had promised up to that moment: every message whose commit
 * was reported, octet for octet, with the newest outcomes that were reported durable or newer ones;
 * in doubt what was marked so; nothing that was reported gone; nothing half, nothing twice, and
 * nothing taken for damage.
 *
 * The same checks then prove themselves: each kind of sync in turn does nothing, and that must be
 * found out.
 *
 * Not every image is tried: OUTTRAY_POWER_LOSS=N tries N times as many, and from 12 on all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "queue/queue.h"
#include "tests/crash/recording_fileops.h"
#include "tests/unit/spool_fixture.h"

#define MAIL_MAX     256
#define SMALL        900u
#define MEDIUM       60000u
#define LARGE        (3u * QUEUE_BLOCK + 100u)
#define PATTERN      (512u * 1024u)
#define CHUNK        16384u
#define DEPTH_MAX    2  /* losses of power, one after the other */
#define CHOICES      2  /* of the images of a moment, beside the extreme ones */
#define AGAIN_EVERY  23 /* of the images is worked with while power is lost again */
#define LIVE_EVERY   5  /* of the images is worked with */
#define ZEROS_EVERY  12 /* of the moments within the filling of a file with zeros is looked at */
#define THIN         12
#define REPLY_LENGTH 32
#define BURST        44 /* messages: more than a segment holds */

/* ---- what is known of a message -------------------------------------------------------------- */

struct mail {
    uint64_t id;
    const uint8_t *data;
    uint32_t size;
    uint32_t recipients;
    uint32_t asked;   /* attempts that were settled */
    uint32_t durable; /* of them, were reported durable */
    bool offered;     /* a commit was asked for */
    bool accepted;    /* and reported durable */
    bool refused;     /* or reported to have failed */
    bool leaving;     /* its end was asked for */
    bool gone;        /* and reported durable */
    bool doubt_asked; /* since the last settle */
    bool doubted;     /* and reported durable */
    bool was_doubted; /* at the last settle */
};

/* The syncs that there are, by what they make durable. Two are not missed when they do nothing:
 * without SYNC_FOOTER a start searches a segment whose index it would have read, and without
 * SYNC_FORMAT_NAME it writes the format again. */
enum sync {
    SYNC_NONE,
    SYNC_RECORDS,      /* a flush of the journal */
    SYNC_FOUND,        /* records that a start has read */
    SYNC_FOOTER,       /* index and footer of a full segment */
    SYNC_NEW_SEGMENT,  /* header and zeros, before the name */
    SYNC_BODY,         /* a large mail's */
    SYNC_FORMAT,       /* the format file's text */
    SYNC_SPOOL_NAME,   /* the spool in its parent */
    SYNC_DIRECTORIES,  /* journal, content and damaged in the spool */
    SYNC_FORMAT_NAME,  /* the format file in the spool */
    SYNC_BODY_NAME,    /* a body in content */
    SYNC_SEGMENT_NAME, /* a new segment in journal */
    SYNC_REMOVAL,      /* of a segment from journal */
    SYNC_FOUND_NAMES,  /* of journal, as a start has listed them */
    SYNC_OTHER
};

/* The n-th call of a kind. */
struct point {
    enum recording_kind kind;
    const char *name; /* the name's end */
    const char *to;
    unsigned nth; /* the first is 1; 0: none */
};

struct campaign {
    const char *scenario;
    enum recording_model model;
    enum sync lie;    /* this sync does nothing */
    unsigned choices; /* of a moment */
    unsigned tried;   /* of THIN images */
    uint64_t images;
    uint8_t *pattern;
    char failure[400]; /* the first; "" while there is none */
};

struct world {
    struct recording disk;
    struct spool_fixture f; /* its directory is on the disk above */
    struct campaign *c;
    struct mail mail[MAIL_MAX];
    size_t count;
    unsigned depth;
    bool watched;                  /* power is lost at each moment */
    void (*then)(struct world *w); /* what is done with every image; NULL: go_on() with some */
    uint64_t moment;
    enum recording_image image; /* that it was made as */
    uint64_t seed;
    struct point kill; /* is the last that works */
    struct point fail; /* a sync that fails */
    unsigned kill_seen;
    unsigned fail_seen;
    enum sync spool_names; /* what the next sync of the directory is for */
    enum sync journal_names;
    unsigned syncs;    /* of segments */
    unsigned followed; /* flushes behind others, without a word from the loop */
    unsigned stopped;  /* those behind one that has failed */
};

static void look(struct world *w);

__attribute__((format(printf, 3, 4))) static void blame(struct world *w, const struct mail *m,
                                                        const char *format, ...)
{
    static const char *const models[] = {"posix", "journal"};
    struct campaign *c = w->c;
    char what[200];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    if (!c->failure[0])
        snprintf(c->failure, sizeof(c->failure),
                 "%s, %s, loss %u, moment %llu, image %d of seed %llx: message %llx (%u octets) %s",
                 c->scenario, models[c->model], w->depth, (unsigned long long)w->moment,
                 (int)w->image, (unsigned long long)w->seed, m ? (unsigned long long)m->id : 0,
                 m ? m->size : 0, what);
}

/* ---- looking at what is found ---------------------------------------------------------------- */

/* What the attempt number n says of recipient i: each one after the first delivers to one more. */
static enum recipient_state outcome(uint32_t n, size_t i, char reply[REPLY_LENGTH])
{
    bool delivered = n > 1 && i < n - 1;
    snprintf(reply, REPLY_LENGTH, "%s", delivered ? "250 2.0.0 taken" : "");
    if (n > 0 && !delivered)
        snprintf(reply, REPLY_LENGTH, "451 4.3.2 attempt %u", n);
    return delivered ? RECIPIENT_DELIVERED : RECIPIENT_PENDING;
}

static bool has_outcomes(const struct envelope *e, uint32_t n)
{
    for (size_t i = 0; i < e->recipient_count; i++) {
        char reply[REPLY_LENGTH];
        if (e->recipients[i].state != outcome(n, i, reply) ||
            strcmp(e->recipients[i].reply, reply) != 0)
            return false;
    }
    return true;
}

static void verify_content(struct world *w, const struct mail *m, uint32_t attempts)
{
    struct fixture_mail read;
    fixture_read(&w->f, m->id, &read);
    if (read.error.kind != ERROR_NONE)
        blame(w, m, "cannot be read: %.120s", read.error.text);
    else if (read.data.len != m->size || memcmp(read.data.data, m->data, m->size) != 0)
        blame(w, m, "reads back as something else");
    else if (read.envelope.recipient_count != m->recipients)
        blame(w, m, "has %zu recipients", read.envelope.recipient_count);
    else if (!has_outcomes(&read.envelope, attempts))
        blame(w, m, "has other outcomes than those of attempt %u", attempts);
    fixture_mail_done(&read);
}

/* A message whose last settle did not survive is as it was before: in doubt, if it was marked. */
static void verify_state(struct world *w, const struct mail *m, const struct queue_info *info)
{
    bool newest = info->attempts == m->asked;
    bool must = newest ? m->doubted : m->was_doubted && info->attempts + 1 == m->asked;
    bool may = newest ? m->doubt_asked : true;
    bool uncertain = info->state == QUEUE_UNCERTAIN;
    if (!uncertain && info->state != QUEUE_QUEUED)
        blame(w, m, "is %s", queue_state_name(info->state));
    if (must && !uncertain)
        blame(w, m, "was in doubt and is not uncertain");
    if (uncertain && !may)
        blame(w, m, "was never in doubt and is uncertain");
}

static void verify_mail(struct world *w, const struct mail *m)
{
    struct queue_info info;
    bool present = queue_find(w->f.queue, m->id, &info);
    if (m->accepted && !m->leaving && !present)
        blame(w, m, "was acknowledged and is lost");
    if (!present)
        return;
    if (m->gone)
        blame(w, m, "was gone and is back");
    if (!m->offered)
        blame(w, m, "is there though its commit was never asked for");
    if (info.attempts < m->durable || info.attempts > m->asked)
        blame(w, m, "has %u attempts, not %u to %u", info.attempts, m->durable, m->asked);
    verify_state(w, m, &info);
    verify_content(w, m, info.attempts);
}

static struct mail *find(struct world *w, uint64_t id)
{
    for (size_t i = 0; i < w->count; i++)
        if (w->mail[i].id == id)
            return &w->mail[i];
    return NULL;
}

static void verify(struct world *w)
{
    struct queue_info info = {0};
    struct queue_counts counts;
    if (w->f.found.damaged > 0)
        blame(w, NULL, "%llu taken for damage", (unsigned long long)w->f.found.damaged);
    while (queue_list(w->f.queue, info.id, &info)) /* rises strictly: nothing is there twice */
        if (!find(w, info.id))
            blame(w, NULL, "%llx is there and was never accepted", (unsigned long long)info.id);
    for (size_t i = 0; i < w->count && !w->c->failure[0]; i++)
        verify_mail(w, &w->mail[i]);
    queue_counts(w->f.queue, &counts);
    if (counts.failing)
        blame(w, NULL, "cannot be written: %.150s", counts.failure);
}

/* From here on what was found is what is promised. */
static void adopt(struct world *w)
{
    for (size_t i = 0; i < w->count; i++) {
        struct mail *m = &w->mail[i];
        struct queue_info info;
        bool present = queue_find(w->f.queue, m->id, &info);
        m->accepted = present;
        m->gone = !present;
        m->leaving = false;
        if (!present)
            continue;
        m->durable = m->asked = info.attempts;
        m->doubted = m->doubt_asked = info.state == QUEUE_UNCERTAIN;
        m->was_doubted = false;
    }
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void committed(void *ctx, uint64_t id, const struct error *err)
{
    struct mail *m = ctx;
    (void)id;
    m->accepted = m->accepted || !err;
    m->refused = m->refused || err;
}

static void drained(void *ctx)
{
    (void)ctx;
}

/* Begins a message and appends its data. NULL when it is refused. */
static struct queue_writer *begin(struct world *w, uint32_t size, uint32_t recipients)
{
    struct error err = ERROR_INIT;
    assert_true(w->count < MAIL_MAX);
    struct queue_writer *writer = queue_begin(w->f.queue, LANE_NORMAL, drained, NULL, &err);
    if (!writer)
        return NULL;
    struct mail *m = &w->mail[w->count++];
    *m = (struct mail){.id = queue_writer_id(writer), .size = size, .recipients = recipients};
    m->data = w->c->pattern + m->id * 1009 % (PATTERN - LARGE);
    for (size_t at = 0; at < size; at += CHUNK) {
        size_t len = size - at < CHUNK ? size - at : CHUNK;
        enum queue_flow flow = queue_append(writer, m->data + at, len, &err);
        if (flow == QUEUE_FLOW_ERROR)
            break;
        if (flow == QUEUE_FLOW_FULL)
            fixture_run(&w->f);
    }
    return writer;
}

/* Accepts a message, but does not run the executor. */
static struct mail *offer(struct world *w, uint32_t size, uint32_t recipients)
{
    struct envelope e;
    struct queue_writer *writer = begin(w, size, recipients);
    if (!writer)
        return NULL;
    struct mail *m = &w->mail[w->count - 1];
    m->offered = true;
    fixture_envelope(&e, recipients);
    queue_commit(writer, &e, w->f.now_ms, FIXTURE_WALL + w->f.now_ms, committed, m);
    envelope_done(&e);
    return m;
}

static struct mail *accept_one(struct world *w, uint32_t size, uint32_t recipients)
{
    struct mail *m = offer(w, size, recipients);
    fixture_run(&w->f);
    return m;
}

static struct mail *lease(struct world *w)
{
    struct queue_info info;
    return fixture_pick(&w->f, &info) ? find(w, info.id) : NULL;
}

static void marked(void *ctx, const struct error *err)
{
    struct mail *m = ctx;
    m->doubted = m->doubted || !err;
}

static struct mail *doubt(struct world *w, struct mail *m)
{
    if (!m)
        return NULL;
    m->doubt_asked = true;
    queue_doubt(w->f.queue, m->id, FIXTURE_WALL, marked, m);
    fixture_run(&w->f);
    return m;
}

static void settled(void *ctx, const struct error *err)
{
    struct mail *m = ctx;
    m->durable += !err;
}

static void ended(void *ctx, const struct error *err)
{
    struct mail *m = ctx;
    m->gone = m->gone || !err;
}

static void settle(struct world *w, struct mail *m, enum queue_state state, queue_done_fn *done)
{
    struct envelope e;
    fixture_envelope(&e, m->recipients);
    for (size_t i = 0; i < m->recipients; i++) {
        char reply[REPLY_LENGTH];
        e.recipients[i].state = outcome(m->asked, i, reply);
        assert_true(envelope_set(&e.recipients[i].reply, reply));
    }
    struct queue_attempt attempt = {
        .envelope = &e, .state = state, .wait_ms = 60000, .tried_ms = 5000, .counts = true};
    queue_settle(w->f.queue, m->id, &attempt, w->f.now_ms, FIXTURE_WALL + w->f.now_ms, done, m);
    envelope_done(&e);
}

/* Neither runs the executor. */
static void defer(struct world *w, struct mail *m)
{
    if (!m)
        return;
    m->was_doubted = m->doubted;
    m->doubted = m->doubt_asked = false;
    m->asked++;
    settle(w, m, QUEUE_QUEUED, settled);
}

static void deliver(struct world *w, struct mail *m)
{
    if (!m)
        return;
    m->leaving = true;
    settle(w, m, QUEUE_GONE, ended);
}

static void delete_one(struct world *w, struct mail *m)
{
    struct error err = ERROR_INIT;
    if (!m)
        return;
    m->leaving = true;
    m->leaving = queue_delete(w->f.queue, m->id, ended, m, &err);
}

static bool open_spool(struct world *w)
{
    struct error err = ERROR_INIT;
    w->spool_names = w->journal_names = SYNC_NONE;
    if (fixture_open(&w->f, &err))
        return true;
    if (!w->disk.stopped)
        blame(w, NULL, "cannot be opened: %.150s", err.text);
    return false;
}

/* ---- worlds ---------------------------------------------------------------------------------- */

static enum recording_answer on_call(void *ctx, struct recording *disk,
                                     const struct recording_call *call);

static struct world *world_new(struct campaign *c)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->c = c;
    w->f.now_ms = 1000000;
    inline_executor_init(&w->f.executor, false);
    w->f.options = (struct queue_options){
        .dir = "/spool",
        .ops = &w->disk.ops,
        .segment_size = 1536 * 1024,
        .uncertain_wait_ms = 900000,
    };
    return w;
}

static void listen_to(struct world *w)
{
    w->disk.before = on_call;
    w->disk.ctx = w;
}

static void world_free(struct world *w)
{
    if (w->f.queue)
        fixture_close(&w->f);
    recording_done(&w->disk);
    free(w);
}

/* What a program does that goes on where another left off. */
static void go_on(struct world *w)
{
    accept_one(w, SMALL, 2);
    accept_one(w, LARGE, 1);
    deliver(w, doubt(w, lease(w)));
    fixture_run(&w->f);
    w->f.now_ms += 1000000; /* what was uncertain is due */
    defer(w, doubt(w, lease(w)));
    fixture_run(&w->f);
    (void)doubt(w, lease(w));
    fixture_tick(&w->f, 2);
}

/* Opens an image; works with it, when it is one of those. */
static void try_image(const struct world *w, enum recording_image image, uint64_t seed)
{
    if (seed / 64 % THIN >= w->c->tried)
        return;
    struct world *next = world_new(w->c);
    bool again = w->depth + 1 < DEPTH_MAX && seed % AGAIN_EVERY == 0;
    next->depth = w->depth + 1;
    next->image = image;
    next->seed = seed;
    next->moment = w->moment;
    next->f.now_ms = w->f.now_ms;
    next->count = w->count;
    memcpy(next->mail, w->mail, w->count * sizeof(w->mail[0]));
    recording_image(&w->disk, image, seed, &next->disk);
    listen_to(next);
    next->watched = again;
    w->c->images++;
    if (open_spool(next)) {
        verify(next);
        adopt(next);
        if (again || w->then || seed % LIVE_EVERY == 0) {
            (w->then ? w->then : go_on)(next);
            fixture_close(&next->f);
            if (open_spool(next))
                verify(next);
        }
        next->disk.stopped = true;
    }
    world_free(next);
}

static uint64_t seed_of(const struct world *w, uint64_t n)
{
    return (w->moment * 64 + n) * 2654435761u + w->seed;
}

static void look(struct world *w)
{
    bool names = recording_unsynced_names(&w->disk);
    bool octets = recording_unsynced_octets(&w->disk);
    try_image(w, IMAGE_SYNCED, seed_of(w, 0));
    if (w->depth == 0 && (names || octets))
        try_image(w, IMAGE_ALL, seed_of(w, 1));
    if (w->depth == 0 && names && octets) {
        try_image(w, IMAGE_NAMES, seed_of(w, 2));
        try_image(w, IMAGE_OCTETS, seed_of(w, 3));
    }
    for (unsigned i = 0; i < w->c->choices && (names || octets); i++)
        try_image(w, IMAGE_CHOICE, seed_of(w, 4 + i));
}

/* ---- the calls ------------------------------------------------------------------------------- */

static bool ends_in(const char *name, const char *end)
{
    size_t len = strlen(name);
    size_t end_len = strlen(end);
    return len >= end_len && strcmp(name + len - end_len, end) == 0;
}

static bool is_segment(const char *name)
{
    return ends_in(name, ".seg") && strcmp(name, "spare.seg") != 0;
}

static enum sync file_sync(const struct recording_call *call)
{
    if (is_segment(call->name) && !call->made)
        return SYNC_FOUND;
    if (is_segment(call->name))
        return call->at_end ? SYNC_FOOTER : SYNC_RECORDS;
    if (ends_in(call->name, ".seg"))
        return SYNC_NEW_SEGMENT;
    if (ends_in(call->name, ".body"))
        return SYNC_BODY;
    return strncmp(call->name, "format", 6) == 0 ? SYNC_FORMAT : SYNC_OTHER;
}

static enum sync directory_sync(const struct world *w, const struct recording_call *call)
{
    if (strcmp(call->name, "") == 0)
        return SYNC_SPOOL_NAME;
    if (strcmp(call->name, "content") == 0)
        return SYNC_BODY_NAME;
    if (strcmp(call->name, "journal") == 0)
        return w->journal_names == SYNC_NONE ? SYNC_FOUND_NAMES : w->journal_names;
    return w->spool_names == SYNC_NONE ? SYNC_DIRECTORIES : w->spool_names;
}

/* Notes what changes the names of the spool's and the journal's directory. */
static void note_names(struct world *w, const struct recording_call *call)
{
    bool segment = is_segment(call->name) || is_segment(call->to);
    if (call->kind == RECORDING_RENAME && is_segment(call->to))
        w->journal_names = SYNC_SEGMENT_NAME;
    else if ((call->kind == RECORDING_RENAME || call->kind == RECORDING_UNLINK) && segment)
        w->journal_names = SYNC_REMOVAL;
    if (strncmp(call->name, "format", 6) == 0)
        w->spool_names = SYNC_FORMAT_NAME;
}

static bool is_lie(const struct world *w, const struct recording_call *call)
{
    if (w->c->lie == SYNC_NONE)
        return false;
    if (call->kind == RECORDING_SYNC)
        return file_sync(call) == w->c->lie;
    return call->kind == RECORDING_SYNC_DIRECTORY && directory_sync(w, call) == w->c->lie;
}

static bool is_point(const struct point *p, const struct recording_call *call, unsigned *seen)
{
    return p->nth > 0 && call->kind == p->kind && !call->zeros && ends_in(call->name, p->name) &&
           ends_in(call->to, p->to) && ++*seen == p->nth;
}

static enum recording_answer on_call(void *ctx, struct recording *disk,
                                     const struct recording_call *call)
{
    struct world *w = ctx;
    w->moment++;
    if (w->watched && !w->c->failure[0] && (!call->zeros || w->moment % ZEROS_EVERY == 0))
        look(w);
    if (is_point(&w->kill, call, &w->kill_seen))
        disk->stopped = true; /* this one still works */
    w->syncs += call->kind == RECORDING_SYNC && is_segment(call->name);
    bool lie = is_lie(w, call);
    note_names(w, call);
    if (is_point(&w->fail, call, &w->fail_seen))
        return RECORDING_FAIL;
    return lie ? RECORDING_LIE : RECORDING_GO;
}

/* ---- scenarios ------------------------------------------------------------------------------- */

/* Several devices at once: their records share flushes, and bodies arrive meanwhile. */
static void many_at_once(struct world *w)
{
    struct queue_writer *forgotten = begin(w, LARGE, 1);
    for (uint32_t i = 0; i < 4; i++)
        (void)offer(w, SMALL + i * 701, 1 + i % 3);
    (void)offer(w, LARGE, 2);
    (void)offer(w, MEDIUM, 1);
    queue_abort(forgotten);
    fixture_run(&w->f);
}

static void sending(struct world *w)
{
    accept_one(w, SMALL, 3);
    accept_one(w, LARGE, 1);
    many_at_once(w);
    deliver(w, doubt(w, lease(w)));
    defer(w, doubt(w, lease(w)));
    struct mail *m = lease(w);
    fixture_run(&w->f);
    deliver(w, doubt(w, m));
    for (int i = 0; i < 3; i++) { /* three attempts of one message, each to one more recipient */
        w->f.now_ms += 61000;
        defer(w, doubt(w, lease(w)));
        (void)offer(w, SMALL, 1);
    }
    fixture_run(&w->f);
    delete_one(w, find(w, w->mail[w->count - 1].id));
    fixture_tick(&w->f, 3);
    (void)doubt(w, lease(w));
    defer(w, lease(w));
    fixture_run(&w->f);
}

/* What may happen while nobody waits for anything, a few steps of it. */
static void happen(struct world *w, unsigned steps)
{
    for (unsigned i = 0; i < steps; i++) {
        size_t behind = w->f.executor.behind;
        unsigned syncs = w->syncs;
        bool failed = w->fail.nth > 0 && w->fail_seen >= w->fail.nth;
        (void)inline_executor_step(&w->f.executor);
        w->followed += w->f.executor.behind > behind && w->syncs > syncs;
        w->stopped += w->f.executor.behind > behind && failed;
    }
}

/* Commits while others are under way, so that flushes follow flushes, also where a segment ends. In
 * between some leaves or is deferred, so that some flushes cannot be followed. */
static void following(struct world *w)
{
    static const uint32_t sizes[] = {SMALL, MEDIUM, SMALL, MEDIUM, MEDIUM, MEDIUM};
    w->f.executor.lazy = true;
    w->f.executor.seed = 3;
    for (unsigned i = 0; i < BURST; i++) {
        (void)offer(w, i % 9 == 4 ? LARGE : sizes[i % 6] + i, 1 + i % 3);
        happen(w, i * 5 % 4);
        if (i == 9)
            deliver(w, lease(w));
        else if (i == 20)
            defer(w, lease(w));
    }
    fixture_run(&w->f);
    w->f.executor.lazy = false;
    if (w->fail.nth > 0) {
        assert_true(w->stopped > 0);
        return;
    }
    assert_in_range(w->followed, 5, 20);
    assert_true(recording_exists(&w->disk, "/spool/journal/0000000000000002.seg"));
}

static void following_on(struct world *w)
{
    if (!open_spool(w))
        return;
    following(w);
    fixture_tick(&w->f, 2);
}

static void first_start(struct world *w)
{
    if (open_spool(w))
        accept_one(w, SMALL, 1);
}

static void living(struct world *w)
{
    if (!open_spool(w))
        return;
    sending(w);
    fixture_close(&w->f);
    if (!open_spool(w))
        return;
    verify(w);
    adopt(w);
    go_on(w);
    fixture_close(&w->f);
    if (open_spool(w))
        accept_one(w, SMALL, 1);
}

/* A sync fails. What was refused may come back until the queue has got over it, and not after. */
static void get_over(struct world *w, void (*fails)(struct world *w))
{
    if (!open_spool(w))
        return;
    fails(w);
    fixture_tick(&w->f, 40);
    struct mail *m = accept_one(w, SMALL, 1);
    if (!m || !m->accepted)
        blame(w, m, "is not accepted, though the disk is well again");
    for (size_t i = 0; i < w->count; i++)
        w->mail[i].gone = w->mail[i].gone || w->mail[i].refused;
    fixture_tick(&w->f, 2);
    go_on(w);
}

static void getting_over_it(struct world *w)
{
    get_over(w, sending);
}

static void getting_over_what_is_followed(struct world *w)
{
    get_over(w, following);
}

/* Rotation, sealing, recycling. The first messages stay; others leave when their records are in a
 * later segment than they. */
static void fill_segments(struct world *w, bool ticks)
{
    struct mail *last[12] = {0};
    accept_one(w, SMALL, 3);
    accept_one(w, LARGE, 2);
    defer(w, doubt(w, lease(w)));
    defer(w, lease(w));
    for (int round = 0; round < 14; round++) {
        for (int i = 0; i < 12; i++)
            (void)offer(w, MEDIUM + (uint32_t)i, 1);
        fixture_run(&w->f);
        for (int i = 0; i < 12; i++) {
            deliver(w, last[i]);
            last[i] = lease(w);
        }
        fixture_tick(&w->f, ticks ? 1 : 0);
    }
    for (int i = 0; i < 12; i++)
        deliver(w, last[i]);
    fixture_run(&w->f);
}

static void turning_over(struct world *w)
{
    if (!open_spool(w))
        return;
    fill_segments(w, true);
    fixture_tick(&w->f, 4);
    if (!w->disk.stopped) /* all but the last segments are gone */
        assert_in_range(recording_entries(&w->disk, "/spool/journal"), 2, 4);
    accept_one(w, SMALL, 1);
}

/* Long enough for segments to be removed, with everything in flight that can be. */
static void stay(struct world *w)
{
    w->f.now_ms += 61000;
    while (lease(w))
        continue;
    fixture_tick(&w->f, 4);
}

/* A straggler is carried forward whose newest outcomes are in a later segment than it was. */
static void carrying(struct world *w)
{
    struct queue_counts before;
    struct queue_counts after;
    w->watched = false;
    if (!open_spool(w))
        return;
    fill_segments(w, false);
    w->f.now_ms += 61000;
    defer(w, lease(w));
    deliver(w, lease(w));
    fixture_run(&w->f);
    queue_counts(w->f.queue, &before);
    w->watched = true;
    w->then = stay;
    fixture_tick(&w->f, 1);
    queue_counts(w->f.queue, &after);
    assert_true(after.segments < before.segments);
}

struct scenario {
    const char *name;
    void (*run)(struct world *w);
    struct point kill; /* here; power is lost after that only */
    struct point fail;
};

/* ---- running --------------------------------------------------------------------------------- */

static void make_pattern(struct campaign *c)
{
    c->pattern = malloc(PATTERN);
    assert_non_null(c->pattern);
    fixture_fill(c->pattern, PATTERN, 7);
}

static void end_killed(struct world *w)
{
    assert_true(w->disk.stopped); /* else the scenario has no such call */
    if (w->f.queue)
        fixture_close(&w->f);
    memset(w->disk.fds, 0, sizeof(w->disk.fds));
    w->disk.stopped = false;
    w->watched = true;
    if (!open_spool(w))
        return;
    verify(w);
    adopt(w);
    go_on(w);
}

/* Runs a scenario; c->failure says what was found. */
static void run_scenario(struct campaign *c, const struct scenario *s)
{
    struct world *w = world_new(c);
    c->scenario = s->name;
    recording_init(&w->disk, c->model);
    listen_to(w);
    w->kill = s->kill;
    w->fail = s->fail;
    w->watched = s->kill.nth == 0;
    s->run(w);
    if (s->kill.nth > 0)
        end_killed(w);
    if (!c->failure[0])
        look(w);
    if (w->f.queue)
        fixture_close(&w->f);
    if (!c->failure[0])
        look(w);
    if (s->fail.nth > 0)
        assert_true(w->fail_seen >= s->fail.nth); /* else the scenario has no such call */
    world_free(w);
}

static unsigned effort(void)
{
    const char *text = getenv("OUTTRAY_POWER_LOSS");
    unsigned long n = text ? strtoul(text, NULL, 10) : 1;
    return n > 1 && n < 100000 ? (unsigned)n : 1;
}

/* `tried` of THIN images. */
static void loses_nothing(const struct scenario *s, unsigned tried, enum recording_model model)
{
    struct campaign c = {.model = model, .choices = CHOICES, .tried = tried * effort()};
    if (c.tried > THIN)
        c.choices = CHOICES * c.tried / THIN;
    make_pattern(&c);
    run_scenario(&c, s);
    free(c.pattern);
    print_message("%s: %llu images\n", s->name, (unsigned long long)c.images);
    if (c.failure[0])
        fail_msg("%s", c.failure);
}

/* Whether it is found out that a sync does nothing. */
static bool is_missed(enum sync sync, const struct scenario *s, enum recording_model model)
{
    struct campaign c = {.model = model, .choices = CHOICES, .tried = THIN, .lie = sync};
    make_pattern(&c);
    run_scenario(&c, s);
    free(c.pattern);
    print_message("%llu images: %s\n", (unsigned long long)c.images, c.failure);
    return c.failure[0] != '\0';
}

static const struct scenario start = {"a first start", first_start, {0}, {0}};
static const struct scenario life = {"a life", living, {0}, {0}};
static const struct scenario turns = {"turning over", turning_over, {0}, {0}};
static const struct scenario follows = {"following", following_on, {0}, {0}};
static const struct scenario carries = {"carrying forward", carrying, {0}, {0}};

/* Killed first: then what the next start finds is in the page cache and not yet on the disk. */
enum { NAMING_THE_FORMAT, WRITING_A_MESSAGE, RECYCLING_A_SEGMENT, REMOVING_A_SEGMENT };

static const struct scenario killed[] = {
    [NAMING_THE_FORMAT] = {"killed naming the format",
                           first_start,
                           {RECORDING_RENAME, "", "format", 1},
                           {0}},
    [WRITING_A_MESSAGE] = {"killed writing a message",
                           first_start,
                           {RECORDING_WRITE, "1.seg", "", 2},
                           {0}},
    [RECYCLING_A_SEGMENT] = {"killed recycling a segment",
                             turning_over,
                             {RECORDING_RENAME, "1.seg", "spare.seg", 1},
                             {0}},
    [REMOVING_A_SEGMENT] = {"killed removing a segment",
                            turning_over,
                            {RECORDING_UNLINK, "3.seg", "", 1},
                            {0}},
    {"killed making the spool", first_start, {RECORDING_MKDIR, "spool", "", 1}, {0}},
    {"killed making a directory", first_start, {RECORDING_MKDIR, "damaged", "", 1}, {0}},
    {"killed syncing the format", first_start, {RECORDING_SYNC, "format.new", "", 1}, {0}},
    {"killed filling a segment", first_start, {RECORDING_WRITE, "spare.seg", "", 1}, {0}},
    {"killed naming a segment", first_start, {RECORDING_RENAME, "", "1.seg", 1}, {0}},
    {"killed writing a START", first_start, {RECORDING_WRITE, "1.seg", "", 1}, {0}},
    {"killed making a body", living, {RECORDING_CREATE, ".body", "", 1}, {0}},
    {"killed writing a body", living, {RECORDING_WRITE, ".body", "", 2}, {0}},
    {"killed writing many", living, {RECORDING_WRITE, "1.seg", "", 5}, {0}},
    {"killed writing a mark", living, {RECORDING_WRITE, "1.seg", "", 7}, {0}},
    {"killed writing an end", living, {RECORDING_WRITE, "1.seg", "", 8}, {0}},
    {"killed removing a body", living, {RECORDING_UNLINK, ".body", "", 2}, {0}},
};

/* A sync fails, and power is lost then or later. */
static const struct scenario failed[] = {
    {"failing on small mail", getting_over_it, {0}, {RECORDING_SYNC, "1.seg", "", 2}},
    {"failing on large mail", getting_over_it, {0}, {RECORDING_SYNC, "1.seg", "", 3}},
    {"failing on a body", getting_over_it, {0}, {RECORDING_SYNC, ".body", "", 1}},
    {"failing on much mail", getting_over_it, {0}, {RECORDING_SYNC, "1.seg", "", 5}},
    {"failing on a mark", getting_over_it, {0}, {RECORDING_SYNC, "1.seg", "", 7}},
    {"failing on an end", getting_over_it, {0}, {RECORDING_SYNC, "1.seg", "", 8}},
    {"failing on a deferral", getting_over_it, {0}, {RECORDING_SYNC, "1.seg", "", 10}},
    {"failing before what follows",
     getting_over_what_is_followed,
     {0},
     {RECORDING_SYNC, "1.seg", "", 3}},
    {"failing behind another",
     getting_over_what_is_followed,
     {0},
     {RECORDING_SYNC, "1.seg", "", 5}},
    {"failing behind one more",
     getting_over_what_is_followed,
     {0},
     {RECORDING_SYNC, "1.seg", "", 7}},
    {"failing on a body's name",
     getting_over_it,
     {0},
     {RECORDING_SYNC_DIRECTORY, "content", "", 1}},
};

/* ---- tests ----------------------------------------------------------------------------------- */

static void power_lost_during_a_first_start_loses_nothing(void **state)
{
    (void)state;
    loses_nothing(&start, 4, RECORDING_POSIX);
    loses_nothing(&start, 2, RECORDING_JOURNAL);
}

static void power_lost_at_any_moment_of_a_life_loses_nothing(void **state)
{
    (void)state;
    loses_nothing(&life, 3, RECORDING_POSIX);
    loses_nothing(&life, 2, RECORDING_JOURNAL);
}

static void power_lost_while_segments_come_and_go_loses_nothing(void **state)
{
    (void)state;
    loses_nothing(&turns, 2, RECORDING_POSIX);
    loses_nothing(&turns, 1, RECORDING_JOURNAL);
}

static void power_lost_while_flushes_follow_flushes_loses_nothing(void **state)
{
    (void)state;
    loses_nothing(&follows, 4, RECORDING_POSIX);
    loses_nothing(&follows, 2, RECORDING_JOURNAL);
}

static void power_lost_while_mail_is_carried_forward_loses_no_outcome(void **state)
{
    (void)state;
    loses_nothing(&carries, THIN, RECORDING_POSIX);
    loses_nothing(&carries, THIN, RECORDING_JOURNAL);
}

static void power_lost_after_a_kill_loses_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(killed) / sizeof(killed[0]); i++) {
        loses_nothing(&killed[i], 1, RECORDING_POSIX);
        loses_nothing(&killed[i], 1, RECORDING_JOURNAL);
    }
}

static void power_lost_after_a_failed_sync_loses_nothing_else(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(failed) / sizeof(failed[0]); i++) {
        loses_nothing(&failed[i], 1, RECORDING_POSIX);
        loses_nothing(&failed[i], 1, RECORDING_JOURNAL);
    }
}

/* A file system with a journal keeps names in their order by itself: there only the syncs of octets
 * are missed. */
static void a_sync_that_does_nothing_is_found_out(void **state)
{
    static const struct {
        const char *what;
        enum sync sync;
        enum recording_model model;
        const struct scenario *scenario;
    } rows[] = {
        {"of records", SYNC_RECORDS, RECORDING_POSIX, &start},
        {"of records", SYNC_RECORDS, RECORDING_JOURNAL, &start},
        {"of what a start has read", SYNC_FOUND, RECORDING_POSIX, &killed[WRITING_A_MESSAGE]},
        {"of what a start has read", SYNC_FOUND, RECORDING_JOURNAL, &killed[WRITING_A_MESSAGE]},
        {"of a new segment", SYNC_NEW_SEGMENT, RECORDING_POSIX, &start},
        {"of a new segment", SYNC_NEW_SEGMENT, RECORDING_JOURNAL, &start},
        {"of a body", SYNC_BODY, RECORDING_POSIX, &life},
        {"of a body", SYNC_BODY, RECORDING_JOURNAL, &life},
        {"of the format", SYNC_FORMAT, RECORDING_POSIX, &start},
        {"of the spool's name", SYNC_SPOOL_NAME, RECORDING_POSIX, &start},
        {"of its directories' names", SYNC_DIRECTORIES, RECORDING_POSIX,
         &killed[NAMING_THE_FORMAT]},
        {"of a body's name", SYNC_BODY_NAME, RECORDING_POSIX, &life},
        {"of a segment's name", SYNC_SEGMENT_NAME, RECORDING_POSIX, &start},
        {"of a segment's removal", SYNC_REMOVAL, RECORDING_POSIX, &killed[REMOVING_A_SEGMENT]},
        {"of names that a start has read", SYNC_FOUND_NAMES, RECORDING_POSIX,
         &killed[RECYCLING_A_SEGMENT]},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (!is_missed(rows[i].sync, rows[i].scenario, rows[i].model))
            fail_msg("the sync %s does nothing, and nothing is missed", rows[i].what);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_lost_during_a_first_start_loses_nothing),
        cmocka_unit_test(power_lost_at_any_moment_of_a_life_loses_nothing),
        cmocka_unit_test(power_lost_while_segments_come_and_go_loses_nothing),
        cmocka_unit_test(power_lost_while_flushes_follow_flushes_loses_nothing),
        cmocka_unit_test(power_lost_while_mail_is_carried_forward_loses_no_outcome),
        cmocka_unit_test(power_lost_after_a_kill_loses_nothing),
        cmocka_unit_test(power_lost_after_a_failed_sync_loses_nothing_else),
        cmocka_unit_test(a_sync_that_does_nothing_is_found_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
