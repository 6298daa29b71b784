/*
 * An executor without threads, for tests: a job's work() runs within submit(), its done() only from
 * inline_executor_run(), in the order of submission or the last one first.
 *
 * A lazy one runs nothing within submit(). Each step works one job or delivers one result; `seed`
 * decides which, so that jobs are submitted before, while and after others are worked, as with
 * threads, and each time the same.
 */
#ifndef OUTTRAY_TESTS_INLINE_EXECUTOR_H
#define OUTTRAY_TESTS_INLINE_EXECUTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/executor.h"

struct inline_executor {
    struct executor_job *first;
    struct executor_job **end;
    bool reversed;
    bool lazy; /* may be set at any time */
    uint64_t seed;
    struct executor_job *waiting[2]; /* lazy: not worked yet, by lane */
    struct executor_job *flushes;    /* the newest result of EXECUTOR_JOURNAL not yet delivered */
    size_t submitted;
    size_t behind; /* jobs of EXECUTOR_JOURNAL worked before another's result was delivered */
};

void inline_executor_init(struct inline_executor *x, bool reversed);
/* Borrows x. */
struct executor inline_executor(struct inline_executor *x);
/* Delivers one result; a lazy one may work a job instead. False when there is nothing to do. */
bool inline_executor_step(struct inline_executor *x);
/* Works all jobs that wait for it, and delivers nothing: nobody else would before a queue's end. */
void inline_executor_work(struct inline_executor *x);
/* Delivers results until none is left, also those of jobs submitted meanwhile. */
void inline_executor_run(struct inline_executor *x);

#endif
