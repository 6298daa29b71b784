/*
 * The journal: checksummed records appended to segment files, made durable together.
 *
 * Used by the loop's thread only; what blocks is handed out as tasks. An append never waits for
 * company: when no flush is under way it is flushed at once, together with what else the loop has
 * ready, and whatever is appended meanwhile shares the next flush; when that is new messages alone,
 * it follows on the worker at once. Records become durable in the order of their appends, and their
 * done() is called in that order.
 *
 * A failed write or sync is final for its segment: everything in that flush has failed, the segment
 * is left with what was durable before, and the next segment's first record says so. A record with
 * `keep` set is then put in front of what waits and written to the next segment instead; others end
 * with an error. While no segment can be written the journal is `failing`: it refuses, and tries
 * again from journal_tick() with growing pauses.
 *
 * Segments are removed oldest first, each durably before the next, and only when nobody holds them.
 * So whatever was recorded about a message outlives every copy of that message.
 */
#ifndef OUTTRAY_QUEUE_JOURNAL_H
#define OUTTRAY_QUEUE_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "queue/error.h"
#include "queue/fileops.h"
#include "queue/record.h"
#include "queue/segment.h"
#include "queue/tasks.h"

#define JOURNAL_BATCH_RECORDS 256
#define JOURNAL_BATCH_BYTES   (2u * 1024u * 1024u)
#define JOURNAL_FILL          (256u * 1024u) /* zeros at one go: a flush may have to wait for them */
#define JOURNAL_ID_RESERVE    65536u         /* ids that a crash may skip */
#define JOURNAL_ENDS_MAX      4096           /* earlier segments that a START names: the newest */
#define JOURNAL_RETRY_MIN_MS  1000u
#define JOURNAL_RETRY_MAX_MS  30000u

struct journal;
struct message;

struct journal_segment {
    struct journal_segment *prev; /* oldest first */
    struct journal_segment *next;
    uint64_t number;
    uint64_t salt;
    uint32_t size;
    uint32_t proven;
    uint32_t end;
    uint64_t holds;           /* living records in it, and readers */
    bool busy;                /* being sealed or removed */
    bool failed;              /* a write to it failed: not to be used again */
    struct message *messages; /* the spool's: those whose current copy is in it */
};

struct journal_record {
    uint16_t type; /* enum segment_type */
    uint16_t head_len;
    bool keep;
    uint64_t id;
    struct iovec body[2]; /* borrowed until done() */
    /* Takes the record. err is NULL when it is durable at segment and offset. Never called from
     * within journal_append(). */
    void (*done)(struct journal_record *r, const struct error *err);
    struct journal_segment *segment;
    uint32_t offset;
    uint32_t span;
    /* private */
    struct journal_record *next;
    uint64_t seq;
    uint8_t lead[SEGMENT_RECORD_HEADER + RECORD_HEAD_MAX];
};

/* Where the caller puts the head. */
uint8_t *journal_record_head(struct journal_record *r);

struct journal_options {
    const struct fileops *ops;
    const char *dir; /* the journal's directory; borrowed */
    struct tasks *tasks;
    uint32_t segment_size;
    uint64_t now_ms;
    uint64_t wall_ms;
};

/* An empty journal, nothing on disk yet. NULL without memory. */
struct journal *journal_new(const struct journal_options *options);
/* Makes a segment that recovery found known; in the order of their numbers. NULL without memory. */
struct journal_segment *journal_adopt(struct journal *j, const struct segment_header *h,
                                      const struct record_end *end);
/* Begins a new segment behind the adopted ones. Blocks. Sets `failing` when that is not possible.
 */
void journal_start(struct journal *j, uint64_t next_seq, uint64_t next_id, uint64_t next_number,
                   bool has_spare);
/* Flushes what waits, trying the disk once more if it fails; seals, keeps a prepared segment as the
 * spare. Only after tasks_finish(). */
void journal_close(struct journal *j);
/* Accepts NULL. */
void journal_free(struct journal *j);

void journal_append(struct journal *j, struct journal_record *r);
/* Whether a record that was appended, not a MESSAGE, is in no flush: then its head and body may be
 * changed, which journal_amend() ends. */
bool journal_waits(const struct journal_record *r);
void journal_amend(struct journal_record *r);
/* The next message id, which no message has ever had. False while none can be reserved. */
bool journal_take_id(struct journal *j, uint64_t *out_id);
void journal_tick(struct journal *j, uint64_t now_ms, uint64_t wall_ms);

/* Keep a segment from being removed, and no longer. */
void journal_hold(struct journal_segment *s);
void journal_drop(struct journal *j, struct journal_segment *s);

/* The oldest segment that is not being written; NULL when there is none. */
struct journal_segment *journal_oldest(const struct journal *j);

/* The segment with the smallest number above `after`, the one being written included; or NULL. */
struct journal_segment *journal_next(const struct journal *j, uint64_t after);
/* How far everything in it is durable and where its records end. */
struct record_end journal_extent(const struct journal *j, const struct journal_segment *s);

struct journal_stats {
    uint64_t segments;
    uint64_t bytes; /* of all segment files, spare and prepared ones included */
    uint64_t flushes;
    uint64_t written; /* octets of records made durable */
    bool failing;
    int errnum; /* of the failure, or 0 */
};

void journal_stats(const struct journal *j, struct journal_stats *out);
/* What failed; "" when nothing does. */
const char *journal_failure(const struct journal *j);

#endif
