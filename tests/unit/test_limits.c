#include "relay/intake/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#define MANY 20000

static struct net_address numbered(uint32_t n)
{
    return (struct net_address){.family = 4,
                                .bytes = {10, (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n}};
}

static void sessions_are_counted_by_address(void **state)
{
    struct limits *l = limits_new(7);
    struct net_address a = numbered(1);
    struct net_address b = numbered(2);
    struct limits_use *first = limits_enter(l, &a, 0);
    struct limits_use *second = limits_enter(l, &a, 0);
    struct limits_use *other = limits_enter(l, &b, 0);

    (void)state;
    assert_ptr_equal(first, second);
    assert_ptr_not_equal(first, other);
    assert_int_equal(limits_sessions(l, &a), 2);
    assert_int_equal(limits_sessions(l, &b), 1);
    limits_leave(l, first, 0);
    assert_int_equal(limits_sessions(l, &a), 1);
    limits_leave(l, second, 0);
    limits_leave(l, other, 0);
    assert_int_equal(limits_sessions(l, &a), 0);
    limits_free(l);
}

static void families_are_told_apart(void **state)
{
    struct limits *l = limits_new(7);
    struct net_address four = {.family = 4, .bytes = {1, 2, 3, 4}};
    struct net_address six = {.family = 6, .bytes = {1, 2, 3, 4}};
    struct limits_use *u = limits_enter(l, &four, 0);

    (void)state;
    assert_int_equal(limits_sessions(l, &six), 0);
    limits_leave(l, u, 0);
    limits_free(l);
}

static void any_number_of_addresses_is_kept_apart(void **state)
{
    struct limits *l = limits_new(1);
    struct limits_use **uses = calloc(MANY, sizeof *uses);

    (void)state;
    assert_non_null(uses);
    for (uint32_t i = 0; i < MANY; i++) {
        struct net_address a = numbered(i);
        uses[i] = limits_enter(l, &a, 0);
        if (i % 3 == 0)
            (void)limits_enter(l, &a, 0);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        struct net_address a = numbered(i);
        assert_int_equal(limits_sessions(l, &a), i % 3 == 0 ? 2 : 1);
        limits_leave(l, uses[i], 0);
        if (i % 3 == 0)
            limits_leave(l, uses[i], 0);
        assert_int_equal(limits_sessions(l, &a), 0);
    }
    free(uses);
    limits_free(l);
}

static void messages_of_a_minute_are_limited(void **state)
{
    struct limits *l = limits_new(7);
    struct net_address a = numbered(1);
    struct limits_use *u = limits_enter(l, &a, 1000);

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_true(limits_take_message(u, 3, 1000 + i));
    assert_false(limits_take_message(u, 3, 1000 + LIMITS_MINUTE_MS - 1));
    assert_true(limits_take_message(u, 3, 1000 + LIMITS_MINUTE_MS));
    limits_leave(l, u, 1000 + LIMITS_MINUTE_MS);
    limits_free(l);
}

static void zero_is_no_limit(void **state)
{
    struct limits *l = limits_new(7);
    struct net_address a = numbered(1);
    struct limits_use *u = limits_enter(l, &a, 0);

    (void)state;
    for (int i = 0; i < 100000; i++)
        assert_true(limits_take_message(u, 0, 0));
    limits_leave(l, u, 0);
    limits_free(l);
}

/* A device that connects anew for each message is limited all the same. */
static void the_minute_outlives_the_session(void **state)
{
    struct limits *l = limits_new(7);
    struct net_address a = numbered(1);
    struct net_address b = numbered(2);
    struct limits_use *u = limits_enter(l, &a, 0);

    (void)state;
    assert_true(limits_take_message(u, 1, 0));
    limits_leave(l, u, 0);
    limits_leave(l, limits_enter(l, &b, 10), 10);
    u = limits_enter(l, &a, 100);
    assert_false(limits_take_message(u, 1, 100));
    limits_leave(l, u, 100);
    u = limits_enter(l, &a, LIMITS_MINUTE_MS);
    assert_true(limits_take_message(u, 1, LIMITS_MINUTE_MS));
    limits_leave(l, u, LIMITS_MINUTE_MS);
    limits_free(l);
}

static void the_oldest_of_too_many_quiet_addresses_are_forgotten(void **state)
{
    struct limits *l = limits_new(7);
    struct net_address oldest = numbered(0);
    struct net_address newest = numbered(LIMITS_QUIET_MAX + 9);
    struct limits_use *u;

    (void)state;
    for (uint32_t i = 0; i < LIMITS_QUIET_MAX + 10; i++) {
        struct net_address a = numbered(i);
        u = limits_enter(l, &a, 0);
        assert_true(limits_take_message(u, 1, 0));
        limits_leave(l, u, 0);
    }
    u = limits_enter(l, &oldest, 0);
    assert_true(limits_take_message(u, 1, 0));
    limits_leave(l, u, 0);
    u = limits_enter(l, &newest, 0);
    assert_false(limits_take_message(u, 1, 0));
    limits_leave(l, u, 0);
    limits_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_are_counted_by_address),
        cmocka_unit_test(families_are_told_apart),
        cmocka_unit_test(any_number_of_addresses_is_kept_apart),
        cmocka_unit_test(messages_of_a_minute_are_limited),
        cmocka_unit_test(zero_is_no_limit),
        cmocka_unit_test(the_minute_outlives_the_session),
        cmocka_unit_test(the_oldest_of_too_many_quiet_addresses_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
