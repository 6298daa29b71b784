#include "relay/base/dns.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#define HOST_MAX  253                  /* octets of a DNS name */
#define STACK     ((size_t)256 * 1024) /* of a lookup's thread */
#define PIPE_ROOM 4096                 /* what a pipe takes without blocking, at least */

/* What a lookup ends with; travels through its pipe. */
struct result {
    struct net_address list[DNS_ADDRESSES_MAX];
    size_t count;
    struct error err;
};

_Static_assert(sizeof(struct result) <= PIPE_ROOM, "a thread never waits for the loop");

struct dns {
    struct event_base *base;
    dns_resolve *resolve;
    void *resolve_ctx;
    uint64_t timeout_ms;
    struct dns_query *first; /* oldest first */
    size_t threads;
};

enum query_state {
    QUERY_WAITING, /* for a thread */
    QUERY_RUNNING,
    QUERY_READY,    /* answered without a thread; told by the loop */
    QUERY_FORGOTTEN /* timed out or cancelled; its thread still runs */
};

struct dns_query {
    struct dns *dns;
    struct dns_query *next;
    dns_answered *answered;
    void *ctx;
    enum query_state state;
    int fd; /* the pipe's end to read from; open while a thread runs */
    struct event readable;
    struct event timer;
    struct result *ready; /* of QUERY_READY */
    char host[HOST_MAX + 1];
};

/* All that a thread has. */
struct errand {
    dns_resolve *resolve;
    void *resolve_ctx;
    int fd; /* the pipe's end to write to */
    char host[HOST_MAX + 1];
};

/* ---- On the lookup's thread ---- */

static bool has(const struct dns_found *found, const struct net_address *address)
{
    for (size_t i = 0; i < found->count; i++)
        if (net_equal(&found->list[i], address))
            return true;
    return false;
}

static const struct {
    int code;
    enum error_kind kind;
    const char *text;
} failures[] = {
    {EAI_NONAME, ERROR_MISSING, "no such name; check the host of the mailbox"},
#ifdef EAI_NODATA
    {EAI_NODATA, ERROR_MISSING, "the name has no address; check the host of the mailbox"},
#endif
#ifdef EAI_ADDRFAMILY
    {EAI_ADDRFAMILY, ERROR_MISSING, "the name has no address; check the host of the mailbox"},
#endif
    {EAI_AGAIN, ERROR_IO,
     "the name servers did not answer; check the network and the nameserver lines in "
     "/etc/resolv.conf"},
    {EAI_FAIL, ERROR_IO, "the name servers could not answer; check /etc/resolv.conf"},
    {EAI_MEMORY, ERROR_NO_ROOM, "out of memory"},
};

static bool not_found(const char *host, int code, int errnum, struct error *err)
{
    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
        if (failures[i].code == code)
            return error_set(err, failures[i].kind, "look up %s: %s", host, failures[i].text);
    if (code == EAI_SYSTEM)
        return error_errno(err, errnum, "look up %s", host);
    return error_set(err, ERROR_IO, "look up %s: %s", host, gai_strerror(code));
}

/* RFC 6761 6.3: this name needs no resolver, and some small systems have neither /etc/hosts nor a
 * resolver that knows it. Asked last, so that whoever did write it down is heard. */
static bool is_localhost(const char *host)
{
    return strcasecmp(host, "localhost") == 0 || strcasecmp(host, "localhost.") == 0;
}

static bool find_loopback(struct dns_found *found)
{
    static const char *const addresses[] = {"127.0.0.1", "::1"};

    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
        if (net_parse(addresses[i], &found->list[found->count]))
            found->count++;
    return found->count > 0;
}

bool dns_resolve_system(void *ctx, const char *host, struct dns_found *found, struct error *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int code = getaddrinfo(host, NULL, &hints, &list);

    (void)ctx;
    if (code != 0 && is_localhost(host))
        return find_loopback(found);
    if (code != 0)
        return not_found(host, code, errno, err);
    for (const struct addrinfo *a = list; a != NULL && found->count < DNS_FOUND_MAX; a = a->ai_next)
        if (net_from_sockaddr(a->ai_addr, &found->list[found->count]))
            found->count++;
    freeaddrinfo(list);
    return found->count > 0 || not_found(host, EAI_NONAME, 0, err);
}

/* The next address of the family at or after *at, which is moved behind it. */
static const struct net_address *next_of(const struct dns_found *found, uint8_t family, size_t *at)
{
    while (*at < found->count) {
        const struct net_address *a = &found->list[(*at)++];

        if (a->family == family)
            return a;
    }
    return NULL;
}

/* Alternates between the families, as long as both last. */
static void interleave(const struct dns_found *found, struct result *out)
{
    uint8_t families[2] = {found->list[0].family, found->list[0].family == 6 ? 4 : 6};
    size_t at[2] = {0, 0};
    size_t turn = 0;
    bool more = true;

    while (more && out->count < DNS_ADDRESSES_MAX) {
        const struct net_address *a = next_of(found, families[turn], &at[turn]);

        if (a == NULL) {
            turn = 1 - turn;
            a = next_of(found, families[turn], &at[turn]);
        } else {
            turn = 1 - turn;
        }
        more = a != NULL;
        if (more)
            out->list[out->count++] = *a;
    }
}

static void without_repeats(struct dns_found *found)
{
    struct dns_found once = {.count = 0};

    for (size_t i = 0; i < found->count; i++)
        if (!has(&once, &found->list[i]))
            once.list[once.count++] = found->list[i];
    *found = once;
}

static void *run_errand(void *arg)
{
    struct errand *e = arg;
    struct dns_found found = {.count = 0};
    struct result result = {.count = 0, .err = ERROR_INIT};

    if (e->resolve(e->resolve_ctx, e->host, &found, &result.err)) {
        without_repeats(&found);
        interleave(&found, &result);
    }
    /* Fails when nobody waits any more; SIGPIPE is blocked. */
    if (write(e->fd, &result, sizeof(result)) < 0)
        errno = 0;
    (void)close(e->fd);
    free(e);
    return NULL;
}

/* ---- On the loop's thread ---- */

static void unlink_query(struct dns_query *q)
{
    struct dns_query **at = &q->dns->first;

    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
}

static void dispose(struct dns_query *q)
{
    (void)event_del(&q->timer);
    if (q->fd >= 0) {
        (void)event_del(&q->readable);
        (void)close(q->fd);
    }
    free(q->ready);
    free(q);
}

static void free_query(struct dns_query *q)
{
    unlink_query(q);
    dispose(q);
}

/* Comes last: the callback may do anything, dns_free() too. */
static void answer(struct dns_query *q, const struct result *result)
{
    dns_answered *answered = q->answered;
    void *ctx = q->ctx;

    free_query(q);
    answered(ctx, result->list, result->count, &result->err);
}

static int start_detached(void *(*run)(void *), void *arg)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all;
    sigset_t before;
    int error = pthread_attr_init(&attr);

    if (error != 0)
        return error;
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attr, STACK);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, &attr, run, arg);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attr);
    return error;
}

/* Takes fd when it succeeds. */
static int send_on_errand(const struct dns_query *q, int fd)
{
    struct errand *e = malloc(sizeof(*e));
    int error = 0;

    if (e == NULL)
        return ENOMEM;
    *e = (struct errand){.resolve = q->dns->resolve, .resolve_ctx = q->dns->resolve_ctx, .fd = fd};
    memcpy(e->host, q->host, sizeof(e->host));
    error = start_detached(run_errand, e);
    if (error != 0)
        free(e);
    return error;
}

static void start_timer(struct dns_query *q, uint64_t ms)
{
    struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};

    (void)event_add(&q->timer, &tv);
}

/* The loop will tell. Without memory for that, the timeout will. */
static void make_ready(struct dns_query *q, const struct result *result)
{
    q->ready = malloc(sizeof(*q->ready));
    if (q->ready == NULL)
        return;
    *q->ready = *result;
    q->state = QUERY_READY;
    start_timer(q, 0);
}

static void fail_later(struct dns_query *q, int errnum)
{
    struct result result = {.count = 0, .err = ERROR_INIT};

    error_errno(&result.err, errnum, "look up %s: start a thread", q->host);
    make_ready(q, &result);
}

static void on_result(evutil_socket_t fd, short what, void *arg);

static void start(struct dns_query *q)
{
    int fds[2];
    int error = 0;

    if (pipe2(fds, O_CLOEXEC) != 0) {
        fail_later(q, errno);
        return;
    }
    error = send_on_errand(q, fds[1]);
    if (error != 0) {
        (void)close(fds[0]);
        (void)close(fds[1]);
        fail_later(q, error);
        return;
    }
    q->state = QUERY_RUNNING;
    q->fd = fds[0];
    q->dns->threads++;
    (void)event_assign(&q->readable, q->dns->base, q->fd, EV_READ, on_result, q);
    (void)event_add(&q->readable, NULL); /* if this fails the timeout tells */
}

static void start_waiting(struct dns *dns)
{
    for (struct dns_query *q = dns->first; q != NULL; q = q->next)
        if (q->state == QUERY_WAITING && dns->threads < DNS_THREADS_MAX)
            start(q);
}

static void on_result(evutil_socket_t fd, short what, void *arg)
{
    struct dns_query *q = arg;
    struct result result;
    bool whole = read(fd, &result, sizeof(result)) == (ssize_t)sizeof(result);

    (void)what;
    q->dns->threads--;
    start_waiting(q->dns);
    if (q->state == QUERY_FORGOTTEN) {
        free_query(q);
        return;
    }
    if (!whole) {
        result = (struct result){.count = 0};
        error_set(&result.err, ERROR_IO, "look up %s: the answer was lost", q->host);
    }
    answer(q, &result);
}

/* A thread cannot be stopped; what it will say is dropped. */
static void forget(struct dns_query *q)
{
    if (q->state == QUERY_RUNNING) {
        q->state = QUERY_FORGOTTEN;
        (void)event_del(&q->timer);
    } else {
        free_query(q);
    }
}

static void time_out(struct dns_query *q)
{
    dns_answered *answered = q->answered;
    void *ctx = q->ctx;
    struct error err = ERROR_INIT;

    error_set(&err, ERROR_IO,
              "look up %s: no answer within %g s; check the network and the nameserver lines in "
              "/etc/resolv.conf",
              q->host, (double)q->dns->timeout_ms / 1000);
    forget(q);
    answered(ctx, NULL, 0, &err);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct dns_query *q = arg;
    struct result result;

    (void)fd;
    (void)what;
    if (q->state != QUERY_READY) {
        time_out(q);
        return;
    }
    result = *q->ready;
    answer(q, &result);
}

struct dns *dns_new(struct event_base *base, dns_resolve *resolve, void *resolve_ctx,
                    uint64_t timeout_ms)
{
    struct dns *dns = malloc(sizeof(*dns));

    if (dns == NULL)
        return NULL;
    *dns = (struct dns){
        .base = base, .resolve = resolve, .resolve_ctx = resolve_ctx, .timeout_ms = timeout_ms};
    return dns;
}

void dns_free(struct dns *dns)
{
    struct dns_query *next = NULL;

    if (dns == NULL)
        return;
    for (struct dns_query *q = dns->first; q != NULL; q = next) {
        next = q->next;
        dispose(q);
    }
    free(dns);
}

static void append(struct dns *dns, struct dns_query *q)
{
    struct dns_query **at = &dns->first;

    while (*at != NULL)
        at = &(*at)->next;
    *at = q;
}

static struct dns_query *query_new(struct dns *dns, const char *host, dns_answered *answered,
                                   void *ctx)
{
    struct dns_query *q = malloc(sizeof(*q));

    if (q == NULL)
        return NULL;
    *q = (struct dns_query){.dns = dns, .answered = answered, .ctx = ctx, .fd = -1};
    memcpy(q->host, host, strlen(host) + 1);
    if (evtimer_assign(&q->timer, dns->base, on_timer, q) != 0) {
        free(q);
        return NULL;
    }
    append(dns, q);
    return q;
}

struct dns_query *dns_lookup(struct dns *dns, const char *host, dns_answered *answered, void *ctx,
                             struct error *err)
{
    struct result literal = {.count = 1, .err = ERROR_INIT};
    struct dns_query *q = NULL;

    if (host[0] == '\0' || strlen(host) > HOST_MAX) {
        error_set(err, ERROR_INVALID, "look up \"%.64s\": not a host name", host);
        return NULL;
    }
    q = query_new(dns, host, answered, ctx);
    if (q == NULL) {
        error_set(err, ERROR_NO_ROOM, "look up %s: out of memory", host);
        return NULL;
    }
    start_timer(q, dns->timeout_ms);
    if (net_parse(host, &literal.list[0]))
        make_ready(q, &literal);
    else
        start_waiting(dns);
    return q;
}

void dns_cancel(struct dns_query *q)
{
    if (q != NULL)
        forget(q);
}
