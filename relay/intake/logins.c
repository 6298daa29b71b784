#include "relay/intake/logins.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "relay/intake/attempts.h"

struct logins {
    struct event_base *base;
    struct clock *clock;
    struct executor executor;
    const char *file;
    struct attempts attempts;
    struct login_check *first;
};

enum stage { WAITS, WORKS, TELLS };

struct login_check {
    struct executor_job job; /* first: the executor hands back its address */
    struct logins *logins;
    struct login_check *next;
    struct login_check **link; /* what points to us */
    struct event *timer;
    enum stage stage;
    struct net_address client;
    bool lenient;
    char *device;
    char *password;
    struct login_result result;
    struct error error;
    void (*on_done)(void *ctx, const struct login_result *result); /* NULL: nobody waits */
    void *ctx;
};

_Static_assert(offsetof(struct login_check, job) == 0, "a job is its check");

static void forget_password(struct login_check *c)
{
    if (c->password != NULL)
        explicit_bzero(c->password, strlen(c->password));
    free(c->password);
    c->password = NULL;
}

static void check_free(struct login_check *c)
{
    if (c->link != NULL)
        *c->link = c->next;
    if (c->link != NULL && c->next != NULL)
        c->next->link = c->link;
    if (c->timer != NULL)
        event_free(c->timer);
    forget_password(c);
    free(c->device);
    free(c);
}

static void check_end(struct login_check *c)
{
    void (*on_done)(void *, const struct login_result *) = c->on_done;
    void *ctx = c->ctx;
    struct login_result result = c->result;
    struct error error = c->error;

    result.error = error.text;
    check_free(c);
    if (on_done != NULL)
        on_done(ctx, &result);
}

static void set_timer(struct login_check *c, uint64_t ms)
{
    struct timeval after = {.tv_sec = (time_t)(ms / 1000),
                            .tv_usec = (suseconds_t)(ms % 1000 * 1000)};

    (void)event_add(c->timer, &after);
}

/* On the executor's thread. */
static void work(struct executor_job *job)
{
    struct login_check *c = (struct login_check *)job;

    c->result.check = passwords_check(c->logins->file, c->device, c->password, &c->error);
}

static void done(struct executor_job *job)
{
    struct login_check *c = (struct login_check *)job;
    struct attempts *t = &c->logins->attempts;
    uint64_t now = clock_now_ms(c->logins->clock);
    uint64_t wait = 0;

    forget_password(c);
    c->stage = TELLS;
    if (c->result.check == PASSWORDS_RIGHT || c->result.check == PASSWORDS_FAILED)
        attempts_right(t, &c->client, now);
    else if (!c->lenient)
        wait = attempts_wrong(t, &c->client, now, &c->result.wrong);
    if (wait > 0 && c->on_done != NULL)
        set_timer(c, wait);
    else
        check_end(c);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct login_check *c = ctx;

    (void)fd;
    (void)what;
    if (c->stage == TELLS) {
        check_end(c);
        return;
    }
    c->stage = WORKS;
    c->logins->executor.submit(c->logins->executor.ctx, EXECUTOR_CONTENT, &c->job);
}

struct logins *logins_new(struct event_base *base, struct clock *clock,
                          const struct executor *executor, const char *file)
{
    struct logins *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return NULL;
    l->base = base;
    l->clock = clock;
    l->executor = *executor;
    l->file = file;
    return l;
}

void logins_free(struct logins *l)
{
    if (l == NULL)
        return;
    while (l->first != NULL)
        check_free(l->first);
    free(l);
}

static struct login_check *check_new(struct logins *l, const struct login_request *request)
{
    struct login_check *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->job = (struct executor_job){.work = work, .done = done};
    c->logins = l;
    c->client = *request->client;
    c->lenient = request->lenient;
    c->on_done = request->on_done;
    c->ctx = request->ctx;
    c->device = strdup(request->device);
    c->password = strdup(request->password);
    c->timer = evtimer_new(l->base, on_timer, c);
    if (c->device == NULL || c->password == NULL || c->timer == NULL) {
        check_free(c);
        return NULL;
    }
    c->next = l->first;
    c->link = &l->first;
    if (c->next != NULL)
        c->next->link = &c->next;
    l->first = c;
    return c;
}

struct login_check *logins_check(struct logins *l, const struct login_request *request)
{
    struct login_check *c = check_new(l, request);
    uint64_t wait = 0;

    if (c == NULL)
        return NULL;
    if (!c->lenient && !attempts_begin(&l->attempts, &c->client, clock_now_ms(l->clock), &wait)) {
        check_free(c);
        return NULL;
    }
    set_timer(c, wait);
    return c;
}

void logins_abandon(struct login_check *c)
{
    c->on_done = NULL;
    if (c->stage != WORKS)
        check_free(c);
}
