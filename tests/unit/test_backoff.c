#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "queue/backoff.h"

#define SECOND    1000ull
#define MINUTE    (60 * SECOND)
#define HOUR      (60 * MINUTE)
#define DAY       (24 * HOUR)
#define NO_JITTER 0x80000000u /* the middle: the wait as it is, to the millisecond */

struct step {
    const char *name;
    uint64_t at_ms;   /* time tried when the attempt fails */
    uint64_t wait_ms; /* and how long the next one waits */
};

/* The schedule of a message whose attempts take no time, without jitter. */
static const struct step message_steps[] = {
    {"attempt 1", 0, 1 * MINUTE},
    {"attempt 2", 1 * MINUTE, 1 * MINUTE},
    {"attempt 3", 2 * MINUTE, 2 * MINUTE},
    {"attempt 4", 4 * MINUTE, 4 * MINUTE},
    {"attempt 5", 8 * MINUTE, 8 * MINUTE},
    {"attempt 6", 16 * MINUTE, 16 * MINUTE},
    {"attempt 7", 32 * MINUTE, 30 * MINUTE},
    {"attempt 8", 62 * MINUTE, 30 * MINUTE},
    {"attempt 9", 92 * MINUTE, 30 * MINUTE},
};

static const struct step mailbox_steps[] = {
    {"attempt 1", 0, 15 * SECOND},           {"attempt 2", 15 * SECOND, 15 * SECOND},
    {"attempt 3", 30 * SECOND, 30 * SECOND}, {"attempt 4", 1 * MINUTE, 1 * MINUTE},
    {"attempt 5", 2 * MINUTE, 2 * MINUTE},   {"attempt 6", 4 * MINUTE, 4 * MINUTE},
    {"attempt 7", 8 * MINUTE, 8 * MINUTE},   {"attempt 8", 16 * MINUTE, 16 * MINUTE},
    {"attempt 9", 32 * MINUTE, 30 * MINUTE}, {"attempt 10", 62 * MINUTE, 30 * MINUTE},
};

static void check_steps(const struct backoff_policy *policy, const struct step *steps, size_t count)
{
    uint64_t tried_ms = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t wait = backoff_wait(policy, (uint32_t)i + 1, tried_ms, NO_JITTER);

        if (tried_ms != steps[i].at_ms || wait != steps[i].wait_ms)
            fail_msg("%s: at %llu s it waits %llu s", steps[i].name,
                     (unsigned long long)(tried_ms / SECOND), (unsigned long long)(wait / SECOND));
        tried_ms += wait;
    }
}

static void a_message_waits_as_long_as_it_has_been_tried(void **state)
{
    (void)state;
    check_steps(&backoff_message, message_steps, sizeof(message_steps) / sizeof(message_steps[0]));
}

static void a_mailbox_is_probed_sooner_and_never_given_up(void **state)
{
    (void)state;
    check_steps(&backoff_mailbox, mailbox_steps, sizeof(mailbox_steps) / sizeof(mailbox_steps[0]));
    assert_false(backoff_expired(&backoff_mailbox, 1000 * DAY));
    assert_false(backoff_expired(&backoff_mailbox, UINT64_MAX));
}

static void a_message_is_given_up_after_five_days_and_not_before(void **state)
{
    uint64_t tried_ms = 0;
    uint32_t attempts = 0;

    (void)state;
    while (!backoff_expired(&backoff_message, tried_ms)) {
        attempts++;
        tried_ms += backoff_wait(&backoff_message, attempts, tried_ms, NO_JITTER);
    }
    assert_false(backoff_expired(&backoff_message, 5 * DAY - 1));
    assert_true(backoff_expired(&backoff_message, 5 * DAY));
    assert_int_equal(attempts, 245);
}

static void a_first_attempt_that_came_late_waits_no_longer_for_it(void **state)
{
    (void)state;
    assert_true(backoff_wait(&backoff_message, 1, 3 * HOUR, NO_JITTER) == 1 * MINUTE);
    assert_true(backoff_wait(&backoff_message, 2, 3 * HOUR, NO_JITTER) == 2 * MINUTE);
    assert_true(backoff_wait(&backoff_message, 3, 3 * HOUR, NO_JITTER) == 4 * MINUTE);
    assert_true(backoff_wait(&backoff_message, 0, 3 * HOUR, NO_JITTER) == 1 * MINUTE);
    assert_true(backoff_wait(&backoff_message, UINT32_MAX, 3 * HOUR, NO_JITTER) == 30 * MINUTE);
}

static void jitter_moves_the_wait_by_a_quarter_at_most(void **state)
{
    (void)state;
    assert_true(backoff_wait(&backoff_message, 1, 0, 0) == 45 * SECOND);
    assert_true(backoff_wait(&backoff_message, 1, 0, UINT32_MAX) == 75 * SECOND);
    assert_true(backoff_wait(&backoff_message, 1, 0, UINT32_MAX / 4) == 52499);
    for (uint64_t jitter = 0; jitter <= UINT32_MAX; jitter += 1u << 20) {
        uint64_t wait = backoff_wait(&backoff_message, 20, 2 * HOUR, (uint32_t)jitter);

        assert_in_range(wait, 30 * MINUTE * 3 / 4, 30 * MINUTE * 5 / 4);
    }
}

static void extreme_policies_do_not_overflow(void **state)
{
    static const struct backoff_policy forever = {.min_ms = 1, .max_ms = UINT64_MAX};
    uint64_t wait;

    (void)state;
    wait = backoff_wait(&forever, 100, UINT64_MAX / 2, UINT32_MAX);
    assert_in_range(wait, UINT64_MAX / 2, UINT64_MAX / 2 + UINT64_MAX / 8 + 2);
    wait = backoff_wait(&forever, 100, UINT64_MAX / 2, 0);
    assert_in_range(wait, UINT64_MAX / 8 * 3, UINT64_MAX / 8 * 3 + 8);
}

static void a_stored_wait_goes_on_where_it_was(void **state)
{
    static const struct {
        const char *name;
        uint64_t wait, written, now, expected;
    } rows[] = {
        {"nothing has passed", 60, 1000, 1000, 60},
        {"some has passed", 60, 1000, 1020, 40},
        {"all has passed", 60, 1000, 1060, 0},
        {"down for long", 60, 1000, 999999, 0},
        {"the clock went back", 60, 1000, 500, 60},
        {"the clock starts at zero", 60, UINT64_MAX, 0, 60},
        {"no wait", 0, 1000, 1000, 0},
        {"never stays never", UINT64_MAX, 1000, 1000, UINT64_MAX},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t left = backoff_resume(rows[i].wait, rows[i].written, rows[i].now);

        if (left != rows[i].expected)
            fail_msg("%s: %llu are left", rows[i].name, (unsigned long long)left);
    }
}

static void each_further_loss_waits_four_times_as_long(void **state)
{
    static const uint64_t minutes[] = {15, 15, 60, 240, 960, 960, 960};

    (void)state;
    for (uint32_t losses = 0; losses < sizeof minutes / sizeof *minutes; losses++)
        assert_int_equal(backoff_loss(15 * 60 * 1000, losses), minutes[losses] * 60 * 1000);
    assert_int_equal(backoff_loss(60 * 1000, UINT32_MAX), 64 * 60 * 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_waits_as_long_as_it_has_been_tried),
        cmocka_unit_test(a_mailbox_is_probed_sooner_and_never_given_up),
        cmocka_unit_test(a_message_is_given_up_after_five_days_and_not_before),
        cmocka_unit_test(a_first_attempt_that_came_late_waits_no_longer_for_it),
        cmocka_unit_test(jitter_moves_the_wait_by_a_quarter_at_most),
        cmocka_unit_test(extreme_policies_do_not_overflow),
        cmocka_unit_test(a_stored_wait_goes_on_where_it_was),
        cmocka_unit_test(each_further_loss_waits_four_times_as_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
