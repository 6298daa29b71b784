#include "relay/admin/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>

#include "relay/admin/api_call.h"
#include "relay/admin/api_devices.h"
#include "relay/admin/api_json.h"
#include "relay/admin/api_query.h"
#include "relay/admin/api_queue.h"
#include "relay/admin/api_replies.h"
#include "relay/admin/api_signin.h"
#include "relay/admin/api_socket.h"
#include "relay/admin/api_spool.h"
#include "relay/admin/api_status.h"
#include "relay/admin/json.h"
#include "relay/admin/reports.h"
#include "relay/base/log.h"
#include "relay/intake/registry.h"

#define API_HEADER_MAX  16384 /* what comes back from a browser is long */
#define API_BODY_MAX    4096
#define API_IDLE_S      120
#define API_RESUME_S    1                   /* after running out of descriptors */
#define API_WALK_MAX    20000               /* messages looked at to name the held and the dead */
#define API_NO_ROOM_MS  (60ull * 60 * 1000) /* for how long a refusal is told of */
#define API_ADVANCE_MAX (10ull * 365 * 24 * 3600) /* seconds */

struct api {
    struct api_settings settings;
    struct evhttp *http;
    struct evconnlistener *listener; /* http's */
    struct event *resume;
    struct api_socket socket;
    struct api_calls calls;
};

struct route {
    const char *pattern; /* "*" stands for one part */
    void (*handle)(struct api_call *c);
    enum evhttp_cmd_type method;
    bool test_clock; /* there only with a test clock */
};

/* ---- GET /v1/status -------------------------------------------------------------------------- */

static size_t note_id(uint64_t ids[API_STATUS_IDS], size_t n, uint64_t id)
{
    if (n < API_STATUS_IDS)
        ids[n++] = id;
    return n;
}

/* A damaged message is told of as that alone. */
struct naming {
    size_t held, dead, damaged;
    uint64_t damaged_seen;
};

static void note_damaged(struct api_status *s, struct naming *n, const struct queue_info *info)
{
    n->damaged = note_id(s->damaged, n->damaged, info->id);
    n->damaged_seen++;
    s->damaged_held += info->state == QUEUE_HELD;
    s->damaged_dead += info->state == QUEUE_DEAD;
}

static bool is_named(const struct api_status *s, const struct naming *n)
{
    uint64_t held = s->counts->state[QUEUE_HELD] - s->damaged_held;
    uint64_t dead = s->counts->state[QUEUE_DEAD] - s->damaged_dead;

    return n->damaged_seen >= s->counts->damaged &&
           (n->held >= API_STATUS_IDS || n->held >= held) &&
           (n->dead >= API_STATUS_IDS || n->dead >= dead);
}

static void name_held_and_dead(const struct queue *q, struct api_status *s)
{
    struct naming n = {.held = 0};
    struct queue_info info = {.id = 0};

    for (unsigned i = 0; i < API_WALK_MAX; i++) {
        if (is_named(s, &n) || !queue_list(q, info.id, &info))
            return;
        if (info.damaged)
            note_damaged(s, &n, &info);
        else if (info.state == QUEUE_HELD)
            n.held = note_id(s->held, n.held, info.id);
        else if (info.state == QUEUE_DEAD)
            n.dead = note_id(s->dead, n.dead, info.id);
    }
}

static void note_no_room(const struct queue *q, const struct registry_device *d, uint64_t wall_ms,
                         struct api_status *s)
{
    uint64_t ago_ms = wall_ms > d->no_room_ms ? wall_ms - d->no_room_ms : 0;

    if (d->no_room_ms == 0 || ago_ms > API_NO_ROOM_MS)
        return;
    if (s->no_room_count < API_STATUS_QUIET) {
        struct api_status_no_room *n = &s->no_room[s->no_room_count];

        memcpy(n->name, d->name, sizeof(n->name));
        memcpy(n->why, d->no_room, sizeof(n->why));
        n->ago_ms = ago_ms;
        n->waits = queue_device_bytes(q, d->name);
    }
    s->no_room_count++;
}

static void note_devices(const struct registry *r, const struct queue *q, uint64_t wall_ms,
                         struct api_status *s)
{
    struct registry_device d = {.name = ""};

    if (r == NULL)
        return;
    s->devices = registry_count(r);
    while (registry_next(r, d.name, wall_ms, &d)) {
        note_no_room(q, &d, wall_ms, s);
        if (!d.is_quiet)
            continue;
        if (s->quiet_count < API_STATUS_QUIET) {
            struct api_status_quiet *quiet = &s->quiet[s->quiet_count];

            memcpy(quiet->name, d.name, sizeof(quiet->name));
            quiet->silent_ms = wall_ms > d.mail_ms ? wall_ms - d.mail_ms : 0;
            quiet->usual_ms = d.usual_ms;
        }
        s->quiet_count++;
    }
}

/* A mailbox in trouble is waited for when mail that is due on a route could leave through it first;
 * a message whose own time has not come waits for itself. NULL without memory. */
static bool *waited_for(const struct api_settings *set, const struct api_status *s)
{
    bool *list = calloc(s->mailbox_count + 1, sizeof(*list));

    for (uint32_t r = 0; list != NULL && r < queue_route_count(set->queue); r++) {
        uint64_t due = queue_next_due(set->queue, r, s->times.now_ms);
        struct mailbox_status first;
        uint64_t ready =
            dispatch_route_ready_ms(set->dispatch, queue_route_name(set->queue, r), &first);

        if (due == SCHEDULE_NEVER || (due > s->times.now_ms && due > ready))
            continue;
        for (size_t i = 0; i < s->mailbox_count; i++)
            if (first.state != MAILBOX_READY && strcmp(s->mailboxes[i].name, first.name) == 0)
                list[i] = true;
    }
    return list;
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

static void get_status(struct api_call *c)
{
    const struct api_settings *set = c->api;
    struct queue_counts counts;
    struct intake_counts intake;
    struct error refusing = ERROR_INIT;
    struct api_status s = {.times = call_times(c),
                           .started_ms = c->calls->started_ms,
                           .started_wall_ms = c->calls->started_wall_ms,
                           .pid = (int)getpid(),
                           .counts = &counts,
                           .recovery = set->recovery,
                           .intake = &intake};
    struct mailbox_status *list = mailboxes(set->dispatch, &s.mailbox_count);
    bool *waited = NULL;
    cJSON *json = NULL;

    queue_counts(set->queue, &counts);
    intake_counts(set->intake, &intake);
    s.mailboxes = list;
    if (queue_has_room(set->queue, LANE_NORMAL, 0, &refusing))
        error_clear(&refusing);
    s.refusing = refusing.text;
    name_held_and_dead(set->queue, &s);
    for (size_t i = 0; i < API_STATUS_IDS; i++)
        reports_seen(set->reports, s.dead[i]);
    note_devices(set->registry, set->queue, s.times.wall_ms, &s);
    if (list != NULL)
        s.waited_for = waited = waited_for(set, &s);
    if (waited != NULL)
        json = api_status_json(&s);
    if (json != NULL && !api_signin_add(set, json)) {
        cJSON_Delete(json);
        json = NULL;
    }
    free(waited);
    free(list);
    call_reply(c, HTTP_OK, json);
}

/* ---- mailboxes and the clock ----------------------------------------------------------------- */

static void post_resume(struct api_call *c)
{
    cJSON *o;

    if (!dispatch_resume(c->api->dispatch, c->argument)) {
        call_fail_text(c, ERROR_MISSING, "there is no mailbox \"%.63s\" in the configuration",
                       c->argument);
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

static void post_clock(struct api_call *c)
{
    struct clock *clock = c->api->clock;
    uint64_t seconds, forward, back;
    cJSON *o;

    if (!query_number(c, "advance", 0, 0, API_ADVANCE_MAX, &seconds) ||
        !query_number(c, "wall_forward", 0, 0, API_ADVANCE_MAX, &forward) ||
        !query_number(c, "wall_back", 0, 0, API_ADVANCE_MAX, &back))
        return;
    clock_advance(clock, seconds * 1000);
    clock_step_wall(clock, (int64_t)forward * 1000 - (int64_t)back * 1000);
    if (c->api->on_clock != NULL)
        c->api->on_clock(c->api->ctx);
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
    {"/v1/queue", api_queue_list, EVHTTP_REQ_GET, false},
    {"/v1/queue/retry", api_queue_retry_all, EVHTTP_REQ_POST, false},
    {"/v1/queue/requeue", api_queue_requeue_all, EVHTTP_REQ_POST, false},
    {"/v1/queue/*", api_queue_message, EVHTTP_REQ_GET, false},
    {"/v1/queue/*", api_queue_delete, EVHTTP_REQ_DELETE, false},
    {"/v1/queue/*/eml", api_queue_eml, EVHTTP_REQ_GET, false},
    {"/v1/queue/*/retry", api_queue_retry, EVHTTP_REQ_POST, false},
    {"/v1/replies", api_replies_list, EVHTTP_REQ_GET, false},
    {"/v1/devices", api_devices_list, EVHTTP_REQ_GET, false},
    {"/v1/devices/*", api_devices_one, EVHTTP_REQ_GET, false},
    {"/v1/devices/*", api_devices_forget, EVHTTP_REQ_DELETE, false},
    {"/v1/devices/*/transcripts", api_devices_transcripts, EVHTTP_REQ_GET, false},
    {"/v1/spool", api_spool_stats, EVHTTP_REQ_GET, false},
    {"/v1/spool/check", api_spool_check, EVHTTP_REQ_POST, false},
    {"/v1/mailbox/*/resume", post_resume, EVHTTP_REQ_POST, false},
    {"/v1/mailbox/*/token", api_signin_token, EVHTTP_REQ_GET, false},
    {"/v1/mailbox/*/login", api_signin_login, EVHTTP_REQ_GET, false},
    {"/v1/mailbox/*/login", api_signin_login_device, EVHTTP_REQ_POST, false},
    {"/v1/mailbox/*/login/browser", api_signin_login_browser, EVHTTP_REQ_POST, false},
    {"/v1/mailbox/*/login/redirect", api_signin_login_redirect, EVHTTP_REQ_POST, false},
    {"/v1/sign-in", api_signin_report, EVHTTP_REQ_GET, false},
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
        call_fail_text(c, ERROR_NO_ROOM, "out of memory");
    else
        route->handle(c);
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
    if (a->settings.open_ms == 0)
        a->settings.open_ms = API_OPEN_MS;
    a->calls.started_ms = clock_now_ms(settings->clock);
    a->calls.started_wall_ms = clock_wall_ms(settings->clock);
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
