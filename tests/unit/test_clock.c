#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <time.h>

#include "relay/base/clock.h"

#define DAY     86400000ull
#define SOME_MS 60000 /* more than a slow machine takes between two calls */

static void the_wall_clock_is_the_time_of_day(void **state)
{
    struct clock c;
    uint64_t expected = (uint64_t)time(NULL) * 1000;

    (void)state;
    clock_init(&c);
    assert_in_range(clock_wall_ms(&c), expected - 1000, expected + SOME_MS);
}

static void the_monotonic_clock_does_not_go_back(void **state)
{
    struct clock c;
    uint64_t last;

    (void)state;
    clock_init(&c);
    last = clock_now_ms(&c);
    for (int i = 0; i < 1000; i++) {
        uint64_t now = clock_now_ms(&c);

        assert_true(now >= last);
        last = now;
    }
}

static void advancing_moves_both_clocks_for_good(void **state)
{
    struct clock c;
    uint64_t now, wall;

    (void)state;
    clock_init(&c);
    now = clock_now_ms(&c);
    wall = clock_wall_ms(&c);
    clock_advance(&c, 2 * DAY);
    clock_advance(&c, 3 * DAY);
    assert_in_range(clock_now_ms(&c), now + 5 * DAY, now + 5 * DAY + SOME_MS);
    assert_in_range(clock_wall_ms(&c), wall + 5 * DAY, wall + 5 * DAY + SOME_MS);
}

static void a_step_moves_the_wall_clock_alone(void **state)
{
    struct clock c;
    uint64_t now, wall;

    (void)state;
    clock_init(&c);
    now = clock_now_ms(&c);
    wall = clock_wall_ms(&c);
    clock_step_wall(&c, (int64_t)DAY);
    assert_in_range(clock_wall_ms(&c), wall + DAY, wall + DAY + SOME_MS);
    clock_step_wall(&c, -3 * (int64_t)DAY);
    assert_in_range(clock_wall_ms(&c), wall - 2 * DAY, wall - 2 * DAY + SOME_MS);
    assert_in_range(clock_now_ms(&c), now, now + SOME_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_wall_clock_is_the_time_of_day),
        cmocka_unit_test(the_monotonic_clock_does_not_go_back),
        cmocka_unit_test(advancing_moves_both_clocks_for_good),
        cmocka_unit_test(a_step_moves_the_wall_clock_alone),
    };

    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
