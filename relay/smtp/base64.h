/*
 * Base64 as AUTH uses it (RFC 4648 section 4): one line, with padding; and base64url as JSON Web
 * Tokens use it (section 5), without. Pure.
 */
#ifndef OUTTRAY_RELAY_SMTP_BASE64_H
#define OUTTRAY_RELAY_SMTP_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Octets that base64_encode() writes for len octets. */
#define BASE64_LENGTH(len) (((len) + 2) / 3 * 4)
/* Room that base64_decode() may need for len characters. */
#define BASE64_ROOM(len) ((len) / 4 * 3)

/* Writes exactly BASE64_LENGTH(len) characters, without a NUL. */
void base64_encode(const void *data, size_t len, char *out);
/* False when text is not base64, to the last bit; out then holds rubbish. */
bool base64_decode(const char *text, size_t len, uint8_t *out, size_t *out_len);

/* Octets that base64url_encode() writes for len octets. */
#define BASE64URL_LENGTH(len) (((len)*4 + 2) / 3)
/* Room that base64url_decode() may need for len characters. */
#define BASE64URL_ROOM(len) ((len) / 4 * 3 + 3)

/* Writes exactly BASE64URL_LENGTH(len) characters, without a NUL. */
void base64url_encode(const void *data, size_t len, char *out);
/* False when text is not base64url; out then holds rubbish. */
bool base64url_decode(const char *text, size_t len, uint8_t *out, size_t *out_len);

#endif
