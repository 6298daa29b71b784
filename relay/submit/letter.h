/*
 * A message as one mailbox submits it: what is stored, with the header changed as that mailbox
 * needs it (smtp/identity.h).
 *
 * The header is read and changed before anything is submitted, because its size counts; the rest
 * streams. Stored mail is never changed, and what another mailbox needs is found anew. A header of
 * unknown end (it was too large to be looked at) passes as it is. For a server that takes no 8-bit
 * mail it is converted as it is read (smtp/sevenbit.h); how large it gets is then not known before.
 *
 * Callbacks come from the loop, but letter_read() may call back from within while what was read
 * with the header lasts.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_LETTER_H
#define OUTTRAY_RELAY_SUBMIT_LETTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/envelope.h"
#include "queue/queue.h"
#include "relay/smtp/identity.h"

struct letter;

/* err is NULL on success, then letter_read() and the questions below are answered. */
typedef void letter_ready_fn(void *ctx, const struct error *err);

/* Takes the reader, also on failure; the envelope is the reader's. The identity's strings are
 * borrowed until done() has been called, which always comes unless the letter is freed before. NULL
 * without memory; then the reader is closed. */
struct letter *letter_new(struct queue_reader *reader, const struct envelope *e,
                          const struct identity *identity, letter_ready_fn *done, void *ctx);
/* Closes the reader, and ends a read that may be under way. Accepts NULL. */
void letter_free(struct letter *l);

const char *letter_reverse_path(const struct letter *l);
/* The beginning of the stored header, where a recipient's NOTIFY has SUCCESS; else NULL and 0. */
const uint8_t *letter_header(const struct letter *l, size_t *out_len);
uint64_t letter_size(const struct letter *l); /* octets of mail data as they will be read */

/* Before the first letter_read(): what is read is to have no octets above 127. */
void letter_convert(struct letter *l);

/* As queue_read(): the next block, len 0 at the end. ERROR_INVALID when it cannot be converted. */
void letter_read(struct letter *l, queue_read_fn *done, void *ctx);

#endif
