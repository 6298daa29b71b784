/*
 * A non-blocking stream over one socket, in the clear or through TLS, for both sides of the relay.
 *
 * The stream reads into one buffer of STREAM_READ octets that all streams of a loop share, and
 * hands the bytes to on_data at once, which says how many it took. What it leaves is kept (at most
 * STREAM_KEEP_MAX) and offered again together with what arrives next; after stream_pause() with the
 * first offer that follows stream_resume(). A consumer that leaves STREAM_KEEP_MAX octets untouched
 * is treated as paused. A stream that is idle owns no buffer. Writing queues: stream_write()
 * copies, what is written in one turn of the loop leaves together; on_drained is called when
 * everything has been given to the kernel. stream_pending() tells how much waits, for
 * back-pressure. No stream gets more than a few reads or writes per turn.
 *
 * Callbacks come from the loop, never from within a call of ours. A callback may call
 * stream_free(); memory goes back after the end of the turn. Callbacks other than on_data and
 * on_end may be NULL.
 *
 * When the connection is lost, what the peer had sent before is still handed over, then on_end
 * follows: a server's last reply is often all that explains why it left. While a stream is paused
 * and has nothing left to write its socket is not watched, so an end is noticed after
 * stream_resume() only.
 *
 * The socket calls live in stream.c, OpenSSL in tls.c; its writes need SIGPIPE to be ignored by the
 * process.
 */
#ifndef OUTTRAY_RELAY_BASE_STREAM_H
#define OUTTRAY_RELAY_BASE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"
#include "relay/base/net.h"

#define STREAM_READ     65536
#define STREAM_KEEP_MAX 65536

struct event_base;
struct stream;
struct stream_loop; /* what the streams of one loop share */
struct tls_context; /* relay/base/tls.h */

enum stream_end {
    /* Orderly: the peer sent FIN or close_notify; err->kind is ERROR_NONE. To a TLS client a FIN
     * without close_notify is told with ERROR_IO: what came last may have been cut off. The stream
     * can still be written to. */
    STREAM_END_CLOSED,
    STREAM_END_RESET,   /* the connection was lost; err says how */
    STREAM_END_TLS,     /* TLS failed; err says how, and what to do */
    STREAM_END_REFUSED, /* connecting failed */
    STREAM_END_TIMEOUT  /* the idle time passed (stream_set_timeout), or the linger time */
};

struct stream_events {
    /* Returns how many octets it took (0..len). */
    size_t (*on_data)(void *ctx, const uint8_t *data, size_t len);
    void (*on_drained)(void *ctx);
    void (*on_connected)(void *ctx); /* after stream_connect() */
    void (*on_secure)(void *ctx);    /* TLS handshake done; a server's name is verified */
    /* The last callback, but for the on_end that answers a later stream_shutdown(). err is never
     * NULL and valid during the call. The stream must still be freed. */
    void (*on_end)(void *ctx, enum stream_end end, const struct error *err);
};

/* The base is borrowed. NULL without memory. */
struct stream_loop *stream_loop_new(struct event_base *base);
struct event_base *stream_loop_base(const struct stream_loop *loop);
/* Every stream must have been freed. Accepts NULL. */
void stream_loop_free(struct stream_loop *loop);

/* Takes fd, also on failure. Borrows events. The stream reads at once. NULL without memory. */
struct stream *stream_accepted(struct stream_loop *loop, int fd, const struct stream_events *events,
                               void *ctx);
/* Starts connecting to address:port. Borrows events. NULL (and err) when that cannot even be tried:
 * no descriptor, no memory, no address. Everything else is told by on_end. */
struct stream *stream_connect(struct stream_loop *loop, const struct net_address *address,
                              uint16_t port, const struct stream_events *events, void *ctx,
                              struct error *err);
/* Closes at once and frees at the end of the turn; no callback follows. Accepts NULL. */
void stream_free(struct stream *s);

bool stream_write(struct stream *s, const void *data, size_t len); /* false without memory */
size_t stream_pending(const struct stream *s);
void stream_pause(struct stream *s);  /* no more on_data */
void stream_resume(struct stream *s); /* offers what was left first, from the loop */
/* Ends with STREAM_END_TIMEOUT when for ms nothing was read and nothing could be written.
 * Connecting and the TLS handshake must each be done within ms. A stream that is paused and has
 * nothing to write is waiting for us, not for the peer: its time starts anew with stream_resume().
 * 0 = never. */
void stream_set_timeout(struct stream *s, uint64_t ms);

/* Starts TLS as a client, in the clear part of a connected stream; `host` (a name or an IP address)
 * is verified against the certificate and sent as SNI. Output waits until on_secure. It is an error
 * for the peer to have sent more than on_data took, or its answer before all our output had left:
 * that ends the stream with STREAM_END_TLS (RFC 3207 6). */
void stream_start_tls_client(struct stream *s, struct tls_context *tls, const char *host);
/* What becomes of octets that have arrived and that on_data has not taken when TLS begins. */
enum stream_rest {
    STREAM_REST_DROPPED, /* plaintext behind STARTTLS means nothing (RFC 3207 4.2) */
    STREAM_REST_IS_TLS   /* the peer began with TLS: they are its first octets */
};
/* Starts TLS as a server, once what was written has left in the clear; from now on nothing else
 * does. Input waits meanwhile, output until on_secure (what is written before the handshake begins
 * is dropped). Ends with STREAM_END_TLS when the handshake fails; err says why and what to do. */
void stream_start_tls_server(struct stream *s, struct tls_context *tls, enum stream_rest rest);
bool stream_is_secure(const struct stream *s);
/* The TLS versions that a client offered, also when the handshake failed: "TLS 1.1". "" when there
 * was no hello. Valid until stream_shutdown(). */
const char *stream_tls_offered(const struct stream *s);
/* "TLSv1.3 TLS_AES_256_GCM_SHA384", or "" in the clear. Valid while the stream lives. */
const char *stream_tls_text(struct stream *s);
/* Peer address as text; valid while the stream lives. */
const char *stream_peer_text(const struct stream *s);
const struct net_address *stream_peer(const struct stream *s);

/* Sends what is pending, then close_notify and FIN, and reads to the peer's end, discarding: one
 * more on_end follows, with STREAM_END_CLOSED when the peer's FIN was seen, STREAM_END_RESET when
 * the connection was or is lost, STREAM_END_TIMEOUT after linger_ms. No other callback follows. May
 * also be called after on_end; output that waits for a TLS handshake is dropped. */
void stream_shutdown(struct stream *s, uint64_t linger_ms);

#endif
