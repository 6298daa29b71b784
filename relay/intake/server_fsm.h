/*
 * The server side of an SMTP session, as a pure state machine: octets in, effects out.
 *
 * The shell (session.c) hands in what arrived and performs one effect after the other until
 * SERVER_NOTHING. It links without sockets, clock or spool, so a test reads the values.
 *
 * Effects that need an answer stop the machine: after SERVER_OPEN it consumes nothing until
 * server_fsm_opened(), after SERVER_COMMIT until server_fsm_committed(), after SERVER_AUTH until
 * server_fsm_challenge() or server_fsm_checked(). 250 after the final dot or the last chunk comes
 * from server_fsm_committed() and nowhere else. Input that follows meanwhile stays with the caller
 * (bounded by what the stream keeps). As long as a further effect is due, at least one octet of the
 * input stays unconsumed, so that a caller which pauses in between comes back with it.
 *
 * Tolerance (RFC 5321 with what office devices really send): verbs in any case, a bare LF as a line
 * end, spaces around paths, missing angle brackets, HELO without a name, MAIL without HELO, a
 * second MAIL as implied RSET, unknown ESMTP parameters, a few empty lines. Strangers never get
 * this far: the shell answers them 554 5.7.1.
 *
 * What a device does otherwise than others is noted (server_fsm_quirks()), for the registry of
 * devices; nothing depends on it.
 *
 * Content: what smtp/repair.h and smtp/mime.h know to put right is put right on the way in and
 * named in the envelope's repairs, as are the line ends (bare_lf, bare_cr, cr_cr_lf, lf_dot_lf).
 * A message with the null reverse-path is marked as automatic (auto_submitted) unless it says so.
 * Refused at its end is what cannot be: raw binary data (554 5.6.1), a lone CR inside a header
 * field (554 5.6.0).
 *
 * What could be mail data or another protocol is never run as commands: HTTP, a TLS hello, BDAT
 * without a number and a line behind a refused DATA that is no command all end the session. The
 * octets of a BDAT that is refused are read and dropped.
 *
 * A device whose mail data holds no CR LF, has no MIME part open and ends in LF . LF may be
 * waiting: the shell measures the silence while server_fsm_awaits_silence() and tells it by
 * server_fsm_silence(). A message ended so ends its session too.
 *
 * TLS: once STARTTLS is answered nothing is consumed until server_fsm_secured(); what arrives in
 * the clear in between is the shell's to drop.
 *
 * Signing in: the mechanisms are the shell's. What the device sends is handed out decoded, once,
 * and wiped when it has been answered; it is in no reply and no phrase. One thing is kept: a login
 * that is a whole mail address, whoever's it is, stands in for a From that is missing where the
 * reverse-path is null. A keyword that is hidden
 * from the reply to EHLO can be used all the same, but for AUTH when it is off.
 */
#ifndef OUTTRAY_RELAY_INTAKE_SERVER_FSM_H
#define OUTTRAY_RELAY_INTAKE_SERVER_FSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/envelope.h"
#include "queue/error.h"
#include "relay/base/config.h"
#include "relay/intake/quirks.h"
#include "relay/intake/twice.h"

#define SERVER_LINE_MAX         4096 /* command line with its end; RFC 5321 asks for 512 and more */
#define SERVER_REPLY_MAX        1024
#define SERVER_BAD_COMMANDS_MAX 20    /* unknown or malformed since the last mail; then 421 */
#define SERVER_EMPTY_LINES_MAX  10    /* ignored without a reply; then 500 */
#define SERVER_CHUNK            16384 /* most mail data in one effect */
#define SERVER_HELO_MAX         255   /* octets kept of an EHLO or HELO name */
#define SERVER_IMPORTANCE_MAX   16    /* octets looked at of such a field */
#define SERVER_SUBJECT_MAX      200   /* octets kept of a subject, for people */
#define SERVER_LINE_SWALLOW_MAX                                                                    \
    65536 /* octets of a command line without end; then the session is closed */
#define SERVER_LF_DOT_LF_MS 10000               /* of silence */
#define SERVER_TLS_TEXT_MAX 64                  /* octets of TLS version and suite, with NUL */
#define SERVER_QUESTION_MAX 64                  /* octets of a mechanism's question */
#define SERVER_SWALLOW_MAX  (UINT64_C(1) << 29) /* of refused mail data; then the session ends */

struct server_fsm;

enum server_tls {
    SERVER_TLS_NONE,    /* STARTTLS is not offered */
    SERVER_TLS_OFFERED, /* in the clear */
    SERVER_TLS_REQUIRED /* ... and nothing of a mail goes without */
};

struct server_settings {
    const char *hostname;       /* in the banner, EHLO, Received and Message-ID */
    const char *client;         /* peer address as text */
    const char *client_literal; /* RFC 5321 address literal */
    const char *device;         /* name of the device, or its address */
    const char *listener;
    uint64_t max_size; /* octets; announced in SIZE; 0 = no limit */
    uint32_t max_recipients;
    enum server_tls tls;
    const struct config_domains *recipient_domains; /* borrowed; NULL or empty: all */
    enum config_login auth;
    uint32_t hide;            /* from the reply to EHLO: a set of enum config_keyword */
    bool auth_equals;         /* "AUTH=" as well as "AUTH " in it */
    bool mt_priority;         /* may choose the lane (RFC 6710) */
    bool importance;          /* may do so in the header, by Importance and X-Priority */
    bool lf_dot_lf;           /* silence after LF . LF ends mail data */
    bool join_split;          /* the envelope tells which part of a split mail it is */
    int utc_offset_minutes;   /* local time minus UTC, for Date and Received; 0 = they say +0000 */
    const uint8_t *twice_key; /* of TWICE_KEY octets, copied: content is hashed with it; or NULL */
    const char *charset;      /* of header fields that are neither ASCII nor UTF-8; NULL: as "" in
                               smtp/repair.h */
};

enum server_effect_kind {
    SERVER_NOTHING,   /* needs more input (or an answer that is still due) */
    SERVER_REPLY,     /* send text[0..text_len) */
    SERVER_OPEN,      /* open a message in the spool; answer server_fsm_opened() */
    SERVER_STORE,     /* append data[0..data_len) to the open message */
    SERVER_COMMIT,    /* commit the open message with the envelope; answer server_fsm_committed() */
    SERVER_DISCARD,   /* abort the open message */
    SERVER_AUTH,      /* sign in: text is the mechanism when it begins, else NULL, and data what the
                         device said, NULL for nothing at all; answer server_fsm_challenge() or
                         server_fsm_checked() */
    SERVER_START_TLS, /* send text, then start TLS as a server, and drop what has come in the clear
                         meanwhile; answer server_fsm_secured() */
    SERVER_CLOSE      /* send text if any, then close */
};

enum server_check {
    SERVER_CHECK_VERIFIED,
    SERVER_CHECK_WRONG,
    SERVER_CHECK_UNAVAILABLE /* could not be found out */
};

struct server_identity {
    const char *device;
    const char *login;
    uint64_t max_size; /* as in the settings, here and below */
    uint32_t max_recipients;
    const struct config_domains *recipient_domains;
    bool mt_priority;
    bool importance;
    bool join_split;
};

struct server_effect {
    enum server_effect_kind kind;
    const char *text; /* valid until the next call */
    size_t text_len;
    const uint8_t *data; /* valid until the next call */
    size_t data_len;
};

/* What one server_fsm_step() has read: first commands and answers to AUTH, then mail data. */
struct server_heard {
    const uint8_t *commands; /* a piece of the step's input */
    size_t commands_len;
    size_t mail_len;
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

/* What the last step has read. Octets are told once, in the step that reads them; the next one
 * consumes one of them where an effect had been due. */
struct server_heard server_fsm_heard(const struct server_fsm *f);

/* Answer to SERVER_OPEN: the id that the message will have, or err (452 for ERROR_NO_ROOM,
 * ERROR_SHARE and ERROR_LIMIT, else 451). */
void server_fsm_opened(struct server_fsm *f, uint64_t id, const struct error *err,
                       struct server_effect *out);
/* The spool failed while storing, or its reader (SERVER_STORE): the rest of the mail data is
 * swallowed and refused with 452 or 451 at its end. The caller has aborted the message. */
void server_fsm_store_failed(struct server_fsm *f, const struct error *err);
/* Answer to SERVER_COMMIT. */
void server_fsm_committed(struct server_fsm *f, uint64_t id, const struct error *err,
                          struct server_effect *out);
/* Answers to SERVER_AUTH: what the mechanism asks next ... */
void server_fsm_challenge(struct server_fsm *f, const void *question, size_t len,
                          struct server_effect *out);
/* ... or what became of it. `who` comes with SERVER_CHECK_VERIFIED: from now on the session is that
 * device's. Where any login will do, all but that are taken as well, for nobody's. */
void server_fsm_checked(struct server_fsm *f, enum server_check check,
                        const struct server_identity *who, struct server_effect *out);
/* The session goes on through TLS; what the device said before is forgotten (RFC 3207 4.2). Answer
 * to SERVER_START_TLS; also before server_fsm_start(), when TLS came first. `text` is version and
 * cipher suite, for the trace field. */
void server_fsm_secured(struct server_fsm *f, const char *text);
/* 421 with this enhanced status code and the reason; the session ends. */
void server_fsm_shut(struct server_fsm *f, const char *status, const char *reason,
                     struct server_effect *out);

/* Nothing has come for ms. May end mail data: then perform what is returned, and what
 * server_fsm_step() of no octets returns until SERVER_NOTHING. */
void server_fsm_silence(struct server_fsm *f, uint64_t ms, uint64_t wall_ms,
                        struct server_effect *out);
/* True when SERVER_LF_DOT_LF_MS of silence would mean something. */
bool server_fsm_awaits_silence(const struct server_fsm *f);

/* The current transaction's envelope: reverse-path, recipients, helo, login, sizes, message_id,
 * subject, repairs, body. Device, client, listener are filled; route is the caller's to set before
 * the commit, and the lane unless server_fsm_has_lane(). It stays as it is until the next
 * transaction begins or this one is reset. */
struct envelope *server_fsm_envelope(struct server_fsm *f);
/* The hash of the mail data as it was sent, less what only carries it; false when it is not known.
 * Between SERVER_COMMIT and its answer. */
bool server_fsm_content(const struct server_fsm *f, uint8_t out[TWICE_DIGEST]);
/* What the device has said in this transaction about the message's size; 0 when nothing. */
uint64_t server_fsm_announced(const struct server_fsm *f);
/* True between the first octet of mail data and the answer to its end: a clean stop waits for it.
 */
bool server_fsm_in_mail_data(const struct server_fsm *f);
bool server_fsm_is_idle(const struct server_fsm *f); /* no transaction open */
/* The name of the last HELO or EHLO, made printable; "" without one, and for one that was said
 * behind an AUTH without success: it may be a secret. Valid until the next step. */
const char *server_fsm_helo(const struct server_fsm *f);
/* The device has chosen the lane of this message. */
bool server_fsm_has_lane(const struct server_fsm *f);
/* Those of the session so far; the messages' own are the envelopes' repairs. */
quirks server_fsm_quirks(const struct server_fsm *f);
/* True when SERVER_OPEN, SERVER_COMMIT or SERVER_AUTH waits for its answer. */
bool server_fsm_is_waiting(const struct server_fsm *f);
/* Phrase for logs and timeouts: "waiting for a command", "receiving mail data". After SERVER_CLOSE,
 * why: "quit", "too many bad commands". Valid until the next call. */
const char *server_fsm_phase(const struct server_fsm *f);

#endif
