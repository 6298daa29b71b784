/*
 * Addresses in header fields: From, Sender, Reply-To, To, Cc (RFC 5322 3.4). Pure.
 *
 * Devices write a display name with "@" or a comma and without quotes, leave the angle brackets
 * out, or give a name and no address at all. What is valid, obsolete forms included, should be left
 * alone; the rest is read as it was meant and written anew. The value comes without folds and
 * control characters.
 */
#ifndef OUTTRAY_RELAY_SMTP_ADDRESS_LIST_H
#define OUTTRAY_RELAY_SMTP_ADDRESS_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "relay/smtp/words.h"

/* True for a list of one address or more. utf8: octets above 127 are allowed (RFC 6532). */
bool address_list_is_valid(const char *text, size_t len, bool utf8);

/* One address of a valid list; parts of the text. */
struct address_list_item {
    const char *name; /* the display name as it stands, quotes included; may be empty */
    size_t name_len;
    const char *address; /* without angle brackets */
    size_t address_len;
};

/* Takes the next address off a valid list, leaving the rest in *text and *len; names of groups are
 * passed over. False at the end, or where the list is not valid. */
bool address_list_take(const char **text, size_t *len, struct address_list_item *out);

struct address_list_use {
    const char *fallback; /* addr-spec for a name without an address; NULL: it becomes a group */
    const char *hostname; /* for an address without a domain */
    bool utf8;            /* addresses may hold octets above 127 */
};

/* Appends the list anew. *out_count: the addresses in it, the fallback included. False when out is
 * full. */
bool address_list_write(struct words *w, const char *text, size_t len,
                        const struct address_list_use *use, size_t *out_count);

#endif
