#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/smtp/address.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define L64 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz012345678901"
#define D60 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz01234567"

struct row {
    const char *name;
    const char *text;
    const char *path; /* NULL: refused */
};

/* A heap copy without NUL, so that a read beyond the end is seen. */
static char *copy_of(const char *text, size_t len)
{
    char *copy = malloc(len + 1);

    assert_non_null(copy);
    memcpy(copy, text, len);
    return realloc(copy, len > 0 ? len : 1);
}

static bool parse(const char *text, size_t len, enum address_use use, struct address *out,
                  const char **problem)
{
    char *copy = copy_of(text, len);
    bool ok = address_parse(copy, len, use, out, problem);

    free(copy);
    return ok;
}

static void check(const struct row *rows, size_t count, enum address_use use)
{
    for (size_t i = 0; i < count; i++) {
        struct address a = {.path = "untouched"};
        const char *problem = "";
        bool ok = parse(rows[i].text, strlen(rows[i].text), use, &a, &problem);

        if (rows[i].path == NULL && (ok || strcmp(a.path, "untouched") != 0 || *problem == '\0'))
            fail_msg("%s: %s should be refused, not read as \"%s\"", rows[i].name, rows[i].text,
                     a.path);
        if (rows[i].path != NULL && (!ok || strcmp(a.path, rows[i].path) != 0))
            fail_msg("%s: %s came out as \"%s\" (%s)", rows[i].name, rows[i].text, a.path, problem);
    }
}

static const struct row either[] = {
    {"plain", "<user@example.com>", "user@example.com"},
    {"no brackets", "user@example.com", "user@example.com"},
    {"only the left bracket", "<user@example.com", "user@example.com"},
    {"spaces around", "  < user@example.com >  ", "user@example.com"},
    {"spaces around the @", "<user @ example.com>", "user@example.com"},
    {"tabs around", "\tuser@example.com\t", "user@example.com"},
    {"apostrophes", "<'user@example.com'>", "user@example.com"},
    {"apostrophes without brackets", "'user@example.com'", "user@example.com"},
    {"an apostrophe in the name stays", "<o'neil@example.com>", "o'neil@example.com"},
    {"a name and brackets in brackets", "<Name <user@example.com>>", "user@example.com"},
    {"a quoted name", "\"Na>me\" <user@example.com>", "user@example.com"},
    {"doubled brackets", "<<user@example.com>>", "user@example.com"},
    {"source route", "<@a.example,@b.example:user@example.com>", "user@example.com"},
    {"quoted local part", "<\"a b\"@example.com>", "\"a b\"@example.com"},
    {"quotes that are not needed", "<\"user\"@example.com>", "user@example.com"},
    {"quoted @ and bracket", "<\"a@b>c\"@example.com>", "\"a@b>c\"@example.com"},
    {"quoted pair", "<\"a\\\"b\\\\c\\d\"@example.com>", "\"a\\\"b\\\\cd\"@example.com"},
    {"empty quotes", "<\"\"@example.com>", "\"\"@example.com"},
    {"dots in a row are quoted", "<a..b@example.com>", "\"a..b\"@example.com"},
    {"a dot at the end is quoted", "<a.@example.com>", "\"a.\"@example.com"},
    {"all of atext", "<!#$%&'*+-/=?^_`{|}~@example.com>", "!#$%&'*+-/=?^_`{|}~@example.com"},
    {"dot behind the domain", "<user@example.com.>", "user@example.com"},
    {"underscore in the domain", "<user@my_printer.example>", "user@my_printer.example"},
    {"one label", "<user@corp>", "user@corp"},
    {"IPv4 literal", "<user@[192.168.1.5]>", "user@[192.168.1.5]"},
    {"IPv6 literal", "<user@[IPv6:fd00::1]>", "user@[IPv6:fd00::1]"},
    {"IPv6 literal in lower case", "<user@[ipv6:fd00::1]>", "user@[IPv6:fd00::1]"},
    {"IPv6 literal without tag", "<user@[fd00::1]>", "user@[IPv6:fd00::1]"},
    {"longest local part", "<" L64 "@example.com>", L64 "@example.com"},
    {"UTF-8", "<b\xc3\xbcro@example.com>", "b\xc3\xbcro@example.com"},
    {"local part one too long", "<" L64 "x@example.com>", NULL},
    {"local part too long with its quotes", "<\"" L64 "\"@example.com>", L64 "@example.com"},
    {"local part too long because of its quotes", "<" L64 ".@example.com>", NULL},
    {"label too long", "<user@" D60 "abcd.example>", NULL},
    {"path too long", "<" L64 "@" D60 "." D60 "." D60 ".abcdefghi>", NULL},
    {"domain too long", "<u@" D60 "." D60 "." D60 "." D60 ".abcdefghijklm>", NULL},
    {"two @", "<a@b@example.com>", NULL},
    {"space inside", "<us er@example.com>", NULL},
    {"a name in front without brackets", "<Name user@example.com>", NULL},
    {"control character",
     "<us\x01"
     "er@example.com>",
     NULL},
    {"line end", "<user@example.com\r>", NULL},
    {"DEL", "<us\x7f@example.com>", NULL},
    {"control character in quotes", "<\"us\x0b\"@example.com>", NULL},
    {"tab in quotes", "<\"us\ter\"@example.com>", NULL},
    {"quote not closed", "<\"user@example.com>", NULL},
    {"text behind the quote", "<\"us\"er@example.com>", NULL},
    {"a backslash at the end", "<\"us\\\"@example.com>", NULL},
    {"comma", "<a,b@example.com>", NULL},
    {"comment", "<user(me)@example.com>", NULL},
    {"no local part", "<@example.com>", NULL},
    {"empty label", "<user@example..com>", NULL},
    {"dot first", "<user@.example.com>", NULL},
    {"only a dot", "<user@.>", NULL},
    {"bad character in the domain", "<user@exa$mple.com>", NULL},
    {"literal not closed", "<user@[1.2.3.4>", NULL},
    {"literal that is none", "<user@[printer]>", NULL},
    {"empty literal", "<user@[]>", NULL},
    {"text behind the literal", "<user@[1.2.3.4]x>", NULL},
    {"Latin-1", "<b\xfcro@example.com>", NULL},
    {"overlong UTF-8", "<b\xc0\xafro@example.com>", NULL},
    {"surrogate", "<b\xed\xa0\x80@example.com>", NULL},
    {"cut UTF-8", "<\xe2\x82", NULL},
    {"a bracket too many", ">user@example.com<", NULL},
};

static void paths_of_both_kinds_come_out_canonical(void **state)
{
    (void)state;
    check(either, COUNT(either), ADDRESS_FORWARD_PATH);
    check(either, COUNT(either), ADDRESS_REVERSE_PATH);
}

static void a_reverse_path_may_be_null_or_incomplete(void **state)
{
    static const struct row rows[] = {
        {"null", "<>", ""},
        {"null with a space", "< >", ""},
        {"no domain", "<root>", "root"},
        {"no domain, no brackets", "scanner", "scanner"},
        {"empty domain", "<scanner@>", "scanner"},
        {"localdomain", "<monit@OPNsense.localdomain>", "monit@OPNsense.localdomain"},
        {"bare IP address", "user@1.2.3.4", "user@1.2.3.4"},
        {"nothing at all", "", NULL},
        {"only spaces", "   ", NULL},
    };

    (void)state;
    check(rows, COUNT(rows), ADDRESS_REVERSE_PATH);
}

static void a_forward_path_must_be_complete(void **state)
{
    static const struct row rows[] = {
        {"null", "<>", NULL},
        {"nothing", "", NULL},
        {"no domain", "<root>", NULL},
        {"empty domain", "<root@>", NULL},
        {"bare IP address", "user@1.2.3.4", NULL},
        {"postmaster", "<postmaster>", "postmaster"},
        {"Postmaster", "<Postmaster>", "Postmaster"},
        {"postmasters", "<postmasters>", NULL},
    };

    (void)state;
    check(rows, COUNT(rows), ADDRESS_FORWARD_PATH);
}

static void nul_octets_are_refused(void **state)
{
    struct address a;
    const char *problem;

    (void)state;
    assert_false(parse("<us\0er@example.com>", 19, ADDRESS_REVERSE_PATH, &a, &problem));
    assert_string_equal(problem, "it holds a control character");
}

static void the_domain_is_found(void **state)
{
    struct address a;
    const char *problem;

    (void)state;
    assert_true(parse("<\"a@b\"@x.example>", 17, ADDRESS_REVERSE_PATH, &a, &problem));
    assert_string_equal(a.path + a.domain, "x.example");
    assert_false(a.utf8);
    assert_true(parse("root", 4, ADDRESS_REVERSE_PATH, &a, &problem));
    assert_string_equal(a.path + a.domain, "");
    assert_true(parse("\xc3\xa4@x.example", 12, ADDRESS_REVERSE_PATH, &a, &problem));
    assert_true(a.utf8);
}

static void the_path_ends_where_the_parameters_begin(void **state)
{
    static const struct {
        const char *text;
        const char *path;
    } rows[] = {
        {"<a@b.example> SIZE=5", "<a@b.example>"},
        {" <a@b.example>SIZE=5", " <a@b.example>"},
        {"<> BODY=8BITMIME", "<>"},
        {"a@b.example SIZE=5", "a@b.example"},
        {"'a@b.example' SIZE=5", "'a@b.example'"},
        {"<Name <a@b.example>> SIZE=5", "<Name <a@b.example>>"},
        {"\"Na me\" <a@b.example> SIZE=5", "\"Na me\" <a@b.example>"},
        {"<\"a> b\"@b.example> SIZE=5", "<\"a> b\"@b.example>"},
        {"< a@b.example > SIZE=5", "< a@b.example >"},
        {"< a@b.example SIZE=5", "< a@b.example"},
        {"\"a b\"@b.example SIZE=5", "\"a b\"@b.example"},
        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        size_t len = strlen(rows[i].text);
        char *copy = copy_of(rows[i].text, len);
        size_t span = address_span(copy, len);

        free(copy);
        if (span != strlen(rows[i].path))
            fail_msg("%s: the path has %zu octets", rows[i].text, span);
    }
}

static void names_for_the_trace_are_domains_or_literals(void **state)
{
    static const struct {
        const char *text;
        bool good;
    } rows[] = {
        {"printer.example", true},
        {"NPIF65E56", true},
        {"my_printer", true},
        {"[192.168.1.21]", true},
        {"[IPv6:fd00::21]", true},
        {"192.168.1.21", true},
        {"", false},
        {"my printer", false},
        {"a;b", false},
        {"(x)", false},
        {"[printer]", false},
        {"b\xc3\xbcro", false},
        {"x\r\ny", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (address_is_domain(rows[i].text, strlen(rows[i].text)) != rows[i].good)
            fail_msg("\"%s\"", rows[i].text);
    }
}

/* Every string of these octets up to a length: what is read, reads as itself again. */
static void the_canonical_form_reads_as_itself(void **state)
{
    static const char octets[] = "a@<>\".\\'[: ";
    enum { LENGTH = 6, KINDS = sizeof(octets) - 1 };
    size_t total = 1;
    size_t good = 0;

    (void)state;
    for (size_t i = 0; i < LENGTH; i++)
        total *= KINDS;
    for (size_t number = 0; number < total; number++) {
        struct address once;
        struct address twice;
        const char *problem;
        char text[LENGTH];
        char path[ADDRESS_PATH_MAX + 2];
        size_t rest = number;

        for (size_t i = 0; i < LENGTH; i++, rest /= KINDS)
            text[i] = octets[rest % KINDS];
        if (!address_parse(text, LENGTH, ADDRESS_REVERSE_PATH, &once, &problem))
            continue;
        good++;
        snprintf(path, sizeof(path), "<%s>", once.path);
        if (!address_parse(path, strlen(path), ADDRESS_REVERSE_PATH, &twice, &problem) ||
            strcmp(once.path, twice.path) != 0 || once.domain != twice.domain)
            fail_msg("\"%.*s\" is read as %s", LENGTH, text, path);
    }
    assert_true(good > 100);
}

static void a_list_names_addresses_domains_and_what_is_below_them(void **state)
{
    static const struct {
        const char *entry;
        const char *address;
        bool listed;
    } rows[] = {
        {"a@example.com", "A@Example.com", true},    {"a@example.com", "b@example.com", false},
        {"example.com", "x@EXAMPLE.com", true},      {"example.com", "x@sub.example.com", false},
        {"example.com", "x@notexample.com", false},  {".example.com", "x@sub.example.com", true},
        {".example.com", "x@a.b.example.com", true}, {".example.com", "x@example.com", false},
        {".example.com", "x@.example.com", false},   {"example.com", "\"x@y\"@example.com", true},
        {"example.com", "postmaster", false},        {"example.com", "", false}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (address_is_listed(rows[i].entry, rows[i].address) != rows[i].listed)
            fail_msg("%s and %s", rows[i].entry, rows[i].address);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_of_both_kinds_come_out_canonical),
        cmocka_unit_test(a_reverse_path_may_be_null_or_incomplete),
        cmocka_unit_test(a_forward_path_must_be_complete),
        cmocka_unit_test(nul_octets_are_refused),
        cmocka_unit_test(the_domain_is_found),
        cmocka_unit_test(the_path_ends_where_the_parameters_begin),
        cmocka_unit_test(names_for_the_trace_are_domains_or_literals),
        cmocka_unit_test(the_canonical_form_reads_as_itself),
        cmocka_unit_test(a_list_names_addresses_domains_and_what_is_below_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
