#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/smtp/reply.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static enum reply_progress feed(struct reply_parser *p, const char *text, size_t len,
                                size_t *out_used, struct reply *out)
{
    return reply_feed(p, (const uint8_t *)text, len, out_used, out);
}

struct good {
    const char *name;
    const char *wire;
    unsigned code;
    const char *enhanced; /* "" for none */
    const char *text;
};

static const struct good goods[] = {
    {"one line", "250 OK\r\n", 250, "", "OK"},
    {"code alone", "250\r\n", 250, "", ""},
    {"code and a space", "250 \r\n", 250, "", ""},
    {"bare LF", "354 go ahead\n", 354, "", "go ahead"},
    {"enhanced code", "250 2.1.0 Sender OK\r\n", 250, "2.1.0", "Sender OK"},
    {"enhanced code alone", "250 2.1.5\r\n", 250, "2.1.5", ""},
    {"long numbers", "535 5.7.139 Authentication unsuccessful\r\n", 535, "5.7.139",
     "Authentication unsuccessful"},
    {"classes disagree", "554 4.3.2 mailbox busy\r\n", 554, "4.3.2", "mailbox busy"},
    {"an address is no enhanced code", "250 4.3.2.1 Hello\r\n", 250, "", "4.3.2.1 Hello"},
    {"nor is a version", "220 2.0 ready\r\n", 220, "", "2.0 ready"},
    {"nor a class that does not exist", "250 3.1.1 hm\r\n", 250, "", "3.1.1 hm"},
    {"nor four digits", "250 2.1.1234 hm\r\n", 250, "", "2.1.1234 hm"},
    {"nor what goes on without a space", "550 5.1.1: no\r\n", 550, "", "5.1.1: no"},
    {"lines are joined", "250-one\r\n250-two\r\n250 three\r\n", 250, "", "one two three"},
    {"empty lines leave no gap", "250-one\r\n250-\r\n250 three\r\n", 250, "", "one three"},
    {"every line has its enhanced code",
     "535-5.7.8 Username and Password not accepted.\r\n535 5.7.8 See the manual\r\n", 535, "5.7.8",
     "Username and Password not accepted. See the manual"},
    {"the last line decides", "250-2.0.0 fine\r\n550 5.1.1 not fine\r\n", 550, "5.1.1",
     "fine not fine"},
    {"control characters",
     "250 a\tb\x01"
     "c\x7f\r\n",
     250, "", "a b?c?"},
    {"other alphabets", "550 \xc3\xbc no\r\n", 550, "", "?? no"},
    {"CR inside", "250 a\rb\r\n", 250, "", "a?b"},
};

static void check_good(const struct good *g, const struct reply *r)
{
    char enhanced[32] = "";

    if (r->has_enhanced)
        snprintf(enhanced, sizeof(enhanced), "%u.%u.%u", r->enhanced[0], r->enhanced[1],
                 r->enhanced[2]);
    assert_int_equal(r->code, g->code);
    assert_string_equal(enhanced, g->enhanced);
    assert_string_equal(r->text, g->text);
    assert_int_equal(r->local, LOCAL_NONE);
}

static void replies_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(goods); i++) {
        struct reply_parser p;
        struct reply r;
        size_t used = 0;

        print_message("  %s\n", goods[i].name);
        reply_parser_init(&p);
        assert_int_equal(feed(&p, goods[i].wire, strlen(goods[i].wire), &used, &r), REPLY_DONE);
        assert_int_equal(used, strlen(goods[i].wire));
        check_good(&goods[i], &r);
        reply_parser_done(&p);
    }
}

static void replies_may_be_split_anywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(goods); i++) {
        const char *wire = goods[i].wire;
        size_t len = strlen(wire);

        for (size_t at = 1; at < len; at++) {
            struct reply_parser p;
            struct reply r;
            size_t used = 0;

            reply_parser_init(&p);
            assert_int_equal(feed(&p, wire, at, &used, &r), REPLY_MORE);
            assert_int_equal(used, at);
            assert_int_equal(feed(&p, wire + at, len - at, &used, &r), REPLY_DONE);
            assert_int_equal(used, len - at);
            check_good(&goods[i], &r);
            reply_parser_done(&p);
        }
    }
}

static void only_one_reply_is_taken_at_a_time(void **state)
{
    static const char wire[] = "250-a\r\n250 b\r\n550 c\r\n";
    struct reply_parser p;
    struct reply r;
    size_t used = 0;

    (void)state;
    reply_parser_init(&p);
    assert_int_equal(feed(&p, wire, strlen(wire), &used, &r), REPLY_DONE);
    assert_int_equal(used, 14);
    assert_string_equal(r.text, "a b");
    assert_int_equal(feed(&p, wire + 14, strlen(wire) - 14, &used, &r), REPLY_DONE);
    assert_int_equal(used, 7);
    assert_int_equal(r.code, 550);
    assert_string_equal(r.text, "c");
    reply_parser_done(&p);
}

static void lines_can_be_asked_for_until_the_next_reply(void **state)
{
    static const char wire[] =
        "250-host Hello [192.0.2.1]\r\n250-SIZE 157286400\r\n250 AUTH LOGIN\r\n";
    struct reply_parser p;
    struct reply r;
    size_t used = 0;
    char line[24];

    (void)state;
    reply_parser_init(&p);
    assert_int_equal(reply_line_count(&p), 0);
    reply_line(&p, 0, line, sizeof(line));
    assert_string_equal(line, "");
    assert_int_equal(feed(&p, wire, strlen(wire), &used, &r), REPLY_DONE);
    assert_int_equal(reply_line_count(&p), 3);
    reply_line(&p, 0, line, sizeof(line));
    assert_string_equal(line, "host Hello [192.0.2.1]");
    reply_line(&p, 1, line, sizeof(line));
    assert_string_equal(line, "SIZE 157286400");
    reply_line(&p, 2, line, 5);
    assert_string_equal(line, "AUTH");
    reply_line(&p, 3, line, sizeof(line));
    assert_string_equal(line, "");
    assert_int_equal(feed(&p, "250 x\r\n", 7, &used, &r), REPLY_DONE);
    assert_int_equal(reply_line_count(&p), 1);
    reply_line(&p, 0, line, sizeof(line));
    assert_string_equal(line, "x");
    reply_parser_done(&p);
}

static void what_is_no_reply_is_bad(void **state)
{
    static const char *const bads[] = {
        "\r\n",           "\n",
        "25\r\n",         "hello\r\n",
        "2x0 OK\r\n",     "199 no\r\n",
        "600 no\r\n",     "250_OK\r\n",
        "250OK\r\n",      " 250 OK\r\n",
        "2500 OK\r\n",    "-250 OK\r\n",
        "250\tOK\r\n",    "HTTP/1.1 400 B\r\n",
        "250-a\r\nb\r\n", "\x16\x03\x01\r\n",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(bads); i++) {
        struct reply_parser p;
        struct reply r;
        size_t used = 0;

        print_message("  %s\n", bads[i]);
        reply_parser_init(&p);
        assert_int_equal(feed(&p, bads[i], strlen(bads[i]), &used, &r), REPLY_BAD);
        assert_int_equal(r.code, 0);
        assert_int_equal(r.local, LOCAL_PROTOCOL);
        assert_non_null(strstr(r.text, "no SMTP reply"));
        reply_parser_done(&p);
    }
}

/* A line of `len` octets with its CR LF. */
static char *long_line(size_t len, char separator)
{
    char *line = malloc(len + 1);

    assert_non_null(line);
    memset(line, 'x', len);
    memcpy(line, "250", 3);
    line[3] = separator;
    memcpy(line + len - 2, "\r\n", 3);
    return line;
}

static void a_line_of_8_kilobytes_is_read_and_cut_for_people(void **state)
{
    char *line = long_line(REPLY_LINE_MAX, ' ');
    struct reply_parser p;
    struct reply r;
    size_t used = 0;

    (void)state;
    reply_parser_init(&p);
    assert_int_equal(feed(&p, line, REPLY_LINE_MAX, &used, &r), REPLY_DONE);
    assert_int_equal(strlen(r.text), REPLY_TEXT_MAX - 1);
    reply_parser_done(&p);
    free(line);
}

static void a_longer_line_is_bad_even_before_its_end(void **state)
{
    char *line = long_line(REPLY_LINE_MAX + 1, ' ');
    struct reply_parser p;
    struct reply r;
    size_t used = 0;

    (void)state;
    reply_parser_init(&p);
    assert_int_equal(feed(&p, line, REPLY_LINE_MAX + 1, &used, &r), REPLY_BAD);
    assert_int_equal(r.local, LOCAL_PROTOCOL);
    assert_string_equal(r.text, "a line of the server is longer than 8 KB");
    reply_parser_done(&p);
    reply_parser_init(&p);
    memset(line, '2', REPLY_LINE_MAX + 1);
    assert_int_equal(feed(&p, line, REPLY_LINE_MAX, &used, &r), REPLY_MORE);
    assert_int_equal(feed(&p, line, 1, &used, &r), REPLY_BAD);
    reply_parser_done(&p);
    free(line);
}

static void a_reply_of_64_kilobytes_is_read_and_a_longer_one_is_bad(void **state)
{
    char *line = long_line(1024, '-');
    char *last = long_line(1024, ' ');
    struct reply_parser p;
    struct reply r;
    size_t used = 0;

    (void)state;
    for (int longer = 0; longer <= 1; longer++) {
        reply_parser_init(&p);
        for (int i = 0; i < 63; i++)
            assert_int_equal(feed(&p, line, 1024, &used, &r), REPLY_MORE);
        if (longer) {
            assert_int_equal(feed(&p, line, 1024, &used, &r), REPLY_MORE);
            assert_int_equal(feed(&p, "2", 1, &used, &r), REPLY_BAD);
            assert_string_equal(r.text, "a reply of the server is longer than 64 KB");
        } else {
            assert_int_equal(feed(&p, last, 1024, &used, &r), REPLY_DONE);
            assert_int_equal(reply_line_count(&p), 64);
        }
        reply_parser_done(&p);
    }
    free(line);
    free(last);
}

struct from_text {
    const char *text;
    bool ok;
};

static void replies_can_be_built_from_text(void **state)
{
    static const struct from_text rows[] = {
        {"535 5.7.3 Authentication unsuccessful", true},
        {"250", true},
        {"250-a\r\n250 b", true},
        {"", false},
        {"nonsense", false},
        {"250-more to come", false},
        {"250 a\r\n250 b", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct reply r = {.code = 999};

        print_message("  \"%s\"\n", rows[i].text);
        assert_int_equal(reply_from_text(&r, rows[i].text), rows[i].ok);
        if (!rows[i].ok)
            assert_int_equal(r.code, 999);
    }
}

static void predicates_look_at_the_first_digit(void **state)
{
    struct reply r;

    (void)state;
    assert_true(reply_from_text(&r, "250 2.0.0 OK"));
    assert_true(reply_is_positive(&r) && !reply_is_temporary(&r) && !reply_is_permanent(&r));
    assert_true(reply_from_text(&r, "354 go"));
    assert_true(!reply_is_positive(&r) && !reply_is_temporary(&r) && !reply_is_permanent(&r));
    assert_true(reply_from_text(&r, "432 4.3.2 x"));
    assert_true(!reply_is_positive(&r) && reply_is_temporary(&r) && !reply_is_permanent(&r));
    assert_true(reply_from_text(&r, "554 4.3.2 x"));
    assert_true(!reply_is_positive(&r) && !reply_is_temporary(&r) && reply_is_permanent(&r));
    assert_true(reply_has_enhanced(&r, 4, 3, 2));
    assert_false(reply_has_enhanced(&r, 5, 3, 2));
    assert_false(reply_has_enhanced(&r, 4, 3, 0));
    assert_true(reply_from_text(&r, "554 x"));
    assert_false(reply_has_enhanced(&r, 0, 0, 0));
    reply_local(&r, LOCAL_TIMEOUT, "x");
    assert_true(!reply_is_positive(&r) && !reply_is_temporary(&r) && !reply_is_permanent(&r));
}

static void replies_are_shown_on_one_line(void **state)
{
    struct reply r;
    char out[200];

    (void)state;
    assert_true(reply_from_text(&r, "535 5.7.3 Authentication unsuccessful"));
    reply_format(&r, out, sizeof(out));
    assert_string_equal(out, "535 5.7.3 Authentication unsuccessful");
    reply_format(&r, out, 12);
    assert_string_equal(out, "535 5.7.3 A");
    assert_true(reply_from_text(&r, "250-a\r\n250 b"));
    reply_format(&r, out, sizeof(out));
    assert_string_equal(out, "250 a b");
    assert_true(reply_from_text(&r, "250 2.0.0"));
    reply_format(&r, out, sizeof(out));
    assert_string_equal(out, "250 2.0.0");
    reply_local(&r, LOCAL_TIMEOUT, "no answer to %s in %d\nminutes", "MAIL", 5);
    reply_format(&r, out, sizeof(out));
    assert_string_equal(out, "(timeout) no answer to MAIL in 5?minutes");
    reply_local(&r, LOCAL_LOST, "%s", "");
    reply_format(&r, out, sizeof(out));
    assert_string_equal(out, "(lost)");
}

static void every_local_failure_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < LOCAL_COUNT; i++)
        for (int j = 0; j < i; j++)
            assert_string_not_equal(local_failure_name((enum local_failure)i),
                                    local_failure_name((enum local_failure)j));
    assert_string_equal(local_failure_name(LOCAL_COUNT), "unknown");
}

static void a_long_local_text_is_cut(void **state)
{
    char text[2 * REPLY_TEXT_MAX];
    struct reply r;

    (void)state;
    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    reply_local(&r, LOCAL_SPOOL, "%s", text);
    assert_int_equal(strlen(r.text), REPLY_TEXT_MAX - 1);
    assert_int_equal(r.local, LOCAL_SPOOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_are_read),
        cmocka_unit_test(replies_may_be_split_anywhere),
        cmocka_unit_test(only_one_reply_is_taken_at_a_time),
        cmocka_unit_test(lines_can_be_asked_for_until_the_next_reply),
        cmocka_unit_test(what_is_no_reply_is_bad),
        cmocka_unit_test(a_line_of_8_kilobytes_is_read_and_cut_for_people),
        cmocka_unit_test(a_longer_line_is_bad_even_before_its_end),
        cmocka_unit_test(a_reply_of_64_kilobytes_is_read_and_a_longer_one_is_bad),
        cmocka_unit_test(replies_can_be_built_from_text),
        cmocka_unit_test(predicates_look_at_the_first_digit),
        cmocka_unit_test(replies_are_shown_on_one_line),
        cmocka_unit_test(every_local_failure_has_a_name_of_its_own),
        cmocka_unit_test(a_long_local_text_is_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
