#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "relay/base/stream.h"
#include "relay/base/tls.h"

#define GUARD_S    10 /* a test that waits longer for an event has failed */
#define SEEN_MAX   (4u << 20)
#define LARGE      (16u << 20) /* more than the kernel takes at once */
#define FLOOD      (3u << 20)
#define DAY_S      86400L
#define HOST       "mail.example"
#define LINE_MAX_C 256

/* ---- One stream and what its callbacks were told ---- */

struct side {
    struct stream *s;
    struct event_base *base;
    uint8_t *seen;
    size_t seen_len;
    size_t take;  /* on_data takes at most this much at a time */
    size_t calls; /* of on_data */
    unsigned drained;
    unsigned connected;
    unsigned secure;
    unsigned ends;
    enum stream_end end;
    struct error err;
    bool in_call;      /* one of our calls into the stream is on the stack */
    bool reentered;    /* a callback came from within it */
    bool pause_first;  /* the first on_data pauses */
    bool pause_always; /* every one does */
    bool free_on_data, free_on_end, free_on_drained, free_on_secure;
    struct tls_context *start_tls; /* the first on_data starts TLS */
    size_t until;                  /* run() stops once this much was seen */
    size_t refill;                 /* on_drained writes so much more, piece by piece */
};

static void stop(struct side *w)
{
    event_base_loopbreak(w->base);
}

static void note(struct side *w)
{
    if (w->in_call)
        w->reentered = true;
}

static void drop(struct side *w)
{
    stream_free(w->s);
    w->s = NULL;
    stop(w);
}

static size_t on_data(void *ctx, const uint8_t *data, size_t len)
{
    struct side *w = ctx;
    size_t took = len < w->take ? len : w->take;

    note(w);
    w->calls++;
    assert_true(w->seen_len + took <= SEEN_MAX);
    memcpy(w->seen + w->seen_len, data, took);
    w->seen_len += took;
    if (w->pause_always || (w->pause_first && w->calls == 1))
        stream_pause(w->s);
    if (w->start_tls != NULL && w->calls == 1)
        stream_start_tls_client(w->s, w->start_tls, HOST);
    if (w->free_on_data)
        drop(w);
    if (w->seen_len >= w->until || (w->pause_first && w->calls == 1))
        stop(w);
    return took;
}

static void on_drained(void *ctx)
{
    static const uint8_t piece[65536];
    struct side *w = ctx;
    size_t len = w->refill < sizeof(piece) ? w->refill : sizeof(piece);

    note(w);
    w->drained++;
    if (w->free_on_drained) {
        drop(w);
        return;
    }
    if (w->refill == 0) {
        stop(w);
        return;
    }
    w->refill -= len;
    assert_true(stream_write(w->s, piece, len));
}

static void on_connected(void *ctx)
{
    struct side *w = ctx;

    note(w);
    w->connected++;
    stop(w);
}

static void on_secure(void *ctx)
{
    struct side *w = ctx;

    note(w);
    w->secure++;
    if (w->free_on_secure)
        drop(w);
    stop(w);
}

static void on_end(void *ctx, enum stream_end end, const struct error *err)
{
    struct side *w = ctx;

    note(w);
    w->ends++;
    w->end = end;
    w->err = *err;
    if (w->free_on_end)
        drop(w);
    stop(w);
}

static const struct stream_events events = {on_data, on_drained, on_connected, on_secure, on_end};

/* ---- Fixture ---- */

struct bed {
    struct event_base *base;
    struct stream_loop *loop;
    struct side side;
    int peer; /* the other end, blocking */
};

static void on_guard(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    print_error("nothing happened for %d s\n", GUARD_S);
    abort();
}

/* Runs the loop until a callback stops it. */
static void run(struct bed *b)
{
    const struct timeval guard_time = {GUARD_S, 0};
    struct event *guard = evtimer_new(b->base, on_guard, NULL);

    evtimer_add(guard, &guard_time);
    b->side.in_call = false;
    event_base_dispatch(b->base);
    event_free(guard);
}

/* A few turns in which nothing is expected to stop the loop. */
static void turns(struct bed *b)
{
    for (int i = 0; i < 8; i++)
        event_base_loop(b->base, EVLOOP_NONBLOCK);
}

static void set_up(struct bed *b)
{
    *b = (struct bed){.peer = -1};
    b->base = event_base_new();
    b->loop = stream_loop_new(b->base);
    b->side = (struct side){.base = b->base, .take = SIZE_MAX, .until = 1};
    b->side.seen = malloc(SEEN_MAX);
    assert_non_null(b->base);
    assert_non_null(b->loop);
    assert_non_null(b->side.seen);
}

static void tear_down(struct bed *b)
{
    assert_false(b->side.reentered);
    stream_free(b->side.s);
    stream_loop_free(b->loop);
    event_base_free(b->base);
    free(b->side.seen);
    if (b->peer >= 0)
        close(b->peer);
}

static void use_pair(struct bed *b)
{
    int fds[2];

    set_up(b);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    b->peer = fds[1];
    b->side.s = stream_accepted(b->loop, fds[0], &events, &b->side);
    assert_non_null(b->side.s);
}

static int listen_loopback(uint16_t *out_port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *out_port = ntohs(at.sin_port);
    return fd;
}

static const struct net_address loopback = {4, {127, 0, 0, 1}};

static void start_connecting(struct bed *b, uint16_t port)
{
    struct error err = ERROR_INIT;

    b->side.s = stream_connect(b->loop, &loopback, port, &events, &b->side, &err);
    assert_non_null(b->side.s);
}

/* Connected through TCP, with the peer accepted. */
static void use_tcp(struct bed *b)
{
    uint16_t port = 0;
    int listener = listen_loopback(&port);

    set_up(b);
    start_connecting(b, port);
    assert_int_equal(b->side.connected, 0);
    run(b);
    assert_int_equal(b->side.connected, 1);
    b->peer = accept(listener, NULL, NULL);
    assert_true(b->peer >= 0);
    close(listener);
}

static void peer_sends(const struct bed *b, const char *text)
{
    assert_int_equal(send(b->peer, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void reset_by_peer(struct bed *b)
{
    const struct linger now = {1, 0};

    assert_int_equal(setsockopt(b->peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    close(b->peer);
    b->peer = -1;
}

static void expect_seen(const struct bed *b, const char *text)
{
    assert_int_equal(b->side.seen_len, strlen(text));
    assert_memory_equal(b->side.seen, text, strlen(text));
}

static void expect_end(const struct bed *b, enum stream_end end, const char *part)
{
    assert_int_equal(b->side.ends, 1);
    if (b->side.end != end || strstr(b->side.err.text, part) == NULL)
        fail_msg("ended with %d, \"%s\"; expected %d, \"%s\"", (int)b->side.end, b->side.err.text,
                 (int)end, part);
}

/* ---- In the clear ---- */

static void data_is_handed_over_as_it_arrives(void **state)
{
    struct bed b;

    (void)state;
    use_pair(&b);
    peer_sends(&b, "EHLO printer\r\n");
    run(&b);
    expect_seen(&b, "EHLO printer\r\n");
    peer_sends(&b, "QUIT\r\n");
    run(&b);
    expect_seen(&b, "EHLO printer\r\nQUIT\r\n");
    assert_int_equal(b.side.calls, 2);
    tear_down(&b);
}

static void what_on_data_leaves_comes_again_with_what_follows(void **state)
{
    struct bed b;

    (void)state;
    use_pair(&b);
    b.side.take = 0;
    b.side.until = 0;
    peer_sends(&b, "MAIL FR");
    run(&b);
    assert_int_equal(b.side.calls, 1);
    turns(&b);
    assert_int_equal(b.side.calls, 1);
    b.side.take = SIZE_MAX;
    peer_sends(&b, "OM:<>\r\n");
    run(&b);
    expect_seen(&b, "MAIL FROM:<>\r\n");
    tear_down(&b);
}

static void a_paused_stream_hands_over_nothing_until_it_is_resumed(void **state)
{
    struct bed b;

    (void)state;
    use_pair(&b);
    b.side.take = 3;
    b.side.pause_first = true;
    peer_sends(&b, "abcdef");
    run(&b);
    peer_sends(&b, "ghi");
    turns(&b);
    expect_seen(&b, "abc");
    b.side.take = SIZE_MAX;
    b.side.until = 9;
    b.side.in_call = true;
    stream_resume(b.side.s);
    run(&b);
    expect_seen(&b, "abcdefghi");
    tear_down(&b);
}

static void an_end_waits_for_what_was_left_while_paused(void **state)
{
    struct bed b;

    (void)state;
    use_pair(&b);
    b.side.take = 3;
    b.side.pause_first = true;
    peer_sends(&b, "abcdef");
    run(&b);
    close(b.peer);
    b.peer = -1;
    turns(&b);
    assert_int_equal(b.side.ends, 0);
    b.side.take = SIZE_MAX;
    b.side.until = SIZE_MAX;
    stream_resume(b.side.s);
    run(&b);
    expect_seen(&b, "abcdef");
    expect_end(&b, STREAM_END_CLOSED, "closed");
    assert_int_equal(b.side.err.kind, ERROR_NONE);
    tear_down(&b);
}

static void a_consumer_that_takes_nothing_is_not_fed_beyond_the_limit(void **state)
{
    static uint8_t flood[STREAM_KEEP_MAX + 4096];
    struct bed b;
    size_t calls = 0;

    (void)state;
    use_pair(&b);
    b.side.take = 0;
    b.side.until = SIZE_MAX;
    assert_int_equal(send(b.peer, flood, sizeof(flood), 0), sizeof(flood));
    turns(&b);
    calls = b.side.calls;
    turns(&b);
    assert_int_equal(b.side.calls, calls);
    b.side.take = SIZE_MAX;
    b.side.until = sizeof(flood);
    stream_resume(b.side.s);
    run(&b);
    assert_int_equal(b.side.seen_len, sizeof(flood));
    tear_down(&b);
}

static void a_half_closed_peer_still_gets_its_replies(void **state)
{
    struct bed b;
    char got[32] = "";

    (void)state;
    use_tcp(&b);
    b.side.until = SIZE_MAX;
    peer_sends(&b, "QUIT\r\n");
    shutdown(b.peer, SHUT_WR);
    run(&b);
    expect_seen(&b, "QUIT\r\n");
    expect_end(&b, STREAM_END_CLOSED, "closed");
    b.side.ends = 0;
    assert_true(stream_write(b.side.s, "221 2.0.0 bye\r\n", 15));
    b.side.in_call = true;
    stream_shutdown(b.side.s, 5000);
    run(&b);
    expect_end(&b, STREAM_END_CLOSED, "closed");
    assert_int_equal(recv(b.peer, got, sizeof(got), 0), 15);
    assert_memory_equal(got, "221 2.0.0 bye\r\n", 15);
    assert_int_equal(recv(b.peer, got, sizeof(got), 0), 0);
    tear_down(&b);
}

static void a_reset_is_told_with_its_reason(void **state)
{
    struct bed b;

    (void)state;
    use_tcp(&b);
    reset_by_peer(&b);
    run(&b);
    expect_end(&b, STREAM_END_RESET, "connection to 127.0.0.1 lost: Connection reset by peer");
    b.side.ends = 0;
    stream_shutdown(b.side.s, 1000);
    run(&b);
    expect_end(&b, STREAM_END_RESET, "gone already");
    tear_down(&b);
}

static void writes_of_one_turn_leave_together_and_drain_once(void **state)
{
    struct bed b;
    char got[32] = "";

    (void)state;
    use_tcp(&b);
    b.side.in_call = true;
    assert_true(stream_write(b.side.s, "MAIL\r\n", 6));
    assert_true(stream_write(b.side.s, "RCPT\r\n", 6));
    assert_int_equal(stream_pending(b.side.s), 12);
    run(&b);
    assert_int_equal(b.side.drained, 1);
    assert_int_equal(stream_pending(b.side.s), 0);
    assert_int_equal(recv(b.peer, got, sizeof(got), 0), 12);
    assert_memory_equal(got, "MAIL\r\nRCPT\r\n", 12);
    tear_down(&b);
}

struct sink {
    int fd;
    size_t total;
    size_t limit; /* stops here */
};

static void *sink_thread(void *arg)
{
    struct sink *k = arg;
    char buf[8192];
    ssize_t n = 0;

    while (k->total < k->limit && (n = recv(k->fd, buf, sizeof(buf), 0)) > 0)
        k->total += (size_t)n;
    return NULL;
}

static void a_large_write_waits_for_the_peer_and_arrives_whole(void **state)
{
    struct bed b;
    struct sink k;
    pthread_t thread;
    uint8_t *data = calloc(1, LARGE);

    (void)state;
    use_tcp(&b);
    k = (struct sink){.fd = b.peer, .limit = 2 * (size_t)LARGE};
    assert_true(stream_write(b.side.s, data, LARGE));
    b.side.refill = LARGE;
    turns(&b);
    assert_int_equal(b.side.drained, 0);
    assert_true(stream_pending(b.side.s) > 0);
    pthread_create(&thread, NULL, sink_thread, &k);
    run(&b);
    pthread_join(thread, NULL);
    assert_int_equal(k.total, 2 * (size_t)LARGE);
    assert_true(b.side.drained > LARGE / 65536);
    free(data);
    tear_down(&b);
}

static void the_last_reply_is_read_before_a_failed_write_is_told(void **state)
{
    static uint8_t data[LARGE];
    struct bed b;

    (void)state;
    use_tcp(&b);
    b.side.until = SIZE_MAX;
    assert_true(stream_write(b.side.s, data, sizeof(data)));
    turns(&b);
    peer_sends(&b, "552 5.3.4 too big\r\n");
    close(b.peer); /* with octets unread: a reset */
    b.peer = -1;
    run(&b);
    expect_seen(&b, "552 5.3.4 too big\r\n");
    expect_end(&b, STREAM_END_RESET, "lost");
    tear_down(&b);
}

static void a_paused_writer_hears_of_a_lost_connection(void **state)
{
    static uint8_t data[LARGE];
    struct bed b;

    (void)state;
    use_tcp(&b);
    stream_pause(b.side.s);
    assert_true(stream_write(b.side.s, data, sizeof(data)));
    turns(&b);
    reset_by_peer(&b);
    run(&b);
    expect_end(&b, STREAM_END_RESET, "lost");
    tear_down(&b);
}

static void a_refused_connection_is_told_from_the_loop(void **state)
{
    struct bed b;
    uint16_t port = 0;

    (void)state;
    set_up(&b);
    close(listen_loopback(&port));
    b.side.in_call = true;
    start_connecting(&b, port);
    run(&b);
    expect_end(&b, STREAM_END_REFUSED, "Connection refused");
    assert_int_equal(b.side.connected, 0);
    tear_down(&b);
}

static void an_unreachable_address_is_told_from_the_loop(void **state)
{
    const struct net_address nowhere = {4, {255, 255, 255, 255}};
    struct error err = ERROR_INIT;
    struct bed b;

    (void)state;
    set_up(&b);
    b.side.in_call = true;
    b.side.s = stream_connect(b.loop, &nowhere, 25, &events, &b.side, &err);
    assert_non_null(b.side.s);
    assert_int_equal(b.side.ends, 0);
    run(&b);
    expect_end(&b, STREAM_END_REFUSED, "connect to 255.255.255.255 port 25: ");
    tear_down(&b);
}

static void no_address_cannot_be_tried(void **state)
{
    const struct net_address none = {0};
    struct error err = ERROR_INIT;
    struct bed b;

    (void)state;
    set_up(&b);
    assert_null(stream_connect(b.loop, &none, 25, &events, &b.side, &err));
    assert_int_equal(err.kind, ERROR_INVALID);
    tear_down(&b);
}

static void sockets_are_non_blocking_and_send_small_packets_at_once(void **state)
{
    struct bed b;
    uint16_t port = 0;
    int listener = listen_loopback(&port);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = -1;
    int on = 0;
    socklen_t len = sizeof(on);
    char byte = 0;

    (void)state;
    set_up(&b);
    assert_int_equal(connect(client, (struct sockaddr *)&to, sizeof(to)), 0);
    fd = accept(listener, NULL, NULL);
    b.side.s = stream_accepted(b.loop, fd, &events, &b.side);
    assert_string_equal(stream_peer_text(b.side.s), "127.0.0.1");
    assert_true(net_equal(stream_peer(b.side.s), &loopback));
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
    assert_true(on != 0);
    assert_int_equal(recv(fd, &byte, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
    close(client);
    close(listener);
    tear_down(&b);
}

static void streams_may_be_freed_in_any_callback(void **state)
{
    static uint8_t data[16];
    struct bed b;

    (void)state;
    use_pair(&b);
    b.side.free_on_data = true;
    peer_sends(&b, "x");
    run(&b);
    assert_null(b.side.s);
    turns(&b);
    tear_down(&b);

    use_pair(&b);
    b.side.free_on_drained = true;
    assert_true(stream_write(b.side.s, data, sizeof(data)));
    run(&b);
    assert_null(b.side.s);
    tear_down(&b);

    use_pair(&b);
    b.side.free_on_end = true;
    close(b.peer);
    b.peer = -1;
    run(&b);
    assert_null(b.side.s);
    tear_down(&b);
}

static void silence_ends_a_stream_after_its_timeout(void **state)
{
    struct bed b;

    (void)state;
    use_pair(&b);
    stream_set_timeout(b.side.s, 20);
    run(&b);
    expect_end(&b, STREAM_END_TIMEOUT, "sent nothing for 0.02 s");
    b.side.ends = 0;
    close(b.peer);
    b.peer = -1;
    stream_shutdown(b.side.s, 5000);
    run(&b);
    expect_end(&b, STREAM_END_CLOSED, "closed");
    tear_down(&b);
}

static void a_peer_that_takes_nothing_is_timed_out(void **state)
{
    static uint8_t data[LARGE];
    struct bed b;

    (void)state;
    use_tcp(&b);
    stream_pause(b.side.s);
    assert_true(stream_write(b.side.s, data, sizeof(data)));
    stream_set_timeout(b.side.s, 20);
    run(&b);
    expect_end(&b, STREAM_END_TIMEOUT, "accepted no data");
    tear_down(&b);
}

static void on_stop_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    event_base_loopbreak(arg);
}

static void a_paused_stream_is_not_timed_out_but_a_resumed_one_is(void **state)
{
    const struct timeval later = {0, 60000};
    struct bed b;

    (void)state;
    use_pair(&b);
    stream_pause(b.side.s);
    stream_set_timeout(b.side.s, 10);
    event_base_once(b.base, -1, EV_TIMEOUT, on_stop_timer, b.base, &later);
    run(&b);
    assert_int_equal(b.side.ends, 0);
    stream_resume(b.side.s);
    run(&b);
    expect_end(&b, STREAM_END_TIMEOUT, "sent nothing");
    tear_down(&b);
}

static void shutdown_sends_what_is_pending_and_sees_the_peers_close(void **state)
{
    struct bed b;
    struct sink k;
    pthread_t thread;
    uint8_t *data = calloc(1, LARGE);

    (void)state;
    use_tcp(&b);
    k = (struct sink){.fd = b.peer, .limit = SIZE_MAX};
    assert_true(stream_write(b.side.s, data, LARGE));
    stream_shutdown(b.side.s, 5000);
    pthread_create(&thread, NULL, sink_thread, &k);
    peer_sends(&b, "ignored");
    while (stream_pending(b.side.s) > 0)
        event_base_loop(b.base, EVLOOP_ONCE);
    turns(&b);
    assert_int_equal(b.side.ends, 0);
    pthread_join(thread, NULL); /* it has seen our FIN */
    assert_int_equal(k.total, LARGE);
    close(b.peer);
    b.peer = -1;
    run(&b);
    expect_end(&b, STREAM_END_CLOSED, "closed");
    assert_int_equal(b.side.calls, 0);
    assert_int_equal(b.side.drained, 0);
    free(data);
    tear_down(&b);
}

static void lingering_is_bounded_however_much_the_peer_sends(void **state)
{
    struct bed b;

    (void)state;
    use_tcp(&b);
    stream_shutdown(b.side.s, 30);
    peer_sends(&b, "still here");
    run(&b);
    expect_end(&b, STREAM_END_TIMEOUT, "did not close the connection within 0.03 s");
    tear_down(&b);
}

static void shutdown_of_a_stream_that_is_connecting_ends_too(void **state)
{
    struct bed b;
    uint16_t port = 0;
    int listener = listen_loopback(&port);

    (void)state;
    set_up(&b);
    start_connecting(&b, port);
    b.side.in_call = true;
    stream_shutdown(b.side.s, 1000);
    run(&b);
    expect_end(&b, STREAM_END_RESET, "gone");
    assert_int_equal(b.side.connected, 0);
    close(listener);
    tear_down(&b);
}

/* ---- Through TLS ---- */

struct identity {
    EVP_PKEY *key;
    X509 *cert;
};

struct cert_spec {
    const char *name;   /* subject alternative name: "DNS:..." or "IP:..." */
    const char *common; /* common name */
    long from_s, to_s;  /* validity from now */
    bool authority;
};

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext = NULL;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    X509_add_ext(cert, ext, -1);
    X509_EXTENSION_free(ext);
}

/* Signed by issuer, or by itself. */
static struct identity make_identity(const struct cert_spec *spec, const struct identity *issuer)
{
    static long serial = 1;
    struct identity id = {EVP_EC_gen("P-256"), X509_new()};
    X509_NAME *name = X509_get_subject_name(id.cert);

    X509_set_version(id.cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(id.cert), spec->from_s);
    X509_gmtime_adj(X509_getm_notAfter(id.cert), spec->to_s);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)spec->common, -1,
                               -1, 0);
    X509_set_issuer_name(id.cert, issuer ? X509_get_subject_name(issuer->cert) : name);
    X509_set_pubkey(id.cert, id.key);
    if (spec->authority)
        add_extension(id.cert, id.cert, NID_basic_constraints, "critical,CA:TRUE");
    if (spec->name != NULL)
        add_extension(id.cert, issuer ? issuer->cert : id.cert, NID_subject_alt_name, spec->name);
    assert_true(X509_sign(id.cert, issuer ? issuer->key : id.key, EVP_sha256()) > 0);
    return id;
}

static void drop_identity(struct identity *id)
{
    EVP_PKEY_free(id->key);
    X509_free(id->cert);
}

static const struct cert_spec authority_spec = {NULL, "Office authority", -DAY_S, DAY_S, true};
static const struct cert_spec good_spec = {"DNS:" HOST, HOST, -DAY_S, DAY_S, false};

static struct identity authority; /* made once, in main() */
static char ca_file[] = "/tmp/test_stream_ca.XXXXXX";

static void write_ca_file(void)
{
    int fd = mkstemp(ca_file);
    FILE *f = fdopen(fd, "w");

    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, authority.cert), 1);
    assert_int_equal(fclose(f), 0);
}

/* What the server does after its handshake. */
enum script {
    SCRIPT_ECHO_LINE,  /* reads a line, sends it back, closes orderly */
    SCRIPT_REPLY,      /* sends a reply and closes orderly */
    SCRIPT_CUT,        /* sends a reply and closes without close_notify */
    SCRIPT_SINK,       /* reads to the end, slowly at first */
    SCRIPT_FLOOD,      /* sends FLOOD octets and closes orderly */
    SCRIPT_REPLY_LOST, /* reads a little, sends a reply, leaves with octets unread */
    SCRIPT_SILENT,     /* no handshake: waits for the end */
    SCRIPT_GARBAGE     /* no handshake: speaks SMTP */
};

struct server {
    int fd;
    enum script script;
    struct identity id;
    SSL_CTX *ctx;
    pthread_t thread;
    size_t total;
    bool accepted;
    bool resumed;
    bool notified; /* the client sent close_notify */
};

static void serve_echo(struct server *v, SSL *ssl)
{
    char line[LINE_MAX_C];
    int n = SSL_read(ssl, line, sizeof(line));

    if (n <= 0)
        return;
    SSL_write(ssl, line, n);
    v->notified =
        SSL_read(ssl, line, sizeof(line)) == 0 && SSL_get_error(ssl, 0) == SSL_ERROR_ZERO_RETURN;
    SSL_shutdown(ssl);
}

static void serve_sink(struct server *v, SSL *ssl)
{
    char buf[4096];
    int n = 0;

    while ((n = SSL_read(ssl, buf, sizeof(buf))) > 0)
        v->total += (size_t)n;
    v->notified = SSL_get_error(ssl, n) == SSL_ERROR_ZERO_RETURN;
    SSL_shutdown(ssl);
}

static void serve_flood(SSL *ssl)
{
    static const char block[16384];

    for (size_t sent = 0; sent < FLOOD; sent += sizeof(block))
        if (SSL_write(ssl, block, sizeof(block)) <= 0)
            return;
    SSL_shutdown(ssl);
}

static void serve_script(struct server *v, SSL *ssl)
{
    char some[16];

    switch (v->script) {
    case SCRIPT_ECHO_LINE:
        serve_echo(v, ssl);
        return;
    case SCRIPT_SINK:
        serve_sink(v, ssl);
        return;
    case SCRIPT_FLOOD:
        serve_flood(ssl);
        return;
    case SCRIPT_REPLY_LOST:
        SSL_read(ssl, some, sizeof(some));
        SSL_write(ssl, "432 4.3.2 too many\r\n", 20);
        return;
    default:
        SSL_write(ssl, "250 ok\r\n", 8);
        if (v->script == SCRIPT_REPLY)
            SSL_shutdown(ssl);
        return;
    }
}

static void *server_thread(void *arg)
{
    struct server *v = arg;
    char buf[LINE_MAX_C];
    SSL *ssl = NULL;

    if (v->script == SCRIPT_SILENT || v->script == SCRIPT_GARBAGE) {
        if (v->script == SCRIPT_GARBAGE)
            (void)send(v->fd, "220 mail.example ESMTP\r\n", 24, MSG_NOSIGNAL);
        while (recv(v->fd, buf, sizeof(buf), 0) > 0)
            continue;
        close(v->fd);
        return NULL;
    }
    ssl = SSL_new(v->ctx);
    SSL_set_fd(ssl, v->fd);
    v->accepted = SSL_accept(ssl) == 1;
    v->resumed = SSL_session_reused(ssl) == 1;
    if (v->accepted)
        serve_script(v, ssl);
    close(v->fd);
    SSL_free(ssl);
    return NULL;
}

static SSL_CTX *server_context(const struct identity *id, int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    SSL_CTX_set_security_level(ctx, 0);
    SSL_CTX_set_max_proto_version(ctx, version);
    assert_int_equal(SSL_CTX_use_certificate(ctx, id->cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(ctx, id->key), 1);
    return ctx;
}

static void serve(struct server *v, struct bed *b, enum script script)
{
    v->script = script;
    v->fd = b->peer;
    v->accepted = v->resumed = v->notified = false;
    v->total = 0;
    b->peer = -1;
    assert_int_equal(pthread_create(&v->thread, NULL, server_thread, v), 0);
}

static void server_new(struct server *v, const struct cert_spec *spec, int version)
{
    *v = (struct server){0};
    v->id = make_identity(spec, &authority);
    v->ctx = server_context(&v->id, version);
}

static void server_done(struct server *v)
{
    SSL_CTX_free(v->ctx);
    drop_identity(&v->id);
}

static struct tls_context *client(const char *ca)
{
    struct error err = ERROR_INIT;
    struct tls_context *tls = tls_client_new(ca, &err);

    if (tls == NULL)
        fail_msg("%s", err.text);
    return tls;
}

/* Connects, starts the server and does the handshake. */
static void use_tls(struct bed *b, struct server *v, struct tls_context *tls, enum script script)
{
    use_tcp(b);
    serve(v, b, script);
    b->side.in_call = true;
    stream_start_tls_client(b->side.s, tls, HOST);
    run(b);
}

static void finish(struct bed *b, struct server *v)
{
    stream_free(b->side.s);
    b->side.s = NULL;
    pthread_join(v->thread, NULL);
    tear_down(b);
}

static void a_line_goes_through_tls_and_back(void **state)
{
    static const struct {
        const char *name;
        int version;
        const char *text;
    } rows[] = {{"TLS 1.2", TLS1_2_VERSION, "TLSv1.2 "}, {"TLS 1.3", TLS1_3_VERSION, "TLSv1.3 "}};
    struct tls_context *tls = client(ca_file);

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct bed b;
        struct server v;

        server_new(&v, &good_spec, rows[i].version);
        use_tls(&b, &v, tls, SCRIPT_ECHO_LINE);
        assert_int_equal(b.side.secure, 1);
        assert_true(stream_is_secure(b.side.s));
        assert_ptr_equal(strstr(stream_tls_text(b.side.s), rows[i].text),
                         stream_tls_text(b.side.s));
        assert_true(stream_write(b.side.s, "EHLO us\r\n", 9));
        while (b.side.seen_len < 9)
            run(&b);
        expect_seen(&b, "EHLO us\r\n");
        stream_shutdown(b.side.s, 5000);
        run(&b);
        expect_end(&b, STREAM_END_CLOSED, "closed");
        finish(&b, &v);
        assert_true(v.notified);
        server_done(&v);
    }
    tls_context_free(tls);
}

static void a_certificate_that_does_not_fit_is_refused_in_words(void **state)
{
    static const struct {
        const char *name;
        struct cert_spec spec;
        bool own_authority;
        const char *ca;
        const char *words[3];
    } rows[] = {
        {"wrong name",
         {"DNS:other.example,DNS:*.third.example", "x", -DAY_S, DAY_S, false},
         true,
         ca_file,
         {HOST, "(other.example, *.third.example)", "host of the mailbox"}},
        {"name in the common name only, of another kind",
         {"IP:192.0.2.1", "printer room", -DAY_S, DAY_S, false},
         true,
         ca_file,
         {HOST, "(printer?room)", "host of the mailbox"}},
        {"expired",
         {"DNS:" HOST, HOST, -2 * DAY_S, -DAY_S, false},
         true,
         ca_file,
         {HOST, "expired 20", "set the clock"}},
        {"not yet valid",
         {"DNS:" HOST, HOST, DAY_S, 2 * DAY_S, false},
         true,
         ca_file,
         {HOST, "is not valid before 20", "set the clock"}},
        {"unknown to the system",
         {"DNS:" HOST, HOST, -DAY_S, DAY_S, false},
         true,
         "",
         {HOST, "unable to get local issuer certificate", "set ca_file of the mailbox"}},
        {"self-signed, not in ca_file",
         {"DNS:" HOST, HOST, -DAY_S, DAY_S, false},
         false,
         ca_file,
         {HOST, "self-signed certificate", "put the authority's certificate into that file"}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bed b;
        struct server v = {0};
        struct tls_context *tls = client(rows[i].ca);

        v.id = make_identity(&rows[i].spec, rows[i].own_authority ? &authority : NULL);
        v.ctx = server_context(&v.id, TLS1_3_VERSION);
        use_tls(&b, &v, tls, SCRIPT_ECHO_LINE);
        assert_int_equal(b.side.secure, 0);
        for (size_t w = 0; w < 3; w++)
            expect_end(&b, STREAM_END_TLS, rows[i].words[w]);
        assert_false(stream_is_secure(b.side.s));
        b.side.ends = 0;
        assert_true(stream_write(b.side.s, "AUTH secret\r\n", 13));
        assert_int_equal(stream_pending(b.side.s), 0);
        stream_shutdown(b.side.s, 5000);
        run(&b);
        assert_true(b.side.end == STREAM_END_CLOSED || b.side.end == STREAM_END_RESET);
        finish(&b, &v);
        assert_int_equal(v.total, 0);
        server_done(&v);
        tls_context_free(tls);
    }
}

static void a_self_signed_certificate_in_ca_file_is_trusted(void **state)
{
    char path[] = "/tmp/test_stream_self.XXXXXX";
    FILE *f = fdopen(mkstemp(path), "w");
    struct server v = {0};
    struct tls_context *tls = NULL;
    struct bed b;

    (void)state;
    v.id = make_identity(&good_spec, NULL);
    v.ctx = server_context(&v.id, TLS1_3_VERSION);
    assert_int_equal(PEM_write_X509(f, v.id.cert), 1);
    assert_int_equal(fclose(f), 0);
    tls = client(path);
    assert_int_equal(unlink(path), 0);
    use_tls(&b, &v, tls, SCRIPT_CUT);
    assert_int_equal(b.side.secure, 1);
    finish(&b, &v);
    server_done(&v);
    tls_context_free(tls);
}

static void the_systems_authorities_are_found_by_hash_or_in_the_bundle(void **state)
{
    static const bool hashed[] = {true, false};
    char dir[] = "/tmp/test_stream_dir.XXXXXX";
    char link[64];

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(link, sizeof(link), "%s/%08lx.0", dir, X509_subject_name_hash(authority.cert));
    setenv("SSL_CERT_DIR", dir, 1);
    for (size_t i = 0; i < 2; i++) {
        struct tls_context *tls = NULL;
        struct server v;
        struct bed b;

        if (hashed[i])
            assert_int_equal(symlink(ca_file, link), 0);
        else
            setenv("SSL_CERT_FILE", ca_file, 1);
        tls = client("");
        server_new(&v, &good_spec, TLS1_3_VERSION);
        use_tls(&b, &v, tls, SCRIPT_REPLY);
        assert_int_equal(b.side.secure, 1);
        finish(&b, &v);
        server_done(&v);
        tls_context_free(tls);
        (void)unlink(link);
    }
    unsetenv("SSL_CERT_FILE");
    unsetenv("SSL_CERT_DIR");
    assert_int_equal(rmdir(dir), 0);
}

static void a_ca_file_that_cannot_be_used_is_told(void **state)
{
    struct error err = ERROR_INIT;

    (void)state;
    assert_null(tls_client_new("/nowhere/ca.pem", &err));
    assert_string_equal(err.text, "read ca_file /nowhere/ca.pem: No such file or directory");
    assert_null(tls_client_new("/dev/null", &err));
    assert_non_null(strstr(err.text, "ca_file /dev/null holds no certificate"));
}

static void a_server_without_tls_is_named_as_such(void **state)
{
    struct tls_context *tls = client(ca_file);
    struct server v;
    struct bed b;

    (void)state;
    server_new(&v, &good_spec, TLS1_3_VERSION);
    use_tls(&b, &v, tls, SCRIPT_GARBAGE);
    expect_end(&b, STREAM_END_TLS, "did not answer with TLS; check port and tls of the mailbox");
    finish(&b, &v);
    server_done(&v);
    tls_context_free(tls);
}

static void a_server_with_tls_1_1_only_is_refused(void **state)
{
    struct tls_context *tls = client(ca_file);
    struct server v;
    struct bed b;

    (void)state;
    server_new(&v, &good_spec, TLS1_1_VERSION);
    use_tls(&b, &v, tls, SCRIPT_ECHO_LINE);
    expect_end(&b, STREAM_END_TLS, "(1.2 or newer)");
    finish(&b, &v);
    server_done(&v);
    tls_context_free(tls);
}

static void plaintext_behind_the_answer_to_starttls_is_refused(void **state)
{
    struct tls_context *tls = client(ca_file);
    struct server v;
    struct bed b;

    (void)state;
    server_new(&v, &good_spec, TLS1_3_VERSION);
    use_tcp(&b);
    b.side.start_tls = tls;
    b.side.take = 11;
    b.side.until = SIZE_MAX;
    peer_sends(&b, "220 ready\r\n250 injected\r\n");
    serve(&v, &b, SCRIPT_ECHO_LINE);
    run(&b);
    expect_seen(&b, "220 ready\r\n");
    expect_end(&b, STREAM_END_TLS, "behind its answer to STARTTLS");
    assert_int_equal(b.side.secure, 0);
    finish(&b, &v);
    assert_false(v.accepted);
    server_done(&v);
    tls_context_free(tls);
}

static void plaintext_kept_from_before_is_refused_too(void **state)
{
    struct tls_context *tls = client(ca_file);
    struct bed b;

    (void)state;
    use_tcp(&b);
    b.side.take = 2;
    b.side.until = 2;
    peer_sends(&b, "abcd");
    run(&b);
    b.side.in_call = true;
    stream_start_tls_client(b.side.s, tls, HOST);
    run(&b);
    expect_end(&b, STREAM_END_TLS, "behind its answer to STARTTLS");
    tear_down(&b);
    tls_context_free(tls);
}

static void output_that_waits_for_tls_is_never_sent_in_the_clear(void **state)
{
    struct tls_context *tls = client(ca_file);
    char got[512] = "";
    struct bed b;
    ssize_t n = 0;

    (void)state;
    use_tcp(&b);
    stream_start_tls_client(b.side.s, tls, HOST);
    assert_true(stream_write(b.side.s, "AUTH secret\r\n", 13));
    turns(&b);
    stream_shutdown(b.side.s, 5000);
    turns(&b);
    while ((n = recv(b.peer, got, sizeof(got), 0)) > 0)
        assert_null(memmem(got, (size_t)n, "AUTH", 4));
    assert_int_equal(n, 0); /* our FIN */
    tear_down(&b);
    tls_context_free(tls);
}

static void a_handshake_that_hangs_is_timed_out(void **state)
{
    struct tls_context *tls = client(ca_file);
    struct bed b;

    (void)state;
    use_tcp(&b);
    stream_start_tls_client(b.side.s, tls, HOST);
    stream_set_timeout(b.side.s, 20);
    run(&b);
    expect_end(&b, STREAM_END_TIMEOUT, "TLS handshake");
    tear_down(&b);
    tls_context_free(tls);
}

static void an_end_without_close_notify_is_told_apart(void **state)
{
    struct tls_context *tls = client(ca_file);
    struct server v;
    struct bed b;

    (void)state;
    server_new(&v, &good_spec, TLS1_3_VERSION);
    use_tls(&b, &v, tls, SCRIPT_CUT);
    b.side.until = SIZE_MAX;
    run(&b);
    expect_seen(&b, "250 ok\r\n");
    expect_end(&b, STREAM_END_CLOSED, "without TLS close_notify");
    assert_int_equal(b.side.err.kind, ERROR_IO);
    finish(&b, &v);
    server_done(&v);
    tls_context_free(tls);
}

static void a_large_write_arrives_whole_through_tls(void **state)
{
    struct tls_context *tls = client(ca_file);
    uint8_t *data = calloc(1, LARGE);
    struct server v;
    struct bed b;

    (void)state;
    server_new(&v, &good_spec, TLS1_3_VERSION);
    use_tls(&b, &v, tls, SCRIPT_SINK);
    for (size_t at = 0; at < LARGE; at += LARGE / 16) /* pieces that end within records */
        assert_true(stream_write(b.side.s, data + at, LARGE / 16));
    b.side.refill = 100000;
    run(&b);
    stream_shutdown(b.side.s, 5000);
    run(&b);
    expect_end(&b, STREAM_END_CLOSED, "closed");
    finish(&b, &v);
    assert_int_equal(v.total, LARGE + 100000);
    assert_true(v.notified);
    server_done(&v);
    tls_context_free(tls);
    free(data);
}

static void a_flood_is_read_whole_through_pauses(void **state)
{
    struct tls_context *tls = client(ca_file);
    struct server v;
    struct bed b;

    (void)state;
    server_new(&v, &good_spec, TLS1_3_VERSION);
    use_tls(&b, &v, tls, SCRIPT_FLOOD);
    b.side.take = 5000; /* so that octets stay behind inside the TLS library and with the stream */
    b.side.until = 0;
    b.side.pause_always = true;
    while (b.side.ends == 0) {
        stream_resume(b.side.s);
        run(&b);
    }
    assert_int_equal(b.side.seen_len, FLOOD);
    expect_end(&b, STREAM_END_CLOSED, "closed");
    assert_int_equal(b.side.err.kind, ERROR_NONE);
    finish(&b, &v);
    server_done(&v);
    tls_context_free(tls);
}

static void the_last_reply_is_read_through_tls_before_a_failed_write_is_told(void **state)
{
    static uint8_t data[LARGE];
    struct tls_context *tls = client(ca_file);
    struct server v;
    struct bed b;

    (void)state;
    server_new(&v, &good_spec, TLS1_3_VERSION);
    use_tls(&b, &v, tls, SCRIPT_REPLY_LOST);
    b.side.until = SIZE_MAX;
    assert_true(stream_write(b.side.s, data, sizeof(data)));
    while (b.side.ends == 0)
        run(&b);
    expect_seen(&b, "432 4.3.2 too many\r\n");
    assert_int_equal(b.side.end, STREAM_END_RESET);
    finish(&b, &v);
    server_done(&v);
    tls_context_free(tls);
}

static void a_second_connection_resumes_the_session_for_the_same_name_only(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct tls_context *tls = client(ca_file);
        struct server v;
        struct bed b;

        server_new(&v,
                   &(struct cert_spec){"DNS:" HOST ",DNS:b.example", HOST, -DAY_S, DAY_S, false},
                   versions[i]);
        for (int round = 0; round < 3; round++) {
            use_tcp(&b);
            serve(&v, &b, SCRIPT_REPLY);
            stream_start_tls_client(b.side.s, tls, round == 2 ? "b.example." : HOST);
            run(&b);
            assert_int_equal(b.side.secure, 1);
            run(&b); /* the reply, and the ticket before it */
            finish(&b, &v);
            if (v.resumed != (round == 1))
                fail_msg("version %x, connection %d: resumed %d", versions[i], round, v.resumed);
        }
        server_done(&v);
        tls_context_free(tls);
    }
}

/* A session that was kept is no way around the check of what is presented later. */
static void a_certificate_that_changed_is_verified_though_a_session_is_kept(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct tls_context *tls = client(ca_file);
        struct server good;
        struct server other;
        struct bed b;

        server_new(&good, &(struct cert_spec){"DNS:" HOST, HOST, -DAY_S, DAY_S, false},
                   versions[i]);
        server_new(&other,
                   &(struct cert_spec){"DNS:else.example", "else.example", -DAY_S, DAY_S, false},
                   versions[i]);
        use_tls(&b, &good, tls, SCRIPT_REPLY);
        assert_int_equal(b.side.secure, 1);
        run(&b); /* the reply, and the ticket before it */
        finish(&b, &good);
        use_tls(&b, &other, tls, SCRIPT_REPLY);
        assert_int_equal(b.side.secure, 0);
        assert_int_equal(b.side.end, STREAM_END_TLS);
        assert_int_equal(b.side.err.kind, ERROR_UNTRUSTED);
        finish(&b, &other);
        use_tls(&b, &good, tls, SCRIPT_REPLY);
        assert_int_equal(b.side.secure, 1);
        run(&b);
        finish(&b, &good);
        assert_false(good.resumed); /* after a failure the next handshake is a full one */
        server_done(&good);
        server_done(&other);
        tls_context_free(tls);
    }
}

static void an_ip_address_is_verified_as_one(void **state)
{
    static const struct {
        const char *name;
        const char *host;
        bool fits;
    } rows[] = {{"the address", "127.0.0.1", true}, {"another", "127.0.0.2", false}};
    const struct cert_spec spec = {"IP:127.0.0.1", "x", -DAY_S, DAY_S, false};
    struct tls_context *tls = client(ca_file);

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct server v;
        struct bed b;

        server_new(&v, &spec, TLS1_3_VERSION);
        use_tcp(&b);
        serve(&v, &b, SCRIPT_CUT);
        stream_start_tls_client(b.side.s, tls, rows[i].host);
        run(&b);
        assert_int_equal(b.side.secure, rows[i].fits);
        finish(&b, &v);
        server_done(&v);
    }
    tls_context_free(tls);
}

static void contexts_and_streams_may_go_in_any_order(void **state)
{
    struct tls_context *tls = client(ca_file);
    struct server v;
    struct bed b;

    (void)state;
    server_new(&v, &good_spec, TLS1_3_VERSION);
    use_tcp(&b);
    serve(&v, &b, SCRIPT_CUT);
    b.side.free_on_secure = true;
    stream_start_tls_client(b.side.s, tls, HOST);
    run(&b);
    assert_null(b.side.s);
    finish(&b, &v);

    use_tls(&b, &v, tls, SCRIPT_CUT);
    tls_context_free(tls);
    run(&b); /* the ticket finds no context */
    expect_seen(&b, "250 ok\r\n");
    finish(&b, &v);
    server_done(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_is_handed_over_as_it_arrives),
        cmocka_unit_test(what_on_data_leaves_comes_again_with_what_follows),
        cmocka_unit_test(a_paused_stream_hands_over_nothing_until_it_is_resumed),
        cmocka_unit_test(an_end_waits_for_what_was_left_while_paused),
        cmocka_unit_test(a_consumer_that_takes_nothing_is_not_fed_beyond_the_limit),
        cmocka_unit_test(a_half_closed_peer_still_gets_its_replies),
        cmocka_unit_test(a_reset_is_told_with_its_reason),
        cmocka_unit_test(writes_of_one_turn_leave_together_and_drain_once),
        cmocka_unit_test(a_large_write_waits_for_the_peer_and_arrives_whole),
        cmocka_unit_test(the_last_reply_is_read_before_a_failed_write_is_told),
        cmocka_unit_test(a_paused_writer_hears_of_a_lost_connection),
        cmocka_unit_test(a_refused_connection_is_told_from_the_loop),
        cmocka_unit_test(an_unreachable_address_is_told_from_the_loop),
        cmocka_unit_test(no_address_cannot_be_tried),
        cmocka_unit_test(sockets_are_non_blocking_and_send_small_packets_at_once),
        cmocka_unit_test(streams_may_be_freed_in_any_callback),
        cmocka_unit_test(silence_ends_a_stream_after_its_timeout),
        cmocka_unit_test(a_peer_that_takes_nothing_is_timed_out),
        cmocka_unit_test(a_paused_stream_is_not_timed_out_but_a_resumed_one_is),
        cmocka_unit_test(shutdown_sends_what_is_pending_and_sees_the_peers_close),
        cmocka_unit_test(lingering_is_bounded_however_much_the_peer_sends),
        cmocka_unit_test(shutdown_of_a_stream_that_is_connecting_ends_too),
        cmocka_unit_test(a_line_goes_through_tls_and_back),
        cmocka_unit_test(a_certificate_that_does_not_fit_is_refused_in_words),
        cmocka_unit_test(a_self_signed_certificate_in_ca_file_is_trusted),
        cmocka_unit_test(the_systems_authorities_are_found_by_hash_or_in_the_bundle),
        cmocka_unit_test(a_ca_file_that_cannot_be_used_is_told),
        cmocka_unit_test(a_server_without_tls_is_named_as_such),
        cmocka_unit_test(a_server_with_tls_1_1_only_is_refused),
        cmocka_unit_test(plaintext_behind_the_answer_to_starttls_is_refused),
        cmocka_unit_test(plaintext_kept_from_before_is_refused_too),
        cmocka_unit_test(output_that_waits_for_tls_is_never_sent_in_the_clear),
        cmocka_unit_test(a_handshake_that_hangs_is_timed_out),
        cmocka_unit_test(an_end_without_close_notify_is_told_apart),
        cmocka_unit_test(a_large_write_arrives_whole_through_tls),
        cmocka_unit_test(a_flood_is_read_whole_through_pauses),
        cmocka_unit_test(the_last_reply_is_read_through_tls_before_a_failed_write_is_told),
        cmocka_unit_test(a_second_connection_resumes_the_session_for_the_same_name_only),
        cmocka_unit_test(a_certificate_that_changed_is_verified_though_a_session_is_kept),
        cmocka_unit_test(an_ip_address_is_verified_as_one),
        cmocka_unit_test(contexts_and_streams_may_go_in_any_order),
    };
    int failed = 0;

    (void)signal(SIGPIPE, SIG_IGN); /* as the daemon does */
    authority = make_identity(&authority_spec, NULL);
    write_ca_file();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(ca_file);
    drop_identity(&authority);
    return failed;
}
