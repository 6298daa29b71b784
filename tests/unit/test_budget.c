#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/submit/budget.h"

#define SECOND 1000ull
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)
#define START  (3 * DAY + 1234) /* a machine that has been up for a while */

static const struct budget_limits usual = {
    .connections = 3,
    .messages_per_minute = 30,
    .recipients_per_day = 10000,
};

static struct budget *make(const struct budget_limits *limits)
{
    struct budget *b = budget_new(limits);

    assert_non_null(b);
    return b;
}

static void open_all(struct budget *b, uint64_t now_ms)
{
    while (budget_may_connect(b, now_ms))
        budget_connection_opened(b, now_ms);
}

/* One message whose reply comes at once. */
static void send(struct budget *b, uint32_t recipients, uint64_t now_ms)
{
    budget_message_started(b, recipients, now_ms);
    budget_message_ended(b, recipients, recipients, now_ms);
}

static void three_connections_and_no_more(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(budget_may_connect(b, START));
        budget_connection_opened(b, START);
        assert_int_equal(budget_connections(b, START), i + 1);
    }
    assert_false(budget_may_connect(b, START));
    assert_true(budget_next_ms(b, START) == BUDGET_NEVER);
    budget_free(b);
}

static void a_close_that_was_seen_frees_the_slot_at_once(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    open_all(b, START);
    budget_connection_closed(b, true, START, START + 1);
    assert_int_equal(budget_connections(b, START + 1), 2);
    assert_true(budget_may_connect(b, START + 1));
    budget_free(b);
}

static void a_close_that_was_not_seen_counts_ten_minutes_from_our_last_octet(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    open_all(b, START);
    budget_connection_closed(b, false, START + 5 * SECOND, START + 5 * MINUTE);
    budget_connection_closed(b, false, START + 9 * SECOND, START + 5 * MINUTE);
    assert_false(budget_may_connect(b, START + 5 * MINUTE));
    assert_true(budget_next_ms(b, START + 5 * MINUTE) == START + 10 * MINUTE + 5 * SECOND);
    assert_false(budget_may_connect(b, START + 10 * MINUTE + 5 * SECOND - 1));
    assert_true(budget_may_connect(b, START + 10 * MINUTE + 5 * SECOND));
    assert_int_equal(budget_connections(b, START + 10 * MINUTE + 5 * SECOND), 2);
    assert_int_equal(budget_connections(b, START + 10 * MINUTE + 9 * SECOND), 1);
    budget_free(b);
}

static void a_connection_silent_for_ten_minutes_does_not_linger(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    open_all(b, START);
    budget_connection_closed(b, false, START, START + 10 * MINUTE);
    assert_int_equal(budget_connections(b, START + 10 * MINUTE), 2);
    budget_free(b);
}

static void lingering_connections_never_add_up_beyond_the_limit(void **state)
{
    struct budget *b = make(&usual);
    uint64_t now_ms = START;

    (void)state;
    for (int i = 0; i < 5000; i++) {
        open_all(b, now_ms);
        assert_in_range(budget_connections(b, now_ms), 0, 3);
        budget_connection_closed(b, i % 3 == 0, now_ms, now_ms);
        now_ms += 4 * MINUTE;
    }
    budget_free(b);
}

static void a_concurrency_refusal_takes_one_connection_away(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    open_all(b, START);
    budget_shrink(b, START);
    assert_int_equal(budget_connections_allowed(b), 2);
    budget_shrink(b, START + 1);
    assert_int_equal(budget_connections_allowed(b), 2);
    budget_connection_closed(b, true, START, START + 2);
    assert_false(budget_may_connect(b, START + 2));
    budget_shrink(b, START + 3);
    assert_int_equal(budget_connections_allowed(b), 1);
    budget_connection_closed(b, true, START, START + 4);
    budget_shrink(b, START + 5);
    assert_int_equal(budget_connections_allowed(b), 1);
    budget_connection_closed(b, true, START, START + 6);
    assert_true(budget_may_connect(b, START + 6));
    budget_free(b);
}

static void others_may_hold_more_of_the_mailbox_than_we_do(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    budget_connection_opened(b, START);
    budget_connection_opened(b, START);
    budget_shrink(b, START);
    assert_int_equal(budget_connections_allowed(b), 1);
    budget_free(b);
}

static void connections_come_back_one_per_five_minutes_of_success(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    budget_connection_opened(b, START);
    budget_shrink(b, START);
    assert_int_equal(budget_connections_allowed(b), 1);
    budget_succeeded(b, START + 5 * MINUTE - 1);
    assert_int_equal(budget_connections_allowed(b), 1);
    budget_succeeded(b, START + 5 * MINUTE);
    assert_int_equal(budget_connections_allowed(b), 2);
    budget_succeeded(b, START + 5 * MINUTE + 1);
    assert_int_equal(budget_connections_allowed(b), 2);
    budget_succeeded(b, START + 10 * MINUTE);
    assert_int_equal(budget_connections_allowed(b), 3);
    budget_succeeded(b, START + 1 * DAY);
    assert_int_equal(budget_connections_allowed(b), 3);
    budget_free(b);
}

static void a_refusal_starts_the_five_minutes_again(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    budget_connection_opened(b, START);
    budget_shrink(b, START);
    budget_shrink(b, START + 4 * MINUTE);
    budget_succeeded(b, START + 6 * MINUTE);
    assert_int_equal(budget_connections_allowed(b), 1);
    budget_succeeded(b, START + 9 * MINUTE);
    assert_int_equal(budget_connections_allowed(b), 2);
    budget_free(b);
}

static void thirty_messages_then_wait_for_the_first_to_leave_the_window(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    for (uint64_t i = 0; i < 30; i++) {
        assert_true(budget_may_send(b, START + i * SECOND) == 0);
        send(b, 1, START + i * SECOND);
    }
    assert_int_equal(budget_messages(b, START + 29 * SECOND), 30);
    assert_true(budget_may_send(b, START + 30 * SECOND) == START + BUDGET_WINDOW_MS);
    assert_true(budget_next_ms(b, START + 30 * SECOND) == START + BUDGET_WINDOW_MS);
    assert_true(budget_may_send(b, START + BUDGET_WINDOW_MS - 1) == START + BUDGET_WINDOW_MS);
    assert_true(budget_may_send(b, START + BUDGET_WINDOW_MS) == 0);
    send(b, 1, START + BUDGET_WINDOW_MS);
    assert_true(budget_may_send(b, START + BUDGET_WINDOW_MS) == START + SECOND + BUDGET_WINDOW_MS);
    budget_free(b);
}

static void a_message_counts_from_its_final_reply_not_from_its_start(void **state)
{
    static const struct budget_limits one = {.connections = 3, .messages_per_minute = 1};
    struct budget *b = make(&one);

    (void)state;
    budget_message_started(b, 1, START);
    assert_true(budget_may_send(b, START + 5 * MINUTE) == BUDGET_NEVER);
    budget_message_ended(b, 1, 0, START + 6 * MINUTE);
    assert_true(budget_may_send(b, START + 6 * MINUTE) == START + 6 * MINUTE + BUDGET_WINDOW_MS);
    assert_true(budget_may_send(b, START + 8 * MINUTE) == 0);
    budget_free(b);
}

static void messages_under_way_take_places(void **state)
{
    static const struct budget_limits two = {.connections = 3, .messages_per_minute = 2};
    struct budget *b = make(&two);

    (void)state;
    send(b, 1, START);
    budget_message_started(b, 1, START + 1);
    assert_true(budget_may_send(b, START + 2) == START + BUDGET_WINDOW_MS);
    budget_message_ended(b, 1, 1, START + 10 * SECOND);
    assert_true(budget_may_send(b, START + BUDGET_WINDOW_MS) == 0);
    send(b, 1, START + BUDGET_WINDOW_MS);
    assert_true(budget_may_send(b, START + BUDGET_WINDOW_MS) ==
                START + 10 * SECOND + BUDGET_WINDOW_MS);
    budget_free(b);
}

static void no_minute_ever_sees_more_than_thirty(void **state)
{
    struct budget *b = make(&usual);
    static uint64_t starts[2000];
    uint64_t now_ms = START;
    size_t count = 0;

    (void)state;
    while (count < 2000) {
        uint64_t may = budget_may_send(b, now_ms);

        if (may > 0) {
            now_ms = may;
            continue;
        }
        budget_message_started(b, 1, now_ms);
        starts[count++] = now_ms;
        now_ms += count * 37 % 900;
        budget_message_ended(b, 1, 1, now_ms);
    }
    for (size_t i = 30; i < count; i++)
        assert_true(starts[i] - starts[i - 30] >= BUDGET_WINDOW_MS);
    budget_free(b);
}

static void without_a_limit_any_number_of_messages_may_go(void **state)
{
    static const struct budget_limits none = {.connections = 1};
    struct budget *b = make(&none);

    (void)state;
    for (int i = 0; i < 100000; i++) {
        assert_true(budget_may_send(b, START) == 0);
        assert_true(budget_may_use_recipients(b, 1000, START) == 0);
        send(b, 1000, START);
    }
    assert_true(budget_next_ms(b, START) == BUDGET_NEVER);
    budget_free(b);
}

static void recipients_count_for_a_day_rounded_up(void **state)
{
    struct budget *b = make(&usual);
    uint64_t bucket_end = (START / BUDGET_BUCKET_MS + 1) * BUDGET_BUCKET_MS;

    (void)state;
    send(b, 9000, START);
    send(b, 600, START + 10 * MINUTE);
    assert_int_equal(budget_recipients(b, START + 10 * MINUTE), 9600);
    assert_true(budget_may_use_recipients(b, 400, START + HOUR) == 0);
    assert_true(budget_may_use_recipients(b, 401, START + HOUR) == bucket_end + DAY);
    assert_true(budget_may_use_recipients(b, 9400, START + HOUR) == bucket_end + DAY);
    assert_true(budget_may_use_recipients(b, 9401, START + HOUR) == bucket_end + DAY + 10 * MINUTE);
    assert_true(budget_may_use_recipients(b, 10001, START + HOUR) == BUDGET_NEVER);
    assert_int_equal(budget_recipients(b, bucket_end + DAY - 1), 9600);
    assert_int_equal(budget_recipients(b, bucket_end + DAY), 600);
    assert_true(budget_may_use_recipients(b, 9400, bucket_end + DAY) == 0);
    assert_int_equal(budget_recipients(b, START + 10 * DAY), 0);
    budget_free(b);
}

static void recipients_are_reserved_and_only_taken_ones_count(void **state)
{
    static const struct budget_limits few = {.connections = 3, .recipients_per_day = 100};
    struct budget *b = make(&few);

    (void)state;
    budget_message_started(b, 60, START);
    assert_int_equal(budget_recipients(b, START), 60);
    assert_true(budget_may_use_recipients(b, 40, START) == 0);
    assert_true(budget_may_use_recipients(b, 41, START) == BUDGET_NEVER);
    budget_message_ended(b, 60, 10, START + 1);
    assert_int_equal(budget_recipients(b, START + 1), 10);
    assert_true(budget_may_use_recipients(b, 90, START + 1) == 0);
    assert_true(budget_next_ms(b, START + 1) == BUDGET_NEVER);
    send(b, 90, START + 2);
    assert_in_range(budget_next_ms(b, START + 2), START + DAY, START + DAY + BUDGET_BUCKET_MS);
    budget_free(b);
}

static void no_day_ever_sees_more_than_the_limit(void **state)
{
    static const struct budget_limits few = {.connections = 3, .recipients_per_day = 100};
    struct budget *b = make(&few);
    static uint64_t times[500]; /* of each message of ten recipients */
    uint64_t now_ms = START;

    (void)state;
    for (size_t i = 0; i < 500; i++) {
        uint64_t may = budget_may_use_recipients(b, 10, now_ms);

        if (may > 0) {
            assert_true(may > now_ms);
            now_ms = may;
        }
        assert_true(budget_may_use_recipients(b, 10, now_ms) == 0);
        send(b, 10, now_ms);
        times[i] = now_ms;
        now_ms += i * 7919 % (3 * HOUR);
    }
    for (size_t i = 10; i < 500; i++)
        assert_true(times[i] - times[i - 10] >= DAY);
    budget_free(b);
}

static void nothing_is_refused_so_nothing_is_awaited(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    assert_true(budget_next_ms(b, START) == BUDGET_NEVER);
    send(b, 1, START);
    budget_connection_opened(b, START);
    budget_connection_closed(b, false, START, START);
    assert_true(budget_next_ms(b, START) == BUDGET_NEVER);
    budget_free(b);
    budget_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_connections_and_no_more),
        cmocka_unit_test(a_close_that_was_seen_frees_the_slot_at_once),
        cmocka_unit_test(a_close_that_was_not_seen_counts_ten_minutes_from_our_last_octet),
        cmocka_unit_test(a_connection_silent_for_ten_minutes_does_not_linger),
        cmocka_unit_test(lingering_connections_never_add_up_beyond_the_limit),
        cmocka_unit_test(a_concurrency_refusal_takes_one_connection_away),
        cmocka_unit_test(others_may_hold_more_of_the_mailbox_than_we_do),
        cmocka_unit_test(connections_come_back_one_per_five_minutes_of_success),
        cmocka_unit_test(a_refusal_starts_the_five_minutes_again),
        cmocka_unit_test(thirty_messages_then_wait_for_the_first_to_leave_the_window),
        cmocka_unit_test(a_message_counts_from_its_final_reply_not_from_its_start),
        cmocka_unit_test(messages_under_way_take_places),
        cmocka_unit_test(no_minute_ever_sees_more_than_thirty),
        cmocka_unit_test(without_a_limit_any_number_of_messages_may_go),
        cmocka_unit_test(recipients_count_for_a_day_rounded_up),
        cmocka_unit_test(recipients_are_reserved_and_only_taken_ones_count),
        cmocka_unit_test(no_day_ever_sees_more_than_the_limit),
        cmocka_unit_test(nothing_is_refused_so_nothing_is_awaited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
