/*
 * Providers: what is known of the services that mailboxes are submitted through. Pure.
 *
 * A provider gives a mailbox its defaults; each can be overridden in the mailbox's section.
 * "custom" knows no host, so that the mailbox must name one.
 */
#ifndef OUTTRAY_RELAY_BASE_PROVIDER_H
#define OUTTRAY_RELAY_BASE_PROVIDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct provider {
    const char *name;
    const char *host; /* "" = the mailbox must say */
    uint16_t port;
    bool implicit_tls; /* TLS from the first octet instead of STARTTLS */
    uint32_t connections;
    uint32_t messages_per_minute;    /* 0 = no limit */
    uint32_t recipients_per_day;     /* 0 = no limit */
    uint32_t recipients_per_message; /* 0 = no limit */
    uint64_t max_size;               /* octets of mail data */
    uint64_t idle_ms;                /* see config_mailbox */
    uint64_t session_ms;
};

const struct provider *providers(size_t *out_count);
/* NULL when there is none of that name. */
const struct provider *provider_find(const char *name);

#endif
