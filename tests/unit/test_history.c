#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "relay/admin/history.h"
#include "relay/submit/replies.h"
#include "tests/unit/inline_executor.h"

#define NOW  UINT64_C(10000000)
#define HOUR UINT64_C(3600000)

struct fixture {
    char directory[64];
    char file[96];
    struct inline_executor inline_;
    struct executor executor;
    struct replies *replies;
    struct history *h;
};

static void reopen(struct fixture *f, uint64_t close_ms, uint64_t open_ms)
{
    inline_executor_run(&f->inline_);
    history_close(f->h, close_ms);
    replies_free(f->replies);
    f->replies = replies_new();
    f->h = history_open(f->file, &f->executor, f->replies, open_ms);
    assert_non_null(f->h);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->directory, sizeof f->directory, "/tmp/outtray-history-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    snprintf(f->file, sizeof f->file, "%s/history.db", f->directory);
    inline_executor_init(&f->inline_, false);
    f->executor = inline_executor(&f->inline_);
    f->replies = replies_new();
    f->h = history_open(f->file, &f->executor, f->replies, NOW);
    *state = f;
    return f->h == NULL;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    inline_executor_run(&f->inline_);
    history_close(f->h, NOW);
    replies_free(f->replies);
    snprintf(command, sizeof command, "rm -r %s", f->directory);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

static void notes_are_found_by_id_and_walked_in_order(void **state)
{
    struct fixture *f = *state;
    static const uint64_t ids[] = {50, 10, 30, 20, 40};
    uint64_t seen = 0;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        assert_non_null(history_add(f->h, ids[i], NOW));
    history_drop(f->h, 30);
    history_drop(f->h, 31);
    assert_null(history_find(f->h, 30));
    assert_int_equal(history_find(f->h, 40)->id, 40);
    for (struct history_note *n = history_next(f->h, 0); n != NULL; n = history_next(f->h, n->id))
        seen = seen * 100 + n->id;
    assert_true(seen == 10204050);
    assert_int_equal(history_count(f->h), 4);
}

static void what_is_noted_comes_back(void **state)
{
    struct fixture *f = *state;
    struct history_note *n = history_add(f->h, 7, NOW);
    n->flags = HISTORY_OPERATOR | HISTORY_SEEN;
    n->report_id = 9;
    n->failed = 3;
    history_changed(f->h, n);
    assert_non_null(history_add(f->h, 8, NOW));
    history_set_delayed(f->h, 77);
    reopen(f, NOW + HOUR, 500);
    n = history_find(f->h, 7);
    assert_non_null(n);
    assert_int_equal(n->flags, HISTORY_OPERATOR | HISTORY_SEEN);
    assert_int_equal(n->report_id, 9);
    assert_int_equal(n->failed, 3);
    assert_int_equal((int64_t)500 - n->since_ms, HOUR); /* its age goes on, whatever the clock */
    assert_int_equal(history_delayed_up_to(f->h), 77);
    history_drop(f->h, 8);
    reopen(f, 500, 500);
    assert_null(history_find(f->h, 8));
    assert_int_equal(history_count(f->h), 1);
}

static void it_is_written_from_time_to_time_and_only_when_something_changed(void **state)
{
    struct fixture *f = *state;
    struct history *other;
    assert_non_null(history_add(f->h, 7, NOW));
    history_tick(f->h, NOW);
    inline_executor_run(&f->inline_);
    assert_int_equal(f->inline_.submitted, 1);
    assert_non_null(history_add(f->h, 8, NOW));
    history_tick(f->h, NOW + HISTORY_WRITE_MS - 1);
    assert_int_equal(f->inline_.submitted, 1);
    history_tick(f->h, NOW + HISTORY_WRITE_MS);
    inline_executor_run(&f->inline_);
    assert_int_equal(f->inline_.submitted, 2);
    history_tick(f->h, NOW + 2 * HISTORY_WRITE_MS);
    assert_int_equal(f->inline_.submitted, 2);
    history_tick(f->h, NOW + 2 * HOUR); /* ages */
    inline_executor_run(&f->inline_);
    assert_int_equal(f->inline_.submitted, 3);
    /* As after a kill: nothing was closed. */
    char copy[128];
    char command[300];
    snprintf(copy, sizeof copy, "%s/copy.db", f->directory);
    snprintf(command, sizeof command,
             "cd %s && for f in history.db*; do cp $f copy.db${f#history.db}; done", f->directory);
    assert_int_equal(system(command), 0);
    other = history_open(copy, &f->executor, NULL, 0);
    assert_int_equal(history_count(other), 2);
    history_close(other, 0);
}

static void replies_are_kept_with_it(void **state)
{
    struct fixture *f = *state;
    struct replies_entry e;
    struct reply reply;
    assert_true(reply_from_text(&reply, "599 5.9.9 the moon is wrong"));
    assert_true(replies_note(f->replies, STAGE_FINAL_DOT, &reply, 42));
    reopen(f, NOW, NOW);
    assert_true(replies_get(f->replies, 0, &e));
    assert_int_equal(e.stage, STAGE_FINAL_DOT);
    assert_string_equal(e.text, "599 5.9.9 the moon is wrong");
    assert_int_equal(e.count, 1);
    assert_int_equal(e.last_ms, 42);
}

static void a_damaged_file_is_made_anew(void **state)
{
    struct fixture *f = *state;
    FILE *file;
    char aside[128];
    assert_non_null(history_add(f->h, 7, NOW));
    history_close(f->h, NOW);
    file = fopen(f->file, "wb");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++)
        fputs("no database", file);
    fclose(file);
    f->h = history_open(f->file, &f->executor, f->replies, NOW);
    assert_non_null(f->h);
    assert_int_equal(history_count(f->h), 0);
    snprintf(aside, sizeof aside, "%s.damaged", f->file);
    assert_int_equal(access(aside, F_OK), 0);
    assert_non_null(history_add(f->h, 8, NOW));
    reopen(f, NOW, NOW);
    assert_non_null(history_find(f->h, 8));
}

static void without_a_file_memory_will_do(void **state)
{
    struct fixture *f = *state;
    struct history *h = history_open("/nowhere/at/all/history.db", &f->executor, NULL, NOW);
    assert_non_null(h);
    assert_non_null(history_add(h, 7, NOW));
    history_tick(h, NOW);
    inline_executor_run(&f->inline_);
    assert_non_null(history_find(h, 7));
    history_close(h, NOW);
    h = history_open("", &f->executor, NULL, NOW);
    assert_non_null(history_add(h, 7, NOW));
    history_tick(h, NOW);
    history_close(h, NOW);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(notes_are_found_by_id_and_walked_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_noted_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(
            it_is_written_from_time_to_time_and_only_when_something_changed, setup, teardown),
        cmocka_unit_test_setup_teardown(replies_are_kept_with_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_file_is_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_file_memory_will_do, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
