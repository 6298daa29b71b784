/*
 * The inside of the journal, shared by journal.c (records and flushes) and journal_segments.c
 * (which segment is written, and what becomes of the others). Nothing else includes this.
 */
#ifndef OUTTRAY_QUEUE_JOURNAL_INSIDE_H
#define OUTTRAY_QUEUE_JOURNAL_INSIDE_H

#include <pthread.h>

#include "queue/bytes.h"
#include "queue/journal.h"

/* Where a flush begins, or the next one behind it would. */
struct place {
    uint32_t at; /* everything before it is durable */
    uint32_t index_bytes;
    uint64_t seq;
};

/* What is written by one flush. Belongs to the worker between submit and done.
 *
 * There are two, so that one can follow the other on the worker without a word from the loop, which
 * would cost two wake-ups while the disk has nothing to do. The one that follows takes, when its
 * turn comes, the messages that were appended until then (`joining`). It writes nothing when the
 * one before it has failed. */
struct flush {
    struct journal *journal;
    struct task *task;
    struct journal_record *first;
    struct journal_record *left; /* taken, but not written: no room, or the segment has failed */
    struct journal_segment *segment; /* held until every record has been reported */
    struct iovec *iov;
    struct place begin;
    struct place end;
    int fd;
    bool under_way;
    bool follows;
    bool refuse; /* writes nothing: delivers `error` to its records */
    bool ok;
    struct error error;
};

/* Messages on their way to the worker. */
struct joining {
    pthread_mutex_t lock;
    struct journal_record *first;
    struct journal_record **end;
};

enum chore { CHORE_FILL, CHORE_PREPARE, CHORE_REMOVE };

/* Upkeep of the segment files, one thing at a time. */
struct keeper {
    struct task *task;
    enum chore chore;
    bool under_way;
    bool recycle;
    bool ok;
    int fd;
    uint32_t filled; /* of the next segment's file */
    uint32_t end;    /* up to which CHORE_FILL goes */
    struct journal_segment *segment;
    struct segment_header header;
    struct error error;
};

struct journal {
    const struct fileops *ops;
    const char *dir;
    struct tasks *tasks;
    struct journal_segment *first;
    struct journal_segment *last;
    struct journal_segment *current;
    struct journal_segment *ready; /* prepared, in no list yet */
    int current_fd;
    int ready_fd;
    uint32_t at; /* of the current segment: durable up to here, the next record goes here */
    uint32_t index_bytes; /* what its index will take */
    struct journal_record *pending;
    struct journal_record **pending_end;
    struct journal_record start;
    struct bytes start_body;
    struct journal_record mark;
    struct flush flush[2];
    struct joining joining;
    struct place tail;               /* the worker's: behind the last flush */
    bool tail_open;                  /* the worker's: that succeeded, and took all that there was */
    struct journal_record *returned; /* by flushes: written before anything that waits */
    struct journal_record **returned_end;
    struct task *kick; /* flushes what waits, once whatever comes with it is there */
    struct keeper keeper;
    uint64_t next_seq;
    uint64_t next_id;
    uint64_t next_number;
    uint64_t id_limit;    /* durable: ids below it may be given out */
    uint64_t start_limit; /* of the START and MARK under way */
    uint64_t mark_limit;
    uint64_t now_ms;
    uint64_t wall_ms;
    uint64_t retry_at;
    uint64_t retry_wait;
    uint64_t remove_at;
    uint64_t bytes;
    uint64_t segments;
    uint64_t failed_segments;
    uint64_t flushes;
    uint64_t written;
    uint64_t ticked_flushes;
    uint32_t segment_size;
    bool start_under_way;
    bool mark_under_way;
    bool unproven; /* something is durable that no later record vouches for */
    bool has_spare;
    bool idle; /* not begun, or closing: no upkeep */
    bool failing;
    struct error failure;
};

/* ---- journal.c ------------------------------------------------------------------------------- */

/* Flushes what waits, when nothing is under way. */
void journal_kick(struct journal *j);
void journal_push_front(struct journal *j, struct journal_record *r);
/* Whether a record finds room in a segment of this size. */
bool journal_fits(uint32_t size, const struct place *place, const struct journal_record *r);
/* Where the next flush of the current segment would begin. */
struct place journal_place(const struct journal *j);
/* Works out the record's span. */
void journal_measure(struct journal_record *r);
void journal_fail(struct journal *j, const struct error *err);
void journal_works(struct journal *j);
void journal_back_off(struct journal *j);

/* ---- journal_segments.c ---------------------------------------------------------------------- */

/* Nothing that waits can be written to the current segment, if there is one. */
bool journal_blocked(const struct journal *j);
/* Begins to write the prepared segment; its START goes in front of everything that waits. */
bool journal_adopt_ready(struct journal *j);
/* The START's flush has ended. */
void journal_started(struct journal *j, const struct error *err);
/* Ends the current segment after a failure: what is in it from `at` on is void. */
void journal_abandon(struct journal *j);
/* Begins the next piece of upkeep, unless one is under way. */
void journal_maintain(struct journal *j);
/* The keeper's task. */
void journal_keeper_work(void *ctx);
void journal_keeper_done(void *ctx);
/* Makes a segment and waits for it. */
void journal_prepare_now(struct journal *j);
/* Ends the current segment for good: sealed, unless it failed. */
void journal_end_current(struct journal *j);
/* Makes the prepared segment the spare again. */
void journal_put_back_ready(struct journal *j);
void journal_free_segments(struct journal *j);

#endif
