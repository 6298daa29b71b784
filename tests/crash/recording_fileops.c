#include "tests/crash/recording_fileops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE       4096u
#define PATH_PARTS 8
#define ROOT       0u
#define FD_BASE    1000 /* so that a mix-up with the system's is noticed */

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s failed\n", __FILE__, __LINE__, #condition);                 \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* ---- octets, in pages that copies share ------------------------------------------------------ */

struct page {
    unsigned refs;
    uint8_t data[PAGE];
};

struct blob {
    struct page **pages; /* NULL: zeros */
    size_t count;
    uint64_t size;
};

static const uint8_t zeros[PAGE];

static void *more(void *items, size_t *cap, size_t count, size_t item)
{
    if (count < *cap)
        return items;
    size_t wanted = *cap ? *cap * 2 : 16;
    while (wanted <= count)
        wanted *= 2;
    void *p = realloc(items, wanted * item);
    MUST(p);
    memset((char *)p + *cap * item, 0, (wanted - *cap) * item);
    *cap = wanted;
    return p;
}

static void page_drop(struct page *p)
{
    if (p && --p->refs == 0)
        free(p);
}

static void blob_done(struct blob *b)
{
    for (size_t i = 0; i < b->count; i++)
        page_drop(b->pages[i]);
    free(b->pages);
    *b = (struct blob){0};
}

static void blob_copy(struct blob *to, const struct blob *from)
{
    blob_done(to);
    to->size = from->size;
    if (from->count == 0)
        return;
    to->pages = malloc(from->count * sizeof(*to->pages));
    MUST(to->pages);
    to->count = from->count;
    for (size_t i = 0; i < from->count; i++) {
        to->pages[i] = from->pages[i];
        if (to->pages[i])
            to->pages[i]->refs++;
    }
}

static struct page *own_page(struct blob *b, size_t index)
{
    struct page **at = &b->pages[index];
    if (*at && (*at)->refs == 1)
        return *at;
    struct page *p = calloc(1, sizeof(*p));
    MUST(p);
    p->refs = 1;
    if (*at)
        memcpy(p->data, (*at)->data, PAGE);
    page_drop(*at);
    *at = p;
    return p;
}

static void reach(struct blob *b, size_t pages)
{
    if (pages <= b->count)
        return;
    struct page **p = realloc(b->pages, pages * sizeof(struct page *));
    MUST(p);
    memset(p + b->count, 0, (pages - b->count) * sizeof(struct page *));
    b->pages = p;
    b->count = pages;
}

static void blob_write(struct blob *b, const uint8_t *data, size_t len, uint64_t offset)
{
    reach(b, (size_t)((offset + len + PAGE - 1) / PAGE));
    if (offset + len > b->size)
        b->size = offset + len;
    while (len > 0) {
        size_t index = (size_t)(offset / PAGE);
        size_t at = (size_t)(offset % PAGE);
        size_t part = PAGE - at < len ? PAGE - at : len;
        if (b->pages[index] || memcmp(data, zeros, part) != 0)
            memcpy(own_page(b, index)->data + at, data, part);
        data += part;
        offset += part;
        len -= part;
    }
}

/* Zeros behind the end. */
static void blob_read(const struct blob *b, uint8_t *out, size_t len, uint64_t offset)
{
    while (len > 0) {
        size_t index = (size_t)(offset / PAGE);
        size_t at = (size_t)(offset % PAGE);
        size_t part = PAGE - at < len ? PAGE - at : len;
        const struct page *p = index < b->count ? b->pages[index] : NULL;
        memcpy(out, p ? p->data + at : zeros, part);
        out += part;
        offset += part;
        len -= part;
    }
}

static void blob_resize(struct blob *b, uint64_t size)
{
    size_t keep = (size_t)((size + PAGE - 1) / PAGE);
    for (size_t i = keep; i < b->count; i++)
        page_drop(b->pages[i]);
    b->count = keep < b->count ? keep : b->count;
    if (size < b->size && size % PAGE != 0 && keep == b->count && b->pages[keep - 1])
        memset(own_page(b, keep - 1)->data + size % PAGE, 0, PAGE - size % PAGE);
    b->size = size;
}

static uint64_t round_down(uint64_t at)
{
    return at / RECORDING_SECTOR * RECORDING_SECTOR;
}

static void copy_sector(struct blob *to, const struct blob *from, uint64_t at)
{
    uint8_t sector[RECORDING_SECTOR];
    blob_read(from, sector, sizeof(sector), at);
    blob_write(to, sector, sizeof(sector), at);
}

/* ---- files and directories ------------------------------------------------------------------- */

struct change {
    bool truncates; /* to `offset` */
    uint64_t offset;
    size_t len;
    uint8_t *data;
};

struct entry {
    char name[RECORDING_NAME_MAX];
    uint32_t inode;
};

struct entries {
    struct entry *items;
    size_t count;
    size_t cap;
};

/* A rename has both names, a creation only `to`, a removal only `from`. */
struct renaming {
    uint64_t seq;
    char from[RECORDING_NAME_MAX];
    char to[RECORDING_NAME_MAX];
    uint32_t inode;
};

struct recording_inode {
    bool is_directory;
    char name[RECORDING_NAME_MAX]; /* the last it had */
    uint64_t named;                /* seq of the last change of its names, and one */
    struct blob now;
    struct blob synced;
    struct change *changes;
    size_t change_count;
    size_t change_cap;
    struct entries entries_now;
    struct entries entries_synced;
    struct renaming *renamings;
    size_t renaming_count;
    size_t renaming_cap;
};

static uint32_t new_inode(struct recording *r, const char *name, bool is_directory)
{
    r->inodes = more(r->inodes, &r->inode_cap, r->inode_count, sizeof(*r->inodes));
    struct recording_inode *node = &r->inodes[r->inode_count];
    *node = (struct recording_inode){.is_directory = is_directory};
    snprintf(node->name, sizeof(node->name), "%s", name);
    return (uint32_t)r->inode_count++;
}

static void free_changes(struct recording_inode *node)
{
    for (size_t i = 0; i < node->change_count; i++)
        free(node->changes[i].data);
    node->change_count = 0;
}

static void apply_change(struct blob *b, const struct change *change)
{
    if (change->truncates)
        blob_resize(b, change->offset);
    else
        blob_write(b, change->data, change->len, change->offset);
}

static struct entry *find_entry(const struct entries *e, const char *name)
{
    for (size_t i = 0; i < e->count; i++)
        if (strcmp(e->items[i].name, name) == 0)
            return &e->items[i];
    return NULL;
}

static void put_entry(struct entries *e, const char *name, uint32_t inode)
{
    struct entry *at = find_entry(e, name);
    if (!at) {
        e->items = more(e->items, &e->cap, e->count, sizeof(*e->items));
        at = &e->items[e->count++];
        snprintf(at->name, sizeof(at->name), "%s", name);
    }
    at->inode = inode;
}

static void take_entry(struct entries *e, const char *name, uint32_t inode)
{
    struct entry *at = find_entry(e, name);
    if (at && at->inode == inode)
        *at = e->items[--e->count];
}

static void copy_entries(struct entries *to, const struct entries *from)
{
    to->count = 0;
    for (size_t i = 0; i < from->count; i++)
        put_entry(to, from->items[i].name, from->items[i].inode);
}

static void apply_renaming(struct entries *e, const struct renaming *n)
{
    if (n->from[0])
        take_entry(e, n->from, n->inode);
    if (n->to[0])
        put_entry(e, n->to, n->inode);
}

static void change_name(struct recording *r, uint32_t directory, const char *from, const char *to,
                        uint32_t inode)
{
    struct recording_inode *dir = &r->inodes[directory];
    struct recording_inode *node = &r->inodes[inode];
    dir->renamings =
        more(dir->renamings, &dir->renaming_cap, dir->renaming_count, sizeof(*dir->renamings));
    struct renaming *n = &dir->renamings[dir->renaming_count++];
    *n = (struct renaming){.seq = r->next_seq++, .inode = inode};
    snprintf(n->from, sizeof(n->from), "%s", from);
    snprintf(n->to, sizeof(n->to), "%s", to);
    apply_renaming(&dir->entries_now, n);
    node->named = r->next_seq;
    if (to[0])
        snprintf(node->name, sizeof(node->name), "%s", to);
}

/* ---- paths ----------------------------------------------------------------------------------- */

/* The directory of a path and its last part. False, with errno, when there is no such directory. */
static bool walk(const struct recording *r, const char *path, uint32_t *out_directory,
                 char name[RECORDING_NAME_MAX])
{
    uint32_t at = ROOT;
    name[0] = '\0';
    while (*path) {
        path += strspn(path, "/");
        size_t len = strcspn(path, "/");
        if (len == 0)
            break;
        if (name[0]) {
            const struct entry *e = find_entry(&r->inodes[at].entries_now, name);
            if (!e || !r->inodes[e->inode].is_directory) {
                errno = ENOENT;
                return false;
            }
            at = e->inode;
        }
        MUST(len < RECORDING_NAME_MAX);
        memcpy(name, path, len);
        name[len] = '\0';
        path += len;
    }
    *out_directory = at;
    return true;
}

static bool look_up(const struct recording *r, const char *path, uint32_t *out_inode)
{
    uint32_t directory;
    char name[RECORDING_NAME_MAX];
    if (!walk(r, path, &directory, name))
        return false;
    const struct entry *e = name[0] ? find_entry(&r->inodes[directory].entries_now, name) : NULL;
    if (name[0] && !e) {
        errno = ENOENT;
        return false;
    }
    *out_inode = e ? e->inode : ROOT;
    return true;
}

bool recording_exists(const struct recording *r, const char *path)
{
    uint32_t inode;
    return look_up(r, path, &inode);
}

size_t recording_entries(const struct recording *r, const char *path)
{
    uint32_t inode;
    return look_up(r, path, &inode) ? r->inodes[inode].entries_now.count : 0;
}

/* ---- the calls ------------------------------------------------------------------------------- */

static bool refuse(const struct recording *r)
{
    if (r->stopped)
        errno = EIO;
    return r->stopped;
}

static enum recording_answer announce(struct recording *r, const struct recording_call *call)
{
    return r->before ? r->before(r->ctx, r, call) : RECORDING_GO;
}

static int answer_sync(enum recording_answer answer)
{
    errno = answer == RECORDING_FAIL ? EIO : errno;
    return answer == RECORDING_FAIL ? -1 : 0;
}

static struct recording_inode *of_fd(struct recording *r, int fd)
{
    MUST(fd >= FD_BASE && fd < FD_BASE + RECORDING_OPEN_MAX && r->fds[fd - FD_BASE].inode);
    return &r->inodes[r->fds[fd - FD_BASE].inode];
}

static int new_fd(struct recording *r, uint32_t inode, bool made)
{
    for (int i = 0; i < RECORDING_OPEN_MAX; i++) {
        if (r->fds[i].inode)
            continue;
        r->fds[i].inode = inode;
        r->fds[i].made = made;
        return FD_BASE + i;
    }
    errno = EMFILE;
    return -1;
}

static int recording_open(void *ctx, const char *path, int flags, mode_t mode)
{
    struct recording *r = ctx;
    uint32_t directory;
    char name[RECORDING_NAME_MAX];
    (void)mode;
    if (refuse(r) || !walk(r, path, &directory, name))
        return -1;
    MUST(!(flags & O_TRUNC)); /* not known here */
    const struct entry *e = find_entry(&r->inodes[directory].entries_now, name);
    if (e && (flags & O_EXCL)) {
        errno = EEXIST;
        return -1;
    }
    if (e)
        return new_fd(r, e->inode, flags & O_CREAT);
    if (!(flags & O_CREAT)) {
        errno = ENOENT;
        return -1;
    }
    (void)announce(r, &(struct recording_call){RECORDING_CREATE, .name = name, .to = ""});
    uint32_t inode = new_inode(r, name, false);
    change_name(r, directory, "", name, inode);
    return new_fd(r, inode, true);
}

static int recording_close(void *ctx, int fd)
{
    struct recording *r = ctx;
    (void)of_fd(r, fd);
    r->fds[fd - FD_BASE].inode = 0;
    return 0;
}

static ssize_t recording_pread(void *ctx, int fd, void *data, size_t len, off_t offset)
{
    struct recording *r = ctx;
    if (refuse(r))
        return -1;
    const struct blob *b = &of_fd(r, fd)->now;
    if ((uint64_t)offset >= b->size)
        return 0;
    if (len > b->size - (uint64_t)offset)
        len = (size_t)(b->size - (uint64_t)offset);
    blob_read(b, data, len, (uint64_t)offset);
    return (ssize_t)len;
}

static struct change *add_change(struct recording_inode *node)
{
    node->changes =
        more(node->changes, &node->change_cap, node->change_count, sizeof(*node->changes));
    struct change *c = &node->changes[node->change_count++];
    *c = (struct change){0};
    return c;
}

static bool all_zeros(const uint8_t *data, size_t len)
{
    for (size_t at = 0; at < len; at += PAGE)
        if (memcmp(data + at, zeros, len - at < PAGE ? len - at : PAGE) != 0)
            return false;
    return true;
}

static ssize_t recording_pwritev(void *ctx, int fd, const struct iovec *iov, int count,
                                 off_t offset)
{
    struct recording *r = ctx;
    size_t len = 0;
    if (refuse(r))
        return -1;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    uint8_t *data = malloc(len + 1);
    MUST(data);
    len = 0;
    for (int i = 0; i < count; i++) {
        memcpy(data + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    const char *name = of_fd(r, fd)->name;
    (void)announce(r, &(struct recording_call){RECORDING_WRITE, .name = name, .to = "",
                                               .zeros = all_zeros(data, len)});
    struct recording_inode *node = of_fd(r, fd);
    *add_change(node) = (struct change){.offset = (uint64_t)offset, .len = len, .data = data};
    blob_write(&node->now, data, len, (uint64_t)offset);
    return (ssize_t)len;
}

static int recording_ftruncate(void *ctx, int fd, off_t len)
{
    struct recording *r = ctx;
    if (refuse(r))
        return -1;
    const char *name = of_fd(r, fd)->name;
    (void)announce(r, &(struct recording_call){RECORDING_TRUNCATE, .name = name, .to = ""});
    struct recording_inode *node = of_fd(r, fd);
    *add_change(node) = (struct change){.truncates = true, .offset = (uint64_t)len};
    blob_resize(&node->now, (uint64_t)len);
    return 0;
}

static bool wrote_at_end(const struct recording_inode *node)
{
    for (size_t i = 0; i < node->change_count; i++) {
        const struct change *c = &node->changes[i];
        if (!c->truncates && c->offset + c->len + RECORDING_SECTOR > node->now.size)
            return true;
    }
    return false;
}

/* Makes the changes of names durable that were made before `seq`. */
static void commit_names(struct recording_inode *dir, uint64_t seq)
{
    size_t done = 0;
    while (done < dir->renaming_count && dir->renamings[done].seq < seq)
        apply_renaming(&dir->entries_synced, &dir->renamings[done++]);
    if (done == 0)
        return;
    dir->renaming_count -= done;
    memmove(dir->renamings, dir->renamings + done, dir->renaming_count * sizeof(*dir->renamings));
}

static void commit_all_names(struct recording *r, uint64_t seq)
{
    for (size_t i = 0; i < r->inode_count; i++)
        commit_names(&r->inodes[i], seq);
}

/* Brings the sectors that were changed to the disk; after a failure every other one. */
static void sync_octets(struct recording_inode *node, bool fails)
{
    struct blob *synced = &node->synced;
    for (size_t i = 0; i < node->change_count; i++) {
        const struct change *change = &node->changes[i];
        if (change->truncates) {
            blob_resize(synced, change->offset);
            continue;
        }
        uint64_t end = change->offset + change->len;
        for (uint64_t at = round_down(change->offset); at < end; at += RECORDING_SECTOR)
            if (!fails || at / RECORDING_SECTOR % 2 == 0)
                copy_sector(synced, &node->now, at);
    }
    if (!fails)
        blob_resize(synced, node->now.size);
    free_changes(node);
}

static int recording_sync(void *ctx, int fd)
{
    struct recording *r = ctx;
    if (refuse(r))
        return -1;
    const struct recording_inode *before = of_fd(r, fd);
    struct recording_call call = {RECORDING_SYNC, .name = before->name, .to = "",
                                  .made = r->fds[fd - FD_BASE].made,
                                  .at_end = wrote_at_end(before)};
    enum recording_answer answer = announce(r, &call);
    if (answer == RECORDING_LIE)
        return 0;
    struct recording_inode *node = of_fd(r, fd);
    sync_octets(node, answer == RECORDING_FAIL);
    if (r->model == RECORDING_JOURNAL && answer == RECORDING_GO)
        commit_all_names(r, node->named);
    return answer_sync(answer);
}

static int recording_write_back(void *ctx, int fd, off_t offset, off_t len)
{
    struct recording *r = ctx;
    (void)fd;
    (void)offset;
    (void)len;
    return refuse(r) ? -1 : 0;
}

static int recording_sync_directory(void *ctx, const char *path)
{
    struct recording *r = ctx;
    uint32_t inode;
    if (refuse(r) || !look_up(r, path, &inode))
        return -1;
    const struct recording_call call = {RECORDING_SYNC_DIRECTORY, .name = r->inodes[inode].name,
                                        .to = ""};
    enum recording_answer answer = announce(r, &call);
    if (answer != RECORDING_GO)
        return answer_sync(answer);
    struct recording_inode *dir = &r->inodes[inode];
    if (r->model == RECORDING_POSIX)
        commit_names(dir, UINT64_MAX);
    else if (dir->renaming_count > 0)
        commit_all_names(r, dir->renamings[dir->renaming_count - 1].seq + 1);
    return 0;
}

static int recording_fstat(void *ctx, int fd, struct fileops_stat *out)
{
    struct recording *r = ctx;
    if (refuse(r))
        return -1;
    const struct recording_inode *node = of_fd(r, fd);
    *out = (struct fileops_stat){.size = node->now.size, .is_directory = node->is_directory};
    for (size_t i = 0; i < r->inode_count; i++)
        for (size_t k = 0; k < r->inodes[i].entries_now.count; k++)
            out->links += &r->inodes[r->inodes[i].entries_now.items[k].inode] == node;
    return 0;
}

static int recording_rename(void *ctx, const char *from, const char *to)
{
    struct recording *r = ctx;
    uint32_t from_directory;
    uint32_t to_directory;
    uint32_t inode;
    char from_name[RECORDING_NAME_MAX];
    char to_name[RECORDING_NAME_MAX];
    if (refuse(r) || !look_up(r, from, &inode) || !walk(r, from, &from_directory, from_name) ||
        !walk(r, to, &to_directory, to_name))
        return -1;
    const struct entry *e = find_entry(&r->inodes[to_directory].entries_now, to_name);
    if (e && e->inode == inode) /* two names of one file: as POSIX says, nothing happens */
        return 0;
    (void)announce(r, &(struct recording_call){RECORDING_RENAME, .name = from_name, .to = to_name});
    if (from_directory == to_directory) {
        change_name(r, from_directory, from_name, to_name, inode);
    } else {
        change_name(r, to_directory, "", to_name, inode);
        change_name(r, from_directory, from_name, "", inode);
    }
    return 0;
}

static int recording_unlink(void *ctx, const char *path)
{
    struct recording *r = ctx;
    uint32_t directory;
    uint32_t inode;
    char name[RECORDING_NAME_MAX];
    if (refuse(r) || !look_up(r, path, &inode) || !walk(r, path, &directory, name))
        return -1;
    (void)announce(r, &(struct recording_call){RECORDING_UNLINK, .name = name, .to = ""});
    change_name(r, directory, name, "", inode);
    return 0;
}

static int recording_mkdir(void *ctx, const char *path, mode_t mode)
{
    struct recording *r = ctx;
    uint32_t directory;
    char name[RECORDING_NAME_MAX];
    (void)mode;
    if (refuse(r) || !walk(r, path, &directory, name))
        return -1;
    if (!name[0] || find_entry(&r->inodes[directory].entries_now, name)) {
        errno = EEXIST;
        return -1;
    }
    (void)announce(r, &(struct recording_call){RECORDING_MKDIR, .name = name, .to = ""});
    change_name(r, directory, "", name, new_inode(r, name, true));
    return 0;
}

static int recording_lock(void *ctx, int fd)
{
    struct recording *r = ctx;
    (void)fd;
    return refuse(r) ? -1 : 0;
}

static int recording_space(void *ctx, const char *path, struct fileops_space *out)
{
    struct recording *r = ctx;
    (void)path;
    if (refuse(r))
        return -1;
    *out = (struct fileops_space){.free_bytes = 1ull << 40, .total_bytes = 1ull << 41};
    return 0;
}

static int recording_list(void *ctx, const char *path, void (*each)(void *arg, const char *name),
                          void *arg)
{
    struct recording *r = ctx;
    uint32_t inode;
    if (refuse(r) || !look_up(r, path, &inode))
        return -1;
    const struct entries *e = &r->inodes[inode].entries_now;
    for (size_t i = 0; i < e->count; i++)
        each(arg, e->items[i].name);
    return 0;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void set_up(struct recording *r, enum recording_model model)
{
    memset(r, 0, sizeof(*r));
    r->model = model;
    r->ops = (struct fileops){
        .ctx = r,
        .open = recording_open,
        .close = recording_close,
        .pread = recording_pread,
        .pwritev = recording_pwritev,
        .fdatasync = recording_sync,
        .fsync = recording_sync,
        .write_back = recording_write_back,
        .sync_directory = recording_sync_directory,
        .ftruncate = recording_ftruncate,
        .fstat = recording_fstat,
        .rename = recording_rename,
        .unlink = recording_unlink,
        .mkdir = recording_mkdir,
        .lock = recording_lock,
        .space = recording_space,
        .list = recording_list,
    };
}

void recording_init(struct recording *r, enum recording_model model)
{
    set_up(r, model);
    (void)new_inode(r, "", true);
}

void recording_done(struct recording *r)
{
    for (size_t i = 0; i < r->inode_count; i++) {
        struct recording_inode *node = &r->inodes[i];
        blob_done(&node->now);
        blob_done(&node->synced);
        free_changes(node);
        free(node->changes);
        free(node->entries_now.items);
        free(node->entries_synced.items);
        free(node->renamings);
    }
    free(r->inodes);
    memset(r, 0, sizeof(*r));
}

/* ---- images ---------------------------------------------------------------------------------- */

bool recording_unsynced_names(const struct recording *r)
{
    for (size_t i = 0; i < r->inode_count; i++)
        if (r->inodes[i].renaming_count > 0)
            return true;
    return false;
}

bool recording_unsynced_octets(const struct recording *r)
{
    for (size_t i = 0; i < r->inode_count; i++)
        if (r->inodes[i].change_count > 0)
            return true;
    return false;
}

struct chooser {
    enum recording_image image;
    enum recording_model model;
    uint64_t x;
    unsigned names;  /* in 4: how likely a change of names has happened */
    unsigned octets; /* in 4: how likely a sector is newer than synced */
    bool junk;
    uint64_t cut; /* RECORDING_JOURNAL: the first change of names that has not happened */
};

static uint64_t draw(struct chooser *c, uint64_t below)
{
    c->x ^= c->x << 13;
    c->x ^= c->x >> 7;
    c->x ^= c->x << 17;
    return below ? (c->x >> 11) % below : 0;
}

static struct chooser chooser_new(const struct recording *r, enum recording_image image,
                                  uint64_t seed)
{
    struct chooser c = {.image = image, .model = r->model};
    c.x = (seed + 1) * 0x9e3779b97f4a7c15u | 1;
    for (int i = 0; i < 8; i++)
        (void)draw(&c, 1);
    c.names = (unsigned)draw(&c, 5);
    c.octets = (unsigned)draw(&c, 5);
    c.junk = draw(&c, 2) == 0;
    c.cut = UINT64_MAX;
    for (size_t i = 0; i < r->inode_count; i++)
        if (r->inodes[i].renaming_count > 0 && r->inodes[i].renamings[0].seq < c.cut)
            c.cut = r->inodes[i].renamings[0].seq;
    if (c.cut != UINT64_MAX)
        c.cut += draw(&c, r->next_seq - c.cut + 1);
    return c;
}

/* A rename that may have been half done. */
static void choose_renaming(struct chooser *c, struct entries *e, const struct renaming *n)
{
    uint64_t how = draw(c, 8);
    if (draw(c, 4) >= c->names)
        return;
    if (n->from[0] && n->to[0] && how < 2) {
        struct renaming half = *n;
        if (how == 0)
            half.from[0] = '\0';
        else
            half.to[0] = '\0';
        apply_renaming(e, &half);
    } else {
        apply_renaming(e, n);
    }
}

static void choose_names(struct chooser *c, const struct recording_inode *from, struct entries *out)
{
    copy_entries(out, &from->entries_synced);
    for (size_t i = 0; i < from->renaming_count; i++) {
        const struct renaming *n = &from->renamings[i];
        if (c->image == IMAGE_ALL || c->image == IMAGE_NAMES)
            apply_renaming(out, n);
        else if (c->image == IMAGE_CHOICE && c->model == RECORDING_JOURNAL && n->seq < c->cut)
            apply_renaming(out, n);
        else if (c->image == IMAGE_CHOICE && c->model == RECORDING_POSIX)
            choose_renaming(c, out, n);
    }
}

static void spread_junk(struct chooser *c, struct blob *b, uint64_t from, uint64_t to)
{
    uint64_t sector[RECORDING_SECTOR / sizeof(uint64_t)];
    for (uint64_t at = from; at < to; at += RECORDING_SECTOR) {
        for (size_t i = 0; i < RECORDING_SECTOR / sizeof(uint64_t); i++)
            sector[i] = draw(c, UINT64_MAX);
        blob_write(b, (const uint8_t *)sector, sizeof(sector), at);
    }
}

/* The size is one that the file had since, or lies between two of them. */
static uint64_t choose_size(struct chooser *c, const struct recording_inode *from)
{
    uint64_t which = draw(c, from->change_count + 2);
    uint64_t size = from->synced.size;
    uint64_t chosen = size;
    uint64_t low = size;
    uint64_t high = size;
    for (size_t i = 0; i < from->change_count; i++) {
        const struct change *change = &from->changes[i];
        uint64_t end = change->offset + change->len;
        size = change->truncates || end > size ? end : size;
        chosen = i < which ? size : chosen;
        low = size < low ? size : low;
        high = size > high ? size : high;
    }
    return which <= from->change_count ? chosen : low + round_down(draw(c, high - low + 1));
}

static void choose_posix(struct chooser *c, const struct recording_inode *from, struct blob *out)
{
    struct blob at = {0};
    uint64_t size = choose_size(c, from);
    blob_copy(&at, &from->synced);
    if (c->junk && size > out->size)
        spread_junk(c, out, round_down(out->size + RECORDING_SECTOR - 1), size);
    for (size_t i = 0; i < from->change_count; i++) {
        const struct change *change = &from->changes[i];
        apply_change(&at, change);
        uint64_t end = change->truncates ? 0 : change->offset + change->len;
        for (uint64_t s = round_down(change->offset); s < end; s += RECORDING_SECTOR)
            if (draw(c, 4) < c->octets)
                copy_sector(out, &at, s);
    }
    blob_resize(out, size);
    blob_done(&at);
}

static void choose_journal(struct chooser *c, const struct recording_inode *from, struct blob *out)
{
    struct blob at = {0};
    size_t cut = (size_t)draw(c, from->change_count + 1); /* how far the file has grown */
    uint64_t old = from->synced.size;
    uint64_t size = old;
    blob_copy(&at, &from->synced);
    for (size_t i = 0; i < from->change_count; i++) {
        const struct change *change = &from->changes[i];
        apply_change(&at, change);
        if (change->truncates && i < cut) {
            blob_resize(out, change->offset);
            old = change->offset < old ? change->offset : old;
        }
        size = i < cut ? at.size : size;
        uint64_t end = change->truncates ? 0 : change->offset + change->len;
        for (uint64_t s = round_down(change->offset); s < end; s += RECORDING_SECTOR)
            if (s + RECORDING_SECTOR > old ? i < cut : draw(c, 4) < c->octets)
                copy_sector(out, &at, s);
    }
    blob_resize(out, size);
    blob_done(&at);
}

static void choose_octets(struct chooser *c, const struct recording_inode *from, struct blob *out)
{
    bool all = c->image == IMAGE_ALL || c->image == IMAGE_OCTETS;
    blob_copy(out, all ? &from->now : &from->synced);
    if (c->image != IMAGE_CHOICE || from->change_count == 0)
        return;
    if (c->model == RECORDING_POSIX)
        choose_posix(c, from, out);
    else
        choose_journal(c, from, out);
}

/* An inode keeps its number. */
static void make_inode(struct chooser *c, const struct recording *r, uint32_t number,
                       struct recording *out)
{
    const struct recording_inode *from = &r->inodes[number];
    struct recording_inode *to = &out->inodes[number];
    if (!from->is_directory) {
        choose_octets(c, from, &to->now);
        blob_copy(&to->synced, &to->now);
        return;
    }
    choose_names(c, from, &to->entries_now);
    copy_entries(&to->entries_synced, &to->entries_now);
    for (size_t i = 0; i < to->entries_now.count; i++) {
        struct recording_inode *child = &out->inodes[to->entries_now.items[i].inode];
        bool made = child->name[0] != '\0'; /* by another name of it */
        snprintf(child->name, sizeof(child->name), "%s", to->entries_now.items[i].name);
        if (!made)
            make_inode(c, r, to->entries_now.items[i].inode, out);
    }
}

void recording_image(const struct recording *r, enum recording_image image, uint64_t seed,
                     struct recording *out)
{
    struct chooser c = chooser_new(r, image, seed);
    set_up(out, r->model);
    for (size_t i = 0; i < r->inode_count; i++)
        (void)new_inode(out, "", r->inodes[i].is_directory);
    make_inode(&c, r, ROOT, out);
}
