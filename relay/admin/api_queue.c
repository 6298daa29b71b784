#include "relay/admin/api_queue.h"

#include "relay/admin/api_export.h"
#include "relay/admin/api_json.h"
#include "relay/admin/api_open.h"
#include "relay/admin/api_query.h"
#include "relay/admin/json.h"
#include "relay/admin/reports.h"
#include "relay/base/log.h"

#include <string.h>

#define QUEUE_RETRY_SLICE 200  /* messages of a retry of all, in one turn of the loop */
#define QUEUE_SKIP_SLICE  5000 /* messages of other states that are passed in one turn */
#define QUEUE_STATE_TEXT  16
#define QUEUE_DELETE_S    2  /* that the disk may take before a deletion is answered without it */
#define QUEUE_OPEN_MIN_MS 20 /* that each message of a page may take when the page is late */

/* ---- what several answers need --------------------------------------------------------------- */

static struct api_wait wait_of(const struct api_settings *set, const struct queue_info *info)
{
    struct mailbox_status first;
    struct api_wait wait;
    uint64_t ready_ms =
        dispatch_route_ready_ms(set->dispatch, info->route != NULL ? info->route : "", &first);

    api_json_wait(&first, ready_ms, &wait);
    return wait;
}

/* A dead letter may go in its time once somebody knows of it. */
static void note_seen(const struct api_call *c, const struct queue_info *info)
{
    if (info->state == QUEUE_DEAD)
        reports_seen(c->api->reports, info->id);
}

static void log_operator(const char *event, uint64_t id)
{
    log_event(LOG_LEVEL_INFO, event, LOG_ID("queue", id), LOG_STR("by", "operator"), LOG_END);
}

/* Finds the message that the route's "*" names; answers the call when there is none. */
static bool find_message(struct api_call *c, struct queue_info *out_info)
{
    if (!queue_id_parse(c->argument, &c->id)) {
        call_fail_text(c, ERROR_INVALID, "\"%.40s\" is no message id", c->argument);
        return false;
    }
    if (!queue_find(c->api->queue, c->id, out_info)) {
        call_fail_text(c, ERROR_MISSING, "there is no message %.40s in the queue", c->argument);
        return false;
    }
    return true;
}

/* {"id": ..., WHAT: true}; NULL without memory. */
static cJSON *done_to_message(const struct api_call *c, const char *what)
{
    char id[QUEUE_ID_TEXT];
    cJSON *o = cJSON_CreateObject();

    queue_id_text(c->id, id);
    if (json_put_text(o, "id", id) && json_put_flag(o, what, true))
        return o;
    cJSON_Delete(o);
    return NULL;
}

/* ---- GET /v1/queue --------------------------------------------------------------------------- */

static void list_next(struct api_call *c);

static bool is_wanted(const struct api_call *c, const struct queue_info *info)
{
    return c->state == QUEUE_GONE || info->state == c->state;
}

/* Of the wanted ones, as many as there are. */
static uint64_t wanted_total(const struct api_call *c)
{
    struct queue_counts counts;

    queue_counts(c->api->queue, &counts);
    return c->state == QUEUE_GONE ? api_json_total(&counts) : counts.state[c->state];
}

/* The next one that is wanted. False at the end, or when the turn is over: then c->again comes. */
static bool find_wanted(struct api_call *c, bool *out_end, struct queue_info *out_info)
{
    static const struct timeval at_once = {0, 0};
    uint64_t after = c->id;

    *out_end = false;
    for (unsigned i = 0; i < QUEUE_SKIP_SLICE; i++) {
        if (!queue_list(c->api->queue, after, out_info)) {
            *out_end = true;
            return false;
        }
        after = out_info->id;
        if (is_wanted(c, out_info))
            return true;
        c->id = after;
    }
    event_add(c->again, &at_once);
    return false;
}

static void list_done(struct api_call *c)
{
    struct queue_info beyond;
    bool more = queue_list(c->api->queue, c->id, &beyond);
    cJSON *messages = c->list;

    c->list = NULL;
    call_reply(c, HTTP_OK, api_json_page(messages, wanted_total(c), more ? c->id : 0));
}

/* A message that went while it was being opened is simply not listed. */
static void list_add(struct api_call *c, const struct envelope *e, const struct error *err)
{
    struct api_times times = call_times(c);
    struct queue_info info;
    struct api_wait wait;

    if (!queue_find(c->api->queue, c->id, &info))
        return;
    note_seen(c, &info);
    wait = wait_of(c->api, &info);
    if (json_append(c->list, api_json_entry(&info, e, err, &times, &wait)))
        c->left--;
    else {
        cJSON_Delete(c->list);
        c->list = NULL; /* out of memory: no page at all */
        c->left = 0;
    }
}

static void on_list_opened(struct api_call *c, struct queue_reader *r, const struct envelope *e,
                           const struct error *err)
{
    list_add(c, e, err);
    queue_reader_close(r);
    if (!c->turning)
        list_next(c);
}

/* What is left for the page, but always a little for each message that can be read. */
static uint64_t open_limit(const struct api_call *c)
{
    uint64_t spent = clock_now_ms(c->api->clock) - c->began_ms;
    uint64_t all = c->api->open_ms;

    return spent + QUEUE_OPEN_MIN_MS < all ? all - spent : QUEUE_OPEN_MIN_MS;
}

/* A loop, for messages that answer from within would be a deep recursion. */
static void list_next(struct api_call *c)
{
    struct queue_info info;
    bool end = false;

    while (c->left > 0 && !end) {
        if (!find_wanted(c, &end, &info)) {
            if (!end)
                return;
            break;
        }
        c->id = info.id;
        c->turning = true;
        api_open(c, info.id, open_limit(c), on_list_opened);
        c->turning = false;
        if (c->open != NULL)
            return;
    }
    list_done(c);
}

static void on_list_turn(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    list_next(ctx);
}

/* "state", or any when it is absent. */
static bool query_state(struct api_call *c)
{
    char text[QUEUE_STATE_TEXT];

    if (!query_text(c, "state", text, sizeof(text)))
        return false;
    for (c->state = 0; c->state < QUEUE_GONE; c->state++)
        if (strcmp(queue_state_name(c->state), text) == 0)
            return true;
    if (text[0] != '\0')
        call_fail_text(c, ERROR_INVALID, "\"state\" of the query is no state of a message");
    return text[0] == '\0';
}

void api_queue_list(struct api_call *c)
{
    if (!query_id(c, "after", &c->id) || !query_limit(c, &c->left) || !query_state(c))
        return;
    c->began_ms = clock_now_ms(c->api->clock);
    c->again = evtimer_new(c->api->base, on_list_turn, c);
    if (c->again == NULL) {
        call_fail_text(c, ERROR_NO_ROOM, "out of memory");
        return;
    }
    c->list = cJSON_CreateArray();
    list_next(c);
}

/* ---- one message ----------------------------------------------------------------------------- */

static void open_message(struct api_call *c, api_open_fn *done)
{
    struct queue_info info;

    if (!find_message(c, &info))
        return;
    c->size = info.size;
    api_open(c, c->id, c->api->open_ms, done);
}

/* The start of every such callback: false when the call has ended. Takes the reader. */
static bool opened(struct api_call *c, struct queue_reader *r, const struct error *err)
{
    c->reader = r;
    if (err != NULL)
        call_fail(c, err);
    return err == NULL;
}

static void on_message_opened(struct api_call *c, struct queue_reader *r, const struct envelope *e,
                              const struct error *err)
{
    struct queue_info info;
    struct api_times times;
    struct api_wait wait;

    if (!opened(c, r, err))
        return;
    if (!queue_find(c->api->queue, c->id, &info)) {
        call_fail_text(c, ERROR_MISSING, "message %s has just left the queue", c->argument);
        return;
    }
    note_seen(c, &info);
    times = call_times(c);
    wait = wait_of(c->api, &info);
    call_reply(c, HTTP_OK, api_json_message(&info, e, &times, &wait));
}

void api_queue_message(struct api_call *c)
{
    open_message(c, on_message_opened);
}

static void on_export_opened(struct api_call *c, struct queue_reader *r, const struct envelope *e,
                             const struct error *err)
{
    (void)e;
    if (opened(c, r, err))
        export_start(c);
}

void api_queue_eml(struct api_call *c)
{
    open_message(c, on_export_opened);
}

/* Whoever retries an uncertain message must know that it may have arrived. */
static void reply_retried(struct api_call *c, bool uncertain)
{
    cJSON *o = done_to_message(c, "retried");

    if (!json_put_flag(o, "uncertain", uncertain)) {
        cJSON_Delete(o);
        o = NULL;
    }
    call_reply(c, HTTP_OK, o);
}

void api_queue_retry(struct api_call *c)
{
    const struct clock *clock = c->api->clock;
    struct error err = ERROR_INIT;
    struct queue_info info;

    if (!find_message(c, &info))
        return;
    if (!queue_retry(c->api->queue, c->id, clock_now_ms(clock), clock_wall_ms(clock), &err)) {
        call_fail(c, &err);
        return;
    }
    log_operator("retried", c->id);
    if (info.state == QUEUE_DEAD)
        reports_retried(c->api->reports, c->id);
    dispatch_wake(c->api->dispatch);
    reply_retried(c, info.state == QUEUE_UNCERTAIN);
}

static void on_deleted(void *ctx, const struct error *err)
{
    struct api_call *c = ctx;

    c->pending = false;
    if (err == NULL)
        log_operator("deleted", c->id);
    if (call_is_gone(c))
        call_free(c);
    else if (err != NULL)
        call_fail(c, err);
    else
        call_reply(c, HTTP_OK, done_to_message(c, "deleted"));
}

/* The message is gone for this process, but its record has to wait for the disk. */
static void answer_unwritten(struct api_call *c, const struct queue_counts *counts)
{
    struct error err = ERROR_INIT;
    char id[QUEUE_ID_TEXT];

    queue_id_text(c->id, id);
    error_set(&err, ERROR_BUSY,
              "message %s is deleted, but that is not yet written to the disk, which %s: it comes "
              "back if outtrayd is stopped before",
              id, counts->failing ? "cannot be written at present" : "does not answer");
    log_event(LOG_LEVEL_WARN, "delete-unwritten", LOG_ID("queue", c->id), LOG_STR("by", "operator"),
              LOG_STR("reason", counts->failing ? counts->failure : "the disk does not answer"),
              LOG_STR("effect", "the message comes back if outtrayd is stopped before"), LOG_END);
    event_free(c->again);
    c->again = NULL;
    call_reply_early(c, HTTP_SERVUNAVAIL, api_json_error(&err));
}

/* A disk that fails may be well again in the next turn; one that hangs is given some time. */
static void on_delete_waits(evutil_socket_t fd, short what, void *ctx)
{
    struct api_call *c = ctx;
    struct queue_counts counts;

    (void)fd;
    (void)what;
    if (call_is_gone(c))
        return;
    queue_counts(c->api->queue, &counts);
    answer_unwritten(c, &counts);
}

static bool limit_delete(struct api_call *c)
{
    static const struct timeval soon = {.tv_sec = QUEUE_DELETE_S};
    static const struct timeval at_once = {0, 0};
    struct queue_counts counts;

    queue_counts(c->api->queue, &counts);
    c->again = evtimer_new(c->api->base, on_delete_waits, c);
    return c->again != NULL && event_add(c->again, counts.failing ? &at_once : &soon) == 0;
}

void api_queue_delete(struct api_call *c)
{
    struct error err = ERROR_INIT;
    struct queue_info info;

    if (!find_message(c, &info))
        return;
    if (!limit_delete(c)) {
        call_fail_text(c, ERROR_NO_ROOM, "out of memory");
        return;
    }
    c->pending = true;
    if (queue_delete(c->api->queue, c->id, on_deleted, c, &err))
        return;
    c->pending = false;
    call_fail(c, &err);
}

/* ---- POST /v1/queue/retry -------------------------------------------------------------------- */

static void retry_all_done(struct api_call *c)
{
    cJSON *o = cJSON_CreateObject();

    dispatch_wake(c->api->dispatch);
    if (!(json_put_number(o, "retried", c->done) && json_put_number(o, "left", c->skipped))) {
        cJSON_Delete(o);
        o = NULL;
    }
    call_reply(c, HTTP_OK, o);
}

/* The others each want a look, because they are held or dead letters or may have arrived; they are
 * retried one by one. */
static void retry_listed(struct api_call *c, const struct queue_info *info)
{
    const struct clock *clock = c->api->clock;

    if (!is_wanted(c, info)) {
        c->skipped += c->state == QUEUE_QUEUED;
        return;
    }
    if (!queue_retry(c->api->queue, info->id, clock_now_ms(clock), clock_wall_ms(clock), NULL)) {
        c->skipped += c->state == QUEUE_DEAD;
        return;
    }
    log_operator("retried", info->id);
    if (info->state == QUEUE_DEAD)
        reports_retried(c->api->reports, info->id);
    c->done++;
}

static void on_retry_slice(evutil_socket_t fd, short what, void *ctx)
{
    static const struct timeval at_once = {0, 0};
    struct api_call *c = ctx;
    struct queue_info info;

    (void)fd;
    (void)what;
    for (unsigned i = 0; i < QUEUE_RETRY_SLICE; i++) {
        if (!queue_list(c->api->queue, c->id, &info)) {
            retry_all_done(c);
            return;
        }
        c->id = info.id;
        retry_listed(c, &info);
    }
    event_add(c->again, &at_once);
}

static void retry_all(struct api_call *c, enum queue_state state)
{
    c->state = state;
    c->again = evtimer_new(c->api->base, on_retry_slice, c);
    if (c->again == NULL)
        call_fail_text(c, ERROR_NO_ROOM, "out of memory");
    else
        on_retry_slice(-1, 0, c);
}

void api_queue_retry_all(struct api_call *c)
{
    retry_all(c, QUEUE_QUEUED);
}

void api_queue_requeue_all(struct api_call *c)
{
    retry_all(c, QUEUE_DEAD);
}
