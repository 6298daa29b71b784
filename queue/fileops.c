#include "queue/fileops.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define READ_PIECE 4096u /* a sector of most disks */

#ifndef IOV_MAX
#define IOV_MAX 1024
#endif

static int system_open(void *ctx, const char *path, int flags, mode_t mode)
{
    (void)ctx;
    return open(path, flags | O_CLOEXEC, mode);
}

static int system_close(void *ctx, int fd)
{
    (void)ctx;
    return close(fd);
}

static ssize_t system_pread(void *ctx, int fd, void *data, size_t len, off_t offset)
{
    (void)ctx;
    return pread(fd, data, len, offset);
}

static ssize_t system_pwritev(void *ctx, int fd, const struct iovec *iov, int count, off_t offset)
{
    (void)ctx;
    return pwritev(fd, iov, count, offset);
}

static int system_fdatasync(void *ctx, int fd)
{
    (void)ctx;
    return fdatasync(fd);
}

static int system_fsync(void *ctx, int fd)
{
    (void)ctx;
    return fsync(fd);
}

static int system_write_back(void *ctx, int fd, off_t offset, off_t len)
{
    (void)ctx;
#ifdef SYNC_FILE_RANGE_WRITE
    return sync_file_range(fd, offset, len, SYNC_FILE_RANGE_WRITE);
#else
    (void)fd;
    (void)offset;
    (void)len;
    return 0;
#endif
}

static int system_wait_back(void *ctx, int fd, off_t offset, off_t len)
{
    (void)ctx;
#ifdef SYNC_FILE_RANGE_WAIT_BEFORE
    return sync_file_range(fd, offset, len, SYNC_FILE_RANGE_WAIT_BEFORE);
#else
    (void)fd;
    (void)offset;
    (void)len;
    return 0;
#endif
}

static uint64_t system_now_us(void *ctx)
{
    struct timespec now;
    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int system_sync_directory(void *ctx, const char *path)
{
    (void)ctx;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int result = fsync(fd);
    int saved = errno;
    close(fd);
    errno = saved;
    return result;
}

static int system_ftruncate(void *ctx, int fd, off_t len)
{
    (void)ctx;
    return ftruncate(fd, len);
}

static int system_fstat(void *ctx, int fd, struct fileops_stat *out)
{
    (void)ctx;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -1;
    out->size = (uint64_t)st.st_size;
    out->is_directory = S_ISDIR(st.st_mode);
    out->links = (uint64_t)st.st_nlink;
    return 0;
}

static int system_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    return rename(from, to);
}

static int system_unlink(void *ctx, const char *path)
{
    (void)ctx;
    return unlink(path);
}

static int system_mkdir(void *ctx, const char *path, mode_t mode)
{
    (void)ctx;
    return mkdir(path, mode);
}

static int system_lock(void *ctx, int fd)
{
    (void)ctx;
    return flock(fd, LOCK_EX | LOCK_NB);
}

static int system_space(void *ctx, const char *path, struct fileops_space *out)
{
    (void)ctx;
    struct statvfs vfs;
    if (statvfs(path, &vfs) < 0)
        return -1;
    out->free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    out->total_bytes = (uint64_t)vfs.f_blocks * vfs.f_frsize;
    return 0;
}

static int system_list(void *ctx, const char *path, void (*each)(void *arg, const char *name),
                       void *arg)
{
    (void)ctx;
    DIR *dir = opendir(path);
    if (!dir)
        return -1;
    const struct dirent *entry;
    errno = 0;
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            each(arg, entry->d_name);
        errno = 0;
    }
    int saved = errno;
    closedir(dir);
    errno = saved;
    return saved ? -1 : 0;
}

const struct fileops fileops_system = {
    .ctx = NULL,
    .open = system_open,
    .close = system_close,
    .pread = system_pread,
    .pwritev = system_pwritev,
    .fdatasync = system_fdatasync,
    .fsync = system_fsync,
    .write_back = system_write_back,
    .wait_back = system_wait_back,
    .now_us = system_now_us,
    .sync_directory = system_sync_directory,
    .ftruncate = system_ftruncate,
    .fstat = system_fstat,
    .rename = system_rename,
    .unlink = system_unlink,
    .mkdir = system_mkdir,
    .lock = system_lock,
    .space = system_space,
    .list = system_list,
};

int fileops_read_all(const struct fileops *ops, int fd, void *data, size_t len, off_t offset,
                     size_t *out_len)
{
    size_t have = 0;
    while (have < len) {
        ssize_t n = ops->pread(ops->ctx, fd, (char *)data + have, len - have, offset + (off_t)have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        have += (size_t)n;
    }
    *out_len = have;
    return 0;
}

int fileops_read_pieces(const struct fileops *ops, int fd, void *data, size_t len, off_t offset,
                        size_t *out_len)
{
    int failed = 0;
    *out_len = 0;
    for (size_t at = 0; at < len;) {
        size_t piece = READ_PIECE - (size_t)offset % READ_PIECE;
        size_t got = 0;
        piece = piece < len - at ? piece : len - at;
        memset((char *)data + at, 0, piece);
        if (fileops_read_all(ops, fd, (char *)data + at, piece, offset, &got) < 0) {
            failed = errno;
            memset((char *)data + at, 0, piece);
            got = piece;
        }
        *out_len = got > 0 ? at + got : *out_len;
        at += piece;
        offset += (off_t)piece;
    }
    errno = failed;
    return failed ? -1 : 0;
}

/* The part of iov from `skip` octets on, at most IOV_MAX pieces; *out_len is its length. */
static int iov_rest(const struct iovec *iov, int count, size_t skip, struct iovec *out,
                    size_t *out_len)
{
    int n = 0;
    *out_len = 0;
    for (int i = 0; i < count && n < IOV_MAX; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        out[n].iov_base = (char *)iov[i].iov_base + skip;
        out[n].iov_len = iov[i].iov_len - skip;
        *out_len += out[n++].iov_len;
        skip = 0;
    }
    return n;
}

int fileops_writev_all(const struct fileops *ops, int fd, const struct iovec *iov, int count,
                       off_t offset)
{
    struct iovec rest[IOV_MAX];
    size_t len;
    size_t written = 0;
    int n = iov_rest(iov, count, 0, rest, &len);
    while (n > 0) {
        ssize_t done = ops->pwritev(ops->ctx, fd, rest, n, offset + (off_t)written);
        if (done < 0 && errno != EINTR)
            return -1;
        if (done == 0) {
            errno = EIO;
            return -1;
        }
        written += done > 0 ? (size_t)done : 0;
        n = iov_rest(iov, count, written, rest, &len);
    }
    return 0;
}
