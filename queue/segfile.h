/*
 * A segment as a file: made, sealed, read and removed. Every function blocks and touches nothing
 * but its arguments, so that any thread may run it. `dir` is the journal's directory.
 *
 * The order of steps is what durability rests on; queue/README.md says what a crash leaves after
 * each.
 */
#ifndef OUTTRAY_QUEUE_SEGFILE_H
#define OUTTRAY_QUEUE_SEGFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/bytes.h"
#include "queue/error.h"
#include "queue/fileops.h"
#include "queue/segment.h"

#define SEGFILE_PATH_MAX 4096
#define SEGFILE_NAME_MAX 21 /* 16 hex digits, ".seg", NUL */
#define SEGFILE_SPARE    "spare.seg"

void segfile_name(uint64_t number, char out[SEGFILE_NAME_MAX]);
bool segfile_parse_name(const char *name, uint64_t *out_number);
void segfile_path(const char *dir, uint64_t number, char out[SEGFILE_PATH_MAX]);

/* Fills the spare file with zeros from `filled`, where that ended the last time, up to `end`, and
 * lets the kernel write them. One that is of full size already stays as it is. */
bool segfile_fill(const struct fileops *ops, const char *dir, uint32_t size, uint32_t filled,
                  uint32_t end, struct error *err);
/* Makes an empty segment, durably: from the spare file when there is one of the right size, else
 * with what is missing from `filled` on filled with zeros. The descriptor belongs to the caller. */
bool segfile_prepare(const struct fileops *ops, const char *dir, const struct segment_header *h,
                     uint32_t filled, int *out_fd, struct error *err);

/* Writes index and footer behind the records, which end at `end`, and syncs. A failure leaves the
 * segment as good as it was, only unsealed. */
bool segfile_seal(const struct fileops *ops, int fd, const struct segment_header *h, uint32_t end,
                  struct error *err);

/* Removes a segment, or makes it the spare, durably. May be repeated after a failure. */
bool segfile_remove(const struct fileops *ops, const char *dir, uint64_t number, bool recycle,
                    struct error *err);

/* Where a record should be and what it should be. */
struct segfile_place {
    uint64_t number;
    uint64_t salt;
    uint64_t id;
    uint32_t offset;
    uint32_t span;
    uint16_t type;
};

/* Appends the record's `span` octets to raw and verifies them. When they do not verify: false and
 * ERROR_DAMAGED; what cannot be read: ERROR_IO. In both cases raw holds what there is, with zeros
 * for what cannot be read. */
bool segfile_read(const struct fileops *ops, const char *dir, const struct segfile_place *place,
                  struct segment_record *out_record, struct bytes *raw, struct error *err);

#endif
