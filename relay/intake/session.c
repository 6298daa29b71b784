#include "relay/intake/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "relay/base/log.h"
#include "relay/intake/server_fsm.h"

/* A commit under way. Outlives its session. */
struct commit {
    struct session *session; /* NULL once the session is gone */
    const struct intake_settings *intake;
    struct intake_counts *counts;
    uint64_t *commits;
    void (*on_commit_end)(void *ctx);
    void *ctx;
    uint64_t session_id;
    uint64_t began_ms;
    uint64_t size;
    size_t recipients;
    char device[sizeof((struct access *)0)->name];
    char reverse_path[ENVELOPE_PATH_MAX + 1];
    char forward_path[ENVELOPE_PATH_MAX + 1]; /* the first one */
    char message_id[ENVELOPE_PATH_MAX + 1];
};

struct session {
    struct session_settings set;
    struct access access;
    struct stream *stream;
    struct server_fsm *fsm;
    struct queue_writer *writer;
    struct commit *commit;
    struct session *next;
    uint64_t began_ms;      /* of the session */
    uint64_t data_began_ms; /* of the current mail data */
    uint64_t messages;
    bool full;     /* the spool asked to stop */
    bool stopping; /* close after the current transaction */
    bool closing;  /* what comes is discarded */
};

static void session_perform(struct session *s, const struct server_effect *first);

static uint64_t session_now(const struct session *s)
{
    return clock_now_ms(s->set.intake->clock);
}

static void session_log_end(const struct session *s, const char *reason)
{
    log_event(LOG_LEVEL_INFO, "session-end", LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name), LOG_U64("messages", s->messages),
              LOG_MS("age", session_now(s) - s->began_ms), LOG_STR("reason", reason), LOG_END);
}

/* The one way out while the peer is still there: what is written is sent, then the stream ends. */
static void session_close(struct session *s, const char *reason)
{
    if (s->closing)
        return;
    s->closing = true;
    session_log_end(s, reason);
    queue_abort(s->writer);
    s->writer = NULL;
    stream_shutdown(s->stream, SESSION_LINGER_MS);
}

static bool session_must_wait(const struct session *s)
{
    return s->full || server_fsm_is_waiting(s->fsm) ||
           stream_pending(s->stream) > SESSION_PENDING_MAX;
}

static void session_go_on(struct session *s)
{
    if (!s->closing && !session_must_wait(s))
        stream_resume(s->stream);
}

static void on_drain(void *ctx)
{
    struct session *s = ctx;
    s->full = false;
    session_go_on(s);
}

static void perform_open(struct session *s)
{
    struct error err = ERROR_INIT;
    struct server_effect effect;
    s->writer = queue_begin(s->set.intake->queue, on_drain, s, &err);
    s->data_began_ms = session_now(s);
    if (s->writer == NULL) {
        s->set.counts->refused++;
        log_event(LOG_LEVEL_WARN, "spool-refused", LOG_ID("session", s->set.id),
                  LOG_STR("device", s->access.name), LOG_STR("reason", err.text), LOG_END);
    }
    server_fsm_opened(s->fsm, s->writer != NULL ? queue_writer_id(s->writer) : 0,
                      s->writer != NULL ? NULL : &err, &effect);
    session_perform(s, &effect);
}

static void perform_store(struct session *s, const struct server_effect *effect)
{
    struct error err = ERROR_INIT;
    switch (queue_append(s->writer, effect->data, effect->data_len, &err)) {
    case QUEUE_FLOW_OK:
        return;
    case QUEUE_FLOW_FULL:
        s->full = true;
        return;
    case QUEUE_FLOW_ERROR:
        break;
    }
    log_event(LOG_LEVEL_ERROR, "spool-failed", LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name), LOG_STR("reason", err.text), LOG_END);
    s->set.counts->refused++;
    queue_abort(s->writer);
    s->writer = NULL;
    server_fsm_store_failed(s->fsm, &err);
}

static void commit_log(const struct commit *c, uint64_t id, const struct error *err,
                       uint64_t now_ms)
{
    if (err != NULL) {
        log_event(LOG_LEVEL_ERROR, "commit-failed", LOG_ID("queue", id),
                  LOG_ID("session", c->session_id), LOG_STR("device", c->device),
                  LOG_STR("reason", err->text), LOG_END);
        return;
    }
    log_event(LOG_LEVEL_INFO, "accepted", LOG_ID("queue", id), LOG_ID("session", c->session_id),
              LOG_STR("device", c->device), LOG_PATH("from", c->reverse_path),
              LOG_PATH("to", c->forward_path), LOG_U64("recipients", c->recipients),
              LOG_U64("size", c->size), LOG_STR("message_id", c->message_id),
              LOG_MS("delay", now_ms - c->began_ms), LOG_END);
}

/* The only place that lets a 250 after the final dot go out. */
static void on_committed(void *ctx, uint64_t id, const struct error *err)
{
    struct commit *c = ctx;
    struct session *s = c->session;
    const struct intake_settings *intake = c->intake;
    commit_log(c, id, err, clock_now_ms(intake->clock));
    if (err == NULL) {
        c->counts->accepted++;
        intake->on_queued(intake->ctx);
    } else {
        c->counts->refused++;
    }
    (*c->commits)--;
    void (*on_commit_end)(void *) = c->on_commit_end;
    void *owner = c->ctx;
    free(c);
    if (s != NULL) {
        struct server_effect effect;
        s->commit = NULL;
        s->messages += err == NULL;
        server_fsm_committed(s->fsm, id, err, &effect);
        if (!s->closing)
            session_perform(s, &effect);
        if (s->stopping)
            session_stop(s);
        session_go_on(s);
    }
    on_commit_end(owner);
}

static struct commit *commit_new(struct session *s, const struct envelope *e)
{
    struct commit *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    *c = (struct commit){.session = s,
                         .intake = s->set.intake,
                         .counts = s->set.counts,
                         .commits = s->set.commits,
                         .on_commit_end = s->set.on_commit_end,
                         .ctx = s->set.ctx,
                         .session_id = s->set.id,
                         .began_ms = s->data_began_ms,
                         .size = queue_writer_size(s->writer),
                         .recipients = e->recipient_count};
    snprintf(c->device, sizeof c->device, "%s", s->access.name);
    snprintf(c->reverse_path, sizeof c->reverse_path, "%s", e->reverse_path);
    snprintf(c->forward_path, sizeof c->forward_path, "%s", e->recipients[0].forward_path);
    snprintf(c->message_id, sizeof c->message_id, "%s", e->message_id);
    return c;
}

static void refuse_commit(struct session *s)
{
    struct error err = ERROR_INIT;
    struct server_effect effect;
    error_set(&err, ERROR_NO_ROOM, "out of memory");
    queue_abort(s->writer);
    s->writer = NULL;
    server_fsm_committed(s->fsm, 0, &err, &effect);
    session_perform(s, &effect);
}

static void perform_commit(struct session *s)
{
    const struct intake_settings *intake = s->set.intake;
    struct envelope *e = server_fsm_envelope(s->fsm);
    struct commit *c = NULL;
    e->lane = s->access.lane;
    if (envelope_set(&e->route, s->access.route))
        c = commit_new(s, e);
    if (c == NULL) {
        refuse_commit(s);
        return;
    }
    s->commit = c;
    (*s->set.commits)++;
    struct queue_writer *w = s->writer;
    s->writer = NULL;
    queue_commit(w, e, clock_now_ms(intake->clock), clock_wall_ms(intake->clock), on_committed, c);
}

/* Whoever looks for a scan that did not come must find why: the device's panel is far away. The
 * text is ours; nothing that the device sent is in it but what the machine made printable. */
static void log_refusal(const struct session *s, const struct server_effect *effect)
{
    char reply[160];
    const struct envelope *e = server_fsm_envelope(s->fsm);
    if (effect->text_len == 0 || (effect->text[0] != '4' && effect->text[0] != '5'))
        return;
    size_t len = strcspn(effect->text, "\r\n");
    snprintf(reply, sizeof reply, "%.*s", (int)(len < sizeof reply ? len : sizeof reply - 1),
             effect->text);
    log_event(LOG_LEVEL_WARN, "refused", LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name), LOG_PATH("from", e->reverse_path),
              LOG_STR("reply", reply), LOG_END);
}

static void perform_close(struct session *s, const struct server_effect *effect)
{
    log_refusal(s, effect);
    if (effect->text_len > 0)
        (void)stream_write(s->stream, effect->text, effect->text_len); /* it ends anyway */
    session_close(s, server_fsm_phase(s->fsm));
}

static void session_perform(struct session *s, const struct server_effect *effect)
{
    switch (effect->kind) {
    case SERVER_NOTHING:
        break;
    case SERVER_REPLY:
        log_refusal(s, effect);
        if (!stream_write(s->stream, effect->text, effect->text_len))
            session_close(s, "out of memory");
        break;
    case SERVER_OPEN:
        perform_open(s);
        break;
    case SERVER_STORE:
        perform_store(s, effect);
        break;
    case SERVER_COMMIT:
        perform_commit(s);
        break;
    case SERVER_DISCARD:
        s->set.counts->refused++;
        queue_abort(s->writer);
        s->writer = NULL;
        break;
    case SERVER_CLOSE:
        perform_close(s, effect);
        break;
    }
}

static size_t on_data(void *ctx, const uint8_t *data, size_t len)
{
    struct session *s = ctx;
    size_t used = 0;
    struct server_effect effect = {.kind = SERVER_REPLY};
    while (!s->closing && !session_must_wait(s) && effect.kind != SERVER_NOTHING) {
        size_t n = 0;
        server_fsm_step(s->fsm, data + used, len - used, clock_wall_ms(s->set.intake->clock), &n,
                        &effect);
        used += n;
        session_perform(s, &effect);
    }
    if (s->stopping) /* mail data that was waited for may have ended without a commit */
        session_stop(s);
    if (s->closing)
        return len;
    if (session_must_wait(s))
        stream_pause(s->stream);
    return used;
}

static void on_drained(void *ctx)
{
    session_go_on(ctx);
}

static void log_incomplete(const struct session *s)
{
    if (s->writer == NULL)
        return;
    log_event(LOG_LEVEL_WARN, "incomplete", LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name), LOG_U64("size", queue_writer_size(s->writer)),
              LOG_STR("reason",
                      "the connection ended before the end of the mail data; nothing of it "
                      "was kept"),
              LOG_END);
}

static void session_over(struct session *s)
{
    s->set.on_end(s->set.ctx, s);
    session_free(s);
}

static void say_timeout(struct session *s)
{
    struct server_effect effect;
    server_fsm_shut(s->fsm, "Timeout, closing connection", &effect);
    session_perform(s, &effect);
}

/* A device that closed its half, or fell silent, can still hear us: what is written reaches it,
 * then on_end comes again. */
static void on_end(void *ctx, enum stream_end end, const struct error *err)
{
    struct session *s = ctx;
    if (s->closing) {
        session_over(s);
        return;
    }
    log_incomplete(s);
    if (end == STREAM_END_TIMEOUT)
        say_timeout(s);
    if (end == STREAM_END_TIMEOUT || end == STREAM_END_CLOSED) {
        session_close(s, err->text);
        return;
    }
    session_log_end(s, err->text);
    session_over(s);
}

static const struct stream_events session_events = {
    .on_data = on_data, .on_drained = on_drained, .on_end = on_end};

/* Of the host's time zone now; Date and Received fields show it. */
static int utc_offset_minutes(uint64_t wall_ms)
{
    time_t now = (time_t)(wall_ms / 1000);
    struct tm local = {0};
    return localtime_r(&now, &local) != NULL ? (int)(local.tm_gmtoff / 60) : 0;
}

static struct server_fsm *fsm_for(const struct session *s)
{
    char literal[NET_TEXT_MAX];
    const struct config *c = s->set.intake->config;
    net_literal(stream_peer(s->stream), literal);
    struct server_settings settings = {.hostname = c->hostname,
                                       .client = stream_peer_text(s->stream),
                                       .client_literal = literal,
                                       .device = s->access.name,
                                       .listener = s->set.listener,
                                       .max_size = s->set.max_size,
                                       .max_recipients = c->max_recipients,
                                       .utc_offset_minutes =
                                           utc_offset_minutes(clock_wall_ms(s->set.intake->clock))};
    return server_fsm_new(&settings);
}

struct session *session_new(int fd, const struct session_settings *settings)
{
    struct session *s = calloc(1, sizeof *s);
    struct server_effect banner;
    if (s == NULL) {
        (void)close(fd);
        return NULL;
    }
    s->set = *settings;
    s->access = *settings->access;
    s->began_ms = clock_now_ms(settings->intake->clock);
    s->stream = stream_accepted(settings->intake->streams, fd, &session_events, s);
    s->fsm = s->stream != NULL ? fsm_for(s) : NULL;
    if (s->fsm == NULL) {
        session_free(s);
        return NULL;
    }
    stream_set_timeout(s->stream, settings->intake->config->idle_ms);
    server_fsm_start(s->fsm, &banner);
    session_perform(s, &banner);
    return s;
}

void session_stop(struct session *s)
{
    struct server_effect effect;
    s->stopping = true;
    if (s->closing || s->commit != NULL || server_fsm_in_mail_data(s->fsm))
        return;
    server_fsm_shut(s->fsm, "Service is stopping, try again in a minute", &effect);
    session_perform(s, &effect);
}

void session_free(struct session *s)
{
    if (s == NULL)
        return;
    if (s->commit != NULL)
        s->commit->session = NULL;
    if (s->fsm != NULL && !s->closing)
        log_incomplete(s); /* dropped by a stop that could not wait any longer */
    queue_abort(s->writer);
    server_fsm_free(s->fsm);
    stream_free(s->stream);
    free(s);
}

struct session *session_next(const struct session *s)
{
    return s->next;
}

void session_set_next(struct session *s, struct session *next)
{
    s->next = next;
}

const char *session_device(const struct session *s)
{
    return s->access.name;
}
