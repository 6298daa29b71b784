#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "relay/signin/oauth_errors.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct oauth_advice explain(enum oauth_asked asked, unsigned status, const char *error,
                                   uint32_t aadsts)
{
    const struct oauth_refusal r = {
        .asked = asked, .status = status, .error = error, .aadsts = aadsts};
    struct oauth_advice a = {.name = NULL};

    oauth_errors_explain(&r, &a);
    assert_non_null(a.name);
    assert_true(strlen(a.what) > 10 && strlen(a.who) > 5 && strlen(a.how) > 10);
    return a;
}

/* Microsoft's numbers with the error they usually come with. */
static void every_number_is_explained_and_acted_upon(void **state)
{
    static const struct {
        uint32_t number;
        const char *error;
        const char *name;
        enum oauth_action action;
    } rows[] = {
        {7000215, "invalid_client", "wrong_secret", OAUTH_PAUSE},
        {70002, "invalid_client", "wrong_secret", OAUTH_PAUSE},
        {7000222, "invalid_client", "secret_expired", OAUTH_PAUSE},
        {700027, "invalid_client", "wrong_certificate", OAUTH_PAUSE},
        {50012, "invalid_client", "wrong_certificate", OAUTH_PAUSE},
        {50013, "invalid_client", "wrong_certificate", OAUTH_PAUSE},
        {500133, "invalid_client", "wrong_certificate", OAUTH_PAUSE},
        {700024, "invalid_client", "wrong_certificate", OAUTH_PAUSE},
        {7000218, "invalid_client", "secret_missing", OAUTH_PAUSE},
        {700025, "invalid_client", "secret_not_wanted", OAUTH_PAUSE},
        {700016, "unauthorized_client", "app_not_found", OAUTH_PAUSE},
        {700011, "unauthorized_client", "app_not_found", OAUTH_PAUSE},
        {7000112, "unauthorized_client", "app_disabled", OAUTH_PAUSE},
        {70001, "unauthorized_client", "app_disabled", OAUTH_PAUSE},
        {90002, "invalid_request", "tenant_not_found", OAUTH_PAUSE},
        {90038, "invalid_request", "wrong_cloud", OAUTH_PAUSE},
        {900382, "invalid_request", "wrong_cloud", OAUTH_PAUSE},
        {50194, "invalid_request", "tenant_needed", OAUTH_PAUSE},
        {9001023, "invalid_request", "tenant_needed", OAUTH_PAUSE},
        {65001, "invalid_grant", "consent_missing", OAUTH_PAUSE},
        {90094, "consent_required", "consent_missing", OAUTH_PAUSE},
        {650056, "invalid_grant", "consent_missing", OAUTH_PAUSE},
        {65004, "invalid_grant", "consent_declined", OAUTH_PAUSE},
        {500011, "invalid_resource", "wrong_scope", OAUTH_PAUSE},
        {650057, "invalid_resource", "wrong_scope", OAUTH_PAUSE},
        {70011, "invalid_scope", "wrong_scope", OAUTH_PAUSE},
        {28002, "invalid_scope", "wrong_scope", OAUTH_PAUSE},
        {700022, "invalid_scope", "wrong_scope", OAUTH_PAUSE},
        {50034, "invalid_grant", "no_such_user", OAUTH_PAUSE},
        {50020, "invalid_grant", "no_such_user", OAUTH_PAUSE},
        {51004, "invalid_grant", "no_such_user", OAUTH_PAUSE},
        {50126, "invalid_grant", "bad_password", OAUTH_HALT},
        {50055, "invalid_grant", "password_expired", OAUTH_HALT},
        {50057, "invalid_grant", "account_disabled", OAUTH_HALT},
        {50053, "invalid_grant", "account_locked", OAUTH_HALT},
        {50076, "interaction_required", "mfa_needed", OAUTH_LOGIN},
        {50079, "invalid_grant", "mfa_needed", OAUTH_LOGIN},
        {50072, "invalid_grant", "mfa_needed", OAUTH_LOGIN},
        {50074, "interaction_required", "mfa_needed", OAUTH_LOGIN},
        {50158, "interaction_required", "mfa_needed", OAUTH_LOGIN},
        {53003, "access_denied", "access_policy", OAUTH_PAUSE},
        {53000, "invalid_grant", "access_policy", OAUTH_PAUSE},
        {530032, "invalid_grant", "access_policy", OAUTH_PAUSE},
        {530035, "invalid_grant", "access_policy", OAUTH_PAUSE},
        {70008, "invalid_grant", "login_over", OAUTH_LOGIN},
        {700082, "invalid_grant", "login_over", OAUTH_LOGIN},
        {50173, "invalid_grant", "login_over", OAUTH_LOGIN},
        {70043, "invalid_grant", "login_over", OAUTH_LOGIN},
        {70000, "invalid_grant", "login_over", OAUTH_LOGIN},
        {54005, "invalid_grant", "login_code_refused", OAUTH_LOGIN},
        {501481, "invalid_grant", "login_code_refused", OAUTH_LOGIN},
        {700005, "invalid_grant", "login_code_refused", OAUTH_LOGIN},
        {70016, "authorization_pending", "login_pending", OAUTH_PENDING},
        {70018, "bad_verification_code", "login_too_late", OAUTH_LOGIN},
        {70019, "expired_token", "login_too_late", OAUTH_LOGIN},
        {90120, "invalid_grant", "login_too_late", OAUTH_LOGIN},
        {50196, "invalid_grant", "too_many_requests", OAUTH_RETRY},
        {90033, "temporarily_unavailable", "service_trouble", OAUTH_RETRY},
        {90006, "server_error", "service_trouble", OAUTH_RETRY},
        {50033, "temporarily_unavailable", "service_trouble", OAUTH_RETRY},
        {90024, "temporarily_unavailable", "service_trouble", OAUTH_RETRY},
        {90012, "temporarily_unavailable", "service_trouble", OAUTH_RETRY},
        {90055, "temporarily_unavailable", "service_trouble", OAUTH_RETRY},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct oauth_advice a = explain(OAUTH_AS_USER, 400, rows[i].error, rows[i].number);

        print_message("  %u %s\n", rows[i].number, rows[i].error);
        assert_string_equal(a.name, rows[i].name);
        assert_string_equal(oauth_action_name(a.action), oauth_action_name(rows[i].action));
    }
}

static void what_has_no_number_is_judged_by_its_error_and_by_who_asked(void **state)
{
    static const struct {
        enum oauth_asked asked;
        const char *error;
        const char *name;
        enum oauth_action action;
    } rows[] = {
        {OAUTH_AS_APP, "invalid_client", "client_refused", OAUTH_PAUSE},
        {OAUTH_AS_USER, "invalid_client", "client_refused", OAUTH_PAUSE},
        {OAUTH_AS_USER, "invalid_grant", "login_over", OAUTH_LOGIN},
        {OAUTH_AS_APP, "invalid_grant", "app_refused", OAUTH_PAUSE},
        {OAUTH_AS_SERVICE, "invalid_grant", "service_account_refused", OAUTH_PAUSE},
        {OAUTH_AS_SERVICE, "unauthorized_client", "delegation_missing", OAUTH_PAUSE},
        {OAUTH_AS_LOGIN, "authorization_pending", "login_pending", OAUTH_PENDING},
        {OAUTH_AS_LOGIN, "slow_down", "login_pending", OAUTH_SLOW_DOWN},
        {OAUTH_AS_APP, "slow_down", "too_many_requests", OAUTH_RETRY},
        {OAUTH_AS_LOGIN, "expired_token", "login_too_late", OAUTH_LOGIN},
        {OAUTH_AS_LOGIN, "access_denied", "login_declined", OAUTH_LOGIN},
        {OAUTH_AS_LOGIN, "authorization_declined", "login_declined", OAUTH_LOGIN},
        {OAUTH_AS_APP, "access_denied", "access_policy", OAUTH_PAUSE},
        {OAUTH_AS_APP, "temporarily_unavailable", "service_trouble", OAUTH_RETRY},
        {OAUTH_AS_APP, "unsupported_grant_type", "grant_unsupported", OAUTH_PAUSE},
        {OAUTH_AS_USER, "interaction_required", "mfa_needed", OAUTH_LOGIN},
        {OAUTH_AS_APP, "never_heard_of", "refused", OAUTH_PAUSE},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct oauth_advice a = explain(rows[i].asked, 400, rows[i].error, 0);

        print_message("  %s\n", rows[i].error);
        assert_string_equal(a.name, rows[i].name);
        assert_string_equal(oauth_action_name(a.action), oauth_action_name(rows[i].action));
    }
}

static void the_error_decides_and_the_number_chooses_the_words(void **state)
{
    struct oauth_advice a = explain(OAUTH_AS_APP, 400, "temporarily_unavailable", 7000215);

    (void)state;
    assert_string_equal(a.name, "wrong_secret");
    assert_int_equal(a.action, OAUTH_RETRY);
    a = explain(OAUTH_AS_APP, 400, "invalid_client", 90033);
    assert_string_equal(a.name, "service_trouble");
    assert_int_equal(a.action, OAUTH_PAUSE);
    a = explain(OAUTH_AS_APP, 400, "invalid_client", 123456789);
    assert_string_equal(a.name, "client_refused");
}

static void status_429_and_5xx_are_the_services_trouble_whatever_they_say(void **state)
{
    (void)state;
    assert_int_equal(explain(OAUTH_AS_APP, 429, "invalid_client", 7000215).action, OAUTH_RETRY);
    assert_int_equal(explain(OAUTH_AS_APP, 503, "", 0).action, OAUTH_RETRY);
    assert_int_equal(explain(OAUTH_AS_APP, 500, "invalid_grant", 0).action, OAUTH_RETRY);
    assert_string_equal(explain(OAUTH_AS_APP, 429, "", 0).name, "too_many_requests");
}

static void an_answer_that_is_no_oauth_is_tried_again(void **state)
{
    (void)state;
    assert_string_equal(explain(OAUTH_AS_APP, 302, "", 0).name, "redirected");
    assert_string_equal(explain(OAUTH_AS_APP, 200, "", 0).name, "not_oauth");
    assert_string_equal(explain(OAUTH_AS_APP, 404, "", 0).name, "not_oauth");
    assert_int_equal(explain(OAUTH_AS_APP, 302, "", 0).action, OAUTH_RETRY);
    assert_int_equal(explain(OAUTH_AS_APP, 404, "", 0).action, OAUTH_RETRY);
}

static void a_loop_of_requests_waits_five_minutes(void **state)
{
    (void)state;
    assert_int_equal(explain(OAUTH_AS_APP, 400, "invalid_grant", 50196).wait_s, 300);
    assert_int_equal(explain(OAUTH_AS_APP, 400, "invalid_client", 7000215).wait_s, 0);
}

static void the_mailboxs_name_is_filled_in_and_cut_to_size(void **state)
{
    char out[64];

    (void)state;
    oauth_errors_fill("Run: outtray login MAILBOX (or MAILBOX).", "office", out, sizeof(out));
    assert_string_equal(out, "Run: outtray login office (or office).");
    oauth_errors_fill("Run: outtray login MAILBOX now", "office", out, 22);
    assert_string_equal(out, "Run: outtray login of");
    oauth_errors_fill("nothing to fill", "office", out, sizeof(out));
    assert_string_equal(out, "nothing to fill");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_is_explained_and_acted_upon),
        cmocka_unit_test(what_has_no_number_is_judged_by_its_error_and_by_who_asked),
        cmocka_unit_test(the_error_decides_and_the_number_chooses_the_words),
        cmocka_unit_test(status_429_and_5xx_are_the_services_trouble_whatever_they_say),
        cmocka_unit_test(an_answer_that_is_no_oauth_is_tried_again),
        cmocka_unit_test(a_loop_of_requests_waits_five_minutes),
        cmocka_unit_test(the_mailboxs_name_is_filled_in_and_cut_to_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
