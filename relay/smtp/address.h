/*
 * RFC 5321 paths: what stands behind MAIL FROM: and RCPT TO:. Pure.
 *
 * Reading is tolerant, for devices: missing brackets, spaces around the address and its "@",
 * <'user@host'>, <Name <user@host>>, source routes (dropped), quoted local parts, address literals,
 * a dot behind the domain. What comes out is the canonical form, without angle brackets: a local
 * part is quoted only when it must be, a literal is written as RFC 5321 4.1.3 wants it.
 *
 * A reverse-path may be null, and may lack its domain or name a bare IP address: it is replaced by
 * the mailbox's on the way out. A forward-path must be complete, except "postmaster". Control
 * characters never pass, and octets above 127 only as UTF-8.
 */
#ifndef OUTTRAY_RELAY_SMTP_ADDRESS_H
#define OUTTRAY_RELAY_SMTP_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#define ADDRESS_LOCAL_MAX  64  /* RFC 5321 4.5.3.1.1 */
#define ADDRESS_DOMAIN_MAX 255 /* RFC 5321 4.5.3.1.2 */
#define ADDRESS_PATH_MAX   256 /* RFC 5321 4.5.3.1.3, with the angle brackets */
#define ADDRESS_LABEL_MAX  63  /* RFC 1035 2.3.4 */

enum address_use { ADDRESS_REVERSE_PATH, ADDRESS_FORWARD_PATH };

struct address {
    char path[ADDRESS_PATH_MAX]; /* canonical, without angle brackets; "" is the null path */
    size_t domain; /* where the domain begins in path; its length when there is none */
    bool utf8;     /* has octets above 127 */
};

/* The octets at the start of text that are the path; what is behind them are parameters. */
size_t address_span(const char *text, size_t len);

/* Reads exactly these octets as a path. False when they are none; then *out_problem is a phrase for
 * the reply ("the local part is longer than 64 octets"), a constant. */
bool address_parse(const char *text, size_t len, enum address_use use, struct address *out_address,
                   const char **out_problem);

/* True when an entry of a list names this address: "user@example.com" that address, "example.com"
 * every one in the domain, ".example.com" every one in the domains below it. Case does not matter,
 * not even before the "@": the services see it so. */
bool address_is_listed(const char *entry, const char *address);

/* True for what may stand as a domain or address literal in a trace field: an EHLO name, say. */
bool address_is_domain(const char *text, size_t len);

#endif
