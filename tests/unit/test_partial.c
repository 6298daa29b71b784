#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/smtp/partial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LONG_ID_64   "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* ---- parameters ------------------------------------------------------------------------------ */

static bool read_copy(const char *value, struct partial *out)
{
    size_t len = strlen(value);
    char *copy = malloc(len + 1); /* of its very size, so that reading beyond it is found */
    bool ok;

    assert_non_null(copy);
    copy = realloc(copy, len > 0 ? len : 1);
    assert_non_null(copy);
    memcpy(copy, value, len);
    ok = partial_read(copy, len, out);
    free(copy);
    return ok;
}

static void parameters_are_read_as_devices_write_them(void **state)
{
    static const struct {
        const char *name;
        const char *value;
        const char *id;
        uint32_t number;
        uint32_t total;
    } rows[] = {
        {"the example of the standard",
         " Message/Partial; number=2; total=3;\r\n id=\"oc=jpbe0M2Yt4s@thumper.bellcore.com\"\r\n",
         "oc=jpbe0M2Yt4s@thumper.bellcore.com", 2, 3},
        {"no total", "message/partial;id=\"abc@host.com\";number=1", "abc@host.com", 1, 0},
        {"no quotes", "message/partial; id=<20260101.7@mfp-3>; number=1; total=4",
         "<20260101.7@mfp-3>", 1, 4},
        {"numbers in quotes", "message/partial; id=x; number=\"4\"; total=\"4\"", "x", 4, 4},
        {"capitals and blanks", "MESSAGE / PARTIAL ;\tID = x ; Number = 1 ; TOTAL = 1", "x", 1, 1},
        {"a quote within", "message/partial; id=\"a\\\"b;c\"; number=1; total=2", "a\"b;c", 1, 2},
        {"a fold within quotes", "message/partial; id=\"ab\r\n c\"; number=1; total=2", "ab c", 1,
         2},
        {"comments", "message/partial (split (by us)); id=x (it) ; number=1 ; total=2 (\\))", "x",
         1, 2},
        {"a last semicolon", "message/partial; id=x; number=1; total=2;", "x", 1, 2},
        {"other parameters", "message/partial; charset=\"a;b\"; id=x; name=; y=z; number=1", "", 0,
         0},
        {"another parameter", "message/partial; charset=\"a;b\"; id=x; number=7; total=9", "x", 7,
         9},
        {"twice", "message/partial; id=x; id=y; number=1; number=2; total=3; total=1", "x", 1, 3},
        {"leading zeros", "message/partial; id=x; number=001; total=012", "x", 1, 12},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct partial p;

        if (read_copy(rows[i].value, &p) != (rows[i].number > 0))
            fail_msg("%s: read or not", rows[i].name);
        if (rows[i].number > 0 && (strcmp(p.id, rows[i].id) != 0 || p.number != rows[i].number ||
                                   p.total != rows[i].total))
            fail_msg("%s: %s %u of %u", rows[i].name, p.id, p.number, p.total);
    }
}

static void what_does_not_tell_or_agree_is_no_fragment(void **state)
{
    static const char *const rows[] = {
        "",
        "text/plain",
        "message/rfc822; id=x; number=1; total=2",
        "message; id=x; number=1",
        "message/partialx; id=x; number=1",
        "message/partial",
        "message/partial; number=1; total=2",
        "message/partial; id=\"\"; number=1",
        "message/partial; id=x",
        "message/partial; id=x; number=0",
        "message/partial; id=x; number=-1",
        "message/partial; id=x; number=1a",
        "message/partial; id=x; number=3; total=2",
        "message/partial; id=x; number=100001",
        "message/partial; id=x; number=4294967297",
        "message/partial; id=x; number=1; total=0",
        "message/partial; id=\"x; number=1; total=2",
        "message/partial; id=\"a\001b\"; number=1",
        "message/partial; id=caf\xc3\xa9; number=1",
        "message/partial; id; number=1",
        "message/partial (id=x; number=1",
        "message/partial; id=" LONG_ID_64 LONG_ID_64 LONG_ID_64 LONG_ID_64 "; number=1",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct partial p;

        if (read_copy(rows[i], &p))
            fail_msg("%s", rows[i]);
    }
}

/* ---- headers --------------------------------------------------------------------------------- */

static void feed(struct header *h, const char *text)
{
    header_init(h);
    assert_int_equal(header_feed(h, (const uint8_t *)text, strlen(text)), HEADER_DONE);
}

static void a_fragment_with_an_encoded_body_is_none(void **state)
{
    static const struct {
        const char *text;
        bool ok;
    } rows[] = {
        {"Content-Type: message/partial; id=x; number=1\r\n\r\n", true},
        {"Content-Type: message/partial; id=x; number=1\r\nContent-Transfer-Encoding: 7BIT\r\n\r\n",
         true},
        {"Content-Type: message/partial; id=x; number=1\r\nContent-Transfer-Encoding: "
         "base64\r\n\r\n",
         false},
        {"Subject: x\r\n\r\n", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct header h;
        struct partial p;

        feed(&h, rows[i].text);
        if (partial_of(&h, &p) != rows[i].ok)
            fail_msg("%s", rows[i].text);
        header_done(&h);
    }
}

static void check_join(const char *name, const char *outer_text, const char *inner_text,
                       const char *expected)
{
    struct header outer;
    struct header inner;
    struct bytes out;

    feed(&outer, outer_text);
    feed(&inner, inner_text);
    bytes_init(&out, 4096);
    assert_true(partial_join(&outer, &inner, &out));
    if (strcmp(bytes_string(&out), expected) != 0)
        fail_msg("%s: %s", name, bytes_string(&out));
    bytes_done(&out);
    header_done(&outer);
    header_done(&inner);
}

static void the_header_of_the_whole_comes_from_both(void **state)
{
    (void)state;
    check_join("the example of RFC 2046 5.2.2.2",
               "X-Weird-Header-1: Foo\r\n"
               "From: Bill@host.com\r\n"
               "To: joe@otherhost.com\r\n"
               "Date: Fri, 26 Mar 1993 12:59:38 -0500 (EST)\r\n"
               "Subject: Audio mail (part 1 of 2)\r\n"
               "Message-ID: <id1@host.com>\r\n"
               "MIME-Version: 1.0\r\n"
               "Content-type: message/partial; id=\"ABC@host.com\";\r\n"
               "              number=1; total=2\r\n"
               "\r\n",
               "X-Weird-Header-1: Bar\r\n"
               "X-Weird-Header-2: Hello\r\n"
               "Message-ID: <anotherid@foo.com>\r\n"
               "Subject: Audio mail\r\n"
               "MIME-Version: 1.0\r\n"
               "Content-type: audio/basic\r\n"
               "Content-transfer-encoding: base64\r\n"
               "\r\n",
               "X-Weird-Header-1: Foo\r\n"
               "From: Bill@host.com\r\n"
               "To: joe@otherhost.com\r\n"
               "Date: Fri, 26 Mar 1993 12:59:38 -0500 (EST)\r\n"
               "Message-ID: <anotherid@foo.com>\r\n"
               "Subject: Audio mail\r\n"
               "MIME-Version: 1.0\r\n"
               "Content-type: audio/basic\r\n"
               "Content-transfer-encoding: base64\r\n"
               "\r\n");
    check_join("what the inner one lacks",
               "From: a@b\r\nSubject: Scan (1/2)\r\nMIME-Version: 1.0\r\nMessage-ID: <outer@b>\r\n"
               "Content-Type: message/partial; id=x; number=1\r\nEncrypted: x\r\n\r\n",
               "Content-Type: image/tiff;\r\n name=scan.tif\r\nTo: x@y\r\n\r\n",
               "From: a@b\r\nSubject: Scan (1/2)\r\nMIME-Version: 1.0\r\n"
               "Content-Type: image/tiff;\r\n name=scan.tif\r\n\r\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_are_read_as_devices_write_them),
        cmocka_unit_test(what_does_not_tell_or_agree_is_no_fragment),
        cmocka_unit_test(a_fragment_with_an_encoded_body_is_none),
        cmocka_unit_test(the_header_of_the_whole_comes_from_both),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
