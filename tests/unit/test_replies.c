#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "relay/submit/replies.h"

static void what_differs_from_mail_to_mail_is_masked(void **state)
{
    static const struct {
        const char *name, *text, *masked;
    } rows[] = {
        {"an address", "mailbox jane@example.com is unknown", "mailbox <...> is unknown"},
        {"an address in brackets", "no <jane@example.com>, sorry", "no <...>, sorry"},
        {"host and time in brackets", "no [AM0PR04MB1.eurprd04 2026-01-01T00:00:00Z 08DD]",
         "no [...]"},
        {"an open bracket", "no [really", "no [really"},
        {"an id", "queued as 4f2a9c01d7", "queued as #"},
        {"a number", "wait 3600 s", "wait # s"},
        {"a short number", "at most 30 messages", "at most 30 messages"},
        {"an address on a page", "see https://aka.ms/smtp_auth_tls12345 for more",
         "see https://aka.ms/smtp_auth_tls12345 for more"},
        {"an IP address", "banned: 192.168.1.20", "banned: #.#.1.20"},
        {"nothing", "", ""},
    };
    char out[REPLIES_TEXT_MAX];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        print_message("  %s\n", rows[i].name);
        replies_mask(rows[i].text, out, sizeof out);
        assert_string_equal(out, rows[i].masked);
    }
    replies_mask("a much longer text than fits", out, 8);
    assert_string_equal(out, "a much ");
}

static bool note(struct replies *r, enum client_stage stage, const char *text, uint64_t wall_ms)
{
    struct reply reply;
    assert_true(reply_from_text(&reply, text));
    return replies_note(r, stage, &reply, wall_ms);
}

static void only_refusals_that_no_row_knows_are_collected(void **state)
{
    struct replies *r = replies_new();
    (void)state;
    assert_false(note(r, STAGE_RCPT, "250 2.1.5 OK", 1));
    assert_false(note(r, STAGE_RCPT, "550 5.1.10 Recipient not found", 1));
    assert_true(note(r, STAGE_RCPT, "599 5.9.9 the moon is wrong", 1));
    assert_false(note(NULL, STAGE_RCPT, "599 5.9.9 the moon is wrong", 1));
    struct reply local;
    reply_local(&local, LOCAL_TIMEOUT, "no answer");
    assert_false(replies_note(r, STAGE_RCPT, &local, 1));
    assert_int_equal(replies_count(r), 1);
    replies_free(r);
}

static void equal_ones_fold_and_the_latest_comes_first(void **state)
{
    struct replies *r = replies_new();
    struct replies_entry e;
    (void)state;
    note(r, STAGE_RCPT, "599 5.9.9 no moon for a@example.com", 10);
    note(r, STAGE_FINAL_DOT, "599 5.9.9 no moon for a@example.com", 20);
    note(r, STAGE_RCPT, "599 5.9.9 no moon for b@example.com", 30);
    assert_int_equal(replies_count(r), 2);
    assert_true(replies_get(r, 0, &e));
    assert_string_equal(e.text, "599 5.9.9 no moon for <...>");
    assert_int_equal(e.stage, STAGE_RCPT);
    assert_int_equal(e.count, 2);
    assert_int_equal(e.first_ms, 10);
    assert_int_equal(e.last_ms, 30);
    assert_true(replies_get(r, 1, &e));
    assert_int_equal(e.stage, STAGE_FINAL_DOT);
    assert_false(replies_get(r, 2, &e));
    assert_int_equal(replies_version(r), 3);
    replies_free(r);
}

static void the_one_not_seen_for_longest_makes_room(void **state)
{
    struct replies *r = replies_new();
    struct replies_entry e;
    char text[64];
    (void)state;
    for (unsigned i = 0; i < REPLIES_MAX + 5; i++) {
        snprintf(text, sizeof text, "599 5.9.9 reason %c%c", 'a' + (int)(i / 26),
                 'a' + (int)(i % 26));
        note(r, STAGE_RCPT, text, i + 1);
        note(r, STAGE_RCPT, "599 5.9.9 reason aa", i + 1); /* stays fresh */
    }
    assert_int_equal(replies_count(r), REPLIES_MAX);
    assert_true(replies_get(r, 0, &e));
    assert_string_equal(e.text, "599 5.9.9 reason aa");
    assert_int_equal(e.count, REPLIES_MAX + 6);
    for (size_t i = 0; replies_get(r, i, &e); i++)
        assert_string_not_equal(e.text, "599 5.9.9 reason ab");
    replies_free(r);
}

static void what_was_stored_comes_back_and_goes_on_counting(void **state)
{
    struct replies *r = replies_new();
    struct replies_entry e = {
        .stage = STAGE_RCPT, .text = "599 5.9.9 no moon", .count = 7, .first_ms = 1, .last_ms = 2};
    (void)state;
    replies_restore(r, &e);
    replies_restore(r, &e); /* once only */
    assert_int_equal(replies_version(r), 0);
    note(r, STAGE_RCPT, "599 5.9.9 no moon", 3);
    assert_int_equal(replies_count(r), 1);
    assert_true(replies_get(r, 0, &e));
    assert_int_equal(e.count, 8);
    assert_int_equal(e.first_ms, 1);
    replies_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_differs_from_mail_to_mail_is_masked),
        cmocka_unit_test(only_refusals_that_no_row_knows_are_collected),
        cmocka_unit_test(equal_ones_fold_and_the_latest_comes_first),
        cmocka_unit_test(the_one_not_seen_for_longest_makes_room),
        cmocka_unit_test(what_was_stored_comes_back_and_goes_on_counting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
