/*
 * Flipped bits and cut files: what is hit is set aside, held and reported; everything else is
 * served.
 */
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

#include "queue/queue.h"
#include "queue/segment.h"
#include "tests/unit/spool_fixture.h"

#define MESSAGES 8
#define SIZE     300
#define LARGE    (3 * QUEUE_BLOCK + 1000)

struct damage {
    struct spool_fixture f;
    uint64_t ids[MESSAGES];
    char path[512];
};

static int set_up(void **state)
{
    struct damage *d = calloc(1, sizeof(*d));
    if (!d)
        return -1;
    fixture_init(&d->f);
    *state = d;
    struct error err = ERROR_INIT;
    return fixture_open(&d->f, &err) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct damage *d = *state;
    fixture_done(&d->f);
    free(d);
    return 0;
}

static void open_again(struct damage *d, bool read_only)
{
    struct error err = ERROR_INIT;
    d->f.options.read_only = read_only;
    if (!fixture_open(&d->f, &err))
        fail_msg("%s", err.text);
}

static void keep_path(struct damage *d, const char *directory, size_t n)
{
    snprintf(d->path, sizeof(d->path), "%s", fixture_path(&d->f, directory, n));
}

/* Eight messages: the first is gone, the second was deferred, the third is in doubt. */
static void fill(struct damage *d)
{
    struct queue_info info;
    for (uint64_t i = 0; i < MESSAGES; i++)
        d->ids[i] = fixture_accept(&d->f, SIZE, i);
    assert_true(fixture_pick(&d->f, &info));
    assert_int_equal(info.id, d->ids[0]);
    fixture_settle(&d->f, info.id, QUEUE_GONE, RECIPIENT_DELIVERED, 0, NULL);
    assert_true(fixture_pick(&d->f, &info));
    fixture_settle(&d->f, info.id, QUEUE_QUEUED, RECIPIENT_PENDING, 3600000, NULL);
    assert_true(fixture_pick(&d->f, &info));
    queue_doubt(d->f.queue, info.id, FIXTURE_WALL, fixture_done_fn, NULL);
    fixture_run(&d->f);
    fixture_tick(&d->f, 3); /* with nothing to do, what is durable is vouched for */
}

static uint32_t used_octets(const char *path)
{
    static uint8_t data[2 * 1024 * 1024];
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t len = fread(data, 1, sizeof(data), file);
    fclose(file);
    while (len > 0 && data[len - 1] == 0)
        len--;
    return (uint32_t)len;
}

/* How many messages are not exactly as they were. */
static unsigned count_hit(struct damage *d)
{
    unsigned hit = 0;
    struct queue_info info;
    for (size_t i = 0; i < MESSAGES; i++) {
        bool there = queue_find(d->f.queue, d->ids[i], &info);
        if (i == 0) {
            hit += there;
            continue;
        }
        enum queue_state state = i == 2 ? QUEUE_UNCERTAIN : QUEUE_QUEUED;
        bool same = there && info.state == state && (i != 1 || info.attempts == 1) &&
                    !info.damaged && fixture_intact(&d->f, d->ids[i], SIZE, i);
        hit += !same;
    }
    return hit;
}

/* ---- segments -------------------------------------------------------------------------------- */

static void one_flipped_bit_hits_one_record_at_most_and_is_reported(void **state)
{
    struct damage *d = *state;
    fill(d);
    fixture_crash(&d->f);
    keep_path(d, "journal", 0);
    uint32_t used = used_octets(d->path);
    open_again(d, true);
    assert_int_equal(count_hit(d), 0);
    assert_int_equal(d->f.found.damaged, 0);
    fixture_close(&d->f);
    unsigned hits = 0;
    uint32_t mark = segment_span(17, 0); /* the last record vouches, and nobody for it */
    for (uint32_t at = 0; at < used - mark; at += at < SEGMENT_BLOCK ? 97 : 1) {
        fixture_flip(d->path, (long)at, (uint8_t)(1u << (at % 8)));
        open_again(d, true);
        unsigned hit = count_hit(d);
        hits += hit;
        if (hit > 1)
            fail_msg("octet %u: %u messages hit", at, hit);
        if (hit == 1 && d->f.found.damaged == 0)
            fail_msg("octet %u: not reported", at);
        fixture_close(&d->f);
        fixture_flip(d->path, (long)at, (uint8_t)(1u << (at % 8)));
    }
    assert_true(hits > 2000); /* the flips did hit something */
}

static size_t read_file(const char *path, uint8_t *out, size_t cap)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t len = fread(out, 1, cap, file);
    fclose(file);
    return len;
}

struct place {
    uint32_t offset;
    uint32_t end;
    uint64_t id;
};

/* Where the segment's records are. */
static size_t find_records(const char *path, struct place *out, size_t cap)
{
    static uint8_t data[2 * 1024 * 1024];
    struct segment_header h;
    struct segment_record r;
    size_t n = 0;
    size_t len = read_file(path, data, sizeof(data));
    assert_true(segment_decode_header(data, &h));
    for (uint32_t at = SEGMENT_BLOCK; at + SEGMENT_RECORD_HEADER <= len && n < cap; n++) {
        if (!segment_decode_record(data + at, h.salt, at, &r))
            break;
        out[n] = (struct place){at, at + segment_span(r.head_len, r.body_len), r.id};
        at = out[n].end;
    }
    return n;
}

/* Flips one bit, looks, and flips it back. */
static unsigned hit_by(struct damage *d, uint32_t at, unsigned bit, bool *out_reported)
{
    fixture_flip(d->path, (long)at, (uint8_t)(1u << bit));
    open_again(d, true);
    unsigned hit = count_hit(d);
    *out_reported = d->f.found.damaged > 0;
    fixture_close(&d->f);
    fixture_flip(d->path, (long)at, (uint8_t)(1u << bit));
    return hit;
}

#define LENGTHS_AT     30u /* in a record: of head and body */
#define LENGTHS_OCTETS 6u

static void a_flipped_bit_in_any_length_of_a_record_hides_nothing_behind_it(void **state)
{
    struct damage *d = *state;
    struct place places[32];
    bool reported;
    fill(d);
    fixture_crash(&d->f);
    keep_path(d, "journal", 0);
    size_t n = find_records(d->path, places, 32);
    assert_in_range(n, MESSAGES + 4, 31);
    for (size_t i = 0; i + 1 < n; i++)
        for (unsigned bit = 0; bit < LENGTHS_OCTETS * 8; bit++) {
            unsigned hit = hit_by(d, places[i].offset + LENGTHS_AT + bit / 8, bit % 8, &reported);
            if (hit > 1 || !reported)
                fail_msg("record %zu, bit %u: %u messages hit", i, bit, hit);
        }
}

static void a_flipped_bit_in_index_or_footer_of_a_sealed_segment_loses_nothing(void **state)
{
    struct damage *d = *state;
    struct place places[32];
    struct segment_footer footer = {0};
    struct segment_header h;
    static uint8_t data[2 * 1024 * 1024];
    bool reported;
    fill(d);
    fixture_settle(&d->f, d->ids[2], QUEUE_UNCERTAIN, RECIPIENT_PENDING, 900000, NULL);
    fixture_close(&d->f); /* seals */
    keep_path(d, "journal", 0);
    size_t len = read_file(d->path, data, sizeof(data));
    size_t n = find_records(d->path, places, 32);
    assert_true(segment_decode_header(data, &h));
    assert_true(segment_decode_footer(data + len - SEGMENT_FOOTER, &h, &footer));
    assert_int_equal(footer.end, places[n - 1].end);
    for (uint32_t at = footer.end; at < footer.end + footer.index_len; at++)
        assert_int_equal(hit_by(d, at, at % 8, &reported), 0);
    for (unsigned bit = 0; bit < SEGMENT_FOOTER * 8; bit++)
        assert_int_equal(hit_by(d, (uint32_t)len - SEGMENT_FOOTER + bit / 8, bit % 8, &reported),
                         0);
}

static void a_segment_cut_anywhere_serves_what_is_before_the_cut(void **state)
{
    struct damage *d = *state;
    struct place places[32];
    fill(d);
    fixture_crash(&d->f);
    keep_path(d, "journal", 0);
    size_t n = find_records(d->path, places, 32);
    for (uint32_t cut = places[n - 1].end; cut > SEGMENT_BLOCK + 60; cut -= 61) {
        assert_int_equal(truncate(d->path, (off_t)cut), 0);
        open_again(d, true);
        for (size_t m = 3; m < MESSAGES; m++) /* those with one record */
            for (size_t i = 0; i < n; i++)
                if (places[i].id == d->ids[m] && places[i].end <= cut &&
                    !fixture_intact(&d->f, d->ids[m], SIZE, m))
                    fail_msg("cut at %u: message %zu is lost", cut, m);
        fixture_close(&d->f);
    }
}

static void a_flipped_bit_in_a_sealed_segment_is_found_when_it_is_read(void **state)
{
    struct damage *d = *state;
    fill(d);
    fixture_settle(&d->f, d->ids[2], QUEUE_UNCERTAIN, RECIPIENT_PENDING, 900000, NULL);
    fixture_close(&d->f); /* seals */
    keep_path(d, "journal", 0);
    for (long at = SEGMENT_BLOCK; at < 9000; at += 5) {
        fixture_flip(d->path, at, 16);
        open_again(d, true);
        unsigned hit = count_hit(d);
        if (hit > 1)
            fail_msg("octet %ld: %u messages hit", at, hit);
        fixture_close(&d->f);
        fixture_flip(d->path, at, 16);
    }
}

static void damage_is_copied_aside_once_and_orphans_stay(void **state)
{
    struct damage *d = *state;
    char orphan[256];
    fill(d);
    fixture_crash(&d->f);
    keep_path(d, "journal", 0);
    fixture_flip(d->path, SEGMENT_BLOCK + 100 + 32, 1); /* in the first MESSAGE's lengths */
    snprintf(orphan, sizeof(orphan), "%s/content/%016x.body", d->f.dir, 0x77);
    FILE *file = fopen(orphan, "wb");
    assert_non_null(file);
    fclose(file);
    for (int i = 0; i < 2; i++) {
        open_again(d, false);
        assert_int_equal(d->f.found.damaged, 1);
        assert_int_equal(d->f.found.orphans, 1);
        assert_int_equal(fixture_files(&d->f, "damaged"), 1);
        assert_int_equal(access(orphan, F_OK), 0);
        fixture_close(&d->f);
    }
}

static void a_segment_without_a_header_is_read_all_the_same(void **state)
{
    struct damage *d = *state;
    fill(d);
    fixture_crash(&d->f);
    keep_path(d, "journal", 0);
    fixture_flip(d->path, 20, 0xff);
    fixture_flip(d->path, 2048 + 20, 0xff);
    open_again(d, false);
    assert_int_equal(d->f.found.damaged, 1);
    assert_int_equal(count_hit(d), 0);
}

static void a_segment_without_header_and_first_record_is_read_all_the_same(void **state)
{
    struct damage *d = *state;
    fill(d);
    fixture_crash(&d->f);
    keep_path(d, "journal", 0);
    fixture_flip(d->path, 20, 0xff);
    fixture_flip(d->path, 2048 + 20, 0xff);
    fixture_flip(d->path, SEGMENT_BLOCK + 8, 0xff);
    open_again(d, false);
    assert_int_equal(d->f.found.damaged, 2);
    assert_int_equal(count_hit(d), 0);
}

static void a_segment_without_any_record_is_put_away(void **state)
{
    struct damage *d = *state;
    fill(d);
    fixture_crash(&d->f);
    keep_path(d, "journal", 0);
    assert_int_equal(truncate(d->path, 0), 0);
    assert_int_equal(truncate(d->path, 100000), 0);
    open_again(d, false);
    assert_int_equal(d->f.found.damaged, 1);
    assert_int_equal(d->f.found.messages, 0);
    assert_int_equal(fixture_files(&d->f, "damaged"), 1);
    fixture_accept(&d->f, 10, 1);
}

/* Whether it was prepared ahead and still holds records of an earlier life. */
static bool is_recycled_and_empty(const char *path)
{
    static uint8_t data[2 * 1024 * 1024];
    struct segment_header h;
    size_t len = read_file(path, data, sizeof(data));
    return segment_decode_header(data, &h) && bytes_get64(data + SEGMENT_BLOCK) == 0 &&
           len > 100000 && bytes_get64(data + 100000) != 0;
}

static bool has_recycled(struct damage *d)
{
    for (size_t i = 0; i < fixture_files(&d->f, "journal"); i++) {
        keep_path(d, "journal", i);
        if (!strstr(d->path, "spare") && is_recycled_and_empty(d->path))
            return true;
    }
    return false;
}

static void a_recycled_segment_that_lost_its_header_brings_no_old_mail_back(void **state)
{
    struct damage *d = *state;
    struct queue_info info;
    for (uint64_t i = 0; i < 30; i++) /* more than a segment holds: ends are in the next one */
        fixture_accept(&d->f, 50000, i);
    for (uint64_t i = 0; i < 200 && !has_recycled(d); i++) {
        fixture_accept(&d->f, 50000, i);
        assert_true(fixture_pick(&d->f, &info));
        fixture_settle(&d->f, info.id, QUEUE_GONE, RECIPIENT_DELIVERED, 0, NULL);
        fixture_run(&d->f);
    }
    assert_true(has_recycled(d));
    fixture_crash(&d->f);
    for (long at = 0; at < SEGMENT_BLOCK; at++)
        fixture_flip(d->path, at, 0x55);
    open_again(d, false);
    assert_int_equal(d->f.found.damaged, 1);
    assert_int_equal(d->f.found.messages, 30);
}

static void of_a_cut_segment_what_is_left_is_served(void **state)
{
    struct damage *d = *state;
    fill(d);
    fixture_close(&d->f); /* the doubt is settled by nobody: it is found sealed */
    keep_path(d, "journal", 0);
    assert_int_equal(truncate(d->path, 6500), 0);
    open_again(d, false);
    assert_in_range(d->f.found.messages, 2, MESSAGES - 1);
    uint64_t alive = d->f.found.messages;
    struct queue_info info = {0};
    unsigned intact = 0;
    while (queue_list(d->f.queue, info.id, &info))
        for (uint64_t i = 0; i < MESSAGES; i++)
            intact += info.id == d->ids[i] && fixture_intact(&d->f, info.id, SIZE, i);
    assert_in_range(intact, alive - 1, alive); /* the one that was cut can be listed at most */
}

static void a_torn_tail_is_no_damage(void **state)
{
    struct damage *d = *state;
    fill(d);
    struct fixture_result r;
    fixture_accept_to(&d->f, SIZE, 99, 1, &r);
    fixture_crash(&d->f);
    keep_path(d, "journal", 0);
    fixture_flip(d->path, (long)used_octets(d->path) - 20, 1); /* of the last, unproven record */
    open_again(d, false);
    assert_int_equal(d->f.found.damaged, 0);
    assert_int_equal(d->f.found.torn, 1);
    assert_int_equal(fixture_files(&d->f, "damaged"), 1); /* kept for a person all the same */
    assert_int_equal(count_hit(d), 0);
}

static void mail_that_looks_like_a_record_is_none(void **state)
{
    struct damage *d = *state;
    struct error err = ERROR_INIT;
    struct envelope e;
    static uint8_t copy[40000];
    fill(d);
    keep_path(d, "journal", 0);
    FILE *file = fopen(d->path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, SEGMENT_BLOCK, SEEK_SET), 0);
    size_t len = fread(copy, 1, sizeof(copy), file);
    fclose(file);
    struct fixture_result r = {0};
    struct queue_writer *w = queue_begin(d->f.queue, LANE_NORMAL, NULL, NULL, &err);
    assert_int_equal(queue_append(w, copy, len, &err), QUEUE_FLOW_OK);
    fixture_envelope(&e, 1);
    uint64_t id = queue_writer_id(w);
    queue_commit(w, &e, d->f.now_ms, FIXTURE_WALL, fixture_committed, &r);
    envelope_done(&e);
    fixture_run(&d->f);
    fixture_tick(&d->f, 3);
    fixture_crash(&d->f);
    /* The new message's own header is hit, so that its body is searched. */
    uint8_t tag[8];
    memcpy(tag, copy, sizeof(tag));
    static uint8_t all[200000];
    file = fopen(d->path, "rb");
    assert_non_null(file);
    len = fread(all, 1, sizeof(all), file);
    fclose(file);
    long header = -1;
    for (size_t i = SEGMENT_BLOCK; i + 24 < len && header < 0; i += 8)
        if (memcmp(all + i, tag, 8) == 0 && all[i + 28] == SEGMENT_MESSAGE &&
            all[i + 16] == (uint8_t)id && all[i + 17] == (uint8_t)(id >> 8))
            header = (long)i;
    assert_true(header > 0);
    fixture_flip(d->path, header + 40, 1);
    open_again(d, true);
    assert_int_equal(d->f.found.damaged, 1);
    assert_int_equal(count_hit(d), 0);
    struct queue_info info;
    assert_false(queue_find(d->f.queue, id, &info));
}

/* ---- what a damaged message is --------------------------------------------------------------- */

static void damaged_mail_is_held_listed_and_read_as_far_as_possible(void **state)
{
    struct damage *d = *state;
    struct error err = ERROR_INIT;
    struct queue_info info;
    struct fixture_mail mail;
    uint64_t id = fixture_accept(&d->f, 5000, 1);
    fixture_tick(&d->f, 3);
    fixture_crash(&d->f);
    keep_path(d, "journal", 0);
    fixture_flip(d->path, SEGMENT_BLOCK + 3000, 1);
    open_again(d, false);
    assert_int_equal(d->f.found.damaged, 1);
    assert_true(queue_find(d->f.queue, id, &info));
    assert_int_equal(info.state, QUEUE_HELD);
    assert_true(info.damaged);
    assert_false(queue_retry(d->f.queue, id, d->f.now_ms, FIXTURE_WALL, &err));
    assert_int_equal(err.kind, ERROR_DAMAGED);
    fixture_read(&d->f, id, &mail);
    assert_true(mail.opened);
    assert_int_equal(mail.data.len, 5000);
    assert_int_equal(mail.error.kind, ERROR_DAMAGED); /* instead of the end */
    assert_string_equal(mail.envelope.route, "main");
    fixture_mail_done(&mail);
}

static void a_body_found_damaged_while_sending_is_held(void **state)
{
    struct damage *d = *state;
    struct queue_info info;
    struct fixture_mail mail;
    uint64_t id = fixture_accept(&d->f, LARGE, 1);
    keep_path(d, "content", 0);
    fixture_flip(d->path, 2 * (QUEUE_BLOCK + 8) + 500, 1);
    assert_true(fixture_pick(&d->f, &info));
    fixture_read(&d->f, id, &mail);
    assert_int_equal(mail.error.kind, ERROR_DAMAGED);
    assert_int_equal(mail.data.len, 2 * QUEUE_BLOCK); /* nothing unverified was handed out */
    fixture_mail_done(&mail);
    queue_release(d->f.queue, id, d->f.now_ms);
    assert_false(fixture_pick(&d->f, &info));
    fixture_run(&d->f);
    fixture_crash(&d->f);
    open_again(d, false);
    assert_true(queue_find(d->f.queue, id, &info));
    assert_int_equal(info.state, QUEUE_HELD);
    assert_true(info.damaged);
    fixture_read(&d->f, id, &mail); /* now for a person: all there is */
    assert_int_equal(mail.data.len, LARGE);
    assert_int_equal(mail.error.kind, ERROR_DAMAGED);
    fixture_mail_done(&mail);
}

static void a_cut_body_is_read_as_far_as_it_goes(void **state)
{
    struct damage *d = *state;
    struct queue_info info;
    struct fixture_mail mail;
    uint64_t id = fixture_accept(&d->f, LARGE, 1);
    keep_path(d, "content", 0);
    assert_int_equal(truncate(d->path, QUEUE_BLOCK + 8 + 1008), 0);
    assert_true(fixture_pick(&d->f, &info));
    fixture_read(&d->f, id, &mail);
    assert_int_equal(mail.error.kind, ERROR_DAMAGED);
    fixture_mail_done(&mail);
    queue_release(d->f.queue, id, d->f.now_ms);
    fixture_read(&d->f, id, &mail);
    assert_int_equal(mail.data.len, QUEUE_BLOCK + 1000);
    assert_int_equal(mail.error.kind, ERROR_DAMAGED);
    fixture_mail_done(&mail);
}

/* Octets that are as they were, block by block. */
static size_t same_octets(const struct fixture_mail *mail, uint64_t seed)
{
    static uint8_t data[LARGE];
    size_t same = 0;
    fixture_fill(data, LARGE, seed);
    for (size_t at = 0; at < mail->data.len && at < LARGE; at++)
        same += mail->data.data[at] == data[at];
    return same;
}

static void a_flipped_bit_in_any_length_of_a_body_hides_nothing_behind_it(void **state)
{
    struct damage *d = *state;
    struct queue_info info;
    struct fixture_mail mail;
    uint64_t id = fixture_accept(&d->f, LARGE, 1);
    keep_path(d, "content", 0);
    fixture_flip(d->path, 0, 1);
    assert_true(fixture_pick(&d->f, &info));
    fixture_read(&d->f, id, &mail); /* notices, and marks it */
    assert_int_equal(mail.error.kind, ERROR_DAMAGED);
    fixture_mail_done(&mail);
    queue_release(d->f.queue, id, d->f.now_ms);
    fixture_run(&d->f);
    fixture_flip(d->path, 0, 1);
    for (long frame = 0; frame < 4; frame++)
        for (unsigned bit = 0; bit < 32; bit++) {
            long at = frame * (QUEUE_BLOCK + 8) + (long)(bit / 8);
            fixture_flip(d->path, at, (uint8_t)(1u << bit % 8));
            fixture_read(&d->f, id, &mail);
            if (mail.error.kind != ERROR_DAMAGED || same_octets(&mail, 1) != LARGE)
                fail_msg("frame %ld, bit %u", frame, bit);
            fixture_mail_done(&mail);
            fixture_flip(d->path, at, (uint8_t)(1u << bit % 8));
        }
}

static void a_missing_body_is_reported_and_its_message_held(void **state)
{
    struct damage *d = *state;
    struct queue_info info;
    uint64_t id = fixture_accept(&d->f, LARGE, 1);
    fixture_crash(&d->f);
    keep_path(d, "content", 0);
    assert_int_equal(unlink(d->path), 0);
    open_again(d, false);
    assert_int_equal(d->f.found.damaged, 1);
    assert_true(queue_find(d->f.queue, id, &info));
    assert_int_equal(info.state, QUEUE_HELD);
    assert_true(info.damaged);
    struct error err = ERROR_INIT;
    assert_true(queue_delete(d->f.queue, id, NULL, NULL, &err));
    fixture_run(&d->f);
}

static void blocks_of_two_bodies_cannot_stand_for_each_other(void **state)
{
    struct damage *d = *state;
    struct fixture_mail mail;
    struct queue_info info;
    char first[512];
    char third[520];
    uint64_t id = fixture_accept(&d->f, LARGE, 1);
    fixture_accept(&d->f, LARGE, 2);
    snprintf(first, sizeof(first), "%s", fixture_path(&d->f, "content", 0));
    keep_path(d, "content", 1);
    snprintf(third, sizeof(third), "%s.aside", first);
    assert_int_equal(rename(first, third), 0);
    assert_int_equal(rename(d->path, first), 0);
    assert_int_equal(rename(third, d->path), 0);
    assert_true(fixture_pick(&d->f, &info));
    fixture_read(&d->f, id, &mail);
    assert_int_equal(mail.error.kind, ERROR_DAMAGED);
    assert_int_equal(mail.data.len, 0);
    fixture_mail_done(&mail);
    queue_release(d->f.queue, id, d->f.now_ms);
}

static void a_damaged_straggler_is_carried_with_its_mark(void **state)
{
    struct damage *d = *state;
    struct queue_info info;
    struct fixture_mail mail;
    struct queue_counts c;
    uint64_t id = fixture_accept(&d->f, 5000, 1);
    assert_true(fixture_pick(&d->f, &info));
    fixture_settle(&d->f, id, QUEUE_HELD, RECIPIENT_PENDING, 0, NULL);
    fixture_run(&d->f);
    keep_path(d, "journal", 0);
    fixture_flip(d->path, SEGMENT_BLOCK + 3000, 1);
    for (uint64_t i = 0; i < 300; i++) {
        fixture_accept(&d->f, 50000, i);
        assert_true(fixture_pick(&d->f, &info));
        fixture_settle(&d->f, info.id, QUEUE_GONE, RECIPIENT_DELIVERED, 0, NULL);
        fixture_run(&d->f);
    }
    fixture_tick(&d->f, 5);
    queue_counts(d->f.queue, &c);
    assert_true(c.segments <= 2);
    assert_int_equal(c.damaged, 1);
    fixture_crash(&d->f);
    open_again(d, false);
    assert_true(queue_find(d->f.queue, id, &info));
    assert_true(info.damaged);
    assert_int_equal(info.state, QUEUE_HELD);
    fixture_read(&d->f, id, &mail);
    assert_int_equal(mail.data.len, 5000);
    assert_int_equal(mail.envelope.recipient_count, 1);
    fixture_mail_done(&mail);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_flipped_bit_hits_one_record_at_most_and_is_reported),
        TEST(a_flipped_bit_in_any_length_of_a_record_hides_nothing_behind_it),
        TEST(a_flipped_bit_in_index_or_footer_of_a_sealed_segment_loses_nothing),
        TEST(a_segment_cut_anywhere_serves_what_is_before_the_cut),
        TEST(a_flipped_bit_in_a_sealed_segment_is_found_when_it_is_read),
        TEST(damage_is_copied_aside_once_and_orphans_stay),
        TEST(a_segment_without_a_header_is_read_all_the_same),
        TEST(a_segment_without_header_and_first_record_is_read_all_the_same),
        TEST(a_segment_without_any_record_is_put_away),
        TEST(a_recycled_segment_that_lost_its_header_brings_no_old_mail_back),
        TEST(of_a_cut_segment_what_is_left_is_served),
        TEST(a_torn_tail_is_no_damage),
        TEST(mail_that_looks_like_a_record_is_none),
        TEST(damaged_mail_is_held_listed_and_read_as_far_as_possible),
        TEST(a_body_found_damaged_while_sending_is_held),
        TEST(a_cut_body_is_read_as_far_as_it_goes),
        TEST(a_flipped_bit_in_any_length_of_a_body_hides_nothing_behind_it),
        TEST(a_missing_body_is_reported_and_its_message_held),
        TEST(blocks_of_two_bodies_cannot_stand_for_each_other),
        TEST(a_damaged_straggler_is_carried_with_its_mark),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
