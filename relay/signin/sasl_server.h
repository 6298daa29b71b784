/*
 * The SASL server: how a device signs in to us, libsasl2 behind three calls.
 *
 * PLAIN and LOGIN are in-process mechanisms of our own, as on the client side (sasl.h); no plug-in
 * is loaded from disk and no user database is asked. LOGIN asks "Username:" and "Password:", byte
 * for byte, because some devices compare; it takes the user name as initial response too. The
 * library's password callback is synchronous, so here it only keeps what was said: whether it is
 * right is found out afterwards by somebody who may block.
 *
 * A PLAIN message may name an identity to act as: there is none but that of the device itself, so
 * it is ignored.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_SASL_SERVER_H
#define OUTTRAY_RELAY_SIGNIN_SASL_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "queue/error.h"

struct sasl_server;

enum sasl_server_step {
    SASL_SERVER_ASKS,   /* send the question */
    SASL_SERVER_HEARD,  /* login and password are known */
    SASL_SERVER_REFUSES /* what came is not what the mechanism says; err tells more */
};

/* Process-wide start of the library's server side; once, before the first sasl_server_begin(). */
bool sasl_server_setup(struct error *err);
void sasl_server_teardown(void);

/* Begins a sign-in at `host`, which is us. NULL on failure. */
struct sasl_server *sasl_server_begin(const char *host, const char *mechanism, struct error *err);
/* What the device said; NULL: nothing yet, which only the first call may say. The question is valid
 * until the next call. */
enum sasl_server_step sasl_server_next(struct sasl_server *s, const void *response, size_t len,
                                       const char **out_question, size_t *out_len,
                                       struct error *err);
/* After SASL_SERVER_HEARD, until sasl_server_end(). They hold no NUL. */
const char *sasl_server_login(const struct sasl_server *s);
const char *sasl_server_password(const struct sasl_server *s);
void sasl_server_end(struct sasl_server *s); /* wipes what was heard; accepts NULL */

#endif
