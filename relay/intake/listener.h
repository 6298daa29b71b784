/*
 * The intake's shell: listening sockets, sessions, and who may speak.
 *
 * Binds every [listener]; each accepted connection becomes a session (session.c) that drives a
 * server_fsm and writes into the queue. Addresses outside [devices] allow and every [device] get
 * one "554 5.7.1" and are closed; a flood of them costs little more, and few log lines.
 *
 * Sessions are limited in all and per address. Where a limit is reached, the session that has been
 * silent longest outside of a transaction makes room, when it was silent for INTAKE_IDLE_MS, or for
 * INTAKE_MUTE_MS without ever having said a word; else the new one is told 421. So connections that
 * somebody opens and forgets keep nobody out. When descriptors run out, accepting pauses and comes
 * back by itself.
 */
#ifndef OUTTRAY_RELAY_INTAKE_LISTENER_H
#define OUTTRAY_RELAY_INTAKE_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include "queue/error.h"
#include "queue/queue.h"
#include "relay/base/clock.h"
#include "relay/base/config.h"
#include "relay/base/stream.h"

#define INTAKE_MUTE_MS 1000
#define INTAKE_IDLE_MS 10000

struct event_base;
struct intake;
struct join;     /* relay/intake/join.h */
struct logins;   /* relay/intake/logins.h */
struct registry; /* relay/intake/registry.h */

struct intake_settings {
    struct event_base *base;
    struct stream_loop *streams;
    struct clock *clock;
    const struct config *config;
    struct queue *queue;
    struct logins *logins;
    struct join *join;         /* NULL = split mail is not joined; outlives every commit */
    struct registry *registry; /* NULL = nobody keeps what is seen of devices */
    /* Octets of mail data that the route's mailboxes take today; 0 = no limit known. */
    uint64_t (*route_max_size)(void *ctx, const char *route);
    /* A device begins to send mail data of this route. */
    void (*on_coming)(void *ctx, const char *route);
    /* Something new is due. */
    void (*on_queued)(void *ctx);
    void *ctx;
};

struct intake_counts {
    uint64_t sessions;      /* open now */
    uint64_t sessions_ever; /* since the start */
    uint64_t accepted;      /* messages answered with 250 */
    uint64_t refused;       /* messages or recipients refused */
    uint64_t strangers;     /* connections refused by address */
};

/* Opens the sockets; does not accept yet. May need root for ports below 1024. Everything in the
 * settings but queue and callbacks is used. ERROR texts name the listener, its address and the
 * remedy. */
struct intake *intake_bind(const struct config *config, struct error *err);
/* Starts accepting. Reads the certificates that listeners need, or makes one, which takes a moment;
 * files are those of the user we have become. The settings are copied, what they point to is
 * borrowed until intake_free(). */
bool intake_start(struct intake *in, const struct intake_settings *settings, struct error *err);
/* Stops accepting; idle sessions are told 421 and closed, transactions in mail data may finish.
 * on_stopped(ctx) is called, from the loop, when no session is left. */
void intake_stop(struct intake *in, void (*on_stopped)(void *ctx), void *ctx);
/* Closes everything at once. Accepts NULL. */
void intake_free(struct intake *in);
void intake_counts(const struct intake *in, struct intake_counts *out);
/* The port a listener is bound to (for port 0 in tests); 0 when there is no such listener. */
uint16_t intake_port(const struct intake *in, const char *listener);

#endif
