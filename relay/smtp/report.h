/*
 * Reports of what became of mail: a message that failed or is late, for the operator or the sender,
 * or one that was handed over to a server that tells nothing more of it, for the sender (RFC 3461,
 * RFC 3464, RFC 6522). Pure.
 *
 * A report about one message is a multipart/report of three parts: words for a person, a
 * message/delivery-status for programs, and the header of the message, or all of it. Several
 * messages share one report as multipart/mixed, with one delivery-status each, because RFC 3464
 * knows but one message.
 *
 * A report is always marked Auto-Submitted: auto-replied, so that nobody, this relay included,
 * answers it or reports about it (RFC 3834). What a device or an upstream said is made printable.
 */
#ifndef OUTTRAY_RELAY_SMTP_REPORT_H
#define OUTTRAY_RELAY_SMTP_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"

#define REPORT_MAX          (256 * 1024) /* octets of a whole report */
#define REPORT_MESSAGES_MAX 50           /* told of in one report; more are counted only */
#define REPORT_HEADER_MAX   8192         /* octets of a message's header that are returned */

enum report_kind {
    REPORT_FAILED,
    REPORT_DELAYED,
    REPORT_RELAYED /* to a server without DSN, for a sender who wants to hear of success */
};

struct report_recipient {
    const char *forward_path;
    const char *orcpt; /* as received, "rfc822;..." in xtext or "" */
    const char *reply; /* the upstream's last words, or a failure of ours in words, or "" */
    const char *what;  /* what that means, a sentence */
    const char *who;   /* who can fix it */
    const char *how;   /* and how, a sentence */
};

struct report_message {
    const char *id; /* in the queue */
    const char *device;
    const char *reverse_path;
    const char *subject;
    const char *message_id;
    const char *envid;                         /* as received, in xtext, or "" */
    uint64_t arrived_ms;                       /* wall clock */
    const struct report_recipient *recipients; /* those that it is about */
    size_t recipient_count;
    size_t more_recipients; /* others, not in the list */
    const uint8_t *header;  /* as it is stored; NULL when it cannot be had */
    size_t header_len;
    bool whole; /* all of the message stands there, and is returned (RET=FULL) */
};

struct report {
    enum report_kind kind;
    bool to_sender;   /* who can run no commands of the relay: none are told of */
    const char *from; /* the mailbox's address */
    const char *to;
    const char *hostname; /* ours */
    const char *message_id;
    uint64_t wall_ms;
    int utc_offset_minutes;
    const struct report_message *messages;
    size_t message_count; /* at most REPORT_MESSAGES_MAX are told of */
    size_t more;          /* others, not in the list */
};

/* Appends the report: header and body, CR LF, 7-bit unless a subject or header is not. False
 * without room. */
bool report_write(const struct report *r, struct bytes *out);

/* Whether a NOTIFY parameter, as received, has the word: "SUCCESS", "FAILURE" or "DELAY". */
bool report_notify_has(const char *notify, const char *word);

/* "5.1.1" or "4.4.7": the status of a recipient for programs. */
void report_status(const struct report_recipient *r, enum report_kind kind, char out[16]);

#endif
