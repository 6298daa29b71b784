#include "relay/submit/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/base/log.h"
#include "relay/signin/sasl.h"

#define TLS_STRENGTH  128 /* bits at least, with TLS 1.2's modern suites */
#define ADDRESSES_MAX 16
#define MECHANISM_MAX 32

struct client {
    struct client_events events;
    void *ctx;
    struct client_target target;
    struct stream_loop *streams;
    struct dns_query *query;
    struct net_address addresses[ADDRESSES_MAX];
    size_t address_count;
    size_t address_next;
    struct stream *stream;
    struct client_fsm *fsm;
    struct sasl_client *sasl;
    struct queue_reader *reader;
    uint64_t id;
    char mechanism[MECHANISM_MAX];
    char trouble[ERROR_TEXT_MAX]; /* of the last address tried */
    bool connected;
    bool secure;
    bool body;    /* the machine takes mail data */
    bool reading; /* a block is under way */
    bool driving; /* effects are being performed: do not start again from within */
    bool closing; /* the session is over; the stream lingers */
};

static void client_drive(struct client *c);
static void client_connect_next(struct client *c);

/* ---- the end --------------------------------------------------------------------------------- */

static void client_drop_transaction(struct client *c)
{
    c->body = false;
    c->reading = false;
    c->reader = NULL; /* its owner closes it, which ends a read under way */
}

/* The one way out: what is still written is sent and the peer's end is waited for, because the slot
 * counts until then. */
static void client_close(struct client *c)
{
    if (c->closing)
        return;
    c->closing = true;
    client_drop_transaction(c);
    if (c->stream != NULL)
        stream_shutdown(c->stream, CLIENT_LINGER_MS);
}

/* ---- effects --------------------------------------------------------------------------------- */

static void on_block(void *ctx, const uint8_t *data, size_t len, const struct error *err)
{
    struct client *c = ctx;
    c->reading = false;
    if (err != NULL)
        client_fsm_body_failed(c->fsm, err->text);
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
    queue_read(c->reader, on_block, c);
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
    c->sasl = sasl_client_begin(c->target.host, e->text, c->target.login, c->target.password,
                                c->secure ? TLS_STRENGTH : 0, &response, &len, &err);
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
    c->events.on_ready(c->ctx, c);
}

static void perform_result(struct client *c, const struct client_effect *e)
{
    client_drop_transaction(c);
    c->events.on_result(c->ctx, c, e->stage, e->reply);
}

static void perform_failed(struct client *c, const struct client_effect *e)
{
    c->events.on_failed(c->ctx, c, e->stage, e->reply);
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
        c->events.on_doubt(c->ctx, c);
        break;
    case CLIENT_RECIPIENT:
        c->events.on_recipient(c->ctx, c, e->index, e->reply);
        break;
    case CLIENT_RESULT:
        perform_result(c, e);
        break;
    case CLIENT_FAILED:
        perform_failed(c, e);
        break;
    }
}

/* Performs effects until the machine waits. Calls from within (a callback that submits the next
 * message at once) only leave events, which the outer loop picks up. */
static void client_drive(struct client *c)
{
    struct client_effect e = {.kind = CLIENT_READY};
    if (c->driving)
        return;
    c->driving = true;
    for (client_fsm_next(c->fsm, &e); e.kind != CLIENT_NOTHING && !c->closing;
         client_fsm_next(c->fsm, &e))
        client_perform(c, &e);
    c->driving = false;
    if (c->closing || c->stream == NULL)
        return;
    if (c->connected)
        stream_set_timeout(c->stream, client_stage_timeout(client_fsm_stage(c->fsm)));
    client_pump(c);
}

/* ---- the stream ------------------------------------------------------------------------------ */

static size_t on_data(void *ctx, const uint8_t *data, size_t len)
{
    struct client *c = ctx;
    client_fsm_input(c->fsm, data, len);
    client_drive(c);
    return len;
}

static void on_drained(void *ctx)
{
    struct client *c = ctx;
    if (!c->closing)
        client_pump(c);
}

static void on_connected(void *ctx)
{
    struct client *c = ctx;
    c->connected = true;
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
    struct client *c = ctx;
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

static void on_end(void *ctx, enum stream_end end, const struct error *err)
{
    struct client *c = ctx;
    const char *why = err->text;
    if (c->closing) {
        c->events.on_closed(c->ctx, c, end != STREAM_END_TIMEOUT);
        return;
    }
    if (!c->connected) {
        snprintf(c->trouble, sizeof c->trouble, "%s", why);
        stream_free(c->stream);
        c->stream = NULL;
        client_connect_next(c);
        return;
    }
    client_lost(c, failure_of(end, err), why);
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

static void client_connect_next(struct client *c)
{
    struct error err = ERROR_INIT;
    while (c->address_next < c->address_count) {
        const struct net_address *a = &c->addresses[c->address_next++];
        c->stream = stream_connect(c->streams, a, c->target.port, &client_stream_events, c, &err);
        if (c->stream != NULL) {
            stream_set_timeout(c->stream, CLIENT_CONNECT_MS);
            return;
        }
        snprintf(c->trouble, sizeof c->trouble, "%s", err.text);
    }
    client_unreachable(c, LOCAL_CONNECT, c->trouble);
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
    client_connect_next(c);
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
                                             .mechanisms = SASL_PASSWORD_MECHANISMS};
    c->events = *events;
    c->ctx = ctx;
    c->target = *target;
    c->streams = streams;
    c->id = id;
    c->fsm = client_fsm_new(&settings);
    if (c->fsm != NULL)
        c->query = dns_lookup(dns, target->host, on_addresses, c, NULL);
    if (c->query == NULL) {
        client_free(c);
        return NULL;
    }
    return c;
}

void client_submit(struct client *c, const struct client_transaction *tx,
                   struct queue_reader *reader)
{
    c->reader = reader;
    client_fsm_begin(c->fsm, tx);
    client_drive(c);
}

void client_doubted(struct client *c, bool ok)
{
    client_fsm_doubted(c->fsm, ok);
    client_drive(c);
}

void client_quit(struct client *c)
{
    client_fsm_quit(c->fsm);
    client_drive(c);
}

void client_free(struct client *c)
{
    if (c == NULL)
        return;
    if (c->query != NULL)
        dns_cancel(c->query);
    sasl_client_end(c->sasl);
    stream_free(c->stream);
    client_fsm_free(c->fsm);
    free(c);
}

uint64_t client_id(const struct client *c)
{
    return c->id;
}

const char *client_mechanism(const struct client *c)
{
    return c->mechanism;
}

uint64_t client_size_limit(const struct client *c)
{
    return client_fsm_size_limit(c->fsm);
}
