/*
 * Devices that begin with TLS where others wait for a banner, and how long to wait for them. Pure.
 *
 * On a listener that serves both, silence means either: a device that speaks SMTP waits for our
 * banner, one that begins with TLS may just be slow. So the banner waits a moment for a TLS hello,
 * longer for an address whose hello once came too late, and not at all for one that has had
 * HELLO_PLAIN_SESSIONS sessions and never sent a hello. What is known of an address is forgotten
 * when HELLO_ADDRESSES_MAX others push it out, which costs the next session one wait.
 */
#ifndef OUTTRAY_RELAY_INTAKE_HELLO_H
#define OUTTRAY_RELAY_INTAKE_HELLO_H

#include <stddef.h>
#include <stdint.h>

#include "relay/base/net.h"

#define HELLO_WAIT_MS        100
#define HELLO_LATE_WAIT_MS   500
#define HELLO_PLAIN_SESSIONS 20
#define HELLO_ADDRESSES_MAX  4096

enum hello {
    HELLO_UNSURE, /* needs more octets to tell */
    HELLO_TLS,
    HELLO_PLAIN
};

/* What a connection begins with. A TLS record of a handshake, or an SSL 2 hello, in which devices
 * of the time around 2005 wrap their offer of TLS 1.0. */
enum hello hello_of(const uint8_t *data, size_t len);

struct hello_table;

/* NULL without memory. The seed makes the places of addresses unpredictable. */
struct hello_table *hello_table_new(uint32_t seed);
void hello_table_free(struct hello_table *t); /* accepts NULL */

uint64_t hello_wait_ms(struct hello_table *t, const struct net_address *a);
/* A session began without a hello, */
void hello_saw_plain(struct hello_table *t, const struct net_address *a);
/* with one, */
void hello_saw_tls(struct hello_table *t, const struct net_address *a);
/* or with one that came when the banner was on its way. */
void hello_saw_late(struct hello_table *t, const struct net_address *a);

#endif
