/*
 * The same mail twice from a device: one that did not wait for our answer, or lost it, sends again.
 * Pure.
 *
 * Mail is the same when device, reverse-path, recipients in their order and mail data are, octet
 * for octet as it was sent (in CR LF form, unstuffed), before anything of ours is added. What is
 * kept of it is a keyed hash of 128 bits (SipHash-1-3, which nobody sees), so that nobody can
 * make two mails look alike. It is remembered for TWICE_WINDOW_MS, TWICE_MAX mails at most, in
 * memory only.
 */
#ifndef OUTTRAY_RELAY_INTAKE_TWICE_H
#define OUTTRAY_RELAY_INTAKE_TWICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/envelope.h"
#include "relay/base/siphash.h"

#define TWICE_WINDOW_MS (15 * 60 * 1000)
#define TWICE_MAX       1024
#define TWICE_KEY       SIPHASH_KEY
#define TWICE_DIGEST    SIPHASH_LONG

/* Of the envelope (device, paths) and the digest of its content. */
void twice_digest(const uint8_t key[TWICE_KEY], const struct envelope *e,
                  const uint8_t content[TWICE_DIGEST], uint8_t out[TWICE_DIGEST]);

struct twice;

/* NULL without memory. */
struct twice *twice_new(const uint8_t key[TWICE_KEY]);
void twice_free(struct twice *t); /* accepts NULL */
const uint8_t *twice_key(const struct twice *t);

struct twice_copy {
    uint64_t id; /* of the first copy */
    uint64_t age_ms;
    bool durable; /* its device was, or could have been, told 250 */
};

/* The newest copy within the window; false when there is none. */
bool twice_find(const struct twice *t, const uint8_t digest[TWICE_DIGEST], uint64_t now_ms,
                struct twice_copy *out);
/* Remembers a message that is being committed. */
void twice_note(struct twice *t, const uint8_t digest[TWICE_DIGEST], uint64_t id, uint64_t now_ms);
/* Its commit has ended: it is durable, or it is not in the queue at all. */
void twice_committed(struct twice *t, uint64_t id, bool durable);

#endif
