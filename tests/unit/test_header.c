#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/smtp/header.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define TRACE "Received: ours\r\n"

/* Feeds text in pieces of `step` octets (0: at once, as far as a call may take); what is not fed
 * any more once the header's end was found would go to the spool directly. */
static size_t feed(struct header *h, const char *text, size_t len, size_t step)
{
    size_t at = 0;

    header_init(h);
    while (at < len && h->state == HEADER_MORE) {
        size_t n = step > 0 ? step : HEADER_CHUNK_MAX;

        if (n > len - at)
            n = len - at;
        header_feed(h, (const uint8_t *)text + at, n);
        at += n;
    }
    header_finish(h);
    return at;
}

/* The stored form of a whole message. */
static void store(struct header *h, const char *text, size_t len, size_t step, struct bytes *out,
                  uint32_t *out_header_size)
{
    size_t fed = feed(h, text, len, step);
    struct bytes trace;
    size_t left;
    const uint8_t *rest;

    bytes_init(&trace, 1024);
    assert_true(bytes_text(&trace, TRACE));
    assert_true(header_write(h, &trace, out, out_header_size));
    rest = header_rest(h, &left);
    assert_true(bytes_append(out, rest, left));
    assert_true(bytes_append(out, text + fed, len - fed));
    bytes_done(&trace);
}

struct row {
    const char *name;
    const char *text;
    const char *header; /* stored, with the empty line, without our trace field */
    const char *body;
    const char *repairs;
};

#define DATE_AND_ID "Date: Thu, 3 Jul 2025 09:00:00 +0200\r\nMessage-ID: <1@printer>\r\n"

static const struct row rows[] = {
    {"well-formed mail passes to the octet", "From: a@b.example\r\n" DATE_AND_ID "\r\nbody\r\n",
     "From: a@b.example\r\n" DATE_AND_ID "\r\n", "body\r\n", ""},
    {"odd but legal fields pass to the octet",
     "RECEIVED:x\r\nX:\r\nSubject : a\r\n \tb\r\n  \r\n" DATE_AND_ID "\r\n",
     "RECEIVED:x\r\nX:\r\nSubject : a\r\n \tb\r\n  \r\n" DATE_AND_ID "\r\n", "", ""},
    {"8-bit values pass", DATE_AND_ID "Subject: B\xfcro\r\n\r\n",
     DATE_AND_ID "Subject: B\xfcro\r\n\r\n", "", ""},
    {"no header at all", "Paper jam in tray 2\r\nPlease help\r\n", "\r\n",
     "Paper jam in tray 2\r\nPlease help\r\n", "no_header"},
    {"first line starts with a space", " From: a@b.example\r\n", "\r\n", " From: a@b.example\r\n",
     "no_header"},
    {"first line starts with a colon", ": x\r\n", "\r\n", ": x\r\n", "no_header"},
    {"an empty line first, then text", "\r\nPaper jam\r\n", "\r\n", "Paper jam\r\n", "no_header"},
    {"an empty line first, then what only looks like a field", "\r\nTray 2: paper jam\r\n", "\r\n",
     "Tray 2: paper jam\r\n", "no_header"},
    {"an empty line first, then a field of no renown", "\r\nTray: empty\r\n\r\nx\r\n", "\r\n",
     "Tray: empty\r\n\r\nx\r\n", "no_header"},
    {"empty lines first, then a header", "\r\n\r\nSubject: x\r\n" DATE_AND_ID "\r\nbody\r\n",
     "Subject: x\r\n" DATE_AND_ID "\r\n", "body\r\n", "leading_empty_lines"},
    {"several empty lines, then text", "\r\n\r\n\r\nPaper jam\r\n", "\r\n", "\r\n\r\nPaper jam\r\n",
     "no_header"},
    {"only empty lines", "\r\n\r\n", "\r\n", "\r\n", "no_header"},
    {"nothing", "", "\r\n", "", "no_header"},
    {"ends inside the header", "Subject: x\r\n",
     "Subject: x\r\n"
     "\r\n",
     "", ""},
    {"no empty line before the body", "Subject: x\r\n" DATE_AND_ID "Paper jam\r\nTo: x\r\n",
     "Subject: x\r\n" DATE_AND_ID "\r\n", "Paper jam\r\nTo: x\r\n", "no_empty_line"},
    {"8-bit in a name is no field",
     "S\xfc"
     "d: x\r\n",
     "\r\n",
     "S\xfc"
     "d: x\r\n",
     "no_header"},
    {"a field with control characters in its name is left out",
     "Subject: x\r\nX-\x01Y: z\r\n w\r\nTo: a@b.example\r\n\r\nbody\r\n",
     "Subject: x\r\nTo: a@b.example\r\n\r\n", "body\r\n", "bad_field_name"},
    {"a printer's language is no header", "\x1b%-12345X@PJL: x\r\n", "\r\n",
     "\x1b%-12345X@PJL: x\r\n", "no_header"},
    {"the line that mbox files begin with is left out",
     "From scanner@office.example Fri Jul  4 10:00:00 2025\r\nSubject: x\r\n\r\nbody\r\n",
     "Subject: x\r\n\r\n", "body\r\n", "mbox_line"},
    {"... quoted, and without a header behind it",
     ">From - Fri Jul  4 10:00:00 2025\r\nPaper jam\r\n", "\r\n", "Paper jam\r\n",
     "mbox_line,no_header"},
    {"... and with an empty line behind it", "From - Fri Jul  4 10:00:00 2025\r\n\r\nTray: x\r\n",
     "\r\n", "Tray: x\r\n", "mbox_line,no_header"},
    {"a line that begins with From need not be one", "From tray 2: Fri, paper jam\r\nx\r\n", "\r\n",
     "From tray 2: Fri, paper jam\r\nx\r\n", "no_header"},
    {"... nor may it be a field", "From : a@b.example\r\n\r\n", "From : a@b.example\r\n\r\n", "",
     ""},
    {"fields in the body are body", DATE_AND_ID "\r\nDate:\r\n\r\nx\r\n", DATE_AND_ID "\r\n",
     "Date:\r\n\r\nx\r\n", ""},
};

static void check(const struct row *row, size_t step)
{
    struct header h;
    struct bytes out;
    uint32_t size = 0;
    struct bytes want;

    bytes_init(&out, 1 << 20);
    bytes_init(&want, 1 << 20);
    store(&h, row->text, strlen(row->text), step, &out, &size);
    assert_true(bytes_printf(&want, TRACE "%s", row->header));
    if (size != want.len)
        fail_msg("%s, step %zu: the header has %u octets, not %zu", row->name, step, size,
                 want.len);
    assert_true(bytes_text(&want, row->body));
    if (strcmp(bytes_string(&out), bytes_string(&want)) != 0)
        fail_msg("%s, step %zu: \"%s\"", row->name, step, bytes_string(&out));
    if (strcmp(h.repairs, row->repairs) != 0)
        fail_msg("%s, step %zu: repairs %s", row->name, step, h.repairs);
    header_done(&h);
    bytes_done(&out);
    bytes_done(&want);
}

static void headers_are_stored_as_they_should_be(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (size_t step = 0; step < 5; step++)
            check(&rows[i], step);
    }
}

static void fields_are_known_and_counted(void **state)
{
    static const char text[] = "Received: a\r\nreceived: b\r\n\tby c\r\nFrom: x\r\nSubject: s\r\n"
                               "Date: d\r\nMessage-ID: <m>\r\nX-Received: no\r\n\r\n"
                               "Received: body\r\n";
    struct header h;

    (void)state;
    feed(&h, text, strlen(text), 0);
    assert_int_equal(header_count(&h, HEADER_RECEIVED), 2);
    assert_int_equal(header_count(&h, HEADER_FROM), 1);
    assert_int_equal(header_count(&h, HEADER_SUBJECT), 1);
    assert_int_equal(header_count(&h, HEADER_DATE), 1);
    assert_int_equal(header_count(&h, HEADER_MESSAGE_ID), 1);
    assert_int_equal(h.field_count, 7);
    assert_int_equal(h.fields[1].offset, strlen("Received: a\r\n"));
    assert_int_equal(h.fields[1].len, strlen("received: b\r\n\tby c\r\n"));
    assert_int_equal(h.fields[1].name_len, strlen("received"));
    header_done(&h);
}

static void values_are_unfolded_and_printable(void **state)
{
    static const struct {
        const char *text;
        size_t size;
        const char *value;
    } values[] = {
        {"Subject: Scan\r\n\r\n", 64, "Scan"},
        {"Subject:\r\n  Scan \r\n\tof  today \r\n\r\n", 64, "Scan  of  today"},
        {"Subject : x\r\nSubject: y\r\n\r\n", 64, "x"},
        {"Subject: a:b\r\n\r\n", 64, "a:b"},
        {"Subject:\r\n\r\n", 64, ""},
        {"To: x\r\n\r\n", 64, ""},
        {"Subject: a\x01"
         "b\x7f\r\n\r\n",
         64, "a?b?"},
        {"Subject: B\xc3\xbcro B\xfcro\r\n\r\n", 64, "B\xc3\xbcro B?ro"},
        {"Subject: 12345678\r\n\r\n", 5, "1234"},
        {"Subject: 123\xe2\x82\xac\r\n\r\n", 6, "123"},
        {"Subject: 123\xe2\x82\xac\r\n\r\n", 7, "123\xe2\x82\xac"},
        {"Subject: abc def\r\n\r\n", 5, "abc"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(values); i++) {
        struct header h;
        char value[64] = "dirty";

        feed(&h, values[i].text, strlen(values[i].text), 1);
        header_text(&h, HEADER_SUBJECT, value, values[i].size);
        if (strcmp(value, values[i].value) != 0)
            fail_msg("\"%s\" gives \"%s\"", values[i].text, value);
        header_done(&h);
    }
}

/* As many octets of "X: ...\r\n" lines as asked for, and then the rest. */
static char *big_header(size_t octets, const char *rest)
{
    static const char line[] = "X-Filler: 0123456789012345678901234567890123456789\r\n";
    char *text = malloc(octets + sizeof(line) + strlen(rest) + 1);
    size_t n = 0;

    assert_non_null(text);
    for (; n < octets; n += sizeof(line) - 1)
        memcpy(text + n, line, sizeof(line) - 1);
    strcpy(text + n, rest);
    return text;
}

static void a_header_within_the_limit_is_held(void **state)
{
    char *text = big_header(HEADER_MAX - 100, "To: x\r\n\r\nbody\r\n");
    struct header h;
    struct bytes out;
    uint32_t size = 0;

    (void)state;
    bytes_init(&out, 1 << 20);
    store(&h, text, strlen(text), 0, &out, &size);
    assert_int_equal(size, strlen(text) - strlen("body\r\n") + strlen(TRACE));
    assert_string_equal(h.repairs, "");
    assert_string_equal(bytes_string(&out) + size, "body\r\n");
    header_done(&h);
    bytes_done(&out);
    free(text);
}

static void a_larger_header_passes_unrepaired_and_marked(void **state)
{
    char *text = big_header(HEADER_MAX + 100, "To: x\r\n\r\nbody\r\n");

    (void)state;
    for (size_t step = 0; step < 2000; step += 1999) {
        struct header h;
        struct bytes out;
        uint32_t size = 1;

        bytes_init(&out, 1 << 20);
        store(&h, text, strlen(text), step, &out, &size);
        assert_int_equal(size, 0);
        assert_string_equal(h.repairs, "header_too_large");
        assert_int_equal(out.len, strlen(text) + strlen(TRACE));
        assert_memory_equal(out.data, TRACE, strlen(TRACE));
        assert_string_equal(bytes_string(&out) + strlen(TRACE), text);
        header_done(&h);
        bytes_done(&out);
    }
    free(text);
}

static void one_endless_line_without_colon_is_body_soon(void **state)
{
    char *text = malloc(HEADER_MAX);
    struct header h;

    (void)state;
    assert_non_null(text);
    memset(text, 'A', HEADER_MAX);
    header_init(&h);
    assert_int_equal(header_feed(&h, (uint8_t *)text, 998), HEADER_MORE);
    assert_int_equal(header_feed(&h, (uint8_t *)text, 1), HEADER_DONE);
    assert_int_equal(h.body, 0);
    assert_string_equal(h.repairs, "no_header");
    header_done(&h);
    free(text);
}

static void too_many_fields_are_a_header_too_large(void **state)
{
    struct header h;
    size_t lines = 0;

    (void)state;
    header_init(&h);
    while (header_feed(&h, (const uint8_t *)"a:\r\n", 4) == HEADER_MORE)
        lines++;
    assert_int_equal(lines, HEADER_FIELDS_MAX);
    assert_int_equal(h.state, HEADER_TOO_LARGE);
    header_done(&h);
}

static void fields_can_be_added_replaced_and_left_out(void **state)
{
    static const char text[] = "X: 1\r\nFrom: a\r\nFrom: b\r\nY: 2\r\nTo: c\r\n\r\nbody\r\n";
    struct header h;
    struct bytes out;
    struct bytes trace;
    uint32_t size;
    size_t len;
    const char *value;

    (void)state;
    bytes_init(&out, 4096);
    bytes_init(&trace, 64);
    feed(&h, text, strlen(text), 0);
    header_drop(&h, HEADER_FROM);
    assert_null(header_find(&h, HEADER_FROM));
    assert_true(header_replace(&h, header_find(&h, HEADER_TO), "To: d,\r\n e\r\n", 12));
    value = header_value(&h, header_find(&h, HEADER_TO), &len);
    assert_int_equal(len, strlen(" d,\r\n e\r\n"));
    assert_memory_equal(value, " d,\r\n e\r\n", len);
    assert_true(header_replace(&h, &h.fields[0], "", 0));
    assert_true(header_add(&h, "From: c"));
    header_note(&h, "from");
    header_note(&h, "fro");
    header_note(&h, "from");
    assert_true(header_write(&h, &trace, &out, &size));
    assert_string_equal(bytes_string(&out), "Y: 2\r\nTo: d,\r\n e\r\nFrom: c\r\n\r\n");
    assert_int_equal(size, out.len);
    assert_memory_equal(header_rest(&h, &len), "body\r\n", 6);
    assert_int_equal(len, 6);
    assert_string_equal(h.repairs, "from,fro");
    header_done(&h);
    bytes_done(&out);
}

static void repairs_beyond_the_room_are_lost_whole(void **state)
{
    struct header h;
    char name[16];

    (void)state;
    header_init(&h);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "repair%03u", i);
        header_note(&h, name);
    }
    assert_true(strlen(h.repairs) < HEADER_REPAIRS_MAX);
    assert_memory_equal(h.repairs + strlen(h.repairs) - 10, ",repair", 7);
    header_done(&h);
}

static void a_full_buffer_is_told(void **state)
{
    struct header h;
    struct bytes out;
    struct bytes trace;
    uint32_t size = 7;

    (void)state;
    bytes_init(&trace, 64);
    bytes_init(&out, 10);
    feed(&h, "Subject: x\r\n\r\n", 14, 0);
    assert_false(header_write(&h, &trace, &out, &size));
    assert_int_equal(size, 7);
    header_done(&h);
    bytes_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_stored_as_they_should_be),
        cmocka_unit_test(fields_are_known_and_counted),
        cmocka_unit_test(values_are_unfolded_and_printable),
        cmocka_unit_test(a_header_within_the_limit_is_held),
        cmocka_unit_test(a_larger_header_passes_unrepaired_and_marked),
        cmocka_unit_test(one_endless_line_without_colon_is_body_soon),
        cmocka_unit_test(too_many_fields_are_a_header_too_large),
        cmocka_unit_test(fields_can_be_added_replaced_and_left_out),
        cmocka_unit_test(repairs_beyond_the_room_are_lost_whole),
        cmocka_unit_test(a_full_buffer_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
