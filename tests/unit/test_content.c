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
        cmocka_unit_test(names_are_read_strictly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
