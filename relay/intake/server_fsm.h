/*
 * The server side of an SMTP session, as a pure state machine: octets in, effects out.
 *
 * The shell (session.c) hands in what arrived and performs one effect after the other until
 * SERVER_NOTHING. It links without sockets, clock or spool, so a test reads the values.
 *
 * Effects that need an answer stop the machine: after SERVER_OPEN it consumes nothing until
 * server_fsm_opened(), after SERVER_COMMIT until server_fsm_committed(). 250 after the final dot
 * comes from server_fsm_committed() and nowhere else. Input that follows meanwhile stays with the
 * caller (bounded by what the stream keeps). As long as a further effect is due, at least one octet
 * of the input stays unconsumed, so that a caller which pauses in between comes back with it.
 *
 * Tolerance (RFC 5321 with what office devices really send): verbs in any case, a bare LF as a line
 * end, spaces around paths, missing angle brackets, HELO without a name, MAIL without HELO, a
 * second MAIL as implied RSET, unknown ESMTP parameters, a few empty lines. Strangers never get
 * this far: the shell answers them 554 5.7.1.
 *
 * What could be mail data or another protocol is never run as commands: HTTP, a TLS hello, BDAT
 * (its octets would follow) and a line behind a refused DATA that is no command all end the
 * session.
 */
#ifndef OUTTRAY_RELAY_INTAKE_SERVER_FSM_H
#define OUTTRAY_RELAY_INTAKE_SERVER_FSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/envelope.h"
#include "queue/error.h"

#define SERVER_LINE_MAX         4096 /* command line with its end; RFC 5321 asks for 512 and more */
#define SERVER_REPLY_MAX        1024
#define SERVER_BAD_COMMANDS_MAX 20    /* unknown or malformed since the last mail; then 421 */
#define SERVER_EMPTY_LINES_MAX  10    /* ignored without a reply; then 500 */
#define SERVER_CHUNK            16384 /* most mail data in one effect */
#define SERVER_HELO_MAX         255   /* octets kept of an EHLO or HELO name */
#define SERVER_SUBJECT_MAX      200   /* octets kept of a subject, for people */
#define SERVER_LINE_SWALLOW_MAX                                                                    \
    65536 /* octets of a command line without end; then the session is closed */
#define SERVER_SWALLOW_MAX (UINT64_C(1) << 29) /* of refused mail data; then the session ends */

struct server_fsm;

struct server_settings {
    const char *hostname;       /* in the banner, EHLO, Received and Message-ID */
    const char *client;         /* peer address as text */
    const char *client_literal; /* RFC 5321 address literal */
    const char *device;         /* name of the device, or its address */
    const char *listener;
    uint64_t max_size; /* octets; announced in SIZE; 0 = no limit */
    uint32_t max_recipients;
    int utc_offset_minutes; /* local time minus UTC, for Date and Received; 0 = they say +0000 */
};

enum server_effect_kind {
    SERVER_NOTHING, /* needs more input (or an answer that is still due) */
    SERVER_REPLY,   /* send text[0..text_len) */
    SERVER_OPEN,    /* open a message in the spool; answer server_fsm_opened() */
    SERVER_STORE,   /* append data[0..data_len) to the open message */
    SERVER_COMMIT,  /* commit the open message with the envelope; answer server_fsm_committed() */
    SERVER_DISCARD, /* abort the open message */
    SERVER_CLOSE    /* send text if any, then close */
};

struct server_effect {
    enum server_effect_kind kind;
    const char *text; /* valid until the next call */
    size_t text_len;
    const uint8_t *data; /* valid until the next call */
    size_t data_len;
};

/* The strings of the settings are copied. NULL without memory. */
struct server_fsm *server_fsm_new(const struct server_settings *settings);
/* Accepts NULL. An open message is the caller's to abort. */
void server_fsm_free(struct server_fsm *f);

/* The banner. */
void server_fsm_start(struct server_fsm *f, struct server_effect *out);

/* Consumes some of the octets and yields one effect. Call again with the rest until SERVER_NOTHING.
 * wall_ms is used for Date and Received. */
void server_fsm_step(struct server_fsm *f, const uint8_t *data, size_t len, uint64_t wall_ms,
                     size_t *out_used, struct server_effect *out);

/* Answer to SERVER_OPEN: the id that the message will have, or err (452 for ERROR_NO_ROOM and
 * ERROR_LIMIT, else 451). */
void server_fsm_opened(struct server_fsm *f, uint64_t id, const struct error *err,
                       struct server_effect *out);
/* The spool failed while storing, or its reader (SERVER_STORE): the rest of the mail data is
 * swallowed and refused with 452 or 451 at its end. The caller has aborted the message. */
void server_fsm_store_failed(struct server_fsm *f, const struct error *err);
/* Answer to SERVER_COMMIT. */
void server_fsm_committed(struct server_fsm *f, uint64_t id, const struct error *err,
                          struct server_effect *out);
/* 421 with the reason; the session ends. */
void server_fsm_shut(struct server_fsm *f, const char *reason, struct server_effect *out);

/* The current transaction's envelope: reverse-path, recipients, helo, sizes, message_id, subject,
 * repairs, body. Device, client, listener are filled; route and lane are the caller's to set before
 * the commit. It stays as it is until the next transaction begins or this one is reset. */
struct envelope *server_fsm_envelope(struct server_fsm *f);
/* True between the first octet of mail data and the answer to its end: a clean stop waits for it.
 */
bool server_fsm_in_mail_data(const struct server_fsm *f);
bool server_fsm_is_idle(const struct server_fsm *f); /* no transaction open */
/* True when SERVER_OPEN or SERVER_COMMIT waits for its answer. */
bool server_fsm_is_waiting(const struct server_fsm *f);
/* Phrase for logs and timeouts: "waiting for a command", "receiving mail data". After SERVER_CLOSE,
 * why: "quit", "too many bad commands". Valid until the next call. */
const char *server_fsm_phase(const struct server_fsm *f);

#endif
