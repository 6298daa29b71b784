#include "queue/window.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

bool window_init(struct window *w, const struct fileops *ops, int fd, size_t cap)
{
    *w = (struct window){.ops = ops, .fd = fd, .cap = cap};
    w->data = malloc(cap);
    return w->data != NULL;
}

void window_done(struct window *w)
{
    free(w->data);
    w->data = NULL;
}

static bool holds(const struct window *w, uint64_t offset, size_t len)
{
    return offset >= w->start && offset - w->start <= w->len && len <= w->len - (offset - w->start);
}

const uint8_t *window_at(struct window *w, uint64_t offset, size_t len)
{
    assert(len <= w->cap);
    if (!holds(w, offset, len)) {
        w->start = offset;
        w->len = 0;
        w->errnum = 0;
        if (fileops_read_all(w->ops, w->fd, w->data, w->cap, (off_t)offset, &w->len) < 0) {
            w->errnum = errno;
            w->len = 0;
            /* One bad sector must not hide its neighbours: only what was asked for. */
            if (fileops_read_all(w->ops, w->fd, w->data, len, (off_t)offset, &w->len) < 0)
                w->len = 0;
            else
                w->errnum = 0;
        }
    }
    return holds(w, offset, len) ? w->data + (offset - w->start) : NULL;
}

size_t window_from(const struct window *w, uint64_t offset)
{
    return w->len - (size_t)(offset - w->start);
}
