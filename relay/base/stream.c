#include "relay/base/stream.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/event_struct.h>

#include "relay/base/tls_private.h"

#define READS_PER_TURN  4
#define READ_ONCE       16384 /* what a consumer leaves when it pauses is kept, so less is better */
#define WRITES_PER_TURN 8
#define WRITE_PARTS     16    /* of the queued output, in one sendmsg() */
#define TLS_WRITE       16384 /* one TLS record */

_Static_assert(STREAM_KEEP_MAX >= STREAM_READ, "whatever was offered can be kept");

enum state {
    STATE_CONNECTING,
    STATE_CLEAR,
    STATE_SECURING, /* a server's last output in the clear leaves, then the handshake begins */
    STATE_HANDSHAKE,
    STATE_SECURE,
    STATE_BROKEN,    /* TLS failed: the socket is open, but good for a FIN only */
    STATE_FLUSHING,  /* shutting down: output leaves, input is discarded */
    STATE_LINGERING, /* our end is closed; waiting for the peer's */
    STATE_OVER       /* no socket any more */
};

struct stream {
    struct stream_loop *loop;
    const struct stream_events *on;
    void *ctx;
    struct stream *next_turn;
    enum state state;
    int fd;
    int lost;     /* errno of a failed write or connect; what was received is still handed over */
    bool in_turn; /* linked in loop->first_turn */
    bool freed;   /* memory goes back in its next turn */
    bool told;    /* on_end was called and no stream_shutdown() since */
    bool paused;
    bool offer;   /* what was kept is due to be offered */
    bool blocked; /* the socket took no more; waiting for it to be writable */
    bool secure;  /* bytes go through tls */
    bool serves;  /* tls is a server's */
    bool hurries; /* acknowledges at once what it has read */
    enum stream_rest rest;
    bool fin_seen;
    uint16_t port;
    uint8_t *kept;
    size_t kept_len;
    struct evbuffer *out; /* NULL when empty */
    struct tls *tls;
    const char *refusal; /* why TLS cannot be started, or NULL */
    uint64_t timeout_ms;
    uint64_t progress_ms; /* monotonic: when something was last read or written */
    struct event readable;
    struct event writable;
    struct event timer;
    struct net_address peer;
    char peer_text[NET_TEXT_MAX];
};

struct stream_loop {
    struct event_base *base;
    struct event turn; /* once all that is ready now has been dealt with */
    bool in_turn;
    struct stream *first_turn;
    struct stream *last_turn;
    size_t streams;
    uint8_t buffer[STREAM_READ];
};

/* A few milliseconds late at most, and next to free. */
#ifdef CLOCK_MONOTONIC_COARSE
#define IDLE_CLOCK CLOCK_MONOTONIC_COARSE
#else
#define IDLE_CLOCK CLOCK_MONOTONIC
#endif

static uint64_t monotonic_ms(void)
{
    struct timespec now = {0};

    (void)clock_gettime(IDLE_CLOCK, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct timeval timeval_of(uint64_t ms)
{
    return (struct timeval){.tv_sec = (time_t)(ms / 1000),
                            .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
}

/* ---- What a stream waits for ---- */

/* A turn that asks for another one lets the loop look at its sockets first. */
static void ask_for_turn(struct stream_loop *loop)
{
    const struct timeval at_once = {0, 0};

    if (loop->in_turn)
        (void)event_add(&loop->turn, &at_once);
    else
        event_active(&loop->turn, EV_TIMEOUT, 0);
}

static void queue_turn(struct stream *s)
{
    struct stream_loop *loop = s->loop;

    if (s->in_turn)
        return;
    s->in_turn = true;
    s->next_turn = NULL;
    if (loop->first_turn == NULL)
        loop->first_turn = s;
    else
        loop->last_turn->next_turn = s;
    loop->last_turn = s;
    ask_for_turn(loop);
}

static bool is_open(const struct stream *s)
{
    return s->state == STATE_CLEAR || s->state == STATE_SECURE;
}

static bool can_read(const struct stream *s)
{
    return is_open(s) && !s->told && !s->paused && s->kept_len < STREAM_READ;
}

static bool can_offer(const struct stream *s)
{
    return is_open(s) && !s->told && !s->paused && s->offer;
}

/* A write failed; on_end is due as soon as what was received has been handed over. */
static bool is_lost(const struct stream *s)
{
    return is_open(s) && !s->told && s->lost != 0;
}

static bool can_write(const struct stream *s)
{
    return (is_open(s) || s->state == STATE_SECURING || s->state == STATE_FLUSHING) &&
           !s->blocked && s->lost == 0;
}

static bool wants_read(const struct stream *s)
{
    if (s->state == STATE_HANDSHAKE)
        return !s->blocked && !s->told;
    if (s->state == STATE_FLUSHING || s->state == STATE_LINGERING)
        return !s->fin_seen;
    return can_read(s);
}

static bool wants_write(const struct stream *s)
{
    return s->state == STATE_CONNECTING ? s->lost == 0 : s->blocked;
}

/* Work that no event of the socket announces. */
static bool has_work(const struct stream *s)
{
    if (can_write(s) && (s->out != NULL || s->state == STATE_FLUSHING))
        return true;
    if (can_offer(s) || (is_lost(s) && s->paused))
        return true;
    return can_read(s) && (s->lost != 0 || (s->secure && tls_buffered(s->tls) > 0));
}

static bool is_watched(const struct event *event)
{
    return event_pending(event, EV_READ | EV_WRITE, NULL) != 0;
}

/* Most pauses end before anything arrives: watching ends with the first octet that nobody wants. */
static bool watch_readable(struct stream *s)
{
    return !wants_read(s) || is_watched(&s->readable) || event_add(&s->readable, NULL) == 0;
}

static bool watch_writable(struct stream *s)
{
    bool wanted = wants_write(s);

    if (is_watched(&s->writable) == wanted)
        return true;
    return wanted ? event_add(&s->writable, NULL) == 0 : event_del(&s->writable) == 0;
}

/* Every way into the module ends here: what is watched follows from the state. */
static void update(struct stream *s)
{
    if (s->fd < 0)
        return;
    if (!watch_readable(s) || !watch_writable(s))
        s->lost = ENOMEM;
    if (has_work(s))
        queue_turn(s);
}

/* ---- The end ---- */

static void progress(struct stream *s)
{
    s->progress_ms = monotonic_ms();
}

static void drop_output(struct stream *s)
{
    if (s->out != NULL)
        evbuffer_free(s->out);
    s->out = NULL;
}

static void drop_kept(struct stream *s)
{
    free(s->kept);
    s->kept = NULL;
    s->kept_len = 0;
    s->offer = false;
}

static void drop_tls(struct stream *s)
{
    tls_free(s->tls);
    s->tls = NULL;
    s->secure = false;
}

static void close_socket(struct stream *s)
{
    s->state = STATE_OVER;
    if (s->fd < 0)
        return;
    (void)event_del(&s->readable);
    (void)event_del(&s->writable);
    (void)event_del(&s->timer);
    drop_output(s);
    drop_kept(s);
    (void)close(s->fd);
    s->fd = -1;
}

static void tell(struct stream *s, enum stream_end end, const struct error *err)
{
    if (s->told)
        return;
    s->told = true;
    (void)event_del(&s->timer);
    s->on->on_end(s->ctx, end, err);
}

/* Leaves the socket as it is good for: a stream_shutdown() may follow. */
static void end(struct stream *s, enum stream_end how, const struct error *err)
{
    bool shutting = s->state == STATE_FLUSHING || s->state == STATE_LINGERING;

    if (shutting || s->state == STATE_CONNECTING || how == STREAM_END_RESET) {
        close_socket(s);
    } else if (how == STREAM_END_TLS || s->state == STATE_SECURING || s->state == STATE_HANDSHAKE) {
        drop_output(s);
        s->secure = false; /* what tls knows of the peer stays for whoever asks why */
        s->blocked = false;
        s->state = STATE_BROKEN;
    }
    tell(s, how, err);
}

static void end_lost(struct stream *s, int errnum)
{
    struct error err = ERROR_INIT;

    error_errno(&err, errnum, "connection to %s lost", s->peer_text);
    end(s, STREAM_END_RESET, &err);
}

/* ---- Reading ---- */

static enum tls_step receive(struct stream *s, void *data, size_t room, size_t *out_len,
                             struct error *err)
{
    ssize_t got = 0;

    if (s->secure)
        return tls_read(s->tls, data, room, out_len, err);
    do
        got = recv(s->fd, data, room, 0);
    while (got < 0 && errno == EINTR);
    if (got == 0)
        return TLS_CLOSED;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return TLS_WANT_READ;
    if (got < 0) {
        error_errno(err, errno, "connection to %s lost", s->peer_text);
        return TLS_LOST;
    }
    *out_len = (size_t)got;
    return TLS_OK;
}

static void keep(struct stream *s, const uint8_t *data, size_t len)
{
    drop_kept(s);
    if (len == 0)
        return;
    s->kept = malloc(len);
    if (s->kept == NULL) {
        end_lost(s, ENOMEM);
        return;
    }
    memcpy(s->kept, data, len);
    s->kept_len = len;
}

/* What on_data left when it started TLS. */
static void leave(struct stream *s, const uint8_t *data, size_t len)
{
    if (len == 0)
        return;
    if (!s->serves)
        s->refusal = "the peer sent more in the clear, behind its answer to STARTTLS";
    else if (s->rest == STREAM_REST_IS_TLS && s->tls != NULL && !tls_feed(s->tls, data, len))
        s->refusal = "no memory";
}

/* data is not s->kept. */
static void deliver(struct stream *s, const uint8_t *data, size_t len)
{
    size_t took = s->on->on_data(s->ctx, data, len);

    assert(took <= len);
    if (is_open(s))
        keep(s, data + took, len - took);
    else if (s->state == STATE_SECURING || s->state == STATE_HANDSHAKE)
        leave(s, data + took, len - took);
}

static void offer_kept(struct stream *s)
{
    uint8_t *data = s->kept;
    size_t len = s->kept_len;

    s->offer = false;
    if (len == 0)
        return;
    s->kept = NULL;
    s->kept_len = 0;
    deliver(s, data, len);
    free(data);
}

static void end_closed(struct stream *s)
{
    struct error err = ERROR_INIT;

    s->fin_seen = !s->secure;
    error_set(&err, ERROR_NONE, "%s closed the connection", s->peer_text);
    end(s, STREAM_END_CLOSED, &err);
}

/* Reading brought nothing. */
static void read_stopped(struct stream *s, enum tls_step step, const struct error *err)
{
    if (s->lost != 0) {
        end_lost(s, s->lost);
        return;
    }
    switch (step) {
    case TLS_WANT_WRITE:
        s->blocked = true;
        return;
    case TLS_CLOSED:
        end_closed(s);
        return;
    case TLS_CUT:
        s->fin_seen = true;
        end(s, STREAM_END_CLOSED, err);
        return;
    case TLS_LOST:
        end(s, STREAM_END_RESET, err);
        return;
    case TLS_FAILED:
        end(s, STREAM_END_TLS, err);
        return;
    default:
        return;
    }
}

/* A server that gathers small segments (Nagle) sends the rest of its replies only when it has heard
 * of the first, and the kernel would let it wait for 40 ms. */
static void acknowledge(const struct stream *s)
{
#ifdef TCP_QUICKACK
    static const int on = 1;

    if (s->hurries)
        (void)setsockopt(s->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
#else
    (void)s;
#endif
}

/* One read and one on_data. False when the socket has nothing more for now. */
static bool read_once(struct stream *s)
{
    struct error err = ERROR_INIT;
    uint8_t *buffer = s->loop->buffer;
    size_t have = s->kept_len;
    size_t room = STREAM_READ - have < READ_ONCE ? STREAM_READ - have : READ_ONCE;
    size_t got = 0;
    enum tls_step step = receive(s, buffer + have, room, &got, &err);

    acknowledge(s); /* also what was TLS's own, as session tickets are */
    if (step != TLS_OK) {
        read_stopped(s, step, &err);
        return false;
    }
    progress(s);
    if (have > 0)
        memcpy(buffer, s->kept, have);
    drop_kept(s);
    deliver(s, buffer, have + got);
    return s->secure || got == room;
}

static void read_some(struct stream *s)
{
    if (can_offer(s))
        offer_kept(s);
    for (int i = 0; i < READS_PER_TURN && can_read(s); i++)
        if (!read_once(s))
            return;
}

/* Under TLS too: nothing of it matters any more. */
static void discard_some(struct stream *s)
{
    struct error err = ERROR_INIT;

    for (int i = 0; i < READS_PER_TURN; i++) {
        ssize_t got = recv(s->fd, s->loop->buffer, STREAM_READ, 0);

        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
            return;
        if (got < 0) {
            end_lost(s, errno);
            return;
        }
        if (got > 0)
            continue;
        s->fin_seen = true;
        error_set(&err, ERROR_NONE, "%s closed the connection", s->peer_text);
        if (s->state == STATE_LINGERING)
            end(s, STREAM_END_CLOSED, &err);
        return;
    }
}

/* ---- Writing ---- */

static enum tls_step send_clear(struct stream *s, size_t *out_len, struct error *err)
{
    struct evbuffer_iovec parts[WRITE_PARTS];
    struct iovec iov[WRITE_PARTS];
    struct msghdr msg = {.msg_iov = iov};
    int count = evbuffer_peek(s->out, -1, NULL, parts, WRITE_PARTS);
    ssize_t sent = 0;

    for (int i = 0; i < count && i < WRITE_PARTS; i++) {
        iov[i] = (struct iovec){.iov_base = parts[i].iov_base, .iov_len = parts[i].iov_len};
        msg.msg_iovlen++;
    }
    do
        sent = sendmsg(s->fd, &msg, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return TLS_WANT_WRITE;
    if (sent < 0) {
        error_errno(err, errno, "connection to %s lost", s->peer_text);
        return TLS_LOST;
    }
    *out_len = (size_t)sent;
    return TLS_OK;
}

static enum tls_step send_secure(struct stream *s, size_t *out_len, struct error *err)
{
    size_t len = evbuffer_get_length(s->out);
    const uint8_t *data = NULL;

    if (len > TLS_WRITE)
        len = TLS_WRITE;
    data = evbuffer_pullup(s->out, (ev_ssize_t)len);
    if (data == NULL) {
        error_errno(err, ENOMEM, "send to %s", s->peer_text);
        return TLS_LOST;
    }
    return tls_write(s->tls, data, len, out_len, err);
}

static void write_stopped(struct stream *s, enum tls_step step, const struct error *err)
{
    if (step == TLS_WANT_READ || step == TLS_WANT_WRITE) {
        s->blocked = true;
        return;
    }
    drop_output(s);
    if (step == TLS_FAILED) {
        end(s, STREAM_END_TLS, err);
    } else if (s->state == STATE_FLUSHING || s->state == STATE_SECURING || s->paused) {
        end(s, STREAM_END_RESET, err);
    } else if (s->told) {
        close_socket(s);
    } else {
        s->lost = err->errnum != 0 ? err->errnum : EPIPE;
    }
}

/* False when nothing more can be written for now. */
static bool write_once(struct stream *s)
{
    struct error err = ERROR_INIT;
    size_t sent = 0;
    enum tls_step step = s->secure ? send_secure(s, &sent, &err) : send_clear(s, &sent, &err);

    if (step != TLS_OK) {
        write_stopped(s, step, &err);
        return false;
    }
    progress(s);
    (void)evbuffer_drain(s->out, sent);
    if (evbuffer_get_length(s->out) == 0)
        drop_output(s);
    return true;
}

/* The output of a stream that shuts down has left. */
static void close_our_end(struct stream *s)
{
    struct error err = ERROR_INIT;

    if (s->secure && tls_close(s->tls, &err) == TLS_WANT_WRITE) {
        s->blocked = true;
        return;
    }
    if (shutdown(s->fd, SHUT_WR) != 0) {
        end_lost(s, errno);
        return;
    }
    s->state = STATE_LINGERING;
    if (!s->fin_seen)
        return;
    error_set(&err, ERROR_NONE, "%s closed the connection", s->peer_text);
    end(s, STREAM_END_CLOSED, &err);
}

/* The first step is taken by the loop, when the socket is writable. */
static void begin_handshake(struct stream *s)
{
    s->state = STATE_HANDSHAKE;
    s->blocked = true;
    progress(s);
}

static void write_some(struct stream *s)
{
    bool had_output = s->out != NULL;

    for (int i = 0; i < WRITES_PER_TURN && s->out != NULL && can_write(s); i++)
        if (!write_once(s))
            return;
    if (s->out != NULL || !can_write(s))
        return;
    if (s->state == STATE_FLUSHING)
        close_our_end(s);
    else if (s->state == STATE_SECURING)
        begin_handshake(s);
    else if (had_output && !s->told && s->on->on_drained != NULL)
        s->on->on_drained(s->ctx);
}

/* ---- Connecting and the handshake ---- */

static void end_refused(struct stream *s, int errnum)
{
    struct error err = ERROR_INIT;

    error_errno(&err, errnum, "connect to %s port %u", s->peer_text, (unsigned)s->port);
    end(s, STREAM_END_REFUSED, &err);
}

static void connected(struct stream *s)
{
    int errnum = 0;
    socklen_t len = sizeof(errnum);

    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &errnum, &len) != 0)
        errnum = errno;
    if (errnum != 0) {
        end_refused(s, errnum);
        return;
    }
    s->state = STATE_CLEAR;
    progress(s);
    if (s->on->on_connected != NULL)
        s->on->on_connected(s->ctx);
}

static void end_unsafe(struct stream *s)
{
    struct error err = ERROR_INIT;

    error_set(&err, ERROR_INVALID, "TLS with %s was not started: %s", s->peer_text, s->refusal);
    end(s, STREAM_END_TLS, &err);
}

static void handshake(struct stream *s)
{
    struct error err = ERROR_INIT;

    if (s->refusal != NULL) {
        end_unsafe(s);
        return;
    }
    switch (tls_handshake(s->tls, &err)) {
    case TLS_OK:
        s->state = STATE_SECURE;
        s->secure = true;
        s->blocked = false;
        progress(s);
        if (s->on->on_secure != NULL)
            s->on->on_secure(s->ctx);
        return;
    case TLS_WANT_READ:
        s->blocked = false;
        return;
    case TLS_WANT_WRITE:
        s->blocked = true;
        return;
    case TLS_LOST:
        error_wrap(&err, "TLS handshake");
        end(s, STREAM_END_RESET, &err);
        return;
    default:
        end(s, STREAM_END_TLS, &err);
        return;
    }
}

/* ---- What the loop calls ---- */

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;

    (void)fd;
    (void)what;
    if (!wants_read(s))
        (void)event_del(&s->readable);
    else if (s->state == STATE_HANDSHAKE)
        handshake(s);
    else if (s->state == STATE_FLUSHING || s->state == STATE_LINGERING)
        discard_some(s);
    else
        read_some(s);
    if (is_open(s) && s->out != NULL) /* the answer does not wait for the other streams' turn */
        write_some(s);
    update(s);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;

    (void)fd;
    (void)what;
    s->blocked = false;
    if (s->state == STATE_CONNECTING) {
        connected(s);
    } else if (s->state == STATE_HANDSHAKE) {
        handshake(s);
    } else {
        write_some(s);
        if (s->secure) /* reading may have been what waited */
            read_some(s);
    }
    update(s);
}

static void end_timed_out(struct stream *s)
{
    struct error err = ERROR_INIT;
    double seconds = (double)s->timeout_ms / 1000;

    if (s->state == STATE_CONNECTING)
        error_set(&err, ERROR_IO, "connect to %s port %u: no answer within %g s", s->peer_text,
                  (unsigned)s->port, seconds);
    else if (s->state == STATE_FLUSHING || s->state == STATE_LINGERING)
        error_set(&err, ERROR_IO, "%s did not close the connection within %g s", s->peer_text,
                  seconds);
    else if (s->state == STATE_HANDSHAKE)
        error_set(&err, ERROR_IO, "%s did not finish the TLS handshake within %g s", s->peer_text,
                  seconds);
    else if (s->out != NULL)
        error_set(&err, ERROR_IO, "%s accepted no data for %g s", s->peer_text, seconds);
    else
        error_set(&err, ERROR_IO, "%s sent nothing for %g s", s->peer_text, seconds);
    end(s, STREAM_END_TIMEOUT, &err);
}

static void start_timer(struct stream *s, uint64_t ms)
{
    struct timeval tv = timeval_of(ms);

    (void)event_add(&s->timer, &tv);
}

/* The timer is not moved at every octet; it looks here how long the silence really was. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;
    uint64_t silent = monotonic_ms() - s->progress_ms;
    bool shutting = s->state == STATE_FLUSHING || s->state == STATE_LINGERING;

    (void)fd;
    (void)what;
    if (is_open(s) && s->paused && s->out == NULL) /* the peer waits for us */
        silent = 0;
    if (!shutting && silent < s->timeout_ms)
        start_timer(s, s->timeout_ms - silent);
    else
        end_timed_out(s);
    update(s);
}

/* A stream_shutdown() of a stream that has no socket any more gets its on_end. */
static void tell_over(struct stream *s)
{
    struct error err = ERROR_INIT;

    error_set(&err, ERROR_IO, "the connection to %s is gone already", s->peer_text);
    tell(s, STREAM_END_RESET, &err);
}

static void take_turn(struct stream *s)
{
    if (s->state == STATE_OVER) {
        tell_over(s);
        return;
    }
    if (s->state == STATE_CONNECTING) {
        end_refused(s, s->lost);
        return;
    }
    write_some(s);
    if (can_offer(s))
        offer_kept(s);
    if (is_lost(s) && s->paused) /* whoever waits for on_drained must not wait for ever */
        end_lost(s, s->lost);
    else if (s->secure || s->lost != 0)
        read_some(s);
    update(s);
}

static void give_back(struct stream *s)
{
    s->loop->streams--;
    free(s);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct stream_loop *loop = arg;
    struct stream *s = loop->first_turn;
    struct stream *next = NULL;

    (void)fd;
    (void)what;
    loop->first_turn = NULL;
    loop->last_turn = NULL;
    loop->in_turn = true;
    for (; s != NULL; s = next) {
        next = s->next_turn;
        s->in_turn = false;
        if (s->freed)
            give_back(s);
        else
            take_turn(s);
    }
    loop->in_turn = false;
}

/* ---- What others call ---- */

struct stream_loop *stream_loop_new(struct event_base *base)
{
    struct stream_loop *loop = malloc(sizeof(*loop)); /* not calloc: the buffer stays untouched */

    if (loop == NULL)
        return NULL;
    loop->base = base;
    loop->in_turn = false;
    loop->first_turn = NULL;
    loop->last_turn = NULL;
    loop->streams = 0;
    if (event_assign(&loop->turn, base, -1, 0, on_turn, loop) != 0) {
        free(loop);
        return NULL;
    }
    return loop;
}

struct event_base *stream_loop_base(const struct stream_loop *loop)
{
    return loop->base;
}

void stream_loop_free(struct stream_loop *loop)
{
    struct stream *next = NULL;

    if (loop == NULL)
        return;
    (void)event_del(&loop->turn);
    for (struct stream *s = loop->first_turn; s != NULL; s = next) {
        next = s->next_turn;
        if (s->freed)
            give_back(s);
    }
    assert(loop->streams == 0);
    free(loop);
}

/* Takes fd only when it succeeds. */
static struct stream *stream_new(struct stream_loop *loop, int fd,
                                 const struct stream_events *events, void *ctx)
{
    const int on = 1;
    struct stream *s = malloc(sizeof(*s));

    if (s == NULL)
        return NULL;
    *s = (struct stream){.loop = loop, .on = events, .ctx = ctx, .fd = fd};
    if (event_assign(&s->readable, loop->base, fd, EV_READ | EV_PERSIST, on_readable, s) != 0 ||
        event_assign(&s->writable, loop->base, fd, EV_WRITE | EV_PERSIST, on_writable, s) != 0 ||
        event_assign(&s->timer, loop->base, -1, 0, on_timer, s) != 0) {
        free(s);
        return NULL;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* fails for unix sockets */
    progress(s);
    loop->streams++;
    return s;
}

static bool prepare_fd(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
           fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

struct stream *stream_accepted(struct stream_loop *loop, int fd, const struct stream_events *events,
                               void *ctx)
{
    struct sockaddr_storage from = {0};
    socklen_t len = sizeof(from);
    struct stream *s = prepare_fd(fd) ? stream_new(loop, fd, events, ctx) : NULL;

    if (s == NULL) {
        (void)close(fd);
        return NULL;
    }
    if (getpeername(fd, (struct sockaddr *)&from, &len) != 0 ||
        !net_from_sockaddr((const struct sockaddr *)&from, &s->peer))
        s->peer = (struct net_address){0};
    net_text(&s->peer, s->peer_text);
    s->state = STATE_CLEAR;
    update(s);
    return s;
}

static socklen_t to_sockaddr(const struct net_address *a, uint16_t port,
                             struct sockaddr_storage *out)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

    if (a->family == 4) {
        memcpy(&v4.sin_addr, a->bytes, sizeof(v4.sin_addr));
        memcpy(out, &v4, sizeof(v4));
        return sizeof(v4);
    }
    memcpy(&v6.sin6_addr, a->bytes, sizeof(v6.sin6_addr));
    memcpy(out, &v6, sizeof(v6));
    return sizeof(v6);
}

struct stream *stream_connect(struct stream_loop *loop, const struct net_address *address,
                              uint16_t port, const struct stream_events *events, void *ctx,
                              struct error *err)
{
    struct sockaddr_storage to;
    socklen_t len = to_sockaddr(address, port, &to);
    struct stream *s = NULL;
    int fd = -1;

    if (address->family != 4 && address->family != 6) {
        error_set(err, ERROR_INVALID, "connect: no address");
        return NULL;
    }
    fd = socket(to.ss_family, SOCK_STREAM, 0);
    if (fd < 0 || !prepare_fd(fd) || (s = stream_new(loop, fd, events, ctx)) == NULL) {
        error_errno(err, errno, "open a socket");
        if (fd >= 0)
            (void)close(fd);
        return NULL;
    }
    s->peer = *address;
    s->port = port;
    s->hurries = true;
    net_text(address, s->peer_text);
    s->state = STATE_CONNECTING;
    if (connect(fd, (const struct sockaddr *)&to, len) != 0 && errno != EINPROGRESS) {
        s->lost = errno;
        queue_turn(s);
    }
    update(s);
    return s;
}

void stream_free(struct stream *s)
{
    if (s == NULL)
        return;
    assert(!s->freed);
    s->freed = true;
    s->told = true;
    close_socket(s);
    drop_tls(s);
    queue_turn(s);
}

bool stream_write(struct stream *s, const void *data, size_t len)
{
    bool usable = s->state < STATE_BROKEN && s->state != STATE_SECURING && s->lost == 0;

    if (len == 0 || !usable) /* nobody will miss it: on_end tells */
        return true;
    if (s->out == NULL)
        s->out = evbuffer_new();
    if (s->out == NULL || evbuffer_add(s->out, data, len) != 0)
        return false;
    update(s);
    return true;
}

size_t stream_pending(const struct stream *s)
{
    return s->out != NULL ? evbuffer_get_length(s->out) : 0;
}

void stream_pause(struct stream *s)
{
    s->paused = true;
    update(s);
}

void stream_resume(struct stream *s)
{
    if (s->paused)
        progress(s);
    s->paused = false;
    s->offer = s->kept_len > 0;
    update(s);
}

void stream_set_timeout(struct stream *s, uint64_t ms)
{
    if (s->told || s->state >= STATE_FLUSHING)
        return;
    s->timeout_ms = ms;
    progress(s);
    if (ms == 0)
        (void)event_del(&s->timer);
    else
        start_timer(s, ms);
}

void stream_start_tls_client(struct stream *s, struct tls_context *tls, const char *host)
{
    assert(s->state != STATE_CONNECTING && s->tls == NULL);
    if (s->state != STATE_CLEAR || s->told)
        return;
    if (s->kept_len > 0)
        s->refusal = "the peer sent more in the clear, behind its answer to STARTTLS";
    else if (s->out != NULL)
        s->refusal = "the peer answered STARTTLS before all of it was sent";
    drop_kept(s);
    drop_output(s);
    s->tls = tls_client_start(tls, s->fd, host);
    if (s->tls == NULL)
        s->refusal = "no memory, or the host's name is not usable";
    begin_handshake(s);
    update(s);
}

void stream_start_tls_server(struct stream *s, struct tls_context *tls, enum stream_rest rest)
{
    if (s->state != STATE_CLEAR || s->told)
        return;
    assert(s->tls == NULL);
    s->serves = true;
    s->rest = rest;
    s->tls = tls_server_start(tls, s->fd, s->peer_text);
    if (s->tls == NULL)
        s->refusal = "no memory";
    leave(s, s->kept, s->kept_len);
    drop_kept(s);
    if (s->out != NULL)
        s->state = STATE_SECURING;
    else
        begin_handshake(s);
    update(s);
}

bool stream_is_secure(const struct stream *s)
{
    return s->secure;
}

const char *stream_tls_text(struct stream *s)
{
    return s->secure ? tls_text(s->tls) : "";
}

const char *stream_tls_offered(const struct stream *s)
{
    return s->tls != NULL ? tls_offered(s->tls) : "";
}

const char *stream_peer_text(const struct stream *s)
{
    return s->peer_text;
}

const struct net_address *stream_peer(const struct stream *s)
{
    return &s->peer;
}

void stream_shutdown(struct stream *s, uint64_t linger_ms)
{
    if (s->state == STATE_FLUSHING || s->state == STATE_LINGERING)
        return;
    s->told = false;
    s->paused = false;
    if (s->state == STATE_CONNECTING)
        close_socket(s);
    if (s->state == STATE_OVER || s->lost != 0) {
        close_socket(s);
        queue_turn(s);
        return;
    }
    if (!is_open(s)) {
        drop_output(s);
        drop_tls(s);
        s->blocked = false;
    }
    drop_kept(s);
    s->state = STATE_FLUSHING;
    s->timeout_ms = linger_ms;
    start_timer(s, linger_ms);
    update(s);
}
