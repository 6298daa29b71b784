/*
 * The threads that the queue is given. The queue makes none itself.
 *
 * A job's work() runs on another thread (or inline, in tests) and may block; it touches only what
 * the job owns. done() runs afterwards on the thread that submitted it, never from within submit().
 * The job's memory belongs to the submitter and must stay until done() has been called; done() may
 * free it. Jobs of EXECUTOR_JOURNAL run one at a time in the order of submission, on a thread that
 * does nothing else, and their done() are called in that order; EXECUTOR_CONTENT jobs run and end
 * in any order, several at a time.
 *
 * soon() may be NULL. It takes a job that has no work: its done() is called on the same thread as
 * soon as everything that is ready now has been dealt with, so that what has come together can be
 * flushed together without waiting for anything.
 */
#ifndef OUTTRAY_QUEUE_EXECUTOR_H
#define OUTTRAY_QUEUE_EXECUTOR_H

enum executor_lane { EXECUTOR_JOURNAL, EXECUTOR_CONTENT };

struct executor_job {
    void (*work)(struct executor_job *job);
    void (*done)(struct executor_job *job);
    struct executor_job *next; /* for the executor's own lists */
};

struct executor {
    void *ctx;
    void (*submit)(void *ctx, enum executor_lane lane, struct executor_job *job);
    void (*soon)(void *ctx, struct executor_job *job);
};

#endif
