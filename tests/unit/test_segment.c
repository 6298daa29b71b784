#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "queue/queue.h"
#include "queue/record.h"
#include "queue/segment.h"

#define SALT          0x1122334455667788u
#define RECORD_FIELDS (offsetof(struct segment_record, body_crc) + sizeof(uint32_t))

static const struct segment_header header = {.number = 7, .salt = SALT, .size = 2 * 1024 * 1024};

static void a_header_survives_in_either_copy(void **state)
{
    uint8_t block[SEGMENT_BLOCK];
    struct segment_header out;
    (void)state;
    for (int copy = 0; copy < 2; copy++) {
        segment_encode_header(&header, block);
        memset(block + copy * 2048, 0xaa, 64);
        assert_true(segment_decode_header(block, &out));
        assert_int_equal(out.number, 7);
        assert_true(out.salt == SALT);
        assert_int_equal(out.size, header.size);
    }
    memset(block, 0, 64);
    assert_false(segment_decode_header(block, &out));
}

static void any_flipped_bit_spoils_a_record_header(void **state)
{
    const struct segment_record r = {.seq = 9,
                                     .id = 0x4f2a,
                                     .base = 4096,
                                     .type = SEGMENT_MESSAGE,
                                     .head_len = 40,
                                     .body_len = 1000,
                                     .head_crc = 1,
                                     .body_crc = 2};
    uint8_t p[SEGMENT_RECORD_HEADER];
    struct segment_record out;
    (void)state;
    segment_encode_record(&r, SALT, 8192, p);
    assert_true(segment_decode_record(p, SALT, 8192, &out));
    assert_memory_equal(&out, &r, RECORD_FIELDS);
    for (size_t bit = 0; bit < sizeof(p) * 8; bit++) {
        p[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_false(segment_decode_record(p, SALT, 8192, &out));
        p[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
}

static void a_record_is_valid_in_its_own_place_and_segment_only(void **state)
{
    const struct segment_record r = {.seq = 1, .type = SEGMENT_GONE};
    uint8_t p[SEGMENT_RECORD_HEADER];
    struct segment_record out;
    (void)state;
    segment_encode_record(&r, SALT, 8192, p);
    assert_false(segment_decode_record(p, SALT, 8200, &out));
    assert_false(segment_decode_record(p, SALT + 1, 8192, &out));
}

static void impossible_lengths_are_refused(void **state)
{
    struct segment_record r = {.body_len = SEGMENT_BODY_MAX};
    uint8_t p[SEGMENT_RECORD_HEADER];
    struct segment_record out;
    (void)state;
    segment_encode_record(&r, SALT, 0, p);
    assert_true(segment_decode_record(p, SALT, 0, &out));
    r.body_len++;
    segment_encode_record(&r, SALT, 0, p);
    assert_false(segment_decode_record(p, SALT, 0, &out));
    r = (struct segment_record){.head_len = SEGMENT_HEAD_MAX + 1};
    segment_encode_record(&r, SALT, 0, p);
    assert_false(segment_decode_record(p, SALT, 0, &out));
}

static void spans_are_multiples_of_eight(void **state)
{
    static const struct {
        size_t head;
        size_t body;
        uint32_t span;
    } rows[] = {{0, 0, 48}, {1, 0, 56}, {8, 0, 56}, {8, 1, 64}, {9, 7, 64}, {10, 1000, 1064}};
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(segment_span(rows[i].head, rows[i].body), rows[i].span);
}

static void a_footer_belongs_to_one_life_of_a_segment(void **state)
{
    const struct segment_footer f = {.end = 10000, .index_len = 500, .index_crc = 3};
    struct segment_footer out;
    struct segment_header other = header;
    uint8_t p[SEGMENT_FOOTER];
    (void)state;
    segment_encode_footer(&f, &header, p);
    assert_true(segment_decode_footer(p, &header, &out));
    assert_int_equal(out.end, 10000);
    assert_int_equal(out.index_len, 500);
    assert_int_equal(out.index_crc, 3);
    other.salt++;
    assert_false(segment_decode_footer(p, &other, &out));
    other = header;
    other.number++;
    assert_false(segment_decode_footer(p, &other, &out));
    other = header;
    other.size = 10000 + 400;
    assert_false(segment_decode_footer(p, &other, &out)); /* its index would not fit */
}

static void an_index_entry_keeps_what_recovery_needs(void **state)
{
    const struct segment_record r = {
        .seq = 5, .id = 6, .type = SEGMENT_STATE, .head_len = 32, .body_len = 77, .body_crc = 8};
    uint8_t p[SEGMENT_ENTRY];
    struct segment_record out;
    uint32_t offset;
    (void)state;
    segment_encode_entry(&r, 123456, p);
    segment_decode_entry(p, &out, &offset);
    assert_int_equal(offset, 123456);
    assert_memory_equal(&out, &r, RECORD_FIELDS);
}

static void a_message_head_reads_back(void **state)
{
    uint8_t head[RECORD_HEAD_MAX];
    struct record_message in = {.large = true,
                                .lane = LANE_BULK,
                                .recipients = 1000,
                                .envelope_len = 70000,
                                .arrived_ms = 1700000000000u,
                                .size = 150u << 20};
    struct record_message out;
    (void)state;
    memset(in.route, 'r', RECORD_NAME_MAX);
    memset(in.device, 'd', RECORD_NAME_MAX);
    size_t len = record_encode_message(&in, head);
    assert_in_range(len, 1, RECORD_HEAD_MAX);
    assert_true(record_decode_message(head, len, &out));
    assert_true(out.large);
    assert_false(out.damaged);
    assert_int_equal(out.lane, LANE_BULK);
    assert_int_equal(out.recipients, 1000);
    assert_int_equal(out.envelope_len, 70000);
    assert_true(out.arrived_ms == in.arrived_ms && out.size == in.size);
    assert_string_equal(out.route, in.route);
    assert_string_equal(out.device, in.device);
    for (size_t cut = 0; cut < len; cut++)
        assert_false(record_decode_message(head, cut, &out));
    head[2] = LANE_COUNT;
    assert_false(record_decode_message(head, len, &out));
}

static void a_state_head_reads_back(void **state)
{
    uint8_t head[RECORD_HEAD_MAX];
    const struct record_state in = {.state = QUEUE_UNCERTAIN,
                                    .revived = true,
                                    .attempts = 12,
                                    .tried_ms = 99,
                                    .wait_ms = 900000,
                                    .wall_ms = 1700000000000u};
    struct record_state out;
    (void)state;
    size_t len = record_encode_state(&in, head);
    assert_true(record_decode_state(head, len, &out));
    assert_int_equal(out.state, QUEUE_UNCERTAIN);
    assert_true(out.revived);
    assert_false(out.damaged);
    assert_int_equal(out.attempts, 12);
    assert_int_equal(out.tried_ms, 99);
    assert_int_equal(out.wait_ms, 900000);
    assert_true(out.wall_ms == in.wall_ms);
    assert_false(record_decode_state(head, len - 1, &out));
    head[1] = QUEUE_GONE; /* has a record of its own */
    assert_false(record_decode_state(head, len, &out));
}

static void heads_of_later_versions_may_be_longer(void **state)
{
    uint8_t head[RECORD_HEAD_MAX] = {0};
    const struct record_start in = {.wall_ms = 1, .id_limit = 2};
    struct record_start out;
    (void)state;
    size_t len = record_encode_start(&in, head);
    head[0]++;
    assert_true(record_decode_start(head, len + 5, &out));
    assert_int_equal(out.id_limit, 2);
}

static void the_end_of_a_segment_reads_back(void **state)
{
    const struct record_end in = {.number = 0x123456789a, .proven = 5000, .end = 6000};
    struct record_end out;
    uint8_t p[RECORD_END_LEN];
    (void)state;
    record_encode_end(&in, p);
    record_decode_end(p, &out);
    assert_true(out.number == in.number);
    assert_int_equal(out.proven, 5000);
    assert_int_equal(out.end, 6000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_survives_in_either_copy),
        cmocka_unit_test(any_flipped_bit_spoils_a_record_header),
        cmocka_unit_test(a_record_is_valid_in_its_own_place_and_segment_only),
        cmocka_unit_test(impossible_lengths_are_refused),
        cmocka_unit_test(spans_are_multiples_of_eight),
        cmocka_unit_test(a_footer_belongs_to_one_life_of_a_segment),
        cmocka_unit_test(an_index_entry_keeps_what_recovery_needs),
        cmocka_unit_test(a_message_head_reads_back),
        cmocka_unit_test(a_state_head_reads_back),
        cmocka_unit_test(heads_of_later_versions_may_be_longer),
        cmocka_unit_test(the_end_of_a_segment_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
