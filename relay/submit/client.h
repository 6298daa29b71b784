/*
 * One connection to an upstream: drives a client_fsm over a stream, with name lookup, TLS and SASL.
 *
 * A client is made for one mailbox, signs in, and then submits messages as it is told, up to
 * target.in_flight small ones at the same time. It owns its stream and borrows the letter from
 * client_submit() until on_result, when its lender must free it (which ends a read that may be
 * under way). Callbacks come from the loop, in the order in which they stand in struct
 * client_events; on_ready, on_doubt and on_result may also come from within client_submit(),
 * client_doubted() and client_quit().
 *
 * What may not fly beside what is under way (client_fsm_may_begin()) waits here for its turn, and
 * whatever was submitted later waits behind it. A session that ends gives it back (STAGE_IDLE).
 *
 * Addresses are tried in the order of the lookup, which alternates the families: the next one when
 * the last has failed, or beside it after CLIENT_STAGGER_MS without an answer (RFC 8305); the first
 * that answers wins. Each is given CLIENT_CONNECT_MS. The client is made with one slot of the
 * mailbox's budget and asks for another one for every further socket that is open at the same time;
 * where there is none, the next address waits until one has failed. A connection counts against the
 * mailbox until on_closed, which tells whether the peer's end was seen; it is waited for at most
 * CLIENT_LINGER_MS.
 *
 * A reply may arrive in pieces, each of which counts as progress, but its whole takes at most
 * CLIENT_REPLY_TIMES times as long as one may be silent in that stage.
 */
#ifndef OUTTRAY_RELAY_SUBMIT_CLIENT_H
#define OUTTRAY_RELAY_SUBMIT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "relay/base/dns.h"
#include "relay/base/secret.h"
#include "relay/base/stream.h"
#include "relay/base/tls.h"
#include "relay/submit/client_fsm.h"
#include "relay/submit/letter.h"

#define CLIENT_CONNECT_MS  20000
#define CLIENT_STAGGER_MS  250
#define CLIENT_RACE_MAX    4 /* sockets that connect at the same time */
#define CLIENT_LINGER_MS   30000
#define CLIENT_REPLY_TIMES 2
#define CLIENT_AHEAD_MAX   131072 /* mail data waiting in the stream before more is read */

struct client;

/* Borrowed until client_free(). */
struct client_target {
    const char *mailbox; /* for logs */
    const char *host;
    uint16_t port;
    bool implicit_tls;
    bool needs_auth;
    bool held; /* see client_settings, and client_release() */
    bool no_chunking;
    uint32_t in_flight;
    const char *helo;
    const char *login;
    const char *mechanisms;      /* that may be used, in order of preference; copied */
    const struct secret *secret; /* password or access token, copied; NULL without needs_auth */
    struct tls_context *tls;
};

struct client_events {
    /* Takes another slot of the budget, right before a further socket connects; false when none is
     * free. */
    bool (*take_slot)(void *ctx, struct client *c);
    /* That socket is closed. What is not given back when on_closed comes ends with it. */
    void (*give_slot)(void *ctx, struct client *c);
    /* Signed in, and nothing is under way: the moment for client_quit(). Else what waits is begun.
     */
    void (*on_ready)(void *ctx, struct client *c);
    /* `owner` is the transaction's. */
    void (*on_recipient)(void *ctx, struct client *c, void *owner, size_t index,
                         const struct reply *reply);
    /* Make the in-doubt mark durable, then client_doubted(). One at a time. */
    void (*on_doubt)(void *ctx, struct client *c, void *owner);
    void (*on_result)(void *ctx, struct client *c, void *owner, enum client_stage stage,
                      const struct reply *reply);
    /* The session cannot go on and is being closed; after on_result of every transaction that was
     * open. What the server said of a refused token before its reply stands behind the reply's
     * text. */
    void (*on_failed)(void *ctx, struct client *c, enum client_stage stage,
                      const struct reply *reply);
    /* The last one; call client_free(). peer_closed: its end was seen, or there was no connection.
     */
    void (*on_closed)(void *ctx, struct client *c, bool peer_closed);
};

/* Starts connecting. NULL without memory. `id` names the connection in logs. */
struct client *client_new(struct stream_loop *streams, struct dns *dns,
                          const struct client_target *target, uint64_t id,
                          const struct client_events *events, void *ctx);
/* Lets a client that was held sign in. */
void client_release(struct client *c);
/* Submits a message, on a client that is ready or has room: at most CLIENT_FLIGHTS_MAX at one time.
 * tx is copied; what it points to and the letter are borrowed until on_result. */
void client_submit(struct client *c, const struct client_transaction *tx, struct letter *letter);
/* Another small message would fly beside what is under way: a chunk has succeeded on this
 * connection, fewer than target.in_flight are under way or wait, and nothing is in the way. */
bool client_has_room(const struct client *c);
void client_doubted(struct client *c, bool ok);
/* Gives back what waits, and says QUIT; only on a ready client. */
void client_quit(struct client *c);
/* Ends a session that is not ready yet, without a word; only when it has connected. on_closed
 * follows, when the peer's end was seen or waited for in vain, and nothing else does. */
void client_drop(struct client *c);
/* Drops the connection and frees without any callback. Accepts NULL. */
void client_free(struct client *c);

bool client_has_connected(const struct client *c); /* an address was reached */
bool client_is_signing_in(const struct client *c); /* or has signed in */
uint64_t client_id(const struct client *c);
const char *client_mechanism(const struct client *c); /* of the sign-in; "" before */
bool client_lacks_bdat(const struct client *c);       /* see client_fsm_lacks_bdat() */
/* What the server announced. */
bool client_has_smtputf8(const struct client *c);
bool client_has_dsn(const struct client *c);
uint64_t client_size_limit(const struct client *c); /* that the server announced; 0 = none */

#endif
