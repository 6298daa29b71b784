/*
 * TLS contexts. OpenSSL 3 lives in tls*.c and nowhere else; stream.c uses it through tls_private.h.
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
 * A server context speaks one of two profiles. The modern one is TLS 1.2 and newer with forward
 * secrecy and authenticated encryption. The legacy one, for listed devices only, adds TLS 1.0 and
 * 1.1, RSA key exchange and CBC suites, whatever the system's OpenSSL policy says. Sessions resume
 * by tickets, so nothing is kept for them. No certificate is asked of clients.
 *
 * A context may be freed while streams still use it. OpenSSL writes to sockets with write(): the
 * process must ignore SIGPIPE.
 */
#ifndef OUTTRAY_RELAY_BASE_TLS_H
#define OUTTRAY_RELAY_BASE_TLS_H

#include <stdint.h>

#include "queue/error.h"

struct tls_context;
struct tls_identity;

#define TLS_CHAIN_MAX 65536 /* octets of a certificate file */

enum tls_profile { TLS_MODERN, TLS_LEGACY, TLS_PROFILES };

/* ca_file: PEM with the authorities to trust instead of the system's, or "". Read now, so after
 * dropping privileges it need not be readable. NULL on failure. */
struct tls_context *tls_client_new(const char *ca_file, struct error *err);
void tls_context_free(struct tls_context *tls); /* accepts NULL */

/* The hashed directory of the system's authorities, when that is all there is to ask; NULL when the
 * bundle must be read. Belongs to the environment or the library. */
const char *tls_system_directory(void);

/* What a server proves itself with: a certificate with its chain, and the private key, as PEM text
 * read from two files now. Both are tried out, so that what is wrong is told at the start; what is
 * kept is the text, and the certificate's name in messages. NULL on failure. */
struct tls_identity *tls_identity_load(const char *certificate_file, const char *key_file,
                                       struct error *err);
/* The same untried, which costs no memory of the TLS library. */
struct tls_identity *tls_identity_read(const char *certificate_file, const char *key_file,
                                       struct error *err);
/* When the certificate ends, in seconds since 1970; 0 when that cannot be told, or was not tried.
 */
int64_t tls_identity_end(const struct tls_identity *id);
void tls_identity_free(struct tls_identity *id); /* accepts NULL */

/* Does not keep id. NULL on failure. */
struct tls_context *tls_server_new(const struct tls_identity *id, enum tls_profile profile,
                                   struct error *err);

#endif
