/*
 * Looking at a spool that may be damaged in any way. The input says what stands in its segments:
 * the records' checksums are made right, unless it wants otherwise, so that what lies behind them
 * is reached. Opening must end, write nothing, and every message that is then listed can be asked
 * for.
 *
 *   input    = count { segment }
 *   segment  = flags count { record } flips { offset(2) bits }
 *   record   = flags type id head_len head body_len(2) body
 */
#include "tests/fuzz/fuzz.h"

#include <inttypes.h>

#include "queue/queue.h"
#include "queue/recover.h"
#include "queue/segfile.h"
#include "tests/fuzz/memory_spool.h"
#include "tests/unit/inline_executor.h"

#define SEGMENT_LEN  (SEGMENT_BLOCK * 4)
#define SEGMENTS_MAX 3
#define RECORDS_MAX  24
#define BODY_ID      5 /* large mail with this id has a body */

enum {
    SEAL = 1,
    FORGE_INDEX = 2,
    CUT = 4,
    NO_HEADER = 8,
    SPOIL_HEAD = 16,
    SPOIL_BODY = 32,
    SKIP = 64
};

struct builder {
    struct memory_spool *m;
    struct segment_header header;
    int fd;
    uint32_t at;
    uint64_t seq;
};

static uint8_t *segment_of(struct builder *b)
{
    return b->m->files[b->fd].data.data;
}

/* One record; false when the segment is full. */
static bool add_record(struct builder *b, struct fuzz_input *in)
{
    uint8_t flags = fuzz_u8(in);
    struct segment_record r = {.seq = b->seq++, .type = fuzz_u8(in), .id = fuzz_u8(in)};
    size_t head_len;
    size_t body_len;
    uint8_t *head = fuzz_take(in, fuzz_u8(in), &head_len);
    uint8_t *body = fuzz_take(in, fuzz_number(in, 2), &body_len);
    bool fits;

    b->at += flags & SKIP ? SEGMENT_ALIGN : 0;
    r.base = flags & 1 ? b->at : 0;
    r.head_len = (uint16_t)head_len;
    r.body_len = (uint32_t)body_len;
    r.head_crc = bytes_crc(0, head, head_len) ^ (flags & SPOIL_HEAD ? 1U : 0U);
    r.body_crc = bytes_crc(0, body, body_len) ^ (flags & SPOIL_BODY ? 1U : 0U);
    fits = segment_span(head_len, body_len) <= SEGMENT_LEN - SEGMENT_FOOTER - b->at;
    if (fits) {
        uint8_t *p = segment_of(b) + b->at;

        segment_encode_record(&r, b->header.salt, b->at, p);
        memcpy(p + SEGMENT_RECORD_HEADER, head, head_len);
        memcpy(p + SEGMENT_RECORD_HEADER + head_len, body, body_len);
        b->at += segment_span(head_len, body_len);
    }
    free(body);
    free(head);
    return fits;
}

/* An index of any octets, with the checksums of a good one. */
static void forge_index(struct builder *b, struct fuzz_input *in)
{
    size_t len;
    uint8_t *index = fuzz_take(in, fuzz_u8(in) * 4u, &len);
    struct segment_footer f = {.end = b->at, .index_len = (uint32_t)len};

    if (len <= SEGMENT_LEN - SEGMENT_FOOTER - b->at) {
        f.index_crc = bytes_crc(0, index, len);
        memcpy(segment_of(b) + b->at, index, len);
        segment_encode_footer(&f, &b->header, segment_of(b) + SEGMENT_LEN - SEGMENT_FOOTER);
    }
    free(index);
}

static void add_segment(struct builder *b, struct fuzz_input *in)
{
    char path[MEMORY_PATH_MAX];
    uint8_t flags = fuzz_u8(in);
    unsigned records = fuzz_u8(in) % RECORDS_MAX;
    struct error err = ERROR_INIT;
    struct bytes *data;

    b->header.number++;
    b->header.salt += 0x0101010101010101;
    b->at = SEGMENT_BLOCK;
    snprintf(path, sizeof(path), "/spool/journal/%016" PRIx64 ".seg", b->header.number);
    b->fd = memory_add(b->m, path);
    data = &b->m->files[b->fd].data;
    FUZZ_CHECK(bytes_reserve(data, SEGMENT_LEN) != NULL);
    memset(data->data, 0, SEGMENT_LEN);
    data->len = SEGMENT_LEN;
    if (!(flags & NO_HEADER))
        segment_encode_header(&b->header, data->data);
    while (records > 0 && add_record(b, in))
        records--;
    if (flags & FORGE_INDEX)
        forge_index(b, in);
    else if (flags & SEAL)
        (void)segfile_seal(&b->m->ops, b->fd, &b->header, b->at, &err);
    for (unsigned flips = fuzz_u8(in) % 8; flips > 0; flips--) {
        size_t offset = (size_t)fuzz_number(in, 2) % SEGMENT_LEN;

        data->data[offset] ^= fuzz_u8(in);
    }
    if (flags & CUT)
        data->len = (size_t)fuzz_number(in, 2) % SEGMENT_LEN;
}

static void build(struct memory_spool *m, struct fuzz_input *in)
{
    struct builder b = {.m = m, .header = {.size = SEGMENT_LEN}, .seq = 1};
    unsigned segments = fuzz_u8(in) % (SEGMENTS_MAX + 1);
    int fd = memory_add(m, "/spool/format");

    FUZZ_CHECK(bytes_text(&m->files[fd].data, "outtray-spool 1\n"));
    for (unsigned i = 0; i < segments; i++)
        add_segment(&b, in);
    fd = memory_add(m, "/spool/content/0000000000000005.body");
    FUZZ_CHECK(bytes_append(&m->files[fd].data, in->p, in->left));
}

/* ---- looking --------------------------------------------------------------------------------- */

struct reading {
    struct queue_reader *reader;
    uint64_t octets;
    unsigned opened;
    unsigned blocks;
    bool ended;
};

static void got(void *ctx, const uint8_t *data, size_t len, const struct error *err)
{
    struct reading *r = ctx;

    FUZZ_CHECK(!r->ended && (err == NULL || err->text[0] != '\0'));
    r->ended = err != NULL || len == 0;
    if (r->ended)
        return;
    FUZZ_CHECK(data != NULL && len <= QUEUE_BLOCK);
    r->octets += len;
    FUZZ_CHECK(++r->blocks < 1000);
    queue_read(r->reader, got, r);
}

static void opened(void *ctx, struct queue_reader *reader, const struct envelope *e,
                   const struct error *err)
{
    struct reading *r = ctx;

    r->opened++;
    FUZZ_CHECK((reader == NULL) == (err != NULL) && (e == NULL) == (err != NULL));
    r->reader = reader;
    if (err != NULL)
        FUZZ_CHECK(err->kind != ERROR_NONE && err->text[0] != '\0');
    else
        queue_read(reader, got, r);
}

static void read_message(struct queue *q, struct inline_executor *x, const struct queue_info *info)
{
    struct reading r = {.opened = 0};

    queue_reader_open(q, info->id, opened, &r);
    inline_executor_run(x);
    FUZZ_CHECK(r.opened == 1 && (r.reader == NULL || r.ended));
    FUZZ_CHECK(r.octets <= info->size);
    queue_reader_close(r.reader);
}

static void look(struct queue *q, struct inline_executor *x, const struct queue_recovery *found)
{
    struct queue_info info;
    uint64_t listed = 0;

    for (uint64_t after = 0; queue_list(q, after, &info); after = info.id) {
        FUZZ_CHECK(info.id > after && info.state < QUEUE_GONE && info.lane < LANE_COUNT);
        FUZZ_CHECK(info.route != NULL && !info.in_flight);
        FUZZ_CHECK(!info.damaged || info.state == QUEUE_HELD);
        listed++;
        read_message(q, x, &info);
    }
    FUZZ_CHECK(listed == found->messages);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct memory_spool m;
    struct inline_executor x;
    struct queue_options options = {
        .dir = "/spool", .read_only = true, .now_ms = 1000000, .wall_ms = 1700000000000};
    struct queue_recovery found;
    struct error err = ERROR_INIT;
    struct queue *q;

    memory_init(&m);
    inline_executor_init(&x, false);
    build(&m, &in);
    m.locked = true;
    options.ops = &m.ops;
    options.executor = inline_executor(&x);
    q = queue_open(&options, &found, &err);
    if (q != NULL)
        look(q, &x, &found);
    else
        FUZZ_CHECK(err.kind != ERROR_NONE && err.text[0] != '\0');
    queue_close(q);
    inline_executor_run(&x);
    FUZZ_CHECK(m.opened == 0);
    memory_done(&m);
    return 0;
}
