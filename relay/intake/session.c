#include "relay/intake/session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

#include "relay/base/log.h"
#include "relay/intake/server_fsm.h"
#include "relay/intake/signin.h"

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

enum opening {
    OPENING_WAITS,   /* for a TLS hello; then the banner is sent */
    OPENING_TLS,     /* TLS comes first; then the banner is sent */
    OPENING_GREETED, /* the banner was sent, nothing has come */
    OPENING_DONE
};

struct session {
    struct session_settings set;
    struct access access;
    struct stream *stream;
    struct server_fsm *fsm;
    struct queue_writer *writer;
    struct commit *commit;
    struct session_links links;
    struct signin *signin; /* while the device signs in */
    enum config_login auth;
    struct event *silence;  /* after LF . LF */
    bool silent;            /* for long enough */
    struct event *patience; /* of OPENING_WAITS, else NULL */
    const uint8_t *left;    /* during on_data: what has come behind the current effect */
    size_t left_len;
    enum opening opening;
    uint64_t heard_ms; /* when the device last sent something */
    uint64_t linger_ms;
    uint64_t began_ms;      /* of the session */
    uint64_t data_began_ms; /* of the current mail data */
    uint64_t messages;
    bool full;     /* the spool asked to stop */
    bool mute;     /* nothing has come yet */
    bool securing; /* a TLS handshake is under way */
    bool stopping; /* close after the current transaction */
    bool closing;  /* what comes is discarded */
};

static void session_perform(struct session *s, const struct server_effect *first);
static size_t session_feed(struct session *s, const uint8_t *data, size_t len);
static uint64_t max_size_of(const struct session *s);

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

static void drop_patience(struct session *s)
{
    if (s->patience != NULL)
        event_free(s->patience);
    s->patience = NULL;
}

static void drop_signin(struct session *s)
{
    signin_free(s->signin);
    s->signin = NULL;
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
    drop_patience(s);
    drop_signin(s);
    stream_shutdown(s->stream, s->linger_ms);
}

static bool session_must_wait(const struct session *s)
{
    return s->full || server_fsm_is_waiting(s->fsm) ||
           stream_pending(s->stream) > SESSION_PENDING_MAX;
}

/* What silence has ended goes on without any input. */
static void session_go_on(struct session *s)
{
    if (s->silent && !s->closing && !session_must_wait(s))
        (void)session_feed(s, (const uint8_t *)"", 0);
    if (!s->closing && !session_must_wait(s))
        stream_resume(s->stream);
}

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

static void log_refused_open(const struct session *s, const struct error *err)
{
    uint64_t held = 0;
    char more[32] = "";
    if (err->kind == ERROR_BUSY &&
        !quiet_may_tell(&s->set.commons->too_fast, session_now(s), &held))
        return;
    if (held > 0)
        snprintf(more, sizeof more, "%" PRIu64, held);
    log_event(LOG_LEVEL_WARN, "mail-refused", LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name), LOG_STR("reason", err->text),
              LOG_STR("more", more), LOG_END);
}

static void perform_open(struct session *s)
{
    struct error err = ERROR_INIT;
    struct server_effect effect;
    if (may_open(s, &err))
        s->writer = queue_begin(s->set.intake->queue, on_drain, s, &err);
    s->data_began_ms = session_now(s);
    if (s->writer == NULL) {
        s->set.counts->refused++;
        log_refused_open(s, &err);
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
    if (!server_fsm_has_lane(s->fsm))
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

/* ---- TLS ------------------------------------------------------------------------------------- */

static void begin_tls(struct session *s, enum stream_rest rest)
{
    struct error err = ERROR_INIT;
    struct tls_context *tls =
        profiles_context(s->set.commons->profiles, s->set.listener, s->access.legacy_tls, &err);
    if (tls == NULL) {
        session_close(s, err.text);
        return;
    }
    s->securing = true;
    stream_set_timeout(s->stream, SESSION_HANDSHAKE_MS);
    stream_start_tls_server(s->stream, tls, rest);
}

/* Some devices do not wait for the reply. What stands behind STARTTLS in the clear is never run as
 * commands: it is a TLS hello or nothing. */
static void perform_start_tls(struct session *s, const struct server_effect *effect)
{
    bool hello = s->left_len > 0 && hello_of(s->left, s->left_len) == HELLO_TLS;
    if (!stream_write(s->stream, effect->text, effect->text_len))
        session_close(s, "out of memory");
    else
        begin_tls(s, hello ? STREAM_REST_IS_TLS : STREAM_REST_DROPPED);
}

static void greet(struct session *s)
{
    struct server_effect banner;
    drop_patience(s);
    s->opening = OPENING_GREETED;
    server_fsm_start(s->fsm, &banner);
    session_perform(s, &banner);
}

static void on_secure(void *ctx)
{
    struct session *s = ctx;
    s->securing = false;
    stream_set_timeout(s->stream, s->set.intake->config->idle_ms);
    server_fsm_secured(s->fsm, stream_tls_text(s->stream));
    log_event(LOG_LEVEL_DEBUG, "secured", LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name), LOG_STR("tls", stream_tls_text(s->stream)),
              LOG_END);
    if (s->opening == OPENING_TLS)
        greet(s);
    s->opening = OPENING_DONE;
    session_go_on(s);
}

static void log_tls_failed(const struct session *s, const struct error *err)
{
    log_event(LOG_LEVEL_WARN, "tls-failed", LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name), LOG_STR("client", stream_peer_text(s->stream)),
              LOG_STR("listener", s->set.listener->name),
              LOG_STR("offered", stream_tls_offered(s->stream)), LOG_STR("reason", err->text),
              LOG_END);
}

/* ---- the opening ----------------------------------------------------------------------------- */

static void on_patience_end(evutil_socket_t fd, short what, void *ctx)
{
    struct session *s = ctx;
    (void)fd;
    (void)what;
    hello_saw_plain(s->set.commons->hellos, stream_peer(s->stream));
    greet(s);
    session_go_on(s); /* an octet that decided nothing may wait */
}

static bool wait_for_hello(struct session *s, uint64_t ms)
{
    const struct timeval wait = {.tv_usec = (suseconds_t)(ms * 1000)};
    s->opening = OPENING_WAITS;
    s->patience = evtimer_new(s->set.intake->base, on_patience_end, s);
    return s->patience != NULL && event_add(s->patience, &wait) == 0;
}

static bool begin(struct session *s)
{
    uint64_t wait_ms = 0;
    if (s->set.listener->tls == CONFIG_LISTENER_AUTO)
        wait_ms = hello_wait_ms(s->set.commons->hellos, stream_peer(s->stream));
    if (wait_ms > 0)
        return wait_for_hello(s, wait_ms);
    if (s->set.listener->tls == CONFIG_LISTENER_IMPLICIT) {
        s->opening = OPENING_TLS;
        begin_tls(s, STREAM_REST_IS_TLS);
    } else {
        greet(s);
    }
    return true;
}

/* TLS where the banner stands already: the device cannot read it. It may try again without TLS. */
static void refuse_hello(struct session *s)
{
    bool late = s->set.listener->tls == CONFIG_LISTENER_AUTO;
    if (late)
        hello_saw_late(s->set.commons->hellos, stream_peer(s->stream));
    log_event(
        LOG_LEVEL_WARN, "tls-failed", LOG_ID("session", s->set.id),
        LOG_STR("device", s->access.name), LOG_STR("client", stream_peer_text(s->stream)),
        LOG_STR("listener", s->set.listener->name),
        LOG_STR("reason", late ? "its TLS hello came after the greeting; from now on its greeting "
                                 "waits longer, and a listener with tls = implicit always does"
                               : "it begins with TLS; set tls of the [listener] to auto, or the "
                                 "device to STARTTLS or no TLS"),
        LOG_END);
    session_close(s, "TLS hello on a plaintext listener");
}

static void take_hello(struct session *s)
{
    if (s->opening != OPENING_WAITS) {
        refuse_hello(s);
        return;
    }
    drop_patience(s);
    hello_saw_tls(s->set.commons->hellos, stream_peer(s->stream));
    s->opening = OPENING_TLS;
    begin_tls(s, STREAM_REST_IS_TLS);
}

/* Looks at the first octets. True when they are SMTP. */
static bool open_with(struct session *s, const uint8_t *data, size_t len)
{
    enum hello hello = hello_of(data, len);
    if (hello == HELLO_TLS)
        take_hello(s);
    if (hello != HELLO_PLAIN)
        return false;
    if (s->opening == OPENING_WAITS) {
        hello_saw_plain(s->set.commons->hellos, stream_peer(s->stream));
        greet(s);
    }
    s->opening = OPENING_DONE;
    return true;
}

/* ---- signing in ------------------------------------------------------------------------------ */

/* What was said is in no line: it may be the password in the place of the login. */
static void log_signin(const struct session *s, const struct signin_result *result)
{
    static const struct {
        enum log_level level;
        const char *event;
    } kinds[] = {[SERVER_CHECK_VERIFIED] = {LOG_LEVEL_INFO, "login"},
                 [SERVER_CHECK_WRONG] = {LOG_LEVEL_WARN, "login-failed"},
                 [SERVER_CHECK_UNAVAILABLE] = {LOG_LEVEL_ERROR, "login-unchecked"}};
    bool ignored = s->auth == CONFIG_LOGIN_ANY && result->check == SERVER_CHECK_WRONG;
    log_event(ignored ? LOG_LEVEL_DEBUG : kinds[result->check].level,
              ignored ? "login-ignored" : kinds[result->check].event, LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name),
              LOG_STR("as", result->device != NULL ? result->device->name : ""),
              LOG_STR("client", stream_peer_text(s->stream)), LOG_STR("reason", result->reason),
              LOG_U64("wrong", result->wrong), LOG_END);
}

/* A password was right: from here on the session is that device's. */
static struct server_identity become(struct session *s, const struct config_device *device)
{
    access_as(s->set.intake->config, stream_peer(s->stream), device, &s->access);
    return (struct server_identity){.device = s->access.name,
                                    .login = device->login,
                                    .max_size = max_size_of(s),
                                    .max_recipients = s->access.max_recipients,
                                    .recipient_domains = s->access.recipient_domains,
                                    .mt_priority = device->mt_priority == CONFIG_YES};
}

static void end_signin(struct session *s, const struct signin_result *result)
{
    struct server_identity who = {.device = ""};
    struct server_effect effect;
    log_signin(s, result);
    if (result->check == SERVER_CHECK_VERIFIED)
        who = become(s, result->device);
    server_fsm_checked(s->fsm, result->check, &who, &effect);
    drop_signin(s); /* the result too */
    session_perform(s, &effect);
}

static void on_signed_in(void *ctx, const struct signin_result *result)
{
    struct session *s = ctx;
    end_signin(s, result);
    session_go_on(s);
}

static void begin_signin(struct session *s, const char *mechanism)
{
    const struct intake_settings *intake = s->set.intake;
    const struct signin_settings settings = {.logins = intake->logins,
                                             .config = intake->config,
                                             .client = stream_peer(s->stream),
                                             .mechanism = mechanism,
                                             .lenient = s->auth == CONFIG_LOGIN_ANY,
                                             .on_done = on_signed_in,
                                             .ctx = s};
    drop_signin(s);
    s->signin = signin_new(&settings);
}

static void perform_auth(struct session *s, const struct server_effect *effect)
{
    const struct signin_result failed = {.check = SERVER_CHECK_UNAVAILABLE,
                                         .reason = "out of memory"};
    struct server_effect answer;
    const char *question = NULL;
    size_t len = 0;
    if (effect->text != NULL)
        begin_signin(s, effect->text);
    if (s->signin == NULL) {
        end_signin(s, &failed);
        return;
    }
    switch (signin_take(s->signin, effect->data, effect->data_len, &question, &len)) {
    case SIGNIN_ASKS:
        server_fsm_challenge(s->fsm, question, len, &answer);
        session_perform(s, &answer);
        break;
    case SIGNIN_CHECKS:
        break;
    case SIGNIN_DONE:
        end_signin(s, signin_result(s->signin));
        break;
    }
}

/* ---- silence after LF . LF ------------------------------------------------------------------- */

static void watch_silence(struct session *s);

static void on_silence(evutil_socket_t fd, short what, void *ctx)
{
    struct session *s = ctx;
    struct server_effect effect;
    (void)fd;
    (void)what;
    if (s->closing)
        return;
    if (session_must_wait(s)) { /* we did not listen all the time */
        watch_silence(s);
        return;
    }
    server_fsm_silence(s->fsm, SERVER_LF_DOT_LF_MS, clock_wall_ms(s->set.intake->clock), &effect);
    s->silent = effect.kind != SERVER_NOTHING;
    session_perform(s, &effect);
    session_go_on(s);
}

static void watch_silence(struct session *s)
{
    static const struct timeval after = {.tv_sec = SERVER_LF_DOT_LF_MS / 1000};
    if (s->silence != NULL)
        (void)event_del(s->silence);
    if (s->closing || s->silent || !server_fsm_awaits_silence(s->fsm))
        return;
    if (s->silence == NULL)
        s->silence = evtimer_new(s->set.intake->base, on_silence, s);
    if (s->silence != NULL) /* else the device waits until its idle time is over */
        (void)event_add(s->silence, &after);
}

/* ---- effects --------------------------------------------------------------------------------- */

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
    case SERVER_START_TLS:
        perform_start_tls(s, effect);
        break;
    case SERVER_AUTH:
        perform_auth(s, effect);
        break;
    case SERVER_CLOSE:
        perform_close(s, effect);
        break;
    }
}

static size_t session_feed(struct session *s, const uint8_t *data, size_t len)
{
    size_t used = 0;
    struct server_effect effect = {.kind = SERVER_REPLY};
    while (!s->closing && !session_must_wait(s) && effect.kind != SERVER_NOTHING) {
        size_t n = 0;
        server_fsm_step(s->fsm, data + used, len - used, clock_wall_ms(s->set.intake->clock), &n,
                        &effect);
        used += n;
        s->left = data + used;
        s->left_len = len - used;
        session_perform(s, &effect);
    }
    s->left_len = 0;
    watch_silence(s);
    if (s->stopping) /* mail data that was waited for may have ended without a commit */
        session_stop(s);
    if (s->closing)
        return len;
    if (session_must_wait(s))
        stream_pause(s->stream);
    return used;
}

static size_t on_data(void *ctx, const uint8_t *data, size_t len)
{
    struct session *s = ctx;
    s->heard_ms = session_now(s);
    s->mute = false;
    if (s->opening != OPENING_DONE && !open_with(s, data, len))
        return s->closing ? len : 0;
    return session_feed(s, data, len);
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
    if (s->securing)
        log_tls_failed(s, err);
    if (end == STREAM_END_TIMEOUT)
        say_timeout(s);
    if (end == STREAM_END_TIMEOUT || end == STREAM_END_CLOSED || end == STREAM_END_TLS) {
        session_close(s, err->text);
        return;
    }
    session_log_end(s, err->text);
    session_over(s);
}

static const struct stream_events session_events = {
    .on_data = on_data, .on_drained = on_drained, .on_secure = on_secure, .on_end = on_end};

/* Of the host's time zone now; Date and Received fields show it. */
static int utc_offset_minutes(uint64_t wall_ms)
{
    time_t now = (time_t)(wall_ms / 1000);
    struct tm local = {0};
    return localtime_r(&now, &local) != NULL ? (int)(local.tm_gmtoff / 60) : 0;
}

/* What a device may send: its own limit, or what its route's mailboxes take. */
static uint64_t max_size_of(const struct session *s)
{
    const struct intake_settings *intake = s->set.intake;
    uint64_t size = s->access.max_size;
    if (size == 0)
        size = intake->route_max_size(intake->ctx, s->access.route);
    return size == 0 || size > CONFIG_SIZE_CEILING ? CONFIG_SIZE_CEILING : size;
}

static enum server_tls tls_of(const struct config_listener *l)
{
    static const enum server_tls offers[] = {
        [CONFIG_LISTENER_AUTO] = SERVER_TLS_OFFERED,
        [CONFIG_LISTENER_NONE] = SERVER_TLS_NONE,
        [CONFIG_LISTENER_STARTTLS] = SERVER_TLS_OFFERED,
        [CONFIG_LISTENER_REQUIRED] = SERVER_TLS_REQUIRED,
        [CONFIG_LISTENER_IMPLICIT] = SERVER_TLS_REQUIRED,
    };
    return offers[l->tls];
}

static struct server_fsm *fsm_for(const struct session *s)
{
    char literal[NET_TEXT_MAX];
    const struct config *c = s->set.intake->config;
    const struct config_device *device = s->access.device;
    enum config_switch auth_equals = device != NULL ? device->auth_equals : c->auth_equals;
    enum config_switch lf_dot_lf = device != NULL ? device->lf_dot_lf : c->lf_dot_lf;
    net_literal(stream_peer(s->stream), literal);
    struct server_settings settings = {
        .hostname = c->hostname,
        .client = stream_peer_text(s->stream),
        .client_literal = literal,
        .device = s->access.name,
        .listener = s->set.listener->name,
        .max_size = max_size_of(s),
        .max_recipients = s->access.max_recipients,
        .recipient_domains = s->access.recipient_domains,
        .tls = tls_of(s->set.listener),
        .auth = s->auth,
        .hide = device != NULL ? device->hide : c->hide,
        .auth_equals = auth_equals == CONFIG_YES,
        .mt_priority = device != NULL && device->mt_priority == CONFIG_YES,
        .lf_dot_lf = lf_dot_lf == CONFIG_YES,
        .charset = c->charset,
        .utc_offset_minutes = utc_offset_minutes(clock_wall_ms(s->set.intake->clock))};
    return server_fsm_new(&settings);
}

struct session *session_new(int fd, const struct session_settings *settings)
{
    struct session *s = calloc(1, sizeof *s);
    if (s == NULL) {
        (void)close(fd);
        limits_leave(settings->commons->limits, settings->use,
                     clock_now_ms(settings->intake->clock));
        return NULL;
    }
    s->set = *settings;
    s->linger_ms = SESSION_LINGER_MS;
    s->mute = true;
    s->access = *settings->access;
    s->auth = s->access.device != NULL && s->access.device->has_auth ? s->access.device->auth
                                                                     : settings->listener->auth;
    s->began_ms = clock_now_ms(settings->intake->clock);
    s->heard_ms = s->began_ms;
    s->stream = stream_accepted(settings->intake->streams, fd, &session_events, s);
    s->fsm = s->stream != NULL ? fsm_for(s) : NULL;
    if (s->fsm == NULL) {
        session_free(s);
        return NULL;
    }
    stream_set_timeout(s->stream, settings->intake->config->idle_ms);
    if (!begin(s)) {
        session_free(s);
        return NULL;
    }
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
    drop_patience(s);
    drop_signin(s);
    if (s->silence != NULL)
        event_free(s->silence);
    server_fsm_free(s->fsm);
    stream_free(s->stream);
    limits_leave(s->set.commons->limits, s->set.use, session_now(s));
    free(s);
}

uint64_t session_silence_ms(const struct session *s)
{
    bool busy = s->closing || s->commit != NULL || !server_fsm_is_idle(s->fsm) ||
                (server_fsm_is_waiting(s->fsm) && !s->securing);
    return busy ? 0 : session_now(s) - s->heard_ms;
}

bool session_is_mute(const struct session *s)
{
    return s->mute;
}

const struct net_address *session_peer(const struct session *s)
{
    return stream_peer(s->stream);
}

void session_evict(struct session *s)
{
    struct server_effect effect;
    s->linger_ms = SESSION_EVICT_MS;
    server_fsm_shut(s->fsm, "Silent for too long while others wait, closing", &effect);
    session_perform(s, &effect);
}

struct session_links *session_links(struct session *s)
{
    return &s->links;
}
