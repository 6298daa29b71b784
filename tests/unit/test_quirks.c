/* Names, words, and that every repair has its row. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "relay/intake/quirks.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#ifndef OUTTRAY_SOURCE_DIR
#define OUTTRAY_SOURCE_DIR "."
#endif

/* Where the names of repairs stand. */
static const char *const sources[] = {"relay/smtp/repair.c", "relay/smtp/header.c",
                                      "relay/intake/server_fsm.c"};

static char *read_source(const char *name)
{
    char path[512];
    char *text = calloc(1, 1 << 20);
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", OUTTRAY_SOURCE_DIR, name);
    file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(text);
    assert_in_range(fread(text, 1, (1 << 20) - 1, file), 1, (1 << 20) - 2);
    (void)fclose(file);
    return text;
}

/* A literal of lower-case words joined by "_", which in these sources is the name of a repair. */
static bool is_name(const char *p, size_t len)
{
    bool joined = false;

    for (size_t i = 0; i < len; i++) {
        if (!islower((unsigned char)p[i]) && !isdigit((unsigned char)p[i]) && p[i] != '_')
            return false;
        joined |= p[i] == '_';
    }
    return joined;
}

static size_t row_named(const char *p, size_t len)
{
    for (size_t i = 0; i < quirks_count(); i++) {
        if (strlen(quirk_name(i)) == len && memcmp(quirk_name(i), p, len) == 0)
            return i;
    }
    return quirks_count();
}

static void every_repair_has_its_row(void **state)
{
    size_t found = 0;

    (void)state;
    for (size_t i = 0; i < COUNT(sources); i++) {
        char *text = read_source(sources[i]);

        for (char *p = text; (p = strchr(p, '"')) != NULL; p++) {
            size_t len = strcspn(p + 1, "\"\n");

            if (is_name(p + 1, len) && p[len + 1] == '"') {
                if (row_named(p + 1, len) < QUIRK_SESSION_COUNT ||
                    row_named(p + 1, len) == quirks_count())
                    fail_msg("%s: \"%.*s\" has no row", sources[i], (int)len, p + 1);
                found++;
            }
        }
        free(text);
    }
    assert_in_range(found, 30, 100);
}

static void every_row_is_a_repair_that_exists(void **state)
{
    char *texts[COUNT(sources)];

    (void)state;
    for (size_t i = 0; i < COUNT(sources); i++)
        texts[i] = read_source(sources[i]);
    for (size_t row = QUIRK_SESSION_COUNT; row < quirks_count(); row++) {
        char quoted[64];
        bool found = strcmp(quirk_name(row), "sent_twice") == 0; /* by session_mail.c */

        snprintf(quoted, sizeof(quoted), "\"%s\"", quirk_name(row));
        for (size_t i = 0; i < COUNT(sources); i++)
            found |= strstr(texts[i], quoted) != NULL;
        if (!found)
            fail_msg("nobody repairs %s", quoted);
    }
    for (size_t i = 0; i < COUNT(sources); i++)
        free(texts[i]);
}

static void names_are_unique_and_all_have_words(void **state)
{
    (void)state;
    assert_in_range(quirks_count(), QUIRK_SESSION_COUNT + 1, 64);
    for (size_t i = 0; i < quirks_count(); i++) {
        const char *words = quirk_words(i);

        assert_non_null(quirk_name(i));
        assert_int_equal(row_named(quirk_name(i), strlen(quirk_name(i))), i);
        assert_int_equal(strcspn(quirk_name(i), ", \n"), strlen(quirk_name(i)));
        if (strlen(words) < 10 || words[strlen(words) - 1] == '.')
            fail_msg("words of %s: \"%s\"", quirk_name(i), words);
        assert_non_null(quirk_remedy(i));
        if (quirk_remedy(i)[0] != '\0' && quirk_remedy(i)[strlen(quirk_remedy(i)) - 1] != '.')
            fail_msg("remedy of %s: \"%s\"", quirk_name(i), quirk_remedy(i));
    }
}

static void names_that_others_rely_on_stay(void **state)
{
    static const struct {
        enum quirk quirk;
        const char *name;
    } rows[] = {{QUIRK_NO_BRACKETS, "no_brackets"}, {QUIRK_TLS_1_0, "tls1.0"},
                {QUIRK_TLS_1_1, "tls1.1"},          {QUIRK_BARE_LF_COMMANDS, "bare_lf_commands"},
                {QUIRK_NO_QUIT, "no_quit"},         {QUIRK_LOGIN_IGNORED, "login_ignored"}};

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_string_equal(quirk_name(rows[i].quirk), rows[i].name);
    assert_true(quirks_of_names("no_date") != 0);
    assert_true(quirks_of_names("bare_lf") != 0);
    assert_true(quirks_of_names("message_partial") != 0);
}

static void a_split_scan_has_the_menus_of_the_makers(void **state)
{
    static const char *const makers[] = {"Canon", "Fuji Xerox", "FUJIFILM", "Ricoh",
                                         "Konica Minolta"};
    const char *remedy = quirk_remedy(row_named("message_partial", strlen("message_partial")));

    (void)state;
    for (size_t i = 0; i < COUNT(makers); i++)
        assert_non_null(strstr(remedy, makers[i]));
    assert_non_null(strstr(remedy, "Split by Data Size"));
    assert_non_null(strstr(remedy, "Binary Division"));
    assert_non_null(strstr(remedy, "Divide & Send E-mail"));
}

static void a_set_is_its_names_and_back(void **state)
{
    char names[QUIRKS_TEXT_MAX];
    quirks all = 0;

    (void)state;
    quirks_names(0, names);
    assert_string_equal(names, "");
    assert_true(quirks_of_names("") == 0);
    quirks_names(QUIRK_BIT(QUIRK_TLS_1_0) | QUIRK_BIT(QUIRK_HELO_ODD), names);
    assert_string_equal(names, "helo_odd,tls1.0");
    for (size_t i = 0; i < quirks_count(); i++)
        all |= QUIRK_BIT(i);
    quirks_names(all, names);
    assert_in_range(strlen(names), 100, QUIRKS_TEXT_MAX - 200); /* room for those to come */
    assert_true(quirks_of_names(names) == all);
}

static void unknown_names_are_left_out(void **state)
{
    static const char *const rows[] = {"tls1.0,of_a_later_version", ",tls1.0,,", "tls1.0,tls1.",
                                       "TLS1.0,tls1.0,tls1.00"};

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_true(quirks_of_names(rows[i]) == QUIRK_BIT(QUIRK_TLS_1_0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_repair_has_its_row),
        cmocka_unit_test(every_row_is_a_repair_that_exists),
        cmocka_unit_test(names_are_unique_and_all_have_words),
        cmocka_unit_test(names_that_others_rely_on_stay),
        cmocka_unit_test(a_split_scan_has_the_menus_of_the_makers),
        cmocka_unit_test(a_set_is_its_names_and_back),
        cmocka_unit_test(unknown_names_are_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
