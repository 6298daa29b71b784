#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "relay/smtp/base64.h"

struct pair {
    const char *name;
    const char *plain;
    size_t len;
    const char *text;
};

static const struct pair pairs[] = {
    {"nothing", "", 0, ""},
    {"RFC 4648: f", "f", 1, "Zg=="},
    {"RFC 4648: fo", "fo", 2, "Zm8="},
    {"RFC 4648: foo", "foo", 3, "Zm9v"},
    {"RFC 4648: foob", "foob", 4, "Zm9vYg=="},
    {"RFC 4648: fooba", "fooba", 5, "Zm9vYmE="},
    {"RFC 4648: foobar", "foobar", 6, "Zm9vYmFy"},
    {"a prompt of Microsoft's", "Username:", 9, "VXNlcm5hbWU6"},
    {"NULs of PLAIN", "\0u\0p", 4, "AHUAcA=="},
    {"all bits", "\xff\xff\xff\xfb\xef\xbe", 6, "////++++"},
};

static void encodes_as_the_rfc_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        char out[64] = "";

        print_message("  %s\n", pairs[i].name);
        assert_int_equal(BASE64_LENGTH(pairs[i].len), strlen(pairs[i].text));
        base64_encode(pairs[i].plain, pairs[i].len, out);
        assert_string_equal(out, pairs[i].text);
    }
}

static void decodes_what_it_encodes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        uint8_t out[64];
        size_t len = 99;

        print_message("  %s\n", pairs[i].name);
        assert_true(base64_decode(pairs[i].text, strlen(pairs[i].text), out, &len));
        assert_int_equal(len, pairs[i].len);
        assert_memory_equal(out, pairs[i].plain, len);
        assert_true(len <= BASE64_ROOM(strlen(pairs[i].text)));
    }
}

static void every_octet_survives_both_ways(void **state)
{
    uint8_t plain[256];
    uint8_t back[BASE64_ROOM(BASE64_LENGTH(sizeof(plain)))];
    char text[BASE64_LENGTH(sizeof(plain))];

    (void)state;
    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)i;
    for (size_t len = 0; len <= sizeof(plain); len++) {
        size_t back_len = 0;

        base64_encode(plain, len, text);
        assert_true(base64_decode(text, BASE64_LENGTH(len), back, &back_len));
        assert_int_equal(back_len, len);
        assert_memory_equal(back, plain, len);
    }
}

static void what_is_not_base64_is_refused(void **state)
{
    static const char *const bad[] = {
        "Z",    "Zg",   "Zg=",  "=",    "====",     "Z===",   "Zg==Zg==", "Zm=v",
        "Zm9 ", "Zm9-", "Zm9_", "Zh==", "Zm9vYmF=", "Zm9v\n", "Zm9\xc3",
    };
    uint8_t out[64];
    size_t len;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        print_message("  \"%s\"\n", bad[i]);
        assert_false(base64_decode(bad[i], strlen(bad[i]), out, &len));
    }
    assert_false(base64_decode("Zm9\0", 4, out, &len));
}

static void base64url_has_no_padding_and_survives_both_ways(void **state)
{
    static const uint8_t marks[] = {0xfb, 0xff, 0xbf};
    uint8_t plain[256];
    uint8_t back[BASE64URL_ROOM(BASE64URL_LENGTH(sizeof(plain)))];
    char text[BASE64URL_LENGTH(sizeof(plain)) + 1];
    size_t back_len = 0;

    (void)state;
    base64url_encode(marks, sizeof(marks), text);
    assert_memory_equal(text, "-_-_", 4);
    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)(i * 37);
    for (size_t len = 0; len <= sizeof(plain); len++) {
        text[BASE64URL_LENGTH(len)] = '\0';
        base64url_encode(plain, len, text);
        assert_int_equal(strlen(text), BASE64URL_LENGTH(len));
        assert_null(strpbrk(text, "+/="));
        assert_true(base64url_decode(text, strlen(text), back, &back_len));
        assert_int_equal(back_len, len);
        assert_memory_equal(back, plain, len);
    }
}

static void what_is_not_base64url_is_refused(void **state)
{
    static const char *const bad[] = {"Z", "Zg==", "Zm8=", "Zm9+", "Zm9/", "Zm 9", "Zh", "Zm9vY"};
    uint8_t out[64];
    size_t len;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        print_message("  \"%s\"\n", bad[i]);
        assert_false(base64url_decode(bad[i], strlen(bad[i]), out, &len));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_as_the_rfc_says),
        cmocka_unit_test(decodes_what_it_encodes),
        cmocka_unit_test(every_octet_survives_both_ways),
        cmocka_unit_test(what_is_not_base64_is_refused),
        cmocka_unit_test(base64url_has_no_padding_and_survives_both_ways),
        cmocka_unit_test(what_is_not_base64url_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
