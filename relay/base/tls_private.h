/*
 * One TLS connection, as stream.c sees it. For stream.c and tls.c only.
 *
 * Nothing here blocks or calls back. Every call says how far it came; err is filled for TLS_CUT,
 * TLS_LOST and TLS_FAILED, with texts that name the host and what a person can do.
 */
#ifndef OUTTRAY_RELAY_BASE_TLS_PRIVATE_H
#define OUTTRAY_RELAY_BASE_TLS_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"

#define TLS_HOST_MAX    253 /* octets of a DNS name */
#define TLS_OFFERED_MAX 80

struct tls;
struct tls_context;

enum tls_step {
    TLS_OK,
    TLS_WANT_READ,  /* call again when the socket is readable */
    TLS_WANT_WRITE, /* call again when it is writable */
    TLS_CLOSED,     /* the peer sent close_notify */
    TLS_CUT,        /* the peer sent FIN without it */
    TLS_LOST,       /* the connection was lost; err->errnum */
    TLS_FAILED      /* the peer's TLS or certificate is not acceptable */
};

/* Borrows fd. NULL without memory or when host cannot be a name. */
struct tls *tls_client_start(struct tls_context *context, int fd, const char *host);
/* Borrows fd. peer is for messages. NULL without memory. */
struct tls *tls_server_start(struct tls_context *context, int fd, const char *peer);
/* Before the first step: octets that were read from the socket already and begin the handshake.
 * False without memory. */
bool tls_feed(struct tls *t, const void *data, size_t len);
void tls_free(struct tls *t); /* sends nothing; accepts NULL */

enum tls_step tls_handshake(struct tls *t, struct error *err);
enum tls_step tls_read(struct tls *t, void *data, size_t room, size_t *out_len, struct error *err);
/* After TLS_WANT_WRITE the next call must offer at least the same octets, wherever they are now. */
enum tls_step tls_write(struct tls *t, const void *data, size_t len, size_t *out_len,
                        struct error *err);
/* Sends close_notify; does not wait for the peer's. */
enum tls_step tls_close(struct tls *t, struct error *err);

/* Octets that were received and deciphered but not read; the socket does not announce them. */
size_t tls_buffered(const struct tls *t);
/* "TLSv1.3 TLS_AES_256_GCM_SHA384"; "" before the handshake is done. Valid until freed. */
const char *tls_text(const struct tls *t);
/* The versions that a client offered: "TLS 1.0", "TLS 1.3, TLS 1.2"; "" when it sent no hello that
 * could be read. Valid until freed. */
const char *tls_offered(const struct tls *t);

#endif
