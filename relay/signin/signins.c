#include "relay/signin/signins.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <event2/event.h>

#include "queue/bytes.h"
#include "relay/base/config.h"
#include "relay/base/log.h"
#include "relay/base/random.h"
#include "relay/signin/signins_inside.h"

#define KEY_MAX       TOKEN_STORE_NAME_MAX
#define SAVE_AGAIN_MS 10000u
#define SOON_MS       (TOKEN_RETRY_MIN_MS + 1000u) /* a request waits for a fetch that is so near */

uint64_t signins_now_ms(const struct signin *s)
{
    return clock_now_ms(s->all->clock);
}

uint64_t signins_now_s(const struct signin *s)
{
    return token_clock_now(&s->clock, clock_wall_ms(s->all->clock) / 1000);
}

/* ---- The tokens' file ---- */

static void on_stored(void *ctx, const struct error *err)
{
    struct signin *s = ctx;

    s->puts--;
    if (err != NULL) {
        if (s->store_trouble[0] == '\0')
            log_event(LOG_LEVEL_ERROR, "tokens-not-saved", LOG_STR("mailbox", s->config.mailbox),
                      LOG_STR("reason", err->text), LOG_END);
        (void)snprintf(s->store_trouble, sizeof(s->store_trouble), "%s", err->text);
        s->save_again_ms = signins_now_ms(s) + SAVE_AGAIN_MS;
        signins_login_stored(s, false);
        return;
    }
    if (s->puts > 0)
        return;
    s->store_trouble[0] = '\0';
    s->save_again_ms = TOKEN_NEVER;
    token_saved(&s->token);
    signins_login_stored(s, true);
    signins_wake(s->all);
}

static void save(struct signin *s, bool signed_in)
{
    uint64_t now_ms = signins_now_ms(s);
    uint64_t left_ms = s->token.ends_ms > now_ms ? s->token.ends_ms - now_ms : 0;
    const struct token_record record = {.access = s->access != NULL ? secret_text(s->access) : "",
                                        .ends_s = signins_now_s(s) + left_ms / 1000,
                                        .life_s = s->life_s,
                                        .refresh =
                                            s->refresh != NULL ? secret_text(s->refresh) : "",
                                        .login_s = s->login_s,
                                        .used_s = s->used_s};

    if (token_store_put(s->all->store, s->key, &record, signed_in, on_stored, s))
        s->puts++;
    else
        s->save_again_ms = now_ms + SAVE_AGAIN_MS;
}

static struct secret *secret_of(const char *text)
{
    return text[0] != '\0' ? secret_from_text(text, strlen(text), NULL) : NULL;
}

static void restore(struct signin *s)
{
    struct token_record record;
    struct token_kept kept;

    if (!token_store_find(s->all->store, s->key, &record))
        return;
    s->access = secret_of(record.access);
    s->refresh = secret_of(record.refresh);
    s->life_s = record.life_s;
    s->login_s = record.login_s;
    s->used_s = record.used_s;
    kept = (struct token_kept){.has_access = s->access != NULL,
                               .has_refresh = s->refresh != NULL,
                               .ends_s = record.ends_s,
                               .life_s = record.life_s,
                               .used_s = record.used_s};
    token_restore(&s->token, &kept, signins_now_ms(s), signins_now_s(s));
}

/* ---- Fetching ---- */

struct ask *signins_ask(struct signin *s, const struct ask_settings *particulars,
                        ask_answered *answered, void *ctx)
{
    struct ask_settings settings = *particulars;

    settings.https = s->all->https;
    settings.executor = s->all->executor;
    settings.clock = s->all->clock;
    settings.config = &s->config;
    settings.token_clock = &s->clock;
    return ask_begin(&settings, answered, ctx);
}

void signins_fail(const struct signin *s, struct signins_failure *f, const struct ask_result *r)
{
    *f = (struct signins_failure){.advice = r->advice};
    memcpy(f->said, r->said, sizeof(f->said));
    memcpy(f->trace, r->trace, sizeof(f->trace));
    memcpy(f->correlation, r->correlation, sizeof(f->correlation));
    oauth_errors_fill(r->advice.how, s->config.mailbox, f->how, sizeof(f->how));
}

static void tell_failure(const struct signin *s, bool is_new)
{
    const struct signins_failure *f = &s->failure;
    enum log_level level = s->token.state == TOKEN_WAITING ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR;

    log_event(is_new ? level : LOG_LEVEL_DEBUG, "token-failed",
              LOG_STR("mailbox", s->config.mailbox), LOG_STR("name", f->advice.name),
              LOG_STR("state", token_state_name(s->token.state)), LOG_STR("what", f->advice.what),
              LOG_STR("who", f->advice.who), LOG_STR("how", f->how), LOG_STR("said", f->said),
              LOG_STR("trace", f->trace), LOG_STR("correlation", f->correlation), LOG_END);
}

static void deny(struct signin *s, const struct ask_result *result)
{
    const struct token_denial denial = {.action = result->advice.action,
                                        .wait_s = result->wait_s,
                                        .clock_was_wrong = result->clock_was_wrong};
    bool is_new =
        s->failure.advice.name == NULL || strcmp(s->failure.advice.name, result->advice.name) != 0;

    signins_fail(s, &s->failure, result);
    token_denied(&s->token, &denial, signins_now_ms(s), random_draw());
    tell_failure(s, is_new);
    signins_wake(s->all);
}

static const struct oauth_advice no_memory = {
    .name = "no_memory",
    .action = OAUTH_RETRY,
    .what = "There is no memory for the token.",
    .who = "whoever looks after this relay",
    .how = "It is tried again by itself.",
};

/* Without memory for a copy the old one stays. */
static bool replace(struct secret **secret, const char *text)
{
    struct secret *fresh = secret_of(text);

    if (fresh == NULL)
        return false;
    secret_free(*secret);
    *secret = fresh;
    return true;
}

static void tell_recovery(struct signin *s)
{
    struct signins *all = s->all;

    if (s->failure.advice.name != NULL)
        log_event(LOG_LEVEL_INFO, "sign-in-recovered", LOG_STR("mailbox", s->config.mailbox),
                  LOG_STR("was", s->failure.advice.name), LOG_END);
    s->failure = (struct signins_failure){.advice = {.name = NULL}};
    for (size_t i = 0; i < all->count && all->on_ready != NULL; i++)
        if (all->users[i].signin == s)
            all->on_ready(all->ctx, i);
}

void signins_adopt(struct signin *s, struct ask_result *result, bool signed_in)
{
    const struct grant_token *t = &result->token;
    struct token_gift gift = {.asked_ms = result->asked_ms, .life_s = t->life_s};

    if (!replace(&s->access, t->access)) {
        result->advice = no_memory;
        deny(s, result);
        return;
    }
    /* A service may return the one that was sent: nothing new to be kept. */
    if (t->refresh != NULL && s->config.grant == SIGNIN_PERSON &&
        (s->refresh == NULL || strcmp(secret_text(s->refresh), t->refresh) != 0))
        gift.refresh_came = replace(&s->refresh, t->refresh);
    s->life_s = t->life_s;
    s->fetched_s = signins_now_s(s);
    if (s->config.grant == SIGNIN_PERSON)
        s->used_s = s->fetched_s;
    if (signed_in)
        s->login_s = s->fetched_s;
    token_given(&s->token, &gift, random_draw());
    log_event(LOG_LEVEL_INFO, "token-fetched", LOG_STR("mailbox", s->config.mailbox),
              LOG_U64("life", t->life_s), LOG_END);
    save(s, signed_in);
    signins_wake(s->all);
    if (s->failure.advice.name != NULL || signed_in)
        tell_recovery(s);
}

static void on_answer(void *ctx, struct ask_result *result)
{
    struct signin *s = ctx;

    s->ask = NULL;
    if (result->certificate_ends_s != 0)
        s->certificate_ends_s = result->certificate_ends_s;
    if (result->given)
        signins_adopt(s, result, false);
    else
        deny(s, result);
}

static bool fetch(struct signin *s)
{
    const struct ask_settings particulars = {
        .what = ASK_TOKEN, .refresh = s->refresh != NULL ? secret_text(s->refresh) : NULL};

    if (s->all->stopped || s->ask != NULL || !token_wants_fetch(&s->token, signins_now_ms(s)))
        return s->ask != NULL;
    s->ask = signins_ask(s, &particulars, on_answer, s);
    if (s->ask != NULL)
        token_asked(&s->token);
    return s->ask != NULL;
}

void signins_tick(struct signins *s)
{
    for (struct signin *each = s->first; each != NULL; each = each->next) {
        if (each->save_again_ms <= signins_now_ms(each) && each->puts == 0 && !s->stopped) {
            each->save_again_ms = TOKEN_NEVER;
            save(each, false);
        }
        (void)fetch(each);
        signins_login_tick(each);
        signins_warn(each);
    }
    if (s->requests != NULL)
        signins_wake(s);
}

/* ---- Requests ---- */

void signins_wake(struct signins *all)
{
    if (!all->stopped)
        event_active(all->serve, EV_TIMEOUT, 0);
}

static const struct oauth_advice nobody_signed_in = {
    .name = "login_needed",
    .action = OAUTH_LOGIN,
    .what = "Nobody has signed in for this mailbox yet.",
    .who = "the person the mailbox signs in as",
    .how = "Run: outtray login MAILBOX (or outtray login --browser MAILBOX).",
};

static const struct oauth_advice token_refused = {
    .name = "token_refused",
    .action = OAUTH_PAUSE,
    .what = "The mail service refuses a fresh token, too.",
    .who = "the administrator of the mail service",
    .how = "Check what the application or the person may do at the mail service; see: outtray "
           "token MAILBOX",
};

static const struct oauth_advice not_saved = {
    .name = "tokens_not_saved",
    .action = OAUTH_RETRY,
    .what = "A new refresh token could not be written to disk, and is not used before it is.",
    .who = "whoever looks after this relay",
    .how = "Make room on the disk, or mend what the text says; it is tried again by itself.",
};

static const struct oauth_advice being_fetched = {
    .name = "token_awaited",
    .action = OAUTH_RETRY,
    .what = "A new token is being asked for.",
    .who = "nobody needs to",
    .how = "It comes by itself.",
};

static bool cannot_save(const struct signin *s)
{
    return s->token.refresh_unsaved && s->store_trouble[0] != '\0';
}

static const struct oauth_advice *advice_of(const struct signin *s, enum token_turn turn)
{
    if (turn == TOKEN_STOP)
        return &token_refused;
    if (s->failure.advice.name != NULL)
        return &s->failure.advice;
    if (s->token.state == TOKEN_LOGIN)
        return &nobody_signed_in;
    return cannot_save(s) ? &not_saved : &being_fetched;
}

static void tell_trouble(const struct signins_request *r, const struct signins_user *u,
                         enum token_turn turn)
{
    const struct signin *s = u->signin;
    const struct oauth_advice *advice = advice_of(s, turn);
    char how[SIGNINS_TEXT_MAX];
    struct signins_trouble trouble = {.state = turn == TOKEN_STOP ? TOKEN_READY : s->token.state,
                                      .retry_ms = turn == TOKEN_STOP ? u->share.probe_ms
                                                                     : token_next_ms(&s->token),
                                      .name = advice->name,
                                      .what = advice->what,
                                      .who = advice->who,
                                      .how = how,
                                      .said = ""};

    oauth_errors_fill(advice->how, s->config.mailbox, how, sizeof(how));
    if (advice == &s->failure.advice)
        trouble.said = s->failure.said;
    else if (advice == &nobody_signed_in)
        trouble.said = s->all->locked;
    else if (advice == &not_saved)
        trouble.said = s->store_trouble;
    if (trouble.retry_ms < signins_now_ms(s))
        trouble.retry_ms = signins_now_ms(s) + SAVE_AGAIN_MS;
    r->answered(r->ctx, NULL, &trouble);
}

/* False: it goes on waiting. */
static bool is_answered(const struct signins_user *u, enum token_turn turn)
{
    struct signin *s = u->signin;

    if (turn != TOKEN_WAIT)
        return true;
    if (fetch(s))
        return false;
    /* The last one was only just given, or its refresh token is on the way to the disk. */
    return s->token.state != TOKEN_READY || cannot_save(s) ||
           token_next_ms(&s->token) > signins_now_ms(s) + SOON_MS;
}

static void answer(const struct signins_request *r, const struct signins_user *u,
                   enum token_turn turn)
{
    const struct signin *s = u->signin;
    struct signins_token token;

    if (turn != TOKEN_USE || s->access == NULL) {
        tell_trouble(r, u, turn);
        return;
    }
    token = (struct signins_token){.text = secret_text(s->access),
                                   .generation = s->token.generation,
                                   .ends_ms = s->token.ends_ms};
    r->answered(r->ctx, &token, NULL);
}

/* Answers one of those before the serial. False when there is none. */
static bool serve_one(struct signins *all, uint64_t before)
{
    for (struct signins_request **at = &all->requests; *at != NULL; at = &(*at)->next) {
        struct signins_request *r = *at;
        struct signins_user *u = &all->users[r->mailbox];
        enum token_turn turn;

        if (r->serial >= before)
            return false;
        turn = token_user_turn(&u->share, &u->signin->token, clock_now_ms(all->clock));
        if (!is_answered(u, turn))
            continue;
        *at = r->next;
        answer(r, u, turn);
        free(r);
        return true;
    }
    return false;
}

static void on_serve(evutil_socket_t fd, short what, void *ctx)
{
    struct signins *all = ctx;
    uint64_t before = all->serial;

    (void)fd;
    (void)what;
    while (!all->stopped && serve_one(all, before))
        continue;
}

struct signins_request *signins_get(struct signins *s, size_t mailbox, signins_answered *answered,
                                    void *ctx)
{
    struct signins_request *r = calloc(1, sizeof(*r));
    struct signins_request **end = &s->requests;

    if (r == NULL)
        return NULL;
    *r = (struct signins_request){
        .all = s, .serial = s->serial++, .mailbox = mailbox, .answered = answered, .ctx = ctx};
    while (*end != NULL)
        end = &(*end)->next;
    *end = r;
    signins_wake(s);
    return r;
}

void signins_cancel(struct signins_request *request)
{
    struct signins_request **at;

    if (request == NULL)
        return;
    at = &request->all->requests;
    while (*at != request)
        at = &(*at)->next;
    *at = request->next;
    free(request);
}

/* ---- What the mail service says ---- */

enum signins_verdict signins_refused(struct signins *s, size_t mailbox, uint64_t generation,
                                     uint64_t *out_probe_ms)
{
    struct signins_user *u = &s->users[mailbox];
    enum token_turn turn = token_user_refused(&u->share, &u->signin->token, generation,
                                              clock_now_ms(s->clock), random_draw());

    log_event(LOG_LEVEL_WARN, "token-refused", LOG_STR("mailbox", u->signin->config.mailbox),
              LOG_STR("then", turn == TOKEN_STOP ? "pause" : "a fresh one"), LOG_END);
    if (turn != TOKEN_STOP)
        return SIGNINS_TRY_AGAIN;
    *out_probe_ms = u->share.probe_ms;
    return SIGNINS_PAUSE;
}

void signins_accepted(struct signins *s, size_t mailbox)
{
    token_user_accepted(&s->users[mailbox].share);
}

void signins_retry(struct signins *s, size_t mailbox)
{
    struct signins_user *u = &s->users[mailbox];

    if (u->signin == NULL)
        return;
    u->share.refusals = 0;
    u->share.probe_ms = 0;
    token_retry(&u->signin->token);
    (void)fetch(u->signin);
}

bool signins_is_set_up(const struct signins *s, size_t mailbox)
{
    const struct signin *n = s->users[mailbox].signin;

    return n != NULL && (n->access != NULL || n->refresh != NULL);
}

/* ---- From the configuration ---- */

static const struct signin_config no_oauth = {.mailbox = "",
                                              .token_url = "",
                                              .device_url = "",
                                              .authorize_url = "",
                                              .client_id = "",
                                              .scope = "",
                                              .login = "",
                                              .secret_file = "",
                                              .certificate = {"", "", ""},
                                              .service_file = "",
                                              .proxy = "",
                                              .ca_file = ""};

static const struct config_mailbox *owner_of(const struct config *c, const struct config_mailbox *m)
{
    for (size_t i = 0; i < c->mailbox_count; i++)
        if (strcmp(c->mailboxes[i].name, m->sign_in) == 0)
            return &c->mailboxes[i];
    return m;
}

static struct jwt_source certificate_of(const struct config_mailbox *m)
{
    if (m->private_key_file[0] != '\0')
        return (struct jwt_source){m->private_key_file, m->certificate_file, m->key_password_file};
    return (struct jwt_source){m->certificate_file, "", m->key_password_file};
}

bool signin_config_of(const struct config *config, size_t mailbox, struct signin_config *out)
{
    static const enum signin_grant grants[] = {
        [CONFIG_GRANT_CLIENT_CREDENTIALS] = SIGNIN_APP,
        [CONFIG_GRANT_DEVICE] = SIGNIN_PERSON,
        [CONFIG_GRANT_BROWSER] = SIGNIN_PERSON,
        [CONFIG_GRANT_JWT] = SIGNIN_SERVICE,
    };
    const struct config_mailbox *m = &config->mailboxes[mailbox];

    *out = no_oauth;
    if (!m->has_oauth)
        return false;
    *out = (struct signin_config){
        .mailbox = m->name,
        .grant = grants[m->grant],
        .token_url = m->token_url,
        .device_url = m->device_url,
        .authorize_url = m->authorize_url,
        .client_id = m->client_id,
        .scope = m->scope,
        .login = grants[m->grant] == SIGNIN_PERSON ? owner_of(config, m)->login : m->login,
        .secret_file = m->client_secret_file,
        .certificate = certificate_of(m),
        .style = m->signature == CONFIG_SIGNATURE_RS256 ? JWT_RS256 : JWT_PS256,
        .service_file = m->service_account_file,
        .proxy = config->proxy,
        .ca_file = m->token_ca_file,
        .secret_expires_s = m->secret_expires_ms / 1000};
    return true;
}

/* ---- Beginning and end ---- */

static void add_lower(struct bytes *b, const char *text)
{
    for (; *text != '\0'; text++)
        (void)bytes_byte(b, (uint8_t)(*text >= 'A' && *text <= 'Z' ? *text - 'A' + 'a' : *text));
}

/* What makes a token good for this sign-in and no other. An app's tokens are the same whoever's
 * mailbox asks. */
static char *key_of(const struct signin_config *c)
{
    static const char *const names[] = {"app", "person", "service"};
    struct bytes b;
    char *key;

    bytes_init(&b, KEY_MAX);
    (void)bytes_printf(&b, "%s\n%s\n%s\n%s\n", names[c->grant], c->token_url, c->client_id,
                       c->scope);
    if (c->grant == SIGNIN_SERVICE)
        (void)bytes_printf(&b, "%s\n", c->service_file);
    if (c->grant != SIGNIN_APP)
        add_lower(&b, c->login);
    key = b.failed ? NULL : strdup(bytes_string(&b));
    bytes_done(&b);
    return key;
}

static void signin_free(struct signin *s)
{
    signins_login_drop(s);
    ask_cancel(s->ask);
    secret_free(s->access);
    secret_free(s->refresh);
    free(s->key);
    free(s);
}

static struct signin *signin_new(struct signins *all, const struct signin_config *config, char *key)
{
    struct signin *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->all = all;
    s->config = *config;
    s->key = key;
    s->save_again_ms = TOKEN_NEVER;
    token_init(&s->token, config->grant == SIGNIN_PERSON);
    s->next = all->first;
    all->first = s;
    return s;
}

static struct signin *find_or_make(struct signins *all, const struct signin_config *config)
{
    char *key = key_of(config);
    struct signin *s = all->first;

    if (key == NULL)
        return NULL;
    while (s != NULL && strcmp(s->key, key) != 0)
        s = s->next;
    if (s != NULL) {
        free(key);
        return s;
    }
    s = signin_new(all, config, key);
    if (s == NULL)
        free(key);
    return s;
}

static bool make_signins(struct signins *all, const struct signins_settings *settings)
{
    all->users = calloc(settings->count + 1, sizeof(*all->users));
    all->count = settings->count;
    if (all->users == NULL)
        return false;
    for (size_t i = 0; i < settings->count; i++) {
        if (settings->mailboxes[i].mailbox[0] == '\0')
            continue;
        all->users[i].signin = find_or_make(all, &settings->mailboxes[i]);
        if (all->users[i].signin == NULL)
            return false;
        all->users[i].signin->users++;
    }
    return true;
}

static bool open_store(struct signins *all, const struct signins_settings *settings,
                       struct error *err)
{
    const struct token_store_options options = {.directory = settings->directory,
                                                .executor = settings->executor,
                                                .wall_s = clock_wall_ms(settings->clock) / 1000};
    struct error trouble = ERROR_INIT;
    enum token_store_found found;

    if (all->first == NULL)
        return true;
    all->store = token_store_open(&options, &found, &trouble);
    if (all->store == NULL)
        return error_set(err, trouble.kind, "%s", trouble.text);
    if (found == TOKEN_STORE_LOCKED)
        (void)snprintf(all->locked, sizeof(all->locked), "%s", trouble.text);
    if (found == TOKEN_STORE_LOCKED || found == TOKEN_STORE_DAMAGED)
        log_event(LOG_LEVEL_ERROR, "tokens-unreadable", LOG_STR("reason", trouble.text), LOG_END);
    for (struct signin *s = all->first; s != NULL; s = s->next)
        restore(s);
    return true;
}

struct signins *signins_new(const struct signins_settings *settings, struct error *err)
{
    struct signins *all = calloc(1, sizeof(*all));
    bool ok = all != NULL;

    if (ok) {
        all->base = settings->base;
        all->clock = settings->clock;
        all->executor = settings->executor;
        all->on_ready = settings->on_ready;
        all->ctx = settings->ctx;
        all->https = https_new(settings->base);
        all->serve = evtimer_new(settings->base, on_serve, all);
        ok = all->https != NULL && all->serve != NULL && make_signins(all, settings);
    }
    if (!ok)
        (void)error_set(err, ERROR_NO_ROOM, "prepare the sign-ins: out of memory");
    if (ok && open_store(all, settings, err))
        return all;
    signins_free(all);
    return NULL;
}

void signins_stop(struct signins *s)
{
    if (s == NULL)
        return;
    s->stopped = true;
    for (struct signin *each = s->first; each != NULL; each = each->next) {
        signins_login_drop(each);
        ask_cancel(each->ask);
        each->ask = NULL;
    }
    while (s->requests != NULL)
        signins_cancel(s->requests);
}

void signins_free(struct signins *s)
{
    if (s == NULL)
        return;
    signins_stop(s);
    while (s->first != NULL) {
        struct signin *gone = s->first;

        s->first = gone->next;
        signin_free(gone);
    }
    token_store_close(s->store);
    https_free(s->https);
    if (s->serve != NULL)
        event_free(s->serve);
    free(s->users);
    free(s);
}
