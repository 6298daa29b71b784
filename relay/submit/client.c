#include "relay/submit/client.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "relay/base/log.h"
#include "relay/signin/sasl.h"

#define TLS_STRENGTH  128 /* bits at least, with TLS 1.2's modern suites */
#define ADDRESSES_MAX 16
#define MECHANISM_MAX 32

/* A socket that connects, or has won. */
struct runner {
    struct client *client;
    struct stream *stream; /* NULL when free */
};

/* Submitted, and not begun. */
struct waiting {
    struct client_transaction tx;
    struct letter *letter;
};

struct client {
    struct client_events events;
    void *ctx;
    struct client_target target;
    struct secret *secret; /* a copy, until signed in: the mailbox may get another one meanwhile */
    struct stream_loop *streams;
    struct dns_query *query;
    struct net_address addresses[ADDRESSES_MAX];
    size_t address_count;
    size_t address_next;
    struct runner runners[CLIENT_RACE_MAX];
    size_t running;      /* sockets that connect; one slot is the client's, others were asked for */
    struct event *timer; /* of the race; then of the reply */
    struct stream *stream; /* the runner's that has won; NULL before */
    struct client_fsm *fsm;
    struct sasl_client *sasl;
    struct letter *letter; /* that is being read, or was last; and whose it is */
    void *owner;
    struct waiting waiting[CLIENT_FLIGHTS_MAX]; /* the first goes first */
    size_t waiting_count;
    uint64_t id;
    char mechanism[MECHANISM_MAX];
    char trouble[ERROR_TEXT_MAX]; /* of the last address tried */
    bool connected;
    bool secure;
    bool body;        /* the machine takes mail data */
    bool reading;     /* a block is under way */
    bool driving;     /* effects are being performed: do not start again from within */
    bool closing;     /* the session is over; the stream lingers */
    uint64_t replies; /* heard when the timer was set */
    enum client_stage timed_stage;
};

static void client_drive(struct client *c);
static void race_on(struct client *c, bool has_slot);

/* ---- the end --------------------------------------------------------------------------------- */

static void client_drop_transaction(struct client *c)
{
    c->body = false;
    c->reading = false;
    c->letter = NULL; /* its owner frees it, which ends a read under way */
    c->owner = NULL;
}

/* The one way out: what is still written is sent and the peer's end is waited for, because the slot
 * counts until then. */
static void client_close(struct client *c)
{
    if (c->closing)
        return;
    c->closing = true;
    client_drop_transaction(c);
    (void)event_del(c->timer);
    if (c->stream != NULL)
        stream_shutdown(c->stream, CLIENT_LINGER_MS);
}

/* ---- effects --------------------------------------------------------------------------------- */

static void on_block(void *ctx, const uint8_t *data, size_t len, const struct error *err)
{
    struct client *c = ctx;
    c->reading = false;
    if (err != NULL)
        client_fsm_body_failed(c->fsm, err->kind == ERROR_INVALID ? LOCAL_CONTENT : LOCAL_SPOOL,
                               err->text);
    else if (len == 0)
        client_fsm_body_end(c->fsm);
    else
        client_fsm_body(c->fsm, data, len);
    if (err != NULL || len == 0)
        c->body = false;
    client_drive(c);
}

static void client_pump(struct client *c)
{
    if (!c->body || c->reading || stream_pending(c->stream) > CLIENT_AHEAD_MAX)
        return;
    c->reading = true;
    letter_read(c->letter, on_block, c);
}

static void sasl_report(struct client *c, bool ok, const char *response, size_t len,
                        const struct error *err)
{
    if (ok)
        client_fsm_sasl(c->fsm, response, len);
    else
        client_fsm_sasl_failed(c->fsm, err->text);
}

static void perform_sasl_start(struct client *c, const struct client_effect *e)
{
    struct error err = ERROR_INIT;
    const char *response = NULL;
    size_t len = 0;
    sasl_client_end(c->sasl);
    snprintf(c->mechanism, sizeof c->mechanism, "%s", e->text);
    const struct sasl_identity who = {.host = c->target.host,
                                      .port = c->target.port,
                                      .login = c->target.login,
                                      .secret = c->secret,
                                      .ssf = c->secure ? TLS_STRENGTH : 0};
    c->sasl = sasl_client_begin(&who, e->text, &response, &len, &err);
    sasl_report(c, c->sasl != NULL, response, len, &err);
}

static void perform_sasl_step(struct client *c, const struct client_effect *e)
{
    struct error err = ERROR_INIT;
    const char *response = NULL;
    size_t len = 0;
    bool ok = sasl_client_next(c->sasl, e->data, e->len, &response, &len, &err);
    sasl_report(c, ok, response, len, &err);
}

static void perform_ready(struct client *c)
{
    sasl_client_end(c->sasl);
    c->sasl = NULL;
    secret_free(c->secret);
    c->secret = NULL;
    c->events.on_ready(c->ctx, c);
}

static void perform_result(struct client *c, const struct client_effect *e)
{
    if (e->owner == c->owner)
        client_drop_transaction(c);
    c->events.on_result(c->ctx, c, e->owner, e->stage, e->reply);
}

/* Nothing of them was sent. */
static void give_back_waiting(struct client *c, const char *why)
{
    struct reply reply;
    size_t count = c->waiting_count;
    c->waiting_count = 0;
    reply_local(&reply, LOCAL_LOST, "%s", why);
    for (size_t i = 0; i < count; i++)
        c->events.on_result(c->ctx, c, c->waiting[i].tx.owner, STAGE_IDLE, &reply);
}

/* Begins what may begin. True when that was something. */
static bool begin_waiting(struct client *c)
{
    struct waiting first = c->waiting[0];
    if (c->closing || c->waiting_count == 0 || !client_fsm_may_begin(c->fsm, &first.tx))
        return false;
    c->waiting_count--;
    memmove(c->waiting, c->waiting + 1, c->waiting_count * sizeof c->waiting[0]);
    c->letter = first.letter;
    c->owner = first.tx.owner;
    client_fsm_begin(c->fsm, &first.tx);
    return true;
}

/* "Authentication unsuccessful (status 401, scope ...)" */
static void add_failure(const struct client *c, struct reply *reply)
{
    const char *failure = c->sasl != NULL ? sasl_client_failure(c->sasl) : "";
    size_t len = strlen(reply->text);
    if (failure[0] != '\0')
        snprintf(reply->text + len, sizeof reply->text - len, "%s(the server adds: %s)",
                 len > 0 ? " " : "", failure);
}

static void perform_failed(struct client *c, const struct client_effect *e)
{
    struct reply reply = *e->reply;
    if (e->stage == STAGE_AUTH)
        add_failure(c, &reply);
    give_back_waiting(c, "the connection ended before it was sent");
    c->events.on_failed(c->ctx, c, e->stage, &reply);
    client_close(c);
}

static void client_perform(struct client *c, const struct client_effect *e)
{
    switch (e->kind) {
    case CLIENT_NOTHING:
        break;
    case CLIENT_SEND:
        if (c->stream != NULL && !stream_write(c->stream, e->data, e->len))
            client_fsm_lost(c->fsm, LOCAL_LOST, "out of memory");
        break;
    case CLIENT_START_TLS:
        stream_start_tls_client(c->stream, c->target.tls, c->target.host);
        break;
    case CLIENT_SASL_START:
        perform_sasl_start(c, e);
        break;
    case CLIENT_SASL_STEP:
        perform_sasl_step(c, e);
        break;
    case CLIENT_READY:
        perform_ready(c);
        break;
    case CLIENT_BODY:
        c->body = true;
        break;
    case CLIENT_DOUBT:
        c->events.on_doubt(c->ctx, c, e->owner);
        break;
    case CLIENT_RECIPIENT:
        c->events.on_recipient(c->ctx, c, e->owner, e->index, e->reply);
        break;
    case CLIENT_RESULT:
        perform_result(c, e);
        break;
    case CLIENT_FAILED:
        perform_failed(c, e);
        break;
    }
}

static struct timeval timeval_of(uint64_t ms)
{
    return (struct timeval){.tv_sec = (time_t)(ms / 1000),
                            .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
}

static void start_timer(struct client *c, uint64_t ms)
{
    const struct timeval tv = timeval_of(ms);
    (void)event_add(c->timer, &tv);
}

/* Mail data on its way is watched by the stream alone: its progress is what the peer takes. */
static void watch_replies(struct client *c)
{
    enum client_stage stage = client_fsm_stage(c->fsm);
    uint64_t replies = client_fsm_replies(c->fsm);
    uint64_t ms = stage == STAGE_BODY ? 0 : client_stage_timeout(stage) * CLIENT_REPLY_TIMES;
    if (stage == c->timed_stage && replies == c->replies)
        return;
    c->timed_stage = stage;
    c->replies = replies;
    if (ms == 0)
        (void)event_del(c->timer);
    else
        start_timer(c, ms);
}

/* Performs effects until the machine waits. Calls from within (a callback that submits the next
 * message at once) only leave events, which the outer loop picks up. */
static void client_drive(struct client *c)
{
    struct client_effect e = {.kind = CLIENT_READY};
    if (c->driving)
        return;
    c->driving = true;
    do {
        for (client_fsm_next(c->fsm, &e); e.kind != CLIENT_NOTHING && !c->closing;
             client_fsm_next(c->fsm, &e))
            client_perform(c, &e);
    } while (begin_waiting(c));
    c->driving = false;
    if (c->closing || c->stream == NULL)
        return;
    stream_set_timeout(c->stream, client_stage_timeout(client_fsm_stage(c->fsm)));
    watch_replies(c);
    client_pump(c);
}

/* ---- the stream ------------------------------------------------------------------------------ */

static size_t on_data(void *ctx, const uint8_t *data, size_t len)
{
    struct client *c = ((struct runner *)ctx)->client;
    client_fsm_input(c->fsm, data, len);
    client_drive(c);
    return len;
}

static void on_drained(void *ctx)
{
    struct client *c = ((struct runner *)ctx)->client;
    if (!c->closing)
        client_pump(c);
}

/* Those that have not won. */
static void end_race(struct client *c)
{
    (void)event_del(c->timer);
    for (size_t i = 0; i < CLIENT_RACE_MAX; i++) {
        struct runner *r = &c->runners[i];
        if (r->stream == NULL || r->stream == c->stream)
            continue;
        stream_free(r->stream);
        r->stream = NULL;
        c->events.give_slot(c->ctx, c);
    }
    c->running = 0;
}

static void on_connected(void *ctx)
{
    struct runner *r = ctx;
    struct client *c = r->client;
    c->stream = r->stream;
    c->connected = true;
    end_race(c);
    log_event(LOG_LEVEL_DEBUG, "connected", LOG_ID("connection", c->id),
              LOG_STR("mailbox", c->target.mailbox), LOG_STR("upstream", c->target.host),
              LOG_STR("address", stream_peer_text(c->stream)), LOG_END);
    if (c->target.implicit_tls) {
        stream_start_tls_client(c->stream, c->target.tls, c->target.host);
        return;
    }
    client_fsm_connected(c->fsm);
    client_drive(c);
}

static void on_secure(void *ctx)
{
    struct client *c = ((struct runner *)ctx)->client;
    c->secure = true;
    log_event(LOG_LEVEL_DEBUG, "secure", LOG_ID("connection", c->id),
              LOG_STR("mailbox", c->target.mailbox), LOG_STR("tls", stream_tls_text(c->stream)),
              LOG_END);
    if (c->target.implicit_tls)
        client_fsm_connected(c->fsm);
    else
        client_fsm_secure(c->fsm);
    client_drive(c);
}

static void client_lost(struct client *c, enum local_failure failure, const char *why)
{
    client_fsm_lost(c->fsm, failure, why);
    client_drive(c);
}

static enum local_failure failure_of(enum stream_end end, const struct error *err)
{
    switch (end) {
    case STREAM_END_TLS:
        return err->kind == ERROR_UNTRUSTED ? LOCAL_CERTIFICATE : LOCAL_TLS;
    case STREAM_END_TIMEOUT:
        return LOCAL_TIMEOUT;
    case STREAM_END_REFUSED:
        return LOCAL_CONNECT;
    case STREAM_END_CLOSED:
    case STREAM_END_RESET:
        break;
    }
    return LOCAL_LOST;
}

/* Its slot is the next address's. */
static void runner_failed(struct runner *r, const char *why)
{
    struct client *c = r->client;
    snprintf(c->trouble, sizeof c->trouble, "%s", why);
    stream_free(r->stream);
    r->stream = NULL;
    c->running--;
    race_on(c, true);
}

static void on_end(void *ctx, enum stream_end end, const struct error *err)
{
    struct runner *r = ctx;
    struct client *c = r->client;
    const char *why = err->text;
    if (c->closing) {
        c->events.on_closed(c->ctx, c, end != STREAM_END_TIMEOUT);
        return;
    }
    if (!c->connected) {
        runner_failed(r, why);
        return;
    }
    if (end == STREAM_END_CLOSED) {
        client_fsm_closed(c->fsm, why);
        client_drive(c);
    } else {
        client_lost(c, failure_of(end, err), why);
    }
    /* Else the peer, silent or at odds with us over TLS, is still there, and is waited for. */
    if (end == STREAM_END_CLOSED || end == STREAM_END_RESET)
        c->events.on_closed(c->ctx, c, true);
}

static const struct stream_events client_stream_events = {.on_data = on_data,
                                                          .on_drained = on_drained,
                                                          .on_connected = on_connected,
                                                          .on_secure = on_secure,
                                                          .on_end = on_end};

/* ---- connecting ------------------------------------------------------------------------------ */

static void client_unreachable(struct client *c, enum local_failure failure, const char *why)
{
    client_lost(c, failure, why);
    c->events.on_closed(c->ctx, c, true);
}

/* False when the address cannot even be tried. */
static bool start_runner(struct client *c, const struct net_address *a)
{
    struct error err = ERROR_INIT;
    struct runner *r = c->runners;
    while (r->stream != NULL)
        r++;
    r->client = c;
    r->stream = stream_connect(c->streams, a, c->target.port, &client_stream_events, r, &err);
    if (r->stream == NULL) {
        snprintf(c->trouble, sizeof c->trouble, "%s", err.text);
        return false;
    }
    stream_set_timeout(r->stream, CLIENT_CONNECT_MS);
    c->running++;
    return true;
}

/* Starts the next address, if there is one and, beside others, a slot for it. has_slot: one that
 * has just failed leaves its own. */
static void race_on(struct client *c, bool has_slot)
{
    bool started = false;
    if (c->running == CLIENT_RACE_MAX)
        return;
    while (!started && c->address_next < c->address_count) {
        if (!has_slot && !c->events.take_slot(c->ctx, c))
            return;
        has_slot = true;
        started = start_runner(c, &c->addresses[c->address_next++]);
    }
    if (!started && c->running == 0)
        client_unreachable(c, LOCAL_CONNECT, c->trouble);
    else if (!started && has_slot)
        c->events.give_slot(c->ctx, c);
    else if (c->address_next < c->address_count)
        start_timer(c, CLIENT_STAGGER_MS);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct client *c = ctx;
    (void)fd;
    (void)what;
    if (!c->connected) {
        race_on(c, false);
        return;
    }
    enum client_stage stage = client_fsm_stage(c->fsm);
    char why[ERROR_TEXT_MAX];
    snprintf(why, sizeof why, "no whole reply within %llu s while %s",
             (unsigned long long)(client_stage_timeout(stage) * CLIENT_REPLY_TIMES / 1000),
             client_stage_phrase(stage));
    client_lost(c, LOCAL_TIMEOUT, why);
}

static void on_addresses(void *ctx, const struct net_address *addresses, size_t count,
                         const struct error *err)
{
    struct client *c = ctx;
    c->query = NULL;
    if (count == 0) {
        client_unreachable(c, LOCAL_LOOKUP, err->text);
        return;
    }
    c->address_count = count < ADDRESSES_MAX ? count : ADDRESSES_MAX;
    memcpy(c->addresses, addresses, c->address_count * sizeof *addresses);
    race_on(c, true);
}

struct client *client_new(struct stream_loop *streams, struct dns *dns,
                          const struct client_target *target, uint64_t id,
                          const struct client_events *events, void *ctx)
{
    struct client *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    const struct client_settings settings = {.helo = target->helo,
                                             .implicit_tls = target->implicit_tls,
                                             .needs_auth = target->needs_auth,
                                             .held = target->held,
                                             .no_chunking = target->no_chunking,
                                             .in_flight = target->in_flight,
                                             .mechanisms = target->mechanisms};
    c->events = *events;
    c->ctx = ctx;
    c->target = *target;
    c->streams = streams;
    c->id = id;
    c->fsm = client_fsm_new(&settings);
    c->timer = evtimer_new(stream_loop_base(streams), on_timer, c);
    if (target->secret != NULL)
        c->secret =
            secret_from_text(secret_text(target->secret), secret_length(target->secret), NULL);
    if (c->fsm != NULL && c->timer != NULL && (c->secret != NULL) == (target->secret != NULL))
        c->query = dns_lookup(dns, target->host, on_addresses, c, NULL);
    if (c->query == NULL) {
        client_free(c);
        return NULL;
    }
    return c;
}

void client_release(struct client *c)
{
    client_fsm_release(c->fsm);
    if (c->stream != NULL)
        client_drive(c);
}

void client_submit(struct client *c, const struct client_transaction *tx, struct letter *letter)
{
    assert(c->waiting_count < CLIENT_FLIGHTS_MAX);
    struct waiting *w = &c->waiting[c->waiting_count++];
    *w = (struct waiting){.tx = *tx, .letter = letter};
    if (tx->envelope->body == ENVELOPE_BODY_8BITMIME && !client_fsm_has_8bitmime(c->fsm)) {
        letter_convert(letter);
        w->tx.size = 0;
    }
    client_drive(c);
}

bool client_has_room(const struct client *c)
{
    size_t taken = client_fsm_under_way(c->fsm) + c->waiting_count;
    bool blocked = c->waiting_count > 0 && !client_fsm_gathers(c->fsm);
    return !c->closing && !blocked && taken < c->target.in_flight && client_fsm_has_room(c->fsm);
}

void client_doubted(struct client *c, bool ok)
{
    client_fsm_doubted(c->fsm, ok);
    client_drive(c);
}

void client_quit(struct client *c)
{
    give_back_waiting(c, "the connection was closed before it was sent");
    client_fsm_quit(c->fsm);
    client_drive(c);
}

void client_drop(struct client *c)
{
    client_close(c);
}

void client_free(struct client *c)
{
    if (c == NULL)
        return;
    if (c->query != NULL)
        dns_cancel(c->query);
    sasl_client_end(c->sasl);
    for (size_t i = 0; i < CLIENT_RACE_MAX; i++)
        stream_free(c->runners[i].stream);
    if (c->timer != NULL)
        event_free(c->timer);
    secret_free(c->secret);
    client_fsm_free(c->fsm);
    free(c);
}

bool client_has_connected(const struct client *c)
{
    return c->connected;
}

bool client_is_signing_in(const struct client *c)
{
    return client_fsm_stage(c->fsm) >= STAGE_AUTH;
}

uint64_t client_id(const struct client *c)
{
    return c->id;
}

const char *client_mechanism(const struct client *c)
{
    return c->mechanism;
}

bool client_has_smtputf8(const struct client *c)
{
    return client_fsm_has_smtputf8(c->fsm);
}

bool client_has_dsn(const struct client *c)
{
    return client_fsm_has_dsn(c->fsm);
}

bool client_lacks_bdat(const struct client *c)
{
    return client_fsm_lacks_bdat(c->fsm);
}

uint64_t client_size_limit(const struct client *c)
{
    return client_fsm_size_limit(c->fsm);
}
