/*
 * An executor without threads, for tests: a job's work() runs within submit(), its done() only from
 * inline_executor_run(), in the order of submission or the last one first.
 */
#ifndef OUTTRAY_TESTS_INLINE_EXECUTOR_H
#define OUTTRAY_TESTS_INLINE_EXECUTOR_H

#include <stdbool.h>
#include <stddef.h>

#include "queue/executor.h"

struct inline_executor {
    struct executor_job *first;
    struct executor_job **end;
    bool reversed;
    size_t submitted;
};

void inline_executor_init(struct inline_executor *x, bool reversed);
/* Borrows x. */
struct executor inline_executor(struct inline_executor *x);
/* Delivers one result. False when there is none. */
bool inline_executor_step(struct inline_executor *x);
/* Delivers results until none is left, also those of jobs submitted meanwhile. */
void inline_executor_run(struct inline_executor *x);

#endif
