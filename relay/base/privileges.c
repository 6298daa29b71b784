#include "relay/base/privileges.h"

#include <errno.h>
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

void privileges_guard_memory(void)
{
    const struct rlimit none = {0, 0};
    /* Both are precautions: without them the program works as well. */
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static bool is_needed(const char *user)
{
    return geteuid() == 0 && user[0] != '\0';
}

static const struct passwd *find_user(const char *user, struct error *err)
{
    const struct passwd *pw = getpwnam(user);
    if (pw == NULL)
        error_set(err, ERROR_INVALID,
                  "[relay] user: there is no user \"%s\"; make it with \"useradd --system "
                  "--no-create-home %s\", or name another one",
                  user, user);
    return pw;
}

bool privileges_own_directory(const char *user, const char *path, struct error *err)
{
    if (!is_needed(user))
        return true;
    const struct passwd *pw = find_user(user, err);
    if (pw == NULL)
        return false;
    if (mkdir(path, 0750) != 0)
        return errno == EEXIST || errno == EROFS ||
               error_errno(err, errno, "make directory %s", path);
    return chown(path, pw->pw_uid, pw->pw_gid) == 0 ||
           error_errno(err, errno, "give directory %s to user %s", path, user);
}

bool privileges_own_parent(const char *user, const char *file, struct error *err)
{
    char copy[PATH_MAX];
    if (snprintf(copy, sizeof copy, "%s", file) >= (int)sizeof copy)
        return error_set(err, ERROR_LIMIT, "%s: path too long", file);
    return privileges_own_directory(user, dirname(copy), err);
}

bool privileges_drop(const char *user, struct error *err)
{
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (!is_needed(user))
        return true;
    const struct passwd *pw = find_user(user, err);
    if (pw == NULL)
        return false;
    if (initgroups(user, pw->pw_gid) != 0 || setgid(pw->pw_gid) != 0 || setuid(pw->pw_uid) != 0)
        return error_errno(err, errno, "become user %s", user);
    privileges_guard_memory(); /* a change of user resets the dumpable mark */
    if (pw->pw_uid != 0 && setuid(0) == 0)
        return error_set(err, ERROR_IO, "become user %s: root could be regained", user);
    return true;
}
