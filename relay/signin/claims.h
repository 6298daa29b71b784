/*
 * What an access token says, for a person who wonders why it is refused. Pure.
 *
 * Access tokens are the mail service's business: nothing here is verified, nothing is decided by
 * it, and the token itself is never shown. A token that is no JSON Web Token says nothing.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_CLAIMS_H
#define OUTTRAY_RELAY_SIGNIN_CLAIMS_H

#include <stdbool.h>
#include <stdint.h>

#define CLAIMS_TEXT_MAX 256

/* Printable ASCII; "" and 0 where the token does not say. */
struct claims {
    char audience[CLAIMS_TEXT_MAX];
    char issuer[CLAIMS_TEXT_MAX];
    char app[CLAIMS_TEXT_MAX];    /* client id */
    char tenant[CLAIMS_TEXT_MAX]; /* id */
    char roles[CLAIMS_TEXT_MAX];  /* of an app, separated by spaces */
    char scopes[CLAIMS_TEXT_MAX]; /* of a person's token */
    char user[CLAIMS_TEXT_MAX];   /* who signed in */
    uint64_t issued_s;
    uint64_t expires_s;
};

/* False when the token is opaque. */
bool claims_read(const char *token, struct claims *out);

#endif
