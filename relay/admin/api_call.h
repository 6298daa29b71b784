/*
 * One request of the API, from its arrival to its answer; private to the API.
 *
 * Every call ends in exactly one of call_reply(), call_fail(), call_cut() or, when the answer was
 * streamed, call_finish(); each frees it. A client that leaves frees it as well, unless somebody
 * still owes it a callback (`pending`): that callback then finds call_is_gone() and ends in
 * call_free().
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_CALL_H
#define OUTTRAY_RELAY_ADMIN_API_CALL_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>

#include "queue/error.h"
#include "relay/admin/api.h"
#include "relay/admin/api_json.h"

#define API_CALLS_MAX 32 /* under way at once */

struct api_call;
struct api_open; /* api_open.h */

struct api_opens {
    struct api_open *first;
};

/* What the calls of one API share. */
struct api_calls {
    struct api_call *first;
    unsigned count;
    struct api_opens opens;
    uint64_t started_ms; /* the API */
    uint64_t started_wall_ms;
};

struct api_call {
    struct api_call *next, *prev;
    struct api_calls *calls;        /* NULL when the API is gone */
    const struct api_settings *api; /* valid while calls is */
    struct evhttp_request *req;     /* NULL when the client is gone */
    bool pending;                   /* a callback of queue or registry is on its way */
    struct api_open *open;          /* a message is being opened */
    char *argument;                 /* what "*" of the route stood for, decoded; or NULL */
    uint64_t id;                    /* message */
    uint64_t began_ms;              /* a page */
    cJSON *list;                    /* a page being made */
    uint32_t left;                  /* entries it may still take */
    bool turning;                   /* the loop that fills it is running */
    enum queue_state state;         /* of the messages that are wanted; QUEUE_GONE = any */
    uint64_t done, skipped;         /* of a retry of all */
    struct event *again;            /* goes on in the next turn */
    struct queue_reader *reader;    /* an export */
    struct evbuffer *block;
    uint64_t size, sent;
};

/* NULL (and the request answered) without memory or at API_CALLS_MAX. */
struct api_call *call_new(struct api_calls *calls, const struct api_settings *api,
                          struct evhttp_request *req);
bool call_is_gone(const struct api_call *c);
/* Now. */
struct api_times call_times(const struct api_call *c);
/* Answers with a tree, which it takes; NULL means that memory was out. */
void call_reply(struct api_call *c, int status, cJSON *json);
/* The same while a callback is on its way: nobody waits for it any more, and it frees the call. */
void call_reply_early(struct api_call *c, int status, cJSON *json);
void call_fail(struct api_call *c, const struct error *err);
void call_fail_text(struct api_call *c, enum error_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Ends a streamed answer. */
void call_finish(struct api_call *c);
/* Breaks off a streamed answer, so that the client knows it is not whole. */
void call_cut(struct api_call *c);
/* Frees without an answer; for a call that is gone. */
void call_free(struct api_call *c);
/* The API goes: calls that still wait for somebody are left to their callbacks. */
void call_orphan_all(struct api_calls *calls);

#endif
