#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/smtp/command.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct command_text text_of(const char *text)
{
    return (struct command_text){text, strlen(text)};
}

static void assert_text(const char *name, struct command_text got, const char *want)
{
    if (got.len != strlen(want) || memcmp(got.p, want, got.len) != 0)
        fail_msg("%s: \"%.*s\" instead of \"%s\"", name, (int)got.len, got.p, want);
}

static void verbs_are_known_in_any_case(void **state)
{
    static const struct {
        const char *line;
        enum command_verb verb;
        const char *argument;
    } rows[] = {
        {"EHLO printer.example", COMMAND_EHLO, "printer.example"},
        {"ehlo printer.example", COMMAND_EHLO, "printer.example"},
        {"  HeLo  ", COMMAND_HELO, ""},
        {"HELO\tprinter", COMMAND_HELO, "printer"},
        {"MAIL FROM:<a@b.example> SIZE=1", COMMAND_MAIL, "FROM:<a@b.example> SIZE=1"},
        {"rcpt  to: a@b.example  ", COMMAND_RCPT, "to: a@b.example"},
        {"DATA", COMMAND_DATA, ""},
        {"data now", COMMAND_DATA, "now"},
        {"RSET", COMMAND_RSET, ""},
        {"NOOP", COMMAND_NOOP, ""},
        {"VRFY root", COMMAND_VRFY, "root"},
        {"HELP", COMMAND_HELP, ""},
        {"QUIT", COMMAND_QUIT, ""},
        {"EXPN all", COMMAND_EXPN, "all"},
        {"ETRN x", COMMAND_ETRN, "x"},
        {"AUTH LOGIN", COMMAND_AUTH, "LOGIN"},
        {"STARTTLS", COMMAND_STARTTLS, ""},
        {"BDAT 5 LAST", COMMAND_BDAT, "5 LAST"},
        {"SAML FROM:<a>", COMMAND_SEND, "FROM:<a>"},
        {"GET / HTTP/1.1", COMMAND_HTTP, "/ HTTP/1.1"},
        {"Host: relay", COMMAND_HTTP, "relay"},
        {"MAILFROM:<a@b.example>", COMMAND_UNKNOWN, ""},
        {"dXNlcg==", COMMAND_UNKNOWN, ""},
        {"", COMMAND_UNKNOWN, ""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct command c;

        command_parse(rows[i].line, strlen(rows[i].line), &c);
        if (c.verb != rows[i].verb)
            fail_msg("\"%s\" is read as %s", rows[i].line, command_verb_name(c.verb));
        assert_text(rows[i].line, c.argument, rows[i].argument);
    }
}

static void paths_and_parameters_are_parted(void **state)
{
    static const struct {
        const char *argument;
        const char *path; /* NULL: no FROM */
        const char *parameters;
    } rows[] = {
        {"FROM:<a@b.example>", "<a@b.example>", ""},
        {"FROM: <a@b.example> SIZE=5", "<a@b.example>", "SIZE=5"},
        {"from:a@b.example  SIZE=5 BODY=7BIT", "a@b.example", "SIZE=5 BODY=7BIT"},
        {"FROM : <a@b.example>", "<a@b.example>", ""},
        {"FROM <a@b.example>", "<a@b.example>", ""},
        {"FROM<a@b.example>", "<a@b.example>", ""},
        {"FROM:<>SIZE=5", "<>", "SIZE=5"},
        {"FROM:", "", ""},
        {"FROM", "", ""},
        {"FROMAGE:<a@b.example>", NULL, NULL},
        {"TO:<a@b.example>", NULL, NULL},
        {"", NULL, NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct command_text path;
        struct command_text parameters;
        bool ok = command_split_path(text_of(rows[i].argument), "FROM", &path, &parameters);

        if (ok != (rows[i].path != NULL))
            fail_msg("\"%s\" is %s", rows[i].argument, ok ? "taken" : "refused");
        if (ok) {
            assert_text(rows[i].argument, path, rows[i].path);
            assert_text(rows[i].argument, parameters, rows[i].parameters);
        }
    }
}

static struct command_parameters good(const char *text, enum command_verb verb)
{
    struct command_parameters p;
    const char *problem = NULL;

    if (!command_parameters(text_of(text), verb, &p, &problem))
        fail_msg("%s: %s", text, problem);
    return p;
}

static void parameters_of_mail_are_read(void **state)
{
    struct command_parameters p =
        good("size=123 Body=8bitMIME SMTPUTF8 AUTH=<> RET=hdrs ENVID=a+2Bb", COMMAND_MAIL);

    (void)state;
    assert_true(p.has_size);
    assert_int_equal(p.size, 123);
    assert_int_equal(p.body, COMMAND_BODY_8BITMIME);
    assert_true(p.smtputf8);
    assert_true(p.has_auth);
    assert_text("RET", p.ret, "hdrs");
    assert_text("ENVID", p.envid, "a+2Bb");
    assert_int_equal(p.ignored_count, 0);
}

static void priorities_are_of_one_digit(void **state)
{
    static const struct {
        const char *text;
        int priority; /* 99: ignored */
    } rows[] = {{"MT-PRIORITY=9", 9},    {"mt-priority=0", 0},   {"MT-PRIORITY=-9", -9},
                {"MT-PRIORITY=-0", 0},   {"MT-PRIORITY=10", 99}, {"MT-PRIORITY=", 99},
                {"MT-PRIORITY=-", 99},   {"MT-PRIORITY=+1", 99}, {"MT-PRIORITY=x", 99},
                {"MT-PRIORITY=--1", 99}, {"MT-PRIORITY", 99}};

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct command_parameters p = good(rows[i].text, COMMAND_MAIL);

        assert_int_equal(p.has_priority, rows[i].priority != 99);
        assert_int_equal(p.ignored_count, rows[i].priority == 99);
        if (p.has_priority)
            assert_int_equal(p.priority, rows[i].priority);
    }
}

static void chunks_have_a_number_and_may_be_the_last(void **state)
{
    static const struct {
        const char *text;
        bool good;
        uint64_t octets;
        bool last;
    } rows[] = {{"0", true, 0, false},
                {"86400 LAST", true, 86400, true},
                {"86400 \t last", true, 86400, true},
                {"18446744073709551616", true, UINT64_MAX, false},
                {"", false, 0, false},
                {"LAST", false, 0, false},
                {"-1", false, 0, false},
                {"12x", false, 0, false},
                {"12 LATER", false, 0, false},
                {"12 LAST x", false, 0, false}};

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct command_text text = {rows[i].text, strlen(rows[i].text)};
        uint64_t octets = 0;
        bool last = false;

        assert_int_equal(command_chunk(text, &octets, &last), rows[i].good);
        assert_int_equal(octets, rows[i].octets);
        assert_int_equal(last, rows[i].last);
    }
}

static void parameters_of_rcpt_are_read(void **state)
{
    struct command_parameters p =
        good("NOTIFY=success,DELAY ORCPT=rfc822;a+40b@c.example", COMMAND_RCPT);

    (void)state;
    assert_text("NOTIFY", p.notify, "success,DELAY");
    assert_text("ORCPT", p.orcpt, "rfc822;a+40b@c.example");
    assert_text("NEVER", good("NOTIFY=NEVER", COMMAND_RCPT).notify, "NEVER");
    assert_int_equal(p.ignored_count, 0);
}

static void what_is_unknown_or_malformed_is_ignored(void **state)
{
    static const struct {
        const char *text;
        const char *name;
        enum command_verb verb;
    } rows[] = {
        {"XVENDOR=1", "XVENDOR", COMMAND_MAIL},
        {"junk", "junk", COMMAND_MAIL},
        {"=", "", COMMAND_MAIL},
        {"SIZE=", "SIZE", COMMAND_MAIL},
        {"SIZE=12k", "SIZE", COMMAND_MAIL},
        {"SIZE=-1", "SIZE", COMMAND_MAIL},
        {"SIZE", "SIZE", COMMAND_MAIL},
        {"RET=SOME", "RET", COMMAND_MAIL},
        {"ENVID=a=b", "ENVID", COMMAND_MAIL},
        {"ENVID=a+4", "ENVID", COMMAND_MAIL},
        {"ENVID=a+zz", "ENVID", COMMAND_MAIL},
        {"SMTPUTF8=yes", "SMTPUTF8", COMMAND_MAIL},
        {"NOTIFY=NEVER", "NOTIFY", COMMAND_MAIL},
        {"SIZE=5", "SIZE", COMMAND_RCPT},
        {"NOTIFY=SOON", "NOTIFY", COMMAND_RCPT},
        {"NOTIFY=SUCCESS,", "NOTIFY", COMMAND_RCPT},
        {"NOTIFY=NEVER,DELAY", "NOTIFY", COMMAND_RCPT},
        {"NOTIFY=", "NOTIFY", COMMAND_RCPT},
        {"ORCPT=a@b.example", "ORCPT", COMMAND_RCPT},
        {"ORCPT=;a", "ORCPT", COMMAND_RCPT},
        {"ORCPT=rfc822;", "ORCPT", COMMAND_RCPT},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct command_parameters p = good(rows[i].text, rows[i].verb);

        if (p.ignored_count != 1)
            fail_msg("%s: %zu ignored", rows[i].text, p.ignored_count);
        assert_text(rows[i].text, p.ignored[0], rows[i].name);
        assert_false(p.has_size);
        assert_int_equal(p.ret.len + p.envid.len + p.notify.len + p.orcpt.len, 0);
    }
}

static void more_ignored_parameters_than_are_kept_are_counted(void **state)
{
    struct command_parameters p = good("a b c d e f g h i j SIZE=7", COMMAND_MAIL);

    (void)state;
    assert_int_equal(p.ignored_count, 10);
    assert_text("last kept", p.ignored[COMMAND_IGNORED_MAX - 1], "h");
    assert_int_equal(p.size, 7);
}

static void a_huge_size_is_huge(void **state)
{
    (void)state;
    assert_true(good("SIZE=18446744073709551615", COMMAND_MAIL).size == UINT64_MAX);
    assert_true(good("SIZE=18446744073709551616", COMMAND_MAIL).size == UINT64_MAX);
    assert_true(good("SIZE=99999999999999999999999", COMMAND_MAIL).size == UINT64_MAX);
    assert_true(good("SIZE=18446744073709551614", COMMAND_MAIL).size == UINT64_MAX - 1);
}

static void a_body_that_cannot_be_carried_is_a_problem(void **state)
{
    struct command_parameters p = {.size = 42};
    const char *problem = NULL;

    (void)state;
    assert_false(command_parameters(text_of("BODY=BINARYMIME"), COMMAND_MAIL, &p, &problem));
    assert_non_null(problem);
    assert_int_equal(p.size, 42);
    assert_int_equal(good("BODY=7bit", COMMAND_MAIL).body, COMMAND_BODY_7BIT);
    assert_int_equal(good("", COMMAND_MAIL).body, COMMAND_BODY_NONE);
}

static void long_values_are_ignored(void **state)
{
    char text[COMMAND_ORCPT_MAX + 64] = "ENVID=";

    (void)state;
    memset(text + 6, 'a', COMMAND_ENVID_MAX);
    text[6 + COMMAND_ENVID_MAX] = '\0';
    assert_int_equal(good(text, COMMAND_MAIL).envid.len, COMMAND_ENVID_MAX);
    text[6 + COMMAND_ENVID_MAX] = 'a';
    text[7 + COMMAND_ENVID_MAX] = '\0';
    assert_int_equal(good(text, COMMAND_MAIL).ignored_count, 1);
    memcpy(text, "ORCPT=rfc822;", 13);
    memset(text + 13, 'a', COMMAND_ORCPT_MAX - 7);
    text[6 + COMMAND_ORCPT_MAX] = '\0';
    assert_int_equal(good(text, COMMAND_RCPT).orcpt.len, COMMAND_ORCPT_MAX);
    text[6 + COMMAND_ORCPT_MAX] = 'a';
    text[7 + COMMAND_ORCPT_MAX] = '\0';
    assert_int_equal(good(text, COMMAND_RCPT).ignored_count, 1);
}

static void every_verb_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(command_verb_name(COMMAND_UNKNOWN), "unknown");
    assert_string_equal(command_verb_name(COMMAND_HTTP), "HTTP");
    for (enum command_verb verb = COMMAND_EHLO; verb < COMMAND_HTTP; verb++)
        assert_string_not_equal(command_verb_name(verb), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verbs_are_known_in_any_case),
        cmocka_unit_test(paths_and_parameters_are_parted),
        cmocka_unit_test(parameters_of_mail_are_read),
        cmocka_unit_test(priorities_are_of_one_digit),
        cmocka_unit_test(chunks_have_a_number_and_may_be_the_last),
        cmocka_unit_test(parameters_of_rcpt_are_read),
        cmocka_unit_test(what_is_unknown_or_malformed_is_ignored),
        cmocka_unit_test(more_ignored_parameters_than_are_kept_are_counted),
        cmocka_unit_test(a_huge_size_is_huge),
        cmocka_unit_test(a_body_that_cannot_be_carried_is_a_problem),
        cmocka_unit_test(long_values_are_ignored),
        cmocka_unit_test(every_verb_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
