/*
 * Reading one segment back: which records it holds, what does not verify, and whether that was ever
 * acknowledged. Blocks; writes nothing to the segment.
 *
 * Of a sealed segment header, footer and index are read, nothing else. Any other is searched octet
 * for octet: behind a stretch that does not verify the search goes on at every multiple of 8, so
 * that damage hides nothing but itself.
 *
 * Torn or damaged: a record was acknowledged only after everything up to its end was durable. So a
 * stretch that does not verify is damage when a later segment, the footer, or a later record (by
 * its `base`) says that this place was durable; otherwise it is the torn end of a write that nobody
 * was told of.
 */
#ifndef OUTTRAY_QUEUE_RECOVER_H
#define OUTTRAY_QUEUE_RECOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"
#include "queue/error.h"
#include "queue/fileops.h"
#include "queue/record.h"
#include "queue/segment.h"

#define RECOVER_COPY_MAX (4u * 1024u * 1024u) /* most that is set aside of one stretch */

struct recover_entry {
    struct segment_record record;
    uint32_t offset;
    uint32_t head_at; /* in recover_segment.heads */
    bool body_ok;     /* verified, or not read because the segment is sealed */
};

/* A stretch that does not verify. */
struct recover_gap {
    uint32_t offset;
    uint32_t len;
    bool torn;
};

struct recover_segment {
    struct segment_header header;
    bool header_ok; /* else number and salt come from the file's name and a record */
    bool sealed;    /* the index was used */
    bool ended;     /* proven and end come from a later segment */
    uint32_t proven;
    uint32_t end;
    struct recover_entry *entries; /* in the order of their offsets */
    size_t entry_count;
    size_t entry_cap;
    struct bytes heads;
    struct recover_gap *gaps;
    size_t gap_count;
    size_t gap_cap;
};

/* Opens a segment and reads its header. ERROR_DAMAGED: neither the header nor any record verifies.
 * The descriptor belongs to the caller. */
bool recover_open(const struct fileops *ops, const char *path, uint64_t number, bool read_only,
                  struct recover_segment *out, int *out_fd, struct error *err);
/* What the segment's START record says of earlier ones: appends record_end's to out_ends, encoded.
 * False when it has no valid START. */
bool recover_start(const struct fileops *ops, int fd, const struct recover_segment *s,
                   struct bytes *out_ends);
/* Reads the segment. `end` is what a later segment says of it, or NULL. False without memory. */
bool recover_scan(const struct fileops *ops, int fd, const struct record_end *end,
                  struct recover_segment *s, struct error *err);
/* The same, searching a sealed segment as well: every record of it is verified. What the index says
 * is verified too; *out_index_ok is false when it should be there and does not verify. */
bool recover_search(const struct fileops *ops, int fd, const struct record_end *end,
                    struct recover_segment *s, bool *out_index_ok, struct error *err);
void recover_done(struct recover_segment *s);

/* Copies a stretch of a file to a new file, at most RECOVER_COPY_MAX octets; does nothing when the
 * copy exists. What cannot be read is left out. */
bool recover_set_aside(const struct fileops *ops, int fd, const struct recover_gap *gap,
                       const char *path, struct error *err);

#endif
