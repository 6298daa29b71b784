#include "queue/spooldir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define FORMAT_TEXT "outtray-spool 1\n"

static bool make_directory(struct queue *q, const char *path, bool *out_made, struct error *err)
{
    *out_made = q->ops->mkdir(q->ops->ctx, path, 0700) == 0;
    return *out_made || errno == EEXIST || error_errno(err, errno, "make directory %s", path);
}

static bool sync_directory(struct queue *q, const char *path, struct error *err)
{
    return q->ops->sync_directory(q->ops->ctx, path) == 0 ||
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

static bool lock(struct queue *q, struct error *err)
{
    char path[SPOOL_PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/lock", q->dir) >= (int)sizeof(path))
        return error_set(err, ERROR_INVALID, "%s: the path is too long", q->dir);
    q->lock_fd = q->ops->open(q->ops->ctx, path, O_RDWR | O_CREAT, 0600);
    if (q->lock_fd < 0)
        return error_errno(err, errno, "open %s", path);
    if (q->ops->lock(q->ops->ctx, q->lock_fd) == 0)
        return true;
    if (errno == EWOULDBLOCK)
        return error_set(err, ERROR_BUSY, "the spool %s is in use by another process", q->dir);
    return error_errno(err, errno, "lock %s", path);
}

static bool write_format(struct queue *q, int fd, const char *path, struct error *err)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)FORMAT_TEXT, .iov_len = strlen(FORMAT_TEXT)};
    if (fileops_writev_all(q->ops, fd, &iov, 1, 0) < 0 || q->ops->fsync(q->ops->ctx, fd) < 0)
        return error_errno(err, errno, "write %s", path);
    return sync_directory(q, q->dir, err);
}

/* A format file that was cut short while it was first written is written again. */
static bool check_format(struct queue *q, struct error *err)
{
    char path[SPOOL_PATH_MAX];
    char text[sizeof(FORMAT_TEXT) + 1];
    size_t len = 0;
    if (snprintf(path, sizeof(path), "%s/format", q->dir) >= (int)sizeof(path))
        return error_set(err, ERROR_INVALID, "%s: the path is too long", q->dir);
    int fd = q->ops->open(q->ops->ctx, path, q->read_only ? O_RDONLY : O_RDWR | O_CREAT, 0600);
    if (fd < 0)
        return error_errno(err, errno, "open %s", path);
    bool ok = true;
    size_t want = strlen(FORMAT_TEXT);
    if (fileops_read_all(q->ops, fd, text, sizeof(text), 0, &len) < 0)
        ok = error_errno(err, errno, "read %s", path);
    else if (len > want || memcmp(text, FORMAT_TEXT, len) != 0)
        ok =
            error_set(err, ERROR_INVALID, "%s: this program does not know that spool format", path);
    else if (len < want && !q->read_only)
        ok = write_format(q, fd, path, err);
    (void)q->ops->close(q->ops->ctx, fd);
    return ok;
}

bool spooldir_lock(struct queue *q, struct error *err)
{
    if (q->read_only)
        return check_format(q, err);
    return make_directories(q, err) && lock(q, err) && check_format(q, err);
}
