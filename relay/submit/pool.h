/*
 * The connections of one mailbox: opened as needed, lent to messages, reused, closed.
 *
 * Each connection is in one state, changed in one place (pool_move). It takes a slot of the
 * mailbox's budget before the first address is tried, and one more for each further socket that
 * connects at the same time, and gives them back when the peer's end was seen. A lent connection is
 * its borrowers' until each has had its result, was told on_lost or has called pool_return(); then
 * the pool decides: idle again, or closed because it is old, refused something that spoils it, or
 * is not wanted any more.
 *
 * A connection is lent to one message, and with the mailbox's in_flight to as many small ones at
 * the same time: whoever has one may be joined (pool_join()) while the client has room, the mailbox
 * is not in trouble and its sign-in is proven, and nothing speaks for closing the connection.
 *
 * Until a sign-in was accepted one connection alone tries it. A mailbox that has several in flight
 * is in a hurry: its other connections are made at the same time up to the sign-in, and held there
 * until the first one is signed in. When that fails, or takes too long, they are dropped. When a
 * sign-in is refused, so is every connection that has not begun its own.
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
#define POOL_HOLD_MS      20000 /* how long a connection waits for another one's sign-in */

enum pool_state {
    POOL_CONNECTING, /* up to the accepted sign-in */
    POOL_IDLE,       /* ready for a message */
    POOL_LENT,       /* submitting, for one borrower at least */
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
    uint32_t uses;     /* messages it was lent to */
    uint64_t begun;    /* messages submitted, for pool_judge() */
    uint64_t judged;   /* up to this one they have met the trouble that was judged last */
    uint32_t runners;  /* slots taken besides its own, while addresses race */
    uint64_t token;    /* generation of the token that it signs in with; 0 = none */
    bool warm;         /* it was used, or had not been idle for POOL_WARM_MS when it was lent */
    bool spoiled;      /* a reply says that it must not be used again */
    bool held;         /* its sign-in waits for that of another one */
    bool kept;         /* it is one of those that only urgent mail may use */
    void *borrowers[CLIENT_FLIGHTS_MAX];
    size_t borrower_count;
};

/* What a borrower hears; client_events of the lent connection. */
struct pool_borrower {
    /* The session ended, or the connection is being closed, before the borrower submitted anything
     * on it: it is not the borrower's any more. */
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
/* Whether a small message may join those that have a connection; what is kept for urgent mail only
 * that may join. */
bool pool_has_room(const struct pool *p, bool urgent);
/* Lends the connection with room that has fewest borrowers; or NULL. */
struct pool_connection *pool_join(struct pool *p, void *borrower, bool urgent);
/* Gives back a connection on which the borrower has begun nothing. */
void pool_return(struct pool_connection *c, void *borrower);
/* A message is submitted now: its number on the connection, for pool_judge(). */
uint64_t pool_begin(struct pool_connection *c);
/* Judges a verdict about the mailbox, upstream or network that this message met. What was under way
 * on the connection together with one that was judged has met the same trouble and is not judged
 * again. */
void pool_judge(struct pool_connection *c, uint64_t number, const struct verdict *v,
                enum client_stage stage, const struct reply *reply);
/* The operator has mended something. */
void pool_retry(struct pool *p);
/* Opens connections until `wanted` are connecting or the budget is spent. Cheap to call often. */
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
