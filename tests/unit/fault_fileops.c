#include "tests/unit/fault_fileops.h"

#include <errno.h>
#include <string.h>

#define HALVES_MAX 1024

enum answer { GO, GO_HALF, REFUSE };

static enum answer ask(struct fault *f, unsigned kind)
{
    if (f->stopped) {
        errno = EIO;
        return REFUSE;
    }
    if (!(kind & f->kinds))
        return GO;
    f->calls++;
    bool hit = f->at > 0 && f->calls == f->at;
    if (f->mode == FAULT_FAIL_ON)
        hit = f->at > 0 && f->calls >= f->at;
    if (!hit)
        return GO;
    errno = f->errnum;
    switch (f->mode) {
    case FAULT_STOP:
        f->stopped = true;
        return GO;
    case FAULT_TEAR:
        f->stopped = true;
        return GO_HALF;
    case FAULT_SHORT:
        return GO_HALF;
    default:
        return REFUSE;
    }
}

static int fault_open(void *ctx, const char *path, int flags, mode_t mode)
{
    return ask(ctx, FAULT_OPEN) == REFUSE ? -1 : fileops_system.open(NULL, path, flags, mode);
}

static int fault_close(void *ctx, int fd)
{
    (void)ctx;
    return fileops_system.close(NULL, fd);
}

static ssize_t fault_pread(void *ctx, int fd, void *data, size_t len, off_t offset)
{
    enum answer a = ask(ctx, FAULT_READ);
    if (a == REFUSE)
        return -1;
    if (a == GO_HALF)
        len = (len + 1) / 2;
    return fileops_system.pread(NULL, fd, data, len, offset);
}

static ssize_t fault_pwritev(void *ctx, int fd, const struct iovec *iov, int count, off_t offset)
{
    struct iovec half[HALVES_MAX];
    enum answer a = ask(ctx, FAULT_WRITE);
    if (a == REFUSE)
        return -1;
    if (a == GO || count > HALVES_MAX)
        return fileops_system.pwritev(NULL, fd, iov, count, offset);
    size_t len = 0;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    len = (len + 1) / 2;
    int n = 0;
    for (; n < count && len > 0; n++) {
        half[n] = iov[n];
        if (half[n].iov_len > len)
            half[n].iov_len = len;
        len -= half[n].iov_len;
    }
    return fileops_system.pwritev(NULL, fd, half, n, offset);
}

static int fault_fdatasync(void *ctx, int fd)
{
    return ask(ctx, FAULT_SYNC) == REFUSE ? -1 : fileops_system.fdatasync(NULL, fd);
}

static int fault_fsync(void *ctx, int fd)
{
    return ask(ctx, FAULT_SYNC) == REFUSE ? -1 : fileops_system.fsync(NULL, fd);
}

static int fault_write_back(void *ctx, int fd, off_t offset, off_t len)
{
    return ask(ctx, FAULT_OTHER) == REFUSE ? -1 : fileops_system.write_back(NULL, fd, offset, len);
}

static int fault_wait_back(void *ctx, int fd, off_t offset, off_t len)
{
    return ask(ctx, FAULT_SYNC) == REFUSE ? -1 : fileops_system.wait_back(NULL, fd, offset, len);
}

static int fault_sync_directory(void *ctx, const char *path)
{
    return ask(ctx, FAULT_DIRECTORY) == REFUSE ? -1 : fileops_system.sync_directory(NULL, path);
}

static int fault_ftruncate(void *ctx, int fd, off_t len)
{
    return ask(ctx, FAULT_OTHER) == REFUSE ? -1 : fileops_system.ftruncate(NULL, fd, len);
}

static int fault_fstat(void *ctx, int fd, struct fileops_stat *out)
{
    return ask(ctx, FAULT_READ) == REFUSE ? -1 : fileops_system.fstat(NULL, fd, out);
}

static int fault_rename(void *ctx, const char *from, const char *to)
{
    return ask(ctx, FAULT_RENAME) == REFUSE ? -1 : fileops_system.rename(NULL, from, to);
}

static int fault_unlink(void *ctx, const char *path)
{
    return ask(ctx, FAULT_UNLINK) == REFUSE ? -1 : fileops_system.unlink(NULL, path);
}

static int fault_mkdir(void *ctx, const char *path, mode_t mode)
{
    return ask(ctx, FAULT_OTHER) == REFUSE ? -1 : fileops_system.mkdir(NULL, path, mode);
}

static int fault_lock(void *ctx, int fd)
{
    return ask(ctx, FAULT_OTHER) == REFUSE ? -1 : fileops_system.lock(NULL, fd);
}

static int fault_space(void *ctx, const char *path, struct fileops_space *out)
{
    return ask(ctx, FAULT_READ) == REFUSE ? -1 : fileops_system.space(NULL, path, out);
}

static int fault_list(void *ctx, const char *path, void (*each)(void *arg, const char *name),
                      void *arg)
{
    return ask(ctx, FAULT_READ) == REFUSE ? -1 : fileops_system.list(NULL, path, each, arg);
}

void fault_init(struct fault *f)
{
    memset(f, 0, sizeof(*f));
    f->ops = (struct fileops){
        .ctx = f,
        .open = fault_open,
        .close = fault_close,
        .pread = fault_pread,
        .pwritev = fault_pwritev,
        .fdatasync = fault_fdatasync,
        .fsync = fault_fsync,
        .write_back = fault_write_back,
        .wait_back = fault_wait_back,
        .sync_directory = fault_sync_directory,
        .ftruncate = fault_ftruncate,
        .fstat = fault_fstat,
        .rename = fault_rename,
        .unlink = fault_unlink,
        .mkdir = fault_mkdir,
        .lock = fault_lock,
        .space = fault_space,
        .list = fault_list,
    };
}

void fault_set(struct fault *f, enum fault_mode mode, unsigned kinds, uint64_t at, int errnum)
{
    f->mode = mode;
    f->kinds = kinds;
    f->at = at;
    f->errnum = errnum;
    f->calls = 0;
    f->stopped = false;
}
