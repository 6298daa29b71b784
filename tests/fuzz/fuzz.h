/*
 * For fuzz targets: the entry point, checks that hold in every build, and an input that is read
 * front to back.
 *
 * Reads behind the end give zeros, so that every input means something.
 */
#ifndef OUTTRAY_TESTS_FUZZ_FUZZ_H
#define OUTTRAY_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libFuzzer's name for it; replay.c calls it as well. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);          \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct fuzz_input {
    const uint8_t *p;
    size_t left;
};

static inline uint8_t fuzz_u8(struct fuzz_input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->p++;
}

static inline uint64_t fuzz_number(struct fuzz_input *in, unsigned octets)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < octets; i++)
        value |= (uint64_t)fuzz_u8(in) << 8 * i;
    return value;
}

/* A copy of the next octets, at most len, in memory of just their size: a read beyond them is seen.
 * Belongs to the caller. */
static inline uint8_t *fuzz_take(struct fuzz_input *in, size_t len, size_t *out_len)
{
    size_t n = len < in->left ? len : in->left;
    uint8_t *copy = malloc(n > 0 ? n : 1);

    FUZZ_CHECK(copy != NULL);
    if (n > 0)
        memcpy(copy, in->p, n);
    in->p += n;
    in->left -= n;
    *out_len = n;
    return copy;
}

/* Lengths of pieces to cut an input into: 1..31, or (seed 0) all at once. */
static inline size_t fuzz_piece(uint64_t *seed, size_t left)
{
    size_t n;

    if (*seed == 0)
        return left;
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    n = (size_t)(*seed >> 32) % 31 + 1;
    return n < left ? n : left;
}

/* Neither a CR nor an LF without the other. */
static inline bool fuzz_has_clean_lines(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i] == '\r' && (i + 1 == len || p[i + 1] != '\n'))
            return false;
        if (p[i] == '\n' && (i == 0 || p[i - 1] != '\r'))
            return false;
    }
    return true;
}

#endif
