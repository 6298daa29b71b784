/*
 * The SASL client: libsasl2 behind a few calls. libsasl2 is included in sasl*.c and .h only.
 *
 * Exactly one mechanism is named to the library, so that its own preferences never choose. PLAIN,
 * LOGIN (sasl_password.h), XOAUTH2 and OAUTHBEARER (sasl_token.h) are our own in-process
 * mechanisms: the library has the first two only as files to be loaded and drops LOGIN with its
 * next release, and has none for tokens. No plug-in is loaded from disk, but for the library's
 * SCRAM where the configuration asks for it. The external SSF is set after TLS, without which no
 * mechanism that shows the password or token is used. The login is checked before anything is sent:
 * no control characters, and only ASCII with a token; so is the token.
 *
 * sasl_client_begin() may block for a moment: the library looks up our own host's full name when
 * the host name has no dot. /etc/hosts answers that on an ordinary machine.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_SASL_H
#define OUTTRAY_RELAY_SIGNIN_SASL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"
#include "relay/base/secret.h"

struct sasl_client;

/* Mechanisms that can be used with a password (the one with fewer round trips first) or with an
 * access token, in order of preference. */
#define SASL_PASSWORD_MECHANISMS "PLAIN LOGIN"
#define SASL_TOKEN_MECHANISMS    "XOAUTH2 OAUTHBEARER"

#define SASL_FAILURE_MAX 200

/* Who signs in where, with what. All borrowed for the call. */
struct sasl_identity {
    const char *host;
    uint16_t port;
    const char *login;
    const struct secret *secret; /* password or access token */
    unsigned ssf;                /* strength of the TLS layer in bits; 0 without */
};

/* Process-wide start of the library; once, before the first sasl_client_begin(). `scram` also loads
 * the library's own SCRAM mechanisms, when they are installed. */
bool sasl_setup(bool scram, struct error *err);
void sasl_teardown(void);

/* Begins a sign-in. out_response: initial response, or NULL when the mechanism waits for the
 * server; valid until the next call. NULL on failure. */
struct sasl_client *sasl_client_begin(const struct sasl_identity *who, const char *mechanism,
                                      const char **out_response, size_t *out_len,
                                      struct error *err);
/* Answers one challenge. The response is valid until the next call. */
bool sasl_client_next(struct sasl_client *c, const void *challenge, size_t len,
                      const char **out_response, size_t *out_len, struct error *err);
/* Why the server refuses the token, as it explained in a challenge before its final reply; "" when
 * it did not. */
const char *sasl_client_failure(const struct sasl_client *c);
void sasl_client_end(struct sasl_client *c); /* accepts NULL */

#endif
