/*
 * Group commit, rotation, failure and removal of the journal, without a spool around it.
 */
#include <errno.h>
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

#include "queue/journal.h"
#include "queue/recover.h"
#include "queue/segfile.h"
#include "tests/unit/fault_fileops.h"
#include "tests/unit/spool_fixture.h"

#define SEGMENT (1536u * 1024u)

struct bench {
    struct spool_fixture f;
    char dir[128];
    struct fault fault;
    struct tasks *tasks;
    struct journal *journal;
    bool has_soon; /* the executor */
    struct executor_job *soon;
    uint64_t now_ms;
    unsigned order; /* of the records reported */
    uint8_t body[60000];
};

struct entry {
    struct journal_record record; /* first */
    struct bench *bench;
    unsigned order;
    bool reported;
    bool ok;
};

static void keep_for_later(void *ctx, struct executor_job *job)
{
    struct spool_fixture *f =
        (struct spool_fixture *)((char *)ctx - offsetof(struct spool_fixture, executor));
    struct bench *b = (struct bench *)((char *)f - offsetof(struct bench, f));
    assert_null(b->soon);
    b->soon = job;
}

static void make_journal(struct bench *b)
{
    struct executor executor = inline_executor(&b->f.executor);
    executor.soon = b->has_soon ? keep_for_later : NULL;
    b->tasks = tasks_new(&executor);
    struct journal_options options = {.ops = &b->fault.ops,
                                      .dir = b->dir,
                                      .tasks = b->tasks,
                                      .segment_size = SEGMENT,
                                      .now_ms = b->now_ms};
    b->journal = journal_new(&options);
    assert_non_null(b->journal);
}

static int set_up_bench(void **state, bool has_soon)
{
    struct bench *b = calloc(1, sizeof(*b));
    if (!b)
        return -1;
    b->has_soon = has_soon;
    fixture_init(&b->f);
    fault_init(&b->fault);
    snprintf(b->dir, sizeof(b->dir), "%s/journal", b->f.dir);
    b->now_ms = 1000;
    *state = b;
    if (mkdir(b->dir, 0700) < 0)
        return -1;
    make_journal(b);
    journal_start(b->journal, 1, 1, 1, false);
    return 0;
}

static int set_up(void **state)
{
    return set_up_bench(state, false);
}

static int set_up_soon(void **state)
{
    return set_up_bench(state, true);
}

static int tear_down(void **state)
{
    struct bench *b = *state;
    tasks_finish(b->tasks);
    journal_close(b->journal);
    journal_free(b->journal);
    inline_executor_run(&b->f.executor);
    tasks_free(b->tasks);
    fixture_done(&b->f);
    free(b);
    return 0;
}

static void entry_done(struct journal_record *r, const struct error *err)
{
    struct entry *e = (struct entry *)r;
    assert_false(e->reported);
    e->reported = true;
    e->ok = !err;
    e->order = e->bench->order++;
    if (!err)
        journal_hold(r->segment);
}

static void append_as(struct bench *b, uint16_t type, struct entry *e, uint64_t id, size_t len,
                      bool keep)
{
    memset(e, 0, sizeof(*e));
    e->bench = b;
    e->record.type = type;
    e->record.id = id;
    e->record.keep = keep;
    e->record.done = entry_done;
    e->record.body[0] = (struct iovec){b->body, len};
    e->record.head_len = 8;
    memset(journal_record_head(&e->record), 7, 8);
    journal_append(b->journal, &e->record);
}

static void append(struct bench *b, struct entry *e, uint64_t id, size_t len, bool keep)
{
    append_as(b, SEGMENT_MESSAGE, e, id, len, keep);
}

static void run(struct bench *b)
{
    inline_executor_run(&b->f.executor);
}

static void tick(struct bench *b, uint64_t ms)
{
    b->now_ms += ms;
    journal_tick(b->journal, b->now_ms, 0);
    run(b);
}

static struct journal_stats stats(struct bench *b)
{
    struct journal_stats s;
    journal_stats(b->journal, &s);
    return s;
}

/* ---- group commit ---------------------------------------------------------------------------- */

static void records_are_reported_in_order_after_their_flush(void **state)
{
    struct bench *b = *state;
    static struct entry e[600];
    uint64_t before = stats(b).flushes;
    for (unsigned i = 0; i < 600; i++)
        append(b, &e[i], i + 1, 10, false);
    assert_int_equal(b->order, 0);
    run(b);
    for (unsigned i = 0; i < 600; i++) {
        assert_true(e[i].ok);
        assert_int_equal(e[i].order, i);
        assert_true(i == 0 || e[i].record.offset > e[i - 1].record.offset);
    }
    /* the first alone, the one that followed it at once, then as many as a batch may have */
    assert_int_equal(stats(b).flushes - before, 2 + (598 + 255) / 256);
    for (unsigned i = 0; i < 600; i++)
        journal_drop(b->journal, e[i].record.segment);
}

static void a_flush_never_waits_for_company(void **state)
{
    struct bench *b = *state;
    struct entry e;
    size_t before = b->f.executor.submitted;
    append(b, &e, 1, 10, false);
    assert_int_equal(b->f.executor.submitted, before + 1); /* under way already */
    run(b);
    assert_true(e.ok);
    journal_drop(b->journal, e.record.segment);
}

static void turn(struct bench *b)
{
    struct executor_job *job = b->soon;
    b->soon = NULL;
    if (job)
        job->done(job);
}

static void what_comes_in_one_turn_shares_a_flush(void **state)
{
    struct bench *b = *state;
    struct entry e[4];
    uint64_t flushes = stats(b).flushes;
    size_t submitted = b->f.executor.submitted;
    for (unsigned i = 0; i < 3; i++)
        append(b, &e[i], i + 1, 10, false);
    assert_int_equal(b->f.executor.submitted, submitted);
    turn(b);
    assert_int_equal(b->f.executor.submitted, submitted + 1);
    append(b, &e[3], 4, 10, false);
    turn(b); /* the next flush follows without a word from the loop */
    assert_int_equal(b->f.executor.submitted, submitted + 2);
    assert_int_equal(b->order, 0);
    run(b);
    assert_int_equal(stats(b).flushes - flushes, 2);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(e[i].ok);
        journal_drop(b->journal, e[i].record.segment);
    }
}

static void what_follows_a_flush_that_fails_is_written_to_the_next_segment(void **state)
{
    struct bench *b = *state;
    struct entry e[4];
    uint64_t number;
    append(b, &e[0], 1, 100, false);
    turn(b);
    run(b);
    number = e[0].record.segment->number;
    fault_set(&b->fault, FAULT_FAIL, FAULT_SYNC, 1, EIO);
    append(b, &e[1], 2, 100, false);
    turn(b); /* has failed on the worker, and the loop has not heard of it */
    append(b, &e[2], 3, 100, true);
    turn(b);
    append(b, &e[3], 4, 100, true);
    run(b);
    assert_true(e[1].reported && !e[1].ok);
    turn(b);
    tick(b, 1000);
    assert_true(e[2].ok && e[3].ok);
    assert_true(e[2].order < e[3].order && e[2].record.offset < e[3].record.offset);
    assert_true(e[2].record.segment->number > number);
    for (int i = 0; i < 4; i++)
        if (e[i].ok)
            journal_drop(b->journal, e[i].record.segment);
}

static void what_may_still_be_amended_goes_behind_what_cannot(void **state)
{
    struct bench *b = *state;
    struct entry e[4];
    append(b, &e[0], 1, 100, false);
    turn(b);
    append(b, &e[1], 2, 100, false);
    append_as(b, SEGMENT_STATE, &e[2], 1, 100, true);
    assert_true(journal_waits(&e[2].record));
    append(b, &e[3], 3, 100, false);
    run(b);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(e[i].ok);
        assert_int_equal(e[i].order, i);
        journal_drop(b->journal, e[i].record.segment);
    }
    turn(b);
}

/* A segment ends in the middle of what follows, and something smaller would still fit. */
static void order_is_kept_where_followers_fill_a_segment(void **state)
{
    struct bench *b = *state;
    static struct entry e[300];
    unsigned second = 0;
    for (unsigned i = 0; i < 300; i++) {
        append(b, &e[i], i + 1, i % 2 ? 20 : 30000, false);
        if (i % 3 == 0)
            turn(b);
        if (i % 7 == 0)
            inline_executor_step(&b->f.executor);
    }
    turn(b);
    run(b);
    turn(b);
    run(b);
    for (unsigned i = 0; i < 300; i++) {
        assert_true(e[i].ok);
        assert_int_equal(e[i].order, i);
        if (i == 0)
            continue;
        const struct journal_record *before = &e[i - 1].record;
        bool same = e[i].record.segment == before->segment;
        assert_true(e[i].record.seq > before->seq);
        assert_true(!same || e[i].record.offset == before->offset + before->span);
        second += !same;
    }
    assert_true(second >= 2);
    for (unsigned i = 0; i < 300; i++)
        journal_drop(b->journal, e[i].record.segment);
}

static void what_waits_for_the_turn_is_durable_before_the_end(void **state)
{
    struct bench *b = *state;
    struct entry e;
    append(b, &e, 1, 10, false);
    tasks_finish(b->tasks);
    assert_true(e.ok);
    journal_drop(b->journal, e.record.segment);
    turn(b); /* the executor's own, late */
}

static void a_batch_is_bounded_in_octets(void **state)
{
    struct bench *b = *state;
    static struct entry e[100];
    uint64_t before = stats(b).flushes;
    for (unsigned i = 0; i < 100; i++)
        append(b, &e[i], i + 1, sizeof(b->body), false);
    run(b);
    assert_true(stats(b).flushes - before >= 100 * sizeof(b->body) / JOURNAL_BATCH_BYTES);
    for (unsigned i = 0; i < 100; i++) {
        assert_true(e[i].ok);
        journal_drop(b->journal, e[i].record.segment);
    }
}

/* ---- what is on disk ------------------------------------------------------------------------- */

static void scan(struct bench *b, uint64_t number, const struct record_end *end,
                 struct recover_segment *out)
{
    char path[SEGFILE_PATH_MAX];
    struct error err = ERROR_INIT;
    int fd;
    segfile_path(b->dir, number, path);
    assert_true(recover_open(&fileops_system, path, number, true, out, &fd, &err));
    assert_true(recover_scan(&fileops_system, fd, end, out, &err));
    close(fd);
}

static void every_record_says_what_was_durable_before_it(void **state)
{
    struct bench *b = *state;
    struct entry e[4];
    struct recover_segment s;
    append(b, &e[0], 1, 100, false);
    turn(b);
    append(b, &e[1], 2, 100, false);
    append(b, &e[2], 3, 100, false);
    turn(b);
    run(b);
    scan(b, 1, NULL, &s);
    assert_int_equal(s.entry_count, 4); /* with START */
    assert_int_equal(s.entries[0].record.type, SEGMENT_START);
    assert_int_equal(s.entries[1].record.base, s.entries[1].offset);
    assert_int_equal(s.entries[2].record.base, s.entries[2].offset);
    assert_int_equal(s.entries[3].record.base, s.entries[2].offset); /* same flush */
    for (size_t i = 1; i < s.entry_count; i++)
        assert_true(s.entries[i].record.seq > s.entries[i - 1].record.seq);
    recover_done(&s);
    for (int i = 0; i < 3; i++)
        journal_drop(b->journal, e[i].record.segment);
}

static void an_idle_journal_vouches_for_its_last_records_once(void **state)
{
    struct bench *b = *state;
    struct entry e;
    struct recover_segment s;
    append(b, &e, 1, 100, false);
    run(b);
    tick(b, 1000);
    uint64_t flushes = stats(b).flushes;
    for (int i = 0; i < 5; i++)
        tick(b, 1000);
    assert_int_equal(stats(b).flushes, flushes + 1);
    scan(b, 1, NULL, &s);
    const struct recover_entry *last = &s.entries[s.entry_count - 1];
    assert_int_equal(last->record.type, SEGMENT_MARK);
    assert_int_equal(last->record.base, last->offset);
    recover_done(&s);
    journal_drop(b->journal, e.record.segment);
}

static void a_full_segment_is_sealed_and_its_index_agrees_with_a_search(void **state)
{
    struct bench *b = *state;
    static struct entry e[40];
    struct recover_segment indexed;
    struct recover_segment searched;
    for (unsigned i = 0; i < 40; i++) {
        append(b, &e[i], i + 1, 50000, false);
        run(b);
    }
    assert_true(stats(b).segments >= 2);
    scan(b, 1, NULL, &indexed);
    assert_true(indexed.sealed);
    fixture_flip(fixture_path(&b->f, "journal", 0), -1, 1); /* spoils the footer */
    scan(b, 1, NULL, &searched);
    assert_false(searched.sealed);
    assert_int_equal(searched.entry_count, indexed.entry_count);
    assert_int_equal(searched.gap_count, 0);
    assert_int_equal(searched.end, indexed.end);
    for (size_t i = 0; i < indexed.entry_count; i++) {
        const struct recover_entry *x = &indexed.entries[i];
        const struct recover_entry *y = &searched.entries[i];
        assert_int_equal(x->offset, y->offset);
        assert_int_equal(x->record.id, y->record.id);
        assert_int_equal(x->record.seq, y->record.seq);
        assert_int_equal(x->record.type, y->record.type);
        assert_int_equal(x->record.body_len, y->record.body_len);
        assert_int_equal(x->record.body_crc, y->record.body_crc);
        assert_memory_equal(indexed.heads.data + x->head_at, searched.heads.data + y->head_at,
                            x->record.head_len);
    }
    recover_done(&indexed);
    recover_done(&searched);
    for (int i = 0; i < 40; i++)
        journal_drop(b->journal, e[i].record.segment);
}

static void the_next_start_says_where_earlier_segments_end(void **state)
{
    struct bench *b = *state;
    static struct entry e[40];
    struct recover_segment s;
    struct bytes ends;
    char path[SEGFILE_PATH_MAX];
    struct error err = ERROR_INIT;
    struct record_end end;
    int fd;
    for (unsigned i = 0; i < 40; i++) {
        append(b, &e[i], i + 1, 50000, false);
        run(b);
    }
    segfile_path(b->dir, 2, path);
    assert_true(recover_open(&fileops_system, path, 2, true, &s, &fd, &err));
    bytes_init(&ends, 1000);
    assert_true(recover_start(&fileops_system, fd, &s, &ends));
    assert_int_equal(ends.len, RECORD_END_LEN);
    record_decode_end(ends.data, &end);
    assert_int_equal(end.number, 1);
    assert_int_equal(end.proven, end.end);
    bytes_done(&ends);
    recover_done(&s);
    close(fd);
    scan(b, 1, NULL, &s);
    assert_int_equal(s.end, end.end);
    recover_done(&s);
    for (int i = 0; i < 40; i++)
        journal_drop(b->journal, e[i].record.segment);
}

/* ---- failure --------------------------------------------------------------------------------- */

static void a_failed_sync_is_not_tried_again_and_ends_its_segment(void **state)
{
    struct bench *b = *state;
    struct entry e[4];
    struct recover_segment s;
    struct recover_segment next;
    append(b, &e[0], 1, 100, false);
    run(b);
    fault_set(&b->fault, FAULT_FAIL, FAULT_SYNC, 1, EIO);
    append(b, &e[1], 2, 100, false);
    run(b);
    assert_true(e[1].reported && !e[1].ok);
    assert_true(stats(b).failing);
    assert_non_null(strstr(journal_failure(b->journal), "sync"));
    assert_int_equal(b->fault.calls, 1);
    tick(b, 1000); /* the next segment opens by itself */
    assert_false(stats(b).failing);
    append(b, &e[2], 3, 100, false);
    run(b);
    assert_true(e[2].ok);
    assert_int_equal(e[2].record.segment->number, 2);
    /* What reached the disk all the same is void. */
    struct bytes ends;
    char path[SEGFILE_PATH_MAX];
    struct error err = ERROR_INIT;
    struct record_end end;
    int fd;
    bytes_init(&ends, 1000);
    segfile_path(b->dir, 2, path);
    assert_true(recover_open(&fileops_system, path, 2, true, &next, &fd, &err));
    assert_true(recover_start(&fileops_system, fd, &next, &ends));
    record_decode_end(ends.data, &end);
    scan(b, 1, NULL, &s);
    assert_int_equal(s.entries[s.entry_count - 1].record.id, 2);
    recover_done(&s);
    scan(b, 1, &end, &s);
    assert_int_equal(s.entries[s.entry_count - 1].record.id, 1);
    recover_done(&s);
    recover_done(&next);
    bytes_done(&ends);
    close(fd);
    journal_drop(b->journal, e[0].record.segment);
    journal_drop(b->journal, e[2].record.segment);
}

static void kept_records_are_written_to_the_next_segment_in_their_order(void **state)
{
    struct bench *b = *state;
    struct entry e[6];
    append(b, &e[0], 1, 100, true); /* goes alone, and fails */
    fault_set(&b->fault, FAULT_FAIL, FAULT_WRITE, 1, EIO);
    append(b, &e[1], 2, 100, true);
    append(b, &e[2], 3, 100, false);
    append(b, &e[3], 4, 100, true);
    run(b);
    assert_true(e[0].ok);
    assert_false(e[1].reported);
    assert_true(e[2].reported && !e[2].ok);
    assert_false(e[3].reported);
    append(b, &e[4], 5, 100, true);
    append(b, &e[5], 6, 100, false); /* no disk: refused at once */
    run(b);
    assert_true(e[5].reported && !e[5].ok);
    tick(b, 1000);
    assert_true(e[1].ok && e[3].ok && e[4].ok);
    assert_true(e[1].order < e[3].order && e[3].order < e[4].order);
    for (int i = 0; i < 5; i++)
        if (e[i].ok)
            journal_drop(b->journal, e[i].record.segment);
}

static void a_disk_that_goes_on_failing_is_tried_with_growing_pauses(void **state)
{
    struct bench *b = *state;
    struct entry e;
    fault_set(&b->fault, FAULT_FAIL_ON, FAULT_SYNC | FAULT_WRITE, 1, EIO);
    append(b, &e, 1, 100, true);
    run(b);
    uint64_t last = b->fault.calls;
    unsigned tries = 0;
    for (int i = 0; i < 300; i++) {
        tick(b, 1000);
        tries += b->fault.calls > last;
        last = b->fault.calls;
    }
    assert_in_range(tries, 10, 20);
    assert_false(e.reported);
    assert_true(stats(b).segments <= 2); /* no heap of half-made segments */
    fault_set(&b->fault, FAULT_FAIL, 0, 0, 0);
    for (int i = 0; i < 31; i++)
        tick(b, 1000);
    assert_true(e.ok);
    journal_drop(b->journal, e.record.segment);
}

static void ids_are_reserved_durably_before_they_are_given_out(void **state)
{
    struct bench *b = *state;
    uint64_t id = 0;
    uint64_t last = 0;
    for (int i = 0; i < 200000; i++) {
        if (!journal_take_id(b->journal, &id)) {
            run(b);
            assert_true(journal_take_id(b->journal, &id));
        }
        assert_int_equal(id, last + 1);
        last = id;
    }
    run(b);
    struct recover_segment s;
    struct record_start start = {0};
    scan(b, 1, NULL, &s);
    for (size_t i = 0; i < s.entry_count; i++)
        assert_true(record_decode_start(s.heads.data + s.entries[i].head_at,
                                        s.entries[i].record.head_len, &start));
    assert_true(start.id_limit > last);
    recover_done(&s);
}

static uint64_t spare_size(const struct bench *b)
{
    char path[256];
    struct stat st;
    snprintf(path, sizeof(path), "%s/%s", b->dir, SEGFILE_SPARE);
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void the_next_segment_fills_while_the_current_one_does(void **state)
{
    struct bench *b = *state;
    static struct entry e[60];
    unsigned pieces = 0;
    uint64_t before = 0;
    for (unsigned i = 0; i < 60 && e[0].record.segment == e[i ? i - 1 : 0].record.segment; i++) {
        append(b, &e[i], i + 1, 20000, false);
        inline_executor_step(&b->f.executor);
        uint64_t after = spare_size(b);
        if (after > before) {
            assert_true(after - before <= JOURNAL_FILL);
            pieces++;
        }
        before = after;
        run(b);
        journal_drop(b->journal, e[i].record.segment);
    }
    assert_int_equal(pieces, SEGMENT / JOURNAL_FILL);
}

static void what_a_partly_filled_segment_takes_is_counted(void **state)
{
    struct bench *b = *state;
    static struct entry e[30];
    uint64_t begin = stats(b).bytes;
    for (unsigned i = 0; i < 30 && spare_size(b) == 0; i++) {
        append(b, &e[i], i + 1, 20000, false);
        run(b);
        journal_drop(b->journal, e[i].record.segment);
    }
    assert_true(spare_size(b) > 0 && spare_size(b) < SEGMENT);
    assert_int_equal(stats(b).bytes, begin + spare_size(b));
}

/* ---- removal --------------------------------------------------------------------------------- */

static void segments_go_oldest_first_and_only_when_nobody_holds_them(void **state)
{
    struct bench *b = *state;
    static struct entry e[120];
    for (unsigned i = 0; i < 120; i++) {
        append(b, &e[i], i + 1, 50000, false);
        run(b);
    }
    uint64_t segments = stats(b).segments;
    assert_true(segments >= 4);
    uint64_t first = e[0].record.segment->number;
    for (unsigned i = 0; i < 120; i++) /* all but what is in the oldest */
        if (e[i].record.segment->number != first)
            journal_drop(b->journal, e[i].record.segment);
    tick(b, 1000);
    assert_int_equal(stats(b).segments, segments);
    struct journal_segment *oldest = e[0].record.segment;
    for (unsigned i = 0; i < 120 && e[i].record.segment == oldest; i++)
        journal_drop(b->journal, oldest);
    tick(b, 1000);
    assert_int_equal(stats(b).segments, 1);
}

#define TEST(name)      cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_SOON(name) cmocka_unit_test_setup_teardown(name, set_up_soon, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(records_are_reported_in_order_after_their_flush),
        TEST(a_flush_never_waits_for_company),
        TEST_SOON(what_comes_in_one_turn_shares_a_flush),
        TEST_SOON(what_follows_a_flush_that_fails_is_written_to_the_next_segment),
        TEST_SOON(what_may_still_be_amended_goes_behind_what_cannot),
        TEST_SOON(order_is_kept_where_followers_fill_a_segment),
        TEST_SOON(what_waits_for_the_turn_is_durable_before_the_end),
        TEST(a_batch_is_bounded_in_octets),
        TEST(the_next_segment_fills_while_the_current_one_does),
        TEST(what_a_partly_filled_segment_takes_is_counted),
        TEST_SOON(every_record_says_what_was_durable_before_it),
        TEST(an_idle_journal_vouches_for_its_last_records_once),
        TEST(a_full_segment_is_sealed_and_its_index_agrees_with_a_search),
        TEST(the_next_start_says_where_earlier_segments_end),
        TEST(a_failed_sync_is_not_tried_again_and_ends_its_segment),
        TEST(kept_records_are_written_to_the_next_segment_in_their_order),
        TEST(a_disk_that_goes_on_failing_is_tried_with_growing_pauses),
        TEST(ids_are_reserved_durably_before_they_are_given_out),
        TEST(segments_go_oldest_first_and_only_when_nobody_holds_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
