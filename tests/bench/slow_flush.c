/*
 * Preloaded into a server: every flush takes OUTTRAY_BENCH_FLUSH_US microseconds longer, as on a
 * slower disk. The same for all servers that are compared.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void wait_a_little(void)
{
    static long microseconds = -1;
    int saved = errno;
    if (microseconds < 0) {
        const char *text = getenv("OUTTRAY_BENCH_FLUSH_US");
        microseconds = text != NULL ? atol(text) : 2000;
    }
    struct timespec wait = {.tv_sec = microseconds / 1000000,
                            .tv_nsec = microseconds % 1000000 * 1000};
    while (nanosleep(&wait, &wait) != 0 && errno == EINTR)
        ;
    errno = saved;
}

static int then(const char *name, int fd)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    wait_a_little();
    return next(fd);
}

int fsync(int fd)
{
    return then("fsync", fd);
}

int fdatasync(int fd)
{
    return then("fdatasync", fd);
}
