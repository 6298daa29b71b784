#include "queue/segfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/window.h"

#define ZERO_CHUNK  65536u
#define SEAL_WINDOW (128u * 1024u)
#define SEAL_CHUNK  65536u

void segfile_name(uint64_t number, char out[SEGFILE_NAME_MAX])
{
    snprintf(out, SEGFILE_NAME_MAX, "%016" PRIx64 ".seg", number);
}

bool segfile_parse_name(const char *name, uint64_t *out_number)
{
    if (strlen(name) != SEGFILE_NAME_MAX - 1 || strcmp(name + 16, ".seg") != 0 ||
        strspn(name, "0123456789abcdef") != 16)
        return false;
    *out_number = strtoull(name, NULL, 16);
    return true;
}

void segfile_path(const char *dir, uint64_t number, char out[SEGFILE_PATH_MAX])
{
    char name[SEGFILE_NAME_MAX];
    segfile_name(number, name);
    snprintf(out, SEGFILE_PATH_MAX, "%s/%s", dir, name);
}

static void spare_path(const char *dir, char out[SEGFILE_PATH_MAX])
{
    snprintf(out, SEGFILE_PATH_MAX, "%s/%s", dir, SEGFILE_SPARE);
}

/* ---- making ---------------------------------------------------------------------------------- */

static int sync_file(const struct fileops *ops, int fd, bool metadata)
{
    int result;
    do {
        result = metadata ? ops->fsync(ops->ctx, fd) : ops->fdatasync(ops->ctx, fd);
    } while (result < 0 && errno == EINTR);
    return result;
}

static int open_file(const struct fileops *ops, const char *path, int flags)
{
    int fd;
    do {
        fd = ops->open(ops->ctx, path, flags, 0600);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

static int write_at(const struct fileops *ops, int fd, const void *data, size_t len,
                    uint64_t offset)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    return fileops_writev_all(ops, fd, &iov, 1, (off_t)offset);
}

static int fill_with_zeros(const struct fileops *ops, int fd, uint32_t at, uint32_t end)
{
    static const uint8_t zeros[ZERO_CHUNK];
    for (uint32_t start = at; at < end;) {
        uint32_t len = end - at < ZERO_CHUNK ? end - at : ZERO_CHUNK;
        if (write_at(ops, fd, zeros, len, at) < 0)
            return -1;
        at += len;
        if (at == end) /* so that little is left for the sync */
            (void)ops->write_back(ops->ctx, fd, (off_t)start, (off_t)(end - start));
    }
    return 0;
}

/* A file of full size with blocks of its own: later syncs have no metadata to write. What is there
 * counts when it is as much as `filled`, or all; else it is some other file. */
static int fill_spare(const struct fileops *ops, int fd, uint32_t filled, uint32_t end,
                      uint32_t size)
{
    struct fileops_stat st;
    if (ops->fstat(ops->ctx, fd, &st) < 0)
        return -1;
    if (st.size == size)
        return 0;
    if (st.size == filled)
        return fill_with_zeros(ops, fd, filled, end);
    if (ops->ftruncate(ops->ctx, fd, 0) < 0)
        return -1;
    return fill_with_zeros(ops, fd, 0, end);
}

/* A loss of power within a rename may leave both names, of which one is a segment: that file is
 * left to the segment. */
static int open_spare(const struct fileops *ops, const char *spare)
{
    struct fileops_stat st;
    int fd = open_file(ops, spare, O_RDWR | O_CREAT);
    if (fd < 0 || ops->fstat(ops->ctx, fd, &st) < 0 || st.links <= 1)
        return fd;
    (void)ops->close(ops->ctx, fd);
    return ops->unlink(ops->ctx, spare) < 0 ? -1 : open_file(ops, spare, O_RDWR | O_CREAT);
}

/* On a full disk, what it took is given back. */
static bool fill_failed(const struct fileops *ops, const char *spare, struct error *err)
{
    int saved = errno;
    (void)ops->unlink(ops->ctx, spare);
    return error_errno(err, saved, "fill %s", spare);
}

bool segfile_fill(const struct fileops *ops, const char *dir, uint32_t size, uint32_t filled,
                  uint32_t end, struct error *err)
{
    char spare[SEGFILE_PATH_MAX];
    spare_path(dir, spare);
    int fd = open_spare(ops, spare);
    if (fd < 0)
        return error_errno(err, errno, "open %s", spare);
    bool ok = fill_spare(ops, fd, filled, end, size) == 0 || fill_failed(ops, spare, err);
    (void)ops->close(ops->ctx, fd);
    return ok;
}

/* The block behind the header is cleared too, so that a new segment begins with no record of an
 * earlier life where its first should be. */
static int write_header(const struct fileops *ops, int fd, const struct segment_header *h)
{
    uint8_t blocks[2 * SEGMENT_BLOCK] = {0};
    segment_encode_header(h, blocks);
    return write_at(ops, fd, blocks, sizeof(blocks), 0);
}

static bool fill_and_name(const struct fileops *ops, const char *dir,
                          const struct segment_header *h, uint32_t filled, int fd,
                          struct error *err)
{
    char path[SEGFILE_PATH_MAX];
    char spare[SEGFILE_PATH_MAX];
    segfile_path(dir, h->number, path);
    spare_path(dir, spare);
    if (fill_spare(ops, fd, filled, h->size, h->size) < 0)
        return fill_failed(ops, spare, err);
    if (write_header(ops, fd, h) < 0)
        return error_errno(err, errno, "write %s", spare);
    if (sync_file(ops, fd, true) < 0) {
        int saved = errno;
        (void)ops->unlink(ops->ctx, spare); /* its pages cannot be trusted any more */
        return error_errno(err, saved, "sync %s", spare);
    }
    if (ops->rename(ops->ctx, spare, path) < 0)
        return error_errno(err, errno, "rename %s to %s", spare, path);
    if (ops->sync_directory(ops->ctx, dir) < 0)
        return error_errno(err, errno, "sync directory %s", dir);
    return true;
}

bool segfile_prepare(const struct fileops *ops, const char *dir, const struct segment_header *h,
                     uint32_t filled, int *out_fd, struct error *err)
{
    char spare[SEGFILE_PATH_MAX];
    spare_path(dir, spare);
    int fd = open_spare(ops, spare);
    if (fd < 0)
        return error_errno(err, errno, "open %s", spare);
    if (!fill_and_name(ops, dir, h, filled, fd, err)) {
        (void)ops->close(ops->ctx, fd);
        return false;
    }
    *out_fd = fd;
    return true;
}

/* ---- sealing --------------------------------------------------------------------------------- */

struct sealer {
    const struct fileops *ops;
    int fd;
    struct bytes chunk;
    uint32_t at; /* where the chunk will be written */
    uint32_t crc;
    uint32_t limit; /* the index must end here */
};

static bool sealer_flush(struct sealer *s, struct error *err)
{
    if (s->chunk.len > s->limit - s->at)
        return error_set(err, ERROR_LIMIT, "no room for the index");
    if (write_at(s->ops, s->fd, s->chunk.data, s->chunk.len, s->at) < 0)
        return error_errno(err, errno, "write the index");
    s->crc = bytes_crc(s->crc, s->chunk.data, s->chunk.len);
    s->at += (uint32_t)s->chunk.len;
    bytes_clear(&s->chunk);
    return true;
}

static bool sealer_add(struct sealer *s, const struct segment_record *r, uint32_t offset,
                       const uint8_t *head, struct error *err)
{
    uint8_t entry[SEGMENT_ENTRY];
    segment_encode_entry(r, offset, entry);
    if (s->chunk.len + SEGMENT_ENTRY + r->head_len > SEAL_CHUNK && !sealer_flush(s, err))
        return false;
    if (!bytes_append(&s->chunk, entry, sizeof(entry)) ||
        !bytes_append(&s->chunk, head, r->head_len))
        return error_set(err, ERROR_NO_ROOM, "no memory for the index");
    return true;
}

static bool seal_records(struct sealer *s, struct window *w, const struct segment_header *h,
                         uint32_t end, struct error *err)
{
    for (uint32_t at = SEGMENT_BLOCK; at < end;) {
        struct segment_record r;
        const uint8_t *p = window_at(w, at, SEGMENT_RECORD_HEADER);
        if (!p || !segment_decode_record(p, h->salt, at, &r))
            return error_set(err, ERROR_DAMAGED, "no record at %" PRIu32, at);
        p = window_at(w, at, (size_t)SEGMENT_RECORD_HEADER + r.head_len);
        if (!p || bytes_crc(0, p + SEGMENT_RECORD_HEADER, r.head_len) != r.head_crc)
            return error_set(err, ERROR_DAMAGED, "the record at %" PRIu32 " does not verify", at);
        if (!sealer_add(s, &r, at, p + SEGMENT_RECORD_HEADER, err))
            return false;
        at += segment_span(r.head_len, r.body_len);
    }
    return sealer_flush(s, err);
}

static bool seal_footer(const struct sealer *s, const struct segment_header *h, uint32_t end,
                        struct error *err)
{
    struct segment_footer f = {.end = end, .index_len = s->at - end, .index_crc = s->crc};
    uint8_t footer[SEGMENT_FOOTER];
    segment_encode_footer(&f, h, footer);
    if (write_at(s->ops, s->fd, footer, sizeof(footer), h->size - SEGMENT_FOOTER) < 0)
        return error_errno(err, errno, "write the footer");
    if (sync_file(s->ops, s->fd, false) < 0)
        return error_errno(err, errno, "sync");
    return true;
}

bool segfile_seal(const struct fileops *ops, int fd, const struct segment_header *h, uint32_t end,
                  struct error *err)
{
    struct window w;
    struct sealer s = {.ops = ops, .fd = fd, .at = end, .limit = h->size - SEGMENT_FOOTER};
    bytes_init(&s.chunk, SEAL_CHUNK);
    bool ok = window_init(&w, ops, fd, SEAL_WINDOW)
                  ? seal_records(&s, &w, h, end, err) && seal_footer(&s, h, end, err)
                  : error_set(err, ERROR_NO_ROOM, "no memory");
    window_done(&w);
    bytes_done(&s.chunk);
    return ok || error_wrap(err, "seal segment %016" PRIx64, h->number);
}

/* ---- removing and reading -------------------------------------------------------------------- */

bool segfile_remove(const struct fileops *ops, const char *dir, uint64_t number, bool recycle,
                    struct error *err)
{
    char path[SEGFILE_PATH_MAX];
    char spare[SEGFILE_PATH_MAX];
    segfile_path(dir, number, path);
    spare_path(dir, spare);
    int result = recycle ? ops->rename(ops->ctx, path, spare) : ops->unlink(ops->ctx, path);
    if (result < 0 && errno != ENOENT)
        return error_errno(err, errno, "remove %s", path);
    if (ops->sync_directory(ops->ctx, dir) < 0)
        return error_errno(err, errno, "sync directory %s", dir);
    return true;
}

static bool verify(const struct segfile_place *place, const uint8_t *raw,
                   struct segment_record *out)
{
    struct segment_record r;
    if (!segment_decode_record(raw, place->salt, place->offset, &r) || r.type != place->type ||
        r.id != place->id || segment_span(r.head_len, r.body_len) != place->span)
        return false;
    const uint8_t *head = raw + SEGMENT_RECORD_HEADER;
    if (bytes_crc(0, head, r.head_len) != r.head_crc ||
        bytes_crc(0, head + r.head_len, r.body_len) != r.body_crc)
        return false;
    *out = r;
    return true;
}

static bool read_raw(const struct fileops *ops, const char *path, const struct segfile_place *place,
                     uint8_t *out, struct error *err)
{
    int fd = open_file(ops, path, O_RDONLY);
    if (fd < 0) {
        memset(out, 0, place->span);
        return error_errno(err, errno, "open %s", path);
    }
    size_t got = 0;
    bool ok = true;
    if (fileops_read_all(ops, fd, out, place->span, place->offset, &got) < 0) {
        int saved = errno;
        ok = fileops_read_pieces(ops, fd, out, place->span, place->offset, &got) == 0 ||
             error_errno(err, saved, "read %s at %" PRIu32, path, place->offset);
    }
    memset(out + got, 0, place->span - got);
    (void)ops->close(ops->ctx, fd);
    return ok;
}

bool segfile_read(const struct fileops *ops, const char *dir, const struct segfile_place *place,
                  struct segment_record *out_record, struct bytes *raw, struct error *err)
{
    char path[SEGFILE_PATH_MAX];
    segfile_path(dir, place->number, path);
    uint8_t *p = bytes_reserve(raw, place->span);
    if (!p)
        return error_set(err, ERROR_NO_ROOM, "no memory to read %s", path);
    raw->len += place->span;
    if (!read_raw(ops, path, place, p, err))
        return false;
    if (!verify(place, p, out_record))
        return error_set(err, ERROR_DAMAGED, "the record at %" PRIu32 " of %s does not verify",
                         place->offset, path);
    return true;
}
