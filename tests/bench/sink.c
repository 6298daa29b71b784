/*
 * A fast submission service that keeps nothing: sink ADDRESS PORT CHAIN_FILE KEY_FILE [MS [MOST]]
 *
 * It answers each message MS milliseconds after its last octet, and a connection with 421 when MOST
 * are open.
 *
 * STARTTLS, AUTH LOGIN and PLAIN with any password, PIPELINING,
 * CHUNKING. One thread a connection. Prints a line of JSON for each event, with the monotonic time
 * in seconds: {"event": "connection" | "message" | "end", "at": ..., ...}.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/ssl.h>

#define LINE_LENGTH 4096

struct wire {
    int fd;
    SSL *ssl;
    size_t have, used;
    size_t waiting; /* in out */
    char to[64];    /* the last recipient, as far as its characters are plain */
    char out[16384];
    char in[262144];
};

static SSL_CTX *tls;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned connections, open_now, open_most, messages;
static unsigned message_ms, open_max;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- the wire -------------------------------------------------------------------------------- */

static bool flush(struct wire *w)
{
    size_t n = w->waiting;
    w->waiting = 0;
    if (n == 0)
        return true;
    if (w->ssl != NULL)
        return SSL_write(w->ssl, w->out, (int)n) == (int)n;
    return write(w->fd, w->out, n) == (ssize_t)n;
}

static void say(struct wire *w, const char *text)
{
    size_t n = strlen(text);
    memcpy(w->out + w->waiting, text, n);
    memcpy(w->out + w->waiting + n, "\r\n", 2);
    w->waiting += n + 2;
}

/* Answers leave when nothing more has arrived, or when there are many. */
static bool fill(struct wire *w)
{
    if (!flush(w))
        return false;
    long n = w->ssl != NULL ? SSL_read(w->ssl, w->in, sizeof w->in)
                            : (long)read(w->fd, w->in, sizeof w->in);
    w->used = 0;
    w->have = n > 0 ? (size_t)n : 0;
    return n > 0;
}

static bool read_line(struct wire *w, char line[LINE_LENGTH])
{
    size_t n = 0;
    for (;;) {
        if (w->used == w->have && !fill(w))
            return false;
        char c = w->in[w->used++];
        if (c == '\n')
            break;
        if (n < LINE_LENGTH - 1 && c != '\r')
            line[n++] = c;
    }
    line[n] = '\0';
    return true;
}

static bool skip(struct wire *w, uint64_t octets)
{
    while (octets > 0) {
        if (w->used == w->have && !fill(w))
            return false;
        uint64_t n = w->have - w->used < octets ? w->have - w->used : octets;
        w->used += n;
        octets -= n;
    }
    return true;
}

static bool skip_data(struct wire *w)
{
    static const char end[] = "\r\n.\r\n";
    size_t matched = 2; /* a dot may come first */
    for (;;) {
        if (w->used == w->have && !fill(w))
            return false;
        if (matched == 0) {
            char *cr = memchr(w->in + w->used, '\r', w->have - w->used);
            w->used = cr != NULL ? (size_t)(cr - w->in) : w->have;
            if (cr == NULL)
                continue;
        }
        char c = w->in[w->used++];
        matched = c == end[matched] ? matched + 1 : c == '\r' ? 1 : 0;
        if (matched == 5)
            return true;
    }
}

/* ---- the session ----------------------------------------------------------------------------- */

static void taken(struct wire *w, unsigned id)
{
    double at = seconds();
    struct timespec wait = {.tv_sec = message_ms / 1000, .tv_nsec = message_ms % 1000 * 1000000L};
    say(w, "250 2.0.0 OK");
    pthread_mutex_lock(&lock);
    messages++;
    printf("{\"event\": \"message\", \"at\": %.6f, \"connection\": %u, \"to\": \"%s\"}\n", at, id,
           w->to);
    pthread_mutex_unlock(&lock);
    if (message_ms > 0)
        nanosleep(&wait, NULL);
}

static void note_recipient(struct wire *w, const char *line)
{
    const char *from = strchr(line, '<');
    size_t n = from != NULL ? strspn(from + 1, "abcdefghijklmnopqrstuvwxyz0123456789.@-") : 0;
    snprintf(w->to, sizeof w->to, "%.*s", (int)n, n > 0 ? from + 1 : "");
}

static void authenticate(struct wire *w, const char *arguments)
{
    char line[LINE_LENGTH];
    bool login = strncasecmp(arguments, "LOGIN", 5) == 0;
    unsigned answers = strchr(arguments, ' ') != NULL ? 1 : 0;
    for (; answers < (login ? 2u : 1u); answers++) {
        say(w, !login ? "334 " : answers == 0 ? "334 VXNlcm5hbWU6" : "334 UGFzc3dvcmQ6");
        if (!read_line(w, line))
            return;
    }
    say(w, "235 2.7.0 Authentication successful");
}

static bool start_tls(struct wire *w)
{
    say(w, "220 2.0.0 SMTP server ready");
    if (!flush(w) || w->used != w->have || (w->ssl = SSL_new(tls)) == NULL)
        return false;
    SSL_set_fd(w->ssl, w->fd);
    return SSL_accept(w->ssl) == 1;
}

static void greet(struct wire *w)
{
    say(w, "250-sink");
    say(w, w->ssl == NULL ? "250-STARTTLS" : "250-AUTH LOGIN PLAIN");
    say(w, "250-SIZE 157286400\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n"
           "250-CHUNKING\r\n250 SMTPUTF8");
}

/* False at the end of the session. */
static bool obey(struct wire *w, const char *line, unsigned id)
{
    unsigned long long size = 0;
    if (strncasecmp(line, "EHLO", 4) == 0) {
        greet(w);
    } else if (strncasecmp(line, "STARTTLS", 8) == 0) {
        return start_tls(w);
    } else if (strncasecmp(line, "AUTH ", 5) == 0) {
        authenticate(w, line + 5);
    } else if (strncasecmp(line, "BDAT ", 5) == 0 && sscanf(line + 5, "%llu", &size) == 1) {
        if (!skip(w, size))
            return false;
        if (strstr(line, "LAST") != NULL || strstr(line, "last") != NULL)
            taken(w, id);
        else
            say(w, "250 2.0.0 chunk");
    } else if (strncasecmp(line, "DATA", 4) == 0) {
        say(w, "354 Start mail input; end with <CRLF>.<CRLF>");
        if (!skip_data(w))
            return false;
        taken(w, id);
    } else if (strncasecmp(line, "QUIT", 4) == 0) {
        say(w, "221 2.0.0 bye");
        (void)flush(w);
        return false;
    } else {
        if (strncasecmp(line, "RCPT", 4) == 0)
            note_recipient(w, line);
        say(w, "250 2.1.0 OK");
    }
    return true;
}

static void *serve(void *arg)
{
    static const int on = 1;
    struct wire *w = arg;
    char line[LINE_LENGTH];
    pthread_mutex_lock(&lock);
    unsigned id = ++connections;
    open_most = ++open_now > open_most ? open_now : open_most;
    bool refused = open_max > 0 && open_now > open_max;
    printf("{\"event\": \"connection\", \"at\": %.6f, \"connection\": %u, \"open\": %u}\n",
           seconds(), id, open_now);
    pthread_mutex_unlock(&lock);
    setsockopt(w->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    say(w, refused ? "421 4.3.2 too many connections" : "220 sink ESMTP");
    while (!refused && read_line(w, line) && obey(w, line, id))
        ;
    (void)flush(w);
    bool resumed = w->ssl != NULL && SSL_session_reused(w->ssl);
    if (w->ssl != NULL) {
        SSL_shutdown(w->ssl);
        SSL_free(w->ssl);
    }
    pthread_mutex_lock(&lock);
    open_now--;
    printf("{\"event\": \"end\", \"at\": %.6f, \"connection\": %u, \"resumed\": %s}\n", seconds(),
           id, resumed ? "true" : "false");
    pthread_mutex_unlock(&lock);
    close(w->fd);
    free(w);
    return NULL;
}

static int listening(const char *address, const char *port)
{
    static const int on = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (inet_pton(AF_INET, address, &at.sin_addr) != 1 ||
        bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 100) != 0)
        die("listen");
    return fd;
}

int main(int argc, char **argv)
{
    if (argc < 5 || argc > 7) {
        fprintf(stderr, "usage: sink ADDRESS PORT CHAIN_FILE KEY_FILE [MS [MOST]]\n");
        return 64;
    }
    message_ms = argc > 5 ? (unsigned)atoi(argv[5]) : 0;
    open_max = argc > 6 ? (unsigned)atoi(argv[6]) : 0;
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    tls = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(tls, argv[3]) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, argv[4], SSL_FILETYPE_PEM) != 1)
        die("certificate");
    SSL_CTX_set_read_ahead(tls, 1);
    int fd = listening(argv[1], argv[2]);
    printf("{\"event\": \"ready\", \"at\": %.6f}\n", seconds());
    for (;;) {
        struct wire *w = calloc(1, sizeof *w);
        pthread_t thread;
        w->fd = accept(fd, NULL, NULL);
        if (w->fd < 0 || pthread_create(&thread, NULL, serve, w) != 0)
            die("accept");
        pthread_detach(thread);
    }
}
