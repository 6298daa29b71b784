/*
 * The header section of a message on its way in: held whole until its end is found, then written as
 * it will be stored. Pure.
 *
 * It is fed octets from the maildata decoder (lines end in CR LF) and cuts them into fields. A list
 * of actions says what the stored header has other than the original: fields left out, fields
 * added. With no action, the original octets pass unchanged behind our trace field. Each action has
 * a name in repairs, a comma-separated list that is logged and shown with the message.
 *
 * Where the header ends: at the first empty line, or before the first line that is no field (then
 * the empty line is added). When the very first line is no field, the message has no header and all
 * of it is body. Empty lines before a field that every mail program knows are skipped; before
 * anything else they are the start of the body.
 *
 * Up to HEADER_MAX octets are held; a larger header passes unrepaired and is marked.
 */
#ifndef OUTTRAY_RELAY_SMTP_HEADER_H
#define OUTTRAY_RELAY_SMTP_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"

#define HEADER_MAX         ((size_t)256 * 1024)
#define HEADER_CHUNK_MAX   ((size_t)16 * 1024) /* most octets of one header_feed() */
#define HEADER_NAME_MAX    998                 /* octets of a field name */
#define HEADER_FIELDS_MAX  16384 /* more fields than any mail has: as a larger header */
#define HEADER_REPAIRS_MAX 256

enum header_name {
    HEADER_OTHER,
    HEADER_RECEIVED,
    HEADER_DATE,
    HEADER_MESSAGE_ID,
    HEADER_FROM,
    HEADER_SUBJECT,
    HEADER_KNOWN, /* another one that every mail program knows */
    HEADER_NAME_COUNT
};

/* A field in the original octets, with its continuation lines and CR LF. */
struct header_field {
    uint32_t offset;
    uint32_t len;
    uint16_t name_len;
    uint8_t name;   /* enum header_name */
    uint8_t action; /* enum header_action */
};

enum header_action { HEADER_KEEP, HEADER_DROP };

enum header_state {
    HEADER_MORE,      /* its end is still to come */
    HEADER_DONE,      /* its end was found */
    HEADER_TOO_LARGE, /* it will not be looked at any further */
    HEADER_NO_MEMORY
};

struct header {
    enum header_state state;
    struct bytes text; /* original octets; behind `end` they belong to the body */
    size_t start;      /* of the first field: leading empty lines are skipped */
    size_t scanned;    /* begin of the line that is being read */
    size_t searched;   /* no line end between scanned and here */
    size_t end;        /* of the last field */
    size_t body;       /* of the body in text */
    struct header_field *fields;
    size_t field_count;
    size_t field_room;
    struct bytes added; /* fields that stand behind the original ones */
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
/* The value of the first such field: unfolded, without spaces around it, cut to size - 1 octets,
 * control characters and what is not UTF-8 made "?". "" when there is none. */
void header_text(const struct header *h, enum header_name name, char *out, size_t size);
/* Leaves all fields of that name out. */
void header_drop(struct header *h, enum header_name name);
/* Adds a field (text without CR LF) behind the others. False without memory. */
bool header_add(struct header *h, const char *text);
/* Names what was changed. At HEADER_REPAIRS_MAX further names are lost. */
void header_note(struct header *h, const char *repair);

/* Adds Date and Message-ID when they are missing or empty. Nothing in a header that is too large.
 */
bool header_repair(struct header *h, const char *date, const char *message_id);

/* Appends the header as it is stored, trace (whole fields with CR LF) first, and then the octets of
 * the body that were fed. *out_header_size: its octets with the empty line; 0 when it was too
 * large. */
bool header_write(const struct header *h, const struct bytes *trace, struct bytes *out,
                  uint32_t *out_header_size);

#endif
