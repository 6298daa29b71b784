/*
 * TLS contexts. OpenSSL 3 lives here and nowhere else; stream.c uses it through tls_private.h.
 *
 * A client context always verifies the certificate chain and the name, speaks TLS 1.2 or newer (the
 * system's OpenSSL policy may ask for more), and keeps one session for resumption, bound to the
 * name it was verified for and for an hour after that verification. There is no switch to turn
 * verification off.
 *
 * The system's authorities are looked up in the hashed directory (/etc/ssl/certs, or SSL_CERT_DIR)
 * one by one, because the whole bundle would cost megabytes of memory. Only where that directory is
 * not hashed is the bundle read. Any certificate in a ca_file is trusted as it is, so that a
 * private authority, an intermediate one or the server's own self-signed certificate will do.
 *
 * A context may be freed while streams still use it. OpenSSL writes to sockets with write(): the
 * process must ignore SIGPIPE.
 */
#ifndef OUTTRAY_RELAY_BASE_TLS_H
#define OUTTRAY_RELAY_BASE_TLS_H

#include "queue/error.h"

struct tls_context;

/* ca_file: PEM with the authorities to trust instead of the system's, or "". Read now, so after
 * dropping privileges it need not be readable. NULL on failure. */
struct tls_context *tls_client_new(const char *ca_file, struct error *err);
void tls_context_free(struct tls_context *tls); /* accepts NULL */

#endif
