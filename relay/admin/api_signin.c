#include "relay/admin/api_signin.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <event2/http.h>
#include <event2/keyvalq_struct.h>

#include "relay/admin/api_call.h"
#include "relay/admin/json.h"
#include "relay/base/log.h"
#include "relay/signin/signins.h"

#define TEXT_MAX     512
#define REDIRECT_MAX 200
#define SEND_AS_APP  "SMTP.SendAsApp"

static uint64_t seconds_to_ms(uint64_t seconds)
{
    return seconds * 1000;
}

static const struct config_mailbox *mailbox_of(const struct api_settings *api, size_t index)
{
    return &api->config->mailboxes[index];
}

/* Answers the call when there is no such mailbox, or none with OAuth. */
static bool find_mailbox(struct api_call *c, size_t *out_index)
{
    const struct config *config = c->api->config;
    struct error err = ERROR_INIT;

    for (size_t i = 0; i < config->mailbox_count; i++) {
        if (strcmp(config->mailboxes[i].name, c->argument) != 0)
            continue;
        *out_index = i;
        if (config->mailboxes[i].has_oauth && c->api->signins != NULL)
            return true;
        (void)error_set(&err, ERROR_INVALID,
                        "mailbox %s does not sign in with OAuth; see outtray-oauth(7)",
                        c->argument);
        call_fail(c, &err);
        return false;
    }
    (void)error_set(&err, ERROR_MISSING, "there is no mailbox \"%.63s\" in the configuration",
                    c->argument);
    call_fail(c, &err);
    return false;
}

static void reply(struct api_call *c, bool ok, cJSON *json)
{
    if (!ok) {
        cJSON_Delete(json);
        json = NULL;
    }
    call_reply(c, HTTP_OK, json);
}

/* ---- what a token says ----------------------------------------------------------------------- */

static bool add_check(cJSON *checks, bool good, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static bool add_check(cJSON *checks, bool good, const char *fmt, ...)
{
    char text[TEXT_MAX];
    cJSON *o = cJSON_CreateObject();
    va_list args;

    va_start(args, fmt);
    if (vsnprintf(text, sizeof(text), fmt, args) < 0)
        text[0] = '\0';
    va_end(args);
    return json_append(checks, o) && json_put_flag(o, "good", good) &&
           json_put_text(o, "text", text);
}

/* "https://outlook.office365.com/.default" without scheme and what is behind the host. */
static void host_of(const char *url, char *out, size_t size)
{
    const char *start = strstr(url, "://");

    start = start != NULL ? start + 3 : url;
    (void)snprintf(out, size, "%.*s", (int)strcspn(start, "/"), start);
}

/* Microsoft says the resource as a URL, or as the number that it has in every organisation. */
static bool is_exchange(const char *audience)
{
    static const char exchange[] = "00000002-0000-0ff1-ce00-000000000000";
    char host[CLAIMS_TEXT_MAX];

    host_of(audience, host, sizeof(host));
    return strcmp(host, exchange) == 0 || strstr(host, "outlook.office") != NULL ||
           strstr(host, "partner.outlook.cn") != NULL;
}

static bool is_microsoft(const struct config_mailbox *mb)
{
    return strstr(mb->scope, "outlook") != NULL;
}

static bool check_audience(cJSON *checks, const struct config_mailbox *mb, const struct claims *k)
{
    if (!is_microsoft(mb) || k->audience[0] == '\0')
        return true;
    if (is_exchange(k->audience))
        return add_check(checks, true, "It is for Exchange Online.");
    return add_check(checks, false,
                     "It is for %s, not for Exchange Online: SMTP will refuse it. The scope has to "
                     "be that of the provider (it is %s).",
                     k->audience, mb->scope);
}

static bool has_word(const char *list, const char *word)
{
    size_t len = strlen(word);

    for (const char *p = strstr(list, word); p != NULL; p = strstr(p + 1, word))
        if ((p == list || p[-1] == ' ' || p[-1] == '/') && (p[len] == '\0' || p[len] == ' '))
            return true;
    return false;
}

/* With RBAC for Applications no role is in the token, and Exchange alone decides. */
static bool check_app(cJSON *checks, const struct claims *k)
{
    if (has_word(k->roles, SEND_AS_APP))
        return add_check(checks, true,
                         "It has the application permission " SEND_AS_APP
                         ". Exchange must know the application (New-ServicePrincipal) and give it "
                         "each mailbox (Add-MailboxPermission).");
    if (k->roles[0] == '\0')
        return add_check(
            checks, true,
            "It has no role. That is right where the application has its right by RBAC "
            "for Applications; else the permission " SEND_AS_APP
            " or the administrator's consent is missing.");
    return add_check(checks, false,
                     "It has the roles %s, but not " SEND_AS_APP
                     ". Add that application permission of Office 365 Exchange Online and grant "
                     "consent, unless the right comes by RBAC for Applications.",
                     k->roles);
}

static bool check_person(cJSON *checks, const struct claims *k)
{
    if (has_word(k->scopes, "SMTP.Send"))
        return add_check(checks, true, "It allows SMTP.Send.");
    return add_check(checks, false,
                     "It does not allow SMTP.Send: add that delegated permission to the app "
                     "registration, then run \"outtray login\" again.");
}

static bool check_application(cJSON *checks, const struct config_mailbox *mb,
                              const struct claims *k)
{
    if (k->app[0] == '\0' || mb->client_id[0] == '\0' || strcasecmp(k->app, mb->client_id) == 0)
        return true;
    return add_check(checks, false, "It was made for the application %s, not for client_id = %s.",
                     k->app, mb->client_id);
}

static bool put_checks(cJSON *o, const struct config_mailbox *mb, const struct claims *k,
                       bool known)
{
    cJSON *checks = cJSON_CreateArray();
    bool ok = json_put(o, "checks", checks);

    if (!known || !is_microsoft(mb))
        return ok;
    ok = ok && check_audience(checks, mb, k) && check_application(checks, mb, k);
    return ok && (mb->grant == CONFIG_GRANT_CLIENT_CREDENTIALS ? check_app(checks, k)
                                                               : check_person(checks, k));
}

static bool put_claims(cJSON *o, const struct claims *k, bool known)
{
    return json_put_flag(o, "readable", known) && json_put_text(o, "audience", k->audience) &&
           json_put_text(o, "issuer", k->issuer) && json_put_text(o, "application", k->app) &&
           json_put_text(o, "tenant", k->tenant) && json_put_text(o, "roles", k->roles) &&
           json_put_text(o, "scopes", k->scopes) && json_put_text(o, "user", k->user) &&
           json_put_time(o, "issued", seconds_to_ms(k->issued_s)) &&
           json_put_time(o, "expires", seconds_to_ms(k->expires_s));
}

static bool put_span(cJSON *o, const char *key, uint64_t when_ms, uint64_t now_ms)
{
    if (when_ms == 0 || when_ms == TOKEN_NEVER)
        return json_put_null(o, key);
    return json_put_seconds(o, key, when_ms > now_ms ? when_ms - now_ms : 0);
}

static bool put_warnings(cJSON *o, const struct signins_status *s)
{
    cJSON *list = cJSON_CreateArray();
    bool ok = json_put(o, "warnings", list);

    for (size_t i = 0; ok && i < s->warning_count; i++)
        ok = json_append(list, json_text(s->warnings[i].text));
    return ok;
}

/* Of a status: what it is, and what is wrong. */
static bool put_state(cJSON *o, const struct signins_status *s, uint64_t now_ms)
{
    return json_put_text(o, "grant", s->grant) &&
           json_put_text(o, "state", token_state_name(s->state)) &&
           json_put_flag(o, "has_token", s->has_token) &&
           put_span(o, "ends_in", s->ends_ms, now_ms) &&
           put_span(o, "next_in", s->next_ms, now_ms) &&
           json_put_time(o, "fetched", seconds_to_ms(s->fetched_s)) &&
           json_put_time(o, "login", seconds_to_ms(s->login_s)) &&
           json_put_time(o, "certificate_ends",
                         s->certificate_ends_s > 0 ? seconds_to_ms((uint64_t)s->certificate_ends_s)
                                                   : 0) &&
           json_put_time(o, "secret_ends", seconds_to_ms(s->secret_ends_s)) &&
           json_put_number(o, "shared_by", s->shared_by) && json_put_text(o, "problem", s->what) &&
           json_put_text(o, "who", s->who) && json_put_text(o, "remedy", s->how) &&
           json_put_text(o, "said", s->said) && json_put_text(o, "trace_id", s->trace) &&
           json_put_text(o, "correlation_id", s->correlation) && put_warnings(o, s);
}

void api_signin_token(struct api_call *c)
{
    struct signins_status status;
    struct claims claims = {.issued_s = 0};
    const struct config_mailbox *mb;
    size_t index;
    bool known;
    bool ok;
    cJSON *o;

    if (!find_mailbox(c, &index))
        return;
    mb = mailbox_of(c->api, index);
    known = signins_claims(c->api->signins, index, &claims);
    o = cJSON_CreateObject();
    ok = json_put_text(o, "mailbox", mb->name) && json_put_text(o, "provider", mb->provider) &&
         json_put_text(o, "sign_in", mb->sign_in) && json_put_text(o, "scope", mb->scope) &&
         json_put_text(o, "token_url", mb->token_url);
    ok = ok && put_claims(o, &claims, known) && put_checks(o, mb, &claims, known);
    signins_status(c->api->signins, index, &status);
    reply(c, ok && put_state(o, &status, clock_now_ms(c->api->clock)), o);
}

/* ---- a person signs in ----------------------------------------------------------------------- */

static const char *const login_states[] = {
    [SIGNINS_LOGIN_NONE] = "none",       [SIGNINS_LOGIN_ASKING] = "asking",
    [SIGNINS_LOGIN_WAITING] = "waiting", [SIGNINS_LOGIN_DONE] = "done",
    [SIGNINS_LOGIN_FAILED] = "failed",
};

static void reply_login(struct api_call *c, size_t index, const char *url)
{
    struct signins_login login;
    cJSON *o = cJSON_CreateObject();
    bool ok;

    signins_login_status(c->api->signins, index, &login);
    ok = json_put_text(o, "mailbox", c->argument) &&
         json_put_text(o, "state", login_states[login.state]) &&
         json_put_text(o, "url", url != NULL ? url : login.url) &&
         json_put_text(o, "complete_url", login.complete_url) &&
         json_put_text(o, "code", login.user_code) &&
         put_span(o, "ends_in", login.ends_ms, clock_now_ms(c->api->clock)) &&
         json_put_text(o, "user", login.who_signed_in) && json_put_text(o, "problem", login.what) &&
         json_put_text(o, "remedy", login.how) && json_put_text(o, "said", login.said);
    reply(c, ok, o);
}

static void log_login(const struct api_call *c, const char *how)
{
    log_event(LOG_LEVEL_INFO, "login-begun", LOG_STR("mailbox", c->argument), LOG_STR("how", how),
              LOG_STR("by", "operator"), LOG_END);
}

void api_signin_login_device(struct api_call *c)
{
    struct error err = ERROR_INIT;
    size_t index;

    if (!find_mailbox(c, &index))
        return;
    if (!signins_login_device(c->api->signins, index, &err)) {
        call_fail(c, &err);
        return;
    }
    log_login(c, "device");
    reply_login(c, index, NULL);
}

static const char *query_of(const struct api_call *c)
{
    const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(c->req));

    return query != NULL ? query : "";
}

/* To this machine and no other: what comes back would give the mailbox away. */
static bool is_loopback(const char *uri)
{
    static const char start[] = "http://localhost:";

    return strncmp(uri, start, sizeof(start) - 1) == 0 && strlen(uri) < REDIRECT_MAX;
}

static bool read_redirect(const struct api_call *c, char out[REDIRECT_MAX], struct error *err)
{
    struct evkeyvalq values = {0};
    const char *uri = NULL;
    bool ok = evhttp_parse_query_str(query_of(c), &values) == 0;

    if (ok)
        uri = evhttp_find_header(&values, "redirect");
    ok = uri != NULL && is_loopback(uri);
    if (ok)
        (void)snprintf(out, REDIRECT_MAX, "%s", uri);
    else
        (void)error_set(err, ERROR_INVALID, "redirect has to be http://localhost:PORT");
    evhttp_clear_headers(&values);
    return ok;
}

void api_signin_login_browser(struct api_call *c)
{
    struct error err = ERROR_INIT;
    char redirect[REDIRECT_MAX];
    char url[SIGNINS_URL_MAX];
    size_t index;

    if (!find_mailbox(c, &index))
        return;
    if (!read_redirect(c, redirect, &err) ||
        !signins_login_browser(c->api->signins, index, redirect, url, &err)) {
        call_fail(c, &err);
        return;
    }
    log_login(c, "browser");
    reply_login(c, index, url);
}

void api_signin_login_redirect(struct api_call *c)
{
    struct error err = ERROR_INIT;
    size_t index;

    if (!find_mailbox(c, &index))
        return;
    if (signins_login_redirect(c->api->signins, index, query_of(c), &err))
        reply_login(c, index, NULL);
    else
        call_fail(c, &err);
}

void api_signin_login(struct api_call *c)
{
    size_t index;

    if (find_mailbox(c, &index))
        reply_login(c, index, NULL);
}

/* ---- who depends on a password --------------------------------------------------------------- */

/* How it signs in now, as against how it may. */
static const char *method_of(const struct api_settings *api, size_t index)
{
    const struct config_mailbox *mb = mailbox_of(api, index);
    bool oauth = mb->has_oauth && api->signins != NULL;

    if ((mb->auth & CONFIG_AUTH_NONE) != 0)
        return "none";
    if (oauth && ((mb->auth & CONFIG_AUTH_PASSWORD) == 0 || signins_is_set_up(api->signins, index)))
        return "oauth2";
    return "password";
}

static bool is_on_route(const struct config_route *r, size_t mailbox)
{
    for (size_t i = 0; i < r->mailbox_count + r->backup_count; i++)
        if ((i < r->mailbox_count ? r->mailboxes[i] : r->backup[i - r->mailbox_count]) == mailbox)
            return true;
    return false;
}

/* Without a route of its own a device takes the default one, or one that its mail fits. */
static bool depends(const struct config *config, const struct config_device *d, size_t mailbox)
{
    for (size_t i = 0; i < config->route_count; i++) {
        const struct config_route *r = &config->routes[i];
        bool its = d == NULL || d->route[0] == '\0' || strcmp(r->name, d->route) == 0;

        if (its && is_on_route(r, mailbox))
            return true;
    }
    return false;
}

static bool put_devices(cJSON *o, const struct config *config, size_t mailbox)
{
    cJSON *list = cJSON_CreateArray();
    bool ok = json_put(o, "devices", list);

    for (size_t i = 0; ok && i < config->device_count; i++)
        if (depends(config, &config->devices[i], mailbox))
            ok = json_append(list, json_text(config->devices[i].name));
    return ok && json_put_flag(o, "other_devices", depends(config, NULL, mailbox));
}

static bool put_mailbox(cJSON *list, const struct api_settings *api, size_t index)
{
    const struct config_mailbox *mb = mailbox_of(api, index);
    const char *method = method_of(api, index);
    cJSON *o = cJSON_CreateObject();

    return json_append(list, o) && json_put_text(o, "name", mb->name) &&
           json_put_text(o, "address", mb->address) && json_put_text(o, "provider", mb->provider) &&
           json_put_text(o, "signs_in_with", method) &&
           json_put_flag(o, "oauth_configured", mb->has_oauth) &&
           json_put_time(o, "passwords_end",
                         strcmp(method, "password") == 0 ? mb->passwords_end_ms : 0) &&
           put_devices(o, api->config, index);
}

void api_signin_report(struct api_call *c)
{
    cJSON *o = cJSON_CreateObject();
    cJSON *list = cJSON_CreateArray();
    bool ok = json_put(o, "mailboxes", list);

    for (size_t i = 0; ok && i < c->api->config->mailbox_count; i++)
        ok = put_mailbox(list, c->api, i);
    reply(c, ok && json_put_time(o, "time", clock_wall_ms(c->api->clock)), o);
}

/* ---- in the status --------------------------------------------------------------------------- */

static bool add_problem(cJSON *status, const char *what, const char *remedy)
{
    cJSON *list = cJSON_GetObjectItemCaseSensitive(status, "problems");
    cJSON *o = cJSON_CreateObject();

    return json_append(list, o) && json_put_text(o, "what", what) &&
           json_put_text(o, "remedy", remedy) &&
           cJSON_ReplaceItemInObjectCaseSensitive(status, "state", json_text("attention"));
}

static bool add_warnings(cJSON *status, const struct api_settings *api, size_t index,
                         const struct signins_status *s)
{
    char what[TEXT_MAX];
    bool ok = true;

    for (size_t i = 0; ok && i < s->warning_count; i++) {
        (void)snprintf(what, sizeof(what), "mailbox %s: %s", mailbox_of(api, index)->name,
                       s->warnings[i].text);
        ok = add_problem(status, what, "outtray-oauth(7) tells how to replace it.");
    }
    if (ok && s->store_trouble[0] != '\0')
        ok = add_problem(status, s->store_trouble,
                         "Tokens are kept in memory only, until this is mended.");
    return ok;
}

/* A password in the place of OAuth that is not set up. */
static bool add_bridge(cJSON *status, const struct api_settings *api, size_t index)
{
    const struct config_mailbox *mb = mailbox_of(api, index);
    char what[TEXT_MAX];

    if ((mb->auth & CONFIG_AUTH_OAUTH2) == 0 || strcmp(method_of(api, index), "password") != 0)
        return true;
    (void)snprintf(what, sizeof(what), "mailbox %s still signs in with its password: %s", mb->name,
                   mb->has_oauth ? "nobody has signed in for OAuth yet"
                                 : "OAuth is not configured yet");
    return add_problem(status, what,
                       mb->has_oauth ? "Run \"outtray login MAILBOX\" (outtray-oauth(7))."
                                     : "Set tenant and client_id (outtray-oauth(7)).");
}

static bool add_signin(cJSON *mailbox, const struct api_settings *api, size_t index,
                       const struct signins_status *s)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = json_put(mailbox, "sign_in", o) && json_put_text(o, "with", method_of(api, index));

    return ok && (s == NULL || put_state(o, s, clock_now_ms(api->clock)));
}

bool api_signin_add(const struct api_settings *api, cJSON *status)
{
    cJSON *list = cJSON_GetObjectItemCaseSensitive(status, "mailboxes");
    struct signins_status s;
    bool ok = true;

    if (api->config == NULL)
        return true;
    for (size_t i = 0; ok && i < api->config->mailbox_count; i++) {
        bool oauth = mailbox_of(api, i)->has_oauth && api->signins != NULL;

        if (oauth)
            signins_status(api->signins, i, &s);
        ok = add_signin(cJSON_GetArrayItem(list, (int)i), api, i, oauth ? &s : NULL) &&
             add_bridge(status, api, i) && (!oauth || add_warnings(status, api, i, &s));
    }
    return ok;
}
