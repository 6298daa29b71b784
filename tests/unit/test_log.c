#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "relay/base/log.h"

#define FIELDS(...) ((const struct log_field[]){__VA_ARGS__, LOG_END})

static void expect_line(const struct log_field *fields, const char *expected)
{
    char line[LOG_LINE_MAX];
    size_t len = log_format(LOG_LEVEL_INFO, "test", fields, line, sizeof line);

    assert_string_equal(line, expected);
    assert_int_equal(len, strlen(expected));
}

static void ids_come_first_then_the_fields_in_their_order(void **state)
{
    (void)state;
    expect_line(FIELDS(LOG_PATH("to", "a@b.example"), LOG_ID("queue", 0x4f2a),
                       LOG_U64("attempt", 3), LOG_ID("session", 0x81c2), LOG_MS("delay", 3204)),
                "level=info event=test queue=4f2a session=81c2 to=<a@b.example> attempt=3 "
                "delay=3.204");
}

static void an_id_is_written_as_the_tool_shows_it(void **state)
{
    (void)state;
    expect_line(FIELDS(LOG_ID("queue", 0x2d), LOG_ID("connection", 0x12345), LOG_END),
                "level=info event=test queue=002d connection=12345");
}

static void absent_values_are_left_out(void **state)
{
    (void)state;
    expect_line(FIELDS(LOG_STR("a", NULL), LOG_STR("b", ""), LOG_ID("c", 0), LOG_PATH("d", NULL)),
                "level=info event=test");
}

static void zero_numbers_and_the_null_reverse_path_are_shown(void **state)
{
    (void)state;
    expect_line(FIELDS(LOG_U64("n", 0), LOG_MS("ms", 7), LOG_PATH("from", "")),
                "level=info event=test n=0 ms=0.007 from=<>");
}

struct value_row {
    const char *name;
    const char *value;
    const char *expected;
};

static const struct value_row values[] = {
    {"plain text", "smtp.office365.com:587", "smtp.office365.com:587"},
    {"a blank", "250 2.0.0 OK", "\"250 2.0.0 OK\""},
    {"an equals sign", "a=b", "\"a=b\""},
    {"quotes", "say \"hi\"", "\"say \\\"hi\\\"\""},
    {"a backslash", "a\\b", "\"a\\\\b\""},
    {"line ends", "x\r\nlevel=error", "\"x\\r\\nlevel=error\""},
    {"a tab", "a\tb", "\"a\\tb\""},
    {"escape and delete", "\x1b[0m\x7f", "\"\\x1b[0m\\x7f\""},
    {"valid UTF-8",
     "Gr\xc3\xbc\xc3\x9f"
     "e \xe2\x82\xac \xf0\x9f\x93\xa0",
     "\"Gr\xc3\xbc\xc3\x9f"
     "e \xe2\x82\xac \xf0\x9f\x93\xa0\""},
    {"Latin-1",
     "Gr\xfc\xdf"
     "e",
     "\"Gr\\xfc\\xdfe\""},
    {"an overlong form", "\xc0\xaf", "\"\\xc0\\xaf\""},
    {"a surrogate", "\xed\xa0\x80", "\"\\xed\\xa0\\x80\""},
    {"a character that ends early", "\xe2\x82", "\"\\xe2\\x82\""},
    {"beyond Unicode", "\xf5\x80\x80\x80", "\"\\xf5\\x80\\x80\\x80\""},
    {"a C1 control", "\xc2\x85", "\"\\xc2\\x85\""},
    {"a line separator",
     "a\xe2\x80\xa8"
     "b",
     "\"a\\xe2\\x80\\xa8b\""},
    {"a change of direction", "\xe2\x80\xae", "\"\\xe2\\x80\\xae\""},
    {"an isolate", "\xe2\x81\xa6", "\"\\xe2\\x81\\xa6\""},
    {"a quotation mark of UTF-8", "\xe2\x80\x9c", "\"\xe2\x80\x9c\""},
};

static void text_from_the_network_cannot_forge_a_line(void **state)
{
    char expected[256];

    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        print_message("  %s\n", values[i].name);
        (void)snprintf(expected, sizeof expected, "level=info event=test v=%s", values[i].expected);
        expect_line(FIELDS(LOG_STR("v", values[i].value)), expected);
    }
}

static void a_strange_path_is_quoted_with_its_brackets(void **state)
{
    (void)state;
    expect_line(FIELDS(LOG_PATH("to", "a b@c> x=<d")),
                "level=info event=test to=\"<a b@c> x=<d>\"");
}

static void a_long_line_is_cut_at_every_size_without_splitting_anything(void **state)
{
    const struct log_field *fields = FIELDS(LOG_STR("v", "\xe2\x82\xac\x1b \xf0\x9f\x93\xa0 end"));
    char whole[LOG_LINE_MAX];
    char line[LOG_LINE_MAX + 1];
    size_t full = log_format(LOG_LEVEL_INFO, "test", fields, whole, sizeof whole);

    (void)state;
    for (size_t size = 1; size < full + 8; size++) {
        size_t len;

        memset(line, 'Z', sizeof line);
        len = log_format(LOG_LEVEL_INFO, "test", fields, line, size);
        assert_true(len < size);
        assert_int_equal(line[len], '\0');
        assert_int_equal(line[size], 'Z');
        if (strcmp(line, whole) == 0)
            continue;
        assert_true(size < full + 5);
        if (len > 3 && line[len - 1] == '"')
            len--;
        if (size > 5) {
            assert_memory_equal(line + len - 3, "...", 3);
            assert_memory_equal(line, whole, len - 3);
        }
    }
}

static void a_cut_inside_quotes_closes_them(void **state)
{
    char line[48];

    (void)state;
    (void)log_format(LOG_LEVEL_INFO, "test", FIELDS(LOG_STR("v", "words words words words words")),
                     line, sizeof line);
    assert_string_equal(line, "level=info event=test v=\"words words words ...\"");
}

static void only_enabled_levels_are_logged(void **state)
{
    (void)state;
    log_setup(LOG_LEVEL_WARN, LOG_TARGET_STDERR, false);
    assert_true(log_enabled(LOG_LEVEL_ERROR));
    assert_true(log_enabled(LOG_LEVEL_WARN));
    assert_false(log_enabled(LOG_LEVEL_INFO));
}

static void levels_are_read_by_their_names(void **state)
{
    enum log_level level = LOG_LEVEL_WARN;

    (void)state;
    assert_true(log_level_parse("debug", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_false(log_level_parse("verbose", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
}

/* Lets log_event() write into a pipe instead of stderr and returns what came. */
static size_t captured(bool timestamps, const char *value, char *out, size_t size)
{
    int fds[2];
    int kept = dup(STDERR_FILENO);
    ssize_t n;

    assert_int_equal(pipe(fds), 0);
    assert_true(dup2(fds[1], STDERR_FILENO) >= 0);
    log_setup(LOG_LEVEL_INFO, LOG_TARGET_STDERR, timestamps);
    log_event(LOG_LEVEL_INFO, "shown", LOG_STR("v", value), LOG_END);
    log_event(LOG_LEVEL_DEBUG, "hidden", LOG_STR("v", value), LOG_END);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    (void)close(fds[1]);
    n = read(fds[0], out, size - 1);
    assert_true(n >= 0);
    out[n] = '\0';
    (void)close(fds[0]);
    (void)close(kept);
    return (size_t)n;
}

static void one_event_is_one_line_on_stderr(void **state)
{
    char out[2 * LOG_LINE_MAX];

    (void)state;
    (void)captured(false, "x", out, sizeof out);
    assert_string_equal(out, "level=info event=shown v=x\n");
}

static void a_timestamp_is_put_in_front_when_asked_for(void **state)
{
    char out[2 * LOG_LINE_MAX];
    int year = 0, ms = -1, end = 0;

    (void)state;
    (void)captured(true, "x", out, sizeof out);
    assert_int_equal(sscanf(out, "time=%4d-%*2d-%*2dT%*2d:%*2d:%*2d.%3dZ %n", &year, &ms, &end), 2);
    assert_true(year >= 2024 && ms >= 0);
    assert_string_equal(out + end, "level=info event=shown v=x\n");
}

static void the_longest_line_keeps_its_line_end(void **state)
{
    char value[2 * LOG_LINE_MAX];
    char out[2 * LOG_LINE_MAX];
    size_t len;

    (void)state;
    memset(value, 'x', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    len = captured(true, value, out, sizeof out);
    assert_true(len <= LOG_LINE_MAX + 1);
    assert_string_equal(out + len - 4, "...\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_come_first_then_the_fields_in_their_order),
        cmocka_unit_test(an_id_is_written_as_the_tool_shows_it),
        cmocka_unit_test(absent_values_are_left_out),
        cmocka_unit_test(zero_numbers_and_the_null_reverse_path_are_shown),
        cmocka_unit_test(text_from_the_network_cannot_forge_a_line),
        cmocka_unit_test(a_strange_path_is_quoted_with_its_brackets),
        cmocka_unit_test(a_long_line_is_cut_at_every_size_without_splitting_anything),
        cmocka_unit_test(a_cut_inside_quotes_closes_them),
        cmocka_unit_test(only_enabled_levels_are_logged),
        cmocka_unit_test(levels_are_read_by_their_names),
        cmocka_unit_test(one_event_is_one_line_on_stderr),
        cmocka_unit_test(a_timestamp_is_put_in_front_when_asked_for),
        cmocka_unit_test(the_longest_line_keeps_its_line_end),
    };

    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
