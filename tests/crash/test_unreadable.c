/*
 * Sectors that cannot be read, as against ones that read wrongly: at the start, while sending and
 * while segments are emptied. The rest is served, nothing is tried for ever, no segment is kept for
 * ever.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "queue/queue.h"
#include "tests/unit/spool_fixture.h"

#define SECTOR   4096
#define MESSAGES 6
#define SIZE     9000
#define LARGE    (3 * QUEUE_BLOCK + 1000)

/* A disk with one bad sector: reads of that file that touch it fail. */
struct disk {
    struct fileops ops;
    char path[512];
    off_t bad; /* begins here; negative: none */
};

struct unreadable {
    struct spool_fixture f;
    struct disk disk;
    uint64_t ids[MESSAGES];
};

static bool is_file(const struct disk *d, int fd)
{
    char link[64];
    char name[512];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, name, sizeof(name) - 1);
    if (len < 0)
        return false;
    name[len] = '\0';
    return strcmp(name, d->path) == 0;
}

static ssize_t disk_pread(void *ctx, int fd, void *data, size_t len, off_t offset)
{
    const struct disk *d = ctx;
    if (d->bad >= 0 && offset < d->bad + SECTOR && offset + (off_t)len > d->bad && is_file(d, fd)) {
        errno = EIO;
        return -1;
    }
    return fileops_system.pread(NULL, fd, data, len, offset);
}

static int set_up(void **state)
{
    struct unreadable *u = calloc(1, sizeof(*u));
    struct error err = ERROR_INIT;
    if (!u)
        return -1;
    fixture_init(&u->f);
    u->disk.ops = fileops_system;
    u->disk.ops.ctx = &u->disk;
    u->disk.ops.pread = disk_pread;
    u->disk.bad = -1;
    u->f.options.ops = &u->disk.ops;
    *state = u;
    return fixture_open(&u->f, &err) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct unreadable *u = *state;
    fixture_done(&u->f);
    free(u);
    return 0;
}

static void open_again(struct unreadable *u)
{
    struct error err = ERROR_INIT;
    if (!fixture_open(&u->f, &err))
        fail_msg("%s", err.text);
}

static void break_sector(struct unreadable *u, const char *directory, off_t at)
{
    snprintf(u->disk.path, sizeof(u->disk.path), "%s", fixture_path(&u->f, directory, 0));
    u->disk.bad = at / SECTOR * SECTOR;
}

static void fill(struct unreadable *u, size_t size)
{
    for (uint64_t i = 0; i < MESSAGES; i++)
        u->ids[i] = fixture_accept(&u->f, size, i);
}

static unsigned count_intact(struct unreadable *u, size_t size)
{
    unsigned intact = 0;
    struct queue_info info;
    for (uint64_t i = 0; i < MESSAGES; i++)
        intact += queue_find(u->f.queue, u->ids[i], &info) && !info.damaged &&
                  fixture_intact(&u->f, u->ids[i], size, i);
    return intact;
}

/* Octets of the copy that are as they were. */
static size_t count_same(struct unreadable *u, uint64_t id, size_t size, uint64_t seed)
{
    struct fixture_mail mail;
    size_t same = 0;
    uint8_t *data = malloc(size);
    assert_non_null(data);
    fixture_fill(data, size, seed);
    fixture_read(&u->f, id, &mail);
    assert_int_equal(mail.error.kind, ERROR_DAMAGED);
    assert_int_equal(mail.data.len, size);
    for (size_t i = 0; i < size; i++)
        same += mail.data.data[i] == data[i];
    fixture_mail_done(&mail);
    free(data);
    return same;
}

static void a_bad_sector_met_at_the_start_hits_what_is_in_it(void **state)
{
    struct unreadable *u = *state;
    fill(u, SIZE);
    fixture_tick(&u->f, 3);
    fixture_crash(&u->f);
    for (off_t at = 0; at < 60000; at += SECTOR) {
        break_sector(u, "journal", at);
        open_again(u);
        unsigned intact = count_intact(u, SIZE);
        if (intact < MESSAGES - 2) /* it may lie across two */
            fail_msg("sector at %ld: %u of %d are whole", (long)at, intact, MESSAGES);
        if (intact < MESSAGES && u->f.found.damaged == 0)
            fail_msg("sector at %ld: not reported", (long)at);
        u->disk.bad = -1;
        fixture_crash(&u->f);
    }
    open_again(u);
    assert_int_equal(count_intact(u, SIZE), MESSAGES);
}

static void a_body_that_cannot_be_read_is_held_after_some_attempts(void **state)
{
    struct unreadable *u = *state;
    struct queue_info info;
    unsigned attempts = 0;
    uint64_t id = fixture_accept(&u->f, LARGE, 1);
    uint64_t other = fixture_accept(&u->f, LARGE, 2);
    break_sector(u, "content", 70000);
    for (;;) {
        struct fixture_mail mail;
        if (!fixture_pick(&u->f, &info) || info.id != id)
            break;
        fixture_read(&u->f, id, &mail);
        assert_int_equal(mail.error.kind, ERROR_IO);
        fixture_mail_done(&mail);
        queue_release(u->f.queue, id, u->f.now_ms);
        assert_true(++attempts < 20);
    }
    assert_in_range(attempts, 2, 10);
    assert_int_equal(info.id, other); /* it did not stand in the way */
    queue_release(u->f.queue, other, u->f.now_ms);
    assert_true(queue_find(u->f.queue, id, &info));
    assert_int_equal(info.state, QUEUE_HELD);
    assert_true(info.damaged);
    assert_in_range(count_same(u, id, LARGE, 1), LARGE - SECTOR, LARGE - SECTOR / 2);
}

static void looking_at_it_does_not_hold_it(void **state)
{
    struct unreadable *u = *state;
    struct queue_info info;
    uint64_t id = fixture_accept(&u->f, LARGE, 1);
    break_sector(u, "content", 70000);
    for (unsigned i = 0; i < 20; i++) {
        struct fixture_mail mail;
        fixture_read(&u->f, id, &mail);
        assert_int_equal(mail.error.kind, ERROR_IO);
        fixture_mail_done(&mail);
    }
    assert_true(queue_find(u->f.queue, id, &info));
    assert_false(info.damaged);
    u->disk.bad = -1; /* it was a cable */
    assert_true(fixture_intact(&u->f, id, LARGE, 1));
}

static void it_keeps_no_segment_for_ever(void **state)
{
    struct unreadable *u = *state;
    struct queue_info info;
    struct queue_stats s;
    struct error err = ERROR_INIT;
    fill(u, SIZE);
    for (unsigned i = 0; i < MESSAGES; i++) { /* stragglers */
        assert_true(fixture_pick(&u->f, &info));
        fixture_settle(&u->f, info.id, QUEUE_HELD, RECIPIENT_PENDING, 0, NULL);
    }
    break_sector(u, "journal", 20000);
    for (uint64_t i = 0; i < 400; i++) {
        uint64_t id = fixture_accept(&u->f, 50000, i);
        assert_true(queue_delete(u->f.queue, id, NULL, NULL, &err));
        fixture_run(&u->f);
    }
    fixture_tick(&u->f, 20);
    queue_stats(u->f.queue, &s);
    assert_true(s.segments > 8); /* it may be read the next time */
    fixture_tick(&u->f, 60);
    queue_stats(u->f.queue, &s);
    assert_true(s.segments < 4);
    assert_in_range(count_intact(u, SIZE), MESSAGES - 2, MESSAGES - 1);
    assert_int_equal(fixture_count(&u->f), MESSAGES);
    u->disk.bad = -1;
    fixture_crash(&u->f);
    open_again(u);
    assert_in_range(count_intact(u, SIZE), MESSAGES - 2, MESSAGES - 1);
    assert_int_equal(u->f.found.messages, MESSAGES);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_bad_sector_met_at_the_start_hits_what_is_in_it),
        TEST(a_body_that_cannot_be_read_is_held_after_some_attempts),
        TEST(looking_at_it_does_not_hold_it),
        TEST(it_keeps_no_segment_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
