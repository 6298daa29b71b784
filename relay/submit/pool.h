/*
 * The connections of one mailbox: opened as needed, lent to one message at a time, reused, closed.
 *
 * Each connection is in one state, changed in one place (pool_move). It takes a slot of the
 * mailbox's budget before the first address is tried, and one more for each further socket that
 * connects at the same time, and gives them back when the peer's end was seen. A lent connection is
 * the borrower's until pool_return() or the borrower's on_failed; then the pool decides: idle
 * again, or closed because it is old, refused something that spoils it, or is not wanted any more.
 *
 * A connection is closed when it was not used for the mailbox's idle_time and, as soon as it is
 * free, when it is older than session_time: Microsoft's front ends end longer sessions by
 * themselves, and a QUIT of ours is better than a cut of theirs.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_POOL_H
#define OUTTRAY_RELAY_SUBMIT_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "relay/base/clock.h"
#include "relay/submit/client.h"
#include "relay/submit/credential.h"
#include "relay/submit/mailbox.h"

#define POOL_WARM_MS     20000
#define POOL_FAREWELL_MS 1000 /* how long a stop waits for peers' answers to QUIT */
/* A session that ends so soon after the sign-in, with nothing submitted, was not merely idle. */
#define POOL_EARLY_END_MS 2000

enum pool_state {
    POOL_CONNECTING, /* up to the accepted sign-in */
    POOL_IDLE,       /* ready for a message */
    POOL_LENT,       /* submitting */
    POOL_CLOSING,    /* waits for the peer's end */
    POOL_STATE_COUNT
};

struct pool;
struct replies; /* relay/submit/replies.h */

/* A connection; plain values may be read. */
struct pool_connection {
    struct pool *pool;
    struct pool_connection *next;
    struct client *client;
    enum pool_state state;
    uint64_t opened_ms;
    uint64_t since_ms; /* in this state */
    uint64_t ready_ms; /* when it was signed in */
    uint32_t uses;     /* messages lent to it */
    uint32_t runners;  /* slots taken besides its own, while addresses race */
    uint64_t token;    /* generation of the token that it signs in with; 0 = none */
    bool warm;         /* when it was lent, it had not been idle for POOL_WARM_MS */
    bool spoiled;      /* its last reply says that it must not be used again */
    void *borrower;    /* set by whoever has it */
};

/* What a borrower hears; client_events of the lent connection. */
struct pool_borrower {
    /* The session ended before anything was submitted on the connection, which is not the
     * borrower's any more. */
    void (*on_lost)(void *borrower);
    void (*on_recipient)(void *borrower, size_t index, const struct reply *reply);
    void (*on_doubt)(void *borrower);
    /* After it the connection is not the borrower's any more. `first_use`: nothing had been
     * submitted on this connection before, so that a loss says something about the upstream. */
    void (*on_result)(void *borrower, enum client_stage stage, const struct reply *reply,
                      bool first_use);
};

struct pool_settings {
    struct mailbox *mailbox;
    struct signins *signins; /* NULL without OAuth */
    size_t index;            /* of the mailbox in signins */
    struct stream_loop *streams;
    struct dns *dns;
    const struct clock *clock;
    const char *hostname; /* EHLO argument where the mailbox names none */
    const struct pool_borrower *borrower;
    uint64_t *next_id;       /* connection numbers, shared by all pools */
    struct replies *replies; /* collects refusals that no row knows; or NULL */
    /* A connection became idle, or was closed, or the mailbox changed its state: look again. */
    void (*on_change)(void *ctx);
    void *ctx;
};

/* NULL without memory. Settings are copied, what they point to is borrowed. */
struct pool *pool_new(const struct pool_settings *settings);
void pool_free(struct pool *p); /* drops everything; accepts NULL */

/* An idle connection, or NULL. It becomes the borrower's. */
struct pool_connection *pool_lend(struct pool *p, void *borrower);
/* Gives back a connection on which nothing was begun. */
void pool_return(struct pool_connection *c);
/* Judges a verdict about the mailbox, upstream or network that a message met on a connection with
 * this token. */
void pool_judge(struct pool *p, const struct verdict *v, enum client_stage stage,
                const struct reply *reply, uint64_t token);
/* The operator has mended something. */
void pool_retry(struct pool *p);
/* Opens connections until `wanted` are connecting or the budget is spent. */
void pool_open(struct pool *p, size_t wanted);
/* Once a second: closes what is idle too long, too old, or more than allowed. */
void pool_tick(struct pool *p);
/* Closes every idle and connecting connection, and lent ones after their message. */
void pool_stop(struct pool *p);
/* Nothing is under way, apart from peers that take their time to close. */
bool pool_is_quiet(const struct pool *p);
size_t pool_count(const struct pool *p, enum pool_state state);
struct mailbox *pool_mailbox(const struct pool *p);

#endif
