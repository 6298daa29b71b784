#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "queue/queue.h"
#include "tests/unit/fault_fileops.h"
#include "tests/unit/spool_fixture.h"

#define MB (1024u * 1024u)

/* A file system of any size. */
struct disk {
    struct fileops ops;
    uint64_t free_bytes;
    bool unknown;
};

struct room {
    struct spool_fixture f;
    struct disk disk;
};

static int disk_space(void *ctx, const char *path, struct fileops_space *out)
{
    const struct disk *d = ctx;
    (void)path;
    *out =
        (struct fileops_space){.free_bytes = d->free_bytes, .total_bytes = 100000 * (uint64_t)MB};
    return d->unknown ? -1 : 0;
}

static int set_up(void **state)
{
    struct room *r = calloc(1, sizeof(*r));
    if (!r)
        return -1;
    fixture_init(&r->f);
    r->disk.ops = fileops_system;
    r->disk.ops.ctx = &r->disk; /* the system's calls do not look at it */
    r->disk.ops.space = disk_space;
    r->disk.free_bytes = 50000 * (uint64_t)MB;
    r->f.options.ops = &r->disk.ops;
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct room *r = *state;
    fixture_done(&r->f);
    free(r);
    return 0;
}

static void open_with(struct room *r, uint64_t max, uint64_t min_free)
{
    struct error err = ERROR_INIT;
    r->f.options.max_bytes = max;
    r->f.options.min_free_bytes = min_free;
    if (!fixture_open(&r->f, &err))
        fail_msg("%s", err.text);
}

static bool has_room(struct room *r, enum lane lane, uint64_t size)
{
    struct error err = ERROR_INIT;
    bool room = queue_has_room(r->f.queue, lane, size, &err);
    assert_int_equal(err.kind, room ? ERROR_NONE : ERROR_NO_ROOM);
    return room;
}

static bool is_full(struct room *r, bool urgent)
{
    struct queue_counts counts;
    queue_counts(r->f.queue, &counts);
    return urgent ? counts.full_urgent : counts.full;
}

static void delete_all(struct room *r)
{
    struct error err = ERROR_INIT;
    struct queue_info info = {0};
    while (queue_list(r->f.queue, info.id, &info))
        assert_true(queue_delete(r->f.queue, info.id, NULL, NULL, &err));
    fixture_run(&r->f);
}

static void the_last_tenth_of_the_spool_is_for_urgent_mail(void **state)
{
    struct room *r = *state;
    struct error err = ERROR_INIT;
    open_with(r, 10 * MB, 0);
    for (uint64_t i = 0; i < 9; i++)
        fixture_accept(&r->f, MB, i);
    assert_false(has_room(r, LANE_NORMAL, 0));
    assert_false(has_room(r, LANE_BULK, 0));
    assert_true(has_room(r, LANE_URGENT, 500000));
    assert_false(has_room(r, LANE_URGENT, 2 * MB));
    assert_false(queue_has_room(r->f.queue, LANE_NORMAL, 0, &err));
    assert_string_equal(err.text,
                        "the waiting mail has reached spool_max (10 MB, of which the last part is "
                        "for urgent mail): let mail leave, or raise spool_max in [relay]");
    assert_null(queue_begin(r->f.queue, LANE_NORMAL, NULL, NULL, &err));
    struct queue_writer *w = queue_begin(r->f.queue, LANE_URGENT, NULL, NULL, &err);
    assert_non_null(w);
    queue_abort(w);
}

static void the_headroom_of_a_large_spool_is_bounded(void **state)
{
    struct room *r = *state;
    r->disk.free_bytes = 200000 * (uint64_t)MB;
    open_with(r, 100000 * (uint64_t)MB, 0);
    assert_true(has_room(r, LANE_NORMAL, 100000 * (uint64_t)MB - QUEUE_URGENT_MAX));
    assert_false(has_room(r, LANE_NORMAL, 100000 * (uint64_t)MB - QUEUE_URGENT_MAX + 1));
    assert_true(has_room(r, LANE_URGENT, 100000 * (uint64_t)MB));
}

static void a_full_disk_refuses_and_urgent_mail_later_than_other(void **state)
{
    struct room *r = *state;
    struct error err = ERROR_INIT;
    open_with(r, 0, 100 * MB);
    r->disk.free_bytes = 105 * MB;
    fixture_tick(&r->f, 1);
    assert_false(has_room(r, LANE_NORMAL, 0));
    assert_true(is_full(r, false));
    assert_false(is_full(r, true));
    assert_true(has_room(r, LANE_URGENT, MB));
    r->disk.free_bytes = 99 * MB;
    fixture_tick(&r->f, 1);
    assert_false(queue_has_room(r->f.queue, LANE_URGENT, 0, &err));
    assert_string_equal(err.text,
                        "the disk has only 99 MB free and spool_min_free asks for 100 MB: free "
                        "disk space, or lower spool_min_free in [relay]");
    assert_true(is_full(r, true));
}

static void refusing_ends_by_itself_when_a_little_more_is_free(void **state)
{
    struct room *r = *state;
    open_with(r, 0, 100 * MB);
    r->disk.free_bytes = 109 * MB;
    fixture_tick(&r->f, 2); /* the first one measures */
    assert_true(is_full(r, false));
    r->disk.free_bytes = 111 * MB; /* above the limit, and less than its slack */
    fixture_tick(&r->f, 2);
    assert_true(is_full(r, false));
    assert_false(has_room(r, LANE_NORMAL, 0));
    r->disk.free_bytes = 113 * MB;
    fixture_tick(&r->f, 2);
    assert_false(is_full(r, false));
    assert_true(has_room(r, LANE_NORMAL, 0));
}

static void a_spool_that_was_full_takes_mail_when_some_has_left(void **state)
{
    struct room *r = *state;
    struct queue_info info = {0};
    struct error err = ERROR_INIT;
    open_with(r, 10 * MB, 0);
    for (uint64_t i = 0; i < 9; i++)
        fixture_accept(&r->f, MB, i);
    assert_false(has_room(r, LANE_NORMAL, 0));
    assert_true(queue_list(r->f.queue, 0, &info));
    assert_true(queue_delete(r->f.queue, info.id, NULL, NULL, &err));
    fixture_run(&r->f);
    assert_false(has_room(r, LANE_NORMAL, 0)); /* a tick looks */
    fixture_tick(&r->f, 1);
    assert_true(has_room(r, LANE_NORMAL, 0));
    delete_all(r);
    assert_true(has_room(r, LANE_NORMAL, 9 * MB));
}

static void mail_that_grows_beyond_the_limit_is_stopped(void **state)
{
    static const struct {
        const char *name;
        uint64_t max;
        uint64_t min_free;
    } rows[] = {{"spool_max", 3 * MB, 0}, {"spool_min_free", 0, 100 * MB}};
    static uint8_t data[32768];
    struct room *r = *state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct error err = ERROR_INIT;
        r->disk.free_bytes = 113 * MB; /* the tenth for urgent mail, and three */
        open_with(r, rows[i].max, rows[i].min_free);
        fixture_tick(&r->f, 1);
        struct queue_writer *w = fixture_write(&r->f, MB, 1);
        enum queue_flow flow = QUEUE_FLOW_OK;
        while (flow != QUEUE_FLOW_ERROR && queue_writer_size(w) < 10 * MB) {
            flow = queue_append(w, data, sizeof(data), &err);
            fixture_run(&r->f);
        }
        if (flow != QUEUE_FLOW_ERROR || queue_writer_size(w) > 4 * MB)
            fail_msg("%s: %llu octets were taken", rows[i].name,
                     (unsigned long long)queue_writer_size(w));
        assert_int_equal(err.kind, ERROR_NO_ROOM);
        assert_non_null(strstr(err.text, rows[i].name));
        queue_abort(w);
        fixture_run(&r->f);
        assert_int_equal(fixture_files(&r->f, "content"), 0);
        fixture_tick(&r->f, 2);
        assert_true(has_room(r, LANE_NORMAL, MB)); /* what it took is free again */
        fixture_close(&r->f);
    }
}

static void unknown_space_refuses_nothing(void **state)
{
    struct room *r = *state;
    r->disk.unknown = true;
    open_with(r, 0, 100 * MB);
    assert_true(has_room(r, LANE_NORMAL, 1000 * MB));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_last_tenth_of_the_spool_is_for_urgent_mail),
        TEST(the_headroom_of_a_large_spool_is_bounded),
        TEST(a_full_disk_refuses_and_urgent_mail_later_than_other),
        TEST(refusing_ends_by_itself_when_a_little_more_is_free),
        TEST(a_spool_that_was_full_takes_mail_when_some_has_left),
        TEST(mail_that_grows_beyond_the_limit_is_stopped),
        TEST(unknown_space_refuses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
