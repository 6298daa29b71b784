#include "relay/tool/login.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "relay/admin/json.h"
#include "relay/tool/ask.h"

#define POLL_MS     1000
#define LISTENERS   2 /* localhost is 127.0.0.1 in one browser and ::1 in another */
#define BACKLOG     8
#define REQUEST_MAX 16384
#define ANSWER_S    5 /* for a browser to send its request */
#define PATH_MAX_   128

struct login {
    const struct tool *t;
    struct places places;
    int listeners[LISTENERS];
    int listener_count;
    uint16_t port;
};

/* ---- how it goes ----------------------------------------------------------------------------- */

static bool is_state(const cJSON *login, const char *state)
{
    return strcmp(json_get_text(login, "state"), state) == 0;
}

static bool is_over(const cJSON *login)
{
    return is_state(login, "done") || is_state(login, "failed") || is_state(login, "none");
}

static int show_end(const struct login *l, const cJSON *login)
{
    const struct tool *t = l->t;
    const char *user = json_get_text(login, "user");
    struct error err = ERROR_INIT;

    if (is_state(login, "done")) {
        if (t->json)
            return tool_print_json(t, login);
        fprintf(t->out, "Signed in%s%s. Mailbox %s uses it from now on.\n",
                *user != '\0' ? " as " : "", user, t->argument);
        return EX_OK;
    }
    (void)error_set(
        &err, ERROR_INVALID, "%s %s%s%s%s",
        is_state(login, "none") ? "the sign-in was given up." : json_get_text(login, "problem"),
        json_get_text(login, "remedy"), *json_get_text(login, "said") != '\0' ? " (" : "",
        json_get_text(login, "said"), *json_get_text(login, "said") != '\0' ? ")" : "");
    return tool_fail(t, &err);
}

static cJSON *ask(const struct login *l, const char *method, const char *rest, struct error *err)
{
    return ask_mailbox(l->t, &l->places, method, rest, err);
}

/* ---- with a code ----------------------------------------------------------------------------- */

static void show_code(const struct login *l, const cJSON *login)
{
    const char *complete = json_get_text(login, "complete_url");

    fprintf(l->t->json ? l->t->err : l->t->out,
            "Open %s on any computer,\n"
            "type the code %s, and sign in as the mailbox's owner.\n"
            "%s%s%s"
            "Waiting; there are %.0f minutes.\n",
            json_get_text(login, "url"), json_get_text(login, "code"),
            *complete != '\0' ? "Or open " : "", complete, *complete != '\0' ? "\n" : "",
            json_get_number(login, "ends_in") / 60);
    fflush(l->t->out);
}

/* Until the daemon says how it ended. */
static cJSON *wait_for_end(const struct login *l, cJSON *login, struct error *err)
{
    bool shown = false;

    while (login != NULL && !is_over(login)) {
        if (!shown && is_state(login, "waiting")) {
            show_code(l, login);
            shown = true;
        }
        (void)poll(NULL, 0, POLL_MS);
        cJSON_Delete(login);
        login = ask(l, "GET", "login", err);
    }
    return login;
}

static cJSON *with_code(struct login *l, struct error *err)
{
    return wait_for_end(l, ask(l, "POST", "login", err), err);
}

/* ---- in a browser ---------------------------------------------------------------------------- */

static int listen_v4(uint16_t port)
{
    const struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && bind(fd, (const struct sockaddr *)&at, sizeof(at)) == 0 &&
        listen(fd, BACKLOG) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static int listen_v6(uint16_t port)
{
    const struct sockaddr_in6 at = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && bind(fd, (const struct sockaddr *)&at, sizeof(at)) == 0 &&
        listen(fd, BACKLOG) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool begin_listening(struct login *l, struct error *err)
{
    struct sockaddr_in at;
    socklen_t len = sizeof(at);
    int fd = listen_v4(0);

    if (fd < 0 || getsockname(fd, (struct sockaddr *)&at, &len) != 0) {
        if (fd >= 0)
            close(fd);
        return error_set(err, ERROR_IO, "no port of this machine could be opened: %s",
                         strerror(errno));
    }
    l->port = ntohs(at.sin_port);
    l->listeners[l->listener_count++] = fd;
    fd = listen_v6(l->port);
    if (fd >= 0)
        l->listeners[l->listener_count++] = fd;
    return true;
}

static void end_listening(struct login *l)
{
    for (int i = 0; i < l->listener_count; i++)
        close(l->listeners[i]);
}

/* Reads up to the end of the first line; what follows does not matter. */
static bool read_request(int fd, char out[REQUEST_MAX])
{
    const struct timeval limit = {.tv_sec = ANSWER_S};
    size_t len = 0;

    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    while (len < REQUEST_MAX - 1) {
        ssize_t n = recv(fd, out + len, REQUEST_MAX - 1 - len, 0);

        if (n <= 0)
            return false;
        len += (size_t)n;
        out[len] = '\0';
        if (strchr(out, '\n') != NULL)
            return true;
    }
    return false;
}

/* "GET /?QUERY HTTP/1.1": the query, or NULL when it is about something else, such as an icon. */
static char *query_of(char *request)
{
    char *start = strchr(request, '?');
    char *end = strchr(request, '\n');

    if (strncmp(request, "GET /?", strlen("GET /?")) != 0 || start == NULL || end == NULL)
        return NULL;
    start++;
    start[strcspn(start, " \r\n")] = '\0';
    return strstr(start, "code=") != NULL || strstr(start, "error=") != NULL ? start : NULL;
}

static void answer(int fd, const char *status, const char *text)
{
    dprintf(fd,
            "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n%s",
            status, strlen(text), text);
}

/* Hands what came back to the daemon, which compares the state and fetches the token. */
static void pass_on(const struct login *l, int fd, const char *query)
{
    struct error err = ERROR_INIT;
    char rest[REQUEST_MAX + PATH_MAX_];
    cJSON *login;

    (void)snprintf(rest, sizeof(rest), "login/redirect?%s", query);
    login = ask(l, "POST", rest, &err);
    answer(fd, login != NULL ? "200 OK" : "400 Bad Request",
           login != NULL ? "This page can be closed. Go back to the terminal.\n"
                         : "This does not belong to the sign-in that is under way.\n");
    cJSON_Delete(login);
}

static void serve(const struct login *l, int listener)
{
    char request[REQUEST_MAX];
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    char *query;

    if (fd < 0)
        return;
    query = read_request(fd, request) ? query_of(request) : NULL;
    if (query != NULL)
        pass_on(l, fd, query);
    else
        answer(fd, "404 Not Found", "Nothing is here.\n");
    explicit_bzero(request, sizeof(request));
    close(fd);
}

static void show_page(const struct login *l, const cJSON *login)
{
    fprintf(l->t->json ? l->t->err : l->t->out,
            "Open this page in a browser on this machine and sign in as the mailbox's owner:\n\n"
            "%s\n\n"
            "From another computer, first run there: ssh -L %u:localhost:%u THIS-MACHINE\n"
            "Waiting.\n",
            json_get_text(login, "url"), l->port, l->port);
    fflush(l->t->out);
}

static cJSON *serve_until_end(const struct login *l, cJSON *login, struct error *err)
{
    struct pollfd fds[LISTENERS];

    while (login != NULL && !is_over(login)) {
        for (int i = 0; i < l->listener_count; i++)
            fds[i] = (struct pollfd){.fd = l->listeners[i], .events = POLLIN};
        (void)poll(fds, (nfds_t)l->listener_count, POLL_MS);
        for (int i = 0; i < l->listener_count; i++)
            if ((fds[i].revents & POLLIN) != 0)
                serve(l, fds[i].fd);
        cJSON_Delete(login);
        login = ask(l, "GET", "login", err);
    }
    return login;
}

static cJSON *in_browser(struct login *l, struct error *err)
{
    char rest[PATH_MAX_];
    cJSON *login;

    if (!begin_listening(l, err))
        return NULL;
    (void)snprintf(rest, sizeof(rest), "login/browser?redirect=http%%3A%%2F%%2Flocalhost%%3A%u",
                   l->port);
    login = ask(l, "POST", rest, err);
    if (login != NULL)
        show_page(l, login);
    login = serve_until_end(l, login, err);
    end_listening(l);
    return login;
}

/* ---- the command ----------------------------------------------------------------------------- */

int login_run(const struct tool *t)
{
    struct login l = {.t = t};
    struct error err = ERROR_INIT;
    cJSON *login;
    int code;

    if (!ask_daemon(t, &l.places, &code))
        return code;
    login = t->browser ? in_browser(&l, &err) : with_code(&l, &err);
    code = login != NULL ? show_end(&l, login) : tool_fail(t, &err);
    cJSON_Delete(login);
    places_done(&l.places);
    return code;
}
