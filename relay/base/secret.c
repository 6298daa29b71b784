#include "relay/base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define GROUPS_MAX      256
#define GROUP_NAME_MAX  64
#define VARIABLE_PREFIX "OUTTRAY_PASSWORD_"
#define VARIABLE_MAX    128

/* Lives at the start of pages of its own, so that they can be locked and wiped whole. */
struct secret {
    size_t pages; /* octets mapped */
    size_t len;
    char text[];
};

/* Of the process that reads, which is the one that must be able to; a number when it has no name.
 */
static void own_group(char out[GROUP_NAME_MAX])
{
    const struct group *group = getgrgid(getegid());

    if (group != NULL)
        (void)snprintf(out, GROUP_NAME_MAX, "%s", group->gr_name);
    else
        (void)snprintf(out, GROUP_NAME_MAX, "%lu", (unsigned long)getegid());
}

static struct secret *secret_new(size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = (sizeof(struct secret) + len + 1 + page - 1) / page * page;
    struct secret *s = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (s == MAP_FAILED)
        return NULL;
    /* Both are best effort: an unprivileged process may be allowed to lock very little. */
    (void)mlock(s, size);
#ifdef MADV_DONTDUMP
    (void)madvise(s, size, MADV_DONTDUMP);
#endif
    s->pages = size;
    s->len = len;
    return s;
}

struct secret *secret_from_text(const char *text, size_t len, struct error *err)
{
    static const char bom[] = "\xef\xbb\xbf";
    struct secret *s;

    if (len >= sizeof bom - 1 && memcmp(text, bom, sizeof bom - 1) == 0) {
        text += sizeof bom - 1;
        len -= sizeof bom - 1;
    }
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    if (len == 0)
        (void)error_set(err, ERROR_INVALID, "it is empty; write the secret into it");
    else if (len > SECRET_MAX)
        (void)error_set(err, ERROR_LIMIT, "it is longer than %d octets", SECRET_MAX);
    else if (memchr(text, '\0', len) != NULL)
        (void)error_set(err, ERROR_INVALID, "it holds a NUL octet; save it as plain text");
    else if ((s = secret_new(len)) == NULL)
        (void)error_set(err, ERROR_NO_ROOM, "no memory");
    else {
        memcpy(s->text, text, len);
        return s;
    }
    return NULL;
}

static bool is_own_group(gid_t gid)
{
    gid_t groups[GROUPS_MAX];
    int count = getgroups(GROUPS_MAX, groups);

    if (gid == getegid())
        return true;
    for (int i = 0; i < count; i++)
        if (groups[i] == gid)
            return true;
    return false;
}

/* Root cannot tell which group the daemon will be in, and nobody but root is in root's. */
static bool is_group_trusted(gid_t gid)
{
    return geteuid() == 0 || gid == 0 || is_own_group(gid);
}

/* Judges what was opened, so that a symbolic link (as Kubernetes makes) is fine when its target is.
 */
bool secret_check_file(int fd, const char *file, struct error *err)
{
    char group[GROUP_NAME_MAX];
    struct stat st;

    own_group(group);
    if (fstat(fd, &st) < 0)
        return error_errno(err, errno, "%s", file);
    if (!S_ISREG(st.st_mode))
        return error_set(err, ERROR_INVALID, "%s: it is not a regular file; name the file itself",
                         file);
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return error_set(err, ERROR_INVALID,
                         "%s: it belongs to user %lu, not to root or to the user we run as; run: "
                         "chown root:%s %s",
                         file, (unsigned long)st.st_uid, group, file);
    if ((st.st_mode & S_IRWXO) != 0)
        return error_set(err, ERROR_INVALID,
                         "%s: everybody on this machine can use it (mode %04o); run: chmod o= %s",
                         file, (unsigned)(st.st_mode & 07777), file);
    if ((st.st_mode & S_IRWXG) != 0 && !is_group_trusted(st.st_gid))
        return error_set(err, ERROR_INVALID,
                         "%s: its group %lu, which is not ours, can use it (mode %04o); run: "
                         "chgrp %s %s",
                         file, (unsigned long)st.st_gid, (unsigned)(st.st_mode & 07777), group,
                         file);
    return true;
}

static bool read_fd(int fd, char *buf, size_t size, size_t *out_len)
{
    size_t len = 0;

    while (len < size) {
        ssize_t n = read(fd, buf + len, size - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    *out_len = len;
    return true;
}

static struct secret *read_file(int fd, const char *file, struct error *err)
{
    char buf[SECRET_MAX + 16]; /* room for line ends; one octet more tells that it is too long */
    struct secret *s = NULL;
    size_t len = 0;

    if (!secret_check_file(fd, file, err))
        return NULL;
    if (!read_fd(fd, buf, sizeof buf, &len))
        (void)error_errno(err, errno, "%s", file);
    else if ((s = secret_from_text(buf, len, err)) == NULL)
        (void)error_wrap(err, "%s", file);
    explicit_bzero(buf, sizeof buf);
    return s;
}

struct secret *secret_from_file(const char *file, struct error *err)
{
    /* Not blocking: a pipe put in its place must not stop the daemon. */
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int failure = errno;
    char group[GROUP_NAME_MAX];
    struct secret *s;

    own_group(group);
    if (fd < 0 && failure == ENOENT) {
        (void)error_set(err, ERROR_MISSING,
                        "%s: there is no such file; make it with: install -m 640 -g %s "
                        "/dev/stdin %s",
                        file, group, file);
        return NULL;
    }
    if (fd < 0 && failure == EACCES) {
        (void)error_set(err, ERROR_IO,
                        "%s: we may not read it; run: chown root:%s %s && chmod 640 %s", file,
                        group, file, file);
        return NULL;
    }
    if (fd < 0) {
        (void)error_errno(err, failure, "%s", file);
        return NULL;
    }
    s = read_file(fd, file, err);
    (void)close(fd);
    return s;
}

/* Takes the secret. A second line would be sent as part of the password, and be refused by the
 * service with words that send people looking elsewhere. */
static struct secret *one_line(struct secret *s, const char *where, struct error *err)
{
    if (strpbrk(s->text, "\r\n") == NULL)
        return s;
    (void)error_set(err, ERROR_INVALID,
                    "%s: it holds more than one line; leave only the line with the secret", where);
    secret_free(s);
    return NULL;
}

struct secret *secret_line_from_file(const char *file, struct error *err)
{
    struct secret *s = secret_from_file(file, err);

    return s != NULL ? one_line(s, file, err) : NULL;
}

/* False when there is no such credential; *out_secret may be NULL, with err set, when there is. */
static bool from_credential(const char *mailbox, struct secret **out_secret, struct error *err)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    char path[PATH_MAX];
    int n;

    if (directory == NULL || *directory == '\0')
        return false;
    n = snprintf(path, sizeof path, "%s/%s.password", directory, mailbox);
    if (n < 0 || (size_t)n >= sizeof path || access(path, F_OK) < 0)
        return false;
    *out_secret = secret_line_from_file(path, err);
    return true;
}

static void variable_name(const char *mailbox, char out[VARIABLE_MAX])
{
    size_t len;

    (void)snprintf(out, VARIABLE_MAX, VARIABLE_PREFIX "%s", mailbox);
    len = strlen(out);
    for (size_t i = sizeof VARIABLE_PREFIX - 1; i < len; i++) {
        char c = out[i];

        if (c >= 'a' && c <= 'z')
            out[i] = (char)(c - 'a' + 'A');
        else if (!(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9'))
            out[i] = '_';
    }
}

static struct secret *from_environment(const char *mailbox, struct error *err)
{
    char name[VARIABLE_MAX];
    struct secret *s;
    const char *value;

    variable_name(mailbox, name);
    value = getenv(name);
    if (value == NULL) {
        (void)error_set(
            err, ERROR_MISSING,
            "there is none: [mailbox %s] names no password_file, there is no systemd "
            "credential %s.password and no %s in the environment; write the password to a "
            "file and name it there as password_file",
            mailbox, mailbox, name);
        return NULL;
    }
    s = secret_from_text(value, strlen(value), err);
    if (s == NULL)
        (void)error_wrap(err, "%s", name);
    return s != NULL ? one_line(s, name, err) : NULL;
}

struct secret *secret_of_mailbox(const char *mailbox, const char *file, struct error *err)
{
    struct secret *s = NULL;

    if (*file != '\0')
        s = secret_line_from_file(file, err);
    else if (!from_credential(mailbox, &s, err))
        s = from_environment(mailbox, err);
    if (s == NULL)
        (void)error_wrap(err, "password of mailbox %s", mailbox);
    return s;
}

const char *secret_text(const struct secret *s)
{
    return s->text;
}

size_t secret_length(const struct secret *s)
{
    return s->len;
}

bool secret_equal(const struct secret *a, const struct secret *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    return a->len == b->len && memcmp(a->text, b->text, a->len) == 0;
}

void secret_free(struct secret *s)
{
    size_t pages;

    if (s == NULL)
        return;
    pages = s->pages;
    explicit_bzero(s, pages);
    (void)munmap(s, pages);
}
