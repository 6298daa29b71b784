#include "queue/tasks.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

struct task {
    struct executor_job job; /* first: the executor knows this part only */
    struct tasks *owner;
    task_fn *work;
    task_fn *done;
    void *ctx;
    struct task *prev; /* in the owner's list while under way */
    struct task *next;
    bool under_way;
    bool unworked; /* inline: work() has not run */
    bool held;     /* the executor has it: its done() has not come */
    bool freed;
};

struct tasks {
    struct executor executor;
    struct task *first; /* under way, in the order of submission */
    struct task *last;
    unsigned held;
    bool inlined;
    bool draining;
    bool closed;
    pthread_mutex_t mutex; /* guards running */
    pthread_cond_t idle;
    unsigned running; /* work() not ended */
};

struct tasks *tasks_new(const struct executor *executor)
{
    struct tasks *t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    t->executor = *executor;
    t->inlined = !executor->submit;
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->idle, NULL);
    return t;
}

static void tasks_destroy(struct tasks *t)
{
    pthread_cond_destroy(&t->idle);
    pthread_mutex_destroy(&t->mutex);
    free(t);
}

void tasks_free(struct tasks *t)
{
    if (!t)
        return;
    assert(!t->first);
    t->closed = true;
    if (t->held == 0)
        tasks_destroy(t);
}

static void list_add(struct tasks *t, struct task *task)
{
    task->next = NULL;
    task->prev = t->last;
    if (t->last)
        t->last->next = task;
    else
        t->first = task;
    t->last = task;
}

static void list_remove(struct tasks *t, struct task *task)
{
    if (task->prev)
        task->prev->next = task->next;
    else
        t->first = task->next;
    if (task->next)
        task->next->prev = task->prev;
    else
        t->last = task->prev;
}

static void deliver(struct task *task)
{
    list_remove(task->owner, task);
    task->under_way = false;
    task->done(task->ctx); /* may free the task or submit it again */
}

static void job_work(struct executor_job *job)
{
    struct task *task = (struct task *)job;
    struct tasks *t = task->owner;
    if (task->work)
        task->work(task->ctx);
    pthread_mutex_lock(&t->mutex);
    if (--t->running == 0)
        pthread_cond_signal(&t->idle);
    pthread_mutex_unlock(&t->mutex);
}

static void job_done(struct executor_job *job)
{
    struct task *task = (struct task *)job;
    struct tasks *t = task->owner;
    task->held = false;
    if (task->freed)
        free(task);
    else if (task->under_way && !t->inlined)
        deliver(task);
    if (--t->held == 0 && t->closed) /* counted until here: done() may have closed the queue */
        tasks_destroy(t);
}

static void drain(struct tasks *t)
{
    if (t->draining)
        return;
    t->draining = true;
    while (t->first) {
        struct task *task = t->first;
        if (task->unworked && task->work)
            task->work(task->ctx);
        deliver(task);
    }
    t->draining = false;
}

void tasks_finish(struct tasks *t)
{
    pthread_mutex_lock(&t->mutex);
    while (t->running > 0)
        pthread_cond_wait(&t->idle, &t->mutex);
    pthread_mutex_unlock(&t->mutex);
    t->inlined = true;
    drain(t);
}

struct task *task_new(struct tasks *t, task_fn *work, task_fn *done, void *ctx)
{
    struct task *task = calloc(1, sizeof(*task));
    if (!task)
        return NULL;
    task->job.work = job_work;
    task->job.done = job_done;
    task->owner = t;
    task->work = work;
    task->done = done;
    task->ctx = ctx;
    return task;
}

void task_submit(struct task *task, enum executor_lane lane)
{
    struct tasks *t = task->owner;
    assert(!task->under_way);
    task->under_way = true;
    task->unworked = t->inlined;
    list_add(t, task);
    if (t->inlined) {
        drain(t);
        return;
    }
    pthread_mutex_lock(&t->mutex);
    t->running++;
    pthread_mutex_unlock(&t->mutex);
    task->held = true;
    t->held++;
    t->executor.submit(t->executor.ctx, lane, &task->job);
}

bool task_submit_soon(struct task *task)
{
    struct tasks *t = task->owner;
    if (t->inlined || !t->executor.soon)
        return false;
    assert(!task->under_way);
    task->under_way = true;
    task->unworked = false;
    list_add(t, task);
    task->held = true;
    t->held++;
    t->executor.soon(t->executor.ctx, &task->job);
    return true;
}

bool task_under_way(const struct task *task)
{
    return task->under_way;
}

void task_free(struct task *task)
{
    if (!task)
        return;
    assert(!task->under_way);
    if (task->held)
        task->freed = true; /* the executor's done() frees it */
    else
        free(task);
}
