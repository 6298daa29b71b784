/*
 * The SASL mechanisms that carry an OAuth 2.0 access token, XOAUTH2 (Google's and Microsoft's) and
 * OAUTHBEARER (RFC 7628), as an in-process plug-in for the client side of libsasl2, which has
 * neither.
 *
 * Both say everything at once. A server that refuses answers either with its final reply, or first
 * with a challenge that holds JSON; to that the client says nothing (XOAUTH2) or 0x01
 * (OAUTHBEARER), and then hears the final reply. What the JSON says is made into words by
 * sasl_token_failure().
 */
#ifndef OUTTRAY_RELAY_SIGNIN_SASL_TOKEN_H
#define OUTTRAY_RELAY_SIGNIN_SASL_TOKEN_H

#include <stdbool.h>
#include <stddef.h>

#include <sasl/sasl.h>
#include <sasl/saslplug.h>

/* For sasl_client_add_plugin(), which must come after sasl_client_init(). */
int sasl_token_init(const sasl_utils_t *utils, int max_version, int *out_version,
                    sasl_client_plug_t **out_plugs, int *out_count);

/* "status 401, scope https://mail.google.com/" of a challenge's JSON, in printable ASCII; "" when
 * it says nothing that we know. */
void sasl_token_failure(const void *challenge, size_t len, char *out, size_t size);

#endif
