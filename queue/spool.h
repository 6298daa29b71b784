/*
 * The inside of the queue: what its parts (queue, writer, reader, restore, upkeep) share.
 * Nothing outside queue/ includes this.
 *
 * A message in memory is what the schedule needs and where its records are. Each of its places
 * holds its segment. Memory changes at once, places only when the record is durable; a message that
 * is gone leaves the tree at once and its memory when nothing of it is under way any more.
 */
#ifndef OUTTRAY_QUEUE_SPOOL_H
#define OUTTRAY_QUEUE_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/content.h"
#include "queue/idtree.h"
#include "queue/journal.h"
#include "queue/names.h"
#include "queue/queue.h"
#include "queue/record.h"
#include "queue/schedule.h"
#include "queue/segfile.h"
#include "queue/tasks.h"

#define SPOOL_PATH_MAX 4096

enum place_kind { PLACE_MESSAGE, PLACE_STATE, PLACE_OUTCOMES, PLACE_DOUBT, PLACE_COUNT };

struct place {
    struct journal_segment *segment; /* NULL: there is no such record */
    uint32_t offset;
    uint32_t span;
};

struct message {
    struct schedule_entry entry; /* entry.due_ms also holds the due time when not scheduled */
    struct idtree_node node;     /* key: the id */
    struct message *segment_prev;
    struct message *segment_next;
    struct name *device;      /* its number: octets of its mail and of its open writers */
    struct record_part *part; /* of a split mail; NULL for most */
    struct place places[PLACE_COUNT];
    struct append *outcomes; /* the newest that are under way, or NULL */
    uint64_t size;
    uint64_t arrived_ms;
    int64_t since_ms;
    uint64_t tried_ms;
    uint32_t envelope_len;
    uint32_t attempts;
    uint32_t recipients;
    uint32_t route;
    uint16_t head_len;
    uint16_t under_way; /* records appended and not yet durable */
    uint8_t state;      /* enum queue_state */
    uint8_t lane;
    uint8_t unread; /* attempts that could not read it */
    uint8_t losses; /* attempts whose outcome was never known */
    bool leased : 1;
    bool in_doubt : 1;
    bool damaged : 1;
    bool large : 1;
    bool revived : 1;
    bool unmarked : 1;     /* sent without a durable mark of doubt; outcome not durable either */
    bool unscheduled : 1;  /* there was no memory to schedule it */
    bool has_content : 1;  /* recovery: its body was seen */
    bool bad_message : 1;  /* recovery: its newest copy does not verify */
    bool bad_outcomes : 1; /* recovery: its newest outcomes do not verify */
};

struct append;
struct carry;
struct queue_writer;

struct queue {
    const struct fileops *ops;
    struct tasks *tasks;
    struct journal *journal;
    struct schedule *schedule;
    struct idtree messages;
    struct names devices;
    char dir[SPOOL_PATH_MAX];
    char journal_dir[SPOOL_PATH_MAX];
    char content_dir[SPOOL_PATH_MAX];
    char damaged_dir[SPOOL_PATH_MAX];
    int lock_fd;
    bool read_only;
    uint32_t segment_size;
    uint64_t max_bytes;
    uint64_t min_free_bytes;
    uint64_t uncertain_wait_ms;
    uint64_t uncertain_wait_urgent_ms;
    uint64_t now_ms;
    uint64_t wall_ms;
    uint64_t states[QUEUE_GONE];
    uint64_t lanes[LANE_COUNT];
    uint64_t in_flight;
    uint64_t damaged;
    uint64_t living_bytes;   /* mail data of living messages */
    uint64_t living_journal; /* octets of records that count */
    uint64_t content_bytes;  /* of body files */
    uint64_t bodies;
    uint64_t writer_bytes; /* taken by writers that have not ended */
    uint64_t commits;
    uint64_t carried;
    uint64_t unscheduled;
    uint64_t unmarked;
    bool failing; /* as the last tick saw it */
    uint64_t failing_since;
    bool full[2]; /* for mail that is not urgent, and that is */
    /* Free space: what was measured, less what was taken since. */
    struct task *space_task;
    struct fileops_space measured; /* the task's while it is under way */
    bool measured_ok;
    bool space_known;
    uint64_t free_bytes;
    uint64_t total_bytes;
    struct carry *carry;    /* a round under way, or NULL */
    uint64_t carry_budget;  /* octets that may be carried forward before the next tick */
    uint64_t carry_written; /* of the journal, at the last tick */
    uint64_t stuck_segment; /* holds something that could not be read */
    uint64_t stuck_since;
    unsigned larges;              /* writers of large mail */
    unsigned writing;             /* bodies being written just now */
    unsigned blocks;              /* of bodies, full and not yet written */
    uint32_t body_piece;          /* how much of a body goes to the disk at once; 0: not known */
    struct queue_writer *writers; /* whose blocks wait for their turn, in that order */
    struct queue_writer **writers_end;
    struct queue_writer *doomed; /* failed large mail whose body waits to be removed */
    unsigned opened;             /* writers and readers, for our own bugs */
};

/* ---- messages in memory ---------------------------------------------------------------------- */

struct message *spool_find(const struct queue *q, uint64_t id);
uint64_t message_id(const struct message *m);
/* A message in no list. NULL without memory, or when the route cannot be made. */
struct message *spool_message(struct queue *q, const struct record_message *head);
/* Puts it into the tree and the counts. */
void spool_add(struct queue *q, struct message *m, uint64_t id);
/* Takes it out of schedule, tree and counts; its places stay. */
void spool_detach(struct queue *q, struct message *m);
/* Drops its places and frees it. */
void spool_free_message(struct queue *q, struct message *m);

void spool_place(struct queue *q, struct message *m, enum place_kind kind,
                 struct journal_segment *segment, uint32_t offset, uint32_t span);
void spool_unplace(struct queue *q, struct message *m, enum place_kind kind);

/* Changes what is counted: state, lease, damage. */
struct message_change {
    enum queue_state state;
    bool leased;
    bool damaged;
};
struct message_change spool_change(const struct message *m);
void spool_set(struct queue *q, struct message *m, const struct message_change *to);
/* One more attempt of the message was lost in doubt. */
void spool_count_loss(struct message *m);
/* How long it waits after the last one. */
uint64_t spool_uncertain_wait(const struct queue *q, const struct message *m);
/* Schedules a queued or uncertain message that is not leased; others leave the schedule. */
void spool_schedule(struct queue *q, struct message *m, uint64_t due_ms);

/* ---- records --------------------------------------------------------------------------------- */

/* Appends the message's state as memory has it, and the outcomes when there are any (taken over,
 * with their memory). Never lost once it returns true. False without memory. */
bool spool_write_state(struct queue *q, struct message *m, uint64_t wait_ms, uint64_t wall_ms,
                       struct bytes *outcomes, queue_done_fn *done, void *ctx);
bool spool_write_doubt(struct queue *q, struct message *m, uint64_t wall_ms, queue_done_fn *done,
                       void *ctx);
/* Detaches the message and appends its GONE; the body is removed when that is durable. */
bool spool_write_gone(struct queue *q, struct message *m, queue_done_fn *done, void *ctx);
/* What the MESSAGE record's head says of m. */
void spool_message_head(const struct queue *q, const struct message *m, struct record_message *out);
/* Holds a message whose bytes do not verify, and records that. */
void spool_mark_damaged(struct queue *q, struct message *m);

/* Where a record is, as a value for a worker. */
struct segfile_place spool_place_value(const struct message *m, enum place_kind kind);

/* ---- between the parts ----------------------------------------------------------------------- */

/* The text of the newest outcomes that are not durable yet, or NULL. */
const struct bytes *spool_outcomes_under_way(const struct message *m);
/* Whether nothing has been written for so long that mail is sent without a mark of doubt. */
bool spool_is_unwritable(const struct queue *q);
/* Looks whether limits were reached; `leave`: and whether there is room again. */
void room_update(struct queue *q, bool leave);
/* Whether mail that is under way may grow. */
bool room_to_grow(const struct queue *q, bool urgent, struct error *err);
/* Removes the bodies of failed writers, or forgets them when the queue closes. */
void writer_remove_doomed(struct queue *q, bool closing);
/* Measures free space, blocking. False without memory. */
bool upkeep_init(struct queue *q);
void upkeep_done(struct queue *q);
void upkeep_tick(struct queue *q);

#endif
