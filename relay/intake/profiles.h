/*
 * The TLS that listeners speak: which certificate, and which profile for whom.
 *
 * The certificates that the configuration names are read and tried at the start. Where it names
 * none, one is made at the first start (tls/certificate.pem and tls/private-key.pem in the spool),
 * for the names and addresses that the host has then. That is done in a child process;
 * of it all only the texts are kept, and a context is built when the first device asks for it, so a
 * relay that nobody speaks TLS to does not pay for it.
 */
#ifndef OUTTRAY_RELAY_INTAKE_PROFILES_H
#define OUTTRAY_RELAY_INTAKE_PROFILES_H

#include <stdbool.h>

#include "queue/error.h"
#include "relay/base/config.h"

#define PROFILES_WARN_DAYS 21 /* before a certificate ends */

struct profiles;
struct tls_context;

/* Reads files, and may take a second to make a certificate. The config is borrowed; wall_ms is for
 * the warning about a certificate that ends. NULL on failure, with a text that says what to do. */
struct profiles *profiles_new(const struct config *config, uint64_t wall_ms, struct error *err);
void profiles_free(struct profiles *p); /* accepts NULL */

/* The context for a listener that speaks TLS; it lives as long as the profiles. NULL on failure. */
struct tls_context *profiles_context(struct profiles *p, const struct config_listener *l,
                                     bool legacy, struct error *err);

#endif
