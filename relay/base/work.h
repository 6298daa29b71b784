/*
 * The threads: the only locks of the program are in here.
 *
 * One thread runs EXECUTOR_JOURNAL jobs and nothing else; WORK_CONTENT_THREADS share the
 * EXECUTOR_CONTENT jobs. A thread of its own does what keeps a processor busy for long, one job at
 * a time, so that such jobs never hold up mail; so has the database, started when it gets its first
 * job. Finished jobs come back to the loop's thread through an eventfd (a pipe where there is none)
 * and get their done() there; what is to be done soon follows the callbacks that the loop has
 * ready. work_executor() is what queue/ is given. Threads block all signals. Stacks are small
 * (WORK_STACK).
 */
#ifndef OUTTRAY_RELAY_BASE_WORK_H
#define OUTTRAY_RELAY_BASE_WORK_H

#include "queue/error.h"
#include "queue/executor.h"

#define WORK_CONTENT_THREADS 4
#define WORK_STACK           ((size_t)256 * 1024)

struct event_base;
struct work;

/* Starts the threads. NULL on failure. The base is borrowed. */
struct work *work_new(struct event_base *base, struct error *err);
struct executor work_executor(struct work *w);
/* For password hashes: every lane of it is the one slow thread. */
struct executor work_slow_executor(struct work *w);
/* For the database: every lane of it is one thread, in the order of submission. Where that thread
 * cannot be started the slow one does its jobs. */
struct executor work_database_executor(struct work *w);
/* Blocks until every submitted job's work() has run, delivers their done() (and those of the jobs
 * these submit), ends the threads and frees. Accepts NULL. */
void work_free(struct work *w);
/* Blocks until nothing is under way, delivering done() calls meanwhile. For a clean stop. */
void work_drain(struct work *w);

#endif
