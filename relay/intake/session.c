#include "relay/intake/session.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

#include "relay/base/stream.h"
#include "relay/intake/session_inside.h"

static size_t session_feed(struct session *s, const uint8_t *data, size_t len);

uint64_t session_now(const struct session *s)
{
    return clock_now_ms(s->set.intake->clock);
}

void session_close(struct session *s, const char *reason)
{
    if (s->closing)
        return;
    s->closing = true;
    session_tell_closing(s, reason);
    queue_abort(s->writer);
    s->writer = NULL;
    session_drop_patience(s);
    session_drop_signin(s);
    stream_shutdown(s->stream, s->linger_ms);
}

static bool session_must_wait(const struct session *s)
{
    return s->full || server_fsm_is_waiting(s->fsm) ||
           stream_pending(s->stream) > SESSION_PENDING_MAX;
}

/* What silence has ended goes on without any input. */
void session_go_on(struct session *s)
{
    if (s->silent && !s->closing && !session_must_wait(s))
        (void)session_feed(s, (const uint8_t *)"", 0);
    if (!s->closing && !session_must_wait(s))
        stream_resume(s->stream);
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
    if (s->silent)
        session_tell_note(s, "silence behind LF . LF: taken for the end of the mail data");
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

void session_say(struct session *s, const struct server_effect *effect)
{
    session_tell_reply(s, effect);
    if (!stream_write(s->stream, effect->text, effect->text_len))
        session_close(s, "out of memory");
}

static void perform_close(struct session *s, const struct server_effect *effect)
{
    if (effect->text_len > 0)
        session_say(s, effect);
    session_close(s, server_fsm_phase(s->fsm));
}

void session_perform(struct session *s, const struct server_effect *effect)
{
    switch (effect->kind) {
    case SERVER_NOTHING:
        break;
    case SERVER_REPLY:
        session_say(s, effect);
        break;
    case SERVER_OPEN:
        session_begin_mail(s);
        break;
    case SERVER_STORE:
        session_store(s, effect);
        break;
    case SERVER_COMMIT:
        session_commit(s);
        break;
    case SERVER_DISCARD:
        session_discard(s);
        break;
    case SERVER_START_TLS:
        session_start_tls(s, effect);
        break;
    case SERVER_AUTH:
        session_sign_in(s, effect);
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
        session_tell_heard(s);
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
    if (s->opening != OPENING_DONE && !session_opened_by(s, data, len))
        return s->closing ? len : 0;
    return session_feed(s, data, len);
}

static void on_drained(void *ctx)
{
    session_go_on(ctx);
}

static void session_over(struct session *s)
{
    s->set.on_end(s->set.ctx, s);
    session_free(s);
}

static void say_timeout(struct session *s)
{
    struct server_effect effect;
    server_fsm_shut(s->fsm, "4.4.2", "Timeout, closing connection", &effect);
    session_perform(s, &effect);
}

static void tell_lost(struct session *s, enum stream_end end, const struct error *err)
{
    bool hung_up = end == STREAM_END_CLOSED || end == STREAM_END_RESET;
    session_tell_incomplete(s);
    if (s->securing)
        session_tls_failed(s, err);
    if (hung_up && (s->messages > 0 || s->commit != NULL))
        session_tell_quirk(s, QUIRK_NO_QUIT);
}

static void on_secure(void *ctx)
{
    session_secured(ctx);
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
    tell_lost(s, end, err);
    if (end == STREAM_END_TIMEOUT)
        say_timeout(s);
    if (end == STREAM_END_TIMEOUT || end == STREAM_END_CLOSED || end == STREAM_END_TLS) {
        session_close(s, err->text);
        return;
    }
    session_tell_closing(s, err->text);
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

uint64_t session_max_size(const struct session *s)
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
        .max_size = session_max_size(s),
        .max_recipients = s->access.max_recipients,
        .recipient_domains = s->access.recipient_domains,
        .tls = tls_of(s->set.listener),
        .auth = s->auth,
        .hide = device != NULL ? device->hide : c->hide,
        .auth_equals = auth_equals == CONFIG_YES,
        .mt_priority = device != NULL && device->mt_priority == CONFIG_YES,
        .importance = device != NULL && device->importance == CONFIG_YES,
        .lf_dot_lf = lf_dot_lf == CONFIG_YES,
        .join_split = s->access.join_split,
        .twice_key = twice_key(s->set.commons->twice),
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
    session_tell_begin(s);
    if (!session_open(s)) {
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
    server_fsm_shut(s->fsm, "4.3.2", "Service is stopping, try again in a minute", &effect);
    session_perform(s, &effect);
}

void session_free(struct session *s)
{
    if (s == NULL)
        return;
    session_leave_commit(s);
    if (s->fsm != NULL && !s->closing)
        session_tell_incomplete(s); /* dropped by a stop that could not wait any longer */
    session_tell_end(s);
    queue_abort(s->writer);
    session_drop_patience(s);
    session_drop_signin(s);
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
    server_fsm_shut(s->fsm, "4.4.2", "Silent for too long while others wait, closing", &effect);
    session_perform(s, &effect);
}

struct session_links *session_links(struct session *s)
{
    return &s->links;
}
