/*
 * A link of adjustable delay and bandwidth: link DELAY_MS MBIT COMMAND [ARGUMENT...]
 *
 * Runs the command in a network namespace of its own, reachable only through this link: 10.77.0.2,
 * as against 10.77.0.1 on this side. Packets pass through two tun devices, so that the kernel's own
 * TCP with its windows, slow start and delayed ACKs is what is measured. Each way has a queue of
 * QUEUE_MAX packets in front of the bottleneck (MBIT, 0 for none), then the delay. Needs root, or a
 * user namespace in which we are. Ends when the command does.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PACKET_MAX 2048
#define QUEUE_MAX  1000  /* as netem's; what does not fit is dropped */
#define FLYING_MAX 16384 /* queued or on the wire */
/* The usual ones, where the host has another: pacing would add its own delay. A namespace may be
 * refused cubic. */
#define UNPACED                                                                                    \
    "sysctl -q -w net.ipv4.tcp_congestion_control=cubic 2>/dev/null || "                           \
    "sysctl -q -w net.ipv4.tcp_congestion_control=reno"

struct packet {
    uint64_t due_ns;
    size_t len;
    uint8_t data[PACKET_MAX];
};

struct way {
    int from, to;
    uint64_t free_ns; /* when the bottleneck is free */
    size_t first, count;
    struct packet *ring;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int open_tun(const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0)
        die("/dev/net/tun");
    return fd;
}

static void run(const char *command)
{
    if (system(command) != 0) {
        fprintf(stderr, "link: failed: %s\n", command);
        exit(1);
    }
}

static void take_in(struct way *w, uint64_t delay_ns, double mbit)
{
    for (;;) {
        uint8_t dropped[PACKET_MAX];
        uint64_t now = now_ns();
        uint64_t start = w->free_ns > now ? w->free_ns : now;
        double packet_ns = mbit > 0 ? 1500 * 8e3 / mbit : 0;
        int full = w->count == FLYING_MAX || (double)(start - now) > QUEUE_MAX * packet_ns;
        struct packet *p = &w->ring[(w->first + w->count) % FLYING_MAX];
        if (mbit <= 0)
            full = w->count == FLYING_MAX;
        ssize_t len = read(w->from, full ? dropped : p->data, PACKET_MAX);
        if (len <= 0)
            return;
        if (full)
            continue;
        if (mbit > 0)
            w->free_ns = start + (uint64_t)((double)len * 8e3 / mbit);
        p->due_ns = (mbit > 0 ? w->free_ns : now) + delay_ns;
        p->len = (size_t)len;
        w->count++;
    }
}

static uint64_t put_out(struct way *w)
{
    for (; w->count > 0; w->count--, w->first = (w->first + 1) % FLYING_MAX) {
        struct packet *p = &w->ring[w->first];
        if (p->due_ns > now_ns())
            return p->due_ns;
        if (write(w->to, p->data, p->len) < 0 && errno != EAGAIN && errno != EINVAL && errno != EIO)
            die("write");
    }
    return UINT64_MAX;
}

static void pass(struct way *ways, uint64_t delay_ns, double mbit, pid_t child)
{
    struct pollfd fds[2] = {{.fd = ways[0].from, .events = POLLIN},
                            {.fd = ways[1].from, .events = POLLIN}};
    while (waitpid(child, NULL, WNOHANG) == 0) {
        uint64_t next = now_ns() + 100000000;
        for (int i = 0; i < 2; i++) {
            take_in(&ways[i], delay_ns, mbit);
            uint64_t due = put_out(&ways[i]);
            next = due < next ? due : next;
        }
        uint64_t now = now_ns();
        uint64_t wait = next > now ? next - now : 0;
        struct timespec timeout = {.tv_sec = (time_t)(wait / 1000000000),
                                   .tv_nsec = (long)(wait % 1000000000)};
        (void)ppoll(fds, 2, &timeout, NULL);
    }
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: link DELAY_MS MBIT COMMAND [ARGUMENT...]\n");
        return 64;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int near = open_tun("near");
    run("ip address add 10.77.0.1/30 dev near && ip link set near txqueuelen 5000 up");
    run(UNPACED);
    if (unshare(CLONE_NEWNET) != 0)
        die("unshare");
    int far = open_tun("far");
    run("ip link set lo up && ip address add 10.77.0.2/30 dev far && ip link set far txqueuelen 5000 up");
    run(UNPACED);
    prctl(PR_SET_TIMERSLACK, 1000);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        execvp(argv[3], argv + 3);
        die(argv[3]);
    }
    struct way ways[2] = {{.from = near, .to = far}, {.from = far, .to = near}};
    for (int i = 0; i < 2; i++)
        if ((ways[i].ring = malloc(FLYING_MAX * sizeof(struct packet))) == NULL)
            die("malloc");
    pass(ways, (uint64_t)(atof(argv[1]) * 1e6), atof(argv[2]), child);
    return 0;
}
