#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "relay/signin/claims.h"
#include "relay/smtp/base64.h"

/* A token whose middle part is that JSON. */
static const char *token_of(const char *json)
{
    static char token[4096];
    size_t len = BASE64URL_LENGTH(strlen(json));

    memcpy(token, "e30.", 4);
    base64url_encode(json, strlen(json), token + 4);
    (void)snprintf(token + 4 + len, sizeof(token) - 4 - len, ".c2ln");
    return token;
}

static void an_apps_token_says_who_it_is_for_and_what_it_may(void **state)
{
    struct claims c;

    (void)state;
    assert_true(claims_read(
        token_of("{\"aud\":\"https://outlook.office.com\",\"iss\":\"https://sts/t\",\"iat\":1000,"
                 "\"exp\":4600,\"appid\":\"app-1\",\"tid\":\"t-1\",\"sub\":\"s-1\",\"roles\":"
                 "[\"SMTP.SendAsApp\",\"IMAP.AccessAsApp\"]}"),
        &c));
    assert_string_equal(c.audience, "https://outlook.office.com");
    assert_string_equal(c.app, "app-1");
    assert_string_equal(c.tenant, "t-1");
    assert_string_equal(c.roles, "SMTP.SendAsApp IMAP.AccessAsApp");
    assert_string_equal(c.scopes, "");
    assert_string_equal(c.user, "s-1");
    assert_int_equal(c.issued_s, 1000);
    assert_int_equal(c.expires_s, 4600);
}

static void a_persons_token_names_the_person(void **state)
{
    struct claims c;

    (void)state;
    assert_true(claims_read(token_of("{\"azp\":\"app-2\",\"scp\":\"SMTP.Send\",\"sub\":\"x\","
                                     "\"preferred_username\":\"a@b.test\",\"exp\":\"soon\"}"),
                            &c));
    assert_string_equal(c.app, "app-2");
    assert_string_equal(c.scopes, "SMTP.Send");
    assert_string_equal(c.user, "a@b.test");
    assert_int_equal(c.expires_s, 0);
}

static void what_is_no_json_web_token_says_nothing(void **state)
{
    static const char *const opaque[] = {
        "",   "ya29.a0AfB_byC", "EwBIA8l6BAAU",        "a.b",
        "..", "a.!!.c",         "e30.bm90anNvbg.c2ln", "e30.W10.c2ln",
    };
    struct claims c;

    (void)state;
    for (size_t i = 0; i < sizeof(opaque) / sizeof(opaque[0]); i++) {
        print_message("  \"%s\"\n", opaque[i]);
        assert_false(claims_read(opaque[i], &c));
    }
}

static void long_and_odd_texts_are_cut_and_made_printable(void **state)
{
    char json[1024] = "{\"aud\":\"a\\u0007b\",\"roles\":[\"";
    struct claims c;

    (void)state;
    memset(json + strlen(json), 'r', 400);
    strcat(json, "\",\"more\"]}");
    assert_true(claims_read(token_of(json), &c));
    assert_string_equal(c.audience, "a?b");
    assert_int_equal(strlen(c.roles), CLAIMS_TEXT_MAX - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_apps_token_says_who_it_is_for_and_what_it_may),
        cmocka_unit_test(a_persons_token_names_the_person),
        cmocka_unit_test(what_is_no_json_web_token_says_nothing),
        cmocka_unit_test(long_and_odd_texts_are_cut_and_made_printable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
