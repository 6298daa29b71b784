/*
 * The inside of a session, shared by session.c (its life, and the effects of the state machine),
 * session_opening.c (banner and TLS), session_mail.c (from DATA to the 250), session_signin.c and
 * session_told.c (what the log, the registry of devices and the transcript get to know). Nothing
 * else includes this.
 */
#ifndef OUTTRAY_RELAY_INTAKE_SESSION_INSIDE_H
#define OUTTRAY_RELAY_INTAKE_SESSION_INSIDE_H

#include "relay/intake/registry.h"
#include "relay/intake/server_fsm.h"
#include "relay/intake/session.h"
#include "relay/intake/signin.h"
#include "relay/intake/transcript.h"

struct event;
struct commit; /* under way; outlives its session */

enum opening {
    OPENING_WAITS,   /* for a TLS hello; then the banner is sent */
    OPENING_TLS,     /* TLS comes first; then the banner is sent */
    OPENING_GREETED, /* the banner was sent, nothing has come */
    OPENING_DONE
};

struct session {
    struct session_settings set;
    struct access access;
    struct stream *stream;
    struct server_fsm *fsm;
    struct queue_writer *writer;
    struct commit *commit;
    struct session_links links;
    struct signin *signin; /* while the device signs in */
    enum config_login auth;
    struct event *silence;  /* after LF . LF */
    bool silent;            /* for long enough */
    struct event *patience; /* of OPENING_WAITS, else NULL */
    const uint8_t *left;    /* during on_data: what has come behind the current effect */
    size_t left_len;
    enum opening opening;
    uint64_t heard_ms; /* when the device last sent something */
    uint64_t linger_ms;
    uint64_t began_ms;      /* of the session */
    uint64_t data_began_ms; /* of the current mail data */
    uint64_t messages;
    bool full;     /* the spool asked to stop */
    bool mute;     /* nothing has come yet */
    bool securing; /* a TLS handshake is under way */
    bool stopping; /* close after the current transaction */
    bool closing;  /* what comes is discarded */
    /* For the registry of devices; NULL and unused without one. */
    struct transcript *transcript;
    quirks seen;                /* besides those that the state machine notes */
    char tls[REGISTRY_TLS_MAX]; /* version and suite, once secured */
    bool told;                  /* the registry knows of the session */
    bool had_mail;              /* DATA was begun */
    bool troubled;
};

/* ---- session.c ------------------------------------------------------------------------------- */

uint64_t session_now(const struct session *s);
void session_perform(struct session *s, const struct server_effect *first);
/* Sends a reply. Closes the session without memory. */
void session_say(struct session *s, const struct server_effect *effect);
/* The one way out while the peer is still there: what is written is sent, then the stream ends. */
void session_close(struct session *s, const char *reason);
/* Whatever waited has come: reads on. */
void session_go_on(struct session *s);
/* What a device may send: its own limit, or what its route's mailboxes take. */
uint64_t session_max_size(const struct session *s);

/* ---- session_opening.c ----------------------------------------------------------------------- */

/* Banner, TLS, or a wait for either, as the listener is set. False without memory. */
bool session_open(struct session *s);
/* Looks at the first octets. True when they are SMTP. */
bool session_opened_by(struct session *s, const uint8_t *data, size_t len);
void session_start_tls(struct session *s, const struct server_effect *effect);
void session_secured(struct session *s);
void session_tls_failed(struct session *s, const struct error *err);
void session_drop_patience(struct session *s);

/* ---- session_mail.c -------------------------------------------------------------------------- */

void session_begin_mail(struct session *s);
void session_store(struct session *s, const struct server_effect *effect);
void session_commit(struct session *s);
void session_discard(struct session *s);
/* The session goes, its commit goes on. */
void session_leave_commit(struct session *s);

/* ---- session_signin.c ------------------------------------------------------------------------ */

void session_sign_in(struct session *s, const struct server_effect *effect);
void session_drop_signin(struct session *s);

/* ---- session_told.c -------------------------------------------------------------------------- */

void session_tell_begin(struct session *s);
/* A login has made it another device's. */
void session_tell_device(struct session *s);
void session_tell_quirk(struct session *s, enum quirk quirk);
/* Everything seen in the session so far. */
quirks session_quirks(const struct session *s);
void session_tell_note(struct session *s, const char *text);
void session_tell_heard(struct session *s);
/* Something went wrong for the device; `refused`: a message or recipient was. */
void session_tell_trouble(struct session *s, const char *text, bool refused);
/* A reply on its way: a refusal is written down. */
void session_tell_reply(struct session *s, const struct server_effect *effect);
/* Nothing is kept of mail data whose end has not come. */
void session_tell_incomplete(struct session *s);
void session_tell_closing(struct session *s, const char *reason);
/* The last thing of a session. */
void session_tell_end(struct session *s);

#endif
