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
#include "queue/segment.h"
#include "tests/unit/spool_fixture.h"

#define SIZE  3000
#define LARGE (3 * QUEUE_BLOCK + 1000)

static int set_up(void **state)
{
    struct spool_fixture *f = malloc(sizeof(*f));
    struct error err = ERROR_INIT;
    if (!f)
        return -1;
    fixture_init(f);
    *state = f;
    return fixture_open(f, &err) ? 0 : -1;
}

static int tear_down(void **state)
{
    fixture_done(*state);
    free(*state);
    return 0;
}

struct walk {
    struct queue_verified last;
    unsigned calls;
    unsigned segments;
    unsigned bodies;
    uint64_t bad;
    uint64_t hit[8]; /* messages */
    unsigned hits;
    bool ended;
};

static void took(void *ctx, const struct queue_verified *v, const struct error *err)
{
    struct walk *w = ctx;
    assert_null(err);
    w->last = *v;
    w->calls++;
    w->segments += v->is_file && strncmp(v->name, "journal/", 8) == 0;
    w->bodies += v->is_file && strncmp(v->name, "content/", 8) == 0;
    w->bad += v->bad;
    for (size_t i = 0; i < v->place_count && w->hits < 8; i++)
        if (v->places[i].id != 0)
            w->hit[w->hits++] = v->places[i].id;
    w->ended = v->last;
}

static struct walk walk(struct spool_fixture *f)
{
    struct walk w = {0};
    struct queue_cursor at = {0};
    while (!w.ended) {
        queue_verify(f->queue, &at, took, &w);
        fixture_run(f);
        at = w.last.next;
        assert_true(w.calls < 100);
    }
    return w;
}

static bool is_damaged(struct spool_fixture *f, uint64_t id)
{
    struct queue_info info;
    assert_true(queue_find(f->queue, id, &info));
    assert_int_equal(info.damaged, info.state == QUEUE_HELD);
    return info.damaged;
}

static void a_spool_that_is_well_verifies_in_every_file(void **state)
{
    struct spool_fixture *f = *state;
    for (uint64_t i = 0; i < 100; i++)
        fixture_accept(f, 50000, i);
    for (uint64_t i = 0; i < 3; i++)
        fixture_accept(f, LARGE, i);
    struct walk w = walk(f);
    assert_int_equal(w.bodies, 3);
    assert_true(w.segments >= 4);
    assert_int_equal(w.bad, 0);
    fixture_crash(f);
    struct error err = ERROR_INIT;
    assert_true(fixture_open(f, &err));
    w = walk(f);
    assert_int_equal(w.bodies, 3);
    assert_int_equal(w.bad, 0);
}

static void an_empty_spool_has_nothing_to_verify(void **state)
{
    struct spool_fixture *f = *state;
    struct walk w = walk(f);
    assert_int_equal(w.bodies, 0);
    assert_int_equal(w.bad, 0);
}

static void flip_in_segment(struct spool_fixture *f, size_t segment, long offset)
{
    fixture_flip(fixture_path(f, "journal", segment), offset, 4);
}

static void every_flipped_octet_of_a_sealed_segment_is_found(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    uint64_t id = fixture_accept(f, SIZE, 1);
    fixture_close(f);
    f->options.read_only = true; /* nothing is marked: each flip is undone */
    long start =
        SEGMENT_BLOCK + segment_span(17, 0); /* behind START, whose padding is no content */
    for (long at = start; at < start + SIZE; at += 11) {
        flip_in_segment(f, 0, at);
        assert_true(fixture_open(f, &err));
        struct walk w = walk(f);
        if (w.bad == 0)
            fail_msg("octet %ld is not missed", at);
        if (w.hits > 0)
            assert_int_equal(w.hit[0], id);
        fixture_close(f);
        flip_in_segment(f, 0, at);
    }
    f->options.read_only = false;
    assert_true(fixture_open(f, &err));
}

static void what_is_found_is_held(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    uint64_t small = fixture_accept(f, SIZE, 1);
    uint64_t large = fixture_accept(f, LARGE, 2);
    uint64_t other = fixture_accept(f, SIZE, 3);
    fixture_close(f);
    flip_in_segment(f, 0, SEGMENT_BLOCK + 80 + 400);
    fixture_flip(fixture_path(f, "content", 0), 100000, 1);
    assert_true(fixture_open(f, &err));
    assert_int_equal(f->found.damaged, 0); /* the index says nothing of bodies */
    struct walk w = walk(f);
    assert_int_equal(w.bad, 2);
    assert_int_equal(w.hits, 2);
    assert_true(is_damaged(f, small));
    assert_true(is_damaged(f, large));
    assert_false(is_damaged(f, other));
    assert_true(fixture_intact(f, other, SIZE, 3));
    fixture_run(f);
    fixture_crash(f);
    assert_true(fixture_open(f, &err));
    assert_true(is_damaged(f, small)); /* that it is damaged is on the disk */
    assert_true(is_damaged(f, large));
}

static void a_body_that_is_cut_or_gone_is_damage(void **state)
{
    struct spool_fixture *f = *state;
    uint64_t cut = fixture_accept(f, LARGE, 1);
    uint64_t gone = fixture_accept(f, LARGE, 2);
    assert_int_equal(truncate(fixture_path(f, "content", 0), 70000), 0);
    assert_int_equal(unlink(fixture_path(f, "content", 1)), 0);
    struct walk w = walk(f);
    assert_int_equal(w.bad, 3 + 1); /* blocks, and a whole file */
    assert_true(is_damaged(f, cut));
    assert_true(is_damaged(f, gone));
}

static void damage_of_what_has_gone_hits_nobody(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    uint64_t id = fixture_accept(f, SIZE, 1);
    uint64_t other = fixture_accept(f, SIZE, 3);
    assert_true(queue_delete(f->queue, id, NULL, NULL, &err));
    fixture_run(f);
    flip_in_segment(f, 0, SEGMENT_BLOCK + 80 + 400);
    struct walk w = walk(f);
    assert_int_equal(w.bad, 1);
    assert_int_equal(w.hits, 0);
    assert_false(is_damaged(f, other));
}

static void a_body_that_goes_while_it_is_read_is_no_damage(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    struct walk w = {0};
    uint64_t id = fixture_accept(f, LARGE, 1);
    assert_int_equal(unlink(fixture_path(f, "content", 0)), 0);
    struct queue_cursor at = {.bodies = true};
    queue_verify(f->queue, &at, took, &w);
    assert_int_equal(w.calls, 0); /* its result is under way */
    assert_true(queue_delete(f->queue, id, NULL, NULL, &err));
    fixture_run(f);
    assert_int_equal(w.calls, 1);
    assert_int_equal(w.bad, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_spool_that_is_well_verifies_in_every_file),
        TEST(an_empty_spool_has_nothing_to_verify),
        TEST(every_flipped_octet_of_a_sealed_segment_is_found),
        TEST(what_is_found_is_held),
        TEST(a_body_that_is_cut_or_gone_is_damage),
        TEST(damage_of_what_has_gone_hits_nobody),
        TEST(a_body_that_goes_while_it_is_read_is_no_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
