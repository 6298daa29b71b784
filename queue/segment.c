#include "queue/segment.h"

#include <string.h>

#include "queue/bytes.h"

static const char header_magic[8] = {'O', 'T', 'R', 'A', 'Y', 'S', 'E', 'G'};
static const char footer_magic[8] = {'O', 'T', 'R', 'A', 'Y', 'E', 'N', 'D'};

#define HEADER_LEN    64u
#define HEADER_SECOND 2048u

void segment_encode_header(const struct segment_header *h, uint8_t out[SEGMENT_BLOCK])
{
    memset(out, 0, SEGMENT_BLOCK);
    memcpy(out, header_magic, sizeof(header_magic));
    bytes_put32(out + 8, SEGMENT_VERSION);
    bytes_put64(out + 16, h->number);
    bytes_put64(out + 24, h->salt);
    bytes_put64(out + 32, h->size);
    bytes_put32(out + HEADER_LEN - 4, bytes_crc(0, out, HEADER_LEN - 4));
    memcpy(out + HEADER_SECOND, out, HEADER_LEN);
}

static bool decode_header_copy(const uint8_t *p, struct segment_header *out)
{
    if (memcmp(p, header_magic, sizeof(header_magic)) != 0 ||
        bytes_get32(p + HEADER_LEN - 4) != bytes_crc(0, p, HEADER_LEN - 4))
        return false;
    uint64_t size = bytes_get64(p + 32);
    if (bytes_get32(p + 8) != SEGMENT_VERSION || size < SEGMENT_BLOCK + SEGMENT_FOOTER ||
        size > SEGMENT_SIZE_MAX)
        return false;
    out->number = bytes_get64(p + 16);
    out->salt = bytes_get64(p + 24);
    out->size = (uint32_t)size;
    return true;
}

bool segment_decode_header(const uint8_t block[SEGMENT_BLOCK], struct segment_header *out)
{
    return decode_header_copy(block, out) || decode_header_copy(block + HEADER_SECOND, out);
}

static uint32_t record_crc(const uint8_t p[SEGMENT_RECORD_HEADER], uint32_t offset)
{
    uint8_t place[8];
    bytes_put64(place, offset);
    return bytes_crc(bytes_crc(0, p, SEGMENT_RECORD_HEADER - 4), place, sizeof(place));
}

void segment_encode_record(const struct segment_record *r, uint64_t salt, uint32_t offset,
                           uint8_t out[SEGMENT_RECORD_HEADER])
{
    bytes_put64(out, salt);
    bytes_put64(out + 8, r->seq);
    bytes_put64(out + 16, r->id);
    bytes_put32(out + 24, r->base);
    bytes_put16(out + 28, r->type);
    bytes_put16(out + 30, r->head_len);
    bytes_put32(out + 32, r->body_len);
    bytes_put32(out + 36, r->head_crc);
    bytes_put32(out + 40, r->body_crc);
    bytes_put32(out + 44, record_crc(out, offset));
}

bool segment_decode_record(const uint8_t p[SEGMENT_RECORD_HEADER], uint64_t salt, uint32_t offset,
                           struct segment_record *out)
{
    if (bytes_get64(p) != salt || bytes_get32(p + 44) != record_crc(p, offset))
        return false;
    struct segment_record r = {
        .seq = bytes_get64(p + 8),
        .id = bytes_get64(p + 16),
        .base = bytes_get32(p + 24),
        .type = bytes_get16(p + 28),
        .head_len = bytes_get16(p + 30),
        .body_len = bytes_get32(p + 32),
        .head_crc = bytes_get32(p + 36),
        .body_crc = bytes_get32(p + 40),
    };
    if (r.head_len > SEGMENT_HEAD_MAX || r.body_len > SEGMENT_BODY_MAX)
        return false;
    *out = r;
    return true;
}

uint32_t segment_span(size_t head_len, size_t body_len)
{
    size_t len = SEGMENT_RECORD_HEADER + head_len + body_len;
    return (uint32_t)((len + SEGMENT_ALIGN - 1) / SEGMENT_ALIGN * SEGMENT_ALIGN);
}

void segment_encode_footer(const struct segment_footer *f, const struct segment_header *h,
                           uint8_t out[SEGMENT_FOOTER])
{
    memset(out, 0, SEGMENT_FOOTER);
    memcpy(out, footer_magic, sizeof(footer_magic));
    bytes_put64(out + 8, h->salt);
    bytes_put64(out + 16, h->number);
    bytes_put32(out + 24, f->end);
    bytes_put32(out + 28, f->index_len);
    bytes_put32(out + 32, f->index_crc);
    bytes_put32(out + SEGMENT_FOOTER - 4, bytes_crc(0, out, SEGMENT_FOOTER - 4));
}

bool segment_decode_footer(const uint8_t p[SEGMENT_FOOTER], const struct segment_header *h,
                           struct segment_footer *out)
{
    if (memcmp(p, footer_magic, sizeof(footer_magic)) != 0 || bytes_get64(p + 8) != h->salt ||
        bytes_get64(p + 16) != h->number ||
        bytes_get32(p + SEGMENT_FOOTER - 4) != bytes_crc(0, p, SEGMENT_FOOTER - 4))
        return false;
    struct segment_footer f = {
        .end = bytes_get32(p + 24),
        .index_len = bytes_get32(p + 28),
        .index_crc = bytes_get32(p + 32),
    };
    uint64_t room = h->size - SEGMENT_FOOTER;
    if (f.end < SEGMENT_BLOCK || f.end > room || f.index_len > room - f.end)
        return false;
    *out = f;
    return true;
}

void segment_encode_entry(const struct segment_record *r, uint32_t offset,
                          uint8_t out[SEGMENT_ENTRY])
{
    bytes_put32(out, offset);
    bytes_put16(out + 4, r->type);
    bytes_put16(out + 6, r->head_len);
    bytes_put64(out + 8, r->seq);
    bytes_put64(out + 16, r->id);
    bytes_put32(out + 24, r->body_len);
    bytes_put32(out + 28, r->body_crc);
}

void segment_decode_entry(const uint8_t p[SEGMENT_ENTRY], struct segment_record *out_record,
                          uint32_t *out_offset)
{
    *out_record = (struct segment_record){
        .seq = bytes_get64(p + 8),
        .id = bytes_get64(p + 16),
        .type = bytes_get16(p + 4),
        .head_len = bytes_get16(p + 6),
        .body_len = bytes_get32(p + 24),
        .body_crc = bytes_get32(p + 28),
    };
    *out_offset = bytes_get32(p);
}
