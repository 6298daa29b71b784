/*
 * Sends mail over many SMTP connections at once and measures how fast it is taken.
 *
 * One thread, one epoll, no allocation and no formatting while mail flows, and one send() for all
 * of a small mail, so that the server is the limit. No command is sent before the reply to the one
 * before it has come, as devices do. Every reply is parsed and must have the code that the command
 * asks for; a mail counts once its final dot has been answered 250. Prints one line of JSON.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1000
#define REPLY_MAX       4096
#define EVENTS          64
#define SAMPLES_MAX     (4u << 20)
#define PATIENCE_MS     30000
#define LINE            78 /* of the mail's text, with its CR LF */
#define HEAD_MAX        256

enum step { STEP_BANNER, STEP_EHLO, STEP_MAIL, STEP_RCPT, STEP_DATA, STEP_DOT, STEP_QUIT, STEPS };

static const struct {
    const char *name;
    int code; /* of the reply that it waits for */
} steps[STEPS] = {
    [STEP_BANNER] = {"the greeting", 220}, [STEP_EHLO] = {"EHLO", 250},
    [STEP_MAIL] = {"MAIL", 250},           [STEP_RCPT] = {"RCPT", 250},
    [STEP_DATA] = {"DATA", 354},           [STEP_DOT] = {"the final dot", 250},
    [STEP_QUIT] = {"QUIT", 221},
};

struct load {
    struct sockaddr_in to;
    const char *sender;
    const char *recipient;
    unsigned connections;
    uint64_t messages;    /* to send in all */
    uint64_t per_session; /* 0: as many as there are */
    uint64_t run_us;      /* 0: until all are sent */
    size_t size;          /* of a mail, about */
    int epoll;
    uint64_t began_us, ended_us;
    uint64_t begun, taken; /* mails */
    uint32_t *samples;     /* microseconds from the last octet to the reply */
    char mail_command[512], rcpt_command[512];
    char *body;
    size_t body_len;
    unsigned open;
};

struct connection {
    int fd;
    enum step step;
    bool writing; /* the mail has not left as a whole */
    uint64_t sent_in_session;
    size_t head_len, out; /* octets of head and body that left */
    uint64_t dot_us;
    size_t have;
    char reply[REPLY_MAX];
    char head[HEAD_MAX];
};

static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("smtp_load: ", stderr);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool is_over(const struct load *l)
{
    return l->begun >= l->messages || (l->run_us > 0 && now_us() - l->began_us >= l->run_us);
}

/* ---- sending --------------------------------------------------------------------------------- */

static void say(struct connection *c, enum step step, const char *text)
{
    size_t len = strlen(text);
    c->step = step;
    if (send(c->fd, text, len, MSG_NOSIGNAL) != (ssize_t)len)
        die("send %s: %s", steps[step].name, strerror(errno));
}

static void watch(struct load *l, struct connection *c, int how, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (epoll_ctl(l->epoll, how, c->fd, &e) != 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void set_writing(struct load *l, struct connection *c, bool writing)
{
    if (c->writing != writing)
        watch(l, c, EPOLL_CTL_MOD, EPOLLIN | (writing ? EPOLLOUT : 0));
    c->writing = writing;
}

static void send_mail(struct load *l, struct connection *c)
{
    size_t all = c->head_len + l->body_len;
    while (c->out < all) {
        size_t head = c->out < c->head_len ? c->head_len - c->out : 0;
        size_t body = head > 0 ? 0 : c->out - c->head_len;
        struct iovec iov[2] = {{c->head + c->head_len - head, head},
                               {l->body + body, l->body_len - body}};
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
        ssize_t n = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            die("send mail data: %s", strerror(errno));
        if (n < 0) {
            set_writing(l, c, true);
            return;
        }
        c->out += (size_t)n;
    }
    set_writing(l, c, false);
    c->dot_us = now_us();
}

static void begin_mail(struct load *l, struct connection *c)
{
    bool spent = l->per_session > 0 && c->sent_in_session >= l->per_session;
    if (spent || is_over(l)) {
        say(c, STEP_QUIT, "QUIT\r\n");
        (void)shutdown(c->fd, SHUT_WR); /* Exim waits 0.2 s for this before it answers */
        return;
    }
    l->begun++;
    c->sent_in_session++;
    say(c, STEP_MAIL, l->mail_command);
}

static void begin_data(struct load *l, struct connection *c)
{
    c->step = STEP_DOT;
    c->out = 0;
    c->head_len = (size_t)snprintf(
        c->head, sizeof c->head,
        "Message-ID: <%llu.%d.%llu@load.test>\r\nDate: Mon, 5 Jan 2026 10:00:00 +0000\r\n",
        (unsigned long long)l->began_us, c->fd, (unsigned long long)c->sent_in_session);
    send_mail(l, c);
}

/* ---- connections ----------------------------------------------------------------------------- */

static void open_connection(struct load *l, struct connection *c)
{
    const int on = 1;
    *c = (struct connection){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)};
    if (c->fd < 0)
        die("socket: %s", strerror(errno));
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&l->to, sizeof l->to) != 0 && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    watch(l, c, EPOLL_CTL_ADD, EPOLLIN);
}

static void close_connection(struct load *l, struct connection *c)
{
    close(c->fd);
    if (!is_over(l)) {
        open_connection(l, c);
        return;
    }
    c->fd = -1;
    l->open--;
}

static void note_taken(struct load *l, const struct connection *c)
{
    l->ended_us = now_us();
    if (l->taken < SAMPLES_MAX)
        l->samples[l->taken] = (uint32_t)(l->ended_us - c->dot_us);
    l->taken++;
}

static void on_reply(struct load *l, struct connection *c, int code)
{
    if (code != steps[c->step].code)
        die("%s was answered: %s", steps[c->step].name, c->reply);
    switch (c->step) {
    case STEP_BANNER:
        say(c, STEP_EHLO, "EHLO load.test\r\n");
        return;
    case STEP_MAIL:
        say(c, STEP_RCPT, l->rcpt_command);
        return;
    case STEP_RCPT:
        say(c, STEP_DATA, "DATA\r\n");
        return;
    case STEP_DATA:
        begin_data(l, c);
        return;
    case STEP_DOT:
        if (c->writing)
            die("the final dot was answered before it was sent");
        note_taken(l, c);
        begin_mail(l, c);
        return;
    case STEP_EHLO:
        begin_mail(l, c);
        return;
    default:
        close_connection(l, c);
        return;
    }
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Takes the lines that are complete; the last one of a reply has no "-" behind its code. */
static void take_lines(struct load *l, struct connection *c)
{
    char *line = c->reply;
    char *end = NULL;
    int code = 0;
    while ((end = memchr(line, '\n', c->have - (size_t)(line - c->reply))) != NULL) {
        if (end - line < 4 || !is_digit(line[0]) || !is_digit(line[1]) || !is_digit(line[2]) ||
            end[-1] != '\r')
            die("%s: no reply: %.*s", steps[c->step].name, (int)(end - line), line);
        if (line[3] != '-')
            code = atoi(line);
        line = end + 1;
        if (code != 0 && line != c->reply + c->have)
            die("%s: more than one reply", steps[c->step].name);
    }
    c->have -= (size_t)(line - c->reply);
    memmove(c->reply, line, c->have);
    if (code != 0)
        on_reply(l, c, code);
}

static void on_readable(struct load *l, struct connection *c)
{
    ssize_t n = recv(c->fd, c->reply + c->have, sizeof c->reply - 1 - c->have, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        die("%s: %s", steps[c->step].name,
            n < 0 ? strerror(errno) : "the server closed the connection");
    c->have += (size_t)n;
    c->reply[c->have] = '\0';
    take_lines(l, c);
}

static void run(struct load *l, struct connection *connections)
{
    struct epoll_event events[EVENTS];
    l->began_us = l->ended_us = now_us();
    for (unsigned i = 0; i < l->connections; i++)
        open_connection(l, &connections[i]);
    l->open = l->connections;
    while (l->open > 0) {
        int n = epoll_wait(l->epoll, events, EVENTS, PATIENCE_MS);
        if (n == 0)
            die("the server has been silent for %d s", PATIENCE_MS / 1000);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->fd >= 0 && (events[i].events & EPOLLOUT) != 0)
                send_mail(l, c);
            if (c->fd >= 0 && (events[i].events & ~(uint32_t)EPOLLOUT) != 0)
                on_readable(l, c);
        }
    }
}

/* ---- before and after ------------------------------------------------------------------------ */

static void make_body(struct load *l)
{
    char head[1024];
    int head_len =
        snprintf(head, sizeof head,
                 "From: <%s>\r\nTo: <%s>\r\nSubject: Scan of the day\r\nMIME-Version: 1.0\r\n"
                 "Content-Type: text/plain; charset=us-ascii\r\n\r\n",
                 l->sender, l->recipient);
    size_t lines = l->size > (size_t)head_len ? (l->size - (size_t)head_len + LINE - 1) / LINE : 1;
    l->body_len = (size_t)head_len + lines * LINE + 3;
    l->body = malloc(l->body_len);
    if (l->body == NULL)
        die("out of memory");
    memcpy(l->body, head, (size_t)head_len);
    char *p = l->body + head_len;
    for (size_t i = 0; i < lines; i++, p += LINE) {
        memset(p, 'a' + (int)(i % 26), LINE - 2);
        memcpy(p + LINE - 2, "\r\n", 2);
    }
    memcpy(p, ".\r\n", 3);
    snprintf(l->mail_command, sizeof l->mail_command, "MAIL FROM:<%s>\r\n", l->sender);
    snprintf(l->rcpt_command, sizeof l->rcpt_command, "RCPT TO:<%s>\r\n", l->recipient);
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(const struct load *l, uint64_t n, double share)
{
    uint64_t at = (uint64_t)((double)n * share);
    return n == 0 ? 0 : (double)l->samples[at < n ? at : n - 1] / 1000;
}

static void report(struct load *l)
{
    struct rusage usage;
    uint64_t n = l->taken < SAMPLES_MAX ? l->taken : SAMPLES_MAX;
    double seconds = (double)(l->ended_us - l->began_us) / 1e6;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3;
    qsort(l->samples, n, sizeof *l->samples, by_size);
    printf("{\"messages\": %llu, \"seconds\": %.4f, \"rate\": %.2f, \"p50_ms\": %.3f, \"p99_ms\": "
           "%.3f, "
           "\"max_ms\": %.3f, \"driver_cpu_ms\": %.4f}\n",
           (unsigned long long)l->taken, seconds, seconds > 0 ? (double)l->taken / seconds : 0,
           percentile(l, n, 0.5), percentile(l, n, 0.99), percentile(l, n, 1),
           l->taken > 0 ? cpu / (double)l->taken : 0);
}

static const char usage[] =
    "usage: smtp_load [--address A] --port N [--connections N] [--messages N] [--seconds S]\n"
    "                 [--per-session N] [--size OCTETS] [--sender A] [--recipient A]\n"
    "Stops after N messages or S seconds, whichever comes first.\n";

static uint64_t number(const char *text)
{
    char *end = NULL;
    uint64_t n = strtoull(text, &end, 10);
    if (end == text || *end != '\0')
        die("%s is not a number", text);
    return n;
}

static void read_options(struct load *l, int argc, char **argv)
{
    static const struct option options[] = {
        {"address", 1, NULL, 'a'},  {"port", 1, NULL, 'p'},    {"connections", 1, NULL, 'c'},
        {"messages", 1, NULL, 'm'}, {"seconds", 1, NULL, 't'}, {"per-session", 1, NULL, 'k'},
        {"size", 1, NULL, 's'},     {"sender", 1, NULL, 'f'},  {"recipient", 1, NULL, 'r'},
        {NULL, 0, NULL, 0}};
    for (int o = 0; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 'a':
            if (inet_pton(AF_INET, optarg, &l->to.sin_addr) != 1)
                die("%s is not an IPv4 address", optarg);
            break;
        case 'p':
            l->to.sin_port = htons((uint16_t)number(optarg));
            break;
        case 'c':
            l->connections = (unsigned)number(optarg);
            break;
        case 'm':
            l->messages = number(optarg);
            break;
        case 't':
            l->run_us = (uint64_t)(strtod(optarg, NULL) * 1e6);
            break;
        case 'k':
            l->per_session = number(optarg);
            break;
        case 's':
            l->size = number(optarg);
            break;
        case 'f':
            l->sender = optarg;
            break;
        case 'r':
            l->recipient = optarg;
            break;
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (l->to.sin_port == 0 || l->connections == 0 || l->connections > CONNECTIONS_MAX ||
        (l->messages == UINT64_MAX && l->run_us == 0)) {
        fputs(usage, stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct load l = {.to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
                     .sender = "printer@office.test",
                     .recipient = "somebody@example.net",
                     .connections = 10,
                     .messages = UINT64_MAX,
                     .size = 4096};
    read_options(&l, argc, argv);
    make_body(&l);
    l.samples = calloc(SAMPLES_MAX, sizeof *l.samples);
    struct connection *connections = calloc(l.connections, sizeof *connections);
    l.epoll = epoll_create1(0);
    if (l.samples == NULL || connections == NULL || l.epoll < 0)
        die("out of memory");
    run(&l, connections);
    report(&l);
    free(connections);
    free(l.samples);
    free(l.body);
    return 0;
}
