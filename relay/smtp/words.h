/*
 * Text in header fields: encoded words for what is not ASCII (RFC 2047), parameters (RFC 2231) and
 * folding. Pure.
 *
 * Text comes without folds and control characters; UTF-8 stays UTF-8, anything else is marked as
 * being in the writer's charset. What is written is at most WORDS_LINE_WANTED octets wide where
 * there is a space to fold at. A word that no line could take is encoded too, for then it can be
 * folded. Existing encoded words stay.
 */
#ifndef OUTTRAY_RELAY_SMTP_WORDS_H
#define OUTTRAY_RELAY_SMTP_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#include "queue/bytes.h"

#define WORDS_LINE_MAX        998 /* octets of a line without its end (RFC 5322 2.1.1) */
#define WORDS_LINE_WANTED     78
#define WORDS_CHARSET_MAX     40 /* octets of a charset's name */
#define WORDS_CHARSET_DEFAULT "windows-1252"

struct words {
    struct bytes *out;
    size_t column;       /* octets in the current line */
    const char *charset; /* of what is not UTF-8 */
};

bool words_is_utf8(const char *text, size_t len); /* RFC 3629; ASCII is */
bool words_is_ascii(const char *text, size_t len);
bool words_is_charset(const char *name); /* could be the name of one (RFC 2978 2.3) */

/* Appends the octets as they are, counting columns. All of these: false when out is full. */
bool words_raw(struct words *w, const char *text, size_t len);
/* Appends a space, or folds when a word of that width would not fit any more. */
bool words_space(struct words *w, size_t width);
/* Appends unstructured text, such as a subject, with the space that precedes it. */
bool words_text(struct words *w, const char *text, size_t len);
/* Appends a phrase, such as a display name, quoted where it must be. */
bool words_phrase(struct words *w, const char *text, size_t len);
/* Appends a parameter's value that is not ASCII: name*=charset''... */
bool words_parameter(struct words *w, const char *name, size_t name_len, const char *value,
                     size_t len);

/* Appends whole fields (with CR LF) such that no line is longer than WORDS_LINE_MAX: folded at
 * spaces, else behind a comma, semicolon or ">", else anywhere. */
bool words_fold(struct bytes *out, const char *text, size_t len);

#endif
