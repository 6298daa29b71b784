#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "queue/content.h"
#include "tests/unit/fault_fileops.h"
#include "tests/unit/spool_fixture.h"

#define ID 0x4f2au

struct place {
    struct spool_fixture f;
    char dir[128];
    struct fault fault;
    struct content_block block;
};

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    if (!p)
        return -1;
    fixture_init(&p->f);
    fault_init(&p->fault);
    snprintf(p->dir, sizeof(p->dir), "%s/content", p->f.dir);
    *state = p;
    return mkdir(p->dir, 0700);
}

static int tear_down(void **state)
{
    struct place *p = *state;
    fixture_done(&p->f);
    free(p);
    return 0;
}

/* Appends octets as one block. */
static bool put(struct place *p, struct content_file *f, size_t len, uint64_t seed,
                struct error *err)
{
    p->block.next = NULL;
    p->block.len = (uint32_t)len;
    fixture_fill(p->block.frame + CONTENT_FRAME, len, seed);
    return content_write(f, &p->block, err);
}

static uint64_t write_body(struct place *p, unsigned full, size_t rest)
{
    struct content_file f;
    struct error err = ERROR_INIT;
    assert_true(content_create(&f, &fileops_system, p->dir, ID, &err));
    for (unsigned i = 0; i < full; i++)
        assert_true(put(p, &f, CONTENT_BLOCK, i, &err));
    if (rest > 0)
        assert_true(put(p, &f, rest, full, &err));
    assert_true(content_finish(&f, &err));
    assert_int_equal(f.fd, -1);
    return (uint64_t)full * CONTENT_BLOCK + rest;
}

static void check_block(struct place *p, int fd, uint64_t size, uint64_t number, size_t len)
{
    static uint8_t want[CONTENT_BLOCK];
    struct error err = ERROR_INIT;
    assert_true(content_read(&fileops_system, fd, ID, size, number, &p->block, &err));
    assert_int_equal(p->block.len, len);
    fixture_fill(want, len, number);
    assert_memory_equal(p->block.frame + CONTENT_FRAME, want, len);
}

static void blocks_read_back_in_any_order(void **state)
{
    struct place *p = *state;
    struct error err = ERROR_INIT;
    uint64_t size = write_body(p, 3, 777);
    int fd = content_open(&fileops_system, p->dir, ID, &err);
    assert_true(fd >= 0);
    check_block(p, fd, size, 3, 777);
    check_block(p, fd, size, 0, CONTENT_BLOCK);
    check_block(p, fd, size, 2, CONTENT_BLOCK);
    close(fd);
}

static void a_block_is_no_other_block(void **state)
{
    struct place *p = *state;
    struct error err = ERROR_INIT;
    char path[CONTENT_PATH_MAX];
    uint64_t size = write_body(p, 2, 0);
    content_path(p->dir, ID, path);
    int fd = open(path, O_RDWR);
    uint8_t frame[CONTENT_FRAME + CONTENT_BLOCK];
    assert_int_equal(pread(fd, frame, sizeof(frame), 0), sizeof(frame));
    assert_int_equal(pwrite(fd, frame, sizeof(frame), sizeof(frame)), sizeof(frame));
    check_block(p, fd, size, 0, CONTENT_BLOCK);
    assert_false(content_read(&fileops_system, fd, ID, size, 1, &p->block, &err));
    assert_int_equal(err.kind, ERROR_DAMAGED);
    assert_false(content_read(&fileops_system, fd, ID + 1, size, 0, &p->block, &err));
    close(fd);
}

static void an_id_that_exists_is_not_written_over(void **state)
{
    struct place *p = *state;
    struct content_file f;
    struct error err = ERROR_INIT;
    write_body(p, 1, 0);
    assert_false(content_create(&f, &fileops_system, p->dir, ID, &err));
    assert_int_equal(err.errnum, EEXIST);
}

static void a_missing_body_is_damage(void **state)
{
    struct place *p = *state;
    struct error err = ERROR_INIT;
    assert_int_equal(content_open(&fileops_system, p->dir, ID, &err), -1);
    assert_int_equal(err.kind, ERROR_DAMAGED);
    assert_true(content_remove(&fileops_system, p->dir, ID, &err));
}

static void at_most_four_megabytes_wait_for_the_disk(void **state)
{
    struct place *p = *state;
    struct content_file f;
    struct error err = ERROR_INIT;
    fault_set(&p->fault, FAULT_FAIL, FAULT_SYNC, 0, 0);
    assert_true(content_create(&f, &p->fault.ops, p->dir, ID, &err));
    for (unsigned i = 0; i < 200; i++) {
        assert_true(put(p, &f, CONTENT_BLOCK, i, &err));
        assert_true(f.written - f.synced < CONTENT_UNSYNCED_MAX);
    }
    assert_true(p->fault.calls >= 3);
    content_close(&f);
}

static void a_failed_sync_fails_the_body_at_once(void **state)
{
    struct place *p = *state;
    struct content_file f;
    struct error err = ERROR_INIT;
    assert_true(content_create(&f, &p->fault.ops, p->dir, ID, &err));
    assert_true(put(p, &f, 100, 0, &err));
    fault_set(&p->fault, FAULT_FAIL, FAULT_SYNC, 1, EIO);
    assert_false(content_finish(&f, &err));
    assert_int_equal(err.errnum, EIO);
    assert_int_equal(f.fd, -1);
    assert_int_equal(p->fault.calls, 1); /* not tried again */
}

static void a_name_that_is_not_durable_is_no_body(void **state)
{
    struct place *p = *state;
    struct content_file f;
    struct error err = ERROR_INIT;
    fault_set(&p->fault, FAULT_FAIL, FAULT_DIRECTORY, 1, EIO);
    assert_false(content_create(&f, &p->fault.ops, p->dir, ID, &err));
    assert_int_equal(fixture_files(&p->f, "content"), 0);
}

static void names_are_read_strictly(void **state)
{
    static const struct {
        const char *name;
        bool ok;
    } rows[] = {
        {"0000000000004f2a.body", true},   {"0000000000004F2A.body", false}, {"4f2a.body", false},
        {"0000000000004f2a.body~", false}, {"0000000000004f2a.seg", false},  {"", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t id = 0;
        assert_int_equal(content_parse_name(rows[i].name, &id), rows[i].ok);
        assert_int_equal(id, rows[i].ok ? ID : 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* ---- how much is not on the disk yet -------------------------------------------------------- */

/* Counts what a loss of power would take. */
struct watch {
    struct fileops ops;
    uint64_t written;
    uint64_t synced;
    uint64_t begun; /* write-back was asked for */
    uint64_t most_unsynced;
    uint64_t most_under_way; /* begun and not waited for */
    uint64_t waited;
    uint64_t last_sync; /* octets that it had left to do */
    uint64_t last_piece;
    int wait_error;
    /* What a piece takes: so much, and so much for each of its blocks. */
    uint64_t now_us, each_us, block_us;
};

static ssize_t watch_pwritev(void *ctx, int fd, const struct iovec *iov, int count, off_t offset)
{
    struct watch *w = ctx;
    ssize_t n = fileops_system.pwritev(NULL, fd, iov, count, offset);
    w->written += n > 0 ? (uint64_t)n : 0;
    if (w->written - w->synced > w->most_unsynced)
        w->most_unsynced = w->written - w->synced;
    return n;
}

static int watch_fdatasync(void *ctx, int fd)
{
    struct watch *w = ctx;
    w->last_sync = w->written - (w->waited > w->synced ? w->waited : w->synced);
    w->synced = w->begun = w->waited = w->written;
    return fileops_system.fdatasync(NULL, fd);
}

static int watch_write_back(void *ctx, int fd, off_t offset, off_t len)
{
    struct watch *w = ctx;
    assert_int_equal(offset, w->begun);
    w->begun = (uint64_t)(offset + len);
    if (w->begun - w->waited > w->most_under_way)
        w->most_under_way = w->begun - w->waited;
    return fileops_system.write_back(NULL, fd, offset, len);
}

static int watch_wait_back(void *ctx, int fd, off_t offset, off_t len)
{
    struct watch *w = ctx;
    assert_int_equal(offset, w->waited);
    w->waited = (uint64_t)(offset + len);
    w->last_piece = (uint64_t)len;
    w->now_us += w->each_us + (uint64_t)len / CONTENT_BLOCK * w->block_us;
    if (w->wait_error) {
        errno = w->wait_error;
        return -1;
    }
    return fileops_system.wait_back(NULL, fd, offset, len);
}

static uint64_t watch_now_us(void *ctx)
{
    struct watch *w = ctx;
    return w->now_us;
}

static void watch_init(struct watch *w)
{
    *w = (struct watch){.ops = fileops_system};
    w->ops.ctx = w;
    w->ops.pwritev = watch_pwritev;
    w->ops.fdatasync = watch_fdatasync;
    w->ops.write_back = watch_write_back;
    w->ops.wait_back = watch_wait_back;
    w->ops.now_us = watch_now_us;
}

/* Chains of blocks, as they come when the disk was slower than the device. */
static bool write_chains(struct place *p, struct content_file *f, unsigned chains, unsigned length,
                         struct error *err)
{
    struct content_block *blocks = calloc(length, sizeof(*blocks));
    bool ok = true;
    assert_non_null(blocks);
    (void)p;
    for (unsigned i = 0; ok && i < chains; i++) {
        for (unsigned k = 0; k < length; k++) {
            blocks[k].len = CONTENT_BLOCK;
            blocks[k].next = k + 1 < length ? &blocks[k + 1] : NULL;
        }
        ok = content_write(f, blocks, err);
    }
    free(blocks);
    return ok;
}

static void little_is_left_to_do_at_any_time_and_at_the_end(void **state)
{
    static const unsigned lengths[] = {1, 2, 3, 7, 16};
    struct place *p = *state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct watch w;
        struct content_file f;
        struct error err = ERROR_INIT;
        watch_init(&w);
        assert_true(content_create(&f, &w.ops, p->dir, ID + i, &err));
        assert_true(write_chains(p, &f, 400 / lengths[i], lengths[i], &err));
        assert_true(content_finish(&f, &err));
        assert_int_equal(w.synced, w.written);
        assert_in_range(w.most_unsynced, 1, CONTENT_UNSYNCED_MAX + CONTENT_FRAME + CONTENT_BLOCK);
        uint64_t chain = lengths[i] * (uint64_t)(CONTENT_FRAME + CONTENT_BLOCK);
        uint64_t piece = CONTENT_WRITE_BACK + chain;
        assert_in_range(w.most_under_way, 1, piece);
        assert_in_range(w.last_sync, 0, 2 * piece);
    }
}

static void what_failed_while_it_was_written_back_has_failed(void **state)
{
    static const struct {
        int errnum;
        bool fails;
    } rows[] = {{EIO, true}, {ENOSPC, true}, {ENOSYS, false}, {EINVAL, false}, {ESPIPE, false}};
    struct place *p = *state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct watch w;
        struct content_file f;
        struct error err = ERROR_INIT;
        watch_init(&w);
        w.wait_error = rows[i].errnum;
        assert_true(content_create(&f, &w.ops, p->dir, ID + i, &err));
        assert_int_equal(write_chains(p, &f, 100, 2, &err), !rows[i].fails);
        content_close(&f);
    }
}

static void a_table_without_waiting_will_do(void **state)
{
    struct place *p = *state;
    struct watch w;
    struct content_file f;
    struct error err = ERROR_INIT;
    watch_init(&w);
    w.ops.wait_back = NULL;
    assert_true(content_create(&f, &w.ops, p->dir, ID, &err));
    assert_true(write_chains(p, &f, 100, 2, &err));
    assert_true(content_finish(&f, &err));
    assert_in_range(w.most_unsynced, 1, CONTENT_UNSYNCED_MAX + CONTENT_FRAME + CONTENT_BLOCK);
}

static void a_piece_is_as_large_as_others_can_wait_for(void **state)
{
    static const struct {
        const char *name;
        uint64_t each_us, block_us;
        uint64_t blocks; /* of a piece, in the end */
    } rows[] = {
        {"quick", 50, 100, 4},
        {"4 ms a block, 15 MB/s", 100, 4000, 1},
        {"2.5 ms a block", 100, 2500, 2},
        {"2 ms a block", 0, 2000, 4},
        {"far away: the size hardly matters", 10000, 100, 4},
        {"so slow that nothing helps but the least", 0, 100000, 1},
    };
    struct place *p = *state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct watch w;
        struct content_file f;
        struct error err = ERROR_INIT;
        watch_init(&w);
        w.each_us = rows[i].each_us;
        w.block_us = rows[i].block_us;
        assert_true(content_create(&f, &w.ops, p->dir, ID + i, &err));
        assert_true(write_chains(p, &f, 200, 1, &err));
        if (w.last_piece / CONTENT_BLOCK != rows[i].blocks)
            print_error("%s\n", rows[i].name);
        assert_int_equal(w.last_piece / CONTENT_BLOCK, rows[i].blocks);
        content_close(&f);
    }
}

static void pieces_grow_again_when_the_disk_is_quick_again(void **state)
{
    struct place *p = *state;
    struct watch w;
    struct content_file f;
    struct error err = ERROR_INIT;
    watch_init(&w);
    w.block_us = 4400;
    assert_true(content_create(&f, &w.ops, p->dir, ID, &err));
    assert_true(write_chains(p, &f, 10, 16, &err));
    assert_int_equal(w.last_piece / CONTENT_BLOCK, 1);
    w.block_us = 100;
    assert_true(write_chains(p, &f, 10, 16, &err));
    assert_int_equal(w.last_piece / CONTENT_BLOCK, 4);
    content_close(&f);
}

static void of_several_bodies_one_small_piece_is_on_its_way(void **state)
{
    struct place *p = *state;
    for (int shared = 0; shared <= 1; shared++) {
        struct watch w;
        struct content_file f;
        struct error err = ERROR_INIT;
        watch_init(&w);
        w.block_us = 4400;
        assert_true(content_create(&f, &w.ops, p->dir, ID + (uint64_t)shared, &err));
        f.shared = shared;
        f.piece = CONTENT_PIECE_MIN;
        for (int i = 0; i < 20; i++) {
            assert_true(put(p, &f, CONTENT_BLOCK, (uint64_t)i, &err));
            assert_int_equal(w.begun, w.written);
            assert_int_equal(w.waited == w.written, shared || i == 0);
        }
        content_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(blocks_read_back_in_any_order),
        TEST(a_block_is_no_other_block),
        TEST(an_id_that_exists_is_not_written_over),
        TEST(a_missing_body_is_damage),
        TEST(at_most_four_megabytes_wait_for_the_disk),
        TEST(a_failed_sync_fails_the_body_at_once),
        TEST(a_name_that_is_not_durable_is_no_body),
        TEST(little_is_left_to_do_at_any_time_and_at_the_end),
        TEST(what_failed_while_it_was_written_back_has_failed),
        TEST(a_table_without_waiting_will_do),
        TEST(a_piece_is_as_large_as_others_can_wait_for),
        TEST(pieces_grow_again_when_the_disk_is_quick_again),
        TEST(of_several_bodies_one_small_piece_is_on_its_way),
        cmocka_unit_test(names_are_read_strictly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
