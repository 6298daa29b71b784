#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "relay/base/secret.h"

struct fixture {
    char directory[64];
    char file[128];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    (void)snprintf(f->directory, sizeof f->directory, "/tmp/outtray-secret-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    (void)snprintf(f->file, sizeof f->file, "%s/office.password", f->directory);
    unsetenv("CREDENTIALS_DIRECTORY");
    unsetenv("OUTTRAY_PASSWORD_OFFICE");
    unsetenv("OUTTRAY_PASSWORD_2ND_FLOOR_A");
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    (void)unlink(f->file);
    (void)rmdir(f->directory);
    free(f);
    return 0;
}

static void write_file(const struct fixture *f, const char *content, size_t len, mode_t mode)
{
    FILE *out = fopen(f->file, "w");

    assert_non_null(out);
    assert_int_equal(fwrite(content, 1, len, out), len);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(chmod(f->file, mode), 0);
}

static void expect_secret(const char *mailbox, const char *file, const char *expected)
{
    struct error err = ERROR_INIT;
    struct secret *s = secret_of_mailbox(mailbox, file, &err);

    if (s == NULL)
        fail_msg("%s", err.text);
    assert_string_equal(secret_text(s), expected);
    assert_int_equal(secret_length(s), strlen(expected));
    secret_free(s);
}

static void expect_failure(const char *mailbox, const char *file, enum error_kind kind,
                           const char *words)
{
    struct error err = ERROR_INIT;

    assert_null(secret_of_mailbox(mailbox, file, &err));
    assert_int_equal(err.kind, kind);
    if (strstr(err.text, words) == NULL)
        fail_msg("'%s' does not say '%s'", err.text, words);
}

static void line_ends_and_a_byte_order_mark_are_not_part_of_it(void **state)
{
    static const char *const contents[] = {"hunter2", "hunter2\n", "hunter2\r\n", "hunter2\n\n",
                                           "\xef\xbb\xbfhunter2\r\n"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        write_file(f, contents[i], strlen(contents[i]), 0600);
        expect_secret("office", f->file, "hunter2");
    }
}

static void a_second_line_is_refused(void **state)
{
    static const char *const contents[] = {"hunter2\nhunter3\n", "hunter2\r\n# of the printer",
                                           "\nhunter2\n"};
    struct fixture *f = *state;
    struct error err = ERROR_INIT;
    struct secret *s;

    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        write_file(f, contents[i], strlen(contents[i]), 0600);
        expect_failure("office", f->file, ERROR_INVALID, "it holds more than one line");
        assert_null(secret_line_from_file(f->file, &err));
    }
    s = secret_from_file(f->file, &err); /* a key in PEM form has many */
    assert_non_null(s);
    secret_free(s);
}

static void blanks_are_part_of_it(void **state)
{
    struct fixture *f = *state;

    write_file(f, " two words \n", 12, 0600);
    expect_secret("office", f->file, " two words ");
}

static void a_file_that_others_can_use_is_refused_with_the_command_that_mends_it(void **state)
{
    static const mode_t modes[] = {0604, 0602, 0601, 0644, 0666};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        write_file(f, "x", 1, modes[i]);
        expect_failure("office", f->file, ERROR_INVALID, "run: chmod o= /tmp/outtray-secret-");
    }
}

static void its_group_may_read_it(void **state)
{
    struct fixture *f = *state;

    write_file(f, "hunter2\n", 8, 0640);
    expect_secret("office", f->file, "hunter2");
}

static void a_file_of_somebody_else_is_refused(void **state)
{
    struct fixture *f = *state;

    if (geteuid() != 0)
        skip();
    write_file(f, "x", 1, 0600);
    assert_int_equal(chown(f->file, 12345, 0), 0);
    expect_failure("office", f->file, ERROR_INVALID, "belongs to user 12345");
}

static void a_file_that_a_foreign_group_can_use_is_refused(void **state)
{
    struct fixture *f = *state;

    if (geteuid() != 0)
        skip();
    write_file(f, "x", 1, 0640);
    assert_int_equal(chown(f->file, 12345, 23456), 0);
    assert_int_equal(chmod(f->directory, 0711), 0);
    assert_int_equal(seteuid(12345), 0);
    expect_failure("office", f->file, ERROR_INVALID, "its group 23456, which is not ours");
    assert_int_equal(seteuid(0), 0);
}

static void the_command_that_mends_it_names_the_group_of_whoever_reads(void **state)
{
    struct fixture *f = *state;
    const struct group *group = getgrgid(getegid());
    char command[64];

    if (group != NULL)
        (void)snprintf(command, sizeof command, "install -m 640 -g %s ", group->gr_name);
    else
        (void)snprintf(command, sizeof command, "install -m 640 -g %lu ", (unsigned long)getegid());
    expect_failure("office", f->file, ERROR_MISSING, command);
    if (geteuid() != 0)
        return;
    write_file(f, "x", 1, 0600);
    assert_int_equal(chmod(f->directory, 0711), 0);
    assert_int_equal(setegid(34567), 0);
    assert_int_equal(seteuid(12345), 0);
    expect_failure("office", f->file, ERROR_IO, "run: chown root:34567 /tmp/outtray-secret-");
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(setegid(0), 0);
}

static void what_cannot_be_a_password_is_refused(void **state)
{
    static char big[SECRET_MAX + 2];
    struct fixture *f = *state;

    write_file(f, "\r\n", 2, 0600);
    expect_failure("office", f->file, ERROR_INVALID, "is empty");
    write_file(f, "a\0b", 3, 0600);
    expect_failure("office", f->file, ERROR_INVALID, "NUL");
    memset(big, 'x', sizeof big);
    write_file(f, big, SECRET_MAX + 1, 0600);
    expect_failure("office", f->file, ERROR_LIMIT, "longer than 16384");
    big[SECRET_MAX] = '\n';
    write_file(f, big, SECRET_MAX + 1, 0600);
    big[SECRET_MAX] = '\0';
    expect_secret("office", f->file, big);
}

static void a_missing_file_and_a_directory_are_told_apart(void **state)
{
    struct fixture *f = *state;

    expect_failure("office", f->file, ERROR_MISSING,
                   "there is no such file; make it with: install");
    expect_failure("office", f->directory, ERROR_INVALID, "not a regular file");
}

static void a_pipe_in_its_place_does_not_block(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkfifo(f->file, 0600), 0);
    expect_failure("office", f->file, ERROR_INVALID, "not a regular file");
}

static void a_symbolic_link_is_judged_by_its_target(void **state)
{
    struct fixture *f = *state;
    char target[160];

    write_file(f, "hunter2\n", 8, 0600);
    (void)snprintf(target, sizeof target, "%s.target", f->file);
    assert_int_equal(rename(f->file, target), 0);
    assert_int_equal(symlink(target, f->file), 0);
    expect_secret("office", f->file, "hunter2");
    assert_int_equal(chmod(target, 0644), 0);
    expect_failure("office", f->file, ERROR_INVALID, "chmod");
    assert_int_equal(unlink(target), 0);
}

static void the_credential_comes_before_the_environment(void **state)
{
    struct fixture *f = *state;

    write_file(f, "from credential\n", 16, 0400);
    assert_int_equal(setenv("CREDENTIALS_DIRECTORY", f->directory, 1), 0);
    assert_int_equal(setenv("OUTTRAY_PASSWORD_OFFICE", "from environment", 1), 0);
    expect_secret("office", "", "from credential");
    assert_int_equal(unlink(f->file), 0);
    expect_secret("office", "", "from environment");
}

static void the_variable_is_the_name_in_capitals(void **state)
{
    (void)state;
    assert_int_equal(setenv("OUTTRAY_PASSWORD_2ND_FLOOR_A", "up there", 1), 0);
    expect_secret("2nd-floor.a", "", "up there");
}

static void a_named_file_is_the_only_place_looked_at(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(setenv("OUTTRAY_PASSWORD_OFFICE", "from environment", 1), 0);
    expect_failure("office", f->file, ERROR_MISSING, "no such file");
}

static void nothing_anywhere_tells_all_that_was_looked_for(void **state)
{
    (void)state;
    expect_failure("office", "", ERROR_MISSING, "password of mailbox office: there is none");
    expect_failure("office", "", ERROR_MISSING, "password_file");
    expect_failure("office", "", ERROR_MISSING, "credential office.password");
    expect_failure("office", "", ERROR_MISSING, "OUTTRAY_PASSWORD_OFFICE");
}

static void freeing_nothing_is_fine(void **state)
{
    (void)state;
    secret_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(line_ends_and_a_byte_order_mark_are_not_part_of_it),
        TEST(a_second_line_is_refused),
        TEST(blanks_are_part_of_it),
        TEST(a_file_that_others_can_use_is_refused_with_the_command_that_mends_it),
        TEST(its_group_may_read_it),
        TEST(a_file_of_somebody_else_is_refused),
        TEST(a_file_that_a_foreign_group_can_use_is_refused),
        TEST(the_command_that_mends_it_names_the_group_of_whoever_reads),
        TEST(what_cannot_be_a_password_is_refused),
        TEST(a_missing_file_and_a_directory_are_told_apart),
        TEST(a_pipe_in_its_place_does_not_block),
        TEST(a_symbolic_link_is_judged_by_its_target),
        TEST(the_credential_comes_before_the_environment),
        TEST(the_variable_is_the_name_in_capitals),
        TEST(a_named_file_is_the_only_place_looked_at),
        TEST(nothing_anywhere_tells_all_that_was_looked_for),
        TEST(freeing_nothing_is_fine),
    };

    return cmocka_run_group_tests_name("secret", tests, NULL, NULL);
}
