/*
 * Who a message is from, made acceptable to the mailbox that submits it. Pure.
 *
 * A mailbox may send as its own address and as those it is listed for. What a device writes into
 * From is often neither, and such mail is refused after its whole upload. So the stored header is
 * never changed, but what is sent of it is, each time anew, because it depends on the mailbox:
 *
 *   From      stays when every address in it may be used. Else it becomes the mailbox's address (or
 *             the one configured) with the display name that is configured, or the original's, or
 *             the device's name. Where the original address could be answered and the message has
 *             no Reply-To, it becomes the Reply-To, else it stays as X-Original-From.
 *   Sender    is added where From holds several addresses (RFC 5322 3.6.2); one that may not be
 *             used stays as X-Original-Sender.
 *
 * What is added is ASCII, because it does not make the message one that needs SMTPUTF8: display
 * names are encoded words, and an address beyond ASCII never becomes a Reply-To. Where a device has
 * sent its message with SMTPUTF8 and it is submitted without, `ascii` has the other fields encoded
 * as well, as far as there is a way: an address beyond ASCII in To or Cc stays.
 *
 * The reverse-path follows the same rule: kept when it may be used, else the mailbox's address.
 * Addresses are compared without regard to case, as the services do.
 */
#ifndef OUTTRAY_RELAY_SMTP_IDENTITY_H
#define OUTTRAY_RELAY_SMTP_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"
#include "relay/smtp/address.h"

enum identity_from {
    IDENTITY_REWRITE, /* what may not be used gives way */
    IDENTITY_KEEP,    /* nothing is changed but a null reverse-path */
    IDENTITY_FIXED    /* From is always `from` */
};

struct identity {
    const char *mailbox;  /* its address */
    char *const *send_as; /* addresses; "example.com"; ".example.com" for its subdomains */
    size_t send_as_count;
    enum identity_from how;
    const char *from;   /* with IDENTITY_FIXED */
    const char *name;   /* display name of a From that was changed, or "" */
    const char *device; /* its name, where there is no other */
    bool ascii;         /* what is not ASCII in the header is encoded */
};

/* True when the mailbox may send as this address. */
bool identity_may_use(const struct identity *id, const char *address);

/* The reverse-path to submit with, for the device's own ("" is the null one). */
void identity_reverse_path(const struct identity *id, const char *reverse_path,
                           char out[ADDRESS_PATH_MAX]);

/* Reads a header section (with its empty line), as it is stored, and appends what is to be sent
 * instead to out. *out_changed is false, and nothing is appended, when that is the same, or when
 * the header is too large to be looked at. False without memory. */
bool identity_apply(const struct identity *id, const void *header, size_t len, struct bytes *out,
                    bool *out_changed);

/* True when mail to the address could reach somebody outside: it has a domain with a dot that is no
 * address literal and no name for private use. */
bool identity_is_answerable(const char *address);

#endif
