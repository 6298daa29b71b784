#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/smtp/mime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/bytes.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define BODY_MAX     ((size_t)1 << 24)

struct result {
    struct mime m;
    struct bytes out;
};

/* Filters a body in pieces of `step` octets (0: all at once). Each piece is a copy of its own size,
 * and so is the room for what comes out. */
static void filter(struct result *r, const char *type, const char *encoding, const void *body,
                   size_t len, size_t step)
{
    uint8_t last[MIME_ROOM(0)];
    size_t n;

    bytes_init(&r->out, BODY_MAX);
    mime_begin(&r->m, type, strlen(type), encoding, strlen(encoding));
    for (size_t at = 0; at < len; at += n) {
        uint8_t *in;
        uint8_t *out;
        size_t got;

        n = step > 0 && step < len - at ? step : len - at;
        in = malloc(n);
        out = malloc(MIME_ROOM(n));
        assert_non_null(in);
        assert_non_null(out);
        memcpy(in, (const uint8_t *)body + at, n);
        got = mime_filter(&r->m, in, n, out);
        assert_in_range(got, 0, MIME_ROOM(n));
        assert_true(bytes_append(&r->out, out, got));
        free(in);
        free(out);
    }
    n = mime_finish(&r->m, last);
    assert_in_range(n, 0, MIME_ROOM(0));
    assert_true(bytes_append(&r->out, last, n));
}

static void describe(const struct mime *m, char *out, size_t size)
{
    const struct mime_quirks *q = &m->quirks;

    snprintf(out, size, "%s%s%s%s%s%s%s%s%s", q->long_base64 ? "base64 " : "",
             q->long_quoted ? "quoted " : "", q->long_text ? "text " : "",
             q->long_other ? "other " : "", q->long_field ? "field " : "", q->nul ? "nul " : "",
             q->partial ? "partial " : "", q->too_deep ? "deep " : "", m->binary ? "binary " : "");
}

static const size_t steps[] = {0, 1, 2, 3, 7, 76, 77, 78, 79, 997, 998, 999, 1000, 1001, 8192};

/* What comes out, however it is cut. */
static void check_octets(const char *name, const char *type, const char *encoding, const char *body,
                         size_t len, const char *wanted, size_t wanted_len, const char *quirks)
{
    for (size_t i = 0; i < COUNT(steps); i++) {
        struct result r;
        char got[128];

        filter(&r, type, encoding, body, len, steps[i]);
        if (r.out.len != wanted_len || memcmp(bytes_string(&r.out), wanted, wanted_len) != 0)
            fail_msg("%s, step %zu: \"%s\"", name, steps[i], bytes_string(&r.out));
        describe(&r.m, got, sizeof(got));
        if (strcmp(got, quirks) != 0)
            fail_msg("%s, step %zu: quirks \"%s\"", name, steps[i], got);
        bytes_done(&r.out);
    }
}

static void check(const char *name, const char *type, const char *encoding, const char *body,
                  const char *wanted, const char *quirks)
{
    check_octets(name, type, encoding, body, strlen(body), wanted, strlen(wanted), quirks);
}

/* ---- what is well-formed --------------------------------------------------------------------- */

#define MIXED "multipart/mixed; boundary=\"b\""

static const char mixed[] = "preamble\r\n"
                            "--b\r\n"
                            "Content-Type: text/plain\r\n"
                            "\r\n"
                            "text\r\n"
                            "--c\r\n"
                            "--b \r\n"
                            "content-type : Application/PDF;\r\n"
                            " name=\"x;boundary=y\"\r\n"
                            "Content-Transfer-Encoding: base64\r\n"
                            "\r\n"
                            "QUJD\r\n"
                            "\r\n"
                            "--b--\r\n"
                            "epilogue\r\n";

static void well_formed_bodies_pass_to_the_octet(void **state)
{
    static const struct {
        const char *name;
        const char *type;
        const char *body;
    } rows[] = {
        {"empty", "", ""},
        {"text", "", "a\r\n\r\n--b\r\n.\r\n"},
        {"without a last line end", "", "abc"},
        {"parts", MIXED, mixed},
        {"nothing but boundaries", MIXED, "--b\r\n--b\r\n--b--\r\n--b--\r\n"},
        {"a part without header", MIXED, "--b\r\n\r\ntext\r\n--b--\r\n"},
        {"a part whose header does not end", MIXED, "--b\r\nContent-Type: text/plain\r\n--b--\r\n"},
        {"dashes", MIXED,
         "--b\r\n\r\n--\r\n---\r\n--bb\r\n--bx-\r\n--b-x\r\n--b-\r\n--b---\r\n--b--\r\n"},
        {"8-bit", "text/plain; charset=utf-8", "B\xc3\xbcro\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        check(rows[i].name, rows[i].type, "", rows[i].body, rows[i].body, "");
}

/* ---- boundaries ------------------------------------------------------------------------------ */

static bool is_open_after(const char *type, const char *body)
{
    struct result r;

    filter(&r, type, "", body, strlen(body), 1);
    bytes_done(&r.out);
    return mime_boundary_is_open(&r.m);
}

static void it_is_known_whether_a_boundary_is_open(void **state)
{
    static const struct {
        const char *type;
        const char *body;
        bool open;
    } rows[] = {
        {"", "text\r\n--b\r\n", false},
        {"text/plain; boundary=b", "text\r\n", false},
        {"multipart/mixed", "no boundary\r\n", false},
        {MIXED, "", true},
        {MIXED, "--b\r\n\r\ntext\r\n", true},
        {MIXED, "--b\r\n\r\ntext\r\n--b--\r\n", false},
        {MIXED, "--b\r\n\r\ntext\r\n--b--", true},
        {MIXED, "--b--\r\n.\r\n", false},
        {"Multipart/Mixed;\r\n charset=x;\r\n\tBOUNDARY = b (comment)", "--b--\r\n", false},
        {"multipart/mixed; boundary=\"b \\\" c\"", "--b \" c--\r\n", false},
        {"multipart/mixed; boundary==_x=(1)", "--=_x=(1)--\r\n", false},
        {"multipart/mixed; x=\"; boundary=y\"; boundary=b", "--y--\r\n", true},
        {"multipart/mixed; x=\"; boundary=y\"; boundary=b", "--b--\r\n", false},
        {MIXED, "--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\n", true},
        {MIXED,
         "--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\n--c--\r\n",
         true},
        {MIXED,
         "--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\n--b--\r\n",
         false},
        {MIXED, "--b--x\r\n", true},
        {MIXED, "--bx-\r\n", true},
        {MIXED,
         "--b\r\nContent-Type: multipart/alternative;\r\n boundary=c\r\n\r\n--c--\r\n--b--\r\n",
         false},
        {MIXED, "--b\r\nContent-Type: multipart/signed;\r\n boundary=c\r\n\r\n--b--\r\n--c\r\n",
         false},
        {"multipart/signed; boundary=b", "--b\r\n\r\n", true},
        {"multipart/signed; boundary=b", "--b\r\n\r\n--b--\r\n", false},
        {"message/rfc822", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (is_open_after(rows[i].type, rows[i].body) != rows[i].open)
            fail_msg("%s: %s", rows[i].type, rows[i].body);
    }
}

/* ---- long lines ------------------------------------------------------------------------------ */

/* A text with every %s replaced by the filling. */
static char *fill(const char *format, const char *filling)
{
    struct bytes b;
    char *text;

    bytes_init(&b, BODY_MAX);
    for (; *format != '\0'; format++) {
        if (*format == '@')
            assert_true(bytes_text(&b, filling));
        else
            assert_true(bytes_byte(&b, (uint8_t)*format));
    }
    text = strdup(bytes_string(&b));
    bytes_done(&b);
    assert_non_null(text);
    return text;
}

static char *repeat(const char *text, size_t count)
{
    size_t len = strlen(text);
    char *all = malloc(len * count + 1);

    assert_non_null(all);
    for (size_t i = 0; i < count; i++)
        memcpy(all + i * len, text, len);
    all[len * count] = '\0';
    return all;
}

/* Compares the output of a body with long lines with what is wanted in their place. */
static void check_long(const char *name, const char *type, const char *encoding, const char *format,
                       const char *line, const char *wanted_line, const char *quirks)
{
    char *body = fill(format, line);
    char *wanted = fill(format, wanted_line);

    check(name, type, encoding, body, wanted, quirks);
    free(body);
    free(wanted);
}

static void lines_of_998_octets_pass(void **state)
{
    static const char *const formats[] = {
        "@\r\n", "--b\r\nContent-Transfer-Encoding: base64\r\n\r\n@\r\n--b--\r\n",
        "--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n@\r\n--b--\r\n"};
    char *line = repeat("A", 998);

    (void)state;
    for (size_t i = 0; i < COUNT(formats); i++)
        check_long("998", MIXED, "", formats[i], line, line, "");
    free(line);
}

static void base64_is_wrapped_at_76(void **state)
{
    char *line = repeat("QUJD", 19 * 100);
    char *wrapped =
        repeat("QUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJD"
               "\r\n",
               100);

    (void)state;
    wrapped[strlen(wrapped) - 2] = '\0';
    check_long("whole body", "application/pdf", "BASE64", "@\r\nQUJD\r\n", line, wrapped,
               "base64 ");
    check_long("part", MIXED, "",
               "--b\r\nContent-Type: image/tiff\r\nContent-Transfer-Encoding: base64\r\n\r\n"
               "@\r\n--b--\r\n",
               line, wrapped, "base64 ");
    check_long("part in a part", MIXED, "",
               "--b\r\nContent-Type: multipart/related; boundary=c\r\n\r\n"
               "--c\r\nContent-Transfer-Encoding: (x) base64\r\n\r\n@\r\n--c--\r\n--b--\r\n",
               line, wrapped, "base64 ");
    free(line);
    free(wrapped);
}

static void text_is_broken_behind_a_space(void **state)
{
    char *words = repeat("0123456 89", 300); /* spaces at 7, 17, ... */
    struct result r;
    char *p;

    (void)state;
    for (size_t i = 0; i < COUNT(steps); i++) {
        struct bytes body;

        bytes_init(&body, BODY_MAX);
        assert_true(bytes_printf(&body, "%s\r\nshort\r\n", words));
        filter(&r, "text/plain", "8bit", body.data, body.len, steps[i]);
        assert_true(r.m.quirks.long_text);
        p = (char *)r.out.data;
        assert_memory_equal(p + 988, "\r\n89", 4); /* the last space within 998 is at 987 */
        assert_int_equal(r.out.len, body.len + 3 * 2);
        assert_memory_equal(r.out.data + r.out.len - 7, "short\r\n", 7);
        bytes_done(&r.out);
        bytes_done(&body);
    }
    free(words);
}

static void text_without_spaces_is_broken_between_characters(void **state)
{
    char *line = repeat("\xc3\xbc", 1500);
    char *body = fill("@\r\n", line);
    struct result r;

    (void)state;
    filter(&r, "text/plain; charset=utf-8", "8bit", body, strlen(body), 0);
    assert_true(r.m.quirks.long_text);
    for (size_t i = 1; i < r.out.len; i++) {
        if (r.out.data[i] == '\r')
            assert_int_equal(r.out.data[i - 1], 0xbc);
    }
    assert_true(r.out.len > strlen(body));
    bytes_done(&r.out);
    free(line);
    free(body);
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;

    for (; (text = strstr(text, what)) != NULL; text++)
        n++;
    return n;
}

/* "--b" at the begin of a line would be a boundary. */
static void a_break_makes_no_boundary(void **state)
{
    char *line = repeat("- --b ", 500);

    (void)state;
    for (size_t shift = 0; shift < 6; shift++) {
        char *body = fill("--b\r\n\r\n@--b\r\n--b--\r\n", line + shift);
        struct result r;

        filter(&r, MIXED, "", body, strlen(body), 0);
        assert_int_equal(count(bytes_string(&r.out), "\r\n--b"), count(body, "\r\n--b"));
        assert_true(r.m.quirks.long_text);
        bytes_done(&r.out);
        free(body);
    }
    free(line);
}

/* Takes soft line breaks out, none of which may stand within "=XX". */
static void join_soft_breaks(const struct bytes *from, struct bytes *out)
{
    const uint8_t *p = from->data;

    for (size_t i = 0; i < from->len; i++) {
        if (p[i] == '=' && p[i + 1] == '\r') {
            assert_int_not_equal(p[i - 1], '=');
            assert_int_not_equal(p[i - 2], '=');
            i += 2;
        } else {
            assert_true(bytes_byte(out, p[i]));
        }
    }
}

static void quoted_printable_gets_soft_line_breaks(void **state)
{
    char *line = repeat("=C3=BCber ", 200);

    (void)state;
    for (size_t shift = 0; shift < 10; shift++) {
        char *body = fill("@end\r\nx\r\n", line + shift);
        struct result r;
        struct bytes joined;

        filter(&r, "text/plain", "Quoted-Printable", body, strlen(body), 0);
        assert_true(r.m.quirks.long_quoted);
        bytes_init(&joined, BODY_MAX);
        join_soft_breaks(&r.out, &joined);
        assert_string_equal(bytes_string(&joined), body);
        bytes_done(&joined);
        bytes_done(&r.out);
        free(body);
    }
    free(line);
}

static void a_part_s_header_is_folded(void **state)
{
    char *line = repeat("12345 ", 200);
    char *body = fill("--b\r\nContent-Disposition: attachment; filename=\"@\"\r\n"
                      "Content-Transfer-Encoding: base64\r\n\r\nQUJD\r\n--b--\r\n",
                      line);
    struct result r;
    char *folded;

    (void)state;
    filter(&r, MIXED, "", body, strlen(body), 1);
    assert_true(r.m.quirks.long_field);
    assert_false(mime_boundary_is_open(&r.m));
    folded = strstr(bytes_string(&r.out), "12345\r\n 12345");
    assert_non_null(folded);
    memmove(folded + 5, folded + 7, strlen(folded + 7) + 1);
    assert_string_equal((char *)r.out.data, body);
    bytes_done(&r.out);
    free(line);
    free(body);
}

/* ---- what is not touched --------------------------------------------------------------------- */

static void nothing_is_changed_where_that_would_break_it(void **state)
{
    static const struct {
        const char *name;
        const char *type;
        const char *format;
        const char *quirks;
    } rows[] = {
        {"signed", "multipart/signed; boundary=b",
         "--b\r\nContent-Type: text/plain\r\n\r\n@\r\n--b\r\n"
         "Content-Transfer-Encoding: base64\r\n\r\n@\r\n--b--\r\nepilogue\r\n",
         "other "},
        {"signed within", MIXED,
         "--b\r\nContent-Type: multipart/signed; boundary=c\r\n\r\n@\r\n"
         "--c\r\nContent-Type: multipart/mixed; boundary=d\r\n\r\n--d\r\n\r\n@\r\n--d--\r\n@\r\n"
         "--c\r\n@\r\n--c--\r\n--b--\r\n",
         "other "},
        {"message", MIXED,
         "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: @\r\n\r\n@\r\n--b--\r\n", "other "},
        {"digest", "multipart/digest; boundary=b", "--b\r\n\r\nSubject: x\r\n\r\n@\r\n--b--\r\n",
         "other "},
        {"partial", "message/partial; id=x; number=1; total=2", "Subject: x\r\n\r\n@\r\n",
         "other partial "},
        {"signed, with its boundary in a fold", MIXED,
         "--b\r\nContent-Type: multipart/signed;\r\n\tboundary=c\r\n\r\n--c\r\n\r\n@\r\n--b--\r\n",
         "other "},
        {"data", "application/json", "@\r\n", "other "},
    };
    char *line = repeat("0123456 89", 300);

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        check_long(rows[i].name, rows[i].type, "", rows[i].format, line, line, rows[i].quirks);
    free(line);
}

static void behind_what_is_not_changed_it_goes_on(void **state)
{
    char *line = repeat("QUJD", 500);
    char *body =
        fill("--b\r\nContent-Type: multipart/signed; boundary=c\r\n\r\n--c\r\n\r\n@\r\n--c--\r\n"
             "--b\r\nContent-Transfer-Encoding: base64\r\n\r\n@\r\n--b--\r\n",
             line);
    struct result r;

    (void)state;
    filter(&r, MIXED, "", body, strlen(body), 0);
    assert_true(r.m.quirks.long_other);
    assert_true(r.m.quirks.long_base64);
    bytes_done(&r.out);
    free(line);
    free(body);
}

static void multiparts_nest_up_to_the_limit(void **state)
{
    for (size_t depth = MIME_DEPTH_MAX - 1; depth <= MIME_DEPTH_MAX + 1; depth++) {
        struct bytes body;
        struct result r;

        bytes_init(&body, BODY_MAX);
        for (size_t i = 1; i < depth; i++)
            assert_true(bytes_printf(
                &body, "--b%zu\r\nContent-Type: multipart/mixed; boundary=b%zu\r\n\r\n", i, i + 1));
        assert_true(bytes_text(&body, "--b1--\r\n"));
        filter(&r, "multipart/mixed; boundary=b1", "", body.data, body.len, 0);
        assert_int_equal(r.m.quirks.too_deep, depth > MIME_DEPTH_MAX);
        assert_int_equal(r.out.len, body.len);
        assert_false(mime_boundary_is_open(&r.m));
        bytes_done(&r.out);
        bytes_done(&body);
    }
    (void)state;
}

/* ---- NUL ------------------------------------------------------------------------------------- */

#define OCTETS(text) text, sizeof(text) - 1

static void nul_is_left_out_of_text(void **state)
{
    (void)state;
    check_octets("text", "text/plain", "", OCTETS("a\0b\r\n\0\0\r\nc\0\r\n"),
                 OCTETS("ab\r\n\r\nc\r\n"), "nul ");
    check_octets("base64", "application/pdf", "base64", OCTETS("QU\0JD\r\n"), OCTETS("QUJD\r\n"),
                 "nul ");
    check_octets(
        "header and boundary", MIXED, "",
        OCTETS("--b\r\nContent\0-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n"
               "QUJD\r\n\0--b--\0\r\n"),
        OCTETS("--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n"
               "QUJD\r\n--b--\r\n"),
        "nul ");
}

static void nul_in_other_data_is_raw_binary(void **state)
{
    static const char pdf[] = "--b\r\nContent-Type: application/pdf\r\n\r\n%PDF\0\r\n--b--\r\n";
    static const char sign[] = "--b\r\n\r\ntext\0\r\n--b--\r\n";

    (void)state;
    for (size_t i = 0; i < COUNT(steps); i++) {
        struct result r;

        filter(&r, MIXED, "", OCTETS(pdf), steps[i]);
        assert_true(r.m.binary);
        bytes_done(&r.out);
        filter(&r, "multipart/signed; boundary=b", "", OCTETS(sign), steps[i]);
        assert_true(r.m.binary);
        bytes_done(&r.out);
        filter(&r, "application/octet-stream", "binary", OCTETS("x\0y\r\n"), steps[i]);
        assert_true(r.m.binary);
        bytes_done(&r.out);
    }
}

/* ---- everything at once ---------------------------------------------------------------------- */

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

static void add_random_body(struct bytes *b, uint32_t *seed)
{
    static const char *const pieces[] = {
        "--b\r\n",
        "--b--\r\n",
        "--c\r\n",
        "--c--\r\n",
        "\r\n",
        "Content-Type: multipart/mixed; boundary=c\r\n",
        "Content-Type: multipart/signed; boundary=c\r\n",
        "Content-Type: text/html\r\n",
        "Content-Type: application/pdf\r\n",
        "Content-Type: message/rfc822\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        "Content-Transfer-Encoding: quoted-printable\r\n",
        "QUJD",
        "=C3=BC",
        " ",
        "-",
        "x: ",
        "\xc3\xbc",
    };
    const char *piece = pieces[next(seed) % COUNT(pieces)];
    size_t times = next(seed) % 5 == 0 && strchr(piece, '\r') == NULL ? next(seed) % 2500 : 1;

    for (size_t i = 0; i < times; i++)
        assert_true(bytes_text(b, piece));
}

/* Each line at most 998 octets, unless the filter says that it kept a longer one. */
static void check_lines(const struct result *r)
{
    size_t line = 0;

    for (size_t i = 0; i < r->out.len; i++) {
        uint8_t c = r->out.data[i];

        line = c == '\n' ? 0 : line + 1;
        if (line > MIME_LINE_MAX + (c == '\r' ? 1 : 0))
            assert_true(r->m.quirks.long_other);
    }
}

static void any_body_is_filtered_alike_however_it_is_cut(void **state)
{
    uint32_t seed = 7;

    (void)state;
    for (size_t round = 0; round < 400; round++) {
        struct bytes body;
        struct result whole;
        struct result again;
        static const char *const none = "";

        bytes_init(&body, BODY_MAX);
        for (size_t i = 0; i < 40; i++)
            add_random_body(&body, &seed);
        assert_true(bytes_text(&body, "\r\n"));
        filter(&whole, MIXED, none, body.data, body.len, 0);
        check_lines(&whole);
        for (size_t k = 0; k < 3; k++) {
            struct result cut;

            filter(&cut, MIXED, none, body.data, body.len, 1 + next(&seed) % 1500);
            assert_int_equal(cut.out.len, whole.out.len);
            assert_memory_equal(cut.out.data, whole.out.data, whole.out.len);
            assert_memory_equal(&cut.m.quirks, &whole.m.quirks, sizeof(cut.m.quirks));
            assert_int_equal(mime_boundary_is_open(&cut.m), mime_boundary_is_open(&whole.m));
            bytes_done(&cut.out);
        }
        filter(&again, MIXED, none, whole.out.data, whole.out.len, 0); /* nothing is left to do */
        assert_int_equal(again.out.len, whole.out.len);
        assert_memory_equal(again.out.data, whole.out.data, whole.out.len);
        bytes_done(&again.out);
        bytes_done(&whole.out);
        bytes_done(&body);
    }
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The characters of the alphabet between two places, as a decoder sees them. */
static void gather(const struct bytes *b, struct bytes *out)
{
    const char *text = (const char *)b->data;
    const char *from = strstr(text, "base64\r\n\r\n") + strlen("base64\r\n\r\n");
    const char *to = strstr(from, "\r\n--b--");

    bytes_init(out, BODY_MAX);
    for (; from < to; from++) {
        if (strchr(alphabet, *from) != NULL || *from == '=')
            assert_true(bytes_byte(out, (uint8_t)*from));
    }
}

static void base64_decodes_to_the_same_before_and_after(void **state)
{
    uint32_t seed = 3;

    (void)state;
    for (size_t round = 0; round < 60; round++) {
        struct bytes body;
        struct bytes before;
        struct bytes after;
        struct result r;
        size_t lines = 1 + next(&seed) % 20;

        bytes_init(&body, BODY_MAX);
        assert_true(bytes_text(&body, "--b\r\nContent-Type: application/pdf\r\n"
                                      "Content-Transfer-Encoding: base64\r\n\r\n"));
        for (size_t i = 0; i < lines; i++) {
            size_t len = next(&seed) % (round % 2 == 0 ? 80 : 5000);

            for (size_t k = 0; k < len; k++)
                assert_true(bytes_byte(&body, (uint8_t)alphabet[next(&seed) % 64]));
            assert_true(bytes_text(&body, "\r\n"));
        }
        assert_true(bytes_text(&body, "==\r\n--b--\r\n"));
        filter(&r, MIXED, "", body.data, body.len, 1 + next(&seed) % 9000);
        (void)bytes_string(&body);
        (void)bytes_string(&r.out);
        gather(&body, &before);
        gather(&r.out, &after);
        assert_int_equal(before.len, after.len);
        assert_memory_equal(before.data, after.data, after.len);
        if (round % 2 == 0)
            assert_int_equal(r.out.len, body.len);
        check_lines(&r);
        assert_false(r.m.quirks.long_other);
        bytes_done(&before);
        bytes_done(&after);
        bytes_done(&body);
        bytes_done(&r.out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_bodies_pass_to_the_octet),
        cmocka_unit_test(it_is_known_whether_a_boundary_is_open),
        cmocka_unit_test(lines_of_998_octets_pass),
        cmocka_unit_test(base64_is_wrapped_at_76),
        cmocka_unit_test(text_is_broken_behind_a_space),
        cmocka_unit_test(text_without_spaces_is_broken_between_characters),
        cmocka_unit_test(a_break_makes_no_boundary),
        cmocka_unit_test(quoted_printable_gets_soft_line_breaks),
        cmocka_unit_test(a_part_s_header_is_folded),
        cmocka_unit_test(nothing_is_changed_where_that_would_break_it),
        cmocka_unit_test(behind_what_is_not_changed_it_goes_on),
        cmocka_unit_test(multiparts_nest_up_to_the_limit),
        cmocka_unit_test(nul_is_left_out_of_text),
        cmocka_unit_test(nul_in_other_data_is_raw_binary),
        cmocka_unit_test(any_body_is_filtered_alike_however_it_is_cut),
        cmocka_unit_test(base64_decodes_to_the_same_before_and_after),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
