/*
 * Replies that no row of the verdicts knows, collected so that rows can be added. Pure.
 *
 * What differs from one message to the next (addresses, ids, times, host names in brackets) is
 * masked, so that equal ones fold into one entry. At most REPLIES_MAX are kept; the one that was
 * not seen for longest makes room. Text of the network comes printable (reply.h) and stays so.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_REPLIES_H
#define OUTTRAY_RELAY_SUBMIT_REPLIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "relay/smtp/reply.h"
#include "relay/submit/client_fsm.h"

#define REPLIES_MAX      200
#define REPLIES_TEXT_MAX 400 /* octets that are kept, with NUL */

struct replies;

struct replies_entry {
    enum client_stage stage;
    const char *text; /* "554 5.2.0 ...", masked; valid until the next change */
    uint64_t count;
    uint64_t first_ms; /* wall clock */
    uint64_t last_ms;
};

struct replies *replies_new(void); /* NULL without memory */
void replies_free(struct replies *r);

/* Collects the reply when it is a refusal that no row knows; true then. Accepts NULL. */
bool replies_note(struct replies *r, enum client_stage stage, const struct reply *reply,
                  uint64_t wall_ms);
/* Puts back an entry that was stored. */
void replies_restore(struct replies *r, const struct replies_entry *entry);

size_t replies_count(const struct replies *r);
/* The i-th, the one that was seen last first. False beyond the last. */
bool replies_get(const struct replies *r, size_t i, struct replies_entry *out);
/* Counts every change, so that who stores them can tell. */
uint64_t replies_version(const struct replies *r);

/* The text with what differs masked: "<...>" for an address, "[...]" for brackets and what is in
 * them, "#" for an id or number. */
void replies_mask(const char *text, char *out, size_t size);

#endif
