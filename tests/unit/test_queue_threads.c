/*
 * The queue with real threads: one for the journal, three for bodies, as the relay gives it. Run
 * under ThreadSanitizer it shows that the hand-over is the only place where threads meet.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "queue/queue.h"
#include "tests/unit/spool_fixture.h"
#include "tests/unit/thread_executor.h"

#define CONTENT_THREADS 3
#define MESSAGES        150
#define BURST           600
#define FLUSH_US        500

static size_t size_of(uint64_t i)
{
    return i % 10 == 0 ? 300000 + i : 40000 + i;
}

struct writing {
    bool drained;
    struct fixture_result result;
};

static void drained(void *ctx)
{
    struct writing *w = ctx;
    w->drained = true;
}

static struct queue_writer *write_data(struct queue *q, struct thread_executor *t, size_t size,
                                       uint64_t i, struct writing *w)
{
    struct error err = ERROR_INIT;
    uint8_t *data = malloc(size);
    assert_non_null(data);
    fixture_fill(data, size, i);
    struct queue_writer *writer = queue_begin(q, LANE_NORMAL, drained, w, &err);
    assert_non_null(writer);
    for (size_t at = 0; at < size;) {
        size_t n = size - at < 30000 ? size - at : 30000;
        w->drained = false;
        enum queue_flow flow = queue_append(writer, data + at, n, &err);
        assert_int_not_equal(flow, QUEUE_FLOW_ERROR);
        while (flow == QUEUE_FLOW_FULL && !w->drained)
            thread_executor_deliver(t);
        at += n;
    }
    free(data);
    return writer;
}

static void write_one(struct queue *q, struct thread_executor *t, uint64_t i, struct writing *w)
{
    struct envelope e;
    struct queue_writer *writer = write_data(q, t, size_of(i), i, w);
    fixture_envelope(&e, 1);
    queue_commit(writer, &e, 1, FIXTURE_WALL, fixture_committed, &w->result);
    envelope_done(&e);
}

struct sending {
    struct queue *q;
    struct queue_reader *reader;
    uint64_t id;
    size_t got;
    bool settled;
};

static void settled(void *ctx, const struct error *err)
{
    struct sending *s = ctx;
    assert_null(err);
    s->settled = true;
}

static void doubted(void *ctx, const struct error *err)
{
    struct sending *s = ctx;
    struct envelope e;
    assert_null(err);
    fixture_envelope(&e, 1);
    e.recipients[0].state = RECIPIENT_DELIVERED;
    struct queue_attempt attempt = {
        .envelope = &e, .state = QUEUE_GONE, .wait_ms = 0, .tried_ms = 0, .counts = true};
    queue_settle(s->q, s->id, &attempt, 2, FIXTURE_WALL, settled, s);
    envelope_done(&e);
}

static void got(void *ctx, const uint8_t *data, size_t len, const struct error *err)
{
    struct sending *s = ctx;
    (void)data;
    assert_null(err);
    s->got += len;
    if (len > 0) {
        queue_read(s->reader, got, s);
        return;
    }
    queue_reader_close(s->reader);
    queue_doubt(s->q, s->id, FIXTURE_WALL, doubted, s);
}

static void opened(void *ctx, struct queue_reader *r, const struct envelope *e,
                   const struct error *err)
{
    struct sending *s = ctx;
    assert_null(err);
    assert_int_equal(e->recipient_count, 1);
    s->reader = r;
    queue_read(r, got, s);
}

static void send_some(struct queue *q, struct thread_executor *t, unsigned count)
{
    struct sending sends[3];
    uint32_t route;
    assert_true(queue_route(q, "main", &route));
    while (count > 0) {
        unsigned n = 0;
        struct queue_info info;
        for (; n < 3 && n < count && queue_pick(q, route, 2, &info); n++) {
            sends[n] = (struct sending){.q = q, .id = info.id};
            queue_reader_open(q, info.id, opened, &sends[n]);
        }
        assert_true(n > 0);
        for (unsigned i = 0; i < n; i++)
            while (!sends[i].settled)
                thread_executor_deliver(t);
        count -= n;
        queue_tick(q, 2, FIXTURE_WALL);
    }
}

static void mail_goes_in_and_out_while_the_queue_is_closed_in_the_middle(void **state)
{
    struct spool_fixture f;
    struct thread_executor t;
    struct error err = ERROR_INIT;
    static struct writing writings[MESSAGES];
    (void)state;
    fixture_init(&f);
    thread_executor_start(&t, CONTENT_THREADS);
    f.options.executor = thread_executor(&t);
    f.queue = queue_open(&f.options, &f.found, &err);
    assert_non_null(f.queue);
    for (uint64_t i = 0; i < MESSAGES; i++)
        write_one(f.queue, &t, i, &writings[i]);
    while (!writings[50].result.calls)
        thread_executor_deliver(&t);
    send_some(f.queue, &t, 40);
    queue_close(f.queue); /* with commits, bodies, flushes and removals under way */
    for (uint64_t i = 0; i < MESSAGES; i++)
        assert_true(writings[i].result.calls == 1 && writings[i].result.ok);
    thread_executor_stop(&t);
    assert_true(fixture_open(&f, &err));
    assert_int_equal(f.found.messages, MESSAGES - 40);
    assert_int_equal(f.found.damaged, 0);
    struct queue_info info = {0};
    while (queue_list(f.queue, info.id, &info)) {
        uint64_t i = 0;
        while (writings[i].result.id != info.id)
            i++;
        assert_true(fixture_intact(&f, info.id, size_of(i), i));
    }
    fixture_done(&f);
}

/* ---- flushes behind flushes ------------------------------------------------------------------ */

/* A disk on which a flush takes its time, and which notices that one ran although the loop had
 * heard of nothing since the one before. */
struct disk {
    struct fileops ops;
    struct thread_executor *executor;
    atomic_uint delivered;
    unsigned seen; /* the journal's thread alone */
    unsigned followed;
};

struct commit {
    struct burst *burst;
    unsigned order;
    bool ok;
};

struct burst {
    struct disk disk;
    unsigned order;
    uint64_t ids[BURST];
    struct commit commits[BURST];
    struct writing writings[BURST]; /* of its drains */
};

static int slow_sync(void *ctx, int fd)
{
    struct disk *d = ctx;
    if (pthread_equal(pthread_self(), d->executor->ids[0])) {
        unsigned delivered = atomic_load(&d->delivered);
        d->followed += delivered == d->seen;
        d->seen = delivered;
        (void)usleep(FLUSH_US);
    }
    return fileops_system.fdatasync(NULL, fd);
}

static void turn(struct burst *b, struct thread_executor *t)
{
    atomic_fetch_add(&b->disk.delivered, 1);
    (void)thread_executor_poll(t, 0);
}

static void in_order(void *ctx, uint64_t id, const struct error *err)
{
    struct commit *c = ctx;
    (void)id;
    c->ok = !err;
    c->order = ++c->burst->order;
}

static size_t burst_size(uint64_t i)
{
    return i % 50 == 7 ? 140000 : 200 + i * 37 % 9000;
}

static void commit_one(struct queue *q, struct thread_executor *t, struct burst *b, uint64_t i)
{
    struct envelope e;
    struct queue_writer *w = write_data(q, t, burst_size(i), i, &b->writings[i]);
    b->commits[i].burst = b;
    b->ids[i] = queue_writer_id(w);
    fixture_envelope(&e, 1);
    queue_commit(w, &e, 1, FIXTURE_WALL, in_order, &b->commits[i]);
    envelope_done(&e);
}

static void check_order(const struct burst *b)
{
    unsigned last = 0;
    for (unsigned i = 0; i < BURST; i++) {
        assert_true(b->commits[i].ok);
        if (burst_size(i) > QUEUE_SMALL_MAX) /* its body came first */
            continue;
        assert_true(b->commits[i].order > last);
        last = b->commits[i].order;
    }
}

static void what_is_committed_while_flushes_follow_flushes_is_reported_in_order(void **state)
{
    struct spool_fixture f;
    struct thread_executor t;
    struct error err = ERROR_INIT;
    static struct burst b;
    (void)state;
    fixture_init(&f);
    thread_executor_start(&t, CONTENT_THREADS);
    b.disk = (struct disk){.ops = fileops_system, .executor = &t};
    b.disk.ops.ctx = &b.disk;
    b.disk.ops.fdatasync = slow_sync;
    f.options.executor = thread_executor(&t);
    f.options.ops = &b.disk.ops;
    f.queue = queue_open(&f.options, &f.found, &err);
    assert_non_null(f.queue);
    for (unsigned i = 0; i < BURST; i++) {
        commit_one(f.queue, &t, &b, i);
        if (i % 8 == 7)
            turn(&b, &t);
        if (i == BURST / 2)
            send_some(f.queue, &t, 20);
    }
    queue_close(f.queue); /* with flushes behind flushes */
    check_order(&b);
    thread_executor_stop(&t);
    assert_true(b.disk.followed >= 10);
    f.options.ops = NULL;
    assert_true(fixture_open(&f, &err));
    assert_int_equal(f.found.messages, BURST - 20);
    assert_int_equal(f.found.damaged, 0);
    for (unsigned i = 0; i < BURST; i++) {
        struct queue_info info;
        if (queue_find(f.queue, b.ids[i], &info))
            assert_true(fixture_intact(&f, b.ids[i], burst_size(i), i));
    }
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_goes_in_and_out_while_the_queue_is_closed_in_the_middle),
        cmocka_unit_test(what_is_committed_while_flushes_follow_flushes_is_reported_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
