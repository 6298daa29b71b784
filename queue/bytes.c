#include "queue/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libdeflate.h>

#define BYTES_FIRST_CAP 64

void bytes_init(struct bytes *b, size_t max)
{
    *b = (struct bytes){.max = max};
}

void bytes_done(struct bytes *b)
{
    free(b->data);
    bytes_init(b, b->max);
}

void bytes_clear(struct bytes *b)
{
    b->len = 0;
    b->failed = false;
}

static bool fail(struct bytes *b)
{
    b->failed = true;
    return false;
}

/* Doubles, so that a long run of appends copies each byte a bounded number of times. One byte more
 * than max may be asked for: a NUL behind the content. */
static bool grow(struct bytes *b, size_t need)
{
    size_t cap = b->cap > 0 ? b->cap : BYTES_FIRST_CAP;
    uint8_t *data;

    if (need <= b->cap)
        return true;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    if (cap > b->max)
        cap = need > b->max ? need : b->max;
    data = realloc(b->data, cap);
    if (data == NULL)
        return false;
    b->data = data;
    b->cap = cap;
    return true;
}

uint8_t *bytes_reserve(struct bytes *b, size_t len)
{
    size_t least = b->data == NULL ? 1 : 0; /* so that a place for len 0 is not NULL either */

    if (len > b->max - b->len || !grow(b, b->len + len + least)) {
        b->failed = true;
        return NULL;
    }
    return b->data + b->len;
}

bool bytes_append(struct bytes *b, const void *data, size_t len)
{
    uint8_t *to;

    if (len == 0)
        return true;
    to = bytes_reserve(b, len);
    if (to == NULL)
        return false;
    memcpy(to, data, len);
    b->len += len;
    return true;
}

bool bytes_text(struct bytes *b, const char *text)
{
    return bytes_append(b, text, strlen(text));
}

/* vsnprintf() writes a NUL, which may lie one byte behind the maximum: hence grow() by hand. */
bool bytes_printf(struct bytes *b, const char *fmt, ...)
{
    va_list args;
    int len;

    va_start(args, fmt);
    len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (len < 0 || (size_t)len > b->max - b->len || !grow(b, b->len + (size_t)len + 1))
        return fail(b);
    va_start(args, fmt);
    len = vsnprintf((char *)b->data + b->len, (size_t)len + 1, fmt, args);
    va_end(args);
    if (len < 0)
        return fail(b);
    b->len += (size_t)len;
    return true;
}

bool bytes_byte(struct bytes *b, uint8_t value)
{
    return bytes_append(b, &value, 1);
}

bool bytes_u16(struct bytes *b, uint16_t value)
{
    uint8_t raw[2];

    bytes_put16(raw, value);
    return bytes_append(b, raw, sizeof(raw));
}

bool bytes_u32(struct bytes *b, uint32_t value)
{
    uint8_t raw[4];

    bytes_put32(raw, value);
    return bytes_append(b, raw, sizeof(raw));
}

bool bytes_u64(struct bytes *b, uint64_t value)
{
    uint8_t raw[8];

    bytes_put64(raw, value);
    return bytes_append(b, raw, sizeof(raw));
}

void bytes_consume(struct bytes *b, size_t len)
{
    if (len >= b->len) {
        b->len = 0;
        return;
    }
    if (len > 0)
        memmove(b->data, b->data + len, b->len - len);
    b->len -= len;
}

const char *bytes_string(struct bytes *b)
{
    if (b->len == 0)
        return "";
    if (!grow(b, b->len + 1)) {
        b->failed = true;
        return "";
    }
    b->data[b->len] = '\0';
    return (const char *)b->data;
}

void bytes_put16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)(value & 0xff);
    p[1] = (uint8_t)(value >> 8);
}

void bytes_put32(uint8_t *p, uint32_t value)
{
    bytes_put16(p, (uint16_t)(value & 0xffff));
    bytes_put16(p + 2, (uint16_t)(value >> 16));
}

void bytes_put64(uint8_t *p, uint64_t value)
{
    bytes_put32(p, (uint32_t)(value & 0xffffffff));
    bytes_put32(p + 4, (uint32_t)(value >> 32));
}

void bytes_reader_init(struct bytes_reader *r, const void *data, size_t len)
{
    /* Never NULL, so that an empty read of nothing can be told from a failed one. */
    *r = (struct bytes_reader){.p = data != NULL ? data : (const uint8_t *)"", .left = len};
}

const uint8_t *bytes_read(struct bytes_reader *r, size_t len)
{
    const uint8_t *p = r->p;

    if (r->failed || len > r->left) {
        r->failed = true;
        return NULL;
    }
    r->p += len;
    r->left -= len;
    return p;
}

uint8_t bytes_read8(struct bytes_reader *r)
{
    const uint8_t *p = bytes_read(r, 1);

    return p != NULL ? *p : 0;
}

uint16_t bytes_read16(struct bytes_reader *r)
{
    const uint8_t *p = bytes_read(r, 2);

    return p != NULL ? bytes_get16(p) : 0;
}

uint32_t bytes_read32(struct bytes_reader *r)
{
    const uint8_t *p = bytes_read(r, 4);

    return p != NULL ? bytes_get32(p) : 0;
}

uint64_t bytes_read64(struct bytes_reader *r)
{
    const uint8_t *p = bytes_read(r, 8);

    return p != NULL ? bytes_get64(p) : 0;
}

uint32_t bytes_crc(uint32_t crc, const void *data, size_t len)
{
    /* zlib takes a NULL buffer as a request for the initial value, whatever crc is. */
    if (len == 0)
        return crc;
    return libdeflate_crc32(crc, data, len);
}
