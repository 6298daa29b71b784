/*
 * Work handed to the executor, in a form that can be ended.
 *
 * An executor promises nothing about shutdown: it delivers done() when its loop runs. queue_close()
 * must not wait for a loop that it is itself called from, so every job of the queue goes through a
 * task, which knows by itself when its work has ended. tasks_finish() waits for that and delivers
 * the results at once; the executor's own, later done() then only frees.
 *
 * work() runs elsewhere and touches only what its ctx owns; done() runs on the loop's thread, never
 * from within task_submit(). Without an executor (submit NULL) or after tasks_finish() everything
 * runs inline, one after the other, before the outermost task_submit() or tasks_finish() returns.
 * A task is made beforehand, so that submitting cannot fail, and may be submitted again after its
 * done() has begun.
 */
#ifndef OUTTRAY_QUEUE_TASKS_H
#define OUTTRAY_QUEUE_TASKS_H

#include <stdbool.h>

#include "queue/executor.h"

struct tasks;
struct task;

typedef void task_fn(void *ctx);

/* NULL without memory. The executor is copied. */
struct tasks *tasks_new(const struct executor *executor);
/* Waits for all work, delivers all results, and runs inline from then on. */
void tasks_finish(struct tasks *t);
/* All tasks must have been freed. What the executor still holds is freed by its last done().
 * Accepts NULL. */
void tasks_free(struct tasks *t);

/* NULL without memory. work may be NULL: then only done() is delivered. */
struct task *task_new(struct tasks *t, task_fn *work, task_fn *done, void *ctx);
void task_submit(struct task *task, enum executor_lane lane);
/* Delivers done(), without work(), when what is ready now has been dealt with. False, and nothing
 * is submitted, where that is at once. */
bool task_submit_soon(struct task *task);
bool task_under_way(const struct task *task); /* submitted, done() not begun */
/* Not while it is under way. Accepts NULL. */
void task_free(struct task *task);

#endif
