/*
 * What a header needs before it can be passed on, decided on the way in. Pure.
 *
 * A well-formed header gets no action at all. Otherwise, each under its name in the header's
 * repairs:
 *
 *   no_message_id, bad_message_id   Message-ID missing, or without <...>: ours
 *   no_date, bad_date               Date missing, or unreadable: the time of arrival
 *   no_from                         From missing: the reverse-path, or the device at our hostname
 *   no_to                           neither To nor Cc: "To: undisclosed-recipients:;"
 *   bcc                             Bcc left out: the envelope says who gets it, nobody else should
 *   bad_from, bad_sender, bad_reply_to, bad_to, bad_cc
 *                                   addresses that are not RFC 5322: written anew, an empty field
 *                                   left out
 *   duplicate_fields                a field that may stand once only: the first one stays (To and
 *                                   Cc are joined)
 *   raw_8bit_header                 neither ASCII nor, with SMTPUTF8, UTF-8: encoded
 *   control_characters              in a value: left out
 *   long_header_line                over 998 octets: folded
 *
 * Where a Date, Message-ID, Sender, Reply-To or duplicate gives way to another, it is kept as
 * X-Original-NAME.
 */
#ifndef OUTTRAY_RELAY_SMTP_REPAIR_H
#define OUTTRAY_RELAY_SMTP_REPAIR_H

#include <stdbool.h>

#include "relay/smtp/header.h"

struct repair_facts {
    const char *date;         /* of arrival, as a Date field has it */
    const char *message_id;   /* for a message that has none */
    const char *reverse_path; /* without angle brackets; "" is the null reverse-path */
    const char *device;       /* its name or address */
    const char *hostname;     /* ours */
    const char *charset; /* of octets above 127 that are not UTF-8; "" = WORDS_CHARSET_DEFAULT */
    bool smtputf8;       /* the transaction allows UTF-8 in the header (RFC 6531) */
};

/* Sets the actions of a header whose end was found. Does nothing to one that is too large. False
 * without memory. */
bool repair_header(struct header *h, const struct repair_facts *facts);

#endif
