/*
 * Bytes: little-endian integers, a buffer that is born with its maximum, and a bounded reader.
 *
 * A buffer owns its memory; bytes_done() frees it and leaves it empty and usable. Appends fail
 * (return false) at the maximum or when memory is out, and then change nothing. A failure sticks in
 * `failed`, so a run of appends may be checked once at its end.
 * A reader borrows; reads past the end return zero or empty and set `failed`.
 */
#ifndef OUTTRAY_QUEUE_BYTES_H
#define OUTTRAY_QUEUE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
    uint8_t *data;
    size_t len;
    size_t cap;
    size_t max;
    bool failed;
};

void bytes_init(struct bytes *b, size_t max);
void bytes_done(struct bytes *b);
void bytes_clear(struct bytes *b); /* empties, keeps the memory, forgets a failure */
bool bytes_append(struct bytes *b, const void *data, size_t len);
bool bytes_text(struct bytes *b, const char *text);
bool bytes_printf(struct bytes *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool bytes_byte(struct bytes *b, uint8_t value);
bool bytes_u16(struct bytes *b, uint16_t value);
bool bytes_u32(struct bytes *b, uint32_t value);
bool bytes_u64(struct bytes *b, uint64_t value);
/* Removes the first len bytes (at most all of them). */
void bytes_consume(struct bytes *b, size_t len);
/* Makes room for len more bytes and returns where they go; the caller adds to b->len what it wrote.
 * NULL at the maximum or without memory. */
uint8_t *bytes_reserve(struct bytes *b, size_t len);
/* The content as a C string, valid until the next change; "" when empty. Adds a NUL behind len. */
const char *bytes_string(struct bytes *b);

/* Here, because hashes and checksums call them for each word: compilers make one instruction of
 * each. */
static inline uint16_t bytes_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t bytes_get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t bytes_get64(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 |
           (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 |
           (uint64_t)p[7] << 56;
}

void bytes_put16(uint8_t *p, uint16_t value);
void bytes_put32(uint8_t *p, uint32_t value);
void bytes_put64(uint8_t *p, uint64_t value);

struct bytes_reader {
    const uint8_t *p;
    size_t left;
    bool failed;
};

void bytes_reader_init(struct bytes_reader *r, const void *data, size_t len);
uint8_t bytes_read8(struct bytes_reader *r);
uint16_t bytes_read16(struct bytes_reader *r);
uint32_t bytes_read32(struct bytes_reader *r);
uint64_t bytes_read64(struct bytes_reader *r);
/* Borrows len bytes from the reader; NULL (and failed) when there are fewer. */
const uint8_t *bytes_read(struct bytes_reader *r, size_t len);

/* CRC-32 as in ISO 3309 (zlib's), continued from `crc`; start with 0. */
uint32_t bytes_crc(uint32_t crc, const void *data, size_t len);

#endif
