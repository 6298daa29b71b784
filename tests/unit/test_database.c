#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "relay/base/database.h"

#define FILE_MAX 128

struct fixture {
    char directory[64];
    char file[FILE_MAX];
};

static const char *const steps[] = {"CREATE TABLE things(name TEXT PRIMARY KEY, n INTEGER);",
                                    "ALTER TABLE things ADD COLUMN more TEXT;"
                                    "UPDATE things SET more = 'old';"};
static const char put[] = "REPLACE INTO things(name, n, more) VALUES(?1, ?2, ?3)";
static const char get[] = "SELECT name, n, more FROM things WHERE name = ?1";
static const char all[] = "SELECT name, n, more FROM things ORDER BY name";
static const char count[] = "SELECT count(*) FROM things";

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    strcpy(f->directory, "/tmp/outtray-database-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    snprintf(f->file, sizeof f->file, "%s/things.db", f->directory);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    char command[FILE_MAX];

    snprintf(command, sizeof command, "rm -rf %s", f->directory);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

static struct database *open_with(struct fixture *f, size_t step_count, bool expect_set_aside)
{
    struct error err = ERROR_INIT;
    bool aside = !expect_set_aside;
    struct database *d = database_open(f->file, steps, step_count, &aside, &err);

    if (d == NULL)
        fail_msg("%s", err.text);
    assert_int_equal(aside, expect_set_aside);
    return d;
}

static struct database *open_it(struct fixture *f)
{
    return open_with(f, 2, false);
}

static bool put_thing(struct database *d, const char *name, int64_t n, const char *more,
                      struct error *err)
{
    const struct database_value values[] = {
        DATABASE_T(name), DATABASE_N(n),
        more != NULL ? DATABASE_T(more) : (struct database_value){.kind = DATABASE_NULL}};

    return database_run(d, put, values, 3, NULL, NULL, err);
}

static void must_put(struct database *d, const char *name, int64_t n)
{
    struct error err = ERROR_INIT;

    if (!put_thing(d, name, n, "text", &err))
        fail_msg("%s", err.text);
}

static bool on_number(void *ctx, const struct database_value *columns, size_t n)
{
    assert_int_equal(n, 1);
    assert_int_equal(columns[0].kind, DATABASE_NUMBER);
    *(int64_t *)ctx = columns[0].number;
    return true;
}

static int64_t number_of_things(struct database *d)
{
    struct error err = ERROR_INIT;
    int64_t n = -1;

    if (!database_run(d, count, NULL, 0, on_number, &n, &err))
        fail_msg("%s", err.text);
    return n;
}

static bool exists(const struct fixture *f, const char *suffix)
{
    char path[FILE_MAX + 32];

    snprintf(path, sizeof path, "%s%s", f->file, suffix);
    return access(path, F_OK) == 0;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static bool check_values(void *ctx, const struct database_value *columns, size_t n)
{
    assert_int_equal(n, 3);
    assert_string_equal(columns[0].text, "it's \xc3\xa9");
    assert_int_equal(columns[1].number, INT64_MIN);
    assert_int_equal(columns[2].kind, DATABASE_NULL);
    ++*(int *)ctx;
    return true;
}

static void values_come_back_as_they_went(void **state)
{
    struct fixture *f = *state;
    struct error err = ERROR_INIT;
    struct database *d = open_it(f);
    const struct database_value name = DATABASE_T("it's \xc3\xa9");
    struct stat st;
    int rows = 0;

    assert_true(put_thing(d, name.text, INT64_MIN, NULL, &err));
    assert_false(database_close(d));
    d = open_it(f);
    assert_true(database_run(d, get, &name, 1, check_values, &rows, &err));
    assert_int_equal(rows, 1);
    assert_int_equal(stat(f->file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    (void)database_close(d);
}

static bool stop_at_second(void *ctx, const struct database_value *columns, size_t n)
{
    (void)columns;
    (void)n;
    return ++*(int *)ctx < 2;
}

static void a_callback_may_stop_and_the_statement_runs_again(void **state)
{
    struct database *d = open_it(*state);
    struct error err = ERROR_INIT;
    int rows = 0;

    for (int i = 0; i < 5; i++)
        must_put(d, (const char[]){(char)('a' + i), '\0'}, i);
    assert_true(database_run(d, all, NULL, 0, stop_at_second, &rows, &err));
    assert_int_equal(rows, 2);
    rows = -100;
    assert_true(database_run(d, all, NULL, 0, stop_at_second, &rows, &err));
    assert_int_equal(rows, -95);
    (void)database_close(d);
}

static void steps_that_are_behind_are_run_once(void **state)
{
    struct fixture *f = *state;
    struct error err = ERROR_INIT;
    struct database *d = open_with(f, 1, false);
    static const char old_put[] = "INSERT INTO things(name, n) VALUES('a', 1)";
    int rows = 0;

    assert_true(database_run(d, old_put, NULL, 0, NULL, NULL, &err));
    (void)database_close(d);
    for (int i = 0; i < 2; i++) {
        d = open_with(f, 2, false);
        assert_true(database_run(d, all, NULL, 0, stop_at_second, &rows, &err));
        (void)database_close(d);
    }
    assert_int_equal(rows, 2);
}

static void a_file_of_a_newer_program_is_left_alone(void **state)
{
    struct fixture *f = *state;
    struct error err = ERROR_INIT;
    bool aside = true;
    struct database *d = open_it(f);

    must_put(d, "kept", 1);
    (void)database_close(d);
    assert_null(database_open(f->file, steps, 1, &aside, &err));
    assert_int_equal(err.kind, ERROR_INVALID);
    assert_non_null(strstr(err.text, "newer"));
    assert_false(aside);
    d = open_it(f);
    assert_int_equal(number_of_things(d), 1);
    (void)database_close(d);
}

static void what_is_no_database_is_set_aside(void **state)
{
    struct fixture *f = *state;
    char damaged[FILE_MAX + 32];

    snprintf(damaged, sizeof damaged, "%s.damaged-wal", f->file);
    write_file(damaged, "of an older one that was set aside");
    write_file(f->file, "This is no database, but it is long enough to be taken for one at first, "
                        "for a header has a hundred octets. It goes on for some more of them.");
    struct database *d = open_with(f, 2, true);
    must_put(d, "new", 1);
    (void)database_close(d);
    assert_true(exists(f, ".damaged"));
    assert_false(exists(f, ".damaged-wal"));
    d = open_it(f);
    assert_int_equal(number_of_things(d), 1);
    (void)database_close(d);
}

static void tables_of_somebody_else_are_set_aside(void **state)
{
    struct fixture *f = *state;
    static const char *const others[] = {"CREATE TABLE things(other TEXT)"};
    struct error err = ERROR_INIT;
    bool aside;
    struct database *d = database_open(f->file, others, 1, &aside, &err);
    static const char reset[] = "PRAGMA user_version = 0";

    assert_non_null(d);
    assert_true(database_run(d, reset, NULL, 0, NULL, NULL, &err));
    (void)database_close(d);
    d = open_with(f, 2, true);
    assert_int_equal(number_of_things(d), 0);
    (void)database_close(d);
}

/* Writes over all pages but the first, which holds the tables' names. */
static void damage_pages(const struct fixture *f)
{
    char rubbish[4096];
    struct stat st;
    int fd = open(f->file, O_WRONLY);

    memset(rubbish, 0xa5, sizeof rubbish);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_size > 4096);
    for (off_t at = 4096; at < st.st_size; at += 4096)
        assert_int_equal(pwrite(fd, rubbish, sizeof rubbish, at), sizeof rubbish);
    (void)close(fd);
}

static void damage_that_is_found_later_is_told_and_set_aside_by_closing(void **state)
{
    struct fixture *f = *state;
    struct error err = ERROR_INIT;
    struct database *d = open_it(f);
    int rows = 0;

    must_put(d, "a", 1);
    assert_false(database_close(d));
    damage_pages(f);
    d = open_it(f);
    assert_false(database_run(d, all, NULL, 0, stop_at_second, &rows, &err));
    assert_int_equal(err.kind, ERROR_DAMAGED);
    assert_true(database_close(d));
    assert_true(exists(f, ".damaged"));
    assert_false(exists(f, ""));
    d = open_it(f);
    assert_int_equal(number_of_things(d), 0);
    (void)database_close(d);
}

static void what_cannot_be_opened_is_an_error_and_nothing_is_touched(void **state)
{
    struct fixture *f = *state;
    struct error err = ERROR_INIT;
    bool aside = true;

    assert_null(database_open("/nonexistent/things.db", steps, 2, &aside, &err));
    assert_int_equal(err.kind, ERROR_IO);
    assert_non_null(strstr(err.text, "/nonexistent/things.db"));
    assert_false(aside);
    assert_int_equal(mkdir(f->file, 0700), 0);
    assert_null(database_open(f->file, steps, 2, &aside, &err));
    assert_false(aside);
    assert_true(exists(f, ""));
}

static void rolling_back_undoes_everything_of_the_transaction(void **state)
{
    struct database *d = open_it(*state);
    struct error err = ERROR_INIT;

    must_put(d, "before", 1);
    assert_true(database_begin(d, &err));
    must_put(d, "a", 1);
    must_put(d, "b", 1);
    database_rollback(d);
    assert_int_equal(number_of_things(d), 1);
    database_rollback(d); /* without one: nothing */
    assert_true(database_begin(d, &err));
    must_put(d, "a", 1);
    assert_true(database_commit(d, &err));
    assert_int_equal(number_of_things(d), 2);
    (void)database_close(d);
}

static void what_was_committed_survives_the_program(void **state)
{
    struct fixture *f = *state;
    pid_t child = fork();

    if (child == 0) {
        struct error err = ERROR_INIT;
        bool aside;
        struct database *d = database_open(f->file, steps, 2, &aside, &err);
        bool ok = d != NULL && database_begin(d, &err) && put_thing(d, "a", 1, "", &err) &&
                  database_commit(d, &err) && database_begin(d, &err) &&
                  put_thing(d, "b", 2, "", &err);
        (void)raise(ok ? SIGKILL : SIGTERM);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
    struct database *d = open_it(f);
    assert_int_equal(number_of_things(d), 1);
    (void)database_close(d);
}

static void limit_files(rlim_t octets)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = octets == 0 ? limit.rlim_max : octets;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void a_disk_without_room_is_an_error_that_passes(void **state)
{
    struct database *d = open_it(*state);
    struct error err = ERROR_INIT;
    static char large[100000];

    memset(large, 'x', sizeof large - 1);
    must_put(d, "before", 1);
    (void)signal(SIGXFSZ, SIG_IGN);
    limit_files(65536);
    bool ok = database_begin(d, &err) && put_thing(d, "large", 1, large, &err) &&
              database_commit(d, &err);
    database_rollback(d);
    limit_files(0);
    assert_false(ok);
    assert_true(err.kind == ERROR_NO_ROOM || err.kind == ERROR_IO);
    assert_int_equal(number_of_things(d), 1);
    error_clear(&err);
    assert_true(database_begin(d, &err));
    assert_true(put_thing(d, "large", 1, large, &err));
    assert_true(database_commit(d, &err));
    assert_int_equal(number_of_things(d), 2);
    assert_false(database_close(d));
}

static void more_statements_than_are_kept_are_served(void **state)
{
    struct database *d = open_it(*state);
    struct error err = ERROR_INIT;
    static char texts[DATABASE_STATEMENTS_MAX * 2][64];

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < DATABASE_STATEMENTS_MAX * 2; i++) {
            int64_t n = -1;
            snprintf(texts[i], sizeof texts[i], "SELECT %d", i);
            assert_true(database_run(d, texts[i], NULL, 0, on_number, &n, &err));
            assert_int_equal(n, i);
        }
    }
    assert_false(database_run(d, "SELECT nonsense FROM nowhere", NULL, 0, NULL, NULL, &err));
    assert_int_equal(err.kind, ERROR_IO);
    (void)database_close(d);
}

static void after_a_rest_it_works_as_before(void **state)
{
    struct database *d = open_it(*state);

    for (int i = 0; i < 3; i++) {
        must_put(d, (const char[]){(char)('a' + i), '\0'}, i);
        database_rest(d);
    }
    assert_int_equal(number_of_things(d), 3);
    (void)database_close(d);
    database_rest(NULL);
    assert_false(database_close(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(values_come_back_as_they_went),
        TEST(a_callback_may_stop_and_the_statement_runs_again),
        TEST(steps_that_are_behind_are_run_once),
        TEST(a_file_of_a_newer_program_is_left_alone),
        TEST(what_is_no_database_is_set_aside),
        TEST(tables_of_somebody_else_are_set_aside),
        TEST(damage_that_is_found_later_is_told_and_set_aside_by_closing),
        TEST(what_cannot_be_opened_is_an_error_and_nothing_is_touched),
        TEST(rolling_back_undoes_everything_of_the_transaction),
        TEST(what_was_committed_survives_the_program),
        TEST(a_disk_without_room_is_an_error_that_passes),
        TEST(more_statements_than_are_kept_are_served),
        TEST(after_a_rest_it_works_as_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
