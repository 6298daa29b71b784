/*
 * Host names to addresses, for connecting to submission services.
 *
 * The system's resolver is asked (getaddrinfo), so a name works here when `getent ahosts NAME`
 * works on the host: /etc/hosts, nsswitch.conf, a changed resolv.conf, answers that need TCP, a
 * cache or a VPN's resolver are all its business. libevent's evdns needs no threads, but (2.1)
 * reads resolv.conf once, fails on truncated answers and knows no nsswitch.conf.
 *
 * getaddrinfo blocks for as long as the resolver's own settings say (up to a minute or so), so each
 * lookup runs on a thread of its own, never on those that the spool needs. Such a thread shares
 * nothing with the loop: it gets a copy of the name and writes its answer into a pipe. At most
 * DNS_THREADS_MAX exist; further lookups wait for one, and all of them end in time: a lookup whose
 * thread hangs is answered with an error after the timeout, while the thread keeps its place until
 * the resolver lets go of it.
 *
 * Addresses come in the system's order of preference (RFC 6724: what cannot be reached is last),
 * with the families alternating from the first one on (RFC 8305 4), each once. An address literal
 * is answered without asking. Nothing is cached here, so nothing gets stale. Callbacks come from
 * the loop, never from within dns_lookup(). Nothing is read and no thread exists before the first
 * lookup.
 */
#ifndef OUTTRAY_RELAY_BASE_DNS_H
#define OUTTRAY_RELAY_BASE_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/error.h"
#include "relay/base/net.h"

#define DNS_ADDRESSES_MAX 16 /* handed to the callback */
#define DNS_FOUND_MAX     64 /* taken from the resolver */
#define DNS_THREADS_MAX   4
#define DNS_TIMEOUT_MS    30000 /* longer than the resolver needs to try two servers twice */

struct event_base;
struct dns;
struct dns_query;

struct dns_found {
    struct net_address list[DNS_FOUND_MAX]; /* best first */
    size_t count;
};

/* Finds the addresses of host, blocking, on any thread. False (and err) when there are none:
 * ERROR_MISSING when the name is known not to exist or to have none, another kind when it may yet
 * be found. */
typedef bool dns_resolve(void *ctx, const char *host, struct dns_found *found, struct error *err);

/* count is 0 on failure, and err then says why and what to do. The list is valid during the call.
 * The query is gone when this is called. */
typedef void dns_answered(void *ctx, const struct net_address *list, size_t count,
                          const struct error *err);

/* resolve: dns_resolve_system, or what a test puts in its place; resolve_ctx must stay valid for as
 * long as a thread may run, which can be after dns_free(). The base is borrowed. NULL without
 * memory. */
struct dns *dns_new(struct event_base *base, dns_resolve *resolve, void *resolve_ctx,
                    uint64_t timeout_ms);
/* Forgets all lookups without a callback. Threads that still wait for the resolver end by
 * themselves. Accepts NULL. */
void dns_free(struct dns *dns);

/* NULL (and err) without memory, or when host cannot be a name. */
struct dns_query *dns_lookup(struct dns *dns, const char *host, dns_answered *answered, void *ctx,
                             struct error *err);
void dns_cancel(struct dns_query *q); /* no callback follows; accepts NULL */

dns_resolve dns_resolve_system;

#endif
