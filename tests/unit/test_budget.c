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

static void a_close_that_was_seen_frees_the_slot_after_a_moment(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    open_all(b, START);
    budget_connection_closed(b, true, START, START + 1);
    assert_false(budget_may_connect(b, START + 1));
    assert_true(budget_next_ms(b, START + 1) == START + 1 + BUDGET_CLOSED_MS);
    assert_int_equal(budget_connections(b, START + 1 + BUDGET_CLOSED_MS), 2);
    assert_true(budget_may_connect(b, START + 1 + BUDGET_CLOSED_MS));
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
    assert_int_equal(budget_connections_allowed(b, START), 2);
    budget_shrink(b, START + 1);
    assert_int_equal(budget_connections_allowed(b, START), 2);
    budget_connection_closed(b, true, START, START + 2);
    assert_false(budget_may_connect(b, START + 2));
    budget_shrink(b, START + 3);
    assert_int_equal(budget_connections_allowed(b, START), 1);
    budget_connection_closed(b, true, START, START + 4);
    budget_shrink(b, START + 5);
    assert_int_equal(budget_connections_allowed(b, START), 1);
    budget_connection_closed(b, true, START, START + 6);
    assert_true(budget_may_connect(b, START + 6 + BUDGET_CLOSED_MS));
    budget_free(b);
}

static void others_may_hold_more_of_the_mailbox_than_we_do(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    budget_connection_opened(b, START);
    budget_connection_opened(b, START);
    budget_shrink(b, START);
    assert_int_equal(budget_connections_allowed(b, START), 1);
    budget_free(b);
}

static void connections_come_back_one_per_five_minutes_of_success(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    budget_connection_opened(b, START);
    budget_shrink(b, START);
    assert_int_equal(budget_connections_allowed(b, START), 1);
    budget_succeeded(b, START + 5 * MINUTE - 1);
    assert_int_equal(budget_connections_allowed(b, START), 1);
    budget_succeeded(b, START + 5 * MINUTE);
    assert_int_equal(budget_connections_allowed(b, START), 2);
    budget_connection_opened(b, START + 5 * MINUTE);
    budget_succeeded(b, START + 5 * MINUTE + 1);
    assert_int_equal(budget_connections_allowed(b, START), 2);
    budget_succeeded(b, START + 10 * MINUTE);
    assert_int_equal(budget_connections_allowed(b, START), 3);
    budget_succeeded(b, START + 1 * DAY);
    assert_int_equal(budget_connections_allowed(b, START), 3);
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
    assert_int_equal(budget_connections_allowed(b, START), 1);
    budget_succeeded(b, START + 9 * MINUTE);
    assert_int_equal(budget_connections_allowed(b, START), 2);
    budget_free(b);
}

static void a_step_in_vain_doubles_the_time_until_the_next(void **state)
{
    struct budget *b = make(&usual);
    uint64_t now_ms = START;

    (void)state;
    budget_connection_opened(b, START);
    budget_shrink(b, START);
    for (uint64_t wait = 5; wait < 200; wait *= 2) {
        uint64_t minutes = wait < 60 ? wait : 60;

        budget_succeeded(b, now_ms + minutes * MINUTE - 1);
        assert_int_equal(budget_connections_allowed(b, now_ms), 1);
        now_ms += minutes * MINUTE;
        budget_succeeded(b, now_ms);
        assert_int_equal(budget_connections_allowed(b, now_ms), 2);
        budget_shrink(b, now_ms);
    }
    now_ms += HOUR;
    budget_succeeded(b, now_ms);
    budget_connection_opened(b, now_ms);
    budget_succeeded(b, now_ms + 5 * MINUTE); /* it holds: the others have gone */
    assert_int_equal(budget_connections_allowed(b, now_ms), 3);
    budget_free(b);
}

static void what_is_not_used_does_not_grow(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    budget_connection_opened(b, START);
    budget_connection_opened(b, START);
    budget_connection_opened(b, START);
    budget_shrink(b, START);
    budget_connection_closed(b, true, START, START);
    budget_connection_closed(b, true, START, START);
    budget_succeeded(b, START + HOUR);
    assert_int_equal(budget_connections_allowed(b, START + HOUR), 2);
    budget_free(b);
}

/* Another program holds `others` of the three connections that the upstream allows. We always have
 * mail; each refusal costs an upload of five seconds and closes the connection. */
static unsigned refusals_in(unsigned hours, unsigned others)
{
    struct budget *b = make(&usual);
    unsigned refusals = 0;
    unsigned open = 0;

    for (uint64_t now_ms = START; now_ms < START + hours * HOUR; now_ms += 5 * SECOND) {
        while (budget_may_connect(b, now_ms)) {
            budget_connection_opened(b, now_ms);
            open++;
        }
        for (unsigned upload = open; upload > 0; upload--) {
            if (open + others <= 3) {
                budget_succeeded(b, now_ms);
                continue;
            }
            refusals++;
            budget_shrink(b, now_ms);
            budget_connection_closed(b, true, now_ms, now_ms);
            open--;
        }
    }
    assert_int_equal(open, 3 - others);
    assert_int_equal(budget_connections_allowed(b, START + hours * HOUR), 3 - others);
    budget_free(b);
    return refusals;
}

static void when_others_hold_a_part_it_settles_on_what_is_free(void **state)
{
    (void)state;
    assert_in_range(refusals_in(10, 2), 2, 14);
    assert_in_range(refusals_in(10, 1), 1, 14);
    assert_int_equal(refusals_in(10, 0), 0);
}

static void thirty_messages_then_wait_for_the_first_to_leave_the_window(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    for (uint64_t i = 0; i < 30; i++) {
        assert_true(budget_may_send(b, false, START + i * SECOND) == 0);
        send(b, 1, START + i * SECOND);
    }
    assert_int_equal(budget_messages(b, START + 29 * SECOND), 30);
    assert_true(budget_may_send(b, false, START + 30 * SECOND) == START + BUDGET_WINDOW_MS);
    assert_true(budget_next_ms(b, START + 30 * SECOND) == START + BUDGET_WINDOW_MS);
    assert_true(budget_may_send(b, false, START + BUDGET_WINDOW_MS - 1) ==
                START + BUDGET_WINDOW_MS);
    assert_true(budget_may_send(b, false, START + BUDGET_WINDOW_MS) == 0);
    send(b, 1, START + BUDGET_WINDOW_MS);
    assert_true(budget_may_send(b, false, START + BUDGET_WINDOW_MS) ==
                START + SECOND + BUDGET_WINDOW_MS);
    budget_free(b);
}

static void a_message_counts_from_its_final_reply_not_from_its_start(void **state)
{
    static const struct budget_limits one = {.connections = 3, .messages_per_minute = 1};
    struct budget *b = make(&one);

    (void)state;
    budget_message_started(b, 1, START);
    assert_true(budget_may_send(b, false, START + 5 * MINUTE) == BUDGET_NEVER);
    budget_message_ended(b, 1, 0, START + 6 * MINUTE);
    assert_true(budget_may_send(b, false, START + 6 * MINUTE) ==
                START + 6 * MINUTE + BUDGET_WINDOW_MS);
    assert_true(budget_may_send(b, false, START + 8 * MINUTE) == 0);
    budget_free(b);
}

static void messages_under_way_take_places(void **state)
{
    static const struct budget_limits two = {.connections = 3, .messages_per_minute = 2};
    struct budget *b = make(&two);

    (void)state;
    send(b, 1, START);
    budget_message_started(b, 1, START + 1);
    assert_true(budget_may_send(b, false, START + 2) == START + BUDGET_WINDOW_MS);
    budget_message_ended(b, 1, 1, START + 10 * SECOND);
    assert_true(budget_may_send(b, false, START + BUDGET_WINDOW_MS) == 0);
    send(b, 1, START + BUDGET_WINDOW_MS);
    assert_true(budget_may_send(b, false, START + BUDGET_WINDOW_MS) ==
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
        uint64_t may = budget_may_send(b, false, now_ms);

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
        assert_true(budget_may_send(b, false, START) == 0);
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

static void a_part_of_the_minute_is_kept_for_urgent_mail(void **state)
{
    struct budget_limits limits = usual;
    limits.urgent_reserve = 5;
    struct budget *b = make(&limits);

    (void)state;
    for (uint64_t i = 0; i < 25; i++)
        send(b, 1, START + i * SECOND);
    assert_true(budget_may_send(b, false, START + MINUTE / 2) == START + BUDGET_WINDOW_MS);
    for (uint64_t i = 25; i < 30; i++) {
        assert_true(budget_may_send(b, true, START + i * SECOND) == 0);
        send(b, 1, START + i * SECOND);
    }
    assert_true(budget_may_send(b, true, START + 30 * SECOND) == START + BUDGET_WINDOW_MS);
    assert_true(budget_may_send(b, false, START + 30 * SECOND) ==
                START + 5 * SECOND + BUDGET_WINDOW_MS);
    budget_free(b);
}

/* What another process would have after a restart. */
static struct budget *restarted(struct budget *b, bool clean, uint64_t now_ms, uint64_t gone_ms)
{
    struct bytes text;
    struct budget *other = make(&usual);

    bytes_init(&text, BUDGET_TEXT_MAX);
    assert_true(budget_save(b, now_ms, DAY, &text));
    /* The machine was booted meanwhile: its monotonic clock begins anew. */
    assert_true(budget_restore(other, bytes_string(&text), clean, 7, DAY + gone_ms));
    bytes_done(&text);
    budget_free(b);
    return other;
}

static void a_clean_restart_changes_nothing(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    for (uint64_t i = 0; i < 30; i++)
        send(b, 10, START + i * SECOND);
    b = restarted(b, true, START + 30 * SECOND, 3 * SECOND);
    assert_int_equal(budget_messages(b, 7), 30);
    assert_int_equal(budget_recipients(b, 7), 300);
    assert_true(budget_may_send(b, false, 7) == 7 + BUDGET_WINDOW_MS - 33 * SECOND);
    assert_int_equal(budget_connections_allowed(b, 7), 3);
    budget_free(b);
}

static void recipients_leave_the_day_after_a_restart_as_before(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    send(b, 9999, START);
    b = restarted(b, true, START + HOUR, 22 * HOUR);
    assert_int_equal(budget_recipients(b, 7), 9999);
    assert_int_equal(budget_recipients(b, 7 + 50 * MINUTE), 9999);
    assert_int_equal(budget_recipients(b, 7 + 70 * MINUTE), 0);
    budget_free(b);
}

/* Its clock may be at any moment of a bucket. */
static void a_restart_never_shortens_the_day(void **state)
{
    static const uint64_t phases[] = {0, SECOND, MINUTE, BUDGET_BUCKET_MS - SECOND};
    const size_t count = sizeof(phases) / sizeof(phases[0]);

    (void)state;
    for (size_t i = 0; i < count * count * count; i++) {
        uint64_t used = START - START % BUDGET_BUCKET_MS + phases[i % count];
        uint64_t saved = used + BUDGET_BUCKET_MS + phases[i / count % count];
        uint64_t now = DAY - DAY % BUDGET_BUCKET_MS + phases[i / count / count];
        struct budget *b = make(&usual);
        struct budget *other = make(&usual);
        struct bytes text;

        send(b, 7, used);
        bytes_init(&text, BUDGET_TEXT_MAX);
        assert_true(budget_save(b, saved, DAY, &text));
        assert_true(budget_restore(other, bytes_string(&text), true, now, DAY));
        assert_int_equal(budget_recipients(other, now + used + DAY - saved - 1), 7);
        assert_int_equal(budget_recipients(other, now + used + DAY - saved + 2 * BUDGET_BUCKET_MS),
                         0);
        bytes_done(&text);
        budget_free(b);
        budget_free(other);
    }
}

static void after_an_unclean_stop_the_minute_is_spent(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    send(b, 1, START);
    b = restarted(b, false, START + SECOND, SECOND);
    assert_int_equal(budget_messages(b, 7), 30);
    assert_int_equal(budget_recipients(b, 7), 1 + 101); /* what may have gone unsaved */
    assert_true(budget_may_send(b, true, 7) == 7 + BUDGET_WINDOW_MS);
    budget_free(b);
}

static void after_an_unclean_stop_long_ago_it_is_not(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    send(b, 1, START);
    b = restarted(b, false, START + SECOND, BUDGET_SAVE_MS + BUDGET_WINDOW_MS);
    assert_true(budget_may_send(b, false, 7) == 0);
    budget_free(b);
}

static void after_an_unclean_stop_connections_come_back_within_a_minute(void **state)
{
    struct budget *b = restarted(make(&usual), false, START, HOUR);

    (void)state;
    assert_int_equal(budget_connections_allowed(b, 7), 1);
    budget_connection_opened(b, 7);
    assert_false(budget_may_connect(b, 7));
    assert_true(budget_next_ms(b, 7) == 7 + BUDGET_RAMP_MS);
    assert_true(budget_may_connect(b, 7 + BUDGET_RAMP_MS));
    assert_int_equal(budget_connections_allowed(b, 7 + MINUTE), 3);
    budget_free(b);
}

static void a_connection_that_lingers_does_so_across_a_restart(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    budget_connection_opened(b, START);
    budget_connection_closed(b, false, START, START);
    b = restarted(b, true, START + MINUTE, MINUTE);
    assert_int_equal(budget_connections(b, 7), 1);
    assert_false(budget_is_at_rest(b, 7));
    assert_int_equal(budget_connections(b, 7 + 8 * MINUTE - 1), 1);
    assert_int_equal(budget_connections(b, 7 + 8 * MINUTE), 0);
    assert_true(budget_is_at_rest(b, 7 + 8 * MINUTE));
    budget_free(b);
}

static void what_was_learnt_of_others_survives_a_restart(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    budget_connection_opened(b, START);
    budget_shrink(b, START);
    budget_succeeded(b, START + 5 * MINUTE);
    budget_shrink(b, START + 5 * MINUTE);
    b = restarted(b, true, START + 6 * MINUTE, SECOND);
    assert_int_equal(budget_connections_allowed(b, 7), 1);
    assert_int_equal(budget_connections_why(b, 7), BUDGET_CROWDED);
    budget_connection_opened(b, 7);
    budget_succeeded(b, 7 + 10 * MINUTE - 1);
    assert_int_equal(budget_connections_allowed(b, 7), 1);
    budget_succeeded(b, 7 + 10 * MINUTE);
    assert_int_equal(budget_connections_allowed(b, 7), 2);
    budget_free(b);
}

static void messages_under_way_at_the_end_count_as_taken(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    budget_message_started(b, 40, START);
    b = restarted(b, true, START, 0);
    assert_int_equal(budget_messages(b, 7), 1);
    assert_int_equal(budget_recipients(b, 7), 40);
    budget_free(b);
}

static void a_wall_clock_that_was_set_back_frees_nothing(void **state)
{
    struct budget *b = make(&usual);
    struct bytes text;
    struct budget *other = make(&usual);

    (void)state;
    send(b, 100, START);
    bytes_init(&text, BUDGET_TEXT_MAX);
    assert_true(budget_save(b, START, 30 * DAY, &text));
    assert_true(budget_restore(other, bytes_string(&text), false, START, DAY));
    assert_int_equal(budget_messages(other, START), 30);
    assert_int_equal(budget_recipients(other, START), 100 + budget_save_step(other));
    assert_false(budget_is_assumed(b, START));
    assert_true(budget_is_assumed(other, START));
    assert_true(budget_is_assumed(other, START + DAY - 1));
    assert_false(budget_is_assumed(other, START + DAY));
    bytes_done(&text);
    budget_free(b);
    budget_free(other);
}

static void what_cannot_be_read_is_the_safe_side(void **state)
{
    static const char *const texts[] = {"",
                                        "x",
                                        "2 5 3 300000 c m d",
                                        "1 99999999999999999999999 3 300000 c m d",
                                        "1 5",
                                        "1 5 3 300000 m d",
                                        "1 5 3 300000 c d",
                                        "1 5 3 9999999999 c m d",
                                        "1 5 3 300000 c m 1 2 x"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct budget *b = make(&usual);

        assert_false(budget_restore(b, texts[i], true, START, 5));
        assert_int_equal(budget_messages(b, START), 30);
        assert_int_equal(budget_connections_allowed(b, START), 1);
        budget_free(b);
    }
}

static void it_is_foreseen_when_the_day_runs_dry(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    assert_true(budget_dry_in_ms(b, START) == BUDGET_NEVER);
    send(b, 1000, START); /* an hour's */
    assert_true(budget_dry_in_ms(b, START) == 9 * HOUR);
    assert_true(budget_dry_in_ms(b, START + 2 * HOUR) == BUDGET_NEVER);
    budget_free(b);
}

static void it_is_foreseen_when_a_queue_will_be_empty(void **state)
{
    struct budget *b = make(&usual);

    (void)state;
    assert_true(budget_done_in_ms(b, 30, 30, START) == 0);
    assert_true(budget_done_in_ms(b, 60, 60, START) == BUDGET_WINDOW_MS);
    assert_true(budget_done_in_ms(b, 10, 10001, START) == BUDGET_NEVER);
    send(b, 9000, START);
    assert_in_range(budget_done_in_ms(b, 10, 2000, START), DAY, DAY + 5 * MINUTE);
    budget_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_connections_and_no_more),
        cmocka_unit_test(a_close_that_was_seen_frees_the_slot_after_a_moment),
        cmocka_unit_test(a_close_that_was_not_seen_counts_ten_minutes_from_our_last_octet),
        cmocka_unit_test(a_connection_silent_for_ten_minutes_does_not_linger),
        cmocka_unit_test(lingering_connections_never_add_up_beyond_the_limit),
        cmocka_unit_test(a_concurrency_refusal_takes_one_connection_away),
        cmocka_unit_test(others_may_hold_more_of_the_mailbox_than_we_do),
        cmocka_unit_test(connections_come_back_one_per_five_minutes_of_success),
        cmocka_unit_test(a_refusal_starts_the_five_minutes_again),
        cmocka_unit_test(a_step_in_vain_doubles_the_time_until_the_next),
        cmocka_unit_test(what_is_not_used_does_not_grow),
        cmocka_unit_test(when_others_hold_a_part_it_settles_on_what_is_free),
        cmocka_unit_test(thirty_messages_then_wait_for_the_first_to_leave_the_window),
        cmocka_unit_test(a_message_counts_from_its_final_reply_not_from_its_start),
        cmocka_unit_test(messages_under_way_take_places),
        cmocka_unit_test(no_minute_ever_sees_more_than_thirty),
        cmocka_unit_test(without_a_limit_any_number_of_messages_may_go),
        cmocka_unit_test(recipients_count_for_a_day_rounded_up),
        cmocka_unit_test(recipients_are_reserved_and_only_taken_ones_count),
        cmocka_unit_test(no_day_ever_sees_more_than_the_limit),
        cmocka_unit_test(nothing_is_refused_so_nothing_is_awaited),
        cmocka_unit_test(a_part_of_the_minute_is_kept_for_urgent_mail),
        cmocka_unit_test(a_clean_restart_changes_nothing),
        cmocka_unit_test(recipients_leave_the_day_after_a_restart_as_before),
        cmocka_unit_test(a_restart_never_shortens_the_day),
        cmocka_unit_test(after_an_unclean_stop_the_minute_is_spent),
        cmocka_unit_test(after_an_unclean_stop_long_ago_it_is_not),
        cmocka_unit_test(after_an_unclean_stop_connections_come_back_within_a_minute),
        cmocka_unit_test(a_connection_that_lingers_does_so_across_a_restart),
        cmocka_unit_test(what_was_learnt_of_others_survives_a_restart),
        cmocka_unit_test(messages_under_way_at_the_end_count_as_taken),
        cmocka_unit_test(a_wall_clock_that_was_set_back_frees_nothing),
        cmocka_unit_test(what_cannot_be_read_is_the_safe_side),
        cmocka_unit_test(it_is_foreseen_when_the_day_runs_dry),
        cmocka_unit_test(it_is_foreseen_when_a_queue_will_be_empty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
