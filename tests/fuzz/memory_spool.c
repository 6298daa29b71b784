#include "tests/fuzz/memory_spool.h"

#include <errno.h>
#include <fcntl.h>

#include "tests/fuzz/fuzz.h"

static struct memory_file *file_of(void *ctx, int fd)
{
    struct memory_spool *m = ctx;

    FUZZ_CHECK(fd >= 0 && (size_t)fd < m->count);
    return &m->files[fd];
}

static int memory_open(void *ctx, const char *path, int flags, mode_t mode)
{
    struct memory_spool *m = ctx;

    (void)mode;
    FUZZ_CHECK(!m->locked || flags == O_RDONLY);
    for (size_t i = 0; i < m->count; i++) {
        if (strcmp(m->files[i].path, path) == 0) {
            m->opened++;
            return (int)i;
        }
    }
    errno = ENOENT;
    return -1;
}

static int memory_close(void *ctx, int fd)
{
    struct memory_spool *m = ctx;

    (void)file_of(ctx, fd);
    FUZZ_CHECK(m->opened > 0);
    m->opened--;
    return 0;
}

static ssize_t memory_pread(void *ctx, int fd, void *data, size_t len, off_t offset)
{
    const struct bytes *b = &file_of(ctx, fd)->data;
    size_t at = (size_t)offset;

    FUZZ_CHECK(offset >= 0);
    if (at >= b->len)
        return 0;
    if (len > b->len - at)
        len = b->len - at;
    memcpy(data, b->data + at, len);
    return (ssize_t)len;
}

static ssize_t memory_pwritev(void *ctx, int fd, const struct iovec *iov, int count, off_t offset)
{
    struct memory_spool *m = ctx;
    struct bytes *b = &file_of(ctx, fd)->data;
    size_t at = (size_t)offset;
    size_t sum = 0;

    FUZZ_CHECK(!m->locked && offset >= 0);
    for (int i = 0; i < count; i++) {
        FUZZ_CHECK(iov[i].iov_len <= b->len - at); /* segments have their size from the start */
        memcpy(b->data + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
        sum += iov[i].iov_len;
    }
    return (ssize_t)sum;
}

static int memory_sync(void *ctx, int fd)
{
    struct memory_spool *m = ctx;

    (void)file_of(ctx, fd);
    FUZZ_CHECK(!m->locked);
    return 0;
}

static int memory_fstat(void *ctx, int fd, struct fileops_stat *out)
{
    *out = (struct fileops_stat){.size = file_of(ctx, fd)->data.len};
    return 0;
}

static int memory_space(void *ctx, const char *path, struct fileops_space *out)
{
    (void)ctx;
    (void)path;
    *out = (struct fileops_space){.free_bytes = 1u << 30, .total_bytes = 1u << 30};
    return 0;
}

static int memory_list(void *ctx, const char *path, void (*each)(void *arg, const char *name),
                       void *arg)
{
    struct memory_spool *m = ctx;
    size_t len = strlen(path);

    for (size_t i = 0; i < m->count; i++) {
        const char *name = m->files[i].path;

        if (strncmp(name, path, len) == 0 && name[len] == '/' && !strchr(name + len + 1, '/'))
            each(arg, name + len + 1);
    }
    return 0;
}

/* What a reader never does. */

static int never_path(void *ctx, const char *path)
{
    (void)ctx;
    fprintf(stderr, "%s was to be changed\n", path);
    abort();
}

static int never_mkdir(void *ctx, const char *path, mode_t mode)
{
    (void)mode;
    return never_path(ctx, path);
}

static int never_rename(void *ctx, const char *from, const char *to)
{
    (void)to;
    return never_path(ctx, from);
}

static int never_truncate(void *ctx, int fd, off_t len)
{
    (void)len;
    return never_path(ctx, file_of(ctx, fd)->path);
}

static int never_write_back(void *ctx, int fd, off_t offset, off_t len)
{
    (void)offset;
    return never_truncate(ctx, fd, len);
}

static int never_lock(void *ctx, int fd)
{
    return never_truncate(ctx, fd, 0);
}

void memory_init(struct memory_spool *m)
{
    *m = (struct memory_spool){.ops = {.ctx = m,
                                       .open = memory_open,
                                       .close = memory_close,
                                       .pread = memory_pread,
                                       .pwritev = memory_pwritev,
                                       .fdatasync = memory_sync,
                                       .fsync = memory_sync,
                                       .write_back = never_write_back,
                                       .sync_directory = never_path,
                                       .ftruncate = never_truncate,
                                       .fstat = memory_fstat,
                                       .rename = never_rename,
                                       .unlink = never_path,
                                       .mkdir = never_mkdir,
                                       .lock = never_lock,
                                       .space = memory_space,
                                       .list = memory_list}};
}

void memory_done(struct memory_spool *m)
{
    for (size_t i = 0; i < m->count; i++)
        bytes_done(&m->files[i].data);
}

int memory_add(struct memory_spool *m, const char *path)
{
    struct memory_file *f = &m->files[m->count];

    FUZZ_CHECK(m->count < MEMORY_FILES_MAX);
    snprintf(f->path, sizeof(f->path), "%s", path);
    bytes_init(&f->data, MEMORY_FILE_MAX);
    return (int)m->count++;
}
