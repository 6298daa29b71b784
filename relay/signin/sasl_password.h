/*
 * The SASL mechanisms that show the password, PLAIN (RFC 4616) and LOGIN, as an in-process plug-in
 * for the client side of libsasl2.
 *
 * The library has both only as files to be loaded, and LOGIN leaves it with its next release, while
 * Microsoft offers nothing else for passwords.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_SASL_PASSWORD_H
#define OUTTRAY_RELAY_SIGNIN_SASL_PASSWORD_H

#include <sasl/sasl.h>
#include <sasl/saslplug.h>

/* For sasl_client_add_plugin(), which must come after sasl_client_init(). */
int sasl_password_init(const sasl_utils_t *utils, int max_version, int *out_version,
                       sasl_client_plug_t **out_plugs, int *out_count);

#endif
