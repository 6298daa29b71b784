#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "relay/smtp/ehlo.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct ehlo learn(const char *wire)
{
    struct reply_parser p;
    struct reply r;
    struct ehlo e;
    size_t used = 0;

    reply_parser_init(&p);
    memset(&e, 0xff, sizeof(e)); /* must be forgotten */
    assert_int_equal(reply_feed(&p, (const uint8_t *)wire, strlen(wire), &used, &r), REPLY_DONE);
    ehlo_learn(&e, &p);
    reply_parser_done(&p);
    return e;
}

static void what_microsoft_announces_is_understood(void **state)
{
    struct ehlo e = learn("250-AM0PR01CA0001.outlook.office365.com Hello [192.0.2.1]\r\n"
                          "250-SIZE 157286400\r\n"
                          "250-PIPELINING\r\n"
                          "250-DSN\r\n"
                          "250-ENHANCEDSTATUSCODES\r\n"
                          "250-AUTH LOGIN XOAUTH2\r\n"
                          "250-8BITMIME\r\n"
                          "250-BINARYMIME\r\n"
                          "250-CHUNKING\r\n"
                          "250 SMTPUTF8\r\n");

    (void)state;
    assert_string_equal(e.greeting, "AM0PR01CA0001.outlook.office365.com Hello [192.0.2.1]");
    assert_true(e.has_size && e.pipelining && e.eight_bit_mime && e.smtputf8 && e.dsn &&
                e.has_auth);
    assert_int_equal(e.size, 157286400);
    assert_string_equal(e.auth, "LOGIN XOAUTH2");
    assert_false(e.starttls);
}

static void the_first_line_is_no_keyword(void **state)
{
    struct ehlo e = learn("250-PIPELINING\r\n250 STARTTLS\r\n");

    (void)state;
    assert_false(e.pipelining);
    assert_true(e.starttls);
    assert_string_equal(e.greeting, "PIPELINING");
}

static void a_reply_of_one_line_announces_nothing(void **state)
{
    struct ehlo e = learn("250 SIZE 5\r\n");

    (void)state;
    assert_false(e.has_size || e.pipelining || e.starttls || e.eight_bit_mime || e.smtputf8 ||
                 e.has_auth);
    assert_int_equal(e.size, 0);
    assert_string_equal(e.auth, "");
}

struct size_row {
    const char *line;
    bool has_size;
    uint64_t size;
};

static void size_limits_are_numbers_or_none(void **state)
{
    static const struct size_row rows[] = {
        {"250-x\r\n250 SIZE\r\n", true, 0},
        {"250-x\r\n250 SIZE 0\r\n", true, 0},
        {"250-x\r\n250 size 35882577\r\n", true, 35882577},
        {"250-x\r\n250 SIZE=100\r\n", true, 100},
        {"250-x\r\n250 SIZE -1\r\n", true, 0},
        {"250-x\r\n250 SIZE much\r\n", true, 0},
        {"250-x\r\n250 SIZE 99999999999999999999999\r\n", true, UINT64_MAX},
        {"250-x\r\n250 SIZES 5\r\n", false, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct ehlo e = learn(rows[i].line);

        print_message("  %s", rows[i].line);
        assert_int_equal(e.has_size, rows[i].has_size);
        assert_int_equal(e.size, rows[i].size);
    }
}

struct choice {
    const char *offered;
    const char *wanted;
    const char *chosen; /* NULL for none */
};

static void our_order_chooses_among_whole_names(void **state)
{
    static const struct choice rows[] = {
        {"250-x\r\n250 AUTH LOGIN XOAUTH2\r\n", "LOGIN PLAIN", "LOGIN"},
        {"250-x\r\n250 AUTH PLAIN LOGIN\r\n", "LOGIN PLAIN", "LOGIN"},
        {"250-x\r\n250 AUTH PLAIN\r\n", "LOGIN PLAIN", "PLAIN"},
        {"250-x\r\n250 auth=login\r\n", "LOGIN PLAIN", "LOGIN"},
        {"250-x\r\n250-AUTH=LOGIN\r\n250 AUTH PLAIN\r\n", "PLAIN", "PLAIN"},
        {"250-x\r\n250 AUTH  PLAIN   LOGIN \r\n", "LOGIN", "LOGIN"},
        {"250-x\r\n250 AUTH PLAIN-CLIENTTOKEN XPLAIN\r\n", "LOGIN PLAIN", NULL},
        {"250-x\r\n250 AUTH XOAUTH2\r\n", "LOGIN PLAIN", NULL},
        {"250-x\r\n250 AUTH\r\n", "LOGIN PLAIN", NULL},
        {"250-x\r\n250 HELP\r\n", "LOGIN PLAIN", NULL},
        {"250-x\r\n250 AUTH LOGIN\r\n", "", NULL},
        {"250-x\r\n250 AUTH A-MECHANISM-WITH-A-LONG-NAME LOGIN\r\n",
         "A-MECHANISM-WITH-A-LONG-NAME LOGIN", "LOGIN"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct ehlo e = learn(rows[i].offered);
        char name[21] = "untouched";
        bool ok = ehlo_choose_mechanism(&e, rows[i].wanted, name, sizeof(name));

        print_message("  %s for %s", rows[i].wanted, rows[i].offered);
        assert_int_equal(ok, rows[i].chosen != NULL);
        assert_string_equal(name, rows[i].chosen != NULL ? rows[i].chosen : "untouched");
    }
}

static void a_mechanism_is_forgotten_by_its_whole_name(void **state)
{
    static const struct {
        const char *auth;
        const char *name;
        const char *left;
    } rows[] = {{"PLAIN LOGIN XOAUTH2", "LOGIN", "PLAIN XOAUTH2"},
                {"PLAIN LOGIN", "LOGIN", "PLAIN"},
                {"PLAIN", "PLAIN", ""},
                {"plain PLAINER", "PLAIN", "PLAINER"},
                {"LOGIN", "PLAIN", "LOGIN"},
                {"", "PLAIN", ""}};
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ehlo e = {.has_auth = true};
        snprintf(e.auth, sizeof(e.auth), "%s", rows[i].auth);
        ehlo_forget_mechanism(&e, rows[i].name);
        assert_string_equal(e.auth, rows[i].left);
    }
}

static void a_list_of_mechanisms_without_end_is_cut(void **state)
{
    char wire[4000] = "250-x\r\n";
    struct ehlo e;

    (void)state;
    for (int i = 0; i < 100; i++)
        strcat(wire, "250-AUTH MECHANISM-NUMBER-X\r\n");
    strcat(wire, "250 AUTH LOGIN\r\n");
    e = learn(wire);
    assert_int_equal(strlen(e.auth), EHLO_AUTH_MAX - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_microsoft_announces_is_understood),
        cmocka_unit_test(the_first_line_is_no_keyword),
        cmocka_unit_test(a_reply_of_one_line_announces_nothing),
        cmocka_unit_test(size_limits_are_numbers_or_none),
        cmocka_unit_test(our_order_chooses_among_whole_names),
        cmocka_unit_test(a_mechanism_is_forgotten_by_its_whole_name),
        cmocka_unit_test(a_list_of_mechanisms_without_end_is_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
