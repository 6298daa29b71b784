/*
 * Trace information: the Received field, dates and Message-IDs that we add. Pure; time and its
 * offset from UTC are arguments.
 */
#ifndef OUTTRAY_RELAY_SMTP_TRACE_H
#define OUTTRAY_RELAY_SMTP_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"

#define TRACE_HOPS_MAX       100 /* Received fields; as many are a loop (RFC 5321 6.3) */
#define TRACE_DATE_MAX       40  /* with NUL */
#define TRACE_MESSAGE_ID_MAX 320 /* with NUL */
#define TRACE_ID_MAX         17  /* with NUL */

struct trace {
    const char *helo;     /* as the client named itself; used only when it is a domain or literal */
    const char *client;   /* its address as an RFC 5321 address literal */
    const char *hostname; /* ours */
    const char *protocol; /* "ESMTP", "SMTP" */
    const char *tls;      /* "TLSv1.3 SUITE", for a comment; NULL or "" in the clear */
    const char
        *recipient; /* forward-path when there is only one, else NULL: nobody else may see it */
    uint64_t id;
    uint64_t wall_ms;
    int utc_offset_minutes; /* local time minus UTC */
};

/* Appends the Received field with its CR LF (RFC 5321 4.4). False when out is full. */
bool trace_received(const struct trace *t, struct bytes *out);

/* "Fri, 4 Jul 2025 12:00:00 +0200" (RFC 5322 3.3). Offsets of a day and more count as none. */
void trace_date(uint64_t wall_ms, int utc_offset_minutes, char out[TRACE_DATE_MAX]);

/* "<4f2a.1751623200000@host>": the id is unique in one spool, the time among spools. */
void trace_message_id(uint64_t id, uint64_t wall_ms, const char *hostname,
                      char out[TRACE_MESSAGE_ID_MAX]);

/* A message's id as the tool, logs and replies show it: lower-case hex, at least 4 digits. */
void trace_id(uint64_t id, char out[TRACE_ID_MAX]);

#endif
