/*
 * The queue's face: everything relay/ may know of the spool.
 *
 * All calls come from one thread, the loop's. Nothing here blocks on the disk after queue_open(),
 * except queue_close(): slow work goes to the executor and ends in a callback, which is called from
 * the loop's thread and never from within the call that asked for it. No callback comes after
 * queue_close().
 *
 * Time is an argument: now_ms is monotonic, wall_ms is the wall clock; both in ms.
 *
 * The promise: once a commit's callback has reported success, the message survives kill -9 and loss
 * of power, until a settle or delete of it has been reported durable.
 */
#ifndef OUTTRAY_QUEUE_QUEUE_H
#define OUTTRAY_QUEUE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/envelope.h"
#include "queue/error.h"
#include "queue/executor.h"
#include "queue/fileops.h"
#include "queue/record.h"
#include "queue/schedule.h"

#define QUEUE_ID_TEXT   17 /* hex digits and NUL */
#define QUEUE_SIZE_TEXT 32
#define QUEUE_BLOCK     65536       /* most that a reader hands out at once */
#define QUEUE_SMALL_MAX (60 * 1024) /* mail up to here lives in the journal, larger in a file */

#define QUEUE_URGENT_SHARE 10 /* of each limit, the last one part in so many is for urgent mail */
#define QUEUE_URGENT_MAX   (256ull * 1024 * 1024) /* but not more */
#define QUEUE_HICCUP_MS    5000  /* the spool may fail for so long before mail is sent unmarked */
#define QUEUE_UNMARKED_MAX 20000 /* most messages that are sent so */

struct queue;
struct queue_writer;
struct queue_reader;

enum queue_state {
    QUEUE_QUEUED = 0,    /* waits for its time */
    QUEUE_UNCERTAIN = 1, /* all of it was sent, the outcome was never made durable; waits longer */
    QUEUE_HELD = 2,      /* waits for the operator; never expires */
    QUEUE_DEAD = 3,      /* will not be tried again; kept for the operator */
    QUEUE_GONE = 4       /* every recipient has an outcome, or it was deleted */
};

const char *queue_state_name(enum queue_state state);

/* What memory knows of a message. Plain values, copied out. */
struct queue_info {
    uint64_t id;
    enum queue_state state;
    enum lane lane;
    bool in_flight; /* leased by queue_pick() */
    bool in_doubt;  /* marked, outcome open */
    bool damaged;   /* its bytes do not verify: held, exported as far as it can be read */
    bool large;     /* its mail data is a file of its own */
    uint32_t attempts;
    uint32_t losses;     /* attempts whose outcome was never known */
    uint32_t recipients; /* of the envelope */
    uint64_t size;
    uint64_t arrived_ms; /* wall clock */
    int64_t since_ms;    /* monotonic, when it arrived; of mail accepted by an earlier run by the
                            wall clock, and then it may be before 0 */
    bool has_outcomes;   /* an attempt on it was recorded: recipients may have failed */
    uint64_t due_ms;     /* monotonic; SCHEDULE_NEVER when held, dead or in flight */
    uint64_t tried_ms;   /* time so far in which it could have been tried */
    const char *route;   /* valid until the queue is closed, as the device */
    const char *device;
    struct record_part part; /* of a split mail */
};

struct queue_options {
    const char *dir;           /* made (0700) when missing; its parent must exist */
    const struct fileops *ops; /* NULL: the system's */
    struct executor executor;
    uint64_t segment_size;      /* 0: 16 MiB, 4 MiB when the disk has less than 4 GiB free */
    uint64_t max_bytes;         /* what counts on the disk, mail and records; 0: no limit */
    uint64_t min_free_bytes;    /* of the file system; new mail is refused below */
    uint64_t uncertain_wait_ms; /* how long a message found in doubt waits; 15 min is usual; longer
                                   when that is not the first time (backoff_loss()) */
    uint64_t uncertain_wait_urgent_ms; /* the same in the urgent lane; 0: no difference */
    uint64_t now_ms;
    uint64_t wall_ms;
    bool read_only; /* no lock, nothing written or repaired: for looking at a spool of a daemon that
                       is down, or at a copy. The executor may then be empty: everything runs inline
                       and callbacks come from within the calls */
};

/* What recovery found. */
struct queue_recovery {
    uint64_t messages;  /* alive */
    uint64_t uncertain; /* of them, were in doubt */
    uint64_t damaged;   /* records or bodies that do not verify: copied aside or held */
    uint64_t torn;      /* unfinished writes that nobody was told of: left out */
    uint64_t orphans;   /* body files without a record: deleted, or left when there was damage */
    uint64_t segments;
};

/* Locks the spool, recovers it and opens a new segment. Blocks. ERROR_BUSY when another process has
 * it open; then the text names the directory. `ops` is borrowed until queue_close(). NULL on
 * failure. A disk on which no new segment can be made, or a file system that is read-only, is no
 * failure: the queue opens, failing (see queue_counts), and takes mail when that has passed. */
struct queue *queue_open(const struct queue_options *options, struct queue_recovery *out_recovery,
                         struct error *err);
/* Waits for what is under way (flush and bodies), seals the segment, unlocks. Writers and readers
 * must have been closed. Callbacks of what was under way come from within this call; it must not be
 * called from a callback. Accepts NULL. */
void queue_close(struct queue *q);

/* ---- accepting ------------------------------------------------------------------------------- */

enum queue_flow {
    QUEUE_FLOW_OK,   /* go on */
    QUEUE_FLOW_FULL, /* taken, but stop until on_drain has been called */
    QUEUE_FLOW_ERROR /* not taken; the writer can only be aborted */
};

/* Tells why new mail of about `size` octets (0: unknown) cannot be taken now: ERROR_NO_ROOM, or
 * ERROR_IO while the disk fails. Cheap. The last part of what the limits allow is for urgent mail.
 * A limit that was reached refuses mail until a little more than nothing is free again; a tick
 * notices that. */
bool queue_has_room(struct queue *q, enum lane lane, uint64_t size, struct error *err);

/* Begins a message; the lane says what room it may use, the envelope of the commit which one it
 * gets. on_drain(ctx) is called when appends may go on after QUEUE_FLOW_FULL. NULL, with the error
 * of queue_has_room(), when nothing can be taken. The writer belongs to the caller until commit or
 * abort. Memory: at most about three blocks a writer. */
struct queue_writer *queue_begin(struct queue *q, enum lane lane, void (*on_drain)(void *ctx),
                                 void *ctx, struct error *err);
/* Says whose mail this will be, before the first append; `device` as the envelope will have it.
 * From now on it counts for the device, which may have max_bytes of mail in the queue (0: no limit
 * of its own), open writers included: what goes beyond is refused with ERROR_SHARE, here for about
 * `size` octets to come (0: unknown) or by queue_append(), and only for this device. */
bool queue_writer_share(struct queue_writer *w, const char *device, uint64_t max_bytes,
                        uint64_t size, struct error *err);
uint64_t queue_writer_id(const struct queue_writer *w);
uint64_t queue_writer_size(const struct queue_writer *w);
/* Appends mail data, already in its stored form. Copies. ERROR_NO_ROOM when it grows beyond the
 * limits. */
enum queue_flow queue_append(struct queue_writer *w, const void *data, size_t len,
                             struct error *err);

/* err is NULL exactly when the message is durable. It is then scheduled, due at once; a fragment
 * (partial_group in its envelope) when its partial_wait_ms is over, also after a restart. */
typedef void queue_commit_fn(void *ctx, uint64_t id, const struct error *err);

/* Makes the message durable. Takes the writer, whatever happens; the envelope is borrowed for the
 * call only and its `size` is set from the bytes appended. The callback always comes.
 *
 * One that was joined from fragments (`joined` in its envelope) stands in for all fragments of its
 * partial_group from the moment in which it is durable: those that a crash leaves behind are gone
 * at the next start. The caller leases them before, and settles them as gone in the callback. */
void queue_commit(struct queue_writer *w, const struct envelope *e, uint64_t now_ms,
                  uint64_t wall_ms, queue_commit_fn *done, void *ctx);
/* Forgets the message. Takes the writer; accepts NULL. */
void queue_abort(struct queue_writer *w);

/* ---- sending --------------------------------------------------------------------------------- */

/* Leases the message that should go next on the route: it leaves the schedule until it is settled
 * or released. False when none is due. */
bool queue_pick(struct queue *q, uint32_t route, uint64_t now_ms, struct queue_info *out_info);
/* Leases this message, due or not. False when it is not queued, damaged or leased already. */
bool queue_lease(struct queue *q, uint64_t id, struct queue_info *out_info);
uint64_t queue_next_due(const struct queue *q, uint32_t route, uint64_t now_ms);
/* The same, of nothing in a lane below `lowest`. */
bool queue_pick_from(struct queue *q, uint32_t route, enum lane lowest, uint64_t now_ms,
                     struct queue_info *out_info);
/* What that would lease now, left as it is. False when none is due. */
bool queue_peek_from(struct queue *q, uint32_t route, enum lane lowest, uint64_t now_ms,
                     struct queue_info *out_info);
uint64_t queue_next_due_from(const struct queue *q, uint32_t route, enum lane lowest,
                             uint64_t now_ms);
/* Messages of the route in the schedule, due or not. */
size_t queue_waiting(const struct queue *q, uint32_t route);
/* Routes are numbered as they appear, in recovered mail or by this call; the numbers hold until the
 * queue is closed. */
bool queue_route(struct queue *q, const char *name, uint32_t *out_route);
uint32_t queue_route_count(const struct queue *q);
const char *queue_route_name(const struct queue *q, uint32_t route);

/* reader and envelope are NULL on error. The reader belongs to the callee until
 * queue_reader_close(); the envelope, with the recorded outcomes applied, belongs to the reader.
 * ERROR_DAMAGED, here or while reading: the message has been marked; when its lease ends, however
 * it ends but with QUEUE_GONE, it is held. */
typedef void queue_reader_fn(void *ctx, struct queue_reader *r, const struct envelope *e,
                             const struct error *err);
/* Opens a message for reading, leased or not, also while nothing can be written. The callback
 * always comes. A message that is marked as damaged and not leased is read as far as it can be:
 * unverified octets too, zeros for what cannot be read, and ERROR_DAMAGED instead of the end. A
 * leased one that could not be read for several attempts is marked as well. */
void queue_reader_open(struct queue *q, uint64_t id, queue_reader_fn *done, void *ctx);

/* data is valid during the callback; len 0 without error is the end. Every block was verified
 * against its checksum before it is handed out (but see queue_reader_open). */
typedef void queue_read_fn(void *ctx, const uint8_t *data, size_t len, const struct error *err);
/* Reads the next block, at most QUEUE_BLOCK octets. One read at a time. */
void queue_read(struct queue_reader *r, queue_read_fn *done, void *ctx);
/* Frees the reader, also while a read is under way, whose callback then never comes. Accepts NULL.
 */
void queue_reader_close(struct queue_reader *r);

/* err is NULL when the record is durable. */
typedef void queue_done_fn(void *ctx, const struct error *err);

/* Marks a leased message in doubt: durable before the callback. If the outcome is never settled (we
 * crash), recovery makes it uncertain. With an error there is no mark, and it may be released.
 *
 * While the spool cannot be written for longer than a hiccup (QUEUE_HICCUP_MS; at once on a
 * read-only file system) there is success without a mark: mail that is here must leave all the
 * same. Such messages are counted (`unmarked`) until their outcome is durable; a crash before that
 * sends them again. */
void queue_doubt(struct queue *q, uint64_t id, uint64_t wall_ms, queue_done_fn *done, void *ctx);

/* How an attempt on a leased message ended. */
struct queue_attempt {
    const struct envelope *envelope; /* every recipient's state and reply after the attempt */
    enum queue_state state;          /* QUEUED and UNCERTAIN wait wait_ms; GONE removes */
    bool lost;                       /* its outcome is not known */
    uint64_t wait_ms;
    uint64_t tried_ms; /* new sum */
    bool counts;       /* an attempt on this message, as against one that ended before it began */
};

/* Records the outcome and ends the lease. Memory follows at once (so that the next pick is right);
 * the callback, which may be NULL, says when it is durable. A failed settle is tried again by the
 * queue itself with the next segment; what is reported then is only a delay. */
void queue_settle(struct queue *q, uint64_t id, const struct queue_attempt *attempt,
                  uint64_t now_ms, uint64_t wall_ms, queue_done_fn *done, void *ctx);
/* Ends the lease with nothing recorded: nothing of the message was sent. Due at due_ms. A mark of
 * doubt set in this lease must be settled instead. */
void queue_release(struct queue *q, uint64_t id, uint64_t due_ms);

/* ---- looking and operating ------------------------------------------------------------------- */

bool queue_find(const struct queue *q, uint64_t id, struct queue_info *out_info);
/* Octets of the device's mail that is not gone, and of its writers that have not ended. */
uint64_t queue_device_bytes(const struct queue *q, const char *device);
/* The message with the smallest id above `after`; false when there is none. Walks in O(log n) or
 * better; the queue may change between two calls. */
bool queue_list(const struct queue *q, uint64_t after, struct queue_info *out_info);

/* Makes a message (queued, uncertain, held or dead) due now. A dead one begins anew: its recipients
 * that failed are pending again, and no time has been tried. ERROR_BUSY while it is in flight,
 * ERROR_DAMAGED when it is marked so. */
bool queue_retry(struct queue *q, uint64_t id, uint64_t now_ms, uint64_t wall_ms,
                 struct error *err);
/* Removes a message for good, durably. ERROR_BUSY while it is in flight. */
bool queue_delete(struct queue *q, uint64_t id, queue_done_fn *done, void *ctx, struct error *err);

struct queue_counts {
    uint64_t state[QUEUE_GONE]; /* messages by state */
    uint64_t lane[LANE_COUNT];  /* of the queued and uncertain */
    uint64_t in_flight;
    uint64_t damaged;
    uint64_t living_bytes; /* of mail that is not gone */
    uint64_t disk_bytes;   /* segments and bodies */
    uint64_t free_bytes;   /* of the file system, as last measured */
    uint64_t flushes;      /* journal flushes since the start */
    uint64_t commits;      /* messages made durable since the start */
    uint64_t segments;
    uint64_t unmarked;  /* sent, or being sent, with nothing of that on the disk so far */
    bool full;          /* no room but for urgent mail; queue_has_room() says why */
    bool full_urgent;   /* no room at all */
    bool failing;       /* the last write to the spool failed; `failure` says how */
    int failure_errnum; /* EROFS, ENOSPC, ..., or 0 */
    char failure[ERROR_TEXT_MAX];
};

void queue_counts(const struct queue *q, struct queue_counts *out);

/* What the spool costs. */
struct queue_stats {
    uint64_t segments;
    uint64_t segment_size;    /* of new ones */
    uint64_t journal_bytes;   /* of all segment files, prepared and spare ones too */
    uint64_t journal_living;  /* of them, records that count */
    uint64_t journal_written; /* records since the start, octets */
    uint64_t carried;         /* messages carried forward since the start */
    uint64_t bodies;
    uint64_t body_bytes;
    uint64_t max_bytes;
    uint64_t min_free_bytes;
    uint64_t total_bytes; /* of the file system */
};

void queue_stats(const struct queue *q, struct queue_stats *out);

/* ---- verifying ------------------------------------------------------------------------------- */

/* Where a walk over all files of the spool is: segments first, then the bodies of living messages.
 */
struct queue_cursor {
    bool bodies;    /* all segments are done */
    uint64_t after; /* the last segment's number or message's id */
};

#define QUEUE_VERIFY_BAD 16 /* places that are named; all are counted */

struct queue_bad_place {
    uint64_t id; /* of a living message that it hit, or 0 */
    uint64_t offset;
    uint64_t len;
};

struct queue_verified {
    bool is_file;             /* else nothing was left, or only a stretch of messages was passed */
    bool last;                /* nothing is left */
    struct queue_cursor next; /* to go on from */
    char name[64];            /* below the spool's directory */
    uint64_t octets;          /* read */
    uint64_t checked;         /* records or blocks */
    uint64_t bad;             /* of them, do not verify or cannot be read */
    struct queue_bad_place places[QUEUE_VERIFY_BAD];
    size_t place_count;
};

typedef void queue_verify_fn(void *ctx, const struct queue_verified *result,
                             const struct error *err);

/* Reads the next file behind the cursor and verifies every checksum in it. A living message that is
 * hit is marked as damaged, as by a reader, unless it is leased just now. The callback always
 * comes. Slow work goes to the executor, one job a call, so that a walk takes no more than one
 * thread and ends when nobody asks for the next step. */
void queue_verify(struct queue *q, const struct queue_cursor *from, queue_verify_fn *done,
                  void *ctx);

/* Regular upkeep, about once a second: free space, carrying stragglers forward, removing segments
 * in which nothing lives. Cheap; slow work goes to the executor. */
void queue_tick(struct queue *q, uint64_t now_ms, uint64_t wall_ms);

void queue_id_text(uint64_t id, char out[QUEUE_ID_TEXT]); /* lower-case hex, at least 4 digits */
bool queue_id_parse(const char *text, uint64_t *out_id);
/* "812 B", "1.2 MB", "20 MB": powers of 1024, as everybody who shows sizes to people should. */
void queue_size_text(uint64_t octets, char out[QUEUE_SIZE_TEXT]);

#endif
