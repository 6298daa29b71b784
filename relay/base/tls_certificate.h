/*
 * A self-signed certificate for devices, made once.
 *
 * RSA with 2048 bits and SHA-256, because old devices know nothing else; for the names and IP
 * addresses that are asked for, valid from a day ago (clocks differ) for ten years. It is its own
 * authority, so that a device which verifies can be given it.
 */
#ifndef OUTTRAY_RELAY_BASE_TLS_CERTIFICATE_H
#define OUTTRAY_RELAY_BASE_TLS_CERTIFICATE_H

#include <stdbool.h>
#include <stddef.h>

#include "queue/error.h"
#include "relay/base/net.h"

#define TLS_CERTIFICATE_NAMES_MAX     8
#define TLS_CERTIFICATE_ADDRESSES_MAX 64

struct tls_certificate_request {
    const char *names[TLS_CERTIFICATE_NAMES_MAX]; /* the first one is the subject */
    size_t name_count;
    struct net_address addresses[TLS_CERTIFICATE_ADDRESSES_MAX];
    size_t address_count;
};

/* Writes both as PEM with mode 0600, each whole or not at all, and durable; a certificate is never
 * there without its key. Takes a while (finding primes). */
bool tls_certificate_make(const struct tls_certificate_request *request,
                          const char *certificate_file, const char *key_file, struct error *err);

#endif
