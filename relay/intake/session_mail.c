#include "relay/intake/session_inside.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "relay/base/log.h"
#include "relay/base/stream.h"
#include "relay/intake/join.h"
#include "relay/intake/routing.h"

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
    struct twice *twice;
    quirks seen; /* in the session so far, and in this message */
    bool waits;  /* for the other parts of its mail, at join */
    char device[sizeof((struct access *)0)->name];
    char reverse_path[ENVELOPE_PATH_MAX + 1];
    char forward_path[ENVELOPE_PATH_MAX + 1]; /* the first one */
    char message_id[ENVELOPE_PATH_MAX + 1];
};

static void on_drain(void *ctx)
{
    struct session *s = ctx;
    s->full = false;
    session_go_on(s);
}

/* False when the device has had its messages of this minute. */
static bool may_open(const struct session *s, struct error *err)
{
    if (limits_take_message(s->set.use, s->access.max_messages_per_minute, session_now(s)))
        return true;
    return error_set(err, ERROR_BUSY,
                     "more than %u messages in a minute from %s; max_messages_per_minute of its "
                     "[device] or of [devices] sets the limit",
                     s->access.max_messages_per_minute, stream_peer_text(s->stream));
}

/* As against a disk that fails. */
static bool is_no_room(const struct error *err)
{
    return err->kind == ERROR_SHARE || (err->kind == ERROR_NO_ROOM && err->errnum == 0);
}

static void log_refused_open(struct session *s, const struct error *err)
{
    uint64_t held = 0;
    char more[32] = "";
    if (err->kind == ERROR_BUSY &&
        !quiet_may_tell(&s->set.commons->too_fast, session_now(s), &held))
        return;
    if (is_no_room(err) && !quiet_may_tell_once(&s->set.commons->no_room, session_now(s), &held))
        return;
    if (held > 0)
        snprintf(more, sizeof more, "%" PRIu64, held);
    log_event(LOG_LEVEL_WARN, "mail-refused", LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name), LOG_STR("reason", err->text),
              LOG_STR("more", more), LOG_END);
}

/* For "outtray status", until the device gets its mail in. */
static void note_no_room(const struct session *s, const struct error *err)
{
    const struct intake_settings *intake = s->set.intake;
    if (is_no_room(err))
        registry_no_room(intake->registry, s->access.name, err->text, clock_wall_ms(intake->clock));
}

static enum lane session_lane(const struct session *s)
{
    if (server_fsm_has_lane(s->fsm))
        return server_fsm_envelope(s->fsm)->lane;
    return s->access.has_lane ? s->access.lane : s->set.listener->lane;
}

/* It counts for the device from its first octet on. */
static struct queue_writer *open_writer(struct session *s, struct error *err)
{
    struct queue_writer *w = queue_begin(s->set.intake->queue, session_lane(s), on_drain, s, err);
    if (w == NULL || queue_writer_share(w, s->access.name, s->access.max_spool,
                                        server_fsm_announced(s->fsm), err))
        return w;
    queue_abort(w);
    return NULL;
}

static void tell_coming(const struct session *s)
{
    const struct intake_settings *intake = s->set.intake;
    const struct envelope *e = server_fsm_envelope(s->fsm);
    intake->on_coming(intake->ctx, routing_of(intake->config, s->access.device, e));
}

void session_begin_mail(struct session *s)
{
    struct error err = ERROR_INIT;
    struct server_effect effect;
    if (may_open(s, &err))
        s->writer = open_writer(s, &err);
    s->data_began_ms = session_now(s);
    s->had_mail = true;
    if (s->writer == NULL) {
        s->set.counts->refused++;
        log_refused_open(s, &err);
        note_no_room(s, &err);
    } else {
        tell_coming(s);
    }
    server_fsm_opened(s->fsm, s->writer != NULL ? queue_writer_id(s->writer) : 0,
                      s->writer != NULL ? NULL : &err, &effect);
    session_perform(s, &effect);
    if (s->writer == NULL)
        session_tell_trouble(s, err.text, false); /* says more than the reply, which has counted */
}

void session_store(struct session *s, const struct server_effect *effect)
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
    if (is_no_room(&err))
        log_refused_open(s, &err);
    else
        log_event(LOG_LEVEL_ERROR, "spool-failed", LOG_ID("session", s->set.id),
                  LOG_STR("device", s->access.name), LOG_STR("reason", err.text), LOG_END);
    note_no_room(s, &err);
    session_tell_trouble(s, err.text, false);
    session_discard(s);
    server_fsm_store_failed(s->fsm, &err);
}

void session_discard(struct session *s)
{
    s->set.counts->refused++;
    queue_abort(s->writer);
    s->writer = NULL;
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

static void commit_count(const struct commit *c, const struct error *err)
{
    if (err == NULL) {
        c->counts->accepted++;
        c->intake->on_queued(c->intake->ctx);
    } else {
        c->counts->refused++;
    }
    (*c->commits)--;
}

/* After the reply. That a message was refused has been counted with it, if anybody heard it. */
static void commit_tell(const struct commit *c, const struct error *err, bool heard)
{
    struct registry *registry = c->intake->registry;
    uint64_t wall_ms = clock_wall_ms(c->intake->clock);
    if (err == NULL)
        registry_message(registry, c->device, c->size, c->seen, wall_ms);
    else
        registry_trouble(registry, c->device, err->text, !heard, wall_ms);
}

static void reply_committed(struct session *s, uint64_t id, const struct error *err)
{
    struct server_effect effect;
    s->commit = NULL;
    s->messages += err == NULL;
    s->troubled |= err != NULL;
    server_fsm_committed(s->fsm, id, err, &effect);
    if (!s->closing)
        session_perform(s, &effect);
}

/* The only place that lets a 250 after the final dot go out. */
static void on_committed(void *ctx, uint64_t id, const struct error *err)
{
    struct commit *c = ctx;
    struct session *s = c->session;
    bool heard = s != NULL && !s->closing;
    commit_log(c, id, err, clock_now_ms(c->intake->clock));
    twice_committed(c->twice, id, err == NULL);
    if (c->waits)
        join_stored(c->intake->join, id, err == NULL);
    commit_count(c, err);
    if (s != NULL)
        reply_committed(s, id, err);
    commit_tell(c, err, heard);
    if (s != NULL) {
        if (s->stopping)
            session_stop(s);
        session_go_on(s);
    }
    c->on_commit_end(c->ctx);
    free(c);
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
                         .twice = s->set.commons->twice,
                         .session_id = s->set.id,
                         .began_ms = s->data_began_ms,
                         .size = queue_writer_size(s->writer),
                         .recipients = e->recipient_count,
                         .seen = session_quirks(s) | quirks_of_names(e->repairs)};
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
    session_discard(s);
    server_fsm_committed(s->fsm, 0, &err, &effect);
    session_perform(s, &effect);
}

static void tell_repairs(struct session *s, const struct envelope *e)
{
    char text[TRANSCRIPT_LINE_MAX];
    s->seen |= quirks_of_names(e->repairs);
    if (e->repairs[0] == '\0' || s->transcript == NULL)
        return;
    snprintf(text, sizeof text, "put right: %s", e->repairs);
    session_tell_note(s, text);
}

static bool note_twice(struct envelope *e)
{
    char text[QUIRKS_TEXT_MAX];
    snprintf(text, sizeof text, "%s%ssent_twice", e->repairs, e->repairs[0] != '\0' ? "," : "");
    return envelope_set(&e->repairs, text);
}

/* The device hears what it missed: its first copy is safe. */
static void answer_twice(struct session *s, uint64_t first)
{
    struct server_effect effect;
    queue_abort(s->writer);
    s->writer = NULL;
    s->messages++;
    s->seen |= quirks_of_names("sent_twice");
    server_fsm_committed(s->fsm, first, NULL, &effect);
    session_perform(s, &effect);
}

static bool may_once(const struct session *s)
{
    const struct config_device *d = s->access.device;
    enum config_twice how = d != NULL ? d->sent_twice : s->set.intake->config->sent_twice;
    return how == CONFIG_TWICE_ONCE;
}

static void log_twice(const struct session *s, const struct twice_copy *first, bool once)
{
    char id[QUEUE_ID_TEXT];
    queue_id_text(first->id, id);
    log_event(LOG_LEVEL_WARN, "sent-twice", LOG_ID("queue", queue_writer_id(s->writer)),
              LOG_ID("session", s->set.id), LOG_STR("device", s->access.name), LOG_STR("first", id),
              LOG_MS("after", first->age_ms),
              LOG_STR("effect", once ? "accepted, and not sent again" : "marked, and sent"),
              LOG_END);
}

/* Looks for an earlier copy and remembers this one. True when that is all that is to be done with
 * it: only a copy that is durable may stand in for it. */
static bool is_settled_by_copy(struct session *s, struct envelope *e)
{
    struct twice *t = s->set.commons->twice;
    uint8_t digest[TWICE_DIGEST];
    struct twice_copy first;
    uint8_t content[TWICE_DIGEST];
    if (!server_fsm_content(s->fsm, content))
        return false;
    twice_digest(twice_key(t), e, content, digest);
    if (twice_find(t, digest, session_now(s), &first)) {
        bool once = may_once(s) && first.durable;
        log_twice(s, &first, once);
        if (once) {
            answer_twice(s, first.id);
            return true;
        }
        (void)note_twice(e); /* without memory it is not marked */
    }
    twice_note(t, digest, queue_writer_id(s->writer), session_now(s));
    return false;
}

void session_commit(struct session *s)
{
    const struct intake_settings *intake = s->set.intake;
    struct envelope *e = server_fsm_envelope(s->fsm);
    struct commit *c = NULL;
    if (is_settled_by_copy(s, e))
        return;
    e->lane = session_lane(s);
    if (envelope_set(&e->route, routing_of(s->set.intake->config, s->access.device, e)))
        c = commit_new(s, e);
    if (c == NULL) {
        twice_committed(s->set.commons->twice, queue_writer_id(s->writer), false);
        refuse_commit(s);
        return;
    }
    s->commit = c;
    (*s->set.commits)++;
    tell_repairs(s, e);
    struct queue_writer *w = s->writer;
    s->writer = NULL;
    c->waits = join_admit(intake->join, queue_writer_id(w), e);
    queue_commit(w, e, clock_now_ms(intake->clock), clock_wall_ms(intake->clock), on_committed, c);
}

void session_leave_commit(struct session *s)
{
    if (s->commit != NULL)
        s->commit->session = NULL;
    s->commit = NULL;
}
