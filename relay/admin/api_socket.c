#include "relay/admin/api_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIRECTORY_MODE 0755

static bool make_directory(const char *path, struct error *err)
{
    char dir[sizeof(((struct api_socket *)0)->path)];
    char *slash;

    memcpy(dir, path, strlen(path) + 1);
    slash = strrchr(dir, '/');
    if (slash == NULL || slash == dir)
        return true;
    *slash = '\0';
    if (mkdir(dir, DIRECTORY_MODE) == 0 || errno == EEXIST)
        return true;
    return error_errno(err, errno,
                       "control socket %s: make directory %s (make it, owned by the user outtrayd "
                       "runs as, or set another \"socket\" in [api])",
                       path, dir);
}

static int new_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* A full backlog means that somebody is there, too. */
static bool somebody_answers(const struct sockaddr_un *address)
{
    int fd = new_socket();
    bool answers;

    if (fd < 0)
        return true;
    answers = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
              (errno != ECONNREFUSED && errno != ENOENT);
    close(fd);
    return answers;
}

static bool remove_stale(const struct sockaddr_un *address, struct error *err)
{
    const char *path = address->sun_path;
    struct stat st;

    if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
        return error_set(err, ERROR_INVALID,
                         "control socket %s: the file exists and is no socket; remove it or set "
                         "another \"socket\" in [api]",
                         path);
    if (somebody_answers(address))
        return error_set(err, ERROR_BUSY,
                         "control socket %s: another outtrayd answers on it; stop that one first",
                         path);
    if (unlink(path) != 0 && errno != ENOENT)
        return error_errno(err, errno, "control socket %s: remove the stale file", path);
    return true;
}

static bool bind_socket(int fd, const struct sockaddr_un *address, struct error *err)
{
    const struct sockaddr *sa = (const struct sockaddr *)address;

    if (bind(fd, sa, sizeof(*address)) == 0)
        return true;
    if (errno != EADDRINUSE)
        return error_errno(err, errno, "control socket %s: bind", address->sun_path);
    if (!remove_stale(address, err))
        return false;
    if (bind(fd, sa, sizeof(*address)) != 0)
        return error_errno(err, errno, "control socket %s: bind", address->sun_path);
    return true;
}

/* Nobody can connect before listen(), so the mode is right in time without touching the umask,
 * which other threads share. */
static bool open_for_group(int fd, struct api_socket *s, struct error *err)
{
    struct stat st;

    if (chmod(s->path, API_SOCKET_MODE) != 0 || lstat(s->path, &st) != 0 ||
        listen(fd, API_SOCKET_BACKLOG) != 0) {
        int errnum = errno;

        unlink(s->path);
        return error_errno(err, errnum, "control socket %s: listen", s->path);
    }
    s->device = st.st_dev;
    s->inode = st.st_ino;
    return true;
}

bool api_socket_open(const char *path, struct api_socket *out_socket, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct api_socket s = {.fd = -1};

    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(err, ERROR_INVALID,
                         "control socket %s: the path is longer than the %zu octets a socket can "
                         "have; set a shorter \"socket\" in [api]",
                         path, sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    memcpy(s.path, path, strlen(path) + 1);
    if (!make_directory(path, err))
        return false;
    s.fd = new_socket();
    if (s.fd < 0)
        return error_errno(err, errno, "control socket %s: socket", path);
    if (!bind_socket(s.fd, &address, err) || !open_for_group(s.fd, &s, err)) {
        close(s.fd);
        return false;
    }
    *out_socket = s;
    return true;
}

void api_socket_remove(const struct api_socket *s)
{
    struct stat st;

    if (lstat(s->path, &st) == 0 && st.st_dev == s->device && st.st_ino == s->inode)
        unlink(s->path);
}
