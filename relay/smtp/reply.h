/*
 * SMTP replies: parsed once, then asked. Pure.
 *
 * RFC 5321 4.2 and RFC 3463/2034. Lines of up to REPLY_LINE_MAX octets and replies of up to
 * REPLY_MAX are read, however split; Microsoft sends single lines of well over 1,000 octets. A
 * failure on our side (lookup, connect, certificate, timeout, lost connection) takes the shape of a
 * reply, so that whoever judges has one path: reply_local().
 */
#ifndef OUTTRAY_RELAY_SMTP_REPLY_H
#define OUTTRAY_RELAY_SMTP_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"

#define REPLY_LINE_MAX 8192  /* octets with CR LF */
#define REPLY_MAX      65536 /* octets of all lines */
#define REPLY_TEXT_MAX 1024  /* kept of the text, for verdicts and people */

/* Why there is no reply from the peer. */
enum local_failure {
    LOCAL_NONE = 0,
    LOCAL_LOOKUP,      /* the name could not be resolved */
    LOCAL_CONNECT,     /* no address could be reached */
    LOCAL_CERTIFICATE, /* the certificate or its name did not verify */
    LOCAL_TLS,         /* the handshake failed otherwise, or STARTTLS is not offered */
    LOCAL_TIMEOUT,     /* no answer in time */
    LOCAL_LOST,        /* the connection ended */
    LOCAL_PROTOCOL,    /* what came is not SMTP */
    LOCAL_SECRET,      /* our own credentials cannot be read or used */
    LOCAL_SPOOL,       /* the message could not be read from the spool */
    LOCAL_CONTENT,     /* the message cannot be sent to this server as it is, nor be converted */
    LOCAL_ADDRESS,     /* an address cannot be said to this server: it needs SMTPUTF8 */
    LOCAL_COUNT
};

struct reply {
    unsigned code; /* 200..599, or 0 for a local failure */
    bool has_enhanced;
    uint16_t enhanced[3];
    enum local_failure local;
    char text[REPLY_TEXT_MAX]; /* without codes; lines joined by a space; printable ASCII; cut at
                                  the end */
};

enum reply_progress { REPLY_MORE, REPLY_DONE, REPLY_BAD };

/* Reads one reply from a run of octets. Holds its lines until the next reply begins. */
struct reply_parser {
    struct bytes lines; /* text of all lines without codes, made printable, each ended by '\n' */
    struct bytes line;  /* the line being read */
    size_t octets;
    unsigned code;
    bool finished;
};

void reply_parser_init(struct reply_parser *p);
void reply_parser_done(struct reply_parser *p);
/* Consumes up to the end of one reply. REPLY_DONE fills *out_reply. REPLY_BAD: not a reply, or over
 * a limit; the session cannot go on, and out_reply->text says why. */
enum reply_progress reply_feed(struct reply_parser *p, const uint8_t *data, size_t len,
                               size_t *out_used, struct reply *out_reply);
/* The i-th line of the reply just read, without its code; "" beyond the last. For EHLO. Valid until
 * the next reply_feed(). */
size_t reply_line_count(const struct reply_parser *p);
void reply_line(const struct reply_parser *p, size_t i, char *out, size_t size);

void reply_local(struct reply *out, enum local_failure failure, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Builds a reply from "535 5.7.3 text"; false when it is none. For tables and tests. */
bool reply_from_text(struct reply *out, const char *text);

bool reply_is_positive(const struct reply *r);  /* 2xx */
bool reply_is_temporary(const struct reply *r); /* 4xx */
bool reply_is_permanent(const struct reply *r); /* 5xx */
bool reply_has_enhanced(const struct reply *r, unsigned class_, unsigned subject, unsigned detail);
/* "535 5.7.3 Authentication unsuccessful", or "(timeout) no answer to MAIL in 5 minutes". At most
 * size-1 octets, printable. */
void reply_format(const struct reply *r, char *out, size_t size);
const char *local_failure_name(enum local_failure failure);

#endif
