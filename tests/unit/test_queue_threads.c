/*
 * The queue with real threads: one for the journal, three for bodies, as the relay gives it. Run
 * under ThreadSanitizer it shows that the hand-over is the only place where threads meet.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "queue/queue.h"
#include "tests/unit/spool_fixture.h"

#define CONTENT_THREADS 3
#define MESSAGES        150

struct jobs {
    struct executor_job *first;
    struct executor_job **end;
};

struct threads {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_cond_t done;
    struct jobs lanes[2];
    struct jobs finished;
    bool stop;
    pthread_t ids[1 + CONTENT_THREADS];
};

struct thread_start {
    struct threads *threads;
    enum executor_lane lane;
};

static void lane_add(struct jobs *l, struct executor_job *job)
{
    job->next = NULL;
    *l->end = job;
    l->end = &job->next;
}

static struct executor_job *lane_take(struct jobs *l)
{
    struct executor_job *job = l->first;
    if (job) {
        l->first = job->next;
        l->end = l->first ? l->end : &l->first;
    }
    return job;
}

static void *thread_main(void *arg)
{
    struct thread_start start = *(struct thread_start *)arg;
    struct threads *t = start.threads;
    free(arg);
    pthread_mutex_lock(&t->mutex);
    while (!t->stop) {
        struct executor_job *job = lane_take(&t->lanes[start.lane]);
        if (!job) {
            pthread_cond_wait(&t->work, &t->mutex);
            continue;
        }
        pthread_mutex_unlock(&t->mutex);
        job->work(job);
        pthread_mutex_lock(&t->mutex);
        lane_add(&t->finished, job);
        pthread_cond_signal(&t->done);
    }
    pthread_mutex_unlock(&t->mutex);
    return NULL;
}

static void submit(void *ctx, enum executor_lane lane, struct executor_job *job)
{
    struct threads *t = ctx;
    pthread_mutex_lock(&t->mutex);
    lane_add(&t->lanes[lane], job);
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->mutex);
}

/* Waits for one result and delivers it. */
static void deliver_one(struct threads *t)
{
    pthread_mutex_lock(&t->mutex);
    struct executor_job *job;
    while (!(job = lane_take(&t->finished)))
        pthread_cond_wait(&t->done, &t->mutex);
    pthread_mutex_unlock(&t->mutex);
    job->done(job);
}

static void deliver_rest(struct threads *t)
{
    struct executor_job *job;
    while ((job = lane_take(&t->finished)))
        job->done(job);
}

static void threads_start(struct threads *t)
{
    memset(t, 0, sizeof(*t));
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->done, NULL);
    t->lanes[0].end = &t->lanes[0].first;
    t->lanes[1].end = &t->lanes[1].first;
    t->finished.end = &t->finished.first;
    for (int i = 0; i < 1 + CONTENT_THREADS; i++) {
        struct thread_start *start = malloc(sizeof(*start));
        assert_non_null(start);
        *start = (struct thread_start){t, i == 0 ? EXECUTOR_JOURNAL : EXECUTOR_CONTENT};
        assert_int_equal(pthread_create(&t->ids[i], NULL, thread_main, start), 0);
    }
}

static void threads_stop(struct threads *t)
{
    pthread_mutex_lock(&t->mutex);
    t->stop = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->mutex);
    for (int i = 0; i < 1 + CONTENT_THREADS; i++)
        pthread_join(t->ids[i], NULL);
    deliver_rest(t);
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->work);
    pthread_mutex_destroy(&t->mutex);
}

/* ---- the queue on it ------------------------------------------------------------------------- */

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

static void write_one(struct queue *q, struct threads *t, uint64_t i, struct writing *w)
{
    struct error err = ERROR_INIT;
    struct envelope e;
    size_t size = size_of(i);
    uint8_t *data = malloc(size);
    assert_non_null(data);
    fixture_fill(data, size, i);
    struct queue_writer *writer = queue_begin(q, drained, w, &err);
    assert_non_null(writer);
    for (size_t at = 0; at < size;) {
        size_t n = size - at < 30000 ? size - at : 30000;
        w->drained = false;
        enum queue_flow flow = queue_append(writer, data + at, n, &err);
        assert_int_not_equal(flow, QUEUE_FLOW_ERROR);
        while (flow == QUEUE_FLOW_FULL && !w->drained)
            deliver_one(t);
        at += n;
    }
    fixture_envelope(&e, 1);
    queue_commit(writer, &e, 1, FIXTURE_WALL, fixture_committed, &w->result);
    envelope_done(&e);
    free(data);
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

static void send_some(struct queue *q, struct threads *t, unsigned count)
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
                deliver_one(t);
        count -= n;
        queue_tick(q, 2, FIXTURE_WALL);
    }
}

static void mail_goes_in_and_out_while_the_queue_is_closed_in_the_middle(void **state)
{
    struct spool_fixture f;
    struct threads t;
    struct error err = ERROR_INIT;
    static struct writing writings[MESSAGES];
    (void)state;
    fixture_init(&f);
    threads_start(&t);
    f.options.executor = (struct executor){.ctx = &t, .submit = submit};
    f.queue = queue_open(&f.options, &f.found, &err);
    assert_non_null(f.queue);
    for (uint64_t i = 0; i < MESSAGES; i++)
        write_one(f.queue, &t, i, &writings[i]);
    while (!writings[50].result.calls)
        deliver_one(&t);
    send_some(f.queue, &t, 40);
    queue_close(f.queue); /* with commits, bodies, flushes and removals under way */
    for (uint64_t i = 0; i < MESSAGES; i++)
        assert_true(writings[i].result.calls == 1 && writings[i].result.ok);
    threads_stop(&t);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_goes_in_and_out_while_the_queue_is_closed_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
