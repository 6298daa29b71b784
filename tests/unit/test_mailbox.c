#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "relay/base/log.h"
#include "relay/submit/mailbox.h"

#define T0     1000000ull /* any time */
#define SECOND 1000ull
#define MINUTE (60 * SECOND)
#define MB     (1024 * 1024ull)

static const struct config_mailbox office = {.name = "office",
                                             .host = "smtp.example",
                                             .port = 587,
                                             .auth = CONFIG_AUTH_NONE,
                                             .address = "scan@office.example",
                                             .login = "scan@office.example",
                                             .password_file = "",
                                             .ca_file = "",
                                             .helo = "",
                                             .connections = 3,
                                             .messages_per_minute = 30,
                                             .recipients_per_day = 100,
                                             .max_size = 35 * MB};

static int set_up(void **state)
{
    struct mailbox *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    assert_true(mailbox_init(m, &office, NULL));
    *state = m;
    return 0;
}

static int tear_down(void **state)
{
    mailbox_done(*state);
    free(*state);
    return 0;
}

/* Jitter is 0, so that waits are the shortest. */
static void judge(struct mailbox *m, enum client_stage stage, const char *text, uint64_t now_ms)
{
    struct reply reply;
    assert_true(reply_from_text(&reply, text));
    struct verdict v = verdict_of(stage, &reply);
    mailbox_judge(m, &v, stage, &reply, now_ms, 0);
}

static void lose(struct mailbox *m, enum client_stage stage, uint64_t now_ms)
{
    struct reply reply;
    reply_local(&reply, LOCAL_LOST, "lost");
    struct verdict v = verdict_of(stage, &reply);
    mailbox_judge(m, &v, stage, &reply, now_ms, 0);
}

/* ---- trouble and recovery -------------------------------------------------------------------- */

static void a_new_mailbox_is_ready_and_proves_its_sign_in_with_one_connection(void **state)
{
    struct mailbox *m = *state;
    assert_int_equal(m->state, MAILBOX_READY);
    assert_true(mailbox_is_usable(m, T0));
    assert_int_equal(mailbox_connections_allowed(m, T0), 1);
    mailbox_signed_in(m, "LOGIN");
    assert_int_equal(mailbox_connections_allowed(m, T0), 3);
    assert_string_equal(m->mechanism, "LOGIN");
}

static void trouble_waits_and_is_then_probed_by_one_connection(void **state)
{
    struct mailbox *m = *state;
    mailbox_signed_in(m, "LOGIN");
    judge(m, STAGE_BANNER, "421 4.3.2 Service not available", T0);
    assert_int_equal(m->state, MAILBOX_WAITING);
    assert_false(mailbox_is_usable(m, T0));
    assert_in_range(m->next_try_ms, T0 + 10 * SECOND, T0 + 25 * SECOND);
    assert_int_equal(mailbox_next_ms(m, T0), m->next_try_ms);
    assert_true(mailbox_is_usable(m, m->next_try_ms));
    assert_int_equal(mailbox_connections_allowed(m, T0), 1);
    assert_non_null(strstr(m->last_reply, "421"));
}

static void waits_grow_while_trouble_lasts_and_stay_within_half_an_hour(void **state)
{
    struct mailbox *m = *state;
    uint64_t now = T0;
    uint64_t last = 0;
    for (int i = 0; i < 20; i++) {
        lose(m, STAGE_BANNER, now);
        uint64_t wait = m->next_try_ms - now;
        assert_true(wait >= last || wait >= 22 * MINUTE);
        assert_in_range(wait, 10 * SECOND, 45 * MINUTE);
        last = wait;
        now = m->next_try_ms;
    }
    assert_in_range(last, 20 * MINUTE, 45 * MINUTE);
}

static void failures_at_the_same_time_count_as_one(void **state)
{
    struct mailbox *m = *state;
    mailbox_signed_in(m, "LOGIN");
    for (int i = 0; i < 3; i++)
        lose(m, STAGE_RCPT, T0);
    assert_in_range(m->next_try_ms, T0 + 10 * SECOND, T0 + 25 * SECOND);
}

static void a_message_taken_ends_the_trouble_and_its_words(void **state)
{
    struct mailbox *m = *state;
    mailbox_signed_in(m, "LOGIN");
    lose(m, STAGE_BANNER, T0);
    lose(m, STAGE_BANNER, T0 + MINUTE);
    mailbox_delivered(m, T0 + 2 * MINUTE, 1700000000000);
    assert_int_equal(m->state, MAILBOX_READY);
    assert_true(mailbox_is_usable(m, T0));
    assert_int_equal(mailbox_connections_allowed(m, T0), 3);
    assert_string_equal(m->problem, "");
    assert_string_equal(m->remedy, "");
    assert_string_equal(m->last_reply, "");
    assert_int_equal(m->delivered, 1);
    assert_int_equal(m->last_success_wall_ms, 1700000000000);
    lose(m, STAGE_BANNER, T0 + 3 * MINUTE);
    assert_in_range(m->next_try_ms, T0 + 3 * MINUTE + 10 * SECOND, T0 + 3 * MINUTE + 25 * SECOND);
}

static void a_sign_in_ends_trouble_on_the_way_to_it_and_none_that_was_met_later(void **state)
{
    static const struct {
        enum client_stage first;
        enum client_stage second;
        enum mailbox_state after;
    } rows[] = {{STAGE_CONNECT, STAGE_CONNECT, MAILBOX_READY},
                {STAGE_AUTH, STAGE_BANNER, MAILBOX_READY},
                {STAGE_MAIL, STAGE_MAIL, MAILBOX_WAITING},
                {STAGE_MAIL, STAGE_CONNECT, MAILBOX_WAITING},
                {STAGE_CONNECT, STAGE_IDLE, MAILBOX_WAITING}};
    struct mailbox *m = *state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lose(m, rows[i].first, T0);
        lose(m, rows[i].second, T0 + MINUTE);
        assert_int_equal(m->state, MAILBOX_WAITING);
        mailbox_signed_in(m, "LOGIN"); /* it was opened before */
        assert_int_equal(m->state, MAILBOX_WAITING);
        assert_true(mailbox_prepare(m, T0 + 2 * MINUTE, 0));
        mailbox_signed_in(m, "LOGIN");
        if (m->state != rows[i].after)
            fail_msg("row %zu", i);
        assert_int_equal(m->problem[0] == '\0', rows[i].after == MAILBOX_READY);
        mailbox_delivered(m, T0 + 3 * MINUTE, 1);
        assert_int_equal(m->state, MAILBOX_READY);
    }
}

static void a_lost_idle_session_is_tried_soon_and_backs_off_when_it_repeats(void **state)
{
    struct mailbox *m = *state;
    lose(m, STAGE_IDLE, T0);
    assert_in_range(m->next_try_ms, T0 + 5 * SECOND, T0 + 20 * SECOND);
    uint64_t now = T0;
    for (int i = 0; i < 12; i++) {
        now = m->next_try_ms;
        lose(m, STAGE_IDLE, now);
    }
    assert_true(m->next_try_ms - now > 10 * MINUTE);
}

/* ---- sign-in --------------------------------------------------------------------------------- */

static void a_refused_sign_in_pauses_and_is_tried_by_one_connection_alone(void **state)
{
    struct mailbox *m = *state;
    mailbox_signed_in(m, "LOGIN");
    judge(m, STAGE_AUTH, "535 5.7.3 Authentication unsuccessful", T0);
    assert_int_equal(m->state, MAILBOX_PAUSED);
    assert_false(mailbox_is_usable(m, T0 + 10 * MINUTE));
    assert_in_range(m->next_try_ms, T0 + 15 * MINUTE, T0 + 30 * MINUTE);
    mailbox_signed_in(m, "LOGIN");
    mailbox_delivered(m, T0 + 20 * MINUTE, 1700000000000);
    assert_int_equal(mailbox_connections_allowed(m, T0 + 20 * MINUTE), 3);
}

static void
what_an_older_connection_delivers_does_not_end_the_pause_of_a_refused_sign_in(void **state)
{
    struct mailbox *m = *state;
    mailbox_signed_in(m, "LOGIN");
    judge(m, STAGE_AUTH, "535 5.7.3 Authentication unsuccessful", T0);
    mailbox_delivered(m, T0 + 1, 1700000000000);
    assert_int_equal(m->delivered, 1);
    assert_int_equal(m->state, MAILBOX_PAUSED);
    assert_false(mailbox_is_usable(m, T0 + 10 * MINUTE));
    assert_int_equal(mailbox_connections_allowed(m, T0 + 20 * MINUTE), 1);
    assert_string_not_equal(m->problem, "");
}

static void lesser_trouble_does_not_shorten_a_pause(void **state)
{
    struct mailbox *m = *state;
    mailbox_signed_in(m, "LOGIN");
    judge(m, STAGE_AUTH, "535 5.7.3 Authentication unsuccessful", T0);
    uint64_t until = m->next_try_ms;
    judge(m, STAGE_AUTH, "421 4.3.2 Service not available", T0 + 1);
    lose(m, STAGE_MAIL, T0 + 2);
    assert_int_equal(m->state, MAILBOX_PAUSED);
    assert_int_equal(m->next_try_ms, until);
    assert_non_null(strstr(m->last_reply, "535"));
    judge(m, STAGE_BANNER, "421 4.3.2 Service not available", until); /* by its probe */
    assert_int_equal(m->state, MAILBOX_WAITING);
}

static void resuming_makes_a_paused_mailbox_probe_at_once(void **state)
{
    struct mailbox *m = *state;
    judge(m, STAGE_AUTH, "535 5.7.3 Authentication unsuccessful", T0);
    mailbox_resume(m);
    assert_true(mailbox_is_usable(m, T0));
    assert_int_equal(mailbox_connections_allowed(m, T0), 1);
    assert_int_equal(m->state, MAILBOX_PAUSED);
    assert_true(m->asked);
    judge(m, STAGE_AUTH, "535 5.7.3 Authentication unsuccessful", T0 + 1);
    assert_false(m->asked);
    assert_false(mailbox_is_usable(m, T0 + MINUTE));
}

static void write_password(const char *file, const char *text)
{
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(file, 0600), 0);
}

static void a_password_that_cannot_be_read_is_read_again_with_each_try(void **state)
{
    char file[] = "/tmp/outtray-password-XXXXXX";
    struct config_mailbox config = office;
    struct mailbox m;
    (void)state;
    (void)close(mkstemp(file));
    assert_int_equal(unlink(file), 0);
    config.auth = CONFIG_AUTH_PASSWORD;
    config.password_file = file;
    assert_true(mailbox_init(&m, &config, NULL));
    assert_false(mailbox_prepare(&m, T0, 0));
    assert_int_equal(m.state, MAILBOX_PAUSED);
    assert_non_null(strstr(m.last_reply, file));

    write_password(file, "first\n");
    assert_true(mailbox_prepare(&m, m.next_try_ms, 0));
    assert_string_equal(secret_text(m.password), "first");
    write_password(file, "second\n");
    assert_true(mailbox_prepare(&m, T0, 0));
    assert_string_equal(secret_text(m.password), "second");

    /* Connections that sign in with it may be under way: it stays as it is while it is accepted. */
    mailbox_signed_in(&m, "LOGIN");
    write_password(file, "third\n");
    assert_true(mailbox_prepare(&m, T0, 0));
    assert_string_equal(secret_text(m.password), "second");
    judge(&m, STAGE_AUTH, "535 5.7.8 no", T0);
    assert_true(mailbox_prepare(&m, T0, 0));
    assert_string_equal(secret_text(m.password), "third");

    /* The operator's word has it read even where the last one was accepted. */
    mailbox_signed_in(&m, "LOGIN");
    write_password(file, "fourth\n");
    mailbox_start_over(&m);
    assert_true(mailbox_prepare(&m, T0, 0));
    assert_string_equal(secret_text(m.password), "fourth");
    mailbox_done(&m);
    (void)unlink(file);
}

/* ---- concurrency ----------------------------------------------------------------------------- */

static void a_refusal_for_too_many_connections_means_fewer_and_no_wait(void **state)
{
    struct mailbox *m = *state;
    mailbox_signed_in(m, "LOGIN");
    for (int i = 0; i < 3; i++)
        budget_connection_opened(m->budget, T0);
    judge(m, STAGE_FINAL_DOT, "432 4.3.2 Concurrent connections limit exceeded", T0);
    assert_int_equal(m->state, MAILBOX_READY);
    assert_int_equal(mailbox_connections_allowed(m, T0), 2);
}

static void when_one_connection_is_too_many_time_must_help(void **state)
{
    struct mailbox *m = *state;
    mailbox_signed_in(m, "LOGIN");
    budget_connection_opened(m->budget, T0);
    judge(m, STAGE_FINAL_DOT, "432 4.3.2 Concurrent connections limit exceeded", T0);
    assert_int_equal(mailbox_connections_allowed(m, T0), 1);
    assert_int_equal(m->state, MAILBOX_WAITING);
    assert_false(mailbox_is_usable(m, T0));
}

static void a_421_to_one_of_several_connections_means_fewer_as_well(void **state)
{
    struct mailbox *m = *state;
    mailbox_signed_in(m, "LOGIN");
    for (int i = 0; i < 3; i++)
        budget_connection_opened(m->budget, T0);
    judge(m, STAGE_MAIL, "421 4.3.2 Service not available", T0);
    assert_int_equal(m->state, MAILBOX_WAITING);
    assert_int_equal(budget_connections_allowed(m->budget, T0), 2);
    mailbox_delivered(m, T0 + MINUTE, 1);
    assert_int_equal(mailbox_connections_allowed(m, T0 + MINUTE), 2);
}

static void a_421_for_idleness_means_nothing_of_the_kind(void **state)
{
    struct mailbox *m = *state;
    mailbox_signed_in(m, "LOGIN");
    for (int i = 0; i < 3; i++)
        budget_connection_opened(m->budget, T0);
    judge(m, STAGE_MAIL, "421 4.4.1 Connection timed out", T0);
    assert_int_equal(budget_connections_allowed(m->budget, T0), 3);
}

/* ---- a password that cannot be read ---------------------------------------------------------- */

static void a_password_that_cannot_be_read_is_named_with_its_file(void **state)
{
    static char file[] = "/nonexistent/office.password";
    struct config_mailbox config = office;
    struct mailbox m;
    (void)state;
    config.auth = CONFIG_AUTH_PASSWORD;
    config.password_file = file;
    assert_true(mailbox_init(&m, &config, NULL));
    assert_false(mailbox_prepare(&m, T0, 0));
    assert_non_null(strstr(m.problem, "/nonexistent/office.password: there is no such file"));
    assert_non_null(strstr(m.remedy, "Mend the file that is named"));
    mailbox_done(&m);
}

/* ---- another password ------------------------------------------------------------------------ */

static void another_password_ends_the_pause(void **state)
{
    char file[] = "/tmp/outtray-test-XXXXXX";
    int fd = mkstemp(file);
    struct config_mailbox config = office;
    struct mailbox m;
    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    write_password(file, "first\n");
    config.auth = CONFIG_AUTH_PASSWORD;
    config.password_file = file;
    assert_true(mailbox_init(&m, &config, NULL));
    assert_true(mailbox_prepare(&m, T0, 0));
    judge(&m, STAGE_AUTH,
          "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", T0);
    mailbox_tick(&m, T0 + SECOND);
    assert_false(mailbox_is_usable(&m, T0 + SECOND));
    write_password(file, "second\n");
    mailbox_tick(&m, T0 + 2 * SECOND); /* it has just looked */
    assert_false(mailbox_is_usable(&m, T0 + 2 * SECOND));
    mailbox_tick(&m, T0 + SECOND + MAILBOX_LOOK_MS);
    assert_true(mailbox_is_usable(&m, T0 + SECOND + MAILBOX_LOOK_MS));
    assert_int_equal(mailbox_connections_allowed(&m, T0 + SECOND + MAILBOX_LOOK_MS), 1);
    assert_true(mailbox_prepare(&m, T0 + MINUTE, 0));
    assert_string_equal(secret_text(m.password), "second");
    judge(&m, STAGE_AUTH,
          "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.",
          T0 + MINUTE);
    mailbox_tick(&m, T0 + 2 * MINUTE); /* one attempt for each password */
    assert_false(mailbox_is_usable(&m, T0 + 2 * MINUTE));
    mailbox_done(&m);
    (void)unlink(file);
}

/* ---- size ------------------------------------------------------------------------------------ */

static void a_refusal_for_size_lowers_what_is_taken_and_never_raises_it(void **state)
{
    struct mailbox *m = *state;
    mailbox_learn_size(m, 20 * MB, T0);
    assert_int_equal(m->max_size, 20 * MB - 1);
    mailbox_learn_size(m, 30 * MB, T0);
    assert_int_equal(m->max_size, 20 * MB - 1);
    mailbox_learn_size(m, 10 * MB, T0);
    assert_int_equal(m->max_size, 10 * MB - 1);
}

static void a_size_that_was_taught_is_forgotten_after_a_week(void **state)
{
    struct mailbox *m = *state;
    mailbox_learn_size(m, 20 * MB, T0);
    mailbox_tick(m, T0 + MAILBOX_SIZE_MS - 1);
    assert_int_equal(m->max_size, 20 * MB - 1);
    mailbox_tick(m, T0 + MAILBOX_SIZE_MS);
    assert_int_equal(m->max_size, 35 * MB);
    mailbox_learn_size(m, 20 * MB, T0);
    mailbox_start_over(m);
    assert_int_equal(m->max_size, 35 * MB);
}

static void a_small_message_refused_for_size_teaches_nothing(void **state)
{
    struct mailbox *m = *state;
    mailbox_learn_size(m, MAILBOX_SIZE_LEARN_MIN, T0);
    assert_int_equal(m->max_size, 35 * MB);
}

/* ---- status ---------------------------------------------------------------------------------- */

static void status_says_why_and_until_when(void **state)
{
    struct mailbox *m = *state;
    struct mailbox_status s;
    judge(m, STAGE_AUTH, "535 5.7.3 Authentication unsuccessful", T0);
    budget_connection_opened(m->budget, T0);
    mailbox_status(m, T0, &s);
    assert_string_equal(s.name, "office");
    assert_int_equal(s.state, MAILBOX_PAUSED);
    assert_int_equal(s.next_try_ms, m->next_try_ms);
    assert_int_equal(s.connections, 1);
    assert_int_equal(s.connections_max, 3);
    assert_int_equal(s.failed, 1);
    assert_true(s.problem[0] != '\0' && s.remedy[0] != '\0');
    assert_int_equal(s.connections_allowed, 1);
    assert_non_null(strstr(s.connections_why, "signs in"));
    assert_int_equal(s.dry_in_ms, 0);
    budget_message_started(m->budget, 50, T0);
    budget_message_ended(m->budget, 50, 50, T0);
    mailbox_status(m, T0, &s);
    assert_int_equal(s.dry_in_ms, 60 * MINUTE); /* 50 of 100 in the last hour */
    assert_string_equal(s.last_reply, "535 5.7.3 Authentication unsuccessful");
}

#define FRESH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH(a_new_mailbox_is_ready_and_proves_its_sign_in_with_one_connection),
        FRESH(trouble_waits_and_is_then_probed_by_one_connection),
        FRESH(waits_grow_while_trouble_lasts_and_stay_within_half_an_hour),
        FRESH(failures_at_the_same_time_count_as_one),
        FRESH(a_message_taken_ends_the_trouble_and_its_words),
        FRESH(a_sign_in_ends_trouble_on_the_way_to_it_and_none_that_was_met_later),
        FRESH(a_lost_idle_session_is_tried_soon_and_backs_off_when_it_repeats),
        FRESH(a_refused_sign_in_pauses_and_is_tried_by_one_connection_alone),
        FRESH(what_an_older_connection_delivers_does_not_end_the_pause_of_a_refused_sign_in),
        FRESH(lesser_trouble_does_not_shorten_a_pause),
        FRESH(resuming_makes_a_paused_mailbox_probe_at_once),
        cmocka_unit_test(a_password_that_cannot_be_read_is_read_again_with_each_try),
        FRESH(a_refusal_for_too_many_connections_means_fewer_and_no_wait),
        FRESH(when_one_connection_is_too_many_time_must_help),
        FRESH(a_refusal_for_size_lowers_what_is_taken_and_never_raises_it),
        FRESH(a_421_to_one_of_several_connections_means_fewer_as_well),
        FRESH(a_421_for_idleness_means_nothing_of_the_kind),
        cmocka_unit_test(a_password_that_cannot_be_read_is_named_with_its_file),
        cmocka_unit_test(another_password_ends_the_pause),
        FRESH(a_size_that_was_taught_is_forgotten_after_a_week),
        FRESH(a_small_message_refused_for_size_teaches_nothing),
        FRESH(status_says_why_and_until_when),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
