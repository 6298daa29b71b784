/*
 * An executor with real threads, as the relay gives one: one for the journal, some for bodies. The
 * test's own thread is the loop: results are delivered when it asks for them.
 */
#ifndef OUTTRAY_TESTS_THREAD_EXECUTOR_H
#define OUTTRAY_TESTS_THREAD_EXECUTOR_H

#include <pthread.h>
#include <stdbool.h>

#include "queue/executor.h"

#define THREAD_EXECUTOR_MAX 8

struct thread_executor_jobs {
    struct executor_job *first;
    struct executor_job **end;
};

struct thread_executor {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_cond_t done;
    struct thread_executor_jobs lanes[2];
    struct thread_executor_jobs finished;
    bool stop;
    int count;
    pthread_t ids[1 + THREAD_EXECUTOR_MAX];
};

void thread_executor_start(struct thread_executor *t, int content_threads);
/* Ends the threads, which must have nothing to do, and delivers what is left. */
void thread_executor_stop(struct thread_executor *t);
/* Borrows t. */
struct executor thread_executor(struct thread_executor *t);
/* Waits for one result and delivers it. */
void thread_executor_deliver(struct thread_executor *t);
/* Delivers one result if there is one within so many ms. */
bool thread_executor_poll(struct thread_executor *t, unsigned ms);

#endif
