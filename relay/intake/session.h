/*
 * One SMTP session with a device: drives a server_fsm over a stream and writes into the queue.
 *
 * The session owns its stream, its state machine and an open queue writer. A commit outlives the
 * session: once the final dot was read the message is committed whatever the peer does, and only
 * the reply is lost with the connection. session_new() never calls back; on_end comes once, from
 * the loop, after which the session has freed itself.
 *
 * It also opens the session as its listener is set: banner at once, TLS first, or a banner that
 * waits a moment for a TLS hello (see hello.h).
 */
#ifndef OUTTRAY_RELAY_INTAKE_SESSION_H
#define OUTTRAY_RELAY_INTAKE_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "relay/base/quiet.h"
#include "relay/intake/access.h"
#include "relay/intake/hello.h"
#include "relay/intake/limits.h"
#include "relay/intake/listener.h"
#include "relay/intake/profiles.h"
#include "relay/intake/twice.h"

/* Replies that wait for a device which does not read them: more, and its input waits too. */
#define SESSION_PENDING_MAX 65536
/* How long a closed session may take to be read to its end. */
#define SESSION_LINGER_MS 5000
/* The same of one that has to make room. */
#define SESSION_EVICT_MS 100
/* How long a TLS handshake may take. */
#define SESSION_HANDSHAKE_MS 25000

struct session;

/* What the sessions of an intake share. Outlives them. */
struct session_commons {
    struct profiles *profiles;
    struct hello_table *hellos;
    struct limits *limits;
    struct twice *twice;
    struct quiet too_fast; /* log lines about it */
    struct quiet no_room;
};

struct session_settings {
    const struct intake_settings *intake;
    struct intake_counts *counts;
    struct session_commons *commons;
    const struct access *access;            /* copied */
    const struct config_listener *listener; /* borrowed; outlives the session */
    struct limits_use *use;                 /* of its address; given back by session_free() */
    uint64_t id;
    /* Commits that the session leaves behind; the owner waits for zero before it stops. */
    uint64_t *commits;
    void (*on_end)(void *ctx, struct session *s);
    void (*on_commit_end)(void *ctx); /* *commits fell */
    void *ctx;
};

/* Takes fd and the use, also on failure. NULL without memory. */
struct session *session_new(int fd, const struct session_settings *settings);
/* Ends the session: at once when it is idle, after the reply to its mail data otherwise. */
void session_stop(struct session *s);
/* Drops the session; no callback follows. Commits under way go on without it. */
void session_free(struct session *s);

/* How long the device has been silent; 0 while it should not be disturbed: in a transaction, or
 * when something is under way. */
uint64_t session_silence_ms(const struct session *s);
bool session_is_mute(const struct session *s); /* it has never said anything */
const struct net_address *session_peer(const struct session *s);
/* Tells the device to come back later, and ends at once: room is needed. */
void session_evict(struct session *s);

/* The owner's list. */
struct session_links {
    struct session *before;
    struct session *after;
};
struct session_links *session_links(struct session *s);

#endif
