#include "relay/intake/listener.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "relay/base/log.h"
#include "relay/base/random.h"
#include "relay/intake/session.h"

#define LISTEN_BACKLOG       512
#define ACCEPT_PAUSE_MS      500 /* after running out of descriptors */
#define ACCEPTS_PER_TURN     64  /* of one socket: whoever is connected goes on meanwhile */
#define SOCKETS_PER_LISTENER 2   /* IPv4 and IPv6 */

/* One bound socket. */
struct intake_socket {
    struct intake *intake;
    const struct config_listener *listener;
    int fd;
    struct event *readable;
};

struct intake {
    struct intake_settings set;
    struct intake_socket *sockets;
    size_t socket_count;
    struct session *sessions; /* the newest first */
    struct session_commons commons;
    struct quiet strangers; /* log lines about them, here and below */
    struct quiet crowds;
    struct quiet failures;
    struct event *resume; /* accepting again after running out of descriptors */
    struct event *stopped;
    struct intake_counts counts;
    uint64_t commits; /* under way, of sessions that may be gone */
    uint64_t next_id;
    void (*on_stopped)(void *ctx);
    void *stop_ctx;
};

/* ---- binding --------------------------------------------------------------------------------- */

struct bind_address {
    struct sockaddr_storage sa;
    socklen_t len;
};

static void address_fill(struct bind_address *out, const struct net_address *a, uint16_t port)
{
    memset(out, 0, sizeof *out);
    if (a->family == 4) {
        struct sockaddr_in *in = (struct sockaddr_in *)&out->sa;
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        memcpy(&in->sin_addr, a->bytes, 4);
        out->len = sizeof *in;
    } else {
        struct sockaddr_in6 *in = (struct sockaddr_in6 *)&out->sa;
        in->sin6_family = AF_INET6;
        in->sin6_port = htons(port);
        memcpy(&in->sin6_addr, a->bytes, 16);
        out->len = sizeof *in;
    }
}

static int open_socket(const struct bind_address *at)
{
    int on = 1;
    int fd = socket(at->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        (at->sa.ss_family != AF_INET6 ||
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0) &&
        bind(fd, (const struct sockaddr *)&at->sa, at->len) == 0 && listen(fd, LISTEN_BACKLOG) == 0)
        return fd;
    int saved = errno;
    (void)close(fd);
    errno = saved;
    return -1;
}

static const char *bind_remedy(int errnum)
{
    switch (errnum) {
    case EADDRINUSE:
        return "another program listens there; stop it, or choose another port";
    case EACCES:
        return "ports below 1024 need root or CAP_NET_BIND_SERVICE";
    case EADDRNOTAVAIL:
        return "this host has no such address; correct it or leave it out";
    default:
        return "see the message of the system";
    }
}

static bool bind_error(struct error *err, const struct config_listener *l, const char *address)
{
    int errnum = errno;
    error_errno(err, errnum, "[listener %s] cannot listen on %s port %u (%s)", l->name,
                address[0] != '\0' ? address : "any address", l->port, bind_remedy(errnum));
    return false;
}

static bool bind_one(struct intake *in, const struct config_listener *l,
                     const struct net_address *a, struct error *err)
{
    struct bind_address at;
    address_fill(&at, a, l->port);
    int fd = open_socket(&at);
    if (fd < 0)
        return bind_error(err, l, l->address);
    in->sockets[in->socket_count++] = (struct intake_socket){.intake = in, .listener = l, .fd = fd};
    return true;
}

/* All addresses: IPv6 is left out on a host that has none. */
static bool bind_any(struct intake *in, const struct config_listener *l, struct error *err)
{
    const struct net_address any4 = {.family = 4};
    const struct net_address any6 = {.family = 6};
    if (!bind_one(in, l, &any4, err))
        return false;
    if (bind_one(in, l, &any6, err))
        return true;
    if (errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL)
        return false;
    error_clear(err);
    return true;
}

static bool bind_listener(struct intake *in, const struct config_listener *l, struct error *err)
{
    struct net_address a;
    if (l->address[0] == '\0')
        return bind_any(in, l, err);
    if (!net_parse(l->address, &a))
        return error_set(err, ERROR_INVALID, "[listener %s] %s is not an IP address", l->name,
                         l->address);
    return bind_one(in, l, &a, err);
}

struct intake *intake_bind(const struct config *config, struct error *err)
{
    struct intake *in = calloc(1, sizeof *in);
    if (in != NULL)
        in->sockets = calloc(config->listener_count * SOCKETS_PER_LISTENER, sizeof *in->sockets);
    if (in == NULL || in->sockets == NULL) {
        error_set(err, ERROR_NO_ROOM, "out of memory");
        intake_free(in);
        return NULL;
    }
    for (size_t i = 0; i < config->listener_count; i++) {
        if (!bind_listener(in, &config->listeners[i], err)) {
            intake_free(in);
            return NULL;
        }
    }
    return in;
}

/* ---- accepting ------------------------------------------------------------------------------- */

/* One refusal, as cheap as it can be: nothing is allocated for it and no reply is waited for. */
static void turn_away(int fd, const char *text)
{
    uint8_t unread[512];
    (void)send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT); /* it is told or it is not */
    (void)shutdown(fd, SHUT_WR);
    /* Unread input would turn the close into a reset, which can overtake the refusal. */
    (void)recv(fd, unread, sizeof unread, MSG_DONTWAIT);
    (void)close(fd);
}

/* A line that others can cause: at most so many, the next of which tells how many were left out. */
static void log_sparingly(struct intake *in, struct quiet *quiet, enum log_level level,
                          const char *event, struct log_field who, const char *reason)
{
    char more[32] = "";
    uint64_t held = 0;
    if (!quiet_may_tell(quiet, clock_now_ms(in->set.clock), &held))
        return;
    if (held > 0)
        snprintf(more, sizeof more, "%" PRIu64, held);
    log_event(level, event, who, LOG_STR("reason", reason), LOG_STR("more", more), LOG_END);
}

static void refuse_stranger(struct intake *in, int fd, const struct access *access)
{
    in->counts.strangers++;
    log_sparingly(in, &in->strangers, LOG_LEVEL_WARN, "stranger", LOG_STR("client", access->name),
                  "not in [devices] allow nor in any [device] address");
    turn_away(fd, "554 5.7.1 Your address may not use this relay; its operator can allow it\r\n");
}

static void refuse_crowd(struct intake *in, int fd, const struct access *access)
{
    log_sparingly(in, &in->crowds, LOG_LEVEL_WARN, "too-many-sessions",
                  LOG_STR("device", access->name),
                  "max_sessions or max_sessions_per_device is reached");
    turn_away(fd, "421 4.7.0 Too many connections, try again later\r\n");
}

static bool may_make_room(const struct session *s, uint64_t silence_ms)
{
    return silence_ms >= (session_is_mute(s) ? INTAKE_MUTE_MS : INTAKE_IDLE_MS);
}

/* The session to close for a new one: of this address, or of any when that is NULL. */
static struct session *find_idle(const struct intake *in, const struct net_address *address)
{
    struct session *found = NULL;
    uint64_t longest = 0;
    for (struct session *s = in->sessions; s != NULL; s = session_links(s)->after) {
        uint64_t silence = session_silence_ms(s);
        if (silence > longest && may_make_room(s, silence) &&
            (address == NULL || net_equal(session_peer(s), address))) {
            found = s;
            longest = silence;
        }
    }
    return found;
}

static bool make_room(struct intake *in, const struct net_address *address)
{
    struct session *s = find_idle(in, address);
    if (s == NULL)
        return false;
    session_evict(s);
    return true;
}

/* False when there is no room for one more session of this address. */
static bool has_room(struct intake *in, const struct net_address *address,
                     const struct access *access)
{
    if (limits_sessions(in->commons.limits, address) >= access->max_sessions)
        return make_room(in, address);
    return in->counts.sessions < in->set.config->max_sessions || make_room(in, NULL);
}

static void maybe_stopped(struct intake *in)
{
    if (in->on_stopped != NULL && in->sessions == NULL && in->commits == 0)
        event_active(in->stopped, EV_TIMEOUT, 0);
}

static void list_add(struct intake *in, struct session *s)
{
    session_links(s)->after = in->sessions;
    if (in->sessions != NULL)
        session_links(in->sessions)->before = s;
    in->sessions = s;
}

static void list_remove(struct intake *in, struct session *s)
{
    struct session_links *links = session_links(s);
    if (links->before != NULL)
        session_links(links->before)->after = links->after;
    else
        in->sessions = links->after;
    if (links->after != NULL)
        session_links(links->after)->before = links->before;
}

static void on_session_end(void *ctx, struct session *s)
{
    struct intake *in = ctx;
    list_remove(in, s);
    in->counts.sessions--;
    maybe_stopped(in);
}

static void on_commit_end(void *ctx)
{
    maybe_stopped(ctx);
}

static void log_failed_session(struct intake *in, const struct access *access)
{
    log_sparingly(in, &in->failures, LOG_LEVEL_ERROR, "session-failed",
                  LOG_STR("device", access->name), "out of memory");
}

static void begin_session(struct intake *in, int fd, const struct intake_socket *at,
                          const struct net_address *address, const struct access *access)
{
    struct session_settings settings = {
        .intake = &in->set,
        .counts = &in->counts,
        .commons = &in->commons,
        .access = access,
        .listener = at->listener,
        .use = limits_enter(in->commons.limits, address, clock_now_ms(in->set.clock)),
        .id = ++in->next_id,
        .commits = &in->commits,
        .on_end = on_session_end,
        .on_commit_end = on_commit_end,
        .ctx = in,
    };
    if (settings.use == NULL) {
        (void)close(fd);
        log_failed_session(in, access);
        return;
    }
    struct session *s = session_new(fd, &settings);
    if (s == NULL) {
        log_failed_session(in, access);
        return;
    }
    list_add(in, s);
    in->counts.sessions++;
    in->counts.sessions_ever++;
    log_event(LOG_LEVEL_INFO, "session", LOG_ID("session", settings.id),
              LOG_STR("device", access->name), LOG_STR("listener", at->listener->name), LOG_END);
}

static void take_connection(struct intake_socket *at, int fd, const struct sockaddr *sa)
{
    struct intake *in = at->intake;
    struct net_address address;
    struct access access;
    if (!net_from_sockaddr(sa, &address)) {
        (void)close(fd);
        return;
    }
    access_of(in->set.config, &address, &access);
    if (!access.allowed)
        refuse_stranger(in, fd, &access);
    else if (!has_room(in, &address, &access))
        refuse_crowd(in, fd, &access);
    else
        begin_session(in, fd, at, &address, &access);
}

static void set_accepting(struct intake *in, bool on)
{
    for (size_t i = 0; i < in->socket_count; i++) {
        if (in->sockets[i].readable == NULL)
            continue;
        if (on)
            (void)event_add(in->sockets[i].readable, NULL);
        else
            (void)event_del(in->sockets[i].readable);
    }
}

/* As against not accepting: whoever connects is refused at once and tries elsewhere or later. */
static void close_sockets(struct intake *in)
{
    for (size_t i = 0; i < in->socket_count; i++) {
        struct intake_socket *at = &in->sockets[i];
        if (at->readable != NULL)
            event_free(at->readable);
        if (at->fd >= 0)
            (void)close(at->fd);
        at->readable = NULL;
        at->fd = -1;
    }
}

static void on_resume(evutil_socket_t fd, short what, void *ctx)
{
    struct intake *in = ctx;
    (void)fd;
    (void)what;
    set_accepting(in, true);
}

/* Out of descriptors: waiting connections stay in the kernel's backlog until sessions have ended.
 */
static void pause_accepting(struct intake_socket *at, int errnum)
{
    struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};
    log_sparingly(at->intake, &at->intake->failures, LOG_LEVEL_ERROR, "accept-failed",
                  LOG_STR("listener", at->listener->name), strerror(errnum));
    set_accepting(at->intake, false);
    (void)event_add(at->intake->resume, &pause);
}

/* The connection is gone again, or was never made: the next one may be fine. */
static bool is_passing(int errnum)
{
    static const int passing[] = {EINTR,     ECONNABORTED, EPROTO,      ENETDOWN,   ENOPROTOOPT,
                                  EHOSTDOWN, EHOSTUNREACH, ENETUNREACH, EOPNOTSUPP, ETIMEDOUT};
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++) {
        if (errnum == passing[i])
            return true;
    }
    return false;
}

static void on_acceptable(evutil_socket_t fd, short what, void *ctx)
{
    struct intake_socket *at = ctx;
    (void)what;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage from;
        socklen_t len = sizeof from;
        int got = accept4(fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (got >= 0) {
            take_connection(at, got, (const struct sockaddr *)&from);
            continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        if (!is_passing(errno)) {
            pause_accepting(at, errno);
            return;
        }
    }
}

static void on_stopped_event(evutil_socket_t fd, short what, void *ctx)
{
    struct intake *in = ctx;
    (void)fd;
    (void)what;
    in->on_stopped(in->stop_ctx);
}

static bool start_socket(struct intake *in, struct intake_socket *at)
{
    at->readable = event_new(in->set.base, at->fd, EV_READ | EV_PERSIST, on_acceptable, at);
    if (at->readable == NULL || event_add(at->readable, NULL) != 0)
        return false;
    log_event(LOG_LEVEL_INFO, "listening", LOG_STR("listener", at->listener->name),
              LOG_U64("port", intake_port(in, at->listener->name)), LOG_END);
    return true;
}

static struct twice *make_twice(void)
{
    uint8_t key[TWICE_KEY];
    for (size_t i = 0; i < TWICE_KEY; i += 4)
        bytes_put32(key + i, random_draw());
    return twice_new(key);
}

static bool make_commons(struct intake *in, struct error *err)
{
    struct session_commons *c = &in->commons;
    c->twice = make_twice();
    c->limits = limits_new(random_draw());
    c->hellos = hello_table_new(random_draw());
    if (c->limits == NULL || c->hellos == NULL || c->twice == NULL)
        return error_set(err, ERROR_NO_ROOM, "cannot start the listeners: out of memory");
    c->profiles = profiles_new(in->set.config, clock_wall_ms(in->set.clock), err);
    return c->profiles != NULL;
}

bool intake_start(struct intake *in, const struct intake_settings *settings, struct error *err)
{
    in->set = *settings;
    if (!make_commons(in, err))
        return false;
    in->resume = evtimer_new(settings->base, on_resume, in);
    in->stopped = evtimer_new(settings->base, on_stopped_event, in);
    bool ok = in->resume != NULL && in->stopped != NULL;
    for (size_t i = 0; ok && i < in->socket_count; i++)
        ok = start_socket(in, &in->sockets[i]);
    return ok || error_set(err, ERROR_NO_ROOM, "cannot start the listeners: out of memory");
}

void intake_stop(struct intake *in, void (*on_stopped)(void *ctx), void *ctx)
{
    in->on_stopped = on_stopped;
    in->stop_ctx = ctx;
    close_sockets(in);
    for (struct session *s = in->sessions; s != NULL; s = session_links(s)->after)
        session_stop(s);
    maybe_stopped(in);
}

void intake_free(struct intake *in)
{
    if (in == NULL)
        return;
    while (in->sessions != NULL) {
        struct session *s = in->sessions;
        list_remove(in, s);
        session_free(s);
    }
    close_sockets(in);
    profiles_free(in->commons.profiles);
    hello_table_free(in->commons.hellos);
    limits_free(in->commons.limits);
    twice_free(in->commons.twice);
    if (in->resume != NULL)
        event_free(in->resume);
    if (in->stopped != NULL)
        event_free(in->stopped);
    free(in->sockets);
    free(in);
}

void intake_counts(const struct intake *in, struct intake_counts *out)
{
    *out = in->counts;
}

uint16_t intake_port(const struct intake *in, const char *listener)
{
    for (size_t i = 0; i < in->socket_count; i++) {
        struct sockaddr_storage sa = {0};
        socklen_t len = sizeof sa;
        if (strcmp(in->sockets[i].listener->name, listener) != 0 ||
            getsockname(in->sockets[i].fd, (struct sockaddr *)&sa, &len) != 0)
            continue;
        return ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
                                              : ((struct sockaddr_in *)&sa)->sin_port);
    }
    return 0;
}
