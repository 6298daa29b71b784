/*
 * A slow disk, with real threads: bodies are held to its pace by back-pressure, and nothing else
 * is. Each call of the queue returns at once, small mail does not wait for bodies, what is read for
 * sending and for the API comes, timers tick.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "queue/queue.h"
#include "tests/unit/spool_fixture.h"
#include "tests/unit/thread_executor.h"

#define CONTENT_THREADS 6 /* as the relay has */
#define BODIES          8 /* more than threads */
#define BODY            (1024u * 1024u)
#define PIECE           32768u
#define SMALL           3000u
#define SLOW_MS         60 /* a write or sync of a body */
#define CALL_MS         50 /* what a call may take, with a sanitizer and a busy machine */
#define SMALL_MAIL      20

/* Only bodies are slow, as if the journal were on another disk: whoever waits for a body is seen at
 * once. */
struct slow {
    struct spool_fixture f;
    struct thread_executor threads;
    struct fileops ops;
    uint64_t slowest; /* call, in ms */
};

static bool is_body(int fd)
{
    char link[64];
    char name[512];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, name, sizeof(name) - 1);
    if (len < 0)
        return false;
    name[len] = '\0';
    return strstr(name, ".body") != NULL;
}

static void sleep_if_body(int fd)
{
    if (is_body(fd))
        usleep(SLOW_MS * 1000);
}

static ssize_t slow_pwritev(void *ctx, int fd, const struct iovec *iov, int count, off_t offset)
{
    (void)ctx;
    sleep_if_body(fd);
    return fileops_system.pwritev(NULL, fd, iov, count, offset);
}

static int slow_fdatasync(void *ctx, int fd)
{
    (void)ctx;
    sleep_if_body(fd);
    return fileops_system.fdatasync(NULL, fd);
}

static int set_up(void **state)
{
    struct slow *s = calloc(1, sizeof(*s));
    struct error err = ERROR_INIT;
    if (!s)
        return -1;
    fixture_init(&s->f);
    thread_executor_start(&s->threads, CONTENT_THREADS);
    s->ops = fileops_system;
    s->ops.pwritev = slow_pwritev;
    s->ops.fdatasync = slow_fdatasync;
    s->f.options.ops = &s->ops;
    s->f.options.executor = thread_executor(&s->threads);
    s->f.queue = queue_open(&s->f.options, &s->f.found, &err);
    *state = s;
    return s->f.queue ? 0 : -1;
}

static int tear_down(void **state)
{
    struct slow *s = *state;
    queue_close(s->f.queue);
    s->f.queue = NULL;
    thread_executor_stop(&s->threads);
    fixture_done(&s->f);
    free(s);
    return 0;
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void note(struct slow *s, uint64_t began)
{
    uint64_t took = now_ms() - began;
    s->slowest = took > s->slowest ? took : s->slowest;
}

/* ---- devices --------------------------------------------------------------------------------- */

struct device {
    struct slow *s;
    struct queue_writer *w;
    size_t sent;
    bool held; /* by back-pressure */
    unsigned times_held;
    struct fixture_result result;
};

static void go_on(void *ctx)
{
    struct device *d = ctx;
    d->held = false;
}

static void begin(struct device *d, struct slow *s)
{
    struct error err = ERROR_INIT;
    *d = (struct device){.s = s};
    d->w = queue_begin(s->f.queue, LANE_NORMAL, go_on, d, &err);
    assert_non_null(d->w);
}

static void commit(struct device *d)
{
    struct envelope e;
    uint64_t began = now_ms();
    fixture_envelope(&e, 1);
    queue_commit(d->w, &e, 1, FIXTURE_WALL, fixture_committed, &d->result);
    note(d->s, began);
    envelope_done(&e);
    d->w = NULL;
}

/* Sends as much as the relay takes. */
static void push(struct device *d, size_t size)
{
    static const uint8_t data[PIECE];
    struct error err = ERROR_INIT;
    while (d->w && !d->held && d->sent < size) {
        uint64_t began = now_ms();
        enum queue_flow flow = queue_append(d->w, data, PIECE, &err);
        note(d->s, began);
        assert_int_not_equal(flow, QUEUE_FLOW_ERROR);
        d->sent += PIECE;
        d->held = flow == QUEUE_FLOW_FULL;
        d->times_held += d->held;
    }
    if (d->w && d->sent >= size)
        commit(d);
}

static void push_all(struct device *devices, bool *out_done)
{
    *out_done = true;
    for (int i = 0; i < BODIES; i++) {
        push(&devices[i], BODY);
        *out_done = *out_done && devices[i].result.calls > 0;
    }
}

/* ---- others ---------------------------------------------------------------------------------- */

static uint64_t accept_small(struct slow *s, struct device *bodies, uint64_t *out_took)
{
    static const uint8_t data[SMALL];
    struct error err = ERROR_INIT;
    struct device d;
    bool done;
    uint64_t began = now_ms();
    begin(&d, s);
    assert_int_equal(queue_append(d.w, data, SMALL, &err), QUEUE_FLOW_OK);
    commit(&d);
    while (d.result.calls == 0) {
        (void)thread_executor_poll(&s->threads, 1);
        push_all(bodies, &done);
    }
    assert_true(d.result.ok);
    *out_took = now_ms() - began;
    return d.result.id;
}

struct reading {
    struct queue_reader *reader;
    size_t got;
    bool ended;
};

static void got(void *ctx, const uint8_t *data, size_t len, const struct error *err)
{
    struct reading *r = ctx;
    (void)data;
    assert_null(err);
    r->got += len;
    r->ended = len == 0;
    if (!r->ended)
        queue_read(r->reader, got, r);
}

static void opened(void *ctx, struct queue_reader *reader, const struct envelope *e,
                   const struct error *err)
{
    struct reading *r = ctx;
    assert_null(err);
    assert_int_equal(e->recipient_count, 1);
    r->reader = reader;
    queue_read(reader, got, r);
}

static uint64_t read_one(struct slow *s, struct device *bodies, uint64_t id)
{
    struct reading r = {0};
    bool done;
    uint64_t began = now_ms();
    queue_reader_open(s->f.queue, id, opened, &r);
    while (!r.ended) {
        (void)thread_executor_poll(&s->threads, 1);
        push_all(bodies, &done);
    }
    queue_reader_close(r.reader);
    assert_int_equal(r.got, SMALL);
    return now_ms() - began;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void bodies_are_slowed_down_and_nothing_else_is(void **state)
{
    struct slow *s = *state;
    struct device bodies[BODIES];
    uint64_t accepting[SMALL_MAIL];
    uint64_t reading[SMALL_MAIL];
    bool done = false;
    for (int i = 0; i < BODIES; i++)
        begin(&bodies[i], s);
    push_all(bodies, &done);
    for (int i = 0; i < SMALL_MAIL; i++) {
        uint64_t id = accept_small(s, bodies, &accepting[i]);
        reading[i] = read_one(s, bodies, id);
        uint64_t began = now_ms();
        queue_tick(s->f.queue, 1000 * (uint64_t)i, FIXTURE_WALL);
        note(s, began);
    }
    push_all(bodies, &done);
    assert_false(done); /* all of that was while bodies were being written */
    uint64_t began = now_ms();
    while (!done) {
        (void)thread_executor_poll(&s->threads, 20);
        push_all(bodies, &done);
    }
    for (int i = 0; i < BODIES; i++) {
        assert_true(bodies[i].result.ok);
        assert_true(bodies[i].times_held > 2);
    }
    qsort(accepting, SMALL_MAIL, sizeof(uint64_t), compare);
    qsort(reading, SMALL_MAIL, sizeof(uint64_t), compare);
    printf("small mail %u ms (median), read in %u ms, slowest call %u ms; bodies took %u ms more\n",
           (unsigned)accepting[SMALL_MAIL / 2], (unsigned)reading[SMALL_MAIL / 2],
           (unsigned)s->slowest, (unsigned)(now_ms() - began));
    assert_true(accepting[SMALL_MAIL / 2] < SLOW_MS);
    assert_true(reading[SMALL_MAIL / 2] < SLOW_MS);
    assert_true(s->slowest < CALL_MS);
}

/* They wait for their turn; none of them is forgotten, whatever becomes of the others. */
static void bodies_that_wait_for_their_turn_may_be_given_up(void **state)
{
    struct slow *s = *state;
    struct device bodies[BODIES];
    bool done = false;
    for (int i = 0; i < BODIES; i++)
        begin(&bodies[i], s);
    push_all(bodies, &done);
    for (int i = 0; i < BODIES; i += 2) {
        queue_abort(bodies[i].w);
        bodies[i].w = NULL;
        bodies[i].result.calls = 1;
    }
    while (!done) {
        (void)thread_executor_poll(&s->threads, 20);
        push_all(bodies, &done);
    }
    for (int i = 1; i < BODIES; i += 2)
        assert_true(bodies[i].result.ok);
    while (fixture_files(&s->f, "content") > BODIES / 2)
        assert_true(thread_executor_poll(&s->threads, 5000));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bodies_are_slowed_down_and_nothing_else_is),
        TEST(bodies_that_wait_for_their_turn_may_be_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
