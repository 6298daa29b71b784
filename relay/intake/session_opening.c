#include "relay/intake/session_inside.h"

#include <stdio.h>
#include <string.h>

#include <event2/event.h>

#include "relay/base/log.h"
#include "relay/base/stream.h"

void session_drop_patience(struct session *s)
{
    if (s->patience != NULL)
        event_free(s->patience);
    s->patience = NULL;
}

static void begin_tls(struct session *s, enum stream_rest rest)
{
    struct error err = ERROR_INIT;
    struct tls_context *tls =
        profiles_context(s->set.commons->profiles, s->set.listener, s->access.legacy_tls, &err);
    if (tls == NULL) {
        session_tell_trouble(s, err.text, false);
        session_close(s, err.text);
        return;
    }
    s->securing = true;
    stream_set_timeout(s->stream, SESSION_HANDSHAKE_MS);
    stream_start_tls_server(s->stream, tls, rest);
}

/* Some devices do not wait for the reply. What stands behind STARTTLS in the clear is never run as
 * commands: it is a TLS hello or nothing. */
void session_start_tls(struct session *s, const struct server_effect *effect)
{
    bool hello = s->left_len > 0 && hello_of(s->left, s->left_len) == HELLO_TLS;
    session_say(s, effect);
    if (!s->closing)
        begin_tls(s, hello ? STREAM_REST_IS_TLS : STREAM_REST_DROPPED);
}

static void greet(struct session *s)
{
    struct server_effect banner;
    session_drop_patience(s);
    s->opening = OPENING_GREETED;
    server_fsm_start(s->fsm, &banner);
    session_perform(s, &banner);
}

/* Old versions are worth knowing: they go with the next certificate or OpenSSL. */
static void tell_old_version(struct session *s, const char *version)
{
    static const struct {
        const char *begins;
        enum quirk quirk;
    } old[] = {{"TLSv1 ", QUIRK_TLS_1_0},
               {"TLSv1.0 ", QUIRK_TLS_1_0},
               {"TLS 1.0", QUIRK_TLS_1_0},
               {"TLSv1.1 ", QUIRK_TLS_1_1},
               {"TLS 1.1", QUIRK_TLS_1_1}};
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++) {
        if (strncmp(version, old[i].begins, strlen(old[i].begins)) == 0)
            session_tell_quirk(s, old[i].quirk);
    }
}

void session_secured(struct session *s)
{
    s->securing = false;
    stream_set_timeout(s->stream, s->set.intake->config->idle_ms);
    snprintf(s->tls, sizeof s->tls, "%s", stream_tls_text(s->stream));
    server_fsm_secured(s->fsm, s->tls);
    log_event(LOG_LEVEL_DEBUG, "secured", LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name), LOG_STR("tls", s->tls), LOG_END);
    tell_old_version(s, s->tls);
    session_tell_note(s, s->tls);
    if (s->opening == OPENING_TLS)
        greet(s);
    s->opening = OPENING_DONE;
    session_go_on(s);
}

static void tell_tls_failed(struct session *s, const char *offered, const char *reason)
{
    char text[REGISTRY_ERROR_MAX];
    log_event(LOG_LEVEL_WARN, "tls-failed", LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name), LOG_STR("client", stream_peer_text(s->stream)),
              LOG_STR("listener", s->set.listener->name), LOG_STR("offered", offered),
              LOG_STR("reason", reason), LOG_END);
    snprintf(text, sizeof text, "TLS failed%s%s: %s", offered[0] != '\0' ? ", offered " : "",
             offered, reason);
    session_tell_quirk(s, QUIRK_TLS_FAILED);
    session_tell_trouble(s, text, false);
    session_tell_note(s, text);
}

void session_tls_failed(struct session *s, const struct error *err)
{
    const char *offered = stream_tls_offered(s->stream);
    tell_old_version(s, offered);
    tell_tls_failed(s, offered, err->text);
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

bool session_open(struct session *s)
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
    session_tell_quirk(s, late ? QUIRK_TLS_LATE : QUIRK_TLS_FIRST);
    tell_tls_failed(s, "",
                    late ? "its TLS hello came after the greeting; from now on its greeting waits "
                           "longer, and a listener with tls = implicit always does"
                         : "it begins with TLS; set tls of the [listener] to auto, or the device "
                           "to STARTTLS or no TLS");
    session_close(s, "TLS hello on a plaintext listener");
}

static void take_hello(struct session *s)
{
    if (s->opening != OPENING_WAITS) {
        refuse_hello(s);
        return;
    }
    session_drop_patience(s);
    hello_saw_tls(s->set.commons->hellos, stream_peer(s->stream));
    session_tell_quirk(s, QUIRK_TLS_FIRST);
    s->opening = OPENING_TLS;
    begin_tls(s, STREAM_REST_IS_TLS);
}

bool session_opened_by(struct session *s, const uint8_t *data, size_t len)
{
    enum hello hello = hello_of(data, len);
    if (hello == HELLO_TLS)
        take_hello(s);
    if (hello != HELLO_PLAIN)
        return false;
    if (s->opening == OPENING_WAITS) {
        session_tell_quirk(s, QUIRK_TALKS_FIRST);
        hello_saw_plain(s->set.commons->hellos, stream_peer(s->stream));
        greet(s);
    }
    s->opening = OPENING_DONE;
    return true;
}
