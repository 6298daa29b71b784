#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>

#include "relay/intake/attempts.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define BEGIN        UINT64_C(1000000)

static struct net_address address(unsigned n)
{
    struct net_address a;
    char text[32];

    snprintf(text, sizeof(text), "10.0.%u.%u", n / 256, n % 256);
    assert_true(net_parse(text, &a));
    return a;
}

static uint64_t wait_of(struct attempts *t, const struct net_address *a, uint64_t now)
{
    uint64_t ms = UINT64_MAX;

    assert_true(attempts_begin(t, a, now, &ms));
    return ms;
}

static void each_wrong_one_waits_longer_up_to_a_limit(void **state)
{
    static const uint64_t delays[] = {1000, 2000, 4000, 8000, 16000, 16000, 16000};
    struct attempts t = {.count = 0};
    struct net_address a = address(1);
    uint64_t now = BEGIN;

    (void)state;
    for (size_t i = 0; i < COUNT(delays); i++) {
        uint32_t count = 0;

        assert_int_equal(wait_of(&t, &a, now), 0);
        assert_int_equal(attempts_wrong(&t, &a, now, &count), delays[i]);
        assert_int_equal(count, i + 1);
        now += delays[i];
    }
}

static void who_does_not_wait_for_the_reply_waits_before_the_next(void **state)
{
    struct attempts t = {.count = 0};
    struct net_address a = address(1);
    uint32_t count;

    (void)state;
    (void)attempts_wrong(&t, &a, BEGIN, &count);
    (void)attempts_wrong(&t, &a, BEGIN, &count);
    assert_int_equal(wait_of(&t, &a, BEGIN + 500), 1500); /* and each further one its turn */
    assert_int_equal(wait_of(&t, &a, BEGIN + 500), 3500);
    assert_int_equal(wait_of(&t, &a, BEGIN + 500), 5500);
}

static void too_many_at_once_are_turned_away(void **state)
{
    struct attempts t = {.count = 0};
    struct net_address a = address(1);
    uint64_t wait = 0;
    uint32_t count;
    unsigned taken = 0;

    (void)state;
    (void)attempts_wrong(&t, &a, BEGIN, &count);
    while (attempts_begin(&t, &a, BEGIN, &wait)) {
        assert_in_range(wait, 0, ATTEMPTS_QUEUE_MS);
        taken++;
    }
    assert_int_equal(taken, ATTEMPTS_QUEUE_MS / 1000);
    assert_int_equal(wait_of(&t, &a, BEGIN + 10000), 51000);
}

static void other_addresses_do_not_wait(void **state)
{
    struct attempts t = {.count = 0};
    struct net_address a = address(1);
    struct net_address b = address(2);
    uint32_t count;

    (void)state;
    (void)attempts_wrong(&t, &a, BEGIN, &count);
    assert_int_equal(wait_of(&t, &b, BEGIN), 0);
    assert_int_equal(wait_of(&t, &b, BEGIN), 0);
}

static void a_right_one_ends_the_waiting_but_not_the_counting(void **state)
{
    struct attempts t = {.count = 0};
    struct net_address a = address(1);
    uint32_t count;

    (void)state;
    (void)attempts_wrong(&t, &a, BEGIN, &count);
    (void)attempts_wrong(&t, &a, BEGIN, &count);
    assert_int_equal(wait_of(&t, &a, BEGIN), 2000);
    attempts_right(&t, &a, BEGIN + 2000);
    assert_int_equal(wait_of(&t, &a, BEGIN + 2000), 0);
    assert_int_equal(attempts_wrong(&t, &a, BEGIN + 3000, &count), 4000);
    assert_int_equal(count, 3);
    attempts_right(&t, &a, BEGIN + 3000);
    attempts_right(&t, &(struct net_address){.family = 4}, BEGIN); /* never heard of */
}

static void what_is_long_ago_is_forgotten(void **state)
{
    struct attempts t = {.count = 0};
    struct net_address a = address(1);
    uint32_t count;

    (void)state;
    (void)attempts_wrong(&t, &a, BEGIN, &count);
    (void)attempts_wrong(&t, &a, BEGIN, &count);
    assert_int_equal(attempts_wrong(&t, &a, BEGIN + ATTEMPTS_FORGET_MS - 1, &count), 4000);
    assert_int_equal(attempts_wrong(&t, &a, BEGIN + 2 * ATTEMPTS_FORGET_MS, &count), 1000);
    assert_int_equal(count, 1);
    assert_int_equal(t.count, 1);
}

static void the_table_is_bounded_and_drops_the_oldest(void **state)
{
    struct attempts t = {.count = 0};
    uint32_t count;

    (void)state;
    for (unsigned i = 0; i < ATTEMPTS_MAX + 10; i++) {
        struct net_address a = address(i);

        (void)attempts_wrong(&t, &a, BEGIN + i, &count);
    }
    assert_int_equal(t.count, ATTEMPTS_MAX);
    for (unsigned i = 0; i < 20; i++) {
        struct net_address a = address(i);

        assert_int_equal(wait_of(&t, &a, BEGIN + ATTEMPTS_MAX + 10) == 0, i < 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_wrong_one_waits_longer_up_to_a_limit),
        cmocka_unit_test(who_does_not_wait_for_the_reply_waits_before_the_next),
        cmocka_unit_test(too_many_at_once_are_turned_away),
        cmocka_unit_test(other_addresses_do_not_wait),
        cmocka_unit_test(a_right_one_ends_the_waiting_but_not_the_counting),
        cmocka_unit_test(what_is_long_ago_is_forgotten),
        cmocka_unit_test(the_table_is_bounded_and_drops_the_oldest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
