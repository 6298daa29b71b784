#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "relay/signin/sasl.h"
#include "relay/signin/sasl_server.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static enum sasl_server_step say(struct sasl_server *s, const char *said, size_t len,
                                 const char *expected)
{
    struct error err = ERROR_INIT;
    const char *question = "unset";
    size_t question_len = 5;
    enum sasl_server_step step = sasl_server_next(s, said, len, &question, &question_len, &err);

    if (step == SASL_SERVER_ASKS) {
        assert_int_equal(question_len, strlen(expected));
        assert_memory_equal(question, expected, question_len);
    }
    if (step == SASL_SERVER_REFUSES) {
        assert_string_not_equal(err.text, "");
        assert_null(strstr(err.text, "secret"));
    }
    return step;
}

static struct sasl_server *begin(const char *mechanism)
{
    struct error err = ERROR_INIT;
    struct sasl_server *s = sasl_server_begin("relay", mechanism, &err);

    assert_non_null(s);
    return s;
}

static void expect(struct sasl_server *s, const char *login, const char *password)
{
    assert_string_equal(sasl_server_login(s), login);
    assert_string_equal(sasl_server_password(s), password);
    sasl_server_end(s);
}

static void login_asks_two_questions_byte_for_byte(void **state)
{
    struct sasl_server *s = begin("LOGIN");

    (void)state;
    assert_int_equal(say(s, NULL, 0, "Username:"), SASL_SERVER_ASKS);
    assert_int_equal(say(s, "camera", 6, "Password:"), SASL_SERVER_ASKS);
    assert_int_equal(say(s, "secret", 6, NULL), SASL_SERVER_HEARD);
    expect(s, "camera", "secret");
}

static void login_takes_the_name_with_the_command(void **state)
{
    struct sasl_server *s = begin("LOGIN");

    (void)state;
    assert_int_equal(say(s, "camera", 6, "Password:"), SASL_SERVER_ASKS);
    assert_int_equal(say(s, "secret", 6, NULL), SASL_SERVER_HEARD);
    expect(s, "camera", "secret");
}

/* What the library would cut, refuse or complete if it were asked. */
static void names_and_passwords_come_out_as_they_were_said(void **state)
{
    static const char *const words[] = {"",
                                        " ",
                                        " two words ",
                                        "b\xc3\xbcro",
                                        "\xff\xfe",
                                        "a@b.example",
                                        "0123456789012345678901234567890123456789012345678901234567"
                                        "890123456789012345678901234567890"
                                        "0123456789012345678901234567890123456789012345678901234567"
                                        "890123456789012345678901234567890"
                                        "0123456789012345678901234567890123456789012345678901234567"
                                        "890123456789012345678901234567890"
                                        "0123456789012345678901234567890123456789012345678901234567"
                                        "890123456789012345678901234567890"};

    (void)state;
    for (size_t i = 0; i < COUNT(words); i++) {
        struct sasl_server *s = begin("LOGIN");
        char plain[1024] = "";
        size_t len = strlen(words[i]);

        assert_int_equal(say(s, NULL, 0, "Username:"), SASL_SERVER_ASKS);
        assert_int_equal(say(s, words[i], len, "Password:"), SASL_SERVER_ASKS);
        assert_int_equal(say(s, words[i], len, NULL), SASL_SERVER_HEARD);
        expect(s, words[i], words[i]);

        memcpy(plain + 1, words[i], len);
        memcpy(plain + len + 2, words[i], len);
        s = begin("PLAIN");
        assert_int_equal(say(s, plain, 2 * len + 2, NULL), SASL_SERVER_HEARD);
        expect(s, words[i], words[i]);
    }
}

static void plain_may_wait_for_its_question(void **state)
{
    static const char said[] = "\0camera\0secret";
    struct sasl_server *s = begin("PLAIN");

    (void)state;
    assert_int_equal(say(s, NULL, 0, ""), SASL_SERVER_ASKS);
    assert_int_equal(say(s, said, sizeof(said) - 1, NULL), SASL_SERVER_HEARD);
    expect(s, "camera", "secret");
}

static void an_identity_to_act_as_changes_nothing(void **state)
{
    static const char said[] = "admin\0camera\0secret";
    struct sasl_server *s = begin("PLAIN");

    (void)state;
    assert_int_equal(say(s, said, sizeof(said) - 1, NULL), SASL_SERVER_HEARD);
    expect(s, "camera", "secret");
}

static void what_is_no_plain_message_is_refused(void **state)
{
    static const struct {
        const char *said;
        size_t len;
    } rows[] = {{"", 0}, {"secret", 6}, {"camera\0secret", 13}, {"\0camera\0sec\0ret", 15}};

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct sasl_server *s = begin("PLAIN");

        assert_int_equal(say(s, rows[i].said, rows[i].len, NULL), SASL_SERVER_REFUSES);
        sasl_server_end(s);
    }
}

static void nul_in_a_login_is_refused(void **state)
{
    struct sasl_server *s = begin("LOGIN");

    (void)state;
    assert_int_equal(say(s, "cam\0era", 7, NULL), SASL_SERVER_REFUSES);
    sasl_server_end(s);
    s = begin("LOGIN");
    assert_int_equal(say(s, "camera", 6, "Password:"), SASL_SERVER_ASKS);
    assert_int_equal(say(s, "sec\0ret", 7, NULL), SASL_SERVER_REFUSES);
    sasl_server_end(s);
}

static void other_mechanisms_are_not_there(void **state)
{
    static const char *const names[] = {"CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-256", "NTLM",
                                        "EXTERNAL", "ANONYMOUS",  "XOAUTH2",       ""};

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        struct sasl_server *s = begin(names[i]);

        assert_int_equal(say(s, "secret", 6, NULL), SASL_SERVER_REFUSES);
        sasl_server_end(s);
    }
}

static void an_exchange_may_be_left_at_any_point(void **state)
{
    struct sasl_server *s = begin("LOGIN");

    (void)state;
    sasl_server_end(s);
    s = begin("LOGIN");
    assert_int_equal(say(s, NULL, 0, "Username:"), SASL_SERVER_ASKS);
    assert_int_equal(say(s, "secret", 6, "Password:"), SASL_SERVER_ASKS);
    sasl_server_end(s);
    sasl_server_end(NULL);
}

/* The daemon has both sides in one process. */
static int set_up(void **state)
{
    struct error err = ERROR_INIT;

    (void)state;
    return sasl_setup(false, &err) && sasl_server_setup(&err) ? 0 : 1;
}

static int tear_down(void **state)
{
    (void)state;
    sasl_server_teardown();
    sasl_teardown();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(login_asks_two_questions_byte_for_byte),
        cmocka_unit_test(login_takes_the_name_with_the_command),
        cmocka_unit_test(names_and_passwords_come_out_as_they_were_said),
        cmocka_unit_test(plain_may_wait_for_its_question),
        cmocka_unit_test(an_identity_to_act_as_changes_nothing),
        cmocka_unit_test(what_is_no_plain_message_is_refused),
        cmocka_unit_test(nul_in_a_login_is_refused),
        cmocka_unit_test(other_mechanisms_are_not_there),
        cmocka_unit_test(an_exchange_may_be_left_at_any_point),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
