/*
 * What must be remembered of mail besides the mail itself: whom a dead letter was told to, how long
 * it has been one, up to where late mail was reported, and replies that no row knows.
 *
 * Memory answers; the file (SQLite, see base/database.h) is read at the start and written from time
 * to time on the database's thread. No mail and no 250 waits for it. Losing it loses no mail: dead
 * letters are reported again and kept longer. A file that is damaged is set aside and made anew;
 * one that cannot be used is done without, which is logged.
 *
 * A note belongs to one message that is a dead letter, or of which some recipients have failed. At
 * most HISTORY_NOTES_MAX are kept. Pointers to notes are valid until the next one is added or
 * dropped.
 */
#ifndef OUTTRAY_RELAY_ADMIN_HISTORY_H
#define OUTTRAY_RELAY_ADMIN_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/executor.h"

#define HISTORY_NOTES_MAX 100000
#define HISTORY_WRITE_MS  10000 /* between two writes of the file */

struct history;
struct replies; /* relay/submit/replies.h */

enum history_flag {
    HISTORY_OPERATOR = 1 << 0, /* the operator's report was stored */
    HISTORY_SENDER = 1 << 1,   /* the sender's was, or the sender gets none */
    HISTORY_SEEN = 1 << 2,     /* somebody has looked at it */
    HISTORY_DEAD = 1 << 3      /* noted as a dead letter, with all recipients that failed */
};

struct history_note {
    uint64_t id;        /* of the message */
    uint64_t report_id; /* of the last report that tells of it; 0 = none */
    int64_t since_ms;   /* monotonic, from when on it counts as kept; may be before 0 */
    uint32_t failed;    /* recipients that were told of while others still waited */
    uint8_t flags;
    bool in_job;  /* for whoever makes a report */
    bool changed; /* the file does not know yet */
};

/* Reads the file; blocks. "" keeps everything in memory only. The replies are filled, and stored
 * from then on; they are borrowed until history_close(). NULL without memory. */
struct history *history_open(const char *file, const struct executor *executor,
                             struct replies *replies, uint64_t now_ms);
/* Writes what is not written yet; blocks. The executor must have been drained. Accepts NULL. */
void history_close(struct history *h, uint64_t now_ms);
/* Writes when it is time and something has changed. */
void history_tick(struct history *h, uint64_t now_ms);
/* The next tick writes. */
void history_hurry(struct history *h);

struct history_note *history_find(struct history *h, uint64_t id);
/* The first note with an id above `after`, or NULL. */
struct history_note *history_next(struct history *h, uint64_t after);
/* A new note, or the one that is there, begun anew; NULL at the limit or without memory. */
struct history_note *history_add(struct history *h, uint64_t id, uint64_t now_ms);
void history_drop(struct history *h, uint64_t id);
/* To be called after each change of a note. */
void history_changed(struct history *h, struct history_note *note);
size_t history_count(const struct history *h);

/* All mail up to this id that was late has been reported. */
uint64_t history_delayed_up_to(const struct history *h);
void history_set_delayed(struct history *h, uint64_t id);

#endif
