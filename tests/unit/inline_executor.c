#include "tests/unit/inline_executor.h"

void inline_executor_init(struct inline_executor *x, bool reversed)
{
    *x = (struct inline_executor){.reversed = reversed};
    x->end = &x->first;
}

static void submit(void *ctx, enum executor_lane lane, struct executor_job *job)
{
    struct inline_executor *x = ctx;
    (void)lane;
    job->work(job);
    job->next = NULL;
    x->submitted++;
    *x->end = job;
    x->end = &job->next;
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

bool inline_executor_step(struct inline_executor *x)
{
    if (!x->first)
        return false;
    struct executor_job **at = choose(x);
    struct executor_job *job = *at;
    *at = job->next;
    if (!*at)
        x->end = at;
    job->done(job);
    return true;
}

void inline_executor_run(struct inline_executor *x)
{
    while (inline_executor_step(x))
        continue;
}
