#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/smtp/maildata.h"

#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Text with NULs inside. */
#define RAW(text) text, sizeof(text) - 1

struct decoded {
    uint8_t text[4096];
    size_t len;
    size_t used;
    bool ended;
    struct maildata_quirks quirks;
};

/* Feeds in pieces that end at `split`, then piece by piece of `step` octets (0: the rest at once).
 */
static struct decoded decode(const char *raw, size_t len, size_t split, size_t step, size_t room)
{
    struct maildata_decoder d;
    struct decoded r = {.len = 0};
    uint8_t out[4096];

    maildata_decoder_init(&d);
    while (!r.ended && r.used < len) {
        size_t until = r.used < split ? split : step > 0 ? r.used + step : len;
        size_t used;
        size_t got;

        if (until > len)
            until = len;
        r.ended = maildata_decode(&d, (const uint8_t *)raw + r.used, until - r.used, &used, out,
                                  room, &got);
        assert_in_range(got, 0, room);
        assert_true(r.len + got <= sizeof(r.text));
        memcpy(r.text + r.len, out, got);
        r.len += got;
        r.used += used;
    }
    r.quirks = d.quirks;
    return r;
}

struct row {
    const char *name;
    const char *raw;
    size_t raw_len;
    const char *text; /* decoded, up to the end or to the end of input */
    size_t text_len;
    bool ends;
};

/* What ends mail data, and what only looks like it to somebody. Each row is followed by "x\r\n"
 * where it does not end, so that nothing is held back any more. */
static const struct row ends[] = {
    {"CRLF . CRLF", RAW("a\r\n.\r\n"), RAW("a\r\n"), true},
    {"at once: the CR LF before the first octet counts", RAW(".\r\n"), RAW(""), true},
    {"empty line before it", RAW("a\r\n\r\n.\r\n"), RAW("a\r\n\r\n"), true},
    {"CRCRLF . CRLF holds CRLF . CRLF", RAW("a\r\r\n.\r\n"), RAW("a\r\n"), true},
    {"LF . LF", RAW("a\n.\nx\r\n"), RAW("a\r\n.\r\nx\r\n"), false},
    {"LF . CRLF", RAW("a\n.\r\nx\r\n"), RAW("a\r\n.\r\nx\r\n"), false},
    {"CRLF . LF", RAW("a\r\n.\nx\r\n"), RAW("a\r\n.\r\nx\r\n"), false},
    {"CR . CR", RAW("a\r.\rx\r\n"), RAW("a\r\n.\r\nx\r\n"), false},
    {"CR . CRLF", RAW("a\r.\r\nx\r\n"), RAW("a\r\n.\r\nx\r\n"), false},
    {"CRLF . CR", RAW("a\r\n.\rx\r\n"), RAW("a\r\n.\r\nx\r\n"), false},
    {"CR . LF", RAW("a\r.\nx\r\n"), RAW("a\r\n.\r\nx\r\n"), false},
    {"LF . CR", RAW("a\n.\rx\r\n"), RAW("a\r\n.\r\nx\r\n"), false},
    {"CRLF . CRCRLF", RAW("a\r\n.\r\r\nx\r\n"), RAW("a\r\n.\r\nx\r\n"), false},
    {"CRCRLF . CRCRLF", RAW("a\r\r\n.\r\r\nx\r\n"), RAW("a\r\n.\r\nx\r\n"), false},
    {"LF . CRCRLF", RAW("a\n.\r\r\nx\r\n"), RAW("a\r\n.\r\nx\r\n"), false},
    {"CRCR . CRCR", RAW("a\r\r.\r\rx\r\n"), RAW("a\r\n\r\n.\r\n\r\nx\r\n"), false},
    {"LFCR . LFCR", RAW("a\n\r.\n\rx\r\n"), RAW("a\r\n\r\n.\r\n\r\nx\r\n"), false},
    {"CRLF NUL . CRLF", RAW("a\r\n\0.\r\nx\r\n"), RAW("a\r\n\0.\r\nx\r\n"), false},
    {"CRLF . NUL CRLF", RAW("a\r\n.\0\r\nx\r\n"), RAW("a\r\n\0\r\nx\r\n"), false},
    {"LF NUL . CRLF", RAW("a\n\0.\r\nx\r\n"), RAW("a\r\n\0.\r\nx\r\n"), false},
    {"CRLF . CR NUL LF", RAW("a\r\n.\r\0\nx\r\n"), RAW("a\r\n.\r\n\0\r\nx\r\n"), false},
    {"CR NUL LF . CRLF", RAW("a\r\0\n.\r\nx\r\n"), RAW("a\r\n\0\r\n.\r\nx\r\n"), false},
    {"CRLF . space CRLF", RAW("a\r\n. \r\nx\r\n"), RAW("a\r\n \r\nx\r\n"), false},
    {"CRLF space . CRLF", RAW("a\r\n .\r\nx\r\n"), RAW("a\r\n .\r\nx\r\n"), false},
    {"CRLF . . CRLF", RAW("a\r\n..\r\nx\r\n"), RAW("a\r\n.\r\nx\r\n"), false},
    {"vertical tab and form feed", RAW("a\v.\v\f.\fx\r\n"), RAW("a\v.\v\f.\fx\r\n"), false},
    {"next line of Latin-1", RAW("a\x85.\x85x\r\n"), RAW("a\x85.\x85x\r\n"), false},
    {"LF . LF, then a true end", RAW("a\n.\n\r\n.\r\n"), RAW("a\r\n.\r\n\r\n"), true},
    {"LF . CRLF . CRLF", RAW("a\n.\r\n.\r\n"), RAW("a\r\n.\r\n"), true},
    {"CRLF . LF . CRLF is no end", RAW("a\r\n.\n.\r\nx\r\n"), RAW("a\r\n.\r\n.\r\nx\r\n"), false},
    {"CRLF . CR . CRLF is no end", RAW("a\r\n.\r.\r\nx\r\n"), RAW("a\r\n.\r\n.\r\nx\r\n"), false},
    {"CRLF . CR CRLF . CRLF", RAW("a\r\n.\r\r\n.\r\n"), RAW("a\r\n.\r\n"), true},
};

static const struct row contents[] = {
    {"plain", RAW("a\r\nb\r\n"), RAW("a\r\nb\r\n"), false},
    {"bare LF", RAW("a\nb\n"), RAW("a\r\nb\r\n"), false},
    {"lone CR", RAW("a\rb\r\n"), RAW("a\r\nb\r\n"), false},
    {"a run of CRs without LF", RAW("a\r\r\rb\r\n"), RAW("a\r\n\r\n\r\nb\r\n"), false},
    {"CR CR LF is one line end", RAW("a\r\r\nb\r\r\r\n"), RAW("a\r\nb\r\n"), false},
    {"LF CR", RAW("a\n\rb\r\n"), RAW("a\r\n\r\nb\r\n"), false},
    {"stuffed dots go", RAW("..a\r\n...b\r\n.c\r\n"), RAW(".a\r\n..b\r\nc\r\n"), false},
    {"a dot within a line stays", RAW("a.\r\nb..c\r\n"), RAW("a.\r\nb..c\r\n"), false},
    {"behind a bare LF two dots were stuffed", RAW("a\n..b\n..\nc\n"), RAW("a\r\n.b\r\n.\r\nc\r\n"),
     false},
    {"behind a bare LF one dot was not", RAW("a\n.b\n"), RAW("a\r\n.b\r\n"), false},
    {"NUL and 8-bit pass", RAW("a\0\xe4\r\n"), RAW("a\0\xe4\r\n"), false},
};

static void check(const struct row *row, size_t split, size_t step, size_t room)
{
    struct decoded r = decode(row->raw, row->raw_len, split, step, room);

    if (r.ended != row->ends || r.used != row->raw_len || r.len != row->text_len ||
        memcmp(r.text, row->text, r.len) != 0)
        fail_msg("%s (split %zu, step %zu, room %zu): %zu of %zu octets used, %s, \"%.*s\"",
                 row->name, split, step, room, r.used, row->raw_len, r.ended ? "ended" : "goes on",
                 (int)r.len, (const char *)r.text);
}

static void check_every_split(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t split = 0; split <= rows[i].raw_len; split++)
            check(&rows[i], split, 0, MAILDATA_ROOM_MIN);
        check(&rows[i], 0, 1, MAILDATA_ROOM_MIN);
        check(&rows[i], 0, 2, 4096);
    }
}

static void only_crlf_dot_crlf_ends_mail_data(void **state)
{
    (void)state;
    check_every_split(ends, COUNT(ends));
}

static void content_comes_out_in_crlf_form(void **state)
{
    (void)state;
    check_every_split(contents, COUNT(contents));
}

static void octets_behind_the_end_are_untouched(void **state)
{
    static const char raw[] = "a\r\n.\r\nQUIT\r\n";
    struct decoded r = decode(raw, sizeof(raw) - 1, 0, 0, 4096);

    (void)state;
    assert_true(r.ended);
    assert_int_equal(r.used, strlen("a\r\n.\r\n"));
}

static void a_small_room_only_takes_more_calls(void **state)
{
    char raw[3000];
    struct decoded r;

    (void)state;
    memset(raw, '\r', sizeof(raw));
    raw[1000] = 'x';
    raw[2999] = '\n';
    r = decode(raw, sizeof(raw), 0, 0, MAILDATA_ROOM_MIN);
    assert_int_equal(r.len, 1000 * 2 + 1 + 2);
    assert_int_equal(r.used, sizeof(raw));
}

static void quirks_are_told(void **state)
{
    static const struct {
        const char *name;
        const char *raw;
        size_t len;
        struct maildata_quirks want;
    } rows[] = {
        {"clean", RAW("ab\r\nc\r\n"), {.longest_line = 2}},
        {"bare LF", RAW("ab\n"), {.bare_lf = true, .longest_line = 2}},
        {"bare LF behind a dot", RAW("\r\n.\n"), {.bare_lf = true, .longest_line = 1}},
        {"bare CR", RAW("a\rb\r\n"), {.bare_cr = true, .longest_line = 1}},
        {"CR CR LF", RAW("a\r\r\n"), {.cr_cr_lf = true, .longest_line = 1}},
        {"NUL", RAW("a\0b\r\n"), {.nul = true, .longest_line = 3}},
        {"NUL first", RAW("\0\r\n"), {.nul = true, .longest_line = 1}},
        {"8-bit", RAW("a\xc3\xa4\r\n"), {.eight_bit = true, .longest_line = 3}},
        {"8-bit first", RAW("\xc3\r\n"), {.eight_bit = true, .longest_line = 1}},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (size_t step = 0; step < 3; step++) {
            struct maildata_quirks got = decode(rows[i].raw, rows[i].len, 0, step, 4096).quirks;
            const struct maildata_quirks *want = &rows[i].want;

            if (got.bare_lf != want->bare_lf || got.bare_cr != want->bare_cr ||
                got.cr_cr_lf != want->cr_cr_lf || got.nul != want->nul ||
                got.eight_bit != want->eight_bit || got.longest_line != want->longest_line)
                fail_msg("%s, step %zu: longest line %zu", rows[i].name, step, got.longest_line);
        }
    }
}

/* ---- LF . LF --------------------------------------------------------------------------------- */

static void only_lf_dot_lf_of_a_mail_without_cr_is_held_back(void **state)
{
    static const struct {
        const char *raw;
        bool held;
        const char *text;
    } rows[] = {
        {"a\n.\n", true, "a\r\n"},
        {"a\n\n.\n", true, "a\r\n\r\n"},
        {"a\n.\n.\n", true, "a\r\n.\r\n"},
        {"a\n..\n.\n", true, "a\r\n.\r\n"},
        {"a\n.", false, "a\r\n"},
        {"a\n.\nb", false, "a\r\n.\r\nb"},
        {"a\n.\n\n", false, "a\r\n.\r\n\r\n"},
        {"a\r\nb\n.\n", false, "a\r\nb\r\n.\r\n"},
        {"a\r\r\nb\n.\n", false, "a\r\nb\r\n.\r\n"},
        {"a\rb\n.\n", false, "a\r\nb\r\n.\r\n"},
        {"a\r.\n", false, "a\r\n.\r\n"},
        {"a\n. \n", false, "a\r\n. \r\n"},
        {"a.\n", false, "a.\r\n"},
        {".\n", false, ".\r\n"}, /* the CR LF before the first octet was one */
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (size_t step = 1; step < 4; step++) {
            struct maildata_decoder d;
            char text[64] = "";
            size_t len = 0;

            maildata_decoder_init(&d);
            for (size_t at = 0; at < strlen(rows[i].raw);) {
                size_t left = strlen(rows[i].raw) - at;
                size_t used;
                size_t got;

                assert_false(maildata_decode(&d, (const uint8_t *)rows[i].raw + at,
                                             left < step ? left : step, &used,
                                             (uint8_t *)text + len, sizeof(text) - len, &got));
                at += used;
                len += got;
            }
            assert_int_equal(maildata_is_lf_dot_lf(&d), rows[i].held);
            assert_int_equal(len, strlen(rows[i].text));
            assert_memory_equal(text, rows[i].text, len);
        }
    }
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static void in_chunks_no_dot_means_anything(void **state)
{
    static const struct {
        const char *raw;
        const char *text;
    } rows[] = {
        {"", ""},
        {".\r\n", ".\r\n"},
        {"a\r\n.\r\nb\r\n", "a\r\n.\r\nb\r\n"},
        {"a\r\n..\r\n.b\r\n", "a\r\n..\r\n.b\r\n"},
        {"a\n.\nb", "a\r\n.\r\nb\r\n"},
        {"a\rb\r\rc", "a\r\nb\r\n\r\nc\r\n"},
        {"a\r\r\nb\r\r", "a\r\nb\r\n\r\n"},
        {"a\r", "a\r\n"},
        {"\r\r\r\r\r\r\r\r\r\r", "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (size_t step = 1; step < 4; step++) {
            struct maildata_decoder d;
            uint8_t out[MAILDATA_ROOM_MIN];
            char text[64] = "";
            size_t len = 0;
            size_t got = 0;
            bool ended;

            maildata_decoder_init_chunks(&d);
            for (size_t at = 0; at < strlen(rows[i].raw);) {
                size_t left = strlen(rows[i].raw) - at;
                size_t used;

                assert_false(maildata_decode(&d, (const uint8_t *)rows[i].raw + at,
                                             left < step ? left : step, &used, out, sizeof(out),
                                             &got));
                memcpy(text + len, out, got);
                at += used;
                len += got;
            }
            do {
                ended = maildata_finish(&d, out, sizeof(out), &got);
                memcpy(text + len, out, got);
                len += got;
            } while (!ended);
            assert_int_equal(len, strlen(rows[i].text));
            assert_memory_equal(text, rows[i].text, len);
        }
    }
}

/* ---- out ------------------------------------------------------------------------------------- */

static void encode(const void *text, size_t len, size_t step, struct bytes *out)
{
    struct maildata_encoder e;
    const uint8_t *p = text;

    maildata_encoder_init(&e);
    while (len > 0) {
        size_t n = step > 0 && step < len ? step : len;

        assert_true(maildata_encode(&e, p, n, out));
        p += n;
        len -= n;
    }
    assert_true(maildata_end(&e, out));
}

static void dots_are_stuffed_and_the_end_appended(void **state)
{
    static const struct row rows[] = {
        {"plain", RAW("a\r\nb\r\n"), RAW("a\r\nb\r\n.\r\n"), false},
        {"empty", RAW(""), RAW(".\r\n"), false},
        {"without a last line end", RAW("a"), RAW("a\r\n.\r\n"), false},
        {"dots", RAW(".\r\n.a\r\n..b\r\nc.\r\n"), RAW("..\r\n..a\r\n...b\r\nc.\r\n.\r\n"), false},
        {"a bare LF is repaired", RAW("a\n.\nb"), RAW("a\r\n..\r\nb\r\n.\r\n"), false},
        {"a bare CR is repaired", RAW("a\r.\rb\r"), RAW("a\r\n..\r\nb\r\n.\r\n"), false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (size_t step = 0; step < 4; step++) {
            struct bytes out;

            bytes_init(&out, 4096);
            encode(rows[i].raw, rows[i].raw_len, step, &out);
            if (out.len != rows[i].text_len || memcmp(out.data, rows[i].text, out.len) != 0)
                fail_msg("%s, step %zu: \"%.*s\"", rows[i].name, step, (int)out.len,
                         (const char *)out.data);
            bytes_done(&out);
        }
    }
}

static void a_full_buffer_takes_nothing(void **state)
{
    static const char text[] = "ab\r\n.cde";
    struct maildata_encoder e;
    struct bytes out;

    (void)state;
    bytes_init(&out, 8); /* one less than it needs */
    maildata_encoder_init(&e);
    assert_false(maildata_encode(&e, (const uint8_t *)text, sizeof(text) - 1, &out));
    assert_int_equal(out.len, 0);
    assert_false(out.failed);
    assert_true(e.line_start);
    assert_true(maildata_encode(&e, (const uint8_t *)text, 4, &out));
    assert_true(maildata_encode(&e, (const uint8_t *)text + 4, 2, &out));
    assert_false(maildata_end(&e, &out));
    assert_memory_equal(out.data, "ab\r\n..c", 7);
    bytes_done(&out);
}

/* No sequence that another server might take for the end of mail data, and no bare CR or LF. */
static void check_clean(const char *name, const struct bytes *out)
{
    for (size_t i = 0; i < out->len; i++) {
        const uint8_t *p = out->data + i;
        bool line_start = i == 0 || p[-1] == '\n';
        bool end = i + 3 == out->len;

        if ((p[0] == '\r' && (i + 1 == out->len || p[1] != '\n')) ||
            (p[0] == '\n' && (i == 0 || p[-1] != '\r')))
            fail_msg("%s: bare CR or LF at %zu", name, i);
        if (line_start && !end && p[0] == '.' && p[1] != '.')
            fail_msg("%s: an unstuffed dot at %zu", name, i);
    }
    assert_true(out->len >= 3);
    assert_memory_equal(out->data + out->len - 3, ".\r\n", 3);
}

static void what_goes_out_has_one_end_only(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ends); i++) {
        struct decoded r = decode(ends[i].raw, ends[i].raw_len, 0, 0, 4096);
        struct bytes out;

        bytes_init(&out, 8192);
        encode(r.text, r.len, 0, &out);
        check_clean(ends[i].name, &out);
        bytes_clear(&out);
        encode(ends[i].raw, ends[i].raw_len, 0, &out); /* even when the decoder was not there */
        check_clean(ends[i].name, &out);
        bytes_done(&out);
    }
}

/* Every string of these octets up to a length: decoded, encoded and decoded again it is itself. */
static void all_short_mail_survives_the_way_out_and_in(void **state)
{
    static const char octets[] = {'\r', '\n', '.', 'a', '\0'};
    enum { LENGTH = 7 };
    char raw[LENGTH + 3];
    size_t total = 1;

    (void)state;
    for (size_t i = 0; i < LENGTH; i++)
        total *= sizeof(octets);
    for (size_t number = 0; number < total; number++) {
        struct decoded once;
        struct decoded twice;
        struct bytes out;
        size_t rest = number;

        for (size_t i = 0; i < LENGTH; i++, rest /= sizeof(octets))
            raw[i] = octets[rest % sizeof(octets)];
        memcpy(raw + LENGTH, "x\r\n", 3); /* so that nothing is held back */
        once = decode(raw, sizeof(raw), 0, 0, 64);
        bytes_init(&out, 256);
        encode(once.text, once.len, 0, &out);
        check_clean("all short mail", &out);
        twice = decode((const char *)out.data, out.len, 0, 0, 64);
        assert_true(twice.ended);
        assert_int_equal(twice.used, out.len);
        assert_int_equal(twice.len, once.len);
        assert_memory_equal(twice.text, once.text, once.len);
        bytes_done(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_crlf_dot_crlf_ends_mail_data),
        cmocka_unit_test(content_comes_out_in_crlf_form),
        cmocka_unit_test(octets_behind_the_end_are_untouched),
        cmocka_unit_test(a_small_room_only_takes_more_calls),
        cmocka_unit_test(quirks_are_told),
        cmocka_unit_test(only_lf_dot_lf_of_a_mail_without_cr_is_held_back),
        cmocka_unit_test(in_chunks_no_dot_means_anything),
        cmocka_unit_test(dots_are_stuffed_and_the_end_appended),
        cmocka_unit_test(a_full_buffer_takes_nothing),
        cmocka_unit_test(what_goes_out_has_one_end_only),
        cmocka_unit_test(all_short_mail_survives_the_way_out_and_in),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
