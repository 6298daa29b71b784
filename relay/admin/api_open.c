#include "relay/admin/api_open.h"

#include <stdlib.h>

struct api_open {
    struct api_open *next, *prev;
    struct api_opens *opens; /* NULL when the API is gone */
    struct api_call *call;   /* NULL: nobody waits for it any more */
    struct event *limit;
    uint64_t id;
    bool late; /* the limit is over */
    api_open_fn *done;
};

static void link_open(struct api_opens *opens, struct api_open *o)
{
    o->opens = opens;
    o->next = opens->first;
    if (o->next != NULL)
        o->next->prev = o;
    opens->first = o;
}

static void unlink_open(struct api_open *o)
{
    if (o->opens == NULL)
        return;
    if (o->prev != NULL)
        o->prev->next = o->next;
    else
        o->opens->first = o->next;
    if (o->next != NULL)
        o->next->prev = o->prev;
    o->opens = NULL;
}

static void drop_limit(struct api_open *o)
{
    if (o->limit != NULL)
        event_free(o->limit);
    o->limit = NULL;
}

static void free_open(struct api_open *o)
{
    unlink_open(o);
    drop_limit(o);
    free(o);
}

/* Who waits for it, from now on no longer; NULL when nobody does. */
static struct api_call *take_call(struct api_open *o)
{
    struct api_call *c = o->call;

    o->call = NULL;
    if (c != NULL)
        c->open = NULL;
    return c;
}

static void answer_busy(struct api_call *c, api_open_fn *done)
{
    struct error err = ERROR_INIT;

    error_set(&err, ERROR_BUSY,
              "the disk has not answered in time; \"outtray status\" tells whether the spool is "
              "well");
    done(c, NULL, NULL, &err);
}

static void on_limit(evutil_socket_t fd, short what, void *ctx)
{
    struct api_open *o = ctx;
    struct api_call *c = take_call(o);

    (void)fd;
    (void)what;
    o->late = true;
    if (c != NULL)
        answer_busy(c, o->done);
}

static void on_opened(void *ctx, struct queue_reader *r, const struct envelope *e,
                      const struct error *err)
{
    struct api_open *o = ctx;
    struct api_call *c = take_call(o);
    api_open_fn *done = o->done;

    free_open(o);
    if (c != NULL)
        done(c, r, e, err);
    else
        queue_reader_close(r);
}

static bool is_owed(const struct api_opens *opens, uint64_t id)
{
    for (const struct api_open *o = opens->first; o != NULL; o = o->next)
        if (o->late && o->id == id)
            return true;
    return false;
}

static struct api_open *new_open(struct api_call *c, uint64_t id, uint64_t limit_ms)
{
    struct timeval limit = {.tv_sec = (time_t)(limit_ms / 1000),
                            .tv_usec = (suseconds_t)(limit_ms % 1000 * 1000)};
    struct api_open *o = calloc(1, sizeof(*o));

    if (o == NULL)
        return NULL;
    o->id = id;
    o->call = c;
    o->limit = evtimer_new(c->api->base, on_limit, o);
    if (o->limit != NULL && event_add(o->limit, &limit) == 0)
        return o;
    drop_limit(o);
    free(o);
    return NULL;
}

void api_open(struct api_call *c, uint64_t id, uint64_t limit_ms, api_open_fn *done)
{
    struct error err = ERROR_INIT;
    struct api_open *o;

    if (is_owed(&c->calls->opens, id)) {
        answer_busy(c, done);
        return;
    }
    o = new_open(c, id, limit_ms);
    if (o == NULL) {
        error_set(&err, ERROR_NO_ROOM, "out of memory");
        done(c, NULL, NULL, &err);
        return;
    }
    o->done = done;
    c->open = o;
    link_open(&c->calls->opens, o);
    queue_reader_open(c->api->queue, id, on_opened, o);
}

void api_open_forget(struct api_open *o)
{
    if (o != NULL)
        (void)take_call(o);
}

void api_open_orphan_all(struct api_opens *opens)
{
    while (opens->first != NULL) {
        struct api_open *o = opens->first;

        (void)take_call(o);
        drop_limit(o);
        unlink_open(o);
    }
}
