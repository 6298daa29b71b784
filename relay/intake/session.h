/*
 * One SMTP session with a device: drives a server_fsm over a stream and writes into the queue.
 *
 * The session owns its stream, its state machine and an open queue writer. A commit outlives the
 * session: once the final dot was read the message is committed whatever the peer does, and only
 * the reply is lost with the connection. session_new() never calls back; on_end comes once, from
 * the loop, after which the session has freed itself.
 */
#ifndef OUTTRAY_RELAY_INTAKE_SESSION_H
#define OUTTRAY_RELAY_INTAKE_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "relay/intake/access.h"
#include "relay/intake/listener.h"

/* Replies that wait for a device which does not read them: more, and its input waits too. */
#define SESSION_PENDING_MAX 65536
/* How long a closed session may take to be read to its end. */
#define SESSION_LINGER_MS 5000

struct session;

struct session_settings {
    const struct intake_settings *intake;
    struct intake_counts *counts;
    const struct access *access; /* copied */
    const char *listener;        /* borrowed; outlives the session */
    uint64_t id;
    uint64_t max_size;
    /* Commits that the session leaves behind; the owner waits for zero before it stops. */
    uint64_t *commits;
    void (*on_end)(void *ctx, struct session *s);
    void (*on_commit_end)(void *ctx); /* *commits fell */
    void *ctx;
};

/* Takes fd, also on failure. NULL without memory. */
struct session *session_new(int fd, const struct session_settings *settings);
/* Ends the session: at once when it is idle, after the reply to its mail data otherwise. */
void session_stop(struct session *s);
/* Drops the session; no callback follows. Commits under way go on without it. */
void session_free(struct session *s);

struct session *session_next(const struct session *s); /* the owner's list */
void session_set_next(struct session *s, struct session *next);
const char *session_device(const struct session *s);

#endif
