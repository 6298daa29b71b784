/*
 * The envelope of a queued message: reverse-path, recipients with their outcomes, and the facts of
 * its arrival. Pure: no files, no clock.
 *
 * Text form (stored in the spool, shown by the tool): one "key: value" line each, first
 * "outtray-envelope: 1". Unknown keys are ignored, so that older programs read newer files.
 * Values are single lines; control characters never get in. All strings are owned by the envelope
 * and are never NULL: an absent text is "".
 *
 * An outcome set (struct outcomes, "outtray-outcomes: 1") is the part that changes: it is written
 * again as a whole by each attempt, and the newest counts.
 */
#ifndef OUTTRAY_QUEUE_ENVELOPE_H
#define OUTTRAY_QUEUE_ENVELOPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"
#include "queue/error.h"

#define ENVELOPE_PATH_MAX       256          /* RFC 5321 4.5.3.1.3, with the angle brackets */
#define ENVELOPE_RECIPIENTS_MAX 1000         /* one transaction; RFC 5321 asks for 100 */
#define ENVELOPE_TEXT_MAX       (640 * 1024) /* encoded */
#define ENVELOPE_NAME_MAX       64           /* device, route, login and host names */
#define ENVELOPE_REPLY_MAX      400          /* of a stored reply: what a person can use */

enum lane { LANE_URGENT = 0, LANE_NORMAL = 1, LANE_BULK = 2, LANE_COUNT = 3 };

enum envelope_body { ENVELOPE_BODY_7BIT = 0, ENVELOPE_BODY_8BITMIME = 1 };

/* What has become of one recipient. Delivered and failed are final. */
enum recipient_state {
    RECIPIENT_PENDING = 0,   /* not tried, or to be tried again */
    RECIPIENT_DELIVERED = 1, /* taken over by the upstream */
    RECIPIENT_FAILED = 2     /* will not be tried again */
};

struct recipient {
    char *forward_path; /* without angle brackets */
    char *notify;       /* DSN NOTIFY as received, or "" (RFC 3461) */
    char *orcpt;        /* DSN ORCPT as received, or "" */
    enum recipient_state state;
    char *reply; /* the upstream's last reply, or a local failure in words, or "" */
};

struct envelope {
    char *reverse_path; /* without angle brackets; "" is the null reverse-path */
    char *device;       /* name of the device, or its address */
    char *client;       /* address it came from, as text */
    char *helo;         /* its EHLO or HELO argument, made printable */
    char *login;        /* verified login, or "" */
    char *listener;     /* listener name */
    char *route;        /* route chosen at intake */
    char *message_id;   /* with angle brackets, or "" */
    char *subject;      /* first 200 octets, made printable; for people only */
    char *envid;        /* DSN ENVID, or "" */
    char *ret;          /* DSN RET: "FULL", "HDRS" or "" */
    char *repairs;      /* what was changed on the way in, comma-separated, or "" */
    enum lane lane;
    enum envelope_body body;
    bool smtputf8;
    uint64_t arrived_ms;  /* wall clock, ms since 1970; for people only, never for scheduling */
    uint64_t size;        /* octets of the stored mail data, CR LF form, trace field included */
    uint32_t header_size; /* octets of its header section with the empty line; 0 when unknown */
    /* Of a fragment of a mail that its device has split (message/partial, RFC 2046 5.2.2). */
    char *partial_id; /* or "" */
    uint32_t partial_number;
    uint32_t partial_total;   /* 0 = it does not say */
    uint64_t partial_group;   /* 0 = it does not wait for its siblings */
    uint64_t partial_kin;     /* hash of what siblings have in common */
    uint64_t partial_wait_ms; /* how long it waits for them */
    uint32_t joined;          /* from so many fragments, of partial_group; 0 = as it came */
    struct recipient *recipients;
    size_t recipient_count;
};

/* An empty envelope whose strings are all "". */
void envelope_init(struct envelope *e);
void envelope_done(struct envelope *e);
/* Makes e, which must be initialised, equal to `from`, outcomes included. False without memory; e
 * is then good for envelope_done() only. */
bool envelope_copy(struct envelope *e, const struct envelope *from);

/* Replaces *field by a copy of text with control characters made '?'. False without memory. */
bool envelope_set(char **field, const char *text);
bool envelope_set_n(char **field, const char *text, size_t len);

/* Adds a pending recipient. False at ENVELOPE_RECIPIENTS_MAX or without memory. */
bool envelope_add_recipient(struct envelope *e, const char *forward_path);
bool envelope_has_recipient(const struct envelope *e, const char *forward_path);
size_t envelope_count(const struct envelope *e, enum recipient_state state);

bool envelope_encode(const struct envelope *e, struct bytes *out);
/* Reads text written by envelope_encode(); e must be initialised and is filled. Every recipient
 * comes out pending. */
bool envelope_decode(struct envelope *e, const void *text, size_t len, struct error *err);

/* The outcomes of all recipients, in the recipients' order: state and reply. */
bool envelope_encode_outcomes(const struct envelope *e, struct bytes *out);
/* Applies such text to e; the number of recipients must agree. */
bool envelope_apply_outcomes(struct envelope *e, const void *text, size_t len, struct error *err);

const char *lane_name(enum lane lane); /* "urgent", "normal", "bulk" */
const char *recipient_state_name(enum recipient_state state);

#endif
