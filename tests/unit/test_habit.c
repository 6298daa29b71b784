#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "relay/intake/habit.h"

#define MINUTE UINT64_C(60000)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)
#define MONDAY (UINT64_C(1767571200000)) /* 2026-01-05, 00:00 */

/* A scanner of an office: every 20 minutes from 8 to 18, Monday to Friday. Returns the last mail.
 */
static uint64_t scan_weekdays(struct habit *h, uint64_t monday, unsigned weeks)
{
    uint64_t last = 0;
    for (unsigned day = 0; day < weeks * 7; day++) {
        if (day % 7 >= 5)
            continue;
        for (uint64_t t = 8 * HOUR; t <= 18 * HOUR; t += 20 * MINUTE) {
            last = monday + day * DAY + t;
            habit_mail(h, last);
        }
    }
    return last;
}

static void every(struct habit *h, uint64_t from, uint64_t to, uint64_t gap)
{
    for (uint64_t t = from; t <= to; t += gap)
        habit_mail(h, t);
}

static void a_scanner_is_not_quiet_on_monday_morning_but_after_twice_its_weekend(void **state)
{
    struct habit h = {0};
    uint64_t friday = scan_weekdays(&h, MONDAY, 4);

    (void)state;
    assert_int_equal(habit_usual_ms(&h), 62 * HOUR); /* Friday 18:00 to Monday 8:00 */
    assert_false(habit_is_quiet(&h, friday + 12 * HOUR));
    assert_false(habit_is_quiet(&h, friday + 62 * HOUR));
    assert_false(habit_is_quiet(&h, friday + 124 * HOUR));
    assert_true(habit_is_quiet(&h, friday + 124 * HOUR + 1));
    assert_true(habit_is_quiet(&h, friday + 400 * DAY)); /* and stays so */
}

static void a_panel_that_mails_day_and_night_is_quiet_after_two_hours(void **state)
{
    struct habit h = {0};
    uint64_t last = MONDAY + 20 * DAY;

    (void)state;
    every(&h, MONDAY, last, 5 * MINUTE);
    assert_int_equal(habit_usual_ms(&h), 5 * MINUTE);
    assert_false(habit_is_quiet(&h, last + 2 * HOUR));
    assert_true(habit_is_quiet(&h, last + 2 * HOUR + 1));
}

static void one_holiday_does_not_stretch_the_habit(void **state)
{
    struct habit h = {0};
    uint64_t friday = scan_weekdays(&h, MONDAY, 20);

    (void)state;
    assert_true(habit_is_quiet(&h, friday + 14 * DAY)); /* for the length of it, it is quiet */
    friday = scan_weekdays(&h, MONDAY + 23 * 7 * DAY, 1);
    assert_int_equal(habit_usual_ms(&h), 62 * HOUR);
    assert_true(habit_is_quiet(&h, friday + 6 * DAY));
    friday = scan_weekdays(&h, MONDAY + 24 * 7 * DAY, 8);
    assert_int_equal(habit_usual_ms(&h), 62 * HOUR);
}

static void a_weekly_report_is_missed_after_two_weeks(void **state)
{
    struct habit h = {0};
    uint64_t last = MONDAY + 10 * 7 * DAY;

    (void)state;
    every(&h, MONDAY, last, 7 * DAY);
    assert_int_equal(habit_usual_ms(&h), 7 * DAY);
    assert_false(habit_is_quiet(&h, last + 14 * DAY));
    assert_true(habit_is_quiet(&h, last + 14 * DAY + 1));
}

static void no_habit_is_known_before_two_weeks_and_six_mails(void **state)
{
    struct habit h = {0};

    (void)state;
    assert_int_equal(habit_usual_ms(&h), 0);
    assert_false(habit_is_quiet(&h, MONDAY));
    every(&h, MONDAY, MONDAY + 14 * DAY - 1, HOUR);
    assert_int_equal(habit_usual_ms(&h), 0);
    assert_false(habit_is_quiet(&h, MONDAY + 60 * DAY));
    habit_mail(&h, MONDAY + 14 * DAY);
    assert_int_equal(habit_usual_ms(&h), HOUR);

    struct habit few = {0};
    every(&few, MONDAY, MONDAY + 4 * 10 * DAY, 10 * DAY);
    assert_int_equal(few.mails, 5);
    assert_int_equal(habit_usual_ms(&few), 0);
    habit_mail(&few, MONDAY + 50 * DAY);
    assert_int_equal(habit_usual_ms(&few), 10 * DAY);
}

static void a_scanner_that_is_used_now_and_then_is_not_missed_after_two_hours(void **state)
{
    struct habit h = {0};

    (void)state;
    every(&h, MONDAY, MONDAY + 30 * MINUTE, 2 * MINUTE);
    every(&h, MONDAY + 14 * DAY, MONDAY + 14 * DAY + 30 * MINUTE, 2 * MINUTE);
    /* A gap that takes more than half of all that was seen is no exception. */
    assert_in_range(habit_usual_ms(&h), 13 * DAY, 14 * DAY);
    assert_false(habit_is_quiet(&h, MONDAY + 20 * DAY));
    every(&h, MONDAY + 75 * DAY, MONDAY + 75 * DAY + 30 * MINUTE, 2 * MINUTE);
    assert_in_range(habit_usual_ms(&h), 60 * DAY, 61 * DAY);
    assert_false(habit_is_quiet(&h, MONDAY + 100 * DAY));
}

static void pages_of_one_scan_are_one_mail(void **state)
{
    struct habit h = {0};

    (void)state;
    for (uint64_t t = 0; t < 50; t++)
        habit_mail(&h, MONDAY + t * 1000);
    assert_int_equal(h.mails, 1);
    assert_int_equal(h.last_ms, MONDAY + 49000);
    habit_mail(&h, MONDAY + 49000 + 10 * MINUTE);
    assert_int_equal(h.mails, 2);
}

static void a_stream_without_gaps_is_missed_as_well(void **state)
{
    struct habit h = {0};
    uint64_t last = MONDAY + 15 * DAY;

    (void)state;
    every(&h, MONDAY, last, 20000);
    assert_int_equal(habit_usual_ms(&h), HABIT_GAP_MIN_MS);
    assert_false(habit_is_quiet(&h, last + HOUR));
    assert_true(habit_is_quiet(&h, last + 3 * HOUR));
}

static void a_silence_beyond_the_window_begins_anew(void **state)
{
    struct habit h = {0};
    uint64_t back = MONDAY + 300 * DAY;

    (void)state;
    every(&h, MONDAY, MONDAY + 30 * DAY, HOUR);
    habit_mail(&h, back);
    assert_int_equal(h.first_ms, back);
    assert_int_equal(h.mails, 1);
    assert_int_equal(habit_usual_ms(&h), 0);
}

static void a_clock_that_is_set_back_does_no_harm(void **state)
{
    struct habit h = {0};
    uint64_t last = MONDAY + 20 * DAY;

    (void)state;
    every(&h, MONDAY, last, 5 * MINUTE);
    habit_mail(&h, last + 30 * DAY); /* it was ahead for a while */
    habit_mail(&h, last + 30 * DAY + 20 * DAY);
    habit_mail(&h, last + 5 * MINUTE); /* and is right again */
    assert_int_equal(h.last_ms, last + 5 * MINUTE);
    assert_int_equal(habit_usual_ms(&h), 5 * MINUTE);
    assert_false(habit_is_quiet(&h, last));
    assert_true(habit_is_quiet(&h, last + 3 * HOUR));

    habit_mail(&h, 1000); /* back to 1970: to be learnt anew */
    assert_int_equal(h.first_ms, 1000);
    assert_int_equal(habit_usual_ms(&h), 0);
    assert_false(habit_is_quiet(&h, 5));
    assert_false(habit_is_quiet(&h, UINT64_MAX));
    habit_mail(&h, UINT64_MAX);
    habit_mail(&h, 0);
    habit_mail(&h, MONDAY);
}

static void text_brings_back_the_same_habit(void **state)
{
    struct habit h = {0}, again;
    char text[HABIT_TEXT_MAX];

    (void)state;
    habit_encode(&h, text);
    assert_true(habit_decode(&again, text));
    assert_memory_equal(&h, &again, sizeof h);
    scan_weekdays(&h, MONDAY + 12345, 9);
    habit_encode(&h, text);
    assert_true(strlen(text) < 400);
    assert_true(habit_decode(&again, text));
    assert_memory_equal(&h, &again, sizeof h);

    memset(&h, 0xff, sizeof h); /* the largest of numbers */
    for (size_t i = 0; i < HABIT_CLASSES * 2; i++)
        h.gaps[i / 2][i % 2].gap_ms = HABIT_WINDOW_MS;
    habit_encode(&h, text);
    assert_true(habit_decode(&again, text));
    assert_memory_equal(&h, &again, sizeof h);
}

static void what_is_no_habit_is_refused(void **state)
{
    static const struct {
        const char *name, *text;
    } rows[] = {
        {"nothing", ""},
        {"another version", "2 0 0 0 0"},
        {"too short", "1 5 6 6"},
        {"no space", "1"},
        {"not hexadecimal", "1 5 g 6 1"},
        {"signs", "1 5 -6 6 1"},
        {"a number too long", "1 5 10000000000000006 6 1"},
        {"a class too high", "1 5 6 6 1 11 6 6 6 6"},
        {"half a class", "1 5 6 6 1 1 6 6 6"},
        {"spaces at the end", "1 5 6 6 1 "},
        {"two spaces", "1 5  6 6 1"},
        {"first behind last", "1 7 6 6 1"},
        {"counted behind last", "1 5 6 7 1"},
        {"a gap beyond the window", "1 5 6 6 1 1 6 ffffffffffff 6 6"},
        {"rubbish", "hello \xff\xfe"},
    };
    static const struct habit empty;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct habit h;
        memset(&h, 0x55, sizeof h);
        if (habit_decode(&h, rows[i].text))
            fail_msg("%s is taken", rows[i].name);
        assert_memory_equal(&h, &empty, sizeof h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scanner_is_not_quiet_on_monday_morning_but_after_twice_its_weekend),
        cmocka_unit_test(a_panel_that_mails_day_and_night_is_quiet_after_two_hours),
        cmocka_unit_test(one_holiday_does_not_stretch_the_habit),
        cmocka_unit_test(a_weekly_report_is_missed_after_two_weeks),
        cmocka_unit_test(no_habit_is_known_before_two_weeks_and_six_mails),
        cmocka_unit_test(a_scanner_that_is_used_now_and_then_is_not_missed_after_two_hours),
        cmocka_unit_test(pages_of_one_scan_are_one_mail),
        cmocka_unit_test(a_stream_without_gaps_is_missed_as_well),
        cmocka_unit_test(a_silence_beyond_the_window_begins_anew),
        cmocka_unit_test(a_clock_that_is_set_back_does_no_harm),
        cmocka_unit_test(text_brings_back_the_same_habit),
        cmocka_unit_test(what_is_no_habit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
