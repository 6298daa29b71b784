#include "relay/intake/signin.h"

#include <stdio.h>
#include <stdlib.h>

#include "queue/error.h"
#include "relay/intake/access.h"
#include "relay/intake/logins.h"
#include "relay/signin/sasl_server.h"

struct signin {
    struct signin_settings set;
    struct sasl_server *sasl;
    struct login_check *check;
    struct signin_result result;
    char reason[ERROR_TEXT_MAX];
};

struct signin *signin_new(const struct signin_settings *settings)
{
    struct signin *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->set = *settings;
    s->sasl = sasl_server_begin(settings->config->hostname, settings->mechanism, NULL);
    if (s->sasl == NULL) {
        free(s);
        return NULL;
    }
    return s;
}

static void forget_exchange(struct signin *s)
{
    sasl_server_end(s->sasl);
    s->sasl = NULL;
}

static enum signin_step done(struct signin *s, enum server_check check, const char *reason)
{
    forget_exchange(s);
    s->result.check = check;
    snprintf(s->reason, sizeof(s->reason), "%s", reason);
    s->result.reason = s->reason;
    return SIGNIN_DONE;
}

static void on_checked(void *ctx, const struct login_result *result)
{
    struct signin *s = ctx;
    const struct config_device *device = s->result.device;

    s->check = NULL;
    s->result.wrong = result->wrong;
    switch (result->check) {
    case PASSWORDS_RIGHT:
        (void)done(s, SERVER_CHECK_VERIFIED, "");
        break;
    case PASSWORDS_WRONG:
        (void)done(s, SERVER_CHECK_WRONG,
                   "this is not the device's password; \"outtray passwd\" makes a new one");
        break;
    case PASSWORDS_NONE:
        (void)done(s, SERVER_CHECK_WRONG,
                   device == NULL ? "no device has this login"
                                  : "the device has no password yet; \"outtray passwd\" makes one");
        break;
    case PASSWORDS_FAILED:
        (void)done(s, SERVER_CHECK_UNAVAILABLE, result->error);
        break;
    }
    s->set.on_done(s->set.ctx, &s->result);
}

/* Nobody's login is checked as well, so that its reply tells nothing by coming sooner. */
static enum signin_step begin_check(struct signin *s)
{
    const struct config_device *device =
        access_find_login(s->set.config, sasl_server_login(s->sasl));
    const struct login_request request = {.client = s->set.client,
                                          .device = device != NULL ? device->name : "",
                                          .password = sasl_server_password(s->sasl),
                                          .lenient = s->set.lenient,
                                          .on_done = on_checked,
                                          .ctx = s};

    s->result.device = device;
    if (device == NULL && s->set.lenient)
        return done(s, SERVER_CHECK_WRONG, "no device has this login");
    s->check = logins_check(s->set.logins, &request);
    if (s->check == NULL)
        return done(s, SERVER_CHECK_UNAVAILABLE,
                    "too many logins of this address wait their turn after wrong ones");
    forget_exchange(s);
    return SIGNIN_CHECKS;
}

enum signin_step signin_take(struct signin *s, const void *said, size_t len,
                             const char **out_question, size_t *out_len)
{
    struct error err = ERROR_INIT;

    switch (sasl_server_next(s->sasl, said, len, out_question, out_len, &err)) {
    case SASL_SERVER_ASKS:
        return SIGNIN_ASKS;
    case SASL_SERVER_HEARD:
        return begin_check(s);
    case SASL_SERVER_REFUSES:
        break;
    }
    return done(s, SERVER_CHECK_WRONG, err.text);
}

const struct signin_result *signin_result(const struct signin *s)
{
    return &s->result;
}

void signin_free(struct signin *s)
{
    if (s == NULL)
        return;
    if (s->check != NULL)
        logins_abandon(s->check);
    forget_exchange(s);
    free(s);
}
