/*
 * What a TLS context and a connection are made of. For relay/base/tls*.c only.
 *
 * tls.c has the connections of both sides and the contexts of clients, tls_server.c the contexts of
 * servers and what it takes to explain a handshake that failed.
 */
#ifndef OUTTRAY_RELAY_BASE_TLS_PARTS_H
#define OUTTRAY_RELAY_BASE_TLS_PARTS_H

#include <stdbool.h>
#include <time.h>

#include <openssl/ssl.h>

#include "relay/base/tls_private.h"

struct tls_context {
    SSL_CTX *ctx;
    /* Of a client. */
    char *ca_file;
    SSL_SESSION *session;
    char session_host[TLS_HOST_MAX + 1];
    time_t session_verified; /* monotonic */
    bool legacy;             /* of a server */
};

struct tls {
    SSL *ssl;
    BIO *fed;          /* what the stream had read before TLS began; owned by ssl */
    struct error *err; /* where on_verify() writes, during a handshake */
    time_t verified;   /* monotonic; when the certificate is (or was, if resumed) verified */
    time_t resumed;    /* the same of the session that was offered */
    bool server;
    bool legacy;
    char host[TLS_HOST_MAX + 1]; /* the server's name; of a client its address */
    char text[64];
    char offered[TLS_OFFERED_MAX];
};

/* What people need to know of an error of OpenSSL's. */
const char *tls_reason_text(unsigned long code);
/* Sets err to what went wrong in a handshake with a client, and what to do. */
void tls_server_explain(const struct tls *t, unsigned long code, struct error *err);
void tls_server_explain_end(const struct tls *t, struct error *err);

#endif
