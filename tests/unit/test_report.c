#include "relay/smtp/report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char stored_header[] = "Received: from copier\r\n by relay\r\nSubject: Scan\r\n\r\n";

static const struct report_recipient unknown = {
    .forward_path = "nobody@example.com",
    .orcpt = "rfc822;nobody@example.com",
    .reply = "550 5.1.10 Recipient not found",
    .what = "There is no such recipient.",
    .who = "whoever sent it",
    .how = "Correct the address in the device's address book."};

static struct report_message message_of(const struct report_recipient *to, size_t n)
{
    return (struct report_message){.id = "4f2a",
                                   .device = "copier",
                                   .reverse_path = "copier@office.example",
                                   .subject = "=?UTF-8?Q?B=C3=BCro?=",
                                   .message_id = "<1@copier>",
                                   .envid = "QQ314159",
                                   .arrived_ms = 1751623200000,
                                   .recipients = to,
                                   .recipient_count = n,
                                   .header = (const uint8_t *)stored_header,
                                   .header_len = sizeof stored_header - 1};
}

static struct report report_of(enum report_kind kind, const struct report_message *m, size_t n)
{
    return (struct report){.kind = kind,
                           .from = "scans@example.com",
                           .to = "it@example.com",
                           .hostname = "relay.example.com",
                           .message_id = "<r.1@relay.example.com>",
                           .wall_ms = 1751626800000,
                           .messages = m,
                           .message_count = n};
}

static char *written(const struct report *r)
{
    struct bytes b;
    bytes_init(&b, REPORT_MAX);
    assert_true(report_write(r, &b));
    char *text = strdup(bytes_string(&b));
    assert_non_null(text);
    bytes_done(&b);
    return text;
}

static void holds(const char *text, const char *wanted)
{
    if (strstr(text, wanted) == NULL)
        fail_msg("\"%s\" is not in:\n%s", wanted, text);
}

static size_t times(const char *text, const char *wanted)
{
    size_t n = 0;
    for (; (text = strstr(text, wanted)) != NULL; text += strlen(wanted))
        n++;
    return n;
}

static void failure_of_one_message_is_a_delivery_report(void **state)
{
    struct report_message m = message_of(&unknown, 1);
    struct report r = report_of(REPORT_FAILED, &m, 1);
    char *text = written(&r);
    (void)state;
    holds(text, "Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"");
    holds(text, "From: Outtray <scans@example.com>\r\nTo: <it@example.com>\r\n");
    holds(text, "\r\nAuto-Submitted: auto-replied\r\n");
    holds(text, "Message: 4f2a\r\n  Subject: B\xc3\xbcro\r\n  Device: copier\r\n");
    holds(text, "      There is no such recipient.\r\n");
    holds(text, "      The provider's words: 550 5.1.10 Recipient not found\r\n");
    holds(text, "Original-Envelope-Id: QQ314159\r\nReporting-MTA: dns; relay.example.com\r\n");
    holds(text, "\r\n\r\nOriginal-Recipient: rfc822;nobody@example.com\r\n"
                "Final-Recipient: rfc822; nobody@example.com\r\nAction: failed\r\n"
                "Status: 5.1.10\r\nDiagnostic-Code: smtp; 550 5.1.10 Recipient not found\r\n");
    holds(text, "Content-Type: text/rfc822-headers\r\n");
    holds(text, stored_header);
    assert_int_equal(times(text, "\r\n--=_outtray_"), 4);
    free(text);
}

static void delay_says_that_nothing_need_be_done(void **state)
{
    struct report_recipient late = unknown;
    late.reply = "(timeout) no answer to MAIL in 5 minutes";
    struct report_message m = message_of(&late, 1);
    struct report r = report_of(REPORT_DELAYED, &m, 1);
    char *text = written(&r);
    (void)state;
    holds(text, "Subject: Mail is delayed\r\n");
    holds(text, "Nothing need be sent again.");
    holds(text, "Action: delayed\r\nStatus: 4.4.7\r\n");
    assert_null(strstr(text, "Diagnostic-Code"));
    free(text);
}

static void commands_are_for_the_operator_only(void **state)
{
    static const enum report_kind kinds[] = {REPORT_FAILED, REPORT_DELAYED, REPORT_RELAYED};
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct report_message m = message_of(&unknown, 1);
        struct report r = report_of(kinds[i], &m, 1);
        char *text = written(&r);
        assert_int_equal(times(text, "\"outtray ") > 0, kinds[i] != REPORT_RELAYED);
        free(text);
        r.to_sender = true;
        text = written(&r);
        assert_int_equal(times(text, "\"outtray "), 0);
        assert_int_equal(times(text, "Whoever looks after the relay"), kinds[i] != REPORT_RELAYED);
        free(text);
    }
}

static void several_messages_share_one_report(void **state)
{
    struct report_message m[] = {message_of(&unknown, 1), message_of(&unknown, 1)};
    struct report r = report_of(REPORT_FAILED, m, 2);
    r.more = 7;
    char *text = written(&r);
    (void)state;
    holds(text, "Subject: Mail could not be delivered (9 messages)\r\n");
    holds(text, "Content-Type: multipart/mixed;");
    holds(text, "... and 7 more.\r\n");
    assert_int_equal(times(text, "Content-Type: message/delivery-status\r\n"), 2);
    free(text);
}

static void what_others_said_cannot_add_lines(void **state)
{
    struct report_recipient evil = unknown;
    evil.reply = "550 no\r\nBcc: x@y";
    evil.forward_path = "a\r\nX: b@c";
    struct report_message m = message_of(&evil, 1);
    m.device = "dev\nice\x1b[31m";
    m.subject = "s\r\nt";
    struct report r = report_of(REPORT_FAILED, &m, 1);
    char *text = written(&r);
    (void)state;
    assert_null(strstr(text, "\nBcc:"));
    assert_null(strstr(text, "\nX: b"));
    assert_null(strchr(text, 0x1b));
    holds(text, "  Device: dev?ice?[31m\r\n");
    free(text);
}

static void lines_for_people_are_short(void **state)
{
    struct report_recipient long_words = unknown;
    long_words.how = "word word word word word word word word word word word word word word word "
                     "word word word word word word word word word word word word word word word "
                     "averyveryveryveryveryveryveryveryveryveryveryveryveryveryveryverylongwordthat"
                     "nobodycanbreak end";
    struct report_message m = message_of(&long_words, 1);
    struct report r = report_of(REPORT_FAILED, &m, 1);
    char *text = written(&r);
    (void)state;
    for (char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\r\n") < 200);
    holds(text, "nobodycanbreak\r\n      end\r\n");
    free(text);
}

static void a_large_header_is_cut_at_a_field(void **state)
{
    struct bytes big;
    bytes_init(&big, 64 * 1024);
    while (big.len < 3 * REPORT_HEADER_MAX)
        assert_true(bytes_text(&big, "X-Field: value\r\n folded\r\n"));
    struct report_message m = message_of(&unknown, 1);
    m.header = big.data;
    m.header_len = big.len;
    struct report r = report_of(REPORT_FAILED, &m, 1);
    char *text = written(&r);
    (void)state;
    holds(text, "X-Field: value\r\n folded\r\n\r\n--=_outtray_");
    assert_true(strlen(text) < 3 * REPORT_HEADER_MAX);
    free(text);
    bytes_done(&big);
}

static void status_agrees_with_the_action(void **state)
{
    static const struct {
        const char *reply;
        enum report_kind kind;
        const char *status;
    } rows[] = {{"550 5.1.1 no such user", REPORT_FAILED, "5.1.1"},
                {"452 4.3.1 later", REPORT_FAILED, "5.3.1"},
                {"452 4.3.1 later", REPORT_DELAYED, "4.3.1"},
                {"550 no", REPORT_FAILED, "5.0.0"},
                {"(lookup) no such host", REPORT_DELAYED, "4.4.7"},
                {"", REPORT_FAILED, "5.0.0"},
                {"(content) an 8-bit part is signed", REPORT_FAILED, "5.6.3"},
                {"(address) it needs SMTPUTF8", REPORT_FAILED, "5.6.7"},
                {"250 2.0.0 OK", REPORT_RELAYED, "2.1.9"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct report_recipient to = unknown;
        char status[16];
        to.reply = rows[i].reply;
        report_status(&to, rows[i].kind, status);
        assert_string_equal(status, rows[i].status);
    }
}

static void what_came_in_xtext_is_shown_as_it_was_meant(void **state)
{
    struct report_recipient to = unknown;
    to.orcpt = "rfc822;a+2Bb+3Dc@example.com";
    struct report_message m = message_of(&to, 1);
    m.envid = "a+0D+0ABcc:+00+FC+4";
    struct report r = report_of(REPORT_FAILED, &m, 1);
    char *text = written(&r);
    (void)state;
    holds(text, "\r\nOriginal-Recipient: rfc822;a+b=c@example.com\r\n");
    holds(text, "Original-Envelope-Id: a??Bcc:??+4\r\n"); /* never a second line */
    free(text);
}

static void an_address_beyond_ascii_is_written_in_ascii(void **state)
{
    static const struct {
        const char *path;
        const char *shown;
    } rows[] = {{"b\xc3\xbcro@example.com", "b\\x{FC}ro@example.com"},
                {"\xe6\x97\xa5+1@\xf0\x9f\x93\xa0.example", "\\x{65E5}\\x{2B}1@\\x{1F4E0}.example"},
                {"a\xff\xc3@example.com", "a\\x{FF}\\x{C3}@example.com"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct report_recipient to = unknown;
        char wanted[128];
        to.forward_path = rows[i].path;
        struct report_message m = message_of(&to, 1);
        struct report r = report_of(REPORT_FAILED, &m, 1);
        char *text = written(&r);
        snprintf(wanted, sizeof wanted, "\r\nFinal-Recipient: utf-8; %s\r\nAction:", rows[i].shown);
        holds(text, wanted);
        free(text);
    }
}

static void success_is_told_as_relayed(void **state)
{
    struct report_recipient to = unknown;
    to.reply = "250 2.6.0 <1@copier> Queued mail for delivery";
    to.what = "The mail service has taken it over.";
    to.who = to.how = "";
    struct report_message m = message_of(&to, 1);
    struct report r = report_of(REPORT_RELAYED, &m, 1);
    char *text = written(&r);
    (void)state;
    holds(text, "Subject: Mail was handed over\r\n");
    holds(text, "multipart/report; report-type=delivery-status;");
    holds(text, "Action: relayed\r\nStatus: 2.1.9\r\nDiagnostic-Code: smtp; 250 2.6.0");
    assert_null(strstr(text, "Who can fix it"));
    assert_null(strstr(text, "could not"));
    free(text);
}

static void a_whole_message_is_returned_as_one(void **state)
{
    static const char stored[] = "Subject: Scan\r\n\r\nThe text.\r\n";
    struct report_message m = message_of(&unknown, 1);
    m.header = (const uint8_t *)stored;
    m.header_len = sizeof stored - 1;
    m.whole = true;
    struct report r = report_of(REPORT_FAILED, &m, 1);
    char *text = written(&r);
    (void)state;
    holds(text, "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
                "Subject: Scan\r\n\r\nThe text.\r\n\r\n--=_outtray_");
    assert_null(strstr(text, "text/rfc822-headers"));
    free(text);
}

static void a_wish_is_a_whole_word_in_any_case(void **state)
{
    (void)state;
    assert_true(report_notify_has("SUCCESS", "SUCCESS"));
    assert_true(report_notify_has("failure,success", "SUCCESS"));
    assert_true(report_notify_has("DELAY,FAILURE", "DELAY"));
    assert_false(report_notify_has("NEVER", "FAILURE"));
    assert_false(report_notify_has("SUCCESSFUL", "SUCCESS"));
    assert_false(report_notify_has("", "SUCCESS"));
    assert_false(report_notify_has("DELAY,", "FAILURE"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failure_of_one_message_is_a_delivery_report),
        cmocka_unit_test(delay_says_that_nothing_need_be_done),
        cmocka_unit_test(commands_are_for_the_operator_only),
        cmocka_unit_test(several_messages_share_one_report),
        cmocka_unit_test(what_others_said_cannot_add_lines),
        cmocka_unit_test(lines_for_people_are_short),
        cmocka_unit_test(a_large_header_is_cut_at_a_field),
        cmocka_unit_test(status_agrees_with_the_action),
        cmocka_unit_test(what_came_in_xtext_is_shown_as_it_was_meant),
        cmocka_unit_test(an_address_beyond_ascii_is_written_in_ascii),
        cmocka_unit_test(success_is_told_as_relayed),
        cmocka_unit_test(a_whole_message_is_returned_as_one),
        cmocka_unit_test(a_wish_is_a_whole_word_in_any_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
