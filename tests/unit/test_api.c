#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "relay/admin/api.h"
#include "relay/admin/api_call.h"
#include "relay/admin/json.h"
#include "relay/base/config.h"
#include "relay/base/log.h"
#include "relay/intake/registry.h"

#define WATCHDOG_S 20
#define LARGE      (3u * 1024 * 1024)

/* ---- what stands in for intake, registry and dispatch -----------------------------------------
 */

struct intake {
    struct intake_counts counts;
};

struct dispatch {
    unsigned wakes;
    unsigned resumes;
    uint64_t ready_ms;
};

void intake_counts(const struct intake *in, struct intake_counts *out)
{
    *out = in->counts;
}

struct registry {
    struct registry_device list[4]; /* by name */
    size_t count;
    registry_transcripts_fn *done; /* somebody waits */
    void *ctx;
};

size_t registry_count(const struct registry *r)
{
    return r->count;
}

bool registry_next(const struct registry *r, const char *after, uint64_t wall_ms,
                   struct registry_device *out)
{
    (void)wall_ms;
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->list[i].name, after) > 0) {
            *out = r->list[i];
            return true;
        }
    return false;
}

bool registry_find(const struct registry *r, const char *name, uint64_t wall_ms,
                   struct registry_device *out)
{
    (void)wall_ms;
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->list[i].name, name) == 0) {
            *out = r->list[i];
            return true;
        }
    return false;
}

bool registry_forget(struct registry *r, const char *name)
{
    struct registry_device gone;

    if (!registry_find(r, name, 0, &gone))
        return false;
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->list[i].name, name) == 0)
            memmove(&r->list[i], &r->list[i + 1], (--r->count - i) * sizeof(r->list[0]));
    return true;
}

static void give_transcripts(struct registry *r, const struct error *err)
{
    char newest[] = "     0.001 << 220 relay\n";
    char older[] = "     0.002 >> QUIT\n";
    const struct registry_transcript list[] = {{.ended_ms = 2000, .text = newest},
                                               {.ended_ms = 1000, .text = older}};
    registry_transcripts_fn *done = r->done;

    r->done = NULL;
    done(r->ctx, err == NULL ? list : NULL, err == NULL ? 2 : 0, err);
}

void registry_transcripts(struct registry *r, const char *name, registry_transcripts_fn *done,
                          void *ctx)
{
    assert_string_equal(name, "fd00::21");
    assert_null(r->done);
    r->done = done;
    r->ctx = ctx;
}

void dispatch_wake(struct dispatch *d)
{
    d->wakes++;
}

size_t dispatch_mailbox_count(const struct dispatch *d)
{
    (void)d;
    return 1;
}

bool dispatch_mailbox(const struct dispatch *d, size_t i, struct mailbox_status *out)
{
    (void)d;
    *out = (struct mailbox_status){.name = "my office",
                                   .address = "scan@office.example",
                                   .host = "smtp.example",
                                   .mechanism = "",
                                   .problem = "",
                                   .remedy = "",
                                   .last_reply = "",
                                   .delivered = 12};
    return i == 0;
}

uint64_t dispatch_route_ready_ms(const struct dispatch *d, const char *route,
                                 struct mailbox_status *out_first)
{
    assert_string_equal(route, "default");
    (void)dispatch_mailbox(d, 0, out_first);
    if (d->ready_ms == 0)
        return 0;
    out_first->state = MAILBOX_WAITING;
    out_first->problem = "It does not answer.";
    return d->ready_ms;
}

bool dispatch_resume(struct dispatch *d, const char *mailbox)
{
    if (strcmp(mailbox, "my office") != 0)
        return false;
    d->resumes++;
    return true;
}

const char *mailbox_state_name(enum mailbox_state state)
{
    return state == MAILBOX_READY ? "ready" : "paused";
}

/* ---- the fixture ----------------------------------------------------------------------------- */

struct fixture {
    char dir[64];
    char spool[80];
    char socket[96];
    struct event_base *base;
    struct clock clock;
    struct queue *queue;
    struct queue_recovery recovery;
    struct intake intake;
    struct dispatch dispatch;
    struct registry registry;
    struct config *config;
    struct api *api;
    unsigned clock_moves;
    /* the executor: work() at once, done() from the loop */
    struct executor_job *first;
    struct executor_job **last;
    struct event *deliver;
    bool stalled; /* done() waits */
    struct executor_job *first_write;
    struct executor_job **last_write;
    unsigned jobs;
    uint64_t committed;
};

static void submit(void *ctx, enum executor_lane lane, struct executor_job *job)
{
    struct fixture *f = ctx;
    struct executor_job ***last = lane == EXECUTOR_JOURNAL ? &f->last_write : &f->last;

    job->work(job);
    job->next = NULL;
    **last = job;
    *last = &job->next;
    f->jobs++;
    event_active(f->deliver, EV_TIMEOUT, 0);
}

static void deliver_first(struct executor_job **first, struct executor_job ***last)
{
    struct executor_job *job = *first;

    *first = job->next;
    if (*first == NULL)
        *last = first;
    job->done(job);
}

static void deliver(evutil_socket_t fd, short what, void *ctx)
{
    struct fixture *f = ctx;

    (void)fd;
    (void)what;
    for (;;) {
        if (!f->stalled && f->first != NULL)
            deliver_first(&f->first, &f->last);
        else if (!f->stalled && f->first_write != NULL)
            deliver_first(&f->first_write, &f->last_write);
        else
            return;
    }
}

static void on_clock(void *ctx)
{
    struct fixture *f = ctx;

    f->clock_moves++;
}

static struct api_settings settings_of(struct fixture *f)
{
    return (struct api_settings){
        .base = f->base,
        .clock = &f->clock,
        .queue = f->queue,
        .intake = &f->intake,
        .dispatch = &f->dispatch,
        .config = f->config,
        .registry = &f->registry,
        .socket = f->socket,
        .recovery = &f->recovery,
        .test_clock = true,
        .on_clock = on_clock,
        .ctx = f,
    };
}

static void start_api(struct fixture *f)
{
    struct api_settings settings = settings_of(f);
    struct error err = ERROR_INIT;

    f->api = api_new(&settings, &err);
    if (f->api == NULL)
        fail_msg("%s", err.text);
}

static void open_queue(struct fixture *f)
{
    struct queue_options options = {.dir = f->spool,
                                    .executor = {.ctx = f, .submit = submit},
                                    .segment_size = 4u << 20,
                                    .now_ms = clock_now_ms(&f->clock),
                                    .wall_ms = clock_wall_ms(&f->clock)};
    struct error err = ERROR_INIT;

    f->queue = queue_open(&options, &f->recovery, &err);
    if (f->queue == NULL)
        fail_msg("%s", err.text);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    snprintf(f->dir, sizeof(f->dir), "/tmp/test_api.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->spool, sizeof(f->spool), "%s/spool", f->dir);
    snprintf(f->socket, sizeof(f->socket), "%s/run/control.sock", f->dir);
    f->last = &f->first;
    f->last_write = &f->first_write;
    clock_init(&f->clock);
    f->base = event_base_new();
    f->deliver = event_new(f->base, -1, 0, deliver, f);
    open_queue(f);
    start_api(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    char command[128];

    api_free(f->api);
    f->stalled = false;
    deliver(-1, 0, f);
    queue_close(f->queue);
    config_free(f->config);
    event_free(f->deliver);
    event_base_free(f->base);
    snprintf(command, sizeof(command), "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* ---- a client in the same loop --------------------------------------------------------------- */

struct client {
    struct bufferevent *bev;
    bool closed;
};

static void on_client_event(struct bufferevent *bev, short what, void *ctx)
{
    struct client *c = ctx;

    (void)bev;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        c->closed = true;
}

static void connect_client(struct fixture *f, struct client *c, const char *method,
                           const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    *c = (struct client){.bev = bufferevent_socket_new(f->base, -1, BEV_OPT_CLOSE_ON_FREE)};
    memcpy(address.sun_path, f->socket, strlen(f->socket) + 1);
    bufferevent_setcb(c->bev, NULL, NULL, on_client_event, c);
    assert_int_equal(
        bufferevent_socket_connect(c->bev, (struct sockaddr *)&address, sizeof(address)), 0);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    evbuffer_add_printf(bufferevent_get_output(c->bev),
                        "%s %s HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", method,
                        path);
}

static void hang_up(struct client *c)
{
    bufferevent_free(c->bev);
    c->bev = NULL;
}

/* Turns the loop until nothing more happens by itself. */
static void settle(struct fixture *f)
{
    for (int i = 0; i < 50; i++)
        event_base_loop(f->base, EVLOOP_NONBLOCK);
}

static void wait_closed(struct fixture *f, struct client *c)
{
    struct timeval limit = {.tv_sec = WATCHDOG_S};

    event_base_loopexit(f->base, &limit);
    while (!c->closed && !event_base_got_exit(f->base))
        event_base_loop(f->base, EVLOOP_ONCE);
    if (!c->closed)
        fail_msg("no answer within %d s", WATCHDOG_S);
}

struct answer {
    int status;
    char *text; /* the whole of it */
    size_t len;
    const char *body;
    size_t body_len;
    cJSON *json;
};

static struct answer take_answer(struct client *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    struct answer a = {.len = evbuffer_get_length(in)};
    char *end;

    a.text = calloc(1, a.len + 1);
    assert_non_null(a.text);
    evbuffer_remove(in, a.text, a.len);
    hang_up(c);
    assert_int_equal(sscanf(a.text, "HTTP/1.1 %d ", &a.status), 1);
    end = memmem(a.text, a.len, "\r\n\r\n", 4);
    assert_non_null(end);
    a.body = end + 4;
    a.body_len = a.len - (size_t)(a.body - a.text);
    a.json = cJSON_ParseWithLength(a.body, a.body_len);
    return a;
}

static void answer_done(struct answer *a)
{
    cJSON_Delete(a->json);
    free(a->text);
}

static struct answer ask(struct fixture *f, const char *method, const char *path)
{
    struct client c;

    connect_client(f, &c, method, path);
    wait_closed(f, &c);
    return take_answer(&c);
}

static struct answer ask_id(struct fixture *f, const char *method, uint64_t id, const char *tail)
{
    char text[QUEUE_ID_TEXT];
    char path[64];

    queue_id_text(id, text);
    snprintf(path, sizeof(path), "/v1/queue/%s%s", text, tail);
    return ask(f, method, path);
}

/* The status alone. */
static int status_of(struct fixture *f, const char *method, const char *path)
{
    struct answer a = ask(f, method, path);
    int status = a.status;

    answer_done(&a);
    return status;
}

/* ---- messages -------------------------------------------------------------------------------- */

static void on_committed(void *ctx, uint64_t id, const struct error *err)
{
    struct fixture *f = ctx;

    assert_null(err);
    f->committed = id;
}

static void fill_envelope(struct envelope *e)
{
    envelope_init(e);
    assert_true(envelope_set(&e->reverse_path, "scan@office.example"));
    assert_true(envelope_set(&e->device, "printer-1"));
    assert_true(envelope_set(&e->subject, "A scan"));
    assert_true(envelope_set(&e->route, "default"));
    assert_true(envelope_add_recipient(e, "a@b.example"));
    assert_true(envelope_add_recipient(e, "c@d.example"));
}

static uint8_t octet_at(size_t i)
{
    return (uint8_t)(i * 31 + i / 251);
}

/* A committed message of `size` octets, each known from its place. */
/* The jobs are inline: what is full now has room after the next turn. */
static void on_drained(void *ctx)
{
    (void)ctx;
}

static uint64_t add_message(struct fixture *f, size_t size)
{
    struct error err = ERROR_INIT;
    struct envelope e;
    struct queue_writer *w = queue_begin(f->queue, LANE_NORMAL, on_drained, f, &err);
    uint8_t block[4096];

    assert_non_null(w);
    for (size_t at = 0; at < size;) {
        size_t n = size - at < sizeof(block) ? size - at : sizeof(block);

        for (size_t i = 0; i < n; i++)
            block[i] = octet_at(at + i);
        assert_int_not_equal(queue_append(w, block, n, &err), QUEUE_FLOW_ERROR);
        deliver(-1, 0, f);
        at += n;
    }
    fill_envelope(&e);
    f->committed = 0;
    queue_commit(w, &e, clock_now_ms(&f->clock), clock_wall_ms(&f->clock), on_committed, f);
    envelope_done(&e);
    for (int i = 0; i < 1000 && f->committed == 0; i++)
        event_base_loop(f->base, EVLOOP_NONBLOCK);
    assert_int_not_equal(f->committed, 0);
    return f->committed;
}

/* Leases the message that is due and says how the attempt ended. */
static void end_attempt(struct fixture *f, enum queue_state ends)
{
    struct queue_info info;
    struct envelope e;
    struct queue_attempt attempt = {
        .envelope = &e, .state = ends, .wait_ms = 60000, .counts = true};
    uint32_t route;

    fill_envelope(&e);
    assert_true(envelope_set(&e.recipients[1].reply, "550 5.7.1 no"));
    assert_true(queue_route(f->queue, "default", &route));
    assert_true(queue_pick(f->queue, route, clock_now_ms(&f->clock), &info));
    queue_settle(f->queue, info.id, &attempt, clock_now_ms(&f->clock), clock_wall_ms(&f->clock),
                 NULL, NULL);
    envelope_done(&e);
    settle(f);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void status_tells_of_queue_intake_and_mailboxes(void **state)
{
    struct fixture *f = *state;
    struct answer a;

    f->intake.counts.accepted = 7;
    add_message(f, 1000);
    a = ask(f, "GET", "/v1/status");
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.text, "Content-Type: application/json"));
    assert_string_equal(json_get_text(a.json, "state"), "ok");
    assert_true(json_get_number(a.json, "pid") == getpid());
    assert_true(json_get_number(json_get(a.json, "queue"), "queued") == 1);
    assert_true(json_get_number(json_get(a.json, "intake"), "accepted") == 7);
    assert_true(json_get_number(a.json, "delivered") == 12);
    assert_string_equal(json_get_text(json_first(a.json, "mailboxes"), "name"), "my office");
    answer_done(&a);
}

static void status_names_what_is_held_and_dead(void **state)
{
    struct fixture *f = *state;
    uint64_t held = add_message(f, 1000);
    char id[QUEUE_ID_TEXT];
    struct answer a;

    end_attempt(f, QUEUE_HELD);
    add_message(f, 1000);
    end_attempt(f, QUEUE_DEAD);
    queue_id_text(held, id);
    a = ask(f, "GET", "/v1/status");
    assert_string_equal(json_get_text(a.json, "state"), "attention");
    assert_int_equal(cJSON_GetArraySize(json_get(a.json, "problems")), 2);
    assert_non_null(strstr(json_get_text(json_first(a.json, "problems"), "what"), id));
    answer_done(&a);
}

static void the_list_comes_in_pages(void **state)
{
    struct fixture *f = *state;
    uint64_t ids[5];
    char path[64];
    char text[QUEUE_ID_TEXT];
    struct answer a;
    const cJSON *m;

    for (int i = 0; i < 5; i++)
        ids[i] = add_message(f, 100);
    a = ask(f, "GET", "/v1/queue?limit=3");
    assert_int_equal(cJSON_GetArraySize(json_get(a.json, "messages")), 3);
    assert_true(json_get_number(a.json, "total") == 5);
    snprintf(path, sizeof(path), "/v1/queue?limit=3&after=%s", json_get_text(a.json, "next"));
    answer_done(&a);
    a = ask(f, "GET", path);
    assert_int_equal(cJSON_GetArraySize(json_get(a.json, "messages")), 2);
    assert_null(json_get(a.json, "next"));
    m = json_first(a.json, "messages");
    queue_id_text(ids[3], text);
    assert_string_equal(json_get_text(m, "id"), text);
    assert_string_equal(json_get_text(m, "device"), "printer-1");
    assert_string_equal(json_get_text(json_first(m, "recipients"), "path"), "a@b.example");
    answer_done(&a);
}

static void an_empty_queue_is_an_empty_page(void **state)
{
    struct answer a = ask(*state, "GET", "/v1/queue");

    assert_int_equal(a.status, 200);
    assert_int_equal(cJSON_GetArraySize(json_get(a.json, "messages")), 0);
    assert_null(json_get(a.json, "next"));
    answer_done(&a);
}

static void a_message_is_shown_with_its_replies(void **state)
{
    struct fixture *f = *state;
    uint64_t id = add_message(f, 1000);
    struct answer a;

    end_attempt(f, QUEUE_QUEUED);
    a = ask_id(f, "GET", id, "");
    assert_int_equal(a.status, 200);
    assert_string_equal(json_get_text(a.json, "subject"), "A scan");
    assert_true(json_get_number(a.json, "attempts") == 1);
    assert_true(json_get_number(a.json, "due_in") > 50);
    assert_string_equal(json_get_text(a.json, "last_reply"), "550 5.7.1 no");
    assert_int_equal(cJSON_GetArraySize(json_get(a.json, "recipients")), 2);
    answer_done(&a);
}

static void a_due_message_waits_for_its_mailbox(void **state)
{
    struct fixture *f = *state;
    uint64_t id = add_message(f, 1000);
    struct answer a;

    f->dispatch.ready_ms = clock_now_ms(&f->clock) + 600000;
    a = ask_id(f, "GET", id, "");
    assert_true(json_get_number(a.json, "due_in") > 500);
    assert_string_equal(json_get_text(a.json, "waits_for"), "mailbox my office");
    answer_done(&a);
    a = ask(f, "GET", "/v1/queue");
    assert_true(json_get_number(json_first(a.json, "messages"), "due_in") > 500);
    assert_string_equal(json_get_text(json_first(a.json, "messages"), "waits_why"),
                        "It does not answer.");
    answer_done(&a);
}

#define TEN_OCTETS "0123456789"
#define HUNDRED_OCTETS                                                                             \
    TEN_OCTETS TEN_OCTETS TEN_OCTETS TEN_OCTETS TEN_OCTETS TEN_OCTETS TEN_OCTETS TEN_OCTETS        \
        TEN_OCTETS TEN_OCTETS

static void requests_that_make_no_sense_get_an_error_in_words(void **state)
{
    static const struct {
        const char *method, *path;
        int status;
        const char *kind;
    } rows[] = {
        {"GET", "/", 404, "missing"},
        {"GET", "/v1", 404, "missing"},
        {"GET", "/v1/queue/", 404, "missing"},
        {"GET", "/v1/queue/ab/cd/ef", 404, "missing"},
        {"GET", "/v1/queue/ffffff", 404, "missing"},
        {"GET", "/v1/queue/xyz", 400, "invalid"},
        {"GET", "/v1/queue/..%2f..", 400, "invalid"},
        {"GET", "/v1/queue/ffffff/eml", 404, "missing"},
        {"POST", "/v1/queue/ffffff/retry", 404, "missing"},
        {"DELETE", "/v1/queue/ffffff", 404, "missing"},
        {"POST", "/v1/status", 405, "invalid"},
        {"DELETE", "/v1/queue", 405, "invalid"},
        {"GET", "/v1/queue?limit=0", 400, "invalid"},
        {"GET", "/v1/queue?limit=501", 400, "invalid"},
        {"GET", "/v1/queue?limit=-1", 400, "invalid"},
        {"GET", "/v1/queue?limit=99999999999999999999", 400, "invalid"},
        {"GET", "/v1/queue?after=nothing", 400, "invalid"},
        {"GET", "/v1/devices/", 404, "missing"},
        {"GET", "/v1/devices/nobody", 404, "missing"},
        {"GET", "/v1/devices/nobody/transcripts", 404, "missing"},
        {"DELETE", "/v1/devices/nobody", 404, "missing"},
        {"POST", "/v1/devices/nobody", 405, "invalid"},
        {"GET", "/v1/devices?limit=501", 400, "invalid"},
        {"GET", "/v1/devices?after=" HUNDRED_OCTETS HUNDRED_OCTETS, 400, "invalid"},
        {"POST", "/v1/mailbox/nobody/resume", 404, "missing"},
        {"POST", "/v1/clock?advance=x", 400, "invalid"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct answer a = ask(*state, rows[i].method, rows[i].path);
        const cJSON *e = json_get(a.json, "error");

        if (a.status != rows[i].status || strcmp(json_get_text(e, "kind"), rows[i].kind) != 0 ||
            json_get_text(e, "text")[0] == '\0')
            fail_msg("%s %s: %s", rows[i].method, rows[i].path, a.text);
        answer_done(&a);
    }
}

/* ---- messages that cannot be opened -----------------------------------------------------------
 */

/* The disk does not answer. */
static uint64_t add_unreadable(struct fixture *f)
{
    uint64_t id = add_message(f, 1000);

    f->stalled = true;
    return id;
}

static void restart_api_that_waits(struct fixture *f, uint64_t open_ms)
{
    struct api_settings settings = settings_of(f);

    api_free(f->api);
    settings.open_ms = open_ms;
    f->api = api_new(&settings, NULL);
    assert_non_null(f->api);
}

static void assert_listed_without_envelope(struct answer *a)
{
    const cJSON *m = json_first(a->json, "messages");

    assert_int_equal(a->status, 200);
    assert_int_equal(cJSON_GetArraySize(json_get(a->json, "messages")), 2);
    assert_non_null(strstr(json_get_text(m, "problem"), "the disk has not answered"));
    assert_true(json_get_number(m, "size") == 1000);
    assert_non_null(strstr(json_get_text(m->next, "problem"), "the disk has not answered"));
    answer_done(a);
}

static void a_message_that_cannot_be_opened_yet_is_listed_all_the_same(void **state)
{
    struct fixture *f = *state;
    struct answer a;

    add_message(f, 1000);
    (void)add_unreadable(f);
    restart_api_that_waits(f, 30);
    a = ask(f, "GET", "/v1/queue");
    assert_listed_without_envelope(&a);
    a = ask(f, "GET", "/v1/queue"); /* without asking the queue again */
    assert_listed_without_envelope(&a);
    f->stalled = false;
    deliver(-1, 0, f);
    settle(f);
    a = ask(f, "GET", "/v1/queue");
    assert_string_equal(json_get_text(json_first(a.json, "messages"), "device"), "printer-1");
    assert_true(json_get_null(json_first(a.json, "messages"), "problem"));
    answer_done(&a);
}

static void whoever_wants_such_a_message_is_told_to_come_back(void **state)
{
    static const char *const tails[] = {"", "/eml"};
    struct fixture *f = *state;
    uint64_t id = add_unreadable(f);

    restart_api_that_waits(f, 30);
    for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
        struct answer a = ask_id(f, "GET", id, tails[i]);

        assert_int_equal(a.status, 409);
        assert_string_equal(json_get_text(json_get(a.json, "error"), "kind"), "busy");
        answer_done(&a);
    }
}

static void what_cannot_be_opened_may_outlive_client_and_api(void **state)
{
    struct fixture *f = *state;
    struct client gone;
    struct client waits;

    (void)add_unreadable(f);
    connect_client(f, &gone, "GET", "/v1/queue");
    connect_client(f, &waits, "GET", "/v1/queue");
    settle(f);
    hang_up(&gone);
    settle(f);
    api_free(f->api);
    f->api = NULL;
    f->stalled = false;
    deliver(-1, 0, f);
    settle(f);
    assert_true(waits.closed);
    hang_up(&waits);
}

/* ---- devices --------------------------------------------------------------------------------- */

static struct registry_device *see_device(struct fixture *f, const char *name, uint64_t messages)
{
    struct registry_device *d = &f->registry.list[f->registry.count++];
    uint64_t wall_ms = clock_wall_ms(&f->clock);

    assert_true(f->registry.count <= sizeof(f->registry.list) / sizeof(f->registry.list[0]));
    *d = (struct registry_device){.first_ms = wall_ms - 5000000,
                                  .last_ms = wall_ms - 60000,
                                  .mail_ms = messages > 0 ? wall_ms - 90000 : 0,
                                  .sessions = messages + 1,
                                  .messages = messages};
    snprintf(d->name, sizeof(d->name), "%s", name);
    snprintf(d->address, sizeof(d->address), "fd00::21");
    return d;
}

static void configure(struct fixture *f, const char *text)
{
    struct config *c = config_parse("test.conf", text, strlen(text), stderr);

    assert_non_null(c);
    config_free(f->config);
    f->config = c;
    restart_api_that_waits(f, 0);
}

#define CONFIG                                                                                     \
    "[listener a]\nport = 25\n[mailbox m]\nprovider = office365\naddress = a@b.example\n"          \
    "[devices]\nmax_recipients = 77\n"                                                             \
    "[device copier]\naddress = 192.168.1.21\nlane = urgent\nmax_size = 5MB\n"                     \
    "[device zebra]\naddress = 192.168.1.30-192.168.1.39\n"

/* "copier fd00::21 ", the names of a page. */
static void names_of(const cJSON *page, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (const cJSON *d = json_first(page, "devices"); d != NULL; d = d->next)
        used += (size_t)snprintf(out + used, size - used, "%s/%s ", json_get_text(d, "name"),
                                 json_get_text(d, "state"));
}

static void devices_are_listed_by_name_with_those_never_seen(void **state)
{
    static const struct {
        const char *path, *names, *next;
    } rows[] = {
        {"/v1/devices", "copier/never fd00::21/ok my fax/test zebra/ok ", ""},
        {"/v1/devices?limit=2", "copier/never fd00::21/ok ", "fd00::21"},
        {"/v1/devices?limit=1&after=fd00%3A%3A21", "my fax/test ", "my fax"},
        {"/v1/devices?limit=2&after=fd00%3a%3a21", "my fax/test zebra/ok ", ""},
        {"/v1/devices?after=my%20fax", "zebra/ok ", ""},
        {"/v1/devices?after=zebra", "", ""},
    };
    struct fixture *f = *state;

    configure(f, CONFIG);
    see_device(f, "fd00::21", 3);
    see_device(f, "my fax", 0);
    see_device(f, "zebra", 1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct answer a = ask(f, "GET", rows[i].path);
        char names[256];

        names_of(a.json, names, sizeof(names));
        if (a.status != 200 || strcmp(names, rows[i].names) != 0 ||
            strcmp(json_get_text(a.json, "next"), rows[i].next) != 0)
            fail_msg("%s: %s", rows[i].path, a.text);
        answer_done(&a);
    }
}

static void without_a_registry_no_device_is_known(void **state)
{
    struct fixture *f = *state;
    struct api_settings settings = settings_of(f);
    struct answer a;

    api_free(f->api);
    settings.registry = NULL;
    f->api = api_new(&settings, NULL);
    a = ask(f, "GET", "/v1/devices");
    assert_int_equal(a.status, 200);
    assert_int_equal(cJSON_GetArraySize(json_get(a.json, "devices")), 0);
    answer_done(&a);
    a = ask(f, "GET", "/v1/status");
    assert_true(json_get_number(json_get(a.json, "devices"), "known") == 0);
    answer_done(&a);
    assert_int_equal(status_of(f, "DELETE", "/v1/devices/x"), 404);
}

static void a_device_is_shown_with_its_quirks_and_what_applies_to_it(void **state)
{
    struct fixture *f = *state;
    struct registry_device *d;
    struct answer a;
    const cJSON *rules;
    const cJSON *quirk;

    configure(f, CONFIG);
    d = see_device(f, "fd00::21", 3);
    d->quirks = QUIRK_BIT(QUIRK_NO_HELO) | QUIRK_BIT(QUIRK_TLS_1_0);
    d->newest = QUIRK_BIT(QUIRK_TLS_1_0);
    strcpy(d->helo, "MFP-1");
    a = ask(f, "GET", "/v1/devices/fd00%3A%3A21");
    assert_int_equal(a.status, 200);
    assert_string_equal(json_get_text(a.json, "helo"), "MFP-1");
    assert_true(json_get_number(a.json, "last_mail_age") >= 90);
    quirk = json_first(a.json, "quirks");
    assert_string_equal(json_get_text(quirk, "name"), quirk_name(QUIRK_NO_HELO));
    assert_string_equal(json_get_text(quirk, "words"), quirk_words(QUIRK_NO_HELO));
    assert_false(json_get_flag(quirk, "newest"));
    assert_string_equal(json_get_text(quirk->next, "remedy"), quirk_remedy(QUIRK_TLS_1_0));
    assert_true(json_get_flag(quirk->next, "newest"));
    assert_null(quirk->next->next);
    assert_false(json_get_flag(a.json, "configured"));
    rules = json_get(a.json, "rules");
    assert_true(json_get_flag(rules, "allowed"));
    assert_string_equal(json_get_text(rules, "lane"), "normal");
    assert_true(json_get_number(rules, "max_recipients") == 77);
    answer_done(&a);
    a = ask(f, "GET", "/v1/devices/copier");
    assert_int_equal(a.status, 200);
    assert_true(json_get_null(a.json, "first_seen"));
    assert_true(json_get_flag(a.json, "configured"));
    rules = json_get(a.json, "rules");
    assert_string_equal(json_get_text(rules, "lane"), "urgent");
    assert_true(json_get_number(rules, "max_size") == 5 * 1024 * 1024);
    assert_true(json_get_number(rules, "max_recipients") == 77);
    assert_string_equal(cJSON_GetStringValue(json_first(rules, "addresses")), "192.168.1.21");
    answer_done(&a);
    strcpy(see_device(f, "copier", 1)->address, ""); /* forgotten while it was connected */
    a = ask(f, "GET", "/v1/devices/copier");
    assert_true(json_get_flag(json_get(a.json, "rules"), "allowed"));
    answer_done(&a);
}

static void an_unknown_device_is_answered_with_the_one_that_was_meant(void **state)
{
    static const struct {
        const char *path, *words;
    } rows[] = {
        {"/v1/devices/Copyer", "did you mean \"copier\"?"},
        {"/v1/devices/my%20fox", "did you mean \"my fax\"?"},
        {"/v1/devices/192.168.1.33", "did you mean \"zebra\"?"},
        {"/v1/devices/FD00%3A%3A0021", "did you mean \"fd00::21\"?"},
        {"/v1/devices/10.1.2.3", "\"outtray devices\" lists them"},
        {"/v1/devices/something-else", "\"outtray devices\" lists them"},
    };
    struct fixture *f = *state;

    configure(f, CONFIG);
    see_device(f, "fd00::21", 3);
    see_device(f, "my fax", 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct answer a = ask(f, "GET", rows[i].path);

        if (a.status != 404 ||
            strstr(json_get_text(json_get(a.json, "error"), "text"), rows[i].words) == NULL)
            fail_msg("%s: %s", rows[i].path, a.text);
        answer_done(&a);
    }
}

static void transcripts_come_from_the_registry_the_newest_first(void **state)
{
    struct fixture *f = *state;
    struct error err = ERROR_INIT;
    struct client c;
    struct answer a;
    const cJSON *t;

    see_device(f, "fd00::21", 3);
    connect_client(f, &c, "GET", "/v1/devices/fd00%3A%3A21/transcripts");
    settle(f);
    assert_non_null(f->registry.done);
    give_transcripts(&f->registry, NULL);
    wait_closed(f, &c);
    a = take_answer(&c);
    t = json_first(a.json, "transcripts");
    assert_string_equal(json_get_text(t, "text"), "     0.001 << 220 relay\n");
    assert_string_equal(json_get_text(t, "ended"), "1970-01-01T00:00:02Z");
    assert_string_equal(json_get_text(t->next, "text"), "     0.002 >> QUIT\n");
    answer_done(&a);
    connect_client(f, &c, "GET", "/v1/devices/fd00%3A%3A21/transcripts");
    settle(f);
    error_set(&err, ERROR_IO, "the database cannot be read");
    give_transcripts(&f->registry, &err);
    wait_closed(f, &c);
    a = take_answer(&c);
    assert_int_equal(a.status, 500);
    answer_done(&a);
}

static void transcripts_may_outlive_client_and_api(void **state)
{
    struct fixture *f = *state;
    struct client c;

    see_device(f, "fd00::21", 3);
    connect_client(f, &c, "GET", "/v1/devices/fd00%3A%3A21/transcripts");
    settle(f);
    hang_up(&c);
    settle(f);
    give_transcripts(&f->registry, NULL);
    connect_client(f, &c, "GET", "/v1/devices/fd00%3A%3A21/transcripts");
    settle(f);
    api_free(f->api);
    f->api = NULL;
    give_transcripts(&f->registry, NULL);
    hang_up(&c);
}

static void a_device_that_was_never_seen_has_nothing_to_show_or_forget(void **state)
{
    struct fixture *f = *state;
    struct answer a;

    configure(f, CONFIG);
    a = ask(f, "GET", "/v1/devices/copier/transcripts");
    assert_int_equal(a.status, 200);
    assert_int_equal(cJSON_GetArraySize(json_get(a.json, "transcripts")), 0);
    answer_done(&a);
    assert_int_equal(status_of(f, "DELETE", "/v1/devices/copier"), 404);
}

static void a_device_is_forgotten_by_its_encoded_name(void **state)
{
    struct fixture *f = *state;
    struct answer a;

    see_device(f, "a/b c", 3);
    a = ask(f, "DELETE", "/v1/devices/a%2Fb%20c");
    assert_int_equal(a.status, 200);
    assert_true(json_get_flag(a.json, "forgotten"));
    assert_string_equal(json_get_text(a.json, "name"), "a/b c");
    assert_int_equal(f->registry.count, 0);
    answer_done(&a);
    assert_int_equal(status_of(f, "DELETE", "/v1/devices/a%2Fb%20c"), 404);
}

static void status_names_devices_that_have_gone_quiet(void **state)
{
    struct fixture *f = *state;
    struct registry_device *d;
    struct answer a;

    see_device(f, "10.0.0.9", 3);
    d = see_device(f, "copier", 3);
    d->is_quiet = true;
    d->mail_ms = clock_wall_ms(&f->clock) - UINT64_C(9) * 24 * 3600 * 1000;
    d->usual_ms = UINT64_C(3) * 24 * 3600 * 1000;
    a = ask(f, "GET", "/v1/status");
    assert_string_equal(json_get_text(a.json, "state"), "attention");
    assert_true(json_get_number(json_get(a.json, "devices"), "known") == 2);
    assert_true(json_get_number(json_get(a.json, "devices"), "quiet") == 1);
    assert_string_equal(json_get_text(json_first(a.json, "problems"), "what"),
                        "device copier has sent nothing for 9 days; its longest usual silence is "
                        "3 days");
    answer_done(&a);
}

/* ---- export ---------------------------------------------------------------------------------- */

static void assert_octets(const struct answer *a, size_t size)
{
    assert_int_equal(a->body_len, size);
    for (size_t i = 0; i < size; i++)
        if ((uint8_t)a->body[i] != octet_at(i))
            fail_msg("octet %zu differs", i);
}

static void export_gives_the_mail_data_as_it_is(void **state)
{
    static const size_t sizes[] = {1, 1000, QUEUE_BLOCK, QUEUE_BLOCK * 3, 300001};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint64_t id = add_message(f, sizes[i]);
        struct answer a = ask_id(f, "GET", id, "/eml");

        assert_int_equal(a.status, 200);
        assert_non_null(strstr(a.text, "Content-Type: message/rfc822"));
        assert_octets(&a, sizes[i]);
        answer_done(&a);
    }
}

static void start_export(struct fixture *f, struct client *c, uint64_t id)
{
    char text[QUEUE_ID_TEXT];
    char path[64];

    queue_id_text(id, text);
    snprintf(path, sizeof(path), "/v1/queue/%s/eml", text);
    connect_client(f, c, "GET", path);
    bufferevent_disable(c->bev, EV_READ);
}

static void export_reads_no_faster_than_the_client(void **state)
{
    struct fixture *f = *state;
    uint64_t id = add_message(f, LARGE);
    unsigned before = f->jobs;
    struct client c;
    struct answer a;

    start_export(f, &c, id);
    settle(f);
    assert_true(f->jobs - before > 1);
    assert_true(f->jobs - before < LARGE / QUEUE_BLOCK / 2);
    bufferevent_enable(c.bev, EV_READ);
    wait_closed(f, &c);
    a = take_answer(&c);
    assert_octets(&a, LARGE);
    answer_done(&a);
}

static void a_client_that_leaves_during_an_export_leaves_nothing_behind(void **state)
{
    struct fixture *f = *state;
    uint64_t id = add_message(f, LARGE);
    struct client c;
    struct answer a;

    start_export(f, &c, id);
    settle(f);
    hang_up(&c);
    settle(f);
    a = ask_id(f, "DELETE", id, "");
    assert_int_equal(a.status, 200);
    answer_done(&a);
}

/* Changes an octet of the body's file, far behind its first block. */
static void damage_body(struct fixture *f)
{
    char command[256];

    snprintf(command, sizeof(command),
             "for b in %s/content/*.body; do printf X | dd of=$b bs=1 seek=200000 conv=notrunc "
             "2>/dev/null; done",
             f->spool);
    assert_int_equal(system(command), 0);
}

static void an_export_of_damaged_data_is_cut_short_of_its_length(void **state)
{
    struct fixture *f = *state;
    uint64_t id = add_message(f, LARGE);
    struct answer a;
    size_t announced = 0;

    damage_body(f);
    a = ask_id(f, "GET", id, "/eml");
    assert_int_equal(a.status, 200);
    assert_int_equal(sscanf(strstr(a.text, "Content-Length: "), "Content-Length: %zu", &announced),
                     1);
    assert_int_equal(announced, LARGE);
    assert_true(a.body_len < 200000);
    answer_done(&a);
}

/* ---- operating ------------------------------------------------------------------------------- */

static void retry_makes_a_held_message_due(void **state)
{
    struct fixture *f = *state;
    uint64_t id = add_message(f, 100);
    struct queue_info info;
    struct answer a;

    end_attempt(f, QUEUE_HELD);
    a = ask_id(f, "POST", id, "/retry");
    assert_int_equal(a.status, 200);
    assert_true(json_get_flag(a.json, "retried"));
    assert_true(queue_find(f->queue, id, &info));
    assert_int_equal(info.state, QUEUE_QUEUED);
    assert_true(info.due_ms <= clock_now_ms(&f->clock));
    assert_int_equal(f->dispatch.wakes, 1);
    answer_done(&a);
}

static void a_message_in_flight_is_left_alone(void **state)
{
    struct fixture *f = *state;
    uint64_t id = add_message(f, 100);
    struct queue_info info;
    uint32_t route;
    struct answer a;

    assert_true(queue_route(f->queue, "default", &route));
    assert_true(queue_pick(f->queue, route, clock_now_ms(&f->clock), &info));
    a = ask_id(f, "POST", id, "/retry");
    assert_int_equal(a.status, 409);
    answer_done(&a);
    a = ask_id(f, "DELETE", id, "");
    assert_int_equal(a.status, 409);
    assert_string_equal(json_get_text(json_get(a.json, "error"), "kind"), "busy");
    answer_done(&a);
    queue_release(f->queue, id, clock_now_ms(&f->clock));
}

static void the_spool_is_checked_step_by_step(void **state)
{
    struct fixture *f = *state;
    struct answer a;
    char path[128] = "/v1/spool/check";
    unsigned files = 0;

    add_message(f, 1000);
    add_message(f, LARGE);
    a = ask(f, "GET", "/v1/spool");
    assert_int_equal(a.status, 200);
    assert_true(json_get_number(a.json, "bodies") == 1);
    assert_true(json_get_number(json_get(a.json, "lanes"), "normal") == 2);
    assert_true(json_get_number(a.json, "disk_bytes") > json_get_number(a.json, "living_bytes"));
    answer_done(&a);
    while (path[0] != '\0') {
        a = ask(f, "POST", path);
        assert_int_equal(a.status, 200);
        assert_true(json_get_number(a.json, "bad") == 0);
        files += json_get_text(a.json, "file")[0] != '\0';
        path[0] = '\0';
        if (json_get_text(a.json, "next")[0] != '\0')
            snprintf(path, sizeof(path), "/v1/spool/check?after=%s", json_get_text(a.json, "next"));
        answer_done(&a);
    }
    assert_int_equal(files, 2);
    a = ask(f, "POST", "/v1/spool/check?after=message-zz");
    assert_int_equal(a.status, 400);
    answer_done(&a);
    a = ask(f, "GET", "/v1/spool/check");
    assert_int_equal(a.status, 405);
    answer_done(&a);
}

/* `with` in the place of the first "ID". */
static void put_id(const char *text, const char *with, char *out, size_t size)
{
    const char *at = strstr(text, "ID");
    size_t before = at != NULL ? (size_t)(at - text) : strlen(text);

    snprintf(out, size, "%.*s%s%s", (int)before, text, at != NULL ? with : "",
             at != NULL ? at + 2 : "");
}

/* What the log says on standard error because of a request that goes well. */
static char *logged(struct fixture *f, const char *method, const char *path)
{
    int saved = dup(STDERR_FILENO);
    FILE *file = tmpfile();
    char *text = calloc(1, 4096);
    struct answer a;

    assert_non_null(file);
    assert_non_null(text);
    log_setup(LOG_LEVEL_INFO, LOG_TARGET_STDERR, false);
    assert_int_equal(dup2(fileno(file), STDERR_FILENO), STDERR_FILENO);
    a = ask(f, method, path);
    assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
    close(saved);
    rewind(file);
    (void)!fread(text, 1, 4095, file);
    fclose(file);
    assert_int_equal(a.status, 200);
    answer_done(&a);
    return text;
}

static void what_an_operator_does_is_logged(void **state)
{
    static const struct {
        const char *method, *path, *line;
    } rows[] = {
        {"POST", "/v1/queue/retry", "event=retried queue=ID by=operator\n"},
        {"POST", "/v1/queue/ID/retry", "event=retried queue=ID by=operator\n"},
        {"DELETE", "/v1/queue/ID", "event=deleted queue=ID by=operator\n"},
        {"DELETE", "/v1/devices/old%20fax", "event=forgotten device=\"old fax\" by=operator\n"},
        {"POST", "/v1/mailbox/my%20office/resume",
         "event=resumed mailbox=\"my office\" by=operator\n"},
    };
    struct fixture *f = *state;
    char id[QUEUE_ID_TEXT];

    see_device(f, "old fax", 1);
    queue_id_text(add_message(f, 100), id);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char path[128];
        char line[128];
        char *text;

        put_id(rows[i].path, id, path, sizeof(path));
        put_id(rows[i].line, id, line, sizeof(line));
        text = logged(f, rows[i].method, path);
        if (strstr(text, line) == NULL)
            fail_msg("%s %s: %s", rows[i].method, path, text);
        free(text);
    }
}

static void retry_says_when_a_message_may_arrive_twice(void **state)
{
    struct fixture *f = *state;
    uint64_t id = add_message(f, 100);
    struct answer a;

    end_attempt(f, QUEUE_UNCERTAIN);
    a = ask_id(f, "POST", id, "/retry");
    assert_int_equal(a.status, 200);
    assert_true(json_get_flag(a.json, "uncertain"));
    answer_done(&a);
    end_attempt(f, QUEUE_HELD);
    a = ask_id(f, "POST", id, "/retry");
    assert_false(json_get_flag(a.json, "uncertain"));
    answer_done(&a);
}

static void retry_of_all_leaves_the_uncertain_the_held_and_the_dead(void **state)
{
    struct fixture *f = *state;
    uint64_t waits;
    struct queue_info info;
    struct answer a;

    add_message(f, 100);
    end_attempt(f, QUEUE_HELD);
    add_message(f, 100);
    end_attempt(f, QUEUE_DEAD);
    add_message(f, 100);
    end_attempt(f, QUEUE_UNCERTAIN);
    waits = add_message(f, 100);
    end_attempt(f, QUEUE_QUEUED);
    for (int i = 0; i < 250; i++)
        add_message(f, 10);
    a = ask(f, "POST", "/v1/queue/retry");
    assert_int_equal(a.status, 200);
    assert_true(json_get_number(a.json, "retried") == 251);
    assert_true(json_get_number(a.json, "left") == 3);
    assert_true(queue_find(f->queue, waits, &info));
    assert_true(info.due_ms <= clock_now_ms(&f->clock));
    answer_done(&a);
}

static bool is_waited_for(struct fixture *f)
{
    struct answer a = ask(f, "GET", "/v1/status");
    bool is = json_get_flag(json_first(a.json, "mailboxes"), "waited_for");

    answer_done(&a);
    return is;
}

static void a_mailbox_in_trouble_is_waited_for_by_mail_that_is_due(void **state)
{
    struct fixture *f = *state;

    add_message(f, 100);
    assert_false(is_waited_for(f));
    f->dispatch.ready_ms = clock_now_ms(&f->clock) + 1000;
    assert_true(is_waited_for(f));
    end_attempt(f, QUEUE_UNCERTAIN);
    assert_false(is_waited_for(f)); /* its own time comes later */
    f->dispatch.ready_ms = clock_now_ms(&f->clock) + 86400000;
    assert_true(is_waited_for(f));
}

static void a_deletion_that_the_disk_does_not_take_is_answered_all_the_same(void **state)
{
    struct fixture *f = *state;
    uint64_t id = add_message(f, 100);
    struct queue_info info;
    struct answer a;

    f->stalled = true;
    a = ask_id(f, "DELETE", id, "");
    assert_int_equal(a.status, 503);
    assert_string_equal(json_get_text(json_get(a.json, "error"), "kind"), "busy");
    assert_non_null(strstr(json_get_text(json_get(a.json, "error"), "text"),
                           "is deleted, but that is not yet written to the disk"));
    assert_false(queue_find(f->queue, id, &info));
    answer_done(&a);
    assert_int_equal(status_of(f, "GET", "/v1/queue"), 200);
    f->stalled = false;
    deliver(-1, 0, f);
    settle(f);
}

static void delete_removes_the_message(void **state)
{
    struct fixture *f = *state;
    uint64_t id = add_message(f, 200000);
    struct queue_info info;
    struct answer a = ask_id(f, "DELETE", id, "");

    assert_int_equal(a.status, 200);
    assert_true(json_get_flag(a.json, "deleted"));
    assert_false(queue_find(f->queue, id, &info));
    answer_done(&a);
}

static void resume_finds_a_mailbox_by_its_encoded_name(void **state)
{
    struct fixture *f = *state;
    struct answer a = ask(f, "POST", "/v1/mailbox/my%20office/resume");

    assert_int_equal(a.status, 200);
    assert_string_equal(json_get_text(a.json, "mailbox"), "my office");
    assert_int_equal(f->dispatch.resumes, 1);
    answer_done(&a);
}

static void the_clock_moves_only_when_it_is_a_test_clock(void **state)
{
    struct fixture *f = *state;
    struct api_settings settings = settings_of(f);
    uint64_t before = clock_now_ms(&f->clock);

    assert_int_equal(status_of(f, "POST", "/v1/clock?advance=86400"), 200);
    assert_true(clock_now_ms(&f->clock) >= before + 86400000);
    assert_int_equal(f->clock_moves, 1);
    api_free(f->api);
    settings.test_clock = false;
    f->api = api_new(&settings, NULL);
    assert_non_null(f->api);
    before = clock_now_ms(&f->clock);
    assert_int_equal(status_of(f, "POST", "/v1/clock?advance=86400"), 404);
    assert_true(clock_now_ms(&f->clock) < before + 86400000);
}

static void more_requests_at_once_than_the_limit_are_refused(void **state)
{
    struct fixture *f = *state;
    struct client clients[API_CALLS_MAX + 1];
    unsigned refused = 0;

    add_message(f, 100);
    f->stalled = true;
    for (size_t i = 0; i <= API_CALLS_MAX; i++) {
        connect_client(f, &clients[i], "GET", "/v1/queue");
        settle(f);
    }
    wait_closed(f, &clients[API_CALLS_MAX]);
    f->stalled = false;
    event_active(f->deliver, EV_TIMEOUT, 0);
    for (size_t i = 0; i <= API_CALLS_MAX; i++) {
        struct answer a;

        wait_closed(f, &clients[i]);
        a = take_answer(&clients[i]);
        refused += a.status == 429;
        answer_done(&a);
    }
    assert_int_equal(refused, 1);
}

static void what_is_under_way_may_outlive_the_api(void **state)
{
    struct fixture *f = *state;
    uint64_t id = add_message(f, 100);
    struct client list;
    struct client export;
    struct client gone;

    f->stalled = true;
    connect_client(f, &list, "GET", "/v1/queue");
    start_export(f, &export, id);
    connect_client(f, &gone, "GET", "/v1/queue");
    settle(f);
    hang_up(&gone);
    settle(f);
    api_free(f->api);
    f->api = NULL;
    f->stalled = false;
    event_active(f->deliver, EV_TIMEOUT, 0);
    settle(f);
    assert_true(list.closed);
    hang_up(&list);
    hang_up(&export);
}

/* ---- the socket ------------------------------------------------------------------------------ */

static void the_socket_is_for_owner_and_group_and_goes_with_the_api(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    assert_int_equal(stat(f->socket, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0660);
    api_free(f->api);
    f->api = NULL;
    assert_int_equal(access(f->socket, F_OK), -1);
}

static void a_socket_that_somebody_answers_on_is_left_alone(void **state)
{
    struct fixture *f = *state;
    struct api_settings settings = settings_of(f);
    struct error err = ERROR_INIT;

    assert_null(api_new(&settings, &err));
    assert_int_equal(err.kind, ERROR_BUSY);
    assert_non_null(strstr(err.text, f->socket));
    assert_int_equal(status_of(f, "GET", "/v1/status"), 200);
}

static void a_socket_left_by_a_crash_is_replaced(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    api_free(f->api);
    memcpy(address.sun_path, f->socket, strlen(f->socket) + 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    start_api(f);
    assert_int_equal(status_of(f, "GET", "/v1/status"), 200);
}

static void a_file_that_is_no_socket_is_never_removed(void **state)
{
    struct fixture *f = *state;
    struct api_settings settings = settings_of(f);
    struct error err = ERROR_INIT;
    int fd;

    api_free(f->api);
    f->api = NULL;
    fd = open(f->socket, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_null(api_new(&settings, &err));
    assert_int_equal(err.kind, ERROR_INVALID);
    assert_int_equal(access(f->socket, F_OK), 0);
}

static void a_socket_that_was_replaced_is_not_removed(void **state)
{
    struct fixture *f = *state;
    char other[128];

    snprintf(other, sizeof(other), "%s.other", f->socket);
    assert_int_equal(rename(f->socket, other), 0);
    assert_int_equal(close(open(f->socket, O_CREAT | O_WRONLY, 0600)), 0);
    api_free(f->api);
    f->api = NULL;
    assert_int_equal(access(f->socket, F_OK), 0);
}

static void a_path_too_long_for_a_socket_is_said_so(void **state)
{
    struct fixture *f = *state;
    struct api_settings settings = settings_of(f);
    struct error err = ERROR_INIT;
    char path[200];

    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    settings.socket = path;
    assert_null(api_new(&settings, &err));
    assert_int_equal(err.kind, ERROR_INVALID);
}

#define WITH_API(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_API(status_tells_of_queue_intake_and_mailboxes),
        WITH_API(status_names_what_is_held_and_dead),
        WITH_API(the_list_comes_in_pages),
        WITH_API(an_empty_queue_is_an_empty_page),
        WITH_API(a_message_is_shown_with_its_replies),
        WITH_API(a_due_message_waits_for_its_mailbox),
        WITH_API(requests_that_make_no_sense_get_an_error_in_words),
        WITH_API(a_message_that_cannot_be_opened_yet_is_listed_all_the_same),
        WITH_API(whoever_wants_such_a_message_is_told_to_come_back),
        WITH_API(what_cannot_be_opened_may_outlive_client_and_api),
        WITH_API(devices_are_listed_by_name_with_those_never_seen),
        WITH_API(without_a_registry_no_device_is_known),
        WITH_API(a_device_is_shown_with_its_quirks_and_what_applies_to_it),
        WITH_API(an_unknown_device_is_answered_with_the_one_that_was_meant),
        WITH_API(transcripts_come_from_the_registry_the_newest_first),
        WITH_API(transcripts_may_outlive_client_and_api),
        WITH_API(a_device_that_was_never_seen_has_nothing_to_show_or_forget),
        WITH_API(a_device_is_forgotten_by_its_encoded_name),
        WITH_API(status_names_devices_that_have_gone_quiet),
        WITH_API(export_gives_the_mail_data_as_it_is),
        WITH_API(export_reads_no_faster_than_the_client),
        WITH_API(a_client_that_leaves_during_an_export_leaves_nothing_behind),
        WITH_API(an_export_of_damaged_data_is_cut_short_of_its_length),
        WITH_API(retry_makes_a_held_message_due),
        WITH_API(a_message_in_flight_is_left_alone),
        WITH_API(the_spool_is_checked_step_by_step),
        WITH_API(what_an_operator_does_is_logged),
        WITH_API(retry_says_when_a_message_may_arrive_twice),
        WITH_API(retry_of_all_leaves_the_uncertain_the_held_and_the_dead),
        WITH_API(a_mailbox_in_trouble_is_waited_for_by_mail_that_is_due),
        WITH_API(a_deletion_that_the_disk_does_not_take_is_answered_all_the_same),
        WITH_API(delete_removes_the_message),
        WITH_API(resume_finds_a_mailbox_by_its_encoded_name),
        WITH_API(the_clock_moves_only_when_it_is_a_test_clock),
        WITH_API(more_requests_at_once_than_the_limit_are_refused),
        WITH_API(what_is_under_way_may_outlive_the_api),
        WITH_API(the_socket_is_for_owner_and_group_and_goes_with_the_api),
        WITH_API(a_socket_that_somebody_answers_on_is_left_alone),
        WITH_API(a_socket_left_by_a_crash_is_replaced),
        WITH_API(a_file_that_is_no_socket_is_never_removed),
        WITH_API(a_socket_that_was_replaced_is_not_removed),
        WITH_API(a_path_too_long_for_a_socket_is_said_so),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
