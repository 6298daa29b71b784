#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "relay/base/log.h"
#include "relay/submit/credential.h"

/* ---- sign-ins that do as told ---------------------------------------------------------------- */

struct signins {
    signins_answered *answered; /* of a question under way */
    void *ctx;
    unsigned asked;
    unsigned accepted;
    unsigned refused;
    enum signins_verdict verdict;
    uint64_t probe_ms;
    bool set_up;
    bool has_token;
};

struct signins_request *signins_get(struct signins *s, size_t mailbox, signins_answered *answered,
                                    void *ctx)
{
    assert_int_equal(mailbox, 7);
    s->answered = answered;
    s->ctx = ctx;
    s->asked++;
    return (struct signins_request *)s;
}

void signins_cancel(struct signins_request *request)
{
    if (request != NULL)
        ((struct signins *)request)->answered = NULL;
}

enum signins_verdict signins_refused(struct signins *s, size_t mailbox, uint64_t generation,
                                     uint64_t *out_probe_ms)
{
    (void)mailbox;
    (void)generation;
    s->refused++;
    *out_probe_ms = s->probe_ms;
    return s->verdict;
}

void signins_accepted(struct signins *s, size_t mailbox)
{
    (void)mailbox;
    s->accepted++;
}

void signins_retry(struct signins *s, size_t mailbox)
{
    (void)s;
    (void)mailbox;
}

bool signins_is_set_up(const struct signins *s, size_t mailbox)
{
    (void)mailbox;
    return s->set_up;
}

void signins_status(const struct signins *s, size_t mailbox, struct signins_status *out)
{
    (void)mailbox;
    *out = (struct signins_status){.has_token = s->has_token};
}

/* ---- the mailbox ----------------------------------------------------------------------------- */

struct fixture {
    struct config_mailbox config;
    struct mailbox mailbox;
    struct clock clock;
    struct signins signins;
    struct credential credential;
    unsigned changes;
};

static void on_change(void *ctx)
{
    ((struct fixture *)ctx)->changes++;
}

static int set_up(void **state)
{
    static struct fixture f;

    f = (struct fixture){.config = {.name = "office",
                                    .host = "smtp.example",
                                    .auth = CONFIG_AUTH_OAUTH2,
                                    .has_oauth = true,
                                    .address = "",
                                    .login = "",
                                    .password_file = "",
                                    .ca_file = "",
                                    .helo = "",
                                    .connections = 3},
                         .signins = {.set_up = true}};
    assert_true(mailbox_init(&f.mailbox, &f.config, NULL));
    clock_init(&f.clock);
    f.credential = (struct credential){.mailbox = &f.mailbox,
                                       .signins = &f.signins,
                                       .index = 7,
                                       .clock = &f.clock,
                                       .on_change = on_change,
                                       .ctx = &f};
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    credential_stop(&f->credential);
    mailbox_done(&f->mailbox);
    return 0;
}

static void give(struct fixture *f, const char *text, uint64_t generation)
{
    const struct signins_token token = {text, generation, clock_now_ms(&f->clock) + 3600000};
    signins_answered *answered = f->signins.answered;

    assert_non_null(answered);
    f->signins.answered = NULL;
    answered(f->signins.ctx, &token, NULL);
}

static void refuse(struct fixture *f, enum client_stage stage, const char *text,
                   uint64_t generation)
{
    struct reply reply;

    assert_true(reply_from_text(&reply, text));
    struct verdict v = verdict_of(stage, &reply);
    credential_judge(&f->credential, &v, stage, &reply, generation);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void a_token_is_asked_for_once_before_a_connection_is_opened(void **state)
{
    struct fixture *f = *state;

    assert_false(credential_is_ready(&f->credential));
    assert_false(credential_is_ready(&f->credential));
    assert_int_equal(f->signins.asked, 1);
    give(f, "t1", 1);
    assert_int_equal(f->changes, 1);
    assert_true(credential_is_ready(&f->credential));
    assert_int_equal(credential_generation(&f->credential), 1);
    assert_string_equal(secret_text(mailbox_secret(&f->mailbox)), "t1");
    clock_advance(&f->clock, MAILBOX_TOKEN_MS);
    assert_false(credential_is_ready(&f->credential)); /* the sign-in may have a newer one */
    assert_int_equal(f->signins.asked, 2);
}

static void a_refused_token_is_replaced_and_then_the_mailbox_pauses(void **state)
{
    struct fixture *f = *state;

    (void)credential_is_ready(&f->credential);
    give(f, "t1", 1);
    f->signins.verdict = SIGNINS_TRY_AGAIN;
    refuse(f, STAGE_AUTH, "535 5.7.3 Authentication unsuccessful", 1);
    assert_int_equal(f->mailbox.state, MAILBOX_READY);
    assert_null(mailbox_secret(&f->mailbox));
    assert_int_equal(mailbox_connections_allowed(&f->mailbox, clock_now_ms(&f->clock)), 1);
    assert_false(credential_is_ready(&f->credential));
    give(f, "t2", 2);
    f->signins.verdict = SIGNINS_PAUSE;
    f->signins.probe_ms = clock_now_ms(&f->clock) + 20 * 60 * 1000;
    refuse(f, STAGE_AUTH, "535 5.7.3 Authentication unsuccessful", 2);
    assert_int_equal(f->mailbox.state, MAILBOX_PAUSED);
    assert_in_range(f->mailbox.next_try_ms, f->signins.probe_ms, f->signins.probe_ms + 1000);
    assert_non_null(strstr(f->mailbox.remedy, "New-ServicePrincipal"));
}

static void of_several_connections_with_one_token_the_first_tells(void **state)
{
    struct fixture *f = *state;

    (void)credential_is_ready(&f->credential);
    give(f, "t1", 1);
    f->signins.verdict = SIGNINS_TRY_AGAIN;
    for (unsigned i = 0; i < 3; i++)
        refuse(f, STAGE_MAIL, "530 5.7.57 Client not authenticated", 1);
    assert_int_equal(f->signins.refused, 1);
    assert_int_equal(f->mailbox.state, MAILBOX_READY);
}

static void an_accepted_sign_in_does_not_begin_the_tries_anew(void **state)
{
    struct fixture *f = *state;

    f->signins.verdict = SIGNINS_TRY_AGAIN;
    for (uint64_t generation = 1; generation <= 2; generation++) {
        (void)credential_is_ready(&f->credential);
        give(f, "t", generation);
        mailbox_signed_in(&f->mailbox, "XOAUTH2");
        credential_accepted(&f->credential);
        refuse(f, STAGE_MAIL, "530 5.7.57 Client not authenticated", generation);
    }
    assert_int_equal(f->signins.accepted, 2);
    assert_int_equal(f->mailbox.state, MAILBOX_PAUSED);
}

static void a_refusal_of_something_else_is_the_mailbox_s(void **state)
{
    struct fixture *f = *state;

    (void)credential_is_ready(&f->credential);
    give(f, "t1", 1);
    refuse(f, STAGE_AUTH, "454 4.7.0 Temporary authentication failure", 1);
    assert_int_equal(f->signins.refused, 0);
    assert_int_equal(f->mailbox.state, MAILBOX_WAITING);
    assert_non_null(mailbox_secret(&f->mailbox));
}

static void trouble_with_the_token_is_told_in_its_own_words(void **state)
{
    struct fixture *f = *state;
    const struct signins_trouble trouble = {.state = TOKEN_LOGIN,
                                            .retry_ms = TOKEN_NEVER,
                                            .name = "sign_in_needed",
                                            .what = "Nobody has signed in.",
                                            .who = "somebody",
                                            .how = "Sign in.",
                                            .said = "invalid_grant"};

    (void)credential_is_ready(&f->credential);
    f->signins.answered(f->signins.ctx, NULL, &trouble);
    assert_int_equal(f->mailbox.state, MAILBOX_PAUSED);
    assert_string_equal(f->mailbox.problem, "Nobody has signed in.");
    assert_string_equal(f->mailbox.remedy, "somebody: Sign in.");
    assert_string_equal(f->mailbox.last_reply, "(secret) invalid_grant");
    credential_tick(&f->credential);
    assert_false(mailbox_is_usable(&f->mailbox, clock_now_ms(&f->clock)));
    f->signins.has_token = true; /* somebody has */
    credential_tick(&f->credential);
    assert_true(mailbox_is_usable(&f->mailbox, clock_now_ms(&f->clock)));
}

static void a_password_serves_until_oauth_is_set_up(void **state)
{
    struct fixture *f = *state;

    f->config.auth = CONFIG_AUTH_OAUTH2 | CONFIG_AUTH_PASSWORD;
    f->signins.set_up = false;
    assert_true(credential_is_ready(&f->credential));
    assert_int_equal(f->signins.asked, 0);
    assert_false(f->mailbox.with_token);
    assert_int_equal(credential_generation(&f->credential), 0);
    refuse(f, STAGE_AUTH, "535 5.7.3 Authentication unsuccessful", 0);
    assert_int_equal(f->mailbox.state, MAILBOX_PAUSED); /* tried once */
    assert_non_null(strstr(f->mailbox.remedy, "password_file"));
    f->signins.set_up = true;
    assert_false(credential_is_ready(&f->credential));
    assert_true(f->mailbox.with_token);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_token_is_asked_for_once_before_a_connection_is_opened),
        TEST(a_refused_token_is_replaced_and_then_the_mailbox_pauses),
        TEST(of_several_connections_with_one_token_the_first_tells),
        TEST(an_accepted_sign_in_does_not_begin_the_tries_anew),
        TEST(a_refusal_of_something_else_is_the_mailbox_s),
        TEST(trouble_with_the_token_is_told_in_its_own_words),
        TEST(a_password_serves_until_oauth_is_set_up),
    };

    log_setup(LOG_LEVEL_ERROR, LOG_TARGET_STDERR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
