/*
 * Encoded words of header fields (RFC 2047), read for people. Pure.
 *
 * Words in UTF-8, ASCII or windows-1252 (also by the name of ISO-8859-1) are decoded to UTF-8 and
 * joined; others, and what only looks like one, stay as they are. What comes out is not proven to
 * be UTF-8 or printable.
 */
#ifndef OUTTRAY_RELAY_SMTP_ENCODED_H
#define OUTTRAY_RELAY_SMTP_ENCODED_H

#include <stddef.h>

#define ENCODED_WORD_MAX 512 /* octets of a word's text; RFC 2047 allows 75 */

/* Writes at most size-1 octets and a NUL; what does not fit is left out. */
void encoded_decode(const char *text, char *out, size_t size);

#endif
