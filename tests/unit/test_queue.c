#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "queue/queue.h"
#include "queue/segment.h"
#include "tests/unit/spool_fixture.h"

#define LARGE (200 * 1024 + 7)
#define CHUNK 10000
#define HOUR  3600000u

static int set_up(void **state)
{
    struct spool_fixture *f = malloc(sizeof(*f));
    if (!f)
        return -1;
    fixture_init(f);
    *state = f;
    struct error err = ERROR_INIT;
    return fixture_open(f, &err) ? 0 : -1;
}

static int tear_down(void **state)
{
    fixture_done(*state);
    free(*state);
    return 0;
}

static void reopen(struct spool_fixture *f)
{
    struct error err = ERROR_INIT;
    fixture_close(f);
    assert_true(fixture_open(f, &err));
}

static void crash(struct spool_fixture *f)
{
    struct error err = ERROR_INIT;
    fixture_crash(f);
    if (!fixture_open(f, &err))
        fail_msg("%s", err.text);
}

static void ignore_drain(void *ctx)
{
    (void)ctx;
}

/* ---- accepting ------------------------------------------------------------------------------- */

static void a_message_reads_back_as_it_was_written(void **state)
{
    static const struct {
        const char *name;
        size_t size;
    } rows[] = {
        {"empty", 0},
        {"one octet", 1},
        {"largest small", QUEUE_SMALL_MAX},
        {"smallest large", QUEUE_SMALL_MAX + 1},
        {"exactly one block", QUEUE_BLOCK},
        {"exactly three blocks", 3 * QUEUE_BLOCK},
        {"many blocks and a rest", 50 * QUEUE_BLOCK + 12345},
    };
    struct spool_fixture *f = *state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct queue_info info;
        uint64_t id = fixture_accept(f, rows[i].size, i);
        if (!fixture_intact(f, id, rows[i].size, i))
            fail_msg("%s", rows[i].name);
        assert_true(queue_find(f->queue, id, &info));
        assert_int_equal(info.size, rows[i].size);
        assert_int_equal(info.large, rows[i].size > QUEUE_SMALL_MAX);
        assert_int_equal(info.state, QUEUE_QUEUED);
        assert_string_equal(info.route, "main");
    }
}

static void a_commit_reports_nothing_before_its_flush_has_ended(void **state)
{
    struct spool_fixture *f = *state;
    struct fixture_result r = {0};
    struct envelope e;
    struct queue_info info;
    struct queue_writer *w = fixture_write(f, 100, 1);
    uint64_t id = queue_writer_id(w);
    fixture_envelope(&e, 1);
    queue_commit(w, &e, f->now_ms, FIXTURE_WALL, fixture_committed, &r);
    envelope_done(&e);
    assert_int_equal(r.calls, 0);
    assert_false(queue_find(f->queue, id, &info));
    fixture_run(f);
    assert_int_equal(r.calls, 1);
    assert_true(r.ok);
    assert_true(queue_find(f->queue, id, &info));
}

static void commits_that_arrive_during_a_flush_share_the_next(void **state)
{
    struct spool_fixture *f = *state;
    struct fixture_result results[20] = {{0}};
    struct queue_counts before;
    struct queue_counts after;
    queue_counts(f->queue, &before);
    for (size_t i = 0; i < 20; i++) {
        struct envelope e;
        struct queue_writer *w = fixture_write(f, 1000, i);
        fixture_envelope(&e, 1);
        queue_commit(w, &e, f->now_ms, FIXTURE_WALL, fixture_committed, &results[i]);
        envelope_done(&e);
    }
    fixture_run(f);
    queue_counts(f->queue, &after);
    for (size_t i = 0; i < 20; i++)
        assert_true(results[i].ok);
    assert_int_equal(after.flushes - before.flushes, 3); /* one, what followed it, the others */
    assert_int_equal(after.commits, 20);
}

static void an_aborted_message_leaves_nothing(void **state)
{
    struct spool_fixture *f = *state;
    queue_abort(fixture_write(f, 100, 1));
    queue_abort(fixture_write(f, LARGE, 2));
    queue_abort(NULL);
    fixture_run(f);
    assert_int_equal(fixture_count(f), 0);
    assert_int_equal(fixture_files(f, "content"), 0);
    struct queue_counts counts;
    queue_counts(f->queue, &counts);
    assert_int_equal(counts.living_bytes, 0);
}

static void an_id_is_never_given_twice_even_after_a_crash(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_writer *w = fixture_write(f, 10, 1);
    uint64_t id = queue_writer_id(w);
    queue_abort(w);
    crash(f);
    w = fixture_write(f, 10, 1);
    assert_true(queue_writer_id(w) > id);
    queue_abort(w);
}

static void ids_go_on_without_a_gap_after_a_clean_end(void **state)
{
    struct spool_fixture *f = *state;
    uint64_t id = fixture_accept(f, 10, 1);
    reopen(f);
    assert_int_equal(fixture_accept(f, 10, 1), id + 1);
}

/* ---- a device's share ------------------------------------------------------------------------ */

static struct queue_writer *write_as(struct spool_fixture *f, const char *device, uint64_t share,
                                     size_t size, struct error *err)
{
    static uint8_t data[CHUNK];
    struct queue_writer *w = queue_begin(f->queue, LANE_NORMAL, ignore_drain, NULL, err);
    assert_non_null(w);
    bool ok = queue_writer_share(w, device, share, 0, err);
    for (size_t at = 0; ok && at < size; at += CHUNK) {
        ok = queue_append(w, data, size - at < CHUNK ? size - at : CHUNK, err) != QUEUE_FLOW_ERROR;
        fixture_run(f);
    }
    if (ok)
        return w;
    queue_abort(w);
    return NULL;
}

static uint64_t accept_as(struct spool_fixture *f, const char *device, uint64_t share, size_t size,
                          struct error *err)
{
    struct fixture_result r = {0};
    struct envelope e;
    struct queue_writer *w = write_as(f, device, share, size, err);
    if (!w)
        return 0;
    fixture_envelope(&e, 1);
    assert_true(envelope_set(&e.device, device));
    queue_commit(w, &e, f->now_ms, FIXTURE_WALL, fixture_committed, &r);
    envelope_done(&e);
    fixture_run(f);
    assert_true(r.ok);
    return r.id;
}

static void a_device_beyond_its_share_is_refused_and_others_are_not(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    assert_int_equal(queue_device_bytes(f->queue, "copier"), 0);
    uint64_t id = accept_as(f, "copier", 100000, 60000, &err);
    assert_int_equal(queue_device_bytes(f->queue, "copier"), 60000);
    assert_int_equal(accept_as(f, "copier", 100000, 40001, &err), 0);
    assert_int_equal(err.kind, ERROR_SHARE);
    assert_string_equal(err.text,
                        "the waiting mail of copier has reached its share of the spool (97.7 KB): "
                        "let mail leave, or raise max_spool of its [device] or of [devices]");
    assert_int_equal(queue_device_bytes(f->queue, "copier"), 60000);
    assert_int_not_equal(accept_as(f, "alarm", 100000, 90000, &err), 0);
    assert_int_not_equal(accept_as(f, "copier", 100000, 40000, &err), 0);
    assert_true(queue_delete(f->queue, id, NULL, NULL, &err));
    assert_int_equal(queue_device_bytes(f->queue, "copier"), 40000);
    assert_int_not_equal(accept_as(f, "copier", 0, 300000, &err), 0);
}

static void open_writers_count_for_their_device_until_they_end(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    struct queue_writer *writers[4];
    for (size_t i = 0; i < 4; i++) {
        writers[i] = write_as(f, "copier", 400000, 100000, &err);
        assert_non_null(writers[i]);
    }
    struct queue_writer *w = queue_begin(f->queue, LANE_NORMAL, ignore_drain, NULL, &err);
    assert_false(queue_writer_share(w, "copier", 400000, 0, &err));
    assert_int_equal(err.kind, ERROR_SHARE);
    queue_abort(w);
    assert_int_equal(queue_append(writers[0], "x", 1, &err), QUEUE_FLOW_ERROR);
    assert_int_equal(err.kind, ERROR_SHARE);
    queue_abort(writers[0]); /* its room is there for the others at once */
    assert_int_equal(queue_device_bytes(f->queue, "copier"), 300000);
    assert_int_not_equal(queue_append(writers[1], "x", 1, &err), QUEUE_FLOW_ERROR);
    for (size_t i = 1; i < 4; i++)
        queue_abort(writers[i]);
    fixture_run(f);
    assert_int_equal(queue_device_bytes(f->queue, "copier"), 0);
}

static void a_size_that_is_announced_counts_for_the_share(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    struct queue_writer *w = queue_begin(f->queue, LANE_NORMAL, ignore_drain, NULL, &err);
    assert_false(queue_writer_share(w, "copier", 1000, 1001, &err));
    queue_abort(w);
    w = queue_begin(f->queue, LANE_NORMAL, ignore_drain, NULL, &err);
    assert_true(queue_writer_share(w, "copier", 1000, 1000, &err));
    queue_abort(w);
}

static void what_a_device_has_is_known_after_a_crash(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    accept_as(f, "copier", 0, 3000, &err);
    accept_as(f, "copier", 0, LARGE, &err);
    uint64_t id = accept_as(f, "alarm", 0, 500, &err);
    crash(f);
    assert_int_equal(queue_device_bytes(f->queue, "copier"), 3000 + LARGE);
    assert_int_equal(queue_device_bytes(f->queue, "alarm"), 500);
    assert_true(queue_delete(f->queue, id, NULL, NULL, &err));
    reopen(f);
    assert_int_equal(queue_device_bytes(f->queue, "alarm"), 0);
}

/* ---- fragments ------------------------------------------------------------------------------- */

struct part_row {
    uint64_t group;
    uint32_t number;
    uint32_t joined;
    size_t size;
};

static uint64_t accept_part(struct spool_fixture *f, const struct part_row *row)
{
    struct fixture_result r = {0};
    struct envelope e;
    struct queue_writer *w = fixture_write(f, row->size, row->number);
    fixture_envelope(&e, 1);
    assert_true(envelope_set(&e.partial_id, "scan-7@copier"));
    e.partial_number = row->number;
    e.partial_total = 3;
    e.partial_group = row->group;
    e.partial_kin = 0xfeed;
    e.partial_wait_ms = HOUR;
    e.joined = row->joined;
    e.arrived_ms = FIXTURE_WALL + f->now_ms;
    queue_commit(w, &e, f->now_ms, FIXTURE_WALL + f->now_ms, fixture_committed, &r);
    envelope_done(&e);
    fixture_run(f);
    assert_true(r.ok);
    return r.id;
}

static void a_fragment_waits_for_its_siblings_also_after_a_crash(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_info info;
    struct fixture_mail mail;
    const struct part_row row = {.group = 99, .number = 2, .size = 100};
    uint64_t id = accept_part(f, &row);
    assert_false(fixture_pick(f, &info));
    f->now_ms += HOUR / 2;
    crash(f);
    assert_true(queue_find(f->queue, id, &info));
    assert_int_equal(info.due_ms, f->now_ms + HOUR / 2);
    assert_int_equal(info.part.kind, RECORD_FRAGMENT);
    assert_int_equal(info.part.group, 99);
    assert_int_equal(info.part.kin, 0xfeed);
    assert_int_equal(info.part.number, 2);
    assert_int_equal(info.part.total, 3);
    assert_string_equal(info.device, "printer");
    fixture_read(f, id, &mail);
    assert_string_equal(mail.envelope.partial_id, "scan-7@copier");
    assert_int_equal(mail.envelope.partial_group, 99);
    fixture_mail_done(&mail);
    assert_false(fixture_pick(f, &info));
    f->now_ms += HOUR / 2;
    assert_true(fixture_pick(f, &info));
    assert_int_equal(info.id, id);
    queue_release(f->queue, id, f->now_ms);
}

static void a_joined_message_stands_in_for_its_fragments_after_a_crash(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_info info;
    const struct part_row first = {.group = 99, .number = 1, .size = 3000};
    const struct part_row second = {.group = 99, .number = 2, .size = LARGE};
    const struct part_row other = {.group = 77, .number = 1, .size = 10};
    const struct part_row whole = {.group = 99, .joined = 2, .size = LARGE + 3000};
    accept_part(f, &first);
    accept_part(f, &second);
    uint64_t stays = accept_part(f, &other);
    uint64_t joined = accept_part(f, &whole);
    crash(f); /* no fragment was settled */
    assert_int_equal(f->found.messages, 2);
    assert_int_equal(f->found.damaged, 0);
    assert_true(queue_find(f->queue, stays, &info));
    assert_true(fixture_pick(f, &info));
    assert_int_equal(info.id, joined);
    assert_int_equal(info.part.kind, RECORD_JOINED);
    assert_true(fixture_intact(f, joined, LARGE + 3000, 0));
    assert_int_equal(fixture_files(f, "content"), 1);
    fixture_settle(f, joined, QUEUE_GONE, RECIPIENT_DELIVERED, 0, NULL);
    fixture_run(f);
    crash(f); /* it has left, and its fragments do not come back */
    assert_int_equal(f->found.messages, 1);
    fixture_tick(f, 3);
    reopen(f);
    assert_int_equal(f->found.messages, 1);
}

static void a_lease_takes_what_is_not_due_and_nothing_else(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_info info;
    struct error err = ERROR_INIT;
    const struct part_row row = {.group = 99, .number = 1, .size = 100};
    uint64_t id = accept_part(f, &row);
    assert_true(queue_lease(f->queue, id, &info));
    assert_true(info.in_flight);
    assert_false(queue_lease(f->queue, id, &info));
    assert_false(queue_delete(f->queue, id, NULL, NULL, &err));
    assert_int_equal(err.kind, ERROR_BUSY);
    f->now_ms += 2 * HOUR;
    assert_false(fixture_pick(f, &info));
    queue_release(f->queue, id, f->now_ms);
    assert_true(fixture_pick(f, &info));
    fixture_settle(f, id, QUEUE_HELD, RECIPIENT_PENDING, 0, NULL);
    assert_false(queue_lease(f->queue, id, &info));
    assert_false(queue_lease(f->queue, id + 1, &info));
    fixture_run(f);
}

/* ---- recovery -------------------------------------------------------------------------------- */

static void acknowledged_mail_is_there_after_a_crash_and_after_a_clean_end(void **state)
{
    struct spool_fixture *f = *state;
    uint64_t small = fixture_accept(f, 3000, 1);
    uint64_t large = fixture_accept(f, LARGE, 2);
    crash(f);
    assert_int_equal(f->found.messages, 2);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(f->found.torn, 0);
    assert_true(fixture_intact(f, small, 3000, 1));
    assert_true(fixture_intact(f, large, LARGE, 2));
    reopen(f);
    assert_int_equal(f->found.messages, 2);
    assert_true(fixture_intact(f, small, 3000, 1));
    assert_true(fixture_intact(f, large, LARGE, 2));
}

static void settled_mail_stays_settled(void **state)
{
    struct spool_fixture *f = *state;
    struct fixture_result r;
    struct queue_info info;
    uint64_t gone = fixture_accept(f, 100, 1);
    assert_true(fixture_pick(f, &info));
    assert_int_equal(info.id, gone);
    fixture_settle(f, gone, QUEUE_GONE, RECIPIENT_DELIVERED, 0, &r);
    assert_int_equal(fixture_count(f), 0);
    assert_int_equal(r.calls, 0);
    fixture_run(f);
    assert_true(r.ok);
    crash(f);
    assert_int_equal(f->found.messages, 0);
}

static void the_body_of_settled_mail_is_removed(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_info info;
    fixture_accept(f, LARGE, 1);
    assert_int_equal(fixture_files(f, "content"), 1);
    assert_true(fixture_pick(f, &info));
    fixture_settle(f, info.id, QUEUE_GONE, RECIPIENT_DELIVERED, 0, NULL);
    fixture_run(f);
    assert_int_equal(fixture_files(f, "content"), 0);
}

static void a_deferral_survives_with_what_is_left_of_its_wait(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_info info;
    struct fixture_mail mail;
    uint64_t id = fixture_accept(f, 100, 1);
    assert_true(fixture_pick(f, &info));
    fixture_settle(f, id, QUEUE_QUEUED, RECIPIENT_PENDING, 60000, NULL);
    fixture_run(f);
    assert_false(fixture_pick(f, &info));
    f->now_ms += 20000;
    crash(f);
    assert_true(queue_find(f->queue, id, &info));
    assert_int_equal(info.due_ms, f->now_ms + 40000);
    assert_int_equal(info.attempts, 1);
    assert_int_equal(info.tried_ms, 5000);
    fixture_read(f, id, &mail);
    assert_string_equal(mail.envelope.recipients[0].reply, "451 4.7.500 server busy");
    fixture_mail_done(&mail);
    f->now_ms += 40000;
    assert_true(fixture_pick(f, &info));
    queue_release(f->queue, id, f->now_ms);
}

static void mail_in_doubt_becomes_uncertain_and_waits(void **state)
{
    struct spool_fixture *f = *state;
    struct fixture_result r = {0};
    struct queue_info info;
    uint64_t id = fixture_accept(f, 100, 1);
    assert_true(fixture_pick(f, &info));
    queue_doubt(f->queue, id, FIXTURE_WALL, fixture_done_fn, &r);
    assert_int_equal(r.calls, 0);
    fixture_run(f);
    assert_true(r.ok);
    crash(f);
    assert_int_equal(f->found.uncertain, 1);
    assert_true(queue_find(f->queue, id, &info));
    assert_int_equal(info.state, QUEUE_UNCERTAIN);
    assert_int_equal(info.due_ms, f->now_ms + 900000);
    fixture_run(f);
    f->now_ms += 300000;
    crash(f); /* the wait goes on; it does not begin again */
    assert_int_equal(f->found.uncertain, 0);
    assert_true(queue_find(f->queue, id, &info));
    assert_int_equal(info.state, QUEUE_UNCERTAIN);
    assert_int_equal(info.due_ms, f->now_ms + 600000);
}

static void each_further_loss_waits_longer_urgent_mail_less(void **state)
{
    struct spool_fixture *f = *state;
    static const uint64_t minutes[2][3] = {{15, 60, 240}, {1, 4, 16}};
    f->options.uncertain_wait_urgent_ms = 60000;
    for (int urgent = 0; urgent < 2; urgent++) {
        struct queue_info info;
        struct fixture_result committed = {0};
        struct envelope e;
        fixture_envelope(&e, 1);
        e.lane = urgent ? LANE_URGENT : LANE_NORMAL;
        queue_commit(fixture_write(f, 100, 1), &e, f->now_ms, FIXTURE_WALL, fixture_committed,
                     &committed);
        envelope_done(&e);
        fixture_run(f);
        assert_true(committed.ok);
        uint64_t id = committed.id;
        for (unsigned i = 0; i < 3; i++) {
            assert_true(fixture_pick(f, &info));
            assert_int_equal(info.losses, i);
            queue_doubt(f->queue, id, FIXTURE_WALL, fixture_done_fn, NULL);
            fixture_run(f);
            crash(f);
            crash(f);
            assert_true(queue_find(f->queue, id, &info));
            assert_int_equal(info.state, QUEUE_UNCERTAIN);
            assert_int_equal(info.losses, i + 1);
            assert_int_equal(info.due_ms, f->now_ms + minutes[urgent][i] * 60000);
            f->now_ms = info.due_ms;
        }
        assert_true(fixture_pick(f, &info));
        fixture_settle(f, id, QUEUE_GONE, RECIPIENT_DELIVERED, 0, NULL);
        fixture_run(f);
    }
}

static void no_step_of_the_wall_clock_moves_what_waits(void **state)
{
    struct spool_fixture *f = *state;
    static const int64_t steps[] = {86400000, -2 * 86400000ll};
    struct queue_info info;
    uint64_t id = fixture_accept(f, 100, 1);
    for (size_t i = 0; i < 2; i++) {
        uint64_t due = f->now_ms + 60000;
        assert_true(fixture_pick(f, &info));
        fixture_settle(f, id, QUEUE_QUEUED, RECIPIENT_PENDING, 60000, NULL);
        fixture_run(f);
        queue_tick(f->queue, f->now_ms + 1000, (uint64_t)((int64_t)FIXTURE_WALL + steps[i]));
        fixture_run(f);
        assert_true(queue_find(f->queue, id, &info));
        assert_int_equal(info.due_ms, due);
        assert_int_equal(info.state, QUEUE_QUEUED);
        f->now_ms = due - 1;
        assert_false(fixture_pick(f, &info));
        f->now_ms = due;
    }
    assert_true(fixture_pick(f, &info));
    queue_release(f->queue, id, f->now_ms);
}

static void a_settled_doubt_is_no_doubt(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_info info;
    uint64_t id = fixture_accept(f, 100, 1);
    assert_true(fixture_pick(f, &info));
    queue_doubt(f->queue, id, FIXTURE_WALL, fixture_done_fn, NULL);
    fixture_run(f);
    fixture_settle(f, id, QUEUE_QUEUED, RECIPIENT_PENDING, 1000, NULL);
    fixture_run(f);
    crash(f);
    assert_int_equal(f->found.uncertain, 0);
    assert_true(queue_find(f->queue, id, &info));
    assert_int_equal(info.state, QUEUE_QUEUED);
}

static void a_body_without_a_record_is_removed(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_writer *w = fixture_write(f, LARGE, 1);
    fixture_run(f);
    assert_int_equal(fixture_files(f, "content"), 1);
    queue_abort(w);
    fixture_run(f);
    assert_int_equal(fixture_files(f, "content"), 0);
    char path[128];
    snprintf(path, sizeof(path), "%s/content/%016x.body", f->dir, 0x999);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fclose(file);
    crash(f);
    assert_int_equal(f->found.orphans, 1);
    assert_int_equal(fixture_files(f, "content"), 0);
    w = fixture_write(f, 1, 1);
    assert_true(queue_writer_id(w) > 0x999);
    queue_abort(w);
}

/* The damaged START had the only head of its segment. */
static void a_deletion_counts_when_its_segment_has_nothing_else_left(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    uint64_t id = fixture_accept(f, 900, 1);
    uint64_t other = fixture_accept(f, 900, 2);
    reopen(f);
    assert_true(queue_delete(f->queue, id, NULL, NULL, &err));
    fixture_run(f);
    fixture_crash(f);
    fixture_flip(fixture_path(f, "journal", 1), SEGMENT_BLOCK + 8, 1);
    assert_true(fixture_open(f, &err));
    assert_int_equal(fixture_count(f), 1);
    assert_true(fixture_intact(f, other, 900, 2));
    assert_int_equal(f->found.damaged, 1);
}

static void a_second_opening_is_refused(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    struct queue_options options = f->options;
    assert_null(queue_open(&options, NULL, &err));
    assert_int_equal(err.kind, ERROR_BUSY);
    assert_non_null(strstr(err.text, f->dir));
}

static void a_spool_of_another_format_is_refused(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    char path[128];
    fixture_close(f);
    snprintf(path, sizeof(path), "%s/format", f->dir);
    fixture_flip(path, -2, 3);
    assert_false(fixture_open(f, &err));
    assert_int_equal(err.kind, ERROR_INVALID);
}

static void reading_only_changes_nothing(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    struct queue_info info;
    uint64_t id = fixture_accept(f, LARGE, 1);
    size_t segments = fixture_files(f, "journal");
    struct queue *daemon = f->queue;
    f->options.read_only = true;
    assert_true(fixture_open(f, &err)); /* beside the one that has it open */
    assert_int_equal(f->found.messages, 1);
    assert_true(queue_find(f->queue, id, &info));
    assert_true(fixture_intact(f, id, LARGE, 1));
    assert_null(queue_begin(f->queue, LANE_NORMAL, NULL, NULL, &err));
    assert_false(queue_delete(f->queue, id, NULL, NULL, &err));
    fixture_tick(f, 3);
    queue_close(f->queue);
    assert_int_equal(fixture_files(f, "journal"), segments);
    f->queue = daemon;
}

static void reading_only_works_without_an_executor(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    uint64_t id = fixture_accept(f, LARGE, 1);
    struct queue *daemon = f->queue;
    struct queue_options options = f->options;
    options.read_only = true;
    options.executor = (struct executor){0};
    f->queue = queue_open(&options, &f->found, &err);
    assert_non_null(f->queue);
    assert_true(fixture_intact(f, id, LARGE, 1));
    queue_close(f->queue);
    f->queue = daemon;
}

/* ---- operating ------------------------------------------------------------------------------- */

static void what_is_being_sent_is_busy(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    struct queue_info info;
    uint64_t id = fixture_accept(f, 10, 1);
    assert_true(fixture_pick(f, &info));
    assert_false(queue_delete(f->queue, id, NULL, NULL, &err));
    assert_int_equal(err.kind, ERROR_BUSY);
    assert_false(queue_retry(f->queue, id, f->now_ms, FIXTURE_WALL, &err));
    assert_int_equal(err.kind, ERROR_BUSY);
    queue_release(f->queue, id, f->now_ms);
    assert_true(queue_delete(f->queue, id, NULL, NULL, &err));
    assert_false(queue_delete(f->queue, id, NULL, NULL, &err));
    assert_int_equal(err.kind, ERROR_MISSING);
}

static void retried_dead_mail_is_tried_for_all_who_did_not_get_it(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    struct queue_info info;
    struct fixture_mail mail;
    uint64_t id = fixture_accept(f, 10, 1);
    assert_true(fixture_pick(f, &info));
    fixture_settle(f, id, QUEUE_DEAD, RECIPIENT_FAILED, 0, NULL);
    fixture_run(f);
    assert_false(fixture_pick(f, &info));
    fixture_read(f, id, &mail);
    assert_int_equal(mail.envelope.recipients[0].state, RECIPIENT_FAILED);
    fixture_mail_done(&mail);
    assert_true(queue_retry(f->queue, id, f->now_ms, FIXTURE_WALL, &err));
    fixture_run(f);
    crash(f);
    assert_true(fixture_pick(f, &info));
    assert_int_equal(info.id, id);
    assert_int_equal(info.tried_ms, 0);
    fixture_read(f, id, &mail);
    assert_int_equal(mail.envelope.recipients[0].state, RECIPIENT_PENDING);
    fixture_mail_done(&mail);
    queue_release(f->queue, id, f->now_ms);
}

static void held_mail_waits_for_the_operator(void **state)
{
    struct spool_fixture *f = *state;
    struct error err = ERROR_INIT;
    struct queue_info info;
    uint64_t id = fixture_accept(f, 10, 1);
    assert_true(fixture_pick(f, &info));
    fixture_settle(f, id, QUEUE_HELD, RECIPIENT_PENDING, 0, NULL);
    fixture_run(f);
    f->now_ms += 1000000000;
    assert_false(fixture_pick(f, &info));
    crash(f);
    assert_false(fixture_pick(f, &info));
    assert_true(queue_retry(f->queue, id, f->now_ms, FIXTURE_WALL, &err));
    assert_true(fixture_pick(f, &info));
    fixture_settle(f, id, QUEUE_GONE, RECIPIENT_DELIVERED, 0, NULL);
    fixture_run(f);
}

static void counts_follow_every_change(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_info info;
    struct queue_counts c;
    fixture_accept(f, 10, 1);
    fixture_accept(f, 20, 1);
    uint64_t large = fixture_accept(f, LARGE, 1);
    queue_counts(f->queue, &c);
    assert_int_equal(c.state[QUEUE_QUEUED], 3);
    assert_int_equal(c.lane[LANE_NORMAL], 3);
    assert_int_equal(c.living_bytes, 30 + LARGE);
    assert_int_equal(c.in_flight, 0);
    assert_true(fixture_pick(f, &info));
    queue_counts(f->queue, &c);
    assert_int_equal(c.in_flight, 1);
    fixture_settle(f, info.id, QUEUE_HELD, RECIPIENT_PENDING, 0, NULL);
    queue_counts(f->queue, &c);
    assert_int_equal(c.in_flight, 0);
    assert_int_equal(c.state[QUEUE_HELD], 1);
    assert_int_equal(c.lane[LANE_NORMAL], 2);
    struct error err = ERROR_INIT;
    assert_true(queue_delete(f->queue, large, NULL, NULL, &err));
    queue_counts(f->queue, &c);
    assert_int_equal(c.living_bytes, 30);
    assert_false(c.failing);
    fixture_run(f);
}

static void an_outcome_under_way_is_seen_by_the_next_reader(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_info info;
    struct fixture_mail mail;
    uint64_t id = fixture_accept(f, 10, 1);
    assert_true(fixture_pick(f, &info));
    fixture_settle(f, id, QUEUE_QUEUED, RECIPIENT_DELIVERED, 0, NULL);
    assert_true(fixture_pick(f, &info)); /* before it is durable */
    fixture_read(f, id, &mail);
    assert_int_equal(mail.envelope.recipients[0].state, RECIPIENT_DELIVERED);
    fixture_mail_done(&mail);
    queue_release(f->queue, id, f->now_ms);
}

static void results_may_come_in_any_order(void **state)
{
    struct spool_fixture *f = *state;
    f->executor.reversed = true;
    for (uint64_t i = 0; i < 30; i++) {
        size_t size = i % 3 == 0 ? LARGE : 1000 * i;
        uint64_t id = fixture_accept(f, size, i);
        assert_true(fixture_intact(f, id, size, i));
    }
    fixture_tick(f, 2);
    crash(f);
    assert_int_equal(fixture_count(f), 30);
}

/* ---- many segments --------------------------------------------------------------------------- */

static void the_journal_goes_on_in_new_segments(void **state)
{
    struct spool_fixture *f = *state;
    for (uint64_t i = 0; i < 200; i++)
        fixture_accept(f, 50000, i);
    struct queue_counts c;
    queue_counts(f->queue, &c);
    assert_true(c.segments >= 7);
    crash(f);
    assert_int_equal(f->found.messages, 200);
    assert_int_equal(f->found.damaged, 0);
    reopen(f);
    assert_int_equal(f->found.messages, 200);
    uint64_t seed = 0;
    struct queue_info info = {0};
    while (queue_list(f->queue, info.id, &info))
        assert_true(fixture_intact(f, info.id, 50000, seed++));
    assert_int_equal(seed, 200);
}

static void segments_in_which_nothing_lives_are_removed(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_info info;
    for (uint64_t i = 0; i < 200; i++) {
        fixture_accept(f, 50000, i);
        assert_true(fixture_pick(f, &info));
        fixture_settle(f, info.id, QUEUE_GONE, RECIPIENT_DELIVERED, 0, NULL);
        fixture_run(f);
    }
    struct queue_counts c;
    fixture_tick(f, 1);
    queue_counts(f->queue, &c);
    assert_true(c.segments <= 2);
    assert_true(fixture_files(f, "journal") <= 4);
    crash(f);
    assert_int_equal(f->found.messages, 0);
}

static void a_straggler_is_carried_forward(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_info info;
    struct queue_counts c;
    struct error err = ERROR_INIT;
    uint64_t held = fixture_accept(f, 5000, 77);
    assert_true(fixture_pick(f, &info));
    fixture_settle(f, held, QUEUE_HELD, RECIPIENT_PENDING, 0, NULL);
    fixture_run(f);
    for (uint64_t i = 0; i < 300; i++) {
        fixture_accept(f, 50000, i);
        assert_true(fixture_pick(f, &info));
        fixture_settle(f, info.id, QUEUE_GONE, RECIPIENT_DELIVERED, 0, NULL);
        fixture_run(f);
    }
    queue_counts(f->queue, &c);
    assert_true(c.segments >= 10);
    fixture_tick(f, 3);
    queue_counts(f->queue, &c);
    assert_true(c.segments <= 2);
    assert_true(c.disk_bytes <= 2 * 5000 + 5 * 1536 * 1024);
    assert_true(fixture_intact(f, held, 5000, 77));
    crash(f);
    assert_int_equal(f->found.messages, 1);
    assert_true(queue_find(f->queue, held, &info));
    assert_int_equal(info.state, QUEUE_HELD);
    assert_int_equal(info.attempts, 1);
    struct fixture_mail mail;
    fixture_read(f, held, &mail);
    assert_string_equal(mail.envelope.recipients[0].reply, "451 4.7.500 server busy");
    fixture_mail_done(&mail);
    assert_true(fixture_intact(f, held, 5000, 77));
    assert_true(queue_delete(f->queue, held, NULL, NULL, &err));
    fixture_run(f);
    crash(f);
    assert_int_equal(f->found.messages, 0);
}

static void many_restarts_leave_few_segments(void **state)
{
    struct spool_fixture *f = *state;
    uint64_t id = fixture_accept(f, 5000, 1);
    for (int i = 0; i < 20; i++) {
        crash(f);
        fixture_tick(f, 3);
    }
    assert_true(fixture_files(f, "journal") <= 7);
    assert_true(fixture_intact(f, id, 5000, 1));
}

static void ids_are_written_and_read_as_hex(void **state)
{
    (void)state;
    char text[QUEUE_ID_TEXT];
    uint64_t id = 0;
    queue_id_text(0x4f, text);
    assert_string_equal(text, "004f");
    queue_id_text(UINT64_MAX, text);
    assert_string_equal(text, "ffffffffffffffff");
    assert_true(queue_id_parse(text, &id));
    assert_int_equal(id, UINT64_MAX);
    assert_true(queue_id_parse("4F2a", &id));
    assert_int_equal(id, 0x4f2a);
    assert_false(queue_id_parse("", &id));
    assert_false(queue_id_parse("4g", &id));
    assert_false(queue_id_parse("0x4f", &id));
    assert_false(queue_id_parse("11111111111111111", &id));
}

static void how_long_a_message_waits_is_told_by_the_monotonic_clock(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_info info;
    uint64_t id = fixture_accept(f, 100, 1);
    assert_true(queue_find(f->queue, id, &info));
    assert_int_equal(info.since_ms, f->now_ms);
    f->now_ms += 5 * HOUR;
    reopen(f); /* now the wall clock is all there is */
    uint64_t wall = FIXTURE_WALL + f->now_ms;
    uint64_t age = wall > info.arrived_ms ? wall - info.arrived_ms : 0;
    assert_true(queue_find(f->queue, id, &info));
    assert_true(info.since_ms == (int64_t)f->now_ms - (int64_t)age);
}

static void a_recorded_attempt_is_known_also_after_a_crash(void **state)
{
    struct spool_fixture *f = *state;
    struct queue_info info;
    struct fixture_result r = {0};
    uint64_t id = fixture_accept(f, 100, 1);
    assert_true(queue_find(f->queue, id, &info));
    assert_false(info.has_outcomes);
    assert_true(fixture_pick(f, &info));
    fixture_settle(f, id, QUEUE_QUEUED, RECIPIENT_PENDING, HOUR, &r);
    fixture_run(f);
    assert_true(queue_find(f->queue, id, &info));
    assert_true(info.has_outcomes);
    crash(f);
    assert_true(queue_find(f->queue, id, &info));
    assert_true(info.has_outcomes);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_message_reads_back_as_it_was_written),
        TEST(a_commit_reports_nothing_before_its_flush_has_ended),
        TEST(commits_that_arrive_during_a_flush_share_the_next),
        TEST(an_aborted_message_leaves_nothing),
        TEST(an_id_is_never_given_twice_even_after_a_crash),
        TEST(ids_go_on_without_a_gap_after_a_clean_end),
        TEST(a_device_beyond_its_share_is_refused_and_others_are_not),
        TEST(open_writers_count_for_their_device_until_they_end),
        TEST(a_size_that_is_announced_counts_for_the_share),
        TEST(what_a_device_has_is_known_after_a_crash),
        TEST(a_fragment_waits_for_its_siblings_also_after_a_crash),
        TEST(a_joined_message_stands_in_for_its_fragments_after_a_crash),
        TEST(a_lease_takes_what_is_not_due_and_nothing_else),
        TEST(acknowledged_mail_is_there_after_a_crash_and_after_a_clean_end),
        TEST(settled_mail_stays_settled),
        TEST(how_long_a_message_waits_is_told_by_the_monotonic_clock),
        TEST(a_recorded_attempt_is_known_also_after_a_crash),
        TEST(the_body_of_settled_mail_is_removed),
        TEST(a_deferral_survives_with_what_is_left_of_its_wait),
        TEST(mail_in_doubt_becomes_uncertain_and_waits),
        TEST(each_further_loss_waits_longer_urgent_mail_less),
        TEST(no_step_of_the_wall_clock_moves_what_waits),
        TEST(a_settled_doubt_is_no_doubt),
        TEST(a_body_without_a_record_is_removed),
        TEST(a_deletion_counts_when_its_segment_has_nothing_else_left),
        TEST(a_second_opening_is_refused),
        TEST(a_spool_of_another_format_is_refused),
        TEST(reading_only_changes_nothing),
        TEST(reading_only_works_without_an_executor),
        TEST(what_is_being_sent_is_busy),
        TEST(retried_dead_mail_is_tried_for_all_who_did_not_get_it),
        TEST(held_mail_waits_for_the_operator),
        TEST(counts_follow_every_change),
        TEST(an_outcome_under_way_is_seen_by_the_next_reader),
        TEST(results_may_come_in_any_order),
        TEST(the_journal_goes_on_in_new_segments),
        TEST(segments_in_which_nothing_lives_are_removed),
        TEST(a_straggler_is_carried_forward),
        TEST(many_restarts_leave_few_segments),
        cmocka_unit_test(ids_are_written_and_read_as_hex),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
