/*
 * The file calls that the spool makes, as a table.
 *
 * Everything the journal, the bodies and recovery do to a disk goes through one of these, so that a
 * test can fail, shorten, delay, stop or record each of them. Semantics are those of the POSIX
 * calls of the same name (EINTR included: the callers handle it); `ctx` is the table's own.
 */
#ifndef OUTTRAY_QUEUE_FILEOPS_H
#define OUTTRAY_QUEUE_FILEOPS_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct fileops_stat {
    uint64_t size;
    int is_directory;
    uint64_t links; /* names that the file has; 0 when not known */
};

struct fileops_space {
    uint64_t free_bytes; /* to an ordinary user */
    uint64_t total_bytes;
};

struct fileops {
    void *ctx;
    int (*open)(void *ctx, const char *path, int flags, mode_t mode);
    int (*close)(void *ctx, int fd);
    ssize_t (*pread)(void *ctx, int fd, void *data, size_t len, off_t offset);
    ssize_t (*pwritev)(void *ctx, int fd, const struct iovec *iov, int count, off_t offset);
    int (*fdatasync)(void *ctx, int fd);
    int (*fsync)(void *ctx, int fd);
    /* Starts writing dirty pages back without waiting for them; a hint, may do nothing. */
    int (*write_back)(void *ctx, int fd, off_t offset, off_t len);
    /* Waits until what write_back() began there has been written. Proves nothing, but what fails
     * has failed. May be NULL. */
    int (*wait_back)(void *ctx, int fd, off_t offset, off_t len);
    /* Microseconds of a clock that only goes forward: how long a call took. May be NULL. */
    uint64_t (*now_us)(void *ctx);
    int (*sync_directory)(void *ctx, const char *path);
    int (*ftruncate)(void *ctx, int fd, off_t len);
    int (*fstat)(void *ctx, int fd, struct fileops_stat *out);
    int (*rename)(void *ctx, const char *from, const char *to);
    int (*unlink)(void *ctx, const char *path);
    int (*mkdir)(void *ctx, const char *path, mode_t mode);
    /* Locks the open file exclusively, not waiting; EWOULDBLOCK when another process has it. */
    int (*lock)(void *ctx, int fd);
    int (*space)(void *ctx, const char *path, struct fileops_space *out);
    /* Calls each(arg, name) for every entry but "." and "..", in any order. */
    int (*list)(void *ctx, const char *path, void (*each)(void *arg, const char *name), void *arg);
};

extern const struct fileops fileops_system;

/* The whole range or an error: short calls are continued, EINTR is repeated. Reading stops early
 * only at the end of the file; *out_len says where. 0, or -1 with errno set. */
int fileops_read_all(const struct fileops *ops, int fd, void *data, size_t len, off_t offset,
                     size_t *out_len);
/* As far as it can be read, in small pieces, with zeros for the rest. *out_len goes up to the end
 * of the file. -1 with errno set when any of it cannot be read. */
int fileops_read_pieces(const struct fileops *ops, int fd, void *data, size_t len, off_t offset,
                        size_t *out_len);
int fileops_writev_all(const struct fileops *ops, int fd, const struct iovec *iov, int count,
                       off_t offset);

#endif
