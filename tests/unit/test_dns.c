#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "relay/base/dns.h"

#define GUARD_S    20 /* a test that waits longer for an event has failed */
#define LOOKUPS    (DNS_THREADS_MAX + 2)
#define MESSAGE    512
#define HEADER     12
#define TYPE_AAAA  28
#define TRUNCATED  0x82 /* QR and TC */
#define ANSWERED   0x80
#define NXDOMAIN   3
#define CANNOT_RUN 77 /* exit code of the child: no namespaces here */

/* ---- What a lookup was told ---- */

struct ear {
    struct event_base *base;
    bool in_call;
    unsigned calls;
    unsigned stop_after;
    size_t count;
    struct net_address list[DNS_ADDRESSES_MAX];
    struct error err;
};

static void on_answer(void *ctx, const struct net_address *list, size_t count,
                      const struct error *err)
{
    struct ear *e = ctx;

    assert_false(e->in_call);
    assert_true(count <= DNS_ADDRESSES_MAX);
    e->calls++;
    e->count = count;
    for (size_t i = 0; i < count; i++)
        e->list[i] = list[i];
    e->err = *err;
    if (e->calls >= e->stop_after)
        event_base_loopbreak(e->base);
}

static void on_guard(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    print_error("nothing happened for %d s\n", GUARD_S);
    abort();
}

static void run(struct ear *e)
{
    const struct timeval guard_time = {GUARD_S, 0};
    struct event *guard = evtimer_new(e->base, on_guard, NULL);

    e->in_call = false;
    evtimer_add(guard, &guard_time);
    event_base_dispatch(e->base);
    event_free(guard);
}

static void turns(const struct ear *e)
{
    for (int i = 0; i < 8; i++)
        event_base_loop(e->base, EVLOOP_NONBLOCK);
}

static struct dns_query *ask(struct dns *dns, const char *host, struct ear *e)
{
    struct error err = ERROR_INIT;
    struct dns_query *q = NULL;

    e->in_call = true;
    q = dns_lookup(dns, host, on_answer, e, &err);
    e->in_call = false;
    if (q == NULL)
        fail_msg("%s", err.text);
    return q;
}

static void ear_init(struct ear *e)
{
    *e = (struct ear){.base = event_base_new(), .stop_after = 1};
    assert_non_null(e->base);
}

/* "a b c" */
static void expect_list(const struct ear *e, const char *expected)
{
    char got[DNS_ADDRESSES_MAX * NET_TEXT_MAX] = "";
    char text[NET_TEXT_MAX];
    size_t len = 0;

    for (size_t i = 0; i < e->count; i++) {
        net_text(&e->list[i], text);
        len += (size_t)snprintf(got + len, sizeof(got) - len, "%s%s", i > 0 ? " " : "", text);
    }
    assert_string_equal(got, expected);
}

/* ---- A resolver that answers from a text ---- */

static bool resolve_text(void *ctx, const char *host, struct dns_found *found, struct error *err)
{
    char copy[4096];
    char *rest = copy;
    const char *word = NULL;

    (void)host;
    (void)err;
    snprintf(copy, sizeof(copy), "%s", (const char *)ctx);
    while ((word = strsep(&rest, " ")) != NULL && found->count < DNS_FOUND_MAX)
        if (net_parse(word, &found->list[found->count]))
            found->count++;
    return true;
}

static bool resolve_nothing(void *ctx, const char *host, struct dns_found *found, struct error *err)
{
    (void)ctx;
    (void)found;
    return error_set(err, ERROR_MISSING, "look up %s: no such name", host);
}

/* Hangs until its pipe has an octet for it. Threads may outlive their test, so pipes stay open. */
static bool resolve_hanging(void *ctx, const char *host, struct dns_found *found, struct error *err)
{
    int gate = (int)(intptr_t)ctx;
    char octet = 0;

    (void)host;
    if (read(gate, &octet, 1) != 1)
        return error_set(err, ERROR_IO, "the gate is gone");
    return net_parse("192.0.2.9", &found->list[found->count++]);
}

static void open_gate(const int gate[2], size_t octets)
{
    for (size_t i = 0; i < octets; i++)
        assert_int_equal(write(gate[1], "x", 1), 1);
}

static void addresses_alternate_between_families_and_come_once(void **state)
{
    static const struct {
        const char *name, *found, *expected;
    } rows[] = {
        {"IPv6 is preferred", "2001:db8::1 2001:db8::2 192.0.2.1 192.0.2.2",
         "2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2"},
        {"IPv6 cannot be reached", "192.0.2.1 192.0.2.2 2001:db8::1",
         "192.0.2.1 2001:db8::1 192.0.2.2"},
        {"one family only", "192.0.2.1 192.0.2.2 192.0.2.3", "192.0.2.1 192.0.2.2 192.0.2.3"},
        {"repeats, mapped ones too", "192.0.2.1 192.0.2.1 ::ffff:192.0.2.1 192.0.2.2",
         "192.0.2.1 192.0.2.2"},
        {"many of one family leave room for the other",
         "2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4 2001:db8::5 2001:db8::6 2001:db8::7 "
         "2001:db8::8 2001:db8::9 2001:db8::a 2001:db8::b 2001:db8::c 2001:db8::d 2001:db8::e "
         "2001:db8::f 2001:db8::10 2001:db8::11 2001:db8::12 192.0.2.1",
         "2001:db8::1 192.0.2.1 2001:db8::2 2001:db8::3 2001:db8::4 2001:db8::5 2001:db8::6 "
         "2001:db8::7 2001:db8::8 2001:db8::9 2001:db8::a 2001:db8::b 2001:db8::c 2001:db8::d "
         "2001:db8::e 2001:db8::f"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ear e;
        struct dns *dns = NULL;

        ear_init(&e);
        dns = dns_new(e.base, resolve_text, (void *)(uintptr_t)rows[i].found, 5000);
        ask(dns, "mail.example", &e);
        run(&e);
        expect_list(&e, rows[i].expected);
        dns_free(dns);
        event_base_free(e.base);
    }
}

static void a_literal_is_answered_without_the_resolver(void **state)
{
    static const char *const rows[] = {"192.0.2.7", "2001:db8::7"};
    struct ear e;
    struct dns *dns = NULL;

    (void)state;
    ear_init(&e);
    dns = dns_new(e.base, resolve_nothing, NULL, 5000);
    for (size_t i = 0; i < 2; i++) {
        ask(dns, rows[i], &e);
        run(&e);
        expect_list(&e, rows[i]);
    }
    dns_free(dns);
    event_base_free(e.base);
}

static void a_failure_is_told_with_its_kind_and_words(void **state)
{
    struct ear e;
    struct dns *dns = NULL;

    (void)state;
    ear_init(&e);
    dns = dns_new(e.base, resolve_nothing, NULL, 5000);
    ask(dns, "gone.example", &e);
    run(&e);
    assert_int_equal(e.count, 0);
    assert_int_equal(e.err.kind, ERROR_MISSING);
    assert_string_equal(e.err.text, "look up gone.example: no such name");
    dns_free(dns);
    event_base_free(e.base);
}

static void what_cannot_be_a_name_is_refused_at_once(void **state)
{
    char longest[300];
    struct error err = ERROR_INIT;
    struct ear e;
    struct dns *dns = NULL;

    (void)state;
    ear_init(&e);
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    dns = dns_new(e.base, resolve_nothing, NULL, 5000);
    assert_null(dns_lookup(dns, "", on_answer, &e, &err));
    assert_int_equal(err.kind, ERROR_INVALID);
    assert_null(dns_lookup(dns, longest, on_answer, &e, &err));
    assert_int_equal(err.kind, ERROR_INVALID);
    dns_free(dns);
    event_base_free(e.base);
}

static void a_resolver_that_hangs_is_given_up_in_time(void **state)
{
    int gate[2];
    struct ear e;
    struct dns *dns = NULL;

    (void)state;
    assert_int_equal(pipe(gate), 0);
    ear_init(&e);
    dns = dns_new(e.base, resolve_hanging, (void *)(intptr_t)gate[0], 20);
    ask(dns, "mail.example", &e);
    run(&e);
    assert_int_equal(e.count, 0);
    assert_int_equal(e.err.kind, ERROR_IO);
    assert_non_null(strstr(e.err.text, "look up mail.example: no answer within 0.02 s"));
    open_gate(gate, 1); /* what comes too late is dropped */
    assert_int_equal(e.calls, 1);
    dns_free(dns);
    event_base_free(e.base);
}

static void more_lookups_than_threads_wait_their_turn(void **state)
{
    int gate[2];
    struct ear e;
    struct dns *dns = NULL;

    (void)state;
    assert_int_equal(pipe(gate), 0);
    ear_init(&e);
    dns = dns_new(e.base, resolve_hanging, (void *)(intptr_t)gate[0], 10000);
    for (int i = 0; i < LOOKUPS; i++)
        ask(dns, "mail.example", &e);
    turns(&e);
    assert_int_equal(e.calls, 0);
    e.stop_after = 1;
    open_gate(gate, 1);
    run(&e);
    expect_list(&e, "192.0.2.9");
    e.stop_after = LOOKUPS;
    open_gate(gate, LOOKUPS - 1);
    run(&e);
    assert_int_equal(e.calls, LOOKUPS);
    dns_free(dns);
    event_base_free(e.base);
}

static void hanging_threads_do_not_keep_the_next_lookup_from_ending(void **state)
{
    int gate[2];
    struct ear e;
    struct dns *dns = NULL;

    (void)state;
    assert_int_equal(pipe(gate), 0);
    ear_init(&e);
    dns = dns_new(e.base, resolve_hanging, (void *)(intptr_t)gate[0], 20);
    e.stop_after = LOOKUPS;
    for (int i = 0; i < LOOKUPS; i++)
        ask(dns, "mail.example", &e);
    run(&e);
    assert_int_equal(e.calls, LOOKUPS);
    assert_int_equal(e.count, 0);
    open_gate(gate, DNS_THREADS_MAX);
    e.calls = 0;
    e.stop_after = 1;
    dns_free(dns);
    dns = dns_new(e.base, resolve_text, (void *)(uintptr_t) "192.0.2.1", 5000);
    ask(dns, "mail.example", &e);
    run(&e);
    expect_list(&e, "192.0.2.1");
    dns_free(dns);
    event_base_free(e.base);
}

static void a_cancelled_lookup_is_never_answered(void **state)
{
    int gate[2];
    struct ear e;
    struct ear other;
    struct dns *dns = NULL;

    (void)state;
    assert_int_equal(pipe(gate), 0);
    ear_init(&e);
    other = e;
    dns = dns_new(e.base, resolve_hanging, (void *)(intptr_t)gate[0], 10000);
    dns_cancel(ask(dns, "running.example", &other));
    dns_cancel(ask(dns, "192.0.2.1", &other));
    dns_cancel(NULL);
    open_gate(gate, 2);
    ask(dns, "mail.example", &e);
    run(&e);
    turns(&e);
    assert_int_equal(e.calls, 1);
    assert_int_equal(other.calls, 0);
    dns_free(dns);
    event_base_free(e.base);
}

static void it_may_be_freed_while_the_resolver_hangs(void **state)
{
    int gate[2];
    struct ear e;
    struct dns *dns = NULL;

    (void)state;
    assert_int_equal(pipe(gate), 0);
    ear_init(&e);
    dns = dns_new(e.base, resolve_hanging, (void *)(intptr_t)gate[0], 10000);
    for (int i = 0; i < LOOKUPS; i++)
        ask(dns, "mail.example", &e);
    dns_free(dns);
    dns_free(NULL);
    open_gate(gate, DNS_THREADS_MAX); /* they find nobody to tell */
    turns(&e);
    assert_int_equal(e.calls, 0);
    event_base_free(e.base);
}

static void localhost_is_known_without_network(void **state)
{
    struct ear e;
    struct dns *dns = NULL;

    (void)state;
    ear_init(&e);
    dns = dns_new(e.base, dns_resolve_system, NULL, DNS_TIMEOUT_MS);
    ask(dns, "localhost", &e);
    run(&e);
    assert_true(e.count > 0);
    for (size_t i = 0; i < e.count; i++)
        assert_true(net_is_loopback(&e.list[i]));
    dns_free(dns);
    event_base_free(e.base);
}

/* ---- The system's resolver against a name server of ours, in namespaces of its own ---- */

static void put16(uint8_t *p, unsigned value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

/* Octets of the question in the query, after the header. */
static size_t question_length(const uint8_t *query, size_t len)
{
    size_t at = HEADER;

    while (at < len && query[at] != 0)
        at += (size_t)query[at] + 1;
    return at + 5 - HEADER;
}

static size_t add_address(uint8_t *p, bool v6, unsigned number)
{
    static const uint8_t prefix4[4] = {192, 0, 2, 0};
    static const uint8_t prefix6[16] = {0x20, 0x01, 0x0d, 0xb8};
    size_t width = v6 ? 16 : 4;

    put16(p, 0xc000 + HEADER); /* the name of the question */
    put16(p + 2, v6 ? TYPE_AAAA : 1);
    put16(p + 4, 1);
    put16(p + 6, 0);
    put16(p + 8, 60);
    put16(p + 10, (unsigned)width);
    memcpy(p + 12, v6 ? prefix6 : prefix4, width);
    p[12 + width - 1] = (uint8_t)number;
    return 12 + width;
}

/* Two addresses of each family for names that begin with 'm'; nothing else exists. */
static size_t make_reply(const uint8_t *query, size_t len, bool udp, uint8_t out[MESSAGE])
{
    size_t question = question_length(query, len);
    bool exists = query[HEADER + 1] == 'm';
    size_t at = HEADER + question;
    bool v6 = false;

    memset(out, 0, MESSAGE);
    memcpy(out, query, HEADER + question);
    memset(out + 6, 0, 6);
    out[2] = udp && exists ? TRUNCATED : ANSWERED;
    out[3] = exists ? 0x80 : 0x80 | NXDOMAIN;
    if (udp || !exists)
        return at;
    put16(out + 6, 2);
    v6 = query[at - 3] == TYPE_AAAA;
    for (unsigned i = 1; i <= 2; i++)
        at += add_address(out + at, v6, i);
    return at;
}

static void serve_udp(int fd)
{
    uint8_t query[MESSAGE];
    uint8_t reply[MESSAGE];
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    ssize_t got = recvfrom(fd, query, sizeof(query), 0, (struct sockaddr *)&from, &len);

    if (got > HEADER)
        (void)sendto(fd, reply, make_reply(query, (size_t)got, true, reply), 0,
                     (struct sockaddr *)&from, len);
}

static bool read_all(int fd, uint8_t *p, size_t len)
{
    return recv(fd, p, len, MSG_WAITALL) == (ssize_t)len;
}

static void *serve_tcp(void *arg)
{
    int fd = *(int *)arg;
    uint8_t query[MESSAGE];
    uint8_t reply[2 + MESSAGE];
    size_t len = 0;

    free(arg);
    while (read_all(fd, query, 2) && (len = (size_t)query[0] << 8 | query[1]) <= sizeof(query) &&
           read_all(fd, query, len)) {
        len = make_reply(query, len, false, reply + 2);
        put16(reply, (unsigned)len);
        if (send(fd, reply, len + 2, MSG_NOSIGNAL) < 0)
            break;
    }
    close(fd);
    return NULL;
}

static void *name_server(void *arg)
{
    const int *fds = arg;
    struct pollfd watched[2] = {{fds[0], POLLIN, 0}, {fds[1], POLLIN, 0}};
    pthread_t thread;

    while (poll(watched, 2, -1) > 0) {
        if (watched[0].revents != 0)
            serve_udp(fds[0]);
        if (watched[1].revents != 0) {
            int *fd = malloc(sizeof(*fd));

            *fd = accept(fds[1], NULL, NULL);
            pthread_create(&thread, NULL, serve_tcp, fd);
            pthread_detach(thread);
        }
    }
    return NULL;
}

static int bound(int type)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(53), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, type, 0);

    if (fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0 &&
        (type == SOCK_DGRAM || listen(fd, 8) == 0))
        return fd;
    return -1;
}

static bool write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    return f != NULL && fputs(text, f) >= 0 && fclose(f) == 0;
}

static bool raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    bool up = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0;

    if (fd >= 0)
        close(fd);
    return up;
}

/* A network of our own, and files of ours in place of the resolver's. */
static bool enter_own_world(const char *resolv, const char *nsswitch)
{
    char map[64];
    unsigned uid = getuid();

    if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET) != 0)
        return false;
    snprintf(map, sizeof(map), "0 %u 1", uid);
    if (!write_file("/proc/self/uid_map", map) || !raise_loopback())
        return false;
    if (!write_file(resolv, "nameserver 127.0.0.2\noptions timeout:1 attempts:1\n") ||
        !write_file(nsswitch, "hosts: dns\n"))
        return false;
    if (access("/etc/nsswitch.conf", F_OK) == 0 &&
        mount(nsswitch, "/etc/nsswitch.conf", NULL, MS_BIND, NULL) != 0)
        return false;
    return mount(resolv, "/etc/resolv.conf", NULL, MS_BIND, NULL) == 0;
}

static bool check(const char *what, bool good, const struct ear *e)
{
    if (!good)
        print_error("%s: %zu addresses, kind %s, \"%s\"\n", what, e->count,
                    error_kind_name(e->err.kind), e->err.text);
    return good;
}

static void ask_and_wait(struct dns *dns, const char *host, struct ear *e)
{
    e->count = 0;
    ask(dns, host, e);
    run(e);
}

static bool converse(const char *resolv)
{
    struct ear e;
    struct dns *dns = NULL;
    bool good = true;

    ear_init(&e);
    dns = dns_new(e.base, dns_resolve_system, NULL, 15000);
    ask_and_wait(dns, "mail.example.", &e);
    good &= check("no name server", e.count == 0 && e.err.kind == ERROR_IO, &e);
    good &= write_file(resolv, "nameserver 127.0.0.1\noptions timeout:2 attempts:2\n");
    ask_and_wait(dns, "mail.example.", &e);
    good &= check("truncated answers, after a change of resolv.conf", e.count == 4, &e);
    good &= e.list[0].family != e.list[1].family && e.list[1].family != e.list[2].family;
    ask_and_wait(dns, "gone.example.", &e);
    good &= check("no such name", e.count == 0 && e.err.kind == ERROR_MISSING, &e);
    ask_and_wait(dns, "localhost", &e);
    good &= check("localhost, which the resolver does not know", e.count == 2, &e);
    dns_free(dns);
    event_base_free(e.base);
    return good;
}

static int child(const char *resolv, const char *nsswitch)
{
    int fds[2];
    pthread_t thread;

    if (!enter_own_world(resolv, nsswitch))
        return CANNOT_RUN;
    fds[0] = bound(SOCK_DGRAM);
    fds[1] = bound(SOCK_STREAM);
    if (fds[0] < 0 || fds[1] < 0)
        return CANNOT_RUN;
    pthread_create(&thread, NULL, name_server, fds);
    return converse(resolv) ? 0 : 1;
}

static void make_file(char *path)
{
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    close(fd);
}

static void truncated_answers_and_a_changed_resolv_conf_work(void **state)
{
    char resolv[] = "/tmp/test_dns_resolv.XXXXXX";
    char nsswitch[] = "/tmp/test_dns_nsswitch.XXXXXX";
    int status = 0;
    pid_t pid = -1;

    (void)state;
    make_file(resolv);
    make_file(nsswitch);
    pid = fork();
    if (pid == 0)
        _exit(child(resolv, nsswitch));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    unlink(resolv);
    unlink(nsswitch);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == CANNOT_RUN) {
        print_message("no namespaces here; not tested\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* first: it forks, which is best done without threads */
        cmocka_unit_test(truncated_answers_and_a_changed_resolv_conf_work),
        cmocka_unit_test(addresses_alternate_between_families_and_come_once),
        cmocka_unit_test(a_literal_is_answered_without_the_resolver),
        cmocka_unit_test(a_failure_is_told_with_its_kind_and_words),
        cmocka_unit_test(what_cannot_be_a_name_is_refused_at_once),
        cmocka_unit_test(a_resolver_that_hangs_is_given_up_in_time),
        cmocka_unit_test(more_lookups_than_threads_wait_their_turn),
        cmocka_unit_test(hanging_threads_do_not_keep_the_next_lookup_from_ending),
        cmocka_unit_test(a_cancelled_lookup_is_never_answered),
        cmocka_unit_test(it_may_be_freed_while_the_resolver_hangs),
        cmocka_unit_test(localhost_is_known_without_network),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
