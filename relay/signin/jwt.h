/*
 * JSON Web Tokens that we sign: client assertions (RFC 7523 2.2), by which an application proves
 * itself with a certificate instead of a secret, and the requests of a Google service account
 * (RFC 7523 2.1).
 *
 * Keys come through OpenSSL's stores and providers: a PEM or DER file, PKCS#12 with or without a
 * password, or the URI of a provider (pkcs11:...). Only RSA keys of 2048 bits and more are taken,
 * because nothing else is accepted there. Reading and signing can block: call from a worker.
 * Time is an argument: seconds since 1970 as the other side's clock has it. Texts that are returned
 * end with a NUL, are the caller's, and go to jwt_wipe(). OpenSSL lives in jwt.c.
 */
#ifndef OUTTRAY_RELAY_SIGNIN_JWT_H
#define OUTTRAY_RELAY_SIGNIN_JWT_H

#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"

#define JWT_LIFE_S       600  /* of a client assertion; five to ten minutes are asked for */
#define JWT_GRANT_LIFE_S 3600 /* of a service account's request; the most that Google takes */
#define JWT_FILE_MAX     ((size_t)64 * 1024)
#define JWT_RSA_BITS_MIN 2048

struct jwt_key;

struct jwt_source {
    const char *key;           /* file or URI */
    const char *certificate;   /* PEM or DER file; "" = it is with the key */
    const char *password_file; /* of key; "" = it needs none */
};

/* PS256 with x5t#S256 is what Microsoft documents; RS256 with x5t what older servers know. */
enum jwt_style { JWT_PS256, JWT_RS256 };

struct jwt_client {
    enum jwt_style style;
    const char *client_id;
    const char *audience; /* the token URL */
};

struct jwt_service_account {
    const char *key_id; /* "" = none is said */
    const char *account;
    const char *subject; /* mailbox to act for; "" = none */
    const char *scope;
    const char *audience;
};

/* The private key and the certificate that belongs to it. NULL and err, which says what to do. */
struct jwt_key *jwt_key_load(const struct jwt_source *source, struct error *err);
/* A private key alone, as PEM. `name` is for messages. */
struct jwt_key *jwt_key_parse(const char *name, const char *pem, size_t len, struct error *err);
void jwt_key_free(struct jwt_key *key); /* accepts NULL */
/* When the certificate ends, in seconds since 1970; 0 without one. */
int64_t jwt_key_end(const struct jwt_key *key);

char *jwt_client_assertion(const struct jwt_key *key, const struct jwt_client *client,
                           int64_t now_s, struct error *err);
char *jwt_service_grant(const struct jwt_key *key, const struct jwt_service_account *account,
                        int64_t now_s, struct error *err);
void jwt_wipe(char *text); /* wipes and frees; accepts NULL */

#endif
