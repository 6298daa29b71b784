#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/envelope.h"

static void fill(struct envelope *e)
{
    envelope_init(e);
    envelope_set(&e->reverse_path, "scanner@office.example");
    envelope_set(&e->device, "hall-printer");
    envelope_set(&e->client, "192.0.2.7");
    envelope_set(&e->route, "default");
    envelope_set(&e->subject, "Scan: 3 pages");
    envelope_set(&e->message_id, "<1@office.example>");
    e->lane = LANE_BULK;
    e->body = ENVELOPE_BODY_8BITMIME;
    e->smtputf8 = true;
    e->arrived_ms = 1700000000123;
    e->size = UINT64_MAX;
    e->header_size = UINT32_MAX;
    envelope_add_recipient(e, "ann@a.example");
    envelope_add_recipient(e, "bob@b.example");
    envelope_set(&e->recipients[0].notify, "NEVER");
    envelope_set(&e->recipients[1].orcpt, "rfc822;bob+40b.example");
}

static const char full_text[] = "outtray-envelope: 1\n"
                                "reverse-path: scanner@office.example\n"
                                "device: hall-printer\n"
                                "client: 192.0.2.7\n"
                                "route: default\n"
                                "lane: bulk\n"
                                "message-id: <1@office.example>\n"
                                "subject: Scan: 3 pages\n"
                                "body: 8bitmime\n"
                                "smtputf8: yes\n"
                                "arrived: 1700000000123\n"
                                "size: 18446744073709551615\n"
                                "header-size: 4294967295\n"
                                "recipient: ann@a.example\n"
                                "notify: NEVER\n"
                                "recipient: bob@b.example\n"
                                "orcpt: rfc822;bob+40b.example\n";

static void a_fragment_says_what_it_is_and_other_mail_says_nothing(void **state)
{
    static const char text[] = "outtray-envelope: 1\n"
                               "reverse-path: \n"
                               "lane: normal\n"
                               "body: 7bit\n"
                               "smtputf8: no\n"
                               "arrived: 0\n"
                               "size: 0\n"
                               "header-size: 0\n"
                               "partial-id: scan-7@copier\n"
                               "partial-number: 2\n"
                               "partial-total: 4294967295\n"
                               "partial-group: 18446744073709551615\n"
                               "partial-kin: 3\n"
                               "partial-wait: 3600000\n"
                               "joined: 5\n";
    struct error err = ERROR_INIT;
    struct envelope e;
    struct bytes out;

    (void)state;
    envelope_init(&e);
    bytes_init(&out, ENVELOPE_TEXT_MAX);
    assert_true(envelope_encode(&e, &out));
    assert_null(strstr(bytes_string(&out), "partial"));
    assert_null(strstr(bytes_string(&out), "joined"));
    assert_true(envelope_decode(&e, text, strlen(text), &err));
    assert_string_equal(e.partial_id, "scan-7@copier");
    assert_int_equal(e.partial_number, 2);
    assert_true(e.partial_total == UINT32_MAX);
    assert_true(e.partial_group == UINT64_MAX);
    assert_int_equal(e.partial_kin, 3);
    assert_int_equal(e.partial_wait_ms, 3600000);
    assert_int_equal(e.joined, 5);
    bytes_clear(&out);
    assert_true(envelope_encode(&e, &out));
    assert_string_equal(bytes_string(&out), text);
    bytes_done(&out);
    envelope_done(&e);
}

static void a_new_envelope_has_empty_texts(void **state)
{
    struct envelope e;

    (void)state;
    envelope_init(&e);
    assert_string_equal(e.reverse_path, "");
    assert_string_equal(e.repairs, "");
    assert_string_equal(e.ret, "");
    assert_int_equal(e.lane, LANE_NORMAL);
    assert_int_equal(e.recipient_count, 0);
    envelope_done(&e);
}

static void the_text_form_is_readable_and_leaves_out_what_is_absent(void **state)
{
    struct envelope e;
    struct bytes out;

    (void)state;
    fill(&e);
    bytes_init(&out, ENVELOPE_TEXT_MAX);
    assert_true(envelope_encode(&e, &out));
    assert_string_equal(bytes_string(&out), full_text);
    bytes_done(&out);
    envelope_done(&e);
}

static void what_was_written_comes_back(void **state)
{
    struct envelope e;
    struct error err = ERROR_INIT;

    (void)state;
    envelope_init(&e);
    envelope_set(&e.login, "left over");
    envelope_add_recipient(&e, "left@over.example");
    assert_true(envelope_decode(&e, full_text, strlen(full_text), &err));
    assert_string_equal(e.reverse_path, "scanner@office.example");
    assert_string_equal(e.device, "hall-printer");
    assert_string_equal(e.subject, "Scan: 3 pages");
    assert_string_equal(e.login, "");
    assert_string_equal(e.envid, "");
    assert_int_equal(e.lane, LANE_BULK);
    assert_int_equal(e.body, ENVELOPE_BODY_8BITMIME);
    assert_true(e.smtputf8);
    assert_true(e.arrived_ms == 1700000000123);
    assert_true(e.size == UINT64_MAX);
    assert_true(e.header_size == UINT32_MAX);
    assert_int_equal(e.recipient_count, 2);
    assert_string_equal(e.recipients[0].forward_path, "ann@a.example");
    assert_string_equal(e.recipients[0].notify, "NEVER");
    assert_string_equal(e.recipients[0].orcpt, "");
    assert_string_equal(e.recipients[1].orcpt, "rfc822;bob+40b.example");
    assert_int_equal(e.recipients[1].state, RECIPIENT_PENDING);
    assert_string_equal(e.recipients[1].reply, "");
    envelope_done(&e);
}

static void the_null_reverse_path_is_written_and_comes_back(void **state)
{
    struct envelope e;
    struct bytes out;

    (void)state;
    envelope_init(&e);
    bytes_init(&out, ENVELOPE_TEXT_MAX);
    assert_true(envelope_encode(&e, &out));
    assert_non_null(strstr(bytes_string(&out), "\nreverse-path: \n"));
    assert_true(envelope_decode(&e, out.data, out.len, NULL));
    assert_string_equal(e.reverse_path, "");
    bytes_done(&out);
    envelope_done(&e);
}

static void control_characters_never_get_in(void **state)
{
    struct envelope e;

    (void)state;
    envelope_init(&e);
    assert_true(envelope_set(&e.subject, "a\r\nrecipient: evil@x\t\x7f z\xc3\xa9"));
    assert_string_equal(e.subject, "a??recipient: evil@x?? z\xc3\xa9");
    assert_true(envelope_set_n(&e.helo, "a\0b", 3));
    assert_string_equal(e.helo, "a?b");
    assert_true(envelope_add_recipient(&e, "x\n@y"));
    assert_string_equal(e.recipients[0].forward_path, "x?@y");
    assert_true(envelope_set(&e.subject, NULL));
    assert_string_equal(e.subject, "");
    envelope_done(&e);
}

static void a_text_may_be_set_from_itself(void **state)
{
    struct envelope e;

    (void)state;
    envelope_init(&e);
    envelope_set(&e.helo, "printer.lan");
    assert_true(envelope_set(&e.helo, e.helo + 8));
    assert_string_equal(e.helo, "lan");
    envelope_done(&e);
}

static void unknown_keys_and_names_of_newer_programs_are_passed_over(void **state)
{
    static const char text[] = "outtray-envelope: 1\n"
                               "colour: blue\n"
                               "reverse-path: a@b\n"
                               "lane: express\n"
                               "body: binarymime\n"
                               "recipient: c@d\n"
                               "flavour: sour\n"
                               "notify: NEVER\n";
    struct envelope e;

    (void)state;
    envelope_init(&e);
    assert_true(envelope_decode(&e, text, strlen(text), NULL));
    assert_string_equal(e.reverse_path, "a@b");
    assert_int_equal(e.lane, LANE_NORMAL);
    assert_int_equal(e.body, ENVELOPE_BODY_8BITMIME);
    assert_string_equal(e.recipients[0].notify, "NEVER");
    envelope_done(&e);
}

static void damaged_texts_are_refused_and_change_nothing(void **state)
{
    static const struct {
        const char *name;
        const char *text;
        enum error_kind kind;
        const char *words;
    } rows[] = {
        {"empty", "", ERROR_DAMAGED, "line 1"},
        {"something else", "From: me\n", ERROR_DAMAGED, "outtray-envelope"},
        {"no version", "outtray-envelope: x\n", ERROR_DAMAGED, "outtray-envelope"},
        {"newer version", "outtray-envelope: 2\n", ERROR_INVALID, "version 2"},
        {"cut line", "outtray-envelope: 1\nreverse-path: a@", ERROR_DAMAGED, "line 2 is cut"},
        {"no key", "outtray-envelope: 1\nnonsense\n", ERROR_DAMAGED, "line 2 has no key"},
        {"no number", "outtray-envelope: 1\nsize: 1x\n", ERROR_DAMAGED, "line 2: size"},
        {"empty number", "outtray-envelope: 1\nsize:\n", ERROR_DAMAGED, "line 2: size"},
        {"negative", "outtray-envelope: 1\narrived: -1\n", ERROR_DAMAGED, "line 2: arrived"},
        {"more than 64 bits", "outtray-envelope: 1\nsize: 18446744073709551616\n", ERROR_DAMAGED,
         "line 2: size"},
        {"more than 32 bits", "outtray-envelope: 1\nheader-size: 4294967296\n", ERROR_DAMAGED,
         "line 2: header-size"},
        {"orphaned notify", "outtray-envelope: 1\nnotify: NEVER\n", ERROR_DAMAGED,
         "notify comes before any recipient"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct envelope e;
        struct error err = ERROR_INIT;

        fill(&e);
        if (envelope_decode(&e, rows[i].text, strlen(rows[i].text), &err))
            fail_msg("%s: was taken", rows[i].name);
        if (err.kind != rows[i].kind || strstr(err.text, rows[i].words) == NULL ||
            strncmp(err.text, "envelope: ", 10) != 0)
            fail_msg("%s: %s", rows[i].name, err.text);
        assert_string_equal(e.device, "hall-printer");
        assert_int_equal(e.recipient_count, 2);
        envelope_done(&e);
    }
}

/* Whatever a damaged disk makes of a text, decoding ends and what it took can be written again. */
static void any_changed_octet_is_taken_or_refused_but_never_harmful(void **state)
{
    char text[sizeof(full_text)];

    (void)state;
    for (size_t i = 0; i < strlen(full_text); i++) {
        for (int c = 0; c < 256; c += 5) {
            struct envelope e;
            struct bytes out;

            memcpy(text, full_text, sizeof(text));
            text[i] = (char)c;
            envelope_init(&e);
            bytes_init(&out, ENVELOPE_TEXT_MAX);
            if (envelope_decode(&e, text, strlen(full_text), NULL)) {
                assert_true(envelope_encode(&e, &out));
                assert_true(envelope_decode(&e, out.data, out.len, NULL));
            }
            bytes_done(&out);
            envelope_done(&e);
        }
    }
}

static void recipients_stop_at_the_limit(void **state)
{
    struct envelope e;
    struct bytes out;
    char path[64];

    (void)state;
    envelope_init(&e);
    for (int i = 0; i < ENVELOPE_RECIPIENTS_MAX; i++) {
        snprintf(path, sizeof(path), "user%d@a.example", i);
        assert_true(envelope_add_recipient(&e, path));
    }
    assert_false(envelope_add_recipient(&e, "more@a.example"));
    assert_int_equal(e.recipient_count, ENVELOPE_RECIPIENTS_MAX);
    assert_string_equal(e.recipients[777].forward_path, "user777@a.example");

    bytes_init(&out, ENVELOPE_TEXT_MAX);
    assert_true(envelope_encode(&e, &out));
    assert_true(envelope_decode(&e, out.data, out.len, NULL));
    assert_int_equal(e.recipient_count, ENVELOPE_RECIPIENTS_MAX);
    assert_true(bytes_text(&out, "recipient: more@a.example\n"));
    assert_false(envelope_decode(&e, out.data, out.len, NULL));
    bytes_done(&out);
    envelope_done(&e);
}

static void an_envelope_beyond_the_limit_is_not_written(void **state)
{
    struct envelope e;
    struct bytes out;
    char *path = malloc(1001);

    (void)state;
    assert_non_null(path);
    memset(path, 'a', 1000);
    path[1000] = '\0';
    envelope_init(&e);
    for (int i = 0; i < 700; i++)
        assert_true(envelope_add_recipient(&e, path));
    bytes_init(&out, 10 * ENVELOPE_TEXT_MAX);
    assert_false(envelope_encode(&e, &out));
    bytes_done(&out);
    bytes_init(&out, 1000);
    assert_false(envelope_encode(&e, &out));
    bytes_done(&out);
    envelope_done(&e);
    free(path);
}

static void the_same_recipient_is_recognised_with_its_domain_in_any_case(void **state)
{
    struct envelope e;

    (void)state;
    envelope_init(&e);
    envelope_add_recipient(&e, "Ann@A.Example");
    assert_true(envelope_has_recipient(&e, "Ann@A.Example"));
    assert_true(envelope_has_recipient(&e, "Ann@a.exAMPle"));
    assert_false(envelope_has_recipient(&e, "ann@A.Example"));
    assert_false(envelope_has_recipient(&e, "Ann@a.exampl"));
    assert_false(envelope_has_recipient(&e, "Ann@a.example.org"));
    assert_false(envelope_has_recipient(&e, "Ann"));
    assert_false(envelope_has_recipient(&e, ""));
    envelope_done(&e);
}

static void recipients_are_counted_by_state(void **state)
{
    struct envelope e;

    (void)state;
    fill(&e);
    envelope_add_recipient(&e, "eve@c.example");
    e.recipients[2].state = RECIPIENT_FAILED;
    assert_int_equal(envelope_count(&e, RECIPIENT_PENDING), 2);
    assert_int_equal(envelope_count(&e, RECIPIENT_DELIVERED), 0);
    assert_int_equal(envelope_count(&e, RECIPIENT_FAILED), 1);
    envelope_done(&e);
}

static void outcomes_are_written_and_applied_in_order(void **state)
{
    struct envelope e;
    struct envelope other;
    struct bytes out;

    (void)state;
    fill(&e);
    e.recipients[0].state = RECIPIENT_DELIVERED;
    envelope_set(&e.recipients[0].reply, "250 2.0.0 OK");
    e.recipients[1].state = RECIPIENT_PENDING;
    bytes_init(&out, ENVELOPE_TEXT_MAX);
    assert_true(envelope_encode_outcomes(&e, &out));
    assert_string_equal(bytes_string(&out), "outtray-outcomes: 1\n"
                                            "delivered: 250 2.0.0 OK\n"
                                            "pending: \n");
    fill(&other);
    envelope_set(&other.recipients[1].reply, "451 earlier");
    assert_true(envelope_apply_outcomes(&other, out.data, out.len, NULL));
    assert_int_equal(other.recipients[0].state, RECIPIENT_DELIVERED);
    assert_string_equal(other.recipients[0].reply, "250 2.0.0 OK");
    assert_int_equal(other.recipients[1].state, RECIPIENT_PENDING);
    assert_string_equal(other.recipients[1].reply, "");
    bytes_done(&out);
    envelope_done(&e);
    envelope_done(&other);
}

static void long_replies_are_cut_between_characters(void **state)
{
    struct envelope e;
    struct bytes out;
    char reply[ENVELOPE_REPLY_MAX + 100];

    (void)state;
    fill(&e);
    memset(reply, 'x', sizeof(reply) - 1);
    reply[sizeof(reply) - 1] = '\0';
    envelope_set(&e.recipients[0].reply, reply);
    memcpy(reply + ENVELOPE_REPLY_MAX - 1, "\xc3\xa9", 2);
    envelope_set(&e.recipients[1].reply, reply);
    bytes_init(&out, ENVELOPE_TEXT_MAX);
    assert_true(envelope_encode_outcomes(&e, &out));
    assert_true(envelope_apply_outcomes(&e, out.data, out.len, NULL));
    assert_int_equal(strlen(e.recipients[0].reply), ENVELOPE_REPLY_MAX);
    assert_int_equal(strlen(e.recipients[1].reply), ENVELOPE_REPLY_MAX - 1);
    bytes_done(&out);
    envelope_done(&e);
}

static void outcomes_that_do_not_fit_are_refused_and_change_nothing(void **state)
{
    static const struct {
        const char *name;
        const char *text;
    } rows[] = {
        {"empty", ""},
        {"too few", "outtray-outcomes: 1\ndelivered: 250\n"},
        {"too many", "outtray-outcomes: 1\ndelivered: 250\nfailed: 550\nfailed: 550\n"},
        {"unknown state", "outtray-outcomes: 1\ndelivered: 250\nrelayed: 250\n"},
        {"cut", "outtray-outcomes: 1\ndelivered: 250\nfailed: 55"},
        {"an envelope", "outtray-envelope: 1\n"},
        {"newer", "outtray-outcomes: 2\ndelivered: 250\nfailed: 550\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct envelope e;
        struct error err = ERROR_INIT;

        fill(&e);
        if (envelope_apply_outcomes(&e, rows[i].text, strlen(rows[i].text), &err))
            fail_msg("%s: was taken", rows[i].name);
        assert_int_not_equal(err.kind, ERROR_NONE);
        assert_int_equal(envelope_count(&e, RECIPIENT_PENDING), 2);
        assert_string_equal(e.recipients[0].reply, "");
        envelope_done(&e);
    }
}

static void a_copy_is_equal_and_stands_alone(void **state)
{
    struct envelope e;
    struct envelope copy;
    struct bytes out;

    (void)state;
    fill(&e);
    e.recipients[1].state = RECIPIENT_FAILED;
    envelope_set(&e.recipients[1].reply, "550 no");
    fill(&copy);
    envelope_set(&copy.login, "left over");
    assert_true(envelope_copy(&copy, &e));
    envelope_done(&e);
    bytes_init(&out, ENVELOPE_TEXT_MAX);
    assert_true(envelope_encode(&copy, &out));
    assert_string_equal(bytes_string(&out), full_text);
    assert_int_equal(copy.recipients[1].state, RECIPIENT_FAILED);
    assert_string_equal(copy.recipients[1].reply, "550 no");
    assert_true(envelope_add_recipient(&copy, "eve@c.example"));
    bytes_done(&out);
    envelope_done(&copy);
}

static void lanes_and_states_have_names(void **state)
{
    (void)state;
    assert_string_equal(lane_name(LANE_URGENT), "urgent");
    assert_string_equal(lane_name(LANE_NORMAL), "normal");
    assert_string_equal(lane_name(LANE_BULK), "bulk");
    assert_string_equal(lane_name((enum lane)17), "unknown");
    assert_string_equal(recipient_state_name(RECIPIENT_PENDING), "pending");
    assert_string_equal(recipient_state_name(RECIPIENT_DELIVERED), "delivered");
    assert_string_equal(recipient_state_name(RECIPIENT_FAILED), "failed");
    assert_string_equal(recipient_state_name((enum recipient_state)17), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_envelope_has_empty_texts),
        cmocka_unit_test(a_fragment_says_what_it_is_and_other_mail_says_nothing),
        cmocka_unit_test(the_text_form_is_readable_and_leaves_out_what_is_absent),
        cmocka_unit_test(what_was_written_comes_back),
        cmocka_unit_test(the_null_reverse_path_is_written_and_comes_back),
        cmocka_unit_test(control_characters_never_get_in),
        cmocka_unit_test(a_text_may_be_set_from_itself),
        cmocka_unit_test(unknown_keys_and_names_of_newer_programs_are_passed_over),
        cmocka_unit_test(damaged_texts_are_refused_and_change_nothing),
        cmocka_unit_test(any_changed_octet_is_taken_or_refused_but_never_harmful),
        cmocka_unit_test(recipients_stop_at_the_limit),
        cmocka_unit_test(an_envelope_beyond_the_limit_is_not_written),
        cmocka_unit_test(the_same_recipient_is_recognised_with_its_domain_in_any_case),
        cmocka_unit_test(recipients_are_counted_by_state),
        cmocka_unit_test(outcomes_are_written_and_applied_in_order),
        cmocka_unit_test(long_replies_are_cut_between_characters),
        cmocka_unit_test(outcomes_that_do_not_fit_are_refused_and_change_nothing),
        cmocka_unit_test(a_copy_is_equal_and_stands_alone),
        cmocka_unit_test(lanes_and_states_have_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
