#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

#include "relay/base/https.h"
#include "relay/base/log.h"
#include "relay/base/work.h"
#include "relay/signin/signins.h"
#include "tests/unit/oauth_fixture.h"

#define GUARD_MS  30000
#define MAILBOXES 4
#define CLIENT    "11111111-2222-3333-4444-555555555555"
#define MINUTE    UINT64_C(60000)
#define HOUR      (60 * MINUTE)

static struct oauth_fixture server;

/* What a request was told. */
struct ear {
    unsigned tokens;
    unsigned troubles;
    char token[16384];
    uint64_t generation;
    enum token_state state;
    uint64_t retry_ms;
    char name[64];
    char said[512];
    char how[512];
};

struct bench {
    char directory[64];
    char token_url[128];
    char device_url[128];
    char authorize_url[128];
    char key_file[128];
    char secret_file[128];
    struct signin_config mailboxes[MAILBOXES];
    size_t count;
    struct event_base *base;
    struct event *tick;
    struct clock clock;
    struct work *work;
    struct signins *signins;
    unsigned ready;
};

static void on_tick(evutil_socket_t fd, short what, void *ctx)
{
    struct bench *b = ctx;

    (void)fd;
    (void)what;
    signins_tick(b->signins);
}

static void on_ready(void *ctx, size_t mailbox)
{
    struct bench *b = ctx;

    (void)mailbox;
    b->ready++;
}

static void begin(struct bench *b)
{
    const struct timeval often = {.tv_usec = 20000};
    struct error err = ERROR_INIT;
    struct signins_settings settings = {.clock = &b->clock,
                                        .directory = b->directory,
                                        .mailboxes = b->mailboxes,
                                        .count = b->count,
                                        .on_ready = on_ready,
                                        .ctx = b};

    b->base = settings.base = event_base_new();
    b->work = work_new(b->base, &err);
    assert_non_null(b->work);
    settings.executor = work_executor(b->work);
    b->signins = signins_new(&settings, &err);
    assert_non_null(b->signins);
    b->tick = event_new(b->base, -1, EV_PERSIST, on_tick, b);
    event_add(b->tick, &often);
}

static void end(struct bench *b)
{
    signins_stop(b->signins);
    work_drain(b->work);
    signins_free(b->signins);
    event_free(b->tick);
    work_free(b->work);
    event_base_free(b->base);
}

static void restart(struct bench *b)
{
    end(b);
    begin(b);
}

static struct signin_config app(const struct bench *b)
{
    return (struct signin_config){.mailbox = "office",
                                  .grant = SIGNIN_APP,
                                  .token_url = b->token_url,
                                  .device_url = "",
                                  .authorize_url = "",
                                  .client_id = CLIENT,
                                  .scope = "https://outlook.office365.com/.default",
                                  .login = "scanner@office.test",
                                  .secret_file = b->secret_file,
                                  .certificate = {"", "", ""},
                                  .service_file = "",
                                  .proxy = HTTPS_PROXY_NONE,
                                  .ca_file = server.ca_file};
}

static struct signin_config person(const struct bench *b)
{
    struct signin_config c = app(b);

    c.grant = SIGNIN_PERSON;
    c.device_url = b->device_url;
    c.authorize_url = b->authorize_url;
    c.scope = "https://outlook.office.com/SMTP.Send offline_access";
    return c;
}

static int set_up(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));

    (void)snprintf(b->directory, sizeof(b->directory), "/tmp/outtray-signins-XXXXXX");
    assert_non_null(mkdtemp(b->directory));
    (void)snprintf(b->token_url, sizeof(b->token_url), "%s/t/oauth2/v2.0/token", server.url);
    (void)snprintf(b->device_url, sizeof(b->device_url), "%s/t/oauth2/v2.0/devicecode", server.url);
    (void)snprintf(b->authorize_url, sizeof(b->authorize_url), "%s/t/oauth2/v2.0/authorize",
                   server.url);
    (void)snprintf(b->key_file, sizeof(b->key_file), "%s/one.pem", server.directory);
    (void)snprintf(b->secret_file, sizeof(b->secret_file), "%s/secret", server.directory);
    b->mailboxes[0] = app(b);
    b->count = 1;
    clock_init(&b->clock);
    oauth_set(
        &server,
        "{\"forget\": true, \"rules\": [], \"life\": 3600, \"clock_ahead\": 0, \"token_pad\": 0, "
        "\"rotate\": true, \"refresh\": true, \"device_pending\": 1, "
        "\"device_slow_down\": 0, \"device_answer\": \"\", \"interval\": 1}");
    *state = b;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *b = *state;
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf %s", b->directory);
    assert_int_equal(system(command), 0);
    free(b);
    return 0;
}

/* Runs the loop until the condition holds. */
#define UNTIL(b, condition)                                                                        \
    do {                                                                                           \
        uint64_t limit = real_ms() + GUARD_MS;                                                     \
        while (!(condition)) {                                                                     \
            event_base_loop((b)->base, EVLOOP_ONCE);                                               \
            assert_true(real_ms() < limit);                                                        \
        }                                                                                          \
    } while (0)

static uint64_t real_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void run_for(struct bench *b, uint64_t ms)
{
    uint64_t end_ms = real_ms() + ms;

    while (real_ms() < end_ms)
        event_base_loop(b->base, EVLOOP_ONCE);
}

static void on_answer(void *ctx, const struct signins_token *token,
                      const struct signins_trouble *trouble)
{
    struct ear *e = ctx;

    assert_true((token == NULL) != (trouble == NULL));
    if (token != NULL) {
        e->tokens++;
        (void)snprintf(e->token, sizeof(e->token), "%s", token->text);
        e->generation = token->generation;
        return;
    }
    e->troubles++;
    e->state = trouble->state;
    e->retry_ms = trouble->retry_ms;
    (void)snprintf(e->name, sizeof(e->name), "%s", trouble->name);
    (void)snprintf(e->said, sizeof(e->said), "%s", trouble->said);
    (void)snprintf(e->how, sizeof(e->how), "%s", trouble->how);
    assert_true(trouble->what[0] != '\0' && trouble->who[0] != '\0');
}

static struct ear *get(struct bench *b, size_t mailbox)
{
    static struct ear e;

    e = (struct ear){.tokens = 0};
    assert_non_null(signins_get(b->signins, mailbox, on_answer, &e));
    assert_int_equal(e.tokens + e.troubles, 0);
    UNTIL(b, e.tokens + e.troubles > 0);
    return &e;
}

static struct signins_status status(struct bench *b)
{
    struct signins_status s;

    signins_status(b->signins, 0, &s);
    return s;
}

static long asked(const char *text)
{
    return oauth_requests(&server, text);
}

/* ---- Apps ---- */

static void an_app_gets_a_token_by_its_secret_and_keeps_it_over_a_restart(void **state)
{
    struct bench *b = *state;
    char first[16384];
    struct claims claims;

    begin(b);
    assert_int_equal(get(b, 0)->tokens, 1);
    assert_int_equal(asked("client_credentials"), 1);
    strcpy(first, get(b, 0)->token);
    assert_int_equal(asked("client_credentials"), 1);
    assert_true(signins_is_set_up(b->signins, 0));
    assert_true(signins_claims(b->signins, 0, &claims));
    assert_string_equal(claims.roles, "SMTP.SendAsApp");
    restart(b);
    assert_true(signins_is_set_up(b->signins, 0));
    assert_string_equal(get(b, 0)->token, first);
    run_for(b, 200);
    assert_int_equal(asked("client_credentials"), 1);
    end(b);
}

static void an_app_proves_itself_with_a_certificate_in_both_styles(void **state)
{
    static const struct {
        enum jwt_style style;
        const char *sent;
    } rows[] = {{JWT_PS256, "eyJhbGciOiJQUzI1NiIs"}, {JWT_RS256, "eyJhbGciOiJSUzI1NiIs"}};
    struct bench *b = *state;

    b->mailboxes[0].certificate.key = b->key_file;
    b->mailboxes[0].secret_file = "";
    for (size_t i = 0; i < 2; i++) {
        char command[128];

        b->mailboxes[0].style = rows[i].style;
        begin(b);
        assert_int_equal(get(b, 0)->tokens, 1);
        assert_int_equal(asked(rows[i].sent), 1);
        assert_in_range(status(b).certificate_ends_s, time(NULL) + 19 * 86400,
                        time(NULL) + 20 * 86400);
        assert_int_equal(status(b).warning_count, 1); /* within 30 days */
        assert_int_equal(status(b).warnings[0].kind, SIGNINS_CERTIFICATE_ENDS);
        end(b);
        (void)snprintf(command, sizeof(command), "rm %s/tokens", b->directory);
        assert_int_equal(system(command), 0);
    }
}

static void a_wrong_secret_pauses_with_words_and_a_mended_one_is_read_again(void **state)
{
    struct bench *b = *state;
    struct ear *e;
    char wrong[128];

    (void)snprintf(wrong, sizeof(wrong), "%s/wrong", server.directory);
    b->mailboxes[0].secret_file = wrong;
    begin(b);
    e = get(b, 0);
    assert_string_equal(e->name, "wrong_secret");
    assert_int_equal(e->state, TOKEN_PAUSED);
    assert_in_range(e->retry_ms, clock_now_ms(&b->clock) + 14 * MINUTE,
                    clock_now_ms(&b->clock) + 60 * MINUTE);
    assert_string_equal(status(b).trace, "trace-1");
    assert_non_null(strstr(e->said, "AADSTS7000215"));
    (void)get(b, 0);
    assert_int_equal(asked("client_credentials"), 1); /* not tried again at once */
    assert_false(signins_is_set_up(b->signins, 0));
    end(b);

    b->mailboxes[0].secret_file = "/nonexistent/secret";
    begin(b);
    e = get(b, 0);
    assert_string_equal(e->name, "own_files");
    assert_non_null(strstr(e->said, "/nonexistent/secret"));
    end(b);
    assert_int_equal(asked("client_credentials"), 1);

    b->mailboxes[0].secret_file = wrong;
    begin(b);
    (void)get(b, 0);
    oauth_set(&server, "{\"secret\": \"wrong\"}");
    signins_retry(b->signins, 0); /* a person says so */
    assert_int_equal(get(b, 0)->tokens, 1);
    assert_int_equal(b->ready, 1);
    assert_string_equal(status(b).name, "");
    oauth_set(&server, "{\"secret\": \"practice secret/+&=%\"}");
    end(b);
}

static void many_mailboxes_and_connections_make_one_request_at_a_time(void **state)
{
    struct bench *b = *state;
    static struct ear ears[30];

    for (size_t i = 0; i < 3; i++)
        b->mailboxes[i] = app(b);
    b->count = 3;
    oauth_set(&server, "{\"rules\": [{\"delay\": 0.2}]}");
    begin(b);
    memset(ears, 0, sizeof(ears));
    for (size_t i = 0; i < 30; i++)
        assert_non_null(signins_get(b->signins, i % 3, on_answer, &ears[i]));
    for (size_t i = 0; i < 30; i++)
        UNTIL(b, ears[i].tokens == 1);
    assert_int_equal(asked("client_credentials"), 1);
    assert_int_equal(status(b).shared_by, 3);
    end(b);
}

static void a_cancelled_request_hears_nothing(void **state)
{
    struct bench *b = *state;
    static struct ear gone;
    struct signins_request *r;

    begin(b);
    memset(&gone, 0, sizeof(gone));
    r = signins_get(b->signins, 0, on_answer, &gone);
    assert_int_equal(get(b, 0)->tokens, 1);
    assert_int_equal(gone.tokens, 1);
    r = signins_get(b->signins, 0, on_answer, &gone);
    signins_cancel(r);
    run_for(b, 100);
    assert_int_equal(gone.tokens, 1);
    assert_non_null(signins_get(b->signins, 0, on_answer, &gone));
    end(b); /* nor does one at the end */
    assert_int_equal(gone.tokens, 1);
}

static void tokens_of_twelve_kilobytes_are_fetched_and_kept(void **state)
{
    struct bench *b = *state;

    oauth_set(&server, "{\"token_pad\": 8900}");
    begin(b);
    assert_in_range(strlen(get(b, 0)->token), 12000, 12288);
    restart(b);
    assert_in_range(strlen(get(b, 0)->token), 12000, 12288);
    assert_int_equal(asked("client_credentials"), 1);
    end(b);
}

/* ---- Trouble at the service ---- */

static void an_outage_keeps_the_old_token_while_it_lives(void **state)
{
    struct bench *b = *state;
    char first[16384];
    struct ear *e;

    begin(b);
    strcpy(first, get(b, 0)->token);
    run_for(b, 50);
    oauth_set(&server, "{\"rules\": [{\"status\": 503, \"body\": \"\", \"times\": 1000}]}");
    clock_advance(&b->clock, 51 * MINUTE);
    UNTIL(b, status(b).state == TOKEN_WAITING);
    assert_string_equal(get(b, 0)->token, first);
    clock_advance(&b->clock, 10 * MINUTE);
    e = get(b, 0);
    assert_int_equal(e->troubles, 1);
    assert_string_equal(e->name, "service_trouble");
    oauth_set(&server, "{\"rules\": []}");
    end(b);
    begin(b); /* a restart asks at once */
    UNTIL(b, get(b, 0)->tokens == 1);
    end(b);
}

static void lies_of_the_service_are_told_and_outlived(void **state)
{
    static const struct {
        const char *rule;
        const char *name;
        const char *said;
    } rows[] = {
        {"{\"status\": 200, \"body\": \"<html>Log in to the hotel</html>\"}", "not_oauth",
         "a web page"},
        {"{\"status\": 200, \"body\": \"\"}", "not_oauth", "nothing in it"},
        {"{\"status\": 200, \"json\": {\"token_type\": \"mac\", \"access_token\": \"x\"}}",
         "not_oauth", "token_type"},
        {"{\"status\": 200, \"json\": {\"token_type\": \"Bearer\", \"access_token\": 5}}",
         "not_oauth", "without an access token"},
        {"{\"status\": 302, \"body\": \"\", \"headers\": {\"Location\": \"https://localhost/\"}}",
         "redirected", "HTTP 302"},
        {"{\"status\": 404, \"body\": \"<html>\"}", "not_oauth", "HTTP 404"},
        {"{\"status\": 429, \"body\": \"\", \"headers\": {\"Retry-After\": \"600\"}}",
         "too_many_requests", "HTTP 429"},
        {"{\"drop\": true}", "unreachable", "token: "},
    };
    struct bench *b = *state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char json[512];
        struct ear *e;

        print_message("  %s\n", rows[i].rule);
        (void)snprintf(json, sizeof(json), "{\"rules\": [%s]}", rows[i].rule);
        oauth_set(&server, json);
        begin(b);
        e = get(b, 0);
        assert_int_equal(e->troubles, 1);
        assert_string_equal(e->name, rows[i].name);
        assert_non_null(strstr(e->said, rows[i].said));
        assert_int_equal(e->state, TOKEN_WAITING);
        if (strstr(rows[i].rule, "429") != NULL)
            assert_in_range(e->retry_ms, clock_now_ms(&b->clock) + 590000,
                            clock_now_ms(&b->clock) + 600000);
        clock_advance(&b->clock, 11 * MINUTE);
        assert_int_equal(get(b, 0)->tokens, 1);
        end(b);
        (void)snprintf(json, sizeof(json), "rm %s/tokens", b->directory);
        assert_int_equal(system(json), 0);
    }
}

static void a_clock_that_is_wrong_by_a_day_is_corrected_by_the_services(void **state)
{
    static const char *const ahead[] = {"{\"clock_ahead\": 90000}", "{\"clock_ahead\": -90000}"};
    struct bench *b = *state;

    b->mailboxes[0].certificate.key = b->key_file;
    b->mailboxes[0].secret_file = "";
    for (size_t i = 0; i < 2; i++) {
        char command[128];

        oauth_set(&server, "{\"forget\": true}");
        oauth_set(&server, ahead[i]);
        begin(b);
        UNTIL(b, get(b, 0)->tokens == 1);
        assert_int_equal(asked("client_credentials"), 2);
        assert_in_range(status(b).clock_ahead_s * (i == 0 ? 1 : -1), 89990, 90010);
        end(b);
        (void)snprintf(command, sizeof(command), "rm %s/tokens", b->directory);
        assert_int_equal(system(command), 0);
    }
}

/* ---- Trouble at the mail service ---- */

static void a_refused_token_is_replaced_once_and_then_the_mailbox_pauses(void **state)
{
    struct bench *b = *state;
    uint64_t probe_ms = 0;
    struct ear *e;
    char first[16384];

    b->mailboxes[1] = app(b);
    b->mailboxes[1].mailbox = "other";
    b->count = 2;
    begin(b);
    e = get(b, 0);
    strcpy(first, e->token);
    assert_int_equal(signins_refused(b->signins, 0, 1, &probe_ms), SIGNINS_TRY_AGAIN);
    assert_string_equal(get(b, 1)->token, first); /* it is good enough for the other */
    clock_advance(&b->clock, 5000);
    e = get(b, 0);
    assert_int_equal(e->tokens, 1);
    assert_int_equal(e->generation, 2);
    assert_string_not_equal(e->token, first);
    assert_int_equal(signins_refused(b->signins, 0, 2, &probe_ms), SIGNINS_PAUSE);
    assert_in_range(probe_ms, clock_now_ms(&b->clock) + 14 * MINUTE,
                    clock_now_ms(&b->clock) + 60 * MINUTE);
    e = get(b, 0);
    assert_string_equal(e->name, "token_refused");
    assert_int_equal(e->retry_ms, probe_ms);
    assert_int_equal(get(b, 1)->tokens, 1);
    assert_int_equal(asked("client_credentials"), 2);
    clock_advance(&b->clock, 61 * MINUTE);
    e = get(b, 0);
    assert_int_equal(e->tokens, 1);
    assert_int_equal(e->generation, 3);
    signins_accepted(b->signins, 0);
    assert_int_equal(get(b, 0)->tokens, 1);
    end(b);
}

/* ---- People ---- */

static struct signins_login login(struct bench *b)
{
    struct signins_login l;

    signins_login_status(b->signins, 0, &l);
    return l;
}

static void sign_in(struct bench *b)
{
    struct error err = ERROR_INIT;

    oauth_set(&server, "{\"device_pending\": 0}");
    assert_true(signins_login_device(b->signins, 0, &err));
    UNTIL(b, login(b).state == SIGNINS_LOGIN_WAITING);
    clock_advance(&b->clock, 1000);
    UNTIL(b, login(b).state >= SIGNINS_LOGIN_DONE);
    assert_int_equal(login(b).state, SIGNINS_LOGIN_DONE);
}

static void a_person_signs_in_by_device_code(void **state)
{
    struct bench *b = *state;
    struct error err = ERROR_INIT;
    struct ear *e;

    b->mailboxes[0] = person(b);
    begin(b);
    e = get(b, 0);
    assert_string_equal(e->name, "login_needed");
    assert_string_equal(e->how, "Run: outtray login office (or outtray login --browser office).");
    assert_true(e->retry_ms == TOKEN_NEVER);
    oauth_set(&server, "{\"device_slow_down\": 1}");
    assert_true(signins_login_device(b->signins, 0, &err));
    assert_int_equal(login(b).state, SIGNINS_LOGIN_ASKING);
    UNTIL(b, login(b).state == SIGNINS_LOGIN_WAITING);
    assert_string_equal(login(b).user_code, "PRACTICE1");
    assert_string_equal(login(b).url, "https://localhost/device");
    UNTIL(b, asked("device_code\":") == 1); /* slow_down: six seconds between them from now on */
    run_for(b, 1500);
    assert_int_equal(asked("device_code\":"), 1);
    clock_advance(&b->clock, 6000);
    UNTIL(b, asked("device_code\":") == 2);
    run_for(b, 100);
    clock_advance(&b->clock, 6000);
    UNTIL(b, login(b).state == SIGNINS_LOGIN_DONE);
    assert_string_equal(login(b).who_signed_in, "scanner@office.test");
    assert_int_equal(b->ready, 1);
    assert_int_equal(get(b, 0)->tokens, 1);
    restart(b);
    assert_int_equal(get(b, 0)->tokens, 1);
    assert_true(status(b).login_s > 0);
    end(b);
}

static void a_person_who_declines_or_is_too_late_is_told(void **state)
{
    struct bench *b = *state;
    struct error err = ERROR_INIT;

    b->mailboxes[0] = person(b);
    begin(b);
    oauth_set(&server, "{\"device_answer\": \"authorization_declined\"}");
    assert_true(signins_login_device(b->signins, 0, &err));
    UNTIL(b, login(b).state == SIGNINS_LOGIN_FAILED);
    assert_string_equal(login(b).name, "login_declined");
    oauth_set(&server, "{\"device_answer\": \"expired_token\"}");
    assert_true(signins_login_device(b->signins, 0, &err));
    UNTIL(b, login(b).state == SIGNINS_LOGIN_FAILED);
    assert_string_equal(login(b).name, "login_too_late");
    oauth_set(&server, "{\"device_answer\": \"\", \"device_pending\": 100000}");
    assert_true(signins_login_device(b->signins, 0, &err));
    UNTIL(b, login(b).state == SIGNINS_LOGIN_WAITING);
    clock_advance(&b->clock, 16 * MINUTE);
    UNTIL(b, login(b).state == SIGNINS_LOGIN_FAILED);
    assert_string_equal(login(b).name, "login_too_late");
    oauth_set(&server, "{\"device_pending\": 0, \"refresh\": false}");
    assert_true(signins_login_device(b->signins, 0, &err));
    UNTIL(b, login(b).state == SIGNINS_LOGIN_FAILED);
    assert_string_equal(login(b).name, "no_refresh_token");
    signins_login_cancel(b->signins, 0);
    assert_int_equal(login(b).state, SIGNINS_LOGIN_NONE);
    end(b);
    b->mailboxes[0] = app(b);
    begin(b);
    assert_false(signins_login_device(b->signins, 0, &err));
    end(b);
}

static void a_person_signs_in_in_a_browser_with_pkce(void **state)
{
    struct bench *b = *state;
    struct error err = ERROR_INIT;
    char url[SIGNINS_URL_MAX];
    char back[4096];
    char forged[256];
    const char *query;

    b->mailboxes[0] = person(b);
    begin(b);
    assert_true(signins_login_browser(b->signins, 0, "http://localhost:8123/", url, &err));
    oauth_browse(&server, url, back, sizeof(back));
    assert_memory_equal(back, "http://localhost:8123/?", 23);
    query = strchr(back, '?') + 1;
    (void)snprintf(forged, sizeof(forged), "code=abc&state=%043d", 0);
    assert_false(signins_login_redirect(b->signins, 0, forged, &err));
    assert_int_equal(err.kind, ERROR_UNTRUSTED);
    assert_false(signins_login_redirect(b->signins, 0, "rubbish", &err));
    assert_true(signins_login_redirect(b->signins, 0, query, &err));
    UNTIL(b, login(b).state == SIGNINS_LOGIN_DONE);
    assert_int_equal(get(b, 0)->tokens, 1);
    assert_false(signins_login_redirect(b->signins, 0, query, &err)); /* once */
    assert_true(signins_login_browser(b->signins, 0, "http://localhost:1/", url, &err));
    assert_true(signins_login_redirect(b->signins, 0,
                                       "error=access_denied&error_description=AADSTS65004", &err));
    assert_string_equal(login(b).name, "consent_declined");
    assert_int_equal(get(b, 0)->tokens, 1); /* the earlier sign-in stands */
    end(b);
}

static void refresh_tokens_rotate_and_each_is_used_once(void **state)
{
    struct bench *b = *state;

    b->mailboxes[0] = person(b);
    begin(b);
    sign_in(b);
    for (int i = 1; i <= 3; i++) {
        clock_advance(&b->clock, 51 * MINUTE);
        UNTIL(b, asked("\"refresh_token\": \"refresh-") == i);
        UNTIL(b, !status(b).fetching);
        assert_string_equal(status(b).name, ""); /* a second use is refused by this service */
        run_for(b, 100);
        if (i == 2)
            restart(b);
    }
    end(b);
    /* Services that do not rotate leave us what we have. */
    oauth_set(&server, "{\"rotate\": false}");
    begin(b);
    clock_advance(&b->clock, HOUR);
    UNTIL(b, asked("\"refresh_token\": \"refresh-") == 4);
    UNTIL(b, !status(b).fetching);
    restart(b);
    clock_advance(&b->clock, HOUR);
    UNTIL(b, asked("\"refresh_token\": \"refresh-") == 5);
    UNTIL(b, !status(b).fetching);
    assert_string_equal(status(b).name, "");
    end(b);
}

static void a_refresh_token_that_ended_asks_for_the_person(void **state)
{
    struct bench *b = *state;
    struct ear *e;

    b->mailboxes[0] = person(b);
    begin(b);
    sign_in(b);
    oauth_set(&server,
              "{\"rules\": [{\"status\": 400, \"json\": {\"error\": \"invalid_grant\", "
              "\"error_codes\": [50173], \"error_description\": \"AADSTS50173: revoked\"}}]}");
    clock_advance(&b->clock, 51 * MINUTE);
    UNTIL(b, status(b).state == TOKEN_LOGIN);
    assert_int_equal(get(b, 0)->tokens, 1); /* while the old one lives */
    clock_advance(&b->clock, 10 * MINUTE);
    e = get(b, 0);
    assert_string_equal(e->name, "login_over");
    sign_in(b);
    assert_int_equal(get(b, 0)->tokens, 1);
    end(b);
}

static void a_refresh_token_that_cannot_be_saved_is_not_used(void **state)
{
    struct bench *b = *state;
    char blocked[128];
    char command[512];

    b->mailboxes[0] = person(b);
    begin(b);
    sign_in(b);
    (void)snprintf(blocked, sizeof(blocked), "%s/tokens.new", b->directory);
    (void)snprintf(command, sizeof(command), "mkdir %s && touch %s/x", blocked, blocked);
    assert_int_equal(system(command), 0);
    clock_advance(&b->clock, 51 * MINUTE);
    UNTIL(b, status(b).store_trouble[0] != '\0');
    clock_advance(&b->clock, 51 * MINUTE);
    run_for(b, 100);
    assert_int_equal(asked("\"refresh_token\": \"refresh-"), 1);
    assert_int_equal(get(b, 0)->tokens, 1);
    clock_advance(&b->clock, 10 * MINUTE);
    assert_string_equal(get(b, 0)->name, "tokens_not_saved");
    (void)snprintf(command, sizeof(command), "rm -r %s", blocked);
    assert_int_equal(system(command), 0);
    clock_advance(&b->clock, 11000);
    UNTIL(b, asked("\"refresh_token\": \"refresh-") == 2);
    UNTIL(b, status(b).has_token);
    assert_string_equal(status(b).store_trouble, "");
    end(b);
}

/* ---- Google ---- */

static void write_service_account(const struct bench *b, const char *file)
{
    char command[1024];

    (void)snprintf(command, sizeof(command),
                   "cd %s && umask 077 && python3 -c \"import json; "
                   "print(json.dumps({'type': 'service_account', 'client_email': 'robot@p.test', "
                   "'private_key_id': 'k1', 'private_key': open('%s/one.key').read()}))\" > %s",
                   b->directory, server.directory, file);
    assert_int_equal(system(command), 0);
}

static void a_service_account_signs_for_its_mailbox(void **state)
{
    struct bench *b = *state;
    char file[128];

    (void)snprintf(file, sizeof(file), "%s/google.json", b->directory);
    write_service_account(b, "google.json");
    b->mailboxes[0].grant = SIGNIN_SERVICE;
    b->mailboxes[0].client_id = "";
    b->mailboxes[0].secret_file = "";
    b->mailboxes[0].scope = "https://mail.google.com/";
    b->mailboxes[0].service_file = file;
    begin(b);
    assert_int_equal(get(b, 0)->tokens, 1);
    assert_int_equal(asked("jwt-bearer"), 1);
    end(b);
    assert_int_equal(truncate(file, 100), 0);
    b->mailboxes[0].login = "second@office.test";
    begin(b);
    assert_string_equal(get(b, 0)->name, "own_files");
    end(b);
}

static int start(void **state)
{
    (void)state;
    (void)signal(SIGPIPE, SIG_IGN);
    oauth_start(&server);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    oauth_stop(&server);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_app_gets_a_token_by_its_secret_and_keeps_it_over_a_restart),
        TEST(an_app_proves_itself_with_a_certificate_in_both_styles),
        TEST(a_wrong_secret_pauses_with_words_and_a_mended_one_is_read_again),
        TEST(many_mailboxes_and_connections_make_one_request_at_a_time),
        TEST(a_cancelled_request_hears_nothing),
        TEST(tokens_of_twelve_kilobytes_are_fetched_and_kept),
        TEST(an_outage_keeps_the_old_token_while_it_lives),
        TEST(lies_of_the_service_are_told_and_outlived),
        TEST(a_clock_that_is_wrong_by_a_day_is_corrected_by_the_services),
        TEST(a_refused_token_is_replaced_once_and_then_the_mailbox_pauses),
        TEST(a_person_signs_in_by_device_code),
        TEST(a_person_who_declines_or_is_too_late_is_told),
        TEST(a_person_signs_in_in_a_browser_with_pkce),
        TEST(refresh_tokens_rotate_and_each_is_used_once),
        TEST(a_refresh_token_that_ended_asks_for_the_person),
        TEST(a_refresh_token_that_cannot_be_saved_is_not_used),
        TEST(a_service_account_signs_for_its_mailbox),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
