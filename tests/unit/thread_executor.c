#include "tests/unit/thread_executor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct thread_start {
    struct thread_executor *executor;
    enum executor_lane lane;
};

static void add(struct thread_executor_jobs *l, struct executor_job *job)
{
    job->next = NULL;
    *l->end = job;
    l->end = &job->next;
}

static struct executor_job *take(struct thread_executor_jobs *l)
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
    struct thread_executor *t = start.executor;
    free(arg);
    pthread_mutex_lock(&t->mutex);
    while (!t->stop) {
        struct executor_job *job = take(&t->lanes[start.lane]);
        if (!job) {
            pthread_cond_wait(&t->work, &t->mutex);
            continue;
        }
        pthread_mutex_unlock(&t->mutex);
        job->work(job);
        pthread_mutex_lock(&t->mutex);
        add(&t->finished, job);
        pthread_cond_signal(&t->done);
    }
    pthread_mutex_unlock(&t->mutex);
    return NULL;
}

static void submit(void *ctx, enum executor_lane lane, struct executor_job *job)
{
    struct thread_executor *t = ctx;
    pthread_mutex_lock(&t->mutex);
    add(&t->lanes[lane], job);
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->mutex);
}

struct executor thread_executor(struct thread_executor *t)
{
    return (struct executor){.ctx = t, .submit = submit};
}

void thread_executor_deliver(struct thread_executor *t)
{
    pthread_mutex_lock(&t->mutex);
    struct executor_job *job;
    while (!(job = take(&t->finished)))
        pthread_cond_wait(&t->done, &t->mutex);
    pthread_mutex_unlock(&t->mutex);
    job->done(job);
}

bool thread_executor_poll(struct thread_executor *t, unsigned ms)
{
    struct timespec until;
    struct executor_job *job;
    int result = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&t->mutex);
    while (!(job = take(&t->finished)) && result != ETIMEDOUT)
        result = pthread_cond_timedwait(&t->done, &t->mutex, &until);
    pthread_mutex_unlock(&t->mutex);
    if (job)
        job->done(job);
    return job != NULL;
}

void thread_executor_start(struct thread_executor *t, int content_threads)
{
    memset(t, 0, sizeof(*t));
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->done, NULL);
    t->lanes[0].end = &t->lanes[0].first;
    t->lanes[1].end = &t->lanes[1].first;
    t->finished.end = &t->finished.first;
    t->count = 1 + content_threads;
    for (int i = 0; i < t->count; i++) {
        struct thread_start *start = malloc(sizeof(*start));
        if (!start)
            abort();
        *start = (struct thread_start){t, i == 0 ? EXECUTOR_JOURNAL : EXECUTOR_CONTENT};
        if (pthread_create(&t->ids[i], NULL, thread_main, start) != 0)
            abort();
    }
}

void thread_executor_stop(struct thread_executor *t)
{
    struct executor_job *job;
    pthread_mutex_lock(&t->mutex);
    t->stop = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->mutex);
    for (int i = 0; i < t->count; i++)
        pthread_join(t->ids[i], NULL);
    while ((job = take(&t->finished)))
        job->done(job);
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->work);
    pthread_mutex_destroy(&t->mutex);
}
