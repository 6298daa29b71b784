/*
 * Each scenario is run again and again, stopped after file call 1, 2, ... n (or with that call
 * torn, failed or cut short, or failing from there on). What a new process then finds must be what
 * was acknowledged: every message whose commit was reported, none that was reported gone, none
 * twice, nothing damaged.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "queue/queue.h"
#include "tests/unit/fault_fileops.h"
#include "tests/unit/spool_fixture.h"

#define MAIL_MAX 160
#define PARTS    3
#define SMALL    900
#define MEDIUM   61000
#define LARGE    (3 * QUEUE_BLOCK + 100)
#define DEAD     3 /* what is still tried after the stop, of which nothing may be acknowledged */
#define AT_ONCE  4
#define BURST    48 /* more than a segment holds */

/* What the scenario was told about one message. */
struct mail {
    uint64_t id;
    size_t size;
    bool accepted;      /* its commit was reported durable */
    bool refused;       /* its commit was reported to have failed */
    bool doubtful;      /* its mark was reported durable, nothing since */
    bool leaving;       /* a GONE was asked for */
    bool gone;          /* and reported durable */
    bool deferred;      /* a deferral was reported durable */
    struct mail *whole; /* of a fragment: what it was joined to, in whatever state */
};

struct run {
    struct spool_fixture f;
    struct fault fault;
    struct mail mail[MAIL_MAX];
    size_t count;
    const char *name;
    uint64_t point;
    unsigned dead;     /* messages begun after the stop */
    unsigned followed; /* flushes behind others, without a word from the loop */
};

/* ---- steps ----------------------------------------------------------------------------------- */

/* What a killed program does takes time and says nothing. */
static bool is_over(struct run *r)
{
    return r->fault.stopped && r->dead++ >= DEAD;
}

static struct mail *accept_one(struct run *r, size_t size)
{
    struct fixture_result result;
    assert_true(r->count < MAIL_MAX);
    if (is_over(r))
        return NULL;
    struct mail *m = &r->mail[r->count];
    uint64_t id = fixture_accept_to(&r->f, size, r->count, 1, &result);
    if (id == 0)
        return NULL;
    r->count++;
    m->id = id;
    m->size = size;
    m->accepted = result.ok;
    m->refused = !result.ok;
    return m;
}

/* As accept_one(), of a fragment of the group or the whole of it. */
static struct mail *accept_part(struct run *r, size_t size, uint64_t group, uint32_t joined)
{
    static struct fixture_result result; /* may be reported as late as by the closing */
    struct envelope e;
    struct mail *m = &r->mail[r->count];
    memset(&result, 0, sizeof(result));
    struct queue_writer *w = fixture_write(&r->f, size, r->count);
    if (!w)
        return NULL;
    m->id = queue_writer_id(w);
    m->size = size;
    r->count++;
    fixture_envelope(&e, 1);
    e.partial_group = group;
    e.partial_number = (uint32_t)r->count;
    e.joined = joined;
    queue_commit(w, &e, r->f.now_ms, FIXTURE_WALL + r->f.now_ms, fixture_committed, &result);
    envelope_done(&e);
    fixture_run(&r->f);
    m->accepted = result.ok;
    m->refused = result.calls == 1 && !result.ok;
    return m;
}

static struct mail *find(struct run *r, uint64_t id)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->mail[i].id == id)
            return &r->mail[i];
    fail_msg("%s, call %llu: message %llx was never accepted", r->name,
             (unsigned long long)r->point, (unsigned long long)id);
    return NULL;
}

static struct mail *lease(struct run *r)
{
    struct queue_info info;
    return fixture_pick(&r->f, &info) ? find(r, info.id) : NULL;
}

static void doubt(struct run *r, struct mail *m)
{
    struct fixture_result result = {0};
    if (!m)
        return;
    queue_doubt(r->f.queue, m->id, FIXTURE_WALL, fixture_done_fn, &result);
    fixture_run(&r->f);
    m->doubtful = result.calls == 1 && result.ok;
}

static void deliver(struct run *r, struct mail *m)
{
    static struct fixture_result result; /* may be reported as late as by the closing */
    if (!m)
        return;
    memset(&result, 0, sizeof(result));
    m->leaving = true;
    fixture_settle(&r->f, m->id, QUEUE_GONE, RECIPIENT_DELIVERED, 0, &result);
    fixture_run(&r->f);
    m->gone = result.calls == 1 && result.ok;
}

static void defer(struct run *r, struct mail *m)
{
    static struct fixture_result result;
    if (!m)
        return;
    memset(&result, 0, sizeof(result));
    m->doubtful = false; /* from here on either may be found */
    fixture_settle(&r->f, m->id, QUEUE_QUEUED, RECIPIENT_PENDING, 3600000, &result);
    fixture_run(&r->f);
    m->deferred = result.calls == 1 && result.ok;
}

/* ---- scenarios ------------------------------------------------------------------------------- */

static void accepting(struct run *r)
{
    accept_one(r, SMALL);
    accept_one(r, LARGE);
    accept_one(r, SMALL);
}

static void sending(struct run *r)
{
    accept_one(r, SMALL);
    accept_one(r, LARGE);
    accept_one(r, SMALL);
    accept_one(r, SMALL);
    struct mail *m = lease(r);
    doubt(r, m);
    deliver(r, m);
    m = lease(r);
    doubt(r, m);
    deliver(r, m);
    m = lease(r);
    doubt(r, m);
    defer(r, m);
    doubt(r, lease(r));
}

static void committed(void *ctx, uint64_t id, const struct error *err)
{
    struct mail *m = ctx;
    assert_int_equal(id, m->id);
    assert_false(m->accepted || m->refused);
    m->accepted = !err;
    m->refused = err;
}

static void ended(void *ctx, const struct error *err)
{
    struct mail *m = ctx;
    m->gone = !err;
}

/* What may happen while nobody waits for anything, a few steps of it. */
static void happen(struct run *r, unsigned steps)
{
    for (unsigned i = 0; i < steps; i++) {
        size_t behind = r->f.executor.behind;
        uint64_t calls = r->fault.calls;
        (void)inline_executor_step(&r->f.executor);
        r->followed += r->f.executor.behind > behind && r->fault.calls > calls;
    }
}

/* Asks for a commit; its report comes when it comes. */
static void offer(struct run *r, size_t size)
{
    struct envelope e;
    struct mail *m = &r->mail[r->count];
    struct queue_writer *w = is_over(r) ? NULL : fixture_write(&r->f, size, r->count);
    if (!w)
        return;
    r->count++;
    m->id = queue_writer_id(w);
    m->size = size;
    fixture_envelope(&e, 1);
    queue_commit(w, &e, r->f.now_ms, FIXTURE_WALL + r->f.now_ms, committed, m);
    envelope_done(&e);
}

static void send_off(struct run *r, struct mail *m)
{
    if (!m)
        return;
    m->leaving = true;
    fixture_settle_for(&r->f, m->id, QUEUE_GONE, RECIPIENT_DELIVERED, 0, ended, m);
}

/* Rotation, sealing, recycling; the first two messages stay and are carried forward.
 * Some at once: the calls between two ends of a segment are much alike. */
static void turning_over(struct run *r)
{
    accept_one(r, SMALL);
    accept_one(r, LARGE);
    struct mail *m = lease(r);
    doubt(r, m);
    defer(r, m);
    defer(r, lease(r));
    for (int round = 0; round < 33 && r->dead < DEAD; round++) {
        for (int i = 0; i < AT_ONCE; i++)
            offer(r, MEDIUM);
        fixture_run(&r->f);
        for (int i = 0; i < AT_ONCE; i++)
            send_off(r, lease(r));
        fixture_run(&r->f);
    }
    fixture_tick(&r->f, 4);
    accept_one(r, SMALL);
    if (r->fault.at == 0) /* undisturbed, all but the last segments are gone */
        assert_in_range(fixture_files(&r->f, "journal"), 2, 4);
}

/* Commits while others are under way, so that flushes follow flushes, also where a segment ends. In
 * between some leaves, so that some flushes cannot be followed. */
static void following(struct run *r)
{
    static const size_t sizes[] = {SMALL, MEDIUM, SMALL, MEDIUM, MEDIUM, MEDIUM};
    struct queue_counts counts;
    r->f.executor.lazy = true;
    r->f.executor.seed = 3;
    for (unsigned i = 0; i < BURST; i++) {
        offer(r, i % 10 == 4 ? LARGE : sizes[i % 6]);
        happen(r, i * 5 % 4);
        if (i % 11 == 9)
            send_off(r, lease(r));
        if (i % 16 == 15)
            fixture_tick(&r->f, 1);
    }
    fixture_run(&r->f);
    if (r->fault.at == 0 && (r->fault.kinds & (FAULT_WRITE | FAULT_SYNC)))
        assert_in_range(r->followed, 5, 20);
    queue_counts(r->f.queue, &counts);
    if (r->fault.at == 0)
        assert_true(counts.segments >= 2);
}

static void settle_parts(struct run *r, struct mail **parts)
{
    static const struct queue_attempt gone = {.state = QUEUE_GONE};
    for (int i = 0; i < PARTS; i++) {
        parts[i]->leaving = true;
        queue_settle(r->f.queue, parts[i]->id, &gone, r->f.now_ms, FIXTURE_WALL, NULL, NULL);
    }
}

static void release_parts(struct run *r, struct mail **parts)
{
    for (int i = 0; i < PARTS; i++)
        queue_release(r->f.queue, parts[i]->id, r->f.now_ms);
}

/* Fragments become a whole, which leaves. */
static void joining(struct run *r)
{
    static const size_t sizes[PARTS] = {SMALL, LARGE, MEDIUM};
    struct mail *parts[PARTS];
    for (int i = 0; i < PARTS; i++) {
        parts[i] = accept_part(r, sizes[i], 7, 0);
        if (!parts[i] || !parts[i]->accepted)
            return;
    }
    for (int i = 0; i < PARTS; i++) {
        struct queue_info info;
        assert_true(queue_lease(r->f.queue, parts[i]->id, &info));
    }
    struct mail *whole = accept_part(r, LARGE + MEDIUM, 7, PARTS);
    for (int i = 0; i < PARTS; i++)
        parts[i]->whole = whole;
    if (!whole || !whole->accepted) {
        release_parts(r, parts);
        return;
    }
    settle_parts(r, parts);
    fixture_run(&r->f);
    accept_one(r, SMALL);
    struct mail *m = lease(r);
    doubt(r, m);
    deliver(r, m);
}

/* Killed, and started again: what is found is in the page cache only, and some of it in doubt. */
static void starting_again(struct run *r)
{
    struct error err = ERROR_INIT;
    sending(r);
    for (size_t i = 0; i < r->count; i++)
        r->mail[i].refused = false; /* killed before that was declared void, it may be there */
    fixture_crash(&r->f);
    if (!fixture_open(&r->f, &err))
        return;
    accept_one(r, SMALL);
    accept_one(r, LARGE);
    struct mail *m = lease(r);
    doubt(r, m);
    deliver(r, m);
}

static const struct scenario {
    const char *name;
    void (*run)(struct run *r);
    bool closes;   /* the closing is part of it */
    uint64_t step; /* between the points of all modes but the stop, which takes each */
} scenarios[] = {
    {"accepting", accepting, true, 1},
    {"sending", sending, false, 1},
    {"joining", joining, false, 1},
    {"following", following, false, 7},
    {"starting again", starting_again, true, 3},
    {"turning over", turning_over, true, 7},
};

/* ---- checks ---------------------------------------------------------------------------------- */

static void complain(const struct run *r, const struct mail *m, const char *what)
{
    fail_msg("%s, call %llu: message %llx %s", r->name, (unsigned long long)r->point,
             (unsigned long long)m->id, what);
}

/* The fragments or the whole, never both and never neither. */
static bool check_fragment(struct run *r, const struct mail *m, bool present)
{
    struct queue_info info;
    bool whole = m->whole && queue_find(r->f.queue, m->whole->id, &info);
    if (whole && present)
        complain(r, m, "is there although the whole is");
    return whole;
}

static void check_mail(struct run *r, struct mail *m, bool refused_is_void)
{
    struct queue_info info;
    bool present = queue_find(r->f.queue, m->id, &info);
    if (check_fragment(r, m, present))
        return;
    if (m->whole && m->whole->accepted && present)
        complain(r, m, "is there although the whole was acknowledged");
    if (m->accepted && !m->leaving && !present)
        complain(r, m, "was acknowledged and is lost");
    if (m->gone && present)
        complain(r, m, "was gone and is back");
    if (m->refused && refused_is_void && present)
        complain(r, m, "was refused and is there");
    if (!present)
        return;
    if (m->doubtful && info.state != QUEUE_UNCERTAIN)
        complain(r, m, "was in doubt and is not uncertain");
    if (m->deferred && info.attempts == 0)
        complain(r, m, "was deferred and has forgotten it");
    if (m->accepted && !fixture_intact(&r->f, m->id, m->size, (uint64_t)(m - r->mail)))
        complain(r, m, "does not read back");
}

static void check_all(struct run *r, bool refused_is_void)
{
    struct queue_info info = {0};
    while (queue_list(r->f.queue, info.id, &info))
        (void)find(r, info.id); /* the list rises strictly, so nothing is there twice */
    for (size_t i = 0; i < r->count; i++)
        check_mail(r, &r->mail[i], refused_is_void);
    if (r->f.found.damaged > 0)
        fail_msg("%s, call %llu: reported as damaged", r->name, (unsigned long long)r->point);
    struct mail *last = accept_one(r, SMALL);
    assert_true(last && last->accepted);
    for (size_t i = 0; i + 1 < r->count; i++)
        assert_true(last->id > r->mail[i].id);
}

static void reopen(struct run *r)
{
    struct error err = ERROR_INIT;
    r->f.options.ops = NULL;
    r->fault.stopped = false; /* this one lives */
    if (!fixture_open(&r->f, &err))
        fail_msg("%s, call %llu: %s", r->name, (unsigned long long)r->point, err.text);
}

/* Runs once with the fault set; returns how many calls there were. */
static uint64_t run_once(const struct scenario *s, enum fault_mode mode, unsigned kinds,
                         uint64_t at, int errnum, bool goes_on)
{
    struct run *r = calloc(1, sizeof(*r));
    struct error err = ERROR_INIT;
    uint64_t calls = 0;
    assert_non_null(r);
    r->name = s->name;
    r->point = at;
    fixture_init(&r->f);
    fault_init(&r->fault);
    fault_set(&r->fault, mode, kinds, at, errnum);
    r->f.options.ops = &r->fault.ops;
    if (fixture_open(&r->f, &err)) {
        s->run(r);
        calls = r->fault.calls;
        r->fault.at = 0; /* the disk is well again: so must the queue be */
        if (goes_on && !r->f.queue)
            reopen(r);
        if (goes_on) {
            fixture_tick(&r->f, 40);
            struct mail *last = accept_one(r, SMALL);
            if (!last || !last->accepted)
                fail_msg("%s, call %llu: does not recover", s->name, (unsigned long long)at);
            fixture_tick(&r->f, 2);
        } else if (!s->closes) {
            r->fault.stopped = true;
        }
        fixture_close(&r->f);
    }
    calls = goes_on ? calls : r->fault.calls;
    reopen(r);
    check_all(r, goes_on);
    fixture_close(&r->f);
    reopen(r); /* what recovery made of it recovers to the same */
    check_all(r, goes_on);
    fixture_done(&r->f);
    free(r);
    return calls;
}

static void run_all(enum fault_mode mode, unsigned kinds, int errnum, bool goes_on)
{
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        uint64_t calls = run_once(&scenarios[i], mode, kinds, 0, errnum, goes_on);
        assert_true(calls > 0);
        uint64_t step = mode == FAULT_STOP ? 1 : scenarios[i].step;
        for (uint64_t at = 1; at <= calls; at += step)
            (void)run_once(&scenarios[i], mode, kinds, at, errnum, goes_on);
    }
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void a_stop_after_any_call_loses_nothing_acknowledged(void **state)
{
    (void)state;
    run_all(FAULT_STOP, FAULT_CHANGE, EIO, false);
}

static void a_write_torn_by_a_stop_loses_nothing_acknowledged(void **state)
{
    (void)state;
    run_all(FAULT_TEAR, FAULT_WRITE, EIO, false);
}

static void a_failed_write_is_refused_and_gone_for_good(void **state)
{
    (void)state;
    run_all(FAULT_FAIL, FAULT_WRITE, ENOSPC, true);
}

static void a_write_that_fails_with_an_error_of_the_disk_is_no_different(void **state)
{
    (void)state;
    run_all(FAULT_FAIL, FAULT_WRITE, EIO, true);
}

static void a_disk_that_is_full_from_then_on_is_waited_for(void **state)
{
    (void)state;
    run_all(FAULT_FAIL_ON, FAULT_WRITE, ENOSPC, true);
}

static void a_failed_sync_is_refused_and_gone_for_good(void **state)
{
    (void)state;
    run_all(FAULT_FAIL, FAULT_SYNC, EIO, true);
}

static void a_failed_sync_before_a_kill_loses_nothing_acknowledged(void **state)
{
    (void)state;
    run_all(FAULT_FAIL, FAULT_SYNC, EIO, false);
}

static void syncs_that_fail_from_then_on_lose_nothing_acknowledged(void **state)
{
    (void)state;
    run_all(FAULT_FAIL_ON, FAULT_SYNC, EIO, false);
    run_all(FAULT_FAIL_ON, FAULT_SYNC, EIO, true);
}

static void a_failed_directory_call_is_got_over(void **state)
{
    (void)state;
    run_all(FAULT_FAIL, FAULT_DIRECTORY | FAULT_RENAME | FAULT_UNLINK | FAULT_OPEN, EIO, true);
}

static void an_interrupted_call_is_repeated(void **state)
{
    (void)state;
    run_all(FAULT_FAIL, FAULT_READ | FAULT_WRITE | FAULT_SYNC, EINTR, true);
}

static void a_short_write_is_continued(void **state)
{
    (void)state;
    run_all(FAULT_SHORT, FAULT_WRITE, 0, true);
}

/* As a loss of power within a rename may leave it. */
static void a_spare_that_is_also_a_segment_is_left_to_it(void **state)
{
    struct run *r = calloc(1, sizeof(*r));
    char segment[512];
    char spare[600];
    (void)state;
    assert_non_null(r);
    r->name = "a shared spare";
    fixture_init(&r->f);
    reopen(r);
    accept_one(r, SMALL);
    fixture_crash(&r->f);
    snprintf(segment, sizeof(segment), "%s", fixture_path(&r->f, "journal", 0));
    snprintf(spare, sizeof(spare), "%s/journal/spare.seg", r->f.dir);
    (void)unlink(spare);
    assert_int_equal(link(segment, spare), 0);
    reopen(r);
    assert_true(lease(r) == &r->mail[0]); /* stays where it is */
    for (int i = 0; i < 60; i++) {
        accept_one(r, MEDIUM);
        deliver(r, lease(r));
    }
    fixture_tick(&r->f, 2);
    fixture_crash(&r->f);
    reopen(r);
    check_all(r, true);
    fixture_done(&r->f);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_after_any_call_loses_nothing_acknowledged),
        cmocka_unit_test(a_write_torn_by_a_stop_loses_nothing_acknowledged),
        cmocka_unit_test(a_failed_write_is_refused_and_gone_for_good),
        cmocka_unit_test(a_write_that_fails_with_an_error_of_the_disk_is_no_different),
        cmocka_unit_test(a_disk_that_is_full_from_then_on_is_waited_for),
        cmocka_unit_test(a_failed_sync_is_refused_and_gone_for_good),
        cmocka_unit_test(a_failed_sync_before_a_kill_loses_nothing_acknowledged),
        cmocka_unit_test(syncs_that_fail_from_then_on_lose_nothing_acknowledged),
        cmocka_unit_test(a_failed_directory_call_is_got_over),
        cmocka_unit_test(an_interrupted_call_is_repeated),
        cmocka_unit_test(a_short_write_is_continued),
        cmocka_unit_test(a_spare_that_is_also_a_segment_is_left_to_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
