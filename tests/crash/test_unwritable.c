/*
 * A spool that cannot be written: a read-only file system at the start, or a disk that fails for
 * longer than a hiccup. Mail is refused, what waits is served and sent, outcomes are remembered and
 * written when the disk is well again.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "queue/queue.h"
#include "tests/unit/fault_fileops.h"
#include "tests/unit/spool_fixture.h"

#define LARGE  (200 * 1024 + 7)
#define WRITES (FAULT_WRITE | FAULT_SYNC | FAULT_DIRECTORY | FAULT_RENAME | FAULT_UNLINK)

/* As a file system that is read-only, where `read_only` is set; else the fault's own. */
struct disk {
    struct fileops ops;
    struct fault fault;
    bool read_only;
};

struct unwritable {
    struct spool_fixture f;
    struct disk disk;
};

static int refuse(void)
{
    errno = EROFS;
    return -1;
}

static int disk_open(void *ctx, const char *path, int flags, mode_t mode)
{
    struct disk *d = ctx;
    if (!d->read_only || (flags & O_ACCMODE) == O_RDONLY)
        return d->fault.ops.open(&d->fault, path, flags, mode);
    int fd = d->fault.ops.open(&d->fault, path, O_RDONLY, 0);
    if (fd >= 0)
        (void)d->fault.ops.close(&d->fault, fd);
    else if (!(flags & O_CREAT))
        return -1;
    return refuse();
}

static ssize_t disk_pwritev(void *ctx, int fd, const struct iovec *iov, int count, off_t offset)
{
    struct disk *d = ctx;
    return d->read_only ? refuse() : d->fault.ops.pwritev(&d->fault, fd, iov, count, offset);
}

static int disk_fdatasync(void *ctx, int fd)
{
    struct disk *d = ctx;
    return d->read_only ? refuse() : d->fault.ops.fdatasync(&d->fault, fd);
}

static int disk_fsync(void *ctx, int fd)
{
    struct disk *d = ctx;
    return d->read_only ? refuse() : d->fault.ops.fsync(&d->fault, fd);
}

static int disk_sync_directory(void *ctx, const char *path)
{
    struct disk *d = ctx;
    return d->read_only ? refuse() : d->fault.ops.sync_directory(&d->fault, path);
}

static int disk_rename(void *ctx, const char *from, const char *to)
{
    struct disk *d = ctx;
    return d->read_only ? refuse() : d->fault.ops.rename(&d->fault, from, to);
}

static int disk_unlink(void *ctx, const char *path)
{
    struct disk *d = ctx;
    return d->read_only ? refuse() : d->fault.ops.unlink(&d->fault, path);
}

static int disk_mkdir(void *ctx, const char *path, mode_t mode)
{
    struct disk *d = ctx;
    return d->read_only ? refuse() : d->fault.ops.mkdir(&d->fault, path, mode);
}

static int set_up(void **state)
{
    struct unwritable *u = calloc(1, sizeof(*u));
    if (!u)
        return -1;
    fixture_init(&u->f);
    fault_init(&u->disk.fault);
    u->disk.ops = fileops_system; /* what is not replaced does not look at its ctx */
    u->disk.ops.ctx = &u->disk;
    u->disk.ops.open = disk_open;
    u->disk.ops.pwritev = disk_pwritev;
    u->disk.ops.fdatasync = disk_fdatasync;
    u->disk.ops.fsync = disk_fsync;
    u->disk.ops.sync_directory = disk_sync_directory;
    u->disk.ops.rename = disk_rename;
    u->disk.ops.unlink = disk_unlink;
    u->disk.ops.mkdir = disk_mkdir;
    u->f.options.ops = &u->disk.ops;
    *state = u;
    struct error err = ERROR_INIT;
    return fixture_open(&u->f, &err) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct unwritable *u = *state;
    fixture_done(&u->f);
    free(u);
    return 0;
}

static void open_again(struct unwritable *u)
{
    struct error err = ERROR_INIT;
    if (!fixture_open(&u->f, &err))
        fail_msg("%s", err.text);
}

static struct queue_counts counts_of(struct unwritable *u)
{
    struct queue_counts counts;
    queue_counts(u->f.queue, &counts);
    return counts;
}

/* Picks a message, marks it and says how that ended. */
static bool doubt(struct unwritable *u, uint64_t *out_id)
{
    struct queue_info info;
    struct fixture_result r = {0};
    assert_true(fixture_pick(&u->f, &info));
    *out_id = info.id;
    queue_doubt(u->f.queue, info.id, FIXTURE_WALL, fixture_done_fn, &r);
    assert_int_equal(r.calls, 0);
    fixture_run(&u->f);
    assert_int_equal(r.calls, 1);
    return r.ok;
}

static void deliver(struct unwritable *u)
{
    uint64_t id;
    assert_true(doubt(u, &id));
    fixture_settle(&u->f, id, QUEUE_GONE, RECIPIENT_DELIVERED, 0, NULL);
    fixture_run(&u->f);
}

/* ---- a read-only file system ----------------------------------------------------------------- */

static void a_start_on_a_read_only_file_system_serves_what_is_there(void **state)
{
    struct unwritable *u = *state;
    struct error err = ERROR_INIT;
    uint64_t small = fixture_accept(&u->f, 3000, 1);
    uint64_t large = fixture_accept(&u->f, LARGE, 2);
    for (int crashed = 0; crashed < 2; crashed++) {
        if (crashed)
            fixture_crash(&u->f);
        else
            fixture_close(&u->f);
        u->disk.read_only = true;
        open_again(u);
        assert_int_equal(u->f.found.messages, 2);
        assert_int_equal(u->f.found.damaged, 0);
        assert_true(fixture_intact(&u->f, small, 3000, 1));
        assert_true(fixture_intact(&u->f, large, LARGE, 2));
        assert_true(counts_of(u).failing);
        assert_int_equal(counts_of(u).failure_errnum, EROFS);
        assert_null(queue_begin(u->f.queue, LANE_URGENT, NULL, NULL, &err));
        assert_int_equal(err.kind, ERROR_IO);
        assert_non_null(strstr(err.text, "Read-only file system"));
        fixture_tick(&u->f, 3);
        assert_true(counts_of(u).failing);
        u->disk.read_only = false;
        fixture_tick(&u->f, 31);
        assert_false(counts_of(u).failing);
        uint64_t later = fixture_accept(&u->f, 10, 3);
        assert_true(queue_delete(u->f.queue, later, NULL, NULL, &err));
        fixture_run(&u->f);
    }
}

static void two_do_not_open_a_read_only_spool(void **state)
{
    struct unwritable *u = *state;
    struct error err = ERROR_INIT;
    struct queue_options options = u->f.options;
    u->disk.read_only = true;
    assert_null(queue_open(&options, NULL, &err));
    assert_int_equal(err.kind, ERROR_BUSY);
    u->disk.read_only = false;
}

static void an_empty_read_only_place_says_that_there_is_no_spool(void **state)
{
    struct unwritable *u = *state;
    struct error err = ERROR_INIT;
    struct spool_fixture empty;
    fixture_init(&empty);
    empty.options.ops = &u->disk.ops;
    u->disk.read_only = true;
    assert_false(fixture_open(&empty, &err));
    assert_non_null(strstr(err.text, "no spool"));
    u->disk.read_only = false;
    fixture_done(&empty);
}

static void what_waits_is_sent_and_its_outcome_written_when_that_is_possible(void **state)
{
    struct unwritable *u = *state;
    struct queue_info info;
    for (uint64_t i = 0; i < 4; i++)
        fixture_accept(&u->f, i % 2 ? LARGE : 500, i);
    fixture_close(&u->f);
    u->disk.read_only = true;
    open_again(u);
    deliver(u);
    deliver(u);
    assert_int_equal(counts_of(u).unmarked, 2);
    assert_int_equal(fixture_count(&u->f), 2);
    assert_int_equal(fixture_files(&u->f, "content"), 2);
    u->disk.read_only = false;
    fixture_tick(&u->f, 31);
    assert_false(counts_of(u).failing);
    assert_int_equal(counts_of(u).unmarked, 0);
    assert_int_equal(fixture_files(&u->f, "content"), 1);
    fixture_crash(&u->f);
    open_again(u);
    assert_int_equal(u->f.found.messages, 2);
    assert_true(fixture_pick(&u->f, &info));
    queue_release(u->f.queue, info.id, u->f.now_ms);
}

static void a_clean_end_tries_the_disk_once_more(void **state)
{
    struct unwritable *u = *state;
    fixture_accept(&u->f, 500, 1);
    fixture_close(&u->f);
    u->disk.read_only = true;
    open_again(u);
    deliver(u);
    u->disk.read_only = false; /* nobody ticks */
    fixture_close(&u->f);
    open_again(u);
    assert_int_equal(u->f.found.messages, 0);
}

/* What docs say: it may go twice. But it does go, and nothing worse happens. */
static void an_end_while_nothing_can_be_written_sends_again(void **state)
{
    struct unwritable *u = *state;
    uint64_t id = fixture_accept(&u->f, 500, 1);
    fixture_close(&u->f);
    u->disk.read_only = true;
    open_again(u);
    deliver(u);
    fixture_close(&u->f);
    open_again(u);
    assert_int_equal(u->f.found.messages, 1);
    assert_true(fixture_intact(&u->f, id, 500, 1));
    u->disk.read_only = false;
}

/* ---- a disk that fails ----------------------------------------------------------------------- */

static void a_hiccup_is_waited_out_and_nothing_goes_without_its_mark(void **state)
{
    struct unwritable *u = *state;
    struct queue_info info;
    uint64_t id;
    fixture_accept(&u->f, 500, 1);
    fault_set(&u->disk.fault, FAULT_FAIL_ON, WRITES, 1, EIO);
    assert_false(doubt(u, &id));
    queue_release(u->f.queue, id, u->f.now_ms);
    fixture_tick(&u->f, 2);
    assert_false(doubt(u, &id));
    queue_release(u->f.queue, id, u->f.now_ms);
    assert_int_equal(counts_of(u).unmarked, 0);
    fixture_tick(&u->f, QUEUE_HICCUP_MS / 1000 + 1);
    deliver(u);
    assert_int_equal(counts_of(u).unmarked, 1);
    assert_false(fixture_pick(&u->f, &info));
    fault_set(&u->disk.fault, FAULT_STOP, 0, 0, 0);
    fixture_tick(&u->f, 31);
    assert_false(counts_of(u).failing);
    assert_int_equal(counts_of(u).unmarked, 0);
    fixture_crash(&u->f);
    open_again(u);
    assert_int_equal(u->f.found.messages, 0);
}

static void outcomes_that_wait_for_the_disk_are_read_from_memory(void **state)
{
    struct unwritable *u = *state;
    struct queue_info info;
    struct fixture_mail mail;
    uint64_t id = fixture_accept(&u->f, 500, 1);
    fault_set(&u->disk.fault, FAULT_FAIL_ON, WRITES, 1, EIO);
    assert_true(fixture_pick(&u->f, &info));
    fixture_settle(&u->f, id, QUEUE_QUEUED, RECIPIENT_PENDING, 0, NULL);
    fixture_tick(&u->f, 2);
    fixture_read(&u->f, id, &mail); /* does not wait */
    assert_string_equal(mail.envelope.recipients[0].reply, "451 4.7.500 server busy");
    fixture_mail_done(&mail);
    fault_set(&u->disk.fault, FAULT_STOP, 0, 0, 0);
    fixture_tick(&u->f, 31);
    fixture_read(&u->f, id, &mail);
    assert_string_equal(mail.envelope.recipients[0].reply, "451 4.7.500 server busy");
    fixture_mail_done(&mail);
}

static void many_deferrals_of_a_failing_disk_leave_one_record(void **state)
{
    struct unwritable *u = *state;
    struct queue_info info;
    uint64_t id = fixture_accept(&u->f, 500, 1);
    fixture_tick(&u->f, 2);
    struct queue_stats before;
    struct queue_stats after;
    fault_set(&u->disk.fault, FAULT_FAIL_ON, WRITES, 1, EIO);
    for (unsigned i = 0; i < 100; i++) {
        assert_true(fixture_pick(&u->f, &info));
        fixture_settle(&u->f, id, QUEUE_QUEUED, RECIPIENT_PENDING, 0, NULL);
        fixture_tick(&u->f, 1);
    }
    queue_stats(u->f.queue, &before);
    fault_set(&u->disk.fault, FAULT_STOP, 0, 0, 0);
    fixture_tick(&u->f, 31);
    queue_stats(u->f.queue, &after);
    assert_true(after.journal_written > before.journal_written);
    assert_in_range(after.journal_written - before.journal_written, 1, 3000);
    fixture_crash(&u->f);
    open_again(u);
    assert_true(queue_find(u->f.queue, id, &info));
    assert_int_equal(info.attempts, 100);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_start_on_a_read_only_file_system_serves_what_is_there),
        TEST(two_do_not_open_a_read_only_spool),
        TEST(an_empty_read_only_place_says_that_there_is_no_spool),
        TEST(what_waits_is_sent_and_its_outcome_written_when_that_is_possible),
        TEST(a_clean_end_tries_the_disk_once_more),
        TEST(an_end_while_nothing_can_be_written_sends_again),
        TEST(a_hiccup_is_waited_out_and_nothing_goes_without_its_mark),
        TEST(outcomes_that_wait_for_the_disk_are_read_from_memory),
        TEST(many_deferrals_of_a_failing_disk_leave_one_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
