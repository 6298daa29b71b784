#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "relay/smtp/encoded.h"

static const struct {
    const char *name, *in, *out;
} rows[] = {
    {"plain text", "Scan from the 2nd floor", "Scan from the 2nd floor"},
    {"empty", "", ""},
    {"Q", "=?UTF-8?Q?B=C3=BCro_1?=", "B\xc3\xbcro 1"},
    {"B", "=?utf-8?B?QsO8cm8=?=", "B\xc3\xbcro"},
    {"lower-case letters", "=?us-ascii?q?a=3db?=", "a=b"},
    {"within other text", "Re: =?UTF-8?Q?B=C3=BCro?= (2)", "Re: B\xc3\xbcro (2)"},
    {"blanks between two words go", "=?UTF-8?Q?a?=  =?UTF-8?B?Yg==?= c", "ab c"},
    {"a character split between two", "=?UTF-8?Q?=C3?= =?UTF-8?Q?=BC?=", "\xc3\xbc"},
    {"a blank after the last word stays", "=?UTF-8?Q?a?= ", "a "},
    {"windows-1252", "=?windows-1252?Q?B=FCro_=80_=81?=", "B\xc3\xbcro \xe2\x82\xac ?"},
    {"Latin 1 by its name", "=?ISO-8859-1?Q?B=FCro?=", "B\xc3\xbcro"},
    {"another charset", "=?ISO-8859-2?Q?B=FCro?=", "=?ISO-8859-2?Q?B=FCro?="},
    {"another encoding", "=?UTF-8?X?abc?=", "=?UTF-8?X?abc?="},
    {"no end", "=?UTF-8?Q?abc", "=?UTF-8?Q?abc"},
    {"no encoding", "=?UTF-8?", "=?UTF-8?"},
    {"blank within", "=?UTF-8?Q?a b?=", "=?UTF-8?Q?a b?="},
    {"half an octet", "=?UTF-8?Q?a=C?=", "=?UTF-8?Q?a=C?="},
    {"no hex", "=?UTF-8?Q?a=+1?=", "=?UTF-8?Q?a=+1?="},
    {"no base64", "=?UTF-8?B?a?=", "=?UTF-8?B?a?="},
    {"a NUL", "=?UTF-8?Q?a=00b?=", "a?b"},
};

static void words_are_decoded_and_the_rest_stays(void **state)
{
    char out[128];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        encoded_decode(rows[i].in, out, sizeof(out));
        if (strcmp(out, rows[i].out) != 0)
            fail_msg("%s: \"%s\"", rows[i].name, out);
    }
}

static void what_does_not_fit_is_left_out(void **state)
{
    char out[5];

    (void)state;
    encoded_decode("=?UTF-8?Q?abcdef?=", out, sizeof(out));
    assert_string_equal(out, "abcd");
    encoded_decode("abcdef", out, sizeof(out));
    assert_string_equal(out, "abcd");
    encoded_decode("abcdef", out, 1);
    assert_string_equal(out, "");
}

static void a_word_longer_than_the_limit_stays_as_it_is(void **state)
{
    char in[ENCODED_WORD_MAX + 64];
    char out[sizeof(in)];

    (void)state;
    memset(in, 'x', sizeof(in));
    memcpy(in, "=?UTF-8?Q?", 10);
    memcpy(in + 10 + ENCODED_WORD_MAX, "?=", 3);
    encoded_decode(in, out, sizeof(out));
    assert_int_equal(strlen(out), ENCODED_WORD_MAX);
    memset(in, 'x', sizeof(in));
    memcpy(in, "=?UTF-8?Q?", 10);
    memcpy(in + 11 + ENCODED_WORD_MAX, "?=", 3);
    encoded_decode(in, out, sizeof(out));
    assert_string_equal(out, in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_decoded_and_the_rest_stays),
        cmocka_unit_test(what_does_not_fit_is_left_out),
        cmocka_unit_test(a_word_longer_than_the_limit_stays_as_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
