#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "queue/error.h"

static void set_keeps_kind_and_text_and_returns_false(void **state)
{
    struct error err = ERROR_INIT;

    (void)state;
    err.errnum = 7;
    assert_false(error_set(&err, ERROR_DAMAGED, "record %d of %s", 3, "a.seg"));
    assert_int_equal(err.kind, ERROR_DAMAGED);
    assert_int_equal(err.errnum, 0);
    assert_string_equal(err.text, "record 3 of a.seg");
}

static void errno_is_named_behind_the_text(void **state)
{
    struct error err = ERROR_INIT;
    char expected[ERROR_TEXT_MAX] = "sync a.seg: ";

    (void)state;
    strcat(expected, strerror(EIO));
    assert_false(error_errno(&err, EIO, "sync %s", "a.seg"));
    assert_int_equal(err.kind, ERROR_IO);
    assert_int_equal(err.errnum, EIO);
    assert_string_equal(err.text, expected);
}

static void errno_that_may_pass_by_itself_is_no_room(void **state)
{
    static const struct {
        int errnum;
        enum error_kind kind;
    } rows[] = {
        {ENOSPC, ERROR_NO_ROOM}, {EDQUOT, ERROR_NO_ROOM}, {EMFILE, ERROR_NO_ROOM},
        {ENFILE, ERROR_NO_ROOM}, {ENOMEM, ERROR_NO_ROOM}, {EIO, ERROR_IO},
        {EACCES, ERROR_IO},      {ENOENT, ERROR_IO},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct error err = ERROR_INIT;

        error_errno(&err, rows[i].errnum, "x");
        assert_int_equal(err.kind, rows[i].kind);
    }
}

static void wrap_reads_from_the_outside_in(void **state)
{
    struct error err = ERROR_INIT;

    (void)state;
    error_set(&err, ERROR_IO, "sync a.seg");
    assert_false(error_wrap(&err, "commit %x", 0x4f2a));
    assert_string_equal(err.text, "commit 4f2a: sync a.seg");
    assert_int_equal(err.kind, ERROR_IO);
}

static void arguments_may_point_into_the_error_itself(void **state)
{
    struct error err = ERROR_INIT;

    (void)state;
    error_set(&err, ERROR_IO, "inner");
    error_set(&err, ERROR_BUSY, "again %s", err.text);
    assert_string_equal(err.text, "again inner");
    error_wrap(&err, "<%s>", err.text);
    assert_string_equal(err.text, "<again inner>: again inner");
}

static void long_texts_are_cut_and_terminated(void **state)
{
    struct error err = ERROR_INIT;
    char longer[ERROR_TEXT_MAX * 2];

    (void)state;
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    error_set(&err, ERROR_IO, "%s", longer);
    assert_int_equal(strlen(err.text), ERROR_TEXT_MAX - 1);
    error_errno(&err, EIO, "%s", longer);
    assert_int_equal(strlen(err.text), ERROR_TEXT_MAX - 1);
    error_wrap(&err, "outer");
    assert_int_equal(strlen(err.text), ERROR_TEXT_MAX - 1);
    assert_memory_equal(err.text, "outer: xxx", 10);
}

static void null_error_is_accepted(void **state)
{
    (void)state;
    assert_false(error_set(NULL, ERROR_IO, "x"));
    assert_false(error_errno(NULL, EIO, "x"));
    assert_false(error_wrap(NULL, "x"));
    error_clear(NULL);
}

static void clear_forgets_everything(void **state)
{
    struct error err = ERROR_INIT;

    (void)state;
    error_errno(&err, EIO, "x");
    error_clear(&err);
    assert_int_equal(err.kind, ERROR_NONE);
    assert_int_equal(err.errnum, 0);
    assert_string_equal(err.text, "");
}

static void every_kind_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(error_kind_name(ERROR_NONE), "none");
    assert_string_equal(error_kind_name(ERROR_IO), "io");
    assert_string_equal(error_kind_name(ERROR_NO_ROOM), "no_room");
    assert_string_equal(error_kind_name(ERROR_DAMAGED), "damaged");
    assert_string_equal(error_kind_name(ERROR_BUSY), "busy");
    assert_string_equal(error_kind_name(ERROR_MISSING), "missing");
    assert_string_equal(error_kind_name(ERROR_INVALID), "invalid");
    assert_string_equal(error_kind_name(ERROR_LIMIT), "limit");
    assert_string_equal(error_kind_name((enum error_kind)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_keeps_kind_and_text_and_returns_false),
        cmocka_unit_test(errno_is_named_behind_the_text),
        cmocka_unit_test(errno_that_may_pass_by_itself_is_no_room),
        cmocka_unit_test(wrap_reads_from_the_outside_in),
        cmocka_unit_test(arguments_may_point_into_the_error_itself),
        cmocka_unit_test(long_texts_are_cut_and_terminated),
        cmocka_unit_test(null_error_is_accepted),
        cmocka_unit_test(clear_forgets_everything),
        cmocka_unit_test(every_kind_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
