#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/smtp/trace.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define WALL_MS UINT64_C(1751623200123) /* 2025-07-04 10:00:00.123 UTC */

static struct trace usual(void)
{
    return (struct trace){.helo = "printer.example",
                          .client = "[192.168.1.21]",
                          .hostname = "relay.example",
                          .protocol = "ESMTP",
                          .recipient = "user@example.com",
                          .id = 0x4f2a,
                          .wall_ms = WALL_MS,
                          .utc_offset_minutes = 120};
}

static void assert_received(const struct trace *t, const char *want)
{
    struct bytes out;

    bytes_init(&out, 2048);
    assert_true(trace_received(t, &out));
    assert_string_equal(bytes_string(&out), want);
    bytes_done(&out);
}

static void received_names_client_host_id_and_recipient(void **state)
{
    struct trace t = usual();

    (void)state;
    assert_received(&t, "Received: from printer.example ([192.168.1.21])\r\n"
                        "\tby relay.example with ESMTP id 4f2a\r\n"
                        "\tfor <user@example.com>;\r\n"
                        "\tFri, 4 Jul 2025 12:00:00 +0200\r\n");
}

static void several_recipients_do_not_see_each_other(void **state)
{
    struct trace t = usual();

    (void)state;
    t.recipient = NULL;
    t.utc_offset_minutes = 0;
    assert_received(&t, "Received: from printer.example ([192.168.1.21])\r\n"
                        "\tby relay.example with ESMTP id 4f2a;\r\n"
                        "\tFri, 4 Jul 2025 10:00:00 +0000\r\n");
}

static void a_helo_that_is_no_name_gives_way_to_the_address(void **state)
{
    static const char *const names[] = {"", "my printer", "x (comment)", "b\xc3\xbcro", "a;b"};

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        struct trace t = usual();

        t.helo = names[i];
        t.recipient = NULL;
        assert_received(&t, "Received: from [192.168.1.21] ([192.168.1.21])\r\n"
                            "\tby relay.example with ESMTP id 4f2a;\r\n"
                            "\tFri, 4 Jul 2025 12:00:00 +0200\r\n");
    }
}

static void a_comment_tells_of_tls(void **state)
{
    struct trace t = usual();

    (void)state;
    t.tls = "TLSv1.3 TLS_AES_256_GCM_SHA384";
    t.protocol = "ESMTPS";
    t.helo = "scanner.example";
    t.recipient = NULL;
    assert_received(&t, "Received: from scanner.example ([192.168.1.21])\r\n"
                        "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)\r\n"
                        "\tby relay.example with ESMTPS id 4f2a;\r\n"
                        "\tFri, 4 Jul 2025 12:00:00 +0200\r\n");
}

static void a_full_buffer_is_told(void **state)
{
    struct trace t = usual();
    struct bytes out;

    (void)state;
    bytes_init(&out, 60);
    assert_false(trace_received(&t, &out));
    bytes_done(&out);
}

static void dates_are_those_of_rfc_5322(void **state)
{
    static const struct {
        const char *name;
        uint64_t seconds;
        int offset;
        const char *text;
    } rows[] = {
        {"epoch", 0, 0, "Thu, 1 Jan 1970 00:00:00 +0000"},
        {"a clock that was never set", 5, 60, "Thu, 1 Jan 1970 00:00:05 +0000"},
        {"east", 1751623200, 330, "Fri, 4 Jul 2025 15:30:00 +0530"},
        {"west over midnight", 1751590800, -570, "Thu, 3 Jul 2025 15:30:00 -0930"},
        {"leap day", 1709208000, 0, "Thu, 29 Feb 2024 12:00:00 +0000"},
        {"no leap day in 2100", 4107542400, 0, "Mon, 1 Mar 2100 00:00:00 +0000"},
        {"leap day of 2000", 951782400, 0, "Tue, 29 Feb 2000 00:00:00 +0000"},
        {"year's end", 1767225599, 0, "Wed, 31 Dec 2025 23:59:59 +0000"},
        {"offset into the next year", 1767225599, 1, "Thu, 1 Jan 2026 00:00:59 +0001"},
        {"nonsense offset", 1751623200, 100000, "Fri, 4 Jul 2025 10:00:00 +0000"},
        {"four digits are the end", 999999999999, 60, "Fri, 31 Dec 9999 23:59:59 +0000"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        char text[TRACE_DATE_MAX];

        trace_date(rows[i].seconds * 1000 + 999, rows[i].offset, text);
        if (strcmp(text, rows[i].text) != 0)
            fail_msg("%s: %s", rows[i].name, text);
    }
}

static void dates_agree_with_the_c_library(void **state)
{
    (void)state;
    for (uint64_t seconds = 86400; seconds < UINT64_C(8000000000); seconds += 7 * 86400 + 3607) {
        time_t t = (time_t)seconds;
        struct tm tm;
        char want[TRACE_DATE_MAX];
        char text[TRACE_DATE_MAX];
        size_t n;

        gmtime_r(&t, &tm);
        n = strftime(want, sizeof(want), "%a, ", &tm);
        snprintf(want + n, sizeof(want) - n, "%d ", tm.tm_mday);
        n = strlen(want);
        assert_true(strftime(want + n, sizeof(want) - n, "%b %Y %H:%M:%S +0000", &tm) > 0);
        trace_date(seconds * 1000, 0, text);
        assert_string_equal(text, want);
    }
}

static void message_ids_hold_id_time_and_host(void **state)
{
    char text[TRACE_MESSAGE_ID_MAX];
    char host[400];

    (void)state;
    trace_message_id(0x4f2a, WALL_MS, "relay.example", text);
    assert_string_equal(text, "<4f2a.1751623200123@relay.example>");
    memset(host, 'h', sizeof(host));
    host[sizeof(host) - 1] = '\0';
    trace_message_id(UINT64_MAX, UINT64_MAX, host, text);
    assert_int_equal(text[strlen(text) - 1], '>');
}

static void ids_are_hex_of_four_digits_or_more(void **state)
{
    char text[TRACE_ID_MAX];

    (void)state;
    trace_id(0xa, text);
    assert_string_equal(text, "000a");
    trace_id(UINT64_MAX, text);
    assert_string_equal(text, "ffffffffffffffff");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(received_names_client_host_id_and_recipient),
        cmocka_unit_test(several_recipients_do_not_see_each_other),
        cmocka_unit_test(a_helo_that_is_no_name_gives_way_to_the_address),
        cmocka_unit_test(a_comment_tells_of_tls),
        cmocka_unit_test(a_full_buffer_is_told),
        cmocka_unit_test(dates_are_those_of_rfc_5322),
        cmocka_unit_test(dates_agree_with_the_c_library),
        cmocka_unit_test(message_ids_hold_id_time_and_host),
        cmocka_unit_test(ids_are_hex_of_four_digits_or_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
