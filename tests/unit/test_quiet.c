#include "relay/base/quiet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void so_many_lines_are_written_and_then_none(void **state)
{
    struct quiet q = {0};
    uint64_t held = 99;

    (void)state;
    for (unsigned i = 0; i < QUIET_LINES; i++) {
        assert_true(quiet_may_tell(&q, 5000 + i, &held));
        assert_int_equal(held, 0);
    }
    for (unsigned i = 0; i < 1000; i++)
        assert_false(quiet_may_tell(&q, 6000, &held));
}

static void the_next_period_tells_what_was_left_out(void **state)
{
    struct quiet q = {0};
    uint64_t held = 0;

    (void)state;
    for (unsigned i = 0; i < QUIET_LINES + 7; i++)
        (void)quiet_may_tell(&q, 0, &held);
    assert_false(quiet_may_tell(&q, QUIET_PERIOD_MS - 1, &held));
    assert_true(quiet_may_tell(&q, QUIET_PERIOD_MS, &held));
    assert_int_equal(held, 8);
    assert_true(quiet_may_tell(&q, QUIET_PERIOD_MS, &held));
    assert_int_equal(held, 0);
}

static void a_line_now_and_then_is_always_written(void **state)
{
    struct quiet q = {0};
    uint64_t held = 0;

    (void)state;
    for (unsigned i = 0; i < 100; i++)
        assert_true(quiet_may_tell(&q, i * QUIET_PERIOD_MS / QUIET_LINES, &held));
}

static void one_line_in_a_period_counts_the_others(void **state)
{
    struct quiet q = {0};
    uint64_t held = 99;

    (void)state;
    assert_true(quiet_may_tell_once(&q, 0, &held));
    assert_int_equal(held, 0);
    for (unsigned i = 0; i < 5; i++)
        assert_false(quiet_may_tell_once(&q, QUIET_PERIOD_MS - 1, &held));
    assert_true(quiet_may_tell_once(&q, QUIET_PERIOD_MS, &held));
    assert_int_equal(held, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(so_many_lines_are_written_and_then_none),
        cmocka_unit_test(the_next_period_tells_what_was_left_out),
        cmocka_unit_test(one_line_in_a_period_counts_the_others),
        cmocka_unit_test(a_line_now_and_then_is_always_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
