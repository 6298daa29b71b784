/* How a person signs in: by a device code, or in a browser. The face is signins.h. */
#include "relay/signin/signins_inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/base/log.h"

#define BROWSER_TIME_MS (15 * 60 * 1000u)
#define POLL_RETRY_MS   10000u /* after a question that was not answered */

static const struct oauth_advice too_late = {
    .name = "login_too_late",
    .action = OAUTH_LOGIN,
    .what = "Nobody signed in in time.",
    .who = "the person the mailbox signs in as",
    .how = "Begin again: outtray login MAILBOX",
};

static const struct oauth_advice no_refresh_token = {
    .name = "no_refresh_token",
    .action = OAUTH_LOGIN,
    .what = "The service gave no refresh token, so this sign-in ends within hours.",
    .who = "whoever looks after this relay",
    .how = "Ask for one: the scope needs offline_access (Microsoft and others), or the page to "
           "open access_type=offline and prompt=consent (Google); then: outtray login MAILBOX",
};

static const struct oauth_advice not_saved = {
    .name = "tokens_not_saved",
    .action = OAUTH_LOGIN,
    .what = "The sign-in worked, but could not be written to disk.",
    .who = "whoever looks after this relay",
    .how = "Mend what the text says, then begin again: outtray login MAILBOX",
};

static void finish(struct signin *s, enum signins_login_state state)
{
    struct attempt *a = s->attempt;

    a->state = state;
    a->poll_ms = TOKEN_NEVER;
    grant_device_done(&a->device);
    explicit_bzero(a->verifier, sizeof(a->verifier));
    explicit_bzero(a->expected, sizeof(a->expected));
    if (state == SIGNINS_LOGIN_DONE)
        log_event(LOG_LEVEL_INFO, "login-done", LOG_STR("mailbox", s->config.mailbox),
                  LOG_STR("as", a->who), LOG_END);
    else
        log_event(LOG_LEVEL_WARN, "login-failed", LOG_STR("mailbox", s->config.mailbox),
                  LOG_STR("name", a->failure.advice.name), LOG_STR("what", a->failure.advice.what),
                  LOG_STR("how", a->failure.how), LOG_STR("said", a->failure.said), LOG_END);
}

static void fail_as(struct signin *s, const struct oauth_advice *advice, const char *said)
{
    struct signins_failure *f = &s->attempt->failure;

    *f = (struct signins_failure){.advice = *advice};
    (void)snprintf(f->said, sizeof(f->said), "%s", said);
    oauth_errors_fill(advice->how, s->config.mailbox, f->how, sizeof(f->how));
    finish(s, SIGNINS_LOGIN_FAILED);
}

static void fail(struct signin *s, const struct ask_result *result)
{
    signins_fail(s, &s->attempt->failure, result);
    finish(s, SIGNINS_LOGIN_FAILED);
}

/* It ends when the tokens are on disk: signins_login_stored(). */
static void succeed(struct signin *s, struct ask_result *result)
{
    struct claims claims;

    if (claims_read(result->token.access, &claims))
        memcpy(s->attempt->who, claims.user, sizeof(s->attempt->who));
    s->attempt->poll_ms = TOKEN_NEVER;
    if (result->token.refresh == NULL) {
        fail_as(s, &no_refresh_token, "");
        return;
    }
    ask_cancel(s->ask);
    s->ask = NULL;
    signins_adopt(s, result, true);
}

void signins_login_stored(struct signin *s, bool ok)
{
    if (s->attempt == NULL || s->attempt->state != SIGNINS_LOGIN_WAITING ||
        s->attempt->poll_ms != TOKEN_NEVER || s->attempt->ask != NULL ||
        s->attempt->expected[0] != '\0')
        return;
    if (ok)
        finish(s, SIGNINS_LOGIN_DONE);
    else
        fail_as(s, &not_saved, s->store_trouble);
}

/* ---- Device code ---- */

static void on_poll(void *ctx, struct ask_result *result)
{
    struct signin *s = ctx;
    struct attempt *a = s->attempt;
    enum oauth_action action = result->advice.action;

    a->ask = NULL;
    if (result->given) {
        succeed(s, result);
        return;
    }
    if (action != OAUTH_PENDING && action != OAUTH_SLOW_DOWN && action != OAUTH_RETRY) {
        fail(s, result);
        return;
    }
    if (action == OAUTH_SLOW_DOWN)
        a->interval_ms += GRANT_SLOWER_S * 1000;
    a->poll_ms = signins_now_ms(s) + a->interval_ms;
    if (action == OAUTH_RETRY && result->wait_s * 1000 + POLL_RETRY_MS > a->interval_ms)
        a->poll_ms = signins_now_ms(s) + result->wait_s * 1000 + POLL_RETRY_MS;
}

static void poll(struct signin *s)
{
    const struct ask_settings particulars = {.what = ASK_POLL,
                                             .device_code = s->attempt->device.device_code};

    s->attempt->poll_ms = TOKEN_NEVER;
    s->attempt->ask = signins_ask(s, &particulars, on_poll, s);
    if (s->attempt->ask == NULL)
        s->attempt->poll_ms = signins_now_ms(s) + POLL_RETRY_MS;
}

static void on_device(void *ctx, struct ask_result *result)
{
    struct signin *s = ctx;
    struct attempt *a = s->attempt;

    a->ask = NULL;
    if (!result->given) {
        fail(s, result);
        return;
    }
    a->device = result->device;
    result->device = (struct grant_device_code){.device_code = NULL};
    a->state = SIGNINS_LOGIN_WAITING;
    a->interval_ms = (uint64_t)a->device.interval_s * 1000;
    a->poll_ms = result->asked_ms + a->interval_ms;
    a->ends_ms = result->asked_ms + (uint64_t)a->device.life_s * 1000;
    log_event(LOG_LEVEL_INFO, "login-begun", LOG_STR("mailbox", s->config.mailbox),
              LOG_STR("by", "device code"), LOG_STR("url", a->device.url), LOG_END);
}

void signins_login_tick(struct signin *s)
{
    struct attempt *a = s->attempt;

    if (a == NULL || a->state != SIGNINS_LOGIN_WAITING || a->ask != NULL)
        return;
    if (signins_now_ms(s) >= a->ends_ms && (a->poll_ms != TOKEN_NEVER || a->expected[0] != '\0'))
        fail_as(s, &too_late, "");
    else if (signins_now_ms(s) >= a->poll_ms)
        poll(s);
}

void signins_login_drop(struct signin *s)
{
    struct attempt *a = s->attempt;

    if (a == NULL)
        return;
    ask_cancel(a->ask);
    grant_device_done(&a->device);
    explicit_bzero(a, sizeof(*a));
    free(a);
    s->attempt = NULL;
}

static struct signin *begin(struct signins *all, size_t mailbox, struct error *err)
{
    struct signin *s = all->users[mailbox].signin;

    if (s == NULL || s->config.grant != SIGNIN_PERSON) {
        (void)error_set(err, ERROR_INVALID,
                        "no person signs in for this mailbox: it uses an application of its own, a "
                        "service account or a password");
        return NULL;
    }
    signins_login_drop(s);
    s->attempt = calloc(1, sizeof(*s->attempt));
    if (s->attempt == NULL) {
        (void)error_set(err, ERROR_NO_ROOM, "out of memory");
        return NULL;
    }
    s->attempt->poll_ms = TOKEN_NEVER;
    return s;
}

bool signins_login_device(struct signins *s, size_t mailbox, struct error *err)
{
    const struct ask_settings particulars = {.what = ASK_DEVICE};
    struct signin *n = begin(s, mailbox, err);

    if (n == NULL)
        return false;
    if (n->config.device_url[0] == '\0') {
        signins_login_drop(n);
        return error_set(err, ERROR_INVALID,
                         "the provider has no device code; use: outtray login --browser %s",
                         n->config.mailbox);
    }
    n->attempt->state = SIGNINS_LOGIN_ASKING;
    n->attempt->ask = signins_ask(n, &particulars, on_device, n);
    if (n->attempt->ask != NULL)
        return true;
    signins_login_drop(n);
    return error_set(err, ERROR_NO_ROOM, "out of memory");
}

/* ---- Browser ---- */

static bool write_url(const struct signin *s, char out_url[SIGNINS_URL_MAX])
{
    char challenge[PKCE_TEXT];
    const struct grant_client client = {
        .client_id = s->config.client_id, .secret = "", .assertion = "", .scope = s->config.scope};
    const struct grant_browser browser = {.authorize_url = s->config.authorize_url,
                                          .redirect_uri = s->attempt->redirect_uri,
                                          .challenge = challenge,
                                          .state = s->attempt->expected,
                                          .login_hint = s->config.login};
    char *url = NULL;
    bool ok = false;

    if (pkce_challenge(s->attempt->verifier, challenge))
        url = grant_authorize_url(&client, &browser);
    if (url != NULL && strlen(url) < SIGNINS_URL_MAX) {
        memcpy(out_url, url, strlen(url) + 1);
        ok = true;
    }
    grant_wipe(url);
    return ok;
}

bool signins_login_browser(struct signins *s, size_t mailbox, const char *redirect_uri,
                           char out_url[SIGNINS_URL_MAX], struct error *err)
{
    struct signin *n = begin(s, mailbox, err);
    struct attempt *a;

    if (n == NULL)
        return false;
    a = n->attempt;
    a->state = SIGNINS_LOGIN_WAITING;
    a->ends_ms = signins_now_ms(n) + BROWSER_TIME_MS;
    (void)snprintf(a->redirect_uri, sizeof(a->redirect_uri), "%s", redirect_uri);
    if (n->config.authorize_url[0] != '\0' && strlen(redirect_uri) < sizeof(a->redirect_uri) &&
        pkce_random(a->verifier) && pkce_random(a->expected) && write_url(n, out_url)) {
        log_event(LOG_LEVEL_INFO, "login-begun", LOG_STR("mailbox", n->config.mailbox),
                  LOG_STR("by", "browser"), LOG_END);
        return true;
    }
    signins_login_drop(n);
    return error_set(err, ERROR_INVALID,
                     "a browser cannot be used: the provider has no page for it (authorize_url)");
}

static void on_code(void *ctx, struct ask_result *result)
{
    struct signin *s = ctx;

    s->attempt->ask = NULL;
    if (result->given)
        succeed(s, result);
    else
        fail(s, result);
}

static void redeem(struct signin *s, const char *code)
{
    const struct ask_settings particulars = {.what = ASK_CODE,
                                             .code = code,
                                             .redirect_uri = s->attempt->redirect_uri,
                                             .verifier = s->attempt->verifier};

    explicit_bzero(s->attempt->expected, sizeof(s->attempt->expected)); /* a code is used once */
    s->attempt->ask = signins_ask(s, &particulars, on_code, s);
    if (s->attempt->ask == NULL)
        fail_as(s, &too_late, "out of memory");
}

static void refuse_redirect(struct signin *s, const struct grant_refusal *r)
{
    const struct oauth_refusal refusal = {
        .asked = OAUTH_AS_LOGIN, .status = r->status, .error = r->error, .aadsts = r->aadsts};
    struct oauth_advice advice;
    char said[ERROR_TEXT_MAX];

    oauth_errors_explain(&refusal, &advice);
    (void)snprintf(said, sizeof(said), "%s: %s", r->error, r->said);
    fail_as(s, &advice, said);
}

bool signins_login_redirect(struct signins *s, size_t mailbox, const char *query, struct error *err)
{
    struct signin *n = s->users[mailbox].signin;
    struct grant_redirect redirect;
    struct grant_refusal refusal;
    enum grant_result result;
    bool ours;

    if (n == NULL || n->attempt == NULL || n->attempt->expected[0] == '\0')
        return error_set(err, ERROR_INVALID, "no sign-in in a browser is under way");
    result = grant_parse_redirect(query, &redirect, &refusal);
    if (result == GRANT_GARBAGE)
        return error_set(err, ERROR_INVALID, "the browser brought back no code");
    if (result == GRANT_REFUSED) {
        refuse_redirect(n, &refusal);
        return true;
    }
    ours = pkce_equal(redirect.state, n->attempt->expected);
    if (ours)
        redeem(n, redirect.code);
    explicit_bzero(&redirect, sizeof(redirect));
    return ours || error_set(err, ERROR_UNTRUSTED,
                             "the browser brought back the answer to another sign-in");
}

/* ---- What to show ---- */

void signins_login_cancel(struct signins *s, size_t mailbox)
{
    if (s->users[mailbox].signin != NULL)
        signins_login_drop(s->users[mailbox].signin);
}

void signins_login_status(const struct signins *s, size_t mailbox, struct signins_login *out)
{
    const struct signin *n = s->users[mailbox].signin;
    const struct attempt *a = n != NULL ? n->attempt : NULL;
    bool failed = a != NULL && a->state == SIGNINS_LOGIN_FAILED;

    *out = (struct signins_login){.state = SIGNINS_LOGIN_NONE,
                                  .user_code = "",
                                  .url = "",
                                  .complete_url = "",
                                  .who_signed_in = "",
                                  .name = "",
                                  .what = "",
                                  .how = "",
                                  .said = ""};
    if (a == NULL)
        return;
    out->state = a->state;
    out->user_code = a->device.user_code;
    out->url = a->device.url;
    out->complete_url = a->device.complete_url;
    out->ends_ms = a->ends_ms;
    out->who_signed_in = a->who;
    if (!failed)
        return;
    out->name = a->failure.advice.name;
    out->what = a->failure.advice.what;
    out->how = a->failure.how;
    out->said = a->failure.said;
}
