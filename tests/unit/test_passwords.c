#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "relay/signin/passwords.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static char directory[] = "/tmp/outtray-passwords-XXXXXX";
static char file[64];

static void write_file(const char *text, mode_t mode)
{
    FILE *f = fopen(file, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(file, mode), 0);
}

static char *read_file(char *out, size_t size)
{
    FILE *f = fopen(file, "r");
    size_t len;

    assert_non_null(f);
    len = fread(out, 1, size - 1, f);
    out[len] = '\0';
    assert_int_equal(fclose(f), 0);
    return out;
}

static enum passwords_result check(const char *device, const char *password)
{
    struct error err = ERROR_INIT;
    enum passwords_result result = passwords_check(file, device, password, &err);

    if (result != PASSWORDS_FAILED)
        assert_string_equal(err.text, "");
    return result;
}

static void set(const char *device, const char *password)
{
    struct error err = ERROR_INIT;

    if (!passwords_set(file, device, password, getegid(), &err))
        fail_msg("%s", err.text);
}

static void a_password_that_was_set_is_right_and_others_are_wrong(void **state)
{
    (void)state;
    set("copier", "k7mpx3w9qd");
    assert_int_equal(check("copier", "k7mpx3w9qd"), PASSWORDS_RIGHT);
    assert_int_equal(check("copier", "k7mpx3w9qe"), PASSWORDS_WRONG);
    assert_int_equal(check("copier", "k7mpx3w9q"), PASSWORDS_WRONG);
    assert_int_equal(check("copier", ""), PASSWORDS_WRONG);
    assert_int_equal(check("camera", "k7mpx3w9qd"), PASSWORDS_NONE);
    assert_int_equal(check("", ""), PASSWORDS_NONE);
    assert_int_equal(check("copi", "er:"), PASSWORDS_NONE);
}

static void without_a_file_nobody_has_a_password(void **state)
{
    (void)state;
    assert_int_equal(check("copier", "x"), PASSWORDS_NONE);
}

static void only_a_hash_is_kept_for_nobody_but_the_group(void **state)
{
    char text[1024];
    struct stat st;

    (void)state;
    set("copier", "k7mpx3w9qd");
    (void)read_file(text, sizeof(text));
    assert_int_equal(strncmp(text, "copier:$y$", 10), 0);
    assert_null(strstr(text, "k7mpx3w9qd"));
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
}

static void two_devices_with_one_password_do_not_look_so(void **state)
{
    char text[1024];
    const char *first;
    const char *second;

    (void)state;
    set("a", "k7mpx3w9qd");
    set("b", "k7mpx3w9qd");
    first = strchr(read_file(text, sizeof(text)), ':');
    second = strchr(first + 1, ':');
    assert_non_null(second);
    assert_int_not_equal(strncmp(first, second, 40), 0);
}

static void a_new_password_replaces_the_old_one_and_nothing_else(void **state)
{
    char text[1024];

    (void)state;
    write_file("# devices\n\ncopier2:x\ncopier:$y$old\r\n camera:y", 0640);
    set("copier", "k7mpx3w9qd");
    (void)read_file(text, sizeof(text));
    assert_int_equal(strncmp(text, "# devices\n\ncopier2:x\ncopier:$y$j8T$", 35), 0);
    assert_non_null(strstr(text, "\n camera:y"));
    assert_null(strstr(text, "old"));
    set("new", "k7mpx3w9qd");
    assert_non_null(strstr(read_file(text, sizeof(text)), "\n camera:y\nnew:$y$j8T$"));
    assert_int_equal(check("copier", "k7mpx3w9qd"), PASSWORDS_RIGHT);
    assert_int_equal(check("new", "k7mpx3w9qd"), PASSWORDS_RIGHT);
}

static void what_a_run_that_was_cut_off_left_behind_is_in_nobodys_way(void **state)
{
    char fresh[sizeof(file) + 4];
    FILE *f;

    (void)state;
    snprintf(fresh, sizeof(fresh), "%s.new", file);
    f = fopen(fresh, "w");
    assert_non_null(f);
    assert_int_equal(fclose(f), 0);
    set("copier", "k7mpx3w9qd");
    assert_int_equal(access(fresh, F_OK), -1);
    assert_int_equal(check("copier", "k7mpx3w9qd"), PASSWORDS_RIGHT);
}

static void a_file_that_others_can_use_is_not_used(void **state)
{
    struct error err = ERROR_INIT;

    (void)state;
    write_file("copier:$y$\n", 0644);
    assert_int_equal(passwords_check(file, "copier", "x", &err), PASSWORDS_FAILED);
    assert_non_null(strstr(err.text, "chmod o= "));
    assert_false(passwords_set(file, "copier", "k7mpx3w9qd", getegid(), &err));
}

static void a_line_that_is_no_hash_is_told(void **state)
{
    static const char *const lines[] = {"copier:k7mpx3w9qd\n", "copier:*\n", "copier:$y$\n"};

    (void)state;
    for (size_t i = 0; i < COUNT(lines); i++) {
        struct error err = ERROR_INIT;

        write_file(lines[i], 0600);
        assert_int_equal(passwords_check(file, "copier", "k7mpx3w9qd", &err), PASSWORDS_FAILED);
        assert_non_null(strstr(err.text, "the line of copier"));
        assert_null(strstr(err.text, "k7mpx3w9qd"));
    }
    write_file("copier:\n", 0600);
    assert_int_equal(check("copier", ""), PASSWORDS_NONE);
}

/* Hashes of other programs: crypt(3) knows them all. */
static void other_hashes_can_be_brought_along(void **state)
{
    (void)state;
    write_file("copier:$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/"
               "O817G3uBnIFNjnQJuesI68u4OTLiBFdcbY"
               "EdFCoEOfaS35inz1\n",
               0600);
    assert_int_equal(check("copier", "Hello world!"), PASSWORDS_RIGHT);
    assert_int_equal(check("copier", "Hello world"), PASSWORDS_WRONG);
}

static void what_we_make_is_easy_to_type_and_never_the_same(void **state)
{
    char before[PASSWORDS_LENGTH + 1] = "";

    (void)state;
    for (size_t i = 0; i < 200; i++) {
        char password[PASSWORDS_LENGTH + 1];
        struct error err = ERROR_INIT;

        assert_true(passwords_make(password, &err));
        assert_int_equal(strlen(password), PASSWORDS_LENGTH);
        assert_int_equal(strspn(password, "abcdefghjkmnpqrstuvwxyz23456789"), PASSWORDS_LENGTH);
        assert_true(passwords_is_fit(password, &err));
        assert_string_not_equal(password, before);
        memcpy(before, password, sizeof(before));
    }
}

static void what_a_person_chooses_must_be_typeable(void **state)
{
    static const struct {
        const char *password;
        bool fit;
    } rows[] = {{"", false},
                {"12345", false},
                {"123456", true},
                {"two words!", true},
                {"gr\xc3\xbc\xc3\x9f"
                 "e123",
                 false},
                {"tab\tbed7", false},
                {"1234567890123456789012345678901234567890123456789012345678901234", true},
                {"12345678901234567890123456789012345678901234567890123456789012345", false}};

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct error err = ERROR_INIT;

        assert_int_equal(passwords_is_fit(rows[i].password, &err), rows[i].fit);
        assert_int_equal(err.text[0] == '\0', rows[i].fit);
    }
}

static void a_directory_that_is_not_there_is_told(void **state)
{
    struct error err = ERROR_INIT;

    (void)state;
    assert_false(passwords_set("/nonexistent/passwords", "a", "k7mpx3w9qd", 0, &err));
    assert_non_null(strstr(err.text, "/nonexistent"));
}

static int make_directory(void **state)
{
    (void)state;
    if (mkdtemp(directory) == NULL)
        return 1;
    snprintf(file, sizeof(file), "%s/passwords", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    (void)unlink(file);
    return rmdir(directory);
}

static int remove_file(void **state)
{
    (void)state;
    (void)unlink(file);
    return 0;
}

#define TEST(f) cmocka_unit_test_teardown(f, remove_file)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_password_that_was_set_is_right_and_others_are_wrong),
        TEST(without_a_file_nobody_has_a_password),
        TEST(only_a_hash_is_kept_for_nobody_but_the_group),
        TEST(two_devices_with_one_password_do_not_look_so),
        TEST(a_new_password_replaces_the_old_one_and_nothing_else),
        TEST(what_a_run_that_was_cut_off_left_behind_is_in_nobodys_way),
        TEST(a_file_that_others_can_use_is_not_used),
        TEST(a_line_that_is_no_hash_is_told),
        TEST(other_hashes_can_be_brought_along),
        TEST(what_we_make_is_easy_to_type_and_never_the_same),
        TEST(what_a_person_chooses_must_be_typeable),
        TEST(a_directory_that_is_not_there_is_told),
    };

    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
