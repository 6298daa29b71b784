#include "relay/intake/session_inside.h"

#include <stdio.h>
#include <string.h>

#include "relay/base/log.h"
#include "relay/base/stream.h"

void session_drop_signin(struct session *s)
{
    signin_free(s->signin);
    s->signin = NULL;
}

/* What was said is in no line: it may be the password in the place of the login. */
static void tell_signin(struct session *s, const struct signin_result *result)
{
    static const struct {
        enum log_level level;
        const char *event;
    } kinds[] = {[SERVER_CHECK_VERIFIED] = {LOG_LEVEL_INFO, "login"},
                 [SERVER_CHECK_WRONG] = {LOG_LEVEL_WARN, "login-failed"},
                 [SERVER_CHECK_UNAVAILABLE] = {LOG_LEVEL_ERROR, "login-unchecked"}};
    char text[REGISTRY_ERROR_MAX];
    bool ignored = s->auth == CONFIG_LOGIN_ANY && result->check == SERVER_CHECK_WRONG;
    log_event(ignored ? LOG_LEVEL_DEBUG : kinds[result->check].level,
              ignored ? "login-ignored" : kinds[result->check].event, LOG_ID("session", s->set.id),
              LOG_STR("device", s->access.name),
              LOG_STR("as", result->device != NULL ? result->device->name : ""),
              LOG_STR("client", stream_peer_text(s->stream)), LOG_STR("reason", result->reason),
              LOG_U64("wrong", result->wrong), LOG_END);
    if (ignored || result->check == SERVER_CHECK_VERIFIED)
        return;
    snprintf(text, sizeof text, "login refused: %s", result->reason);
    session_tell_trouble(s, text, false);
}

/* A password was right: from here on the session is that device's. */
static struct server_identity become(struct session *s, const struct config_device *device)
{
    char before[sizeof s->access.name];
    snprintf(before, sizeof before, "%s", s->access.name);
    access_as(s->set.intake->config, stream_peer(s->stream), device, &s->access);
    if (strcmp(before, s->access.name) != 0)
        session_tell_device(s);
    return (struct server_identity){.device = s->access.name,
                                    .login = device->login,
                                    .max_size = session_max_size(s),
                                    .max_recipients = s->access.max_recipients,
                                    .recipient_domains = s->access.recipient_domains,
                                    .mt_priority = device->mt_priority == CONFIG_YES,
                                    .importance = device->importance == CONFIG_YES,
                                    .join_split = s->access.join_split};
}

static void end_signin(struct session *s, const struct signin_result *result)
{
    struct server_identity who = {.device = ""};
    struct server_effect effect;
    tell_signin(s, result);
    if (result->check == SERVER_CHECK_VERIFIED)
        who = become(s, result->device);
    server_fsm_checked(s->fsm, result->check, &who, &effect);
    session_drop_signin(s); /* the result too */
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
    session_drop_signin(s);
    s->signin = signin_new(&settings);
}

void session_sign_in(struct session *s, const struct server_effect *effect)
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
