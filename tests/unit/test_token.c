#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/signin/token.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define BEGIN        UINT64_C(50000000)
#define MINUTE       UINT64_C(60000)
#define HOUR         (60 * MINUTE)
#define DAY          (24 * HOUR)

static void give(struct token *t, uint64_t asked_ms, uint32_t life_s, bool refresh)
{
    const struct token_gift gift = {
        .asked_ms = asked_ms, .life_s = life_s, .refresh_came = refresh};

    token_asked(t);
    token_given(t, &gift, 0);
}

static void deny(struct token *t, enum oauth_action action, uint64_t wait_s, uint64_t now_ms,
                 uint32_t jitter)
{
    const struct token_denial d = {.action = action, .wait_s = wait_s};

    token_asked(t);
    token_denied(t, &d, now_ms, jitter);
}

static struct token app_with(uint64_t asked_ms, uint32_t life_s)
{
    struct token t;

    token_init(&t, false);
    give(&t, asked_ms, life_s, false);
    return t;
}

static void the_first_token_is_fetched_at_once_and_one_at_a_time(void **state)
{
    struct token t;

    (void)state;
    token_init(&t, false);
    assert_true(token_wants_fetch(&t, BEGIN));
    assert_false(token_is_usable(&t, BEGIN));
    token_asked(&t);
    assert_false(token_wants_fetch(&t, BEGIN));
    assert_false(token_wants_fetch(&t, BEGIN + DAY));
}

static void the_next_one_is_fetched_ahead_of_need(void **state)
{
    static const struct {
        uint32_t life_s;
        uint64_t latest_ms; /* with the smallest jitter, after the request */
        uint64_t earliest_ms;
    } rows[] = {
        {3600, 50 * MINUTE, 48 * MINUTE},
        {5400, 80 * MINUTE, 78 * MINUTE},
        {1200, 10 * MINUTE, 8 * MINUTE},
        {1199, 599500, 539551}, /* half its life */
        {60, 30000, 27000},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct token_gift gift = {.asked_ms = BEGIN, .life_s = rows[i].life_s};
        struct token t = app_with(BEGIN, rows[i].life_s);

        print_message("  %u s\n", rows[i].life_s);
        assert_false(token_wants_fetch(&t, BEGIN + rows[i].latest_ms - 1));
        assert_true(token_wants_fetch(&t, BEGIN + rows[i].latest_ms));
        token_given(&t, &gift, UINT32_MAX);
        assert_in_range(token_next_ms(&t), BEGIN + rows[i].earliest_ms - 2,
                        BEGIN + rows[i].earliest_ms + 2);
    }
}

static void a_token_is_used_until_shortly_before_its_end(void **state)
{
    struct token t = app_with(BEGIN, 3600);

    (void)state;
    assert_true(token_is_usable(&t, BEGIN + HOUR - TOKEN_MARGIN_MS - 1));
    assert_false(token_is_usable(&t, BEGIN + HOUR - TOKEN_MARGIN_MS));
    t = app_with(BEGIN, 4); /* too short for the margin: three quarters of it can be used */
    assert_true(token_is_usable(&t, BEGIN + 2999));
    assert_false(token_is_usable(&t, BEGIN + 3000));
}

static void tokens_that_live_seconds_are_not_fetched_in_a_tight_loop(void **state)
{
    struct token t = app_with(BEGIN, 1);
    const struct token_user u = {.refusals = 0};

    (void)state;
    assert_int_equal(token_user_turn(&u, &t, BEGIN + 900), TOKEN_WAIT);
    assert_false(token_wants_fetch(&t, BEGIN + 4999));
    assert_true(token_wants_fetch(&t, BEGIN + 5000));
}

static void an_outage_keeps_the_old_token_and_waits_longer_each_time(void **state)
{
    struct token t = app_with(BEGIN, 3600);
    uint64_t now = BEGIN + 50 * MINUTE;
    uint64_t last = 0;

    (void)state;
    while (now < BEGIN + 59 * MINUTE) {
        uint64_t wait;

        assert_true(token_wants_fetch(&t, now));
        deny(&t, OAUTH_RETRY, 0, now, 0);
        assert_int_equal(t.state, TOKEN_WAITING);
        assert_true(token_is_usable(&t, now));
        wait = token_next_ms(&t) - now;
        assert_true(wait >= last && wait <= TOKEN_RETRY_MAX_MS);
        last = wait;
        now += wait;
    }
    assert_true(last > 2 * MINUTE);
    give(&t, now, 3600, false);
    assert_int_equal(t.state, TOKEN_READY);
    deny(&t, OAUTH_RETRY, 0, now + HOUR, 0);
    assert_true(token_next_ms(&t) - now - HOUR < 2 * TOKEN_RETRY_MIN_MS); /* begins anew */
}

static void the_service_says_how_long_to_wait_within_reason(void **state)
{
    struct token t;

    (void)state;
    token_init(&t, false);
    deny(&t, OAUTH_RETRY, 77, BEGIN, 0);
    assert_int_equal(token_next_ms(&t), BEGIN + 77000);
    deny(&t, OAUTH_RETRY, 86400, BEGIN, 0);
    assert_int_equal(token_next_ms(&t), BEGIN + HOUR);
}

static void what_needs_a_person_is_probed_every_15_to_60_minutes(void **state)
{
    struct token t;

    (void)state;
    token_init(&t, false);
    deny(&t, OAUTH_PAUSE, 0, BEGIN, 0);
    assert_int_equal(t.state, TOKEN_PAUSED);
    assert_int_equal(token_next_ms(&t), BEGIN + 15 * MINUTE);
    deny(&t, OAUTH_PAUSE, 0, BEGIN, UINT32_MAX);
    assert_int_equal(token_next_ms(&t), BEGIN + 60 * MINUTE);
    deny(&t, OAUTH_LOGIN, 0, BEGIN, 0);
    assert_int_equal(t.state, TOKEN_LOGIN);
    assert_int_equal(token_next_ms(&t), BEGIN + 15 * MINUTE);
}

static void what_counts_against_the_account_is_not_tried_again(void **state)
{
    struct token t;

    (void)state;
    token_init(&t, false);
    deny(&t, OAUTH_HALT, 0, BEGIN, 0);
    assert_int_equal(token_next_ms(&t), TOKEN_NEVER);
    assert_false(token_wants_fetch(&t, BEGIN + 90 * DAY));
    token_retry(&t);
    assert_true(token_wants_fetch(&t, BEGIN + 1));
}

static void a_person_who_says_it_is_mended_is_believed_at_once(void **state)
{
    struct token t = app_with(BEGIN, 3600);

    (void)state;
    deny(&t, OAUTH_PAUSE, 0, BEGIN, 0);
    assert_false(token_wants_fetch(&t, BEGIN + 1));
    token_retry(&t);
    assert_true(token_wants_fetch(&t, BEGIN + 1));
}

static void a_wrong_clock_is_mended_at_once_but_only_once(void **state)
{
    const struct token_denial d = {.action = OAUTH_PAUSE, .clock_was_wrong = true};
    struct token t;

    (void)state;
    token_init(&t, false);
    token_asked(&t);
    token_denied(&t, &d, BEGIN, 0);
    assert_true(token_wants_fetch(&t, BEGIN));
    token_asked(&t);
    token_denied(&t, &d, BEGIN, 0);
    assert_int_equal(t.state, TOKEN_PAUSED);
    assert_false(token_wants_fetch(&t, BEGIN + MINUTE));
}

static void a_person_must_sign_in_before_anything_is_asked(void **state)
{
    struct token t;

    (void)state;
    token_init(&t, true);
    assert_int_equal(t.state, TOKEN_LOGIN);
    assert_int_equal(token_next_ms(&t), TOKEN_NEVER);
    token_retry(&t);
    assert_false(token_wants_fetch(&t, BEGIN));
    give(&t, BEGIN, 3600, true);
    assert_int_equal(t.state, TOKEN_READY);
}

static void a_refresh_token_is_not_used_before_it_is_durable(void **state)
{
    struct token t;

    (void)state;
    token_init(&t, true);
    give(&t, BEGIN, 3600, true);
    assert_true(token_is_usable(&t, BEGIN)); /* the access token is */
    assert_false(token_wants_fetch(&t, BEGIN + HOUR));
    token_saved(&t);
    assert_true(token_wants_fetch(&t, BEGIN + HOUR));
}

static void a_sign_in_without_refresh_token_needs_the_person_again(void **state)
{
    struct token t;

    (void)state;
    token_init(&t, true);
    give(&t, BEGIN, 3600, false);
    assert_true(token_is_usable(&t, BEGIN));
    assert_int_equal(t.state, TOKEN_LOGIN);
    assert_false(token_wants_fetch(&t, BEGIN + HOUR));
}

static void a_refresh_token_is_used_at_least_weekly(void **state)
{
    struct token t;

    (void)state;
    token_init(&t, true);
    give(&t, BEGIN, 30 * 86400, true);
    token_saved(&t);
    assert_false(token_wants_fetch(&t, BEGIN + 5 * DAY));
    assert_true(token_wants_fetch(&t, BEGIN + 7 * DAY));
}

static void a_restart_keeps_what_is_left(void **state)
{
    static const struct {
        const char *name;
        uint64_t ends_s; /* wall time now: 1000000 */
        uint32_t life_s;
        uint64_t usable_until_ms; /* after the start, without the margin; 0 = not at all */
        bool fetch_now;
    } rows[] = {
        {"half an hour left", 1001800, 3600, 30 * MINUTE, false},
        {"over", 1000000, 3600, 0, true},
        {"long over", 900000, 3600, 0, true},
        {"a clock that went back a year", 31000000, 3600, HOUR, true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct token_kept kept = {
            .has_access = true, .ends_s = rows[i].ends_s, .life_s = rows[i].life_s};
        struct token t;

        print_message("  %s\n", rows[i].name);
        token_init(&t, false);
        token_restore(&t, &kept, BEGIN, 1000000);
        assert_int_equal(token_is_usable(&t, BEGIN), rows[i].usable_until_ms > 0);
        assert_int_equal(token_wants_fetch(&t, BEGIN), rows[i].fetch_now);
        assert_false(token_is_usable(&t, BEGIN + rows[i].usable_until_ms + 1 - TOKEN_MARGIN_MS +
                                             (rows[i].usable_until_ms == 0 ? TOKEN_MARGIN_MS : 0)));
    }
}

static void a_restart_keeps_refresh_tokens_and_when_they_were_used(void **state)
{
    struct token_kept kept = {.has_access = true,
                              .has_refresh = true,
                              .ends_s = 100000000 + 20 * 86400,
                              .life_s = 30 * 86400,
                              .used_s = 100000000 - 86400};
    struct token t;

    (void)state;
    token_init(&t, true);
    token_restore(&t, &kept, 10 * DAY, 100000000);
    assert_int_equal(t.state, TOKEN_READY);
    assert_false(token_wants_fetch(&t, 10 * DAY));
    assert_true(token_wants_fetch(&t, 15 * DAY)); /* six days after its last use */
    kept.used_s = 100000000 - 30 * 86400;
    token_init(&t, true);
    token_restore(&t, &kept, 10 * DAY, 100000000);
    assert_true(token_wants_fetch(&t, 10 * DAY));
}

static void a_refused_token_is_replaced_once_then_the_mailbox_pauses(void **state)
{
    struct token t = app_with(BEGIN, 3600);
    struct token_user u = {.refusals = 0};
    uint64_t now = BEGIN + MINUTE;

    (void)state;
    assert_int_equal(token_user_turn(&u, &t, now), TOKEN_USE);
    assert_int_equal(token_user_refused(&u, &t, 1, now, 0), TOKEN_WAIT);
    assert_true(token_wants_fetch(&t, now));
    /* Two more connections that used the same token are told the same, and count for nothing. */
    assert_int_equal(token_user_refused(&u, &t, 1, now, 0), TOKEN_WAIT);
    assert_int_equal(token_user_refused(&u, &t, 1, now, 0), TOKEN_WAIT);
    give(&t, now, 3600, false);
    assert_int_equal(token_user_turn(&u, &t, now), TOKEN_USE);
    assert_int_equal(token_user_refused(&u, &t, 2, now, 0), TOKEN_STOP);
    assert_int_equal(token_user_turn(&u, &t, now + 15 * MINUTE - 1), TOKEN_STOP);
    assert_false(token_wants_fetch(&t, now + 10 * MINUTE));
}

static void a_probe_has_a_token_made_after_the_refusal(void **state)
{
    struct token t = app_with(BEGIN, 36000);
    struct token_user u = {.refusals = 0};
    uint64_t probe;

    (void)state;
    (void)token_user_refused(&u, &t, 1, BEGIN, 0);
    give(&t, BEGIN, 36000, false);
    (void)token_user_refused(&u, &t, 2, BEGIN, 0);
    probe = BEGIN + 15 * MINUTE;
    assert_int_equal(token_user_turn(&u, &t, probe), TOKEN_WAIT);
    assert_true(token_wants_fetch(&t, probe));
    give(&t, probe, 36000, false);
    assert_int_equal(token_user_turn(&u, &t, probe), TOKEN_USE);
    assert_int_equal(token_user_refused(&u, &t, 3, probe, UINT32_MAX), TOKEN_STOP);
    assert_int_equal(token_user_turn(&u, &t, probe + 60 * MINUTE - 1), TOKEN_STOP);
    token_user_accepted(&u);
    assert_int_equal(token_user_turn(&u, &t, probe), TOKEN_USE);
}

static void one_mailboxs_refusal_is_not_anothers(void **state)
{
    struct token t = app_with(BEGIN, 3600);
    struct token_user a = {.refusals = 0};
    struct token_user b = {.refusals = 0};

    (void)state;
    (void)token_user_refused(&a, &t, 1, BEGIN, 0);
    assert_int_equal(token_user_turn(&b, &t, BEGIN), TOKEN_USE);
    /* An endpoint that is down leaves the others what they have. */
    deny(&t, OAUTH_RETRY, 0, BEGIN + 6000, 0);
    assert_int_equal(token_user_turn(&b, &t, BEGIN + 7000), TOKEN_USE);
    assert_int_equal(token_user_turn(&a, &t, BEGIN + 7000), TOKEN_WAIT);
}

static void the_endpoints_clock_corrects_ours(void **state)
{
    struct token_clock c = {.ahead_s = 0};

    (void)state;
    assert_false(token_clock_learn(&c, 0, 1000000)); /* not said */
    assert_false(token_clock_learn(&c, 1000100, 1000000));
    assert_int_equal(token_clock_now(&c, 1000000), 1000000); /* near enough is right */
    assert_true(token_clock_learn(&c, 1086400, 1000000));
    assert_int_equal(token_clock_now(&c, 1000010), 1086410);
    assert_false(token_clock_learn(&c, 1086401, 1000000)); /* known already */
    assert_true(token_clock_learn(&c, 1000000, 2000000));
    assert_int_equal(token_clock_now(&c, 2000000), 1000000);
    assert_true(token_clock_learn(&c, 3000000, 3000000));
    assert_int_equal(c.ahead_s, 0);
}

static void what_ends_is_told_thirty_days_before(void **state)
{
    unsigned days = 99;

    (void)state;
    assert_false(token_warns(0, 1000, &days));
    assert_false(token_warns(1000 + 30 * 86400 + 1, 1000, &days));
    assert_true(token_warns(1000 + 30 * 86400, 1000, &days));
    assert_int_equal(days, 30);
    assert_true(token_warns(1000 + 86399, 1000, &days));
    assert_int_equal(days, 0);
    assert_true(token_warns(500, 1000, &days));
    assert_int_equal(days, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_token_is_fetched_at_once_and_one_at_a_time),
        cmocka_unit_test(the_next_one_is_fetched_ahead_of_need),
        cmocka_unit_test(a_token_is_used_until_shortly_before_its_end),
        cmocka_unit_test(tokens_that_live_seconds_are_not_fetched_in_a_tight_loop),
        cmocka_unit_test(an_outage_keeps_the_old_token_and_waits_longer_each_time),
        cmocka_unit_test(the_service_says_how_long_to_wait_within_reason),
        cmocka_unit_test(what_needs_a_person_is_probed_every_15_to_60_minutes),
        cmocka_unit_test(what_counts_against_the_account_is_not_tried_again),
        cmocka_unit_test(a_person_who_says_it_is_mended_is_believed_at_once),
        cmocka_unit_test(a_wrong_clock_is_mended_at_once_but_only_once),
        cmocka_unit_test(a_person_must_sign_in_before_anything_is_asked),
        cmocka_unit_test(a_refresh_token_is_not_used_before_it_is_durable),
        cmocka_unit_test(a_sign_in_without_refresh_token_needs_the_person_again),
        cmocka_unit_test(a_refresh_token_is_used_at_least_weekly),
        cmocka_unit_test(a_restart_keeps_what_is_left),
        cmocka_unit_test(a_restart_keeps_refresh_tokens_and_when_they_were_used),
        cmocka_unit_test(a_refused_token_is_replaced_once_then_the_mailbox_pauses),
        cmocka_unit_test(a_probe_has_a_token_made_after_the_refusal),
        cmocka_unit_test(one_mailboxs_refusal_is_not_anothers),
        cmocka_unit_test(the_endpoints_clock_corrects_ours),
        cmocka_unit_test(what_ends_is_told_thirty_days_before),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
