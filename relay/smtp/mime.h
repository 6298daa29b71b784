/*
 * The body of a message on its way in, as a filter that knows which MIME part it is in. Pure, in
 * bounded memory, and the output does not depend on how the input is cut.
 *
 * It takes octets from the maildata decoder (lines end in CR LF), behind the header, and hands out
 * what is to be stored. What needs no repair passes to the octet. Otherwise:
 *
 *   lines over MIME_LINE_MAX   base64: wrapped at 76; quoted-printable: soft line breaks; text in
 *                              7bit, 8bit or no encoding: broken behind a space, else anywhere;
 *                              a part's header: folded. In other parts such a line passes, for
 *                              breaking it would change the data.
 *   NUL                        left out of text, of encoded data and of parts' headers. Elsewhere
 * it is raw binary data, which needs BINARYMIME: `binary` is set, and the message should be
 * refused.
 *
 * Nothing inside multipart/signed, message/partial and an unencoded message/rfc822 is changed, nor
 * in what nests deeper than MIME_DEPTH_MAX. Text before the first and behind the last part is text.
 */
#ifndef OUTTRAY_RELAY_SMTP_MIME_H
#define OUTTRAY_RELAY_SMTP_MIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MIME_LINE_MAX     998  /* octets of a line without its end (RFC 5322 2.1.1) */
#define MIME_BASE64_LINE  76   /* RFC 2045 6.8 */
#define MIME_DEPTH_MAX    16   /* multiparts within multiparts */
#define MIME_BOUNDARY_MAX 120  /* octets of a boundary; RFC 2046 5.1.1 allows 70 */
#define MIME_FIELD_MAX    1024 /* octets looked at of a Content-Type in a part's header */

/* Most octets that mime_filter() writes for len octets. */
#define MIME_ROOM(len) ((len) + (len) / 16 + MIME_LINE_MAX + 128)

/* What was changed or met; for the device's record and the log. */
struct mime_quirks {
    bool long_base64;
    bool long_quoted;
    bool long_text;
    bool long_other; /* not changed */
    bool long_field; /* in a part's header */
    bool nul;        /* left out */
    bool partial;    /* message/partial: the device splits its scans */
    bool too_deep;
};

enum mime_type {
    MIME_TEXT,
    MIME_MULTIPART,
    MIME_DIGEST, /* multipart whose parts are messages */
    MIME_SIGNED, /* multipart that nobody may change */
    MIME_PARTIAL,
    MIME_OTHER
};

enum mime_encoding { MIME_IDENTITY, MIME_BASE64, MIME_QUOTED };

struct mime_multipart {
    enum mime_type type;
    size_t len;
    char boundary[MIME_BOUNDARY_MAX];
};

/* What a header says about the body behind it. */
struct mime_entity {
    enum mime_type type;
    enum mime_encoding encoding;
    size_t boundary_len; /* 0 = none */
    char boundary[MIME_BOUNDARY_MAX];
};

struct mime {
    bool binary; /* raw binary data was met: nothing more is handed out */
    struct mime_quirks quirks;
    /* private */
    int place;
    int content;    /* of the part at hand */
    bool continued; /* the line at hand has been broken */
    size_t limit;   /* of the line at hand */
    size_t held;    /* octets in line */
    size_t depth;
    struct mime_multipart open[MIME_DEPTH_MAX];
    struct mime_entity entity; /* of the part whose header is read */
    int field;                 /* which one is read */
    size_t value_len;
    char value[MIME_FIELD_MAX];
    uint8_t *to;
    uint8_t line[MIME_LINE_MAX + 2];
};

/* Reads the value of a Content-Type or Content-Transfer-Encoding into e, which must have the
 * defaults. */
void mime_read_type(struct mime_entity *e, const char *value, size_t len);
void mime_read_encoding(struct mime_entity *e, const char *value, size_t len);

/* Begins the body of a message whose header has these values of Content-Type and
 * Content-Transfer-Encoding, folds included; empty when it lacks them. */
void mime_begin(struct mime *m, const char *type, size_t type_len, const char *encoding,
                size_t encoding_len);
/* Takes all octets and writes what can go out, at most MIME_ROOM(len) octets; returns their number.
 * Up to MIME_LINE_MAX octets stay in m. */
size_t mime_filter(struct mime *m, const uint8_t *data, size_t len, uint8_t *out);
/* The body has ended: writes what stayed, at most MIME_ROOM(0) octets. */
size_t mime_finish(struct mime *m, uint8_t *out);
/* True when a multipart has begun whose last boundary has not been seen. */
bool mime_boundary_is_open(const struct mime *m);

#endif
