#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "relay/base/work.h"

#define JOBS 1000

struct recorder {
    struct event_base *base;
    struct work *work;
    struct executor executor;
    pthread_t loop_thread;
    int order[2 * JOBS]; /* of done() calls */
    size_t done;
    size_t stop_at; /* ends the loop after so many */
    size_t to_chain;
    atomic_int running;
    atomic_int overlaps;
    atomic_int worked;
};

struct job {
    struct executor_job job;
    struct recorder *r;
    int number;
    bool alone; /* must not run beside another */
    bool off_loop;
    bool signals_blocked;
};

static struct job *job_of(struct executor_job *job)
{
    return (struct job *)job; /* its first member */
}

static void work_job(struct executor_job *ej)
{
    struct job *j = job_of(ej);
    sigset_t blocked;

    if (atomic_fetch_add(&j->r->running, 1) > 0 && j->alone)
        atomic_fetch_add(&j->r->overlaps, 1);
    (void)pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    j->signals_blocked = sigismember(&blocked, SIGTERM) == 1 && sigismember(&blocked, SIGCHLD) == 1;
    j->off_loop = !pthread_equal(pthread_self(), j->r->loop_thread);
    atomic_fetch_add(&j->r->worked, 1);
    atomic_fetch_sub(&j->r->running, 1);
}

static void submit_job(struct recorder *r, enum executor_lane lane, int number, bool alone);

static void done_job(struct executor_job *ej)
{
    struct job *j = job_of(ej);
    struct recorder *r = j->r;

    assert_true(pthread_equal(pthread_self(), r->loop_thread));
    assert_true(j->off_loop);
    assert_true(j->signals_blocked);
    r->order[r->done++] = j->number;
    if (r->to_chain > 0) {
        r->to_chain--;
        submit_job(r, EXECUTOR_JOURNAL, j->number + 1, false);
    }
    if (r->done == r->stop_at)
        event_base_loopbreak(r->base);
    free(j);
}

static void submit_job(struct recorder *r, enum executor_lane lane, int number, bool alone)
{
    struct job *j = calloc(1, sizeof *j);

    assert_non_null(j);
    j->job.work = work_job;
    j->job.done = done_job;
    j->r = r;
    j->number = number;
    j->alone = alone;
    r->executor.submit(r->executor.ctx, lane, &j->job);
}

static int set_up(void **state)
{
    struct recorder *r = calloc(1, sizeof *r);
    struct error err = ERROR_INIT;

    assert_non_null(r);
    r->base = event_base_new();
    assert_non_null(r->base);
    r->work = work_new(r->base, &err);
    assert_non_null(r->work);
    r->executor = work_executor(r->work);
    r->loop_thread = pthread_self();
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct recorder *r = *state;

    work_free(r->work);
    event_base_free(r->base);
    free(r);
    return 0;
}

static void journal_jobs_run_one_at_a_time_in_their_order(void **state)
{
    struct recorder *r = *state;

    r->stop_at = JOBS;
    for (int i = 0; i < JOBS; i++)
        submit_job(r, EXECUTOR_JOURNAL, i, true);
    assert_int_equal(r->done, 0); /* never from within submit */
    (void)event_base_dispatch(r->base);
    assert_int_equal(r->done, JOBS);
    assert_int_equal(atomic_load(&r->overlaps), 0);
    for (int i = 0; i < JOBS; i++)
        assert_int_equal(r->order[i], i);
}

static void every_content_job_comes_back_once(void **state)
{
    struct recorder *r = *state;
    static char seen[JOBS];

    memset(seen, 0, sizeof seen);
    r->stop_at = JOBS;
    for (int i = 0; i < JOBS; i++)
        submit_job(r, EXECUTOR_CONTENT, i, false);
    (void)event_base_dispatch(r->base);
    assert_int_equal(atomic_load(&r->worked), JOBS);
    for (size_t i = 0; i < r->done; i++)
        seen[r->order[i]]++;
    for (int i = 0; i < JOBS; i++)
        assert_int_equal(seen[i], 1);
}

static void done_may_submit_the_next_job(void **state)
{
    struct recorder *r = *state;

    r->to_chain = 99;
    r->stop_at = 100;
    submit_job(r, EXECUTOR_CONTENT, 0, false);
    (void)event_base_dispatch(r->base);
    assert_int_equal(r->done, 100);
    assert_int_equal(r->order[99], 99);
}

static void note_done(struct executor_job *ej)
{
    struct job *j = job_of(ej);
    struct recorder *r = j->r;

    r->order[r->done++] = j->number;
    if (r->done == r->stop_at)
        event_base_loopbreak(r->base);
    free(j);
}

static void ask_for_soon(struct recorder *r, int number)
{
    struct job *j = calloc(1, sizeof *j);

    assert_non_null(j);
    j->job.done = note_done;
    j->r = r;
    j->number = number;
    r->executor.soon(r->executor.ctx, &j->job);
}

static void on_ready(evutil_socket_t fd, short what, void *ctx)
{
    struct recorder *r = ctx;

    (void)fd;
    (void)what;
    r->order[r->done] = 0;
    if (r->done++ == 0)
        ask_for_soon(r, 100);
}

static void soon_follows_what_is_ready_and_is_on_the_same_thread(void **state)
{
    struct recorder *r = *state;
    struct event *ready[3];

    r->stop_at = 4;
    for (int i = 0; i < 3; i++) {
        ready[i] = event_new(r->base, -1, 0, on_ready, r);
        event_active(ready[i], EV_TIMEOUT, 0);
    }
    (void)event_base_dispatch(r->base);
    assert_int_equal(r->done, 4);
    assert_int_equal(r->order[3], 100);
    for (int i = 0; i < 3; i++)
        event_free(ready[i]);
}

static void draining_delivers_what_is_to_be_done_soon(void **state)
{
    struct recorder *r = *state;

    ask_for_soon(r, 1);
    ask_for_soon(r, 2);
    assert_int_equal(r->done, 0);
    work_drain(r->work);
    assert_int_equal(r->done, 2);
    assert_int_equal(r->order[1], 2);
}

static void draining_delivers_everything_and_what_that_submits(void **state)
{
    struct recorder *r = *state;

    r->to_chain = 50;
    for (int i = 0; i < JOBS; i++)
        submit_job(r, i % 2 == 0 ? EXECUTOR_JOURNAL : EXECUTOR_CONTENT, i, false);
    work_drain(r->work);
    assert_int_equal(r->done, JOBS + 50);
    work_drain(r->work);
    assert_int_equal(r->done, JOBS + 50);
}

static void after_draining_the_loop_still_works(void **state)
{
    struct recorder *r = *state;

    submit_job(r, EXECUTOR_JOURNAL, 1, false);
    work_drain(r->work);
    r->stop_at = 2;
    submit_job(r, EXECUTOR_JOURNAL, 2, false);
    (void)event_base_dispatch(r->base);
    assert_int_equal(r->done, 2);
}

static void freeing_delivers_what_is_under_way(void **state)
{
    struct recorder *r = *state;

    for (int i = 0; i < JOBS; i++)
        submit_job(r, EXECUTOR_CONTENT, i, false);
    work_free(r->work);
    r->work = NULL;
    assert_int_equal(r->done, JOBS);
}

static void database_jobs_run_one_at_a_time_in_their_order_whatever_their_lane(void **state)
{
    struct recorder *r = *state;

    r->executor = work_database_executor(r->work);
    r->stop_at = JOBS;
    for (int i = 0; i < JOBS; i++)
        submit_job(r, i % 2 == 0 ? EXECUTOR_JOURNAL : EXECUTOR_CONTENT, i, true);
    assert_int_equal(r->done, 0);
    (void)event_base_dispatch(r->base);
    assert_int_equal(r->done, JOBS);
    assert_int_equal(atomic_load(&r->overlaps), 0);
    for (int i = 0; i < JOBS; i++)
        assert_int_equal(r->order[i], i);
}

static void draining_and_freeing_wait_for_the_database_too(void **state)
{
    struct recorder *r = *state;

    r->executor = work_database_executor(r->work);
    r->to_chain = 50;
    for (int i = 0; i < JOBS; i++)
        submit_job(r, EXECUTOR_JOURNAL, i, true);
    work_drain(r->work);
    assert_int_equal(r->done, JOBS + 50);
    for (int i = 0; i < JOBS / 2; i++)
        submit_job(r, EXECUTOR_JOURNAL, i, true);
    work_free(r->work);
    r->work = NULL;
    assert_int_equal(r->done, JOBS + 50 + JOBS / 2);
}

/* Two jobs that can only both end when they run at the same time. */
struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t came;
    int present;
    int left;
};

struct meeting_job {
    struct executor_job job;
    struct meeting *meeting;
};

static void meet(struct executor_job *ej)
{
    struct meeting *m = ((struct meeting_job *)ej)->meeting;

    pthread_mutex_lock(&m->lock);
    m->present++;
    pthread_cond_broadcast(&m->came);
    while (m->present < 2)
        pthread_cond_wait(&m->came, &m->lock);
    pthread_mutex_unlock(&m->lock);
}

static void leave(struct executor_job *ej)
{
    ((struct meeting_job *)ej)->meeting->left++;
}

static void expect_to_meet(struct recorder *r, enum executor_lane one, enum executor_lane other)
{
    struct meeting m = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
    struct meeting_job jobs[2] = {{{meet, leave, NULL}, &m}, {{meet, leave, NULL}, &m}};

    r->executor.submit(r->executor.ctx, one, &jobs[0].job);
    r->executor.submit(r->executor.ctx, other, &jobs[1].job);
    work_drain(r->work);
    assert_int_equal(m.left, 2);
}

static void content_jobs_run_beside_each_other_and_beside_the_journal(void **state)
{
    expect_to_meet(*state, EXECUTOR_CONTENT, EXECUTOR_CONTENT);
    expect_to_meet(*state, EXECUTOR_JOURNAL, EXECUTOR_CONTENT);
}

static void slow_jobs_run_one_at_a_time_and_hold_nobody_up(void **state)
{
    struct recorder *r = *state;
    struct meeting m = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
    struct meeting_job jobs[2] = {{{meet, leave, NULL}, &m}, {{meet, leave, NULL}, &m}};
    struct executor usual = r->executor;

    r->executor = work_slow_executor(r->work);
    r->executor.submit(r->executor.ctx, EXECUTOR_JOURNAL, &jobs[0].job); /* waits for the other */
    usual.submit(usual.ctx, EXECUTOR_CONTENT, &jobs[1].job);
    for (int i = 0; i < JOBS; i++)
        submit_job(r, EXECUTOR_CONTENT, i, true);
    work_drain(r->work);
    assert_int_equal(m.left, 2);
    assert_int_equal(r->done, JOBS);
    assert_int_equal(atomic_load(&r->overlaps), 0);
    for (int i = 0; i < JOBS; i++)
        assert_int_equal(r->order[i], i);
}

static void freeing_nothing_is_fine(void **state)
{
    (void)state;
    work_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(journal_jobs_run_one_at_a_time_in_their_order),
        TEST(every_content_job_comes_back_once),
        TEST(done_may_submit_the_next_job),
        TEST(soon_follows_what_is_ready_and_is_on_the_same_thread),
        TEST(draining_delivers_what_is_to_be_done_soon),
        TEST(draining_delivers_everything_and_what_that_submits),
        TEST(after_draining_the_loop_still_works),
        TEST(freeing_delivers_what_is_under_way),
        TEST(content_jobs_run_beside_each_other_and_beside_the_journal),
        TEST(slow_jobs_run_one_at_a_time_and_hold_nobody_up),
        TEST(database_jobs_run_one_at_a_time_in_their_order_whatever_their_lane),
        TEST(draining_and_freeing_wait_for_the_database_too),
        TEST(freeing_nothing_is_fine),
    };

    return cmocka_run_group_tests_name("work", tests, NULL, NULL);
}
