#include "relay/tool/http.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define BLOCK 65536

static bool set_timeouts(int fd, int timeout_ms)
{
    int ms = timeout_ms > 0 ? timeout_ms : HTTP_TIMEOUT_MS;
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};

    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) == 0;
}

int http_connect(const char *socket_path, int timeout_ms, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(socket_path) >= sizeof(address.sun_path)) {
        error_set(err, ERROR_INVALID, "%s: too long for the path of a socket", socket_path);
        return -1;
    }
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && set_timeouts(fd, timeout_ms) &&
        connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    error_errno(err, errno, "connect to %s", socket_path);
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool failed(int errnum, const char *what, struct error *err)
{
    if (errnum == EAGAIN || errnum == EWOULDBLOCK)
        return error_set(err, ERROR_BUSY, "outtrayd does not answer in time");
    return error_errno(err, errnum, "%s", what);
}

static bool send_all(int fd, const void *data, size_t len, struct error *err)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(errno, "send the request to outtrayd", err);
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static bool send_request(int fd, const struct http_request *r, struct error *err)
{
    struct bytes b;
    bool ok;

    bytes_init(&b, HTTP_HEAD_MAX);
    ok = bytes_printf(&b,
                      "%s %s HTTP/1.1\r\nHost: outtray\r\nConnection: close\r\n"
                      "Content-Length: 0\r\n\r\n",
                      r->method, r->path);
    ok = ok ? send_all(fd, b.data, b.len, err)
            : error_set(err, ERROR_LIMIT, "the request is too long");
    bytes_done(&b);
    return ok;
}

/* Octets read, 0 at the end, -1 on error. */
static ssize_t receive(int fd, void *data, size_t len, struct error *err)
{
    ssize_t n;

    do
        n = recv(fd, data, len, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        failed(errno, "read the answer of outtrayd", err);
    return n;
}

static bool garbled(struct error *err)
{
    return error_set(err, ERROR_DAMAGED, "what answers on the socket is not outtrayd");
}

static bool parse_length(const char *value, uint64_t *out)
{
    char *end;

    value += strspn(value, " \t");
    if (*value < '0' || *value > '9')
        return false;
    errno = 0;
    *out = strtoull(value, &end, 10);
    return errno == 0 && end[strspn(end, " \t")] == '\0';
}

/* Reads status and length from a head, whose lines it cuts. */
static bool parse_head(char *head, struct http_answer *a, struct error *err)
{
    static const char key[] = "Content-Length:";
    bool has_length = false;
    char *save = NULL;
    char *line = strtok_r(head, "\r\n", &save);

    if (line == NULL || strncmp(line, "HTTP/1.", 7) != 0 || strlen(line) < 12)
        return garbled(err);
    a->status = atoi(line + 9);
    while ((line = strtok_r(NULL, "\r\n", &save)) != NULL)
        if (strncasecmp(line, key, sizeof(key) - 1) == 0) {
            has_length = parse_length(line + sizeof(key) - 1, &a->length);
            break;
        }
    if (a->status < 100 || a->status > 599 || !has_length)
        return garbled(err);
    return true;
}

/* Reads until the head is whole; what came behind it stays in b. */
static bool read_head(int fd, struct bytes *b, struct http_answer *a, struct error *err)
{
    static const char mark[] = "\r\n\r\n";
    char *end;

    while (b->len == 0 || (end = memmem(b->data, b->len, mark, 4)) == NULL) {
        uint8_t *room = bytes_reserve(b, 1024);
        ssize_t n;

        if (room == NULL)
            return garbled(err);
        n = receive(fd, room, 1024, err);
        if (n < 0)
            return false;
        if (n == 0)
            return error_set(err, ERROR_DAMAGED, "outtrayd closed the connection unanswered");
        b->len += (size_t)n;
    }
    *end = '\0';
    if (!parse_head((char *)b->data, a, err))
        return false;
    bytes_consume(b, (size_t)((uint8_t *)end - b->data) + 4);
    return true;
}

static bool take(const struct http_request *r, struct http_answer *a, const void *data, size_t len,
                 struct error *err)
{
    if (r->sink != NULL && a->status == 200)
        return r->sink(r->ctx, data, len, err);
    if (bytes_append(&a->body, data, len))
        return true;
    return error_set(err, ERROR_LIMIT, "the answer of outtrayd is longer than %zu MB",
                     HTTP_BODY_MAX / (1024 * 1024));
}

static bool read_body(int fd, const struct http_request *r, struct bytes *first,
                      struct http_answer *a, struct error *err)
{
    size_t have = first->len < a->length ? first->len : (size_t)a->length;
    uint64_t left = a->length - have;
    char *block;
    bool ok = have == 0 || take(r, a, first->data, have, err);

    block = malloc(BLOCK);
    if (block == NULL)
        return error_set(err, ERROR_NO_ROOM, "out of memory");
    while (ok && left > 0) {
        ssize_t n = receive(fd, block, left < BLOCK ? (size_t)left : BLOCK, err);

        if (n == 0)
            error_set(err, ERROR_DAMAGED,
                      "the answer of outtrayd ended after %" PRIu64 " of %" PRIu64 " octets",
                      a->length - left, a->length);
        ok = n > 0 && take(r, a, block, (size_t)n, err);
        left -= n > 0 ? (uint64_t)n : 0;
    }
    free(block);
    return ok;
}

bool http_ask(const struct http_request *request, struct http_answer *out_answer, struct error *err)
{
    struct bytes head;
    int fd;
    bool ok;

    *out_answer = (struct http_answer){.status = 0};
    bytes_init(&out_answer->body, HTTP_BODY_MAX);
    fd = http_connect(request->socket, request->timeout_ms, err);
    if (fd < 0)
        return false;
    bytes_init(&head, HTTP_HEAD_MAX);
    ok = send_request(fd, request, err) && read_head(fd, &head, out_answer, err) &&
         read_body(fd, request, &head, out_answer, err);
    bytes_done(&head);
    close(fd);
    return ok;
}

void http_answer_done(struct http_answer *a)
{
    bytes_done(&a->body);
}
