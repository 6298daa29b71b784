/*
 * The SASL mechanisms that show the password, PLAIN (RFC 4616) and LOGIN, as an in-process plug-in
 * for the server side of libsasl2. They hand what they hear to the connection's
 * SASL_CB_SERVER_USERDB_CHECKPASS callback.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_SASL_CAPTURE_H
#define OUTTRAY_RELAY_SIGNIN_SASL_CAPTURE_H

#include <sasl/sasl.h>
#include <sasl/saslplug.h>

/* For sasl_server_add_plugin(), which must come after sasl_server_init(). */
int sasl_capture_init(const sasl_utils_t *utils, int max_version, int *out_version,
                      sasl_server_plug_t **out_plugs, int *out_count);

#endif
