#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "relay/signin/token_store.h"
#include "tests/unit/fault_fileops.h"
#include "tests/unit/inline_executor.h"

#define KEY_A "0123456789abcdef0123456789abcdef"
#define KEY_B "fedcba9876543210fedcba9876543210"

struct fixture {
    char directory[64];
    char file[96];
    struct inline_executor executor;
    struct fault fault;
    struct token_store *store;
    enum token_store_found found;
    struct error err;
    unsigned stored;
    unsigned failed;
};

static const struct token_record record_a = {.access = "access-a",
                                             .ends_s = 5000,
                                             .life_s = 3600,
                                             .refresh = "refresh-a",
                                             .login_s = 100,
                                             .used_s = 200};
static const struct token_record record_b = {.access = "access-b", .refresh = ""};

static void on_stored(void *ctx, const struct error *err)
{
    struct fixture *f = ctx;

    if (err == NULL)
        f->stored++;
    else
        f->failed++;
}

static void open_store(struct fixture *f)
{
    const struct token_store_options o = {.directory = f->directory,
                                          .executor = inline_executor(&f->executor),
                                          .ops = &f->fault.ops,
                                          .wall_s = 1000};

    f->store = token_store_open(&o, &f->found, &f->err);
}

static void close_store(struct fixture *f)
{
    inline_executor_run(&f->executor);
    token_store_close(f->store);
    f->store = NULL;
}

static void reopen(struct fixture *f)
{
    close_store(f);
    fault_set(&f->fault, FAULT_FAIL, 0, 0, 0);
    open_store(f);
}

static void put(struct fixture *f, const char *name, const struct token_record *r, bool signed_in)
{
    assert_true(token_store_put(f->store, name, r, signed_in, on_stored, f));
}

static void set_key(struct fixture *f, const char *key)
{
    char path[128];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/" TOKEN_STORE_CREDENTIAL, f->directory);
    (void)unlink(path);
    unsetenv("CREDENTIALS_DIRECTORY");
    if (key == NULL)
        return;
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0400);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, key, strlen(key)), (ssize_t)strlen(key));
    close(fd);
    setenv("CREDENTIALS_DIRECTORY", f->directory, 1);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    (void)snprintf(f->directory, sizeof(f->directory), "/tmp/outtray-tokens-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    (void)snprintf(f->file, sizeof(f->file), "%s/" TOKEN_STORE_FILE, f->directory);
    inline_executor_init(&f->executor, false);
    fault_init(&f->fault);
    open_store(f);
    assert_non_null(f->store);
    assert_int_equal(f->found, TOKEN_STORE_NONE);
    *state = f;
    return 0;
}

static unsigned each_file(const struct fixture *f, const char *start, bool remove_it)
{
    DIR *dir = opendir(f->directory);
    const struct dirent *e;
    unsigned count = 0;
    char path[512];

    while ((e = readdir(dir)) != NULL) {
        if (e->d_name[0] == '.' || strncmp(e->d_name, start, strlen(start)) != 0)
            continue;
        count++;
        (void)snprintf(path, sizeof(path), "%s/%s", f->directory, e->d_name);
        if (remove_it)
            (void)unlink(path);
    }
    closedir(dir);
    return count;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    close_store(f);
    unsetenv("CREDENTIALS_DIRECTORY");
    (void)each_file(f, "", true);
    rmdir(f->directory);
    free(f);
    return 0;
}

static size_t read_file(const struct fixture *f, char *out, size_t size)
{
    int fd = open(f->file, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, out, size) : 0;

    assert_true(fd >= 0 && n >= 0);
    close(fd);
    return (size_t)n;
}

static void assert_has(const struct fixture *f, const char *name, const struct token_record *r)
{
    struct token_record got;

    assert_true(token_store_find(f->store, name, &got));
    assert_string_equal(got.access, r->access);
    assert_string_equal(got.refresh, r->refresh);
    assert_int_equal(got.ends_s, r->ends_s);
    assert_int_equal(got.life_s, r->life_s);
    assert_int_equal(got.login_s, r->login_s);
    assert_int_equal(got.used_s, r->used_s);
}

static void what_was_put_is_there_after_a_restart(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    struct token_record got;

    put(f, "a", &record_a, false);
    put(f, "b\nwith lines", &record_b, false);
    inline_executor_run(&f->executor);
    assert_int_equal(f->stored, 2);
    assert_int_equal(stat(f->file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    reopen(f);
    assert_int_equal(f->found, TOKEN_STORE_READ);
    assert_has(f, "a", &record_a);
    assert_has(f, "b\nwith lines", &record_b);
    assert_false(token_store_find(f->store, "c", &got));
    put(f, "a", &record_b, false);
    put(f, "b\nwith lines", NULL, false);
    reopen(f);
    assert_has(f, "a", &record_b);
    assert_false(token_store_find(f->store, "b\nwith lines", &got));
}

static void puts_that_come_together_share_a_write_and_none_is_told_early(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 10; i++)
        put(f, "a", &record_a, false);
    assert_int_equal(f->stored, 0);
    inline_executor_run(&f->executor);
    assert_int_equal(f->stored, 10);
    assert_int_equal(f->executor.submitted, 2);
}

/* Whatever call is the last one, what was told as stored is there; else the old content is. */
static void a_crash_at_any_call_leaves_the_old_or_the_new_file(void **state)
{
    struct fixture *f = *state;
    bool more = true;

    put(f, "a", &record_a, false);
    inline_executor_run(&f->executor);
    for (uint64_t at = 1; more; at++) {
        struct token_record got;

        f->stored = 0;
        fault_set(&f->fault, at % 2 == 0 ? FAULT_STOP : FAULT_TEAR, FAULT_CHANGE, (at + 1) / 2,
                  EIO);
        put(f, "a", &record_b, false);
        inline_executor_run(&f->executor);
        more = f->fault.stopped;
        reopen(f);
        assert_int_equal(f->found, TOKEN_STORE_READ);
        assert_true(token_store_find(f->store, "a", &got));
        if (f->stored > 0)
            assert_string_equal(got.access, "access-b");
        put(f, "a", &record_a, false);
        inline_executor_run(&f->executor);
    }
}

static void a_failed_write_is_told_and_the_next_one_mends_it(void **state)
{
    struct fixture *f = *state;

    for (uint64_t at = 1; at <= 4; at++) {
        static const unsigned kinds[] = {FAULT_WRITE, FAULT_SYNC, FAULT_RENAME, FAULT_DIRECTORY};

        f->stored = f->failed = 0;
        fault_set(&f->fault, FAULT_FAIL, kinds[at - 1], 1, ENOSPC);
        put(f, "a", &record_a, false);
        inline_executor_run(&f->executor);
        assert_int_equal(f->failed, 1);
        assert_int_equal(f->stored, 0);
        put(f, "a", &record_a, false);
        inline_executor_run(&f->executor);
        assert_int_equal(f->stored, 1);
    }
    reopen(f);
    assert_has(f, "a", &record_a);
}

static void damage_is_set_aside_wherever_it_is(void **state)
{
    struct fixture *f = *state;
    char content[4096];
    size_t len;

    for (int sealed = 0; sealed < 2; sealed++) {
        set_key(f, sealed ? KEY_A : NULL);
        reopen(f);
        put(f, "a", &record_a, true);
        inline_executor_run(&f->executor);
        len = read_file(f, content, sizeof(content));
        for (size_t at = 0; at < len; at++) {
            int fd = open(f->file, O_WRONLY | O_CREAT | O_TRUNC, 0600);

            content[at] = (char)(content[at] ^ 0x20);
            assert_int_equal(write(fd, content, len), (ssize_t)len);
            content[at] = (char)(content[at] ^ 0x20);
            close(fd);
            reopen(f);
            assert_non_null(f->store);
            assert_true(f->found == TOKEN_STORE_DAMAGED || f->found == TOKEN_STORE_LOCKED);
            if (f->found == TOKEN_STORE_DAMAGED) {
                assert_non_null(strstr(f->err.text, "set aside as"));
                assert_int_equal(each_file(f, TOKEN_STORE_FILE ".aside", true), 1);
            }
            error_clear(&f->err);
        }
        (void)unlink(f->file);
    }
    for (size_t cut = 0; cut < len; cut++) {
        int fd = open(f->file, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        assert_int_equal(write(fd, content, cut), (ssize_t)cut);
        close(fd);
        reopen(f);
        assert_int_equal(f->found, TOKEN_STORE_DAMAGED);
        (void)each_file(f, TOKEN_STORE_FILE ".aside", true);
    }
}

static void with_a_key_nothing_can_be_read_off_the_disk(void **state)
{
    struct fixture *f = *state;
    char content[4096];
    size_t len;

    put(f, "a", &record_a, false);
    inline_executor_run(&f->executor);
    len = read_file(f, content, sizeof(content));
    assert_non_null(memmem(content, len, "refresh-a", 9));
    set_key(f, KEY_A);
    reopen(f);
    assert_int_equal(f->found, TOKEN_STORE_READ); /* an earlier file is taken over */
    assert_true(token_store_is_sealed(f->store));
    assert_has(f, "a", &record_a);
    put(f, "b", &record_b, false);
    inline_executor_run(&f->executor);
    len = read_file(f, content, sizeof(content));
    assert_null(memmem(content, len, "refresh-a", 9));
    assert_null(memmem(content, len, "access", 6));
    reopen(f);
    assert_has(f, "a", &record_a);
    assert_has(f, "b", &record_b);
}

static void without_its_key_a_file_is_left_alone_until_a_person_signs_in(void **state)
{
    static const char *const keys[] = {NULL, KEY_B};
    struct fixture *f = *state;
    struct token_record got;

    set_key(f, KEY_A);
    reopen(f);
    put(f, "a", &record_a, false);
    inline_executor_run(&f->executor);
    for (size_t i = 0; i < 2; i++) {
        f->stored = f->failed = 0;
        set_key(f, keys[i]);
        reopen(f);
        assert_int_equal(f->found, TOKEN_STORE_LOCKED);
        assert_non_null(strstr(f->err.text, TOKEN_STORE_CREDENTIAL));
        assert_false(token_store_find(f->store, "a", &got));
        put(f, "b", &record_b, false);
        inline_executor_run(&f->executor);
        assert_int_equal(f->failed, 1);
        set_key(f, KEY_A);
        reopen(f);
        assert_int_equal(f->found, TOKEN_STORE_READ); /* nothing was lost */
        assert_has(f, "a", &record_a);
    }
    set_key(f, KEY_B);
    reopen(f);
    put(f, "b", &record_b, true);
    inline_executor_run(&f->executor);
    assert_int_equal(f->stored, 1);
    assert_int_equal(each_file(f, TOKEN_STORE_FILE ".aside", false), 1);
    reopen(f);
    assert_int_equal(f->found, TOKEN_STORE_READ);
    assert_has(f, "b", &record_b);
}

static void a_short_key_is_refused(void **state)
{
    struct fixture *f = *state;
    struct error err = ERROR_INIT;
    enum token_store_found found;
    const struct token_store_options o = {.directory = f->directory,
                                          .executor = inline_executor(&f->executor)};

    set_key(f, "short");
    assert_null(token_store_open(&o, &found, &err));
    assert_non_null(strstr(err.text, "openssl rand -hex 32"));
}

static void a_file_that_others_can_use_is_not_trusted(void **state)
{
    struct fixture *f = *state;

    put(f, "a", &record_a, false);
    inline_executor_run(&f->executor);
    assert_int_equal(chmod(f->file, 0640), 0);
    reopen(f);
    assert_int_equal(f->found, TOKEN_STORE_LOCKED);
    assert_non_null(strstr(f->err.text, "chmod 600"));
    assert_int_equal(chmod(f->file, 0600), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(f->file, 12345, 12345), 0);
        reopen(f);
        assert_int_equal(f->found, TOKEN_STORE_LOCKED);
        assert_non_null(strstr(f->err.text, "chown"));
        assert_int_equal(chown(f->file, 0, 0), 0);
    }
    reopen(f);
    assert_int_equal(f->found, TOKEN_STORE_READ);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_put_is_there_after_a_restart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            puts_that_come_together_share_a_write_and_none_is_told_early, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_crash_at_any_call_leaves_the_old_or_the_new_file, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_failed_write_is_told_and_the_next_one_mends_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(damage_is_set_aside_wherever_it_is, set_up, tear_down),
        cmocka_unit_test_setup_teardown(with_a_key_nothing_can_be_read_off_the_disk, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            without_its_key_a_file_is_left_alone_until_a_person_signs_in, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_short_key_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_others_can_use_is_not_trusted, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
