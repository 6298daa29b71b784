/*
 * SipHash: a keyed hash, of 64 bits for fingerprints and tables, and of 128 bits, in pieces, for
 * telling texts apart. Pure.
 *
 * SipHash-2-4 is what its authors propose. SipHash-1-3 takes half the time, and is enough where
 * nobody is shown a hash.
 */
#ifndef OUTTRAY_RELAY_BASE_SIPHASH_H
#define OUTTRAY_RELAY_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#define SIPHASH_KEY  16
#define SIPHASH_LONG 16 /* octets of the hash of 128 bits */

enum siphash_rounds { SIPHASH_2_4, SIPHASH_1_3 };

/* SipHash-2-4. */
uint64_t siphash(const uint8_t key[SIPHASH_KEY], const void *data, size_t len);

/* A hash of 128 bits in the making. */
struct siphash {
    enum siphash_rounds rounds;
    uint64_t v[4];
    uint64_t tail; /* octets that do not fill a word yet */
    uint64_t len;  /* of all */
};

void siphash_begin(struct siphash *s, enum siphash_rounds rounds, const uint8_t key[SIPHASH_KEY]);
void siphash_add(struct siphash *s, const void *data, size_t len);
void siphash_end(struct siphash *s, uint8_t out[SIPHASH_LONG]);

#endif
