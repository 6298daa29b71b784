#include "relay/admin/api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>

#include "relay/admin/api_call.h"
#include "relay/admin/api_export.h"
#include "relay/admin/api_json.h"
#include "relay/admin/api_socket.h"
#include "relay/admin/api_status.h"
#include "relay/admin/json.h"
#include "relay/base/log.h"

#define API_HEADER_MAX   8192
#define API_BODY_MAX     4096
#define API_IDLE_S       120
#define API_RESUME_S     1 /* after running out of descriptors */
#define API_PAGE_DEFAULT 100
#define API_RETRY_SLICE  200   /* messages of a retry of all, in one turn of the loop */
#define API_WALK_MAX     20000 /* messages looked at to name the held and the dead */
#define API_ADVANCE_MAX  (10ull * 365 * 24 * 3600) /* seconds */

struct api {
    struct api_settings settings;
    struct evhttp *http;
    struct evconnlistener *listener; /* http's */
    struct event *resume;
    struct api_socket socket;
    struct api_calls calls;
    uint64_t started_ms;
    uint64_t started_wall_ms;
};

struct route {
    const char *pattern; /* "*" stands for one part */
    void (*handle)(struct api *a, struct api_call *c);
    enum evhttp_cmd_type method;
    bool test_clock; /* there only with a test clock */
};

/* ---- what several answers need --------------------------------------------------------------- */

static void fail(struct api_call *c, enum error_kind kind, const char *fmt, const char *what)
    __attribute__((format(printf, 3, 0)));

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static void fail(struct api_call *c, enum error_kind kind, const char *fmt, const char *what)
{
    struct error err = ERROR_INIT;

    error_set(&err, kind, fmt, what);
    call_fail(c, &err);
}
#pragma GCC diagnostic pop

static struct api_times times_of(const struct clock *clock)
{
    return (struct api_times){.now_ms = clock_now_ms(clock), .wall_ms = clock_wall_ms(clock)};
}

static struct api_wait wait_of(const struct api_settings *set, const struct queue_info *info)
{
    struct mailbox_status first;
    struct api_wait wait;
    uint64_t ready_ms =
        dispatch_route_ready_ms(set->dispatch, info->route != NULL ? info->route : "", &first);

    api_json_wait(&first, ready_ms, &wait);
    return wait;
}

static void log_operator(const char *event, uint64_t id)
{
    log_event(LOG_LEVEL_INFO, event, LOG_ID("queue", id), LOG_STR("by", "operator"), LOG_END);
}

/* Finds the message that the route's "*" names; answers the call when there is none. */
static bool find_message(struct api *a, struct api_call *c, struct queue_info *out_info)
{
    if (!queue_id_parse(c->argument, &c->id)) {
        fail(c, ERROR_INVALID, "\"%.40s\" is no message id", c->argument);
        return false;
    }
    if (!queue_find(a->settings.queue, c->id, out_info)) {
        fail(c, ERROR_MISSING, "there is no message %.40s in the queue", c->argument);
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

/* A number of the query, `fallback` when it is absent. */
static bool query_number(struct api_call *c, const char *key, uint64_t fallback, uint64_t max,
                         uint64_t *out)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(c->req);
    const char *query = evhttp_uri_get_query(uri);
    struct evkeyvalq values = {0};
    const char *text = NULL;
    uint64_t number = fallback;
    bool ok = evhttp_parse_query_str(query != NULL ? query : "", &values) == 0;

    if (ok)
        text = evhttp_find_header(&values, key);
    if (text != NULL) {
        char *end = NULL;

        errno = 0;
        number = strtoull(text, &end, 10);
        ok = text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && number <= max;
    }
    evhttp_clear_headers(&values);
    if (ok)
        *out = number;
    return ok;
}

/* A message id of the query, 0 when it is absent. */
static bool query_id(struct api_call *c, const char *key, uint64_t *out)
{
    const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(c->req));
    struct evkeyvalq values = {0};
    uint64_t id = 0;
    bool ok = evhttp_parse_query_str(query != NULL ? query : "", &values) == 0;

    if (ok) {
        const char *text = evhttp_find_header(&values, key);

        ok = text == NULL || queue_id_parse(text, &id);
    }
    evhttp_clear_headers(&values);
    if (ok)
        *out = id;
    return ok;
}

/* ---- GET /v1/status -------------------------------------------------------------------------- */

static size_t note_id(uint64_t ids[API_STATUS_IDS], size_t n, uint64_t id)
{
    if (n < API_STATUS_IDS)
        ids[n++] = id;
    return n;
}

static void name_held_and_dead(const struct queue *q, struct api_status *s)
{
    uint64_t wanted_held = s->counts->state[QUEUE_HELD];
    uint64_t wanted_dead = s->counts->state[QUEUE_DEAD];
    size_t held = 0;
    size_t dead = 0;
    struct queue_info info = {.id = 0};

    for (unsigned i = 0; i < API_WALK_MAX; i++) {
        bool more_held = held < API_STATUS_IDS && held < wanted_held;
        bool more_dead = dead < API_STATUS_IDS && dead < wanted_dead;

        if (!(more_held || more_dead) || !queue_list(q, info.id, &info))
            return;
        if (info.state == QUEUE_HELD)
            held = note_id(s->held, held, info.id);
        else if (info.state == QUEUE_DEAD)
            dead = note_id(s->dead, dead, info.id);
    }
}

static struct mailbox_status *mailboxes(const struct dispatch *d, size_t *out_count)
{
    size_t count = dispatch_mailbox_count(d);
    struct mailbox_status *list = calloc(count + 1, sizeof(*list));
    size_t n = 0;

    for (size_t i = 0; list != NULL && i < count; i++)
        if (dispatch_mailbox(d, i, &list[n]))
            n++;
    *out_count = n;
    return list;
}

static void get_status(struct api *a, struct api_call *c)
{
    const struct api_settings *set = &a->settings;
    struct queue_counts counts;
    struct intake_counts intake;
    struct error refusing = ERROR_INIT;
    struct api_status s = {.times = times_of(set->clock),
                           .started_ms = a->started_ms,
                           .started_wall_ms = a->started_wall_ms,
                           .pid = (int)getpid(),
                           .counts = &counts,
                           .recovery = set->recovery,
                           .intake = &intake};
    struct mailbox_status *list = mailboxes(set->dispatch, &s.mailbox_count);
    cJSON *json = NULL;

    queue_counts(set->queue, &counts);
    intake_counts(set->intake, &intake);
    s.mailboxes = list;
    if (queue_has_room(set->queue, 0, &refusing))
        error_clear(&refusing);
    s.refusing = refusing.text;
    name_held_and_dead(set->queue, &s);
    if (list != NULL)
        json = api_status_json(&s);
    free(list);
    call_reply(c, HTTP_OK, json);
}

/* ---- GET /v1/queue --------------------------------------------------------------------------- */

static void list_next(struct api_call *c);

static void list_done(struct api_call *c)
{
    struct queue_info beyond;
    struct queue_counts counts;
    bool more = queue_list(c->api->queue, c->id, &beyond);
    cJSON *messages = c->list;

    c->list = NULL;
    queue_counts(c->api->queue, &counts);
    call_reply(c, HTTP_OK, api_json_page(messages, api_json_total(&counts), more ? c->id : 0));
}

/* A message that went while it was being opened is simply not listed. */
static void list_add(struct api_call *c, const struct envelope *e, const struct error *err)
{
    struct api_times times = times_of(c->api->clock);
    struct queue_info info;
    struct api_wait wait;

    if (!queue_find(c->api->queue, c->id, &info))
        return;
    wait = wait_of(c->api, &info);
    if (json_append(c->list, api_json_entry(&info, e, err, &times, &wait)))
        c->left--;
    else {
        cJSON_Delete(c->list);
        c->list = NULL; /* out of memory: no page at all */
        c->left = 0;
    }
}

static void on_list_opened(void *ctx, struct queue_reader *r, const struct envelope *e,
                           const struct error *err)
{
    struct api_call *c = ctx;

    c->pending = false;
    if (call_is_gone(c)) {
        queue_reader_close(r);
        call_free(c);
        return;
    }
    list_add(c, e, err);
    queue_reader_close(r);
    list_next(c);
}

static void list_next(struct api_call *c)
{
    struct queue_info info;

    if (c->left == 0 || !queue_list(c->api->queue, c->id, &info)) {
        list_done(c);
        return;
    }
    c->id = info.id;
    c->pending = true;
    queue_reader_open(c->api->queue, info.id, on_list_opened, c);
}

static void get_queue(struct api *a, struct api_call *c)
{
    uint64_t limit;

    (void)a;
    if (!query_id(c, "after", &c->id)) {
        fail(c, ERROR_INVALID, "\"%s\" of the query is no message id", "after");
        return;
    }
    if (!query_number(c, "limit", API_PAGE_DEFAULT, API_PAGE_MAX, &limit) || limit == 0) {
        fail(c, ERROR_INVALID, "\"%s\" of the query is no number from 1 to 500", "limit");
        return;
    }
    c->left = (uint32_t)limit;
    c->list = cJSON_CreateArray();
    list_next(c);
}

/* ---- one message ----------------------------------------------------------------------------- */

/* Leaves the call pending until done() comes. */
static void open_message(struct api *a, struct api_call *c, queue_reader_fn *done)
{
    struct queue_info info;

    if (!find_message(a, c, &info))
        return;
    c->size = info.size;
    c->pending = true;
    queue_reader_open(a->settings.queue, c->id, done, c);
}

/* The start of every such callback: false when the call has ended. Takes the reader. */
static bool opened(struct api_call *c, struct queue_reader *r, const struct error *err)
{
    c->pending = false;
    c->reader = r;
    if (call_is_gone(c)) {
        call_free(c);
        return false;
    }
    if (err != NULL) {
        call_fail(c, err);
        return false;
    }
    return true;
}

static void on_message_opened(void *ctx, struct queue_reader *r, const struct envelope *e,
                              const struct error *err)
{
    struct api_call *c = ctx;
    struct queue_info info;
    struct api_times times;
    struct api_wait wait;

    if (!opened(c, r, err))
        return;
    if (!queue_find(c->api->queue, c->id, &info)) {
        fail(c, ERROR_MISSING, "message %s has just left the queue", c->argument);
        return;
    }
    times = times_of(c->api->clock);
    wait = wait_of(c->api, &info);
    call_reply(c, HTTP_OK, api_json_message(&info, e, &times, &wait));
}

static void get_message(struct api *a, struct api_call *c)
{
    open_message(a, c, on_message_opened);
}

static void on_export_opened(void *ctx, struct queue_reader *r, const struct envelope *e,
                             const struct error *err)
{
    struct api_call *c = ctx;

    (void)e;
    if (opened(c, r, err))
        export_start(c);
}

static void get_eml(struct api *a, struct api_call *c)
{
    open_message(a, c, on_export_opened);
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

static void post_retry(struct api *a, struct api_call *c)
{
    const struct clock *clock = a->settings.clock;
    struct error err = ERROR_INIT;
    struct queue_info info;

    if (!find_message(a, c, &info))
        return;
    if (!queue_retry(a->settings.queue, c->id, clock_now_ms(clock), clock_wall_ms(clock), &err)) {
        call_fail(c, &err);
        return;
    }
    log_operator("retried", c->id);
    dispatch_wake(a->settings.dispatch);
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

static void delete_message(struct api *a, struct api_call *c)
{
    struct error err = ERROR_INIT;
    struct queue_info info;

    if (!find_message(a, c, &info))
        return;
    c->pending = true;
    if (queue_delete(a->settings.queue, c->id, on_deleted, c, &err))
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

    if (info->state != QUEUE_QUEUED) {
        c->skipped++;
        return;
    }
    if (!queue_retry(c->api->queue, info->id, clock_now_ms(clock), clock_wall_ms(clock), NULL))
        return;
    log_operator("retried", info->id);
    c->done++;
}

static void on_retry_slice(evutil_socket_t fd, short what, void *ctx)
{
    static const struct timeval at_once = {0, 0};
    struct api_call *c = ctx;
    struct queue_info info;

    (void)fd;
    (void)what;
    for (unsigned i = 0; i < API_RETRY_SLICE; i++) {
        if (!queue_list(c->api->queue, c->id, &info)) {
            retry_all_done(c);
            return;
        }
        c->id = info.id;
        retry_listed(c, &info);
    }
    event_add(c->again, &at_once);
}

static void post_retry_all(struct api *a, struct api_call *c)
{
    c->again = evtimer_new(a->settings.base, on_retry_slice, c);
    if (c->again == NULL)
        fail(c, ERROR_NO_ROOM, "%s", "out of memory");
    else
        on_retry_slice(-1, 0, c);
}

/* ---- mailboxes and the clock ----------------------------------------------------------------- */

static void post_resume(struct api *a, struct api_call *c)
{
    cJSON *o;

    if (!dispatch_resume(a->settings.dispatch, c->argument)) {
        fail(c, ERROR_MISSING, "there is no mailbox \"%.63s\" in the configuration", c->argument);
        return;
    }
    log_event(LOG_LEVEL_INFO, "resumed", LOG_STR("mailbox", c->argument), LOG_STR("by", "operator"),
              LOG_END);
    o = cJSON_CreateObject();
    if (!(json_put_text(o, "mailbox", c->argument) && json_put_flag(o, "resumed", true))) {
        cJSON_Delete(o);
        o = NULL;
    }
    call_reply(c, HTTP_OK, o);
}

static void post_clock(struct api *a, struct api_call *c)
{
    struct clock *clock = a->settings.clock;
    uint64_t seconds;
    cJSON *o;

    if (!query_number(c, "advance", 0, API_ADVANCE_MAX, &seconds)) {
        fail(c, ERROR_INVALID, "\"%s\" of the query is no number of seconds", "advance");
        return;
    }
    clock_advance(clock, seconds * 1000);
    if (a->settings.on_clock != NULL)
        a->settings.on_clock(a->settings.ctx);
    o = cJSON_CreateObject();
    if (!json_put_time(o, "time", clock_wall_ms(clock))) {
        cJSON_Delete(o);
        o = NULL;
    }
    call_reply(c, HTTP_OK, o);
}

/* ---- routes ---------------------------------------------------------------------------------- */

static const struct route routes[] = {
    {"/v1/status", get_status, EVHTTP_REQ_GET, false},
    {"/v1/queue", get_queue, EVHTTP_REQ_GET, false},
    {"/v1/queue/retry", post_retry_all, EVHTTP_REQ_POST, false},
    {"/v1/queue/*", get_message, EVHTTP_REQ_GET, false},
    {"/v1/queue/*", delete_message, EVHTTP_REQ_DELETE, false},
    {"/v1/queue/*/eml", get_eml, EVHTTP_REQ_GET, false},
    {"/v1/queue/*/retry", post_retry, EVHTTP_REQ_POST, false},
    {"/v1/mailbox/*/resume", post_resume, EVHTTP_REQ_POST, false},
    {"/v1/clock", post_clock, EVHTTP_REQ_POST, true},
};

/* Where "*" begins and how long it is comes out in part. */
static bool matches(const char *pattern, const char *path, const char **out_part, size_t *out_len)
{
    const char *star = strchr(pattern, '*');
    size_t before = star != NULL ? (size_t)(star - pattern) : strlen(pattern);
    size_t len;

    if (star == NULL)
        return strcmp(pattern, path) == 0;
    if (strncmp(pattern, path, before) != 0)
        return false;
    len = strcspn(path + before, "/");
    if (len == 0 || strcmp(star + 1, path + before + len) != 0)
        return false;
    *out_part = path + before;
    *out_len = len;
    return true;
}

/* Keeps the decoded part in the call; "" without one. */
static bool keep_argument(struct api_call *c, const char *part, size_t len)
{
    char *raw = strndup(part, len);

    c->argument = raw != NULL ? evhttp_uridecode(raw, 0, NULL) : NULL;
    free(raw);
    return c->argument != NULL;
}

/* The route, or NULL; then *out_path_known says whether another method would do. */
static const struct route *find_route(const struct api *a, enum evhttp_cmd_type method,
                                      const char *path, const char **out_part, size_t *out_len,
                                      bool *out_path_known)
{
    *out_path_known = false;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (routes[i].test_clock && !a->settings.test_clock)
            continue;
        if (!matches(routes[i].pattern, path, out_part, out_len))
            continue;
        if (routes[i].method == method)
            return &routes[i];
        *out_path_known = true;
    }
    return NULL;
}

static void reply_no_route(struct api_call *c, bool path_known)
{
    struct error err = ERROR_INIT;

    error_set(&err, path_known ? ERROR_INVALID : ERROR_MISSING,
              path_known ? "this address does not take that method"
                         : "there is nothing at this address");
    call_reply(c, path_known ? HTTP_BADMETHOD : HTTP_NOTFOUND, api_json_error(&err));
}

static void on_request(struct evhttp_request *req, void *ctx)
{
    struct api *a = ctx;
    const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(req));
    const char *part = "";
    size_t part_len = 0;
    bool path_known;
    const struct route *route = find_route(a, evhttp_request_get_command(req),
                                           path != NULL ? path : "", &part, &part_len, &path_known);
    struct api_call *c = call_new(&a->calls, &a->settings, req);

    if (c == NULL)
        return;
    if (route == NULL)
        reply_no_route(c, path_known);
    else if (!keep_argument(c, part, part_len))
        fail(c, ERROR_NO_ROOM, "%s", "out of memory");
    else
        route->handle(a, c);
}

/* ---- lifetime -------------------------------------------------------------------------------- */

static struct evhttp *new_server(struct api *a)
{
    struct evhttp *http = evhttp_new(a->settings.base);

    if (http == NULL)
        return NULL;
    evhttp_set_max_headers_size(http, API_HEADER_MAX);
    evhttp_set_max_body_size(http, API_BODY_MAX);
    evhttp_set_timeout(http, API_IDLE_S);
    evhttp_set_allowed_methods(http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_DELETE);
    evhttp_set_gencb(http, on_request, a);
    return http;
}

/* Out of descriptors: without this evhttp would try, and complain, without a pause. */
static void on_accept_error(struct evconnlistener *listener, void *http)
{
    (void)http;
    (void)evconnlistener_disable(listener);
}

static void on_resume(evutil_socket_t fd, short what, void *ctx)
{
    struct api *a = ctx;

    (void)fd;
    (void)what;
    (void)evconnlistener_enable(a->listener);
}

static bool start_accepting(struct api *a)
{
    static const struct timeval pause = {API_RESUME_S, 0};
    struct evhttp_bound_socket *bound;

    a->resume = event_new(a->settings.base, -1, EV_PERSIST, on_resume, a);
    if (a->resume == NULL)
        return false;
    bound = evhttp_accept_socket_with_handle(a->http, a->socket.fd);
    if (bound == NULL)
        return false;
    a->listener = evhttp_bound_socket_get_listener(bound);
    evconnlistener_set_error_cb(a->listener, on_accept_error);
    (void)event_add(a->resume, &pause);
    return true;
}

static void release(struct api *a)
{
    if (a->resume != NULL)
        event_free(a->resume);
    if (a->http != NULL)
        evhttp_free(a->http);
}

static bool start(struct api *a, struct error *err)
{
    a->http = new_server(a);
    if (a->http == NULL)
        return error_set(err, ERROR_NO_ROOM, "control socket %s: out of memory",
                         a->settings.socket);
    if (!api_socket_open(a->settings.socket, &a->socket, err))
        return false;
    if (start_accepting(a))
        return true;
    close(a->socket.fd);
    api_socket_remove(&a->socket);
    return error_set(err, ERROR_NO_ROOM, "control socket %s: cannot accept on it",
                     a->settings.socket);
}

struct api *api_new(const struct api_settings *settings, struct error *err)
{
    struct api *a = calloc(1, sizeof(*a));

    if (a == NULL) {
        error_set(err, ERROR_NO_ROOM, "control socket %s: out of memory", settings->socket);
        return NULL;
    }
    a->settings = *settings;
    a->started_ms = clock_now_ms(settings->clock);
    a->started_wall_ms = clock_wall_ms(settings->clock);
    if (start(a, err))
        return a;
    release(a);
    free(a);
    return NULL;
}

void api_free(struct api *a)
{
    if (a == NULL)
        return;
    api_socket_remove(&a->socket);
    release(a);
    call_orphan_all(&a->calls);
    free(a);
}
