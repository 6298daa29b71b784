#include "tests/unit/inline_executor.h"

void inline_executor_init(struct inline_executor *x, bool reversed)
{
    *x = (struct inline_executor){.reversed = reversed};
    x->end = &x->first;
}

static void work(struct inline_executor *x, enum executor_lane lane, struct executor_job *job)
{
    if (lane == EXECUTOR_JOURNAL) {
        x->behind += x->flushes != NULL;
        x->flushes = job;
    }
    job->work(job);
    job->next = NULL;
    *x->end = job;
    x->end = &job->next;
}

static void work_next(struct inline_executor *x, enum executor_lane lane)
{
    struct executor_job *job = x->waiting[lane];
    x->waiting[lane] = job->next;
    work(x, lane, job);
}

static void submit(void *ctx, enum executor_lane lane, struct executor_job *job)
{
    struct inline_executor *x = ctx;
    struct executor_job **at = &x->waiting[lane];
    x->submitted++;
    if (!x->lazy) {
        inline_executor_work(x);
        work(x, lane, job);
        return;
    }
    while (*at)
        at = &(*at)->next;
    *at = job;
    job->next = NULL;
}

struct executor inline_executor(struct inline_executor *x)
{
    return (struct executor){.ctx = x, .submit = submit};
}

static struct executor_job **choose(struct inline_executor *x)
{
    struct executor_job **at = &x->first;
    while (x->reversed && (*at)->next)
        at = &(*at)->next;
    return at;
}

void inline_executor_work(struct inline_executor *x)
{
    for (int lane = 0; lane < 2; lane++)
        while (x->waiting[lane])
            work_next(x, (enum executor_lane)lane);
}

/* One of the three things that may happen next, if it can. */
static bool work_lazily(struct inline_executor *x)
{
    x->seed = x->seed * 6364136223846793005u + 1442695040888963407u;
    unsigned lane = (unsigned)(x->seed >> 33) % 3;
    if (lane == 2 && x->first)
        return false;
    lane = lane == 2 ? 0 : lane;
    lane = x->waiting[lane] ? lane : 1 - lane;
    if (!x->waiting[lane])
        return false;
    work_next(x, (enum executor_lane)lane);
    return true;
}

bool inline_executor_step(struct inline_executor *x)
{
    if (work_lazily(x))
        return true;
    if (!x->first)
        return false;
    struct executor_job **at = choose(x);
    struct executor_job *job = *at;
    *at = job->next;
    if (!*at)
        x->end = at;
    if (job == x->flushes)
        x->flushes = NULL;
    job->done(job);
    return true;
}

void inline_executor_run(struct inline_executor *x)
{
    while (inline_executor_step(x))
        continue;
}
