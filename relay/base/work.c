#include "relay/base/work.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <event2/event.h>

#ifdef __linux__
#include <sys/eventfd.h>
#endif

#define THREADS (3 + WORK_CONTENT_THREADS)

struct list {
    struct executor_job *first;
    struct executor_job **tail;
};

/* One lane's jobs and what its threads wait for. */
struct lane_queue {
    struct work *work;
    struct list waiting;
    pthread_cond_t filled;
};

struct work {
    pthread_mutex_t lock; /* guards the lists and `stopping` */
    struct lane_queue journal;
    struct lane_queue content;
    struct lane_queue slow;
    struct lane_queue database;
    struct list finished;
    pthread_cond_t finished_filled;
    bool stopping;

    /* Of the loop's thread alone. */
    size_t under_way; /* submitted, done() not yet called */
    struct list soon;
    struct event *soon_event;
    int wake_read, wake_write; /* the same descriptor with eventfd */
    struct event *wake_event;
    pthread_t threads[THREADS];
    size_t thread_count;
    struct lane_queue *database_lane; /* who does its jobs; NULL before the first one */
};

static void list_init(struct list *l)
{
    l->first = NULL;
    l->tail = &l->first;
}

static void list_add(struct list *l, struct executor_job *job)
{
    job->next = NULL;
    *l->tail = job;
    l->tail = &job->next;
}

static struct executor_job *list_take(struct list *l)
{
    struct executor_job *job = l->first;

    l->first = job->next;
    if (l->first == NULL)
        l->tail = &l->first;
    return job;
}

static struct executor_job *list_take_all(struct list *l)
{
    struct executor_job *jobs = l->first;

    list_init(l);
    return jobs;
}

/* A full pipe or eventfd means that the loop is about to wake anyway. */
static void wake_loop(struct work *w)
{
    uint64_t one = 1;

    while (write(w->wake_write, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void *thread_main(void *arg)
{
    struct lane_queue *q = arg;
    struct work *w = q->work;

    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct executor_job *job;
        bool first;

        while (q->waiting.first == NULL && !w->stopping)
            pthread_cond_wait(&q->filled, &w->lock);
        if (q->waiting.first == NULL)
            break;
        job = list_take(&q->waiting);
        pthread_mutex_unlock(&w->lock);
        job->work(job);
        pthread_mutex_lock(&w->lock);
        first = w->finished.first == NULL;
        list_add(&w->finished, job);
        if (!first)
            continue;
        pthread_cond_signal(&w->finished_filled);
        pthread_mutex_unlock(&w->lock); /* whoever wakes finds it free */
        wake_loop(w);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* done() may free its job and may submit others; those end up in a later batch. */
static void deliver(struct work *w, struct executor_job *jobs)
{
    while (jobs != NULL) {
        struct executor_job *job = jobs;

        jobs = job->next;
        w->under_way--;
        job->done(job);
    }
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct work *w = arg;
    struct executor_job *jobs;
    uint64_t drop[8];

    (void)what;
    while (read(fd, drop, sizeof drop) == sizeof drop) /* an eventfd gives 8 octets, once */
        ;
    pthread_mutex_lock(&w->lock);
    jobs = list_take_all(&w->finished);
    pthread_mutex_unlock(&w->lock);
    deliver(w, jobs);
}

static void submit_to(struct lane_queue *q, struct executor_job *job)
{
    struct work *w = q->work;

    w->under_way++;
    pthread_mutex_lock(&w->lock);
    assert(!w->stopping);
    list_add(&q->waiting, job);
    pthread_mutex_unlock(&w->lock);
    pthread_cond_signal(&q->filled); /* after the lock, so that who wakes finds it free */
}

static struct lane_queue *database_lane(struct work *w);

static void submit(void *ctx, enum executor_lane lane, struct executor_job *job)
{
    struct work *w = ctx;

    submit_to(lane == EXECUTOR_JOURNAL ? &w->journal : &w->content, job);
}

static void submit_slow(void *ctx, enum executor_lane lane, struct executor_job *job)
{
    struct work *w = ctx;

    (void)lane;
    submit_to(&w->slow, job);
}

static void submit_database(void *ctx, enum executor_lane lane, struct executor_job *job)
{
    struct work *w = ctx;

    (void)lane;
    submit_to(database_lane(w), job);
}

static void on_soon(evutil_socket_t fd, short what, void *arg)
{
    struct work *w = arg;

    (void)fd;
    (void)what;
    deliver(w, list_take_all(&w->soon));
}

/* Active events run in the order in which they became active. */
static void soon(void *ctx, struct executor_job *job)
{
    struct work *w = ctx;

    w->under_way++;
    list_add(&w->soon, job);
    event_active(w->soon_event, EV_TIMEOUT, 0);
}

struct executor work_executor(struct work *w)
{
    return (struct executor){w, submit, soon};
}

struct executor work_slow_executor(struct work *w)
{
    return (struct executor){w, submit_slow, NULL};
}

struct executor work_database_executor(struct work *w)
{
    return (struct executor){w, submit_database, NULL};
}

static bool open_wake(struct work *w, struct error *err)
{
#ifdef __linux__
    w->wake_read = w->wake_write = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->wake_read < 0)
        return error_errno(err, errno, "make the threads' wake-up");
#else
    int fds[2];

    if (pipe(fds) < 0)
        return error_errno(err, errno, "make the threads' wake-up");
    w->wake_read = fds[0];
    w->wake_write = fds[1];
    for (int i = 0; i < 2; i++) {
        (void)fcntl(fds[i], F_SETFD, FD_CLOEXEC);
        (void)fcntl(fds[i], F_SETFL, O_NONBLOCK);
    }
#endif
    return true;
}

static bool watch_wake(struct work *w, struct event_base *base, struct error *err)
{
    w->wake_event = event_new(base, w->wake_read, EV_READ | EV_PERSIST, on_wake, w);
    w->soon_event = event_new(base, -1, 0, on_soon, w);
    if (w->wake_event == NULL || w->soon_event == NULL || event_add(w->wake_event, NULL) < 0)
        return error_set(err, ERROR_NO_ROOM, "watch the threads' wake-up");
    return true;
}

static bool start_thread(struct work *w, const pthread_attr_t *attr, struct lane_queue *q,
                         struct error *err)
{
    int rc = pthread_create(&w->threads[w->thread_count], attr, thread_main, q);

    if (rc != 0)
        return error_errno(err, rc, "start a thread");
    w->thread_count++;
    return true;
}

/* Starts `count` threads of each lane. They inherit a mask that blocks everything: signals are the
 * loop's business. */
static bool start_threads(struct work *w, struct lane_queue *const *lanes, const int *counts,
                          size_t lane_count, struct error *err)
{
    pthread_attr_t attr;
    sigset_t all, before;
    bool ok = true;

    if (pthread_attr_init(&attr) != 0)
        return error_set(err, ERROR_NO_ROOM, "start a thread: no memory");
    (void)pthread_attr_setstacksize(&attr, WORK_STACK);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    for (size_t i = 0; i < lane_count; i++) {
        for (int n = 0; ok && n < counts[i]; n++)
            ok = start_thread(w, &attr, lanes[i], err);
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attr);
    return ok;
}

static bool start_first_threads(struct work *w, struct error *err)
{
    struct lane_queue *const lanes[] = {&w->journal, &w->slow, &w->content};
    static const int counts[] = {1, 1, WORK_CONTENT_THREADS};

    return start_threads(w, lanes, counts, sizeof counts / sizeof *counts, err);
}

/* Decided once, so that no two of its jobs ever run at a time. */
static struct lane_queue *database_lane(struct work *w)
{
    struct lane_queue *const lane = &w->database;
    static const int one = 1;

    if (w->database_lane == NULL)
        w->database_lane = start_threads(w, &lane, &one, 1, NULL) ? &w->database : &w->slow;
    return w->database_lane;
}

static void init_lane(struct work *w, struct lane_queue *q)
{
    q->work = w;
    list_init(&q->waiting);
    (void)pthread_cond_init(&q->filled, NULL);
}

struct work *work_new(struct event_base *base, struct error *err)
{
    struct work *w = calloc(1, sizeof *w);

    if (w == NULL) {
        (void)error_set(err, ERROR_NO_ROOM, "start the threads: no memory");
        return NULL;
    }
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->finished_filled, NULL);
    list_init(&w->finished);
    list_init(&w->soon);
    init_lane(w, &w->journal);
    init_lane(w, &w->content);
    init_lane(w, &w->slow);
    init_lane(w, &w->database);
    w->wake_read = w->wake_write = -1;
    if (!open_wake(w, err) || !watch_wake(w, base, err) || !start_first_threads(w, err)) {
        work_free(w);
        return NULL;
    }
    return w;
}

void work_drain(struct work *w)
{
    while (w->under_way > 0) {
        struct executor_job *jobs = list_take_all(&w->soon);

        if (jobs != NULL) {
            deliver(w, jobs);
            continue;
        }
        pthread_mutex_lock(&w->lock);
        while (w->finished.first == NULL)
            pthread_cond_wait(&w->finished_filled, &w->lock);
        jobs = list_take_all(&w->finished);
        pthread_mutex_unlock(&w->lock);
        deliver(w, jobs);
    }
}

static void join_threads(struct work *w)
{
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_broadcast(&w->journal.filled);
    pthread_cond_broadcast(&w->content.filled);
    pthread_cond_broadcast(&w->slow.filled);
    pthread_cond_broadcast(&w->database.filled);
    pthread_mutex_unlock(&w->lock);
    for (size_t i = 0; i < w->thread_count; i++)
        (void)pthread_join(w->threads[i], NULL);
}

void work_free(struct work *w)
{
    if (w == NULL)
        return;
    work_drain(w);
    join_threads(w);
    if (w->wake_event != NULL)
        event_free(w->wake_event);
    if (w->soon_event != NULL)
        event_free(w->soon_event);
    if (w->wake_read >= 0)
        (void)close(w->wake_read);
    if (w->wake_write >= 0 && w->wake_write != w->wake_read)
        (void)close(w->wake_write);
    (void)pthread_cond_destroy(&w->journal.filled);
    (void)pthread_cond_destroy(&w->content.filled);
    (void)pthread_cond_destroy(&w->slow.filled);
    (void)pthread_cond_destroy(&w->database.filled);
    (void)pthread_cond_destroy(&w->finished_filled);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
}
