#include "relay/base/siphash.h"

#include <string.h>

#include "queue/bytes.h"

static inline uint64_t rotated(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void mix(uint64_t v[4], unsigned rounds)
{
    while (rounds-- > 0) {
        v[0] += v[1];
        v[1] = rotated(v[1], 13) ^ v[0];
        v[0] = rotated(v[0], 32);
        v[2] += v[3];
        v[3] = rotated(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = rotated(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = rotated(v[1], 17) ^ v[2];
        v[2] = rotated(v[2], 32);
    }
}

static inline void absorb(uint64_t v[4], enum siphash_rounds rounds, uint64_t word)
{
    v[3] ^= word;
    mix(v, rounds == SIPHASH_1_3 ? 1 : 2);
    v[0] ^= word;
}

/* Whole words, on a copy of the state, which can stay in registers. */
static inline void absorb_run(struct siphash *s, enum siphash_rounds rounds, const uint8_t *p,
                              size_t words)
{
    uint64_t v[4] = {s->v[0], s->v[1], s->v[2], s->v[3]};
    for (size_t i = 0; i < words; i++)
        absorb(v, rounds, bytes_get64(p + 8 * i));
    memcpy(s->v, v, sizeof v);
    s->len += 8 * words;
}

/* A loop of its own for each. */
static void absorb_words(struct siphash *s, const uint8_t *p, size_t words)
{
    if (s->rounds == SIPHASH_1_3)
        absorb_run(s, SIPHASH_1_3, p, words);
    else
        absorb_run(s, SIPHASH_2_4, p, words);
}

static uint64_t squeeze(struct siphash *s)
{
    mix(s->v, s->rounds == SIPHASH_1_3 ? 3 : 4);
    return s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3];
}

static void start(struct siphash *s, enum siphash_rounds rounds, const uint8_t key[SIPHASH_KEY])
{
    uint64_t k0 = bytes_get64(key);
    uint64_t k1 = bytes_get64(key + 8);
    *s = (struct siphash){.rounds = rounds,
                          .v = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du,
                                k0 ^ 0x6c7967656e657261u, k1 ^ 0x7465646279746573u}};
}

static void absorb_octet(struct siphash *s, uint8_t octet)
{
    s->tail |= (uint64_t)octet << (8 * (s->len % 8));
    if (++s->len % 8 != 0)
        return;
    absorb(s->v, s->rounds, s->tail);
    s->tail = 0;
}

void siphash_add(struct siphash *s, const void *data, size_t len)
{
    const uint8_t *p = data;
    for (; len > 0 && s->len % 8 != 0; len--)
        absorb_octet(s, *p++);
    absorb_words(s, p, len / 8);
    p += len - len % 8;
    for (len %= 8; len > 0; len--)
        absorb_octet(s, *p++);
}

static void absorb_last(struct siphash *s)
{
    absorb(s->v, s->rounds, s->tail | s->len << 56);
}

uint64_t siphash(const uint8_t key[SIPHASH_KEY], const void *data, size_t len)
{
    struct siphash s;
    start(&s, SIPHASH_2_4, key);
    siphash_add(&s, data, len);
    absorb_last(&s);
    s.v[2] ^= 0xff;
    uint64_t hash = squeeze(&s);
    explicit_bzero(&s, sizeof s); /* it may be of a secret */
    return hash;
}

void siphash_begin(struct siphash *s, enum siphash_rounds rounds, const uint8_t key[SIPHASH_KEY])
{
    start(s, rounds, key);
    s->v[1] ^= 0xee;
}

void siphash_end(struct siphash *s, uint8_t out[SIPHASH_LONG])
{
    absorb_last(s);
    s->v[2] ^= 0xee;
    bytes_put64(out, squeeze(s));
    s->v[1] ^= 0xdd;
    bytes_put64(out + 8, squeeze(s));
}
