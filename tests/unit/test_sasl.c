#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "relay/base/secret.h"
#include "relay/signin/sasl.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define TLS          128

static struct secret *password_of(const char *text)
{
    struct error err = ERROR_INIT;
    struct secret *s = secret_from_text(text, strlen(text), &err);

    assert_non_null(s);
    return s;
}

static struct sasl_client *begin(const char *mechanism, const char *login, const struct secret *p,
                                 unsigned ssf, const char **out, size_t *out_len, struct error *err)
{
    const struct sasl_identity who = {
        .host = "smtp.example", .port = 587, .login = login, .secret = p, .ssf = ssf};

    error_clear(err);
    return sasl_client_begin(&who, mechanism, out, out_len, err);
}

static void plain_says_everything_at_once(void **state)
{
    static const char expected[] = "\0scan@office.example\0p\xc3\xa4ss word";
    struct secret *password = password_of("p\xc3\xa4ss word");
    struct error err = ERROR_INIT;
    const char *out = NULL;
    size_t len = 0;
    struct sasl_client *c = begin("PLAIN", "scan@office.example", password, TLS, &out, &len, &err);

    (void)state;
    assert_non_null(c);
    assert_int_equal(len, sizeof(expected) - 1);
    assert_memory_equal(out, expected, len);
    assert_false(sasl_client_next(c, "", 0, &out, &len, &err));
    assert_string_not_equal(err.text, "");
    sasl_client_end(c);
    secret_free(password);
}

static void login_says_its_name_at_once_and_answers_whatever_is_asked(void **state)
{
    static const char *const questions[] = {"Password:", "Password", "", "\xff\0\x01"};
    struct secret *password = password_of("secret");

    (void)state;
    for (size_t i = 0; i < COUNT(questions); i++) {
        struct error err = ERROR_INIT;
        const char *out = "x";
        size_t len = 9;
        struct sasl_client *c =
            begin("LOGIN", "scan@office.example", password, TLS, &out, &len, &err);

        assert_non_null(c);
        assert_int_equal(len, strlen("scan@office.example"));
        assert_memory_equal(out, "scan@office.example", len);
        assert_true(sasl_client_next(c, questions[i], strlen(questions[i]), &out, &len, &err));
        assert_int_equal(len, 6);
        assert_memory_equal(out, "secret", 6);
        assert_false(sasl_client_next(c, "More?", 5, &out, &len, &err));
        assert_null(strstr(err.text, "secret"));
        assert_non_null(strstr(err.text, "LOGIN"));
        sasl_client_end(c);
    }
    secret_free(password);
}

static void nothing_secret_is_shown_without_tls(void **state)
{
    static const char *const mechanisms[] = {"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"};
    struct secret *password = password_of("secret");

    (void)state;
    for (size_t i = 0; i < COUNT(mechanisms); i++) {
        for (unsigned ssf = 0; ssf <= 1; ssf++) {
            struct error err = ERROR_INIT;
            const char *out = NULL;
            size_t len = 0;

            assert_null(begin(mechanisms[i], "u", password, ssf, &out, &len, &err));
            assert_null(out);
            assert_non_null(strstr(err.text, mechanisms[i]));
            assert_non_null(strstr(err.text, "without TLS"));
            assert_null(strstr(err.text, "secret"));
        }
    }
    secret_free(password);
}

/* Those that the library would load from disk, those that it has inside, and what is none. */
static void only_our_mechanisms_can_be_named(void **state)
{
    static const char *const names[] = {
        "CRAM-MD5",
        "DIGEST-MD5",
        "SCRAM-SHA-256",
        "NTLM",
        "ANONYMOUS",
        "PLAIN LOGIN",
        "PLAIN,LOGIN",
        "plain",
        "",
        " ",
        "A_NAME_OF_MORE_THAN_20",
    };
    struct secret *password = password_of("secret");

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        struct error err = ERROR_INIT;
        const char *out = NULL;
        size_t len = 0;

        print_message("  \"%s\"\n", names[i]);
        assert_null(begin(names[i], "u", password, TLS, &out, &len, &err));
        assert_int_equal(err.kind, ERROR_INVALID);
        assert_non_null(strstr(err.text, names[i]));
        assert_null(out);
    }
    secret_free(password);
}

struct bad_login {
    const char *name;
    const char *login;
    enum error_kind kind;
    const char *text;
};

static void a_login_that_cannot_be_sent_is_refused(void **state)
{
    static char longest[300];
    static const struct bad_login rows[] = {
        {"empty", "", ERROR_INVALID, "empty"},
        {"line end", "a\r\nb", ERROR_INVALID, "control character"},
        {"0x01, which separates fields in XOAUTH2",
         "a\x01"
         "b",
         ERROR_INVALID, "control character"},
        {"tab", "a\tb", ERROR_INVALID, "control character"},
        {"DEL", "a\x7f", ERROR_INVALID, "control character"},
        {"too long", longest, ERROR_LIMIT, "longer than 255"},
    };
    struct secret *password = password_of("secret");

    (void)state;
    memset(longest, 'a', sizeof(longest) - 1);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct error err = ERROR_INIT;
        const char *out = NULL;
        size_t len = 0;

        print_message("  %s\n", rows[i].name);
        assert_null(begin("LOGIN", rows[i].login, password, TLS, &out, &len, &err));
        assert_int_equal(err.kind, rows[i].kind);
        assert_non_null(strstr(err.text, rows[i].text));
    }
    secret_free(password);
}

static void a_login_may_be_long_or_of_another_alphabet(void **state)
{
    static char longest[256];
    const char *const logins[] = {"b\xc3\xbcro@office.example", longest};
    struct secret *password = password_of("p");

    (void)state;
    memset(longest, 'a', sizeof(longest) - 1);
    for (size_t i = 0; i < COUNT(logins); i++) {
        struct error err = ERROR_INIT;
        const char *out = NULL;
        size_t len = 0;
        struct sasl_client *c = begin("LOGIN", logins[i], password, TLS, &out, &len, &err);

        assert_non_null(c);
        assert_int_equal(len, strlen(logins[i]));
        assert_memory_equal(out, logins[i], len);
        sasl_client_end(c);
    }
    secret_free(password);
}

static void a_password_of_the_largest_size_is_sent_whole(void **state)
{
    static char text[SECRET_MAX + 1];
    struct secret *password;
    struct error err = ERROR_INIT;
    const char *out = NULL;
    size_t len = 0;
    struct sasl_client *c;

    (void)state;
    memset(text, 'p', SECRET_MAX);
    password = password_of(text);
    c = begin("PLAIN", "u", password, TLS, &out, &len, &err);
    assert_non_null(c);
    assert_int_equal(len, SECRET_MAX + 3);
    assert_memory_equal(out + 3, text, SECRET_MAX);
    sasl_client_end(c);
    secret_free(password);
}

struct token_row {
    const char *name;
    const char *mechanism;
    const char *login;
    const char *expected;
    const char *refused; /* the answer to a challenge that explains a refusal */
};

static void a_token_is_said_at_once_and_a_refusal_heard_out(void **state)
{
    static const struct token_row rows[] = {
        {"as Microsoft and Google write it", "XOAUTH2", "scan@office.example",
         "user=scan@office.example\x01"
         "auth=Bearer ey.J0-_~+/=\x01\x01",
         ""},
        {"RFC 7628", "OAUTHBEARER", "scan@office.example",
         "n,a=scan@office.example,\x01host=smtp.example\x01port=587\x01"
         "auth=Bearer ey.J0-_~+/=\x01\x01",
         "\x01"},
        {"a saslname of RFC 5801", "OAUTHBEARER", "a,b=c",
         "n,a=a=2Cb=3Dc,\x01host=smtp.example\x01port=587\x01"
         "auth=Bearer ey.J0-_~+/=\x01\x01",
         "\x01"},
    };
    static const char json[] = "{\"status\":\"401\",\"schemes\":\"bearer mac\","
                               "\"scope\":\"https://mail.google.com/\"}";
    struct secret *token = password_of("ey.J0-_~+/=");

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct error err = ERROR_INIT;
        const char *out = NULL;
        size_t len = 0;
        struct sasl_client *c =
            begin(rows[i].mechanism, rows[i].login, token, TLS, &out, &len, &err);

        print_message("  %s\n", rows[i].name);
        assert_non_null(c);
        assert_int_equal(len, strlen(rows[i].expected));
        assert_memory_equal(out, rows[i].expected, len);
        assert_string_equal(sasl_client_failure(c), "");
        assert_true(sasl_client_next(c, json, sizeof(json) - 1, &out, &len, &err));
        assert_int_equal(len, strlen(rows[i].refused));
        assert_memory_equal(out, rows[i].refused, len);
        assert_string_equal(sasl_client_failure(c),
                            "status 401, schemes bearer mac, scope https://mail.google.com/");
        assert_false(sasl_client_next(c, json, sizeof(json) - 1, &out, &len, &err));
        sasl_client_end(c);
    }
    secret_free(token);
}

static void what_a_refusal_says_is_printable_or_nothing(void **state)
{
    static const struct {
        const char *name;
        const char *challenge;
        const char *expected;
    } rows[] = {
        {"no JSON", "Sorry", ""},
        {"nothing", "", ""},
        {"a list", "[401]", ""},
        {"a status as a number", "{\"status\":400}", "status 400"},
        {"RFC 7628's own", "{\"status\":\"invalid_token\",\"openid-configuration\":\"x\"}",
         "status invalid_token"},
        {"control characters", "{\"status\":\"a\\r\\nb\\u00e4\"}", "status a??b??"},
        {"empty", "{\"status\":\"\"}", ""},
    };
    struct secret *token = password_of("token");

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct error err = ERROR_INIT;
        const char *out = NULL;
        size_t len = 0;
        struct sasl_client *c = begin("XOAUTH2", "u", token, TLS, &out, &len, &err);

        print_message("  %s\n", rows[i].name);
        assert_non_null(c);
        assert_true(
            sasl_client_next(c, rows[i].challenge, strlen(rows[i].challenge), &out, &len, &err));
        assert_int_equal(len, 0);
        assert_string_equal(sasl_client_failure(c), rows[i].expected);
        sasl_client_end(c);
    }
    secret_free(token);
}

static void a_token_of_twelve_kilobytes_is_sent_whole(void **state)
{
    static char text[12 * 1024 + 1];
    struct secret *token;
    struct error err = ERROR_INIT;
    const char *out = NULL;
    size_t len = 0;
    struct sasl_client *c;

    (void)state;
    memset(text, 't', sizeof(text) - 1);
    token = password_of(text);
    c = begin("XOAUTH2", "u", token, TLS, &out, &len, &err);
    assert_non_null(c);
    assert_int_equal(len, strlen("user=u\1auth=Bearer \1\1") + sizeof(text) - 1);
    assert_memory_equal(out + strlen("user=u\1auth=Bearer "), text, sizeof(text) - 1);
    sasl_client_end(c);
    secret_free(token);
}

static void what_could_end_a_field_goes_with_no_token(void **state)
{
    static const struct {
        const char *name;
        const char *login;
        const char *token;
        const char *text;
    } rows[] = {
        {"0x01 in the token", "u", "a\1b", "token"},
        {"a line end in the token", "u", "a\nb", "token"},
        {"a space in the token", "u", "a b", "token"},
        {"beyond ASCII in the token", "u", "a\xc3\xa4", "token"},
        {"beyond ASCII in the login", "b\xc3\xbcro@office.example", "t", "beyond ASCII"},
        {"0x01 in the login", "a\1b", "t", "control character"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows) * 2; i++) {
        const char *mechanism = i % 2 == 0 ? "XOAUTH2" : "OAUTHBEARER";
        struct secret *token = password_of(rows[i / 2].token);
        struct error err = ERROR_INIT;
        const char *out = NULL;
        size_t len = 0;

        print_message("  %s, %s\n", mechanism, rows[i / 2].name);
        assert_null(begin(mechanism, rows[i / 2].login, token, TLS, &out, &len, &err));
        assert_non_null(strstr(err.text, rows[i / 2].text));
        secret_free(token);
    }
}

static bool scram_is_there(void)
{
    struct secret *password = password_of("secret");
    struct error err = ERROR_INIT;
    const char *out = NULL;
    size_t len = 0;
    struct sasl_client *c = begin("SCRAM-SHA-256", "u", password, 0, &out, &len, &err);
    bool there = c != NULL && len > 0 && strncmp(out, "n,,n=u,r=", 9) == 0;

    sasl_client_end(c);
    secret_free(password);
    return there;
}

/* CRAM-MD5 stands in the same folder. */
static void scram_and_nothing_else_is_loaded_where_it_is_wanted(void **state)
{
    struct secret *password = password_of("secret");
    struct error err = ERROR_INIT;
    const char *out = NULL;
    size_t len = 0;

    assert_false(scram_is_there());
    sasl_teardown();
    assert_true(sasl_setup(true, &err));
    if (!scram_is_there())
        print_message("  the library's SCRAM is not installed here\n");
    assert_null(begin("CRAM-MD5", "u", password, TLS, &out, &len, &err));
    assert_null(begin("NTLM", "u", password, TLS, &out, &len, &err));
    sasl_teardown();
    assert_true(sasl_setup(false, &err));
    assert_false(scram_is_there());
    secret_free(password);
    plain_says_everything_at_once(state);
}

static void sign_ins_do_not_disturb_each_other(void **state)
{
    struct secret *one = password_of("one");
    struct secret *two = password_of("two");
    struct error err = ERROR_INIT;
    const char *out = NULL;
    size_t len = 0;
    struct sasl_client *a = begin("LOGIN", "a", one, TLS, &out, &len, &err);

    (void)state;
    assert_memory_equal(out, "a", 1);
    struct sasl_client *b = begin("LOGIN", "b", two, TLS, &out, &len, &err);
    assert_memory_equal(out, "b", 1);
    sasl_client_end(a);
    assert_true(sasl_client_next(b, "", 0, &out, &len, &err));
    assert_memory_equal(out, "two", 3);
    sasl_client_end(b);
    sasl_client_end(NULL);
    secret_free(one);
    secret_free(two);
}

static void the_library_can_be_started_again(void **state)
{
    struct error err = ERROR_INIT;

    (void)state;
    sasl_teardown();
    assert_true(sasl_setup(false, &err));
    plain_says_everything_at_once(state);
}

static int start(void **state)
{
    struct error err = ERROR_INIT;

    (void)state;
    return sasl_setup(false, &err) ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    sasl_teardown();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_says_everything_at_once),
        cmocka_unit_test(login_says_its_name_at_once_and_answers_whatever_is_asked),
        cmocka_unit_test(nothing_secret_is_shown_without_tls),
        cmocka_unit_test(only_our_mechanisms_can_be_named),
        cmocka_unit_test(a_login_that_cannot_be_sent_is_refused),
        cmocka_unit_test(a_login_may_be_long_or_of_another_alphabet),
        cmocka_unit_test(a_password_of_the_largest_size_is_sent_whole),
        cmocka_unit_test(a_token_is_said_at_once_and_a_refusal_heard_out),
        cmocka_unit_test(what_a_refusal_says_is_printable_or_nothing),
        cmocka_unit_test(a_token_of_twelve_kilobytes_is_sent_whole),
        cmocka_unit_test(what_could_end_a_field_goes_with_no_token),
        cmocka_unit_test(scram_and_nothing_else_is_loaded_where_it_is_wanted),
        cmocka_unit_test(sign_ins_do_not_disturb_each_other),
        cmocka_unit_test(the_library_can_be_started_again),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
