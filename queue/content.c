#include "queue/content.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/bytes.h"

#define WRITE_AT_ONCE 32 /* blocks of one write call */
/* How long others may be kept waiting for a piece, and when it may be larger again. */
#define PIECE_SLOW_US  8000
#define PIECE_QUICK_US 2000

void content_path(const char *dir, uint64_t id, char out[CONTENT_PATH_MAX])
{
    snprintf(out, CONTENT_PATH_MAX, "%s/%016" PRIx64 ".body", dir, id);
}

bool content_parse_name(const char *name, uint64_t *out_id)
{
    if (strlen(name) != CONTENT_NAME_MAX - 1 || strcmp(name + 16, ".body") != 0 ||
        strspn(name, "0123456789abcdef") != 16)
        return false;
    *out_id = strtoull(name, NULL, 16);
    return true;
}

static uint32_t block_crc(uint64_t id, uint64_t number, const uint8_t *data, size_t len)
{
    uint8_t place[16];
    bytes_put64(place, id);
    bytes_put64(place + 8, number);
    return bytes_crc(bytes_crc(0, place, sizeof(place)), data, len);
}

/* ---- writing --------------------------------------------------------------------------------- */

bool content_create(struct content_file *f, const struct fileops *ops, const char *dir, uint64_t id,
                    struct error *err)
{
    char path[CONTENT_PATH_MAX];
    content_path(dir, id, path);
    *f = (struct content_file){
        .ops = ops, .id = id, .piece = CONTENT_WRITE_BACK, .piece_min = CONTENT_PIECE_MIN};
    do {
        f->fd = ops->open(ops->ctx, path, O_RDWR | O_CREAT | O_EXCL, 0600);
    } while (f->fd < 0 && errno == EINTR);
    if (f->fd < 0)
        return error_errno(err, errno, "create %s", path);
    if (ops->sync_directory(ops->ctx, dir) < 0) {
        error_errno(err, errno, "sync directory %s", dir);
        content_close(f);
        (void)ops->unlink(ops->ctx, path);
        return false;
    }
    return true;
}

static void seal_block(struct content_file *f, struct content_block *b)
{
    bytes_put32(b->frame, b->len);
    bytes_put32(b->frame + 4, block_crc(f->id, f->blocks, b->frame + CONTENT_FRAME, b->len));
    f->blocks++;
}

static int sync_data(struct content_file *f)
{
    int result;
    do {
        result = f->ops->fdatasync(f->ops->ctx, f->fd);
    } while (result < 0 && errno == EINTR);
    if (result == 0)
        f->synced = f->started = f->waited = f->written;
    return result;
}

/* A failure must not be overlooked here: the kernel reports it once, and fdatasync() would succeed
 * afterwards. */
static bool wait_back(struct content_file *f)
{
    int result;
    if (!f->ops->wait_back || f->started == f->waited)
        return true;
    do {
        result = f->ops->wait_back(f->ops->ctx, f->fd, (off_t)f->waited,
                                   (off_t)(f->started - f->waited));
    } while (result < 0 && errno == EINTR);
    f->waited = f->started;
    return result == 0 || errno == ENOSYS || errno == EINVAL || errno == ESPIPE;
}

static bool begin_back(struct content_file *f)
{
    bool ok = wait_back(f);
    if (ok)
        (void)f->ops->write_back(f->ops->ctx, f->fd, (off_t)f->started,
                                 (off_t)(f->written - f->started)); /* a hint only */
    f->started = f->written;
    return ok;
}

/* After a piece that took so long: how large the next ones are. Where most of the time is spent
 * whatever the size, smaller pieces would only cost throughput. */
static void set_pace(struct content_file *f, uint64_t took_us)
{
    uint64_t doubled_us = f->doubled_us;
    f->doubled_us = 0;
    if (doubled_us > 0 && took_us > doubled_us - doubled_us / 4) {
        f->piece *= 2;
        f->piece_min = f->piece;
    } else if (took_us > PIECE_SLOW_US && f->piece > f->piece_min) {
        f->piece /= 2;
        f->doubled_us = took_us;
    } else if (took_us < PIECE_QUICK_US && f->piece < CONTENT_WRITE_BACK) {
        f->piece *= 2;
    }
}

/* The first piece after a sync shows what one takes: nothing of ours is before it. */
static bool is_waited_for(const struct content_file *f)
{
    return f->ops->now_us && f->ops->wait_back &&
           (f->started == f->synced || (f->shared && f->piece < CONTENT_WRITE_BACK));
}

static bool write_piece(struct content_file *f)
{
    if (!is_waited_for(f))
        return begin_back(f);
    uint64_t begun_us = f->ops->now_us(f->ops->ctx);
    bool ok = begin_back(f) && wait_back(f);
    set_pace(f, f->ops->now_us(f->ops->ctx) - begun_us);
    return ok;
}

static bool write_back(struct content_file *f, struct error *err)
{
    bool ok = f->written - f->started < f->piece || write_piece(f);
    if (ok && f->written - f->synced >= CONTENT_UNSYNCED_MAX)
        ok = sync_data(f) == 0;
    return ok || error_errno(err, errno, "sync body %016" PRIx64, f->id);
}

/* Whether one more block may be written before the next sync. */
static bool has_credit(const struct content_file *f, size_t len)
{
    return f->written + len - f->synced < CONTENT_UNSYNCED_MAX;
}

bool content_write(struct content_file *f, struct content_block *first, struct error *err)
{
    while (first) {
        struct iovec iov[WRITE_AT_ONCE];
        size_t len = 0;
        int n = 0;
        for (; first && n < WRITE_AT_ONCE && len < f->piece && has_credit(f, len);
             first = first->next) {
            seal_block(f, first);
            iov[n++] = (struct iovec){first->frame, CONTENT_FRAME + (size_t)first->len};
            len += CONTENT_FRAME + (size_t)first->len;
        }
        if (fileops_writev_all(f->ops, f->fd, iov, n, (off_t)f->written) < 0)
            return error_errno(err, errno, "write body %016" PRIx64, f->id);
        f->written += len;
        if (!write_back(f, err))
            return false;
    }
    return true;
}

bool content_finish(struct content_file *f, struct error *err)
{
    bool ok = sync_data(f) == 0 || error_errno(err, errno, "sync body %016" PRIx64, f->id);
    content_close(f);
    return ok;
}

void content_close(struct content_file *f)
{
    if (f->ops && f->fd >= 0)
        (void)f->ops->close(f->ops->ctx, f->fd); /* what had to be durable has been synced */
    f->fd = -1;
}

bool content_remove(const struct fileops *ops, const char *dir, uint64_t id, struct error *err)
{
    char path[CONTENT_PATH_MAX];
    content_path(dir, id, path);
    if (ops->unlink(ops->ctx, path) < 0 && errno != ENOENT)
        return error_errno(err, errno, "remove %s", path);
    return true;
}

/* ---- reading --------------------------------------------------------------------------------- */

int content_open(const struct fileops *ops, const char *dir, uint64_t id, struct error *err)
{
    char path[CONTENT_PATH_MAX];
    content_path(dir, id, path);
    int fd;
    do {
        fd = ops->open(ops->ctx, path, O_RDONLY, 0);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0 && errno == ENOENT)
        error_set(err, ERROR_DAMAGED, "%s is missing", path);
    else if (fd < 0)
        error_errno(err, errno, "open %s", path);
    return fd;
}

bool content_read(const struct fileops *ops, int fd, uint64_t id, uint64_t size, uint64_t number,
                  struct content_block *block, struct error *err)
{
    uint64_t before = number * CONTENT_BLOCK;
    uint32_t want = size - before < CONTENT_BLOCK ? (uint32_t)(size - before) : CONTENT_BLOCK;
    size_t got = 0;
    off_t at = (off_t)(number * (CONTENT_FRAME + CONTENT_BLOCK));
    block->len = 0;
    int errnum = 0;
    if (fileops_read_all(ops, fd, block->frame, CONTENT_FRAME + want, at, &got) < 0) {
        errnum = errno;
        if (fileops_read_pieces(ops, fd, block->frame, CONTENT_FRAME + want, at, &got) == 0)
            errnum = 0;
    }
    block->len = got > CONTENT_FRAME ? (uint32_t)(got - CONTENT_FRAME) : 0;
    if (errnum)
        return error_errno(err, errnum, "read block %" PRIu64 " of body %016" PRIx64, number, id);
    if (block->len != want || bytes_get32(block->frame) != want ||
        bytes_get32(block->frame + 4) != block_crc(id, number, block->frame + CONTENT_FRAME, want))
        return error_set(err, ERROR_DAMAGED,
                         "block %" PRIu64 " of body %016" PRIx64 " does not verify", number, id);
    return true;
}
