/* The server's side of TLS: a stream of ours, and a client made of OpenSSL in a thread. */
#include <fcntl.h>
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
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "relay/base/stream.h"
#include "relay/base/tls.h"
#include "relay/base/tls_certificate.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define GUARD_S      20
#define SEEN_MAX     (4u << 20)
#define LARGE        (2u << 20)
#define PATH_LEN     256
#define YEAR_S       (365L * 86400)

static char directory[] = "/tmp/test_tls_server.XXXXXX";
static char certificate_file[PATH_LEN];
static char key_file[PATH_LEN];

static const struct tls_certificate_request request = {
    .names = {"relay.office.test", "relay"},
    .name_count = 2,
    .addresses = {{4, {192, 168, 1, 10}}, {6, {0xfd, [15] = 0x10}}},
    .address_count = 2,
};

/* ---- the server ------------------------------------------------------------------------------ */

enum start { START_AT_STARTTLS, START_AT_HELLO };

struct server {
    struct event_base *base;
    struct stream_loop *loop;
    struct stream *s;
    struct tls_context *tls;
    enum start start;
    size_t greeting; /* octets more behind the 220, in the clear */
    uint8_t *clear;
    size_t clear_len;
    uint8_t *secret;
    size_t secret_len;
    unsigned secured;
    unsigned ends;
    enum stream_end end;
    struct error err;
    char text[80];
    char offered[120];
};

static void stop(struct server *v)
{
    event_base_loopbreak(v->base);
}

static void answer_starttls(struct server *v)
{
    static const uint8_t more[65536];

    assert_true(stream_write(v->s, "220 go\r\n", 8));
    for (size_t left = v->greeting; left > 0;) {
        size_t n = left < sizeof(more) ? left : sizeof(more);

        assert_true(stream_write(v->s, more, n));
        left -= n;
    }
    stream_start_tls_server(v->s, v->tls, STREAM_REST_DROPPED);
}

/* In the clear a line is taken; through TLS everything, and echoed. */
static size_t on_data(void *ctx, const uint8_t *data, size_t len)
{
    struct server *v = ctx;
    const uint8_t *end = memchr(data, '\n', len);

    if (stream_is_secure(v->s)) {
        assert_true(v->secret_len + len <= SEEN_MAX);
        memcpy(v->secret + v->secret_len, data, len);
        v->secret_len += len;
        assert_true(stream_write(v->s, data, len));
        return len;
    }
    if (v->start == START_AT_HELLO) {
        stream_start_tls_server(v->s, v->tls, STREAM_REST_IS_TLS);
        return 0;
    }
    if (end == NULL)
        return 0;
    v->clear_len = (size_t)(end - data) + 1;
    memcpy(v->clear, data, v->clear_len);
    answer_starttls(v);
    return v->clear_len;
}

static void on_secure(void *ctx)
{
    struct server *v = ctx;

    v->secured++;
    snprintf(v->text, sizeof(v->text), "%s", stream_tls_text(v->s));
    snprintf(v->offered, sizeof(v->offered), "%s", stream_tls_offered(v->s));
}

static void on_end(void *ctx, enum stream_end end, const struct error *err)
{
    struct server *v = ctx;

    if (v->ends++ > 0) {
        stop(v);
        return;
    }
    v->end = end;
    v->err = *err;
    snprintf(v->offered, sizeof(v->offered), "%s", stream_tls_offered(v->s));
    stream_shutdown(v->s, 2000);
}

static const struct stream_events events = {
    .on_data = on_data, .on_secure = on_secure, .on_end = on_end};

static void on_guard(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    print_error("nothing happened for %d s\n", GUARD_S);
    abort();
}

static void run(struct server *v)
{
    const struct timeval guard_time = {GUARD_S, 0};
    struct event *guard = evtimer_new(v->base, on_guard, NULL);

    evtimer_add(guard, &guard_time);
    event_base_dispatch(v->base);
    event_free(guard);
}

static struct tls_context *context(enum tls_profile profile)
{
    struct error err = ERROR_INIT;
    struct tls_identity *id = tls_identity_load(certificate_file, key_file, &err);
    struct tls_context *tls = NULL;

    if (id == NULL)
        fail_msg("%s", err.text);
    tls = tls_server_new(id, profile, &err);
    if (tls == NULL)
        fail_msg("%s", err.text);
    tls_identity_free(id);
    return tls;
}

/* ---- the client ------------------------------------------------------------------------------ */

struct client {
    /* What it is like. */
    int oldest, newest; /* 0: as it comes */
    const char *ciphers;
    const char *clear; /* sent first, in the clear; NULL: TLS comes first */
    const char *raw;   /* sent instead of a handshake, then the end is awaited */
    size_t raw_len;
    size_t greeting; /* octets behind the 220 */
    size_t send;     /* octets through TLS, instead of "secret\r\n" */
    size_t first;    /* octets of the hello that leave before the rest */
    bool verifies;
    bool hangs_up; /* after its hello */
    SSL_SESSION *session;
    /* What became of it. */
    int fd;
    pthread_t thread;
    bool connected;
    bool resumed;
    bool echoed;
    uint8_t got[16]; /* what the server said to raw */
    size_t got_len;
};

static void read_clear_answer(struct client *c)
{
    uint8_t buf[4096];
    size_t left = 8 + c->greeting;

    while (left > 0) {
        ssize_t n = recv(c->fd, buf, left < sizeof(buf) ? left : sizeof(buf), 0);

        if (n <= 0)
            return;
        left -= (size_t)n;
    }
}

static void send_all(int fd, const void *data, size_t len)
{
    for (const char *p = data; len > 0;) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

        if (n <= 0)
            return;
        p += n;
        len -= (size_t)n;
    }
}

static void talk_raw(struct client *c)
{
    uint8_t buf[512];
    ssize_t n = 0;

    send_all(c->fd, c->raw, c->raw_len);
    while ((n = recv(c->fd, buf, sizeof(buf), 0)) > 0) {
        size_t room = sizeof(c->got) - c->got_len;
        size_t more = (size_t)n < room ? (size_t)n : room;

        memcpy(c->got + c->got_len, buf, more);
        c->got_len += more;
        if (c->got_len == sizeof(c->got) || c->hangs_up)
            return;
    }
}

static bool echo(struct client *c, SSL *ssl)
{
    size_t len = c->send > 0 ? c->send : 8;
    char *out = calloc(1, len);
    char *in = calloc(1, len);
    bool same = false;
    size_t sent = 0, got = 0;

    memcpy(out, "secret\r\n", 8);
    while (got < len) {
        size_t piece = len - sent < 16384 ? len - sent : 16384;
        int n = 0;

        if (piece > 0 && (n = SSL_write(ssl, out + sent, (int)piece)) <= 0)
            break;
        sent += piece;
        n = SSL_read(ssl, in + got, (int)(len - got));
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    same = got == len && memcmp(in, out, len) == 0;
    free(out);
    free(in);
    return same;
}

/* As a device behind a slow network: the hello comes in two pieces. */
static void connect_in_pieces(struct client *c, SSL *ssl)
{
    BIO *wire = BIO_new(BIO_s_mem());
    char *hello = NULL;
    long len = 0;

    SSL_set0_wbio(ssl, wire);
    SSL_set_rfd(ssl, c->fd);
    fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
    (void)SSL_connect(ssl);
    fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) & ~O_NONBLOCK);
    len = BIO_get_mem_data(wire, &hello);
    send_all(c->fd, hello, c->first);
    usleep(20000);
    send_all(c->fd, hello + c->first, (size_t)len - c->first);
    SSL_set_wfd(ssl, c->fd);
}

static void talk_tls(struct client *c, SSL_CTX *ctx)
{
    SSL *ssl = SSL_new(ctx);

    SSL_set_fd(ssl, c->fd);
    SSL_set_connect_state(ssl);
    if (c->session != NULL)
        SSL_set_session(ssl, c->session);
    if (c->first > 0)
        connect_in_pieces(c, ssl);
    c->connected = SSL_connect(ssl) == 1;
    if (c->connected) {
        c->resumed = SSL_session_reused(ssl) == 1;
        c->echoed = echo(c, ssl);
        SSL_SESSION_free(c->session);
        c->session = SSL_get1_session(ssl);
        SSL_shutdown(ssl);
    }
    SSL_free(ssl);
}

static void *client_thread(void *arg)
{
    struct client *c = arg;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    SSL_CTX_set_security_level(ctx, 0);
    SSL_CTX_set_min_proto_version(ctx, c->oldest != 0 ? c->oldest : TLS1_VERSION);
    SSL_CTX_set_max_proto_version(ctx, c->newest);
    if (c->ciphers != NULL)
        SSL_CTX_set_cipher_list(ctx, c->ciphers);
    if (c->verifies)
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (c->clear != NULL) {
        send_all(c->fd, c->clear, strlen(c->clear));
        read_clear_answer(c);
    }
    if (c->raw != NULL)
        talk_raw(c);
    else
        talk_tls(c, ctx);
    close(c->fd);
    SSL_CTX_free(ctx);
    return NULL;
}

/* ---- one connection -------------------------------------------------------------------------- */

static void serve_with(struct server *v, struct client *c, struct tls_context *tls)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    v->tls = tls;
    v->start = c->clear != NULL ? START_AT_STARTTLS : START_AT_HELLO;
    v->greeting = c->greeting;
    v->base = event_base_new();
    v->loop = stream_loop_new(v->base);
    v->clear = malloc(65536);
    v->secret = malloc(SEEN_MAX);
    v->s = stream_accepted(v->loop, fds[0], &events, v);
    c->fd = fds[1];
    assert_int_equal(pthread_create(&c->thread, NULL, client_thread, c), 0);
    run(v);
    stream_free(v->s);
    stream_loop_free(v->loop);
    event_base_free(v->base);
    pthread_join(c->thread, NULL);
}

static void serve(struct server *v, struct client *c, enum tls_profile profile)
{
    struct tls_context *tls = context(profile);

    *v = (struct server){0};
    serve_with(v, c, tls);
    tls_context_free(tls);
}

static void done(struct server *v, struct client *c)
{
    free(v->clear);
    free(v->secret);
    SSL_SESSION_free(c->session);
}

static void expect_end(const char *name, const struct server *v, enum stream_end end,
                       const char *part)
{
    if (v->end != end || strstr(v->err.text, part) == NULL)
        fail_msg("%s: ended with %d, \"%s\"; expected %d, \"%s\"", name, (int)v->end, v->err.text,
                 (int)end, part);
}

/* ---- profiles -------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int oldest, newest;
    const char *ciphers;
    bool modern, legacy;
    const char *text;    /* where both serve it, of the modern one */
    const char *offered; /* when the modern one does not */
} devices[] = {
    {"TLS 1.3", 0, TLS1_3_VERSION, NULL, true, true, "TLSv1.3 TLS_AES_256_GCM_SHA384", ""},
    {"TLS 1.2", 0, TLS1_2_VERSION, NULL, true, true, "TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384", ""},
    {"TLS 1.2 without elliptic curves", 0, TLS1_2_VERSION, "DHE-RSA-AES128-GCM-SHA256", true, true,
     "TLSv1.2 DHE-RSA-AES128-GCM-SHA256", ""},
    {"TLS 1.2, RSA key exchange with GCM", 0, TLS1_2_VERSION, "AES128-GCM-SHA256", false, true, "",
     "TLS 1.2, RSA key exchange only"},
    {"TLS 1.2, RSA key exchange with CBC", 0, TLS1_2_VERSION, "AES256-SHA:AES128-SHA256", false,
     true, "", "TLS 1.2, RSA key exchange only"},
    {"TLS 1.2, CBC only", TLS1_2_VERSION, TLS1_2_VERSION, "ECDHE-RSA-AES128-SHA", false, true, "",
     "TLS 1.2"},
    {"TLS 1.1", 0, TLS1_1_VERSION, NULL, false, true, "", "TLS 1.1"},
    {"TLS 1.0", 0, TLS1_VERSION, NULL, false, true, "", "TLS 1.0"},
    {"TLS 1.0, RSA key exchange only", 0, TLS1_VERSION, "AES128-SHA", false, true, "",
     "TLS 1.0, RSA key exchange only"},
};

static void each_profile_serves_the_devices_it_is_for(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(devices); i++) {
        for (enum tls_profile p = TLS_MODERN; p < TLS_PROFILES; p++) {
            struct client c = {.oldest = devices[i].oldest,
                               .newest = devices[i].newest,
                               .ciphers = devices[i].ciphers};
            bool served = p == TLS_MODERN ? devices[i].modern : devices[i].legacy;
            struct server v;

            serve(&v, &c, p);
            if (c.connected != served || c.echoed != served || v.secured != served)
                fail_msg("%s, profile %d: connected %d: %s", devices[i].name, (int)p, c.connected,
                         v.err.text);
            if (p == TLS_MODERN && served)
                assert_string_equal(v.text, devices[i].text);
            if (p == TLS_MODERN && !served) {
                expect_end(devices[i].name, &v, STREAM_END_TLS, "[devices] legacy_tls");
                assert_string_equal(v.offered, devices[i].offered);
            }
            done(&v, &c);
        }
    }
}

/* A hello of 2003: TLS 1.0 inside the form of SSL 2, with AES128-SHA. */
static void a_hello_in_the_form_of_ssl_2_is_understood(void **state)
{
    static const char hello[] = "\x80\x1f\x01\x03\x01\x00\x06\x00\x00\x00\x10"
                                "\x00\x00\x2f\x00\x00\xff"
                                "0123456789abcdef";
    struct client c = {.raw = hello, .raw_len = sizeof(hello) - 1, .hangs_up = true};
    struct server v;

    (void)state;
    serve(&v, &c, TLS_LEGACY);
    assert_true(c.got_len > 5);
    assert_memory_equal(c.got, "\x16\x03\x01", 3);
    assert_string_equal(v.offered, "TLS 1.0, RSA key exchange only");
    done(&v, &c);
    serve(&v, &c, TLS_MODERN);
    expect_end("modern", &v, STREAM_END_TLS, "[devices] legacy_tls");
    done(&v, &c);
}

static void a_device_with_ssl_3_is_told_that_nothing_helps(void **state)
{
    static const char hello[] = "\x16\x03\x00\x00\x2d\x01\x00\x00\x29\x03\x00"
                                "0123456789abcdef0123456789abcdef"
                                "\x00\x00\x02\x00\x2f\x01\x00";
    struct client c = {.raw = hello, .raw_len = sizeof(hello) - 1};
    struct server v;

    (void)state;
    for (enum tls_profile p = TLS_MODERN; p < TLS_PROFILES; p++) {
        serve(&v, &c, p);
        expect_end("SSL 3", &v, STREAM_END_TLS, "switch TLS off on the device");
        assert_null(strstr(v.err.text, "legacy_tls"));
        assert_string_equal(v.offered, "SSL 3.0, RSA key exchange only");
        done(&v, &c);
    }
}

/* ---- how it begins --------------------------------------------------------------------------- */

static void starttls_goes_from_clear_to_secret(void **state)
{
    struct client c = {.clear = "STARTTLS\r\n"};
    struct server v;

    (void)state;
    serve(&v, &c, TLS_MODERN);
    assert_true(c.echoed);
    assert_int_equal(v.clear_len, 10);
    assert_int_equal(v.secret_len, 8);
    assert_memory_equal(v.secret, "secret\r\n", 8);
    assert_int_equal(v.end, STREAM_END_CLOSED);
    done(&v, &c);
}

static void plaintext_behind_starttls_is_dropped(void **state)
{
    struct client c = {.clear =
                           "STARTTLS\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<x@y.example>"};
    struct server v;

    (void)state;
    serve(&v, &c, TLS_MODERN);
    assert_true(c.connected);
    assert_int_equal(v.clear_len, 10);
    assert_int_equal(v.secret_len, 8);
    assert_memory_equal(v.secret, "secret\r\n", 8);
    done(&v, &c);
}

static void what_was_written_leaves_in_the_clear_before_the_handshake(void **state)
{
    struct client c = {.clear = "STARTTLS\r\n", .greeting = LARGE};
    struct server v;

    (void)state;
    serve(&v, &c, TLS_MODERN);
    assert_true(c.connected);
    assert_true(c.echoed);
    done(&v, &c);
}

static void a_hello_may_come_in_pieces(void **state)
{
    (void)state;
    for (size_t first = 1; first < 60; first += 7) {
        struct client c = {.first = first};
        struct server v;

        serve(&v, &c, TLS_MODERN);
        if (!c.echoed)
            fail_msg("first %zu: %s", first, v.err.text);
        done(&v, &c);
    }
}

static void a_second_connection_resumes_by_ticket(void **state)
{
    struct tls_context *tls = context(TLS_MODERN);
    struct client c = {.newest = TLS1_3_VERSION};

    (void)state;
    for (int round = 0; round < 2; round++) {
        struct server v = {0};

        serve_with(&v, &c, tls);
        assert_true(c.echoed);
        assert_int_equal(c.resumed, round == 1);
        free(v.clear);
        free(v.secret);
    }
    SSL_SESSION_free(c.session);
    tls_context_free(tls);
}

static void much_goes_through_both_ways(void **state)
{
    struct client c = {.send = LARGE};
    struct server v;

    (void)state;
    serve(&v, &c, TLS_MODERN);
    assert_true(c.echoed);
    assert_int_equal(v.secret_len, LARGE);
    done(&v, &c);
}

/* ---- failures in words ----------------------------------------------------------------------- */

static void what_is_not_tls_is_named_as_such(void **state)
{
    static const char *const texts[] = {"EHLO printer\r\n", "GET / HTTP/1.0\r\n\r\n"};

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct client c = {.raw = texts[i], .raw_len = strlen(texts[i])};
        struct server v;

        serve(&v, &c, TLS_MODERN);
        expect_end(texts[i], &v, STREAM_END_TLS, "not TLS");
        assert_string_equal(v.offered, "");
        done(&v, &c);
    }
}

static void a_device_that_does_not_trust_us_is_named_as_such(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

    (void)state;
    for (size_t i = 0; i < COUNT(versions); i++) {
        struct client c = {.newest = versions[i], .verifies = true};
        struct server v;

        serve(&v, &c, TLS_MODERN);
        assert_false(c.connected);
        expect_end("untrusted", &v, STREAM_END_TLS, "install the certificate on the device");
        done(&v, &c);
    }
}

static void a_device_that_leaves_without_a_word_is_told(void **state)
{
    struct client c = {.raw = "\x16\x03", .raw_len = 2, .clear = "STARTTLS\r\n"};
    int fds[2];
    struct server v = {.start = START_AT_STARTTLS};

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    v.tls = context(TLS_MODERN);
    v.base = event_base_new();
    v.loop = stream_loop_new(v.base);
    v.clear = malloc(4096);
    v.s = stream_accepted(v.loop, fds[0], &events, &v);
    send_all(fds[1], c.clear, strlen(c.clear));
    send_all(fds[1], c.raw, c.raw_len);
    close(fds[1]);
    run(&v);
    if (v.end == STREAM_END_TLS) /* else the 220 itself could not be sent */
        expect_end("left", &v, STREAM_END_TLS, "closed the connection");
    else
        assert_int_equal(v.end, STREAM_END_RESET);
    stream_free(v.s);
    stream_loop_free(v.loop);
    event_base_free(v.base);
    tls_context_free(v.tls);
    free(v.clear);
}

/* ---- certificates ---------------------------------------------------------------------------- */

static X509 *read_certificate(void)
{
    FILE *f = fopen(certificate_file, "r");
    X509 *cert = NULL;

    assert_non_null(f);
    cert = PEM_read_X509(f, NULL, NULL, NULL);
    (void)fclose(f);
    assert_non_null(cert);
    return cert;
}

static void the_certificate_we_make_suits_old_and_new_devices(void **state)
{
    X509 *cert = read_certificate();
    time_t in_ten_years = time(NULL) + 10 * YEAR_S - 86400;
    time_t much_later = time(NULL) + 10 * YEAR_S + 30 * 86400L;

    (void)state;
    assert_int_equal(EVP_PKEY_get_base_id(X509_get0_pubkey(cert)), EVP_PKEY_RSA);
    assert_int_equal(EVP_PKEY_get_bits(X509_get0_pubkey(cert)), 2048);
    assert_int_equal(X509_get_signature_nid(cert), NID_sha256WithRSAEncryption);
    assert_int_equal(X509_check_host(cert, "relay.office.test", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(cert, "relay", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(cert, "other.office.test", 0, 0, NULL), 0);
    assert_int_equal(X509_check_ip_asc(cert, "192.168.1.10", 0), 1);
    assert_int_equal(X509_check_ip_asc(cert, "fd00::10", 0), 1);
    assert_int_equal(X509_check_ip_asc(cert, "192.168.1.11", 0), 0);
    assert_true(X509_cmp_current_time(X509_get0_notBefore(cert)) < 0);
    assert_true(X509_cmp_time(X509_get0_notAfter(cert), &in_ten_years) > 0);
    assert_true(X509_cmp_time(X509_get0_notAfter(cert), &much_later) < 0);
    assert_true(ASN1_STRING_length(X509_get0_serialNumber(cert)) >= 15);
    assert_int_equal(X509_verify(cert, X509_get0_pubkey(cert)), 1);
    X509_free(cert);
}

static void both_files_are_for_us_only_and_nothing_else_is_left(void **state)
{
    const char *const files[] = {certificate_file, key_file};
    char name[PATH_LEN + 8];
    struct stat st;

    (void)state;
    for (size_t i = 0; i < COUNT(files); i++) {
        assert_int_equal(stat(files[i], &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        snprintf(name, sizeof(name), "%s.new", files[i]);
        assert_int_equal(access(name, F_OK), -1);
    }
}

static void another_one_has_another_key_and_serial(void **state)
{
    X509 *one = read_certificate();
    X509 *two = NULL;
    struct error err = ERROR_INIT;

    (void)state;
    assert_true(tls_certificate_make(&request, certificate_file, key_file, &err));
    two = read_certificate();
    assert_int_not_equal(ASN1_INTEGER_cmp(X509_get0_serialNumber(one), X509_get0_serialNumber(two)),
                         0);
    assert_int_not_equal(EVP_PKEY_eq(X509_get0_pubkey(one), X509_get0_pubkey(two)), 1);
    tls_context_free(context(TLS_MODERN));
    X509_free(one);
    X509_free(two);
}

static void a_place_that_cannot_be_written_is_told(void **state)
{
    struct error err = ERROR_INIT;

    (void)state;
    assert_false(tls_certificate_make(&request, "/nowhere/c.pem", "/nowhere/k.pem", &err));
    assert_non_null(strstr(err.text, "write /nowhere/k.pem.new: No such file"));
}

static void write_text(const char *file, const char *text, mode_t mode)
{
    FILE *f = fopen(file, "w");

    assert_non_null(f);
    (void)fputs(text, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(file, mode), 0);
}

static void write_other_key(const char *file, int bits, const EVP_CIPHER *cipher)
{
    EVP_PKEY *key = EVP_RSA_gen((unsigned)bits);
    FILE *f = fopen(file, "w");

    assert_non_null(f);
    assert_int_equal(
        PEM_write_PrivateKey(f, key, cipher, (const unsigned char *)"pass", 4, NULL, NULL), 1);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(file, 0600), 0);
    EVP_PKEY_free(key);
}

static void expect_identity_fails(const char *certificate, const char *key, const char *part)
{
    struct error err = ERROR_INIT;

    assert_null(tls_identity_load(certificate, key, &err));
    if (strstr(err.text, part) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, part);
}

static void an_identity_that_cannot_be_used_is_told_at_the_start(void **state)
{
    char file[PATH_LEN + 8];

    (void)state;
    snprintf(file, sizeof(file), "%s/other", directory);
    expect_identity_fails("/nowhere/c.pem", key_file, "certificate /nowhere/c.pem: No such file");
    expect_identity_fails(certificate_file, "/nowhere/k.pem", "there is no such file");
    write_text(file, "nonsense\n", 0600);
    expect_identity_fails(file, key_file, "certificate holds none that can be used");
    expect_identity_fails(certificate_file, file, "private_key holds no key that can be read");
    write_text(file, "x", 0644);
    expect_identity_fails(certificate_file, file, "everybody on this machine can use it");
    write_other_key(file, 2048, NULL);
    expect_identity_fails(certificate_file, file, "does not belong to the certificate");
    write_other_key(file, 2048, EVP_aes_128_cbc());
    expect_identity_fails(certificate_file, file, "without a passphrase");
    assert_int_equal(unlink(file), 0);
}

static void the_end_of_a_certificate_is_known(void **state)
{
    struct error err = ERROR_INIT;
    struct tls_identity *id = tls_identity_load(certificate_file, key_file, &err);
    int64_t now = (int64_t)time(NULL);

    (void)state;
    assert_non_null(id);
    assert_true(tls_identity_end(id) > now + 10 * YEAR_S - 86400);
    assert_true(tls_identity_end(id) < now + 10 * YEAR_S + 30 * 86400);
    tls_identity_free(id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_profile_serves_the_devices_it_is_for),
        cmocka_unit_test(a_hello_in_the_form_of_ssl_2_is_understood),
        cmocka_unit_test(a_device_with_ssl_3_is_told_that_nothing_helps),
        cmocka_unit_test(starttls_goes_from_clear_to_secret),
        cmocka_unit_test(plaintext_behind_starttls_is_dropped),
        cmocka_unit_test(what_was_written_leaves_in_the_clear_before_the_handshake),
        cmocka_unit_test(a_hello_may_come_in_pieces),
        cmocka_unit_test(a_second_connection_resumes_by_ticket),
        cmocka_unit_test(much_goes_through_both_ways),
        cmocka_unit_test(what_is_not_tls_is_named_as_such),
        cmocka_unit_test(a_device_that_does_not_trust_us_is_named_as_such),
        cmocka_unit_test(a_device_that_leaves_without_a_word_is_told),
        cmocka_unit_test(the_certificate_we_make_suits_old_and_new_devices),
        cmocka_unit_test(both_files_are_for_us_only_and_nothing_else_is_left),
        cmocka_unit_test(another_one_has_another_key_and_serial),
        cmocka_unit_test(a_place_that_cannot_be_written_is_told),
        cmocka_unit_test(an_identity_that_cannot_be_used_is_told_at_the_start),
        cmocka_unit_test(the_end_of_a_certificate_is_known),
    };
    struct error err = ERROR_INIT;
    int failed = 1;

    (void)signal(SIGPIPE, SIG_IGN);
    if (mkdtemp(directory) == NULL)
        return 1;
    snprintf(certificate_file, sizeof(certificate_file), "%s/certificate.pem", directory);
    snprintf(key_file, sizeof(key_file), "%s/key.pem", directory);
    if (tls_certificate_make(&request, certificate_file, key_file, &err))
        failed = cmocka_run_group_tests(tests, NULL, NULL);
    else
        print_error("%s\n", err.text);
    (void)unlink(certificate_file);
    (void)unlink(key_file);
    (void)rmdir(directory);
    return failed;
}
