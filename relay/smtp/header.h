/*
 * The header section of a message on its way in: held whole until its end is found, then written as
 * it will be stored. Pure.
 *
 * It is fed octets from the maildata decoder (lines end in CR LF) and cuts them into fields. Each
 * field has an action, which says what the stored header has other than the original: left out,
 * replaced, or added at the end. With no action, the original octets pass unchanged behind our
 * trace field. What needs an action is for repair.h to know. Each action has a name in repairs, a
 * comma-separated list that is logged and shown with the message.
 *
 * Where the header ends: at the first empty line, or before the first line that is no field (then
 * the empty line is added). When the very first line is no field, the message has no header and all
 * of it is body. Empty lines before a field that every mail program knows are skipped; before
 * anything else they are the start of the body. The line "From SENDER DAY ..." that mbox files put
 * before a header is left out. A field whose name holds control characters is left out as well.
 *
 * Up to HEADER_MAX octets are held; a larger header passes unrepaired and is marked.
 */
#ifndef OUTTRAY_RELAY_SMTP_HEADER_H
#define OUTTRAY_RELAY_SMTP_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"

#define HEADER_MAX          ((size_t)256 * 1024)
#define HEADER_CHUNK_MAX    ((size_t)16 * 1024) /* most octets of one header_feed() */
#define HEADER_NAME_MAX     998                 /* octets of a field name */
#define HEADER_FIELDS_MAX   16384 /* more fields than any mail has: as a larger header */
#define HEADER_REPAIRS_MAX  512
#define HEADER_REPLACED_MAX (8 * HEADER_MAX) /* of replacements: encoded words are long */

enum header_name {
    HEADER_OTHER,
    HEADER_RECEIVED,
    HEADER_DATE,
    HEADER_MESSAGE_ID,
    HEADER_FROM,
    HEADER_SENDER,
    HEADER_REPLY_TO,
    HEADER_TO,
    HEADER_CC,
    HEADER_BCC, /* and Resent-Bcc */
    HEADER_SUBJECT,
    HEADER_CONTENT_TYPE,
    HEADER_CONTENT_TRANSFER_ENCODING,
    /* Others that every mail program knows, by what stands in them: */
    HEADER_ADDRESSES,
    HEADER_PARAMETERS,
    HEADER_STRUCTURED,
    HEADER_TEXT,
    HEADER_NAME_COUNT
};

/* A field in the original octets, with its continuation lines and CR LF. */
struct header_field {
    uint32_t offset;
    uint32_t len;
    uint16_t name_len;
    uint8_t name;        /* enum header_name */
    uint8_t action;      /* enum header_action */
    uint32_t new_offset; /* in replaced, for HEADER_REPLACE */
    uint32_t new_len;
};

enum header_action { HEADER_KEEP, HEADER_DROP, HEADER_REPLACE };

enum header_state {
    HEADER_MORE,      /* its end is still to come */
    HEADER_DONE,      /* its end was found */
    HEADER_TOO_LARGE, /* it will not be looked at any further */
    HEADER_NO_MEMORY
};

struct header {
    enum header_state state;
    struct bytes text; /* original octets; behind `end` they belong to the body */
    size_t mbox;       /* octets of the mbox line before it all */
    size_t start;      /* of the first field: what precedes it is skipped */
    size_t scanned;    /* begin of the line that is being read */
    size_t searched;   /* no line end between scanned and here */
    size_t end;        /* of the last field */
    size_t body;       /* of the body in text */
    struct header_field *fields;
    size_t field_count;
    size_t field_room;
    struct bytes added;    /* fields that stand behind the original ones */
    struct bytes replaced; /* what stands in place of original ones */
    uint32_t count[HEADER_NAME_COUNT];
    char repairs[HEADER_REPAIRS_MAX];
};

void header_init(struct header *h);
void header_done(struct header *h);

/* Takes all octets (at most HEADER_CHUNK_MAX), also those of the body behind the header's end. Not
 * to be called again once the state is not HEADER_MORE. */
enum header_state header_feed(struct header *h, const uint8_t *data, size_t len);
/* The mail data ended before the header did. */
enum header_state header_finish(struct header *h);

uint32_t header_count(const struct header *h, enum header_name name);
/* The value of the first such field that is not left out, as it came: unfolded, without spaces
 * around it, cut to size - 1 octets, control characters and what is not UTF-8 made "?". "" when
 * there is none. */
void header_text(const struct header *h, enum header_name name, char *out, size_t size);
/* The same of a field of any name, in whatever case. */
void header_text_named(const struct header *h, const char *name, char *out, size_t size);
/* The first such field that is not left out, or NULL. */
struct header_field *header_find(const struct header *h, enum header_name name);
/* The octets behind the field's colon, folds and line end included; as they will be stored. */
const char *header_value(const struct header *h, const struct header_field *f, size_t *out_len);

/* Leaves all fields of that name out. */
void header_drop(struct header *h, enum header_name name);
/* Adds a field (text without CR LF) behind the others. False without memory. */
bool header_add(struct header *h, const char *text);
/* Puts text (whole fields with CR LF, or nothing) in the place of f. False without memory. */
bool header_replace(struct header *h, struct header_field *f, const void *text, size_t len);
/* Names what was changed, once. At HEADER_REPAIRS_MAX further names are lost. */
void header_note(struct header *h, const char *repair);

/* Appends the header as it is stored, trace (whole fields with CR LF) first. *out_header_size: its
 * octets with the empty line. When it was too large, what was held of it is appended instead, and
 * the size is 0. */
bool header_write(const struct header *h, const struct bytes *trace, struct bytes *out,
                  uint32_t *out_header_size);
/* The octets that were fed beyond the header's end: the begin of the body. None when it was too
 * large. */
const uint8_t *header_rest(const struct header *h, size_t *out_len);

#endif
