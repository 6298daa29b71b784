/*
 * What stands in a segment: header, records, footer, index entries and the heads of records. Any
 * octets may be read; what was written is read back as it was, and not once a bit of it is wrong.
 */
#include "tests/fuzz/fuzz.h"

#include "queue/bytes.h"
#include "queue/queue.h"
#include "queue/record.h"
#include "queue/segment.h"

/* Octets of the input in a field of their own size, zeros behind them. */
static uint8_t *take_padded(struct fuzz_input *in, size_t size)
{
    uint8_t *p = calloc(1, size);
    size_t n = in->left < size ? in->left : size;

    FUZZ_CHECK(p != NULL);
    if (n > 0)
        memcpy(p, in->p, n);
    return p;
}

static void flip(uint8_t *p, size_t size, uint64_t bit)
{
    p[bit / 8 % size] ^= (uint8_t)(1U << bit % 8);
}

static bool header_is_possible(const struct segment_header *h)
{
    return h->size >= SEGMENT_BLOCK + SEGMENT_FOOTER && h->size <= SEGMENT_SIZE_MAX;
}

/* Of two copies one may be damaged, anywhere. */
static void check_header(struct fuzz_input *in)
{
    struct segment_header h = {.number = fuzz_number(in, 8), .salt = fuzz_number(in, 8)};
    struct segment_header got;
    uint8_t block[SEGMENT_BLOCK];
    uint8_t *raw;

    h.size = (uint32_t)fuzz_number(in, 4);
    segment_encode_header(&h, block);
    flip(block, SEGMENT_BLOCK, fuzz_number(in, 2));
    FUZZ_CHECK(segment_decode_header(block, &got) == header_is_possible(&h));
    if (header_is_possible(&h))
        FUZZ_CHECK(got.number == h.number && got.salt == h.salt && got.size == h.size);
    raw = take_padded(in, SEGMENT_BLOCK);
    if (segment_decode_header(raw, &got))
        FUZZ_CHECK(header_is_possible(&got));
    free(raw);
}

static bool record_is_same(const struct segment_record *a, const struct segment_record *b)
{
    return a->seq == b->seq && a->id == b->id && a->base == b->base && a->type == b->type &&
           a->head_len == b->head_len && a->body_len == b->body_len && a->head_crc == b->head_crc &&
           a->body_crc == b->body_crc;
}

/* Valid in one place of one segment, and nowhere else. */
static void check_record(struct fuzz_input *in)
{
    struct segment_record r = {.seq = fuzz_number(in, 8), .id = fuzz_number(in, 8)};
    struct segment_record got;
    uint8_t p[SEGMENT_RECORD_HEADER];
    uint64_t salt = fuzz_number(in, 8);
    uint32_t offset = (uint32_t)fuzz_number(in, 4);
    bool possible;

    r.base = (uint32_t)fuzz_number(in, 4);
    r.type = (uint16_t)fuzz_number(in, 2);
    r.head_len = (uint16_t)fuzz_number(in, 2);
    r.body_len = (uint32_t)fuzz_number(in, 3);
    r.head_crc = (uint32_t)fuzz_number(in, 4);
    r.body_crc = (uint32_t)fuzz_number(in, 4);
    possible = r.head_len <= SEGMENT_HEAD_MAX && r.body_len <= SEGMENT_BODY_MAX;
    segment_encode_record(&r, salt, offset, p);
    FUZZ_CHECK(segment_decode_record(p, salt, offset, &got) == possible);
    FUZZ_CHECK(!possible || record_is_same(&r, &got));
    FUZZ_CHECK(!segment_decode_record(p, salt + 1, offset, &got));
    FUZZ_CHECK(!segment_decode_record(p, salt, offset + SEGMENT_ALIGN, &got));
    flip(p, sizeof(p), fuzz_number(in, 2));
    FUZZ_CHECK(!segment_decode_record(p, salt, offset, &got));
}

static void check_entry(struct fuzz_input *in)
{
    uint8_t *raw = take_padded(in, SEGMENT_ENTRY);
    uint8_t again[SEGMENT_ENTRY];
    struct segment_record r;
    uint32_t offset;

    segment_decode_entry(raw, &r, &offset);
    segment_encode_entry(&r, offset, again);
    FUZZ_CHECK(memcmp(raw, again, SEGMENT_ENTRY) == 0);
    free(raw);
}

/* Index and records lie within the segment, whatever it says. */
static void check_footer(struct fuzz_input *in)
{
    struct segment_header h = {.number = 7, .salt = 11, .size = SEGMENT_BLOCK + SEGMENT_FOOTER};
    struct segment_footer f = {.end = (uint32_t)fuzz_number(in, 4)};
    struct segment_footer got;
    uint8_t p[SEGMENT_FOOTER];

    h.size += (uint32_t)fuzz_number(in, 3);
    f.index_len = (uint32_t)fuzz_number(in, 4);
    f.index_crc = (uint32_t)fuzz_number(in, 4);
    segment_encode_footer(&f, &h, p);
    if (segment_decode_footer(p, &h, &got)) {
        FUZZ_CHECK(got.end == f.end && got.index_crc == f.index_crc && got.end >= SEGMENT_BLOCK);
        FUZZ_CHECK((uint64_t)got.end + got.index_len <= h.size - SEGMENT_FOOTER);
    }
    flip(p, sizeof(p), fuzz_number(in, 2));
    FUZZ_CHECK(!segment_decode_footer(p, &h, &got));
}

/* Heads: what was understood is written and understood again. */
static void check_heads(const uint8_t *head, size_t len)
{
    struct record_message m;
    struct record_message m2;
    struct record_state s;
    struct record_state s2;
    struct record_start t;
    struct record_start t2;
    uint8_t out[RECORD_HEAD_MAX];
    uint8_t out2[RECORD_HEAD_MAX];

    if (record_decode_message(head, len, &m)) {
        size_t n = record_encode_message(&m, out);

        FUZZ_CHECK(m.lane < LANE_COUNT && n <= RECORD_HEAD_MAX && n <= len);
        FUZZ_CHECK(record_decode_message(out, n, &m2) && record_encode_message(&m2, out2) == n);
        FUZZ_CHECK(memcmp(out, out2, n) == 0 && strcmp(m.route, m2.route) == 0);
    }
    if (record_decode_state(head, len, &s)) {
        size_t n = record_encode_state(&s, out);

        FUZZ_CHECK(s.state < QUEUE_GONE && n <= len);
        FUZZ_CHECK(record_decode_state(out, n, &s2) && record_encode_state(&s2, out2) == n);
        FUZZ_CHECK(memcmp(out, out2, n) == 0);
    }
    if (record_decode_start(head, len, &t)) {
        size_t n = record_encode_start(&t, out);

        FUZZ_CHECK(n <= len && record_decode_start(out, n, &t2));
        FUZZ_CHECK(t.wall_ms == t2.wall_ms && t.id_limit == t2.id_limit);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const checks[])(struct fuzz_input *) = {check_header, check_record, check_entry,
                                                          check_footer};
    struct fuzz_input in = {data, size};
    uint8_t kind = fuzz_u8(&in);
    size_t len;
    uint8_t *head;

    if (kind % 8 < 4) {
        checks[kind % 8](&in);
        return 0;
    }
    head = fuzz_take(&in, SEGMENT_HEAD_MAX, &len);
    check_heads(head, len);
    free(head);
    return 0;
}
