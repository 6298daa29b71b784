/*
 * The SASL client: libsasl2 behind three calls. libsasl2 is included in sasl.c and mechanisms only.
 *
 * Exactly one mechanism is named to the library, so that its own preferences never choose. Plug-ins
 * are never loaded from disk: the search path points to nothing. PLAIN and LOGIN are our own
 * in-process mechanisms (sasl_password.h), because Microsoft offers only LOGIN and XOAUTH2 and
 * later releases of the library drop LOGIN. The external SSF is set after TLS, without which no
 * mechanism that shows the password is used. The user name is checked: control characters are
 * refused before anything is sent.
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

/* Mechanisms that can be used with a password, the one with fewer round trips first. */
#define SASL_PASSWORD_MECHANISMS "PLAIN LOGIN"

/* Process-wide start of the library; once, before the first sasl_client_begin(). */
bool sasl_setup(struct error *err);
void sasl_teardown(void);

/* Begins a sign-in at `host`. login is copied, the password borrowed until sasl_client_end(). `ssf`
 * is the strength of the TLS layer in bits. out_response: initial response, or NULL when the
 * mechanism waits for the server; valid until the next call. NULL on failure. */
struct sasl_client *sasl_client_begin(const char *host, const char *mechanism, const char *login,
                                      const struct secret *password, unsigned ssf,
                                      const char **out_response, size_t *out_len,
                                      struct error *err);
/* Answers one challenge. The response is valid until the next call. */
bool sasl_client_next(struct sasl_client *c, const void *challenge, size_t len,
                      const char **out_response, size_t *out_len, struct error *err);
void sasl_client_end(struct sasl_client *c); /* accepts NULL */

#endif
