/*
 * A view of a file through a buffer of fixed size, for reading it once from front to back.
 * Blocks; borrows the descriptor.
 */
#ifndef OUTTRAY_QUEUE_WINDOW_H
#define OUTTRAY_QUEUE_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "queue/fileops.h"

struct window {
    const struct fileops *ops;
    int fd;
    int errnum; /* of the last read that failed, or 0 */
    uint8_t *data;
    size_t cap;
    size_t len;
    uint64_t start; /* offset of data[0] in the file */
};

/* False without memory. */
bool window_init(struct window *w, const struct fileops *ops, int fd, size_t cap);
void window_done(struct window *w);
/* The octets [offset, offset + len), valid until the next call; len is at most cap. NULL past the
 * end of the file or when it cannot be read. */
const uint8_t *window_at(struct window *w, uint64_t offset, size_t len);
/* How many octets the buffer holds from what window_at() has just found. */
size_t window_from(const struct window *w, uint64_t offset);

#endif
