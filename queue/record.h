/*
 * What the heads of records say. Pure: encoding only.
 *
 * A head holds what recovery needs to put a message back into the schedule, so that of a sealed
 * segment nothing but the index is read. Each begins with its version. Readers ignore octets
 * behind what they know, so later versions may append.
 *
 * Bodies: MESSAGE has the envelope's text and then, unless the mail is large, the mail data; STATE
 * has the outcomes' text, or nothing: then the outcomes stay as they were; START has a list of
 * record_end. DOUBT, GONE and MARK have none.
 */
#ifndef OUTTRAY_QUEUE_RECORD_H
#define OUTTRAY_QUEUE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/envelope.h"

#define RECORD_NAME_MAX 255
#define RECORD_HEAD_MAX 640 /* of what this program writes; at most SEGMENT_HEAD_MAX */
#define RECORD_END_LEN  16  /* of one record_end, encoded */

/* What a message has to do with mail that a device has split (message/partial). */
enum record_part_kind { RECORD_WHOLE = 0, RECORD_FRAGMENT = 1, RECORD_JOINED = 2 };

struct record_part {
    uint8_t kind;    /* enum record_part_kind */
    uint32_t number; /* of a fragment: which one */
    uint32_t total;  /* parts in all; 0 = the fragment does not say */
    uint64_t group;  /* what its siblings and the joined message have in common; never used again */
    uint64_t kin;    /* hash of what fragments must have in common */
    uint64_t wait_ms; /* how long a fragment waits before it leaves by itself */
};

struct record_message {
    bool large;   /* its mail data is a file of its own */
    bool damaged; /* did not verify when this copy of it was made */
    enum lane lane;
    uint32_t recipients;
    uint32_t envelope_len; /* of the body */
    uint64_t arrived_ms;
    uint64_t size;
    char route[RECORD_NAME_MAX + 1];
    char device[RECORD_NAME_MAX + 1];
    struct record_part part;
};

struct record_state {
    uint8_t state;  /* enum queue_state */
    bool damaged;   /* the message's bytes do not verify */
    bool revived;   /* dead, then asked for again: recipients that failed are to be tried again */
    uint8_t losses; /* attempts whose outcome was never known */
    uint32_t attempts;
    uint64_t tried_ms;
    uint64_t wait_ms;
    uint64_t wall_ms; /* when this was written */
};

struct record_start {
    uint64_t wall_ms;
    uint64_t id_limit; /* no id from it on has been given to a message */
};

/* What is known of an earlier segment. Below `proven` every octet was durable; the records from
 * `end` on are void. */
struct record_end {
    uint64_t number;
    uint32_t proven;
    uint32_t end;
};

/* Each returns the length written to out, which has RECORD_HEAD_MAX octets. */
size_t record_encode_message(const struct record_message *m, uint8_t *out);
size_t record_encode_state(const struct record_state *s, uint8_t *out);
size_t record_encode_start(const struct record_start *s, uint8_t *out); /* of START and MARK */
size_t record_encode_doubt(uint64_t wall_ms, uint8_t *out);
void record_encode_end(const struct record_end *e, uint8_t out[RECORD_END_LEN]);

bool record_decode_message(const void *head, size_t len, struct record_message *out);
bool record_decode_state(const void *head, size_t len, struct record_state *out);
bool record_decode_start(const void *head, size_t len, struct record_start *out);
void record_decode_end(const uint8_t p[RECORD_END_LEN], struct record_end *out);

#endif
