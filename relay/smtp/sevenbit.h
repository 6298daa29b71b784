/*
 * A whole message made fit for a server that takes no 8-bit mail (RFC 6152 3): a filter in bounded
 * memory, whose output does not depend on how the input is cut. Pure.
 *
 * It takes a message as it is stored (lines end in CR LF, of any length), header included, and
 * walks through its parts. A part whose data may hold octets above 127 is encoded, and its
 * Content-Transfer-Encoding says so instead of what was there:
 *
 *   text, and what has no type    quoted-printable; a message without MIME fields gets them
 *   anything else                 base64
 *   already encoded               stays; stray octets above 127 are encoded or, in base64, left out
 *   multipart, message/rfc822     "7bit", and their parts are walked through in turn
 *   headers                       words with such octets become encoded words (RFC 2047)
 *   around the parts              such octets become "?"
 *
 * Nothing inside multipart/signed, message/partial and other kinds of message is changed. When an
 * octet above 127 stands there, or where the nesting is deeper than MIME_DEPTH_MAX, the message
 * cannot be converted.
 */
#ifndef OUTTRAY_RELAY_SMTP_SEVENBIT_H
#define OUTTRAY_RELAY_SMTP_SEVENBIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"
#include "relay/smtp/mime.h"

#define SEVENBIT_BASE64 57 /* octets of data in a line of base64 */

/* Most octets that sevenbit_filter() appends for len octets. */
#define SEVENBIT_ROOM(len) (4 * (len) + 8 * MIME_LINE_MAX + MIME_FIELD_MAX)

struct sevenbit {
    const char *trouble; /* why the message cannot be converted, or NULL */
    /* private */
    int place;
    int content;
    bool continued; /* the line at hand began earlier */
    bool is_top;    /* the header at hand is the message's */
    bool has_version;
    bool in_encoding; /* the header field at hand says how the part is encoded */
    bool in_type;
    bool is_message; /* the part is a message/rfc822 */
    bool is_other_message;
    bool has_line_end; /* base64: an end of line that may belong to a boundary */
    size_t depth;
    struct mime_multipart open[MIME_DEPTH_MAX];
    struct mime_entity entity; /* of the part whose header is read */
    size_t type_len;
    size_t encoding_len; /* whole fields */
    size_t column;       /* quoted-printable */
    uint8_t last;        /* the same: the last octet, where it is a space */
    size_t held;         /* octets in line */
    size_t waiting;      /* octets in group */
    char type[MIME_FIELD_MAX];
    char encoding[MIME_FIELD_MAX];
    uint8_t group[SEVENBIT_BASE64];
    uint8_t line[MIME_LINE_MAX + 2];
};

void sevenbit_begin(struct sevenbit *s);
/* Appends what can go out to out, which needs room for SEVENBIT_ROOM(len) octets. False, for good,
 * when the message cannot be converted (`trouble`) or without room. */
bool sevenbit_filter(struct sevenbit *s, const uint8_t *data, size_t len, struct bytes *out);
/* The message has ended: appends what stayed, as sevenbit_filter() for no octets. */
bool sevenbit_finish(struct sevenbit *s, struct bytes *out);

#endif
