/*
 * The JSON shapes of queued messages and of errors, as the API gives them and as the tool builds
 * them itself from a spool whose daemon is down. Pure: plain values in, a cJSON tree out, which
 * belongs to the caller; NULL without memory.
 *
 * An entry (in lists) and a message (alone) share their members; the message has more of them, and
 * every recipient, with what its last reply means ("reason"), and who can do what about it ("who",
 * "remedy"). "due_in" is null for what waits for a person, is being sent, or has nobody who sends
 * it; "waits_for" and "waits_why" name the mailbox that it waits for, or are "". Wall times are ISO
 * 8601 in UTC, spans are seconds.
 */
#ifndef OUTTRAY_RELAY_ADMIN_API_JSON_H
#define OUTTRAY_RELAY_ADMIN_API_JSON_H

#include <stdint.h>

#include <cjson/cJSON.h>

#include "queue/envelope.h"
#include "queue/error.h"
#include "queue/queue.h"
#include "relay/submit/dispatch.h"

/* The time at which an answer is made. */
struct api_times {
    uint64_t now_ms;  /* monotonic */
    uint64_t wall_ms; /* since 1970 */
};

#define API_JSON_RECIPIENTS 3 /* of an entry; "recipient_count" says how many there are */
#define API_WAIT_TEXT       1024

/* What a message waits for besides its own time. */
struct api_wait {
    uint64_t ready_ms;        /* monotonic; 0 for now */
    char what[API_WAIT_TEXT]; /* "mailbox office", or "" */
    char why[API_WAIT_TEXT];
};

/* Of the mailbox of a message's route that may take it first, from ready_ms on. */
void api_json_wait(const struct mailbox_status *first, uint64_t ready_ms, struct api_wait *out);

/* e is NULL when the message could not be opened; then `err` says why. wait is NULL when nobody is
 * there to send it: then it is never due. */
cJSON *api_json_entry(const struct queue_info *info, const struct envelope *e,
                      const struct error *err, const struct api_times *times,
                      const struct api_wait *wait);
cJSON *api_json_message(const struct queue_info *info, const struct envelope *e,
                        const struct api_times *times, const struct api_wait *wait);

/* {"messages": [...], "total": N} and, when there are more, "next": the id to give as `after`.
 * Takes messages, also on failure. */
cJSON *api_json_page(cJSON *messages, uint64_t total, uint64_t next_or_0);
/* Messages that are alive, of the queue's counts. */
uint64_t api_json_total(const struct queue_counts *counts);

/* {"error": {"kind": ..., "text": ...}} */
cJSON *api_json_error(const struct error *err);
/* The HTTP status that goes with an error. */
int api_json_http_status(enum error_kind kind);

#endif
