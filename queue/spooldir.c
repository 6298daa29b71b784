#include "queue/spooldir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FORMAT_TEXT "outtray-spool 1\n"

static bool make_directory(struct queue *q, const char *path, bool *out_made, struct error *err)
{
    *out_made = q->ops->mkdir(q->ops->ctx, path, 0700) == 0;
    return *out_made || errno == EEXIST || errno == EROFS ||
           error_errno(err, errno, "make directory %s", path);
}

static bool sync_directory(struct queue *q, const char *path, struct error *err)
{
    return q->ops->sync_directory(q->ops->ctx, path) == 0 || errno == EROFS ||
           error_errno(err, errno, "sync directory %s", path);
}

static void parent_of(const char *path, char out[SPOOL_PATH_MAX])
{
    strcpy(out, path);
    char *slash = strrchr(out, '/');
    if (!slash)
        strcpy(out, ".");
    else
        slash[slash == out ? 1 : 0] = '\0';
}

/* The syncs are made at every start: the one that made the directories may not have come so far. */
static bool make_directories(struct queue *q, struct error *err)
{
    char parent[SPOOL_PATH_MAX];
    bool made;
    bool any;
    parent_of(q->dir, parent);
    if (!make_directory(q, q->dir, &made, err))
        return false;
    if (!sync_directory(q, parent, err) && made) /* an old parent may not even be readable */
        return false;
    return make_directory(q, q->journal_dir, &any, err) &&
           make_directory(q, q->content_dir, &any, err) &&
           make_directory(q, q->damaged_dir, &any, err) && sync_directory(q, q->dir, err);
}

/* What can only be read is no reason not to start: what waits is sent, new mail is refused. */
static int open_or_read(const struct queue *q, const char *path)
{
    int fd = q->ops->open(q->ops->ctx, path, O_RDWR | O_CREAT, 0600);
    return fd < 0 && errno == EROFS ? q->ops->open(q->ops->ctx, path, O_RDONLY, 0) : fd;
}

/* The process that holds the lock, as far as the system tells; else 0. */
static long lock_holder(int fd)
{
    FILE *locks = fopen("/proc/locks", "re");
    char line[256];
    struct stat st;
    long holder = 0;
    bool known = locks != NULL && fstat(fd, &st) == 0;
    while (known && holder == 0 && fgets(line, sizeof(line), locks) != NULL) {
        long pid;
        unsigned long long inode;
        if (sscanf(line, "%*d: FLOCK %*s %*s %ld %*x:%*x:%llu", &pid, &inode) == 2 && pid > 0 &&
            inode == st.st_ino)
            holder = pid;
    }
    if (locks != NULL)
        (void)fclose(locks);
    return holder;
}

static bool refuse_busy(const struct queue *q, struct error *err)
{
    long holder = lock_holder(q->lock_fd);
    if (holder > 0)
        return error_set(err, ERROR_BUSY, "the spool %s is in use by process %ld; stop that first",
                         q->dir, holder);
    return error_set(err, ERROR_BUSY,
                     "the spool %s is in use by another process, most often another outtrayd; stop "
                     "that first",
                     q->dir);
}

static bool lock(struct queue *q, struct error *err)
{
    char path[SPOOL_PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/lock", q->dir) >= (int)sizeof(path))
        return error_set(err, ERROR_INVALID, "%s: the path is too long", q->dir);
    q->lock_fd = open_or_read(q, path);
    if (q->lock_fd < 0 && errno == ENOENT)
        return error_set(err, ERROR_IO,
                         "there is no spool in %s yet, and its file system is read-only", q->dir);
    if (q->lock_fd < 0)
        return error_errno(err, errno, "open %s", path);
    if (q->ops->lock(q->ops->ctx, q->lock_fd) == 0)
        return true;
    if (errno == EWOULDBLOCK)
        return refuse_busy(q, err);
    return error_errno(err, errno, "lock %s", path);
}

static bool fill_format(struct queue *q, const char *path, struct error *err)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)FORMAT_TEXT, .iov_len = strlen(FORMAT_TEXT)};
    int fd = q->ops->open(q->ops->ctx, path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return error_errno(err, errno, "create %s", path);
    bool ok =
        fileops_writev_all(q->ops, fd, &iov, 1, 0) == 0 && q->ops->fsync(q->ops->ctx, fd) == 0;
    if (!ok)
        error_errno(err, errno, "write %s", path);
    (void)q->ops->close(q->ops->ctx, fd);
    return ok;
}

/* Under another name first: a loss of power may leave a new file with its size and not its text,
 * and that must not look like the format of another program. */
static bool write_format(struct queue *q, const char *path, struct error *err)
{
    char temporary[SPOOL_PATH_MAX];
    if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
        return error_set(err, ERROR_INVALID, "%s: the path is too long", path);
    if (q->ops->unlink(q->ops->ctx, temporary) < 0 && errno != ENOENT)
        return error_errno(err, errno, "remove %s", temporary);
    if (!fill_format(q, temporary, err))
        return false;
    if (q->ops->rename(q->ops->ctx, temporary, path) < 0)
        return error_errno(err, errno, "rename %s to %s", temporary, path);
    return sync_directory(q, q->dir, err);
}

/* The format file's text, at most cap octets. One that is missing is as good as an empty one. */
static bool read_format(struct queue *q, const char *path, char *text, size_t cap, size_t *out_len,
                        struct error *err)
{
    *out_len = 0;
    int fd = q->ops->open(q->ops->ctx, path, O_RDONLY, 0);
    if (fd < 0)
        return (errno == ENOENT && !q->read_only) || error_errno(err, errno, "open %s", path);
    bool ok = fileops_read_all(q->ops, fd, text, cap, 0, out_len) == 0 ||
              error_errno(err, errno, "read %s", path);
    (void)q->ops->close(q->ops->ctx, fd);
    return ok;
}

static bool check_format(struct queue *q, struct error *err)
{
    char path[SPOOL_PATH_MAX];
    char text[sizeof(FORMAT_TEXT) + 1];
    size_t len;
    size_t want = strlen(FORMAT_TEXT);
    if (snprintf(path, sizeof(path), "%s/format", q->dir) >= (int)sizeof(path))
        return error_set(err, ERROR_INVALID, "%s: the path is too long", q->dir);
    if (!read_format(q, path, text, sizeof(text), &len, err))
        return false;
    if (len > want || memcmp(text, FORMAT_TEXT, len) != 0)
        return error_set(err, ERROR_INVALID, "%s: this program does not know that spool format",
                         path);
    return len == want || q->read_only || write_format(q, path, err);
}

bool spooldir_lock(struct queue *q, struct error *err)
{
    if (q->read_only)
        return check_format(q, err);
    return make_directories(q, err) && lock(q, err) && check_format(q, err);
}
