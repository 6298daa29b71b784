/*
 * Mail that a device has split (message/partial, RFC 2046 5.2.2): which part of what a fragment is,
 * and the header of the message that its fragments make together. Pure.
 *
 * The whole is the bodies of all fragments in the order of their numbers. It begins with a header
 * of its own (the inner one), of which the Content fields, Subject, Message-ID, Encrypted and
 * MIME-Version count; all else comes from the first fragment's header (the outer one). A Subject or
 * MIME-Version that the inner one lacks is the outer one's: better than none.
 */
#ifndef OUTTRAY_RELAY_SMTP_PARTIAL_H
#define OUTTRAY_RELAY_SMTP_PARTIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"
#include "relay/smtp/header.h"

#define PARTIAL_ID_MAX     255
#define PARTIAL_NUMBER_MAX 100000 /* more parts than any mail has */

struct partial {
    char id[PARTIAL_ID_MAX + 1];
    uint32_t number; /* from 1 */
    uint32_t total;  /* 0 = it does not say; only the last part has to */
};

/* Reads the value of a Content-Type field, folds included. False when it is not message/partial, or
 * its parameters do not tell id and number, or do not agree. */
bool partial_read(const char *value, size_t len, struct partial *out);
/* The same of a header whose end was found. False as well when its body is encoded. */
bool partial_of(const struct header *h, struct partial *out);

/* Appends the header of the whole, with its empty line. Both headers' ends were found, and nothing
 * was changed in them. False without memory. */
bool partial_join(const struct header *outer, const struct header *inner, struct bytes *out);

#endif
